//! RFC 8656 at the border of the machine: one test for each statement, named by its number in the list of requirements
//! (Q: the rows of §7.2, T: allocations, R: Refresh, P: permissions, D: data, C: channels, L: limits on peers).

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use support::*;
use turnd::stun::{Attribute, Class, ErrorCode, Message, Method, Writer};
use turnd::turn::{
    Cause, EndReason, Event, Families, Family, Limits, OnExpiry, Refusal, RelayId, Traffic,
    Transport, Verdict,
};

// Q: the order of checks of Allocate

#[test]
fn q1_authentication_comes_first() {
    let mut turn = Turn::new();
    let mut eve = User::new("eve", "x", udp("198.51.100.9:1"));
    let answer = eve.ask(&mut turn, Method::ALLOCATE, |_| {});
    assert_eq!(answer.code(), 401);
}

#[test]
fn q1b_unknown_attributes_come_before_all_other_checks() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    let answer = ann.ask(&mut turn, Method::ALLOCATE, |writer| {
        writer.bytes(Attribute(0x7ABC), b"");
    });
    assert_eq!(answer.code(), 420);
}

#[test]
fn q2_a_five_tuple_in_use_is_437() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    assert_eq!(ann.allocate(&mut turn).code(), 437);
    // Also for another user, and before anything else is looked at.
    let mut bob = bob().at(ann.client);
    assert_eq!(bob.ask(&mut turn, Method::ALLOCATE, |_| {}).code(), 437);
    assert_eq!(turn.relays.open.len(), 1);
    // Another transport or another server address is another 5-tuple.
    let mut tcp = ann.at(client("198.51.100.1:1000", Transport::Tcp));
    assert_eq!(tcp.allocate(&mut turn).code(), 0);
    let mut elsewhere = ann.at(ann.client);
    elsewhere.client.five_tuple.server = address("203.0.113.1:80");
    assert_eq!(elsewhere.allocate(&mut turn).code(), 0);
}

#[test]
fn q2_the_transaction_of_another_user_is_no_repetition() {
    let mut turn = Turn::new();
    let (mut ann, mut bob) = (ann(), bob().at(ann().client));
    ann.greet(&mut turn);
    bob.greet(&mut turn);
    let id = turn.id();
    let put = |writer: &mut Writer<'_>| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
    };
    let (hers, his) = (
        ann.signed(id, Method::ALLOCATE, put),
        bob.signed(id, Method::ALLOCATE, put),
    );
    assert_eq!(ann.ask_bytes(&mut turn, &hers).code(), 0);
    assert_eq!(bob.ask_bytes(&mut turn, &his).code(), 437);
    assert_eq!(ann.ask_bytes(&mut turn, &hers).code(), 0);
}

#[test]
fn q3_the_transport_is_required_and_must_be_udp() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let mut ask = |turn: &mut Turn, value: &[u8]| {
        ann.ask(turn, Method::ALLOCATE, |writer| {
            writer.bytes(Attribute::REQUESTED_TRANSPORT, value);
        })
        .code()
    };
    assert_eq!(ask(&mut turn, &[6, 0, 0, 0]), 442);
    assert_eq!(ask(&mut turn, &[0, 0, 0, 0]), 442);
    assert_eq!(ask(&mut turn, &[17]), 400);
    assert_eq!(ask(&mut turn, &[]), 400);
    // Reserved bytes are ignored.
    assert_eq!(ask(&mut turn, &[17, 1, 2, 3]), 0);
    let mut bob = bob();
    assert_eq!(bob.ask(&mut turn, Method::ALLOCATE, |_| {}).code(), 400);
}

#[test]
fn q4_dont_fragment_is_supported() {
    let mut turn = Turn::new();
    let answer = ann().allocate_with(&mut turn, |writer| {
        writer.flag(Attribute::DONT_FRAGMENT);
    });
    assert_eq!(answer.code(), 0);
}

#[test]
fn q5_a_reservation_token_stands_alone() {
    let mut turn = Turn::new();
    for port in 1..=4 {
        let mut ann = ann().at(udp(&format!("198.51.100.1:{port}")));
        let answer = ann.allocate_with(&mut turn, |writer| {
            writer.bytes(Attribute::RESERVATION_TOKEN, &[1; 8]);
            match port {
                1 => writer.even_port(false),
                2 => writer.u8(Attribute::REQUESTED_ADDRESS_FAMILY, 1),
                3 => writer.u8(Attribute::ADDITIONAL_ADDRESS_FAMILY, 2),
                _ => writer,
            };
        });
        // Alone it is well-formed, but nothing is held under it.
        assert_eq!(answer.code(), if port == 4 { 508 } else { 400 });
    }
    let short = ann().allocate_with(&mut turn, |writer| {
        writer.bytes(Attribute::RESERVATION_TOKEN, &[1; 7]);
    });
    assert_eq!(short.code(), 400);
}

#[test]
fn q5_a_held_port_is_given_to_its_owner_once_and_for_half_a_minute() {
    let mut turn = Turn::new();
    let reserve = |turn: &mut Turn, user: &mut User| {
        let answer = user.allocate_with(turn, |writer| {
            writer.even_port(true);
        });
        let token = answer.message().reservation_token().unwrap().unwrap();
        (answer.relayed(), token)
    };
    let claim = |turn: &mut Turn, user: &mut User, token: [u8; 8]| {
        user.allocate_with(turn, |writer| {
            writer.bytes(Attribute::RESERVATION_TOKEN, &token);
        })
    };
    let mut ann = ann();
    let (first, token) = reserve(&mut turn, &mut ann);
    assert_eq!(first.port() % 2, 0);

    // Not for another user; from another address and transport, yes; but only once.
    assert_eq!(claim(&mut turn, &mut bob(), token).code(), 508);
    let mut other = ann.at(client("198.51.100.7:7", Transport::Tls));
    turn.wait(seconds(29));
    let second = claim(&mut turn, &mut other, token);
    assert_eq!(second.code(), 0);
    assert_eq!(
        second.relayed(),
        SocketAddr::new(first.ip(), first.port() + 1)
    );
    let mut third = ann.at(udp("198.51.100.1:1003"));
    assert_eq!(claim(&mut turn, &mut third, token).code(), 508);

    // And not after its time.
    let (_, token) = reserve(&mut turn, &mut third);
    turn.wait(seconds(31));
    let mut late = ann.at(udp("198.51.100.1:1004"));
    assert_eq!(claim(&mut turn, &mut late, token).code(), 508);
}

#[test]
fn q5_renewed_credentials_are_the_same_owner() {
    let mut turn = Turn::new();
    let mut first = vouched("cyd", UNIX + 600, udp("198.51.100.3:1"));
    let answer = first.allocate_with(&mut turn, |writer| {
        writer.even_port(true);
    });
    let token = answer.message().reservation_token().unwrap().unwrap();
    let mut second = vouched("cyd", UNIX + 601, udp("198.51.100.3:2"));
    let answer = second.allocate_with(&mut turn, |writer| {
        writer.bytes(Attribute::RESERVATION_TOKEN, &token);
    });
    assert_eq!(answer.code(), 0);
}

