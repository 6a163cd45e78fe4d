//! Which program a client is, as far as its Allocate gives it away.
//!
//! Browsers say nothing of themselves, but each asks in a way of its own. What comes of it is a guess, for people to
//! read: nothing is decided by it. Who asks as none of them does is [`Dialect::Other`].

use crate::stun::{Attribute, Message};

use super::request::Request;
use super::verdict::labels;

labels! {
    /// The program that asks like this.
    Dialect {
        /// Chrome, Edge, Safari, and what is made of libwebrtc.
        Libwebrtc = "libwebrtc",
        /// Firefox.
        Firefox = "firefox",
        /// Pion, in Go, and what is made after it.
        Pion = "pion",
        /// libnice: GStreamer, Janus, Kurento.
        Libnice = "libnice",
        /// libjuice: libdatachannel.
        Libjuice = "libjuice",
        /// aioice: aiortc, in Python.
        Aioice = "aioice",
        /// baresip.
        Baresip = "baresip",
        /// PJNATH: pjsip, Asterisk.
        Pjnath = "pjnath",
        /// The tools of coturn.
        Coturn = "coturn",
        /// ice4j: Jitsi.
        Ice4j = "ice4j",
        /// None of those that are known.
        Other = "other",
    }
}

/// Which program a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Software {
    /// As it asks.
    pub dialect: Dialect,
    /// As it says (SOFTWARE), without what cannot be printed, and cut.
    pub said: Option<Box<str>>,
}

impl Software {
    /// The sender of an Allocate request.
    pub(super) fn of(request: &Request<'_>) -> Self {
        let said = request.message.software().and_then(Result::ok);
        let said = said.map(shown).filter(|said| !said.is_empty());
        Self {
            dialect: said
                .as_deref()
                .and_then(named)
                .unwrap_or_else(|| by_habit(&request.message)),
            said,
        }
    }
}

/// Who says so of itself.
fn named(said: &str) -> Option<Dialect> {
    let said = said.to_ascii_lowercase();
    NAMES
        .iter()
        .find(|(word, _)| said.contains(word))
        .map(|(_, dialect)| *dialect)
}

/// Who asks like this, of those that do not say.
///
/// What tells them apart, by their sources: libwebrtc and Pion leave the lifetime to the server, and of the two only
/// Pion puts a FINGERPRINT at the end. Firefox asks for an hour, the tools of coturn for 777 seconds. aioice asks for
/// ten minutes, as others would, but has NONCE before REALM. libjuice is not among them: it says its name.
fn by_habit(message: &Message<'_>) -> Dialect {
    if message.get(TURN_LOGGING_ID).is_some() {
        return Dialect::Libwebrtc;
    }
    match (message.lifetime(), message.has_fingerprint()) {
        (None, false) => Dialect::Libwebrtc,
        (None, true) => Dialect::Pion,
        (Some(Ok(777)), _) => Dialect::Coturn,
        (Some(Ok(3600)), false) => Dialect::Firefox,
        (Some(Ok(600)), true) if has_nonce_before_realm(message) => Dialect::Aioice,
        (Some(_), _) => Dialect::Other,
    }
}

fn has_nonce_before_realm(message: &Message<'_>) -> bool {
    let mut attributes = message.attributes().map(|(attribute, _)| attribute);
    let first = attributes.find(|one| [Attribute::NONCE, Attribute::REALM].contains(one));
    first == Some(Attribute::NONCE)
}

/// What a client says of itself, for people: one line, of no great length.
fn shown(said: &[u8]) -> Box<str> {
    let text = String::from_utf8_lossy(said);
    let letters = text
        .chars()
        .filter(|letter| !letter.is_control() && !is_steering(*letter));
    letters.take(LONGEST).collect::<String>().trim().into()
}

/// Whether a letter turns the writing around, or cannot be seen.
fn is_steering(letter: char) -> bool {
    matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fffd}')
}

