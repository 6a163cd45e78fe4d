//! TCP relays (RFC 6062): connections to and from peers, and how they meet the clients' own.
//!
//! ```text
//!  peer ──accept──┐                     worker A: has the allocation, judges, counts, may cut
//!  peer ◀─connect─┴▶ unclaimed ──claim──▶ worker B: whichever the client's data connection came to
//!                                         splice: peer ◀──▶ client
//! ```
//!
//! The kernel gives a client's data connection to any worker, so a peer connection waits in a table that all
//! of them share (`unclaimed`), which is touched once for a connection and never for what goes through it. It
//! is not read until it is claimed: what the peer sends meanwhile is bounded by the kernel's buffer and the
//! window that the peer is told. From then on it lives with the client's connection (`splice`), and is tied
//! to the allocation by a [`Tie`](connections::Tie): the allocation's end cuts it, wherever it is.

mod connections;
pub(super) mod splice;
mod unclaimed;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

pub(super) use connections::{Connections, PeerConnection, socket};
pub(super) use unclaimed::Unclaimed;

use super::outbox::Body;
use super::stream::StreamEvent;
use super::worker::Worker;
use crate::metrics::SocketError;
use crate::turn::{Cause, Connect, ConnectFailure, Now, RelayId};

/// Connections that are taken from one relay in a row.
const ACCEPTS: usize = 16;

impl Worker<'_> {
    /// Takes in the peers that have connected to a relay. True when there may be more.
    pub(super) fn accept_peers(&mut self, now: Now, relay: RelayId) -> bool {
        for _ in 0..ACCEPTS {
            // Another packet of this round may have ended the allocation.
            let Some(accepted) = self.sockets.accept_peer(relay) else {
                return false;
            };
            match accepted {
                Ok(_) if self.sockets.connections.is_full() => {
                    self.cells.dropped(Cause::TooManyConnections);
                }
                Ok((stream, peer)) => self.take_peer(now, relay, stream, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // No descriptor, most likely. Who waits is taken when the next one comes.
                    self.cells.socket_error(SocketError::of(&error));
                    return false;
                }
            }
        }
        true
    }

    fn take_peer(&mut self, now: Now, relay: RelayId, stream: TcpStream, peer: SocketAddr) {
        let start = self.outbox.replies.len();
        self.sockets.connections.take_in_hand(Some(stream));
        let announced = self.server.peer_connected(
            now,
            relay,
            peer,
            &mut self.sockets,
            &mut self.outbox.replies,
        );
        // Without a permission it is closed.
        self.sockets.connections.take_in_hand(None);
        match announced {
            Ok(client) => self.answer(now, client, Body::Reply(start..self.outbox.replies.len())),
            Err(cause) => self.cells.dropped(cause),
        }
    }

    /// Starts to connect to a peer.
    pub(super) fn connect(&mut self, now: Now, connect: Connect) {
        let to_worker = self.streams.to_worker();
        let way = self.sockets.way(&connect);
        let attempt = attempt(now, connect, way, to_worker);
        self.sockets.connections.connecting(connect.id, attempt);
    }

    /// Takes in what became of it.
    pub(super) fn connected(
        &mut self,
        now: Now,
        connect: &Connect,
        outcome: Result<TcpStream, ConnectFailure>,
    ) {
        let start = self.outbox.replies.len();
        let (stream, established) = match outcome {
            Ok(stream) => (Some(stream), Ok(())),
            Err(why) => (None, Err(why)),
        };
        self.sockets.connections.connected(connect.id);
        self.sockets.connections.take_in_hand(stream);
        let reply = self.server.connected(
            now,
            connect,
            established,
            &mut self.sockets,
            &mut self.outbox.replies,
        );
        self.sockets.connections.take_in_hand(None);
        if let Some(reply) = reply {
            self.cells.answered(reply.method, reply.code, reply.refusal);
            let end = self.outbox.replies.len();
            self.answer(now, reply.to, Body::Reply(start..end));
        }
    }
}

/// Tries to connect from one address to another and tells the worker: a success at once, a failure when it is
/// time to tell failures, whatever it was. Without a way there is nothing to try.
async fn attempt(
    now: Now,
    connect: Connect,
    way: Option<(SocketAddr, SocketAddr)>,
    to_worker: mpsc::Sender<StreamEvent>,
) {
    let outcome = match way {
        Some((from, to)) => establish(from, to, connect.timeout).await.map_err(failure),
        None => Err(ConnectFailure::NoRoute),
    };
    if outcome.is_err() {
        sleep_until(Instant::from_std(now.instant) + connect.failure_after).await;
    }
    // An error means that the worker has ended.
    let _ = to_worker
        .send(StreamEvent::Connected(Box::new(connect), outcome))
        .await;
}

async fn establish(from: SocketAddr, to: SocketAddr, within: Duration) -> io::Result<TcpStream> {
    let bound = socket(from)?;
    // Beside the socket that listens there.
    bound.set_reuse_port(true)?;
    bound.bind(&from.into())?;
    let bound = TcpSocket::from_std_stream(bound.into());
    timeout(within, bound.connect(to)).await??.into_std()
}

/// For those who run the server; the client is told nothing of it.
fn failure(error: io::Error) -> ConnectFailure {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the standard library's kinds are open"
    )]
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
            ConnectFailure::Refused
        }
        io::ErrorKind::TimedOut => ConnectFailure::TimedOut,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            ConnectFailure::NoRoute
        }
        _ => ConnectFailure::Other,
    }
}
