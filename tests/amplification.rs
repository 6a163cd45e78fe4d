//! What strangers can have sent, with everything switched on: how much larger than what they send, how often, and where
//! it never goes (the list of attacks, A11 to A14).

#![allow(clippy::unwrap_used)]

mod support;

use std::net::IpAddr;

use support::*;
use turnd::stun::{Attribute, ChangeRequest, Class, Integrity, Key, Method, TransactionId, Writer};
use turnd::turn::{
    Cause, Client, NatDiscovery, OwnAddress, PasswordAlgorithms, Redirect, Reply, Settings,
    TcpRelay, ThirdParty, TokenAlgorithm, TokenKey, Transport, Users, Verdict,
};

/// What a stranger can ask, as small as it is answered.
struct Question {
    what: &'static str,
    bytes: Vec<u8>,
    /// How much larger the answer may be, in per cent of the question: to clients of IPv4, and to those of IPv6.
    at_most: [usize; 2],
}

const ID: TransactionId = TransactionId([9; 12]);

fn question(
    what: &'static str,
    at_most: [usize; 2],
    method: Method,
    put: impl FnOnce(&mut Writer<'_>),
) -> Question {
    Question {
        what,
        bytes: request(ID, method, put),
        at_most,
    }
}

fn classic(what: &'static str, at_most: [usize; 2], attributes: &[u8]) -> Question {
    let mut bytes = vec![0, 1, 0, attributes.len() as u8];
    bytes.extend([7; 16]);
    bytes.extend(attributes);
    Question {
        what,
        bytes,
        at_most,
    }
}

fn signed(what: &'static str, at_most: usize, put: impl FnOnce(&mut Writer<'_>)) -> Question {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, Class::Request, Method::REFRESH, ID);
    put(&mut writer);
    writer.finish_with_integrity(&Key::md5(b"eve", b"r", b"x"), Integrity::Sha1);
    Question {
        what,
        bytes,
        at_most: [at_most; 2],
    }
}

/// With what the machine says to each. A challenge is as long as the operator's names are; these are of ten characters.
fn questions() -> Vec<Question> {
    let both = ChangeRequest {
        ip: true,
        port: true,
    };
    let challenged = |what, method| {
        question(what, [480; 2], method, |writer| {
            writer.bytes(Attribute(0xC001), b"");
        })
    };
    vec![
        question("binding", [340, 580], Method::BINDING, |_| {}),
        question("changed", [250, 420], Method::BINDING, |writer| {
            writer.change_request(both);
        }),
        question("to a port", [250, 420], Method::BINDING, |writer| {
            writer.bytes(Attribute::RESPONSE_PORT, &[0x20, 0, 0, 0]);
        }),
        question("padded", [310, 510], Method::BINDING, |writer| {
            writer.bytes(Attribute::PADDING, b"");
        }),
        question("malformed", [120; 2], Method::BINDING, |writer| {
            writer.bytes(Attribute::CHANGE_REQUEST, b"");
        }),
        question("unknown", [150; 2], Method::BINDING, |writer| {
            writer.bytes(Attribute(0x7001), b"");
        }),
        classic("classic", [280, 460], &[]),
        classic("classic, changed", [200, 330], &[0, 3, 0, 4, 0, 0, 0, 6]),
        classic("classic, unknown", [150; 2], &[0x70, 1, 0, 0]),
        question("allocate", [420; 2], Method::ALLOCATE, |writer| {
            writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        }),
        challenged("refresh", Method::REFRESH),
        challenged("permission", Method::CREATE_PERMISSION),
        challenged("channel", Method::CHANNEL_BIND),
        challenged("connect", Method::CONNECT),
        challenged("connection", Method::CONNECTION_BIND),
        signed("incomplete", 100, |_| {}),
        signed("made up", 200, |writer| {
            writer
                .bytes(Attribute::USERNAME, b"")
                .bytes(Attribute::REALM, b"")
                .bytes(Attribute::NONCE, b"");
        }),
        signed("token", 200, |writer| {
            writer
                .bytes(Attribute::USERNAME, b"")
                .bytes(Attribute::REALM, b"")
                .bytes(Attribute::NONCE, b"")
                .bytes(Attribute::ACCESS_TOKEN, b"");
        }),
    ]
}

/// Everything that an operator can switch on, with a realm and a server name of this length.
fn everything(settings: &mut Settings, name: usize) {
    let name = "n".repeat(name);
    settings.users = Users::new(&name);
    let key = TokenKey::new("north", TokenAlgorithm::A256Gcm, &[1; 32]).unwrap();
    settings.third_party = Some(ThirdParty::new(&name, vec![key]));
    settings.password_algorithms = PasswordAlgorithms::Sha256AndMd5;
    settings.username_anonymity = true;
    settings.mobility = true;
    settings.rfc3489 = true;
    settings.software = Some("s".repeat(127));
    settings.tcp_relay = Some(TcpRelay::default());
    settings.redirect = Some(Redirect {
        to: vec![address("192.0.2.77:3478")],
        to_tls: vec![address("192.0.2.77:5349")],
        domain: Some("d".repeat(255)),
        always: true,
        ..Redirect::default()
    });
    settings.nat_discovery = [
        ["203.0.113.1", "203.0.113.2"],
        ["2001:db8:1::1", "2001:db8:1::2"],
    ]
    .map(|ips| NatDiscovery {
        addresses: ips.map(|ip| {
            let ip: IpAddr = ip.parse().unwrap();
            OwnAddress {
                local: ip,
                advertised: ip,
            }
        }),
        ports: [3478, 3479],
    })
    .to_vec();
}

