//! `turnd test`: the real command against a real turnd, against coturn, and against what is broken in one way each.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod broken;
mod coturn;
mod fake;
mod hostile;
#[path = "../daemon/process.rs"]
mod process;
#[path = "../wire/mod.rs"]
mod wire;

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use process::{Daemon, SECRET, Start, certificate_for, free_address};
use wire::{Client, PASSWORD, USER};

/// Everything that is tried at a relay, in its order.
const STEPS: [&str; 11] = [
    "binding",
    "challenge",
    "allocate",
    "other-family",
    "second-allocation",
    "permission",
    "indications",
    "channels",
    "round-trip",
    "packet-size",
    "throughput",
];

// ---- what works ----

#[test]
fn a_server_that_works_is_found_to_work_over_udp_and_tcp() {
    let daemon = Start::with("").ready();
    let ended = Test::of(&daemon)
        .secret()
        .url("turn", "?transport=udp")
        .url("turn", "?transport=tcp")
        .json();
    assert_eq!(ended.code, 0, "{}", ended.all());
    let report = ended.json();
    assert_eq!(
        (&report["version"], &report["ok"]),
        (&Value::from(1), &Value::from(true))
    );
    for (number, transport) in ["UDP", "TCP"].into_iter().enumerate() {
        let server = &report["urls"][number]["servers"][0];
        assert_eq!(server["transport"], transport);
        assert_eq!(server["address"], daemon.udp.to_string());
        let mut expected = STEPS.to_vec();
        if transport == "TCP" {
            expected.insert(0, "connect");
        }
        expected.push("release");
        assert_eq!(names(server), expected, "{server:#}");
        let mapped = step(server, "binding")["mapped_address"].as_str().unwrap();
        assert!(mapped.starts_with("127.0.0.1:"), "{mapped}");
        assert_eq!(step(server, "challenge")["realm"], "turnd");
        let relayed = &step(server, "allocate")["relayed_addresses"][0];
        assert!(
            relayed.as_str().unwrap().starts_with("127.0.0.1:4"),
            "{relayed}"
        );
        assert_eq!(step(server, "allocate")["lifetime_seconds"], 600);
        let other = step(server, "other-family");
        assert_eq!(
            (&other["result"], &other["code"]),
            (&"note".into(), &440.into())
        );
        let round_trip = step(server, "round-trip");
        assert_eq!(round_trip["sent"], COUNT, "{round_trip:#}");
        assert!(
            round_trip["received"].as_u64().unwrap() * 2 >= COUNT,
            "{round_trip:#}"
        );
        let times = ["min_ms", "median_ms", "p99_ms"].map(|key| round_trip[key].as_f64().unwrap());
        assert!(times[0] > 0.0 && times.is_sorted(), "{times:?}");
        // Loopback takes any size.
        assert_eq!(step(server, "packet-size")["largest"], 8192);
        assert!(
            step(server, "throughput")["megabits_per_second"]
                .as_f64()
                .unwrap()
                > 0.0
        );
    }
    // All relays were given back.
    daemon.until("turn_allocations{transport=\"udp\",family=\"ipv4\"}", 0.0);
    daemon.until("turn_allocations{transport=\"tcp\",family=\"ipv4\"}", 0.0);
}

#[test]
fn people_are_told_in_lines_and_nobody_is_told_the_secret() {
    let daemon = Start::with("").ready();
    let ended = Test::of(&daemon).secret().url("turn", "").run();
    assert_eq!(ended.code, 0, "{}", ended.all());
    let out = &ended.out;
    assert!(
        out.starts_with(&format!(
            "turn:{}?transport=udp\n  {} over UDP\n",
            daemon.udp, daemon.udp
        )),
        "{out}"
    );
    for word in [
        "    ok      own address",
        "ok      relay ",
        "median",
        "Mbit/s",
        "\nIt works.\n",
    ] {
        assert!(out.contains(word), "{word} is missing in\n{out}");
    }
    // Neither colours nor progress where there is no terminal.
    assert!(
        !out.contains('\u{1b}') && ended.err.is_empty(),
        "{}",
        ended.all()
    );
    assert!(!ended.all().contains(SECRET));
}

