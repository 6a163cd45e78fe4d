//! Revocations as JSON, and as the command line says them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::turn::{Revoked, is_plain};

use super::store::Row;
use super::{ALWAYS, Order};

/// Whom to revoke: one of `credentialId`, `username` and `user`, or `tenant` alone. Beside `credentialId` and `user`,
/// `tenant` says whose they are.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Words {
    /// The id of a credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_id: Option<String>,
    /// The whole name of a credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// A user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The moment, in seconds since 1970, before which credentials that are revoked were issued; now without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<u64>,
    /// Whether calls end at once.
    #[serde(default = "yes")]
    pub cut: bool,
}

impl Default for Words {
    fn default() -> Self {
        Self {
            credential_id: None,
            username: None,
            user: None,
            tenant: None,
            not_before: None,
            cut: true,
        }
    }
}

/// Words that say nothing that could be revoked, and what they should say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadWords(&'static str);

impl fmt::Display for BadWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadWords {}

/// RFC 8489 §14.3: fewer than 509 bytes.
const LONGEST_NAME: usize = 508;

impl Words {
    /// What is asked for.
    ///
    /// # Errors
    /// [`BadWords`] if it is not clear whom they mean, or nobody can have such a name.
    pub fn order(self) -> Result<Order, BadWords> {
        let Self {
            not_before, cut, ..
        } = self;
        Ok(Order {
            revoked: self.revoked()?,
            not_before,
            cut,
        })
    }

    /// Whom it is about.
    ///
    /// # Errors
    /// The same.
    pub fn revoked(self) -> Result<Revoked, BadWords> {
        let tenant = match self.tenant {
            Some(tenant) if !is_plain(&tenant) => {
                return Err(BadWords(
                    "`tenant` is 1 to 64 letters, digits and `.`, `_`, `-`",
                ));
            }
            tenant => tenant,
        };
        match (self.credential_id, self.username, self.user, tenant) {
            (Some(id), None, None, tenant) => {
                if !is_plain(&id) {
                    return Err(BadWords(
                        "`credentialId` is 1 to 64 letters, digits and `.`, `_`, `-`",
                    ));
                }
                Ok(Revoked::Credential {
                    tenant: tenant.unwrap_or_default().into(),
                    id: id.into(),
                })
            }
            (None, Some(name), None, None) => {
                if !is_name(&name) {
                    return Err(BadWords("`username` is 1 to 508 bytes"));
                }
                Ok(Revoked::Name(name.into()))
            }
            (None, None, Some(user), tenant) => {
                if !is_name(&user) {
                    return Err(BadWords("`user` is 1 to 508 bytes"));
                }
                Ok(Revoked::User {
                    tenant: tenant.unwrap_or_default().into(),
                    user: user.into(),
                })
            }
            (None, None, None, Some(tenant)) => Ok(Revoked::Tenant(tenant.into())),
            _ => Err(BadWords(
                "say one of `credentialId`, `user` and `username`, or `tenant` alone; \
                 `tenant` may stand beside `credentialId` and `user`",
            )),
        }
    }
}

/// Whatever is in it: who can be let in can be kept out.
fn is_name(text: &str) -> bool {
    (1..=LONGEST_NAME).contains(&text.len())
}

fn yes() -> bool {
    true
}

/// A revocation that is in force, in a list.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its place in the list.
    pub place: i64,
    /// Whom it is about, and what it reaches.
    #[serde(flatten)]
    pub words: Words,
    /// When it is forgotten, in seconds since 1970.
    pub until: u64,
    /// When it was made, in seconds since 1970.
    pub made: u64,
}

impl From<Row> for Entry {
    fn from(row: Row) -> Self {
        let Row {
            place,
            revoked,
            term,
            cut,
            made,
        } = row;
        let mut words = Words {
            not_before: (term.not_before != ALWAYS).then_some(term.not_before),
            cut,
            ..Words::default()
        };
        let named = |tenant: Box<str>| (!tenant.is_empty()).then(|| tenant.into());
        match revoked {
            Revoked::Credential { tenant, id } => {
                words.credential_id = Some(id.into());
                words.tenant = named(tenant);
            }
            Revoked::Name(name) => words.username = Some(name.into()),
            Revoked::User { tenant, user } => {
                words.user = Some(user.into());
                words.tenant = named(tenant);
            }
            Revoked::Tenant(tenant) => words.tenant = Some(tenant.into()),
        }
        Self {
            place,
            words,
            until: term.until,
            made,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(json: &str) -> Option<Order> {
        serde_json::from_str::<Words>(json).ok()?.order().ok()
    }

    #[test]
    fn it_is_clear_whom_they_mean() {
        let revoked = |json| order(json).map(|order| order.revoked);
        let (tenant, user) = ("acme".into(), "8:ann".into());
        assert_eq!(
            revoked(r#"{"user":"8:ann","tenant":"acme"}"#),
            Some(Revoked::User { tenant, user })
        );
        assert_eq!(
            revoked(r#"{"tenant":"acme"}"#),
            Some(Revoked::Tenant("acme".into()))
        );
        assert_eq!(
            revoked(r#"{"username":"17:k~~ann"}"#),
            Some(Revoked::Name("17:k~~ann".into()))
        );
        assert_eq!(
            revoked(r#"{"credentialId":"x"}"#),
            Some(Revoked::Credential {
                tenant: "".into(),
                id: "x".into()
            })
        );
        let ann = order(r#"{"user":"ann","notBefore":17,"cut":false}"#).unwrap();
        assert_eq!((ann.not_before, ann.cut), (Some(17), false));
        assert!(order(r#"{"user":"ann"}"#).unwrap().cut);
        // The login service may call somebody that.
        assert!(order(r#"{"user":"a\nb\u0000"}"#).is_some());
        for bad in [
            "{}",
            "[]",
            r#"{"user":""}"#,
            r#"{"user":"ann","credentialId":"x"}"#,
            r#"{"username":"17:ann","tenant":"acme"}"#,
            r#"{"tenant":"acme~ann"}"#,
            r#"{"tenant":""}"#,
            r#"{"credentialId":"x'; DROP TABLE revocations; --"}"#,
            r#"{"user":"ann","notbefore":1}"#,
            r#"{"user":"ann","notBefore":-1}"#,
        ] {
            assert_eq!(order(bad), None, "{bad}");
        }
        let long = format!(r#"{{"user":"{}"}}"#, "u".repeat(509));
        assert_eq!(order(&long), None);
    }
}
