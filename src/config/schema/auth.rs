//! `[auth]`: who may log in, and with what.

use std::collections::BTreeSet;

use crate::config::problem::Complaint;
use crate::config::section::Section;
use crate::config::{Auth, OAuth, SecretSource, User, values};
use crate::turn::{OnExpiry, PasswordAlgorithms, PasswordEncoding, SecretAlgorithm, is_plain};

const ALGORITHMS: [(&str, SecretAlgorithm); 2] = [
    ("sha1", SecretAlgorithm::Sha1),
    ("sha256", SecretAlgorithm::Sha256),
];
const ENCODINGS: [(&str, PasswordEncoding); 2] = [
    ("base64", PasswordEncoding::Base64),
    ("base64url", PasswordEncoding::Base64Url),
];
const ON_EXPIRY: [(&str, OnExpiry); 3] = [
    ("new", OnExpiry::New),
    ("refresh", OnExpiry::Refresh),
    ("cut", OnExpiry::Cut),
];

/// RFC 8489 §14.3: fewer than 509 bytes.
const LONGEST_USERNAME: usize = 508;

pub(super) fn read(section: &mut Section<'_>) -> Auth {
    let secrets = secrets(section, &mut BTreeSet::new());
    let mut names = BTreeSet::new();
    let users = users(section, &mut names);
    let algorithms = password_algorithms(section).unwrap_or(PasswordAlgorithms::Md5);
    if algorithms == PasswordAlgorithms::Sha256 {
        let remedy = "add \"md5\": every browser needs it; to require SHA-256 of some clients, say so at a [[listen]] of their own";
        section.error(
            "password_algorithms",
            Complaint::new("without md5 no browser can log in", remedy),
        );
    }
    Auth {
        secrets,
        users,
        nonce_key_file: section.secret_file("nonce_key_file"),
        on_expiry: section
            .parsed("on_expiry", |text| values::word(text, &ON_EXPIRY))
            .unwrap_or(OnExpiry::Refresh),
        password_algorithms: algorithms,
        username_anonymity: section.flag("username_anonymity").unwrap_or(false),
        oauth: section.table("oauth", |section| OAuth::read(section, &mut names)),
    }
}

/// Shared secrets, whose ids are none of `ids` yet; nothing if they are not spoken of.
pub(in crate::config) fn secrets(
    section: &mut Section<'_>,
    ids: &mut BTreeSet<String>,
) -> Option<Vec<SecretSource>> {
    let secrets = section.tables("secrets", |section| shared_secret(section, ids))?;
    Some(secrets.into_iter().flatten().collect())
}

/// Users with passwords, whose names are none of `names` yet.
pub(in crate::config) fn users(
    section: &mut Section<'_>,
    names: &mut BTreeSet<String>,
) -> Vec<User> {
    let users = section.tables("users", |section| user(section, names));
    users.into_iter().flatten().flatten().collect()
}

/// What is offered here; nothing where nothing is said.
pub(super) fn password_algorithms(section: &mut Section<'_>) -> Option<PasswordAlgorithms> {
    const MD5: PasswordAlgorithms = PasswordAlgorithms::Md5;
    const SHA256: PasswordAlgorithms = PasswordAlgorithms::Sha256;
    let named = section.list("password_algorithms", |text| {
        values::word(text, &[("md5", MD5), ("sha256", SHA256)])
    })?;
    if section.is_empty_list("password_algorithms") {
        let remedy = "name \"md5\", \"sha256\" or both, or leave the key out";
        section.error(
            "password_algorithms",
            Complaint::new("there is no algorithm to log in with", remedy),
        );
    }
    Some(match (named.contains(&MD5), named.contains(&SHA256)) {
        (true, true) => PasswordAlgorithms::Sha256AndMd5,
        (false, true) => SHA256,
        (_, false) => MD5,
    })
}

fn shared_secret(section: &mut Section<'_>, ids: &mut BTreeSet<String>) -> Option<SecretSource> {
    let id = section.parsed("id", identifier);
    let file = section.secret_file("file");
    let algorithm = section
        .parsed("algorithm", |text| values::word(text, &ALGORITHMS))
        .unwrap_or(SecretAlgorithm::Sha1);
    let encoding = section
        .parsed("encoding", |text| values::word(text, &ENCODINGS))
        .unwrap_or_default();
    if encoding != PasswordEncoding::Base64 && algorithm == SecretAlgorithm::Sha1 {
        let remedy = "take it out, or add algorithm = \"sha256\" if whatever mints with this secret knows both";
        section.error(
            "encoding",
            Complaint::new("passwords by SHA-1 are base64 everywhere", remedy),
        );
    }
    let claims = section.flag("claims").unwrap_or(false);
    if !section.is_given("file") {
        let remedy = "add file = \"/etc/turnd/auth-secret\"; `turnd genkey` prints a good secret to put there";
        section.error(
            "",
            Complaint::new(
                "this secret names no file; a secret itself never stands in the configuration",
                remedy,
            ),
        );
    }
    let id = id.unwrap_or_else(|| "main".to_owned());
    if !ids.insert(id.clone()) {
        section.error(
            "id",
            Complaint::new(
                format!("there are two secrets with the id `{id}`"),
                "give each secret an id of its own",
            ),
        );
    }
    Some(SecretSource {
        id,
        file: file?,
        algorithm,
        encoding,
        claims,
        key: section.name("file"),
    })
}

fn identifier(text: &str) -> Result<String, Complaint> {
    let fits = (1..=32).contains(&text.len())
        && text
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
    if fits {
        Ok(text.to_owned())
    } else {
        Err(Complaint::new(
            "this id is of no use as a name",
            "use 1 to 32 letters, digits, - _ and .",
        ))
    }
}

/// A word that may stand in the name of a credential.
pub(in crate::config) fn plain(text: &str) -> Result<String, Complaint> {
    if is_plain(text) {
        return Ok(text.to_owned());
    }
    let what = "this name could not stand in a credential";
    Err(Complaint::new(
        what,
        "use 1 to 64 letters, digits, - _ and .",
    ))
}

fn user(section: &mut Section<'_>, names: &mut BTreeSet<String>) -> Option<User> {
    let name = section.parsed("name", username);
    let password_file = section.secret_file("password_file");
    if !section.is_given("name") {
        section.error(
            "",
            Complaint::new("this user has no name", "add name = \"alice\""),
        );
    }
    if !section.is_given("password_file") {
        let remedy = "add password_file = \"/etc/turnd/alice\"; `turnd genkey` prints a good password to put there";
        section.error("", Complaint::new("this user has no password file; a password itself never stands in the configuration", remedy));
    }
    let name = name?;
    if !names.insert(name.clone()) {
        section.error(
            "name",
            Complaint::new(
                format!("there are two users with the name `{name}`"),
                "give each user a name of its own",
            ),
        );
    }
    Some(User {
        name,
        password_file: password_file?,
        key: section.name("password_file"),
    })
}

pub(in crate::config) fn username(text: &str) -> Result<String, Complaint> {
    let remedy = "use printable characters, fewer than 509 bytes";
    if text.is_empty() || text.len() > LONGEST_USERNAME || text.chars().any(char::is_control) {
        return Err(Complaint::new("this name cannot be a username", remedy));
    }
    match text.split_once(':') {
        Some((expiry, _))
            if !expiry.is_empty() && expiry.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            Err(Complaint::new(
                "a name of the form `number:name` is kept for time-limited credentials",
                "choose a name without the number",
            ))
        }
        Some(_) | None => Ok(text.to_owned()),
    }
}
