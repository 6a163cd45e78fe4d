//! `turnd revoke`: takes credentials back.

use std::fmt::{self, Write as _};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use clap::{ArgGroup, Args};
use hyper::Method;
use tokio::runtime;

use turnd::config::{Loaded, Sources};
use turnd::daemon::complain;
use turnd::http::admin::{Pardoned, RevocationList, Revoked};
use turnd::revocation::{self, Broken, Entry, Order, Revoker, Settings, Store, Words};

use super::client::{At, Client, Failure};
use super::show::count;
use super::{print, with_config};

/// The resource of the admin socket.
const PATH: &str = "/v1/revocations";
/// How many are asked for at once.
const PAGE: usize = 1000;

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("whom").required(true).multiple(true)))]
pub(super) struct Revoke {
    /// One credential, by its id: the claim j in its name
    #[arg(long, value_name = "ID", group = "whom", conflicts_with_all = ["username", "user"])]
    credential: Option<String>,
    /// One credential, by its whole name
    #[arg(long, value_name = "NAME", group = "whom", conflicts_with_all = ["user", "tenant"])]
    username: Option<String>,
    /// All credentials of a user
    #[arg(long, value_name = "NAME", group = "whom")]
    user: Option<String>,
    /// Whose customer the user or the credential is; alone: all credentials of the tenant
    #[arg(long, value_name = "NAME", group = "whom")]
    tenant: Option<String>,
    /// Print what is revoked instead
    #[arg(long, group = "whom", conflicts_with_all = ["credential", "username", "user", "tenant", "not_before", "keep_calls", "pardon"])]
    list: bool,
    /// Revoke what was issued before this moment, in seconds since 1970; now without it
    #[arg(long, value_name = "SECONDS")]
    not_before: Option<u64>,
    /// Let running calls go on until their lifetime is up
    #[arg(long)]
    keep_calls: bool,
    /// Take the revocation back instead
    #[arg(long, conflicts_with_all = ["not_before", "keep_calls"])]
    pardon: bool,
    #[command(flatten)]
    at: At,
}

impl Revoke {
    /// Asks the server, or where none listens, writes what a server will read.
    pub(super) fn run(mut self, sources: &Sources) -> ExitCode {
        let at = std::mem::take(&mut self.at);
        match at.reach(sources) {
            Ok(Some(client)) => told(self.ask(&client)),
            Ok(None) => with_config(sources, |loaded| told(self.write(loaded))),
            Err(failure) => told(Err(failure)),
        }
    }

    fn ask(self, client: &Client) -> Result<String, Failure> {
        let (list, pardon) = (self.list, self.pardon);
        if list {
            return listed(|after| {
                let path = format!("{PATH}?after={after}");
                Ok(client.get::<RevocationList>(&path)?.revocations)
            });
        }
        let words = self.words();
        if pardon {
            let Pardoned { pardoned } = client.send(Method::DELETE, PATH, &words)?;
            return Ok(pardon_told(pardoned, ""));
        }
        let Revoked { ended, until } = client.send(Method::POST, PATH, &words)?;
        let ended = count(ended as u64, "call", "calls");
        Ok(format!(
            "revoked, and remembered until {}; ended {ended}\n",
            moment(until)
        ))
    }

    fn write(self, loaded: &Loaded) -> Result<String, Failure> {
        let Some(settings) = &loaded.parts.revocation else {
            return Err(Failure::Own(
                "error: the server that has this configuration does not know of revocations\n = help: take enabled = false out of [revocation], and start it anew"
                    .to_owned(),
            ));
        };
        let own = |failure: &dyn fmt::Display| Failure::Own(format!("error: {failure}"));
        let (list, pardon) = (self.list, self.pardon);
        let order = self.words().order();
        let database = Database::open(settings).map_err(|Broken { what, remedy }| {
            Failure::Own(format!("error: {what}\n = help: {remedy}"))
        })?;
        if list {
            return listed(|after| database.list(after).map_err(|failure| own(&failure)));
        }
        let order = order.map_err(|bad| own(&bad))?;
        let done = if pardon {
            database.pardon(order)
        } else {
            database.revoke(order)
        };
        done.map_err(|failure| own(&failure))
    }

