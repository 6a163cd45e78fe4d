//! TLS handshakes in flight: there are only so many, and the oldest makes room for the newest (A32).
//!
//! A client that means it is done within a few round trips, and one that does not keeps its place until its time is
//! over. So whoever wants to keep others out has to begin handshakes faster than they finish theirs; were newcomers
//! refused instead, a few addresses that begin handshakes and fall silent would do.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Handshakes that one worker has in flight at most.
const MOST: usize = 256;

/// The handshakes of one worker. All of them run on its thread, so the lock is never contended.
#[derive(Default)]
pub(super) struct Handshakes {
    /// The oldest first; those that are over are taken out when there is no room.
    places: Mutex<VecDeque<oneshot::Sender<Infallible>>>,
}

/// A handshake's place.
pub(super) struct Place(oneshot::Receiver<Infallible>);

impl Handshakes {
    /// A place for one more. The oldest loses its own if there are too many.
    pub(super) fn begin(&self) -> Place {
        let (kept, place) = oneshot::channel();
        let mut places = self.places();
        if places.len() >= MOST {
            places.retain(|place| !place.is_closed());
        }
        if places.len() >= MOST {
            places.pop_front();
        }
        places.push_back(kept);
        Place(place)
    }

    fn places(&self) -> MutexGuard<'_, VecDeque<oneshot::Sender<Infallible>>> {
        // Each change is whole, so a panic leaves nothing half done.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until the place is needed by somebody else.
    pub(super) async fn taken_away(&mut self) {
        // Nothing is ever sent: that the other end is gone is what there is to know.
        let _ = (&mut self.0).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a32_the_oldest_makes_room_and_whoever_is_done_takes_none() {
        let handshakes = Handshakes::default();
        for _ in 0..3 * MOST {
            drop(handshakes.begin());
        }
        let mut places: Vec<_> = (0..MOST).map(|_| handshakes.begin()).collect();
        let lost =
            |place: &mut Place| place.0.try_recv() == Err(oneshot::error::TryRecvError::Closed);
        assert!(!places.iter_mut().any(lost));
        places.remove(7);
        places.push(handshakes.begin());
        assert!(!places.iter_mut().any(lost), "one was free");
        places.push(handshakes.begin());
        assert!(!places[1..].iter_mut().any(lost));
        places[0].taken_away().await;
        assert_eq!(handshakes.places().len(), MOST);
    }
}
