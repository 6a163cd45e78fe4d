//! Message integrity and what it needs: keys, password algorithms, user hashes (RFC 8489 §9.2,
//! §14.4–§14.6, §18.5).

use std::fmt;

use hmac::digest::Output;
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::attribute::Attribute;
use super::reader::Reader;

/// A key for message integrity: what is derived from a password, never the password. Wiped when
/// dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Key {
    bytes: [u8; LONGEST_KEY],
    length: u8,
    #[zeroize(skip)]
    algorithm: PasswordAlgorithm,
}

impl Key {
    /// MD5 of `username:realm:password`, 16 bytes \[A5\]. The parts are taken as the bytes they
    /// are.
    pub fn md5(username: &[u8], realm: &[u8], password: &[u8]) -> Self {
        Self::derive::<Md5>(PasswordAlgorithm::Md5, username, realm, password)
    }

    /// SHA-256 of `username:realm:password`, 32 bytes \[A5\]. The parts are taken as the bytes they
    /// are.
    pub fn sha256(username: &[u8], realm: &[u8], password: &[u8]) -> Self {
        Self::derive::<Sha256>(PasswordAlgorithm::Sha256, username, realm, password)
    }

    /// A key that was derived elsewhere: stored, from an access token, or a short-term password.
    ///
    /// `None` for more than 32 bytes.
    pub fn from_bytes(algorithm: PasswordAlgorithm, key: &[u8]) -> Option<Self> {
        let mut bytes = [0; LONGEST_KEY];
        bytes.get_mut(..key.len())?.copy_from_slice(key);
        Some(Self {
            bytes,
            length: u8::try_from(key.len()).ok()?,
            algorithm,
        })
    }

    /// How it was derived.
    pub const fn algorithm(&self) -> PasswordAlgorithm {
        self.algorithm
    }

    fn derive<D: Digest>(
        algorithm: PasswordAlgorithm,
        username: &[u8],
        realm: &[u8],
        password: &[u8],
    ) -> Self {
        let mut hash = D::new();
        for part in [username, b":", realm, b":", password] {
            hash.update(part);
        }
        let mut derived = hash.finalize();
        let mut key = Self {
            bytes: [0; LONGEST_KEY],
            length: 0,
            algorithm,
        };
        for (to, from) in key.bytes.iter_mut().zip(&derived) {
            *to = *from;
            key.length = key.length.saturating_add(1);
        }
        derived.as_mut_slice().zeroize();
        key
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.length))
            .unwrap_or_default()
    }
}

impl PartialEq for Key {
    /// In constant time.
    fn eq(&self, other: &Self) -> bool {
        self.algorithm == other.algorithm && bool::from(self.as_bytes().ct_eq(other.as_bytes()))
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// How a key is derived from a password (RFC 8489 §18.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PasswordAlgorithm {
    /// What every client knows.
    Md5 = 1,
    /// What a client uses only when it was offered.
    Sha256 = 2,
}

impl PasswordAlgorithm {
    /// By its registered number.
    pub const fn of(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Md5),
            2 => Some(Self::Sha256),
            _ => None,
        }
    }

    /// Its entry in PASSWORD-ALGORITHMS, and the value of PASSWORD-ALGORITHM: the number, and no
    /// parameters \[A9\].
    pub const fn entry(self) -> [u8; 4] {
        match self {
            Self::Md5 => [0, 1, 0, 0],
            Self::Sha256 => [0, 2, 0, 0],
        }
    }

    /// The value of PASSWORD-ALGORITHMS that offers these, the preferred one first \[A9\].
    pub fn list(offered: &[Self]) -> Vec<u8> {
        offered
            .iter()
            .flat_map(|algorithm| algorithm.entry())
            .collect()
    }

    /// The entries of a value of PASSWORD-ALGORITHMS: number and parameters. Ends at the first that
    /// is cut short.
    pub fn entries(list: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
        let mut reader = Reader::new(list);
        // An entry looks exactly like an attribute: number, length, parameters, padding.
        std::iter::from_fn(move || reader.attribute().map(|entry| (entry.kind.0, entry.value)))
    }

    /// The value of PASSWORD-ALGORITHM. Both algorithms take no parameters.
    pub(super) fn read(value: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(value);
        let entry = reader.attribute()?;
        (reader.is_empty() && entry.value.is_empty())
            .then(|| Self::of(entry.kind.0))
            .flatten()
    }
}

/// The value of USERHASH for a user: SHA-256 of `username:realm` (RFC 8489 §14.4).
pub fn userhash(username: &[u8], realm: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [username, b":", realm] {
        hash.update(part);
    }
    hash.finalize().into()
}

/// Which hash protects a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Integrity {
    /// MESSAGE-INTEGRITY: HMAC-SHA1, 20 bytes.
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256: HMAC-SHA256, all 32 bytes.
    Sha256,
}

impl Integrity {
    pub(super) const fn attribute(self) -> Attribute {
        match self {
            Self::Sha1 => Attribute::MESSAGE_INTEGRITY,
            Self::Sha256 => Attribute::MESSAGE_INTEGRITY_SHA256,
        }
    }

