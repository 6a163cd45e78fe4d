//! Who may log in: shared secrets and static users, read from their files; and the keys that seal nonces.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::turn::{NonceKey, NonceKeys, SecretAlgorithm, SharedSecret, ThirdParty, Users};

use super::assemble::Assembly;
use super::secrets::{OWN_SECRET, SHORT_SECRET, Secret, password_weakness};
use super::{Auth, SecretFile, SecretSource, User};

/// The file in the state directory from which nonces of servers without shared secrets are sealed.
const OWN_NONCE_KEY: &str = "nonce-key";
/// What a nonce key is derived with, so that it tells nothing about the secret it is derived from.
const NONCE_KEY_LABEL: &[u8] = b"turnd nonce key, version 1";

/// What [`Assembly::credentials`] found.
pub(super) struct Credentials {
    pub(super) users: Users,
    pub(super) third_party: Option<ThirdParty>,
    pub(super) secrets: Vec<SharedSecret>,
    pub(super) nonce_keys: NonceKeys,
    pub(super) own_secret: bool,
}

impl Assembly<'_> {
    /// Reads every secret and password. What cannot be used is in the report.
    pub(super) fn credentials(&mut self) -> Credentials {
        let Auth {
            secrets,
            users,
            oauth,
            ..
        } = &self.config.auth;
        let own_secret = secrets.is_none() && users.is_empty() && oauth.is_none();
        let mut found = Vec::new();
        for source in secrets.iter().flatten() {
            let secret = self.shared_secret(source);
            found.extend(secret.map(|secret| (source.voucher(&secret), secret)));
        }
        // Nothing is made for a configuration that is not used anyway.
        if own_secret && !self.report.has_errors() {
            match self.host.state.secret(OWN_SECRET, self.host) {
                Ok(secret) => {
                    let file = SecretFile::Path(self.host.state.own_secret());
                    self.contents
                        .note("auth.secrets", &file, &secret, self.host);
                    let voucher = SharedSecret::new("own", &secret, SecretAlgorithm::Sha1);
                    found.push((voucher.with_claims(), secret));
                }
                Err(complaint) => self.report.error("auth.secrets", complaint),
            }
        }
        let mut table = Users::new(&self.config.server.realm);
        let (secrets, found): (Vec<SharedSecret>, Vec<Secret>) = found.into_iter().unzip();
        for secret in &secrets {
            if let Err(error) = table.add_secret(secret.clone()) {
                self.error("auth.secrets", error.to_string(), "take the oldest one out");
                break;
            }
        }
        self.add_users(users, &mut table);
        let (third_party, token_keys) = self.third_party();
        if secrets.is_empty() && users.is_empty() && oauth.is_none() && !self.report.has_errors() {
            self.error(
                "auth.secrets",
                "nobody could log in: there is no secret and no user",
                "leave the key out to have a secret made, or name one",
            );
        }
        let nonce_keys = self.nonce_keys(found.iter().chain(&token_keys));
        Credentials {
            users: table,
            third_party,
            secrets,
            nonce_keys,
            own_secret,
        }
    }

    pub(super) fn shared_secret(&mut self, source: &SecretSource) -> Option<Secret> {
        let secret = self.read_secret(&source.key, &source.file)?;
        if secret.len() < SHORT_SECRET {
            let what = format!(
                "this secret has {} bytes: who hears one login can guess it",
                secret.len()
            );
            let remedy = "put a longer one into the file: `turnd genkey` prints one";
            self.warning(&source.key, what, remedy);
        }
        Some(secret)
    }

    pub(super) fn add_users(&mut self, users: &[User], table: &mut Users) {
        for user in users {
            let Some(password) = self.read_secret(&user.key, &user.password_file) else {
                continue;
            };
            let Ok(text) = std::str::from_utf8(&password) else {
                self.error(
                    &user.key,
                    "the password is not text",
                    "`turnd genkey` prints a good one",
                );
                continue;
            };
            if let Some(weakness) = password_weakness(&user.name, &password) {
                let remedy = "`turnd genkey` prints a good one; better still, hand out time-limited credentials from a shared secret";
                self.error(&user.key, weakness, remedy);
            }
            table.add_user(&user.name, text);
        }
    }

    /// Keys that hold across restarts and are the same for all servers with the same key file or the same secrets.
    fn nonce_keys<'s>(&mut self, secrets: impl Iterator<Item = &'s Secret>) -> NonceKeys {
        let mut keys = self
            .nonce_key_file()
            .into_iter()
            .chain(secrets.map(|secret| derive_nonce_key(secret)));
        if let Some(issuing) = keys.next() {
            return NonceKeys {
                issuing,
                accepted: keys.collect(),
            };
        }
        let kept = self.host.state.secret(OWN_NONCE_KEY, self.host);
        NonceKeys::from(match kept {
            Ok(secret) => derive_nonce_key(&secret),
            // Only a restart is noticed: running clients are asked to try again with a fresh nonce.
            Err(_) => derive_nonce_key(&self.host.process_key),
        })
    }

    fn nonce_key_file(&mut self) -> Option<NonceKey> {
        let file = self.config.auth.nonce_key_file.as_ref()?;
        let secret = self.read_secret("auth.nonce_key_file", file)?;
        if secret.len() < SHORT_SECRET {
            let what = format!("this key has {} bytes: it can be guessed", secret.len());
            let remedy = "put a longer one into the file: `turnd genkey` prints one";
            self.warning("auth.nonce_key_file", what, remedy);
        }
        Some(derive_nonce_key(&secret))
    }
}

impl SecretSource {
    pub(super) fn voucher(&self, secret: &[u8]) -> SharedSecret {
        let voucher =
            SharedSecret::new(&self.id, secret, self.algorithm).with_encoding(self.encoding);
        if self.claims {
            voucher.with_claims()
        } else {
            voucher
        }
    }
}

fn derive_nonce_key(secret: &[u8]) -> NonceKey {
    let mac = <Hmac<Sha256>>::new_from_slice(secret).expect("an HMAC key has any length");
    NonceKey(
        mac.chain_update(NONCE_KEY_LABEL)
            .finalize()
            .into_bytes()
            .into(),
    )
}
