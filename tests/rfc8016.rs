//! RFC 8016, and requirements \[8016-1\] to \[8016-5\]: an allocation moves with its client.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use support::*;
use turnd::stun::{Attribute, Method, PasswordAlgorithm};
use turnd::turn::{
    Cause, Client, EndReason, Event, Limits, ListenerAlgorithms, MoveResult, PasswordAlgorithms,
    Server, TcpRelay, TicketKey, Transport, Verdict, WorkerId,
};

const HOME: &str = "198.51.100.1:1000";
const CAFE: &str = "192.0.2.7:7000";
const TRAIN: &str = "[2001:db8:7::7]:8000";

fn mobile() -> Turn {
    Turn::with(|settings| settings.mobility = true)
}

/// Allocates with an empty MOBILITY-TICKET.
fn allocate(turn: &mut Turn, user: &mut User) -> Answer {
    user.allocate_with(turn, |writer| {
        writer.flag(Attribute::MOBILITY_TICKET);
    })
}

/// Allocates, installs a permission and a channel, and keeps what is needed for a move.
fn settle(turn: &mut Turn, user: &mut User) -> Vec<u8> {
    let answer = allocate(turn, user);
    assert_eq!(answer.code(), 0);
    assert_eq!(user.permit(turn, &[PEER]), 0);
    assert_eq!(user.bind(turn, 0x4000, PEER), 0);
    ticket(&answer)
}

fn ticket(answer: &Answer) -> Vec<u8> {
    let ticket = answer.message().mobility_ticket().unwrap().unwrap();
    ticket.to_vec()
}

/// A Refresh with a ticket.
fn resume(turn: &mut Turn, user: &mut User, ticket: &[u8]) -> Answer {
    user.ask(turn, Method::REFRESH, |writer| {
        writer.bytes(Attribute::MOBILITY_TICKET, ticket);
    })
}

/// Where data from the peer go to.
fn heard_at(turn: &mut Turn) -> Result<Client, Cause> {
    let relay = *turn.relays.open.keys().next().unwrap();
    match turn.server.peer_input(turn.now, relay, address(PEER), 5) {
        Verdict::ToClient { to, .. } => Ok(to),
        Verdict::Drop(cause) => Err(cause),
        other => panic!("{other:?}"),
    }
}

fn gone(turn: &mut Turn, client: Client) {
    turn.server.client_gone(turn.now, client, &mut turn.relays);
}

fn moves(turn: &mut Turn) -> Vec<MoveResult> {
    let moves = turn.events().into_iter();
    moves
        .filter_map(|event| match event {
            Event::Move(result) => Some(result),
            _ => None,
        })
        .collect()
}

#[test]
fn s8016_1_an_empty_ticket_is_answered_with_one() {
    let mut turn = mobile();
    let mut ann = ann();
    let answer = allocate(&mut turn, &mut ann);
    assert_eq!(answer.code(), 0);
    // Small enough for any path: the answer is far below 548 bytes.
    assert!((32..=64).contains(&ticket(&answer).len()));
    // Nobody else gets one.
    let mut bob = bob();
    assert!(!bob.allocate(&mut turn).has(Attribute::MOBILITY_TICKET));
    assert!(!bob.refresh(&mut turn, None).has(Attribute::MOBILITY_TICKET));
    assert!(!ann.refresh(&mut turn, None).has(Attribute::MOBILITY_TICKET));
}

#[test]
fn s8016_1_no_two_tickets_have_anything_in_common() {
    let mut turn = mobile();
    let mut seen: Vec<Vec<u8>> = Vec::new();
    for port in 1000..1016 {
        let mut ann = ann().at(udp(&format!("198.51.100.1:{port}")));
        let ticket = ticket(&allocate(&mut turn, &mut ann));
        let alike = |other: &Vec<u8>| {
            ticket
                .windows(4)
                .any(|four| other.windows(4).any(|w| w == four))
        };
        assert!(!seen.iter().any(alike), "{ticket:02x?}");
        seen.push(ticket);
    }
}

