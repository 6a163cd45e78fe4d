//! RFC 8656 §8 to §12: Refresh, permissions, channels and data.

use std::net::{IpAddr, SocketAddr};

use crate::client::{Client, Data, Peer, code_or_success, relayed};
use crate::ground::Ground;
use crate::packet::{Build, Class, Packet, attr, channel_data, channel_data_padded, method};
use crate::statement::Proof::{Seen as Shown, Test};
use crate::statement::{Seen, Statement, Trouble, ensure};
use crate::wire::Transport;

pub(crate) const STATEMENTS: &[Statement] = &[
    Statement {
        id: "R1",
        rfc: "RFC 8656",
        section: "8.2",
        title: "a family in Refresh names a half of a dual allocation; one that is not there is 443",
        proofs: &[Shown(r1_family)],
    },
    Statement {
        id: "R2",
        rfc: "RFC 8656",
        section: "8.2",
        title: "a lifetime of 0 deletes at once, and the 5-tuple can allocate again",
        proofs: &[Shown(r2_delete)],
    },
    Statement {
        id: "R3",
        rfc: "RFC 8656",
        section: "6, 12.6",
        title: "neither Refresh nor data prolongs permissions and channels",
        proofs: &[Test(
            "tests/rfc8656.rs::r3_neither_refresh_nor_data_refreshes_permissions_and_channels",
        )],
    },
    Statement {
        id: "P1",
        rfc: "RFC 8656",
        section: "9",
        title: "a permission is for an address with every port, and for 300 s",
        proofs: &[
            Shown(p1_address_alone),
            Test(
                "tests/rfc8656.rs::p1_a_permission_is_for_an_address_with_any_port_and_for_five_minutes",
            ),
        ],
    },
    Statement {
        id: "P2",
        rfc: "RFC 8656",
        section: "10.2",
        title: "CreatePermission installs all it names or nothing: 400, 443, 403 or 508 otherwise",
        proofs: &[Shown(p2_errors), Shown(p2_all_or_nothing)],
    },
    Statement {
        id: "P3",
        rfc: "RFC 8656",
        section: "12.2",
        title: "ChannelBind installs a permission",
        proofs: &[Shown(p3_channel_brings_permission)],
    },
    Statement {
        id: "P4",
        rfc: "RFC 8656",
        section: "11.2",
        title: "a Send indication prolongs no permission",
        proofs: &[Test(
            "tests/rfc8656.rs::p4_a_send_indication_does_not_refresh_a_permission",
        )],
    },
    Statement {
        id: "P5",
        rfc: "RFC 8656",
        section: "10.2, 12.2, decided",
        title: "a peer's family is judged before the policy: 443 and not 403",
        proofs: &[Shown(p5_family_before_policy)],
    },
    Statement {
        id: "D1",
        rfc: "RFC 8656",
        section: "11.2",
        title: "Send needs a peer and DATA, which may be empty, and a permission",
        proofs: &[Shown(d1_send)],
    },
    Statement {
        id: "D2",
        rfc: "RFC 8656",
        section: "11.3",
        title: "a Data indication tells the peer's address and port and the data, and is not signed",
        proofs: &[Shown(d2_data)],
    },
    Statement {
        id: "D3",
        rfc: "RFC 8656",
        section: "11.3, 12.7",
        title: "a peer with a channel is heard through it, its other ports in indications",
        proofs: &[Shown(d3_channel_or_indication)],
    },
    Statement {
        id: "C1",
        rfc: "RFC 8656",
        section: "12, 12.2",
        title: "channel numbers are 0x4000 to 0x4FFF, others 400; what begins with 80 to 255 is dropped",
        proofs: &[Shown(c1_numbers)],
    },
    Statement {
        id: "C2",
        rfc: "RFC 8656",
        section: "12.2",
        title: "a channel has one peer and a peer one channel (400); the same pair again is a refresh",
        proofs: &[Shown(c2_pairs)],
    },
    Statement {
        id: "C3",
        rfc: "RFC 8656",
        section: "12",
        title: "a channel lives for 600 s from its last ChannelBind",
        proofs: &[Test(
            "tests/rfc8656.rs::c3_a_channel_lives_ten_minutes_from_its_last_bind",
        )],
    },
    Statement {
        id: "C4",
        rfc: "RFC 8656",
        section: "12.5, 12.6",
        title: "a datagram shorter than its ChannelData is dropped, bytes behind the data are padding",
        proofs: &[Shown(c4_lengths)],
    },
    Statement {
        id: "C5",
        rfc: "RFC 8656",
        section: "12.5",
        title: "in streams ChannelData is padded to four bytes, both ways, and its length does not count them",
        proofs: &[Shown(c5_padding_over_tcp), Shown(c5_padding_over_tls)],
    },
    Statement {
        id: "C6",
        rfc: "RFC 8656",
        section: "12.6",
        title: "empty ChannelData is an empty datagram",
        proofs: &[Shown(c6_empty)],
    },
    Statement {
        id: "C7",
        rfc: "RFC 8656",
        section: "12.6",
        title: "data in a channel that is not bound is dropped without a word",
        proofs: &[Shown(c7_unbound)],
    },
    Statement {
        id: "C8",
        rfc: "RFC 8656",
        section: "12.2",
        title: "ChannelBind without all its attributes 400, of another family 443, of a forbidden peer 403",
        proofs: &[
            Shown(c8_errors),
            Test("tests/rfc8656.rs::c8_a_channel_without_room_for_its_permission_is_508"),
        ],
    },
    Statement {
        id: "C9",
        rfc: "RFC 8656",
        section: "12",
        title: "ChannelData right behind ChannelBind goes through, and one before it does no harm",
        proofs: &[Shown(c9_data_around_the_bind)],
    },
    Statement {
        id: "L1",
        rfc: "RFC 8656",
        section: "21.4",
        title: "neither peers nor clients in Teredo or 6to4",
        proofs: &[
            Shown(l1_tunnels),
            Shown(l1_client_in_a_tunnel),
            Test("tests/rfc8656.rs::l1_teredo_and_6to4_are_refused_for_peers_and_clients"),
        ],
    },
    Statement {
        id: "L2",
        rfc: "RFC 8656",
        section: "21.1.7, decided",
        title: "the server's own listeners are no peers; relays reach each other",
        proofs: &[Shown(l2_own_listeners), Shown(l2_relay_to_relay)],
    },
    Statement {
        id: "L3",
        rfc: "RFC 8656",
        section: "21.2, decided",
        title: "an IPv4 address hidden in an IPv6 one, and the unspecified addresses, are no way around the policy",
        proofs: &[
            Shown(l3_disguises),
            Test("tests/attacks.rs::a02_no_encoding_of_a_denied_ipv4_address_in_ipv6_is_a_peer"),
        ],
    },
];

