//! `turnd test`: what of [`turnd::probe`] is given by flags, and how it is shown.

use std::io::{self, IsTerminal as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use zeroize::Zeroizing;

use turnd::config::{self, Host, Loaded, SecretFile, Sources};
use turnd::daemon::{EXIT_CONFIG, complain};
use turnd::plane::Listen;
use turnd::probe::{
    self, Access, Paint, Plan, Progress, Service, Style, Target, Transport, Trust, Url,
};
use turnd::turn::{SecretAlgorithm, SharedSecret};

use super::show::may_colour;
use super::{fail, print, tell, ttl, user};

pub(super) const EXAMPLES: &str = "\
Examples:
  The server on this host, at every listener of its configuration:
      turnd test --config /etc/turnd/turnd.toml
  Any server, as seen from here, with the secret that it shares:
      turnd test turn:turn.example.org turns:turn.example.org --secret-file auth-secret
  With a name and a password; what is printed is for a program:
      turnd test turn:turn.example.org --user bot --password-file bot --json
  Without a credential, as far as strangers get:
      turnd test stun:stun.example.org

URLs: turn:HOST[:PORT][?transport=udp|tcp], turns: for TLS (with ?transport=udp: DTLS), stun: and stuns:.
An IPv6 address stands in brackets. Each address family that the host has is tested.

Exit codes:
  0 every URL works   1 one does not   2 wrong command line   78 bad configuration   130 interrupted";

/// What a shell says of who was ended by Ctrl-C.
const INTERRUPTED: u8 = 130;
/// Whom credentials are for, if nobody is named.
const NOBODY: &str = "turnd-test";

#[derive(Debug, Args)]
pub(super) struct Test {
    /// What to test
    #[arg(value_name = "URL")]
    urls: Vec<Url>,
    /// Who logs in
    #[arg(long, value_name = "NAME", value_parser = user, help_heading = "Login")]
    user: Option<String>,
    /// The file with the password
    #[arg(long, value_name = "FILE", requires = "user", help_heading = "Login")]
    password_file: Option<PathBuf>,
    /// The file with the secret that the server shares
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "password_file",
        help_heading = "Login"
    )]
    secret_file: Option<PathBuf>,
    /// Make passwords with SHA-256 instead of SHA-1
    #[arg(long, requires = "secret_file", help_heading = "Login")]
    sha256: bool,
    /// Trust this authority, too (PEM)
    #[arg(long, value_name = "FILE", help_heading = "Certificates")]
    ca: Option<PathBuf>,
    /// Go on where a certificate is not to be believed
    #[arg(long, help_heading = "Certificates")]
    insecure: bool,
    /// Packets that are sent to measure the way, one each 20 ms
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    count: u32,
    /// How long each URL may take at most
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = ttl)]
    timeout: Duration,
    /// Print one JSON document when all is done
    #[arg(long, help_heading = "Output")]
    json: bool,
}

impl Test {
    /// Does it.
    pub(super) fn run(self, sources: &Sources, has_config: bool) -> ExitCode {
        let host = Host::of_process();
        let loaded = if self.urls.is_empty() || has_config {
            match config::load(sources, &host) {
                Ok(loaded) => Some(loaded),
                Err(report) => {
                    tell(&report);
                    return ExitCode::from(EXIT_CONFIG);
                }
            }
        } else {
            None
        };
        let access = match self.access(loaded.as_ref(), &host) {
            Ok(access) => access,
            Err(refusal) => return refusal,
        };
        let trust = match Trust::new(self.ca.as_deref(), host.unix) {
            Ok(trust) => trust,
            Err(error) => return fail(&format!("error: {error}")),
        };
        let targets = self.targets(loaded.as_ref());
        if targets.is_empty() {
            return fail("error: there is no listener that could be tested from here");
        }
        let (stop, stopped) = watch::channel(false);
        let plan = Plan {
            access,
            trust,
            insecure: self.insecure,
            count: self.count,
            timeout: self.timeout,
            unix: host.unix,
            stop: stopped,
        };
        self.test(&plan, &targets, stop)
    }

