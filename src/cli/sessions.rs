//! `turnd sessions`

mod details;

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use turnd::config::Sources;
use turnd::http::admin::{Session, SessionList};

use details::details;

use super::address::Address;
use super::client::{At, Client, Failure, quoted};
use super::show::{Column, Screen, plain, short_rate, span, table};

#[derive(Debug, Args)]
pub(super) struct List {
    /// One session, with everything that is known of it
    #[arg(value_name = "ID", conflicts_with_all = ["user", "tenant", "client", "search"])]
    id: Option<String>,
    /// Those of a user, as it was written by who made the credential
    #[arg(long, value_name = "NAME", help_heading = "Which")]
    user: Option<String>,
    /// Those of a tenant
    #[arg(long, value_name = "NAME", help_heading = "Which")]
    tenant: Option<String>,
    /// Those of clients at an address, with a port or any
    #[arg(long, value_name = "ADDRESS", help_heading = "Which")]
    client: Option<Address>,
    /// Those with a part that reads like this: user, address, id, program
    #[arg(long, value_name = "TEXT", help_heading = "Which")]
    search: Option<String>,
    /// Which come first
    #[arg(
        long,
        value_name = "ORDER",
        default_value = "new",
        help_heading = "Which"
    )]
    sort: Order,
    /// How many at most
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=10_000),
        help_heading = "Which"
    )]
    limit: u32,
    /// Print what the server says, as JSON
    #[arg(long, help_heading = "Output")]
    json: bool,
    #[command(flatten)]
    at: At,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Order {
    /// The youngest
    New,
    /// The oldest
    Old,
    /// Those with the most traffic now
    Rate,
    /// Those with the most traffic so far
    Bytes,
    /// Likewise, in packets
    Packets,
}

impl List {
    pub(super) fn run(self, sources: &Sources) -> ExitCode {
        let path = self.path();
        let (one, json) = (self.id.is_some(), self.json);
        self.at.ask(sources, |client| {
            let screen = Screen::of_stdout();
            Ok(super::print(&match (json, one) {
                (true, _) => format!("{:#}\n", client.get::<serde_json::Value>(&path)?),
                (false, true) => details(&client.get(&path)?, screen),
                (false, false) => list(client, &path, screen)?,
            }))
        })
    }

    fn path(&self) -> String {
        if let Some(id) = &self.id {
            return format!("/v1/sessions/{}", quoted(id));
        }
        let order = self.sort.to_possible_value();
        let order = order.map_or_else(String::new, |value| value.get_name().to_owned());
        let mut path = format!("/v1/sessions?rates=true&limit={}&sort={order}", self.limit);
        let client = self.client.map(|client| client.to_string());
        let filters = [
            ("user", &self.user),
            ("tenant", &self.tenant),
            ("client", &client),
            ("search", &self.search),
        ];
        for (name, value) in filters {
            if let Some(value) = value {
                let _ = write!(path, "&{name}={}", quoted(value));
            }
        }
        path
    }
}

fn list(client: &Client, path: &str, screen: Screen) -> Result<String, Failure> {
    let SessionList {
        sessions,
        matching,
        total,
    } = client.get(path)?;
    if sessions.is_empty() {
        return Ok(match total {
            0 => "no sessions\n".to_owned(),
            total => format!("none of {total} sessions is like that\n"),
        });
    }
    let mut text = table(
        &COLUMNS,
        &sessions.iter().map(row).collect::<Vec<_>>(),
        screen,
    );
    if sessions.len() < matching {
        let more = format!("{} of {matching} shown: --limit shows more", sessions.len());
        text += &screen.dim(&more);
        text.push('\n');
    }
    Ok(text)
}

const COLUMNS: [Column; 8] = [
    Column::left("SESSION"),
    Column::left("USER").yielding(),
    Column::left("VIA"),
    Column::left("CLIENT").yielding(),
    Column::left("RELAY").yielding(),
    Column::right("AGE"),
    Column::right("TO PEERS"),
    Column::right("BACK"),
];

fn row(session: &Session) -> Vec<String> {
    let [there, back] = match session.rate {
        Some(rate) => [short_rate(rate.to_peer), short_rate(rate.to_client)],
        None => [String::new(), String::new()],
    };
    // The address of the relay is the same for nearly all: its port tells more.
    let relays = session
        .relays
        .iter()
        .map(|relay| format!(":{}", relay.port()));
    vec![
        session.id.clone(),
        plain(&who(session)),
        session.transport.clone(),
        session
            .client
            .map(|client| client.to_string())
            .unwrap_or_default(),
        relays.collect::<Vec<_>>().join(" "),
        span(session.age),
        there,
        back,
    ]
}

/// The user, with whose customer it is.
pub(super) fn who(session: &Session) -> String {
    match &session.tenant {
        Some(tenant) => format!("{tenant}/{}", session.user),
        None => session.user.clone(),
    }
}
