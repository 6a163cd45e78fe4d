//! What an attacker tries on the machine, and what must come of it: named by the numbers of the catalogue of attacks.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use support::*;
use turnd::stun::{Attribute, Class, Integrity, Method, TransactionId, Writer};
use turnd::turn::{Cause, Client, PasswordAlgorithms, Peers, Refusal, RelayId, Transport, Verdict};

// A01-A08: relaying to places it must not

#[test]
fn a01_to_a08_no_special_address_is_a_peer() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.allocate_with(&mut turn, |writer| {
        writer.u8(Attribute::ADDITIONAL_ADDRESS_FAMILY, 2);
    });
    let mut refused = 0;
    for &address in SPECIAL {
        let peer = match address.contains(':') {
            true => format!("[{address}]:4000"),
            false => format!("{address}:4000"),
        };
        assert_eq!(ann.permit(&mut turn, &[&peer]), 403, "{peer}");
        assert_eq!(ann.bind(&mut turn, 0x4000, &peer), 403, "{peer}");
        let sent = ann.send(&mut turn, &peer, b"x");
        assert_eq!(sent, Err(Cause::NoPermission), "{peer}");
        refused += 1;
    }
    assert_eq!(refused, SPECIAL.len());
    for &address in PUBLIC {
        let peer = match address.contains(':') {
            true => format!("[{address}]:4000"),
            false => format!("{address}:4000"),
        };
        assert_eq!(ann.permit(&mut turn, &[&peer]), 0, "{peer}");
    }
}

#[test]
fn a02_no_encoding_of_a_denied_ipv4_address_in_ipv6_is_a_peer() {
    let peers = Peers::default();
    for &address in SPECIAL.iter().filter(|address| !address.contains(':')) {
        let v4: Ipv4Addr = address.parse().unwrap();
        for encoded in encodings(v4) {
            assert!(!peers.permit(encoded.into()), "{v4} as {encoded}");
        }
    }
    // Nor of an allowed one: translators and tunnels are not for peers, but ISATAP hides in any prefix.
    let v4 = "52.1.2.3".parse().unwrap();
    for encoded in encodings(v4).into_iter().filter(|v6| !is_isatap(*v6)) {
        assert!(!peers.permit(encoded.into()), "{encoded}");
    }
}

#[test]
fn a02_who_allows_a_translator_does_not_allow_what_is_behind_it() {
    let nat64 = |v4: &str| -> IpAddr { format!("64:ff9b::{v4}").parse().unwrap() };
    let allowed = peers(&["64:ff9b::/96"], &[]);
    assert!(allowed.permit(nat64("52.1.2.3")));
    assert!(!allowed.permit(nat64("10.0.0.1")));
    assert!(!allowed.permit(nat64("127.0.0.1")));
    let denied = peers(&["64:ff9b::/96"], &["52.0.0.0/8"]);
    assert!(!denied.permit(nat64("52.1.2.3")));
    let inside = peers(&["64:ff9b::/96", "10.1.0.0/16"], &[]);
    assert!(inside.permit(nat64("10.1.0.1")));
    assert!(!inside.permit(nat64("10.2.0.1")));
}

#[test]
fn a03_prefixes_are_opened_one_by_one_and_deny_wins() {
    let judge = |allow: &[&str], deny: &[&str], peer: &str| {
        peers(allow, deny).permit(peer.parse().unwrap())
    };
    assert!(judge(&["10.1.0.0/16"], &[], "10.1.255.255"));
    assert!(!judge(&["10.1.0.0/16"], &[], "10.2.0.0"));
    assert!(!judge(&["10.1.0.0/16"], &["10.1.2.0/24"], "10.1.2.3"));
    assert!(!judge(&["52.1.2.3/32"], &["52.0.0.0/8"], "52.1.2.3"));
    assert!(!judge(&[], &["52.1.2.3/32"], "52.1.2.3"));
    assert!(judge(&[], &["52.1.2.3/32"], "52.1.2.4"));
    assert!(judge(&["fd00::/8"], &[], "fd12::1"));
    assert!(judge(&["127.0.0.0/8", "::1/128"], &[], "127.0.0.1"));
    assert!(judge(&["127.0.0.0/8", "::1/128"], &[], "::1"));
}

#[test]
fn a03_what_nobody_can_mean_stays_closed_even_if_all_is_allowed() {
    let all = peers(&["0.0.0.0/0", "::/0"], &[]);
    for closed in [
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "192.88.99.1",
        "::",
        "::7f00:1",
        "::ffff:52.1.2.3",
        "::ffff:0:52.1.2.3",
        "ff02::1",
        "2001::1",
        "2002::1",
    ] {
        assert!(!all.permit(closed.parse().unwrap()), "{closed}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Against the registries written down another way: as ranges of addresses.
    #[test]
    fn a02_a03_ipv4_is_judged_like_the_oracle(bits in edge_or_any_v4()) {
        let v4 = Ipv4Addr::from_bits(bits);
        prop_assert_eq!(Peers::default().permit(v4.into()), !oracle_denies_v4(v4), "{}", v4);
    }

    #[test]
    fn a02_a03_ipv6_is_judged_like_the_oracle(bits in edge_or_any_v6()) {
        let v6 = Ipv6Addr::from_bits(bits);
        prop_assert_eq!(Peers::default().permit(v6.into()), !oracle_denies_v6(v6), "{}", v6);
    }

    /// A04: a prefix holds exactly what mask arithmetic says.
    #[test]
    fn a04_a_denied_prefix_is_exact(address: u32, flipped in 0u32..32, length in 0u8..=32) {
        let net = format!("{}/{length}", Ipv4Addr::from_bits(address));
        let peers = Peers { allow: vec![], deny: vec![net.parse().unwrap()] };
        let other = address ^ 1 << flipped;
        let inside = flipped < 32 - u32::from(length);
        prop_assert_eq!(peers.denies(Ipv4Addr::from_bits(other).into()), inside);
    }
}

#[test]
fn a06_a_request_through_our_own_relay_is_not_answered() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let relayed = ann.allocate(&mut turn).relayed();
    let nested = udp(&relayed.to_string());
    for method in [Method::ALLOCATE, Method::BINDING, Method::REFRESH] {
        let bytes = request(turn.id(), method, |writer| {
            writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        });
        assert_eq!(turn.silent(nested, &bytes), Cause::NoWayBack);
    }
    let mut inner = ann.at(nested);
    inner.nonce = ann.nonce.clone();
    let signed = inner.signed(turn.id(), Method::ALLOCATE, |writer| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
    });
    assert_eq!(turn.silent(nested, &signed), Cause::NoWayBack);
    assert_eq!(turn.relays.open.len(), 1);
}

