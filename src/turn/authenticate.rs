//! Long-term credentials (RFC 8489 §9.2.4), and tokens in their place (RFC 7635 §7).

use crate::stun::{Attribute, ErrorCode, Integrity, Key, Message, Method, PasswordAlgorithm};

use super::keys::{Mismatch, NEVER, has_expired};
use super::nonce::Origin;
use super::oauth::Grant;
use super::offer::Offer;
use super::quota::Applicant;
use super::request::Request;
use super::response;
use super::server::Server;
use super::tenant::Standing;
use super::terms::Terms;
use super::username::unescape;
use super::{Cause, OnExpiry, Quotas, Refusal, Reply, Verdict};

/// Who sent a request, and how the answer is signed.
pub(super) struct User<'a> {
    pub(super) name: &'a [u8],
    pub(super) key: Key,
    pub(super) integrity: Integrity,
    /// When the credentials expire, by the wall clock.
    pub(super) expiry: u64,
    /// Of a user whom an access token stands for.
    pub(super) grant: Option<Grant>,
    /// The place of the shared secret that vouches for the credentials, where that was looked at.
    pub(super) secret: Option<usize>,
    /// Who that is.
    pub(super) standing: Standing<'a>,
}

impl User<'_> {
    /// Stands for the user: for the one who has this token, if there is one, since the name is not the user's then.
    pub(super) fn number(&self, quotas: &Quotas) -> u64 {
        match self.grant {
            Some(grant) => grant.token,
            None => quotas.user(self.standing.tenant, self.name),
        }
    }

    /// What an allocation of the user may have.
    pub(super) fn terms(&self, request: &Request<'_>) -> Terms {
        Terms::of(request.settings, &self.standing)
    }

    /// Against whom an allocation of the user counts.
    pub(super) fn applicant(&self, request: &Request<'_>, quotas: &Quotas) -> Applicant {
        let Standing { tenant, issued, .. } = &self.standing;
        // The same for all credentials of a person, as far as can be told.
        let person = match (self.grant, issued) {
            (Some(grant), _) => grant.token,
            (None, Some(issued)) => quotas.user(*tenant, unescape(issued.subject).as_bytes()),
            (None, None) => quotas.user(*tenant, request.users().person(self.name)),
        };
        Applicant {
            person,
            tenant: tenant.map(|tenant| quotas.tenant(tenant)),
            client: request.from.five_tuple.client.ip(),
        }
    }
}

/// Why a request has no user, and so what it is answered.
pub(super) enum Denial {
    /// 401 or 438, with what is needed to try again.
    Challenge(ErrorCode, Refusal),
    /// 400
    Incomplete(Refusal),
    /// 420: a token that was not asked for, and nothing else to know the sender by.
    TokenUnasked,
    /// Nothing.
    Silence(Cause),
}

