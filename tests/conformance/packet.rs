//! A second codec, for the client of these checks: it shares nothing with the server's, and can write what is wrong.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::Digest as _;

/// Methods.
pub(crate) mod method {
    pub(crate) const BINDING: u16 = 0x001;
    pub(crate) const ALLOCATE: u16 = 0x003;
    pub(crate) const REFRESH: u16 = 0x004;
    pub(crate) const SEND: u16 = 0x006;
    pub(crate) const DATA: u16 = 0x007;
    pub(crate) const CREATE_PERMISSION: u16 = 0x008;
    pub(crate) const CHANNEL_BIND: u16 = 0x009;
    pub(crate) const CONNECT: u16 = 0x00A;
    pub(crate) const CONNECTION_BIND: u16 = 0x00B;
    pub(crate) const CONNECTION_ATTEMPT: u16 = 0x00C;
}

/// Attributes.
pub(crate) mod attr {
    pub(crate) const MAPPED_ADDRESS: u16 = 0x0001;
    pub(crate) const CHANGE_REQUEST: u16 = 0x0003;
    pub(crate) const USERNAME: u16 = 0x0006;
    pub(crate) const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub(crate) const ERROR_CODE: u16 = 0x0009;
    pub(crate) const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
    pub(crate) const CHANNEL_NUMBER: u16 = 0x000C;
    pub(crate) const LIFETIME: u16 = 0x000D;
    pub(crate) const XOR_PEER_ADDRESS: u16 = 0x0012;
    pub(crate) const DATA: u16 = 0x0013;
    pub(crate) const REALM: u16 = 0x0014;
    pub(crate) const NONCE: u16 = 0x0015;
    pub(crate) const XOR_RELAYED_ADDRESS: u16 = 0x0016;
    pub(crate) const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
    pub(crate) const EVEN_PORT: u16 = 0x0018;
    pub(crate) const REQUESTED_TRANSPORT: u16 = 0x0019;
    pub(crate) const DONT_FRAGMENT: u16 = 0x001A;
    pub(crate) const ACCESS_TOKEN: u16 = 0x001B;
    pub(crate) const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
    pub(crate) const PASSWORD_ALGORITHM: u16 = 0x001D;
    pub(crate) const USERHASH: u16 = 0x001E;
    pub(crate) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub(crate) const RESERVATION_TOKEN: u16 = 0x0022;
    pub(crate) const PADDING: u16 = 0x0026;
    pub(crate) const RESPONSE_PORT: u16 = 0x0027;
    pub(crate) const CONNECTION_ID: u16 = 0x002A;
    pub(crate) const ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8000;
    pub(crate) const ADDRESS_ERROR_CODE: u16 = 0x8001;
    pub(crate) const PASSWORD_ALGORITHMS: u16 = 0x8002;
    pub(crate) const ALTERNATE_SERVER: u16 = 0x8023;
    pub(crate) const ICMP: u16 = 0x8004;
    pub(crate) const SOFTWARE: u16 = 0x8022;
    pub(crate) const FINGERPRINT: u16 = 0x8028;
    pub(crate) const RESPONSE_ORIGIN: u16 = 0x802B;
    pub(crate) const OTHER_ADDRESS: u16 = 0x802C;
    pub(crate) const THIRD_PARTY_AUTHORIZATION: u16 = 0x802E;
    pub(crate) const MOBILITY_TICKET: u16 = 0x8030;
}

/// The class of a message, as the two bits of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Request,
    Indication,
    Success,
    Error,
}

pub(crate) const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
const HEADER: usize = 20;

/// The fourteen bits of a message's type (RFC 8489 §5).
pub(crate) fn kind(class: Class, method: u16) -> u16 {
    let spread = method & 0x000F | (method & 0x0070) << 1 | (method & 0x0F80) << 2;
    spread
        | match class {
            Class::Request => 0,
            Class::Indication => 0x0010,
            Class::Success => 0x0100,
            Class::Error => 0x0110,
        }
}

