//! RFC 8489 §9.2: long-term credentials.

use crate::client::{Client, code_or_success};
use crate::ground::Ground;
use crate::packet::{Build, Class, Key, Stun, attr, method};
use crate::statement::Proof::{Seen as Shown, Test};
use crate::statement::{Seen, Statement, ensure};

pub(crate) const STATEMENTS: &[Statement] = &[
    Statement {
        id: "2.2-1",
        rfc: "RFC 8489",
        section: "9.2.4",
        title: "without integrity: 401 with REALM, NONCE and the algorithms offered, and nothing of a user",
        proofs: &[Shown(step_1_without_integrity)],
    },
    Statement {
        id: "2.2-2",
        rfc: "RFC 8489",
        section: "9.2.4",
        title: "integrity without user, REALM or NONCE: 400 with none of them",
        proofs: &[Shown(step_2_incomplete)],
    },
    Statement {
        id: "2.2-3",
        rfc: "RFC 8489",
        section: "9.2.4",
        title: "where algorithms were offered, the choice comes with the whole list, and from it: otherwise 400",
        proofs: &[Shown(step_3_algorithms)],
    },
    Statement {
        id: "2.2-4",
        rfc: "RFC 8489",
        section: "9.2.4",
        title: "an unknown user: 401 with all that is needed to try again",
        proofs: &[Shown(step_4_unknown_user)],
    },
    Statement {
        id: "2.2-5",
        rfc: "RFC 8489",
        section: "9.2.4",
        title: "integrity by another key: 401 with all that is needed to try again, and not signed",
        proofs: &[Shown(step_5_wrong_integrity)],
    },
    Statement {
        id: "2.2-6",
        rfc: "RFC 8489",
        section: "9.2.4",
        title: "a nonce that is not good any more: 438 with a good one, but 401 if the password is wrong too",
        proofs: &[Shown(step_6_stale_nonce)],
    },
    Statement {
        id: "2.2-7",
        rfc: "RFC 8489",
        section: "6.3.1, 9.2.4",
        title: "then unknown attributes (420), then what the method asks for (400)",
        proofs: &[Shown(step_7_then_the_method)],
    },
    Statement {
        id: "A1",
        rfc: "RFC 8489",
        section: "9.2.4",
        title: "an answer is signed by the algorithm of its request, and never twice",
        proofs: &[Shown(a1_integrity_of_answers)],
    },
    Statement {
        id: "A2",
        rfc: "RFC 8489",
        section: "9.2",
        title: "no two clients get the same nonce",
        proofs: &[Shown(a2_nonces_differ)],
    },
    Statement {
        id: "A2-port",
        rfc: "RFC 8489",
        section: "9.2, decided",
        title: "a nonce is good for the other ports of its client, which browsers change while they allocate",
        proofs: &[Shown(a2_other_ports)],
    },
    Statement {
        id: "A3",
        rfc: "RFC 8489",
        section: "9.2, 18.1",
        title: "the nonce announces password algorithms exactly if they are sent, in a cookie of 13 characters",
        proofs: &[
            Shown(a3_cookie),
            Test("tests/rfc8489.rs::a3_what_counts_is_what_was_offered_with_the_nonce"),
        ],
    },
    Statement {
        id: "A4",
        rfc: "RFC 8489",
        section: "9.2.3.2, 14.4",
        title: "USERHASH stands for a user; that all use it is only asked where all users are known",
        proofs: &[Shown(a4_userhash)],
    },
    Statement {
        id: "A5",
        rfc: "RFC 8489",
        section: "18.5.1",
        title: "keys are MD5 and SHA-256 over user, realm and password",
        proofs: &[Shown(a5_keys), Test("tests/vectors.rs::a5_the_key_vector")],
    },
    Statement {
        id: "A6",
        rfc: "RFC 8656",
        section: "6",
        title: "of a password only the keys derived from it are kept",
        proofs: &[Test("src/turn/keys.rs::a6_of_a_user_only_keys_are_kept")],
    },
    Statement {
        id: "A7",
        rfc: "RFC 8489",
        section: "16.1.2",
        title: "an unknown user and a wrong password get the same answer",
        proofs: &[
            Shown(a7_no_user_is_told_apart),
            Test("tests/rfc8489.rs::a7_an_unknown_user_is_told_what_a_wrong_password_is_told"),
        ],
    },
    Statement {
        id: "A8",
        rfc: "RFC 8656",
        section: "5",
        title: "a nonce lives for an hour at most, and is replaced without failing an allocation that begins",
        proofs: &[
            Test(
                "tests/rfc8489.rs::a8_a_nonce_is_good_for_an_hour_and_for_an_allocate_a_second_one",
            ),
            Test("tests/rfc8489.rs::a8_a_challenge_is_never_followed_by_a_stale_nonce"),
        ],
    },
    Statement {
        id: "A9",
        rfc: "RFC 8489",
        section: "14.11",
        title: "PASSWORD-ALGORITHMS is a list of numbers with parameters, each padded to four bytes",
        proofs: &[
            Shown(a9_list_of_algorithms),
            Test("src/stun/integrity.rs::a9_parameters_are_padded_to_four_bytes"),
        ],
    },
    Statement {
        id: "A10",
        rfc: "RFC 8489",
        section: "16.2.1, decided",
        title: "an answer to a stranger is at most twice the question, with its IP and UDP headers",
        proofs: &[
            Shown(a10_amplification),
            Test("tests/attacks.rs::a11_a_flood_in_the_name_of_one_network_is_hardly_answered"),
        ],
    },
];

