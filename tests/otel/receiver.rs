//! A collector of spans with moods, by the schema of OpenTelemetry itself.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message as _;

use crate::serve::serve;

/// What it does with a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Take,
    /// Takes all but one span of each request.
    Reject,
    /// Wants none of it, ever.
    Refuse,
    /// Wants it later.
    Busy,
    Hang,
}

struct Inner {
    mood: Mutex<Mood>,
    taken: Mutex<Vec<ResourceSpans>>,
    headers: Mutex<Vec<HeaderMap>>,
}

pub(crate) struct Receiver {
    inner: Arc<Inner>,
    at: SocketAddr,
}

impl Receiver {
    pub(crate) fn start(mood: Mood) -> Self {
        let inner = Arc::new(Inner {
            mood: Mutex::new(mood),
            taken: Mutex::default(),
            headers: Mutex::default(),
        });
        let router = Router::new()
            .route("/v1/traces", post(take))
            .with_state(Arc::clone(&inner));
        let at = serve(router);
        Self { inner, at }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.at)
    }

    pub(crate) fn feel(&self, mood: Mood) {
        *self.inner.mood.lock().unwrap() = mood;
    }

    /// What it was asked with, each time.
    pub(crate) fn headers(&self) -> Vec<HeaderMap> {
        self.inner.headers.lock().unwrap().clone()
    }

    /// What it has taken: the spans, with what they say of where they are from.
    pub(crate) fn taken(&self) -> Vec<ResourceSpans> {
        self.inner.taken.lock().unwrap().clone()
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        let scopes = self.taken().into_iter().flat_map(|part| part.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }
}

async fn take(
    State(inner): State<Arc<Inner>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Vec<u8>) {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    inner.headers.lock().unwrap().push(headers);
    let mood = *inner.mood.lock().unwrap();
    let mut answer = ExportTraceServiceResponse::default();
    match mood {
        Mood::Refuse => return (StatusCode::BAD_REQUEST, Vec::new()),
        Mood::Busy => return (StatusCode::SERVICE_UNAVAILABLE, Vec::new()),
        Mood::Hang => std::future::pending().await,
        Mood::Take | Mood::Reject => {
            let request = ExportTraceServiceRequest::decode(body).unwrap();
            let mut parts = request.resource_spans;
            if mood == Mood::Reject {
                parts[0].scope_spans[0].spans.pop();
                answer.partial_success = Some(ExportTracePartialSuccess {
                    rejected_spans: 1,
                    error_message: "one is too many".to_owned(),
                });
            }
            inner.taken.lock().unwrap().extend(parts);
        }
    }
    (StatusCode::OK, answer.encode_to_vec())
}

/// The value of an attribute, if it is there: numbers in words, lists with commas.
pub(crate) fn value(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    Some(words(found.value.as_ref().unwrap()))
}

fn words(value: &AnyValue) -> String {
    let value = value.value.as_ref().unwrap();
    if let Value::StringValue(text) = value {
        return text.clone();
    }
    if let Value::IntValue(number) = value {
        return number.to_string();
    }
    let Value::ArrayValue(list) = value else {
        panic!("nothing is told as {value:?}");
    };
    let words: Vec<String> = list.values.iter().map(words).collect();
    words.join(",")
}