/// Invariant: one datagram in is at most one datagram out, which the type of the verdict says; so what is left is that
/// no answer is ever an answer's cause (A14), and that no client is a relay.
#[test]
fn a07_no_client_address_is_ever_a_relayed_address() {
    let mut turn = Turn::new();
    let mut chain = ann();
    for _ in 0..5 {
        let relayed = chain.allocate(&mut turn).relayed();
        let next = udp(&relayed.to_string());
        let bytes = chain.at(next).signed(turn.id(), Method::ALLOCATE, |_| {});
        assert_eq!(turn.silent(next, &bytes), Cause::NoWayBack);
        chain = chain.at(udp(&format!("198.51.100.1:{}", relayed.port())));
    }
}

// A11-A14: reflection and amplification

#[test]
fn a11_a_binding_answer_is_as_short_as_can_be() {
    let mut turn = Turn::new();
    let bytes = request(turn.id(), Method::BINDING, |_| {});
    assert_eq!(bytes.len(), 20);
    assert_eq!(turn.answered(udp("198.51.100.1:1"), &bytes).bytes.len(), 32);
    assert_eq!(
        turn.answered(udp("[2001:db8::1]:1"), &bytes).bytes.len(),
        44
    );
}

#[test]
fn a11_a_flood_in_the_name_of_one_network_is_hardly_answered() {
    let mut turn = Turn::new();
    let victim = flood(&mut turn, |n| {
        format!("198.51.100.{}:{}", n % 256, 1 + n % 60_000)
    });
    assert!(victim.bytes_out * 20 <= victim.bytes_in, "{victim:?}");
    // Another network is answered meanwhile.
    let bytes = request(turn.id(), Method::BINDING, |_| {});
    assert_eq!(turn.answered(udp("203.0.113.77:1"), &bytes).code(), 0);

    let mut turn = Turn::new();
    let victim = flood(&mut turn, |n| {
        format!("[2001:db8:0:aa{:02x}::{n:x}]:1000", n % 256)
    });
    assert!(victim.bytes_out * 16 <= victim.bytes_in, "{victim:?}");
}

#[test]
fn a11_all_answers_to_strangers_are_paid_from_one_budget() {
    let mut turn = Turn::with(|settings| settings.limits.unauthenticated_replies = 4);
    let from = udp("198.51.100.1:1000");
    let mut eve = User::new("eve", "x", from);
    eve.nonce = b"made up".to_vec();
    let mut incomplete = Vec::new();
    let mut writer = Writer::new(
        &mut incomplete,
        Class::Request,
        Method::REFRESH,
        TransactionId([9; 12]),
    );
    writer.u32(Attribute::LIFETIME, 0);
    writer.finish_with_integrity(&eve.key(), Integrity::Sha1);
    let questions = [
        request(turn.id(), Method::BINDING, |_| {}),
        request(turn.id(), Method::ALLOCATE, |writer| {
            writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        }),
        incomplete,
        eve.signed(turn.id(), Method::REFRESH, |_| {}),
    ];
    let codes: Vec<_> = questions
        .iter()
        .map(|question| turn.answered(from, question).code())
        .collect();
    assert_eq!(codes, [0, 401, 400, 401]);
    for question in &questions {
        assert_eq!(turn.silent(from, question), Cause::ReplyBudget);
    }
    // A connection proves its address, and pays nothing.
    let tcp = client("198.51.100.1:1000", Transport::Tcp);
    for question in &questions {
        turn.answered(tcp, question);
    }
    // A quarter of a second pays for one answer.
    turn.wait(std::time::Duration::from_millis(250));
    turn.answered(from, &questions[0]);
    assert_eq!(turn.silent(from, &questions[0]), Cause::ReplyBudget);
}

#[test]
fn a11_who_knows_a_key_is_answered_whatever_its_neighbours_do() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.greet(&mut turn);
    flood(&mut turn, |n| format!("198.51.100.{}:1000", n % 256));
    assert_eq!(ann.allocate(&mut turn).code(), 0);
    assert_eq!(ann.permit(&mut turn, &[PEER]), 0);
    assert_eq!(ann.refresh(&mut turn, None).code(), 0);
}

#[test]
fn a11_no_limit_is_a_setting() {
    let mut turn = Turn::with(|settings| settings.limits.unauthenticated_replies = 0);
    let bytes = request(turn.id(), Method::BINDING, |_| {});
    for _ in 0..10_000 {
        turn.answered(udp("198.51.100.1:1"), &bytes);
    }
}

#[test]
fn a12_a_challenge_is_little_longer_than_the_question() {
    let mut turn = Turn::new();
    let bytes = request(turn.id(), Method::ALLOCATE, |writer| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
    });
    let answer = turn.answered(udp("198.51.100.1:1"), &bytes);
    assert_eq!(bytes.len(), 28);
    assert!(answer.bytes.len() <= 64, "{}", answer.bytes.len());
}

