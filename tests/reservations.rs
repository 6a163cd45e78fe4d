//! EVEN-PORT and RESERVATION-TOKEN over real sockets \[T2\]: a port held by one worker for another.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod wire;

use std::net::SocketAddr;

use turnd::plane::Listen;
use turnd::stun::{Attribute, Method};
use turnd::turn::{EndReason, Transport};
use wire::{Client, PASSWORD, Plane, ip, loopback, peer, receive_from};

/// Enough that some are dealt to each worker: that all of the clients of a test meet one worker of four by chance
/// happens in one of 4^24 runs.
const ROUNDS: usize = 24;

#[test]
fn t2_a_token_is_good_on_any_worker_transport_and_listener_once_for_its_user() {
    let (plane, other) = plane();
    let peer = peer("127.0.0.2");
    let at = peer.local_addr().unwrap();
    for round in 0..ROUNDS {
        let mut rtp = match round % 3 {
            0 => Client::tcp(plane.tcp),
            _ => Client::udp(plane.udp),
        };
        let (even, token) = reserve(&mut rtp);
        assert_eq!(even.port() % 2, 0);
        // A guess, and somebody else who has the token.
        let guess = token.map(|byte| !byte);
        assert_eq!(redeem(&mut Client::udp(other), guess), Err(508));
        let mut mallory = Client::tcp(plane.tcp).named("mallory");
        assert_eq!(redeem(&mut mallory, token), Err(508));
        // Neither took anything away.
        let mut rtcp = match round % 2 {
            0 => Client::tcp(other),
            _ => Client::udp(other),
        };
        let odd = SocketAddr::new(even.ip(), even.port() + 1);
        assert_eq!(redeem(&mut rtcp, token), Ok(odd));
        assert_eq!(redeem(&mut Client::udp(plane.udp), token), Err(508));
        // Both relay, each with its own port.
        for (client, relayed) in [(&mut rtp, even), (&mut rtcp, odd)] {
            assert_eq!(client.permit(at).code(), 0);
            client.send_indication(at, b"to the peer");
            assert_eq!(receive_from(&peer), (b"to the peer".to_vec(), relayed));
            peer.send_to(b"and back", relayed).unwrap();
            assert_eq!(client.receive_data(), (at, b"and back".to_vec()));
        }
    }
}

/// While it is held, the port is nobody else's, however many want one.
#[test]
fn t2_a_held_port_is_given_to_nobody_else() {
    let (plane, _) = plane();
    let (even, token) = reserve(&mut Client::udp(plane.udp));
    let held = SocketAddr::new(even.ip(), even.port() + 1);
    // More than the range has: the last are refused.
    let mut clients: Vec<Client> = Vec::new();
    let refused = (0..400).any(|_| {
        let mut client = Client::udp(plane.udp);
        let answer = client.request(Method::ALLOCATE, |writer| {
            writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        });
        let refused = answer.code() == 508;
        if !refused {
            let relayed = answer.message().xor_relayed_address().unwrap().unwrap();
            assert_ne!(relayed, held);
        }
        clients.push(client);
        refused
    });
    assert!(refused, "the range never ran out");
    assert_eq!(redeem(&mut Client::tcp(plane.tcp), token), Ok(held));
}

/// \[A26\]: a port that is held is nobody's allocation, so whoever reserves in a row and lets the allocations go is
/// stopped where its quota is; the others are not.
#[test]
fn a26_a_user_holds_no_more_ports_than_it_may_have_allocations() {
    let plane = Plane::start_with(2, vec![loopback()], |settings| {
        settings.users.add_user("mallory", PASSWORD);
        settings.limits.per_user = 3;
    });
    let mut codes = Vec::new();
    for _ in 0..12 {
        let mut client = Client::udp(plane.udp).named("mallory");
        let answer = client.request(Method::ALLOCATE, |writer| {
            writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
            writer.even_port(true);
        });
        codes.push(answer.code());
        let gone = client.request(Method::REFRESH, |writer| {
            writer.u32(Attribute::LIFETIME, 0);
        });
        assert_eq!(gone.code(), if answer.code() == 0 { 0 } else { 437 });
    }
    assert_eq!(codes[..3], [0; 3]);
    assert_eq!(codes[3..], [508; 9]);
    let snapshot = plane.snapshot();
    assert_eq!(snapshot.ports.used, 3);
    assert_eq!(snapshot.cells.ends(EndReason::Deleted), 3);
    // It may have other allocations, and others may reserve.
    Client::udp(plane.udp).named("mallory").allocate();
    reserve(&mut Client::udp(plane.udp));
}

/// Four workers, two users, and the address of a second listener for UDP and TCP.
fn plane() -> (Plane, SocketAddr) {
    let other = std::net::TcpListener::bind((ip("127.0.0.1"), 0)).unwrap();
    let address = other.local_addr().unwrap();
    drop(other);
    let plane = Plane::start_as(
        4,
        vec![loopback()],
        |settings| settings.users.add_user("mallory", PASSWORD),
        |plane| {
            for transport in [Transport::Udp, Transport::Tcp] {
                plane.listeners.push(Listen::new(address, transport));
            }
        },
    );
    (plane, address)
}

/// An even port, and the token of the next.
fn reserve(client: &mut Client) -> (SocketAddr, [u8; 8]) {
    let answer = client.request(Method::ALLOCATE, |writer| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        writer.even_port(true);
    });
    let answer = answer.success();
    (
        answer.xor_relayed_address().unwrap().unwrap(),
        answer.reservation_token().unwrap().unwrap(),
    )
}

/// What the token is worth to a client: its relayed address, or the error.
fn redeem(client: &mut Client, token: [u8; 8]) -> Result<SocketAddr, u16> {
    let answer = client.request(Method::ALLOCATE, |writer| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        writer.bytes(Attribute::RESERVATION_TOKEN, &token);
    });
    match answer.code() {
        0 => Ok(answer.message().xor_relayed_address().unwrap().unwrap()),
        code => Err(code),
    }
}
