//! TCP allocations over real sockets (RFC 6062): several workers, so that a data connection is now with the worker of
//! its allocation and now with another.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod wire;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use turnd::metrics::Direction;
use turnd::plane::{Listen, RelayAddress};
use turnd::stun::{Attribute, Class, Message, Method};
use turnd::turn::{Family, Settings, TcpRelay, Transport};
use wire::{Client, Link, PATIENCE, Plane, ip, loopback};

const WORKERS: usize = 3;
const PEER: &str = "127.0.0.2";

fn start(change: impl FnOnce(&mut TcpRelay)) -> Plane {
    Plane::start_with(WORKERS, vec![loopback()], with_tcp(change))
}

fn with_tcp(change: impl FnOnce(&mut TcpRelay)) -> impl FnOnce(&mut Settings) {
    |settings| {
        let mut rules = TcpRelay::default();
        change(&mut rules);
        settings.tcp_relay = Some(rules);
    }
}

/// A client with a TCP allocation, and its relayed address.
fn control(plane: &Plane) -> (Client, SocketAddr) {
    let mut client = Client::tcp(plane.tcp);
    let answer = client.request(Method::ALLOCATE, |writer| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 6);
    });
    let relayed = answer.success().xor_relayed_address().unwrap().unwrap();
    (client, relayed)
}

fn connect(control: &mut Client, peer: SocketAddr) -> Result<u32, u16> {
    control.set_timeout(PATIENCE * 2);
    let answer = control.request(Method::CONNECT, |writer| {
        writer.xor_address(Attribute::XOR_PEER_ADDRESS, peer);
    });
    match answer.code() {
        0 => Ok(answer.success().connection_id().unwrap().unwrap()),
        code => Err(code),
    }
}

/// The next ConnectionAttempt: peer and CONNECTION-ID.
fn attempt(control: &mut Client) -> (SocketAddr, u32) {
    let bytes = control.receive();
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(
        (message.class(), message.method()),
        (Class::Indication, Method::CONNECTION_ATTEMPT)
    );
    (
        message.xor_peer_address().unwrap().unwrap(),
        message.connection_id().unwrap().unwrap(),
    )
}

/// A data connection, and what of the peer's data came with the answer.
struct Data {
    stream: TcpStream,
    early: Vec<u8>,
}

fn bind(plane: &Plane, id: u32) -> Result<Data, u16> {
    let mut client = Client::tcp(plane.tcp);
    let answer = client.request(Method::CONNECTION_BIND, |writer| {
        writer.u32(Attribute::CONNECTION_ID, id);
    });
    let Link::Tcp(stream, early) = client.link else {
        panic!("not over TCP");
    };
    match answer.code() {
        0 => Ok(Data { stream, early }),
        code => Err(code),
    }
}

impl Data {
    /// Reads so many bytes.
    fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.early);
        let have = bytes.len();
        bytes.resize(length.max(have), 0);
        self.stream.read_exact(&mut bytes[have..]).unwrap();
        self.early = bytes.split_off(length);
        bytes
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((ip(PEER), 0)).unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let (stream, from) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    (stream, from)
}

