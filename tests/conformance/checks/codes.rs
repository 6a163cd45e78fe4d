//! The error codes, each provoked.

use crate::client::code_or_success;
use crate::ground::Ground;
use crate::packet::{Build, attr, method};
use crate::statement::Proof::Seen as Shown;
use crate::statement::{Seen, Statement, Trouble, ensure};
use crate::wire::Transport;

pub(crate) const STATEMENTS: &[Statement] = &[
    Statement {
        id: "400",
        rfc: "Error codes",
        section: "Bad Request",
        title: "to a request that lacks something, signed once the user is known",
        proofs: &[Shown(bad_request)],
    },
    Statement {
        id: "401",
        rfc: "Error codes",
        section: "Unauthenticated",
        title: "to every method but Binding, from a stranger",
        proofs: &[Shown(unauthenticated)],
    },
    Statement {
        id: "403",
        rfc: "Error codes",
        section: "Forbidden",
        title: "for a peer that the policy forbids",
        proofs: &[Shown(forbidden)],
    },
    Statement {
        id: "420",
        rfc: "Error codes",
        section: "Unknown Attribute",
        title: "to every method, with the list",
        proofs: &[Shown(unknown_attribute)],
    },
    Statement {
        id: "437",
        rfc: "Error codes",
        section: "Allocation Mismatch",
        title: "to Allocate where there is an allocation, to the others where there is none",
        proofs: &[Shown(allocation_mismatch)],
    },
    Statement {
        id: "438",
        rfc: "Error codes",
        section: "Stale Nonce",
        title: "with a nonce that is good",
        proofs: &[Shown(stale_nonce)],
    },
    Statement {
        id: "440",
        rfc: "Error codes",
        section: "Address Family not Supported",
        title: "for a relay of a family that is not served",
        proofs: &[Shown(address_family)],
    },
    Statement {
        id: "441",
        rfc: "Error codes",
        section: "Wrong Credentials",
        title: "to another user than the allocation's",
        proofs: &[Shown(wrong_credentials)],
    },
    Statement {
        id: "442",
        rfc: "Error codes",
        section: "Unsupported Transport Protocol",
        title: "for a relay of a protocol that is not served",
        proofs: &[Shown(transport_protocol)],
    },
    Statement {
        id: "443",
        rfc: "Error codes",
        section: "Peer Address Family Mismatch",
        title: "for a peer of the family that the allocation has not",
        proofs: &[Shown(peer_family)],
    },
    Statement {
        id: "486",
        rfc: "Error codes",
        section: "Allocation Quota Reached",
        title: "to a user with too many allocations",
        proofs: &[Shown(quota_reached)],
    },
    Statement {
        id: "508",
        rfc: "Error codes",
        section: "Insufficient Capacity",
        title: "when all relay ports are taken, and for a reservation that is not there",
        proofs: &[Shown(insufficient_capacity)],
    },
];

fn bad_request(ground: &Ground) -> Seen {
    let (mut client, _) = ground.allocated()?;
    for method in [method::CREATE_PERMISSION, method::CHANNEL_BIND] {
        client.refused_signed(Build::request(method), 400)?;
    }
    let mut client = ground.client()?;
    client
        .refused_signed(Build::request(method::ALLOCATE), 400)
        .map(drop)
}

fn unauthenticated(ground: &Ground) -> Seen {
    let peer = ground.peer()?.address;
    for request in [
        Build::allocate(),
        Build::refresh(0),
        Build::permission(peer),
        Build::channel(0x4000, peer),
    ] {
        let mut client = ground.client()?;
        let answer = client.exchange(&request)?;
        let word = code_or_success(&answer);
        ensure!(
            answer.code() == 401,
            "{word} for method {:#x}",
            answer.method
        );
    }
    Ok(())
}

fn forbidden(ground: &Ground) -> Seen {
    let (mut client, _) = ground.allocated()?;
    let multicast = ([239, 1, 2, 3], 9).into();
    client.refused_signed(Build::permission(multicast), 403)?;
    client
        .refused_signed(Build::channel(0x4000, multicast), 403)
        .map(drop)
}

