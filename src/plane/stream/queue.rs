//! What a worker has for a stream client that has not taken it yet (F07).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

/// Bytes that wait at most; then the oldest media go.
const BYTES: usize = 64 * 1024;
/// Media older than this are of no use to anybody.
const AGE: Duration = Duration::from_millis(250);
/// Bytes that are handed to the socket in one go.
const BATCH: usize = 16 * 1024;

struct Waiting {
    bytes: Bytes,
    since: Instant,
    /// An answer to a request: never dropped for being old.
    control: bool,
}

#[derive(Default)]
struct State {
    frames: VecDeque<Waiting>,
    bytes: usize,
    closed: bool,
}

/// A queue of whole frames, bounded in bytes and in age, between a worker and a connection's task. Both run
/// on the same thread, so its lock is never contended.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Notify,
    /// Whether the client has proved who it is: it may send larger frames then (A31).
    trusted: AtomicBool,
}

impl Queue {
    /// The client has proved the key of a user.
    pub(super) fn trust(&self) {
        self.trusted.store(true, Ordering::Relaxed);
    }

    /// Whether it has.
    pub(super) fn is_trusted(&self) -> bool {
        self.trusted.load(Ordering::Relaxed)
    }

    /// Queues a frame and returns how many frames were dropped, itself or older ones.
    pub(super) fn push(&self, now: Instant, bytes: Bytes, control: bool) -> usize {
        let mut state = self.state();
        if state.closed {
            return 1;
        }
        let mut dropped = state.drop_old(now);
        while state.bytes + bytes.len() > BYTES {
            let Some(oldest) = state.frames.iter().position(|frame| !frame.control) else {
                // Only answers wait: a client that asks without reading.
                return dropped + 1;
            };
            state.drop_frame(oldest);
            dropped += 1;
        }
        state.bytes += bytes.len();
        state.frames.push_back(Waiting {
            bytes,
            since: now,
            control,
        });
        drop(state);
        self.filled.notify_one();
        dropped
    }

    /// Ends the queue; what waits in it is still written.
    pub(super) fn close(&self) {
        self.state().closed = true;
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
        let mut taken = 0;
        while taken < BATCH
            && let Some(frame) = state.frames.pop_front()
        {
            taken += frame.bytes.len();
            state.bytes -= frame.bytes.len();
            into.push_back(frame.bytes);
        }
        taken > 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change below completes before the lock is given back, so a panic leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn drop_old(&mut self, now: Instant) -> usize {
        let mut dropped = 0;
        while let Some(front) = self.frames.front()
            && !front.control
            && now.saturating_duration_since(front.since) > AGE
        {
            self.drop_frame(0);
            dropped += 1;
        }
        dropped
    }

    fn drop_frame(&mut self, index: usize) {
        if let Some(frame) = self.frames.remove(index) {
            self.bytes -= frame.bytes.len();
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need a starting instant")]
mod tests {
    use super::*;

    fn frame(byte: u8, len: usize) -> Bytes {
        Bytes::from(vec![byte; len])
    }

    fn drain(queue: &Queue) -> Vec<u8> {
        let mut taken = VecDeque::new();
        while queue.take_now(&mut taken) {}
        taken.iter().map(|frame| frame[0]).collect()
    }

    #[test]
    fn the_oldest_media_go_first_and_answers_stay() {
        let (queue, now) = (Queue::default(), Instant::now());
        assert_eq!(queue.push(now, frame(1, 1000), true), 0);
        for byte in 2..=4 {
            assert_eq!(queue.push(now, frame(byte, 21_000), false), 0);
        }
        assert_eq!(queue.push(now, frame(5, 21_000), false), 1);
        assert_eq!(drain(&queue), [1, 3, 4, 5]);
    }

    #[test]
    fn media_that_waited_too_long_are_dropped() {
        let (queue, now) = (Queue::default(), Instant::now());
        queue.push(now, frame(1, 10), false);
        assert_eq!(queue.push(now + AGE * 2, frame(2, 10), false), 1);
        assert_eq!(drain(&queue), [2]);
    }

    #[test]
    fn a_client_that_asks_without_reading_gets_no_more_answers() {
        let (queue, now) = (Queue::default(), Instant::now());
        let dropped: usize = (0..2000)
            .map(|_| queue.push(now, frame(1, 100), true))
            .sum();
        assert_eq!(dropped, 2000 - BYTES / 100);
    }

    #[test]
    fn a_closed_queue_takes_nothing_and_gives_what_it_has() {
        let (queue, now) = (Queue::default(), Instant::now());
        queue.push(now, frame(1, 10), true);
        queue.close();
        assert_eq!(queue.push(now, frame(2, 10), true), 1);
        assert_eq!(drain(&queue), [1]);
    }
}
