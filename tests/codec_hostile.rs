//! The codec on hostile bytes: total, the same at every offset, and without a heap.

use std::hash::{DefaultHasher, Hash, Hasher};

use proptest::prelude::*;
use turnd::stun::framing::{Frame, next_frame, next_frame_within};
use turnd::stun::{
    Attribute, ChannelData, Class, ClassicMessage, Integrity, Key, Kind, Message, Method,
    ParseError, PasswordAlgorithm, TransactionId, Writer,
};

use allocations::{Counting, allocations};

#[path = "support/allocations.rs"]
mod allocations;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// An attribute of each shape: what its value begins with, what fills the rest, and which lengths
/// are then good.
struct Shape {
    kind: Attribute,
    start: &'static [u8],
    fill: u8,
    good: fn(usize) -> bool,
    /// Whether the getter finds it well-formed; `None` when it finds none.
    read: fn(&Message<'_>) -> Option<bool>,
}

macro_rules! shapes {
    ($($kind:ident $getter:ident $start:expr, $fill:literal, $good:expr;)*) => {
        &[$(Shape {
            kind: Attribute::$kind,
            start: &$start,
            fill: $fill,
            good: $good,
            read: |message| message.$getter().map(|value| value.is_ok()),
        }),*]
    };
}

const SHAPES: &[Shape] = shapes! {
    MAPPED_ADDRESS mapped_address [0, 1], 9, |length| length == 8;
    ALTERNATE_SERVER alternate_server [0, 2], 9, |length| length == 20;
    XOR_PEER_ADDRESS xor_peer_address [0, 1], 9, |length| length == 8;
    XOR_RELAYED_ADDRESS xor_relayed_address [0xFF, 2], 9, |length| length == 20;
    USERNAME username [], 0xFF, |length| length <= 763;
    ALTERNATE_DOMAIN alternate_domain [], b'a', |length| length <= 255;
    ACCESS_TOKEN access_token [], 0, |_| true;
    ERROR_CODE error_code [0, 0, 4, 1], b'x', |length| (4..4 + 128).contains(&length);
    ADDRESS_ERROR_CODE address_error_code [2, 0, 4, 40], b'x', |length| (4..4 + 128).contains(&length);
    LIFETIME lifetime [], 0xFF, |length| length == 4;
    CHANNEL_NUMBER channel_number [], 0x40, |length| length == 4;
    RESPONSE_PORT response_port [], 1, |length| length == 2 || length == 4;
    REQUESTED_TRANSPORT requested_transport [], 17, |length| length == 4;
    EVEN_PORT even_port [], 0x80, |length| length == 1;
    RESERVATION_TOKEN reservation_token [], 3, |length| length == 8;
    USERHASH userhash [], 3, |length| length == 32;
    PASSWORD_ALGORITHM password_algorithm [0, 2, 0, 0], 0, |length| length == 4;
    CHANGE_REQUEST change_request [], 6, |length| length == 4;
    ICMP icmp [], 3, |length| length == 8;
};

/// Every length the header can give against every length an attribute in it can give.
#[test]
fn a38_every_pair_of_header_length_and_attribute_length() {
    // One of each way of reading: as it is, by length, by fields, by fields and a rest.
    let kinds = [
        Attribute::USERNAME,
        Attribute::LIFETIME,
        Attribute::XOR_PEER_ADDRESS,
        Attribute::ERROR_CODE,
    ];
    for shape in SHAPES.iter().filter(|shape| kinds.contains(&shape.kind)) {
        let mut bytes = message_of(shape);
        for header_length in (0..=LONGEST).step_by(4) {
            for length in 0..=LONGEST {
                check_pair(shape, &mut bytes[..20 + header_length], length);
            }
        }
    }
}

/// Every shape with every attribute length, in a message that it fills, that has more, and that has
/// too little.
#[test]
fn a38_every_shape_with_every_attribute_length() {
    for shape in SHAPES {
        let mut bytes = message_of(shape);
        for length in 0..=LONGEST - 4 {
            let end = 24 + length.next_multiple_of(4);
            for end in [end - 4, end, end + 4, 20 + LONGEST] {
                check_pair(shape, &mut bytes[..end.min(20 + LONGEST)], length);
            }
        }
    }
}

/// A header, the attribute's beginning, and what fills the rest.
fn message_of(shape: &Shape) -> Vec<u8> {
    let mut bytes = header();
    bytes.resize(20 + LONGEST, shape.fill);
    bytes[20..22].copy_from_slice(&shape.kind.0.to_be_bytes());
    bytes[24..24 + shape.start.len()].copy_from_slice(shape.start);
    bytes
}

/// One pair; what the attribute leaves free must be an attribute too, or the message is broken for
/// another reason.
fn check_pair(shape: &Shape, bytes: &mut [u8], length: usize) {
    put_u16(bytes, 2, bytes.len() - 20);
    if bytes.len() > 20 {
        put_u16(bytes, 22, length);
    }
    let next = 24 + length.next_multiple_of(4);
    let rest = bytes.len().checked_sub(next);
    let mut kept = None;
    if let Some(free) = rest.filter(|free| *free > 0) {
        kept = Some([
            bytes[next],
            bytes[next + 1],
            bytes[next + 2],
            bytes[next + 3],
        ]);
        bytes[next..next + 2].copy_from_slice(&[0xC0, 0x00]);
        put_u16(bytes, next + 2, free - 4);
    }
    let read = Message::parse(bytes).map(|message| (shape.read)(&message));
    let expected = match rest {
        _ if bytes.len() == 20 => Ok(None),
        Some(_) => Ok(Some((shape.good)(length))),
        None => Err(ParseError::Attribute),
    };
    assert_eq!(
        read,
        expected,
        "{} of {length} in {}",
        shape.kind,
        bytes.len()
    );
    if let Some(kept) = kept {
        bytes[next..next + 4].copy_from_slice(&kept);
    }
}

/// The header's length against the real one, whatever stands in the message.
#[test]
fn a38_a_header_that_lies_is_no_message() {
    let mut bytes = header();
    bytes.resize(20 + 1500, 0);
    for real in 0..=1500 {
        let bytes = &mut bytes[..20 + real];
        for told in 0..=1500 {
            put_u16(bytes, 2, told);
            let good = told == real && told % 4 == 0;
            // Zeros are attributes of type and length 0: only the length can be wrong.
            if !good || real < 64 {
                assert_eq!(
                    Message::parse(bytes).is_ok(),
                    good,
                    "{told} told, {real} there"
                );
            }
        }
    }
}

#[test]
fn a39_the_offset_in_the_buffer_changes_nothing() {
    for item in corpus() {
        let expected = look(&item);
        for offset in 0..8 {
            let mut buffer = vec![0xA5; offset];
            buffer.extend(&item);
            assert_eq!(
                look(&buffer[offset..]),
                expected,
                "at offset {offset}: {item:02x?}"
            );
        }
    }
}

#[test]
fn a39_the_longest_messages_are_read_whole() {
    let mut bytes = header();
    put_u16(&mut bytes, 2, 65_532);
    bytes.extend([0x00, 0x13, 0xFF, 0xF8]);
    bytes.resize(20 + 65_532, 7);
    assert_eq!(
        Message::parse(&bytes).unwrap().data(),
        Some(24..20 + 65_532)
    );
    assert_eq!(
        next_frame(&bytes),
        Frame::Whole {
            frame: 65_552,
            message: 65_552
        }
    );

    let mut channel_data = vec![0x40, 0x00, 0xFF, 0xFF];
    channel_data.resize(4 + 65_535 + 1, 7);
    assert_eq!(ChannelData::parse(&channel_data).unwrap().body, 4..65_539);
    assert_eq!(
        next_frame(&channel_data),
        Frame::Whole {
            frame: 65_540,
            message: 65_539
        }
    );
}

#[test]
fn nothing_is_allocated_while_parsing_and_verifying() {
    for item in corpus() {
        let (count, _) = allocations(|| look(&item));
        assert_eq!(count, 0, "{item:02x?}");
    }
}

#[test]
fn nothing_is_allocated_while_writing_into_a_buffer_with_room() {
    let mut buffer = Vec::with_capacity(1024);
    let (count, ()) = allocations(|| {
        write_everything(&mut buffer, Integrity::Sha1);
        buffer.clear();
        write_everything(&mut buffer, Integrity::Sha256);
    });
    assert_eq!(count, 0);
    assert!(Message::parse(&buffer).unwrap().verify(&key()));
}

/// A message of nothing but unknown types costs no more than a walk over it.
#[test]
fn a38_a_message_of_16_000_attributes_is_cheap() {
    let mut bytes = header();
    let count = 65_532 / 4;
    put_u16(&mut bytes, 2, count * 4);
    (0..count).for_each(|at| bytes.extend([0x40 | (at >> 8) as u8 & 0x3F, at as u8, 0, 0]));
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.attributes().count(), count);
    assert_eq!(message.unknown_required().count(), 16);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_looked_at_in_peace(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        look(&bytes);
        let mut headed = header();
        put_u16(&mut headed, 2, bytes.len() & !3);
        headed.extend(&bytes[..bytes.len() & !3]);
        look(&headed);
    }

