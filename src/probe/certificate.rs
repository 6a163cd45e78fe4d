//! What a certificate says, and whether it is to be believed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, RootCertStore};
use webpki::EndEntityCert;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::fault::Distrust;
use super::report::{Certified, Session};

const SECONDS_A_DAY: i64 = 86_400;
/// Names of a certificate that are told; some have thousands.
const MOST_NAMES: usize = 16;
/// Certificates of a chain that are told.
const MOST_CERTIFICATES: usize = 8;

/// Whom this system trusts, and what day it is.
pub struct Trust {
    verifier: Option<Arc<WebPkiServerVerifier>>,
    unix: i64,
}

impl Trust {
    /// Trusts whom the system trusts, and those in the file `more` (PEM).
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or holds no certificate.
    pub fn new(more: Option<&Path>, unix: i64) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = more {
            let shown = path.display();
            let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect)
                .map_err(|error| format!("{shown} cannot be read: {error}"));
            let (added, _) = roots.add_parsable_certificates(found?);
            if added == 0 {
                return Err(format!(
                    "there is no certificate in {shown}: it must be PEM"
                ));
            }
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        // Without any root there is nobody to be trusted.
        let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        Ok(Self {
            verifier: built.ok(),
            unix,
        })
    }

    /// What a server has shown, and what speaks against it as the certificate of `name`; without a name, of the
    /// first host that it names.
    pub(super) fn examine(
        &self,
        chain: &[CertificateDer<'_>],
        name: Option<&ServerName<'static>>,
    ) -> Session {
        let told: Vec<Certified> = chain
            .iter()
            .take(MOST_CERTIFICATES)
            .filter_map(|der| describe(der, self.unix))
            .collect();
        let own_name = || {
            let first = told.first()?.names.first()?;
            ServerName::try_from(first.replacen('*', "any", 1)).ok()
        };
        let name = name.cloned().or_else(own_name);
        let mut doubts = Vec::new();
        match (chain.split_first(), told.first()) {
            (Some((leaf, others)), Some(first)) => {
                self.doubt(leaf, others, first, name.as_ref(), &mut doubts);
            }
            _ => doubts.push(Distrust::Other(
                "none that can be read was shown".to_owned(),
            )),
        }
        Session {
            protocol: "",
            cipher: None,
            alpn: None,
            host: name.map(|name| name.to_str().into_owned()),
            chain: told,
            doubts,
        }
    }

    fn doubt(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        told: &Certified,
        name: Option<&ServerName<'static>>,
        doubts: &mut Vec<Distrust>,
    ) {
        if told.not_after < self.unix {
            doubts.push(Distrust::Expired(
                (self.unix - told.not_after) / SECONDS_A_DAY,
            ));
        }
        let fits = |name: &ServerName<'_>| {
            EndEntityCert::try_from(leaf)
                .is_ok_and(|leaf| leaf.verify_is_valid_for_subject_name(name).is_ok())
        };
        if !name.is_some_and(fits) {
            doubts.push(Distrust::Name(told.names.clone()));
        }
        let Some(verifier) = &self.verifier else {
            doubts.push(Distrust::Issuer(told.issuer.clone()));
            return;
        };
        // With a name that fits and a moment within its time, what is left to object to is the issuer.
        let moment = self.unix.min(told.not_after.saturating_sub(1)).max(0);
        let now = UnixTime::since_unix_epoch(Duration::from_secs(moment.unsigned_abs()));
        let fitting = name.filter(|name| fits(name)).cloned().or_else(|| {
            let first = told.names.first()?;
            ServerName::try_from(first.replacen('*', "any", 1)).ok()
        });
        let Some(fitting) = fitting else { return };
        match verifier.verify_server_cert(leaf, others, &fitting, &[], now) {
            Ok(_) => {}
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                let last = others.last().unwrap_or(leaf);
                let issuer = describe(last, self.unix).map_or_else(String::new, |last| last.issuer);
                doubts.push(Distrust::Issuer(issuer));
            }
            Err(Error::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            )) => doubts.push(Distrust::NotYet),
            Err(other) => doubts.push(Distrust::Other(tame(&other.to_string()))),
        }
    }
}

/// What stands in a certificate. `None` if it cannot be read.
fn describe(der: &CertificateDer<'_>, unix: i64) -> Option<Certified> {
    let certificate = Certificate::from_der(der).ok()?;
    let body = certificate.tbs_certificate();
    let after = body.validity().not_after.to_unix_duration().as_secs();
    let not_after = i64::try_from(after).ok()?;
    let alternative = body.get_extension::<SubjectAltName>().ok().flatten();
    let names = alternative.map(|(_, names)| names.0).unwrap_or_default();
    Some(Certified {
        subject: tame(&body.subject().to_string()),
        issuer: tame(&body.issuer().to_string()),
        names: names.iter().filter_map(host).take(MOST_NAMES).collect(),
        not_after,
        days_left: (not_after - unix).div_euclid(SECONDS_A_DAY),
    })
}

