//! What the codec costs per message: nanoseconds and heap allocations, beside the `stun` and `turn`
//! crates.
//!
//! Measured: one message in cache, parsed, verified or written again and again on one core.
//! Allocate is a signed request as browsers send it. Limits: nothing of sockets, look-ups or cold
//! caches; the other crates own what they decode and were never tuned, so the absolute numbers say
//! more than the ratios. Both sides parse and read the same attributes, but only ours checks
//! lengths, order and FINGERPRINT while parsing. They know no SHA-256.

#![allow(
    clippy::print_stdout,
    missing_docs,
    reason = "a bench reports, and criterion makes its main"
)]

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use stun::attributes::{
    ATTR_DATA, ATTR_NONCE, ATTR_REALM, ATTR_REQUESTED_TRANSPORT, ATTR_USERNAME,
    ATTR_XOR_PEER_ADDRESS,
};
use stun::integrity::MessageIntegrity;
use stun::message::{BINDING_SUCCESS, Message as TheirMessage, Setter};
use stun::xoraddr::XorMappedAddress;
use turn::proto::chandata::ChannelData as TheirChannelData;
use turnd::stun::{
    Attribute, ChannelData, ChannelNumber, Class, Integrity, Key, Message, Method, TransactionId,
    Writer, data_indication_head,
};

use allocations::{Counting, allocations};

#[path = "../tests/support/allocations.rs"]
mod allocations;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ID: TransactionId = TransactionId(*b"transaction!");
const PAYLOAD: [u8; 1000] = [0x5A; 1000];

fn parse(criterion: &mut Criterion) {
    let mut compare = Comparison::new(criterion, "parse");

    let binding = message(Class::Request, Method::BINDING, |_| {});
    compare.ours("Binding", || Message::parse(black_box(&binding)).is_ok());
    let mut theirs = TheirMessage::new();
    compare.theirs("Binding", || {
        theirs.unmarshal_binary(black_box(&binding)).is_ok()
    });

    let allocate = allocate(Integrity::Sha1);
    compare.ours("Allocate", || Message::parse(black_box(&allocate)).is_ok());
    compare.theirs("Allocate", || {
        theirs.unmarshal_binary(black_box(&allocate)).is_ok()
    });

    // Ours looks a value up when it is asked for, theirs has copied all and copies again.
    compare.ours("Allocate and read 4 values", || {
        let message = Message::parse(black_box(&allocate)).ok()?;
        Some((
            message.username(),
            message.realm(),
            message.nonce(),
            message.requested_transport(),
        ))
    });
    compare.theirs("Allocate and read 4 values", || {
        theirs.unmarshal_binary(black_box(&allocate)).ok()?;
        Some((
            theirs.get(ATTR_USERNAME),
            theirs.get(ATTR_REALM),
            theirs.get(ATTR_NONCE),
            theirs.get(ATTR_REQUESTED_TRANSPORT),
        ))
    });

    let send = message(Class::Indication, Method::SEND, |writer| {
        writer
            .xor_address(Attribute::XOR_PEER_ADDRESS, peer())
            .bytes(Attribute::DATA, &PAYLOAD);
    });
    compare.ours("Send, 1000 bytes", || {
        let message = Message::parse(black_box(&send)).ok()?;
        Some((message.xor_peer_address(), message.data()))
    });
    compare.theirs("Send, 1000 bytes", || {
        theirs.unmarshal_binary(black_box(&send)).ok()?;
        let mut peer = XorMappedAddress::default();
        peer.get_from_as(&theirs, ATTR_XOR_PEER_ADDRESS).ok()?;
        Some((peer.port, theirs.get(ATTR_DATA)))
    });

    let channel_data = [&[0x40, 0x00, 0x03, 0xE8][..], &PAYLOAD].concat();
    compare.ours("ChannelData, 1000 bytes", || {
        ChannelData::parse(black_box(&channel_data)).map(|data| data.body)
    });
    compare.theirs("ChannelData, 1000 bytes", || {
        let mut theirs = TheirChannelData {
            raw: black_box(&channel_data).clone(),
            ..Default::default()
        };
        theirs.decode().is_ok()
    });
}

fn verify(criterion: &mut Criterion) {
    let mut compare = Comparison::new(criterion, "verify");
    let (sha1, sha256) = (allocate(Integrity::Sha1), allocate(Integrity::Sha256));
    let key = key();

    compare.ours("Allocate, SHA-1", || parsed(&sha1).verify(black_box(&key)));
    let mut theirs = TheirMessage::new();
    theirs.unmarshal_binary(&sha1).expect("decodes");
    let their_key = their_key();
    compare.theirs("Allocate, SHA-1", || {
        their_key.check(black_box(&mut theirs)).is_ok()
    });
    compare.ours("Allocate, SHA-256", || {
        parsed(&sha256).verify(black_box(&key))
    });
}

