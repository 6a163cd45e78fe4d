//! RFC 8016 over real sockets: clients move between ports, transports, address families and workers, with data on the
//! way in both directions all the time.

#![allow(clippy::unwrap_used)]
#![expect(clippy::disallowed_methods, reason = "real sockets live in real time")]

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use turnd::metrics::{Snapshot, SocketError};
use turnd::plane::{self, Adopted, Carry, Handle, Listen, RelayAddress, RelayRange};
use turnd::stun::framing::{Frame, next_frame};
use turnd::stun::{Attribute, Class, Integrity, Key, Message, Method, TransactionId, Writer};
use turnd::turn::{MoveResult, NonceKey, NonceKeys, Settings, Tenant, Tenants, Transport, Users};

const CHANNEL: u16 = 0x4123;
/// How many numbers may be on the way at a time, one way.
const WINDOW: u64 = 48;
/// Long enough for a busy machine, short enough to end a broken test.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a socket is listened to before it is another one's turn.
const GLANCE: Duration = Duration::from_millis(1);

/// \[8016-4\] \[8016-5\]: make before break, with every number arriving once, both ways.
#[test]
fn s8016_5_nothing_is_lost_while_a_client_moves_and_keeps_both_ways_for_a_moment() {
    let plane = Plane::start(2);
    let peers = Peers::start();
    let mut client = Roamer::start(&plane, Place::new(Transport::Udp, V4), &peers);
    let (mut alike, mut across) = (0, 0);
    for place in plane.journey(36) {
        client.exchange(&peers, 30);
        client.move_gently(&plane, place, &peers);
        let before = plane.snapshot().cells.passed_on;
        client.exchange(&peers, 60);
        match plane.snapshot().cells.passed_on - before {
            0 => alike += 1,
            _ => across += 1,
        }
    }
    client.exchange(&peers, 100);
    let (sent, heard) = peers.stop();
    println!("{sent} and {heard} numbers, {alike} moves alike, {across} across workers");
    // The kernel deals each place to either worker: one kind alone has odds of 1 in 10,000 at the very most.
    assert!(alike > 0 && across > 0, "{alike} {across}");
    let snapshot = plane.snapshot();
    assert_eq!(snapshot.cells.moves(MoveResult::Completed), 36);
    assert_eq!(snapshot.cells.socket_errors(SocketError::Full), 0);
    assert_eq!(
        snapshot
            .census
            .allocations
            .as_flattened()
            .iter()
            .sum::<u64>(),
        1
    );
}

/// \[8016-5\]: break before make. What is sent while there is no way is lost; once there is one, nothing is.
#[test]
fn s8016_5_nothing_is_lost_once_a_client_is_back_that_had_lost_its_way() {
    let plane = Plane::start(3);
    let peers = Peers::start();
    let mut client = Roamer::start(&plane, Place::new(Transport::Tcp, V4), &peers);
    for place in plane.journey(36) {
        client.exchange(&peers, 30);
        client.move_rudely(&plane, place, &peers);
        client.exchange(&peers, 60);
    }
    peers.stop();
    let snapshot = plane.snapshot();
    assert_eq!(snapshot.cells.moves(MoveResult::Completed), 36);
    assert!(snapshot.cells.passed_on > 0);
    client.delete();
    let snapshot = plane.snapshot();
    assert_eq!(
        snapshot
            .census
            .allocations
            .as_flattened()
            .iter()
            .sum::<u64>(),
        0
    );
    assert_eq!(snapshot.ports.used, 0);
}

