//! Every error code that the server answers with (section 2.11 of the requirements): how it is provoked, its name,
//! whether the answer is signed, and what else stands in it. A new code is a row.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::collections::BTreeSet;

use support::*;
use turnd::metrics::CODES;
use turnd::stun::{Attribute, ErrorCode, Method};
use turnd::turn::{ConnectFailure, Event, Redirect, TcpRelay, Transport, Verdict};

struct Row {
    code: u16,
    name: &'static str,
    /// By whom the request is authenticated; nobody's answer is signed, and it spares the name.
    signed: bool,
    /// What stands beside the code, in order.
    with: &'static [Attribute],
    provoke: fn() -> Answer,
}

const SIGNED: bool = true;
const UNSIGNED: bool = false;
const CHALLENGE: &[Attribute] = &[Attribute::REALM, Attribute::NONCE];

/// In the order of the numbers.
const ROWS: &[Row] = &[
    row(
        300,
        "Try Alternate",
        SIGNED,
        &[
            Attribute::ALTERNATE_SERVER,
            Attribute::REALM,
            Attribute::NONCE,
        ],
        || {
            let redirect = Redirect {
                to: vec![address("192.0.2.7:3478")],
                always: true,
                ..Redirect::default()
            };
            let mut turn = Turn::with(|settings| settings.redirect = Some(redirect));
            ann().allocate(&mut turn)
        },
    ),
    row(400, "Bad Request", SIGNED, &[], || {
        ann().ask(&mut Turn::new(), Method::ALLOCATE, |_| {})
    }),
    // Credentials without a nonce: whose they are is not looked at.
    row(400, "Bad Request", UNSIGNED, &[], || {
        let mut turn = Turn::new();
        let ann = ann();
        let id = turn.id();
        let mut bytes = Vec::new();
        let class = turnd::stun::Class::Request;
        let mut writer = turnd::stun::Writer::new(&mut bytes, class, Method::ALLOCATE, id);
        writer
            .bytes(Attribute::USERNAME, &ann.name)
            .bytes(Attribute::REALM, ann.realm.as_bytes());
        writer.finish_with_integrity(&ann.key(), ann.integrity());
        turn.answered(ann.client, &bytes)
    }),
    row(401, "Unauthenticated", UNSIGNED, CHALLENGE, || {
        ann().greet(&mut Turn::new())
    }),
    row(403, "Forbidden", SIGNED, &[], || {
        with_allocation(&[], |ann, turn| permit(ann, turn, "10.0.0.1:9"))
    }),
    row(405, "Mobility Forbidden", SIGNED, &[], || {
        ann().allocate_with(&mut Turn::new(), |writer| {
            writer.flag(Attribute::MOBILITY_TICKET);
        })
    }),
    row(
        420,
        "Unknown Attribute",
        SIGNED,
        &[Attribute::UNKNOWN_ATTRIBUTES],
        || {
            ann().allocate_with(&mut Turn::new(), |writer| {
                writer.bytes(Attribute(0x7ABC), b"");
            })
        },
    ),
    row(437, "Allocation Mismatch", SIGNED, &[], || {
        ann().refresh(&mut Turn::new(), None)
    }),
    row(438, "Stale Nonce", UNSIGNED, CHALLENGE, || {
        let mut turn = Turn::new();
        let mut ann = ann();
        ann.greet(&mut turn);
        turn.pass(seconds(24 * 3600));
        ann.allocate(&mut turn)
    }),
    row(440, "Address Family not Supported", SIGNED, &[], || {
        ann().allocate_with(&mut Turn::new(), |writer| {
            writer.u8(Attribute::REQUESTED_ADDRESS_FAMILY, 3);
        })
    }),
    row(441, "Wrong Credentials", SIGNED, &[], || {
        with_allocation(&[], |ann, turn| bob().at(ann.client).refresh(turn, None))
    }),
    row(442, "Unsupported Transport Protocol", SIGNED, &[], || {
        ann().ask(&mut Turn::new(), Method::ALLOCATE, |writer| {
            writer.u8(Attribute::REQUESTED_TRANSPORT, 132);
        })
    }),
    row(443, "Peer Address Family Mismatch", SIGNED, &[], || {
        with_allocation(&[], |ann, turn| permit(ann, turn, PEER_V6))
    }),
    row(446, "Connection Already Exists", SIGNED, &[], || {
        let (mut turn, ann) = with_tcp();
        let request = connect(&mut turn, &ann);
        assert_eq!(turn.input(ann.client, &request).0, Verdict::Later);
        let again = connect(&mut turn, &ann);
        ann.ask_bytes(&mut turn, &again)
    }),
    row(447, "Connection Timeout or Failure", SIGNED, &[], || {
        let (mut turn, ann) = with_tcp();
        let request = connect(&mut turn, &ann);
        assert_eq!(turn.input(ann.client, &request).0, Verdict::Later);
        let events = turn.events();
        let Some(Event::Connect(connect)) = events.last() else {
            panic!("{events:?}");
        };
        let mut bytes = Vec::new();
        let (server, relays) = (&mut turn.server, &mut turn.relays);
        let failed = Err(ConnectFailure::Refused);
        let told = server.connected(turn.now, connect, failed, relays, &mut bytes);
        let told = told.unwrap();
        Answer { told, bytes }
    }),
    row(486, "Allocation Quota Reached", SIGNED, &[], || {
        let mut turn = Turn::with(|settings| settings.limits.per_user = 1);
        ann().allocate(&mut turn);
        ann().at(udp("198.51.100.1:1001")).allocate(&mut turn)
    }),
    row(508, "Insufficient Capacity", SIGNED, &[], || {
        let mut turn = Turn::new();
        turn.relays.capacity = 0;
        ann().allocate(&mut turn)
    }),
    row(508, "Insufficient Capacity", SIGNED, &[], || {
        with_allocation(&[PEER], |ann, turn| permit(ann, turn, "52.1.2.4:1"))
    }),
];