    #[test]
    fn a_damaged_message_is_looked_at_in_peace(
        at in any::<proptest::sample::Index>(), byte in any::<u8>(), which in 0..100usize
    ) {
        let corpus = corpus();
        let mut bytes = corpus[which % corpus.len()].clone();
        let length = bytes.len();
        if length > 0 {
            bytes[at.index(length)] = byte;
        }
        look(&bytes);
    }

    #[test]
    fn a_frame_is_never_longer_than_asked_for(
        bytes in proptest::collection::vec(any::<u8>(), 0..40), first in 0..80u8, largest in 0..64usize
    ) {
        let bytes = [&[first][..], &bytes].concat();
        match next_frame_within(&bytes, largest) {
            Frame::Whole { frame, message } => {
                prop_assert!(frame <= bytes.len() && frame <= largest && frame % 4 == 0);
                prop_assert!(message <= frame && frame - message < 4 && message >= 4);
                // More bytes behind it change nothing.
                prop_assert_eq!(next_frame_within(&bytes[..frame], largest), Frame::Whole { frame, message });
            }
            Frame::NeedMore(wanted) => prop_assert!(wanted > bytes.len()),
            Frame::Garbage => {}
        }
    }
}

/// Asks everything there is to ask, and returns a digest of the answers.
fn look(bytes: &[u8]) -> u64 {
    let mut seen = DefaultHasher::new();
    (Kind::of(bytes) == Kind::Stun).hash(&mut seen);
    if let Frame::Whole { frame, message } = next_frame(bytes) {
        (frame, message).hash(&mut seen);
    }
    if let Some(channel_data) = ChannelData::parse(bytes) {
        (channel_data.number, channel_data.body, channel_data.data).hash(&mut seen);
    }
    match Message::parse(bytes) {
        Ok(message) => look_at_message(&message, &mut seen),
        Err(error) => error.hash(&mut seen),
    }
    if let Some(classic) = ClassicMessage::parse(bytes) {
        (classic.method(), classic.class(), classic.transaction_id()).hash(&mut seen);
        classic.change_request().hash(&mut seen);
        classic.required().for_each(|kind| kind.hash(&mut seen));
    }
    seen.finish()
}

