//! `POST /v1/relay/credentials`, and what tells clients of it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::issue::{Credential, Wish};
use super::refusal::{Kind, Refusal};
use super::site::{Call, Site};
use super::url::{IceUrl, Way};
use super::{Dialect, clock};

pub(super) const JSON: &str = "application/json";

pub(super) fn routes() -> Router<Arc<Site>> {
    Router::new()
        .route("/v1/relay/credentials", post(credentials))
        .route("/.well-known/relay", get(relay))
        .route("/openapi.json", get(openapi))
}

async fn credentials(call: Call) -> Response {
    issue(&call)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

async fn issue(call: &Call) -> Result<Response, Refusal> {
    let caller = call.site.authenticate(call.source, call.bearer()).await?;
    let request = Request::read(call).map_err(|refusal| refusal.about(Dialect::Native, &caller))?;
    let wish = request
        .wish()
        .map_err(|refusal| refusal.about(Dialect::Native, &caller))?;
    let credential = call
        .site
        .grant(Dialect::Native, call.source, &caller, &wish)?;
    Ok(answer(StatusCode::CREATED, &Answer::new(&credential)))
}

/// An answer with a password in it, which nobody may keep.
pub(super) fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    let text = serde_json::to_string(body).expect("texts and numbers can be written");
    let headers = [
        (header::CONTENT_TYPE, JSON),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, text).into_response()
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    ttl: Option<u64>,
    user: Option<String>,
    region: Option<String>,
    transports: Option<Vec<String>>,
    limits: Option<Limits>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Limits {
    allocations: Option<u32>,
    bits_per_second: Option<u64>,
    peers: Option<String>,
}

impl Request {
    /// No body asks for nothing in particular.
    fn read(call: &Call) -> Result<Self, Refusal> {
        let body = call.body()?;
        if body.is_empty() {
            return Ok(Self::default());
        }
        if !call.is_of_type(JSON) {
            let detail = "send the body as `Content-Type: application/json`, or none";
            return Err(Refusal::new(Kind::MediaType, detail));
        }
        let request = serde_json::from_slice(body).map_err(|error| {
            if error.is_data() {
                Refusal::unprocessable(error.to_string())
            } else {
                Refusal::malformed(error.to_string())
            }
        })?;
        // A list of the values in their order would be understood as well.
        if body.trim_ascii_start().first() == Some(&b'{') {
            Ok(request)
        } else {
            Err(Refusal::unprocessable("the body must be an object"))
        }
    }

    fn wish(&self) -> Result<Wish<'_>, Refusal> {
        let limits = self.limits.as_ref();
        let ways = self.transports.as_ref().map(|words| {
            let ways = words.iter().map(|word| Way::named(word));
            ways.collect::<Option<Vec<Way>>>()
                .ok_or_else(|| Refusal::unprocessable("`transports` are of udp, tcp, tls and dtls"))
        });
        Ok(Wish {
            user: self.user.as_deref(),
            ttl: self.ttl,
            longest: None,
            allocations: limits.and_then(|limits| limits.allocations),
            bits_per_second: limits.and_then(|limits| limits.bits_per_second),
            policy: limits.and_then(|limits| limits.peers.as_deref()),
            region: self.region.as_deref(),
            ways: ways.transpose()?,
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    expires_on: String,
    ttl: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential_id: Option<&'a str>,
    ice_servers: Vec<IceServer<'a>>,
    ice_transport_policy: &'static str,
    refresh_after: u64,
}

/// An `RTCIceServer`.
#[derive(Serialize)]
pub(super) struct IceServer<'a> {
    pub(super) urls: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) credential: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<&'a str>,
}

impl<'a> IceServer<'a> {
    /// What stands in `iceServers`: a server to find one's own address, if there is any, and one that relays.
    pub(super) fn list(credential: &'a Credential<'_>, region: Option<&'a str>) -> Vec<Self> {
        let stun = Self {
            urls: credential.stun(),
            username: None,
            credential: None,
            region: None,
        };
        let turn = Self {
            urls: credential.turn(),
            username: Some(&credential.username),
            credential: Some(&credential.password),
            region,
        };
        let mut list = vec![stun, turn];
        list.retain(|server| !server.urls.is_empty());
        list
    }
}

impl<'a> Answer<'a> {
    fn new(credential: &'a Credential<'_>) -> Self {
        Self {
            expires_on: clock::rfc3339(credential.expiry),
            ttl: credential.ttl,
            credential_id: credential.id.as_deref(),
            ice_servers: IceServer::list(credential, credential.region),
            ice_transport_policy: "all",
            refresh_after: credential.ttl * 4 / 5,
        }
    }
}

/// What there is, for everybody: no secret.
async fn relay(State(site): State<Arc<Site>>) -> Response {
    let settings = &site.settings;
    let regions = settings.regions.iter().map(|region| {
        let urls: Vec<&str> = region.urls.iter().map(IceUrl::as_str).collect();
        json!({ "name": region.name.as_deref().unwrap_or("auto"), "urls": urls })
    });
    let dialects = settings.dialects.iter().map(|dialect| dialect.label());
    let body = json!({
        "realm": settings.realm,
        "regions": regions.collect::<Vec<_>>(),
        "credentials": "/v1/relay/credentials",
        "dialects": dialects.collect::<Vec<_>>(),
        "maxTtl": settings.max_ttl,
    });
    public(body.to_string())
}

async fn openapi(State(site): State<Arc<Site>>) -> Response {
    public(site.document.clone())
}

fn public(text: impl Into<Body>) -> Response {
    let mut response = ([(header::CONTENT_TYPE, JSON)], text.into()).into_response();
    response.headers_mut().insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=300"),
    );
    response
}
