//! RFC 7635, third-party authorization, at the border of the machine: named by the numbers in the list of requirements
//! (7635-n) and in the list of attacks (A23).

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use aes_gcm::aead::{AeadInOut, KeyInit, Nonce};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use support::*;
use turnd::stun::{
    Attribute, Class, Integrity, Key, Message, Method, PasswordAlgorithm, TransactionId, Writer,
};
use turnd::turn::{
    Cause, Client, EndReason, Event, ListenerAlgorithms, OnExpiry, PasswordAlgorithms, Refusal,
    Settings, TcpRelay, ThirdParty, TokenAlgorithm, TokenKey, Transport, Verdict,
};

const SERVER_NAME: &str = "turn.example.org";
const NORTH: &[u8; 32] = b"the long-term key of kid north..";
const SOUTH: &[u8; 16] = b"that of south...";

// 7635-1: the offer

#[test]
fn s7635_1_a_401_names_the_server_beside_the_realm() {
    let mut turn = Turn::with(third_party);
    let answer = ann().greet(&mut turn);
    let message = answer.message();
    let name = message.third_party_authorization();
    assert_eq!(name, Some(Ok(SERVER_NAME.as_bytes())));
    assert_eq!(message.realm(), Some(Ok(&b"turnd"[..])));
    assert_eq!(answer.bytes.len(), 64 + 4 + SERVER_NAME.len());

    let mut wrong = ann();
    wrong.password = b"x".to_vec();
    assert!(wrong.allocate(&mut turn).has(NAME));
    let binding = request(turn.id(), Method::BINDING, |_| {});
    assert!(!turn.answered(wrong.client, &binding).has(NAME));

    assert!(!ann().greet(&mut Turn::new()).has(NAME));
}

#[test]
fn s7635_1_the_first_party_is_served_as_ever() {
    let mut turn = Turn::with(third_party);
    let mut ann = ann();
    ann.relay(&mut turn);
    assert_eq!(ann.permit(&mut turn, &[PEER]), 0);
    let mut cyd = vouched("cyd", UNIX + 3600, udp("198.51.100.3:1"));
    assert_eq!(cyd.allocate(&mut turn).code(), 0);

    turn.wait(seconds(3 * 3600));
    let stale = ann.allocate(&mut turn);
    assert_eq!((stale.code(), stale.has(NAME)), (438, false));
}

// 7635-2: tokens

#[test]
fn s7635_2_the_key_in_the_token_signs_requests_and_answers() {
    for (kid, mac_key, integrity) in [
        ("north", 20, Integrity::Sha1),
        ("north", 20, Integrity::Sha256),
        ("north", 32, Integrity::Sha1),
        ("north", 32, Integrity::Sha256),
        ("south", 20, Integrity::Sha1),
    ] {
        let mut turn = Turn::with(third_party);
        let mut holder = Holder::new(kid, &vec![9; mac_key]);
        holder.integrity = integrity;
        // `ask` checks the signature of each answer.
        let allocated = holder.allocate(&mut turn);
        assert_eq!(allocated.code(), 0, "{kid} {mac_key} {integrity:?}");
        assert!(allocated.told.authenticated);
        assert_eq!(holder.permit(&mut turn), 0);
        let bound = holder.ask_without(&mut turn, Method::CHANNEL_BIND, |writer| {
            writer
                .u16(Attribute::CHANNEL_NUMBER, 0x4000)
                .xor_address(Attribute::XOR_PEER_ADDRESS, address(PEER));
        });
        assert_eq!(bound.code(), 0);
        let data = channel_data(0x4000, b"x");
        let (_, peer, body) = turn.forwarded(holder.client, &data);
        assert_eq!((peer, &body[..]), (address(PEER), &b"x"[..]));
        assert_eq!(holder.refresh(&mut turn, Some(0)).code(), 0);
        assert!(turn.server.is_empty());
    }
}

#[test]
fn s7635_2_a_token_that_does_not_open_is_401_and_leaves_nothing() {
    let mut turn = Turn::with(third_party);
    let mut good = Holder::new("north", &[9; 20]);
    let cases = [
        ("another server", Refusal::Token, {
            let token = seal(NORTH, "turn2.example.org", &[9; 20], UNIX << 16, 3600);
            good.with(token)
        }),
        ("another key", Refusal::Token, {
            let token = seal(&[1; 32], SERVER_NAME, &[9; 20], UNIX << 16, 3600);
            good.with(token)
        }),
        ("no such kid", Refusal::UnknownUser, {
            let mut other = good.clone();
            other.kid = "east".into();
            other
        }),
        ("the other kid", Refusal::Token, {
            let mut other = good.clone();
            other.kid = "south".into();
            other
        }),
        ("another mac_key", Refusal::Integrity, {
            let mut other = good.clone();
            other.mac_key = vec![8; 20];
            other
        }),
        ("empty", Refusal::Token, good.with(Vec::new())),
        ("a key of 16 bytes", Refusal::Token, {
            let token = seal(NORTH, SERVER_NAME, &[9; 16], UNIX << 16, 3600);
            good.with(token)
        }),
    ];
    for (what, refusal, mut holder) in cases {
        for method in [Method::ALLOCATE, Method::REFRESH] {
            let answer = holder.ask(&mut turn, method, |writer| {
                writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
            });
            assert_eq!(answer.code(), 401, "{what}");
            assert_eq!(answer.told.refusal, Some(refusal), "{what}");
            assert!(answer.has(NAME) && answer.has(Attribute::NONCE));
            assert!(!answer.told.authenticated);
        }
    }
    assert!(turn.server.is_empty() && turn.relays.open.is_empty());
    assert_eq!(good.allocate(&mut turn).code(), 0);
}

