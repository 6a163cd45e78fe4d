//! Redirects (RFC 8489 §10, RFC 8155 §6) at the border of the machine.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashSet;
use std::net::SocketAddr;

use support::*;
use turnd::stun::{Attribute, Method, PasswordAlgorithm};
use turnd::turn::{NonceKey, PasswordAlgorithms, Redirect, Settings, Transport};

const OTHER: &str = "192.0.2.7:3478";
const OTHER_V6: &str = "[2001:db8:7::7]:3478";
const OTHER_TLS: &str = "192.0.2.7:5349";

/// Always to one other server, which has both families.
fn elsewhere() -> Redirect {
    Redirect {
        to: vec![address(OTHER), address(OTHER_V6)],
        to_tls: vec![address(OTHER_TLS)],
        always: true,
        ..Redirect::default()
    }
}

fn redirecting(change: impl FnOnce(&mut Redirect)) -> Turn {
    Turn::with(|settings| {
        let mut redirect = elsewhere();
        change(&mut redirect);
        settings.redirect = Some(redirect);
    })
}

/// Where an answer sends its client.
fn alternates(answer: &Answer) -> Vec<SocketAddr> {
    let found = answer.message().alternate_servers().map(Result::unwrap);
    found.collect()
}

/// \[300-1\]
#[test]
fn s300_1_an_authenticated_allocate_is_redirected_and_the_answer_signed() {
    let mut turn = redirecting(|_| {});
    let answer = ann().allocate(&mut turn);
    assert_eq!(answer.code(), 300);
    assert!(answer.told.authenticated);
    assert_eq!(alternates(&answer), [address(OTHER), address(OTHER_V6)]);
    assert!(turn.relays.open.is_empty() && turn.quotas.total() == 0);
}

/// \[300-1\] A client of the other family is told of that family first.
#[test]
fn s300_1_the_family_of_the_client_comes_first() {
    let mut turn = redirecting(|_| {});
    let answer = ann().at(udp("[2001:db8::1]:1000")).allocate(&mut turn);
    assert_eq!(alternates(&answer), [address(OTHER_V6), address(OTHER)]);

    let mut turn = redirecting(|redirect| redirect.to.truncate(1));
    assert_eq!(alternates(&ann().allocate(&mut turn)), [address(OTHER)]);
    // Nowhere to go for this one: it stays.
    let answer = ann().at(udp("[2001:db8::1]:1000")).allocate(&mut turn);
    assert_eq!(answer.code(), 0);
}

/// \[300-1\] \[S11\] Whoever does not prove a key is never redirected, and nothing but Allocate ever is.
#[test]
fn s300_1_strangers_and_other_requests_are_not_redirected() {
    let mut turn = redirecting(|redirect| redirect.always = false);
    let mut ann = ann();
    ann.relay(&mut turn);
    turn.reload(|settings| settings.redirect = Some(elsewhere()));

    let binding = request(turn.id(), Method::BINDING, |_| {});
    let answer = turn.answered(ann.client, &binding);
    assert_eq!((answer.code(), alternates(&answer)), (0, vec![]));

    let mut wrong = bob();
    wrong.password = b"not bob's".to_vec();
    let greeting = wrong.greet(&mut turn);
    assert_eq!(alternates(&greeting), []);
    let refused = wrong.allocate(&mut turn);
    assert_eq!((refused.code(), alternates(&refused)), (401, vec![]));

    assert_eq!(ann.refresh(&mut turn, None).code(), 0);
    assert_eq!(ann.permit(&mut turn, &[PEER]), 0);
    assert_eq!(ann.bind(&mut turn, 0x4000, PEER), 0);
    assert_eq!(ann.refresh(&mut turn, Some(0)).code(), 0);
    assert_eq!(ann.allocate(&mut turn).code(), 300);
}

