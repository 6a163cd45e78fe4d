//! ICMP errors about what was sent to a peer (RFC 8656 §11.5).

use std::net::SocketAddr;
use std::time::Duration;

use crate::stun::{Attribute, Class, Icmp, Method, TransactionId, Writer};

use super::relay::random;
use super::server::Server;
use super::{Cause, Client, Family, Now, RelayId};

impl Server {
    /// Takes in an ICMP error about a datagram that `relay` sent to `peer`, which is the destination that the error
    /// quotes; its port is 0 if that is not known.
    ///
    /// A Data indication is appended to `reply`, to be sent to the client that is returned: with the peer and the
    /// error and without data, also where a channel is bound \[D4\]. What is not told is [`Cause::Icmp`]. Whoever sent
    /// the error does not matter: permissions are judged by whom the client had sent to.
    pub fn peer_error(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: SocketAddr,
        icmp: Icmp,
        reply: &mut Vec<u8>,
    ) -> Result<Client, Cause> {
        let id = TransactionId(random(&mut self.random));
        let owner = self.allocations.by_relay(relay);
        let allocation = owner
            .and_then(|id| self.allocations.get_mut(id))
            .ok_or(Cause::Icmp)?;
        let family = Family::of(peer.ip());
        let permitted = allocation.relay_of(family, now.instant).is_some()
            && allocation.admits(peer, now.instant)
            && !allocation.is_away();
        let age = now.instant.saturating_duration_since(allocation.birth.at);
        if !permitted || !is_told(icmp, family) {
            return Err(Cause::Icmp);
        }
        allocation.note_icmp(peer, icmp, now.instant);
        if !allocation.icmp.take(age) {
            return Err(Cause::Icmp);
        }
        let mut writer = Writer::new(reply, Class::Indication, Method::DATA, id);
        writer
            .xor_address(Attribute::XOR_PEER_ADDRESS, peer)
            .icmp(Icmp {
                data: if is_too_big(icmp, family) {
                    icmp.data
                } else {
                    0
                },
                ..icmp
            });
        writer.finish();
        Ok(allocation.client)
    }
}

/// The types that a client is told of: unreachable, time exceeded, and IPv6's packet too big.
fn is_told(icmp: Icmp, family: Family) -> bool {
    match family {
        Family::V4 => matches!(icmp.kind, 3 | 11),
        Family::V6 => matches!(icmp.kind, 1..=3),
    }
}

/// The only errors that have data (RFC 8656 §18.13): the MTU of the next hop.
fn is_too_big(icmp: Icmp, family: Family) -> bool {
    match family {
        Family::V4 => (icmp.kind, icmp.code) == (3, 4),
        Family::V6 => icmp.kind == 2,
    }
}

/// How many errors a client is told, whoever makes them up: ten at once, and one each second.
///
/// Counts the second of the allocation's life up to which errors have been told ahead.
#[derive(Debug, Default)]
pub(super) struct IcmpBudget(u32);

impl IcmpBudget {
    fn take(&mut self, age: Duration) -> bool {
        let now = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        let ahead = self.0.max(now);
        let affords = ahead - now < BURST;
        if affords {
            self.0 = ahead.saturating_add(1);
        }
        affords
    }
}

const BURST: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_ten_and_then_one_a_second() {
        let mut budget = IcmpBudget::default();
        let mut told = |second, tries: u32| {
            (0..tries)
                .filter(|_| budget.take(Duration::from_secs(second)))
                .count()
        };
        assert_eq!(told(0, 100), 10);
        assert_eq!(told(1, 100), 1);
        assert_eq!(told(4, 100), 3);
        assert_eq!(told(1000, 100), 10);
    }
}
