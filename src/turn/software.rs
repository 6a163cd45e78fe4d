//! Which program a client is, as far as its Allocate gives it away.
//!
//! Browsers say nothing of themselves, but each asks in a way of its own. What comes of it is a guess, for people to
//! read: nothing is decided by it.

use crate::stun::Attribute;

use super::request::Request;
use super::verdict::labels;

labels! {
    /// The program that asks like this.
    Dialect {
        /// Chrome, Edge, Safari, and what is made of libwebrtc.
        Libwebrtc = "libwebrtc",
        /// Firefox.
        Firefox = "firefox",
        /// Pion, in Go.
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
                .unwrap_or_else(|| by_habit(request)),
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
fn by_habit(request: &Request<'_>) -> Dialect {
    let fingerprint = request.message.has_fingerprint();
    if request.has(TURN_LOGGING_ID) {
        return Dialect::Libwebrtc;
    }
    match (request.lifetime(), fingerprint) {
        (Ok(None), false) => Dialect::Libwebrtc,
        (Ok(None), true) => Dialect::Pion,
        (Ok(Some(777)), _) => Dialect::Coturn,
        (Ok(Some(3600)), false) => Dialect::Firefox,
        (Ok(Some(600)), false) => Dialect::Aioice,
        (Ok(Some(600)), true) => Dialect::Libjuice,
        (Ok(Some(_)) | Err(_), _) => Dialect::Other,
    }
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

    #[test]
    fn who_names_itself_is_believed() {
        for (said, dialect) in [
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
