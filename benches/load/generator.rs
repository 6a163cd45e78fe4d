//! The load: datagrams made once and sent round and round, and sinks that count without being read.
//!
//! Two sockets stand for all clients and all peers: each datagram names its own source address out of 127.0.0.0/8, so that one
//! `sendmmsg` speaks for many. What the server relays ends in a socket filter that checks length and content and drops;
//! the socket's drop counter is the count, so the generator neither wakes up nor copies for what it is sent, and
//! has its whole core for sending. A datagram that is not as it must be passes the filter and is found in the socket.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    os::fd::{AsRawFd, RawFd},
};

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
    pub(crate) lost: u64,
}

impl Lane {
    pub(crate) fn new(ring: Batch, socket: RawFd, sink: RawFd, per_slot: u64, batch: usize) -> Self {
        let mut lane = Self { ring, socket, sink, per_slot, batch, next: 0, sent: 0, forgiven: 0, at_start: 0, progress: (0, 0) };
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
        let in_flight = self.sent.saturating_sub(self.forgiven + delivered);
        if delivered != self.progress.0 {
            self.progress = (delivered, now);
        } else if in_flight > 0 && now - self.progress.1 > STALLED {
            // What has not come by now is lost: its place in the window is given back, and the end counts it.
            self.forgiven += in_flight;
            self.progress.1 = now;
        }
        let room = window.saturating_sub(in_flight) / self.per_slot;
        if room < self.batch as u64 {
            return false;
        }
        let count = self.batch.min(self.ring.len() - self.next);
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
pub(crate) fn drive(lanes: &mut [Lane], window: u64, nanoseconds: u64) -> Run {
    lanes.iter_mut().for_each(Lane::reset);
    let start = sys::now();
    let mut run = Run::default();
    let mut now = start;
    while now - start < nanoseconds {
        let mut any = false;
        for lane in &mut *lanes {
            any |= lane.fill(window, now);
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
        sys::pause(std::time::Duration::from_millis(10));
    }
    last
}

/// Leaves the counters' cache line alone for a few microseconds.
fn spin() {
    for _ in 0..200 {
        std::hint::spin_loop();
    }
}

/// What a sink takes: datagrams that meet every test.
pub(crate) enum Test {
    /// The 16 bits at this offset of the payload, under a mask.
    Half(u32, u32, u32),
    /// The 32 bits at this offset of the payload.
    Word(u32, u32),
    /// The length of the payload.
    Length(u32),
}

/// Makes the socket count (and drop) what meets all tests, and keep what does not.
pub(crate) fn sink(socket: &UdpSocket, tests: &[Test]) -> io::Result<()> {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    // The filter of a UDP socket sees the eight bytes of the UDP header first.
    const HEADER: u32 = 8;
    let mut program = Vec::new();
    for test in tests {
        match *test {
            Test::Half(at, mask, value) => {
                program.push(SockFilter::new(LOAD_HALF, 0, 0, at + HEADER));
                program.push(SockFilter::new(AND, 0, 0, mask));
                program.push(SockFilter::new(EQUAL, 1, 0, value));
            }
            Test::Word(at, value) => {
                program.push(SockFilter::new(LOAD_WORD, 0, 0, at + HEADER));
                program.push(SockFilter::new(EQUAL, 1, 0, value));
            }
            Test::Length(len) => {
                program.push(SockFilter::new(LOAD_HALF, 0, 0, 4));
                program.push(SockFilter::new(EQUAL, 1, 0, len + HEADER));
            }
        }
        program.push(SockFilter::new(RETURN, 0, 0, u32::MAX));
    }
    program.push(SockFilter::new(RETURN, 0, 0, 0));
    SockRef::from(socket).attach_filter(&program)
}

/// Counts and forgets what a sink has kept because it was not as it must be.
pub(crate) fn strays(socket: &UdpSocket) -> usize {
    let mut batch = Batch::new(64, 2048, false);
    let mut count = 0;
    while let Ok(received @ 1..) = batch.receive(socket.as_raw_fd(), 64) {
        count += received;
        batch.clear();
    }
    count
}

/// The source address of client `index`.
pub(crate) fn client_address(index: usize) -> Ipv4Addr {
    Ipv4Addr::from(0x7f10_0001 + index as u32)
}

/// The address of peer `index`.
pub(crate) fn peer_address(index: usize) -> Ipv4Addr {
    Ipv4Addr::from(0x7f20_0001 + index as u32)
}

/// A payload of this length that the sinks know.
pub(crate) fn payload(len: usize) -> Vec<u8> {
    let mut payload = vec![0x5a; len];
    payload[..4].copy_from_slice(&MAGIC.to_be_bytes());
    payload
}

