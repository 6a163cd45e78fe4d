//! The codec against other people's and against itself.
//!
//! The rule, since the `stun` crate is lenient by design:
//! 1. what we write, it decodes to the same values, and its checks hold;
//! 2. what we accept, it accepts, with the same attributes up to the integrity attribute;
//! 3. what it accepts and we reject falls in the written list: `is_on_the_list`.
//!
//! It knows no SHA-256; `stun-types`, of another lineage, vouches for that.

use std::net::{IpAddr, SocketAddr};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use stun::addr::MappedAddress;
use stun::attributes::AttrType;
use stun::error_code::ErrorCodeAttribute;
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{Getter, Message as Theirs, Setter};
use stun::uattrs::UnknownAttributes;
use stun::xoraddr::XorMappedAddress;
use turn::proto::chandata::ChannelData as TheirChannelData;
use turn_client_proto::stun::types::message as third;
use turnd::stun::{
    Attribute, ChannelData, Class, ErrorCode, Integrity, Key, Message, Method, ParseError,
    TransactionId, Writer,
};

/// One attribute to be written, by its shape.
#[derive(Clone, Debug)]
enum Value {
    Bytes(Attribute, Vec<u8>),
    U32(Attribute, u32),
    Address(Attribute, SocketAddr),
    XorAddress(Attribute, SocketAddr),
    Error(ErrorCode, String),
    Unknown(Vec<u16>),
}

#[derive(Clone, Debug)]
struct Plan {
    class: Class,
    method: Method,
    id: TransactionId,
    values: Vec<Value>,
    integrity: Option<Integrity>,
    fingerprint: bool,
}

impl Plan {
    fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, self.class, self.method, self.id);
        if self.fingerprint {
            writer.fingerprint();
        }
        for value in &self.values {
            match value {
                Value::Bytes(kind, value) => writer.bytes(*kind, value),
                Value::U32(kind, value) => writer.u32(*kind, *value),
                Value::Address(kind, address) => writer.address(*kind, *address),
                Value::XorAddress(kind, address) => writer.xor_address(*kind, *address),
                Value::Error(code, reason) => writer.error(*code, reason),
                Value::Unknown(list) => {
                    writer.unknown_attributes(list.iter().map(|kind| Attribute(*kind)))
                }
            };
        }
        match self.integrity {
            Some(integrity) => writer.finish_with_integrity(&key(integrity), integrity),
            None => writer.finish(),
        }
        bytes
    }
}

fn key(integrity: Integrity) -> Key {
    match integrity {
        Integrity::Sha1 => Key::md5(b"user", b"realm", b"pass"),
        Integrity::Sha256 => Key::sha256(b"user", b"realm", b"pass"),
    }
}

fn their_key() -> MessageIntegrity {
    MessageIntegrity::new_long_term_integrity("user".into(), "realm".into(), "pass".into())
}

fn decode_theirs(bytes: &[u8]) -> Option<Theirs> {
    let mut message = Theirs::new();
    message.unmarshal_binary(bytes).ok().map(|()| message)
}

/// What is not in the message in its own right: the last two by which a message ends, and what the
/// other crate renames.
fn is_plain(kind: Attribute) -> bool {
    !matches!(
        kind,
        Attribute::MESSAGE_INTEGRITY
            | Attribute::MESSAGE_INTEGRITY_SHA256
            | Attribute::FINGERPRINT
            | RENAMED
    )
}

/// XOR-MAPPED-ADDRESS before RFC 5389; the other crate reads it as 0x0020.
const RENAMED: Attribute = Attribute(0x8020);

fn attribute() -> impl Strategy<Value = Attribute> {
    prop_oneof![3 => select(Attribute::ALL), 1 => any::<u16>().prop_map(Attribute)]
        .prop_filter("an attribute in its own right", |kind| is_plain(*kind))
}

fn address() -> impl Strategy<Value = SocketAddr> {
    any::<(IpAddr, u16)>().prop_map(SocketAddr::from)
}

