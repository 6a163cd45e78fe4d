//! A STUN message: checked once, then total.

use std::fmt;
use std::ops::Range;

use super::attribute::Attribute;
use super::fingerprint;
use super::integrity::{Integrity, Key};
use super::method::{Class, Method, TOP_BITS};
use super::reader::{RawAttribute, Reader};
use super::{HEADER_LENGTH, MAGIC_COOKIE, padding};

/// A well-formed STUN message, borrowed from the bytes it came in.
///
/// Well-formed means: exactly as long as its header says, every attribute within it, FINGERPRINT
/// right if there is one. Values are looked at when asked for: a getter gives `None` for an absent
/// attribute and [`Malformed`] for a broken one.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
    kind: u16,
    id: TransactionId,
}

impl<'a> Message<'a> {
    /// Checks the header, the bounds of every attribute \[S1\] and FINGERPRINT \[S5\]. One pass,
    /// nothing allocated.
    ///
    /// # Errors
    /// What is broken first. A message of RFC 3489, which has no magic cookie, is
    /// [`ParseError::Cookie`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(bytes);
        let [t0, t1, l0, l1] = reader.array().ok_or(ParseError::Length)?;
        let kind = u16::from_be_bytes([t0, t1]);
        if kind & TOP_BITS != 0 {
            return Err(ParseError::NotStun);
        }
        if reader.array().ok_or(ParseError::Length)? != MAGIC_COOKIE {
            return Err(ParseError::Cookie);
        }
        let id = TransactionId(reader.array().ok_or(ParseError::Length)?);
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        if length != reader.rest().len() || padding(length) != 0 {
            return Err(ParseError::Length);
        }
        while !reader.is_empty() {
            let attribute = reader.attribute().ok_or(ParseError::Attribute)?;
            if attribute.kind == Attribute::FINGERPRINT
                && !(reader.is_empty() && fingerprint::holds(bytes, attribute))
            {
                return Err(ParseError::Fingerprint);
            }
        }
        Ok(Self { bytes, kind, id })
    }

    /// What is asked, answered or told.
    pub const fn method(&self) -> Method {
        Method::of_kind(self.kind)
    }

    /// Request, indication or one of the two responses.
    pub const fn class(&self) -> Class {
        Class::of_kind(self.kind)
    }

    /// Which request a response belongs to.
    pub const fn transaction_id(&self) -> TransactionId {
        self.id
    }

    /// The bytes it was parsed from.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The attributes that count, in order, each with its value without padding.
    ///
    /// Behind MESSAGE-INTEGRITY only MESSAGE-INTEGRITY-SHA256 and FINGERPRINT count, behind
    /// MESSAGE-INTEGRITY-SHA256 only FINGERPRINT \[S4\].
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes(self.counted())
    }

    /// The value of the first such attribute that counts \[S3\].
    pub fn get(&self, kind: Attribute) -> Option<&'a [u8]> {
        self.find(kind).map(|found| found.value)
    }

    /// The values of all such attributes that count.
    pub fn get_all(&self, kind: Attribute) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.counted()
            .filter(move |found| found.kind == kind)
            .map(|found| found.value)
    }

    /// Where in the message the value of DATA stands.
    pub fn data(&self) -> Option<Range<usize>> {
        let data = self.find(Attribute::DATA)?;
        let start = data.at.saturating_add(ATTRIBUTE_HEADER_LENGTH);
        Some(start..start.saturating_add(data.value.len()))
    }

    /// Whether DONT-FRAGMENT is there.
    pub fn dont_fragment(&self) -> bool {
        self.find(Attribute::DONT_FRAGMENT).is_some()
    }

    /// Whether FINGERPRINT is there; that it is right was checked when parsing.
    pub fn has_fingerprint(&self) -> bool {
        self.find(Attribute::FINGERPRINT).is_some()
    }

    /// Whether MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256 is there, whatever it holds.
    pub fn has_integrity(&self) -> bool {
        self.find(Attribute::MESSAGE_INTEGRITY).is_some() || self.has_sha256_integrity()
    }

    /// Whether MESSAGE-INTEGRITY-SHA256 is there, whatever it holds.
    pub fn has_sha256_integrity(&self) -> bool {
        self.find(Attribute::MESSAGE_INTEGRITY_SHA256).is_some()
    }

    /// Whether the sender knew `key`, by MESSAGE-INTEGRITY-SHA256 if that is there, otherwise by
    /// MESSAGE-INTEGRITY.
    ///
    /// False without either, and for a truncated SHA-256 \[S6\]. The comparison takes constant
    /// time.
    pub fn verify(&self, key: &Key) -> bool {
        let (integrity, found) = match self.find(Attribute::MESSAGE_INTEGRITY_SHA256) {
            Some(found) => (Integrity::Sha256, Some(found)),
            None => (Integrity::Sha1, self.find(Attribute::MESSAGE_INTEGRITY)),
        };
        found.is_some_and(|found| {
            let covered = Reader::new(self.bytes).take(found.at);
            covered.is_some_and(|covered| integrity.matches(key, covered, found.value))
        })
    }

    /// The comprehension-required attributes that are not in the table, each once, at most 16
    /// \[S12\].
    ///
    /// Those behind integrity do not count. The limit keeps a 420 from being larger than what asked
    /// for it.
    pub fn unknown_required(&self) -> impl Iterator<Item = Attribute> + use<'a> {
        let mut counted = self.counted();
        let mut seen = [None; MOST_UNKNOWN];
        std::iter::from_fn(move || {
            loop {
                let kind = counted.next()?.kind;
                if !kind.is_required() || kind.is_known() || seen.contains(&Some(kind)) {
                    continue;
                }
                *seen.iter_mut().find(|slot| slot.is_none())? = Some(kind);
                return Some(kind);
            }
        })
    }

    fn find(&self, kind: Attribute) -> Option<RawAttribute<'a>> {
        self.counted().find(|found| found.kind == kind)
    }

    fn counted(&self) -> Counted<'a> {
        let mut reader = Reader::new(self.bytes);
        let _header = reader.array::<HEADER_LENGTH>();
        Counted {
            reader,
            integrity: None,
        }
    }
}

