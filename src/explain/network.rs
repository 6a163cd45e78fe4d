//! What the network and this host's kernel say of what was sent to a peer.

use std::net::{IpAddr, SocketAddr};

use super::session::{Story, finding};
use super::words::times;
use super::{Finding, rank};
use crate::turn::{ConnectFailure, Note, SendFailure};

impl Story<'_> {
    /// What came back as an ICMP error.
    pub(super) fn unreachable(
        &self,
        ip: IpAddr,
        port: u16,
        (kind, code): (u8, u8),
        note: &Note,
    ) -> Finding {
        let (cause, said, remedy) = icmp_words(ip, kind, code);
        let peer = match port {
            0 => ip.to_string(),
            _ => SocketAddr::new(ip, port).to_string(),
        };
        let rank = if self.heard_from(ip) {
            rank::HARMLESS
        } else {
            self.rank(rank::UNREACHABLE)
        };
        let what = format!(
            "What was sent to {peer} came back as undeliverable: {said} (ICMP type {kind}, code {code}), {}, last {}.",
            times(note.count),
            self.ago(note.last)
        );
        finding(cause, rank, what, remedy)
    }

    /// What did not leave this host.
    pub(super) fn not_sent(&self, ip: IpAddr, why: SendFailure, note: &Note) -> Finding {
        let family = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
        let (cause, said, remedy) = match why {
            SendFailure::NoRoute => (
                "no_route",
                format!("this host has no {family} route there"),
                format!(
                    "`ip route get {ip}` on this host shows what is missing. If it has no such network at all, name no \
                     address of that family under [relay] addresses."
                ),
            ),
            SendFailure::TooBig => (
                "too_big",
                "the packets are longer than the path takes, and must not be fragmented".to_owned(),
                SMALLER.to_owned(),
            ),
            SendFailure::Forbidden => (
                "firewall",
                "this host forbids it".to_owned(),
                format!(
                    "Most likely a firewall: look at the output rules of this host (`nft list ruleset`), for UDP from the \
                     relay's ports. A route that prohibits looks alike (`ip route get {ip}`), and so does a broadcast \
                     address."
                ),
            ),
            SendFailure::Other => (
                "send_failed",
                "the kernel refused it".to_owned(),
                "`turn_socket_errors_total` on the metrics page counts it, by kind.".to_owned(),
            ),
        };
        let what = format!(
            "What was meant for {ip} could not be sent: {said}; {}, last {}.",
            times(note.count),
            self.ago(note.last)
        );
        finding(cause, self.rank(rank::UNREACHABLE), what, remedy)
    }

    /// A peer that could not be connected to.
    pub(super) fn not_connected(
        &self,
        peer: SocketAddr,
        why: ConnectFailure,
        note: &Note,
    ) -> Finding {
        let (said, remedy) = match why {
            ConnectFailure::Refused => (
                "it, or a firewall before it, refused",
                "The host is there, and nothing listens on that port, or a firewall rejects what comes from the relay's \
                 address.",
            ),
            ConnectFailure::TimedOut => (
                "it did not answer in time",
                "The host is off or gone, or a firewall drops what comes from the relay's address; `nc -vz` from this host \
                 shows the same. `connect_timeout` under [tcp_relay] says how long is waited.",
            ),
            ConnectFailure::NoRoute => (
                "there is no way to it from this host",
                "`ip route get` with the address shows what is missing. If this host has no such network at all, name no \
                 address of that family under [relay] addresses.",
            ),
            ConnectFailure::Other => (
                "the kernel of this host refused",
                "`turn_socket_errors_total` on the metrics page says more; the process may have no descriptors left \
                 (`ulimit -n`, LimitNOFILE=).",
            ),
        };
        let what = format!(
            "The peer {peer} could not be connected to (447), {}, last {}: {said}.",
            times(note.count),
            self.ago(note.last)
        );
        finding("connect_failed", self.rank(rank::UNREACHABLE), what, remedy)
    }
}

/// What an ICMP error says, and what to do about it.
fn icmp_words(ip: IpAddr, kind: u8, code: u8) -> (&'static str, &'static str, &'static str) {
    let port = (
        "port_unreachable",
        "the host is there, and nothing listens on that port",
        "The peer's program has ended or uses another port; its candidate is old.",
    );
    let host = (
        "host_unreachable",
        "a router could not find the host",
        "The peer is off, or has left that network; look at its address, and at the routes of this host.",
    );
    let net = (
        "net_unreachable",
        "there is no route to that network",
        "`ip route get ADDRESS` on this host shows where the way ends; a relay without IPv6 must not offer any.",
    );
    let filtered = (
        "filtered",
        "a firewall on the way forbids it, and says so",
        "Let UDP in there from the relay's address and ports.",
    );
    let too_big = (
        "too_big",
        "the packets are longer than the path takes",
        SMALLER,
    );
    let expired = (
        "undeliverable",
        "it was on the way for too long",
        "Routes between here and there go in circles: `traceroute` shows where.",
    );
    let other = (
        "undeliverable",
        "something on the way, or the host itself, would not take it",
        "`tcpdump icmp or icmp6` on this host shows who says so; `traceroute`, where that is.",
    );
    if ip.is_ipv4() {
        match (kind, code) {
            (3, 3) => port,
            (3, 4) => too_big,
            (3, 0 | 6 | 11) => net,
            (3, 1 | 7) => host,
            (3, 9 | 10 | 13) => filtered,
            (11, _) => expired,
            _ => other,
        }
    } else {
        match (kind, code) {
            (1, 4) => port,
            (2, _) => too_big,
            (1, 0) => net,
            (1, 3) => host,
            (1, 1 | 5 | 6) => filtered,
            (3, _) => expired,
            _ => other,
        }
    }
}

const SMALLER: &str =
    "The client has to send smaller packets: of less than 1200 bytes nearly every path takes all.";
