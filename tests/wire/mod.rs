//! A TURN client over real sockets, blocking and plain, and a plane to talk to.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

pub(crate) mod dtls;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use turnd::plane::{self, Adopted, Carry, Handle, Listen, RelayAddress, RelayRange};
use turnd::stun::framing::{Frame, next_frame};
use turnd::stun::{Attribute, Class, Integrity, Key, Message, Method, TransactionId, Writer};
use turnd::turn::{Holder, NonceKey, NonceKeys, Settings, Transport};

pub(crate) const USER: &str = "alice";
pub(crate) const PASSWORD: &str = "a long and winding password";
/// Long enough for a busy machine, short enough to end a broken test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long silence is listened to before it counts as silence.
const SILENCE: Duration = Duration::from_millis(300);

/// A plane on the loopback interface.
pub(crate) struct Plane {
    pub(crate) handle: Handle,
    pub(crate) udp: SocketAddr,
    pub(crate) tcp: SocketAddr,
}

impl Plane {
    /// A plane with relays on `relay`.
    pub(crate) fn start(workers: usize, relay: RelayAddress) -> Self {
        Self::start_with(workers, vec![relay], |_| {})
    }

    pub(crate) fn start_with(
        workers: usize,
        addresses: Vec<RelayAddress>,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        Self::start_as(workers, addresses, change, |_| {})
    }

    /// The same, with other settings of the plane as well.
    pub(crate) fn start_as(
        workers: usize,
        addresses: Vec<RelayAddress>,
        change: impl FnOnce(&mut Settings),
        change_plane: impl FnOnce(&mut plane::Settings),
    ) -> Self {
        let ip = addresses[0].local;
        let mut settings = Settings::new(NonceKeys::from(NonceKey([7; 32])));
        settings.users.add_user(USER, PASSWORD);
        settings.limits.per_user = 10_000;
        settings.limits.per_client = 10_000;
        settings.limits.unauthenticated_replies = 0;
        settings.peers.allow = vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        change(&mut settings);
        let udp = free_port(ip);
        let listeners = vec![
            Listen::new(udp, Transport::Udp),
            Listen::new(udp, Transport::Tcp),
        ];
        let relay = RelayRange {
            addresses,
            ports: relay_ports(),
        };
        let mut settings_of_plane = plane::Settings {
            workers,
            listeners,
            relay,
            carry: Carry::default(),
            streams_per_worker: 1000,
        };
        change_plane(&mut settings_of_plane);
        let handle = plane::start(
            settings_of_plane,
            Arc::new(settings),
            None,
            &Adopted::default(),
        )
        .unwrap();
        Self {
            handle,
            udp,
            tcp: udp,
        }
    }

    pub(crate) fn snapshot(&self) -> turnd::metrics::Snapshot {
        wait(self.handle.snapshot())
    }
}

/// A worker that does nothing.
pub(crate) struct Hold {
    go_on: Sender<()>,
    asked: JoinHandle<bool>,
}

impl Plane {
    /// Keeps the only worker, which must have a session, from whatever else it has to do.
    pub(crate) fn hold(&self) -> Hold {
        let (inside, entered) = channel();
        let (go_on, may_go_on) = channel();
        let may_go_on = Mutex::new(may_go_on);
        // Who chooses sessions does so in the worker's thread.
        let which = move |_: &Holder<'_>| {
            let _ = inside.send(());
            may_go_on.lock().unwrap().recv().is_ok()
        };
        let handle = self.handle.clone();
        let asked = thread::spawn(move || wait(handle.each_session(which, |_| true)));
        entered.recv().unwrap();
        Hold { go_on, asked }
    }
}

impl Hold {
    /// Lets it go on. Tells whether it was held for so short a time that nobody has noticed.
    pub(crate) fn release(self) -> bool {
        drop(self.go_on);
        self.asked.join().unwrap()
    }
}

/// What a future brings.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(future)
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

/// The loopback address, plain.
pub(crate) fn loopback() -> RelayAddress {
    RelayAddress {
        local: ip("127.0.0.1"),
        advertised: ip("127.0.0.1"),
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Planes of one process get ranges of their own, so that tests can run side by side.
fn relay_ports() -> std::ops::RangeInclusive<u16> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = (u64::from(std::process::id()) + NEXT.fetch_add(1, Ordering::Relaxed)) % 40;
    let first = 20_000 + number as u16 * 300;
    first..=first + 299
}

/// An address that was free a moment ago, for both UDP and TCP.
fn free_port(ip: IpAddr) -> SocketAddr {
    let tcp = std::net::TcpListener::bind((ip, 0)).unwrap();
    tcp.local_addr().unwrap()
}

/// The way to the server.
pub(crate) enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream, Vec<u8>),
    Dtls(Box<dtls::Association>),
    /// Something that a stream carries, TLS as a rule, and the stream itself.
    Over(Box<dyn Duplex>, TcpStream, Vec<u8>),
}

