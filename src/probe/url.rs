//! The URLs of STUN and TURN servers (RFC 7064, RFC 7065).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use rustls::pki_types::ServerName;

/// Ports of the services (RFC 8489 §18.6, RFC 8656 §18.5), without and with TLS.
const PORT: u16 = 3478;
const PORT_OVER_TLS: u16 = 5349;

/// `turn:host:port?transport=udp`, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// What is asked of the server.
    pub service: Service,
    /// What it is asked over.
    pub transport: Transport,
    /// Where it is.
    pub host: Host,
    /// Its port, written or not.
    pub port: u16,
}

/// What is asked of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The client's own address.
    Stun,
    /// A relay.
    Turn,
}

/// What carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A connection.
    Tcp,
    /// A connection that nobody can look into.
    Tls,
    /// Datagrams that nobody can look into.
    Dtls,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name, to be looked up.
    Name(String),
    /// An address.
    Address(IpAddr),
}

/// What is wrong with a URL, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadUrl(String);

impl Url {
    /// The scheme that says the service, and whether it is to be secret.
    pub fn scheme(&self) -> &'static str {
        match (self.service, self.transport.is_secure()) {
            (Service::Stun, false) => "stun",
            (Service::Stun, true) => "stuns",
            (Service::Turn, false) => "turn",
            (Service::Turn, true) => "turns",
        }
    }
}

impl Transport {
    /// Whether there is a connection.
    pub fn is_stream(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls)
    }

    /// Whether there is a certificate.
    pub fn is_secure(self) -> bool {
        matches!(self, Self::Tls | Self::Dtls)
    }
}

impl Host {
    /// What its certificate has to be for. `None` for a name that no certificate can have.
    pub fn server_name(&self) -> Option<ServerName<'static>> {
        match self {
            Self::Address(ip) => Some(ServerName::from(*ip)),
            Self::Name(name) => ServerName::try_from(name.trim_end_matches('.').to_owned()).ok(),
        }
    }
}

impl FromStr for Url {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(bad(format!(
                "`{text}` does not say what is there: write turn:{text}"
            )));
        };
        let (service, secure) = match scheme.to_ascii_lowercase().as_str() {
            "stun" => (Service::Stun, false),
            "stuns" => (Service::Stun, true),
            "turn" => (Service::Turn, false),
            "turns" => (Service::Turn, true),
            _ => {
                return Err(bad(format!(
                    "`{text}` is no URL of a STUN or TURN server: they begin with turn:, turns:, stun: or stuns:"
                )));
            }
        };
        if let Some(rest) = rest.strip_prefix("//") {
            return Err(bad(format!(
                "there are no slashes in these URLs: write {scheme}:{rest}"
            )));
        }
        let (place, query) = match rest.split_once('?') {
            Some((place, query)) => (place, Some(query)),
            None => (rest, None),
        };
        let transport = transport(service, secure, query)?;
        let (host, port) = place_of(place)?;
        let usual = if secure { PORT_OVER_TLS } else { PORT };
        Ok(Self {
            service,
            transport,
            host,
            port: port.unwrap_or(usual),
        })
    }
}

fn transport(service: Service, secure: bool, query: Option<&str>) -> Result<Transport, BadUrl> {
    let datagrams = match query {
        None => !secure,
        Some(_) if service == Service::Stun => {
            return Err(bad(
                "a stun: URL has nothing behind `?`: leave it out".to_owned()
            ));
        }
        Some(query) => match query.to_ascii_lowercase().as_str() {
            "transport=udp" => true,
            "transport=tcp" => false,
            _ => {
                return Err(bad(format!(
                    "`?{query}` is not understood: write ?transport=udp or ?transport=tcp"
                )));
            }
        },
    };
    Ok(match (datagrams, secure) {
        (true, false) => Transport::Udp,
        (false, false) => Transport::Tcp,
        (false, true) => Transport::Tls,
        (true, true) => Transport::Dtls,
    })
}

/// `host`, `host:port`, `[2001:db8::1]` or `[2001:db8::1]:port`.
fn place_of(place: &str) -> Result<(Host, Option<u16>), BadUrl> {
    if place.contains('@') {
        let what =
            "a name and a password do not belong into the URL: give --user and --password-file";
        return Err(bad(what.to_owned()));
    }
    if place.parse::<Ipv6Addr>().is_ok() {
        return Err(bad(format!(
            "an IPv6 address stands in brackets: [{place}]"
        )));
    }
    let (host, port) = if let Some(rest) = place.strip_prefix('[') {
        let (address, port) = rest
            .split_once(']')
            .ok_or_else(|| bad(format!("`{place}` has no closing bracket")))?;
        let address: Ipv6Addr = address
            .parse()
            .map_err(|_| bad(format!("`{address}` is not an IPv6 address")))?;
        let port = match port {
            "" => None,
            port => Some(
                port.strip_prefix(':')
                    .ok_or_else(|| bad(format!("`{port}` behind the bracket is not a port")))?,
            ),
        };
        (Host::Address(address.into()), port)
    } else {
        let (host, port) = match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        };
        (name(host)?, port)
    };
    match port {
        None => Ok((host, None)),
        Some(port) => match port.parse() {
            Ok(0) | Err(_) => Err(bad(format!(
                "`{port}` is not a port: write a number from 1 to 65535"
            ))),
            Ok(number) => Ok((host, Some(number))),
        },
    }
}

