//! RFC 8656 §11.5 and §13 to §16: what is in the headers of IP, and the errors of ICMP.

use std::net::SocketAddr;

use socket2::SockRef;

use crate::capture::Capture;
use crate::client::Client;
use crate::ground::Ground;
use crate::packet::{Build, Class, Packet, attr, method};
use crate::statement::Proof::{Seen as Shown, Test};
use crate::statement::{Seen, Statement, ensure};
use crate::wire::Transport;

pub(crate) const STATEMENTS: &[Statement] = &[
    Statement {
        id: "D4",
        rfc: "RFC 8656",
        section: "11.5, 18.13",
        title: "an ICMP error of a permitted peer comes as a Data indication with ICMP and without DATA",
        proofs: &[
            Shown(d4_icmp),
            Test(
                "tests/rfc8656_icmp.rs::d4_an_error_is_a_data_indication_with_the_peer_and_without_data",
            ),
        ],
    },
    Statement {
        id: "H1",
        rfc: "RFC 8656",
        section: "14",
        title: "between datagrams DSCP and ECN are copied, and DF is set by DONT-FRAGMENT",
        proofs: &[Shown(h1_marks_and_df)],
    },
    Statement {
        id: "H2",
        rfc: "RFC 8656",
        section: "15",
        title: "from a stream to datagrams: ECN is Not-ECT, DF only by DONT-FRAGMENT",
        proofs: &[Shown(h2_from_a_stream)],
    },
    Statement {
        id: "H3",
        rfc: "RFC 8656",
        section: "16",
        title: "from datagrams to a stream: what their headers say is ignored",
        proofs: &[Shown(h3_into_a_stream)],
    },
    Statement {
        id: "H4",
        rfc: "RFC 8656",
        section: "13",
        title: "towards IPv6 peers DONT-FRAGMENT is ignored",
        proofs: &[
            Shown(h4_ipv6),
            Test(
                "tests/rfc8656.rs::h4_dont_fragment_counts_between_ipv4_datagrams_and_from_streams",
            ),
        ],
    },
    Statement {
        id: "H5",
        rfc: "RFC 8656",
        section: "14, decided",
        title: "congestion marks reach the other side both ways, without taking DSCP with them",
        proofs: &[Shown(h5_congestion)],
    },
];

fn d4_icmp(ground: &Ground) -> Seen {
    let (mut client, _) = ground.allocated()?;
    let peer = ground.peer()?;
    let closed = peer.beside()?.address;
    client.permit(closed)?;
    client.send_to(closed, b"nobody there")?;
    is_port_unreachable(&mut client, closed)?;
    // A channel changes nothing.
    client.bind(0x4000, closed)?;
    client.send_channel(0x4000, b"nobody there either")?;
    is_port_unreachable(&mut client, closed)
}

fn is_port_unreachable(client: &mut Client, peer: SocketAddr) -> Seen {
    let Packet::Stun(stun) = client.next("an indication")? else {
        return Err("ChannelData".into());
    };
    ensure!(
        (stun.class, stun.method) == (Class::Indication, method::DATA),
        "method {:#x} instead of Data",
        stun.method
    );
    ensure!(!stun.has(attr::DATA), "DATA beside ICMP");
    let from = stun.xor_address(attr::XOR_PEER_ADDRESS);
    let icmp = stun.get(attr::ICMP);
    ensure!(
        from == Some(peer) && icmp == Some(&[0, 0, 3, 3, 0, 0, 0, 0]),
        "{from:?} and ICMP {icmp:02x?} instead of {peer}, type 3, code 3"
    );
    Ok(())
}

