//! RFC 6062, TCP allocations, at the border of the machine: named by the numbers in the list of requirements (6062-n)
//! and in the list of attacks (A09, A35).
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use support::*;
use turnd::stun::{Attribute, Class, Integrity, Message, Method, Writer};
use turnd::turn::{
    Carried, Cause, Connect, ConnectFailure, ConnectionId, EndReason, Event, OnExpiry, RelayId,
    TcpRelay, Transport, Verdict,
};

const CONTROL: &str = "198.51.100.1:1000";
const DATA: &str = "198.51.100.1:1001";

fn with_tcp() -> Turn {
    Turn::with(|settings| settings.tcp_relay = Some(TcpRelay::default()))
}

/// Ann over TCP.
fn tcp_ann() -> User {
    ann().at(client(CONTROL, Transport::Tcp))
}

/// Another connection of the same user.
fn data(user: &User, from: &str) -> User {
    user.at(client(from, user.client.five_tuple.transport))
}

fn allocate_tcp(user: &mut User, turn: &mut Turn, put: impl FnOnce(&mut Writer<'_>)) -> Answer {
    user.ask(turn, Method::ALLOCATE, |writer| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 6);
        put(writer);
    })
}

fn tcp_relay(user: &mut User, turn: &mut Turn) -> RelayId {
    let answer = allocate_tcp(user, turn, |_| {});
    assert_eq!(answer.code(), 0);
    turn.events();
    turn.relays.at(answer.relayed()).unwrap()
}

/// Sends a Connect: what the plane is to do, or what it is answered at once.
fn connect(user: &User, turn: &mut Turn, peer: &str) -> Result<Connect, u16> {
    let request = user.signed(turn.id(), Method::CONNECT, |writer| {
        writer.xor_address(Attribute::XOR_PEER_ADDRESS, address(peer));
    });
    connect_with(user, turn, &request)
}

fn connect_with(user: &User, turn: &mut Turn, request: &[u8]) -> Result<Connect, u16> {
    if turn.input(user.client, request).0 != Verdict::Later {
        return Err(user.ask_bytes(turn, request).code());
    }
    let mut events = turn.events();
    match events.pop() {
        Some(Event::Connect(connect)) if events.is_empty() => Ok(*connect),
        None => Err(0),
        other => panic!("{other:?}"),
    }
}

/// Tells the machine the outcome, and the client's answer: its code and CONNECTION-ID.
fn outcome(
    user: &User,
    turn: &mut Turn,
    connect: &Connect,
    established: bool,
) -> Option<(u16, Option<u32>)> {
    let mut bytes = Vec::new();
    let established = established.then_some(()).ok_or(ConnectFailure::TimedOut);
    let told =
        turn.server
            .connected(turn.now, connect, established, &mut turn.relays, &mut bytes)?;
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.method(), Method::CONNECT);
    assert!(message.verify(&user.key()));
    assert_eq!((told.to, told.method), (user.client, Method::CONNECT));
    let id = message.connection_id().map(Result::unwrap);
    let code = message.error_code().map_or(0, |error| error.unwrap().0.0);
    assert_eq!((told.code, told.authenticated), (code, true));
    assert_eq!(id.is_some(), code == 0);
    Some((code, id))
}

/// A connection to a peer, from Connect to its success.
fn connected(user: &User, turn: &mut Turn, peer: &str) -> u32 {
    let wanted = connect(user, turn, peer).unwrap();
    let (code, id) = outcome(user, turn, &wanted, true).unwrap();
    assert_eq!(code, 0);
    id.unwrap()
}

fn bind(user: &mut User, turn: &mut Turn, id: u32) -> u16 {
    user.ask(turn, Method::CONNECTION_BIND, |writer| {
        writer.u32(Attribute::CONNECTION_ID, id);
    })
    .code()
}

/// A peer connects: what the client is told.
fn attempt(turn: &mut Turn, relay: RelayId, peer: &str) -> Result<(SocketAddr, u32), Cause> {
    let mut bytes = Vec::new();
    let peer = address(peer);
    turn.server
        .peer_connected(turn.now, relay, peer, &mut turn.relays, &mut bytes)?;
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(
        (message.class(), message.method()),
        (Class::Indication, Method::CONNECTION_ATTEMPT)
    );
    Ok((
        message.xor_peer_address().unwrap().unwrap(),
        message.connection_id().unwrap().unwrap(),
    ))
}