#[test]
fn q6_one_family_and_both_is_400() {
    let mut turn = Turn::new();
    let answer = ann().allocate_with(&mut turn, |writer| {
        writer
            .u8(Attribute::REQUESTED_ADDRESS_FAMILY, 1)
            .u8(Attribute::ADDITIONAL_ADDRESS_FAMILY, 2);
    });
    assert_eq!(answer.code(), 400);
}

#[test]
fn q7_the_family_is_the_requested_one_or_ipv4() {
    let (both, v4, v6) = (
        families(true, true),
        families(true, false),
        families(false, true),
    );
    for (available, requested, expected) in [
        (both, None, Ok(Family::V4)),
        (both, Some(1), Ok(Family::V4)),
        (both, Some(2), Ok(Family::V6)),
        (both, Some(3), Err(440)),
        (both, Some(0), Err(440)),
        (v4, None, Ok(Family::V4)),
        (v4, Some(2), Err(440)),
        (v6, None, Err(440)),
        (v6, Some(1), Err(440)),
        (v6, Some(2), Ok(Family::V6)),
    ] {
        // From an IPv6 client, whose own family says nothing of the relay's.
        let mut turn = Turn::new();
        turn.relays.families = available;
        let mut ann = ann().at(udp("[2001:db8::9]:9"));
        let answer = ann.allocate_with(&mut turn, |writer| {
            if let Some(family) = requested {
                writer.u8(Attribute::REQUESTED_ADDRESS_FAMILY, family);
            }
        });
        let given = match answer.code() {
            0 => Ok(Family::of(answer.relayed().ip())),
            code => Err(code),
        };
        assert_eq!(given, expected, "{available:?} {requested:?}");
    }
    let mut turn = Turn::new();
    let answer = ann().allocate_with(&mut turn, |writer| {
        writer.bytes(Attribute::REQUESTED_ADDRESS_FAMILY, &[1]);
    });
    assert_eq!(answer.code(), 400);
}

/// Browsers never name a family: on request of the operator, they are given what there is.
#[test]
fn q7_ipv6_is_given_unasked_only_on_request_and_only_without_ipv4() {
    for (available, requested, expected) in [
        (families(false, true), None, Ok(Family::V6)),
        (families(true, true), None, Ok(Family::V4)),
        (families(true, false), None, Ok(Family::V4)),
        (families(false, true), Some(1), Err(440)),
        (families(false, false), None, Err(440)),
    ] {
        let mut turn = Turn::with(|settings| settings.unasked_ipv6 = true);
        turn.relays.families = available;
        let answer = ann().allocate_with(&mut turn, |writer| {
            if let Some(family) = requested {
                writer.u8(Attribute::REQUESTED_ADDRESS_FAMILY, family);
            }
        });
        let given = match answer.code() {
            0 => Ok(Family::of(answer.relayed().ip())),
            code => Err(code),
        };
        assert_eq!(given, expected, "{available:?} {requested:?}");
    }
}

#[test]
fn q8_even_ports() {
    let mut turn = Turn::new();
    let mut ask = |port: u16, reserve, both: bool| {
        let mut ann = ann().at(udp(&format!("198.51.100.1:{port}")));
        let answer = ann.allocate_with(&mut turn, |writer| {
            writer.even_port(reserve);
            if both {
                writer.u8(Attribute::ADDITIONAL_ADDRESS_FAMILY, 2);
            }
        });
        let even = answer.code() == 0
            && answer
                .message()
                .xor_relayed_addresses()
                .all(|relay| relay.unwrap().port() % 2 == 0);
        (
            answer.code(),
            even,
            answer.has(Attribute::RESERVATION_TOKEN),
        )
    };
    assert_eq!(ask(1, false, false), (0, true, false));
    assert_eq!(ask(2, false, false), (0, true, false));
    assert_eq!(ask(3, true, false), (0, true, true));
    assert_eq!(ask(4, false, true), (0, true, false));
    assert_eq!(ask(5, true, true), (400, false, false));
}

#[test]
fn q8_no_port_is_508() {
    let mut turn = Turn::new();
    turn.relays.capacity = 0;
    for even in [None, Some(false), Some(true)] {
        let answer = ann().allocate_with(&mut turn, |writer| {
            if let Some(reserve) = even {
                writer.even_port(reserve);
            }
        });
        assert_eq!(answer.code(), 508);
    }
    assert_eq!(turn.quotas.total(), 0);
}

#[test]
fn q9_both_families_are_two_relays() {
    let mut turn = Turn::new();
    let answer = dual(&mut ann(), &mut turn);
    assert_eq!(answer.code(), 0);
    let relays: Vec<_> = answer
        .message()
        .xor_relayed_addresses()
        .map(|relay| Family::of(relay.unwrap().ip()))
        .collect();
    assert_eq!(relays, [Family::V4, Family::V6]);
    assert!(!answer.has(Attribute::ADDRESS_ERROR_CODE));
    assert_eq!(turn.server.census(turn.now).allocations[0], [1, 1]);
}

/// The number of the draft that coturn's programs still speak means the same.
#[test]
fn q9_both_families_in_the_words_of_a_draft() {
    let mut turn = Turn::new();
    let mut ask = |port: u16, family: u8, requested: bool| {
        let mut ann = ann().at(udp(&format!("198.51.100.1:{port}")));
        let answer = ann.allocate_with(&mut turn, |writer| {
            writer.u8(Attribute(0x8032), family);
            if requested {
                writer.u8(Attribute::REQUESTED_ADDRESS_FAMILY, 1);
            }
        });
        let relays = answer.message().xor_relayed_addresses().count();
        (answer.code(), relays)
    };
    assert_eq!(ask(1, 2, false), (0, 2));
    assert_eq!(ask(2, 1, false), (400, 0));
    assert_eq!(ask(3, 2, true), (400, 0));
}

#[test]
fn q9_the_additional_family_can_only_be_ipv6() {
    let mut turn = Turn::new();
    for value in [&[1, 0, 0, 0][..], &[0, 0, 0, 0], &[3, 0, 0, 0], &[2], &[]] {
        let answer = ann().allocate_with(&mut turn, |writer| {
            writer.bytes(Attribute::ADDITIONAL_ADDRESS_FAMILY, value);
        });
        assert_eq!(answer.code(), 400, "{value:?}");
    }
}

