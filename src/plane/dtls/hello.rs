//! What a stranger may say first: a ClientHello, read without keeping anything of it.
//!
//! ```text
//!  record      type:1=22  version:2  epoch:2=0  number:6  length:2
//!  handshake   type:1=1   length:3   message:2  offset:3=0  length:3
//!  ClientHello version:2  random:32  session<0..32>  cookie<0..255>  suites<2..>  compressions<1..>  extensions
//! ```
//!
//! Only a ClientHello that is whole in one datagram is read. One in fragments would have to be kept until the rest
//! comes, which is what a stranger must not be able to ask for (RFC 6347 §4.2.1).

use std::ops::Range;

use super::record::{HANDSHAKE, HEADER, Record};

/// The length of a cookie; dimpl knows no other.
pub(super) const COOKIE: usize = 32;
/// The length of a HelloVerifyRequest with its record.
pub(super) const HELLO_VERIFY_REQUEST: usize = HEADER + MESSAGE_HEADER + 2 + 1 + COOKIE;

/// The length of an alert with its record.
const ALERT: usize = HEADER + 2;
const MESSAGE_HEADER: usize = 12;
const ALERT_TYPE: u8 = 21;
const CLIENT_HELLO: u8 = 1;
const HELLO_VERIFY: u8 = 3;
const DTLS_1_0: [u8; 2] = [0xfe, 0xff];
const DTLS_1_2: [u8; 2] = [0xfe, 0xfd];
/// `TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256`.
const CHACHA20: [u8; 2] = [0xcc, 0xa9];

/// A ClientHello that may be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClientHello<'a> {
    bytes: &'a [u8],
    /// The number of its record (RFC 6347 §4.1).
    pub(super) record: u64,
    /// Its place among the client's handshake messages: 0, or 1 after a HelloVerifyRequest.
    pub(super) message: u16,
    /// What the client drew for this handshake.
    pub(super) random: [u8; 32],
    version: [u8; 2],
    cookie: Range<usize>,
    suites: Range<usize>,
}

/// Why a handshake comes to nothing (RFC 5246 §7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Handshake = 40,
    ProtocolVersion = 70,
}

impl<'a> ClientHello<'a> {
    /// Reads a datagram. Nothing if it is no ClientHello, or one in fragments, or malformed.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let record = Record::first(bytes)?;
        if record.kind != HANDSHAKE || record.epoch != 0 || record.end != bytes.len() {
            return None;
        }
        let mut reader = Reader { bytes, at: HEADER };
        let header = reader.take(MESSAGE_HEADER)?;
        let header = bytes[header].first_chunk::<MESSAGE_HEADER>()?;
        let [kind, l0, l1, l2, m0, m1, o0, o1, o2, f0, f1, f2] = *header;
        let whole = [o0, o1, o2] == [0; 3] && [f0, f1, f2] == [l0, l1, l2];
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        if kind != CLIENT_HELLO || !whole || reader.at + length != bytes.len() {
            return None;
        }
        let version = reader.take(2)?;
        let random = reader.take(32)?;
        let session = reader.vector(1)?;
        let cookie = reader.vector(1)?;
        let suites = reader.vector(2)?;
        let compressions = reader.vector(1)?;
        if session.len() > 32
            || suites.is_empty()
            || suites.len() % 2 != 0
            || compressions.is_empty()
        {
            return None;
        }
        Some(Self {
            bytes,
            record: record.number,
            message: u16::from_be_bytes([m0, m1]),
            random: *bytes[random].first_chunk()?,
            version: *bytes[version].first_chunk()?,
            cookie,
            suites,
        })
    }

    /// The cookie that it presents, if it has the length of ours.
    pub(super) fn cookie(&self) -> Option<&'a [u8; COOKIE]> {
        self.bytes[self.cookie.clone()].try_into().ok()
    }

    /// Whether the client knows DTLS 1.2, or a later version that calls itself so.
    pub(super) fn is_recent(&self) -> bool {
        self.version == DTLS_1_2
    }

    /// The whole datagram.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether the client knows ChaCha20-Poly1305.
    pub(super) fn offers_chacha20(&self) -> bool {
        self.bytes[self.suites.clone()]
            .chunks_exact(2)
            .any(|suite| suite == CHACHA20)
    }

    /// The same ClientHello as the client's message number `message`, with another cookie.
    pub(super) fn with_spoilt_cookie(&self, message: u16) -> Vec<u8> {
        let mut bytes = self.bytes.to_vec();
        bytes[HEADER + 4..HEADER + 6].copy_from_slice(&message.to_be_bytes());
        if let Some(last) = bytes[self.cookie.clone()].last_mut() {
            *last ^= 1;
        }
        bytes
    }

    /// The alert that says that nothing will come of it.
    pub(super) fn refusal(&self, failure: Failure) -> [u8; ALERT] {
        const FATAL: u8 = 2;
        let [.., n0, n1, n2, n3, n4, n5] = self.record.to_be_bytes();
        let [major, minor] = DTLS_1_0;
        let why = failure as u8;
        [
            ALERT_TYPE, major, minor, 0, 0, n0, n1, n2, n3, n4, n5, 0, 2, FATAL, why,
        ]
    }

    /// The answer that asks for `cookie`. It carries the number of the record that it answers, so that no number is
    /// used twice, and speaks of DTLS 1.0 whatever will be spoken (RFC 6347 §4.2.1).
    pub(super) fn verify_request(&self, cookie: &[u8; COOKIE]) -> [u8; HELLO_VERIFY_REQUEST] {
        let mut answer = [0; HELLO_VERIFY_REQUEST];
        let body = (2 + 1 + COOKIE) as u8;
        let number = self.record.to_be_bytes();
        let message = self.message.to_be_bytes();
        let length = [0, 0, body];
        let parts: [&[u8]; 13] = [
            &[HANDSHAKE],
            &DTLS_1_0,
            &[0, 0],
            &number[2..],
            &[0, MESSAGE_HEADER as u8 + body],
            &[HELLO_VERIFY],
            &length,
            &message,
            &[0; 3],
            &length,
            &DTLS_1_0,
            &[COOKIE as u8],
            cookie,
        ];
        let bytes = parts.into_iter().flatten();
        for (place, byte) in answer.iter_mut().zip(bytes) {
            *place = *byte;
        }
        answer
    }
}

/// Takes ranges off hostile bytes.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, length: usize) -> Option<Range<usize>> {
        let end = self.at.checked_add(length)?;
        let taken = self.at..end;
        self.bytes.get(taken.clone())?;
        self.at = end;
        Some(taken)
    }

    /// A vector behind `prefix` bytes of length.
    fn vector(&mut self, prefix: usize) -> Option<Range<usize>> {
        let length = self.take(prefix)?;
        let length = self.bytes[length]
            .iter()
            .fold(0, |length, byte| length << 8 | usize::from(*byte));
        self.take(length)
    }
}