fn value() -> impl Strategy<Value = Value> {
    let code = (300..=699u16).prop_map(ErrorCode);
    let plain = select(&[Attribute::MAPPED_ADDRESS, Attribute::OTHER_ADDRESS][..]);
    let xored = select(&[Attribute::XOR_MAPPED_ADDRESS, Attribute::XOR_PEER_ADDRESS][..]);
    prop_oneof![
        4 => (attribute(), vec(any::<u8>(), 0..48)).prop_map(|(kind, value)| Value::Bytes(kind, value)),
        1 => (attribute(), any::<u32>()).prop_map(|(kind, value)| Value::U32(kind, value)),
        1 => (plain, address()).prop_map(|(kind, address)| Value::Address(kind, address)),
        2 => (xored, address()).prop_map(|(kind, address)| Value::XorAddress(kind, address)),
        1 => (code, "\\PC{0,40}").prop_map(|(code, reason)| Value::Error(code, reason)),
        1 => vec(any::<u16>(), 0..20).prop_map(Value::Unknown),
    ]
}

fn plan(integrity: impl Strategy<Value = Option<Integrity>>) -> impl Strategy<Value = Plan> {
    let class = select(
        &[
            Class::Request,
            Class::Indication,
            Class::Success,
            Class::Error,
        ][..],
    );
    let method = (0..0x1000u16).prop_map(Method);
    let id = any::<[u8; 12]>().prop_map(TransactionId);
    (
        class,
        method,
        id,
        vec(value(), 0..8),
        integrity,
        any::<bool>(),
    )
        .prop_map(|(class, method, id, values, integrity, fingerprint)| Plan {
            class,
            method,
            id,
            values,
            integrity,
            fingerprint,
        })
}

fn any_integrity() -> impl Strategy<Value = Option<Integrity>> {
    select(&[None, Some(Integrity::Sha1), Some(Integrity::Sha256)][..])
}

/// What may happen to a message on its way.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Set(Index, u8),
    /// Puts a type of the table where a word begins.
    Retype(Index, Attribute),
    Cut(Index),
    Extend(Vec<u8>),
    /// Adds a word, and its length to the header.
    Insert(Index, [u8; 4]),
    Length(u16),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let bits = bytes.len();
        match self {
            _ if bits < 4 => {}
            Self::Flip(at, bit) => bytes[at.index(bits)] ^= 1 << (bit % 8),
            Self::Set(at, byte) => bytes[at.index(bits)] = *byte,
            Self::Retype(at, kind) => {
                let at = at.index(bits / 4) * 4;
                bytes[at..at + 2].copy_from_slice(&kind.0.to_be_bytes());
            }
            Self::Cut(at) => bytes.truncate(at.index(bits)),
            Self::Extend(more) => bytes.extend(more),
            Self::Insert(at, word) => {
                let at = at.index(bits / 4) * 4;
                bytes.splice(at..at, *word);
                let length = u16::from_be_bytes([bytes[2], bytes[3]]).wrapping_add(4);
                bytes[2..4].copy_from_slice(&length.to_be_bytes());
            }
            Self::Length(length) => bytes[2..4].copy_from_slice(&length.to_be_bytes()),
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<Index>;
    prop_oneof![
        4 => (index(), any::<u8>()).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        2 => (index(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        3 => (index(), select(Attribute::ALL)).prop_map(|(at, kind)| Damage::Retype(at, kind)),
        1 => index().prop_map(Damage::Cut),
        1 => vec(any::<u8>(), 1..9).prop_map(Damage::Extend),
        3 => (index(), any::<[u8; 4]>()).prop_map(|(at, word)| Damage::Insert(at, word)),
        1 => (0..200u16).prop_map(Damage::Length),
    ]
}

/// Bytes of every kind: well-formed, nearly so, and not at all.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let damaged = (plan(any_integrity()), vec(damage(), 0..4)).prop_map(|(plan, damage)| {
        let mut bytes = plan.write();
        damage.iter().for_each(|damage| damage.apply(&mut bytes));
        bytes
    });
    let headed = vec(any::<u8>(), 0..80).prop_map(|body| {
        let length = u16::try_from(body.len()).expect("short").to_be_bytes();
        [
            &[0, 1][..],
            &length,
            &[0x21, 0x12, 0xA4, 0x42],
            &[9; 12],
            &body,
        ]
        .concat()
    });
    prop_oneof![8 => damaged, 2 => headed, 1 => vec(any::<u8>(), 0..200)]
}

