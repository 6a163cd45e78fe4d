//! Twilio's Network Traversal Service: `POST /2010-04-01/Accounts/{sid}/Tokens.json`. The account is the id of a key, or
//! its tenant; the password is the key.

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Fields, as_bad_request};
use crate::token::caller::{By, Caller};
use crate::token::issue::{Credential, Wish};
use crate::token::native::answer;
use crate::token::refusal::{Kind, Refusal};
use crate::token::site::{Call, Site};
use crate::token::{Dialect, clock};

/// The longest, and what is taken if nothing is said.
const LONGEST: u64 = 86_400;

pub(super) fn routes() -> Router<Arc<Site>> {
    Router::new().route("/2010-04-01/Accounts/{sid}/Tokens.json", post(tokens))
}

async fn tokens(Path(sid): Path<String>, call: Call) -> Response {
    let issued = issue(&call, &sid).await;
    issued.map_or_else(refuse, |credential| {
        let now = clock::rfc2822(credential.expiry.saturating_sub(credential.ttl));
        let body = json!({
            "account_sid": sid,
            "date_created": now,
            "date_updated": now,
            "ice_servers": ice_servers(&credential),
            "password": *credential.password,
            "ttl": credential.ttl.to_string(),
            "username": credential.username,
        });
        answer(StatusCode::CREATED, &body)
    })
}

/// Each URL by itself, twice: once as it was, and once as browsers want it.
fn ice_servers(credential: &Credential<'_>) -> Vec<Value> {
    let stun = credential.stun().into_iter();
    let stun = stun.map(|url| json!({ "url": url, "urls": url }));
    let turn = credential.turn().into_iter().map(|url| {
        json!({
            "url": url,
            "urls": url,
            "username": credential.username,
            "credential": *credential.password,
        })
    });
    stun.chain(turn).collect()
}

async fn issue<'c>(call: &'c Call, sid: &str) -> Result<Credential<'c>, Refusal> {
    let caller = caller(call, sid).await?;
    let about = |refusal: Refusal| refusal.about(Dialect::Twilio, &caller);
    let form = std::str::from_utf8(call.body()?)
        .map_err(|_| about(Refusal::malformed("the form is not text")))?;
    let ttl = Fields::of(form).seconds("Ttl").map_err(about)?;
    let wish = Wish {
        ttl: Some(ttl.unwrap_or(LONGEST)),
        longest: Some(LONGEST),
        ..Wish::default()
    };
    call.site
        .grant(Dialect::Twilio, call.source, &caller, &wish)
}

async fn caller(call: &Call, sid: &str) -> Result<Caller, Refusal> {
    let presented = basic(call);
    let key = presented.as_ref().map(|(_, key)| key.as_str());
    let caller = call.site.authenticate(call.source, key).await?;
    let named = presented.as_ref().map_or("", |(name, _)| name);
    let is_own = caller.by == By::Key(named.to_owned());
    if is_own && (sid == named || sid == caller.tenant) {
        Ok(caller)
    } else {
        Err(Refusal::bad_credentials("Authenticate"))
    }
}

/// Name and password of HTTP Basic (RFC 7617).
fn basic(call: &Call) -> Option<(String, Zeroizing<String>)> {
    let authorization = call.header(header::AUTHORIZATION.as_str())?;
    let (scheme, text) = authorization.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = Zeroizing::new(STANDARD.decode(text.trim()).ok()?);
    let (name, password) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
    Some((name.to_owned(), Zeroizing::new(password.to_owned())))
}

/// `{"code","message","more_info","status"}`
fn refuse(refusal: Refusal) -> Response {
    let refusal = as_bad_request(refusal);
    let code = match refusal.kind {
        Kind::NoCredentials | Kind::BadCredentials | Kind::Forbidden | Kind::Origin => 20_003,
        Kind::NotFound => 20_404,
        Kind::Method => 20_004,
        Kind::TooMany(_) => 20_429,
        Kind::Malformed
        | Kind::TooLarge
        | Kind::TooSlow
        | Kind::MediaType
        | Kind::Unprocessable => 20_001,
        Kind::Unavailable => 20_503,
    };
    let is_unknown = refusal.status() == StatusCode::UNAUTHORIZED;
    let message = if is_unknown {
        "Authenticate"
    } else {
        &refusal.detail
    };
    let body = json!({
        "code": code,
        "message": message,
        "more_info": format!("https://www.twilio.com/docs/errors/{code}"),
        "status": refusal.status().as_u16(),
    });
    let json = [(header::CONTENT_TYPE, "application/json")];
    let mut response = (refusal.status(), json, body.to_string()).into_response();
    if is_unknown {
        let scheme = HeaderValue::from_static("Basic realm=\"turnd\"");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, scheme);
    }
    refusal.head(&mut response);
    response
}
