//! Threads, sockets and the kernel: what stands between the machine and the network.
//!
//! One worker per core owns its sockets, its connections and its own [`turn::Server`]; workers share the
//! relay ports, the reservations and the quotas, and nothing that is touched per packet but one read-only
//! table. Layer 3 sees a running plane through [`Handle`] alone. The only unsafe code of the server is in
//! `udp`.
//!
//! [`turn::Server`]: crate::turn::Server

mod carry;
mod deliver;
mod dtls;
mod icmp;
mod inquiry;
mod listener;
mod log;
mod mail;
mod moved;
mod outbox;
mod ports;
mod report;
mod reservations;
mod sightings;
mod sockets;
mod stream;
mod subscriber;
mod supervisor;
mod tcp_relay;
mod tls;
mod udp;
mod worker;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use arc_swap::{ArcSwap, ArcSwapOption};
use rand::{TryRng as _, rngs::SysRng};
use rustls::ServerConfig;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};

pub use carry::Carry;
pub use dtls::{Identity, UnfitKey};
pub use inquiry::Answers;
pub use listener::{Adopted, Listen, Web};
pub use ports::{RelayAddress, RelayRange};
pub use sightings::{Sighted, Sighting};
pub use tls::ByName;

use crate::turn::{self, EndReason, Holder, Revocations, Session, TicketKey};
use mail::{Address, Mail, PATIENCE, Which};
use ports::Ports;
use report::Reports;
use reservations::Reservations;
use sightings::Outlet;
use stream::Site;
use tcp_relay::Unclaimed;
use tls::Tls;

/// Web clients that wait to be served; more of them wait longer.
const WEB_CLIENTS: usize = 16;

/// What the plane must be told. Changing it takes a restart.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many workers, one thread each.
    pub workers: usize,
    /// Where clients come in.
    pub listeners: Vec<Listen>,
    /// Where relays are opened.
    pub relay: RelayRange,
    /// What is carried through a relay beside the payload.
    pub carry: Carry,
    /// TCP and TLS connections that one worker has at most, and as many DTLS associations.
    pub streams_per_worker: usize,
}

/// Why the plane could not start.
#[derive(Debug)]
pub struct StartError {
    what: String,
    source: io::Error,
}

impl StartError {
    fn new(what: impl Into<String>, source: io::Error) -> Self {
        Self {
            what: what.into(),
            source,
        }
    }

    fn bind(listen: &Listen, source: io::Error) -> Self {
        let what = format!(
            "cannot listen on {} ({})",
            listen.address,
            listen.transport.label()
        );
        Self::new(what, source)
    }

    /// The kernel's reason.
    pub fn reason(&self) -> &io::Error {
        &self.source
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.source)
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// What the workers share. Nothing in it is written per packet.
struct Shared {
    ports: Ports,
    reservations: Reservations,
    quotas: Arc<turn::Quotas>,
    unclaimed: Unclaimed,
    carry: Carry,
    tls: ArcSwapOption<Tls>,
    /// Takes the web clients that are served by this process.
    web: OnceLock<mpsc::Sender<DuplexStream>>,
    /// Takes the sessions that begin and end.
    sightings: OnceLock<Outlet>,
    dtls: Arc<ArcSwapOption<Identity>>,
    /// What the cookies of DTLS are made from.
    cookie_seed: [u8; 32],
    addresses: Vec<Address>,
    /// Lets clients move among the workers (RFC 8016).
    ticket_key: TicketKey,
    /// What the workers were told last, for those that start afresh.
    last_word: LastWord,
    reports: Reports,
}

/// What every worker has been told by mail, or is about to be: a worker that starts afresh has lost what it was told.
struct LastWord {
    machine: ArcSwap<turn::Settings>,
    revocations: ArcSwap<Revocations>,
    draining: AtomicBool,
}

impl Shared {
    /// Who serves the web clients of a listener.
    fn site(&self, listen: &Listen) -> Option<Site> {
        match listen.web? {
            Web::Backend(address) => Some(Site::At(address)),
            Web::Own => self.web.get().cloned().map(Site::Here),
        }
    }
}

/// A running plane. Clones stand for the same one.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    /// Where the plane really listens, ports chosen by the kernel included.
    listening: Arc<[SocketAddr]>,
}

