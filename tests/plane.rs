//! Workers, sockets and connections, over the loopback interface.

mod wire;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use turnd::plane::RelayAddress;
use turnd::stun::{Attribute, Method};
use turnd::turn::{Limit, ReservationToken};
use wire::{Answer, Client, PATIENCE, Plane, channel_data, ip, loopback, peer, receive_from};

fn pattern(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + seed * 7) as u8).collect()
}

#[test]
fn channel_data_and_indications_pass_both_ways_over_udp_and_tcp() {
    let plane = Plane::start(2, loopback());
    for mut client in [Client::udp(plane.udp), Client::tcp(plane.tcp)] {
        let peer = peer("127.0.0.2");
        let at = peer.local_addr().unwrap();
        let relayed = client.allocate();
        assert_eq!(client.permit(at).code(), 0);
        // [D1] [C6]: an empty datagram is one; lengths of every remainder by 4 ([C5]).
        for length in [0, 1, 2, 3, 4, 159, 160, 1101, 1400] {
            let data = pattern(length, length);
            client.send_indication(at, &data);
            assert_eq!(receive_from(&peer), (data.clone(), relayed));
            peer.send_to(&data, relayed).unwrap();
            assert_eq!(client.receive_data(), (at, data));
        }
        assert_eq!(client.bind(0x4001, at).code(), 0);
        for length in [0, 1, 2, 3, 4, 159, 160, 1101, 1400] {
            let data = pattern(length, length);
            client.send_channel(0x4001, &data);
            assert_eq!(receive_from(&peer), (data.clone(), relayed));
            peer.send_to(&data, relayed).unwrap();
            assert_eq!(client.receive_channel(), (0x4001, data));
        }
    }
    let cells = plane.snapshot().cells;
    assert_eq!(
        turnd::turn::Cause::ALL
            .iter()
            .map(|cause| cells.drops(*cause))
            .sum::<u64>(),
        0
    );
}

#[test]
fn ipv6_clients_and_relays() {
    let relay = RelayAddress {
        local: ip("::1"),
        advertised: ip("::1"),
    };
    let v4 = loopback();
    let plane = Plane::start_with(1, vec![relay, v4], |_| {});
    let mut client = Client::udp(plane.udp);
    let answer = client.request(Method::ALLOCATE, |writer| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        writer.u8(Attribute::REQUESTED_ADDRESS_FAMILY, 2);
    });
    let relayed = answer.success().xor_relayed_address().unwrap().unwrap();
    assert!(relayed.is_ipv6());
    // [P5], rule 5 of real clients: without the attribute it is IPv4, on an IPv6 listener too.
    let mut other = Client::udp(plane.udp);
    assert!(other.allocate().is_ipv4());
}

#[test]
fn a_burst_keeps_its_order_and_its_boundaries() {
    let plane = Plane::start(1, loopback());
    let peer = peer("127.0.0.2");
    let at = peer.local_addr().unwrap();
    let mut client = Client::udp(plane.udp);
    let relayed = client.allocate();
    assert_eq!(client.bind(0x4000, at).code(), 0);
    // Equal sizes, so that they travel as super-packets, and now and then a shorter one that ends a run.
    let bodies: Vec<Vec<u8>> = (0..60)
        .map(|i| pattern(i, if i % 13 == 12 { 77 } else { 900 }))
        .collect();
    for body in &bodies {
        client.send_channel(0x4000, body);
    }
    for body in &bodies {
        assert_eq!(receive_from(&peer), (body.clone(), relayed));
    }
    for body in &bodies {
        peer.send_to(body, relayed).unwrap();
    }
    for body in &bodies {
        assert_eq!(client.receive_channel(), (0x4000, body.clone()));
    }
}

/// Two relay-only clients of one server: the everyday case. With several workers the two relays usually
/// belong to different ones; all pairs of eight clients cover both ways.
#[test]
fn a06_relays_of_one_server_reach_each_other_in_process() {
    let plane = Plane::start(2, loopback());
    let mut clients: Vec<Client> = (0..8).map(|_| Client::udp(plane.udp)).collect();
    let relayed: Vec<SocketAddr> = clients.iter_mut().map(Client::allocate).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        for peer in &relayed {
            assert_eq!(client.permit(*peer).code(), 0, "client {i}");
        }
    }
    for from in 0..8 {
        for to in (0..8).filter(|to| *to != from) {
            let data = pattern(from * 8 + to, 300);
            clients[from].send_indication(relayed[to], &data);
            assert_eq!(clients[to].receive_data(), (relayed[from], data));
        }
    }
}

