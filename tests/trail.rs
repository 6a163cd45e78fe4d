//! What a machine notes, so that somebody who asks why a call fails can be told: of sessions, of those that have
//! ended, and of those who were refused one.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "what fails here fails the test"
)]

mod support;

use std::net::IpAddr;

use support::*;
use turnd::stun::{Attribute, Method};
use turnd::turn::{
    Account, Cause, Closes, ConnectFailure, EndReason, Fact, Ground, Limit, Note, Range, Rebuff,
    Refusal, SendFailure, Why,
};

fn ip(text: &str) -> IpAddr {
    address(text).ip()
}

/// The accounts of all that lives.
fn live(turn: &Turn) -> Vec<Account> {
    let accounts = turn
        .server
        .accounts(turn.now, 0, usize::MAX, |_| true, None);
    assert_eq!(accounts.next, None);
    accounts.found
}

fn only(turn: &Turn) -> Account {
    let [account] = <[Account; 1]>::try_from(live(turn)).unwrap();
    account
}

fn past(turn: &Turn) -> Vec<Account> {
    turn.server.past_accounts(turn.now, |_| true, None)
}

fn refused(turn: &Turn) -> Vec<Rebuff> {
    turn.server.refused(|_| true)
}

fn note(account: &Account, fact: impl Fn(&Fact) -> bool) -> Note {
    let mut notes = account.notes.iter().filter(|note| fact(&note.fact));
    let note = *notes.next().unwrap_or_else(|| panic!("{account:#?}"));
    assert!(notes.next().is_none(), "{account:#?}");
    note
}

#[test]
fn what_goes_well_leaves_two_counters_for_each_peer() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    assert!(only(&turn).notes.is_empty());
    ann.permit(&mut turn, &["52.9.9.9:1", PEER]);
    ann.bind(&mut turn, 0x4000, PEER);
    for _ in 0..3 {
        ann.channel(&mut turn, 0x4000, PEER, b"x").unwrap();
        ann.send(&mut turn, "52.9.9.9:1", b"x").unwrap();
    }
    turn.peer_sends(relay, PEER, b"x").unwrap();
    turn.peer_sends(relay, "52.1.2.3:9", b"x").unwrap();
    turn.wait(seconds(100));
    assert_eq!(ann.refresh(&mut turn, None).code(), 0);

    let account = only(&turn);
    let exchanges: Vec<_> = account
        .exchanges
        .iter()
        .map(|one| (one.peer, one.channel, one.sent, one.heard))
        .collect();
    let (peer, other) = (ip(PEER), ip("52.9.9.9:1"));
    assert_eq!(
        exchanges,
        [
            (peer, None, 0, 1),
            (other, None, 3, 0),
            (peer, Some((4000, 0x4000)), 3, 1),
        ]
    );
    assert_eq!((account.refreshed.count, account.refreshed.last), (1, 100));
    assert_eq!(account.strangers, None);
    let facts: Vec<_> = account.notes.iter().map(|note| note.fact).collect();
    let bound = Fact::Bound {
        number: 0x4000,
        ip: peer,
        port: 4000,
    };
    let permitted = |ip| Fact::Permitted { ip };
    assert_eq!(facts, [permitted(other), permitted(peer), bound]);
}

/// The same judge says whether, and why.
#[test]
fn a_refused_peer_is_noted_with_the_rule_that_closes_it() {
    let mut turn = Turn::with(|settings| settings.peers = peers(&[], &["52.0.0.0/8"]));
    let mut ann = ann();
    ann.relay(&mut turn);
    for _ in 0..2 {
        assert_eq!(ann.permit(&mut turn, &["9.9.9.9:1", "10.0.0.1:5000"]), 403);
    }
    assert_eq!(ann.bind(&mut turn, 0x4000, PEER), 403);
    assert_eq!(ann.permit(&mut turn, &[SERVER_V4]), 403);
    let account = only(&turn);
    let rules: Vec<_> = account
        .notes
        .iter()
        .map(|note| match note.fact {
            Fact::Denied { ip, rule, .. } => (ip.to_string(), rule.closes, note.count),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        rules,
        [
            ("10.0.0.1".into(), Closes::Special(Range::Private), 2),
            ("52.1.2.3".into(), Closes::Deny(8), 1),
            ("203.0.113.1".into(), Closes::Own, 1),
        ]
    );
}

#[test]
fn data_without_a_permission_are_told_apart_from_those_of_an_expired_one() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    ann.permit(&mut turn, &[PEER]);
    turn.wait(seconds(301));
    for _ in 0..4 {
        let dropped = turn.peer_sends(relay, "52.1.2.3:77", b"x");
        assert_eq!(dropped, Err(Cause::NoPermission));
    }
    turn.peer_sends(relay, "52.7.7.7:7", b"x").unwrap_err();
    ann.send(&mut turn, PEER, b"x").unwrap_err();
    ann.channel(&mut turn, 0x4001, PEER, b"x").unwrap_err();
    // What was forgotten with the list is still in the notes.
    ann.permit(&mut turn, &["52.9.9.9:1"]);
    turn.peer_sends(relay, PEER, b"x").unwrap_err();

    let account = only(&turn);
    let late = note(&account, |fact| {
        matches!(fact, Fact::FromPeerExpired { .. })
    });
    assert_eq!((late.count, late.first), (5, 301));
    assert_eq!(late.fact.peer(), Some(ip(PEER)));
    let strangers = account.strangers.unwrap();
    assert_eq!(
        (strangers.count, strangers.from),
        (1, address("52.7.7.7:7"))
    );
    note(&account, |fact| {
        *fact == Fact::ToPeerUnpermitted { ip: ip(PEER) }
    });
    note(&account, |fact| *fact == Fact::NoChannel { number: 0x4001 });
}

