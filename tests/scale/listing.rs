//! Ten thousand sessions are listed beside a call that loses nothing.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use turnd::turn::{SecretAlgorithm, SharedSecret};

use crate::alone;
use crate::crowd::{Credential, Crowd};
use crate::page::Page;
use crate::process::{Daemon, SECRET, Start};
use crate::seat::{Ended, ask, command, run, socket};
use crate::wire::{Client, Link, PATIENCE, channel_data, peer};

/// As many as a list can have, the call among them.
const SESSIONS: usize = 10_000;
/// So many clients at each address.
const AT_A_TIME: usize = 101;
const TENANTS: usize = 10;
/// How often everything is listed.
const ROUNDS: usize = 2;
/// Much more often than anybody does.
const SCRAPED_EVERY: Duration = Duration::from_millis(100);

#[test]
fn ten_thousand_sessions_are_listed_beside_a_call_that_loses_nothing() {
    let _alone = alone();
    let daemon = daemon();
    let mut relays = crowd(&daemon);
    let call = Call::begin(daemon.udp);
    relays.insert(call.relay.to_string());
    assert_eq!(relays.len(), SESSIONS);

    let over = AtomicBool::new(false);
    let (metrics, seat) = (daemon.metrics, socket(&daemon));
    let (flow, scrapes, seconds) = thread::scope(|scope| {
        let flow = scope.spawn(|| call.go_on_until(&over));
        let scrapes = scope.spawn(|| scrape_until(metrics, &over));
        let seconds = scope.spawn(|| watch_until(&seat, &over));
        // Should a list be wrong, the others end, too.
        let listed = catch_unwind(AssertUnwindSafe(|| list_all(&daemon, &relays)));
        over.store(true, Ordering::Relaxed);
        let ended = (flow.join(), scrapes.join(), seconds.join());
        listed.unwrap_or_else(|panic| resume_unwind(panic));
        (ended.0.unwrap(), ended.1.unwrap(), ended.2.unwrap())
    });
    eprintln!(
        "{} packets each way, none lost, the longest pause {:?}; {scrapes} scrapes and {seconds} seconds of the dashboard",
        flow.packets, flow.pause
    );
    let page = Page::at(metrics).unwrap();
    assert_eq!(page.sum("turn_relayed_packets_total", ""), 2 * flow.packets);
    assert_eq!(page.sum("turn_socket_errors_total", ""), 0);
    assert!(scrapes > 0 && seconds > 0 && flow.packets > 0);
}

/// Every way to list them.
fn list_all(daemon: &Daemon, relays: &BTreeSet<String>) {
    for round in 0..ROUNDS {
        let begun = now();
        let list = ask(
            daemon,
            "GET",
            &format!("/v1/sessions?limit={SESSIONS}&sort=old"),
        )
        .good();
        let plain = begun.elapsed();
        check(&list, SESSIONS, SESSIONS);
        assert_eq!(&relays_of(&list), relays, "each of them once");

        // A page is as long as was asked for, and no longer than it may be.
        let few = ask(daemon, "GET", "/v1/sessions?limit=7&sort=bytes");
        assert!(few.body.len() < 10_000, "{}", few.body.len());
        check(&few.good(), SESSIONS, 7);
        check(&ask(daemon, "GET", "/v1/sessions").good(), SESSIONS, 100);
        let many = ask(
            daemon,
            "GET",
            &format!("/v1/sessions?limit={}", SESSIONS + 1),
        );
        assert_eq!(many.problem()["status"], 400);

        let begun = now();
        let limit = SESSIONS.to_string();
        let all = good(run(daemon, &["sessions", "--json", "--limit", &limit]));
        let with_rates = begun.elapsed();
        let all = serde_json::from_str(&all).unwrap();
        check(&all, SESSIONS, SESSIONS);
        assert_eq!(&relays_of(&all), relays);

        let tenant = format!("tenant{}", round % TENANTS);
        let theirs = good(run(
            daemon,
            &["sessions", "--tenant", &tenant, "--limit", &limit],
        ));
        // With the names of the columns.
        assert_eq!(theirs.lines().count(), 1 + (SESSIONS - 1).div_ceil(TENANTS));
        let table = good(run(daemon, &["sessions"]));
        let shown = format!("100 of {SESSIONS} shown");
        assert!(
            table.lines().count() == 102 && table.contains(&shown),
            "{table}"
        );
        closed_pipe(daemon, &limit);
        eprintln!("round {round}: all in {plain:?}, with rates and as a command in {with_rates:?}");
    }
}

/// A reader who takes the first line and goes.
fn closed_pipe(daemon: &Daemon, limit: &str) {
    let mut command = command(daemon, &["sessions", "--json", "--limit", limit]);
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    let mut first = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut first).unwrap();
    assert_eq!(first, "{\n");
    drop(out);
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success() && said.is_empty(), "{said}");
}

fn check(list: &Value, all: usize, listed: usize) {
    assert_eq!(list["total"].as_u64(), Some(all as u64));
    assert_eq!(list["matching"].as_u64(), Some(all as u64));
    let sessions = list["sessions"].as_array().unwrap();
    let ids: BTreeSet<&str> = sessions
        .iter()
        .filter_map(|one| one["id"].as_str())
        .collect();
    assert_eq!((sessions.len(), ids.len()), (listed, listed));
}

fn relays_of(list: &Value) -> BTreeSet<String> {
    let sessions = list["sessions"].as_array().unwrap().iter();
    let relays = sessions.map(|one| one["relays"][0].as_str().unwrap().to_owned());
    relays.collect()
}

fn good(ended: Ended) -> String {
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{}", ended.out);
    ended.out
}