#[test]
fn without_urls_every_listener_of_the_configuration_is_tested() {
    let (daemon, address) = with_certificate_for("turn.test");
    let place = daemon.place.0.display();
    let ended = Test::new()
        .flag("--config", &format!("{place}/turnd.toml"))
        .flag("--ca", &format!("{place}/cert.pem"))
        .json();
    assert_eq!(ended.code, 0, "{}", ended.all());
    let report = ended.json();
    let urls: Vec<&str> = report["urls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|url| url["url"].as_str().unwrap())
        .collect();
    let udp = daemon.udp;
    assert_eq!(
        urls,
        [
            format!("turn:{udp}?transport=udp"),
            format!("turn:{udp}?transport=tcp"),
            format!("turns:{address}?transport=tcp"),
            format!("turns:{address}?transport=udp"),
        ]
    );
    let tls = step(&report["urls"][2]["servers"][0], "connect");
    assert_eq!(
        (&tls["protocol"], &tls["alpn"]),
        (&Value::from("TLS 1.3"), &Value::from("stun.turn"))
    );
    assert!(
        tls["cipher"].as_str().unwrap().starts_with("TLS13_"),
        "{tls:#}"
    );
    assert_eq!(tls["certificates"][0]["names"][0], "turn.test");
    assert!(tls["certificates"][0]["days_left"].as_i64().unwrap() > 365);
    let dtls = step(&report["urls"][3]["servers"][0], "connect");
    assert_eq!(dtls["protocol"], "DTLS 1.2");
    assert!(
        dtls["cipher"].as_str().unwrap().starts_with("TLS_ECDHE_"),
        "{dtls:#}"
    );
}

#[test]
fn a_server_of_ipv6_works() {
    let start = Start::with("");
    let address: SocketAddr = format!("[::1]:{}", free_address().port()).parse().unwrap();
    let config = format!(
        "[relay]\naddresses = ['127.0.0.1', '::1']\nports = '40000-40999'\n[auth]\nsecrets = [{{ file = 'secret' }}]\n[[listen]]\naddress = '{address}'\n"
    );
    start.place.write("turnd.toml", &config);
    let daemon = start.ready();
    let ended = Test::of(&daemon)
        .secret()
        .arg(&format!("turn:{address}"))
        .json();
    assert_eq!(ended.code, 0, "{}", ended.all());
    let report = ended.json();
    let server = &report["urls"][0]["servers"][0];
    assert_eq!(server["address"], address.to_string());
    let other = &step(server, "other-family")["relayed_addresses"][0];
    assert!(other.as_str().unwrap().starts_with("[::1]:"), "{other}");
}

#[test]
fn sha256_is_used_where_the_server_wants_nothing_else() {
    let strict = free_address();
    let daemon = Start::with(&format!(
        "[[listen]]\naddress = '{strict}'\npassword_algorithms = ['sha256']"
    ))
    .ready();
    let ended = Test::of(&daemon)
        .secret()
        .arg(&format!("turn:{strict}"))
        .json();
    assert_eq!(ended.code, 0, "{}", ended.all());
    let report = ended.json();
    let algorithms = &step(&report["urls"][0]["servers"][0], "challenge")["password_algorithms"];
    assert_eq!(algorithms, &serde_json::json!(["sha256"]));
}

#[test]
fn who_has_no_credential_is_told_what_strangers_see() {
    let daemon = Start::with("").ready();
    let ended = Test::of(&daemon).url("turn", "").url("stun", "").json();
    assert_eq!(ended.code, 0, "{}", ended.all());
    let report = ended.json();
    let server = &report["urls"][0]["servers"][0];
    assert_eq!(names(server), ["binding", "challenge", "allocate"]);
    let allocate = step(server, "allocate");
    assert_eq!(allocate["result"], "note");
    assert!(advice(allocate).contains("--secret-file"));
    assert_eq!(names(&report["urls"][1]["servers"][0]), ["binding"]);
}

#[test]
fn a_server_that_sends_its_clients_elsewhere_is_followed() {
    let other = Start::with("").ready();
    let daemon = Start::with(&format!(
        "[redirect]\nto = ['{}']\nwhen = ['always']",
        other.udp
    ))
    .ready();
    let ended = Test::of(&daemon).secret().url("turn", "").json();
    assert_eq!(ended.code, 0, "{}", ended.all());
    let report = ended.json();
    let redirect = step(&report["urls"][0]["servers"][0], "redirect");
    assert_eq!(redirect["alternate_server"], other.udp.to_string());
    assert_eq!(redirect["result"], "note");
}

// ---- certificates ----

/// A server with a certificate for this host.
fn with_certificate_for(host: &str) -> (Daemon, SocketAddr) {
    let start = Start::with("");
    certificate_for(host, &start.place.0, "", 2100);
    let address = free_address();
    let more =
        |transport: &str| format!("[[listen]]\naddress = '{address}'\ntransport = '{transport}'\n");
    start.configure(&format!(
        "{}{}[tls]\ncertificate = 'cert.pem'\nkey = 'key.pem'\n",
        more("tls"),
        more("dtls")
    ));
    (start.ready(), address)
}

#[test]
fn a_certificate_is_believed_if_its_authority_is_named() {
    let (daemon, address) = with_certificate_for("127.0.0.1");
    let [tls, dtls] =
        ["tcp", "udp"].map(|transport| format!("turns:{address}?transport={transport}"));
    let both = || Test::of(&daemon).secret().arg(&tls).arg(&dtls);
    let ended = both()
        .flag("--ca", &format!("{}/cert.pem", daemon.place.0.display()))
        .json();
    assert_eq!(ended.code, 0, "{}", ended.all());

    let ended = both().json();
    assert_eq!(ended.code, 1, "{}", ended.all());
    let report = ended.json();
    for number in [0, 1] {
        let server = &report["urls"][number]["servers"][0];
        // Nothing is said to a server that nobody vouches for, least of all a credential.
        assert_eq!(names(server), ["connect"]);
        let connect = step(server, "connect");
        assert_eq!(connect["fault"], "certificate");
        assert!(advice(connect).contains("--ca"), "{connect:#}");
        assert_eq!(connect["certificates"][0]["names"][0], "127.0.0.1");
    }

    let ended = both().arg("--insecure").json();
    assert_eq!(ended.code, 0, "{}", ended.all());
    assert_eq!(
        step(&ended.json()["urls"][0]["servers"][0], "connect")["result"],
        "note"
    );
}

#[test]
fn a_certificate_of_another_host_is_not_believed() {
    let (daemon, address) = with_certificate_for("other.test");
    let ca = format!("{}/cert.pem", daemon.place.0.display());
    let ended = Test::of(&daemon)
        .secret()
        .arg(&format!("turns:{address}"))
        .flag("--ca", &ca)
        .run();
    assert_eq!(ended.code, 1, "{}", ended.all());
    assert!(
        ended.out.contains("for another host: other.test"),
        "{}",
        ended.out
    );
    assert!(
        ended.out.contains("does not name 127.0.0.1") && ended.out.contains("It does not work."),
        "{}",
        ended.out
    );
}

// ---- credentials ----

#[test]
fn a_wrong_secret_is_told_from_a_wrong_hash() {
    let daemon = Start::with("").ready();
    let wrong = daemon
        .place
        .write("wrong", "MARKER-south-south-south-south");
    let ended = Test::of(&daemon)
        .flag("--secret-file", wrong.to_str().unwrap())
        .url("turn", "")
        .json();
    let allocate = ended.failed("allocate");
    assert_eq!(
        (&allocate["fault"], &allocate["code"]),
        (&Value::from("login"), &Value::from(401))
    );
    assert!(
        advice(&allocate).contains("does not know this secret"),
        "{allocate:#}"
    );
    assert!(!ended.all().contains("MARKER"), "{}", ended.all());

    let ended = Test::of(&daemon)
        .secret()
        .arg("--sha256")
        .url("turn", "")
        .json();
    assert!(
        advice(&ended.failed("allocate")).contains("leave --sha256 out"),
        "{}",
        ended.all()
    );
}

#[test]
fn an_expired_credential_is_told_from_a_wrong_password() {
    let daemon = Start::with("").ready();
    let mac = <Hmac<sha1::Sha1>>::new_from_slice(SECRET.as_bytes()).unwrap();
    let password = STANDARD.encode(mac.chain_update("1000000000:bob").finalize().into_bytes());
    let old = daemon.place.write("old", &password);
    let test = |user: &str| {
        Test::of(&daemon)
            .flag("--user", user)
            .flag("--password-file", old.to_str().unwrap())
            .url("turn", "")
            .json()
    };
    for (user, word) in [
        ("1000000000:bob", "expired"),
        (
            "99999999999:bob",
            "password is not what the server makes of it",
        ),
        ("bob", "no such name with such a password"),
    ] {
        let ended = test(user);
        let allocate = ended.failed("allocate");
        assert_eq!(allocate["code"], 401);
        assert!(advice(&allocate).contains(word), "{user}: {allocate:#}");
    }
}

#[test]
fn a_user_with_a_password_is_let_in() {
    let daemon = Start::with("").ready();
    let ended = Test::of(&daemon).user().url("turn", "").json();
    assert_eq!(ended.code, 0, "{}", ended.all());
}

// ---- limits ----

#[test]
fn a_user_who_may_have_one_relay_is_told_and_the_rest_is_tested_with_it() {
    let daemon = Start::with("[limits]\nper_user = 1").ready();
    let ended = Test::of(&daemon).user().url("turn", "").json();
    let second = ended.failed("second-allocation");
    assert_eq!(second["code"], 486);
    assert!(advice(&second).contains("limits.per_user"), "{second:#}");
    let report = ended.json();
    let server = &report["urls"][0]["servers"][0];
    for name in ["indications", "round-trip", "throughput"] {
        assert_eq!(step(server, name)["result"], "ok", "{server:#}");
    }
}

#[test]
fn a_user_who_may_have_no_relay_more_is_told() {
    let daemon = Start::with("[limits]\nper_user = 1").ready();
    let mut other = Client::udp(daemon.udp);
    other.allocate();
    let ended = Test::of(&daemon).user().url("turn", "").json();
    let allocate = ended.failed("allocate");
    assert_eq!(allocate["code"], 486);
    assert!(
        advice(&allocate).contains("as many relays as one may have"),
        "{allocate:#}"
    );
}

#[test]
fn a_server_that_drains_is_told_from_a_broken_one() {
    let mut daemon = Start::with("").ready();
    let mut other = Client::udp(daemon.udp);
    other.allocate();
    daemon.signal(Signal::TERM);
    daemon.expect("STOPPING=1");
    daemon.log("draining");
    let ended = Test::of(&daemon).secret().url("turn", "").json();
    let allocate = ended.failed("allocate");
    assert_eq!(allocate["code"], 508, "{}", ended.all());
    assert!(
        advice(&allocate).contains("drains before a restart"),
        "{allocate:#}"
    );
}

// ---- the end ----

/// Whoever has seen enough leaves no relays behind, which would count against the user for ten minutes.
#[test]
fn who_is_interrupted_gives_the_relays_back() {
    for signal in [Signal::INT, Signal::TERM] {
        let daemon = Start::with("").ready();
        let mut test = Test::new().flag("--count", "500").flag("--timeout", "60s");
        test.daemon = Some(&daemon);
        let mut test = test.secret().url("turn", "").arg("stun:192.0.2.1");
        let child = test
            .command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        daemon.until("turn_allocations{transport=\"udp\",family=\"ipv4\"}", 2.0);
        let pid = Pid::from_child(&child);
        kill_process(pid, signal).unwrap();
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(130));
        let out = String::from_utf8(ended.stdout).unwrap();
        for part in [
            "stopped before the end",
            "ok      release",
            "\nStopped before the end.\n",
        ] {
            assert!(out.contains(part), "{part} is missing in\n{out}");
        }
        assert!(!out.contains("192.0.2.1"), "{out}");
        daemon.until("turn_allocations{transport=\"udp\",family=\"ipv4\"}", 0.0);
    }
}