/// Rule 3: why we reject what the other crate accepts. It is asked itself where it has an opinion.
fn is_on_the_list(error: ParseError, bytes: &[u8], theirs: &Theirs) -> bool {
    let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    let kinds = &theirs.attributes.0;
    match error {
        ParseError::NotStun => bytes[0] & 0xC0 != 0,
        ParseError::Length => bytes.len() > 20 + length || length % 4 != 0,
        ParseError::Fingerprint => {
            kinds
                .iter()
                .rev()
                .skip(1)
                .any(|attribute| attribute.typ.0 == Attribute::FINGERPRINT.0)
                || FINGERPRINT.check(theirs).is_err()
        }
        ParseError::Cookie | ParseError::Attribute => false,
    }
}

/// Our attributes in the other crate's terms, up to the integrity attribute and with it.
fn comparable(attributes: impl Iterator<Item = (Attribute, Vec<u8>)>) -> Vec<(u16, Vec<u8>)> {
    let mut compared = Vec::new();
    for (kind, value) in attributes {
        compared.push((if kind == RENAMED { 0x0020 } else { kind.0 }, value));
        if matches!(
            kind,
            Attribute::MESSAGE_INTEGRITY | Attribute::MESSAGE_INTEGRITY_SHA256
        ) {
            break;
        }
    }
    compared
}

fn ours_and_theirs_agree(message: Message<'_>, theirs: &Theirs) -> Result<(), TestCaseError> {
    let id = message.transaction_id();
    prop_assert_eq!(id.0, theirs.transaction_id.0);
    let kind = theirs.typ.value();
    prop_assert_eq!(
        message.as_bytes()[..2].to_vec(),
        kind.to_be_bytes().to_vec()
    );
    let ours = message
        .attributes()
        .map(|(kind, value)| (kind, value.to_vec()));
    let raw = theirs.attributes.0.iter();
    let raw = raw.map(|raw| (Attribute(raw.typ.value()), raw.value.clone()));
    prop_assert_eq!(comparable(ours), comparable(raw));
    Ok(())
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(2_000))]

    /// Rule 1, bytes: attributes, integrity and fingerprint.
    #[test]
    fn what_we_write_the_other_crate_decodes_and_verifies(
        plan in plan(select(&[None, Some(Integrity::Sha1)][..]))
    ) {
        let bytes = plan.write();
        let mut theirs = decode_theirs(&bytes).expect("decodes");
        ours_and_theirs_agree(Message::parse(&bytes).expect("parses"), &theirs)?;
        if plan.integrity.is_some() {
            prop_assert!(their_key().check(&mut theirs).is_ok());
        }
        prop_assert_eq!(FINGERPRINT.check(&theirs).is_ok(), plan.fingerprint);
    }

    /// Rule 1, values: one attribute each, so that the first is the one.
    #[test]
    fn what_we_write_the_other_crate_reads_as_the_same_value(
        id in any::<[u8; 12]>(), value in value()
    ) {
        let plan = Plan {
            class: Class::Error,
            method: Method::ALLOCATE,
            id: TransactionId(id),
            values: vec![value.clone()],
            integrity: None,
            fingerprint: false,
        };
        let bytes = plan.write();
        let theirs = decode_theirs(&bytes).expect("decodes");
        match value {
            Value::Bytes(kind, value) => prop_assert_eq!(theirs.get(AttrType(kind.0)).unwrap(), value),
            Value::U32(kind, value) => {
                prop_assert_eq!(theirs.get(AttrType(kind.0)).unwrap(), value.to_be_bytes().to_vec());
            }
            Value::Address(kind, address) => {
                let mut read = MappedAddress::default();
                read.get_from_as(&theirs, AttrType(kind.0)).unwrap();
                prop_assert_eq!(SocketAddr::new(read.ip, read.port), address);
            }
            Value::XorAddress(kind, address) => {
                let mut read = XorMappedAddress::default();
                read.get_from_as(&theirs, AttrType(kind.0)).unwrap();
                prop_assert_eq!(SocketAddr::new(read.ip, read.port), address);
            }
            Value::Error(code, reason) => {
                let mut read = ErrorCodeAttribute::default();
                read.get_from(&theirs).unwrap();
                prop_assert_eq!((read.code.0, read.reason), (code.0, reason.into_bytes()));
            }
            Value::Unknown(list) => {
                let mut read = UnknownAttributes(Vec::new());
                read.get_from(&theirs).unwrap();
                prop_assert_eq!(read.0.iter().map(|kind| kind.0).collect::<Vec<_>>(), list);
            }
        }
    }

    /// Rule 1, the other way round.
    #[test]
    fn what_the_other_crate_writes_we_read_and_verify(
        id in any::<[u8; 12]>(),
        raw in vec((attribute(), vec(any::<u8>(), 0..48)), 0..8),
        address in address(),
    ) {
        let mut theirs = Theirs::new();
        theirs.transaction_id.0 = id;
        theirs.write_header();
        for (kind, value) in &raw {
            theirs.add(AttrType(kind.0), value);
        }
        let peer = XorMappedAddress { ip: address.ip(), port: address.port() };
        peer.add_to_as(&mut theirs, AttrType(0x0012)).unwrap();
        their_key().add_to(&mut theirs).unwrap();
        FINGERPRINT.add_to(&mut theirs).unwrap();

        let message = Message::parse(&theirs.raw).expect("parses");
        ours_and_theirs_agree(message, &theirs)?;
        prop_assert!(message.has_fingerprint() && message.verify(&key(Integrity::Sha1)));
        prop_assert_eq!(message.xor_peer_addresses().last(), Some(Ok(address)));
    }

    /// SHA-256, by a crate of another lineage.
    #[test]
    fn what_we_sign_with_sha256_another_lineage_verifies(plan in plan(Just(Some(Integrity::Sha256)))) {
        let bytes = plan.write();
        prop_assert!(Message::parse(&bytes).unwrap().verify(&key(Integrity::Sha256)));
        let theirs = third::Message::from_bytes(&bytes).expect("decodes");
        let credentials = third::LongTermCredentials::new("user".into(), "pass".into());
        let key = credentials.to_key("realm".into()).make_key(third::IntegrityAlgorithm::Sha256);
        let verified = theirs.validate_integrity_with_key(&key);
        prop_assert!(matches!(verified, Ok(third::IntegrityAlgorithm::Sha256)), "{:?}", verified);
    }

    /// Against ourselves: what was written is what is parsed.
    #[test]
    fn what_we_write_we_read(plan in plan(any_integrity())) {
        let bytes = plan.write();
        let message = Message::parse(&bytes).expect("parses");
        prop_assert_eq!(message.class(), plan.class);
        prop_assert_eq!(message.method(), plan.method);
        prop_assert_eq!(message.has_fingerprint(), plan.fingerprint);
        prop_assert_eq!(message.has_integrity(), plan.integrity.is_some());
        if let Some(integrity) = plan.integrity {
            prop_assert!(message.verify(&key(integrity)));
            prop_assert_eq!(message.has_sha256_integrity(), integrity == Integrity::Sha256);
        }
        let ends = usize::from(plan.integrity.is_some()) + usize::from(plan.fingerprint);
        prop_assert_eq!(message.attributes().count(), plan.values.len() + ends);
    }
}