/// The first requests of real clients, as they leave them: only the transport (libwebrtc, pion, libre with more), with
/// a lifetime (Firefox, libjuice, aioice), with SOFTWARE and FINGERPRINT (pjnath), and with the family (pion for IPv6).
#[test]
fn a12_a_challenge_to_a_real_client_is_at_most_2_3_times_its_question() {
    type Put = fn(&mut Writer<'_>);
    let first: [(&str, Put); 5] = [
        ("libwebrtc", |_| {}),
        ("firefox", |writer| {
            writer.u32(Attribute::LIFETIME, 3600);
        }),
        ("libwebrtc with a logging id", |writer| {
            writer.bytes(Attribute(0xFF05), b"log");
        }),
        ("pion", |writer| {
            writer.u8(Attribute::REQUESTED_ADDRESS_FAMILY, 2);
        }),
        ("pjnath", |writer| {
            writer.u32(Attribute::LIFETIME, 600);
            writer.bytes(Attribute::SOFTWARE, b"pjnath-2.14");
            writer.fingerprint();
        }),
    ];
    let mut turn = Turn::with(|settings| {
        settings.software = Some("turnd".into());
    });
    for (who, put) in first {
        for from in ["198.51.100.1:1", "[2001:db8::1]:1"] {
            let question = request(turn.id(), Method::ALLOCATE, |writer| {
                writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
                put(writer);
            });
            let answer = turn.answered(udp(from), &question);
            assert_eq!(answer.code(), 401);
            let (asked, told) = (question.len(), answer.bytes.len());
            assert!(told * 10 <= asked * 23, "{who}: {told} for {asked}");
        }
    }
}

#[test]
fn a12_what_no_client_sends_is_not_answered() {
    let mut turn = Turn::new();
    let from = udp("198.51.100.1:1");
    for method in [
        Method::ALLOCATE,
        Method::REFRESH,
        Method::CREATE_PERMISSION,
        Method::CHANNEL_BIND,
    ] {
        let bytes = request(turn.id(), method, |_| {});
        assert_eq!(turn.silent(from, &bytes), Cause::TooSmall, "{method}");
    }
    let bytes = request(turn.id(), Method::ALLOCATE, |writer| {
        writer.u32(Attribute::LIFETIME, 600);
    });
    assert_eq!(turn.silent(from, &bytes), Cause::TooSmall);
    let bytes = request(turn.id(), Method::REFRESH, |writer| {
        writer.u32(Attribute::LIFETIME, 600);
    });
    assert_eq!(turn.answered(from, &bytes).code(), 401);
}

#[test]
fn a13_unknown_attributes_do_not_amplify() {
    let mut turn = Turn::new();
    let bytes = request(turn.id(), Method::BINDING, |writer| {
        for kind in 0x7000..0x7000 + 300 {
            writer.bytes(Attribute(kind), b"");
        }
    });
    let answer = turn.answered(udp("198.51.100.1:1"), &bytes);
    assert_eq!(answer.code(), 420);
    assert_eq!(answer.message().unknown_attributes().count(), 16);
    assert!(answer.bytes.len() <= bytes.len());

    let answer = ann().allocate_with(&mut turn, |writer| {
        for kind in 0x7000..0x7000 + 300 {
            writer.bytes(Attribute(kind), b"");
        }
    });
    assert_eq!(answer.code(), 420);
    assert!(answer.bytes.len() <= bytes.len());
}

#[test]
fn a14_nothing_that_the_server_says_is_answered() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let mut said = vec![ann.greet(&mut turn).bytes];
    let answer = ann.allocate(&mut turn);
    let relay = turn.relays.at(answer.relayed()).unwrap();
    said.push(answer.bytes);
    said.push(ann.allocate(&mut turn).bytes);
    said.push(ann.refresh(&mut turn, None).bytes);
    said.push(ann.ask(&mut turn, Method::CHANNEL_BIND, |_| {}).bytes);
    ann.permit(&mut turn, &[PEER]);
    said.push(turn.peer_sends(relay, PEER, b"x").unwrap());
    ann.bind(&mut turn, 0x4000, PEER);
    said.push(turn.peer_sends(relay, PEER, b"x").unwrap());
    let binding = request(turn.id(), Method::BINDING, |_| {});
    said.push(turn.answered(ann.client, &binding).bytes);
    for method in [0x001, 0x003, 0x004, 0x006, 0x007, 0x008, 0x009, 0x00B] {
        for class in [Class::Success, Class::Error, Class::Indication] {
            said.push(message(turn.id(), class, Method(method), |_| {}));
        }
    }
    let stranger = udp("198.51.100.77:3478");
    for bytes in &said {
        turn.silent(stranger, bytes);
    }
}

#[test]
fn a14_there_are_addresses_to_which_nothing_is_sent() {
    let mut turn = Turn::new();
    let bytes = request(turn.id(), Method::BINDING, |_| {});
    for from in ["198.51.100.1:0", SERVER_V4, SERVER_V6, "[2001:db8::1]:0"] {
        assert_eq!(turn.silent(udp(from), &bytes), Cause::NoWayBack, "{from}");
    }
}

// A17-A24: authentication

#[test]
fn a17_a_nonce_of_another_client_is_stale() {
    let mut turn = Turn::new();
    let (mut ann, mut bob) = (ann(), bob());
    ann.greet(&mut turn);
    bob.nonce = ann.nonce.clone();
    let answer = bob.allocate(&mut turn);
    assert_eq!(answer.code(), 438);
    bob.nonce = answer.nonce();
    assert_eq!(bob.allocate(&mut turn).code(), 0);
}

