//! RFC 8489 at the border of the machine: one test for each statement, named by its number in the list of requirements
//! (S: messages, A: authentication, O: the order of checks of §9.2.4).

#![allow(clippy::unwrap_used)]

mod support;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use support::*;
use turnd::stun::{Attribute, Class, ErrorCode, Integrity, Key, Method, PasswordAlgorithm, Writer};
use turnd::turn::{Cause, ListenerAlgorithms, PasswordAlgorithms, Refusal, Settings, Transport};

const UNKNOWN_REQUIRED: Attribute = Attribute(0x7ABC);
const UNKNOWN_OPTIONAL: Attribute = Attribute(0x8ABC);

// S: messages

#[test]
fn s1_what_is_no_message_is_dropped() {
    let mut turn = Turn::new();
    let good = request(turn.id(), Method::BINDING, |_| {});
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    for (bytes, cause) in [
        (vec![], Cause::NotTurn),
        (with(0, 0x80), Cause::NotTurn),
        (with(0, 0x20), Cause::NotTurn),
        (with(3, 4), Cause::Malformed),
        (with(3, 1), Cause::Malformed),
        (with(4, 0x20), Cause::Malformed),
        (good[..19].to_vec(), Cause::Malformed),
        ([&good[..], &[0; 4]].concat(), Cause::Malformed),
    ] {
        assert_eq!(turn.silent(ann().client, &bytes), cause, "{bytes:02x?}");
    }
    assert_eq!(turn.answered(ann().client, &good).code(), 0);
}

#[test]
fn s4_what_stands_behind_the_integrity_does_not_count() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    let mut bytes = ann.signed(turn.id(), Method::CREATE_PERMISSION, |writer| {
        writer.xor_address(Attribute::XOR_PEER_ADDRESS, address(PEER));
    });
    append(&mut bytes, |writer| {
        writer.xor_address(Attribute::XOR_PEER_ADDRESS, address("52.9.9.9:1"));
    });

    assert_eq!(ann.ask_bytes(&mut turn, &bytes).code(), 0);

    assert_eq!(ann.send(&mut turn, PEER, b"x"), Ok(()));
    let other = ann.send(&mut turn, "52.9.9.9:1", b"x");
    assert_eq!(other, Err(Cause::NoPermission));
}

#[test]
fn s5_a_wrong_fingerprint_is_dropped_and_a_right_one_accepted() {
    let mut turn = Turn::new();
    let mut bytes = request(turn.id(), Method::BINDING, |writer| {
        writer.fingerprint();
    });
    assert_eq!(turn.answered(ann().client, &bytes).code(), 0);
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(turn.silent(ann().client, &bytes), Cause::Malformed);
}

#[test]
fn s5_a_fingerprint_behind_the_integrity_is_not_covered_by_it() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let answer = ann.allocate_with(&mut turn, |writer| {
        writer.fingerprint();
    });
    assert_eq!(answer.code(), 0);
}

#[test]
fn s6_truncated_sha256_integrity_is_refused() {
    let mut turn = Turn::with(|settings| {
        settings.password_algorithms = PasswordAlgorithms::Sha256AndMd5;
    });
    let mut ann = ann();
    ann.algorithm = Some(PasswordAlgorithm::Sha256);
    ann.greet(&mut turn);
    let whole = ann.signed(turn.id(), Method::ALLOCATE, |writer| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
    });
    let key = Sha256::digest(b"ann:turnd:ann-pw");
    for length in [16u8, 20, 28] {
        // Right but for being truncated: the HMAC counts the attribute as it is sent.
        let mut bytes = whole[..whole.len() - 36].to_vec();
        set_length(&mut bytes, 4 + usize::from(length));
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&key).unwrap();
        let value = mac.chain_update(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&[0, 0x1C, 0, length]);
        bytes.extend_from_slice(&value[..usize::from(length)]);
        assert_eq!(ann.ask_bytes(&mut turn, &bytes).code(), 401, "{length}");
    }
    assert_eq!(ann.ask_bytes(&mut turn, &whole).code(), 0);
}

#[test]
fn s10_software_is_told_to_users_only() {
    let mut turn = Turn::with(|settings| settings.software = Some("turnd 1.2".into()));
    let mut ann = ann();
    assert!(!ann.greet(&mut turn).has(Attribute::SOFTWARE));
    let allocated = ann.allocate(&mut turn);
    let software = allocated.message().software().unwrap().unwrap().to_vec();
    assert_eq!(software, b"turnd 1.2");
    assert!(ann.refresh(&mut turn, None).has(Attribute::SOFTWARE));
    let binding = request(turn.id(), Method::BINDING, |_| {});
    assert!(!turn.answered(ann.client, &binding).has(Attribute::SOFTWARE));

    let mut turn = Turn::new();
    assert!(
        !ann.at(ann.client)
            .allocate(&mut turn)
            .has(Attribute::SOFTWARE)
    );
}

