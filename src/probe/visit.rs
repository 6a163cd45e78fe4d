//! A visit to one server: what is tried there, in which order, and what each outcome leads to.
//!
//! ```text
//!  connect ─▶ binding ─▶ challenge ─▶ allocate ─▶ other family ─▶ second allocation
//!     ▲                      └───── 300 ─────┐                            │
//!     └──────────────────────────────────────┘                            ▼
//!  release ◀─ throughput ◀─ packet size ◀─ round trip ◀─ channels ◀─ indications ◀─ permission
//! ```
//!
//! What goes through the relays goes from a client to its relay, from there to the relay of a second client, to that
//! client, and back. Where a user may have one relay only, that relay talks to itself; where relays may not talk to each
//! other, a plain socket of this host takes the place of the second.

mod relays;
mod through;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::stun::{Class, Message, Method, PasswordAlgorithm};

use super::advice::{Scene, advice};
use super::certificate::tame;
use super::client::{Challenge, Client};
use super::ends::Ends;
use super::fault::Fault;
use super::link::{Door, Link};
use super::report::{Facts, Name, Server, Session, Step, Success};
use super::url::{Service, Url};
use super::{Plan, Progress, Watch};
use relays::{no_lifetime, request_udp};

/// How often a server may send us to another one.
const MOST_REDIRECTS: u32 = 3;

/// A visit, and what it has found so far.
pub(super) struct Visit<'a> {
    plan: &'a Plan,
    url: &'a Url,
    door: Door,
    watch: Watch<'a>,
    steps: Vec<Step>,
    doing: (Name, Instant),
    /// This host as the server sees it, if it is known.
    mapped: Option<SocketAddr>,
    /// What is measured between; the relays are given back in the end.
    ends: Option<Ends>,
    /// Clients that may have a relay which nothing is measured with.
    others: Vec<Client>,
}

/// What became of a question that another server might have to be asked.
enum Asked<T> {
    Answered(T),
    /// The door is another one since.
    SentElsewhere,
}

impl<'a> Visit<'a> {
    pub(super) fn new(plan: &'a Plan, url: &'a Url, door: Door, watch: Watch<'a>) -> Self {
        Self {
            plan,
            url,
            door,
            watch,
            steps: Vec::new(),
            doing: (Name::Connect, Instant::now()),
            mapped: None,
            ends: None,
            others: Vec::new(),
        }
    }

    /// Tries everything, but no longer than until `deadline`, or until somebody has seen enough.
    pub(super) async fn run(mut self, deadline: Instant) -> Server {
        let (address, transport) = (self.door.address, self.door.transport);
        (self.watch)(Progress::Server { address, transport });
        // A story ends where there is no point in going on; what was found is in the steps.
        let plan = self.plan;
        let cut = tokio::select! {
            biased;
            () = plan.stopped() => Some(Fault::Stopped),
            ended = timeout_at(deadline, self.story()) => ended.err().map(|_| Fault::OutOfTime),
        };
        if let Some(fault) = cut {
            self.fail(&fault);
        }
        self.release().await;
        Server {
            address,
            transport,
            ok: self.steps.iter().all(|step| step.result != Success::Failed),
            steps: self.steps,
        }
    }

    async fn story(&mut self) -> Option<()> {
        let mut redirects = 0;
        let (challenge, family) = loop {
            let mut client = self.reach().await?;
            if redirects == 0 {
                self.binding(&mut client).await?;
            }
            if self.url.service == Service::Stun {
                return None;
            }
            if let Asked::Answered(challenge) = self.challenge(&mut client).await?
                && let Asked::Answered(family) = self.allocate(client, &challenge).await?
            {
                break (challenge, family);
            }
            redirects += 1;
            if redirects > MOST_REDIRECTS {
                return self.stop(&Fault::SentInCircles);
            }
        };
        self.other_family(&challenge, family).await?;
        self.second_allocation(&challenge, family).await?;
        self.permission().await?;
        self.indications().await?;
        self.channels().await?;
        self.round_trip().await?;
        self.packet_size().await?;
        self.throughput().await
    }

    // ---- the way there ----

    async fn reach(&mut self) -> Option<Client> {
        if !self.door.transport.is_stream() && !self.door.transport.is_secure() {
            self.doing = (Name::Connect, Instant::now());
            let opened = self.open().await;
            return self.settled(opened.map(|(client, _)| client));
        }
        self.begin(Name::Connect);
        let opened = self.open().await;
        let (client, session) = self.settled(opened)?;
        let doubts = session
            .as_ref()
            .map(|session| session.doubts.clone())
            .unwrap_or_default();
        let facts = session.map_or(Facts::None {}, Facts::Session);
        if doubts.is_empty() {
            self.done(facts);
            return Some(client);
        }
        let fault = Fault::Certificate(doubts);
        let step = Step {
            facts,
            ..self.failed(&fault)
        };
        let insecure = self.plan.insecure;
        self.end(if insecure { step.into_note() } else { step });
        // Nobody who cannot be trusted gets to see a credential.
        insecure.then_some(client)
    }

    async fn open(&self) -> Result<(Client, Option<Session>), Fault> {
        let deadline = Instant::now() + self.plan.patience();
        let (link, session) = Link::open(&self.door, &self.plan.trust, deadline).await?;
        Ok((Client::new(link, self.plan.patience()), session))
    }

    /// A further client of the same server. What it shows of itself now may be another certificate than at first.
    async fn client(&self, challenge: &Challenge) -> Result<Client, Fault> {
        let (mut client, session) = self.open().await?;
        let doubts = session.map(|session| session.doubts).unwrap_or_default();
        if !doubts.is_empty() && !self.plan.insecure {
            return Err(Fault::Certificate(doubts));
        }
        if let Some(credential) = self.plan.access.credential(self.plan.unix) {
            client.log_in(challenge, &credential);
        }
        Ok(client)
    }

