//! The daemon: wires the parts once, then listens to signals until it ends.
//!
//! ```text
//!  SIGHUP ──▶ reload: read, check, swap; a bad file changes nothing
//!  SIGTERM, SIGINT ──▶ drain: no new calls, wait for the others; a second one ends at once
//!  certificate files changed ──▶ new handshakes use the new one
//!  watchdog ──▶ every worker is asked before the service manager is told that all is well
//! ```
//!
//! All of this runs on the main thread, with the pages of `http`; the workers have threads of their own, and so has the
//! token service.

mod certificate;
mod drain;
mod first_run;
mod harden;
mod logging;
mod pages;
mod reload;
mod seat;
mod signals;
pub mod token;

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write as _};
use std::net::UdpSocket;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::config::{self, Certificate, Host, Loaded, Parts, Problem, Reading, Sources};
use crate::events::{self, Events};
use crate::http::admin::{self, Ask, Seat};
use crate::http::{self, Status};
use crate::plane::{self, Adopted, Handle};
use crate::revocation::{self, Broken, Revoker};
use crate::systemd;
use crate::turn::{self, EndReason, Transport};
use certificate::{Change, Watched};
use first_run::Links;
use logging::Logging;
use pages::Pages;
use signals::{Signal, Signals};
use token::TokenService;

/// `EX_CONFIG` of sysexits.h: the configuration is bad.
pub const EXIT_CONFIG: u8 = 78;

/// How often the certificate files are looked at.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(2);
/// How often a draining server looks whether calls are left.
const DRAIN_CHECK: Duration = Duration::from_millis(200);
/// How long workers may take to end.
const STOP: Duration = Duration::from_secs(2);
/// A heartbeat without a service manager that wants one still finds hanging workers.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Why the server did not start, and what to do about it.
#[derive(Debug)]
struct Refusal {
    what: String,
    remedy: Cow<'static, str>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}\n = help: {}", self.what, self.remedy)
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self {
            what: error.to_string(),
            remedy: "see what the kernel says, as in `dmesg`".into(),
        }
    }
}

impl From<Broken> for Refusal {
    fn from(Broken { what, remedy }: Broken) -> Self {
        let remedy = remedy.into();
        Self { what, remedy }
    }
}

impl Refusal {
    fn start(error: &plane::StartError) -> Self {
        Self {
            what: error.to_string(),
            remedy: remedy(error.reason()).into(),
        }
    }

    fn events(error: &io::Error) -> Self {
        Self {
            what: format!("cannot keep books of sessions: {error}"),
            remedy: "look at file and webhook under [events]: the directories must be there, and turnd must be allowed \
                     to write to them"
                .into(),
        }
    }

    fn listen(address: &str, error: &io::Error) -> Self {
        Self {
            what: format!("cannot listen on {address}: {error}"),
            remedy: remedy(error).into(),
        }
    }
}

/// What helps against an error of the kernel at the start.
fn remedy(error: &io::Error) -> &'static str {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the standard library's kinds are open"
    )]
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program has this port, perhaps another turnd: `ss -tulpn` shows which"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this host has no such address: `ip address` shows those it has"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE or socket activation; others must be among the SocketBindAllow= of the unit"
        }
        _ => "see what the kernel says, as in `dmesg`",
    }
}

fn log_warning(problem: &Problem) {
    warn!(
        place = problem.place(),
        key = problem.key,
        help = problem.remedy,
        "{}",
        problem.what
    );
}

/// What a reload leaves to the next start.
fn log_waiting(key: &str) {
    warn!(key, "this key has changed; the change waits for a restart");
}

/// Why a reload changed nothing.
fn log_stale(problem: &Problem) {
    error!(
        place = problem.place(),
        key = problem.key,
        help = problem.remedy,
        "configuration not reloaded: {}",
        problem.what
    );
}

/// Runs the server until a signal ends it.
pub fn run(sources: Sources) -> ExitCode {
    launch(sources, serve)
}

