//! `/v1/log-level`: what is worth a line, until the configuration is read again.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::{Ask, Problem, Seat};

/// What is worth a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLevel {
    /// As in `[log] level`.
    pub level: String,
}

pub(super) fn routes() -> Router<Arc<Seat>> {
    Router::new().route("/v1/log-level", get(level).put(change))
}

async fn level(State(seat): State<Arc<Seat>>) -> Json<LogLevel> {
    let level = seat.facts().log_level;
    Json(LogLevel { level })
}

async fn change(State(seat): State<Arc<Seat>>, body: Bytes) -> Result<Json<LogLevel>, Problem> {
    let LogLevel { level } =
        serde_json::from_slice(&body).map_err(|error| Problem::bad_request(error.to_string()))?;
    seat.ask(|to| Ask::LogLevel { level, to }).await?;
    Ok(self::level(State(seat)).await)
}
