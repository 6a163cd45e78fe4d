//! `[nat_discovery]`: two addresses with the same two ports, and the sockets for them.

use std::net::SocketAddr;

use crate::plane::Listen;
use crate::turn::{NatDiscovery, OwnAddress, Transport};

use super::assemble::Assembly;
use super::check::is_private;
use super::host::Host;

const KEY: &str = "nat_discovery.addresses";

impl Assembly<'_> {
    /// The discovery of each family that is asked for, with its four sockets among `listeners`.
    pub(super) fn nat_discovery(&mut self, listeners: &mut Vec<Listen>) -> Vec<NatDiscovery> {
        let named = &self.config.nat_discovery;
        let (v4, v6): (Vec<SocketAddr>, Vec<_>) =
            named.iter().partition(|address| address.is_ipv4());
        let found: Vec<NatDiscovery> = [v4, v6]
            .iter()
            .filter(|addresses| !addresses.is_empty())
            .filter_map(|addresses| self.discovery_of(addresses))
            .collect();
        for socket in found.iter().flat_map(NatDiscovery::sockets) {
            self.check_discovery_socket(socket, listeners);
            let known = listeners
                .iter()
                .any(|listen| listen.address == socket && !listen.transport.is_stream());
            if !known {
                listeners.push(Listen::new(socket, Transport::Udp));
            }
        }
        found
    }

    /// The two of one family.
    fn discovery_of(&mut self, named: &[SocketAddr]) -> Option<NatDiscovery> {
        let remedy = "write two addresses of this host with a port each, as in [\"203.0.113.4:3478\", \"203.0.113.5:3479\"]: \
                      both ports are used on both addresses";
        let [first, second] = named else {
            let what = format!("a NAT is told from {} and one other address", named[0]);
            self.error(KEY, what, remedy);
            return None;
        };
        let (one, other) = (self.own_address(*first), self.own_address(*second));
        if one.local == other.local || first.port() == second.port() {
            let what = format!("{first} and {second} must differ in address and in port");
            self.error(KEY, what, remedy);
            return None;
        }
        for address in [one, other] {
            self.check_discovery_address(address);
        }
        Some(NatDiscovery {
            addresses: [one, other],
            ports: [first.port(), second.port()],
        })
    }

    fn own_address(&self, named: SocketAddr) -> OwnAddress {
        let found = self.translated(named.ip());
        OwnAddress {
            local: found.local,
            advertised: found.advertised,
        }
    }

    fn check_discovery_address(&mut self, address: OwnAddress) {
        let OwnAddress { local, advertised } = address;
        if !Host::has_address(local) {
            let remedy = format!(
                "if a NAT in front of this host maps {advertised} to it, add \"{advertised}=LOCAL-ADDRESS\" to [relay] external"
            );
            self.warning(
                KEY,
                format!("{local} is not an address of this host"),
                remedy,
            );
        } else if advertised.is_loopback() || is_private(advertised) {
            let remedy = "name addresses that clients outside can reach";
            let what =
                format!("{advertised} is a private address: nothing is found out of NATs there");
            self.warning(KEY, what, remedy);
        }
    }

    fn check_discovery_socket(&mut self, socket: SocketAddr, listeners: &[Listen]) {
        let other = listeners.iter().find(|listen| {
            listen.address == socket
                && !listen.transport.is_stream()
                && listen.transport != Transport::Udp
        });
        if let Some(other) = other {
            let what = format!(
                "{socket} is taken by a [[listen]] for {}",
                other.transport.label()
            );
            self.error(KEY, what, "give one of them another port");
        }
    }
}