/// A server whose relays are at an address of their own, so that they are in nobody's way.
fn daemon() -> Daemon {
    let start = Start::with("");
    let (udp, metrics) = (start.udp, start.metrics);
    let text = format!(
        "server = {{ workers = 2 }}\n\
         relay = {{ addresses = ['127.0.0.3'], ports = '10000-29999' }}\n\
         metrics = {{ listen = '{metrics}' }}\n\
         peers = {{ allow = ['127.0.0.0/8'] }}\n\
         limits = {{ unauthenticated_replies = 0 }}\n\
         [auth]\n\
         secrets = [{{ id = 'main', file = 'secret', claims = true }}]\n\
         users = [{{ name = 'alice', password_file = 'alice' }}]\n\
         [[listen]]\naddress = '{udp}'\n"
    );
    start.place.write("turnd.toml", &text);
    start.ready()
}

/// All sessions but one. Their clients have gone, without a word.
fn crowd(daemon: &Daemon) -> BTreeSet<String> {
    let secret = SharedSecret::new("main", SECRET.as_bytes(), SecretAlgorithm::Sha1).with_claims();
    let mut relays = BTreeSet::new();
    let numbers: Vec<usize> = (0..SESSIONS - 1).collect();
    for (place, numbers) in numbers.chunks(AT_A_TIME).enumerate() {
        let users: Vec<Credential> = numbers
            .iter()
            .map(|number| {
                let tenant = number % TENANTS;
                let name = format!("4102444800:main~tenant{tenant}~user{number}");
                let password = secret.password(name.as_bytes()).to_string();
                Credential { name, password }
            })
            .collect();
        // Nobody is given the port of one who has gone.
        let ip = IpAddr::from([127, 1, place as u8, 1]);
        let mut crowd = Crowd::at(ip, daemon.udp, users.len());
        let made = crowd.allocate(&users);
        relays.extend(made.into_iter().map(|relay| relay.to_string()));
    }
    relays
}

/// A client and a peer who talk to each other.
struct Call {
    client: UdpSocket,
    peer: UdpSocket,
    relay: SocketAddr,
}

/// How it went.
struct Flow {
    /// Each way.
    packets: u64,
    pause: Duration,
}

impl Call {
    const CHANNEL: u16 = 0x4000;
    /// On their way at a time, each way: no more than a socket holds.
    const WINDOW: u64 = 16;
    /// The server shall have other things to do as well.
    const PERIOD: Duration = Duration::from_millis(2);

    fn begin(server: SocketAddr) -> Self {
        let peer = peer("127.0.0.2");
        let mut client = Client::udp(server);
        let relay = client.allocate();
        let bound = client.bind(Self::CHANNEL, peer.local_addr().unwrap());
        assert_eq!(bound.code(), 0);
        let Link::Udp(client) = client.link else {
            unreachable!("a UDP client")
        };
        Self {
            client,
            peer,
            relay,
        }
    }

    /// Numbered packets both ways: each must come, and in order.
    fn go_on_until(&self, over: &AtomicBool) -> Flow {
        let mut flow = Flow {
            packets: 0,
            pause: Duration::ZERO,
        };
        let mut last = now();
        let mut buffer = [0; 256];
        while !over.load(Ordering::Relaxed) {
            let numbers = flow.packets..flow.packets + Self::WINDOW;
            for number in numbers.clone() {
                let data = payload(number);
                let message = channel_data(Self::CHANNEL, &data, false);
                self.client.send(&message).unwrap();
                self.peer.send_to(&data, self.relay).unwrap();
            }
            for number in numbers {
                let data = payload(number);
                let length = self.peer.recv(&mut buffer).expect("a packet to the peer");
                assert_eq!(buffer[..length], data);
                let length = self.client.recv(&mut buffer).expect("one to the client");
                assert_eq!(buffer[4..length], data);
                let now = now();
                flow.pause = flow.pause.max(now - last);
                last = now;
            }
            flow.packets += Self::WINDOW;
            thread::park_timeout(Self::PERIOD);
        }
        flow
    }
}

fn payload(number: u64) -> [u8; 160] {
    let mut data = [7; 160];
    data[..8].copy_from_slice(&number.to_be_bytes());
    data
}

/// Scrapes, one after the other; how many brought the whole.
fn scrape_until(metrics: SocketAddr, over: &AtomicBool) -> u64 {
    let mut scrapes = 0;
    while !over.load(Ordering::Relaxed) {
        let page = Page::at(metrics);
        if let Some(page) = page.filter(|page| page.sum("turn_workers", "") == 2) {
            assert_eq!(page.sum("turn_allocations", ""), SESSIONS as u64);
            scrapes += 1;
        }
        thread::park_timeout(SCRAPED_EVERY);
    }
    scrapes
}

/// Looks at what the dashboard shows; for how many seconds of it.
fn watch_until(seat: &Path, over: &AtomicBool) -> u64 {
    let mut stream = UnixStream::connect(seat).unwrap();
    stream.set_read_timeout(Some(PATIENCE * 3)).unwrap();
    let request = "GET /v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut seconds = 0;
    while !over.load(Ordering::Relaxed) {
        let line = lines.next().expect("it goes on").unwrap();
        let Some(data) = line.strip_prefix("data: ") else {
            continue;
        };
        let moment: Value = serde_json::from_str(data).unwrap();
        if moment["workers"]["answering"] == 2 {
            assert_eq!(moment["allocations"]["udp"], SESSIONS, "{moment}");
            seconds += 1;
        }
    }
    seconds
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is told is how long it took"
)]
fn now() -> Instant {
    Instant::now()
}