/// A peer that connects to a relay.
fn dial(relayed: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(ip(PEER), 0).into()).unwrap();
    socket.connect(&relayed.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn read(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// Whether the other side has closed, in order or not.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[test]
fn s6062_2_and_5_a_connection_to_a_peer_carries_both_ways_on_any_worker() {
    let plane = start(|_| {});
    let (listener, at) = listener();
    let mut all = Vec::new();
    for round in 0..12u8 {
        let (mut client, relayed) = control(&plane);
        let id = connect(&mut client, at).unwrap();
        let (mut peer, from) = accept(&listener);
        // The peer sees the relayed address itself.
        assert_eq!(from, relayed);
        // What it says before the client has come is not lost.
        peer.write_all(&[round; 3000]).unwrap();
        let mut data = bind(&plane, id).unwrap();
        assert_eq!(data.read(3000), [round; 3000]);
        data.stream.write_all(&[round; 5000]).unwrap();
        assert_eq!(read(&mut peer, 5000), [round; 5000]);
        all.push((client, peer, data));
    }
    // All of them at once, and again.
    for (round, (_, peer, data)) in all.iter_mut().enumerate() {
        peer.write_all(&[!(round as u8); 700]).unwrap();
        data.stream.write_all(b"again").unwrap();
    }
    for (round, (_, peer, data)) in all.iter_mut().enumerate() {
        assert_eq!(data.read(700), [!(round as u8); 700]);
        assert_eq!(read(peer, 5), b"again");
    }
    let snapshot = plane.snapshot();
    assert_eq!(snapshot.census.tcp_allocations, 12);
    assert_eq!(snapshot.peer_connections, 12);
    let carried = |direction| {
        let cells = &snapshot.cells;
        cells.traffic(direction, Transport::Tcp, Family::V4).bytes
    };
    assert_eq!(carried(Direction::ToPeer), 12 * 5005);
    assert_eq!(carried(Direction::ToClient), 12 * 3700);
}

#[test]
fn s6062_4_and_5_a_peer_may_come_and_what_either_side_says_early_arrives() {
    let plane = start(|_| {});
    for round in 0..8u8 {
        let (mut client, relayed) = control(&plane);
        let peer = SocketAddr::new(ip(PEER), 9);
        assert_eq!(client.permit(peer).code(), 0);
        let mut peer = dial(relayed);
        peer.write_all(b"early from the peer").unwrap();
        let (from, id) = attempt(&mut client);
        assert_eq!(from, peer.local_addr().unwrap());

        // Has a nonce, and knows that a refused ConnectionBind is not the end of a connection.
        let mut data = Client::tcp(plane.tcp);
        let wrong = data.request(Method::CONNECTION_BIND, |writer| {
            writer.u32(Attribute::CONNECTION_ID, id ^ 1);
        });
        assert_eq!(wrong.code(), 400);
        let mut bytes = data.build(
            Method::CONNECTION_BIND,
            |writer| {
                writer.u32(Attribute::CONNECTION_ID, id);
            },
            true,
        );
        // Of every kind that a framer could take for something else.
        let pipelined: &[u8] = match round % 4 {
            0 => b"\xff\xff no frame begins so",
            1 => b"\x00\x01\x00\x00\x21\x12\xa4\x42like a Binding request",
            2 => b"\x40\x00\x00\x08like ChannelData",
            _ => b"\x00",
        };
        bytes.extend_from_slice(pipelined);
        data.send(&bytes);
        let answer = data.receive();
        assert_eq!(Message::parse(&answer).unwrap().class(), Class::Success);
        let Link::Tcp(stream, early) = data.link else {
            panic!("not over TCP");
        };
        let mut data = Data { stream, early };
        assert_eq!(data.read(19), b"early from the peer");
        assert_eq!(read(&mut peer, pipelined.len()), pipelined);
    }
}

#[test]
fn s6062_4_a_peer_without_a_permission_is_closed_and_not_announced() {
    let plane = start(|_| {});
    let (mut client, relayed) = control(&plane);
    let mut peer = dial(relayed);
    assert!(is_closed(&mut peer));
    client.hears_nothing();
    let drops = plane.snapshot().cells;
    assert_eq!(drops.drops(turnd::turn::Cause::NoPermission), 1);
}

#[test]
fn s6062_6_an_end_is_passed_on_and_the_other_direction_goes_on() {
    let plane = start(|_| {});
    let (listener, at) = listener();
    for client_first in [true, false] {
        let (mut client, _) = control(&plane);
        let id = connect(&mut client, at).unwrap();
        let (mut peer, _) = accept(&listener);
        let mut data = bind(&plane, id).unwrap();
        let (first, second) = if client_first {
            (&mut data.stream, &mut peer)
        } else {
            (&mut peer, &mut data.stream)
        };
        first.write_all(b"last words").unwrap();
        first.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        second.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"last words");
        second.write_all(&[7; 100_000]).unwrap();
        second.shutdown(Shutdown::Write).unwrap();
        heard.clear();
        first.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, [7; 100_000]);
        // Both have ended. Where it was the relay that closed first, its kernel keeps the pair of addresses for a
        // while; otherwise the name is free again.
        assert!(eventually(|| plane.snapshot().peer_connections == 0));
        if !client_first {
            assert!(connect(&mut client, at).is_ok());
        }
    }
}

