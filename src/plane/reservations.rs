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
