//! The worker's side of DTLS: what comes out of associations goes to the machine, and back.

use crate::metrics::Direction;
use crate::plane::outbox::{Body, Counted, Entry};
use crate::plane::worker::Worker;
use crate::turn::{Cause, Client, Family, Head, Now};

impl Worker<'_> {
    /// Takes in a datagram that came to a DTLS listener, with its DSCP and ECN.
    pub(in crate::plane) fn dtls_input(
        &mut self,
        now: Now,
        client: Client,
        datagram: &Body,
        marks: u8,
    ) {
        let bytes = datagram.bytes(&self.inbox, &[]);
        self.associations
            .take(now.instant, client, bytes, &mut self.cells.dtls);
        self.serve_associations(now, marks);
    }

    /// Lets handshakes have their share of a new round.
    pub(in crate::plane) fn begin_dtls_round(&mut self, now: Now) {
        self.associations
            .begin_round(now.instant, &mut self.cells.dtls);
        self.serve_associations(now, 0);
    }

    /// What is due by time.
    pub(in crate::plane) fn expire_associations(&mut self, now: Now) {
        let server = &self.server;
        self.associations.expire(
            now.instant,
            |five_tuple| {
                server.has_allocation(five_tuple) || server.elsewhere(now, five_tuple).is_some()
            },
            &mut self.cells.dtls,
        );
    }

    /// Encrypts payload from a peer for its client; it leaves with the next flush.
    pub(in crate::plane) fn relay_over_dtls(
        &mut self,
        to: Client,
        (head, body, pad): (&Head, &Body, usize),
        family: Family,
        marks: u8,
    ) {
        const PADDING: [u8; 3] = [0; 3];
        let bytes = body.bytes(&self.inbox, &[]);
        let parts = [head.as_slice(), bytes, &PADDING[..pad]];
        if self.associations.send(to, parts, marks) {
            let transport = to.five_tuple.transport;
            self.cells
                .relayed(Direction::ToClient, transport, family, body.len());
        } else {
            self.cells.dropped(Cause::TooLarge);
        }
    }

    /// Puts what associations have to send into the outbox.
    pub(in crate::plane) fn post_associations(&mut self) {
        if self.associations.sink.datagrams.is_empty() {
            return;
        }
        let mut datagrams = std::mem::take(&mut self.associations.sink.datagrams);
        for (to, bytes, marks) in datagrams.drain(..) {
            let all = 0..bytes.len();
            let entry = self.to_client(to, Body::Shared(bytes, all), Counted::Answer);
            self.outbox.push(Entry { marks, ..entry });
        }
        self.associations.sink.datagrams = datagrams;
    }

    /// Gives the machine what associations have received, and tells it of those that are over.
    fn serve_associations(&mut self, now: Now, marks: u8) {
        loop {
            for gone in std::mem::take(&mut self.associations.ended) {
                self.client_gone(now, gone);
            }
            let Some((client, message)) = self.associations.sink.messages.pop_front() else {
                return;
            };
            // What came along with a goodbye comes from nobody.
            if self.associations.has(&client.five_tuple) {
                let all = 0..message.len();
                self.client_input(now, client, Body::Shared(message, all), marks);
            }
        }
    }
}
