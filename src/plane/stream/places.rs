//! Who has how many places: so many for one address, so many in all.

use std::collections::HashMap;
use std::net::IpAddr;

/// Places of one kind.
pub(super) struct Places {
    each: usize,
    all: usize,
    taken: HashMap<IpAddr, usize>,
    total: usize,
}

impl Places {
    /// `each` places for one address, `all` for everybody.
    pub(super) fn new(each: usize, all: usize) -> Self {
        Self {
            each,
            all,
            taken: HashMap::new(),
            total: 0,
        }
    }

    /// Takes one place, or returns false if there is none left.
    pub(super) fn take(&mut self, ip: IpAddr) -> bool {
        if self.total >= self.all || self.taken.get(&ip).is_some_and(|taken| *taken >= self.each) {
            return false;
        }
        *self.taken.entry(ip).or_default() += 1;
        self.total += 1;
        true
    }

    /// Gives a place back that was taken.
    pub(super) fn give_back(&mut self, ip: IpAddr) {
        let Some(taken) = self.taken.get_mut(&ip) else {
            debug_assert!(false, "a place is given back once");
            return;
        };
        *taken -= 1;
        self.total -= 1;
        if *taken == 0 {
            self.taken.remove(&ip);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_by_address_and_in_all() {
        let mut places = Places::new(2, 3);
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let taken = [one, one, one, other, other].map(|ip| places.take(ip));
        assert_eq!(taken, [true, true, false, true, false]);
        places.give_back(one);
        assert_eq!([other, one].map(|ip| places.take(ip)), [true, false]);
        places.give_back(one);
        places.give_back(other);
        places.give_back(other);
        assert!(
            places.taken.is_empty() && places.total == 0,
            "nothing stays behind"
        );
    }
}
