//! From what the operator asked for to the `Settings` of each part: reads secrets and certificates, finds
//! addresses, and checks what no single key can tell.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::plane::{self, Listen, RelayAddress, RelayRange};
use crate::turn::{self, NonceKey, NonceKeys, SharedSecret, Transport, Users};

use super::certificate::Certificate;
use super::document::Sources;
use super::host::{self, FoundBy, Host};
use super::problem::{Complaint, Report};
use super::secrets::{self, OWN_SECRET, SHORT_SECRET, Secret};
use super::{Auth, Config, SecretFile, SecretSource, password_weakness};

/// The port of STUN and TURN (RFC 8656 §18.5).
const TURN_PORT: u16 = 3478;
/// Descriptors that are neither relay nor client: logs, metrics, epoll, and some to spare.
const SPARE_DESCRIPTORS: u64 = 256;
/// The file in the state directory from which nonces of servers without shared secrets are sealed.
const OWN_NONCE_KEY: &str = "nonce-key";
/// What a nonce key is derived with, so that it tells nothing about the secret it is derived from.
const NONCE_KEY_LABEL: &[u8] = b"turnd nonce key, version 1";

/// A configuration that may be used.
pub struct Loaded {
    /// What the operator asked for.
    pub config: Config,
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
    /// For the TLS listeners.
    pub certificate: Option<Certificate>,
    /// Secrets that credentials are minted with; the first is the one to use.
    pub secrets: Vec<SharedSecret>,
    /// Was the secret made by the server?
    pub own_secret: bool,
    /// How the relay addresses were found; nothing if they are configured.
    pub found_by: Option<FoundBy>,
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
    };
    let listeners = assembly.listeners();
    let (relay, found_by) = assembly.relay();
    let credentials = assembly.credentials();
    let certificate = assembly.certificate(&listeners);
    assembly.check_limits(&relay, &listeners);
    assembly.check_exposure();
    let report = assembly.report;
    let Some(Credentials {
        users,
        secrets,
        nonce_keys,
        own_secret,
    }) = credentials.filter(|_| !report.has_errors())
    else {
        return Err(report);
    };
    let turn = turn::Settings {
        users,
        nonce_keys,
        password_algorithms: config.auth.password_algorithms,
        on_expiry: config.auth.on_expiry,
        software: config
            .server
            .software
            .then(|| concat!("turnd ", env!("CARGO_PKG_VERSION")).to_owned()),
        max_lifetime: config.max_lifetime,
        limits: config.limits,
        peers: config.peers.clone(),
    };
    let workers = config.server.workers.unwrap_or(host.cores).get();
    let streams_per_worker = streams_per_worker(host.descriptors, workers, listeners.len());
    let plane = plane::Settings {
        workers,
        listeners,
        relay,
        streams_per_worker,
    };
    let parts = Parts {
        turn: Arc::new(turn),
        plane,
        certificate,
        secrets,
        own_secret,
        found_by,
    };
    Ok(Loaded {
        config,
        parts,
        report,
    })
}

/// A client on a stream takes two descriptors, one of them for its relay: half of what there is may be streams.
fn streams_per_worker(descriptors: u64, workers: usize, listeners: usize) -> usize {
    let spoken_for = SPARE_DESCRIPTORS + (workers * listeners) as u64;
    let streams = descriptors.saturating_sub(spoken_for) / 2 / workers as u64;
    usize::try_from(streams)
        .unwrap_or(usize::MAX)
        .clamp(16, 1 << 20)
}

/// What [`Assembly::credentials`] found.
struct Credentials {
    users: Users,
    secrets: Vec<SharedSecret>,
    nonce_keys: NonceKeys,
    own_secret: bool,
}

/// The work of [`load`]: one configuration on one host, and what is wrong with it.
struct Assembly<'a> {
    config: &'a Config,
    host: &'a Host,
    report: Report,
}

