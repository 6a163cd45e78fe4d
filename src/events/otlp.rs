//! Sessions as OpenTelemetry spans, posted to a collector: one for each, made when it has ended.
//!
//! Spans wait in a bounded queue and go out in batches on the thread of the other events, so that whatever is lost is
//! counted with them. The SDK's own batch processor has a thread of its own and loses what is too much without a count.
//! What a collector does not take is tried again for a while, by the SDK's exporter and its rules; there is no spool:
//! who must have every event has the webhook.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{Array, InstrumentationScope, KeyValue, StringValue, Value};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    Protocol, RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{
    IdGenerator as _, RandomIdGenerator, SpanData, SpanEvents, SpanExporter as _, SpanLinks,
};
use prost::Message as _;
use reqwest::redirect::Policy;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::warn;

use super::Otlp;
use super::event::{anonymous, name};
use super::webhook::reason;
use crate::plane::{Sighted, Sighting};
use crate::turn::{EndReason, Ended, Traffic};

/// Spans that may wait; more are lost.
const QUEUE: usize = 4096;
/// Spans in one request.
const BATCH: usize = 512;
/// How long spans are waited for that could go along.
const GATHER: Duration = Duration::from_millis(200);
/// How long the collector may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// After how long a batch that is not taken is not tried again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Spans on their way to a collector.
pub(super) struct Spans {
    exporter: SpanExporter,
    ids: RandomIdGenerator,
    waiting: RefCell<VecDeque<SpanData>>,
    /// How many are in a request.
    posted: Cell<usize>,
    /// Told when a span comes, and when some are gone.
    more: Notify,
    anonymize: bool,
    lost: Arc<AtomicU64>,
}

impl Spans {
    /// # Errors
    /// If there can be no client, or a variable of the environment that OpenTelemetry knows is wrong.
    pub(super) fn new(settings: &Otlp, anonymize: bool, lost: &Arc<AtomicU64>) -> io::Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(ANSWER)
            .redirect(Policy::none())
            .no_proxy()
            .default_headers(settings.headers.clone())
            .build()
            .map_err(io::Error::other)?;
        let lost = Arc::clone(lost);
        let post = Post {
            client,
            lost: Arc::clone(&lost),
        };
        let retry = RetryPolicy::recommended()
            .with_max_retries(4)
            .with_initial_delay(Duration::from_secs(1))
            .with_max_delay(Duration::from_secs(10))
            .with_max_jitter(Duration::from_secs(1));
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&settings.url)
            .with_timeout(PATIENCE)
            .with_retry_policy(retry)
            .with_http_client(post)
            .build()
            .map_err(|error| io::Error::other(format!("otlp: {error}")))?;
        let ids = RandomIdGenerator::default();
        exporter.set_resource(&resource(&ids));
        Ok(Self {
            exporter,
            ids,
            waiting: RefCell::default(),
            posted: Cell::default(),
            more: Notify::new(),
            anonymize,
            lost,
        })
    }

    /// Makes a span of a session that has ended.
    pub(super) fn take(&self, seen: &Sighting) {
        let Sighted::Ended(ended) = &seen.what else {
            return;
        };
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() == QUEUE {
            return self.lose(1, "too many wait for the collector");
        }
        waiting.push_back(self.span(ended, seen));
        self.more.notify_waiters();
    }

    /// Posts what waits, for as long as it is polled.
    pub(super) async fn post(&self) {
        loop {
            while self.waiting.borrow().is_empty() {
                self.more.notified().await;
            }
            if self.waiting.borrow().len() < BATCH {
                sleep(GATHER).await;
            }
            let batch: Vec<SpanData> = {
                let mut waiting = self.waiting.borrow_mut();
                let count = waiting.len().min(BATCH);
                waiting.drain(..count).collect()
            };
            self.posted.set(batch.len());
            let outcome = self.exporter.export(batch).await;
            let count = self.posted.take();
            if outcome.is_err() {
                // Why, each try has told.
                self.lose(count, "the collector did not take them");
            }
            self.more.notify_waiters();
        }
    }

    /// Waits until nothing waits.
    pub(super) async fn emptied(&self) {
        while self.left() > 0 {
            self.more.notified().await;
        }
    }

    /// Counts what will not be posted any more.
    pub(super) fn give_up(&self) {
        let left = self.left();
        if left > 0 {
            self.lose(left, "the server ends before the collector has taken them");
        }
    }

    fn left(&self) -> usize {
        self.waiting.borrow().len() + self.posted.get()
    }

    fn lose(&self, count: usize, why: &str) {
        self.lost.fetch_add(count as u64, Ordering::Relaxed);
        warn!(count, "spans of sessions are lost: {why}");
    }

    fn span(&self, ended: &Ended, seen: &Sighting) -> SpanData {
        let end = wall(seen.instant);
        SpanData {
            // The session's name is the span's, by which each is found with the other.
            span_context: SpanContext::new(
                self.ids.new_trace_id(),
                SpanId::from(ended.session.0),
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Server,
            name: "allocation".into(),
            start_time: end.checked_sub(ended.age).unwrap_or(end),
            end_time: end,
            attributes: attributes(ended, seen.tenant.as_deref(), self.anonymize),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: match failure(ended.reason) {
                Some(reason) => Status::error(reason),
                None => Status::Unset,
            },
            instrumentation_scope: InstrumentationScope::builder("turnd")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        }
    }
}

