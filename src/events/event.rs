//! What is told of a session: one line of JSON.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::Serialize;

use crate::plane::{Sighted, Sighting};
use crate::turn::{Allocated, Ended, Issued, Session, Traffic};

/// A line.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    /// The same whenever this event is told, and no other's.
    id: String,
    event: &'static str,
    /// In seconds since 1970.
    time: u64,
    session: String,
    user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    client: SocketAddr,
    transport: &'static str,
    relays: Vec<SocketAddr>,
    /// Of a session that begins: how long it lives unless it is refreshed.
    #[serde(skip_serializing_if = "Option::is_none")]
    lifetime: Option<u64>,
    /// From here on of one that goes on or has ended: how long it has lived,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_peer: Option<Volume>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_client: Option<Volume>,
    /// and why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// What went one way since the session began.
#[derive(Debug, Serialize)]
struct Volume {
    packets: u64,
    bytes: u64,
}

impl From<Traffic> for Volume {
    fn from(traffic: Traffic) -> Self {
        Self {
            packets: traffic.packets,
            bytes: traffic.bytes,
        }
    }
}

impl Line {
    /// Of what a worker has seen.
    pub(super) fn of(sighting: &Sighting) -> Self {
        let Sighting {
            unix, tenant, what, ..
        } = sighting;
        match what {
            Sighted::Began(allocated) => Self::start(allocated, *unix, tenant.clone()),
            Sighted::Ended(ended) => Self::end(ended, *unix, tenant.clone()),
        }
    }

    fn start(allocated: &Allocated, time: u64, tenant: Option<String>) -> Self {
        let session = allocated.session;
        Self {
            id: format!("{session}-start"),
            event: "start",
            time,
            session: session.to_string(),
            user: name(&allocated.username),
            tenant,
            client: allocated.five_tuple.client,
            transport: allocated.five_tuple.transport.label(),
            relays: allocated.relays.iter().map(|(_, relay)| *relay).collect(),
            lifetime: Some(allocated.lifetime.as_secs()),
            seconds: None,
            to_peer: None,
            to_client: None,
            reason: None,
        }
    }

    fn end(ended: &Ended, time: u64, tenant: Option<String>) -> Self {
        let session = ended.session;
        Self {
            id: format!("{session}-end"),
            event: "end",
            time,
            session: session.to_string(),
            user: name(&ended.username),
            tenant,
            client: ended.five_tuple.client,
            transport: ended.five_tuple.transport.label(),
            relays: ended.relays.iter().map(|(_, relay)| *relay).collect(),
            lifetime: None,
            seconds: Some(ended.age.as_secs()),
            to_peer: Some(ended.to_peer.into()),
            to_client: Some(ended.to_client.into()),
            reason: Some(ended.reason.label()),
        }
    }

    /// Of a session that goes on.
    pub(super) fn interim(session: &Session, time: u64) -> Self {
        let (id, seconds) = (session.id, session.age.as_secs());
        Self {
            // By milliseconds: two may be told of within one second.
            id: format!("{id}-{}", session.age.as_millis()),
            event: "interim",
            time,
            session: id.to_string(),
            user: name(&session.username),
            tenant: tenant(session),
            client: session.five_tuple.client,
            transport: session.five_tuple.transport.label(),
            relays: session.relays.clone(),
            lifetime: None,
            seconds: Some(seconds),
            to_peer: Some(session.to_peer.into()),
            to_client: Some(session.to_client.into()),
            reason: None,
        }
    }

    /// Tells the client's network only, and no port.
    pub(super) fn anonymize(&mut self) {
        self.client = anonymous(self.client);
    }
}

/// A client's network, and no port.
pub(super) fn anonymous(client: SocketAddr) -> SocketAddr {
    let network = match client.ip() {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & !0xff)),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !0 << 80)),
    };
    SocketAddr::new(network, 0)
}

/// Whose customer the user is. Only a name that was vouched for is taken apart into tenant and person.
fn tenant(session: &Session) -> Option<String> {
    let Issued {
        tenant, subject, ..
    } = Issued::parse(&session.username)?.ok()?;
    let is_vouched_for = *session.person == *format!("{tenant}~{subject}").as_bytes();
    (is_vouched_for && !tenant.is_empty()).then(|| tenant.to_owned())
}

/// A username, which is the client's word.
pub(super) fn name(username: &[u8]) -> String {
    username.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_anonymous_client_the_network_is_left() {
        let allocated = |client: &str| {
            let client = client.parse().unwrap();
            let allocated = Allocated {
                session: crate::turn::SessionId(7),
                username: b"ann\n"[..].into(),
                tenant: None,
                five_tuple: crate::turn::FiveTuple {
                    transport: crate::turn::Transport::Udp,
                    client,
                    server: client,
                },
                relays: Vec::new(),
                lifetime: std::time::Duration::from_secs(600),
            };
            let mut line = Line::start(&allocated, 1, None);
            line.anonymize();
            assert_eq!(line.user, "ann\\n");
            line.client.to_string()
        };
        assert_eq!(allocated("198.51.100.7:4000"), "198.51.100.0:0");
        assert_eq!(allocated("[2001:db8:1:2:3:4:5:6]:4000"), "[2001:db8:1::]:0");
    }
}
