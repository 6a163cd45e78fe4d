//! What has been revoked: credentials, users and tenants that are refused although their passwords are right.
//!
//! A revocation is about what was issued before a moment, and is forgotten once all of that has expired. So a user whose
//! credentials were revoked is welcome again with new ones, and what is remembered stays small.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::{Equivalent, HashMap};

use super::keys::NEVER;
use super::tenant::Standing;
use super::username::{Issued, unescape};
use super::{Holder, Now};

/// Whom a revocation is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Revoked<T = Box<str>> {
    /// One credential, by the id in its name: the claim `j`.
    Credential {
        /// Whose customer its user is; empty where there are no tenants.
        tenant: T,
        /// The id.
        id: T,
    },
    /// One credential, by its whole name.
    Name(T),
    /// Every credential of a user.
    User {
        /// Whose customer the user is. Empty: a user of no tenant, or one whose credentials have names of another form,
        /// `expiry:user` or just the user.
        tenant: T,
        /// The user, as whoever asked for the credentials said it: not escaped.
        user: T,
    },
    /// Every credential of every user of a tenant.
    Tenant(T),
}

/// Which credentials a revocation reaches, and how long it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// It reaches credentials issued before this moment, in seconds since 1970.
    pub not_before: u64,
    /// From this moment on all of them have expired, and it says nothing more.
    pub until: u64,
}

/// All that has been revoked. Replaced as a whole, never changed in place; what most of it was before is shared.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    /// How long any credential is good, in seconds.
    longest: u64,
    /// Most of it, which is hardly ever copied.
    old: Arc<Terms>,
    /// The rest, which goes before it.
    recent: Terms,
}

type Terms = HashMap<Revoked, Term, RandomState>;

impl Revocations {
    /// How many are added before the old ones are copied.
    const RECENT: usize = 1024;

    /// These revocations. No credential is good for longer than `longest`: one that does not say when it was issued is
    /// taken for that old.
    pub fn new(longest: Duration, terms: impl IntoIterator<Item = (Revoked, Term)>) -> Self {
        Self {
            longest: longest.as_secs(),
            old: Arc::new(terms.into_iter().collect()),
            recent: Terms::default(),
        }
    }

    /// The same, with others, or with other terms for some that are there; what has no term is taken out. Of those that
    /// are named twice, the last word counts.
    #[must_use]
    pub fn with(&self, changes: impl IntoIterator<Item = (Revoked, Option<Term>)>) -> Self {
        let mut recent = self.recent.clone();
        let mut taken_out = Vec::new();
        for (revoked, term) in changes {
            match term {
                Some(term) => {
                    recent.insert(revoked, term);
                }
                None => {
                    recent.remove(&revoked);
                    taken_out.push(revoked);
                }
            }
        }
        let mut old = Arc::clone(&self.old);
        taken_out.retain(|revoked| old.contains_key(revoked));
        if recent.len() >= Self::RECENT || !taken_out.is_empty() {
            let all = Arc::make_mut(&mut old);
            for revoked in &taken_out {
                all.remove(revoked);
            }
            all.extend(recent.drain());
        }
        Self {
            longest: self.longest,
            old,
            recent,
        }
    }

    /// The same without those that say nothing more at this moment. Copies all of them.
    #[must_use]
    pub fn remembered(&self, unix: u64) -> Self {
        let kept = self.iter().filter(|(_, term)| unix < term.until);
        let kept = kept.map(|(revoked, term)| (revoked.clone(), *term));
        Self::new(Duration::from_secs(self.longest), kept)
    }

    /// The term of one of them.
    pub fn get(&self, revoked: &Revoked) -> Option<Term> {
        self.find(revoked)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Revoked, &Term)> {
        let old = self.old.iter();
        old.filter(|(revoked, _)| !self.recent.contains_key(*revoked))
            .chain(&self.recent)
    }

    /// How many there are. Those are counted, too, that say nothing more.
    pub fn len(&self) -> usize {
        let anew = |revoked: &&Revoked| !self.old.contains_key(*revoked);
        self.old.len() + self.recent.keys().filter(anew).count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.old.is_empty() && self.recent.is_empty()
    }

    /// Whether a session was made with credentials that are revoked at this moment, in seconds since 1970.
    pub fn cover(&self, holder: &Holder<'_>, unix: u64) -> bool {
        let bearer = Bearer {
            name: holder.username,
            issued: holder.issued.as_ref(),
            tenant: holder.tenant,
            person: holder.person,
            expiry: holder.credentials_expire.unwrap_or(NEVER),
        };
        self.judge(&bearer, unix)
    }

    /// Whether the credentials with this name are revoked. Looks up no more than a name has words.
    pub(super) fn reach(
        &self,
        (name, person): (&[u8], &[u8]),
        expiry: u64,
        standing: &Standing<'_>,
        now: Now,
    ) -> bool {
        if self.is_empty() {
            return false;
        }
        let bearer = Bearer {
            name,
            issued: standing.issued.as_ref(),
            tenant: standing.tenant,
            person,
            expiry,
        };
        self.judge(&bearer, now.unix)
    }