#[test]
fn s7635_2_the_checks_of_long_term_credentials_hold() {
    let mut turn = Turn::with(third_party);
    let mut holder = Holder::new("north", &[9; 20]);
    holder.greet(&mut turn);
    for missing in [Attribute::USERNAME, Attribute::REALM, Attribute::NONCE] {
        let bytes = holder.signed_but(turn.id(), missing);
        assert_eq!(
            turn.answered(holder.client, &bytes).code(),
            400,
            "{missing:?}"
        );
    }
    // Not signed: the first request of a client that has a token already.
    let bytes = request(turn.id(), Method::ALLOCATE, |writer| {
        writer
            .u8(Attribute::REQUESTED_TRANSPORT, 17)
            .bytes(Attribute::ACCESS_TOKEN, &holder.token);
    });
    assert_eq!(turn.answered(holder.client, &bytes).code(), 401);
    // A stale nonce is told after the token was found good, not before.
    let lasting = seal(NORTH, SERVER_NAME, &[9; 20], UNIX << 16, u32::MAX);
    let (mut lasting, mut broken) = (holder.with(lasting), holder.with(vec![0; 64]));
    turn.wait(seconds(3 * 3600));
    for (holder, code) in [(&mut broken, 401), (&mut lasting, 438)] {
        assert_eq!(holder.allocate(&mut turn).code(), code);
    }
}

#[test]
fn s7635_2_where_sha256_is_required_it_protects_tokens_too() {
    let mut turn = Turn::with(|settings| {
        third_party(settings);
        settings.listener_algorithms = vec![ListenerAlgorithms {
            transport: Transport::Udp,
            address: address(SERVER_V4),
            algorithms: PasswordAlgorithms::Sha256,
        }];
    });
    let mut holder = Holder::new("north", &[9; 32]);
    let answer = holder.allocate(&mut turn);
    assert_eq!(answer.code(), 400);
    assert_eq!(answer.told.refusal, Some(Refusal::Algorithm));
    holder.integrity = Integrity::Sha256;
    // The list came altered.
    let altered = holder.ask(&mut turn, Method::ALLOCATE, |writer| {
        writer
            .u8(Attribute::REQUESTED_TRANSPORT, 17)
            .bytes(Attribute::PASSWORD_ALGORITHMS, &[0, 1, 0, 0]);
    });
    assert_eq!(altered.code(), 400);
    assert_eq!(holder.allocate(&mut turn).code(), 0);
    assert_eq!(holder.permit(&mut turn), 0);
    holder.integrity = Integrity::Sha1;
    assert_eq!(holder.permit(&mut turn), 400);
}

#[test]
fn each_token_has_a_quota_of_its_own() {
    let mut turn = Turn::with(|settings| {
        third_party(settings);
        settings.limits.per_user = 1;
    });
    let mut first = Holder::new("north", &[9; 20]);
    let mut second = first.at("198.51.100.7:2");
    let mut other = Holder::new("north", &[8; 20]).at("198.51.100.7:3");
    assert_eq!(first.allocate(&mut turn).code(), 0);
    assert_eq!(second.allocate(&mut turn).code(), 486);
    assert_eq!(other.allocate(&mut turn).code(), 0);
    assert_eq!(first.refresh(&mut turn, Some(0)).code(), 0);
    assert_eq!(second.allocate(&mut turn).code(), 0);
}

#[test]
fn a_second_connection_is_bound_with_the_same_token() {
    let mut turn = Turn::with(|settings| {
        third_party(settings);
        settings.tcp_relay = Some(TcpRelay::default());
    });
    let tcp = |from: &str| client(from, Transport::Tcp);
    let mut holder = Holder::new("north", &[9; 20]);
    holder.client = tcp("198.51.100.7:1");
    let allocated = holder.ask(&mut turn, Method::ALLOCATE, |writer| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 6);
    });
    assert_eq!(allocated.code(), 0);
    turn.events();
    let bytes = holder.signed(turn.id(), Method::CONNECT, false, |writer| {
        writer.xor_address(Attribute::XOR_PEER_ADDRESS, address(PEER));
    });
    assert_eq!(turn.input(holder.client, &bytes).0, Verdict::Later);
    let [Event::Connect(connect)] = &turn.events()[..] else {
        panic!("no connection is wanted");
    };
    let mut reply = Vec::new();
    let told = turn
        .server
        .connected(turn.now, connect, Ok(()), &mut turn.relays, &mut reply);
    assert_eq!(told.unwrap().code, 0);
    let message = Message::parse(&reply).unwrap();
    assert!(message.verify(&holder.key()));
    let id = message.connection_id().unwrap().unwrap();

    let mut bind = |holder: &mut Holder, from| {
        holder.client = tcp(from);
        let answer = holder.ask(&mut turn, Method::CONNECTION_BIND, |writer| {
            writer.u32(Attribute::CONNECTION_ID, id);
        });
        answer.code()
    };
    // All users of an authorization server have one name.
    let mut other = Holder::new("north", &[8; 20]);
    assert_eq!(bind(&mut other, "198.51.100.7:2"), 400);
    assert_eq!(bind(&mut holder, "198.51.100.7:3"), 0);
}