// ---- Refresh ----

fn r1_family(ground: &Ground) -> Seen {
    let (mut client, _) = ground.allocated()?;
    client.refused_signed(Build::refresh(600).family(2), 443)?;
    let mut client = ground.client()?;
    let answer = client.succeed(Build::allocate().additional(2))?;
    let relays = answer.xor_addresses(attr::XOR_RELAYED_ADDRESS);
    let v4 = relays.iter().find(|address| address.is_ipv4());
    let v4 = *v4.ok_or("no IPv4 relay of two")?;
    let peer = ground.peer()?;
    client.permit(peer.address)?;
    client.succeed(Build::refresh(0).family(2))?;
    // The other half is untouched; this half is gone.
    peer.send(v4, b"still here")?;
    let heard = client.data()?;
    let expected = Data::Indication(peer.address, b"still here".to_vec());
    ensure!(heard == expected, "{heard:?}");
    client.refused_signed(Build::refresh(600).family(2), 443)?;
    client.succeed(Build::refresh(600).family(1)).map(drop)
}

fn r2_delete(ground: &Ground) -> Seen {
    let (mut client, relayed, peer) = ground.call()?;
    let delete = client.signed(Build::refresh(0));
    let answer = client.exchange(&delete)?;
    ensure!(
        answer.class == Class::Success && answer.u32(attr::LIFETIME) == Some(0),
        "{} with LIFETIME {:?}",
        code_or_success(&answer),
        answer.u32(attr::LIFETIME)
    );
    let again = client.exchange(&delete)?;
    ensure!(
        again.code() == 437 || again.class == Class::Success,
        "{} for the same again",
        again.code()
    );
    let next = client.allocate()?;
    // Permissions went with the allocation, even for the port it may have got again.
    for relay in [relayed, next] {
        peer.send(relay, b"late")?;
    }
    let heard = client.heard_until_fence()?;
    ensure!(
        heard.is_empty(),
        "the peer is let in after the end: {heard:?}"
    );
    Ok(())
}