#[test]
fn a17_a_nonce_that_was_never_issued_is_stale() {
    for offer in [PasswordAlgorithms::Md5, PasswordAlgorithms::Sha256AndMd5] {
        let mut turn = Turn::with(|settings| settings.password_algorithms = offer);
        let mut ann = ann();
        ann.greet(&mut turn);
        let good = ann.nonce.clone();
        let mut forged = vec![b"".to_vec(), b"x".to_vec(), vec![b'A'; 20], vec![b'A'; 763]];
        forged.push([b"obMatJos2".as_slice(), &[b'A'; 24]].concat());
        for at in 0..good.len() {
            let mut nonce = good.clone();
            nonce[at] ^= 1;
            forged.push(nonce);
        }
        for nonce in forged {
            ann.nonce = nonce;
            let signed = ann.signed(turn.id(), Method::ALLOCATE, |writer| {
                writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
            });
            assert_eq!(turn.answered(ann.client, &signed).code(), 438);
            turn.wait(seconds(1));
        }
        assert!(turn.server.is_empty());
        ann.nonce = good;
        assert_eq!(ann.allocate(&mut turn).code(), 0);
    }
}

#[test]
fn a18_every_unauthenticated_answer_looks_the_same() {
    let mut turn = Turn::new();
    let from = ann().client;
    let expired = vouched("cyd", UNIX - 1000, from);
    let forged = User::new(&format!("{}:cyd", UNIX + 1000), "x", from);
    let mut wrong = ann();
    wrong.password = b"x".to_vec();
    let answers: Vec<_> = [expired, forged, wrong, User::new("eve", "x", from)]
        .into_iter()
        .map(|mut user| user.allocate(&mut turn))
        .collect();
    let refusals: Vec<_> = answers
        .iter()
        .map(|answer| answer.told.refusal.unwrap())
        .collect();
    let expected = [
        Refusal::Expired,
        Refusal::Integrity,
        Refusal::Integrity,
        Refusal::UnknownUser,
    ];
    assert_eq!(refusals, expected);
    for answer in &answers {
        assert_eq!(answer.bytes[20..], answers[0].bytes[20..]);
    }
}

#[test]
fn a19_what_is_appended_to_a_signed_request_does_not_count() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    let mut bytes = ann.signed(turn.id(), Method::REFRESH, |_| {});
    bytes.extend_from_slice(&[0, 0x0D, 0, 4, 0, 0, 0, 0]);
    let length = (bytes.len() - 20) as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    let answer = ann.ask_bytes(&mut turn, &bytes);
    assert_eq!((answer.code(), answer.lifetime()), (0, 600));
    assert!(!turn.server.is_empty());
}

#[test]
fn a21_stripped_or_altered_algorithms_are_400() {
    let mut turn = Turn::with(|settings| {
        settings.password_algorithms = PasswordAlgorithms::Sha256AndMd5;
    });
    let mut ann = ann();
    ann.greet(&mut turn);
    // The attacker took SHA-256 from the list in the challenge, and the client answers what it saw.
    let answer = ann.ask(&mut turn, Method::ALLOCATE, |writer| {
        writer
            .u8(Attribute::REQUESTED_TRANSPORT, 17)
            .bytes(Attribute::PASSWORD_ALGORITHMS, &[0, 1, 0, 0])
            .bytes(Attribute::PASSWORD_ALGORITHM, &[0, 1, 0, 0]);
    });
    assert_eq!(answer.code(), 400);
    assert!(turn.server.is_empty());
}

#[test]
fn a24_without_a_good_nonce_even_the_right_key_is_paid_for_as_a_stranger() {
    let mut turn = Turn::with(|settings| settings.limits.unauthenticated_replies = 1);
    let mut ann = ann();
    ann.greet(&mut turn);
    // The budget is spent. A right signature under a made-up nonce could not be answered ...
    let mut forged = ann.clone();
    forged.nonce = b"made up".to_vec();
    let bytes = forged.signed(turn.id(), Method::ALLOCATE, |_| {});
    assert_eq!(turn.silent(ann.client, &bytes), Cause::ReplyBudget);
    // ... and who was given a nonce goes on.
    assert_eq!(ann.allocate(&mut turn).code(), 0);
}

// A26-A30: exhaustion

#[test]
fn a26_even_ports_leave_nothing_behind() {
    let mut turn = Turn::new();
    let mut ann = ann();
    for _ in 0..500 {
        let answer = ann.allocate_with(&mut turn, |writer| {
            writer.even_port(false);
        });
        assert_eq!(answer.code(), 0);
        assert_eq!(ann.refresh(&mut turn, Some(0)).code(), 0);
    }
    assert!(turn.relays.open.is_empty());
    assert_eq!(turn.quotas.total(), 0);
}

#[test]
fn a27_a_stranger_leaves_nothing_behind() {
    let mut turn = Turn::new();
    for n in 0..2_000u32 {
        let from = format!("{}:1000", Ipv4Addr::from_bits(0x3400_0000 + n * 300));
        let mut eve = User::new("eve", "x", udp(&from));
        eve.allocate(&mut turn);
    }
    assert!(turn.server.is_empty() && turn.relays.open.is_empty());
    assert_eq!(turn.server.poll_timeout(), None);
    assert!(turn.events().is_empty());
    assert_eq!(turn.quotas.total(), 0);
}

#[test]
fn a28_one_user_cannot_have_all_ports() {
    let mut turn = Turn::new();
    let mut codes: HashMap<u16, usize> = HashMap::new();
    let mut ann = ann();
    ann.greet(&mut turn);
    for port in 1..=1_000 {
        ann.client = udp(&format!("198.51.100.1:{port}"));
        *codes.entry(ann.allocate(&mut turn).code()).or_default() += 1;
    }
    assert_eq!(codes, HashMap::from([(0, 16), (486, 984)]));
    assert_eq!(turn.relays.open.len(), 16);
    assert_eq!(bob().allocate(&mut turn).code(), 0);
}