/// A key of long-term credentials (RFC 8489 §18.5.1).
#[derive(Clone)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    pub(crate) fn md5(user: &[u8], realm: &[u8], password: &[u8]) -> Self {
        Self(md5::Md5::digest([user, b":", realm, b":", password].concat()).to_vec())
    }

    pub(crate) fn sha256(user: &[u8], realm: &[u8], password: &[u8]) -> Self {
        Self(sha2::Sha256::digest([user, b":", realm, b":", password].concat()).to_vec())
    }

    /// A key as it is.
    pub(crate) fn raw(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    fn sha1_of(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut mac = Hmac::<sha1::Sha1>::new_from_slice(&self.0).expect("any length");
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().to_vec()
    }

    fn sha256_of(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&self.0).expect("any length");
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().to_vec()
    }
}

/// A message being written. What is asked for is written, right or wrong.
#[derive(Clone)]
pub(crate) struct Build {
    bytes: Vec<u8>,
}

impl Build {
    /// With a transaction id nobody else uses.
    pub(crate) fn new(class: Class, method: u16) -> Self {
        Self::with_id(class, method, unused_id())
    }

    pub(crate) fn with_id(class: Class, method: u16, id: [u8; 12]) -> Self {
        let bytes = [
            &kind(class, method).to_be_bytes()[..],
            &[0, 0],
            &COOKIE,
            &id,
        ];
        Self {
            bytes: bytes.concat(),
        }
    }

    pub(crate) fn request(method: u16) -> Self {
        Self::new(Class::Request, method)
    }

    pub(crate) fn indication(method: u16) -> Self {
        Self::new(Class::Indication, method)
    }

    /// An Allocate request for a UDP relay, without credentials.
    pub(crate) fn allocate() -> Self {
        Self::request(method::ALLOCATE).attr(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
    }

    pub(crate) fn binding() -> Self {
        Self::request(method::BINDING)
    }

    pub(crate) fn refresh(lifetime: u32) -> Self {
        Self::request(method::REFRESH).u32(attr::LIFETIME, lifetime)
    }

    pub(crate) fn permission(peer: SocketAddr) -> Self {
        Self::request(method::CREATE_PERMISSION).peer(peer)
    }

    pub(crate) fn channel(number: u16, peer: SocketAddr) -> Self {
        Self::request(method::CHANNEL_BIND)
            .u16(attr::CHANNEL_NUMBER, number)
            .peer(peer)
    }

    pub(crate) fn send(peer: SocketAddr, data: &[u8]) -> Self {
        Self::indication(method::SEND)
            .peer(peer)
            .attr(attr::DATA, data)
    }

    /// An attribute, padded with zeros.
    pub(crate) fn attr(self, kind: u16, value: &[u8]) -> Self {
        self.padded_with(kind, value, 0)
    }

    /// An attribute, padded with some byte.
    pub(crate) fn padded_with(mut self, kind: u16, value: &[u8], pad: u8) -> Self {
        self.bytes.extend(kind.to_be_bytes());
        self.bytes.extend((value.len() as u16).to_be_bytes());
        self.bytes.extend(value);
        let whole = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(whole, pad);
        self.put_length(self.bytes.len() - HEADER);
        self
    }

    pub(crate) fn u16(self, kind: u16, value: u16) -> Self {
        let [high, low] = value.to_be_bytes();
        self.attr(kind, &[high, low, 0, 0])
    }

    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// REQUESTED-ADDRESS-FAMILY.
    pub(crate) fn family(self, family: u8) -> Self {
        self.attr(attr::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0])
    }

    /// ADDITIONAL-ADDRESS-FAMILY.
    pub(crate) fn additional(self, family: u8) -> Self {
        self.attr(attr::ADDITIONAL_ADDRESS_FAMILY, &[family, 0, 0, 0])
    }

    pub(crate) fn peer(self, peer: SocketAddr) -> Self {
        let value = plain_xored(peer, &self.id());
        self.attr(attr::XOR_PEER_ADDRESS, &value)
    }

    /// MESSAGE-INTEGRITY: the length field counts it, and nothing behind it (RFC 8489 §14.5).
    pub(crate) fn sign(mut self, key: &Key) -> Self {
        self.put_length(self.bytes.len() - HEADER + 24);
        let value = key.sha1_of(&[&self.bytes]);
        self.attr(attr::MESSAGE_INTEGRITY, &value)
    }

    /// MESSAGE-INTEGRITY-SHA256 of so many bytes.
    pub(crate) fn sign_sha256(mut self, key: &Key, length: usize) -> Self {
        self.put_length(self.bytes.len() - HEADER + 4 + length);
        let value = key.sha256_of(&[&self.bytes]);
        self.attr(attr::MESSAGE_INTEGRITY_SHA256, &value[..length])
    }

