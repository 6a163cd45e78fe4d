//! Who was refused, so that somebody who asks why a call fails can be told.
//!
//! A list that does not grow: strangers can only overwrite it, and none of them all of it. What every client does at
//! first, a request without credentials, is not in it, nor is what came from an address that may be forged.

use std::collections::VecDeque;

use crate::stun::{ErrorCode, Method};

use super::authenticate::{Denial, User};
use super::keys::NEVER;
use super::prefix::subscriber;
use super::request::Request;
use super::response::Reject;
use super::server::Server;
use super::username::Issued;
use super::{FiveTuple, Limit, Refusal};

/// A request that was refused, and those like it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuff {
    /// Where it came from: the last one.
    pub five_tuple: FiveTuple,
    /// The name that was given, at most 64 bytes of it.
    pub username: Box<[u8]>,
    /// The request.
    pub method: Method,
    /// The error code.
    pub code: u16,
    /// Why.
    pub why: Why,
    /// When the first one came, in seconds since 1970,
    pub first: u64,
    /// and the last one.
    pub last: u64,
    /// How many came.
    pub count: u32,
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The credentials have expired.
    Expired {
        /// So many seconds ago, by the clock of this server.
        ago: u64,
        /// They were issued for so many seconds, if they say so.
        issued_for: Option<u64>,
    },
    /// The signature does not verify, and the client took another realm than ours into it.
    Realm {
        /// The client's, at most 64 bytes of it.
        theirs: Box<[u8]>,
    },
    /// The name says that it is vouched for by a secret that is not here.
    UnknownSecret,
    /// Another reason that credentials are not accepted.
    Login(Refusal),
    /// A limit was reached.
    Quota {
        /// Which one.
        limit: Limit,
        /// How many allocations there are that it counts.
        has: u32,
        /// How many there may be.
        most: u32,
    },
    /// No new allocations are taken: the server drains.
    Draining,
    /// There is no allocation that the request could be about.
    NoAllocation,
    /// Anything else: the error code says it.
    Other,
}

impl Server {
    /// Notes that a login failed, unless it was a first request or may be a forgery.
    #[cold]
    pub(super) fn note_denial(&mut self, request: &Request<'_>, denial: &Denial) {
        let (code, refusal) = match *denial {
            Denial::Challenge(_, Refusal::NoIntegrity | Refusal::StaleNonce)
            | Denial::Silence(_) => {
                return;
            }
            Denial::Challenge(code, refusal) => (code, refusal),
            Denial::Incomplete(refusal) => (ErrorCode::BAD_REQUEST, refusal),
            Denial::TokenUnasked => (ErrorCode::UNKNOWN_ATTRIBUTE, Refusal::Token),
        };
        if !self.has_proven_address(request) {
            return;
        }
        let name = request.message.username().and_then(Result::ok);
        let name = name.unwrap_or_default();
        let why = why_no_login(request, name, refusal);
        self.refusals.note(request, name, code.0, why);
    }

    /// Notes that a request was authenticated and refused, and is about no allocation of its user.
    #[cold]
    pub(super) fn note_reject(&mut self, request: &Request<'_>, user: &User<'_>, reject: Reject) {
        let why = match reject {
            Reject::Quota => self.quota_in_the_way(request, user).unwrap_or(Why::Other),
            Reject::Capacity if self.draining => Why::Draining,
            Reject::Capacity => self.quota_in_the_way(request, user).unwrap_or(Why::Other),
            Reject::AllocationMismatch if self.allocation(request.from).is_none() => {
                Why::NoAllocation
            }
            Reject::TryAlternate(_) => return,
            Reject::BadRequest
            | Reject::Forbidden
            | Reject::NewPeers
            | Reject::NoPolicy
            | Reject::MobilityForbidden
            | Reject::UnknownAttributes
            | Reject::AllocationMismatch
            | Reject::AddressFamily
            | Reject::WrongCredentials
            | Reject::TransportProtocol
            | Reject::PeerFamily
            | Reject::ConnectionExists
            | Reject::ConnectionFailed => Why::Other,
        };
        self.refusals.note(request, user.name, reject.code().0, why);
    }

    fn quota_in_the_way(&self, request: &Request<'_>, user: &User<'_>) -> Option<Why> {
        if request.message.method() != Method::ALLOCATE {
            return None;
        }
        let applicant = user.applicant(request, &self.quotas);
        let in_the_way = self.quotas.in_the_way(&applicant, &user.terms(request));
        in_the_way.map(|(limit, has, most)| Why::Quota { limit, has, most })
    }

    /// The refusals that `which` chooses, the latest first.
    pub fn refused(&self, which: impl Fn(&Rebuff) -> bool) -> Vec<Rebuff> {
        let list = self.refusals.0.iter().rev();
        list.filter(|refused| which(refused)).cloned().collect()
    }
}

