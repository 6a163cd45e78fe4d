//! The servers under test: turnd, an installed coturn, the bare forwarder, or one that runs already.

use std::{
    env,
    error::Error,
    fs,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use super::{
    client::{BINDING, Message},
    sys,
    watcher::{Doors, Watcher},
};

/// The core that the server has for itself; the generator has core 0.
pub(crate) const SERVER_CORE: usize = 1;
pub(crate) const GENERATOR_CORE: usize = 0;

/// Ports below the kernel's ephemeral range, in which the benchmark's own sockets are.
const RELAY_PORTS: (u16, u16) = (16_000, 31_999);
const REALM: &str = "load";
const READY_WITHIN: u64 = 10_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Turnd,
    /// The same, with a scraper and a dashboard that look at it.
    Watched,
    /// Another build of turnd.
    Baseline,
    Coturn,
    Forwarder,
    /// Started by somebody else.
    Running,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Turnd => "turnd",
            Self::Watched => "turnd, watched",
            Self::Baseline => "turnd, baseline",
            Self::Coturn => "coturn",
            Self::Forwarder => "bare forwarder",
            Self::Running => "running server",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "turnd" => Some(Self::Turnd),
            "watched" => Some(Self::Watched),
            "coturn" => Some(Self::Coturn),
            "forwarder" => Some(Self::Forwarder),
            _ => None,
        }
    }
}

/// Where coturn is, if it is installed, and what it calls its version.
pub(crate) fn find_coturn() -> Option<(PathBuf, String)> {
    let path = env::var_os("PATH")?;
    let program = env::split_paths(&path)
        .map(|folder| folder.join("turnserver"))
        .find(|program| program.is_file())?;
    let output = Command::new(&program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text
        .lines()
        .rev()
        .find(|line| line.starts_with(|c: char| c.is_ascii_digit()))?;
    Some((program, version.to_owned()))
}

/// How to reach a server that somebody else runs.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) address: SocketAddrV4,
    pub(crate) secret: Vec<u8>,
    pub(crate) pid: Option<u32>,
}

/// What all servers are started with.
pub(crate) struct Environment {
    pub(crate) coturn: Option<PathBuf>,
    pub(crate) baseline: Option<PathBuf>,
    pub(crate) running: Option<Running>,
    pub(crate) forwarder_options: Vec<String>,
}

/// A server that answers; it ends when this is dropped.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddrV4,
    pub(crate) secret: Vec<u8>,
    /// Whose processor time and memory count, if known.
    pub(crate) pid: Option<u32>,
    /// How many clients, from the first on, have an allocation.
    pub(crate) clients: usize,
    /// Through which it is watched while it is measured.
    doors: Option<Doors>,
    process: Option<Process>,
}