/// \[8016-4\] across workers: the close of a connection, and the end of an allocation, are told.
#[test]
fn s8016_4_a_client_across_workers_ends_and_closes_as_any_other() {
    let plane = Plane::start(2);
    let peers = Peers::start();
    let mut far = 0;
    for _ in 0..12 {
        let mut client = Roamer::start(&plane, Place::new(Transport::Udp, V4), &peers);
        let before = plane.snapshot().cells.passed_on;
        client.move_gently(&plane, Place::new(Transport::Tcp, V4), &peers);
        if plane.snapshot().cells.passed_on > before {
            far += 1;
        }
        client.exchange(&peers, 10);
        // Away: the allocation waits, until the client is back and deletes it.
        client.ways.clear();
        let relayed = client.relayed;
        client.come_back(&plane, Place::new(Transport::Tls, V4), &peers);
        client.exchange(&peers, 10);
        assert_eq!(client.relayed, relayed);
        client.delete();
        // Where it is, it may allocate anew, as anybody.
        client.ways[0].allocate_again(&mut client.account);
        let code = client.ways[0].delete(&mut client.account);
        assert_eq!(code, 0);
        peers.forget();
    }
    assert!((1..12).contains(&far), "{far}");
    peers.stop();
    assert_eq!(plane.snapshot().ports.used, 0);
}

/// Connections without an allocation are closed after ten seconds (A31): that of a client whose allocation is with
/// another worker is none of them.
#[test]
fn s8016_5_the_connection_of_a_client_across_workers_stays_open() {
    let plane = Plane::start(2);
    let peers = Peers::start();
    let mut client = Roamer::start(&plane, Place::new(Transport::Udp, V4), &peers);
    let is_far = |client: &mut Roamer| {
        let before = plane.snapshot().cells.passed_on;
        client.move_gently(&plane, Place::new(Transport::Tcp, V4), &peers);
        plane.snapshot().cells.passed_on > before
    };
    assert!((0..40).any(|_| is_far(&mut client)));
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(13) {
        client.exchange(&peers, 10);
    }
    client.delete();
    peers.stop();
}

/// A tenant's client has come by the host that it asked for, and is the tenant's wherever the kernel deals it to.
#[test]
fn s8016_5_the_client_of_a_tenant_moves_across_workers_with_the_door_it_came_by() {
    let plane = Plane::start_with(2, |machine| {
        // Nobody else knows alice.
        let users = std::mem::replace(&mut machine.users, Users::new("turnd"));
        let tenant = Tenant {
            name: "acme".into(),
            users,
            limits: machine.limits,
            peers: None,
            server_names: vec!["localhost".to_owned()],
        };
        machine.tenants = Tenants::new(vec![tenant], Vec::new());
    });
    let peers = Peers::start();
    let mut client = Roamer::start(&plane, Place::new(Transport::Tls, V4), &peers);
    let mut across = 0;
    for number in 0..24 {
        let before = plane.snapshot().cells.passed_on;
        let place = Place::new(Transport::Tls, [V6, V4][number % 2]);
        client.move_gently(&plane, place, &peers);
        client.exchange(&peers, 10);
        across += usize::from(plane.snapshot().cells.passed_on > before);
    }
    assert!((1..24).contains(&across), "{across}");
    client.delete();
    // And where it is, it is still at the tenant's door.
    client.ways[0].allocate_again(&mut client.account);
    assert_eq!(client.ways[0].delete(&mut client.account), 0);
    peers.stop();
    assert_eq!(plane.snapshot().ports.used, 0);
}

/// A plane with listeners for everything, on both families.
struct Plane {
    handle: Handle,
    roots: Arc<ClientConfig>,
    plain: [SocketAddr; 2],
    secure: [SocketAddr; 2],
}

const V4: usize = 0;
const V6: usize = 1;

/// Where a client is, as far as it chooses.
#[derive(Clone, Copy, Debug)]
struct Place {
    transport: Transport,
    family: usize,
}

impl Place {
    fn new(transport: Transport, family: usize) -> Self {
        Self { transport, family }
    }
}

impl Plane {
    fn start(workers: usize) -> Self {
        Self::start_with(workers, |_| {})
    }

