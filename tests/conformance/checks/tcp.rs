//! RFC 6062: relays of TCP.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use socket2::{Domain, SockRef, Socket, Type};

use crate::client::{Client, code_or_success, relayed};
use crate::ground::Ground;
use crate::packet::{Build, Class, Packet, Stun, attr, method};
use crate::statement::Proof::{Refused, Seen as Shown, Test, Waiting};
use crate::statement::{Seen, Statement, ensure};
use crate::wire::{self, Transport, is_timeout};

pub(crate) const STATEMENTS: &[Statement] = &[
    Statement {
        id: "6062-1",
        rfc: "RFC 6062",
        section: "5.1",
        title: "a TCP relay is for clients on a stream (400 over datagrams), and listens at once",
        proofs: &[Shown(s6062_1_streams_only)],
    },
    Statement {
        id: "6062-2",
        rfc: "RFC 6062",
        section: "5.2",
        title: "Connect: 437, 446, 400, 403 and 447 where due, otherwise a CONNECTION-ID that nobody guesses",
        proofs: &[
            Shown(s6062_2_connect),
            Test("tests/rfc6062.rs::s6062_2_a_second_connection_to_a_peer_is_446"),
        ],
    },
    Statement {
        id: "6062-3",
        rfc: "RFC 6062",
        section: "5.2, 5.3",
        title: "a connection to a peer that nobody binds is closed after 30 s",
        proofs: &[
            Waiting(s6062_3_unbound),
            Test("tests/rfc6062.rs::s6062_3_an_id_is_good_for_thirty_seconds"),
        ],
    },
    Statement {
        id: "6062-4",
        rfc: "RFC 6062",
        section: "5.3",
        title: "a peer that connects is announced if it has a permission, and closed if not",
        proofs: &[Shown(s6062_4_inbound)],
    },
    Statement {
        id: "6062-5",
        rfc: "RFC 6062",
        section: "5.4",
        title: "ConnectionBind joins the two connections byte by byte, what came early included; a wrong id is 400",
        proofs: &[Shown(s6062_5_bind)],
    },
    Statement {
        id: "6062-6",
        rfc: "RFC 6062",
        section: "5.5",
        title: "one side that closes closes the other, and the end of the allocation closes all",
        proofs: &[Shown(s6062_6_ends)],
    },
    Statement {
        id: "2.3-6062",
        rfc: "RFC 6062",
        section: "5.1",
        title: "Allocate for TCP with DONT-FRAGMENT, EVEN-PORT or RESERVATION-TOKEN is 400",
        proofs: &[Shown(what_goes_with_udp_alone)],
    },
    Statement {
        id: "2.3-403",
        rfc: "RFC 6062",
        section: "5.1",
        title: "who may have TCP relays alone is 403 when it asks for one of UDP",
        proofs: &[Refused(
            "no setting forbids UDP relays, so nobody is to be told",
        )],
    },
    Statement {
        id: "446",
        rfc: "Error codes",
        section: "Connection Already Exists",
        title: "to a second Connect to the same peer",
        proofs: &[Shown(already_exists)],
    },
    Statement {
        id: "447",
        rfc: "Error codes",
        section: "Connection Timeout or Failure",
        title: "to a Connect to a peer that refuses",
        proofs: &[Waiting(timeout_or_failure)],
    },
];

/// REQUESTED-TRANSPORT for TCP.
fn allocate_tcp() -> Build {
    Build::request(method::ALLOCATE).attr(attr::REQUESTED_TRANSPORT, &[6, 0, 0, 0])
}

fn connect(peer: SocketAddr) -> Build {
    Build::request(method::CONNECT).peer(peer)
}

/// A client with a TCP relay, and its address.
fn control(ground: &Ground) -> Seen<(Client, SocketAddr)> {
    let mut client = ground.client_over(Transport::Tcp)?;
    let answer = client.succeed(allocate_tcp())?;
    Ok((client, relayed(&answer)?))
}

fn connection_id(answer: &Stun) -> Seen<u32> {
    let id = answer.u32(attr::CONNECTION_ID);
    id.ok_or_else(|| "no CONNECTION-ID".into())
}

/// A data connection of a client for the peer connection with this number.
fn bind(ground: &Ground, control: &Client, id: u32) -> Seen<Client> {
    let mut data = data_client(ground, control)?;
    data.succeed(connection_bind(id))?;
    Ok(data)
}

/// A second connection of a client, from the same address.
fn data_client(ground: &Ground, control: &Client) -> Seen<Client> {
    let ip = control.link.local()?.ip();
    let mut data = ground.client_from(Transport::Tcp, control.link.server, ip)?;
    data.login = control.login.clone();
    data.realm = control.realm.clone();
    data.nonce = control.nonce.clone();
    Ok(data)
}

