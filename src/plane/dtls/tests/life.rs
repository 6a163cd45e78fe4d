//! Associations: how one replaces another, how they end, and how many there may be.

use super::*;

#[test]
fn plaintext_of_others_ends_nothing() {
    let mut server = Server::new();
    let mut peer = Peer::new("198.51.100.1:4000", server.now);
    let fatal = [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40];
    let goodbye = [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 1, 0];
    let data = [
        23, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 3, b'h', b'e', b'y',
    ];
    let protected = [
        [23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 30].as_slice(),
        &[7; 30],
    ]
    .concat();
    let hello = peer.second_hello(&mut server);
    let flight = server.take(peer.client, &hello);
    for foreign in [&fatal[..], &goodbye, &data, &protected] {
        assert!(server.take(peer.client, foreign).is_empty());
    }
    let finish = peer.hears(&flight);
    let last: Vec<_> = finish
        .iter()
        .flat_map(|datagram| server.take(peer.client, datagram))
        .collect();
    for foreign in [&fatal[..], &goodbye, &data, &protected, &hello, &finish[0]] {
        server.take(peer.client, foreign);
    }
    peer.hears(&last);
    assert!(peer.connected);
    peer.tell(&mut server, b"still there");
    assert_eq!(server.heard(), [b"still there"]);
}

/// RFC 6347 §4.2.8: who has forgotten everything may begin afresh, and the association lives until that succeeds.
#[test]
fn a_new_handshake_replaces_an_association_only_when_it_succeeds() {
    let mut server = Server::new();
    let mut before = Peer::new("198.51.100.1:4000", server.now);
    before.connect(&mut server);
    let mut after = Peer::new("198.51.100.1:4000", server.now);
    let hello = after.second_hello(&mut server);
    let flight = server.take(after.client, &hello);
    assert_eq!(server.associations.len(), 2);
    before.tell(&mut server, b"I am still here");
    assert_eq!(server.heard(), [b"I am still here"]);
    let sent = server
        .associations
        .send(before.client, [b"so it seems", b"", b""], 0);
    assert!(sent);
    before.hears(&server.sent());
    assert_eq!(before.heard, [b"so it seems"]);
    let finish = after.hears(&flight);
    let last: Vec<_> = finish
        .iter()
        .flat_map(|datagram| server.take(after.client, datagram))
        .collect();
    after.hears(&last);
    assert!(after.connected);
    assert_eq!(server.associations.ended, [before.client]);
    assert_eq!(
        (server.associations.len(), server.associations.handshakes),
        (1, 0)
    );
    after.tell(&mut server, b"and I am new");
    assert_eq!(server.heard(), [b"and I am new"]);
    before.tell(&mut server, b"I was");
    assert!(server.heard().is_empty());
}

#[test]
fn a_new_handshake_that_fails_changes_nothing() {
    let mut server = Server::new();
    let mut before = Peer::new("198.51.100.1:4000", server.now);
    before.connect(&mut server);
    let mut after = Peer::new("198.51.100.1:4000", server.now);
    let hello = after.second_hello(&mut server);
    server.take(after.client, &hello);
    server.pass(Duration::from_secs(6));
    assert_eq!(
        (server.associations.len(), server.cells.handshakes.failed),
        (1, 1)
    );
    assert!(server.associations.ended.is_empty());
    before.tell(&mut server, b"what was that");
    assert_eq!(server.heard(), [b"what was that"]);
}

#[test]
fn a_goodbye_is_answered_and_ends_the_association() {
    let mut server = Server::new();
    let mut peer = Peer::new("198.51.100.1:4000", server.now);
    peer.connect(&mut server);
    peer.dtls.close().unwrap();
    let [goodbye] = &peer.says()[..] else {
        panic!("one datagram")
    };
    assert_eq!(server.take(peer.client, goodbye).len(), 1);
    assert_eq!(server.associations.ended, [peer.client]);
    assert_eq!(server.associations.len(), 0);
    silence(&mut server, peer.client, goodbye);
}

