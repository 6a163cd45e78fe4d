//! TCP and TLS on one port; the names of protocols and of hosts.

use std::io::{ErrorKind, Read as _, Write as _};
use std::thread;
use std::time::Duration;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use turnd::turn::{Family, Transport};

use crate::header::connect_from;
use crate::wire::{Answer, Client, PATIENCE, Plane, peer, receive_from};
use crate::{
    Credulous, allocate, binding, certificates, connect, is_closed, mapped, start, start_plain,
    until,
};

/// \[S14\] The 5-tuple's transport is what was really spoken.
#[test]
fn s14_one_port_speaks_tcp_and_tls() {
    let (plane, trust) = start(Transport::Tcp, |_| {});
    let clients = [Client::tcp(plane.tcp), trust.client(plane.tcp)];
    let peer = peer("127.0.0.2");
    let at = peer.local_addr().unwrap();
    let mut living = Vec::new();
    for mut client in clients {
        let relayed = client.allocate();
        assert_eq!(client.bind(0x4001, at).code(), 0);
        for length in [0, 1, 2, 3, 160, 1400] {
            let data = vec![length as u8; length];
            client.send_channel(0x4001, &data);
            assert_eq!(receive_from(&peer), (data.clone(), relayed));
            peer.send_to(&data, relayed).unwrap();
            assert_eq!(client.receive_channel(), (0x4001, data));
        }
        living.push(client);
    }
    let snapshot = plane.snapshot();
    let of =
        |transport: Transport| snapshot.census.allocations[transport.index()][Family::V4.index()];
    assert_eq!((of(Transport::Tcp), of(Transport::Tls)), (1, 1));
    assert_eq!(
        (
            snapshot.cells.handshakes.ok,
            snapshot.cells.handshakes.failed
        ),
        (1, 0)
    );
}

/// A32: a few addresses begin all the handshakes there can be, and fall silent. Others are served at once.
#[test]
fn a32_abandoned_handshakes_make_room() {
    let (plane, trust) = start(Transport::Tls, |_| {});
    let silent: Vec<_> = (0..260)
        .map(|number| connect_from(&format!("127.0.0.{}", 10 + number / 60), plane.tcp))
        .collect();
    until(&plane, |snapshot| snapshot.cells.streams.ok == 260);
    mapped(&mut trust.client(plane.tcp));
    drop(silent);
}

#[test]
fn a_tls_listener_insists_and_a_certificate_is_needed() {
    let (plane, trust) = start(Transport::Tls, |_| {});
    let mut plain = connect(plane.tcp);
    plain.write_all(&binding(1)).unwrap();
    // An alert at most: no STUN message.
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said);
    assert_ne!(said.first(), Some(&1), "{said:?}");
    mapped(&mut trust.client(plane.tcp));
    until(&plane, |snapshot| {
        snapshot.cells.handshakes.failed == 1 && snapshot.cells.handshakes.ok == 1
    });

    let plane = start_plain(Transport::Tcp, |_| {});
    let error = trust.connect(plane.tcp, &[]).err().unwrap();
    assert!(
        [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset].contains(&error.kind()),
        "{error}"
    );
    mapped(&mut Client::tcp(plane.tcp));
}

/// \[S14\] Wherever the handshake is cut, it goes on.
#[test]
fn s14_a_handshake_may_be_cut_anywhere() {
    let (plane, trust) = start(Transport::Tcp, |_| {});
    let mut length = 2;
    let mut cut = 1;
    while cut < length {
        let mut stream = connect(plane.tcp);
        let host = ServerName::try_from("turn.test").unwrap();
        let mut tls = ClientConnection::new(trust.config(&[]), host).unwrap();
        let mut hello = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut hello).unwrap();
        }
        length = hello.len();
        stream.write_all(&hello[..cut]).unwrap();
        thread::yield_now();
        stream.write_all(&hello[cut..]).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut stream).unwrap();
        }
        // Most of a ClientHello is of one kind: its beginning counts.
        cut += if cut < 64 { 1 } else { 7 };
    }
    assert!(length > 100);
}

