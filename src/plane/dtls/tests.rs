//! Associations without sockets, against dimpl's client, in a time of their own.
#![expect(
    clippy::disallowed_methods,
    reason = "an instant can only be had from the clock"
)]

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use dimpl::{Config, Dtls, DtlsCertificate, Output};
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};

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

#[test]
fn a15_a_stranger_gets_less_than_it_sends_and_leaves_nothing() {
    let mut server = Server::new();
    let hello = first_hello(&mut Peer::new("198.51.100.1:4000", server.now));
    for port in 1..=2000 {
        let stranger = client(&format!("198.51.100.1:{port}"));
        let answer = server.take(stranger, &hello);
        assert_eq!(answer.len(), 1);
        assert!(answer[0].len() <= hello.len());
    }
    assert_eq!(server.cells.cookies, 2000);
    let Associations {
        table,
        by_client,
        replacing,
        pending,
        waiting,
        ..
    } = &server.associations;
    assert_eq!((table.capacity(), by_client.capacity()), (0, 0));
    assert_eq!((replacing.capacity(), pending.0.capacity()), (0, 0));
    assert_eq!(waiting.capacity(), 0);
}

/// The shortest ClientHello there can be, and what is not one.
#[test]
fn a15_what_is_no_hello_meets_silence() {
    let mut server = Server::new();
    let stranger = client("198.51.100.1:4000");
    let mut shortest = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 7, 0, 54];
    shortest.extend([1, 0, 0, 42, 0, 0, 0, 0, 0, 0, 0, 42, 0xfe, 0xfd]);
    shortest.extend([7; 32]);
    shortest.extend([0, 0, 0, 2, 0xc0, 0x2b, 1, 0]);
    let answer = server.take(stranger, &shortest);
    assert_eq!(answer[0].len(), HELLO_VERIFY_REQUEST);
    assert!(answer[0].len() <= shortest.len());
    assert_eq!(answer[0][5..11], [0, 0, 0, 0, 0, 7], "the record's number");
    let hello = first_hello(&mut Peer::new("198.51.100.1:4000", server.now));
    for length in 0..hello.len() {
        silence(&mut server, stranger, &hello[..length]);
    }
    let changed = |place: usize, value: u8| {
        let mut bytes = hello.clone();
        bytes[place] = value;
        bytes
    };
    for kind in (0..=255).filter(|kind| *kind != 22) {
        silence(&mut server, stranger, &changed(0, kind));
    }
    // Another epoch, another message, a fragment: its offset, its length.
    for (place, value) in [(4, 1), (13, 2), (21, 1), (24, 9)] {
        silence(&mut server, stranger, &changed(place, value));
    }
    silence(&mut server, client("198.51.100.1:0"), &hello);
    silence(&mut server, stranger, &[&hello[..], &hello[..]].concat());
}

#[test]
fn a_hello_of_dtls_1_0_is_told_so() {
    let mut server = Server::new();
    let mut hello = first_hello(&mut Peer::new("198.51.100.1:4000", server.now));
    hello[26] = 0xff;
    let answer = server.take(client("198.51.100.1:4000"), &hello);
    let protocol_version = [21, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 70];
    assert_eq!(answer, [protocol_version]);
    assert_eq!(server.associations.len(), 0);
}

/// \[S17\] A cookie is good for the address that it was sent to, with the hello that it was made for, for a while.
#[test]
fn s17_a_cookie_is_good_for_one_address_one_hello_and_a_minute() {
    let mut server = Server::new();
    let mut peer = Peer::new("198.51.100.1:4000", server.now);
    let hello = peer.second_hello(&mut server);
    let asked_again = |server: &mut Server, from: Client, hello: &[u8]| {
        let cookies = server.cells.cookies;
        let answer = server.take(from, hello);
        assert_eq!(server.associations.len(), 0);
        assert_eq!(server.cells.cookies, cookies + 1);
        assert_eq!(answer[0].len(), HELLO_VERIFY_REQUEST);
        // The second answer is the server's second message.
        assert_eq!(answer[0][17..19], [0, 1]);
    };
    for other in [
        "198.51.100.2:4000",
        "198.51.100.1:4001",
        "[2001:db8::1]:4000",
    ] {
        asked_again(&mut server, client(other), &hello);
    }
    let mut elsewhere = peer.client;
    elsewhere.five_tuple.server.set_port(5350);
    asked_again(&mut server, elsewhere, &hello);
    // Any bit of the cookie, and of what the client drew.
    for place in (27..59).chain(61..93) {
        let mut wrong = hello.clone();
        wrong[place] ^= 1 << (place % 8);
        asked_again(&mut server, peer.client, &wrong);
    }
    server.now += Duration::from_secs(60);
    asked_again(&mut server, peer.client, &hello);
    server.now -= Duration::from_secs(31);
    server.take(peer.client, &hello);
    assert_eq!(server.associations.len(), 1);
}

