//! Allocations, and how they are found.

use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};
use slab::Slab;

use crate::stun::{Key, TransactionId};

use super::allowance::{Allowance, Towards};
use super::authenticate::User;
use super::channel::Channels;
use super::connect::Connections;
use super::expiry::Expiry;
use super::icmp::IcmpBudget;
use super::mobility::Mobility;
use super::oauth::Grant;
use super::permission::Permissions;
use super::quota::Claim;
use super::request::Request;
use super::trail::Trail;
use super::{
    Cause, Client, Dialect, Family, FiveTuple, Quotas, Refreshed, RelayId, ReservationToken,
    SessionId, Software, Traffic,
};

/// An allocation (RFC 8656 §6).
pub(super) struct Allocation {
    pub(super) client: Client,
    pub(super) relay: Relayed,
    /// The relay of the other family, of a dual allocation.
    pub(super) second: Option<Box<Relayed>>,
    pub(super) owner: Owner,
    pub(super) permissions: Permissions,
    pub(super) channels: Channels,
    pub(super) icmp: IcmpBudget,
    /// Of a TCP allocation only.
    pub(super) connections: Option<Box<Connections>>,
    pub(super) to_peer: Traffic,
    pub(super) to_client: Traffic,
    pub(super) birth: Birth,
    /// It counts until it is dropped.
    pub(super) claim: Claim,
    /// Where there are limits to what it may relay.
    pub(super) allowance: Option<Arc<Allowance>>,
    /// Of a client that may move (RFC 8016).
    pub(super) mobility: Option<Box<Mobility>>,
    /// What may explain how it goes, if there is anything.
    pub(super) trail: Option<Box<Trail>>,
}

/// A relayed transport address and its time to expiry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Relayed {
    pub(super) id: RelayId,
    pub(super) address: SocketAddr,
    pub(super) expires: Instant,
}

/// The user of an allocation.
pub(super) struct Owner {
    pub(super) username: Box<[u8]>,
    /// The key it was last looked up with, so that it need not be derived for each request.
    pub(super) key: Key,
    /// Which settings that key was looked up in.
    pub(super) settings: u32,
    /// When the credentials expire, by the wall clock.
    pub(super) expiry: u64,
    /// Of a user whom an access token stands for.
    pub(super) grant: Option<Box<Grant>>,
    /// Whose customer the user is: in one word, since few are.
    pub(super) tenant: Option<Box<Box<str>>>,
}

impl Owner {
    /// Whether a request is this user's.
    pub(super) fn is(&self, user: &User<'_>) -> bool {
        *self.username == *user.name
            && self.tenant() == user.standing.tenant
            && match (self.grant.as_deref(), user.grant) {
                (None, None) => true,
                (Some(made_with), Some(grant)) => grant.continues(*made_with),
                (None, Some(_)) | (Some(_), None) => false,
            }
    }

    /// Whose customer the user is.
    pub(super) fn tenant(&self) -> Option<&str> {
        self.tenant.as_ref().map(|name| &***name)
    }

    /// Stands for the user, as [`User::number`] does.
    pub(super) fn number(&self, quotas: &Quotas) -> u64 {
        match &self.grant {
            Some(grant) => grant.token,
            None => quotas.user(self.tenant(), &self.username),
        }
    }
}

/// The request that made an allocation, to know its repetitions by.
pub(super) struct Birth {
    pub(super) session: SessionId,
    pub(super) at: Instant,
    pub(super) transaction: TransactionId,
    pub(super) refreshed: Refreshed,
    dialect: Dialect,
    extras: Option<Box<Extras>>,
}

/// What few requests have.
struct Extras {
    reserved: Option<ReservationToken>,
    said: Option<Box<str>>,
}

impl Birth {
    pub(super) fn new(
        request: &Request<'_>,
        session: SessionId,
        reserved: Option<ReservationToken>,
    ) -> Self {
        let Software { dialect, said } = Software::of(request);
        let has_extras = reserved.is_some() || said.is_some();
        Self {
            session,
            at: request.now.instant,
            transaction: request.message.transaction_id(),
            refreshed: Refreshed::default(),
            dialect,
            extras: has_extras.then(|| Box::new(Extras { reserved, said })),
        }
    }

    /// The port that is held beside the relay's.
    pub(super) fn reserved(&self) -> Option<ReservationToken> {
        self.extras.as_ref()?.reserved
    }

    /// Which program the client is.
    pub(super) fn software(&self) -> Software {
        let said = self.extras.as_ref().and_then(|extras| extras.said.clone());
        Software {
            dialect: self.dialect,
            said,
        }
    }

    /// Counts a Refresh.
    pub(super) fn refreshed(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.at).as_secs();
        self.refreshed.count = self.refreshed.count.saturating_add(1);
        self.refreshed.last = u32::try_from(age).unwrap_or(u32::MAX);
    }
}

