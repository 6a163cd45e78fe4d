//! ChannelData (RFC 8656 §12.4).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |         Channel Number        |            Length             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! /                       Application Data                        /
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use std::ops::Range;

use super::reader::Reader;

/// A number a channel may have on the wire: 0x4000..=0x7FFF.
///
/// RFC 8656 gives channels the numbers up to 0x4FFF; clients of RFC 5766 use the others, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelNumber(u16);

impl ChannelNumber {
    /// `None` outside the range \[C1\].
    pub const fn new(number: u16) -> Option<Self> {
        if number >> 14 == 1 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// Whether RFC 8656 has this number, or only RFC 5766 \[C1\].
    pub const fn is_rfc8656(self) -> bool {
        self.0 >> 12 == 4
    }

    /// The number as on the wire.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The four bytes before `length` bytes of application data.
    pub const fn header(self, length: u16) -> [u8; 4] {
        let [n0, n1] = self.0.to_be_bytes();
        let [l0, l1] = length.to_be_bytes();
        [n0, n1, l0, l1]
    }
}

/// One ChannelData message, borrowed from the bytes it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelData<'a> {
    /// The channel.
    pub number: ChannelNumber,
    /// Where the application data stands in the bytes that were parsed.
    pub body: Range<usize>,
    /// The application data.
    pub data: &'a [u8],
}

impl<'a> ChannelData<'a> {
    /// Parses a datagram, or one frame of a stream with or without its padding.
    ///
    /// `None` for another kind of message and for one shorter than its length says; bytes behind
    /// the data are padding, however many \[C4\].
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let number = ChannelNumber::new(reader.u16()?)?;
        let length = usize::from(reader.u16()?);
        let start = reader.position();
        let data = reader.take(length)?;
        Some(Self {
            number,
            body: start..reader.position(),
            data,
        })
    }
}

/// The bytes before the application data.
pub(super) const CHANNEL_HEADER_LENGTH: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c1_channel_numbers_are_0x4000_to_0x7fff_the_first_quarter_rfc_8656s() {
        for number in 0..=u16::MAX {
            let good = (0x4000..=0x7FFF).contains(&number);
            let parsed = ChannelNumber::new(number);
            assert_eq!(parsed.map(ChannelNumber::get), good.then_some(number));
            let current = (0x4000..=0x4FFF).contains(&number);
            assert_eq!(parsed.is_some_and(ChannelNumber::is_rfc8656), current);
        }
    }

    #[test]
    fn c4_shorter_than_its_length_is_none() {
        let whole = [0x40, 0x01, 0, 3, b'a', b'b', b'c'];
        for cut in 0..whole.len() {
            assert_eq!(ChannelData::parse(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(ChannelData::parse(&whole).unwrap().data, b"abc");
    }

    #[test]
    fn c4_bytes_behind_the_data_are_padding() {
        for extra in 0..9 {
            let mut bytes = vec![0x4F, 0xFF, 0, 1, b'a'];
            bytes.resize(5 + extra, 0xEE);
            let parsed = ChannelData::parse(&bytes).unwrap();
            assert_eq!(
                (parsed.number.get(), parsed.body.clone(), parsed.data),
                (0x4FFF, 4..5, &b"a"[..])
            );
        }
    }

    #[test]
    fn c6_no_data_is_an_empty_body() {
        let parsed = ChannelData::parse(&[0x40, 0, 0, 0]).unwrap();
        assert_eq!((parsed.body, parsed.data), (4..4, &b""[..]));
    }

    #[test]
    fn the_header_written_is_the_header_parsed() {
        let number = ChannelNumber::new(0x4ABC).unwrap();
        let mut bytes = number.header(u16::MAX).to_vec();
        bytes.resize(4 + 65_535, 7);
        let parsed = ChannelData::parse(&bytes).unwrap();
        assert_eq!((parsed.number, parsed.body), (number, 4..65_539));
    }
}
