//! Peer connections that no client has come for yet, of all workers.
//!
//! A connection is claimed once, by the user and from the address that it is kept for, and within its time
//! (\[6062-3\], A35).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::PeerConnection;
use crate::turn::{Addressee, Claimant, ConnectionId};

/// A connection that waits.
struct Waiting {
    connection: PeerConnection,
    owner: u64,
    client: IpAddr,
    expires: Instant,
}

/// The peer connections of the whole server that nobody has claimed.
#[derive(Default)]
pub(in crate::plane) struct Unclaimed {
    waiting: Mutex<HashMap<ConnectionId, Waiting>>,
}

impl Unclaimed {
    /// Keeps a connection; gives it back if there is another one of this name.
    pub(super) fn insert(
        &self,
        id: ConnectionId,
        connection: PeerConnection,
        addressee: &Addressee,
    ) -> Result<(), PeerConnection> {
        match self.waiting().entry(id) {
            Entry::Occupied(_) => Err(connection),
            Entry::Vacant(place) => {
                place.insert(Waiting {
                    connection,
                    owner: addressee.owner,
                    client: addressee.client.five_tuple.client.ip(),
                    expires: addressee.expires,
                });
                Ok(())
            }
        }
    }

    /// Hands a connection over, if it is there for this claimant.
    pub(super) fn take(&self, id: ConnectionId, claimant: Claimant) -> Option<PeerConnection> {
        let mut waiting = self.waiting();
        let kept = waiting.get_mut(&id)?;
        let fits = kept.owner == claimant.owner
            && kept.client == claimant.client
            && kept.expires > claimant.now
            && !kept.connection.is_cut();
        fits.then(|| waiting.remove(&id))?
            .map(|kept| kept.connection)
    }

    /// Closes one that its allocation has let go of; another allocation's stays.
    pub(super) fn remove_cut(&self, id: ConnectionId) {
        if let Entry::Occupied(mut kept) = self.waiting().entry(id)
            && kept.get_mut().connection.is_cut()
        {
            kept.remove();
        }
    }

    /// Closes what nobody came for in time.
    pub(in crate::plane) fn expire(&self, now: Instant) {
        self.waiting()
            .retain(|_, kept| kept.expires > now && !kept.connection.is_cut());
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<ConnectionId, Waiting>> {
        // A panic elsewhere cannot leave the map half-changed: each change is one call.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