/// A challenge, as it has to be: nothing of a user, nothing signed.
fn is_a_challenge(answer: &Stun, code: u16) -> Seen {
    let word = code_or_success(answer);
    ensure!(answer.code() == code, "{word} instead of {code}");
    for kind in [attr::REALM, attr::NONCE] {
        ensure!(answer.has(kind), "{code} without {kind:#06x}");
    }
    unsigned(answer)?;
    for kind in [attr::USERNAME, attr::USERHASH] {
        ensure!(!answer.has(kind), "{code} with {kind:#06x}");
    }
    let announced = announces_algorithms(answer.get(attr::NONCE).unwrap_or_default());
    ensure!(
        announced == answer.has(attr::PASSWORD_ALGORITHMS),
        "the nonce announces algorithms: {announced}; they are there: {}",
        !announced
    );
    Ok(())
}

fn unsigned(answer: &Stun) -> Seen {
    let integrities = [attr::MESSAGE_INTEGRITY, attr::MESSAGE_INTEGRITY_SHA256];
    let signed = integrities.into_iter().any(|kind| answer.has(kind));
    ensure!(!signed, "{} that is signed", answer.code());
    Ok(())
}

/// Whether the security features in a nonce have the bit of password algorithms, from whichever end it is counted.
fn announces_algorithms(nonce: &[u8]) -> bool {
    nonce
        .strip_prefix(COOKIE)
        .is_some_and(|rest| !rest.starts_with(b"AAAA") && rest.len() >= 4)
}

const COOKIE: &[u8] = b"obMatJos2";

fn step_1_without_integrity(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    let bare = client.exchange(&Build::allocate())?;
    is_a_challenge(&bare, 401)?;
    client.learn(&bare)?;
    // Whoever names itself without proof is a stranger still.
    let answer = client.exchange(&client.named(Build::allocate()))?;
    is_a_challenge(&answer, 401)?;
    let refresh = client.exchange(&Build::refresh(600))?;
    is_a_challenge(&refresh, 401)
}

fn step_2_incomplete(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    client.challenge()?;
    let all = [
        (attr::USERNAME, client.login.user.clone().into_bytes()),
        (attr::REALM, client.realm.clone()),
        (attr::NONCE, client.nonce.clone()),
    ];
    for (missing, _) in &all {
        let request = all
            .iter()
            .filter(|(kind, _)| kind != missing)
            .fold(Build::allocate(), |build, (kind, value)| {
                build.attr(*kind, value)
            });
        let answer = client.exchange(&request.sign(&client.key()))?;
        ensure!(
            answer.code() == 400,
            "{} without {missing:#06x}",
            code_or_success(&answer)
        );
        unsigned(&answer)?;
        let told = answer.has(attr::NONCE) || answer.has(attr::REALM);
        ensure!(!told, "400 with REALM or NONCE, without {missing:#06x}");
    }
    Ok(())
}

fn step_3_algorithms(ground: &Ground) -> Seen {
    let (mut client, offer) = offered(ground)?;
    let choice = [0, 2, 0, 0];
    let mut other = offer.clone();
    other.truncate(4);
    for (list, choice, what) in [
        (Some(&offer), None, "a list without a choice"),
        (None, Some(&choice), "a choice without a list"),
        (Some(&other), Some(&choice), "a list that was cut"),
        (
            Some(&offer),
            Some(&[0, 9, 0, 0]),
            "a choice that is not offered",
        ),
    ] {
        let mut request = client.named(Build::allocate());
        if let Some(list) = list {
            request = request.attr(attr::PASSWORD_ALGORITHMS, list);
        }
        if let Some(choice) = choice {
            request = request.attr(attr::PASSWORD_ALGORITHM, choice);
        }
        let answer = client.exchange(&request.sign_sha256(&client.key_sha256(), 32))?;
        ensure!(
            answer.code() == 400,
            "{} for {what}",
            code_or_success(&answer)
        );
    }
    // Who knows nothing of algorithms uses MD5.
    client.allocate().map(drop)
}