    fn start_with(workers: usize, change: impl FnOnce(&mut Settings)) -> Self {
        let (v4, v6) = (
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        );
        let plain = [free_address(v4), free_address(v6)];
        let secure = [free_address(v4), free_address(v6)];
        let mut machine = Settings::new(NonceKeys::from(NonceKey([7; 32])));
        machine.users.add_user("alice", "secret");
        machine.mobility = true;
        machine.limits.unauthenticated_replies = 0;
        machine.peers.allow = vec!["127.0.0.0/8".parse().unwrap()];
        change(&mut machine);
        let mut listeners = Vec::new();
        for family in [V4, V6] {
            listeners.push(Listen::new(plain[family], Transport::Udp));
            listeners.push(Listen::new(plain[family], Transport::Tcp));
            listeners.push(Listen::new(secure[family], Transport::Tls));
        }
        let settings = plane::Settings {
            workers,
            listeners,
            relay: RelayRange {
                addresses: vec![RelayAddress {
                    local: v4,
                    advertised: v4,
                }],
                ports: 32_000..=32_400,
            },
            carry: Carry::default(),
            streams_per_worker: 200,
        };
        let (server, client) = certificate();
        let handle = plane::start(
            settings,
            Arc::new(machine),
            Some(server),
            &Adopted::default(),
        )
        .unwrap();
        Self {
            handle,
            roots: client,
            plain,
            secure,
        }
    }

    /// Places one after the other, of every kind in every order.
    fn journey(&self, length: usize) -> impl Iterator<Item = Place> + use<> {
        const KINDS: [Place; 6] = [
            Place {
                transport: Transport::Udp,
                family: V4,
            },
            Place {
                transport: Transport::Tcp,
                family: V4,
            },
            Place {
                transport: Transport::Tls,
                family: V6,
            },
            Place {
                transport: Transport::Udp,
                family: V6,
            },
            Place {
                transport: Transport::Tcp,
                family: V6,
            },
            Place {
                transport: Transport::Tls,
                family: V4,
            },
        ];
        (0..length).map(|number| KINDS[(number + number / 6 * 5) % 6])
    }