/// Binds everything and starts the workers.
///
/// # Errors
/// When an address cannot be bound, or the system gives no thread or descriptor.
pub fn start(
    settings: Settings,
    machine: Arc<turn::Settings>,
    tls: Option<Arc<ServerConfig>>,
    adopted: &Adopted,
) -> Result<Handle, StartError> {
    let workers = settings.workers.clamp(1, ports::MAX_WORKERS);
    listener::refuse_shared(&settings.listeners, adopted)?;
    let bound = listener::bind(&settings.listeners, adopted, workers)?;
    let own = own_addresses()
        .map_err(|error| StartError::new("cannot list this machine's addresses", error))?;
    let (addresses, mailboxes): (Vec<_>, Vec<_>) = (0..workers).map(|_| mail::mailbox()).unzip();
    let listening: Arc<[SocketAddr]> = bound[0]
        .udp
        .iter()
        .map(|(_, listen)| listen.address)
        .collect();
    let listeners = settings.listeners.iter().map(|listen| listen.address);
    let listened_on = listeners.chain(listening.iter().copied());
    let listened_on = listened_on.map(|address| address.ip()).collect();
    let mut cookie_seed = [0; 32];
    SysRng.try_fill_bytes(&mut cookie_seed).map_err(|error| {
        StartError::new("the system gives no randomness", io::Error::other(error))
    })?;
    let shared = Arc::new(Shared {
        ports: Ports::new(settings.relay, own, listened_on),
        reservations: Reservations::default(),
        quotas: Arc::default(),
        unclaimed: Unclaimed::default(),
        carry: settings.carry,
        tls: ArcSwapOption::new(tls.as_deref().map(Tls::new)),
        web: OnceLock::new(),
        sightings: OnceLock::new(),
        dtls: Arc::default(),
        cookie_seed,
        addresses,
        ticket_key: supervisor::ticket_key()
            .map_err(|error| StartError::new("cannot get random numbers", error))?,
        last_word: LastWord {
            machine: ArcSwap::new(Arc::clone(&machine)),
            revocations: ArcSwap::default(),
            draining: AtomicBool::new(false),
        },
        reports: Reports::of(workers),
    });
    let plans = supervisor::plans(bound, &shared, &machine, settings.streams_per_worker);
    let mut threads = Vec::with_capacity(workers);
    for (plan, mailbox) in plans.into_iter().zip(mailboxes) {
        let thread = plan
            .spawn(mailbox)
            .map_err(|error| StartError::new("cannot start a worker", error))?;
        threads.push(thread);
    }
    Ok(Handle {
        shared,
        threads: Arc::new(Mutex::new(threads)),
        listening,
    })
}