    async fn binding(&mut self, client: &mut Client) -> Option<()> {
        self.begin(Name::Binding);
        let answer = client.ask_openly(Method::BINDING, |_| {}).await;
        let found = answer.and_then(|answer| {
            let message = answer.success()?;
            let mapped = message
                .xor_mapped_address()
                .or_else(|| message.mapped_address());
            let mapped = mapped.and_then(Result::ok);
            let mapped = mapped.ok_or(Fault::Garbled("a success without an address"))?;
            Ok((mapped, answer.tries, answer.after))
        });
        match found {
            Ok((mapped_address, _, _)) if mapped_address.ip().is_unspecified() => {
                self.stop(&Fault::Garbled("a success with an address that nobody has"))
            }
            Ok((mapped_address, tries, after)) => {
                let facts = Facts::Mapped {
                    mapped_address,
                    tries,
                };
                let step = Step::done(Name::Binding, milliseconds(after), facts);
                if mapped_address.is_ipv4() == self.door.address.is_ipv4() {
                    self.mapped = Some(mapped_address);
                    self.end(step);
                } else {
                    let note = self.failed(&Fault::OtherFamily(mapped_address)).into_note();
                    let Step { facts, .. } = step;
                    self.end(Step { facts, ..note });
                }
                Some(())
            }
            // Some relays tell nobody its address, which is their business.
            Err(fault @ Fault::Error(..)) if self.url.service == Service::Turn => {
                self.note(&fault);
                Some(())
            }
            Err(fault) => self.stop(&fault),
        }
    }

    async fn challenge(&mut self, client: &mut Client) -> Option<Asked<Challenge>> {
        self.begin(Name::Challenge);
        let answer = client.ask_openly(Method::ALLOCATE, request_udp).await;
        let answer = self.settled(answer)?;
        let message = answer.message();
        if message.class() == Class::Success {
            let _ = client.ask_openly(Method::REFRESH, no_lifetime).await;
            return self.stop(&Fault::OpenRelay);
        }
        match answer.success() {
            Err(Fault::Error(401, _)) => {}
            Err(Fault::Error(300, _)) => return self.follow(&message),
            Err(fault) => return self.stop(&fault),
            Ok(_) => return None,
        }
        let challenge = self.settled(Challenge::of(&message))?;
        self.done(Facts::Challenge {
            realm: shown(&challenge.realm),
            nonce_bytes: challenge.nonce.len(),
            password_algorithms: challenge
                .algorithms()
                .into_iter()
                .map(algorithm_name)
                .collect(),
            software: challenge.software.as_deref().map(shown),
            third_party: challenge.third_party.as_deref().map(shown),
        });
        Some(Asked::Answered(challenge))
    }

    /// Goes where a 300 points to.
    fn follow<T>(&mut self, message: &Message<'_>) -> Option<Asked<T>> {
        self.doing.0 = Name::Redirect;
        let ours = self.door.address.is_ipv4();
        let all: Vec<_> = message.alternate_servers().filter_map(Result::ok).collect();
        let same = all.iter().find(|address| address.is_ipv4() == ours);
        let Some(&alternate_server) = same.or_else(|| all.first()) else {
            return self.stop(&Fault::Garbled("a 300 that names no other server"));
        };
        self.door.address = alternate_server;
        let domain = message.alternate_domain().and_then(Result::ok);
        if let Some(domain) = domain.and_then(|domain| std::str::from_utf8(domain).ok())
            && let Ok(name) = rustls::pki_types::ServerName::try_from(domain.to_owned())
        {
            self.door.name = Some(name);
        }
        let milliseconds = milliseconds(self.doing.1.elapsed());
        let step = Step::done(
            Name::Redirect,
            milliseconds,
            Facts::Redirect { alternate_server },
        );
        self.end(step.into_note());
        Some(Asked::SentElsewhere)
    }

    // ---- what is told ----

    fn begin(&mut self, name: Name) {
        self.doing = (name, Instant::now());
        (self.watch)(Progress::Begin(name));
    }

    fn end(&mut self, step: Step) {
        (self.watch)(Progress::End(&step));
        self.steps.push(step);
    }

    fn done(&mut self, facts: Facts) {
        let (name, since) = self.doing;
        self.end(Step::done(name, milliseconds(since.elapsed()), facts));
    }

    fn failed(&self, fault: &Fault) -> Step {
        let (name, since) = self.doing;
        let scene = Scene {
            step: name,
            url: self.url,
            transport: self.door.transport,
            address: self.door.address,
        };
        Step::failed(
            name,
            milliseconds(since.elapsed()),
            fault,
            advice(fault, &scene),
        )
    }

    fn note(&mut self, fault: &Fault) {
        let step = self.failed(fault).into_note();
        self.end(step);
    }

    fn fail(&mut self, fault: &Fault) {
        let step = self.failed(fault);
        self.end(step);
    }

    /// Always nothing, so that it can end a story.
    fn stop<T>(&mut self, fault: &Fault) -> Option<T> {
        self.fail(fault);
        None
    }

    fn settled<T>(&mut self, result: Result<T, Fault>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(fault) => self.stop(&fault),
        }
    }
}

fn algorithm_name(algorithm: PasswordAlgorithm) -> &'static str {
    match algorithm {
        PasswordAlgorithm::Md5 => "md5",
        PasswordAlgorithm::Sha256 => "sha256",
    }
}

fn shown(text: &[u8]) -> String {
    tame(&String::from_utf8_lossy(text))
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
