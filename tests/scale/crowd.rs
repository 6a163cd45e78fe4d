//! Many clients at once, each somebody else: what they ask for is written by hand, and what comes back is read as far as
//! it matters here.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use turnd::stun::{Attribute, Class, Integrity, Key, Message, Method, TransactionId, Writer};

use crate::wire::PATIENCE;

/// A name and its password.
pub(crate) struct Credential {
    pub(crate) name: String,
    pub(crate) password: String,
}

impl Credential {
    pub(crate) fn key(&self, realm: &[u8]) -> Key {
        Key::md5(self.name.as_bytes(), realm, self.password.as_bytes())
    }

    /// Ends a request as this user.
    pub(crate) fn sign(&self, mut writer: Writer<'_>, key: &Key, (realm, nonce): (&[u8], &[u8])) {
        writer.bytes(Attribute::USERNAME, self.name.as_bytes());
        writer.bytes(Attribute::REALM, realm);
        writer.bytes(Attribute::NONCE, nonce);
        writer.finish_with_integrity(key, Integrity::Sha1);
    }
}

/// Clients at one address. Each has one request on its way at most.
pub(crate) struct Crowd {
    sockets: Vec<UdpSocket>,
    nonce: Vec<u8>,
    realm: Vec<u8>,
    next: u64,
}

/// What one client has been told.
struct Told {
    code: u16,
    relayed: Option<SocketAddr>,
}

impl Crowd {
    /// So many of them, with a nonce that is good for their address.
    pub(crate) fn at(ip: IpAddr, server: SocketAddr, size: usize) -> Self {
        let sockets = (0..size).map(|_| {
            let socket = UdpSocket::bind((ip, 0)).unwrap();
            socket.connect(server).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        });
        let mut crowd = Self {
            sockets: sockets.collect(),
            nonce: Vec::new(),
            realm: Vec::new(),
            next: 0,
        };
        crowd.greet();
        crowd
    }

    pub(crate) fn size(&self) -> usize {
        self.sockets.len()
    }

    fn greet(&mut self) {
        let mut bytes = Vec::new();
        let id = self.id();
        let mut writer = Writer::new(&mut bytes, Class::Request, Method::ALLOCATE, id);
        writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        writer.finish();
        self.sockets[0].send(&bytes).unwrap();
        let mut buffer = [0; 1024];
        let length = self.sockets[0].recv(&mut buffer).unwrap();
        let challenge = Message::parse(&buffer[..length]).unwrap();
        self.nonce = challenge.nonce().unwrap().unwrap().to_vec();
        self.realm = challenge.realm().unwrap().unwrap().to_vec();
    }

    /// Allocations for as many users as there are clients; where their relays are.
    pub(crate) fn allocate(&mut self, users: &[Credential]) -> Vec<SocketAddr> {
        let keys = self.keys(users);
        let told = self.ask(users, &keys, Method::ALLOCATE, udp, 0);
        told.into_iter().map(|told| told.relayed.unwrap()).collect()
    }

    /// A whole life of as many users as there are clients. Each is refused once for a wrong password, sends one packet to
    /// `peer`, and goes.
    pub(crate) fn live(&mut self, users: &[Credential], peer: &UdpSocket) {
        let keys = self.keys(users);
        let wrong = vec![Key::md5(b"", &self.realm, b"wrong"); users.len()];
        self.ask(users, &wrong, Method::ALLOCATE, udp, 401);
        self.ask(users, &keys, Method::ALLOCATE, udp, 0);
        let at = peer.local_addr().unwrap();
        let permit = |writer: &mut Writer<'_>| {
            writer.xor_address(Attribute::XOR_PEER_ADDRESS, at);
        };
        self.ask(users, &keys, Method::CREATE_PERMISSION, permit, 0);
        self.send(at);
        let mut buffer = [0; 16];
        for _ in users {
            let length = peer.recv(&mut buffer).expect("the packet of each");
            assert_eq!(length, DATA.len());
        }
        let end = |writer: &mut Writer<'_>| {
            writer.u32(Attribute::LIFETIME, 0);
        };
        self.ask(users, &keys, Method::REFRESH, end, 0);
    }

    fn keys(&self, users: &[Credential]) -> Vec<Key> {
        assert_eq!(users.len(), self.size());
        users.iter().map(|user| user.key(&self.realm)).collect()
    }

    fn id(&mut self) -> TransactionId {
        self.next += 1;
        let mut id = [0; 12];
        id[4..].copy_from_slice(&self.next.to_be_bytes());
        TransactionId(id)
    }

    /// Each asks as its user and is answered with this code.
    fn ask(
        &mut self,
        users: &[Credential],
        keys: &[Key],
        method: Method,
        put: impl Fn(&mut Writer<'_>),
        code: u16,
    ) -> Vec<Told> {
        let mut bytes = Vec::new();
        for (place, (user, key)) in users.iter().zip(keys).enumerate() {
            bytes.clear();
            let mut writer = Writer::new(&mut bytes, Class::Request, method, self.id());
            put(&mut writer);
            user.sign(writer, key, (&self.realm, &self.nonce));
            self.sockets[place].send(&bytes).unwrap();
        }
        let mut told = Vec::with_capacity(users.len());
        let mut buffer = [0; 1024];
        for (socket, user) in self.sockets.iter().zip(users) {
            let length = socket.recv(&mut buffer).expect("an answer in time");
            let answer = Message::parse(&buffer[..length]).unwrap();
            let answer = Told {
                code: answer.error_code().map_or(0, |error| error.unwrap().0.0),
                relayed: answer.xor_relayed_address().map(Result::unwrap),
            };
            assert_eq!(answer.code, code, "{method:?} of {}", user.name);
            told.push(answer);
        }
        told
    }

    /// One packet of each to a peer.
    fn send(&mut self, peer: SocketAddr) {
        let mut bytes = Vec::new();
        for place in 0..self.size() {
            bytes.clear();
            let id = self.id();
            let mut writer = Writer::new(&mut bytes, Class::Indication, Method::SEND, id);
            writer.xor_address(Attribute::XOR_PEER_ADDRESS, peer);
            writer.bytes(Attribute::DATA, DATA);
            writer.finish();
            self.sockets[place].send(&bytes).unwrap();
        }
    }
}

/// What is sent.
pub(crate) const DATA: &[u8] = b"hello";

/// What is asked for.
pub(crate) fn udp(writer: &mut Writer<'_>) {
    writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
}
