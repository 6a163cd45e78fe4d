//! What the operator changes: draining, the configuration, the log.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;
use std::thread;

use rustix::process::Signal;
use turnd::stun::{Attribute, Method, Writer};

use crate::process::{Daemon, Start, free_address};
use crate::seat::{ask, ask_at, ask_with, command, run, socket};
use crate::wire::{Client, peer};

const OPEN: &str = "[peers]\nallow = ['127.0.0.0/8']";

fn give_back(client: &mut Client) {
    let gone = client.request(Method::REFRESH, |writer| {
        writer.u32(Attribute::LIFETIME, 0);
    });
    assert_eq!(gone.code(), 0);
}

fn refused(daemon: &Daemon) -> u16 {
    let mut late = Client::udp(daemon.udp);
    let answer = late.request(Method::ALLOCATE, |writer| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
    });
    answer.code()
}

#[test]
fn a_drain_by_wish_can_be_waited_for_and_undone() {
    let mut daemon = Start::with("").ready();
    let mut client = Client::udp(daemon.udp);
    client.allocate();
    let begun = run(&daemon, &["drain"]);
    assert_eq!(
        begun.out, "no new calls are taken; 1 call is left\n",
        "{}",
        begun.err
    );
    let progress = ask(&daemon, "GET", "/v1/drain").good();
    assert_eq!(
        (&progress["on"], &progress["left"]),
        (&true.into(), &1.into())
    );
    assert!(
        progress["since"].as_i64().is_some() && progress["until"].is_null(),
        "{progress}"
    );
    assert_eq!(refused(&daemon), 508);
    assert_eq!(daemon.get("/readyz").0, 503);
    assert!(run(&daemon, &["status"]).out.contains("draining for"));
    // A reload does not let anybody in.
    assert_eq!(run(&daemon, &["reload"]).code, 0);
    assert_eq!(refused(&daemon), 508);

    let undone = run(&daemon, &["drain", "--undo"]);
    assert_eq!(
        (undone.code, undone.out.as_str()),
        (0, "new calls are taken again\n")
    );
    assert_eq!(daemon.get("/readyz").0, 200);
    Client::udp(daemon.udp).allocate();
    assert_eq!(ask(&daemon, "GET", "/v1/drain").good()["on"], false);

    assert_eq!(
        ask(&daemon, "DELETE", "/v1/sessions?client=127.0.0.1").good()["ended"],
        2
    );
    let mut client = Client::udp(daemon.udp);
    client.allocate();
    let mut wait = command(&daemon, &["drain", "--wait"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(wait.stderr.take().unwrap()).lines();
    assert_eq!(told.next().unwrap().unwrap(), "1 call is left");
    give_back(&mut client);
    assert_eq!(told.next().unwrap().unwrap(), "0 calls are left");
    assert!(wait.wait().unwrap().success());
    assert!(daemon.lives(), "draining ends no process");
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().success());
}

#[test]
fn patience_with_a_drain_has_an_end() {
    let daemon = Start::with("").ready();
    let mut client = Client::udp(daemon.udp);
    client.allocate();
    let ended = run(&daemon, &["drain", "--timeout", "1s"]);
    assert_eq!((ended.code, ended.out.as_str()), (1, ""));
    assert!(
        ended.err.contains("1 call is left") && ended.err.contains("= help: "),
        "{}",
        ended.err
    );
    assert_eq!(
        client.request(Method::REFRESH, |_| {}).code(),
        0,
        "it goes on"
    );
}

#[test]
fn a_server_that_ends_says_until_when_and_takes_nothing_back() {
    let mut daemon = Start::with("").ready();
    let mut client = Client::udp(daemon.udp);
    client.allocate();
    daemon.signal(Signal::TERM);
    daemon.log("draining");
    let progress = ask(&daemon, "GET", "/v1/drain").good();
    let (since, until) = (
        progress["since"].as_i64().unwrap(),
        progress["until"].as_i64().unwrap(),
    );
    assert_eq!(until - since, 20, "{progress}");
    assert_eq!(
        ask_with(&daemon, "POST", "/v1/drain", r#"{"on":false}"#).code,
        409
    );
    assert_eq!(ask_with(&daemon, "POST", "/v1/reload", "").code, 409);
    assert_eq!(ask_with(&daemon, "POST", "/v1/drain", "").good()["left"], 1);
    give_back(&mut client);
    assert!(daemon.ended().success());
}

#[test]
fn a_rehearsed_reload_names_keys_and_calls_and_changes_nothing() {
    let mut daemon = Start::with(OPEN).ready();
    let mut client = Client::udp(daemon.udp);
    client.allocate();
    let peer = peer("127.0.0.2");
    assert_eq!(client.permit(peer.local_addr().unwrap()).code(), 0);
    daemon.configure(&format!(
        "[limits]\nper_user = 3\n{OPEN}\ndeny = ['127.0.0.2/32']\n[metrics2]"
    ));
    let bad = run(&daemon, &["reload", "--dry-run"]);
    assert_eq!((bad.code, bad.out.as_str()), (78, ""));
    assert!(
        bad.err.contains("unknown table `metrics2`") && bad.err.contains("turnd.toml:"),
        "{}",
        bad.err
    );
    assert_eq!(
        daemon.metric("turn_config_stale") as u64,
        0,
        "it was a rehearsal"
    );

    daemon.configure(&format!(
        "[limits]\nper_user = 3\n{OPEN}\ndeny = ['127.0.0.2/32']"
    ));
    let told = ask_with(&daemon, "POST", "/v1/reload", r#"{"dryRun":true}"#).good();
    assert_eq!(told["applied"], false);
    let changes = told["changes"].as_array().unwrap();
    let change = |key: &str| {
        let found = changes.iter().find(|change| change["key"] == key);
        found.unwrap_or_else(|| panic!("{key} is not in {told}"))
    };
    assert_eq!(changes.len(), 2, "{told}");
    let user = change("limits.per_user");
    assert_eq!(
        (&user["old"], &user["new"], &user["when"]),
        (&"16".into(), &"3".into(), &"now".into())
    );
    assert_eq!(change("peers.deny")["new"], "[\"127.0.0.2/32\"]");
    assert_eq!(told["sessions"]["losingPeers"], 1);
    assert_eq!(told["sessions"]["named"][0]["peers"][0], "127.0.0.2");
    assert_eq!(
        daemon.metric("turn_permissions") as u64,
        1,
        "it was a rehearsal"
    );

    let done = run(&daemon, &["reload"]);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    for part in [
        "limits.per_user",
        "- 16",
        "+ 3",
        "1 call: lost peers",
        "alice",
        "127.0.0.2",
    ] {
        assert!(done.out.contains(part), "{part}\n{}", done.out);
    }
    daemon.log("configuration reloaded");
    daemon.until("turn_permissions", 0.0);
    let again = run(&daemon, &["reload"]);
    let first = again.out.lines().next().unwrap();
    assert_eq!(
        first,
        "the configuration was read again; nothing has changed"
    );
}

#[test]
fn a_reload_says_what_waits_and_who_can_log_in_no_more() {
    let start = Start::with("");
    let text = std::fs::read_to_string(start.place.0.join("turnd.toml")).unwrap();
    let daemon = start.ready();
    Client::udp(daemon.udp).allocate();
    let (users, rest) = (text.find("users = "), text.find("[[listen]]").unwrap());
    let without = format!("{}{}", &text[..users.unwrap()], &text[rest..]);
    daemon
        .place
        .write("turnd.toml", &without.replace("40000-40999", "40000-40998"));
    let told = ask_with(&daemon, "POST", "/v1/reload", r#"{"dryRun":true}"#).good();
    assert_eq!(told["sessions"]["expiring"], 1, "{told}");
    assert_eq!(told["sessions"]["named"][0]["user"], "alice");
    let changes = told["changes"].as_array().unwrap();
    let ports = changes
        .iter()
        .find(|change| change["key"] == "relay.ports")
        .unwrap();
    assert_eq!(ports["when"], "restart");
    let shown = run(&daemon, &["reload", "--dry-run"]);
    assert!(
        shown.out.contains("* relay.ports") && shown.out.contains("waits until"),
        "{}",
        shown.out
    );
    // It still waits after the reload, and what was changed back does not.
    assert_eq!(run(&daemon, &["reload"]).code, 0);
    assert!(run(&daemon, &["reload"]).out.contains("* relay.ports"));
    daemon.place.write("turnd.toml", &text);
    let back = run(&daemon, &["reload"]).out;
    assert!(!back.contains("relay.ports"), "{back}");
}

/// Listeners that another configuration does not name any more are there until the server starts anew, and so is what they
/// are: the door of a tenant, one for SHA-256 alone.
#[test]
fn listeners_stay_what_they_are_until_a_restart() {
    let [door, strict] = [free_address(), free_address()];
    let with = |door: SocketAddr, strict: SocketAddr| {
        format!(
            "[[listen]]\naddress = '{door}'\n[[listen]]\naddress = '{strict}'\npassword_algorithms = ['sha256']\n\
             [[tenants]]\nname = 'acme'\nlisten = ['udp {door}']\nusers = [{{ name = 'bob', password_file = 'alice' }}]"
        )
    };
    let daemon = Start::with(&with(door, strict)).ready();
    let wanted = |writer: &mut Writer<'_>| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
    };
    let code = |at, name: &str| {
        let mut client = Client::udp(at).named(name);
        client.request(Method::ALLOCATE, wanted).code()
    };
    let all = || {
        [
            code(door, "bob"),
            code(door, "alice"),
            code(strict, "alice"),
        ]
    };
    assert_eq!(all(), [0, 401, 400]);
    daemon.configure(&with(free_address(), free_address()));
    let told = run(&daemon, &["reload"]).out;
    assert!(told.contains("* listen[2].address"), "{told}");
    assert_eq!(all(), [0, 401, 400]);
    let status = ask(&daemon, "GET", "/v1/status").good();
    let listening = status["listeners"].to_string();
    assert!(
        listening.contains(&door.to_string()) && listening.contains(&strict.to_string()),
        "{listening}"
    );
}

#[test]
fn another_password_is_noticed_and_not_shown() {
    let mut daemon = Start::with("").ready();
    Client::udp(daemon.udp).allocate();
    daemon
        .place
        .write("alice", "MARKER another long and winding password");
    daemon
        .place
        .write("secret", "MARKER-another-another-another");
    let told = run(&daemon, &["reload"]);
    assert!(
        told.out
            .contains("  auth.users[0].password_file\n    what is in the file has changed\n")
            && told.out.contains("  auth.secrets[0].file\n")
            && told.out.contains("1 call: cannot be refreshed"),
        "{}",
        told.out
    );
    assert!(!told.out.contains("MARKER") && !daemon.all_said().contains("MARKER"));
}

#[test]
fn a_bad_reload_is_told_and_changes_nothing() {
    let mut daemon = Start::with("").ready();
    daemon.configure("[limits]\nper_usr = 3");
    let bad = ask_with(&daemon, "POST", "/v1/reload", "");
    assert_eq!(bad.code, 422);
    let problem = bad.problem();
    assert_eq!(problem["errors"][0]["remedy"], "did you mean `per_user`?");
    assert!(
        problem["errors"][0]["place"]
            .as_str()
            .unwrap()
            .contains("turnd.toml:")
    );
    daemon.log("configuration not reloaded");
    assert_eq!(daemon.metric("turn_config_stale") as u64, 1);
    assert!(
        run(&daemon, &["status"])
            .out
            .contains("configuration file is bad")
    );
}

#[test]
fn what_is_logged_can_be_changed() {
    let mut daemon = Start::with("[log]\nlevel = 'warn'").ready();
    assert_eq!(run(&daemon, &["log-level"]).out, "warn\n");
    let wrong = run(&daemon, &["log-level", "loud"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("`loud` is not a level"), "{}", wrong.err);
    assert_eq!(run(&daemon, &["log-level", "debug"]).out, "debug\n");
    Client::udp(daemon.udp).allocate();
    assert_eq!(daemon.log("allocated")["level"], "DEBUG");
    assert_eq!(run(&daemon, &["log-level"]).out, "debug\n");
    // The configuration has the last word.
    assert_eq!(run(&daemon, &["reload"]).code, 0);
    assert_eq!(run(&daemon, &["log-level"]).out, "warn\n");
}

#[test]
fn many_who_ask_at_once_are_all_answered() {
    let daemon = Start::with("").ready();
    let mut client = Client::udp(daemon.udp);
    client.allocate();
    thread::scope(|scope| {
        let asked: Vec<_> = (0..100)
            .map(|number| {
                let path = ["/v1/status", "/v1/sessions?sort=rate", "/v1/drain"][number % 3];
                let socket = socket(&daemon);
                scope.spawn(move || ask_at(&socket, "GET", path, "").code)
            })
            .collect();
        for answer in asked {
            assert_eq!(answer.join().unwrap(), 200);
        }
    });
    assert_eq!(client.request(Method::REFRESH, |_| {}).code(), 0);
}
