//! `/v1/sessions`: the allocations, as a list and one by one, and how they are ended.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::status::Volume;
use super::{Problem, Seat};
use crate::turn::{self, EndReason, FiveTuple, Holder, RelayProtocol, SessionId, unescape};

/// How many are listed if nobody says.
const LISTED: usize = 100;
/// The most that are listed at once.
const MOST_LISTED: usize = 10_000;
/// A longer text looks for nothing.
const LONGEST_FILTER: usize = 1024;

/// Some of the sessions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionList {
    /// The first of those that were asked for, in the order that was asked for.
    pub sessions: Vec<Session>,
    /// How many were asked for, listed or not.
    pub matching: usize,
    /// How many there are.
    pub total: usize,
}

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

/// How many sessions were ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kicked {
    /// So many.
    pub ended: usize,
}

/// What is looked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    user: Option<String>,
    tenant: Option<String>,
    client: Option<String>,
    relay: Option<String>,
    search: Option<String>,
    limit: Option<usize>,
    sort: Order,
    rates: bool,
}

/// Which come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Order {
    #[default]
    New,
    Old,
    Rate,
    Bytes,
    Packets,
}

pub(super) fn routes() -> Router<Arc<Seat>> {
    Router::new()
        .route("/v1/sessions", get(list).delete(kick_all))
        .route("/v1/sessions/{id}", get(one).delete(kick))
}

async fn list(
    State(seat): State<Arc<Seat>>,
    Query(asked): Query<Asked>,
) -> Result<Json<SessionList>, Problem> {
    let limit = asked.limit.unwrap_or(LISTED);
    if limit > MOST_LISTED {
        return Err(Problem::bad_request(format!(
            "limit: at most {MOST_LISTED}"
        )));
    }
    let filter = Filter::of(&asked)?;
    let looks = if asked.rates || asked.sort == Order::Rate {
        Some(seat.look_at_sessions().await)
    } else {
        None
    };
    let rate = |id| looks.as_ref().and_then(|looks| looks.rate(&id));
    let mut best = Best::new(limit);
    let (mut matching, mut total) = (0, 0);
    let see = |session: turn::Session| {
        total += 1;
        if filter.fits(&session) {
            matching += 1;
            let rate = rate(session.id).map(Rate::from);
            best.offer(asked.sort.rank(&session, rate), (session, rate));
        }
        true
    };
    if !seat.plane.each_session(|_| true, see).await {
        // Not a list that looks whole and is not.
        return Err(Problem::unavailable("a worker does not answer"));
    }
    drop(looks);
    let sessions = best.sorted().into_iter();
    let sessions = sessions.map(|(session, rate)| Session::of(&session, rate));
    Ok(Json(SessionList {
        sessions: sessions.collect(),
        matching,
        total,
    }))
}

async fn one(
    State(seat): State<Arc<Seat>>,
    Path(id): Path<String>,
) -> Result<Json<Session>, Problem> {
    let id = id_of(&id)?;
    let rate = seat.look_at_sessions().await.rate(&id);
    let found = seat.plane.sessions(move |holder| holder.session == id, 1);
    let found = found.await.pop().ok_or_else(|| gone(id))?;
    let mut session = Session::of(&found, rate.map(Rate::from));
    let peers = found.permissions.iter();
    session.peers = peers
        .map(|(address, left)| Peer {
            address: *address,
            expires_in: left.as_secs(),
        })
        .collect();
    let channels = found.channels.iter();
    session.bindings = channels
        .map(|(channel, peer, left)| Binding {
            channel: *channel,
            peer: *peer,
            expires_in: left.as_secs(),
        })
        .collect();
    Ok(Json(session))
}

async fn kick(
    State(seat): State<Arc<Seat>>,
    Path(id): Path<String>,
) -> Result<Json<Kicked>, Problem> {
    let id = id_of(&id)?;
    let which = move |holder: &Holder<'_>| holder.session == id;
    match seat.plane.end_sessions(EndReason::Kicked, which).await {
        0 => Err(gone(id)),
        ended => Ok(Json(Kicked { ended })),
    }
}