#[test]
fn s6062_6_a_reset_ends_both() {
    let plane = start(|_| {});
    let (listener, at) = listener();
    for client_first in [true, false] {
        let (mut client, _) = control(&plane);
        let id = connect(&mut client, at).unwrap();
        let (mut peer, _) = accept(&listener);
        let mut data = bind(&plane, id).unwrap().stream;
        let (reset, other) = if client_first {
            (data, &mut peer)
        } else {
            (peer, &mut data)
        };
        socket2::SockRef::from(&reset)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(reset);
        assert!(is_closed(other));
    }
}

#[test]
fn s6062_6_the_end_of_the_allocation_closes_everything_on_every_worker() {
    let plane = start(|_| {});
    let (listener, at) = listener();
    for by_refresh in [true, false] {
        let (mut client, relayed) = control(&plane);
        assert_eq!(client.permit(at).code(), 0);
        let mut ends = Vec::new();
        for _ in 0..6 {
            let peer = dial(relayed);
            let (_, id) = attempt(&mut client);
            ends.push(bind(&plane, id).unwrap().stream);
            ends.push(peer);
        }
        // One that nobody has claimed.
        connect(&mut client, at).unwrap();
        ends.push(accept(&listener).0);
        assert_eq!(plane.snapshot().peer_connections, 7);
        if by_refresh {
            let answer = client.request(Method::REFRESH, |writer| {
                writer.u32(Attribute::LIFETIME, 0);
            });
            assert_eq!(answer.code(), 0);
        } else {
            drop(client);
        }
        for end in &mut ends {
            assert!(is_closed(end));
        }
        assert_eq!(plane.snapshot().peer_connections, 0);
        assert!(TcpStream::connect(relayed).is_err());
    }
}

#[test]
fn s6062_3_a_connection_that_nobody_claims_is_closed() {
    let plane = start(|rules| rules.bind_timeout = Duration::from_secs(1));
    let (listener, at) = listener();
    let (mut client, relayed) = control(&plane);
    assert_eq!(client.permit(at).code(), 0);
    let id = connect(&mut client, at).unwrap();
    let (mut outbound, _) = accept(&listener);
    let mut inbound = dial(relayed);
    let (_, other) = attempt(&mut client);
    assert!(is_closed(&mut outbound) && is_closed(&mut inbound));
    assert_eq!(bind(&plane, id).err(), Some(400));
    assert_eq!(bind(&plane, other).err(), Some(400));
    // It is gone for the allocation, too.
    assert!(connect(&mut client, at).is_ok());
}

#[test]
fn s6062_5_an_id_is_good_once() {
    let plane = start(|_| {});
    let (listener, at) = listener();
    let (mut client, _) = control(&plane);
    let id = connect(&mut client, at).unwrap();
    let (_peer, _) = accept(&listener);
    let _data = bind(&plane, id).unwrap();
    for _ in 0..6 {
        assert_eq!(bind(&plane, id).err(), Some(400));
    }
    assert_eq!(connect(&mut client, at), Err(446));
}

#[test]
fn a35_the_ninth_connection_is_refused() {
    let plane = start(|_| {});
    let (listener, at) = listener();
    let (mut client, relayed) = control(&plane);
    assert_eq!(client.permit(at).code(), 0);
    let peers: Vec<_> = (0..8)
        .map(|_| {
            let peer = dial(relayed);
            attempt(&mut client);
            peer
        })
        .collect();
    assert_eq!(connect(&mut client, at), Err(486));
    assert!(is_closed(&mut dial(relayed)));
    client.hears_nothing();
    drop((peers, listener));
}