    fn judge(&self, bearer: &Bearer<'_>, unix: u64) -> bool {
        let issued_at = self.issued_at(bearer, unix);
        let hits = |revoked: Revoked<&str>| {
            let term = self.find(&revoked);
            term.is_some_and(|term| issued_at < term.not_before && unix < term.until)
        };
        let text = |bytes| std::str::from_utf8(bytes).ok();
        if text(bearer.name).is_some_and(|name| hits(Revoked::Name(name))) {
            return true;
        }
        let Some(issued) = bearer.issued else {
            let tenant = bearer.tenant.unwrap_or_default();
            return text(bearer.person).is_some_and(|user| hits(Revoked::User { tenant, user }))
                || bearer
                    .tenant
                    .is_some_and(|tenant| hits(Revoked::Tenant(tenant)));
        };
        let (tenant, user) = (issued.tenant, &*unescape(issued.subject));
        let id = issued.claims.id;
        id.is_some_and(|id| hits(Revoked::Credential { tenant, id }))
            || hits(Revoked::User { tenant, user })
            || hits(Revoked::Tenant(tenant))
    }

    /// When credentials were issued, or the earliest that it can have been. Those that never expire, or later than any
    /// can, are as old as time.
    fn issued_at(&self, bearer: &Bearer<'_>, unix: u64) -> u64 {
        let said = bearer.issued.and_then(Issued::issued_at);
        let is_sound = bearer.expiry <= unix.saturating_add(self.longest);
        let earliest = bearer.expiry.saturating_sub(self.longest);
        said.unwrap_or(if is_sound { earliest } else { 0 })
    }

    fn find<Q: Hash + Equivalent<Revoked>>(&self, revoked: &Q) -> Option<Term> {
        let term = self.recent.get(revoked).or_else(|| self.old.get(revoked));
        term.copied()
    }
}

/// Who shows credentials.
struct Bearer<'a> {
    name: &'a [u8],
    /// What the name says, if it can say anything.
    issued: Option<&'a Issued<'a>>,
    /// Whose customer it is.
    tenant: Option<&'a str>,
    person: &'a [u8],
    /// [`NEVER`] if there is none.
    expiry: u64,
}

/// So that nothing has to be copied to be looked up. What is derived hashes alike for both.
impl Equivalent<Revoked> for Revoked<&str> {
    fn equivalent(&self, key: &Revoked) -> bool {
        match (self, key) {
            (
                Self::Credential { tenant, id },
                Revoked::Credential {
                    tenant: of,
                    id: that,
                },
            ) => **tenant == **of && **id == **that,
            (
                Self::User { tenant, user },
                Revoked::User {
                    tenant: of,
                    user: that,
                },
            ) => **tenant == **of && **user == **that,
            (Self::Name(this), Revoked::Name(that))
            | (Self::Tenant(this), Revoked::Tenant(that)) => **this == **that,
            (Self::Credential { .. }, _)
            | (Self::User { .. }, _)
            | (Self::Name(_), _)
            | (Self::Tenant(_), _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const NOW: u64 = 1_800_000_000;

    fn user(name: &str) -> Revoked {
        Revoked::User {
            tenant: "acme".into(),
            user: name.into(),
        }
    }

    fn term(not_before: u64) -> Term {
        Term {
            not_before,
            until: NOW + 100,
        }
    }

    #[test]
    fn what_was_old_and_what_is_recent_is_one() {
        let mut revocations = Revocations::new(DAY, [(user("0"), term(1))]);
        for number in 0..3000_u64 {
            let one = (user(&number.to_string()), Some(term(number)));
            revocations = revocations.with([one]);
            assert!(revocations.recent.len() < Revocations::RECENT);
        }
        assert_eq!(revocations.len(), 3000);
        assert_eq!(revocations.iter().count(), 3000);
        assert_eq!(revocations.get(&user("0")), Some(term(0)));
        assert_eq!(revocations.get(&user("2999")), Some(term(2999)));
        let fewer = revocations.with(["2999", "1", "1"].map(|name| (user(name), None)));
        assert_eq!((fewer.len(), fewer.get(&user("1"))), (2998, None));
        assert_eq!(revocations.len(), 3000, "what was there stays as it was");
        assert!(fewer.remembered(NOW + 100).is_empty());
        assert_eq!(fewer.remembered(NOW + 99).len(), 2998);
    }

    #[test]
    fn kinds_are_not_mixed_up() {
        let tenant = "acme";
        let all = [
            Revoked::Credential { tenant, id: "x" },
            Revoked::Name("acme"),
            Revoked::Name("x"),
            Revoked::User { tenant, user: "x" },
            Revoked::Tenant("acme"),
        ];
        let owned = |revoked: &Revoked<&str>| match *revoked {
            Revoked::Credential { tenant, id } => Revoked::Credential {
                tenant: tenant.into(),
                id: id.into(),
            },
            Revoked::Name(name) => Revoked::Name(name.into()),
            Revoked::User { tenant, user } => Revoked::User {
                tenant: tenant.into(),
                user: user.into(),
            },
            Revoked::Tenant(tenant) => Revoked::Tenant(tenant.into()),
        };
        for one in &all {
            let revocations = Revocations::new(DAY, [(owned(one), term(1))]);
            for other in &all {
                let found = revocations.find(other).is_some();
                assert_eq!(found, one == other, "{one:?} {other:?}");
            }
        }
    }
}
