//! The binary as a process: what it tells the service manager, the operator and the log, and how it ends.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod import;
mod process;
#[path = "../wire/mod.rs"]
mod wire;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::AeadInOut as _;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use rustix::process::Signal;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use turnd::stun::{
    Attribute, Class, Integrity, Key, Message, Method, PasswordAlgorithm, TransactionId, Writer,
};

use process::{Place, SECRET, Start, certificate, certificate_for, free_address};
use wire::{Client, PATIENCE};

// ---- the service manager ----

#[test]
fn the_service_manager_hears_of_the_whole_life() {
    let mut start = Start::with("");
    start.command.env("WATCHDOG_USEC", "400000");
    let mut daemon = start.ready();
    daemon.expect("WATCHDOG=1");
    daemon.expect("WATCHDOG=1");
    daemon.signal(Signal::HUP);
    daemon.expect("RELOADING=1");
    daemon.expect("READY=1");
    daemon.signal(Signal::TERM);
    daemon.expect("STOPPING=1");
    assert!(daemon.ended().success());
}

#[test]
fn sockets_of_the_service_manager_are_taken_over() {
    let place = Place::new();
    let address = free_address();
    place.write("turnd.toml", &format!("[server]\nworkers = 1\n[relay]\naddresses = ['127.0.0.1']\n[[listen]]\naddress = '{address}'\n"));
    let mut command = Command::new("systemd-socket-activate");
    command.args([
        "--datagram",
        "--listen",
        &address.to_string(),
        env!("CARGO_BIN_EXE_turnd"),
        "--config",
    ]);
    command.arg(place.0.join("turnd.toml"));
    let start = Start {
        place,
        udp: address,
        metrics: free_address(),
        command,
    };
    if let Err(error) = Command::new("systemd-socket-activate")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
    {
        assert!(
            std::env::var_os("CI").is_none(),
            "systemd-socket-activate cannot be run: {error}"
        );
        eprintln!(
            "SKIPPED: systemd-socket-activate cannot be run ({error}); install systemd to have this checked"
        );
        return;
    }
    let _daemon = start.go();
    // The first datagram starts the server, and is answered by it: whoever opened the socket has kept it.
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut answer = [0; 1500];
    let length = (0..100).find_map(|_| {
        client
            .send_to(&request(Method::BINDING, |_| {}), address)
            .unwrap();
        client.recv(&mut answer).ok()
    });
    let length = length.expect("the server that was started by its socket answers");
    assert_eq!(
        Message::parse(&answer[..length]).unwrap().class(),
        Class::Success
    );
}

// ---- the first run ----

