//! From what the operator asked for to the `Settings` of each part.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::events;
use crate::plane::{self, Listen, RelayAddress, RelayRange};
use crate::revocation;
use crate::turn::{self, Limits, ListenerAlgorithms, Peers, SharedSecret, Transport};

use super::admin::Seat;
use super::document::{Origin, Sources};
use super::host::{self, FoundBy, Host};
use super::login::Credentials;
use super::problem::{Complaint, Report};
use super::tls::{Certificate, Tls};
use super::token::TokenParts;
use super::{Config, Contents, Reading, SecretFile};

/// The file in the state directory in which revocations are kept.
const OWN_REVOCATIONS: &str = "revocations.sqlite";
/// The port of STUN and TURN (RFC 8656 §18.5).
pub(super) const TURN_PORT: u16 = 3478;
/// Descriptors that are neither relay nor client: logs, metrics, epoll, and some to spare.
pub(super) const SPARE_DESCRIPTORS: u64 = 256;

/// A configuration that may be used.
pub struct Loaded {
    /// What the operator asked for.
    pub config: Config,
    /// What was found in its files.
    pub contents: Contents,
    /// What the parts are told.
    pub parts: Parts,
    /// Warnings.
    pub report: Report,
}

/// What the parts are told.
pub struct Parts {
    /// For the protocol machine.
    pub turn: Arc<turn::Settings>,
    /// For threads and sockets.
    pub plane: plane::Settings,
    /// For who keeps books of sessions.
    pub events: Option<events::Settings>,
    /// For the TLS listeners.
    pub certificate: Option<Certificate>,
    /// Secrets that credentials are minted with; the first is the one to use.
    pub secrets: Vec<SharedSecret>,
    /// For the token service, if there is one.
    pub token: Option<TokenParts>,
    /// Was the secret made by the server?
    pub own_secret: bool,
    /// For what keeps the revocations, if there are to be any.
    pub revocation: Option<revocation::Settings>,
    /// How the relay addresses were found; nothing if they are configured.
    pub found_by: Option<FoundBy>,
    /// For the operator's seat.
    pub seat: Seat,
}

impl Loaded {
    /// Leaves threads and sockets of a running server as they are: what is said of them waits for a restart. `turn` is
    /// what its machines were told last.
    pub fn fit(&mut self, running: &plane::Settings, turn: &turn::Settings) {
        let wanted = std::mem::replace(&mut self.parts.plane, running.clone());
        let own = Arc::make_mut(&mut self.parts.turn);
        own.limits.unauthenticated_replies = replies_per_worker(&self.config, running.workers);
        own.tenants.keep_doors(&turn.tenants);
        let is_known = |old: &ListenerAlgorithms| {
            let mut listeners = wanted.listeners.iter();
            listeners.any(|one| (one.transport, one.address) == (old.transport, old.address))
        };
        let mut older = turn.listener_algorithms.clone();
        older.retain(|old| !is_known(old));
        if !older.is_empty() && own.listener_algorithms.is_empty() {
            own.listener_algorithms = every_listener(&self.config, &wanted.listeners);
        }
        own.listener_algorithms.extend(older);
    }
}

/// Reads the sources, checks everything, and makes it into settings.
///
/// # Errors
///
/// The report, if there is any error in it.
pub fn load(sources: &Sources, host: &Host) -> Result<Loaded, Report> {
    let (config, report) = super::read(sources);
    let mut assembly = Assembly {
        config: &config,
        host,
        report,
        contents: Contents::default(),
    };
    let mut listeners = assembly.listeners();
    let nat_discovery = assembly.nat_discovery(&mut listeners);
    let (relay, found_by) = assembly.relay();
    let mut credentials = assembly.credentials();
    let certificate = assembly.certificate(&listeners);
    let redirect = assembly.redirect(&listeners);
    let tcp_relay = assembly.tcp_relay(&listeners);
    let tenants = assembly.tenants(&listeners);
    let events = assembly.events();
    let token = assembly.token(&credentials.secrets);
    let seat = assembly.admin();
    let revocation = revocation(&config, host, token.is_some());
    assembly.check_revocation(token.as_ref());
    assembly.check_limits(&relay, &listeners);
    assembly.check_order();
    assembly.check_places(&listeners);
    assembly.check_same_secrets();
    assembly.check_server_names(&listeners);
    assembly.check_clock();
    assembly.check_exposure();
    assembly.check_fronts(&listeners);
    assembly.check_algorithms();
    let Assembly {
        report, contents, ..
    } = assembly;
    if report.has_errors() {
        return Err(report);
    }
    let workers = config.server.workers.unwrap_or(host.cores).get();
    let secrets = std::mem::take(&mut credentials.secrets);
    let own_secret = credentials.own_secret;
    let turn = turn::Settings {
        nat_discovery,
        redirect,
        tcp_relay,
        tenants,
        ..machine(&config, &listeners, credentials, workers)
    };
    let plane = plane::Settings {
        workers,
        streams_per_worker: streams_per_worker(host.descriptors, workers, listeners.len()),
        listeners,
        relay,
        carry: config.relay.carry,
    };
    let parts = Parts {
        turn: Arc::new(turn),
        plane,
        events,
        certificate,
        secrets,
        token,
        own_secret,
        revocation,
        found_by,
        seat,
    };
    Ok(Loaded {
        config,
        contents,
        parts,
        report,
    })
}

