//! Talks to the operator's seat of a running server, by hand and through the commands.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::process::Daemon;
use crate::wire::PATIENCE;

/// An answer: code, head, body.
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }

    /// The body of what went well.
    pub(crate) fn good(&self) -> Value {
        assert_eq!(self.code, 200, "{}", self.body);
        self.json()
    }

    /// A problem in the form of RFC 9457.
    pub(crate) fn problem(&self) -> Value {
        let head = self.head.to_ascii_lowercase();
        assert!(
            head.contains("content-type: application/problem+json"),
            "{head}"
        );
        let problem = self.json();
        assert_eq!(problem["status"], self.code);
        assert!(
            problem["detail"]
                .as_str()
                .is_some_and(|detail| !detail.is_empty())
        );
        problem
    }
}

pub(crate) fn socket(daemon: &Daemon) -> PathBuf {
    daemon.place.0.join("state/admin.sock")
}

/// Asks through the socket.
pub(crate) fn ask(daemon: &Daemon, method: &str, path: &str) -> Answer {
    ask_with(daemon, method, path, "")
}

pub(crate) fn ask_with(daemon: &Daemon, method: &str, path: &str, body: &str) -> Answer {
    ask_at(&socket(daemon), method, path, body)
}

pub(crate) fn ask_at(socket: &Path, method: &str, path: &str, body: &str) -> Answer {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE * 3)).unwrap();
    exchange(stream, method, path, &["Host: localhost"], body)
}

pub(crate) fn exchange(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &str,
) -> Answer {
    let headers: String = headers
        .iter()
        .map(|header| format!("{header}\r\n"))
        .collect();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = Vec::new();
    // Who answers before the whole request is read, and closes, leaves a reset behind the answer.
    if let Err(error) = stream.read_to_end(&mut text) {
        let is_answered = error.kind() == io::ErrorKind::ConnectionReset && !text.is_empty();
        assert!(is_answered, "{error}");
    }
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let body = if head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked")
    {
        dechunked(body)
    } else {
        body.to_owned()
    };
    Answer {
        code: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_owned(),
        body,
    }
}

fn dechunked(mut text: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = text.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        whole += &rest[..length];
        text = rest[length..].trim_start_matches("\r\n");
        if length == 0 {
            break;
        }
    }
    whole
}

/// What a command printed.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A command that asks this server.
pub(crate) fn command(daemon: &Daemon, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnd"));
    command
        .args(arguments)
        .arg("--socket")
        .arg(socket(daemon))
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null());
    command
}

/// Runs a command against this server.
pub(crate) fn run(daemon: &Daemon, arguments: &[&str]) -> Ended {
    ended(command(daemon, arguments))
}

pub(crate) fn ended(mut command: Command) -> Ended {
    let output = command.output().unwrap();
    Ended {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
