//! `turnd kick`

use std::process::ExitCode;

use clap::Args;
use turnd::config::Sources;
use turnd::http::admin::Kicked;

use super::address::Address;
use super::client::{At, Client, Failure, quoted};
use super::show::count;

#[derive(Debug, Args)]
#[group(id = "whose", required = true, multiple = true, args = ["ids", "user", "tenant", "client"])]
pub(super) struct Kick {
    /// The sessions, as `turnd sessions` names them
    #[arg(value_name = "ID", conflicts_with_all = ["user", "tenant", "client"])]
    ids: Vec<String>,
    /// Those of a user, as it was written by who made the credential
    #[arg(long, value_name = "NAME", help_heading = "Which")]
    user: Option<String>,
    /// Those of a tenant; with --user, those of the user of this tenant
    #[arg(long, value_name = "NAME", help_heading = "Which")]
    tenant: Option<String>,
    /// Those of clients at an address, with a port or any
    #[arg(long, value_name = "ADDRESS", help_heading = "Which")]
    client: Option<Address>,
    #[command(flatten)]
    at: At,
}

impl Kick {
    pub(super) fn run(self, sources: &Sources) -> ExitCode {
        let Self {
            ids,
            user,
            tenant,
            client,
            at,
        } = self;
        let client = client.map(|client| client.to_string());
        let filters = [("user", user), ("tenant", tenant), ("client", client)];
        let filters = filters
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", quoted(&value?))));
        let filters: Vec<String> = filters.collect();
        at.ask(sources, |client| {
            let (ended, missing) = if ids.is_empty() {
                let path = format!("/v1/sessions?{}", filters.join("&"));
                (client.delete::<Kicked>(&path)?.ended, Vec::new())
            } else {
                one_by_one(client, &ids)?
            };
            if ended > 0 || missing.is_empty() {
                let ended = count(ended as u64, "session", "sessions");
                super::print(&format!("ended {ended}\n"));
            }
            if missing.is_empty() {
                return Ok(ExitCode::SUCCESS);
            }
            let what = format!(
                "error: not found: {}\n = help: `turnd sessions` lists those that there are",
                missing.join(", ")
            );
            Err(Failure::Own(what))
        })
    }
}

fn one_by_one<'a>(client: &Client, ids: &'a [String]) -> Result<(usize, Vec<&'a str>), Failure> {
    let (mut ended, mut missing) = (0, Vec::new());
    for id in ids {
        match client.delete::<Kicked>(&format!("/v1/sessions/{}", quoted(id))) {
            Ok(kicked) => ended += kicked.ended,
            Err(failure) if failure.is_not_found() => missing.push(id.as_str()),
            Err(failure) => return Err(failure),
        }
    }
    Ok((ended, missing))
}