// 7635-3: when a token is good

#[test]
fn s7635_3_a_token_is_judged_by_its_time() {
    for (issued, lifetime, code) in [
        (UNIX, 3600, 0),
        (UNIX - 3604, 3600, 0),
        (UNIX - 3605, 3600, 401),
        (UNIX + 3604, 3600, 0),
        (UNIX + 3605, 3600, 401),
        (UNIX, 0, 0),
        (UNIX - 4, 0, 0),
        (UNIX - 5, 0, 401),
        (0, u32::MAX, 0),
        (0, 3600, 401),
        ((1 << 48) - 1, u32::MAX, 401),
    ] {
        let mut turn = Turn::with(third_party);
        let token = seal(NORTH, SERVER_NAME, &[9; 20], issued << 16, lifetime);
        let answer = Holder::new("north", &[9; 20])
            .with(token)
            .allocate(&mut turn);
        assert_eq!(answer.code(), code, "{issued} {lifetime}");
        let refusal = (code == 401).then_some(Refusal::Expired);
        assert_eq!(answer.told.refusal, refusal);
    }
}

#[test]
fn s7635_3_the_timestamp_counts_whole_seconds_in_its_upper_48_bits() {
    let mut turn = Turn::with(third_party);
    let fraction = (UNIX - 3604) << 16 | 63_999;
    let token = seal(NORTH, SERVER_NAME, &[9; 20], fraction, 3600);
    let mut holder = Holder::new("north", &[9; 20]).with(token);
    assert_eq!(holder.allocate(&mut turn).lifetime(), 1);
}

/// With every time and lifetime that there is at either end, whatever the clock says and however users expire.
#[test]
fn s7635_3_the_ends_of_all_numbers_do_no_harm() {
    const LAST: u64 = u64::MAX >> 16;
    let edges = [0, 1, 5, UNIX, LAST - 1, LAST];
    for on_expiry in [OnExpiry::New, OnExpiry::Refresh, OnExpiry::Cut] {
        for now in edges.into_iter().chain([LAST + 1, u64::MAX]) {
            for issued in edges {
                for lifetime in [0, 1, 599, 3600, u32::MAX - 1, u32::MAX] {
                    for asked in [0, 1, 3600, u32::MAX] {
                        let mut turn = Turn::with(|settings| {
                            third_party(settings);
                            settings.on_expiry = on_expiry;
                        });
                        turn.now.unix = now;
                        // The fraction does not count.
                        let timestamp = issued << 16 | 0xFFFF;
                        let token = seal(NORTH, SERVER_NAME, &[9; 20], timestamp, lifetime);
                        let mut holder = Holder::new("north", &[9; 20]).with(token);
                        let answer = holder.ask(&mut turn, Method::ALLOCATE, |writer| {
                            writer
                                .u8(Attribute::REQUESTED_TRANSPORT, 17)
                                .u32(Attribute::LIFETIME, asked);
                        });
                        let left =
                            i128::from(lifetime) + 5 - (i128::from(now) - i128::from(issued)).abs();
                        let what = (now, issued, lifetime, asked);
                        if left <= 0 {
                            assert_eq!(answer.code(), 401, "{what:?}");
                            continue;
                        }
                        let granted = i128::from(asked).clamp(600, 3600).min(left);
                        assert_eq!(i128::from(answer.lifetime()), granted, "{what:?}");
                        let refreshed = holder.refresh(&mut turn, Some(u32::MAX));
                        assert_eq!(i128::from(refreshed.lifetime()), left.min(3600));
                    }
                }
            }
        }
    }
}

// 7635-4: how long an allocation lives

#[test]
fn s7635_4_no_allocation_outlives_its_token() {
    for (age, asked, granted) in [
        (0, None, 600),
        (0, Some(3600), 3600),
        (1000, Some(3600), 2605),
        (3100, None, 505),
        (3604, None, 1),
    ] {
        let mut turn = Turn::with(third_party);
        let token = seal(NORTH, SERVER_NAME, &[9; 20], (UNIX - age) << 16, 3600);
        let mut holder = Holder::new("north", &[9; 20]).with(token);
        let answer = holder.ask(&mut turn, Method::ALLOCATE, |writer| {
            writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
            if let Some(asked) = asked {
                writer.u32(Attribute::LIFETIME, asked);
            }
        });
        assert_eq!(answer.lifetime(), granted, "{age} {asked:?}");
        // Neither is it refreshed beyond, with the token or without.
        let left = 3605 - age as u32;
        let refreshed = holder.refresh(&mut turn, Some(3600));
        assert_eq!(refreshed.lifetime(), left.min(3600));
        let refreshed = holder.ask_without(&mut turn, Method::REFRESH, |writer| {
            writer.u32(Attribute::LIFETIME, 3600);
        });
        assert_eq!(refreshed.lifetime(), left.min(3600));
        turn.wait(seconds(left.min(3600).into()));
        assert!(turn.server.is_empty());
    }
}