#[test]
fn q9_one_of_two_families_is_told_with_the_reason_for_the_other() {
    for (exhausted, available, lacks) in [
        (
            Some(Family::V6),
            families(true, true),
            Ok((2, ErrorCode(508))),
        ),
        (
            Some(Family::V4),
            families(true, true),
            Ok((1, ErrorCode(508))),
        ),
        (None, families(true, false), Ok((2, ErrorCode(440)))),
        (None, families(false, true), Ok((1, ErrorCode(440)))),
        (Some(Family::V4), families(true, false), Err(508)),
        (None, families(false, false), Err(508)),
    ] {
        let mut turn = Turn::new();
        (turn.relays.exhausted, turn.relays.families) = (exhausted, available);
        let mut ann = ann();
        ann.greet(&mut turn);
        let request = ann.signed(turn.id(), Method::ALLOCATE, |writer| {
            writer
                .u8(Attribute::REQUESTED_TRANSPORT, 17)
                .u8(Attribute::ADDITIONAL_ADDRESS_FAMILY, 2);
        });
        // Twice: a repetition is told the same.
        for _ in 0..2 {
            let answer = ann.ask_bytes(&mut turn, &request);
            let told = match answer.code() {
                0 => {
                    let error = answer.message().address_error_code().unwrap().unwrap();
                    assert_eq!(answer.message().xor_relayed_addresses().count(), 1);
                    Ok((error.family, error.code))
                }
                code => Err(code),
            };
            assert_eq!(told, lacks);
        }
    }
}

#[test]
fn q10_a_user_over_the_quota_is_486() {
    let mut turn = Turn::with(|settings| settings.limits.per_user = 2);
    let at = |port: u16| udp(&format!("198.51.100.3:{port}"));
    // Counted by person, however often the credentials are renewed.
    for (port, code) in [(1, 0), (2, 0), (3, 486)] {
        let mut user = vouched("cyd", UNIX + u64::from(port), at(port));
        assert_eq!(user.allocate(&mut turn).code(), code);
    }
    assert_eq!(
        vouched("dan", UNIX + 1, at(4)).allocate(&mut turn).code(),
        0
    );
    let mut first = vouched("cyd", UNIX + 1, at(1));
    assert_eq!(first.refresh(&mut turn, Some(0)).code(), 0);
    assert_eq!(
        vouched("cyd", UNIX + 3, at(3)).allocate(&mut turn).code(),
        0
    );
}

#[test]
fn q10_a_network_over_the_quota_is_486_and_a_full_server_508() {
    let mut turn = Turn::with(|settings| {
        settings.limits = Limits {
            per_client: 2,
            total: 3,
            ..settings.limits
        };
    });
    for (from, code) in [
        ("198.51.100.1:1", 0),
        ("198.51.100.2:1", 0),
        ("198.51.100.3:1", 486),
        ("198.51.101.1:1", 0),
        ("198.51.102.1:1", 508),
    ] {
        let answer = ann().at(udp(from)).allocate(&mut turn);
        assert_eq!(answer.code(), code, "{from}");
    }
}

// T: allocations

#[test]
fn t_success_tells_relay_lifetime_and_reflexive_address() {
    let mut turn = Turn::new();
    let answer = ann().allocate(&mut turn);
    let kinds: Vec<_> = answer
        .message()
        .attributes()
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(
        kinds,
        [
            Attribute::XOR_RELAYED_ADDRESS,
            Attribute::LIFETIME,
            Attribute::XOR_MAPPED_ADDRESS,
            Attribute::MESSAGE_INTEGRITY,
        ]
    );
    let mapped = answer.message().xor_mapped_address().unwrap().unwrap();
    assert_eq!(mapped, address("198.51.100.1:1000"));
    assert_eq!(turn.relays.at(answer.relayed()), Some(RelayId(0)));
}

#[test]
fn t1_the_lifetime_is_between_ten_minutes_and_the_maximum() {
    for (maximum, asked, granted) in [
        (3600, None, 600),
        (3600, Some(0), 600),
        (3600, Some(1), 600),
        (3600, Some(601), 601),
        (3600, Some(3600), 3600),
        (3600, Some(3601), 3600),
        (3600, Some(4_000_000_000), 3600),
        (7200, Some(4_000_000_000), 7200),
        (120, None, 120),
    ] {
        let mut turn = Turn::with(|settings| settings.max_lifetime = seconds(maximum));
        let answer = ann().allocate_with(&mut turn, |writer| {
            if let Some(asked) = asked {
                writer.u32(Attribute::LIFETIME, asked);
            }
        });
        assert_eq!(answer.lifetime(), granted, "{maximum} {asked:?}");
        let left = turn.server.poll_timeout().unwrap() - turn.now.instant;
        assert_eq!(left, seconds(granted.into()));
    }
    let mut turn = Turn::new();
    let answer = ann().allocate_with(&mut turn, |writer| {
        writer.bytes(Attribute::LIFETIME, &[0; 3]);
    });
    assert_eq!(answer.code(), 400);
}

#[test]
fn t3_no_two_allocations_have_one_address() {
    let mut turn = Turn::new();
    let mut seen = std::collections::HashSet::new();
    for port in 1..=16 {
        let mut ann = ann().at(udp(&format!("198.51.100.1:{port}")));
        assert!(seen.insert(ann.allocate(&mut turn).relayed()));
    }
}

#[test]
fn t4_a_request_without_allocation_is_437_and_signed() {
    let mut turn = Turn::new();
    let mut ann = ann();
    assert_eq!(ann.refresh(&mut turn, None).code(), 437);
    assert_eq!(ann.permit(&mut turn, &[PEER]), 437);
    assert_eq!(ann.bind(&mut turn, 0x4000, PEER), 437);
    let answer = ann.refresh(&mut turn, Some(0));
    assert!(answer.told.authenticated);
}

#[test]
fn t4_data_without_allocation_is_dropped() {
    let mut turn = Turn::new();
    let ann = ann();
    assert_eq!(ann.send(&mut turn, PEER, b"x"), Err(Cause::NoAllocation));
    let channel = ann.channel(&mut turn, 0x4000, PEER, b"x");
    assert_eq!(channel, Err(Cause::NoAllocation));
    let nobody = turn.peer_sends(RelayId(7), PEER, b"x");
    assert_eq!(nobody, Err(Cause::UnknownRelay));
}

#[test]
fn t5_another_user_on_the_same_five_tuple_is_441() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    let mut bob = bob().at(ann.client);
    let answer = bob.refresh(&mut turn, Some(0));
    assert_eq!(answer.code(), 441);
    assert_eq!(answer.told.refusal, Some(Refusal::WrongUser));
    assert_eq!(bob.permit(&mut turn, &[PEER]), 441);
    assert_eq!(bob.bind(&mut turn, 0x4000, PEER), 441);
    // Only once authenticated.
    bob.password = b"x".to_vec();
    assert_eq!(bob.refresh(&mut turn, None).code(), 401);
    assert_eq!(ann.refresh(&mut turn, None).code(), 0);
}

#[test]
fn t5_renewed_credentials_are_another_user() {
    let mut turn = Turn::new();
    let mut first = vouched("cyd", UNIX + 600, udp("198.51.100.3:1"));
    first.relay(&mut turn);
    let mut second = vouched("cyd", UNIX + 601, first.client);
    assert_eq!(second.refresh(&mut turn, None).code(), 441);
}

#[test]
fn t_a_server_that_drains_takes_no_new_allocations() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    turn.server.drain(true);
    assert_eq!(bob().allocate(&mut turn).code(), 508);
    assert_eq!(ann.refresh(&mut turn, None).code(), 0);
    assert_eq!(ann.permit(&mut turn, &[PEER]), 0);
    assert_eq!(ann.send(&mut turn, PEER, b"x"), Ok(()));
    turn.server.drain(false);
    assert_eq!(bob().allocate(&mut turn).code(), 0);
}

