//! Whose requests are accepted: users with a password, and users who bring one that a shared secret vouches for.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::stun::{Key, Message, PasswordAlgorithm, userhash};

use super::username::{self, BadClaims, Issued};
use super::{Login, Now};

/// The users of one realm.
///
/// Holds derived keys and shared secrets, never a user's password (RFC 8656 §6).
#[derive(Clone)]
pub struct Users {
    realm: Box<str>,
    secrets: Vec<SharedSecret>,
    fixed: HashMap<Box<[u8]>, Keys>,
    by_hash: HashMap<[u8; 32], Box<[u8]>>,
}

#[derive(Clone)]
struct Keys {
    md5: Key,
    sha256: Key,
}

impl Users {
    /// How many shared secrets there may be: each is tried for each request.
    pub const MAX_SECRETS: usize = 4;

    /// A realm without users.
    pub fn new(realm: &str) -> Self {
        Self {
            realm: realm.into(),
            secrets: Vec::new(),
            fixed: HashMap::new(),
            by_hash: HashMap::new(),
        }
    }

    /// Adds a secret that vouches for users.
    ///
    /// # Errors
    /// [`TooManySecrets`] if there are [`Users::MAX_SECRETS`] already.
    pub fn add_secret(&mut self, secret: SharedSecret) -> Result<(), TooManySecrets> {
        if self.secrets.len() == Self::MAX_SECRETS {
            return Err(TooManySecrets);
        }
        self.secrets.push(secret);
        Ok(())
    }

    /// Adds a user, or changes a user's password.
    pub fn add_user(&mut self, name: &str, password: &str) {
        let (name, realm, password) = (name.as_bytes(), self.realm.as_bytes(), password.as_bytes());
        let keys = Keys {
            md5: Key::md5(name, realm, password),
            sha256: Key::sha256(name, realm, password),
        };
        self.by_hash.insert(userhash(name, realm), name.into());
        self.fixed.insert(name.into(), keys);
    }

    /// The realm.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// The user whose name and realm have this hash (RFC 8489 §14.4). Only users with a password of their own have
    /// names that the server knows beforehand.
    pub(super) fn resolve(&self, hash: &[u8; 32]) -> Option<&[u8]> {
        self.by_hash.get(hash).map(|name| &**name)
    }