#[test]
fn s11_binding_is_answered_to_anybody_on_every_transport() {
    let mut turn = Turn::new();
    for transport in Transport::ALL {
        for from in ["198.51.100.1:1000", "[2001:db8::1]:1000"] {
            let from = client(from, transport);
            let binding = request(turn.id(), Method::BINDING, |_| {});
            let answer = turn.answered(from, &binding);
            assert_eq!(answer.code(), 0);
            let mapped = answer.message().xor_mapped_address().unwrap().unwrap();
            assert_eq!(mapped, from.five_tuple.client);
            let attributes: Vec<_> = answer
                .message()
                .attributes()
                .map(|(kind, _)| kind)
                .collect();
            assert_eq!(attributes, [Attribute::XOR_MAPPED_ADDRESS]);
        }
    }
}

#[test]
fn s11_binding_with_credentials_is_answered_without_looking_at_them() {
    let mut turn = Turn::new();
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, Class::Request, Method::BINDING, turn.id());
    writer.bytes(Attribute::USERNAME, b"nobody");
    writer.finish_with_integrity(&Key::md5(b"a", b"b", b"c"), Integrity::Sha1);
    assert_eq!(turn.answered(ann().client, &bytes).code(), 0);
}

#[test]
fn s12_an_unknown_required_attribute_is_420_with_each_type_once() {
    let mut turn = Turn::new();
    let mut ann = ann();
    let answer = ann.allocate_with(&mut turn, |writer| {
        writer
            .bytes(UNKNOWN_REQUIRED, b"x")
            .bytes(Attribute(0x7ABD), b"")
            .bytes(UNKNOWN_REQUIRED, b"y");
    });
    assert_eq!(answer.code(), 420);
    let unknown: Vec<_> = answer.message().unknown_attributes().collect();
    assert_eq!(unknown, [UNKNOWN_REQUIRED, Attribute(0x7ABD)]);
    assert!(turn.relays.open.is_empty());

    let binding = request(turn.id(), Method::BINDING, |writer| {
        writer.bytes(UNKNOWN_REQUIRED, b"");
    });
    let answer = turn.answered(ann.client, &binding);
    assert_eq!(answer.code(), 420);
    let unknown: Vec<_> = answer.message().unknown_attributes().collect();
    assert_eq!(unknown, [UNKNOWN_REQUIRED]);
}

#[test]
fn s12_unknown_optional_and_known_unexpected_attributes_are_ignored() {
    let mut turn = Turn::new();
    let answer = ann().allocate_with(&mut turn, |writer| {
        writer
            .bytes(UNKNOWN_OPTIONAL, b"x")
            .bytes(Attribute(0xFF05), b"log")
            .u16(Attribute::CHANNEL_NUMBER, 0x4000)
            .bytes(Attribute::DATA, b"d");
    });
    assert_eq!(answer.code(), 0);
}

#[test]
fn s12_an_indication_with_an_unknown_required_attribute_is_dropped() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    ann.permit(&mut turn, &[PEER]);
    let bytes = message(turn.id(), Class::Indication, Method::SEND, |writer| {
        writer
            .xor_address(Attribute::XOR_PEER_ADDRESS, address(PEER))
            .bytes(Attribute::DATA, b"x")
            .bytes(UNKNOWN_REQUIRED, b"");
    });
    assert_eq!(turn.silent(ann.client, &bytes), Cause::BadIndication);
}

#[test]
fn s13_unknown_attributes_are_judged_after_authentication() {
    let mut turn = Turn::new();
    let bytes = request(turn.id(), Method::ALLOCATE, |writer| {
        writer
            .u8(Attribute::REQUESTED_TRANSPORT, 17)
            .bytes(UNKNOWN_REQUIRED, b"");
    });
    assert_eq!(turn.answered(ann().client, &bytes).code(), 401);

    let mut wrong = ann();
    wrong.password = b"wrong".to_vec();
    let answer = wrong.allocate_with(&mut turn, |writer| {
        writer.bytes(UNKNOWN_REQUIRED, b"");
    });
    assert_eq!(answer.code(), 401);
}