impl Server {
    /// Tells whose request it is, by the RFC's checks in the RFC's order.
    ///
    /// The nonce is looked at before the integrity, since that is cheaper, and judged after it. One that is not good
    /// proves nothing of the source address: then the integrity is only computed if the answer can be afforded.
    pub(super) fn authenticate<'a>(&self, request: &Request<'a>) -> Result<User<'a>, Denial> {
        let message = &request.message;
        // 1. No integrity.
        if !message.has_integrity() {
            return Err(greet(message));
        }
        // 2. Not all that belongs to it.
        let (Some(name), Some(Ok(_)), Some(Ok(nonce))) =
            (claimed_name(request), message.realm(), message.nonce())
        else {
            return Err(Denial::Incomplete(Refusal::Incomplete));
        };
        // 3. Another algorithm than those that were offered with the nonce.
        let origin = self.origin_here(request, nonce);
        let third_party = self.is_third_party(request, name);
        let (algorithm, integrity) = if third_party {
            (MD5, protection(message, origin)?)
        } else {
            chosen_algorithm(message, origin)?
        };
        let fresh = is_fresh(origin, message.method());
        if !fresh && !self.affords_stranger(request) {
            return Err(Denial::Silence(Cause::ReplyBudget));
        }
        // 4, 5. No such user, or not the user's key.
        let mut standing = Standing::default();
        let login = match request.access_token() {
            Some(token) => self.verify_token(request, name, integrity, token),
            None if third_party => self.verify_granted(request),
            None => {
                standing = request.standing(name);
                self.verify(request, name, algorithm, &standing)
            }
        }
        .and_then(|login| self.unless_revoked(request, name, &standing, login))
        .map_err(|refusal| unauthenticated(request, refusal))?;
        // 6. A nonce that is too old or somebody else's.
        if !fresh {
            let refusal = Refusal::StaleNonce;
            return Err(Denial::Challenge(ErrorCode::STALE_NONCE, refusal));
        }
        Ok(User {
            name,
            key: login.key,
            integrity,
            expiry: login.expiry,
            grant: login.grant,
            secret: login.secret,
            standing,
        })
    }

    /// Where the nonce of a request comes from. One with which less was offered than is here is as good as none: who is
    /// between could have fetched it elsewhere, to hide what is offered here \[A21\].
    fn origin_here(&self, request: &Request<'_>, nonce: &[u8]) -> Origin {
        let origin = self.nonce_origin(request, nonce);
        let here = Offer::to(&request.from.five_tuple, request.settings);
        match origin {
            Origin::Ours { offer, .. } if offer.is_weaker_than(here) => Origin::Foreign,
            Origin::Ours { .. } | Origin::Foreign => origin,
        }
    }

    /// Answers a request that has no user.
    pub(super) fn deny(
        &mut self,
        denial: &Denial,
        request: &Request<'_>,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        if let Denial::Silence(cause) = *denial {
            return Verdict::Drop(cause);
        }
        if !self.pay_for_stranger(request) {
            return Verdict::Drop(Cause::ReplyBudget);
        }
        Verdict::Reply(match *denial {
            Denial::Challenge(code, refusal) => {
                let offer = Offer::to(&request.from.five_tuple, request.settings);
                let nonce = self.nonce(request, offer);
                response::challenge(request, code, refusal, (&nonce, offer), reply)
            }
            Denial::Incomplete(refusal) => response::incomplete(request, refusal, reply),
            Denial::TokenUnasked => Reply {
                refusal: Some(Refusal::Token),
                ..response::not_understood(request, request.unknown_required(), reply)
            },
            Denial::Silence(cause) => return Verdict::Drop(cause),
        })
    }

    /// Whether a token stands for the sender: one in the request, or the one that its allocation was made with.
    fn is_third_party(&self, request: &Request<'_>, name: &[u8]) -> bool {
        request.access_token().is_some()
            || self.allocation(request.from).is_some_and(|allocation| {
                allocation.owner.grant.is_some() && *allocation.owner.username == *name
            })
    }

    /// The key that signed a request: the one its allocation was made with, or one that is looked up.
    ///
    /// A look-up tries every shared secret and derives a key for each, so it is spared where it cannot tell more: not
    /// for Allocate, and not where a change of the users has to be noticed.
    fn verify(
        &self,
        request: &Request<'_>,
        name: &[u8],
        algorithm: PasswordAlgorithm,
        standing: &Standing<'_>,
    ) -> Result<Login, Refusal> {
        let message = &request.message;
        let known = self
            .allocation(request.from)
            .map(|allocation| &allocation.owner)
            .filter(|owner| {
                message.method() != Method::ALLOCATE
                    && *owner.username == *name
                    && owner.tenant() == standing.tenant
                    && owner.key.algorithm() == algorithm
                    && (self.is_current(owner.settings) || !judges_expiry(request))
            });
        let (key, secret) = match known {
            Some(owner) if message.verify(&owner.key) => (owner.key.clone(), None),
            Some(_) => return Err(Refusal::Integrity),
            None => {
                let looked_up = look_up(request, name, algorithm, standing);
                looked_up.map_err(|mismatch| match mismatch {
                    Mismatch::User => Refusal::UnknownUser,
                    Mismatch::Integrity => Refusal::Integrity,
                    Mismatch::Claims => Refusal::Claims,
                })?
            }
        };
        let expiry = request.users().expiry(name);
        if has_expired(expiry, request.now) && judges_expiry(request) {
            return Err(Refusal::Expired);
        }
        Ok(Login {
            key,
            expiry,
            grant: None,
            secret,
        })
    }

    /// RFC 7635 §7: the key is in the token, and the token is good.
    fn verify_token(
        &self,
        request: &Request<'_>,
        kid: &[u8],
        integrity: Integrity,
        sealed: &[u8],
    ) -> Result<Login, Refusal> {
        let third_party = request.third_party();
        let token = third_party
            .ok_or(Refusal::Token)?
            .open(kid, sealed, request.now)?;
        let key = token.key(integrity).ok_or(Refusal::Token)?;
        if !request.message.verify(&key) {
            return Err(Refusal::Integrity);
        }
        Ok(Login {
            key,
            expiry: NEVER,
            grant: Some(Grant {
                token: self.quotas.owner(sealed),
                life: token.life,
            }),
            secret: None,
        })
    }

    /// The key of the token that an allocation was made with, for requests that carry none.
    fn verify_granted(&self, request: &Request<'_>) -> Result<Login, Refusal> {
        let owner = self
            .allocation(request.from)
            .map(|allocation| &allocation.owner)
            .filter(|owner| request.message.verify(&owner.key))
            .ok_or(Refusal::Integrity)?;
        // A key that has been withdrawn vouches no longer, once that is asked.
        let third_party = request.third_party();
        if judges_expiry(request)
            && !third_party.is_some_and(|third_party| third_party.knows(&owner.username))
        {
            return Err(Refusal::UnknownUser);
        }
        let grant = owner.grant.as_deref().copied();
        if grant.is_some_and(|grant| grant.life.left(request.now) == 0) {
            return Err(Refusal::Expired);
        }
        Ok(Login {
            key: owner.key.clone(),
            expiry: owner.expiry,
            grant,
            secret: None,
        })
    }
}

