//! A rate that many users share, each as much of it as the others leave, and no less than its part.
//!
//! The rule. Time goes by in slots of 100 ms. A pool of the rate `C` has a *level* `F`: no user of it passes more than
//! `F` (its own bucket runs at that rate). At the beginning of a slot the level is set by what passed in the last one,
//! `A`, and how many users there were, `n`: it becomes `F · C' / A`, but not less than `C / n` and not more than `C`.
//! While demand stays what it is, that leads in a few slots to the one level at which all of `C` is used and whoever is
//! refused anything has got as much as anybody (max-min fairness): who wants little gets all of it, those who want more
//! share the rest evenly, whatever they send. `C'` is `C`, a little more while the pool's bucket is fuller than half,
//! and less while it is emptier.
//!
//! The bucket holds the cap whatever the users do: half a second of `C`. When it is empty, there is a reserve of another
//! half second, from which each user takes at the rate `C / n` and not faster: so nobody can empty it for the others, and
//! who wants no more than an even part is not refused. Over any time no more passes than `C`, and one second of it, and
//! what is on loan.
//!
//! A worker takes loans of about 3 ms of `C` from the bucket and spends them by itself: the words that workers share are
//! written a few hundred times a second, and once a slot for each user, not once a packet.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::bucket::{Bucket, cost, nanos};

/// How deep buckets are, in time: half a second of their rate.
pub(super) const DEPTH: u64 = nanos(Duration::from_millis(500));
/// As long as levels stay what they are.
pub(super) const SLOT: u64 = nanos(Duration::from_millis(100));
/// What is behind the bottom of a pool's bucket, for those who want no more than their part.
const RESERVE: u64 = DEPTH;
/// A loan is this part of what passes in a second.
const LOANS: u64 = 320;

/// A rate that many share, for each direction by itself.
#[derive(Debug)]
pub(super) struct Pool {
    /// In bytes a second; 0 is none.
    rate: AtomicU64,
    lanes: [Lane; 2],
}

/// One direction.
#[derive(Debug)]
struct Lane {
    bucket: Bucket,
    level: AtomicU64,
    slot: AtomicU64,
    /// What has passed in this slot.
    passed: AtomicU64,
    /// The users that have sent in this slot.
    active: AtomicU64,
    /// The users to reckon with: as many as in the last slot; fewer only by and by, should they come and go.
    users: AtomicU64,
    loans: Box<[Loan]>,
}

/// What one worker may let pass without asking. On a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Loan(AtomicU64);

impl Pool {
    /// A pool for up to `spenders` workers to have loans of, if there are more they share them.
    pub(super) fn new(rate: u64, spenders: usize) -> Self {
        let lane = || Lane {
            bucket: Bucket::empty(0, 0),
            level: AtomicU64::new(rate),
            slot: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            active: AtomicU64::new(0),
            users: AtomicU64::new(0),
            loans: (0..spenders.max(1)).map(|_| Loan::default()).collect(),
        };
        Self {
            rate: AtomicU64::new(rate),
            lanes: [lane(), lane()],
        }
    }

    /// Changes the rate, from now on.
    pub(super) fn set_rate(&self, rate: u64) {
        if self.rate.swap(rate, Relaxed) != rate {
            for lane in &self.lanes {
                lane.level.store(rate, Relaxed);
            }
        }
    }

    /// What one user may pass at the most, in bytes a second; 0 is without limit.
    #[inline]
    pub(super) fn level(&self, lane: usize) -> u64 {
        match self.rate.load(Relaxed) {
            0 => 0,
            rate => self.lanes[lane].level.load(Relaxed).clamp(1, rate),
        }
    }

    /// Counts a user that sends for the first time in this slot.
    pub(super) fn join(&self, lane: usize, now: u64) {
        let rate = self.rate.load(Relaxed);
        if rate != 0 {
            self.lanes[lane].turn(rate, now);
            self.lanes[lane].active.fetch_add(1, Relaxed);
        }
    }