/// Both ways of a stream.
pub(crate) trait Duplex: Read + Write + Send {}

impl<T: Read + Write + Send> Duplex for T {}

/// A client with credentials.
pub(crate) struct Client {
    pub(crate) link: Link,
    pub(crate) relayed: Option<SocketAddr>,
    nonce: Vec<u8>,
    realm: Vec<u8>,
    name: String,
    key: Key,
    next_id: u64,
}

impl Client {
    pub(crate) fn udp(server: SocketAddr) -> Self {
        let local = SocketAddr::new(server.ip(), 0);
        let socket = UdpSocket::bind(local).unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::new(Link::Udp(socket))
    }

    pub(crate) fn tcp(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::new(Link::Tcp(stream, Vec::new()))
    }

    pub(crate) fn dtls(server: SocketAddr) -> Self {
        let association = dtls::Association::connect(server);
        Self::new(Link::Dtls(Box::new(association)))
    }

    /// A client on a stream that exists already.
    pub(crate) fn on(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::new(Link::Tcp(stream, Vec::new()))
    }

    /// A client on what `stream` carries.
    pub(crate) fn over(carried: impl Duplex + 'static, stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::new(Link::Over(Box::new(carried), stream, Vec::new()))
    }

    pub(crate) fn new(link: Link) -> Self {
        let key = Key::md5(USER.as_bytes(), b"turnd", PASSWORD.as_bytes());
        Self {
            link,
            relayed: None,
            nonce: Vec::new(),
            realm: Vec::new(),
            name: USER.to_owned(),
            key,
            next_id: 1,
        }
    }

