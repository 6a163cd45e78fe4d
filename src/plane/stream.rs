//! TCP and TLS clients, as their worker sees them: which connections there are, whose they are, and how long
//! they may stay.
//!
//! Each has a small task (`connection`) and a queue of what the worker has for it (`queue`). The queue is
//! bounded in bytes and age: a reader that is too slow loses the oldest media, never an answer, never half
//! a frame, and never another client's time (F07).

mod connection;
mod handshakes;
mod opening;
mod places;
mod proxy;
mod queue;
mod tally;
mod web;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsAcceptor;

use connection::Task;
use handshakes::Handshakes;
use opening::Door;
use places::Places;
use proxy::Header;
use queue::{Frame, Queue};
use tally::Tally;
pub(super) use web::Site;

use super::listener::Listen;
use super::moved::PATHS;
use super::outbox::Counted;
use super::tcp_relay::PeerConnection;
use crate::metrics::Cells;
use crate::turn::{Client, Connect, ConnectFailure, FiveTuple, Path, Transport};

/// A connection without an allocation is closed after this long (A31).
const WITHOUT_ALLOCATION: Duration = Duration::from_secs(10);
/// Connections of one subscriber whose clients have not proved who they are yet (A31, A33).
const PENDING_PER_SUBSCRIBER: usize = 64;
/// Connections of one proxy that has not told their clients yet.
const PENDING_PER_PROXY: usize = 1024;
/// Connections of web clients that one worker carries, by subscriber and in all, so that there is room for others.
const WEB_PER_SUBSCRIBER: usize = 32;
const WEB: usize = 256;
/// Frames that wait for the worker; beyond, the client is made to wait.
const INBOUND: usize = 256;
/// What queued frames are copied into, so that not every frame is an allocation of its own.
const ARENA: usize = 8192;

/// What connections tell their worker.
pub(super) enum StreamEvent {
    /// A proxy has told whose the connection is, or failed to.
    Header(Path, Header),
    /// From here on, the client speaks STUN and TURN over this transport; over TLS it may have asked for a host.
    Opened(Path, Transport, Option<Box<str>>),
    /// From here on, the connection is a web client's.
    Web(Path),
    /// A whole STUN message or ChannelData message, without padding.
    Frame(Path, Bytes),
    /// The same, of a ConnectionBind: the connection says nothing more until it is told what became of it.
    Bind(Path, Bytes, oneshot::Sender<Option<PeerConnection>>),
    /// An attempt to connect to a peer is over, well or not.
    Connected(Box<Connect>, Result<std::net::TcpStream, ConnectFailure>),
    /// A TLS handshake ended, well or not.
    Handshake(bool),
    /// The connection is gone.
    Closed(Path),
}

struct Connection {
    client: Client,
    queue: Arc<Queue>,
    is_open: bool,
    place: Place,
}

/// Which of the limits a connection counts against, and by which address.
#[derive(Clone, Copy)]
enum Place {
    Proxy(IpAddr),
    Stranger(IpAddr),
    Web(IpAddr),
    /// The client has proved who it is: quotas bound what it takes.
    Known,
    /// The same, and it is a data connection: it has no allocation of its own (RFC 6062).
    Data,
}

/// The stream clients of one worker.
pub(super) struct Streams {
    connections: HashMap<Path, Connection>,
    proxies: Places,
    strangers: Places,
    web: Places,
    /// When to look whether a connection has an allocation, in order.
    deadlines: VecDeque<(Instant, Path)>,
    next_path: u32,
    first_path: u32,
    most: usize,
    handshakes: Arc<Handshakes>,
    arena: BytesMut,
    tally: Arc<Tally>,
    events: mpsc::Receiver<StreamEvent>,
    to_worker: mpsc::Sender<StreamEvent>,
}