impl fmt::Debug for Message<'_> {
    // Types and lengths only: values may be names, tokens and other people's data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} {:?}", self.class(), self.method(), self.id)?;
        f.debug_map()
            .entries(self.attributes().map(|(kind, value)| (kind, value.len())))
            .finish()
    }
}

/// Iterator over the attributes of a [`Message`] that count.
#[derive(Clone)]
pub struct Attributes<'a>(Counted<'a>);

impl<'a> Iterator for Attributes<'a> {
    type Item = (Attribute, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|found| (found.kind, found.value))
    }
}

/// The one place that knows which attributes count \[S4\].
#[derive(Clone)]
struct Counted<'a> {
    reader: Reader<'a>,
    /// The integrity attribute seen last.
    integrity: Option<Integrity>,
}

impl<'a> Iterator for Counted<'a> {
    type Item = RawAttribute<'a>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let found = self.reader.attribute()?;
            let counts = match self.integrity {
                None => true,
                Some(Integrity::Sha1) => {
                    matches!(
                        found.kind,
                        Attribute::MESSAGE_INTEGRITY_SHA256 | Attribute::FINGERPRINT
                    )
                }
                Some(Integrity::Sha256) => found.kind == Attribute::FINGERPRINT,
            };
            if counts {
                match found.kind {
                    Attribute::MESSAGE_INTEGRITY => self.integrity = Some(Integrity::Sha1),
                    Attribute::MESSAGE_INTEGRITY_SHA256 => self.integrity = Some(Integrity::Sha256),
                    _ => {}
                }
                return Some(found);
            }
        }
    }
}

/// Why bytes are no message. Nothing of this is ever answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParseError {
    /// The two top bits are not zero.
    NotStun,
    /// The magic cookie is missing: another protocol, or RFC 3489.
    Cookie,
    /// Shorter than a header, not as long as the header says, or no multiple of 4.
    Length,
    /// An attribute reaches behind the end.
    Attribute,
    /// FINGERPRINT is wrong or not the last attribute.
    Fingerprint,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotStun => "the top bits are not zero",
            Self::Cookie => "the magic cookie is missing",
            Self::Length => "the length is wrong",
            Self::Attribute => "an attribute reaches behind the end",
            Self::Fingerprint => "the fingerprint is wrong or not last",
        })
    }
}

impl std::error::Error for ParseError {}

/// An attribute is there, but its value is not of its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed attribute")
    }
}

impl std::error::Error for Malformed {}

/// The 96 bits that join request and response.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransactionId(pub [u8; 12]);

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

