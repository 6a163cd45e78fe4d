//! The binary: what operators do, what is there after a restart, and what is said of a database that is no good.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::Signal;
use turnd::stun::{Attribute, Method};
use turnd::turn::{SecretAlgorithm, SharedSecret};

use crate::process::{Daemon, SECRET, Start};
use crate::wire::{Client, PASSWORD, USER};

const ON: &str = "[revocation]\nenabled = true\n";

/// A server that knows of revocations, with a secret that vouches for claims.
fn start(more: &str) -> Start {
    let mut start = Start::with(&format!("{ON}{more}"));
    let secret = start.place.0.join("secret");
    start.command.arg("--set").arg(format!(
        "auth.secrets=[{{ id = 'k', file = '{}', claims = true }}]",
        secret.display()
    ));
    start
}

fn unix() -> u64 {
    u64::try_from(turnd::config::unix_now()).unwrap()
}

/// A client with a credential of this name, of a minute ago.
fn client(daemon: &Daemon, rest: &str) -> Client {
    let secret = SharedSecret::new("k", SECRET.as_bytes(), SecretAlgorithm::Sha1);
    let name = format!("{}:{rest}", unix() + 3540);
    Client::udp(daemon.udp).with_credentials(&name, &secret.password(name.as_bytes()))
}

fn allocate(client: &mut Client) -> u16 {
    let answer = client.request(Method::ALLOCATE, |writer| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
    });
    answer.code()
}

/// `turnd revoke` with the configuration of this server.
fn revoke(place: &Path, options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_turnd"))
        .arg("revoke")
        .args(options)
        .arg("--config")
        .arg(place.join("turnd.toml"))
        .env("STATE_DIRECTORY", place.join("state"))
        .output()
        .unwrap()
}

/// The same without the server's admin socket: it writes the database.
fn revoke_directly(place: &Path, options: &[&str]) -> Output {
    revoke(place, &[options, &["--set", "admin.socket=off"]].concat())
}