/// A client whose cookie has grown old meanwhile gets another one and connects with it.
#[test]
fn a_second_cookie_does_as_well() {
    let mut server = Server::new();
    let mut peer = Peer::new("198.51.100.1:4000", server.now);
    let late = peer.second_hello(&mut server);
    server.now += Duration::from_secs(60);
    let [request] = &server.take(peer.client, &late)[..] else {
        panic!("one answer")
    };
    // dimpl's client heeds one request alone; this one is written for it.
    let mut third = late.clone();
    third[18] = 2;
    third[10] = 2;
    third[61..93].copy_from_slice(&request[28..60]);
    let flight = server.take(peer.client, &third);
    assert_eq!(server.associations.len(), 1);
    // ServerHello: the record's number is the hello's, the message's the next one.
    assert_eq!((flight[0][10], flight[0][13], flight[0][18]), (2, 2, 2));
}

#[test]
fn plaintext_of_others_ends_nothing() {
    let mut server = Server::new();
    let mut peer = Peer::new("198.51.100.1:4000", server.now);
    let fatal = [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40];
    let goodbye = [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 1, 0];
    let data = [
        23, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 3, b'h', b'e', b'y',
    ];
    let protected = [
        [23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 30].as_slice(),
        &[7; 30],
    ]
    .concat();
    let hello = peer.second_hello(&mut server);
    let flight = server.take(peer.client, &hello);
    for foreign in [&fatal[..], &goodbye, &data, &protected] {
        assert!(server.take(peer.client, foreign).is_empty());
    }
    let finish = peer.hears(&flight);
    let last: Vec<_> = finish
        .iter()
        .flat_map(|datagram| server.take(peer.client, datagram))
        .collect();
    for foreign in [&fatal[..], &goodbye, &data, &protected, &hello, &finish[0]] {
        server.take(peer.client, foreign);
    }
    peer.hears(&last);
    assert!(peer.connected);
    peer.tell(&mut server, b"still there");
    assert_eq!(server.heard(), [b"still there"]);
}

/// RFC 6347 §4.2.8: who has forgotten everything may begin afresh, and the association lives until that succeeds.
#[test]
fn a_new_handshake_replaces_an_association_only_when_it_succeeds() {
    let mut server = Server::new();
    let mut before = Peer::new("198.51.100.1:4000", server.now);
    before.connect(&mut server);
    let mut after = Peer::new("198.51.100.1:4000", server.now);
    let hello = after.second_hello(&mut server);
    let flight = server.take(after.client, &hello);
    assert_eq!(server.associations.len(), 2);
    before.tell(&mut server, b"I am still here");
    assert_eq!(server.heard(), [b"I am still here"]);
    let sent = server
        .associations
        .send(before.client, [b"so it seems", b"", b""], 0);
    assert!(sent);
    before.hears(&server.sent());
    assert_eq!(before.heard, [b"so it seems"]);
    let finish = after.hears(&flight);
    let last: Vec<_> = finish
        .iter()
        .flat_map(|datagram| server.take(after.client, datagram))
        .collect();
    after.hears(&last);
    assert!(after.connected);
    assert_eq!(server.associations.ended, [before.client]);
    assert_eq!(
        (server.associations.len(), server.associations.handshakes),
        (1, 0)
    );
    after.tell(&mut server, b"and I am new");
    assert_eq!(server.heard(), [b"and I am new"]);
    before.tell(&mut server, b"I was");
    assert!(server.heard().is_empty());
}

