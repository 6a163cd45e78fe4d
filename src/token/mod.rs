//! Layer 3: the token service, which hands out time-limited credentials over HTTP.
//!
//! It knows the shared secret of the relay and the keys of those who may ask: users with a token of their login
//! service (JSON Web Tokens), backends with a key. `issue` makes every credential; the native endpoint and the
//! dialects of other services are thin ways to ask it. It has a thread and a runtime of its own: whoever plays with it
//! cannot touch the relay, and it may as well run without one.
//!
//! It promises
//! - that no secret, key, token or password is in a log line, an error or a metric,
//! - that pages of other origins than those listed get nothing,
//! - that what it keeps of strangers, what it reads from them and how long it waits for them has bounds.

mod caller;
mod clock;
mod cors;
mod dialect;
mod document;
mod issue;
mod jwt;
mod key_set;
mod listener;
mod native;
mod places;
mod rate;
mod refusal;
mod revoke;
mod serve;
mod service_key;
mod site;
mod source;
mod url;

use ipnet::IpNet;

use crate::turn::SharedSecret;

pub use crate::metrics::{Dialect, Tokens};
pub use jsonwebtoken::Algorithm;
pub use jwt::Issuer;
pub use key_set::KeySet;
pub use listener::{Listen, Listeners};
pub use rate::Rates;
pub use serve::{Handle, start};
pub use service_key::ServiceKey;
pub use url::IceUrl;

/// What the service is told. It may change while the service runs.
#[derive(Clone)]
pub struct Settings {
    /// REALM of the relay, for those who want to know.
    pub realm: String,
    /// What credentials are made with.
    pub secret: SharedSecret,
    /// Where clients are sent: one at least. The first is for those who do not choose.
    pub regions: Vec<Region>,
    /// For how many seconds a credential is good if nothing is said.
    pub ttl: u64,
    /// And at most.
    pub max_ttl: u64,
    /// In which manners of speech it may be asked for beside the native one.
    pub dialects: Vec<Dialect>,
    /// The pages that may ask, as browsers name them: `https://app.example.org`.
    pub origins: Vec<String>,
    /// The keys of backends.
    pub keys: Vec<ServiceKey>,
    /// Who signs the tokens of users.
    pub issuers: Vec<Issuer>,
    /// How often it may be asked.
    pub rates: Rates,
    /// Reverse proxies, whose word for a client's address counts.
    pub proxies: Vec<IpNet>,
    /// Tenants that the relay knows by their doors or secrets, whatever is in a name.
    pub tenants: Vec<String>,
}

/// Some relays, and how to reach them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its name, if there are several.
    pub name: Option<String>,
    /// What is handed out, in this order.
    pub urls: Vec<IceUrl>,
}

#[cfg(test)]
impl Settings {
    fn for_tests() -> Self {
        Self {
            realm: "turnd".to_owned(),
            secret: SharedSecret::new("k2", b"north", crate::turn::SecretAlgorithm::Sha1),
            regions: Vec::new(),
            ttl: 3600,
            max_ttl: 86_400,
            dialects: Vec::new(),
            origins: Vec::new(),
            keys: Vec::new(),
            issuers: Vec::new(),
            rates: Rates {
                subject: 10,
                tenant: 0,
                source: 0,
            },
            proxies: Vec::new(),
            tenants: Vec::new(),
        }
    }
}
