//! draft-uberti-behave-turn-rest-00, as Janus and others ask, and STUNner's `/ice`.
//!
//! A key may stand in the query, where servers like to log it: this one does not.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use serde_json::json;

use super::Fields;
use crate::token::Dialect;
use crate::token::caller::Caller;
use crate::token::issue::{Credential, Wish};
use crate::token::native::answer;
use crate::token::refusal::{Kind, Refusal};
use crate::token::site::{Call, Site};

pub(super) fn routes() -> Router<Arc<Site>> {
    Router::new().route("/turn", get(turn).post(turn))
}

/// Both services answer here.
pub(super) fn root() -> Router<Arc<Site>> {
    Router::new().route("/", get(turn).post(turn))
}

pub(super) fn ice() -> Router<Arc<Site>> {
    Router::new().route("/ice", get(ice_config).post(ice_config))
}

#[derive(Serialize)]
struct Turn<'a> {
    username: &'a str,
    password: &'a str,
    ttl: u64,
    uris: Vec<&'a str>,
}

async fn turn(call: Call) -> Response {
    let asked = Asked::read(&call);
    let granted = asked.grant(&call, Dialect::TurnRest).await;
    granted.map_or_else(IntoResponse::into_response, |credential| {
        let body = Turn {
            username: &credential.username,
            password: &credential.password,
            ttl: credential.ttl,
            uris: credential.turn(),
        };
        answer(StatusCode::OK, &body)
    })
}

async fn ice_config(call: Call) -> Response {
    let asked = Asked::read(&call);
    let policy = match asked.fields.get("iceTransportPolicy") {
        None | Some("all") => "all",
        Some("relay") => "relay",
        Some(_) => {
            return Refusal::malformed("`iceTransportPolicy` is all or relay").into_response();
        }
    };
    let granted = asked.grant(&call, Dialect::Stunner).await;
    granted.map_or_else(IntoResponse::into_response, |credential| {
        let server = json!({
            "username": credential.username,
            "credential": *credential.password,
            "urls": credential.turn(),
        });
        let body = json!({ "iceServers": [server], "iceTransportPolicy": policy });
        answer(StatusCode::OK, &body)
    })
}

/// The query, and what stands in the body if it is a form.
struct Asked {
    fields: Fields,
}

impl Asked {
    fn read(call: &Call) -> Self {
        let mut fields = Fields::of(call.parts.uri.query().unwrap_or_default());
        if call.is_of_type("application/x-www-form-urlencoded")
            && let Ok(body) = call.body()
            && let Ok(form) = std::str::from_utf8(body)
        {
            fields.0.extend(Fields::of(form).0);
        }
        Self { fields }
    }

    async fn grant<'c>(&self, call: &'c Call, dialect: Dialect) -> Result<Credential<'c>, Refusal> {
        call.body()?;
        let caller = self.caller(call).await?;
        if self.fields.get("service") != Some("turn") {
            let refusal = Refusal::malformed("`service` must be turn");
            return Err(refusal.about(dialect, &caller));
        }
        let wish = Wish {
            user: self.fields.get("username").filter(|user| !user.is_empty()),
            ttl: self
                .fields
                .seconds("ttl")
                .map_err(|refusal| refusal.about(dialect, &caller))?,
            ..Wish::default()
        };
        call.site.grant(dialect, call.source, &caller, &wish)
    }

    /// The key stands wherever a client has room for it.
    async fn caller(&self, call: &Call) -> Result<Caller, Refusal> {
        let key = self.fields.get("key").or_else(|| self.fields.get("api"));
        let key = key.or_else(|| call.header("x-api-key"));
        let presented = key.or_else(|| call.bearer()).filter(|key| !key.is_empty());
        let caller = call.site.authenticate(call.source, presented).await;
        caller.map_err(|refusal| {
            if refusal.kind == Kind::NoCredentials {
                Refusal {
                    detail: "send a key, as `key` in the query or in an X-API-Key header".into(),
                    ..refusal
                }
            } else {
                refusal
            }
        })
    }
}