/// Reads the configuration, begins to log, and does what is to be done on the main thread.
fn launch(
    sources: Sources,
    serve: impl AsyncFnOnce(Sources, Host, Loaded, &Logging) -> Result<(), Refusal>,
) -> ExitCode {
    let hardened = harden::process();
    let host = Host::of_process();
    let loaded = match config::load(&sources, &host) {
        Ok(loaded) => loaded,
        Err(report) => {
            complain(&report);
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let logging = logging::start(loaded.config.log.format, &loaded.config.log.level);
    hardened.tell();
    let started = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Refusal::from);
    let served =
        started.and_then(|runtime| runtime.block_on(serve(sources, host, loaded, &logging)));
    drop(logging);
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            complain(&refusal);
            ExitCode::FAILURE
        }
    }
}

/// To standard error, where errors go while there is no log; that nobody may read it changes nothing.
pub fn complain(complaint: &dyn fmt::Display) {
    let _ = writeln!(io::stderr(), "{complaint}");
}

async fn serve(
    sources: Sources,
    host: Host,
    loaded: Loaded,
    logging: &Logging,
) -> Result<(), Refusal> {
    let reading = loaded.reading();
    let Loaded {
        config,
        parts,
        report,
        ..
    } = loaded;
    report.warnings().for_each(log_warning);
    let adopted = systemd::adopted()?;
    check_relay_addresses(&parts)?;
    let signals = Signals::new()?;
    let status = Arc::new(Status {
        started: host.unix,
        log_lines_dropped: logging.dropped(),
        tokens: parts.token.is_some().then(Arc::default),
        ..Status::default()
    });
    let pages = Pages::bind(&sources, &config).await?;
    let store = open_revocations(&parts)?;
    let mut doors = seat::open(&parts.seat, &host)?;
    let links = first_run::is_this(&sources).then(|| Links {
        self_test: pages.self_test(),
        dashboard: doors.open_own(),
    });
    let plane = start_plane(&parts, &adopted)?;
    let books = open_books(&parts, &plane, &status)?;
    let count = Arc::clone(&status.revocations);
    let revoker = revoker(store, &parts, Some(&plane), count).await?;
    let tokens = status.tokens.clone().unwrap_or_default();
    let token = TokenService::start(&parts, tokens, revoker.clone())?;
    let (asked, workers) = (plane.clone(), parts.plane.workers);
    let source = http::Source::new(workers, Arc::clone(&status), move || {
        let plane = asked.clone();
        async move { plane.snapshot().await }
    });
    pages.serve(source, &plane);
    let workers = parts.plane.workers as u64;
    let facts = seat::facts(&config, &parts);
    let (ask, asks) = admin::asks();
    let seat = Seat::new(plane.clone(), workers, Arc::clone(&status), facts, ask);
    let seat = Arc::new(seat.with_revoker(revoker.clone()));
    let _socket = seat::serve(doors, Arc::clone(&seat));
    let mut daemon = Daemon {
        sources,
        host,
        in_force: reading.clone(),
        start: reading,
        turn: Arc::clone(&parts.turn),
        running: parts.plane.clone(),
        plane,
        status,
        seat,
        asks,
        logging,
        signals,
        token,
        certificate: None,
        _revoker: revoker,
        workers,
    };
    daemon.watch_certificate(&parts);
    daemon.status.ready.store(true, Ordering::Relaxed);
    daemon.tell_ready(&parts, links.as_ref());
    daemon.until_stopped().await;
    daemon.drain().await;
    close(daemon.plane, books).await;
    info!("stopped");
    Ok(())
}

/// Begins to keep books of sessions, if anybody is to be told.
fn open_books(parts: &Parts, plane: &Handle, status: &Status) -> Result<Option<Events>, Refusal> {
    let begin = |settings| events::start(settings, plane, &status.events_lost);
    let books = parts.events.as_ref().map(begin).transpose();
    books.map_err(|error| Refusal::events(&error))
}

/// Ends the plane, and the books with the last sessions in them: nobody else would be told what these have relayed.
async fn close(plane: Handle, books: Option<Events>) {
    if books.is_some() {
        plane.end_sessions(EndReason::Stopped, |_| true).await;
    }
    stop(plane);
    if let Some(books) = books {
        books.finish();
    }
}