fn look_at_message(message: &Message<'_>, seen: &mut impl Hasher) {
    (message.method(), message.class(), message.transaction_id()).hash(seen);
    message
        .attributes()
        .for_each(|attribute| attribute.hash(seen));
    message.unknown_required().for_each(|kind| kind.hash(seen));
    message
        .unknown_attributes()
        .for_each(|kind| kind.hash(seen));
    message
        .xor_peer_addresses()
        .for_each(|address| address.hash(seen));
    message
        .xor_relayed_addresses()
        .for_each(|address| address.hash(seen));
    message
        .alternate_servers()
        .for_each(|address| address.hash(seen));
    for shape in SHAPES {
        (shape.read)(message).hash(seen);
    }
    (
        message.realm(),
        message.nonce(),
        message.software(),
        message.padding(),
    )
        .hash(seen);
    (
        message.requested_address_family(),
        message.additional_address_family(),
    )
        .hash(seen);
    (
        message.xor_mapped_address(),
        message.response_origin(),
        message.other_address(),
    )
        .hash(seen);
    (
        message.error_code(),
        message.mobility_ticket(),
        message.connection_id(),
    )
        .hash(seen);
    (
        message.data(),
        message.dont_fragment(),
        message.has_fingerprint(),
    )
        .hash(seen);
    (message.third_party_authorization(), message.has_integrity()).hash(seen);
    let list = message.password_algorithms().unwrap_or_default();
    PasswordAlgorithm::entries(list).for_each(|entry| entry.hash(seen));
    message.verify(&key()).hash(seen);
}