#[test]
fn t_an_allocation_that_is_not_refreshed_ends_with_its_lifetime() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    ann.bind(&mut turn, 0x4000, PEER);
    turn.wait(seconds(599));
    assert_eq!(ann.channel(&mut turn, 0x4000, PEER, b"abc"), Ok(()));
    assert!(turn.peer_sends(relay, PEER, b"abcd").is_ok());
    turn.wait(seconds(1));

    assert!(turn.server.is_empty() && turn.relays.open.is_empty());
    assert_eq!(turn.quotas.total(), 0);
    let events = turn.events();
    let [Event::Allocated(made), Event::Released(ended)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(
        (&*made.username, made.lifetime),
        (&b"ann"[..], seconds(600))
    );
    assert_eq!(made.relays, ended.relays);
    assert_eq!(ended.five_tuple, ann.client.five_tuple);
    assert_eq!(
        (ended.reason, ended.age),
        (EndReason::Expired, seconds(600))
    );
    let traffic = |packets, bytes| Traffic { packets, bytes };
    assert_eq!(
        (ended.to_peer, ended.to_client),
        (traffic(1, 3), traffic(1, 4))
    );
}

#[test]
fn t_what_is_overdue_does_not_count_even_if_the_timeout_comes_late() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    ann.bind(&mut turn, 0x4000, PEER);
    turn.pass(seconds(300));
    ann.bind(&mut turn, 0x4000, PEER);
    turn.pass(seconds(300));
    let channel = ann.channel(&mut turn, 0x4000, PEER, b"x");
    assert_eq!(channel, Err(Cause::NoAllocation));
    assert_eq!(ann.send(&mut turn, PEER, b"x"), Err(Cause::UnreachablePeer));
    let from_peer = turn.peer_sends(relay, PEER, b"x");
    assert_eq!(from_peer, Err(Cause::UnknownRelay));
    assert_eq!(ann.refresh(&mut turn, None).code(), 437);
    assert_eq!(ann.allocate(&mut turn).code(), 0);
}

#[test]
fn t_a_closed_connection_ends_its_allocation() {
    let mut turn = Turn::new();
    let mut ann = ann().at(client("198.51.100.1:1000", Transport::Tcp));
    ann.relay(&mut turn);
    assert!(turn.server.has_allocation(&ann.client.five_tuple));
    let Turn {
        server,
        relays,
        now,
        ..
    } = &mut turn;
    // The close of an older connection on the same 5-tuple, told late, changes nothing.
    let mut older = ann.client;
    older.path.0 += 1;
    server.client_gone(*now, older, relays);
    assert!(server.has_allocation(&ann.client.five_tuple));
    server.client_gone(*now, ann.client, relays);
    assert!(!turn.server.has_allocation(&ann.client.five_tuple));
    assert!(turn.relays.open.is_empty());
    let events = turn.events();
    assert!(
        matches!(&events[1], Event::Released(ended) if ended.reason == EndReason::ConnectionClosed)
    );
}

// The end of credentials

#[test]
fn t_expired_credentials_matter_to_new_allocations_only() {
    let mut turn = Turn::with(|settings| settings.on_expiry = OnExpiry::New);
    let mut user = vouched("cyd", UNIX + 100, udp("198.51.100.3:1"));
    user.relay(&mut turn);
    turn.wait(seconds(200));
    assert_eq!(user.refresh(&mut turn, None).code(), 0);
    assert_eq!(user.permit(&mut turn, &[PEER]), 0);
    let again = user.at(udp("198.51.100.3:2")).allocate(&mut turn);
    assert_eq!(again.told.refusal, Some(Refusal::Expired));
}

#[test]
fn t_expired_credentials_cannot_refresh() {
    let mut turn = Turn::with(|settings| settings.on_expiry = OnExpiry::Refresh);
    let mut user = vouched("cyd", UNIX + 100, udp("198.51.100.3:1"));
    user.relay(&mut turn);
    turn.wait(seconds(159));
    assert_eq!(user.refresh(&mut turn, None).code(), 0);
    turn.wait(seconds(1));
    let answer = user.refresh(&mut turn, None);
    assert_eq!(
        (answer.code(), answer.told.refusal),
        (401, Some(Refusal::Expired))
    );
    // What it has it keeps, until its lifetime ends.
    assert_eq!(user.permit(&mut turn, &[PEER]), 0);
    assert_eq!(user.send(&mut turn, PEER, b"x"), Ok(()));
    turn.wait(seconds(599));
    assert!(turn.server.is_empty());
}

#[test]
fn t_expired_credentials_can_cut_an_allocation() {
    let mut turn = Turn::with(|settings| settings.on_expiry = OnExpiry::Cut);
    let mut user = vouched("cyd", UNIX + 100, udp("198.51.100.3:1"));
    assert_eq!(user.allocate(&mut turn).lifetime(), 160);
    turn.wait(seconds(60));
    assert_eq!(user.refresh(&mut turn, Some(3600)).lifetime(), 100);
    turn.wait(seconds(100));
    let events = turn.events();
    assert!(
        matches!(&events[1], Event::Released(ended) if ended.reason == EndReason::CredentialsExpired)
    );
    // A user with a password has no expiry.
    assert_eq!(ann().allocate(&mut turn).lifetime(), 600);
}

#[test]
fn t_a_reload_can_cut_running_allocations() {
    let mut turn = Turn::with(|settings| settings.on_expiry = OnExpiry::New);
    let mut short = vouched("cyd", UNIX + 100, udp("198.51.100.3:1"));
    let mut long = vouched("cyd", UNIX + 400, udp("198.51.100.3:2"));
    short.relay(&mut turn);
    long.relay(&mut turn);
    turn.wait(seconds(200));
    turn.reload(|settings| settings.on_expiry = OnExpiry::Cut);
    assert!(!turn.server.has_allocation(&short.client.five_tuple));
    assert!(turn.server.has_allocation(&long.client.five_tuple));
    turn.wait(seconds(259));
    assert!(!turn.server.is_empty());
    turn.wait(seconds(1));
    assert!(turn.server.is_empty());
}

#[test]
fn t_a_withdrawn_secret_ends_refreshes() {
    let withdraw = |settings: &mut turnd::turn::Settings| {
        settings.users = turnd::turn::Users::new("turnd");
        settings.users.add_user("bob", "bob-pw");
    };
    for (on_expiry, code) in [(OnExpiry::New, 0), (OnExpiry::Refresh, 401)] {
        let mut turn = Turn::with(|settings| settings.on_expiry = on_expiry);
        let mut user = vouched("cyd", UNIX + 10_000, udp("198.51.100.3:1"));
        user.relay(&mut turn);
        turn.reload(|settings| {
            settings.on_expiry = on_expiry;
            withdraw(settings);
        });
        assert_eq!(user.permit(&mut turn, &[PEER]), 0);
        assert_eq!(user.refresh(&mut turn, None).code(), code);
        let again = user.at(udp("198.51.100.3:2")).allocate(&mut turn);
        assert_eq!(again.told.refusal, Some(Refusal::UnknownUser));
    }
}

