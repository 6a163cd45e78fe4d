//! Starts the servers that are compared, each in all of its configurations, and ends them.
//!
//! They live in a network of this process alone: its loopback interface carries every address that is used here,
//! so ports are free, and nothing gets out.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::time::Duration;

use base64::Engine as _;

use crate::client::Login;
use crate::ground::{Ground, Hosts, Logins, Server, SharedKey};

/// Which of its configurations a server runs in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Full,
    Plain,
    Tiny,
    Redirect,
    Anycast,
}

const KINDS: [Kind; 5] = [
    Kind::Full,
    Kind::Plain,
    Kind::Tiny,
    Kind::Redirect,
    Kind::Anycast,
];

/// Processes, ended when this is dropped.
pub(crate) struct Running {
    pub(crate) ground: Ground,
    processes: Vec<Child>,
    dir: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        for process in &mut self.processes {
            _ = process.kill();
            _ = process.wait();
        }
        _ = fs::remove_dir_all(&self.dir);
    }
}

impl Running {
    /// The end of what the servers said.
    pub(crate) fn logs(&self) -> String {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let logs = entries.filter(|entry| entry.path().extension().is_some_and(|ext| ext == "log"));
        logs.map(|entry| {
            let text = fs::read(entry.path()).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let skipped = text.lines().count().saturating_sub(20);
            let end: Vec<&str> = text.lines().skip(skipped).collect();
            format!("---- {}\n{}\n", entry.path().display(), end.join("\n"))
        })
        .collect()
    }
}

/// This build's turnd.
pub(crate) fn turnd() -> Running {
    // Beside the other listeners.
    let discovery = [
        ([127, 1, 0, 1], 3480).into(),
        ([127, 1, 0, 101], 3481).into(),
    ];
    let mut running = start(("turnd", 0), discovery, |kind, dir, server, full| {
        let config = dir.join(format!("{}.toml", kind.name()));
        private(&config, &turnd_config(kind, server, full));
        let socket = dir.join(format!("{}.notify", kind.name()));
        let notices = UnixDatagram::bind(&socket).expect("a socket in the directory");
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnd"));
        command
            .arg("--config")
            .arg(config)
            .env("NOTIFY_SOCKET", socket)
            .env(
                "STATE_DIRECTORY",
                dir.join(format!("{}.state", kind.name())),
            )
            .env_remove("JOURNAL_STREAM");
        let mut process = logged(command, &dir.join(format!("{}.log", kind.name())));
        await_ready(&notices, &mut process);
        process
    });
    running.ground.oauth = Some(SharedKey {
        kid: KID.into(),
        key: TOKEN_KEY,
        server: REALM.into(),
    });
    running
}

/// Debian's coturn.
pub(crate) fn coturn() -> Running {
    // Its two listening addresses, and the port after the usual one.
    let discovery = [
        ([127, 1, 1, 1], 3478).into(),
        ([127, 1, 1, 101], 3479).into(),
    ];
    start(("coturn", 1), discovery, |kind, dir, server, full| {
        let config = dir.join(format!("{}.conf", kind.name()));
        private(&config, &coturn_config(kind, dir, server, full));
        let mut command = Command::new("turnserver");
        command.arg("-c").arg(config);
        let mut process = logged(command, &dir.join(format!("{}.log", kind.name())));
        // It says nothing when it is ready; the TLS listener is its last.
        await_listener(server.tls.expect("it has one"), &mut process);
        process
    })
}

/// Whether coturn is installed.
pub(crate) fn coturn_is_there() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join("turnserver").is_file())
}

fn start(
    (name, number): (&str, u8),
    discovery: [SocketAddr; 2],
    run: impl Fn(Kind, &Path, &Server, &Server) -> Child,
) -> Running {
    // Not under the build directory: the path of a socket has little room.
    let dir = std::env::temp_dir().join(format!("turnd-conform-{}-{name}", std::process::id()));
    _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a directory for temporary files");
    private(&dir.join("secret"), SECRET);
    private(&dir.join(USER), PASSWORD);
    let key = base64::engine::general_purpose::STANDARD.encode(TOKEN_KEY);
    private(&dir.join("token-key"), &key);
    certificate(&dir);
    let mut servers = KINDS.map(|kind| Server::of(kind, number));
    servers[0].discovery = Some(discovery);
    let mut running = Running {
        ground: ground(&servers),
        processes: Vec::new(),
        dir,
    };
    for (kind, server) in KINDS.into_iter().zip(&servers) {
        let process = run(kind, &running.dir, server, &servers[0]);
        running.processes.push(process);
    }
    running
}

fn ground([full, plain, tiny, redirect, anycast]: &[Server; 5]) -> Ground {
    Ground {
        full: full.clone(),
        plain: Some(plain.clone()),
        tiny: Some(tiny.clone()),
        redirect: Some(redirect.clone()),
        anycast: Some(anycast.clone()),
        logins: Logins {
            secret: Some(SECRET.into()),
            user: Some(Login {
                user: USER.into(),
                password: PASSWORD.into(),
            }),
        },
        oauth: None,
        hosts: Hosts::Namespace(Arc::new(AtomicU16::new(1))),
        patience: PATIENCE,
    }
}

