//! What a challenge offers, and how the nonce that goes with it says so (RFC 8489 §9.2.1, §18.1).

use std::net::SocketAddr;

use crate::stun::PasswordAlgorithm;

use super::{FiveTuple, Settings, Transport};

/// Which password algorithms the clients are offered (RFC 8489 §14.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordAlgorithms {
    /// MD5, which every client knows; nothing is offered explicitly.
    Md5,
    /// SHA-256, and MD5 for those who do not know it.
    Sha256AndMd5,
    /// SHA-256 alone: who does not know it is refused, as is a request that SHA-1 protects.
    Sha256,
}

impl PasswordAlgorithms {
    /// The value of PASSWORD-ALGORITHMS, the preferred one first, if it is sent at all.
    pub(super) fn list(self) -> Option<&'static [u8]> {
        match self {
            Self::Md5 => None,
            Self::Sha256AndMd5 => Some(&BOTH),
            Self::Sha256 => Some(&ALONE),
        }
    }

    /// How much is required: the more, the higher.
    fn rank(self) -> u8 {
        match self {
            Self::Md5 => 0,
            Self::Sha256AndMd5 => 1,
            Self::Sha256 => 2,
        }
    }

    /// Whether a client may use it.
    pub(super) fn has(self, algorithm: PasswordAlgorithm) -> bool {
        match algorithm {
            PasswordAlgorithm::Md5 => self != Self::Sha256,
            PasswordAlgorithm::Sha256 => self != Self::Md5,
        }
    }
}

/// What the clients of one listener are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerAlgorithms {
    /// What is spoken there.
    pub transport: Transport,
    /// Where it listens. A wildcard address stands for all of its family, port 0 for all ports.
    pub address: SocketAddr,
    /// What is offered there.
    pub algorithms: PasswordAlgorithms,
}

/// Whether a client has come to a listener.
pub(super) fn is_at(transport: Transport, own: SocketAddr, five_tuple: &FiveTuple) -> bool {
    let asked = five_tuple.server;
    // On a listener for TCP, clients may speak TLS as well.
    let spoken = [(transport, transport), (Transport::Tcp, Transport::Tls)];
    spoken.contains(&(transport, five_tuple.transport))
        && (own.port() == asked.port() || own.port() == 0)
        && (own.ip() == asked.ip() || own.ip().is_unspecified() && own.is_ipv4() == asked.is_ipv4())
}

/// What a challenge offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) algorithms: PasswordAlgorithms,
    /// Clients may, and shall, name themselves by USERHASH.
    pub(super) anonymity: bool,
}

impl Offer {
    /// The offer to a client, by where it comes in.
    pub(super) fn to(five_tuple: &FiveTuple, settings: &Settings) -> Self {
        let fitting = settings
            .listener_algorithms
            .iter()
            .filter(|listener| is_at(listener.transport, listener.address, five_tuple));
        // The kernel, too, prefers the listener with the address to the one with the wildcard.
        let algorithms = fitting.min_by_key(|listener| {
            let wildcard = listener.address.ip().is_unspecified();
            (wildcard, listener.transport != five_tuple.transport)
        });
        Self {
            algorithms: algorithms
                .map_or(settings.password_algorithms, |listener| listener.algorithms),
            anonymity: settings.username_anonymity,
        }
    }

    /// The nonce cookie with the bits of what is offered, if anything is.
    ///
    /// Each bit stands twice, counted from either end: the RFC's text says that bit 0 is the most significant one, and
    /// so read librice and turn-client-proto; an erratum and its test vector B.1 say that it is the least, and so reads
    /// libjuice \[A3\]. No other features are registered, so nobody mistakes one for another.
    pub(super) fn cookie(self) -> Option<&'static [u8; COOKIE]> {
        match (self.algorithms.list().is_some(), self.anonymity) {
            (false, false) => None,
            (true, false) => Some(b"obMatJos2gAAB"),
            (false, true) => Some(b"obMatJos2QAAC"),
            (true, true) => Some(b"obMatJos2wAAD"),
        }
    }

    /// Whether a client that knows this offer alone would protect itself less than one that knows the other.
    pub(super) fn is_weaker_than(self, other: Self) -> bool {
        self.algorithms.rank() < other.algorithms.rank() || !self.anonymity && other.anonymity
    }

    /// One byte that stands for it in a nonce, which tells more than the cookie.
    pub(super) fn byte(self) -> u8 {
        self.algorithms.rank() | u8::from(self.anonymity) << 7
    }

    /// What a byte stands for.
    pub(super) fn of(byte: u8) -> Option<Self> {
        let algorithms = match byte & 0x7f {
            0 => PasswordAlgorithms::Md5,
            1 => PasswordAlgorithms::Sha256AndMd5,
            2 => PasswordAlgorithms::Sha256,
            _ => return None,
        };
        Some(Self {
            algorithms,
            anonymity: byte >> 7 == 1,
        })
    }

    /// What is offered when nothing is.
    pub(super) const NOTHING: Self = Self {
        algorithms: PasswordAlgorithms::Md5,
        anonymity: false,
    };
}

