//! TCP and TLS clients, as their worker sees them: which connections there are, whose they are, and how long
//! they may stay.
//!
//! Each has a small task (`connection`) and a queue of what the worker has for it (`queue`). The queue is
//! bounded in bytes and age: a reader that is too slow loses the oldest media, never an answer, never half
//! a frame, and never another client's time (F07).

mod connection;
mod queue;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use connection::Task;
use queue::Queue;

use crate::turn::{Client, FiveTuple, Path, Transport};

/// A connection without an allocation is closed after this long (A31).
const WITHOUT_ALLOCATION: Duration = Duration::from_secs(10);
/// Connections of one address whose clients have not proved who they are yet (A31, A33).
const PENDING_PER_ADDRESS: usize = 64;
/// TLS handshakes that one worker has in flight at most (A32).
const HANDSHAKES: usize = 256;
/// Frames that wait for the worker; beyond, the client is made to wait.
const INBOUND: usize = 256;
/// What queued frames are copied into, so that not every frame is an allocation of its own.
const ARENA: usize = 8192;

/// What connections tell their worker.
pub(super) enum StreamEvent {
    /// A whole STUN message or ChannelData message, without padding.
    Frame(Path, Bytes),
    /// A TLS handshake ended, well or not.
    Handshake(bool),
    /// The connection is gone.
    Closed(Path),
}

struct Connection {
    client: Client,
    queue: Arc<Queue>,
    /// Counts against [`PENDING_PER_ADDRESS`].
    pending: bool,
}

/// The stream clients of one worker.
pub(super) struct Streams {
    connections: HashMap<Path, Connection>,
    pending: HashMap<IpAddr, usize>,
    /// When to look whether a connection has an allocation, in order.
    deadlines: VecDeque<(Instant, Path)>,
    next_path: u32,
    first_path: u32,
    most: usize,
    handshakes: Arc<AtomicUsize>,
    arena: BytesMut,
    events: mpsc::Receiver<StreamEvent>,
    to_worker: mpsc::Sender<StreamEvent>,
}

impl Streams {
    /// At most `most` connections; paths below `first_path` belong to the datagram listeners.
    pub(super) fn new(first_path: u32, most: usize) -> Self {
        let (to_worker, events) = mpsc::channel(INBOUND);
        Self {
            connections: HashMap::new(),
            pending: HashMap::new(),
            deadlines: VecDeque::new(),
            next_path: first_path,
            first_path,
            most,
            handshakes: Arc::default(),
            arena: BytesMut::new(),
            events,
            to_worker,
        }
    }

    /// The next thing that a connection has to say. Safe to cancel.
    pub(super) async fn event(&mut self) -> Option<StreamEvent> {
        self.events.recv().await
    }

    /// Another one that is there already.
    pub(super) fn try_event(&mut self) -> Option<StreamEvent> {
        self.events.try_recv().ok()
    }

    /// Takes a connection in, or refuses it: too many, or too many from there without an allocation.
    pub(super) fn accept(
        &mut self,
        now: Instant,
        stream: TcpStream,
        client: SocketAddr,
        tls: Option<TlsAcceptor>,
    ) -> bool {
        let ip = client.ip().to_canonical();
        let waiting = self.pending.get(&ip).copied().unwrap_or(0);
        let busy = tls.is_some() && self.handshakes.load(Ordering::Relaxed) >= HANDSHAKES;
        let Ok(server) = stream.local_addr() else {
            return false;
        };
        if busy || waiting >= PENDING_PER_ADDRESS || self.connections.len() >= self.most {
            return false;
        }
        // Relayed media must not wait for a full segment.
        let _ = stream.set_nodelay(true);
        let transport = if tls.is_some() {
            Transport::Tls
        } else {
            Transport::Tcp
        };
        let five_tuple = FiveTuple {
            transport,
            client: canonical(client),
            server: canonical(server),
        };
        let path = self.free_path();
        let queue = Arc::new(Queue::default());
        let task = Task {
            path,
            queue: Arc::clone(&queue),
            to_worker: self.to_worker.clone(),
        };
        match tls {
            None => drop(tokio::spawn(task.serve_plain(stream))),
            Some(acceptor) => drop(tokio::spawn(task.serve_tls(
                stream,
                acceptor,
                Arc::clone(&self.handshakes),
            ))),
        }
        *self.pending.entry(ip).or_default() += 1;
        self.deadlines.push_back((now + WITHOUT_ALLOCATION, path));
        self.connections.insert(
            path,
            Connection {
                client: Client { five_tuple, path },
                queue,
                pending: true,
            },
        );
        true
    }

    /// Who is at the far end, while the connection lives.
    pub(super) fn client(&self, path: Path) -> Option<Client> {
        self.connections
            .get(&path)
            .map(|connection| connection.client)
    }

    /// Whether a path leads to a stream.
    pub(super) fn owns(&self, path: Path) -> bool {
        path.0 >= self.first_path
    }

    /// Queues one frame. Returns how many were dropped for it, itself included when the connection is gone.
    pub(super) fn send(
        &mut self,
        now: Instant,
        path: Path,
        parts: [&[u8]; 3],
        control: bool,
    ) -> usize {
        let Some(connection) = self.connections.get(&path) else {
            return 1;
        };
        if self.arena.capacity() < parts.iter().map(|part| part.len()).sum() {
            self.arena.reserve(ARENA);
        }
        for part in parts {
            self.arena.extend_from_slice(part);
        }
        connection
            .queue
            .push(now, self.arena.split().freeze(), control)
    }

    /// The client of a connection has proved who it is: it counts no longer against its neighbours behind
    /// the same address.
    pub(super) fn trust(&mut self, path: Path) {
        let Some(connection) = self.connections.get_mut(&path) else {
            return;
        };
        connection.queue.trust();
        if std::mem::take(&mut connection.pending) {
            let ip = connection.client.five_tuple.client.ip();
            self.no_longer_pending(ip);
        }
    }

    /// Forgets a connection that is gone.
    pub(super) fn closed(&mut self, path: Path) -> Option<Client> {
        let connection = self.connections.remove(&path)?;
        connection.queue.close();
        if connection.pending {
            self.no_longer_pending(connection.client.five_tuple.client.ip());
        }
        Some(connection.client)
    }

    /// Closes the connections that should have an allocation by now and have none.
    pub(super) fn expire(&mut self, now: Instant, has_allocation: impl Fn(&FiveTuple) -> bool) {
        while let Some((deadline, path)) = self.deadlines.front().copied()
            && deadline <= now
        {
            self.deadlines.pop_front();
            let Some(connection) = self.connections.get(&path) else {
                continue;
            };
            if !has_allocation(&connection.client.five_tuple) {
                // The task ends and says so; until then the connection counts.
                connection.queue.close();
                continue;
            }
            self.deadlines.push_back((now + WITHOUT_ALLOCATION, path));
        }
    }

    /// When [`expire`](Self::expire) has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }

    fn no_longer_pending(&mut self, ip: IpAddr) {
        if let Some(count) = self.pending.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                self.pending.remove(&ip);
            }
        }
    }

    fn free_path(&mut self) -> Path {
        loop {
            let path = Path(self.next_path);
            self.next_path = self.next_path.checked_add(1).unwrap_or(self.first_path);
            if !self.connections.contains_key(&path) {
                return path;
            }
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