impl Server {
    /// Refuses what has been revoked. Whoever asks has proved the key: nobody else learns of it.
    fn unless_revoked(
        &self,
        request: &Request<'_>,
        name: &[u8],
        standing: &Standing<'_>,
        login: Login,
    ) -> Result<Login, Refusal> {
        let person = request.users().person(name);
        let revoked = judges_revocation(request.message.method())
            && (self.revocations).reach((name, person), login.expiry, standing, request.now);
        if revoked {
            Err(Refusal::Revoked)
        } else {
            Ok(login)
        }
    }
}

/// The key of a user, and the place of the secret that vouches for it among the operator's.
fn look_up(
    request: &Request<'_>,
    name: &[u8],
    algorithm: PasswordAlgorithm,
    standing: &Standing<'_>,
) -> Result<(Key, Option<usize>), Mismatch> {
    let (users, message) = (request.users(), &request.message);
    let operators = &request.settings.users;
    let (key, place) = match standing.secret {
        Some(secret) => {
            let key = users.verify_by(secret, message, name, algorithm)?;
            (key, operators.place_of(secret))
        }
        None => {
            let (key, place) = users.verify(message, name, algorithm)?;
            (key, place.filter(|_| request.door.is_none()))
        }
    };
    // Only who has the key learns of it.
    if standing.bad || request.settings.policy(standing).is_nobody() {
        return Err(Mismatch::Claims);
    }
    Ok((key, place))
}

/// What proved to be a user's.
struct Login {
    key: Key,
    expiry: u64,
    grant: Option<Grant>,
    secret: Option<usize>,
}

/// The answer to a request whose sender is not known: 401, but 420 for a token that was not asked for, with which
/// nobody could ever be known (RFC 7635 §7).
fn unauthenticated(request: &Request<'_>, refusal: Refusal) -> Denial {
    let has_token = request.has(Attribute::ACCESS_TOKEN);
    if has_token && request.third_party().is_none() {
        Denial::TokenUnasked
    } else {
        Denial::Challenge(ErrorCode::UNAUTHENTICATED, refusal)
    }
}

/// What becomes of a request without credentials. One that is smaller than any client's is only sent to be reflected.
fn greet(message: &Message<'_>) -> Denial {
    let too_small = match message.method() {
        Method::ALLOCATE => message.get(Attribute::REQUESTED_TRANSPORT).is_none(),
        _ => message.attributes().next().is_none(),
    };
    if too_small {
        Denial::Silence(Cause::TooSmall)
    } else {
        Denial::Challenge(ErrorCode::UNAUTHENTICATED, Refusal::NoIntegrity)
    }
}

