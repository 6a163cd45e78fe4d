//! The peer connections of one worker's allocations, wherever their sockets are.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::unclaimed::Unclaimed;
use crate::metrics::{Cells, Direction};
use crate::plane::udp;
use crate::turn::{Addressee, Allowance, Carried, Claimant, ConnectionId, Family, Transport};

/// What the kernel keeps of a peer's data before its client comes for it (A35).
const EARLY_DATA: usize = 16 * 1024;

/// A connection to a peer.
pub(in crate::plane) struct PeerConnection {
    stream: TcpStream,
    tie: Tie,
}

/// What ties a peer connection to its allocation, on whichever worker it is: the allocation can cut it, and
/// knows when it has ended.
pub(super) struct Tie {
    pub(super) carried: Arc<Meter>,
    /// Nothing is ever sent: that the other end is gone is what there is to know.
    pub(super) cut: oneshot::Receiver<Infallible>,
    /// The connection counts for as long as this lives.
    pub(super) counted: Arc<()>,
    /// How much may pass.
    pub(super) allowance: Option<Arc<Allowance>>,
}

/// How many bytes have passed.
#[derive(Default)]
pub(super) struct Meter {
    pub(super) to_peer: AtomicU64,
    pub(super) to_client: AtomicU64,
}

impl PeerConnection {
    /// Whether its allocation has let go of it.
    pub(super) fn is_cut(&mut self) -> bool {
        self.tie.cut.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    /// The socket, free to take in what the peer sends, and what ties it.
    pub(super) fn open(self) -> (TcpStream, Tie) {
        // From here on there may be something on its way to the peer that is not to be lost.
        let _ = SockRef::from(&self.stream).set_linger(None);
        udp::let_receive_buffer_grow(self.stream.as_fd());
        (self.stream, self.tie)
    }
}

/// The allocation's end of a tie.
struct Held {
    carried: Arc<Meter>,
    tie: oneshot::Sender<Infallible>,
    transport: Transport,
    family: Family,
    /// What has been counted already.
    counted: Carried,
}

/// The peer connections of one worker's allocations.
#[derive(Default)]
pub(in crate::plane) struct Connections {
    held: HashMap<ConnectionId, Held>,
    /// As many clones as there are sockets, on whichever worker. Those that have ended are held until their allocation
    /// looks at them, and must not be in the way of others' meanwhile.
    sockets: Arc<()>,
    connecting: HashMap<ConnectionId, Attempt>,
    /// What the machine is being asked about.
    in_hand: Option<TcpStream>,
    /// What the machine has claimed for the client that asked.
    claimed: Option<PeerConnection>,
    /// What those that are no longer held have carried since they were counted.
    uncounted: [[Carried; Family::ALL.len()]; Transport::ALL.len()],
    most: usize,
}

/// An attempt to connect, given up when it is dropped.
struct Attempt(AbortHandle);

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connections {
    /// No connections, and later at most `most`.
    pub(in crate::plane) fn new(most: usize) -> Self {
        Self {
            most,
            ..Self::default()
        }
    }

    /// Whether there can be no more.
    pub(in crate::plane) fn is_full(&self) -> bool {
        let sockets = Arc::strong_count(&self.sockets) - 1;
        sockets + self.connecting.len() >= self.most
    }

    /// How many are open.
    pub(in crate::plane) fn open(&self) -> usize {
        self.held
            .values()
            .filter(|held| !held.tie.is_closed())
            .count()
    }

    /// Puts a connection before the machine, or closes the one that it has left there.
    pub(super) fn take_in_hand(&mut self, stream: Option<TcpStream>) {
        self.in_hand = stream.inspect(|stream| {
            let socket = SockRef::from(stream);
            // What is relayed must not wait for a full segment.
            let _ = socket.set_tcp_nodelay(true);
            // Closed before a client has come for it, it leaves nothing behind: no TIME-WAIT in the way of the next
            // connection to this peer.
            let _ = socket.set_linger(Some(Duration::ZERO));
            // A peer that sends at once is told a small window; less than asked for is no error.
            let _ = socket.set_recv_buffer_size(EARLY_DATA);
        });
    }

    /// What the machine has claimed, once.
    pub(in crate::plane) fn take_claimed(&mut self) -> Option<PeerConnection> {
        self.claimed.take()
    }

    /// Lets an attempt to connect run until it is over or the connection is disconnected.
    pub(super) fn connecting(
        &mut self,
        id: ConnectionId,
        attempt: impl Future<Output = ()> + Send + 'static,
    ) {
        let task = tokio::spawn(attempt);
        self.connecting.insert(id, Attempt(task.abort_handle()));
    }

    /// An attempt is over.
    pub(super) fn connected(&mut self, id: ConnectionId) {
        self.connecting.remove(&id);
    }

    /// See [`Relays::offer`](crate::turn::Relays::offer).
    pub(in crate::plane) fn offer(
        &mut self,
        id: ConnectionId,
        addressee: &Addressee,
        family: Family,
        unclaimed: &Unclaimed,
    ) -> bool {
        if self.held.contains_key(&id) {
            return false;
        }
        let Some(stream) = self.in_hand.take() else {
            return false;
        };
        let carried = Arc::new(Meter::default());
        let (tie, cut) = oneshot::channel();
        let connection = PeerConnection {
            stream,
            tie: Tie {
                carried: Arc::clone(&carried),
                cut,
                counted: Arc::clone(&self.sockets),
                allowance: addressee.allowance.clone(),
            },
        };
        if let Err(connection) = unclaimed.insert(id, connection, addressee) {
            self.in_hand = Some(connection.stream);
            return false;
        }
        let held = Held {
            carried,
            tie,
            transport: addressee.client.five_tuple.transport,
            family,
            counted: Carried::default(),
        };
        self.held.insert(id, held);
        true
    }

    /// See [`Relays::claim`](crate::turn::Relays::claim).
    pub(in crate::plane) fn claim(
        &mut self,
        id: ConnectionId,
        claimant: Claimant,
        unclaimed: &Unclaimed,
    ) -> bool {
        self.claimed = unclaimed.take(id, claimant);
        self.claimed.is_some()
    }

    /// See [`Relays::is_connected`](crate::turn::Relays::is_connected).
    pub(in crate::plane) fn is_connected(&self, id: ConnectionId) -> bool {
        self.held.get(&id).is_some_and(|held| !held.tie.is_closed())
    }

    /// See [`Relays::disconnect`](crate::turn::Relays::disconnect).
    pub(in crate::plane) fn disconnect(
        &mut self,
        id: ConnectionId,
        unclaimed: &Unclaimed,
    ) -> Carried {
        self.connecting.remove(&id);
        let Some(mut held) = self.held.remove(&id) else {
            return Carried::default();
        };
        let (total, more) = held.read();
        let uncounted = &mut self.uncounted[held.transport.index()][held.family.index()];
        uncounted.to_peer += more.to_peer;
        uncounted.to_client += more.to_client;
        drop(held);
        unclaimed.remove_cut(id);
        total
    }

    /// Counts what has been carried since the last time.
    pub(in crate::plane) fn count(&mut self, cells: &mut Cells) {
        let mut add = |transport, family, carried: Carried| {
            cells.carried(Direction::ToPeer, transport, family, carried.to_peer);
            cells.carried(Direction::ToClient, transport, family, carried.to_client);
        };
        for held in self.held.values_mut() {
            let (_, more) = held.read();
            add(held.transport, held.family, more);
        }
        for transport in Transport::ALL {
            for family in Family::ALL {
                let uncounted = &mut self.uncounted[transport.index()][family.index()];
                add(transport, family, std::mem::take(uncounted));
            }
        }
    }
}

impl Held {
    /// What has been carried altogether, and since the last time.
    fn read(&mut self) -> (Carried, Carried) {
        let total = Carried {
            to_peer: self.carried.to_peer.load(Ordering::Relaxed),
            to_client: self.carried.to_client.load(Ordering::Relaxed),
        };
        let more = Carried {
            to_peer: total.to_peer - self.counted.to_peer,
            to_client: total.to_client - self.counted.to_client,
        };
        self.counted = total;
        (total, more)
    }
}

/// A TCP socket that can be bound to a relay's address.
pub(in crate::plane) fn socket(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A port must not wait for the last connections' TIME-WAIT.
    socket.set_reuse_address(true)?;
    Ok(socket)
}
