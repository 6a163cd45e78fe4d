//! Permissions (RFC 8656 §9 and §10).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::allocation::Allocation;
use super::authenticate::User;
use super::quota::Limit;
use super::request::Request;
use super::response::{Reject, Success};
use super::server::Server;
use super::trail::Tally;
use super::{Family, Relays};

impl Server {
    /// RFC 8656 §10.2. All of the permissions are installed, or none.
    pub(super) fn create_permission(
        &mut self,
        request: &Request<'_>,
        user: &User<'_>,
        relays: &impl Relays,
    ) -> Result<Success, Reject> {
        let settings = request.settings;
        let now = request.now.instant;
        let policy = user.policy(request);
        let allocation = self.allocation_of(request, user)?;

        let mut peers = Vec::new();
        for peer in request.message.xor_peer_addresses() {
            peers.push(peer.map_err(|_| Reject::BadRequest)?);
        }
        if peers.is_empty() {
            return Err(Reject::BadRequest);
        }
        for peer in &peers {
            allocation
                .relay_of(Family::of(peer.ip()), now)
                .ok_or(Reject::PeerFamily)?;
        }
        for &peer in &peers {
            policy.judge(peer, relays)?;
        }
        let peers = peers.iter().map(|peer| peer.ip());
        allocation.meet(peers.clone(), now)?;
        allocation
            .permissions_mut()
            .install(peers, now, settings.limits.permissions)?;
        Ok(Success::Done)
    }
}

impl Allocation {
    /// Counts the peers that are new to the allocation, if there may be so many.
    ///
    /// # Errors
    /// [`Reject::NewPeers`], a 403: browsers take anything else on a permission for the end of the allocation.
    pub(super) fn meet(
        &self,
        peers: impl Iterator<Item = IpAddr>,
        now: Instant,
    ) -> Result<(), Reject> {
        let Some(allowance) = &self.allowance else {
            return Ok(());
        };
        let mut new: Vec<IpAddr> = peers
            .filter(|peer| !self.permissions().allows(*peer, now))
            .collect();
        new.sort_unstable();
        new.dedup();
        if allowance.admits(new.len(), now) {
            return Ok(());
        }
        self.claim.reject(Limit::NewPeers);
        Err(Reject::NewPeers)
    }
}

/// The permissions of an allocation, sorted by address.
#[derive(Debug, Default)]
pub(super) struct Permissions(Vec<Permission>);

#[derive(Debug)]
struct Permission {
    peer: IpAddr,
    expires: Instant,
    tally: Tally,
}

impl Permissions {
    /// Whether a peer may be heard.
    #[inline]
    pub(super) fn allows(&self, peer: IpAddr, now: Instant) -> bool {
        self.find(peer)
            .is_ok_and(|place| self.0[place].expires > now)
    }

    /// Whether a peer may be sent to. If so, it is counted.
    #[inline]
    pub(super) fn sends(&mut self, peer: IpAddr, now: Instant) -> bool {
        self.live_tally(peer, now).map(Tally::sent).is_some()
    }

    /// Whether a peer may be heard. If so, it is counted.
    #[inline]
    pub(super) fn hears(&mut self, peer: IpAddr, now: Instant) -> bool {
        self.live_tally(peer, now).map(Tally::heard).is_some()
    }

    #[inline]
    fn live_tally(&mut self, peer: IpAddr, now: Instant) -> Option<&mut Tally> {
        let place = self.find(peer).ok()?;
        let permission = &mut self.0[place];
        (permission.expires > now).then_some(&mut permission.tally)
    }

    /// Installs or refreshes the permissions of all `peers`, or changes nothing.
    ///
    /// # Errors
    /// [`Reject::Capacity`] if there would be more than `limit`.
    pub(super) fn install(
        &mut self,
        peers: impl Iterator<Item = IpAddr> + Clone,
        now: Instant,
        limit: usize,
    ) -> Result<(), Reject> {
        self.0.retain(|permission| permission.expires > now);
        let mut fresh: Vec<IpAddr> = peers
            .clone()
            .filter(|&peer| self.find(peer).is_err())
            .collect();
        fresh.sort_unstable();
        fresh.dedup();
        if self.0.len() + fresh.len() > limit {
            return Err(Reject::Capacity);
        }
        let expires = now + LIFETIME;
        for peer in peers {
            match self.find(peer) {
                Ok(place) => self.0[place].expires = expires,
                Err(place) => {
                    let tally = Tally::default();
                    self.0.insert(
                        place,
                        Permission {
                            peer,
                            expires,
                            tally,
                        },
                    );
                }
            }
        }
        Ok(())
    }

    /// Drops the permissions of all peers but those `keep` names.
    pub(super) fn retain(&mut self, keep: impl Fn(IpAddr) -> bool) {
        self.0.retain(|permission| keep(permission.peer));
    }

    /// Those that have not expired, and when they will.
    pub(super) fn iter(&self, now: Instant) -> impl Iterator<Item = (IpAddr, Instant)> {
        self.0
            .iter()
            .map(|permission| (permission.peer, permission.expires))
            .filter(move |(_, expires)| *expires > now)
    }

    /// Those that have not expired, and those that have and are still known.
    pub(super) fn all(&self) -> impl Iterator<Item = (IpAddr, Tally, Instant)> {
        self.0
            .iter()
            .map(|permission| (permission.peer, permission.tally, permission.expires))
    }

    /// Whether a peer has a permission, or had one that is still known.
    pub(super) fn knows(&self, peer: IpAddr) -> bool {
        self.find(peer).is_ok()
    }

    /// How many have not expired.
    pub(super) fn live(&self, now: Instant) -> usize {
        self.iter(now).count()
    }

    fn find(&self, peer: IpAddr) -> Result<usize, usize> {
        self.0
            .binary_search_by(|permission| permission.peer.cmp(&peer))
    }
}

/// RFC 8656 §9.
const LIFETIME: Duration = Duration::from_secs(300);