fn connection_bind(id: u32) -> Build {
    Build::request(method::CONNECTION_BIND).u32(attr::CONNECTION_ID, id)
}

/// Who may take connections, at an address of its own.
fn listener(ground: &Ground) -> Seen<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((ground.hosts.peer(false)?, 0))?;
    SockRef::from(&listener).set_read_timeout(Some(ground.patience))?;
    let at = listener.local_addr()?;
    Ok((listener, at))
}

fn accept(ground: &Ground, listener: &TcpListener) -> Seen<(TcpStream, SocketAddr)> {
    let accepted = listener.accept();
    let (stream, from) = accepted.map_err(|_| "nobody connects to the peer")?;
    stream.set_read_timeout(Some(ground.patience))?;
    Ok((stream, from))
}

/// Connects to a relay; nothing if that closes the connection at once.
fn dial(ground: &Ground, relayed: SocketAddr, from: IpAddr) -> Seen<Option<TcpStream>> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    match socket.connect_timeout(&relayed.into(), ground.patience) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(ground.patience))?;
    Ok(Some(stream))
}

/// Connected, and what the relay was asked to connect to.
fn joined(ground: &Ground) -> Seen<(Client, TcpStream, Client)> {
    let (mut client, _) = control(ground)?;
    let (listener, at) = listener(ground)?;
    let answer = client.succeed(connect(at))?;
    let (peer, _) = accept(ground, &listener)?;
    let data = bind(ground, &client, connection_id(&answer)?)?;
    Ok((client, peer, data))
}

fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(length) => length == 0,
        Err(error) => !is_timeout(&error),
    }
}

fn s6062_1_streams_only(ground: &Ground) -> Seen {
    ground.client()?.refused_signed(allocate_tcp(), 400)?;
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut client = ground.client_over(transport)?;
        let relayed = relayed(&client.succeed(allocate_tcp())?)?;
        dial(ground, relayed, ground.hosts.peer(false)?)
            .map_err(|error| format!("nobody listens on {relayed}: {error}"))?;
    }
    Ok(())
}

fn s6062_2_connect(ground: &Ground) -> Seen {
    let (listener, at) = listener(ground)?;
    let mut client = ground.client_over(Transport::Tcp)?;
    client.refused_signed(connect(at), 437)?;
    client.succeed(allocate_tcp())?;
    client.refused_signed(Build::request(method::CONNECT), 400)?;
    client.refused_signed(connect(([224, 0, 0, 1], 2000).into()), 403)?;
    let mut ids = BTreeSet::new();
    for _ in 0..4 {
        let (mut client, relayed) = control(ground)?;
        let answer = client.succeed(connect(at))?;
        let (_, from) = accept(ground, &listener)?;
        ensure!(from == relayed, "{from} connects instead of {relayed}");
        ids.insert(connection_id(&answer)?);
    }
    let steps = ids.iter().zip(ids.iter().skip(1)).map(|(a, b)| b - a);
    ensure!(
        ids.len() == 4 && steps.max() > Some(100),
        "the ids are {ids:?}"
    );
    Ok(())
}

fn s6062_3_unbound(ground: &Ground) -> Seen {
    let (mut client, relayed) = control(ground)?;
    let (listener, at) = listener(ground)?;
    client.succeed(connect(at))?;
    let (outward, _) = accept(ground, &listener)?;
    let ip = ground.hosts.peer(false)?;
    client.permit((ip, 9).into())?;
    let inward = wire::connect(relayed, ip, ground.patience)?;
    client.next("a ConnectionAttempt")?;
    let mut streams = [(outward, "made"), (inward, "taken")];
    for (stream, which) in &mut streams {
        stream.set_read_timeout(Some(ground.patience / 5))?;
        ensure!(
            !is_closed(stream),
            "a connection that was {which} is closed at once"
        );
    }
    for (stream, which) in &mut streams {
        stream.set_read_timeout(Some(ground.patience * 9))?;
        ensure!(
            is_closed(stream),
            "a connection that was {which} is never closed"
        );
    }
    Ok(())
}