impl Allocation {
    /// Its relayed transport addresses: one or two.
    pub(super) fn relays(&self) -> impl Iterator<Item = &Relayed> {
        std::iter::once(&self.relay).chain(self.second.as_deref())
    }

    /// The names and addresses of its relays.
    pub(super) fn addresses(&self) -> Vec<(RelayId, SocketAddr)> {
        self.relays()
            .map(|relay| (relay.id, relay.address))
            .collect()
    }

    /// The relays, to be changed.
    pub(super) fn relays_mut(&mut self) -> impl Iterator<Item = &mut Relayed> {
        std::iter::once(&mut self.relay).chain(self.second.as_deref_mut())
    }

    /// The relay from which peers of this family are reached. A second relay is always of the other family.
    #[inline]
    pub(super) fn relay_of(&self, family: Family, now: Instant) -> Option<&Relayed> {
        let relay = if self.relay.family() == family {
            &self.relay
        } else {
            self.second.as_deref()?
        };
        (relay.expires > now).then_some(relay)
    }

    /// Whether a peer may send to the client, and be sent to: it has a permission, or a channel of its own.
    pub(super) fn admits(&self, peer: SocketAddr, now: Instant) -> bool {
        self.permissions.allows(peer.ip(), now) || self.channels.by_peer(peer, now).is_some()
    }

    /// The same, of a peer that something is sent to.
    pub(super) fn admits_data(&mut self, peer: SocketAddr, now: Instant) -> bool {
        self.permissions.sends(peer.ip(), now) || self.channels.sends(peer, now)
    }

    /// Whether a datagram with so many bytes may be relayed, as far as limits go.
    #[inline]
    pub(super) fn afford(&self, towards: Towards, bytes: usize, now: Instant) -> Result<(), Cause> {
        match &self.allowance {
            None => Ok(()),
            Some(allowance) => allowance
                .pass(towards, bytes + HEADERS, now)
                .map_err(|excess| excess.cause),
        }
    }

    /// Where its client has moved to, if it is still sent to where it was.
    pub(super) fn next(&self) -> Option<Client> {
        self.mobility.as_ref()?.next
    }

    /// Whether nobody can be sent to: the client's connection is closed, and it has not come back yet.
    #[inline]
    pub(super) fn is_away(&self) -> bool {
        self.mobility.as_ref().is_some_and(|mobility| mobility.away)
    }

    /// The family of the relay that has expired, if the other one has not.
    pub(super) fn overdue_half(&self, now: Instant) -> Option<Family> {
        let second = self.second.as_ref()?;
        match (self.relay.expires <= now, second.expires <= now) {
            (true, false) => Some(self.relay.family()),
            (false, true) => Some(second.family()),
            (true, true) | (false, false) => None,
        }
    }

    /// When the first of its relays expires.
    pub(super) fn deadline(&self) -> Instant {
        match &self.second {
            Some(second) => self.relay.expires.min(second.expires),
            None => self.relay.expires,
        }
    }

    /// Takes out the relay of one family, and what hangs on it, if another one remains.
    pub(super) fn take_relay(&mut self, family: Family) -> Option<Relayed> {
        let second = self.second.take()?;
        let taken = if self.relay.family() == family {
            std::mem::replace(&mut self.relay, *second)
        } else {
            *second
        };
        self.permissions_mut()
            .retain(|peer| Family::of(peer) != family);
        self.channels.retain(|peer| Family::of(peer.ip()) != family);
        Some(taken)
    }
}

impl Relayed {
    pub(super) fn family(&self) -> Family {
        Family::of(self.address.ip())
    }
}

/// The allocations of one machine: one list, an index by client, an index by relay, and when each ends.
#[derive(Default)]
pub(super) struct Allocations {
    list: Slab<Box<Allocation>>,
    by_client: HashTable<u32>,
    /// Where clients have moved to that are still sent to where they were.
    by_next: HashMap<FiveTuple, AllocationId, RandomState>,
    /// By relay id.
    by_relay: Vec<Option<AllocationId>>,
    deadlines: Expiry,
    hasher: RandomState,
}

/// Names an allocation while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AllocationId(pub(super) u32);

impl Allocations {
    /// Adds an allocation for a client that has none.
    pub(super) fn insert(&mut self, allocation: Allocation) -> AllocationId {
        let key = self.list.insert(Box::new(allocation)) as u32;
        let id = AllocationId(key);
        self.index_client(id);
        for relay in self.list[key as usize].relays() {
            let index = relay.id.0 as usize;
            if index >= self.by_relay.len() {
                self.by_relay.resize(index + 1, None);
            }
            self.by_relay[index] = Some(id);
        }
        self.reschedule(id);
        id
    }