#[test]
fn s7635_4_a_renewed_token_refreshes_the_allocation() {
    let mut turn = Turn::with(third_party);
    let mut old = Holder::new("north", &[9; 20]);
    let relayed = old.allocate(&mut turn).relayed();
    assert_eq!(old.refresh(&mut turn, Some(3600)).lifetime(), 3600);
    assert_eq!(old.permit(&mut turn), 0);
    turn.wait(seconds(3000));

    let mut new = old.renewed(&turn, &[7; 20]);
    assert_eq!(new.refresh(&mut turn, Some(3600)).lifetime(), 3600);
    turn.wait(seconds(3500));
    assert!(
        turn.relays.at(relayed).is_some(),
        "it lives on at its address"
    );
    new.greet(&mut turn);
    assert_eq!(new.permit(&mut turn), 0);
    old.nonce.clone_from(&new.nonce);

    // From then on the new key is the key.
    assert_eq!(old.permit(&mut turn), 401);
    assert_eq!(old.refresh(&mut turn, None).code(), 401);
    turn.wait(seconds(105));
    assert!(turn.server.is_empty());
}

#[test]
fn s7635_4_an_allocation_is_refreshed_by_its_own_kind_of_user_alone() {
    let mut turn = Turn::with(third_party);
    let mut holder = Holder::new("north", &[9; 20]);
    holder.allocate(&mut turn);
    turn.wait(seconds(10));
    let mut refused = |mut other: Holder| {
        other.client = holder.client;
        let answer = other.refresh(&mut turn, Some(0));
        assert!(answer.told.authenticated);
        answer.code()
    };
    // Another key of the server's, and a token from before the one that made the allocation.
    let fresh = seal(SOUTH, SERVER_NAME, &[8; 20], (UNIX + 10) << 16, 3600);
    assert_eq!(refused(Holder::new("south", &[8; 20]).with(fresh)), 441);
    let older = seal(NORTH, SERVER_NAME, &[8; 20], (UNIX - 1) << 16, 3600);
    assert_eq!(refused(Holder::new("north", &[8; 20]).with(older)), 441);
    let mut ann = ann().at(holder.client);
    assert_eq!(ann.refresh(&mut turn, Some(0)).code(), 441);

    // Who only knows the name has no key to anything else.
    let mut other = Holder::new("north", &[8; 20]);
    assert_eq!(other.permit(&mut turn), 401);

    // Nor does a token open what a password has made.
    let mut bob = bob();
    bob.relay(&mut turn);
    let mut thief = Holder::new("north", &[9; 20]);
    thief.client = bob.client;
    assert_eq!(thief.refresh(&mut turn, Some(0)).code(), 441);
    assert_eq!(thief.permit(&mut turn), 401);
    assert_eq!(bob.refresh(&mut turn, None).code(), 0);
    assert_eq!(holder.refresh(&mut turn, None).code(), 0);
}

/// A ticket is no credential, and credentials are none without the right ticket: whoever shows it from elsewhere is
/// judged as if it came from the old address, also if it only wants to delete.
#[test]
fn a25_a_ticket_is_good_for_the_token_of_its_allocation_alone() {
    let mut turn = Turn::with(|settings| {
        third_party(settings);
        settings.mobility = true;
        settings.users.add_user("north", "north-pw");
    });
    let mut holder = Holder::new("north", &[9; 20]);
    let answer = holder.ask(&mut turn, Method::ALLOCATE, |writer| {
        writer
            .u8(Attribute::REQUESTED_TRANSPORT, 17)
            .flag(Attribute::MOBILITY_TICKET);
    });
    let ticket = answer
        .message()
        .mobility_ticket()
        .unwrap()
        .unwrap()
        .to_vec();
    turn.wait(seconds(10));
    let cafe = "192.0.2.7:7000";
    let put = |writer: &mut Writer<'_>, lifetime| {
        writer
            .bytes(Attribute::MOBILITY_TICKET, &ticket)
            .u32(Attribute::LIFETIME, lifetime);
    };

    for lifetime in [0, 600] {
        let older = seal(NORTH, SERVER_NAME, &[8; 20], (UNIX - 1) << 16, 3600);
        let expired = seal(NORTH, SERVER_NAME, &[9; 20], UNIX << 16, 4);
        let other = seal(SOUTH, SERVER_NAME, &[8; 20], (UNIX + 10) << 16, 3600);
        for (what, mut thief, code) in [
            ("older", Holder::new("north", &[8; 20]).with(older), 441),
            ("expired", holder.with(expired), 401),
            ("south", Holder::new("south", &[8; 20]).with(other), 441),
        ] {
            thief.client = udp(cafe);
            thief.nonce = Vec::new();
            let answer = thief.ask(&mut turn, Method::REFRESH, |writer| put(writer, lifetime));
            assert_eq!(answer.code(), code, "{what} {lifetime}");
        }
        for (name, password) in [("ann", "ann-pw"), ("north", "north-pw")] {
            let mut thief = User::new(name, password, udp(cafe));
            let answer = thief.ask(&mut turn, Method::REFRESH, |writer| put(writer, lifetime));
            assert_eq!(answer.code(), 441, "{name} {lifetime}");
        }
        // The right key without the token, from where nothing tells whose it is.
        let mut bare = holder.at(cafe);
        let answer = bare.ask_without(&mut turn, Method::REFRESH, |writer| put(writer, lifetime));
        assert_eq!(answer.code(), 401);
    }

    // What is refused does not use the ticket up.
    let mut moved = holder.at(cafe);
    let answer = moved.ask(&mut turn, Method::REFRESH, |writer| {
        put(writer, 600);
        writer.u8(Attribute::REQUESTED_ADDRESS_FAMILY, 2);
    });
    assert_eq!(answer.code(), 443);
    let mut renewed = moved.renewed(&turn, &[7; 20]);
    let answer = renewed.ask(&mut turn, Method::REFRESH, |writer| put(writer, 600));
    assert_eq!(answer.code(), 0);
    // From then on the new key is the key, at either address.
    assert_eq!(renewed.permit(&mut turn), 0);
    assert_eq!(renewed.at("198.51.100.7:1").permit(&mut turn), 0);
    assert_eq!(holder.permit(&mut turn), 401);
    assert_eq!(moved.permit(&mut turn), 401);
    assert_eq!(turn.server.census(turn.now).permissions, 1);
}

