//! Spans of sessions from the binary: what a collector is told, and that a bad one harms nobody.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "../daemon/process.rs"]
mod process;
mod receiver;
#[path = "../events/serve.rs"]
mod serve;
#[path = "../wire/mod.rs"]
mod wire;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use reqwest::header::HeaderMap;
use rustix::process::Signal;
use serde_json::Value;
use turnd::events;
use turnd::stun::{Attribute, Method};

use process::{Daemon, Start, free_address};
use receiver::{Mood, Receiver, value};
use wire::{Client, Plane, USER, peer};

const LOST: &str = "turn_events_lost_total";
const TOKEN: &str = "MARKER-token-of-the-collector";

/// Waits until `look` finds something.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1200 {
        if let Some(found) = look() {
            return found;
        }
        thread::park_timeout(Duration::from_millis(50));
    }
    panic!("there never was {what}");
}

/// A server that has peers on this host and a collector at `url`, with `more` below `[events]`.
fn start(url: &str, more: &str) -> Start {
    Start::with(&format!(
        "[peers]\nallow = ['127.0.0.0/8']\n[events]\notlp = '{url}'\n{more}"
    ))
}

fn end(client: &mut Client) {
    let answer = client.request(Method::REFRESH, |writer| {
        writer.u32(Attribute::LIFETIME, 0);
    });
    assert_eq!(answer.code(), 0);
}

/// So many sessions, one after the other; they have ended when this returns.
fn sessions(server: SocketAddr, count: usize) {
    for _ in 0..count {
        let mut client = Client::udp(server);
        client.allocate();
        end(&mut client);
    }
}

/// An end that takes the two seconds of the last events; the rest is for a busy machine.
#[expect(clippy::disallowed_methods, reason = "this test has a stopwatch")]
fn assert_prompt(end: impl FnOnce()) {
    let asked = Instant::now();
    end();
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
}