async fn kick_all(
    State(seat): State<Arc<Seat>>,
    Query(asked): Query<Asked>,
) -> Result<Json<Kicked>, Problem> {
    let narrow = [&asked.user, &asked.tenant, &asked.client];
    if narrow.iter().all(|word| word.is_none()) {
        return Err(Problem::bad_request("whose? say user, tenant or client"));
    }
    if asked.relay.is_some() || asked.search.is_some() {
        let detail = "sessions are ended by user, tenant and client, or one by one";
        return Err(Problem::bad_request(detail));
    }
    let filter = Filter::of(&asked)?;
    let which = move |holder: &Holder<'_>| filter.chooses(holder);
    let ended = seat.plane.end_sessions(EndReason::Kicked, which).await;
    Ok(Json(Kicked { ended }))
}

fn id_of(text: &str) -> Result<SessionId, Problem> {
    text.parse()
        .map_err(|error: turn::NotASession| Problem::bad_request(error.to_string()))
}

fn gone(id: SessionId) -> Problem {
    Problem::not_found(format!("there is no session {id}, or not any more"))
}

/// Which sessions are meant.
#[derive(Debug, Default)]
struct Filter {
    user: Option<String>,
    tenant: Option<String>,
    client: Option<Place>,
    relay: Option<Place>,
    search: Option<String>,
}

/// An address, with a port or any, or a port alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    ip: Option<IpAddr>,
    port: Option<u16>,
}

impl Place {
    fn of(text: &str) -> Result<Self, Problem> {
        let (ip, port) = match (text.parse::<SocketAddr>(), text.parse::<IpAddr>()) {
            (Ok(address), _) => (Some(address.ip()), Some(address.port())),
            (Err(_), Ok(ip)) => (Some(ip), None),
            (Err(_), Err(_)) => {
                let port = text.parse().map_err(|_| {
                    let detail = format!(
                        "`{text}` is no address, as 192.0.2.1 or 192.0.2.1:5000, and no port"
                    );
                    Problem::bad_request(detail)
                })?;
                (None, Some(port))
            }
        };
        Ok(Self { ip, port })
    }

    fn is(self, address: SocketAddr) -> bool {
        self.ip.is_none_or(|ip| ip == address.ip())
            && self.port.is_none_or(|port| port == address.port())
    }
}

impl Filter {
    fn of(asked: &Asked) -> Result<Self, Problem> {
        let Asked {
            user,
            tenant,
            client,
            relay,
            search,
            ..
        } = asked;
        let texts = [user, tenant, client, relay, search];
        let mut texts = texts.into_iter().flatten();
        if texts.any(|text| text.len() > LONGEST_FILTER) {
            return Err(Problem::bad_request("this is too long to look for"));
        }
        let place = |text: &Option<String>| text.as_deref().map(Place::of).transpose();
        Ok(Self {
            user: user.clone(),
            tenant: tenant.clone(),
            client: place(client)?,
            relay: place(relay)?,
            search: search.as_deref().map(str::to_lowercase),
        })
    }

    /// Whether a session is chosen by whose it is.
    fn chooses(&self, holder: &Holder<'_>) -> bool {
        let issued = holder.issued.as_ref();
        let named = |user: &String| {
            let subject = issued.map(|issued| issued.subject);
            holder.username == user.as_bytes()
                || holder.person == user.as_bytes()
                || subject.is_some_and(|subject| subject == user || unescape(subject) == *user)
        };
        self.user.as_ref().is_none_or(named)
            && self
                .tenant
                .as_ref()
                .is_none_or(|tenant| issued.is_some_and(|issued| issued.tenant == tenant))
            && self
                .client
                .is_none_or(|place| place.is(holder.five_tuple.client))
    }

