//! Allocations as an operator sees them: sessions, each with a name of its own, that can be listed and ended.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::{Duration, Instant};

use super::allocation::{Allocation, AllocationId};
use super::keys::NEVER;
use super::server::Server;
use super::trail::{Fact, Note};
use super::username::Issued;
use super::{EndReason, FiveTuple, Now, RelayProtocol, Relays, Software, Traffic};
use crate::stun::{ErrorCode, Method};

/// The name of an allocation for all time: in lists, logs and events. 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for SessionId {
    type Err = NotASession;

    fn from_str(text: &str) -> Result<Self, NotASession> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| digits);
        number.map(Self).ok_or(NotASession)
    }
}

/// A text that is not the name of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotASession;

impl fmt::Display for NotASession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a session is 16 hexadecimal digits")
    }
}

impl std::error::Error for NotASession {}

/// By what a session is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder<'a> {
    /// The session.
    pub session: SessionId,
    /// The user, as the allocation was made.
    pub username: &'a [u8],
    /// What the name says, if a secret has vouched for it.
    pub issued: Option<Issued<'a>>,
    /// Whose customer the user is.
    pub tenant: Option<&'a str>,
    /// The part of the name that is the same for all credentials of a person.
    pub person: &'a [u8],
    /// When the credentials expire, in seconds since 1970; nothing if they do not.
    pub credentials_expire: Option<u64>,
    /// The client, where it is now.
    pub five_tuple: FiveTuple,
}

/// An allocation at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its name.
    pub id: SessionId,
    /// The user it was made for.
    pub username: Box<[u8]>,
    /// Whose customer the user is.
    pub tenant: Option<Box<str>>,
    /// The part of the name that is the same for all credentials of a person.
    pub person: Box<[u8]>,
    /// When its credentials expire, in seconds since 1970; nothing if they do not.
    pub credentials_expire: Option<u64>,
    /// The client, where it is now.
    pub five_tuple: FiveTuple,
    /// What it speaks with peers.
    pub protocol: RelayProtocol,
    /// Its relayed transport addresses.
    pub relays: Vec<SocketAddr>,
    /// Peers that may be heard, and for how long.
    pub permissions: Vec<(IpAddr, Duration)>,
    /// Channels, where they lead, and for how long.
    pub channels: Vec<(u16, SocketAddr, Duration)>,
    /// Connections with peers, of a TCP allocation.
    pub connections: usize,
    /// What went from the client to peers.
    pub to_peer: Traffic,
    /// What went from peers to the client.
    pub to_client: Traffic,
    /// How long it has lived.
    pub age: Duration,
    /// How long it lives unless it is refreshed.
    pub left: Duration,
    /// Which program the client is.
    pub software: Software,
    /// The last request of its user about it that was refused, as far as it is remembered.
    pub refused: Option<Refused>,
    /// Whether a secret has vouched for the claims in its name.
    claims: bool,
}

impl Session {
    /// By what it is chosen.
    pub fn holder(&self) -> Holder<'_> {
        Holder {
            session: self.id,
            username: &self.username,
            issued: self.issued(),
            tenant: self.tenant.as_deref(),
            person: &self.person,
            credentials_expire: self.credentials_expire,
            five_tuple: self.five_tuple,
        }
    }

    /// What the name says, if a secret has vouched for it.
    pub fn issued(&self) -> Option<Issued<'_>> {
        let issued = self.claims.then(|| Issued::parse(&self.username));
        let mut issued = issued.flatten()?.ok()?;
        issued.tenant = self.tenant.as_deref().unwrap_or_default();
        Some(issued)
    }
}

/// A request that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What it asked for; nothing if what matters is the peer that it asked for.
    pub method: Option<Method>,
    /// The peer that was refused, by a rule.
    pub peer: Option<IpAddr>,
    /// The error code that it was answered with.
    pub code: u16,
    /// How old its allocation was, in seconds.
    pub age: u32,
}

impl Refused {
    fn last(notes: &[Note]) -> Option<Self> {
        notes.iter().rev().find_map(|note| {
            let (method, peer, code) = if let Fact::Refused { method, code, .. } = note.fact {
                (Some(method), None, code)
            } else if let Fact::Denied { ip, .. } = note.fact {
                (None, Some(ip), ErrorCode::FORBIDDEN.0)
            } else {
                return None;
            };
            Some(Self {
                method,
                peer,
                code,
                age: note.last,
            })
        })
    }
}