// ---- permissions ----

fn p1_address_alone(ground: &Ground) -> Seen {
    let [stranger] = ground.peers()?;
    let (mut client, relayed, peer) = ground.call()?;
    let beside = peer.beside()?;
    if stranger.address.ip() != peer.address.ip() {
        stranger.send(relayed, b"stranger")?;
    }
    beside.send(relayed, b"another port")?;
    let heard = client.data()?;
    let expected = Data::Indication(beside.address, b"another port".to_vec());
    ensure!(
        heard == expected,
        "{heard:?} instead of data of the other port"
    );
    client.send_to(beside.address, b"back")?;
    beside.hears(b"back")
}

fn p2_errors(ground: &Ground) -> Seen {
    let (mut client, _) = ground.allocated()?;
    let peer = ground.peer()?;
    client.refused_signed(Build::request(method::CREATE_PERMISSION), 400)?;
    for broken in [&[0, 1, 0, 0][..], &[0, 7, 0, 0, 1, 2, 3, 4], &[]] {
        let request = Build::request(method::CREATE_PERMISSION)
            .peer(peer.address)
            .attr(attr::XOR_PEER_ADDRESS, broken);
        client.refused_signed(request, 400)?;
    }
    client.refused_signed(Build::permission(V6_PEER.parse().map_err(bad)?), 443)?;
    client.refused_signed(Build::permission(FORBIDDEN.parse().map_err(bad)?), 403)?;
    Ok(())
}

fn p2_all_or_nothing(ground: &Ground) -> Seen {
    let [peer, fence] = ground.peers()?;
    let (mut client, relayed) = ground.allocated()?;
    let request = Build::permission(peer.address).peer(FORBIDDEN.parse().map_err(bad)?);
    client.refused_signed(request, 403)?;
    client.permit(fence.address)?;
    peer.send(relayed, b"half")?;
    fence.send(relayed, b"fence")?;
    let heard = client.data()?;
    ensure!(
        heard == Data::Indication(fence.address, b"fence".to_vec()),
        "one of the two peers is let in"
    );
    // Several good ones at once.
    let both = Build::permission(peer.address).peer(fence.address);
    client.succeed(both)?;
    peer.send(relayed, b"both")?;
    let heard = client.data()?;
    let expected = Data::Indication(peer.address, b"both".to_vec());
    ensure!(heard == expected, "{heard:?}");
    Ok(())
}

fn p3_channel_brings_permission(ground: &Ground) -> Seen {
    let (mut client, relayed) = ground.allocated()?;
    let peer = ground.peer()?;
    client.bind(0x4000, peer.address)?;
    let beside = peer.beside()?;
    beside.send(relayed, b"other port")?;
    let heard = client.data()?;
    let expected = Data::Indication(beside.address, b"other port".to_vec());
    ensure!(heard == expected, "{heard:?}");
    Ok(())
}

fn p5_family_before_policy(ground: &Ground) -> Seen {
    let (mut client, _) = ground.allocated()?;
    // Multicast, which nobody allows, of the other family.
    let peer: SocketAddr = "[ff02::1]:9".parse().map_err(bad)?;
    client.refused_signed(Build::permission(peer), 443)?;
    client
        .refused_signed(Build::channel(0x4000, peer), 443)
        .map(drop)
}

// ---- data ----

