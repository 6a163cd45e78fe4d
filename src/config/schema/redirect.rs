//! `[redirect]`: where clients are sent, and when.

use std::net::SocketAddr;

use crate::config::problem::Complaint;
use crate::config::section::Section;
use crate::config::{Redirect, values};

use super::one_place;

const OCCASIONS: [(&str, Occasion); 3] = [
    ("always", Occasion::Always),
    ("drain", Occasion::Drain),
    ("overload", Occasion::Overload),
];

/// When clients are sent elsewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Occasion {
    Always,
    Drain,
    Overload,
}

/// RFC 8489 §14.16, and the DNS.
const LONGEST_DOMAIN: usize = 253;

pub(super) fn read(section: &mut Section<'_>) -> Redirect {
    let when = section.list("when", |text| values::word(text, &OCCASIONS));
    let when = when.unwrap_or_else(|| vec![Occasion::Drain, Occasion::Overload]);
    Redirect {
        to: section.list("to", target).unwrap_or_default(),
        to_tls: section.list("to_tls", target).unwrap_or_default(),
        domain: section.parsed("domain", domain),
        always: when.contains(&Occasion::Always),
        drain: when.contains(&Occasion::Drain),
        overload: when.contains(&Occasion::Overload),
        overload_at: section.number("overload_at", 1, u32::MAX),
    }
}

/// An address that clients can be sent to.
fn target(text: &str) -> Result<SocketAddr, Complaint> {
    let remedy = "write the address and port at which clients reach the other server";
    one_place(text, remedy)
}

/// A DNS name (RFC 8489 §14.16).
pub(super) fn domain(text: &str) -> Result<String, Complaint> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || letter == '-')
    };
    if text.len() <= LONGEST_DOMAIN && text.split('.').all(label) {
        return Ok(text.to_owned());
    }
    Err(Complaint::new(
        format!("`{text}` is not a domain name"),
        "write the name in the certificate of the other servers, as in \"turn2.example.org\"",
    ))
}
