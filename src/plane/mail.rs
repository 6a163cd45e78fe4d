//! What reaches a worker from outside its own sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::inquiry::Inquiry;
use super::moved::Letter;
use super::report::Report;
use crate::turn::{EndReason, Holder, RelayId, Revocations, Sessions, Settings};

/// Chooses sessions.
pub(super) type Which = Arc<dyn Fn(&Holder<'_>) -> bool + Send + Sync>;

/// A word from the control side.
pub(super) enum Mail {
    /// The machine's settings have changed.
    Settings(Arc<Settings>),
    /// Other credentials are revoked.
    Revocations(Arc<Revocations>),
    /// Take no new allocations, or take them again.
    Drain(bool),
    /// Tell of some of your sessions, from a place on.
    Sessions {
        which: Which,
        from: usize,
        to: oneshot::Sender<Sessions>,
    },
    /// End some of your sessions, and tell how many.
    End {
        which: Which,
        reason: EndReason,
        to: oneshot::Sender<usize>,
    },
    /// Tell why calls fail.
    Ask(Inquiry),
    /// Report what you have counted and what you hold.
    Report(oneshot::Sender<Report>),
    /// End.
    Stop,
}

/// What one worker hands over to another.
pub(super) enum Parcel {
    /// For one of its relays.
    Relayed(Relayed),
    /// About a client that has moved.
    Letter(Letter),
}

/// A datagram from a relay of one worker to a relay of another: it never touches the network.
pub(super) struct Relayed {
    pub(super) relay: RelayId,
    /// Which address the sender meant: the relay's number may have been given to another meanwhile.
    pub(super) to: SocketAddr,
    /// The sending relay's advertised address.
    pub(super) from: SocketAddr,
    /// DSCP and ECN, as if it had come over the network.
    pub(super) marks: u8,
    pub(super) bytes: Bytes,
}

/// A worker that has not answered after this long is counted as absent.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// Control mail that may wait; a worker empties it many times a second.
const MAILS: usize = 64;
/// Packets between two workers that may wait; more are dropped, as a full socket would.
const PARCELS: usize = 4096;

/// The reading end of a worker's mail. It outlives the worker, should that end by a panic.
pub(super) struct Mailbox {
    pub(super) mail: mpsc::Receiver<Mail>,
    pub(super) parcels: mpsc::Receiver<Parcel>,
}

/// The writing end.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) mail: mpsc::Sender<Mail>,
    pub(super) parcels: mpsc::Sender<Parcel>,
}

impl Address {
    /// Sends mail and waits for the answer to it, though not for long.
    pub(super) async fn ask<T>(&self, mail: Mail, answer: oneshot::Receiver<T>) -> Option<T> {
        let asked = async {
            self.mail.send(mail).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(PATIENCE, asked).await.ok().flatten()
    }
}

/// A new mailbox and its address.
pub(super) fn mailbox() -> (Address, Mailbox) {
    let (mail, mail_box) = mpsc::channel(MAILS);
    let (parcels, parcel_box) = mpsc::channel(PARCELS);
    (
        Address { mail, parcels },
        Mailbox {
            mail: mail_box,
            parcels: parcel_box,
        },
    )
}
