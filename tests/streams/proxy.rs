//! The PROXY protocol: whose address counts, who may tell it, and what hostile headers come to.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use turnd::turn::Transport;

use crate::header::{connect_from, from, version_2};
use crate::wire::{Answer, Client, Plane, peer, receive_from};
use crate::{binding, connect, is_closed, mapped, start, start_plain, until};

fn behind_proxies(transport: Transport) -> (Plane, crate::Trust) {
    start(transport, |listen| {
        listen.proxies = vec!["127.0.0.0/24".parse().unwrap()]
    })
}

/// A client that comes with a header before all else.
fn with_header(plane: &Plane, header: &[u8]) -> Client {
    let mut stream = connect(plane.tcp);
    stream.write_all(header).unwrap();
    Client::on(stream)
}

#[test]
fn the_address_in_the_header_is_the_client_s() {
    let (plane, _) = behind_proxies(Transport::Tcp);
    let v6 = "[2001:db8::1]:5000".parse().unwrap();
    let noop = [
        192, 0, 2, 7, 192, 0, 2, 1, 0x9c, 0x40, 1, 0xbb, 4, 0, 3, 1, 2, 3,
    ];
    for (header, told) in [
        (
            b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 443\r\n".to_vec(),
            Some("192.0.2.7:40000"),
        ),
        (
            b"PROXY TCP6 2001:db8::7 2001:db8::1 40001 443\r\n".to_vec(),
            Some("[2001:db8::7]:40001"),
        ),
        // Addresses are canonical in a 5-tuple.
        (
            b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.1 40002 443\r\n".to_vec(),
            Some("192.0.2.7:40002"),
        ),
        (
            from(
                "192.0.2.7:40003".parse().unwrap(),
                "192.0.2.1:443".parse().unwrap(),
            ),
            Some("192.0.2.7:40003"),
        ),
        (
            from(v6, "[2001:db8::2]:443".parse().unwrap()),
            Some("[2001:db8::1]:5000"),
        ),
        (version_2([0x21, 0x11], &noop), Some("192.0.2.7:40000")),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN 192.0.2.7 192.0.2.1 1 2\r\n".to_vec(), None),
        (version_2([0x20, 0], &[]), None),
        (version_2([0x20, 0x11], &noop), None),
        (version_2([0x21, 0], &[9; 300]), None),
        (version_2([0x21, 0x31], &[0; 216]), None),
    ] {
        let mut client = with_header(&plane, &header);
        let crate::wire::Link::Tcp(stream, _) = &client.link else {
            unreachable!()
        };
        let own = stream.local_addr().unwrap();
        let told = told.map_or(own, |told| told.parse().unwrap());
        assert_eq!(mapped(&mut client), told, "{}", header.escape_ascii());
    }
    until(&plane, |snapshot| {
        snapshot.cells.proxy_headers.ok == 12 && snapshot.cells.proxy_headers.failed == 0
    });
}

/// \[S14\] Cut anywhere, the header ends where it ends: not a byte behind it is lost.
#[test]
fn s14_a_header_may_be_cut_anywhere() {
    let (plane, _) = behind_proxies(Transport::Tcp);
    let client = "192.0.2.7:40003".parse().unwrap();
    for header in [
        b"PROXY TCP4 192.0.2.7 192.0.2.1 40003 443\r\n".to_vec(),
        from(client, "192.0.2.1:443".parse().unwrap()),
    ] {
        let all = [header, binding(1)].concat();
        for cut in 1..all.len() {
            let mut stream = connect(plane.tcp);
            stream.write_all(&all[..cut]).unwrap();
            std::thread::yield_now();
            stream.write_all(&all[cut..]).unwrap();
            let answer = Answer(Client::on(stream).receive());
            assert_eq!(
                answer.success().xor_mapped_address().unwrap().unwrap(),
                client,
                "cut at {cut}"
            );
        }
    }
}

