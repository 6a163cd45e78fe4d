//! Writing of messages.

use std::net::SocketAddr;

use super::address::{self, Mask};
use super::attribute::{AddressError, Attribute, ChangeRequest, Icmp};
use super::error_code::{self, ErrorCode};
use super::fingerprint;
use super::integrity::{Integrity, Key, PasswordAlgorithm};
use super::message::TransactionId;
use super::method::{Class, Method};
use super::{HEADER_LENGTH, MAGIC_COOKIE, padding};

/// Appends one message to a buffer; what stands before it stays.
///
/// Every byte of the message is written here, padding as zeros: nothing of an earlier use of the
/// buffer shows \[S2\]. An attribute for which there is no room, since the message's length is 16
/// bits, is left out whole.
#[must_use = "a message ends with one of the `finish` methods"]
#[derive(Debug)]
pub struct Writer<'b> {
    buffer: &'b mut Vec<u8>,
    start: usize,
    id: TransactionId,
    fingerprint: bool,
}

impl<'b> Writer<'b> {
    /// Begins a message.
    pub fn new(buffer: &'b mut Vec<u8>, class: Class, method: Method, id: TransactionId) -> Self {
        Self::begin(buffer, method.kind(class), MAGIC_COOKIE, id)
    }

    /// Begins a message of RFC 3489, which has a longer id and no magic cookie. In such a message there are no XORed
    /// addresses.
    pub fn classic(buffer: &'b mut Vec<u8>, class: Class, method: Method, id: [u8; 16]) -> Self {
        let [c0, c1, c2, c3, rest @ ..] = id;
        let id = TransactionId(rest);
        Self::begin(buffer, method.kind(class), [c0, c1, c2, c3], id)
    }

    fn begin(buffer: &'b mut Vec<u8>, kind: u16, cookie: [u8; 4], id: TransactionId) -> Self {
        let start = buffer.len();
        buffer.extend_from_slice(&kind.to_be_bytes());
        buffer.extend_from_slice(&[0, 0]);
        buffer.extend_from_slice(&cookie);
        buffer.extend_from_slice(&id.0);
        Self {
            buffer,
            start,
            id,
            fingerprint: false,
        }
    }

    /// Any attribute, by its value.
    pub fn bytes(&mut self, kind: Attribute, value: &[u8]) -> &mut Self {
        self.attribute(kind, [value, &[]])
    }

    /// An attribute without a value.
    pub fn flag(&mut self, kind: Attribute) -> &mut Self {
        self.bytes(kind, &[])
    }

    /// One byte and three reserved ones: REQUESTED-TRANSPORT and the address families.
    pub fn u8(&mut self, kind: Attribute, value: u8) -> &mut Self {
        self.bytes(kind, &[value, 0, 0, 0])
    }

    /// Two bytes and two reserved ones: CHANNEL-NUMBER, RESPONSE-PORT.
    pub fn u16(&mut self, kind: Attribute, value: u16) -> &mut Self {
        let [high, low] = value.to_be_bytes();
        self.bytes(kind, &[high, low, 0, 0])
    }

