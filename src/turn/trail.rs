//! What is noted of an allocation, so that somebody who asks why a call fails can be told.
//!
//! Only what the client asks for and what goes wrong is noted; for data that flow, two counters of the permission or
//! the channel are all. A trail is short, and is made with its first note: an allocation that does nothing has none.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::stun::Method;

use super::verdict::labels;
use super::{Cause, Rule};

/// Something that happened to an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A permission for a peer was installed or refreshed.
    Permitted {
        /// The peer.
        ip: IpAddr,
    },
    /// A channel was bound or refreshed.
    Bound {
        /// Its number.
        number: u16,
        /// The peer's address,
        ip: IpAddr,
        /// and port.
        port: u16,
    },
    /// A peer was refused, by a rule (403).
    Denied {
        /// The peer's address,
        ip: IpAddr,
        /// and port.
        port: u16,
        /// What closes it.
        rule: Rule,
    },
    /// A request was refused for another reason.
    Refused {
        /// The request.
        method: Method,
        /// The error code.
        code: u16,
        /// Which of several reasons that share the code.
        ground: Ground,
    },
    /// Data for a peer without a permission, or whose permission has expired, were dropped.
    ToPeerUnpermitted {
        /// The peer.
        ip: IpAddr,
    },
    /// Data from a peer whose permission has expired were dropped.
    FromPeerExpired {
        /// The peer.
        ip: IpAddr,
    },
    /// Data for a channel that is not bound, or whose binding has expired, were dropped.
    NoChannel {
        /// Its number.
        number: u16,
    },
    /// Data were dropped for another reason.
    Dropped {
        /// Which.
        cause: Cause,
    },
    /// The network answered what was sent to a peer with an ICMP error.
    Icmp {
        /// The peer's address,
        ip: IpAddr,
        /// and port; 0 if the error does not tell.
        port: u16,
        /// The type of the error,
        kind: u8,
        /// and its code.
        code: u8,
    },
    /// This host could not send what was meant for a peer.
    SendFailed {
        /// The peer.
        ip: IpAddr,
        /// Why not.
        why: SendFailure,
    },
    /// A connection to a peer could not be made (447).
    ConnectFailed {
        /// The peer's address,
        ip: IpAddr,
        /// and port.
        port: u16,
        /// Why not: the client is not told.
        why: ConnectFailure,
    },
    /// Other settings have closed a peer that was open.
    Closed {
        /// The peer.
        ip: IpAddr,
    },
    /// The client has moved, to here.
    Moved {
        /// Its address,
        ip: IpAddr,
        /// and port.
        port: u16,
    },
}

impl Fact {
    /// Whether it let this peer be heard: by a permission, or by a channel, which brings one.
    pub fn permits(&self, peer: IpAddr) -> bool {
        let asked = matches!(self, Self::Permitted { .. } | Self::Bound { .. });
        asked && self.peer() == Some(peer)
    }

    /// The peer that it is about.
    pub fn peer(&self) -> Option<IpAddr> {
        match *self {
            Self::Permitted { ip }
            | Self::Bound { ip, .. }
            | Self::Denied { ip, .. }
            | Self::ToPeerUnpermitted { ip }
            | Self::FromPeerExpired { ip }
            | Self::Icmp { ip, .. }
            | Self::SendFailed { ip, .. }
            | Self::ConnectFailed { ip, .. }
            | Self::Closed { ip } => Some(ip),
            Self::Refused { .. }
            | Self::NoChannel { .. }
            | Self::Dropped { .. }
            | Self::Moved { .. } => None,
        }
    }
}

labels! {
    /// Why a datagram could not be sent.
    SendFailure {
        /// There is no way to that address from here.
        NoRoute = "no_route",
        /// It is longer than the path takes, and must not be fragmented.
        TooBig = "too_big",
        /// A firewall of this host forbids it.
        Forbidden = "forbidden",
        /// Anything else.
        Other = "other",
    }
}

labels! {
    /// Why a peer could not be connected to.
    ConnectFailure {
        /// It, or a firewall before it, said no.
        Refused = "refused",
        /// It said nothing.
        TimedOut = "timed_out",
        /// There is no way to it from here.
        NoRoute = "no_route",
        /// Anything else.
        Other = "other",
    }
}

labels! {
    /// Which of several reasons with one error code it was that a request was refused for.
    Ground {
        /// The code says it.
        Code = "code",
        /// More peers in a minute than there may be (403).
        NewPeers = "new_peers",
        /// The policy that the credential names is not there (403).
        NoPolicy = "no_policy",
    }
}

/// When something happened, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// What happened.
    pub fact: Fact,
    /// The second of the allocation's life when it first did,
    pub first: u32,
    /// and when it last did.
    pub last: u32,
    /// How often it did.
    pub count: u32,
}

/// What came from addresses that never had a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strangers {
    /// How many datagrams.
    pub count: u32,
    /// Where the last one came from,
    pub from: SocketAddr,
    /// and in which second of the allocation's life.
    pub last: u32,
}

