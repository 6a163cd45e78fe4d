//! How many answers strangers get: so many a second for each network, in fixed memory.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Instant;

use foldhash::fast::RandomState;

use super::prefix;

/// The budget of unauthenticated answers, which anybody can have sent to anybody by a forged source address.
///
/// Each network has two cells, shared with whichever others a seeded hash puts there, and has spent what the lesser of
/// the two says. So a flood in the name of one network hardly ever costs another one its answers.
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
        let Some(paid) = self.paid(client, now, interval) else {
            return false;
        };
        for cell in self.cells_of(client) {
            self.cells[cell] = self.cells[cell].max(paid);
        }
        true
    }

    /// Whether [`ReplyBudget::take`] would succeed.
    pub(super) fn affords(&self, client: IpAddr, now: Instant) -> bool {
        self.interval
            .is_none_or(|interval| self.paid(client, now, interval).is_some())
    }

    /// When one more answer to `client` would be paid for, if it can be afforded.
    fn paid(&self, client: IpAddr, now: Instant, interval: u64) -> Option<u64> {
        let elapsed = now.saturating_duration_since(self.start).as_nanos() as u64;
        let [first, second] = self.cells_of(client).map(|cell| self.cells[cell]);
        let paid = first.min(second).max(elapsed) + interval;
        (paid <= elapsed + NANOS).then_some(paid)
    }

    fn cells_of(&self, client: IpAddr) -> [usize; 2] {
        let hash = self.hasher.hash_one(prefix::network(client)) as usize;
        [hash % ROW, ROW + (hash >> 32) % ROW]
    }
}

const NANOS: u64 = 1_000_000_000;

/// Cells a row has: 64 kB for both.
const ROW: usize = 4096;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    #[expect(
        clippy::disallowed_methods,
        reason = "an instant can only be had from the clock"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    fn network(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x3400_0000 + (n << 8)).into()
    }

    fn answers(budget: &mut ReplyBudget, client: IpAddr, now: Instant) -> usize {
        (0..1000).filter(|_| budget.take(client, now)).count()
    }

    #[test]
    fn a_network_has_its_rate_and_as_much_at_once() {
        let start = start();
        let mut budget = ReplyBudget::new(10, start);
        assert_eq!(answers(&mut budget, network(1), start), 10);
        assert!(!budget.affords(network(1), start));
        let later = start + Duration::from_millis(250);
        assert_eq!(answers(&mut budget, network(1), later), 2);
        let much_later = start + Duration::from_secs(1 << 32);
        assert_eq!(answers(&mut budget, network(1), much_later), 10);
    }

    #[test]
    fn a_flood_of_few_costs_hardly_anybody_else() {
        let start = start();
        let mut budget = ReplyBudget::new(10, start);
        for flooded in 0..100 {
            answers(&mut budget, network(flooded), start);
        }
        let others = 1000..3000;
        let served = others
            .clone()
            .filter(|&other| budget.affords(network(other), start))
            .count();
        assert!(served >= 1980, "{served} of {}", others.len());
    }

    #[test]
    fn without_a_rate_there_is_no_limit_and_no_memory() {
        let start = start();
        let mut budget = ReplyBudget::new(0, start);
        assert_eq!(answers(&mut budget, network(1), start), 1000);
        assert!(budget.cells.is_empty());
    }
}