/// Letters of SOFTWARE that are kept.
const LONGEST: usize = 64;

/// Of libwebrtc, and optional to understand.
const TURN_LOGGING_ID: Attribute = Attribute(0xff05);

/// What is in the SOFTWARE of those who send one.
const NAMES: [(&str, Dialect); 9] = [
    ("libnice", Dialect::Libnice),
    ("libjuice", Dialect::Libjuice),
    ("aioice", Dialect::Aioice),
    ("baresip", Dialect::Baresip),
    ("libre ", Dialect::Baresip),
    ("pjnath", Dialect::Pjnath),
    ("coturn", Dialect::Coturn),
    ("pion", Dialect::Pion),
    ("ice4j", Dialect::Ice4j),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stun::{Class, Integrity, Key, Method, TransactionId, Writer};

    #[test]
    fn what_clients_say_is_cut_and_cannot_steer_a_terminal() {
        assert_eq!(
            &*shown(b" Coturn-4.6.1 'Gorst'\n\x1b[2J"),
            "Coturn-4.6.1 'Gorst'[2J"
        );
        assert_eq!(&*shown("a\u{202e}b".as_bytes()), "ab");
        assert_eq!(&*shown(b"\xff\0"), "");
        assert_eq!(shown(&[b'x'; 700]).len(), LONGEST);
    }

    /// An Allocate as a client writes it: LIFETIME if it has one, and the credentials in this order.
    fn asked(lifetime: Option<u32>, credentials: &[Attribute], fingerprint: bool) -> Dialect {
        let mut bytes = Vec::new();
        let id = TransactionId([7; 12]);
        let mut writer = Writer::new(&mut bytes, Class::Request, Method::ALLOCATE, id);
        if let Some(lifetime) = lifetime {
            writer.u32(Attribute::LIFETIME, lifetime);
        }
        writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        for attribute in credentials {
            writer.bytes(*attribute, b"abc");
        }
        let key = Key::md5(b"abc", b"abc", b"abc");
        if fingerprint {
            writer.fingerprint();
        }
        writer.finish_with_integrity(&key, Integrity::Sha1);
        by_habit(&Message::parse(&bytes).unwrap())
    }

    #[test]
    fn who_says_nothing_is_known_by_its_habits_or_not_at_all() {
        let usual = [Attribute::USERNAME, Attribute::REALM, Attribute::NONCE];
        let other = [Attribute::USERNAME, Attribute::NONCE, Attribute::REALM];
        for (lifetime, credentials, fingerprint, dialect) in [
            (None, usual, false, Dialect::Libwebrtc),
            (None, usual, true, Dialect::Pion),
            (Some(3600), usual, false, Dialect::Firefox),
            (Some(777), usual, false, Dialect::Coturn),
            (Some(777), usual, true, Dialect::Coturn),
            (Some(600), other, true, Dialect::Aioice),
            // Whoever that may be.
            (Some(600), usual, true, Dialect::Other),
            (Some(600), usual, false, Dialect::Other),
            (Some(600), other, false, Dialect::Other),
            (Some(3600), usual, true, Dialect::Other),
            (Some(1200), other, true, Dialect::Other),
        ] {
            let guess = asked(lifetime, &credentials, fingerprint);
            assert_eq!(guess, dialect, "{lifetime:?} {fingerprint}");
        }
    }

    #[test]
    fn who_names_itself_is_believed() {
        for (said, dialect) in [
            ("libjuice", Some(Dialect::Libjuice)),
            ("libnice 0.1.21", Some(Dialect::Libnice)),
            ("pjnath-2.14", Some(Dialect::Pjnath)),
            ("Coturn-4.6.1", Some(Dialect::Coturn)),
            ("baresip v3.1.0", Some(Dialect::Baresip)),
            ("something else", None),
        ] {
            assert_eq!(named(said), dialect, "{said}");
        }
    }
}