    fn test(&self, plan: &Plan, targets: &[Target], stop: watch::Sender<bool>) -> ExitCode {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return fail(&format!("error: {error}")),
        };
        let paint = Paint(style());
        let mut screen = Screen::new(paint, !self.json, plan.count);
        let report = runtime.block_on(async {
            tokio::spawn(heed_signals(stop));
            probe::run(plan, targets, &mut |progress| screen.show(progress)).await
        });
        screen.bar.finish_and_clear();
        // A name server that never answers may still be waited for by the system's resolver.
        runtime.shutdown_background();
        if self.json {
            let text = serde_json::to_string_pretty(&report);
            let text = text.expect("a report has nothing in it that JSON has not");
            print(&format!("{text}\n"));
        } else {
            print(&format!("\n{}", paint.verdict(&report)));
        }
        if report.is_stopped() {
            ExitCode::from(INTERRUPTED)
        } else if report.ok {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    fn access(&self, loaded: Option<&Loaded>, host: &Host) -> Result<Access, ExitCode> {
        let user = || self.user.clone().unwrap_or_else(|| NOBODY.to_owned());
        if let Some(file) = &self.password_file {
            let password = read(file, host)?;
            let password = String::from_utf8_lossy(&password).into_owned();
            return Ok(Access::User {
                name: user(),
                password: Zeroizing::new(password),
            });
        }
        if let Some(file) = &self.secret_file {
            let bytes = read(file, host)?;
            let with = |algorithm| SharedSecret::new("given", &bytes, algorithm);
            let (sha1, sha256) = (with(SecretAlgorithm::Sha1), with(SecretAlgorithm::Sha256));
            let (secret, other) = if self.sha256 {
                (sha256, sha1)
            } else {
                (sha1, sha256)
            };
            return Ok(Access::Secret {
                user: user(),
                secret,
                other: Some((!self.sha256, other)),
            });
        }
        if let Some(secret) = loaded.and_then(|loaded| loaded.parts.secrets.first()) {
            return Ok(Access::Secret {
                user: user(),
                secret: secret.clone(),
                other: None,
            });
        }
        if self.user.is_some() {
            complain(
                &"error: --user needs --password-file, or a secret: --secret-file or --config",
            );
            return Err(ExitCode::from(2));
        }
        Ok(Access::Nobody)
    }

    fn targets(&self, loaded: Option<&Loaded>) -> Vec<Target> {
        if !self.urls.is_empty() {
            let named = |url: &Url| Target {
                url: url.clone(),
                any_name: false,
            };
            return self.urls.iter().map(named).collect();
        }
        let Some(loaded) = loaded else {
            return Vec::new();
        };
        let (listeners, relay) = (&loaded.parts.plane.listeners, &loaded.parts.plane.relay);
        let locals: Vec<IpAddr> = relay.addresses.iter().map(|relay| relay.local).collect();
        let (direct, proxied): (Vec<&Listen>, Vec<&Listen>) = listeners
            .iter()
            .partition(|listen| listen.proxies.is_empty());
        for listen in proxied {
            complain(&format_args!(
                "{} is not tested: it waits for a PROXY header; give the URL of the load balancer",
                listen.address
            ));
        }
        direct
            .into_iter()
            .map(|listen| target(listen, &locals))
            .collect()
    }
}

/// A listener as it is reached from its own host: a wildcard one by the address of the relay.
fn target(listen: &Listen, locals: &[IpAddr]) -> Target {
    let own = listen.address.ip();
    let same_family = locals.iter().find(|local| local.is_ipv4() == own.is_ipv4());
    let ip = match (own.is_unspecified(), same_family, own.is_ipv4()) {
        (false, ..) => own,
        (true, Some(local), _) => *local,
        (true, None, true) => Ipv4Addr::LOCALHOST.into(),
        (true, None, false) => Ipv6Addr::LOCALHOST.into(),
    };
    let url = Url {
        service: Service::Turn,
        transport: match listen.transport {
            turnd::turn::Transport::Udp => Transport::Udp,
            turnd::turn::Transport::Tcp => Transport::Tcp,
            turnd::turn::Transport::Tls => Transport::Tls,
            turnd::turn::Transport::Dtls => Transport::Dtls,
        },
        host: probe::Host::Address(ip),
        port: listen.address.port(),
    };
    Target {
        url,
        any_name: true,
    }
}

/// Says once that no more is to be tried, so that relays are given back; who asks twice does not want to wait for that.
async fn heed_signals(stop: watch::Sender<bool>) {
    let heeded = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    let [Ok(mut interrupt), Ok(mut terminate)] = heeded else {
        // Then they end the process, as they do without this.
        return;
    };
    for is_first in [true, false] {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if is_first {
            let _ = stop.send(true);
        } else {
            std::process::exit(INTERRUPTED.into());
        }
    }
}

fn read(file: &Path, host: &Host) -> Result<config::Secret, ExitCode> {
    config::read_secret(&SecretFile::Path(file.to_owned()), host).map_err(|complaint| {
        fail(&format!(
            "error: {}\n = help: {}",
            complaint.what, complaint.remedy
        ))
    })
}

fn style() -> Style {
    if may_colour() && io::stdout().is_terminal() {
        Style::Coloured
    } else {
        Style::Plain
    }
}

/// What is told while it goes on: results as they come, and on a terminal what is waited for.
struct Screen {
    paint: Paint,
    results: bool,
    first: bool,
    count: u32,
    /// On standard error, and unseen where that is no terminal.
    bar: ProgressBar,
}

impl Screen {
    fn new(paint: Paint, results: bool, count: u32) -> Self {
        let bar = ProgressBar::new_spinner();
        let spinner = ProgressStyle::with_template("    {spinner}       {msg}");
        bar.set_style(spinner.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.enable_steady_tick(Duration::from_millis(120));
        Self {
            paint,
            results,
            first: true,
            count,
            bar,
        }
    }

    fn show(&mut self, progress: Progress<'_>) {
        match progress {
            Progress::Url(url) => {
                let gap = if self.first { "" } else { "\n" };
                self.first = false;
                self.say(&format!("{gap}{}", self.paint.url(url)));
                self.bar.set_message(url.to_string());
            }
            Progress::Server { address, transport } => {
                self.say(&self.paint.server(address, transport))
            }
            Progress::Begin(name) => self.bar.set_message(name.words()),
            Progress::Counting { done, of } => {
                let filled = usize::try_from(done * 20 / of.max(1)).unwrap_or(20);
                let gauge = format!("{}{}", "=".repeat(filled), " ".repeat(20 - filled.min(20)));
                self.bar
                    .set_message(format!("round trip  [{gauge}] {done} of {}", self.count));
            }
            Progress::End(step) => self.say(&self.paint.step(step)),
        }
    }

    fn say(&self, text: &str) {
        if self.results {
            self.bar.suspend(|| print(text));
        }
    }
}
