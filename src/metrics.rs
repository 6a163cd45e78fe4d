//! The counters of a worker: plain numbers that one thread owns and adds to without atomics.
//!
//! A worker counts into its [`Cells`]; a scrape asks every worker for a copy and adds them up into one
//! [`Snapshot`]. Labels come from closed enums only, so that no client can make the page grow by what it sends.
//! Names and text of the page are made in `http::page`, from a snapshot; nothing here knows of a page.

mod delays;
mod tokens;

use std::collections::BTreeMap;
use std::io;
use std::ops::AddAssign;
use std::time::Duration;

use crate::stun::Method;
use crate::turn::{
    Cause, Census, EndReason, Family, Limit, MoveResult, Refusal, Traffic, Transport,
};

pub use delays::{DELAY_BOUNDS, Delays};
pub use tokens::{Dialect, TokenRefusal, Tokens};

/// Which way a relayed packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client, out of its relayed address.
    ToPeer,
    /// From a peer, in at the relayed address.
    ToClient,
}

impl Direction {
    /// Both ways, in the order of the counters.
    pub const ALL: [Self; 2] = [Self::ToPeer, Self::ToClient];

    /// The label's value.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ToPeer => "to_peer",
            Self::ToClient => "to_client",
        }
    }
}

/// What a socket said instead of taking or giving a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketError {
    /// The kernel's buffer was full, or what waits for a client that takes too little, or has gone: the packet was
    /// dropped.
    Full,
    /// An ICMP message told that nobody listens there.
    Refused,
    /// No route to that address.
    Unreachable,
    /// Longer than the path takes, and not to be fragmented.
    TooBig,
    /// A local rule (firewall, filter) forbade it.
    Denied,
    /// No descriptor left.
    NoDescriptor,
    /// Anything else.
    Other,
}

/// `EMFILE`, `ENFILE`, `EMSGSIZE` and `ENOBUFS` of Linux, for which the standard library has no stable kind.
const NO_DESCRIPTOR: [i32; 2] = [24, 23];
const TOO_BIG: i32 = 90;
const NO_BUFFERS: i32 = 105;

impl SocketError {
    /// Every kind, in the order of the counters.
    pub const ALL: [Self; 7] = [
        Self::Full,
        Self::Refused,
        Self::Unreachable,
        Self::TooBig,
        Self::Denied,
        Self::NoDescriptor,
        Self::Other,
    ];

    /// The kind that an error of the kernel counts as.
    pub fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(TOO_BIG) => return Self::TooBig,
            Some(NO_BUFFERS) => return Self::Full,
            Some(code) if NO_DESCRIPTOR.contains(&code) => return Self::NoDescriptor,
            Some(_) | None => {}
        }

        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the standard library's kinds are open"
        )]
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => Self::Full,
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            io::ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Other,
        }
    }

    /// The label's value.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::TooBig => "too_big",
            Self::Denied => "denied",
            Self::NoDescriptor => "no_descriptor",
            Self::Other => "other",
        }
    }
}

/// Methods that are counted under their own name; what is not in the list counts as `other`.
pub const METHODS: [(Method, &str); 8] = [
    (Method::BINDING, "binding"),
    (Method::ALLOCATE, "allocate"),
    (Method::REFRESH, "refresh"),
    (Method::CREATE_PERMISSION, "create_permission"),
    (Method::CHANNEL_BIND, "channel_bind"),
    (Method::CONNECT, "connect"),
    (Method::CONNECTION_BIND, "connection_bind"),
    (Method::SEND, "send"),
];

/// Error codes that are counted under their own number; what is not in the list counts as `other`.
/// 0 stands for success.
pub const CODES: [u16; 18] = [
    0, 300, 400, 401, 403, 405, 420, 437, 438, 440, 441, 442, 443, 446, 447, 486, 500, 508,
];

/// Upper bounds of the batch sizes that are counted apart; one more counter takes what is larger.
pub const BATCH_BOUNDS: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];

/// How many packets the receive calls brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Batches {
    /// Receive calls that brought at most as many packets as the bound of the same index; the last: more.
    pub calls: [u64; BATCH_BOUNDS.len() + 1],
    /// Packets of all calls together.
    pub packets: u64,
}

impl Batches {
    /// Counts one receive call that brought `packets`.
    pub fn took(&mut self, packets: usize) {
        let packets = packets as u64;
        let bucket = BATCH_BOUNDS.iter().position(|bound| packets <= *bound);
        self.calls[bucket.unwrap_or(BATCH_BOUNDS.len())] += 1;
        self.packets += packets;
    }
}