/// Some of a machine's sessions, and where to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    /// Those that were asked for.
    pub found: Vec<Session>,
    /// The place to go on from; nothing when all have been looked at.
    pub next: Option<usize>,
}

impl Server {
    /// The sessions that `which` chooses, among `look_at` places from the place `from` on. Who wants to see all goes on
    /// until there is no next place; what begins or ends meanwhile may be seen or not.
    pub fn sessions(
        &self,
        now: Now,
        from: usize,
        look_at: usize,
        which: impl Fn(&Holder<'_>) -> bool,
    ) -> Sessions {
        let end = from.saturating_add(look_at).min(self.allocations.places());
        let found = (from..end)
            .filter_map(|place| self.allocations.get(AllocationId(place as u32)))
            .filter(|allocation| which(&self.holder(allocation)))
            .map(|allocation| self.session(allocation, now))
            .collect();
        Sessions {
            found,
            next: (end < self.allocations.places()).then_some(end),
        }
    }

    /// Ends the sessions that `which` chooses, and tells how many. Their clients hear nothing of it.
    pub fn end_sessions(
        &mut self,
        now: Now,
        reason: EndReason,
        which: impl Fn(&Holder<'_>) -> bool,
        relays: &mut impl Relays,
    ) -> usize {
        let mut ended = 0;
        for id in self.allocations.ids() {
            let chosen = self
                .allocations
                .get(id)
                .is_some_and(|allocation| which(&self.holder(allocation)));
            if chosen {
                self.end(id, reason, now, relays);
                ended += 1;
            }
        }
        ended
    }

    pub(super) fn holder<'a>(&'a self, allocation: &'a Allocation) -> Holder<'a> {
        let username = &*allocation.owner.username;
        let standing = self.settings.recalled_owner(&allocation.owner);
        Holder {
            session: allocation.birth.session,
            username,
            person: self.settings.person(username, &standing),
            tenant: standing.tenant,
            issued: standing.issued,
            credentials_expire: expiry(allocation),
            five_tuple: allocation.client.five_tuple,
        }
    }

    pub(super) fn session(&self, allocation: &Allocation, now: Now) -> Session {
        let username = allocation.owner.username.clone();
        let holder = self.holder(allocation);
        let until = |end| now_to(end, now.instant);
        Session {
            id: allocation.birth.session,
            tenant: holder.tenant.map(Box::from),
            person: holder.person.into(),
            credentials_expire: expiry(allocation),
            username,
            five_tuple: allocation.client.five_tuple,
            protocol: match allocation.connections {
                Some(_) => RelayProtocol::Tcp,
                None => RelayProtocol::Udp,
            },
            relays: allocation.relays().map(|relay| relay.address).collect(),
            permissions: allocation
                .permissions()
                .iter(now.instant)
                .map(|(peer, end)| (peer, until(end)))
                .collect(),
            channels: allocation
                .channels
                .iter(now.instant)
                .map(|(number, peer, end)| (number.get(), peer, until(end)))
                .collect(),
            connections: allocation
                .connections
                .as_ref()
                .map_or(0, |connections| connections.count()),
            to_peer: allocation.to_peer,
            to_client: allocation.to_client,
            age: now.instant.saturating_duration_since(allocation.birth.at),
            left: until(allocation.deadline()),
            software: allocation.birth.software(),
            refused: allocation
                .trail
                .as_ref()
                .and_then(|trail| Refused::last(trail.notes())),
            claims: holder.issued.is_some(),
        }
    }
}

/// When the credentials expire that an allocation was made with, if they do.
fn expiry(allocation: &Allocation) -> Option<u64> {
    let expiry = allocation.owner.expiry;
    (expiry != NEVER).then_some(expiry)
}

pub(super) fn now_to(end: Instant, now: Instant) -> Duration {
    end.saturating_duration_since(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_session_is_read_as_it_is_written() {
        let id = SessionId(0x00ab_0000_0000_0001);
        assert_eq!(id.to_string(), "00ab000000000001");
        assert_eq!(id.to_string().parse(), Ok(id));
        for other in [
            "",
            "1",
            "+0ab000000000001",
            "00ab00000000000g",
            "00ab0000000000010",
        ] {
            assert_eq!(other.parse::<SessionId>(), Err(NotASession), "{other}");
        }
    }
}
