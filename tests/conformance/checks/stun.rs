//! RFC 8489: messages, and how they travel.

use crate::client::code_or_success;
use crate::ground::Ground;
use crate::packet::{Build, Class, attr, method};
use crate::statement::Proof::{Seen as Shown, Test};
use crate::statement::{Seen, Statement, ensure};
use crate::wire::Transport;

pub(crate) const STATEMENTS: &[Statement] = &[
    Statement {
        id: "S1",
        rfc: "RFC 8489",
        section: "5, 6.3",
        title: "what has not the two zero bits, the cookie and a length in fours is no message, and is not answered",
        proofs: &[
            Shown(s1_no_message_is_not_answered),
            Test("src/stun/message.rs::s1_top_bits_cookie_and_length_are_checked"),
        ],
    },
    Statement {
        id: "S2",
        rfc: "RFC 8489",
        section: "14",
        title: "padding is written as zeros, read as anything, and not counted in an attribute's length",
        proofs: &[Shown(s2_padding)],
    },
    Statement {
        id: "S3",
        rfc: "RFC 8489",
        section: "14",
        title: "of an attribute that comes twice, the first one counts",
        proofs: &[Shown(s3_the_first_counts)],
    },
    Statement {
        id: "S4",
        rfc: "RFC 8489",
        section: "14.5-14.7",
        title: "what stands behind MESSAGE-INTEGRITY does not count",
        proofs: &[Shown(s4_nothing_counts_behind_integrity)],
    },
    Statement {
        id: "S5",
        rfc: "RFC 8489",
        section: "6.3, 14.7",
        title: "a message with a wrong FINGERPRINT is dropped, one with a right FINGERPRINT is served",
        proofs: &[Shown(s5_fingerprint)],
    },
    Statement {
        id: "S6",
        rfc: "RFC 8489",
        section: "14.6",
        title: "MESSAGE-INTEGRITY-SHA256 is accepted whole, and not cut short",
        proofs: &[Shown(s6_sha256_is_whole)],
    },
    Statement {
        id: "S7",
        rfc: "RFC 8489",
        section: "14.8",
        title: "ERROR-CODE has a class of 3 to 6, a number below 100 and a short text in UTF-8",
        proofs: &[Shown(s7_error_code)],
    },
    Statement {
        id: "S8",
        rfc: "RFC 8489",
        section: "14.3, 14.9, 14.10, 14.14",
        title: "texts are read up to 763 bytes, and sent with fewer than 128 characters",
        proofs: &[
            Shown(s8_texts),
            Test("src/stun/message.rs::s8_texts_are_taken_up_to_763_bytes"),
        ],
    },
    Statement {
        id: "S9",
        rfc: "RFC 8489",
        section: "6.3.1.2",
        title: "an answer leaves from the address and port that were asked",
        proofs: &[Shown(s9_from_where_it_was_asked)],
    },
    Statement {
        id: "S10",
        rfc: "RFC 8489",
        section: "6.3.1.1, decided",
        title: "SOFTWARE is told to users, and not to strangers",
        proofs: &[Shown(s10_software)],
    },
    Statement {
        id: "S11",
        rfc: "RFC 8489",
        section: "12",
        title: "Binding is answered over UDP and TCP, to anybody, without FINGERPRINT and without redirecting; on request to clients of RFC 3489, too",
        proofs: &[Shown(s11_binding), Shown(s11_rfc_3489)],
    },
    Statement {
        id: "S12",
        rfc: "RFC 8489",
        section: "6.3.1, 6.3.2, 14.13",
        title: "attributes that must be understood and are not: 420 that lists each once; others are ignored",
        proofs: &[Shown(s12_unknown_attributes), Shown(s12_in_an_indication)],
    },
    Statement {
        id: "S13",
        rfc: "RFC 8489",
        section: "6.3.1",
        title: "unknown attributes are judged after the credentials",
        proofs: &[Shown(s13_credentials_before_attributes)],
    },
    Statement {
        id: "S14",
        rfc: "RFC 8489",
        section: "6.2.2, 6.3.1.2",
        title: "a connection stays open, carries several requests at once, and may be cut at any byte",
        proofs: &[Shown(s14_streams)],
    },
    Statement {
        id: "S15",
        rfc: "RFC 8489",
        section: "6.3.1",
        title: "a repeated request has the same effect and answer",
        proofs: &[
            Shown(s15_repeated_requests),
            Test("tests/attacks.rs::a27_a_stranger_leaves_nothing_behind"),
        ],
    },
    Statement {
        id: "S16",
        rfc: "RFC 8489",
        section: "6.1",
        title: "a challenge and the answer to Allocate fit 548 bytes",
        proofs: &[Shown(s16_small_enough)],
    },
];

