//! One client's association: dimpl's state machine and what the server has to know around it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use dimpl::{Dtls, Output};

use super::hello::ClientHello;
use super::identity::Identity;
use super::record::shift_plaintext;
use crate::turn::Client;

/// The largest plaintext of a record (RFC 5246 §6.2.1).
pub(super) const LARGEST_PLAINTEXT: usize = 1 << 14;
/// Plaintext, and whatever a handshake flight or a record's protection needs around it.
const SCRATCH: usize = LARGEST_PLAINTEXT + 2048;
/// What datagrams are copied into, so that not every one is an allocation of its own.
const ARENA: usize = 16_384;

/// What associations have to say: datagrams for the network, messages for the machine.
pub(super) struct Sink {
    /// Each with its DSCP and ECN.
    pub(super) datagrams: Vec<(Client, Bytes, u8)>,
    pub(super) messages: VecDeque<(Client, Bytes)>,
    /// The DSCP and ECN of what is sent.
    pub(super) marks: u8,
    arena: BytesMut,
    scratch: Box<[u8]>,
}

impl Sink {
    pub(super) fn new() -> Self {
        Self {
            datagrams: Vec::new(),
            messages: VecDeque::new(),
            marks: 0,
            arena: BytesMut::new(),
            scratch: vec![0; SCRATCH].into(),
        }
    }

    /// Queues a datagram.
    pub(super) fn send(&mut self, to: Client, datagram: &[u8]) {
        let bytes = keep(&mut self.arena, datagram);
        self.datagrams.push((to, bytes.freeze(), self.marks));
    }
}

fn keep(arena: &mut BytesMut, bytes: &[u8]) -> BytesMut {
    if arena.capacity() < bytes.len() {
        arena.reserve(ARENA.max(bytes.len()));
    }
    arena.extend_from_slice(bytes);
    arena.split()
}

/// How far an association has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// `ciphers_changed`: the client's next protected record belongs to this handshake.
    Handshake {
        ciphers_changed: bool,
    },
    Established,
}

/// What a step led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing to be told. In a handshake: come back at this time.
    On(Instant),
    /// The handshake is complete.
    Connected,
    /// The client has said goodbye, or something that cannot be lived with.
    Over,
}

pub(super) struct Association {
    pub(super) client: Client,
    pub(super) stage: Stage,
    /// Of the ClientHello that it began with.
    pub(super) random: [u8; 32],
    /// Its client has not proved who it is.
    pub(super) pending: bool,
    /// How much higher the numbers of its plaintext records are than dimpl counts them: the first answer takes the
    /// number of the ClientHello (RFC 6347 §4.2.1).
    shift: u64,
    dtls: Box<Dtls>,
}

impl Association {
    /// Begins one with a ClientHello whose cookie has been checked.
    pub(super) fn begin(
        now: Instant,
        client: Client,
        hello: &ClientHello<'_>,
        identity: &Identity,
    ) -> Option<Self> {
        let accept = AssertUnwindSafe(|| identity.accept(now, hello));
        let dtls = catch_unwind(accept).ok()??;
        Some(Self {
            client,
            stage: Stage::Handshake {
                ciphers_changed: false,
            },
            random: hello.random,
            pending: true,
            shift: hello.record.saturating_sub(u64::from(hello.message)),
            dtls: Box::new(dtls),
        })
    }

    /// Takes in a datagram of the client.
    pub(super) fn take(&mut self, now: Instant, datagram: &[u8], sink: &mut Sink) -> Step {
        self.step(sink, |dtls| {
            // dimpl reads no clock; this is how it is told the time.
            dtls.handle_timeout(now)?;
            dtls.handle_packet(datagram)
        })
    }

    /// Sends again what has not been answered, or gives up.
    pub(super) fn handle_timeout(&mut self, now: Instant, sink: &mut Sink) -> Step {
        self.step(sink, |dtls| dtls.handle_timeout(now))
    }

    /// Encrypts a message for the client; at most [`LARGEST_PLAINTEXT`] bytes.
    pub(super) fn seal(&mut self, message: &[u8], sink: &mut Sink) -> Step {
        self.step(sink, |dtls| dtls.send_application_data(message).map(drop))
    }

    /// Says goodbye.
    pub(super) fn close(&mut self, sink: &mut Sink) {
        self.step(sink, Dtls::close);
    }

    /// Fetches what is to be sent after a ClientHello was accepted.
    pub(super) fn flush(&mut self, sink: &mut Sink) -> Step {
        self.step(sink, |_| Ok(()))
    }

    /// Lets dimpl do something, and fetches what it has to say. Should it panic on what a client has sent, that is the
    /// end of this client's association, and not of all calls of the worker.
    fn step(
        &mut self,
        sink: &mut Sink,
        act: impl FnOnce(&mut Dtls) -> Result<(), dimpl::Error>,
    ) -> Step {
        let step = AssertUnwindSafe(|| {
            let is_over = act(&mut self.dtls).is_err();
            self.drain(is_over, sink)
        });
        catch_unwind(step).unwrap_or(Step::Over)
    }

    fn drain(&mut self, is_over: bool, sink: &mut Sink) -> Step {
        let (mut connected, mut over) = (false, is_over);
        loop {
            match self.dtls.poll_output(&mut sink.scratch) {
                Output::Packet(packet) => {
                    let mut bytes = keep(&mut sink.arena, packet);
                    if self.shift > 0 {
                        shift_plaintext(&mut bytes, self.shift);
                    }
                    sink.datagrams
                        .push((self.client, bytes.freeze(), sink.marks));
                }
                Output::ApplicationData(message) => {
                    let bytes = keep(&mut sink.arena, message);
                    sink.messages.push_back((self.client, bytes.freeze()));
                }
                Output::BufferTooSmall { needed } => sink.scratch = vec![0; needed].into(),
                Output::Connected => connected = true,
                Output::CloseNotify => over = true,
                Output::Timeout(due) => {
                    return match (over, connected) {
                        (true, _) => Step::Over,
                        (false, true) => Step::Connected,
                        (false, false) => Step::On(due),
                    };
                }
                // Keys for SRTP and the client's certificate: neither is asked for.
                Output::KeyingMaterial(..) | Output::PeerCert(_) | _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::connected;
    use super::*;

    #[test]
    fn a_panic_of_the_library_ends_one_association() {
        let mut association = connected();
        let step = association.step(&mut Sink::new(), |_| panic!("as if by a bug"));
        assert_eq!(step, Step::Over);
    }
}
