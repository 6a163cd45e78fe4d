//! `[token]`: what it says, keys and certificate read from their files, and whether what is asked for can work.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::token::{
    self, Algorithm, Dialect, IceUrl, Issuer, KeySet, Listen, Rates, Region, ServiceKey,
};
use crate::turn::SharedSecret;

use super::assemble::Assembly;
use super::problem::Complaint;
use super::secrets::{self, SHORT_SECRET, Secret};
use super::tls::{Certificate, Tls};
use super::{CertificateFiles, SecretFile};

/// Each is compared with what comes in.
const MOST_KEYS: usize = 64;
const MOST_ISSUERS: usize = 16;

/// `[token]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Where it listens; nowhere: it is off.
    pub listen: Vec<Listen>,
    /// Its certificate; that of `[tls]` without one.
    pub certificate: Option<CertificateFiles>,
    /// What is handed out; none: by the listeners.
    pub urls: Vec<IceUrl>,
    /// What is handed out to those who choose a region.
    pub regions: Vec<Region>,
    /// How long a credential is good if nothing is said.
    pub ttl: Duration,
    /// And at most.
    pub max_ttl: Duration,
    /// What it understands beside its own.
    pub dialects: Vec<Dialect>,
    /// The pages that may ask.
    pub origins: Vec<String>,
    /// Keys of backends.
    pub api_keys: Vec<ApiKeySource>,
    /// Who signs the tokens of users.
    pub issuers: Vec<IssuerSource>,
    /// How often it may be asked.
    pub rates: Rates,
    /// Reverse proxies that are believed.
    pub proxies: Vec<IpNet>,
}

impl Token {
    /// Is there a token service at all?
    pub(super) fn is_on(&self) -> bool {
        !self.listen.is_empty()
    }
}

/// One of `[token] api_keys`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeySource {
    /// The operator's name of it.
    pub id: String,
    /// Where it lies.
    pub file: SecretFile,
    /// Whose it is; empty without tenants.
    pub tenant: String,
    /// May it have credentials made?
    pub issues: bool,
    /// May it take them back?
    pub revokes: bool,
    /// How long its credentials are good at most.
    pub max_ttl: Option<Duration>,
    /// The key that names the file, for messages.
    pub key: String,
}

/// One of `[token] issuers`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerSource {
    /// `iss`
    pub name: String,
    /// What must be in `aud`.
    pub audience: String,
    /// What it signs with: all of them with a shared key, or none.
    pub algorithms: Vec<Algorithm>,
    /// Where its keys are.
    pub keys: IssuerKeys,
    /// The claim that names the tenant.
    pub tenant_claim: Option<String>,
    /// The tenant of tokens without it; empty without tenants.
    pub tenant: String,
    /// What its tokens must be good for.
    pub scopes: Vec<String>,
    /// How much its clock may differ.
    pub leeway: Duration,
    /// The key that names the keys, for messages.
    pub key: String,
}

impl IssuerSource {
    /// Does it sign with a key that is shared with it?
    pub(crate) fn is_shared(&self) -> bool {
        let shared = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
        let mut algorithms = self.algorithms.iter();
        algorithms.any(|algorithm| shared.contains(algorithm))
    }
}

/// Where the keys of an issuer are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssuerKeys {
    /// Behind a URL.
    Url(String),
    /// In a file.
    File(SecretFile),
}

/// What the token service is told.
pub struct TokenParts {
    /// Where it listens.
    pub listen: Vec<Listen>,
    /// What it does. Without regions where clients find the relay is derived from its listeners.
    pub settings: token::Settings,
    /// Its own certificate; that of `[tls]` without one.
    pub certificate: Option<Certificate>,
}

