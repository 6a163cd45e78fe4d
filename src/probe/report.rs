//! What was found: for people as text ([`super::show`]), for programs as JSON, whose field names do not change.

use std::net::{IpAddr, SocketAddr};

use serde::{Serialize, Serializer};

use super::fault::{Distrust, Fault};
use super::url::{Service, Transport, Url};

/// Everything that was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The form of this document; rises when a field changes its meaning.
    pub version: u32,
    /// Whether every URL works.
    pub ok: bool,
    /// One for each URL, in their order.
    pub urls: Vec<Outcome>,
}

impl Report {
    /// The report of these URLs.
    pub fn new(urls: Vec<Outcome>) -> Self {
        Self {
            version: 1,
            ok: urls.iter().all(|outcome| outcome.ok),
            urls,
        }
    }

    /// Whether everything was tried that there is to be tried: where there are relays, what goes through them, too.
    pub fn is_whole(&self) -> bool {
        let mut urls = self.urls.iter();
        urls.all(|outcome| match outcome.url.service {
            Service::Stun => true,
            Service::Turn => outcome.servers.iter().all(|server| {
                let mut steps = server.steps.iter();
                steps.any(|step| step.step == Name::Throughput)
            }),
        })
    }

    /// Whether somebody has seen enough before the end.
    pub fn is_stopped(&self) -> bool {
        let of_urls = self.urls.iter().flat_map(|outcome| &outcome.steps);
        let servers = self.urls.iter().flat_map(|outcome| &outcome.servers);
        let mut steps = of_urls.chain(servers.flat_map(|server| &server.steps));
        steps.any(|step| step.fault == Some(Fault::Stopped.kind()))
    }
}

/// What was found behind a URL.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The URL.
    #[serde(serialize_with = "as_text")]
    pub url: Url,
    /// Whether it works, at each of its addresses.
    pub ok: bool,
    /// The addresses of its host, and what was done before one was reached.
    pub steps: Vec<Step>,
    /// One for each family of addresses.
    pub servers: Vec<Server>,
}

/// What was found at an address.
#[derive(Debug, Serialize)]
pub struct Server {
    /// The address.
    pub address: SocketAddr,
    /// `UDP`, `TCP`, `TLS` or `DTLS`.
    #[serde(serialize_with = "as_text")]
    pub transport: Transport,
    /// Whether no step failed.
    pub ok: bool,
    /// What was done, in its order.
    pub steps: Vec<Step>,
}

/// One thing that was tried.
#[derive(Debug, Serialize)]
pub struct Step {
    /// What it is.
    pub step: Name,
    /// What became of it.
    pub result: Success,
    /// How long it took.
    pub milliseconds: f64,
    /// What there is to tell.
    #[serde(flatten)]
    pub facts: Facts,
    /// What was wrong, in a word that does not change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<&'static str>,
    /// The error code of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// What was wrong, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What to do about it, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Step {
    /// A step that did what it should.
    pub(super) fn done(step: Name, milliseconds: f64, facts: Facts) -> Self {
        Self {
            step,
            result: Success::Ok,
            milliseconds,
            facts,
            fault: None,
            code: None,
            message: None,
            advice: None,
        }
    }

    /// A step that did not.
    pub(super) fn failed(step: Name, milliseconds: f64, fault: &Fault, advice: String) -> Self {
        Self {
            result: Success::Failed,
            fault: Some(fault.kind()),
            code: fault.code(),
            message: Some(fault.to_string()),
            advice: Some(advice),
            ..Self::done(step, milliseconds, Facts::None {})
        }
    }

