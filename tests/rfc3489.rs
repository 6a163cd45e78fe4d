//! Clients of RFC 3489, and the rest of \[S11\]: what Binding is without authentication, on every transport.

#![allow(clippy::unwrap_used)]

mod support;
mod wire;

use std::net::SocketAddr;

use support::*;
use turnd::stun::{Attribute, Class, ClassicMessage, Method, TransactionId};
use turnd::turn::{Cause, Client, NatDiscovery, OwnAddress, Redirect, Reply, Transport, Verdict};

const ID: [u8; 16] = *b"sixteen bytes id";
const CLIENT: &str = "198.51.100.1:5000";
const CHANGE_BOTH: &[u8] = &[0, 3, 0, 4, 0, 0, 0, 6];
const CHANGE_NOTHING: &[u8] = &[0, 3, 0, 4, 0, 0, 0, 0];
const RESPONSE_ADDRESS: &[u8] = &[0, 2, 0, 8, 0, 1, 0, 80, 192, 0, 2, 1];

fn message(kind: u16, attributes: &[&[u8]]) -> Vec<u8> {
    let attributes = attributes.concat();
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend((attributes.len() as u16).to_be_bytes());
    bytes.extend(ID);
    bytes.extend(attributes);
    bytes
}

fn binding(attributes: &[&[u8]]) -> Vec<u8> {
    message(0x0001, attributes)
}

fn answering() -> Turn {
    Turn::with(|settings| settings.rfc3489 = true)
}

fn discovering() -> Turn {
    Turn::with(|settings| {
        settings.rfc3489 = true;
        let own = |ip: &str| OwnAddress {
            local: ip.parse().unwrap(),
            advertised: ip.parse().unwrap(),
        };
        settings.nat_discovery = vec![NatDiscovery {
            addresses: [own("203.0.113.1"), own("203.0.113.2")],
            ports: [3478, 3479],
        }];
    })
}

/// The answer, which repeats the whole id.
fn answered(turn: &mut Turn, from: Client, bytes: &[u8]) -> (Reply, Vec<u8>) {
    let (verdict, reply) = turn.input(from, bytes);
    let Verdict::Reply(told) = verdict else {
        panic!("{verdict:?}");
    };
    let message = ClassicMessage::parse(&reply).unwrap();
    assert_eq!(message.transaction_id(), ID);
    let class = if told.code == 0 {
        Class::Success
    } else {
        Class::Error
    };
    assert_eq!(message.class(), class);
    assert!(!told.authenticated);
    (told, reply)
}

/// An attribute with an IPv4 address, written by hand.
fn address_attribute(kind: u8, address: SocketAddr) -> Vec<u8> {
    let std::net::IpAddr::V4(ip) = address.ip() else {
        panic!("IPv4");
    };
    let mut bytes = vec![0, kind, 0, 8, 0, 1];
    bytes.extend(address.port().to_be_bytes());
    bytes.extend(ip.octets());
    bytes
}

/// \[S11\] \[S1\] Silence unless the operator wants it otherwise, and then on UDP and for Binding only.
#[test]
fn s11_without_a_cookie_there_is_silence() {
    let mut turn = Turn::new();
    let bytes = binding(&[]);
    assert_eq!(turn.silent(udp(CLIENT), &bytes), Cause::Malformed);
    let mut turn = answering();
    for transport in [Transport::Tcp, Transport::Tls] {
        let from = client(CLIENT, transport);
        assert_eq!(turn.silent(from, &bytes), Cause::Malformed);
    }
    // Shared Secret and Allocate.
    for kind in [0x0002, 0x0003] {
        let bytes = message(kind, &[]);
        assert_eq!(turn.silent(udp(CLIENT), &bytes), Cause::Malformed);
    }
    // An answer, an error and an indication: nothing that could go on for ever \[A14\].
    for kind in [0x0101, 0x0111, 0x0011] {
        let bytes = message(kind, &[]);
        assert_eq!(turn.silent(udp(CLIENT), &bytes), Cause::NotARequest);
    }
    let (_, answer) = answered(&mut turn, udp(CLIENT), &binding(&[]));
    assert_eq!(turn.silent(udp(CLIENT), &answer), Cause::NotARequest);
    for end in 0..20 {
        turn.silent(udp(CLIENT), &binding(&[])[..end]);
    }
    let long = [&binding(&[])[..], &[0; 4]].concat();
    assert_eq!(turn.silent(udp(CLIENT), &long), Cause::Malformed);
}

