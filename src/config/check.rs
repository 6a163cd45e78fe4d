//! What no single key can tell: whether they fit each other, this host, and the world around it.

use std::net::IpAddr;

use crate::plane::{Listen, RelayAddress, RelayRange};
use crate::turn::{Limits, PasswordAlgorithms};

use super::assemble::{Assembly, SPARE_DESCRIPTORS, TURN_PORT};
use super::host::Host;

/// 2020-01-01, in seconds since 1970: nothing of this is older.
const YEAR_2020: i64 = 1_577_836_800;

impl Assembly<'_> {
    pub(super) fn check_relay_addresses(&mut self, addresses: &[RelayAddress], detected: bool) {
        let key = if self.config.relay.addresses.is_some() {
            "relay.addresses"
        } else {
            "relay.external"
        };
        for (index, RelayAddress { local, advertised }) in addresses.iter().enumerate() {
            if local.is_unspecified()
                || local.is_multicast()
                || advertised.is_unspecified()
                || advertised.is_multicast()
            {
                let remedy = "name an address of this host that clients can reach, or leave the key out to have it detected";
                self.error(
                    key,
                    format!("{local} is not an address to relay from"),
                    remedy,
                );
            } else if addresses[..index]
                .iter()
                .any(|other| other.local.is_ipv4() == local.is_ipv4())
            {
                let remedy = "take it out; relays are opened on one IPv4 and one IPv6 address";
                self.warning(
                    key,
                    format!(
                        "{advertised} is not used: there is another address of its family before it"
                    ),
                    remedy,
                );
            } else if !Host::has_address(*local) {
                let remedy = format!(
                    "if there is a NAT in front of this host that maps {advertised} to it, write external = [\"{advertised}=LOCAL-ADDRESS\"]"
                );
                self.warning(
                    key,
                    format!("{local} is not an address of this host"),
                    remedy,
                );
            } else if !detected && advertised.is_loopback() {
                let remedy = "name an address that clients can reach";
                self.warning(
                    key,
                    format!("{advertised} can be reached from this host alone"),
                    remedy,
                );
            } else if !detected && is_private(*advertised) {
                let remedy = format!(
                    "if there is a NAT in front of this host, add external = [\"ITS-ADDRESS={local}\"]"
                );
                self.warning(
                    key,
                    format!("{advertised} is a private address: peers outside cannot reach it"),
                    remedy,
                );
            }
        }
    }

    pub(super) fn check_limits(&mut self, relay: &RelayRange, listeners: &[Listen]) {
        let ports = relay.ports.len() as u64;
        let families = u64::from(relay.addresses.iter().any(|relay| relay.local.is_ipv4()))
            + u64::from(relay.addresses.iter().any(|relay| relay.local.is_ipv6()));
        let capacity = ports * families.max(1);
        let (total, per_user) = (
            u64::from(self.config.limits.total),
            u64::from(self.config.limits.per_user),
        );
        let is_chosen = self.config.limits.total != Limits::default().total;
        if is_chosen && total > capacity {
            let what = format!(
                "{total} allocations are allowed, but there are only {capacity} relay ports"
            );
            self.warning(
                "limits.total",
                what,
                "widen [relay] ports, or lower this limit",
            );
        }
        if per_user > capacity {
            let what =
                format!("{capacity} relay ports are fewer than one user may take ({per_user})");
            self.warning(
                "relay.ports",
                what,
                "widen the range, or lower [limits] per_user",
            );
        }
        let workers = self.config.server.workers.unwrap_or(self.host.cores).get();
        let need = ports + (workers * listeners.len()) as u64 + SPARE_DESCRIPTORS;
        if need > self.host.descriptors {
            let what = format!(
                "{need} descriptors are needed when every relay port is in use, but the limit is {}",
                self.host.descriptors
            );
            self.warning("relay.ports", what, format!("raise it with LimitNOFILE={need} (systemd) or ulimit -n, or narrow [relay] ports"));
        }
        for listener in listeners {
            let is_chosen = self.config.listen.is_some() || listener.address.port() != TURN_PORT;
            if relay.ports.contains(&listener.address.port()) && is_chosen {
                let what = format!(
                    "clients come in at port {}, which lies among the relay ports",
                    listener.address.port()
                );
                self.warning("relay.ports", what, "choose a port outside [relay] ports");
            }
        }
        if self.config.max_lifetime.as_secs() < 600 {
            let remedy = "write at least \"10m\": clients take a shorter lifetime for a mistake";
            self.warning(
                "limits.max_lifetime",
                "allocations are to live for less than ten minutes",
                remedy,
            );
        }
    }

    /// A host without a battery wakes up in 1970.
    pub(super) fn check_clock(&mut self) {
        if self.host.unix < YEAR_2020 {
            let what = "the clock of this host says that it is before 2020: credentials that have expired would be good";
            let remedy =
                "set the clock, as with `timedatectl set-ntp true`, and start the server anew";
            self.warning("", what, remedy);
        }
    }

    pub(super) fn check_exposure(&mut self) {
        let wide = |prefix: &ipnet::IpNet| {
            prefix.prefix_len() < if prefix.addr().is_ipv4() { 8 } else { 7 }
        };
        if let Some(prefix) = self
            .config
            .peers
            .allow
            .iter()
            .find(|prefix| wide(prefix))
            .copied()
        {
            let remedy = "name the prefixes of the peers that are meant, and no others";
            self.warning(
                "peers.allow",
                format!("{prefix} opens the private networks around this host to every user"),
                remedy,
            );
        }
        if let Some(address) = self.config.metrics
            && !address.ip().is_loopback()
            && !is_private(address.ip())
        {
            let remedy = "listen on 127.0.0.1 or an address of a private network, or see to it that a firewall stands before it";
            self.warning(
                "metrics.listen",
                format!("whoever reaches {address} can read the metrics"),
                remedy,
            );
        }
    }
}

impl Assembly<'_> {
    pub(super) fn check_algorithms(&mut self) {
        let listeners = self.config.listen.iter().flatten().enumerate();
        let alone: Vec<usize> = listeners
            .filter(|(_, listener)| {
                let offered = &self.config.listen_algorithms;
                offered.contains(&((*listener).clone(), PasswordAlgorithms::Sha256))
            })
            .map(|(index, _)| index)
            .collect();
        for index in alone {
            let remedy =
                "add \"md5\" if any client there is a browser; \"sha256\" is offered beside it";
            self.warning(
                &format!("listen[{index}].password_algorithms"),
                "without md5 no browser can log in here",
                remedy,
            );
        }
        let auth = &self.config.auth;
        let made_up = auth.users.is_empty()
            || auth.oauth.is_some()
            || auth
                .secrets
                .as_ref()
                .is_some_and(|secrets| !secrets.is_empty());
        if auth.username_anonymity && made_up {
            let remedy = "take it out, or have users with passwords of their own and no secrets";
            self.error(
                "auth.username_anonymity",
                "the names of time-limited credentials cannot be found by a hash: nobody could log in with one",
                remedy,
            );
        }
    }
}

/// An address that is of use behind a NAT alone.
pub(super) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_private()
                || v4.is_link_local()
                || (v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}
