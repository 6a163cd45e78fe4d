//! The units: systemd understands them, and they give the program as little as it needs.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What `systemd-analyze security` may find at most, in tenths: 0 is a locked box, 100 an open one.
const EXPOSURE: &str = "15";

#[test]
fn systemd_understands_the_units() {
    let units = Units::new("verify");
    let Some(output) = analyze(&[
        "verify",
        &units.path("turnd.service"),
        &units.path("turnd.socket"),
    ]) else {
        return;
    };
    let told = String::from_utf8_lossy(&output.stderr);
    // Of other units of the host, nothing is said here.
    let ours: Vec<&str> = told.lines().filter(|line| line.contains("turnd")).collect();
    assert!(output.status.success() && ours.is_empty(), "{told}");
}

#[test]
fn the_service_is_hardened() {
    let units = Units::new("security");
    let threshold = format!("--threshold={EXPOSURE}");
    let Some(output) = analyze(&[
        "security",
        "--offline=true",
        "--no-pager",
        &threshold,
        &units.path("turnd.service"),
    ]) else {
        return;
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn the_units_fit_the_configuration() {
    let service = read("systemd/turnd.service");
    let socket = read("systemd/turnd.socket");
    let has = |line: &str| service.lines().any(|found| found == line);
    assert!(
        has("Type=notify")
            && has("ExecReload=/bin/kill -HUP $MAINPID")
            && has("RestartPreventExitStatus=78")
    );
    let ports = turnd::config::REFERENCE
        .lines()
        .find_map(|line| line.strip_prefix("ports = "))
        .unwrap();
    assert!(
        has(&format!("SocketBindAllow=udp:{}", ports.trim_matches('"'))),
        "the relay ports may be bound"
    );
    for listen in turnd::config::REFERENCE.split("[[listen]]\n").skip(1) {
        let value = |key: &str| {
            listen
                .lines()
                .find_map(|line| line.strip_prefix(key))
                .unwrap()
                .trim_matches([' ', '=', '"'])
        };
        let (address, transport) = (value("address"), value("transport"));
        let port = address.rsplit_once(':').unwrap().1;
        assert!(
            has(&format!("SocketBindAllow={transport}:{port}")),
            "{address} {transport}"
        );
        let kind = if transport == "udp" {
            "ListenDatagram"
        } else {
            "ListenStream"
        };
        assert!(
            socket
                .lines()
                .any(|line| line == format!("{kind}={address}")),
            "{address} {transport}"
        );
    }
}

/// What the manual shows works under the unit: ports, and directories.
#[test]
fn the_examples_of_the_manual_fit_the_unit() {
    let service = read("systemd/turnd.service");
    let has = |line: &str| service.lines().any(|found| found == line);
    for place in ["127.0.0.1:9641", "127.0.0.1:9642", "http://127.0.0.1:8089"] {
        assert!(
            turnd::config::REFERENCE.contains(&format!("\"{place}\"")),
            "{place}"
        );
        let port = place.rsplit_once(':').unwrap().1;
        assert!(has(&format!("SocketBindAllow=tcp:{port}")), "{place}");
    }
    for (path, line) in [
        ("/var/log/turnd/", "LogsDirectory=turnd"),
        ("/var/lib/turnd/", "StateDirectory=turnd"),
        ("/run/turnd/", "RuntimeDirectory=turnd"),
        ("/etc/turnd/", "ConfigurationDirectory=turnd"),
    ] {
        assert!(
            turnd::config::REFERENCE.contains(path) && has(line),
            "{path}"
        );
    }
}

/// The drop-in without which nobody but root may use the admin socket.
#[test]
fn a_service_that_others_may_ask_is_hardened_too() {
    let units = Units::new("visitors");
    let unit = units.path("turnd.service");
    let text = fs::read_to_string(&unit).unwrap();
    assert!(text.contains("#   PrivateUsers=no\n"), "the unit says how");
    fs::write(
        &unit,
        text.replace("\nPrivateUsers=yes\n", "\nPrivateUsers=no\n"),
    )
    .unwrap();
    let threshold = format!("--threshold={EXPOSURE}");
    let asked = [
        "security",
        "--offline=true",
        "--no-pager",
        &threshold,
        &unit,
    ];
    let Some(output) = analyze(&asked) else {
        return;
    };
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && told.contains("PrivateUsers="),
        "{told}"
    );
}

/// The units, with the program where it was built: systemd looks whether it is there.
struct Units(PathBuf);

impl Units {
    fn new(name: &str) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("units-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let service = read("systemd/turnd.service");
        let installed = "ExecStart=/usr/bin/turnd ";
        assert!(service.contains(installed));
        let built = service.replace(
            installed,
            &format!("ExecStart={} ", env!("CARGO_BIN_EXE_turnd")),
        );
        // The manual is not installed where tests run.
        let built = built
            .lines()
            .filter(|line| !line.starts_with("Documentation="))
            .collect::<Vec<_>>()
            .join("\n");
        fs::write(directory.join("turnd.service"), built).unwrap();
        fs::write(directory.join("turnd.socket"), read("systemd/turnd.socket")).unwrap();
        Self(directory)
    }

    fn path(&self, unit: &str) -> String {
        self.0.join(unit).display().to_string()
    }
}

impl Drop for Units {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Runs `systemd-analyze`; nothing, said aloud, on a host that has none. In CI that is a failure.
fn analyze(arguments: &[&str]) -> Option<Output> {
    match Command::new("systemd-analyze").args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) if std::env::var_os("CI").is_none() => {
            eprintln!(
                "SKIPPED: systemd-analyze cannot be run ({error}); install systemd to have the units checked"
            );
            None
        }
        Err(error) => panic!("systemd-analyze cannot be run: {error}"),
    }
}
