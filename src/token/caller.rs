//! Who asks, and what they may.

use super::service_key::ServiceKey;

/// The scope of those who have credentials made for others.
pub(super) const ISSUE: &str = "relay.issue";
/// The scope of those who take credentials back.
pub(super) const REVOKE: &str = "relay.revoke";

/// Somebody who has proved who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) by: By,
    /// The user; a backend is none.
    pub(super) subject: Option<String>,
    /// Whose customer; empty where there are no tenants.
    pub(super) tenant: String,
    /// May they have credentials made for others?
    pub(super) issues: bool,
    /// May they take credentials back?
    pub(super) revokes: bool,
    /// For how many seconds their credentials are good at most, if that is less than others are.
    pub(super) max_ttl: Option<u64>,
}

/// What they proved it with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The key of a backend, by its id.
    Key(String),
    /// A token of this issuer.
    Issuer(String),
}

impl From<&ServiceKey> for Caller {
    fn from(key: &ServiceKey) -> Self {
        Self {
            by: By::Key(key.id.clone()),
            subject: None,
            tenant: key.tenant.clone(),
            issues: key.issues,
            revokes: key.revokes,
            max_ttl: key.max_ttl,
        }
    }
}
