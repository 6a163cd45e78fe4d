//! WebRTC peers in processes of their own, told by lines of JSON what to do.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::rig::{Host, NAME, Rig, succeed};
use crate::server::Credential;
use crate::{pages, tool, web};

/// How a client reaches the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transport {
    Udp,
    Tcp,
    Tls,
    /// TLS to a port that has web pages as well.
    Shared,
    /// UDP to the server's IPv6 address.
    Udp6,
    /// UDP to a listener that requires SHA-256.
    Strict,
}

impl Transport {
    /// Returns the URL that a page on `host` would give to `RTCPeerConnection`.
    pub(crate) fn url(self, host: Host) -> String {
        match self {
            Self::Udp => format!("turn:{NAME}:3478?transport=udp"),
            Self::Strict => format!("turn:{NAME}:3481?transport=udp"),
            Self::Tcp => format!("turn:{NAME}:3478?transport=tcp"),
            Self::Tls => format!("turns:{NAME}:5349?transport=tcp"),
            Self::Shared => format!("turns:{NAME}:{}?transport=tcp", web::PORT),
            // A name that has no IPv4 address, since not every client takes an address in brackets.
            Self::Udp6 => format!("turn:{}:3478?transport=udp", host.server6_name()),
        }
    }

    /// Returns the word by which `getStats` calls it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Udp | Self::Udp6 | Self::Strict => "udp",
            Self::Tcp => "tcp",
            Self::Tls | Self::Shared => "tls",
        }
    }
}

/// Which implementation a peer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Aiortc,
    Chromium,
    Libjuice,
}

/// A peer that runs.
pub(crate) struct Peer {
    label: String,
    process: Child,
    replies: Receiver<Value>,
}

impl Peer {
    /// Starts a peer on `host` that may use nothing but the relay.
    pub(crate) fn start(
        rig: &Rig,
        host: Host,
        kind: Kind,
        transport: Transport,
        credential: &Credential,
    ) -> Self {
        let label = format!("{kind:?}-{host:?}").to_lowercase();
        let Credential { username, password } = credential;
        let configuration =
            json!({ "urls": [transport.url(host)], "username": username, "credential": password });
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let mut command = match kind {
            Kind::Aiortc => {
                let mut command = rig.command(host, tool::python());
                command
                    .arg(scripts.join("aiortc_peer.py"))
                    .env("SSL_CERT_FILE", rig.dir().join("ca.pem"));
                command
            }
            Kind::Chromium => {
                let mut command = rig.command(host, "node");
                trust_authority(rig);
                command
                    .arg(scripts.join("chromium_peer.js"))
                    .arg(tool::directory().join("node_modules"));
                command
            }
            Kind::Libjuice => {
                let mut command = rig.command(host, "node");
                command
                    .arg(scripts.join("libjuice_peer.js"))
                    .arg(tool::directory().join("node_modules"));
                command
            }
        };
        command.arg(configuration.to_string());
        Self::run(rig, label, command)
    }

    /// Opens a page in a browser on `host`, which does there what `chromium_visitor.js` understands.
    pub(crate) fn visitor(rig: &Rig, host: Host, label: &str, page: &str) -> Self {
        trust_authority(rig);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/chromium_peer.js");
        let mut command = rig.command(host, "node");
        command
            .arg(script)
            .arg(tool::directory().join("node_modules"))
            .arg(json!({ "page": page }).to_string());
        Self::run(rig, label.to_owned(), command)
    }

    /// A browser on `host` that takes one step after the other of those in `chromium_pages.js`.
    pub(crate) fn reader(rig: &Rig, host: Host) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/chromium_pages.js");
        let mut command = rig.command(host, "node");
        command
            .arg(script)
            .arg(tool::directory().join("node_modules"))
            .arg(pages::pictures());
        Self::run(rig, "reader".to_owned(), command)
    }

    fn run(rig: &Rig, label: String, mut command: Command) -> Self {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(rig.log(&label))
            .spawn()
            .expect("setpriv exists");
        let output = process.stdout.take().expect("it was piped");
        let mut transcript = rig.log(&format!("{label}-said"));
        let (sender, replies) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                _ = writeln!(transcript, "{line}");
                if let Ok(value) = serde_json::from_str(&line)
                    && sender.send(value).is_err()
                {
                    break;
                }
            }
        });
        Self {
            label,
            process,
            replies,
        }
    }

    /// Tells the peer to do something, and waits for its answer.
    ///
    /// # Panics
    ///
    /// When the peer fails at it, ends, or says nothing for too long.
    pub(crate) fn ask(&mut self, words: &Value) -> Value {
        self.tell(words);
        self.hear(words)
    }

    /// The first half of [`Peer::ask`], to let two peers work at the same time.
    pub(crate) fn tell(&mut self, words: &Value) {
        let input = self.process.stdin.as_mut().expect("it was piped");
        writeln!(input, "{words}")
            .unwrap_or_else(|error| panic!("{} is gone: {error}", self.label));
    }

    /// The second half of [`Peer::ask`].
    pub(crate) fn hear(&self, words: &Value) -> Value {
        let word = &words["do"];
        let reply = self
            .replies
            .recv_timeout(LONGEST)
            .unwrap_or_else(|error| panic!("{} did not answer {word}: {error}", self.label));
        assert!(
            reply.get("error").is_none(),
            "{} failed at {word}: {}",
            self.label,
            reply["error"]
        );
        reply
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// Connects two peers, the first of which calls.
pub(crate) fn call(caller: &mut Peer, callee: &mut Peer, video: bool) {
    let offer = caller.ask(&json!({ "do": "offer", "video": video }));
    only_relayed(&offer);
    let answer =
        callee.ask(&json!({ "do": "answer", "video": video, "description": offer["description"] }));
    only_relayed(&answer);
    caller.ask(&json!({ "do": "accept", "description": answer["description"] }));
}

/// Asserts that a description offers at least one candidate, and none but relayed ones.
pub(crate) fn only_relayed(reply: &Value) {
    let sdp = reply["description"]["sdp"].as_str().expect("a description");
    let candidates: Vec<&str> = sdp
        .lines()
        .filter(|line| line.starts_with("a=candidate:"))
        .collect();
    assert!(
        !candidates.is_empty(),
        "no candidate, errors: {}\n{sdp}",
        reply["errors"]
    );
    assert!(
        candidates.iter().all(|line| line.contains(" typ relay")),
        "a candidate beside the relay's: {sdp}"
    );
}

/// Makes the browser trust the rig's authority, as an operator of a private one would.
pub(crate) fn trust_authority(rig: &Rig) {
    let database = rig.dir().join(".pki/nssdb");
    if !database.exists() {
        std::fs::create_dir_all(&database).expect("the rig's directory is writable");
        let store = format!("sql:{}", database.display());
        succeed(Command::new("certutil").args(["-d", &store, "-N", "--empty-password"]));
        let authority = rig.dir().join("ca.pem");
        succeed(
            Command::new("certutil")
                .args(["-d", &store, "-A", "-t", "C,,", "-n", "rig", "-i"])
                .arg(authority),
        );
    }
}

/// Longer than any wait inside a peer, so that the peer's own words about it are heard.
const LONGEST: Duration = Duration::from_secs(45);
