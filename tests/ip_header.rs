//! What of the IP header passes a relay, and what comes back as ICMP, over real sockets.

mod wire;

use std::net::{SocketAddr, UdpSocket};

use turnd::plane::Carry;
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
        |plane| plane.carry = Carry { icmp: false },
    );
    let mut client = Client::udp(plane.udp);
    client.allocate();
    assert_eq!(client.bind(0x4000, gone).code(), 0);
    client.send_channel(0x4000, b"anybody there?");
    client.send_channel(0x4000, b"nobody?");
    client.hears_nothing();
    assert_eq!(plane.snapshot().cells.icmp, 0);
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
