//! Transport addresses, plain and XORed (RFC 8489 §14.1 and §14.2).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |   (ignored)   |    Family     |         (X-)Port              |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |              (X-)Address: 4 bytes or 16 bytes                 |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use std::net::{IpAddr, SocketAddr};

use super::MAGIC_COOKIE;
use super::message::TransactionId;
use super::reader::Reader;

/// What the port and the address are XORed with: cookie and transaction id, or nothing.
#[derive(Clone, Copy)]
pub(super) struct Mask([u8; 16]);

impl Mask {
    pub(super) const NONE: Self = Self([0; 16]);

    pub(super) const fn of(id: TransactionId) -> Self {
        let [c0, c1, c2, c3] = MAGIC_COOKIE;
        let [t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, t10, t11] = id.0;
        Self([
            c0, c1, c2, c3, t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, t10, t11,
        ])
    }

    /// XORs from the mask's start: the port with its first 2 bytes, an address with its first 4 or
    /// all 16.
    fn apply<const N: usize>(self, mut bytes: [u8; N]) -> [u8; N] {
        for (byte, mask) in bytes.iter_mut().zip(self.0) {
            *byte ^= mask;
        }
        bytes
    }
}

/// An address as the value of an attribute.
#[derive(Clone, Copy)]
pub(super) struct Encoded {
    bytes: [u8; 20],
    length: usize,
}

impl Encoded {
    pub(super) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// `None` unless the family is 1 or 2 and the length is the family's.
pub(super) fn read(value: &[u8], mask: Mask) -> Option<SocketAddr> {
    let mut reader = Reader::new(value);
    let [_ignored, family] = reader.array()?;
    let port = u16::from_be_bytes(mask.apply(reader.array()?));
    let ip = match family {
        FAMILY_IPV4 => IpAddr::from(mask.apply::<4>(reader.array()?)),
        FAMILY_IPV6 => IpAddr::from(mask.apply::<16>(reader.array()?)),
        _ => return None,
    };
    reader.is_empty().then(|| SocketAddr::new(ip, port))
}

pub(super) fn write(address: SocketAddr, mask: Mask) -> Encoded {
    let [p0, p1] = mask.apply(address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = mask.apply(ip.octets());
            let mut bytes = [0; 20];
            if let Some(start) = bytes.first_chunk_mut() {
                *start = [0, FAMILY_IPV4, p0, p1, a, b, c, d];
            }
            Encoded { bytes, length: 8 }
        }
        IpAddr::V6(ip) => {
            let mut bytes = [0; 20];
            let (head, tail) = bytes.split_at_mut(4);
            head.copy_from_slice(&[0, FAMILY_IPV6, p0, p1]);
            tail.copy_from_slice(&mask.apply(ip.octets()));
            Encoded { bytes, length: 20 }
        }
    }
}

const FAMILY_IPV4: u8 = 1;
const FAMILY_IPV6: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TransactionId = TransactionId([
        0xB7, 0xE7, 0xA7, 0x01, 0xBC, 0x34, 0xD6, 0x86, 0xFA, 0x87, 0xDF, 0xAE,
    ]);

    #[test]
    fn the_first_byte_is_ignored() {
        let address = "192.0.2.1:32853".parse().unwrap();
        assert_eq!(
            read(&[0xFF, 1, 0xA1, 0x47, 0xE1, 0x12, 0xA6, 0x43], Mask::of(ID)),
            Some(address)
        );
    }

    #[test]
    fn the_length_must_be_that_of_the_family() {
        for length in 0..=24 {
            for family in 0..=255 {
                let mut value = vec![0; length];
                if let Some(byte) = value.get_mut(1) {
                    *byte = family;
                }
                let expected = (family, length) == (1, 8) || (family, length) == (2, 20);
                assert_eq!(
                    read(&value, Mask::NONE).is_some(),
                    expected,
                    "family {family}, length {length}"
                );
            }
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for text in [
            "0.0.0.0:0",
            "255.255.255.255:65535",
            "[::]:0",
            "[2001:db8:1234:5678:11:2233:4455:6677]:32853",
        ] {
            let address: SocketAddr = text.parse().unwrap();
            for mask in [Mask::NONE, Mask::of(ID)] {
                assert_eq!(read(write(address, mask).as_slice(), mask), Some(address));
            }
        }
    }
}
