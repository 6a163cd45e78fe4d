//! Bad networks and bad bytes: no panic, no state, no memory.

#[path = "../../../../tests/support/mutate.rs"]
mod mutate;

use super::*;
use mutate::mutated;

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
                let bytes = mutated(&mut random, &models, 0.05);
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
