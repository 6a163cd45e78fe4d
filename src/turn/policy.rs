//! Which peers one user may reach: those of the settings, of the tenant, or of the policy that the credential names.

use std::net::{IpAddr, SocketAddr};

use super::allocation::Owner;
use super::authenticate::User;
use super::request::Request;
use super::response::Reject;
use super::tenant::Standing;
use super::{Peers, Relays, Rule, Settings};

/// Which peers one user may reach.
#[derive(Clone, Copy)]
pub(super) enum Policy<'a> {
    /// Those that these name.
    Peers(&'a Peers),
    /// Those that both name.
    Both(&'a Peers, &'a Peers),
    /// None: the credential names a policy that there is not.
    Nobody,
}

impl<'a> Policy<'a> {
    /// Judges a peer that a client names.
    ///
    /// # Errors
    /// [`Reject::Forbidden`], or [`Reject::NoPolicy`].
    pub(super) fn judge(self, peer: SocketAddr, relays: &impl Relays) -> Result<(), Reject> {
        if self.is_nobody() {
            return Err(Reject::NoPolicy);
        }
        let mut all = self.all();
        all.try_for_each(|peers| peers.judge(peer, relays))
    }

    /// What closes a peer, if the policy has a rule that does.
    pub(super) fn rule(self, peer: SocketAddr, relays: &impl Relays) -> Option<Rule> {
        let reach = relays.reach(peer);
        self.all().find_map(|peers| peers.rule(peer.ip(), reach))
    }

    /// Whether a peer stays within reach that was in reach by the policy `before`.
    pub(super) fn keeps(self, peer: IpAddr, before: Policy<'_>) -> bool {
        let closed = before.permits(peer) && !self.permits(peer);
        !closed && !self.is_nobody() && !self.all().any(|peers| peers.denies(peer))
    }

    pub(super) fn is_nobody(self) -> bool {
        matches!(self, Self::Nobody)
    }

    fn permits(self, peer: IpAddr) -> bool {
        !self.is_nobody() && self.all().all(|peers| peers.permit(peer))
    }

    fn all(self) -> impl Iterator<Item = &'a Peers> {
        let (first, second) = match self {
            Self::Peers(peers) => (Some(peers), None),
            Self::Both(one, other) => (Some(one), Some(other)),
            Self::Nobody => (None, None),
        };
        first.into_iter().chain(second)
    }
}

impl Settings {
    /// The policy for who has this standing: the one that the credential names, in the place of the general one. What a
    /// tenant may not reach no credential opens to its users, nor does a tenant's own secret open what is closed to all.
    pub(super) fn policy(&self, standing: &Standing<'_>) -> Policy<'_> {
        let of_tenant = self.tenant(standing.tenant);
        let of_tenant = of_tenant.and_then(|tenant| tenant.peers.as_ref());
        let issued = standing.issued.as_ref();
        let Some(name) = issued.and_then(|issued| issued.claims.policy) else {
            return Policy::Peers(of_tenant.unwrap_or(&self.peers));
        };
        let Some(named) = self.policies.get(name) else {
            return Policy::Nobody;
        };
        match (of_tenant, standing.by_tenant) {
            (Some(of_tenant), _) => Policy::Both(of_tenant, named),
            (None, true) => Policy::Both(&self.peers, named),
            (None, false) => Policy::Peers(named),
        }
    }

    /// The policy for the owner of an allocation.
    pub(super) fn policy_for(&self, owner: &Owner) -> Policy<'_> {
        self.policy(&self.recalled_owner(owner))
    }

    /// The standing of the owner of an allocation.
    pub(super) fn recalled_owner<'a>(&'a self, owner: &'a Owner) -> Standing<'a> {
        match owner.grant {
            Some(_) => Standing::default(),
            None => self.recalled(&owner.username, owner.tenant()),
        }
    }
}

impl User<'_> {
    /// The policy for the user.
    pub(super) fn policy<'a>(&self, request: &Request<'a>) -> Policy<'a> {
        request.settings.policy(&self.standing)
    }
}
