//! Sessions: listed, shown, ended.

use std::time::Duration;

use turnd::stun::Method;

use crate::process::{Daemon, Start};
use crate::seat::{ask, run};
use crate::wire::{Client, peer, receive_from};

const OPEN: &str = "[peers]\nallow = ['127.0.0.0/8']";

/// A client with a relay and a channel to a peer who has heard it.
fn call(daemon: &Daemon) -> (Client, std::net::UdpSocket) {
    let mut client = Client::udp(daemon.udp);
    client.allocate();
    let peer = peer("127.0.0.2");
    assert_eq!(client.bind(0x4000, peer.local_addr().unwrap()).code(), 0);
    client.send_channel(0x4000, b"hello");
    assert_eq!(receive_from(&peer).0, b"hello");
    (client, peer)
}

#[test]
fn the_busiest_come_first() {
    let daemon = Start::with(OPEN).ready();
    let mut idle: Vec<Client> = (0..3).map(|_| Client::udp(daemon.udp)).collect();
    for client in &mut idle {
        client.allocate();
    }
    let (busy, _peer) = call(&daemon);
    let list = ask(&daemon, "GET", "/v1/sessions?sort=bytes&limit=1").good();
    let relay = busy.relayed.unwrap().to_string();
    assert_eq!(list["sessions"][0]["relays"][0], relay, "{list}");
}

#[test]
fn a_call_is_listed_shown_and_ended() {
    let daemon = Start::with(OPEN).ready();
    let (mut client, peer) = call(&daemon);
    let relay = client.relayed.unwrap();
    assert_eq!(client.permit("192.0.2.1:9".parse().unwrap()).code(), 403);

    let list = ask(&daemon, "GET", "/v1/sessions").good();
    assert_eq!(
        (list["total"].as_u64(), list["matching"].as_u64()),
        (Some(1), Some(1))
    );
    let id = list["sessions"][0]["id"].as_str().unwrap().to_owned();
    let one = ask(&daemon, "GET", &format!("/v1/sessions/{id}")).good();
    assert_eq!(one["user"], "alice");
    assert_eq!(one["transport"], "udp");
    assert_eq!(one["protocol"], "udp");
    assert_eq!(one["server"], daemon.udp.to_string());
    assert_eq!(one["relays"][0], relay.to_string());
    assert_eq!(one["peers"][0]["address"], "127.0.0.2");
    assert_eq!(one["bindings"][0]["channel"], 0x4000);
    assert_eq!(
        one["bindings"][0]["peer"],
        peer.local_addr().unwrap().to_string()
    );
    assert_eq!(
        (
            one["toPeer"]["packets"].as_u64(),
            one["toPeer"]["bytes"].as_u64()
        ),
        (Some(1), Some(5))
    );
    assert_eq!(one["lastRefused"]["peer"], "192.0.2.1");
    assert_eq!(one["lastRefused"]["code"], 403);
    assert_eq!(one["software"]["guess"], "libwebrtc");

    let table = run(&daemon, &["sessions"]);
    assert_eq!((table.code, table.err.as_str()), (0, ""));
    assert!(
        table.out.contains(&id)
            && table.out.contains("alice")
            && table.out.contains(&format!(":{}", relay.port())),
        "{}",
        table.out
    );
    assert!(
        table.out.lines().all(|line| line.chars().count() <= 100),
        "{}",
        table.out
    );
    let shown = run(&daemon, &["sessions", &id]);
    for part in [
        "127.0.0.2",
        "0x4000",
        "the peer 192.0.2.1 was refused (403)",
        "libwebrtc",
    ] {
        assert!(shown.out.contains(part), "{part}\n{}", shown.out);
    }

    let kicked = run(&daemon, &["kick", &id]);
    assert_eq!(
        (kicked.code, kicked.out.as_str()),
        (0, "ended 1 session\n"),
        "{}",
        kicked.err
    );
    // The relay is closed: who sends to it is told so by the kernel, or hears nothing.
    client.send_channel(0x4000, b"more");
    peer.set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    peer.send_to(b"anybody?", relay).unwrap();
    assert!(peer.recv(&mut [0; 100]).is_err());
    assert_eq!(client.request(Method::REFRESH, |_| {}).code(), 437);
    assert_eq!(
        daemon.metric("turn_port_pool_free") as u64,
        daemon.metric("turn_port_pool_size") as u64
    );
    let again = run(&daemon, &["kick", &id]);
    assert_eq!((again.code, again.out.as_str()), (1, ""));
    assert!(again.err.contains("not found"), "{}", again.err);
}

