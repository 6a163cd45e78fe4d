//! How many allocations a user, a network and everybody together may have.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::verdict::labels;
use super::{Limits, prefix};

/// The allocations that are counted against [`Limits`], for all workers of a process: the one lock of the machine,
/// taken when an allocation is made and when it ends.
#[derive(Debug, Default)]
pub struct Quotas {
    counts: Mutex<Counts>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Counts {
    users: HashMap<u64, u32>,
    clients: HashMap<u64, u32>,
    total: u32,
    rejected: [u64; Limit::ALL.len()],
}

impl Counts {
    /// The first limit that one more allocation would break.
    fn in_the_way(&self, owner: u64, client: u64, limits: &Limits) -> Option<Limit> {
        if self.total >= limits.total {
            Some(Limit::Total)
        } else if count(&self.users, owner) >= limits.per_user {
            Some(Limit::User)
        } else if count(&self.clients, client) >= limits.per_client {
            Some(Limit::Client)
        } else {
            None
        }
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

    /// How many allocations there are altogether.
    pub fn total(&self) -> u32 {
        self.lock().total
    }

    /// How many allocations there are of a user, of the clients of a network, and altogether.
    pub(super) fn counted(&self, owner: u64, client: IpAddr) -> (u32, u32, u32) {
        let client = self.hasher.hash_one(prefix::network(client));
        let counts = self.lock();
        let (users, clients) = (count(&counts.users, owner), count(&counts.clients, client));
        (users, clients, counts.total)
    }

    /// How often each limit stood against an allocation.
    pub fn rejected(&self) -> [u64; Limit::ALL.len()] {
        self.lock().rejected
    }

    /// Counts one allocation of `owner` for a client, until the claim is dropped.
    ///
    /// # Errors
    /// The limit that stands against it.
    pub fn claim(
        self: &Arc<Self>,
        owner: u64,
        client: IpAddr,
        limits: &Limits,
    ) -> Result<Claim, Limit> {
        let client = self.hasher.hash_one(prefix::network(client));
        let mut counts = self.lock();
        if let Some(limit) = counts.in_the_way(owner, client, limits) {
            counts.rejected[limit.index()] += 1;
            return Err(limit);
        }
        counts.total += 1;
        *counts.users.entry(owner).or_default() += 1;
        *counts.clients.entry(client).or_default() += 1;
        Ok(Claim {
            quotas: Arc::clone(self),
            owner,
            client,
        })
    }

    /// A panic elsewhere cannot leave the counts half changed: nothing here panics between two changes.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

labels! {
    /// The limit that stands against an allocation.
    Limit {
        /// [`Limits::per_user`].
        User = "user",
        /// [`Limits::per_client`].
        Client = "client",
        /// [`Limits::total`].
        Total = "total",
    }
}

/// One allocation that counts. Not `Clone`: it gives itself back once.
#[derive(Debug)]
pub struct Claim {
    quotas: Arc<Quotas>,
    owner: u64,
    client: u64,
}

impl Claim {
    /// Counts for another client from now on.
    ///
    /// # Errors
    /// [`Limit::Client`]; then nothing has changed.
    pub fn move_to(&mut self, client: IpAddr, limits: &Limits) -> Result<(), Limit> {
        let client = self.quotas.hasher.hash_one(prefix::network(client));
        if client == self.client {
            return Ok(());
        }
        let mut counts = self.quotas.lock();
        if count(&counts.clients, client) >= limits.per_client {
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
        release(&mut counts.users, self.owner);
        release(&mut counts.clients, self.client);
    }
}

fn count(counts: &HashMap<u64, u32>, key: u64) -> u32 {
    counts.get(&key).copied().unwrap_or(0)
}

/// Takes one away, and forgets whom nothing is counted for.
fn release(counts: &mut HashMap<u64, u32>, key: u64) {
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

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));
    const NEIGHBOUR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 200));
    const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

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

        let _first = quotas.claim(ann, CLIENT, &limits).unwrap();
        let _second = quotas.claim(ann, STRANGER, &limits).unwrap();
        assert_eq!(quotas.claim(ann, CLIENT, &limits).unwrap_err(), Limit::User);

        let _third = quotas.claim(bob, CLIENT, &limits).unwrap();
        let fourth = quotas
            .claim(quotas.owner(b"cyd"), NEIGHBOUR, &limits)
            .unwrap();
        assert_eq!(
            quotas.claim(bob, STRANGER, &limits).unwrap_err(),
            Limit::Total
        );

        let wider = Limits { total: 5, ..limits };
        assert_eq!(
            quotas.claim(bob, NEIGHBOUR, &wider).unwrap_err(),
            Limit::Client
        );
        assert_eq!(quotas.rejected(), [1, 1, 1]);
        drop(fourth);
        assert!(quotas.claim(bob, NEIGHBOUR, &limits).is_ok());
        assert_eq!(quotas.rejected(), [1, 1, 1]);
    }

    #[test]
    fn a_claim_moves_with_its_client_if_there_is_room() {
        let quotas = Arc::new(Quotas::new());
        let limits = Limits {
            per_client: 1,
            ..Limits::default()
        };
        let mut moving = quotas.claim(1, CLIENT, &limits).unwrap();
        let staying = quotas.claim(2, STRANGER, &limits).unwrap();
        assert_eq!(moving.move_to(NEIGHBOUR, &limits), Ok(()));
        assert_eq!(moving.move_to(STRANGER, &limits), Err(Limit::Client));
        assert!(quotas.claim(3, CLIENT, &limits).is_err());
        drop(staying);
        assert_eq!(moving.move_to(STRANGER, &limits), Ok(()));
        let _third = quotas.claim(3, CLIENT, &limits).unwrap();
        assert_eq!(quotas.total(), 2);
        drop(moving);
        assert_eq!(quotas.lock().clients.len(), 1);
    }

    #[test]
    fn claims_leave_nothing_behind() {
        let quotas = Arc::new(Quotas::new());
        let claims: Vec<_> = (0u8..10)
            .map(|n| {
                quotas
                    .claim(
                        quotas.owner(&[n / 2]),
                        IpAddr::from([10, n, 0, 1]),
                        &Limits::default(),
                    )
                    .unwrap()
            })
            .collect();
        assert_eq!(quotas.total(), 10);

        drop(claims);

        let counts = quotas.lock();
        assert_eq!(counts.total, 0);
        assert!(counts.users.is_empty() && counts.clients.is_empty());
    }
}