#[test]
fn tls_and_calls_work_behind_a_header() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let (plane, trust) = behind_proxies(transport);
        let mut stream = connect(plane.tcp);
        let client: SocketAddr = "198.51.100.7:40000".parse().unwrap();
        stream
            .write_all(&from(client, "192.0.2.1:443".parse().unwrap()))
            .unwrap();
        let tls = trust.shake(stream, "turn.test", &[]).unwrap();
        let socket = tls.sock.try_clone().unwrap();
        let mut caller = Client::over(tls, socket);
        assert_eq!(mapped(&mut caller), client);
        let relayed = caller.allocate();
        let peer = peer("127.0.0.2");
        assert_eq!(caller.bind(0x4000, peer.local_addr().unwrap()).code(), 0);
        peer.send_to(b"hello", relayed).unwrap();
        assert_eq!(caller.receive_channel(), (0x4000, b"hello".to_vec()));
        caller.send_channel(0x4000, b"and back");
        assert_eq!(receive_from(&peer), (b"and back".to_vec(), relayed));
        drop(caller);
        until(&plane, |snapshot| {
            snapshot
                .census
                .allocations
                .as_flattened()
                .iter()
                .sum::<u64>()
                == 0
        });
    }
}

#[test]
fn nobody_but_the_proxies_is_let_in() {
    let plane = start_plain(Transport::Tcp, |listen| {
        listen.proxies = vec!["127.0.0.9/32".parse().unwrap()]
    });
    let header = from(
        "192.0.2.7:1".parse().unwrap(),
        "192.0.2.1:2".parse().unwrap(),
    );
    let mut stranger = connect(plane.tcp);
    let _ = stranger.write_all(&[&header[..], &binding(1)].concat());
    is_closed(&mut stranger);
    until(&plane, |snapshot| {
        snapshot.cells.streams.failed == 1 && snapshot.cells.proxy_headers == Default::default()
    });
    let mut proxied = connect_from("127.0.0.9", plane.tcp);
    proxied.write_all(&header).unwrap();
    assert_eq!(
        mapped(&mut Client::on(proxied)),
        "192.0.2.7:1".parse().unwrap()
    );
}

/// What begins like something else is no header: whoever leaves it out is not served.
#[test]
fn a_header_is_not_optional() {
    let (plane, trust) = behind_proxies(Transport::Tcp);
    let mut stream = connect(plane.tcp);
    stream.write_all(&binding(1)).unwrap();
    is_closed(&mut stream);
    assert!(trust.connect(plane.tcp, &[]).is_err());
    until(&plane, |snapshot| snapshot.cells.proxy_headers.failed == 2);
    // And one that never comes to its end is given up.
    let mut slow = connect(plane.tcp);
    slow.write_all(b"PROXY TCP4 192.0.2.7").unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(25)))
        .unwrap();
    is_closed(&mut slow);
}

/// A31: a client counts as itself, not as its proxy, which may have many.
#[test]
fn a31_strangers_are_counted_by_the_address_in_the_header() {
    let (plane, _) = behind_proxies(Transport::Tcp);
    let to = "192.0.2.1:443".parse().unwrap();
    let knock = |client: IpAddr, port: u16| {
        let mut stream = connect(plane.tcp);
        stream
            .write_all(&from(SocketAddr::new(client, port), to))
            .unwrap();
        stream
    };
    let greedy: IpAddr = "192.0.2.7".parse().unwrap();
    let mut streams: Vec<TcpStream> = (1..=100).map(|port| knock(greedy, port)).collect();
    until(&plane, |snapshot| snapshot.cells.proxy_headers.ok == 100);
    let mut others: Vec<TcpStream> = (0..100)
        .map(|host| knock([198, 51, 100, host].into(), 1))
        .collect();
    for stream in &mut others {
        stream.write_all(&binding(1)).unwrap();
        assert!(
            Client::on(stream.try_clone().unwrap())
                .try_receive()
                .is_some()
        );
    }
    let served = streams.iter_mut().filter_map(|stream| {
        stream.write_all(&binding(1)).ok()?;
        Client::on(stream.try_clone().unwrap()).try_receive()
    });
    assert_eq!(served.count(), 64);
}