#[test]
fn a31_few_of_the_associations_are_strangers() {
    let mut server = Server::with(4 * STRANGERS);
    let mut peers: Vec<_> = (1..=5)
        .map(|host| Peer::new(&format!("198.51.100.{host}:9"), server.now))
        .collect();
    for peer in &mut peers[..4] {
        peer.connect(&mut server);
    }
    let hello = peers[4].second_hello(&mut server);
    assert!(server.take(peers[4].client, &hello).is_empty());
    assert_eq!(server.cells.drops(DtlsDrop::Busy), 1);
    for peer in &peers[..2] {
        server.associations.trust(&peer.client.five_tuple);
        server.associations.trust(&peer.client.five_tuple);
    }
    assert_eq!(server.associations.strangers, 2);
    assert!(!server.take(peers[4].client, &hello).is_empty());
    assert_eq!(server.associations.len(), 5);
    let gone = server.pass(Duration::from_secs(20));
    assert!(!gone.is_empty());
    assert_eq!(
        (server.associations.len(), server.associations.strangers),
        (0, 0)
    );
}

/// A32: so many handshakes of one subscriber, so many of all.
#[test]
fn a32_handshakes_are_few_of_one_subscriber_and_few_in_all() {
    let mut server = Server::new();
    let begin = |server: &mut Server, address: String| {
        let mut peer = Peer::new(&address, server.now);
        let hello = peer.second_hello(server);
        server.take(peer.client, &hello);
    };
    for port in 1..=PENDING_PER_SUBSCRIBER + 5 {
        begin(&mut server, format!("198.51.100.1:{port}"));
    }
    assert_eq!(server.associations.len(), PENDING_PER_SUBSCRIBER);
    for host in 1..=HANDSHAKES {
        begin(&mut server, format!("[2001:db8:{host:x}::1]:9"));
    }
    assert_eq!(server.associations.handshakes, HANDSHAKES);
    assert_eq!(
        server.cells.drops(DtlsDrop::Busy),
        5 + PENDING_PER_SUBSCRIBER as u64
    );
    server.pass(Duration::from_secs(6));
    assert_eq!(server.associations.len(), 0);
    assert!(server.associations.pending.0.is_empty());
}

/// One round does little for handshakes; the others wait for the next, and beyond that go without.
#[test]
fn a32_handshakes_do_not_hold_up_a_round() {
    let mut server = Server::new();
    let count = HANDSHAKE_STEPS + WAITING + 3;
    let hellos: Vec<_> = (1..=count)
        .map(|host| {
            let mut peer = Peer::new(&format!("[2001:db8:{host:x}::1]:9"), server.now);
            let hello = peer.second_hello(&mut server);
            (peer.client, hello)
        })
        .collect();
    server
        .associations
        .begin_round(server.now, &mut server.cells);
    for (from, hello) in &hellos {
        let Server {
            associations,
            cells,
            now,
        } = &mut server;
        associations.take(*now, *from, hello, cells);
    }
    assert_eq!(server.associations.len(), HANDSHAKE_STEPS);
    assert_eq!(server.cells.drops(DtlsDrop::Busy), 3);
    assert_eq!(server.associations.deadline(server.now), Some(server.now));
    for round in 2..=4 {
        server
            .associations
            .begin_round(server.now, &mut server.cells);
        assert_eq!(server.associations.len(), round * HANDSHAKE_STEPS);
    }
}

/// Whoever repeats a good ClientHello, or fills up a handshake, keeps others waiting no longer than its share.
#[test]
fn a32_one_subscriber_does_not_fill_the_queue() {
    let mut server = Server::new();
    let mut greedy = Peer::new("198.51.100.1:9", server.now);
    let again = greedy.second_hello(&mut server);
    let mut other = Peer::new("198.51.100.2:9", server.now);
    let hello = other.second_hello(&mut server);
    let Server {
        associations,
        cells,
        now,
    } = &mut server;
    associations.begin_round(*now, cells);
    for _ in 0..HANDSHAKE_STEPS + 10 * WAITING {
        associations.take(*now, greedy.client, &again, cells);
    }
    assert_eq!(associations.waiting.len(), WAITING_PER_SUBSCRIBER);
    associations.take(*now, other.client, &hello, cells);
    for _ in 0..=WAITING_PER_SUBSCRIBER / HANDSHAKE_STEPS {
        associations.begin_round(*now, cells);
    }
    assert!(associations.has(&other.client.five_tuple));
    assert!(associations.waiting.is_empty() && associations.waiting_of.0.is_empty());
}
