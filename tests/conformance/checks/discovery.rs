//! RFC 5780, redirection, and how servers are found.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

use crate::client::{Client, Peer, code_or_success};
use crate::ground::{Ground, Hosts};
use crate::packet::{Build, Class, Stun, attr};
use crate::statement::Proof::{Refused, Seen as Shown, Test};
use crate::statement::{Seen, Statement, Trouble, ensure};
use crate::wire::{Transport, connect, tls, udp_socket};

pub(crate) const STATEMENTS: &[Statement] = &[
    Statement {
        id: "5780-1",
        rfc: "RFC 5780",
        section: "6",
        title: "without a second address there is no OTHER-ADDRESS, and CHANGE-REQUEST is 420",
        proofs: &[Shown(s5780_1_off)],
    },
    Statement {
        id: "5780-2",
        rfc: "RFC 5780",
        section: "6.1",
        title: "Binding tells both mapped addresses, where the answer leaves from, and the other address",
        proofs: &[Shown(s5780_2_addresses)],
    },
    Statement {
        id: "5780-3",
        rfc: "RFC 5780",
        section: "6.1",
        title: "CHANGE-REQUEST has the answer leave from the other address, the other port, or both",
        proofs: &[Shown(s5780_3_table_1)],
    },
    Statement {
        id: "5780-4",
        rfc: "RFC 5780",
        section: "6.1, 7.5, 7.6",
        title: "RESPONSE-PORT is followed, PADDING is answered with PADDING, and both together with 400",
        proofs: &[
            Shown(s5780_4_padding_and_port),
            Test("tests/rfc5780.rs::s5780_4_padding_comes_back_but_does_not_amplify"),
        ],
    },
    Statement {
        id: "5780-mtu",
        rfc: "RFC 5780",
        section: "7.6",
        title: "the PADDING of an answer is as long as a packet can be, however short that of the question",
        proofs: &[
            Refused(
                "anybody could have 60 times as many bytes sent to anybody: it is as long as the question's",
            ),
            Shown(s5780_padding_of_a_whole_packet),
        ],
    },
    Statement {
        id: "5780-5",
        rfc: "RFC 5780",
        section: "7.5",
        title: "only over UDP and only where it is switched on",
        proofs: &[
            Shown(s5780_5_udp_alone),
            Test("tests/rfc5780.rs::s5780_5_answers_are_few_for_each_network"),
        ],
    },
    Statement {
        id: "300-1",
        rfc: "RFC 8489",
        section: "10, 14.8, 14.15",
        title: "only users are sent elsewhere, and the answer that says so is signed",
        proofs: &[Shown(s300_1_users_only)],
    },
    Statement {
        id: "300-2",
        rfc: "RFC 8489",
        section: "10",
        title: "who is sent elsewhere gets realm and nonce for there",
        proofs: &[Shown(s300_2_nonce_for_there)],
    },
    Statement {
        id: "300-3",
        rfc: "RFC 8155",
        section: "6",
        title: "an anycast address sends users to its own unicast address",
        proofs: &[Shown(s300_3_anycast)],
    },
    Statement {
        id: "2.3-11",
        rfc: "RFC 8656",
        section: "7.2 (11)",
        title: "a server may send a user elsewhere, once it knows the user",
        proofs: &[Shown(s300_1_users_only)],
    },
    Statement {
        id: "300",
        rfc: "Error codes",
        section: "Try Alternate",
        title: "with a server of the client's family",
        proofs: &[Shown(try_alternate)],
    },
    Statement {
        id: "ALPN",
        rfc: "RFC 7443",
        section: "3",
        title: "TLS speaks stun.turn and stun.nat-discovery, serves who names nothing, and web clients where it is told to",
        proofs: &[Shown(alpn)],
    },
];

// ---- redirection ----

/// A user's Allocate at a server that sends everybody elsewhere.
fn sent_away(client: &mut Client) -> Seen<Stun> {
    let answer = client.refused_signed(Build::allocate(), 300)?;
    ensure!(
        answer.has(attr::ALTERNATE_SERVER),
        "300 without ALTERNATE-SERVER"
    );
    Ok(answer)
}

fn s300_1_users_only(ground: &Ground) -> Seen {
    let mut client = ground.redirected_client()?;
    // 401 for a stranger and for a wrong password, and nothing for who wants no allocation.
    client.challenge()?;
    let password = client.login.password.clone();
    client.login.password.push('x');
    client.refused(Build::allocate(), 401)?;
    client.login.password = password;
    client.refused_signed(Build::refresh(600), 437)?;
    let binding = client.exchange(&Build::binding())?;
    ensure!(
        binding.class == Class::Success && !binding.has(attr::ALTERNATE_SERVER),
        "Binding is sent elsewhere"
    );
    let answer = sent_away(&mut client)?;
    let families: Vec<bool> = answer
        .all(attr::ALTERNATE_SERVER)
        .filter_map(|value| Some(value.get(1)? == &2))
        .collect();
    ensure!(
        families == [false, true],
        "ALTERNATE-SERVER is IPv6: {families:?}, for a client on IPv4"
    );
    Ok(())
}

