//! What a server of DTLS 1.2 shows in the clear in its handshake (RFC 6347 §4.2): the cipher suite that it chose, and
//! all of its certificates. The library that shakes hands tells its first certificate alone.
//!
//! Nothing here is proven: anybody on the way can have written it. The certificates serve to find who vouches for one
//! that is proven, and who does has signed it.

use rustls::CipherSuite;
use rustls::pki_types::CertificateDer;

/// The record type of handshakes.
const HANDSHAKE: u8 = 22;
const SERVER_HELLO: u8 = 2;
const CERTIFICATE: u8 = 11;
/// No chain of anybody is longer.
const LONGEST: usize = 64 * 1024;

/// What has been seen so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    hello: Pieces,
    certificates: Pieces,
}

/// A message that comes in pieces.
#[derive(Debug, Default)]
struct Pieces {
    bytes: Vec<u8>,
    /// Which bytes have come.
    have: Vec<bool>,
}

impl Seen {
    /// Takes in a datagram of the server.
    pub(super) fn datagram(&mut self, mut bytes: &[u8]) {
        while let Some((record, rest)) = record(bytes) {
            bytes = rest;
            let mut messages = record;
            while let Some((message, rest)) = Fragment::read(messages) {
                messages = rest;
                match message.kind {
                    SERVER_HELLO => self.hello.add(&message),
                    CERTIFICATE => self.certificates.add(&message),
                    _ => {}
                }
            }
        }
    }

    /// The name of the cipher suite.
    pub(super) fn cipher(&self) -> Option<&'static str> {
        // Version, random bytes, then the id of the session.
        let (_, rest) = self.hello.whole()?.split_at_checked(34)?;
        let (&length, rest) = rest.split_first()?;
        let suite = rest.get(usize::from(length)..)?.first_chunk()?;
        CipherSuite::from(u16::from_be_bytes(*suite)).as_str()
    }

    /// The certificates, the server's own first.
    pub(super) fn chain(&self) -> Vec<CertificateDer<'static>> {
        let mut chain = Vec::new();
        let mut rest = self
            .certificates
            .whole()
            .and_then(sized)
            .map_or(&[][..], |(list, _)| list);
        while let Some((certificate, behind)) = sized(rest) {
            chain.push(CertificateDer::from(certificate.to_vec()));
            rest = behind;
        }
        chain
    }
}

impl Pieces {
    /// The first length that is said counts.
    fn add(&mut self, fragment: &Fragment<'_>) {
        if self.have.is_empty() && fragment.length <= LONGEST {
            self.bytes.resize(fragment.length, 0);
            self.have.resize(fragment.length, false);
        }
        let place = fragment.offset..fragment.offset.saturating_add(fragment.bytes.len());
        if fragment.length == self.bytes.len()
            && let Some(bytes) = self.bytes.get_mut(place.clone())
            && let Some(have) = self.have.get_mut(place)
        {
            bytes.copy_from_slice(fragment.bytes);
            have.fill(true);
        }
    }

    fn whole(&self) -> Option<&[u8]> {
        self.have.iter().all(|have| *have).then_some(&self.bytes)
    }
}

/// A part of a handshake message.
struct Fragment<'a> {
    kind: u8,
    /// Of the whole message.
    length: usize,
    offset: usize,
    bytes: &'a [u8],
}

impl<'a> Fragment<'a> {
    fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&[kind, l0, l1, l2, _, _, o0, o1, o2], rest) = bytes.split_first_chunk()?;
        let (bytes, rest) = sized(rest)?;
        let fragment = Self {
            kind,
            length: number([l0, l1, l2]),
            offset: number([o0, o1, o2]),
            bytes,
        };
        Some((fragment, rest))
    }
}

/// What is in a handshake record before anything is encrypted, and what is behind it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[kind, _, _, e0, e1, _, _, _, _, _, _, l0, l1], rest) = bytes.split_first_chunk()?;
    let (record, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([l0, l1])))?;
    let is_clear = kind == HANDSHAKE && [e0, e1] == [0, 0];
    Some((if is_clear { record } else { &[] }, rest))
}

/// Something with its length in three bytes before it, and what is behind it.
fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(number(*length))
}

fn number([high, middle, low]: [u8; 3]) -> usize {
    usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_length(bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        [&length[1..], bytes].concat()
    }

    /// A record with a piece of a handshake message.
    fn piece(kind: u8, message: &[u8], from: usize, to: usize) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let offset = u32::try_from(from).unwrap().to_be_bytes();
        let fragment = [
            &[kind][..],
            &length[1..],
            &[0, 1],
            &offset[1..],
            &with_length(&message[from..to]),
        ]
        .concat();
        let length = u16::try_from(fragment.len()).unwrap().to_be_bytes();
        let head = [HANDSHAKE, 254, 253, 0, 0, 0, 0, 0, 0, 0, 7];
        [&head[..], &length, &fragment].concat()
    }

    fn hello() -> Vec<u8> {
        let mut hello = vec![7; 34];
        hello.extend([2, 9, 9, 0xC0, 0x2B, 0]);
        hello
    }

    #[test]
    fn a_chain_and_a_cipher_are_read_in_whatever_pieces_they_come() {
        let (leaf, other) = (vec![1; 900], vec![2; 700]);
        let list = with_length(&[with_length(&leaf), with_length(&other)].concat());
        let mut seen = Seen::default();
        assert_eq!((seen.cipher(), seen.chain().len()), (None, 0));
        seen.datagram(
            &[
                piece(SERVER_HELLO, &hello(), 0, 40),
                piece(CERTIFICATE, &list, 1000, list.len()),
            ]
            .concat(),
        );
        assert_eq!(
            seen.cipher(),
            Some("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")
        );
        assert_eq!(seen.chain().len(), 0);
        seen.datagram(&piece(CERTIFICATE, &list, 0, 1100));
        assert_eq!(
            seen.chain(),
            [CertificateDer::from(leaf), CertificateDer::from(other)]
        );
    }

    proptest! {
        #[test]
        fn nothing_that_comes_is_too_much(datagrams in proptest::collection::vec(any::<Vec<u8>>(), 0..8), cut in 0usize..70) {
            let mut seen = Seen::default();
            for datagram in &datagrams {
                seen.datagram(datagram);
                let head = [HANDSHAKE, 254, 253, 0, 0, 0, 0, 0, 0, 0, 7, 0, 40];
                seen.datagram(&[&head[..], datagram].concat());
            }
            let hello = piece(SERVER_HELLO, &hello(), 0, 40);
            seen.datagram(&hello[..cut.min(hello.len())]);
            let _ = (seen.cipher(), seen.chain());
        }
    }
}
