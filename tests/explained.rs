//! What is said of what a machine has noted: the right cause first, nothing that is not so, and nobody misled by others.
#![cfg(feature = "server")]
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "what fails here fails the test"
)]

mod support;

use support::*;
use turnd::explain::{Explanation, Finding, explain};
use turnd::stun::{Attribute, Method};
use turnd::turn::{
    ConnectFailure, Event, SecretAlgorithm, SendFailure, SharedSecret, TcpRelay, Transport,
};

/// What is said of all that a machine knows.
fn told(turn: &Turn) -> Explanation {
    let accounts = turn
        .server
        .accounts(turn.now, 0, usize::MAX, |_| true, None);
    let mut sessions = accounts.found;
    sessions.extend(turn.server.past_accounts(turn.now, |_| true, None));
    let refused = turn.server.refused(|_| true);
    explain(&sessions, &refused, None, turn.now.unix)
}

fn causes(turn: &Turn) -> Vec<String> {
    let findings = told(turn).findings;
    findings.into_iter().map(|finding| finding.cause).collect()
}

/// The only finding, which says all of this.
fn only(turn: &Turn, parts: &[&str]) -> Finding {
    let findings = told(turn).findings;
    let [finding] = &findings[..] else {
        panic!("{findings:#?}")
    };
    let all = format!("{}\n{}", finding.what, finding.remedy);
    for part in parts {
        assert!(all.contains(part), "`{part}` is not in\n{all}");
    }
    finding.clone()
}

const HARMLESS: u8 = 50;

#[test]
fn what_a_reload_has_closed_is_not_said_to_have_expired() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    ann.bind(&mut turn, 0x4000, PEER);
    turn.wait(seconds(20));
    turn.reload(|settings| settings.peers = peers(&[], &["52.0.0.0/8"]));
    turn.wait(seconds(10));
    turn.peer_sends(relay, PEER, b"x").unwrap_err();
    ann.send(&mut turn, PEER, b"x").unwrap_err();
    ann.channel(&mut turn, 0x4000, PEER, b"x").unwrap_err();
    let finding = only(
        &turn,
        &["52.1.2.3 was open to this session, until a reload 10 s ago closed it"],
    );
    assert_eq!(finding.cause, "peer_closed_by_reload");
    // Another reload opens it, and the client asks again.
    turn.reload(|_| {});
    ann.bind(&mut turn, 0x4000, PEER);
    turn.peer_sends(relay, PEER, b"x").unwrap();
    assert!(
        told(&turn)
            .findings
            .iter()
            .all(|finding| finding.rank == HARMLESS),
        "{:#?}",
        told(&turn).findings
    );
}

#[test]
fn what_was_sent_before_its_permission_is_not_what_fails_now() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    ann.send(&mut turn, PEER, b"x").unwrap_err();
    ann.channel(&mut turn, 0x4000, PEER, b"x").unwrap_err();
    assert_eq!(causes(&turn), ["no_permission", "no_channel"]);
    assert_eq!(told(&turn).findings[0].rank, 20);
    ann.bind(&mut turn, 0x4000, PEER);
    for _ in 0..10 {
        ann.channel(&mut turn, 0x4000, PEER, b"x").unwrap();
    }
    assert_eq!(
        causes(&turn),
        ["peer_silent", "no_permission", "no_channel"]
    );
    assert_eq!(told(&turn).findings[1].rank, HARMLESS);
}

#[test]
fn a_permission_that_was_asked_for_again_too_late_is_said_to_be_back() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    ann.permit(&mut turn, &[PEER]);
    turn.wait(seconds(310));
    turn.peer_sends(relay, PEER, b"x").unwrap_err();
    let finding = only(
        &turn,
        &[
            "expired 10 s ago: the client asked for it once",
            "and stopped. Since then 1 packet from that peer was dropped",
        ],
    );
    assert_eq!(finding.rank, 20);
    turn.wait(seconds(5));
    ann.permit(&mut turn, &[PEER]);
    let finding = only(
        &turn,
        &[
            "had expired before the client asked for it again 0 s ago: 1 packet from that peer was dropped meanwhile",
        ],
    );
    assert_eq!(finding.rank, HARMLESS);
}