#[test]
fn t_a_changed_password_is_taken_over_by_a_refresh() {
    let mut turn = Turn::new();
    let mut old = ann();
    old.relay(&mut turn);
    turn.reload(|settings| settings.users.add_user("ann", "new-pw"));
    let mut new = old.clone();
    new.password = b"new-pw".to_vec();

    // What is running goes on with the old one, until the new one has been used.
    assert_eq!(old.permit(&mut turn, &[PEER]), 0);
    assert_eq!(old.refresh(&mut turn, None).code(), 401);
    assert_eq!(new.refresh(&mut turn, None).code(), 0);
    assert_eq!(new.permit(&mut turn, &[PEER]), 0);
    assert_eq!(old.permit(&mut turn, &[PEER]), 401);
}

// R: Refresh

#[test]
fn r1_the_family_must_be_one_of_the_allocation() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    let mut refresh = |family: &[u8]| {
        ann.ask(&mut turn, Method::REFRESH, |writer| {
            writer.bytes(Attribute::REQUESTED_ADDRESS_FAMILY, family);
        })
        .code()
    };
    assert_eq!(refresh(&[2, 0, 0, 0]), 443);
    assert_eq!(refresh(&[9, 0, 0, 0]), 443);
    assert_eq!(refresh(&[1]), 400);
    assert_eq!(refresh(&[1, 0, 0, 0]), 0);
}

#[test]
fn r1_a_family_refreshes_its_half_of_a_dual_allocation() {
    let mut turn = Turn::new();
    let mut ann = ann();
    dual(&mut ann, &mut turn);
    for _ in 0..3 {
        turn.wait(seconds(250));
        let answer = refresh_half(&mut ann, &mut turn, Family::V6, 600);
        assert_eq!((answer.code(), answer.lifetime()), (0, 600));
    }
    // The other half has expired by itself, and only it.
    assert_eq!(turn.server.census(turn.now).allocations[0], [0, 1]);
    assert_eq!(turn.relays.open.len(), 1);
    assert_eq!(ann.permit(&mut turn, &[PEER]), 443);
    assert_eq!(ann.permit(&mut turn, &[PEER_V6]), 0);
    assert!(matches!(turn.events()[..], [Event::Allocated(_)]));
}

#[test]
fn r1_a_family_deletes_its_half_of_a_dual_allocation() {
    for (gone, stays, peer_gone, peer_stays) in [
        (Family::V4, Family::V6, PEER, PEER_V6),
        (Family::V6, Family::V4, PEER_V6, PEER),
    ] {
        let mut turn = Turn::new();
        let mut ann = ann();
        let answer = dual(&mut ann, &mut turn);
        let relay_of = |turn: &Turn, family: Family| {
            let message = answer.message();
            let mut relays = message.xor_relayed_addresses().map(|relay| relay.unwrap());
            let relay = relays.find(|relay| Family::of(relay.ip()) == family);
            turn.relays.at(relay.unwrap())
        };
        let lost = relay_of(&turn, gone).unwrap();
        assert_eq!(ann.permit(&mut turn, &[PEER, PEER_V6]), 0);
        assert_eq!(ann.bind(&mut turn, 0x4000, peer_gone), 0);

        assert_eq!(refresh_half(&mut ann, &mut turn, gone, 0).lifetime(), 0);

        assert_eq!(relay_of(&turn, gone), None);
        let left = relay_of(&turn, stays).unwrap();
        assert!(turn.peer_sends(left, peer_stays, b"x").is_ok());
        let dropped = turn.peer_sends(lost, peer_gone, b"x");
        assert_eq!(dropped, Err(Cause::UnknownRelay));
        let dropped = ann.channel(&mut turn, 0x4000, peer_gone, b"x");
        assert_eq!(dropped, Err(Cause::NoChannel));
        assert_eq!(turn.quotas.total(), 1);
        // What is left is an allocation of one family.
        assert_eq!(refresh_half(&mut ann, &mut turn, gone, 0).code(), 443);
        assert_eq!(refresh_half(&mut ann, &mut turn, stays, 0).code(), 0);
        assert!(turn.server.is_empty() && turn.relays.open.is_empty());
    }
}

#[test]
fn r1_without_a_family_both_halves_are_meant() {
    let mut turn = Turn::new();
    let mut ann = ann();
    dual(&mut ann, &mut turn);
    turn.wait(seconds(500));
    ann.refresh(&mut turn, None);
    turn.wait(seconds(500));
    assert_eq!(turn.server.census(turn.now).allocations[0], [1, 1]);
    assert_eq!(ann.refresh(&mut turn, Some(0)).code(), 0);
    assert!(turn.server.is_empty() && turn.relays.open.is_empty());
}

#[test]
fn r2_lifetime_zero_deletes_at_once() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    ann.bind(&mut turn, 0x4000, PEER);
    let answer = ann.refresh(&mut turn, Some(0));
    assert_eq!((answer.code(), answer.lifetime()), (0, 0));
    assert!(turn.server.is_empty() && turn.relays.open.is_empty());
    assert_eq!(turn.server.poll_timeout(), None);
    assert_eq!(turn.quotas.total(), 0);
    let dropped = turn.peer_sends(relay, PEER, b"x");
    assert_eq!(dropped, Err(Cause::UnknownRelay));
    let events = turn.events();
    assert!(matches!(&events[1], Event::Released(ended) if ended.reason == EndReason::Deleted));

    assert_eq!(ann.refresh(&mut turn, Some(0)).code(), 437);
    // The same 5-tuple starts afresh: nothing of the old allocation is left.
    let relay = ann.relay(&mut turn);
    let dropped = ann.channel(&mut turn, 0x4000, PEER, b"x");
    assert_eq!(dropped, Err(Cause::NoChannel));
    let dropped = turn.peer_sends(relay, PEER, b"x");
    assert_eq!(dropped, Err(Cause::NoPermission));
}

#[test]
fn r3_neither_refresh_nor_data_refreshes_permissions_and_channels() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    ann.permit(&mut turn, &["52.0.0.1:1"]);
    ann.bind(&mut turn, 0x4000, PEER);
    for second in 0..600 {
        assert_eq!(ann.channel(&mut turn, 0x4000, PEER, b"x"), Ok(()));
        assert!(turn.peer_sends(relay, PEER, b"x").is_ok());
        let sent = ann.send(&mut turn, "52.0.0.1:1", b"x").is_ok();
        assert_eq!(sent, second < 300, "{second}");
        assert_eq!(
            turn.peer_sends(relay, "52.0.0.1:9", b"x").is_ok(),
            second < 300
        );
        if second % 100 == 0 {
            ann.refresh(&mut turn, None);
        }
        turn.wait(seconds(1));
    }
    let dropped = ann.channel(&mut turn, 0x4000, PEER, b"x");
    assert_eq!(dropped, Err(Cause::NoChannel));
}

// P: permissions