fn write(criterion: &mut Criterion) {
    let mut compare = Comparison::new(criterion, "write");
    let mut buffer = Vec::with_capacity(2048);

    compare.ours("Binding success", || {
        buffer.clear();
        let mut writer = Writer::new(&mut buffer, Class::Success, Method::BINDING, black_box(ID));
        writer.xor_address(Attribute::XOR_MAPPED_ADDRESS, peer());
        writer.finish();
        buffer.len()
    });
    let mut theirs = TheirMessage::new();
    compare.theirs("Binding success", || {
        begin_theirs(&mut theirs);
        XorMappedAddress {
            ip: peer().ip(),
            port: peer().port(),
        }
        .add_to(&mut theirs)
        .is_ok()
    });

    let key = key();
    compare.ours("Allocate success, SHA-1", || {
        buffer.clear();
        let mut writer = Writer::new(&mut buffer, Class::Success, Method::ALLOCATE, black_box(ID));
        writer
            .xor_address(Attribute::XOR_RELAYED_ADDRESS, peer())
            .u32(Attribute::LIFETIME, 600)
            .xor_address(Attribute::XOR_MAPPED_ADDRESS, peer());
        writer.finish_with_integrity(&key, Integrity::Sha1);
        buffer.len()
    });
    let their_key = their_key();
    compare.theirs("Allocate success, SHA-1", || {
        begin_theirs(&mut theirs);
        let address = XorMappedAddress {
            ip: peer().ip(),
            port: peer().port(),
        };
        address
            .add_to_as(&mut theirs, stun::attributes::ATTR_XOR_RELAYED_ADDRESS)
            .ok()?;
        theirs.add(stun::attributes::ATTR_LIFETIME, &600u32.to_be_bytes());
        address.add_to(&mut theirs).ok()?;
        their_key.add_to(&mut theirs).ok()
    });

    // Ours gathers head and payload when sending, theirs copies the payload behind the head.
    let mut head = [0; 48];
    compare.ours("Data, head of 1000 bytes", || {
        data_indication_head(black_box(ID), peer(), PAYLOAD.len(), &mut head)
    });
    compare.theirs("Data, head of 1000 bytes", || {
        begin_theirs(&mut theirs);
        let address = XorMappedAddress {
            ip: peer().ip(),
            port: peer().port(),
        };
        address.add_to_as(&mut theirs, ATTR_XOR_PEER_ADDRESS).ok()?;
        theirs.add(ATTR_DATA, black_box(&PAYLOAD));
        Some(())
    });

    let number = ChannelNumber::new(0x4000).expect("in range");
    compare.ours("ChannelData, head of 1000 bytes", || {
        black_box(number).header(1000)
    });
    compare.theirs("ChannelData, head of 1000 bytes", || {
        let mut theirs = TheirChannelData {
            data: black_box(PAYLOAD).to_vec(),
            ..Default::default()
        };
        theirs.number.0 = 0x4000;
        theirs.encode();
        theirs.raw.len()
    });
}

/// Runs pairs, and first counts what each allocates; ours must be nothing.
struct Comparison<'c> {
    criterion: &'c mut Criterion,
    act: &'static str,
}

impl<'c> Comparison<'c> {
    fn new(criterion: &'c mut Criterion, act: &'static str) -> Self {
        println!(
            "{act}: turnd {} against stun {} and turn {}",
            env!("CARGO_PKG_VERSION"),
            version("stun"),
            version("turn")
        );
        Self { criterion, act }
    }

    fn ours<T>(&mut self, message: &str, work: impl FnMut() -> T) {
        assert_eq!(
            self.run("turnd", message, work),
            0,
            "{} {message} allocates",
            self.act
        );
    }

    fn theirs<T>(&mut self, message: &str, work: impl FnMut() -> T) {
        self.run("theirs", message, work);
    }

    fn run<T>(&mut self, whose: &str, message: &str, mut work: impl FnMut() -> T) -> u64 {
        // The first time may fill buffers that are used again.
        work();
        let (count, _) = allocations(&mut work);
        let name = format!("{} {message}/{whose}", self.act);
        println!("{name}: {count} heap allocations");
        self.criterion
            .bench_function(&name, |bencher| bencher.iter(&mut work));
        count
    }
}

/// The version of a package that this is built with.
fn version(package: &str) -> &'static str {
    let entry = format!("name = \"{package}\"\nversion = \"");
    let lock = include_str!("../Cargo.lock");
    lock.split_once(&entry)
        .and_then(|(_, rest)| rest.split('"').next())
        .unwrap_or("?")
}

fn message(class: Class, method: Method, fill: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, class, method, ID);
    fill(&mut writer);
    writer.finish();
    bytes
}

fn allocate(integrity: Integrity) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, Class::Request, Method::ALLOCATE, ID);
    writer
        .u8(Attribute::REQUESTED_TRANSPORT, 17)
        .bytes(Attribute::USERNAME, b"1767225600:alice")
        .bytes(Attribute::REALM, b"turn.example.org")
        .bytes(Attribute::NONCE, b"obMatJos2gAABc3VwZXJzZWNyZXQ");
    writer.finish_with_integrity(&key(), integrity);
    bytes
}

fn parsed(bytes: &[u8]) -> Message<'_> {
    Message::parse(bytes).expect("well-formed")
}

fn begin_theirs(message: &mut TheirMessage) {
    message.reset();
    message.transaction_id.0 = ID.0;
    message.set_type(BINDING_SUCCESS);
    message.write_header();
}

fn key() -> Key {
    Key::md5(b"user", b"realm", b"pass")
}

fn their_key() -> MessageIntegrity {
    MessageIntegrity::new_long_term_integrity("user".into(), "realm".into(), "pass".into())
}

fn peer() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], 5000))
}

criterion_group! {
    name = codec;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
        .without_plots();
    targets = parse, verify, write
}
criterion_main!(codec);
