//! A `turnd` of one's own: started in a directory of its own, listened to, and ended whatever happens.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::wire::{PASSWORD, PATIENCE, USER};

/// The shared secret of every server here. It must turn up nowhere.
pub(crate) const SECRET: &str = "MARKER-north-north-north-north";

/// A directory of its own for a test.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Not under the build directory: the path of a socket has little room.
        let path = std::env::temp_dir().join(format!("turnd-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let place = Self(path);
        place.write("secret", SECRET);
        place.write(USER, PASSWORD);
        place
    }

    /// A file that only its owner may read.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running server.
pub(crate) struct Daemon {
    pub(crate) place: Place,
    pub(crate) udp: SocketAddr,
    pub(crate) metrics: SocketAddr,
    child: Child,
    notify: UnixDatagram,
    lines: Receiver<String>,
    /// Every line of both outputs so far.
    pub(crate) said: Vec<String>,
}

/// How a server is started.
pub(crate) struct Start {
    pub(crate) place: Place,
    pub(crate) udp: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) command: Command,
}

impl Start {
    /// A server on ports of its own, with `more` in its configuration.
    pub(crate) fn with(more: &str) -> Self {
        let place = Place::new();
        let (udp, metrics) = (free_address(), free_address());
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnd"));
        command.arg("--config").arg(place.0.join("turnd.toml"));
        let start = Self {
            place,
            udp,
            metrics,
            command,
        };
        start.configure(more);
        start
    }

    /// Writes the configuration.
    pub(crate) fn configure(&self, more: &str) {
        configure(&self.place, self.udp, self.metrics, more);
    }

    /// Starts it and waits until it says that it is ready.
    pub(crate) fn ready(self) -> Daemon {
        let mut daemon = self.go();
        daemon.expect("READY=1");
        daemon
    }

    /// Starts it.
    pub(crate) fn go(mut self) -> Daemon {
        let socket = self.place.0.join("notify");
        let notify = UnixDatagram::bind(&socket).unwrap();
        // Some servers run as somebody else.
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
        notify.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut child = self
            .command
            .env("NOTIFY_SOCKET", socket)
            .env("STATE_DIRECTORY", self.place.0.join("state"))
            .env_remove("JOURNAL_STREAM")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let other = sender.clone();
        thread::spawn(move || {
            BufReader::new(out)
                .lines()
                .map_while(Result::ok)
                .for_each(|line| drop(sender.send(line)))
        });
        thread::spawn(move || {
            BufReader::new(err)
                .lines()
                .map_while(Result::ok)
                .for_each(|line| drop(other.send(line)))
        });
        let Self {
            place,
            udp,
            metrics,
            ..
        } = self;
        Daemon {
            place,
            udp,
            metrics,
            child,
            notify,
            lines,
            said: Vec::new(),
        }
    }
}

/// A configuration for a server on loopback.
fn configure(place: &Place, udp: SocketAddr, metrics: SocketAddr, more: &str) {
    let text = format!(
        "server = {{ drain_timeout = '20s', workers = 2 }}\n\
         relay = {{ addresses = ['127.0.0.1'], ports = '40000-40999' }}\n\
         metrics = {{ listen = '{metrics}' }}\n\
         [auth]\n\
         secrets = [{{ file = 'secret' }}]\n\
         users = [{{ name = '{USER}', password_file = '{USER}' }}]\n\
         [[listen]]\naddress = '{udp}'\n\
         [[listen]]\naddress = '{udp}'\ntransport = 'tcp'\n\
         {more}\n"
    );
    place.write("turnd.toml", &text);
}

impl Daemon {
    /// Writes another configuration.
    pub(crate) fn configure(&self, more: &str) {
        configure(&self.place, self.udp, self.metrics, more);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for a notification with this line in it; tells all of its lines.
    pub(crate) fn expect(&mut self, line: &str) -> Vec<String> {
        let mut message = [0; 4096];
        loop {
            let Ok(length) = self.notify.recv(&mut message) else {
                panic!("turnd did not tell {line}; it said\n{}", self.all_said());
            };
            let text = String::from_utf8(message[..length].to_vec()).unwrap();
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            if lines.iter().any(|told| told == line) {
                return lines;
            }
        }
    }

    /// Waits for a line of the log with this message.
    pub(crate) fn log(&mut self, message: &str) -> Value {
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.said.push(line.clone());
            if let Ok(value) = serde_json::from_str::<Value>(&line)
                && value["message"]
                    .as_str()
                    .is_some_and(|text| text.contains(message))
            {
                return value;
            }
        }
        panic!(
            "turnd did not log `{message}`; it said\n{}",
            self.said.join("\n")
        );
    }

    /// Waits for a line of either output with this in it. The two outputs are two pipes: a line of one says nothing
    /// of how far the other was read.
    pub(crate) fn hear(&mut self, part: &str) {
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.said.push(line);
            if self.said.last().is_some_and(|line| line.contains(part)) {
                return;
            }
        }
        panic!(
            "turnd did not say `{part}`; it said\n{}",
            self.said.join("\n")
        );
    }

    /// Waits for the end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        // Both outputs end with the process.
        let end = loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.said.push(line),
                Err(end) => break end,
            }
        };
        let said = self.said.join("\n");
        assert_eq!(
            end,
            RecvTimeoutError::Disconnected,
            "turnd did not end; it said\n{said}"
        );
        self.child.wait().unwrap()
    }

    /// Everything that was said so far.
    pub(crate) fn all_said(&mut self) -> String {
        self.said.extend(self.lines.try_iter());
        self.said.join("\n")
    }

    /// Is it still there?
    pub(crate) fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Asks for a page.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: turnd\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (
            head.split(' ').nth(1).unwrap().parse().unwrap(),
            body.to_owned(),
        )
    }

    /// A sample of the metrics page.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let (code, page) = self.get("/metrics");
        assert_eq!(code, 200, "{page}");
        let line = page.lines().find(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(' '))
        });
        line.unwrap_or_else(|| panic!("no {name} in\n{page}"))
            .rsplit_once(' ')
            .unwrap()
            .1
            .parse()
            .unwrap()
    }

    /// Waits until a sample has a value.
    pub(crate) fn until(&self, name: &str, value: f64) {
        let found = (0..200).any(|_| {
            let found = (self.metric(name) - value).abs() < 0.5;
            if !found {
                thread::park_timeout(Duration::from_millis(50));
            }
            found
        });
        assert!(found, "{name} did not become {value}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address that was free a moment ago, for UDP and TCP.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// A certificate for `localhost` with its key, good until the first day of a year, under these names.
pub(crate) fn certificate(place: &Path, until: i32) -> rcgen::Certificate {
    certificate_for("localhost", place, "", until)
}

/// The same for another host; its files are called `{prefix}cert.pem` and `{prefix}key.pem`.
pub(crate) fn certificate_for(
    host: &str,
    place: &Path,
    prefix: &str,
    until: i32,
) -> rcgen::Certificate {
    let mut parameters = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
    parameters.not_after = rcgen::date_time_ymd(until, 1, 1);
    let pair = rcgen::KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&pair).unwrap();
    // Whole files, as a careful renewal does it.
    for (name, text) in [
        ("key.pem", pair.serialize_pem()),
        ("cert.pem", certificate.pem()),
    ] {
        let draft = place.join(format!("{prefix}{name}.new"));
        fs::write(&draft, text).unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(draft, place.join(format!("{prefix}{name}"))).unwrap();
    }
    certificate
}
