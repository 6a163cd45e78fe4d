//! How much an allocation may relay: by itself, with the others of its user, of its tenant, and with everybody.
//!
//! Each rate holds for each direction by itself. What is above it is dropped where it is datagrams, and not taken in
//! where it is a stream. An allocation that nothing limits has no [`Allowance`], and pays for the question alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::Cause;
use super::bucket::{Bucket, cost, nanos, stricter};
use super::pool::{DEPTH, Pool, SLOT};
use super::terms::Terms;

/// Which way something goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    /// From the client to a peer.
    Peer,
    /// From a peer to the client.
    Client,
}

/// What is above a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    /// Which limit it is.
    pub cause: Cause,
    /// How long to wait before it is worth trying again.
    pub wait: Duration,
}

/// How much one allocation may relay. Shared by whoever relays for it.
#[derive(Debug)]
pub struct Allowance {
    /// Buckets count from here.
    epoch: Instant,
    /// Whose loans it lives on.
    worker: usize,
    /// Bytes a second; 0 is without limit.
    rate: AtomicU64,
    lanes: [Bucket; 2],
    peers: Newcomers,
    share: Arc<Share>,
}

impl Allowance {
    pub(super) fn new(
        terms: &Terms,
        share: Arc<Share>,
        worker: usize,
        (epoch, now): (Instant, Instant),
    ) -> Self {
        let since = nanos(now.saturating_duration_since(epoch));
        Self {
            epoch,
            worker,
            rate: AtomicU64::new(terms.rate),
            lanes: [(); 2].map(|()| Bucket::empty(since, DEPTH)),
            peers: Newcomers::new(terms.new_peers.per_allocation),
            share,
        }
    }

    /// Changes what the allocation may relay by itself, and to how many.
    pub(super) fn set_terms(&self, terms: &Terms) {
        self.rate.store(terms.rate, Relaxed);
        let most = terms.new_peers.per_allocation;
        self.peers.per_minute.store(most, Relaxed);
    }

    /// Whether so many new peers may be added; if so they are counted.
    pub(super) fn admits(&self, newcomers: usize, now: Instant) -> bool {
        let now = self.since(now);
        let Some(price) = self.peers.admit(newcomers, now) else {
            return false;
        };
        let admitted = self.share.peers.admit(newcomers, now).is_some();
        if !admitted {
            self.peers.bucket.give_back(price);
        }
        admitted
    }

    /// How much of a stream is taken in at once: what may pass in a fiftieth of a second, but enough to be worth it.
    pub fn portion(&self, towards: Towards) -> usize {
        let (shared, _) = self.share.strictest(towards as usize);
        match stricter(self.rate.load(Relaxed), shared) {
            0 => usize::MAX,
            rate => usize::try_from(rate / 50)
                .unwrap_or(usize::MAX)
                .max(LEAST_PORTION),
        }
    }

    /// The time as buckets count it.
    fn since(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.epoch))
    }

    /// Whether so many bytes may go this way at once; if so they are paid for.
    ///
    /// # Errors
    /// The limit that they are above; nothing is paid for then.
    #[inline]
    pub fn pass(&self, towards: Towards, bytes: usize, now: Instant) -> Result<(), Excess> {
        let (lane, bytes) = (towards as usize, bytes as u64);
        let now = self.since(now);
        let price = cost(bytes, self.rate.load(Relaxed));
        let own = &self.lanes[lane];
        own.take(price, now, DEPTH)
            .map_err(|wait| Excess::new(Cause::Bandwidth, wait))?;
        self.share
            .pass((lane, self.worker), bytes, now)
            .inspect_err(|_| own.give_back(price))
    }
}

impl Excess {
    fn new(cause: Cause, wait: u64) -> Self {
        // What others do may change it, so it is looked at again soon.
        let wait = wait.clamp(1_000_000, SLOT / 2);
        Self {
            cause,
            wait: Duration::from_nanos(wait),
        }
    }
}

/// How much the allocations of one user may relay together, on whichever worker they are.
#[derive(Debug)]
pub(super) struct Share {
    /// Bytes a second; 0 is without limit.
    rate: AtomicU64,
    lanes: [Lane; 2],
    peers: Newcomers,
    tenant: Option<Arc<Pool>>,
    total: Arc<Pool>,
}

/// How many new peers there may be in a minute.
#[derive(Debug)]
struct Newcomers {
    /// 0 is without limit.
    per_minute: AtomicU32,
    bucket: Bucket,
}

