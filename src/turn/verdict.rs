//! What became of a packet.

use std::net::SocketAddr;
use std::ops::Range;

use crate::stun::Method;

use super::{Client, RelayId, WorkerId};

/// What became of a packet: at most one packet goes out for one that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send `body` of what came in to `peer` from `relay`.
    ToPeer {
        /// The relay to send from.
        relay: RelayId,
        /// Where to.
        peer: SocketAddr,
        /// Which bytes of the input.
        body: Range<usize>,
        /// Do not let it be fragmented: set the DF bit, or over IPv6, send it whole or not at all.
        dont_fragment: bool,
    },
    /// Send `head`, then `body` of what came in, then `pad` zero bytes, to a client, as one message.
    ToClient {
        /// Where to.
        to: Client,
        /// What stands before the body.
        head: Head,
        /// Which bytes of the input.
        body: Range<usize>,
        /// How many zero bytes follow, 0 to 3.
        pad: usize,
    },
    /// Send what was appended to the reply buffer.
    Reply(Reply),
    /// The client's allocation is with another machine of this process, which shall be given the same bytes.
    Elsewhere(WorkerId),
    /// Nothing goes out now: the answer waits for [`Event::Connect`](super::Event::Connect).
    Later,
    /// Nothing goes out.
    Drop(Cause),
}

/// An answer to a request, for its way out and for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Where to: whom the request came from, or another port of the same host if the client asked for that
    /// (RESPONSE-PORT, RFC 5780 §7.5).
    pub to: Client,
    /// The listener to send it from, by its address, if that is not the one the request came to (CHANGE-REQUEST,
    /// RFC 5780 §7.2).
    pub via: Option<SocketAddr>,
    /// The method of the request.
    pub method: Method,
    /// 0 for success, else the error code.
    pub code: u16,
    /// Why authentication failed, if it did.
    pub refusal: Option<Refusal>,
    /// Whether the request proved that its sender knows the key of a user.
    pub authenticated: bool,
}

/// The bytes that precede a relayed body: a ChannelData header or the head of a Data indication.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Head {
    bytes: [u8; Self::CAPACITY],
    len: u8,
}

impl Head {
    /// The longest head: that of a Data indication from an IPv6 peer.
    pub const CAPACITY: usize = 48;

    /// A head that `write` fills; it returns how many bytes it wrote, or that there can be no such head.
    pub(super) fn build(
        write: impl FnOnce(&mut [u8; Self::CAPACITY]) -> Option<usize>,
    ) -> Option<Self> {
        let mut bytes = [0; Self::CAPACITY];
        let len = write(&mut bytes)?.min(Self::CAPACITY) as u8;
        Some(Self { bytes, len })
    }

    /// The head of ChannelData.
    pub(super) fn of(header: [u8; 4]) -> Self {
        let mut bytes = [0; Self::CAPACITY];
        bytes[..4].copy_from_slice(&header);
        Self { bytes, len: 4 }
    }

    /// The bytes to send.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Head({:02x?})", self.as_slice())
    }
}

/// Makes a closed enum whose variants are metric labels.
macro_rules! labels {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_meta])* $variant,)* }

        impl $name {
            /// Every variant, in the order of [`Self::index`].
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The place of this variant in [`Self::ALL`].
            pub fn index(self) -> usize {
                self as usize
            }

            /// The label in metrics and logs.
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }
    };
}
pub(super) use labels;

labels! {
    /// Why nothing went out.
    Cause {
        /// Neither STUN nor ChannelData.
        NotTurn = "not_turn",
        /// A STUN message that does not parse, or whose FINGERPRINT is wrong.
        Malformed = "malformed",
        /// A STUN message that no client sends to a server: a response, or an indication other than Send.
        NotARequest = "not_a_request",
        /// A request whose method the server does not know.
        UnknownMethod = "unknown_method",
        /// A request without credentials, smaller than any that a client sends.
        TooSmall = "too_small",
        /// An unauthenticated request beyond what its source prefix is answered.
        ReplyBudget = "reply_budget",
        /// A request from an address to which nothing is ever sent: UDP port 0, our own, or one of our relays.
        NoWayBack = "no_way_back",
        /// Data, or an indication, from a client that has no allocation.
        NoAllocation = "no_allocation",
        /// ChannelData for a channel that is not bound.
        NoChannel = "no_channel",
        /// Data to or from a peer without a permission, or a connection from one.
        NoPermission = "no_permission",
        /// A Send indication without a peer address or data, or with an attribute that must be understood and is not.
        BadIndication = "bad_indication",
        /// A Send indication to a peer of a family that the allocation does not have, or to port 0.
        UnreachablePeer = "unreachable_peer",
        /// Data from a peer too long for the message that would carry it.
        TooLarge = "too_large",
        /// Data for a client whose connection is closed, and who may come back (RFC 8016).
        ClientAway = "client_away",
        /// A connection from a peer beyond what an allocation may have.
        TooManyConnections = "too_many_connections",
        /// Data for a relay that no allocation owns.
        UnknownRelay = "unknown_relay",
        /// Data above what the allocation may relay.
        Bandwidth = "bandwidth",
        /// Data above what the allocations of the user may relay together.
        UserBandwidth = "user_bandwidth",
        /// Data above what the users of the tenant may relay together.
        TenantBandwidth = "tenant_bandwidth",
        /// Data above what everybody may relay together.
        TotalBandwidth = "total_bandwidth",
        /// An ICMP error that its client is not told: of another type, without a permission, or one of too many.
        Icmp = "icmp",
    }
}

labels! {
    /// Why a request did not authenticate.
    Refusal {
        /// It carried no integrity attribute: the usual first request.
        NoIntegrity = "no_integrity",
        /// USERNAME, REALM or NONCE is missing or broken.
        Incomplete = "incomplete",
        /// The password algorithms do not match those that were offered.
        Algorithm = "algorithm",
        /// No such user.
        UnknownUser = "unknown_user",
        /// The integrity attribute does not verify.
        Integrity = "integrity",
        /// The name of the credential makes claims that cannot be kept.
        Claims = "claims",
        /// The access token is not for this server, or not whole.
        Token = "token",
        /// The credentials have expired.
        Expired = "expired",
        /// The credential, its user or its tenant has been revoked.
        Revoked = "revoked",
        /// The nonce is too old, or was never issued to this client.
        StaleNonce = "stale_nonce",
        /// The allocation belongs to another user.
        WrongUser = "wrong_user",
    }
}
