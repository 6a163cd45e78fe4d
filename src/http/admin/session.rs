//! What a session looks like to the operator.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::status::Volume;
use crate::turn::{self, RelayProtocol, unescape};

/// An allocation.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Session {
    /// Its name, for all time.
    pub id: String,
    /// The USERNAME of its client.
    pub username: String,
    /// The user, whatever credential was used; as the one who issued it wrote it.
    pub user: String,
    /// Whose customer the user is, if the credential says so.
    pub tenant: Option<String>,
    /// What the credential says beside.
    pub claims: Option<Claims>,
    /// Of the client: `udp`, `tcp`, `tls` or `dtls`.
    pub transport: String,
    /// What it speaks with peers: `udp` or `tcp`.
    pub protocol: String,
    /// Where the client is.
    pub client: Option<SocketAddr>,
    /// Where it came in.
    pub server: Option<SocketAddr>,
    /// Its relayed transport addresses, as peers see them.
    pub relays: Vec<SocketAddr>,
    /// Which program the client is.
    pub software: Software,
    /// How many peers may be heard.
    pub permissions: usize,
    /// How many channels are bound.
    pub channels: usize,
    /// How many connections with peers there are, of a TCP allocation.
    pub connections: usize,
    /// What went to peers.
    pub to_peer: Volume,
    /// What went to the client.
    pub to_client: Volume,
    /// What goes, if that was asked for.
    pub rate: Option<Rate>,
    /// How long it has lived, in seconds.
    pub age: u64,
    /// How long it lives unless it is refreshed, in seconds.
    pub expires_in: u64,
    /// When its credentials end, in seconds since 1970.
    pub credentials_end: Option<u64>,
    /// The last request about it that was refused.
    pub last_refused: Option<RefusedRequest>,
    /// The peers that may be heard. Of one session alone, not in lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Peer>,
    /// The channels that are bound. Likewise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bindings: Vec<Binding>,
}

/// What a credential says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Claims {
    /// The id of the secret that vouches for it.
    pub secret: String,
    /// Its own name.
    pub id: Option<String>,
    /// When it was issued, in seconds since 1970.
    pub issued: Option<u64>,
    /// How many allocations its user may have.
    pub allocations: Option<u32>,
    /// Bits per second of each of them, each way.
    pub bits_per_second: Option<u64>,
    /// Which peers it is for.
    pub policy: Option<String>,
    /// The region it was issued for.
    pub region: Option<String>,
}

/// Which program a client is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Software {
    /// By how it asks.
    pub guess: String,
    /// By what it says.
    pub said: Option<String>,
}

/// Bits per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    /// From clients to peers.
    pub to_peer: u64,
    /// From peers to clients.
    pub to_client: u64,
}

impl Rate {
    /// Both ways together.
    pub fn sum(self) -> u64 {
        self.to_peer + self.to_client
    }
}

impl From<[u64; 2]> for Rate {
    fn from([to_peer, to_client]: [u64; 2]) -> Self {
        Self { to_peer, to_client }
    }
}

/// A request that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedRequest {
    /// What it asked for; nothing if a peer was refused.
    pub method: Option<String>,
    /// The peer that was refused, by a rule.
    pub peer: Option<IpAddr>,
    /// The error code that it was answered with.
    pub code: u16,
    /// How long ago, in seconds.
    pub seconds_ago: u64,
}

/// A peer that may be heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// For how long, in seconds.
    pub expires_in: u64,
}

/// A channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    /// Its number.
    pub channel: u16,
    /// Where it leads.
    pub peer: SocketAddr,
    /// For how long, in seconds.
    pub expires_in: u64,
}

/// The user of a session, whatever credential was used.
pub fn user_of(session: &turn::Session) -> String {
    match session.issued() {
        Some(issued) => unescape(issued.subject).into_owned(),
        None => String::from_utf8_lossy(&session.person).into_owned(),
    }
}

impl Session {
    /// As it was found, with what goes, if that is known.
    pub(super) fn of(session: &turn::Session, rate: Option<Rate>) -> Self {
        let issued = session.issued();
        Self {
            id: session.id.to_string(),
            username: String::from_utf8_lossy(&session.username).into_owned(),
            user: user_of(session),
            tenant: issued
                .as_ref()
                .map(|issued| issued.tenant.to_owned())
                .filter(|tenant| !tenant.is_empty()),
            claims: issued.as_ref().map(Claims::of),
            transport: session.five_tuple.transport.label().to_owned(),
            protocol: match session.protocol {
                RelayProtocol::Udp => "udp",
                RelayProtocol::Tcp => "tcp",
            }
            .to_owned(),
            client: Some(session.five_tuple.client),
            server: Some(session.five_tuple.server),
            relays: session.relays.clone(),
            software: Software {
                guess: session.software.dialect.label().to_owned(),
                said: session.software.said.as_deref().map(str::to_owned),
            },
            permissions: session.permissions.len(),
            channels: session.channels.len(),
            connections: session.connections,
            to_peer: session.to_peer.into(),
            to_client: session.to_client.into(),
            rate,
            age: session.age.as_secs(),
            expires_in: session.left.as_secs(),
            credentials_end: session.credentials_expire,
            last_refused: session.refused.map(|refused| RefusedRequest {
                method: refused.method.map(|method| method.to_string()),
                peer: refused.peer,
                code: refused.code,
                seconds_ago: session.age.as_secs().saturating_sub(refused.age.into()),
            }),
            peers: Vec::new(),
            bindings: Vec::new(),
        }
    }
}

impl Claims {
    fn of(issued: &turn::Issued<'_>) -> Self {
        let text = |word: Option<&str>| word.map(str::to_owned);
        let claims = &issued.claims;
        Self {
            secret: issued.kid.to_owned(),
            id: text(claims.id),
            issued: issued.issued_at(),
            allocations: claims.allocations,
            bits_per_second: claims.bits_per_second,
            policy: text(claims.policy),
            region: text(claims.region),
        }
    }
}
