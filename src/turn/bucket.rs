//! A token bucket in one word, so that threads can share it without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A token bucket, as the moment up to which all that has passed is paid for, in nanoseconds of a clock that its users
/// share.
///
/// The bucket is full when that moment is past, and overdrawn when it lies further ahead than the bucket is deep. What
/// is taken from a bucket that is not overdrawn passes whole, however large it is, and is paid for by what comes after:
/// so no rate is too small for a datagram, and over any time no more passes than the rate gives, and the depth, and one
/// datagram.
#[derive(Debug)]
pub(super) struct Bucket(AtomicU64);

impl Bucket {
    /// An empty bucket: whoever makes many has no more of them than of one.
    pub(super) fn empty(now: u64, depth: u64) -> Self {
        Self(AtomicU64::new(now.saturating_add(depth)))
    }

    /// Takes what takes `cost` nanoseconds to pay for.
    ///
    /// # Errors
    /// In how many nanoseconds the bucket will no longer be overdrawn, if it is.
    #[inline]
    pub(super) fn take(&self, cost: u64, now: u64, depth: u64) -> Result<(), u64> {
        let full = now.saturating_add(depth);
        let mut paid = self.0.load(Ordering::Relaxed);
        loop {
            if paid > full {
                return Err(paid - full);
            }
            let next = paid.max(now).saturating_add(cost);
            match self
                .0
                .compare_exchange_weak(paid, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return Ok(()),
                Err(other) => paid = other,
            }
        }
    }

    /// Gives back what was taken and not used after all.
    pub(super) fn give_back(&self, cost: u64) {
        self.0.fetch_sub(cost, Ordering::Relaxed);
    }

    /// How much is owed, in nanoseconds of the rate: nothing of a full bucket.
    pub(super) fn owed(&self, now: u64) -> u64 {
        self.0.load(Ordering::Relaxed).saturating_sub(now)
    }
}

/// How long `amount` takes to pay for at `rate` a second, in nanoseconds, rounded up: never more than the rate. A rate
/// of 0 is none: nothing costs anything.
#[inline]
pub(super) fn cost(amount: u64, rate: u64) -> u64 {
    if rate == 0 {
        return 0;
    }
    match amount.checked_mul(SECOND) {
        Some(scaled) => scaled.div_ceil(rate),
        None => (amount / rate).saturating_mul(SECOND),
    }
}

/// The one of two rates that leaves less; 0 is none.
pub(super) fn stricter(one: u64, other: u64) -> u64 {
    match (one, other) {
        (0, rate) | (rate, 0) => rate,
        (one, other) => one.min(other),
    }
}

/// A time as buckets count it.
pub(super) const fn nanos(time: Duration) -> u64 {
    // More than 500 years.
    time.as_nanos() as u64
}

const SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const DEPTH: u64 = SECOND / 2;

    fn passes(bucket: &Bucket, times: usize, bytes: u64, rate: u64, now: u64) -> usize {
        (0..times)
            .take_while(|_| bucket.take(cost(bytes, rate), now, DEPTH).is_ok())
            .count()
    }

    #[test]
    fn a_full_bucket_gives_its_depth_and_one_more() {
        let bucket = Bucket(AtomicU64::new(0));
        // 1000 bytes a second: half a second is five times 100 bytes, and the sixth overdraws it.
        assert_eq!(passes(&bucket, 100, 100, 1000, 7 * SECOND), 6);
        assert_eq!(bucket.owed(7 * SECOND), 600_000_000);
        assert_eq!(
            bucket.take(cost(1, 1000), 7 * SECOND, DEPTH),
            Err(100_000_000)
        );
        // It pays for one more in just the time that is told.
        let then = 7 * SECOND + 100_000_000;
        assert!(bucket.take(cost(1, 1000), then - 1, DEPTH).is_err());
        assert_eq!(bucket.take(cost(1, 1000), then, DEPTH), Ok(()));
    }

    #[test]
    fn an_empty_bucket_gives_one_and_then_the_rate() {
        let now = 3 * SECOND;
        let bucket = Bucket::empty(now, DEPTH);
        assert_eq!(passes(&bucket, 10, 100, 1000, now), 1);
        let later = (1..=100).map(|tenth| now + tenth * SECOND / 10);
        let passed: usize = later.map(|at| passes(&bucket, 10, 100, 1000, at)).sum();
        assert_eq!(passed, 100);
    }

    #[test]
    fn long_idleness_fills_it_once() {
        let bucket = Bucket(AtomicU64::new(0));
        for now in [SECOND, 400 * 365 * 86_400 * SECOND, u64::MAX - 3 * SECOND] {
            assert_eq!(passes(&bucket, 100, 100, 1000, now), 6, "{now}");
        }
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let bucket = Bucket(AtomicU64::new(0));
        bucket.take(SECOND, SECOND, DEPTH).unwrap();
        assert!(bucket.take(1, SECOND, DEPTH).is_err());
        bucket.give_back(SECOND);
        assert_eq!(bucket.owed(SECOND), 0);
    }

    #[test]
    fn nothing_is_cheaper_than_its_rate() {
        assert_eq!(cost(0, 1), 0);
        assert_eq!(cost(1, 3), 333_333_334);
        assert_eq!(cost(65_535, 1), 65_535 * SECOND);
        assert_eq!(cost(1 << 40, 1 << 40), SECOND);
        assert_eq!(cost(1500, 0), 0);
        assert_eq!(stricter(0, 7), 7);
        assert_eq!(stricter(9, 7), 7);
        assert_eq!(stricter(0, 0), 0);
    }

    #[test]
    fn threads_together_take_no_more_than_one_alone() {
        let bucket = Bucket(AtomicU64::new(0));
        let taken: usize = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(|| passes(&bucket, 100_000, 1, 1000, 1)));
            threads.map(|thread| thread.join().unwrap()).iter().sum()
        });
        assert_eq!(taken, 501);
    }
}