/// The notes of one allocation: the latest last.
#[derive(Debug, Default)]
pub(super) struct Trail {
    notes: Vec<Note>,
    forgotten: u32,
    strangers: Option<Strangers>,
}

impl Trail {
    /// Notes a fact. One that is known happens once more; when there are too many, the one that has not happened for
    /// the longest time is forgotten.
    pub(super) fn note(&mut self, fact: Fact, age: Duration) {
        let last = second(age);
        let known = self.notes.iter().rposition(|note| note.fact == fact);
        let note = match known {
            Some(place) => {
                let note = self.notes.remove(place);
                let count = note.count.saturating_add(1);
                Note {
                    last,
                    count,
                    ..note
                }
            }
            None => Note {
                fact,
                first: last,
                last,
                count: 1,
            },
        };
        if self.notes.len() == MOST_NOTES {
            self.notes.remove(0);
            self.forgotten = self.forgotten.saturating_add(1);
        }
        self.notes.push(note);
    }

    /// Counts what came from an address that never had a permission. Anybody can be that, so all of them share one
    /// note.
    pub(super) fn stranger(&mut self, from: SocketAddr, age: Duration) {
        let count = self.strangers.map_or(0, |strangers| strangers.count);
        self.strangers = Some(Strangers {
            count: count.saturating_add(1),
            from,
            last: second(age),
        });
    }

    pub(super) fn notes(&self) -> &[Note] {
        &self.notes
    }

    pub(super) fn forgotten(&self) -> u32 {
        self.forgotten
    }

    pub(super) fn strangers(&self) -> Option<Strangers> {
        self.strangers
    }

    /// Whether this peer had a permission, as far as is remembered.
    pub(super) fn has_permitted(&self, peer: IpAddr) -> bool {
        let expired = Fact::FromPeerExpired { ip: peer };
        let mut facts = self.notes.iter().map(|note| note.fact);
        facts.any(|fact| fact.permits(peer) || fact == expired)
    }

    /// Whether it says anything of this peer.
    pub(super) fn mentions(&self, peer: IpAddr) -> bool {
        self.notes.iter().any(|note| note.fact.peer() == Some(peer))
            || self
                .strangers
                .is_some_and(|strangers| strangers.from.ip() == peer)
    }
}

/// How many datagrams went each way between a client and a peer. It saturates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) sent: u32,
    pub(super) heard: u32,
}

impl Tally {
    #[inline]
    pub(super) fn sent(&mut self) {
        self.sent = self.sent.saturating_add(1);
    }

    #[inline]
    pub(super) fn heard(&mut self) {
        self.heard = self.heard.saturating_add(1);
    }
}

fn second(age: Duration) -> u32 {
    u32::try_from(age.as_secs()).unwrap_or(u32::MAX)
}

/// With 36 bytes each, a full trail leaves an allocation below 2 KiB.
const MOST_NOTES: usize = 24;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn notes_are_small() {
        assert_eq!(size_of::<Note>(), 36);
        assert!(size_of::<Trail>() <= 80);
    }

    fn fact(number: u16) -> Fact {
        Fact::NoChannel { number }
    }

    proptest! {
        /// Against a list without bounds: the notes are those that happened last, in that order, and each counts what
        /// happened since it was last forgotten.
        #[test]
        fn a_trail_keeps_what_happened_last(numbers in proptest::collection::vec(0u16..40, 0..400)) {
            let mut trail = Trail::default();
            let mut model: Vec<Note> = Vec::new();
            let mut forgotten = 0;
            for (age, number) in (0u32..).zip(&numbers) {
                trail.note(fact(*number), Duration::from_secs(age.into()));
                let (mut known, others): (Vec<_>, Vec<_>) =
                    model.into_iter().partition(|note| note.fact == fact(*number));
                model = others;
                let mut note = known.pop().unwrap_or_else(|| Note { fact: fact(*number), first: age, last: age, count: 0 });
                note.count += 1;
                note.last = age;
                model.push(note);
                if model.len() > MOST_NOTES {
                    model.remove(0);
                    forgotten += 1;
                }
                prop_assert_eq!(trail.notes(), &model[..]);
                prop_assert!(trail.notes().is_sorted_by_key(|note| note.last));
            }
            prop_assert_eq!(trail.forgotten(), forgotten);
            prop_assert!(trail.notes.capacity() <= 32);
        }
    }

    #[test]
    fn strangers_share_one_note() {
        let mut trail = Trail::default();
        for number in 0..100_000u32 {
            let from = SocketAddr::new(IpAddr::from(number.to_be_bytes()), 9);
            trail.stranger(from, Duration::from_secs(7));
        }
        let strangers = trail.strangers().unwrap();
        assert_eq!((strangers.count, strangers.last), (100_000, 7));
        assert!(trail.notes.capacity() == 0);
    }
}