impl Server {
    /// Each process has an address of its own: `127.1.SERVER.KIND`, `fd00:1::SERVER:KIND`.
    fn of(kind: Kind, server: u8) -> Self {
        let v4: IpAddr = [127, 1, server, 1 + kind as u8].into();
        let v6: IpAddr = format!("fd00:1::{server}:{}", 1 + kind as u8)
            .parse()
            .expect("an address");
        Self {
            udp: Some((v4, 3478).into()),
            udp6: matches!(kind, Kind::Full | Kind::Redirect).then_some((v6, 3478).into()),
            tcp: Some((v4, 3478).into()),
            tls: Some((v4, 5349).into()),
            dtls: (kind == Kind::Full).then_some((v4, 5349).into()),
            others: match kind {
                Kind::Full => vec![([127, 1, server, 101], 3478).into()],
                Kind::Anycast => vec![([127, 1, server, 105], 3478).into()],
                Kind::Plain | Kind::Tiny | Kind::Redirect => Vec::new(),
            },
            discovery: None,
        }
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Plain => "plain",
            Self::Tiny => "tiny",
            Self::Redirect => "redirect",
            Self::Anycast => "anycast",
        }
    }

    fn relay_ports(self) -> (u16, u16) {
        match self {
            Self::Full | Self::Plain | Self::Redirect | Self::Anycast => (49_152, 65_535),
            Self::Tiny => (50_000, 50_001),
        }
    }
}

fn turnd_config(kind: Kind, server: &Server, full: &Server) -> String {
    let targets: Vec<String> = targets(kind, server, full)
        .map(|target| format!("'{target}'"))
        .collect();
    let full = kind == Kind::Full;
    let listen: String = [
        (server.udp, "udp"),
        (server.udp6, "udp"),
        (server.tcp, "tcp"),
        (server.tls, "tls"),
        (server.dtls, "dtls"),
    ]
    .into_iter()
    .filter_map(|(address, transport)| Some((address?, transport)))
    .chain(server.others.iter().map(|&address| (address, "udp")))
    .map(|(address, transport)| {
        let web = match (full, transport) {
            (true, "tls") => "http = 'self'\n",
            _ => "",
        };
        format!("[[listen]]\naddress = '{address}'\ntransport = '{transport}'\n{web}")
    })
    .collect();
    let discovery: Vec<String> = server
        .discovery
        .into_iter()
        .flatten()
        .map(|address| format!("'{address}'"))
        .collect();
    let relays: Vec<String> = [server.udp, server.udp6]
        .into_iter()
        .flatten()
        .map(|address| format!("'{}'", address.ip()))
        .collect();
    let (first, last) = kind.relay_ports();
    let oauth = match full {
        true => format!(
            "[auth.oauth]\nserver_name = '{REALM}'\nkeys = [{{ kid = '{KID}', file = 'token-key', algorithm = 'A256GCM' }}]\n"
        ),
        false => String::new(),
    };
    // A nonce is good only where no more is offered than where it comes from.
    let algorithms = match kind == Kind::Redirect || full {
        true => "'sha256', 'md5'",
        false => "'md5'",
    };
    format!(
        "[server]\nrealm = '{REALM}'\nsoftware = {full}\nmobility = {full}\nrfc3489 = {full}\nworkers = 2\n\
         {listen}\
         [relay]\naddresses = [{}]\nports = '{first}-{last}'\n\
         [auth]\nsecrets = [{{ file = 'secret' }}]\n\
         users = [{{ name = '{USER}', password_file = '{USER}' }}]\n\
         password_algorithms = [{algorithms}]\n\
         {oauth}\
         [limits]\nunauthenticated_replies = 0\nper_user = {}\nper_client = 100000\n\
         [peers]\nallow = ['127.0.0.0/8', 'fd00::/8']\n\
         [tls]\ncertificate = 'cert.pem'\nkey = 'key.pem'\n\
         [tcp_relay]\nenabled = {full}\n\
         [nat_discovery]\naddresses = [{}]\n\
         [redirect]\nto = [{}]\nwhen = ['always']\n",
        relays.join(", "),
        if full { 32 } else { QUOTA },
        discovery.join(", "),
        targets.join(", "),
    )
}

/// Where a server sends its clients.
fn targets(kind: Kind, server: &Server, full: &Server) -> impl Iterator<Item = SocketAddr> {
    let targets = match kind {
        Kind::Redirect => [full.udp, full.udp6],
        Kind::Anycast => [server.others.first().copied(), None],
        Kind::Full | Kind::Plain | Kind::Tiny => [None, None],
    };
    targets.into_iter().flatten()
}

