//! The heads of DTLS records: what may be told of a datagram without a key (RFC 6347 §4.1).

/// The length of a record's header.
pub(super) const HEADER: usize = 13;
/// Content types.
pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(super) const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// Records of both versions begin with it: DTLS 1.0 (also used by the first messages of 1.2) and 1.2.
const MAJOR: u8 = 0xfe;
const MINORS: [u8; 2] = [0xff, 0xfd];

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: u8,
    /// 0 for plaintext.
    pub(super) epoch: u16,
    /// 48 bits.
    pub(super) number: u64,
    /// Where the record ends, counted from its beginning.
    pub(super) end: usize,
}

impl Record {
    /// The record that `bytes` begin with, if it is whole.
    pub(super) fn first(bytes: &[u8]) -> Option<Self> {
        let [kind, major, minor, e0, e1, number @ .., l0, l1] = *bytes.first_chunk::<HEADER>()?;
        let number: [u8; 6] = number;
        let end = HEADER + usize::from(u16::from_be_bytes([l0, l1]));
        let known = (CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&kind);
        if !known || major != MAJOR || !MINORS.contains(&minor) || end > bytes.len() {
            return None;
        }
        Some(Self {
            kind,
            epoch: u16::from_be_bytes([e0, e1]),
            number: number
                .iter()
                .fold(0, |number, byte| number << 8 | u64::from(*byte)),
            end,
        })
    }
}

/// What a datagram is that comes from somebody with an association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Datagram {
    /// It begins with plaintext of a handshake; `changes_cipher` if a ChangeCipherSpec is in it.
    Handshake { changes_cipher: bool },
    /// It begins with a protected record.
    Protected,
    /// Anything else. Plaintext alerts are among it: anybody could have sent them.
    Noise,
}

impl Datagram {
    pub(super) fn of(bytes: &[u8]) -> Self {
        match Record::first(bytes) {
            Some(Record { epoch: 1.., .. }) => Self::Protected,
            Some(Record {
                kind: HANDSHAKE | CHANGE_CIPHER_SPEC,
                ..
            }) => {
                let changes_cipher =
                    records(bytes).any(|(record, _)| record.kind == CHANGE_CIPHER_SPEC);
                Self::Handshake { changes_cipher }
            }
            Some(_) | None => Self::Noise,
        }
    }
}

/// Adds `by` to the numbers of the plaintext records of a datagram.
pub(super) fn shift_plaintext(datagram: &mut [u8], by: u64) {
    let mut at = 0;
    while let Some(record) = datagram.get(at..).and_then(Record::first) {
        if record.epoch == 0 {
            let number = record.number.wrapping_add(by).to_be_bytes();
            datagram[at + 5..at + 11].copy_from_slice(&number[2..]);
        }
        at += record.end;
    }
}

/// The protected records of a datagram that can be one: what is longer is no record of DTLS (RFC 5246 §6.2.3), and who
/// puts so many into one datagram means no good.
pub(super) fn protected(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    records(datagram)
        .take(MOST)
        .filter(|(record, _)| record.epoch != 0 && record.end <= LARGEST)
        .map(|(_, bytes)| bytes)
}

const MOST: usize = 8;
const LARGEST: usize = HEADER + (1 << 14) + 2048;

fn records(mut rest: &[u8]) -> impl Iterator<Item = (Record, &[u8])> {
    std::iter::from_fn(move || {
        let record = Record::first(rest)?;
        let bytes;
        (bytes, rest) = rest.split_at(record.end);
        Some((record, bytes))
    })
}
