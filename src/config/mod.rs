//! The configuration: from text to values that are known to be right.
//!
//! ```text
//!  file ─┐
//!  env  ─┼─▶ document ─▶ schema ─▶ Config ─▶ assemble ─▶ the Settings of each part
//!  --set ┘   (places)    (kinds)   (values)  (secrets, certificate, addresses of this machine)
//! ```
//!
//! Everything that is wrong is told at once, each with its place and its remedy; after that nothing is checked
//! again. Parts declare their own `Settings` and never see this module: the configuration points at the parts.
//! Secrets come from files only, and no problem ever quotes one.

mod admin;
mod assemble;
mod certificate;
mod check;
mod conflict;
mod contents;
mod difference;
mod discovery;
mod document;
mod events;
mod front;
mod host;
mod login;
mod oauth;
mod otlp;
mod problem;
mod redirect;
mod schema;
mod secrets;
mod section;
mod show;
mod tcp_relay;
mod tenant;
mod tls;
mod token;
mod validity;
mod values;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::plane::{Carry, Listen};
use crate::turn::{
    self, Limits, OnExpiry, PasswordAlgorithms, PasswordEncoding, Peers, SecretAlgorithm,
    TokenAlgorithm, Transport,
};

pub use admin::{Seat, admin_sockets};
pub use assemble::{Loaded, Parts, load, load_again};
pub use certificate::{CertificateFiles, Stamp};
pub use contents::Contents;
pub use difference::{Difference, Differences, Reading};
pub use document::{ENVIRONMENT_PREFIX, Sources};
pub use events::{Events, WebhookSource};
pub use host::{FoundBy, Host, unix_now};
pub use otlp::OtlpSource;
pub(crate) use problem::nearest;
pub use problem::{Complaint, Problem, Report, Severity};
pub use secrets::{Secret, StateDirectory, generate, password_weakness, read as read_secret};
pub(crate) use show::text as toml_text;
pub use tls::{Certificate, Tls};
pub use token::{ApiKeySource, IssuerKeys, IssuerSource, Token, TokenParts};
pub(crate) use values::{LARGEST_RATE, show_bit_rate};
pub use values::{duration, show_duration};

/// The configuration with every key at its default, which is also its manual.
pub const REFERENCE: &str = include_str!("../../config/turnd.toml");

/// What the operator asked for. `None` where the server finds the value itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[[listen]]`; `None`: port 3478 of every address, UDP and TCP.
    pub listen: Option<Vec<Listen>>,
    /// `[[listen]] password_algorithms`, where it is given.
    pub listen_algorithms: Vec<(Listen, PasswordAlgorithms)>,
    /// `[relay]`
    pub relay: Relay,
    /// `[auth]`
    pub auth: Auth,
    /// `[limits]`, less the lifetime
    pub limits: Limits,
    /// `[limits] max_lifetime`: the longest lifetime of an allocation.
    pub max_lifetime: Duration,
    /// `[peers]`, less the policies
    pub peers: Peers,
    /// `[peers] policies`, by their names
    pub policies: BTreeMap<Box<str>, Peers>,
    /// `[[tenants]]`
    pub tenants: Vec<Tenant>,
    /// `[tcp_relay]`
    pub tcp_relay: TcpRelay,
    /// `[nat_discovery] addresses`: one of each family, or none, with its other one.
    pub nat_discovery: Vec<SocketAddr>,
    /// `[redirect]`
    pub redirect: Redirect,
    /// `[events]`
    pub events: Events,
    /// `[revocation]`
    pub revocation: Revocation,
    /// `[tls]`
    pub tls: Option<Tls>,
    /// `[token]`
    pub token: Token,
    /// `[metrics] listen`
    pub metrics: Option<SocketAddr>,
    /// `[admin]`
    pub admin: Admin,
    /// `[log]`
    pub log: Log,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// REALM of the long-term credentials.
    pub realm: String,
    /// Is SOFTWARE sent in authenticated answers?
    pub software: bool,
    /// May allocations move with their clients?
    pub mobility: bool,
    /// May clients bind the channel numbers that RFC 8656 took away?
    pub rfc5766_channels: bool,
    /// Are clients of RFC 3489 told their addresses?
    pub rfc3489: bool,
    /// Threads; `None`: one for each core.
    pub workers: Option<NonZeroUsize>,
    /// How long SIGTERM waits for calls to end.
    pub drain_timeout: Duration,
}

