//! Layer 0: the bytes of STUN and TURN (RFC 8489 §5 and §14, RFC 8656 §12 and §18).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |0 0|     STUN Message Type     |         Message Length        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                   Magic Cookie = 0x2112A442                   |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                     Transaction ID (96 bits)                  |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! A [`Message`] borrows the bytes it was parsed from; a [`Writer`] appends one to a buffer.
//! [`ChannelData`] is TURN's other framing, and [`framing`] finds where messages end in a byte
//! stream.
//!
//! Promises: total on any bytes (no panic, no overflow, no unbounded work), nothing allocated while
//! parsing, secrets wiped and compared in constant time. It knows types, lengths and values; which
//! of them a request needs is for the layer above. No state, no clock, no policy.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod address;
mod attribute;
mod channel_data;
mod classic;
mod error_code;
mod fingerprint;
pub mod framing;
mod integrity;
mod message;
mod method;
mod reader;
mod writer;

pub use attribute::{AddressError, Attribute, ChangeRequest, Icmp};
pub use channel_data::{ChannelData, ChannelNumber};
pub use classic::ClassicMessage;
pub use error_code::ErrorCode;
pub use integrity::{Integrity, Key, PasswordAlgorithm, userhash};
pub use message::{Attributes, Malformed, Message, ParseError, TransactionId};
pub use method::{Class, Method};
pub use writer::{Writer, data_indication_head};

/// What a datagram, or the next frame of a stream, is by its first byte (RFC 7983, RFC 8656 §12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 0..=3: a STUN message.
    Stun,
    /// 64..=127: ChannelData of a channel 0x4000..=0x7FFF.
    ChannelData,
    /// Anything else, and no bytes at all: to be dropped.
    Other,
}

impl Kind {
    /// Looks at the first byte only.
    pub fn of(bytes: &[u8]) -> Self {
        match bytes.first() {
            Some(0..=3) => Self::Stun,
            Some(64..=127) => Self::ChannelData,
            _ => Self::Other,
        }
    }
}

/// The fixed value that tells STUN from RFC 3489's dialect and from other protocols.
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];

/// Type, length, cookie and transaction id.
const HEADER_LENGTH: usize = 20;

/// How many bytes follow `length` bytes to reach a multiple of 4.
const fn padding(length: usize) -> usize {
    length.wrapping_neg() & 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s1_the_first_byte_tells_the_kind() {
        for first in 0..=255u8 {
            let expected = match first {
                0..=3 => Kind::Stun,
                64..=127 => Kind::ChannelData,
                _ => Kind::Other,
            };
            assert_eq!(Kind::of(&[first, 0xFF]), expected, "{first}");
        }
        assert_eq!(Kind::of(&[]), Kind::Other);
    }

    #[test]
    fn padding_reaches_the_next_multiple_of_four() {
        assert_eq!(
            [0, 1, 2, 3, 4, 5, 65_535].map(padding),
            [0, 3, 2, 1, 0, 3, 1]
        );
    }
}
