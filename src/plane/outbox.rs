//! What a worker has decided to send and has not sent yet.
//!
//! Verdicts are collected while a batch is taken in and leave grouped by socket, each group in as few
//! system calls as the kernel allows. Payloads are not copied: an entry says which bytes of the inbox, of a
//! frame or of the reply buffer it stands for. Order within a socket is kept.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::BorrowedFd;

use bytes::Bytes;

use super::sockets::Sockets;
use super::udp::{BATCH, Datagram, Inbox, Outcome, Outlet, dont_fragment};
use crate::metrics::{Cells, Direction, SocketError};
use crate::turn::{Family, Head, RelayId, Transport};

/// The socket that a datagram leaves by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// A listener, by its number.
    Listener(u32),
    Relay(RelayId),
}

impl By {
    /// Entries are sorted by this: one number for each socket.
    fn order(self) -> u32 {
        match self {
            Self::Listener(number) => number,
            Self::Relay(relay) => relay.0 | 1 << 31,
        }
    }
}

/// Where the bytes of a payload lie.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// In a slot of the inbox.
    Slot(usize, Range<usize>),
    /// In a frame from a stream, or in a packet from another worker.
    Shared(Bytes, Range<usize>),
    /// In the reply buffer.
    Reply(Range<usize>),
}

impl Body {
    /// A part of these bytes; `range` counts from their beginning.
    pub(super) fn part(&self, range: Range<usize>) -> Self {
        let within = |outer: &Range<usize>| outer.start + range.start..outer.start + range.end;
        match self {
            Self::Slot(slot, outer) => Self::Slot(*slot, within(outer)),
            Self::Shared(bytes, outer) => Self::Shared(bytes.clone(), within(outer)),
            Self::Reply(outer) => Self::Reply(within(outer)),
        }
    }

    /// The bytes themselves.
    pub(super) fn bytes<'a>(&'a self, inbox: &'a Inbox, replies: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Slot(slot, range) => &inbox.bytes(*slot)[range.clone()],
            Self::Shared(bytes, range) => &bytes[range.clone()],
            Self::Reply(range) => &replies[range.clone()],
        }
    }

    /// How many bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Slot(_, range) | Self::Shared(_, range) | Self::Reply(range) => range.len(),
        }
    }
}

/// What a datagram counts as once it has left.
#[derive(Clone, Copy, Debug)]
pub(super) enum Counted {
    /// An answer; it was counted when it was made.
    Answer,
    /// Relayed payload.
    Relayed(Direction, Transport, Family),
}

/// One datagram that waits to be sent.
pub(super) struct Entry {
    pub(super) by: By,
    pub(super) to: SocketAddr,
    /// The source address, for a listener on a wildcard.
    pub(super) from: Option<IpAddr>,
    /// DSCP and ECN.
    pub(super) marks: u8,
    pub(super) head: Option<Head>,
    pub(super) body: Body,
    /// Zero bytes behind the body, 0 to 3.
    pub(super) pad: usize,
    pub(super) dont_fragment: bool,
    pub(super) counted: Counted,
}

/// The entries of one round, and the scratch space to send them.
pub(super) struct Outbox {
    entries: Vec<Entry>,
    /// Sort keys: the socket above, the place in `entries` below.
    order: Vec<u64>,
    outlet: Outlet,
    outcomes: Vec<Outcome>,
    /// Answers of this round; the machine appends to it.
    pub(super) replies: Vec<u8>,
    /// Some of what the kernel would not send to peers, until the machine is told.
    pub(super) lost: Vec<Lost>,
}

/// A datagram that the kernel would not send.
pub(super) struct Lost {
    pub(super) relay: RelayId,
    pub(super) peer: IpAddr,
    pub(super) error: SocketError,
}

