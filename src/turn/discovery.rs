//! NAT behaviour discovery (RFC 5780): Binding over UDP from two addresses with the same two ports.
//!
//! ```text
//!              port P1    port P2
//!  address A1   Da:Dp      Da:Cp       a client asks at one place, here A1:P1,
//!  address A2   Ca:Dp      Ca:Cp       and can have the answer come from any other
//! ```

use std::net::{IpAddr, SocketAddr};

use crate::stun::{Attribute, ChangeRequest, Malformed};

use super::request::Request;
use super::{FiveTuple, Transport};

/// An address of this host, and what the world knows it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnAddress {
    /// What sockets are bound to.
    pub local: IpAddr,
    /// What clients see: the same, unless there is a 1:1 NAT.
    pub advertised: IpAddr,
}

/// Two addresses of one family with the same two ports.
///
/// There must be a UDP socket at each of [`NatDiscovery::sockets`], from which the plane can answer requests that came to
/// another of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatDiscovery {
    /// A1 and A2.
    pub addresses: [OwnAddress; 2],
    /// P1 and P2.
    pub ports: [u16; 2],
}

impl NatDiscovery {
    /// Where the four sockets are bound.
    pub fn sockets(&self) -> [SocketAddr; 4] {
        let at = |address: usize, port: usize| self.place(address, port).local();
        [at(0, 0), at(0, 1), at(1, 0), at(1, 1)]
    }

    fn place(&self, address: usize, port: usize) -> Place<'_> {
        Place {
            discovery: self,
            address,
            port,
        }
    }

    /// The place with this socket, if it is one of the four.
    fn at(&self, server: SocketAddr) -> Option<Place<'_>> {
        let address = self
            .addresses
            .iter()
            .position(|address| address.local == server.ip())?;
        let port = self.ports.iter().position(|port| *port == server.port())?;
        Some(self.place(address, port))
    }
}

/// One of the four places that an answer can come from.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    discovery: &'a NatDiscovery,
    address: usize,
    port: usize,
}

impl<'a> Place<'a> {
    /// Where a request came in, if that is one of the four places: Da and Dp.
    pub(super) fn of(all: &'a [NatDiscovery], five_tuple: &FiveTuple) -> Option<Self> {
        if five_tuple.transport != Transport::Udp {
            return None;
        }
        all.iter()
            .find_map(|discovery| discovery.at(five_tuple.server))
    }

    /// Where the answer comes from (RFC 5780 §6.1, table 1).
    pub(super) fn changed(self, change: ChangeRequest) -> Self {
        Self {
            address: self.address ^ usize::from(change.ip),
            port: self.port ^ usize::from(change.port),
            ..self
        }
    }

    /// Ca and Cp.
    pub(super) fn other(self) -> Self {
        let (ip, port) = (true, true);
        self.changed(ChangeRequest { ip, port })
    }

    /// Where its socket is bound.
    pub(super) fn local(self) -> SocketAddr {
        let address = self.discovery.addresses[self.address];
        SocketAddr::new(address.local, self.discovery.ports[self.port])
    }

    /// What clients see.
    pub(super) fn advertised(self) -> SocketAddr {
        let address = self.discovery.addresses[self.address];
        SocketAddr::new(address.advertised, self.discovery.ports[self.port])
    }
}

/// What a Binding request asks for beside its own address, once that is known to make sense.
pub(super) struct Wish<'a> {
    pub(super) change: ChangeRequest,
    /// The port that the answer goes to, if not the one that it was asked from.
    pub(super) port: Option<u16>,
    pub(super) padding: Option<&'a [u8]>,
}

impl<'a> Wish<'a> {
    /// # Errors
    /// A value is malformed, PADDING is wanted at another port, or the port is one of the system's: the request is
    /// answered 400, at the port that it came from.
    pub(super) fn of(request: &Request<'a>) -> Result<Self, Malformed> {
        let message = &request.message;
        let change = message.change_request().transpose()?;
        let asked = message.response_port().transpose()?;
        let padding = message.padding().transpose()?;
        let port = asked.filter(|port| *port != request.from.five_tuple.client.port());
        // Nothing that a client of ours would be at; much that must not be answered to \[A14\].
        let reserved = port.is_some_and(|port| port < FIRST_USER_PORT);
        if reserved || (asked.is_some() && padding.is_some()) {
            return Err(Malformed);
        }
        let (ip, port_too) = (false, false);
        Ok(Self {
            change: change.unwrap_or(ChangeRequest { ip, port: port_too }),
            port,
            padding,
        })
    }
}

/// What of a Binding request is not understood where there is only one address: as if it were unknown, since nobody who
/// asks for it can do with an answer that does without \[5780-1\].
///
/// A CHANGE-REQUEST for no change is let through: clients send it to servers that would not answer without.
pub(super) fn unsupported(request: &Request<'_>) -> impl Iterator<Item = Attribute> {
    let no_change = Ok(ChangeRequest {
        ip: false,
        port: false,
    });
    let changes = request
        .message
        .change_request()
        .is_some_and(|change| change != no_change);
    [
        changes.then_some(Attribute::CHANGE_REQUEST),
        has(request, Attribute::PADDING),
        has(request, Attribute::RESPONSE_PORT),
    ]
    .into_iter()
    .flatten()
}

fn has(request: &Request<'_>, attribute: Attribute) -> Option<Attribute> {
    request.has(attribute).then_some(attribute)
}

/// RFC 6335 §6: below are the system ports.
const FIRST_USER_PORT: u16 = 1024;
