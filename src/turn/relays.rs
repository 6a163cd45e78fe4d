//! Where relayed transport addresses come from: the one trait of the machine.

use std::net::SocketAddr;

use super::{Family, Now};

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

/// The relayed transport address that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Want {
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
