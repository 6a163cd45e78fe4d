//! Amazon Kinesis Video Streams signaling, GetIceServerConfig: `POST /v1/get-ice-server-config`. Requests bear a key or
//! a token; signatures of that company's own kind are not read.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;
use serde_json::json;

use super::as_bad_request;
use crate::token::Dialect;
use crate::token::issue::{Credential, Wish};
use crate::token::native::answer;
use crate::token::refusal::{Kind, Refusal};
use crate::token::site::{Call, Site};

pub(super) fn routes() -> Router<Arc<Site>> {
    Router::new().route("/v1/get-ice-server-config", post(ice_server_config))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    #[serde(rename = "ChannelARN")]
    channel: Option<String>,
    client_id: Option<String>,
    service: Option<String>,
    username: Option<String>,
}

async fn ice_server_config(call: Call) -> Response {
    let issued = issue(&call).await;
    issued.map_or_else(refuse, |credential| {
        let server = json!({
            "Uris": credential.turn(),
            "Username": credential.username,
            "Password": *credential.password,
            "Ttl": credential.ttl,
        });
        answer(StatusCode::OK, &json!({ "IceServerList": [server] }))
    })
}

async fn issue(call: &Call) -> Result<Credential<'_>, Refusal> {
    let presented = call.bearer().or_else(|| call.header("x-api-key"));
    let caller = call.site.authenticate(call.source, presented).await?;
    let about = |refusal: Refusal| refusal.about(Dialect::Aws, &caller);
    let request: Request = serde_json::from_slice(call.body()?)
        .map_err(|error| about(Refusal::malformed(error.to_string())))?;
    if request.channel.is_none() {
        return Err(about(Refusal::malformed("ChannelARN is missing")));
    }
    if request.service.is_some_and(|service| service != "TURN") {
        return Err(about(Refusal::malformed("Service must be TURN")));
    }
    let wish = Wish {
        user: request.username.as_deref().or(request.client_id.as_deref()),
        ..Wish::default()
    };
    call.site.grant(Dialect::Aws, call.source, &caller, &wish)
}

/// `{"Message"}`, and the kind of error in a header.
fn refuse(refusal: Refusal) -> Response {
    let refusal = as_bad_request(refusal);
    let kind = match refusal.kind {
        Kind::NoCredentials | Kind::BadCredentials | Kind::Forbidden | Kind::Origin => {
            "NotAuthorizedException"
        }
        Kind::NotFound | Kind::Method => "ResourceNotFoundException",
        Kind::TooMany(_) => "ClientLimitExceededException",
        Kind::Malformed
        | Kind::TooLarge
        | Kind::TooSlow
        | Kind::MediaType
        | Kind::Unprocessable => "InvalidArgumentException",
        Kind::Unavailable => "ServiceUnavailableException",
    };
    let body = json!({ "Message": refusal.detail });
    let json = [(header::CONTENT_TYPE, "application/json")];
    let mut response = (refusal.status(), json, body.to_string()).into_response();
    response
        .headers_mut()
        .insert("x-amzn-errortype", HeaderValue::from_static(kind));
    refusal.head(&mut response);
    response
}