#[test]
fn the_first_run_prints_what_to_paste_and_it_works() {
    let mut start = Start::with("");
    let udp = start.udp;
    start.command = Command::new(env!("CARGO_BIN_EXE_turnd"));
    start.command.arg("--set").arg(format!(
        "listen=[{{ address = '{udp}' }}, {{ address = '{udp}', transport = 'tcp' }}]"
    ));
    let mut daemon = start.ready();
    // Its last line.
    daemon.hear("private peers");
    let said = daemon.all_said();
    for part in [
        "new RTCPeerConnection({",
        &format!("\"turn:{udp}?transport=udp\""),
        "Off, and how to turn it on:",
        "TLS",
        "metrics",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let value = |name: &str| {
        let line = said
            .lines()
            .find_map(|line| line.trim().strip_prefix(name))
            .unwrap();
        line.trim_matches([' ', '"', ',']).to_owned()
    };
    assert_eq!(
        login(
            udp,
            &value("username:"),
            &value("credential:"),
            REFRESH_NOTHING
        ),
        (0, 0)
    );
    assert_eq!(
        login(
            udp,
            &value("username:"),
            "another password",
            REFRESH_NOTHING
        )
        .0,
        401,
        "it is no open relay"
    );
    the_link_leads_to_the_self_test(&said);
    the_link_leads_to_the_dashboard(&said);
    let secret = daemon.place.0.join("state/auth-secret");
    assert_eq!(
        fs::metadata(&secret).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    assert!(
        !said.contains(fs::read_to_string(secret).unwrap().trim()),
        "{said}"
    );
}

/// The page is served where the link says, under its strict policy, and what stands behind the `#` is what is printed.
fn the_link_leads_to_the_self_test(said: &str) {
    let (host, fragment) = link_to("self-test", said);
    let answer = get(host, "self-test", "");
    for part in [
        "200 OK",
        "default-src 'none'; script-src 'sha256-",
        "no-referrer",
        "<h1>Self-test</h1>",
    ] {
        assert!(answer.contains(part), "{part}\n{answer}");
    }
    let configuration = URL_SAFE_NO_PAD.decode(fragment).unwrap();
    let configuration: serde_json::Value = serde_json::from_slice(&configuration).unwrap();
    for key in ["username", "credential"] {
        let value = configuration["iceServers"][1][key].as_str().unwrap();
        assert!(said.contains(&format!("{key}: \"{value}\"")), "{key}");
    }
}

/// What stands behind the `#` opens the operator's seat, and nothing else does.
fn the_link_leads_to_the_dashboard(said: &str) {
    let (host, token) = link_to("dashboard", said);
    let page = get(host, "dashboard", "");
    assert!(page.contains("default-src 'none'"), "{page}");
    assert!(!page.contains(token));
    for (token, answer) in [(token, "200 OK"), ("another", "401 ")] {
        let answered = get(
            host,
            "v1/status",
            &format!("Authorization: Bearer {token}\r\n"),
        );
        assert!(answered.contains(answer), "{answered}");
    }
}

/// The host and the fragment of the link to a page.
fn link_to<'a>(page: &str, said: &'a str) -> (&'a str, &'a str) {
    let between = format!("/{page}#");
    let link = said
        .lines()
        .filter_map(|line| line.strip_prefix("http://"))
        .find_map(|link| link.split_once(&between));
    let (host, fragment) = link.unwrap_or_else(|| panic!("no link to {page}\n{said}"));
    assert!(host.starts_with("127.0.0.1:"), "{host}");
    (host, fragment)
}

fn get(host: &str, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(host).unwrap();
    write!(
        stream,
        "GET /{path} HTTP/1.0\r\nHost: {host}\r\n{headers}\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_greeting_is_not_for_the_journal() {
    let mut start = Start::with("");
    let udp = start.udp;
    start.command = Command::new("sh");
    // A shell can say of its standard error what systemd would.
    let script = r#"JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@""#;
    start
        .command
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_turnd"), "--set"]);
    start
        .command
        .arg(format!("listen=[{{ address = '{udp}' }}]"));
    let mut daemon = start.ready();
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().success());
    let said = daemon.all_said();
    assert!(!said.contains("RTCPeerConnection"), "{said}");
}

// ---- reload ----

#[test]
fn a_reload_takes_effect_for_running_calls() {
    let mut daemon = Start::with("[peers]\nallow = ['127.0.0.0/8']").ready();
    let mut client = Client::udp(daemon.udp);
    client.allocate();
    let peer: SocketAddr = "127.0.0.9:5000".parse().unwrap();
    assert_eq!(client.permit(peer).code(), 0);
    daemon.configure("[peers]\nallow = ['127.0.0.0/8']\ndeny = ['127.0.0.9']");
    daemon.signal(Signal::HUP);
    daemon.log("configuration reloaded");
    assert_eq!(client.permit(peer).code(), 403);
    assert_eq!(
        daemon.metric("turn_allocations{transport=\"udp\",family=\"ipv4\"}") as u64,
        1,
        "the call goes on"
    );
    daemon.until("turn_permissions", 0.0);
}

#[test]
fn a_bad_reload_changes_nothing_and_says_so() {
    let mut daemon = Start::with("").ready();
    let mut client = Client::udp(daemon.udp);
    client.allocate();
    daemon.configure("[limits]\nper_usr = 3\n[peers]\ndeny = ['x']");
    daemon.signal(Signal::HUP);
    let first = daemon.log("configuration not reloaded");
    assert_eq!(first["level"], "ERROR");
    assert!(
        first["place"].as_str().unwrap().contains("turnd.toml:"),
        "{first}"
    );
    assert_eq!(first["help"], "did you mean `per_user`?");
    assert_eq!(
        daemon.log("configuration not reloaded")["key"],
        "peers.deny"
    );
    daemon.expect("READY=1");
    assert_eq!(daemon.metric("turn_config_stale") as u64, 1);
    assert_eq!(
        client.request(Method::REFRESH, |_| {}).code(),
        0,
        "the call goes on"
    );
    daemon.configure("");
    daemon.signal(Signal::HUP);
    daemon.log("configuration reloaded");
    assert_eq!(daemon.metric("turn_config_stale") as u64, 0);
}

#[test]
fn what_waits_for_a_restart_is_named() {
    let mut daemon = Start::with("").ready();
    let other = free_address();
    daemon.configure(&format!("[[listen]]\naddress = '{other}'"));
    daemon.signal(Signal::HUP);
    assert_eq!(daemon.log("waits for a restart")["key"], "listen");
    daemon.log("configuration reloaded");
}

/// RFC 7635: from the file of the key to the end of the allocation.
#[test]
fn a_token_lets_in_until_its_key_is_taken_out() {
    const KEY: [u8; 32] = *b"MARKER-a-key-of-thirty-two-bytes";
    const MAC_KEY: [u8; 20] = [9; 20];
    let key = |_: &[u8]| Key::from_bytes(PasswordAlgorithm::Md5, &MAC_KEY).unwrap();
    let oauth = |kids: &[&str]| {
        let keys: Vec<String> = kids
            .iter()
            .map(|kid| format!("{{ kid = '{kid}', file = 'k' }}"))
            .collect();
        let keys = keys.join(", ");
        format!("[auth.oauth]\nserver_name = 'turn.test'\nkeys = [{keys}]")
    };
    let start = Start::with(&oauth(&["k1", "k2"]));
    start.place.write("k", &STANDARD.encode(KEY));
    let mut daemon = start.ready();
    let token = access_token(&KEY, "turn.test", &MAC_KEY);
    let login = |kid, lifetime| login_by(daemon.udp, kid, &key, Some(&token), lifetime);
    assert_eq!(login("k1", REFRESH_NOTHING), (0, 0));
    assert_eq!(login("k2", REFRESH_NOTHING), (0, 0));
    daemon.configure(&oauth(&["k2"]));
    daemon.signal(Signal::HUP);
    daemon.log("configuration reloaded");
    let login = |kid, lifetime| login_by(daemon.udp, kid, &key, Some(&token), lifetime);
    assert_eq!(login("k1", REFRESH_NOTHING), (401, 401));
    assert_eq!(login("k2", REFRESH_NOTHING), (0, 0));
    daemon.configure("");
    daemon.signal(Signal::HUP);
    daemon.log("configuration reloaded");
    let login = |kid, lifetime| login_by(daemon.udp, kid, &key, Some(&token), lifetime);
    assert_eq!(login("k2", REFRESH_NOTHING), (420, 420));
    let said = daemon.all_said();
    assert!(!said.contains("MARKER") && !said.contains(&STANDARD.encode(KEY)));
}

#[test]
fn a_new_level_is_heeded() {
    let mut daemon = Start::with("[log]\nlevel = 'warn'").ready();
    daemon.configure("[log]\nlevel = 'debug'");
    daemon.signal(Signal::HUP);
    daemon.log("configuration reloaded");
    Client::udp(daemon.udp).allocate();
    assert_eq!(daemon.log("allocated")["level"], "DEBUG");
    assert!(!daemon.all_said().contains("\"ready\""));
}

// ---- certificates ----

#[test]
fn a_renewed_certificate_is_used_and_a_broken_one_is_not() {
    let start = Start::with("");
    let tls = free_address();
    let first = certificate(&start.place.0, 2040);
    let more = format!(
        "[[listen]]\naddress = '{tls}'\ntransport = 'tls'\n[tls]\ncertificate = 'cert.pem'\nkey = 'key.pem'"
    );
    start.configure(&more);
    let mut daemon = start.ready();
    assert!(handshake(tls, &first));

    let second = certificate(&daemon.place.0, 2041);
    daemon.log("certificate renewed");
    assert!(handshake(tls, &second) && !handshake(tls, &first));
    let end = daemon.metric("turn_tls_certificate_expiry_timestamp_seconds");

    daemon.place.write(
        "key.pem",
        &rcgen::KeyPair::generate().unwrap().serialize_pem(),
    );
    let refused = daemon.log("certificate not renewed");
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("does not belong"),
        "{refused}"
    );
    assert!(handshake(tls, &second), "the old one stays");
    assert_eq!(daemon.metric("turn_tls_certificate_stale") as u64, 1);
    assert!((daemon.metric("turn_tls_certificate_expiry_timestamp_seconds") - end).abs() < 0.5);

    let third = certificate(&daemon.place.0, 2042);
    daemon.log("certificate renewed");
    assert!(handshake(tls, &third));
    assert_eq!(daemon.metric("turn_tls_certificate_stale") as u64, 0);
}

