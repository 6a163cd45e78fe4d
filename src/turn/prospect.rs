//! What becomes of a session when other settings come into force: for the operator, beforehand.

use std::net::IpAddr;

use super::{OnExpiry, Session, Settings};

/// What becomes of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prospect {
    /// It ends at once.
    pub ends: bool,
    /// Whether its client can go on to log in, and so keep it.
    pub login: Login,
    /// Peers that it has, and loses.
    pub closed: Vec<IpAddr>,
}

/// Whether credentials that are accepted go on to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// They do.
    Stays,
    /// They do not.
    Ends,
    /// That depends on which of several secrets they were made with.
    Unclear,
}

impl Prospect {
    /// Whether anything changes.
    pub fn is_change(&self) -> bool {
        self.ends || self.login != Login::Stays || !self.closed.is_empty()
    }
}

impl Session {
    /// What becomes of it when `new` comes into force in the place of `old`, at this time in seconds since 1970.
    pub fn prospect(&self, old: &Settings, new: &Settings, unix: u64) -> Prospect {
        let cut = new.on_expiry == OnExpiry::Cut;
        // The names of those who come by an access token ask for no policy.
        let tenant = self.tenant.as_deref();
        let before = old.policy(&old.recalled(&self.username, tenant));
        let after = new.policy(&new.recalled(&self.username, tenant));
        let peers = self.permissions.iter().map(|(peer, _)| *peer);
        let channels = self.channels.iter().map(|(_, peer, _)| peer.ip());
        let mut closed: Vec<IpAddr> = peers
            .chain(channels)
            .filter(|peer| !after.keeps(*peer, before))
            .collect();
        closed.sort_unstable();
        closed.dedup();
        Prospect {
            ends: cut && self.credentials_expire.is_some_and(|end| end <= unix),
            login: self.login(old, new),
            closed,
        }
    }

    fn login(&self, old: &Settings, new: &Settings) -> Login {
        let tenant = self.tenant.as_deref();
        let users = |settings| Settings::judges(settings, &self.username, tenant);
        let (before, after) = (users(old), users(new));
        if before.realm() != after.realm() {
            return Login::Unclear;
        }
        if let Some(login) = after.login(before, &self.username) {
            return login;
        }
        // By an access token.
        match new.third_party {
            Some(_) => Login::Stays,
            None => Login::Ends,
        }
    }
}