impl Assembly<'_> {
    /// What the token service is told, if there is one. What cannot work is in the report.
    pub(super) fn token(&mut self, secrets: &[SharedSecret]) -> Option<TokenParts> {
        let token = &self.config.token;
        if token.listen.is_empty() {
            for key in ["token.api_keys", "token.issuers"] {
                if self.report.is_given(key) {
                    let remedy = "add listen = [\"http://127.0.0.1:8089\"] to [token]";
                    self.warning(key, "the token service listens nowhere", remedy);
                }
            }
            return None;
        }
        self.check_token();
        let certificate = self.token_certificate();
        let keys = token.api_keys.iter();
        let keys: Vec<ServiceKey> = keys.filter_map(|source| self.api_key(source)).collect();
        let issuers = token.issuers.iter();
        let issuers: Vec<Issuer> = issuers.filter_map(|source| self.issuer(source)).collect();
        let Some(secret) = secrets.first() else {
            if !self.report.has_errors() {
                let remedy = "add one under [auth] secrets; users with a password of their own need no token service";
                self.error(
                    "token.listen",
                    "there is no shared secret to make credentials with",
                    remedy,
                );
            }
            return None;
        };
        let own = Region {
            name: None,
            urls: token.urls.clone(),
        };
        let own = (!token.urls.is_empty()).then_some(own);
        Some(TokenParts {
            listen: token.listen.clone(),
            certificate,
            settings: token::Settings {
                realm: self.config.server.realm.clone(),
                secret: secret.clone(),
                regions: own.into_iter().chain(token.regions.clone()).collect(),
                ttl: token.ttl.as_secs(),
                max_ttl: token.max_ttl.as_secs(),
                dialects: token.dialects.clone(),
                origins: token.origins.clone(),
                keys,
                issuers,
                rates: token.rates,
                proxies: token.proxies.clone(),
                tenants: self
                    .config
                    .tenants
                    .iter()
                    .map(|tenant| tenant.name.clone())
                    .collect(),
            },
        })
    }

    fn check_token(&mut self) {
        let token = &self.config.token;
        let remedy =
            "add api_keys for backends, or issuers for users with a token of their login service";
        if token.api_keys.is_empty() && token.issuers.is_empty() && !self.report.has_errors() {
            self.error(
                "token.listen",
                "nobody could ask the token service for anything: it knows no key and no issuer",
                remedy,
            );
        }
        for (key, number, most) in [
            ("token.api_keys", token.api_keys.len(), MOST_KEYS),
            ("token.issuers", token.issuers.len(), MOST_ISSUERS),
        ] {
            if number > most {
                self.error(key, format!("there may be at most {most}"), "take some out");
            }
        }
        for place in &token.listen {
            if let Listen::Http(address) = place
                && !address.ip().is_loopback()
            {
                let remedy = "see to it that only a proxy with TLS gets there, or write https://";
                self.warning(
                    "token.listen",
                    format!("tokens and passwords come and go unencrypted at {address}"),
                    remedy,
                );
            }
        }
        if token.proxies.iter().any(|prefix| prefix.prefix_len() == 0) {
            let what = "whoever asks can pretend to come from anywhere";
            let remedy = "name the addresses of your proxies, and of nobody else";
            self.warning("token.proxies", what, remedy);
        }
        if token.certificate.is_some() && !token.speaks_https() {
            let what = "there is a certificate, but https:// is not listened for";
            let remedy = "write https:// under listen, or take the certificate out";
            self.warning("token.certificate", what, remedy);
        }
        self.check_callers();
    }

    /// Whether callers could be given what is said of them.
    fn check_callers(&mut self) {
        let config = self.config;
        let token = &config.token;
        for (index, key) in token.api_keys.iter().enumerate() {
            let here = |name: &str| format!("token.api_keys[{index}].{name}");
            if key.max_ttl.is_some_and(|ttl| ttl > token.max_ttl) {
                let what = "this is never reached: token.max_ttl allows less";
                self.warning(&here("max_ttl"), what, "lower it, or raise token.max_ttl");
            }
            if key.revokes && config.revocation.enabled == Some(false) {
                let what = "there is nothing to revoke with: [revocation] is switched off";
                let remedy = "take enabled = false out of [revocation], or the scope out here";
                self.warning(&here("scopes"), what, remedy);
            }
        }
        let keys = token.api_keys.iter().map(|key| !key.tenant.is_empty());
        let issuers = token.issuers.iter();
        let issuers = issuers.map(|one| !one.tenant.is_empty() || one.tenant_claim.is_some());
        let names_tenant = keys.chain(issuers).any(|names| names);
        let mut first = config.auth.secrets.iter().flatten().take(1);
        if names_tenant && first.any(|secret| !secret.claims) {
            let what = "the tenants that [token] names are not in the credentials: this secret does not vouch for claims";
            self.warning("auth.secrets[0]", what, "add claims = true to it");
        }
    }

    /// Does the token service use the certificate of `[tls]`?
    pub(super) fn token_uses_tls(&self) -> bool {
        let token = &self.config.token;
        token.certificate.is_none() && token.speaks_https()
    }

    fn token_certificate(&mut self) -> Option<Certificate> {
        let Some(files) = &self.config.token.certificate else {
            if self.token_uses_tls() && self.config.tls.is_none() {
                let remedy = "add certificate and key here, or a [tls] table with them";
                self.error(
                    "token.listen",
                    "there is https among these, but no certificate",
                    remedy,
                );
            }
            return None;
        };
        let files = Tls {
            default: files.clone(),
            others: Vec::new(),
        };
        self.load_certificate("token", &files)
    }

    fn api_key(&mut self, source: &ApiKeySource) -> Option<ServiceKey> {
        let secret = self.read_secret(&source.key, &source.file)?;
        self.check_length(&source.key, &secret);
        let mut key = ServiceKey::new(&source.id, &source.tenant, &secret);
        key.issues = source.issues;
        key.revokes = source.revokes;
        key.max_ttl = source.max_ttl.map(|ttl| ttl.as_secs());
        Some(key)
    }

    /// Anybody may try keys over the network.
    fn check_length(&mut self, key: &str, secret: &[u8]) {
        if secret.len() < SHORT_SECRET {
            let what = format!("this key has {} bytes: it can be guessed", secret.len());
            let remedy = "put a longer one into the file: `turnd genkey` prints one";
            self.error(key, what, remedy);
        }
    }

    fn issuer(&mut self, source: &IssuerSource) -> Option<Issuer> {
        Some(Issuer {
            keys: self.issuer_keys(source)?,
            name: source.name.clone(),
            audience: source.audience.clone(),
            algorithms: source.algorithms.clone(),
            tenant_claim: source.tenant_claim.clone(),
            tenant: source.tenant.clone(),
            scopes: source.scopes.clone(),
            leeway: source.leeway.as_secs(),
        })
    }

    fn issuer_keys(&mut self, source: &IssuerSource) -> Option<KeySet> {
        let file = match &source.keys {
            IssuerKeys::Url(url) => return KeySet::remote(url),
            IssuerKeys::File(file) => file,
        };
        if source.is_shared() {
            let secret = self.read_secret(&source.key, file)?;
            self.check_length(&source.key, &secret);
            return Some(KeySet::shared(&secret));
        }
        let text = match file {
            // Public keys are no secret: anybody may read them.
            SecretFile::Path(path) => read_public(path),
            SecretFile::Credential(_) => secrets::read(file, self.host),
        };
        let text = text
            .map_err(|complaint| self.report.error(&source.key, complaint))
            .ok()?;
        self.contents.note(&source.key, file, &text, self.host);
        let keys = std::str::from_utf8(&text).ok().and_then(KeySet::public);
        if keys.is_none() {
            let remedy = "put a JSON Web Key Set into the file, or a public key as PEM (openssl pkey -pubout)";
            self.error(&source.key, "there is no public key in the file", remedy);
        }
        keys
    }
}

