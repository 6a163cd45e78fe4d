//! What a worker has for a stream client that has not taken it yet (F07).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use super::tally::Tally;
use crate::plane::outbox::Counted;

/// Bytes that wait at most; then the oldest media go.
const BYTES: usize = 64 * 1024;
/// Media older than this are of no use to anybody.
const AGE: Duration = Duration::from_millis(250);
/// Bytes that are handed to the socket in one go.
const BATCH: usize = 16 * 1024;

/// A whole frame.
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    /// How many of them are relayed payload.
    pub(super) payload: usize,
    /// What it counts as once it leaves the queue. An answer is never dropped for being old.
    pub(super) counted: Counted,
}

struct Waiting {
    frame: Frame,
    since: Instant,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    closed: bool,
}

/// A queue of whole frames, bounded in bytes and in age, between a worker and a connection's task. Both run
/// on the same thread, so its lock is never contended.
///
/// Every relayed frame is counted once: as relayed when it leaves towards the socket, or as lost.
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Notify,
    /// Whether the client has proved who it is: it may send larger frames then (A31).
    trusted: AtomicBool,
    tally: Arc<Tally>,
}

impl Queue {
    /// An empty queue that counts into `tally`.
    pub(super) fn new(tally: Arc<Tally>) -> Self {
        Self {
            state: Mutex::default(),
            filled: Notify::new(),
            trusted: AtomicBool::new(false),
            tally,
        }
    }

    /// The client has proved the key of a user.
    pub(super) fn trust(&self) {
        self.trusted.store(true, Ordering::Relaxed);
    }

    /// Whether it has.
    pub(super) fn is_trusted(&self) -> bool {
        self.trusted.load(Ordering::Relaxed)
    }

    /// Queues a frame, for which it or older ones may be lost.
    pub(super) fn push(&self, now: Instant, frame: Frame) {
        self.tally.lost(self.place(now, frame));
    }

    /// Queues a frame and returns how many frames were dropped, itself or older ones.
    fn place(&self, now: Instant, frame: Frame) -> usize {
        let mut state = self.state();
        if state.closed {
            return 1;
        }
        let mut dropped = state.drop_old(now);
        while state.bytes + frame.bytes.len() > BYTES {
            let Some(oldest) = state.waiting.iter().position(Waiting::is_media) else {
                // Only answers wait: a client that asks without reading.
                return dropped + 1;
            };
            state.drop_frame(oldest);
            dropped += 1;
        }
        state.bytes += frame.bytes.len();
        state.waiting.push_back(Waiting { frame, since: now });
        drop(state);
        self.filled.notify_one();
        dropped
    }

    /// Ends the queue; what waits in it is still written.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.filled.notify_one();
    }

    /// Ends the queue; what waits in it is lost.
    pub(super) fn abandon(&self) {
        let mut state = self.state();
        state.closed = true;
        state.bytes = 0;
        let media = state.waiting.drain(..).filter(Waiting::is_media).count();
        drop(state);
        self.tally.lost(media);
        self.filled.notify_one();
    }

    /// Waits until the queue is closed.
    pub(super) async fn closed(&self) {
        while !self.state().closed {
            self.filled.notified().await;
        }
    }

    /// Moves the next frames to `into`, waiting for some. False when the queue is closed and empty.
    pub(super) async fn take(&self, into: &mut VecDeque<Bytes>) -> bool {
        loop {
            if self.take_now(into) {
                return true;
            }
            if self.state().closed {
                return false;
            }
            self.filled.notified().await;
        }
    }

    fn take_now(&self, into: &mut VecDeque<Bytes>) -> bool {
        let mut state = self.state();
        let mut cells = self.tally.cells();
        let mut taken = 0;
        while taken < BATCH
            && let Some(Waiting { frame, .. }) = state.waiting.pop_front()
        {
            taken += frame.bytes.len();
            state.bytes -= frame.bytes.len();
            if let Counted::Relayed(direction, transport, family) = frame.counted {
                cells.relayed(direction, transport, family, frame.payload);
            }
            into.push_back(frame.bytes);
        }
        taken > 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change below completes before the lock is given back, so a panic leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn is_media(&self) -> bool {
        matches!(self.frame.counted, Counted::Relayed(..))
    }
}