#[test]
fn s8016_1_a_repeated_allocate_gets_a_good_ticket_again() {
    let mut turn = mobile();
    let mut ann = ann();
    ann.greet(&mut turn);
    let request = ann.signed(turn.id(), Method::ALLOCATE, |writer| {
        writer
            .u8(Attribute::REQUESTED_TRANSPORT, 17)
            .flag(Attribute::MOBILITY_TICKET);
    });
    let first = ann.ask_bytes(&mut turn, &request);
    let again = ann.ask_bytes(&mut turn, &request);
    assert_eq!(first.relayed(), again.relayed());
    let mut ann = ann.at(udp(CAFE));
    assert_eq!(resume(&mut turn, &mut ann, &ticket(&again)).code(), 0);
}

/// The line under the Allocate table of the requirements.
#[test]
fn s8016_2_405_where_mobility_is_off_and_400_for_a_ticket_in_allocate() {
    for (on, put, code) in [
        (false, &b""[..], 405),
        (false, b"x", 400),
        (true, b"x", 400),
        (true, b"", 0),
    ] {
        let mut turn = Turn::with(|settings| settings.mobility = on);
        let answer = ann().allocate_with(&mut turn, |writer| {
            writer.bytes(Attribute::MOBILITY_TICKET, put);
        });
        assert_eq!(answer.code(), code, "{on} {put:?}");
        assert_eq!(turn.quotas.total(), u32::from(code == 0));
    }
}

/// RFC 8016 is silent about TCP allocations (RFC 6062): they do not move.
#[test]
fn s8016_1_no_ticket_for_a_tcp_allocation() {
    let mut turn = Turn::with(|settings| {
        settings.mobility = true;
        settings.tcp_relay = Some(TcpRelay::default());
    });
    let mut ann = ann().at(client(HOME, Transport::Tcp));
    let answer = ann.ask(&mut turn, Method::ALLOCATE, |writer| {
        writer
            .u8(Attribute::REQUESTED_TRANSPORT, 6)
            .flag(Attribute::MOBILITY_TICKET);
    });
    assert_eq!(answer.code(), 0);
    assert!(!answer.has(Attribute::MOBILITY_TICKET));
    gone(&mut turn, ann.client);
    assert!(turn.server.is_empty());
}

#[test]
fn s8016_2_each_wrong_ticket_has_its_code() {
    let mut turn = mobile();
    let mut ann = ann();
    let good = settle(&mut turn, &mut ann);
    let mut moved = ann.at(udp(CAFE));
    turn.events();

    // Not one of ours.
    for bad in [&b""[..], b"x", &[0; 46], &good[1..]] {
        assert_eq!(resume(&mut turn, &mut moved, bad).code(), 400);
        assert_eq!(moves(&mut turn), [MoveResult::Invalid]);
    }
    // From where it was issued to.
    assert_eq!(resume(&mut turn, &mut ann, &good).code(), 400);
    assert_eq!(moves(&mut turn), [MoveResult::Unchanged]);
    // Another user, with a key that is right.
    let mut thief = bob();
    let answer = resume(&mut turn, &mut thief, &good);
    assert_eq!(answer.code(), 441);
    assert_eq!(moves(&mut turn), [MoveResult::WrongUser]);
    // A key that is wrong: nothing is said of the ticket.
    let mut forger = moved.clone();
    forger.password = b"guess".to_vec();
    forger.greet(&mut turn);
    let request = forger.signed(turn.id(), Method::REFRESH, |writer| {
        writer.bytes(Attribute::MOBILITY_TICKET, &good);
    });
    assert_eq!(turn.answered(forger.client, &request).code(), 401);
    // Forbidden meanwhile.
    turn.reload(|_| {});
    assert_eq!(resume(&mut turn, &mut moved, &good).code(), 405);
    assert_eq!(moves(&mut turn), [MoveResult::Forbidden]);
    turn.reload(|settings| settings.mobility = true);
    // None of it has changed anything.
    assert_eq!(heard_at(&mut turn), Ok(ann.client));
    assert_eq!(moved.refresh(&mut turn, None).code(), 437);
    // And it was good all the time.
    assert_eq!(resume(&mut turn, &mut moved, &good).code(), 0);
}

