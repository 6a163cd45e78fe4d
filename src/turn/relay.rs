//! The data path: ChannelData and Send towards a peer, and whatever a peer sends back.

use std::net::SocketAddr;

use rand::Rng;

use crate::stun::{ChannelData, Message, TransactionId, data_indication_head};

use super::allowance::Towards;
use super::server::Server;
use super::trail::Fact;
use super::{Cause, Client, Family, FiveTuple, Head, Now, RelayId, Verdict};

impl Server {
    /// RFC 8656 §12.6.
    pub(super) fn channel_data(&mut self, now: Now, from: Client, bytes: &[u8]) -> Verdict {
        let Some(data) = ChannelData::parse(bytes) else {
            return Verdict::Drop(Cause::Malformed);
        };
        let Some(allocation) = self.allocation_mut(from, now) else {
            return self.data_of_another(now, from);
        };
        let Some(peer) = allocation.channels.sends_by(data.number, now.instant) else {
            let number = data.number.get();
            allocation.note(Fact::NoChannel { number }, now.instant);
            return Verdict::Drop(Cause::NoChannel);
        };
        let Some(relay) = allocation.relay_of(Family::of(peer.ip()), now.instant) else {
            return Verdict::Drop(Cause::NoAllocation);
        };
        let relay = relay.id;
        if let Err(cause) = allocation.afford(Towards::Peer, data.body.len(), now.instant) {
            allocation.note(Fact::Dropped { cause }, now.instant);
            return Verdict::Drop(cause);
        }
        allocation.to_peer.add(data.body.len());
        Verdict::ToPeer {
            relay,
            peer,
            body: data.body,
            dont_fragment: false,
        }
    }

    /// RFC 8656 §11.2. Indications are not authenticated: the permission is what counts.
    pub(super) fn send(&mut self, now: Now, from: Client, message: &Message<'_>) -> Verdict {
        let Some(allocation) = self.allocation_mut(from, now) else {
            return self.data_of_another(now, from);
        };
        let (Some(Ok(peer)), Some(body)) = (message.xor_peer_address(), message.data()) else {
            return Verdict::Drop(Cause::BadIndication);
        };
        if message.unknown_required().next().is_some() {
            return Verdict::Drop(Cause::BadIndication);
        }
        let family = Family::of(peer.ip());
        let relay = allocation.relay_of(family, now.instant);
        let Some(relay) = relay.filter(|_| peer.port() != 0) else {
            return Verdict::Drop(Cause::UnreachablePeer);
        };
        let relay = relay.id;
        if !allocation.admits_data(peer, now.instant) {
            allocation.note(Fact::ToPeerUnpermitted { ip: peer.ip() }, now.instant);
            return Verdict::Drop(Cause::NoPermission);
        }
        if let Err(cause) = allocation.afford(Towards::Peer, body.len(), now.instant) {
            allocation.note(Fact::Dropped { cause }, now.instant);
            return Verdict::Drop(cause);
        }
        allocation.to_peer.add(body.len());
        Verdict::ToPeer {
            relay,
            peer,
            body,
            dont_fragment: message.dont_fragment() && heeds_dont_fragment(&from.five_tuple, family),
        }
    }

    /// Data of a client that has no allocation here.
    #[cold]
    fn data_of_another(&self, now: Now, from: Client) -> Verdict {
        match self.elsewhere(now, &from.five_tuple) {
            Some(worker) => Verdict::Elsewhere(worker),
            None => Verdict::Drop(Cause::NoAllocation),
        }
    }

    /// Takes in a datagram of `len` bytes that `peer` sent to a relay.
    ///
    /// It goes to the client through the channel that is bound to exactly this peer, otherwise as a Data indication
    /// (RFC 8656 §11.3, §12.7).
    pub fn peer_input(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: SocketAddr,
        len: usize,
    ) -> Verdict {
        let owner = self.allocations.by_relay(relay);
        let Some(allocation) = owner.and_then(|id| self.allocations.get_mut(id)) else {
            return Verdict::Drop(Cause::UnknownRelay);
        };
        if allocation
            .relay_of(Family::of(peer.ip()), now.instant)
            .is_none()
        {
            return Verdict::Drop(Cause::UnknownRelay);
        }
        let to = allocation.client;
        let (head, pad) = if let Some(channel) = allocation.channels.hears(peer, now.instant) {
            let Ok(length) = u16::try_from(len) else {
                return Verdict::Drop(Cause::TooLarge);
            };
            let pad = if to.five_tuple.transport.is_stream() {
                padding(len)
            } else {
                0
            };
            (Head::of(channel.header(length)), pad)
        } else if allocation.permissions.hears(peer.ip(), now.instant) {
            let id = TransactionId(random(&mut self.random));
            let Some(head) = Head::build(|head| data_indication_head(id, peer, len, head)) else {
                return Verdict::Drop(Cause::TooLarge);
            };
            (head, padding(len))
        } else {
            allocation.note_unpermitted(peer, now.instant);
            return Verdict::Drop(Cause::NoPermission);
        };
        if allocation.is_away() {
            let cause = Cause::ClientAway;
            allocation.note(Fact::Dropped { cause }, now.instant);
            return Verdict::Drop(cause);
        }
        if let Err(cause) = allocation.afford(Towards::Client, len, now.instant) {
            allocation.note(Fact::Dropped { cause }, now.instant);
            return Verdict::Drop(cause);
        }
        allocation.to_client.add(len);
        Verdict::ToClient {
            to,
            head,
            body: 0..len,
            pad,
        }
    }
}

pub(super) fn random<const N: usize>(random: &mut impl Rng) -> [u8; N] {
    let mut bytes = [0; N];
    random.fill_bytes(&mut bytes);
    bytes
}

/// Whether DONT-FRAGMENT counts (\[H4\]): from datagrams where both sides are IPv4 (RFC 8656 §13), from streams always
/// (§15).
fn heeds_dont_fragment(from: &FiveTuple, peer: Family) -> bool {
    let translates = Family::of(from.client.ip()) != Family::V4 || peer != Family::V4;
    from.transport.is_stream() || !translates
}

/// How many bytes follow `len` bytes to make a multiple of 4.
fn padding(len: usize) -> usize {
    len.wrapping_neg() & 3
}