#[test]
fn p1_a_permission_is_for_an_address_with_any_port_and_for_five_minutes() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    assert_eq!(ann.permit(&mut turn, &["52.1.2.3:0"]), 0);
    for peer in ["52.1.2.3:1", "52.1.2.3:65535"] {
        assert_eq!(ann.send(&mut turn, peer, b"x"), Ok(()));
        assert!(turn.peer_sends(relay, peer, b"x").is_ok());
    }
    let dropped = turn.peer_sends(relay, "52.1.2.4:1", b"x");
    assert_eq!(dropped, Err(Cause::NoPermission));
    turn.wait(seconds(300) - Duration::from_millis(1));
    assert_eq!(ann.send(&mut turn, PEER, b"x"), Ok(()));
    turn.wait(Duration::from_millis(1));
    assert_eq!(ann.send(&mut turn, PEER, b"x"), Err(Cause::NoPermission));
    let dropped = turn.peer_sends(relay, PEER, b"x");
    assert_eq!(dropped, Err(Cause::NoPermission));
}

#[test]
fn p2_no_or_a_malformed_address_is_400() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    assert_eq!(ann.permit(&mut turn, &[]), 400);
    let answer = ann.ask(&mut turn, Method::CREATE_PERMISSION, |writer| {
        writer
            .xor_address(Attribute::XOR_PEER_ADDRESS, address(PEER))
            .bytes(Attribute::XOR_PEER_ADDRESS, &[0, 1, 0, 0, 1, 2, 3]);
    });
    assert_eq!(answer.code(), 400);
    assert_eq!(turn.server.census(turn.now).permissions, 0);
}

#[test]
fn p2_all_permissions_are_installed_or_none() {
    let mut turn = Turn::with(|settings| settings.limits.permissions = 3);
    let mut ann = ann();
    ann.relay(&mut turn);
    assert_eq!(ann.permit(&mut turn, &["52.0.0.1:1"]), 0);
    turn.wait(seconds(200));
    for (more, code) in [
        (&["52.0.0.2:1", "10.0.0.1:1"][..], 403),
        (&["52.0.0.2:1", PEER_V6], 443),
        (
            &["52.0.0.1:1", "52.0.0.2:1", "52.0.0.3:1", "52.0.0.4:1"],
            508,
        ),
    ] {
        assert_eq!(ann.permit(&mut turn, more), code);
        let sent = ann.send(&mut turn, "52.0.0.2:1", b"x");
        assert_eq!(sent, Err(Cause::NoPermission));
    }
    // The refused requests have not refreshed the first one either.
    turn.wait(seconds(99));
    assert_eq!(ann.send(&mut turn, "52.0.0.1:1", b"x"), Ok(()));
    turn.wait(seconds(1));
    let expired = ann.send(&mut turn, "52.0.0.1:1", b"x");
    assert_eq!(expired, Err(Cause::NoPermission));
    // One address named often is one permission.
    let often = ["52.0.0.1:1", "52.0.0.1:2", "52.0.0.1:3", "52.0.0.1:4"];
    assert_eq!(ann.permit(&mut turn, &often), 0);
    assert_eq!(turn.server.census(turn.now).permissions, 1);
}

#[test]
fn p3_a_channel_brings_a_permission() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    ann.bind(&mut turn, 0x4000, PEER);
    assert_eq!(ann.send(&mut turn, "52.1.2.3:9", b"x"), Ok(()));
    assert!(turn.peer_sends(relay, "52.1.2.3:9", b"x").is_ok());
    turn.wait(seconds(200));
    ann.bind(&mut turn, 0x4000, PEER);
    turn.wait(seconds(200));
    assert_eq!(ann.send(&mut turn, "52.1.2.3:9", b"x"), Ok(()));
}

#[test]
fn p4_a_send_indication_does_not_refresh_a_permission() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    ann.permit(&mut turn, &[PEER]);
    turn.wait(seconds(299));
    assert_eq!(ann.send(&mut turn, PEER, b"x"), Ok(()));
    turn.wait(seconds(1));
    assert_eq!(ann.send(&mut turn, PEER, b"x"), Err(Cause::NoPermission));
}

#[test]
fn p5_the_family_is_judged_before_the_policy() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    for denied in ["[::1]:1", "[fe80::1]:1", "[::ffff:10.0.0.1]:1"] {
        assert_eq!(ann.permit(&mut turn, &[denied]), 443);
        assert_eq!(ann.bind(&mut turn, 0x4000, denied), 443);
    }
}

// D: data

#[test]
fn d1_send_needs_a_peer_and_data_which_may_be_empty() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    ann.permit(&mut turn, &[PEER]);
    assert_eq!(ann.send(&mut turn, PEER, b""), Ok(()));
    assert_eq!(ann.send(&mut turn, PEER, &[7; 1400]), Ok(()));
    let id = turn.id();
    let mut indication = |put: &dyn Fn(&mut Writer<'_>)| {
        let bytes = message(id, Class::Indication, Method::SEND, put);
        turn.silent(ann.client, &bytes)
    };
    assert_eq!(
        indication(&|writer| {
            writer.xor_address(Attribute::XOR_PEER_ADDRESS, address(PEER));
        }),
        Cause::BadIndication
    );
    assert_eq!(
        indication(&|writer| {
            writer.bytes(Attribute::DATA, b"x");
        }),
        Cause::BadIndication
    );
    let dropped = ann.send(&mut turn, "52.1.2.3:0", b"x");
    assert_eq!(dropped, Err(Cause::UnreachablePeer));
    let dropped = ann.send(&mut turn, PEER_V6, b"x");
    assert_eq!(dropped, Err(Cause::UnreachablePeer));
}

/// \[H1\] \[H4\]: a translation between datagrams ignores it; a stream has no DF bit of its own.
#[test]
fn h4_dont_fragment_counts_between_ipv4_datagrams_and_from_streams() {
    let mut turn = Turn::new();
    for (from, transport, peer, heeded) in [
        ("198.51.100.1:1", Transport::Udp, PEER, true),
        ("198.51.100.1:2", Transport::Udp, PEER_V6, false),
        ("[2600:2::1]:3", Transport::Udp, PEER, false),
        ("[2600:2::1]:4", Transport::Udp, PEER_V6, false),
        ("198.51.100.1:5", Transport::Tcp, PEER, true),
        ("[2600:2::1]:6", Transport::Tls, PEER_V6, true),
    ] {
        let mut ann = ann().at(client(from, transport));
        dual(&mut ann, &mut turn);
        ann.permit(&mut turn, &[PEER, PEER_V6]);
        for wanted in [false, true] {
            let bytes = message(turn.id(), Class::Indication, Method::SEND, |writer| {
                writer
                    .xor_address(Attribute::XOR_PEER_ADDRESS, address(peer))
                    .bytes(Attribute::DATA, b"x");
                if wanted {
                    writer.flag(Attribute::DONT_FRAGMENT);
                }
            });
            let (verdict, _) = turn.input(ann.client, &bytes);
            let Verdict::ToPeer { dont_fragment, .. } = verdict else {
                panic!("{verdict:?}");
            };
            assert_eq!(dont_fragment, wanted && heeded, "{from} to {peer}");
        }
    }
}

