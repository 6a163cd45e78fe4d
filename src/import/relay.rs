//! `[relay]`: addresses and ports of relays.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::addresses::address;
use super::line::Line;
use super::toml::{quoted, quoted_list};
use super::translation::Translation;

/// The range of RFC 8656 §7.2, which both servers have without being told.
const PORTS: RangeInclusive<u16> = 49152..=65535;
/// turnd gives no system ports away.
const LOWEST: u16 = 1024;

/// An address that the world sees, and the local one behind it.
struct External<'a> {
    public: IpAddr,
    local: IpAddr,
    line: Line<'a>,
}

impl<'a> Translation<'a> {
    pub(super) fn relay(&mut self) {
        let (mut addresses, lines) = self.relay_addresses();
        let externals = self.externals(&addresses);
        // Who relays behind a NAT for one family relays for the other as well, if it is named.
        if lines.is_empty()
            && addresses
                .iter()
                .all(|own| externals.iter().any(|one| one.local == *own))
        {
            addresses.clear();
        }
        if !addresses.is_empty() {
            let mut origins = self.origins(&lines);
            if lines.is_empty() {
                origins.push(
                    "relayed from where clients come in, as coturn does it without relay-ip"
                        .to_owned(),
                );
            }
            self.toml
                .assign("relay", &origins, "addresses", &quoted_list(&addresses));
        }
        if !externals.is_empty() {
            let items: Vec<(Vec<String>, Vec<String>)> = externals
                .iter()
                .map(|one| {
                    let pair = format!("{}={}", one.public, one.local);
                    (vec![self.origin(one.line)], vec![quoted(&pair)])
                })
                .collect();
            self.toml.list("relay", "external", &items);
        }
        self.relay_ports();
        self.families(&addresses);
    }

    /// One address of each family: of `relay-ip`, else of `listening-ip`.
    fn relay_addresses(&mut self) -> (Vec<IpAddr>, Vec<Line<'a>>) {
        let (mut addresses, mut lines): (Vec<IpAddr>, Vec<Line<'a>>) = (Vec::new(), Vec::new());
        for line in self.all("relay-ip") {
            match address(line.value) {
                Some(ip) if is_new(&addresses, ip) => {
                    self.mapped(line, "[relay] addresses");
                    addresses.push(ip);
                    lines.push(line);
                }
                Some(ip) if ip.is_unspecified() => {
                    self.dropped(line, "this is not the address of one place")
                }
                Some(_) => self.dropped(
                    line,
                    "turnd relays from one address of each family, the first",
                ),
                None => self.dropped(line, "this is not an address; names are not looked up"),
            }
        }
        if addresses.is_empty() {
            for ip in self.doors.named.clone() {
                if is_new(&addresses, ip) {
                    addresses.push(ip);
                }
            }
        }
        (addresses, lines)
    }

    fn externals(&mut self, addresses: &[IpAddr]) -> Vec<External<'a>> {
        let mut externals: Vec<External<'a>> = Vec::new();
        for line in self.all("external-ip") {
            let (public, local) = match line.value.split_once('/') {
                Some((public, local)) => (address(public), address(local)),
                None => (address(line.value), None),
            };
            let Some(public) = public.filter(|public| !public.is_unspecified()) else {
                self.dropped(line, "this is not an address; names are not looked up");
                continue;
            };
            let behind = match local {
                Some(local) if local.is_ipv4() == public.is_ipv4() => Some(local),
                Some(_) => None,
                None if line.value.contains('/') => None,
                None => self.behind(addresses, public),
            };
            let Some(local) = behind else {
                let told = format!(
                    "which address of this host is behind it? Write [relay] external = [\"{public}=LOCAL-ADDRESS\"]"
                );
                self.dropped(line, told);
                continue;
            };
            self.external(
                &mut externals,
                External {
                    public,
                    local,
                    line,
                },
                local_is_said(line, addresses),
            );
        }
        externals
    }