/// The same for a server that runs with what it read `before`: what is no configuration any more does not replace one.
///
/// # Errors
///
/// The report, if there is any error in it.
pub fn load_again(sources: &Sources, host: &Host, before: &Reading) -> Result<Loaded, Report> {
    let found = sources.file.as_ref().and_then(|file| file.metadata().ok());
    let is_spent = found.is_some_and(|found| !found.is_file() && !found.is_dir());
    let (mut report, what, remedy) = if is_spent {
        (
            Report::new(vec![Origin::unread(sources)]),
            "this is no file: what came out of it at the start cannot be read again",
            "name a file after --config, and start the server anew",
        )
    } else {
        let loaded = load(sources, host)?;
        if loaded.report.is_from_file() || !before.is_from_file {
            return Ok(loaded);
        }
        (
            loaded.report,
            "there is no key in the file any more, as if it had been cut off while it was written",
            "put it back (is the disk full?); if the defaults are meant, start the server anew",
        )
    };
    report.file_error(Complaint::new(what, remedy));
    Err(report)
}

/// What the machine is told of keys that need no more than reading.
fn machine(
    config: &Config,
    listeners: &[Listen],
    credentials: Credentials,
    workers: usize,
) -> turn::Settings {
    turn::Settings {
        users: credentials.users,
        password_algorithms: config.auth.password_algorithms,
        listener_algorithms: listener_algorithms(config, listeners),
        username_anonymity: config.auth.username_anonymity,
        third_party: credentials.third_party,
        on_expiry: config.auth.on_expiry,
        software: config
            .server
            .software
            .then(|| concat!("turnd ", env!("CARGO_PKG_VERSION")).to_owned()),
        mobility: config.server.mobility,
        rfc5766_channels: config.server.rfc5766_channels,
        rfc3489: config.server.rfc3489,
        unasked_ipv6: config.relay.unasked_ipv6,
        max_lifetime: config.max_lifetime,
        limits: Limits {
            unauthenticated_replies: replies_per_worker(config, workers),
            ..config.limits
        },
        peers: config.peers.clone(),
        policies: policies(config),
        ..turn::Settings::new(credentials.nonce_keys)
    }
}

/// Each worker keeps a budget of its own, and the kernel deals a prefix's clients out to all.
fn replies_per_worker(config: &Config, workers: usize) -> u32 {
    config
        .limits
        .unauthenticated_replies
        .div_ceil(workers as u32)
}

/// Where revocations are kept, if they are. Whoever abuses a credential is to be ended at once, not after a restart: so
/// they are, unless somebody says otherwise.
fn revocation(config: &Config, host: &Host, tokens: bool) -> Option<revocation::Settings> {
    let revocation = &config.revocation;
    let in_state = || host.state.path(OWN_REVOCATIONS);
    revocation
        .enabled
        .unwrap_or(true)
        .then(|| revocation::Settings {
            is_asked_for: tokens || revocation.enabled.is_some() || revocation.database.is_some(),
            database: revocation.database.clone().unwrap_or_else(in_state),
            keep: revocation.keep,
            most: revocation::Settings::MOST,
        })
}

/// What is refused in any case is refused by every policy.
fn policies(config: &Config) -> BTreeMap<Box<str>, Peers> {
    let mut policies = config.policies.clone();
    for policy in policies.values_mut() {
        policy.deny.extend(&config.peers.deny);
    }
    policies
}

/// What is offered at each listener, if it is not the same at all: then those that say nothing have to be known, too.
fn listener_algorithms(config: &Config, listeners: &[Listen]) -> Vec<ListenerAlgorithms> {
    if config.listen_algorithms.is_empty() {
        return Vec::new();
    }
    every_listener(config, listeners)
}

fn every_listener(config: &Config, listeners: &[Listen]) -> Vec<ListenerAlgorithms> {
    let offered = |listener: &Listen| {
        let own = config
            .listen_algorithms
            .iter()
            .find(|(named, _)| named == listener);
        own.map_or(config.auth.password_algorithms, |(_, algorithms)| {
            *algorithms
        })
    };
    listeners
        .iter()
        .map(|listener| ListenerAlgorithms {
            transport: listener.transport,
            address: listener.address,
            algorithms: offered(listener),
        })
        .collect()
}

/// A client on a stream takes two descriptors, one of them for its relay: half of what there is may be streams.
fn streams_per_worker(descriptors: u64, workers: usize, listeners: usize) -> usize {
    let spoken_for = SPARE_DESCRIPTORS + (workers * listeners) as u64;
    let streams = descriptors.saturating_sub(spoken_for) / 2 / workers as u64;
    usize::try_from(streams)
        .unwrap_or(usize::MAX)
        .clamp(16, 1 << 20)
}