fn s6062_4_inbound(ground: &Ground) -> Seen {
    let (mut client, relayed) = control(ground)?;
    let [stranger, permitted] = [ground.hosts.peer(false)?, ground.hosts.peer(false)?];
    client.permit((permitted, 9).into())?;
    if stranger != permitted {
        let stranger = dial(ground, relayed, stranger)?;
        let closed = stranger.is_none_or(|mut stream| is_closed(&mut stream));
        ensure!(closed, "a stranger is not closed");
    }
    let mut peer = wire::connect(relayed, permitted, ground.patience)?;
    peer.write_all(b"early")?;
    let Packet::Stun(attempt) = client.next("a ConnectionAttempt")? else {
        return Err("ChannelData".into());
    };
    let from = attempt.xor_address(attr::XOR_PEER_ADDRESS);
    ensure!(
        (attempt.class, attempt.method) == (Class::Indication, method::CONNECTION_ATTEMPT)
            && from == Some(peer.local_addr()?),
        "method {:#x} about {from:?}",
        attempt.method
    );
    let mut data = bind(ground, &client, connection_id(&attempt)?)?;
    ensure!(
        data.link.read_exact(5)? == b"early",
        "what came early is lost"
    );
    Ok(())
}

fn s6062_5_bind(ground: &Ground) -> Seen {
    let (mut client, _) = control(ground)?;
    let (listener, at) = listener(ground)?;
    let id = connection_id(&client.succeed(connect(at))?)?;
    let (mut peer, _) = accept(ground, &listener)?;
    peer.write_all(b"said before anybody listened")?;
    let mut over_udp = ground.client()?;
    over_udp.login = client.login.clone();
    over_udp.refused_signed(connection_bind(id), 400)?;
    let mut data = data_client(ground, &client)?;
    data.refused_signed(Build::request(method::CONNECTION_BIND), 400)?;
    let mut data = data_client(ground, &client)?;
    data.refused_signed(connection_bind(id ^ 1), 400)?;
    if ground.logins.secret.is_some() {
        let mut stranger = data_client(ground, &client)?;
        stranger.login = ground.logins.next()?;
        stranger.challenge()?;
        let answer = stranger.ask(connection_bind(id))?;
        ensure!(
            answer.class == Class::Error,
            "another user takes the connection"
        );
    }
    // What stands behind the request is the peer's already, whatever it looks like.
    let mut data = data_client(ground, &client)?;
    let request = data.signed(connection_bind(id));
    let behind = Build::binding().bytes();
    data.link
        .send(&[request.bytes(), behind.clone()].concat())?;
    let answer = data.answer_to(request.id())?;
    ensure!(
        answer.class == Class::Success,
        "{}",
        code_or_success(&answer)
    );
    let early = data.link.read_exact(28)?;
    ensure!(
        early == b"said before anybody listened",
        "{early:02x?} comes first"
    );
    let mut heard = vec![0; behind.len()];
    peer.read_exact(&mut heard)?;
    ensure!(heard == behind, "the peer hears {heard:02x?}");
    peer.write_all(b"\x00\x01 and any bytes")?;
    let heard = data.link.read_exact(16)?;
    ensure!(heard == b"\x00\x01 and any bytes", "{heard:02x?}");
    Ok(())
}

fn s6062_6_ends(ground: &Ground) -> Seen {
    let (_client, peer, mut data) = joined(ground)?;
    drop(peer);
    ensure!(
        data.link.is_closed(),
        "the client does not see that the peer has closed"
    );
    let (_client, mut peer, data) = joined(ground)?;
    drop(data);
    ensure!(
        is_closed(&mut peer),
        "the peer does not see that the client has closed"
    );
    let (mut client, mut peer, mut data) = joined(ground)?;
    client.succeed(Build::refresh(0))?;
    ensure!(
        is_closed(&mut peer) && data.link.is_closed(),
        "a connection outlives its allocation"
    );
    Ok(())
}

fn what_goes_with_udp_alone(ground: &Ground) -> Seen {
    let mut client = ground.client_over(Transport::Tcp)?;
    client.refused_signed(allocate_tcp().attr(attr::DONT_FRAGMENT, b""), 400)?;
    client.refused_signed(allocate_tcp().attr(attr::EVEN_PORT, &[0]), 400)?;
    let token = allocate_tcp().attr(attr::RESERVATION_TOKEN, b"12345678");
    client.refused_signed(token, 400).map(drop)
}

fn already_exists(ground: &Ground) -> Seen {
    let (mut client, _) = control(ground)?;
    let (_listener, at) = listener(ground)?;
    client.succeed(connect(at))?;
    client.refused_signed(connect(at), 446).map(drop)
}

fn timeout_or_failure(ground: &Ground) -> Seen {
    let (mut client, _) = control(ground)?;
    let (listener, at) = listener(ground)?;
    drop(listener);
    // The server may wait with its answer, as it does for a peer that says nothing.
    client.link.set_patience(ground.patience * 10)?;
    client.refused_signed(connect(at), 447).map(drop)
}