/// The closest to [`turnd_config`] that coturn has.
fn coturn_config(kind: Kind, dir: &Path, server: &Server, full: &Server) -> String {
    let targets: String = targets(kind, server, full)
        .map(|target| format!("alternate-server={target}\n"))
        .collect();
    let full = kind == Kind::Full;
    let relays = [server.udp, server.udp6].into_iter().flatten();
    let addresses: String = relays
        .map(|address| format!("listening-ip={0}\nrelay-ip={0}\n", address.ip()))
        .chain(
            server
                .others
                .iter()
                .map(|address| format!("listening-ip={}\n", address.ip())),
        )
        .collect();
    let (first, last) = kind.relay_ports();
    let dir = dir.display();
    let name = kind.name();
    let more = if full {
        "mobility\n"
    } else {
        "no-tcp-relay\nno-rfc5780\n"
    };
    format!(
        "{addresses}listening-port=3478\ntls-listening-port=5349\nmin-port={first}\nmax-port={last}\n\
         use-auth-secret\nstatic-auth-secret={SECRET}\nrealm={REALM}\nserver-name={REALM}\n\
         user-quota={}\nallow-loopback-peers\nno-multicast-peers\n\
         denied-peer-ip=169.254.0.0-169.254.255.255\nstale-nonce=3600\n\
         cert={dir}/cert.pem\npkey={dir}/key.pem\nno-cli\nlog-file=stdout\n\
         userdb={dir}/{name}.users\npidfile={dir}/{name}.pid\n{targets}{more}",
        if full { 32 } else { QUOTA },
    )
}

fn logged(mut command: Command, log: &Path) -> Child {
    let log = fs::File::create(log).expect("a file in the directory");
    command
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("the server's program")
}

/// Waits until a process tells its service manager, which is us, that it serves.
fn await_ready(notices: &UnixDatagram, process: &mut Child) {
    let short = Some(Duration::from_millis(100));
    notices.set_read_timeout(short).expect("not zero");
    let mut message = [0; 512];
    for _ in 0..300 {
        if let Ok(length) = notices.recv(&mut message)
            && String::from_utf8_lossy(&message[..length])
                .lines()
                .any(|line| line == "READY=1")
        {
            return;
        }
        still_there(process);
    }
    panic!("turnd is not ready after 30 s");
}

/// Waits until something accepts connections.
fn await_listener(address: SocketAddr, process: &mut Child) {
    for _ in 0..300 {
        if TcpStream::connect(address).is_ok() {
            return;
        }
        still_there(process);
        std::thread::park_timeout(Duration::from_millis(100));
    }
    panic!("nobody listens on {address} after 30 s");
}

fn still_there(process: &mut Child) {
    if let Ok(Some(status)) = process.try_wait() {
        panic!("a server ended before it was ready: {status}");
    }
}

/// A file for its owner alone.
fn private(path: &Path, text: &str) {
    fs::write(path, text).expect("the directory is writable");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("the file is ours");
}

fn certificate(dir: &Path) {
    let names = vec!["turn.test".to_owned()];
    let parameters = rcgen::CertificateParams::new(names).expect("a good name");
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = parameters.self_signed(&key).expect("a certificate");
    private(&dir.join("cert.pem"), &certificate.pem());
    private(&dir.join("key.pem"), &key.serialize_pem());
}

// ---- the network ----

/// Runs this program again in a network of its own, or tells why it cannot.
pub(crate) fn in_a_network_of_its_own() -> Result<ExitCode, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    for options in [&["--net"][..], &["--user", "--map-root-user", "--net"]] {
        let possible = Command::new("unshare")
            .args(options)
            .args(["ip", "link", "set", "lo", "up"])
            .stderr(Stdio::null())
            .status();
        if !possible.is_ok_and(|status| status.success()) {
            continue;
        }
        let status = Command::new("unshare")
            .args(options)
            .args(["--fork", "--kill-child"])
            .arg(program)
            .args(std::env::args_os().skip(1))
            .env(INSIDE, "1")
            .status()
            .map_err(|error| error.to_string())?;
        return Ok(ExitCode::from(u8::from(!status.success())));
    }
    Err("a network of its own needs `unshare`, `ip`, and root or user namespaces".into())
}

/// Whether this is the program in its own network.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Puts every address that is used here on the loopback interface.
pub(crate) fn build_network() {
    const ANY_ADDRESS: &str = "/proc/sys/net/ipv6/ip_nonlocal_bind";
    fs::write(ANY_ADDRESS, "1").expect("the network is ours");
    let local = ["-6", "route", "add", "local"];
    for arguments in [
        &["link", "set", "lo", "up"][..],
        &[&local[..], &["fd00::/16", "dev", "lo"]].concat(),
        // Tunnels that must not be served.
        &[&local[..], &["2002::/16", "dev", "lo"]].concat(),
    ] {
        let status = Command::new("ip").args(arguments).status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "ip {arguments:?} failed"
        );
    }
}

const INSIDE: &str = "TURND_CONFORMANCE_INSIDE";
pub(crate) const SECRET: &str = "north-north-north-and-north-again";
const KID: &str = "north";
const TOKEN_KEY: [u8; 32] = [0x35; 32];
const USER: &str = "harbour";
const PASSWORD: &str = "a long and winding password of these checks";
pub(crate) const REALM: &str = "turn.test";
/// Allocations of one user, where they are few.
pub(crate) const QUOTA: u32 = 4;
/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);