    /// The same client as another user, with the same password.
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.key = Key::md5(name.as_bytes(), b"turnd", PASSWORD.as_bytes());
        self.name = name.to_owned();
        self
    }

    /// The same client with other credentials.
    pub(crate) fn with_credentials(mut self, name: &str, password: &str) -> Self {
        self.key = Key::md5(name.as_bytes(), b"turnd", password.as_bytes());
        self.name = name.to_owned();
        self
    }

    /// An allocation with nothing special about it; its relayed address.
    pub(crate) fn allocate(&mut self) -> SocketAddr {
        let answer = self.request(Method::ALLOCATE, |writer| {
            writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        });
        let answer = answer.success();
        let relayed = answer.xor_relayed_address().unwrap().unwrap();
        self.relayed = Some(relayed);
        relayed
    }

    pub(crate) fn permit(&mut self, peer: SocketAddr) -> Answer {
        self.request(Method::CREATE_PERMISSION, |writer| {
            writer.xor_address(Attribute::XOR_PEER_ADDRESS, peer);
        })
    }

    pub(crate) fn bind(&mut self, channel: u16, peer: SocketAddr) -> Answer {
        self.request(Method::CHANNEL_BIND, |writer| {
            writer.u16(Attribute::CHANNEL_NUMBER, channel);
            writer.xor_address(Attribute::XOR_PEER_ADDRESS, peer);
        })
    }

    /// An authenticated request, after a challenge if there was none yet.
    pub(crate) fn request(
        &mut self,
        method: Method,
        attributes: impl Fn(&mut Writer<'_>),
    ) -> Answer {
        if self.nonce.is_empty() {
            let bytes = self.build(method, &attributes, false);
            self.send(&bytes);
            let challenge = Answer(self.receive());
            let message = challenge.message();
            self.nonce = message.nonce().unwrap().unwrap().to_vec();
            self.realm = message.realm().unwrap().unwrap().to_vec();
        }
        let bytes = self.build(method, &attributes, true);
        self.send(&bytes);
        Answer(self.receive())
    }

    pub(crate) fn build(
        &mut self,
        method: Method,
        attributes: impl Fn(&mut Writer<'_>),
        signed: bool,
    ) -> Vec<u8> {
        let mut id = [0; 12];
        id[4..].copy_from_slice(&self.next_id.to_be_bytes());
        self.next_id += 1;
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, Class::Request, method, TransactionId(id));
        attributes(&mut writer);
        if signed {
            writer.bytes(Attribute::USERNAME, self.name.as_bytes());
            writer.bytes(Attribute::REALM, &self.realm);
            writer.bytes(Attribute::NONCE, &self.nonce);
            writer.finish_with_integrity(&self.key, Integrity::Sha1);
        } else {
            writer.finish();
        }
        bytes
    }

    pub(crate) fn send_channel(&mut self, channel: u16, data: &[u8]) {
        self.send(&channel_data(
            channel,
            data,
            !matches!(self.link, Link::Udp(_) | Link::Dtls(_)),
        ));
    }

    pub(crate) fn send_indication(&mut self, peer: SocketAddr, data: &[u8]) {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(
            &mut bytes,
            Class::Indication,
            Method::SEND,
            TransactionId([9; 12]),
        );
        writer.xor_address(Attribute::XOR_PEER_ADDRESS, peer);
        writer.bytes(Attribute::DATA, data);
        writer.finish();
        self.send(&bytes);
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        match &mut self.link {
            Link::Udp(socket) => assert_eq!(socket.send(bytes).unwrap(), bytes.len()),
            Link::Tcp(stream, _) => stream.write_all(bytes).unwrap(),
            Link::Dtls(association) => association.send(bytes),
            Link::Over(carried, ..) => {
                carried.write_all(bytes).unwrap();
                carried.flush().unwrap();
            }
        }
    }

    /// The next message from the server, whatever it is.
    pub(crate) fn receive(&mut self) -> Vec<u8> {
        self.try_receive()
            .expect("the server says something in time")
    }

    /// The next ChannelData message: channel and data.
    pub(crate) fn receive_channel(&mut self) -> (u16, Vec<u8>) {
        let bytes = self.receive();
        assert!(
            (64..80).contains(&bytes[0]),
            "not ChannelData: {bytes:02x?}"
        );
        let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        (
            u16::from_be_bytes([bytes[0], bytes[1]]),
            bytes[4..4 + length].to_vec(),
        )
    }

    /// The next Data indication: peer and data.
    pub(crate) fn receive_data(&mut self) -> (SocketAddr, Vec<u8>) {
        let bytes = self.receive();
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(
            (message.method(), message.class()),
            (Method::DATA, Class::Indication)
        );
        (
            message.xor_peer_address().unwrap().unwrap(),
            bytes[message.data().unwrap()].to_vec(),
        )
    }

    /// Asserts that nothing comes.
    pub(crate) fn hears_nothing(&mut self) {
        self.set_timeout(SILENCE);
        if let Some(bytes) = self.try_receive() {
            panic!("silence expected, got {bytes:02x?}");
        }
        self.set_timeout(PATIENCE);
    }

    pub(crate) fn set_timeout(&mut self, timeout: Duration) {
        match &mut self.link {
            Link::Udp(socket) => socket.set_read_timeout(Some(timeout)).unwrap(),
            Link::Tcp(stream, _) | Link::Over(_, stream, _) => {
                stream.set_read_timeout(Some(timeout)).unwrap();
            }
            Link::Dtls(association) => association.set_timeout(timeout),
        }
    }

    pub(crate) fn try_receive(&mut self) -> Option<Vec<u8>> {
        match &mut self.link {
            Link::Dtls(association) => association.try_receive(),
            Link::Udp(socket) => {
                let mut buffer = vec![0; 65_536];
                let length = socket.recv(&mut buffer).ok()?;
                buffer.truncate(length);
                Some(buffer)
            }
            Link::Tcp(stream, buffer) => next_message(stream, buffer),
            Link::Over(carried, _, buffer) => next_message(carried, buffer),
        }
    }
}

/// The next message of a stream; what follows it stays in `buffer`.
fn next_message(stream: &mut impl Read, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Frame::Whole { frame, message } = next_frame(buffer) {
            let mut whole: Vec<u8> = buffer.drain(..frame).collect();
            whole.truncate(message);
            return Some(whole);
        }
        let mut more = [0; 4096];
        match stream.read(&mut more) {
            Ok(length @ 1..) => buffer.extend_from_slice(&more[..length]),
            Ok(0) | Err(_) => return None,
        }
    }
}

/// A ChannelData message as a client writes it.
pub(crate) fn channel_data(channel: u16, data: &[u8], padded: bool) -> Vec<u8> {
    let mut bytes = channel.to_be_bytes().to_vec();
    bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
    bytes.extend_from_slice(data);
    if padded {
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// What the server answered.
pub(crate) struct Answer(pub(crate) Vec<u8>);

impl Answer {
    pub(crate) fn message(&self) -> Message<'_> {
        Message::parse(&self.0).unwrap()
    }

    /// The message, which must be a success.
    pub(crate) fn success(&self) -> Message<'_> {
        let message = self.message();
        assert_eq!(message.class(), Class::Success, "code {}", self.code());
        message
    }

    /// The error code, 0 for success.
    pub(crate) fn code(&self) -> u16 {
        self.message()
            .error_code()
            .map_or(0, |error| error.unwrap().0.0)
    }
}

/// A peer: a plain socket on an address that is not the server's.
pub(crate) fn peer(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind((ip(address), 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

pub(crate) fn receive_from(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (length, from) = socket
        .recv_from(&mut buffer)
        .expect("the peer hears something in time");
    buffer.truncate(length);
    (buffer, from)
}