fn step_4_unknown_user(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    client.challenge()?;
    client.login.user = "nobody".into();
    let answer = client.exchange(&client.signed(Build::allocate()))?;
    is_a_challenge(&answer, 401)
}

fn step_5_wrong_integrity(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    client.challenge()?;
    client.login.password.push('x');
    let answer = client.exchange(&client.signed(Build::allocate()))?;
    is_a_challenge(&answer, 401)
}

fn step_6_stale_nonce(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    client.challenge()?;
    spoil(&mut client.nonce);
    let answer = client.exchange(&client.signed(Build::allocate()))?;
    is_a_challenge(&answer, 438)?;
    let spoiled = client.nonce.clone();
    client.learn(&answer)?;
    client.allocate()?;
    client.nonce = spoiled;
    client.login.password.push('x');
    let answer = client.exchange(&client.signed(Build::refresh(600)))?;
    is_a_challenge(&answer, 401)
}

/// Makes a nonce one that was never issued; its cookie stays.
fn spoil(nonce: &mut [u8]) {
    if let Some(last) = nonce.last_mut() {
        *last = if *last == b'0' { b'1' } else { b'0' };
    }
}

fn step_7_then_the_method(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    let lacking = || Build::request(method::ALLOCATE);
    client.refused_signed(lacking().attr(0x7F01, b""), 420)?;
    client.refused_signed(lacking(), 400).map(drop)
}

fn offered(ground: &Ground) -> Seen<(Client, Vec<u8>)> {
    let mut client = ground.client()?;
    client.challenge()?;
    let offer = client
        .offer
        .clone()
        .ok_or("no password algorithms are offered")?;
    Ok((client, offer))
}

fn a1_integrity_of_answers(ground: &Ground) -> Seen {
    let (mut client, offer) = offered(ground)?;
    // No algorithm: SHA-1.
    let answer = client.succeed(Build::allocate())?;
    let both = answer.has(attr::MESSAGE_INTEGRITY_SHA256);
    ensure!(!both, "an answer with both integrities");
    // MD5 or SHA-256 by choice: SHA-256 in the answer.
    for choice in [[0, 2, 0, 0], [0, 1, 0, 0]] {
        let (mut other, _) = offered(ground)?;
        let key = match choice {
            [_, 2, ..] => other.key_sha256(),
            _ => other.key(),
        };
        let answer = chosen(&mut other, &offer, &choice, &key, Build::allocate())?;
        ensure!(
            answer.class == Class::Success,
            "{} for algorithm {choice:?}",
            code_or_success(&answer)
        );
        ensure!(
            answer.is_signed_sha256_by(&key) && !answer.has(attr::MESSAGE_INTEGRITY),
            "the answer for algorithm {choice:?} is not signed by SHA-256 alone"
        );
        let mismatch = chosen(&mut other, &offer, &choice, &key, Build::allocate())?;
        ensure!(
            mismatch.code() == 437 && mismatch.is_signed_sha256_by(&key),
            "an error for algorithm {choice:?} is not signed by SHA-256"
        );
    }
    Ok(())
}

/// Asks with a password algorithm of the offer.
fn chosen(client: &mut Client, offer: &[u8], choice: &[u8], key: &Key, build: Build) -> Seen<Stun> {
    let request = client
        .named(build)
        .attr(attr::PASSWORD_ALGORITHMS, offer)
        .attr(attr::PASSWORD_ALGORITHM, choice)
        .sign_sha256(key, 32);
    client.exchange(&request)
}

/// Two clients that differ in their ports alone, and have nonces.
fn neighbours(ground: &Ground) -> Seen<(Client, Client)> {
    let mut first = ground.client()?;
    first.challenge()?;
    let mut second = ground.client_from(
        first.link.transport,
        first.link.server,
        first.link.local()?.ip(),
    )?;
    second.challenge()?;
    Ok((first, second))
}

fn a2_nonces_differ(ground: &Ground) -> Seen {
    let (mut first, second) = neighbours(ground)?;
    ensure!(first.nonce != second.nonce, "two ports got the same nonce");
    first.allocate().map(drop)
}

fn a2_other_ports(ground: &Ground) -> Seen {
    let (first, mut second) = neighbours(ground)?;
    second.nonce = first.nonce.clone();
    let answer = second.exchange(&second.signed(Build::allocate()))?;
    ensure!(
        answer.class == Class::Success,
        "{} for a nonce of another port of this client",
        code_or_success(&answer)
    );
    Ok(())
}