// ---- the command line ----

#[test]
fn wrong_command_lines_and_configurations_have_their_exit_codes() {
    let daemon = Start::with("").ready();
    for wrong in [
        &["http://example.org"][..],
        &["turn:example.org", "--password-file", "x"],
        &["turn:example.org", "--user", "alice"],
        &["turn:example.org", "--sha256"],
        &["turn:example.org", "--secret", SECRET],
        &["turn:example.org", "--count", "0"],
        &[
            "turn:example.org",
            "--user",
            "a",
            "--password-file",
            "x",
            "--secret-file",
            "y",
        ],
    ] {
        let ended = Test::new().args(wrong).run();
        assert_eq!(
            (ended.code, ended.out.as_str()),
            (2, ""),
            "{wrong:?}\n{}",
            ended.err
        );
    }
    let place = daemon.place.0.display();
    daemon.place.write("bad.toml", "[relay]\nprot = '1-2'\n");
    let ended = Test::new()
        .flag("--config", &format!("{place}/bad.toml"))
        .run();
    assert_eq!(ended.code, 78, "{}", ended.all());
    for missing in ["--secret-file", "--ca"] {
        let ended = Test::new()
            .arg("turn:127.0.0.1")
            .flag(missing, &format!("{place}/nowhere"))
            .run();
        assert_eq!(ended.code, 1, "{}", ended.all());
        assert!(
            ended.err.contains("nowhere cannot be read"),
            "{}",
            ended.err
        );
    }
}

