//! What the tests of the machine share: a clock that is set by hand, relays that are only a table, and a client that
//! writes its own requests and checks every answer for what must hold of all of them.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    dead_code,
    unreachable_pub,
    reason = "each test file is a crate of its own, and uses its part"
)]

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use turnd::stun::{
    Attribute, Class, Icmp, Integrity, Key, Message, Method, PasswordAlgorithm, TransactionId,
    Writer,
};
use turnd::turn::{
    Addressee, Carried, Cause, Claimant, Client, ConnectionId, Event, Families, Family, FiveTuple,
    NoCapacity, NonceKey, Now, Path, Peers, Quotas, Reach, Relay, RelayId, RelayProtocol, Relays,
    Reply, ReservationToken, SecretAlgorithm, Server, Settings, SharedSecret, TicketKey, Transport,
    Users, Verdict, Want, WantedPort, WorkerId,
};

pub const SERVER_V4: &str = "203.0.113.1:3478";
pub const SERVER_V6: &str = "[2001:db8:1::1]:3478";
pub const PEER: &str = "52.1.2.3:4000";
pub const PEER_V6: &str = "[2600:1::1]:4000";
pub const UNIX: u64 = 1_800_000_000;

pub fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Settings with the static users ann and bob (passwords `ann-pw`, `bob-pw`) and the shared secret `north`.
pub fn settings() -> Settings {
    let mut settings = Settings::new(NonceKey([7; 32]).into());
    settings.users = users();
    settings
}

pub fn users() -> Users {
    let mut users = Users::new("turnd");
    users.add_user("ann", "ann-pw");
    users.add_user("bob", "bob-pw");
    users.add_secret(north()).unwrap();
    users
}

pub fn north() -> SharedSecret {
    SharedSecret::new("north", b"north", SecretAlgorithm::Sha1)
}

pub fn peers(allow: &[&str], deny: &[&str]) -> Peers {
    let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Peers {
        allow: parse(allow),
        deny: parse(deny),
    }
}

/// A machine, its relays and its time.
pub struct Turn {
    pub server: Server,
    pub relays: FakeRelays,
    pub now: Now,
    pub quotas: Arc<Quotas>,
    ids: u64,
}

