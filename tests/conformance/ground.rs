//! Where a check takes place: a server under test, and the addresses that clients and peers may use.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};

use crate::client::{Client, Login, Peer};
use crate::statement::{Seen, Trouble};
use crate::wire::{Link, Transport, udp_socket};

/// A server under test, in its configurations.
#[derive(Clone)]
pub(crate) struct Ground {
    /// Everything that the server has is on.
    pub(crate) full: Server,
    /// IPv4 alone, MD5 alone, nothing optional is on, and few allocations for each user.
    pub(crate) plain: Option<Server>,
    /// Like `plain`, with two relay ports.
    pub(crate) tiny: Option<Server>,
    /// Sends everybody to `full`.
    pub(crate) redirect: Option<Server>,
    /// Sends everybody to the first of its other addresses, and serves there.
    pub(crate) anycast: Option<Server>,
    pub(crate) logins: Logins,
    /// What `full` shares with an authorization server.
    pub(crate) oauth: Option<SharedKey>,
    pub(crate) hosts: Hosts,
    /// How long something that must come is waited for.
    pub(crate) patience: Duration,
}

/// Where one process listens.
#[derive(Clone, Debug, Default)]
pub(crate) struct Server {
    pub(crate) udp: Option<SocketAddr>,
    pub(crate) udp6: Option<SocketAddr>,
    pub(crate) tcp: Option<SocketAddr>,
    pub(crate) tls: Option<SocketAddr>,
    pub(crate) dtls: Option<SocketAddr>,
    /// More addresses for UDP, of this host and of the same server.
    pub(crate) others: Vec<SocketAddr>,
    /// Where clients find out about their NATs: two addresses with different ports, that tell of each other.
    pub(crate) discovery: Option<[SocketAddr; 2]>,
}

/// A key of an authorization server (RFC 7635), for AES-256-GCM.
#[derive(Clone)]
pub(crate) struct SharedKey {
    pub(crate) kid: String,
    pub(crate) key: [u8; 32],
    pub(crate) server: String,
}

/// Whom the server knows.
#[derive(Clone)]
pub(crate) struct Logins {
    /// Time-limited names by a shared secret; everybody can be somebody else.
    pub(crate) secret: Option<String>,
    /// A user with a password.
    pub(crate) user: Option<Login>,
}

/// The addresses of clients and peers.
#[derive(Clone)]
pub(crate) enum Hosts {
    /// A network of our own: as many as are wanted.
    Namespace(Arc<AtomicU16>),
    /// This host in the world: the address that leads to the server.
    Here(IpAddr),
}

impl Ground {
    /// A client on UDP, who was not challenged yet.
    pub(crate) fn client(&self) -> Seen<Client> {
        self.client_of(&self.full, Transport::Udp)
    }

    pub(crate) fn client_over(&self, transport: Transport) -> Seen<Client> {
        self.client_of(&self.full, transport)
    }

    /// A client of the server where nothing optional is on.
    pub(crate) fn plain_client(&self) -> Seen<Client> {
        let missing = || Trouble::absent("no server without options");
        self.client_of(self.plain.as_ref().ok_or_else(missing)?, Transport::Udp)
    }

    /// A client of the server that sends everybody elsewhere.
    pub(crate) fn redirected_client(&self) -> Seen<Client> {
        let missing = || Trouble::absent("no server that redirects");
        self.client_of(self.redirect.as_ref().ok_or_else(missing)?, Transport::Udp)
    }

    pub(crate) fn client_of(&self, server: &Server, transport: Transport) -> Seen<Client> {
        let address = match transport {
            Transport::Udp => server.udp,
            Transport::Tcp => server.tcp,
            Transport::Tls => server.tls,
            Transport::Dtls => server.dtls,
        };
        let address =
            address.ok_or_else(|| Trouble::Absent(format!("no {transport:?} listener")))?;
        let ip = self.hosts.client(address.ip());
        self.client_from(transport, address, ip)
    }

    /// A client with this address.
    pub(crate) fn client_from(
        &self,
        transport: Transport,
        server: SocketAddr,
        ip: IpAddr,
    ) -> Seen<Client> {
        let link = Link::open(transport, server, ip, self.patience)?;
        Ok(Client::new(link, self.logins.next()?))
    }

    /// A client on UDP over IPv6.
    pub(crate) fn client6(&self) -> Seen<Client> {
        let missing = || Trouble::absent("no IPv6 listener");
        let server = self.full.udp6.ok_or_else(missing)?;
        self.client_from(Transport::Udp, server, self.hosts.client(server.ip()))
    }