fn s1_no_message_is_not_answered(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    let good = Build::allocate().bytes();
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    for (bytes, what) in [
        (with(0, 0x80), "a message with the top bits 10"),
        (with(0, 0xC0), "a message with the top bits 11"),
        (with(4, 0x22), "an Allocate with another cookie"),
        (with(3, 6), "a length that is no multiple of 4"),
        (with(3, 12), "a length beyond the end"),
        (with(3, 4), "a length before the end"),
        (good[..19].to_vec(), "19 bytes"),
        (vec![0], "one byte"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "HTTP in a datagram"),
    ] {
        client.expect_silence(&bytes, what)?;
    }
    ensure!(
        !client.is_silent_at(&good)?,
        "the same unharmed is not answered"
    );
    Ok(())
}

fn s2_padding(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    let challenge = client.challenge()?;
    ensure!(!challenge.dirty, "the padding of the 401 is not zero");
    let request = Build::allocate().padded_with(attr::SOFTWARE, b"dirty", 0xA5);
    let answer = client.succeed(request)?;
    ensure!(!answer.dirty, "the padding of the success is not zero");
    Ok(())
}

fn s3_the_first_counts(ground: &Ground) -> Seen {
    let (mut client, _) = ground.allocated()?;
    let twice = Build::refresh(1200).u32(attr::LIFETIME, 0);
    let answer = client.succeed(twice)?;
    let lifetime = answer.u32(attr::LIFETIME);
    ensure!(
        lifetime == Some(1200),
        "LIFETIME {lifetime:?} for 1200 and then 0"
    );
    Ok(())
}

fn s4_nothing_counts_behind_integrity(ground: &Ground) -> Seen {
    let [named, appended] = ground.peers()?;
    let (mut client, relayed) = ground.allocated()?;
    let request = client.signed(Build::permission(named.address));
    let answer = client.exchange(&request.peer(appended.address))?;
    ensure!(
        answer.class == Class::Success,
        "{} for a request with something behind its integrity",
        code_or_success(&answer)
    );
    appended.send(relayed, b"stranger")?;
    named.send(relayed, b"fence")?;
    let heard = client.data()?;
    let expected = crate::client::Data::Indication(named.address, b"fence".to_vec());
    ensure!(heard == expected, "the appended peer is let in");
    Ok(())
}

fn s5_fingerprint(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    let wrong = Build::binding().wrong_fingerprint().bytes();
    client.expect_silence(&wrong, "a Binding with a wrong FINGERPRINT")?;
    client.exchange(&Build::binding().fingerprint())?;
    client.challenge()?;
    // The HMAC does not cover the fingerprint, nor count it.
    let request = client.signed(Build::allocate()).fingerprint();
    let answer = client.exchange(&request)?;
    let word = code_or_success(&answer);
    ensure!(
        answer.class == Class::Success,
        "{word} for a signed request with FINGERPRINT"
    );
    Ok(())
}

fn s6_sha256_is_whole(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    client.challenge()?;
    let offer = client
        .offer
        .clone()
        .ok_or("no password algorithms are offered")?;
    let request = || {
        client
            .named(Build::allocate())
            .attr(attr::PASSWORD_ALGORITHMS, &offer)
            .attr(attr::PASSWORD_ALGORITHM, &[0, 2, 0, 0])
    };
    let key = client.key_sha256();
    let short = [16, 20, 24, 28].map(|length| (length, request().sign_sha256(&key, length)));
    let whole = request().sign_sha256(&key, 32);
    for (length, request) in short {
        let answer = client.exchange(&request)?;
        let word = code_or_success(&answer);
        ensure!(
            answer.code() == 401,
            "{word} for an integrity of {length} bytes"
        );
    }
    let answer = client.exchange(&whole)?;
    let word = code_or_success(&answer);
    ensure!(
        answer.class == Class::Success,
        "{word} for a whole integrity"
    );
    Ok(())
}

