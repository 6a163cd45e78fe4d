//! A STUN message: checked once, then total.

use std::fmt;
use std::ops::Range;

use super::attribute::Attribute;
use super::fingerprint;
use super::integrity::{Integrity, Key};
use super::reader::{RawAttribute, Reader};
use super::{HEADER_LENGTH, MAGIC_COOKIE, padding};

/// A well-formed STUN message, borrowed from the bytes it came in.
///
/// Well-formed means: exactly as long as its header says, every attribute within it, FINGERPRINT right if there is one.
/// Values are looked at when asked for: a getter gives `None` for an absent attribute and [`Malformed`] for a broken one.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
    kind: u16,
    id: TransactionId,
}

impl<'a> Message<'a> {
    /// Checks the header, the bounds of every attribute \[S1\] and FINGERPRINT \[S5\]. One pass, nothing allocated.
    ///
    /// # Errors
    /// What is broken first. A message of RFC 3489, which has no magic cookie, is [`ParseError::Cookie`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(bytes);
        let [t0, t1, l0, l1] = reader.array().ok_or(ParseError::Length)?;
        let kind = u16::from_be_bytes([t0, t1]);
        if kind & TOP_BITS != 0 {
            return Err(ParseError::NotStun);
        }
        if reader.array().ok_or(ParseError::Length)? != MAGIC_COOKIE {
            return Err(ParseError::Cookie);
        }
        let id = TransactionId(reader.array().ok_or(ParseError::Length)?);
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        if length != reader.rest().len() || padding(length) != 0 {
            return Err(ParseError::Length);
        }
        while !reader.is_empty() {
            let attribute = reader.attribute().ok_or(ParseError::Attribute)?;
            if attribute.kind == Attribute::FINGERPRINT
                && !(reader.is_empty() && fingerprint::holds(bytes, attribute))
            {
                return Err(ParseError::Fingerprint);
            }
        }
        Ok(Self { bytes, kind, id })
    }

    /// What is asked, answered or told.
    pub const fn method(&self) -> Method {
        Method::of_kind(self.kind)
    }

    /// Request, indication or one of the two responses.
    pub const fn class(&self) -> Class {
        Class::of_kind(self.kind)
    }

    /// Which request a response belongs to.
    pub const fn transaction_id(&self) -> TransactionId {
        self.id
    }

    /// The bytes it was parsed from.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The attributes that count, in order, each with its value without padding.
    ///
    /// Behind MESSAGE-INTEGRITY only MESSAGE-INTEGRITY-SHA256 and FINGERPRINT count, behind MESSAGE-INTEGRITY-SHA256
    /// only FINGERPRINT \[S4\].
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes(self.counted())
    }

    /// The value of the first such attribute that counts \[S3\].
    pub fn get(&self, kind: Attribute) -> Option<&'a [u8]> {
        self.find(kind).map(|found| found.value)
    }

    /// The values of all such attributes that count.
    pub fn get_all(&self, kind: Attribute) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.counted()
            .filter(move |found| found.kind == kind)
            .map(|found| found.value)
    }

    /// Where in the message the value of DATA stands.
    pub fn data(&self) -> Option<Range<usize>> {
        let data = self.find(Attribute::DATA)?;
        let start = data.at.saturating_add(ATTRIBUTE_HEADER_LENGTH);
        Some(start..start.saturating_add(data.value.len()))
    }

    /// Whether DONT-FRAGMENT is there.
    pub fn dont_fragment(&self) -> bool {
        self.find(Attribute::DONT_FRAGMENT).is_some()
    }

    /// Whether FINGERPRINT is there; that it is right was checked when parsing.
    pub fn has_fingerprint(&self) -> bool {
        self.find(Attribute::FINGERPRINT).is_some()
    }

    /// Whether MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256 is there, whatever it holds.
    pub fn has_integrity(&self) -> bool {
        self.find(Attribute::MESSAGE_INTEGRITY).is_some() || self.has_sha256_integrity()
    }

    /// Whether MESSAGE-INTEGRITY-SHA256 is there, whatever it holds.
    pub fn has_sha256_integrity(&self) -> bool {
        self.find(Attribute::MESSAGE_INTEGRITY_SHA256).is_some()
    }

    /// Whether the sender knew `key`, by MESSAGE-INTEGRITY-SHA256 if that is there, otherwise by MESSAGE-INTEGRITY.
    ///
    /// False without either, and for a truncated SHA-256 \[S6\]. The comparison takes constant time.
    pub fn verify(&self, key: &Key) -> bool {
        let (integrity, found) = match self.find(Attribute::MESSAGE_INTEGRITY_SHA256) {
            Some(found) => (Integrity::Sha256, Some(found)),
            None => (Integrity::Sha1, self.find(Attribute::MESSAGE_INTEGRITY)),
        };
        found.is_some_and(|found| {
            let covered = Reader::new(self.bytes).take(found.at);
            covered.is_some_and(|covered| integrity.matches(key, covered, found.value))
        })
    }

    /// The comprehension-required attributes that are not in the table, each once, at most 16 \[S12\].
    ///
    /// Those behind integrity do not count. The limit keeps a 420 from being larger than what asked for it.
    pub fn unknown_required(&self) -> impl Iterator<Item = Attribute> + use<'a> {
        let mut counted = self.counted();
        let mut seen = [None; MOST_UNKNOWN];
        std::iter::from_fn(move || {
            loop {
                let kind = counted.next()?.kind;
                if !kind.is_required() || kind.is_known() || seen.contains(&Some(kind)) {
                    continue;
                }
                *seen.iter_mut().find(|slot| slot.is_none())? = Some(kind);
                return Some(kind);
            }
        })
    }

    fn find(&self, kind: Attribute) -> Option<RawAttribute<'a>> {
        self.counted().find(|found| found.kind == kind)
    }

    fn counted(&self) -> Counted<'a> {
        let mut reader = Reader::new(self.bytes);
        let _header = reader.array::<HEADER_LENGTH>();
        Counted {
            reader,
            integrity: None,
        }
    }
}

