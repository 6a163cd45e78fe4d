//! Where relayed transport addresses come from: the one trait of the machine.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::{Allowance, Client, Family, Now};

/// The plane's relay sockets, or the simulated ones of a test.
pub trait Relays {
    /// Opens a relayed transport address.
    ///
    /// # Errors
    /// [`NoCapacity`] if no port, no socket or no such reservation is to be had.
    fn open(&mut self, want: Want) -> Result<Relay, NoCapacity>;

    /// Closes a relayed transport address. Its id may be given out again at once.
    fn close(&mut self, relay: RelayId);

    /// Whether `address` is one of our own, seen from outside or from inside.
    ///
    /// Asked about each peer that a client names, and about the source of a request that has no allocation.
    fn reach(&self, address: SocketAddr) -> Reach;

    /// Which families relayed transport addresses can have.
    fn families(&self) -> Families;

    /// Lets the peer connection that the plane has in hand be claimed under `id`, on whichever worker. False, and it
    /// stays in hand, if that name is taken; as with all that is about connections, who opens no TCP relay has none.
    fn offer(&mut self, _id: ConnectionId, _addressee: Addressee) -> bool {
        false
    }

    /// Takes a connection into the plane's hand, once: false if none of that name was offered to this claimant, or if
    /// it has been claimed, has been closed or has waited for too long.
    fn claim(&mut self, _id: ConnectionId, _claimant: Claimant) -> bool {
        false
    }

    /// Whether a connection that was offered is open, claimed or not.
    fn is_connected(&self, _id: ConnectionId) -> bool {
        false
    }

    /// Closes a connection, or stops connecting it, and tells what went through it.
    fn disconnect(&mut self, _id: ConnectionId) -> Carried {
        Carried::default()
    }
}

/// Names an open relay. Small and dense: the machine uses it as an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayId(pub u32);

/// An open relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relay {
    /// Its name.
    pub id: RelayId,
    /// Its relayed transport address, as the world knows it.
    pub address: SocketAddr,
    /// The token under which the next port is held, if [`WantedPort::EvenAndNext`] was wanted.
    pub reserved: Option<ReservationToken>,
}

/// Names a port held for a later Allocate (RFC 8656 §18.10): unguessable, good once, for its owner, for 30 seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReservationToken(pub [u8; 8]);

/// Names a connection between a TCP relay and a peer (RFC 6062): CONNECTION-ID. Unguessable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u32);

/// Whom a peer connection is kept for.
#[derive(Clone, Debug)]
pub struct Addressee {
    /// The relay it belongs to.
    pub relay: RelayId,
    /// The client of the allocation: who claims the connection must have the same IP address.
    pub client: Client,
    /// Stands for the user of the allocation: equal for equal names, on every worker of this process.
    pub owner: u64,
    /// It is closed if nobody has claimed it by then.
    pub expires: Instant,
    /// How much may go through it, with all others of the allocation.
    pub allowance: Option<Arc<Allowance>>,
}

/// Who claims a peer connection.
#[derive(Clone, Copy, Debug)]
pub struct Claimant {
    /// Stands for the user.
    pub owner: u64,
    /// Where the claim comes from.
    pub client: IpAddr,
    /// When.
    pub now: Instant,
}

/// How many bytes a connection has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// From the client to the peer.
    pub to_peer: u64,
    /// From the peer to the client.
    pub to_client: u64,
}

/// The transport protocol between a relay and its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RelayProtocol {
    /// Datagrams.
    Udp,
    /// Connections, which are accepted as soon as the relay is open (RFC 6062).
    Tcp,
}

/// The relayed transport address that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    /// Its protocol. No port is reserved for [`RelayProtocol::Tcp`].
    pub protocol: RelayProtocol,
    /// Its family. With [`WantedPort::Reserved`] that of the reservation counts and this one does not.
    pub family: Family,
    /// Its port.
    pub port: WantedPort,
    /// The time, for the ends of reservations.
    pub now: Now,
}

/// The port that is wanted. `owner` stands for the user: equal for equal users, on every worker of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedPort {
    /// Any port.
    Any,
    /// An even port.
    Even,
    /// An even port, with the next one held for `owner`.
    EvenAndNext {
        /// Who may use the held port.
        owner: u64,
        /// How many ports may be held for the owner. A held port is no allocation and no quota counts it, so whoever
        /// made and ended allocations in a row would have as many ports as time allows.
        most: u32,
    },
    /// The port held under `token`.
    Reserved {
        /// The name of the reservation.
        token: ReservationToken,
        /// Who asks for it.
        owner: u64,
    },
}

/// No such relayed transport address is to be had now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoCapacity;

/// How an address stands to this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Not ours.
    Outside,
    /// An open relay of this server, with whichever worker it is.
    LiveRelay,
    /// Ours, and not an open relay: a listener, a closed relay, any other port of an address of this host, or a
    /// broadcast address of one of its networks.
    Own,
}

/// Which families relayed transport addresses can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// IPv4 relays can be opened.
    pub v4: bool,
    /// IPv6 relays can be opened.
    pub v6: bool,
}

impl Families {
    /// Whether relays of this family can be opened.
    pub fn has(self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}