// Allocate

#[test]
fn s6062_1_without_the_feature_there_is_no_such_transport_and_no_such_method() {
    let mut turn = Turn::new();
    let mut ann = tcp_ann();
    assert_eq!(allocate_tcp(&mut ann, &mut turn, |_| {}).code(), 442);
    for method in [Method::CONNECT, Method::CONNECTION_BIND] {
        let request = ann.signed(turn.id(), method, |writer| {
            writer.u32(Attribute::CONNECTION_ID, 1);
        });
        assert_eq!(turn.silent(ann.client, &request), Cause::UnknownMethod);
    }
}

#[test]
fn s6062_1_a_tcp_relay_is_only_for_clients_on_streams() {
    for (transport, code) in [
        (Transport::Udp, 400),
        (Transport::Dtls, 400),
        (Transport::Tcp, 0),
        (Transport::Tls, 0),
    ] {
        let mut turn = with_tcp();
        let mut ann = ann().at(client(CONTROL, transport));
        let answer = allocate_tcp(&mut ann, &mut turn, |_| {});
        assert_eq!(answer.code(), code, "{transport:?}");
        assert_eq!(turn.relays.listening.len(), usize::from(code == 0));
        if code == 0 {
            assert!(answer.has(Attribute::XOR_MAPPED_ADDRESS));
            assert_eq!(answer.lifetime(), 600);
            assert_eq!(turn.server.census(turn.now).tcp_allocations, 1);
        }
    }
}

#[test]
fn s6062_1_what_goes_with_udp_does_not_go_with_tcp() {
    let mut turn = with_tcp();
    let mut ann = tcp_ann();
    for attribute in 0..4 {
        let answer = allocate_tcp(&mut ann, &mut turn, |writer| {
            match attribute {
                0 => writer.flag(Attribute::DONT_FRAGMENT),
                1 => writer.even_port(false),
                2 => writer.even_port(true),
                _ => writer.bytes(Attribute::RESERVATION_TOKEN, &[1; 8]),
            };
        });
        assert_eq!(answer.code(), 400, "{attribute}");
    }
    assert!(turn.relays.open.is_empty());
    let answer = ann.ask(&mut turn, Method::ALLOCATE, |writer| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 7);
    });
    assert_eq!(answer.code(), 442);
    // UDP stays what it was, on a stream as well.
    assert_eq!(ann.allocate(&mut turn).code(), 0);
    assert!(turn.relays.listening.is_empty());
    assert_eq!(turn.server.census(turn.now).tcp_allocations, 0);
}

#[test]
fn s6062_1_refresh_deletes_and_a_repeated_allocate_is_answered_again() {
    let mut turn = with_tcp();
    let mut ann = tcp_ann();
    ann.greet(&mut turn);
    let request = ann.signed(turn.id(), Method::ALLOCATE, |writer| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 6);
    });
    let first = ann.ask_bytes(&mut turn, &request).relayed();
    assert_eq!(ann.ask_bytes(&mut turn, &request).relayed(), first);
    assert_eq!(ann.refresh(&mut turn, Some(0)).code(), 0);
    assert!(turn.relays.open.is_empty());
}

#[test]
fn datagrams_and_channels_have_no_way_through_a_tcp_relay() {
    let mut turn = with_tcp();
    let mut ann = tcp_ann();
    let relay = tcp_relay(&mut ann, &mut turn);
    assert_eq!(ann.permit(&mut turn, &[PEER]), 0);
    assert_eq!(turn.server.census(turn.now).permissions, 1);
    assert_eq!(ann.bind(&mut turn, 0x4000, PEER), 400);
    assert_eq!(ann.send(&mut turn, PEER, b"x"), Err(Cause::NoPermission));
    let in_channel = ann.channel(&mut turn, 0x4000, PEER, b"x");
    assert_eq!(in_channel, Err(Cause::NoChannel));
    assert_eq!(turn.peer_sends(relay, PEER, b"x"), Err(Cause::NoPermission));
}

