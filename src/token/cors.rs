//! Which pages may ask (the CORS protocol of the Fetch standard): those of origins that the operator names, letter
//! by letter, and the service's own. There are no cookies, and no wildcard.

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// How a request stands to the list of origins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// No page: a program; or a page of this service itself.
    None,
    /// A page on the list.
    Listed(HeaderValue),
    /// A browser asks on behalf of such a page whether it may ask.
    Preflight(HeaderValue),
    /// A page that is not on the list.
    Foreign,
}

pub(super) fn judge(origins: &[String], method: &Method, headers: &HeaderMap) -> Origin {
    let mut named = headers.get_all(header::ORIGIN).iter();
    let (origin, another) = (named.next(), named.next());
    let Some(origin) = origin else {
        return Origin::None;
    };
    if another.is_none() && is_own(origin, headers) {
        return Origin::None;
    }
    let is_listed = origins
        .iter()
        .any(|listed| listed.as_bytes() == origin.as_bytes());
    if !is_listed || another.is_some() {
        return Origin::Foreign;
    }
    let asks = headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if method == Method::OPTIONS && asks {
        Origin::Preflight(origin.clone())
    } else {
        Origin::Listed(origin.clone())
    }
}

/// Whether a page has asked the place that it came from. Behind a proxy nobody knows by which scheme that was.
fn is_own(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let authority = origin.to_str().ok().and_then(|text| text.split_once("://"));
    authority.is_some_and(|(_, authority)| host == Some(authority.as_bytes()))
}

/// What a browser may do for ten minutes.
pub(super) fn preflight() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "DELETE, GET, POST"),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, content-type",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Says to whom the answer may be shown. A cache must keep one for each origin.
pub(super) fn mark(response: &mut Response, origin: Origin) {
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    if let Origin::Listed(origin) | Origin::Preflight(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("retry-after"),
        );
    }
}
