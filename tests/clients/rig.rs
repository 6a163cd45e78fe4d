//! Three hosts on one machine: a server between two clients that have no path to each other.
//!
//! ```text
//!     client a            server s              client b
//!     10.99.1.2  ──────  10.99.1.1
//!     fd99:1::2          fd99:1::1
//!                        10.99.0.1 (relay)
//!                        fd99::1
//!                        10.99.2.1  ──────────  10.99.2.2
//!                        fd99:2::1              fd99:2::2
//! ```
//!
//! The hosts are network namespaces whose names carry the process id, so that runs do not meet. The server's
//! host does not forward: bytes that get from one client to the other went through a relay. Everything is taken
//! away when the rig is dropped, also by a panic, which then tells what the server and the clients said.

use std::cell::RefCell;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::tool::{self, Tool};

/// The relay's own address: neither client's subnet.
pub(crate) const RELAY: &str = "10.99.0.1";
/// The name of the server in the hosts' DNS, and in its certificate.
pub(crate) const NAME: &str = "turn.test";

/// One of the three hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Host {
    /// The server's.
    S,
    /// The first client's.
    A,
    /// The second client's.
    B,
}

/// All of them.
pub(crate) const HOSTS: [Host; 3] = [Host::S, Host::A, Host::B];

impl Host {
    /// Returns the server's IPv4 address on this host's link.
    pub(crate) fn server(self) -> &'static str {
        match self {
            Self::S => RELAY,
            Self::A => "10.99.1.1",
            Self::B => "10.99.2.1",
        }
    }

    /// Returns the server's IPv6 address on this host's link.
    pub(crate) fn server6(self) -> &'static str {
        match self {
            Self::S => "fd99::1",
            Self::A => "fd99:1::1",
            Self::B => "fd99:2::1",
        }
    }

    /// Returns the name of [`Host::server6`] in the hosts' DNS.
    pub(crate) fn server6_name(self) -> String {
        format!("six-{}.{NAME}", self.letter())
    }

    fn letter(self) -> char {
        match self {
            Self::S => 's',
            Self::A => 'a',
            Self::B => 'b',
        }
    }
}

/// The three hosts, and a private directory for what is written.
pub(crate) struct Rig {
    stem: String,
    dir: PathBuf,
    logs: RefCell<Vec<PathBuf>>,
    started: RefCell<Vec<Child>>,
    // Released last: two rigs at once would starve each other's video on a small machine.
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());
static COUNT: AtomicUsize = AtomicUsize::new(0);