/// Those of several hosts are watched together: all of them change, or none.
#[test]
fn certificates_of_several_hosts_are_renewed_together_or_not_at_all() {
    let start = Start::with("");
    let address = free_address();
    let place = start.place.0.clone();
    let one = certificate(&place, 2040);
    let two = certificate_for("two.test", &place, "two-", 2030);
    let others = "others = [{ certificate = 'two-cert.pem', key = 'two-key.pem' }]";
    start.configure(&format!(
        "[[listen]]\naddress = '{address}'\ntransport = 'tcp'\n[tls]\ncertificate = 'cert.pem'\nkey = 'key.pem'\n{others}"
    ));
    let mut daemon = start.ready();
    assert!(handshake(address, &one) && handshake_with("two.test", address, &two));
    let end = daemon.metric("turn_tls_certificate_expiry_timestamp_seconds");
    assert!(
        (end - 1_893_456_000.0).abs() < 0.5,
        "the one that ends first: {end}"
    );

    // The first is renewed, and the second broken: both stay what they were, however it is asked for.
    daemon.place.write("two-cert.pem", "nonsense");
    let newer = certificate(&place, 2041);
    let refused = daemon.log("certificate not renewed");
    assert_eq!(refused["key"], "tls.others[0].certificate", "{refused}");
    daemon.signal(Signal::HUP);
    let refused = daemon.log("configuration not reloaded");
    assert_eq!(refused["key"], "tls.others[0].certificate", "{refused}");
    assert!(handshake(address, &one) && handshake_with("two.test", address, &two));
    assert!(!handshake(address, &newer));

    // Whole again, by the change of the file, and then by a signal.
    let second = certificate_for("two.test", &place, "two-", 2042);
    daemon.log("certificate renewed");
    assert!(handshake(address, &newer) && handshake_with("two.test", address, &second));
    assert!(!handshake_with("two.test", address, &two));
    let third = certificate_for("two.test", &place, "two-", 2043);
    daemon.signal(Signal::HUP);
    daemon.log("configuration reloaded");
    assert!(handshake_with("two.test", address, &third));
}