/// Before anything is bound: a database that cannot be used must show at the start. One that nobody asked for is missed
/// where it cannot be made; where there is one, what it says must not be forgotten.
fn open_revocations(parts: &Parts) -> Result<Option<revocation::Store>, Broken> {
    let Some(settings) = &parts.revocation else {
        return Ok(None);
    };
    match revocation::Store::open(&settings.database) {
        Ok(store) => Ok(Some(store)),
        Err(error) if settings.is_asked_for || settings.database.exists() => Err(error),
        Err(Broken { what, remedy }) => {
            warn!(help = remedy, "credentials cannot be revoked: {what}");
            Ok(None)
        }
    }
}

async fn revoker(
    store: Option<revocation::Store>,
    parts: &Parts,
    plane: Option<&Handle>,
    count: Arc<AtomicU64>,
) -> Result<Option<Revoker>, Broken> {
    let (Some(store), Some(settings)) = (store, &parts.revocation) else {
        return Ok(None);
    };
    let revoker = revocation::start(store, settings, plane.cloned(), count);
    revoker.await.map(Some)
}

fn start_plane(parts: &Parts, adopted: &Adopted) -> Result<Handle, Refusal> {
    let listeners = &parts.plane.listeners;
    let addresses = adopted
        .udp
        .iter()
        .map(UdpSocket::local_addr)
        .chain(adopted.tcp.iter().map(|socket| socket.local_addr()));
    for address in addresses
        .flatten()
        .filter(|address| listeners.iter().all(|listen| listen.address != *address))
    {
        warn!(%address, "the service manager opened a socket that no [[listen]] names; it stays unused");
    }
    let tls = parts
        .certificate
        .as_ref()
        .map(|certificate| Arc::clone(&certificate.server));
    let plane = plane::start(parts.plane.clone(), Arc::clone(&parts.turn), tls, adopted)
        .map_err(|error| Refusal::start(&error))?;
    if let Some(certificate) = &parts.certificate {
        replace_identity(&plane, certificate);
    }
    Ok(plane)
}

/// What DTLS listeners show: with a key that is good for TLS alone it stays what it was.
fn replace_identity(plane: &Handle, certificate: &Certificate) {
    if let Some(identity) = &certificate.identity {
        plane.replace_identity(Arc::clone(identity));
    }
}

/// Relays are bound one by one as calls come; that none can be bound must show at the start.
fn check_relay_addresses(parts: &Parts) -> Result<(), Refusal> {
    let mut relays = parts.plane.relay.addresses.iter();
    match relays.find(|relay| !Host::has_address(relay.local)) {
        None => Ok(()),
        Some(relay) => Err(Refusal {
            what: format!("{} is not an address of this host", relay.local),
            remedy: "name an address of this host under [relay] addresses; if a NAT maps a public one to it, write \
                     external = [\"PUBLIC=LOCAL\"]"
                .into(),
        }),
    }
}

/// Ends the workers, but does not wait for one that hangs.
fn stop(plane: Handle) {
    let (done, stopped) = mpsc::channel();
    thread::spawn(move || {
        plane.stop();
        let _ = done.send(());
    });
    if stopped.recv_timeout(STOP).is_err() {
        error!("a worker does not end; ending without it");
    }
}

/// The server in operation.
struct Daemon<'a> {
    sources: Sources,
    host: Host,
    /// As it was at the start: what needs a restart is compared with this.
    start: Reading,
    /// As it was read last: everything else is compared with this.
    in_force: Reading,
    /// What the machines were told last.
    turn: Arc<turn::Settings>,
    plane: Handle,
    /// What the plane was told at the start.
    running: plane::Settings,
    status: Arc<Status>,
    seat: Arc<Seat>,
    asks: tokio::sync::mpsc::Receiver<Ask>,
    logging: &'a Logging,
    signals: Signals,
    token: Option<TokenService>,
    certificate: Option<Watched>,
    /// Keeps what has been revoked, and hears of other processes.
    _revoker: Option<Revoker>,
    workers: u64,
}

