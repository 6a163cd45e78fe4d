//! A worker that does not answer for a while.

use crate::alone;
use crate::wire::{Client, Plane, loopback, wait};

/// A counter that went down and up again would look to Prometheus as if everything had been counted once more; and a
/// list without the sessions of a worker as if these were not there.
#[test]
fn what_a_silent_worker_has_counted_stays_counted_and_no_list_passes_for_whole() {
    let _alone = alone();
    let plane = Plane::start(1, loopback());
    let mut client = Client::udp(plane.udp);
    client.allocate();
    let before = plane.snapshot();
    assert_eq!(before.workers, 1);
    assert!(before.cells.batches.packets > 0 && !before.processors[0].is_zero());

    let hold = plane.hold();
    let silent = plane.snapshot();
    assert_eq!(silent.workers, 0);
    assert_eq!(silent.cells, before.cells);
    assert_eq!(silent.processors, before.processors);
    assert!(!wait(plane.handle.alive()));
    assert!(!hold.release(), "not all were seen");

    assert!(wait(plane.handle.each_session(|_| true, |_| true)));
    let after = plane.snapshot();
    assert_eq!(after.workers, 1);
    assert!(after.processors > before.processors);
}
