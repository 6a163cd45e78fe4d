//! Who may come in.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;

use rustix::process::Signal;

use crate::listener::ask_http;
use crate::process::{Start, free_address};
use crate::seat::{ask, ask_with, command, ended, run, socket};

const NOBODY: u32 = 65_534;
const TOKEN: &str = "MARKER-token-token-token-token";

#[test]
fn the_socket_is_for_owner_and_group_and_goes_with_the_server() {
    let mut daemon = Start::with("").ready();
    let path = socket(&daemon);
    let found = fs::metadata(&path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o660);
    assert_eq!(ask(&daemon, "GET", "/v1/status").good()["ready"], true);
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().success());
    assert!(!path.exists());
}

#[test]
fn a_socket_that_was_left_behind_is_replaced() {
    let start = Start::with("");
    let state = start.place.0.join("state");
    fs::create_dir(&state).unwrap();
    // Whoever lets go of a listener leaves its file.
    drop(UnixListener::bind(state.join("admin.sock")).unwrap());
    assert!(UnixStream::connect(state.join("admin.sock")).is_err());
    let daemon = start.ready();
    ask(&daemon, "GET", "/v1/status").good();
}

#[test]
fn neither_a_living_socket_nor_another_file_is_replaced() {
    let start = Start::with("[admin]\nsocket = 'here.sock'");
    let path = start.place.0.join("here.sock");
    fs::write(&path, "precious").unwrap();
    let mut daemon = start.go();
    assert_eq!(daemon.ended().code(), Some(1));
    let said = daemon.all_said();
    assert!(
        said.contains("not a socket") && said.contains("= help: "),
        "{said}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");

    let start = Start::with("[admin]\nsocket = 'here.sock'");
    let _living = UnixListener::bind(start.place.0.join("here.sock")).unwrap();
    let mut daemon = start.go();
    assert_eq!(daemon.ended().code(), Some(1));
    let said = daemon.all_said();
    assert!(said.contains("another server listens there"), "{said}");
}

#[test]
fn a_socket_that_nobody_has_named_is_not_worth_failing_for() {
    let start = Start::with("");
    let state = start.place.0.join("state");
    fs::create_dir(&state).unwrap();
    let _living = UnixListener::bind(state.join("admin.sock")).unwrap();
    let mut daemon = start.ready();
    let warning = daemon.log("there is no admin socket");
    assert_eq!(warning["level"], "WARN");
}