/// `http = "self"`: what a load balancer wants to know, on the port of the relay, and nothing more.
#[test]
fn the_relay_port_serves_health_and_no_metrics() {
    let start = Start::with("");
    let address = free_address();
    let trusted = certificate(&start.place.0, 2040);
    start.configure(&format!(
        "[[listen]]\naddress = '{address}'\ntransport = 'tcp'\nhttp = 'self'\n[tls]\ncertificate = 'cert.pem'\nkey = 'key.pem'"
    ));
    let mut daemon = start.ready();
    let mut client = Client::tcp(address);
    client.allocate();
    let ask = |path: &str, over_tls: bool| {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let mut text = String::new();
        if over_tls {
            let mut stream = tls("localhost", address, &trusted);
            stream.write_all(request.as_bytes()).unwrap();
            stream.read_to_string(&mut text).unwrap();
        } else {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stream.read_to_string(&mut text).unwrap();
        }
        text.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    for over_tls in [false, true] {
        assert_eq!(ask("/healthz", over_tls), 200);
        assert_eq!(ask("/readyz", over_tls), 200);
        assert_eq!(ask("/metrics", over_tls), 404);
        assert_eq!(ask("/", over_tls), 404);
    }
    assert_eq!(client.request(Method::REFRESH, |_| {}).code(), 0);
    assert_eq!(
        daemon.metric("turn_web_connections_total{result=\"ok\"}") as u64,
        8
    );
    daemon.signal(Signal::TERM);
    daemon.log("draining");
    assert_eq!(ask("/readyz", true), 503, "no new calls, please");
}

// ---- the end ----

#[test]
fn a_draining_server_waits_for_its_calls() {
    let mut daemon = Start::with("").ready();
    assert_eq!(daemon.get("/readyz").0, 200);
    let mut client = Client::udp(daemon.udp);
    client.allocate();
    daemon.signal(Signal::TERM);
    daemon.expect("STOPPING=1");
    daemon.log("draining");
    assert_eq!(daemon.get("/readyz").0, 503);
    assert_eq!(daemon.get("/healthz").0, 200);
    let mut late = Client::udp(daemon.udp);
    let refused = late.request(Method::ALLOCATE, udp_wanted);
    assert_eq!(refused.code(), 508, "no new call");
    daemon.signal(Signal::HUP);
    daemon.log("not reloaded: the server is ending");
    assert_eq!(
        client.request(Method::REFRESH, |_| {}).code(),
        0,
        "the old one goes on"
    );
    assert!(daemon.lives());
    let gone = client.request(Method::REFRESH, |writer| {
        writer.u32(Attribute::LIFETIME, 0);
    });
    assert_eq!(gone.code(), 0);
    assert!(daemon.ended().success());
}

#[test]
fn a_draining_server_sends_new_calls_to_the_others() {
    let mut daemon = Start::with("[redirect]\nto = ['192.0.2.7:3478']").ready();
    let mut client = Client::udp(daemon.udp);
    client.allocate();
    daemon.signal(Signal::TERM);
    daemon.log("draining");
    for mut late in [Client::udp(daemon.udp), Client::tcp(daemon.udp)] {
        let sent = late.request(Method::ALLOCATE, udp_wanted);
        assert_eq!(sent.code(), 300);
        let other = sent.message().alternate_server().unwrap().unwrap();
        assert_eq!(other, "192.0.2.7:3478".parse().unwrap());
    }
    assert_eq!(client.request(Method::REFRESH, |_| {}).code(), 0);
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().success());
}

