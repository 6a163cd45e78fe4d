//! Channels (RFC 8656 §12).

use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::stun::ChannelNumber;

use super::authenticate::User;
use super::request::Request;
use super::response::{Reject, Success};
use super::server::Server;
use super::trail::Tally;
use super::{Family, Relays};

impl Server {
    /// RFC 8656 §12.2.
    pub(super) fn channel_bind(
        &mut self,
        request: &Request<'_>,
        user: &User<'_>,
        relays: &impl Relays,
    ) -> Result<Success, Reject> {
        let settings = request.settings;
        let now = request.now.instant;
        let policy = user.policy(request);
        let allocation = self.allocation_of(request, user)?;
        // Channels carry datagrams.
        if allocation.connections.is_some() {
            return Err(Reject::BadRequest);
        }

        let number = request.channel_number()?;
        let peer = request.peer()?;
        if peer.port() == 0 || allocation.channels.conflict(number, peer, now) {
            return Err(Reject::BadRequest);
        }
        allocation
            .relay_of(Family::of(peer.ip()), now)
            .ok_or(Reject::PeerFamily)?;
        policy.judge(peer, relays)?;

        allocation
            .channels
            .reserve(number, now, settings.limits.channels)?;
        allocation.meet(std::iter::once(peer.ip()), now)?;
        allocation.permissions.install(
            std::iter::once(peer.ip()),
            now,
            settings.limits.permissions,
        )?;
        allocation.channels.bind(number, peer, now);
        Ok(Success::Done)
    }
}

/// The channels of an allocation: one list, searched both ways, and either way as fast for many as for one.
#[derive(Debug, Default)]
pub(super) struct Channels {
    /// Sorted by number.
    list: Vec<Channel>,
    /// Places in the list, by the peers there.
    by_peer: HashTable<u16>,
}

#[derive(Debug)]
struct Channel {
    number: ChannelNumber,
    peer: SocketAddr,
    expires: Instant,
    tally: Tally,
}

impl Channels {
    /// The peer that a channel leads to.
    #[inline]
    pub(super) fn by_number(&self, number: ChannelNumber, now: Instant) -> Option<SocketAddr> {
        let channel = self.list.get(self.find(number).ok()?)?;
        (channel.expires > now).then_some(channel.peer)
    }

    /// The channel that leads to a peer.
    #[inline]
    pub(super) fn by_peer(&self, peer: SocketAddr, now: Instant) -> Option<ChannelNumber> {
        let place = self.by_peer.find(hash(peer), |&place| {
            self.list[usize::from(place)].peer == peer
        })?;
        let channel = &self.list[usize::from(*place)];
        (channel.expires > now).then_some(channel.number)
    }

    /// The peer that a channel leads to, which is sent to: it is counted.
    #[inline]
    pub(super) fn sends_by(&mut self, number: ChannelNumber, now: Instant) -> Option<SocketAddr> {
        let place = self.find(number).ok()?;
        let channel = self.list.get_mut(place)?;
        (channel.expires > now).then(|| {
            channel.tally.sent();
            channel.peer
        })
    }

    /// The channel that leads to a peer, which is heard: it is counted.
    #[inline]
    pub(super) fn hears(&mut self, peer: SocketAddr, now: Instant) -> Option<ChannelNumber> {
        let channel = self.live_to(peer, now)?;
        channel.tally.heard();
        Some(channel.number)
    }

    /// Whether there is a channel to a peer that is sent to. If so, it is counted.
    pub(super) fn sends(&mut self, peer: SocketAddr, now: Instant) -> bool {
        let channel = self.live_to(peer, now);
        channel.map(|channel| channel.tally.sent()).is_some()
    }

    #[inline]
    fn live_to(&mut self, peer: SocketAddr, now: Instant) -> Option<&mut Channel> {
        let place = self.by_peer.find(hash(peer), |&place| {
            self.list[usize::from(place)].peer == peer
        })?;
        let channel = &mut self.list[usize::from(*place)];
        (channel.expires > now).then_some(channel)
    }

    /// Whether the number leads to another peer already, or the peer has another number.
    pub(super) fn conflict(&self, number: ChannelNumber, peer: SocketAddr, now: Instant) -> bool {
        self.by_number(number, now)
            .is_some_and(|bound| bound != peer)
            || self.by_peer(peer, now).is_some_and(|bound| bound != number)
    }

    /// Makes sure that a channel can be bound.
    ///
    /// # Errors
    /// [`Reject::Capacity`] if there are `limit` others.
    pub(super) fn reserve(
        &mut self,
        number: ChannelNumber,
        now: Instant,
        limit: usize,
    ) -> Result<(), Reject> {
        self.list.retain(|channel| channel.expires > now);
        self.index();
        if self.find(number).is_err() && self.list.len() >= limit {
            return Err(Reject::Capacity);
        }
        Ok(())
    }

    /// Binds a channel, or refreshes it. The caller knows that there is no conflict.
    pub(super) fn bind(&mut self, number: ChannelNumber, peer: SocketAddr, now: Instant) {
        let place = self.find(number);
        let known = place.ok().map(|place| &self.list[place]);
        let known = known.filter(|known| known.peer == peer);
        let channel = Channel {
            number,
            peer,
            expires: now + LIFETIME,
            tally: known.map_or_else(Tally::default, |known| known.tally),
        };
        match place {
            Ok(place) => self.list[place] = channel,
            Err(place) => self.list.insert(place, channel),
        }
        self.index();
    }

    /// Drops the channels of all peers but those `keep` names.
    pub(super) fn retain(&mut self, keep: impl Fn(SocketAddr) -> bool) {
        self.list.retain(|channel| keep(channel.peer));
        self.index();
    }

    /// Those that have not expired, and when they will.
    pub(super) fn iter(
        &self,
        now: Instant,
    ) -> impl Iterator<Item = (ChannelNumber, SocketAddr, Instant)> {
        self.list
            .iter()
            .map(|channel| (channel.number, channel.peer, channel.expires))
            .filter(move |(_, _, expires)| *expires > now)
    }

    /// Those that have not expired, and those that have and are still known.
    pub(super) fn all(&self) -> impl Iterator<Item = (ChannelNumber, SocketAddr, Tally, Instant)> {
        self.list
            .iter()
            .map(|channel| (channel.number, channel.peer, channel.tally, channel.expires))
    }

    /// How many have not expired.
    pub(super) fn live(&self, now: Instant) -> usize {
        self.iter(now).count()
    }

    /// Most clients count their channels up from the first number, and then the number is the place.
    #[inline]
    fn find(&self, number: ChannelNumber) -> Result<usize, usize> {
        let guess = usize::from(number.get() & 0xFFF);
        match self.list.get(guess) {
            Some(channel) if channel.number == number => Ok(guess),
            _ => self
                .list
                .binary_search_by(|channel| channel.number.cmp(&number)),
        }
    }

    /// Puts the index right after the list has changed. No more places than channel numbers: 0x1000.
    fn index(&mut self) {
        self.by_peer.clear();
        for (place, channel) in (0u16..).zip(&self.list) {
            self.by_peer
                .insert_unique(hash(channel.peer), place, |&place| {
                    hash(self.list[usize::from(place)].peer)
                });
        }
    }
}

/// Not seeded: whoever looks for peers that collide slows down its own few channels.
#[inline]
fn hash(peer: SocketAddr) -> u64 {
    let address = match peer.ip() {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let mut hasher = FixedState::default().build_hasher();
    hasher.write_u128(address);
    hasher.write_u16(peer.port());
    hasher.finish()
}

/// RFC 8656 §12.
const LIFETIME: Duration = Duration::from_secs(600);
