//! Reading of hostile bytes: every slice of what came from the network is taken here, and checked.

use super::attribute::Attribute;
use super::padding;

/// A cursor over bytes. What is not there is `None`, and then the cursor has not moved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    whole: usize,
}

/// One attribute as it stands in the message.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawAttribute<'a> {
    pub(super) kind: Attribute,
    /// Where its type field begins, counted from the reader's start.
    pub(super) at: usize,
    /// Without padding.
    pub(super) value: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            whole: bytes.len(),
        }
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// Type, length, value and padding; the padding may hold anything \[S2\].
    #[inline]
    pub(super) fn attribute(&mut self) -> Option<RawAttribute<'a>> {
        let mut ahead = *self;
        let [t0, t1, l0, l1] = ahead.array()?;
        let value = ahead.take(usize::from(u16::from_be_bytes([l0, l1])))?;
        ahead.take(padding(value.len()))?;
        let at = self.position();
        *self = ahead;
        Some(RawAttribute {
            kind: Attribute(u16::from_be_bytes([t0, t1])),
            at,
            value,
        })
    }

    pub(super) const fn position(&self) -> usize {
        self.whole.saturating_sub(self.rest.len())
    }

    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_none_and_moves_nothing() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.array::<4>(), None);
        assert_eq!(reader.take(4), None);
        assert_eq!(reader.u16(), Some(0x0102));
        assert_eq!(reader.u16(), None);
        assert_eq!((reader.position(), reader.rest()), (2, &[3][..]));
        assert!(!reader.is_empty());
    }

    #[test]
    fn s2_the_length_of_an_attribute_excludes_its_padding() {
        let mut reader = Reader::new(&[0x80, 0x22, 0, 1, b'x', 0xFF, 0xFE, 0xFD, 0, 0x1A, 0, 0]);
        let software = reader.attribute().unwrap();
        assert_eq!(
            (software.kind, software.at, software.value),
            (Attribute::SOFTWARE, 0, &b"x"[..])
        );
        let dont_fragment = reader.attribute().unwrap();
        assert_eq!(
            (dont_fragment.kind, dont_fragment.at),
            (Attribute::DONT_FRAGMENT, 8)
        );
        assert!(reader.is_empty());
        assert!(reader.attribute().is_none());
    }

    #[test]
    fn an_attribute_without_all_its_padding_is_none() {
        for cut in 1..8 {
            let bytes = [0x80, 0x22, 0, 1, b'x', 0, 0, 0];
            assert!(Reader::new(&bytes[..cut]).attribute().is_none(), "{cut}");
        }
    }
}
