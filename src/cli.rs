//! The commands, and what they print.

mod address;
mod client;
mod drain;
mod explain;
mod import;
mod kick;
mod log_level;
mod papers;
mod ports;
mod reload;
mod revoke;
mod sessions;
mod show;
mod status;
mod test;
mod top;

use std::env;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use turnd::config::{self, Complaint, ENVIRONMENT_PREFIX, Host, Loaded, Report, Sources};
use turnd::credential::{Credential, Urls};
use turnd::daemon::{self, EXIT_CONFIG, complain};

use revoke::Revoke;

/// Usernames are shorter than 509 bytes (RFC 8489 §14.3); the expiry takes some of them.
const LONGEST_USER: usize = 480;

/// A STUN and TURN relay server for WebRTC.
///
/// Without a configuration, turnd begins to relay on port 3478 with a secret that it makes itself, and prints what to
/// paste into a page. It relays for nobody without a credential, and to no private network unless told to.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    sources: Given,
}

const EXAMPLES: &str = "\
Examples:
  Try it, without any file:
      turnd
  Begin a configuration: every key, with its explanation:
      turnd show-config --defaults > turnd.toml
  See all of its mistakes at once, then run it:
      turnd check-config --config turnd.toml
      turnd --config turnd.toml
  Change a key for once, in either of two ways:
      turnd --set relay.ports=50000-50999
      TURND__RELAY__PORTS=50000-50999 turnd
  Make what to paste into a page:
      turnd credential --user alice --ttl 1h --js
  See whether a server works, this or any other, and if not, why:
      turnd test turn:turn.example.org --secret-file auth-secret

Signals:
  SIGHUP   read configuration and certificate again; a bad one changes nothing
  SIGTERM  let no new call in, wait for the others ([server] drain_timeout),
           end; a second one ends at once

Exit codes:
  0 success   1 failure   2 wrong command line   78 bad configuration";

/// Where the configuration comes from.
#[derive(Clone, Debug, Args)]
struct Given {
    /// The configuration file (TOML); the defaults without one
    #[arg(
        long,
        short,
        value_name = "FILE",
        global = true,
        help_heading = "Configuration"
    )]
    config: Option<PathBuf>,
    /// Set a key, whatever file and environment say; may be repeated
    #[arg(long, value_name = "PATH=VALUE", global = true, help_heading = "Configuration", value_parser = assignment)]
    set: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server; what happens without a command, too
    Run,
    /// Run the token service alone, without a relay
    ///
    /// Hands out credentials over HTTP as [token] says. Where it is to run beside the relay, `turnd run` does that.
    Token,
    /// Tell everything that is wrong with the configuration, with its place and the remedy
    ///
    /// Reads secrets and certificates as the server would; exits with 78 if it would not start.
    CheckConfig,
    /// Print the configuration that the server would use
    ///
    /// Secrets are not in it: the configuration names the files they lie in.
    ShowConfig {
        /// Print every key with its default and its explanation instead
        #[arg(long)]
        defaults: bool,
    },
    /// Make a time-limited credential from the first shared secret of the configuration
    Credential(Mint),
    /// Take credentials back before they expire: one, all of a user, or all of a tenant
    ///
    /// Their calls end within a second, and they are refused from then on, after a restart, too.
    Revoke(Revoke),
    /// Print a new random secret, for a file under [auth]
    ///
    /// For example: (umask 077; turnd genkey > /etc/turnd/auth-secret)
    Genkey,
    /// Make a configuration out of another server's
    ///
    /// For example: turnd import coturn /etc/turnserver.conf > turnd.toml
    Import(import::Import),
    /// Test a server as its clients see it, and say what is wrong
    ///
    /// Logs in, opens two relays, sends packets from one to the other and back, measures them, and gives the relays
    /// back. Works with any STUN or TURN server. Without a URL it tests every listener of the configuration, with
    /// its first secret; the server has to be running.
    #[command(after_help = test::EXAMPLES)]
    Test(test::Test),
    /// Print what a firewall has to let through: protocol, ports, address, and who comes in there
    Ports,
    /// Print the completions of a shell
    ///
    /// For example: turnd completions bash > /etc/bash_completion.d/turnd
    Completions {
        /// The shell that is to complete commands and options
        shell: papers::Shell,
    },
    /// Print the manual page
    Man {
        /// Write it into this directory instead, with a page for each command
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
    /// Say why a call fails: the most likely cause first, and what to do about it
    ///
    /// Asks the running server what it has noted of a session, a user, a client or a peer, also of those that have ended
    /// or were refused lately. Whether a peer may be reached is told without a server, too, by the configuration.
    #[command(after_help = explain::EXAMPLES)]
    Explain(explain::Explain),
    /// Show what the running server does
    Status(status::Show),
    /// List the calls of the running server, or show one
    Sessions(sessions::List),
    /// End calls of the running server
    ///
    /// Their clients hear nothing of it, and may begin anew as long as their credentials are good.
    Kick(kick::Kick),
    /// Watch the running server, second by second, in a terminal
    Top(top::Top),
    /// Take no new calls, so that the server can be stopped when the last one has ended
    ///
    /// The server goes on to run, and /readyz says 503. Who asks for an allocation is sent to the servers of
    /// [redirect] (300), or refused (508).
    Drain(drain::Drain),
    /// Have the running server read its configuration again, and tell what has changed
    ///
    /// A bad configuration changes nothing. The same as SIGHUP, but for what is told.
    Reload(reload::Reload),
    /// Show what the running server logs, or change it until the next reload
    LogLevel(log_level::LogLevel),
}