fn h1_marks_and_df(ground: &Ground) -> Seen {
    let (mut client, relayed, peer) = ground.call()?;
    let capture = Capture::start(ground.patience)?;
    // Expedited forwarding, congestion experienced; and others for the way back.
    SockRef::from(client.link.socket()?).set_tos_v4(EF << 2 | CE)?;
    client.send_to(peer.address, b"marked")?;
    let asked = capture.packet(client.link.server, b"marked")?;
    let seen = capture.packet(peer.address, b"marked")?;
    ensure!(
        seen.dscp() == EF as u8 && seen.ecn() == CE as u8,
        "DSCP {} and ECN {} instead of {EF} and {CE}",
        seen.dscp(),
        seen.ecn()
    );
    // DF may be copied, or cleared.
    let invented = seen.dont_fragment && !asked.dont_fragment;
    ensure!(!invented, "DF without DONT-FRAGMENT");
    let whole = Build::send(peer.address, b"whole!").attr(attr::DONT_FRAGMENT, b"");
    client.link.send(&whole.bytes())?;
    // The data is the last but one attribute.
    peer.hears(b"marked")?;
    peer.hears(b"whole!")?;
    let seen = capture.packet(peer.address, b"whole!")?;
    ensure!(seen.dont_fragment, "no DF with DONT-FRAGMENT");
    SockRef::from(&peer.socket).set_tos_v4(AF41 << 2 | ECT0)?;
    peer.send(relayed, b"back")?;
    client.data()?;
    let seen = capture.packet(client.link.local()?, b"back")?;
    ensure!(
        seen.dscp() == AF41 as u8 && seen.ecn() == ECT0 as u8,
        "DSCP {} and ECN {} instead of {AF41} and {ECT0} on the way back",
        seen.dscp(),
        seen.ecn()
    );
    Ok(())
}

fn h2_from_a_stream(ground: &Ground) -> Seen {
    let mut client = ground.client_over(Transport::Tcp)?;
    client.allocate()?;
    let peer = ground.peer()?;
    client.permit(peer.address)?;
    let capture = Capture::start(ground.patience)?;
    client.send_to(peer.address, b"from a stream")?;
    let seen = capture.packet(peer.address, b"from a stream")?;
    ensure!(
        seen.ecn() == 0 && !seen.dont_fragment,
        "ECN {} and DF {}",
        seen.ecn(),
        seen.dont_fragment
    );
    let whole = Build::send(peer.address, b"in one piece").attr(attr::DONT_FRAGMENT, b"");
    client.link.send(&whole.bytes())?;
    let seen = capture.packet(peer.address, b"in one piece")?;
    ensure!(
        seen.ecn() == 0 && seen.dont_fragment,
        "ECN {} and DF {} with DONT-FRAGMENT",
        seen.ecn(),
        seen.dont_fragment
    );
    Ok(())
}

fn h3_into_a_stream(ground: &Ground) -> Seen {
    let mut client = ground.client_over(Transport::Tcp)?;
    let relayed = client.allocate()?;
    let peer = ground.peer()?;
    client.permit(peer.address)?;
    let capture = Capture::start(ground.patience)?;
    SockRef::from(&peer.socket).set_tos_v4(EF << 2 | CE)?;
    peer.send(relayed, b"into a stream!!!")?;
    client.data()?;
    let seen = capture.packet(client.link.local()?, b"into a stream!!!")?;
    ensure!(
        seen.dscp() != EF as u8 && seen.ecn() != CE as u8,
        "the stream has the datagram's DSCP {} and ECN {}",
        seen.dscp(),
        seen.ecn()
    );
    Ok(())
}

fn h4_ipv6(ground: &Ground) -> Seen {
    // From either family of client.
    for mut client in [ground.client()?, ground.client6()?] {
        client.succeed(Build::allocate().family(2))?;
        let peer = ground.peer6()?;
        client.permit(peer.address)?;
        let whole = Build::send(peer.address, b"whole").attr(attr::DONT_FRAGMENT, b"");
        client.link.send(&whole.bytes())?;
        peer.hears(b"whole")?;
    }
    Ok(())
}

fn h5_congestion(ground: &Ground) -> Seen {
    let (mut client, relayed, peer) = ground.call()?;
    let capture = Capture::start(ground.patience)?;
    let set = |socket: &std::net::UdpSocket, ecn| SockRef::from(socket).set_tos_v4(ecn);
    for ecn in 0..=3 {
        let there = format!("there {ecn}");
        set(client.link.socket()?, ecn)?;
        client.send_to(peer.address, there.as_bytes())?;
        peer.hears(there.as_bytes())?;
        let seen = capture.packet(peer.address, there.as_bytes())?;
        ensure!(u32::from(seen.marks) == ecn, "{} for {ecn}", seen.marks);
        let back = format!("back {ecn}..");
        set(&peer.socket, ecn)?;
        peer.send(relayed, back.as_bytes())?;
        client.data()?;
        let seen = capture.packet(client.link.local()?, back.as_bytes())?;
        ensure!(
            u32::from(seen.marks) == ecn,
            "{} for {ecn} on the way back",
            seen.marks
        );
    }
    Ok(())
}

/// Code points of DSCP.
const EF: u32 = 46;
const AF41: u32 = 34;
/// And of ECN.
const ECT0: u32 = 2;
const CE: u32 = 3;