#[test]
fn what_the_network_and_the_kernel_say_is_noted_however_often() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    ann.permit(&mut turn, &[PEER]);
    for _ in 0..50 {
        let _ = turn.icmp(relay, PEER, (3, 3, 0));
        let peer = ip("52.9.9.9:1");
        turn.server
            .send_failed(turn.now, relay, peer, SendFailure::NoRoute);
    }
    let account = only(&turn);
    let icmp = note(&account, |fact| matches!(fact, Fact::Icmp { .. }));
    assert_eq!(icmp.count, 50, "the client was told ten");
    let unreachable = Fact::SendFailed {
        ip: ip("52.9.9.9:1"),
        why: SendFailure::NoRoute,
    };
    assert_eq!(note(&account, |fact| *fact == unreachable).count, 50);
}

#[test]
fn other_settings_that_close_a_peer_are_noted() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    ann.permit(&mut turn, &[PEER, "9.9.9.9:1"]);
    turn.reload(|settings| settings.peers = peers(&[], &["52.0.0.0/8"]));
    let closed = note(&only(&turn), |fact| matches!(fact, Fact::Closed { .. }));
    assert_eq!(closed.fact.peer(), Some(ip(PEER)));
}

#[test]
fn requests_about_an_allocation_that_are_refused_are_noted_with_their_code() {
    let mut turn = Turn::with(|settings| settings.limits.permissions = 1);
    let mut ann = ann();
    ann.relay(&mut turn);
    assert_eq!(ann.permit(&mut turn, &[PEER, "9.9.9.9:1"]), 508);
    assert_eq!(ann.bind(&mut turn, 0x3000, PEER), 400);
    assert_eq!(ann.permit(&mut turn, &[PEER_V6]), 443);
    let account = only(&turn);
    let codes: Vec<_> = account
        .notes
        .iter()
        .map(|note| match note.fact {
            Fact::Refused {
                method,
                code,
                ground: Ground::Code,
            } => (method, code),
            other => panic!("{other:?}"),
        })
        .collect();
    let (permit, bind) = (Method::CREATE_PERMISSION, Method::CHANNEL_BIND);
    assert_eq!(codes, [(permit, 508), (bind, 400), (permit, 443)]);
    assert!(refused(&turn).is_empty());
}

#[test]
fn the_account_of_a_session_outlives_it() {
    let mut turn = Turn::new();
    let (mut ann, mut bob) = (ann(), bob());
    ann.relay(&mut turn);
    bob.relay(&mut turn);
    ann.permit(&mut turn, &[PEER]);
    ann.send(&mut turn, PEER, b"x").unwrap();
    assert_eq!(ann.permit(&mut turn, &["10.0.0.1:1"]), 403);
    bob.refresh(&mut turn, Some(0));
    turn.wait(seconds(700));

    let [expired, deleted] = <[Account; 2]>::try_from(past(&turn)).unwrap();
    assert_eq!(expired.ended, Some((EndReason::Expired, seconds(100))));
    assert_eq!(deleted.ended, Some((EndReason::Deleted, seconds(700))));
    assert_eq!(&*expired.session.username, b"ann");
    assert_eq!(expired.session.age, seconds(600));
    assert_eq!(expired.exchanges[0].sent, 1);
    assert_eq!(expired.exchanges[0].left, Err(seconds(300)));
    note(&expired, |fact| matches!(fact, Fact::Denied { .. }));
    // Found by who it was, and by whom it had to do with.
    let by = |name: &'static [u8], peer: Option<&str>| {
        let named = move |holder: &turnd::turn::Holder<'_>| holder.username == name;
        let found = turn.server.past_accounts(turn.now, named, peer.map(ip));
        found.len()
    };
    assert_eq!(
        (by(b"ann", None), by(b"bob", None), by(b"cyd", None)),
        (1, 1, 0)
    );
    assert_eq!((by(b"ann", Some(PEER)), by(b"bob", Some(PEER))), (1, 0));
}