/// A packet to a peer and back.
fn relays(server: SocketAddr) {
    let other = peer("127.0.0.2");
    let mut client = Client::udp(server);
    let relayed = client.allocate();
    assert_eq!(client.bind(0x4000, other.local_addr().unwrap()).code(), 0);
    client.send_channel(0x4000, b"still there");
    assert_eq!(wire::receive_from(&other).0, b"still there");
    other.send_to(b"so am I", relayed).unwrap();
    assert_eq!(client.receive_channel().1, b"so am I");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attribute(span: &Span, key: &str) -> String {
    value(&span.attributes, key).unwrap_or_else(|| panic!("no {key} in {span:?}"))
}

#[test]
fn a_session_is_a_span_that_says_what_its_last_line_says() {
    let receiver = Receiver::start(Mood::Take);
    let start = start(
        &format!("{}/", receiver.url()),
        "file = 'events.jsonl'\notlp_headers_file = 'headers'",
    );
    start.place.write(
        "headers",
        &format!("authorization: Bearer {TOKEN}\n\nx-scope-orgid:  calls \n"),
    );
    let mut daemon = start.ready();
    let other = peer("127.0.0.2");
    let mut client = Client::udp(daemon.udp);
    let relayed = client.allocate();
    assert_eq!(client.bind(0x4000, other.local_addr().unwrap()).code(), 0);
    for _ in 0..3 {
        client.send_channel(0x4000, &[7; 100]);
        wire::receive_from(&other);
    }
    other.send_to(&[8; 40], relayed).unwrap();
    client.receive_channel();
    assert!(
        receiver.spans().is_empty(),
        "nothing is told before the end"
    );
    end(&mut client);
    let span = until("a span", || receiver.spans().pop());
    let line = last_line(&daemon);
    assert_eq!(
        (span.name.as_str(), span.kind()),
        ("allocation", SpanKind::Server)
    );
    assert_eq!(line["session"], hex(&span.span_id));
    assert!(span.trace_id.len() == 16 && span.parent_span_id.is_empty());
    let wire::Link::Udp(socket) = &client.link else {
        unreachable!("a UDP client")
    };
    let from = socket.local_addr().unwrap();
    for (key, expected) in [
        ("client.address", "127.0.0.1".to_owned()),
        ("client.port", from.port().to_string()),
        ("server.address", "127.0.0.1".to_owned()),
        ("server.port", daemon.udp.port().to_string()),
        ("network.transport", "udp".to_owned()),
        ("user.id", USER.to_owned()),
        ("turn.session", hex(&span.span_id)),
        ("turn.transport", "udp".to_owned()),
        ("turn.relays", relayed.to_string()),
        ("turn.reason", "deleted".to_owned()),
        ("turn.to_peer.packets", "3".to_owned()),
        ("turn.to_peer.bytes", "300".to_owned()),
        ("turn.to_client.packets", "1".to_owned()),
        ("turn.to_client.bytes", "40".to_owned()),
    ] {
        assert_eq!(attribute(&span, key), expected, "{key}");
    }
    for key in ["turn.tenant", "error.type"] {
        assert_eq!(value(&span.attributes, key), None);
    }
    assert_eq!(span.status.as_ref().unwrap().code(), StatusCode::Unset);
    assert_dated(&span, &line);
    for headers in receiver.headers() {
        assert_eq!(headers["authorization"], format!("Bearer {TOKEN}"));
        assert_eq!(headers["x-scope-orgid"], "calls");
    }
    assert!(!daemon.all_said().contains(TOKEN));
    assert!(daemon.metric(LOST).abs() < 0.5);
}

/// The line of a session's end.
fn last_line(daemon: &Daemon) -> Value {
    let text = fs::read_to_string(daemon.place.0.join("events.jsonl")).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// A span ends when its line says, to the second, and is as long.
fn assert_dated(span: &Span, line: &Value) {
    assert_eq!(line["event"], "end");
    let (from, to) = (span.start_time_unix_nano, span.end_time_unix_nano);
    let ended = line["time"].as_u64().unwrap();
    assert!((to / 1_000_000_000).abs_diff(ended) <= 1, "{to} {ended}");
    assert!(from < to, "a session lasts, however short it is");
    assert_eq!(
        (to - from) / 1_000_000_000,
        line["seconds"].as_u64().unwrap()
    );
}

#[test]
fn spans_say_where_they_are_from_and_clients_may_stay_unknown() {
    let receiver = Receiver::start(Mood::Take);
    let mut start = start(&receiver.url(), "");
    // Who comes by TCP is a customer's user.
    start.configure(&format!(
        "[[tenants]]\nname = 'acme'\nlisten = ['tcp {}']\nusers = [{{ name = '{USER}', password_file = '{USER}' }}]\n\
         [events]\notlp = '{}'\nanonymize = true",
        start.udp,
        receiver.url()
    ));
    start.command.env(
        "OTEL_RESOURCE_ATTRIBUTES",
        "host.name=ams-1,service.namespace=calls",
    );
    let mut daemon = start.ready();
    sessions(daemon.udp, 3);
    let mut client = Client::tcp(daemon.udp);
    client.allocate();
    end(&mut client);
    until("every span", || (receiver.spans().len() == 4).then_some(()));
    for span in receiver.spans() {
        assert_eq!(attribute(&span, "client.address"), "127.0.0.0");
        assert_eq!(value(&span.attributes, "client.port"), None);
    }
    let spans = receiver.spans();
    let carriers: Vec<String> = spans
        .iter()
        .map(|span| attribute(span, "network.transport"))
        .collect();
    assert_eq!(carriers, ["udp", "udp", "udp", "tcp"]);
    let tenants = spans.iter();
    let tenants: Vec<Option<String>> = tenants
        .map(|span| value(&span.attributes, "turn.tenant"))
        .collect();
    assert_eq!(tenants, [None, None, None, Some("acme".to_owned())]);
    let ids: BTreeSet<_> = spans.iter().map(|span| &span.span_id).collect();
    let traces: BTreeSet<_> = spans.iter().map(|span| &span.trace_id).collect();
    assert_eq!((ids.len(), traces.len()), (4, 4));
    let instances: BTreeSet<String> = receiver
        .taken()
        .iter()
        .map(|part| {
            let says = |key| value(&part.resource.as_ref().unwrap().attributes, key).unwrap();
            assert_eq!(says("service.name"), "turnd");
            assert_eq!(says("service.version"), env!("CARGO_PKG_VERSION"));
            assert_eq!(
                (says("host.name"), says("service.namespace")),
                ("ams-1".into(), "calls".into())
            );
            assert_eq!(part.scope_spans[0].scope.as_ref().unwrap().name, "turnd");
            says("service.instance.id")
        })
        .collect();
    assert_eq!(instances.len(), 1, "a process is one instance");
    let instance = instances.first().unwrap();
    assert_eq!((instance.len(), &instance[14..15]), (36, "4"), "{instance}");
    assert!(!daemon.all_said().contains("lost"));
}

#[test]
fn the_end_of_the_server_is_an_error_of_the_calls_it_ends_and_is_told() {
    let receiver = Receiver::start(Mood::Take);
    let mut start = start(&receiver.url(), "");
    start.command.arg("--set").arg("server.drain_timeout=0s");
    let mut daemon = start.ready();
    let mut client = Client::udp(daemon.udp);
    client.allocate();
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().success());
    let [span] = &receiver.spans()[..] else {
        panic!("{:?}", receiver.spans())
    };
    assert_eq!(attribute(span, "turn.reason"), "server_stopped");
    assert_eq!(attribute(span, "error.type"), "server_stopped");
    let status = span.status.as_ref().unwrap();
    assert_eq!(
        (status.code(), status.message.as_str()),
        (StatusCode::Error, "server_stopped")
    );
}

#[test]
fn what_a_collector_refuses_is_counted_and_what_it_puts_off_comes_again() {
    let receiver = Receiver::start(Mood::Refuse);
    let mut daemon = start(&receiver.url(), "").ready();
    sessions(daemon.udp, 2);
    until("a loss", || {
        ((daemon.metric(LOST) - 2.0).abs() < 0.5).then_some(())
    });
    daemon.log("it answers 400");
    let asked = receiver.headers().len();
    assert!(
        asked <= 2,
        "a refusal is for good, but it was asked {asked} times"
    );
    receiver.feel(Mood::Busy);
    sessions(daemon.udp, 3);
    daemon.log("it answers 503");
    receiver.feel(Mood::Take);
    until("the spans that were put off", || {
        (receiver.spans().len() == 3).then_some(())
    });
    daemon.until(LOST, 2.0);
    receiver.feel(Mood::Reject);
    sessions(daemon.udp, 1);
    until("a third loss", || {
        ((daemon.metric(LOST) - 3.0).abs() < 0.5).then_some(())
    });
    daemon.log("one is too many");
    assert_eq!(receiver.spans().len(), 3);
}

#[test]
fn nobody_waits_for_a_collector_that_is_gone() {
    let mut daemon = start(
        &format!("http://{}", free_address()),
        "file = 'events.jsonl'",
    )
    .ready();
    sessions(daemon.udp, 5);
    daemon.log("does not take them");
    relays(daemon.udp);
    assert!(
        !fs::read_to_string(daemon.place.0.join("events.jsonl"))
            .unwrap()
            .is_empty()
    );
    until("what is lost", || {
        ((daemon.metric(LOST) - 5.0).abs() < 0.5).then_some(())
    });
    let told = daemon.log("spans of sessions are lost");
    assert_eq!(told["level"], "WARN", "{told}");
}

#[test]
fn nobody_waits_for_a_collector_that_hangs() {
    let receiver = Receiver::start(Mood::Hang);
    let mut start = start(&receiver.url(), "");
    start.command.arg("--set").arg("server.drain_timeout=0s");
    let mut daemon = start.ready();
    sessions(daemon.udp, 5);
    until("somebody who waits", || {
        (!receiver.headers().is_empty()).then_some(())
    });
    relays(daemon.udp);
    assert_prompt(|| {
        daemon.signal(Signal::TERM);
        assert!(daemon.ended().success());
    });
    let lost: u64 = daemon
        .said
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| {
            line["message"]
                .as_str()
                .is_some_and(|text| text.contains("are lost"))
        })
        .map(|line| line["count"].as_u64().unwrap())
        .sum();
    assert_eq!(lost, 6, "{}", daemon.said.join("\n"));
}

#[test]
fn what_waits_is_bounded_and_every_span_is_posted_or_counted() {
    const SESSIONS: u64 = 5000;
    // Those that wait, and those of a request.
    const MOST: u64 = 4096 + 512;
    let receiver = Receiver::start(Mood::Hang);
    let plane = Plane::start(1, wire::loopback());
    let lost = Arc::new(AtomicU64::new(0));
    let settings = events::Settings {
        sink: None,
        interim: None,
        anonymize: false,
        webhook: None,
        otlp: Some(events::Otlp {
            url: format!("{}/v1/traces", receiver.url()),
            headers: HeaderMap::new(),
        }),
    };
    let events = events::start(&settings, &plane.handle, &lost).unwrap();
    let mut client = Client::udp(plane.udp);
    for _ in 0..SESSIONS {
        client.allocate();
        end(&mut client);
    }
    until("a queue that is full", || {
        (lost.load(Ordering::Relaxed) >= SESSIONS - MOST).then_some(())
    });
    plane.handle.stop();
    assert_prompt(|| events.finish());
    assert_eq!(lost.load(Ordering::Relaxed), SESSIONS);
    assert!(receiver.spans().is_empty());
}
