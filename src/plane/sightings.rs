//! Sessions that begin and end, for whoever keeps books of them. A worker tells, and waits for nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::mpsc;

use super::Handle;
use super::worker::Worker;
use crate::turn::{Allocated, Ended, Now};

/// Sightings that wait to be taken; more are lost.
const QUEUE: usize = 8192;

/// A session that has begun or ended.
#[derive(Debug)]
pub struct Sighting {
    /// When, in seconds since 1970.
    pub unix: u64,
    /// The same moment, by the finer clock.
    pub instant: Instant,
    /// Whose customer the user is, if the credential says so.
    pub tenant: Option<String>,
    /// What.
    pub what: Sighted,
}

/// What was seen of a session.
#[derive(Debug)]
pub enum Sighted {
    /// It began.
    Began(Box<Allocated>),
    /// It ended.
    Ended(Box<Ended>),
}

/// Where sightings go.
pub(super) struct Outlet {
    to: mpsc::Sender<Sighting>,
    lost: Arc<AtomicU64>,
}

impl Handle {
    /// The sessions that begin and end from here on. What is not taken in time is lost, and counted in `lost`. Nothing
    /// if somebody has them already.
    pub fn sightings(&self, lost: Arc<AtomicU64>) -> Option<mpsc::Receiver<Sighting>> {
        let (to, from) = mpsc::channel(QUEUE);
        let outlet = Outlet { to, lost };
        self.shared.sightings.set(outlet).ok().map(|()| from)
    }
}

impl Worker<'_> {
    pub(super) fn began(&self, now: Now, allocated: Box<Allocated>) {
        if let Some(outlet) = self.shared.sightings.get() {
            let tenant = allocated.tenant.as_deref().map(str::to_owned);
            outlet.tell(now, tenant, Sighted::Began(allocated));
        }
    }

    pub(super) fn ended(&self, now: Now, ended: Box<Ended>) {
        if let Some(outlet) = self.shared.sightings.get() {
            let tenant = ended.tenant.as_deref().map(str::to_owned);
            outlet.tell(now, tenant, Sighted::Ended(ended));
        }
    }
}

impl Outlet {
    fn tell(&self, now: Now, tenant: Option<String>, what: Sighted) {
        let sighting = Sighting {
            unix: now.unix,
            instant: now.instant,
            tenant,
            what,
        };
        if self.to.try_send(sighting).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}
