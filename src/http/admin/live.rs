//! `GET /v1/live`: what the server does, second by second, as server-sent events, for as long as somebody looks.
//!
//! All who look see the same: the workers are asked once a second, however many look. Who comes sees the last ten
//! minutes first, one second of ten: for that, the workers are asked now and then when nobody looks, too.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper::body::{Bytes, Frame};
use serde::Serialize;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::{Problem, Seat, Status};
use crate::http::{page, process};
use crate::metrics::{Outcomes, Snapshot};
use crate::turn::{Family, Transport};

/// Who looks at a time.
const MOST_LOOKING: usize = 16;
const SECOND: Duration = Duration::from_secs(1);
/// One event of so many seconds is remembered, for ten minutes.
const REMEMBERED_EVERY: Duration = Duration::from_secs(10);
const REMEMBERED: usize = 60;

/// What all who look share.
pub(super) struct Live {
    start: Instant,
    places: Arc<Semaphore>,
    last: Mutex<Option<(u64, Bytes)>>,
    past: std::sync::Mutex<VecDeque<Bytes>>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            places: Arc::new(Semaphore::new(MOST_LOOKING)),
            last: Mutex::default(),
            past: std::sync::Mutex::default(),
        }
    }
}

/// One second.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Moment {
    #[serde(flatten)]
    status: Status,
    /// When the counters were read, in seconds of a clock that only goes forward.
    clock: f64,
    /// Allocations by the client's transport and the relay's family.
    allocations_by_family: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    /// Answers to Allocate: granted, challenged, refused.
    allocates: BTreeMap<&'static str, u64>,
    /// How many Allocate requests each secret has vouched for.
    secrets_used: BTreeMap<String, u64>,
    /// Connections with peers, of TCP allocations.
    peer_connections: u64,
    streams: Results,
    tls_handshakes: Results,
    dtls_handshakes: Results,
    dtls_associations: u64,
    proxy_headers: Results,
    web: Results,
    /// Workers started afresh.
    restarts: u64,
    receive: Received,
    process: Process,
}

#[derive(Serialize)]
struct Results {
    ok: u64,
    failed: u64,
}

impl From<Outcomes> for Results {
    fn from(Outcomes { ok, failed }: Outcomes) -> Self {
        Self { ok, failed }
    }
}

/// Receive calls on UDP sockets, and what they brought.
#[derive(Serialize)]
struct Received {
    calls: u64,
    packets: u64,
}

/// What the kernel tells of the process.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    cpu_seconds: f64,
    resident_bytes: f64,
    open_files: f64,
    /// Nothing without a limit.
    max_files: Option<f64>,
}

pub(super) fn routes() -> Router<Arc<Seat>> {
    Router::new().route("/v1/live", get(live))
}

async fn live(State(seat): State<Arc<Seat>>) -> Result<Response, Problem> {
    let place = Arc::clone(&seat.live.places).try_acquire_owned();
    let place = place.map_err(|_| {
        let detail = format!("{MOST_LOOKING} look already, and that is as many as may");
        Problem::unavailable(detail)
    })?;
    let (to, events) = mpsc::channel(1);
    tokio::spawn(tell(seat, to, place));
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::new(Events(events))).into_response())
}

/// Tells one who looks, until there is nobody at the other end. Who reads too slowly misses seconds.
async fn tell(seat: Arc<Seat>, to: mpsc::Sender<Bytes>, place: OwnedSemaphorePermit) {
    let past = seat.live.past().concat();
    if !past.is_empty() && to.send(Bytes::from(past)).await.is_err() {
        return;
    }
    loop {
        let second = seat.live.second();
        let event = seat.look(second).await;
        if to.send(event).await.is_err() {
            break;
        }
        let next = seat.live.start + SECOND * u32::try_from(second + 1).unwrap_or(u32::MAX);
        tokio::select! {
            () = sleep_until(next) => {}
            () = to.closed() => break,
        }
    }
    drop(place);
}

impl Live {
    /// The number of the second that runs.
    fn second(&self) -> u64 {
        self.start.elapsed().as_secs()
    }

    fn past(&self) -> Vec<Bytes> {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.iter().cloned().collect()
    }

    fn remember(&self, event: Bytes) {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        if past.len() == REMEMBERED {
            past.pop_front();
        }
        past.push_back(event);
    }
}

impl Seat {
    /// Remembers what is seen now and then, for as long as it is polled.
    pub(super) async fn remember(&self) {
        let mut due = interval(REMEMBERED_EVERY);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            let event = self.look(self.live.second()).await;
            self.live.remember(event);
        }
    }

    /// The event of this second. The first who asks has it made.
    async fn look(&self, second: u64) -> Bytes {
        let mut last = self.live.last.lock().await;
        if let Some((_, event)) = last.as_ref().filter(|(of, _)| *of >= second) {
            return event.clone();
        }
        let event = match self.snapshot().await {
            Ok(snapshot) => self.moment(&snapshot).event(),
            Err(_) => Bytes::from_static(b"event: late\ndata: {}\n\n"),
        };
        *last = Some((second, event.clone()));
        event
    }

    fn moment(&self, snapshot: &Snapshot) -> Moment {
        let cells = &snapshot.cells;
        Moment {
            status: self.status_of(snapshot, None),
            clock: self.live.start.elapsed().as_secs_f64(),
            allocations_by_family: allocations_by_family(snapshot),
            allocates: page::allocates(cells).into(),
            secrets_used: snapshot.secret_uses.clone(),
            peer_connections: snapshot.peer_connections,
            streams: cells.streams.into(),
            tls_handshakes: cells.handshakes.into(),
            dtls_handshakes: cells.dtls.handshakes.into(),
            dtls_associations: cells.dtls.associations,
            proxy_headers: cells.proxy_headers.into(),
            web: cells.web.into(),
            restarts: cells.restarts,
            receive: Received {
                calls: cells.batches.calls.iter().sum(),
                packets: cells.batches.packets,
            },
            process: Process::now(),
        }
    }
}

impl Moment {
    fn event(&self) -> Bytes {
        let json = serde_json::to_string(self).expect("plain numbers and texts");
        Bytes::from(format!("data: {json}\n\n"))
    }
}

impl Process {
    fn now() -> Self {
        let samples: BTreeMap<_, _> = process::counters()
            .into_iter()
            .chain(process::gauges())
            .map(|(name, _, value)| (name, value))
            .collect();
        let value = |name| samples.get(name).copied().unwrap_or(0.0);
        Self {
            cpu_seconds: value("process_cpu_seconds_total"),
            resident_bytes: value("process_resident_memory_bytes"),
            open_files: value("process_open_fds"),
            max_files: Some(value("process_max_fds")).filter(|most| most.is_finite()),
        }
    }
}

fn allocations_by_family(
    snapshot: &Snapshot,
) -> BTreeMap<&'static str, BTreeMap<&'static str, u64>> {
    let of = |transport: Transport| {
        let live = &snapshot.census.allocations[transport.index()];
        Family::ALL.map(|family| (family.label(), live[family.index()]))
    };
    Transport::ALL
        .map(|transport| (transport.label(), of(transport).into()))
        .into()
}

/// The body of an answer that does not end.
struct Events(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let event = self.0.poll_recv(context);
        event.map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}