fn host(name: &GeneralName) -> Option<String> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the others are names of no host"
    )]
    match name {
        GeneralName::DnsName(name) => Some(tame(name.as_str())),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(|octets| IpAddr::from(Ipv4Addr::from(octets)));
            let v6 = <[u8; 16]>::try_from(bytes).map(|octets| IpAddr::from(Ipv6Addr::from(octets)));
            v4.or(v6).ok().map(|ip| ip.to_string())
        }
        _ => None,
    }
}

/// Text of strangers, fit for a terminal.
pub(super) fn tame(text: &str) -> String {
    const LONGEST: usize = 200;
    let fit = |letter: &char| !letter.is_control() && !turns(*letter);
    text.chars().filter(fit).take(LONGEST).collect()
}

/// Characters that are not seen themselves, and change how what is around them looks.
fn turns(letter: char) -> bool {
    matches!(letter, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd,
    };

    use super::*;

    /// 2024-06-01
    const NOW: i64 = 1_717_200_000;

    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        der: CertificateDer<'static>,
    }

    fn authority() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters
            .distinguished_name
            .push(DnType::CommonName, "an authority");
        let der = parameters.self_signed(&key).unwrap().der().clone();
        Authority {
            issuer: Issuer::new(parameters, key),
            der,
        }
    }

    fn certificate(
        authority: &Authority,
        names: &[&str],
        years: [i32; 2],
    ) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut parameters = CertificateParams::new(names).unwrap();
        parameters
            .distinguished_name
            .push(DnType::CommonName, "a server\u{7}");
        parameters.not_before = date_time_ymd(years[0], 1, 1);
        parameters.not_after = date_time_ymd(years[1], 1, 1);
        let key = KeyPair::generate().unwrap();
        parameters
            .signed_by(&key, &authority.issuer)
            .unwrap()
            .der()
            .clone()
    }

    fn trust(authority: Option<&Authority>) -> Trust {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authority.map(|authority| authority.der.clone()));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        Trust {
            verifier: built.ok(),
            unix: NOW,
        }
    }

    fn named(name: &str) -> ServerName<'static> {
        ServerName::try_from(name.to_owned()).unwrap()
    }

    #[test]
    fn a_good_certificate_is_told_and_not_doubted() {
        let authority = authority();
        let leaf = certificate(
            &authority,
            &["turn.test", "192.0.2.1", "2001:db8::1"],
            [2024, 2025],
        );
        let session = trust(Some(&authority)).examine(&[leaf], Some(&named("turn.test")));
        assert_eq!(session.doubts, []);
        let told = &session.chain[0];
        assert_eq!(told.names, ["turn.test", "192.0.2.1", "2001:db8::1"]);
        assert!(told.issuer.contains("CN=an authority"), "{}", told.issuer);
        assert!(told.subject.contains("CN=a server") && !told.subject.contains('\u{7}'));
        assert_eq!((told.not_after, told.days_left), (1_735_689_600, 214));
    }

    #[test]
    fn each_doubt_is_told_beside_the_others() {
        let (authority, stranger) = (authority(), authority());
        let old = certificate(&stranger, &["turn.test"], [2022, 2024]);
        let session = trust(Some(&authority)).examine(&[old], Some(&named("other.test")));
        let expected = [
            Distrust::Expired(152),
            Distrust::Name(vec!["turn.test".to_owned()]),
            Distrust::Issuer(session.chain[0].issuer.clone()),
        ];
        // The two authorities have one name, but not one key.
        assert!(
            matches!(session.doubts.as_slice(), [a, b, _] if *a == expected[0] && *b == expected[1]),
            "{:?}",
            session.doubts
        );
        let young = certificate(&authority, &["turn.test"], [2025, 2026]);
        let session = trust(Some(&authority)).examine(&[young], Some(&named("turn.test")));
        assert_eq!(session.doubts, [Distrust::NotYet]);
    }

    #[test]
    fn who_trusts_nobody_doubts_the_issuer() {
        let authority = authority();
        let leaf = certificate(&authority, &["turn.test"], [2024, 2025]);
        let session = trust(None).examine(&[leaf], Some(&named("turn.test")));
        assert_eq!(
            session.doubts,
            [Distrust::Issuer(session.chain[0].issuer.clone())]
        );
    }

    #[test]
    fn without_a_name_the_first_of_its_own_counts() {
        let authority = authority();
        let leaf = certificate(&authority, &["*.turn.test"], [2024, 2025]);
        let session = trust(Some(&authority)).examine(&[leaf], None);
        assert_eq!(
            (session.doubts, session.host.as_deref()),
            (vec![], Some("any.turn.test"))
        );
    }

    #[test]
    fn what_is_no_certificate_is_doubted() {
        let session = trust(None).examine(&[CertificateDer::from(vec![1, 2, 3])], None);
        assert!(matches!(session.doubts.as_slice(), [Distrust::Other(_)]));
        assert!(matches!(
            trust(None).examine(&[], None).doubts.as_slice(),
            [Distrust::Other(_)]
        ));
    }
}