fn a3_cookie(ground: &Ground) -> Seen {
    let (client, _) = offered(ground)?;
    let features = client
        .nonce
        .strip_prefix(COOKIE)
        .and_then(<[u8]>::first_chunk);
    ensure!(
        matches!(features, Some(b"gAAA" | b"gAAB")),
        "the nonce begins with {:?}",
        String::from_utf8_lossy(&client.nonce[..client.nonce.len().min(13)])
    );
    let mut plain = ground.plain_client()?;
    plain.challenge()?;
    ensure!(
        plain.offer.is_none() && !announces_algorithms(&plain.nonce),
        "algorithms are offered where MD5 alone is"
    );
    Ok(())
}

fn a4_userhash(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    client.login = ground.logins.with_password()?;
    client.challenge()?;
    let login = [client.login.user.as_bytes(), b":", &client.realm].concat();
    let hash = <sha2::Sha256 as md5::Digest>::digest(login);
    let request = Build::allocate()
        .attr(attr::USERHASH, &hash)
        .attr(attr::REALM, &client.realm)
        .attr(attr::NONCE, &client.nonce)
        .sign(&client.key());
    let answer = client.exchange(&request)?;
    ensure!(
        answer.class == Class::Success,
        "{} for USERHASH",
        code_or_success(&answer)
    );
    // Bit 1, counted from either end: names made of a secret have no hash.
    let anonymous = [&b"Q"[..], b"w", b"o"].iter().any(|first| {
        client
            .nonce
            .strip_prefix(COOKIE)
            .is_some_and(|rest| rest.starts_with(first))
    });
    ensure!(
        !anonymous || ground.logins.secret.is_none(),
        "all must use USERHASH, which users of a secret cannot"
    );
    Ok(())
}

fn a5_keys(ground: &Ground) -> Seen {
    let (mut client, offer) = offered(ground)?;
    client.succeed(Build::allocate())?;
    let mut other = ground.client()?;
    other.challenge()?;
    let key = other.key_sha256();
    let answer = chosen(&mut other, &offer, &[0, 2, 0, 0], &key, Build::allocate())?;
    ensure!(
        answer.class == Class::Success,
        "{} for a key by SHA-256",
        code_or_success(&answer)
    );
    Ok(())
}

fn a7_no_user_is_told_apart(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    client.challenge()?;
    let shape = |answer: &Stun| {
        let attrs = answer.attrs.iter();
        let attrs: Vec<(u16, usize)> = attrs.map(|(kind, value)| (*kind, value.len())).collect();
        (answer.code(), attrs)
    };
    let named = client.login.user.clone();
    client.login.password.push('x');
    let wrong = client.exchange(&client.signed(Build::allocate()))?;
    client.login.user = "?".repeat(named.len());
    let unknown = client.exchange(&client.signed(Build::allocate()))?;
    let (wrong, unknown) = (shape(&wrong), shape(&unknown));
    ensure!(wrong.0 == 401, "{} for a wrong password", wrong.0);
    ensure!(
        wrong == unknown,
        "{wrong:?} for a wrong password, {unknown:?} for a wrong user"
    );
    Ok(())
}

fn a9_list_of_algorithms(ground: &Ground) -> Seen {
    let (_, offer) = offered(ground)?;
    let mut numbers = Vec::new();
    let mut rest = &offer[..];
    while let [a, b, c, d, behind @ ..] = rest {
        numbers.push(u16::from_be_bytes([*a, *b]));
        let length = usize::from(u16::from_be_bytes([*c, *d])).next_multiple_of(4);
        rest = behind.get(length..).ok_or("parameters beyond the end")?;
    }
    ensure!(rest.is_empty(), "{} bytes behind the list", rest.len());
    ensure!(
        numbers == [2, 1] || numbers == [1, 2],
        "the algorithms are {numbers:?}"
    );
    Ok(())
}

fn a10_amplification(ground: &Ground) -> Seen {
    /// IPv4 and UDP.
    const HEADERS: usize = 28;
    let mut client = ground.plain_client()?;
    for (request, what) in [
        (Build::binding(), "Binding"),
        (Build::allocate(), "Allocate"),
        (Build::request(method::ALLOCATE), "an empty Allocate"),
        (Build::request(method::REFRESH), "an empty Refresh"),
        (Build::allocate().attr(0x7F01, b""), "an unknown attribute"),
    ] {
        client.link.send(&request.bytes())?;
        for packet in client.heard_until_fence()? {
            let crate::packet::Packet::Stun(answer) = packet else {
                continue;
            };
            let (asked, answered) = (request.len() + HEADERS, answer.bytes.len() + HEADERS);
            ensure!(
                answered <= 2 * asked,
                "{answered} bytes for {asked} of {what}"
            );
        }
    }
    Ok(())
}