#[test]
fn s8016_2_a_ticket_ends_with_its_allocation_whoever_is_in_its_place() {
    let mut turn = mobile();
    let mut ann = ann();
    let old = settle(&mut turn, &mut ann);
    assert_eq!(ann.refresh(&mut turn, Some(0)).code(), 0);
    let mut moved = ann.at(udp(CAFE));
    assert_eq!(resume(&mut turn, &mut moved, &old).code(), 437);
    // The same user, the same slot, the same relay.
    settle(&mut turn, &mut ann);
    assert_eq!(resume(&mut turn, &mut moved, &old).code(), 437);

    let ticket = settle(&mut turn, &mut bob());
    turn.wait(seconds(700));
    let mut moved = bob().at(udp(CAFE));
    assert_eq!(resume(&mut turn, &mut moved, &ticket).code(), 437);
}

#[test]
fn s8016_2_no_move_to_where_the_client_has_another_allocation() {
    let mut turn = mobile();
    let first = settle(&mut turn, &mut ann());
    let mut second = ann().at(udp(CAFE));
    settle(&mut turn, &mut second);
    turn.events();
    assert_eq!(resume(&mut turn, &mut second, &first).code(), 437);
    assert_eq!(moves(&mut turn), [MoveResult::Occupied]);
    // Nor to where another one is just moving.
    let mut third = ann().at(udp("192.0.2.9:9"));
    let ticket = ticket(&allocate(&mut turn, &mut third));
    let mut moving = ann().at(udp("192.0.2.10:10"));
    assert_eq!(resume(&mut turn, &mut moving, &first).code(), 0);
    assert_eq!(resume(&mut turn, &mut moving, &ticket).code(), 437);
    // And nothing can be allocated there.
    assert_eq!(moving.allocate(&mut turn).code(), 437);
}

#[test]
fn s8016_3_every_move_has_a_ticket_of_its_own() {
    let mut turn = mobile();
    let mut ann = ann();
    let mut current = settle(&mut turn, &mut ann);
    let mut used = Vec::new();
    for port in 1..50 {
        ann = ann.at(udp(&format!("192.0.2.7:{port}")));
        let answer = resume(&mut turn, &mut ann, &current);
        assert_eq!((answer.code(), answer.lifetime()), (0, 600));
        used.push(std::mem::replace(&mut current, ticket(&answer)));
        assert!(!used.contains(&current));
        assert_eq!(ann.channel(&mut turn, 0x4000, PEER, b"here"), Ok(()));
        assert_eq!(heard_at(&mut turn), Ok(ann.client));
    }
    // A25: what has been used is worth nothing elsewhere.
    let mut thief = ann.at(udp("192.0.2.7:6666"));
    for ticket in used {
        assert_eq!(resume(&mut turn, &mut thief, &ticket).code(), 437);
    }
    assert_eq!(heard_at(&mut turn), Ok(ann.client));
}

#[test]
fn s8016_3_the_old_ticket_is_good_for_a_repetition_from_the_same_place() {
    let mut turn = mobile();
    let mut ann = ann();
    let first = settle(&mut turn, &mut ann);
    let mut moved = ann.at(udp(CAFE));
    let second = ticket(&resume(&mut turn, &mut moved, &first));
    turn.events();
    for _ in 0..3 {
        turn.wait(seconds(10));
        let again = resume(&mut turn, &mut moved, &first);
        assert_eq!(again.code(), 0);
        assert_ne!(ticket(&again), first);
        assert_eq!(moves(&mut turn), [MoveResult::Repeated]);
    }
    // Not from elsewhere (A25), not from where it was issued to, and the next ticket is none to repeat with.
    let mut other = ann.at(udp(TRAIN));
    assert_eq!(resume(&mut turn, &mut other, &first).code(), 437);
    assert_eq!(resume(&mut turn, &mut ann, &first).code(), 400);
    assert_eq!(resume(&mut turn, &mut moved, &second).code(), 400);
    // Data from the new address do not end it: they may overtake the repetition.
    assert_eq!(moved.channel(&mut turn, 0x4000, PEER, b"x"), Ok(()));
    assert_eq!(resume(&mut turn, &mut moved, &first).code(), 0);
    turn.wait(seconds(11));
    assert_eq!(resume(&mut turn, &mut moved, &first).code(), 400);
    // Which leaves the next one as good as it was.
    assert_eq!(resume(&mut turn, &mut other, &second).code(), 0);
}

