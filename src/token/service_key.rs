//! The keys of backends.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// A key by which a backend asks for credentials of its users.
#[derive(Clone)]
pub struct ServiceKey {
    /// The operator's name of it.
    pub id: String,
    /// Whose it is; empty where there are no tenants.
    pub tenant: String,
    /// May it have credentials made?
    pub issues: bool,
    /// May it take them back?
    pub revokes: bool,
    /// For how many seconds its credentials are good at most, if that is less than others are.
    pub max_ttl: Option<u64>,
    secret: Zeroizing<Vec<u8>>,
    digest: [u8; 32],
}

impl ServiceKey {
    /// A key that may do nothing yet.
    pub fn new(id: &str, tenant: &str, secret: &[u8]) -> Self {
        Self {
            id: id.to_owned(),
            tenant: tenant.to_owned(),
            issues: false,
            revokes: false,
            max_ttl: None,
            secret: Zeroizing::new(secret.to_vec()),
            digest: Sha256::digest(secret).into(),
        }
    }

    /// The key itself, for dialects that sign with it.
    pub(super) fn secret(&self) -> &[u8] {
        &self.secret
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceKey")
            .field("id", &self.id)
            .field("tenant", &self.tenant)
            .finish_non_exhaustive()
    }
}

/// The key that was presented. Takes as long whichever it is, and if it is none: digests are compared, all of them.
pub(super) fn find<'k>(keys: &'k [ServiceKey], presented: &[u8]) -> Option<&'k ServiceKey> {
    let digest: [u8; 32] = Sha256::digest(presented).into();
    keys.iter().fold(None, |found, key| {
        if bool::from(key.digest.ct_eq(&digest)) {
            Some(key)
        } else {
            found
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_the_whole_of_it() {
        let keys = [
            ServiceKey::new("a", "", b"north-north"),
            ServiceKey::new("b", "", b"south-south"),
        ];
        let found = |text: &str| find(&keys, text.as_bytes()).map(|key| key.id.as_str());
        assert_eq!(found("north-north"), Some("a"));
        assert_eq!(found("south-south"), Some("b"));
        for other in ["", "north-nort", "north-northx", "NORTH-NORTH"] {
            assert_eq!(found(other), None);
        }
        assert!(!format!("{keys:?}").contains("north-north"));
    }
}