/// \[S11\]
#[test]
fn s11_on_request_the_client_is_told_its_address() {
    let mut turn = answering();
    for attributes in [
        &[][..],
        &[CHANGE_NOTHING],
        // USERNAME and something optional.
        &[&[0, 6, 0, 4, b'a', b'n', b'n', b'e'], &[0x80, 0x20, 0, 0]],
    ] {
        let (told, reply) = answered(&mut turn, udp(CLIENT), &binding(attributes));
        assert_eq!((told.code, told.via, told.to), (0, None, udp(CLIENT)));
        assert_eq!(told.method, Method::BINDING);
        assert_eq!(reply[..2], [1, 1]);
        assert_eq!(reply[20..], address_attribute(1, address(CLIENT)));
        assert_eq!(reply.len(), 32);
    }
    let (_, reply) = answered(&mut turn, udp("[2001:db8::1]:5000"), &binding(&[]));
    assert_eq!(reply.len(), 44);
}

/// \[A11\] \[A16\] RESPONSE-ADDRESS is never followed, and no 420 is much longer than what asked for it.
#[test]
fn what_is_not_understood_is_420() {
    let mut turn = answering();
    let unknown: &[u8] = &[0x70, 1, 0, 0];
    for (attributes, list) in [
        (&[CHANGE_BOTH][..], &[0, 3, 0, 3][..]),
        (&[RESPONSE_ADDRESS], &[0, 2, 0, 2]),
        (&[CHANGE_BOTH, unknown], &[0, 3, 0x70, 1]),
        (
            &[unknown, RESPONSE_ADDRESS, CHANGE_BOTH],
            &[0x70, 1, 0, 2, 0, 3, 0, 3],
        ),
    ] {
        let (told, reply) = answered(&mut turn, udp(CLIENT), &binding(attributes));
        assert_eq!((told.code, told.via, told.to), (420, None, udp(CLIENT)));
        assert_eq!(reply[20..28], [0, 9, 0, 4, 0, 0, 4, 20]);
        assert_eq!(reply[28..32], [0, 10, 0, list.len() as u8]);
        assert_eq!(reply[32..], *list);
    }
    let many = vec![unknown; 300];
    let question = binding(&many);
    let (_, reply) = answered(&mut turn, udp(CLIENT), &question);
    assert!(reply.len() < question.len());
    let question = binding(&[&[0, 3, 0, 1, 0, 0, 0, 0]]);
    assert_eq!(answered(&mut turn, udp(CLIENT), &question).0.code, 420);
}

/// CHANGE-REQUEST works where there are two addresses, with the names of RFC 3489.
#[test]
fn where_there_are_two_addresses_the_answer_comes_from_the_other() {
    let mut turn = discovering();
    for (attributes, via) in [
        (&[][..], None),
        (&[CHANGE_NOTHING], None),
        (&[CHANGE_BOTH], Some("203.0.113.2:3479")),
    ] {
        let (told, reply) = answered(&mut turn, udp(CLIENT), &binding(attributes));
        let via = via.map(address);
        assert_eq!((told.code, told.via, told.to), (0, via, udp(CLIENT)));
        let source = via.unwrap_or_else(|| address(SERVER_V4));
        let expected = [
            address_attribute(1, address(CLIENT)),
            address_attribute(4, source),
            address_attribute(5, address("203.0.113.2:3479")),
        ];
        assert_eq!(reply[20..], expected.concat());
    }
    let (told, _) = answered(&mut turn, udp(CLIENT), &binding(&[RESPONSE_ADDRESS]));
    assert_eq!(told.code, 420);
    let (told, _) = answered(&mut turn, udp(CLIENT), &binding(&[&[0, 3, 0, 0]]));
    assert_eq!(told.code, 420);
}