    /// FINGERPRINT.
    pub(crate) fn fingerprint(mut self) -> Self {
        self.put_length(self.bytes.len() - HEADER + 8);
        let value = crc32fast::hash(&self.bytes) ^ 0x5354_554e;
        self.attr(attr::FINGERPRINT, &value.to_be_bytes())
    }

    /// FINGERPRINT with one bit wrong.
    pub(crate) fn wrong_fingerprint(self) -> Self {
        let mut wrong = self.fingerprint();
        let last = wrong.bytes.len() - 1;
        wrong.bytes[last] ^= 1;
        wrong
    }

    pub(crate) fn id(&self) -> [u8; 12] {
        self.bytes[8..20].try_into().expect("12 bytes")
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes.clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    fn put_length(&mut self, length: usize) {
        self.bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    }
}

/// A transaction id that nobody has used.
fn unused_id() -> [u8; 12] {
    let mut id = [0; 12];
    for half in id.chunks_mut(8) {
        let random = RandomState::new().hash_one(0).to_be_bytes();
        half.copy_from_slice(&random[..half.len()]);
    }
    id
}

/// ChannelData.
pub(crate) fn channel_data(channel: u16, data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u16).to_be_bytes();
    [&channel.to_be_bytes()[..], &length, data].concat()
}

/// The same, padded as a stream wants it.
pub(crate) fn channel_data_padded(channel: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = channel_data(channel, data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// What came from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    Stun(Stun),
    Channel { number: u16, data: Vec<u8> },
}

/// A STUN message from the server, read strictly: whatever nobody can understand is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stun {
    pub(crate) class: Class,
    pub(crate) method: u16,
    pub(crate) id: [u8; 12],
    pub(crate) attrs: Vec<(u16, Vec<u8>)>,
    pub(crate) bytes: Vec<u8>,
    /// Whether some padding is not zero.
    pub(crate) dirty: bool,
}

impl Packet {
    /// Reads a datagram, or a frame of a stream.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let first = *bytes.first().ok_or("an empty packet")?;
        if (0x40..0x80).contains(&first) {
            let [a, b, c, d, ref rest @ ..] = *bytes else {
                return Err(format!("{} bytes of ChannelData", bytes.len()));
            };
            let length = usize::from(u16::from_be_bytes([c, d]));
            let data = rest
                .get(..length)
                .ok_or("ChannelData shorter than it says")?;
            return Ok(Self::Channel {
                number: u16::from_be_bytes([a, b]),
                data: data.to_vec(),
            });
        }
        Stun::read(bytes).map(Self::Stun)
    }
}

