//! Ports that EVEN-PORT reserved for a later Allocate (RFC 8656 §7.2, \[T2\]).
//!
//! A reservation holds a bound socket. It may be redeemed from another 5-tuple, transport, listener or
//! worker, so the table is shared; it is touched by Allocate only. A token is good once, for the user who
//! got it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use socket2::Socket;

use super::ports::Ports;
use crate::turn::ReservationToken;

/// RFC 8656 §7.2 wants 30 s at least.
const LIFETIME: Duration = Duration::from_secs(30);

/// A socket kept for its owner.
pub(super) struct Reserved {
    pub(super) socket: Socket,
    /// Which of the pool's addresses it is bound to.
    pub(super) address: usize,
    pub(super) port: u16,
    /// The user, as the machine identifies one.
    pub(super) owner: u64,
}

/// The reservations of the whole server.
#[derive(Default)]
pub(super) struct Reservations {
    held: Mutex<HashMap<ReservationToken, (Instant, Reserved)>>,
}

impl Reservations {
    /// Keeps a socket; its port counts as used meanwhile.
    pub(super) fn insert(
        &self,
        token: ReservationToken,
        reserved: Reserved,
        now: Instant,
        ports: &Ports,
    ) {
        let mut held = self.held();
        sweep(&mut held, now, ports);
        if let Some((_, old)) = held.insert(token, (now + LIFETIME, reserved)) {
            ports.release(old.address, old.port);
        }
    }

    /// How many are held for an owner.
    pub(super) fn count(&self, owner: u64, now: Instant, ports: &Ports) -> usize {
        let mut held = self.held();
        sweep(&mut held, now, ports);
        let theirs = held.values().filter(|(_, one)| one.owner == owner);
        theirs.count()
    }

    /// Hands the socket to its owner, once.
    pub(super) fn take(
        &self,
        token: ReservationToken,
        owner: u64,
        now: Instant,
        ports: &Ports,
    ) -> Option<Reserved> {
        let mut held = self.held();
        sweep(&mut held, now, ports);
        if held.get(&token)?.1.owner != owner {
            return None;
        }
        held.remove(&token).map(|(_, reserved)| reserved)
    }

    /// Gives back what nobody came for.
    pub(super) fn expire(&self, now: Instant, ports: &Ports) {
        sweep(&mut self.held(), now, ports);
    }

    fn held(&self) -> MutexGuard<'_, HashMap<ReservationToken, (Instant, Reserved)>> {
        // A panic elsewhere cannot leave the map half-changed: each change is one call.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sweep(held: &mut HashMap<ReservationToken, (Instant, Reserved)>, now: Instant, ports: &Ports) {
    held.retain(|_, (expires, reserved)| {
        let keep = *expires > now;
        if !keep {
            ports.release(reserved.address, reserved.port);
        }
        keep
    });
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need a starting instant")]
mod tests {
    use socket2::{Domain, Type};

    use super::super::ports::{RelayAddress, RelayRange};
    use super::*;

    const TOKEN: ReservationToken = ReservationToken([1; 8]);
    const OWNER: u64 = 7;

    /// Ports of which one is held since `now`.
    fn held(now: Instant) -> (Reservations, Ports) {
        let address = RelayAddress {
            local: "10.0.0.5".parse().unwrap(),
            advertised: "10.0.0.5".parse().unwrap(),
        };
        let range = RelayRange {
            addresses: vec![address],
            ports: 50_000..=50_009,
        };
        let (reservations, ports) = (
            Reservations::default(),
            Ports::new(range, Vec::new(), Vec::new()),
        );
        assert!(ports.try_claim(0, 50_001));
        let reserved = Reserved {
            socket: Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap(),
            address: 0,
            port: 50_001,
            owner: OWNER,
        };
        reservations.insert(TOKEN, reserved, now, &ports);
        (reservations, ports)
    }

    #[test]
    fn t2_a_reservation_lasts_half_a_minute_and_then_gives_its_port_back() {
        let now = Instant::now();
        let (reservations, ports) = held(now);
        let late = LIFETIME - Duration::from_millis(1);
        reservations.expire(now + late, &ports);
        assert_eq!(ports.pool(), (10, 1));
        let taken = reservations.take(TOKEN, OWNER, now + late, &ports);
        assert_eq!(taken.map(|reserved| reserved.port), Some(50_001));

        for asked in [false, true] {
            let (reservations, ports) = held(now);
            if asked {
                let taken = reservations.take(TOKEN, OWNER, now + LIFETIME, &ports);
                assert!(taken.is_none());
            } else {
                reservations.expire(now + LIFETIME, &ports);
            }
            assert_eq!(ports.pool(), (10, 0));
        }
    }

    #[test]
    fn a26_reservations_are_counted_by_owner_until_they_are_used_or_overdue() {
        let now = Instant::now();
        let (reservations, ports) = held(now);
        let count = |owner, at| reservations.count(owner, at, &ports);
        assert_eq!((count(OWNER, now), count(OWNER + 1, now)), (1, 0));
        assert_eq!(count(OWNER, now + LIFETIME), 0);
        assert_eq!(ports.pool(), (10, 0));
        let (reservations, ports) = held(now);
        assert!(reservations.take(TOKEN, OWNER, now, &ports).is_some());
        assert_eq!(reservations.count(OWNER, now, &ports), 0);
    }

    #[test]
    fn t2_a_reservation_is_its_owner_s_and_good_once() {
        let now = Instant::now();
        let (reservations, ports) = held(now);
        let take = |owner| reservations.take(TOKEN, owner, now, &ports).is_some();
        assert!(!take(OWNER + 1));
        assert!(take(OWNER));
        assert!(!take(OWNER));
        assert_eq!(ports.pool(), (10, 1), "the port lives on as a relay");
    }
}