    /// The operator's names of the shared secrets, in their order.
    pub fn secret_ids(&self) -> impl Iterator<Item = &str> + '_ {
        self.secrets.iter().map(SharedSecret::id)
    }

    /// The key with which `message` is signed, if it is one of the user's, and the place of the secret that vouches for
    /// it.
    ///
    /// Takes as long for a user who does not exist as for one who does.
    ///
    /// # Errors
    /// Which of the two is wrong, the name or the signature.
    pub(super) fn verify(
        &self,
        message: &Message<'_>,
        username: &[u8],
        algorithm: PasswordAlgorithm,
    ) -> Result<(Key, Option<usize>), Mismatch> {
        if let Some(keys) = self.fixed.get(username) {
            let key = keys.with(algorithm);
            return if message.verify(key) {
                Ok((key.clone(), None))
            } else {
                Err(Mismatch::Integrity)
            };
        }
        if self.secrets.is_empty() || expiry(username).is_none() {
            message.verify(&self.derive(algorithm, username, b""));
            return Err(Mismatch::User);
        }
        let named = self.named_secret(username);
        let may = |secret: &SharedSecret| named.is_none_or(|named| std::ptr::eq(named, secret));
        for (place, secret) in self.secrets.iter().enumerate() {
            if !may(secret) {
                continue;
            }
            let key = self.derive(algorithm, username, secret.password(username).as_bytes());
            if message.verify(&key) {
                return match self.issued(username) {
                    Some(Err(BadClaims)) => Err(Mismatch::Claims),
                    Some(Ok(_)) | None => Ok((key, Some(place))),
                };
            }
        }
        Err(Mismatch::Integrity)
    }

    /// What the name of a credential with claims says, if it is one: only the secret that it names can have said so.
    pub(super) fn issued<'a>(&self, username: &'a [u8]) -> Option<Result<Issued<'a>, BadClaims>> {
        if self.fixed.contains_key(username) {
            return None;
        }
        self.named_secret(username)
            .and_then(|_| Issued::parse(username))
    }

    /// The secret that a name with claims says it is vouched for by.
    fn named_secret(&self, username: &[u8]) -> Option<&SharedSecret> {
        self.claiming(username::kid(username)?)
    }

    /// The secret of this id, if it vouches for claims.
    pub(super) fn claiming(&self, id: &[u8]) -> Option<&SharedSecret> {
        let mut secrets = self.secrets.iter();
        secrets.find(|secret| secret.claims && secret.id.as_bytes() == id)
    }

    /// Where a secret stands among these, if it is one of them.
    pub(super) fn place_of(&self, secret: &SharedSecret) -> Option<usize> {
        let mut secrets = self.secrets.iter();
        secrets.position(|one| std::ptr::eq(one, secret))
    }

    /// The operator's names of the secrets that vouch for claims.
    pub(super) fn claiming_ids(&self) -> impl Iterator<Item = &str> {
        let secrets = self.secrets.iter().filter(|secret| secret.claims);
        secrets.map(SharedSecret::id)
    }

    /// Whether this is a user with a password.
    pub(super) fn has_password(&self, username: &[u8]) -> bool {
        self.fixed.contains_key(username)
    }

    /// The key with which `message` is signed, if it is the one that a secret gives that is none of these users'.
    pub(super) fn verify_by(
        &self,
        secret: &SharedSecret,
        message: &Message<'_>,
        username: &[u8],
        algorithm: PasswordAlgorithm,
    ) -> Result<Key, Mismatch> {
        let key = self.derive(algorithm, username, secret.password(username).as_bytes());
        if message.verify(&key) {
            Ok(key)
        } else {
            Err(Mismatch::Integrity)
        }
    }

    /// When the credentials of a user expire, in seconds of the wall clock; never, for a user with a password.
    pub(super) fn expiry(&self, username: &[u8]) -> u64 {
        if self.fixed.contains_key(username) {
            NEVER
        } else {
            expiry(username).unwrap_or(NEVER)
        }
    }

    /// The part of a name that stands for the person: without the expiry, of which there are many.
    pub(super) fn person<'a>(&self, username: &'a [u8]) -> &'a [u8] {
        if self.fixed.contains_key(username) || expiry(username).is_none() {
            return username;
        }
        if let Some(person) = self
            .named_secret(username)
            .and_then(|_| Issued::person(username))
        {
            return person;
        }
        match username.iter().position(|&byte| byte == b':') {
            Some(colon) if colon + 1 < username.len() => &username[colon + 1..],
            Some(_) | None => username,
        }
    }

    /// Whether credentials that `old` accepts are accepted here, too; nothing if it is none of them that vouches for
    /// the name.
    pub(super) fn login(&self, old: &Self, username: &[u8]) -> Option<Login> {
        let of = |stays| if stays { Login::Stays } else { Login::Ends };
        if let Some(keys) = old.fixed.get(username) {
            let same = |other: &Keys| other.md5 == keys.md5 && other.sha256 == keys.sha256;
            return Some(of(self.fixed.get(username).is_some_and(same)));
        }
        expiry(username)?;
        if let Some(secret) = old.named_secret(username) {
            let named = self.named_secret(username);
            return Some(of(named.is_some_and(|named| named.is_like(secret))));
        }
        let kept = |secret: &SharedSecret| self.secrets.iter().any(|other| other.is_like(secret));
        let number = old.secrets.iter().filter(|secret| kept(secret)).count();
        Some(match number {
            0 => Login::Ends,
            number if number == old.secrets.len() => Login::Stays,
            _ => Login::Unclear,
        })
    }

    fn derive(&self, algorithm: PasswordAlgorithm, username: &[u8], password: &[u8]) -> Key {
        match algorithm {
            PasswordAlgorithm::Md5 => Key::md5(username, self.realm.as_bytes(), password),
            PasswordAlgorithm::Sha256 => Key::sha256(username, self.realm.as_bytes(), password),
        }
    }
}

impl Keys {
    fn with(&self, algorithm: PasswordAlgorithm) -> &Key {
        match algorithm {
            PasswordAlgorithm::Md5 => &self.md5,
            PasswordAlgorithm::Sha256 => &self.sha256,
        }
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users")
            .field("realm", &self.realm)
            .field("secrets", &self.secrets)
            .field("fixed", &self.fixed.len())
            .finish_non_exhaustive()
    }
}