#[test]
fn the_help_teaches_by_example() {
    let ended = Test::new().arg("--help").run();
    assert_eq!(ended.code, 0);
    for word in [
        "Examples:",
        "--secret-file",
        "turns:",
        "Exit codes:",
        "--insecure",
    ] {
        assert!(
            ended.out.contains(word),
            "{word} is missing in\n{}",
            ended.out
        );
    }
    assert!(
        ended.out.lines().all(|line| line.chars().count() <= 110),
        "{}",
        ended.out
    );
}

// ---- helpers ----

/// Packets to measure with: few, the machine has other things to do.
const COUNT: u64 = 10;

/// A run of the command.
pub(crate) struct Test<'a> {
    command: Command,
    daemon: Option<&'a Daemon>,
}

pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl<'a> Test<'a> {
    pub(crate) fn new() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnd"));
        command.arg("test").env_clear().stdin(Stdio::null());
        Self {
            command,
            daemon: None,
        }
    }

    fn of(daemon: &'a Daemon) -> Self {
        let mut test = Self::new()
            .flag("--count", &COUNT.to_string())
            .flag("--timeout", "60s");
        test.daemon = Some(daemon);
        test
    }

    pub(crate) fn arg(mut self, argument: &str) -> Self {
        self.command.arg(argument);
        self
    }

    fn args(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    pub(crate) fn flag(self, name: &str, value: &str) -> Self {
        self.arg(name).arg(value)
    }

    fn place(&self) -> &'a Path {
        &self.daemon.unwrap().place.0
    }

    fn secret(self) -> Self {
        let file = self.place().join("secret");
        self.flag("--secret-file", file.to_str().unwrap())
    }

    fn user(self) -> Self {
        let file = self.place().join(USER);
        assert_eq!(fs::read_to_string(&file).unwrap(), PASSWORD);
        self.flag("--user", USER)
            .flag("--password-file", file.to_str().unwrap())
    }

    fn url(self, scheme: &str, query: &str) -> Self {
        let address = self.daemon.unwrap().udp;
        self.arg(&format!("{scheme}:{address}{query}"))
    }

    pub(crate) fn json(self) -> Ended {
        self.arg("--json").run()
    }

    pub(crate) fn run(mut self) -> Ended {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command.output().unwrap();
        Ended {
            code: status.code().unwrap(),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        }
    }
}

