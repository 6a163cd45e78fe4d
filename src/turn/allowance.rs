//! How much an allocation may relay: by itself, with the others of its user, of its tenant, and with everybody.
//!
//! Each rate holds for each direction by itself. What is above it is dropped where it is datagrams, and not taken in
//! where it is a stream. An allocation that nothing limits has no [`Allowance`], and pays for the question alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::Cause;
use super::bucket::{Bucket, cost, nanos};
use super::pool::{DEPTH, Pool, SLOT};

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
    share: Arc<Share>,
}

impl Allowance {
    pub(super) fn new(
        rate: u64,
        share: Arc<Share>,
        worker: usize,
        (epoch, now): (Instant, Instant),
    ) -> Self {
        let since = nanos(now.saturating_duration_since(epoch));
        Self {
            epoch,
            worker,
            rate: AtomicU64::new(rate),
            lanes: [(); 2].map(|()| Bucket::empty(since, DEPTH)),
            share,
        }
    }

    /// Changes what the allocation may relay by itself.
    pub(super) fn set_rate(&self, rate: u64) {
        self.rate.store(rate, Relaxed);
    }

    /// Whether so many bytes may go this way at once; if so they are paid for.
    ///
    /// # Errors
    /// The limit that they are above; nothing is paid for then.
    #[inline]
    pub fn pass(&self, towards: Towards, bytes: usize, now: Instant) -> Result<(), Excess> {
        let (lane, bytes) = (towards as usize, bytes as u64);
        let now = nanos(now.saturating_duration_since(self.epoch));
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
    tenant: Option<Arc<Pool>>,
    total: Arc<Pool>,
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
    pub(super) fn new(rate: u64, tenant: Option<Arc<Pool>>, total: Arc<Pool>, now: u64) -> Self {
        let lane = || Lane {
            bucket: Bucket::empty(now, DEPTH),
            slot: AtomicU64::new(0),
            parts: [(); 2].map(|()| Bucket::empty(now, SLOT)),
        };
        Self {
            rate: AtomicU64::new(rate),
            lanes: [lane(), lane()],
            tenant,
            total,
        }
    }

    /// Changes what the user may relay.
    pub(super) fn set_rate(&self, rate: u64) {
        self.rate.store(rate, Relaxed);
    }

    /// Whether nothing is owed any more: then a new share would be as good.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        self.lanes.iter().all(|lane| lane.bucket.owed(now) == 0)
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
