//! Sending clients to another server (RFC 8489 §10, RFC 8155 §6).
//!
//! Only an Allocate that has authenticated, and that would otherwise be carried out, is ever redirected, and the answer
//! is signed \[300-1\]: whoever could redirect strangers could have them all knock at somebody's door.

use std::net::SocketAddr;

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::stun::Attribute;

use super::request::Request;
use super::response::Reject;
use super::server::Server;
use super::{Family, Transport};

/// To which servers clients are sent, and when.
///
/// The n-th IPv4 and the n-th IPv6 address of a list should be of the same server: a client is told of both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirect {
    /// For clients over UDP and TCP.
    pub to: Vec<SocketAddr>,
    /// For clients over TLS and DTLS, which keep to their transport.
    pub to_tls: Vec<SocketAddr>,
    /// The name in the certificate of these servers, if it is not the one in ours.
    pub domain: Option<String>,
    /// Every allocation is made elsewhere: this server is an entry, as behind an anycast address.
    pub always: bool,
    /// While the server drains.
    pub on_drain: bool,
    /// While there are so many allocations altogether, and when ports or sockets are used up.
    pub overload_at: Option<u32>,
}

/// Where a client is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alternate {
    /// Of the family that the client came by.
    pub(super) first: SocketAddr,
    /// Of the other one.
    pub(super) second: Option<SocketAddr>,
}

impl Server {
    /// The server that a client is sent to before anything is opened for it, if it is.
    pub(super) fn alternate(&mut self, request: &Request<'_>) -> Option<Alternate> {
        let redirect = request.settings.redirect.as_ref()?;
        let sends = redirect.always
            || (self.draining && redirect.on_drain)
            || redirect
                .overload_at
                .is_some_and(|most| self.quotas.total() >= most);
        sends
            .then(|| redirect.choose(request, &mut self.random))
            .flatten()
    }

    /// The answer to a client for which there is no capacity, here.
    pub(super) fn no_capacity(&mut self, request: &Request<'_>) -> Reject {
        let redirect = request.settings.redirect.as_ref();
        redirect
            .filter(|redirect| redirect.overload_at.is_some() && !self.draining)
            .and_then(|redirect| redirect.choose(request, &mut self.random))
            .map_or(Reject::Capacity, Reject::TryAlternate)
    }
}

impl Redirect {
    /// Any of the targets that the client can go to.
    ///
    /// None for a client that has come to a target, since it would be sent around in a circle, and none for one with a
    /// reservation, which is good here alone.
    fn choose(&self, request: &Request<'_>, random: &mut StdRng) -> Option<Alternate> {
        let five_tuple = &request.from.five_tuple;
        let targets = match five_tuple.transport {
            Transport::Udp | Transport::Tcp => &self.to,
            Transport::Tls | Transport::Dtls => &self.to_tls,
        };
        if targets.contains(&five_tuple.server) || request.has(Attribute::RESERVATION_TOKEN) {
            return None;
        }
        let family = Family::of(five_tuple.client.ip());
        let (same, other): (Vec<_>, Vec<_>) = targets
            .iter()
            .partition(|target| Family::of(target.ip()) == family);
        let place = random.random_range(0..same.len().max(1));
        Some(Alternate {
            first: *same.get(place)?,
            second: other.get(place % other.len().max(1)).copied(),
        })
    }
}
