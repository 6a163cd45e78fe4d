//! The command line: what each command prints, where, and with which exit code.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;

const SECRET: &str = "MARKER-north-north-north-north";

#[test]
fn help_teaches() {
    let home = Home::new();
    let long = home.run(&["--help"]);
    assert_eq!(long.code, 0);
    for word in [
        "check-config",
        "show-config",
        "credential",
        "genkey",
        "status",
        "sessions",
        "kick",
        "drain",
        "reload",
        "log-level",
        "--config",
        "--set",
        "Examples:",
        "SIGHUP",
        "78",
    ] {
        assert!(
            long.out.contains(word),
            "{word} is missing in\n{}",
            long.out
        );
    }
    assert!(
        long.out.lines().all(|line| line.chars().count() <= 100),
        "{}",
        long.out
    );
    for command in [
        "run",
        "check-config",
        "show-config",
        "credential",
        "genkey",
        "test",
    ] {
        let help = home.run(&[command, "--help"]);
        assert_eq!((help.code, help.err.as_str()), (0, ""), "{command}");
        assert!(help.out.contains("Usage: turnd"), "{command}");
    }
    assert!(home.run(&["--version"]).out.starts_with("turnd 0."));
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    let home = Home::new();
    for wrong in [
        &["frobnicate"][..],
        &["--frobnicate"],
        &["credential"],
        &["credential", "--user", "alice", "--ttl", "soon"],
        &["credential", "--user", "", "--ttl", "1h"],
        &["credential", "--user", "a\nb"],
        &["credential", "--user", "alice", "--json", "--js"],
        &["--set", "relay.ports"],
        &["sessions", "--client", "x"],
        &["sessions", "--limit", "0"],
        &["kick", "--client", "10.0.0.1:99999"],
        &["explain", "--peer", "10.0.0"],
        &["log-level", "loud"],
        &["drain", "--timeout", "soon"],
        &["--secret", SECRET],
    ] {
        let ended = home.run(wrong);
        assert_eq!(
            (ended.code, ended.out.as_str()),
            (2, ""),
            "{wrong:?}\n{}",
            ended.err
        );
        assert!(ended.err.contains("error:"), "{wrong:?}");
    }
}

#[test]
fn a_bad_configuration_is_exit_code_78_for_every_command_that_reads_it() {
    let home = Home::new();
    let file = home.file("turnd.toml", "[relay]\nprot = '1-2'\n");
    for command in [
        &["run"][..],
        &["check-config"],
        &["show-config"],
        &["credential", "--user", "alice"],
        &[],
    ] {
        let ended = home.run(&[command, &["--config", &file]].concat());
        assert_eq!((ended.code, ended.out.as_str()), (78, ""), "{command:?}");
        assert!(
            ended.err.contains("did you mean `ports`?"),
            "{command:?}\n{}",
            ended.err
        );
        assert!(ended.err.contains(":2:1"), "{command:?}\n{}", ended.err);
    }
}

#[test]
fn check_config_counts_what_it_finds() {
    let home = Home::new();
    let good = home.run(&["check-config", "--config", &home.with_secret("")]);
    assert_eq!((good.code, good.out.as_str()), (0, ""), "{}", good.err);
    assert!(
        good.err
            .contains("the configuration is good: no errors, no warnings"),
        "{}",
        good.err
    );
    let warned = home.run(&[
        "check-config",
        "--config",
        &home.with_secret("[limits]\nmax_lifetime = '5m'"),
    ]);
    assert_eq!(warned.code, 0);
    assert!(
        warned.err.contains("warning: ") && warned.err.contains("no errors, 1 warning"),
        "{}",
        warned.err
    );
    let bad = home.run(&[
        "check-config",
        "--config",
        &home.with_secret("[limits]\nper_user = 0\ntotal = 'x'"),
    ]);
    assert_eq!(bad.code, 78);
    assert!(bad.err.contains("not usable: 2 errors"), "{}", bad.err);
}

#[test]
fn show_config_shows_what_would_be_used_and_no_secret() {
    let home = Home::new();
    let file = home.with_secret("[limits]\nper_user = 3");
    let shown = home.run(&[
        "show-config",
        "--config",
        &file,
        "--set",
        "relay.ports=50000-50999",
    ]);
    assert_eq!(shown.code, 0, "{}", shown.err);
    assert!(
        shown.out.contains("per_user = 3") && shown.out.contains("ports = \"50000-50999\""),
        "{}",
        shown.out
    );
    assert!(
        shown.out.contains("secret\"") && !shown.out.contains(SECRET),
        "{}",
        shown.out
    );
    let again = home.file("again.toml", &shown.out);
    assert_eq!(
        home.run(&["show-config", "--config", &again]).out,
        shown.out
    );
}

#[test]
fn show_config_defaults_is_the_manual() {
    let home = Home::new();
    let manual = home.run(&["show-config", "--defaults"]);
    assert_eq!(
        manual.out,
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/turnd.toml"))
            .unwrap()
    );
}

