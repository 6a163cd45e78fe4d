//! `GET /v1/status`: the server in one view.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};

use super::look::SHORTEST;
use super::{Problem, Rate, Seat, unix_now};
use crate::http::DEADLINE;
use crate::metrics::{Direction, Snapshot};
use crate::turn::{Cause, Family, Limit, Refusal, Traffic, Transport};

/// The server in one view.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// Of the server.
    pub version: String,
    /// When it was started, in seconds since 1970.
    pub since: i64,
    /// The same, as a duration in seconds.
    pub uptime: i64,
    /// Whether new calls are welcome.
    pub ready: bool,
    /// Since when they are not, by the operator's wish, in seconds since 1970.
    pub draining_since: Option<i64>,
    /// Whether the last reload of the configuration is not in force, since it was bad.
    pub config_stale: bool,
    /// Likewise for the certificate.
    pub certificate_stale: bool,
    /// Threads that relay.
    pub workers: Workers,
    /// Where clients come in.
    pub listeners: Vec<Entry>,
    /// What peers see.
    pub relays: Vec<IpAddr>,
    /// Ports of relays.
    pub ports: Ports,
    /// Allocations by the client's transport; one with two relays counts twice.
    pub allocations: BTreeMap<String, u64>,
    /// Permissions that live.
    pub permissions: u64,
    /// Channels that live.
    pub channels: u64,
    /// What was relayed to peers.
    pub to_peer: Volume,
    /// What was relayed to clients.
    pub to_client: Volume,
    /// What is relayed.
    pub rate: Option<Rate>,
    /// Packets that went nowhere, by reason; those that happen.
    pub drops: BTreeMap<String, u64>,
    /// Requests whose credentials were refused, by reason; those that happen.
    pub auth_failures: BTreeMap<String, u64>,
    /// How often each limit stood against an allocation; those that did.
    pub limits_reached: BTreeMap<String, u64>,
    /// The names of the secrets that vouch for users, the one to mint with first.
    pub secrets: Vec<String>,
    /// How many users have a password of their own.
    pub users: usize,
    /// The certificate that ends first.
    pub certificate: Option<Certificate>,
    /// Log lines that nobody read in time.
    pub log_lines_dropped: u64,
}

/// Threads that relay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workers {
    /// As configured.
    pub total: u64,
    /// That have answered.
    pub answering: u64,
}

/// Where clients come in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// `udp`, `tcp`, `tls` or `dtls`.
    pub transport: String,
    /// The address.
    pub address: SocketAddr,
}

/// Ports of relays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// Of all relay addresses together.
    pub total: u64,
    /// In use.
    pub used: u64,
}

/// What was relayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Datagrams.
    pub packets: u64,
    /// Their payload, without any header.
    pub bytes: u64,
}

impl From<Traffic> for Volume {
    fn from(Traffic { packets, bytes }: Traffic) -> Self {
        Self { packets, bytes }
    }
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// When it ends, in seconds since 1970.
    pub ends: i64,
    /// Whole days that are left.
    pub days: i64,
}

pub(super) fn routes() -> Router<Arc<Seat>> {
    Router::new().route("/v1/status", get(status))
}

async fn status(State(seat): State<Arc<Seat>>) -> Result<Json<Status>, Problem> {
    Ok(Json(seat.status().await?))
}

impl Seat {
    /// The server in one view.
    ///
    /// # Errors
    /// If the workers do not answer in time.
    pub(super) async fn status(&self) -> Result<Status, Problem> {
        let (snapshot, rate) = self.look_at_totals().await?;
        Ok(self.status_of(&snapshot, rate))
    }