fn done(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Whether an allocation is still there.
fn lives(client: &mut Client) -> bool {
    let peer = "127.0.0.2:9".parse().unwrap();
    match client.permit(peer).code() {
        // Peers on loopback are forbidden here, but that is found out last.
        0 | 403 => true,
        437 => false,
        code => panic!("{code}"),
    }
}

/// Waits until an allocation has ended.
fn until_ended(client: &mut Client) {
    let ended = (0..200).any(|_| {
        let ended = !lives(client);
        if !ended {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        ended
    });
    assert!(ended);
}

#[test]
fn the_command_ends_the_calls_it_means_and_no_others() {
    let mut daemon = start("").ready();
    let mut clients = [
        "k~acme~ann~t3600~jone",
        "k~acme~ann~t3600~jtwo",
        "k~acme~8_3abob~t3600~jthree",
        "k~other~cid~t3600~jfour",
        "dot",
    ]
    .map(|name| client(&daemon, name));
    for client in &mut clients {
        assert_eq!(allocate(client), 0);
    }
    let mut alice = Client::udp(daemon.udp).with_credentials(USER, PASSWORD);
    assert_eq!(allocate(&mut alice), 0);
    let place = daemon.place.0.clone();
    for (options, reached) in [
        (&["--credential", "two", "--tenant", "acme"][..], 1),
        (&["--user", "8:bob", "--tenant", "acme"], 2),
        (&["--user", "dot"], 4),
    ] {
        done(&revoke_directly(&place, options));
        until_ended(&mut clients[reached]);
        assert!(
            lives(&mut clients[0]) && lives(&mut clients[3]),
            "{options:?}"
        );
        let reason = daemon.log("allocation ended")["reason"].clone();
        assert_eq!(reason, "revoked");
    }
    let told = done(&revoke(&place, &["--tenant", "acme"]));
    assert!(told.contains("ended 1 call"), "{told}");
    assert!(!lives(&mut clients[0]), "it has ended when the command has");
    assert!(lives(&mut clients[3]) && lives(&mut alice));
    assert_eq!(allocate(&mut client(&daemon, "k~acme~new~t3600")), 401);
    assert_eq!(allocate(&mut client(&daemon, "k~other~new~t3600")), 0);
    daemon.until("turn_revocations", 4.0);
    let refused = daemon.metric("turn_auth_failures_total{reason=\"revoked\"}");
    assert!(refused >= 1.0);
    let list = done(&revoke(&place, &["--list"]));
    assert_eq!(list, done(&revoke_directly(&place, &["--list"])));
    for line in [
        "--credential two --tenant acme (until",
        "--user 8:bob --tenant acme --not-before",
        "--user dot --not-before",
        "--tenant acme --not-before",
    ] {
        assert!(list.contains(line), "{list}");
    }
    let pardon = &["--tenant", "acme", "--pardon"];
    assert_eq!(done(&revoke(&place, pardon)), "pardoned\n");
    let again = done(&revoke_directly(&place, pardon));
    assert_eq!(again, "there was nothing to pardon\n");
    daemon.until("turn_revocations", 3.0);
    assert_eq!(allocate(&mut client(&daemon, "k~acme~new~t3600")), 0);
    let database = place.join("state/revocations.sqlite");
    let mode = fs::metadata(database).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_restart_and_a_second_server_know_what_is_revoked() {
    let first = start("").ready();
    let mut ann = client(&first, "k~acme~ann~t3600");
    assert_eq!(allocate(&mut ann), 0);
    let database = first.place.0.join("state/revocations.sqlite");
    // The second one has another state directory, and the same database.
    let more = format!("database = '{}'\n", database.display());
    let second = start(&more).ready();
    let mut ann_there = client(&second, "k~acme~ann~t3600");
    assert_eq!(allocate(&mut ann_there), 0);
    done(&revoke(
        &first.place.0,
        &["--user", "ann", "--tenant", "acme"],
    ));
    until_ended(&mut ann);
    until_ended(&mut ann_there);
    drop(second);
    let third = start(&more).ready();
    assert_eq!(third.metric("turn_revocations") as u64, 1);
    assert_eq!(allocate(&mut client(&third, "k~acme~ann~t3600")), 401);
    assert_eq!(allocate(&mut client(&third, "k~acme~bob~t3600")), 0);
}

#[test]
fn calls_can_be_kept() {
    let mut daemon = start("").ready();
    let mut ann = client(&daemon, "k~acme~ann~t3600");
    assert_eq!(allocate(&mut ann), 0);
    let place = daemon.place.0.clone();
    done(&revoke(
        &place,
        &["--user", "ann", "--tenant", "acme", "--keep-calls"],
    ));
    daemon.until("turn_revocations", 1.0);
    assert!(lives(&mut ann));
    assert_eq!(ann.request(Method::REFRESH, |_| {}).code(), 401);
    daemon.signal(Signal::TERM);
    daemon.log("draining");
}

#[test]
fn a_broken_database_is_told_at_the_start() {
    let start = start("database = 'revocations.sqlite'\n");
    start
        .place
        .write("revocations.sqlite", &"this is no database ".repeat(200));
    let mut daemon = start.go();
    assert_eq!(daemon.ended().code(), Some(1));
    let said = daemon.all_said();
    assert!(said.contains("revocations.sqlite is damaged"), "{said}");
    assert!(
        said.contains("= help: bring it back from a backup"),
        "{said}"
    );
}

#[test]
fn whoever_asks_for_nothing_can_revoke() {
    let daemon = Start::with("").ready();
    let database = daemon.place.0.join("state/revocations.sqlite");
    done(&revoke(&daemon.place.0, &["--user", "ann"]));
    daemon.until("turn_revocations", 1.0);
    assert_eq!(
        fs::metadata(database).unwrap().permissions().mode() & 0o7777,
        0o600
    );
}

/// As in a container that may write nowhere: calls are relayed all the same, and it is told.
#[test]
fn where_nothing_can_be_kept_calls_go_on() {
    let start = Start::with("[admin]\nsocket = 'admin.sock'\n");
    // No directory can be made below a file, not even by root.
    start.place.write("state", "");
    let mut daemon = start.go();
    daemon.log("credentials cannot be revoked");
    daemon.log("ready");
    assert_eq!(allocate(&mut client(&daemon, "ann")), 0);
    let said = String::from_utf8(revoke(&daemon.place.0, &["--user", "ann"]).stderr).unwrap();
    assert!(said.contains("enabled = true"), "{said}");
}

/// What has been revoked is not forgotten because nobody asked for it to be kept.
#[test]
fn a_broken_database_that_nobody_asked_for_is_told_as_well() {
    let start = Start::with("");
    fs::create_dir(start.place.0.join("state")).unwrap();
    start.place.write(
        "state/revocations.sqlite",
        &"this is no database ".repeat(200),
    );
    let mut daemon = start.go();
    assert_eq!(daemon.ended().code(), Some(1));
    let said = daemon.all_said();
    assert!(said.contains("revocations.sqlite is damaged"), "{said}");
}

#[test]
fn the_command_says_what_it_lacks() {
    let daemon = Start::with("[revocation]\nenabled = false\n").ready();
    let off = revoke(&daemon.place.0, &["--user", "ann"]);
    let said = String::from_utf8_lossy(&off.stderr).into_owned();
    assert_eq!(off.status.code(), Some(1));
    assert!(said.contains("enabled = true"), "{said}");
    daemon.configure("");
    let absent = revoke_directly(&daemon.place.0, &["--user", "ann"]);
    let said = String::from_utf8_lossy(&absent.stderr).into_owned();
    assert_eq!(absent.status.code(), Some(1));
    assert!(said.contains("start the server once"), "{said}");
    for unclear in [
        &["--user", "ann", "--credential", "x"][..],
        &[],
        &["--list", "--user", "ann"],
    ] {
        assert_eq!(revoke(&daemon.place.0, unclear).status.code(), Some(2));
    }
}