    /// Whether `value` is the right one behind the bytes of a message in `covered`.
    pub(super) fn matches(self, key: &Key, covered: &[u8], value: &[u8]) -> bool {
        self.with_value(key, covered, |right| bool::from(right.ct_eq(value)))
            .unwrap_or(false)
    }

    /// Gives the right value behind `covered` to `then`; `None` when that is no beginning of a
    /// message.
    pub(super) fn with_value<T>(
        self,
        key: &Key,
        covered: &[u8],
        then: impl FnOnce(&[u8]) -> T,
    ) -> Option<T> {
        Some(match self {
            Self::Sha1 => then(&hmac::<Hmac<Sha1>>(key, covered)?),
            Self::Sha256 => then(&hmac::<Hmac<Sha256>>(key, covered)?),
        })
    }
}

/// The HMAC of a message up to the integrity attribute, computed as if it ended with that attribute
/// (RFC 8489 §14.5).
///
/// The length field is swapped while hashing, so the message is neither copied nor changed.
fn hmac<M: Mac + KeyInit>(key: &Key, covered: &[u8]) -> Option<Output<M>> {
    let mut reader = Reader::new(covered);
    let kind: [u8; 2] = reader.array()?;
    let _length: [u8; 2] = reader.array()?;
    // The header's 20 bytes do not count, the attribute's 4 and its value do.
    let length = covered
        .len()
        .checked_sub(16)?
        .checked_add(M::output_size())?;

    let mut mac = <M as KeyInit>::new_from_slice(key.as_bytes()).ok()?;
    mac.update(&kind);
    mac.update(&u16::try_from(length).ok()?.to_be_bytes());
    mac.update(reader.rest());
    Some(mac.finalize().into_bytes())
}

const LONGEST_KEY: usize = 32;

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    #[test]
    fn a5_the_key_is_the_hash_of_user_realm_and_password() {
        let md5 = Key::md5(b"user", b"realm", b"pass");
        assert_eq!(md5.as_bytes(), hex!("8493fbc53ba582fb4c044c456bdc40eb"));
        assert_eq!(md5.algorithm(), PasswordAlgorithm::Md5);
        let sha256 = Key::sha256(b"user", b"realm", b"pass");
        assert_eq!(
            sha256.as_bytes(),
            <[u8; 32]>::from(Sha256::digest(b"user:realm:pass"))
        );
        assert_eq!(sha256.algorithm(), PasswordAlgorithm::Sha256);
    }

    #[test]
    fn a_key_from_elsewhere_has_at_most_32_bytes() {
        let key = |length| Key::from_bytes(PasswordAlgorithm::Md5, &vec![9; length]);
        assert_eq!(key(32).unwrap().as_bytes(), [9; 32]);
        assert_eq!(key(0).unwrap().as_bytes(), b"");
        assert!(key(33).is_none());
        assert_ne!(key(16), key(17));
        assert_ne!(
            key(32),
            Key::from_bytes(PasswordAlgorithm::Sha256, &[9; 32])
        );
    }

    #[test]
    fn a_key_is_small_and_shows_nothing() {
        assert!(size_of::<Key>() <= 40);
        let shown = format!("{:?}", Key::md5(b"user", b"realm", b"pass"));
        assert_eq!(shown, "Key { algorithm: Md5, .. }");
    }

    #[test]
    fn a_key_is_wiped() {
        let mut key = Key::sha256(b"user", b"realm", b"pass");
        key.zeroize();
        assert_eq!((key.bytes, key.length), ([0; 32], 0));
        assert!(std::mem::needs_drop::<Key>());
    }

    #[test]
    fn a9_a_list_of_algorithms_is_number_and_parameter_length_each() {
        let both = PasswordAlgorithm::list(&[PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5]);
        assert_eq!(both, hex!("0002 0000 0001 0000"));
        let entries: Vec<_> = PasswordAlgorithm::entries(&both).collect();
        assert_eq!(entries, [(2, &b""[..]), (1, b"")]);
    }

    #[test]
    fn a9_parameters_are_padded_to_four_bytes() {
        let list = hex!("0009 0003 616263 EE 0001 0000 0002");
        let entries: Vec<_> = PasswordAlgorithm::entries(&list).collect();
        assert_eq!(entries, [(9, &b"abc"[..]), (1, b"")]);
    }

    #[test]
    fn a9_an_algorithm_is_one_of_two_without_parameters() {
        assert_eq!(
            PasswordAlgorithm::read(&hex!("0001 0000")),
            Some(PasswordAlgorithm::Md5)
        );
        assert_eq!(
            PasswordAlgorithm::read(&hex!("0002 0000")),
            Some(PasswordAlgorithm::Sha256)
        );
        for broken in [
            &hex!("0003 0000")[..],
            &hex!("0001 0004 00000000"),
            &hex!("0001 0004"),
            &hex!("0001 0000 0002 0000"),
            &hex!("0001 00"),
            b"",
        ] {
            assert_eq!(PasswordAlgorithm::read(broken), None, "{broken:02x?}");
        }
    }

    #[test]
    fn nothing_is_computed_over_less_than_a_header() {
        let key = Key::md5(b"user", b"realm", b"pass");
        for length in 0..16 {
            assert!(
                Integrity::Sha1
                    .with_value(&key, &vec![0; length], <[u8]>::to_vec)
                    .is_none()
            );
        }
    }
}
