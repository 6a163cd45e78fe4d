//! `/v1/reload`: the configuration, read again; or only what would come of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::ask::said;
use super::problem::Mistake;
use super::{Ask, Problem, Seat};

/// What has changed, or would.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Reload {
    /// Has it been done?
    pub applied: bool,
    /// The keys whose values differ.
    pub changes: Vec<Change>,
    /// What becomes of running calls.
    pub sessions: Affected,
    /// What ought to be looked at in the configuration.
    pub warnings: Vec<Mistake>,
}

/// A key whose value differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The key, as `relay.ports`.
    pub key: String,
    /// Its value in force; nothing where it is not given.
    pub old: Option<String>,
    /// Its new value. Neither, where what lies in the file that it names has changed.
    pub new: Option<String>,
    /// When it comes into force.
    pub when: When,
}

/// When a change comes into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// With the reload.
    Now,
    /// When the server starts anew.
    Restart,
}

/// What becomes of running calls: how many there are of each kind, and the first of them by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Affected {
    /// They end at once.
    pub ended: usize,
    /// They end with their lifetime: their clients cannot log in any more.
    pub expiring: usize,
    /// The same, if they were made with the secret that is gone.
    pub perhaps_expiring: usize,
    /// They lose peers at once.
    pub losing_peers: usize,
    /// Some of them.
    pub named: Vec<AffectedSession>,
}

/// A call that is affected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AffectedSession {
    /// Its name.
    pub id: String,
    /// Its user.
    pub user: String,
    /// Where the client is.
    pub client: SocketAddr,
    /// What becomes of it: `ended`, `expiring`, `perhaps expiring` or `losing peers`.
    pub fate: String,
    /// Peers that it loses.
    pub peers: Vec<IpAddr>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Wish {
    dry_run: bool,
}

pub(super) fn routes() -> Router<Arc<Seat>> {
    Router::new().route("/v1/reload", post(reload))
}

async fn reload(State(seat): State<Arc<Seat>>, body: Bytes) -> Result<Json<Reload>, Problem> {
    let Wish { dry_run } = said(&body)?;
    let reload = seat.ask(|to| Ask::Reload { dry_run, to }).await?;
    Ok(Json(reload))
}