const ATTRIBUTE_HEADER_LENGTH: usize = 4;
const MOST_UNKNOWN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stun::{Writer, fingerprint};

    const ID: TransactionId = TransactionId([7; 12]);

    fn key() -> Key {
        Key::md5(b"user", b"realm", b"pass")
    }

    /// An Allocate request with `attributes`, which are whole: type, length, value, padding.
    fn request(attributes: &[&[u8]]) -> Vec<u8> {
        let attributes = attributes.concat();
        let mut bytes = vec![0, 3];
        bytes.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
        bytes.extend(MAGIC_COOKIE);
        bytes.extend(ID.0);
        bytes.extend(attributes);
        bytes
    }

    fn parsed_types(bytes: &[u8]) -> Vec<u16> {
        Message::parse(bytes)
            .unwrap()
            .attributes()
            .map(|(kind, _)| kind.0)
            .collect()
    }

    /// The attribute that protects what stands before it in a message that `request` makes.
    fn integrity(integrity: Integrity, before: &[&[u8]]) -> Vec<u8> {
        let value = integrity
            .with_value(&key(), &request(before), <[u8]>::to_vec)
            .unwrap();
        let mut attribute = integrity.attribute().0.to_be_bytes().to_vec();
        attribute.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        attribute.extend(value);
        attribute
    }

    const LIFETIME: &[u8] = &[0, 0x0D, 0, 4, 0, 0, 2, 88];
    const LATE_LIFETIME: &[u8] = &[0, 0x0D, 0, 4, 0, 0, 0, 0];

    #[test]
    fn s1_top_bits_cookie_and_length_are_checked() {
        let good = request(&[LIFETIME]);
        assert!(Message::parse(&good).is_ok());
        let broken = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            Message::parse(&bytes).unwrap_err()
        };
        assert_eq!(broken(0, 0x40), ParseError::NotStun);
        assert_eq!(broken(0, 0x80), ParseError::NotStun);
        assert_eq!(
            (4..8).map(|at| broken(at, 0)).collect::<Vec<_>>(),
            [ParseError::Cookie; 4]
        );
        assert_eq!(broken(3, 4), ParseError::Length);
        assert_eq!(broken(3, 12), ParseError::Length);
        assert_eq!(broken(23, 5), ParseError::Attribute);
    }

    #[test]
    fn s1_a_length_that_is_no_multiple_of_four_is_an_error() {
        for extra in 1..4 {
            let mut bytes = request(&[LIFETIME]);
            bytes.resize(bytes.len() + extra, 0);
            bytes[3] += u8::try_from(extra).unwrap();
            assert_eq!(Message::parse(&bytes).unwrap_err(), ParseError::Length);
        }
    }

    #[test]
    fn s1_every_cut_and_every_addition_is_an_error() {
        let good = request(&[LIFETIME, &[0, 0x13, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0]]);
        for cut in 0..good.len() {
            assert!(Message::parse(&good[..cut]).is_err(), "{cut}");
        }
        assert_eq!(
            Message::parse(&[&good[..], &[0]].concat()).unwrap_err(),
            ParseError::Length
        );
    }

    #[test]
    fn s2_padding_may_hold_anything() {
        let bytes = request(&[&[0x80, 0x22, 0, 1, b'x', 0xFF, 0xEE, 0xDD], LIFETIME]);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.software(), Some(Ok(&b"x"[..])));
        assert_eq!(message.lifetime(), Some(Ok(600)));
    }

    #[test]
    fn s3_the_first_occurrence_counts() {
        let bytes = request(&[LIFETIME, LATE_LIFETIME]);
        assert_eq!(Message::parse(&bytes).unwrap().lifetime(), Some(Ok(600)));
    }

    #[test]
    fn s4_attributes_after_integrity_are_ignored() {
        let mi = integrity(Integrity::Sha1, &[]);
        let bytes = request(&[&mi, LIFETIME]);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.lifetime(), None);
        assert!(message.verify(&key()));
        assert_eq!(parsed_types(&bytes), [0x0008]);
    }

    #[test]
    fn s4_only_sha256_integrity_and_fingerprint_count_after_integrity() {
        let mi = integrity(Integrity::Sha1, &[LIFETIME]);
        let mi256 = integrity(Integrity::Sha256, &[LIFETIME, &mi, LATE_LIFETIME]);
        let parts = [
            LIFETIME,
            &mi,
            LATE_LIFETIME,
            &mi256,
            LATE_LIFETIME,
            &mi256,
            &mi,
        ];
        assert_eq!(parsed_types(&request(&parts)), [0x000D, 0x0008, 0x001C]);
        assert!(Message::parse(&request(&parts)).unwrap().verify(&key()));

        let mi256_first = integrity(Integrity::Sha256, &[]);
        assert_eq!(
            parsed_types(&request(&[&mi256_first, &mi, LIFETIME])),
            [0x001C]
        );
    }

    #[test]
    fn s4_a_peer_after_integrity_is_no_peer() {
        let mi = integrity(Integrity::Sha1, &[]);
        let peer = [0, 0x12, 0, 8, 0, 1, 0x21, 0x12, 0x21, 0x12, 0xA4, 0x42];
        let bytes = request(&[&mi, &peer]);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(
            (
                message.xor_peer_address(),
                message.xor_peer_addresses().count()
            ),
            (None, 0)
        );
    }

    fn with_fingerprint(parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = request(&[&parts.concat(), &[0x80, 0x28, 0, 4, 0, 0, 0, 0]]);
        let at = bytes.len() - 8;
        let value = fingerprint::value(&bytes[..at]);
        bytes[at + 4..].copy_from_slice(&value);
        bytes
    }

    #[test]
    fn s5_a_right_fingerprint_is_taken_and_a_wrong_one_is_an_error() {
        let good = with_fingerprint(&[LIFETIME]);
        assert!(Message::parse(&good).unwrap().has_fingerprint());
        // Not the header of LIFETIME nor the type of FINGERPRINT: changed, they hide that there is
        // a fingerprint.
        let fingerprint = good.len() - 8;
        for byte in (0..20)
            .chain(24..fingerprint)
            .chain(fingerprint + 2..good.len())
        {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[byte] ^= 1 << bit;
                assert!(Message::parse(&bytes).is_err(), "byte {byte}, bit {bit}");
            }
        }
    }

    #[test]
    fn s5_a_fingerprint_that_is_not_last_is_an_error() {
        // Right for what stands before it, and for the length.
        let mut bytes = request(&[&[0x80, 0x28, 0, 4, 0, 0, 0, 0], LIFETIME]);
        let value = fingerprint::value(&bytes[..20]);
        bytes[24..28].copy_from_slice(&value);
        assert_eq!(Message::parse(&bytes).unwrap_err(), ParseError::Fingerprint);
    }

    #[test]
    fn s5_a_fingerprint_of_another_length_is_an_error() {
        for attribute in [
            &[0x80, 0x28, 0, 0][..],
            &[0x80, 0x28, 0, 3, 0, 0, 0, 0],
            &[0x80, 0x28, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(
                Message::parse(&request(&[attribute])).unwrap_err(),
                ParseError::Fingerprint
            );
        }
    }

    #[test]
    fn s6_only_the_whole_sha256_is_taken() {
        let whole = integrity(Integrity::Sha256, &[LIFETIME]);
        assert!(
            Message::parse(&request(&[LIFETIME, &whole]))
                .unwrap()
                .verify(&key())
        );
        for length in [0u8, 4, 16, 20, 24, 28] {
            // Each is what a sender that truncates would send: the length field of its HMAC is its
            // own.
            let value = Integrity::Sha256
                .with_value(&key(), &request(&[LIFETIME]), |value| {
                    value[..usize::from(length)].to_vec()
                })
                .unwrap();
            let bytes = request(&[LIFETIME, &[0, 0x1C, 0, length], &value]);
            let message = Message::parse(&bytes).unwrap();
            assert!(
                message.has_sha256_integrity() && !message.verify(&key()),
                "{length}"
            );
        }
    }

    #[test]
    fn sha256_integrity_is_not_downgraded_to_sha1() {
        let mi = integrity(Integrity::Sha1, &[]);
        let bytes = request(&[&mi, &[0, 0x1C, 0, 32], &[0; 32]]);
        assert!(!Message::parse(&bytes).unwrap().verify(&key()));
        let truncated = request(&[&mi, &[0, 0x1C, 0, 16], &[0; 16]]);
        assert!(!Message::parse(&truncated).unwrap().verify(&key()));
        let without = request(&[&mi]);
        assert!(Message::parse(&without).unwrap().verify(&key()));
    }

    #[test]
    fn s5_the_fingerprint_does_not_count_for_the_hmac() {
        let mi = integrity(Integrity::Sha1, &[LIFETIME]);
        let bytes = with_fingerprint(&[LIFETIME, &mi]);
        assert!(Message::parse(&bytes).unwrap().verify(&key()));
    }

    #[test]
    fn any_flipped_bit_before_integrity_breaks_it() {
        let mi = integrity(Integrity::Sha1, &[LIFETIME]);
        let good = request(&[LIFETIME, &mi]);
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(
                Message::parse(&bytes).is_err() || !Message::parse(&bytes).unwrap().verify(&key()),
                "bit {bit}"
            );
        }
        assert!(
            !Message::parse(&good)
                .unwrap()
                .verify(&Key::md5(b"user", b"realm", b"Pass"))
        );
    }

    #[test]
    fn without_integrity_nothing_verifies() {
        let bytes = request(&[LIFETIME]);
        let message = Message::parse(&bytes).unwrap();
        assert!(!message.has_integrity() && !message.verify(&key()));
    }

    #[test]
    fn s8_texts_are_taken_up_to_763_bytes() {
        for (length, good) in [
            (0, true),
            (508, true),
            (763, true),
            (764, false),
            (60_000, false),
        ] {
            for kind in [
                Attribute::USERNAME,
                Attribute::REALM,
                Attribute::NONCE,
                Attribute::SOFTWARE,
            ] {
                let mut bytes = Vec::new();
                let mut writer = Writer::new(&mut bytes, Class::Request, Method::ALLOCATE, ID);
                writer.bytes(kind, &vec![b'a'; length]);
                writer.finish();
                let message = Message::parse(&bytes).unwrap();
                let getters = [
                    message.username(),
                    message.realm(),
                    message.nonce(),
                    message.software(),
                ];
                let got = getters.into_iter().flatten().next().unwrap();
                assert_eq!(got.is_ok(), good, "{kind} of {length} bytes");
            }
        }
    }

    #[test]
    fn s12_unknown_required_attributes_are_listed_once_and_before_integrity_only() {
        let mi = integrity(Integrity::Sha1, &[]);
        let unknown = [&[0x40, 1, 0, 0][..], &[0x7F, 0xFF, 0, 0], &[0x40, 1, 0, 0]];
        let optional = [0xC0, 1, 0, 0];
        let bytes = request(&[
            &unknown.concat(),
            &optional,
            LIFETIME,
            &mi,
            &[0x40, 2, 0, 0],
        ]);
        let listed: Vec<_> = Message::parse(&bytes).unwrap().unknown_required().collect();
        assert_eq!(listed, [Attribute(0x4001), Attribute(0x7FFF)]);
    }

    #[test]
    fn s12_known_attributes_are_never_unknown() {
        for kind in Attribute::ALL
            .iter()
            .filter(|kind| **kind != Attribute::FINGERPRINT)
        {
            let [high, low] = kind.0.to_be_bytes();
            let bytes = request(&[&[high, low, 0, 0]]);
            assert_eq!(
                Message::parse(&bytes).unwrap().unknown_required().count(),
                0,
                "{kind}"
            );
        }
    }

    #[test]
    fn a13_at_most_16_unknown_attributes_are_listed() {
        let many: Vec<u8> = (0..300u16)
            .flat_map(|n| [0x40 | n.to_be_bytes()[0], n.to_be_bytes()[1], 0, 0])
            .collect();
        let bytes = request(&[&many]);
        let listed: Vec<_> = Message::parse(&bytes)
            .unwrap()
            .unknown_required()
            .map(|kind| kind.0)
            .collect();
        assert_eq!(listed, (0x4000..0x4010).collect::<Vec<_>>());
    }

    #[test]
    fn a38_data_that_reaches_behind_the_end_is_no_message() {
        let bytes = request(&[&[0, 0x13, 0xFF, 0xFF, 1, 2, 3, 4]]);
        assert_eq!(Message::parse(&bytes).unwrap_err(), ParseError::Attribute);
    }

    #[test]
    fn data_is_a_range_of_the_message() {
        let bytes = request(&[
            LIFETIME,
            &[0, 0x13, 0, 5, b'h', b'e', b'l', b'l', b'o', 0, 0, 0],
        ]);
        let range = Message::parse(&bytes).unwrap().data().unwrap();
        assert_eq!(&bytes[range], b"hello");
        let empty = request(&[&[0, 0x13, 0, 0]]);
        assert_eq!(Message::parse(&empty).unwrap().data(), Some(24..24));
    }

    #[test]
    fn debug_shows_no_values() {
        let bytes = request(&[&[0, 0x06, 0, 4, b'n', b'a', b'm', b'e']]);
        let shown = format!("{:?}", Message::parse(&bytes).unwrap());
        assert_eq!(
            shown,
            "Request Allocate 070707070707070707070707{USERNAME: 4}"
        );
    }
}