impl Stun {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < HEADER || bytes[0] & 0xC0 != 0 || bytes[4..8] != COOKIE {
            return Err(format!("not STUN: {bytes:02x?}"));
        }
        let kind = u16::from_be_bytes([bytes[0], bytes[1]]);
        let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        if length != bytes.len() - HEADER || !length.is_multiple_of(4) {
            return Err(format!(
                "a length of {length} in {} bytes of STUN",
                bytes.len()
            ));
        }
        let (mut attrs, mut dirty) = (Vec::new(), false);
        let mut rest = &bytes[HEADER..];
        while let [a, b, c, d, behind @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*c, *d]));
            let padded = length.next_multiple_of(4);
            let value = behind
                .get(..padded)
                .ok_or("an attribute that reaches behind the end")?;
            dirty |= value[length..].iter().any(|byte| *byte != 0);
            attrs.push((u16::from_be_bytes([*a, *b]), value[..length].to_vec()));
            rest = &behind[padded..];
        }
        let class = match (kind & 0x0100 != 0, kind & 0x0010 != 0) {
            (false, false) => Class::Request,
            (false, true) => Class::Indication,
            (true, false) => Class::Success,
            (true, true) => Class::Error,
        };
        let stun = Self {
            class,
            method: kind & 0x000F | (kind & 0x00E0) >> 1 | (kind & 0x3E00) >> 2,
            id: bytes[8..20].try_into().expect("12 bytes"),
            attrs,
            bytes: bytes.to_vec(),
            dirty,
        };
        if let Some((_, value)) = stun
            .attrs
            .iter()
            .find(|(kind, _)| *kind == attr::FINGERPRINT)
        {
            let at = bytes.len() - 8;
            let right = (crc32fast::hash(&bytes[..at]) ^ 0x5354_554e).to_be_bytes();
            if *value != right || bytes[at..at + 2] != attr::FINGERPRINT.to_be_bytes() {
                return Err("a wrong FINGERPRINT".into());
            }
        }
        Ok(stun)
    }

    pub(crate) fn get(&self, kind: u16) -> Option<&[u8]> {
        let found = self.attrs.iter().find(|(other, _)| *other == kind);
        found.map(|(_, value)| &value[..])
    }

    pub(crate) fn has(&self, kind: u16) -> bool {
        self.get(kind).is_some()
    }

    /// All attributes of a kind.
    pub(crate) fn all(&self, kind: u16) -> impl Iterator<Item = &[u8]> {
        let of_kind = move |entry: &&(u16, Vec<u8>)| entry.0 == kind;
        self.attrs
            .iter()
            .filter(of_kind)
            .map(|(_, value)| &value[..])
    }

    /// The error code, 0 for anything but an error.
    pub(crate) fn code(&self) -> u16 {
        match (self.class, self.get(attr::ERROR_CODE)) {
            (Class::Error, Some([_, _, class, number, ..])) => {
                u16::from(*class) * 100 + u16::from(*number)
            }
            _ => 0,
        }
    }

    pub(crate) fn u32(&self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    pub(crate) fn xor_address(&self, kind: u16) -> Option<SocketAddr> {
        read_plain(&xor(self.get(kind)?, &self.id))
    }

    pub(crate) fn xor_addresses(&self, kind: u16) -> Vec<SocketAddr> {
        self.all(kind)
            .filter_map(|value| read_plain(&xor(value, &self.id)))
            .collect()
    }

    pub(crate) fn address(&self, kind: u16) -> Option<SocketAddr> {
        read_plain(self.get(kind)?)
    }

    /// Whether MESSAGE-INTEGRITY is there, and of this key.
    pub(crate) fn is_signed_by(&self, key: &Key) -> bool {
        self.integrity(attr::MESSAGE_INTEGRITY, |parts| key.sha1_of(parts))
    }

    /// Whether MESSAGE-INTEGRITY-SHA256 is there, whole, and of this key.
    pub(crate) fn is_signed_sha256_by(&self, key: &Key) -> bool {
        self.integrity(attr::MESSAGE_INTEGRITY_SHA256, |parts| key.sha256_of(parts))
    }

    fn integrity(&self, kind: u16, right: impl Fn(&[&[u8]]) -> Vec<u8>) -> bool {
        let mut at = HEADER;
        for (other, value) in &self.attrs {
            if *other == kind {
                let counted = (at - HEADER + 4 + value.len()) as u16;
                let parts = [&self.bytes[..2], &counted.to_be_bytes(), &self.bytes[4..at]];
                return right(&parts) == *value;
            }
            at += 4 + value.len().next_multiple_of(4);
        }
        false
    }
}

/// The value of an address attribute.
fn plain(address: SocketAddr) -> Vec<u8> {
    let port = address.port().to_be_bytes();
    match address.ip() {
        IpAddr::V4(ip) => [&[0, 1][..], &port, &ip.octets()].concat(),
        IpAddr::V6(ip) => [&[0, 2][..], &port, &ip.octets()].concat(),
    }
}

/// The value of an XOR- address attribute.
pub(crate) fn plain_xored(address: SocketAddr, id: &[u8; 12]) -> Vec<u8> {
    xor(&plain(address), id)
}

fn read_plain(value: &[u8]) -> Option<SocketAddr> {
    let (&[_, family, high, low], ip) = value.split_first_chunk()?;
    let ip: IpAddr = match family {
        1 => Ipv4Addr::from(<[u8; 4]>::try_from(ip).ok()?).into(),
        2 => Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?).into(),
        _ => return None,
    };
    Some((ip, u16::from_be_bytes([high, low])).into())
}

/// Masks or unmasks an address: the port with the cookie, the address with cookie and transaction id.
fn xor(value: &[u8], id: &[u8; 12]) -> Vec<u8> {
    let mask = [&[0, 0][..], &COOKIE[..2], &COOKIE, id].concat();
    let masked = value.iter().zip(mask);
    masked.map(|(byte, mask)| byte ^ mask).collect()
}
