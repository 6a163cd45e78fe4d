//! TURN over DTLS (RFC 7350): a client with real sockets, and strangers by the thousand.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "support/mutate.rs"]
mod mutate;
#[path = "daemon/process.rs"]
mod process;
mod wire;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use turnd::metrics::{Direction, Snapshot};
use turnd::plane::Listen;
use turnd::stun::{Attribute, Method};
use turnd::turn::{Cause, Family, Settings, Transport};

use mutate::mutated;
use process::{Daemon, Start, certificate, free_address};
use wire::dtls::{Association, client_hello, identity};
use wire::{Client, Link, Plane, loopback, peer, receive_from};

/// The same bytes every time.
const SEED: u64 = 0x6474_6C73_0000_0001;
/// What pages of buffers may add; ten thousand associations would be a hundred times as much.
const GROWTH: u64 = 1 << 20;
/// A record with something protected in it, of an association that is not there.
const STRAY: &[u8] = b"\x17\xfe\xfd\0\x01\0\0\0\0\0\x01\0\x1e012345678901234567890123456789";
/// A plaintext alert: handshake failure.
const ALERT: &[u8] = b"\x15\xfe\xfd\0\0\0\0\0\0\0\x01\0\x02\x02\x28";

#[test]
fn s7350_channel_data_and_indications_pass_both_ways() {
    let (plane, dtls) = plane(2);
    let mut client = Client::dtls(dtls);
    let peer = peer("127.0.0.2");
    let at = peer.local_addr().unwrap();
    let relayed = client.allocate();
    assert_eq!(client.permit(at).code(), 0);
    let lengths = [0, 1, 2, 3, 4, 159, 160, 1101, 1400, 9000];
    for length in lengths {
        let data = vec![length as u8; length];
        client.send_indication(at, &data);
        assert_eq!(receive_from(&peer), (data.clone(), relayed));
        peer.send_to(&data, relayed).unwrap();
        assert_eq!(client.receive_data(), (at, data));
    }
    assert_eq!(client.bind(0x4001, at).code(), 0);
    for length in lengths {
        let data = vec![length as u8; length];
        client.send_channel(0x4001, &data);
        assert_eq!(receive_from(&peer), (data.clone(), relayed));
        peer.send_to(&data, relayed).unwrap();
        assert_eq!(client.receive_channel(), (0x4001, data));
    }
    let snapshot = plane.snapshot();
    let bytes = 2 * lengths.iter().sum::<usize>() as u64;
    for direction in Direction::ALL {
        let traffic = snapshot
            .cells
            .traffic(direction, Transport::Dtls, Family::V4);
        assert_eq!((traffic.packets, traffic.bytes), (20, bytes));
    }
    let dropped: u64 = Cause::ALL
        .iter()
        .map(|cause| snapshot.cells.drops(*cause))
        .sum();
    assert_eq!(dropped, 0);
    let of_dtls = &snapshot.census.allocations[Transport::Dtls.index()];
    assert_eq!(of_dtls[Family::V4.index()], 1);
    let cells = &snapshot.cells.dtls;
    assert_eq!(
        (cells.handshakes.ok, cells.cookies, cells.associations),
        (1, 1, 1)
    );
}

/// A record has room for 16 KiB: what is longer goes nowhere, and nothing else is lost for it.
#[test]
fn s7350_what_is_too_long_for_a_record_is_dropped() {
    let (plane, dtls) = plane(1);
    let mut client = Client::dtls(dtls);
    let peer = peer("127.0.0.2");
    let relayed = client.allocate();
    assert_eq!(client.bind(0x4000, peer.local_addr().unwrap()).code(), 0);
    for length in [16_381, 40_000, 16_380] {
        peer.send_to(&vec![7; length], relayed).unwrap();
    }
    assert_eq!(client.receive_channel(), (0x4000, vec![7; 16_380]));
    assert_eq!(plane.snapshot().cells.drops(Cause::TooLarge), 2);
}