#[test]
fn s15_a_repeated_request_has_the_same_effect_and_answer() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.greet(&mut turn);
    let allocate = ann.signed(turn.id(), Method::ALLOCATE, |writer| {
        writer
            .u8(Attribute::REQUESTED_TRANSPORT, 17)
            .even_port(true);
    });
    let first = ann.ask_bytes(&mut turn, &allocate);
    turn.wait(seconds(39));
    let again = ann.ask_bytes(&mut turn, &allocate);

    assert_eq!((first.code(), again.code()), (0, 0));
    assert_eq!(first.relayed(), again.relayed());
    let token = |answer: &Answer| answer.message().reservation_token().unwrap().unwrap();
    assert_eq!(token(&first), token(&again));
    assert_eq!((first.lifetime(), again.lifetime()), (600, 561));
    assert_eq!(turn.relays.open.len(), 1);

    for put in [Method::CREATE_PERMISSION, Method::CHANNEL_BIND] {
        let bytes = ann.signed(turn.id(), put, |writer| {
            writer
                .u16(Attribute::CHANNEL_NUMBER, 0x4000)
                .xor_address(Attribute::XOR_PEER_ADDRESS, address(PEER));
        });
        assert_eq!(ann.ask_bytes(&mut turn, &bytes).code(), 0);
        assert_eq!(ann.ask_bytes(&mut turn, &bytes).code(), 0);
    }
    let census = turn.server.census(turn.now);
    assert_eq!((census.permissions, census.channels), (1, 1));
}

#[test]
fn s16_the_challenge_fits_a_safe_datagram() {
    let mut turn = Turn::with(|settings| {
        settings.password_algorithms = PasswordAlgorithms::Sha256AndMd5;
    });
    assert!(ann().greet(&mut turn).bytes.len() <= 548);
}

// O: the order of checks

#[test]
fn o1_without_integrity_is_401_with_realm_and_nonce() {
    let mut turn = Turn::new();
    let answer = ann().greet(&mut turn);
    assert_eq!(answer.told.refusal, Some(Refusal::NoIntegrity));
    let attributes: Vec<_> = answer
        .message()
        .attributes()
        .map(|(kind, _)| kind)
        .collect();
    let expected = [Attribute::ERROR_CODE, Attribute::REALM, Attribute::NONCE];
    assert_eq!(attributes, expected);
    assert_eq!(answer.message().realm(), Some(Ok(&b"turnd"[..])));
}

#[test]
fn o2_integrity_without_what_belongs_to_it_is_400_without_anything() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.greet(&mut turn);
    let credentials: [(Attribute, Vec<u8>); 3] = [
        (Attribute::USERNAME, ann.name.clone()),
        (Attribute::REALM, b"turnd".to_vec()),
        (Attribute::NONCE, ann.nonce.clone()),
    ];
    for missing in 0..3 {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, Class::Request, Method::ALLOCATE, turn.id());
        writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        for (place, (kind, value)) in credentials.iter().enumerate() {
            if place != missing {
                writer.bytes(*kind, value);
            }
        }
        writer.finish_with_integrity(&ann.key(), Integrity::Sha1);
        let answer = turn.answered(ann.client, &bytes);
        assert_eq!(answer.code(), 400);
        assert_eq!(answer.told.refusal, Some(Refusal::Incomplete));
        let attributes: Vec<_> = answer
            .message()
            .attributes()
            .map(|(kind, _)| kind)
            .collect();
        assert_eq!(attributes, [Attribute::ERROR_CODE]);
    }
}

#[test]
fn o3_the_algorithms_must_be_those_that_were_offered() {
    let mut turn = Turn::with(|settings| {
        settings.password_algorithms = PasswordAlgorithms::Sha256AndMd5;
    });
    let mut ann = ann();
    ann.greet(&mut turn);
    let (sha256, md5) = (PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5);
    let list = PasswordAlgorithm::list;
    let shake = [0, 9, 0, 0];
    type Value = Option<Vec<u8>>;
    let cases: [(Value, Value, u16); 9] = [
        (None, None, 0),
        (Some(list(&[sha256, md5])), Some(md5.entry().to_vec()), 0),
        (Some(list(&[sha256, md5])), None, 400),
        (None, Some(md5.entry().to_vec()), 400),
        (Some(list(&[md5])), Some(md5.entry().to_vec()), 400),
        (Some(list(&[md5, sha256])), Some(md5.entry().to_vec()), 400),
        (Some(vec![]), Some(md5.entry().to_vec()), 400),
        (Some(list(&[sha256, md5])), Some(shake.to_vec()), 400),
        (Some(list(&[sha256, md5])), Some(vec![0, 1]), 400),
    ];
    for (port, (list, choice, expected)) in cases.into_iter().enumerate() {
        let from = udp(&format!("198.51.100.1:{}", 3000 + port));
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, Class::Request, Method::ALLOCATE, turn.id());
        writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        ann.put_credentials(&mut writer);
        if let Some(list) = &list {
            writer.bytes(Attribute::PASSWORD_ALGORITHMS, list);
        }
        if let Some(choice) = &choice {
            writer.bytes(Attribute::PASSWORD_ALGORITHM, choice);
        }
        writer.finish_with_integrity(&ann.key(), Integrity::Sha1);
        let answer = turn.answered(from, &bytes);
        assert_eq!(answer.code(), expected, "{list:?} {choice:?}");
        if expected == 400 {
            assert_eq!(answer.told.refusal, Some(Refusal::Algorithm));
            assert!(!answer.has(Attribute::NONCE) && !answer.has(Attribute::REALM));
        }
    }
}

