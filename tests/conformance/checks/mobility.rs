//! RFC 8016: allocations that move with their client.

use std::net::SocketAddr;

use crate::client::{Client, Data, code_or_success, relayed};
use crate::ground::Ground;
use crate::packet::{Build, Class, Stun, attr};
use crate::statement::Proof::Seen as Shown;
use crate::statement::{Seen, Statement, ensure};
use crate::wire::Transport;

pub(crate) const STATEMENTS: &[Statement] = &[
    Statement {
        id: "8016-1",
        rfc: "RFC 8016",
        section: "3.1.2, 5",
        title: "who asks for a ticket when it allocates gets one that says nothing and fits a packet",
        proofs: &[Shown(s8016_1_tickets)],
    },
    Statement {
        id: "8016-2",
        rfc: "RFC 8016",
        section: "3.2.2",
        title: "Refresh with a ticket finds its allocation from anywhere: 400, 437 or 441 where it may not",
        proofs: &[Shown(s8016_2_errors)],
    },
    Statement {
        id: "8016-3",
        rfc: "RFC 8016",
        section: "3.2.2",
        title: "each move gives another ticket, and the same request again is answered again",
        proofs: &[Shown(s8016_3_repeated)],
    },
    Statement {
        id: "8016-4",
        rfc: "RFC 8016",
        section: "3.2.2",
        title: "the old way carries data until the client uses the new one",
        proofs: &[Shown(s8016_4_old_way)],
    },
    Statement {
        id: "8016-5",
        rfc: "RFC 8016",
        section: "3.2",
        title: "a move between UDP, TCP and TLS and between families keeps relay, permissions and channels",
        proofs: &[Shown(s8016_5_everywhere)],
    },
    Statement {
        id: "2.3-8016",
        rfc: "RFC 8016",
        section: "3.1.2",
        title: "a ticket in Allocate that is not empty is 400",
        proofs: &[Shown(allocate_with_a_ticket)],
    },
    Statement {
        id: "405",
        rfc: "Error codes",
        section: "Mobility Forbidden",
        title: "to who asks for a ticket where there are none",
        proofs: &[Shown(mobility_forbidden)],
    },
];

/// An allocation that can move, and its ticket.
fn movable(ground: &Ground) -> Seen<(Client, SocketAddr, Vec<u8>)> {
    let mut client = ground.client()?;
    let answer = client.succeed(Build::allocate().attr(attr::MOBILITY_TICKET, b""))?;
    let ticket = ticket(&answer)?;
    Ok((client, relayed(&answer)?, ticket))
}

fn ticket(answer: &Stun) -> Seen<Vec<u8>> {
    let ticket = answer.get(attr::MOBILITY_TICKET);
    let ticket = ticket.filter(|ticket| !ticket.is_empty());
    Ok(ticket.ok_or("no MOBILITY-TICKET")?.to_vec())
}

fn with_ticket(ticket: &[u8]) -> Build {
    Build::refresh(600).attr(attr::MOBILITY_TICKET, ticket)
}

/// The same user, elsewhere.
fn elsewhere(ground: &Ground, transport: Transport, of: &Client) -> Seen<Client> {
    let mut client = ground.client_over(transport)?;
    client.login = of.login.clone();
    Ok(client)
}

fn s8016_1_tickets(ground: &Ground) -> Seen {
    let (_, _, first) = movable(ground)?;
    let (client, _, second) = movable(ground)?;
    ensure!(first != second, "two allocations have the same ticket");
    ensure!(first.len() <= 400, "a ticket of {} bytes", first.len());
    let name = client.login.user.as_bytes();
    let told = second.windows(name.len()).any(|part| part == name);
    ensure!(!told, "the ticket shows the name of the user");
    // Who does not ask gets none.
    let mut other = ground.client()?;
    let answer = other.succeed(Build::allocate())?;
    ensure!(
        !answer.has(attr::MOBILITY_TICKET),
        "a ticket nobody asked for"
    );
    Ok(())
}

