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
//! client, and back. Where a user may have one relay only, that relay talks to itself.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use crate::stun::{Attribute, Class, Message, Method, PasswordAlgorithm, Writer};

use super::advice::{Scene, advice};
use super::certificate::tame;
use super::client::{Answer, Challenge, Client};
use super::fault::{Fault, Suspicion};
use super::link::{Door, Link};
use super::measure::{self, Relay};
use super::report::{Facts, Name, Server, Step, Success};
use super::url::{Service, Url};
use super::{Access, Plan, Progress, Watch};

/// How often a server may send us to another one.
const MOST_REDIRECTS: u32 = 3;
/// How long giving the relays back may take, whatever happened before.
const RELEASE: Duration = Duration::from_secs(2);
/// REQUESTED-TRANSPORT of UDP.
const UDP: u8 = 17;
const IPV4: u8 = 1;
const IPV6: u8 = 2;

/// A visit, and what it has found so far.
pub(super) struct Visit<'a> {
    plan: &'a Plan,
    url: &'a Url,
    door: Door,
    watch: Watch<'a>,
    steps: Vec<Step>,
    doing: (Name, Instant),
    /// The two relays, or one, in the end to be given back.
    relays: Vec<Relay>,
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
            relays: Vec::new(),
        }
    }

    /// Tries everything, but no longer than until `deadline`.
    pub(super) async fn run(mut self, deadline: Instant) -> Server {
        let (address, transport) = (self.door.address, self.door.transport);
        (self.watch)(Progress::Server { address, transport });
        // A story ends where there is no point in going on; what was found is in the steps.
        if timeout_at(deadline, self.story()).await.is_err() {
            self.fail(&Fault::OutOfTime);
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
        self.other_family(&challenge, family).await;
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

    async fn open(&self) -> Result<(Client, Option<super::report::Session>), Fault> {
        let deadline = Instant::now() + self.plan.patience();
        let (link, session) = Link::open(&self.door, &self.plan.trust, deadline).await?;
        Ok((Client::new(link, self.plan.patience()), session))
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
            let mapped_address = mapped.ok_or(Fault::Garbled("a success without an address"))?;
            Ok((
                Facts::Mapped {
                    mapped_address,
                    tries: answer.tries,
                },
                answer.after,
            ))
        });
        match found {
            Ok((facts, after)) => {
                self.end(Step::done(Name::Binding, milliseconds(after), facts));
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
            realm: tame(&String::from_utf8_lossy(&challenge.realm)),
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

    // ---- relays ----

    async fn allocate(&mut self, mut client: Client, challenge: &Challenge) -> Option<Asked<u8>> {
        self.begin(Name::Allocate);
        let Some(credential) = self.plan.access.credential(self.plan.unix) else {
            let step = Step::done(Name::Allocate, 0.0, Facts::None {}).into_note();
            let message = Some("not tried, for want of a credential".to_owned());
            let advice = Some(NO_CREDENTIAL.to_owned());
            self.end(Step {
                message,
                advice,
                ..step
            });
            return None;
        };
        client.log_in(challenge, &credential);
        let answer = client.ask_for_any(Method::ALLOCATE, request_udp).await;
        let answer = self.settled(answer)?;
        let refused = match answer.success() {
            Ok(_) => {
                self.keep(client, &answer, 0)?;
                return Some(Asked::Answered(0));
            }
            Err(Fault::Error(300, _)) => return self.follow(&answer.message()),
            Err(refused) => refused,
        };
        match refused.code() {
            Some(code @ (401 | 441)) => {
                let suspicion = self.suspect(&mut client, challenge).await;
                self.stop(&Fault::Login(code, suspicion))
            }
            Some(440) => {
                // No relays of IPv4, perhaps; browsers ask for no other.
                self.note(&refused);
                self.begin(Name::Allocate);
                let answer = client.ask(Method::ALLOCATE, request_family(IPV6)).await;
                let answer = self.settled(answer)?;
                self.keep(client, &answer, IPV6)?;
                Some(Asked::Answered(IPV6))
            }
            Some(_) | None => self.stop(&refused),
        }
    }

    /// Finds out what is wrong with a credential, by others that differ in one thing. A Refresh of what is not there
    /// tells: who is logged in is answered something else than 401.
    async fn suspect(&self, client: &mut Client, challenge: &Challenge) -> Suspicion {
        let accepted = async |client: &mut Client, credential| {
            client.log_in(challenge, &credential);
            match give_back(client).await {
                Ok(()) => true,
                Err(Fault::Error(code, _)) => ![400, 401, 438, 441].contains(&code),
                Err(_) => false,
            }
        };
        match &self.plan.access {
            Access::Nobody => Suspicion::Password,
            Access::User { name, .. } => Suspicion::of_name(name, self.plan.unix),
            Access::Secret {
                user,
                secret,
                other,
            } => {
                if let Some((is_sha256, other)) = other
                    && accepted(client, Access::mint(other, user, self.plan.unix)).await
                {
                    return Suspicion::OtherHash(*is_sha256);
                }
                let later = self.plan.unix + YEAR;
                if accepted(client, Access::mint(secret, user, later)).await {
                    return Suspicion::ClockAhead;
                }
                Suspicion::Secret
            }
        }
    }

    async fn other_family(&mut self, challenge: &Challenge, family: u8) -> Option<()> {
        self.begin(Name::OtherFamily);
        let other = if family == IPV6 { IPV4 } else { IPV6 };
        let found = match self.client(challenge).await {
            Ok(mut client) => {
                let answer = client.ask(Method::ALLOCATE, request_family(other)).await;
                let facts = answer.and_then(|answer| allocation(&answer));
                if facts.is_ok() {
                    let _ = give_back(&mut client).await;
                }
                facts
            }
            Err(fault) => Err(fault),
        };
        match found {
            Ok((facts, _)) => self.done(facts),
            // Most servers are so, and nothing has to be done about it.
            Err(fault @ Fault::Error(440, _)) => {
                let family = if other == IPV6 { "IPv6" } else { "IPv4" };
                let step = Step {
                    message: Some(format!("no relays of {family} (440)")),
                    advice: None,
                    ..self.failed(&fault)
                };
                self.end(step.into_note());
            }
            Err(fault) => self.note(&fault),
        }
        Some(())
    }

    async fn second_allocation(&mut self, challenge: &Challenge, family: u8) -> Option<()> {
        self.begin(Name::SecondAllocation);
        let client = self.client(challenge).await;
        let mut client = self.settled(client)?;
        let answer = match family {
            0 => client.ask(Method::ALLOCATE, request_udp).await,
            family => client.ask(Method::ALLOCATE, request_family(family)).await,
        };
        match answer {
            Ok(answer) => self.keep(client, &answer, family),
            // One relay can still talk to itself, so that the rest is seen.
            Err(fault @ Fault::Error(486, _)) => {
                self.fail(&fault);
                Some(())
            }
            Err(fault) => self.stop(&fault),
        }
    }

    /// A further client of the same server.
    async fn client(&self, challenge: &Challenge) -> Result<Client, Fault> {
        let (mut client, _) = self.open().await?;
        if let Some(credential) = self.plan.access.credential(self.plan.unix) {
            client.log_in(challenge, &credential);
        }
        Ok(client)
    }

    /// Remembers a relay, to use it and to give it back.
    fn keep(&mut self, client: Client, answer: &Answer, family: u8) -> Option<()> {
        let (facts, relayed) = self.settled(allocation(answer))?;
        let wanted = relayed
            .iter()
            .find(|address| family != IPV6 || address.is_ipv6());
        let address = *wanted.or_else(|| relayed.first())?;
        self.relays.push(Relay { client, address });
        self.done(facts);
        Some(())
    }

    // ---- through the relays ----

    async fn permission(&mut self) -> Option<()> {
        self.begin(Name::Permission);
        match measure::permit(&mut self.relays).await {
            Ok(()) => self.done(Facts::None {}),
            // A server may well have its reasons to keep its relays from its own network.
            Err(fault @ Fault::Error(403, _)) => {
                self.note(&fault);
                return None;
            }
            Err(fault) => return self.stop(&fault),
        }
        Some(())
    }

    async fn indications(&mut self) -> Option<()> {
        self.begin(Name::Indications);
        let found = measure::indications(&mut self.relays).await;
        let dont_fragment = self.settled(found)?;
        self.done(Facts::Indications { dont_fragment });
        Some(())
    }

    async fn channels(&mut self) -> Option<()> {
        self.begin(Name::Channels);
        let bound = measure::bind(&mut self.relays).await;
        self.settled(bound)?;
        self.done(Facts::None {});
        Some(())
    }

    async fn round_trip(&mut self) -> Option<()> {
        self.begin(Name::RoundTrip);
        let count = self.plan.count;
        let watch = &mut *self.watch;
        let found = measure::round_trip(&mut self.relays, count, |done| {
            watch(Progress::Counting { done, of: count });
        });
        let facts = found.await;
        let facts = self.settled(facts)?;
        self.done(facts);
        Some(())
    }

    async fn packet_size(&mut self) -> Option<()> {
        self.begin(Name::PacketSize);
        let found = measure::packet_size(&mut self.relays).await;
        match found {
            Ok(largest) => self.done(Facts::PacketSize { largest }),
            Err(fault) => self.fail(&fault),
        }
        Some(())
    }

    async fn throughput(&mut self) -> Option<()> {
        self.begin(Name::Throughput);
        let found = measure::throughput(&mut self.relays).await;
        let facts = self.settled(found)?;
        self.done(facts);
        Some(())
    }

    async fn release(&mut self) {
        if self.relays.is_empty() {
            return;
        }
        self.begin(Name::Release);
        let mut relays = std::mem::take(&mut self.relays);
        let all = async {
            for relay in &mut relays {
                give_back(&mut relay.client).await?;
            }
            Ok(())
        };
        let released = timeout(RELEASE, all).await.unwrap_or(Err(Fault::Silence));
        match released {
            Ok(()) => self.done(Facts::None {}),
            // They end by themselves, and a failure before this one has been told already.
            Err(fault) => self.note(&fault),
        }
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

impl Suspicion {
    /// What is wrong with a credential of this name, if the server does not take it.
    fn of_name(name: &str, unix: i64) -> Self {
        let expiry = name
            .split(':')
            .next()
            .and_then(|expiry| expiry.parse::<i64>().ok());
        match expiry {
            Some(expiry) if expiry <= unix => Self::Expired(unix - expiry),
            Some(_) => Self::Minted,
            None => Self::Password,
        }
    }
}

/// What every browser asks for.
fn request_udp(writer: &mut Writer<'_>) {
    writer.u8(Attribute::REQUESTED_TRANSPORT, UDP);
}

fn request_family(family: u8) -> impl Fn(&mut Writer<'_>) {
    move |writer| {
        request_udp(writer);
        writer.u8(Attribute::REQUESTED_ADDRESS_FAMILY, family);
    }
}

fn no_lifetime(writer: &mut Writer<'_>) {
    writer.u32(Attribute::LIFETIME, 0);
}

async fn give_back(client: &mut Client) -> Result<(), Fault> {
    client.ask(Method::REFRESH, no_lifetime).await.map(drop)
}

fn allocation(answer: &Answer) -> Result<(Facts, Vec<std::net::SocketAddr>), Fault> {
    let message = answer.success()?;
    // coturn names an empty address for the family that it has no relay of.
    let relayed: Vec<_> = message
        .xor_relayed_addresses()
        .filter_map(Result::ok)
        .filter(|address| address.port() != 0)
        .collect();
    let lifetime = message.lifetime().and_then(Result::ok);
    let (false, Some(lifetime_seconds)) = (relayed.is_empty(), lifetime) else {
        return Err(Fault::Garbled("a relay without an address or a lifetime"));
    };
    let facts = Facts::Allocation {
        relayed_addresses: relayed.clone(),
        lifetime_seconds,
    };
    Ok((facts, relayed))
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

/// In seconds: no clock is off by more.
const YEAR: i64 = 366 * 86_400;

const NO_CREDENTIAL: &str = "Give a credential to have the relay itself tested: --secret-file with the secret that the \
    server shares, or --user and --password-file.";