    /// Takes `bytes` for a user that has kept to its level. `part` is the user's bucket for what it takes from the
    /// reserve.
    ///
    /// # Errors
    /// After how many nanoseconds it is worth trying again.
    #[inline]
    pub(super) fn take(
        &self,
        (lane, spender): (usize, usize),
        bytes: u64,
        part: &Bucket,
        now: u64,
    ) -> Result<(), u64> {
        let rate = self.rate.load(Relaxed);
        if rate == 0 {
            return Ok(());
        }
        let lane = &self.lanes[lane];
        let loan = &lane.loans[spender % lane.loans.len()];
        if loan.spend(bytes) {
            return Ok(());
        }
        lane.borrow(rate, loan, bytes, part, now)
    }

    /// Gives back what was taken and not used after all.
    pub(super) fn give_back(&self, (lane, spender): (usize, usize), bytes: u64) {
        if self.rate.load(Relaxed) != 0 {
            let loans = &self.lanes[lane].loans;
            loans[spender % loans.len()].0.fetch_add(bytes, Relaxed);
        }
    }

    /// Whether nothing is owed any more: then a new pool would be as good.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        self.lanes.iter().all(|lane| lane.bucket.owed(now) == 0)
    }
}

impl Lane {
    #[cold]
    fn borrow(
        &self,
        rate: u64,
        loan: &Loan,
        bytes: u64,
        part: &Bucket,
        now: u64,
    ) -> Result<(), u64> {
        self.turn(rate, now);
        let wanted = bytes.max(rate / LOANS);
        if let Err(wait) = self.bucket.take(cost(wanted, rate), now, DEPTH) {
            let users = self.users().max(self.active.load(Relaxed));
            let price = cost(bytes, (rate / users).max(1));
            part.take(price, now, SLOT).map_err(|_| wait)?;
            if let Err(wait) = self.bucket.take(cost(bytes, rate), now, DEPTH + RESERVE) {
                part.give_back(price);
                return Err(wait);
            }
            self.passed.fetch_add(bytes, Relaxed);
            return Ok(());
        }
        self.passed.fetch_add(wanted, Relaxed);
        loan.0.fetch_add(wanted - bytes, Relaxed);
        Ok(())
    }

    /// Sets the level anew if another slot has begun.
    fn turn(&self, rate: u64, now: u64) {
        let slot = now / SLOT;
        let last = self.slot.load(Relaxed);
        let is_first = last < slot
            && self
                .slot
                .compare_exchange(last, slot, Relaxed, Relaxed)
                .is_ok();
        if !is_first {
            return;
        }
        let gone = slot - last;
        let passed = self.passed.swap(0, Relaxed);
        let active = self.active.swap(0, Relaxed);
        // A quarter of them may have left in each slot.
        let mut users = self.users.load(Relaxed);
        for _ in 0..gone.min(64) {
            users -= users.div_ceil(4);
        }
        let users = users.max(active).max(1);
        self.users.store(users, Relaxed);

        let owed = self.bucket.owed(now).min(2 * DEPTH);
        let target = scaled(rate, 11 * DEPTH - 2 * owed, 10 * DEPTH);
        let level = self.level.load(Relaxed);
        let per_second = scaled(passed, nanos(Duration::from_secs(1)), gone * SLOT);
        let level = match per_second {
            0 => rate,
            per_second => scaled(level, target, per_second),
        };
        self.level.store(level.max(rate / users).min(rate), Relaxed);
    }

    fn users(&self) -> u64 {
        self.users.load(Relaxed).max(1)
    }
}

impl Loan {
    #[inline]
    fn spend(&self, bytes: u64) -> bool {
        let rest = |left: u64| left.checked_sub(bytes);
        self.0.fetch_update(Relaxed, Relaxed, rest).is_ok()
    }
}

/// `value` by `over / under`.
fn scaled(value: u64, over: u64, under: u64) -> u64 {
    let scaled = u128::from(value) * u128::from(over) / u128::from(under.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}
