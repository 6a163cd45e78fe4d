//! Why there is no credential, and how the native endpoint says so (RFC 9457). Dialects have words of their own.

use std::borrow::Cow;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::caller::Caller;
use crate::metrics::{Dialect, TokenRefusal};

/// A request that is refused. The text is for the developer of the client, and never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) kind: Kind,
    pub(super) detail: Cow<'static, str>,
    /// Who was refused, if that is known, and in which manner of speech; for the log.
    pub(super) about: Option<Box<(Dialect, Caller)>>,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// There is no token, key or signature.
    NoCredentials,
    /// There is one, and it is not good.
    BadCredentials,
    Forbidden,
    Origin,
    NotFound,
    Method,
    Malformed,
    TooLarge,
    TooSlow,
    MediaType,
    Unprocessable,
    /// Come back in so many seconds.
    TooMany(u64),
    Unavailable,
}

impl Refusal {
    pub(super) fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            about: None,
        }
    }

    /// The same, told who was refused.
    pub(super) fn about(self, dialect: Dialect, caller: &Caller) -> Self {
        Self {
            about: Some(Box::new((dialect, caller.clone()))),
            ..self
        }
    }

    pub(super) fn bad_credentials(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::BadCredentials, detail)
    }

    pub(super) fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Forbidden, detail)
    }

    pub(super) fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Malformed, detail)
    }

    pub(super) fn unprocessable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Unprocessable, detail)
    }

    pub(super) fn status(&self) -> StatusCode {
        match self.kind {
            Kind::NoCredentials | Kind::BadCredentials => StatusCode::UNAUTHORIZED,
            Kind::Forbidden | Kind::Origin => StatusCode::FORBIDDEN,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Method => StatusCode::METHOD_NOT_ALLOWED,
            Kind::Malformed => StatusCode::BAD_REQUEST,
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Kind::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Kind::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
            Kind::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    pub(super) fn reason(&self) -> TokenRefusal {
        match self.kind {
            Kind::NoCredentials | Kind::BadCredentials => TokenRefusal::Unauthenticated,
            Kind::Forbidden => TokenRefusal::Forbidden,
            Kind::Origin => TokenRefusal::Origin,
            Kind::NotFound | Kind::Method => TokenRefusal::Absent,
            Kind::Malformed | Kind::TooLarge | Kind::TooSlow | Kind::MediaType => {
                TokenRefusal::Malformed
            }
            Kind::Unprocessable => TokenRefusal::Unprocessable,
            Kind::TooMany(_) => TokenRefusal::Rate,
            Kind::Unavailable => TokenRefusal::Unavailable,
        }
    }

    /// The name of the problem: the last word of its `type`, and what follows is its `title`.
    fn name(&self) -> (&'static str, &'static str) {
        match self.kind {
            Kind::NoCredentials => ("no-credentials", "A token or key is needed"),
            Kind::BadCredentials => ("bad-credentials", "The token or key is not good"),
            Kind::Forbidden => ("forbidden", "The caller may not have this"),
            Kind::Origin => ("foreign-origin", "The page's origin is not allowed"),
            Kind::NotFound => ("not-found", "There is nothing here"),
            Kind::Method => ("method-not-allowed", "The method does not fit"),
            Kind::Malformed => ("malformed", "The request cannot be understood"),
            Kind::TooLarge => ("too-large", "The request is too long"),
            Kind::TooSlow => ("too-slow", "The request took too long"),
            Kind::MediaType => ("media-type", "The body must be JSON"),
            Kind::Unprocessable => ("unprocessable", "What is asked for cannot be had"),
            Kind::TooMany(_) => ("too-many-requests", "Too many requests"),
            Kind::Unavailable => ("unavailable", "This cannot be done at the moment"),
        }
    }

    /// The headers that go with it, in whatever words the body is.
    pub(super) fn head(&self, response: &mut Response) {
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self.kind {
            Kind::NoCredentials => {
                headers
                    .entry(header::WWW_AUTHENTICATE)
                    .or_insert(HeaderValue::from_static("Bearer realm=\"turnd\""));
            }
            Kind::BadCredentials => {
                headers
                    .entry(header::WWW_AUTHENTICATE)
                    .or_insert(HeaderValue::from_static(
                        "Bearer realm=\"turnd\", error=\"invalid_token\"",
                    ));
            }
            Kind::TooMany(seconds) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            Kind::Forbidden
            | Kind::Origin
            | Kind::NotFound
            | Kind::Method
            | Kind::Malformed
            | Kind::TooLarge
            | Kind::TooSlow
            | Kind::MediaType
            | Kind::Unprocessable
            | Kind::Unavailable => {}
        }
        // Not counted twice, and known to whoever counts it.
        response.extensions_mut().insert(self.clone());
    }
}

impl IntoResponse for Refusal {
    /// `application/problem+json`
    fn into_response(self) -> Response {
        let (name, title) = self.name();
        let body = json!({
            "type": format!("urn:turnd:problem:{name}"),
            "title": title,
            "status": self.status().as_u16(),
            "detail": self.detail,
        });
        let json = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status(), json, body.to_string()).into_response();
        self.head(&mut response);
        response
    }
}
