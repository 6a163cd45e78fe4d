//! `[[listen]]` and `[nat_discovery]`: where clients come in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::line::Line;
use super::toml::{quoted, quoted_list};
use super::translation::Translation;

/// The ports of RFC 8656 §18.5.
const PLAIN: u16 = 3478;
const SECURED: u16 = 5349;

/// What other rooms want to know of the listeners.
#[derive(Debug, Default)]
pub(super) struct Doors {
    /// The addresses of `listening-ip`.
    pub(super) named: Vec<IpAddr>,
    /// The port for plain clients.
    port: u16,
    /// Is there anything for plain clients of UDP?
    has_udp: bool,
    /// Where DTLS is spoken.
    dtls: Vec<SocketAddr>,
    /// Where connections come in.
    pub(super) streams: Vec<SocketAddr>,
}

/// One listener.
struct Door<'a> {
    address: SocketAddr,
    transport: &'static str,
    origins: Vec<Line<'a>>,
}

impl Door<'_> {
    /// What the kernel knows it as: two with the same cannot be.
    fn name(&self) -> (SocketAddr, bool) {
        (self.address, matches!(self.transport, "tcp" | "tls"))
    }
}

impl<'a> Translation<'a> {
    pub(super) fn listen(&mut self) {
        let places = self.places();
        let plain = self.transports(&[("udp", "no-udp"), ("tcp", "no-tcp")]);
        let secured = self.secured();
        let (port, port_line) = self.listening_port("listening-port", PLAIN);
        let (tls_port, tls_line) = self.listening_port("tls-listening-port", SECURED);
        self.doors.port = port;
        let mut doors = Vec::new();
        for (port, port_line, transports) in
            [(port, port_line, &plain), (tls_port, tls_line, &secured)]
        {
            for (ip, ip_line) in &places {
                doors.extend(transports.iter().map(|(transport, line)| {
                    Door {
                        address: SocketAddr::new(*ip, port),
                        transport,
                        origins: ip_line
                            .iter()
                            .chain(&port_line)
                            .chain(line)
                            .copied()
                            .collect(),
                    }
                }));
            }
        }
        if let Some(line) = port_line {
            self.tell_port(line, &plain, "there is neither UDP nor TCP without TLS");
        }
        if let Some(line) = tls_line {
            self.tell_port(
                line,
                &secured,
                "there is no TLS without cert and pkey, or with no-tls",
            );
        }
        doors.extend(self.auxiliary(&plain));
        self.write_doors(doors);
        if let Some(line) = self.last("tcp-proxy-port") {
            let told = "turnd believes a PROXY header from proxies it knows alone: add a [[listen]] with transport = \
                        \"tcp\", proxy_protocol = true and proxies = [\"ADDRESS OF YOUR PROXY\"]";
            self.dropped(line, told);
        }
    }