/// What is wrong with a request's credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    User,
    Integrity,
    /// Neither, but the name says something that cannot be kept.
    Claims,
}

/// A secret shared with the service that hands out credentials: the user name is `expiry:user`, the password its HMAC
/// (draft-uberti-behave-turn-rest).
#[derive(Clone)]
pub struct SharedSecret {
    id: Box<str>,
    secret: Zeroizing<Vec<u8>>,
    algorithm: SecretAlgorithm,
    encoding: PasswordEncoding,
    claims: bool,
}

/// The letters that a password is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PasswordEncoding {
    /// Base64 with `+`, `/` and `=`, as every such service writes it.
    #[default]
    Base64,
    /// Base64 with `-` and `_` and nothing behind it: it stands in a URI as it is.
    Base64Url,
}

/// The hash of the HMAC that makes passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretAlgorithm {
    /// SHA-1, which every such service speaks.
    Sha1,
    /// SHA-256.
    Sha256,
}

impl SharedSecret {
    /// A secret. `id` names it to the operator.
    pub fn new(id: &str, secret: &[u8], algorithm: SecretAlgorithm) -> Self {
        Self {
            id: id.into(),
            secret: Zeroizing::new(secret.to_vec()),
            algorithm,
            encoding: PasswordEncoding::Base64,
            claims: false,
        }
    }

    /// Writes its passwords in other letters. Both sides must agree.
    #[must_use]
    pub fn with_encoding(self, encoding: PasswordEncoding) -> Self {
        Self { encoding, ..self }
    }

    /// Makes it one that vouches for claims, too: for names of the form `expiry:id~tenant~subject~claims`
    /// ([`Issued`]). Whoever mints with it must let nobody choose a name with `~` in it.
    #[must_use]
    pub fn with_claims(self) -> Self {
        Self {
            claims: true,
            ..self
        }
    }

    /// Whether it vouches for claims.
    pub fn vouches_for_claims(&self) -> bool {
        self.claims
    }

    /// The operator's name of the secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether it makes the same passwords as another.
    fn is_like(&self, other: &Self) -> bool {
        let probe = b"0:probe";
        self.password(probe)
            .as_bytes()
            .ct_eq(other.password(probe).as_bytes())
            .into()
    }

    /// The password that goes with a user name.
    pub fn password(&self, username: &[u8]) -> Zeroizing<String> {
        let engine = match self.encoding {
            PasswordEncoding::Base64 => &STANDARD,
            PasswordEncoding::Base64Url => &URL_SAFE_NO_PAD,
        };
        Zeroizing::new(match self.algorithm {
            SecretAlgorithm::Sha1 => engine.encode(self.mac::<Hmac<Sha1>>(username)),
            SecretAlgorithm::Sha256 => engine.encode(self.mac::<Hmac<Sha256>>(username)),
        })
    }

    fn mac<M: Mac + KeyInit>(&self, username: &[u8]) -> impl AsRef<[u8]> + use<M> {
        let mac = <M as KeyInit>::new_from_slice(&self.secret).expect("an HMAC key has any length");
        mac.chain_update(username).finalize().into_bytes()
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSecret")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// There are [`Users::MAX_SECRETS`] shared secrets already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManySecrets;

impl fmt::Display for TooManySecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "there may be at most {} shared secrets",
            Users::MAX_SECRETS
        )
    }
}

impl std::error::Error for TooManySecrets {}

/// The end of credentials that have none.
pub(super) const NEVER: u64 = u64::MAX;

/// Whether credentials have expired, by a wall clock that may be a little off.
pub(super) fn has_expired(expiry: u64, now: Now) -> bool {
    now.unix >= expiry.saturating_add(TOLERANCE)
}

/// How long it is until [`has_expired`].
pub(super) fn until_expiry(expiry: u64, now: Now) -> Duration {
    let left = expiry.saturating_add(TOLERANCE).saturating_sub(now.unix);
    Duration::from_secs(left.min(FOREVER))
}

/// How much clocks may differ, in seconds.
const TOLERANCE: u64 = 60;

/// Longer than any allocation lives, and short enough to be added to any time.
const FOREVER: u64 = u32::MAX as u64;