/// Clients of different transports, most of them with different workers.
#[test]
fn s7350_relays_of_one_server_reach_each_other() {
    let (plane, dtls) = plane(2);
    let mut clients: Vec<Client> = (0..6)
        .map(|number| match number % 2 {
            0 => Client::dtls(dtls),
            _ => Client::udp(plane.udp),
        })
        .collect();
    let relayed: Vec<_> = clients.iter_mut().map(Client::allocate).collect();
    for client in &mut clients {
        for peer in &relayed {
            assert_eq!(client.permit(*peer).code(), 0);
        }
    }
    for from in 0..6 {
        for to in (0..6).filter(|to| *to != from) {
            let data = vec![(from * 8 + to) as u8; 300];
            clients[from].send_indication(relayed[to], &data);
            assert_eq!(clients[to].receive_data(), (relayed[from], data));
        }
    }
}

/// \[6062-1\] There are no TCP relays for those who come by datagrams.
#[test]
fn s7350_there_is_no_tcp_relay_over_dtls() {
    let (_plane, dtls) = plane(1);
    let mut client = Client::dtls(dtls);
    let answer = client.request(Method::ALLOCATE, |writer| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 6);
    });
    assert!([400, 442].contains(&answer.code()), "{}", answer.code());
}

#[test]
fn s7350_a_goodbye_ends_the_allocation() {
    let (plane, dtls) = plane(1);
    let mut client = Client::dtls(dtls);
    client.allocate();
    assert_eq!(plane.snapshot().ports.used, 1);
    let Link::Dtls(association) = &mut client.link else {
        unreachable!()
    };
    association.close();
    assert!(association.try_receive().is_none());
    assert!(association.closed, "the goodbye is answered");
    let Snapshot { cells, ports, .. } = plane.snapshot();
    assert_eq!((ports.used, cells.dtls.associations), (0, 0));
}

/// RFC 6347 §4.2.8: a client that has lost its keys connects again from the same port, and has no allocation.
#[test]
fn s7350_a_client_may_begin_afresh_from_the_same_port() {
    let (plane, dtls) = plane(1);
    let mut before = Client::dtls(dtls);
    before.allocate();
    let Link::Dtls(association) = before.link else {
        unreachable!()
    };
    let socket = association.socket.try_clone().unwrap();
    let again = Association::connect_by(socket, dtls);
    let mut after = Client::new(Link::Dtls(Box::new(again)));
    assert_eq!(plane.snapshot().ports.used, 0);
    after.allocate();
    let Snapshot { cells, ports, .. } = plane.snapshot();
    assert_eq!((ports.used, cells.dtls.associations), (1, 1));
}

/// \[8016-1\] From UDP to DTLS and back, most of the time to another worker.
#[test]
fn s8016_1_an_allocation_moves_to_dtls_and_back() {
    let (plane, dtls) = plane_with(3, |settings| settings.mobility = true);
    let peer = peer("127.0.0.2");
    let at = peer.local_addr().unwrap();
    let ticket_of = |answer: wire::Answer| {
        let message = answer.success();
        let (_, ticket) = message
            .attributes()
            .find(|(attribute, _)| *attribute == Attribute::MOBILITY_TICKET)
            .unwrap();
        ticket.to_vec()
    };
    let mut client = Client::udp(plane.udp);
    let mut ticket = ticket_of(client.request(Method::ALLOCATE, |writer| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        writer.bytes(Attribute::MOBILITY_TICKET, b"");
    }));
    assert_eq!(client.bind(0x4000, at).code(), 0);
    for round in 0..12 {
        client = match round % 2 {
            0 => Client::dtls(dtls),
            _ => Client::udp(plane.udp),
        };
        ticket = ticket_of(client.request(Method::REFRESH, |writer| {
            writer.bytes(Attribute::MOBILITY_TICKET, &ticket);
        }));
        let word = [round; 100];
        client.send_channel(0x4000, &word);
        let (heard, relayed) = receive_from(&peer);
        assert_eq!(heard, word);
        peer.send_to(&word, relayed).unwrap();
        assert_eq!(client.receive_channel(), (0x4000, word.to_vec()));
    }
    let Snapshot { cells, ports, .. } = plane.snapshot();
    assert_eq!(ports.used, 1);
    assert!(cells.passed_on > 0, "no move to another worker");
}

