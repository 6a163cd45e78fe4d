//! What of the IP header passes a relay, and what comes back as ICMP, over real sockets.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]
#![allow(unsafe_code, reason = "a control message is read from a raw buffer")]

mod wire;

use std::mem::MaybeUninit;
use std::net::{SocketAddr, UdpSocket};

use socket2::{MaybeUninitSlice, MsgHdrMut, SockRef};
use turnd::plane::{Carry, RelayAddress};
use turnd::stun::{Class, Icmp, Message, Method};
use turnd::turn::Cause;
use wire::{Client, Plane, ip, loopback, peer, receive_from};

const PORT_UNREACHABLE: Icmp = Icmp {
    kind: 3,
    code: 3,
    data: 0,
};

#[test]
fn d4_a_closed_port_is_told_over_every_transport() {
    let gone = closed("127.0.0.2");
    let plane = Plane::start(1, loopback());
    for mut client in [Client::udp(plane.udp), Client::tcp(plane.tcp)] {
        client.allocate();
        assert_eq!(client.permit(gone).code(), 0);
        client.send_indication(gone, b"anybody there?");
        assert_eq!(receive_icmp(&mut client), (gone, PORT_UNREACHABLE));
        // In a channel it is an indication all the same.
        assert_eq!(client.bind(0x4000, gone).code(), 0);
        client.send_channel(0x4000, b"and now?");
        assert_eq!(receive_icmp(&mut client), (gone, PORT_UNREACHABLE));
    }
    let cells = plane.snapshot().cells;
    assert_eq!((cells.icmp, cells.drops(Cause::Icmp)), (4, 0));
}

/// One relay, one peer that is gone and one that is not: the errors that come back for the first must not take
/// anything from the second, in either direction, whatever the order.
#[test]
fn d4_errors_of_one_peer_cost_another_nothing() {
    let gone = closed("127.0.0.2");
    let plane = Plane::start(1, loopback());
    let alive = peer("127.0.0.3");
    let at = alive.local_addr().unwrap();
    let mut client = Client::udp(plane.udp);
    let relayed = client.allocate();
    assert_eq!(client.bind(0x4000, gone).code(), 0);
    assert_eq!(client.bind(0x4001, at).code(), 0);
    for round in 0..500_u32 {
        let data = round.to_be_bytes();
        alive.send_to(&data, relayed).unwrap();
        for channel in [0x4000, 0x4001, 0x4000, 0x4000, 0x4001] {
            client.send_channel(channel, &data);
        }
        for _ in 0..2 {
            assert_eq!(receive_from(&alive), (data.to_vec(), relayed));
        }
        assert_eq!(receive_data(&mut client, 0x4001), data);
    }
    let cells = plane.snapshot().cells;
    assert!(cells.icmp >= 10, "{}", cells.icmp);
    assert!(cells.drops(Cause::Icmp) > 0, "beyond the rate");
    let refused = turnd::metrics::SocketError::Refused;
    assert_eq!(cells.socket_errors(refused), 0);
}

#[test]
fn d4_errors_are_not_told_when_switched_off() {
    let gone = closed("127.0.0.2");
    let plane = Plane::start_as(
        1,
        vec![loopback()],
        |_| {},
        |plane| {
            plane.carry = Carry {
                icmp: false,
                ..Carry::default()
            }
        },
    );
    let mut client = Client::udp(plane.udp);
    client.allocate();
    assert_eq!(client.bind(0x4000, gone).code(), 0);
    client.send_channel(0x4000, b"anybody there?");
    client.send_channel(0x4000, b"nobody?");
    client.hears_nothing();
    assert_eq!(plane.snapshot().cells.icmp, 0);
}

/// DSCP EF with ECT(0), AF41 with CE, best effort with ECT(1), CS1 with Not-ECT, and nothing.
const MARKS: [u8; 5] = [0xBA, 0x8B, 0x01, 0x20, 0];