#[test]
fn a_new_handshake_that_fails_changes_nothing() {
    let mut server = Server::new();
    let mut before = Peer::new("198.51.100.1:4000", server.now);
    before.connect(&mut server);
    let mut after = Peer::new("198.51.100.1:4000", server.now);
    let hello = after.second_hello(&mut server);
    server.take(after.client, &hello);
    server.pass(Duration::from_secs(6));
    assert_eq!(
        (server.associations.len(), server.cells.handshakes.failed),
        (1, 1)
    );
    assert!(server.associations.ended.is_empty());
    before.tell(&mut server, b"what was that");
    assert_eq!(server.heard(), [b"what was that"]);
}

#[test]
fn a_goodbye_is_answered_and_ends_the_association() {
    let mut server = Server::new();
    let mut peer = Peer::new("198.51.100.1:4000", server.now);
    peer.connect(&mut server);
    peer.dtls.close().unwrap();
    let [goodbye] = &peer.says()[..] else {
        panic!("one datagram")
    };
    assert_eq!(server.take(peer.client, goodbye).len(), 1);
    assert_eq!(server.associations.ended, [peer.client]);
    assert_eq!(server.associations.len(), 0);
    silence(&mut server, peer.client, goodbye);
}

#[test]
fn a31_few_of_the_associations_are_strangers() {
    let mut server = Server::with(4 * STRANGERS);
    let mut peers: Vec<_> = (1..=5)
        .map(|host| Peer::new(&format!("198.51.100.{host}:9"), server.now))
        .collect();
    for peer in &mut peers[..4] {
        peer.connect(&mut server);
    }
    let hello = peers[4].second_hello(&mut server);
    assert!(server.take(peers[4].client, &hello).is_empty());
    assert_eq!(server.cells.drops(DtlsDrop::Busy), 1);
    for peer in &peers[..2] {
        server.associations.trust(&peer.client.five_tuple);
        server.associations.trust(&peer.client.five_tuple);
    }
    assert_eq!(server.associations.strangers, 2);
    assert!(!server.take(peers[4].client, &hello).is_empty());
    assert_eq!(server.associations.len(), 5);
    let gone = server.pass(Duration::from_secs(20));
    assert!(!gone.is_empty());
    assert_eq!(
        (server.associations.len(), server.associations.strangers),
        (0, 0)
    );
}

/// A32: so many handshakes of one subscriber, so many of all.
#[test]
fn a32_handshakes_are_few_of_one_subscriber_and_few_in_all() {
    let mut server = Server::new();
    let begin = |server: &mut Server, address: String| {
        let mut peer = Peer::new(&address, server.now);
        let hello = peer.second_hello(server);
        server.take(peer.client, &hello);
    };
    for port in 1..=PENDING_PER_SUBSCRIBER + 5 {
        begin(&mut server, format!("198.51.100.1:{port}"));
    }
    assert_eq!(server.associations.len(), PENDING_PER_SUBSCRIBER);
    for host in 1..=HANDSHAKES {
        begin(&mut server, format!("[2001:db8:{host:x}::1]:9"));
    }
    assert_eq!(server.associations.handshakes, HANDSHAKES);
    assert_eq!(
        server.cells.drops(DtlsDrop::Busy),
        5 + PENDING_PER_SUBSCRIBER as u64
    );
    server.pass(Duration::from_secs(6));
    assert_eq!(server.associations.len(), 0);
    assert!(server.associations.pending.0.is_empty());
}

/// One round does little for handshakes; the others wait for the next, and beyond that go without.
#[test]
fn a32_handshakes_do_not_hold_up_a_round() {
    let mut server = Server::new();
    let count = HANDSHAKE_STEPS + WAITING + 3;
    let hellos: Vec<_> = (1..=count)
        .map(|host| {
            let mut peer = Peer::new(&format!("[2001:db8:{host:x}::1]:9"), server.now);
            let hello = peer.second_hello(&mut server);
            (peer.client, hello)
        })
        .collect();
    server
        .associations
        .begin_round(server.now, &mut server.cells);
    for (from, hello) in &hellos {
        let Server {
            associations,
            cells,
            now,
        } = &mut server;
        associations.take(*now, *from, hello, cells);
    }
    assert_eq!(server.associations.len(), HANDSHAKE_STEPS);
    assert_eq!(server.cells.drops(DtlsDrop::Busy), 3);
    assert_eq!(server.associations.deadline(server.now), Some(server.now));
    for round in 2..=4 {
        server
            .associations
            .begin_round(server.now, &mut server.cells);
        assert_eq!(server.associations.len(), round * HANDSHAKE_STEPS);
    }
}