#[test]
fn s8016_4_data_go_to_the_old_address_until_data_come_from_the_new_one() {
    for indication in [false, true] {
        let mut turn = mobile();
        let mut ann = ann();
        let ticket = settle(&mut turn, &mut ann);
        let mut moved = ann.at(client(TRAIN, Transport::Tls));
        assert_eq!(resume(&mut turn, &mut moved, &ticket).code(), 0);
        // Both are known, the old one carries the data, both ways.
        for _ in 0..3 {
            assert_eq!(heard_at(&mut turn), Ok(ann.client));
            assert_eq!(ann.channel(&mut turn, 0x4000, PEER, b"old"), Ok(()));
            assert_eq!(ann.send(&mut turn, PEER, b"old"), Ok(()));
            // Requests work from either and switch nothing.
            assert_eq!(moved.permit(&mut turn, &[PEER, "52.1.2.4:1"]), 0);
            assert_eq!(moved.bind(&mut turn, 0x4000, PEER), 0);
            assert_eq!(moved.refresh(&mut turn, None).code(), 0);
            assert_eq!(ann.refresh(&mut turn, None).code(), 0);
        }
        turn.events();
        if indication {
            assert_eq!(moved.send(&mut turn, PEER, b"new"), Ok(()));
        } else {
            assert_eq!(moved.channel(&mut turn, 0x4000, PEER, b"new"), Ok(()));
        }
        let events = turn.events();
        let [
            Event::Moved(told),
            Event::Move(MoveResult::Completed),
            Event::Left(left),
        ] = &events[..]
        else {
            panic!("{events:?}");
        };
        assert_eq!(
            (told.from, told.to),
            (ann.client.five_tuple, moved.client.five_tuple)
        );
        assert_eq!(*left, ann.client);
        assert_eq!(heard_at(&mut turn), Ok(moved.client));
        // The old address is nobody's.
        assert_eq!(
            ann.channel(&mut turn, 0x4000, PEER, b"late"),
            Err(Cause::NoAllocation)
        );
        assert_eq!(ann.refresh(&mut turn, None).code(), 437);
        assert!(!turn.server.has_allocation(&ann.client.five_tuple));
    }
}

#[test]
fn s8016_4_the_close_of_the_old_connection_completes_a_move() {
    let mut turn = mobile();
    let mut ann = ann().at(client(HOME, Transport::Tcp));
    let ticket = settle(&mut turn, &mut ann);
    let mut moved = ann.at(client(CAFE, Transport::Tcp));
    assert_eq!(resume(&mut turn, &mut moved, &ticket).code(), 0);
    gone(&mut turn, ann.client);
    assert_eq!(heard_at(&mut turn), Ok(moved.client));
    assert_eq!(moved.channel(&mut turn, 0x4000, PEER, b"x"), Ok(()));
}

#[test]
fn s8016_4_the_close_of_the_new_connection_undoes_a_move() {
    let mut turn = mobile();
    let mut ann = ann().at(client(HOME, Transport::Tcp));
    let first = settle(&mut turn, &mut ann);
    let mut moved = ann.at(client(CAFE, Transport::Tcp));
    let second = ticket(&resume(&mut turn, &mut moved, &first));
    gone(&mut turn, moved.client);
    assert!(!turn.server.has_allocation(&moved.client.five_tuple));
    assert_eq!(heard_at(&mut turn), Ok(ann.client));
    let mut again = ann.at(client(CAFE, Transport::Tls));
    assert_eq!(resume(&mut turn, &mut again, &second).code(), 0);
}

#[test]
fn s8016_4_a_client_that_breaks_before_it_makes_finds_all_in_place() {
    let mut turn = mobile();
    let mut ann = ann().at(client(HOME, Transport::Tcp));
    let ticket = settle(&mut turn, &mut ann);
    gone(&mut turn, ann.client);
    assert!(!turn.server.has_allocation(&ann.client.five_tuple));
    assert_eq!(heard_at(&mut turn), Err(Cause::ClientAway));
    turn.wait(seconds(100));
    // From the very same address and port, too: it is another connection.
    let mut back = ann.at(ann.client);
    back.client.path.0 += 1;
    assert_eq!(resume(&mut turn, &mut back, &ticket).code(), 0);
    // Nothing to wait for: there is no old address.
    assert_eq!(heard_at(&mut turn), Ok(back.client));
    assert_eq!(back.channel(&mut turn, 0x4000, PEER, b"x"), Ok(()));
    // The close of the first connection, told late.
    gone(&mut turn, ann.client);
    assert_eq!(heard_at(&mut turn), Ok(back.client));
    // A repetition is one only while the client is there: afterwards the ticket has been used.
    gone(&mut turn, back.client);
    assert_eq!(resume(&mut turn, &mut back, &ticket).code(), 437);
    assert_eq!(heard_at(&mut turn), Err(Cause::ClientAway));
}

