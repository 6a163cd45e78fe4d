//! What a machine can tell of a session that goes badly, or has ended: its account.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::allocation::{Allocation, AllocationId};
use super::authenticate::User;
use super::request::Request;
use super::response::Reject;
use super::server::Server;
use super::session::now_to;
use super::trail::{Fact, Note, SendFailure, Strangers, Tally, Trail};
use super::{EndReason, Holder, Now, Reach, RelayId, Relays, Rule, Session};
use crate::stun::{Icmp, Method};

/// A session, and what is known of how it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The session, as it is, or as it was at its end.
    pub session: Session,
    /// How often it was refreshed, and how old it was at the last time.
    pub refreshed: Refreshed,
    /// The peers that it has or had a permission or a channel for, and what went either way.
    pub exchanges: Vec<Exchange>,
    /// What was noted: the latest last.
    pub notes: Vec<Note>,
    /// How many notes there is no room for any more.
    pub forgotten: u32,
    /// What came from addresses that never had a permission.
    pub strangers: Option<Strangers>,
    /// Why it ended, and how long ago, if it has.
    pub ended: Option<(EndReason, Duration)>,
}

/// How often an allocation was refreshed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// How often.
    pub count: u32,
    /// The second of its life when it last was.
    pub last: u32,
}

/// What went between a client and one of its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The peer: by address with a permission, by port, too, with a channel.
    pub peer: IpAddr,
    /// The port of the peer and the number of the channel, if it has one.
    pub channel: Option<(u16, u16)>,
    /// Datagrams from the client to the peer.
    pub sent: u32,
    /// Datagrams from the peer to the client.
    pub heard: u32,
    /// How long it lasts unless it is refreshed; `Err`, how long ago it expired.
    pub left: Result<Duration, Duration>,
}

/// Some of a machine's accounts, and where to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Those that were asked for.
    pub found: Vec<Account>,
    /// The place to go on from; nothing when all have been looked at.
    pub next: Option<usize>,
}

impl Account {
    /// Whether it says anything of this peer.
    pub fn mentions(&self, peer: IpAddr) -> bool {
        self.exchanges.iter().any(|one| one.peer == peer)
            || self.notes.iter().any(|note| note.fact.peer() == Some(peer))
            || self
                .strangers
                .is_some_and(|strangers| strangers.from.ip() == peer)
    }
}

