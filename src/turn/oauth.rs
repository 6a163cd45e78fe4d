//! Third-party authorization: tokens of an authorization server that stand for its users (RFC 7635).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------------------------------+-------------------------------+
//! |       nonce_length = 12       |  nonce ...                    :
//! +===============================+===============================+
//! |       key_length              |  mac_key (20 or 32 bytes) ... :   sealed by AES-GCM under the long-term key
//! +-------------------------------+-------------------------------+   that USERNAME names; the server's name is
//! |                           timestamp                           |   authenticated with it
//! |      (48 bits of seconds, 16 bits of 1/64000 seconds)         |
//! +---------------------------------------------------------------+
//! |                           lifetime                            |
//! +===============================================================+
//! |                           tag (16 bytes)                      :
//! ```
//!
//! A token comes with the first request of a stranger. So it is taken apart by its length, of which there are two;
//! nothing is kept of it, and nothing in it is believed before it is opened.

use std::fmt;

use aes_gcm::aead::{AeadInOut, KeyInit, Nonce, Tag};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

use crate::stun::{Integrity, Key, PasswordAlgorithm};

use super::{Now, Refusal};

/// Who else may vouch for users: the authorization servers that share a key with this server.
#[derive(Clone, Debug)]
pub struct ThirdParty {
    server_name: Box<str>,
    keys: Vec<TokenKey>,
}

impl ThirdParty {
    /// How many keys it is sensible to share.
    pub const MAX_KEYS: usize = 16;

    /// `server_name` is what tokens are made for: THIRD-PARTY-AUTHORIZATION. Of keys with the same `kid`, the first
    /// counts.
    pub fn new(server_name: &str, keys: Vec<TokenKey>) -> Self {
        Self {
            server_name: server_name.into(),
            keys,
        }
    }

    /// What tokens are made for.
    pub fn server_name(&self) -> &str {
        &self.server_name
    }

    /// Whether there is a key of this name.
    pub(super) fn knows(&self, kid: &[u8]) -> bool {
        self.keys.iter().any(|key| key.kid.as_bytes() == kid)
    }

    /// What is in a token of the user `kid`, if it is good (RFC 7635 §7).
    ///
    /// Names of keys are no secret, so no effort is made to hide which there are.
    ///
    /// # Errors
    /// What a 401 is counted as.
    pub(super) fn open(&self, kid: &[u8], token: &[u8], now: Now) -> Result<Token, Refusal> {
        let key = self
            .keys
            .iter()
            .find(|key| key.kid.as_bytes() == kid)
            .ok_or(Refusal::UnknownUser)?;
        let token = key
            .open(self.server_name.as_bytes(), token)
            .ok_or(Refusal::Token)?;
        if token.life.left(now) == 0 {
            return Err(Refusal::Expired);
        }
        Ok(token)
    }
}

/// A long-term key that is shared with an authorization server.
#[derive(Clone)]
pub struct TokenKey {
    kid: Box<str>,
    cipher: Cipher,
}

/// Keyed already.
#[derive(Clone)]
enum Cipher {
    A128(Box<Aes128Gcm>),
    A256(Box<Aes256Gcm>),
}

/// How tokens are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenAlgorithm {
    /// AEAD_AES_128_GCM, with a key of 16 bytes.
    A128Gcm,
    /// AEAD_AES_256_GCM, which every authorization server knows, with a key of 32 bytes.
    A256Gcm,
}

impl TokenAlgorithm {
    /// How long a key is, in bytes.
    pub const fn key_length(self) -> usize {
        match self {
            Self::A128Gcm => 16,
            Self::A256Gcm => 32,
        }
    }
}

impl TokenKey {
    /// A key, and the name by which clients refer to it. `None` if it is not as long as the algorithm wants.
    pub fn new(kid: &str, algorithm: TokenAlgorithm, key: &[u8]) -> Option<Self> {
        let cipher = match algorithm {
            TokenAlgorithm::A128Gcm => Cipher::A128(Box::new(Aes128Gcm::new_from_slice(key).ok()?)),
            TokenAlgorithm::A256Gcm => Cipher::A256(Box::new(Aes256Gcm::new_from_slice(key).ok()?)),
        };
        Some(Self {
            kid: kid.into(),
            cipher,
        })
    }