#[test]
fn s8016_4_a_client_that_stays_away_is_forgotten_in_time() {
    let mut turn = mobile();
    let mut ann = ann().at(client(HOME, Transport::Tcp));
    settle(&mut turn, &mut ann);
    gone(&mut turn, ann.client);
    // Its address is free for others meanwhile.
    let mut other = bob().at(ann.client);
    other.client.path.0 += 1;
    settle(&mut turn, &mut other);
    turn.wait(seconds(590));
    assert_eq!(other.refresh(&mut turn, None).code(), 0);
    turn.events();
    turn.wait(seconds(20));
    let events = turn.events();
    assert!(
        matches!(&events[..], [Event::Released(ended)] if ended.reason == EndReason::Expired),
        "{events:?}"
    );
    assert!(turn.server.has_allocation(&other.client.five_tuple));
    assert_eq!(turn.quotas.total(), 1);
}

#[test]
fn s8016_4_the_close_ends_an_allocation_that_cannot_move() {
    let mut turn = mobile();
    let mut ann = ann().at(client(HOME, Transport::Tcp));
    ann.relay(&mut turn);
    gone(&mut turn, ann.client);
    assert!(turn.server.is_empty());
}

/// Every pair of transports and families.
#[test]
fn s8016_5_relay_permissions_channels_and_counters_survive() {
    let places: Vec<Client> = [HOME, CAFE, TRAIN]
        .iter()
        .flat_map(|place| Transport::ALL.map(|transport| client(place, transport)))
        .collect();
    for &from in &places {
        for &to in places.iter().filter(|&&to| to != from) {
            let mut turn = mobile();
            let mut ann = ann().at(from);
            let answer = allocate(&mut turn, &mut ann);
            let relay = turn.relays.at(answer.relayed()).unwrap();
            assert_eq!(ann.permit(&mut turn, &["52.1.2.4:1"]), 0);
            assert_eq!(ann.bind(&mut turn, 0x4000, PEER), 0);
            assert_eq!(ann.channel(&mut turn, 0x4000, PEER, b"12345"), Ok(()));
            let mut moved = ann.at(to);
            let answer = resume(&mut turn, &mut moved, &ticket(&answer));
            assert_eq!(answer.code(), 0);
            assert_eq!(moved.channel(&mut turn, 0x4000, PEER, b"12345"), Ok(()));
            assert_eq!(moved.send(&mut turn, "52.1.2.4:77", b"12"), Ok(()));
            let data = turn.peer_sends(relay, PEER, b"abc").unwrap();
            assert_eq!(data[..7], channel_data(0x4000, b"abc"));
            assert_eq!(
                data.len(),
                if to.five_tuple.transport.is_stream() {
                    8
                } else {
                    7
                }
            );
            assert!(turn.peer_sends(relay, "52.1.2.4:1", b"d").is_ok());
            let census = turn.server.census(turn.now);
            assert_eq!(census.allocations[to.five_tuple.transport.index()], [1, 0],);
            turn.events();
            assert_eq!(moved.refresh(&mut turn, Some(0)).code(), 0);
            let events = turn.events();
            let [Event::Left(left), Event::Released(ended)] = &events[..] else {
                panic!("{events:?}");
            };
            assert_eq!(*left, moved.client);
            assert_eq!(ended.five_tuple, to.five_tuple);
            assert_eq!((ended.to_peer.packets, ended.to_peer.bytes), (3, 12));
            assert_eq!((ended.to_client.packets, ended.to_client.bytes), (2, 4));
        }
    }
}