impl Daemon<'_> {
    /// `links` are for who is greeted.
    fn tell_ready(&self, parts: &Parts, links: Option<&Links>) {
        let listening: Vec<String> = parts
            .plane
            .listeners
            .iter()
            .map(|listen| format!("{} {}", listen.transport.label(), listen.address))
            .collect();
        let relays: Vec<String> = parts
            .plane
            .relay
            .addresses
            .iter()
            .map(|relay| relay.advertised.to_string())
            .collect();
        if let Some(links) = links {
            first_run::welcome(&self.start.config, parts, &self.host, links);
        }
        info!(
            listening = listening.join(", "),
            relay = relays.join(", "),
            ports = %format_args!("{}-{}", parts.plane.relay.ports.start(), parts.plane.relay.ports.end()),
            workers = parts.plane.workers,
            metrics = self.start.config.metrics.map(tracing::field::display),
            version = env!("CARGO_PKG_VERSION"),
            "ready"
        );
        systemd::ready("relaying");
    }

    /// Serves until the first signal to stop.
    async fn until_stopped(&mut self) {
        let mut heartbeat = interval(systemd::heartbeat().unwrap_or(HEARTBEAT));
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut certificate = interval(CERTIFICATE_CHECK);
        certificate.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                signal = self.signals.next() => match signal {
                    Signal::Reload => self.reload().await,
                    Signal::Stop => return,
                },
                Some(ask) = self.asks.recv() => self.answer(ask).await,
                _ = heartbeat.tick() => self.beat().await,
                _ = certificate.tick() => self.renew_certificates(),
            }
        }
    }

    /// The service manager hears from the watchdog only if every worker does its work.
    async fn beat(&self) {
        if self.plane.alive().await {
            systemd::alive();
        } else {
            error!("a worker does not answer");
        }
    }

    /// Watches the files of the certificate in use from here on.
    fn watch_certificate(&mut self, parts: &Parts) {
        let end = parts
            .certificate
            .as_ref()
            .map_or(0, |certificate| certificate.not_after);
        self.status.certificate_end.store(end, Ordering::Relaxed);
        self.status
            .certificate_stale
            .store(false, Ordering::Relaxed);
        self.certificate = parts
            .certificate
            .as_ref()
            .map(|certificate| Watched::new(certificate.files.clone()));
    }

    /// A reload refuses a key that is no good for DTLS; a renewed certificate may come with one.
    fn miss_identity(&self, certificate: &Certificate) {
        let mut transports = self.running.listeners.iter().map(|listen| listen.transport);
        if certificate.identity.is_none() && transports.any(|t| t == Transport::Dtls) {
            error!(
                help = "ask for a certificate with an ECDSA key, as in `certbot --key-type ecdsa`",
                "DTLS listeners keep the certificate before: {}",
                plane::UnfitKey
            );
        }
    }

    fn renew_certificates(&mut self) {
        self.host.unix = config::unix_now();
        self.renew_certificate();
        if let Some(token) = &mut self.token {
            token.renew_certificate(&self.host);
        }
    }

    /// Looks whether the certificate files have changed.
    fn renew_certificate(&mut self) {
        let Some(watched) = &mut self.certificate else {
            return;
        };
        match watched.look(&self.host) {
            Change::None => {}
            Change::Good(certificate) => {
                self.plane.replace_tls(Arc::clone(&certificate.server));
                replace_identity(&self.plane, &certificate);
                self.miss_identity(&certificate);
                self.status
                    .certificate_end
                    .store(certificate.not_after, Ordering::Relaxed);
                self.status
                    .certificate_stale
                    .store(false, Ordering::Relaxed);
                info!("certificate renewed");
            }
            Change::Bad(complaints) => {
                self.status.certificate_stale.store(true, Ordering::Relaxed);
                for (key, complaint) in complaints {
                    error!(
                        key = format_args!("tls.{key}"),
                        help = complaint.remedy,
                        "certificate not renewed: {}",
                        complaint.what
                    );
                }
            }
        }
    }
}
