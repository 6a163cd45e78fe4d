//! The server under test: turnd, or coturn when the rig itself is in doubt (`TURND_TEST_SERVER=coturn`).

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command};
use std::time::Duration;

use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::rig::{HOSTS, Host, NAME, RELAY, Rig, succeed};
use crate::tool::Tool;

/// The secret that the server shares with whoever gives out credentials.
pub(crate) const SECRET: &str = "a secret of these tests";

/// A running server, and the resolver that knows its name.
pub(crate) struct Server<'a> {
    rig: &'a Rig,
    process: Child,
    resolver: Child,
    /// What turnd tells its service manager comes here.
    notices: Option<UnixDatagram>,
}

impl<'a> Server<'a> {
    /// Returns what a test needs to run the server that the environment chose.
    pub(crate) fn tools() -> &'static [Tool] {
        if is_coturn() { &[Tool::Coturn] } else { &[] }
    }

    /// Starts the server on the rig's middle host and waits until it says that it serves.
    pub(crate) fn start(rig: &'a Rig) -> Self {
        Self::start_with(rig, &Setup::default())
    }

    /// The same, if it is turnd, with another configuration.
    pub(crate) fn start_with(rig: &'a Rig, setup: &Setup) -> Self {
        write_certificates(rig);
        let secret = rig.dir().join("secret");
        fs::write(&secret, SECRET).expect("the rig's directory is writable");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("the file is ours");
        let resolver = start_resolver(rig);
        let (process, notices) = if is_coturn() {
            (start_coturn(rig), None)
        } else {
            let (process, notices) = start_turnd(rig, setup);
            (process, Some(notices))
        };
        Self {
            rig,
            process,
            resolver,
            notices,
        }
    }

    /// Writes nonsense into turnd's configuration, asks for a reload, and waits until it was refused.
    pub(crate) fn reload_broken(&mut self) {
        fs::write(self.rig.dir().join(CONFIG), "[server\nrealm = 7\n")
            .expect("the rig's directory is writable");
        succeed(Command::new("sh").args(["-c", &format!("kill -HUP {}", self.process.id())]));
        let notices = self.notices.as_ref().expect("turnd tells");
        await_notice(notices, &mut self.process, "RELOADING=1");
        await_notice(notices, &mut self.process, "READY=1");
        let metrics = metrics(self.rig, PAGES);
        assert!(metrics.contains("\nturn_config_stale 1\n"), "{metrics}");
    }

    /// Tells whether the process still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.process.try_wait().is_ok_and(|status| status.is_none())
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !is_coturn() {
            eprintln!("---- what turnd counted\n{}", metrics(self.rig, PAGES));
        }
        for child in [&mut self.process, &mut self.resolver] {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

/// What differs from test to test in turnd's configuration.
pub(crate) struct Setup {
    /// What stands in the table `[auth]`. The file `secret` has [`SECRET`] in it.
    pub(crate) auth: String,
    /// More tables.
    pub(crate) more: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            auth: r#"secrets = [{ id = "main", file = "secret", algorithm = "sha1" }]"#.into(),
            more: String::new(),
        }
    }
}

/// Tells whether the server is coturn, which reloads nothing and is not ours to judge.
pub(crate) fn is_coturn() -> bool {
    std::env::var_os("TURND_TEST_SERVER").is_some_and(|value| value == "coturn")
}

/// A time-limited user name and its password.
#[derive(Clone)]
pub(crate) struct Credential {
    pub(crate) username: String,
    pub(crate) password: String,
}

impl Credential {
    /// The one of the user that [`NAMED`] lets in.
    pub(crate) fn named() -> Self {
        Self {
            username: "alice".into(),
            password: SECRET.into(),
        }
    }

    /// Has turnd itself make one for the server that runs.
    pub(crate) fn minted(rig: &Rig) -> Self {
        let arguments = [
            "credential",
            "--config",
            CONFIG,
            "--user",
            "alice",
            "--json",
        ];
        let output = rig.run(Host::S, env!("CARGO_BIN_EXE_turnd"), &arguments);
        let json = output.find('{').map(|start| &output[start..]);
        let words: serde_json::Value =
            serde_json::from_str(json.expect("an object")).expect("it is JSON");
        let login = &words["iceServers"][1];
        let text = |key: &str| login[key].as_str().expect("a text").to_owned();
        Self {
            username: text("username"),
            password: text("credential"),
        }
    }