/// \[A11\] The same budget as for all strangers.
#[test]
fn answers_are_few_for_each_network() {
    let mut turn = Turn::with(|settings| {
        settings.rfc3489 = true;
        settings.limits.unauthenticated_replies = 10;
    });
    let modern = request(turn.id(), Method::BINDING, |_| {});
    for _ in 0..5 {
        turn.answered(udp(CLIENT), &modern);
        answered(&mut turn, udp(CLIENT), &binding(&[]));
    }
    let over = turn.silent(udp("198.51.100.77:1"), &binding(&[]));
    assert_eq!(over, Cause::ReplyBudget);
    let nowhere = turn.silent(udp("198.51.100.1:0"), &binding(&[]));
    assert_eq!(nowhere, Cause::NoWayBack);
}

/// \[S11\] RFC 8489 §11: over DTLS every request gets a 500, and indications are ignored, whatever the settings are.
#[test]
fn s11_over_dtls_a_request_without_a_cookie_is_500() {
    for mut turn in [Turn::new(), answering(), discovering()] {
        let from = client(CLIENT, Transport::Dtls);
        for kind in [0x0001, 0x0003, 0x0004, 0x0009, 0x0002] {
            let question = message(kind, &[CHANGE_BOTH]);
            let (told, reply) = answered(&mut turn, from, &question);
            assert_eq!((told.code, told.to, told.via), (500, from, None));
            assert_eq!(reply[..2], (kind | 0x0110).to_be_bytes());
            assert_eq!(reply[20..], [0, 9, 0, 4, 0, 0, 5, 0]);
        }
        for kind in [0x0011, 0x0016, 0x0101, 0x0111] {
            let bytes = message(kind, &[]);
            assert_eq!(turn.silent(from, &bytes), Cause::NotARequest);
        }
        assert_eq!(turn.silent(from, &binding(&[])[..19]), Cause::Malformed);
        // With a cookie it is as ever.
        let modern = request(turn.id(), Method::BINDING, |_| {});
        assert_eq!(turn.answered(from, &modern).code(), 0);
    }
}

/// \[S11\] Binding needs neither FINGERPRINT nor credentials, over every transport, and never names another server.
#[test]
fn s11_binding_is_never_redirected_nor_challenged() {
    let mut turn = Turn::with(|settings| {
        settings.redirect = Some(Redirect {
            to: vec![address("192.0.2.7:3478")],
            to_tls: vec![address("192.0.2.7:5349")],
            always: true,
            on_drain: true,
            overload_at: Some(1),
            ..Redirect::default()
        });
    });
    for drain in [false, true] {
        turn.server.drain(drain);
        for transport in Transport::ALL {
            for fingerprint in [false, true] {
                let bytes = request(turn.id(), Method::BINDING, |writer| {
                    if fingerprint {
                        writer.fingerprint();
                    }
                });
                let answer = turn.answered(client(CLIENT, transport), &bytes);
                assert_eq!(answer.code(), 0);
                let kinds: Vec<_> = answer
                    .message()
                    .attributes()
                    .map(|(kind, _)| kind)
                    .collect();
                assert_eq!(kinds, [Attribute::XOR_MAPPED_ADDRESS]);
            }
        }
    }
}

/// \[S11\] Both dialects over real sockets, and today's over TCP.
#[test]
fn s11_over_udp_and_tcp() {
    let plane = wire::Plane::start_with(2, vec![wire::loopback()], |settings| {
        settings.rfc3489 = true;
    });
    let socket = wire::peer("127.0.0.1");
    let own = socket.local_addr().unwrap();
    socket.send_to(&binding(&[]), plane.udp).unwrap();
    let (reply, from) = wire::receive_from(&socket);
    assert_eq!((from, reply.len()), (plane.udp, 32));
    assert_eq!(reply[20..], address_attribute(1, own));

    let question = request(TransactionId([5; 12]), Method::BINDING, |_| {});
    assert_eq!(question.len(), 20);
    for mut client in [wire::Client::udp(plane.udp), wire::Client::tcp(plane.tcp)] {
        client.send(&question);
        assert_eq!(client.receive().len(), 32);
    }
}
