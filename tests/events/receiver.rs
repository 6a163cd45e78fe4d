//! A receiver of webhooks with moods.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;

use crate::serve::serve;

pub(crate) const SECRET: &str = "MARKER-webhook-webhook-webhook";

/// What it does with a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Refuse,
    Hang,
    Take,
    /// Will not have that sessions begin.
    TakeEnds,
    /// Has never heard of us.
    SendAway,
}

struct Inner {
    mood: Mutex<Mood>,
    taken: Mutex<Vec<Value>>,
    forged: AtomicUsize,
    hung: AtomicUsize,
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
            forged: AtomicUsize::new(0),
            hung: AtomicUsize::new(0),
        });
        let router = Router::new()
            .route("/events", post(take))
            .with_state(Arc::clone(&inner));
        let at = serve(router);
        Self { inner, at }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/events", self.at)
    }

    pub(crate) fn feel(&self, mood: Mood) {
        *self.inner.mood.lock().unwrap() = mood;
    }

    /// The events that it has taken.
    pub(crate) fn taken(&self) -> Vec<Value> {
        self.inner.taken.lock().unwrap().clone()
    }

    /// How many requests were not signed right.
    pub(crate) fn forged(&self) -> usize {
        self.inner.forged.load(Ordering::SeqCst)
    }

    /// How many requests it has left hanging, or sent away.
    pub(crate) fn hung(&self) -> usize {
        self.inner.hung.load(Ordering::SeqCst)
    }
}

async fn take(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: String) -> StatusCode {
    if !is_signed(&headers, &body) {
        inner.forged.fetch_add(1, Ordering::SeqCst);
    }
    let mood = *inner.mood.lock().unwrap();
    match mood {
        Mood::Refuse => StatusCode::INTERNAL_SERVER_ERROR,
        Mood::Hang => {
            inner.hung.fetch_add(1, Ordering::SeqCst);
            std::future::pending().await
        }
        Mood::SendAway => {
            inner.hung.fetch_add(1, Ordering::SeqCst);
            StatusCode::FORBIDDEN
        }
        Mood::TakeEnds if body.contains("\"event\":\"start\"") => StatusCode::BAD_REQUEST,
        Mood::Take | Mood::TakeEnds => {
            let body: Value = serde_json::from_str(&body).unwrap();
            let events = body["events"].as_array().unwrap();
            assert!((1..=100).contains(&events.len()));
            inner.taken.lock().unwrap().extend(events.iter().cloned());
            StatusCode::NO_CONTENT
        }
    }
}

/// As the libraries of Standard Webhooks check it.
fn is_signed(headers: &HeaderMap, body: &str) -> bool {
    let header = |name: &str| headers.get(name).unwrap().to_str().unwrap();
    let signed = format!(
        "{}.{}.{body}",
        header("webhook-id"),
        header("webhook-timestamp")
    );
    let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    let mac = mac.chain_update(signed).finalize().into_bytes();
    header("webhook-signature") == format!("v1,{}", STANDARD.encode(mac))
}
