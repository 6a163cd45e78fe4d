//! The URLs that are handed out (RFC 7064, RFC 7065).

use std::net::Ipv6Addr;

/// `stun:`, `stuns:`, `turn:` or `turns:`, a host, and perhaps a port and a transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceUrl {
    text: Box<str>,
    relays: bool,
    way: Way,
}

/// How a client gets to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Udp,
    Tcp,
    Tls,
    Dtls,
}

impl Way {
    /// The word of the native endpoint.
    pub(super) fn named(word: &str) -> Option<Self> {
        match word {
            "udp" => Some(Self::Udp),
            "tcp" => Some(Self::Tcp),
            "tls" => Some(Self::Tls),
            "dtls" => Some(Self::Dtls),
            _ => None,
        }
    }
}

impl IceUrl {
    /// Reads one; nothing if a browser would not understand it.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(':')?;
        let (relays, secure) = match scheme {
            "stun" => (false, false),
            "stuns" => (false, true),
            "turn" => (true, false),
            "turns" => (true, true),
            _ => return None,
        };
        let (place, tcp) = match rest.split_once('?') {
            None => (rest, secure),
            Some((place, "transport=udp")) if relays => (place, false),
            Some((place, "transport=tcp")) if relays => (place, true),
            Some(_) => return None,
        };
        is_place(place).then(|| Self {
            text: text.into(),
            relays,
            way: match (secure, tcp) {
                (false, false) => Way::Udp,
                (false, true) => Way::Tcp,
                (true, true) => Way::Tls,
                (true, false) => Way::Dtls,
            },
        })
    }

    /// The URL as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Is it for relaying, or just for finding one's own address?
    pub(super) fn relays(&self) -> bool {
        self.relays
    }

    pub(super) fn way(&self) -> Way {
        self.way
    }
}

/// `host`, `host:port`, `[::1]` or `[::1]:port`
fn is_place(text: &str) -> bool {
    let (host_is_good, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((address, behind)) = rest.split_once(']') else {
                return false;
            };
            let port = match behind.strip_prefix(':') {
                Some(port) => Some(port),
                None if behind.is_empty() => None,
                None => return false,
            };
            (address.parse::<Ipv6Addr>().is_ok(), port)
        }
        None => {
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            let is_free = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            (!host.is_empty() && host.bytes().all(is_free), port)
        }
    };
    let is_port = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_digit())
            && text.parse::<u16>().is_ok_and(|port| port > 0)
    };
    host_is_good && text.len() <= 300 && port.is_none_or(is_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_how_to_get_there() {
        for (text, relays, way) in [
            ("stun:turn.example.org", false, Way::Udp),
            ("stuns:turn.example.org:5349", false, Way::Tls),
            ("turn:192.0.2.1:3478", true, Way::Udp),
            ("turn:[2001:db8::1]:3478?transport=udp", true, Way::Udp),
            ("turn:turn.example.org?transport=tcp", true, Way::Tcp),
            ("turns:turn.example.org", true, Way::Tls),
            ("turns:turn.example.org:443?transport=tcp", true, Way::Tls),
            ("turns:turn.example.org?transport=udp", true, Way::Dtls),
        ] {
            let url = IceUrl::parse(text).unwrap();
            assert_eq!((url.as_str(), url.relays(), url.way()), (text, relays, way));
        }
    }

    #[test]
    fn what_a_browser_would_not_take_is_none() {
        for text in [
            "",
            "turn",
            "turn:",
            "http://turn.example.org",
            "turn://turn.example.org",
            "turn:host:0",
            "turn:host:65536",
            "turn:host:",
            "turn:[::1",
            "turn:[::1]x",
            "turn:::1",
            "turn:host?transport=sctp",
            "stun:host?transport=udp",
            "turn:user@host",
            "turn:a b",
        ] {
            assert_eq!(IceUrl::parse(text), None, "{text}");
        }
    }
}
