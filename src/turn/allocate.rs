//! Allocate (RFC 8656 §7).

use std::time::Duration;

use rand::RngExt as _;

use crate::stun::{Attribute, ErrorCode};

use super::allocation::{Allocation, AllocationId, Birth, Relayed};
use super::authenticate::User;
use super::channel::Channels;
use super::icmp::IcmpBudget;
use super::peers;
use super::permission::Permissions;
use super::quota::{Applicant, Claim, Limit};
use super::request::Request;
use super::response::{self, Reject, Success};
use super::server::Server;
use super::terms::Terms;
use super::{
    Allocated, Event, Families, Family, Relay, RelayProtocol, Relays, SessionId, Traffic, Want,
    WantedPort,
};

impl Server {
    /// RFC 8656 §7.2; the numbers are the RFC's. Dispatch has done 1: `user` is authenticated.
    pub(super) fn allocate(
        &mut self,
        request: &Request<'_>,
        user: &User<'_>,
        relays: &mut impl Relays,
    ) -> Result<Success, Reject> {
        let families = relays.families();
        // 2. The request that made the allocation, come again, is answered as it was.
        if let Some(id) = self.allocations.find(&request.from.five_tuple) {
            let again = self.allocations.get(id).is_some_and(|existing| {
                existing.birth.transaction == request.message.transaction_id()
                    && existing.owner.is(user)
            });
            return if again {
                self.told(id, request, families)
            } else {
                Err(Reject::AllocationMismatch)
            };
        }
        // 3
        let protocol = requested_protocol(request)?;
        // 4. Nothing to check: the DF bit can be set.
        // 5 to 9
        let (applicant, terms) = (user.applicant(request, &self.quotas), user.terms(request));
        let wanted = Wanted::of(request, (applicant.person, terms.per_user), families)?;
        let lifetime = request.granted_lifetime(user)?;
        // §21.4
        if peers::is_tunnel(request.from.five_tuple.client.ip()) {
            return Err(Reject::Forbidden);
        }
        // 11
        if let Some(alternate) = self.alternate(request) {
            return Err(Reject::TryAlternate(alternate));
        }
        if self.draining {
            return Err(Reject::Capacity);
        }
        let mobility = self.wanted_mobility(request)?;
        // 10. Before anything is opened.
        let claim = self.claim(request, &applicant, &terms)?;
        let Some(relays) = wanted.open(request, protocol, relays) else {
            return Err(self.no_capacity(request));
        };
        let mut allocation = self.new_allocation(request, user, relays, claim, lifetime);
        match protocol {
            RelayProtocol::Tcp => allocation.connections = Some(Box::default()),
            RelayProtocol::Udp => allocation.mobility = mobility,
        }
        let worker = usize::from(self.tickets.worker.0);
        allocation.settle(&terms, worker, (self.epoch(), request.now.instant));
        self.events.push_back(announced(&allocation, lifetime));
        let id = self.allocations.insert(allocation);
        self.told(id, request, families)
    }

    /// What the client is told of its allocation, at first and when it repeats its request.
    fn told(
        &self,
        id: AllocationId,
        request: &Request<'_>,
        families: Families,
    ) -> Result<Success, Reject> {
        let ticket = self.current_ticket(id);
        let allocation = self.allocations.get(id).ok_or(Reject::AllocationMismatch)?;
        Ok(Success::Allocated(response::Allocated {
            ticket,
            ..told(allocation, request, families)
        }))
    }

    fn claim(
        &mut self,
        request: &Request<'_>,
        applicant: &Applicant,
        terms: &Terms,
    ) -> Result<Claim, Reject> {
        let claim = self.quotas.claim(applicant, terms);
        claim.map_err(|limit| match limit {
            Limit::User | Limit::Client | Limit::Tenant | Limit::NewPeers => Reject::Quota,
            Limit::Total => self.no_capacity(request),
        })
    }

    fn new_allocation(
        &mut self,
        request: &Request<'_>,
        user: &User<'_>,
        (relay, second): (Relay, Option<Relay>),
        claim: Claim,
        lifetime: Duration,
    ) -> Allocation {
        let now = request.now.instant;
        let relayed = |relay: Relay| Relayed {
            id: relay.id,
            address: relay.address,
            expires: now + lifetime,
        };
        Allocation {
            client: request.from,
            relay: relayed(relay),
            second: second.map(|second| Box::new(relayed(second))),
            owner: self.owner(user),
            permissions: Permissions::default(),
            channels: Channels::default(),
            icmp: IcmpBudget::default(),
            connections: None,
            to_peer: Traffic::default(),
            to_client: Traffic::default(),
            birth: Birth::new(request, SessionId(self.random.random()), relay.reserved),
            claim,
            allowance: None,
            mobility: None,
            trail: None,
        }
    }
}