/// The user of a password and the key of an authorization server may have one name, and have nothing else in common.
#[test]
fn a_user_with_the_name_of_a_kid_is_somebody_else() {
    let mut turn = Turn::with(|settings| {
        third_party(settings);
        settings.users.add_user("north", "north-pw");
        settings.limits.per_user = 1;
    });
    let mut holder = Holder::new("north", &[9; 20]);
    let mut user = User::new("north", "north-pw", udp("198.51.100.8:1"));
    assert_eq!(holder.allocate(&mut turn).code(), 0);
    assert_eq!(user.allocate(&mut turn).code(), 0);

    // Each at the other's address, to whom the other's allocation is closed.
    let mut stray = user.at(holder.client);
    assert_eq!(stray.refresh(&mut turn, Some(0)).code(), 401);
    assert_eq!(stray.permit(&mut turn, &[PEER]), 401);
    let mut stray = holder.at("198.51.100.8:1");
    assert_eq!(stray.refresh(&mut turn, Some(0)).code(), 441);
    assert_eq!(stray.permit(&mut turn), 401);
    // The key of one with the other's credentials.
    let mac_key = user.key();
    let mixed = {
        let mut bytes = Vec::new();
        let id = turn.id();
        let mut writer = Writer::new(&mut bytes, Class::Request, Method::REFRESH, id);
        writer
            .u32(Attribute::LIFETIME, 0)
            .bytes(Attribute::USERNAME, b"north")
            .bytes(Attribute::REALM, b"turnd")
            .bytes(Attribute::NONCE, &user.nonce)
            .bytes(Attribute::ACCESS_TOKEN, &holder.token);
        writer.finish_with_integrity(&mac_key, Integrity::Sha1);
        bytes
    };
    assert_eq!(turn.answered(user.client, &mixed).code(), 401);

    // Both go on.
    assert_eq!(holder.refresh(&mut turn, None).code(), 0);
    assert_eq!(holder.permit(&mut turn), 0);
    assert_eq!(user.refresh(&mut turn, None).code(), 0);
    assert_eq!(user.permit(&mut turn, &[PEER]), 0);
}

#[test]
fn s7635_4_a_repeated_allocate_is_answered_as_it_was() {
    let mut turn = Turn::with(third_party);
    let mut holder = Holder::new("north", &[9; 20]);
    holder.greet(&mut turn);
    let bytes = holder.signed(turn.id(), Method::ALLOCATE, true, |writer| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
    });
    let first = holder.ask_bytes(&mut turn, &bytes);
    let again = holder.ask_bytes(&mut turn, &bytes);
    assert_eq!(first.relayed(), again.relayed());
    assert_eq!(holder.allocate(&mut turn).code(), 437);
}

#[test]
fn a_key_that_is_withdrawn_vouches_no_longer() {
    for with_token in [true, false] {
        let mut turn = Turn::with(third_party);
        let mut holder = Holder::new("north", &[9; 20]);
        holder.allocate(&mut turn);
        turn.reload(|settings| settings.third_party = Some(ThirdParty::new(SERVER_NAME, vec![])));
        // The call goes on until it has to be refreshed.
        assert_eq!(holder.permit(&mut turn), 0);
        let bytes = holder.signed(turn.id(), Method::REFRESH, with_token, |_| {});
        let answer = holder.ask_bytes(&mut turn, &bytes);
        assert_eq!(answer.code(), 401);
        assert_eq!(answer.told.refusal, Some(Refusal::UnknownUser));
        turn.wait(seconds(600));
        let ended = turn.events().pop();
        assert!(
            matches!(&ended, Some(Event::Released(ended)) if ended.reason == EndReason::Expired),
            "{ended:?}"
        );
    }
}

// 7635-5: a token that nobody asked for

#[test]
fn s7635_5_a_token_that_was_not_asked_for_is_420() {
    let mut turn = Turn::new();
    let mut holder = Holder::new("north", &[9; 20]);
    assert!(!holder.greet(&mut turn).has(NAME));
    for method in [Method::ALLOCATE, Method::REFRESH] {
        let answer = holder.ask(&mut turn, method, |writer| {
            writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        });
        assert_eq!(answer.code(), 420);
        let unknown: Vec<_> = answer.message().unknown_attributes().collect();
        assert_eq!(unknown, [Attribute::ACCESS_TOKEN]);
        assert!(!answer.told.authenticated);
        assert_eq!(answer.told.refusal, Some(Refusal::Token));
    }
    // Who is known otherwise is told so under the key.
    let answer = ann().allocate_with(&mut turn, |writer| {
        writer.bytes(Attribute::ACCESS_TOKEN, b"x");
    });
    assert_eq!((answer.code(), answer.told.authenticated), (420, true));
    let unknown: Vec<_> = answer.message().unknown_attributes().collect();
    assert_eq!(unknown, [Attribute::ACCESS_TOKEN]);
    // Who is not signs first.
    let bytes = request(turn.id(), Method::ALLOCATE, |writer| {
        writer
            .u8(Attribute::REQUESTED_TRANSPORT, 17)
            .bytes(Attribute::ACCESS_TOKEN, b"x");
    });
    assert_eq!(turn.answered(holder.client, &bytes).code(), 401);
    assert!(turn.server.is_empty());
}

