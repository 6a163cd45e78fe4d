//! The machine: what comes in, and who deals with it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::{
    Cause, Census, Client, Event, FiveTuple, Now, Quotas, RelayId, Relays, Settings, Verdict,
};

/// The protocol machine of one worker.
#[derive(Debug)]
pub struct Server {
    settings: Arc<Settings>,
    quotas: Arc<Quotas>,
    seed: [u8; 32],
    epoch: Now,
    draining: bool,
    events: VecDeque<Event>,
}

impl Server {
    /// A machine without allocations.
    ///
    /// `seed` must be unpredictable, and different for each machine. `quotas` and `epoch` must be the same for all
    /// machines of a process: nonces count the seconds from `epoch.unix` along the monotonic clock.
    pub fn new(settings: Arc<Settings>, quotas: Arc<Quotas>, seed: [u8; 32], epoch: Now) -> Self {
        Self {
            settings,
            quotas,
            seed,
            epoch,
            draining: false,
            events: VecDeque::new(),
        }
    }

    /// Puts other settings into force. Permissions and channels of peers that they close are gone at once.
    pub fn replace_settings(
        &mut self,
        _now: Now,
        settings: Arc<Settings>,
        _relays: &mut impl Relays,
    ) {
        self.settings = settings;
    }

    /// Takes in a datagram, or one framed message of a stream, from a client. An answer is appended to `reply`.
    pub fn client_input(
        &mut self,
        _now: Now,
        _from: Client,
        _bytes: &[u8],
        _relays: &mut impl Relays,
        _reply: &mut Vec<u8>,
    ) -> Verdict {
        Verdict::Drop(Cause::NotTurn)
    }

    /// Takes in a datagram of `len` bytes that `peer` sent to a relay.
    pub fn peer_input(
        &mut self,
        _now: Now,
        _relay: RelayId,
        _peer: SocketAddr,
        _len: usize,
    ) -> Verdict {
        Verdict::Drop(Cause::UnknownRelay)
    }

    /// Ends the allocation of a client whose connection was closed.
    pub fn client_gone(&mut self, _now: Now, _five_tuple: &FiveTuple, _relays: &mut impl Relays) {}

    /// Ends the allocations whose time has come. To be called at [`Server::poll_timeout`] or soon after.
    pub fn handle_timeout(&mut self, _now: Now, _relays: &mut impl Relays) {}

    /// When [`Server::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The next thing that the outside must know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether new allocations are refused (508). Everything else goes on.
    pub fn drain(&mut self, on: bool) {
        self.draining = on;
    }

    /// What the machine holds. Walks over all of it.
    pub fn census(&self, _now: Now) -> Census {
        Census::default()
    }

    /// Whether there is no allocation.
    pub fn is_empty(&self) -> bool {
        true
    }

    /// Whether a client has an allocation.
    pub fn has_allocation(&self, _five_tuple: &FiveTuple) -> bool {
        false
    }
}
