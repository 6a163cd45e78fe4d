//! What the outside must know.

use std::net::SocketAddr;
use std::ops::AddAssign;
use std::time::Duration;

use super::verdict::labels;
use super::{Client, ConnectionId, Family, FiveTuple, RelayId, SessionId, Transport};

/// Something that happened to an allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An allocation was made.
    Allocated(Box<Allocated>),
    /// A client asked to have its allocation moved, or has completed a move (RFC 8016).
    Move(MoveResult),
    /// An allocation has moved with its client: data go to the new address from now on.
    Moved(Box<Moved>),
    /// Nothing more will be sent to a client that had moved, or has moved on.
    Left(Client),
    /// An allocation ended. Its relays are closed already.
    Released(Box<Ended>),
    /// A client wants to be connected to a peer; [`Server::connected`](super::Server::connected) waits for the outcome.
    Connect(Box<Connect>),
}

/// A new allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocated {
    /// Its name.
    pub session: SessionId,
    /// The user it was made for.
    pub username: Box<[u8]>,
    /// Whose customer that is.
    pub tenant: Option<Box<str>>,
    /// The client it was made for.
    pub five_tuple: FiveTuple,
    /// Its relayed transport addresses: one, or two of different families.
    pub relays: Vec<(RelayId, SocketAddr)>,
    /// How long it lives unless it is refreshed.
    pub lifetime: Duration,
}

/// A client that has moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The user.
    pub username: Box<[u8]>,
    /// Where the client was.
    pub from: FiveTuple,
    /// Where it is.
    pub to: FiveTuple,
    /// Its relayed transport address, or the first of two, which stays.
    pub relay: SocketAddr,
}

labels! {
    /// What became of a Refresh with a ticket, and of the move that it asked for.
    MoveResult {
        /// The client may use its allocation from its new address.
        Accepted = "accepted",
        /// It has been told so again.
        Repeated = "repeated",
        /// It has begun to.
        Completed = "completed",
        /// Moves are not allowed.
        Forbidden = "forbidden",
        /// The ticket is none of ours.
        Invalid = "invalid",
        /// The client has not moved.
        Unchanged = "unchanged",
        /// The allocation has ended, or has moved more than once since.
        NoAllocation = "no_allocation",
        /// The ticket has been used for the last move.
        Spent = "spent",
        /// The client has another allocation at its new address.
        Occupied = "occupied",
        /// The allocation belongs to another user.
        WrongUser = "wrong_user",
        /// The new address is one of those that no client may have.
        BadAddress = "bad_address",
        /// The network of the new address has its fill of allocations.
        Quota = "quota",
    }
}

/// An allocation that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its name.
    pub session: SessionId,
    /// The user it was made for.
    pub username: Box<[u8]>,
    /// Whose customer that is.
    pub tenant: Option<Box<str>>,
    /// The client it was made for.
    pub five_tuple: FiveTuple,
    /// The relayed transport addresses that it still had.
    pub relays: Vec<(RelayId, SocketAddr)>,
    /// Why it ended.
    pub reason: EndReason,
    /// What went from the client to peers.
    pub to_peer: Traffic,
    /// What went from peers to the client.
    pub to_client: Traffic,
    /// How long it lived.
    pub age: Duration,
}

/// A connection that a client wants (RFC 6062 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect {
    /// The TCP relay to connect from.
    pub relay: RelayId,
    /// The name that the connection shall have.
    pub id: ConnectionId,
    /// Where to.
    pub peer: SocketAddr,
    /// How long the peer has time to accept.
    pub timeout: Duration,
    /// How long after the beginning a failure is reported, however early it is known: longer than the timeout.
    pub failure_after: Duration,
}

labels! {
    /// Why an allocation ended.
    EndReason {
        /// It was not refreshed in time.
        Expired = "expired",
        /// The client asked for it: a Refresh with lifetime 0.
        Deleted = "deleted",
        /// The client's connection was closed.
        ConnectionClosed = "connection_closed",
        /// Its credentials expired, and the settings say that calls end then.
        CredentialsExpired = "credentials_expired",
        /// The operator ended it.
        Kicked = "kicked",
        /// The server was stopped.
        Stopped = "server_stopped",
        /// Its credential, its user or its tenant was revoked.
        Revoked = "revoked",
        /// The worker that carried it panicked, which is a bug of the server.
        WorkerFailed = "worker_failed",
    }
}

/// Payload that was relayed in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// How many datagrams.
    pub packets: u64,
    /// Their payload, without any header.
    pub bytes: u64,
}

impl Traffic {
    /// Counts one datagram.
    pub(super) fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

/// What a machine holds at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Allocations, by [`Transport::index`](super::Transport::index) of the client and
    /// [`Family::index`](super::Family::index) of the relay; a dual allocation counts in both families.
    pub allocations: [[u64; Family::ALL.len()]; Transport::ALL.len()],
    /// How many of the allocations are TCP allocations (RFC 6062).
    pub tcp_allocations: u64,
    /// Permissions that have not expired.
    pub permissions: u64,
    /// Channels that have not expired.
    pub channels: u64,
}

impl AddAssign for Census {
    fn add_assign(&mut self, other: Self) {
        for (sum, more) in self
            .allocations
            .as_flattened_mut()
            .iter_mut()
            .zip(other.allocations.as_flattened())
        {
            *sum += more;
        }
        self.tcp_allocations += other.tcp_allocations;
        self.permissions += other.permissions;
        self.channels += other.channels;
    }
}
