//! Layer 1: the TURN protocol machine (RFC 8656, RFC 8489).
//!
//! [`Server`] is a value. Bytes and the time go in, one [`Verdict`] comes out: what to send, to whom, or why nothing
//! is sent. The bytes of a relayed datagram are never copied; the verdict names a range of what came in.
//!
//! The machine promises
//! - at most one packet out for one packet in, and no heap allocation for a relayed one,
//! - no state for a stranger: nothing is kept before a request has proved the key of a user,
//! - no answer to anything but a request, and few and small ones to strangers.
//!
//! It never reads a clock, opens a socket, waits, locks (but for the few counters of [`Quotas`]) or logs. Relayed
//! transport addresses come from outside, through [`Relays`]; everything else that the outside must know is an
//! [`Event`].

mod account;
mod allocate;
mod allocation;
mod allowance;
mod authenticate;
mod binding;
mod bucket;
mod channel;
mod classic;
mod connect;
mod discovery;
mod elsewhere;
mod event;
mod expiry;
mod five_tuple;
mod icmp;
mod keys;
mod mobility;
mod nonce;
mod oauth;
mod offer;
mod peers;
mod permission;
mod policy;
mod pool;
mod prefix;
mod prospect;
mod question;
mod quota;
mod redirect;
mod refresh;
mod refused;
mod relay;
mod relays;
mod reply_budget;
mod request;
mod response;
mod revocation;
mod secret_use;
mod server;
mod session;
mod settings;
mod software;
mod tenant;
mod terms;
mod ticket;
mod trail;
mod username;
mod verdict;

use std::time::Instant;

pub use account::{Account, Accounts, Exchange, Refreshed};
pub use allowance::{Allowance, Excess, Towards};
pub use discovery::{NatDiscovery, OwnAddress};
pub use elsewhere::WorkerId;
pub use event::{Allocated, Census, Connect, EndReason, Ended, Event, MoveResult, Moved, Traffic};
pub use expiry::Expiry;
pub use five_tuple::{Client, Family, FiveTuple, Path, Transport};
pub use keys::{PasswordEncoding, SecretAlgorithm, SharedSecret, TooManySecrets, Users};
pub use oauth::{ThirdParty, TokenAlgorithm, TokenKey};
pub use offer::{ListenerAlgorithms, PasswordAlgorithms};
pub use peers::{Closes, Extent, Peers, Range, Rule};
pub use prospect::{Login, Prospect};
pub use question::Question;
pub use quota::{Limit, Quotas};
pub use redirect::Redirect;
pub use refused::{Rebuff, Why};
pub use relays::{
    Addressee, Carried, Claimant, ConnectionId, Families, NoCapacity, Reach, Relay, RelayId,
    RelayProtocol, Relays, ReservationToken, Want, WantedPort,
};
pub use revocation::{Revocations, Revoked, Term};
pub use server::Server;
pub use session::{Holder, NotASession, Refused, Session, SessionId, Sessions};
pub use settings::{
    Bandwidth, Limits, NewPeers, NonceKey, NonceKeys, OnExpiry, Settings, TcpRelay,
};
pub use software::{Dialect, Software};
pub use tenant::{Door, Tenant, Tenants};
pub use ticket::TicketKey;
pub use trail::{ConnectFailure, Fact, Ground, Note, SendFailure, Strangers};
pub use username::{BadClaims, Claims, Issued, escape, is_plain, unescape};
pub use verdict::{Cause, Head, Refusal, Reply, Verdict};

/// The time, as the plane read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock: every lifetime is measured by it.
    pub instant: Instant,
    /// The wall clock, in seconds since 1970: only the expiry of credentials is judged by it.
    pub unix: u64,
}