fn d1_send(ground: &Ground) -> Seen {
    let (mut client, _, peer) = ground.call()?;
    let [stranger] = ground.peers()?;
    let without_data = Build::indication(method::SEND).peer(peer.address);
    client.link.send(&without_data.bytes())?;
    let without_peer = Build::indication(method::SEND).attr(attr::DATA, b"to nobody");
    client.link.send(&without_peer.bytes())?;
    client.send_to(stranger.address, b"not permitted")?;
    client.send_to(peer.address, b"")?;
    client.send_to(peer.address, b"odd")?;
    let (first, _) = peer.receive()?;
    ensure!(
        first.is_empty(),
        "{first:02x?} arrives instead of an empty datagram"
    );
    peer.hears(b"odd")?;
    if stranger.address.ip() != peer.address.ip() {
        client.permit(stranger.address)?;
        client.send_to(stranger.address, b"permitted")?;
        stranger.hears(b"permitted")?;
    }
    Ok(())
}

fn d2_data(ground: &Ground) -> Seen {
    let (mut client, relayed, peer) = ground.call()?;
    for data in [&b""[..], b"1", b"22", b"333", b"4444", &[7; 1200]] {
        peer.send(relayed, data)?;
        let Packet::Stun(stun) = client.next("an indication")? else {
            return Err("ChannelData without a channel".into());
        };
        ensure!(
            (stun.class, stun.method) == (Class::Indication, method::DATA),
            "method {:#x} instead of Data",
            stun.method
        );
        let from = stun.xor_address(attr::XOR_PEER_ADDRESS);
        ensure!(
            from == Some(peer.address) && stun.get(attr::DATA) == Some(data),
            "{from:?} and {} bytes instead of {} and {}",
            stun.get(attr::DATA).map_or(0, <[u8]>::len),
            peer.address,
            data.len()
        );
        ensure!(
            !stun.has(attr::MESSAGE_INTEGRITY),
            "the indication is signed"
        );
    }
    Ok(())
}

fn d3_channel_or_indication(ground: &Ground) -> Seen {
    let (mut client, relayed) = ground.allocated()?;
    let peer = ground.peer()?;
    client.bind(0x4ABC, peer.address)?;
    // The client goes on with Send, which changes nothing for the way back.
    client.send_to(peer.address, b"ping")?;
    peer.hears(b"ping")?;
    peer.send(relayed, b"pong")?;
    let heard = client.data()?;
    let expected = Data::Channel(0x4ABC, b"pong".to_vec());
    ensure!(heard == expected, "{heard:?} instead of the channel");
    let beside = peer.beside()?;
    beside.send(relayed, b"aside")?;
    let heard = client.data()?;
    let expected = Data::Indication(beside.address, b"aside".to_vec());
    ensure!(heard == expected, "{heard:?} for another port");
    Ok(())
}

// ---- channels ----

fn c1_numbers(ground: &Ground) -> Seen {
    let (mut client, _) = ground.allocated()?;
    let peer = ground.peer()?;
    for number in [0, 0x3FFF, 0x5000, 0x7FFE, 0x8000, 0xFFFF] {
        client.refused_signed(Build::channel(number, peer.address), 400)?;
    }
    client.bind(0x4FFF, peer.address)?;
    client.send_channel(0x4FFF, b"highest")?;
    peer.hears(b"highest")?;
    for number in [0x8000, 0xC000, 0xFFFF] {
        let data = channel_data(number, b"data");
        client.expect_silence(&data, "a first byte of 128 and more")?;
    }
    client.send_channel(0x4FFF, b"after")?;
    peer.hears(b"after")?;
    let (mut client, _) = ground.allocated()?;
    client.bind(0x4000, peer.address)?;
    client.send_channel(0x4000, b"lowest")?;
    peer.hears(b"lowest")
}

fn c2_pairs(ground: &Ground) -> Seen {
    let (mut client, _) = ground.allocated()?;
    let peer = ground.peer()?;
    let beside = peer.beside()?;
    client.bind(0x4000, peer.address)?;
    client.refused_signed(Build::channel(0x4000, beside.address), 400)?;
    client.refused_signed(Build::channel(0x4001, peer.address), 400)?;
    client.bind(0x4000, peer.address)?;
    client.bind(0x4001, beside.address)
}