#[test]
fn a_credential_is_what_every_token_service_would_mint() {
    let home = Home::new();
    let file = home.with_secret("");
    let plain = home.run(&[
        "credential",
        "--user",
        "alice",
        "--ttl",
        "2h",
        "--config",
        &file,
    ]);
    assert_eq!((plain.code, plain.err.as_str()), (0, ""));
    let line = |name: &str| {
        plain
            .out
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap()
            .trim()
            .to_owned()
    };
    let (username, password) = (line("username:"), line("password:"));
    assert_eq!(password, hmac_sha1(&username));
    let (expiry, user) = username.split_once(':').unwrap();
    assert_eq!(user, "alice");
    let left = expiry.parse::<i64>().unwrap() - turnd::config::unix_now();
    assert!((7190..=7200).contains(&left), "{left}");
}

#[test]
fn a_credential_comes_as_json_and_as_javascript() {
    let home = Home::new();
    let file = home.with_secret("[[listen]]\naddress = '0.0.0.0:3478'\n[[listen]]\naddress = '0.0.0.0:3479'\ntransport = 'tcp'");
    let mint = [
        "credential",
        "--user",
        "alice",
        "--host",
        "turn.example.org",
        "--config",
        &file,
    ];
    let json = home.run(&[&mint[..], &["--json"]].concat());
    let value: Value = serde_json::from_str(&json.out).unwrap();
    let server = &value["iceServers"][1];
    assert_eq!(
        value["iceServers"][0]["urls"][0],
        "stun:turn.example.org:3478"
    );
    assert_eq!(
        server["urls"][0],
        "turn:turn.example.org:3478?transport=udp"
    );
    assert_eq!(
        server["urls"][1],
        "turn:turn.example.org:3479?transport=tcp"
    );
    assert_eq!(
        server["credential"],
        hmac_sha1(server["username"].as_str().unwrap())
    );
    let js = home.run(&[&mint[..], &["--js"]].concat());
    assert!(
        js.out.starts_with("const pc = new RTCPeerConnection({"),
        "{}",
        js.out
    );
    for part in [
        "\"turn:turn.example.org:3478?transport=udp\"",
        "username: \"",
        "credential: \"",
        "});\n",
    ] {
        assert!(js.out.contains(part), "{part}\n{}", js.out);
    }
}

#[test]
fn without_a_shared_secret_there_are_no_credentials() {
    let home = Home::new();
    home.file("bot", "k9fw-Xo2m-71qz-0q1");
    let file = home.file(
        "turnd.toml",
        "[auth]\nusers = [{ name = 'bot', password_file = 'bot' }]",
    );
    let ended = home.run(&["credential", "--user", "alice", "--config", &file]);
    assert_eq!((ended.code, ended.out.as_str()), (78, ""));
    assert!(ended.err.contains("[auth] secrets"), "{}", ended.err);
}

#[test]
fn without_a_file_the_server_and_its_credentials_share_a_secret() {
    let home = Home::new();
    let first = home.run(&["credential", "--user", "alice", "--json"]);
    assert_eq!(first.code, 0, "{}", first.err);
    let secret = home.directory.join("state/turnd/auth-secret");
    assert_eq!(
        fs::metadata(&secret).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    let value: Value = serde_json::from_str(&first.out).unwrap();
    let server = &value["iceServers"][1];
    let made = fs::read_to_string(secret).unwrap();
    assert_eq!(
        server["credential"],
        hmac_sha1_with(made.trim(), server["username"].as_str().unwrap())
    );
}

#[test]
fn a_fresh_secret_is_long_and_never_the_same() {
    let home = Home::new();
    let (one, other) = (home.run(&["genkey"]).out, home.run(&["genkey"]).out);
    assert_ne!(one, other);
    assert_eq!(one.trim_end().len(), 43, "256 bits");
    assert!(one.ends_with('\n'));
}

fn hmac_sha1(username: &str) -> String {
    hmac_sha1_with(SECRET, username)
}

fn hmac_sha1_with(secret: &str, username: &str) -> String {
    let mac = <Hmac<sha1::Sha1>>::new_from_slice(secret.as_bytes()).unwrap();
    STANDARD.encode(mac.chain_update(username).finalize().into_bytes())
}

/// A directory of its own for a test, which the program takes for its home.
struct Home {
    directory: PathBuf,
}

struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Home {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "cli-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&directory).unwrap();
        Self { directory }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.directory.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    }

    /// A configuration with the shared secret and nothing to be warned about.
    fn with_secret(&self, more: &str) -> String {
        self.file("secret", SECRET);
        let relay = "[relay]\nexternal = ['203.0.113.4=127.0.0.1']\nports = '50000-50999'\n";
        self.file(
            "turnd.toml",
            &format!("{relay}[auth]\nsecrets = [{{ file = 'secret' }}]\n{more}\n"),
        )
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let output: Output = Command::new(env!("CARGO_BIN_EXE_turnd"))
            .args(arguments)
            .env_clear()
            .env("XDG_STATE_HOME", self.directory.join("state"))
            .output()
            .unwrap();
        Ended {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
