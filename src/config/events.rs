//! `[events]`: who is told of sessions.

use std::path::PathBuf;
use std::time::Duration;

use crate::events::{self, Key, Sink};

use super::assemble::Assembly;
use super::problem::Complaint;
use super::secrets::SHORT_SECRET;
use super::section::Section;
use super::{OtlpSource, SecretFile, otlp, values};

const SHORTEST_INTERIM: Duration = Duration::from_secs(1);
const LONGEST_INTERIM: Duration = Duration::from_secs(24 * 3600);
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(100);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_RETRY: Duration = Duration::from_secs(1);
const DEFAULT_SPOOL: u32 = 64;
/// Where events wait, in the state directory.
const SPOOL: &str = "events";

/// `[events]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    /// Where lines go.
    pub file: Option<Sink>,
    /// How often sessions that go on are told of.
    pub interim: Option<Duration>,
    /// Is of clients only their network told?
    pub anonymize: bool,
    /// Who is sent events over HTTP.
    pub webhook: Option<WebhookSource>,
    /// Who is sent spans.
    pub otlp: Option<OtlpSource>,
}

/// `[events.webhook]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookSource {
    /// Where events are posted.
    pub url: String,
    /// Where the secret lies that they are signed with.
    pub secret_file: SecretFile,
    /// The key that names the file, for messages.
    pub key: String,
    /// Where events wait; `None`: in the state directory.
    pub spool: Option<PathBuf>,
    /// How many of them: in MiB.
    pub spool_limit: u32,
    /// How long the receiver may take.
    pub timeout: Duration,
    /// The first pause after a failure.
    pub retry: Duration,
}

pub(super) fn read(section: &mut Section<'_>) -> Events {
    let file = match section.parsed("file", |text| Ok(text == "stdout")) {
        Some(true) => Some(Sink::Stdout),
        Some(false) => section.path("file").map(Sink::File),
        None => None,
    };
    Events {
        file,
        interim: section.parsed("interim", |text| {
            values::duration_within(text, SHORTEST_INTERIM..=LONGEST_INTERIM)
        }),
        anonymize: section.flag("anonymize").unwrap_or(false),
        otlp: otlp::read(section),
        webhook: section.table("webhook", webhook),
    }
}

fn webhook(section: &mut Section<'_>) -> Option<WebhookSource> {
    let within = |text: &str| values::duration_within(text, SHORTEST_TIMEOUT..=LONGEST_TIMEOUT);
    let url = section.parsed("url", |text| {
        let remedy = "write it as in \"https://app.example.org/turn-events\"; events are signed with secret_file instead";
        url(text, "a receiver", remedy)
    });
    let secret_file = section.secret_file("secret_file");
    let spool = section.path("spool");
    let spool_limit = section.number("spool_limit", 1, 1 << 20);
    let timeout = section.parsed("timeout", within);
    let retry = section.parsed("retry", within);
    let others = ["spool", "timeout", "retry"];
    let is_named = others.iter().any(|key| section.is_given(key));
    match (section.is_given("url"), section.is_given("secret_file")) {
        (true, false) => section.error(
            "url",
            Complaint::new(
                "there is nothing to sign events with, so the receiver could not know that they are ours",
                "add secret_file = \"/etc/turnd/webhook-secret\"; `turnd genkey` prints a good secret",
            ),
        ),
        (false, true) => section.error(
            "secret_file",
            Complaint::new(
                "there is a secret, but nowhere to post events",
                "add url = \"https://app.example.org/turn-events\"",
            ),
        ),
        (false, false) if is_named => section.error(
            "",
            Complaint::new(
                "this says how events are posted, but not where to",
                "add url = \"https://app.example.org/turn-events\" and secret_file",
            ),
        ),
        (true, true) | (false, false) => {}
    }
    Some(WebhookSource {
        url: url?,
        secret_file: secret_file?,
        key: section.name("secret_file"),
        spool,
        spool_limit: spool_limit.unwrap_or(DEFAULT_SPOOL),
        timeout: timeout.unwrap_or(DEFAULT_TIMEOUT),
        retry: retry.unwrap_or(DEFAULT_RETRY),
    })
}