#[test]
fn a29_permissions_and_channels_are_bounded() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    for n in 0..64 {
        assert_eq!(ann.permit(&mut turn, &[&format!("52.0.0.{n}:1")]), 0);
    }
    assert_eq!(ann.permit(&mut turn, &["52.0.1.0:1"]), 508);
    for n in 0..64u16 {
        let peer = format!("52.0.0.{n}:1");
        assert_eq!(ann.bind(&mut turn, 0x4000 + n, &peer), 0);
    }
    assert_eq!(ann.bind(&mut turn, 0x4040, "52.0.0.0:2"), 508);
    for n in 0..64u16 {
        let peer = format!("52.0.0.{n}:1");
        assert_eq!(ann.channel(&mut turn, 0x4000 + n, &peer, b"x"), Ok(()));
        assert_eq!(ann.send(&mut turn, &peer, b"x"), Ok(()));
    }
    // What has expired makes room.
    turn.wait(seconds(300));
    assert_eq!(ann.permit(&mut turn, &["52.0.1.0:1"]), 0);
}

#[test]
fn a30_no_lifetime_is_longer_than_the_maximum() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let answer = ann.allocate_with(&mut turn, |writer| {
        writer.u32(Attribute::LIFETIME, 4_000_000_000);
    });
    assert_eq!(answer.lifetime(), 3600);
    assert_eq!(ann.refresh(&mut turn, Some(u32::MAX)).lifetime(), 3600);
}

// A40-A42: parsing

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A38: whatever is done to messages that were good, nothing panics, and no answer is long.
    #[test]
    fn a38_damaged_messages_do_no_harm(
        damages in prop::collection::vec((0usize..9, any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 100),
    ) {
        let mut turn = Turn::new();
        let mut ann = ann();
        ann.relay(&mut turn);
        ann.bind(&mut turn, 0x4000, PEER);
        let corpus = [
            ann.signed(turn.id(), Method::ALLOCATE, |writer| {
                writer.u8(Attribute::REQUESTED_TRANSPORT, 17).even_port(true).fingerprint();
            }),
            ann.signed(turn.id(), Method::REFRESH, |writer| {
                writer.u32(Attribute::LIFETIME, 1);
            }),
            ann.signed(turn.id(), Method::CREATE_PERMISSION, |writer| {
                writer.xor_address(Attribute::XOR_PEER_ADDRESS, address(PEER));
            }),
            ann.signed(turn.id(), Method::CHANNEL_BIND, |writer| {
                writer
                    .u16(Attribute::CHANNEL_NUMBER, 0x4001)
                    .xor_address(Attribute::XOR_PEER_ADDRESS, address(PEER_V6));
            }),
            send_indication(turn.id(), PEER, b"data"),
            channel_data(0x4000, b"data"),
            request(turn.id(), Method::BINDING, |_| {}),
            request(turn.id(), Method::ALLOCATE, |writer| {
                writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
            }),
            vec![],
        ];
        for (which, place, byte, damage) in damages {
            let mut bytes = corpus[which].clone();
            match damage {
                0 if !bytes.is_empty() => {
                    let at = place.index(bytes.len());
                    bytes[at] = byte;
                }
                1 => bytes.truncate(place.index(bytes.len() + 1)),
                2 => bytes.insert(place.index(bytes.len() + 1), byte),
                _ => bytes.extend(vec![byte; place.index(2000)]),
            }
            for transport in [Transport::Udp, Transport::Tcp] {
                let from = client("198.51.100.1:1000", transport);
                let (_, reply) = turn.input(from, &bytes);
                prop_assert!(reply.len() <= 548);
            }
        }
        // No damaged request has touched what ann has.
        prop_assert_eq!(ann.channel(&mut turn, 0x4000, PEER, b"x"), Ok(()));
    }
}

#[test]
fn a40_the_first_of_two_attributes_counts() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    ann.permit(&mut turn, &[PEER, "52.9.9.9:1"]);
    let bytes = message(turn.id(), Class::Indication, Method::SEND, |writer| {
        writer
            .xor_address(Attribute::XOR_PEER_ADDRESS, address(PEER))
            .xor_address(Attribute::XOR_PEER_ADDRESS, address("52.9.9.9:1"))
            .bytes(Attribute::DATA, b"first")
            .bytes(Attribute::DATA, b"second");
    });
    let (_, peer, body) = turn.forwarded(ann.client, &bytes);
    assert_eq!((peer, &body[..]), (address(PEER), &b"first"[..]));
    // A name in front of the right one is the name.
    let answer = ann.ask(&mut turn, Method::REFRESH, |writer| {
        writer.bytes(Attribute::USERNAME, b"bob");
    });
    assert_eq!(answer.code(), 401);
    let answer = ann.ask(&mut turn, Method::REFRESH, |writer| {
        writer
            .u32(Attribute::LIFETIME, 900)
            .u32(Attribute::LIFETIME, 0);
    });
    assert_eq!(answer.lifetime(), 900);
}

#[test]
fn a41_of_all_types_of_message_only_known_requests_are_answered() {
    let mut turn = Turn::with(|settings| settings.limits.unauthenticated_replies = 0);
    let mut answered = Vec::new();
    for kind in 0..1u16 << 14 {
        let mut bytes = request(turn.id(), Method::ALLOCATE, |writer| {
            writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        });
        bytes[..2].copy_from_slice(&kind.to_be_bytes());
        let (verdict, _) = turn.input(udp("198.51.100.1:1"), &bytes);
        if let Verdict::Reply(_) = verdict {
            answered.push(kind);
        }
    }
    assert_eq!(answered, [0x0001, 0x0003, 0x0004, 0x0008, 0x0009]);
}