    /// `None` for what was not sealed with this key for this server.
    fn open(&self, server_name: &[u8], token: &[u8]) -> Option<Token> {
        match token.len() - OVERHEAD.min(token.len()) {
            SHORT => self.open_block::<{ BLOCK + SHORT }>(server_name, token),
            LONG => self.open_block::<{ BLOCK + LONG }>(server_name, token),
            _ => None,
        }
    }

    /// `N` is the length of the sealed block, without the tag.
    fn open_block<const N: usize>(&self, server_name: &[u8], token: &[u8]) -> Option<Token> {
        let (nonce_length, rest) = token.split_first_chunk::<2>()?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE>()?;
        let (sealed, rest) = rest.split_first_chunk::<N>()?;
        let tag: &[u8; TAG] = rest.try_into().ok()?;
        if usize::from(u16::from_be_bytes(*nonce_length)) != NONCE {
            return None;
        }
        let mut block = Zeroizing::new(*sealed);
        match &self.cipher {
            Cipher::A128(cipher) => decrypt(&**cipher, nonce, server_name, &mut *block, tag),
            Cipher::A256(cipher) => decrypt(&**cipher, nonce, server_name, &mut *block, tag),
        }?;
        Token::read(&block[..])
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

fn decrypt<C: AeadInOut>(
    cipher: &C,
    nonce: &[u8; NONCE],
    server_name: &[u8],
    block: &mut [u8],
    tag: &[u8; TAG],
) -> Option<()> {
    let nonce = Nonce::<C>::try_from(&nonce[..]).ok()?;
    let tag = Tag::<C>::try_from(&tag[..]).ok()?;
    cipher
        .decrypt_inout_detached(&nonce, server_name, block.into(), &tag)
        .ok()
}

/// What was in a token.
pub(super) struct Token {
    mac_key: Zeroizing<Vec<u8>>,
    pub(super) life: TokenLife,
}

impl Token {
    /// Reads the encrypted block of a token, of which every byte has its place.
    fn read(block: &[u8]) -> Option<Self> {
        let (key_length, rest) = block.split_first_chunk::<2>()?;
        let key_length = usize::from(u16::from_be_bytes(*key_length));
        let (mac_key, rest) = rest.split_at_checked(key_length)?;
        let (timestamp, rest) = rest.split_first_chunk::<8>()?;
        let lifetime: [u8; 4] = rest.try_into().ok()?;
        Some(Self {
            mac_key: Zeroizing::new(mac_key.to_vec()),
            life: TokenLife {
                issued: u64::from_be_bytes(*timestamp) >> 16,
                lifetime: u32::from_be_bytes(lifetime),
            },
        })
    }

    /// The key of a request and its answer.
    ///
    /// The mac_key is the key (§5). Only, HMAC-SHA-1 takes one of 160 bits (§6.2): of a longer one, made for
    /// HMAC-SHA-256, it takes the SHA-1 (appendix B).
    pub(super) fn key(&self, integrity: Integrity) -> Option<Key> {
        // Tagged as what it is used like; there is no password that it could be derived from.
        match integrity {
            Integrity::Sha1 if self.mac_key.len() > SHORT => {
                let digest = Zeroizing::new(<[u8; SHORT]>::from(Sha1::digest(&self.mac_key[..])));
                Key::from_bytes(PasswordAlgorithm::Md5, &digest[..])
            }
            Integrity::Sha1 => Key::from_bytes(PasswordAlgorithm::Md5, &self.mac_key),
            Integrity::Sha256 => Key::from_bytes(PasswordAlgorithm::Sha256, &self.mac_key),
        }
    }
}

/// How long a token is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TokenLife {
    /// When it was made, in seconds since 1970; the fraction is let go.
    issued: u64,
    /// In seconds.
    lifetime: u32,
}

impl TokenLife {
    /// For how many seconds the token is good, and so at most an allocation (§9): 0 if it is not, be it too old or
    /// made too far in the future (§7).
    pub(super) fn left(self, now: Now) -> u64 {
        (u64::from(self.lifetime) + DELTA).saturating_sub(now.unix.abs_diff(self.issued))
    }

