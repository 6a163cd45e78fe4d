//! The operator's seat: an API over HTTP that shows what the server does and changes it, under `/v1`.
//!
//! It is reached through a Unix socket, whose peers the kernel vouches for, and where it is asked for, through a
//! listener that takes a token. It has a thread of its own, answers few at a time and none of them for long; so
//! whoever asks for much waits alone. Errors are `application/problem+json`.
//!
//! A resource is a file here: what it looks like, its routes, and a line in `router`.

mod ask;
mod best;
mod drain;
mod explain;
mod filter;
mod live;
mod lock;
mod log_level;
mod look;
mod problem;
mod reload;
mod revocations;
mod serve;
mod session;
mod sessions;
mod socket;
mod status;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::Status as Flags;
use crate::plane::Handle;
use crate::revocation::Revoker;
use crate::turn::{SessionId, Transport};
use live::Live;
use look::{Counters, Looks, SHORTEST};

pub use ask::{Ask, asks};
pub use drain::Drain;
pub use lock::Lock;
pub use log_level::LogLevel;
pub use problem::{Mistake, Problem};
pub use reload::{Affected, AffectedSession, Change, Reload, When};
pub use revocations::{Pardoned, RevocationList, Revoked};
pub use serve::{serve_listener, serve_socket};
pub use session::{Binding, Claims, Peer, Rate, RefusedRequest, Session, Software, user_of};
pub use sessions::{Kicked, SessionList};
pub use socket::{Admitted, Socket, SocketFile};
pub use status::{Certificate, Entry, Ports, Status, Volume, Workers};

/// The longest body of a request, in bytes.
const LONGEST_BODY: usize = 64 * 1024;

/// What the server was told that is worth to be seen.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Where clients come in.
    pub listeners: Vec<(Transport, SocketAddr)>,
    /// What peers see.
    pub relays: Vec<IpAddr>,
    /// The names of the secrets that vouch for users.
    pub secrets: Vec<String>,
    /// How many users have a password of their own.
    pub users: usize,
    /// What is logged.
    pub log_level: String,
}

/// What the resources are made of.
pub struct Seat {
    plane: Handle,
    workers: u64,
    flags: Arc<Flags>,
    facts: Mutex<Facts>,
    /// Takes credentials back, if that can be done here.
    revoker: Option<Revoker>,
    daemon: mpsc::Sender<Ask>,
    /// One look at a time: who comes meanwhile sees what it brings.
    sessions: tokio::sync::Mutex<Looks<SessionId>>,
    totals: tokio::sync::Mutex<Looks<()>>,
    live: Live,
}

impl Seat {
    /// A view of a plane of so many workers, and of the daemon around it.
    pub fn new(
        plane: Handle,
        workers: u64,
        flags: Arc<Flags>,
        facts: Facts,
        daemon: mpsc::Sender<Ask>,
    ) -> Self {
        Self {
            plane,
            workers,
            flags,
            facts: Mutex::new(facts),
            revoker: None,
            daemon,
            sessions: tokio::sync::Mutex::default(),
            totals: tokio::sync::Mutex::default(),
            live: Live::default(),
        }
    }

    /// The same, through which credentials can be taken back.
    #[must_use]
    pub fn with_revoker(self, revoker: Option<Revoker>) -> Self {
        Self { revoker, ..self }
    }

    /// Changes what is said to be logged.
    pub fn set_log_level(&self, level: &str) {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        facts.log_level = level.to_owned();
    }

    /// Replaces what the server was told.
    pub fn set_facts(&self, facts: Facts) {
        *self.facts.lock().unwrap_or_else(PoisonError::into_inner) = facts;
    }

    fn facts(&self) -> Facts {
        let facts = self.facts.lock();
        facts.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Two looks at the traffic of every session, unless there have been two just now.
    async fn look_at_sessions(&self) -> tokio::sync::MutexGuard<'_, Looks<SessionId>> {
        let mut looks = self.sessions.lock().await;
        if looks.is_due(Instant::now()) {
            let seen = self.traffic_of_sessions().await;
            looks.put(Instant::now(), seen);
        }
        if !looks.tells() {
            sleep(SHORTEST).await;
            let seen = self.traffic_of_sessions().await;
            looks.put(Instant::now(), seen);
        }
        looks
    }

    async fn traffic_of_sessions(&self) -> HashMap<SessionId, Counters> {
        let mut seen = HashMap::new();
        let see = |session: crate::turn::Session| {
            let bits = [session.to_peer.bytes * 8, session.to_client.bytes * 8];
            seen.insert(session.id, bits);
            true
        };
        self.plane.each_session(|_| true, see).await;
        seen
    }
}

/// Seconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "the end of credentials and certificates is a time of day"
)]
fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Every resource.
fn router(seat: Arc<Seat>) -> Router {
    Router::new()
        .merge(status::routes())
        .merge(sessions::routes())
        .merge(explain::routes())
        .merge(revocations::routes())
        .merge(live::routes())
        .merge(drain::routes())
        .merge(reload::routes())
        .merge(log_level::routes())
        .fallback(|| async { Problem::not_found("there is nothing of this name here") })
        .method_not_allowed_fallback(|| async {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            Problem::new(status, "this cannot be done with what is there")
        })
        .layer(middleware::from_fn(problem::spoken))
        .layer(middleware::from_fn(serve::in_time))
        .layer(middleware::from_fn(serve::signed))
        .layer(DefaultBodyLimit::max(LONGEST_BODY))
        .with_state(seat)
}