#[test]
fn a41_rfc_3489_and_a_wrong_fingerprint_are_not_answered() {
    let mut turn = Turn::new();
    let mut bytes = request(turn.id(), Method::BINDING, |writer| {
        writer.fingerprint();
    });
    *bytes.last_mut().unwrap() ^= 0x80;
    assert_eq!(turn.silent(ann().client, &bytes), Cause::Malformed);
    let mut bytes = request(turn.id(), Method::BINDING, |_| {});
    bytes[4..8].copy_from_slice(&[1, 2, 3, 4]);
    assert_eq!(turn.silent(ann().client, &bytes), Cause::Malformed);
}

/// A42: the same question gets the same bytes, whatever was done before with the buffer and the machine.
#[test]
fn a42_no_byte_of_earlier_traffic_is_disclosed() {
    let mut clean = Turn::new();
    let mut dirty = Turn::new();
    dirty.now = clean.now;
    let marker = b"secret-marker-secret-marker";
    let mut other = User::new("bob", "bob-pw", udp("198.51.100.1:7"));
    other.name = marker.repeat(18);
    other.allocate(&mut dirty);

    let mut outputs = Vec::new();
    for (turn, poison) in [(&mut clean, 0x00), (&mut dirty, 0xA5)] {
        turn.server = fresh_server(turn);
        let mut ann = ann();
        let id = TransactionId([1; 12]);
        let mut reply = vec![poison; 4096];
        let mut ask = |turn: &mut Turn, bytes: &[u8]| {
            // The memory behind the end is dirty.
            reply.clear();
            let Turn {
                server,
                relays,
                now,
                ..
            } = turn;
            server.client_input(*now, ann.client, bytes, relays, &mut reply);
            assert!(!reply.windows(6).any(|window| window == b"secret"));
            let answer = reply.clone();
            reply.fill(poison);
            answer
        };
        let challenge = ask(
            turn,
            &request(id, Method::ALLOCATE, |writer| {
                writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
            }),
        );
        ann.nonce = turnd::stun::Message::parse(&challenge)
            .unwrap()
            .nonce()
            .unwrap()
            .unwrap()
            .to_vec();
        let ask = |turn: &mut Turn, bytes: &[u8]| {
            let mut reply = vec![poison; 4096];
            reply.clear();
            let Turn {
                server,
                relays,
                now,
                ..
            } = turn;
            server.client_input(*now, ann.client, bytes, relays, &mut reply);
            reply
        };
        let allocate = ann.signed(id, Method::ALLOCATE, |writer| {
            writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        });
        let allocated = ask(turn, &allocate);
        let bound = ask(
            turn,
            &ann.signed(id, Method::CHANNEL_BIND, |writer| {
                writer
                    .u16(Attribute::CHANNEL_NUMBER, 0x4000)
                    .xor_address(Attribute::XOR_PEER_ADDRESS, address(PEER));
            }),
        );
        let heads: Vec<_> = ["52.1.2.3:9", PEER]
            .iter()
            .map(|peer| turn.peer_sends(RelayId(0), peer, b"abc").unwrap())
            .collect();
        outputs.push((challenge, allocated, bound, heads));
    }
    assert_eq!(outputs[0], outputs[1]);
}

// A50, A51: other people's data

#[test]
fn a50_another_port_of_a_permitted_peer_is_never_on_its_channel() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    ann.bind(&mut turn, 0x4000, PEER);
    for port in (1..=65_535u16).filter(|&port| port != 4000).step_by(97) {
        let peer = format!("52.1.2.3:{port}");
        let heard = turn.peer_sends(relay, &peer, b"x").unwrap();
        assert_eq!(data_indication(&heard).0, address(&peer));
    }
    let spoofed = turn.peer_sends(relay, "52.1.2.4:4000", b"x");
    assert_eq!(spoofed, Err(Cause::NoPermission));
}

#[test]
fn a51_another_users_allocation_cannot_be_touched() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    ann.bind(&mut turn, 0x4000, PEER);
    let mut bob = bob().at(ann.client);
    assert_eq!(bob.refresh(&mut turn, Some(0)).code(), 441);
    assert_eq!(bob.bind(&mut turn, 0x4001, "52.9.9.9:1"), 441);
    assert_eq!(bob.permit(&mut turn, &["52.9.9.9:1"]), 441);
    assert_eq!(ann.channel(&mut turn, 0x4000, PEER, b"x"), Ok(()));
    let dropped = turn.peer_sends(relay, "52.9.9.9:1", b"x");
    assert_eq!(dropped, Err(Cause::NoPermission));
    // The channels of one client are not those of another.
    let mut other = bob.at(udp("198.51.100.2:1"));
    other.relay(&mut turn);
    let dropped = other.channel(&mut turn, 0x4000, PEER, b"x");
    assert_eq!(dropped, Err(Cause::NoChannel));
}

// F04, F14, F15: faults