/// \[300-3\] Checks 1 to 7 of RFC 8155 §6 (here: all up to the quota) come first.
#[test]
fn s300_3_what_would_be_refused_is_refused() {
    let mut turn = redirecting(|_| {});
    let mut ann = ann();
    let answer = ann.ask(&mut turn, Method::ALLOCATE, |_| {});
    assert_eq!(answer.code(), 400);
    let answer = ann.ask(&mut turn, Method::ALLOCATE, |writer| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 99);
    });
    assert_eq!(answer.code(), 442);
    let answer = ann.allocate_with(&mut turn, |writer| {
        writer.bytes(Attribute(0x7ABC), b"");
    });
    assert_eq!(answer.code(), 420);
    let answer = ann.allocate_with(&mut turn, |writer| {
        writer.u8(Attribute::REQUESTED_ADDRESS_FAMILY, 9);
    });
    assert_eq!(answer.code(), 440);
}

/// \[300-3\] One server with two addresses: who has come to the unicast address is served there.
#[test]
fn s300_3_an_entry_may_send_clients_to_its_own_unicast_address() {
    let mut turn = redirecting(|redirect| redirect.to = vec![address(SERVER_V4)]);
    let mut at_anycast = ann();
    at_anycast.client.five_tuple.server = address("192.88.99.1:3478");
    let answer = at_anycast.allocate(&mut turn);
    assert_eq!(
        (answer.code(), alternates(&answer)),
        (300, vec![address(SERVER_V4)])
    );

    // With all that it knows, from another port, as libwebrtc does it.
    let mut at_unicast = ann();
    at_unicast.client = udp("198.51.100.1:1001");
    at_unicast.nonce = answer.nonce();
    assert_eq!(at_unicast.allocate(&mut turn).code(), 0);
}

/// \[300-2\] REALM and NONCE of the 300 hold at another server with the same nonce key, and with that one only.
#[test]
fn s300_2_realm_and_nonce_hold_at_the_target() {
    let mut turn = redirecting(|_| {});
    let answer = ann().allocate(&mut turn);
    let realm = answer.message().realm().unwrap().unwrap().to_vec();
    assert_eq!(realm, b"turnd");

    let target = |key: u8, accepted: &[u8]| {
        let mut turn = Turn::with(|settings| {
            settings.nonce_keys = NonceKey([key; 32]).into();
            settings.nonce_keys.accepted =
                accepted.iter().map(|&key| NonceKey([key; 32])).collect();
        });
        let mut ann = ann().at(udp("198.51.100.1:1001"));
        ann.nonce = answer.nonce();
        ann.allocate(&mut turn).code()
    };
    assert_eq!(target(7, &[]), 0);
    assert_eq!(target(8, &[7]), 0);
    assert_eq!(target(8, &[]), 438);
}

/// RFC 8489 §10: ALTERNATE-DOMAIN goes with (D)TLS and MESSAGE-INTEGRITY-SHA256 only.
#[test]
fn s300_1_the_domain_is_told_to_those_who_can_process_it() {
    let told = |transport, algorithm: Option<PasswordAlgorithm>| {
        let mut turn = Turn::with(|settings: &mut Settings| {
            settings.password_algorithms = PasswordAlgorithms::Sha256AndMd5;
            settings.redirect = Some(Redirect {
                domain: Some("turn2.example.org".into()),
                ..elsewhere()
            });
        });
        let mut ann = ann().at(client("198.51.100.1:1000", transport));
        ann.algorithm = algorithm;
        let answer = ann.allocate(&mut turn);
        assert_eq!(answer.code(), 300);
        let secured = matches!(transport, Transport::Tls | Transport::Dtls);
        let to = if secured { OTHER_TLS } else { OTHER };
        assert_eq!(alternates(&answer)[0], address(to), "{transport:?}");
        let domain = answer.message().alternate_domain();
        domain.map(|domain| domain.unwrap().to_vec())
    };
    let sha256 = Some(PasswordAlgorithm::Sha256);
    for transport in [Transport::Tls, Transport::Dtls] {
        assert_eq!(told(transport, sha256), Some(b"turn2.example.org".to_vec()));
        assert_eq!(told(transport, None), None);
    }
    for transport in [Transport::Udp, Transport::Tcp] {
        assert_eq!(told(transport, sha256), None);
    }
}