#[test]
fn s7635_5_an_answer_to_a_token_is_paid_for_like_any_to_a_stranger() {
    let mut turn = Turn::with(|settings| settings.limits.unauthenticated_replies = 2);
    let mut holder = Holder::new("north", &[9; 20]);
    holder.greet(&mut turn);
    let bytes = holder.signed(turn.id(), Method::ALLOCATE, true, |_| {});
    assert_eq!(turn.answered(holder.client, &bytes).code(), 420);
    assert_eq!(turn.silent(holder.client, &bytes), Cause::ReplyBudget);
}

/// RFC 7635 §9: a client puts it into no other request.
#[test]
fn a_token_elsewhere_is_no_credential() {
    let mut turn = Turn::with(third_party);
    let mut holder = Holder::new("north", &[9; 20]);
    let permit = |holder: &mut Holder, turn: &mut Turn| {
        holder.ask(turn, Method::CREATE_PERMISSION, |writer| {
            writer.xor_address(Attribute::XOR_PEER_ADDRESS, address(PEER));
        })
    };
    assert_eq!(permit(&mut holder, &mut turn).code(), 401);
    holder.allocate(&mut turn);
    // Known and not expected: ignored.
    assert_eq!(permit(&mut holder, &mut turn).code(), 0);
    let mut renewed = holder.renewed(&turn, &[7; 20]);
    assert_eq!(permit(&mut renewed, &mut turn).code(), 401);
}

// A23: hostile tokens

#[test]
fn a23_every_length_of_a_nonce_but_the_right_one_is_401() {
    let mut hostile = Hostile::new();
    let good = hostile.good.token.clone();
    for length in 0..=u16::MAX {
        let mut token = good.clone();
        token[..2].copy_from_slice(&length.to_be_bytes());
        let answered = hostile.shows(&token);
        assert_eq!(answered, if length == 12 { 0 } else { 401 }, "{length}");
    }
    for length in 0..1000 {
        let mut token = good.clone();
        token.resize(length, 0);
        let answered = hostile.shows(&token);
        assert_eq!(answered, if length == 64 { 0 } else { 401 }, "{length}");
    }
}

/// Random bytes of every likely length, and good tokens with something changed: 401, and nothing is kept. A million
/// more are shown to the parser alone, beside it.
#[test]
fn a23_hostile_tokens_leave_nothing() {
    let mut hostile = Hostile::new();
    let good = hostile.good.token.clone();
    let mut random = Random(0x5eed);
    for round in 0..100_000 {
        let mut token = good.clone();
        match round % 8 {
            0 => {
                let (at, bit) = (random.below(token.len()), random.below(8));
                token[at] ^= 1 << bit;
            }
            1 => token.truncate(random.below(token.len())),
            2 => token.extend_from_slice(&[0; 12][..1 + random.below(12)]),
            // Sealed right, with something else in it.
            3 if round % 64 == 3 => token = random.sealed(),
            _ => {
                let length = [64, 64, 76, random.below(200)][random.below(4)];
                token = (0..length).map(|_| random.below(256) as u8).collect();
                if round % 2 == 0 && token.len() > 2 {
                    token[..2].copy_from_slice(&[0, 12]);
                }
            }
        }
        if hostile.shows(&token) != 401 {
            panic!("seed {:#x}, round {round}: {token:02x?}", 0x5eed);
        }
    }
    assert_eq!(hostile.shows(&good), 0);
}

// An oracle