#[test]
fn relays_behind_a_one_to_one_nat_reach_each_other_by_their_advertised_address() {
    let relay = RelayAddress {
        local: ip("127.0.0.1"),
        advertised: ip("192.0.2.7"),
    };
    let plane = Plane::start(2, relay);
    let (mut a, mut b) = (Client::udp(plane.udp), Client::tcp(plane.tcp));
    let (at_a, at_b) = (a.allocate(), b.allocate());
    assert_eq!((at_a.ip(), at_b.ip()), (ip("192.0.2.7"), ip("192.0.2.7")));
    assert_eq!(a.bind(0x4000, at_b).code(), 0);
    assert_eq!(b.permit(at_a).code(), 0);
    a.send_channel(0x4000, b"through the looking glass");
    assert_eq!(
        b.receive_data(),
        (at_a, b"through the looking glass".to_vec())
    );
    b.send_indication(at_a, b"and back");
    assert_eq!(a.receive_channel(), (0x4000, b"and back".to_vec()));
}

#[test]
fn a06_own_addresses_are_no_peers_unless_a_relay_lives_there() {
    let plane = Plane::start(1, loopback());
    let mut client = Client::udp(plane.udp);
    let relayed = client.allocate();
    assert_eq!(client.permit(plane.udp).code(), 403);
    assert_eq!(client.bind(0x4000, plane.udp).code(), 403);
    let mut other = Client::udp(plane.udp);
    let gone = other.allocate();
    assert_eq!(client.permit(gone).code(), 0);
    let deleted = other.request(Method::REFRESH, |writer| {
        writer.u32(Attribute::LIFETIME, 0);
    });
    assert_eq!(deleted.code(), 0);
    // The permission still stands, but nothing lives there any more: nothing may go onto the network.
    client.send_indication(gone, b"to nobody");
    client.hears_nothing();
    assert_eq!(client.permit(gone).code(), 403);
    assert_ne!(gone, relayed);
}

#[test]
fn t2_a_reserved_port_is_redeemed_from_another_transport_and_worker() {
    let plane = Plane::start(2, loopback());
    for _ in 0..4 {
        let mut rtp = Client::udp(plane.udp);
        let answer = rtp.request(Method::ALLOCATE, |writer| {
            writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
            writer.even_port(true);
        });
        let answer = answer.success();
        let even = answer.xor_relayed_address().unwrap().unwrap();
        let token = ReservationToken(answer.reservation_token().unwrap().unwrap());
        assert_eq!(even.port() % 2, 0);
        let redeem = |mut client: Client| {
            let answer = client.request(Method::ALLOCATE, |writer| {
                writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
                writer.bytes(Attribute::RESERVATION_TOKEN, &token.0);
            });
            (answer.code() == 0)
                .then(|| answer.message().xor_relayed_address().unwrap().unwrap())
                .ok_or_else(|| answer.code())
        };
        assert_eq!(
            redeem(Client::tcp(plane.tcp)),
            Ok(SocketAddr::new(even.ip(), even.port() + 1))
        );
        // Good once.
        assert_eq!(redeem(Client::udp(plane.udp)), Err(508));
    }
}

/// Whichever worker meets it, a limit is the whole server's, and so is the count of those it turned away.
#[test]
fn what_a_limit_turns_away_is_counted_by_the_limit() {
    let plane = Plane::start_with(2, vec![loopback()], |settings| settings.limits.per_user = 2);
    let mut clients: Vec<Client> = (0..6).map(|_| Client::udp(plane.udp)).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        let answer = client.request(Method::ALLOCATE, |writer| {
            writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        });
        assert_eq!(answer.code(), if i < 2 { 0 } else { 486 });
    }
    let rejected = plane.snapshot().rejected;
    assert_eq!(rejected[Limit::User.index()], 4);
    assert_eq!(rejected.iter().sum::<u64>(), 4, "{rejected:?}");
}