// Connect

#[test]
fn s6062_2_connect_asks_the_plane_and_answers_with_an_id() {
    let mut turn = with_tcp();
    let mut ann = tcp_ann();
    let relay = tcp_relay(&mut ann, &mut turn);
    // No permission is needed: asking is permitting.
    let wanted = connect(&ann, &mut turn, PEER).unwrap();
    assert_eq!((wanted.relay, wanted.peer), (relay, address(PEER)));
    assert!(wanted.timeout >= seconds(30));
    let (code, id) = outcome(&ann, &mut turn, &wanted, true).unwrap();
    assert_eq!((code, id), (0, Some(wanted.id.0)));
    // What has been told is told once.
    assert_eq!(outcome(&ann, &mut turn, &wanted, true), None);
}

#[test]
fn s6062_2_connect_without_a_tcp_allocation_is_437() {
    let mut turn = with_tcp();
    let mut ann = tcp_ann();
    ann.greet(&mut turn);
    assert_eq!(connect(&ann, &mut turn, PEER), Err(437));
    ann.relay(&mut turn);
    turn.events();
    assert_eq!(connect(&ann, &mut turn, PEER), Err(437));
    let mut bob = bob().at(client("198.51.100.2:1", Transport::Tcp));
    tcp_relay(&mut bob, &mut turn);
    let mut other = ann.at(bob.client);
    other.greet(&mut turn);
    assert_eq!(connect(&other, &mut turn, PEER), Err(441));
}

#[test]
fn s6062_2_a_second_connection_to_a_peer_is_446() {
    let mut turn = with_tcp();
    let mut ann = tcp_ann();
    tcp_relay(&mut ann, &mut turn);
    let wanted = connect(&ann, &mut turn, PEER).unwrap();
    // While it is being made, while it waits, and while it is in use.
    assert_eq!(connect(&ann, &mut turn, PEER), Err(446));
    let (_, id) = outcome(&ann, &mut turn, &wanted, true).unwrap();
    assert_eq!(connect(&ann, &mut turn, PEER), Err(446));
    assert_eq!(bind(&mut data(&ann, DATA), &mut turn, id.unwrap()), 0);
    assert_eq!(connect(&ann, &mut turn, PEER), Err(446));
    // Another port is another peer.
    assert!(connect(&ann, &mut turn, "52.1.2.3:4001").is_ok());
    // And what has been closed is gone.
    turn.relays.connections.clear();
    assert!(connect(&ann, &mut turn, PEER).is_ok());
}

#[test]
fn s6062_2_the_same_connect_again_starts_nothing() {
    let mut turn = with_tcp();
    let mut ann = tcp_ann();
    tcp_relay(&mut ann, &mut turn);
    let request = ann.signed(turn.id(), Method::CONNECT, |writer| {
        writer.xor_address(Attribute::XOR_PEER_ADDRESS, address(PEER));
    });
    let wanted = connect_with(&ann, &mut turn, &request).unwrap();
    assert_eq!(connect_with(&ann, &mut turn, &request), Err(0));
    assert!(outcome(&ann, &mut turn, &wanted, true).is_some());
    assert_eq!(outcome(&ann, &mut turn, &wanted, true), None);
}

#[test]
fn s6062_2_a_peer_must_be_named_and_be_of_the_relays_family() {
    let mut turn = with_tcp();
    let mut ann = tcp_ann();
    tcp_relay(&mut ann, &mut turn);
    let nobody = ann.ask(&mut turn, Method::CONNECT, |_| {});
    assert_eq!(nobody.code(), 400);
    let broken = ann.ask(&mut turn, Method::CONNECT, |writer| {
        writer.bytes(Attribute::XOR_PEER_ADDRESS, &[0, 1, 2]);
    });
    assert_eq!(broken.code(), 400);
    assert_eq!(connect(&ann, &mut turn, "52.1.2.3:0"), Err(400));
    assert_eq!(connect(&ann, &mut turn, PEER_V6), Err(443));
    // [P5]: the family comes before policy.
    assert_eq!(connect(&ann, &mut turn, "[::1]:4000"), Err(443));
}