    /// Four bytes: LIFETIME, CONNECTION-ID.
    pub fn u32(&mut self, kind: Attribute, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// A plain address: MAPPED-ADDRESS, ALTERNATE-SERVER, RESPONSE-ORIGIN, OTHER-ADDRESS.
    pub fn address(&mut self, kind: Attribute, address: SocketAddr) -> &mut Self {
        self.bytes(kind, address::write(address, Mask::NONE).as_slice())
    }

    /// An address XORed with cookie and transaction id: the attributes named so.
    pub fn xor_address(&mut self, kind: Attribute, address: SocketAddr) -> &mut Self {
        self.bytes(kind, address::write(address, Mask::of(self.id)).as_slice())
    }

    /// ERROR-CODE; the phrase is cut to 127 characters.
    pub fn error(&mut self, code: ErrorCode, reason: &str) -> &mut Self {
        let [class, number] = code.class_and_number();
        self.attribute(
            Attribute::ERROR_CODE,
            [
                &[0, 0, class, number],
                error_code::sendable(reason).as_bytes(),
            ],
        )
    }

    /// UNKNOWN-ATTRIBUTES.
    pub fn unknown_attributes(&mut self, unknown: impl Iterator<Item = Attribute>) -> &mut Self {
        let start = self.buffer.len();
        self.bytes(Attribute::UNKNOWN_ATTRIBUTES, &[]);
        let value = self.buffer.len();
        for kind in unknown {
            if self.length().saturating_add(2) > ROOM {
                break;
            }
            self.buffer.extend_from_slice(&kind.0.to_be_bytes());
        }
        let length = self.buffer.len().saturating_sub(value);
        self.put_u16(start.saturating_add(2), length);
        self.pad(length)
    }

    /// EVEN-PORT; `reserve_next` is its R bit.
    pub fn even_port(&mut self, reserve_next: bool) -> &mut Self {
        self.bytes(Attribute::EVEN_PORT, &[if reserve_next { 0x80 } else { 0 }])
    }

    /// PASSWORD-ALGORITHM.
    pub fn password_algorithm(&mut self, algorithm: PasswordAlgorithm) -> &mut Self {
        self.bytes(Attribute::PASSWORD_ALGORITHM, &algorithm.entry())
    }

    /// ADDRESS-ERROR-CODE; the phrase is cut to 127 characters.
    pub fn address_error(&mut self, error: AddressError<'_>) -> &mut Self {
        let [class, number] = error.code.class_and_number();
        let head = [error.family, 0, class, number];
        self.attribute(
            Attribute::ADDRESS_ERROR_CODE,
            [&head, error_code::sendable(error.reason).as_bytes()],
        )
    }

    /// ICMP.
    pub fn icmp(&mut self, icmp: Icmp) -> &mut Self {
        self.attribute(
            Attribute::ICMP,
            [&[0, 0, icmp.kind, icmp.code], &icmp.data.to_be_bytes()],
        )
    }

    /// CHANGE-REQUEST.
    pub fn change_request(&mut self, change: ChangeRequest) -> &mut Self {
        let flags = u32::from(change.ip) << 2 | u32::from(change.port) << 1;
        self.u32(Attribute::CHANGE_REQUEST, flags)
    }

    /// How many bytes the message has so far, without integrity and FINGERPRINT.
    pub fn written(&self) -> usize {
        self.buffer.len().saturating_sub(self.start)
    }

    /// Asks for FINGERPRINT, which is put at the very end whatever is written until then.
    pub fn fingerprint(&mut self) -> &mut Self {
        self.fingerprint = true;
        self
    }

    /// Ends the message without integrity.
    pub fn finish(mut self) {
        self.seal();
    }

    /// Ends the message with MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256 under `key`.
    pub fn finish_with_integrity(mut self, key: &Key, integrity: Integrity) {
        let covered = self.buffer.get(self.start..).unwrap_or_default();
        let mut value = [0; 32];
        let length = integrity.with_value(key, covered, |right| {
            value
                .iter_mut()
                .zip(right)
                .for_each(|(to, from)| *to = *from);
            right.len()
        });
        self.append(
            integrity.attribute(),
            [value.get(..length.unwrap_or(0)).unwrap_or_default(), &[]],
        );
        self.seal();
    }

    /// Puts the length, and FINGERPRINT if asked for.
    fn seal(&mut self) {
        if self.fingerprint {
            self.append(Attribute::FINGERPRINT, [&[0; 4], &[]]);
        }
        self.put_u16(self.start.saturating_add(2), self.length());
        if self.fingerprint {
            self.buffer.truncate(self.buffer.len().saturating_sub(4));
            let before = self.buffer.len().saturating_sub(4);
            let value = fingerprint::value(self.buffer.get(self.start..before).unwrap_or_default());
            self.buffer.extend_from_slice(&value);
        }
    }

    /// An attribute if there is room for it and for integrity and FINGERPRINT behind it.
    fn attribute(&mut self, kind: Attribute, value: [&[u8]; 2]) -> &mut Self {
        let [first, second] = value;
        let length = first.len().saturating_add(second.len());
        if self.length().saturating_add(4).saturating_add(length) <= ROOM {
            self.append(kind, value);
        }
        self
    }

    fn append(&mut self, kind: Attribute, [first, second]: [&[u8]; 2]) {
        let length = first.len().saturating_add(second.len());
        self.buffer.extend_from_slice(&kind.0.to_be_bytes());
        self.buffer
            .extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        self.buffer.extend_from_slice(first);
        self.buffer.extend_from_slice(second);
        self.pad(length);
    }

    fn pad(&mut self, length: usize) -> &mut Self {
        self.buffer
            .resize(self.buffer.len().saturating_add(padding(length)), 0);
        self
    }

    fn put_u16(&mut self, at: usize, value: usize) {
        if let (Some(field), Ok(value)) = (
            self.buffer.get_mut(at..).and_then(<[u8]>::first_chunk_mut),
            u16::try_from(value),
        ) {
            *field = value.to_be_bytes();
        }
    }

    /// What the length field will say of what was written so far.
    fn length(&self) -> usize {
        self.buffer
            .len()
            .saturating_sub(self.start)
            .saturating_sub(HEADER_LENGTH)
    }
}

/// Writes what stands before the data in a Data indication from `peer`, and returns its length: 36
/// or 48 bytes.
///
/// The data itself follows, and then its zero padding to a multiple of 4. `None` when `data_length`
/// is too large for one message, which is more than a UDP datagram over IPv4 can hold.
pub fn data_indication_head(
    id: TransactionId,
    peer: SocketAddr,
    data_length: usize,
    out: &mut [u8; 48],
) -> Option<usize> {
    let address = address::write(peer, Mask::of(id));
    let address = address.as_slice();
    let head = address.len().checked_add(28)?;
    let padded = data_length.checked_add(padding(data_length))?;
    let length = u16::try_from(head.checked_add(padded)?.checked_sub(HEADER_LENGTH)?).ok()?;

    let mut rest = &mut out[..];
    for part in [
        &Method::DATA.kind(Class::Indication).to_be_bytes()[..],
        &length.to_be_bytes(),
        &MAGIC_COOKIE,
        &id.0,
        &Attribute::XOR_PEER_ADDRESS.0.to_be_bytes(),
        &u16::try_from(address.len()).ok()?.to_be_bytes(),
        address,
        &Attribute::DATA.0.to_be_bytes(),
        &u16::try_from(data_length).ok()?.to_be_bytes(),
    ] {
        let (place, behind) = rest.split_at_mut_checked(part.len())?;
        place.copy_from_slice(part);
        rest = behind;
    }
    Some(head)
}

/// What attributes may fill: the largest length, less MESSAGE-INTEGRITY-SHA256 and FINGERPRINT.
const ROOM: usize = 65_532 - 36 - 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stun::Message;