impl Ended {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in\n{}", self.all()))
    }

    pub(crate) fn all(&self) -> String {
        format!("exit code {}\n{}\n{}", self.code, self.out, self.err)
    }

    /// The step that failed at the first address of the first URL.
    pub(crate) fn failed(&self, name: &str) -> Value {
        assert_eq!(self.code, 1, "{}", self.all());
        let report = self.json();
        assert_eq!(
            (&report["ok"], &report["urls"][0]["ok"]),
            (&Value::from(false), &Value::from(false))
        );
        let found = step(&report["urls"][0]["servers"][0], name).clone();
        assert_eq!(found["result"], "failed", "{found:#}");
        found
    }
}

/// The names of the steps.
pub(crate) fn names(server: &Value) -> Vec<&str> {
    let steps = server["steps"]
        .as_array()
        .unwrap_or_else(|| panic!("no steps in {server:#}"));
    steps
        .iter()
        .map(|step| step["step"].as_str().unwrap())
        .collect()
}

/// The last step of this name.
pub(crate) fn step<'a>(server: &'a Value, name: &str) -> &'a Value {
    let steps = server["steps"]
        .as_array()
        .unwrap_or_else(|| panic!("no steps in {server:#}"));
    let found = steps.iter().rfind(|step| step["step"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {server:#}"))
}

pub(crate) fn advice(step: &Value) -> &str {
    step["advice"]
        .as_str()
        .unwrap_or_else(|| panic!("no advice in {step:#}"))
}

/// A socket of UDP on loopback that waits no longer than a test.
pub(crate) fn udp_socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(std::time::Duration::from_millis(100)))
        .unwrap();
    socket
}