#[test]
fn s8016_5_a_dual_allocation_moves_as_a_whole() {
    let mut turn = mobile();
    let mut ann = ann();
    let answer = ann.allocate_with(&mut turn, |writer| {
        writer
            .u8(Attribute::ADDITIONAL_ADDRESS_FAMILY, 2)
            .flag(Attribute::MOBILITY_TICKET);
    });
    assert_eq!(ann.permit(&mut turn, &[PEER, PEER_V6]), 0);
    let mut moved = ann.at(udp(CAFE));
    // With the end of one half in the same request.
    let answer = moved.ask(&mut turn, Method::REFRESH, |writer| {
        writer
            .bytes(Attribute::MOBILITY_TICKET, &ticket(&answer))
            .u8(Attribute::REQUESTED_ADDRESS_FAMILY, 1)
            .u32(Attribute::LIFETIME, 0);
    });
    assert_eq!((answer.code(), answer.lifetime()), (0, 0));
    assert_eq!(moved.send(&mut turn, PEER_V6, b"x"), Ok(()));
    assert_eq!(
        moved.send(&mut turn, PEER, b"x"),
        Err(Cause::UnreachablePeer)
    );
    let mut further = ann.at(udp(TRAIN));
    assert_eq!(resume(&mut turn, &mut further, &ticket(&answer)).code(), 0);
}

#[test]
fn a_ticket_and_lifetime_0_delete_from_a_new_address() {
    let mut turn = mobile();
    let mut ann = ann();
    let ticket = settle(&mut turn, &mut ann);
    let mut moved = ann.at(udp(CAFE));
    let answer = moved.ask(&mut turn, Method::REFRESH, |writer| {
        writer
            .bytes(Attribute::MOBILITY_TICKET, &ticket)
            .u32(Attribute::LIFETIME, 0);
    });
    assert_eq!((answer.code(), answer.lifetime()), (0, 0));
    assert!(!answer.has(Attribute::MOBILITY_TICKET));
    assert!(turn.server.is_empty() && turn.relays.open.is_empty());
    assert_eq!(turn.quotas.total(), 0);
}

/// Neither a nonce nor a key that was good enough before is good enough where more is offered; and the better key does
/// not close the old way.
#[test]
fn a21_a_client_that_moves_is_held_to_what_is_offered_where_it_arrives() {
    let mut turn = Turn::with(|settings| {
        settings.mobility = true;
        settings.listener_algorithms = vec![ListenerAlgorithms {
            transport: Transport::Tcp,
            address: address("0.0.0.0:3478"),
            algorithms: PasswordAlgorithms::Sha256AndMd5,
        }];
    });
    let mut ann = ann();
    let ticket = settle(&mut turn, &mut ann);
    let mut moved = ann.at(client(HOME, Transport::Tcp));
    moved.nonce.clone_from(&ann.nonce);
    let answer = resume(&mut turn, &mut moved, &ticket);
    assert_eq!(answer.code(), 438);
    moved.nonce = answer.nonce();
    moved.algorithm = Some(PasswordAlgorithm::Sha256);
    assert_eq!(resume(&mut turn, &mut moved, &ticket).code(), 0);
    assert_eq!(moved.permit(&mut turn, &[PEER]), 0);
    assert_eq!(ann.permit(&mut turn, &[PEER]), 0);
    assert_eq!(ann.refresh(&mut turn, None).code(), 0);
    assert_eq!(moved.permit(&mut turn, &[PEER]), 0);
}

#[test]
fn a07_no_client_moves_behind_a_relay() {
    let mut turn = mobile();
    let ticket = settle(&mut turn, &mut ann());
    let mut bob = bob();
    let relay = bob.allocate(&mut turn).relayed();
    let mut loop_back = ann().at(udp(&relay.to_string()));
    loop_back.nonce = b"whatever".to_vec();
    let request = loop_back.signed(turn.id(), Method::REFRESH, |writer| {
        writer.bytes(Attribute::MOBILITY_TICKET, &ticket);
    });
    assert_eq!(turn.silent(loop_back.client, &request), Cause::NoWayBack);
    // A08: nor into a tunnel.
    let mut tunnel = ann().at(udp("[2002:c000:207::1]:5"));
    assert_eq!(resume(&mut turn, &mut tunnel, &ticket).code(), 403);
}

