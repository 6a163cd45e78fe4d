//! Associations without sockets, against dimpl's client, in a time of their own.
#![expect(
    clippy::disallowed_methods,
    reason = "an instant can only be had from the clock"
)]

mod cookie;
mod hostile;
mod life;

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use dimpl::{Config, Dtls, DtlsCertificate, Output};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::*;
use crate::turn::{Path, Transport};

fn identity() -> DtlsCertificate {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default()
        .self_signed(&key)
        .unwrap();
    DtlsCertificate {
        certificate: certificate.der().to_vec(),
        private_key: key.serialize_der(),
    }
}

/// The server's side.
struct Server {
    associations: Associations,
    cells: DtlsCells,
    now: Instant,
}

impl Server {
    fn new() -> Self {
        Self::with(10_000)
    }

    /// One that takes at most so many associations.
    fn with(most: usize) -> Self {
        let DtlsCertificate {
            certificate,
            private_key,
        } = identity();
        let identity = Identity::new(&certificate, &private_key).unwrap();
        let identity = Arc::new(ArcSwapOption::from_pointee(identity));
        let now = Instant::now();
        Self {
            associations: Associations::new(most, identity, &[7; 32], now),
            cells: DtlsCells::default(),
            now,
        }
    }

    /// Takes in a datagram; what is sent for it, all in one round.
    fn take(&mut self, from: Client, datagram: &[u8]) -> Vec<Vec<u8>> {
        self.associations.begin_round(self.now, &mut self.cells);
        self.associations
            .take(self.now, from, datagram, &mut self.cells);
        self.sent()
    }

    fn sent(&mut self) -> Vec<Vec<u8>> {
        let datagrams = self.associations.sink.datagrams.drain(..);
        datagrams.map(|(_, bytes, _)| bytes.to_vec()).collect()
    }

    fn heard(&mut self) -> Vec<Vec<u8>> {
        let messages = self.associations.sink.messages.drain(..);
        messages.map(|(_, bytes)| bytes.to_vec()).collect()
    }

    fn pass(&mut self, time: Duration) -> Vec<Vec<u8>> {
        self.now += time;
        self.associations
            .expire(self.now, |_| false, &mut self.cells);
        self.sent()
    }
}

/// A client, and what it has heard.
struct Peer {
    client: Client,
    dtls: Dtls,
    connected: bool,
    closed: bool,
    heard: Vec<Vec<u8>>,
}

impl Peer {
    fn new(address: &str, now: Instant) -> Self {
        let config = Config::builder().dtls13_cipher_suites(&[]).build().unwrap();
        let mut dtls = Dtls::new_12(Arc::new(config), identity(), now);
        dtls.set_active(true);
        dtls.handle_timeout(now).unwrap();
        Self {
            client: client(address),
            dtls,
            connected: false,
            closed: false,
            heard: Vec::new(),
        }
    }

    fn says(&mut self) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 20_000];
        let mut said = Vec::new();
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(packet) => said.push(packet.to_vec()),
                Output::Connected => self.connected = true,
                Output::CloseNotify => self.closed = true,
                Output::ApplicationData(data) => self.heard.push(data.to_vec()),
                Output::Timeout(_) => return said,
                Output::BufferTooSmall { .. } => panic!("the buffer takes any record"),
                Output::KeyingMaterial(..) | Output::PeerCert(_) | _ => {}
            }
        }
    }

    fn hears(&mut self, datagrams: &[Vec<u8>]) -> Vec<Vec<u8>> {
        for datagram in datagrams {
            self.dtls.handle_packet(datagram).unwrap();
        }
        self.says()
    }

    /// Its second ClientHello, with the cookie.
    fn second_hello(&mut self, server: &mut Server) -> Vec<u8> {
        let [first] = &self.says()[..] else {
            panic!("one datagram")
        };
        let [request] = &server.take(self.client, first)[..] else {
            panic!("one answer")
        };
        assert_eq!(request.len(), HELLO_VERIFY_REQUEST);
        let [second] = &self.hears(std::slice::from_ref(request))[..] else {
            panic!("one datagram")
        };
        second.clone()
    }

    fn connect(&mut self, server: &mut Server) {
        let mut to_server = vec![self.second_hello(server)];
        for _ in 0..4 {
            let to_client: Vec<_> = to_server
                .iter()
                .flat_map(|datagram| server.take(self.client, datagram))
                .collect();
            to_server = self.hears(&to_client);
        }
        assert!(self.connected);
    }

    fn tell(&mut self, server: &mut Server, message: &[u8]) {
        self.dtls.send_application_data(message).unwrap();
        for datagram in self.says() {
            server.take(self.client, &datagram);
        }
    }
}

