//! `[auth.oauth]`: the authorization servers that vouch for users, too (RFC 7635), and the keys shared with them.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use crate::turn::{ThirdParty, TokenAlgorithm, TokenKey};

use super::assemble::Assembly;
use super::problem::Complaint;
use super::secrets::Secret;
use super::section::Section;
use super::{OAuth, TokenKeySource, schema, values};

const ALGORITHMS: [(&str, TokenAlgorithm); 2] = [
    ("A256GCM", TokenAlgorithm::A256Gcm),
    ("A128GCM", TokenAlgorithm::A128Gcm),
];

impl OAuth {
    /// Reads the table. `names` are those of users: names of keys stand where theirs do.
    pub(super) fn read(section: &mut Section<'_>, names: &mut BTreeSet<String>) -> Option<Self> {
        let server_name = section.parsed("server_name", schema::realm);
        let keys = section.tables("keys", |section| TokenKeySource::read(section, names));
        let no_key = "there is no key to open tokens with";
        match (section.is_given("server_name"), section.is_given("keys")) {
            (true, false) => section.error(
                "server_name",
                Complaint::new(
                    no_key,
                    "add keys = [{ kid = \"k1\", file = \"/etc/turnd/oauth-key\" }]",
                ),
            ),
            (false, true) => section.error(
                "keys",
                Complaint::new(
                    "tokens are made for a server, but this one has no name",
                    "add server_name = \"turn.example.org\", as the authorization server knows it",
                ),
            ),
            (true, true) | (false, false) => {}
        }
        if section.is_empty_list("keys") {
            let remedy = "name one, or leave the whole table out";
            section.error("keys", Complaint::new(no_key, remedy));
        }
        let keys: Vec<TokenKeySource> = keys?.into_iter().flatten().collect();
        if keys.len() > ThirdParty::MAX_KEYS {
            let what = format!("there may be at most {} keys", ThirdParty::MAX_KEYS);
            section.error("keys", Complaint::new(what, "take the oldest ones out"));
        }
        Some(Self {
            server_name: server_name?,
            keys,
        })
    }
}

impl TokenKeySource {
    fn read(section: &mut Section<'_>, names: &mut BTreeSet<String>) -> Option<Self> {
        let kid = section.parsed("kid", schema::username);
        let file = section.secret_file("file");
        let algorithm = section.parsed("algorithm", |text| values::word(text, &ALGORITHMS));
        if !section.is_given("kid") {
            let remedy = "add kid = \"k1\", as the authorization server calls it";
            section.error("", Complaint::new("this key has no name", remedy));
        }
        if !section.is_given("file") {
            let remedy = "add file = \"/etc/turnd/oauth-key\"; `turnd genkey` prints a good key to put there and into the authorization server";
            section.error(
                "",
                Complaint::new(
                    "this key names no file; a key itself never stands in the configuration",
                    remedy,
                ),
            );
        }
        let kid = kid?;
        if !names.insert(kid.clone()) {
            let what = format!("there are two users or keys with the name `{kid}`");
            section.error(
                "kid",
                Complaint::new(what, "give each of them a name of its own"),
            );
        }
        Some(Self {
            kid,
            file: file?,
            algorithm: algorithm.unwrap_or(TokenAlgorithm::A256Gcm),
            key: section.name("file"),
        })
    }

    /// The word for the algorithm.
    pub(super) fn algorithm_word(&self) -> &'static str {
        match self.algorithm {
            TokenAlgorithm::A128Gcm => "A128GCM",
            TokenAlgorithm::A256Gcm => "A256GCM",
        }
    }
}

impl Assembly<'_> {
    /// Reads every key, and returns them once more as they are: nonces are sealed by them where nothing else is
    /// shared. What cannot be used is in the report.
    pub(super) fn third_party(&mut self) -> (Option<ThirdParty>, Vec<Secret>) {
        let Some(oauth) = &self.config.auth.oauth else {
            return (None, Vec::new());
        };
        let (mut keys, mut secrets) = (Vec::new(), Vec::new());
        for source in &oauth.keys {
            let Some(text) = self.read_secret(&source.key, &source.file) else {
                continue;
            };
            match token_key(source, &text) {
                Ok((key, secret)) => {
                    keys.push(key);
                    secrets.push(secret);
                }
                Err(complaint) => self.report.error(&source.key, complaint),
            }
        }
        (Some(ThirdParty::new(&oauth.server_name, keys)), secrets)
    }
}

fn token_key(source: &TokenKeySource, text: &[u8]) -> Result<(TokenKey, Secret), Complaint> {
    let wanted = source.algorithm.key_length();
    let remedy = format!("`openssl rand -base64 {wanted}` prints a good one");
    let bytes =
        decode(text).ok_or_else(|| Complaint::new("the key is not written in base64", &remedy))?;
    let key = TokenKey::new(&source.kid, source.algorithm, &bytes).ok_or_else(|| {
        let what = format!(
            "the key has {} bytes, but {} takes {wanted}",
            bytes.len(),
            source.algorithm_word()
        );
        Complaint::new(what, &remedy)
    })?;
    Ok((key, bytes))
}

/// Base64 of either alphabet (RFC 4648 §4, and §5 as in a JSON Web Key), padded or not.
fn decode(text: &[u8]) -> Option<Secret> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [alphabet::STANDARD, alphabet::URL_SAFE]
        .iter()
        .find_map(|alphabet| GeneralPurpose::new(alphabet, config).decode(text).ok())
        .map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_in_either_alphabet() {
        for text in ["-_-_AA==", "-_-_AA", "+/+/AA==", "+/+/AA"] {
            let bytes = decode(text.as_bytes()).unwrap();
            assert_eq!(bytes[..], [0xfb, 0xff, 0xbf, 0], "{text}");
        }
        for text in ["", "+_", "AA A", "A"] {
            assert!(decode(text.as_bytes()).is_none_or(|bytes| bytes.is_empty()));
        }
    }
}