#[test]
fn f04_peers_that_a_reload_denies_are_cut_off_and_nobody_else() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    ann.bind(&mut turn, 0x4000, PEER);
    ann.bind(&mut turn, 0x4001, "53.0.0.1:1");
    ann.permit(&mut turn, &["52.1.2.9:1", "53.0.0.2:1"]);

    turn.reload(|settings| settings.peers = peers(&[], &["52.1.2.0/24"]));

    let dropped = ann.channel(&mut turn, 0x4000, PEER, b"x");
    assert_eq!(dropped, Err(Cause::NoChannel));
    for peer in [PEER, "52.1.2.9:1"] {
        assert_eq!(ann.send(&mut turn, peer, b"x"), Err(Cause::NoPermission));
        let dropped = turn.peer_sends(relay, peer, b"x");
        assert_eq!(dropped, Err(Cause::NoPermission));
        assert_eq!(ann.permit(&mut turn, &[peer]), 403);
    }
    assert_eq!(ann.channel(&mut turn, 0x4001, "53.0.0.1:1", b"x"), Ok(()));
    assert_eq!(ann.send(&mut turn, "53.0.0.2:1", b"x"), Ok(()));
    assert!(turn.peer_sends(relay, "53.0.0.2:1", b"x").is_ok());
}

#[test]
fn f04_a_prefix_that_is_no_longer_allowed_is_closed_but_not_relays_in_it() {
    let allow = |prefixes: &[&str]| {
        let peers = peers(prefixes, &[]);
        move |settings: &mut turnd::turn::Settings| settings.peers = peers
    };
    let mut turn = Turn::with(allow(&["10.0.0.0/8"]));
    turn.relays.addresses[0] = "192.168.0.5".parse().unwrap();
    let (mut ann, mut bob) = (ann(), bob());
    ann.relay(&mut turn);
    let his = bob.allocate(&mut turn).relayed().to_string();
    assert_eq!(ann.permit(&mut turn, &["10.0.0.1:1", &his]), 0);
    turn.reload(allow(&[]));
    let dropped = ann.send(&mut turn, "10.0.0.1:1", b"x");
    assert_eq!(dropped, Err(Cause::NoPermission));
    assert_eq!(ann.send(&mut turn, &his, b"x"), Ok(()));
}

#[test]
fn f14_a_jump_of_the_wall_clock_moves_no_lifetime() {
    const DECADE: u64 = 10 * 365 * 86_400;
    for jump in [3600i64, -3600, DECADE as i64, -(DECADE as i64)] {
        let mut turn = Turn::new();
        let mut ann = ann();
        let mut cyd = vouched("cyd", UNIX + 1000, udp("198.51.100.3:1"));
        ann.relay(&mut turn);
        cyd.relay(&mut turn);
        ann.bind(&mut turn, 0x4000, PEER);
        turn.now.unix = turn.now.unix.saturating_add_signed(jump);
        turn.wait(seconds(299));
        assert_eq!(ann.channel(&mut turn, 0x4000, PEER, b"x"), Ok(()));
        assert_eq!(ann.send(&mut turn, "52.1.2.3:9", b"x"), Ok(()));
        assert_eq!(ann.refresh(&mut turn, None).code(), 0, "the nonce is good");
        turn.wait(seconds(301));
        assert_eq!(turn.server.census(turn.now).allocations[0][0], 1);
        // Credentials are judged by the new time.
        let code = if jump > 0 { 401 } else { 0 };
        let mut again = cyd.at(udp("198.51.100.3:2"));
        assert_eq!(again.allocate(&mut turn).code(), code);
    }
}

#[test]
fn f15_calls_live_on_where_32_bits_of_time_end() {
    for end in [1u64 << 31, 1 << 32] {
        let mut turn = Turn::new();
        turn.now.unix = end - 60;
        turn.server = fresh_server(&turn);
        let mut ann = ann();
        let mut cyd = vouched("cyd", end + 300, udp("198.51.100.3:1"));
        ann.relay(&mut turn);
        cyd.relay(&mut turn);
        for _ in 0..4 {
            turn.wait(seconds(60));
            assert_eq!(ann.refresh(&mut turn, None).code(), 0);
            assert_eq!(cyd.refresh(&mut turn, None).code(), 0);
            assert_eq!(ann.permit(&mut turn, &[PEER]), 0);
        }
        turn.wait(seconds(200));
        assert_eq!(cyd.refresh(&mut turn, None).code(), 401);
    }
}

fn fresh_server(turn: &Turn) -> turnd::turn::Server {
    turnd::turn::Server::new(
        std::sync::Arc::new(settings()),
        std::sync::Arc::clone(&turn.quotas),
        [3; 32],
        turn.now,
    )
}

#[derive(Debug)]
struct Flood {
    bytes_in: usize,
    bytes_out: usize,
}

/// 100 000 Binding requests in ten seconds, from wherever `source` says.
fn flood(turn: &mut Turn, source: impl Fn(usize) -> String) -> Flood {
    let mut flood = Flood {
        bytes_in: 0,
        bytes_out: 0,
    };
    let bytes = request(turn.id(), Method::BINDING, |_| {});
    let clients: Vec<Client> = (0..500).map(|n| udp(&source(n))).collect();
    for n in 0..100_000 {
        flood.bytes_in += bytes.len();
        flood.bytes_out += turn.input(clients[n % clients.len()], &bytes).1.len();
        turn.pass(std::time::Duration::from_micros(100));
    }
    flood
}

const SPECIAL: &[&str] = &[
    // A01: loopback and this host
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0.0.0.1",
    "::1",
    "::",
    // A02: IPv4 in IPv6
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:52.1.2.3",
    "::127.0.0.1",
    "::52.1.2.3",
    "64:ff9b::10.0.0.1",
    "64:ff9b::52.1.2.3",
    "64:ff9b:1::10.0.0.1",
    "64:ff9b:1:ffff::1",
    "::ffff:0:127.0.0.1",
    "::ffff:0:52.1.2.3",
    "2002:7f00:1::1",
    "2002:3401:203::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2600:1::5efe:10.0.0.1",
    "2600:1::200:5efe:127.0.0.1",
    // A03: private, shared, link-local, documentation, benchmarking, metadata
    "10.0.0.1",
    "10.255.255.255",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "192.168.255.255",
    "100.64.0.1",
    "100.127.255.255",
    "100.100.100.200",
    "169.254.0.1",
    "169.254.169.254",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "198.51.100.1",
    "203.0.113.99",
    "198.18.0.1",
    "198.19.255.255",
    "192.31.196.1",
    "192.52.193.1",
    "192.175.48.1",
    "168.63.129.16",
    "fc00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "febf::1",
    "fec0::1",
    "2001:db8::1",
    "3fff::1",
    "3fff:fff::1",
    "100::1",
    "5f00::1",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:1ff:ffff::1",
    "2620:4f:8000::1",
    "4000::1",
    "1fff::1",
    // A05: multicast and broadcast
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "ff02::1",
    "ff0e::1",
    // A08: tunnels
    "192.88.99.1",
    "2001::1",
    "2002::1",
    // A06: our own addresses
    "203.0.113.1",
    "2001:db8:1::1",
];

