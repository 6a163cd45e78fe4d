//! `/v1/revocations`: what has been revoked, and what is to be.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::{Problem, Seat};
use crate::revocation::{Entry, Failure, Revoker, Words};

/// How many are told at once.
const PAGE: usize = 1000;

/// What became of a revocation.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Revoked {
    /// How many calls it has ended.
    pub ended: usize,
    /// When it is forgotten, in seconds since 1970.
    pub until: u64,
}

/// What became of a revocation that was to be taken back.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Pardoned {
    /// Was there one?
    pub pardoned: bool,
}

/// Some of what has been revoked, in the order it was.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct RevocationList {
    /// A thousand at most.
    pub revocations: Vec<Entry>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// The `place` of the last one that is known.
    #[serde(default)]
    after: i64,
}

pub(super) fn routes() -> Router<Arc<Seat>> {
    Router::new().route("/v1/revocations", get(list).post(revoke).delete(pardon))
}

async fn list(
    State(seat): State<Arc<Seat>>,
    Query(asked): Query<Asked>,
) -> Result<Json<RevocationList>, Problem> {
    let listed = revoker(&seat)?.list(asked.after, PAGE).await;
    let revocations = listed.map_err(|failure| refused(&failure))?;
    Ok(Json(RevocationList { revocations }))
}

async fn revoke(
    State(seat): State<Arc<Seat>>,
    Json(words): Json<Words>,
) -> Result<Json<Revoked>, Problem> {
    let order = words.order();
    let order = order.map_err(|bad| Problem::bad_request(bad.to_string()))?;
    let outcome = revoker(&seat)?.revoke(order).await;
    let outcome = outcome.map_err(|failure| refused(&failure))?;
    Ok(Json(Revoked {
        ended: outcome.ended.unwrap_or(0),
        until: outcome.term.until,
    }))
}

async fn pardon(
    State(seat): State<Arc<Seat>>,
    Json(words): Json<Words>,
) -> Result<Json<Pardoned>, Problem> {
    let revoked = words.revoked();
    let revoked = revoked.map_err(|bad| Problem::bad_request(bad.to_string()))?;
    let pardoned = revoker(&seat)?.pardon(revoked).await;
    let pardoned = pardoned.map_err(|failure| refused(&failure))?;
    Ok(Json(Pardoned { pardoned }))
}

fn revoker(seat: &Seat) -> Result<&Revoker, Problem> {
    seat.revoker.as_ref().ok_or_else(|| {
        let detail = "this server does not know of revocations: write enabled = true under [revocation] and start it anew, which tells why if it cannot";
        Problem::new(StatusCode::CONFLICT, detail)
    })
}

fn refused(failure: &Failure) -> Problem {
    match failure {
        Failure::TooLate => Problem::bad_request(failure.to_string()),
        Failure::Full(_) | Failure::NotKept { .. } | Failure::Unreadable(_) | Failure::Absent => {
            Problem::unavailable(failure.to_string())
        }
    }
}
