//! Strangers: what they are told before they have shown a cookie, and which cookies are good.

use super::*;

#[test]
fn a15_a_stranger_gets_less_than_it_sends_and_leaves_nothing() {
    let mut server = Server::new();
    let hello = first_hello(&mut Peer::new("198.51.100.1:4000", server.now));
    for port in 1..=2000 {
        let stranger = client(&format!("198.51.100.1:{port}"));
        let answer = server.take(stranger, &hello);
        assert_eq!(answer.len(), 1);
        assert!(answer[0].len() <= hello.len());
    }
    assert_eq!(server.cells.cookies, 2000);
    let Associations {
        table,
        by_client,
        replacing,
        pending,
        waiting,
        ..
    } = &server.associations;
    assert_eq!((table.capacity(), by_client.capacity()), (0, 0));
    assert_eq!((replacing.capacity(), pending.0.capacity()), (0, 0));
    assert_eq!(waiting.capacity(), 0);
}

/// The shortest ClientHello there can be, and what is not one.
#[test]
fn a15_what_is_no_hello_meets_silence() {
    let mut server = Server::new();
    let stranger = client("198.51.100.1:4000");
    let mut shortest = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 7, 0, 54];
    shortest.extend([1, 0, 0, 42, 0, 0, 0, 0, 0, 0, 0, 42, 0xfe, 0xfd]);
    shortest.extend([7; 32]);
    shortest.extend([0, 0, 0, 2, 0xc0, 0x2b, 1, 0]);
    let answer = server.take(stranger, &shortest);
    assert_eq!(answer[0].len(), HELLO_VERIFY_REQUEST);
    assert!(answer[0].len() <= shortest.len());
    assert_eq!(answer[0][5..11], [0, 0, 0, 0, 0, 7], "the record's number");
    let hello = first_hello(&mut Peer::new("198.51.100.1:4000", server.now));
    for length in 0..hello.len() {
        silence(&mut server, stranger, &hello[..length]);
    }
    let changed = |place: usize, value: u8| {
        let mut bytes = hello.clone();
        bytes[place] = value;
        bytes
    };
    for kind in (0..=255).filter(|kind| *kind != 22) {
        silence(&mut server, stranger, &changed(0, kind));
    }
    // Another epoch, another message, a fragment: its offset, its length.
    for (place, value) in [(4, 1), (13, 2), (21, 1), (24, 9)] {
        silence(&mut server, stranger, &changed(place, value));
    }
    silence(&mut server, client("198.51.100.1:0"), &hello);
    silence(&mut server, stranger, &[&hello[..], &hello[..]].concat());
}

#[test]
fn a_hello_of_dtls_1_0_is_told_so() {
    let mut server = Server::new();
    let mut hello = first_hello(&mut Peer::new("198.51.100.1:4000", server.now));
    hello[26] = 0xff;
    let answer = server.take(client("198.51.100.1:4000"), &hello);
    let protocol_version = [21, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 70];
    assert_eq!(answer, [protocol_version]);
    assert_eq!(server.associations.len(), 0);
}

/// \[S17\] A cookie is good for the address that it was sent to, with the hello that it was made for, for a while.
#[test]
fn s17_a_cookie_is_good_for_one_address_one_hello_and_a_minute() {
    let mut server = Server::new();
    let mut peer = Peer::new("198.51.100.1:4000", server.now);
    let hello = peer.second_hello(&mut server);
    let asked_again = |server: &mut Server, from: Client, hello: &[u8]| {
        let cookies = server.cells.cookies;
        let answer = server.take(from, hello);
        assert_eq!(server.associations.len(), 0);
        assert_eq!(server.cells.cookies, cookies + 1);
        assert_eq!(answer[0].len(), HELLO_VERIFY_REQUEST);
        // The second answer is the server's second message.
        assert_eq!(answer[0][17..19], [0, 1]);
    };
    for other in [
        "198.51.100.2:4000",
        "198.51.100.1:4001",
        "[2001:db8::1]:4000",
    ] {
        asked_again(&mut server, client(other), &hello);
    }
    let mut elsewhere = peer.client;
    elsewhere.five_tuple.server.set_port(5350);
    asked_again(&mut server, elsewhere, &hello);
    // Any bit of the cookie, and of what the client drew.
    for place in (27..59).chain(61..93) {
        let mut wrong = hello.clone();
        wrong[place] ^= 1 << (place % 8);
        asked_again(&mut server, peer.client, &wrong);
    }
    server.now += Duration::from_secs(60);
    asked_again(&mut server, peer.client, &hello);
    server.now -= Duration::from_secs(31);
    server.take(peer.client, &hello);
    assert_eq!(server.associations.len(), 1);
}

/// A client whose cookie has grown old meanwhile gets another one and connects with it.
#[test]
fn a_second_cookie_does_as_well() {
    let mut server = Server::new();
    let mut peer = Peer::new("198.51.100.1:4000", server.now);
    let late = peer.second_hello(&mut server);
    server.now += Duration::from_secs(60);
    let [request] = &server.take(peer.client, &late)[..] else {
        panic!("one answer")
    };
    // dimpl's client heeds one request alone; this one is written for it.
    let mut third = late.clone();
    third[18] = 2;
    third[10] = 2;
    third[61..93].copy_from_slice(&request[28..60]);
    let flight = server.take(peer.client, &third);
    assert_eq!(server.associations.len(), 1);
    // ServerHello: the record's number is the hello's, the message's the next one.
    assert_eq!((flight[0][10], flight[0][13], flight[0][18]), (2, 2, 2));
}