impl Handle {
    /// Up to `most` of the sessions that `which` chooses. Workers go on relaying meanwhile: they look at a thousand
    /// sessions at a time.
    pub async fn sessions(
        &self,
        which: impl Fn(&Holder<'_>) -> bool + Send + Sync + 'static,
        most: usize,
    ) -> Vec<Session> {
        let mut found = Vec::new();
        self.each_session(which, |session| {
            found.push(session);
            found.len() < most
        })
        .await;
        found.truncate(most);
        found
    }

    /// Shows `see` the sessions that `which` chooses, one after the other, until it has seen enough: it tells whether
    /// it wants more. No more than a thousand are held at a time. False if a worker that hangs or has ended has not shown
    /// all of its own.
    pub async fn each_session(
        &self,
        which: impl Fn(&Holder<'_>) -> bool + Send + Sync + 'static,
        mut see: impl FnMut(Session) -> bool,
    ) -> bool {
        let which: Which = Arc::new(which);
        let mut are_all = true;
        for address in &self.shared.addresses {
            let mut place = Some(0);
            while let Some(from) = place {
                let (to, answer) = oneshot::channel();
                let which = Arc::clone(&which);
                let page = address.ask(Mail::Sessions { which, from, to }, answer);
                let Some(page) = page.await else {
                    are_all = false;
                    break;
                };
                for session in page.found {
                    if !see(session) {
                        return are_all;
                    }
                }
                place = page.next;
            }
        }
        are_all
    }

    /// Ends the sessions that `which` chooses, and tells how many there were. When it returns, nothing more is
    /// relayed for them, unless a worker hangs for longer than a second.
    pub async fn end_sessions(
        &self,
        reason: EndReason,
        which: impl Fn(&Holder<'_>) -> bool + Send + Sync + 'static,
    ) -> usize {
        let which: Which = Arc::new(which);
        let mut asked = Vec::with_capacity(self.shared.addresses.len());
        for address in &self.shared.addresses {
            let (to, answer) = oneshot::channel();
            let which = Arc::clone(&which);
            let mail = Mail::End { which, reason, to };
            // In the queue of each before the first is waited for.
            if address.mail.send(mail).await.is_ok() {
                asked.push(answer);
            }
        }
        let mut ended = 0;
        for answer in asked {
            let answer = tokio::time::timeout(PATIENCE, answer).await;
            ended += answer.ok().and_then(Result::ok).unwrap_or(0);
        }
        ended
    }

    /// Gives every machine new settings. They are in force when it returns, except in a worker that does not answer.
    pub async fn replace_settings(&self, settings: Arc<turn::Settings>) {
        self.shared.last_word.machine.store(Arc::clone(&settings));
        self.mail_all(|| Mail::Settings(Arc::clone(&settings)))
            .await;
        self.mail_is_read().await;
    }

    /// Tells every machine what has been revoked. Sessions that are made after it returns have heard of it, and those
    /// that were made before are found by [`Handle::end_sessions`]: asked for in this order, none is between them.
    pub async fn replace_revocations(&self, revocations: Arc<Revocations>) {
        let last_word = &self.shared.last_word;
        last_word.revocations.store(Arc::clone(&revocations));
        self.mail_all(|| Mail::Revocations(Arc::clone(&revocations)))
            .await;
    }

    /// New handshakes use this certificate; connections keep theirs.
    pub fn replace_tls(&self, config: Arc<ServerConfig>) {
        self.shared.tls.store(Some(Tls::new(&config)));
    }

    /// New DTLS handshakes show this identity; associations keep theirs. Without one DTLS listeners take nobody.
    pub fn replace_identity(&self, identity: Arc<Identity>) {
        self.shared.dtls.store(Some(identity));
    }

    /// The connections of web clients of listeners with [`Web::Own`], from here on. Nothing if somebody has them
    /// already.
    pub fn web_clients(&self) -> Option<mpsc::Receiver<DuplexStream>> {
        let (to, from) = mpsc::channel(WEB_CLIENTS);
        self.shared.web.set(to).ok().map(|()| from)
    }

    /// Refuses new allocations, or takes them again; at the latest when it returns, except in a worker that does not
    /// answer. What lives goes on.
    pub async fn drain(&self, on: bool) {
        let draining = &self.shared.last_word.draining;
        draining.store(on, Ordering::Relaxed);
        self.mail_all(|| Mail::Drain(on)).await;
        self.mail_is_read().await;
    }

    /// Where UDP clients may send to.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// Ends every worker, and with them what they relay. Returns when they have ended; blocks meanwhile.
    pub fn stop(&self) {
        for address in &self.shared.addresses {
            // A full mailbox belongs to a worker that hangs; the process ends without it.
            let _ = address.mail.try_send(Mail::Stop);
        }
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A worker that panicked has said so already.
            let _ = thread.join();
        }
    }

    async fn mail_all(&self, mail: impl Fn() -> Mail) {
        for address in &self.shared.addresses {
            // An error means that the worker has ended.
            let _ = address.mail.send(mail()).await;
        }
    }

    /// Waits until the workers have read the mail they have, which they do in its order.
    async fn mail_is_read(&self) {
        let all = async {
            for address in &self.shared.addresses {
                let (to, from) = oneshot::channel();
                if address.mail.send(Mail::Report(to)).await.is_ok() {
                    let _ = from.await;
                }
            }
        };
        let _ = tokio::time::timeout(PATIENCE, all).await;
    }
}

/// Every address of this machine, and the broadcast addresses of its networks (A05, A06): no peer may be there.
///
/// # Errors
/// The kernel's.
pub fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let mut own = Vec::new();
    for interface in if_addrs::get_if_addrs()? {
        own.push(interface.ip());
        if let if_addrs::IfAddr::V4(v4) = interface.addr {
            own.extend(v4.broadcast.map(IpAddr::V4));
        }
    }
    Ok(own)
}