/// Whoever repeats a good ClientHello, or fills up a handshake, keeps others waiting no longer than its share.
#[test]
fn a32_one_subscriber_does_not_fill_the_queue() {
    let mut server = Server::new();
    let mut greedy = Peer::new("198.51.100.1:9", server.now);
    let again = greedy.second_hello(&mut server);
    let mut other = Peer::new("198.51.100.2:9", server.now);
    let hello = other.second_hello(&mut server);
    let Server {
        associations,
        cells,
        now,
    } = &mut server;
    associations.begin_round(*now, cells);
    for _ in 0..HANDSHAKE_STEPS + 10 * WAITING {
        associations.take(*now, greedy.client, &again, cells);
    }
    assert_eq!(associations.waiting.len(), WAITING_PER_SUBSCRIBER);
    associations.take(*now, other.client, &hello, cells);
    for _ in 0..=WAITING_PER_SUBSCRIBER / HANDSHAKE_STEPS {
        associations.begin_round(*now, cells);
    }
    assert!(associations.has(&other.client.five_tuple));
    assert!(associations.waiting.is_empty() && associations.waiting_of.0.is_empty());
}

/// What a bad network does to datagrams, in a time of its own.
struct Network {
    random: StdRng,
    /// When it arrives, whether at the server, and what.
    under_way: Vec<(Instant, bool, Vec<u8>)>,
}

impl Network {
    /// Loses a quarter, repeats a quarter, and takes its time, so that they overtake each other.
    fn carry(&mut self, now: Instant, to_server: bool, datagrams: Vec<Vec<u8>>) {
        for datagram in datagrams {
            for _ in 0..[0, 1, 1, 2][self.random.random_range(0..4)] {
                let arrival = now + Duration::from_millis(self.random.random_range(5..120));
                self.under_way.push((arrival, to_server, datagram.clone()));
            }
        }
    }

    fn arrived(&mut self, now: Instant) -> Vec<(bool, Vec<u8>)> {
        let mut here: Vec<_> = self
            .under_way
            .extract_if(.., |(at, ..)| *at <= now)
            .collect();
        here.sort_by_key(|(at, ..)| *at);
        here.into_iter()
            .map(|(_, to_server, datagram)| (to_server, datagram))
            .collect()
    }
}

/// Lost, repeated and reordered flights: most handshakes succeed within the server's five seconds, the others begin
/// afresh from the same address, as a client does that gave up, and then data passes.
#[test]
fn handshakes_survive_a_bad_network() {
    const STEP: Duration = Duration::from_millis(5);
    let mut tries = 0;
    for seed in 0..60 {
        let mut server = Server::new();
        let mut network = Network {
            random: StdRng::seed_from_u64(seed),
            under_way: Vec::new(),
        };
        let connected = (0..8).find_map(|_| {
            tries += 1;
            let mut peer = Peer::new("198.51.100.1:4000", server.now);
            for _ in 0..2000 {
                server.now += STEP;
                server
                    .associations
                    .begin_round(server.now, &mut server.cells);
                let again = {
                    let Server {
                        associations,
                        cells,
                        now,
                    } = &mut server;
                    associations.expire(*now, |_| true, cells);
                    server.sent()
                };
                network.carry(server.now, false, again);
                if peer.dtls.handle_timeout(server.now).is_err() {
                    return None;
                }
                for (to_server, datagram) in network.arrived(server.now) {
                    if to_server {
                        let answer = server.take(peer.client, &datagram);
                        network.carry(server.now, false, answer);
                    } else if peer.dtls.handle_packet(&datagram).is_err() {
                        return None;
                    }
                }
                let said = peer.says();
                network.carry(server.now, true, said);
                if peer.connected {
                    return Some(peer);
                }
            }
            None
        });
        let mut peer = connected.unwrap_or_else(|| panic!("seed {seed}: no connection"));
        network.under_way.clear();
        peer.tell(&mut server, b"made it");
        assert_eq!(server.heard(), [b"made it"], "seed {seed}");
    }
    assert!(tries < 90, "{tries} handshakes for 60 connections");
}