fn why_no_login(request: &Request<'_>, name: &[u8], refusal: Refusal) -> Why {
    let users = request.users();
    let standing = request.standing(name);
    let expiry = users.expiry(name);
    if refusal == Refusal::Expired && expiry != NEVER {
        return Why::Expired {
            ago: request.now.unix.saturating_sub(expiry),
            issued_for: standing.issued.and_then(|issued| issued.claims.ttl),
        };
    }
    if matches!(refusal, Refusal::Integrity | Refusal::UnknownUser) {
        if let Some(Ok(theirs)) = request.message.realm()
            && theirs != users.realm().as_bytes()
        {
            return Why::Realm {
                theirs: cut(theirs),
            };
        }
        if standing.issued.is_none() && !standing.bad && Issued::parse(name).is_some() {
            return Why::UnknownSecret;
        }
    }
    Why::Login(refusal)
}

/// The last refusals of one machine, the latest last.
#[derive(Debug, Default)]
pub(super) struct Refusals(VecDeque<Rebuff>);

impl Refusals {
    fn note(&mut self, request: &Request<'_>, name: &[u8], code: u16, why: Why) {
        self.add(Rebuff {
            five_tuple: request.from.five_tuple,
            username: cut(name),
            method: request.message.method(),
            code,
            why,
            first: request.now.unix,
            last: request.now.unix,
            count: 1,
        });
    }

    /// One like another takes its place; who has many takes the place of its own oldest one.
    fn add(&mut self, mut refused: Rebuff) {
        if let Some(place) = self.0.iter().rposition(|known| known.is_like(&refused)) {
            if let Some(known) = self.0.remove(place) {
                refused.first = known.first;
                refused.count = known.count.saturating_add(1);
            }
        } else {
            let whose = subscriber(refused.five_tuple.client.ip());
            let is_theirs = |known: &Rebuff| subscriber(known.five_tuple.client.ip()) == whose;
            let theirs = self.0.iter().filter(|known| is_theirs(known)).count();
            if theirs >= MOST_OF_ONE
                && let Some(oldest) = self.0.iter().position(is_theirs)
            {
                self.0.remove(oldest);
            } else if self.0.len() == MOST {
                self.0.pop_front();
            }
        }
        self.0.push_back(refused);
    }
}

impl Rebuff {
    fn is_like(&self, other: &Self) -> bool {
        self.code == other.code
            && self.five_tuple.client.ip() == other.five_tuple.client.ip()
            && self.method == other.method
            && self.username == other.username
            && std::mem::discriminant(&self.why) == std::mem::discriminant(&other.why)
    }
}

/// As much of what a stranger says as is kept.
fn cut(text: &[u8]) -> Box<[u8]> {
    text[..text.len().min(LONGEST_NAME)].into()
}

/// Of one machine.
const MOST: usize = 256;
/// Of one client address, or one /64.
const MOST_OF_ONE: usize = 16;
const LONGEST_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use proptest::prelude::*;

    use super::super::Transport;
    use super::*;

    fn refused(host: u16, name: u8, at: u64) -> Rebuff {
        let [high, low] = host.to_be_bytes();
        let client = SocketAddr::new(IpAddr::from([198, 51, high, low]), 1000);
        Rebuff {
            five_tuple: FiveTuple {
                transport: Transport::Udp,
                client,
                server: client,
            },
            username: [name].into(),
            method: Method::ALLOCATE,
            code: 401,
            why: Why::Login(Refusal::Integrity),
            first: at,
            last: at,
            count: 1,
        }
    }

    proptest! {
        /// Whatever comes: it is bounded, in order, the last one is the last, and one client has a part of it at most.
        #[test]
        fn refusals_are_bounded_and_in_order(all in proptest::collection::vec((0u16..300, 0u8..30), 1..1500)) {
            let mut list = Refusals::default();
            for (at, (host, name)) in (0u64..).zip(&all) {
                list.add(refused(*host, *name, at));
            }
            prop_assert!(list.0.len() <= MOST);
            prop_assert!(list.0.iter().is_sorted_by_key(|refused| refused.last));
            prop_assert_eq!(list.0.back().unwrap().last, all.len() as u64 - 1);
            for one in &list.0 {
                let same = list.0.iter().filter(|other| other.is_like(one)).count();
                prop_assert_eq!(same, 1);
                let host = one.five_tuple.client.ip();
                let theirs = list.0.iter().filter(|other| other.five_tuple.client.ip() == host);
                prop_assert!(theirs.count() <= MOST_OF_ONE);
            }
        }
    }

    /// Whoever has one address of IPv6 has a great many.
    #[test]
    fn one_network_of_ipv6_cannot_push_out_the_others() {
        let mut list = Refusals::default();
        list.add(refused(7, 0, 0));
        for number in 0..10_000u64 {
            let mut one = refused(8, 0, number);
            let ip = (0x2001_0db8u128 << 96) + u128::from(number);
            one.five_tuple.client.set_ip(IpAddr::V6(ip.into()));
            list.add(one);
        }
        assert_eq!(list.0.len(), 1 + MOST_OF_ONE);
    }

    #[test]
    fn one_address_cannot_push_out_the_others() {
        let mut list = Refusals::default();
        list.add(refused(7, 0, 0));
        for number in 0..100_000u64 {
            list.add(refused(8, (number % 251) as u8, number));
        }
        assert_eq!(list.0.len(), 1 + MOST_OF_ONE);
        assert_eq!(
            list.0[0].five_tuple.client.ip(),
            IpAddr::from([198, 51, 0, 7])
        );
    }
}
