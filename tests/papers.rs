//! What the program prints for others: completions for shells, manual pages, the ports for a firewall.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Every command that has a page of its own, and some options that have to be known.
const COMMANDS: [&str; 8] = [
    "run",
    "check-config",
    "show-config",
    "credential",
    "genkey",
    "import",
    "completions",
    "ports",
];

#[test]
fn completions_are_good_scripts_and_know_the_commands() {
    for (shell, check) in [("bash", "bash"), ("zsh", "zsh"), ("fish", "fish")] {
        let script = run(&["completions", shell]);
        assert!(script.status.success());
        let text = String::from_utf8(script.stdout).unwrap();
        for word in COMMANDS.iter().chain(&["secrets-dir", "config"]) {
            assert!(text.contains(word), "{shell} does not know {word}");
        }
        // Bash is everywhere; the others are asked where they are.
        let Ok(mut child) = Command::new(check)
            .arg("-n")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
        else {
            assert_ne!(check, "bash", "there is a bash");
            continue;
        };
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let checked = child.wait_with_output().unwrap();
        assert!(
            checked.status.success(),
            "{shell}: {}",
            String::from_utf8_lossy(&checked.stderr)
        );
    }
    assert_eq!(run(&["completions", "tcl"]).status.code(), Some(2));
}

#[test]
fn bash_completes_a_command() {
    let script = String::from_utf8(run(&["completions", "bash"]).stdout).unwrap();
    let ask = "\nCOMP_WORDS=(turnd check); COMP_CWORD=1; _turnd turnd check turnd; echo \"found: ${COMPREPLY[*]}\"\n";
    let asked = Command::new("bash")
        .args(["--norc", "-c", &(script + ask)])
        .output()
        .unwrap();
    let found = String::from_utf8(asked.stdout).unwrap();
    assert!(
        found.contains("found: check-config"),
        "{found}{}",
        String::from_utf8_lossy(&asked.stderr)
    );
}

#[test]
fn there_is_a_page_for_each_command() {
    let place = Place::new("pages");
    let written = run(&["man", place.0.to_str().unwrap()]);
    assert!(
        written.status.success(),
        "{}",
        String::from_utf8_lossy(&written.stderr)
    );
    for command in COMMANDS {
        let page = fs::read_to_string(place.0.join(format!("turnd-{command}.1"))).unwrap();
        assert!(
            page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"),
            "{command}"
        );
        clean(&page);
    }
    let main = String::from_utf8(run(&["man"]).stdout).unwrap();
    assert_eq!(fs::read_to_string(place.0.join("turnd.1")).unwrap(), main);
    assert!(main.contains("import") && main.contains("SIGHUP"));
    clean(&main);
    let file = place.0.join("turnd.1");
    let refused = run(&["man", file.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1), "this is a file");
}

/// Renders a page; there must be nothing to complain about. Where there is no groff, nobody complains.
fn clean(page: &str) {
    let groff = Command::new("groff")
        .args(["-man", "-ww", "-Tutf8", "-z"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut groff) = groff else { return };
    groff
        .stdin
        .take()
        .unwrap()
        .write_all(page.as_bytes())
        .unwrap();
    let ended = groff.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&ended.stderr);
    assert!(
        ended.status.success() && complaints.is_empty(),
        "{complaints}\n{page}"
    );
}

#[test]
fn the_ports_are_those_of_the_configuration() {
    let place = Place::new("ports");
    let pair = rcgen::KeyPair::generate().unwrap();
    let names = vec!["turn.example.org".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap();
    let certificate = certificate.self_signed(&pair).unwrap().pem();
    for (name, text) in [
        ("secret", "north-north-north-north"),
        ("token", "south-south-south-south"),
        ("cert.pem", &*certificate),
        ("key.pem", &pair.serialize_pem()),
    ] {
        let path = place.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let file = place.0.join("turnd.toml");
    let text = "relay = { external = ['203.0.113.4=127.0.0.1'], ports = '50000-50999' }\n\
                auth = { secrets = [{ file = 'secret' }] }\n\
                tcp_relay = { enabled = true }\n\
                metrics = { listen = '10.0.0.7:9641' }\n\
                admin = { listen = '127.0.0.1:9642', token_file = 'token' }\n\
                token = { listen = ['http://10.0.0.7:8089', 'https://10.0.0.7:8443'], certificate = 'cert.pem', key = 'key.pem', api_keys = [{ id = 'app', file = 'secret' }] }\n\
                [[listen]]\naddress = '0.0.0.0:3478'\n\
                [[listen]]\naddress = '127.0.0.1:443'\ntransport = 'tcp'\nproxy_protocol = true\nproxies = ['127.0.0.1']\n";
    fs::write(&file, text).unwrap();
    let shown = run(&["ports", "--config", file.to_str().unwrap()]);
    assert!(
        shown.status.success(),
        "{}",
        String::from_utf8_lossy(&shown.stderr)
    );
    assert_eq!(
        String::from_utf8(shown.stdout).unwrap(),
        "udp  3478         0.0.0.0    clients\n\
         tcp  443          127.0.0.1  clients, through proxies alone: on this host alone, nothing to let through\n\
         udp  50000-50999  127.0.0.1  peers, from anywhere\n\
         tcp  50000-50999  127.0.0.1  peers of TCP relays, from and to anywhere\n\
         tcp  8089         10.0.0.7   credentials: for your reverse proxy alone\n\
         tcp  8443         10.0.0.7   credentials\n\
         tcp  9641         10.0.0.7   metrics: for your own network alone\n\
         tcp  9642         127.0.0.1  the operator's seat: on this host alone, nothing to let through\n"
    );
    fs::write(&file, "[relay]\nprots = '1-2'\n").unwrap();
    assert_eq!(
        run(&["ports", "--config", file.to_str().unwrap()])
            .status
            .code(),
        Some(78)
    );
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_turnd"))
        .args(arguments)
        .env_clear()
        .output()
        .unwrap()
}

/// A directory of its own for a test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("papers-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