/// \[S11\] RFC 8489 §11: a request without the magic cookie gets 500, an indication nothing; whether or not classic STUN
/// is served over UDP, and however few answers strangers get there.
#[test]
fn s11_classic_stun_is_refused_over_dtls() {
    for served in [false, true] {
        let (_plane, dtls) = plane_with(1, |settings| {
            settings.rfc3489 = served;
            settings.limits.unauthenticated_replies = 1;
        });
        let mut client = Client::dtls(dtls);
        let classic = |kind: u8| [&[0, kind, 0, 0][..], &[7; 16]].concat();
        for _ in 0..10 {
            client.send(&classic(0x01));
            let answer = client.receive();
            assert_eq!(
                (&answer[..2], &answer[4..20]),
                (&[1, 0x11][..], &[7; 16][..])
            );
            // ERROR-CODE, the first attribute: class and number.
            assert_eq!(
                (&answer[20..22], &answer[24..28]),
                (&[0, 9][..], &[0, 0, 5, 0][..])
            );
        }
        client.send(&classic(0x11));
        client.hears_nothing();
    }
}

/// \[S17\] What is not encrypted is not answered, whatever it says.
#[test]
fn s17_a_dtls_listener_answers_nothing_in_the_clear() {
    let (plane, dtls) = plane(1);
    let mut stranger = Client::udp(dtls);
    let requests =
        [Method::BINDING, Method::ALLOCATE].map(|method| stranger.build(method, |_| {}, false));
    for bytes in requests
        .iter()
        .map(Vec::as_slice)
        .chain([STRAY, ALERT, b"", b"\x16"])
    {
        stranger.send(bytes);
    }
    stranger.hears_nothing();
    let cells = plane.snapshot().cells;
    assert_eq!(cells.answers().map(|(_, _, count)| count).sum::<u64>(), 0);
    assert_eq!(cells.dtls.associations, 0);
    // The other listener does.
    let mut client = Client::udp(plane.udp);
    client.allocate();
}

/// \[S17\], A15: ten thousand addresses ask, none gets more than it sent, and nothing is kept of any.
#[test]
fn a15_ten_thousand_strangers_leave_nothing_behind() {
    let (daemon, dtls) = daemon();
    let hello = client_hello();
    let ask = |from: u32| {
        let address = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + from);
        let socket = UdpSocket::bind((address, 0)).unwrap();
        socket.connect(dtls).unwrap();
        socket.set_read_timeout(Some(wire::PATIENCE)).unwrap();
        socket.send(&hello).unwrap();
        let mut answer = [0; 2048];
        let length = socket.recv(&mut answer).unwrap();
        assert!(length <= hello.len());
        for bytes in [STRAY, ALERT] {
            socket.send(bytes).unwrap();
        }
        length
    };
    // The first fill the buffers that stay.
    for from in 0..1000 {
        ask(from);
    }
    let before = resident(&daemon);
    let received: usize = (1000..11_000).map(ask).sum();
    let grown = resident(&daemon).saturating_sub(before);
    assert!(grown < GROWTH, "{grown} bytes more");
    assert!(received <= 10_000 * hello.len());
    assert_eq!(daemon.metric("turn_dtls_associations"), 0.0);
    assert_eq!(daemon.metric("turn_dtls_cookies_total"), 11_000.0);
    let strays = daemon.metric("turn_dtls_dropped_datagrams_total{reason=\"stray\"}");
    assert!(strays >= 20_000.0, "{strays}");
}

