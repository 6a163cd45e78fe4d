//! A small STUN and TURN client of the benchmark's own: what it sends and how it reads the answers.
//!
//! Written by hand, and independent of the server's codec, so that both would have to be wrong in the same way.

use std::net::{Ipv4Addr, SocketAddrV4};

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;

pub(crate) const COOKIE: u32 = 0x2112_a442;

pub(crate) const BINDING: u16 = 0x0001;
pub(crate) const ALLOCATE: u16 = 0x0003;
pub(crate) const REFRESH: u16 = 0x0004;
pub(crate) const CREATE_PERMISSION: u16 = 0x0008;
pub(crate) const CHANNEL_BIND: u16 = 0x0009;
pub(crate) const SEND_INDICATION: u16 = 0x0016;
pub(crate) const DATA_INDICATION: u16 = 0x0017;

/// Added to a method for its success response.
pub(crate) const SUCCESS: u16 = 0x0100;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const CHANNEL_NUMBER: u16 = 0x000c;
const LIFETIME: u16 = 0x000d;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const DATA: u16 = 0x0013;
const REALM: u16 = 0x0014;
const NONCE: u16 = 0x0015;
const XOR_RELAYED_ADDRESS: u16 = 0x0016;
const REQUESTED_TRANSPORT: u16 = 0x0019;

/// The twelve bytes that tell a transaction.
pub(crate) type Id = [u8; 12];

/// A user made from the shared secret: `expiry:name`, with the key of the long-term mechanism.
#[derive(Clone)]
pub(crate) struct Account {
    username: String,
    key: [u8; 16],
}

impl Account {
    pub(crate) fn new(secret: &[u8], realm: &str, name: &str, expiry: u64) -> Self {
        let username = format!("{expiry}:{name}");
        let password = BASE64_STANDARD.encode(hmac_sha1(secret, username.as_bytes()));
        let key = Md5::digest(format!("{username}:{realm}:{password}")).into();
        Self { username, key }
    }
}

/// What the server said about how to authenticate.
#[derive(Clone, Default)]
pub(crate) struct Challenge {
    pub(crate) realm: String,
    pub(crate) nonce: Vec<u8>,
}

/// A message under construction.
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    pub(crate) fn new(kind: u16, id: Id) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&COOKIE.to_be_bytes());
        bytes.extend_from_slice(&id);
        Self { bytes }
    }

    /// Asks for a UDP relay.
    pub(crate) fn requested_transport_udp(self) -> Self {
        self.attribute(REQUESTED_TRANSPORT, &[17, 0, 0, 0])
    }

    pub(crate) fn lifetime(self, seconds: u32) -> Self {
        self.attribute(LIFETIME, &seconds.to_be_bytes())
    }

    pub(crate) fn channel(self, number: u16) -> Self {
        let [a, b] = number.to_be_bytes();
        self.attribute(CHANNEL_NUMBER, &[a, b, 0, 0])
    }

    pub(crate) fn peer(self, peer: SocketAddrV4) -> Self {
        let port = peer.port() ^ (COOKIE >> 16) as u16;
        let ip = u32::from(*peer.ip()) ^ COOKIE;
        let mut value = [0, 1, 0, 0, 0, 0, 0, 0];
        value[2..4].copy_from_slice(&port.to_be_bytes());
        value[4..].copy_from_slice(&ip.to_be_bytes());
        self.attribute(XOR_PEER_ADDRESS, &value)
    }

    pub(crate) fn data(self, data: &[u8]) -> Self {
        self.attribute(DATA, data)
    }

    /// Adds the long-term credentials and MESSAGE-INTEGRITY: the last thing to do.
    pub(crate) fn sign(self, account: &Account, challenge: &Challenge) -> Self {
        let mut message = self
            .attribute(USERNAME, account.username.as_bytes())
            .attribute(REALM, challenge.realm.as_bytes())
            .attribute(NONCE, &challenge.nonce);
        // The length already counts the attribute that is being computed.
        message.set_length(24);
        let integrity = hmac_sha1(&account.key, &message.bytes);
        message.attribute(MESSAGE_INTEGRITY, &integrity)
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.bytes.extend_from_slice(&kind.to_be_bytes());
        self.bytes
            .extend_from_slice(&(value.len() as u16).to_be_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.set_length(0);
        self
    }

    fn set_length(&mut self, more: usize) {
        let length = (self.bytes.len() - 20 + more) as u16;
        self.bytes[2..4].copy_from_slice(&length.to_be_bytes());
    }
}

fn hmac_sha1(key: &[u8], bytes: &[u8]) -> [u8; 20] {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(bytes);
    mac.finalize().into_bytes().into()
}

/// A received STUN message.
pub(crate) struct Answer<'a> {
    bytes: &'a [u8],
}

impl<'a> Answer<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let length = usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?));
        let cookie = u32::from_be_bytes(*bytes.get(4..)?.first_chunk()?);
        (bytes[0] < 0x40 && cookie == COOKIE && bytes.len() == 20 + length)
            .then_some(Self { bytes })
    }

    pub(crate) fn kind(&self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }

    pub(crate) fn id(&self) -> Id {
        *self.bytes[8..]
            .first_chunk()
            .expect("a parsed message has a header")
    }

    /// The error code, if this is an error response.
    pub(crate) fn error(&self) -> Option<u16> {
        let value = self.attribute(ERROR_CODE)?;
        Some(u16::from(*value.get(2)?) * 100 + u16::from(*value.get(3)?))
    }

    pub(crate) fn challenge(&self) -> Option<Challenge> {
        let realm = String::from_utf8(self.attribute(REALM)?.to_vec()).ok()?;
        Some(Challenge {
            realm,
            nonce: self.attribute(NONCE)?.to_vec(),
        })
    }

    pub(crate) fn relayed_address(&self) -> Option<SocketAddrV4> {
        self.address(XOR_RELAYED_ADDRESS)
    }

    pub(crate) fn peer(&self) -> Option<SocketAddrV4> {
        self.address(XOR_PEER_ADDRESS)
    }

    pub(crate) fn data(&self) -> Option<&'a [u8]> {
        self.attribute(DATA)
    }

    fn address(&self, kind: u16) -> Option<SocketAddrV4> {
        let value: &[u8; 8] = self.attribute(kind)?.first_chunk()?;
        let port = u16::from_be_bytes([value[2], value[3]]) ^ (COOKIE >> 16) as u16;
        let ip = u32::from_be_bytes([value[4], value[5], value[6], value[7]]) ^ COOKIE;
        Some(SocketAddrV4::new(Ipv4Addr::from(ip), port))
    }

    fn attribute(&self, kind: u16) -> Option<&'a [u8]> {
        let mut rest = &self.bytes[20..];
        while let Some((&[a, b, c, d], tail)) = rest.split_first_chunk() {
            let length = usize::from(u16::from_be_bytes([c, d]));
            let value = tail.get(..length)?;
            if u16::from_be_bytes([a, b]) == kind {
                return Some(value);
            }
            rest = tail.get(length.next_multiple_of(4)..)?;
        }
        None
    }
}
