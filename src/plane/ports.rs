//! Relay ports: which are free, who owns which, and the table that lets one relay find another.
//!
//! The range is one pool for all workers. Claiming a port is one compare-and-swap in an array of atomics;
//! the same array answers, for any packet to one of our own relayed addresses, which worker and which
//! relay it belongs to. It is written on Allocate and on release, never per packet.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use arc_swap::ArcSwap;

use crate::turn::{Reach, RelayId, RelayProtocol};

/// An address that relays are opened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayAddress {
    /// The address of this machine that relay sockets are bound to.
    pub local: IpAddr,
    /// The address that clients are told: the same, or what a 1:1 NAT maps to it.
    pub advertised: IpAddr,
}

/// Where relays are opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayRange {
    /// At most one address per family is used for a relay; the first of each family.
    pub addresses: Vec<RelayAddress>,
    /// The ports, never below 1024 (\[T2\]).
    pub ports: RangeInclusive<u16>,
}

/// The worker and the relay that own a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) worker: usize,
    pub(super) relay: RelayId,
    pub(super) protocol: RelayProtocol,
}

/// A slot of the table: 0 free, otherwise (worker + 1) in the high byte, whether peers connect to it in the next
/// bit, and the relay below.
const FREE: u32 = 0;
/// Claimed, but no relay yet: a socket is being bound, or a reservation holds the port.
const HELD: u32 = u32::MAX;
const WORKER_SHIFT: u32 = 24;
const IS_TCP: u32 = 1 << 23;

/// The most workers that the table can name.
pub(super) const MAX_WORKERS: usize = 254;
/// The most relays that one worker can have.
pub(super) const MAX_RELAYS: usize = IS_TCP as usize - 1;

/// The relay ports of the whole server, shared by its workers.
pub(super) struct Ports {
    range: RelayRange,
    owners: Vec<Box<[AtomicU32]>>,
    used: AtomicUsize,
    /// All addresses of this machine that must not be reached through it.
    own: ArcSwap<Vec<IpAddr>>,
    /// Those that are listened on, which need not be of any interface: a whole prefix can be routed to a host.
    listening: Vec<IpAddr>,
}

impl Ports {
    pub(super) fn new(range: RelayRange, own: Vec<IpAddr>, listening: Vec<IpAddr>) -> Self {
        let count = range.ports.clone().count();
        let free = || (0..count).map(|_| AtomicU32::new(FREE)).collect();
        let owners = range.addresses.iter().map(|_| free()).collect();
        Self {
            range,
            owners,
            used: AtomicUsize::new(0),
            own: ArcSwap::from_pointee(own),
            listening,
        }
    }

    /// Ports of the pool over all addresses, and those in use.
    pub(super) fn pool(&self) -> (usize, usize) {
        (
            self.owners.iter().map(|ports| ports.len()).sum(),
            self.used.load(Ordering::Relaxed),
        )
    }

    /// Tells which addresses this machine has.
    pub(super) fn set_own_addresses(&self, own: Vec<IpAddr>) {
        self.own.store(own.into());
    }

    /// The address that relays of a family are opened on, with its index for the other methods.
    pub(super) fn address(&self, v4: bool) -> Option<(usize, RelayAddress)> {
        self.range
            .addresses
            .iter()
            .copied()
            .enumerate()
            .find(|(_, address)| address.local.is_ipv4() == v4)
    }

    /// One of the pool's addresses.
    pub(super) fn address_at(&self, index: usize) -> Option<RelayAddress> {
        self.range.addresses.get(index).copied()
    }

    /// Claims a port that satisfies `fits`, trying from `start` (any number) around the range.
    pub(super) fn claim(
        &self,
        address: usize,
        start: u32,
        fits: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        let count = self.owners[address].len();
        let start = start as usize % count;
        (0..count).map(|i| (start + i) % count).find_map(|i| {
            let port = self.range.ports.start() + i as u16;
            (fits(port) && self.try_claim(address, port)).then_some(port)
        })
    }