fn client(address: &str) -> Client {
    Client {
        five_tuple: FiveTuple {
            transport: Transport::Dtls,
            client: address.parse().unwrap(),
            server: SocketAddr::from(([192, 0, 2, 1], 5349)),
        },
        path: Path(0),
    }
}

/// The server's side of a connection.
pub(super) fn connected() -> Association {
    let mut server = Server::new();
    Peer::new("198.51.100.1:4000", server.now).connect(&mut server);
    server.associations.remove(0)
}

#[test]
fn a_client_connects_and_messages_pass_both_ways() {
    let mut server = Server::new();
    let mut peer = Peer::new("198.51.100.1:4000", server.now);
    peer.connect(&mut server);
    assert_eq!((server.cells.cookies, server.cells.handshakes.ok), (1, 1));
    assert_eq!(server.associations.handshakes, 0);
    peer.tell(&mut server, b"there");
    assert_eq!(server.heard(), [b"there"]);
    for length in [1, 1200, LARGEST_PLAINTEXT] {
        let message = vec![9; length];
        assert!(
            server
                .associations
                .send(peer.client, [b"", &message, b""], 0)
        );
        let sent = server.sent();
        assert_eq!(sent.len(), 1);
        peer.hears(&sent);
        assert_eq!(peer.heard.pop(), Some(message));
    }
    let too_long = vec![9; LARGEST_PLAINTEXT + 1];
    assert!(
        !server
            .associations
            .send(peer.client, [b"", &too_long, b""], 0)
    );
}

#[test]
fn a31_an_association_without_an_allocation_is_closed_with_a_goodbye() {
    let mut server = Server::new();
    let mut peer = Peer::new("198.51.100.1:4000", server.now);
    peer.connect(&mut server);
    let almost = WITHOUT_ALLOCATION - Duration::from_millis(1);
    assert!(server.pass(almost).is_empty());
    let goodbye = server.pass(Duration::from_millis(1));
    assert_eq!((goodbye.len(), server.associations.len()), (1, 0));
    peer.hears(&goodbye);
    assert!(peer.closed);
    assert!(server.associations.pending.0.is_empty());
}

#[test]
fn a32_a_handshake_that_is_left_alone_repeats_itself_a_little_and_ends() {
    let mut server = Server::new();
    let mut peer = Peer::new("198.51.100.1:4000", server.now);
    let hello = peer.second_hello(&mut server);
    let flight = server.take(peer.client, &hello).len();
    let mut sent = 0;
    for _ in 0..49 {
        sent += server.pass(Duration::from_millis(100)).len();
    }
    assert!((1..=3 * flight).contains(&sent), "{sent} datagrams");
    assert_eq!(
        (server.associations.len(), server.cells.handshakes.failed),
        (1, 0)
    );
    assert!(server.pass(Duration::from_millis(100)).is_empty());
    assert_eq!(
        (server.associations.len(), server.cells.handshakes.failed),
        (0, 1)
    );
    assert!(server.associations.pending.0.is_empty());
    assert_eq!(server.associations.handshakes, 0);
}

fn first_hello(peer: &mut Peer) -> Vec<u8> {
    peer.says().remove(0)
}

/// The answer to somebody who asks for nothing that is answered.
fn silence(server: &mut Server, from: Client, datagram: &[u8]) {
    let answer = server.take(from, datagram);
    assert!(answer.is_empty(), "{datagram:02x?} got {answer:02x?}");
    assert_eq!(server.associations.len(), 0);
    assert!(server.associations.waiting.is_empty());
}
