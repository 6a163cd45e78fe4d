//! Cloudflare Realtime TURN: `POST /v1/turn/keys/{id}/credentials/…`, where `{id}` is the id of the key that is presented.

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;
use serde_json::json;

use super::as_bad_request;
use crate::revocation::Words;
use crate::token::Dialect;
use crate::token::caller::{By, Caller};
use crate::token::issue::{Credential, Wish};
use crate::token::native::{IceServer, answer};
use crate::token::refusal::{Kind, Refusal};
use crate::token::revoke::revoke;
use crate::token::site::{Call, Site};

/// 48 hours; who asks for more is refused.
const LONGEST: u64 = 172_800;

pub(super) fn routes() -> Router<Arc<Site>> {
    Router::new()
        .route(
            "/v1/turn/keys/{id}/credentials/generate-ice-servers",
            post(ice_servers),
        )
        .route("/v1/turn/keys/{id}/credentials/generate", post(one_server))
        .route(
            "/v1/turn/keys/{id}/credentials/{username}/revoke",
            post(revoked),
        )
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    ttl: Option<u64>,
    custom_identifier: Option<String>,
}

async fn ice_servers(Path(id): Path<String>, call: Call) -> Response {
    let issued = issue(&call, &id).await;
    issued.map_or_else(refuse, |credential| {
        let body = json!({ "iceServers": IceServer::list(&credential, None) });
        answer(StatusCode::CREATED, &body)
    })
}

/// What came before: one server for everything.
async fn one_server(Path(id): Path<String>, call: Call) -> Response {
    let issued = issue(&call, &id).await;
    issued.map_or_else(refuse, |credential| {
        let urls = [credential.stun(), credential.turn()].concat();
        let server = json!({
            "urls": urls,
            "username": credential.username,
            "credential": *credential.password,
        });
        answer(StatusCode::CREATED, &json!({ "iceServers": server }))
    })
}

/// The name is all of what it knows of a credential.
async fn revoked(Path((id, username)): Path<(String, String)>, call: Call) -> Response {
    take_back(&call, &id, username)
        .await
        .map_or_else(refuse, |()| StatusCode::NO_CONTENT.into_response())
}

async fn take_back(call: &Call, id: &str, username: String) -> Result<(), Refusal> {
    let caller = caller(call, id).await?;
    let words = Words {
        username: Some(username),
        ..Words::default()
    };
    revoke(call, Dialect::Cloudflare, &caller, words).await
}

async fn issue<'c>(call: &'c Call, id: &str) -> Result<Credential<'c>, Refusal> {
    let caller = caller(call, id).await?;
    let about = |refusal: Refusal| refusal.about(Dialect::Cloudflare, &caller);
    let body = call.body()?;
    let request: Request = if body.is_empty() {
        Request::default()
    } else {
        serde_json::from_slice(body)
            .map_err(|error| about(Refusal::malformed(error.to_string())))?
    };
    if request.ttl.is_some_and(|ttl| !(1..=LONGEST).contains(&ttl)) {
        let what = format!("`ttl` must be 1 to {LONGEST}");
        return Err(about(Refusal::malformed(what)));
    }
    let wish = Wish {
        user: request
            .custom_identifier
            .as_deref()
            .filter(|user| !user.is_empty()),
        ttl: request.ttl,
        ..Wish::default()
    };
    call.site
        .grant(Dialect::Cloudflare, call.source, &caller, &wish)
}

/// The path names the key, the token is the key.
async fn caller(call: &Call, id: &str) -> Result<Caller, Refusal> {
    let caller = call.site.authenticate(call.source, call.bearer()).await?;
    if caller.by == By::Key(id.to_owned()) {
        Ok(caller)
    } else {
        Err(Refusal::bad_credentials(
            "the token is not that of this key",
        ))
    }
}

/// The envelope of this company's API.
fn refuse(refusal: Refusal) -> Response {
    let refusal = as_bad_request(refusal);
    let code = match refusal.kind {
        Kind::NoCredentials | Kind::BadCredentials => 10_000,
        Kind::TooMany(_) => 971,
        Kind::Forbidden | Kind::Origin => 10_001,
        Kind::NotFound | Kind::Method => 7_003,
        Kind::Malformed
        | Kind::TooLarge
        | Kind::TooSlow
        | Kind::MediaType
        | Kind::Unprocessable => 10_005,
        Kind::Unavailable => 10_013,
    };
    let body = json!({
        "success": false,
        "errors": [{ "code": code, "message": refusal.detail }],
        "messages": [],
        "result": null,
    });
    let json = [(header::CONTENT_TYPE, "application/json")];
    let mut response = (refusal.status(), json, body.to_string()).into_response();
    refusal.head(&mut response);
    response
}
