//! `[tls]`: certificates and their keys.

use crate::config::certificate::CertificateFiles;
use crate::config::problem::Complaint;
use crate::config::section::Section;
use crate::config::tls::Tls;

pub(super) fn read(section: &mut Section<'_>) -> Option<Tls> {
    let default = certificate(section);
    let others = section.tables("others", |section| {
        if !section.is_given("certificate") && !section.is_given("key") {
            let remedy = "add certificate = \"cert.pem\" and key = \"key.pem\", or take it out";
            section.error("", Complaint::new("this names no certificate", remedy));
        }
        certificate(section)
    });
    if others.as_ref().is_some_and(|others| !others.is_empty()) && !section.is_given("certificate")
    {
        let what = "there are other certificates, but none for clients that name no host";
        let remedy = "add certificate = \"cert.pem\" and key = \"key.pem\" to [tls]";
        section.error("others", Complaint::new(what, remedy));
    }
    Some(Tls {
        default: default?,
        others: others.into_iter().flatten().flatten().collect(),
    })
}

pub(super) fn certificate(section: &mut Section<'_>) -> Option<CertificateFiles> {
    let certificate = section.path("certificate");
    let key = section.secret_file("key");
    match (section.is_given("certificate"), section.is_given("key")) {
        (true, false) => section.error(
            "certificate",
            Complaint::new("there is a certificate but no key", "add key = \"key.pem\""),
        ),
        (false, true) => section.error(
            "key",
            Complaint::new(
                "there is a key but no certificate",
                "add certificate = \"cert.pem\"",
            ),
        ),
        (true, true) | (false, false) => {}
    }
    Some(CertificateFiles {
        certificate: certificate?,
        key: key?,
    })
}