    /// The same, but no reason to say that the server does not work.
    pub(super) fn into_note(self) -> Self {
        Self {
            result: Success::Note,
            ..self
        }
    }
}

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Name {
    /// Look up the addresses of a name.
    Resolve,
    /// Connect, and shake hands.
    Connect,
    /// Ask for one's own address.
    Binding,
    /// Ask for a relay without a credential, to be told the realm.
    Challenge,
    /// Follow a server that sends its clients to another one.
    Redirect,
    /// Ask for a relay.
    Allocate,
    /// Ask for one of the other family of addresses.
    OtherFamily,
    /// Ask for a second one, to talk to.
    SecondAllocation,
    /// Let each relay hear the other.
    Permission,
    /// Have a socket of this host be the peer, where relays may not talk to each other.
    PlainPeer,
    /// Send through them without channels.
    Indications,
    /// Bind a channel at each.
    Channels,
    /// Send packets around through both, at the pace of a call.
    RoundTrip,
    /// Find the largest packet that comes through.
    PacketSize,
    /// Send a burst.
    Throughput,
    /// Give the relays back.
    Release,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Success {
    /// It did what it should.
    Ok,
    /// It did not, or was left out, which is good to know but no failure.
    Note,
    /// It did not.
    Failed,
}

/// What there is to tell of a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Facts {
    /// Nothing.
    None {},
    /// The addresses of a name.
    Addresses {
        /// All of them.
        addresses: Vec<IpAddr>,
    },
    /// A TLS or DTLS session.
    Session(Session),
    /// One's own address.
    Mapped {
        /// As the server sees it.
        mapped_address: SocketAddr,
        /// How often the question was sent.
        tries: u32,
    },
    /// What a server wants to know.
    Challenge {
        /// Of its credentials.
        realm: String,
        /// How long its nonces are.
        nonce_bytes: usize,
        /// What passwords may be hashed with.
        password_algorithms: Vec<&'static str>,
        /// Its name, if it tells.
        #[serde(skip_serializing_if = "Option::is_none")]
        software: Option<String>,
        /// Where to get a token, if it takes any.
        #[serde(skip_serializing_if = "Option::is_none")]
        third_party: Option<String>,
    },
    /// Another server.
    Redirect {
        /// Where it is.
        alternate_server: SocketAddr,
    },
    /// A relay.
    Allocation {
        /// Its addresses.
        relayed_addresses: Vec<SocketAddr>,
        /// How long it lives without a refresh.
        lifetime_seconds: u32,
    },
    /// A socket of this host that takes the place of the second relay.
    PlainPeer {
        /// Where the relay sees it.
        peer_address: SocketAddr,
    },
    /// Packets through indications.
    Indications {
        /// Whether packets that must not be cut came, too.
        dont_fragment: bool,
    },
    /// Packets there and back, through both relays.
    RoundTrip {
        /// How many were sent.
        sent: u32,
        /// How many came back.
        received: u32,
        /// The shortest time.
        min_ms: f64,
        /// The time that half of them took at most.
        median_ms: f64,
        /// The time that 99 of 100 took at most.
        p99_ms: f64,
        /// How much the time of one differs from that of the one before, on average.
        jitter_ms: f64,
    },
    /// The largest packet that came through, in bytes of payload.
    PacketSize {
        /// That one.
        largest: usize,
    },
    /// A burst.
    Throughput {
        /// What came, in a second.
        megabits_per_second: f64,
        /// How many packets were sent.
        sent: u32,
        /// How many came.
        received: u32,
        /// Their size, in bytes of payload.
        size: usize,
        /// How many were on their way at a time.
        window: u32,
    },
}

/// A TLS or DTLS session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Session {
    /// `TLS 1.3`
    pub protocol: &'static str,
    /// The cipher suite, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cipher: Option<String>,
    /// The protocol chosen by ALPN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpn: Option<String>,
    /// For whom the certificate had to be.
    #[serde(rename = "certificate_host", skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The certificates, the server's own first.
    #[serde(rename = "certificates")]
    pub chain: Vec<Certified>,
    /// What speaks against them.
    #[serde(rename = "certificate_doubts", serialize_with = "as_texts")]
    pub doubts: Vec<Distrust>,
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Certified {
    /// Whom it is for.
    pub subject: String,
    /// Who says so.
    pub issuer: String,
    /// The hosts that it is for.
    pub names: Vec<String>,
    /// When it ends, in seconds since 1970.
    pub not_after: i64,
    /// How many days that is from today.
    pub days_left: i64,
}

fn as_text<S: Serializer>(
    value: &impl std::fmt::Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn as_texts<S: Serializer>(values: &[Distrust], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(ToString::to_string))
}