impl Streams {
    /// At most `most` connections; paths below `first_path` belong to the datagram listeners.
    pub(super) fn new(first_path: u32, most: usize) -> Self {
        let (to_worker, events) = mpsc::channel(INBOUND);
        Self {
            connections: HashMap::new(),
            proxies: Places::new(PENDING_PER_PROXY, most),
            strangers: Places::new(PENDING_PER_SUBSCRIBER, most),
            web: Places::new(WEB_PER_SUBSCRIBER, WEB.min(most / 4)),
            deadlines: VecDeque::new(),
            next_path: first_path,
            first_path,
            most,
            handshakes: Arc::default(),
            arena: BytesMut::new(),
            tally: Arc::default(),
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

    /// Takes a connection in, or refuses it: too many, too many from there without an allocation, or none of
    /// the proxies that are to come here.
    pub(super) fn accept(
        &mut self,
        now: Instant,
        stream: TcpStream,
        from: SocketAddr,
        listen: &Arc<Listen>,
        site: Option<Site>,
        tls: Option<TlsAcceptor>,
    ) -> bool {
        let Ok(server) = stream.local_addr() else {
            return false;
        };
        let (client, server) = (canonical(from), canonical(server));
        let place = if listen.proxies.is_empty() {
            Place::Stranger(client.ip())
        } else if listen.trusts(client.ip()) {
            Place::Proxy(client.ip())
        } else {
            return false;
        };
        if self.connections.len() >= self.most || !self.take(place) {
            return false;
        }
        // Relayed media must not wait for a full segment.
        let _ = stream.set_nodelay(true);
        let five_tuple = FiveTuple {
            transport: listen.transport,
            client,
            server,
        };
        let path = self.free_path();
        let queue = Arc::new(Queue::new(Arc::clone(&self.tally)));
        let task = Task {
            path,
            queue: Arc::clone(&queue),
            to_worker: self.to_worker.clone(),
        };
        let door = Door {
            listen: Arc::clone(listen),
            site,
            tls,
            handshakes: Arc::clone(&self.handshakes),
        };
        drop(tokio::spawn(task.run(stream, door)));
        self.deadlines.push_back((now + WITHOUT_ALLOCATION, path));
        self.connections.insert(
            path,
            Connection {
                client: Client { five_tuple, path },
                queue,
                is_open: false,
                place,
            },
        );
        true
    }

    /// A proxy has told whose its connection is: from here on it counts as that client's. Returns whether it
    /// has told it well.
    pub(super) fn told(&mut self, path: Path, header: Header) -> bool {
        let Some(connection) = self.connections.get_mut(&path) else {
            return header != Header::Broken;
        };
        let five_tuple = &mut connection.client.five_tuple;
        match header {
            Header::Broken => return false,
            Header::Own => {}
            Header::Client(client) => five_tuple.client = canonical(client),
        }
        let place = Place::Stranger(five_tuple.client.ip());
        self.move_to(path, place);
        true
    }

    /// What a connection carries is known.
    pub(super) fn opened(&mut self, path: Path, transport: Transport) {
        if let Some(connection) = self.connections.get_mut(&path) {
            connection.client.five_tuple.transport = transport;
            connection.is_open = true;
        }
    }

    /// A connection is a web client's. Returns whether there is room for it.
    pub(super) fn is_web(&mut self, path: Path) -> bool {
        let Some(connection) = self.connections.get(&path) else {
            return false;
        };
        let place = Place::Web(connection.client.five_tuple.client.ip());
        self.move_to(path, place)
    }

    /// Who is at the far end, while the connection lives.
    pub(super) fn client(&self, path: Path) -> Option<Client> {
        self.connections
            .get(&path)
            .filter(|connection| connection.is_open)
            .map(|connection| connection.client)
    }

    /// Whether a path leads to a stream.
    pub(super) fn owns(&self, path: Path) -> bool {
        (self.first_path..PATHS).contains(&path.0)
    }

    /// Queues one frame of three parts: what precedes the payload, the payload, and padding. It is lost when the
    /// connection is gone, and others may be lost for it; what becomes of them is counted when it is known.
    pub(super) fn send(&mut self, now: Instant, path: Path, parts: [&[u8]; 3], counted: Counted) {
        let Some(connection) = self.connections.get(&path) else {
            return self.tally.lost(1);
        };
        if self.arena.capacity() < parts.iter().map(|part| part.len()).sum() {
            self.arena.reserve(ARENA);
        }
        for part in parts {
            self.arena.extend_from_slice(part);
        }
        let frame = Frame {
            bytes: self.arena.split().freeze(),
            payload: parts[1].len(),
            counted,
        };
        connection.queue.push(now, frame);
    }

    /// Adds what has been counted since the last time.
    pub(super) fn count(&self, cells: &mut Cells) {
        self.tally.drain_into(cells);
    }

    /// The client of a connection has proved who it is: it counts no longer against its neighbours behind
    /// the same address.
    pub(super) fn trust(&mut self, path: Path) {
        let Some(connection) = self.connections.get(&path) else {
            return;
        };
        connection.queue.trust();
        self.move_to(path, Place::Known);
    }

    /// A connection has been joined to a peer's.
    pub(super) fn joined(&mut self, path: Path) {
        self.move_to(path, Place::Data);
    }

    /// Where connections, and attempts to make some, tell what they have to say.
    pub(super) fn to_worker(&self) -> mpsc::Sender<StreamEvent> {
        self.to_worker.clone()
    }

    /// Forgets a connection that is gone.
    pub(super) fn closed(&mut self, path: Path) -> Option<Client> {
        let connection = self.connections.remove(&path)?;
        connection.queue.close();
        self.give_back(connection.place);
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
            if matches!(connection.place, Place::Web(_) | Place::Data) {
                continue;
            }
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

    /// Moves a connection from one place to another; closes it if there is none.
    fn move_to(&mut self, path: Path, place: Place) -> bool {
        let Some(connection) = self.connections.get_mut(&path) else {
            return false;
        };
        let left = std::mem::replace(&mut connection.place, Place::Known);
        let queue = Arc::clone(&connection.queue);
        self.give_back(left);
        let taken = self.take(place);
        match self.connections.get_mut(&path) {
            Some(connection) if taken => connection.place = place,
            // The task ends and says so.
            Some(_) | None => queue.close(),
        }
        taken
    }

    fn take(&mut self, place: Place) -> bool {
        match place {
            Place::Proxy(ip) => self.proxies.take(ip),
            Place::Stranger(ip) => self.strangers.take(ip),
            Place::Web(ip) => self.web.take(ip),
            Place::Known | Place::Data => true,
        }
    }

    fn give_back(&mut self, place: Place) {
        match place {
            Place::Proxy(ip) => self.proxies.give_back(ip),
            Place::Stranger(ip) => self.strangers.give_back(ip),
            Place::Web(ip) => self.web.give_back(ip),
            Place::Known | Place::Data => {}
        }
    }

    fn free_path(&mut self) -> Path {
        loop {
            let path = Path(self.next_path);
            self.next_path = match self.next_path + 1 {
                PATHS => self.first_path,
                next => next,
            };
            if !self.connections.contains_key(&path) {
                return path;
            }
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
