//! `turnd status`

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use turnd::config::Sources;
use turnd::http::admin::Status;

use super::client::At;
use super::show::{Screen, bytes, count, rate, span};

/// Less than so many days of a certificate stand out.
const FEW_DAYS: i64 = 14;

#[derive(Debug, Args)]
pub(super) struct Show {
    /// Print what the server says, as JSON
    #[arg(long, help_heading = "Output")]
    json: bool,
    #[command(flatten)]
    at: At,
}

impl Show {
    pub(super) fn run(self, sources: &Sources) -> ExitCode {
        let json = self.json;
        self.at.ask(sources, |client| {
            if json {
                let status: serde_json::Value = client.get("/v1/status")?;
                return Ok(super::print(&format!("{status:#}\n")));
            }
            let status: Status = client.get("/v1/status")?;
            Ok(super::print(&text(&status, Screen::of_stdout())))
        })
    }
}

fn text(status: &Status, screen: Screen) -> String {
    let mut lines = Lines {
        text: String::new(),
        screen,
    };
    lines.add("turnd", &headline(status, screen));
    let by_transport = named(&status.allocations, |name, number| {
        format!("{number} {name}")
    });
    let total: u64 = status.allocations.values().sum();
    let calls = count(total, "allocation", "allocations");
    let holding = format!(
        "{}, {}",
        count(status.permissions, "permission", "permissions"),
        count(status.channels, "channel", "channels")
    );
    lines.add(
        "calls",
        &match total {
            0 => "none".to_owned(),
            _ => format!("{calls} ({by_transport}), {holding}"),
        },
    );
    if let Some(now) = status.rate {
        lines.add(
            "relaying",
            &format!(
                "{} to peers, {} to clients",
                rate(now.to_peer),
                rate(now.to_client)
            ),
        );
    }
    let (there, back) = (status.to_peer, status.to_client);
    lines.add(
        "relayed",
        &format!(
            "{} to peers, {} to clients",
            bytes(there.bytes),
            bytes(back.bytes)
        ),
    );
    lines.add("ports", &ports(status, screen));
    lines.add("workers", &workers(status, screen));
    let listeners = status.listeners.iter();
    let listeners = listeners.map(|entry| format!("{} {}", entry.transport, entry.address));
    lines.add("listening", &joined(listeners));
    lines.add(
        "relays",
        &joined(status.relays.iter().map(ToString::to_string)),
    );
    lines.add("logins", &logins(status));
    lines.add("certificate", &certificate(status, screen));
    lines.add(
        "drops",
        &named(&status.drops, |name, number| {
            format!("{number} {}", name.replace('_', " "))
        }),
    );
    lines.add(
        "refused",
        &named(&status.auth_failures, |name, number| {
            format!("{number} {}", name.replace('_', " "))
        }),
    );
    lines.add(
        "limits",
        &named(&status.limits_reached, |name, number| {
            format!("{name} reached {}", count(number, "time", "times"))
        }),
    );
    if status.log_lines_dropped > 0 {
        let lost = count(status.log_lines_dropped, "line was", "lines were");
        lines.add(
            "log",
            &screen.odd(&format!("{lost} dropped: nobody reads fast enough")),
        );
    }
    lines.text
}

fn headline(status: &Status, screen: Screen) -> String {
    let state = if let Some(since) = status.draining_since {
        let ago = turnd::config::unix_now().saturating_sub(since);
        screen.odd(&format!("draining for {}", span(ago.unsigned_abs())))
    } else if status.ready {
        screen.good("ready")
    } else {
        screen.odd("takes no new calls")
    };
    let mut text = format!(
        "{state}, version {}, up {}",
        status.version,
        span(status.uptime.unsigned_abs())
    );
    if status.version != env!("CARGO_PKG_VERSION") {
        text += &screen.odd(concat!(
            " (this command is ",
            env!("CARGO_PKG_VERSION"),
            ")"
        ));
    }
    if status.config_stale {
        text += "\n             ";
        text += &screen.bad(
            "the configuration file is bad: older settings are in force; see turnd check-config",
        );
    }
    text
}

fn ports(status: &Status, screen: Screen) -> String {
    let (used, total) = (status.ports.used, status.ports.total);
    let percent = 100.0 * used as f64 / total.max(1) as f64;
    let text = format!("{used} of {total} in use ({percent:.1} %)");
    if percent > 90.0 {
        screen.bad(&text)
    } else {
        text
    }
}

fn workers(status: &Status, screen: Screen) -> String {
    let (total, answering) = (status.workers.total, status.workers.answering);
    if answering >= total {
        total.to_string()
    } else {
        screen.bad(&format!("{answering} of {total} answer"))
    }
}

fn logins(status: &Status) -> String {
    let secrets = match &status.secrets[..] {
        [] => String::new(),
        [one] => format!("secret {}", name_of(one)),
        all => format!("secrets {}", joined(all.iter().map(|id| name_of(id)))),
    };
    let users = match status.users {
        0 => String::new(),
        number => count(
            number as u64,
            "user with a password",
            "users with passwords",
        ),
    };
    joined([secrets, users].into_iter().filter(|part| !part.is_empty()))
}

/// The id of a secret may be nothing.
fn name_of(id: &str) -> String {
    if id.is_empty() {
        "(without id)".to_owned()
    } else {
        id.to_owned()
    }
}

fn certificate(status: &Status, screen: Screen) -> String {
    let Some(certificate) = &status.certificate else {
        return String::new();
    };
    let text = match certificate.days {
        days @ ..0 => screen.bad(&format!(
            "ended {} ago",
            count(days.unsigned_abs(), "day", "days")
        )),
        days @ 0..FEW_DAYS => screen.odd(&format!(
            "ends in {}",
            count(days.unsigned_abs(), "day", "days")
        )),
        days => format!("good for {days} days"),
    };
    if status.certificate_stale {
        text + &screen.bad("; the renewed one is bad")
    } else {
        text
    }
}

fn named(counts: &BTreeMap<String, u64>, show: impl Fn(&str, u64) -> String) -> String {
    let mut counts: Vec<_> = counts.iter().filter(|(_, number)| **number > 0).collect();
    counts.sort_by_key(|(_, number)| std::cmp::Reverse(**number));
    joined(counts.into_iter().map(|(name, number)| show(name, *number)))
}

fn joined(parts: impl IntoIterator<Item = String>) -> String {
    parts.into_iter().collect::<Vec<_>>().join(", ")
}

/// Lines with a name before each; what is empty has none.
struct Lines {
    text: String,
    screen: Screen,
}

impl Lines {
    fn add(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            let name = self.screen.dim(&format!("{name:<11}"));
            let _ = writeln!(self.text, "{name}  {value}");
        }
    }
}
