//! Calls that are broken on purpose, and what `turnd explain` says of each.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "../daemon/process.rs"]
mod process;
#[path = "../wire/mod.rs"]
mod wire;

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use turnd::config::unix_now;
use turnd::turn::{SecretAlgorithm, SharedSecret};

use process::{Daemon, SECRET, Start};
use wire::{Client, USER, peer};

/// A server that can be asked, with `more` in its configuration.
fn server(more: &str) -> Daemon {
    start(more).ready()
}

fn start(more: &str) -> Start {
    Start::with(&format!("{more}\n[admin]\nsocket = 'admin.sock'\n"))
}

/// Runs `turnd explain`.
fn explain(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_turnd"))
        .arg("explain")
        .args(arguments)
        .arg("--config")
        .arg(daemon.place.0.join("turnd.toml"))
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}\n{error}");
    assert!(
        !told.contains(SECRET) && !told.contains(wire::PASSWORD),
        "{told}"
    );
    eprintln!("$ turnd explain {}\n{told}", arguments.join(" "));
    told
}

/// What is said first: the most likely cause, and what to do about it.
fn first(told: &str) -> String {
    let (first, _) = told.split_once("\n\n").unwrap_or((told, ""));
    assert!(first.starts_with("1. "), "{told}");
    first.to_owned()
}

fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
}

/// A server that relays to loopback peers, and a client with an allocation.
fn call() -> (Daemon, Client, SocketAddr) {
    let daemon = server("[peers]\nallow = ['127.0.0.0/8']");
    let mut client = Client::udp(daemon.udp);
    let relayed = client.allocate();
    (daemon, client, relayed)
}

#[test]
fn a_private_peer_that_is_denied() {
    let (daemon, mut client, _) = call();
    let peer = "10.0.0.1:5000".parse().unwrap();
    assert_eq!(client.permit(peer).code(), 403);
    let told = explain(&daemon, &["--user", USER]);
    says(
        &first(&told),
        &[
            "The peer 10.0.0.1:5000 was refused (403) once",
            "it is in 10.0.0.0/8 (private), which is closed unless it is opened",
            "the private network around it",
            "add \"10.0.0.1/32\", or the prefix around it, to `allow` under [peers]",
            "browsers name all of their addresses",
        ],
    );
    // The same for whoever asks about the peer, with the judgement in front.
    let told = explain(&daemon, &["--peer", "10.0.0.1"]);
    says(
        &first(&told),
        &["10.0.0.1 may not be reached: it is in 10.0.0.0/8"],
    );
    says(&told, &["2. The peer 10.0.0.1:5000 was refused (403)"]);
}