/// The seconds before the first colon of `expiry:user`, or of a bare `expiry`.
fn expiry(username: &[u8]) -> Option<u64> {
    let digits = username.split(|&byte| byte == b':').next()?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a6_of_a_user_only_keys_are_kept() {
        let mut users = Users::new("turn.test");
        users.add_user("ann", "the password of ann");
        // By every field, so that no other can be added unseen.
        let Keys { md5, sha256 } = &users.fixed[&b"ann"[..]];
        assert!(*md5 == Key::md5(b"ann", b"turn.test", b"the password of ann"));
        assert!(*sha256 == Key::sha256(b"ann", b"turn.test", b"the password of ann"));
    }

    #[test]
    fn expiry_is_all_before_the_colon() {
        assert_eq!(expiry(b"1700000000:ann"), Some(1_700_000_000));
        assert_eq!(expiry(b"1700000000"), Some(1_700_000_000));
        assert_eq!(expiry(b"1700000000:"), Some(1_700_000_000));
        assert_eq!(expiry(b"4294967296:x"), Some(1 << 32));
        for none in [
            &b""[..],
            b":ann",
            b"ann",
            b"+17:ann",
            b"-1:ann",
            b"17x:ann",
            b"99999999999999999999:ann",
        ] {
            assert_eq!(expiry(none), None, "{none:?}");
        }
    }

    #[test]
    fn the_person_is_what_follows_the_expiry() {
        let mut users = Users::new("turnd");
        users.add_user("17:fixed", "x");
        assert_eq!(users.person(b"1700000000:ann:b"), b"ann:b");
        assert_eq!(users.person(b"1700000000:"), b"1700000000:");
        assert_eq!(users.person(b"1700000000"), b"1700000000");
        assert_eq!(users.person(b"17:fixed"), b"17:fixed");
        assert_eq!(users.expiry(b"17:fixed"), NEVER);
    }

    /// Computed with `openssl dgst -sha1 -hmac north -binary | base64`.
    #[test]
    fn passwords_are_the_hmac_of_the_name() {
        let sha1 = SharedSecret::new("a", b"north", SecretAlgorithm::Sha1);
        let sha256 = SharedSecret::new("b", b"north", SecretAlgorithm::Sha256);
        assert_eq!(*sha1.password(b"1700000000:ann"), SHA1_OF_ANN);
        assert_eq!(*sha256.password(b"1700000000:ann"), SHA256_OF_ANN);
        let in_uris = sha256.with_encoding(PasswordEncoding::Base64Url);
        let expected = "O3G2z0TWwbi0MwjsuZbnJ9Ux0_kaXLTk69V3deV4ZMs";
        assert_eq!(*in_uris.password(b"1700000000:ann"), expected);
    }

    #[test]
    fn a_name_with_claims_is_vouched_for_by_the_secret_it_names() {
        let mut users = Users::new("turnd");
        let old = SharedSecret::new("k1", b"old", SecretAlgorithm::Sha1);
        let new = SharedSecret::new("k2", b"new", SecretAlgorithm::Sha256).with_claims();
        users.add_secret(old).unwrap();
        users.add_secret(new).unwrap();
        let id = |name: &[u8]| {
            users
                .named_secret(name)
                .map(|secret| secret.id().to_owned())
        };
        assert_eq!(id(b"17:k2~acme~ann"), Some("k2".to_owned()));
        assert_eq!(id(b"17:k1~acme~ann"), None, "it vouches for no claims");
        assert_eq!(id(b"17:k3~acme~ann"), None);
        assert_eq!(id(b"17:ann"), None);
        assert_eq!(users.person(b"17:k2~acme~ann~jx"), b"acme~ann");
        assert_eq!(users.person(b"17:k1~acme~ann~jx"), b"k1~acme~ann~jx");
        assert_eq!(users.issued(b"17:k2~acme~ann~!"), Some(Err(BadClaims)));
        assert_eq!(users.issued(b"17:k1~acme~ann~!"), None);
    }

    const SHA1_OF_ANN: &str = "jeamH6dA5l2I9g3jmieza7CzEDo=";
    const SHA256_OF_ANN: &str = "O3G2z0TWwbi0MwjsuZbnJ9Ux0/kaXLTk69V3deV4ZMs=";
}