/// `[relay]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// Addresses that peers see; `None`: found by the default route.
    pub addresses: Option<Vec<IpAddr>>,
    /// Addresses that stand for a local one.
    pub external: Vec<External>,
    /// Ports of relayed addresses.
    pub ports: RangeInclusive<u16>,
    /// Is IPv6 given to who names no family, where there is no IPv4?
    pub unasked_ipv6: bool,
    /// What passes beside the payload.
    pub carry: Carry,
}

/// An address that the world sees, and the local one it is translated to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct External {
    /// What peers see.
    pub advertised: IpAddr,
    /// What sockets are bound to.
    pub local: IpAddr,
}

/// `[auth]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Shared secrets; `None` (and no users): one is made and kept in the state directory.
    pub secrets: Option<Vec<SecretSource>>,
    /// Static users.
    pub users: Vec<User>,
    /// Where the key lies that seals nonces; `None`: it is derived from the secrets.
    pub nonce_key_file: Option<SecretFile>,
    /// What becomes of a call whose credentials expire.
    pub on_expiry: OnExpiry,
    /// What clients are offered.
    pub password_algorithms: PasswordAlgorithms,
    /// Are clients to hide their names?
    pub username_anonymity: bool,
    /// Authorization servers that vouch for users, too.
    pub oauth: Option<OAuth>,
}

/// `[auth.oauth]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuth {
    /// What tokens are made for.
    pub server_name: String,
    /// What they are sealed with.
    pub keys: Vec<TokenKeySource>,
}

/// One of `[auth.oauth] keys`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKeySource {
    /// The name by which clients refer to it.
    pub kid: String,
    /// Where it lies.
    pub file: SecretFile,
    /// What it is a key for.
    pub algorithm: TokenAlgorithm,
    /// The key that names the file, for messages.
    pub key: String,
}

/// One of `[auth] secrets`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretSource {
    /// The operator's name of it.
    pub id: String,
    /// Where it lies.
    pub file: SecretFile,
    /// How passwords are made from it.
    pub algorithm: SecretAlgorithm,
    /// How they are written.
    pub encoding: PasswordEncoding,
    /// Does it vouch for claims in usernames?
    pub claims: bool,
    /// The key that names the file, for messages.
    pub key: String,
}

/// One of `[auth] users`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The username.
    pub name: String,
    /// Where the password lies.
    pub password_file: SecretFile,
    /// The key that names the file, for messages.
    pub key: String,
}

/// One of `[[tenants]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// The name, as it stands in credentials.
    pub name: String,
    /// REALM of its door; `None`: that of the server.
    pub realm: Option<String>,
    /// Its shared secrets.
    pub secrets: Vec<SecretSource>,
    /// Its static users.
    pub users: Vec<User>,
    /// The listeners that are its door.
    pub listen: Vec<(Transport, SocketAddr)>,
    /// The hosts that are its door.
    pub server_names: Vec<String>,
    /// What it may have.
    pub limits: TenantLimits,
    /// Which peers its users may reach; `None`: those of everybody.
    pub peers: Option<Peers>,
}

/// What a tenant may have; `None`: what `[limits]` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantLimits {
    /// Allocations of one user.
    pub per_user: Option<u32>,
    /// Allocations of all its users; 0: no limit.
    pub total: Option<u32>,
    /// Bits a second of one allocation, and below of one user and of all; 0: no limit.
    pub bandwidth_per_allocation: Option<u64>,
    /// Of one user.
    pub bandwidth_per_user: Option<u64>,
    /// Of all.
    pub bandwidth_total: Option<u64>,
    /// New peers in a minute of one allocation, and below of one user; 0: no limit.
    pub new_peers_per_allocation: Option<u32>,
    /// Of one user.
    pub new_peers_per_user: Option<u32>,
}

/// Where a secret lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretFile {
    /// A file that only its owner may read.
    Path(PathBuf),
    /// A credential that the service manager hands over.
    Credential(String),
}

/// `[tcp_relay]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpRelay {
    /// May clients have TCP allocations?
    pub enabled: bool,
    /// What they may do if so.
    pub rules: turn::TcpRelay,
}

/// `[redirect]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Other servers, for clients over UDP and TCP.
    pub to: Vec<SocketAddr>,
    /// Other servers, for clients over TLS and DTLS.
    pub to_tls: Vec<SocketAddr>,
    /// The name in the certificate of the other servers, if it is another one.
    pub domain: Option<String>,
    /// Are clients always sent there?
    pub always: bool,
    /// Are they while this server drains?
    pub drain: bool,
    /// Are they while there is too much to do here?
    pub overload: bool,
    /// How many allocations are too many; `None`: as many as are allowed.
    pub overload_at: Option<u32>,
}

