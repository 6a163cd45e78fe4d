//! A client that finds out whether a STUN or TURN server works, and if not, why.
//!
//! ```text
//!  url ─▶ addresses ─▶ visit ──▶ client ─▶ link (UDP, TCP, TLS, DTLS)
//!                        │  └──▶ measure ─▶ ends
//!                        ▼
//!               fault ─▶ advice ─▶ report ─▶ show, JSON
//! ```
//!
//! It does what browsers do, one step after the other, and tells of each what came of it; whatever fails is told
//! with the remedy. It speaks to any server, not only to this one. Every wait is bounded, and so is what is kept;
//! relays are given back, also when the time is up or somebody stops it. A credential is never shown, nor sent to a server whose certificate is
//! not to be believed.

mod advice;
mod certificate;
mod client;
mod ends;
mod fault;
mod link;
mod measure;
mod report;
mod show;
mod url;
mod visit;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use crate::turn::SharedSecret;

pub use certificate::Trust;
pub use fault::{Distrust, Fault, Suspicion};
pub use report::{Certified, Facts, Name, Outcome, Report, Server, Session, Step, Success};
pub use show::{Paint, Style};
pub use url::{BadUrl, Host, Service, Transport, Url};

use advice::{Scene, advice};
use client::Credential;
use link::Door;
use visit::Visit;

/// How long credentials are good that are made for a test.
const TTL: i64 = 3600;

/// What is to be done with each URL.
pub struct Plan {
    /// How to log in.
    pub access: Access,
    /// Whom to trust.
    pub trust: Trust,
    /// Go on where a certificate is not to be believed.
    pub insecure: bool,
    /// Packets to measure the way with.
    pub count: u32,
    /// How long a URL may take.
    pub timeout: Duration,
    /// What time it is, in seconds since 1970.
    pub unix: i64,
    /// Becomes true when no more is to be tried; relays are given back then.
    pub stop: watch::Receiver<bool>,
}

/// How to log in.
pub enum Access {
    /// Not at all.
    Nobody,
    /// With a name and a password, whoever made them.
    User {
        /// The name.
        name: String,
        /// The password.
        password: Zeroizing<String>,
    },
    /// With what the holder of a shared secret makes.
    Secret {
        /// For whom.
        user: String,
        /// The secret.
        secret: SharedSecret,
        /// The same with the other hash, if that is to be tried: `true` if it is SHA-256.
        other: Option<(bool, SharedSecret)>,
    },
}

/// What is to be tested.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its URL.
    pub url: Url,
    /// Whether its certificate may be for any host: clients know it by a name that is not known here.
    pub any_name: bool,
}