impl Newcomers {
    fn new(per_minute: u32) -> Self {
        Self {
            per_minute: AtomicU32::new(per_minute),
            bucket: Bucket::empty(0, 0),
        }
    }

    /// Counts all of them, and says what that cost, or counts none.
    fn admit(&self, newcomers: usize, now: u64) -> Option<u64> {
        let each = cost(60, self.per_minute.load(Relaxed).into());
        let depth = MINUTE.saturating_sub(each);
        let mut paid = 0;
        for _ in 0..newcomers {
            if self.bucket.take(each, now, depth).is_err() {
                self.bucket.give_back(paid);
                return None;
            }
            paid += each;
        }
        Some(paid)
    }
}

/// One direction.
#[derive(Debug)]
struct Lane {
    bucket: Bucket,
    /// When it was last counted among the users of its pools.
    slot: AtomicU64,
    /// What it has taken from the reserves of its pools.
    parts: [Bucket; 2],
}

impl Share {
    pub(super) fn new(
        terms: &Terms,
        tenant: Option<Arc<Pool>>,
        total: Arc<Pool>,
        now: u64,
    ) -> Self {
        let lane = || Lane {
            bucket: Bucket::empty(now, DEPTH),
            slot: AtomicU64::new(0),
            parts: [(); 2].map(|()| Bucket::empty(now, SLOT)),
        };
        Self {
            rate: AtomicU64::new(terms.user_rate),
            lanes: [lane(), lane()],
            peers: Newcomers::new(terms.new_peers.per_user),
            tenant,
            total,
        }
    }

    /// Changes what the user may relay, and to how many.
    pub(super) fn set_terms(&self, terms: &Terms) {
        self.rate.store(terms.user_rate, Relaxed);
        let most = terms.new_peers.per_user;
        self.peers.per_minute.store(most, Relaxed);
    }

    /// Whether nothing is owed any more: then a new share would be as good.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        let buckets = self.lanes.iter().map(|lane| &lane.bucket);
        buckets
            .chain([&self.peers.bucket])
            .all(|bucket| bucket.owed(now) == 0)
    }

    #[inline]
    fn pass(&self, (lane, worker): (usize, usize), bytes: u64, now: u64) -> Result<(), Excess> {
        let (rate, cause) = self.strictest(lane);
        if rate == 0 {
            return Ok(());
        }
        let own = &self.lanes[lane];
        self.be_counted(lane, now);
        let price = cost(bytes, rate);
        own.bucket
            .take(price, now, DEPTH)
            .map_err(|wait| Excess::new(cause, wait))?;
        let at = (lane, worker);
        let [of_tenant, of_total] = &own.parts;
        if let Some(tenant) = &self.tenant
            && let Err(wait) = tenant.take(at, bytes, of_tenant, now)
        {
            own.bucket.give_back(price);
            return Err(Excess::new(Cause::TenantBandwidth, wait));
        }
        self.total.take(at, bytes, of_total, now).map_err(|wait| {
            own.bucket.give_back(price);
            if let Some(tenant) = &self.tenant {
                tenant.give_back(at, bytes);
            }
            Excess::new(Cause::TotalBandwidth, wait)
        })
    }

    /// The lowest of what limits a user, and which it is.
    fn strictest(&self, lane: usize) -> (u64, Cause) {
        let tenant = self.tenant.as_ref().map_or(0, |pool| pool.level(lane));
        [
            (self.rate.load(Relaxed), Cause::UserBandwidth),
            (tenant, Cause::TenantBandwidth),
            (self.total.level(lane), Cause::TotalBandwidth),
        ]
        .into_iter()
        .filter(|(rate, _)| *rate != 0)
        .min_by_key(|(rate, _)| *rate)
        .unwrap_or((0, Cause::Bandwidth))
    }

    /// Counts as one of the users of this slot.
    fn be_counted(&self, lane: usize, now: u64) {
        let slot = now / SLOT;
        let counted = &self.lanes[lane].slot;
        if counted.load(Relaxed) != slot && counted.swap(slot, Relaxed) != slot {
            for pool in self.tenant.iter().chain([&self.total]) {
                pool.join(lane, now);
            }
        }
    }
}

/// What is taken in of a stream at the least, however long it takes to pay for.
const LEAST_PORTION: usize = 1024;

const MINUTE: u64 = nanos(Duration::from_secs(60));