/// `[revocation]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Can credentials be revoked? `None`: if the database can be made.
    pub enabled: Option<bool>,
    /// Where that is kept; `None`: in the state directory.
    pub database: Option<PathBuf>,
    /// For how long: at least as long as any credential is good.
    pub keep: Duration,
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where the socket lies.
    pub socket: AdminSocket,
    /// The group that may use it, by name or number.
    pub group: Option<String>,
    /// Users who may use it, likewise.
    pub users: Vec<String>,
    /// Where else the operator is listened for.
    pub listen: Option<SocketAddr>,
    /// Where the token lies that is to be shown there.
    pub token_file: Option<SecretFile>,
    /// Names that this host is asked for by there.
    pub hosts: Vec<String>,
}

/// `[admin] socket`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminSocket {
    /// In the runtime directory, or else in the state directory.
    Customary,
    /// Here.
    At(PathBuf),
    /// Nowhere.
    Off,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// What is worth a line.
    pub level: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, journal fields under systemd, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// For machines.
    Json,
    /// For the journal of systemd.
    Journal,
}

/// Reads the sources into values. Errors and warnings are in the report; with errors in it, the values are not
/// to be used.
pub(crate) fn read(sources: &Sources) -> (Config, Report) {
    let (table, report) = document::read(sources);
    let notes = section::Notes {
        report: RefCell::new(report),
        schema: RefCell::default(),
    };
    let config = schema::read(&table, &notes);
    (config, notes.report.into_inner())
}

/// Whether a static user may have this name.
pub(crate) fn is_username(name: &str) -> bool {
    schema::username(name).is_ok()
}

/// Whether this can be the realm.
pub(crate) fn is_realm(name: &str) -> bool {
    schema::realm(name).is_ok()
}

/// Reads what `[log] level` may say.
///
/// # Errors
///
/// What is wrong with it.
pub fn log_level(text: &str) -> Result<String, Complaint> {
    schema::level(text)
}

/// Every key there is, as `relay.ports`.
pub fn keys() -> Vec<String> {
    let notes = section::Notes {
        report: RefCell::default(),
        schema: RefCell::default(),
    };
    schema::read(&document::Table::default(), &notes);
    notes.schema.into_inner()
}

impl Config {
    /// The keys whose values differ and that take effect only when the server starts anew.
    pub fn needs_restart(&self, newer: &Self) -> Vec<&'static str> {
        let (carry, newer_carry) = (self.relay.carry, newer.relay.carry);
        let differs = [
            (
                "server.workers",
                self.server.workers != newer.server.workers,
            ),
            ("listen", self.listen != newer.listen),
            (
                "relay.addresses",
                self.relay.addresses != newer.relay.addresses,
            ),
            (
                "relay.external",
                self.relay.external != newer.relay.external,
            ),
            ("relay.ports", self.relay.ports != newer.relay.ports),
            ("relay.icmp", carry.icmp != newer_carry.icmp),
            ("relay.copy_dscp", carry.dscp != newer_carry.dscp),
            ("relay.copy_ecn", carry.ecn != newer_carry.ecn),
            (
                "nat_discovery.addresses",
                self.nat_discovery != newer.nat_discovery,
            ),
            ("events", self.events != newer.events),
            ("revocation", self.revocation != newer.revocation),
            // With the service itself, all that is said of it waits.
            ("token", self.token.is_on() != newer.token.is_on()),
            (
                "token.listen",
                self.token.is_on() == newer.token.is_on()
                    && self.token.listen != newer.token.listen,
            ),
            // Listeners go on to show the certificate that they have.
            ("tls", self.tls.is_some() && newer.tls.is_none()),
            ("metrics.listen", self.metrics != newer.metrics),
            ("admin.socket", self.admin.socket != newer.admin.socket),
            ("admin.group", self.admin.group != newer.admin.group),
            ("admin.users", self.admin.users != newer.admin.users),
            ("admin.listen", self.admin.listen != newer.admin.listen),
            (
                "admin.token_file",
                self.admin.token_file != newer.admin.token_file,
            ),
            ("admin.hosts", self.admin.hosts != newer.admin.hosts),
            ("log.format", self.log.format != newer.log.format),
        ];
        differs
            .into_iter()
            .filter(|(_, differs)| *differs)
            .map(|(key, _)| key)
            .collect()
    }
}