/// Three requests that are answered 403, for three reasons.
#[test]
fn what_has_one_code_is_told_apart() {
    let issuing = || SharedSecret::new("k1", b"first", SecretAlgorithm::Sha256).with_claims();
    let mut turn = Turn::with(|settings| {
        settings.users.add_secret(issuing()).unwrap();
        settings.policies.insert("media".into(), peers(&[], &[]));
        settings.limits.new_peers.per_allocation = 1;
    });
    let name = format!("{}:k1~acme~ann~pmedia", UNIX + 600);
    let password = issuing().password(name.as_bytes());
    let mut ann = User::new(&name, &password, udp("198.51.100.1:1000"));
    ann.relay(&mut turn);
    assert_eq!(ann.permit(&mut turn, &["52.1.1.1:1", "52.1.1.2:1"]), 403);
    only(
        &turn,
        &[
            "CreatePermission was answered 403 once, last 0 s ago: it names more new peers in a minute than it may",
            "`new_peers_per_allocation`",
        ],
    );
    turn.reload(|settings| settings.users.add_secret(issuing()).unwrap());
    assert_eq!(ann.permit(&mut turn, &["52.1.1.1:1"]), 403);
    let findings = told(&turn).findings;
    assert!(
        findings[1]
            .what
            .contains("names the policy `media`, which is not there"),
        "{findings:#?}"
    );
    assert_eq!(ann.bind(&mut turn, 0x4000, "10.0.0.1:1"), 403);
    assert_eq!(causes(&turn), ["request_refused"; 3]);
}

/// \[6062-1\] The client is told one code for all of them.
#[test]
fn an_operator_is_told_why_a_peer_could_not_be_connected() {
    for (why, words) in [
        (
            ConnectFailure::Refused,
            "it, or a firewall before it, refused",
        ),
        (ConnectFailure::TimedOut, "it did not answer in time"),
        (
            ConnectFailure::NoRoute,
            "there is no way to it from this host",
        ),
        (ConnectFailure::Other, "the kernel of this host refused"),
    ] {
        let mut turn = Turn::with(|settings| settings.tcp_relay = Some(TcpRelay::default()));
        let mut ann = ann().at(client("198.51.100.1:1000", Transport::Tcp));
        ann.ask(&mut turn, Method::ALLOCATE, |writer| {
            writer.u8(Attribute::REQUESTED_TRANSPORT, 6);
        });
        let connect = ann.signed(turn.id(), Method::CONNECT, |writer| {
            writer.xor_address(Attribute::XOR_PEER_ADDRESS, address(PEER));
        });
        turn.input(ann.client, &connect);
        let wanted = turn.events().into_iter().find_map(|event| match event {
            Event::Connect(connect) => Some(*connect),
            _ => None,
        });
        turn.server.connected(
            turn.now,
            &wanted.unwrap(),
            Err(why),
            &mut turn.relays,
            &mut Vec::new(),
        );
        only(
            &turn,
            &[
                "The peer 52.1.2.3:4000 could not be connected to (447), once, last 0 s ago",
                words,
            ],
        );
    }
}

#[test]
fn a_request_for_what_the_relay_cannot_do_is_not_called_broken() {
    let mut turn = Turn::with(|settings| settings.tcp_relay = Some(TcpRelay::default()));
    let mut ann = ann().at(client("198.51.100.1:1000", Transport::Tcp));
    ann.relay(&mut turn);
    let answer = ann.ask(&mut turn, Method::CONNECT, |writer| {
        writer.xor_address(Attribute::XOR_PEER_ADDRESS, address(PEER));
    });
    assert_eq!(answer.code(), 437);
    only(&turn, &["its relay is one for datagrams"]);

    let mut turn = Turn::new();
    let answer = ann.allocate_with(&mut turn, |writer| {
        writer.bytes(Attribute::MOBILITY_TICKET, &[]);
    });
    assert_eq!(answer.code(), 405);
    only(
        &turn,
        &["wants to be able to move", "`mobility` under [server]"],
    );

    let mut turn = Turn::with(|settings| settings.tcp_relay = Some(TcpRelay::default()));
    let answer = ann.ask(&mut turn, Method::CONNECTION_BIND, |writer| {
        writer.u32(Attribute::CONNECTION_ID, 7);
    });
    assert_eq!(answer.code(), 400);
    only(&turn, &["claims a connection to a peer that is not there"]);
}

/// Neither does the name of one user begin the name of another, nor is a fresh credential another user's.
#[test]
fn only_the_same_user_lets_a_refusal_be_over() {
    let from = |port: u16| udp(&format!("198.51.100.1:{port}"));
    let mut turn = Turn::new();
    let mut an = User::new("an", "wrong", from(1000));
    assert_eq!(an.allocate(&mut turn).code(), 401);
    let mut nameless = User::new("", "wrong", from(1001));
    nameless.allocate(&mut turn);
    turn.wait(seconds(5));
    ann().at(from(1002)).relay(&mut turn);
    assert!(
        told(&turn).findings.iter().all(|one| one.rank == 10),
        "{:#?}",
        told(&turn).findings
    );

    let mut turn = Turn::new();
    let mut late = vouched("ann", UNIX - 77, from(1000));
    assert_eq!(late.allocate(&mut turn).code(), 401);
    assert_eq!(told(&turn).findings[0].rank, 10);
    turn.wait(seconds(5));
    vouched("ann", UNIX + 600, from(1001)).relay(&mut turn);
    assert_eq!(only(&turn, &["expired 1 min 17 s ago"]).rank, HARMLESS);
}

