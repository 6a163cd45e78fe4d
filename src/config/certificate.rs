//! The TLS certificate: read, checked against its key and the calendar, made into what the listeners use.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::plane::Identity;

use super::problem::Complaint;
use super::secrets;
use super::{Host, SecretFile};

/// How long before its end a certificate is warned about.
const EXPIRY_NOTICE: i64 = 14 * 24 * 3600;

/// `[tls]`: where the certificate and its key lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, followed by its intermediates, as PEM.
    pub certificate: PathBuf,
    /// Its private key, as PEM.
    pub key: SecretFile,
}

/// A certificate that may be used.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// Where it was read.
    pub files: CertificateFiles,
    /// What the TLS listeners use.
    pub server: Arc<ServerConfig>,
    /// What the DTLS listeners use, if its key is good for them.
    pub identity: Option<Arc<Identity>>,
    /// When it ends, in seconds since 1970.
    pub not_after: i64,
}

/// Changes whenever one of the files does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp([Option<(u64, u64, i64, i64)>; 2]);

/// A complaint, and the key of `[tls]` that it is about.
pub(super) type Objection = (&'static str, Complaint);

impl CertificateFiles {
    /// Reads both files and makes sure that they belong together and that the certificate has not ended.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, holds something else, may be read by others, or does not fit the other.
    pub fn load(&self, host: &Host) -> Result<Certificate, Complaint> {
        self.load_or_object(host)
            .map_err(|(_, complaint)| complaint)
    }

    pub(super) fn load_or_object(&self, host: &Host) -> Result<Certificate, Objection> {
        let chain =
            read_chain(&self.certificate).map_err(|complaint| ("certificate", complaint))?;
        let key = read_key(&self.key, host).map_err(|complaint| ("key", complaint))?;
        let not_after = chain
            .first()
            .and_then(|certificate| validity_end(certificate))
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
        let identity = Identity::new(&chain[0], key.secret_der()).ok();
        let server = server_config(chain, key).map_err(|error| ("key", explain(&error)))?;
        Ok(Certificate {
            files: self.clone(),
            server: Arc::new(server),
            identity: identity.map(Arc::new),
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

impl Certificate {
    /// A word of warning if it ends soon.
    pub fn ends_soon(&self, unix: i64) -> Option<Complaint> {
        let left = self.not_after - unix;
        (left < EXPIRY_NOTICE).then(|| {
            let remedy = "renew it; the files are read again when they change, without a restart";
            Complaint::new(format!("the certificate ends in {}", days(left)), remedy)
        })
    }
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
    let text = fs::read(path).map_err(|error| {
        Complaint::new(
            format!("{} cannot be read: {error}", path.display()),
            remedy,
        )
    })?;
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

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
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

/// The end of the validity of an X.509 certificate, in seconds since 1970 (RFC 5280 §4.1).
fn validity_end(certificate: &[u8]) -> Option<i64> {
    let (_, whole, _) = element(certificate)?;
    let (_, mut fields, _) = element(whole)?;
    // version [0] (may be absent), serialNumber, signature, issuer; then validity.
    let first = element(fields)?;
    if first.0 == 0xa0 {
        fields = first.2;
    }
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (_, validity, _) = element(fields)?;
    let (_, _, after) = element(validity)?;
    let (tag, time, _) = element(after)?;
    moment(tag, time)
}

/// Splits off one DER element: its tag, its content, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        let length = digits.iter().try_fold(0_usize, |length, digit| {
            length.checked_mul(256)?.checked_add(usize::from(*digit))
        })?;
        (length, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// UTCTime `YYMMDDHHMMSSZ` or GeneralizedTime `YYYYMMDDHHMMSSZ`.
fn moment(tag: u8, text: &[u8]) -> Option<i64> {
    const UTC_TIME: u8 = 0x17;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = if tag == UTC_TIME {
        let year: i64 = text.get(..2)?.parse().ok()?;
        (
            if year < 50 { 2000 + year } else { 1900 + year },
            text.get(2..)?,
        )
    } else {
        (text.get(..4)?.parse().ok()?, text.get(4..)?)
    };
    let part = |from: usize| rest.get(from..from + 2)?.parse::<i64>().ok();
    let (month, day) = (part(0)?, part(2)?);
    Some(days_since_1970(year, month, day) * 86_400 + part(4)? * 3600 + part(6)? * 60 + part(8)?)
}

/// Days from 1970-01-01 in the Gregorian calendar; the year is counted from March, so that the leap day ends it.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year
        - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_from_1970() {
        for (date, days) in [
            ((1970, 1, 1), 0),
            ((1969, 12, 31), -1),
            ((2000, 2, 29), 11_016),
            ((2000, 3, 1), 11_017),
            ((2026, 11, 22), 20_779),
        ] {
            assert_eq!(days_since_1970(date.0, date.1, date.2), days, "{date:?}");
        }
    }

    #[test]
    fn both_kinds_of_time_are_read() {
        assert_eq!(moment(0x17, b"700101000001Z"), Some(1));
        assert_eq!(moment(0x17, b"491231235959Z"), Some(2_524_607_999));
        assert_eq!(moment(0x18, b"20500101000000Z"), Some(2_524_608_000));
        assert_eq!(moment(0x18, b"2050"), None);
    }

    #[test]
    fn the_end_of_a_certificate_is_found() {
        let mut parameters =
            rcgen::CertificateParams::new(vec!["turn.example.org".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(2041, 5, 6);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        assert_eq!(
            validity_end(certificate.der()),
            Some(days_since_1970(2041, 5, 6) * 86_400)
        );
    }

    #[test]
    fn cut_off_bytes_are_no_certificate() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default()
            .self_signed(&key)
            .unwrap();
        let der = certificate.der();
        for length in 0..200.min(der.len()) {
            assert_eq!(validity_end(&der[..length]), None);
        }
    }
}