    /// The addresses to listen at, each with its line.
    fn places(&mut self) -> Vec<(IpAddr, Option<Line<'a>>)> {
        let mut places: Vec<(IpAddr, Option<Line<'a>>)> = Vec::new();
        for line in self.all("listening-ip") {
            match super::addresses::address(line.value) {
                Some(ip) if places.iter().any(|(known, _)| *known == ip) => {
                    self.mapped(line, "it is there already");
                }
                Some(ip) => {
                    self.mapped(line, "[[listen]] address");
                    places.push((ip, Some(line)));
                }
                None => self.dropped(line, "this is not an address; names are not looked up"),
            }
        }
        self.doors.named = places.iter().map(|(ip, _)| *ip).collect();
        if places.is_empty() {
            places.push((Ipv4Addr::UNSPECIFIED.into(), None));
            let v6 = self.around.has_ipv6.then_some(Ipv6Addr::UNSPECIFIED.into());
            places.extend(v6.map(|v6: IpAddr| (v6, None)));
        }
        places
    }

    /// Those transports that are not switched off.
    fn transports(
        &mut self,
        all: &[(&'static str, &str)],
    ) -> Vec<(&'static str, Option<Line<'a>>)> {
        let mut left = Vec::new();
        for (transport, key) in all {
            match self.flag(key) {
                Some(line) => self.mapped(
                    line,
                    format!("no [[listen]] with transport = \"{transport}\""),
                ),
                None => left.push((*transport, None)),
            }
        }
        left
    }

    /// TLS if there is a certificate, DTLS if it is asked for: coturn up to 4.6 has it unasked, but no browser speaks it.
    fn secured(&mut self) -> Vec<(&'static str, Option<Line<'a>>)> {
        let mut secured = self.transports(&[("tls", "no-tls")]);
        let dtls = self.flag("dtls");
        let is_refused = self.names("no-dtls");
        if let Some(line) = self.flag("no-dtls") {
            self.mapped(line, "no [[listen]] with transport = \"dtls\"");
        }
        let has_certificate = self.names("cert") && self.names("pkey");
        match dtls {
            Some(line) if self.says("no-dtls") => self.dropped(line, "no-dtls switches it off"),
            Some(line) if has_certificate => {
                let told = "[[listen]] with transport = \"dtls\"; the key in [tls] has to be ECDSA (P-256 or P-384)";
                self.changed(line, told);
                secured.push(("dtls", Some(line)));
            }
            Some(line) => self.dropped(line, "there is no DTLS without cert and pkey"),
            None if has_certificate && !is_refused => {
                let told = "coturn up to 4.6 has DTLS at the TLS port, turnd only where a [[listen]] says so; browsers \
                            do not speak it";
                self.unsaid("(no line says no-dtls)", told);
            }
            None => {}
        }
        if has_certificate { secured } else { Vec::new() }
    }

    fn listening_port(&mut self, key: &str, default: u16) -> (u16, Option<Line<'a>>) {
        let line = self.last(key);
        match line.and_then(|line| self.port(line)) {
            Some(port) => (port, line),
            None => (default, None),
        }
    }

    fn tell_port(
        &mut self,
        line: Line<'a>,
        transports: &[(&str, Option<Line<'a>>)],
        why_not: &str,
    ) {
        if transports.is_empty() {
            self.dropped(line, why_not);
        } else if transports.iter().any(|(transport, _)| *transport == "tls") {
            self.mapped(
                line,
                "[[listen]] address of TLS, for clients that begin with TLS alone",
            );
        } else {
            self.mapped(line, "[[listen]] address");
        }
    }

    fn auxiliary(&mut self, transports: &[(&'static str, Option<Line<'a>>)]) -> Vec<Door<'a>> {
        let mut doors = Vec::new();
        for line in self.all("aux-server") {
            let Ok(address) = line.value.parse::<SocketAddr>() else {
                self.dropped(line, "this is not an address with a port");
                continue;
            };
            self.mapped(line, "[[listen]] address");
            doors.extend(transports.iter().map(|(transport, _)| Door {
                address,
                transport,
                origins: vec![line],
            }));
        }
        doors
    }

    fn write_doors(&mut self, doors: Vec<Door<'a>>) {
        if doors.is_empty() {
            self.toml.root(
                "The old configuration leaves nothing to listen on.",
                "listen",
                "[]",
            );
            self.unsaid(
                "(nothing to listen on)",
                "turnd does not start without any [[listen]]",
            );
        }
        let mut names = Vec::new();
        for door in doors {
            if names.contains(&door.name()) {
                let said = format!("({} at {})", door.transport, door.address);
                let told = "there is a listener already; one for \"tcp\" takes TLS clients, too";
                self.unsaid(&said, told);
                continue;
            }
            names.push(door.name());
            match door.transport {
                "udp" => self.doors.has_udp = true,
                "dtls" => self.doors.dtls.push(door.address),
                _ => self.doors.streams.push(door.address),
            }
            let mut origins = self.origins(&door.origins);
            if origins.is_empty() {
                origins.push("coturn listens there without being told to".to_owned());
            }
            self.toml.another("listen", &origins);
            self.toml
                .assign("listen", &[], "address", &quoted(&door.address.to_string()));
            self.toml
                .assign("listen", &[], "transport", &quoted(door.transport));
        }
    }

    pub(super) fn nat_discovery(&mut self) {
        let (asked, refused) = (self.flag("rfc5780"), self.optional("no-rfc5780"));
        let port = self.last("alt-listening-port");
        let pairs = self.pairs();
        if let Some(line) = refused {
            self.mapped(
                line,
                "there is no NAT discovery but for the addresses in [nat_discovery]",
            );
        }
        let lines: Vec<Line<'a>> = asked.into_iter().chain(port).collect();
        if refused.is_some() || pairs.is_empty() || !self.doors.has_udp {
            let why = match refused {
                Some(_) => "no-rfc5780 switches it off",
                None if pairs.is_empty() => {
                    "NAT discovery takes two lines listening-ip of one family"
                }
                None => "NAT discovery is about UDP, and there is none without TLS",
            };
            for line in lines {
                self.dropped(line, why);
            }
        } else if lines.is_empty() {
            let told = "coturn up to 4.6 offers NAT discovery then, turnd at the addresses in [nat_discovery] alone";
            self.unsaid(
                "(two addresses to listen at, and no line says no-rfc5780)",
                told,
            );
        } else {
            self.discover(&pairs, &lines, port);
        }
    }

    /// The first two addresses of each family.
    fn pairs(&self) -> Vec<[IpAddr; 2]> {
        let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = self
            .doors
            .named
            .iter()
            .filter(|ip| !ip.is_unspecified())
            .partition(|ip| ip.is_ipv4());
        let pair = |of: &Vec<IpAddr>| Some([*of.first()?, *of.get(1)?]);
        [v4, v6].iter().filter_map(pair).collect()
    }

    fn discover(&mut self, pairs: &[[IpAddr; 2]], lines: &[Line<'a>], port: Option<Line<'a>>) {
        let first = self.doors.port;
        let next = first.checked_add(1).unwrap_or(first - 1);
        let other = port.and_then(|line| line.leading_number());
        let other = match other.map(u16::try_from) {
            None | Some(Ok(0)) => next,
            Some(Ok(port)) if port != first => port,
            Some(_) => {
                for line in lines {
                    self.dropped(*line, "the other port has to be a port, and another one");
                }
                return;
            }
        };
        let mut own = pairs.iter().flatten().flat_map(|ip| {
            let ports = [first, other];
            ports.map(|port| SocketAddr::new(*ip, port))
        });
        if own.any(|address| self.doors.dtls.contains(&address)) {
            for line in lines {
                self.dropped(
                    *line,
                    "NAT discovery needs two ports, and DTLS has one of them",
                );
            }
            return;
        }
        let addresses: Vec<SocketAddr> = pairs
            .iter()
            .flat_map(|[one, two]| [SocketAddr::new(*one, first), SocketAddr::new(*two, other)])
            .collect();
        let origins = self.origins(lines);
        self.toml.assign(
            "nat_discovery",
            &origins,
            "addresses",
            &quoted_list(&addresses),
        );
        for line in lines {
            self.mapped(*line, "[nat_discovery] addresses");
        }
    }
}
