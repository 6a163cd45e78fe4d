//! `/v1/drain`: no new calls, so that the server can be stopped when the last one has ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Bytes;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::ask::said;
use super::{Ask, Problem, Seat};

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Drain {
    /// Are new calls refused?
    pub on: bool,
    /// Since when, in seconds since 1970.
    pub since: Option<i64>,
    /// When the server ends those that are left; it does not without it.
    pub until: Option<i64>,
    /// Allocations that are left.
    pub left: u64,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wish {
    on: bool,
}

impl Default for Wish {
    fn default() -> Self {
        Self { on: true }
    }
}

pub(super) fn routes() -> Router<Arc<Seat>> {
    Router::new().route("/v1/drain", get(progress).post(begin))
}

async fn progress(State(seat): State<Arc<Seat>>) -> Result<Json<Drain>, Problem> {
    Ok(Json(seat.drain().await?))
}

async fn begin(State(seat): State<Arc<Seat>>, body: Bytes) -> Result<Json<Drain>, Problem> {
    let Wish { on } = said(&body)?;
    seat.ask(|to| Ask::Drain { on, to }).await?;
    Ok(Json(seat.drain().await?))
}

impl Seat {
    /// How far it is.
    ///
    /// # Errors
    /// If not every worker answers: then it is not known what is left.
    pub(super) async fn drain(&self) -> Result<Drain, Problem> {
        let snapshot = self.snapshot().await?;
        if snapshot.workers < self.workers {
            return Err(Problem::unavailable("a worker does not answer"));
        }
        let time = |time: i64| Some(time).filter(|time| *time != 0);
        let since = time(self.flags.draining_since.load(Ordering::Relaxed));
        Ok(Drain {
            on: since.is_some(),
            since,
            until: time(self.flags.draining_until.load(Ordering::Relaxed)),
            left: snapshot.census.allocations.as_flattened().iter().sum(),
        })
    }
}