/// The work of [`load`]: one configuration on one host, and what is wrong with it.
pub(super) struct Assembly<'a> {
    pub(super) config: &'a Config,
    pub(super) host: &'a Host,
    pub(super) report: Report,
    pub(super) contents: Contents,
}

impl Assembly<'_> {
    pub(super) fn error(&mut self, key: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.report.error(key, Complaint::new(what, remedy));
    }

    pub(super) fn warning(
        &mut self,
        key: &str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.report.warning(key, Complaint::new(what, remedy));
    }

    /// What is forgotten while credentials are good is worth nothing.
    fn check_revocation(&mut self, token: Option<&TokenParts>) {
        let keep = self.config.revocation.keep;
        if token.is_some_and(|token| token.settings.max_ttl > keep.as_secs()) {
            self.warning(
                "revocation.keep",
                "credentials are good for longer than it is remembered that they are revoked",
                "write at least the max_ttl of [token]",
            );
        }
    }

    fn listeners(&self) -> Vec<Listen> {
        if let Some(listeners) = &self.config.listen {
            return listeners.clone();
        }
        let v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let v6 = self
            .host
            .has_ipv6
            .then_some(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        let addresses = [v4]
            .into_iter()
            .chain(v6)
            .map(|ip| SocketAddr::new(ip, TURN_PORT));
        addresses
            .flat_map(|address| {
                [Transport::Udp, Transport::Tcp].map(|transport| Listen::new(address, transport))
            })
            .collect()
    }

    fn relay(&mut self) -> (RelayRange, Option<FoundBy>) {
        let relay = &self.config.relay;
        let (named, found_by) = match &relay.addresses {
            Some(addresses) => (addresses.clone(), None),
            None if !relay.external.is_empty() => (Vec::new(), None),
            None => {
                let (found, by) = host::relay_addresses();
                (found, Some(by))
            }
        };
        let mut addresses: Vec<RelayAddress> = named
            .iter()
            .map(|address| self.translated(*address))
            .collect();
        for external in &relay.external {
            let address = RelayAddress {
                local: external.local,
                advertised: external.advertised,
            };
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        self.check_relay_addresses(&addresses, found_by.is_some());
        (
            RelayRange {
                addresses,
                ports: relay.ports.clone(),
            },
            found_by,
        )
    }

    /// The address with what `external` says of it: an operator may name either side.
    pub(super) fn translated(&self, address: IpAddr) -> RelayAddress {
        let external = self
            .config
            .relay
            .external
            .iter()
            .find(|external| [external.advertised, external.local].contains(&address));
        external.map_or(
            RelayAddress {
                local: address,
                advertised: address,
            },
            |external| RelayAddress {
                local: external.local,
                advertised: external.advertised,
            },
        )
    }

    fn certificate(&mut self, listeners: &[Listen]) -> Option<Certificate> {
        let first = |transport| {
            listeners
                .iter()
                .position(|listener| listener.transport == transport)
        };
        let dtls = first(Transport::Dtls);
        let tls = first(Transport::Tls).or(dtls);
        let Some(files) = &self.config.tls else {
            if let (Some(index), false) = (
                tls,
                self.report.is_given("tls.certificate") || self.report.is_given("tls.key"),
            ) {
                let remedy =
                    "add a [tls] table with certificate = \"cert.pem\" and key = \"key.pem\"";
                self.error(
                    &format!("listen[{index}].transport"),
                    format!(
                        "this listener speaks {}, but there is no certificate",
                        listeners[index].transport.label().to_uppercase()
                    ),
                    remedy,
                );
            }
            return None;
        };
        let is_of_use = |listener: &Listen| listener.transport != Transport::Udp;
        if !listeners.iter().any(is_of_use) && !self.token_uses_tls() {
            let remedy =
                "add a [[listen]] with transport = \"tls\", customarily on port 5349 or 443";
            self.warning(
                "tls.certificate",
                "there is a certificate, but nothing listens for TLS",
                remedy,
            );
        }
        let certificate = self.load_certificate("tls", files)?;
        if let (Some(index), None) = (dtls, &certificate.identity) {
            let remedy = "ask for a certificate with such a key, as in `certbot --key-type ecdsa`; clients on TLS know it too";
            self.error(
                &format!("listen[{index}].transport"),
                format!(
                    "{}, and the certificate in [tls] has another",
                    plane::UnfitKey
                ),
                remedy,
            );
        }
        Some(certificate)
    }

    /// Reads certificates; `table` is where they are named. What is wrong with them is in the report.
    pub(super) fn load_certificate(&mut self, table: &str, files: &Tls) -> Option<Certificate> {
        let certificate = files
            .load(self.host)
            .map_err(|complaints| {
                for (key, complaint) in complaints {
                    self.report.error(&format!("{table}.{key}"), complaint);
                }
            })
            .ok()?;
        for (key, complaint) in certificate.ends_soon(self.host.unix) {
            self.report.warning(&format!("{table}.{key}"), complaint);
        }
        for (key, file, chain) in certificate.chains() {
            let file = SecretFile::Path(file.to_owned());
            self.contents
                .note(&format!("{table}.{key}"), &file, chain, self.host);
        }
        Some(certificate)
    }
}