#[test]
fn s6062_2_policy_is_that_of_all_peers() {
    let mut turn = with_tcp();
    let mut ann = tcp_ann();
    let relay = tcp_relay(&mut ann, &mut turn);
    let own = turn.relays.open[&relay].to_string();
    for peer in [
        "127.0.0.1:4000",
        "10.0.0.1:4000",
        "169.254.169.254:8000",
        "203.0.113.1:3478",
        &own,
    ] {
        assert_eq!(connect(&ann, &mut turn, peer), Err(403), "{peer}");
    }
    // Another relay of this server is a peer like any other.
    let mut bob = bob().at(client("198.51.100.2:1", Transport::Tcp));
    let other = tcp_relay(&mut bob, &mut turn);
    let other = turn.relays.open[&other].to_string();
    assert!(connect(&ann, &mut turn, &other).is_ok());
}

#[test]
fn a09_ports_of_services_are_closed_unless_opened() {
    let mut turn = Turn::with(|settings| {
        settings.tcp_relay = Some(TcpRelay {
            low_ports: vec![443],
            ..TcpRelay::default()
        });
    });
    let mut ann = tcp_ann();
    tcp_relay(&mut ann, &mut turn);
    for (port, open) in [
        (1, false),
        (22, false),
        (1023, false),
        (443, true),
        (1024, true),
    ] {
        let answer = connect(&ann, &mut turn, &format!("52.1.2.3:{port}"));
        assert_eq!(answer.is_ok(), open, "{port}");
        assert!(open || answer == Err(403));
    }
}

#[test]
fn a09_a_failure_is_told_late_and_says_nothing() {
    let mut turn = with_tcp();
    let mut ann = tcp_ann();
    tcp_relay(&mut ann, &mut turn);
    let mut delays = BTreeSet::new();
    for _ in 0..50 {
        let wanted = connect(&ann, &mut turn, PEER).unwrap();
        let longer = wanted.failure_after - wanted.timeout;
        assert!((seconds(1)..=seconds(5)).contains(&longer), "{longer:?}");
        delays.insert(longer);
        let told = outcome(&ann, &mut turn, &wanted, false);
        assert_eq!(told, Some((447, None)));
        assert_eq!(turn.relays.closed.pop(), Some(wanted.id));
    }
    assert_eq!(delays.len(), 50);
    let spread = *delays.last().unwrap() - *delays.first().unwrap();
    assert!(spread > seconds(2), "{spread:?}");
}

#[test]
fn a35_the_ninth_connection_is_486() {
    let mut turn = with_tcp();
    let mut ann = tcp_ann();
    let relay = tcp_relay(&mut ann, &mut turn);
    assert_eq!(ann.permit(&mut turn, &["52.1.2.4:1"]), 0);
    // Whoever began them, and whatever has become of them.
    for port in 0..4 {
        connected(&ann, &mut turn, &format!("52.1.2.3:{}", 4000 + port));
        connect(&ann, &mut turn, &format!("52.1.2.3:{}", 5000 + port)).unwrap();
    }
    assert_eq!(connect(&ann, &mut turn, "52.1.2.3:6000"), Err(486));
    let refused = attempt(&mut turn, relay, "52.1.2.4:1");
    assert_eq!(refused, Err(Cause::TooManyConnections));
    // One that has ended makes room for one.
    turn.relays.connections.pop_first();
    assert!(attempt(&mut turn, relay, "52.1.2.4:1").is_ok());
    assert_eq!(connect(&ann, &mut turn, "52.1.2.3:6000"), Err(486));
}

#[test]
fn the_answer_is_signed_as_its_question_was() {
    let mut turn = Turn::with(|settings| {
        settings.tcp_relay = Some(TcpRelay::default());
        settings.password_algorithms = turnd::turn::PasswordAlgorithms::Sha256AndMd5;
    });
    let mut ann = tcp_ann();
    ann.algorithm = Some(turnd::stun::PasswordAlgorithm::Sha256);
    tcp_relay(&mut ann, &mut turn);
    let wanted = connect(&ann, &mut turn, PEER).unwrap();
    let mut bytes = Vec::new();
    turn.server
        .connected(turn.now, &wanted, Ok(()), &mut turn.relays, &mut bytes);
    let message = Message::parse(&bytes).unwrap();
    assert!(message.has_sha256_integrity() && message.verify(&ann.key()));
    assert_eq!(ann.integrity(), Integrity::Sha256);
}

