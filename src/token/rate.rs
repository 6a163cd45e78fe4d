//! How often the service may be asked: by one user, for one tenant, from one place. Memory has a bound.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::refusal::{Kind, Refusal};

/// Requests a minute; 0 for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// For one user.
    pub subject: u32,
    /// For all users of one tenant.
    pub tenant: u32,
    /// From one /24 (IPv4) or /56 (IPv6); backends with a key are not counted.
    pub source: u32,
}

/// The places of one limit that are told apart; beyond, strangers share places.
const PLACES: usize = 1 << 17;
/// How many places those share.
const SHARED: u64 = 1 << 12;

/// So many requests find all places taken before it is looked whether some are free again.
const BETWEEN_SWEEPS: u32 = 1 << 10;

/// What was asked for lately.
pub(super) struct Limits {
    subject: Option<Limit>,
    tenant: Option<Limit>,
    source: Option<Limit>,
}

impl Limits {
    pub(super) fn new(rates: Rates) -> Self {
        Self {
            subject: Limit::new(rates.subject),
            tenant: Limit::new(rates.tenant),
            source: Limit::new(rates.source),
        }
    }

    pub(super) fn subject(&self, tenant: &str, subject: &str) -> Result<(), Refusal> {
        check(self.subject.as_ref(), &(tenant, subject), "this user")
    }

    pub(super) fn tenant(&self, tenant: &str) -> Result<(), Refusal> {
        check(self.tenant.as_ref(), &tenant, "this tenant")
    }

    /// Counts by itself: users cannot use up what it takes to stop them.
    pub(super) fn revocation(&self, tenant: &str) -> Result<(), Refusal> {
        check(self.tenant.as_ref(), &(tenant, "revocation"), "this tenant")
    }

    pub(super) fn source(&self, source: IpAddr) -> Result<(), Refusal> {
        check(self.source.as_ref(), &prefix(source), "this network")
    }
}

/// One limit for many keys, by their hashes.
struct Limit {
    limiter: DefaultKeyedRateLimiter<u64>,
    clock: DefaultClock,
    hasher: RandomState,
    places: usize,
    /// Requests that came when all places were taken.
    crowded: AtomicU32,
}

impl Limit {
    fn new(per_minute: u32) -> Option<Self> {
        let quota = Quota::per_minute(NonZeroU32::new(per_minute)?);
        Some(Self {
            limiter: RateLimiter::keyed(quota),
            clock: DefaultClock::default(),
            hasher: RandomState::new(),
            places: PLACES,
            crowded: AtomicU32::new(0),
        })
    }

    /// Counts one request; or says how long to wait.
    fn count(&self, key: &impl Hash) -> Result<(), Duration> {
        let mut place = self.hasher.hash_one(key);
        if self.limiter.len() >= self.places {
            // All places are looked at for those that are free again: not for each who comes.
            if self
                .crowded
                .fetch_add(1, Ordering::Relaxed)
                .is_multiple_of(BETWEEN_SWEEPS)
            {
                self.limiter.retain_recent();
            }
            if self.limiter.len() >= self.places {
                place %= SHARED;
            }
        }
        self.limiter
            .check_key(&place)
            .map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }
}

fn check(limit: Option<&Limit>, key: &impl Hash, whose: &str) -> Result<(), Refusal> {
    let Some(limit) = limit else {
        return Ok(());
    };
    limit.count(key).map_err(|wait| {
        let seconds = wait.as_secs() + 1;
        Refusal::new(
            Kind::TooMany(seconds),
            format!("too many requests of {whose}; try again in {seconds} s"),
        )
    })
}

/// What belongs to one subscriber, as a rule.
fn prefix(source: IpAddr) -> [u8; 8] {
    let mut prefix = [0; 8];
    match source.to_canonical() {
        IpAddr::V4(ip) => prefix[5..].copy_from_slice(&ip.octets()[..3]),
        IpAddr::V6(ip) => prefix[..7].copy_from_slice(&ip.octets()[..7]),
    }
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_count() {
        let limits = Limits::new(Rates {
            subject: 2,
            tenant: 0,
            source: 1,
        });
        for _ in 0..2 {
            limits.subject("acme", "ann").unwrap();
            limits.tenant("acme").unwrap();
        }
        let refusal = limits.subject("acme", "ann").unwrap_err();
        assert!(
            matches!(refusal.kind, Kind::TooMany(1..=31)),
            "{:?}",
            refusal.kind
        );
        limits.subject("acme", "bob").unwrap();
        limits.subject("other", "ann").unwrap();
        limits.source("192.0.2.1".parse().unwrap()).unwrap();
        limits.source("192.0.2.255".parse().unwrap()).unwrap_err();
        limits
            .source("::ffff:192.0.2.7".parse().unwrap())
            .unwrap_err();
        limits.source("192.0.3.1".parse().unwrap()).unwrap();
        limits.source("2001:db8::1".parse().unwrap()).unwrap();
        limits
            .source("2001:db8:0:ff::1".parse().unwrap())
            .unwrap_err();
        limits.source("2001:db8:0:100::1".parse().unwrap()).unwrap();
    }

    #[test]
    fn any_number_of_keys_has_a_bound() {
        let mut limit = Limit::new(1).unwrap();
        limit.places = 100;
        let refused = (0..100_000_u32).filter(|key| limit.count(key).is_err());
        assert!(refused.count() > 90_000, "those beyond share places");
        assert!(limit.limiter.len() <= 100 + SHARED as usize);
    }
}