#[test]
fn closing_a_connection_ends_its_allocation_and_gives_the_port_back() {
    let plane = Plane::start(1, loopback());
    let mut client = Client::tcp(plane.tcp);
    client.allocate();
    assert_eq!(plane.snapshot().ports.used, 1);
    drop(client);
    let ended = (0..100).any(|_| {
        let used = plane.snapshot().ports.used;
        if used > 0 {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        used == 0
    });
    assert!(ended, "the port is still in use");
}

#[test]
fn s14_a_stream_may_be_cut_anywhere_and_carry_many_messages() {
    let plane = Plane::start(1, loopback());
    let peer = peer("127.0.0.2");
    let mut client = Client::tcp(plane.tcp);
    client.allocate();
    assert_eq!(client.bind(0x4000, peer.local_addr().unwrap()).code(), 0);
    let mut stream = Vec::new();
    let mut sent = Vec::new();
    for length in [1, 2, 3, 4, 5, 0, 250] {
        let data = pattern(length, length);
        stream.extend(channel_data(0x4000, &data, true));
        sent.push(data);
    }
    let binding = client.build(Method::BINDING, |_| {}, false);
    stream.extend(&binding);
    for byte in stream.chunks(1) {
        client.send(byte);
    }
    client.send(&stream);
    for data in sent.iter().chain(&sent) {
        assert_eq!(receive_from(&peer).0, *data);
    }
    for _ in 0..2 {
        let answer = Answer(client.receive());
        assert_eq!(answer.success().method(), Method::BINDING);
    }
}

#[test]
fn a31_garbage_closes_a_connection_at_once() {
    let plane = Plane::start(1, loopback());
    for garbage in [
        &[0xFF; 64][..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0, 1, 0, 3, 0x21, 0x12, 0xA4, 0x42],
        &[0x40, 0, 0xFF, 0xFF],
    ] {
        let mut stream = TcpStream::connect(plane.tcp).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        stream.write_all(garbage).unwrap();
        // Closed or reset, not kept: the read ends before its time-out.
        match stream.read(&mut [0; 16]) {
            Ok(read) => assert_eq!(read, 0),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
}

#[test]
fn a31_a_connection_without_an_allocation_is_closed_in_time() {
    let plane = Plane::start(1, loopback());
    let mut idle = TcpStream::connect(plane.tcp).unwrap();
    let mut half = TcpStream::connect(plane.tcp).unwrap();
    half.write_all(&[0, 1, 0]).unwrap();
    let mut alive = Client::tcp(plane.tcp);
    alive.allocate();
    for stream in [&mut idle, &mut half] {
        stream
            .set_read_timeout(Some(Duration::from_secs(15)))
            .unwrap();
        assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
    }
    // The one with an allocation is still served.
    let refreshed = alive.request(Method::REFRESH, |writer| {
        writer.u32(Attribute::LIFETIME, 600);
    });
    assert_eq!(refreshed.code(), 0);
}

/// A31: who has proved who he is, and has got nothing for it, counts on.
#[test]
fn a31_a_refusal_makes_nobody_known() {
    let plane = Plane::start(1, loopback());
    let refused: Vec<Client> = (0..64)
        .map(|_| {
            let mut client = Client::tcp(plane.tcp);
            assert_eq!(client.permit(plane.udp).code(), 437);
            client
        })
        .collect();
    let mut next = TcpStream::connect(plane.tcp).unwrap();
    next.set_read_timeout(Some(PATIENCE)).unwrap();
    // Nothing is said before it is closed, and not because its own ten seconds are over.
    assert_eq!(next.read(&mut [0; 1]).unwrap(), 0);
    let streams = plane.snapshot().cells.streams;
    assert_eq!((streams.ok, streams.failed), (64, 1));
    drop(refused);
}

#[test]
fn a31_one_address_has_so_many_connections_of_strangers() {
    let plane = Plane::start(1, loopback());
    // Those who have logged in do not count, however many share the address.
    let friends: Vec<Client> = (0..70)
        .map(|_| {
            let mut friend = Client::tcp(plane.tcp);
            friend.allocate();
            friend
        })
        .collect();
    let idle: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(plane.tcp).unwrap())
        .collect();
    let counted = (0..100).find_map(|_| {
        let streams = plane.snapshot().cells.streams;
        (streams.ok + streams.failed == 70 + idle.len() as u64).then_some(streams)
    });
    let counted = counted.expect("every connection is taken or refused");
    assert_eq!((counted.ok, counted.failed), (70 + 64, 36));
    // A place that a stranger leaves is free again.
    drop(idle);
    drop(friends);
    let mut next = Client::tcp(plane.tcp);
    let served = (0..100).any(|_| {
        let binding = next.build(Method::BINDING, |_| {}, false);
        if let wire::Link::Tcp(stream, _) = &mut next.link {
            let _ = stream.write_all(&binding);
        }
        let served = next.try_receive().is_some();
        if !served {
            next = Client::tcp(plane.tcp);
        }
        served
    });
    assert!(served);
}

#[test]
fn an_oversized_packet_costs_itself_only() {
    let plane = Plane::start(1, loopback());
    let peer = peer("127.0.0.2");
    let mut client = Client::tcp(plane.tcp);
    let relayed = client.allocate();
    assert_eq!(client.bind(0x4000, peer.local_addr().unwrap()).code(), 0);
    // Longer than any UDP datagram can be: EMSGSIZE.
    client.send_channel(0x4000, &pattern(1, 65_530));
    client.send_channel(0x4000, b"still here");
    assert_eq!(receive_from(&peer), (b"still here".to_vec(), relayed));
    assert_eq!(
        plane
            .snapshot()
            .cells
            .socket_errors(turnd::metrics::SocketError::TooBig),
        1
    );
}

/// F07: a client that does not read loses media, and nobody else notices.
#[test]
fn f07_a_slow_reader_loses_whole_frames_and_stays_framed() {
    let plane = Plane::start(1, loopback());
    let peer = peer("127.0.0.2");
    let at = peer.local_addr().unwrap();
    let mut slow = Client::tcp(plane.tcp);
    let to_slow = slow.allocate();
    assert_eq!(slow.bind(0x4000, at).code(), 0);
    let mut quick = Client::udp(plane.udp);
    let to_quick = quick.allocate();
    assert_eq!(quick.bind(0x4000, at).code(), 0);
    for i in 0..20_000_u32 {
        let mut data = pattern(0, 1000);
        data[..4].copy_from_slice(&i.to_be_bytes());
        peer.send_to(&data, to_slow).unwrap();
        if i % 100 == 0 {
            peer.send_to(b"quick", to_quick).unwrap();
            assert_eq!(quick.receive_channel().1, b"quick");
        }
    }
    let dropped = plane
        .snapshot()
        .cells
        .socket_errors(turnd::metrics::SocketError::Full);
    assert!(
        dropped > 0,
        "20 MB fitted into the queues of a client that does not read"
    );
    let mut last = None;
    slow.set_timeout(Duration::from_secs(1));
    while let Some(bytes) = slow.try_receive() {
        assert_eq!(&bytes[..4], &[0x40, 0, 3, 0xE8]);
        assert_eq!(&bytes[8..], &pattern(0, 1000)[4..]);
        let number = u32::from_be_bytes(bytes[4..8].try_into().unwrap());
        assert!(last < Some(number), "{last:?} before {number}");
        last = Some(number);
    }
    assert!(last.is_some());
    slow.set_timeout(PATIENCE);
    assert_eq!(slow.permit(at).code(), 0);
}

/// A worker takes in several messages before it sends anything: what a client has sent before it gives its allocation
/// back still leaves, and by its own relay, whoever has been given the place of it since.
#[test]
fn last_words_leave_by_the_relay_of_who_said_them() {
    let plane = Plane::start(1, loopback());
    let peer = peer("127.0.0.2");
    let mut one = Client::udp(plane.udp);
    let relay = one.allocate();
    assert_eq!(one.bind(0x4000, peer.local_addr().unwrap()).code(), 0);
    let mut other = Client::udp(plane.udp);
    other.allocate();
    let give_back = |client: &mut Client| {
        client.build(
            Method::REFRESH,
            |writer| {
                writer.u32(Attribute::LIFETIME, 0);
            },
            true,
        )
    };
    let bytes = give_back(&mut other);
    other.send(&bytes);
    assert_eq!(Answer(other.receive()).code(), 0);

    let hold = plane.hold();
    one.send_channel(0x4000, b"bye");
    let bytes = give_back(&mut one);
    one.send(&bytes);
    let bytes = other.build(
        Method::ALLOCATE,
        |writer| {
            writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        },
        true,
    );
    other.send(&bytes);
    hold.release();

    assert_eq!(receive_from(&peer), (b"bye".to_vec(), relay));
    assert_eq!(Answer(one.receive()).code(), 0);
    assert_eq!(Answer(other.receive()).code(), 0);
}
