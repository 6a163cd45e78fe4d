//! RFC 8656 §11.5 at the border of the machine \[D4\]: what a client is told of ICMP errors.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::net::SocketAddr;

use support::*;
use turnd::stun::{Attribute, Class, Icmp, Message, Method};
use turnd::turn::{Cause, RelayId, Transport};

const PORT_UNREACHABLE: (u8, u8, u32) = (3, 3, 0);

#[test]
fn d4_an_error_is_a_data_indication_with_the_peer_and_without_data() {
    let mut turn = Turn::new();
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut ann = ann().at(client("198.51.100.1:1000", transport));
        let (v4, v6) = dual(&mut ann, &mut turn);
        ann.permit(&mut turn, &[PEER, PEER_V6]);
        for (relay, peer) in [(v4, PEER), (v6, PEER_V6)] {
            let kind = if relay == v4 { 3 } else { 1 };
            let (to, bytes) = turn.icmp(relay, peer, (kind, 1, 0)).unwrap();
            assert_eq!(to, ann.client);
            let icmp = Icmp {
                kind,
                code: 1,
                data: 0,
            };
            assert_eq!(told(&bytes), (address(peer), icmp));
            assert_eq!(bytes.len() % 4, 0);
        }
    }
}

/// The figure of §18.13 draws fields of 7 and 9 bits; one octet for each is what is written.
#[test]
fn d4_type_and_code_are_an_octet_each() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    ann.permit(&mut turn, &[PEER]);
    let (_, bytes) = turn.icmp(relay, PEER, (3, 4, 1280)).unwrap();
    let message = Message::parse(&bytes).unwrap();
    let value = message.get(Attribute(0x8004)).unwrap();
    assert_eq!(value, [0, 0, 3, 4, 0, 0, 0x05, 0x00]);
}

#[test]
fn d4_an_error_is_told_as_an_indication_even_where_a_channel_is_bound() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    assert_eq!(ann.bind(&mut turn, 0x4000, PEER), 0);
    let (_, bytes) = turn.icmp(relay, PEER, PORT_UNREACHABLE).unwrap();
    assert_eq!(told(&bytes).0, address(PEER));
}

#[test]
fn d4_the_destination_that_is_quoted_needs_a_permission_with_any_port() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    let icmp = |turn: &mut Turn, peer| turn.icmp(relay, peer, PORT_UNREACHABLE).is_ok();
    assert!(!icmp(&mut turn, PEER));
    ann.permit(&mut turn, &[PEER]);
    assert!(icmp(&mut turn, PEER));
    assert!(icmp(&mut turn, "52.1.2.3:1"));
    // Some systems do not tell the port.
    assert!(icmp(&mut turn, "52.1.2.3:0"));
    assert!(!icmp(&mut turn, "52.1.2.4:4000"));
    assert!(!icmp(&mut turn, PEER_V6));
    turn.wait(seconds(301));
    assert!(!icmp(&mut turn, PEER));
    assert_eq!(
        turn.icmp(RelayId(99), PEER, PORT_UNREACHABLE).unwrap_err(),
        Cause::Icmp
    );
}

#[test]
fn d4_types_3_and_11_are_told_and_1_2_and_3_of_icmpv6() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let (v4, v6) = dual(&mut ann, &mut turn);
    ann.permit(&mut turn, &[PEER, PEER_V6]);
    let mut types = |relay, peer| {
        let told = |kind: &u8| {
            turn.pass(seconds(1));
            turn.icmp(relay, peer, (*kind, 0, 0)).is_ok()
        };
        (0..=250).filter(told).collect::<Vec<u8>>()
    };
    assert_eq!(types(v4, PEER), [3, 11]);
    assert_eq!(types(v6, PEER_V6), [1, 2, 3]);
}

#[test]
fn d4_only_too_big_has_data() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let (v4, v6) = dual(&mut ann, &mut turn);
    ann.permit(&mut turn, &[PEER, PEER_V6]);
    for (relay, peer, kind, code, data) in [
        (v4, PEER, 3, 4, 1400),
        (v4, PEER, 3, 3, 0),
        (v4, PEER, 11, 4, 0),
        (v6, PEER_V6, 2, 0, 1400),
        (v6, PEER_V6, 1, 4, 0),
        (v6, PEER_V6, 3, 4, 0),
    ] {
        let (_, bytes) = turn.icmp(relay, peer, (kind, code, 1400)).unwrap();
        assert_eq!(told(&bytes).1, Icmp { kind, code, data });
    }
}

/// Anybody can make errors up, and each would be a packet to the client.
#[test]
fn d4_errors_are_told_ten_at_once_and_one_a_second() {
    let mut turn = Turn::new();
    let (mut ann, mut bob) = (ann(), bob());
    let (relay, other) = (ann.relay(&mut turn), bob.relay(&mut turn));
    ann.permit(&mut turn, &[PEER]);
    bob.permit(&mut turn, &[PEER]);
    let told = |turn: &mut Turn, relay| {
        (0..50)
            .filter(|_| turn.icmp(relay, PEER, PORT_UNREACHABLE).is_ok())
            .count()
    };
    assert_eq!(told(&mut turn, relay), 10);
    assert_eq!(told(&mut turn, relay), 0);
    assert_eq!(told(&mut turn, other), 10, "each allocation for itself");
    turn.pass(seconds(3));
    assert_eq!(told(&mut turn, relay), 3);
}

/// Nothing that an error says counts as traffic or keeps anything alive.
#[test]
fn d4_an_error_refreshes_nothing() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    ann.permit(&mut turn, &[PEER]);
    turn.wait(seconds(299));
    assert!(turn.icmp(relay, PEER, PORT_UNREACHABLE).is_ok());
    turn.wait(seconds(2));
    assert_eq!(ann.send(&mut turn, PEER, b"x"), Err(Cause::NoPermission));
}

/// The peer and the error of a Data indication that holds these and nothing else.
fn told(bytes: &[u8]) -> (SocketAddr, Icmp) {
    let message = Message::parse(bytes).unwrap();
    assert_eq!(
        (message.class(), message.method()),
        (Class::Indication, Method::DATA)
    );
    let attributes: Vec<Attribute> = message.attributes().map(|(kind, _)| kind).collect();
    assert_eq!(attributes, [Attribute::XOR_PEER_ADDRESS, Attribute::ICMP]);
    (
        message.xor_peer_address().unwrap().unwrap(),
        message.icmp().unwrap().unwrap(),
    )
}

/// An allocation of both families; its relays.
fn dual(user: &mut User, turn: &mut Turn) -> (RelayId, RelayId) {
    let answer = user.allocate_with(turn, |writer| {
        writer.u8(Attribute::ADDITIONAL_ADDRESS_FAMILY, 2);
    });
    let message = answer.message();
    let mut relays = message
        .xor_relayed_addresses()
        .map(|address| turn.relays.at(address.unwrap()).unwrap());
    (relays.next().unwrap(), relays.next().unwrap())
}
