//! How many allocations a user, a tenant, a network and everybody together may have, and what their users share.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::allowance::Share;
use super::pool::Pool;
use super::prefix;
use super::terms::Terms;
use super::verdict::labels;

/// The allocations that are counted against limits, for all workers of a process: the one lock of the machine, taken
/// when an allocation is made and when it ends.
#[derive(Debug)]
pub struct Quotas {
    counts: Mutex<Counts>,
    hasher: RandomState,
    /// What everybody relays.
    total: Arc<Pool>,
}

#[derive(Debug, Default)]
struct Counts {
    users: HashMap<u64, u32>,
    tenants: HashMap<NonZeroU64, u32>,
    clients: HashMap<u64, u32>,
    total: u32,
    rejected: [u64; Limit::ALL.len()],
    /// Of users whose bytes are counted; they outlive their allocations for as long as they would matter to new ones.
    shares: HashMap<u64, Arc<Share>>,
    pools: HashMap<NonZeroU64, Arc<Pool>>,
    /// When to look for those that do not matter any more: when there are so many.
    crowded: usize,
}

/// Who wants an allocation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Applicant {
    /// The user: the same for all credentials of a person.
    pub(super) person: u64,
    /// Whose customer that is.
    pub(super) tenant: Option<NonZeroU64>,
    pub(super) client: IpAddr,
}

/// Loans of the pool of everybody: for as many workers, before they share them.
const SPENDERS: usize = 16;

impl Default for Quotas {
    fn default() -> Self {
        Self {
            counts: Mutex::default(),
            hasher: RandomState::new(),
            total: Arc::new(Pool::new(0, SPENDERS)),
        }
    }
}

impl Counts {
    /// The first limit that one more allocation would break: how many there are, and may be.
    fn in_the_way(&self, of: &Applicant, client: u64, terms: &Terms) -> Option<(Limit, u32, u32)> {
        let (users, clients) = (count(&self.users, of.person), count(&self.clients, client));
        let customers = of.tenant.map_or(0, |tenant| count(&self.tenants, tenant));
        // Who belongs to no tenant is in no tenant's way.
        let per_tenant = of.tenant.map_or(u32::MAX, |_| terms.per_tenant);
        let counted = [
            (Limit::Total, self.total, terms.total),
            (Limit::Tenant, customers, per_tenant),
            (Limit::User, users, terms.per_user),
            (Limit::Client, clients, terms.per_client),
        ];
        counted.into_iter().find(|(_, has, most)| has >= most)
    }

    /// What the users of a tenant share.
    fn pool(&mut self, tenant: NonZeroU64, terms: &Terms) -> Arc<Pool> {
        let rate = terms.tenant_rate;
        let pool = self.pools.entry(tenant);
        let pool = pool.or_insert_with(|| Arc::new(Pool::new(rate, 1)));
        pool.set_rate(rate);
        Arc::clone(pool)
    }

    /// Forgets those without allocations, whose buckets are full again.
    fn make_room(&mut self, now: u64) {
        if self.shares.len() < self.crowded {
            return;
        }
        self.shares
            .retain(|_, share| Arc::strong_count(share) > 1 || !share.is_idle(now));
        self.pools
            .retain(|_, pool| Arc::strong_count(pool) > 1 || !pool.is_idle(now));
        self.crowded = (2 * self.shares.len()).max(1024);
    }
}

impl Quotas {
    /// A table without any allocation.
    pub fn new() -> Self {
        Self::default()
    }

    /// A number that stands for a user: equal for equal names, different from process to process.
    pub fn owner(&self, user: &[u8]) -> u64 {
        self.hasher.hash_one(user)
    }

    /// The same for a tenant.
    pub(super) fn tenant(&self, name: &str) -> NonZeroU64 {
        // Two of 2^64 are one.
        NonZeroU64::MIN.saturating_add(self.hasher.hash_one(name).saturating_sub(1))
    }

    /// The same for a user of a tenant, or of none: the users of two tenants are two, whatever their names.
    pub(super) fn user(&self, tenant: Option<&str>, user: &[u8]) -> u64 {
        self.hasher.hash_one((tenant, user))
    }

    /// How many allocations there are altogether.
    pub fn total(&self) -> u32 {
        self.lock().total
    }

    /// The limit that stands against one more allocation, if one does: how many there are, and may be.
    pub(super) fn in_the_way(&self, of: &Applicant, terms: &Terms) -> Option<(Limit, u32, u32)> {
        let client = self.hasher.hash_one(prefix::network(of.client));
        self.lock().in_the_way(of, client, terms)
    }

    /// How often each limit stood against somebody.
    pub fn rejected(&self) -> [u64; Limit::ALL.len()] {
        self.lock().rejected
    }

