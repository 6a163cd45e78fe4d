//! The one timer structure.

use std::time::Instant;

/// What ends when: a binary heap that knows where each key stands in it.
///
/// Keys are small and dense, as a slab gives them out; each has at most one deadline. Looking at the next deadline is
/// O(1), changing one is O(log n), and nothing but the keys that have a deadline takes up room in the heap.
#[derive(Debug, Default)]
pub struct Expiry {
    /// Each entry is no later than the two at twice its place.
    heap: Vec<Entry>,
    /// Where in the heap a key stands, or [`ABSENT`].
    places: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: Instant,
    key: u32,
}

impl Expiry {
    /// Nothing ends.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `key` end at `at`, whatever its deadline was before.
    pub fn set(&mut self, key: u32, at: Instant) {
        let index = key as usize;
        if index >= self.places.len() {
            self.places.resize(index + 1, ABSENT);
        }
        let place = match self.places[index] {
            ABSENT => {
                self.heap.push(Entry { at, key });
                self.heap.len() - 1
            }
            place => {
                self.heap[place as usize].at = at;
                place as usize
            }
        };
        self.settle(place);
    }

    /// Takes the deadline of `key` away, if it has one.
    pub fn remove(&mut self, key: u32) {
        let Some(&place) = self.places.get(key as usize) else {
            return;
        };
        if place == ABSENT {
            return;
        }
        self.places[key as usize] = ABSENT;
        self.heap.swap_remove(place as usize);
        if (place as usize) < self.heap.len() {
            self.settle(place as usize);
        }
    }

    /// Takes out one key whose deadline has come.
    pub fn pop(&mut self, now: Instant) -> Option<u32> {
        let first = self.heap.first().filter(|first| first.at <= now)?;
        let key = first.key;
        self.remove(key);
        Some(key)
    }

    /// The next deadline.
    pub fn next(&self) -> Option<Instant> {
        self.heap.first().map(|first| first.at)
    }

    /// Moves an entry up or down to where it belongs.
    fn settle(&mut self, mut place: usize) {
        while place > 0 && self.heap[place].at < self.heap[(place - 1) / 2].at {
            place = self.swap(place, (place - 1) / 2);
        }
        loop {
            let children = 2 * place + 1..(2 * place + 3).min(self.heap.len());
            match children.min_by_key(|&child| self.heap[child].at) {
                Some(child) if self.heap[child].at < self.heap[place].at => {
                    place = self.swap(place, child);
                }
                Some(_) | None => break,
            }
        }
        self.places[self.heap[place].key as usize] = place as u32;
    }

    /// Lets two entries change places, and returns where the first one stands then.
    fn swap(&mut self, from: usize, to: usize) -> usize {
        self.heap.swap(from, to);
        self.places[self.heap[from].key as usize] = from as u32;
        to
    }
}

const ABSENT: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a map that is searched from end to end.
        #[test]
        fn does_what_a_sorted_list_does(steps in prop::collection::vec((0u32..20, 0u64..100, 0u8..4), 0..300)) {
            #[expect(clippy::disallowed_methods, reason = "an instant can only be had from the clock")]
            let start = Instant::now();
            let mut expiry = Expiry::new();
            let mut model = BTreeMap::new();
            for (key, time, action) in steps {
                let at = start + Duration::from_secs(time);
                match action {
                    0 => {
                        expiry.remove(key);
                        model.remove(&key);
                    }
                    1 => {
                        let popped = expiry.pop(at);
                        let first = model.values().min().copied().filter(|&first| first <= at);
                        prop_assert_eq!(popped.and_then(|key| model.remove(&key)), first);
                    }
                    _ => {
                        expiry.set(key, at);
                        model.insert(key, at);
                    }
                }
                prop_assert_eq!(expiry.next(), model.values().min().copied());
            }
        }
    }
}
