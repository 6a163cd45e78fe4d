//! A request, and what its handlers ask of it.

use std::net::SocketAddr;
use std::time::Duration;

use crate::stun::{Attribute, ChannelNumber, Malformed, Message, Method};

use super::authenticate::User;
use super::response::Reject;
use super::tenant::Standing;
use super::{
    Client, ConnectionId, Family, Now, OnExpiry, ReservationToken, Settings, Tenant, ThirdParty,
    Users, keys,
};

/// A request: the message, who sent it, when, and the settings it is judged by.
///
/// Each question is answered, or is the reason for a 400.
pub(super) struct Request<'a> {
    pub(super) now: Now,
    pub(super) from: Client,
    pub(super) message: Message<'a>,
    pub(super) settings: &'a Settings,
    /// The tenant by whose door it came in, if it did.
    pub(super) door: Option<&'a Tenant>,
}

impl<'a> Request<'a> {
    /// Those who judge it, and whose realm it is challenged with.
    pub(super) fn users(&self) -> &'a Users {
        self.door
            .map_or(&self.settings.users, |tenant| &tenant.users)
    }

    /// Whose tokens are good: nobody's at the door of a tenant.
    pub(super) fn third_party(&self) -> Option<&'a ThirdParty> {
        let third_party = self.settings.third_party.as_ref();
        third_party.filter(|_| self.door.is_none())
    }

    /// The standing of whoever gives this name.
    pub(super) fn standing(&self, name: &'a [u8]) -> Standing<'a> {
        self.settings.standing(self.door, name)
    }
}

impl Request<'_> {
    /// The connection it is about.
    pub(super) fn connection_id(&self) -> Result<ConnectionId, Reject> {
        let id = optional(self.message.connection_id())?;
        id.map(ConnectionId).ok_or(Reject::BadRequest)
    }

    /// How long the allocation should live, in seconds.
    pub(super) fn lifetime(&self) -> Result<Option<u32>, Reject> {
        optional(self.message.lifetime())
    }

    /// How long the allocation shall live: what is asked for, within bounds, and no longer than the credentials if
    /// these end it \[T1\]. A token always does (RFC 7635 §9).
    pub(super) fn granted_lifetime(&self, user: &User<'_>) -> Result<Duration, Reject> {
        let asked = self.lifetime()?.unwrap_or(0);
        let granted = Duration::from_secs(asked.into())
            .max(DEFAULT_LIFETIME)
            .min(self.settings.max_lifetime);
        let end = match (user.grant, self.settings.on_expiry) {
            (Some(grant), _) => Duration::from_secs(grant.life.left(self.now)),
            (None, OnExpiry::Cut) => keys::until_expiry(user.expiry, self.now),
            (None, OnExpiry::New | OnExpiry::Refresh) => return Ok(granted),
        };
        Ok(granted.min(end))
    }

    /// The one peer it is about.
    pub(super) fn peer(&self) -> Result<SocketAddr, Reject> {
        optional(self.message.xor_peer_address())?.ok_or(Reject::BadRequest)
    }

    /// The channel it is about.
    pub(super) fn channel_number(&self) -> Result<ChannelNumber, Reject> {
        optional(self.message.channel_number())?
            .and_then(ChannelNumber::new)
            .filter(|number| number.is_rfc8656() || self.settings.rfc5766_channels)
            .ok_or(Reject::BadRequest)
    }

    /// The protocol that is wanted between relay and peer, by its IP protocol number.
    pub(super) fn requested_transport(&self) -> Result<u8, Reject> {
        optional(self.message.requested_transport())?.ok_or(Reject::BadRequest)
    }

    /// The one family that is wanted. `unsupported` is the answer for a family that is not one of IP's.
    pub(super) fn requested_family(&self, unsupported: Reject) -> Result<Option<Family>, Reject> {
        match optional(self.message.requested_address_family())? {
            Some(number) => Family::from_number(number).ok_or(unsupported).map(Some),
            None => Ok(None),
        }
    }

    /// Whether it speaks of a second family, by the number of RFC 8656 or that of the draft before it.
    pub(super) fn has_additional_family(&self) -> bool {
        self.has(Attribute::ADDITIONAL_ADDRESS_FAMILY) || self.has(Attribute::SSODA_ADDRESS_FAMILY)
    }

    /// Whether an IPv6 relay is wanted beside the IPv4 one.
    pub(super) fn wants_both_families(&self) -> Result<bool, Reject> {
        let family = self.message.additional_address_family();
        match optional(family.or_else(|| self.message.ssoda_address_family()))? {
            Some(2) => Ok(true),
            Some(_) => Err(Reject::BadRequest),
            None => Ok(false),
        }
    }

    /// Whether an even port is wanted, and if so, whether the next one shall be held.
    pub(super) fn even_port(&self) -> Result<Option<bool>, Reject> {
        optional(self.message.even_port())
    }

    /// The name of a held port.
    pub(super) fn reservation_token(&self) -> Result<Option<ReservationToken>, Reject> {
        Ok(optional(self.message.reservation_token())?.map(ReservationToken))
    }

    /// The ticket of a client that has moved, or the empty one of a client that wants one.
    pub(super) fn mobility_ticket(&self) -> Result<Option<&[u8]>, Reject> {
        optional(self.message.mobility_ticket())
    }

    /// The access token that it is to be authenticated by, if it has one and may.
    ///
    /// RFC 7635 §9 knows of Allocate and Refresh; ConnectionBind comes by a connection of its own, too, where nothing
    /// else tells whose it is.
    pub(super) fn access_token(&self) -> Option<&[u8]> {
        let method = self.message.method();
        let may = [Method::ALLOCATE, Method::REFRESH, Method::CONNECTION_BIND].contains(&method);
        (may && self.third_party().is_some())
            .then(|| self.message.get(Attribute::ACCESS_TOKEN))
            .flatten()
    }

    /// What must be understood and is not (RFC 8489 §6.3.1): an access token is where none was asked for (RFC 7635 §7).
    pub(super) fn unknown_required(&self) -> impl Iterator<Item = Attribute> {
        let unasked = self.third_party().is_none() && self.has(Attribute::ACCESS_TOKEN);
        let token = unasked.then_some(Attribute::ACCESS_TOKEN);
        token.into_iter().chain(self.message.unknown_required())
    }

    pub(super) fn has(&self, attribute: Attribute) -> bool {
        self.message.get(attribute).is_some()
    }
}

fn optional<T>(value: Option<Result<T, Malformed>>) -> Result<Option<T>, Reject> {
    value.transpose().map_err(|Malformed| Reject::BadRequest)
}

/// RFC 8656 §3.2.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(600);