proptest! {
    #![proptest_config(config(8_000))]

    /// Rules 2 and 3.
    #[test]
    fn what_we_accept_it_accepts_and_what_we_reject_is_on_the_list(bytes in hostile()) {
        match (Message::parse(&bytes), decode_theirs(&bytes)) {
            (Ok(message), Some(mut theirs)) => {
                ours_and_theirs_agree(message, &theirs)?;
                if message.has_integrity() && !message.has_sha256_integrity() {
                    let verified = their_key().check(&mut theirs).is_ok();
                    prop_assert_eq!(message.verify(&key(Integrity::Sha1)), verified);
                }
            }
            (Err(error), Some(theirs)) => prop_assert!(is_on_the_list(error, &bytes, &theirs), "{}", error),
            (Ok(message), None) => prop_assert!(false, "only we accept {:?}", message),
            (Err(_), None) => {}
        }
    }

    /// ChannelData: the same.
    #[test]
    fn channel_data_is_read_alike(
        number in 0x3FF0..0x8010u16, length in 0..40u16, body in vec(any::<u8>(), 0..40), cut in 0..6usize
    ) {
        let mut bytes = [&number.to_be_bytes()[..], &length.to_be_bytes(), &body].concat();
        bytes.truncate(if cut < 4 { cut } else { bytes.len() });
        let mut theirs = TheirChannelData { raw: bytes.clone(), ..Default::default() };
        let accepted = theirs.decode().is_ok();
        match ChannelData::parse(&bytes) {
            Some(ours) => {
                prop_assert!(accepted);
                prop_assert_eq!((ours.number.get(), ours.data), (theirs.number.0, &theirs.data[..]));
                prop_assert_eq!(&bytes[ours.body], ours.data);
            }
            None => prop_assert!(!accepted),
        }
    }
}