struct Process {
    child: Child,
    folder: PathBuf,
    control: Option<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Server {
    /// Starts a server on its core and waits until it answers.
    pub(crate) fn start(kind: Kind, environment: &Environment) -> Result<Self, Box<dyn Error>> {
        match kind {
            Kind::Turnd | Kind::Watched => {
                Self::start_turnd(kind, env!("CARGO_BIN_EXE_turnd").as_ref())
            }
            Kind::Baseline => {
                let program = environment
                    .baseline
                    .as_deref()
                    .ok_or("no baseline is named")?;
                Self::start_turnd(kind, program)
            }
            Kind::Coturn => Self::start_coturn(
                environment
                    .coturn
                    .as_deref()
                    .ok_or("coturn is not installed")?,
            ),
            Kind::Forwarder => Self::start_forwarder(&environment.forwarder_options),
            Kind::Running => {
                let running = environment
                    .running
                    .clone()
                    .ok_or("no address of a running server")?;
                let Running {
                    address,
                    secret,
                    pid,
                } = running;
                let mut server = Self {
                    kind,
                    address,
                    secret,
                    pid,
                    clients: 0,
                    doors: None,
                    process: None,
                };
                server.wait_until_ready()?;
                Ok(server)
            }
        }
    }

    fn start_turnd(kind: Kind, program: &Path) -> Result<Self, Box<dyn Error>> {
        let folder = make_folder()?;
        let secret = secret();
        let address = free_address()?;
        let mut options = fs::OpenOptions::new();
        options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(folder.join("secret"))?
            .write_all(&secret)?;
        let mut config = turnd_config(address, &folder.join("secret"));
        let doors = match kind {
            Kind::Watched => Some(Doors::prepare(&folder)?),
            Kind::Turnd | Kind::Baseline | Kind::Coturn | Kind::Forwarder | Kind::Running => None,
        };
        config.extend(doors.iter().map(|doors| doors.config(&folder)));
        fs::write(folder.join("turnd.toml"), config)?;
        let mut command = Command::new(program);
        command
            .arg("run")
            .arg("--config")
            .arg(folder.join("turnd.toml"))
            .env("STATE_DIRECTORY", &folder);
        let mut server = Self::spawn(kind, command, folder, address, secret)?;
        server.doors = doors;
        Ok(server)
    }

    /// Begins to watch it, if it is to be watched.
    pub(crate) fn watch(&self) -> std::io::Result<Option<Watcher>> {
        self.doors.as_ref().map(Watcher::start).transpose()
    }

    fn start_coturn(program: &Path) -> Result<Self, Box<dyn Error>> {
        let folder = make_folder()?;
        let secret = secret();
        let address = free_address()?;
        let mut command = Command::new(program);
        command
            .arg("-n")
            .args([
                "--listening-ip",
                &address.ip().to_string(),
                "--relay-ip",
                &address.ip().to_string(),
            ])
            .args(["--listening-port", &address.port().to_string()])
            .args([
                "--min-port",
                &RELAY_PORTS.0.to_string(),
                "--max-port",
                &RELAY_PORTS.1.to_string(),
            ])
            .args([
                "--relay-threads",
                "1",
                "--realm",
                REALM,
                "--user-quota",
                "0",
                "--total-quota",
                "0",
            ])
            .args([
                "--use-auth-secret",
                "--static-auth-secret",
                str::from_utf8(&secret)?,
            ])
            .args([
                "--no-cli",
                "--no-tls",
                "--no-dtls",
                "--allow-loopback-peers",
            ])
            .args(["--log-file", "/dev/null", "--simple-log", "--no-stdout-log"])
            .arg("--userdb")
            .arg(folder.join("turndb"))
            .arg("--pidfile")
            .arg(folder.join("pid"))
            .current_dir(&folder);
        Self::spawn(Kind::Coturn, command, folder, address, secret)
    }

    fn start_forwarder(options: &[String]) -> Result<Self, Box<dyn Error>> {
        let folder = make_folder()?;
        let mut command = Command::new(env::current_exe()?);
        command
            .arg(FORWARDER)
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = start_on_its_core(&mut command)?;
        let mut output = BufReader::new(child.stdout.take().ok_or("piped above")?);
        let input = child.stdin.take().ok_or("piped above")?;
        let mut line = String::new();
        output.read_line(&mut line)?;
        let address = line.trim().parse()?;
        let pid = Some(child.id());
        let process = Some(Process {
            child,
            folder,
            control: Some((input, output)),
        });
        Ok(Self {
            kind: Kind::Forwarder,
            address,
            secret: Vec::new(),
            pid,
            clients: 0,
            doors: None,
            process,
        })
    }

    fn spawn(
        kind: Kind,
        mut command: Command,
        folder: PathBuf,
        address: SocketAddrV4,
        secret: Vec<u8>,
    ) -> Result<Self, Box<dyn Error>> {
        let log = fs::File::create(folder.join("output"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = start_on_its_core(&mut command)?;
        let pid = Some(child.id());
        let mut server = Self {
            kind,
            address,
            secret,
            pid,
            clients: 0,
            doors: None,
            process: Some(Process {
                child,
                folder,
                control: None,
            }),
        };
        server.wait_until_ready()?;
        Ok(server)
    }

    /// Asks for a Binding until there is an answer.
    fn wait_until_ready(&mut self) -> Result<(), Box<dyn Error>> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(self.address)?;
        let request = Message::new(BINDING, *b"are you up?!").finish();
        let start = sys::now();
        while sys::now() - start < READY_WITHIN {
            // Before it listens, the port is refused: an error that the next try makes up for.
            let _ = socket.send(&request);
            if sys::wait_readable(socket.as_raw_fd(), Duration::from_millis(20))
                && socket.recv(&mut [0; 1500]).is_ok()
            {
                return Ok(());
            }
            sys::pause(Duration::from_millis(10));
            if let Some(process) = &mut self.process
                && let Some(status) = process.child.try_wait()?
            {
                let output = fs::read_to_string(process.folder.join("output")).unwrap_or_default();
                let last: Vec<_> = output.lines().rev().take(3).collect();
                return Err(format!(
                    "{} ended with {status}: {}",
                    self.kind.name(),
                    last.join(" / ")
                )
                .into());
            }
        }
        Err(format!("{} does not answer at {}", self.kind.name(), self.address).into())
    }

    /// Tells the forwarder its flows, as `client channel peer allocation`; gives the relayed addresses.
    pub(crate) fn tell_flows(
        &mut self,
        flows: &str,
        allocations: usize,
    ) -> Result<Vec<SocketAddrV4>, Box<dyn Error>> {
        let control = self
            .process
            .as_mut()
            .and_then(|process| process.control.as_mut());
        let (input, output) = control.ok_or("only the forwarder is told its flows")?;
        input.write_all(flows.as_bytes())?;
        input.write_all(b"end\n")?;
        input.flush()?;
        let mut line = String::new();
        let mut relays = Vec::with_capacity(allocations);
        for _ in 0..allocations {
            line.clear();
            output.read_line(&mut line)?;
            relays.push(line.trim().parse()?);
        }
        Ok(relays)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.child.kill();
            let _ = process.child.wait();
            let _ = fs::remove_dir_all(&process.folder);
        }
    }
}

/// The first argument of the benchmark when it is to be the forwarder.
pub(crate) const FORWARDER: &str = "bare-forwarder";

/// A child inherits the core of the thread that starts it.
fn start_on_its_core(command: &mut Command) -> std::io::Result<Child> {
    sys::pin(SERVER_CORE)?;
    let child = command.spawn();
    sys::pin(GENERATOR_CORE)?;
    child
}

fn turnd_config(address: SocketAddrV4, secret: &Path) -> String {
    let (ip, (first, last)) = (address.ip(), RELAY_PORTS);
    let secret = secret.display();
    format!(
        r#"[server]
realm = "{REALM}"
workers = 1
[[listen]]
address = "{address}"
transport = "udp"
[relay]
addresses = ["{ip}"]
ports = "{first}-{last}"
[auth]
secrets = [{{ id = "load", file = "{secret}" }}]
[limits]
per_user = 100000
per_client = 1000000
total = 1000000
permissions = 128
channels = 128
unauthenticated_replies = 0
[peers]
allow = ["127.0.0.0/8"]
[log]
level = "warn"
"#
    )
}

/// A folder of our own that nobody else may read.
fn make_folder() -> std::io::Result<PathBuf> {
    let folder = env::temp_dir().join(format!("turnd-load-{}-{}", std::process::id(), sys::now()));
    fs::create_dir(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
    Ok(folder)
}

fn free_address() -> std::io::Result<SocketAddrV4> {
    let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port();
    Ok(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

fn secret() -> Vec<u8> {
    format!("load-{:016x}{:016x}", sys::now(), sys::unix_time()).into_bytes()
}
