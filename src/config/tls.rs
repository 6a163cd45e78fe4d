//! `[tls]`: all certificates together, made into what the listeners use. All of them are good, or none is taken.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

use crate::plane::{ByName, Identity};

use super::Host;
use super::certificate::{self, CertificateFiles, Objection, Pair, Stamp};
use super::problem::Complaint;

/// `[tls]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// What clients are shown that name no host, or one that no other certificate is for.
    pub default: CertificateFiles,
    /// What clients are shown that name one of their hosts.
    pub others: Vec<CertificateFiles>,
}

/// Certificates that may be used.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// Where they were read.
    pub files: Tls,
    /// What the TLS listeners use.
    pub server: Arc<ServerConfig>,
    /// What the DTLS listeners use: the default, if its key is good for them.
    pub identity: Option<Arc<Identity>>,
    /// When the first of them ends, in seconds since 1970.
    pub not_after: i64,
    /// When each of them ends.
    ends: Vec<i64>,
    /// Each of them, with its intermediates.
    chains: Vec<Vec<u8>>,
}

impl Tls {
    /// Reads all files and makes sure that they belong together and that no certificate has ended.
    ///
    /// # Errors
    ///
    /// The complaints, each with the key of `[tls]` that it is about: a file cannot be read, holds something else,
    /// may be read by others, does not fit the other of its pair, or is a certificate for no host at all.
    pub fn load(&self, host: &Host) -> Result<Certificate, Vec<(String, Complaint)>> {
        let mut complaints = Vec::new();
        let mut keys = Vec::new();
        let (mut ends, mut chains) = (Vec::new(), Vec::new());
        let mut identity = None;
        for (number, files) in self.all().enumerate() {
            let pair = files.read(host);
            if let (0, Ok(pair)) = (number, &pair) {
                identity = Identity::new(&pair.chain[0], pair.key.secret_der()).ok();
            }
            ends.extend(pair.iter().map(|pair| pair.not_after));
            let bytes = |pair: &Pair| {
                pair.chain
                    .iter()
                    .flat_map(|der| der.iter())
                    .copied()
                    .collect()
            };
            chains.extend(pair.iter().map(bytes));
            match pair.and_then(|pair| named(pair, number > 0)) {
                Ok(key) => keys.push(key),
                Err((key, complaint)) => complaints.push((key_of(number, key), complaint)),
            }
        }
        if !complaints.is_empty() {
            return Err(complaints);
        }
        let unusable = |error: rustls::Error| {
            let remedy = "ask for a new certificate with an RSA or ECDSA key";
            let what = format!("the certificates cannot be used: {error}");
            vec![("certificate".to_owned(), Complaint::new(what, remedy))]
        };
        let server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ByName::new(keys)));
        Ok(Certificate {
            files: self.clone(),
            server: Arc::new(server),
            identity: identity.map(Arc::new),
            not_after: ends.iter().copied().min().unwrap_or_default(),
            ends,
            chains,
        })
    }

    /// What the files look like from outside; compare two to see a change.
    pub fn stamp(&self) -> Vec<Stamp> {
        self.all().map(CertificateFiles::stamp).collect()
    }

    /// The default first.
    fn all(&self) -> impl Iterator<Item = &CertificateFiles> {
        [&self.default].into_iter().chain(&self.others)
    }
}

impl Certificate {
    /// A word of warning for each that ends soon, with the key of `[tls]` that it is about.
    pub fn ends_soon(&self, unix: i64) -> impl Iterator<Item = (String, Complaint)> {
        self.ends
            .iter()
            .enumerate()
            .filter_map(move |(number, not_after)| {
                let complaint = certificate::ends_soon(*not_after, unix)?;
                Some((key_of(number, "certificate"), complaint))
            })
    }
}

impl Certificate {
    /// The bytes of each, with the key of `[tls]` that names its file, and the file.
    pub(super) fn chains(&self) -> impl Iterator<Item = (String, &Path, &[u8])> {
        let files = self.files.all().zip(&self.chains).enumerate();
        files.map(|(number, (files, chain))| {
            let key = key_of(number, "certificate");
            (key, files.certificate.as_path(), chain.as_slice())
        })
    }
}

/// What is shown to clients, and the hosts it is for; there must be one if it is to be found by it.
fn named(pair: Pair, must_have_name: bool) -> Result<(Vec<String>, CertifiedKey), Objection> {
    let names: Vec<String> = EndEntityCert::try_from(&pair.chain[0])
        .map(|certificate| certificate.valid_dns_names().map(str::to_owned).collect())
        .unwrap_or_default();
    if names.is_empty() && must_have_name {
        let remedy = "ask for one with the names of its hosts in it (subjectAltName), or make it the default";
        let what = "this certificate names no host, so that nobody would ever be shown it";
        return Err(("certificate", Complaint::new(what, remedy)));
    }
    Ok((names, pair.certified()?))
}

/// The key of `[tls]` for a file of a certificate.
fn key_of(number: usize, key: &str) -> String {
    match number.checked_sub(1) {
        None => key.to_owned(),
        Some(index) => format!("others[{index}].{key}"),
    }
}
