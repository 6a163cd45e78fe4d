//! What an allocation may have: as much as the settings say, or its credential where that says less.

use std::sync::Arc;
use std::time::Instant;

use super::allocation::Allocation;
use super::allowance::Allowance;
use super::bucket::{nanos, stricter};
use super::server::Server;
use super::tenant::Standing;
use super::{Claims, Limits, NewPeers, Now, Settings};

/// What an allocation may have. Rates are in bytes a second, and 0 where there is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) per_user: u32,
    pub(super) per_client: u32,
    pub(super) per_tenant: u32,
    pub(super) total: u32,
    /// Of the allocation by itself.
    pub(super) rate: u64,
    pub(super) user_rate: u64,
    pub(super) tenant_rate: u64,
    total_rate: u64,
    pub(super) new_peers: NewPeers,
}

impl Terms {
    /// The terms of who has this standing.
    pub(super) fn of(settings: &Settings, standing: &Standing<'_>) -> Self {
        let limits = settings.limits_of(standing.tenant);
        Self::within(
            &limits,
            standing.issued.as_ref().map(|issued| &issued.claims),
        )
    }

    /// The terms of who is vouched for with these claims, if with any.
    pub(super) fn within(limits: &Limits, claims: Option<&Claims<'_>>) -> Self {
        let bandwidth = &limits.bandwidth;
        let claimed = claims.and_then(|claims| claims.bits_per_second);
        let claimed = claimed.map_or(0, |bits| bits.max(1));
        let allocations = claims.and_then(|claims| claims.allocations);
        Self {
            per_user: allocations.map_or(limits.per_user, |most| most.min(limits.per_user)),
            per_client: limits.per_client,
            per_tenant: limits.per_tenant,
            total: limits.total,
            rate: bytes(stricter(bandwidth.per_allocation, claimed)),
            user_rate: bytes(bandwidth.per_user),
            tenant_rate: bytes(bandwidth.per_tenant),
            total_rate: total_rate(limits),
            new_peers: limits.new_peers,
        }
    }

    /// Whether there is any limit to what is relayed, or to whom.
    fn need_allowance(&self) -> bool {
        let peers = self.new_peers;
        let rates = [self.rate, self.user_rate, self.tenant_rate, self.total_rate];
        rates.iter().any(|rate| *rate != 0) || peers != NewPeers::default()
    }
}

/// What everybody together may relay, in bytes a second.
pub(super) fn total_rate(limits: &Limits) -> u64 {
    bytes(limits.bandwidth.total)
}

impl Server {
    /// Puts the terms of the settings in force into force for every allocation.
    pub(super) fn renew_terms(&mut self, now: Now) {
        let (settings, times) = (Arc::clone(&self.settings), (self.epoch(), now.instant));
        let worker = usize::from(self.tickets.worker.0);
        for id in self.allocations.ids() {
            if let Some(allocation) = self.allocations.get_mut(id) {
                let terms = Terms::of(&settings, &settings.recalled_owner(&allocation.owner));
                allocation.settle(&terms, worker, times);
            }
        }
    }
}

impl Allocation {
    /// Puts terms into force; `times` are when the machines of this process began, and the time.
    ///
    /// A TCP allocation always has an allowance: the plane holds on to it, and must hear of limits that come later.
    pub(super) fn settle(&mut self, terms: &Terms, worker: usize, times: (Instant, Instant)) {
        if !terms.need_allowance() && self.connections.is_none() {
            self.allowance = None;
            return;
        }
        let since = nanos(times.1.saturating_duration_since(times.0));
        let share = self.claim.share(terms, since);
        match &self.allowance {
            Some(allowance) => allowance.set_terms(terms),
            None => {
                let allowance = Allowance::new(terms, share, worker, times);
                self.allowance = Some(Arc::new(allowance));
            }
        }
    }
}

/// A rate that is no limit stays none; one that is a limit stays one, however small.
fn bytes(bits: u64) -> u64 {
    bits.div_ceil(8)
}