/// Mutations of everything that a client says in a handshake and after it, from its own address: no panic, no answer
/// larger than what is repeated anyway, and no table that grows.
#[test]
fn mutated_records_do_no_harm() {
    let mut random = StdRng::seed_from_u64(0x6d75_7461);
    let mut server = Server::new();
    for round in 0..150 {
        let mut peer = Peer::new("198.51.100.1:4000", server.now);
        let mut to_server = vec![peer.second_hello(&mut server)];
        for _ in 0..4 {
            let mut to_client = Vec::new();
            for datagram in &to_server {
                for _ in 0..random.random_range(0..12) {
                    let mut wrong = datagram.clone();
                    for _ in 0..random.random_range(1..4) {
                        let place = random.random_range(0..wrong.len());
                        match random.random_range(0..3) {
                            0 => wrong[place] = random.random(),
                            1 => wrong.truncate(place.max(1)),
                            _ => wrong.insert(place, random.random()),
                        }
                    }
                    server.take(peer.client, &wrong);
                }
                to_client.extend(server.take(peer.client, datagram));
            }
            // What the mutations have spoilt is this client's own loss.
            for datagram in to_client {
                let _ = peer.dtls.handle_packet(&datagram);
            }
            to_server = peer.says();
        }
        assert!(server.associations.len() <= 2, "round {round}");
        server.heard();
        server.pass(Duration::from_secs(20));
        assert_eq!(server.associations.len(), 0, "round {round}");
        server.associations.ended.clear();
    }
}

/// A plaintext record, or one that looks protected: what anybody may send in another's name.
fn forged(random: &mut StdRng) -> Vec<u8> {
    let mut record = vec![random.random_range(20..=23), 0xfe, 0xfd, 0];
    record.push(u8::from(random.random_bool(0.2)));
    record.extend([0, 0, 0, 0, random.random_range(0..3), random.random()]);
    let mut body = match record[0] {
        20 => vec![1],
        21 => vec![random.random_range(1..=2), random.random_range(0..=110)],
        22 => {
            let length = random.random_range(0..40u8);
            let (kind, message) = (random.random_range(0..=20), random.random_range(0..8));
            let mut body = vec![kind, 0, 0, length, 0, message, 0, 0, 0, 0, 0, length];
            body.resize(12 + usize::from(length), random.random());
            body
        }
        _ => vec![7; random.random_range(0..60)],
    };
    if random.random_bool(0.1) {
        body.truncate(random.random_range(0..=body.len()));
    }
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(body);
    record
}

/// Whoever can write a client's address on a datagram can end nothing with it, in whatever order records come.
#[test]
fn s17_nobody_else_ends_an_association() {
    let mut random = StdRng::seed_from_u64(0x666f_7267);
    for round in 0..200 {
        let mut server = Server::new();
        let mut peer = Peer::new("198.51.100.1:4000", server.now);
        peer.connect(&mut server);
        if round % 2 == 0 {
            peer.tell(&mut server, b"first");
            server.heard();
        }
        for _ in 0..100 {
            let records = random.random_range(1..10);
            let datagram: Vec<u8> = (0..records).flat_map(|_| forged(&mut random)).collect();
            server.take(peer.client, &datagram);
            assert!(
                server.associations.ended.is_empty(),
                "{round}: {datagram:02x?}"
            );
        }
        assert!(server.heard().is_empty());
        peer.tell(&mut server, b"still there");
        assert_eq!(server.heard(), [b"still there"]);
    }
}

/// Runs `body` in a process that nobody else allocates in.
fn alone(test: &str, body: impl FnOnce()) {
    const ALONE: &str = "TURND_TEST_ALONE";
    if env::var_os(ALONE).is_some() {
        return body();
    }
    let module = module_path!().split_once("::").unwrap().1;
    let name = format!("{module}::{test}");
    let run = Command::new(env::current_exe().unwrap())
        .args(["--exact", &name])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}

/// Bytes of memory that this process really has.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages = statm.split_whitespace().nth(1).unwrap();
    pages.parse::<usize>().unwrap() * 4096
}