#[test]
fn a_client_that_has_gone_is_not_answered_and_gets_nothing() {
    let mut turn = with_tcp();
    let mut ann = tcp_ann();
    tcp_relay(&mut ann, &mut turn);
    let wanted = connect(&ann, &mut turn, PEER).unwrap();
    turn.server
        .client_gone(turn.now, ann.client, &mut turn.relays);
    assert_eq!(turn.relays.closed, [wanted.id]);
    assert_eq!(outcome(&ann, &mut turn, &wanted, true), None);
    // Not by her next allocation either, which has the same relay.
    assert_eq!(tcp_relay(&mut ann, &mut turn), wanted.relay);
    assert_eq!(outcome(&ann, &mut turn, &wanted, true), None);
    assert!(turn.relays.connections.is_empty());
}

#[test]
fn what_a_reload_closes_while_it_connects_is_403() {
    let mut turn = with_tcp();
    let mut ann = tcp_ann();
    tcp_relay(&mut ann, &mut turn);
    let used = connected(&ann, &mut turn, "52.1.2.3:4001");
    let stays = connected(&ann, &mut turn, "53.1.2.3:4001");
    let wanted = connect(&ann, &mut turn, PEER).unwrap();
    turn.reload(|settings| {
        settings.tcp_relay = Some(TcpRelay::default());
        settings.peers = peers(&[], &["52.0.0.0/8"]);
    });
    // Takes effect for what runs, too.
    assert_eq!(turn.relays.closed, [ConnectionId(used)]);
    assert!(turn.relays.connections.contains_key(&ConnectionId(stays)));
    assert_eq!(outcome(&ann, &mut turn, &wanted, true), Some((403, None)));
    assert_eq!(turn.relays.closed.pop(), Some(wanted.id));
}

#[test]
fn switching_the_feature_off_lets_connections_go_on_and_takes_no_new_ones() {
    let mut turn = with_tcp();
    let mut ann = tcp_ann();
    let relay = tcp_relay(&mut ann, &mut turn);
    assert_eq!(ann.permit(&mut turn, &[PEER]), 0);
    let id = connected(&ann, &mut turn, PEER);
    let wanted = connect(&ann, &mut turn, "52.1.2.3:4001").unwrap();
    turn.reload(|_| {});
    assert!(turn.relays.connections.contains_key(&ConnectionId(id)));
    assert_eq!(attempt(&mut turn, relay, PEER), Err(Cause::NoPermission));
    assert_eq!(outcome(&ann, &mut turn, &wanted, true), Some((403, None)));
    assert_eq!(ann.refresh(&mut turn, None).code(), 0);
}

// ConnectionAttempt

#[test]
fn s6062_4_a_permitted_peer_is_announced_and_others_are_not() {
    let mut turn = with_tcp();
    let mut ann = tcp_ann();
    let relay = tcp_relay(&mut ann, &mut turn);
    assert_eq!(attempt(&mut turn, relay, PEER), Err(Cause::NoPermission));
    assert!(turn.relays.connections.is_empty());
    assert_eq!(ann.permit(&mut turn, &[PEER]), 0);
    // Permissions are for addresses, whatever the port.
    let (peer, id) = attempt(&mut turn, relay, "52.1.2.3:9").unwrap();
    assert_eq!(peer, address("52.1.2.3:9"));
    assert_eq!(bind(&mut data(&ann, DATA), &mut turn, id), 0);
    turn.wait(seconds(301));
    assert_eq!(attempt(&mut turn, relay, PEER), Err(Cause::NoPermission));
    assert_eq!(
        attempt(&mut turn, RelayId(77), PEER),
        Err(Cause::UnknownRelay)
    );
}