#[test]
fn d2_a_data_indication_tells_peer_and_data() {
    let mut turn = Turn::new();
    let mut ann = ann();
    dual(&mut ann, &mut turn);
    ann.permit(&mut turn, &[PEER, PEER_V6]);
    let relays: Vec<_> = turn.relays.open.keys().copied().collect();
    let mut ids = std::collections::HashSet::new();
    for (relay, peer) in [(relays[0], PEER), (relays[1], PEER_V6)] {
        for length in [0usize, 1, 2, 3, 4, 1200] {
            let data = vec![0xEE; length];
            let bytes = turn.peer_sends(relay, peer, &data).unwrap();
            assert_eq!(bytes.len() % 4, 0);
            assert_eq!(data_indication(&bytes), (address(peer), data));
            assert!(ids.insert(Message::parse(&bytes).unwrap().transaction_id().0));
        }
    }
}

#[test]
fn d3_a_peer_with_a_channel_is_heard_through_it_even_by_who_uses_send() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    ann.bind(&mut turn, 0x4321, PEER);
    assert_eq!(ann.send(&mut turn, PEER, b"x"), Ok(()));
    let heard = turn.peer_sends(relay, PEER, b"abc").unwrap();
    assert_eq!(heard, channel_data(0x4321, b"abc"));
    let other = turn.peer_sends(relay, "52.1.2.3:4001", b"abc").unwrap();
    assert_eq!(
        data_indication(&other),
        (address("52.1.2.3:4001"), b"abc".to_vec())
    );
}

#[test]
fn d_what_does_not_fit_into_a_message_is_dropped() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    ann.permit(&mut turn, &[PEER]);
    assert!(turn.peer_sends(relay, PEER, &[0; 65_507]).is_ok());
    let dropped = turn.peer_sends(relay, PEER, &[0; 65_530]);
    assert_eq!(dropped, Err(Cause::TooLarge));
    ann.bind(&mut turn, 0x4000, PEER);
    assert!(turn.peer_sends(relay, PEER, &[0; 65_535]).is_ok());
    let dropped = turn.peer_sends(relay, PEER, &[0; 65_536]);
    assert_eq!(dropped, Err(Cause::TooLarge));
}

// C: channels

#[test]
fn c1_channel_numbers_are_0x4000_to_0x4fff() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    for (number, code) in [
        (0, 400),
        (0x3FFF, 400),
        (0x4000, 0),
        (0x4FFF, 0),
        (0x5000, 400),
        (0x7FFF, 400),
        (0xFFFF, 400),
    ] {
        let peer = format!("52.1.2.3:{}", number / 16 + 1);
        assert_eq!(ann.bind(&mut turn, number, &peer), code, "{number:#x}");
    }
    for first in 80..=127u8 {
        let cause = turn.silent(ann.client, &[first, 0, 0, 0]);
        assert_eq!(cause, Cause::NoChannel);
    }
    for first in 128..=255u8 {
        let cause = turn.silent(ann.client, &[first, 0, 0, 0]);
        assert_eq!(cause, Cause::NotTurn);
    }
}

/// The numbers of RFC 5766, for the clients that still draw from all of them.
#[test]
fn c1_channel_numbers_of_rfc_5766_on_request() {
    let mut turn = Turn::with(|settings| settings.rfc5766_channels = true);
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    assert_eq!(ann.bind(&mut turn, 0x8000, PEER), 400);
    assert_eq!(ann.bind(&mut turn, 0x3FFF, PEER), 400);
    assert_eq!(ann.bind(&mut turn, 0x7FFF, PEER), 0);
    assert!(turn.peer_sends(relay, PEER, b"data").is_ok());
}

#[test]
fn c2_a_channel_and_a_peer_belong_together() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    assert_eq!(ann.bind(&mut turn, 0x4000, PEER), 0);
    assert_eq!(ann.bind(&mut turn, 0x4000, "52.1.2.3:4001"), 400);
    assert_eq!(ann.bind(&mut turn, 0x4001, PEER), 400);
    assert_eq!(ann.bind(&mut turn, 0x4000, PEER), 0);
    assert_eq!(ann.bind(&mut turn, 0x4001, "52.1.2.3:4001"), 0);
    assert_eq!(turn.server.census(turn.now).channels, 2);
    assert_eq!(ann.channel(&mut turn, 0x4000, PEER, b"x"), Ok(()));
}

#[test]
fn c3_a_channel_lives_ten_minutes_from_its_last_bind() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    ann.refresh(&mut turn, Some(3600));
    ann.bind(&mut turn, 0x4000, PEER);
    turn.wait(seconds(300));
    ann.bind(&mut turn, 0x4000, PEER);
    turn.wait(seconds(599));
    ann.permit(&mut turn, &[PEER]);
    assert_eq!(ann.channel(&mut turn, 0x4000, PEER, b"x"), Ok(()));
    turn.wait(seconds(1));

    let dropped = ann.channel(&mut turn, 0x4000, PEER, b"x");
    assert_eq!(dropped, Err(Cause::NoChannel));
    let heard = turn.peer_sends(relay, PEER, b"x").unwrap();
    assert_eq!(data_indication(&heard).0, address(PEER));
    // Number and peer are free again, together and apart.
    assert_eq!(ann.bind(&mut turn, 0x4000, "52.1.2.3:9"), 0);
    assert_eq!(ann.bind(&mut turn, 0x4001, PEER), 0);
}

#[test]
fn c_a_live_channel_admits_its_exact_peer_without_a_permission() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    ann.refresh(&mut turn, Some(3600));
    ann.bind(&mut turn, 0x4000, PEER);
    turn.wait(seconds(599));
    assert_eq!(ann.channel(&mut turn, 0x4000, PEER, b"x"), Ok(()));
    assert_eq!(ann.send(&mut turn, PEER, b"x"), Ok(()));
    let heard = turn.peer_sends(relay, PEER, b"abc").unwrap();
    assert_eq!(heard, channel_data(0x4000, b"abc"));
    // Its other ports need the permission, which has gone.
    let other = ann.send(&mut turn, "52.1.2.3:9", b"x");
    assert_eq!(other, Err(Cause::NoPermission));
    let other = turn.peer_sends(relay, "52.1.2.3:9", b"x");
    assert_eq!(other, Err(Cause::NoPermission));
}

#[test]
fn c4_channel_data_may_be_padded_but_not_short() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    ann.bind(&mut turn, 0x4000, PEER);
    for padding in 0..=9 {
        let mut bytes = channel_data(0x4000, b"abcde");
        bytes.resize(bytes.len() + padding, 0xEE);
        let (_, _, body) = turn.forwarded(ann.client, &bytes);
        assert_eq!(body, b"abcde");
    }
    let whole = channel_data(0x4000, b"abcde");
    for cut in 1..whole.len() {
        assert_eq!(turn.silent(ann.client, &whole[..cut]), Cause::Malformed);
    }
}