/// How long a nonce cookie is.
pub(super) const COOKIE: usize = 13;

const BOTH: [u8; 8] = {
    let [a, b, c, d] = PasswordAlgorithm::Sha256.entry();
    let [e, f, g, h] = PasswordAlgorithm::Md5.entry();
    [a, b, c, d, e, f, g, h]
};
const ALONE: [u8; 4] = PasswordAlgorithm::Sha256.entry();

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::turn::NonceKey;

    const EVERY: [PasswordAlgorithms; 3] = [
        PasswordAlgorithms::Md5,
        PasswordAlgorithms::Sha256AndMd5,
        PasswordAlgorithms::Sha256,
    ];

    #[test]
    fn a3_the_cookie_has_each_bit_from_either_end() {
        for algorithms in EVERY {
            for anonymity in [false, true] {
                let offer = Offer {
                    algorithms,
                    anonymity,
                };
                let passwords = algorithms != PasswordAlgorithms::Md5;
                let Some(cookie) = offer.cookie() else {
                    assert!(!passwords && !anonymity);
                    continue;
                };
                assert_eq!(&cookie[..9], b"obMatJos2");
                let bits = STANDARD.decode(&cookie[9..]).unwrap();
                let (first, last) = (u8::from(passwords) << 7, u8::from(passwords));
                let (second, last_but_one) = (u8::from(anonymity) << 6, u8::from(anonymity) << 1);
                assert_eq!(bits, [first | second, 0, last | last_but_one]);
            }
        }
    }

    #[test]
    fn the_byte_tells_every_offer_apart() {
        let known: Vec<u8> = (0..=255)
            .filter(|&byte| Offer::of(byte).is_some())
            .collect();
        assert_eq!(known, [0, 1, 2, 0x80, 0x81, 0x82]);
        for byte in known {
            assert_eq!(Offer::of(byte).unwrap().byte(), byte);
        }
    }

    #[test]
    fn the_most_exact_listener_counts() {
        let listener = |transport, address: &str, algorithms| ListenerAlgorithms {
            transport,
            address: address.parse().unwrap(),
            algorithms,
        };
        let mut settings = Settings::new(NonceKey([1; 32]).into());
        settings.listener_algorithms = vec![
            listener(Transport::Udp, "0.0.0.0:3478", EVERY[1]),
            listener(Transport::Udp, "192.0.2.1:3478", EVERY[2]),
            listener(Transport::Tcp, "[::]:5349", EVERY[1]),
            listener(Transport::Tls, "[::]:0", EVERY[2]),
            listener(Transport::Tcp, "192.0.2.1:443", EVERY[1]),
        ];
        let at = |transport, server: &str| {
            let five_tuple = FiveTuple {
                transport,
                client: "198.51.100.1:1".parse().unwrap(),
                server: server.parse().unwrap(),
            };
            Offer::to(&five_tuple, &settings).algorithms
        };
        assert_eq!(at(Transport::Udp, "192.0.2.1:3478"), EVERY[2]);
        assert_eq!(at(Transport::Udp, "192.0.2.2:3478"), EVERY[1]);
        assert_eq!(at(Transport::Udp, "192.0.2.2:3479"), EVERY[0]);
        assert_eq!(at(Transport::Tcp, "192.0.2.1:3478"), EVERY[0]);
        assert_eq!(at(Transport::Udp, "[2001:db8::1]:3478"), EVERY[0]);
        assert_eq!(at(Transport::Tcp, "[2001:db8::1]:5349"), EVERY[1]);
        assert_eq!(at(Transport::Tls, "[2001:db8::1]:5349"), EVERY[2]);
        assert_eq!(at(Transport::Tls, "192.0.2.1:5349"), EVERY[0]);
        assert_eq!(at(Transport::Tcp, "192.0.2.1:443"), EVERY[1]);
        assert_eq!(at(Transport::Tls, "192.0.2.1:443"), EVERY[1]);
        assert_eq!(at(Transport::Tcp, "[2001:db8::1]:5350"), EVERY[0]);
    }
}