    const ID: TransactionId = TransactionId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);

    fn key() -> Key {
        Key::md5(b"user", b"realm", b"pass")
    }

    #[test]
    fn a_message_is_appended_behind_what_stands_there() {
        let mut buffer = b"before".to_vec();
        let mut writer = Writer::new(&mut buffer, Class::Success, Method::BINDING, ID);
        writer.bytes(Attribute::SOFTWARE, b"x").fingerprint();
        writer.finish_with_integrity(&key(), Integrity::Sha1);
        let (before, message) = buffer.split_at(6);
        assert_eq!(before, b"before");
        let message = Message::parse(message).unwrap();
        assert_eq!(
            (message.class(), message.method(), message.transaction_id()),
            (Class::Success, Method::BINDING, ID)
        );
        assert!(message.verify(&key()) && message.has_fingerprint());
    }

    #[test]
    fn both_hashes_verify_with_and_without_fingerprint() {
        for integrity in [Integrity::Sha1, Integrity::Sha256] {
            for fingerprint in [false, true] {
                let mut buffer = Vec::new();
                let mut writer = Writer::new(&mut buffer, Class::Request, Method::REFRESH, ID);
                if fingerprint {
                    writer.fingerprint();
                }
                writer.u32(Attribute::LIFETIME, 0);
                writer.finish_with_integrity(&key(), integrity);
                let message = Message::parse(&buffer).unwrap();
                assert!(message.verify(&key()));
                assert_eq!(message.has_fingerprint(), fingerprint);
                assert_eq!(
                    message.has_sha256_integrity(),
                    integrity == Integrity::Sha256
                );
            }
        }
    }

    #[test]
    fn s2_a42_padding_is_zero_whatever_the_buffer_held() {
        let write = |buffer: &mut Vec<u8>| {
            let mut writer = Writer::new(buffer, Class::Error, Method::ALLOCATE, ID);
            writer
                .error(ErrorCode::BAD_REQUEST, "Bad")
                .bytes(Attribute::SOFTWARE, b"abcde")
                .even_port(false);
            writer
                .unknown_attributes([Attribute(0x7001)].into_iter())
                .fingerprint();
            writer.finish_with_integrity(&key(), Integrity::Sha256);
        };
        let (mut clean, mut dirty) = (Vec::new(), vec![0xA5; 4096]);
        dirty.clear();
        write(&mut clean);
        write(&mut dirty);
        assert_eq!(clean, dirty);
        assert!(!clean.windows(2).any(|pair| pair == [0xA5; 2]));
        assert_eq!(&clean[28..32], b"Bad\0");
        assert_eq!(&clean[32..44], b"\x80\x22\0\x05abcde\0\0\0");
    }

    #[test]
    fn an_attribute_without_room_is_left_out_and_the_message_still_ends_well() {
        let mut buffer = Vec::new();
        let mut writer = Writer::new(&mut buffer, Class::Request, Method::BINDING, ID);
        writer
            .bytes(Attribute::PADDING, &[7; 65_000])
            .bytes(Attribute::PADDING, &[7; 65_000]);
        writer
            .bytes(Attribute::DATA, &vec![7; 70_000])
            .unknown_attributes((0..40_000).map(Attribute));
        writer.flag(Attribute::DONT_FRAGMENT).fingerprint();
        writer.finish_with_integrity(&key(), Integrity::Sha256);
        let message = Message::parse(&buffer).unwrap();
        assert!(message.verify(&key()) && message.has_fingerprint());
        let lengths: Vec<_> = message.attributes().map(|(_, value)| value.len()).collect();
        assert_eq!(lengths, [65_000, 65_488 - 65_004 - 4, 32, 4]);
    }

    #[test]
    fn a_long_reason_is_cut() {
        let mut buffer = Vec::new();
        let mut writer = Writer::new(&mut buffer, Class::Error, Method::BINDING, ID);
        writer.error(ErrorCode::SERVER_ERROR, &"ü".repeat(500));
        writer.finish();
        let (code, reason) = Message::parse(&buffer)
            .unwrap()
            .error_code()
            .unwrap()
            .unwrap();
        assert_eq!(
            (code, reason),
            (ErrorCode::SERVER_ERROR, "ü".repeat(127).as_str())
        );
    }

    #[test]
    fn d2_the_head_of_a_data_indication_is_what_the_writer_writes() {
        for peer in ["192.0.2.7:5000", "[2001:db8::7]:5000"].map(|peer| peer.parse().unwrap()) {
            for length in [0, 1, 2, 3, 4, 1200, 1201] {
                let data = vec![0x5A; length];
                let mut written = Vec::new();
                let mut writer = Writer::new(&mut written, Class::Indication, Method::DATA, ID);
                writer
                    .xor_address(Attribute::XOR_PEER_ADDRESS, peer)
                    .bytes(Attribute::DATA, &data);
                writer.finish();

                let mut head = [0xA5; 48];
                let head_length = data_indication_head(ID, peer, length, &mut head).unwrap();
                let mut gathered = [&head[..head_length], &data].concat();
                gathered.resize(gathered.len().next_multiple_of(4), 0);
                assert_eq!(gathered, written);
                assert_eq!(head_length, if peer.is_ipv4() { 36 } else { 48 });
            }
        }
    }

    #[test]
    fn the_largest_udp_datagram_over_ipv4_fits_a_data_indication() {
        let (v4, v6) = ("192.0.2.7:1".parse().unwrap(), "[::1]:1".parse().unwrap());
        let mut head = [0; 48];
        assert_eq!(data_indication_head(ID, v4, 65_507, &mut head), Some(36));
        assert_eq!(data_indication_head(ID, v4, 65_517, &mut head), None);
        assert_eq!(data_indication_head(ID, v6, 65_504, &mut head), Some(48));
        assert_eq!(data_indication_head(ID, v6, 65_505, &mut head), None);
        assert_eq!(data_indication_head(ID, v4, usize::MAX, &mut head), None);
    }
}