/// Something that ended well or did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// It went well.
    pub ok: u64,
    /// It did not.
    pub failed: u64,
}

impl Outcomes {
    /// Counts one.
    pub fn count(&mut self, ok: bool) {
        if ok { self.ok += 1 } else { self.failed += 1 }
    }
}

impl AddAssign for Outcomes {
    fn add_assign(&mut self, other: Self) {
        self.ok += other.ok;
        self.failed += other.failed;
    }
}

/// Why a datagram at a DTLS listener went nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtlsDrop {
    /// No DTLS record.
    NotDtls,
    /// A record that belongs to no association, or a plaintext one that could be anybody's.
    Stray,
    /// A message of a handshake that nobody has to send: in fragments, malformed, of an older version, too short or
    /// too long, or repeated when all is done.
    Handshake,
    /// Too many handshakes or associations, or no certificate.
    Busy,
}

impl DtlsDrop {
    /// Every reason, in the order of the counters.
    pub const ALL: [Self; 4] = [Self::NotDtls, Self::Stray, Self::Handshake, Self::Busy];

    /// The label's value.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotDtls => "not_dtls",
            Self::Stray => "stray",
            Self::Handshake => "handshake",
            Self::Busy => "busy",
        }
    }
}

/// What a worker has counted at its DTLS listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DtlsCells {
    /// Associations that live, handshakes included: as of the last report.
    pub associations: u64,
    /// Cookies sent to strangers.
    pub cookies: u64,
    /// Handshakes of clients.
    pub handshakes: Outcomes,
    drops: [u64; DtlsDrop::ALL.len()],
}

impl DtlsCells {
    /// Counts one datagram that went nowhere.
    pub fn dropped(&mut self, cause: DtlsDrop) {
        self.drops[cause as usize] += 1;
    }

    /// Datagrams that went nowhere for this reason.
    pub fn drops(&self, cause: DtlsDrop) -> u64 {
        self.drops[cause as usize]
    }
}

impl AddAssign<&Self> for DtlsCells {
    fn add_assign(&mut self, other: &Self) {
        self.associations += other.associations;
        self.cookies += other.cookies;
        self.handshakes += other.handshakes;
        add_all(&mut self.drops, &other.drops);
    }
}

type ByRoute = [[[Traffic; Family::ALL.len()]; Transport::ALL.len()]; Direction::ALL.len()];
type ByAnswer = [[u64; CODES.len() + 1]; METHODS.len() + 1];

/// What one worker has counted since it started. Counting is a plain addition: no atomics, no allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cells {
    relayed: ByRoute,
    drops: [u64; Cause::ALL.len()],
    answers: ByAnswer,
    refusals: [u64; Refusal::ALL.len()],
    moves: [u64; MoveResult::ALL.len()],
    ends: [u64; EndReason::ALL.len()],
    socket_errors: [u64; SocketError::ALL.len()],
    /// Receive calls on UDP sockets.
    pub batches: Batches,
    /// How long it took to pass on what they brought: a sample.
    pub forward: Delays,
    /// ICMP errors told to clients.
    pub icmp: u64,
    /// Messages of clients that had moved, handed on to the worker that has their allocation.
    pub passed_on: u64,
    /// TLS handshakes of clients.
    pub handshakes: Outcomes,
    /// PROXY headers: read, or broken or missing.
    pub proxy_headers: Outcomes,
    /// What happens at DTLS listeners.
    pub dtls: DtlsCells,
    /// Connections of clients: taken, or refused by a limit.
    pub streams: Outcomes,
    /// Connections of web clients: passed on, or refused by a limit.
    pub web: Outcomes,
    /// Times that this worker was started afresh after a panic.
    pub restarts: u64,
}

impl Default for Cells {
    fn default() -> Self {
        Self {
            relayed: Default::default(),
            drops: [0; Cause::ALL.len()],
            answers: [[0; CODES.len() + 1]; METHODS.len() + 1],
            refusals: [0; Refusal::ALL.len()],
            moves: [0; MoveResult::ALL.len()],
            ends: [0; EndReason::ALL.len()],
            socket_errors: [0; SocketError::ALL.len()],
            batches: Batches::default(),
            forward: Delays::default(),
            icmp: 0,
            passed_on: 0,
            handshakes: Outcomes::default(),
            proxy_headers: Outcomes::default(),
            dtls: DtlsCells::default(),
            streams: Outcomes::default(),
            web: Outcomes::default(),
            restarts: 0,
        }
    }
}