#[test]
fn o4_an_unknown_user_is_401_with_a_nonce() {
    let mut turn = Turn::new();
    let mut eve = User::new("eve", "eve-pw", udp("198.51.100.9:1"));
    let answer = eve.allocate(&mut turn);
    assert_eq!(answer.code(), 401);
    assert_eq!(answer.told.refusal, Some(Refusal::UnknownUser));
    assert!(answer.has(Attribute::REALM) && answer.has(Attribute::NONCE));
    assert!(!answer.has(Attribute::USERNAME));
}

#[test]
fn o5_wrong_integrity_is_401_and_not_signed() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.password = b"other".to_vec();
    let answer = ann.allocate(&mut turn);
    assert_eq!(answer.code(), 401);
    assert_eq!(answer.told.refusal, Some(Refusal::Integrity));
    assert!(answer.has(Attribute::REALM) && answer.has(Attribute::NONCE));
    assert!(!answer.told.authenticated);
}

#[test]
fn o6_a_stale_nonce_is_438_with_a_good_one() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    ann.refresh(&mut turn, Some(3600));
    turn.wait(seconds(3500));
    assert_eq!(ann.refresh(&mut turn, Some(3600)).code(), 0);
    turn.wait(seconds(101));

    let answer = ann.refresh(&mut turn, None);
    assert_eq!(answer.code(), 438);
    assert_eq!(answer.told.refusal, Some(Refusal::StaleNonce));
    assert!(answer.has(Attribute::REALM));
    ann.nonce = answer.nonce();
    assert_eq!(ann.refresh(&mut turn, None).code(), 0);
}

#[test]
fn o6_a_wrong_password_with_a_stale_nonce_is_401() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.greet(&mut turn);
    turn.wait(seconds(3 * 3600));
    let mut wrong = ann.clone();
    wrong.password = b"other".to_vec();
    assert_eq!(wrong.allocate(&mut turn).code(), 401);
    assert_eq!(ann.allocate(&mut turn).code(), 438);
}

#[test]
fn o7_the_methods_own_checks_come_last() {
    let mut turn = Turn::new();
    let mut ann = ann();
    // Both unknown attributes and no allocation: 420 wins over 437.
    let answer = ann.ask(&mut turn, Method::REFRESH, |writer| {
        writer.bytes(UNKNOWN_REQUIRED, b"");
    });
    assert_eq!(answer.code(), 420);
    assert_eq!(ann.refresh(&mut turn, None).code(), 437);
}

// A: authentication

#[test]
fn a1_answers_are_signed_as_the_request_was_processed() {
    let mut turn = Turn::with(|settings| {
        settings.password_algorithms = PasswordAlgorithms::Sha256AndMd5;
    });
    // `ask` checks the signature: SHA-256 exactly for the last two.
    for (port, algorithm) in [
        (1, None),
        (2, Some(PasswordAlgorithm::Md5)),
        (3, Some(PasswordAlgorithm::Sha256)),
    ] {
        let mut ann = ann().at(udp(&format!("198.51.100.1:{port}")));
        ann.algorithm = algorithm;
        assert_eq!(ann.allocate(&mut turn).code(), 0);
        assert_eq!(ann.permit(&mut turn, &[PEER]), 0);
        assert_eq!(ann.bind(&mut turn, 0x3FFF, PEER), 400);
    }
}

#[test]
fn a2_a_nonce_is_never_issued_twice_and_is_good_for_every_port_of_its_address() {
    let mut turn = Turn::new();
    let mut first = ann();
    let mut second = ann().at(udp("198.51.100.1:1001"));
    first.greet(&mut turn);
    second.greet(&mut turn);
    assert_ne!(first.nonce, second.nonce);
    second.nonce = first.nonce;
    assert_eq!(second.allocate(&mut turn).code(), 0);
}