/// What is asked of a machine.
impl Server {
    /// The accounts of the sessions that `which` chooses and that have to do with `peer`, if one is named: among
    /// `look_at` places from the place `from` on, as with [`Server::sessions`].
    pub fn accounts(
        &self,
        now: Now,
        from: usize,
        look_at: usize,
        which: impl Fn(&Holder<'_>) -> bool,
        peer: Option<IpAddr>,
    ) -> Accounts {
        let end = from.saturating_add(look_at).min(self.allocations.places());
        let found = (from..end)
            .filter_map(|place| self.allocations.get(AllocationId(place as u32)))
            .filter(|allocation| peer.is_none_or(|peer| allocation.mentions(peer)))
            .filter(|allocation| which(&self.holder(allocation)))
            .map(|allocation| self.account(allocation, now))
            .collect();
        Accounts {
            found,
            next: (end < self.allocations.places()).then_some(end),
        }
    }

    /// The same of sessions that have ended lately, the latest first.
    pub fn past_accounts(
        &self,
        now: Now,
        which: impl Fn(&Holder<'_>) -> bool,
        peer: Option<IpAddr>,
    ) -> Vec<Account> {
        let past = self.past.accounts.iter().rev();
        past.filter(|(_, account)| peer.is_none_or(|peer| account.mentions(peer)))
            .filter(|(_, account)| which(&account.session.holder()))
            .map(|(end, account)| {
                let mut account = account.clone();
                if let Some((_, ago)) = &mut account.ended {
                    *ago = now.instant.saturating_duration_since(*end);
                }
                account
            })
            .collect()
    }

    /// What closes a peer; nothing if clients may reach it.
    pub fn rule(&self, peer: SocketAddr, relays: &impl Relays) -> (Option<Rule>, Reach) {
        let reach = relays.reach(peer);
        (self.settings.peers.rule(peer.ip(), reach), reach)
    }

    fn account(&self, allocation: &Allocation, now: Now) -> Account {
        let trail = allocation.trail.as_deref();
        Account {
            session: self.session(allocation, now),
            refreshed: allocation.birth.refreshed,
            exchanges: allocation.exchanges(now.instant),
            notes: trail.map_or_else(Vec::new, |trail| trail.notes().to_vec()),
            forgotten: trail.map_or(0, Trail::forgotten),
            strangers: trail.and_then(Trail::strangers),
            ended: None,
        }
    }
}

/// What is noted while it happens.
impl Server {
    /// Keeps the account of an allocation that ends.
    pub(super) fn bury(&mut self, allocation: &Allocation, reason: EndReason, now: Now) {
        let mut account = self.account(allocation, now);
        // What the exchanges say, too.
        account.session.permissions = Vec::new();
        account.session.channels = Vec::new();
        // Who was never heard is what will be asked about.
        account.exchanges.sort_by_key(|one| one.heard > 0);
        account.exchanges.truncate(MOST_EXCHANGES);
        account.exchanges.shrink_to_fit();
        account.ended = Some((reason, Duration::ZERO));
        let owner = allocation.claim.person();
        self.past.add(now.instant, owner, account);
    }

    /// Notes that a request was carried out.
    pub(super) fn note_done(&mut self, request: &Request<'_>) {
        let now = request.now.instant;
        let Some(allocation) = self.allocation_by(request) else {
            return;
        };
        match request.message.method() {
            Method::REFRESH => allocation.birth.refreshed(now),
            Method::CREATE_PERMISSION => {
                for peer in request.message.xor_peer_addresses().flatten() {
                    allocation.note(Fact::Permitted { ip: peer.ip() }, now);
                }
            }
            Method::CHANNEL_BIND => {
                if let (Ok(number), Ok(peer)) = (request.channel_number(), request.peer()) {
                    let fact = Fact::Bound {
                        number: number.get(),
                        ip: peer.ip(),
                        port: peer.port(),
                    };
                    allocation.note(fact, now);
                }
            }
            _ => {}
        }
    }

    /// Notes that an authenticated request was refused. False if there is no allocation that it is about.
    #[cold]
    pub(super) fn note_refusal(
        &mut self,
        request: &Request<'_>,
        user: &User<'_>,
        reject: Reject,
        relays: &impl Relays,
    ) -> bool {
        let method = request.message.method();
        let closed = || {
            let mut peers = request.message.xor_peer_addresses().flatten();
            peers.find_map(|peer| {
                let rule = user.policy(request).rule(peer, relays)?;
                Some(Fact::Denied {
                    ip: peer.ip(),
                    port: peer.port(),
                    rule,
                })
            })
        };
        let denied = (reject == Reject::Forbidden).then(closed).flatten();
        let Some(allocation) = self.allocation_by(request) else {
            return false;
        };
        let fact = denied.unwrap_or_else(|| Fact::Refused {
            method,
            code: reject.code().0,
            ground: reject.ground(),
        });
        allocation.note(fact, request.now.instant);
        true
    }

    /// Takes in that the kernel would not send what was meant for a peer.
    #[cold]
    pub fn send_failed(&mut self, now: Now, relay: RelayId, peer: IpAddr, why: SendFailure) {
        let owner = self.allocations.by_relay(relay);
        if let Some(allocation) = owner.and_then(|id| self.allocations.get_mut(id)) {
            allocation.note(Fact::SendFailed { ip: peer, why }, now.instant);
        }
    }

    fn allocation_by(&mut self, request: &Request<'_>) -> Option<&mut Allocation> {
        let id = self.allocations.find(&request.from.five_tuple)?;
        self.allocations.get_mut(id)
    }
}

impl Allocation {
    /// Notes what has happened to it.
    pub(super) fn note(&mut self, fact: Fact, now: Instant) {
        let age = now.saturating_duration_since(self.birth.at);
        self.trail.get_or_insert_default().note(fact, age);
    }

    /// Notes data from a peer that were dropped for want of a permission.
    #[cold]
    pub(super) fn note_unpermitted(&mut self, peer: SocketAddr, now: Instant) {
        let age = now.saturating_duration_since(self.birth.at);
        let ip = peer.ip();
        let known = self.permissions().knows(ip);
        let trail = self.trail.get_or_insert_default();
        if known || trail.has_permitted(ip) {
            trail.note(Fact::FromPeerExpired { ip }, age);
        } else {
            trail.stranger(peer, age);
        }
    }

    /// Notes an ICMP error about what was sent to a peer.
    #[cold]
    pub(super) fn note_icmp(&mut self, peer: SocketAddr, icmp: Icmp, now: Instant) {
        let fact = Fact::Icmp {
            ip: peer.ip(),
            port: peer.port(),
            kind: icmp.kind,
            code: icmp.code,
        };
        self.note(fact, now);
    }

    /// Whether anything is known of this peer.
    fn mentions(&self, peer: IpAddr) -> bool {
        self.permissions().knows(peer)
            || self
                .channels
                .all()
                .any(|(_, address, _, _)| address.ip() == peer)
            || self
                .trail
                .as_deref()
                .is_some_and(|trail| trail.mentions(peer))
    }

    fn exchanges(&self, now: Instant) -> Vec<Exchange> {
        let exchange = |peer, channel, Tally { sent, heard }, end: Instant| Exchange {
            peer,
            channel,
            sent,
            heard,
            left: if end > now {
                Ok(end - now)
            } else {
                Err(now_to(now, end))
            },
        };
        let permissions = self.permissions().all();
        let channels = self.channels.all();
        permissions
            .map(|(peer, tally, end)| exchange(peer, None, tally, end))
            .chain(channels.map(|(number, peer, tally, end)| {
                let channel = Some((peer.port(), number.get()));
                exchange(peer.ip(), channel, tally, end)
            }))
            .collect()
    }
}

/// The accounts of the sessions that ended last, with their ends.
#[derive(Debug, Default)]
pub(super) struct Past {
    accounts: VecDeque<(Instant, Account)>,
    /// Whose they are, in the same order.
    owners: VecDeque<u64>,
}

impl Past {
    /// When there is no room, the oldest one goes; but who has many takes the place of its own oldest one, so that
    /// nobody can make the others be forgotten.
    fn add(&mut self, end: Instant, owner: u64, account: Account) {
        if self.owners.len() == MOST_PAST {
            let theirs = |known: &u64| *known == owner;
            let count = self.owners.iter().filter(|known| theirs(known)).count();
            let own = self.owners.iter().position(theirs);
            let place = own.filter(|_| count >= MOST_OF_ONE).unwrap_or(0);
            self.owners.remove(place);
            self.accounts.remove(place);
        }
        self.owners.push_back(owner);
        self.accounts.push_back((end, account));
    }
}

/// Of one machine.
const MOST_PAST: usize = 256;
/// Of one user, when there is no room for more.
const MOST_OF_ONE: usize = 64;
/// Of a session that has ended.
const MOST_EXCHANGES: usize = 16;