/// Which relayed transport addresses a request wants.
enum Wanted {
    One(Family, WantedPort),
    Both(WantedPort),
}

impl Wanted {
    /// The numbers go on from [`Server::allocate`]. There may be no more reserved ports of an `owner` than allocations.
    fn of(
        request: &Request<'_>,
        (owner, most): (u64, u32),
        families: Families,
    ) -> Result<Self, Reject> {
        let requested = request.has(Attribute::REQUESTED_ADDRESS_FAMILY);
        let additional = request.has_additional_family();
        // 5. The family is that of the reservation.
        if let Some(token) = request.reservation_token()? {
            if requested || additional || request.has(Attribute::EVEN_PORT) {
                return Err(Reject::BadRequest);
            }
            let port = WantedPort::Reserved { token, owner };
            return Ok(Self::One(Family::V4, port));
        }
        // 6
        if requested && additional {
            return Err(Reject::BadRequest);
        }
        // 7
        let family = request
            .requested_family(Reject::AddressFamily)?
            .unwrap_or_else(|| default_family(request, families));
        if !additional && !families.has(family) {
            return Err(Reject::AddressFamily);
        }
        // 8
        let port = match request.even_port()? {
            None => WantedPort::Any,
            Some(false) => WantedPort::Even,
            Some(true) if additional => return Err(Reject::BadRequest),
            Some(true) => WantedPort::EvenAndNext { owner, most },
        };
        // 9
        Ok(if request.wants_both_families()? {
            Self::Both(port)
        } else {
            Self::One(family, port)
        })
    }

    /// Opens what is wanted, if it can be had: of two families whichever can.
    fn open(
        &self,
        request: &Request<'_>,
        protocol: RelayProtocol,
        relays: &mut impl Relays,
    ) -> Option<(Relay, Option<Relay>)> {
        let mut open = |family, port| {
            let want = Want {
                protocol,
                family,
                port,
                now: request.now,
            };
            relays.open(want).ok()
        };
        match *self {
            Self::One(family, port) => open(family, port).map(|relay| (relay, None)),
            Self::Both(port) => match (open(Family::V4, port), open(Family::V6, port)) {
                (Some(v4), v6) => Some((v4, v6)),
                (None, v6) => v6.map(|v6| (v6, None)),
            },
        }
    }
}

/// The protocol that is wanted between relay and peers. What goes with UDP only is refused with TCP (RFC 6062 §5.1).
fn requested_protocol(request: &Request<'_>) -> Result<RelayProtocol, Reject> {
    match request.requested_transport()? {
        UDP => return Ok(RelayProtocol::Udp),
        TCP if request.settings.tcp_relay.is_some() => {}
        _ => return Err(Reject::TransportProtocol),
    }
    let of_udp = [
        Attribute::DONT_FRAGMENT,
        Attribute::EVEN_PORT,
        Attribute::RESERVATION_TOKEN,
    ];
    let stream = request.from.five_tuple.transport.is_stream();
    if !stream || of_udp.iter().any(|attribute| request.has(*attribute)) {
        return Err(Reject::BadRequest);
    }
    Ok(RelayProtocol::Tcp)
}

/// The family of who names none: IPv4, or on request of the operator what there is.
fn default_family(request: &Request<'_>, families: Families) -> Family {
    if request.settings.unasked_ipv6 && !families.v4 {
        Family::V6
    } else {
        Family::V4
    }
}

/// What the client is told of its allocation, at first and when it repeats its request.
fn told(allocation: &Allocation, request: &Request<'_>, families: Families) -> response::Allocated {
    let asked_for_both = request.has_additional_family();
    let lacks = (asked_for_both && allocation.second.is_none()).then(|| {
        let other = match allocation.relay.family() {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        };
        if families.has(other) {
            (other, ErrorCode::INSUFFICIENT_CAPACITY)
        } else {
            (other, ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED)
        }
    });
    let left = allocation.relay.expires - request.now.instant;
    response::Allocated {
        relay: allocation.relay.address,
        second: allocation.second.as_ref().map(|second| second.address),
        lifetime: left.as_secs() as u32,
        reserved: allocation.birth.reserved(),
        lacks,
        ticket: None,
    }
}

fn announced(allocation: &Allocation, lifetime: Duration) -> Event {
    Event::Allocated(Box::new(Allocated {
        session: allocation.birth.session,
        username: allocation.owner.username.clone(),
        tenant: allocation.owner.tenant().map(Box::from),
        five_tuple: allocation.client.five_tuple,
        relays: allocation.addresses(),
        lifetime,
    }))
}

/// IP protocol numbers.
const UDP: u8 = 17;
const TCP: u8 = 6;
