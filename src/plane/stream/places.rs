//! Who has how many places: so many for one subscriber, so many in all.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::plane::subscriber::subscriber;

/// Places of one kind.
pub(super) struct Places {
    each: usize,
    all: usize,
    taken: HashMap<IpAddr, usize>,
    total: usize,
}

impl Places {
    /// `each` places for one subscriber, `all` for everybody.
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
        let subscriber = subscriber(ip);
        let taken = self.taken.get(&subscriber).copied().unwrap_or(0);
        if self.total >= self.all || taken >= self.each {
            return false;
        }
        self.taken.insert(subscriber, taken + 1);
        self.total += 1;
        true
    }

    /// Gives a place back that was taken.
    pub(super) fn give_back(&mut self, ip: IpAddr) {
        let subscriber = subscriber(ip);
        let Some(taken) = self.taken.get_mut(&subscriber) else {
            debug_assert!(false, "a place is given back once");
            return;
        };
        *taken -= 1;
        self.total -= 1;
        if *taken == 0 {
            self.taken.remove(&subscriber);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_by_subscriber_and_in_all() {
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

    #[test]
    fn a31_the_addresses_of_one_subscriber_count_together() {
        let mut places = Places::new(2, 9);
        let hosts = ["2001:db8::1", "2001:db8::ffff:2", "2001:db8::3"];
        let taken = hosts.map(|ip| places.take(ip.parse().unwrap()));
        assert_eq!(taken, [true, true, false]);
        assert!(places.take("2001:db8:0:1::1".parse().unwrap()));
        places.give_back(hosts[1].parse().unwrap());
        assert!(places.take(hosts[2].parse().unwrap()));
    }
}