    /// Claims this port, if it lies in the range and is free.
    pub(super) fn try_claim(&self, address: usize, port: u16) -> bool {
        let Some(slot) = self.slot(address, port) else {
            return false;
        };
        let claimed = slot
            .compare_exchange(FREE, HELD, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        if claimed {
            self.used.fetch_add(1, Ordering::Relaxed);
        }
        claimed
    }

    /// Makes a claimed port a live relay.
    pub(super) fn publish(&self, address: usize, port: u16, owner: Owner) {
        if let Some(slot) = self.slot(address, port) {
            let protocol = match owner.protocol {
                RelayProtocol::Udp => 0,
                RelayProtocol::Tcp => IS_TCP,
            };
            slot.store(
                ((owner.worker as u32 + 1) << WORKER_SHIFT) | protocol | owner.relay.0,
                Ordering::Release,
            );
        }
    }

    /// Gives a claimed port back.
    pub(super) fn release(&self, address: usize, port: u16) {
        if let Some(slot) = self.slot(address, port)
            && slot.swap(FREE, Ordering::AcqRel) != FREE
        {
            self.used.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The live relay at an address, advertised or local.
    pub(super) fn owner(&self, address: SocketAddr) -> Option<Owner> {
        let index = self.index(address.ip())?;
        let slot = self.slot(index, address.port())?.load(Ordering::Acquire);
        (slot != FREE && slot != HELD).then(|| Owner {
            worker: (slot >> WORKER_SHIFT) as usize - 1,
            relay: RelayId(slot & MAX_RELAYS as u32),
            protocol: match slot & IS_TCP {
                0 => RelayProtocol::Udp,
                _ => RelayProtocol::Tcp,
            },
        })
    }

    /// Whether a peer can be connected to as far as we know: it is not ours, or it is an open TCP relay. At a port
    /// where a relay of ours takes datagrams, whoever listens for connections is none of our clients.
    pub(super) fn takes_connections(&self, peer: SocketAddr) -> bool {
        !self.is_relay_address(peer.ip())
            || self
                .owner(peer)
                .is_some_and(|owner| owner.protocol == RelayProtocol::Tcp)
    }

    /// Whether packets to `ip` must stay inside this process because relays live there.
    pub(super) fn is_relay_address(&self, ip: IpAddr) -> bool {
        self.index(ip).is_some()
    }

    /// Whether an address is outside, a live relay of ours, or otherwise ours (A06).
    pub(super) fn reach(&self, peer: SocketAddr) -> Reach {
        if self.owner(peer).is_some() {
            Reach::LiveRelay
        } else if self.is_relay_address(peer.ip())
            || self.listening.contains(&peer.ip())
            || self.own.load().contains(&peer.ip())
        {
            Reach::Own
        } else {
            Reach::Outside
        }
    }

    /// Where sockets find what peers know by this address: one of our relays' under the address it is bound to.
    pub(super) fn to_local(&self, peer: SocketAddr) -> SocketAddr {
        let relay = self.index(peer.ip()).and_then(|i| self.address_at(i));
        relay.map_or(peer, |relay| SocketAddr::new(relay.local, peer.port()))
    }

    /// What peers know by this address: the other way.
    pub(super) fn to_advertised(&self, peer: SocketAddr) -> SocketAddr {
        let relay = self.index(peer.ip()).and_then(|i| self.address_at(i));
        relay.map_or(peer, |relay| SocketAddr::new(relay.advertised, peer.port()))
    }

    fn index(&self, ip: IpAddr) -> Option<usize> {
        self.range
            .addresses
            .iter()
            .position(|address| address.advertised == ip || address.local == ip)
    }

    fn slot(&self, address: usize, port: u16) -> Option<&AtomicU32> {
        let offset = port.checked_sub(*self.range.ports.start())?;
        self.owners.get(address)?.get(usize::from(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(range: RangeInclusive<u16>) -> Ports {
        let address = RelayAddress {
            local: "10.0.0.5".parse().unwrap(),
            advertised: "203.0.113.4".parse().unwrap(),
        };
        Ports::new(
            RelayRange {
                addresses: vec![address],
                ports: range,
            },
            vec!["10.0.0.9".parse().unwrap()],
            vec!["198.51.100.7".parse().unwrap()],
        )
    }

    #[test]
    fn every_port_is_claimed_once_and_comes_back() {
        let ports = ports(50_000..=50_099);
        let mut claimed: Vec<u16> = (0..100)
            .map(|i| ports.claim(0, i * 7919, |_| true).unwrap())
            .collect();
        assert_eq!(ports.claim(0, 3, |_| true), None);
        assert_eq!(ports.pool(), (100, 100));
        claimed.sort_unstable();
        claimed.dedup();
        assert_eq!(claimed.len(), 100);
        for port in claimed {
            ports.release(0, port);
            ports.release(0, port);
        }
        assert_eq!(ports.pool(), (100, 0));
    }

    #[test]
    fn a_relay_is_found_by_both_of_its_addresses_only_while_it_lives() {
        let ports = ports(50_000..=50_099);
        let port = ports.claim(0, 5, |port| port % 2 == 0).unwrap();
        let owner = Owner {
            worker: 3,
            relay: RelayId(77),
            protocol: RelayProtocol::Udp,
        };
        let advertised = SocketAddr::new("203.0.113.4".parse().unwrap(), port);
        let local = SocketAddr::new("10.0.0.5".parse().unwrap(), port);
        assert_eq!(ports.owner(advertised), None);
        assert_eq!(ports.reach(advertised), Reach::Own);
        ports.publish(0, port, owner);
        assert_eq!(ports.owner(advertised), Some(owner));
        assert_eq!(ports.owner(local), Some(owner));
        assert_eq!(ports.reach(local), Reach::LiveRelay);
        ports.release(0, port);
        assert_eq!(ports.owner(advertised), None);
    }

    #[test]
    fn connections_are_taken_outside_and_by_tcp_relays() {
        let ports = ports(50_000..=50_099);
        assert!(ports.try_claim(0, 50_001));
        let ours = ["203.0.113.4:50001", "10.0.0.5:50001"].map(|text| text.parse().unwrap());
        let taken = || ours.map(|peer| ports.takes_connections(peer));
        assert_eq!(taken(), [false; 2]);
        for (protocol, is_taken) in [(RelayProtocol::Udp, false), (RelayProtocol::Tcp, true)] {
            let owner = Owner {
                worker: MAX_WORKERS - 1,
                relay: RelayId(MAX_RELAYS as u32 - 1),
                protocol,
            };
            ports.publish(0, 50_001, owner);
            assert_eq!(ports.owner(ours[0]), Some(owner));
            assert_eq!(taken(), [is_taken; 2]);
        }
        assert!(ports.takes_connections("192.0.2.1:9".parse().unwrap()));
    }

    #[test]
    fn own_addresses_are_told_from_the_outside() {
        let ports = ports(50_000..=50_099);
        assert_eq!(ports.reach("10.0.0.9:22".parse().unwrap()), Reach::Own);
        assert_eq!(ports.reach("203.0.113.4:3478".parse().unwrap()), Reach::Own);
        assert_eq!(ports.reach("192.0.2.1:9".parse().unwrap()), Reach::Outside);
    }

    #[test]
    fn l2_what_is_listened_on_is_own_even_if_no_interface_has_it() {
        let ports = ports(50_000..=50_099);
        ports.set_own_addresses(Vec::new());
        assert_eq!(ports.reach("198.51.100.7:80".parse().unwrap()), Reach::Own);
    }
}
