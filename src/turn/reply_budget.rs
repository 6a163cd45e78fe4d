//! How many answers strangers get: so many a second for each network, in fixed memory.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Instant;

use foldhash::fast::RandomState;

use super::prefix;

/// The budget of unauthenticated answers, which anybody can have sent to anybody by a forged source address.
///
/// Each network has two cells among those of all the others, chosen by a seeded hash, and is answered while either has
/// something left. So a flood in the name of one network hardly ever costs another one its answers.
pub(super) struct ReplyBudget {
    /// Nanoseconds between two answers; `None` is without limit.
    interval: Option<u64>,
    /// When the cell will have paid for all it gave, in nanoseconds since `start`.
    cells: Box<[u64]>,
    start: Instant,
    hasher: RandomState,
}

impl ReplyBudget {
    /// `rate` answers a second for each network, and as many at once; 0 is without limit.
    pub(super) fn new(rate: u32, start: Instant) -> Self {
        let interval = NANOS.checked_div(u64::from(rate));
        let cells = if interval.is_some() { 2 * ROW } else { 0 };
        Self {
            interval,
            cells: vec![0; cells].into_boxed_slice(),
            start,
            hasher: RandomState::default(),
        }
    }

    /// Takes one answer to `client` from the budget; false if there is none left.
    pub(super) fn take(&mut self, client: IpAddr, now: Instant) -> bool {
        let Some(interval) = self.interval else {
            return true;
        };
        let elapsed = self.elapsed(now);
        for cell in self.cells_of(client) {
            let paid = self.cells[cell].max(elapsed) + interval;
            if paid <= elapsed + NANOS {
                self.cells[cell] = paid;
                return true;
            }
        }
        false
    }

    /// Whether [`ReplyBudget::take`] would succeed.
    pub(super) fn affords(&self, client: IpAddr, now: Instant) -> bool {
        let Some(interval) = self.interval else {
            return true;
        };
        let elapsed = self.elapsed(now);
        self.cells_of(client)
            .into_iter()
            .any(|cell| self.cells[cell].max(elapsed) + interval <= elapsed + NANOS)
    }

    fn cells_of(&self, client: IpAddr) -> [usize; 2] {
        let hash = self.hasher.hash_one(prefix::network(client)) as usize;
        [hash % ROW, ROW + (hash >> 32) % ROW]
    }

    fn elapsed(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_nanos() as u64
    }
}

const NANOS: u64 = 1_000_000_000;

/// Cells a row has: 64 kB for both.
const ROW: usize = 4096;