#[test]
fn s6062_4_over_ipv6_too() {
    let mut turn = with_tcp();
    let mut ann = ann().at(client("[2001:db8::9]:1000", Transport::Tls));
    let answer = allocate_tcp(&mut ann, &mut turn, |writer| {
        writer.u8(Attribute::REQUESTED_ADDRESS_FAMILY, 2);
    });
    let relay = turn.relays.at(answer.relayed()).unwrap();
    assert_eq!(ann.permit(&mut turn, &[PEER_V6]), 0);
    let (peer, _) = attempt(&mut turn, relay, PEER_V6).unwrap();
    assert_eq!(peer, address(PEER_V6));
    assert_eq!(attempt(&mut turn, relay, PEER), Err(Cause::UnknownRelay));
}

#[test]
fn ids_are_random_and_no_two_are_alike() {
    let mut turn = Turn::with(|settings| {
        settings.tcp_relay = Some(TcpRelay {
            connections: 300,
            ..TcpRelay::default()
        });
    });
    let mut ann = tcp_ann();
    let relay = tcp_relay(&mut ann, &mut turn);
    assert_eq!(ann.permit(&mut turn, &[PEER]), 0);
    let ids: BTreeSet<u32> = (1..=200)
        .map(|port| {
            let (_, id) = attempt(&mut turn, relay, &format!("52.1.2.3:{port}")).unwrap();
            id
        })
        .collect();
    assert_eq!(ids.len(), 200);
    // Each bit is set in about half of them.
    for bit in 0..32 {
        let set = ids.iter().filter(|id| *id >> bit & 1 == 1).count();
        assert!((60..140).contains(&set), "bit {bit}: {set}");
    }
}

// ConnectionBind

#[test]
fn s6062_5_only_the_same_user_from_the_same_address_may_bind_and_once() {
    let mut turn = with_tcp();
    let mut ann = tcp_ann();
    tcp_relay(&mut ann, &mut turn);
    let id = connected(&ann, &mut turn, PEER);
    let stranger = client("198.51.100.1:1002", Transport::Tcp);
    // Another user, another address, another id: all the same to whoever asks.
    assert_eq!(bind(&mut bob().at(stranger), &mut turn, id), 400);
    let elsewhere = "198.51.100.77:1001";
    assert_eq!(bind(&mut data(&ann, elsewhere), &mut turn, id), 400);
    assert_eq!(bind(&mut data(&ann, DATA), &mut turn, id ^ 1), 400);
    // None of it has used it up.
    assert_eq!(bind(&mut data(&ann, DATA), &mut turn, id), 0);
    let again = "198.51.100.1:1003";
    assert_eq!(bind(&mut data(&ann, again), &mut turn, id), 400);
}

#[test]
fn s6062_5_bind_is_authenticated_and_needs_an_id_and_a_stream() {
    let mut turn = with_tcp();
    let mut ann = tcp_ann();
    tcp_relay(&mut ann, &mut turn);
    let id = connected(&ann, &mut turn, PEER);
    let put = |writer: &mut Writer<'_>| {
        writer.u32(Attribute::CONNECTION_ID, id);
    };
    let mut other = data(&ann, DATA);
    let unsigned = request(turn.id(), Method::CONNECTION_BIND, put);
    assert_eq!(turn.answered(other.client, &unsigned).code(), 401);
    let mut liar = other.clone();
    liar.password = b"wrong".to_vec();
    assert_eq!(bind(&mut liar, &mut turn, id), 401);
    assert_eq!(
        other.ask(&mut turn, Method::CONNECTION_BIND, |_| {}).code(),
        400
    );
    for transport in [Transport::Udp, Transport::Dtls] {
        let mut datagrams = ann.at(client(DATA, transport));
        assert_eq!(bind(&mut datagrams, &mut turn, id), 400);
    }
    // The control connection is no data connection.
    assert_eq!(bind(&mut ann, &mut turn, id), 400);
    // Over TLS it is as good as over TCP.
    let mut tls = ann.at(client(DATA, Transport::Tls));
    assert_eq!(bind(&mut tls, &mut turn, id), 0);
}

#[test]
fn s6062_5_credentials_that_only_share_the_person_are_others() {
    let mut turn = with_tcp();
    let control = client(CONTROL, Transport::Tcp);
    let mut early = vouched("cyd", UNIX + 1000, control);
    tcp_relay(&mut early, &mut turn);
    let id = connected(&early, &mut turn, PEER);
    let at = client(DATA, Transport::Tcp);
    assert_eq!(
        bind(&mut vouched("cyd", UNIX + 2000, at), &mut turn, id),
        400
    );
    assert_eq!(bind(&mut vouched("cyd", UNIX + 1000, at), &mut turn, id), 0);
}

