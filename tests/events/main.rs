//! Session events from the binary: lines that add up, and a webhook that gets every event whatever happens to it.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "../daemon/process.rs"]
mod process;
mod receiver;
mod serve;
#[path = "../wire/mod.rs"]
mod wire;

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use turnd::stun::{Attribute, Method};

use process::{Daemon, Place, Start};
use receiver::{Mood, Receiver};
use wire::{Client, peer};

const OPEN: &str = "[peers]\nallow = ['127.0.0.0/8']\n";

/// Waits until `look` finds something.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..600 {
        if let Some(found) = look() {
            return found;
        }
        thread::park_timeout(Duration::from_millis(50));
    }
    panic!("there never was {what}");
}

fn lines(daemon: &Daemon) -> Vec<Value> {
    let text = fs::read_to_string(daemon.place.0.join("events.jsonl")).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn end(client: &mut Client) {
    let answer = client.request(Method::REFRESH, |writer| {
        writer.u32(Attribute::LIFETIME, 0);
    });
    assert_eq!(answer.code(), 0);
}

#[test]
fn lines_of_a_file_add_up_to_what_the_client_sent_and_got() {
    let more = format!("{OPEN}[events]\nfile = 'events.jsonl'\ninterim = '1s'");
    let daemon = Start::with(&more).ready();
    let other = peer("127.0.0.2");
    let mut client = Client::udp(daemon.udp);
    let relayed = client.allocate();
    assert_eq!(client.bind(0x4000, other.local_addr().unwrap()).code(), 0);
    let (mut sent, mut got) = (0, 0);
    for number in 0..50 {
        client.send_channel(0x4000, &vec![7; 100 + number]);
        let (bytes, _) = wire::receive_from(&other);
        sent += bytes.len();
        if number % 2 == 0 {
            other.send_to(&vec![8; 10 + number], relayed).unwrap();
            got += client.receive_channel().1.len();
        }
    }
    let interim = until("an interim line with all of it", || {
        lines(&daemon)
            .into_iter()
            .find(|line| line["event"] == "interim" && line["toPeer"]["bytes"] == sent)
    });
    end(&mut client);
    let last = until("a last line", || {
        lines(&daemon)
            .into_iter()
            .find(|line| line["event"] == "end")
    });
    let first = &lines(&daemon)[0];
    let Client { link, .. } = &client;
    let wire::Link::Udp(socket) = link else {
        unreachable!("a UDP client")
    };
    for line in [first, &interim, &last] {
        assert_eq!(line["session"], first["session"]);
        assert_eq!(line["user"], wire::USER);
        assert_eq!(line["transport"], "udp");
        assert_eq!(line["client"], socket.local_addr().unwrap().to_string());
        assert_eq!(line["relays"][0], relayed.to_string());
        assert!(line["time"].as_u64().unwrap() > 1_700_000_000);
    }
    assert_eq!(
        (&first["event"], &first["lifetime"]),
        (&"start".into(), &600.into())
    );
    for (line, reason) in [(&interim, Value::Null), (&last, "deleted".into())] {
        assert_eq!(line["toPeer"]["packets"], 50);
        assert_eq!(line["toPeer"]["bytes"], sent);
        assert_eq!(line["toClient"]["packets"], 25);
        assert_eq!(line["toClient"]["bytes"], got);
        assert_eq!(line["reason"], reason);
    }
    let all = lines(&daemon);
    let ids: BTreeSet<&str> = all
        .iter()
        .map(|line| line["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), all.len(), "an id is an event's own");
    assert!((daemon.metric("turn_events_lost_total")).abs() < 0.5);
}

#[test]
fn sessions_that_the_end_of_the_server_ends_are_told_of_and_clients_may_stay_unknown() {
    let more = "[events]\nfile = 'stdout'\nanonymize = true";
    let mut start = Start::with(more);
    start.command.arg("--set").arg("server.drain_timeout=0s");
    let mut daemon = start.ready();
    let mut client = Client::udp(daemon.udp);
    client.allocate();
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().success());
    let events: Vec<Value> = daemon
        .said
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line.get("event").is_some())
        .collect();
    let [start, end] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(
        (&start["event"], &end["event"]),
        (&"start".into(), &"end".into())
    );
    assert_eq!(end["reason"], "server_stopped");
    assert_eq!(start["client"], "127.0.0.0:0");
}

fn webhook(url: &str) -> String {
    format!(
        "{OPEN}[events.webhook]\nurl = '{url}'\nsecret_file = 'webhook'\nspool = 'spool'\ntimeout = '1s'\nretry = '100ms'"
    )
}

fn start(receiver: &Receiver) -> Start {
    let start = Start::with("");
    start.place.write("webhook", receiver::SECRET);
    start.configure(&webhook(&receiver.url()));
    start
}

/// So many sessions, one after the other; they have ended when this returns.
fn sessions(server: SocketAddr, count: usize) {
    for _ in 0..count {
        let mut client = Client::udp(server);
        client.allocate();
        end(&mut client);
    }
}

/// Every session once: each event under an id of its own, start and end of each session.
fn whole(events: &[Value]) -> usize {
    let ids: BTreeSet<&str> = events
        .iter()
        .map(|event| event["id"].as_str().unwrap())
        .collect();
    let of = |kind: &str| -> BTreeSet<&str> {
        let ends = |id: &&str| id.ends_with(kind);
        ids.iter()
            .copied()
            .filter(ends)
            .map(|id| &id[..16])
            .collect()
    };
    of("-start").intersection(&of("-end")).count()
}

#[test]
fn a_webhook_that_fails_hangs_and_comes_back_gets_every_event_signed() {
    let receiver = Receiver::start(Mood::Refuse);
    let mut daemon = start(&receiver).ready();
    sessions(daemon.udp, 5);
    daemon.log("does not take them");
    receiver.feel(Mood::Hang);
    sessions(daemon.udp, 5);
    until("somebody who waits for an answer", || {
        (receiver.hung() > 1).then_some(())
    });
    // The relay waits for nobody meanwhile.
    let other = peer("127.0.0.2");
    let mut client = Client::udp(daemon.udp);
    client.allocate();
    assert_eq!(client.bind(0x4000, other.local_addr().unwrap()).code(), 0);
    client.send_channel(0x4000, b"still there");
    assert_eq!(wire::receive_from(&other).0, b"still there");
    end(&mut client);
    receiver.feel(Mood::Take);
    until("every event", || {
        (whole(&receiver.taken()) == 11).then_some(())
    });
    assert_eq!(receiver.forged(), 0, "every request is signed");
    until("an empty spool", || {
        let spool = fs::read_dir(daemon.place.0.join("spool")).unwrap();
        (spool.count() == 0).then_some(())
    });
    assert!((daemon.metric("turn_events_lost_total")).abs() < 0.5);
    assert!(!daemon.all_said().contains(receiver::SECRET));
}

#[test]
fn what_waits_survives_a_crash() {
    let receiver = Receiver::start(Mood::Refuse);
    let mut daemon = start(&receiver).ready();
    sessions(daemon.udp, 20);
    until("what waits", || {
        let spool = fs::read_dir(daemon.place.0.join("spool")).unwrap();
        let text: String = spool
            .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
            .collect();
        (text.lines().count() == 40).then_some(())
    });
    daemon.signal(Signal::KILL);
    assert!(!daemon.ended().success());
    assert_eq!(whole(&receiver.taken()), 0);
    receiver.feel(Mood::Take);
    let place = std::mem::replace(&mut daemon.place, Place::new());
    fs::remove_file(place.0.join("notify")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnd"));
    command.arg("--config").arg(place.0.join("turnd.toml"));
    let again = Start {
        place,
        udp: daemon.udp,
        metrics: daemon.metrics,
        command,
    };
    let _daemon = again.ready();
    until("every event", || {
        (whole(&receiver.taken()) == 20).then_some(())
    });
    assert_eq!(receiver.forged(), 0);
}

#[test]
fn the_end_waits_for_no_name_server() {
    let [.., high, low] = std::process::id().to_be_bytes();
    let address = format!("127.{high}.{low}.53");
    let silent = match UdpSocket::bind((&*address, 53)) {
        Ok(silent) => silent,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            assert!(
                std::env::var_os("CI").is_none(),
                "only root can be a name server"
            );
            return;
        }
        Err(error) => panic!("{address}: {error}"),
    };
    silent.set_read_timeout(Some(wire::PATIENCE)).unwrap();
    let mut start = Start::with("");
    start.place.write("webhook", receiver::SECRET);
    start.configure(&webhook("https://app.example.org/turn-events"));
    let names = format!("nameserver {address}\noptions timeout:30 attempts:1\n");
    let names = start.place.write("resolv.conf", &names);
    let mut inside = Command::new("unshare");
    inside
        .args(["--mount", "sh", "-c"])
        .arg("mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"")
        .arg(names)
        .arg(start.command.get_program())
        .args(start.command.get_args())
        .args(["--set", "server.drain_timeout=0s"]);
    start.command = inside;
    let mut daemon = start.ready();
    sessions(daemon.udp, 1);
    silent
        .recv(&mut [0; 512])
        .expect("somebody asks for a name");
    daemon.signal(Signal::TERM);
    // Patient for less than a name server is.
    assert!(daemon.ended().success());
}

#[test]
fn an_event_that_is_refused_for_good_holds_up_no_other() {
    let receiver = Receiver::start(Mood::SendAway);
    let mut daemon = start(&receiver).ready();
    sessions(daemon.udp, 5);
    until("some tries", || (receiver.hung() > 3).then_some(()));
    let aside = daemon.place.0.join("spool/refused.jsonl");
    assert!(!aside.exists(), "that was not about the events");
    receiver.feel(Mood::TakeEnds);
    sessions(daemon.udp, 5);
    until("every end", || (receiver.taken().len() == 10).then_some(()));
    let is_end = |event: &Value| event["event"] == "end";
    assert!(receiver.taken().iter().all(is_end));
    until("every start", || {
        let refused = fs::read_to_string(&aside).unwrap_or_default();
        let starts = refused.lines().map(|line| {
            let event: Value = serde_json::from_str(line).unwrap();
            assert_eq!(event["event"], "start");
        });
        (starts.count() == 10).then_some(())
    });
    daemon.until("turn_events_lost_total", 10.0);
    daemon.log("refuses a session event");
    receiver.feel(Mood::Take);
    sessions(daemon.udp, 1);
    until("what came later", || {
        (receiver.taken().len() == 12).then_some(())
    });
}

#[test]
fn a_file_that_is_moved_away_makes_room_for_a_new_one() {
    let daemon = Start::with("[events]\nfile = 'events.jsonl'").ready();
    sessions(daemon.udp, 1);
    let both = || (lines(&daemon).len() == 2).then_some(());
    until("two lines", both);
    let file = daemon.place.0.join("events.jsonl");
    fs::rename(&file, daemon.place.0.join("events.jsonl.1")).unwrap();
    sessions(daemon.udp, 1);
    until("two other lines", both);
    let old = fs::read_to_string(daemon.place.0.join("events.jsonl.1")).unwrap();
    assert_eq!(old.lines().count(), 2);
}

#[test]
fn a_reader_that_has_stopped_reading_does_not_keep_the_server() {
    let mut start = Start::with("[events]\nfile = 'pipe'");
    start.command.arg("--set").arg("server.drain_timeout=0s");
    let pipe = start.place.0.join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    // Whoever opens both ends waits for nobody.
    let mut options = fs::OpenOptions::new();
    let options = options
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK);
    let mut reader = options.open(&pipe).unwrap();
    while reader.write_all(&[b'\n'; 512]).is_ok() {}
    let mut daemon = start.ready();
    sessions(daemon.udp, 1);
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().success());
    assert!(daemon.all_said().contains("has stopped reading"));
    drop(reader);
}