    /// Changes what everybody together may relay: bytes a second, 0 for no limit.
    pub(super) fn set_total_rate(&self, rate: u64) {
        self.total.set_rate(rate);
    }

    /// Counts one allocation, until the claim is dropped.
    ///
    /// # Errors
    /// The limit that stands against it.
    pub(super) fn claim(self: &Arc<Self>, of: &Applicant, terms: &Terms) -> Result<Claim, Limit> {
        let client = self.hasher.hash_one(prefix::network(of.client));
        let mut counts = self.lock();
        if let Some((limit, ..)) = counts.in_the_way(of, client, terms) {
            counts.rejected[limit.index()] += 1;
            return Err(limit);
        }
        counts.total += 1;
        *counts.users.entry(of.person).or_default() += 1;
        *counts.clients.entry(client).or_default() += 1;
        if let Some(tenant) = of.tenant {
            *counts.tenants.entry(tenant).or_default() += 1;
        }
        Ok(Claim {
            quotas: Arc::clone(self),
            person: of.person,
            tenant: of.tenant,
            client,
        })
    }

    /// A panic elsewhere cannot leave the counts half changed: nothing here panics between two changes.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

labels! {
    /// The limit that stands against an allocation, or against its peers.
    Limit {
        /// [`Limits::per_user`](super::Limits::per_user), or what the user's credential claims.
        User = "user",
        /// [`Limits::per_client`](super::Limits::per_client).
        Client = "client",
        /// [`Limits::per_tenant`](super::Limits::per_tenant).
        Tenant = "tenant",
        /// [`Limits::total`](super::Limits::total).
        Total = "total",
        /// [`Limits::new_peers`](super::Limits::new_peers).
        NewPeers = "new_peers",
    }
}

/// One allocation that counts. Not `Clone`: it gives itself back once.
#[derive(Debug)]
pub(super) struct Claim {
    quotas: Arc<Quotas>,
    person: u64,
    tenant: Option<NonZeroU64>,
    client: u64,
}

impl Claim {
    /// What the user of the allocation shares with all its others.
    pub(super) fn share(&self, terms: &Terms, now: u64) -> Arc<Share> {
        let mut counts = self.quotas.lock();
        counts.make_room(now);
        let pool = self.tenant.map(|tenant| counts.pool(tenant, terms));
        let share = counts.shares.entry(self.person);
        let share = share.or_insert_with(|| {
            let total = Arc::clone(&self.quotas.total);
            Arc::new(Share::new(terms, pool, total, now))
        });
        share.set_terms(terms);
        Arc::clone(share)
    }

    /// Stands for the user whom it counts against.
    pub(super) fn person(&self) -> u64 {
        self.person
    }

    /// Counts a request that asked for too much of what is no allocation.
    pub(super) fn reject(&self, limit: Limit) {
        self.quotas.lock().rejected[limit.index()] += 1;
    }