    fn fits(&self, session: &turn::Session) -> bool {
        self.chooses(&session.holder())
            && self
                .relay
                .is_none_or(|place| session.relays.iter().any(|relay| place.is(*relay)))
            && self.search.as_ref().is_none_or(|part| holds(session, part))
    }
}

/// Whether a part of it reads like this.
fn holds(session: &turn::Session, part: &str) -> bool {
    let FiveTuple {
        transport, client, ..
    } = session.five_tuple;
    let places = std::iter::once(client).chain(session.relays.iter().copied());
    String::from_utf8_lossy(&session.username)
        .to_lowercase()
        .contains(part)
        || user_of(session).to_lowercase().contains(part)
        || session.id.to_string().contains(part)
        || transport.label() == part
        || session.software.dialect.label().contains(part)
        || places
            .into_iter()
            .any(|place| place.to_string().contains(part))
}

/// The user of a session, whatever credential was used.
pub fn user_of(session: &turn::Session) -> String {
    match session.issued() {
        Some(issued) => unescape(issued.subject).into_owned(),
        None => String::from_utf8_lossy(&session.person).into_owned(),
    }
}

impl Order {
    /// Those with the highest rank come first; sessions of one rank by their names.
    fn rank(self, session: &turn::Session, rate: Option<Rate>) -> (u64, u64) {
        let age = session.age.as_millis() as u64;
        let (there, back) = (session.to_peer, session.to_client);
        let rank = match self {
            Self::New => u64::MAX - age,
            Self::Old => age,
            Self::Rate => rate.map_or(0, Rate::sum),
            Self::Bytes => there.bytes + back.bytes,
            Self::Packets => there.packets + back.packets,
        };
        (rank, session.id.0)
    }
}

/// The few of many with the highest rank: no more than those are held.
struct Best<T> {
    most: usize,
    held: BinaryHeap<Ranked<T>>,
}

/// The greatest is the one to let go of first.
struct Ranked<T>(Reverse<(u64, u64)>, T);

impl<T> PartialEq for Ranked<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T> Eq for Ranked<T> {}

impl<T> PartialOrd for Ranked<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Ranked<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl<T> Best<T> {
    fn new(most: usize) -> Self {
        Self {
            most,
            held: BinaryHeap::new(),
        }
    }

    fn offer(&mut self, rank: (u64, u64), value: T) {
        self.held.push(Ranked(Reverse(rank), value));
        if self.held.len() > self.most {
            self.held.pop();
        }
    }

    fn sorted(self) -> Vec<T> {
        let sorted = self.held.into_sorted_vec();
        sorted.into_iter().map(|Ranked(_, value)| value).collect()
    }
}

impl Session {
    fn of(session: &turn::Session, rate: Option<Rate>) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_many_are_kept_in_order() {
        let mut best = Best::new(3);
        for number in [5_u64, 1, 9, 7, 3, 8] {
            best.offer((number, 0), number);
            assert!(best.held.len() <= 3);
        }
        assert_eq!(best.sorted(), [9, 8, 7]);
        let mut none = Best::new(0);
        none.offer((1, 1), ());
        assert!(none.sorted().is_empty());
    }

    #[test]
    fn a_place_is_an_address_a_port_or_both() {
        let address: SocketAddr = "192.0.2.1:5000".parse().unwrap();
        for fits in ["192.0.2.1", "192.0.2.1:5000", "5000"] {
            assert!(Place::of(fits).unwrap().is(address), "{fits}");
        }
        for other in ["192.0.2.2", "192.0.2.1:5001", "5001", "::1"] {
            assert!(!Place::of(other).unwrap().is(address), "{other}");
        }
        for bad in ["", "alice", "192.0.2.1:", "70000"] {
            assert_eq!(Place::of(bad).unwrap_err().status, 400, "{bad}");
        }
    }
}