    fn words(self) -> Words {
        Words {
            credential_id: self.credential,
            username: self.username,
            user: self.user,
            tenant: self.tenant,
            not_before: self.not_before,
            cut: !self.keep_calls,
        }
    }
}

/// The database, without a relay.
struct Database {
    revoker: Revoker,
    runtime: runtime::Runtime,
}

impl Database {
    /// Only one that is there: a file of another user's would keep the server from starting.
    fn open(settings: &Settings) -> Result<Self, Broken> {
        if !settings.database.exists() {
            return Err(Broken {
                what: format!("there is no {}", settings.database.display()),
                remedy: "start the server once; if it has another state directory, name that: STATE_DIRECTORY=/var/lib/turnd turnd revoke …"
                    .to_owned(),
            });
        }
        let store = Store::open(&settings.database)?;
        let no_runtime = |error: std::io::Error| Broken {
            what: error.to_string(),
            remedy: "see what the kernel says, as in `dmesg`".to_owned(),
        };
        let runtime = runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(no_runtime)?;
        let started = revocation::start(store, settings, None, Default::default());
        let revoker = runtime.block_on(started)?;
        Ok(Self { revoker, runtime })
    }

    fn revoke(&self, order: Order) -> Result<String, revocation::Failure> {
        let outcome = self.runtime.block_on(self.revoker.revoke(order))?;
        Ok(format!(
            "revoked, and remembered until {}; a running server notices within a second\n",
            moment(outcome.term.until)
        ))
    }

    fn pardon(&self, order: Order) -> Result<String, revocation::Failure> {
        let there = self.runtime.block_on(self.revoker.pardon(order.revoked))?;
        Ok(pardon_told(
            there,
            "; a running server notices within a second",
        ))
    }

    fn list(&self, after: i64) -> Result<Vec<Entry>, revocation::Failure> {
        self.runtime.block_on(self.revoker.list(after, PAGE))
    }
}

fn told(done: Result<String, Failure>) -> ExitCode {
    match done {
        Ok(text) => print(&text),
        Err(failure) => {
            complain(&failure);
            failure.code()
        }
    }
}

fn pardon_told(there: bool, more: &str) -> String {
    if there {
        format!("pardoned{more}\n")
    } else {
        "there was nothing to pardon\n".to_owned()
    }
}

/// All that `page` tells from a place on, page by page.
fn listed(page: impl Fn(i64) -> Result<Vec<Entry>, Failure>) -> Result<String, Failure> {
    let mut text = String::new();
    let mut after = 0;
    loop {
        let entries = page(after)?;
        let Some(last) = entries.last() else {
            return Ok(text);
        };
        after = last.place;
        entries.iter().for_each(|entry| line(&mut text, entry));
    }
}

/// One revocation as the options that make it.
fn line(text: &mut String, entry: &Entry) {
    let Words {
        credential_id,
        username,
        user,
        tenant,
        not_before,
        ..
    } = &entry.words;
    let options = [
        ("credential", credential_id),
        ("username", username),
        ("user", user),
        ("tenant", tenant),
    ];
    for (option, value) in options {
        if let Some(value) = value {
            // Names may be anybody's words.
            let _ = write!(text, "--{option} {} ", value.escape_debug());
        }
    }
    if let Some(moment) = not_before {
        let _ = write!(text, "--not-before {moment} ");
    }
    let _ = writeln!(text, "(until {})", moment(entry.until));
}

/// Seconds since 1970 as people say it.
fn moment(unix: u64) -> String {
    /// The last second of the year 9999.
    const LAST: u64 = 253_402_300_799;
    if unix > LAST {
        return "the end of time".to_owned();
    }
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_told_as_a_date() {
        assert_eq!(moment(1_795_585_305), "Wed, 25 Nov 2026 05:41:45 GMT");
        assert_eq!(moment(253_402_300_799), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(moment(u64::MAX), "the end of time");
    }
}