    /// Counts for another client from now on.
    ///
    /// # Errors
    /// [`Limit::Client`]; then nothing has changed.
    pub(super) fn move_to(&mut self, client: IpAddr, per_client: u32) -> Result<(), Limit> {
        let client = self.quotas.hasher.hash_one(prefix::network(client));
        if client == self.client {
            return Ok(());
        }
        let mut counts = self.quotas.lock();
        if count(&counts.clients, client) >= per_client {
            return Err(Limit::Client);
        }
        *counts.clients.entry(client).or_default() += 1;
        release(&mut counts.clients, self.client);
        drop(counts);
        self.client = client;
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut counts = self.quotas.lock();
        counts.total -= 1;
        release(&mut counts.users, self.person);
        release(&mut counts.clients, self.client);
        if let Some(tenant) = self.tenant {
            release(&mut counts.tenants, tenant);
        }
    }
}

fn count<K: Eq + Hash>(counts: &HashMap<K, u32>, key: K) -> u32 {
    counts.get(&key).copied().unwrap_or(0)
}

/// Takes one away, and forgets whom nothing is counted for.
fn release<K: Eq + Hash>(counts: &mut HashMap<K, u32>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::Limits;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));
    const NEIGHBOUR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 200));
    const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn terms(limits: Limits) -> Terms {
        Terms::within(&limits, None)
    }

    fn of(person: u64, client: IpAddr) -> Applicant {
        Applicant {
            person,
            tenant: None,
            client,
        }
    }

    #[test]
    fn each_limit_stands_by_itself() {
        let quotas = Arc::new(Quotas::new());
        let (ann, bob) = (quotas.owner(b"ann"), quotas.owner(b"bob"));
        let limits = Limits {
            per_user: 2,
            per_client: 3,
            total: 4,
            ..Limits::default()
        };
        let claim = |person, client| quotas.claim(&of(person, client), &terms(limits));

        let _first = claim(ann, CLIENT).unwrap();
        let _second = claim(ann, STRANGER).unwrap();
        assert_eq!(claim(ann, CLIENT).unwrap_err(), Limit::User);

        let _third = claim(bob, CLIENT).unwrap();
        let fourth = claim(quotas.owner(b"cyd"), NEIGHBOUR).unwrap();
        assert_eq!(claim(bob, STRANGER).unwrap_err(), Limit::Total);

        let wider = terms(Limits { total: 5, ..limits });
        let refused = quotas.claim(&of(bob, NEIGHBOUR), &wider);
        assert_eq!(refused.unwrap_err(), Limit::Client);
        assert_eq!(rejected(&quotas), [1, 1, 0, 1]);
        drop(fourth);
        assert!(claim(bob, NEIGHBOUR).is_ok());
        assert_eq!(rejected(&quotas), [1, 1, 0, 1]);
    }

    fn rejected(quotas: &Quotas) -> [u64; 4] {
        [Limit::User, Limit::Client, Limit::Tenant, Limit::Total]
            .map(|limit| quotas.rejected()[limit.index()])
    }

    #[test]
    fn the_users_of_a_tenant_count_together() {
        let quotas = Arc::new(Quotas::new());
        let limits = Limits {
            per_tenant: 2,
            ..Limits::default()
        };
        let claim = |person, tenant: Option<u64>| {
            let of = Applicant {
                tenant: tenant.and_then(NonZeroU64::new),
                ..of(person, CLIENT)
            };
            quotas.claim(&of, &terms(limits))
        };
        let first = claim(1, Some(7)).unwrap();
        let _second = claim(2, Some(7)).unwrap();
        assert_eq!(claim(3, Some(7)).unwrap_err(), Limit::Tenant);
        // Other tenants, and who belongs to none, are not in question.
        let _others = [claim(3, Some(8)).unwrap(), claim(4, None).unwrap()];
        drop(first);
        let _third = claim(3, Some(7)).unwrap();
        assert_eq!(rejected(&quotas), [0, 0, 1, 0]);
    }

    #[test]
    fn a_claim_moves_with_its_client_if_there_is_room() {
        let quotas = Arc::new(Quotas::new());
        let limits = Limits {
            per_client: 1,
            ..Limits::default()
        };
        let claim = |person, client| quotas.claim(&of(person, client), &terms(limits));
        let mut moving = claim(1, CLIENT).unwrap();
        let staying = claim(2, STRANGER).unwrap();
        assert_eq!(moving.move_to(NEIGHBOUR, 1), Ok(()));
        assert_eq!(moving.move_to(STRANGER, 1), Err(Limit::Client));
        assert!(claim(3, CLIENT).is_err());
        drop(staying);
        assert_eq!(moving.move_to(STRANGER, 1), Ok(()));
        let _third = claim(3, CLIENT).unwrap();
        assert_eq!(quotas.total(), 2);
        drop(moving);
        assert_eq!(quotas.lock().clients.len(), 1);
    }

    #[test]
    fn claims_leave_nothing_behind() {
        let quotas = Arc::new(Quotas::new());
        let claims: Vec<_> = (0u8..10)
            .map(|n| {
                let of = Applicant {
                    person: quotas.owner(&[n / 2]),
                    tenant: NonZeroU64::new((n / 3 + 1).into()),
                    client: IpAddr::from([10, n, 0, 1]),
                };
                quotas.claim(&of, &terms(Limits::default())).unwrap()
            })
            .collect();
        assert_eq!(quotas.total(), 10);

        drop(claims);

        let counts = quotas.lock();
        assert_eq!(counts.total, 0);
        assert!(counts.users.is_empty() && counts.clients.is_empty());
        assert!(counts.tenants.is_empty());
    }

    /// Shares outlive allocations, or who gives one back would begin with fresh buckets; but not for long.
    #[test]
    fn shares_are_forgotten_when_they_are_full_again() {
        let quotas = Arc::new(Quotas::new());
        let mut limits = Limits::default();
        limits.bandwidth.per_user = 8000;
        let terms = terms(limits);
        let second = 1_000_000_000;
        for person in 0..5000 {
            let claim = quotas.claim(&of(person, CLIENT), &terms).unwrap();
            let now = person * second / 1000;
            let share = claim.share(&terms, now);
            assert!(Arc::ptr_eq(&share, &claim.share(&terms, now)));
        }
        // Each is there for half a second, so 500 matter at a time.
        let kept = quotas.lock().shares.len();
        assert!((500..=2000).contains(&kept), "{kept}");
    }
}