impl Cells {
    /// Counts one relayed packet of `bytes` payload; `transport` is the client's, `family` the relayed address's.
    pub fn relayed(
        &mut self,
        direction: Direction,
        transport: Transport,
        family: Family,
        bytes: usize,
    ) {
        let cell = &mut self.relayed[direction as usize][transport.index()][family.index()];
        cell.packets += 1;
        cell.bytes += bytes as u64;
    }

    /// Counts bytes that went through a connection between a peer and a TCP relay: they have no packets.
    pub fn carried(
        &mut self,
        direction: Direction,
        transport: Transport,
        family: Family,
        bytes: u64,
    ) {
        self.relayed[direction as usize][transport.index()][family.index()].bytes += bytes;
    }

    /// Counts one packet that went nowhere.
    pub fn dropped(&mut self, cause: Cause) {
        self.drops[cause.index()] += 1;
    }

    /// Counts one answer; `code` 0 is success.
    pub fn answered(&mut self, method: Method, code: u16, refusal: Option<Refusal>) {
        let row = METHODS.iter().position(|(known, _)| *known == method);
        let column = CODES.iter().position(|known| *known == code);
        self.answers[row.unwrap_or(METHODS.len())][column.unwrap_or(CODES.len())] += 1;
        if let Some(refusal) = refusal {
            self.refusals[refusal.index()] += 1;
        }
    }

    /// Counts what became of a client's move.
    pub fn moved(&mut self, result: MoveResult) {
        self.moves[result.index()] += 1;
    }

    /// Counts one allocation that has ended.
    pub fn ended(&mut self, reason: EndReason) {
        self.ends[reason.index()] += 1;
    }

    /// Counts one error of a socket.
    pub fn socket_error(&mut self, error: SocketError) {
        self.socket_errors[error as usize] += 1;
    }

    /// What was relayed one way, by the client's transport and the relayed address's family.
    pub fn traffic(&self, direction: Direction, transport: Transport, family: Family) -> Traffic {
        self.relayed[direction as usize][transport.index()][family.index()]
    }

    /// Packets that went nowhere for this reason.
    pub fn drops(&self, cause: Cause) -> u64 {
        self.drops[cause.index()]
    }

    /// Answers by name of the method, code (as text; `other` for one without a counter of its own) and count.
    pub fn answers(&self) -> impl Iterator<Item = (&'static str, Option<u16>, u64)> + '_ {
        let names = METHODS.iter().map(|(_, name)| *name).chain(["other"]);
        names.zip(&self.answers).flat_map(|(name, row)| {
            let codes = CODES.iter().map(|code| Some(*code)).chain([None]);
            codes
                .zip(row)
                .map(move |(code, count)| (name, code, *count))
        })
    }

    /// Requests whose credentials were refused for this reason.
    pub fn refusals(&self, refusal: Refusal) -> u64 {
        self.refusals[refusal.index()]
    }

    /// Moves of clients that went like this.
    pub fn moves(&self, result: MoveResult) -> u64 {
        self.moves[result.index()]
    }

    /// Allocations that have ended for this reason.
    pub fn ends(&self, reason: EndReason) -> u64 {
        self.ends[reason.index()]
    }

    /// Errors of this kind.
    pub fn socket_errors(&self, error: SocketError) -> u64 {
        self.socket_errors[error as usize]
    }
}

impl AddAssign<&Self> for Cells {
    fn add_assign(&mut self, other: &Self) {
        let relayed = self.relayed.as_flattened_mut().as_flattened_mut();
        for (into, from) in relayed
            .iter_mut()
            .zip(other.relayed.as_flattened().as_flattened())
        {
            into.packets += from.packets;
            into.bytes += from.bytes;
        }
        add_all(&mut self.drops, &other.drops);
        add_all(
            self.answers.as_flattened_mut(),
            other.answers.as_flattened(),
        );
        add_all(&mut self.refusals, &other.refusals);
        add_all(&mut self.moves, &other.moves);
        add_all(&mut self.ends, &other.ends);
        add_all(&mut self.socket_errors, &other.socket_errors);
        add_all(&mut self.batches.calls, &other.batches.calls);
        self.batches.packets += other.batches.packets;
        self.forward += &other.forward;
        self.icmp += other.icmp;
        self.passed_on += other.passed_on;
        self.handshakes += other.handshakes;
        self.proxy_headers += other.proxy_headers;
        self.dtls += &other.dtls;
        self.streams += other.streams;
        self.web += other.web;
        self.restarts += other.restarts;
    }
}

fn add_all(into: &mut [u64], from: &[u64]) {
    for (into, from) in into.iter_mut().zip(from) {
        *into += *from;
    }
}

/// The relay ports: how many there are, and how many carry an allocation or a reservation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortPool {
    /// Ports of all relayed addresses together.
    pub total: u64,
    /// Ports in use.
    pub used: u64,
}