fn name(host: &str) -> Result<Host, BadUrl> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(Host::Address(ip));
    }
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
    if host.is_empty() || host.len() > LONGEST_NAME || !host.chars().all(fits) {
        return Err(bad(format!("`{host}` is not the name of a host")));
    }
    Ok(Host::Name(host.to_owned()))
}

fn bad(what: String) -> BadUrl {
    BadUrl(what)
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.scheme(), self.host, self.port)?;
        match (self.service, self.transport) {
            (Service::Stun, _) => Ok(()),
            (Service::Turn, Transport::Udp | Transport::Dtls) => f.write_str("?transport=udp"),
            (Service::Turn, Transport::Tcp | Transport::Tls) => f.write_str("?transport=tcp"),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Address(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Dtls => "DTLS",
        })
    }
}

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadUrl {}

/// Of a name in the DNS (RFC 1035 §2.3.4).
const LONGEST_NAME: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Url {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// The examples of RFC 7064 appendix A and RFC 7065 appendix A.
    #[test]
    fn the_examples_of_the_rfcs_are_read() {
        use Service::{Stun, Turn};
        use Transport::{Dtls, Tcp, Tls, Udp};
        let examples = [
            ("stun:example.org", Stun, Udp, 3478),
            ("stuns:example.org", Stun, Tls, 5349),
            ("stun:example.org:8000", Stun, Udp, 8000),
            ("turn:example.org", Turn, Udp, 3478),
            ("turns:example.org", Turn, Tls, 5349),
            ("turn:example.org:8000", Turn, Udp, 8000),
            ("turn:example.org?transport=udp", Turn, Udp, 3478),
            ("turn:example.org?transport=tcp", Turn, Tcp, 3478),
            ("turns:example.org?transport=tcp", Turn, Tls, 5349),
            ("turns:example.org:443?transport=udp", Turn, Dtls, 443),
            ("TURN:example.org?Transport=UDP", Turn, Udp, 3478),
        ];
        for (text, service, transport, port) in examples {
            let url = read(text);
            let host = Host::Name("example.org".to_owned());
            assert_eq!(
                url,
                Url {
                    service,
                    transport,
                    host,
                    port
                },
                "{text}"
            );
        }
    }

    #[test]
    fn addresses_are_hosts_and_those_of_ipv6_stand_in_brackets() {
        assert_eq!(
            read("turn:192.0.2.1").host,
            Host::Address("192.0.2.1".parse().unwrap())
        );
        let url = read("turns:[2001:db8::1]:443");
        assert_eq!(
            (url.host, url.port),
            (Host::Address("2001:db8::1".parse().unwrap()), 443)
        );
        assert_eq!(read("stun:[::1]").port, 3478);
    }

    #[test]
    fn what_is_written_is_what_was_read() {
        for text in [
            "stun:example.org:3478",
            "turn:example.org:3478?transport=udp",
            "turn:192.0.2.1:80?transport=tcp",
            "turns:[2001:db8::1]:5349?transport=tcp",
            "turns:example.org:5349?transport=udp",
        ] {
            assert_eq!(read(text).to_string(), text);
        }
        assert_eq!(
            read("turn:example.org").to_string(),
            "turn:example.org:3478?transport=udp"
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_the_remedy() {
        for (text, remedy) in [
            ("turn.example.org", "write turn:turn.example.org"),
            ("http:example.org", "they begin with turn:"),
            ("turn.example.org:3478", "they begin with turn:"),
            ("turn://example.org", "write turn:example.org"),
            ("turn:alice@example.org", "--password-file"),
            ("turn:2001:db8::1", "[2001:db8::1]"),
            ("turn:[2001:db8::1", "closing bracket"),
            ("turn:[192.0.2.1]", "not an IPv6 address"),
            ("turn:[::1]3478", "not a port"),
            ("turn:example.org:", "not a port"),
            ("turn:example.org:0", "not a port"),
            ("turn:example.org:65536", "not a port"),
            ("turn:", "not the name of a host"),
            ("turn:exa mple.org", "not the name of a host"),
            (
                "turn:example.org?transport=sctp",
                "?transport=udp or ?transport=tcp",
            ),
            ("turn:example.org?tcp", "?transport=udp or ?transport=tcp"),
            ("stun:example.org?transport=udp", "leave it out"),
        ] {
            let error = text.parse::<Url>().unwrap_err().to_string();
            assert!(error.contains(remedy), "{text}: {error}");
        }
    }
}