impl Turn {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        let now = start();
        let quotas = Arc::new(Quotas::new());
        Self {
            server: Server::new(Arc::new(settings), Arc::clone(&quotas), [3; 32], now),
            relays: FakeRelays::default(),
            now,
            quotas,
            ids: 0,
        }
    }

    /// The machine of another worker of the same process.
    pub fn beside(&self, worker: u16, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        let quotas = Arc::clone(&self.quotas);
        let server = Server::new(Arc::new(settings), Arc::clone(&quotas), [4; 32], self.now);
        Self {
            server: server.among(WorkerId(worker), &TicketKey([9; 32])),
            relays: FakeRelays::default(),
            now: self.now,
            quotas,
            ids: 0,
        }
    }

    /// Puts the default settings, changed, into force.
    pub fn reload(&mut self, change: impl FnOnce(&mut Settings)) {
        let mut settings = settings();
        change(&mut settings);
        self.server
            .replace_settings(self.now, Arc::new(settings), &mut self.relays);
    }

    /// Lets time pass without a call of `handle_timeout`.
    pub fn pass(&mut self, duration: Duration) {
        self.now.instant += duration;
        self.now.unix += duration.as_secs();
    }

    /// Lets time pass, with the timeouts that come due in it at their time.
    pub fn wait(&mut self, duration: Duration) {
        let end = self.now.instant + duration;
        while let Some(at) = self.server.poll_timeout().filter(|&at| at <= end) {
            let step = at.saturating_duration_since(self.now.instant);
            self.pass(step);
            self.server.handle_timeout(self.now, &mut self.relays);
        }
        self.pass(end - self.now.instant);
    }

    /// Takes in anything from a client.
    pub fn input(&mut self, from: Client, bytes: &[u8]) -> (Verdict, Vec<u8>) {
        // What stands in the buffer before must stay.
        let mut reply = vec![0xA5; 3];
        let verdict = self
            .server
            .client_input(self.now, from, bytes, &mut self.relays, &mut reply);
        assert_eq!(reply[..3], [0xA5; 3]);
        let reply = reply.split_off(3);
        assert_eq!(
            matches!(verdict, Verdict::Reply(_)),
            !reply.is_empty(),
            "{verdict:?} with {} bytes",
            reply.len()
        );
        (verdict, reply)
    }

    /// Takes in what must not be answered.
    pub fn silent(&mut self, from: Client, bytes: &[u8]) -> Cause {
        match self.input(from, bytes).0 {
            Verdict::Drop(cause) => cause,
            other => panic!("not silent: {other:?}"),
        }
    }

    /// Takes in what must be answered.
    pub fn answered(&mut self, from: Client, bytes: &[u8]) -> Answer {
        let (verdict, reply) = self.input(from, bytes);
        let Verdict::Reply(told) = verdict else {
            panic!("not answered: {verdict:?}");
        };
        Answer::check(from, bytes, told, reply)
    }

    /// Takes in what must go to a peer: from which relay, where to, and what.
    pub fn forwarded(&mut self, from: Client, bytes: &[u8]) -> (RelayId, SocketAddr, Vec<u8>) {
        match self.input(from, bytes).0 {
            Verdict::ToPeer {
                relay, peer, body, ..
            } => (relay, peer, bytes[body].to_vec()),
            other => panic!("not forwarded: {other:?}"),
        }
    }

    /// A datagram from a peer; what the client is sent, all in one.
    pub fn peer_sends(
        &mut self,
        relay: RelayId,
        peer: &str,
        data: &[u8],
    ) -> Result<Vec<u8>, Cause> {
        let verdict = self
            .server
            .peer_input(self.now, relay, address(peer), data.len());
        match verdict {
            Verdict::ToClient {
                head, body, pad, ..
            } => {
                assert_eq!(body, 0..data.len());
                let mut bytes = head.as_slice().to_vec();
                bytes.extend_from_slice(&data[body]);
                bytes.resize(bytes.len() + pad, 0);
                Ok(bytes)
            }
            Verdict::Drop(cause) => Err(cause),
            other => panic!("{other:?}"),
        }
    }

    /// An ICMP error about what was sent to a peer; what the client is told, and which client.
    pub fn icmp(
        &mut self,
        relay: RelayId,
        peer: &str,
        (kind, code, data): (u8, u8, u32),
    ) -> Result<(Client, Vec<u8>), Cause> {
        let icmp = Icmp { kind, code, data };
        let mut reply = vec![0xA5; 3];
        let told = self
            .server
            .peer_error(self.now, relay, address(peer), icmp, &mut reply);
        assert_eq!(reply[..3], [0xA5; 3]);
        assert_eq!(told.is_err(), reply.len() == 3);
        told.map(|client| (client, reply.split_off(3)))
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.server.poll_event()).collect()
    }

    pub fn id(&mut self) -> TransactionId {
        self.ids += 1;
        let mut id = [0x55; 12];
        id[..8].copy_from_slice(&self.ids.to_be_bytes());
        TransactionId(id)
    }
}

/// One moment, of both clocks.
pub fn start() -> Now {
    #[expect(
        clippy::disallowed_methods,
        reason = "an instant can only be had from the clock"
    )]
    let instant = Instant::now();
    Now {
        instant,
        unix: UNIX,
    }
}

/// An answer that has passed the checks that hold for all.
pub struct Answer {
    pub told: Reply,
    pub bytes: Vec<u8>,
}

impl Answer {
    fn check(from: Client, question: &[u8], told: Reply, bytes: Vec<u8>) -> Self {
        let asked = Message::parse(question).unwrap();
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.method(), asked.method());
        assert_eq!(message.transaction_id(), asked.transaction_id());
        let code = match message.class() {
            Class::Success => 0,
            Class::Error => message.error_code().unwrap().unwrap().0.0,
            other => panic!("an answer of class {other:?}"),
        };
        assert_eq!(
            (told.to, told.method, told.code),
            (from, asked.method(), code)
        );
        assert_eq!(told.authenticated, message.has_integrity(), "code {code}");
        assert!(
            message
                .attributes()
                .all(|(attribute, _)| attribute.is_known()),
            "answers hold nothing that must be understood and is not"
        );
        assert!(!message.has_fingerprint());
        assert!(bytes.len() <= 548, "{} bytes", bytes.len());
        Self { told, bytes }
    }

    pub fn code(&self) -> u16 {
        self.told.code
    }

    pub fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).unwrap()
    }

    pub fn has(&self, attribute: Attribute) -> bool {
        self.message().get(attribute).is_some()
    }

    pub fn lifetime(&self) -> u32 {
        self.message().lifetime().unwrap().unwrap()
    }

    pub fn relayed(&self) -> SocketAddr {
        self.message().xor_relayed_address().unwrap().unwrap()
    }

    pub fn nonce(&self) -> Vec<u8> {
        self.message().nonce().unwrap().unwrap().to_vec()
    }
}

