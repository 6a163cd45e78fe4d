//! How often each shared secret has vouched for a client: tells when an old one can go.

use super::Users;
use super::authenticate::User;
use super::server::Server;

/// Counters in the order of the secrets in force.
#[derive(Default)]
pub(super) struct SecretUses([u64; Users::MAX_SECRETS]);

impl SecretUses {
    /// Counts a login.
    pub(super) fn count(&mut self, user: &User<'_>) {
        if let Some(uses) = user.secret.and_then(|place| self.0.get_mut(place)) {
            *uses += 1;
        }
    }

    /// The same for other users: a secret that stays keeps its count.
    pub(super) fn of_others(&self, old: &Users, new: &Users) -> Self {
        let mut uses = Self::default();
        for (count, id) in uses.0.iter_mut().zip(new.secret_ids()) {
            let before = self.by_id(old).find(|(known, _)| *known == id);
            *count = before.map_or(0, |(_, count)| count);
        }
        uses
    }

    fn by_id<'a>(&'a self, users: &'a Users) -> impl Iterator<Item = (&'a str, u64)> {
        users.secret_ids().zip(self.0)
    }
}

impl Server {
    /// How many Allocate requests each shared secret in force has vouched for, by the operator's names of them.
    pub fn secret_uses(&self) -> impl Iterator<Item = (&str, u64)> {
        self.secret_uses.by_id(&self.settings.users)
    }
}