#[test]
fn a_second_signal_does_not_wait() {
    let mut daemon = Start::with("").ready();
    Client::udp(daemon.udp).allocate();
    daemon.signal(Signal::INT);
    daemon.log("draining");
    daemon.signal(Signal::TERM);
    daemon.log("ended at once");
    assert!(daemon.ended().success());
}

#[test]
fn the_patience_of_a_draining_server_ends() {
    let start = Start::with("");
    let text = fs::read_to_string(start.place.0.join("turnd.toml")).unwrap();
    start.place.write(
        "turnd.toml",
        &text.replace("drain_timeout = '20s'", "drain_timeout = '300ms'"),
    );
    let mut daemon = start.ready();
    Client::udp(daemon.udp).allocate();
    daemon.signal(Signal::TERM);
    daemon.log("the time for calls to end is up");
    assert!(daemon.ended().success());
}

// ---- what goes wrong at the start ----

#[test]
fn a_port_in_use_is_told_with_a_remedy() {
    let start = Start::with("");
    let _holder = UdpSocket::bind(start.udp).unwrap();
    let udp = start.udp;
    let mut daemon = start.go();
    assert_eq!(daemon.ended().code(), Some(1));
    let said = daemon.all_said();
    assert!(
        said.contains(&format!("cannot listen on {udp}")) && said.contains("in use"),
        "{said}"
    );
    assert!(
        said.contains("= help: another program has this port"),
        "{said}"
    );
}

