//! Refresh (RFC 8656 §8).

use std::time::Duration;

use super::authenticate::User;
use super::request::Request;
use super::response::{Reject, Success};
use super::server::Server;
use super::{EndReason, Relays};

impl Server {
    /// RFC 8656 §8.2. Of a dual allocation, REQUESTED-ADDRESS-FAMILY names the half that is meant.
    pub(super) fn refresh(
        &mut self,
        request: &Request<'_>,
        user: &User<'_>,
        relays: &mut impl Relays,
    ) -> Result<Success, Reject> {
        let (id, arrival) = self.refreshed_allocation(request, user)?;
        let family = request.requested_family(Reject::PeerFamily)?;
        let lifetime = match request.lifetime()? {
            Some(0) => Duration::ZERO,
            _ => request.granted_lifetime(user)?,
        };
        let allocation = self.allocations.get(id).ok_or(Reject::AllocationMismatch)?;
        let meant = |of| family.is_none_or(|family| family == of);
        if !allocation.relays().any(|relay| meant(relay.family())) {
            return Err(Reject::PeerFamily);
        }

        if lifetime.is_zero() {
            let mut ticket = None;
            match family {
                Some(family) if allocation.second.is_some() => {
                    ticket = self.welcome(id, arrival, request)?;
                    self.end_half(id, family, relays);
                }
                _ => self.end(id, EndReason::Deleted, request.now, relays),
            }
            return Ok(Success::Refreshed {
                lifetime: 0,
                ticket,
            });
        }
        let ticket = self.welcome(id, arrival, request)?;
        let owner = self.owner(user);
        let allocation = self
            .allocations
            .get_mut(id)
            .ok_or(Reject::AllocationMismatch)?;
        for relay in allocation
            .relays_mut()
            .filter(|relay| meant(relay.family()))
        {
            relay.expires = request.now.instant + lifetime;
        }
        allocation.owner = owner;
        self.allocations.reschedule(id);
        Ok(Success::Refreshed {
            lifetime: lifetime.as_secs() as u32,
            ticket,
        })
    }
}