/// A25: quota 1 + disconnect + allocate -> 486.
#[test]
fn a25_an_allocation_counts_while_its_client_is_away_or_elsewhere() {
    let mut turn = Turn::with(|settings| {
        settings.mobility = true;
        settings.limits = Limits {
            per_user: 1,
            per_client: 1,
            ..Limits::default()
        };
    });
    let mut ann = ann().at(client(HOME, Transport::Tcp));
    let ticket = settle(&mut turn, &mut ann);
    gone(&mut turn, ann.client);
    let mut again = ann.at(client("198.51.101.1:1001", Transport::Tcp));
    assert_eq!(allocate(&mut turn, &mut again).code(), 486);
    // The claim on the network moves along, if there is room, and nothing has changed if there is not.
    let mut bob = bob().at(udp("192.0.2.99:1"));
    assert_eq!(bob.allocate(&mut turn).code(), 0);
    let mut crowded = ann.at(udp(CAFE));
    assert_eq!(resume(&mut turn, &mut crowded, &ticket).code(), 486);
    assert_eq!(heard_at(&mut turn), Err(Cause::ClientAway));
    assert_eq!(bob.refresh(&mut turn, Some(0)).code(), 0);
    assert_eq!(resume(&mut turn, &mut crowded, &ticket).code(), 0);
    let mut bob = bob.at(udp("198.51.100.77:7"));
    assert_eq!(bob.allocate(&mut turn).code(), 0);
    assert_eq!(allocate(&mut turn, &mut again).code(), 486);
}

/// A25: 10 000 resumes leave nothing behind.
#[test]
fn a25_moves_do_not_pile_up() {
    let mut turn = mobile();
    let mut ann = ann();
    let mut current = settle(&mut turn, &mut ann);
    for round in 0..10_000_u32 {
        let place = format!("192.0.2.{}:{}", round % 200 + 1, round % 50_000 + 1);
        ann = ann.at(udp(&place));
        current = ticket(&resume(&mut turn, &mut ann, &current));
        if round % 3 == 0 {
            assert_eq!(ann.send(&mut turn, PEER, b"x"), Ok(()));
        }
        turn.events();
        if round % 250 == 0 {
            assert_eq!(ann.permit(&mut turn, &[PEER]), 0);
            turn.wait(seconds(60));
        }
    }
    assert_eq!(turn.relays.open.len(), 1);
    assert_eq!(ann.refresh(&mut turn, Some(0)).code(), 0);
    assert!(turn.server.is_empty());
    assert_eq!(turn.quotas.total(), 0);
}

/// Forged tickets in whole, authentic requests: what has been changed anywhere opens nothing.
#[test]
fn a25_forged_tickets_get_400_and_change_nothing() {
    let mut turn = mobile();
    let mut ann = ann();
    let good = settle(&mut turn, &mut ann);
    let mut moved = ann.at(udp(CAFE));
    moved.greet(&mut turn);
    for at in 0..good.len() {
        for bit in [0, 7] {
            let mut forged = good.clone();
            forged[at] ^= 1 << bit;
            assert_eq!(resume(&mut turn, &mut moved, &forged).code(), 400);
        }
    }
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        prop::test_runner::TestRng::from_seed(Default::default(), &[8; 32]),
    );
    let strategy = prop::collection::vec(any::<u8>(), 0..80);
    for _ in 0..5_000 {
        let random = strategy.new_tree(&mut runner).unwrap().current();
        assert_eq!(resume(&mut turn, &mut moved, &random).code(), 400);
    }
    assert!(
        moves(&mut turn)
            .iter()
            .all(|&result| result == MoveResult::Invalid)
    );
    assert_eq!(heard_at(&mut turn), Ok(ann.client));
    assert!(!turn.server.has_allocation(&moved.client.five_tuple));
}

/// Two machines of one process.
struct Pair {
    turn: Turn,
    other: Server,
}

impl Pair {
    fn new() -> Self {
        let mut turn = mobile();
        let mut settings = settings();
        settings.mobility = true;
        let key = TicketKey([0x77; 32]);
        let server = |seed, worker| {
            let settings = Arc::new(settings.clone());
            Server::new(settings, Arc::clone(&turn.quotas), [seed; 32], turn.now)
                .among(WorkerId(worker), &key)
        };
        let (one, other) = (server(1, 1), server(2, 2));
        turn.server = one;
        Self { turn, other }
    }

    fn swap(&mut self) {
        std::mem::swap(&mut self.turn.server, &mut self.other);
    }

