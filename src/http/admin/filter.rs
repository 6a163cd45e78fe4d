//! Which sessions the operator means.

use std::net::{IpAddr, SocketAddr};

use super::Problem;
use super::session::user_of;
use super::sessions::Asked;
use crate::turn::{self, FiveTuple, Holder, unescape};

/// A longer text looks for nothing.
const LONGEST_FILTER: usize = 1024;

/// Which sessions are meant.
#[derive(Debug, Default)]
pub(super) struct Filter {
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
    /// # Errors
    /// If what is asked for cannot be understood.
    pub(super) fn of(asked: &Asked) -> Result<Self, Problem> {
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
    pub(super) fn chooses(&self, holder: &Holder<'_>) -> bool {
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

    /// The same by all that it is.
    pub(super) fn fits(&self, session: &turn::Session) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

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