#[test]
fn the_accounts_of_the_past_are_few() {
    let mut turn = Turn::new();
    let mut ann = ann();
    for _ in 0..300 {
        assert_eq!(ann.allocate(&mut turn).code(), 0);
        assert_eq!(ann.refresh(&mut turn, Some(0)).code(), 0);
        turn.pass(seconds(1));
    }
    let past = past(&turn);
    assert_eq!(past.len(), 256);
    let ages: Vec<_> = past
        .iter()
        .map(|account| account.ended.unwrap().1)
        .collect();
    assert!(ages.is_sorted());
    assert_eq!(ages[0], seconds(1));
}

/// Who wants its deeds forgotten cannot make the others be forgotten, by many short calls.
#[test]
fn nobody_pushes_out_the_past_of_the_others() {
    let mut turn = Turn::new();
    let (mut ann, mut bob) = (ann(), bob());
    let mut call = |user: &mut User| {
        assert_eq!(user.allocate(&mut turn).code(), 0);
        assert_eq!(user.refresh(&mut turn, Some(0)).code(), 0);
        turn.pass(seconds(1));
    };
    for _ in 0..100 {
        call(&mut bob);
    }
    for _ in 0..1000 {
        call(&mut ann);
    }
    // Bob is one of many, too, and is known by his last calls as well as by the first.
    for _ in 0..10 {
        call(&mut bob);
    }
    let past = past(&turn);
    let of = |name: &[u8]| {
        let theirs = |account: &&Account| &*account.session.username == name;
        past.iter().filter(theirs).count()
    };
    assert_eq!((of(b"bob"), of(b"ann")), (100, 156));
    let ages = past.iter().map(|account| account.ended.unwrap().1);
    assert!(ages.is_sorted());
}

#[test]
fn a_login_that_fails_is_noted_with_the_reason() {
    let mut turn = Turn::with(|settings| {
        settings.users = users();
        settings.users.add_secret(issuing()).unwrap();
    });
    let client = |place: u8| udp(&format!("198.51.100.{place}:1000"));
    let mut late = vouched("ann", UNIX - 77, client(1));
    let mut wrong = User::new("ann", "wrong", client(2));
    let mut nobody = User::new("nobody", "x", client(3));
    let mut elsewhere = ann().at(client(4));
    elsewhere.realm = "example.org".into();
    let name = format!("{}:k9~acme~ann~t60", UNIX + 60);
    let mut unknown = User::new(&name, "x", client(5));
    let name = format!("{}:k1~acme~ann~t3600", UNIX - 100);
    let mut issued = User::new(&name, &issuing().password(name.as_bytes()), client(6));
    for user in [
        &mut late,
        &mut wrong,
        &mut nobody,
        &mut elsewhere,
        &mut unknown,
        &mut issued,
    ] {
        for _ in 0..3 {
            assert_eq!(user.allocate(&mut turn).code(), 401);
        }
    }
    let refused = refused(&turn);
    let whys: Vec<_> = refused.iter().rev().map(|one| one.why.clone()).collect();
    assert_eq!(
        whys,
        [
            Why::Expired {
                ago: 77,
                issued_for: None
            },
            Why::Login(Refusal::Integrity),
            Why::Login(Refusal::UnknownUser),
            Why::Realm {
                theirs: b"example.org"[..].into()
            },
            Why::UnknownSecret,
            Why::Expired {
                ago: 100,
                issued_for: Some(3600)
            },
        ]
    );
    assert!(refused.iter().all(|one| one.count == 3 && one.code == 401));
    assert_eq!(refused[5].five_tuple.client, client(1).five_tuple.client);
    assert_eq!(&*refused[5].username, late.name);
}

fn issuing() -> turnd::turn::SharedSecret {
    use turnd::turn::{SecretAlgorithm, SharedSecret};
    SharedSecret::new("k1", b"first", SecretAlgorithm::Sha256).with_claims()
}

#[test]
fn first_requests_and_forgeries_are_not_noted() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.greet(&mut turn);
    let mut forged = User::new("ann", "wrong", udp("198.51.100.9:1000"));
    forged.nonce = b"made up, as whoever cannot receive must".to_vec();
    assert_eq!(forged.allocate(&mut turn).code(), 401);
    assert_eq!(refused(&turn), []);
}