/// What is going on.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// This URL is next.
    Url(&'a Url),
    /// This address of it is next.
    Server {
        /// The address.
        address: SocketAddr,
        /// What is spoken with it.
        transport: Transport,
    },
    /// This step is being done.
    Begin(Name),
    /// So many packets have come.
    Counting {
        /// So many.
        done: u32,
        /// Of so many.
        of: u32,
    },
    /// A step has ended.
    End(&'a Step),
}

/// Whoever wants to know what is going on.
pub type Watch<'a> = &'a mut dyn FnMut(Progress<'_>);

/// Tests one server after the other.
pub async fn run(plan: &Plan, targets: &[Target], watch: Watch<'_>) -> Report {
    let mut outcomes = Vec::new();
    for target in targets {
        outcomes.push(plan.visit(target, watch).await);
        if *plan.stop.borrow() {
            break;
        }
    }
    Report::new(outcomes)
}

impl Plan {
    /// How long a server may take for an answer.
    fn patience(&self) -> Duration {
        (self.timeout / 4).clamp(Duration::from_millis(500), Duration::from_secs(5))
    }

    /// Ends when no more is to be tried.
    async fn stopped(&self) {
        let mut stop = self.stop.clone();
        if stop.wait_for(|stop| *stop).await.is_err() {
            // There is nobody who could say so.
            std::future::pending().await
        }
    }

    async fn visit(&self, target: &Target, watch: Watch<'_>) -> Outcome {
        let Target { url, any_name } = target;
        watch(Progress::Url(url));
        let end = Instant::now() + self.timeout;
        let mut steps = Vec::new();
        let addresses = match &url.host {
            Host::Address(ip) => vec![*ip],
            Host::Name(name) => {
                let (step, addresses) = self.look_up(url, name, end).await;
                watch(Progress::End(&step));
                steps.push(step);
                addresses
            }
        };
        let mut servers = Vec::new();
        let chosen = one_of_each_family(&addresses);
        for (number, ip) in chosen.iter().enumerate() {
            if *self.stop.borrow() {
                break;
            }
            let door = Door {
                address: SocketAddr::new(*ip, url.port),
                transport: url.transport,
                name: if *any_name {
                    None
                } else {
                    url.host.server_name()
                },
            };
            // Each of them gets its share of the time that is left.
            let shares = u32::try_from(chosen.len() - number).unwrap_or(1);
            let now = Instant::now();
            let share = end.saturating_duration_since(now) / shares;
            servers.push(Visit::new(self, url, door, watch).run(now + share).await);
        }
        let failed = |steps: &[Step]| steps.iter().any(|step| step.result == Success::Failed);
        let ok = !failed(&steps) && !servers.is_empty() && servers.iter().all(|server| server.ok);
        Outcome {
            url: url.clone(),
            ok,
            steps,
            servers,
        }
    }

    async fn look_up(&self, url: &Url, name: &str, end: Instant) -> (Step, Vec<IpAddr>) {
        let begun = Instant::now();
        let found = tokio::select! {
            biased;
            () = self.stopped() => Err(Fault::Stopped),
            found = timeout_at(end, lookup_host((name, url.port))) => Ok(found),
        };
        let fault = match found {
            Err(stopped) => stopped,
            Ok(Ok(Ok(found))) => {
                let mut addresses: Vec<IpAddr> = Vec::new();
                for address in found.take(MOST_ADDRESSES) {
                    if !addresses.contains(&address.ip()) {
                        addresses.push(address.ip());
                    }
                }
                if !addresses.is_empty() {
                    let facts = Facts::Addresses {
                        addresses: addresses.clone(),
                    };
                    return (
                        Step::done(Name::Resolve, milliseconds(begun), facts),
                        addresses,
                    );
                }
                Fault::Resolve("none was found".to_owned())
            }
            Ok(Ok(Err(error))) => Fault::Resolve(error.to_string()),
            Ok(Err(_)) => Fault::Resolve("the name server does not answer".to_owned()),
        };
        let scene = Scene {
            step: Name::Resolve,
            url,
            transport: url.transport,
            address: SocketAddr::from(([0, 0, 0, 0], url.port)),
        };
        let advice = advice(&fault, &scene);
        let step = Step::failed(Name::Resolve, milliseconds(begun), &fault, advice);
        (step, Vec::new())
    }
}

fn milliseconds(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 1e6).round() / 1e3
}

/// The first address of IPv4 and the first of IPv6: what a client with either is given.
fn one_of_each_family(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let first = |ipv4: bool| addresses.iter().find(move |ip| ip.is_ipv4() == ipv4);
    [first(true), first(false)]
        .into_iter()
        .flatten()
        .copied()
        .collect()
}

impl Access {
    /// A credential that is good for a while from `unix` on.
    fn credential(&self, unix: i64) -> Option<Credential> {
        match self {
            Self::Nobody => None,
            Self::User { name, password } => Some(Credential {
                username: name.clone(),
                password: password.clone(),
            }),
            Self::Secret { user, secret, .. } => Some(Self::mint(secret, user, unix)),
        }
    }

    fn mint(secret: &SharedSecret, user: &str, unix: i64) -> Credential {
        let username = format!("{}:{user}", unix.saturating_add(TTL));
        let password = secret.password(username.as_bytes());
        Credential { username, password }
    }
}

/// Of a name; only two of them are visited.
const MOST_ADDRESSES: usize = 64;
