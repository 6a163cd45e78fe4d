//! Who a client is: its 5-tuple, and the way back to it.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

/// The transport between a client and the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A TCP connection.
    Tcp,
    /// TLS over a TCP connection.
    Tls,
    /// DTLS over datagrams (RFC 7350).
    Dtls,
}

impl Transport {
    /// Every transport, in the order of [`Transport::index`].
    pub const ALL: [Self; 4] = [Self::Udp, Self::Tcp, Self::Tls, Self::Dtls];

    /// Whether messages travel in a byte stream: they are framed and padded.
    pub fn is_stream(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls)
    }

    /// Whether the client's address has been proven by a handshake: nobody else can be made to get the answers.
    pub fn proves_address(self) -> bool {
        self != Self::Udp
    }

    /// The place of this transport in [`Transport::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The name used in metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Dtls => "dtls",
        }
    }
}

/// An IP address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, in the order of [`Family::index`].
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The family with this number on the wire, if there is one.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::V4),
            2 => Some(Self::V6),
            _ => None,
        }
    }

    /// The number on the wire (RFC 8489 §14.1).
    pub fn number(self) -> u8 {
        match self {
            Self::V4 => 1,
            Self::V6 => 2,
        }
    }

    /// The place of this family in [`Family::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The name used in metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

/// The 5-tuple that identifies a client (RFC 8656 §3.2).
///
/// Both addresses are canonical: never an IPv4 address mapped into IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FiveTuple {
    /// The transport between the two.
    pub transport: Transport,
    /// The client's address as the server sees it.
    pub client: SocketAddr,
    /// The server's address that the client speaks to.
    pub server: SocketAddr,
}

/// Feeds whole words: this is the one hash of the data path.
impl Hash for FiveTuple {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let ports = u64::from(self.client.port()) << 32
            | u64::from(self.server.port()) << 16
            | self.transport as u64;
        match (self.client.ip(), self.server.ip()) {
            (IpAddr::V4(client), IpAddr::V4(server)) => {
                state.write_u64(u64::from(client.to_bits()) << 32 | u64::from(server.to_bits()));
            }
            (client, server) => {
                state.write_u128(bits(client));
                state.write_u128(bits(server));
            }
        }
        state.write_u64(ports);
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Which of the plane's sockets or connections leads to a client. Opaque to the machine, which only hands it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path(pub u32);

/// A client: who it is, and the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Who.
    pub five_tuple: FiveTuple,
    /// The way back.
    pub path: Path,
}
