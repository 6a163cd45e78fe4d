//! The binary under hostile bytes on every listener: no panic, no growth, and a call that goes on meanwhile.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "support/mutate.rs"]
mod mutate;
#[path = "daemon/process.rs"]
mod process;
mod wire;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use turnd::stun::Method;
use turnd::turn::Cause;

use mutate::mutated;
use process::{Daemon, Start, certificate, free_address};
use wire::{Client, peer, receive_from};

/// Printed by a failing assertion through the name of the test, and fixed: the same bytes every time.
const SEED: u64 = 0x7475_726E_6400_0001;
/// What the pages of buffers, queues and maps may add; a leak of one byte per datagram is more.
const GROWTH: u64 = 4 << 20;

#[test]
fn a_hundred_thousand_random_datagrams_change_nothing() {
    let daemon = Start::with("[peers]\nallow = ['127.0.0.0/8']").ready();
    let mut call = Call::start(&daemon);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut random = StdRng::seed_from_u64(SEED);
    let models = models();
    // The first tenth fills the buffers and maps that stay.
    flood(&socket, daemon.udp, &mut random, &models, 10_000, &mut call);
    let before = resident(&daemon);
    flood(&socket, daemon.udp, &mut random, &models, 90_000, &mut call);
    let grown = resident(&daemon).saturating_sub(before);
    assert!(grown < GROWTH, "{grown} bytes more");
    assert!(dropped(&daemon) > 10_000.0, "the flood was not seen");
    finish(daemon, call);
}

#[test]
fn a_thousand_random_streams_change_nothing() {
    let tls = free_address();
    let start = Start::with(&format!(
        "[peers]\nallow = ['127.0.0.0/8']\n[[listen]]\naddress = '{tls}'\ntransport = 'tls'\n\
         [tls]\ncertificate = 'cert.pem'\nkey = 'key.pem'"
    ));
    certificate(&start.place.0, 2030);
    let daemon = start.ready();
    let mut call = Call::start(&daemon);
    let mut random = StdRng::seed_from_u64(SEED);
    let models = models();
    streams([daemon.udp, tls], &mut random, &models, 100, &mut call);
    let before = resident(&daemon);
    streams([daemon.udp, tls], &mut random, &models, 900, &mut call);
    let grown = resident(&daemon).saturating_sub(before);
    assert!(grown < GROWTH, "{grown} bytes more");
    assert!(
        daemon.metric("turn_tls_handshakes_total{result=\"failed\"}") > 0.0,
        "no hostile handshake was seen"
    );
    finish(daemon, call);
}

/// A client that relays while the flood goes on.
struct Call {
    client: Client,
    peer: UdpSocket,
    relayed: SocketAddr,
    said: u32,
}

impl Call {
    fn start(daemon: &Daemon) -> Self {
        let mut client = Client::udp(daemon.udp);
        let relayed = client.allocate();
        let peer = peer("127.0.0.2");
        assert_eq!(client.bind(0x4000, peer.local_addr().unwrap()).code(), 0);
        Self {
            client,
            peer,
            relayed,
            said: 0,
        }
    }

    /// A word each way. On a loopback that is being flooded a datagram may be lost before anybody reads it, so
    /// each is said again until it is heard.
    fn goes_on(&mut self) {
        self.said += 1;
        let word = self.said.to_be_bytes();
        self.peer
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        self.client.set_timeout(Duration::from_millis(500));
        let there = (0..10).any(|_| {
            self.client.send_channel(0x4000, &word);
            let mut heard = [0; 16];
            self.peer
                .recv(&mut heard)
                .is_ok_and(|length| heard[..length] == word)
        });
        assert!(there, "word {} did not arrive", self.said);
        let back = (0..10).any(|_| {
            self.peer.send_to(&word, self.relayed).unwrap();
            self.client
                .try_receive()
                .is_some_and(|message| message[4..] == word)
        });
        assert!(back, "word {} did not come back", self.said);
    }
}

/// What a mutation starts from: messages of every kind that a client sends.
fn models() -> Vec<Vec<u8>> {
    let mut client = Client::udp("127.0.0.1:9".parse().unwrap());
    let methods = [
        Method::BINDING,
        Method::ALLOCATE,
        Method::REFRESH,
        Method::CREATE_PERMISSION,
        Method::CHANNEL_BIND,
        Method::SEND,
    ];
    let mut models: Vec<_> = methods
        .into_iter()
        .flat_map(|method| {
            [
                client.build(method, |_| {}, true),
                client.build(method, |_| {}, false),
            ]
        })
        .collect();
    models.push(wire::channel_data(0x4000, b"not from you", true));
    models
}

fn flood(
    socket: &UdpSocket,
    to: SocketAddr,
    random: &mut StdRng,
    models: &[Vec<u8>],
    count: usize,
    call: &mut Call,
) {
    for i in 0..count {
        // A full buffer of the sender is not the server's business.
        let _ = socket.send_to(&mutated(random, models, 0.3), to);
        if i % 5_000 == 0 {
            call.goes_on();
        }
    }
    call.goes_on();
}

/// Connections that send hostile bytes and leave in different ways; at most some live at a time.
fn streams(
    to: [SocketAddr; 2],
    random: &mut StdRng,
    models: &[Vec<u8>],
    count: usize,
    call: &mut Call,
) {
    for i in 0..count {
        let mut stream = TcpStream::connect(to[i % 2]).unwrap();
        for _ in 0..random.random_range(1..8) {
            if stream.write_all(&mutated(random, models, 0.3)).is_err() {
                break;
            }
        }
        if random.random_bool(0.2) {
            stream
                .set_read_timeout(Some(Duration::from_millis(5)))
                .unwrap();
            let _ = stream.read(&mut [0; 512]);
        }
        if i % 100 == 0 {
            call.goes_on();
        }
    }
    call.goes_on();
}

/// Bytes of memory that the server really has.
fn resident(daemon: &Daemon) -> u64 {
    let pid = daemon.pid().as_raw_nonzero();
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    let pages: u64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn dropped(daemon: &Daemon) -> f64 {
    let metric = |cause: &Cause| {
        let name = format!("turn_dropped_packets_total{{reason=\"{}\"}}", cause.label());
        daemon.metric(&name)
    };
    Cause::ALL.iter().map(metric).sum()
}

/// The call is still there, new clients are served, and no worker had to be started afresh.
fn finish(mut daemon: Daemon, mut call: Call) {
    call.goes_on();
    let mut other = Client::tcp(daemon.udp);
    let relayed = other.allocate();
    assert_eq!(other.permit(call.peer.local_addr().unwrap()).code(), 0);
    other.send_indication(call.peer.local_addr().unwrap(), b"new here");
    call.peer.set_read_timeout(Some(wire::PATIENCE)).unwrap();
    let heard =
        std::iter::repeat_with(|| receive_from(&call.peer)).find(|(_, from)| *from == relayed);
    assert_eq!(heard.unwrap().0, b"new here");
    assert_eq!(daemon.metric("turn_worker_restarts_total") as u64, 0);
    assert!(daemon.lives());
}