    fn snapshot(&self) -> Snapshot {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(self.handle.snapshot())
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

fn free_address(ip: IpAddr) -> SocketAddr {
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap()
}

fn certificate() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let pair = rcgen::KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&pair).unwrap();
    let key = PrivatePkcs8KeyDer::from(pair.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

/// Two peers in a thread: one that the client has a channel for, and one that it has a permission for.
struct Peers {
    addresses: [SocketAddr; 2],
    tally: Arc<Tally>,
    thread: JoinHandle<()>,
}

/// What both ends know of each other.
#[derive(Default)]
struct Tally {
    /// The numbers that the peers have heard.
    heard: Mutex<BTreeSet<u64>>,
    /// How many numbers the peers have sent.
    sent: AtomicU64,
    /// How many of those are on their way no longer.
    settled: AtomicU64,
    /// Where the client is to be reached.
    relayed: Mutex<Option<SocketAddr>>,
    stop: AtomicBool,
}

impl Peers {
    fn start() -> Self {
        let sockets =
            [2, 3].map(|host| UdpSocket::bind((Ipv4Addr::new(127, 0, 0, host), 0)).unwrap());
        let addresses = [0, 1].map(|i| sockets[i].local_addr().unwrap());
        let tally = Arc::new(Tally::default());
        let theirs = Arc::clone(&tally);
        let thread = std::thread::spawn(move || theirs.run(&sockets));
        Self {
            addresses,
            tally,
            thread,
        }
    }

    /// How many numbers went each way.
    fn stop(self) -> (u64, u64) {
        self.tally.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
        let heard = self.tally.heard.lock().unwrap().len() as u64;
        (self.tally.sent.load(Ordering::SeqCst), heard)
    }

    /// Makes ready for another client.
    fn forget(&self) {
        *self.tally.relayed.lock().unwrap() = None;
    }
}

impl Tally {
    fn run(&self, sockets: &[UdpSocket; 2]) {
        for socket in sockets {
            socket.set_read_timeout(Some(GLANCE)).unwrap();
        }
        while !self.stop.load(Ordering::SeqCst) {
            for socket in sockets {
                self.hear(socket);
                self.send(sockets);
            }
        }
    }

    fn hear(&self, socket: &UdpSocket) {
        let mut buffer = [0; 2048];
        while let Ok(length) = socket.recv(&mut buffer) {
            let number = number_of(&buffer[..length]);
            let new = self.heard.lock().unwrap().insert(number);
            assert!(new, "{number} came twice");
        }
    }

    /// Sends the next numbers, as many as the window has room for.
    fn send(&self, sockets: &[UdpSocket; 2]) {
        let relayed = self.relayed.lock().unwrap();
        let Some(relayed) = *relayed else {
            return;
        };
        loop {
            let number = self.sent.load(Ordering::SeqCst);
            if number - self.settled.load(Ordering::SeqCst) >= WINDOW {
                return;
            }
            let socket = &sockets[number as usize % 2];
            socket.send_to(&text_of(number), relayed).unwrap();
            self.sent.store(number + 1, Ordering::SeqCst);
        }
    }
}

/// A number as it travels, in a text of varying length.
fn text_of(number: u64) -> Vec<u8> {
    let mut text = number.to_be_bytes().to_vec();
    text.extend((0..number % 53).map(|i| (number + i) as u8));
    text
}

fn number_of(text: &[u8]) -> u64 {
    let number = u64::from_be_bytes(text[..8].try_into().unwrap());
    assert_eq!(text, text_of(number));
    number
}

/// A client's credentials, and what it remembers of the server's answers.
struct Account {
    key: Key,
    nonce: Vec<u8>,
    ids: u64,
}

/// A client that moves.
struct Roamer {
    account: Account,
    /// The last one is the one that data are sent over.
    ways: Vec<Way>,
    ticket: Vec<u8>,
    relayed: SocketAddr,
    peers: [SocketAddr; 2],
    /// The next number to send.
    next: u64,
    /// The first number whose fate is known of none that are smaller.
    base: u64,
    heard: BTreeSet<u64>,
}

impl Roamer {
    fn start(plane: &Plane, place: Place, peers: &Peers) -> Self {
        let mut account = Account {
            key: Key::md5(b"alice", b"turnd", b"secret"),
            nonce: Vec::new(),
            ids: 0,
        };
        let mut way = Way::open(plane, place);
        let answer = way.request(&mut account, Method::ALLOCATE, |writer| {
            writer
                .u8(Attribute::REQUESTED_TRANSPORT, 17)
                .flag(Attribute::MOBILITY_TICKET);
        });
        let message = success(&answer);
        let relayed = message.xor_relayed_address().unwrap().unwrap();
        let ticket = message.mobility_ticket().unwrap().unwrap().to_vec();
        let answer = way.request(&mut account, Method::CHANNEL_BIND, |writer| {
            writer
                .u16(Attribute::CHANNEL_NUMBER, CHANNEL)
                .xor_address(Attribute::XOR_PEER_ADDRESS, peers.addresses[0]);
        });
        success(&answer);
        let answer = way.request(&mut account, Method::CREATE_PERMISSION, |writer| {
            writer.xor_address(Attribute::XOR_PEER_ADDRESS, peers.addresses[1]);
        });
        success(&answer);
        let next = peers
            .tally
            .heard
            .lock()
            .unwrap()
            .last()
            .map_or(0, |last| last + 1);
        let sent = peers.tally.sent.load(Ordering::SeqCst);
        peers.tally.settled.store(sent, Ordering::SeqCst);
        *peers.tally.relayed.lock().unwrap() = Some(relayed);
        Self {
            account,
            ways: vec![way],
            ticket,
            relayed,
            peers: peers.addresses,
            next,
            base: sent,
            heard: BTreeSet::new(),
        }
    }

    /// Sends a number, to either peer by turns.
    fn send(&mut self) {
        let text = text_of(self.next);
        let way = self.ways.last_mut().unwrap();
        if self.next.is_multiple_of(2) {
            way.send(&channel_data(&text));
        } else {
            let mut bytes = Vec::new();
            let id = TransactionId([9; 12]);
            let mut writer = Writer::new(&mut bytes, Class::Indication, Method::SEND, id);
            writer
                .xor_address(Attribute::XOR_PEER_ADDRESS, self.peers[1])
                .bytes(Attribute::DATA, &text);
            writer.finish();
            way.send(&bytes);
        }
        self.next += 1;
    }

    /// Takes in what has come over one of the ways. An answer is returned, numbers are noted.
    fn glance(&mut self, place: usize, peers: &Peers) -> Option<Vec<u8>> {
        while let Some(bytes) = self.ways.get_mut(place)?.glance() {
            let Some((number, by_channel)) = number_in(&bytes, self.peers) else {
                return Some(bytes);
            };
            assert_eq!(by_channel, number % 2 == 0);
            assert!(self.heard.insert(number), "{number} came twice");
            if number >= self.base {
                peers.tally.settled.fetch_add(1, Ordering::SeqCst);
            }
        }
        None
    }

    /// Numbers go both ways, until this many more have arrived at either end.
    fn exchange(&mut self, peers: &Peers, count: usize) {
        let until = Instant::now() + PATIENCE;
        let enough = (self.heard.len() + count, self.next + count as u64);
        while self.heard.len() < enough.0 || self.next < enough.1 {
            assert!(Instant::now() < until, "{}", self.report(peers));
            self.step(peers);
        }
        self.flush(peers);
    }

    /// Numbers out, as many as the window has room for, and whatever is there in.
    fn step(&mut self, peers: &Peers) {
        let heard = peers.tally.heard.lock().unwrap().len() as u64;
        while self.next - heard < WINDOW {
            self.send();
        }
        for place in 0..self.ways.len() {
            assert_eq!(self.glance(place, peers), None);
        }
    }

    /// Waits until everything that was sent has arrived.
    fn flush(&mut self, peers: &Peers) {
        let until = Instant::now() + PATIENCE;
        while peers.tally.heard.lock().unwrap().len() as u64 != self.next {
            assert!(Instant::now() < until, "{}", self.report(peers));
            for place in 0..self.ways.len() {
                assert_eq!(self.glance(place, peers), None);
            }
        }
    }

    fn report(&self, peers: &Peers) -> String {
        let heard = peers.tally.heard.lock().unwrap();
        let lost_out: Vec<u64> = (0..self.next).filter(|n| !heard.contains(n)).collect();
        let sent = peers.tally.sent.load(Ordering::SeqCst);
        let lost_in: Vec<u64> = (self.base..sent)
            .filter(|n| !self.heard.contains(n))
            .collect();
        format!(
            "to the peers {lost_out:?} of {}, from them {lost_in:?} of {sent}",
            self.next
        )
    }

    /// Make before break.
    fn move_gently(&mut self, plane: &Plane, place: Place, peers: &Peers) {
        let mut way = Way::open(plane, place);
        let mut request = way.resume(&mut self.account, &self.ticket);
        way.send(&request);
        let until = Instant::now() + PATIENCE;
        // Data go on over the old way meanwhile, both ways.
        let answer = loop {
            assert!(Instant::now() < until, "no answer; {}", self.report(peers));
            self.step(peers);
            let Some(answer) = way.glance() else {
                continue;
            };
            if self.account.takes_nonce(&answer) {
                request = way.resume(&mut self.account, &self.ticket);
                way.send(&request);
                continue;
            }
            break answer;
        };
        self.take_ticket(&answer);
        self.flush(peers);
        for _ in 0..20 {
            self.step(peers);
            assert_eq!(way.glance(), None, "data before the client has sent any");
        }
        self.flush(peers);
        self.ways.push(way);
        self.send();
        self.flush(peers);
        // What was sent to the old way before that has come when every smaller number has.
        let mark = peers.tally.sent.load(Ordering::SeqCst);
        while (self.base..mark).any(|number| !self.heard.contains(&number)) {
            assert!(Instant::now() < until, "{}", self.report(peers));
            self.step(peers);
        }
        self.ways.remove(0);
    }

    /// Break before make.
    fn move_rudely(&mut self, plane: &Plane, place: Place, peers: &Peers) {
        self.flush(peers);
        self.ways.clear();
        self.come_back(plane, place, peers);
    }

    fn come_back(&mut self, plane: &Plane, place: Place, peers: &Peers) {
        let mut way = Way::open(plane, place);
        let ticket = self.ticket.clone();
        let answer = way.request(&mut self.account, Method::REFRESH, |writer| {
            writer.bytes(Attribute::MOBILITY_TICKET, &ticket);
        });
        self.take_ticket(&answer);
        self.ways.push(way);
        self.send();
        self.flush(peers);
        // It is back: what is sent from here on must come.
        let sent = peers.tally.sent.load(Ordering::SeqCst);
        self.base = sent;
        peers.tally.settled.store(sent, Ordering::SeqCst);
    }

    fn take_ticket(&mut self, answer: &[u8]) {
        let message = success(answer);
        let ticket = message.mobility_ticket().unwrap().unwrap().to_vec();
        assert_ne!(ticket, self.ticket);
        self.ticket = ticket;
    }

    fn delete(&mut self) {
        let way = self.ways.last_mut().unwrap();
        assert_eq!(way.delete(&mut self.account), 0);
    }
}

impl Account {
    /// Whether an answer asks for another nonce. It has been noted then.
    fn takes_nonce(&mut self, answer: &[u8]) -> bool {
        let message = Message::parse(answer).unwrap();
        let asks = matches!(code(&message), 401 | 438);
        if asks {
            self.nonce = message.nonce().unwrap().unwrap().to_vec();
        }
        asks
    }

    fn build(&mut self, method: Method, put: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        self.ids += 1;
        let mut id = [0; 12];
        id[4..].copy_from_slice(&self.ids.to_be_bytes());
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, Class::Request, method, TransactionId(id));
        put(&mut writer);
        if self.nonce.is_empty() {
            writer.finish();
        } else {
            writer
                .bytes(Attribute::USERNAME, b"alice")
                .bytes(Attribute::REALM, b"turnd")
                .bytes(Attribute::NONCE, &self.nonce);
            writer.finish_with_integrity(&self.key, Integrity::Sha1);
        }
        bytes
    }
}

/// What is under a stream: TCP, or TLS over it.
trait Carrier: Read + Write {
    fn socket(&self) -> &TcpStream;
}

impl Carrier for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Carrier for StreamOwned<ClientConnection, TcpStream> {
    fn socket(&self) -> &TcpStream {
        &self.sock
    }
}

/// A way to the server.
enum Way {
    Udp(UdpSocket),
    Stream(Box<dyn Carrier>, Vec<u8>),
}

impl Way {
    fn open(plane: &Plane, place: Place) -> Self {
        let way = match place.transport {
            Transport::Udp => {
                let server = plane.plain[place.family];
                let socket = UdpSocket::bind((server.ip(), 0)).unwrap();
                socket.connect(server).unwrap();
                Self::Udp(socket)
            }
            Transport::Tcp => {
                let stream = TcpStream::connect(plane.plain[place.family]).unwrap();
                stream.set_nodelay(true).unwrap();
                Self::Stream(Box::new(stream), Vec::new())
            }
            Transport::Tls | Transport::Dtls => {
                let stream = TcpStream::connect(plane.secure[place.family]).unwrap();
                stream.set_nodelay(true).unwrap();
                let name = ServerName::try_from("localhost").unwrap();
                let connection = ClientConnection::new(Arc::clone(&plane.roots), name).unwrap();
                let mut stream = StreamOwned::new(connection, stream);
                // The handshake, while reading still waits.
                stream.flush().unwrap();
                Self::Stream(Box::new(stream), Vec::new())
            }
        };
        match &way {
            Self::Udp(socket) => socket.set_read_timeout(Some(GLANCE)).unwrap(),
            Self::Stream(stream, _) => stream.socket().set_read_timeout(Some(GLANCE)).unwrap(),
        }
        way
    }