fn s300_2_nonce_for_there(ground: &Ground) -> Seen {
    let mut client = ground.redirected_client()?;
    let answer = sent_away(&mut client)?;
    let target = answer.address(attr::ALTERNATE_SERVER);
    let target = target.ok_or("an unreadable ALTERNATE-SERVER")?;
    ensure!(
        !target.ip().is_loopback() || matches!(ground.hosts, Hosts::Namespace(_)),
        "{target} is nowhere"
    );
    let ip = client.link.local()?.ip();
    let mut there = ground.client_from(Transport::Udp, target, ip)?;
    there.login = client.login.clone();
    there.learn(&answer)?;
    let answer = there.exchange(&there.signed(Build::allocate()))?;
    ensure!(
        answer.class == Class::Success,
        "{} there, with the nonce of the 300",
        code_or_success(&answer)
    );
    Ok(())
}

fn s300_3_anycast(ground: &Ground) -> Seen {
    let missing = || Trouble::absent("no server behind an anycast address");
    let anycast = ground.anycast.as_ref().ok_or_else(missing)?;
    let mut client = ground.client_of(anycast, Transport::Udp)?;
    let answer = sent_away(&mut client)?;
    let target = answer.address(attr::ALTERNATE_SERVER);
    ensure!(
        target == anycast.others.first().copied(),
        "sent to {target:?} and not to {:?}",
        anycast.others
    );
    let target = target.ok_or("an unreadable ALTERNATE-SERVER")?;
    let ip = client.link.local()?.ip();
    let mut there = ground.client_from(Transport::Udp, target, ip)?;
    there.login = client.login.clone();
    there.allocate().map(drop)
}

fn try_alternate(ground: &Ground) -> Seen {
    let mut client = ground.redirected_client()?;
    let answer = sent_away(&mut client)?;
    let first = answer.address(attr::ALTERNATE_SERVER);
    ensure!(
        first.is_some_and(|to| to.is_ipv4()),
        "{first:?} for a client on IPv4"
    );
    let Some(v6) = ground.redirect.as_ref().and_then(|server| server.udp6) else {
        return Ok(());
    };
    let ip = ground.hosts.client(v6.ip());
    let mut client = ground.client_from(Transport::Udp, v6, ip)?;
    let answer = sent_away(&mut client)?;
    let first = answer.address(attr::ALTERNATE_SERVER);
    ensure!(
        first.is_some_and(|to| to.is_ipv6()),
        "{first:?} for a client on IPv6"
    );
    Ok(())
}

// ---- RFC 5780 ----

/// A client of the first of the two places that tell of each other, and both.
fn at_discovery(ground: &Ground) -> Seen<(Client, SocketAddr, SocketAddr)> {
    let missing = || Trouble::absent("no NAT discovery");
    let [first, second] = ground.full.discovery.ok_or_else(missing)?;
    let ip = ground.hosts.client(first.ip());
    let client = ground.client_from(Transport::Udp, first, ip)?;
    Ok((client, first, second))
}

fn change(flags: u32) -> Build {
    Build::binding().u32(attr::CHANGE_REQUEST, flags)
}

fn s5780_1_off(ground: &Ground) -> Seen {
    let mut client = ground.plain_client()?;
    let answer = client.exchange(&Build::binding())?;
    for kind in [attr::OTHER_ADDRESS, attr::RESPONSE_ORIGIN] {
        ensure!(
            !answer.has(kind),
            "{kind:#06x} where there is no second address"
        );
    }
    for flags in [2, 4, 6] {
        let answer = client.exchange(&change(flags))?;
        let listed = answer.get(attr::UNKNOWN_ATTRIBUTES);
        ensure!(
            answer.code() == 420 && listed == Some(&[0, 3]),
            "{} and UNKNOWN-ATTRIBUTES {listed:02x?} for CHANGE-REQUEST",
            code_or_success(&answer)
        );
    }
    Ok(())
}

fn s5780_2_addresses(ground: &Ground) -> Seen {
    let (mut client, first, second) = at_discovery(ground)?;
    let answer = client.exchange(&Build::binding())?;
    let local = client.link.local()?;
    let told = [
        answer.address(attr::MAPPED_ADDRESS),
        answer.xor_address(attr::XOR_MAPPED_ADDRESS),
        answer.address(attr::RESPONSE_ORIGIN),
        answer.address(attr::OTHER_ADDRESS),
    ];
    ensure!(
        told == [local, local, first, second].map(Some),
        "{told:?} instead of {local} twice, {first} and {second}"
    );
    Ok(())
}