/// The name in USERNAME, or the one that USERHASH stands for.
fn claimed_name<'a>(request: &Request<'a>) -> Option<&'a [u8]> {
    if let Some(name) = request.message.username() {
        return name.ok();
    }
    let hash = request.message.userhash()?.ok()?;
    // A hash that stands for nobody goes on as the name of nobody, and takes as long.
    Some(request.users().resolve(hash).unwrap_or(hash))
}

/// The algorithm of the key, and the integrity of the answer \[A1\].
///
/// What was offered is known from the nonce, not from the settings, which may have changed since, nor from the cookie,
/// which others may have changed \[A21\]. If the nonce is not ours, the client's word is taken: it is about to be told
/// a new one.
fn chosen_algorithm(
    message: &Message<'_>,
    origin: Origin,
) -> Result<(PasswordAlgorithm, Integrity), Denial> {
    let default = (MD5, Integrity::Sha1);
    let choice = message.password_algorithm();
    let Origin::Ours { offer, .. } = origin else {
        return Ok(match choice {
            Some(Ok(choice)) => (choice, Integrity::Sha256),
            Some(Err(_)) | None => default,
        });
    };
    let Some(offered) = offer.algorithms.list() else {
        return Ok(default);
    };
    let chosen = match (message.password_algorithms(), choice) {
        (None, None) => default,
        (Some(list), Some(Ok(choice))) if list == offered => (choice, Integrity::Sha256),
        _ => return Err(Denial::Incomplete(Refusal::Algorithm)),
    };
    // "As though PASSWORD-ALGORITHM were MD5" is a choice that must have been offered, too; and where it was not,
    // neither is SHA-1.
    let allowed = offer.algorithms.has(chosen.0)
        && (offer.algorithms.has(MD5) || message.has_sha256_integrity());
    if allowed {
        Ok(chosen)
    } else {
        Err(Denial::Incomplete(Refusal::Algorithm))
    }
}

/// The integrity of the answer to a request that is signed with the key of a token, for which no algorithm is chosen:
/// that of the request. A client that knows what was offered is held to it all the same.
fn protection(message: &Message<'_>, origin: Origin) -> Result<Integrity, Denial> {
    let sha256 = message.has_sha256_integrity();
    if let Origin::Ours { offer, .. } = origin {
        let named = message.password_algorithms();
        let altered = named.is_some() && named != offer.algorithms.list();
        if altered || !(sha256 || offer.algorithms.has(MD5)) {
            return Err(Denial::Incomplete(Refusal::Algorithm));
        }
    }
    Ok(if sha256 {
        Integrity::Sha256
    } else {
        Integrity::Sha1
    })
}

/// Whether a nonce is good enough for a request.
///
/// An Allocate is allowed an older one: some clients take a 438 there for the end, and at any other request for what
/// it is.
fn is_fresh(origin: Origin, method: Method) -> bool {
    let oldest = match method {
        Method::ALLOCATE => 2 * NONCE_LIFETIME,
        _ => NONCE_LIFETIME,
    };
    match origin {
        Origin::Ours { age, .. } => (-CLOCK_SKEW..=oldest).contains(&age),
        Origin::Foreign => false,
    }
}

/// Whether it matters for a request that credentials have expired.
fn judges_expiry(request: &Request<'_>) -> bool {
    match request.message.method() {
        Method::ALLOCATE => true,
        Method::REFRESH => request.settings.on_expiry != OnExpiry::New,
        _ => false,
    }
}

/// Whether it matters for a request that credentials have been revoked: it makes an allocation or a connection, or
/// prolongs an allocation. Calls that are to go on until then may renew what else they have.
fn judges_revocation(method: Method) -> bool {
    [
        Method::ALLOCATE,
        Method::REFRESH,
        Method::CONNECT,
        Method::CONNECTION_BIND,
    ]
    .contains(&method)
}

const MD5: PasswordAlgorithm = PasswordAlgorithm::Md5;

/// RFC 8656 §5: a nonce expires at least once an hour. In seconds.
const NONCE_LIFETIME: i32 = 3600;

/// How far the clock of another server may be ahead. In seconds.
const CLOCK_SKEW: i32 = 60;
