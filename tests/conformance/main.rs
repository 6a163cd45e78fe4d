//! The conformance report: every statement that turnd keeps, shown by dialogues with a running server.
//!
//! ```text
//! cargo test --test conformance
//! ```
//!
//! starts this build's turnd, and Debian's coturn where it is installed, in a network of their own, prints a line
//! for each statement and writes `target/conformance.md`. The same dialogues can be held with any server:
//!
//! | variable | |
//! |---|---|
//! | `TURND_CONFORMANCE_SERVER` | its address and port, for UDP and TCP |
//! | `TURND_CONFORMANCE_TLS`, `TURND_CONFORMANCE_DTLS` | the same, for TLS and DTLS |
//! | `TURND_CONFORMANCE_SECRET` | the shared secret of time-limited credentials, or |
//! | `TURND_CONFORMANCE_USER`, `TURND_CONFORMANCE_PASSWORD` | a user |
//! | `TURND_CONFORMANCE_PEER` | an address of this host that the server reaches; that which leads to it if not given |
//!
//! What it has must be switched on to be judged, its user may need 32 allocations, and it has to reach peers at that
//! address. Whatever needs more than one address, or a server in another configuration, is then not seen.
//!
//! The dialogues can fail: they are also held with servers that are wrong, and with none may they all succeed.

mod capture;
mod checks;
mod client;
mod dtls;
mod fakes;
mod ground;
mod packet;
mod report;
mod runner;
mod servers;
mod statement;
mod wire;

use std::io::{self, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use client::Login;
use ground::{Ground, Hosts, Logins, Server};
use report::Report;
use runner::Column;
use statement::Statement;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let flag = |name: &str| arguments.iter().any(|argument| argument == name);
    if flag("--list") {
        say("conformance: test\n");
        return ExitCode::SUCCESS;
    }
    let mut filters = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'));
    if flag("--ignored") || filters.clone().count() > 0 && !filters.any(|f| NAME.contains(&f[..])) {
        return ExitCode::SUCCESS;
    }
    let outcome = match std::env::var("TURND_CONFORMANCE_SERVER") {
        Ok(server) => examine(&server),
        Err(_) if servers::is_inside() => compare(),
        Err(_) => match servers::in_a_network_of_its_own() {
            Ok(code) => return code,
            Err(why) if !in_ci() => {
                say(&format!("conformance: skipped: {why}\n"));
                return ExitCode::SUCCESS;
            }
            Err(why) => Err(why),
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(&format!("conformance: FAILED: {why}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Compares this build with coturn.
fn compare() -> Result<(), String> {
    servers::build_network();
    let statements: Vec<&'static Statement> = statement::all().collect();
    let coturn = servers::coturn_is_there().then(servers::coturn);
    if coturn.is_none() && in_ci() {
        return Err("coturn is not installed".into());
    }
    let turnd = servers::turnd();
    let mut columns = vec![Column {
        name: "turnd".into(),
        ground: &turnd.ground,
        is_ours: true,
    }];
    columns.extend(coturn.as_ref().map(|coturn| Column {
        name: "coturn".into(),
        ground: &coturn.ground,
        is_ours: false,
    }));
    let report = finish(&statements, &columns)?;
    let mut wrong = fakes::checks_that_cannot_fail(&statements, &turnd.ground);
    wrong.extend(
        fakes::missing_ids(&statements)
            .iter()
            .map(|id| format!("there is no statement {id}")),
    );
    let unexplained = report.unexplained(0);
    if !unexplained.is_empty() {
        say(&turnd.logs());
        wrong.push(format!("turnd fails at {}", unexplained.join(", ")));
    }
    if coturn.is_none() {
        say("coturn is not installed: there is nothing to compare with\n");
    }
    say(&format!(
        "{} unexplained failures; every check fails at a server that is wrong: {}\n",
        unexplained.len(),
        if wrong.is_empty() { "yes" } else { "see below" }
    ));
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.join("\n  ")),
    }
}

/// Examines a server that somebody else runs.
fn examine(server: &str) -> Result<(), String> {
    let statements: Vec<&'static Statement> = statement::all().collect();
    let ground = elsewhere(server)?;
    let columns = [Column {
        name: server.to_owned(),
        ground: &ground,
        is_ours: false,
    }];
    let report = finish(&statements, &columns)?;
    match report.failures(0) {
        0 => Ok(()),
        failures => Err(format!("{failures} statements do not hold")),
    }
}

/// The ground that the environment describes.
fn elsewhere(server: &str) -> Result<Ground, String> {
    let variable = |name: &str| std::env::var(format!("TURND_CONFORMANCE_{name}")).ok();
    let udp = resolve(server)?;
    let tls = variable("TLS").map(|tls| resolve(&tls)).transpose()?;
    let dtls = variable("DTLS").map(|dtls| resolve(&dtls)).transpose()?;
    let user = variable("USER").zip(variable("PASSWORD"));
    let logins = Logins {
        secret: variable("SECRET"),
        user: user.map(|(user, password)| Login { user, password }),
    };
    if logins.secret.is_none() && logins.user.is_none() {
        return Err("give TURND_CONFORMANCE_SECRET, or _USER and _PASSWORD".into());
    }
    let here = match variable("PEER") {
        Some(peer) => peer.parse().map_err(|error| format!("{peer}: {error}"))?,
        None => leading_to(udp).map_err(|error| error.to_string())?.ip(),
    };
    Ok(Ground {
        full: Server {
            udp: Some(udp),
            udp6: udp.is_ipv6().then_some(udp),
            tcp: Some(udp),
            tls,
            dtls,
            others: Vec::new(),
            discovery: None,
        },
        plain: None,
        tiny: None,
        redirect: None,
        anycast: None,
        logins,
        oauth: None,
        hosts: Hosts::Here(here),
        patience: Duration::from_secs(5),
    })
}

fn resolve(name: &str) -> Result<SocketAddr, String> {
    let mut found = name
        .to_socket_addrs()
        .map_err(|error| format!("{name}: {error}"))?;
    found.next().ok_or_else(|| format!("{name} has no address"))
}

/// The local address from which packets to a server leave.
fn leading_to(server: SocketAddr) -> io::Result<SocketAddr> {
    let any = if server.is_ipv6() {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    socket.local_addr()
}

/// Judges, prints and writes.
fn finish(statements: &[&'static Statement], columns: &[Column<'_>]) -> Result<Report, String> {
    let report = Report {
        servers: columns.iter().map(|column| column.name.clone()).collect(),
        rows: runner::judge(statements, columns),
    };
    let path = table();
    report.print().map_err(|error| error.to_string())?;
    report
        .write(&path)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    say(&format!("the table is in {}\n", path.display()));
    Ok(report)
}

/// Beside everything else that is built.
fn table() -> PathBuf {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    scratch.parent().unwrap_or(scratch).join("conformance.md")
}

fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

fn say(text: &str) {
    _ = io::stdout().write_all(text.as_bytes());
}

const NAME: &str = "conformance";