/// Codes that are counted and never sent: nothing that a client can do is answered with 500.
const NEVER: [u16; 1] = [500];

#[test]
fn every_code_is_told_with_its_name_its_signature_and_its_attributes() {
    for row in ROWS {
        let answer = (row.provoke)();
        let message = answer.message();
        let (code, phrase) = message.error_code().unwrap().unwrap();
        assert_eq!(code, ErrorCode(row.code));
        assert_eq!(code.reason(), row.name);
        // The answer to a stranger is as short as can be.
        let spoken = if row.signed { row.name } else { "" };
        assert_eq!(phrase, spoken, "{}", row.code);
        let mut wanted = vec![Attribute::ERROR_CODE];
        wanted.extend(row.with);
        wanted.extend(row.signed.then_some(Attribute::MESSAGE_INTEGRITY));
        let found: Vec<Attribute> = message.attributes().map(|(kind, _)| kind).collect();
        assert_eq!(found, wanted, "{}", row.code);
        assert_eq!(answer.told.authenticated, row.signed, "{}", row.code);
        if row.signed {
            assert!(message.verify(&ann().key()) || message.verify(&bob().key()));
        }
    }
}

#[test]
fn every_code_that_is_counted_is_in_the_table() {
    let provoked: BTreeSet<u16> = ROWS.iter().map(|row| row.code).chain(NEVER).collect();
    let counted: BTreeSet<u16> = CODES.into_iter().filter(|code| *code != 0).collect();
    assert_eq!(provoked, counted);
}

const fn row(
    code: u16,
    name: &'static str,
    signed: bool,
    with: &'static [Attribute],
    provoke: fn() -> Answer,
) -> Row {
    Row {
        code,
        name,
        signed,
        with,
        provoke,
    }
}

/// What ann is answered, who has an allocation with these permissions and room for no more than one.
fn with_allocation(permitted: &[&str], then: fn(&mut User, &mut Turn) -> Answer) -> Answer {
    let mut turn = Turn::with(|settings| settings.limits.permissions = 1);
    let mut ann = ann();
    ann.relay(&mut turn);
    for peer in permitted {
        assert_eq!(permit(&mut ann, &mut turn, peer).code(), 0);
    }
    then(&mut ann, &mut turn)
}

fn permit(user: &mut User, turn: &mut Turn, peer: &str) -> Answer {
    user.ask(turn, Method::CREATE_PERMISSION, |writer| {
        writer.xor_address(Attribute::XOR_PEER_ADDRESS, address(peer));
    })
}

/// Ann with a TCP relay.
fn with_tcp() -> (Turn, User) {
    let mut turn = Turn::with(|settings| settings.tcp_relay = Some(TcpRelay::default()));
    let mut ann = ann().at(client("198.51.100.1:1000", Transport::Tcp));
    let answer = ann.ask(&mut turn, Method::ALLOCATE, |writer| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 6);
    });
    assert_eq!(answer.code(), 0);
    (turn, ann)
}

fn connect(turn: &mut Turn, user: &User) -> Vec<u8> {
    user.signed(turn.id(), Method::CONNECT, |writer| {
        writer.xor_address(Attribute::XOR_PEER_ADDRESS, address(PEER));
    })
}
