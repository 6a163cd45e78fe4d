//! Rates: counters looked at twice.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// Two looks that are closer than this say little.
pub(super) const SHORTEST: Duration = Duration::from_millis(500);
/// Two looks that are further apart than this say nothing about this moment.
const LONGEST: Duration = Duration::from_secs(30);

/// Bits to peers and to clients.
pub(super) type Counters = [u64; 2];

/// The last two looks at counters with a name.
pub(super) struct Looks<K> {
    older: Option<Look<K>>,
    newer: Option<Look<K>>,
}

struct Look<K> {
    at: Instant,
    counters: HashMap<K, Counters>,
}

impl<K> Default for Looks<K> {
    fn default() -> Self {
        Self {
            older: None,
            newer: None,
        }
    }
}

impl<K: Eq + Hash> Looks<K> {
    /// Whether another look would tell more than the last one.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let last = self.newer.as_ref();
        last.is_none_or(|look| now.duration_since(look.at) >= SHORTEST)
    }

    /// Whether there are two looks to compare.
    pub(super) fn tells(&self) -> bool {
        self.span().is_some()
    }

    /// Takes in what was seen.
    pub(super) fn put(&mut self, now: Instant, counters: HashMap<K, Counters>) {
        let newer = Look { at: now, counters };
        self.older = self.newer.replace(newer);
    }

    /// What was counted each second between the looks; nothing while there is only one. What was not there at the
    /// first has begun at 0.
    pub(super) fn rate(&self, name: &K) -> Option<[u64; 2]> {
        let (older, newer, seconds) = self.span()?;
        let now = newer.counters.get(name)?;
        let before = older.counters.get(name).copied().unwrap_or_default();
        let rate = |way: usize| (now[way].saturating_sub(before[way]) as f64 / seconds) as u64;
        Some([rate(0), rate(1)])
    }

    fn span(&self) -> Option<(&Look<K>, &Look<K>, f64)> {
        let (older, newer) = (self.older.as_ref()?, self.newer.as_ref()?);
        let between = newer.at.duration_since(older.at);
        (between <= LONGEST).then_some((older, newer, between.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(name: u8, to_peer: u64) -> HashMap<u8, Counters> {
        HashMap::from([(name, [to_peer, 0])])
    }

    #[test]
    fn a_rate_is_what_came_between_two_looks() {
        let mut looks = Looks::default();
        let start = Instant::now();
        assert!(looks.is_due(start));
        looks.put(start, seen(1, 1000));
        assert!(!looks.is_due(start) && !looks.tells());
        assert_eq!(looks.rate(&1), None);
        let later = start + Duration::from_secs(2);
        assert!(looks.is_due(later));
        looks.put(later, seen(1, 5000));
        assert_eq!(looks.rate(&1), Some([2000, 0]));
        assert_eq!(looks.rate(&2), None);
        looks.put(later + Duration::from_secs(1), seen(2, 700));
        assert_eq!(looks.rate(&2), Some([700, 0]), "it has begun since");
        assert_eq!(looks.rate(&1), None, "it has ended");
        looks.put(later + Duration::from_secs(1000), seen(2, 700));
        assert!(!looks.tells(), "that was too long ago");
    }
}