#[test]
fn h1_dscp_and_ecn_pass_between_datagrams_both_ways() {
    for (local, carry, mask) in [
        ("127.0.0.1", Carry::default(), 0xFF),
        ("::1", Carry::default(), 0xFF),
        ("127.0.0.1", carrying(true, false), 0xFC),
        ("127.0.0.1", carrying(false, true), 0x03),
        ("127.0.0.1", carrying(false, false), 0),
    ] {
        // Towards "::1" it is a translation between IP versions.
        let plane = marking(1, local, carry);
        let mut client = Client::udp(plane.udp);
        let peer = peer("127.0.0.2");
        report_marks(&peer);
        report_marks(socket(&client));
        let at = peer.local_addr().unwrap();
        let relayed = client.allocate();
        for bound in [false, true] {
            assert_eq!(client.permit(at).code(), 0);
            if bound {
                assert_eq!(client.bind(0x4000, at).code(), 0);
            }
            for marks in MARKS {
                mark(socket(&client), marks);
                match bound {
                    true => client.send_channel(0x4000, b"out"),
                    false => client.send_indication(at, b"out"),
                }
                assert_eq!(received_marks(&peer), marks & mask);
                mark(&peer, marks);
                peer.send_to(b"in", relayed).unwrap();
                assert_eq!(received_marks(socket(&client)), marks & mask);
            }
        }
        // Answers are the server's own, whatever asked for them.
        mark(socket(&client), 0xBA);
        let refresh = client.build(Method::BINDING, |_| {}, false);
        client.send(&refresh);
        assert_eq!(received_marks(socket(&client)), 0);
    }
}

/// Datagrams that would leave and arrive as one piece, were their marks the same.
#[test]
fn h5_a_burst_keeps_the_congestion_mark_of_each_datagram() {
    let plane = Plane::start(1, loopback());
    let mut client = Client::udp(plane.udp);
    let peer = peer("127.0.0.2");
    report_marks(&peer);
    let at = peer.local_addr().unwrap();
    client.allocate();
    assert_eq!(client.bind(0x4000, at).code(), 0);
    let sent: Vec<u8> = (0..60).map(|i| if i % 7 == 3 { 3 } else { 2 }).collect();
    for marks in &sent {
        mark(socket(&client), *marks);
        client.send_channel(0x4000, &[7; 1000]);
    }
    let received: Vec<u8> = sent.iter().map(|_| received_marks(&peer)).collect();
    assert_eq!(received, sent);
}

/// \[H2\] \[H3\]: a stream has marks of its own, which are not those of a datagram.
#[test]
fn h2_datagrams_from_a_stream_are_unmarked_and_marks_towards_it_do_no_harm() {
    let plane = Plane::start(1, loopback());
    let mut client = Client::tcp(plane.tcp);
    let wire::Link::Tcp(stream, _) = &client.link else {
        unreachable!("a TCP client")
    };
    SockRef::from(stream).set_tos_v4(0xB8).unwrap();
    let peer = peer("127.0.0.2");
    report_marks(&peer);
    let at = peer.local_addr().unwrap();
    let relayed = client.allocate();
    assert_eq!(client.bind(0x4000, at).code(), 0);
    client.send_channel(0x4000, b"out");
    assert_eq!(received_marks(&peer), 0);
    mark(&peer, 0xBB);
    peer.send_to(b"in", relayed).unwrap();
    assert_eq!(client.receive_channel(), (0x4000, b"in".to_vec()));
}

/// Between two relays of the server there is no network, within a worker and across: the marks pass as if there were.
#[test]
fn h1_marks_pass_from_relay_to_relay_across_workers() {
    let plane = Plane::start(2, loopback());
    let mut clients: Vec<Client> = (0..6).map(|_| Client::udp(plane.udp)).collect();
    let relayed: Vec<SocketAddr> = clients.iter_mut().map(Client::allocate).collect();
    for client in &mut clients {
        report_marks(socket(client));
        mark(socket(client), 0);
        for peer in &relayed {
            assert_eq!(client.permit(*peer).code(), 0);
        }
    }
    for from in 0..6 {
        for to in (0..6).filter(|to| *to != from) {
            mark(socket(&clients[from]), 0xBA);
            clients[from].send_indication(relayed[to], b"hairpin");
            assert_eq!(received_marks(socket(&clients[to])), 0xBA);
        }
    }
}