fn unknown_attribute(ground: &Ground) -> Seen {
    let (mut client, _) = ground.allocated()?;
    let peer = ground.peer()?.address;
    for request in [
        Build::allocate(),
        Build::refresh(600),
        Build::permission(peer),
        Build::channel(0x4000, peer),
    ] {
        let answer = client.refused_signed(request.attr(0x7ABC, b"1"), 420)?;
        let listed = answer.get(attr::UNKNOWN_ATTRIBUTES);
        ensure!(
            listed == Some(&[0x7A, 0xBC]),
            "UNKNOWN-ATTRIBUTES {listed:02x?}"
        );
    }
    let answer = client.exchange(&Build::binding().attr(0x7ABC, b"1"))?;
    let word = code_or_success(&answer);
    ensure!(answer.code() == 420, "{word} for Binding");
    Ok(())
}

fn allocation_mismatch(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    client.refused_signed(Build::refresh(600), 437)?;
    client.allocate()?;
    client.refused_signed(Build::allocate(), 437)?;
    client.succeed(Build::refresh(0))?;
    client.refused_signed(Build::refresh(600), 437).map(drop)
}

fn stale_nonce(ground: &Ground) -> Seen {
    let (mut client, _) = ground.allocated()?;
    let length = client.nonce.len();
    client.nonce = vec![b'0'; length];
    let answer = client.exchange(&client.signed(Build::refresh(600)))?;
    ensure!(answer.code() == 438, "{}", code_or_success(&answer));
    client.learn(&answer)?;
    client.succeed(Build::refresh(600)).map(drop)
}

fn address_family(ground: &Ground) -> Seen {
    let mut client = ground.plain_client()?;
    client
        .refused_signed(Build::allocate().family(2), 440)
        .map(drop)
}

fn wrong_credentials(ground: &Ground) -> Seen {
    if ground.logins.secret.is_none() {
        return Err(Trouble::absent("one user"));
    }
    let (mut client, _) = ground.allocated()?;
    client.login = ground.logins.next()?;
    client.refused_signed(Build::refresh(600), 441).map(drop)
}

fn transport_protocol(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    let request = Build::request(method::ALLOCATE).attr(attr::REQUESTED_TRANSPORT, &[132, 0, 0, 0]);
    client.refused_signed(request, 442).map(drop)
}

fn peer_family(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    client.succeed(Build::allocate().family(2))?;
    let peer = ground.peer()?.address;
    client.refused_signed(Build::permission(peer), 443)?;
    client
        .refused_signed(Build::channel(0x4000, peer), 443)
        .map(drop)
}

fn quota_reached(ground: &Ground) -> Seen {
    if ground.logins.secret.is_none() {
        return Err(Trouble::absent(
            "one user, whose quota the other checks use",
        ));
    }
    let login = ground.logins.next()?;
    let mut clients = Vec::new();
    // More than any quota here.
    for _ in 0..64 {
        let mut client = ground.plain_client()?;
        client.login = login.clone();
        let answer = client.ask(Build::allocate())?;
        match answer.code() {
            0 => clients.push(client),
            486 if answer.is_signed_by(&client.key()) => return Ok(()),
            _ => return Err(format!("{} instead of 486", code_or_success(&answer)).into()),
        }
    }
    Err(format!("{} allocations of one user", clients.len()).into())
}

fn insufficient_capacity(ground: &Ground) -> Seen {
    let tiny = ground.tiny.as_ref();
    let tiny = tiny.ok_or_else(|| Trouble::absent("no server with few ports"))?;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = ground.client_of(tiny, Transport::Udp)?;
        client.allocate()?;
        clients.push(client);
    }
    let mut client = ground.client_of(tiny, Transport::Udp)?;
    client.refused_signed(Build::allocate(), 508)?;
    let token = Build::allocate().attr(attr::RESERVATION_TOKEN, &[9; 8]);
    ground.client()?.refused_signed(token, 508).map(drop)
}