    /// Returns one that is good for `seconds` more, or was good until that long ago.
    pub(crate) fn lasting(seconds: i64) -> Self {
        let now = unix();
        let username = format!("{}:alice", now.saturating_add_signed(seconds));
        let mut mac =
            Hmac::<sha1::Sha1>::new_from_slice(SECRET.as_bytes()).expect("HMAC takes any key");
        mac.update(username.as_bytes());
        let password =
            base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
        Self { username, password }
    }
}

/// The time of day, in seconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "credentials and tokens end at a time of day"
)]
pub(crate) fn unix() -> u64 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH)
        .expect("the clock is after 1970")
        .as_secs()
}

fn start_turnd(rig: &Rig, setup: &Setup) -> (Child, UnixDatagram) {
    let dir = rig.dir().display();
    let Setup { auth, more } = setup;
    let listen: String = ["udp 3478", "tcp 3478", "tls 5349", "dtls 5349"]
        .iter()
        .filter_map(|line| line.split_once(' '))
        .flat_map(|(transport, port)| ["0.0.0.0", "[::]"].map(|address| (transport, port, address)))
        .map(|(transport, port, address)| {
            format!("[[listen]]\naddress = \"{address}:{port}\"\ntransport = \"{transport}\"\n")
        })
        .collect();
    let config = format!(
        r#"
[server]
realm = "{NAME}"
mobility = true
rfc5766_channels = true
{listen}
[relay]
addresses = ["{RELAY}", "fd99::1"]
ports = "50000-50999"
[auth]
{auth}
[peers]
allow = ["10.99.0.0/16", "fd99::/16"]
[tls]
certificate = "{dir}/cert.pem"
key = "{dir}/key.pem"
[metrics]
listen = "127.0.0.1:{PAGES}"
[log]
level = "debug"
{more}
"#
    );
    fs::write(rig.dir().join(CONFIG), config).expect("the rig's directory is writable");
    let notify = rig.dir().join("notify");
    let notices = UnixDatagram::bind(&notify).expect("the rig's directory takes a socket");
    let log = rig.log("turnd");
    let mut process = rig
        .command(Host::S, env!("CARGO_BIN_EXE_turnd"))
        .args(["run", "--config", CONFIG])
        .env("NOTIFY_SOCKET", &notify)
        .env("STATE_DIRECTORY", rig.dir().join("state"))
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("setpriv exists");
    // Short waits: a server that ended will never say anything again.
    let short = Some(Duration::from_millis(100));
    notices.set_read_timeout(short).expect("not zero");
    await_notice(&notices, &mut process, "READY=1");
    (process, notices)
}

/// Waits until turnd tells its service manager, which is us, this line.
fn await_notice(notices: &UnixDatagram, process: &mut Child, wanted: &str) {
    let mut message = [0; 512];
    for _ in 0..150 {
        if let Ok(length) = notices.recv(&mut message)
            && String::from_utf8_lossy(&message[..length])
                .lines()
                .any(|line| line == wanted)
        {
            return;
        }
        if let Ok(Some(status)) = process.try_wait() {
            panic!("turnd did not say {wanted} but ended: {status}");
        }
    }
    _ = process.kill();
    _ = process.wait();
    panic!("turnd did not say {wanted} within 15 s");
}

fn start_coturn(rig: &Rig) -> Child {
    let dir = rig.dir().display();
    let listen: String = HOSTS
        .map(|host| {
            format!(
                "listening-ip={}\nlistening-ip={}\n",
                host.server(),
                host.server6()
            )
        })
        .concat();
    let config = format!(
        "{listen}relay-ip={RELAY}\nrelay-ip=fd99::1\nmin-port=50000\nmax-port=50999\nuse-auth-secret\n\
         static-auth-secret={SECRET}\nrealm={NAME}\ncert={dir}/cert.pem\npkey={dir}/key.pem\nno-cli\nfingerprint\n\
         log-file=stdout\nverbose\nuserdb={dir}/users\npidfile={dir}/pid\n"
    );
    fs::write(rig.dir().join(CONFIG), config).expect("the rig's directory is writable");
    let log = rig.log("coturn");
    let process = rig
        .command(Host::S, "turnserver")
        .args(["-c", CONFIG])
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("setpriv exists");
    // It says nothing when it is ready, but the TLS listener is its last.
    wait_for(rig, 5349);
    process
}

