//! `turnd top` in a terminal of its own.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use crate::process::Start;
use crate::seat::{run, socket};
use crate::wire::Client;

#[test]
fn it_takes_a_terminal_and_gives_it_back() {
    let daemon = Start::with("").ready();
    Client::udp(daemon.udp).allocate();
    let program = env!("CARGO_BIN_EXE_turnd");
    let socket = socket(&daemon);
    let line = format!(
        "stty rows 24 cols 80; exec '{program}' top --socket '{}'",
        socket.display()
    );
    let started = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("TERM", "xterm-256color")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut terminal = match started {
        Ok(terminal) => terminal,
        Err(error) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "script cannot be run: {error}"
            );
            eprintln!(
                "SKIPPED: script cannot be run ({error}); install bsdutils to have this checked"
            );
            return;
        }
    };
    let (mut keys, mut screen) = (
        terminal.stdin.take().unwrap(),
        terminal.stdout.take().unwrap(),
    );
    let mut seen = Vec::new();
    let mut part = [0; 4096];
    // The foot is drawn last.
    while !String::from_utf8_lossy(&seen).contains("quit") {
        let length = screen.read(&mut part).unwrap();
        assert!(length > 0, "it ended: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&part[..length]);
    }
    keys.write_all(b"q").unwrap();
    screen.read_to_end(&mut seen).unwrap();
    assert!(terminal.wait().unwrap().success());
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.contains("alice") && seen.contains("SESSION"), "{seen}");
    let (taken, given) = (seen.find("\x1b[?1049h"), seen.find("\x1b[?1049l"));
    assert!(taken.is_some() && taken < given, "{seen:?}");
}

#[test]
fn without_a_terminal_it_says_what_to_use_instead() {
    let daemon = Start::with("").ready();
    let told = run(&daemon, &["top"]);
    assert_eq!((told.code, told.out.as_str()), (1, ""));
    assert!(
        told.err.contains("turnd sessions --sort rate"),
        "{}",
        told.err
    );
}