#[test]
fn a_metrics_port_in_use_is_told_too() {
    let start = Start::with("");
    let _holder = std::net::TcpListener::bind(start.metrics).unwrap();
    let mut daemon = start.go();
    assert_eq!(daemon.ended().code(), Some(1));
    let said = daemon.all_said();
    assert!(
        said.contains("(metrics)") && said.contains("= help: another program"),
        "{said}"
    );
}

#[test]
fn an_address_of_another_host_is_told_with_a_remedy() {
    let start = Start::with("");
    let text = fs::read_to_string(start.place.0.join("turnd.toml")).unwrap();
    start
        .place
        .write("turnd.toml", &text.replace("'127.0.0.1'", "'203.0.113.4'"));
    let mut daemon = start.go();
    assert_eq!(daemon.ended().code(), Some(1));
    let said = daemon.all_said();
    assert!(
        said.contains("203.0.113.4 is not an address of this host") && said.contains("external"),
        "{said}"
    );
}

#[test]
fn a_secret_that_cannot_be_used_is_exit_code_78() {
    let start = Start::with("");
    fs::set_permissions(
        start.place.0.join("secret"),
        fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    let mut daemon = start.go();
    assert_eq!(daemon.ended().code(), Some(78));
    let said = daemon.all_said();
    assert!(
        said.contains("may be read by others") && said.contains("= help: chmod 0600"),
        "{said}"
    );
    assert!(!said.contains("MARKER"), "{said}");
}

// ---- what must not be seen ----

#[test]
fn secrets_are_nowhere_to_be_seen() {
    let mut daemon = Start::with("[log]\nlevel = 'trace'").ready();
    let mut client = Client::udp(daemon.udp);
    client.allocate();
    let (username, password) = minted("1999999999:alice");
    assert_eq!(
        login(daemon.udp, &username, &password, REFRESH_NOTHING),
        (0, 0)
    );
    assert_eq!(
        login(daemon.udp, &username, "MARKER-wrong", REFRESH_NOTHING).0,
        401
    );
    daemon.configure("[auth2]\nsecret = 'MARKER-in-the-wrong-place'");
    daemon.signal(Signal::HUP);
    daemon.log("configuration not reloaded");
    let process = format!("/proc/{}", daemon.pid().as_raw_nonzero());
    let (_, page) = daemon.get("/metrics");
    for (place, text) in [
        (
            "the command line",
            fs::read(format!("{process}/cmdline")).unwrap(),
        ),
        (
            "the environment",
            fs::read(format!("{process}/environ")).unwrap(),
        ),
        ("the metrics", page.into_bytes()),
        ("the log", daemon.all_said().into_bytes()),
    ] {
        let text = String::from_utf8_lossy(&text);
        assert!(
            !text.is_empty() && !text.contains("MARKER"),
            "{place}: {text}"
        );
        assert!(
            !text.contains(wire::PASSWORD) && !text.contains(&password),
            "{place}: {text}"
        );
    }
}

#[test]
fn a_username_stays_on_its_line() {
    let mut daemon = Start::with("").ready();
    let (username, password) =
        minted("1999999999:eve\n{\"message\":\"all is lost\"}\r\x1b[2J%s%n\u{202e}");
    assert_eq!(
        login(daemon.udp, &username, &password, REFRESH_NOTHING),
        (0, 0)
    );
    let line = daemon.log("allocation ended");
    let shown = line["user"].as_str().unwrap();
    assert!(
        shown.starts_with("1999999999:eve")
            && shown.is_ascii()
            && !shown.contains(['\n', '\r', '\x1b']),
        "{shown}"
    );
    for field in [
        "client",
        "transport",
        "relay",
        "reason",
        "seconds",
        "to_peer_bytes",
        "to_client_bytes",
    ] {
        assert!(!line[field].is_null(), "{field} is missing in {line}");
    }
    let said = daemon.all_said();
    assert!(
        said.lines()
            .all(|line| !line.starts_with("{\"message\"") && !line.contains('\x1b')),
        "{said}"
    );
}

#[test]
fn there_is_no_core_dump_and_nobody_looks_into_the_memory() {
    let mut start = Start::with("");
    // Of root, the kernel hides nothing; as another user it shows whether it would.
    const NOBODY: u32 = 65_534;
    if chown(&start.place.0, Some(NOBODY), None).is_ok() {
        for name in ["secret", wire::USER, "turnd.toml"] {
            chown(start.place.0.join(name), Some(NOBODY), None).unwrap();
        }
        start.command.uid(NOBODY).gid(NOBODY);
    }
    let daemon = start.ready();
    let process = format!("/proc/{}", daemon.pid().as_raw_nonzero());
    let limits = fs::read_to_string(format!("{process}/limits")).unwrap();
    let limit = |name: &str| -> Vec<String> {
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        line.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(limit("Max core file size")[..2], ["0", "0"]);
    let files = limit("Max open files");
    assert_eq!(files[0], files[1], "all descriptors that it may have");
    // The files of a process that may not be looked into belong to root.
    assert_eq!(fs::metadata(format!("{process}/environ")).unwrap().uid(), 0);
}

// ---- what others do must not matter ----

#[test]
fn scrapers_that_hang_do_not_matter() {
    let daemon = Start::with("").ready();
    // More than are held at a time; the kernel's queue takes some of the others.
    let stuck: Vec<TcpStream> = (0..150)
        .filter_map(|number| {
            let mut stream = TcpStream::connect_timeout(&daemon.metrics, SHORTLY).ok()?;
            let part: &[u8] = if number % 2 == 0 {
                b""
            } else {
                b"GET /metrics HTTP/1.1\r\nHost"
            };
            stream.write_all(part).ok()?;
            Some(stream)
        })
        .collect();
    assert!(stuck.len() > 64, "{} are stuck", stuck.len());
    let mut client = Client::udp(daemon.udp);
    client.allocate();
    assert_eq!(client.request(Method::REFRESH, |_| {}).code(), 0);
    drop(stuck);
    assert_eq!(daemon.get("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(daemon.get("/nothing").0, 404);
    assert_eq!(
        daemon.metric("turn_allocations_total{result=\"granted\"}") as u64,
        1
    );
}

#[test]
fn a_log_that_nobody_reads_does_not_matter() {
    // So many strangers in a second are more than one network's share.
    let start = Start::with("[limits]\nunauthenticated_replies = 0");
    let (udp, metrics) = (start.udp, start.metrics);
    // Both ends of the pipe are held, and nothing is taken out of it.
    let (mut unread, full) = std::io::pipe().unwrap();
    let mut command = start.command;
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(full)
        .env("STATE_DIRECTORY", start.place.0.join("state"))
        .env_remove("NOTIFY_SOCKET")
        .spawn()
        .unwrap();
    let child = Ended(child);
    let answers = (0..100).any(|_| {
        std::thread::park_timeout(Duration::from_millis(50));
        let is_up = TcpStream::connect(metrics).is_ok();
        is_up && get(&metrics.to_string(), "readyz", "").contains("200 OK")
    });
    assert!(answers, "the server has started");
    let (username, password) = minted("1999999999:alice");
    for _ in 0..600 {
        assert_eq!(login(udp, &username, &password, REFRESH_NOTHING), (0, 0));
    }
    drop(child);
    drop(command);
    let mut said = String::new();
    unread.read_to_string(&mut said).unwrap();
    assert!(
        said.len() >= 60_000,
        "the pipe was full: {} bytes",
        said.len()
    );
}

// ---- helpers ----

/// A process that does not outlive its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Long enough for a connection on loopback.
const SHORTLY: Duration = Duration::from_millis(200);

/// A lifetime of no time: the allocation ends at once.
const REFRESH_NOTHING: u32 = 0;

fn minted(username: &str) -> (String, String) {
    let mac = <Hmac<sha1::Sha1>>::new_from_slice(SECRET.as_bytes()).unwrap();
    (
        username.to_owned(),
        STANDARD.encode(mac.chain_update(username).finalize().into_bytes()),
    )
}

/// Allocates and refreshes; the codes of both answers, 0 for success.
fn login(server: SocketAddr, username: &str, password: &str, lifetime: u32) -> (u16, u16) {
    let key = |realm: &[u8]| Key::md5(username.as_bytes(), realm, password.as_bytes());
    login_by(server, username, &key, None, lifetime)
}

/// The same with any key, and with an access token.
fn login_by(
    server: SocketAddr,
    username: &str,
    key: &dyn Fn(&[u8]) -> Key,
    token: Option<&[u8]>,
    lifetime: u32,
) -> (u16, u16) {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(server).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let ask = |bytes: &[u8]| {
        let mut answer = [0; 1500];
        client.send(bytes).unwrap();
        let length = client.recv(&mut answer).unwrap();
        answer[..length].to_vec()
    };
    let challenge = ask(&request(Method::ALLOCATE, udp_wanted));
    let challenge = Message::parse(&challenge).unwrap();
    let realm = challenge.realm().unwrap().unwrap();
    let nonce = challenge.nonce().unwrap().unwrap();
    let key = key(realm);
    let signed = |method: Method, put: &dyn Fn(&mut Writer<'_>)| {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, Class::Request, method, TransactionId([2; 12]));
        put(&mut writer);
        writer.bytes(Attribute::USERNAME, username.as_bytes());
        writer.bytes(Attribute::REALM, realm);
        writer.bytes(Attribute::NONCE, nonce);
        if let Some(token) = token {
            writer.bytes(Attribute::ACCESS_TOKEN, token);
        }
        writer.finish_with_integrity(&key, Integrity::Sha1);
        code(&ask(&bytes))
    };
    let allocated = signed(Method::ALLOCATE, &udp_wanted);
    let refreshed = signed(Method::REFRESH, &|writer| {
        writer.u32(Attribute::LIFETIME, lifetime);
    });
    (allocated, refreshed)
}

/// A token of an hour from now on (RFC 7635 §6.2).
#[expect(
    clippy::disallowed_methods,
    reason = "the time in a token is a time of day"
)]
fn access_token(key: &[u8; 32], server_name: &str, mac_key: &[u8; 20]) -> Vec<u8> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let timestamp = since.unwrap().as_secs() << 16;
    let mut block = [
        &[0, 20],
        &mac_key[..],
        &timestamp.to_be_bytes(),
        &3600_u32.to_be_bytes(),
    ]
    .concat();
    let nonce = *b"twelve bytes";
    let tag = Aes256Gcm::new(key.into())
        .encrypt_inout_detached(
            &nonce.into(),
            server_name.as_bytes(),
            block.as_mut_slice().into(),
        )
        .unwrap();
    [&[0, 12], &nonce[..], &block, &tag[..]].concat()
}

fn udp_wanted(writer: &mut Writer<'_>) {
    writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
}

fn request(method: Method, put: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, Class::Request, method, TransactionId([1; 12]));
    put(&mut writer);
    writer.finish();
    bytes
}

fn code(answer: &[u8]) -> u16 {
    Message::parse(answer)
        .unwrap()
        .error_code()
        .map_or(0, |code| code.unwrap().0.0)
}

/// Does a client that trusts this certificate alone come to terms with the server?
fn handshake(server: SocketAddr, trusted: &rcgen::Certificate) -> bool {
    handshake_with("localhost", server, trusted)
}

/// The same with another host than `localhost`.
fn handshake_with(host: &'static str, server: SocketAddr, trusted: &rcgen::Certificate) -> bool {
    let mut stream = tls(host, server, trusted);
    stream.write_all(&request(Method::BINDING, |_| {})).is_ok() && {
        let mut answer = [0; 1500];
        stream.read(&mut answer).is_ok_and(|length| length >= 20)
    }
}

/// A TLS client that has said nothing yet.
fn tls(
    host: &'static str,
    server: SocketAddr,
    trusted: &rcgen::Certificate,
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(host).unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(connection, stream)
}