impl Token {
    fn speaks_https(&self) -> bool {
        let mut places = self.listen.iter();
        places.any(|place| matches!(place, Listen::Https(_)))
    }
}

/// Anybody may read public keys. Who may change them may log in as everybody.
fn read_public(path: &Path) -> Result<Secret, Complaint> {
    const WRITABLE_BY_OTHERS: u32 = 0o002;
    let file = secrets::open(path)?;
    let mode = file.metadata().map_or(0, |found| found.mode());
    if mode & WRITABLE_BY_OTHERS != 0 {
        let shown = path.display();
        let what = format!(
            "{shown} may be written by anybody (mode {:04o})",
            mode & 0o7777
        );
        return Err(Complaint::new(what, format!("chmod o-w {shown}")));
    }
    secrets::read_limited(path, file)
}

impl TokenParts {
    /// What its TLS listeners show: its own certificate, or that of the relay.
    pub fn tls<'c>(&'c self, relay: Option<&'c Certificate>) -> Option<&'c Certificate> {
        let speaks_tls = |place: &Listen| matches!(place, Listen::Https(_));
        self.certificate
            .as_ref()
            .or(relay)
            .filter(|_| self.listen.iter().any(speaks_tls))
    }
}

impl Certificate {
    /// The TLS side of it.
    pub fn tls(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.server)
    }
}