/// Tokens of coturn's tool open, for both ciphers, and ours are opened by it.
#[test]
fn tokens_of_coturn_open_and_ours_open_there() {
    const TOOL: &str = "turnutils_oauth";
    if Command::new(TOOL).arg("--help").output().is_err() {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "missing: {TOOL}; run .ci/install"
        );
        use std::io::Write as _;
        let _ = std::io::stderr().write_all(b"SKIPPED: turnutils_oauth, run .ci/install\n");
        return;
    }
    for (kid, algorithm, key) in [
        ("north", "A256GCM", &NORTH[..]),
        ("south", "A128GCM", &SOUTH[..]),
    ] {
        let timestamp = (UNIX << 16).to_string();
        let run = |more: &[&str]| {
            let output = Command::new(TOOL)
                .args(["-v", "-i", SERVER_NAME, "-j", kid])
                .args(["-k", &STANDARD.encode(key), "-n", algorithm])
                .args(["-l", &(UNIX - 60).to_string(), "-m", "86400"])
                .args(more)
                .output()
                .unwrap();
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
        };
        let nonce = STANDARD.encode(b"twelve bytes");
        let mac_key = b"ZksjpweoixXmvn67534m";
        let in_base64 = STANDARD.encode(mac_key);
        let made = run(&[
            "-e", "-o", &nonce, "-p", &in_base64, "-q", &timestamp, "-r", "3600",
        ]);
        let token = made.split('"').nth(3).unwrap_or_default();
        let token = STANDARD
            .decode(token)
            .unwrap_or_else(|_| panic!("no token in {made}"));
        let mut turn = Turn::with(third_party);
        let mut holder = Holder::new(kid, mac_key).with(token);
        let answer = holder.ask(&mut turn, Method::ALLOCATE, |writer| {
            writer
                .u8(Attribute::REQUESTED_TRANSPORT, 17)
                .u32(Attribute::LIFETIME, 3600);
        });
        assert_eq!((answer.code(), answer.lifetime()), (0, 3600), "{made}");

        let ours = seal(key, SERVER_NAME, mac_key, UNIX << 16, 3600);
        let opened = run(&["-d", "-t", &STANDARD.encode(ours)]);
        assert!(opened.contains("-=Valid token!=-"), "{opened}");
        assert!(opened.contains("ZksjpweoixXmvn67534m"), "{opened}");
        assert!(opened.contains("unixtime: 1800000000 "), "{opened}");
        // The tool does not say yes to everything.
        let foreign = seal(key, "turn2.example.org", mac_key, UNIX << 16, 3600);
        let opened = run(&["-d", "-t", &STANDARD.encode(foreign)]);
        assert!(!opened.contains("-=Valid token!=-"), "{opened}");
    }
}

// What an authorization server and its clients do

const NAME: Attribute = Attribute::THIRD_PARTY_AUTHORIZATION;

/// Settings that share the keys north and south with authorization servers.
fn third_party(settings: &mut Settings) {
    let key = |kid, algorithm, key: &[u8]| TokenKey::new(kid, algorithm, key).unwrap();
    let keys = vec![
        key("north", TokenAlgorithm::A256Gcm, NORTH),
        key("south", TokenAlgorithm::A128Gcm, SOUTH),
    ];
    settings.third_party = Some(ThirdParty::new(SERVER_NAME, keys));
}

/// RFC 7635 §6.2. `timestamp` is in units of 1/65536 seconds, as it is sent.
fn seal(key: &[u8], server: &str, mac_key: &[u8], timestamp: u64, lifetime: u32) -> Vec<u8> {
    let mut block = (mac_key.len() as u16).to_be_bytes().to_vec();
    block.extend_from_slice(mac_key);
    block.extend_from_slice(&timestamp.to_be_bytes());
    block.extend_from_slice(&lifetime.to_be_bytes());
    seal_block(key, server, block)
}

fn seal_block(key: &[u8], server: &str, block: Vec<u8>) -> Vec<u8> {
    fn with<C: AeadInOut + KeyInit>(key: &[u8], server: &str, mut block: Vec<u8>) -> Vec<u8> {
        let nonce = Sha1::digest(&block);
        let nonce = &nonce[..12];
        let cipher = C::new_from_slice(key).unwrap();
        let tag = cipher
            .encrypt_inout_detached(
                &Nonce::<C>::try_from(nonce).unwrap(),
                server.as_bytes(),
                block.as_mut_slice().into(),
            )
            .unwrap();
        [&[0, 12], nonce, &block, &tag[..]].concat()
    }
    match key.len() {
        16 => with::<Aes128Gcm>(key, server, block),
        _ => with::<Aes256Gcm>(key, server, block),
    }
}

/// A client with a token.
#[derive(Clone)]
struct Holder {
    client: Client,
    kid: String,
    mac_key: Vec<u8>,
    token: Vec<u8>,
    nonce: Vec<u8>,
    integrity: Integrity,
}

impl Holder {
    /// At 198.51.100.7, with a token of an hour.
    fn new(kid: &str, mac_key: &[u8]) -> Self {
        let key = if kid == "south" {
            &SOUTH[..]
        } else {
            &NORTH[..]
        };
        Self {
            client: udp("198.51.100.7:1"),
            kid: kid.into(),
            mac_key: mac_key.into(),
            token: seal(key, SERVER_NAME, mac_key, UNIX << 16, 3600),
            nonce: Vec::new(),
            integrity: Integrity::Sha1,
        }
    }

    fn with(&self, token: Vec<u8>) -> Self {
        Self {
            token,
            ..self.clone()
        }
    }

    fn at(&self, from: &str) -> Self {
        Self {
            client: udp(from),
            nonce: Vec::new(),
            ..self.clone()
        }
    }

    /// The same client with a new token of north, good for an hour from now on.
    fn renewed(&self, turn: &Turn, mac_key: &[u8]) -> Self {
        Self {
            mac_key: mac_key.into(),
            token: seal(NORTH, SERVER_NAME, mac_key, turn.now.unix << 16, 3600),
            ..self.clone()
        }
    }

    /// RFC 7635 §5 and appendix B.
    fn key(&self) -> Key {
        let key = |bytes: &[u8]| Key::from_bytes(PasswordAlgorithm::Md5, bytes).unwrap();
        match (self.integrity, self.mac_key.len()) {
            (Integrity::Sha1, 32) => key(&Sha1::digest(&self.mac_key)),
            _ => key(&self.mac_key),
        }
    }