/// A35: what has ended takes up no room, even if its allocation has not looked at it since.
#[test]
fn a35_connections_that_have_ended_make_room() {
    const MOST: usize = 16;
    let machine = with_tcp(|rules| {
        rules.connections = MOST;
        rules.bind_timeout = Duration::from_secs(1);
    });
    let plane = Plane::start_as(1, vec![loopback()], machine, |settings| {
        settings.streams_per_worker = MOST;
    });
    let (mut idle, relayed) = control(&plane);
    assert_eq!(idle.permit(SocketAddr::new(ip(PEER), 9)).code(), 0);
    for _ in 0..MOST {
        let mut peer = dial(relayed);
        attempt(&mut idle);
        drop(peer.shutdown(Shutdown::Both));
        let _ = peer.read(&mut [0; 1]);
    }
    assert!(eventually(|| plane.snapshot().peer_connections == 0));
    let (listener, at) = listener();
    let (mut other, _) = control(&plane);
    assert!(connect(&mut other, at).is_ok());
    accept(&listener);
}

/// A06: where a relay takes datagrams, somebody else may listen for connections. He is on this host, and not for our
/// clients.
#[test]
fn a06_a_port_where_a_relay_takes_datagrams_is_not_connected_to() {
    let plane = start(|rules| rules.connect_timeout = Duration::from_millis(100));
    let mut datagrams = Client::tcp(plane.tcp);
    let at = datagrams.allocate();
    let neighbour = TcpListener::bind(at).unwrap();
    neighbour.set_nonblocking(true).unwrap();
    let (mut client, _) = control(&plane);
    assert_eq!(connect(&mut client, at), Err(447));
    let nobody = neighbour.accept().unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::WouldBlock);
}

/// A port that nobody listens on, and one whose host does not answer: the same code, and as late.
#[test]
fn a09_closed_and_filtered_ports_look_the_same() {
    const TIMEOUT: Duration = Duration::from_millis(500);
    let plane = start(|rules| rules.connect_timeout = TIMEOUT);
    // A full queue: the kernel drops what else comes, as a packet filter does.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::new(ip(PEER), 0).into()).unwrap();
    full.listen(0).unwrap();
    let filtered = full.local_addr().unwrap().as_socket().unwrap();
    let waiting = TcpStream::connect(filtered).unwrap();
    let (gone, closed) = listener();
    drop(gone);

    let seen: Vec<_> = std::thread::scope(|scope| {
        let ask = |peer| {
            let plane = &plane;
            scope.spawn(move || {
                let (mut client, _) = control(plane);
                let asked = now();
                (connect(&mut client, peer), asked.elapsed())
            })
        };
        let threads: Vec<_> = [closed, filtered]
            .iter()
            .flat_map(|peer| (0..6).map(|_| ask(*peer)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for (answer, after) in seen {
        assert_eq!(answer, Err(447));
        // The upper end is only what a busy machine keeps to.
        let window = TIMEOUT + Duration::from_secs(1)..TIMEOUT + Duration::from_secs(15);
        assert!(window.contains(&after), "{after:?}");
    }
    // One that is open says so at once.
    let (listener, open) = listener();
    let (mut client, _) = control(&plane);
    let asked = now();
    assert!(connect(&mut client, open).is_ok());
    assert!(asked.elapsed() < Duration::from_secs(1));
    drop((listener, waiting));
}

/// The client's data connection over TLS: what stands behind the request in the same record is the peer's, and an end
/// is passed on as one.
#[test]
fn s6062_5_a_data_connection_over_tls() {
    let tls = SocketAddr::new(ip("127.0.0.1"), free_port());
    let plane = Plane::start_as(WORKERS, vec![loopback()], with_tcp(|_| {}), |settings| {
        settings.listeners.push(Listen::new(tls, Transport::Tls));
    });
    let (server_config, client_config) = certificates();
    plane.handle.replace_tls(server_config);
    let (listener, at) = listener();
    for round in 0..4u8 {
        let (mut client, _) = control(&plane);
        let id = connect(&mut client, at).unwrap();
        let (mut peer, _) = accept(&listener);
        peer.write_all(b"early from the peer").unwrap();
        let mut bytes = client.build(
            Method::CONNECTION_BIND,
            |writer| {
                writer.u32(Attribute::CONNECTION_ID, id);
            },
            true,
        );
        bytes.extend_from_slice(b"early from the client");
        let name = "turn.test".try_into().unwrap();
        let session = ClientConnection::new(Arc::clone(&client_config), name).unwrap();
        let stream = TcpStream::connect(tls).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut data = StreamOwned::new(session, stream);
        data.write_all(&bytes).unwrap();

        let mut head = [0; 20];
        data.read_exact(&mut head).unwrap();
        let mut answer = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]]))];
        data.read_exact(&mut answer).unwrap();
        let answer = [&head[..], &answer].concat();
        let class = Message::parse(&answer).unwrap().class();
        assert_eq!(class, Class::Success);

        let mut heard = vec![0; 19];
        data.read_exact(&mut heard).unwrap();
        assert_eq!(heard, b"early from the peer");
        assert_eq!(read(&mut peer, 21), b"early from the client");

        data.write_all(&[round; 100_000]).unwrap();
        data.conn.send_close_notify();
        data.flush().unwrap();
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, [round; 100_000]);
        peer.write_all(&[!round; 100_000]).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        heard.clear();
        data.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, [!round; 100_000]);
    }
}

