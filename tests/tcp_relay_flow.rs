//! Much data through TCP relays (RFC 6062): nothing is lost, mixed up or piled up (A35, F07).

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod wire;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use turnd::stun::{Attribute, Method};
use turnd::turn::TcpRelay;
use wire::{Client, Link, PATIENCE, Plane, ip, loopback};

const MIB: usize = 1 << 20;
/// Each way.
const VOLUME: usize = 1024 * MIB;

/// One test at a time: they measure the memory of this process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start() -> Plane {
    Plane::start_with(2, vec![loopback()], |settings| {
        settings.tcp_relay = Some(TcpRelay::default());
    })
}

/// A peer and the CONNECTION-ID of the connection to it, and the allocation.
fn connected(plane: &Plane) -> (Client, TcpStream, u32) {
    let mut control = Client::tcp(plane.tcp);
    let answer = control.request(Method::ALLOCATE, |writer| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 6);
    });
    answer.success();
    let (peer, id) = connect(&mut control);
    (control, peer, id)
}

/// Another peer, and the CONNECTION-ID of the connection to it.
fn connect(control: &mut Client) -> (TcpStream, u32) {
    let listener = TcpListener::bind((ip("127.0.0.2"), 0)).unwrap();
    let at: SocketAddr = listener.local_addr().unwrap();
    let answer = control.request(Method::CONNECT, |writer| {
        writer.xor_address(Attribute::XOR_PEER_ADDRESS, at);
    });
    let id = answer.success().connection_id().unwrap().unwrap();
    let (peer, _) = listener.accept().unwrap();
    (peer, id)
}

/// The client's data connection, and the first bytes from the peer.
fn bind(plane: &Plane, id: u32) -> (TcpStream, Vec<u8>) {
    let mut data = Client::tcp(plane.tcp);
    let answer = data.request(Method::CONNECTION_BIND, |writer| {
        writer.u32(Attribute::CONNECTION_ID, id);
    });
    answer.success();
    let Link::Tcp(stream, early) = data.link else {
        panic!("not over TCP");
    };
    (stream, early)
}

/// Bytes that do not repeat at any round number.
fn pattern() -> Vec<u8> {
    let mut state = 1u64;
    (0..MIB + 7)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .collect()
}

/// Writes so much of the repeated pattern, in pieces, and the end; how much it was.
fn pour(mut into: TcpStream, pattern: &[u8], volume: usize, piece: usize) -> usize {
    let mut at = 0;
    while at < volume {
        let from = at % pattern.len();
        let end = pattern.len().min(from + piece.min(volume - at));
        into.write_all(&pattern[from..end]).unwrap();
        at += end - from;
    }
    into.shutdown(Shutdown::Write).unwrap();
    at
}

/// Reads to the end, comparing with the repeated pattern; how much it was.
fn compare(mut from: impl Read, pattern: &[u8], piece: usize) -> usize {
    let mut buffer = vec![0; piece];
    let mut at = 0;
    loop {
        let length = from.read(&mut buffer).unwrap();
        if length == 0 {
            return at;
        }
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let start = at % pattern.len();
            let take = rest.len().min(pattern.len() - start);
            assert!(rest[..take] == pattern[start..start + take], "at {at}");
            at += take;
            rest = &rest[take..];
        }
    }
}

/// The resident memory of this process, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Both directions at once, with a writer and a reader of each speed.
#[test]
fn s6062_6_a_gibibyte_each_way_arrives_whole_in_little_memory() {
    let _alone = alone();
    let plane = start();
    let (_control, peer, id) = connected(&plane);
    let (client, early) = bind(&plane, id);
    let pattern = pattern();
    let pattern = &pattern;
    let (to_peer, to_client) = (client.try_clone().unwrap(), peer.try_clone().unwrap());
    let flows: [Box<dyn FnOnce() -> usize + Send>; 4] = [
        Box::new(|| pour(to_peer, pattern, VOLUME, MIB)),
        Box::new(|| pour(to_client, pattern, VOLUME, 20_000)),
        Box::new(|| compare((&early[..]).chain(&client), pattern, MIB)),
        Box::new(|| compare(&peer, pattern, 9000)),
    ];
    let (done, ended) = mpsc::channel();
    let (mut before, mut most) = (0, 0);
    thread::scope(|scope| {
        for flow in flows {
            let done = done.clone();
            scope.spawn(move || done.send(flow()).unwrap());
        }
        let mut running = 4;
        while running > 0 {
            match ended.recv_timeout(Duration::from_millis(100)) {
                Ok(volume) => {
                    assert_eq!(volume, VOLUME);
                    running -= 1;
                }
                Err(_) => {
                    // Once everybody has the buffers that are needed.
                    if before == 0 {
                        before = resident();
                    }
                    most = most.max(resident());
                }
            }
        }
    });
    let grown = most.saturating_sub(before);
    assert!(grown <= 2 * MIB, "grew by {grown} bytes");
}