/// Asks the turnd that shows them at this port for its metrics that count anything.
pub(crate) fn metrics(rig: &Rig, port: u16) -> String {
    let request = format!(
        r"exec 3<> /dev/tcp/127.0.0.1/{port}; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; grep -v '^#\| 0$' <&3"
    );
    let output = rig
        .command(Host::S, "timeout")
        .args(["5", "bash", "-c", request.as_str()])
        .output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default()
}

/// Has `turnd sessions` list the allocations of the server that runs.
pub(crate) fn sessions(rig: &Rig) -> Vec<serde_json::Value> {
    let arguments = ["sessions", "--config", CONFIG, "--json"];
    let output = rig.run(Host::S, env!("CARGO_BIN_EXE_turnd"), &arguments);
    let json = output.find('{').map(|start| &output[start..]);
    let list: serde_json::Value =
        serde_json::from_str(json.expect("an object")).expect("it is JSON");
    list["sessions"].as_array().expect("it is a list").clone()
}

/// Waits until something accepts connections at the server's host.
fn wait_for(rig: &Rig, port: u16) {
    let address = Host::A.server();
    let script = format!(
        "for i in $(seq 100); do : < /dev/tcp/{address}/{port} && exit 0; sleep 0.1; done; exit 1"
    );
    succeed(rig.command(Host::S, "bash").args(["-c", &script]));
}

/// A resolver on the server's host that answers each client with the address on its own link.
fn start_resolver(rig: &Rig) -> Child {
    let line = |host: Host| {
        format!(
            "{} {NAME}\n{} {}\n",
            host.server(),
            host.server6(),
            host.server6_name()
        )
    };
    let hosts = [Host::A, Host::B].map(line).concat();
    let file = rig.dir().join("hosts");
    fs::write(&file, hosts).expect("the rig's directory is writable");
    let log = rig.log("dnsmasq");
    let addresses = format!("--listen-address={},{}", Host::A.server(), Host::B.server());
    let process = rig
        .command(Host::S, "dnsmasq")
        .args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
        ])
        .args([
            "--localise-queries",
            "--bind-interfaces",
            "--user=root",
            "--pid-file=",
            "--local=/#/",
            &addresses,
        ])
        .arg(format!("--addn-hosts={}", file.display()))
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("setpriv exists");
    wait_for(rig, 53);
    process
}

/// Writes a certificate authority of this rig alone, and the server's certificate by it.
fn write_certificates(rig: &Rig) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::new()).expect("no names");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name
        .push(DnType::CommonName, "the rig's authority");
    let ca_pem = ca.self_signed(&ca_key).expect("a certificate").pem();
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate().expect("a key");
    let mut names = vec![NAME.to_owned()];
    names.extend(
        [Host::A, Host::B]
            .iter()
            .flat_map(|host| [host.server(), host.server6()])
            .map(str::to_owned),
    );
    debug_assert!(names[1..].iter().all(|name| name.parse::<IpAddr>().is_ok()));
    let mut leaf = CertificateParams::new(names).expect("good names");
    leaf.distinguished_name.push(DnType::CommonName, NAME);
    leaf.use_authority_key_identifier_extension = true;
    leaf.extended_key_usages
        .push(rcgen::ExtendedKeyUsagePurpose::ServerAuth);
    let leaf_pem = leaf.signed_by(&key, &issuer).expect("a certificate").pem();

    for (file, text) in [
        ("ca.pem", ca_pem),
        ("cert.pem", leaf_pem),
        ("key.pem", key.serialize_pem()),
    ] {
        let path = rig.dir().join(file);
        fs::write(&path, text).expect("the rig's directory is writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("the file is ours");
    }
}

/// A table `[auth]` with a user who has a password.
pub(crate) const NAMED: &str = r#"users = [{ name = "alice", password_file = "secret" }]"#;

/// The name of its configuration.
pub(crate) const CONFIG: &str = "server.conf";
/// Where turnd shows its metrics.
pub(crate) const PAGES: u16 = 9641;