#[derive(Debug, Args)]
struct Mint {
    /// Whom it is for: any name; quotas are counted by it
    #[arg(long, value_name = "NAME", value_parser = user)]
    user: String,
    /// How long it is good, as in 30m, 1h or 2d
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = ttl)]
    ttl: Duration,
    /// The name or address that clients find the server at; that of the relay without it
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Print the RTCConfiguration as JSON
    #[arg(long, conflicts_with = "js", help_heading = "Output")]
    json: bool,
    /// Print a statement of JavaScript, ready to paste
    #[arg(long, help_heading = "Output")]
    js: bool,
}

impl Cli {
    /// Does what was asked for.
    pub(crate) fn run(self) -> ExitCode {
        let has_config = self.sources.config.is_some();
        let sources = self.sources.sources();
        match self.command.unwrap_or(Command::Run) {
            Command::Run => daemon::run(sources),
            Command::Token => daemon::token::run(sources),
            Command::CheckConfig => check_config(&sources),
            Command::ShowConfig { defaults: true } => print(config::REFERENCE),
            Command::ShowConfig { defaults: false } => {
                with_config(&sources, |loaded| print(&loaded.config.to_string()))
            }
            Command::Credential(mint) => with_config(&sources, |loaded| mint.print(loaded)),
            Command::Revoke(revoke) => revoke.run(&sources),
            Command::Genkey => match config::generate() {
                Ok(secret) => print(&format!("{}\n", *secret)),
                Err(error) => fail(&format!("error: {error}")),
            },
            Command::Import(import) => import.run(),
            Command::Test(test) => test.run(&sources, has_config),
            Command::Ports => with_config(&sources, ports::show),
            Command::Completions { shell } => papers::completions(shell),
            Command::Man { directory } => papers::man(directory),
            Command::Explain(explain) => explain.run(&sources),
            Command::Status(show) => show.run(&sources),
            Command::Sessions(list) => list.run(&sources),
            Command::Kick(kick) => kick.run(&sources),
            Command::Top(top) => top.run(&sources),
            Command::Drain(drain) => drain.run(&sources),
            Command::Reload(reload) => reload.run(&sources),
            Command::LogLevel(log_level) => log_level.run(&sources),
        }
    }
}

impl Given {
    fn sources(self) -> Sources {
        let environment = env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Sources {
            file: self.config,
            environment: environment
                .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX))
                .collect(),
            overrides: self.set,
        }
    }
}

fn check_config(sources: &Sources) -> ExitCode {
    let (report, good) = match config::load(sources, &Host::of_process()) {
        Ok(loaded) => (loaded.report, true),
        Err(report) => (report, false),
    };
    tell(&report);
    let (errors, warnings) = (report.errors().count(), report.warnings().count());
    let verdict = if good { "good" } else { "not usable" };
    complain(&format_args!(
        "the configuration is {verdict}: {}, {}",
        number(errors, "error"),
        number(warnings, "warning")
    ));
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_CONFIG)
    }
}

fn number(count: usize, what: &str) -> String {
    match count {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

/// Loads the configuration for a command; errors end it.
fn with_config(sources: &Sources, command: impl FnOnce(&Loaded) -> ExitCode) -> ExitCode {
    match config::load(sources, &Host::of_process()) {
        Ok(loaded) => command(&loaded),
        Err(report) => {
            tell(&report);
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

fn tell(report: &Report) {
    if report.problems().next().is_some() {
        complain(report);
    }
}

impl Mint {
    fn print(&self, loaded: &Loaded) -> ExitCode {
        let Some(secret) = loaded.parts.secrets.first() else {
            complain(
                &"error: there is no shared secret to make credentials from\n = help: add one under [auth] secrets",
            );
            return ExitCode::from(EXIT_CONFIG);
        };
        let credential = Credential::mint(secret, &self.user, self.ttl, config::unix_now());
        let urls = || {
            Urls::new(
                self.host.as_deref(),
                &loaded.parts.plane.listeners,
                &loaded.parts.plane.relay.addresses,
            )
        };
        print(&if self.json {
            format!("{:#}\n", urls().configuration(&credential))
        } else if self.js {
            urls().script(&credential)
        } else {
            format!(
                "username: {}\npassword: {}\n",
                credential.username, *credential.password
            )
        })
    }
}

/// Prints to standard output; a reader that has gone is not a failure.
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => fail(&format!("error: {error}")),
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}

fn fail(what: &str) -> ExitCode {
    complain(&what);
    ExitCode::FAILURE
}

fn assignment(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((path, _)) if !path.trim().is_empty() => Ok(text.to_owned()),
        Some(_) | None => {
            Err("write a key, = and a value, as in relay.ports=50000-50999".to_owned())
        }
    }
}

fn user(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > LONGEST_USER || text.chars().any(char::is_control) {
        return Err(format!(
            "write a name of 1 to {LONGEST_USER} bytes, without control characters"
        ));
    }
    Ok(text.to_owned())
}

/// What is wrong with an option, in a line.
fn told(Complaint { what, remedy }: Complaint) -> String {
    format!("{what}; {remedy}")
}

fn duration(text: &str) -> Result<Duration, String> {
    config::duration(text).map_err(told)
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration(text)?;
    if ttl < Duration::from_secs(1) {
        Err("a credential must be good for a second at least".to_owned())
    } else {
        Ok(ttl)
    }
}