    /// The same, as far as the workers have told already.
    pub(super) fn status_of(&self, snapshot: &Snapshot, rate: Option<Rate>) -> Status {
        let facts = self.facts();
        let flags = &self.flags;
        let now = unix_now() as i64;
        let end = flags.certificate_end.load(Ordering::Relaxed);
        let listeners = facts.listeners.into_iter().map(|(transport, address)| {
            let transport = transport.label().to_owned();
            Entry { transport, address }
        });
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since: flags.started,
            uptime: now - flags.started,
            ready: flags.ready.load(Ordering::Relaxed),
            draining_since: Some(flags.draining_since.load(Ordering::Relaxed))
                .filter(|since| *since != 0),
            config_stale: flags.config_stale.load(Ordering::Relaxed),
            certificate_stale: flags.certificate_stale.load(Ordering::Relaxed),
            workers: Workers {
                total: self.workers,
                answering: snapshot.workers,
            },
            listeners: listeners.collect(),
            relays: facts.relays,
            ports: Ports {
                total: snapshot.ports.total,
                used: snapshot.ports.used,
            },
            allocations: allocations(snapshot),
            permissions: snapshot.census.permissions,
            channels: snapshot.census.channels,
            to_peer: relayed(snapshot, Direction::ToPeer),
            to_client: relayed(snapshot, Direction::ToClient),
            rate,
            drops: that_happen(
                Cause::ALL
                    .iter()
                    .map(|cause| (cause.label(), snapshot.cells.drops(*cause))),
            ),
            auth_failures: that_happen(
                Refusal::ALL
                    .iter()
                    .filter(|refusal| !IS_NO_FAILURE.contains(refusal))
                    .map(|refusal| (refusal.label(), snapshot.cells.refusals(*refusal))),
            ),
            limits_reached: that_happen(
                Limit::ALL
                    .iter()
                    .map(|limit| (limit.label(), snapshot.rejected[limit.index()])),
            ),
            secrets: facts.secrets,
            users: facts.users,
            certificate: (end != 0).then(|| Certificate {
                ends: end,
                days: (end - now).div_euclid(24 * 3600),
            }),
            log_lines_dropped: flags.log_lines_dropped.load(Ordering::Relaxed),
        }
    }

    /// The counters of all workers, and what is relayed, from two looks.
    async fn look_at_totals(&self) -> Result<(Snapshot, Option<Rate>), Problem> {
        let mut looks = self.totals.lock().await;
        let mut snapshot = self.snapshot().await?;
        if looks.is_due(Instant::now()) {
            looks.put(Instant::now(), bits(&snapshot));
        }
        if !looks.tells() {
            sleep(SHORTEST).await;
            snapshot = self.snapshot().await?;
            looks.put(Instant::now(), bits(&snapshot));
        }
        let rate = looks.rate(&()).map(Rate::from);
        Ok((snapshot, rate))
    }

    /// What the workers have counted.
    ///
    /// # Errors
    /// If they do not answer in time.
    pub(super) async fn snapshot(&self) -> Result<Snapshot, Problem> {
        let asked = timeout(DEADLINE, self.plane.snapshot()).await;
        asked.map_err(|_| Problem::unavailable("the workers do not answer in time"))
    }
}

/// What every client meets on its way in.
const IS_NO_FAILURE: [Refusal; 2] = [Refusal::NoIntegrity, Refusal::StaleNonce];

fn bits(snapshot: &Snapshot) -> HashMap<(), [u64; 2]> {
    let bits = Direction::ALL.map(|direction| relayed(snapshot, direction).bytes * 8);
    HashMap::from([((), bits)])
}

fn allocations(snapshot: &Snapshot) -> BTreeMap<String, u64> {
    let count = |transport: Transport| snapshot.census.allocations[transport.index()].iter().sum();
    Transport::ALL
        .map(|transport| (transport.label().to_owned(), count(transport)))
        .into()
}

fn relayed(snapshot: &Snapshot, direction: Direction) -> Volume {
    let mut sum = Volume::default();
    for transport in Transport::ALL {
        for family in Family::ALL {
            let traffic = snapshot.cells.traffic(direction, transport, family);
            sum.packets += traffic.packets;
            sum.bytes += traffic.bytes;
        }
    }
    sum
}

fn that_happen(counts: impl Iterator<Item = (&'static str, u64)>) -> BTreeMap<String, u64> {
    counts
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}