impl Rig {
    /// Builds the hosts, or says that `tools` are missing and returns nothing.
    ///
    /// # Panics
    ///
    /// With `CI=true` when something is missing, and when a host cannot be built.
    pub(crate) fn new(tools: &[Tool]) -> Option<Self> {
        if !tool::present(tools) {
            return None;
        }
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        if count == 0 {
            sweep();
        }
        let stem = format!("{PREFIX}{}-{count}", std::process::id());
        let dir = std::env::temp_dir().join(&stem);
        let rig = Self {
            stem,
            dir,
            logs: RefCell::default(),
            started: RefCell::default(),
            _turn: turn,
        };
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&rig.dir)
            .expect("a private directory");
        rig.build();
        Some(rig)
    }

    fn build(&self) {
        for host in HOSTS {
            let name = self.namespace(host);
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
            let sysctl = "for f in ipv4/ip_forward ipv6/conf/all/forwarding; do echo 0 > /proc/sys/net/$f; done";
            succeed(self.command(host, "sh").args(["-c", sysctl]));
        }
        let server = self.namespace(Host::S);
        ip(&format!("-n {server} address add 10.99.0.1/32 dev lo"));
        ip(&format!("-n {server} address add fd99::1/128 dev lo nodad"));
        for (host, digit) in [(Host::A, 1), (Host::B, 2)] {
            let client = self.namespace(host);
            let link = format!("to-{}", host.letter());
            ip(&format!(
                "-n {server} link add {link} type veth peer name eth0 netns {client}"
            ));
            for (name, device, end) in [(&server, link.as_str(), 1), (&client, "eth0", 2)] {
                let v4 = format!("10.99.{digit}.{end}/24");
                let v6 = format!("fd99:{digit}::{end}/64");
                ip(&format!("-n {name} address add {v4} dev {device}"));
                ip(&format!("-n {name} address add {v6} dev {device} nodad"));
                ip(&format!("-n {name} link set {device} up"));
            }
            let (gateway, gateway6) = (host.server(), host.server6());
            ip(&format!("-n {client} route add default via {gateway}"));
            ip(&format!("-n {client} -6 route add default via {gateway6}"));
            self.resolve_at(host);
        }
        // Packets for everybody else leave by some link, as on a real host.
        ip(&format!("-n {server} route add default via 10.99.1.2"));
        ip(&format!("-n {server} -6 route add default via fd99:1::2"));
    }

    /// Makes the server's host the client's resolver; `ip netns exec` shows it the file as /etc/resolv.conf.
    fn resolve_at(&self, host: Host) {
        let etc = Path::new(ETC).join(self.namespace(host));
        fs::create_dir_all(&etc).expect("/etc/netns is writable");
        fs::write(
            etc.join("resolv.conf"),
            format!("nameserver {}\n", host.server()),
        )
        .expect("/etc/netns is writable");
    }

    /// Returns a command that will run `program` on `host`, in this rig's directory, and die with this thread.
    pub(crate) fn command(&self, host: Host, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args([
                "--pdeathsig",
                "KILL",
                "ip",
                "netns",
                "exec",
                &self.namespace(host),
            ])
            .arg(program)
            .current_dir(&self.dir)
            .env("HOME", &self.dir)
            .env("TMPDIR", &self.dir)
            .stdin(Stdio::null());
        command
    }

    /// Runs `program` on `host` for at most a minute, and returns all that it printed.
    ///
    /// # Panics
    ///
    /// When it fails, or takes longer.
    pub(crate) fn run(&self, host: Host, program: &str, arguments: &[&str]) -> String {
        let mut command = self.command(host, "timeout");
        let label = program.rsplit('/').next().unwrap_or(program);
        let (path, log) = self.open(label);
        let errors = log.try_clone().expect("a second handle");
        command
            .args(["--kill-after=2", "60", program])
            .args(arguments)
            .stdout(log)
            .stderr(errors);
        let status = command.status().expect("setpriv exists");
        let output = String::from_utf8_lossy(&fs::read(path).expect("it was written")).into_owned();
        assert!(
            status.success(),
            "{program} {arguments:?} ended with {status} (124: it took too long)"
        );
        output
    }

    /// Starts `program` on `host`, to run as long as the test.
    pub(crate) fn start(&self, host: Host, program: &str, arguments: &[&str]) {
        let log = self.log(program);
        let errors = log.try_clone().expect("a second handle");
        let mut command = self.command(host, program);
        let child = command
            .args(arguments)
            .stdout(log)
            .stderr(errors)
            .spawn()
            .expect("setpriv exists");
        self.started.borrow_mut().push(child);
    }

    /// Returns a new file for the output of something called `label`, or a program with this path; a failure will show
    /// its end.
    pub(crate) fn log(&self, label: &str) -> fs::File {
        self.open(label).1
    }

    /// Returns what was written so far into the first file of [`Rig::log`] with this label.
    pub(crate) fn logged(&self, label: &str) -> String {
        let end = format!("-{label}.log");
        let logs = self.logs.borrow();
        let path = logs
            .iter()
            .find(|path| path.to_string_lossy().ends_with(&end))
            .expect("something has that label");
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
    }

    fn open(&self, label: &str) -> (PathBuf, fs::File) {
        let mut logs = self.logs.borrow_mut();
        let name = label.rsplit('/').next().unwrap_or(label);
        let path = self.dir.join(format!("{:02}-{name}.log", logs.len()));
        let file = fs::File::create(&path).expect("the rig's directory is writable");
        logs.push(path.clone());
        (path, file)
    }

    /// Returns the directory of this rig, which is the home of what runs in it.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the name of a host's namespace.
    pub(crate) fn namespace(&self, host: Host) -> String {
        format!("{}-{}", self.stem, host.letter())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for path in self.logs.borrow().iter() {
                eprintln!("---- the end of {}\n{}", path.display(), tail(path));
            }
        }
        for child in self.started.borrow_mut().iter_mut() {
            _ = child.kill();
            _ = child.wait();
        }
        for host in HOSTS {
            remove_host(&self.namespace(host));
        }
        // Nothing is asserted here: a panic while panicking would hide the first one.
        _ = fs::remove_dir_all(&self.dir);
    }
}

/// Returns the end of a log, long enough to see what happened.
fn tail(path: &Path) -> String {
    const LINES: usize = 60;
    const COLUMNS: usize = 400;
    let text = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let skipped = text.lines().count().saturating_sub(LINES);
    text.lines()
        .skip(skipped)
        .map(|line| line.chars().take(COLUMNS).chain(['\n']).collect::<String>())
        .collect()
}

/// Takes away what runs of these tests left that were killed; theirs are the names with the id of no process.
fn sweep() {
    let own = std::process::id().to_string();
    let temp = std::env::temp_dir();
    for dir in [Path::new("/run/netns"), Path::new(ETC), &temp] {
        let Ok(entries) = fs::read_dir(dir) else {
            continue;
        };
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((pid, _)) = name
                .strip_prefix(PREFIX)
                .and_then(|rest| rest.split_once('-'))
            else {
                continue;
            };
            let number = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
            if number && (pid == own || !Path::new("/proc").join(pid).exists()) {
                if dir == temp {
                    _ = fs::remove_dir_all(entry.path());
                } else {
                    remove_host(&name);
                }
            }
        }
    }
}

/// Ends what runs in a namespace, then removes it. That it is not there is no fault.
pub(crate) fn remove_host(name: &str) {
    if Path::new("/run/netns").join(name).exists() {
        let script = format!("for pid in $(ip netns pids {name}); do kill -KILL $pid; done");
        _ = Command::new("sh")
            .args(["-c", &script])
            .stderr(Stdio::null())
            .status();
        _ = Command::new("ip").args(["netns", "delete", name]).status();
    }
    _ = fs::remove_dir_all(Path::new(ETC).join(name));
}

fn ip(line: &str) {
    succeed(Command::new("ip").args(line.split_whitespace()));
}

/// Runs a command that has to succeed and says little.
pub(crate) fn succeed(command: &mut Command) {
    let output = command.output().expect("the command exists");
    if !output.status.success() {
        _ = io::stderr().write_all(&output.stderr);
        panic!(
            "{command:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

const PREFIX: &str = "turnd-test-";
const ETC: &str = "/etc/netns";