/// Nothing is dropped: who sends too fast is made to wait. All connections of an allocation have one rate.
#[test]
#[expect(clippy::disallowed_methods, reason = "the clock that rates hold by")]
fn a_rate_slows_connections_down_and_loses_nothing() {
    const RATE: u64 = 16_000_000;
    let _alone = alone();
    let plane = Plane::start_with(2, vec![loopback()], |settings| {
        settings.tcp_relay = Some(TcpRelay::default());
        settings.limits.bandwidth.per_allocation = RATE;
    });
    let (mut control, peer, id) = connected(&plane);
    let (other_peer, other_id) = connect(&mut control);
    let (client, early) = bind(&plane, id);
    let (other_client, other_early) = bind(&plane, other_id);
    let pattern = pattern();
    let (pattern, volume) = (&pattern, 4 * MIB);
    let begin = std::time::Instant::now();
    thread::scope(|scope| {
        for (client, peer) in [(&client, &peer), (&other_client, &other_peer)] {
            let (to_peer, to_client) = (client.try_clone().unwrap(), peer.try_clone().unwrap());
            scope.spawn(move || pour(to_peer, pattern, volume, MIB));
            scope.spawn(move || pour(to_client, pattern, volume, MIB));
            scope.spawn(move || assert_eq!(compare(peer, pattern, MIB), volume));
        }
        for (client, early) in [(&client, &early), (&other_client, &other_early)] {
            scope.spawn(move || {
                assert_eq!(compare((&early[..]).chain(client), pattern, MIB), volume);
            });
        }
    });
    // 8 MiB each way at 2 MB/s, less half a second that may pass at once.
    let lasted = begin.elapsed();
    assert!(lasted > Duration::from_millis(3600), "{lasted:?}");
    assert!(lasted < Duration::from_secs(40), "{lasted:?}");
}

/// A peer that sends before its client has come is made to wait, in the memory of the kernel and not in ours.
#[test]
fn a35_data_before_the_bind_is_kept_by_the_kernel_and_bounded() {
    let _alone = alone();
    let plane = start();
    let (_control, mut peer, id) = connected(&plane);
    peer.set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let pattern = pattern();
    let before = resident();
    let mut sent = 0;
    while sent < 100 * MIB {
        let from = sent % pattern.len();
        match peer.write(&pattern[from..]) {
            Ok(length) => sent += length,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                break;
            }
        }
    }
    let grown = resident().saturating_sub(before);
    // Most of it waits at the sender.
    assert!(sent < 8 * MIB, "{sent} bytes were taken");
    assert!(grown <= 64 * 1024, "grew by {grown} bytes");

    // None of it is lost, and what the window could not take comes at full speed.
    let (client, early) = bind(&plane, id);
    peer.set_write_timeout(Some(PATIENCE)).unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(compare((&early[..]).chain(&client), &pattern, MIB), sent);
}

/// The reader of one direction stops; the other goes on as if nothing were (the stalls of coturn #352 and #907).
#[test]
fn f07_a_reader_that_stalls_stops_its_own_direction_alone() {
    let _alone = alone();
    let plane = start();
    let (_control, peer, id) = connected(&plane);
    let (client, early) = bind(&plane, id);
    let pattern = pattern();
    // The peer reads nothing, until its own kernel, ours and the client's have no more room.
    client
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let mut sent = 0;
    loop {
        match (&client).write(&pattern[sent % pattern.len()..]) {
            Ok(length) => sent += length,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                break;
            }
        }
        assert!(sent < 200 * MIB, "nobody stops the client");
    }
    let before = resident();
    let volume = 64 * MIB;
    thread::scope(|scope| {
        let writer = peer.try_clone().unwrap();
        scope.spawn(|| pour(writer, &pattern, volume, MIB));
        assert_eq!(compare((&early[..]).chain(&client), &pattern, MIB), volume);
    });
    let grown = resident().saturating_sub(before);
    assert!(grown <= 4 * MIB, "grew by {grown} bytes");
    // And when the reader comes back, everything is there.
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(compare(&peer, &pattern, MIB), sent);
}