/// Random bytes, or a record with a few of them changed, cut or added.
fn mutated(random: &mut StdRng, models: &[Vec<u8>]) -> Vec<u8> {
    if random.random_bool(0.05) {
        let mut bytes = vec![0; random.random_range(0..600)];
        random.fill_bytes(&mut bytes);
        return bytes;
    }
    let mut bytes = models[random.random_range(0..models.len())].clone();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..bytes.len());
        bytes[at] = random.random();
    }
    match random.random_range(0..4) {
        0 => bytes.truncate(random.random_range(0..=bytes.len())),
        1 => bytes.extend([0xa5; 20]),
        _ => {}
    }
    bytes
}

/// A million bad records, of strangers and in the name of a client: silence, an alert, or what asks a ClientHello for
/// its cookie; no state, and no more memory at the end than after the first ones.
#[test]
fn a15_a_million_bad_records_leave_nothing_behind() {
    alone("a15_a_million_bad_records_leave_nothing_behind", || {
        let mut random = StdRng::seed_from_u64(0x6d69_6c6c);
        let mut server = Server::new();
        let mut peer = Peer::new("198.51.100.1:4000", server.now);
        let hello = first_hello(&mut Peer::new("198.51.100.2:4000", server.now));
        peer.connect(&mut server);
        // From here on the server knows that its last flight has arrived, and repeats it for nobody.
        peer.tell(&mut server, b"hello");
        server.heard();
        peer.dtls.send_application_data(&[7; 60]).unwrap();
        let mut data = peer.says().remove(0);
        // Twice wrong already, so that no change makes it right.
        for byte in data.iter_mut().rev().take(2) {
            *byte ^= 1;
        }
        let mut models = vec![hello, data];
        models.extend((0..30).map(|_| forged(&mut random)));
        let mut flood = |count: u32, server: &mut Server| {
            for number in 0..count {
                let bytes = mutated(&mut random, &models);
                let from = match number % 4 {
                    0 => peer.client,
                    _ => client(&format!(
                        "203.0.113.{}:{}",
                        number % 251,
                        1 + number % 65_535
                    )),
                };
                for answer in server.take(from, &bytes) {
                    let alert = answer[0] == 21 && answer.len() == 15;
                    assert!(
                        alert || answer.len() == HELLO_VERIFY_REQUEST,
                        "{answer:02x?}"
                    );
                    assert!(answer.len() <= bytes.len());
                }
                assert!(server.heard().is_empty());
            }
        };
        flood(50_000, &mut server);
        let before = resident();
        flood(950_000, &mut server);
        let grown = resident().saturating_sub(before);
        assert!(grown < 1 << 20, "{grown} bytes more");
        assert_eq!(
            (server.associations.len(), server.associations.handshakes),
            (1, 0)
        );
        assert!(server.associations.ended.is_empty());
        assert!(server.associations.waiting.is_empty());
        peer.tell(&mut server, b"still there");
        assert_eq!(server.heard(), [b"still there"]);
    });
}

/// What is too long for a record, and many records at once: neither is kept room for with an association.
#[test]
fn a31_large_datagrams_leave_no_large_buffers_behind() {
    alone("a31_large_datagrams_leave_no_large_buffers_behind", || {
        const CLIENTS: usize = 60;
        let mut server = Server::new();
        let mut peers: Vec<_> = (0..CLIENTS)
            .map(|host| Peer::new(&format!("[2001:db8:{host:x}::1]:9"), server.now))
            .collect();
        for peer in &mut peers {
            peer.connect(&mut server);
        }
        let record = |kind: u8, epoch: u8, length: usize| {
            let mut bytes = vec![kind, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 9, 9];
            bytes.extend((length as u16).to_be_bytes());
            bytes.resize(13 + length, 7);
            bytes
        };
        let before = resident();
        for small in (0..8).rev() {
            let mut datagram = record(23, 1, 40);
            (0..small).for_each(|_| datagram.extend(record(20, 0, 1)));
            let rest = 65_000 - datagram.len();
            datagram.extend(record(20, 0, rest));
            for peer in &peers {
                server.take(peer.client, &datagram);
            }
        }
        let grown = resident().saturating_sub(before) / CLIENTS;
        assert!(grown < 48 << 10, "{grown} bytes each");
        for peer in &mut peers {
            peer.tell(&mut server, b"still there");
            assert_eq!(server.heard(), [b"still there"]);
        }
    });
}
