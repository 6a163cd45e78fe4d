//! Clients that have moved (RFC 8016), and that the kernel now deals to another worker than the one that has their
//! allocation.
//!
//! The two write each other letters: the worker *here* passes on what the client sends, the worker at *home* has the
//! allocation and writes back what the client is to get. The worker here does so because its machine says
//! [`Verdict::Elsewhere`](crate::turn::Verdict::Elsewhere): for a Refresh with a ticket that says so, and then for
//! whatever comes from that client, since each answer from home says whether the allocation is there. So nothing
//! is noted for a stranger, and a note that has become wrong is put right by the next letter.
//!
//! Letters may be lost when a mailbox is full, as datagrams may.

use bytes::Bytes;
use tracing::trace;

use super::mail::Parcel;
use super::outbox::Body;
use super::worker::Worker;
use crate::metrics::SocketError;
use crate::turn::{Cause, Client, Family, FiveTuple, Head, Now, Path, Transport, WorkerId};

/// Paths of one worker are below this; above, they lead through another worker, whose number plus one is in the
/// high byte.
pub(super) const PATHS: u32 = 1 << 24;

/// What one worker writes another about a client that has moved. Clients and their paths are those of the worker
/// that they are connected to.
pub(super) struct Letter {
    pub(super) from: usize,
    pub(super) client: Client,
    pub(super) text: Text,
}

/// What a [`Letter`] says.
pub(super) enum Text {
    /// To home: the client has sent this. It is yours, or so its ticket says.
    Sent {
        bytes: Bytes,
        marks: u8,
        by_ticket: bool,
        /// The tenant whose host the client has asked for.
        door: Option<Box<str>>,
    },
    /// To home: its connection is closed.
    Gone,
    /// From home: an answer for the client, and whether its allocation is here.
    Answer { bytes: Bytes, is_mine: bool },
    /// From home: data for the client.
    Data(Box<Data>),
    /// From home: the client is not mine, see to it yourself.
    Returned { bytes: Bytes, marks: u8 },
    /// From home: the client is no longer mine.
    Left,
}

/// What a client is to get from a peer.
pub(super) struct Data {
    head: Head,
    payload: Bytes,
    pad: usize,
    /// The relayed address's.
    family: Family,
    marks: u8,
}

/// The worker that a path leads through, and the path there.
pub(super) fn through(path: Path) -> Option<(usize, Path)> {
    let worker = (path.0 / PATHS).checked_sub(1)?;
    Some((worker as usize, Path(path.0 % PATHS)))
}

/// A client as the home sees it when it is connected to `worker`.
fn far(worker: usize, client: Client) -> Client {
    let path = Path((worker as u32 + 1) * PATHS + client.path.0);
    Client { path, ..client }
}

/// The worker here.
impl Worker<'_> {
    /// Hands on what a client has sent whose allocation is with another worker.
    pub(super) fn pass_on(
        &mut self,
        now: Now,
        home: WorkerId,
        client: Client,
        input: &Body,
        marks: u8,
    ) {
        if through(client.path).is_some() {
            // It has been handed on already, to a worker that had a note of it from before.
            self.cells.dropped(Cause::NoAllocation);
            return;
        }
        self.cells.passed_on += 1;
        let text = Text::Sent {
            bytes: Bytes::copy_from_slice(input.bytes(&self.inbox, &[])),
            marks,
            by_ticket: self.server.elsewhere(now, &client.five_tuple).is_none(),
            door: self.server.door_of(client).map(Box::from),
        };
        self.write(usize::from(home.0), client, text);
    }

    /// A client's connection is closed.
    pub(super) fn client_gone(&mut self, now: Now, client: Client) {
        if let Some(home) = self.server.elsewhere(now, &client.five_tuple) {
            self.server.forget_elsewhere(&client.five_tuple, home);
            self.write(usize::from(home.0), client, Text::Gone);
        }
        self.server.client_gone(now, client, &mut self.sockets);
    }

    /// Whether a client is (still) connected here. Of one without a connection nobody can tell.
    fn is_here(&self, client: Client) -> bool {
        if self.streams.owns(client.path) {
            self.streams.client(client.path) == Some(client)
        } else {
            client.five_tuple.transport != Transport::Dtls
                || self.associations.has(&client.five_tuple)
        }
    }
}