/// Whoever knows a name can have its logins refused; the cause of the user's own trouble stays in front.
#[test]
fn a_stranger_with_somebodys_name_does_not_stand_in_front() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    assert_eq!(ann.permit(&mut turn, &["10.0.0.1:1"]), 403);
    let mut mallory = User::new("ann", "wrong", udp("192.0.2.66:1000"));
    for _ in 0..50 {
        assert_eq!(mallory.allocate(&mut turn).code(), 401);
    }
    assert_eq!(causes(&turn), ["peer_closed", "wrong_password"]);
    let last = told(&turn).findings.pop().unwrap();
    assert!(
        last.what
            .ends_with("Anybody can give that name: the user has a session from 198.51.100.1."),
        "{}",
        last.what
    );
}

/// A scanner is not said to be the peer.
#[test]
fn a_stranger_is_not_said_to_be_a_silent_peer() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    ann.permit(&mut turn, &[PEER]);
    for _ in 0..10 {
        ann.send(&mut turn, PEER, b"x").unwrap();
    }
    turn.peer_sends(relay, "192.0.2.66:53", b"x").unwrap_err();
    only(
        &turn,
        &[
            "The peer 52.1.2.3 was sent 10 packets and has not answered with one",
            "the last from 192.0.2.66:53: that may be where the peer sends from",
            "any port of the internet gets such packets",
        ],
    );
}

#[test]
fn what_the_network_says_is_put_into_the_right_words() {
    let cases: [(&str, u8, u8, &str); 9] = [
        (PEER, 3, 3, "nothing listens on that port"),
        (PEER, 3, 1, "could not find the host"),
        (PEER, 3, 2, "the host itself, would not take it"),
        (PEER, 3, 13, "a firewall on the way forbids it"),
        (PEER, 3, 4, "longer than the path takes"),
        (PEER, 11, 0, "on the way for too long"),
        (PEER_V6, 1, 3, "could not find the host"),
        (PEER_V6, 1, 1, "a firewall on the way forbids it"),
        (PEER_V6, 2, 0, "longer than the path takes"),
    ];
    for (peer, kind, code, words) in cases {
        let mut turn = Turn::new();
        let mut ann = ann();
        ann.allocate_with(&mut turn, |writer| {
            let family = if peer == PEER { 1 } else { 2 };
            writer.u8(Attribute::REQUESTED_ADDRESS_FAMILY, family);
        });
        let relay = turn.relays.open.keys().next().copied().unwrap();
        assert_eq!(ann.permit(&mut turn, &[peer]), 0);
        turn.icmp(relay, peer, (kind, code, 0)).unwrap();
        only(&turn, &[words]);
    }
}

#[test]
fn what_this_host_cannot_send_is_said_with_where_to_look() {
    for (why, cause, words) in [
        (SendFailure::NoRoute, "no_route", "`ip route get 52.1.2.3`"),
        (SendFailure::TooBig, "too_big", "less than 1200 bytes"),
        (SendFailure::Forbidden, "firewall", "`nft list ruleset`"),
        (
            SendFailure::Other,
            "send_failed",
            "turn_socket_errors_total",
        ),
    ] {
        let mut turn = Turn::new();
        let mut ann = ann();
        let relay = ann.relay(&mut turn);
        ann.permit(&mut turn, &[PEER]);
        let peer = address(PEER).ip();
        turn.server.send_failed(turn.now, relay, peer, why);
        turn.server.send_failed(turn.now, relay, peer, why);
        let finding = only(
            &turn,
            &[
                "What was meant for 52.1.2.3 could not be sent",
                "twice",
                words,
            ],
        );
        assert_eq!(finding.cause, cause);
    }
}

/// No name, realm or policy of a stranger gets to the terminal as it is.
#[test]
fn what_strangers_say_is_shown_without_control_characters() {
    let mut turn = Turn::new();
    let mut evil = User::new(
        "\u{1b}]0;owned\u{7}\u{1b}[2J\u{202e}",
        "x",
        udp("192.0.2.66:1000"),
    );
    assert_eq!(evil.allocate(&mut turn).code(), 401);
    evil.realm = "\u{1b}[31mred\n\n1. All is well".to_owned();
    evil.allocate(&mut turn);
    let text = told(&turn).to_string();
    assert!(
        text.chars()
            .all(|letter| letter == '\n' || (' '..='~').contains(&letter)),
        "{text:?}"
    );
    assert!(!text.contains("\n1. All is well"), "{text}");
}