fn s5780_3_table_1(ground: &Ground) -> Seen {
    let (client, first, second) = at_discovery(ground)?;
    let other_ip = SocketAddr::new(second.ip(), first.port());
    let other_port = SocketAddr::new(first.ip(), second.port());
    let socket = client.link.socket()?;
    for (flags, expected) in [(0, first), (4, other_ip), (2, other_port), (6, second)] {
        let request = change(flags);
        socket.send_to(&request.bytes(), first)?;
        let mut buffer = [0; 1500];
        let (length, from) = socket
            .recv_from(&mut buffer)
            .map_err(|_| format!("no answer for flags {flags}"))?;
        let answer = Stun::read(&buffer[..length])?;
        ensure!(
            answer.id == request.id() && from == expected,
            "an answer from {from} instead of {expected} for flags {flags}"
        );
        let told = [attr::RESPONSE_ORIGIN, attr::OTHER_ADDRESS].map(|kind| answer.address(kind));
        ensure!(
            told == [Some(expected), Some(second)],
            "RESPONSE-ORIGIN and OTHER-ADDRESS are {told:?} for flags {flags}"
        );
    }
    Ok(())
}

fn s5780_4_padding_and_port(ground: &Ground) -> Seen {
    let (mut client, first, _) = at_discovery(ground)?;
    let beside = Peer::new(udp_socket(client.link.local()?.ip(), ground.patience)?)?;
    let request = Build::binding().u16(attr::RESPONSE_PORT, beside.address.port());
    client.link.send(&request.bytes())?;
    let (bytes, from) = beside.receive()?;
    let answer = Stun::read(&bytes)?;
    ensure!(
        answer.id == request.id() && from == first,
        "the port gets something else, from {from}"
    );
    let request = Build::binding().attr(attr::PADDING, &[0; 1200]);
    let answer = client.exchange(&request)?;
    let padding = answer.get(attr::PADDING).map_or(0, <[u8]>::len);
    ensure!(padding > 0, "no PADDING");
    let both = Build::binding()
        .attr(attr::PADDING, &[0; 64])
        .u16(attr::RESPONSE_PORT, beside.address.port());
    let answer = client.exchange(&both)?;
    ensure!(
        answer.code() == 400,
        "{} for PADDING and RESPONSE-PORT",
        code_or_success(&answer)
    );
    Ok(())
}

fn s5780_padding_of_a_whole_packet(ground: &Ground) -> Seen {
    let (mut client, ..) = at_discovery(ground)?;
    let answer = client.exchange(&Build::binding().attr(attr::PADDING, &[0; 4]))?;
    let length = answer.bytes.len();
    ensure!(length >= 1200, "{length} bytes for a short PADDING");
    Ok(())
}

fn s5780_5_udp_alone(ground: &Ground) -> Seen {
    at_discovery(ground)?;
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut client = ground.client_over(transport)?;
        let answer = client.exchange(&change(6))?;
        ensure!(
            matches!(answer.code(), 400 | 420),
            "{} for CHANGE-REQUEST over {transport:?}",
            code_or_success(&answer)
        );
    }
    Ok(())
}

// ---- RFC 7443 ----

fn alpn(ground: &Ground) -> Seen {
    let server = ground
        .full
        .tls
        .ok_or_else(|| Trouble::absent("no TLS listener"))?;
    for (offered, chosen) in [
        (&[&b"stun.turn"[..]][..], Some(&b"stun.turn"[..])),
        (&[b"stun.nat-discovery"], Some(b"stun.nat-discovery")),
        (&[b"h2", b"stun.turn"], Some(b"stun.turn")),
        (&[], None),
    ] {
        let ip = ground.hosts.client(server.ip());
        let stream = connect(server, ip, ground.patience)?;
        let (mut session, named) = tls(stream, offered)?;
        let names: Vec<_> = offered
            .iter()
            .map(|name| String::from_utf8_lossy(name))
            .collect();
        ensure!(
            named.as_deref() == chosen,
            "{:?} is chosen from {names:?}",
            named.map(|name| String::from_utf8_lossy(&name).into_owned())
        );
        let request = Build::binding();
        session.write_all(&request.bytes())?;
        session.flush()?;
        let mut answer = [0; 20];
        session
            .read_exact(&mut answer)
            .map_err(|_| format!("no answer to who offers {names:?}"))?;
        ensure!(answer[8..] == request.id(), "another answer for {names:?}");
    }
    // Web clients are no reason for an alert.
    let ip = ground.hosts.client(server.ip());
    tls(connect(server, ip, ground.patience)?, &[b"http/1.1"])?;
    Ok(())
}