#[test]
fn a_draining_server_redirects_if_it_is_told_to() {
    let mut turn = redirecting(|redirect| {
        redirect.always = false;
        redirect.on_drain = true;
    });
    let mut ann = ann();
    ann.relay(&mut turn);
    assert_eq!(bob().allocate(&mut turn).code(), 0);
    let mut late = bob().at(udp("198.51.100.3:3000"));
    turn.server.drain(true);
    assert_eq!(late.allocate(&mut turn).code(), 300);
    assert_eq!(ann.refresh(&mut turn, None).code(), 0);
    turn.server.drain(false);
    assert_eq!(late.allocate(&mut turn).code(), 0);

    for change in [
        |redirect: &mut Redirect| redirect.on_drain = false,
        |redirect: &mut Redirect| redirect.to.clear(),
        // Sent around in a circle.
        |redirect: &mut Redirect| redirect.to.push(address(SERVER_V4)),
    ] {
        let mut turn = redirecting(|redirect| {
            redirect.always = false;
            redirect.on_drain = true;
            redirect.overload_at = Some(1000);
            change(redirect);
        });
        turn.server.drain(true);
        assert_eq!(late.at(late.client).allocate(&mut turn).code(), 508);
    }
}

#[test]
fn an_overloaded_server_redirects_from_a_number_of_allocations_on() {
    let mut turn = redirecting(|redirect| {
        redirect.always = false;
        redirect.overload_at = Some(2);
    });
    let (mut ann, mut bob) = (ann(), bob());
    let mut third = bob.at(udp("198.51.100.3:3000"));
    assert_eq!(ann.allocate(&mut turn).code(), 0);
    assert_eq!(bob.allocate(&mut turn).code(), 0);
    assert_eq!(third.allocate(&mut turn).code(), 300);
    assert_eq!(ann.refresh(&mut turn, Some(0)).code(), 0);
    assert_eq!(third.allocate(&mut turn).code(), 0);
}

#[test]
fn without_ports_or_beyond_the_total_it_is_300_and_beyond_the_users_quota_486() {
    let overload = |change: fn(&mut Settings)| {
        Turn::with(|settings| {
            settings.redirect = Some(Redirect {
                always: false,
                overload_at: Some(1000),
                ..elsewhere()
            });
            change(settings);
        })
    };
    let mut turn = overload(|_| {});
    turn.relays.capacity = 0;
    assert_eq!(ann().allocate(&mut turn).code(), 300);
    assert_eq!(turn.quotas.total(), 0);
    // A reservation is good at this server only, or it is not good at all.
    let answer = ann().allocate_with(&mut turn, |writer| {
        writer.bytes(Attribute::RESERVATION_TOKEN, &[9; 8]);
    });
    assert_eq!(answer.code(), 508);

    let mut turn = overload(|settings| settings.limits.total = 0);
    assert_eq!(ann().allocate(&mut turn).code(), 300);
    // Another server would not know how many this user has here.
    let mut turn = overload(|settings| settings.limits.per_user = 0);
    assert_eq!(ann().allocate(&mut turn).code(), 486);
    let mut turn = overload(|settings| settings.redirect = None);
    turn.relays.capacity = 0;
    assert_eq!(ann().allocate(&mut turn).code(), 508);
}

#[test]
fn clients_are_spread_over_all_targets_and_told_pairs() {
    let mut turn = redirecting(|redirect| {
        redirect.to = [
            "192.0.2.1:1",
            "[2001:db8:7::1]:1",
            "192.0.2.2:2",
            "[2001:db8:7::2]:2",
        ]
        .map(address)
        .to_vec();
    });
    let mut ann = ann();
    let told: HashSet<Vec<u16>> = (0..100)
        .map(|_| {
            let answer = ann.allocate(&mut turn);
            alternates(&answer).iter().map(SocketAddr::port).collect()
        })
        .collect();
    assert_eq!(told, HashSet::from([vec![1, 1], vec![2, 2]]));
}