    /// Sends a message; one of a stream is padded.
    fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::Udp(socket) => assert_eq!(socket.send(bytes).unwrap(), bytes.len()),
            Self::Stream(stream, _) => {
                let padding = [0; 3];
                stream.write_all(bytes).unwrap();
                stream
                    .write_all(&padding[..bytes.len().wrapping_neg() % 4])
                    .unwrap();
                stream.flush().unwrap();
            }
        }
    }

    /// The next message, if there is one.
    fn glance(&mut self) -> Option<Vec<u8>> {
        match self {
            Self::Udp(socket) => {
                let mut buffer = vec![0; 2048];
                let length = socket.recv(&mut buffer).ok()?;
                buffer.truncate(length);
                Some(buffer)
            }
            Self::Stream(stream, buffer) => loop {
                if let Frame::Whole { frame, message } = next_frame(buffer) {
                    let mut whole: Vec<u8> = buffer.drain(..frame).collect();
                    whole.truncate(message);
                    return Some(whole);
                }
                let mut more = [0; 4096];
                match stream.read(&mut more) {
                    Ok(length @ 1..) => buffer.extend_from_slice(&more[..length]),
                    Ok(0) => return None,
                    Err(error) if is_early(error.kind()) => return None,
                    Err(error) => panic!("{error}"),
                }
            },
        }
    }

    /// The answer to a request, sent again with another nonce if it takes one. Data that come meanwhile are lost.
    fn request(
        &mut self,
        account: &mut Account,
        method: Method,
        put: impl Fn(&mut Writer<'_>),
    ) -> Vec<u8> {
        loop {
            let request = account.build(method, &put);
            self.send(&request);
            let until = Instant::now() + PATIENCE;
            let answer = loop {
                assert!(Instant::now() < until, "no answer to {method:?}");
                if let Some(bytes) = self.glance()
                    && is_answer(&bytes, &request)
                {
                    break bytes;
                }
            };
            if !account.takes_nonce(&answer) {
                return answer;
            }
        }
    }

    fn resume(&self, account: &mut Account, ticket: &[u8]) -> Vec<u8> {
        account.build(Method::REFRESH, |writer| {
            writer.bytes(Attribute::MOBILITY_TICKET, ticket);
        })
    }

    fn delete(&mut self, account: &mut Account) -> u16 {
        let answer = self.request(account, Method::REFRESH, |writer| {
            writer.u32(Attribute::LIFETIME, 0);
        });
        code(&Message::parse(&answer).unwrap())
    }

    fn allocate_again(&mut self, account: &mut Account) {
        let answer = self.request(account, Method::ALLOCATE, |writer| {
            writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        });
        success(&answer);
    }
}

fn is_early(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

fn is_answer(bytes: &[u8], request: &[u8]) -> bool {
    bytes.len() >= 20 && bytes[8..20] == request[8..20]
}

/// The number in data from a peer, and whether they came in the channel. Nothing if it is an answer.
fn number_in(bytes: &[u8], peers: [SocketAddr; 2]) -> Option<(u64, bool)> {
    if bytes[..2] == CHANNEL.to_be_bytes() {
        let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        return Some((number_of(&bytes[4..4 + length]), true));
    }
    let message = Message::parse(bytes).unwrap();
    if message.method() != Method::DATA {
        return None;
    }
    assert_eq!(message.xor_peer_address(), Some(Ok(peers[1])));
    Some((number_of(&bytes[message.data().unwrap()]), false))
}

fn channel_data(data: &[u8]) -> Vec<u8> {
    let mut bytes = CHANNEL.to_be_bytes().to_vec();
    bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

fn success(answer: &[u8]) -> Message<'_> {
    let message = Message::parse(answer).unwrap();
    assert_eq!(code(&message), 0);
    message
}

fn code(message: &Message<'_>) -> u16 {
    message.error_code().map_or(0, |error| error.unwrap().0.0)
}
