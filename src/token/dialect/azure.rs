//! Azure Communication Services, network traversal: `POST /networkTraversal/:issueRelayConfiguration`, for programs
//! written with one of its SDKs. Requests are signed with a key (HMAC-SHA256), or bear a token.

use axum::body::Bytes;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{Fields, as_bad_request};
use crate::token::caller::Caller;
use crate::token::issue::Wish;
use crate::token::refusal::{Kind, Refusal};
use crate::token::service_key::ServiceKey;
use crate::token::site::Call;
use crate::token::{Dialect, clock, native};

const PATHS: [&str; 2] = [
    "/networktraversal/:issuerelayconfiguration",
    "/networkrelay/:issuerelayconfiguration",
];
/// The versions of the API, and what each of them knows.
const VERSIONS: [Version; 5] = [
    Version::new("2021-06-21-preview", false, false),
    Version::new("2021-09-15-preview", true, false),
    Version::new("2021-10-08-preview", true, false),
    Version::new("2022-02-01", true, false),
    Version::new("2022-03-01-preview", true, true),
];
/// How long a credential is good at most, and if nothing is said or too much.
const LONGEST: u64 = 172_800;
/// How far the clock of whoever signs may be off, in seconds.
const SKEW: u64 = 15 * 60;
const SIGNED: &str = "x-ms-date;host;x-ms-content-sha256";
const SCHEME: &str = "HMAC-SHA256 ";

#[derive(Clone, Copy)]
struct Version {
    name: &'static str,
    has_route_type: bool,
    has_ttl: bool,
}

impl Version {
    const fn new(name: &'static str, has_route_type: bool, has_ttl: bool) -> Self {
        Self {
            name,
            has_route_type,
            has_ttl,
        }
    }
}

/// Whatever its letters: SDKs differ.
pub(super) fn is_path(path: &str) -> bool {
    PATHS.iter().any(|known| path.eq_ignore_ascii_case(known))
}

pub(super) async fn answer(call: Call) -> Response {
    issue(&call)
        .await
        .unwrap_or_else(|refusal| refuse(&refusal))
}

#[derive(Default, Deserialize)]
struct Request {
    id: Option<String>,
    #[serde(rename = "routeType")]
    route_type: Option<RouteType>,
    ttl: Option<i64>,
}

/// How relays are chosen; here there is no difference.
#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum RouteType {
    Any,
    Nearest,
}

#[derive(Serialize)]
struct IceServer<'a> {
    urls: &'a [&'a str],
    username: &'a str,
    credential: &'a str,
    #[serde(rename = "routeType", skip_serializing_if = "Option::is_none")]
    route_type: Option<RouteType>,
}

async fn issue(call: &Call) -> Result<Response, Refusal> {
    if call.parts.method != Method::POST {
        return Err(Refusal::new(Kind::Method, "this takes a POST"));
    }
    let caller = authenticate(call).await?;
    let about = |refusal: Refusal| refusal.about(Dialect::Azure, &caller);
    let version = version(call).map_err(about)?;
    let request = Request::read(call.body()?, version).map_err(about)?;
    let wish = Wish {
        user: request.id.as_deref().filter(|id| !id.is_empty()),
        ttl: Some(request.ttl(version).map_err(about)?),
        longest: Some(LONGEST),
        ..Wish::default()
    };
    let credential = call
        .site
        .grant(Dialect::Azure, call.source, &caller, &wish)?;
    let urls = [credential.turn(), credential.stun()].concat();
    let server = |route_type| IceServer {
        urls: &urls,
        username: &credential.username,
        credential: &credential.password,
        route_type,
    };
    let servers = match (version.has_route_type, request.route_type) {
        (false, _) => vec![server(None)],
        (true, Some(route_type)) => vec![server(Some(route_type))],
        (true, None) => [RouteType::Any, RouteType::Nearest]
            .map(|route_type| server(Some(route_type)))
            .into(),
    };
    let body = json!({ "expiresOn": clock::dotnet(credential.expiry), "iceServers": servers });
    Ok(native::answer(StatusCode::OK, &body))
}

impl Request {
    fn read(body: &Bytes, version: Version) -> Result<Self, Refusal> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        let request: Self =
            serde_json::from_slice(body).map_err(|error| Refusal::malformed(error.to_string()))?;
        // A version that knows nothing of a field takes no notice of it.
        Ok(Self {
            route_type: request.route_type.filter(|_| version.has_route_type),
            ..request
        })
    }

    fn ttl(&self, version: Version) -> Result<u64, Refusal> {
        match self.ttl.filter(|_| version.has_ttl) {
            None => Ok(LONGEST),
            Some(ttl) => match u64::try_from(ttl) {
                Ok(ttl @ 1..=LONGEST) => Ok(ttl),
                Ok(1..) => Ok(LONGEST),
                Ok(0) | Err(_) => Err(Refusal::malformed("`ttl` must be 1 at least")),
            },
        }
    }
}