#[test]
fn a3_the_cookie_goes_with_the_list_of_algorithms() {
    let mut plain = Turn::new();
    let answer = ann().greet(&mut plain);
    assert!(!answer.has(Attribute::PASSWORD_ALGORITHMS));
    assert!(!answer.nonce().starts_with(b"obMatJos2"));

    let mut both = Turn::with(|settings| {
        settings.password_algorithms = PasswordAlgorithms::Sha256AndMd5;
    });
    let answer = ann().greet(&mut both);
    let list = answer.message().password_algorithms().unwrap().to_vec();
    assert_eq!(list, [0, 2, 0, 0, 0, 1, 0, 0]);
    let nonce = answer.nonce();
    assert_eq!(&nonce[..13], b"obMatJos2gAAB");
}

#[test]
fn a3_what_counts_is_what_was_offered_with_the_nonce() {
    let mut turn = Turn::with(|settings| {
        settings.password_algorithms = PasswordAlgorithms::Sha256AndMd5;
    });
    let mut ann = ann();
    ann.algorithm = Some(PasswordAlgorithm::Sha256);
    ann.greet(&mut turn);
    turn.reload(|_| {});
    assert_eq!(ann.allocate(&mut turn).code(), 0);

    // Nothing is offered any more: an algorithm that is named all the same is ignored, and its key is wrong.
    let mut other = ann.at(udp("198.51.100.1:1002"));
    assert_eq!(other.allocate(&mut turn).code(), 401);
}

#[test]
fn a3_each_listener_offers_what_it_is_told() {
    let mut turn = Turn::with(offers_by_transport);
    let both = [0, 2, 0, 0, 0, 1, 0, 0];
    for (transport, list, cookie) in [
        (Transport::Udp, None, &b""[..]),
        (Transport::Tcp, Some(&both[..]), b"obMatJos2gAAB"),
        (Transport::Tls, Some(&both[..4]), b"obMatJos2gAAB"),
    ] {
        let answer = at(transport).greet(&mut turn);
        assert_eq!(
            answer.message().password_algorithms(),
            list,
            "{transport:?}"
        );
        assert!(answer.nonce().starts_with(cookie));
        assert_eq!(answer.nonce().starts_with(b"obMatJos2"), list.is_some());
    }
}

/// Who takes no notice of the list is processed as though it had chosen MD5, which is not in it.
#[test]
fn o3_where_sha256_is_required_nothing_else_is_accepted() {
    let mut turn = Turn::with(offers_by_transport);
    let mut ann = at(Transport::Tls);
    ann.greet(&mut turn);
    let key = |choice| match choice {
        Some(PasswordAlgorithm::Sha256) => Key::sha256(b"ann", b"turnd", b"ann-pw"),
        Some(PasswordAlgorithm::Md5) | None => Key::md5(b"ann", b"turnd", b"ann-pw"),
    };
    let (sha256, md5) = (PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5);
    let list = PasswordAlgorithm::list;
    let cases = [
        (None, None, Integrity::Sha1, 400),
        (None, None, Integrity::Sha256, 400),
        (Some(list(&[sha256])), Some(md5), Integrity::Sha256, 400),
        (
            Some(list(&[sha256, md5])),
            Some(md5),
            Integrity::Sha256,
            400,
        ),
        (
            Some(list(&[sha256, md5])),
            Some(sha256),
            Integrity::Sha256,
            400,
        ),
        (Some(list(&[sha256])), Some(sha256), Integrity::Sha1, 400),
        (Some(list(&[sha256])), Some(sha256), Integrity::Sha256, 0),
    ];
    for (list, choice, integrity, expected) in cases {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, Class::Request, Method::ALLOCATE, turn.id());
        writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        ann.put_credentials(&mut writer);
        if let Some(list) = &list {
            writer.bytes(Attribute::PASSWORD_ALGORITHMS, list);
        }
        if let Some(choice) = choice {
            writer.password_algorithm(choice);
        }
        writer.finish_with_integrity(&key(choice), integrity);
        let answer = turn.answered(ann.client, &bytes);
        assert_eq!(answer.code(), expected, "{list:?} {choice:?} {integrity:?}");
        let refused = (expected == 400).then_some(Refusal::Algorithm);
        assert_eq!(answer.told.refusal, refused);
        assert_eq!(turn.server.is_empty(), expected != 0);
        if expected == 0 {
            assert!(answer.message().has_sha256_integrity());
            assert!(answer.message().verify(&key(choice)));
        }
    }
}