/// A client: an address, and the credentials it signs with.
#[derive(Clone, Debug)]
pub struct User {
    pub client: Client,
    pub name: Vec<u8>,
    pub password: Vec<u8>,
    pub realm: String,
    pub nonce: Vec<u8>,
    /// The algorithm it names in PASSWORD-ALGORITHM, if it does.
    pub algorithm: Option<PasswordAlgorithm>,
}

/// A client's way to the server.
pub fn client(text: &str, transport: Transport) -> Client {
    let client = address(text);
    let server = match client.ip() {
        IpAddr::V4(_) => address(SERVER_V4),
        IpAddr::V6(_) => address(SERVER_V6),
    };
    Client {
        five_tuple: FiveTuple {
            transport,
            client,
            server,
        },
        path: Path(client.port().into()),
    }
}

/// A client over UDP.
pub fn udp(text: &str) -> Client {
    client(text, Transport::Udp)
}

/// Ann at 198.51.100.1, over UDP.
pub fn ann() -> User {
    User::new("ann", "ann-pw", udp("198.51.100.1:1000"))
}

/// Bob at 198.51.100.2, over UDP.
pub fn bob() -> User {
    User::new("bob", "bob-pw", udp("198.51.100.2:2000"))
}

/// A user whom the secret `north` vouches for until `expiry`.
pub fn vouched(name: &str, expiry: u64, client: Client) -> User {
    let name = format!("{expiry}:{name}");
    let password = north().password(name.as_bytes());
    User::new(&name, &password, client)
}

impl User {
    pub fn new(name: &str, password: &str, client: Client) -> Self {
        Self {
            client,
            name: name.into(),
            password: password.into(),
            realm: "turnd".into(),
            nonce: Vec::new(),
            algorithm: None,
        }
    }

    pub fn at(&self, client: Client) -> Self {
        Self {
            client,
            nonce: Vec::new(),
            ..self.clone()
        }
    }

    pub fn key(&self) -> Key {
        match self.algorithm {
            Some(PasswordAlgorithm::Sha256) => {
                Key::sha256(&self.name, self.realm.as_bytes(), &self.password)
            }
            Some(PasswordAlgorithm::Md5) | None => {
                Key::md5(&self.name, self.realm.as_bytes(), &self.password)
            }
        }
    }

    pub fn integrity(&self) -> Integrity {
        match self.algorithm {
            Some(_) => Integrity::Sha256,
            None => Integrity::Sha1,
        }
    }

    /// Gets a nonce, as every client does first.
    pub fn greet(&mut self, turn: &mut Turn) -> Answer {
        let request = request(turn.id(), Method::ALLOCATE, |writer| {
            writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        });
        let answer = turn.answered(self.client, &request);
        assert_eq!(answer.code(), 401);
        self.nonce = answer.nonce();
        answer
    }

    /// A signed request, its credentials behind what `put` writes.
    pub fn signed(
        &self,
        id: TransactionId,
        method: Method,
        put: impl FnOnce(&mut Writer<'_>),
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, Class::Request, method, id);
        put(&mut writer);
        self.put_credentials(&mut writer);
        writer.finish_with_integrity(&self.key(), self.integrity());
        bytes
    }

    pub fn put_credentials(&self, writer: &mut Writer<'_>) {
        writer
            .bytes(Attribute::USERNAME, &self.name)
            .bytes(Attribute::REALM, self.realm.as_bytes())
            .bytes(Attribute::NONCE, &self.nonce);
        if let Some(algorithm) = self.algorithm {
            let offered = [PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5];
            let offered = PasswordAlgorithm::list(&offered);
            writer
                .bytes(Attribute::PASSWORD_ALGORITHMS, &offered)
                .password_algorithm(algorithm);
        }
    }