#[test]
fn s6062_3_an_id_is_good_for_thirty_seconds() {
    for (wait, code) in [(29, 0), (30, 400)] {
        let mut turn = with_tcp();
        let mut ann = tcp_ann();
        tcp_relay(&mut ann, &mut turn);
        // The time runs from the success, not from the question.
        let wanted = connect(&ann, &mut turn, PEER).unwrap();
        turn.wait(seconds(29));
        let (_, id) = outcome(&ann, &mut turn, &wanted, true).unwrap();
        turn.wait(seconds(wait));
        assert_eq!(bind(&mut data(&ann, DATA), &mut turn, id.unwrap()), code);
    }
}

// The end

#[test]
fn s6062_6_the_end_of_an_allocation_closes_all() {
    for end in 0..4 {
        let mut turn = Turn::with(|settings| {
            settings.tcp_relay = Some(TcpRelay::default());
            settings.on_expiry = OnExpiry::Cut;
        });
        let expires = if end == 3 { 100 } else { 1000 };
        let control = client(CONTROL, Transport::Tcp);
        let mut ann = vouched("ann", UNIX + expires, control);
        let relay = tcp_relay(&mut ann, &mut turn);
        assert_eq!(ann.permit(&mut turn, &[PEER]), 0);
        let bound = connected(&ann, &mut turn, "52.1.2.3:4001");
        assert_eq!(bind(&mut data(&ann, DATA), &mut turn, bound), 0);
        let carried = Carried {
            to_peer: 700,
            to_client: 30,
        };
        let entry = turn.relays.connections.get_mut(&ConnectionId(bound));
        entry.unwrap().1 = carried;
        let (_, waits) = attempt(&mut turn, relay, PEER).unwrap();
        let wanted = connect(&ann, &mut turn, "52.1.2.3:4002").unwrap();
        match end {
            0 => turn.wait(seconds(600)),
            1 => assert_eq!(ann.refresh(&mut turn, Some(0)).code(), 0),
            2 => turn
                .server
                .client_gone(turn.now, ann.client, &mut turn.relays),
            // Clocks may differ by a minute.
            _ => turn.wait(seconds(160)),
        }
        assert_eq!(
            turn.relays.closed,
            [ConnectionId(bound), ConnectionId(waits), wanted.id]
        );
        assert!(turn.relays.open.is_empty());
        let events = turn.events();
        let Some(Event::Released(ended)) = events.last() else {
            panic!("{events:?}");
        };
        assert_eq!((ended.to_peer.bytes, ended.to_client.bytes), (700, 30));
        let reason = [
            EndReason::Expired,
            EndReason::Deleted,
            EndReason::ConnectionClosed,
            EndReason::CredentialsExpired,
        ][end];
        assert_eq!(ended.reason, reason);
    }
}

#[test]
fn s6062_6_the_half_of_a_dual_allocation_closes_its_own() {
    let mut turn = with_tcp();
    let mut ann = tcp_ann();
    let answer = allocate_tcp(&mut ann, &mut turn, |writer| {
        writer.u8(Attribute::ADDITIONAL_ADDRESS_FAMILY, 2);
    });
    assert_eq!(answer.code(), 0);
    assert_eq!(turn.relays.listening.len(), 2);
    turn.events();
    let v4 = connected(&ann, &mut turn, PEER);
    let v6 = connected(&ann, &mut turn, PEER_V6);
    let half = ann.ask(&mut turn, Method::REFRESH, |writer| {
        writer
            .u32(Attribute::LIFETIME, 0)
            .u8(Attribute::REQUESTED_ADDRESS_FAMILY, 1);
    });
    assert_eq!(half.code(), 0);
    assert_eq!(turn.relays.closed, [ConnectionId(v4)]);
    assert!(turn.relays.connections.contains_key(&ConnectionId(v6)));
    assert_eq!(connect(&ann, &mut turn, "52.1.2.3:4001"), Err(443));
}
