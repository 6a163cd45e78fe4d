//! What lies in the files that a configuration names, so that a reload can tell which were changed in place.
//!
//! Of a secret nothing is kept but a digest under a key of this process: two of them can be compared, and no more.

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::assemble::Assembly;
use super::problem::Complaint;
use super::secrets::{self, Secret};
use super::{Host, SecretFile, show};

/// The mark of Unicode that some editors put before a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What lies in the files of a configuration, by the keys that name them.
#[derive(Clone, Debug, Default)]
pub struct Contents(BTreeMap<String, Content>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Content {
    file: String,
    digest: [u8; 32],
}

impl Contents {
    /// Takes note of what a file holds.
    pub(super) fn note(&mut self, key: &str, file: &SecretFile, bytes: &[u8], host: &Host) {
        let mac =
            <Hmac<Sha256>>::new_from_slice(&host.process_key).expect("an HMAC key has any length");
        let content = Content {
            file: show::secret_file(file),
            digest: mac.chain_update(bytes).finalize().into_bytes().into(),
        };
        self.0.insert(key.to_owned(), content);
    }

    /// The keys that name the same file as in a newer configuration, with something else in it there.
    pub fn changed<'c>(&'c self, newer: &'c Self) -> impl Iterator<Item = &'c str> {
        newer.0.iter().filter_map(|(key, content)| {
            let same = |old: &&Content| old.file == content.file;
            let old = self.0.get(key).filter(same)?;
            (old.digest != content.digest).then_some(key.as_str())
        })
    }

    /// Secrets that are the same as another's, each with the key of the other.
    pub(super) fn same_secrets(&self) -> Vec<(String, String)> {
        let secrets = self.0.iter().filter(|(key, _)| is_own(key));
        let secrets: Vec<(&String, &Content)> = secrets.collect();
        let same = secrets
            .iter()
            .enumerate()
            .filter_map(|(index, (key, content))| {
                let mut before = secrets[..index].iter();
                let (other, _) = before.find(|(_, other)| other.digest == content.digest)?;
                Some(((*key).clone(), (*other).clone()))
            });
        same.collect()
    }
}

/// Whether the secret of a key opens something that no other may open.
fn is_own(key: &str) -> bool {
    let tables = [
        "admin.",
        "auth.secrets",
        "events.webhook.",
        "token.api_keys",
        "token.issuers",
    ];
    tables.iter().any(|table| key.starts_with(table))
        || (key.starts_with("tenants[") && key.contains("].secrets["))
}

impl Assembly<'_> {
    /// The secret in the file that a key names. What is wrong with it is in the report.
    pub(super) fn read_secret(&mut self, key: &str, file: &SecretFile) -> Option<Secret> {
        let secret = self.read_lines(key, file)?;
        if secret.contains(&b'\n') {
            let what = "there are several lines in the file: all of them together are the secret";
            self.warning(
                key,
                what,
                "leave one line in it, if it is to be a single one",
            );
        }
        Some(secret)
    }

    /// The same of a file that may have several lines.
    pub(super) fn read_lines(&mut self, key: &str, file: &SecretFile) -> Option<Secret> {
        let secret = match secrets::read(file, self.host) {
            Ok(secret) => secret,
            Err(complaint) => {
                self.report.error(key, complaint);
                return None;
            }
        };
        if secret.starts_with(BYTE_ORDER_MARK) {
            let what = "the file begins with a byte order mark, which nobody sees and which would be a part of the secret";
            let remedy = "save it without one, as plain UTF-8";
            self.report.error(key, Complaint::new(what, remedy));
            return None;
        }
        self.contents.note(key, file, &secret, self.host);
        Some(secret)
    }
}
