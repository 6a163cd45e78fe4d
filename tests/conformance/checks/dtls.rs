//! RFC 7350: DTLS.

use crate::client::Data;
use crate::dtls;
use crate::ground::Ground;
use crate::packet::{Build, attr, method};
use crate::statement::Proof::Seen as Shown;
use crate::statement::{Seen, Statement, Trouble, ensure};
use crate::wire::{Transport, udp_socket};

pub(crate) const STATEMENTS: &[Statement] = &[
    Statement {
        id: "S17",
        rfc: "RFC 7350",
        section: "4.6",
        title: "nothing is kept for a DTLS client before it has shown a cookie",
        proofs: &[Shown(s17_cookie)],
    },
    Statement {
        id: "7350",
        rfc: "RFC 7350",
        section: "4.6",
        title: "TURN over DTLS serves what TURN over UDP does, and no TCP relays",
        proofs: &[Shown(turn_over_dtls)],
    },
    Statement {
        id: "500",
        rfc: "Error codes",
        section: "Server Error",
        title: "to a request of RFC 3489 over DTLS",
        proofs: &[Shown(server_error)],
    },
];

fn s17_cookie(ground: &Ground) -> Seen {
    let missing = || Trouble::absent("no DTLS listener");
    let server = ground.full.dtls.ok_or_else(missing)?;
    let socket = udp_socket(ground.hosts.client(server.ip()), ground.patience)?;
    let hello = dtls::client_hello()?;
    // Whoever keeps nothing answers the same again.
    for time in ["a ClientHello", "the same ClientHello again"] {
        socket.send_to(&hello, server)?;
        let mut buffer = [0; 4096];
        let (length, _) = socket
            .recv_from(&mut buffer)
            .map_err(|_| format!("no answer to {time}"))?;
        // A record of a handshake, and in it a message of a kind.
        let (record, message) = (buffer[0], buffer[13]);
        ensure!(
            record == 22 && message == HELLO_VERIFY_REQUEST,
            "message {message} in record {record} instead of a HelloVerifyRequest"
        );
        ensure!(
            length <= hello.len(),
            "{length} bytes for a ClientHello of {}",
            hello.len()
        );
    }
    Ok(())
}

fn turn_over_dtls(ground: &Ground) -> Seen {
    let mut client = ground.client_over(Transport::Dtls)?;
    client.exchange(&Build::binding())?;
    let relayed = client.allocate()?;
    let peer = ground.peer()?;
    client.bind(0x4000, peer.address)?;
    for data in [&b""[..], b"1", b"333", &[7; 1000]] {
        client.send_channel(0x4000, data)?;
        peer.hears(data)?;
        peer.send(relayed, data)?;
        let heard = client.data()?;
        ensure!(heard == Data::Channel(0x4000, data.to_vec()), "{heard:?}");
    }
    let beside = peer.beside()?;
    client.send_to(beside.address, b"in an indication")?;
    beside.hears(b"in an indication")?;
    let mut client = ground.client_over(Transport::Dtls)?;
    let tcp = Build::request(method::ALLOCATE).attr(attr::REQUESTED_TRANSPORT, &[6, 0, 0, 0]);
    client.refused_signed(tcp, 400).map(drop)
}

/// A Binding request of RFC 3489: no cookie, and an id of sixteen bytes.
fn server_error(ground: &Ground) -> Seen {
    let mut client = ground.client_over(Transport::Dtls)?;
    let mut request = Build::binding().bytes();
    request[4..8].copy_from_slice(b"old!");
    client.link.send(&request)?;
    let answer = client.link.receive_raw()?;
    ensure!(
        answer.get(4..20) == request.get(4..20) && answer.get(24..28) == Some(&[0, 0, 5, 0]),
        "{answer:02x?} instead of 500"
    );
    Ok(())
}

/// Of the messages of a handshake (RFC 6347 §4.3.2).
const HELLO_VERIFY_REQUEST: u8 = 3;