fn turn(name: usize) -> Turn {
    Turn::with(|settings| everything(settings, name))
}

fn answer(turn: &mut Turn, from: Client, question: &Question) -> Result<(Reply, usize), Cause> {
    match turn.input(from, &question.bytes) {
        (Verdict::Reply(told), bytes) => Ok((told, bytes.len())),
        (Verdict::Drop(cause), _) => Err(cause),
        (other, _) => panic!("{}: {other:?}", question.what),
    }
}

const FROM: [&str; 2] = ["198.51.100.1:5000", "[2001:db8::1]:5000"];

#[test]
fn a12_no_answer_is_larger_than_the_table_says_with_everything_on() {
    for (family, from) in FROM.into_iter().enumerate() {
        let mut turn = turn(10);
        for question in questions() {
            let (told, length) = answer(&mut turn, udp(from), &question).unwrap();
            assert!(!told.authenticated);
            let per_cent = length * 100 / question.bytes.len();
            let (what, asked) = (question.what, question.bytes.len());
            let at_most = question.at_most[family];
            assert!(
                per_cent <= at_most,
                "{what} {from}: {length} for {asked}, {per_cent} % and not {at_most} %"
            );
            // Nor is the table larger than the truth by more than a few bytes.
            assert!(per_cent + 50 >= at_most, "{what} {from}: only {per_cent} %");
        }
    }
}

/// RFC 8489 §6.1: what fits a path of which nothing is known.
#[test]
fn a10_with_the_longest_names_every_answer_still_fits_a_safe_datagram() {
    for from in FROM {
        let mut turn = turn(127);
        for question in questions() {
            let (_, length) = answer(&mut turn, udp(from), &question).unwrap();
            assert!(length <= 548, "{}: {length}", question.what);
        }
    }
}

#[test]
fn a11_every_answer_to_a_stranger_is_paid_for_over_udp_alone() {
    for question in questions() {
        let mut turn = turn(10);
        let spent = |turn: &mut Turn, transport, ip: &str| {
            let mut answers = 0;
            for port in 1..=300 {
                let from = client(&format!("{ip}:{}", 2000 + port), transport);
                match answer(turn, from, &question) {
                    Ok(_) => answers += 1,
                    Err(cause) => assert_eq!(cause, Cause::ReplyBudget, "{}", question.what),
                }
            }
            answers
        };
        assert_eq!(
            spent(&mut turn, Transport::Udp, "198.51.100.1"),
            250,
            "{}",
            question.what
        );
        // Nothing is left for the whole network, and all for the next one.
        assert_eq!(spent(&mut turn, Transport::Udp, "198.51.100.99"), 0);
        assert_eq!(spent(&mut turn, Transport::Udp, "198.51.101.1"), 250);
        assert!(turn.server.is_empty() && turn.relays.open.is_empty());
        assert_eq!(turn.server.count_elsewhere(), 0);
        assert!(turn.events().is_empty());
        assert_eq!(turn.server.poll_timeout(), None);
    }
}

/// Over connections the sender is who it says; what is larger there is larger for itself.
#[test]
fn a12_over_connections_no_answer_is_larger_than_over_udp() {
    for transport in [Transport::Tcp, Transport::Tls, Transport::Dtls] {
        let mut turn = turn(10);
        for question in questions() {
            let over_udp = answer(&mut turn, udp(FROM[0]), &question).unwrap();
            let Ok((told, length)) = answer(&mut turn, client(FROM[0], transport), &question)
            else {
                assert!(question.what.starts_with("classic"), "{}", question.what);
                assert_ne!(transport, Transport::Dtls);
                continue;
            };
            // Where there is no other address, what asks for it is listed as not understood.
            let listed = if told.code == 420 { 12 } else { 0 };
            assert!(length <= over_udp.1 + listed, "{}", question.what);
            assert_eq!((told.via, told.to), (None, client(FROM[0], transport)));
        }
    }
}

/// Port 0, a listener, and a relay: neither where the question comes from, nor where it wants the answer.
#[test]
fn a14_no_answer_goes_to_port_0_nor_to_ourselves_nor_to_a_relay() {
    let mut relayed = Turn::new();
    let answer_to = ann().allocate(&mut relayed).relayed();
    let mut turn = turn(10);
    turn.relays.open = std::mem::take(&mut relayed.relays.open);
    let relay = answer_to.to_string();
    for from in ["198.51.100.1:0", SERVER_V4, &relay] {
        for question in questions() {
            let heard = answer(&mut turn, udp(from), &question);
            let cause = heard.map(|(told, _)| told.code).unwrap_err();
            assert_eq!(cause, Cause::NoWayBack, "{} {from}", question.what);
        }
    }
    // The port of the relay, asked for from another port of its host.
    let host = format!("{}:40000", answer_to.ip());
    let wanted = question("to the relay", [0; 2], Method::BINDING, |writer| {
        let [high, low] = answer_to.port().to_be_bytes();
        writer.bytes(Attribute::RESPONSE_PORT, &[high, low, 0, 0]);
    });
    let heard = answer(&mut turn, udp(&host), &wanted);
    assert_eq!(heard.err(), Some(Cause::NoWayBack));
}