fn version(call: &Call) -> Result<Version, Refusal> {
    let fields = Fields::of(call.parts.uri.query().unwrap_or_default());
    let named = fields
        .get("api-version")
        .ok_or_else(|| Refusal::malformed(NO_VERSION))?;
    let known = VERSIONS.iter().find(|version| version.name == named);
    known
        .copied()
        .ok_or_else(|| Refusal::malformed(BAD_VERSION))
}

const NO_VERSION: &str = "The api-version query parameter is required.";
const BAD_VERSION: &str = "The api-version query parameter names no supported version.";

async fn authenticate(call: &Call) -> Result<Caller, Refusal> {
    let authorization = call.header(header::AUTHORIZATION.as_str());
    let Some(parameters) = authorization.and_then(|text| text.strip_prefix(SCHEME)) else {
        return call.site.authenticate(call.source, call.bearer()).await;
    };
    match signer(call, parameters) {
        Ok(key) => Ok(key.into()),
        Err(what) => {
            call.site.limits.source(call.source)?;
            Err(Refusal::bad_credentials(what))
        }
    }
}

/// The key that the request is signed with; or what is wrong with the signature.
fn signer<'c>(call: &'c Call, parameters: &str) -> Result<&'c ServiceKey, &'static str> {
    let signature = parameters
        .strip_prefix("SignedHeaders=")
        .and_then(|rest| rest.strip_prefix(SIGNED))
        .and_then(|rest| rest.strip_prefix("&Signature="))
        .ok_or("SignedHeaders must be x-ms-date;host;x-ms-content-sha256, with a Signature")?;
    let signature = STANDARD
        .decode(signature)
        .map_err(|_| "The signature is not base64.")?;
    let header = |name| call.header(name).ok_or("A signed header is missing.");
    let (date, host, hash) = (
        header("x-ms-date")?,
        header("host")?,
        header("x-ms-content-sha256")?,
    );
    let dated = clock::parse_http_date(date).ok_or("x-ms-date is no date.")?;
    if dated.abs_diff(clock::unix()) > SKEW {
        return Err("x-ms-date is too far from the time here.");
    }
    let body = call.body.as_ref().map_err(|_| "The body is too long.")?;
    let own = STANDARD.encode(Sha256::digest(body));
    if !bool::from(own.as_bytes().ct_eq(hash.as_bytes())) {
        return Err("x-ms-content-sha256 is not the hash of the body.");
    }
    let target = call.parts.uri.path_and_query();
    let target = target.map_or("/", |target| target.as_str());
    let text = format!("POST\n{target}\n{date};{host};{hash}");
    // All of them, however soon one fits.
    let keys = call.site.settings.keys.iter();
    keys.fold(None, |found, key| {
        if is_signed_by(key, &text, &signature) {
            Some(key)
        } else {
            found
        }
    })
    .ok_or("The signature is not good.")
}

/// Keys of this service are base64; one that is not never signs.
fn is_signed_by(key: &ServiceKey, text: &str, signature: &[u8]) -> bool {
    STANDARD.decode(key.secret()).is_ok_and(|secret| {
        let mac = <Hmac<Sha256>>::new_from_slice(&secret).expect("an HMAC key has any length");
        mac.chain_update(text).verify_slice(signature).is_ok()
    })
}

/// `{"error":{"code","message"}}`
fn refuse(refusal: &Refusal) -> Response {
    let refusal = as_bad_request(refusal.clone());
    let code = match refusal.kind {
        Kind::NoCredentials | Kind::BadCredentials => "Denied",
        Kind::Forbidden | Kind::Origin => "Forbidden",
        Kind::NotFound => "NotFound",
        Kind::Method => "MethodNotAllowed",
        Kind::Malformed if refusal.detail == NO_VERSION => "MissingApiVersionParameter",
        Kind::Malformed if refusal.detail == BAD_VERSION => "UnsupportedApiVersionValue",
        Kind::Malformed | Kind::Unprocessable | Kind::MediaType => "BadRequest",
        Kind::TooLarge => "RequestEntityTooLarge",
        Kind::TooSlow => "RequestTimeout",
        Kind::TooMany(_) => "TooManyRequests",
        Kind::Unavailable => "ServiceUnavailable",
    };
    let body = json!({ "error": { "code": code, "message": refusal.detail } });
    let json = [(header::CONTENT_TYPE, "application/json")];
    let mut response = (refusal.status(), json, body.to_string()).into_response();
    let headers = response.headers_mut();
    headers.insert("x-ms-error-code", HeaderValue::from_static(code));
    if refusal.status() == StatusCode::UNAUTHORIZED {
        let schemes = HeaderValue::from_static("HMAC-SHA256, Bearer");
        headers.insert(header::WWW_AUTHENTICATE, schemes);
    }
    refusal.head(&mut response);
    response
}