/// A nonce from a listener that offers less is no way around one that offers more: neither to what is not allowed there,
/// nor to what is, for a client that would have chosen better had it been told \[A21\].
#[test]
fn a21_a_nonce_from_elsewhere_does_not_lower_what_is_required() {
    let mut turn = Turn::with(offers_by_transport);
    let both = [0, 2, 0, 0, 0, 1, 0, 0];
    for (weaker, stronger, offered) in [
        (Transport::Udp, Transport::Tls, &both[..4]),
        (Transport::Tcp, Transport::Tls, &both[..4]),
        (Transport::Udp, Transport::Tcp, &both),
    ] {
        for algorithm in [
            None,
            Some(PasswordAlgorithm::Md5),
            Some(PasswordAlgorithm::Sha256),
        ] {
            let mut elsewhere = at(weaker);
            elsewhere.greet(&mut turn);
            let mut ann = at(stronger);
            ann.algorithm = algorithm;
            ann.nonce = elsewhere.nonce;
            let answer = ann.allocate(&mut turn);
            assert_eq!(answer.code(), 438, "{weaker:?} {stronger:?} {algorithm:?}");
            let list = answer.message().password_algorithms();
            assert_eq!(list, Some(offered));
        }
    }
    assert!(turn.server.is_empty());
    // The other way, too, what counts is what was offered with the nonce.
    let mut strict = at(Transport::Tls);
    strict.greet(&mut turn);
    let mut ann = at(Transport::Udp);
    ann.nonce = strict.nonce;
    assert_eq!(ann.allocate(&mut turn).code(), 400);
    ann.nonce = Vec::new();
    assert_eq!(ann.allocate(&mut turn).code(), 0);
}

#[test]
fn a4_the_anonymity_bit_is_set_when_asked_for_only() {
    for (algorithms, cookie) in [
        (PasswordAlgorithms::Md5, b"obMatJos2QAAC"),
        (PasswordAlgorithms::Sha256AndMd5, b"obMatJos2wAAD"),
    ] {
        let mut turn = Turn::with(|settings| {
            settings.password_algorithms = algorithms;
            settings.username_anonymity = true;
        });
        let mut ann = ann();
        let answer = ann.greet(&mut turn);
        assert_eq!(&answer.nonce()[..13], cookie);
        assert_eq!(
            answer.has(Attribute::PASSWORD_ALGORITHMS),
            algorithms != PasswordAlgorithms::Md5
        );
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, Class::Request, Method::ALLOCATE, turn.id());
        writer
            .u8(Attribute::REQUESTED_TRANSPORT, 17)
            .bytes(
                Attribute::USERHASH,
                &turnd::stun::userhash(b"ann", b"turnd"),
            )
            .bytes(Attribute::REALM, b"turnd")
            .bytes(Attribute::NONCE, &ann.nonce);
        writer.finish_with_integrity(&ann.key(), Integrity::Sha1);
        let answer = ann.ask_bytes(&mut turn, &bytes);
        assert_eq!(answer.code(), 0);
        // Answers name nobody, and a client that does not know of hashes is served by its name.
        assert!(!answer.has(Attribute::USERNAME) && !answer.has(Attribute::USERHASH));
        assert_eq!(ann.refresh(&mut turn, None).code(), 0);
    }
}

/// Who could have a nonce without the bit accepted could have names sent in the clear \[A21\].
#[test]
fn a21_a_nonce_from_before_the_anonymity_is_stale() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    turn.reload(|settings| settings.username_anonymity = true);
    let answer = ann.refresh(&mut turn, None);
    assert_eq!(answer.code(), 438);
    assert!(answer.nonce().starts_with(b"obMatJos2QAAC"));
    ann.nonce = answer.nonce();
    assert_eq!(ann.refresh(&mut turn, None).code(), 0);
}

#[test]
fn a4_a_userhash_stands_for_a_user_with_a_password() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.greet(&mut turn);
    let with_hash = |turn: &mut Turn, hash: &[u8; 32], method: Method| {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, Class::Request, method, turn.id());
        writer
            .u8(Attribute::REQUESTED_TRANSPORT, 17)
            .bytes(Attribute::USERHASH, hash)
            .bytes(Attribute::REALM, b"turnd")
            .bytes(Attribute::NONCE, &ann.nonce);
        writer.finish_with_integrity(&ann.key(), Integrity::Sha1);
        ann.ask_bytes(turn, &bytes)
    };
    let hash = turnd::stun::userhash(b"ann", b"turnd");
    assert_eq!(with_hash(&mut turn, &hash, Method::ALLOCATE).code(), 0);
    assert_eq!(with_hash(&mut turn, &hash, Method::REFRESH).code(), 0);
    // It is the same user, whichever way it is named.
    assert_eq!(ann.clone().refresh(&mut turn, None).code(), 0);
    let nobody = with_hash(&mut turn, &[7; 32], Method::REFRESH);
    assert_eq!(nobody.told.refusal, Some(Refusal::UnknownUser));
}