fn s7_error_code(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    let challenge = client.challenge()?;
    let missing = client.ask(Build::request(method::ALLOCATE))?;
    let mismatch = client.ask(Build::refresh(600))?;
    let unknown = client.ask(Build::allocate().attr(0x7F01, b""))?;
    for answer in [challenge, missing, mismatch, unknown] {
        let Some([_, _, class @ 3..=6, 0..=99, reason @ ..]) = answer.get(attr::ERROR_CODE) else {
            return Err(format!("ERROR-CODE {:02x?}", answer.get(attr::ERROR_CODE)).into());
        };
        let text = std::str::from_utf8(reason);
        let short = text.is_ok_and(|text| text.chars().count() < 128);
        ensure!(
            short,
            "the text of a code of class {class} is not short UTF-8"
        );
    }
    Ok(())
}

fn s8_texts(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    let challenge = client.challenge()?;
    for kind in [attr::REALM, attr::NONCE] {
        let text = String::from_utf8_lossy(challenge.get(kind).unwrap_or_default()).into_owned();
        let length = text.chars().count();
        ensure!(length < 128, "a text of {length} characters is sent");
    }
    client.login.user = "u".repeat(763);
    let answer = client.exchange(&client.signed(Build::allocate()))?;
    ensure!(
        answer.code() == 401,
        "{} for a user name of 763 bytes",
        code_or_success(&answer)
    );
    client.login.user = "u".repeat(764);
    let answer = client.exchange(&client.signed(Build::allocate()))?;
    ensure!(
        matches!(answer.code(), 400 | 401),
        "{} for a user name of 764 bytes",
        code_or_success(&answer)
    );
    Ok(())
}

fn s9_from_where_it_was_asked(ground: &Ground) -> Seen {
    for &address in ground.full.udp.iter().chain(&ground.full.others) {
        let ip = ground.hosts.client(address.ip());
        // A packet from anywhere else is an error of the link.
        let mut client = ground.client_from(Transport::Udp, address, ip)?;
        client.exchange(&Build::binding())?;
        client.challenge()?;
        client.allocate()?;
    }
    Ok(())
}

fn s10_software(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    let binding = client.exchange(&Build::binding())?;
    let challenge = client.challenge()?;
    for (answer, what) in [(binding, "Binding"), (challenge, "a 401")] {
        ensure!(
            !answer.has(attr::SOFTWARE),
            "SOFTWARE in the answer to a stranger: {what}"
        );
    }
    let answer = client.succeed(Build::allocate())?;
    ensure!(
        answer.has(attr::SOFTWARE),
        "no SOFTWARE in the success of Allocate"
    );
    Ok(())
}

fn s11_binding(ground: &Ground) -> Seen {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut client = ground.client_over(transport)?;
        let answer = client.exchange(&Build::binding())?;
        let word = code_or_success(&answer);
        ensure!(answer.class == Class::Success, "{word} over {transport:?}");
        let mapped = answer.xor_address(attr::XOR_MAPPED_ADDRESS);
        let local = client.link.local()?;
        ensure!(
            mapped == Some(local) || local.ip().is_unspecified(),
            "{mapped:?} instead of {local}"
        );
        ensure!(!answer.has(attr::ALTERNATE_SERVER), "Binding is redirected");
    }
    Ok(())
}

fn s11_rfc_3489(ground: &Ground) -> Seen {
    let client = ground.client()?;
    let socket = client.link.socket()?;
    // No cookie, and an id of sixteen bytes.
    let mut request = Build::binding().bytes();
    request[4..8].copy_from_slice(b"old!");
    socket.send_to(&request, client.link.server)?;
    let mut answer = [0; 1500];
    let (length, _) = socket
        .recv_from(&mut answer)
        .map_err(|_| "no answer to a request of RFC 3489")?;
    let answer = &answer[..length];
    let port = client.link.local()?.port().to_be_bytes();
    let mapped = [&[0, 1, 0, 8, 0, 1][..], &port].concat();
    ensure!(
        answer.starts_with(&[1, 1])
            && answer.get(4..20) == request.get(4..20)
            && answer.windows(8).any(|part| part == mapped),
        "{answer:02x?} without the id or MAPPED-ADDRESS"
    );
    Ok(())
}

