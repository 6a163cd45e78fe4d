//! What a worker does with ICMP errors about packets that its relays have sent.

use super::outbox::{Body, By};
use super::udp::{self, PathError};
use super::worker::Worker;
use crate::turn::{Now, RelayId};

/// How many errors are read from one relay at a time.
const ERRORS: usize = 16;

impl Worker<'_> {
    /// Reads what the network says of packets that a relay has sent. True when there may be more.
    pub(super) fn receive_errors(&mut self, now: Now, relay: RelayId) -> bool {
        let mut last = None;
        for _ in 0..ERRORS {
            let Some(socket) = self.sockets.descriptor(By::Relay(relay)) else {
                return false;
            };
            match udp::path_error(socket) {
                // A burst of packets causes a burst of the same error: once says it.
                Ok(error) if error == last => {}
                Ok(Some(error)) => {
                    last = Some(error);
                    self.tell(now, relay, error);
                }
                Ok(None) => {}
                Err(_) => return false,
            }
        }
        true
    }

    fn tell(&mut self, now: Now, relay: RelayId, PathError { peer, icmp }: PathError) {
        let start = self.outbox.replies.len();
        let replies = &mut self.outbox.replies;
        match self.server.peer_error(now, relay, peer, icmp, replies) {
            Ok(client) => {
                self.cells.icmp += 1;
                let end = self.outbox.replies.len();
                self.answer(now, client, Body::Reply(start..end));
            }
            Err(cause) => self.cells.dropped(cause),
        }
    }
}