#[test]
fn a5_keys_are_made_of_the_bytes_as_they_are() {
    let mut turn = Turn::with(|settings| {
        settings
            .users
            .add_user("j\u{fc}rgen", "p\u{e4}ss:w\u{f6}rd");
    });
    let client = udp("198.51.100.1:1");
    let mut user = User::new("j\u{fc}rgen", "p\u{e4}ss:w\u{f6}rd", client);
    assert_eq!(user.allocate(&mut turn).code(), 0);
}

#[test]
fn a7_an_unknown_user_is_told_what_a_wrong_password_is_told() {
    let mut turn = Turn::new();
    let mut wrong = ann();
    wrong.password = b"x".to_vec();
    let mut eve = User::new("eve", "x", wrong.client);
    let (wrong, eve) = (wrong.allocate(&mut turn), eve.allocate(&mut turn));
    assert_eq!((wrong.code(), eve.code()), (401, 401));
    assert_eq!(wrong.bytes.len(), eve.bytes.len());
    // All but the transaction id is the same, for the same client at the same time.
    assert_eq!(wrong.bytes[20..], eve.bytes[20..]);
}

#[test]
fn a8_a_nonce_is_good_for_an_hour_and_for_an_allocate_a_second_one() {
    for (age, allocates) in [(3600, true), (7200, true), (7201, false)] {
        let mut turn = Turn::new();
        let mut ann = ann();
        ann.greet(&mut turn);
        turn.wait(seconds(age));
        let expected = if allocates { 0 } else { 438 };
        assert_eq!(ann.allocate(&mut turn).code(), expected, "{age}");
        let expected = if age <= 3600 { 0 } else { 438 };
        assert_eq!(ann.refresh(&mut turn, None).code(), expected, "{age}");
    }
}

#[test]
fn a8_a_challenge_is_never_followed_by_a_stale_nonce() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.relay(&mut turn);
    for minute in 0..300 {
        let answer = ann.refresh(&mut turn, Some(3600));
        if answer.code() != 0 {
            assert_eq!(answer.code(), 438, "minute {minute}");
            ann.nonce = answer.nonce();
            assert_eq!(ann.refresh(&mut turn, Some(3600)).code(), 0);
        }
        turn.wait(seconds(60));
    }
}

#[test]
fn a8_a_nonce_outlives_a_change_of_keys_and_a_restart() {
    let mut turn = Turn::new();
    let mut ann = ann();
    ann.greet(&mut turn);
    turn.reload(|settings| {
        settings.nonce_keys.accepted = vec![settings.nonce_keys.issuing.clone()];
        settings.nonce_keys.issuing = turnd::turn::NonceKey([8; 32]);
    });
    assert_eq!(ann.allocate(&mut turn).code(), 0);

    let mut restarted = Turn::new();
    assert_eq!(ann.allocate(&mut restarted).code(), 0);
}

#[test]
fn a8_a_nonce_of_another_server_may_be_a_minute_ahead() {
    for (ahead, code) in [(60, 0), (61, 438)] {
        let mut turn = Turn::new();
        let mut ann = ann();
        let mut other = Turn::new();
        other.wait(seconds(ahead));
        ann.greet(&mut other);
        assert_eq!(ann.allocate(&mut turn).code(), code, "{ahead}");
    }
}

#[test]
fn a10_a_challenge_is_short() {
    let mut turn = Turn::new();
    let question = request(turn.id(), Method::ALLOCATE, |writer| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
    });
    let answer = turn.answered(ann().client, &question);
    assert_eq!((question.len(), answer.bytes.len()), (28, 64));
    let (code, reason) = answer.message().error_code().unwrap().unwrap();
    assert_eq!((code, reason), (ErrorCode::UNAUTHENTICATED, ""));
}

// Credentials that a shared secret vouches for

#[test]
fn a_vouched_user_is_accepted_until_a_minute_after_the_expiry() {
    for (expiry, code) in [(UNIX + 3600, 0), (UNIX - 59, 0), (UNIX - 60, 401), (0, 401)] {
        let mut turn = Turn::new();
        let mut user = vouched("cyd", expiry, udp("198.51.100.3:1"));
        let answer = user.allocate(&mut turn);
        assert_eq!(answer.code(), code, "{expiry}");
        let refusal = (code == 401).then_some(Refusal::Expired);
        assert_eq!(answer.told.refusal, refusal);
    }
}