fn carrying(dscp: bool, ecn: bool) -> Carry {
    Carry {
        dscp,
        ecn,
        ..Carry::default()
    }
}

/// A plane that listens at `local`, with relays of IPv4.
fn marking(workers: usize, local: &str, carry: Carry) -> Plane {
    let v4 = loopback();
    let own = ip(local);
    let mut addresses = vec![RelayAddress {
        local: own,
        advertised: own,
    }];
    if own.is_ipv6() {
        addresses.push(v4);
    }
    Plane::start_as(workers, addresses, |_| {}, |plane| plane.carry = carry)
}

fn socket(client: &Client) -> &UdpSocket {
    let wire::Link::Udp(socket) = &client.link else {
        unreachable!("a UDP client")
    };
    socket
}

/// Sets DSCP and ECN of what a socket sends.
fn mark(socket: &UdpSocket, marks: u8) {
    let v4 = socket.local_addr().unwrap().is_ipv4();
    let socket = SockRef::from(socket);
    match v4 {
        true => socket.set_tos_v4(marks.into()).unwrap(),
        false => socket.set_tclass_v6(marks.into()).unwrap(),
    }
}

fn report_marks(socket: &UdpSocket) {
    let v4 = socket.local_addr().unwrap().is_ipv4();
    let socket = SockRef::from(socket);
    match v4 {
        true => socket.set_recv_tos_v4(true).unwrap(),
        false => socket.set_recv_tclass_v6(true).unwrap(),
    }
}

/// DSCP and ECN of the next datagram.
fn received_marks(socket: &UdpSocket) -> u8 {
    let mut bytes = [MaybeUninit::new(0); 2048];
    let mut control = [MaybeUninit::new(0); 64];
    let mut buffers = [MaybeUninitSlice::new(&mut bytes)];
    let mut header = MsgHdrMut::new()
        .with_buffers(&mut buffers)
        .with_control(&mut control);
    SockRef::from(socket)
        .recvmsg(&mut header, 0)
        .expect("something comes in time");
    let length = header.control_len();
    // SAFETY: every byte was written when the buffer was made.
    let control = control.map(|byte| unsafe { byte.assume_init() });
    assert!(length > 16, "the kernel tells no marks");
    // One control message: a header of 16 bytes, then the octet or, least octet first, an int.
    control[16]
}

/// An address where nobody listens.
fn closed(address: &str) -> SocketAddr {
    let socket = UdpSocket::bind((ip(address), 0)).unwrap();
    socket.local_addr().unwrap()
}

/// The next message, which must be a Data indication about an ICMP error.
fn receive_icmp(client: &mut Client) -> (SocketAddr, Icmp) {
    let bytes = client.receive();
    icmp(&bytes).unwrap_or_else(|| panic!("no ICMP error: {bytes:02x?}"))
}

/// What comes next in a channel, ICMP errors aside.
fn receive_data(client: &mut Client, channel: u16) -> Vec<u8> {
    loop {
        let bytes = client.receive();
        if icmp(&bytes).is_none() {
            assert_eq!(bytes[..2], channel.to_be_bytes());
            return bytes[4..].to_vec();
        }
    }
}

fn icmp(bytes: &[u8]) -> Option<(SocketAddr, Icmp)> {
    let message = Message::parse(bytes).ok()?;
    assert_eq!(
        (message.method(), message.class()),
        (Method::DATA, Class::Indication)
    );
    assert!(message.data().is_none());
    let peer = message.xor_peer_address().unwrap().unwrap();
    Some((peer, message.icmp()?.unwrap()))
}