fn c4_lengths(ground: &Ground) -> Seen {
    let (mut client, peer) = channel(ground, Transport::Udp)?;
    let mut short = channel_data(CHANNEL, b"12345678");
    short.truncate(9);
    client.link.send(&short)?;
    for extra in [1, 3, 4, 40] {
        let data = format!("with {extra} more");
        let mut long = channel_data(CHANNEL, data.as_bytes());
        long.resize(long.len() + extra, 0xEE);
        client.link.send(&long)?;
        peer.hears(data.as_bytes())?;
    }
    Ok(())
}

fn c5_padding_over_tcp(ground: &Ground) -> Seen {
    c5_padding(ground, Transport::Tcp)
}

fn c5_padding_over_tls(ground: &Ground) -> Seen {
    c5_padding(ground, Transport::Tls)
}

fn c5_padding(ground: &Ground, transport: Transport) -> Seen {
    let mut client = ground.client_over(transport)?;
    let relayed = client.allocate()?;
    let peer = ground.peer()?;
    client.bind(CHANNEL, peer.address)?;
    for data in [&b"1"[..], b"22", b"333", b"4444"] {
        // With a request behind it in the same piece, and in pieces of their own.
        let padded = channel_data_padded(CHANNEL, data);
        let binding = Build::binding();
        client
            .link
            .send(&[padded.clone(), binding.bytes()].concat())?;
        peer.hears(data)?;
        client.answer_to(binding.id())?;
        let (head, tail) = padded.split_at(padded.len() - 2);
        client.link.send(head)?;
        let binding = Build::binding();
        client.link.send(&[tail, &binding.bytes()].concat())?;
        peer.hears(data)?;
        client.answer_to(binding.id())?;
        // The way back; the link wants the padding, and reads on behind it.
        peer.send(relayed, data)?;
        let heard = client.data()?;
        let expected = Data::Channel(CHANNEL, data.to_vec());
        ensure!(heard == expected, "{heard:?}");
        client.exchange(&Build::binding())?;
    }
    Ok(())
}

fn c6_empty(ground: &Ground) -> Seen {
    let (mut client, peer) = channel(ground, Transport::Udp)?;
    client.send_channel(CHANNEL, b"")?;
    peer.hears(b"")?;
    client.send_channel(CHANNEL, b"full")?;
    peer.hears(b"full")
}

fn c7_unbound(ground: &Ground) -> Seen {
    let (mut client, peer) = channel(ground, Transport::Udp)?;
    let unbound = channel_data(CHANNEL + 1, b"nowhere");
    client.expect_silence(&unbound, "a channel that is not bound")?;
    client.send_channel(CHANNEL, b"fence")?;
    peer.hears(b"fence")
}

fn c8_errors(ground: &Ground) -> Seen {
    let (mut client, _) = ground.allocated()?;
    let peer = ground.peer()?;
    let bind = || Build::request(method::CHANNEL_BIND);
    client.refused_signed(bind(), 400)?;
    client.refused_signed(bind().u16(attr::CHANNEL_NUMBER, CHANNEL), 400)?;
    client.refused_signed(bind().peer(peer.address), 400)?;
    let v6 = V6_PEER.parse().map_err(bad)?;
    client.refused_signed(Build::channel(CHANNEL, v6), 443)?;
    let forbidden = FORBIDDEN.parse().map_err(bad)?;
    client.refused_signed(Build::channel(CHANNEL, forbidden), 403)?;
    client.bind(CHANNEL, peer.address)
}

fn c9_data_around_the_bind(ground: &Ground) -> Seen {
    let (mut client, _) = ground.allocated()?;
    let peer = ground.peer()?;
    client.link.send(&channel_data(CHANNEL, b"before"))?;
    let bind = client.signed(Build::channel(CHANNEL, peer.address));
    client.link.send(&bind.bytes())?;
    client.link.send(&channel_data(CHANNEL, b"behind"))?;
    let answer = client.answer_to(bind.id())?;
    ensure!(
        answer.class == Class::Success,
        "{} for ChannelBind",
        code_or_success(&answer)
    );
    peer.hears(b"behind")
}

