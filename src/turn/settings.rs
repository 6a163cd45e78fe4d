//! What the machine must be told.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use zeroize::Zeroize;

use super::{
    ListenerAlgorithms, NatDiscovery, PasswordAlgorithms, Peers, Redirect, Tenants, ThirdParty,
    Users,
};

/// What the machine must be told. Replaced as a whole, never changed in place.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whose requests are accepted, and in which realm.
    pub users: Users,
    /// The keys that seal nonces. Every server that shares clients with this one needs the same.
    pub nonce_keys: NonceKeys,
    /// Which password algorithms the clients are offered.
    pub password_algorithms: PasswordAlgorithms,
    /// Listeners whose clients are offered others: the most exact address counts.
    pub listener_algorithms: Vec<ListenerAlgorithms>,
    /// Whether clients are to hide their names behind USERHASH (RFC 8489 §9.2.1): good only where every user has a
    /// password of its own, since nobody else is found by a hash.
    pub username_anonymity: bool,
    /// Which authorization servers may vouch for users, too, if any (RFC 7635).
    pub third_party: Option<ThirdParty>,
    /// What happens to a running allocation when its credentials expire.
    pub on_expiry: OnExpiry,
    /// Whether allocations may move with their clients (RFC 8016).
    pub mobility: bool,
    /// Whether clients may bind the channel numbers 0x5000 to 0x7FFF, which RFC 8656 took away from RFC 5766.
    pub rfc5766_channels: bool,
    /// Whether Binding requests of RFC 3489 are answered over UDP, which have no magic cookie.
    pub rfc3489: bool,
    /// Whether those who name no family are given IPv6 where there is no IPv4. RFC 8656 §7.2 wants 440 then.
    pub unasked_ipv6: bool,
    /// SOFTWARE of authenticated answers to Allocate and Refresh. At most 127 characters.
    pub software: Option<String>,
    /// The longest lifetime that an allocation is granted at once.
    pub max_lifetime: Duration,
    /// How much of everything there may be.
    pub limits: Limits,
    /// Which peers may be reached.
    pub peers: Peers,
    /// Which peers may be reached instead with a credential that names one of these.
    pub policies: BTreeMap<Box<str>, Peers>,
    /// Those who have users and limits of their own.
    pub tenants: Tenants,
    /// Where clients may find out what NATs do to them. Taken as it is when a machine is made: it goes with sockets.
    pub nat_discovery: Vec<NatDiscovery>,
    /// Where else clients find a server, and when they are sent there.
    pub redirect: Option<Redirect>,
    /// What TCP allocations (RFC 6062) may do; without it there are none.
    pub tcp_relay: Option<TcpRelay>,
}

impl Settings {
    /// The default settings: no users yet, every limit in place.
    pub fn new(nonce_keys: NonceKeys) -> Self {
        Self {
            users: Users::new("turnd"),
            nonce_keys,
            password_algorithms: PasswordAlgorithms::Md5,
            listener_algorithms: Vec::new(),
            username_anonymity: false,
            third_party: None,
            on_expiry: OnExpiry::Refresh,
            mobility: false,
            rfc5766_channels: false,
            rfc3489: false,
            unasked_ipv6: false,
            software: None,
            max_lifetime: Duration::from_secs(3600),
            limits: Limits::default(),
            peers: Peers::default(),
            policies: BTreeMap::new(),
            tenants: Tenants::default(),
            nat_discovery: Vec::new(),
            redirect: None,
            tcp_relay: None,
        }
    }
}

/// How much of everything there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Allocations of one user.
    pub per_user: u32,
    /// Allocations of the clients of one /24 (IPv4) or /56 (IPv6) prefix.
    pub per_client: u32,
    /// Allocations of the users of one tenant.
    pub per_tenant: u32,
    /// Allocations altogether.
    pub total: u32,
    /// Permissions of one allocation.
    pub permissions: usize,
    /// Channels of one allocation.
    pub channels: usize,
    /// Unauthenticated answers over UDP that one machine gives to one /24 or /56 prefix in a second; 0 is without limit.
    pub unauthenticated_replies: u32,
    /// How much may be relayed.
    pub bandwidth: Bandwidth,
    /// How many new peers there may be.
    pub new_peers: NewPeers,
}

/// How many peers may be added in a minute; 0 is without limit. A peer is new to an allocation that has no permission for
/// its address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewPeers {
    /// To one allocation.
    pub per_allocation: u32,
    /// To the allocations of one user together; each of them counts its own.
    pub per_user: u32,
}

/// How much may be relayed, in bits a second, in each direction by itself; 0 is without limit.
///
/// Datagrams count with 28 bytes for their headers, so that many small ones are no way around it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// Of one allocation.
    pub per_allocation: u64,
    /// Of the allocations of one user together.
    pub per_user: u64,
    /// Of the users of one tenant together.
    pub per_tenant: u64,
    /// Of everybody together.
    pub total: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            per_user: 16,
            per_client: 1024,
            per_tenant: u32::MAX,
            total: 100_000,
            permissions: 64,
            channels: 64,
            unauthenticated_replies: 250,
            bandwidth: Bandwidth::default(),
            new_peers: NewPeers::default(),
        }
    }
}

/// What TCP allocations may do (RFC 6062).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpRelay {
    /// Peer connections of one allocation, in whatever state.
    pub connections: usize,
    /// How long a peer has time to accept a connection. RFC 6062 §5.2 wants 30 s at least.
    pub connect_timeout: Duration,
    /// How long a peer connection waits for its ConnectionBind. By RFC 6062 §5.2 it is 30 s.
    pub bind_timeout: Duration,
    /// The ports below 1024 that clients may connect to.
    pub low_ports: Vec<u16>,
}

impl Default for TcpRelay {
    fn default() -> Self {
        Self {
            connections: 8,
            connect_timeout: Duration::from_secs(30),
            bind_timeout: Duration::from_secs(30),
            low_ports: Vec::new(),
        }
    }
}

/// What happens to a running allocation when the credentials it was made with expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExpiry {
    /// Nothing: credentials are judged when an allocation is made, and then no more.
    New,
    /// It cannot be refreshed, so it ends with its lifetime.
    Refresh,
    /// It ends.
    Cut,
}

/// A key that seals nonces.
#[derive(Clone, PartialEq, Eq)]
pub struct NonceKey(pub [u8; 32]);

impl Drop for NonceKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceKey(..)")
    }
}

/// The keys that seal nonces: one issues, all are accepted, so that a key can be changed while clients hold nonces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NonceKeys {
    /// The key of new nonces.
    pub issuing: NonceKey,
    /// Other keys whose nonces are still, or already, accepted.
    pub accepted: Vec<NonceKey>,
}

impl From<NonceKey> for NonceKeys {
    fn from(issuing: NonceKey) -> Self {
        Self {
            issuing,
            accepted: Vec::new(),
        }
    }
}
