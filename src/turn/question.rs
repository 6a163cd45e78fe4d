//! Whom a question is about.

use std::net::{IpAddr, SocketAddr};

use super::username::{Issued, unescape};
use super::{Holder, Rebuff, SessionId};

/// Whom a question is about: everything that is said must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// A session.
    pub session: Option<SessionId>,
    /// A user: by the whole name of a credential, or by the part of it that names the person.
    pub user: Option<String>,
    /// A client's address,
    pub client: Option<IpAddr>,
    /// and port.
    pub client_port: Option<u16>,
    /// What it has to do with this peer.
    pub peer: Option<IpAddr>,
}

impl Question {
    /// Whether it is about a session.
    pub fn fits(&self, holder: &Holder<'_>) -> bool {
        self.session.is_none_or(|id| id == holder.session)
            && self.is_client(holder.five_tuple.client)
            && self.is_user(holder.username)
    }

    /// Whether it is about somebody who was refused. Who asks about a session does not ask about those who have none.
    pub fn fits_refused(&self, refused: &Rebuff) -> bool {
        self.session.is_none()
            && self.is_client(refused.five_tuple.client)
            && self.is_user(&refused.username)
    }

    fn is_client(&self, client: SocketAddr) -> bool {
        self.client.is_none_or(|ip| ip == client.ip())
            && self.client_port.is_none_or(|port| port == client.port())
    }

    fn is_user(&self, name: &[u8]) -> bool {
        self.user.as_deref().is_none_or(|user| names(name, user))
    }
}

/// Whether a username stands for a user: `ann`, `expiry:ann`, `expiry:kid~tenant~ann~claims`, and for a user of a
/// tenant, `tenant~ann`. A name that was cut in its claims is still known.
fn names(name: &[u8], user: &str) -> bool {
    let Ok(name) = std::str::from_utf8(name) else {
        return false;
    };
    if name == user {
        return true;
    }
    let Some((_, rest)) = name.split_once(':') else {
        return false;
    };
    if rest == user {
        return true;
    }
    let claims = rest.match_indices('~').nth(2);
    let bare = claims.map_or(name, |(at, _)| &name[..name.len() - rest.len() + at]);
    let Some(Ok(Issued {
        tenant, subject, ..
    })) = Issued::parse(bare.as_bytes())
    else {
        return false;
    };
    let is_of_tenant = || {
        let of = user.split_once('~');
        of.is_some_and(|(of, user)| of == tenant && is_subject(subject, user))
    };
    is_subject(subject, user) || is_of_tenant()
}

fn is_subject(subject: &str, user: &str) -> bool {
    subject == user || unescape(subject) == user
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_known_by_any_part_of_the_name_that_is_the_users() {
        for (name, user) in [
            ("ann", "ann"),
            ("1800000000:ann", "ann"),
            ("1800000000:ann", "1800000000:ann"),
            ("1800000000:k1~acme~ann~t60~jx", "ann"),
            ("1800000000:k1~acme~ann~t60~jx", "acme~ann"),
            ("1800000000:k1~acme~8_3aann", "8:ann"),
            ("1800000000:k1~~ann~t60~b40", "ann"),
            ("1800000000:k1~acme~ann~t6~", "ann"),
        ] {
            assert!(names(name.as_bytes(), user), "{name} {user}");
        }
        for (name, user) in [
            ("ann", "an"),
            ("1800000000:ann", "1800000000"),
            ("1800000000:k1~acme~ann", "acme"),
            ("1800000000:k1~acme~ann", "other~ann"),
            ("1800000000:k1~acme~ann", "k1"),
        ] {
            assert!(!names(name.as_bytes(), user), "{name} {user}");
        }
        assert!(!names(b"\xff", "ann"));
    }
}
