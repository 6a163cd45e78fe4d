//! `GET /v1/explain?session=|user=|client=|peer=`: why a call fails.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;

use super::{Problem, Seat, unix_now};
use crate::explain::{self, Explanation};
use crate::turn::Question;

/// Sessions, and sorts of refusals, that are looked at.
const MOST: usize = 20;

pub(super) fn routes() -> Router<Arc<Seat>> {
    Router::new().route("/v1/explain", get(explain))
}

/// Whom it is about.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    session: Option<String>,
    user: Option<String>,
    client: Option<String>,
    peer: Option<String>,
}

async fn explain(
    State(seat): State<Arc<Seat>>,
    Query(asked): Query<Asked>,
) -> Result<Json<Explanation>, Problem> {
    let question = asked.question()?;
    let only_peer = question.session.is_none()
        && question.user.is_none()
        && question.client.is_none()
        && question.peer.is_some();
    let peer = asked.peer.as_deref().map(place).transpose()?;
    let verdict = match peer.filter(|_| only_peer) {
        Some((ip, port)) => {
            let silent = || Problem::unavailable("no worker answers");
            let (rule, reach) = seat
                .plane
                .rule(SocketAddr::new(ip, port.unwrap_or(0)))
                .await
                .ok_or_else(silent)?;
            Some(explain::peer(ip, rule, reach))
        }
        None => None,
    };
    let answers = seat.plane.ask(question, MOST).await;
    let sessions: Vec<_> = answers.live.into_iter().chain(answers.ended).collect();
    // Nobody who was refused a session has said anything of a peer.
    let refused = if only_peer { &[] } else { &answers.refused[..] };
    let ip = peer.map(|(ip, _)| ip);
    let mut explanation = explain::explain(&sessions, refused, ip, unix_now());
    if let Some(verdict) = verdict {
        explanation.findings.insert(0, verdict);
    }
    explanation.more = answers.more;
    Ok(Json(explanation))
}

impl Asked {
    fn question(&self) -> Result<Question, Problem> {
        let Self {
            session,
            user,
            client,
            peer,
        } = self;
        if [session, user, client, peer]
            .iter()
            .all(|one| one.is_none())
        {
            return Err(Problem::bad_request(
                "why what? say session, user, client or peer",
            ));
        }
        let session = session.as_deref().map(str::parse).transpose();
        let session = session.map_err(|error| Problem::bad_request(format!("session: {error}")))?;
        let client = client.as_deref().map(place).transpose()?;
        let peer = peer.as_deref().map(place).transpose()?;
        Ok(Question {
            session,
            user: user.clone(),
            client: client.map(|(ip, _)| ip),
            client_port: client.and_then(|(_, port)| port),
            peer: peer.map(|(ip, _)| ip),
        })
    }
}

/// An address, with a port or without.
fn place(text: &str) -> Result<(IpAddr, Option<u16>), Problem> {
    if let Ok(ip) = text.parse() {
        return Ok((ip, None));
    }
    let address: SocketAddr = text.parse().map_err(|_| {
        let detail =
            "an address is written as 192.0.2.7, 192.0.2.7:5000, 2001:db8::7 or [2001:db8::7]:5000";
        Problem::bad_request(detail)
    })?;
    Ok((address.ip(), Some(address.port())))
}
