//! How long it takes to pass on what has come in.

use std::ops::AddAssign;
use std::time::Duration;

/// Upper bounds of the times that are counted apart; one more counter takes what is longer.
pub const DELAY_BOUNDS: [Duration; 15] = [
    Duration::from_micros(10),
    Duration::from_micros(25),
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_micros(1_000),
    Duration::from_micros(2_500),
    Duration::from_micros(5_000),
    Duration::from_micros(10_000),
    Duration::from_micros(25_000),
    Duration::from_micros(50_000),
    Duration::from_micros(100_000),
    Duration::from_micros(250_000),
    Duration::from_secs(1),
];

/// How long a worker had what it sent: from when it woke up to when the kernel had taken everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    /// Rounds that took at most as long as the bound of the same index; the last: longer.
    pub rounds: [u64; DELAY_BOUNDS.len() + 1],
    /// All of them together.
    pub sum: Duration,
}

impl Delays {
    /// Counts one round.
    pub fn took(&mut self, time: Duration) {
        let bucket = DELAY_BOUNDS.iter().position(|bound| time <= *bound);
        self.rounds[bucket.unwrap_or(DELAY_BOUNDS.len())] += 1;
        self.sum = self.sum.saturating_add(time);
    }
}

impl AddAssign<&Self> for Delays {
    fn add_assign(&mut self, other: &Self) {
        super::add_all(&mut self.rounds, &other.rounds);
        self.sum = self.sum.saturating_add(other.sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_below_its_bound() {
        assert!(DELAY_BOUNDS.is_sorted());
        let mut delays = Delays::default();
        for micros in [0, 10, 11, 2_000_000] {
            delays.took(Duration::from_micros(micros));
        }
        let mut both = delays;
        both += &delays;
        assert_eq!((both.rounds[0], both.rounds[1]), (4, 2));
        assert_eq!(both.rounds[DELAY_BOUNDS.len()], 2);
        assert_eq!(both.rounds.iter().sum::<u64>(), 8);
        assert_eq!(both.sum, Duration::from_micros(2 * 2_000_021));
    }
}
