//! RFC 5780, redirection, and how servers are found.

use crate::client::{Client, code_or_success};
use crate::ground::{Ground, Hosts};
use crate::packet::{Build, Class, Stun, attr};
use crate::statement::Proof::Seen as Shown;
use crate::statement::{Seen, Statement, Trouble, ensure};
use crate::wire::Transport;

pub(crate) const STATEMENTS: &[Statement] = &[
    Statement {
        id: "5780-1",
        rfc: "RFC 5780",
        section: "6",
        title: "without a second address there is no OTHER-ADDRESS, and CHANGE-REQUEST is 420",
        proofs: &[],
    },
    Statement {
        id: "5780-2",
        rfc: "RFC 5780",
        section: "6.1",
        title: "Binding tells both mapped addresses, where the answer leaves from, and the other address",
        proofs: &[],
    },
    Statement {
        id: "5780-3",
        rfc: "RFC 5780",
        section: "6.1",
        title: "CHANGE-REQUEST has the answer leave from the other address, the other port, or both",
        proofs: &[],
    },
    Statement {
        id: "5780-4",
        rfc: "RFC 5780",
        section: "6.1, 7.5, 7.6",
        title: "RESPONSE-PORT is followed, PADDING answered by no more than was asked, both together 400",
        proofs: &[],
    },
    Statement {
        id: "5780-5",
        rfc: "RFC 5780",
        section: "7.5",
        title: "only over UDP and only where it is switched on",
        proofs: &[],
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
        title: "TLS speaks stun.turn and stun.nat-discovery, and serves who names nothing",
        proofs: &[],
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
