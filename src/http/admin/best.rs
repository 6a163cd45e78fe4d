//! The first of many in some order, without holding all of them.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// The few of many with the highest rank: no more than those are held.
pub(super) struct Best<T> {
    most: usize,
    held: BinaryHeap<Ranked<T>>,
}

/// The greatest is the one to let go of first.
struct Ranked<T>(Reverse<(u64, u64)>, T);

impl<T> PartialEq for Ranked<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T> Eq for Ranked<T> {}

impl<T> PartialOrd for Ranked<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Ranked<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl<T> Best<T> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            held: BinaryHeap::new(),
        }
    }

    pub(super) fn offer(&mut self, rank: (u64, u64), value: T) {
        self.held.push(Ranked(Reverse(rank), value));
        if self.held.len() > self.most {
            self.held.pop();
        }
    }

    pub(super) fn sorted(self) -> Vec<T> {
        let sorted = self.held.into_sorted_vec();
        sorted.into_iter().map(|Ranked(_, value)| value).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_many_are_kept_in_order() {
        let mut best = Best::new(3);
        for number in [5_u64, 1, 9, 7, 3, 8] {
            best.offer((number, 0), number);
            assert!(best.held.len() <= 3);
        }
        assert_eq!(best.sorted(), [9, 8, 7]);
        let mut none = Best::new(0);
        none.offer((1, 1), ());
        assert!(none.sorted().is_empty());
    }
}