/// Either.
impl Worker<'_> {
    pub(super) fn read(&mut self, now: Now, letter: Letter) {
        let Letter { from, client, text } = letter;
        let five_tuple = client.five_tuple;
        match text {
            Text::Sent {
                bytes,
                marks,
                by_ticket,
                door,
            } => {
                if by_ticket || self.server.has_allocation(&five_tuple) {
                    let (client, all) = (far(from, client), 0..bytes.len());
                    self.server.note_door(client, door);
                    self.client_input(now, client, Body::Shared(bytes, all), marks);
                    if !self.server.has_allocation(&five_tuple) {
                        self.server.note_door(client, None);
                    }
                } else {
                    self.write(from, client, Text::Returned { bytes, marks });
                }
            }
            Text::Gone => {
                let client = far(from, client);
                self.server.client_gone(now, client, &mut self.sockets);
            }
            Text::Answer { .. } | Text::Data(_) if !self.is_here(client) => {
                if matches!(text, Text::Data(_)) {
                    self.cells.socket_error(SocketError::Full);
                }
                self.write(from, client, Text::Gone);
            }
            Text::Answer { bytes, is_mine } => {
                let home = worker_id(from);
                if is_mine {
                    self.server.note_elsewhere(now, five_tuple, home);
                    self.trust(client);
                } else {
                    self.server.forget_elsewhere(&five_tuple, home);
                }
                let all = 0..bytes.len();
                self.answer(now, client, Body::Shared(bytes, all));
            }
            Text::Data(data) => {
                let all = 0..data.payload.len();
                let frame = (data.head, Body::Shared(data.payload, all), data.pad);
                self.relay_here(now, client, frame, (data.family, data.marks));
            }
            Text::Returned { bytes, marks } => {
                self.server.forget_elsewhere(&five_tuple, worker_id(from));
                if self.is_here(client) {
                    let all = 0..bytes.len();
                    self.client_input(now, client, Body::Shared(bytes, all), marks);
                }
            }
            Text::Left => self.server.forget_elsewhere(&five_tuple, worker_id(from)),
        }
    }

    fn write(&mut self, to: usize, client: Client, text: Text) {
        let letter = Letter {
            from: self.number,
            client,
            text,
        };
        let Some(address) = self.shared.addresses.get(to) else {
            return;
        };
        if address.parcels.try_send(Parcel::Letter(letter)).is_err() {
            trace!(to, "a letter about a client that has moved is lost");
            self.cells.socket_error(SocketError::Full);
        }
    }
}

/// The worker at home.
impl Worker<'_> {
    /// Sends an answer to a client that is connected to another worker.
    pub(super) fn answer_far(&mut self, (worker, path): (usize, Path), to: Client, body: &Body) {
        let text = Text::Answer {
            bytes: Bytes::copy_from_slice(body.bytes(&self.inbox, &self.outbox.replies)),
            is_mine: self.server.has_allocation(&to.five_tuple),
        };
        self.write(worker, Client { path, ..to }, text);
    }

    /// Sends data to a client that is connected to another worker: over UDP straight away, from a socket with the
    /// same address.
    pub(super) fn relay_far(
        &mut self,
        now: Now,
        (worker, path): (usize, Path),
        to: Client,
        (head, body, pad): (Head, Body, usize),
        (family, marks): (Family, u8),
    ) {
        if let Some(twin) = self.twin(&to.five_tuple) {
            let to = Client { path: twin, ..to };
            return self.relay_here(now, to, (head, body, pad), (family, marks));
        }
        // The worker that it is connected to counts it.
        let data = Data {
            head,
            payload: Bytes::copy_from_slice(body.bytes(&self.inbox, &[])),
            pad,
            family,
            marks,
        };
        self.write(worker, Client { path, ..to }, Text::Data(Box::new(data)));
    }

    /// Nothing more will be sent to a client.
    pub(super) fn part_from(&mut self, client: Client) {
        if let Some((worker, path)) = through(client.path) {
            self.server.note_door(client, None);
            self.write(worker, Client { path, ..client }, Text::Left);
        }
    }

    /// The listener of this worker on the address that a client of another worker sends to.
    fn twin(&self, five_tuple: &FiveTuple) -> Option<Path> {
        if five_tuple.transport != Transport::Udp {
            return None;
        }
        let server = five_tuple.server;
        let listeners = &self.sockets.listeners;
        let exactly = listeners.iter().position(|one| one.address == server);
        let place = exactly.or_else(|| {
            listeners.iter().position(|one| {
                let ip = one.address.ip();
                one.address.port() == server.port()
                    && ip.is_unspecified()
                    && ip.is_ipv4() == server.is_ipv4()
            })
        });
        place.map(|place| Path(place as u32))
    }
}

fn worker_id(number: usize) -> WorkerId {
    // There are fewer than 255.
    WorkerId(number as u16)
}

#[cfg(test)]
mod tests {
    use super::super::ports::MAX_WORKERS;
    use super::*;

    #[test]
    fn a_path_leads_back_to_where_it_came_from() {
        let server = "192.0.2.1:3478".parse().unwrap();
        let five_tuple = FiveTuple {
            transport: Transport::Tcp,
            client: server,
            server,
        };
        for worker in [0, 1, MAX_WORKERS - 1] {
            for path in [Path(0), Path(7), Path(PATHS - 1)] {
                let client = Client { five_tuple, path };
                assert_eq!(through(path), None);
                assert_eq!(through(far(worker, client).path), Some((worker, path)));
            }
        }
    }
}
