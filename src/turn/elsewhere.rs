//! Clients whose allocation another machine of the process has: they have moved (RFC 8016), and the kernel, which
//! knows nothing of that, brings what they send here.

use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::{FiveTuple, Now};

/// One of the machines of a process, each with a number of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WorkerId(pub u16);

/// Where the allocations of such clients are.
///
/// An entry is made on the word of the machine that has authenticated the client, never for a stranger. It is renewed
/// whenever that machine answers the client, and is forgotten if it has not been for as long as an allocation lives.
#[derive(Default)]
pub(super) struct Elsewhere {
    clients: HashMap<FiveTuple, Entry, RandomState>,
    /// How many entries there are when those that are overdue are next looked for.
    sweep_at: usize,
}

#[derive(Clone, Copy)]
struct Entry {
    worker: WorkerId,
    expires: Instant,
}

impl Elsewhere {
    /// Notes where the allocation of a client is.
    pub(super) fn insert(
        &mut self,
        client: FiveTuple,
        worker: WorkerId,
        now: Now,
        lifetime: Duration,
    ) {
        if self.clients.len() >= self.sweep_at {
            self.clients.retain(|_, entry| entry.expires > now.instant);
            self.sweep_at = 2 * self.clients.len() + 16;
        }
        let expires = now.instant + lifetime;
        self.clients.insert(client, Entry { worker, expires });
    }

    /// Forgets that a client's allocation is with `worker`.
    pub(super) fn remove(&mut self, client: &FiveTuple, worker: WorkerId) {
        let theirs = |entry: &Entry| entry.worker == worker;
        if self.clients.get(client).is_some_and(theirs) {
            self.clients.remove(client);
        }
    }

    /// Where the allocation of a client is, if it is known to be with another machine.
    pub(super) fn find(&self, client: &FiveTuple, now: Now) -> Option<WorkerId> {
        if self.clients.is_empty() {
            return None;
        }
        self.clients
            .get(client)
            .filter(|entry| entry.expires > now.instant)
            .map(|entry| entry.worker)
    }

    /// How many entries there are, overdue ones included.
    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }
}