/// A hundred thousand records of every kind with a few bytes changed, from the addresses of strangers and of a client.
#[test]
fn a15_a_hundred_thousand_mutated_records_do_not_disturb_a_call() {
    let (daemon, dtls) = daemon();
    let mut call = Call::start(dtls);
    let models = [client_hello(), STRAY.to_vec(), ALERT.to_vec()];
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut random = StdRng::seed_from_u64(SEED);
    let mut flood = |count: usize, call: &mut Call| {
        for number in 0..count {
            let bytes = mutated(&mut random, &models, 0.1);
            // A full buffer of the sender is not the server's business.
            let _ = match number % 10 {
                0 => call.association().socket.send(&bytes),
                _ => socket.send_to(&bytes, dtls),
            };
            if number % 1000 == 0 {
                call.goes_on();
            }
        }
        call.goes_on();
    };
    flood(10_000, &mut call);
    let before = resident(&daemon);
    flood(100_000, &mut call);
    let grown = resident(&daemon).saturating_sub(before);
    assert!(grown < GROWTH, "{grown} bytes more");
    assert_eq!(daemon.metric("turn_dtls_associations"), 1.0);
    assert_eq!(daemon.metric("turn_worker_restarts_total"), 0.0);
    let seen: f64 = ["not_dtls", "stray", "handshake"]
        .map(|reason| {
            daemon.metric(&format!(
                "turn_dtls_dropped_datagrams_total{{reason=\"{reason}\"}}"
            ))
        })
        .iter()
        .sum();
    assert!(seen > 10_000.0, "the flood was not seen: {seen}");
}

/// A client that relays while others do what they like.
struct Call {
    client: Client,
    peer: UdpSocket,
    relayed: SocketAddr,
    said: u32,
}

impl Call {
    fn start(server: SocketAddr) -> Self {
        let mut client = Client::dtls(server);
        let relayed = client.allocate();
        let peer = peer("127.0.0.2");
        assert_eq!(client.bind(0x4000, peer.local_addr().unwrap()).code(), 0);
        let patience = Duration::from_millis(500);
        peer.set_read_timeout(Some(patience)).unwrap();
        client.set_timeout(patience);
        Self {
            client,
            peer,
            relayed,
            said: 0,
        }
    }

    fn association(&self) -> &Association {
        match &self.client.link {
            Link::Dtls(association) => association,
            Link::Udp(_) | Link::Tcp(..) | Link::Over(..) => unreachable!(),
        }
    }

    /// A word each way. A flood fills the kernel's buffers, so each is said again until it is heard.
    fn goes_on(&mut self) {
        self.said += 1;
        let word = self.said.to_be_bytes();
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

/// A plane that listens for UDP and for DTLS.
fn plane(workers: usize) -> (Plane, SocketAddr) {
    plane_with(workers, |_| {})
}

fn plane_with(workers: usize, change: impl FnOnce(&mut Settings)) -> (Plane, SocketAddr) {
    let dtls = free_address();
    let plane = Plane::start_as(workers, vec![loopback()], change, |settings| {
        settings.listeners.push(Listen::new(dtls, Transport::Dtls))
    });
    plane.handle.replace_identity(identity());
    (plane, dtls)
}

/// The binary with a DTLS listener.
fn daemon() -> (Daemon, SocketAddr) {
    let dtls = free_address();
    let start = Start::with(&format!(
        "[peers]\nallow = ['127.0.0.0/8']\n[[listen]]\naddress = '{dtls}'\ntransport = 'dtls'\n\
         [tls]\ncertificate = 'cert.pem'\nkey = 'key.pem'"
    ));
    certificate(&start.place.0, 2040);
    (start.ready(), dtls)
}

/// Bytes of memory that the server really has.
fn resident(daemon: &Daemon) -> u64 {
    let pid = daemon.pid().as_raw_nonzero();
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    let pages: u64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}