/// Messages of every kind, whole and cut.
fn corpus() -> Vec<Vec<u8>> {
    let mut items = vec![
        header(),
        [
            &[0, 1, 0, 12][..],
            b"sixteen bytes id",
            &[0, 3, 0, 4, 0, 0, 0, 6, 0, 2, 0, 0],
        ]
        .concat(),
        vec![0x40, 1, 0, 3, 1, 2, 3],
        vec![0x4F, 0xFF, 0, 9, 1],
        vec![],
    ];
    for integrity in [Integrity::Sha1, Integrity::Sha256] {
        let mut message = Vec::new();
        write_everything(&mut message, integrity);
        items.push(message[..message.len() - 3].to_vec());
        items.push(message);
    }
    items
}

/// A message with an attribute of each shape.
fn write_everything(buffer: &mut Vec<u8>, integrity: Integrity) {
    let id = TransactionId(*b"transaction!");
    let mut writer = Writer::new(buffer, Class::Request, Method::ALLOCATE, id);
    let address = "[2001:db8::1]:3478".parse().expect("an address");
    for shape in SHAPES {
        let length = (0..40)
            .rev()
            .find(|length| (shape.good)(*length))
            .expect("a short good length");
        let mut value = [shape.fill; 40];
        value[..shape.start.len()].copy_from_slice(shape.start);
        writer.bytes(shape.kind, &value[..length]);
    }
    writer
        .xor_address(Attribute::XOR_PEER_ADDRESS, address)
        .address(Attribute::OTHER_ADDRESS, address)
        .unknown_attributes([Attribute(1), Attribute(2), Attribute(3)].into_iter())
        .bytes(Attribute::PASSWORD_ALGORITHMS, &[0, 2, 0, 0, 0, 1, 0, 0])
        .bytes(Attribute::DATA, b"hello")
        .bytes(Attribute(0x7ABC), b"unknown")
        .flag(Attribute::DONT_FRAGMENT)
        .fingerprint();
    writer.finish_with_integrity(&key(), integrity);
}

/// A Binding request without attributes.
fn header() -> Vec<u8> {
    [&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], b"transaction!"].concat()
}

fn put_u16(bytes: &mut [u8], at: usize, value: usize) {
    bytes[at..at + 2].copy_from_slice(&u16::try_from(value).expect("16 bits").to_be_bytes());
}

fn key() -> Key {
    Key::md5(b"user", b"realm", b"pass")
}

/// A usual path's largest datagram.
const LONGEST: usize = 1500;