/// A client with a channel to a peer.
fn channel(ground: &Ground, transport: Transport) -> Seen<(Client, Peer)> {
    let mut client = ground.client_over(transport)?;
    client.allocate()?;
    let peer = ground.peer()?;
    client.bind(CHANNEL, peer.address)?;
    Ok((client, peer))
}

// ---- loops and ways around ----

fn l1_tunnels(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    client.succeed(Build::allocate().family(2))?;
    for peer in ["[2001::1]:9", "[2002:c000:201::1]:9"] {
        let peer = peer.parse().map_err(bad)?;
        client.refused_signed(Build::permission(peer), 403)?;
        client.refused_signed(Build::channel(CHANNEL, peer), 403)?;
    }
    Ok(())
}

fn l1_client_in_a_tunnel(ground: &Ground) -> Seen {
    let crate::ground::Hosts::Namespace(_) = ground.hosts else {
        return Err(Trouble::absent("no client in 6to4"));
    };
    let server = ground.full.udp6.ok_or("no IPv6 listener")?;
    let ip: IpAddr = "2002:c000:201::1".parse().map_err(bad)?;
    let mut client = ground.client_from(Transport::Udp, server, ip)?;
    client.refused_signed(Build::allocate(), 403).map(drop)
}

fn l2_own_listeners(ground: &Ground) -> Seen {
    let (mut client, _) = ground.allocated()?;
    let server = &ground.full;
    let listeners = [server.udp, server.tls].into_iter().flatten();
    for listener in listeners.chain(server.others.iter().copied()) {
        client.refused_signed(Build::permission(listener), 403)?;
        client.refused_signed(Build::channel(CHANNEL, listener), 403)?;
    }
    Ok(())
}

fn l2_relay_to_relay(ground: &Ground) -> Seen {
    let (mut ann, of_ann) = ground.allocated()?;
    let mut ben = ground.client_over(Transport::Tcp)?;
    let of_ben = ben.allocate()?;
    ann.permit(of_ben)?;
    ben.bind(CHANNEL, of_ann)?;
    ann.send_to(of_ben, b"to ben")?;
    let heard = ben.data()?;
    let expected = Data::Channel(CHANNEL, b"to ben".to_vec());
    ensure!(heard == expected, "{heard:?}");
    ben.send_channel(CHANNEL, b"to ann")?;
    let heard = ann.data()?;
    let expected = Data::Indication(of_ben, b"to ann".to_vec());
    ensure!(heard == expected, "{heard:?}");
    Ok(())
}

fn l3_disguises(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    let answer = client.succeed(Build::allocate().additional(2))?;
    relayed(&answer)?;
    let own = match ground.full.udp.ok_or("no UDP listener")?.ip() {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(v6) => return Err(Trouble::Absent(format!("{v6} is not IPv4"))),
    };
    let [a, b, c, d] = own.octets();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    for hidden in [
        format!("[::ffff:{own}]:9"),
        format!("[::{own}]:9"),
        format!("[64:ff9b::{high:x}:{low:x}]:9"),
        "[::ffff:169.254.169.254]:80".into(),
        "0.0.0.0:9".into(),
        "0.1.2.3:9".into(),
        "[::]:9".into(),
    ] {
        let peer: SocketAddr = hidden.parse().map_err(bad)?;
        let answer = client.ask(Build::permission(peer))?;
        ensure!(
            matches!(answer.code(), 403 | 443 | 400),
            "{} for {peer}",
            code_or_success(&answer)
        );
    }
    Ok(())
}

/// A peer that no server may reach: multicast.
const FORBIDDEN: &str = "224.0.0.1:9";
const V6_PEER: &str = "[2600::1]:9";
const CHANNEL: u16 = 0x4123;

fn bad(error: std::net::AddrParseError) -> String {
    error.to_string()
}
