//! The load: datagrams made once and sent round and round, and sinks that count without being read.
//!
//! Two sockets stand for all clients and all peers: each datagram names its own source address out of 127.0.0.0/8, so that one
//! `sendmmsg` speaks for many. What the server relays ends in a socket filter that checks length and content and drops;
//! the socket's drop counter is the count, so the generator neither wakes up nor copies for what it is sent, and
//! has its whole core for sending. A datagram that is not as it must be passes the filter and is found in the socket.

use std::{io, net::UdpSocket, os::fd::RawFd, time::Duration};

use socket2::{SockFilter, SockRef};

use super::sys::{self, Batch};

/// What every payload begins with, and what the sinks look for.
pub(crate) const MAGIC: u32 = 0x6c6f_6164;

/// One direction of a load: a ring of datagrams, the socket that sends them, and the sink that they should reach.
pub(crate) struct Lane {
    ring: Batch,
    socket: RawFd,
    sink: RawFd,
    /// Datagrams in one slot of the ring: more than one where the sender segments.
    per_slot: u64,
    batch: usize,
    next: usize,
    sent: u64,
    forgiven: u64,
    at_start: u32,
    /// How many had come, and when that last changed.
    progress: (u64, u64),
}

/// What one run of a load came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Run {
    pub(crate) nanoseconds: u64,
    pub(crate) sent: u64,
    pub(crate) delivered: u64,
    /// Time in which the generator had nothing to do because every window was full.
    pub(crate) waiting: u64,
    /// What was sent and never came.
    pub(crate) lost: u64,
}

impl Lane {
    pub(crate) fn new(
        ring: Batch,
        socket: RawFd,
        sink: RawFd,
        per_slot: u64,
        batch: usize,
    ) -> Self {
        let mut lane = Self {
            ring,
            socket,
            sink,
            per_slot,
            batch,
            next: 0,
            sent: 0,
            forgiven: 0,
            at_start: 0,
            progress: (0, 0),
        };
        lane.reset();
        lane
    }

    fn reset(&mut self) {
        self.at_start = sys::socket_drops(self.sink);
        self.sent = 0;
        self.forgiven = 0;
        self.progress = (0, sys::now());
    }

    fn delivered(&self) -> u64 {
        u64::from(sys::socket_drops(self.sink).wrapping_sub(self.at_start))
    }

    /// Sends as much as the window leaves room for; false when it is full.
    fn fill(&mut self, window: u64, now: u64) -> bool {
        let delivered = self.delivered();
        self.forgiven = self.forgiven.min(self.sent.saturating_sub(delivered));
        let in_flight = self.sent.saturating_sub(self.forgiven + delivered);
        if delivered != self.progress.0 {
            self.progress = (delivered, now);
        } else if in_flight > 0 && now - self.progress.1 > STALLED {
            // What has not come by now is lost: its place in the window is given back, and the end counts it.
            self.forgiven += in_flight;
            self.progress.1 = now;
        }
        let room = window.saturating_sub(in_flight) / self.per_slot;
        // A small window is filled in at least two goes, or the server would have pauses.
        let batch = self.batch.min((window / self.per_slot / 2) as usize).max(1);
        if room < batch as u64 {
            return false;
        }
        let count = batch.min(self.ring.len() - self.next);
        match self.ring.send(self.socket, self.next, count) {
            Ok(taken) => {
                self.sent += taken as u64 * self.per_slot;
                self.next = (self.next + taken) % self.ring.len();
                true
            }
            Err(_) => false,
        }
    }
}

/// A lane without any progress for this long has lost what was in flight.
const STALLED: u64 = 30_000_000;

/// Keeps at most `window` datagrams in flight on every lane for a while, then waits for the last to come.
///
/// No lane gets further ahead of another than its window: a server that prefers one direction would otherwise be measured
/// on that, and the directions do not cost the same.
pub(crate) fn drive(lanes: &mut [Lane], window: u64, nanoseconds: u64) -> Run {
    lanes.iter_mut().for_each(Lane::reset);
    let start = sys::now();
    let mut run = Run::default();
    let mut now = start;
    while now - start < nanoseconds {
        let mut any = false;
        let slowest = lanes.iter().map(|lane| lane.sent).min().unwrap_or(0);
        for lane in &mut *lanes {
            any |= lane.sent < slowest + window && lane.fill(window, now);
        }
        if !any {
            spin();
        }
        let then = std::mem::replace(&mut now, sys::now());
        if !any {
            run.waiting += now - then;
        }
    }
    run.nanoseconds = now - start;
    run.delivered = lanes.iter().map(Lane::delivered).sum();
    // The rate is what came while the load was on; the loss counts what still comes after.
    let delivered = settle(lanes);
    run.sent = lanes.iter().map(|lane| lane.sent).sum();
    run.lost = run.sent.saturating_sub(delivered);
    run
}

/// Waits until nothing comes any more; gives all that came.
fn settle(lanes: &[Lane]) -> u64 {
    let mut last = 0;
    let mut quiet = 0;
    while quiet < 3 {
        let delivered: u64 = lanes.iter().map(Lane::delivered).sum();
        let sent: u64 = lanes.iter().map(|lane| lane.sent).sum();
        if delivered >= sent {
            return delivered;
        }
        quiet = if delivered == last { quiet + 1 } else { 0 };
        last = delivered;
        sys::pause(Duration::from_millis(10));
    }
    last
}