/// What is told of a session: by the names of OpenTelemetry's semantic conventions where there is one.
fn attributes(ended: &Ended, tenant: Option<&str>, anonymize: bool) -> Vec<KeyValue> {
    let (transport, server) = (ended.five_tuple.transport, ended.five_tuple.server);
    let carrier = if transport.is_stream() { "tcp" } else { "udp" };
    let relays = ended.relays.iter();
    let relays: Vec<StringValue> = relays.map(|(_, at)| at.to_string().into()).collect();
    let mut attributes = vec![
        KeyValue::new("network.transport", carrier),
        KeyValue::new("server.address", server.ip().to_string()),
        KeyValue::new("server.port", i64::from(server.port())),
        KeyValue::new("user.id", name(&ended.username)),
        KeyValue::new("turn.session", ended.session.to_string()),
        KeyValue::new("turn.transport", transport.label()),
        KeyValue::new("turn.relays", Value::Array(Array::String(relays))),
        KeyValue::new("turn.reason", ended.reason.label()),
    ];
    attributes.extend(client(ended.five_tuple.client, anonymize));
    attributes.extend(tenant.map(|tenant| KeyValue::new("turn.tenant", tenant.to_owned())));
    attributes.extend(failure(ended.reason).map(|reason| KeyValue::new("error.type", reason)));
    let Traffic { packets, bytes } = ended.to_peer;
    attributes.push(KeyValue::new("turn.to_peer.packets", whole(packets)));
    attributes.push(KeyValue::new("turn.to_peer.bytes", whole(bytes)));
    let Traffic { packets, bytes } = ended.to_client;
    attributes.push(KeyValue::new("turn.to_client.packets", whole(packets)));
    attributes.push(KeyValue::new("turn.to_client.bytes", whole(bytes)));
    attributes
}

fn client(client: SocketAddr, anonymize: bool) -> Vec<KeyValue> {
    if anonymize {
        let network = anonymous(client).ip().to_string();
        return vec![KeyValue::new("client.address", network)];
    }
    vec![
        KeyValue::new("client.address", client.ip().to_string()),
        KeyValue::new("client.port", i64::from(client.port())),
    ]
}

/// OpenTelemetry has no unsigned numbers.
fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What ended a session that its client had not given up: whatever is not the client's own doing.
fn failure(reason: EndReason) -> Option<&'static str> {
    let is_the_clients = matches!(
        reason,
        EndReason::Expired | EndReason::Deleted | EndReason::ConnectionClosed
    );
    (!is_the_clients).then(|| reason.label())
}

/// The wall clock's time of a moment. A worker notes only its seconds, and sessions may be shorter.
#[expect(
    clippy::disallowed_methods,
    reason = "spans are dated by the wall clock"
)]
fn wall(moment: Instant) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(moment.elapsed()).unwrap_or(now)
}

/// What tells spans of this process from others': `OTEL_RESOURCE_ATTRIBUTES` adds to it, and has the last word.
fn resource(ids: &RandomIdGenerator) -> Resource {
    let instance = uuid(ids.new_trace_id().to_bytes());
    Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", "turnd"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance),
        ])
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()))
        .build()
}

/// A random UUID (RFC 9562 §5.4), as the conventions want an instance to be named.
fn uuid(random: [u8; 16]) -> String {
    let bits = u128::from_be_bytes(random) & !(0xf << 76) & !(0b11 << 62) | 4 << 76 | 0b10 << 62;
    let digits = format!("{bits:032x}");
    let (a, b, c) = (&digits[..8], &digits[8..12], &digits[12..16]);
    format!("{a}-{b}-{c}-{}-{}", &digits[16..20], &digits[20..])
}

/// The way to the collector. The exporter tells nobody why it fails, nor what the collector takes only in part.
#[derive(Debug)]
struct Post {
    client: reqwest::Client,
    lost: Arc<AtomicU64>,
}

#[async_trait]
impl HttpClient for Post {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        match self.client.send_bytes(request).await {
            Ok(answer) if answer.status().is_success() => {
                self.count_rejected(answer.body());
                Ok(answer)
            }
            Ok(answer) => {
                let status = answer.status();
                warn!("the collector of spans does not take them: it answers {status}");
                Ok(answer)
            }
            Err(error) => {
                let error = without_url(error);
                let why = reason(&*error);
                warn!("the collector of spans does not take them: {why}");
                Err(error)
            }
        }
    }
}

impl Post {
    /// A collector may take a request and leave out some of its spans.
    fn count_rejected(&self, answer: &Bytes) {
        let answer = ExportTraceServiceResponse::decode(answer.clone()).unwrap_or_default();
        let rejected = answer.partial_success.unwrap_or_default();
        let count = u64::try_from(rejected.rejected_spans).unwrap_or_default();
        if count > 0 {
            self.lost.fetch_add(count, Ordering::Relaxed);
            let why = rejected.error_message;
            warn!(
                count,
                "spans of sessions are lost: the collector rejects them: {why}"
            );
        }
    }
}

/// There may be a token in the URL.
fn without_url(error: HttpError) -> HttpError {
    match error.downcast::<reqwest::Error>() {
        Ok(error) => error.without_url().into(),
        Err(error) => error,
    }
}