fn s8016_2_errors(ground: &Ground) -> Seen {
    let (mut client, _, ticket) = movable(ground)?;
    client.refused_signed(with_ticket(&ticket), 400)?;
    let mut other = elsewhere(ground, Transport::Udp, &client)?;
    let mut wrong = ticket.clone();
    if let Some(byte) = wrong.last_mut() {
        *byte ^= 1;
    }
    other.refused_signed(with_ticket(&wrong), 400)?;
    other.refused_signed(with_ticket(b"no ticket at all"), 400)?;
    if ground.logins.secret.is_some() {
        let mut stranger = ground.client()?;
        stranger.refused_signed(with_ticket(&ticket), 441)?;
    }
    other.succeed(with_ticket(&ticket))?;
    let (mut client, _, ticket) = movable(ground)?;
    client.succeed(Build::refresh(0))?;
    let mut other = elsewhere(ground, Transport::Udp, &client)?;
    other.refused_signed(with_ticket(&ticket), 437).map(drop)
}

fn s8016_3_repeated(ground: &Ground) -> Seen {
    let (client, _, old) = movable(ground)?;
    let mut other = elsewhere(ground, Transport::Udp, &client)?;
    other.challenge()?;
    let request = other.signed(with_ticket(&old));
    let first = other.exchange(&request)?;
    let again = other.exchange(&request)?;
    for answer in [&first, &again] {
        let word = code_or_success(answer);
        ensure!(answer.class == Class::Success, "{word} for a move");
        ensure!(ticket(answer)? != old, "the ticket is the old one");
    }
    Ok(())
}

fn s8016_4_old_way(ground: &Ground) -> Seen {
    let (mut old, relayed, ticket) = movable(ground)?;
    let peer = ground.peer()?;
    old.bind(CHANNEL, peer.address)?;
    let mut new = elsewhere(ground, Transport::Udp, &old)?;
    new.succeed(with_ticket(&ticket))?;
    let expect = |client: &mut Client, data: &[u8], which: &str| -> Seen {
        let heard = client.data();
        let expected = Data::Channel(CHANNEL, data.to_vec());
        ensure!(
            heard.as_ref() == Ok(&expected),
            "{heard:?} on the {which} way"
        );
        Ok(())
    };
    peer.send(relayed, b"old way")?;
    expect(&mut old, b"old way", "old")?;
    old.send_channel(CHANNEL, b"old still")?;
    peer.hears(b"old still")?;
    new.send_channel(CHANNEL, b"new")?;
    peer.hears(b"new")?;
    peer.send(relayed, b"new way")?;
    expect(&mut new, b"new way", "new")
}

fn s8016_5_everywhere(ground: &Ground) -> Seen {
    let (mut client, relayed, mut ticket_now) = movable(ground)?;
    let [first, second] = ground.peers()?;
    client.bind(CHANNEL, first.address)?;
    client.permit(second.address)?;
    for step in [
        Some(Transport::Tcp),
        Some(Transport::Tls),
        None,
        Some(Transport::Udp),
    ] {
        let mut next = match step {
            Some(transport) => ground.client_over(transport)?,
            None => ground.client6()?,
        };
        next.login = client.login.clone();
        let answer = next.succeed(with_ticket(&ticket_now))?;
        ticket_now = ticket(&answer)?;
        next.send_channel(CHANNEL, b"channel")?;
        first
            .hears(b"channel")
            .map_err(|error| format!("to {step:?}: {error}"))?;
        next.send_to(second.address, b"permission")?;
        second.hears(b"permission")?;
        first.send(relayed, b"back")?;
        let heard = next.data()?;
        ensure!(
            heard == Data::Channel(CHANNEL, b"back".to_vec()),
            "{heard:?}"
        );
        // The old way ends only afterwards.
        client = next;
    }
    Ok(())
}

fn allocate_with_a_ticket(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    let request = Build::allocate().attr(attr::MOBILITY_TICKET, b"a ticket");
    client.refused_signed(request, 400).map(drop)
}

fn mobility_forbidden(ground: &Ground) -> Seen {
    let mut client = ground.plain_client()?;
    let request = Build::allocate().attr(attr::MOBILITY_TICKET, b"");
    client.refused_signed(request, 405)?;
    client.allocate()?;
    let refresh = Build::refresh(600).attr(attr::MOBILITY_TICKET, b"a ticket");
    client.refused_signed(refresh, 405).map(drop)
}

const CHANNEL: u16 = 0x4016;
