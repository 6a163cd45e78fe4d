//! The token service: beside the relay, or as the whole program.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info};

use crate::config::{self, Certificate, Host, Loaded, Parts, Reading, Sources, TokenParts};
use crate::credential::Urls;
use crate::revocation::Revoker;
use crate::systemd;
use crate::token::{self, IceUrl, Listen, Listeners, Region, Settings, Tokens};

use super::certificate::{Change, Watched};
use super::logging::Logging;
use super::signals::{Signal, Signals};
use super::{CERTIFICATE_CHECK, HEARTBEAT, Refusal, log_warning};

/// The service in operation, and the certificate that it shows.
pub(super) struct TokenService {
    handle: token::Handle,
    certificate: Option<Watched>,
}

impl TokenService {
    /// Starts it, if it is configured.
    pub(super) fn start(
        parts: &Parts,
        tokens: Arc<Tokens>,
        revoker: Option<Revoker>,
    ) -> Result<Option<Self>, Refusal> {
        let Some(token) = &parts.token else {
            return Ok(None);
        };
        let listeners =
            Listeners::bind(&token.listen).map_err(|(place, error)| refusal(&place, &error))?;
        let certificate = certificate(parts, token);
        let tls = certificate.map(Certificate::tls);
        let handle = token::start(listeners, settings(parts, token), tls, tokens, revoker)?;
        let places = handle.addresses().iter().map(ToString::to_string);
        info!(
            listening = places.collect::<Vec<_>>().join(", "),
            "handing out credentials"
        );
        Ok(Some(Self {
            certificate: certificate.map(|certificate| Watched::new(certificate.files.clone())),
            handle,
        }))
    }

    /// Takes other settings. Where it listens waits for a restart, and so does whether it listens at all.
    pub(super) fn reload(&mut self, parts: &Parts) {
        let Some(token) = &parts.token else {
            return;
        };
        self.handle.replace(settings(parts, token));
        if let Some(certificate) = certificate(parts, token) {
            self.handle.replace_tls(&certificate.tls());
            self.certificate = Some(Watched::new(certificate.files.clone()));
        }
    }

    /// Looks whether the files of its certificate have changed.
    pub(super) fn renew_certificate(&mut self, host: &Host) {
        let Some(watched) = &mut self.certificate else {
            return;
        };
        match watched.look(host) {
            Change::None => {}
            Change::Good(certificate) => {
                self.handle.replace_tls(&certificate.tls());
                info!("certificate of the token service renewed");
            }
            Change::Bad(complaints) => {
                for (key, complaint) in complaints {
                    error!(
                        key,
                        help = complaint.remedy,
                        "certificate of the token service not renewed: {}",
                        complaint.what
                    );
                }
            }
        }
    }
}

fn certificate<'p>(parts: &'p Parts, token: &'p TokenParts) -> Option<&'p Certificate> {
    token.tls(parts.certificate.as_ref())
}

/// Where nothing is said of URLs, those of the relay's listeners.
fn settings(parts: &Parts, token: &TokenParts) -> Settings {
    let mut settings = token.settings.clone();
    if settings.regions.is_empty() {
        let urls = Urls::new(None, &parts.plane.listeners, &parts.plane.relay.addresses);
        let urls = urls.stun.iter().chain(&urls.turn);
        settings.regions.push(Region {
            name: None,
            urls: urls.filter_map(|url| IceUrl::parse(url)).collect(),
        });
    }
    settings
}

fn refusal(place: &Listen, error: &io::Error) -> Refusal {
    let refusal = Refusal::listen(&format!("{place} (token)"), error);
    match place {
        Listen::Unix(path) if error.kind() != io::ErrorKind::AddrInUse => Refusal {
            remedy: if path.parent().is_some_and(Path::is_dir) {
                "let turnd make files in that directory, and take away what else has this name"
            } else {
                "make the directory; RuntimeDirectory=turnd of systemd makes /run/turnd"
            }
            .into(),
            ..refusal
        },
        Listen::Unix(_) | Listen::Http(_) | Listen::Https(_) => refusal,
    }
}

/// `turnd token`: runs the token service alone until a signal ends it.
pub fn run(sources: Sources) -> ExitCode {
    super::launch(sources, serve)
}

async fn serve(
    sources: Sources,
    host: Host,
    loaded: Loaded,
    logging: &Logging,
) -> Result<(), Refusal> {
    let Loaded { parts, report, .. } = &loaded;
    report.warnings().for_each(log_warning);
    let mut signals = Signals::new()?;
    let store = super::open_revocations(parts)?;
    // A relay with the same database takes it up from there.
    let revoker = super::revoker(store, parts, None, Arc::default()).await?;
    let service = TokenService::start(parts, Arc::default(), revoker)?.ok_or_else(|| Refusal {
        what: "the token service listens nowhere".to_owned(),
        remedy: "add listen = [\"http://127.0.0.1:8089\"] to [token]".into(),
    })?;
    systemd::ready("handing out credentials");
    let mut alone = Alone {
        sources,
        host,
        start: loaded.reading(),
        service,
        logging,
    };
    let mut heartbeat = interval(systemd::heartbeat().unwrap_or(HEARTBEAT));
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut certificate = interval(CERTIFICATE_CHECK);
    certificate.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Reload => alone.reload(),
                Signal::Stop => break,
            },
            _ = heartbeat.tick() => systemd::alive(),
            _ = certificate.tick() => {
                alone.host.unix = config::unix_now();
                alone.service.renew_certificate(&alone.host);
            }
        }
    }
    systemd::stopping("ending");
    drop(alone);
    info!("stopped");
    Ok(())
}

/// The token service without a relay.
struct Alone<'a> {
    sources: Sources,
    host: Host,
    /// As it was at the start.
    start: Reading,
    service: TokenService,
    logging: &'a Logging,
}

/// What the token service heeds of all that may wait for a restart.
const WAITING: [&str; 4] = ["log.format", "revocation", "token", "token.listen"];

impl Alone<'_> {
    fn reload(&mut self) {
        systemd::reloading();
        self.host.unix = config::unix_now();
        match config::load_again(&self.sources, &self.host, &self.start) {
            Ok(loaded) => {
                loaded.report.warnings().for_each(log_warning);
                let waiting = self.start.needs_restart(&loaded.reading());
                let waiting = waiting.into_iter().filter(|key| WAITING.contains(key));
                waiting.for_each(super::log_waiting);
                self.logging.set_level(&loaded.config.log.level);
                self.service.reload(&loaded.parts);
                info!("configuration reloaded");
                systemd::ready("handing out credentials");
            }
            Err(report) => {
                report.errors().for_each(super::log_stale);
                systemd::ready("the configuration is bad: older settings are in force");
            }
        }
    }
}