    /// Sends a signed request. An authenticated answer must be signed with the same key.
    pub fn ask(
        &mut self,
        turn: &mut Turn,
        method: Method,
        put: impl FnOnce(&mut Writer<'_>),
    ) -> Answer {
        if self.nonce.is_empty() {
            self.greet(turn);
        }
        let request = self.signed(turn.id(), method, put);
        self.ask_bytes(turn, &request)
    }

    /// Sends a request that is written already.
    pub fn ask_bytes(&self, turn: &mut Turn, request: &[u8]) -> Answer {
        let answer = turn.answered(self.client, request);
        if answer.told.authenticated {
            let message = answer.message();
            assert!(
                message.verify(&self.key()),
                "the answer is not signed right"
            );
            let sha256 = message.has_sha256_integrity();
            assert_eq!(sha256, self.integrity() == Integrity::Sha256);
        }
        answer
    }

    pub fn allocate(&mut self, turn: &mut Turn) -> Answer {
        self.allocate_with(turn, |_| {})
    }

    pub fn allocate_with(&mut self, turn: &mut Turn, put: impl FnOnce(&mut Writer<'_>)) -> Answer {
        self.ask(turn, Method::ALLOCATE, |writer| {
            writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
            put(writer);
        })
    }

    /// Allocates, and tells which relay it was given.
    pub fn relay(&mut self, turn: &mut Turn) -> RelayId {
        let answer = self.allocate(turn);
        assert_eq!(answer.code(), 0);
        turn.relays.at(answer.relayed()).unwrap()
    }

    pub fn refresh(&mut self, turn: &mut Turn, lifetime: Option<u32>) -> Answer {
        self.ask(turn, Method::REFRESH, |writer| {
            if let Some(lifetime) = lifetime {
                writer.u32(Attribute::LIFETIME, lifetime);
            }
        })
    }

    pub fn permit(&mut self, turn: &mut Turn, peers: &[&str]) -> u16 {
        self.ask(turn, Method::CREATE_PERMISSION, |writer| {
            for peer in peers {
                writer.xor_address(Attribute::XOR_PEER_ADDRESS, address(peer));
            }
        })
        .code()
    }

    pub fn bind(&mut self, turn: &mut Turn, channel: u16, peer: &str) -> u16 {
        self.ask(turn, Method::CHANNEL_BIND, |writer| {
            writer
                .u16(Attribute::CHANNEL_NUMBER, channel)
                .xor_address(Attribute::XOR_PEER_ADDRESS, address(peer));
        })
        .code()
    }

    /// Sends `data` in a Send indication: does it go to the peer?
    pub fn send(&self, turn: &mut Turn, peer: &str, data: &[u8]) -> Result<(), Cause> {
        let bytes = send_indication(turn.id(), peer, data);
        self.check_forwarded(turn, &bytes, peer, data)
    }

    /// Sends `data` in a channel: does it go to `peer`?
    pub fn channel(
        &self,
        turn: &mut Turn,
        channel: u16,
        peer: &str,
        data: &[u8],
    ) -> Result<(), Cause> {
        self.check_forwarded(turn, &channel_data(channel, data), peer, data)
    }

    fn check_forwarded(
        &self,
        turn: &mut Turn,
        bytes: &[u8],
        expected: &str,
        data: &[u8],
    ) -> Result<(), Cause> {
        match turn.input(self.client, bytes).0 {
            Verdict::ToPeer { peer, body, .. } => {
                assert_eq!(peer, address(expected));
                assert_eq!(&bytes[body], data);
                Ok(())
            }
            Verdict::Drop(cause) => Err(cause),
            other => panic!("{other:?}"),
        }
    }
}

/// A request without credentials.
pub fn request(id: TransactionId, method: Method, put: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    message(id, Class::Request, method, put)
}

pub fn message(
    id: TransactionId,
    class: Class,
    method: Method,
    put: impl FnOnce(&mut Writer<'_>),
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, class, method, id);
    put(&mut writer);
    writer.finish();
    bytes
}

pub fn send_indication(id: TransactionId, peer: &str, data: &[u8]) -> Vec<u8> {
    message(id, Class::Indication, Method::SEND, |writer| {
        writer
            .xor_address(Attribute::XOR_PEER_ADDRESS, address(peer))
            .bytes(Attribute::DATA, data);
    })
}

/// Written out by hand, and not by the code under test.
pub fn channel_data(channel: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = channel.to_be_bytes().to_vec();
    bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// What a client makes of a Data indication: who sent what.
pub fn data_indication(bytes: &[u8]) -> (SocketAddr, Vec<u8>) {
    let message = Message::parse(bytes).unwrap();
    assert_eq!(
        (message.class(), message.method()),
        (Class::Indication, Method::DATA)
    );
    assert!(!message.has_integrity());
    let data: Range<usize> = message.data().unwrap();
    let peer = message.xor_peer_address().unwrap().unwrap();
    (peer, bytes[data].to_vec())
}

/// Relays that are only a table. Ports count up from 50000; every address of `own` is the server's.
pub struct FakeRelays {
    pub open: BTreeMap<RelayId, SocketAddr>,
    pub families: Families,
    pub capacity: usize,
    pub own: Vec<IpAddr>,
    /// Held ports: the token, its owner, the address, and until when.
    held: Vec<(ReservationToken, u64, SocketAddr, Instant)>,
    /// Where relays are: one address of each family.
    pub addresses: [IpAddr; 2],
    /// A family that cannot be opened at the moment.
    pub exhausted: Option<Family>,
    port: u16,
    /// TCP relays.
    pub listening: BTreeSet<RelayId>,
    /// Peer connections that were offered and are open: for whom, until they are claimed, and what they carried.
    pub connections: BTreeMap<ConnectionId, (Option<Addressee>, Carried)>,
    /// Names of peer connections that were closed, or were no longer to be connected.
    pub closed: Vec<ConnectionId>,
}

impl Default for FakeRelays {
    fn default() -> Self {
        let addresses = [address(SERVER_V4).ip(), address(SERVER_V6).ip()];
        Self {
            open: BTreeMap::new(),
            families: Families { v4: true, v6: true },
            capacity: usize::MAX,
            own: addresses.to_vec(),
            held: Vec::new(),
            addresses,
            exhausted: None,
            port: 50_000,
            listening: BTreeSet::new(),
            connections: BTreeMap::new(),
            closed: Vec::new(),
        }
    }
}

impl FakeRelays {
    pub fn at(&self, address: SocketAddr) -> Option<RelayId> {
        self.open
            .iter()
            .find(|(_, open)| **open == address)
            .map(|(id, _)| *id)
    }

    fn add(&mut self, address: SocketAddr, reserved: Option<ReservationToken>) -> Relay {
        let id = (0..)
            .map(RelayId)
            .find(|id| !self.open.contains_key(id))
            .unwrap();
        self.open.insert(id, address);
        Relay {
            id,
            address,
            reserved,
        }
    }
}

impl Relays for FakeRelays {
    fn open(&mut self, want: Want) -> Result<Relay, NoCapacity> {
        if self.open.len() >= self.capacity || self.exhausted == Some(want.family) {
            return Err(NoCapacity);
        }
        if let WantedPort::Reserved { token, owner } = want.port {
            let place = self
                .held
                .iter()
                .position(|held| held.0 == token && held.1 == owner && held.3 > want.now.instant)
                .ok_or(NoCapacity)?;
            let (_, _, address, _) = self.held.remove(place);
            return Ok(self.add(address, None));
        }
        if !self.families.has(want.family) {
            return Err(NoCapacity);
        }
        if want.port != WantedPort::Any {
            self.port += self.port % 2;
        }
        let ip = self.addresses[want.family.index()];
        let address = SocketAddr::new(ip, self.port);
        self.port = self.port.checked_add(1).unwrap_or(50_000);
        if want.protocol == RelayProtocol::Tcp {
            assert_eq!(want.port, WantedPort::Any);
            let relay = self.add(address, None);
            self.listening.insert(relay.id);
            return Ok(relay);
        }
        let WantedPort::EvenAndNext { owner, .. } = want.port else {
            return Ok(self.add(address, None));
        };
        let token = ReservationToken(u64::from(self.port).to_be_bytes());
        let next = SocketAddr::new(ip, self.port);
        self.held
            .push((token, owner, next, want.now.instant + seconds(30)));
        self.port += 1;
        Ok(self.add(address, Some(token)))
    }

    fn close(&mut self, relay: RelayId) {
        assert!(self.open.remove(&relay).is_some(), "{relay:?} is not open");
        self.listening.remove(&relay);
    }

    fn reach(&self, address: SocketAddr) -> Reach {
        if self.at(address).is_some() {
            Reach::LiveRelay
        } else if self.own.contains(&address.ip()) {
            Reach::Own
        } else {
            Reach::Outside
        }
    }

    fn families(&self) -> Families {
        self.families
    }

    fn offer(&mut self, id: ConnectionId, offer: Addressee) -> bool {
        assert!(self.listening.contains(&offer.relay));
        match self.connections.entry(id) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert((Some(offer), Carried::default()));
                true
            }
        }
    }

    fn claim(&mut self, id: ConnectionId, claimant: Claimant) -> bool {
        let Some((offer, _)) = self.connections.get_mut(&id) else {
            return false;
        };
        let fits = offer.as_ref().is_some_and(|offer| {
            offer.owner == claimant.owner
                && offer.client.five_tuple.client.ip() == claimant.client
                && offer.expires > claimant.now
        });
        if fits {
            *offer = None;
        }
        fits
    }

    fn is_connected(&self, id: ConnectionId) -> bool {
        self.connections.contains_key(&id)
    }

    fn disconnect(&mut self, id: ConnectionId) -> Carried {
        self.closed.push(id);
        self.connections
            .remove(&id)
            .map(|(_, carried)| carried)
            .unwrap_or_default()
    }
}
