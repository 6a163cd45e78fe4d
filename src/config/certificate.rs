//! A certificate: read, checked against its key and the calendar.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::problem::Complaint;
use super::secrets;
use super::{Host, SecretFile, validity};

/// How long before its end a certificate is warned about.
const EXPIRY_NOTICE: i64 = 14 * 24 * 3600;

/// Where a certificate and its key lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, followed by its intermediates, as PEM.
    pub certificate: PathBuf,
    /// Its private key, as PEM.
    pub key: SecretFile,
}

/// A certificate and its key, as read.
pub(super) struct Pair {
    /// The certificate, followed by its intermediates.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    /// When the certificate ends, in seconds since 1970.
    pub(super) not_after: i64,
}

/// Changes whenever one of the files does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp([Option<(u64, u64, i64, i64)>; 2]);

/// A complaint, and which of the two files it is about, by the name of its key.
pub(super) type Objection = (&'static str, Complaint);

impl CertificateFiles {
    /// Reads both files and makes sure that the certificate has not ended.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, holds something else, or may be read by others.
    pub(super) fn read(&self, host: &Host) -> Result<Pair, Objection> {
        let chain =
            read_chain(&self.certificate).map_err(|complaint| ("certificate", complaint))?;
        let key = read_key(&self.key, host).map_err(|complaint| ("key", complaint))?;
        let not_after = chain
            .first()
            .and_then(|certificate| validity::end(certificate))
            .ok_or_else(|| {
                (
                    "certificate",
                    Complaint::new(
                        "the certificate does not say how long it is good",
                        "ask for a new one",
                    ),
                )
            })?;
        if not_after <= host.unix {
            let what = format!("the certificate ended {} ago", days(host.unix - not_after));
            return Err((
                "certificate",
                Complaint::new(
                    what,
                    "put a renewed certificate in its place; no client would accept this one",
                ),
            ));
        }
        Ok(Pair {
            chain,
            key,
            not_after,
        })
    }

    /// What the files look like from outside; compare two to see a change.
    pub fn stamp(&self) -> Stamp {
        // A credential does not change while the process lives.
        let key = match &self.key {
            SecretFile::Path(path) => Some(path),
            SecretFile::Credential(_) => None,
        };
        Stamp([Some(&self.certificate), key].map(|path| {
            let found = fs::metadata(path?).ok()?;
            Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
        }))
    }
}

/// A word of warning if a certificate ends soon.
pub(super) fn ends_soon(not_after: i64, unix: i64) -> Option<Complaint> {
    let left = not_after - unix;
    (left < EXPIRY_NOTICE).then(|| {
        let remedy = "renew it; the files are read again when they change, without a restart";
        Complaint::new(format!("the certificate ends in {}", days(left)), remedy)
    })
}

fn days(seconds: i64) -> String {
    match seconds / (24 * 3600) {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Complaint> {
    let remedy =
        "give the path of a PEM file with the certificate first and its intermediates behind it";
    let text = secrets::open(path)
        .and_then(|file| secrets::read_limited(path, file))
        .map_err(|complaint| Complaint::new(complaint.what, remedy))?;
    let chain = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| {
        Complaint::new(format!("{} is broken: {error}", path.display()), remedy)
    })?;
    if chain.is_empty() {
        return Err(Complaint::new(
            format!("{} holds no certificate", path.display()),
            remedy,
        ));
    }
    Ok(chain)
}

fn read_key(file: &SecretFile, host: &Host) -> Result<PrivateKeyDer<'static>, Complaint> {
    let text = secrets::read(file, host)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        let what = "there is no private key in it that can be read";
        let remedy = "give the path of a PEM file with an unencrypted key (PKCS#8, PKCS#1 or SEC1)";
        Complaint::new(what, remedy)
    })
}

impl Pair {
    /// What is shown to clients, made sure that certificate and key belong together.
    pub(super) fn certified(self) -> Result<CertifiedKey, Objection> {
        CertifiedKey::from_der(self.chain, self.key, &aws_lc_rs::default_provider())
            .map_err(|error| ("key", explain(&error)))
    }
}

fn explain(error: &rustls::Error) -> Complaint {
    if let rustls::Error::InconsistentKeys(_) = error {
        let remedy = "name the key that the certificate was made for, and put the certificate itself before its intermediates";
        return Complaint::new("the key does not belong to the certificate", remedy);
    }
    Complaint::new(
        format!("certificate and key cannot be used: {error}"),
        "ask for a new certificate with an RSA or ECDSA key",
    )
}
