//! `/v1/sessions`: the allocations, as a list and one by one, and how they are ended.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::best::Best;
use super::filter::Filter;
use super::session::{Binding, Peer, Rate, Session};
use super::{Problem, Seat};
use crate::turn::{self, EndReason, Holder, SessionId};

/// How many are listed if nobody says.
const LISTED: usize = 100;
/// The most that are listed at once.
const MOST_LISTED: usize = 10_000;

/// Some of the sessions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionList {
    /// The first of those that were asked for, in the order that was asked for.
    pub sessions: Vec<Session>,
    /// How many were asked for, listed or not.
    pub matching: usize,
    /// How many there are.
    pub total: usize,
}

/// How many sessions were ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kicked {
    /// So many.
    pub ended: usize,
}

/// What is looked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Asked {
    pub(super) user: Option<String>,
    pub(super) tenant: Option<String>,
    pub(super) client: Option<String>,
    pub(super) relay: Option<String>,
    pub(super) search: Option<String>,
    limit: Option<usize>,
    sort: Order,
    rates: bool,
}

/// Which come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Order {
    #[default]
    New,
    Old,
    Rate,
    Bytes,
    Packets,
}

pub(super) fn routes() -> Router<Arc<Seat>> {
    Router::new()
        .route("/v1/sessions", get(list).delete(kick_all))
        .route("/v1/sessions/{id}", get(one).delete(kick))
}

async fn list(
    State(seat): State<Arc<Seat>>,
    Query(asked): Query<Asked>,
) -> Result<Json<SessionList>, Problem> {
    let limit = asked.limit.unwrap_or(LISTED);
    if limit > MOST_LISTED {
        return Err(Problem::bad_request(format!(
            "limit: at most {MOST_LISTED}"
        )));
    }
    let filter = Filter::of(&asked)?;
    let looks = if asked.rates || asked.sort == Order::Rate {
        Some(seat.look_at_sessions().await)
    } else {
        None
    };
    let rate = |id| looks.as_ref().and_then(|looks| looks.rate(&id));
    let mut best = Best::new(limit);
    let (mut matching, mut total) = (0, 0);
    let see = |session: turn::Session| {
        total += 1;
        if filter.fits(&session) {
            matching += 1;
            let rate = rate(session.id).map(Rate::from);
            best.offer(asked.sort.rank(&session, rate), (session, rate));
        }
        true
    };
    if !seat.plane.each_session(|_| true, see).await {
        // Not a list that looks whole and is not.
        return Err(Problem::unavailable("a worker does not answer"));
    }
    drop(looks);
    let sessions = best.sorted().into_iter();
    let sessions = sessions.map(|(session, rate)| Session::of(&session, rate));
    Ok(Json(SessionList {
        sessions: sessions.collect(),
        matching,
        total,
    }))
}

async fn one(
    State(seat): State<Arc<Seat>>,
    Path(id): Path<String>,
) -> Result<Json<Session>, Problem> {
    let id = id_of(&id)?;
    let rate = seat.look_at_sessions().await.rate(&id);
    let found = seat.plane.sessions(move |holder| holder.session == id, 1);
    let found = found.await.pop().ok_or_else(|| gone(id))?;
    let mut session = Session::of(&found, rate.map(Rate::from));
    let peers = found.permissions.iter();
    session.peers = peers
        .map(|(address, left)| Peer {
            address: *address,
            expires_in: left.as_secs(),
        })
        .collect();
    let channels = found.channels.iter();
    session.bindings = channels
        .map(|(channel, peer, left)| Binding {
            channel: *channel,
            peer: *peer,
            expires_in: left.as_secs(),
        })
        .collect();
    Ok(Json(session))
}

async fn kick(
    State(seat): State<Arc<Seat>>,
    Path(id): Path<String>,
) -> Result<Json<Kicked>, Problem> {
    let id = id_of(&id)?;
    let which = move |holder: &Holder<'_>| holder.session == id;
    match seat.plane.end_sessions(EndReason::Kicked, which).await {
        0 => Err(gone(id)),
        ended => Ok(Json(Kicked { ended })),
    }
}

async fn kick_all(
    State(seat): State<Arc<Seat>>,
    Query(asked): Query<Asked>,
) -> Result<Json<Kicked>, Problem> {
    let narrow = [&asked.user, &asked.tenant, &asked.client];
    if narrow.iter().all(|word| word.is_none()) {
        return Err(Problem::bad_request("whose? say user, tenant or client"));
    }
    if asked.relay.is_some() || asked.search.is_some() {
        let detail = "sessions are ended by user, tenant and client, or one by one";
        return Err(Problem::bad_request(detail));
    }
    let filter = Filter::of(&asked)?;
    let which = move |holder: &Holder<'_>| filter.chooses(holder);
    let ended = seat.plane.end_sessions(EndReason::Kicked, which).await;
    Ok(Json(Kicked { ended }))
}

fn id_of(text: &str) -> Result<SessionId, Problem> {
    text.parse()
        .map_err(|error: turn::NotASession| Problem::bad_request(error.to_string()))
}

fn gone(id: SessionId) -> Problem {
    Problem::not_found(format!("there is no session {id}, or not any more"))
}

impl Order {
    /// Those with the highest rank come first; sessions of one rank by their names.
    fn rank(self, session: &turn::Session, rate: Option<Rate>) -> (u64, u64) {
        let age = session.age.as_millis() as u64;
        let (there, back) = (session.to_peer, session.to_client);
        let rank = match self {
            Self::New => u64::MAX - age,
            Self::Old => age,
            Self::Rate => rate.map_or(0, Rate::sum),
            Self::Bytes => there.bytes + back.bytes,
            Self::Packets => there.packets + back.packets,
        };
        (rank, session.id.0)
    }
}