    fn greet(&mut self, turn: &mut Turn) -> Answer {
        let protocol = 17;
        let bytes = request(turn.id(), Method::ALLOCATE, |writer| {
            writer.u8(Attribute::REQUESTED_TRANSPORT, protocol);
        });
        let answer = turn.answered(self.client, &bytes);
        assert_eq!(answer.code(), 401);
        self.nonce = answer.nonce();
        answer
    }

    fn signed(
        &self,
        id: TransactionId,
        method: Method,
        with_token: bool,
        put: impl FnOnce(&mut Writer<'_>),
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, Class::Request, method, id);
        put(&mut writer);
        writer
            .bytes(Attribute::USERNAME, self.kid.as_bytes())
            .bytes(Attribute::REALM, b"turnd")
            .bytes(Attribute::NONCE, &self.nonce);
        if with_token {
            writer.bytes(Attribute::ACCESS_TOKEN, &self.token);
        }
        writer.finish_with_integrity(&self.key(), self.integrity);
        bytes
    }

    /// An Allocate that lacks one of what belongs to the integrity.
    fn signed_but(&self, id: TransactionId, missing: Attribute) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, Class::Request, Method::ALLOCATE, id);
        writer.bytes(Attribute::ACCESS_TOKEN, &self.token);
        for (kind, value) in [
            (Attribute::USERNAME, self.kid.as_bytes()),
            (Attribute::REALM, b"turnd"),
            (Attribute::NONCE, &self.nonce),
        ] {
            if kind != missing {
                writer.bytes(kind, value);
            }
        }
        writer.finish_with_integrity(&self.key(), self.integrity);
        bytes
    }

    fn ask(
        &mut self,
        turn: &mut Turn,
        method: Method,
        put: impl FnOnce(&mut Writer<'_>),
    ) -> Answer {
        self.ask_either_way(turn, method, true, put)
    }

    fn ask_without(
        &mut self,
        turn: &mut Turn,
        method: Method,
        put: impl FnOnce(&mut Writer<'_>),
    ) -> Answer {
        self.ask_either_way(turn, method, false, put)
    }

    fn ask_either_way(
        &mut self,
        turn: &mut Turn,
        method: Method,
        with_token: bool,
        put: impl FnOnce(&mut Writer<'_>),
    ) -> Answer {
        if self.nonce.is_empty() {
            self.greet(turn);
        }
        let bytes = self.signed(turn.id(), method, with_token, put);
        self.ask_bytes(turn, &bytes)
    }

    /// An authenticated answer must be signed as the request was.
    fn ask_bytes(&self, turn: &mut Turn, bytes: &[u8]) -> Answer {
        let answer = turn.answered(self.client, bytes);
        if answer.told.authenticated {
            let message = answer.message();
            assert!(message.verify(&self.key()), "not signed right");
            let sha256 = message.has_sha256_integrity();
            assert_eq!(sha256, self.integrity == Integrity::Sha256);
        }
        answer
    }

    fn allocate(&mut self, turn: &mut Turn) -> Answer {
        self.ask(turn, Method::ALLOCATE, |writer| {
            writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        })
    }

    fn refresh(&mut self, turn: &mut Turn, lifetime: Option<u32>) -> Answer {
        self.ask(turn, Method::REFRESH, |writer| {
            if let Some(lifetime) = lifetime {
                writer.u32(Attribute::LIFETIME, lifetime);
            }
        })
    }

    fn permit(&mut self, turn: &mut Turn) -> u16 {
        let answer = self.ask_without(turn, Method::CREATE_PERMISSION, |writer| {
            writer.xor_address(Attribute::XOR_PEER_ADDRESS, address(PEER));
        });
        answer.code()
    }
}

/// Shows tokens to a machine, over TCP so that every one is looked at.
struct Hostile {
    turn: Turn,
    good: Holder,
}

impl Hostile {
    fn new() -> Self {
        let mut turn = Turn::with(third_party);
        let mut good = Holder::new("north", &[9; 20]);
        good.client = client("198.51.100.7:1", Transport::Tcp);
        good.greet(&mut turn);
        Self { turn, good }
    }

    /// What an Allocate is answered that has the token in it, and is signed with the key of the good one. An
    /// allocation is ended at once; nothing else may make one.
    fn shows(&mut self, token: &[u8]) -> u16 {
        let holder = self.good.with(token.to_vec());
        let bytes = holder.signed(TransactionId([7; 12]), Method::ALLOCATE, true, |writer| {
            writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        });
        let mut reply = Vec::new();
        let (now, from) = (self.turn.now, holder.client);
        let relays = &mut self.turn.relays;
        let verdict = self
            .turn
            .server
            .client_input(now, from, &bytes, relays, &mut reply);
        let Verdict::Reply(told) = verdict else {
            panic!("{verdict:?}");
        };
        assert_eq!(self.turn.server.is_empty(), told.code != 0);
        if told.code == 0 {
            self.turn.server.client_gone(now, from, relays);
        }
        self.turn.events();
        told.code
    }
}

/// A small generator, whose numbers are the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    /// A token that opens, and in which nothing is right: a length or the time.
    fn sealed(&mut self) -> Vec<u8> {
        let length = [34, 46, self.below(60)][self.below(3)];
        let mut block: Vec<u8> = (0..length).map(|_| self.below(256) as u8).collect();
        if length == 34 && self.below(2) == 0 {
            block[..2].copy_from_slice(&[0, 20]);
            // Long ago.
            block[22..].fill(0);
        }
        seal_block(NORTH, SERVER_NAME, block)
    }
}