    fn elsewhere(&mut self, from: Client, bytes: &[u8]) -> WorkerId {
        match self.turn.input(from, bytes).0 {
            Verdict::Elsewhere(worker) => worker,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn s8016_5_another_machine_knows_whose_ticket_it_is() {
    let mut pair = Pair::new();
    let mut ann = ann();
    let first = settle(&mut pair.turn, &mut ann);
    let mut moved = ann.at(udp(CAFE));
    pair.swap();
    moved.greet(&mut pair.turn);
    let id = pair.turn.id();
    let refresh = |user: &User, ticket: &[u8]| {
        user.signed(id, Method::REFRESH, |writer| {
            writer.bytes(Attribute::MOBILITY_TICKET, ticket);
        })
    };
    // Only an authentic request is passed on.
    let mut stranger = moved.clone();
    stranger.password = b"guess".to_vec();
    let answer = pair
        .turn
        .answered(moved.client, &refresh(&stranger, &first));
    assert_eq!(answer.code(), 401);
    let request = refresh(&moved, &first);
    assert_eq!(pair.elsewhere(moved.client, &request), WorkerId(1));
    assert!(
        pair.turn
            .server
            .elsewhere(pair.turn.now, &moved.client.five_tuple)
            .is_none()
    );
    pair.swap();
    let answer = moved.ask_bytes(&mut pair.turn, &request);
    assert_eq!(answer.code(), 0);
    assert!(pair.turn.server.has_allocation(&moved.client.five_tuple));
    pair.swap();
    // Until it is told, the other machine knows nothing of the client; then all goes on, but not for others.
    let data = channel_data(0x4000, b"data");
    let (now, five_tuple) = (pair.turn.now, moved.client.five_tuple);
    assert_eq!(pair.turn.silent(moved.client, &data), Cause::NoAllocation);
    pair.turn
        .server
        .note_elsewhere(now, five_tuple, WorkerId(1));
    let indication = send_indication(pair.turn.id(), PEER, b"data");
    let permit = request_of(&mut pair.turn, Method::CREATE_PERMISSION);
    for bytes in [&data, &indication, &permit, &request] {
        assert_eq!(pair.elsewhere(moved.client, bytes), WorkerId(1));
    }
    // Binding is nobody's in particular.
    let binding = request_of(&mut pair.turn, Method::BINDING);
    assert_eq!(pair.turn.answered(moved.client, &binding).code(), 0);
    assert_eq!(pair.turn.silent(ann.client, &data), Cause::NoAllocation);
    let garbage = pair.turn.silent(moved.client, b"\xff garbage");
    assert_eq!(garbage, Cause::NotTurn);
    // Another machine's word does not count, the right one's does.
    pair.turn.server.forget_elsewhere(&five_tuple, WorkerId(3));
    assert_eq!(pair.elsewhere(moved.client, &data), WorkerId(1));
    pair.turn.server.forget_elsewhere(&five_tuple, WorkerId(1));
    assert_eq!(pair.turn.silent(moved.client, &data), Cause::NoAllocation);
}

fn request_of(turn: &mut Turn, method: Method) -> Vec<u8> {
    request(turn.id(), method, |_| {})
}

#[test]
fn s8016_5_a_client_with_an_allocation_is_never_elsewhere() {
    let mut pair = Pair::new();
    let theirs = settle(&mut pair.turn, &mut ann());
    pair.swap();
    let mut mine = ann().at(udp(CAFE));
    settle(&mut pair.turn, &mut mine);
    assert_eq!(resume(&mut pair.turn, &mut mine, &theirs).code(), 437);
    let (now, five_tuple) = (pair.turn.now, mine.client.five_tuple);
    pair.turn
        .server
        .note_elsewhere(now, five_tuple, WorkerId(1));
    assert_eq!(pair.turn.server.count_elsewhere(), 0);
    assert_eq!(mine.channel(&mut pair.turn, 0x4000, PEER, b"x"), Ok(()));
}

#[test]
fn s8016_5_notes_of_clients_elsewhere_do_not_pile_up() {
    let mut pair = Pair::new();
    for round in 0..100_u16 {
        for port in 1..=100 {
            let client = udp(&format!("192.0.2.{round}:{port}"));
            let now = pair.turn.now;
            pair.turn
                .server
                .note_elsewhere(now, client.five_tuple, WorkerId(1));
        }
        pair.turn.wait(seconds(3600));
    }
    assert!(pair.turn.server.count_elsewhere() < 500);
}
