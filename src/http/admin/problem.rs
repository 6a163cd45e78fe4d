//! What went wrong, as `application/problem+json` (RFC 9457).

use axum::Json;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

const PROBLEM: &str = "application/problem+json";

/// What went wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// The same for all problems of a kind.
    pub title: String,
    /// The HTTP status code.
    pub status: u16,
    /// This one, and what to do about it.
    pub detail: String,
    /// Several at once: what is wrong with a configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Mistake>,
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistake {
    /// The key, as `relay.ports`; empty for the file as a whole.
    pub key: String,
    /// Where it stands: `file:line:column`.
    pub place: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl Problem {
    /// A problem with a status code.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    /// Nothing is there.
    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// The request says something that it cannot.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// The configuration is bad.
    pub fn bad_configuration(errors: Vec<Mistake>) -> Self {
        let detail = "the configuration is bad: what was in force stays in force";
        Self {
            errors,
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
        }
    }

    /// It cannot be done as things are.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// Somebody takes too long.
    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = [(header::CONTENT_TYPE, PROBLEM)];
        (status, kind, Json(self)).into_response()
    }
}

/// The longest word of the framework's about a request that it cannot read, in bytes.
const LONGEST_WORD: usize = 64 * 1024;

/// Says what the framework refuses, a query, a path or a body, like everything else.
pub(super) async fn spoken(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_said = kind.is_some_and(|kind| kind == PROBLEM);
    if is_said || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let word = to_bytes(response.into_body(), LONGEST_WORD).await;
    let word = word.unwrap_or_default();
    let detail = match word.is_empty() {
        true => "this cannot be understood".into(),
        false => String::from_utf8_lossy(&word),
    };
    Problem::new(status, detail).into_response()
}
