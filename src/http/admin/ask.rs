//! What only the daemon can do is asked of it: it does one thing after the other.

use axum::body::Bytes;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use super::{Problem, Reload, Seat};

/// Something that the daemon is asked to do.
pub enum Ask {
    /// Take no new calls, or take them again; not if the server is ending.
    Drain {
        /// No new calls?
        on: bool,
        /// Whether it was done.
        to: oneshot::Sender<Result<(), Problem>>,
    },
    /// Read the configuration again.
    Reload {
        /// Only tell what would change?
        dry_run: bool,
        /// What has changed.
        to: oneshot::Sender<Result<Reload, Problem>>,
    },
    /// Log what is of this level, until the configuration is read again.
    LogLevel {
        /// As in `[log] level`.
        level: String,
        /// Whether it is one.
        to: oneshot::Sender<Result<(), Problem>>,
    },
}

/// Questions that wait; whoever has more to ask waits longer.
const ASKS: usize = 8;

/// Where the daemon hears what it is asked.
pub fn asks() -> (mpsc::Sender<Ask>, mpsc::Receiver<Ask>) {
    mpsc::channel(ASKS)
}

impl Seat {
    /// Asks the daemon, and waits for what it says.
    pub(super) async fn ask<T>(
        &self,
        ask: impl FnOnce(oneshot::Sender<Result<T, Problem>>) -> Ask,
    ) -> Result<T, Problem> {
        let (to, answer) = oneshot::channel();
        let ending = || Problem::unavailable("the server is ending");
        self.daemon.send(ask(to)).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())?
    }
}

/// What a request says; one that says nothing says the default.
pub(super) fn said<T: DeserializeOwned + Default>(body: &Bytes) -> Result<T, Problem> {
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body).map_err(|error| Problem::bad_request(error.to_string()))
}