impl State {
    fn drop_old(&mut self, now: Instant) -> usize {
        let mut dropped = 0;
        while let Some(front) = self.waiting.front()
            && front.is_media()
            && now.saturating_duration_since(front.since) > AGE
        {
            self.drop_frame(0);
            dropped += 1;
        }
        dropped
    }

    fn drop_frame(&mut self, index: usize) {
        if let Some(dropped) = self.waiting.remove(index) {
            self.bytes -= dropped.frame.bytes.len();
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need a starting instant")]
mod tests {
    use super::*;
    use crate::metrics::{Cells, Direction, SocketError};
    use crate::turn::{Family, Traffic, Transport};

    const MEDIA: Counted = Counted::Relayed(Direction::ToClient, Transport::Tcp, Family::V4);

    /// A frame of so many bytes, four of which are its header.
    fn frame(byte: u8, len: usize, counted: Counted) -> Frame {
        Frame {
            bytes: Bytes::from(vec![byte; len]),
            payload: len - 4,
            counted,
        }
    }

    fn queue() -> (Queue, Instant) {
        (Queue::new(Arc::default()), Instant::now())
    }

    fn drain(queue: &Queue) -> Vec<u8> {
        let mut taken = VecDeque::new();
        while queue.take_now(&mut taken) {}
        taken.iter().map(|frame| frame[0]).collect()
    }

    #[test]
    fn the_oldest_media_go_first_and_answers_stay() {
        let (queue, now) = queue();
        assert_eq!(queue.place(now, frame(1, 1000, Counted::Answer)), 0);
        for byte in 2..=4 {
            assert_eq!(queue.place(now, frame(byte, 21_000, MEDIA)), 0);
        }
        assert_eq!(queue.place(now, frame(5, 21_000, MEDIA)), 1);
        assert_eq!(drain(&queue), [1, 3, 4, 5]);
    }

    #[test]
    fn media_that_waited_too_long_are_dropped() {
        let (queue, now) = queue();
        queue.place(now, frame(1, 10, MEDIA));
        assert_eq!(queue.place(now + AGE * 2, frame(2, 10, MEDIA)), 1);
        assert_eq!(drain(&queue), [2]);
    }

    #[test]
    fn a_client_that_asks_without_reading_gets_no_more_answers() {
        let (queue, now) = queue();
        let dropped: usize = (0..2000)
            .map(|_| queue.place(now, frame(1, 100, Counted::Answer)))
            .sum();
        assert_eq!(dropped, 2000 - BYTES / 100);
    }

    #[test]
    fn a_closed_queue_takes_nothing_and_gives_what_it_has() {
        let (queue, now) = queue();
        queue.place(now, frame(1, 10, Counted::Answer));
        queue.close();
        assert_eq!(queue.place(now, frame(2, 10, Counted::Answer)), 1);
        assert_eq!(drain(&queue), [1]);
    }

    #[test]
    fn every_frame_of_media_counts_once_and_by_its_payload() {
        let (queue, now) = queue();
        queue.push(now, frame(1, 100, Counted::Answer));
        for byte in 2..=5 {
            queue.push(now, frame(byte, 20_004, MEDIA));
        }
        // One had to go for another. Each time, what begins within 16 KiB leaves: the answer and one of them, and one.
        let mut taken = VecDeque::new();
        assert!(queue.take_now(&mut taken));
        let counted = || {
            let mut cells = Cells::default();
            queue.tally.drain_into(&mut cells);
            let relayed = cells.traffic(Direction::ToClient, Transport::Tcp, Family::V4);
            (relayed, cells.socket_errors(SocketError::Full))
        };
        let traffic = |packets, bytes| Traffic { packets, bytes };
        assert_eq!(counted(), (traffic(1, 20_000), 1));
        assert!(queue.take_now(&mut taken));
        assert_eq!(counted(), (traffic(1, 20_000), 0));
        queue.push(now, frame(6, 100, Counted::Answer));
        queue.abandon();
        queue.push(now, frame(7, 104, MEDIA));
        assert!(!queue.take_now(&mut taken));
        assert_eq!(counted(), (traffic(0, 0), 2));
    }
}