/// Leaves the counters' cache line alone for a few microseconds.
fn spin() {
    for _ in 0..200 {
        std::hint::spin_loop();
    }
}

/// What a sink takes: datagrams that meet every test. Offsets are into the payload.
pub(crate) enum Test {
    Half(u32, u16),
    Word(u32, u32),
    /// The 16 bits at this offset, from the first value to the second.
    Between(u32, u16, u16),
    Length(u32),
    AtLeast(u32),
}

/// Makes the socket count (and drop) what meets all tests, and keep what does not.
pub(crate) fn sink(socket: &UdpSocket, tests: &[Test]) -> io::Result<()> {
    const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
    const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    const ABOVE: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    // The filter of a UDP socket sees the eight bytes of the UDP header first, with the length at offset 4.
    const HEADER: u32 = 8;
    const LENGTH: u32 = 4;
    let step = |code: u32, if_true, if_false, value| {
        SockFilter::new(code as u16, if_true, if_false, value)
    };
    let keep = || step(RETURN, 0, 0, u32::MAX);
    let mut program = Vec::new();
    for test in tests {
        let (load, at, compare, value) = match *test {
            Test::Half(at, value) => (LOAD_HALF, at + HEADER, EQUAL, u32::from(value)),
            Test::Word(at, value) => (LOAD_WORD, at + HEADER, EQUAL, value),
            Test::Between(at, least, _) => (LOAD_HALF, at + HEADER, AT_LEAST, u32::from(least)),
            Test::Length(length) => (LOAD_HALF, LENGTH, EQUAL, length + HEADER),
            Test::AtLeast(length) => (LOAD_HALF, LENGTH, AT_LEAST, length + HEADER),
        };
        program.extend([step(load, 0, 0, at), step(compare, 1, 0, value), keep()]);
        if let Test::Between(_, _, most) = *test {
            program.extend([step(ABOVE, 0, 1, u32::from(most)), keep()]);
        }
    }
    program.push(step(RETURN, 0, 0, 0));
    SockRef::from(socket).attach_filter(&program)
}

/// A payload of this length that the sinks know.
pub(crate) fn payload(len: usize) -> Vec<u8> {
    let mut payload = vec![0x5a; len];
    payload[..4].copy_from_slice(&MAGIC.to_be_bytes());
    payload
}

/// Sends slots of the two rings in turn at a fixed rate and reads both sockets all the time.
///
/// The time of sending travels in the payload; the sender's clock is the receiver's.
pub(crate) fn trickle(directions: &mut [Trickle; 2], per_second: u64, nanoseconds: u64) -> Light {
    let mut light = Light::default();
    let mut inbox = Batch::new(64, 2048, false);
    let start = sys::now();
    let mut now = start;
    let mut last_heard = start;
    while now - start < nanoseconds || now - last_heard < LINGER {
        let then = std::mem::replace(&mut now, sys::now());
        let absent = now - then > ABSENT;
        if now - start < nanoseconds && now - start >= light.sent * 1_000_000_000 / per_second {
            directions[(light.sent % 2) as usize].send(now);
            light.sent += 1;
        }
        for direction in &mut *directions {
            if direction.hear(&mut inbox, absent, &mut light) {
                last_heard = now;
            }
        }
    }
    light
}

/// What came of a light load.
#[derive(Default)]
pub(crate) struct Light {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// One-way times in nanoseconds, without those that had to wait for a generator that was not running.
    pub(crate) times: Vec<u64>,
}

/// The loop takes a few microseconds; after a pause this long something else had the generator's core.
const ABSENT: u64 = 50_000;

/// How long stragglers are waited for.
const LINGER: u64 = 50_000_000;

/// One direction of a light load.
pub(crate) struct Trickle {
    pub(crate) ring: Batch,
    pub(crate) next: usize,
    pub(crate) from: RawFd,
    pub(crate) to: RawFd,
    /// Where in a sent datagram the payload begins, and where in a received one.
    pub(crate) payload_at: (usize, usize),
}

impl Trickle {
    fn send(&mut self, now: u64) {
        let at = self.payload_at.0 + 4;
        self.ring.pushed(self.next)[at..at + 8].copy_from_slice(&now.to_be_bytes());
        // A refused datagram does not come, and is counted for that.
        let _ = self.ring.send(self.from, self.next, 1);
        self.next = (self.next + 1) % self.ring.len();
    }

    fn hear(&self, inbox: &mut Batch, absent: bool, light: &mut Light) -> bool {
        let count = inbox.receive(self.to, 64).unwrap_or(0);
        let now = sys::now();
        for index in 0..count {
            let payload = inbox
                .payload(index)
                .get(self.payload_at.1..)
                .unwrap_or_default();
            if let (Some(magic), Some(stamp)) = (
                payload.first_chunk(),
                payload.get(4..).and_then(<[u8]>::first_chunk),
            ) && u32::from_be_bytes(*magic) == MAGIC
            {
                light.received += 1;
                if !absent {
                    light
                        .times
                        .push(now.saturating_sub(u64::from_be_bytes(*stamp)));
                }
            }
        }
        inbox.clear();
        count > 0
    }
}