    /// Whether it was made after another one, or together with it.
    pub(super) fn is_as_late_as(self, other: Self) -> bool {
        self.issued >= other.issued
    }
}

/// What a user's token says of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// Stands for the token: all users of an authorization server have the same name.
    pub(super) token: u64,
    pub(super) life: TokenLife,
}

impl Grant {
    /// Whether it is the token that made an allocation, or one that renews it. A new token has a new key, and says
    /// no more of its user; so it only has to be no older (§9).
    pub(super) fn continues(self, made_with: Self) -> bool {
        self.token == made_with.token || self.life.is_as_late_as(made_with.life)
    }
}

const NONCE: usize = 12;
const TAG: usize = 16;
/// How long a mac_key is: for HMAC-SHA-1, and for HMAC-SHA-256.
const SHORT: usize = 20;
const LONG: usize = 32;
/// The encrypted block without the mac_key.
const BLOCK: usize = 2 + 8 + 4;
/// A token without the mac_key.
const OVERHEAD: usize = 2 + NONCE + BLOCK + TAG;

/// How much clocks may differ, in seconds (§7).
const DELTA: u64 = 5;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use hex_literal::hex;
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng};

    use super::*;

    const SERVER: &str = "blackdow.carleon.gov";
    const LONG_TERM_KEY: &[u8; 32] = b"HGkj32KJGiuy098sdfaqbNjOiaz71923";
    const MAC_KEY: &[u8; 20] = b"ZksjpweoixXmvn67534m";
    /// 92470300704768, of which the last 16 bits are a fraction.
    const ISSUED: u64 = 92_470_300_704_768 >> 16;

    /// RFC 7635 appendix A, sample 1; `turnutils_oauth -e` of coturn makes the same.
    const A256: [u8; 64] = hex!(
        "000c"                       // nonce_length
        "68346a336b326c326e346235"   // nonce
        "617ef134a3d5e44e9a19cc7dc104b0c03d03b2a551d8fdf5cd3b6dca6f10cfb77e5b" // encrypted block
        "2ddec84d293a5c50499359f0c2e26f76" // tag
    );
    /// Sample 2: the same with the first 16 bytes of the key.
    const A128: [u8; 64] = hex!(
        "000c"
        "68346a336b326c326e346235"
        "7fb9e99f0827be3df1e1bd651493d3031d36df57079784aee5eacb65fad4f27fab1a"
        "3f97974b69f851b24bf5af09eda357e0"
    );

    fn now(unix: u64) -> Now {
        #[expect(
            clippy::disallowed_methods,
            reason = "an instant can only be had from the clock"
        )]
        let instant = Instant::now();
        Now { instant, unix }
    }

    fn samples() -> [(ThirdParty, [u8; 64]); 2] {
        let third_party = |algorithm, key: &[u8]| {
            let key = TokenKey::new("north", algorithm, key).unwrap();
            ThirdParty::new(SERVER, vec![key])
        };
        [
            (third_party(TokenAlgorithm::A256Gcm, LONG_TERM_KEY), A256),
            (
                third_party(TokenAlgorithm::A128Gcm, &LONG_TERM_KEY[..16]),
                A128,
            ),
        ]
    }

    #[test]
    fn s7635_2_the_samples_of_the_rfc_open() {
        for (third_party, sample) in samples() {
            let token = third_party.open(b"north", &sample, now(ISSUED)).ok();
            let token = token.unwrap();
            assert_eq!(token.mac_key[..], MAC_KEY[..]);
            let life = TokenLife {
                issued: ISSUED,
                lifetime: 3600,
            };
            assert_eq!(token.life, life);
        }
    }

    #[test]
    fn s7635_2_a_token_opens_for_its_server_and_key_alone() {
        let refusal = |third_party: &ThirdParty, kid: &[u8], token: &[u8]| {
            third_party.open(kid, token, now(ISSUED)).err()
        };
        for (mut third_party, sample) in samples() {
            assert_eq!(refusal(&third_party, b"north", &sample), None);
            let unknown = Some(Refusal::UnknownUser);
            assert_eq!(refusal(&third_party, b"south", &sample), unknown);
            assert_eq!(refusal(&third_party, b"", &sample), unknown);
            for at in 0..sample.len() {
                for bit in 0..8 {
                    let mut changed = sample;
                    changed[at] ^= 1 << bit;
                    let refused = refusal(&third_party, b"north", &changed);
                    assert_eq!(refused, Some(Refusal::Token), "{at} {bit}");
                }
            }
            third_party.server_name = "blackdow.carleon.gov.".into();
            let refused = refusal(&third_party, b"north", &sample);
            assert_eq!(refused, Some(Refusal::Token));
        }
    }

    #[test]
    fn s7635_3_a_token_is_good_for_its_lifetime_and_five_seconds_either_way() {
        let [(third_party, sample), _] = samples();
        let left = |unix| {
            let token = third_party.open(b"north", &sample, now(unix));
            token.map(|token| token.life.left(now(unix)))
        };
        assert_eq!(left(ISSUED), Ok(3605));
        assert_eq!(left(ISSUED + 3604), Ok(1));
        assert_eq!(left(ISSUED + 3605), Err(Refusal::Expired));
        assert_eq!(left(ISSUED - 3604), Ok(1));
        assert_eq!(left(ISSUED - 3605), Err(Refusal::Expired));
        assert_eq!(left(0), Err(Refusal::Expired));
        assert_eq!(left(u64::MAX), Err(Refusal::Expired));
    }

    #[test]
    fn a23_every_length_in_a_block_but_the_right_one_is_refused() {
        for (mac_key, wants) in [(SHORT, 20), (LONG, 32)] {
            let mut block = vec![0; BLOCK + mac_key];
            for length in 0..=u16::MAX {
                block[..2].copy_from_slice(&length.to_be_bytes());
                assert_eq!(Token::read(&block).is_some(), length == wants, "{length}");
            }
        }
        for length in 0..BLOCK {
            assert!(Token::read(&vec![0; length]).is_none(), "{length}");
        }
    }

    /// The seed stands for the run: what fails once fails each time.
    #[test]
    fn a23_a_million_random_and_changed_tokens_do_not_open() {
        let [(third_party, sample), _] = samples();
        let now = now(ISSUED);
        let mut random = StdRng::seed_from_u64(0x5eed);
        for round in 0..1_000_000 {
            let length = [64, 76, 64 + round % 13, round % 300][round % 4];
            let mut token = vec![0; length];
            random.fill(&mut token[..]);
            let keep = random.random_range(0..=length.min(48));
            if round % 3 > 0 {
                token[..keep].copy_from_slice(&sample[..keep]);
            }
            let opened = third_party.open(b"north", &token, now);
            assert_eq!(opened.err(), Some(Refusal::Token), "{round}: {token:02x?}");
        }
    }

    #[test]
    fn hmac_sha1_takes_the_hash_of_a_longer_key() {
        let token = |length: usize| Token {
            mac_key: Zeroizing::new(vec![7; length]),
            life: TokenLife {
                issued: 0,
                lifetime: 0,
            },
        };
        let key = |bytes: &[u8], algorithm| Key::from_bytes(algorithm, bytes);
        let (sha1, sha256) = (PasswordAlgorithm::Md5, PasswordAlgorithm::Sha256);
        assert_eq!(token(20).key(Integrity::Sha1), key(&[7; 20], sha1));
        assert_eq!(token(20).key(Integrity::Sha256), key(&[7; 20], sha256));
        assert_eq!(token(32).key(Integrity::Sha256), key(&[7; 32], sha256));
        let digest = hex!("00696ab8d421f816366c137ec66813fd218d5927");
        assert_ne!(token(32).key(Integrity::Sha1), key(&[7; 20], sha1));
        assert_eq!(token(32).key(Integrity::Sha1), key(&digest, sha1));
    }

    #[test]
    fn a_key_is_as_long_as_its_algorithm_wants_and_shows_nothing() {
        for algorithm in [TokenAlgorithm::A128Gcm, TokenAlgorithm::A256Gcm] {
            for length in 0..64 {
                let key = TokenKey::new("k", algorithm, &vec![9; length]);
                assert_eq!(key.is_some(), length == algorithm.key_length());
            }
        }
        let key = TokenKey::new("k", TokenAlgorithm::A128Gcm, &[9; 16]).unwrap();
        assert_eq!(format!("{key:?}"), "TokenKey { kid: \"k\", .. }");
    }
}
