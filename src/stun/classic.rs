//! The dialect of RFC 3489, "classic STUN": no magic cookie, and a transaction id of 128 bits.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |      STUN Message Type        |         Message Length        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                    Transaction ID (128 bits)                  |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! Never mistaken for the other: [`Message::parse`](super::Message::parse) refuses it, and nothing here takes a message
//! with a cookie.

use super::attribute::{Attribute, ChangeRequest};
use super::message::Malformed;
use super::method::{Class, Method, TOP_BITS};
use super::reader::{RawAttribute, Reader};
use super::{MAGIC_COOKIE, padding};

/// A well-formed message of RFC 3489, borrowed from the bytes it came in.
#[derive(Clone, Copy)]
pub struct ClassicMessage<'a> {
    kind: u16,
    id: [u8; 16],
    attributes: &'a [u8],
}

impl<'a> ClassicMessage<'a> {
    /// Checks the header and the bounds of every attribute. One pass, nothing allocated; `None` for anything else,
    /// be it a message with a magic cookie.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (kind, length) = (reader.u16()?, reader.u16()?);
        let id: [u8; 16] = reader.array()?;
        let attributes = reader.rest();
        let whole = usize::from(length) == attributes.len() && padding(attributes.len()) == 0;
        if kind & TOP_BITS != 0 || id.starts_with(&MAGIC_COOKIE) || !whole {
            return None;
        }
        while !reader.is_empty() {
            reader.attribute()?;
        }
        Some(Self {
            kind,
            id,
            attributes,
        })
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
    pub const fn transaction_id(&self) -> [u8; 16] {
        self.id
    }

    /// From which address and port a Binding response is wanted.
    pub fn change_request(&self) -> Option<Result<ChangeRequest, Malformed>> {
        let found = self
            .all()
            .find(|one| one.kind == Attribute::CHANGE_REQUEST)?;
        Some(ChangeRequest::read(found.value).ok_or(Malformed))
    }

    /// The types of the attributes that a receiver must understand, in order.
    pub fn required(&self) -> impl Iterator<Item = Attribute> + use<'a> {
        self.all()
            .map(|found| found.kind)
            .filter(|kind| kind.is_required())
    }

    fn all(&self) -> impl Iterator<Item = RawAttribute<'a>> + use<'a> {
        let mut reader = Reader::new(self.attributes);
        std::iter::from_fn(move || reader.attribute())
    }
}

/// Attributes that RFC 8489 has no more.
impl ClassicMessage<'_> {
    /// Where a response came from.
    pub const SOURCE_ADDRESS: Attribute = Attribute(0x0004);
    /// Where it would have come from, had the client wanted both changed.
    pub const CHANGED_ADDRESS: Attribute = Attribute(0x0005);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stun::{Message, ParseError, Writer};

    const ID: [u8; 16] = [7; 16];

    fn request(attributes: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 1, 0, u8::try_from(attributes.len()).unwrap()];
        bytes.extend(ID);
        bytes.extend(attributes);
        bytes
    }

    #[test]
    fn each_dialect_refuses_the_other() {
        let classic = request(&[]);
        assert!(ClassicMessage::parse(&classic).is_some());
        assert_eq!(Message::parse(&classic).unwrap_err(), ParseError::Cookie);
        let mut modern = classic;
        modern[4..8].copy_from_slice(&MAGIC_COOKIE);
        assert!(ClassicMessage::parse(&modern).is_none());
        assert!(Message::parse(&modern).is_ok());
    }

    #[test]
    fn what_is_cut_or_too_long_is_no_message() {
        let whole = request(&[0, 3, 0, 4, 0, 0, 0, 6]);
        let message = ClassicMessage::parse(&whole).unwrap();
        let (ip, port) = (true, true);
        assert_eq!(
            message.change_request(),
            Some(Ok(ChangeRequest { ip, port }))
        );
        assert_eq!(message.transaction_id(), ID);
        for end in 0..whole.len() {
            assert!(ClassicMessage::parse(&whole[..end]).is_none(), "{end}");
        }
        assert!(ClassicMessage::parse(&[&whole[..], &[0]].concat()).is_none());
        assert!(ClassicMessage::parse(&request(&[0, 3, 0, 5, 0, 0, 0, 6])).is_none());
        assert!(ClassicMessage::parse(&request(&[0, 3, 0])).is_none());
        let mut top_bits = whole;
        top_bits[0] = 0x40;
        assert!(ClassicMessage::parse(&top_bits).is_none());
    }

    #[test]
    fn a_writer_repeats_the_whole_id() {
        let mut bytes = b"before".to_vec();
        let mut writer = Writer::classic(&mut bytes, Class::Success, Method::BINDING, ID);
        writer.address(Attribute::MAPPED_ADDRESS, "192.0.2.1:80".parse().unwrap());
        writer.finish();
        assert_eq!(
            bytes[6..],
            [
                &[1, 1, 0, 12][..],
                &ID,
                &[0, 1, 0, 8, 0, 1, 0, 80, 192, 0, 2, 1]
            ]
            .concat()
        );
    }
}