const PUBLIC: &[&str] = &[
    "1.1.1.1",
    "52.1.2.3",
    "168.63.129.15",
    "168.63.129.17",
    "172.15.255.255",
    "172.32.0.1",
    "100.63.255.255",
    "100.128.0.1",
    "223.255.255.255",
    "2600:1::1",
    "2001:200::1",
    "2003::1",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "3ffe:ffff::1",
    "3fff:1000::1",
    "2600:1::5efe:52.1.2.3",
];

fn encodings(v4: Ipv4Addr) -> [Ipv6Addr; 10] {
    let bits = u128::from(v4.to_bits());
    let prefix = |text: &str| text.parse::<Ipv6Addr>().unwrap().to_bits();
    [
        prefix("::ffff:0:0") | bits,
        bits,
        prefix("::ffff:0:0:0") | bits,
        prefix("64:ff9b::") | bits,
        prefix("64:ff9b:1::") | bits,
        prefix("2002::") | bits << 80,
        prefix("2001::") | !bits & 0xFFFF_FFFF,
        prefix("2600:1::5efe:0:0") | bits,
        prefix("2600:1::200:5efe:0:0") | bits,
        prefix("fe80::5efe:0:0") | bits,
    ]
    .map(Ipv6Addr::from_bits)
}

fn is_isatap(v6: Ipv6Addr) -> bool {
    let [.., high, low, _, _] = v6.segments();
    low == 0x5efe && (high == 0 || high == 0x200)
}

/// First and last address of each range that is not for peers.
fn denied_v4() -> Vec<(u32, u32)> {
    [
        ("0.0.0.0", "0.255.255.255"),
        ("10.0.0.0", "10.255.255.255"),
        ("100.64.0.0", "100.127.255.255"),
        ("127.0.0.0", "127.255.255.255"),
        ("168.63.129.16", "168.63.129.16"),
        ("169.254.0.0", "169.254.255.255"),
        ("172.16.0.0", "172.31.255.255"),
        ("192.0.0.0", "192.0.0.255"),
        ("192.0.2.0", "192.0.2.255"),
        ("192.31.196.0", "192.31.196.255"),
        ("192.52.193.0", "192.52.193.255"),
        ("192.88.99.0", "192.88.99.255"),
        ("192.168.0.0", "192.168.255.255"),
        ("192.175.48.0", "192.175.48.255"),
        ("198.18.0.0", "198.19.255.255"),
        ("198.51.100.0", "198.51.100.255"),
        ("203.0.113.0", "203.0.113.255"),
        ("224.0.0.0", "255.255.255.255"),
    ]
    .map(|(first, last)| {
        let bits = |text: &str| text.parse::<Ipv4Addr>().unwrap().to_bits();
        (bits(first), bits(last))
    })
    .to_vec()
}

fn denied_v6() -> Vec<(u128, u128)> {
    [
        ("::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2620:4f:8000::", "2620:4f:8000:ffff:ffff:ffff:ffff:ffff"),
        ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ]
    .map(|(first, last)| {
        let bits = |text: &str| text.parse::<Ipv6Addr>().unwrap().to_bits();
        (bits(first), bits(last))
    })
    .to_vec()
}

fn oracle_denies_v4(v4: Ipv4Addr) -> bool {
    denied_v4()
        .iter()
        .any(|&(first, last)| (first..=last).contains(&v4.to_bits()))
}

fn oracle_denies_v6(v6: Ipv6Addr) -> bool {
    let hidden = Ipv4Addr::from_bits(v6.to_bits() as u32);
    let isatap = matches!(v6.segments()[4] & 0xFCFF, 0) && v6.segments()[5] == 0x5EFE;
    isatap && oracle_denies_v4(hidden)
        || denied_v6()
            .iter()
            .any(|&(first, last)| (first..=last).contains(&v6.to_bits()))
}

/// Any address, or one at or beside an end of a range.
fn edge_or_any_v4() -> impl Strategy<Value = u32> {
    let ends: Vec<u32> = denied_v4()
        .into_iter()
        .flat_map(|(first, last)| [first.wrapping_sub(1), first, last, last.wrapping_add(1)])
        .collect();
    prop_oneof![any::<u32>(), prop::sample::select(ends)]
}

fn edge_or_any_v6() -> impl Strategy<Value = u128> {
    let ends: Vec<u128> = denied_v6()
        .into_iter()
        .flat_map(|(first, last)| [first.wrapping_sub(1), first, last, last.wrapping_add(1)])
        .collect();
    let global = any::<u128>().prop_map(|bits| bits >> 3 | 1 << 125);
    let isatap = (any::<u64>(), any::<u32>())
        .prop_map(|(net, v4)| u128::from(net >> 3 | 1 << 61) << 64 | 0x5EFE << 32 | u128::from(v4));
    prop_oneof![any::<u128>(), global, isatap, prop::sample::select(ends)]
}