#[test]
fn another_user_is_turned_away_whatever_the_file_says() {
    let mut daemon = Start::with("").ready();
    let path = socket(&daemon);
    let mut status = command(&daemon, &["status"]);
    if chown(&daemon.place.0, None, None).is_err() || fs::metadata("/root").is_err() {
        return;
    }
    let as_nobody = |daemon: &crate::process::Daemon| {
        let mut status = command(daemon, &["status"]);
        status.uid(NOBODY).gid(NOBODY);
        status
    };
    // By the kernel first: the state directory is closed to others.
    status.uid(NOBODY).gid(NOBODY);
    let closed = ended(status);
    assert_eq!((closed.code, closed.out.as_str()), (1, ""));
    assert!(
        closed.err.contains("you may not use") && closed.err.contains("sudo"),
        "{}",
        closed.err
    );
    // And by the server, should somebody open the file to all.
    fs::set_permissions(&daemon.place.0, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let refused = ended(as_nobody(&daemon));
    assert_eq!((refused.code, refused.out.as_str()), (1, ""));
    assert!(
        refused.err.contains("this user may not use the socket"),
        "{}",
        refused.err
    );
    assert_eq!(daemon.log("a user who may not")["uid"], NOBODY);
}

#[test]
fn users_and_groups_that_are_named_come_in() {
    for more in ["users = ['65534']", "group = '65534'"] {
        let daemon = Start::with(&format!("[admin]\n{more}")).ready();
        let path = socket(&daemon);
        fs::set_permissions(&daemon.place.0, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut status = command(&daemon, &["status"]);
        status.uid(NOBODY).gid(NOBODY);
        let told = ended(status);
        assert_eq!((told.code, told.err.as_str()), (0, ""), "{more}");
    }
}

/// Users who may not come in cannot keep out those who may, however many connections they hold.
#[test]
fn strangers_take_no_place_of_others() {
    let daemon = Start::with("[admin]\nusers = ['1']").ready();
    let path = socket(&daemon);
    for directory in [&daemon.place.0, path.parent().unwrap()] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    }
    // More than there are places, all of them silent.
    let script = "import socket, sys, time\n\
                  held = []\n\
                  for _ in range(100):\n    held.append(socket.socket(socket.AF_UNIX))\n    held[-1].connect(sys.argv[1])\n\
                  print('held', flush=True)\nsys.stdin.read()";
    let mut strangers = std::process::Command::new("python3");
    strangers
        .args(["-c", script])
        .arg(&path)
        .uid(NOBODY)
        .gid(NOBODY);
    strangers
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut strangers = strangers.spawn().unwrap();
    let mut told = [0; 4];
    strangers
        .stdout
        .take()
        .unwrap()
        .read_exact(&mut told)
        .unwrap();
    assert_eq!(&told, b"held");
    assert_eq!(ask(&daemon, "GET", "/v1/status").good()["ready"], true);
    drop(strangers.stdin.take());
    strangers.wait().unwrap();
}

#[test]
fn the_listener_wants_a_token_and_one_of_its_own_names() {
    let address = free_address();
    let start = Start::with(&format!(
        "[admin]\nlisten = '{address}'\ntoken_file = 'token'\nhosts = ['turn.test']"
    ));
    start.place.write("token", TOKEN);
    let mut daemon = start.ready();
    let host = format!("Host: {address}");
    let token = format!("Authorization: Bearer {TOKEN}");
    let get = |headers: &[&str]| ask_http(address, "GET", "/v1/sessions", headers);
    assert_eq!(get(&[&host, &token]).code, 200);
    assert_eq!(get(&["Host: turn.test", &token]).code, 200);
    let missing = get(&[&host]);
    assert_eq!(missing.code, 401);
    missing.problem();
    assert!(
        missing
            .head
            .to_ascii_lowercase()
            .contains("www-authenticate: bearer")
    );
    assert_eq!(
        get(&[&host, "Authorization: Bearer MARKER-wrong"]).code,
        401
    );
    get(&["Host: evil.example", &token]).problem();
    assert_eq!(get(&["Host: evil.example", &token]).code, 403);
    assert_eq!(
        get(&[&host, &token, "Origin: http://evil.example"]).code,
        403
    );
    // What is not there is not told to strangers either.
    assert_eq!(ask_http(address, "GET", "/v1/nothing", &[&host]).code, 401);
    assert_eq!(
        ask_http(address, "DELETE", "/v1/sessions?user=a", &[&host]).code,
        401
    );
    assert!(!daemon.all_said().contains("MARKER"));
}

#[test]
fn a_listener_without_a_token_is_exit_code_78() {
    let mut daemon = Start::with("[admin]\nlisten = '127.0.0.1:1'").go();
    assert_eq!(daemon.ended().code(), Some(78));
    assert!(daemon.all_said().contains("token_file"));
}

#[test]
fn what_cannot_be_understood_is_a_problem_and_no_end() {
    let daemon = Start::with("").ready();
    for (method, path, code) in [
        ("GET", "/v1/nothing", 404),
        ("GET", "/", 404),
        ("POST", "/v1/status", 405),
        ("GET", "/v1/sessions?limit=x", 400),
        ("GET", "/v1/sessions?limit=1000000", 400),
        ("GET", "/v1/sessions?order=new", 400),
        ("GET", "/v1/sessions/alice", 400),
        ("GET", "/v1/sessions/0000000000000000", 404),
        ("GET", "/v1/sessions/%ff", 400),
        ("GET", "/v1/explain?of=alice", 400),
        ("GET", "/v1/revocations?after=x", 400),
        ("POST", "/v1/revocations", 400),
        ("PUT", "/v1/log-level", 400),
        ("DELETE", "/v1/sessions", 400),
        ("DELETE", "/v1/sessions?search=a", 400),
        ("DELETE", "/v1/sessions?user=a&relay=1", 400),
    ] {
        let answer = ask(&daemon, method, path);
        assert_eq!(answer.code, code, "{method} {path}: {}", answer.body);
        answer.problem();
    }
    let long = "x".repeat(100_000);
    for (method, path) in [("POST", "/v1/drain"), ("POST", "/v1/revocations")] {
        let answer = ask_with(&daemon, method, path, &long);
        assert_eq!(answer.code, 413, "{method} {path}");
        answer.problem();
    }
    // Whoever says too much is cut short, and may see no more of it than that.
    let mut stream = UnixStream::connect(socket(&daemon)).unwrap();
    let long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(100_000));
    let _ = stream.write_all(long.as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.is_empty() || answer.contains(" 431 "), "{answer}");
    ask(&daemon, "GET", "/v1/status").good();
}

#[test]
fn commands_say_why_they_cannot_ask() {
    let mut daemon = Start::with("").ready();
    let nowhere = daemon.place.0.join("nowhere.sock");
    let mut status = std::process::Command::new(env!("CARGO_BIN_EXE_turnd"));
    status.args(["status", "--socket"]).arg(&nowhere);
    let told = ended(status);
    assert_eq!((told.code, told.out.as_str()), (1, ""));
    assert!(
        told.err.contains("no server is running")
            && told.err.contains("nowhere.sock")
            && told.err.contains("--socket PATH"),
        "{}",
        told.err
    );
    daemon.signal(Signal::KILL);
    daemon.ended();
    let told = run(&daemon, &["status"]);
    assert_eq!(told.code, 1);
    assert!(told.err.contains("has ended"), "{}", told.err);
}
