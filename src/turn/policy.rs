//! Which peers one user may reach: those of the settings, or of the policy that the user's credential names.

use std::net::{IpAddr, SocketAddr};

use super::allocation::Owner;
use super::authenticate::User;
use super::request::Request;
use super::response::Reject;
use super::{Peers, Relays, Rule, Settings};

/// Which peers one user may reach.
#[derive(Clone, Copy)]
pub(super) enum Policy<'a> {
    /// Those that these name.
    Peers(&'a Peers),
    /// None: the credential names a policy that there is no more.
    Nobody,
}

impl Policy<'_> {
    /// Judges a peer that a client names.
    ///
    /// # Errors
    /// [`Reject::Forbidden`]
    pub(super) fn judge(self, peer: SocketAddr, relays: &impl Relays) -> Result<(), Reject> {
        match self {
            Self::Peers(peers) => peers.judge(peer, relays),
            Self::Nobody => Err(Reject::Forbidden),
        }
    }

    /// What closes a peer, if the policy has a rule that does.
    pub(super) fn rule(self, peer: SocketAddr, relays: &impl Relays) -> Option<Rule> {
        match self {
            Self::Peers(peers) => peers.rule(peer.ip(), relays.reach(peer)),
            Self::Nobody => None,
        }
    }

    /// Whether a peer stays within reach that was in reach by the policy `before`.
    pub(super) fn keeps(self, peer: IpAddr, before: Policy<'_>) -> bool {
        let Self::Peers(peers) = self else {
            return false;
        };
        let was_open = matches!(before, Policy::Peers(before) if before.permit(peer));
        let closed = was_open && !peers.permit(peer);
        !closed && !peers.denies(peer)
    }
}

impl Settings {
    /// The policy for the owner of an allocation.
    pub(super) fn policy(&self, owner: &Owner) -> Policy<'_> {
        self.policy_of(&owner.username, owner.grant.is_some())
    }

    /// Whether a name asks for a policy that there is not.
    pub(super) fn lacks_policy_of(&self, username: &[u8]) -> bool {
        matches!(self.policy_of(username, false), Policy::Nobody)
    }

    pub(super) fn policy_of(&self, username: &[u8], by_token: bool) -> Policy<'_> {
        let issued = match by_token {
            true => None,
            false => self.users.issued(username),
        };
        let issued = issued.and_then(Result::ok);
        match issued.and_then(|issued| issued.claims.policy) {
            None => Policy::Peers(&self.peers),
            Some(name) => match self.policies.get(name) {
                Some(peers) => Policy::Peers(peers),
                None => Policy::Nobody,
            },
        }
    }
}

impl User<'_> {
    /// The policy for the user.
    pub(super) fn policy<'a>(&self, request: &Request<'a>) -> Policy<'a> {
        request.settings.policy_of(self.name, self.grant.is_some())
    }
}