    /// Takes an allocation out.
    pub(super) fn remove(&mut self, id: AllocationId) -> Option<Allocation> {
        self.unindex_client(id);
        let allocation = self.list.try_remove(id.0 as usize)?;
        if let Some(next) = allocation.next() {
            self.by_next.remove(&next.five_tuple);
        }
        for relay in allocation.relays() {
            self.forget_relay(relay.id);
        }
        self.deadlines.remove(id.0);
        Some(*allocation)
    }

    /// Forgets which allocation a relay belongs to.
    pub(super) fn forget_relay(&mut self, relay: RelayId) {
        if let Some(owner) = self.by_relay.get_mut(relay.0 as usize) {
            *owner = None;
        }
    }

    /// Sets when the allocation is next looked at, after its lifetimes have changed.
    pub(super) fn reschedule(&mut self, id: AllocationId) {
        if let Some(allocation) = self.list.get(id.0 as usize) {
            self.deadlines.set(id.0, allocation.deadline());
        }
    }

    /// Takes one allocation off the schedule whose time has come.
    pub(super) fn pop_overdue(&mut self, now: Instant) -> Option<AllocationId> {
        self.deadlines.pop(now).map(AllocationId)
    }

    /// When the first allocation ends.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    #[inline]
    pub(super) fn by_client(&self, five_tuple: &FiveTuple) -> Option<AllocationId> {
        let hash = self.hasher.hash_one(five_tuple);
        self.by_client
            .find(hash, |&key| {
                self.list[key as usize].client.five_tuple == *five_tuple
            })
            .map(|&key| AllocationId(key))
    }

    /// The allocation of a client that has moved here and has not sent any data yet.
    pub(super) fn by_next(&self, five_tuple: &FiveTuple) -> Option<AllocationId> {
        self.by_next.get(five_tuple).copied()
    }

    /// The allocation of a client, wherever it has moved.
    pub(super) fn find(&self, five_tuple: &FiveTuple) -> Option<AllocationId> {
        self.by_client(five_tuple)
            .or_else(|| self.by_next(five_tuple))
    }

    /// Notes where a client has moved to, or that it has not. Returns where it had moved to before.
    pub(super) fn set_next(&mut self, id: AllocationId, next: Option<Client>) -> Option<Client> {
        let mobility = self.list.get_mut(id.0 as usize)?.mobility.as_mut()?;
        let before = std::mem::replace(&mut mobility.next, next);
        if let Some(before) = before {
            self.by_next.remove(&before.five_tuple);
        }
        if let Some(next) = next {
            self.by_next.insert(next.five_tuple, id);
        }
        before
    }

    /// Gives an allocation to another client. Returns the one that had it.
    pub(super) fn rehome(&mut self, id: AllocationId, client: Client) -> Option<Client> {
        self.unindex_client(id);
        let allocation = self.list.get_mut(id.0 as usize)?;
        let before = std::mem::replace(&mut allocation.client, client);
        self.index_client(id);
        Some(before)
    }

    fn index_client(&mut self, id: AllocationId) {
        let (list, hasher) = (&self.list, &self.hasher);
        let hash = |&key: &u32| hasher.hash_one(list[key as usize].client.five_tuple);
        self.by_client.insert_unique(hash(&id.0), id.0, hash);
    }

    /// Lets an allocation be found by its client no longer.
    pub(super) fn unindex_client(&mut self, id: AllocationId) {
        let Some(allocation) = self.list.get(id.0 as usize) else {
            return;
        };
        let hash = self.hasher.hash_one(allocation.client.five_tuple);
        if let Ok(entry) = self.by_client.find_entry(hash, |&key| key == id.0) {
            entry.remove();
        }
    }

    #[inline]
    pub(super) fn by_relay(&self, relay: RelayId) -> Option<AllocationId> {
        self.by_relay.get(relay.0 as usize).copied().flatten()
    }

    pub(super) fn get(&self, id: AllocationId) -> Option<&Allocation> {
        self.list.get(id.0 as usize).map(|allocation| &**allocation)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: AllocationId) -> Option<&mut Allocation> {
        self.list
            .get_mut(id.0 as usize)
            .map(|allocation| &mut **allocation)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Allocation> {
        self.list.iter().map(|(_, allocation)| &**allocation)
    }

    pub(super) fn ids(&self) -> Vec<AllocationId> {
        self.list
            .iter()
            .map(|(key, _)| AllocationId(key as u32))
            .collect()
    }

    /// Every allocation's place is below this.
    pub(super) fn places(&self) -> usize {
        self.list.capacity()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// What a datagram costs beside its payload: as much as the headers of IPv4 and UDP have bytes.
const HEADERS: usize = 28;