fn certificates() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["turn.test".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = made.signing_key.serialize_der().try_into().unwrap();
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((ip("127.0.0.1"), 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Two clients that have only relays, behind a 1:1 NAT which does not turn packets around.
#[test]
fn relays_of_one_server_connect_to_each_other() {
    let relay = RelayAddress {
        local: ip("127.0.0.1"),
        advertised: ip("192.0.2.7"),
    };
    let plane = Plane::start_with(WORKERS, vec![relay], with_tcp(|_| {}));
    let ((mut a, at_a), (mut b, at_b)) = (control(&plane), control(&plane));
    assert_eq!(connect(&mut a, at_a), Err(403));
    assert_eq!(b.permit(at_a).code(), 0);
    let id = connect(&mut a, at_b).unwrap();
    let (from, other) = attempt(&mut b);
    assert_eq!(from, at_a);
    let (mut a, mut b) = (bind(&plane, id).unwrap(), bind(&plane, other).unwrap());
    a.stream.write_all(b"through two relays").unwrap();
    assert_eq!(b.read(18), b"through two relays");
    b.stream.write_all(b"and back").unwrap();
    assert_eq!(a.read(8), b"and back");
}

#[test]
fn a_data_connection_outlives_the_time_of_strangers() {
    let plane = start(|_| {});
    let (listener, at) = listener();
    let (mut client, _) = control(&plane);
    let id = connect(&mut client, at).unwrap();
    let (mut peer, _) = accept(&listener);
    let mut data = bind(&plane, id).unwrap();
    // A connection without an allocation is closed after ten seconds: this one is not.
    data.stream
        .set_read_timeout(Some(Duration::from_secs(12)))
        .unwrap();
    let silence = data.stream.read(&mut [0; 1]).unwrap_err();
    assert!(matches!(
        silence.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut
    ));
    peer.write_all(b"still there").unwrap();
    assert_eq!(data.read(11), b"still there");
}

/// Asks again until it is so.
fn eventually(is_so: impl Fn() -> bool) -> bool {
    let begun = now();
    while begun.elapsed() < PATIENCE {
        if is_so() {
            return true;
        }
    }
    false
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests of real time read the clock"
)]
fn now() -> Instant {
    Instant::now()
}