/// All workers at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The sum of the workers' counters.
    pub cells: Cells,
    /// What lives: allocations, permissions, channels.
    pub census: Census,
    /// Connections between TCP relays and peers, in use or waiting for their client.
    pub peer_connections: u64,
    /// How many Allocate requests each shared secret in force has vouched for, by the operator's names of them.
    pub secret_uses: BTreeMap<String, u64>,
    /// How often each limit stood against an allocation.
    pub rejected: [u64; Limit::ALL.len()],
    /// The relay ports.
    pub ports: PortPool,
    /// Workers that answered.
    pub workers: u64,
    /// How long each worker has been on a processor, in the order of their numbers.
    pub processors: Vec<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted() -> Cells {
        let mut cells = Cells::default();
        cells.relayed(Direction::ToPeer, Transport::Udp, Family::V4, 160);
        cells.relayed(Direction::ToClient, Transport::Tls, Family::V6, 1200);
        cells.answered(Method::ALLOCATE, 401, Some(Refusal::NoIntegrity));
        cells.answered(Method(0x0ff), 777, None);
        cells.dropped(Cause::NoPermission);
        cells.socket_error(SocketError::Full);
        cells.batches.took(1);
        cells.batches.took(65);
        cells.handshakes.count(false);
        cells.dtls.handshakes.count(true);
        cells.dtls.dropped(DtlsDrop::Stray);
        cells.streams.count(true);
        cells
    }

    #[test]
    fn everything_counted_is_found_again() {
        let cells = counted();
        assert_eq!(
            cells.traffic(Direction::ToPeer, Transport::Udp, Family::V4),
            Traffic {
                packets: 1,
                bytes: 160
            }
        );
        assert_eq!(
            cells.traffic(Direction::ToClient, Transport::Tls, Family::V6),
            Traffic {
                packets: 1,
                bytes: 1200
            }
        );
        assert_eq!(cells.drops(Cause::NoPermission), 1);
        assert_eq!(cells.refusals(Refusal::NoIntegrity), 1);
        assert_eq!(cells.socket_errors(SocketError::Full), 1);
        let answers: Vec<_> = cells.answers().filter(|(_, _, count)| *count > 0).collect();
        assert_eq!(answers, [("allocate", Some(401), 1), ("other", None, 1)]);
        assert_eq!(cells.batches.calls, [1, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(cells.batches.packets, 66);
    }

    #[test]
    fn workers_add_up() {
        let mut sum = counted();
        sum += &counted();
        assert_eq!(
            sum.traffic(Direction::ToPeer, Transport::Udp, Family::V4),
            Traffic {
                packets: 2,
                bytes: 320
            }
        );
        assert_eq!(sum.answers().map(|(_, _, count)| count).sum::<u64>(), 4);
        assert_eq!(
            (sum.batches.packets, sum.handshakes.failed, sum.streams.ok),
            (132, 2, 2)
        );
        assert_eq!(
            (sum.dtls.handshakes.ok, sum.dtls.drops(DtlsDrop::Stray)),
            (2, 2)
        );
        assert_eq!(
            (
                sum.drops(Cause::NoPermission),
                sum.socket_errors(SocketError::Full)
            ),
            (2, 2)
        );
    }

    #[test]
    fn errors_of_the_kernel_have_a_kind() {
        for (number, kind) in [
            (105, SocketError::Full),
            (11, SocketError::Full),
            (90, SocketError::TooBig),
            (24, SocketError::NoDescriptor),
            (111, SocketError::Refused),
            (101, SocketError::Unreachable),
            (1, SocketError::Denied),
            (22, SocketError::Other),
        ] {
            assert_eq!(
                SocketError::of(&io::Error::from_raw_os_error(number)),
                kind,
                "{number}"
            );
        }
    }
}