#[test]
fn every_secret_vouches_with_its_own_algorithm() {
    use turnd::turn::{SecretAlgorithm, SharedSecret};
    let secrets = [
        SharedSecret::new("a", b"alpha", SecretAlgorithm::Sha1),
        SharedSecret::new("b", b"beta", SecretAlgorithm::Sha256),
        SharedSecret::new("c", b"gamma", SecretAlgorithm::Sha1),
    ];
    let mut turn = Turn::with(|settings| {
        for secret in &secrets {
            settings.users.add_secret(secret.clone()).unwrap();
        }
        let fifth = SharedSecret::new("d", b"delta", SecretAlgorithm::Sha1);
        assert!(settings.users.add_secret(fifth).is_err());
    });
    let name = format!("{}:cyd", UNIX + 60);
    for (port, secret) in secrets.iter().enumerate() {
        let password = secret.password(name.as_bytes());
        let from = udp(&format!("198.51.100.3:{}", port + 1));
        let mut user = User::new(&name, &password, from);
        assert_eq!(user.allocate(&mut turn).code(), 0, "{}", secret.id());
        assert_eq!(user.permit(&mut turn, &[PEER]), 0);
    }
    let mut forger = User::new(&name, "guess", udp("198.51.100.3:9"));
    let answer = forger.allocate(&mut turn);
    assert_eq!(answer.told.refusal, Some(Refusal::Integrity));
}

/// An operator sees when the old one of two secrets is not used any more; one that has gone is not counted.
#[test]
fn what_each_secret_vouched_for_is_counted() {
    use turnd::turn::{SecretAlgorithm, SharedSecret, Users};
    let south = || SharedSecret::new("south", b"south", SecretAlgorithm::Sha1);
    let mut turn = Turn::with(|settings| settings.users.add_secret(south()).unwrap());
    let uses = |turn: &Turn| -> Vec<(String, u64)> {
        let uses = turn.server.secret_uses();
        uses.map(|(id, uses)| (id.to_owned(), uses)).collect()
    };
    let counted = |north, south| vec![("north".to_owned(), north), ("south".to_owned(), south)];
    let mut north = vouched("cyd", UNIX + 60, udp("198.51.100.3:1"));
    assert_eq!(north.allocate(&mut turn).code(), 0);
    assert_eq!(north.permit(&mut turn, &[PEER]), 0);
    assert_eq!(uses(&turn), counted(1, 0), "only Allocate counts");
    let name = format!("{}:dan", UNIX + 60);
    for port in 1..=3 {
        let from = udp(&format!("198.51.100.4:{port}"));
        let password = south().password(name.as_bytes());
        let mut user = User::new(&name, &password, from);
        assert_eq!(user.allocate(&mut turn).code(), 0);
    }
    User::new(&name, "guess", udp("198.51.100.5:1")).allocate(&mut turn);
    User::new("ann", "ann-pw", udp("198.51.100.6:1")).allocate(&mut turn);
    assert_eq!(uses(&turn), counted(1, 3));
    turn.reload(|settings| {
        let mut users = Users::new("turnd");
        users.add_secret(south()).unwrap();
        let other = SharedSecret::new("other", b"x", SecretAlgorithm::Sha1);
        users.add_secret(other).unwrap();
        settings.users = users;
    });
    let kept = [("south".to_owned(), 3), ("other".to_owned(), 0)];
    assert_eq!(uses(&turn), kept);
}

/// Nothing over UDP, both over TCP, SHA-256 alone over TLS.
fn offers_by_transport(settings: &mut Settings) {
    let offers = [
        (Transport::Tcp, PasswordAlgorithms::Sha256AndMd5),
        (Transport::Tls, PasswordAlgorithms::Sha256),
    ];
    settings.listener_algorithms = offers
        .into_iter()
        .map(|(transport, algorithms)| ListenerAlgorithms {
            transport,
            address: address("0.0.0.0:3478"),
            algorithms,
        })
        .collect();
}

/// Ann over another transport.
fn at(transport: Transport) -> User {
    ann().at(client("198.51.100.1:1000", transport))
}

/// Adds attributes behind what is signed, with the length of the header put right.
fn append(bytes: &mut Vec<u8>, put: impl FnOnce(&mut Writer<'_>)) {
    let id = turnd::stun::Message::parse(bytes).unwrap().transaction_id();
    let more = request(id, Method::BINDING, put);
    bytes.extend_from_slice(&more[20..]);
    set_length(bytes, 0);
}

/// Puts the length in the header right for a message that `more` bytes will follow.
fn set_length(bytes: &mut [u8], more: usize) {
    let length = (bytes.len() - 20 + more) as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
}