#[test]
fn a_peer_is_judged_by_the_configuration_alone_where_no_server_runs() {
    let start = start("[peers]\ndeny = ['52.0.0.0/8']\nallow = ['10.1.0.0/16']");
    let judge = |peer: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_turnd"))
            .args(["explain", "--peer", peer, "--config"])
            .arg(start.place.0.join("turnd.toml"))
            .env("STATE_DIRECTORY", start.place.0.join("state"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    says(
        &judge("10.0.0.1"),
        &[
            "judged by the configuration alone",
            "may not be reached",
            "(private)",
        ],
    );
    says(
        &judge("10.1.0.1"),
        &["10.1.0.1 may be reached: no rule stands against it"],
    );
    says(
        &judge("52.1.2.3"),
        &[
            "52.0.0.0/8, which `[peers] deny` closes",
            "`deny` wins over `allow`",
        ],
    );
    says(
        &judge("224.0.0.251"),
        &["(multicast), which cannot be opened"],
    );
    says(
        &judge("127.0.0.1:9"),
        &["is an address of this server itself"],
    );
    says(
        &judge("169.254.169.254"),
        &["metadata service of most clouds"],
    );
}

fn mint(name: &str) -> (String, String) {
    let secret = SharedSecret::new("", SECRET.as_bytes(), SecretAlgorithm::Sha1);
    let password = secret.password(name.as_bytes());
    (name.to_owned(), password.to_string())
}

fn refused(client: &mut Client) {
    let answer = client.request(turnd::stun::Method::ALLOCATE, |writer| {
        writer.u8(turnd::stun::Attribute::REQUESTED_TRANSPORT, 17);
    });
    assert_ne!(answer.code(), 0);
}

#[test]
fn a_credential_that_has_expired_since_the_clocks_differ() {
    let daemon = server("");
    let (name, password) = mint(&format!("{}:ann", unix_now() - 77));
    let mut client = Client::udp(daemon.udp).with_credentials(&name, &password);
    refused(&mut client);
    let told = explain(&daemon, &["--user", "ann"]);
    says(
        &first(&told),
        &[
            &format!("The credential `{name}` expired 1 min "),
            "ago by this server's clock",
            "(up to 60 s are forgiven)",
            "was answered 401 to Allocate, once",
            "the clock of the token service is behind, or this server's is ahead",
            "NTP",
        ],
    );
    let of_client = explain(&daemon, &["--client", "127.0.0.1"]);
    says(
        &first(&of_client),
        &[&format!("The credential `{name}` expired")],
    );
    says(
        &explain(&daemon, &["--user", "bob"]),
        &["Nothing is known of that"],
    );
}

#[test]
fn passwords_and_names_that_are_wrong() {
    let daemon = server("");
    let name = format!("{}:eve", unix_now() + 600);
    for (user, name, words) in [
        (
            "eve",
            name.as_str(),
            "is not the one that a secret of this server makes for it",
        ),
        (USER, USER, "The password of `alice` is wrong"),
        (
            "nobody",
            "nobody",
            "There is no user `nobody`, and the name is none that a shared secret could vouch for",
        ),
    ] {
        let mut client = Client::udp(daemon.udp).with_credentials(name, "not it");
        refused(&mut client);
        says(
            &first(&explain(&daemon, &["--user", user])),
            &[words, "answered 401"],
        );
    }
}

#[test]
fn a_quota_that_is_reached() {
    let daemon = server("[limits]\nper_user = 2");
    let mut clients: Vec<Client> = (0..3).map(|_| Client::udp(daemon.udp)).collect();
    clients[0].allocate();
    clients[1].allocate();
    refused(&mut clients[2]);
    says(
        &explain(&daemon, &["--user", USER]),
        &[
            "The user `alice` has 2 allocations, and may have 2.",
            "was answered 486 to Allocate",
            "`per_user` under [limits] says so",
        ],
    );
}

#[test]
fn a_peer_that_never_answers() {
    let (daemon, mut client, relayed) = call();
    let mute = peer("127.0.0.2");
    let at = mute.local_addr().unwrap();
    assert_eq!(client.bind(0x4000, at).code(), 0);
    for _ in 0..10 {
        client.send_channel(0x4000, b"is anybody there?");
        wire::receive_from(&mute);
    }
    let told = explain(&daemon, &["--user", USER]);
    says(
        &first(&told),
        &[
            &format!("The peer {at} was sent 10 packets and has not answered with one."),
            &format!("a firewall drops what comes from {relayed}"),
            "behind a NAT that lets in only whom it has sent to",
        ],
    );
    says(
        &told,
        &[
            "channel 0x4000",
            "10 sent, 0 heard",
            "10 packets to peers, 0 packets to the client",
        ],
    );

    // It does answer, from somewhere else.
    let elsewhere = peer("127.0.0.3");
    for _ in 0..3 {
        elsewhere.send_to(b"here I am", relayed).unwrap();
    }
    let from = elsewhere.local_addr().unwrap();
    let part =
        format!("But 3 packets came from addresses without a permission, the last from {from}");
    let told = poll(&daemon, &part);
    says(
        &first(&told),
        &[&part, "that may be where the peer sends from"],
    );

    // Once it answers, nothing is wrong.
    mute.send_to(b"yes", relayed).unwrap();
    assert_eq!(client.receive_channel().1, b"yes");
    says(
        &explain(&daemon, &["--user", USER]),
        &["Nothing is wrong as far as this server can see"],
    );
}

/// Asks until it is said.
fn poll(daemon: &Daemon, part: &str) -> String {
    poll_for(daemon, USER, part)
}

fn poll_for(daemon: &Daemon, user: &str, part: &str) -> String {
    for _ in 0..200 {
        let told = explain(daemon, &["--user", user]);
        if told.contains(part) {
            return told;
        }
        thread::park_timeout(Duration::from_millis(50));
    }
    panic!("`{part}` was never said");
}

#[test]
fn a_port_where_nobody_listens() {
    let (daemon, mut client, _) = call();
    let gone = UdpSocket::bind("127.0.0.2:0")
        .unwrap()
        .local_addr()
        .unwrap();
    assert_eq!(client.permit(gone).code(), 0);
    for _ in 0..6 {
        client.send_indication(gone, b"hello?");
    }
    let told = poll(&daemon, "came back as undeliverable");
    says(
        &first(&told),
        &[
            &format!("What was sent to {gone} came back as undeliverable"),
            "the host is there, and nothing listens on that port (ICMP type 3, code 3)",
            "its candidate is old",
        ],
    );
    assert!(!told.contains("has not answered"), "once is enough\n{told}");
}

/// In an hour that takes a minute: the clocks of the server run sixty times as fast.
#[test]
fn a_permission_that_expires_while_the_peer_still_sends() {
    let Some(library) = faketime() else {
        return;
    };
    let daemon = hasty("", library);
    let mut client = Client::udp(daemon.udp);
    let relayed = client.allocate();
    let other = peer("127.0.0.2");
    assert_eq!(client.permit(other.local_addr().unwrap()).code(), 0);
    let told = (0..400)
        .find_map(|_| {
            other.send_to(b"and on it goes", relayed).unwrap();
            thread::park_timeout(Duration::from_millis(50));
            let told = explain(&daemon, &["--user", USER]);
            told.contains("1. The permission").then_some(told)
        })
        .expect("the permission expires in five seconds");
    says(
        &first(&told),
        &[
            "The permission for 127.0.0.2 expired ",
            "the client asked for it once, the last time 5 min ",
            "and stopped. Since then ",
            "from that peer w",
            "A permission lasts 5 minutes: the client must ask again before that",
        ],
    );
    // The allocation itself, which nobody refreshes, is next.
    let told = (0..400)
        .find_map(|_| {
            thread::park_timeout(Duration::from_millis(50));
            let told = explain(&daemon, &["--user", USER]);
            told.contains("The session ended").then_some(told)
        })
        .expect("the allocation expires in ten seconds");
    says(
        &first(&told),
        &[
            "its client did not refresh it in time. It was never refreshed.",
            "Clients have to send Refresh before the lifetime in the answer is over",
        ],
    );
}

/// A server that relays to loopback peers, and whose clocks run sixty times as fast.
fn hasty(more: &str, library: String) -> Daemon {
    let mut start = start(&format!("[peers]\nallow = ['127.0.0.0/8']\n{more}"));
    start
        .command
        .env("LD_PRELOAD", library)
        .env("FAKETIME", "+0 x60");
    start.ready()
}

/// The library that bends time, if it is there.
fn faketime() -> Option<String> {
    let output = Command::new("faketime")
        .args(["-f", "+0", "printenv", "LD_PRELOAD"])
        .output();
    let library = match output {
        Ok(output) if output.status.success() => output.stdout,
        _ => {
            assert!(std::env::var_os("CI").is_none(), "faketime cannot be run");
            eprintln!("SKIPPED: faketime cannot be run; install it to have this checked");
            return None;
        }
    };
    Some(String::from_utf8(library).unwrap().trim().to_owned())
}

#[test]
fn a_call_that_works_has_nothing_wrong_and_its_failed_candidates_come_last() {
    let (daemon, mut client, relayed) = call();
    let good = peer("127.0.0.2");
    assert_eq!(
        client.permit("192.168.1.7:5000".parse().unwrap()).code(),
        403
    );
    assert_eq!(client.permit(good.local_addr().unwrap()).code(), 0);
    client.send_indication(good.local_addr().unwrap(), b"ping");
    wire::receive_from(&good);
    good.send_to(b"pong", relayed).unwrap();
    assert_eq!(client.receive_data().1, b"pong");
    let json: Value = serde_json::from_str(&explain(&daemon, &["--user", USER, "--json"])).unwrap();
    let findings = json["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{json}");
    assert_eq!(findings[0]["cause"], "peer_closed");
    assert_eq!(
        findings[0]["rank"], 50,
        "harmless: something comes back from another peer"
    );
    let session = json["sessions"][0]["session"].as_str().unwrap();
    assert_eq!(json["sessions"][0]["packetsToPeers"], 1);
    says(&explain(&daemon, &[session]), &[session, "1 sent, 1 heard"]);
}

#[test]
fn what_ends_is_remembered_and_an_unknown_session_is_said_to_be_unknown() {
    let (daemon, mut client, _) = call();
    let mute = "127.0.0.2:9".parse().unwrap();
    assert_eq!(client.permit(mute).code(), 0);
    let answer = client.request(turnd::stun::Method::REFRESH, |writer| {
        writer.u32(turnd::stun::Attribute::LIFETIME, 0);
    });
    assert_eq!(answer.code(), 0);
    let told = explain(&daemon, &["--user", USER]);
    says(
        &told,
        &[
            " ago (deleted)",
            "   peer 127.0.0.2: permission; 0 sent, 0 heard\n",
        ],
    );
    says(
        &explain(&daemon, &["0000000000000007"]),
        &["Nothing is known of that"],
    );
}

/// Its call ends, and it gets no other.
#[test]
fn a_user_who_is_revoked() {
    let daemon = server("[revocation]\nenabled = true");
    let (name, password) = mint(&format!("{}:ann", unix_now() + 600));
    let mut client = Client::udp(daemon.udp).with_credentials(&name, &password);
    client.allocate();
    let revoked = Command::new(env!("CARGO_BIN_EXE_turnd"))
        .args(["revoke", "--user", "ann", "--config"])
        .arg(daemon.place.0.join("turnd.toml"))
        .output()
        .unwrap();
    assert!(revoked.status.success(), "{revoked:?}");
    let told = poll_for(&daemon, "ann", "The session ended");
    says(
        &first(&told),
        &[
            " ago: its credential, its user or its tenant was revoked.",
            "needs a new credential",
        ],
    );
    let mut again = Client::udp(daemon.udp).with_credentials(&name, &password);
    refused(&mut again);
    says(
        &first(&explain(&daemon, &["--user", "ann"])),
        &[
            &format!("The credential `{name}`, its user or its tenant has been revoked."),
            "was answered 401 to Allocate, once",
            "log of revocations",
        ],
    );
}

/// The kernel of this host will not send: to everybody at once, and what no datagram can hold.
#[test]
fn what_cannot_be_sent() {
    let (daemon, mut client, _) = call();
    let all: SocketAddr = "127.255.255.255:9".parse().unwrap();
    assert_eq!(client.permit(all).code(), 0);
    for _ in 0..3 {
        client.send_indication(all, b"who is there?");
    }
    let told = poll(&daemon, "could not be sent");
    says(
        &first(&told),
        &[
            "What was meant for 127.255.255.255 could not be sent: this host forbids it;",
            "`nft list ruleset`",
            "a broadcast address",
        ],
    );

    let (daemon, _, _) = call();
    let mut client = Client::tcp(daemon.udp);
    client.allocate();
    let mute = peer("127.0.0.2").local_addr().unwrap();
    assert_eq!(client.bind(0x4000, mute).code(), 0);
    client.send_channel(0x4000, &[7; 65_530]);
    let told = poll(&daemon, "could not be sent");
    says(
        &told,
        &[
            "What was meant for 127.0.0.2 could not be sent: the packets are longer than the path takes",
            "smaller packets",
        ],
    );
}

#[test]
fn too_many_new_peers() {
    let daemon = server("[peers]\nallow = ['127.0.0.0/8']\n[limits]\nnew_peers_per_allocation = 1");
    let mut client = Client::udp(daemon.udp);
    client.allocate();
    for (peer, code) in [("127.0.0.2:9", 0), ("127.0.0.3:9", 403)] {
        assert_eq!(client.permit(peer.parse().unwrap()).code(), code);
    }
    let told = explain(&daemon, &["--user", USER]);
    says(
        &first(&told),
        &[
            "CreatePermission was answered 403 once",
            "it names more new peers in a minute than it may",
            "`new_peers_per_allocation`",
        ],
    );
}

/// The client is told the same of both, and no sooner of one than of the other.
#[test]
fn a_tcp_peer_that_refuses_and_one_that_says_nothing() {
    let Some(library) = faketime() else {
        return;
    };
    let daemon = hasty("[tcp_relay]\nenabled = true", library);
    let gone = TcpListener::bind("127.0.0.2:0")
        .unwrap()
        .local_addr()
        .unwrap();
    // A listener whose queue is full does not answer.
    let full = TcpListener::bind("127.0.0.3:0").unwrap();
    rustix::net::listen(&full, 0).unwrap();
    let full_at = full.local_addr().unwrap();
    let waiting: Vec<_> = (0..3)
        .map_while(|_| TcpStream::connect_timeout(&full_at, Duration::from_millis(300)).ok())
        .collect();
    assert!(waiting.len() < 3, "the queue is never full");

    let mut client = Client::tcp(daemon.udp);
    let answer = client.request(turnd::stun::Method::ALLOCATE, |writer| {
        writer.u8(turnd::stun::Attribute::REQUESTED_TRANSPORT, 6);
    });
    assert_eq!(answer.code(), 0);
    for peer in [gone, full_at] {
        let answer = client.request(turnd::stun::Method::CONNECT, |writer| {
            writer.xor_address(turnd::stun::Attribute::XOR_PEER_ADDRESS, peer);
        });
        assert_eq!(answer.code(), 447);
    }
    let told = explain(&daemon, &["--user", USER]);
    says(
        &told,
        &[
            &format!("The peer {gone} could not be connected to (447), once, last "),
            "it, or a firewall before it, refused",
            &format!("The peer {full_at} could not be connected to (447), once, last "),
            "it did not answer in time",
        ],
    );
}