#[test]
fn c5_streams_are_padded_and_datagrams_are_not() {
    for transport in Transport::ALL {
        let mut turn = Turn::new();
        let mut ann = ann().at(client("198.51.100.1:1000", transport));
        let relay = ann.relay(&mut turn);
        ann.bind(&mut turn, 0x4000, PEER);
        for length in 0..=8usize {
            let heard = turn.peer_sends(relay, PEER, &vec![1; length]).unwrap();
            let mut expected = channel_data(0x4000, &vec![1; length]);
            if transport.is_stream() {
                expected.resize(expected.len().next_multiple_of(4), 0);
            }
            assert_eq!(heard, expected, "{transport:?}");
        }
    }
}

#[test]
fn c6_empty_channel_data_is_an_empty_datagram() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    ann.bind(&mut turn, 0x4000, PEER);
    assert_eq!(ann.channel(&mut turn, 0x4000, PEER, b""), Ok(()));
    assert_eq!(turn.peer_sends(relay, PEER, b"").unwrap(), [0x40, 0, 0, 0]);
}

#[test]
fn c7_data_in_an_unbound_channel_is_dropped() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    ann.permit(&mut turn, &[PEER]);
    let dropped = ann.channel(&mut turn, 0x4000, PEER, b"x");
    assert_eq!(dropped, Err(Cause::NoChannel));
}

#[test]
fn c8_the_errors_of_channel_bind() {
    let mut turn = Turn::with(|settings| settings.limits.channels = 1);
    let mut ann = ann();
    ann.relay(&mut turn);
    let mut bind = |turn: &mut Turn, number: Option<&[u8]>, peer: Option<&str>| {
        ann.ask(turn, Method::CHANNEL_BIND, |writer| {
            if let Some(number) = number {
                writer.bytes(Attribute::CHANNEL_NUMBER, number);
            }
            if let Some(peer) = peer {
                writer.xor_address(Attribute::XOR_PEER_ADDRESS, address(peer));
            }
        })
        .code()
    };
    let number = Some(&[0x40, 0, 0, 0][..]);
    assert_eq!(bind(&mut turn, None, Some(PEER)), 400);
    assert_eq!(bind(&mut turn, number, None), 400);
    assert_eq!(bind(&mut turn, Some(&[0x40]), Some(PEER)), 400);
    assert_eq!(bind(&mut turn, number, Some("52.1.2.3:0")), 400);
    assert_eq!(bind(&mut turn, number, Some(PEER_V6)), 443);
    assert_eq!(bind(&mut turn, number, Some("10.0.0.1:1")), 403);
    assert_eq!(turn.server.census(turn.now).permissions, 0);
    assert_eq!(bind(&mut turn, number, Some(PEER)), 0);
    assert_eq!(
        bind(&mut turn, Some(&[0x40, 1, 0, 0]), Some("52.1.2.3:9")),
        508
    );
    assert_eq!(bind(&mut turn, number, Some(PEER)), 0);
}

#[test]
fn c8_a_channel_without_room_for_its_permission_is_508() {
    let mut turn = Turn::with(|settings| settings.limits.permissions = 1);
    let mut ann = ann();
    ann.relay(&mut turn);
    ann.permit(&mut turn, &["52.0.0.1:1"]);
    assert_eq!(ann.bind(&mut turn, 0x4000, PEER), 508);
    let dropped = ann.channel(&mut turn, 0x4000, PEER, b"x");
    assert_eq!(dropped, Err(Cause::NoChannel));
    assert_eq!(ann.bind(&mut turn, 0x4000, "52.0.0.1:1"), 0);
}

#[test]
fn c9_data_before_the_bind_is_dropped_and_after_it_goes() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    assert!(ann.channel(&mut turn, 0x4000, PEER, b"x").is_err());
    ann.bind(&mut turn, 0x4000, PEER);
    assert_eq!(ann.channel(&mut turn, 0x4000, PEER, b"x"), Ok(()));
}

// L: limits on peers

#[test]
fn l1_teredo_and_6to4_are_refused_for_peers_and_clients() {
    let mut turn = Turn::with(|settings| settings.peers = peers(&["::/0", "0.0.0.0/0"], &[]));
    for tunnel in [
        "[2001::1]:1",
        "[2001:0:4136:e378::1]:1",
        "[2002:102:304::1]:1",
    ] {
        let mut from = ann().at(udp(tunnel));
        assert_eq!(from.allocate(&mut turn).code(), 403, "{tunnel}");
        let mut ann = ann().at(udp("198.51.100.1:5"));
        ann.allocate_with(&mut turn, |writer| {
            writer.u8(Attribute::REQUESTED_ADDRESS_FAMILY, 2);
        });
        assert_eq!(ann.permit(&mut turn, &[tunnel]), 403, "{tunnel}");
        assert_eq!(ann.bind(&mut turn, 0x4000, tunnel), 403);
    }
}

#[test]
fn l2_our_own_addresses_are_refused_but_for_open_relays() {
    let mut turn = Turn::new();
    let (mut ann, mut bob) = (ann(), bob());
    ann.relay(&mut turn);
    let his = bob.allocate(&mut turn).relayed();
    for own in [SERVER_V4, "203.0.113.1:9641", "203.0.113.1:49999"] {
        assert_eq!(ann.permit(&mut turn, &[own]), 403);
        assert_eq!(ann.bind(&mut turn, 0x4000, own), 403);
    }
    assert_eq!(ann.permit(&mut turn, &[&his.to_string()]), 0);
    assert_eq!(ann.bind(&mut turn, 0x4000, &his.to_string()), 0);
    bob.refresh(&mut turn, Some(0));
    assert_eq!(ann.permit(&mut turn, &[&his.to_string()]), 403);
}

#[test]
fn l2_an_open_relay_is_reached_even_in_private_space_unless_it_is_denied() {
    for (deny, code) in [(&[][..], 0), (&["10.0.0.0/8"], 403)] {
        let mut turn = Turn::with(|settings| settings.peers = peers(&[], deny));
        turn.relays.addresses[0] = "10.0.0.5".parse().unwrap();
        turn.relays.own.push("10.0.0.5".parse().unwrap());
        let (mut ann, mut bob) = (ann(), bob());
        ann.relay(&mut turn);
        let his = bob.allocate(&mut turn).relayed().to_string();
        assert_eq!(ann.permit(&mut turn, &[&his]), code);
        assert_eq!(ann.bind(&mut turn, 0x4000, &his), code);
    }
}

fn families(v4: bool, v6: bool) -> Families {
    Families { v4, v6 }
}

fn dual(user: &mut User, turn: &mut Turn) -> Answer {
    user.allocate_with(turn, |writer| {
        writer.u8(Attribute::ADDITIONAL_ADDRESS_FAMILY, 2);
    })
}

fn refresh_half(user: &mut User, turn: &mut Turn, family: Family, lifetime: u32) -> Answer {
    user.ask(turn, Method::REFRESH, |writer| {
        writer
            .u8(Attribute::REQUESTED_ADDRESS_FAMILY, family.number())
            .u32(Attribute::LIFETIME, lifetime);
    })
}
