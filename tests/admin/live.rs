//! `/v1/live` and the page that shows it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::listener::ask_http;
use crate::process::{Daemon, Start, free_address};
use crate::wire::{Client, PATIENCE};

const TOKEN: &str = "a-token-of-the-operators-own-that-nobody-guesses";

#[test]
fn all_who_look_see_the_same_seconds() {
    let (daemon, seat) = daemon();
    let mut client = Client::udp(daemon.udp);
    client.allocate();
    let (mut one, mut other) = (Looker::new(seat), Looker::new(seat));
    let mut events = (0..10).map(|_| one.event());
    let first = events.find(|event| event["allocations"]["udp"] == 1);
    let first = first.expect("an event with the allocation");
    assert_eq!(first["allocationsByFamily"]["udp"]["ipv4"], 1, "{first}");
    assert_eq!(first["allocates"]["granted"], 1, "{first}");
    assert_eq!(first["ready"], true, "{first}");
    assert!(
        first["process"]["openFiles"].as_f64() > Some(3.0),
        "{first}"
    );
    let clock = |event: &Value| event["clock"].as_f64().unwrap();
    let clocks = [clock(&first), clock(&one.event()), clock(&one.event())];
    assert!(clocks.is_sorted(), "{clocks:?}");
    // Each look is made once, for whoever comes.
    let mut same = (0..5).map(|_| clock(&other.event()));
    assert!(same.any(|time| clocks.contains(&time)), "{clocks:?}");
    // Who comes later sees what was before.
    let past = clock(&Looker::new(seat).event());
    assert!(past <= clocks[0], "{past} {clocks:?}");
}

#[test]
fn there_are_places_for_few_who_look_and_they_come_free() {
    let (_daemon, seat) = daemon();
    let mut lookers: Vec<Looker> = (0..16).map(|_| Looker::new(seat)).collect();
    for looker in &mut lookers {
        looker.event();
    }
    let refused = ask(seat, "/v1/live");
    assert_eq!(refused.code, 503, "{}", refused.body);
    refused.problem();
    lookers.pop();
    // The server notices that when it next has something to say.
    let free = (0..100).any(|_| {
        let mut looker = Looker::new(seat);
        looker.is_welcome()
    });
    assert!(free, "the place of who has gone comes free");
}

#[test]
fn the_page_is_for_everybody_and_the_figures_are_not() {
    let (_daemon, seat) = daemon();
    let host = format!("Host: {seat}");
    let page = ask_http(seat, "GET", "/dashboard", &[&host]);
    assert_eq!(page.code, 200);
    let head = page.head.to_ascii_lowercase();
    for part in [
        "content-security-policy: default-src 'none'; script-src 'sha256-",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
    ] {
        assert!(head.contains(part), "{part}\n{head}");
    }
    assert!(page.body.contains("<h1>Dashboard</h1>"));
    for wanted in ["/v1/live", "/v1/sessions"] {
        assert_eq!(ask_http(seat, "GET", wanted, &[&host]).code, 401);
    }
}

fn daemon() -> (Daemon, SocketAddr) {
    let seat = free_address();
    let start = Start::with(&format!("[admin]\nlisten = '{seat}'\ntoken_file = 'token'"));
    start.place.write("token", TOKEN);
    (start.ready(), seat)
}

fn ask(seat: SocketAddr, path: &str) -> crate::seat::Answer {
    let (host, token) = (
        format!("Host: {seat}"),
        format!("Authorization: Bearer {TOKEN}"),
    );
    ask_http(seat, "GET", path, &[&host, &token])
}

/// Somebody who looks.
struct Looker(BufReader<TcpStream>);

impl Looker {
    fn new(seat: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(seat).unwrap();
        stream.set_read_timeout(Some(PATIENCE * 3)).unwrap();
        write!(
            stream,
            "GET /v1/live HTTP/1.1\r\nHost: {seat}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        )
        .unwrap();
        Self(BufReader::new(stream))
    }

    /// The next event.
    fn event(&mut self) -> Value {
        loop {
            let line = self.line();
            if let Some(data) = line.strip_prefix("data: ") {
                return serde_json::from_str(data).unwrap();
            }
        }
    }

    fn is_welcome(&mut self) -> bool {
        self.line().contains(" 200 ")
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).unwrap() > 0, "it goes on");
        line
    }
}