/// \[S14\] Frames and records have nothing to do with each other.
#[test]
fn s14_records_may_cut_and_join_messages_anywhere() {
    let (plane, trust) = start(Transport::Tcp, |_| {});
    let mut client = trust.client(plane.tcp);
    let both = [binding(1), binding(2)].concat();
    for cut in 1..both.len() {
        client.send(&both[..cut]);
        client.send(&both[cut..]);
        for number in [1, 2] {
            assert_eq!(client.receive()[8..20], [number; 12], "cut at {cut}");
        }
    }
    // Two and a half in one record, the rest in the next.
    let many = [binding(3), binding(4), binding(5)].concat();
    client.send(&many[..50]);
    client.send(&many[50..]);
    for number in [3, 4, 5] {
        assert_eq!(client.receive()[8..20], [number; 12]);
    }
    let mut plain = Client::tcp(plane.tcp);
    plain.send(&both);
    for number in [1, 2] {
        assert_eq!(plain.receive()[8..20], [number; 12]);
    }
}

/// \[ALPN\] RFC 7443: the protocols are known, no protocol is fine, and others alone are refused.
#[test]
fn alpn_is_stun_or_nothing() {
    let (plane, trust) = start(Transport::Tcp, |_| {});
    let served: [(&[&str], Option<&[u8]>); 6] = [
        (&[], None),
        (&["stun.turn"], Some(b"stun.turn")),
        (&["stun.nat-discovery"], Some(b"stun.nat-discovery")),
        (&["stun.nat-discovery", "stun.turn"], Some(b"stun.turn")),
        (&["h2", "stun.turn"], Some(b"stun.turn")),
        (
            &["http/1.1", "h2", "stun.nat-discovery"],
            Some(b"stun.nat-discovery"),
        ),
    ];
    for (offered, chosen) in served {
        let tls = trust.connect(plane.tcp, offered).unwrap();
        assert_eq!(tls.conn.alpn_protocol(), chosen, "{offered:?}");
        let stream = tls.sock.try_clone().unwrap();
        let mut client = Client::over(tls, stream);
        mapped(&mut client);
        // Whatever was chosen, TURN is served.
        client.send(&allocate());
        assert_eq!(Answer(client.receive()).code(), 401);
    }
    for offered in [
        &["h2"][..],
        &["http/1.1"],
        &["h2", "http/1.1"],
        &["acme-tls/1"],
        &["stun"],
    ] {
        let error = trust.connect(plane.tcp, offered).err().unwrap();
        let alert = error
            .get_ref()
            .and_then(|error| error.downcast_ref::<rustls::Error>());
        assert_eq!(
            alert,
            Some(&rustls::Error::AlertReceived(
                rustls::AlertDescription::NoApplicationProtocol
            )),
            "{offered:?}"
        );
    }
}

/// The host that a client asks for chooses the certificate; nothing it says is refused.
#[test]
fn the_certificate_is_that_of_the_host() {
    let (plane, _) = start(Transport::Tls, |_| {});
    let hosts: [&[&str]; 3] = [
        &["turn.test"],
        &["turn.example.org", "*.relay.example.org"],
        &["eu.relay.example.org", "TURN.EXAMPLE.NET"],
    ];
    let (config, _) = certificates(&hosts);
    plane.handle.replace_tls(config);
    let shown = |host: &str| shown(&plane, host);
    assert_eq!(shown("turn.test"), hosts[0]);
    assert_eq!(shown("turn.example.org"), hosts[1]);
    assert_eq!(shown("TURN.example.ORG"), hosts[1]);
    assert_eq!(shown("us.relay.example.org"), hosts[1]);
    assert_eq!(
        shown("eu.relay.example.org"),
        hosts[2],
        "an own name comes first"
    );
    assert_eq!(shown("turn.example.net"), hosts[2]);
    for other in [
        "relay.example.org",
        "a.us.relay.example.org",
        "example.org",
        "org",
        "127.0.0.1",
    ] {
        assert_eq!(shown(other), hosts[0], "{other}");
    }
    // New handshakes are shown new certificates; calls go on.
    let (first, trust) = certificates(&[&["turn.test"]]);
    plane.handle.replace_tls(first);
    let mut caller = trust.client(plane.tcp);
    caller.allocate();
    let (second, _) = certificates(&[&["a.test"], &["b.test"]]);
    plane.handle.replace_tls(second);
    assert_eq!(self::shown(&plane, "b.test"), ["b.test"]);
    assert_eq!(self::shown(&plane, "turn.test"), ["a.test"]);
    assert_eq!(caller.permit("127.0.0.2:1".parse().unwrap()).code(), 0);
}

