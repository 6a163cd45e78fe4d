//! What contradicts itself: two who listen at one place, limits that are never reached, one secret for two.

use std::net::SocketAddr;
use std::path::Path;

use crate::plane::Listen;
use crate::token;
use crate::turn::Transport;

use super::AdminSocket;
use super::assemble::Assembly;
use super::values::show_bit_rate;

/// Less than a packet of voice a second: a unit has been forgotten.
const TINY_RATE: u64 = 8000;

/// A limit, with the key that says it; 0 for none.
type Limit = (String, u64);

impl Assembly<'_> {
    /// Whether each place is listened at by one part alone.
    pub(super) fn check_places(&mut self, listeners: &[Listen]) {
        let own = listeners.iter().enumerate();
        let own = own.filter(|(_, listen)| listen.transport.is_stream());
        let own = own.map(|(index, listen)| (format!("listen[{index}].address"), listen.address));
        let mut taken: Vec<(String, SocketAddr)> = own.collect();
        let config = self.config;
        let token = config.token.listen.iter().filter_map(|place| match place {
            token::Listen::Http(address) | token::Listen::Https(address) => Some(*address),
            token::Listen::Unix(_) => None,
        });
        let others = token
            .map(|address| ("token.listen", address))
            .chain(config.metrics.map(|address| ("metrics.listen", address)))
            .chain(config.admin.listen.map(|address| ("admin.listen", address)));
        for (key, address) in others {
            if let Some((other, at)) = taken.iter().find(|(_, at)| overlap(*at, address)) {
                let what = format!("{address} is taken already: {other} has {at}");
                self.error(key, what, "give one of them another port");
            }
            taken.push((key.to_owned(), address));
        }
        self.check_sockets();
    }

    fn check_sockets(&mut self) {
        let config = self.config;
        let mut seen: Vec<&Path> = match &config.admin.socket {
            AdminSocket::At(path) => vec![path],
            AdminSocket::Customary | AdminSocket::Off => Vec::new(),
        };
        for place in &config.token.listen {
            if let token::Listen::Unix(path) = place {
                if seen.contains(&path.as_path()) {
                    let what = format!("{} is listened at twice", path.display());
                    self.error("token.listen", what, "give each socket a path of its own");
                }
                seen.push(path);
            }
        }
    }

    /// Whether each limit can be reached before a wider one is.
    pub(super) fn check_order(&mut self) {
        let config = self.config;
        let limits = &config.limits;
        let (bandwidth, new_peers) = (&limits.bandwidth, &limits.new_peers);
        let here = |name: &str, limit: u64| (format!("limits.{name}"), limit);
        let count = |name: &str, number: u32| here(name, or_none(number));
        let total = count("total", limits.total);
        let bandwidth_total = here("bandwidth_total", bandwidth.total);
        let per_user = count("per_user", limits.per_user);
        self.check_chain(&[
            per_user,
            count("per_tenant", limits.per_tenant),
            total.clone(),
        ]);
        self.check_chain(&[count("per_client", limits.per_client), total.clone()]);
        self.check_rates(&[
            here("bandwidth_per_allocation", bandwidth.per_allocation),
            here("bandwidth_per_user", bandwidth.per_user),
            here("bandwidth_per_tenant", bandwidth.per_tenant),
            bandwidth_total.clone(),
        ]);
        self.check_chain(&[
            count("new_peers_per_allocation", new_peers.per_allocation),
            count("new_peers_per_user", new_peers.per_user),
        ]);
        for (index, tenant) in config.tenants.iter().enumerate() {
            let own = &tenant.limits;
            let here = |name: &str, limit: Option<u64>| {
                (format!("tenants[{index}].{name}"), limit.unwrap_or(0))
            };
            let count = |name: &str, number: Option<u32>| here(name, number.map(or_none));
            self.check_chain(&[
                count("per_user", own.per_user),
                count("total", own.total),
                total.clone(),
            ]);
            self.check_rates(&[
                here("bandwidth_per_allocation", own.bandwidth_per_allocation),
                here("bandwidth_per_user", own.bandwidth_per_user),
                here("bandwidth_total", own.bandwidth_total),
                bandwidth_total.clone(),
            ]);
            self.check_chain(&[
                count("new_peers_per_allocation", own.new_peers_per_allocation),
                count("new_peers_per_user", own.new_peers_per_user),
            ]);
        }
    }

    /// Of limits, the narrowest first. A default that is never reached harms nobody.
    fn check_chain(&mut self, chain: &[Limit]) {
        for (index, (key, limit)) in chain.iter().enumerate() {
            let wider = chain[index + 1..].iter();
            let mut less = wider.filter(|(_, wider)| (1..*limit).contains(wider));
            if let (true, Some((other, _))) = (self.report.is_given(key), less.next()) {
                let what = format!("this is never reached: {other} allows less");
                self.warning(key, what, format!("lower it, or raise {other}"));
            }
        }
    }

    fn check_rates(&mut self, chain: &[Limit]) {
        for (key, rate) in chain {
            if (1..TINY_RATE).contains(rate) && self.report.is_given(key) {
                let rate = show_bit_rate(*rate);
                let what = format!("{rate} bits a second are less than a packet a second");
                self.warning(key, what, "add the unit, as in \"500k\" or \"4M\"");
            }
        }
        self.check_chain(chain);
    }

    /// Whoever has the secret of one part could pass for the other.
    pub(super) fn check_same_secrets(&mut self) {
        for (key, other) in self.contents.same_secrets() {
            let what =
                format!("this is the same secret as that of {other}: who has the one has both");
            let remedy = "put another one into the file: `turnd genkey` prints one";
            self.warning(&key, what, remedy);
        }
    }

    /// A host can be asked for over TLS alone.
    pub(super) fn check_server_names(&mut self, listeners: &[Listen]) {
        let config = self.config;
        let speaks_tls = |listen: &Listen| match listen.transport {
            Transport::Tls => true,
            Transport::Tcp => config.tls.is_some(),
            Transport::Udp | Transport::Dtls => false,
        };
        if listeners.iter().any(speaks_tls) {
            return;
        }
        for (index, tenant) in config.tenants.iter().enumerate() {
            if !tenant.server_names.is_empty() {
                self.warning(
                    &format!("tenants[{index}].server_names"),
                    "nobody can ask for these hosts: nothing listens for TLS",
                    "add a [tls] table, and a [[listen]] with transport = \"tls\" or \"tcp\"",
                );
            }
        }
    }
}

/// What is written for no limit is 0, and what is kept the largest number.
fn or_none(number: u32) -> u64 {
    match number {
        u32::MAX => 0,
        number => number.into(),
    }
}

/// Whether two listeners would be in each other's way. Port 0 is any that is free.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let wildcard = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port()
        && one.port() != 0
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip() == other.ip() || wildcard)
}