#[test]
fn an_allocate_that_is_refused_is_noted_with_the_limit_and_how_many_there_are() {
    let mut turn = Turn::with(|settings| settings.limits.per_user = 2);
    let at = |port: u16| ann().at(udp(&format!("198.51.100.1:{port}")));
    at(1).relay(&mut turn);
    at(2).relay(&mut turn);
    assert_eq!(at(3).allocate(&mut turn).code(), 486);
    turn.server.drain(true);
    let mut bob = bob();
    assert_eq!(bob.allocate(&mut turn).code(), 508);
    assert_eq!(bob.permit(&mut turn, &[PEER]), 437);
    let whys: Vec<_> = refused(&turn)
        .into_iter()
        .map(|one| (one.why, one.code))
        .collect();
    let quota = Why::Quota {
        limit: Limit::User,
        has: 2,
        most: 2,
    };
    assert_eq!(
        whys,
        [(Why::NoAllocation, 437), (Why::Draining, 508), (quota, 486)]
    );
}

#[test]
fn somebody_elses_allocation_is_noted_under_the_name_of_who_asked() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    let mut bob = bob().at(ann.client);
    assert_eq!(bob.refresh(&mut turn, None).code(), 441);
    assert_eq!(&*refused(&turn)[0].username, b"bob");
    assert!(only(&turn).notes.is_empty());
}

#[test]
fn names_are_cut() {
    let mut turn = Turn::new();
    let name = "n".repeat(400);
    let mut long = User::new(&name, "x", udp("198.51.100.3:1000"));
    assert_eq!(long.allocate(&mut turn).code(), 401);
    assert_eq!(refused(&turn)[0].username.len(), 64);
}

#[test]
fn a_tcp_peer_that_cannot_be_connected_is_noted() {
    use turnd::turn::{Event, TcpRelay, Transport};
    let mut turn = Turn::with(|settings| settings.tcp_relay = Some(TcpRelay::default()));
    let mut ann = ann().at(client("198.51.100.1:1000", Transport::Tcp));
    ann.ask(&mut turn, Method::ALLOCATE, |writer| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 6);
    });
    let request = ann.signed(turn.id(), Method::CONNECT, |writer| {
        writer.xor_address(Attribute::XOR_PEER_ADDRESS, address(PEER));
    });
    turn.input(ann.client, &request);
    let connect = turn.events().into_iter().find_map(|event| match event {
        Event::Connect(connect) => Some(*connect),
        _ => None,
    });
    let mut reply = Vec::new();
    turn.server.connected(
        turn.now,
        &connect.unwrap(),
        Err(ConnectFailure::Refused),
        &mut turn.relays,
        &mut reply,
    );
    let failed = Fact::ConnectFailed {
        ip: ip(PEER),
        port: 4000,
        why: ConnectFailure::Refused,
    };
    note(&only(&turn), |fact| *fact == failed);
}

#[test]
fn what_is_above_a_rate_is_counted() {
    let mut turn = Turn::with(|settings| settings.limits.bandwidth.per_allocation = 8000);
    let mut ann = ann();
    ann.relay(&mut turn);
    ann.permit(&mut turn, &[PEER]);
    let dropped = (0..20).filter(|_| ann.send(&mut turn, PEER, &[0; 100]).is_err());
    let dropped = dropped.count() as u32;
    assert!(dropped > 5);
    let cause = Cause::Bandwidth;
    assert_eq!(
        note(&only(&turn), |fact| *fact == Fact::Dropped { cause }).count,
        dropped
    );
}

/// The rule is that of whoever judges: of the policy that the credential names.
#[test]
fn a_peer_that_a_policy_closes_is_noted_with_the_rule_of_the_policy() {
    let mut turn = Turn::with(|settings| {
        settings.users.add_secret(issuing()).unwrap();
        let media = peers(&["10.1.0.0/16"], &["52.0.0.0/8"]);
        settings.policies.insert("media".into(), media);
        settings.limits.new_peers.per_allocation = 1;
    });
    let name = format!("{}:k1~acme~ann~pmedia", UNIX + 60);
    let password = issuing().password(name.as_bytes());
    let mut ann = User::new(&name, &password, udp("198.51.100.1:1000"));
    ann.relay(&mut turn);
    assert_eq!(ann.permit(&mut turn, &[PEER]), 403);
    assert_eq!(ann.permit(&mut turn, &["10.1.0.1:1"]), 0);
    assert_eq!(ann.permit(&mut turn, &["10.1.0.2:1"]), 403);
    let account = only(&turn);
    let denied = note(&account, |fact| matches!(fact, Fact::Denied { .. }));
    assert_eq!(denied.fact.peer(), Some(ip(PEER)));
    let method = Method::CREATE_PERMISSION;
    note(&account, |fact| {
        *fact
            == Fact::Refused {
                method,
                code: 403,
                ground: Ground::NewPeers,
            }
    });
    // Without the policy it is no peer in particular.
    turn.reload(|settings| settings.users.add_secret(issuing()).unwrap());
    assert_eq!(ann.permit(&mut turn, &["10.1.0.1:1"]), 403);
    note(&only(&turn), |fact| {
        *fact
            == Fact::Refused {
                method,
                code: 403,
                ground: Ground::NoPolicy,
            }
    });
}
