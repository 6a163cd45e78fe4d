//! What a worker does with the machine's verdicts: onto the network, into a connection, or over to another
//! relay of this server.

use std::net::SocketAddr;

use bytes::Bytes;

use super::mail::{Parcel, Relayed};
use super::moved;
use super::outbox::{Body, By, Counted, Entry};
use super::worker::Worker;
use crate::metrics::{Direction, SocketError};
use crate::turn::{Cause, Client, Family, Head, Now, RelayId, Transport, Verdict};

/// Where a packet came from, as far as counting and sending it on need it.
#[derive(Clone, Copy)]
struct Origin {
    transport: Transport,
    family: Family,
    marks: u8,
}

impl Worker<'_> {
    /// Gives the machine what a client sent, with its DSCP and ECN. Streams have none of their own for a single
    /// message, so theirs are Best Effort and Not-ECT (RFC 8656 §15).
    pub(super) fn client_input(&mut self, now: Now, client: Client, input: Body, marks: u8) {
        let reply = self.outbox.replies.len();
        let bytes = input.bytes(&self.inbox, &[]);
        let verdict = self.server.client_input(
            now,
            client,
            bytes,
            &mut self.sockets,
            &mut self.outbox.replies,
        );
        match verdict {
            Verdict::ToPeer {
                relay,
                peer,
                body,
                dont_fragment,
            } => {
                let origin = Origin {
                    transport: client.five_tuple.transport,
                    family: Family::of(peer.ip()),
                    marks,
                };
                let body = input.part(body);
                if self.sockets.ports().is_relay_address(peer.ip()) {
                    self.hand_over(now, relay, peer, &body, origin);
                } else {
                    let counted =
                        Counted::Relayed(Direction::ToPeer, origin.transport, origin.family);
                    let by = By::Relay(relay);
                    self.push(Entry {
                        by,
                        to: peer,
                        from: None,
                        marks: origin.marks,
                        head: None,
                        body,
                        pad: 0,
                        dont_fragment,
                        counted,
                    });
                }
            }
            Verdict::Reply(answer) => {
                self.cells
                    .answered(answer.method, answer.code, answer.refusal);
                // Whoever was refused holds nothing that a quota counts.
                if answer.authenticated && answer.code == 0 {
                    self.trust(answer.to);
                }
                let body = Body::Reply(reply..self.outbox.replies.len());
                match answer.via {
                    None => self.answer(now, answer.to, body),
                    Some(listener) => self.answer_via(listener, answer.to, body),
                }
            }
            Verdict::Later => {}
            Verdict::Elsewhere(home) => self.pass_on(now, home, client, &input, marks),
            Verdict::Drop(cause) => self.cells.dropped(cause),
            Verdict::ToClient { .. } => {
                debug_assert!(false, "a client's packet never goes to a client directly")
            }
        }
    }

    /// Gives the machine what a peer sent, with its DSCP and ECN.
    pub(super) fn peer_input(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: SocketAddr,
        input: &Body,
        marks: u8,
    ) {
        match self.server.peer_input(now, relay, peer, input.len()) {
            Verdict::ToClient {
                to,
                head,
                body,
                pad,
            } => {
                let frame = (head, input.part(body), pad);
                let family = Family::of(peer.ip());
                match moved::through(to.path) {
                    Some(way) => self.relay_far(now, way, to, frame, (family, marks)),
                    None => self.relay_here(now, to, frame, (family, marks)),
                }
            }
            Verdict::Drop(cause) => self.cells.dropped(cause),
            Verdict::ToPeer { .. } | Verdict::Reply(_) | Verdict::Later | Verdict::Elsewhere(_) => {
                debug_assert!(false, "a peer's packet goes to its client or nowhere");
            }
        }
    }

    /// Brings a packet to another relay of this server without the network: the same worker's at once,
    /// another worker's by mail. To an address of ours that is no relay nothing goes (A06).
    fn hand_over(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: SocketAddr,
        body: &Body,
        origin: Origin,
    ) {
        let owner = self.sockets.ports().owner(peer);
        let from = self.sockets.relay(relay).map(|socket| socket.advertised());
        let (Some(owner), Some(from)) = (owner, from) else {
            self.cells.dropped(Cause::UnreachablePeer);
            return;
        };
        let bytes = body.len();
        if owner.worker == self.number {
            self.peer_input(now, owner.relay, from, body, origin.marks);
        } else {
            let payload = Bytes::copy_from_slice(body.bytes(&self.inbox, &[]));
            let parcel = Parcel::Relayed(Relayed {
                relay: owner.relay,
                to: peer,
                from,
                marks: origin.marks,
                bytes: payload,
            });
            if self.shared.addresses[owner.worker]
                .parcels
                .try_send(parcel)
                .is_err()
            {
                self.cells.socket_error(SocketError::Full);
                return;
            }
        }
        self.cells
            .relayed(Direction::ToPeer, origin.transport, origin.family, bytes);
    }

    /// Takes in what another worker handed over.
    pub(super) fn take_parcel(&mut self, now: Now, parcel: Parcel) {
        match parcel {
            Parcel::Relayed(parcel) => self.take_relayed(now, parcel),
            Parcel::Letter(letter) => self.read(now, letter),
        }
    }

    fn take_relayed(&mut self, now: Now, parcel: Relayed) {
        // The relay may have ended and its number been given out again on the way.
        let same = self
            .sockets
            .relay(parcel.relay)
            .is_some_and(|relay| relay.advertised().port() == parcel.to.port());
        if same {
            let all = 0..parcel.bytes.len();
            self.peer_input(
                now,
                parcel.relay,
                parcel.from,
                &Body::Shared(parcel.bytes, all),
                parcel.marks,
            );
        } else {
            self.cells.dropped(Cause::UnreachablePeer);
        }
    }

    /// A client has proved who it is: it counts no longer as a stranger where connections are limited.
    pub(super) fn trust(&mut self, client: Client) {
        if self.streams.owns(client.path) {
            self.streams.trust(client.path);
        } else if client.five_tuple.transport == Transport::Dtls {
            self.associations.trust(&client.five_tuple);
        }
    }

    pub(super) fn answer(&mut self, now: Now, to: Client, body: Body) {
        if let Some(way) = moved::through(to.path) {
            self.answer_far(way, to, &body);
        } else if self.streams.owns(to.path) {
            let bytes = body.bytes(&self.inbox, &self.outbox.replies);
            let parts = [bytes, &[], &[]];
            self.streams
                .send(now.instant, to.path, parts, Counted::Answer);
        } else if to.five_tuple.transport == Transport::Dtls {
            let bytes = body.bytes(&self.inbox, &self.outbox.replies);
            self.associations.send(to, [bytes, &[], &[]], 0);
        } else {
            let entry = self.to_client(to, body, Counted::Answer);
            self.push(entry);
        }
    }

    /// Answers from another listener than the one that was asked.
    fn answer_via(&mut self, listener: SocketAddr, to: Client, body: Body) {
        match self.sockets.listener_at(listener) {
            Some(path) => {
                let entry = self.to_client(Client { path, ..to }, body, Counted::Answer);
                self.push(entry);
            }
            // Only where a socket of the service manager's is not to be shared with the other workers.
            None => self.cells.socket_error(SocketError::Other),
        }
    }

    /// Brings payload to a client that is connected to this worker.
    pub(super) fn relay_here(
        &mut self,
        now: Now,
        to: Client,
        (head, body, pad): (Head, Body, usize),
        (family, marks): (Family, u8),
    ) {
        const PADDING: [u8; 3] = [0; 3];
        let transport = to.five_tuple.transport;
        let counted = Counted::Relayed(Direction::ToClient, transport, family);
        if self.streams.owns(to.path) {
            let bytes = body.bytes(&self.inbox, &[]);
            let parts = [head.as_slice(), bytes, &PADDING[..pad]];
            self.streams.send(now.instant, to.path, parts, counted);
        } else if transport == Transport::Dtls {
            self.relay_over_dtls(to, (&head, &body, pad), family, marks);
        } else {
            let mut entry = self.to_client(to, body, counted);
            (entry.head, entry.pad, entry.marks) = (Some(head), pad, marks);
            self.push(entry);
        }
    }

    pub(super) fn to_client(&self, to: Client, body: Body, counted: Counted) -> Entry {
        let listener = self.sockets.listeners.get(to.path.0 as usize);
        let wildcard = listener.is_some_and(|listener| listener.address.ip().is_unspecified());
        Entry {
            by: By::Listener(to.path.0),
            to: to.five_tuple.client,
            from: wildcard.then_some(to.five_tuple.server.ip()),
            marks: 0,
            head: None,
            body,
            pad: 0,
            dont_fragment: false,
            counted,
        }
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.outbox.push(entry);
    }
}
