//! `turnd reload`

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use turnd::config::Sources;
use turnd::http::admin::{Affected, Change, Reload as Told, When};

use super::client::{At, Client};
use super::show::{Column, Screen, count, plain, table};

/// How many calls are named.
const NAMED: usize = 20;

#[derive(Debug, Args)]
pub(super) struct Reload {
    /// Only tell what would change, and what would become of running calls
    #[arg(long)]
    dry_run: bool,
    /// Print what the server says, as JSON
    #[arg(long, help_heading = "Output")]
    json: bool,
    #[command(flatten)]
    at: At,
}

impl Reload {
    pub(super) fn run(self, sources: &Sources) -> ExitCode {
        let body = serde_json::json!({ "dryRun": self.dry_run });
        let json = self.json;
        self.at.ask(sources, |client| {
            let told: serde_json::Value = client.post("/v1/reload", &body)?;
            if json {
                return Ok(super::print(&format!("{told:#}\n")));
            }
            let told = Client::understood(told)?;
            Ok(super::print(&text(&told, Screen::of_stdout())))
        })
    }
}

fn text(told: &Told, screen: Screen) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}",
        match (told.applied, told.changes.is_empty()) {
            (true, true) => "the configuration was read again; nothing has changed",
            (true, false) => "the configuration was read again",
            (false, true) => "the configuration is good; nothing would change",
            (false, false) => "the configuration is good; this would change:",
        }
    );
    for change in &told.changes {
        text += &changed(change, screen);
    }
    if told
        .changes
        .iter()
        .any(|change| change.when == When::Restart)
    {
        let note = screen.odd("* waits until the server is started anew");
        let _ = writeln!(text, "{note}");
    }
    text += &affected(&told.sessions, told.applied, screen);
    for warning in &told.warnings {
        let place = warning.place.as_deref().unwrap_or(&warning.key);
        let _ = writeln!(
            text,
            "{}: {place}: {}\n = help: {}",
            screen.odd("warning"),
            warning.what,
            warning.remedy
        );
    }
    text
}

fn changed(change: &Change, screen: Screen) -> String {
    let Change {
        key,
        old,
        new,
        when,
    } = change;
    let mark = match when {
        When::Now => " ",
        When::Restart => "*",
    };
    let mut text = format!("{} {key}\n", screen.odd(mark));
    if old.is_some() || new.is_some() {
        let shown = |value: &Option<String>| plain(value.as_deref().unwrap_or("(not given)"));
        let _ = writeln!(text, "    {} {}", screen.bad("-"), shown(old));
        let _ = writeln!(text, "    {} {}", screen.good("+"), shown(new));
    } else {
        text += "    what is in the file has changed\n";
    }
    text
}

fn affected(affected: &Affected, applied: bool, screen: Screen) -> String {
    let calls = |number: usize| count(number as u64, "call", "calls");
    let parts = [
        (
            affected.ended,
            if applied {
                "ended at once"
            } else {
                "would end at once"
            },
        ),
        (
            affected.expiring,
            "cannot be refreshed any more: the user, or the secret, is gone",
        ),
        (
            affected.perhaps_expiring,
            "cannot be refreshed if made with the secret that is gone",
        ),
        (
            affected.losing_peers,
            if applied {
                "lost peers that are denied"
            } else {
                "would lose peers that are denied"
            },
        ),
    ];
    let mut text = String::new();
    for (number, what) in parts.into_iter().filter(|(number, _)| *number > 0) {
        let _ = writeln!(
            text,
            "{}",
            screen.odd(&format!("{}: {what}", calls(number)))
        );
    }
    if affected.named.is_empty() {
        return text;
    }
    let rows: Vec<Vec<String>> = affected
        .named
        .iter()
        .take(NAMED)
        .map(|session| {
            let peers = session
                .peers
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>();
            vec![
                session.id.clone(),
                plain(&session.user),
                session.client.to_string(),
                session.fate.clone(),
                peers.join(" "),
            ]
        })
        .collect();
    let columns = [
        Column::left("SESSION"),
        Column::left("USER").yielding(),
        Column::left("CLIENT").yielding(),
        Column::left("FATE"),
        Column::left("PEERS").yielding(),
    ];
    text += &table(&columns, &rows, screen);
    let all =
        affected.ended + affected.expiring + affected.perhaps_expiring + affected.losing_peers;
    if all > rows.len() {
        let _ = writeln!(
            text,
            "{}",
            screen.dim(&format!("{} of {all} shown", rows.len()))
        );
    }
    text
}