fn s12_unknown_attributes(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    let request = Build::allocate()
        .attr(0x7F01, b"x")
        .attr(0xFF01, b"optional")
        .attr(0x7F02, b"")
        .attr(0x7F01, b"y");
    let answer = client.refused_signed(request, 420)?;
    let listed = answer.get(attr::UNKNOWN_ATTRIBUTES);
    ensure!(
        listed == Some(&[0x7F, 1, 0x7F, 2]),
        "UNKNOWN-ATTRIBUTES {listed:02x?} instead of 7f01 7f02"
    );
    // Known, but out of place here; and unknown, but optional.
    let request = Build::allocate()
        .u16(attr::CHANNEL_NUMBER, 0x4000)
        .attr(0xFF01, b"optional");
    client.succeed(request).map(drop)
}

fn s12_in_an_indication(ground: &Ground) -> Seen {
    let (mut client, _, peer) = ground.call()?;
    let odd = Build::send(peer.address, b"odd").attr(0x7F01, b"");
    client.link.send(&odd.bytes())?;
    client.send_to(peer.address, b"fence")?;
    peer.hears(b"fence")
}

fn s13_credentials_before_attributes(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    let request = || Build::allocate().attr(0x7F01, b"");
    let answer = client.exchange(&request())?;
    ensure!(
        answer.code() == 401,
        "{} for a stranger",
        code_or_success(&answer)
    );
    client.learn(&answer)?;
    client.login.password = "wrong".into();
    let answer = client.exchange(&client.signed(request()))?;
    ensure!(
        answer.code() == 401,
        "{} for a wrong password",
        code_or_success(&answer)
    );
    Ok(())
}

fn s14_streams(ground: &Ground) -> Seen {
    let mut client = ground.client_over(Transport::Tcp)?;
    let requests = [Build::binding(), Build::allocate(), Build::binding()];
    let bytes: Vec<u8> = requests.iter().flat_map(Build::bytes).collect();
    client.link.send(&bytes)?;
    for request in &requests {
        client.answer_to(request.id())?;
    }
    let split = Build::binding();
    for byte in split.bytes() {
        client.link.send(&[byte])?;
    }
    client.answer_to(split.id())?;
    // Two halves, the second with the beginning of another request.
    let (first, second) = (Build::allocate(), Build::binding());
    let bytes = [first.bytes(), second.bytes()].concat();
    let (head, tail) = bytes.split_at(first.len() + 7);
    client.link.send(head)?;
    client.answer_to(first.id())?;
    client.link.send(tail)?;
    client.answer_to(second.id())?;
    client.allocate().map(drop)
}

fn s15_repeated_requests(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    client.challenge()?;
    let peer = ground.peer()?;
    for request in [
        Build::allocate(),
        Build::permission(peer.address),
        Build::channel(0x4001, peer.address),
        Build::refresh(900),
    ] {
        let request = client.signed(request);
        let first = client.exchange(&request)?;
        let again = client.exchange(&request)?;
        ensure!(
            first.class == Class::Success && again.class == Class::Success,
            "{} and then {} for method {:#x}",
            code_or_success(&first),
            code_or_success(&again),
            first.method
        );
        let address = |answer: &crate::packet::Stun| answer.xor_address(attr::XOR_RELAYED_ADDRESS);
        ensure!(
            address(&first) == address(&again),
            "another relayed address for the same request"
        );
    }
    Ok(())
}

fn s16_small_enough(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    let challenge = client.challenge()?;
    let answer = client.succeed(Build::allocate())?;
    for (length, what) in [
        (challenge.bytes.len(), "a challenge"),
        (answer.bytes.len(), "a success"),
    ] {
        ensure!(length <= 548, "{what} of {length} bytes");
    }
    Ok(())
}
