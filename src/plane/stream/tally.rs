//! What became of the frames for a worker's stream clients.
//!
//! Whether a frame is relayed is known when it leaves its queue, in the task of its connection; so the queues of a
//! worker count here, and the worker adds it to its own numbers before it reports them. All of them run on one
//! thread: the lock is never contended.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::metrics::{Cells, SocketError};

/// What has been counted since the worker took it last.
#[derive(Default)]
pub(super) struct Tally(Mutex<Cells>);

impl Tally {
    /// Counts frames that the client will not get.
    pub(super) fn lost(&self, frames: usize) {
        if frames > 0 {
            let mut cells = self.cells();
            (0..frames).for_each(|_| cells.socket_error(SocketError::Full));
        }
    }

    /// Adds everything to `cells`, once.
    pub(super) fn drain_into(&self, cells: &mut Cells) {
        *cells += &std::mem::take(&mut *self.cells());
    }

    /// To count into.
    pub(super) fn cells(&self) -> MutexGuard<'_, Cells> {
        // Plain additions: a panic leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