impl Assembly<'_> {
    fn error(&mut self, key: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.report.error(key, Complaint::new(what, remedy));
    }

    fn warning(&mut self, key: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.report.warning(key, Complaint::new(what, remedy));
    }

    fn listeners(&mut self) -> Vec<Listen> {
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
                [Transport::Udp, Transport::Tcp].map(|transport| Listen { address, transport })
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
    fn translated(&self, address: IpAddr) -> RelayAddress {
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

    fn check_relay_addresses(&mut self, addresses: &[RelayAddress], detected: bool) {
        let key = if self.config.relay.addresses.is_some() {
            "relay.addresses"
        } else {
            "relay.external"
        };
        for (index, RelayAddress { local, advertised }) in addresses.iter().enumerate() {
            if local.is_unspecified()
                || local.is_multicast()
                || advertised.is_unspecified()
                || advertised.is_multicast()
            {
                let remedy = "name an address of this host that clients can reach, or leave the key out to have it detected";
                self.error(
                    key,
                    format!("{local} is not an address to relay from"),
                    remedy,
                );
            } else if addresses[..index]
                .iter()
                .any(|other| other.local.is_ipv4() == local.is_ipv4())
            {
                let remedy = "take it out; relays are opened on one IPv4 and one IPv6 address";
                self.warning(
                    key,
                    format!(
                        "{advertised} is not used: there is another address of its family before it"
                    ),
                    remedy,
                );
            } else if !detected && advertised.is_loopback() {
                let remedy = "name an address that clients can reach";
                self.warning(
                    key,
                    format!("{advertised} can be reached from this host alone"),
                    remedy,
                );
            } else if !detected && is_private(*advertised) {
                let remedy = format!(
                    "if there is a NAT in front of this host, add external = [\"ITS-ADDRESS={local}\"]"
                );
                self.warning(
                    key,
                    format!("{advertised} is a private address: peers outside cannot reach it"),
                    remedy,
                );
            }
        }
    }

    fn credentials(&mut self) -> Option<Credentials> {
        let Auth { secrets, users, .. } = &self.config.auth;
        let own_secret = secrets.is_none() && users.is_empty();
        let mut bytes = Vec::new();
        if own_secret {
            let source = SecretSource {
                id: "own".to_owned(),
                file: SecretFile::Path(self.host.state.path(OWN_SECRET)),
                algorithm: turn::SecretAlgorithm::Sha1,
            };
            match self.host.state.secret(OWN_SECRET, self.host) {
                Ok(secret) => bytes.push((source, secret)),
                Err(complaint) => self.report.error("auth.secrets", complaint),
            }
        }
        for (index, source) in secrets.iter().flatten().enumerate() {
            bytes.extend(
                self.shared_secret(index, source)
                    .map(|secret| (source.clone(), secret)),
            );
        }
        let mut table = Users::new(&self.config.server.realm);
        let mut shared = Vec::new();
        for (source, secret) in &bytes {
            let secret = SharedSecret::new(&source.id, secret, source.algorithm);
            shared.push(secret.clone());
            if let Err(error) = table.add_secret(secret) {
                self.error("auth.secrets", error.to_string(), "take the oldest one out");
                break;
            }
        }
        self.add_users(&mut table);
        if bytes.is_empty() && users.is_empty() && !self.report.has_errors() {
            self.error(
                "auth.secrets",
                "nobody could log in: there is no secret and no user",
                "leave the key out to have a secret made, or name one",
            );
        }
        let keys: Vec<&Secret> = bytes.iter().map(|(_, secret)| secret).collect();
        Some(Credentials {
            users: table,
            secrets: shared,
            nonce_keys: self.nonce_keys(&keys),
            own_secret,
        })
    }

    fn shared_secret(&mut self, index: usize, source: &SecretSource) -> Option<Secret> {
        let key = format!("auth.secrets[{index}].file");
        match secrets::read(&source.file, self.host) {
            Ok(secret) => {
                if secret.len() < SHORT_SECRET {
                    let what = format!(
                        "this secret has {} bytes: who hears one login can guess it",
                        secret.len()
                    );
                    self.warning(
                        &key,
                        what,
                        "put a longer one into the file: `turnd genkey` prints one",
                    );
                }
                Some(secret)
            }
            Err(complaint) => {
                self.report.error(&key, complaint);
                None
            }
        }
    }

    fn add_users(&mut self, table: &mut Users) {
        for (index, user) in self.config.auth.users.iter().enumerate() {
            let key = format!("auth.users[{index}].password_file");
            let password = match secrets::read(&user.password_file, self.host) {
                Ok(password) => password,
                Err(complaint) => {
                    self.report.error(&key, complaint);
                    continue;
                }
            };
            let Ok(text) = std::str::from_utf8(&password) else {
                self.error(
                    &key,
                    "the password is not text",
                    "`turnd genkey` prints a good one",
                );
                continue;
            };
            if let Some(weakness) = password_weakness(&user.name, &password) {
                let remedy = "`turnd genkey` prints a good one; better still, hand out time-limited credentials from a shared secret";
                self.error(&key, weakness, remedy);
            }
            table.add_user(&user.name, text);
        }
    }

    /// Keys that hold across restarts and are the same for all servers with the same secrets.
    fn nonce_keys(&mut self, secrets: &[&Secret]) -> NonceKeys {
        let mut keys = secrets.iter().map(|secret| derive_nonce_key(secret));
        if let Some(issuing) = keys.next() {
            return NonceKeys {
                issuing,
                accepted: keys.collect(),
            };
        }
        let kept = self.host.state.secret(OWN_NONCE_KEY, self.host);
        NonceKeys::from(match kept {
            Ok(secret) => derive_nonce_key(&secret),
            // Only a restart is noticed: running clients are asked to try again with a fresh nonce.
            Err(_) => derive_nonce_key(&self.host.process_key),
        })
    }

    fn certificate(&mut self, listeners: &[Listen]) -> Option<Certificate> {
        let tls = listeners
            .iter()
            .position(|listener| listener.transport == Transport::Tls);
        let Some(files) = &self.config.tls else {
            if let (Some(index), false) = (
                tls,
                self.report.is_given("tls.certificate") || self.report.is_given("tls.key"),
            ) {
                let remedy =
                    "add a [tls] table with certificate = \"cert.pem\" and key = \"key.pem\"";
                self.error(
                    &format!("listen[{index}].transport"),
                    "this listener speaks TLS, but there is no certificate",
                    remedy,
                );
            }
            return None;
        };
        if tls.is_none() {
            let remedy =
                "add a [[listen]] with transport = \"tls\", customarily on port 5349 or 443";
            self.warning(
                "tls.certificate",
                "there is a certificate, but nothing listens for TLS",
                remedy,
            );
        }
        match files.load_or_object(self.host) {
            Ok(certificate) => {
                if let Some(complaint) = certificate.ends_soon(self.host.unix) {
                    self.report.warning("tls.certificate", complaint);
                }
                Some(certificate)
            }
            Err((key, complaint)) => {
                self.report.error(&format!("tls.{key}"), complaint);
                None
            }
        }
    }

    fn check_limits(&mut self, relay: &RelayRange, listeners: &[Listen]) {
        let ports = relay.ports.len() as u64;
        let families = u64::from(relay.addresses.iter().any(|relay| relay.local.is_ipv4()))
            + u64::from(relay.addresses.iter().any(|relay| relay.local.is_ipv6()));
        let capacity = ports * families.max(1);
        let (total, per_user) = (
            u64::from(self.config.limits.total),
            u64::from(self.config.limits.per_user),
        );
        if self.report.is_given("limits.total") && total > capacity {
            let what = format!(
                "{total} allocations are allowed, but there are only {capacity} relay ports"
            );
            self.warning(
                "limits.total",
                what,
                "widen [relay] ports, or lower this limit",
            );
        }
        if per_user > capacity {
            let what =
                format!("{capacity} relay ports are fewer than one user may take ({per_user})");
            self.warning(
                "relay.ports",
                what,
                "widen the range, or lower [limits] per_user",
            );
        }
        let workers = self.config.server.workers.unwrap_or(self.host.cores).get();
        let need = ports + (workers * listeners.len()) as u64 + SPARE_DESCRIPTORS;
        if need > self.host.descriptors {
            let what = format!(
                "{need} descriptors are needed when every relay port is in use, but the limit is {}",
                self.host.descriptors
            );
            self.warning("relay.ports", what, format!("raise it with LimitNOFILE={need} (systemd) or ulimit -n, or narrow [relay] ports"));
        }
        for listener in listeners {
            if relay.ports.contains(&listener.address.port()) && self.config.listen.is_some() {
                let what = format!(
                    "clients come in at port {}, which lies among the relay ports",
                    listener.address.port()
                );
                self.warning("relay.ports", what, "choose a port outside [relay] ports");
            }
        }
        if self.config.max_lifetime.as_secs() < 600 {
            let remedy = "write at least \"10m\": clients take a shorter lifetime for a mistake";
            self.warning(
                "limits.max_lifetime",
                "allocations are to live for less than ten minutes",
                remedy,
            );
        }
    }

    fn check_exposure(&mut self) {
        let wide = |prefix: &ipnet::IpNet| {
            prefix.prefix_len() < if prefix.addr().is_ipv4() { 8 } else { 7 }
        };
        if let Some(prefix) = self
            .config
            .peers
            .allow
            .iter()
            .find(|prefix| wide(prefix))
            .copied()
        {
            let remedy = "name the prefixes of the peers that are meant, and no others";
            self.warning(
                "peers.allow",
                format!("{prefix} opens the private networks around this host to every user"),
                remedy,
            );
        }
        if let Some(address) = self.config.metrics
            && !address.ip().is_loopback()
            && !is_private(address.ip())
        {
            let remedy = "listen on 127.0.0.1 or an address of a private network, or see to it that a firewall stands before it";
            self.warning(
                "metrics.listen",
                format!("whoever reaches {address} can read the metrics"),
                remedy,
            );
        }
    }
}

fn derive_nonce_key(secret: &[u8]) -> NonceKey {
    let mac = <Hmac<Sha256>>::new_from_slice(secret).expect("an HMAC key has any length");
    NonceKey(
        mac.chain_update(NONCE_KEY_LABEL)
            .finalize()
            .into_bytes()
            .into(),
    )
}

/// An address that is of use behind a NAT alone.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_private()
                || v4.is_link_local()
                || (v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}