/// The URL of `whom` over HTTP.
pub(super) fn url(text: &str, whom: &str, remedy: &str) -> Result<String, Complaint> {
    let parsed = reqwest::Url::parse(text).ok();
    let fits = parsed.is_some_and(|url| {
        ["http", "https"].contains(&url.scheme())
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
    });
    if fits {
        return Ok(text.to_owned());
    }
    // Not quoted: there may be a password in it.
    Err(Complaint::new(
        format!("this is not the URL of {whom} over HTTP, without a name and a password in it"),
        remedy,
    ))
}

impl Assembly<'_> {
    /// Who is told of sessions, if anybody is.
    pub(super) fn events(&mut self) -> Option<events::Settings> {
        let Events {
            file,
            interim,
            anonymize,
            webhook,
            otlp,
        } = &self.config.events;
        let webhook = match webhook {
            Some(source) => Some(self.webhook(source)?),
            None => None,
        };
        let otlp = match otlp {
            Some(source) => Some(self.otlp(source)?),
            None => None,
        };
        let has_lines = file.is_some() || webhook.is_some();
        if interim.is_some() && !has_lines {
            self.warning(
                "events.interim",
                "nobody is told of sessions, so nobody is told that they go on",
                "add file = \"stdout\" under [events], or a [events.webhook]",
            );
        }
        (has_lines || otlp.is_some()).then(|| events::Settings {
            sink: file.clone(),
            interim: *interim,
            anonymize: *anonymize,
            webhook,
            otlp,
        })
    }

    fn webhook(&mut self, source: &WebhookSource) -> Option<events::Webhook> {
        let secret = self.read_secret(&source.key, &source.secret_file)?;
        if secret.len() < SHORT_SECRET {
            self.warning(
                &source.key,
                format!(
                    "this secret has {} bytes: who sees one event can guess it",
                    secret.len()
                ),
                "put a longer one into the file: `turnd genkey` prints one",
            );
        }
        let host = reqwest::Url::parse(&source.url).ok();
        let is_plain = host.is_some_and(|url| url.scheme() == "http" && !is_here(&url));
        if is_plain {
            self.warning(
                "events.webhook.url",
                "users and addresses of clients go there unencrypted",
                "use https",
            );
        }
        let spool = source.spool.clone();
        Some(events::Webhook {
            url: source.url.clone(),
            secret: Key(secret),
            spool: spool.unwrap_or_else(|| self.host.state.path(SPOOL)),
            spool_limit: u64::from(source.spool_limit) << 20,
            timeout: source.timeout,
            retry: source.retry,
        })
    }
}

pub(super) fn is_here(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address: Option<std::net::IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    host == "localhost" || address.is_some_and(|address| address.is_loopback())
}

/// `[events]`, of which the daemon is told as a whole.
impl Events {
    /// The table as TOML.
    pub(super) fn show(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            file,
            interim,
            anonymize,
            webhook,
            otlp,
        } = self;
        writeln!(f, "\n[events]")?;
        match file {
            Some(Sink::Stdout) => writeln!(f, "file = \"stdout\"")?,
            Some(Sink::File(file)) => writeln!(f, "file = {}", super::show::path(file))?,
            None => writeln!(f, "# file: off")?,
        }
        match interim {
            Some(period) => writeln!(f, "interim = \"{}\"", values::show_duration(*period))?,
            None => writeln!(f, "# interim: off")?,
        }
        writeln!(f, "anonymize = {anonymize}")?;
        match otlp {
            Some(otlp) => otlp.show(f)?,
            None => writeln!(f, "# otlp: off")?,
        }
        writeln!(f, "\n[events.webhook]")?;
        let Some(webhook) = webhook else {
            return writeln!(f, "# off");
        };
        webhook.show(f)
    }
}

impl WebhookSource {
    fn show(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            url,
            secret_file,
            spool,
            spool_limit,
            timeout,
            retry,
            ..
        } = self;
        writeln!(
            f,
            "url = {}\nsecret_file = {}\nspool_limit = {spool_limit}\ntimeout = \"{}\"\nretry = \"{}\"",
            super::show::text(url),
            super::show::secret_file(secret_file),
            values::show_duration(*timeout),
            values::show_duration(*retry)
        )?;
        match spool {
            Some(spool) => writeln!(f, "spool = {}", super::show::path(spool)),
            None => writeln!(f, "# spool: in the state directory"),
        }
    }
}