    /// A client with an allocation, and its relayed address.
    pub(crate) fn allocated(&self) -> Seen<(Client, SocketAddr)> {
        let mut client = self.client()?;
        let relayed = client.allocate()?;
        Ok((client, relayed))
    }

    /// A client with an allocation, and a peer that it may exchange data with.
    pub(crate) fn call(&self) -> Seen<(Client, SocketAddr, Peer)> {
        let (mut client, relayed) = self.allocated()?;
        let peer = self.peer()?;
        client.permit(peer.address)?;
        Ok((client, relayed, peer))
    }

    /// A peer that nobody else uses, on IPv4.
    pub(crate) fn peer(&self) -> Seen<Peer> {
        Peer::new(udp_socket(self.hosts.peer(false)?, self.patience)?)
    }

    /// A peer that nobody else uses, on IPv6.
    pub(crate) fn peer6(&self) -> Seen<Peer> {
        Peer::new(udp_socket(self.hosts.peer(true)?, self.patience)?)
    }

    /// Peers with different addresses, on IPv4.
    pub(crate) fn peers<const N: usize>(&self) -> Seen<[Peer; N]> {
        if N > 1 && matches!(self.hosts, Hosts::Here(_)) {
            return Err(Trouble::absent("one address for peers"));
        }
        let mut peers = Vec::new();
        for _ in 0..N {
            peers.push(self.peer()?);
        }
        Ok(peers
            .try_into()
            .unwrap_or_else(|_| unreachable!("N of them")))
    }
}

impl Hosts {
    /// An address for a client that no other has.
    pub(crate) fn client(&self, server: IpAddr) -> IpAddr {
        match self {
            Self::Namespace(count) => numbered(CLIENTS, server.is_ipv6(), count),
            Self::Here(ip) if ip.is_ipv6() == server.is_ipv6() => *ip,
            Self::Here(_) if server.is_ipv6() => Ipv6Addr::UNSPECIFIED.into(),
            Self::Here(_) => Ipv4Addr::UNSPECIFIED.into(),
        }
    }

    /// An address for a peer that no other has.
    pub(crate) fn peer(&self, v6: bool) -> Seen<IpAddr> {
        match self {
            Self::Namespace(count) => Ok(numbered(PEERS, v6, count)),
            Self::Here(ip) if ip.is_ipv6() == v6 => Ok(*ip),
            Self::Here(_) => Err(Trouble::absent("no address of this family for peers")),
        }
    }
}

/// `127.NET.x.y` or `fd00:NET::xy`.
fn numbered(net: u8, v6: bool, count: &AtomicU16) -> IpAddr {
    let number = count.fetch_add(1, Ordering::Relaxed);
    let [high, low] = number.to_be_bytes();
    match v6 {
        true => Ipv6Addr::new(0xfd00, net.into(), 0, 0, 0, 0, 0, number).into(),
        // Neither 0 nor 255 stands at the end: some take such an address for a broadcast.
        false => Ipv4Addr::new(127, net, high << 1 | low >> 7, low % 128 + 1).into(),
    }
}

const CLIENTS: u8 = 8;
const PEERS: u8 = 9;

impl Logins {
    /// Credentials: of somebody new, if a shared secret is known.
    pub(crate) fn next(&self) -> Seen<Login> {
        static NUMBER: AtomicU16 = AtomicU16::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        match &self.secret {
            Some(_) => self.lasting(3600, &format!("guest-{number}")),
            None => self.with_password(),
        }
    }

    /// A user with a password of its own.
    pub(crate) fn with_password(&self) -> Seen<Login> {
        let missing = || Trouble::absent("no user with a password");
        self.user.clone().ok_or_else(missing)
    }

    /// A name that is good for so many seconds more, or was until that long ago.
    pub(crate) fn lasting(&self, seconds: i64, name: &str) -> Seen<Login> {
        let missing = || Trouble::absent("no shared secret");
        let secret = self.secret.as_ref().ok_or_else(missing)?;
        let user = format!("{}:{name}", now()?.saturating_add_signed(seconds));
        let mut mac = Hmac::<sha1::Sha1>::new_from_slice(secret.as_bytes()).expect("any key");
        mac.update(user.as_bytes());
        let password =
            base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
        Ok(Login { user, password })
    }
}

/// The time of day, in seconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "credentials expire by the time of day"
)]
pub(crate) fn now() -> Seen<u64> {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH);
    Ok(since.map_err(|error| error.to_string())?.as_secs())
}
