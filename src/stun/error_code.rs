//! Error codes and their reason phrases (RFC 8489 §14.8, RFC 8656 §19, RFC 6062 §6.3, RFC 8016
//! §4.2).

use std::fmt;

use super::reader::Reader;

/// The number of an error response, 300..=699.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorCode(pub u16);

macro_rules! error_codes {
    ($($number:literal $constant:ident $reason:literal;)*) => {
        impl ErrorCode {
            $(
                #[doc = concat!(stringify!($number), " ", $reason, ".")]
                pub const $constant: Self = Self($number);
            )*

            /// Every code that has a constant.
            pub const ALL: &'static [Self] = &[$(Self::$constant),*];

            /// The registered phrase; empty for a code without a constant.
            pub const fn reason(self) -> &'static str {
                match self.0 {
                    $($number => $reason,)*
                    _ => "",
                }
            }
        }
    };
}

error_codes! {
    300 TRY_ALTERNATE "Try Alternate";
    400 BAD_REQUEST "Bad Request";
    401 UNAUTHENTICATED "Unauthenticated";
    403 FORBIDDEN "Forbidden";
    405 MOBILITY_FORBIDDEN "Mobility Forbidden";
    420 UNKNOWN_ATTRIBUTE "Unknown Attribute";
    437 ALLOCATION_MISMATCH "Allocation Mismatch";
    438 STALE_NONCE "Stale Nonce";
    440 ADDRESS_FAMILY_NOT_SUPPORTED "Address Family not Supported";
    441 WRONG_CREDENTIALS "Wrong Credentials";
    442 UNSUPPORTED_TRANSPORT_PROTOCOL "Unsupported Transport Protocol";
    443 PEER_ADDRESS_FAMILY_MISMATCH "Peer Address Family Mismatch";
    446 CONNECTION_ALREADY_EXISTS "Connection Already Exists";
    447 CONNECTION_TIMEOUT_OR_FAILURE "Connection Timeout or Failure";
    486 ALLOCATION_QUOTA_REACHED "Allocation Quota Reached";
    500 SERVER_ERROR "Server Error";
    508 INSUFFICIENT_CAPACITY "Insufficient Capacity";
}

impl ErrorCode {
    /// Reads class, number and phrase, which stand behind 2 bytes that each attribute uses in its
    /// own way \[S7\].
    pub(super) fn read<'a>(reader: &mut Reader<'a>) -> Option<(Self, &'a str)> {
        let [class, number] = reader.array()?;
        // Only 3 bits are the class; those before it are ignored.
        let class = class & 7;
        let reason = reader.take(reader.rest().len())?;
        if !(3..=6).contains(&class) || number > 99 {
            return None;
        }
        let reason = str::from_utf8(reason).ok()?;
        let code = u16::from(class)
            .saturating_mul(100)
            .saturating_add(u16::from(number));
        (reason.chars().count() < REASON_CHARACTERS).then_some((Self(code), reason))
    }

    /// The two bytes on the wire, of a code in 300..=699.
    pub(super) fn class_and_number(self) -> [u8; 2] {
        let part = |value: u16| u8::try_from(value).unwrap_or(u8::MAX);
        [part(self.0 / 100), part(self.0 % 100)]
    }
}

/// Cuts a phrase to what may be sent: fewer than 128 characters.
pub(super) fn sendable(reason: &str) -> &str {
    let end = reason
        .char_indices()
        .nth(REASON_CHARACTERS.saturating_sub(1))
        .map_or(reason.len(), |(at, _)| at);
    reason.get(..end).unwrap_or_default()
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.reason())
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ErrorCode({self})")
    }
}

/// A phrase has fewer characters than this; their bytes are then few enough, too.
const REASON_CHARACTERS: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &[u8]) -> Option<(ErrorCode, &str)> {
        ErrorCode::read(&mut Reader::new(value))
    }

    #[test]
    fn s7_class_is_3_to_6_and_number_0_to_99() {
        for class in 0..=7 {
            for number in 0..=255 {
                let good = (3..=6).contains(&class) && number <= 99;
                let code = ErrorCode(u16::from(class) * 100 + u16::from(number));
                assert_eq!(
                    read(&[class, number]),
                    good.then_some((code, "")),
                    "{class} {number}"
                );
                assert!(!good || code.class_and_number() == [class, number]);
            }
        }
    }

    #[test]
    fn s7_reserved_bits_before_the_class_are_ignored() {
        assert_eq!(read(&[0b1111_1100, 38]), Some((ErrorCode::STALE_NONCE, "")));
    }

    #[test]
    fn s7_a_reason_has_fewer_than_128_characters_and_is_utf_8() {
        let phrase = |text: &str| [&[4, 0], text.as_bytes()].concat();
        assert!(read(&phrase(&"é".repeat(127))).is_some());
        assert!(read(&phrase(&"é".repeat(128))).is_none());
        assert!(read(&[4, 0, 0xFF]).is_none());
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(sendable(&"é".repeat(200)), "é".repeat(127));
        assert_eq!(sendable("Bad Request"), "Bad Request");
    }

    #[test]
    fn every_code_has_a_reason() {
        assert!(ErrorCode::ALL.iter().all(|code| !code.reason().is_empty()));
        assert_eq!(ErrorCode(499).reason(), "");
        assert_eq!(ErrorCode::STALE_NONCE.to_string(), "438 Stale Nonce");
    }
}
