//! FINGERPRINT: CRC-32 over the message before it (RFC 8489 §14.7).

use super::reader::RawAttribute;
use super::reader::Reader;

/// Keeps the CRC-32 of a packet of another protocol from being taken for a FINGERPRINT: "STUN" in
/// ASCII.
const MASK: u32 = 0x5354_554E;

/// The value for a message whose bytes up to the attribute are `before`; their length field counts
/// FINGERPRINT.
pub(super) fn value(before: &[u8]) -> [u8; 4] {
    (crc32fast::hash(before) ^ MASK).to_be_bytes()
}

/// Whether `fingerprint`, found in `message`, is right.
pub(super) fn holds(message: &[u8], fingerprint: RawAttribute<'_>) -> bool {
    Reader::new(message)
        .take(fingerprint.at)
        .is_some_and(|before| fingerprint.value == value(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_crc_32_holds() {
        // The usual check value of CRC-32/ISO-HDLC, XORed as the RFC asks.
        assert_eq!(
            value(b"123456789"),
            (0xCBF4_3926u32 ^ 0x5354_554E).to_be_bytes()
        );
    }
}
