//! What every request needs: who is asking, may they, the credential, and a line that says so.

use std::convert::Infallible;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tracing::info;

use super::caller::{By, Caller};
use super::issue::{self, Credential, Wish};
use super::rate::Limits;
use super::refusal::{Kind, Refusal};
use super::{Dialect, Settings, Tokens, clock, jwt, service_key};
use crate::revocation::{self, Revoker};
use crate::turn::Revoked;

/// The longest body that is read.
pub(super) const LONGEST_BODY: usize = 64 * 1024;
/// Refusals that get a line of the log, in a second: strangers may ask as often as they like.
const REFUSALS_LOGGED: NonZeroU32 = NonZeroU32::new(10).expect("it is not zero");

/// The service as it is set up at the moment.
pub(super) struct Site {
    pub(super) settings: Settings,
    /// What there is, as `/openapi.json` has it.
    pub(super) document: Bytes,
    pub(super) limits: Arc<Limits>,
    pub(super) tokens: Arc<Tokens>,
    pub(super) audit: Arc<Audit>,
    /// Takes credentials back, if that can be done here.
    pub(super) revoker: Option<Revoker>,
}

impl Site {
    /// Who presents this token or key.
    pub(super) async fn authenticate(
        &self,
        source: IpAddr,
        presented: Option<&str>,
    ) -> Result<Caller, Refusal> {
        let presented = presented.unwrap_or_default();
        // A backend asks for many; that it has a key is found out without much work.
        if let Some(key) = service_key::find(&self.settings.keys, presented.as_bytes()) {
            return Ok(key.into());
        }
        self.limits.source(source)?;
        if presented.is_empty() {
            return Err(Refusal::new(
                Kind::NoCredentials,
                "send `Authorization: Bearer` with a token or key",
            ));
        }
        jwt::verify(&self.settings.issuers, presented).await
    }

    /// A credential for somebody who has proved who they are.
    pub(super) fn grant(
        &self,
        dialect: Dialect,
        source: IpAddr,
        caller: &Caller,
        wish: &Wish<'_>,
    ) -> Result<Credential<'_>, Refusal> {
        let granted = self
            .count(caller, wish)
            .and_then(|()| issue::issue(&self.settings, caller, wish, clock::unix()));
        match granted {
            Ok(credential) => {
                self.tokens.count_issued(dialect);
                self.audit.issued(dialect, source, caller, &credential);
                Ok(credential)
            }
            Err(refusal) => Err(refusal.about(dialect, caller)),
        }
    }

    fn count(&self, caller: &Caller, wish: &Wish<'_>) -> Result<(), Refusal> {
        // Nobody uses up what is somebody else's: neither another user's, nor what all of a tenant have together.
        let named = wish.user.filter(|_| caller.issues);
        if let Some(subject) = named.or(caller.subject.as_deref()) {
            self.limits.subject(&caller.tenant, subject)?;
        }
        self.limits.tenant(&caller.tenant)
    }
}

/// One request, read.
pub(super) struct Call {
    pub(super) site: Arc<Site>,
    pub(super) parts: Parts,
    pub(super) source: IpAddr,
    pub(super) body: Result<Bytes, Refusal>,
}

/// Where a request comes from, as found out before.
#[derive(Clone, Copy)]
pub(super) struct From(pub(super) IpAddr);

impl FromRequest<Arc<Site>> for Call {
    type Rejection = Infallible;

    async fn from_request(request: Request, site: &Arc<Site>) -> Result<Self, Infallible> {
        let (parts, body) = request.into_parts();
        let From(source) = *parts
            .extensions
            .get()
            .expect("every request is told where it comes from");
        Ok(Self {
            site: Arc::clone(site),
            body: read(body).await,
            parts,
            source,
        })
    }
}

impl Call {
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// What stands behind `Bearer`.
    pub(super) fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self
            .header(header::AUTHORIZATION.as_str())?
            .split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    pub(super) fn body(&self) -> Result<&Bytes, Refusal> {
        self.body.as_ref().map_err(Clone::clone)
    }

    /// Is the body of this type, or is there none?
    pub(super) fn is_of_type(&self, wanted: &str) -> bool {
        let is_empty = self.body.as_ref().is_ok_and(Bytes::is_empty);
        let named = self.header(header::CONTENT_TYPE.as_str());
        let essence = named.and_then(|named| named.split(';').next());
        is_empty || essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case(wanted))
    }
}

async fn read(body: Body) -> Result<Bytes, Refusal> {
    to_bytes(body, LONGEST_BODY).await.map_err(|_| {
        Refusal::new(
            Kind::TooLarge,
            format!("the body is longer than {LONGEST_BODY} bytes, or broken"),
        )
    })
}

/// The lines that say who was given what, and who was not. Never what it was.
pub(super) struct Audit {
    refusals: DefaultDirectRateLimiter,
    left_out: AtomicU64,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            refusals: RateLimiter::direct(Quota::per_second(REFUSALS_LOGGED)),
            left_out: AtomicU64::new(0),
        }
    }
}

impl Audit {
    fn issued(
        &self,
        dialect: Dialect,
        source: IpAddr,
        caller: &Caller,
        credential: &Credential<'_>,
    ) {
        let (key, issuer) = caller.by.words();
        info!(
            user = credential.subject,
            tenant = caller.tenant,
            key,
            issuer,
            dialect = dialect.label(),
            ttl = credential.ttl,
            credential = credential.id,
            %source,
            "credential issued"
        );
    }

    pub(super) fn revoked(
        &self,
        (dialect, source): (Dialect, IpAddr),
        caller: &Caller,
        revoked: &Revoked,
        ended: Option<usize>,
    ) {
        let (key, issuer) = caller.by.words();
        let (kind, tenant, name) = revocation::parts(revoked);
        info!(
            kind,
            tenant,
            name,
            by = caller.subject,
            key,
            issuer,
            dialect = dialect.label(),
            ended,
            %source,
            "credentials revoked"
        );
    }

    pub(super) fn refused(&self, source: IpAddr, refusal: &Refusal) {
        if self.refusals.check().is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let left_out = match self.left_out.swap(0, Ordering::Relaxed) {
            0 => None,
            left_out => Some(left_out),
        };
        let about = refusal.about.as_deref();
        let (key, issuer) = about.map_or((None, None), |(_, caller)| caller.by.words());
        info!(
            reason = refusal.reason().label(),
            detail = &*refusal.detail,
            user = about.and_then(|(_, caller)| caller.subject.as_deref()),
            tenant = about.map(|(_, caller)| caller.tenant.as_str()),
            key,
            issuer,
            dialect = about.map(|(dialect, _)| dialect.label()),
            %source,
            left_out,
            "credential refused"
        );
    }
}

impl By {
    /// The id of the key, or the name of the issuer.
    fn words(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Self::Key(id) => (Some(id), None),
            Self::Issuer(name) => (None, Some(name)),
        }
    }
}