/// How many of them are told of in a round.
const MOST_LOST: usize = 16;

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            entries: Vec::with_capacity(BATCH),
            order: Vec::with_capacity(BATCH),
            outlet: Outlet::new(),
            outcomes: Vec::with_capacity(BATCH),
            replies: Vec::with_capacity(BATCH * 128),
            lost: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.order
            .push(u64::from(entry.by.order()) << 32 | self.entries.len() as u64);
        self.entries.push(entry);
    }

    /// Whether there is something to send.
    pub(super) fn has_more(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Sends everything and counts what became of it.
    pub(super) fn send(&mut self, inbox: &Inbox, sockets: &Sockets, cells: &mut Cells) {
        self.order.sort_unstable();
        let Self {
            entries,
            order,
            outlet,
            outcomes,
            replies,
            lost,
        } = self;
        for group in order.chunk_by(|a, b| a >> 32 == b >> 32) {
            let first = entry(entries, group[0]);
            let Some(socket) = sockets.descriptor(first.by) else {
                continue;
            };
            for run in group.chunk_by(|a, b| {
                entry(entries, *a).dont_fragment == entry(entries, *b).dont_fragment
            }) {
                let first = entry(entries, run[0]);
                let fragile = first.dont_fragment.then(|| first.to.is_ipv4());
                for chunk in run.chunks(BATCH) {
                    let batch = Batch {
                        entries,
                        chunk,
                        inbox,
                        replies,
                    };
                    let mut send = || batch.send(outlet, socket, outcomes);
                    match fragile {
                        Some(v4) => with_dont_fragment(socket, v4, send),
                        None => send(),
                    }
                    batch.count(outcomes, cells, lost);
                }
            }
        }
        self.entries.clear();
        self.order.clear();
        self.replies.clear();
    }
}

/// At most [`BATCH`] entries of one socket.
struct Batch<'a> {
    entries: &'a [Entry],
    chunk: &'a [u64],
    inbox: &'a Inbox,
    replies: &'a [u8],
}

impl Batch<'_> {
    fn send(&self, outlet: &mut Outlet, socket: BorrowedFd<'_>, outcomes: &mut Vec<Outcome>) {
        // Most relays have one datagram in a round: room for a whole batch would cost more than all else here.
        if let [only] = self.chunk {
            return outlet.send(socket, &[self.datagram(*only)], outcomes);
        }
        let nowhere = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);
        let mut datagrams = [Datagram {
            to: nowhere,
            from: None,
            marks: 0,
            parts: [&[]; 3],
        }; BATCH];
        for (datagram, key) in datagrams.iter_mut().zip(self.chunk) {
            *datagram = self.datagram(*key);
        }
        outlet.send(socket, &datagrams[..self.chunk.len()], outcomes);
    }

    fn datagram(&self, key: u64) -> Datagram<'_> {
        const PADDING: [u8; 3] = [0; 3];
        let entry = entry(self.entries, key);
        let head = entry.head.as_ref().map_or(&[][..], Head::as_slice);
        let body = entry.body.bytes(self.inbox, self.replies);
        Datagram {
            to: entry.to,
            from: entry.from,
            marks: entry.marks,
            parts: [head, body, &PADDING[..entry.pad]],
        }
    }

    fn count(&self, outcomes: &[Outcome], cells: &mut Cells, lost: &mut Vec<Lost>) {
        for (outcome, key) in outcomes.iter().zip(self.chunk) {
            let entry = entry(self.entries, *key);
            match (outcome, entry.counted) {
                (None, Counted::Relayed(direction, transport, family)) => {
                    cells.relayed(direction, transport, family, entry.body.len());
                }
                (None, Counted::Answer) => {}
                // ENETUNREACH, ECONNREFUSED, EPERM, ENOBUFS, EMSGSIZE and the rest cost this datagram.
                (Some(errno), _) => {
                    let error = SocketError::of(&std::io::Error::from_raw_os_error(*errno));
                    cells.socket_error(error);
                    if let By::Relay(relay) = entry.by
                        && lost.len() < MOST_LOST
                    {
                        let peer = entry.to.ip();
                        lost.push(Lost { relay, peer, error });
                    }
                }
            }
        }
    }
}

/// Sends with DF set, which is a property of the socket and not of the datagram. Rare: a Send indication
/// with DONT-FRAGMENT.
fn with_dont_fragment(socket: BorrowedFd<'_>, v4: bool, send: impl FnOnce()) {
    let set = dont_fragment(socket, v4, true).is_ok();
    send();
    if set {
        let _ = dont_fragment(socket, v4, false);
    }
}

fn entry(entries: &[Entry], key: u64) -> &Entry {
    &entries[(key & u64::from(u32::MAX)) as usize]
}