#[test]
fn the_log_tells_that_a_call_was_kicked() {
    let mut daemon = Start::with(OPEN).ready();
    let (_client, _peer) = call(&daemon);
    assert_eq!(
        run(&daemon, &["kick", "--user", "alice"]).out,
        "ended 1 session\n"
    );
    assert_eq!(daemon.log("allocation ended")["reason"], "kicked");
}

#[test]
fn sessions_are_chosen_by_what_they_are() {
    let daemon = Start::with("").ready();
    let mut clients: Vec<Client> = (0..3).map(|_| Client::udp(daemon.udp)).collect();
    clients.push(Client::tcp(daemon.udp));
    let relays: Vec<u16> = clients
        .iter_mut()
        .map(|client| client.allocate().port())
        .collect();
    let matching = |query: &str| {
        let list = ask(&daemon, "GET", &format!("/v1/sessions?{query}")).good();
        assert_eq!(list["total"], 4, "{query}");
        (
            list["matching"].as_u64().unwrap(),
            list["sessions"].as_array().unwrap().len(),
        )
    };
    assert_eq!(matching(""), (4, 4));
    assert_eq!(matching("limit=2"), (4, 2));
    assert_eq!(matching("limit=0"), (4, 0));
    assert_eq!(matching("user=alice&sort=rate"), (4, 4));
    assert_eq!(matching("user=bob"), (0, 0));
    assert_eq!(matching("tenant=acme"), (0, 0));
    assert_eq!(matching("client=127.0.0.1"), (4, 4));
    assert_eq!(matching("client=127.0.0.9"), (0, 0));
    assert_eq!(matching(&format!("relay={}", relays[1])), (1, 1));
    assert_eq!(matching("search=tcp"), (1, 1));
    assert_eq!(matching(&format!("search=:{}", relays[2])), (1, 1));
    for order in ["bytes", "packets", "rate", "new", "old"] {
        assert_eq!(matching(&format!("sort={order}")), (4, 4));
    }
    assert_eq!(
        ask(&daemon, "DELETE", "/v1/sessions?client=127.0.0.9").good()["ended"],
        0
    );
    assert_eq!(
        ask(&daemon, "DELETE", "/v1/sessions?user=alice").good()["ended"],
        4
    );
    let none = run(&daemon, &["sessions"]);
    assert_eq!((none.code, none.out.as_str()), (0, "no sessions\n"));
}

#[test]
fn the_status_tells_the_whole() {
    let daemon = Start::with(OPEN).ready();
    let (_client, _peer) = call(&daemon);
    let status = ask(&daemon, "GET", "/v1/status").good();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["allocations"]["udp"], 1);
    assert_eq!(status["channels"], 1);
    assert_eq!(status["toPeer"]["bytes"], 5);
    assert_eq!(status["workers"]["answering"], 2);
    assert_eq!(status["ports"]["total"], 1000);
    assert_eq!(status["ports"]["used"], 1);
    assert_eq!(status["users"], 1);
    let listeners = status["listeners"].as_array().unwrap();
    assert_eq!(listeners[1]["transport"], "tcp");
    assert_eq!(listeners[1]["address"], daemon.udp.to_string());
    let shown = run(&daemon, &["status"]);
    assert_eq!((shown.code, shown.err.as_str()), (0, ""));
    for part in [
        "ready",
        "1 allocation (1 udp)",
        "1 of 1000 in use",
        "127.0.0.1",
    ] {
        assert!(shown.out.contains(part), "{part}\n{}", shown.out);
    }
    assert!(!shown.out.contains('\x1b'), "there is no terminal");
    let json = run(&daemon, &["status", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["ports"]["used"], 1);
}