impl fmt::Debug for Message<'_> {
    // Types and lengths only: values may be names, tokens and other people's data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} {:?}", self.class(), self.method(), self.id)?;
        f.debug_map()
            .entries(self.attributes().map(|(kind, value)| (kind, value.len())))
            .finish()
    }
}

/// Iterator over the attributes of a [`Message`] that count.
#[derive(Clone)]
pub struct Attributes<'a>(Counted<'a>);

impl<'a> Iterator for Attributes<'a> {
    type Item = (Attribute, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|found| (found.kind, found.value))
    }
}

/// The one place that knows which attributes count \[S4\].
#[derive(Clone)]
struct Counted<'a> {
    reader: Reader<'a>,
    /// The integrity attribute seen last.
    integrity: Option<Integrity>,
}

impl<'a> Iterator for Counted<'a> {
    type Item = RawAttribute<'a>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let found = self.reader.attribute()?;
            let counts = match self.integrity {
                None => true,
                Some(Integrity::Sha1) => {
                    matches!(
                        found.kind,
                        Attribute::MESSAGE_INTEGRITY_SHA256 | Attribute::FINGERPRINT
                    )
                }
                Some(Integrity::Sha256) => found.kind == Attribute::FINGERPRINT,
            };
            if counts {
                match found.kind {
                    Attribute::MESSAGE_INTEGRITY => self.integrity = Some(Integrity::Sha1),
                    Attribute::MESSAGE_INTEGRITY_SHA256 => self.integrity = Some(Integrity::Sha256),
                    _ => {}
                }
                return Some(found);
            }
        }
    }
}

/// Why bytes are no message. Nothing of this is ever answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParseError {
    /// The two top bits are not zero.
    NotStun,
    /// The magic cookie is missing: another protocol, or RFC 3489.
    Cookie,
    /// Shorter than a header, not as long as the header says, or no multiple of 4.
    Length,
    /// An attribute reaches behind the end.
    Attribute,
    /// FINGERPRINT is wrong or not the last attribute.
    Fingerprint,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotStun => "the top bits are not zero",
            Self::Cookie => "the magic cookie is missing",
            Self::Length => "the length is wrong",
            Self::Attribute => "an attribute reaches behind the end",
            Self::Fingerprint => "the fingerprint is wrong or not last",
        })
    }
}

impl std::error::Error for ParseError {}

/// An attribute is there, but its value is not of its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed attribute")
    }
}

impl std::error::Error for Malformed {}

/// A STUN method: 12 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Method(pub u16);

macro_rules! methods {
    ($($number:literal $constant:ident $name:literal;)*) => {
        impl Method {
            $(
                #[doc = concat!($name, ".")]
                pub const $constant: Self = Self($number);
            )*

            /// Every method that has a constant.
            pub const ALL: &'static [Self] = &[$(Self::$constant),*];
        }

        impl fmt::Display for Method {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    $($number => f.write_str($name),)*
                    other => write!(f, "0x{other:03X}"),
                }
            }
        }
    };
}

methods! {
    0x001 BINDING "Binding";
    0x003 ALLOCATE "Allocate";
    0x004 REFRESH "Refresh";
    0x006 SEND "Send";
    0x007 DATA "Data";
    0x008 CREATE_PERMISSION "CreatePermission";
    0x009 CHANNEL_BIND "ChannelBind";
    0x00A CONNECT "Connect";
    0x00B CONNECTION_BIND "ConnectionBind";
    0x00C CONNECTION_ATTEMPT "ConnectionAttempt";
}

impl Method {
    /// Message type with the two class bits taken out.
    const fn of_kind(kind: u16) -> Self {
        Self(kind & 0x000F | (kind & 0x00E0) >> 1 | (kind & 0x3E00) >> 2)
    }

    /// Message type: the class bits stand between those of the method (RFC 8489 §5).
    pub(super) const fn kind(self, class: Class) -> u16 {
        let class = match class {
            Class::Request => 0x0000,
            Class::Indication => 0x0010,
            Class::Success => 0x0100,
            Class::Error => 0x0110,
        };
        self.0 & 0x000F | (self.0 & 0x0070) << 1 | (self.0 & 0x0F80) << 2 | class
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Method({self})")
    }
}

/// The class of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Wants a response.
    Request,
    /// Wants none.
    Indication,
    /// The request was done.
    Success,
    /// The request was refused.
    Error,
}

impl Class {
    const fn of_kind(kind: u16) -> Self {
        match kind & 0x0110 {
            0x0000 => Self::Request,
            0x0010 => Self::Indication,
            0x0100 => Self::Success,
            _ => Self::Error,
        }
    }
}

/// The 96 bits that join request and response.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransactionId(pub [u8; 12]);

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

const TOP_BITS: u16 = 0xC000;
const ATTRIBUTE_HEADER_LENGTH: usize = 4;
const MOST_UNKNOWN: usize = 16;