/// The hosts of the certificate that one who asks for `host` is shown, trusted or not.
fn shown(plane: &Plane, host: &str) -> Vec<String> {
    let mut stream = connect(plane.tcp);
    let host = ServerName::try_from(host.to_owned()).unwrap();
    let mut tls = ClientConnection::new(Credulous::config(), host).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).unwrap();
    }
    let chain = tls.peer_certificates().unwrap();
    let certificate = webpki::EndEntityCert::try_from(&chain[0]).unwrap();
    certificate.valid_dns_names().map(str::to_owned).collect()
}

/// A31, A32: whoever stops anywhere on the way is gone in time, and nobody else notices.
#[test]
fn a31_a32_silence_ends_connections_wherever_it_begins() {
    let (plane, trust) = start(Transport::Tcp, |listen| {
        listen.web = Some(turnd::plane::Web::Backend("127.0.0.1:9".parse().unwrap()));
    });
    let mut caller = trust.client(plane.tcp);
    let relayed = caller.allocate();
    let peer = peer("127.0.0.2");
    assert_eq!(caller.bind(0x4001, peer.local_addr().unwrap()).code(), 0);
    let said: [&[u8]; 6] = [
        b"",
        b"\x16",
        b"\x16\x03\x01\x02\x00\x01",
        b"GE",
        &[0, 1],
        &[0, 1, 0, 0, 0x21],
    ];
    let mut silent: Vec<_> = said
        .iter()
        .cycle()
        .take(54)
        .map(|said| {
            let mut stream = connect(plane.tcp);
            stream.write_all(said).unwrap();
            stream
        })
        .collect();
    // After the handshake as well.
    let mut shaken = trust.connect(plane.tcp, &[]).unwrap();
    for number in 0..20_u8 {
        peer.send_to(&[number], relayed).unwrap();
        assert_eq!(caller.receive_channel(), (0x4001, vec![number]));
        thread::park_timeout(Duration::from_millis(50));
    }
    for stream in &mut silent {
        stream
            .set_read_timeout(Some(Duration::from_secs(25)))
            .unwrap();
        is_closed(stream);
    }
    shaken
        .sock
        .set_read_timeout(Some(Duration::from_secs(25)))
        .unwrap();
    is_closed(&mut shaken);
    peer.send_to(b"still", relayed).unwrap();
    assert_eq!(caller.receive_channel().1, b"still");
}

/// F07 holds over TLS as over TCP: a slow reader loses whole frames and stays framed, and keeps nobody waiting.
#[test]
fn f07_a_slow_reader_over_tls_stays_framed() {
    let (plane, trust) = start(Transport::Tcp, |_| {});
    let peer = peer("127.0.0.2");
    let at = peer.local_addr().unwrap();
    let mut slow = trust.client(plane.tcp);
    let to_slow = slow.allocate();
    assert_eq!(slow.bind(0x4000, at).code(), 0);
    let mut quick = trust.client(plane.tcp);
    let to_quick = quick.allocate();
    assert_eq!(quick.bind(0x4000, at).code(), 0);
    for number in 0..10_000_u32 {
        let mut data = [7; 1000];
        data[..4].copy_from_slice(&number.to_be_bytes());
        peer.send_to(&data, to_slow).unwrap();
        if number % 100 == 0 {
            peer.send_to(b"quick", to_quick).unwrap();
            assert_eq!(quick.receive_channel().1, b"quick");
        }
    }
    let full = plane
        .snapshot()
        .cells
        .socket_errors(turnd::metrics::SocketError::Full);
    assert!(
        full > 0,
        "10 MB fitted into the queues of a client that does not read"
    );
    let mut last = None;
    slow.set_timeout(Duration::from_secs(1));
    while let Some(bytes) = slow.try_receive() {
        assert_eq!(&bytes[..4], &[0x40, 0, 3, 0xE8]);
        assert_eq!(&bytes[8..], &[7; 996]);
        let number = u32::from_be_bytes(bytes[4..8].try_into().unwrap());
        assert!(last < Some(number), "{last:?} before {number}");
        last = Some(number);
    }
    assert!(last.is_some());
    slow.set_timeout(PATIENCE);
    assert_eq!(slow.permit(at).code(), 0);
}