    /// The local address that a public one alone stands for.
    fn behind(&self, addresses: &[IpAddr], public: IpAddr) -> Option<IpAddr> {
        let of_family = |ip: &&IpAddr| ip.is_ipv4() == public.is_ipv4();
        addresses
            .iter()
            .find(of_family)
            .or_else(|| self.around.local.iter().find(of_family))
            .copied()
    }

    fn external(&mut self, externals: &mut Vec<External<'a>>, one: External<'a>, is_said: bool) {
        let is_discovered = self.doors.named.contains(&one.local);
        let is_second = externals.iter().any(|other| {
            other.local == one.local
                || (!is_discovered && other.local.is_ipv4() == one.local.is_ipv4())
        });
        if is_second {
            self.dropped(
                one.line,
                "turnd relays from one address of each family, the first",
            );
            return;
        }
        let told = format!("[relay] external = [\"{}={}\"]", one.public, one.local);
        if is_said {
            self.mapped(one.line, told);
        } else {
            let guess = format!(
                "{told}: {} is the address of this host; put in that of the host turnd will run on",
                one.local
            );
            self.changed(one.line, guess);
        }
        externals.push(one);
    }

    fn relay_ports(&mut self) {
        let (low, high) = (self.last("min-port"), self.last("max-port"));
        let (first, last) = (
            low.and_then(|line| self.port(line)),
            high.and_then(|line| self.port(line)),
        );
        let lines: Vec<Line<'a>> = low
            .filter(|_| first.is_some())
            .into_iter()
            .chain(high.filter(|_| last.is_some()))
            .collect();
        let (first, last) = (
            first.unwrap_or(*PORTS.start()),
            last.unwrap_or(*PORTS.end()),
        );
        if lines.is_empty() {
            return;
        }
        if first > last || last < LOWEST {
            for line in lines {
                self.dropped(
                    line,
                    "this is no range of ports from 1024 on: the one without these lines holds",
                );
            }
            return;
        }
        let value = format!("{}-{last}", first.max(LOWEST));
        let origins = self.origins(&lines);
        self.toml
            .assign("relay", &origins, "ports", &quoted(&value));
        for line in lines {
            if first < LOWEST {
                self.changed(
                    line,
                    format!("[relay] ports = \"{value}\": system ports are for services"),
                );
            } else {
                self.mapped(line, format!("[relay] ports = \"{value}\""));
            }
        }
    }

    /// What is given to clients that name no family.
    fn families(&mut self, addresses: &[IpAddr]) {
        let is_v6_alone = !addresses.is_empty() && addresses.iter().all(IpAddr::is_ipv6);
        let keeps = self.flag("keep-address-family");
        let default = self.last("allocation-default-address-family");
        let mut used = Vec::new();
        for line in keeps.into_iter().chain(default) {
            let is_v4 = line.key == "allocation-default-address-family" && line.value == "ipv4";
            if is_v4 {
                self.mapped(line, "clients that name no family get IPv4");
            } else if is_v6_alone {
                self.mapped(line, "[relay] unasked_ipv6");
                used.push(line);
            } else {
                let told = "clients that name no family get IPv4, as the RFC has it; IPv6 only from a server without \
                            IPv4 ([relay] unasked_ipv6)";
                self.dropped(line, told);
            }
        }
        if !used.is_empty() {
            let origins = self.origins(&used);
            self.toml.assign("relay", &origins, "unasked_ipv6", "true");
        }
    }
}

/// Does the file itself say which address is behind?
fn local_is_said(line: Line<'_>, addresses: &[IpAddr]) -> bool {
    let public = address(line.value);
    line.value.contains('/')
        || addresses
            .iter()
            .any(|own| public.is_some_and(|public| own.is_ipv4() == public.is_ipv4()))
}

/// Is it of a family that there is no address of?
fn is_new(addresses: &[IpAddr], ip: IpAddr) -> bool {
    !ip.is_unspecified()
        && !addresses
            .iter()
            .any(|other| other.is_ipv4() == ip.is_ipv4())
}
