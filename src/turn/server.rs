//! The machine: what comes in, and who deals with it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};

use crate::stun::{Class, Kind, Message, Method, ParseError};

use super::account::Past;
use super::allocation::{Allocation, AllocationId, Allocations, Owner};
use super::authenticate::User;
use super::elsewhere::Elsewhere;
use super::keys;
use super::nonce::{Nonce, Nonces, Origin};
use super::offer::Offer;
use super::refused::Refusals;
use super::reply_budget::ReplyBudget;
use super::request::Request;
use super::response::{self, Reject, Success};
use super::secret_use::SecretUses;
use super::terms;
use super::ticket::Tickets;
use super::trail::Fact;
use super::{
    Cause, Census, Client, EndReason, Ended, Event, Family, FiveTuple, NatDiscovery, Now, OnExpiry,
    Path, Quotas, Reach, Relays, Revocations, Settings, TicketKey, Verdict, WorkerId,
};

/// The protocol machine of one worker.
pub struct Server {
    pub(super) settings: Arc<Settings>,
    /// How often the settings were replaced.
    generation: u32,
    nonces: Nonces,
    budget: ReplyBudget,
    epoch: Now,
    /// As at the beginning: there are sockets for it.
    pub(super) discovery: Vec<NatDiscovery>,
    pub(super) quotas: Arc<Quotas>,
    pub(super) random: StdRng,
    pub(super) draining: bool,
    /// By which tenants' doors clients came in, where that is not seen from the listener.
    pub(super) doors: HashMap<Path, Box<str>, RandomState>,
    pub(super) revocations: Arc<Revocations>,
    pub(super) secret_uses: SecretUses,
    pub(super) allocations: Allocations,
    pub(super) tickets: Tickets,
    pub(super) elsewhere: Elsewhere,
    pub(super) events: VecDeque<Event>,
    pub(super) past: Past,
    pub(super) refusals: Refusals,
}

impl Server {
    /// A machine without allocations.
    ///
    /// `seed` must be unpredictable, and different for each machine. `quotas` and `epoch` must be the same for all
    /// machines of a process: nonces count the seconds from `epoch.unix` along the monotonic clock.
    pub fn new(settings: Arc<Settings>, quotas: Arc<Quotas>, seed: [u8; 32], epoch: Now) -> Self {
        let rate = settings.limits.unauthenticated_replies;
        let mut random = StdRng::from_seed(seed);
        let ticket_key = TicketKey(random.random());
        quotas.set_total_rate(terms::total_rate(&settings.limits));
        Self {
            generation: 0,
            nonces: Nonces::new(&settings.nonce_keys),
            budget: ReplyBudget::new(rate, epoch.instant),
            discovery: settings.nat_discovery.clone(),
            settings,
            epoch,
            quotas,
            random,
            draining: false,
            doors: HashMap::default(),
            revocations: Arc::default(),
            secret_uses: SecretUses::default(),
            allocations: Allocations::default(),
            tickets: Tickets::new(WorkerId(0), &ticket_key),
            elsewhere: Elsewhere::default(),
            events: VecDeque::new(),
            past: Past::default(),
            refusals: Refusals::default(),
        }
    }

    /// Makes it one of several machines, among which clients may move: `worker` is its number, and no other's;
    /// `ticket_key` is the same for all.
    #[must_use]
    pub fn among(self, worker: WorkerId, ticket_key: &TicketKey) -> Self {
        Self {
            tickets: Tickets::new(worker, ticket_key),
            ..self
        }
    }

    /// Puts other settings into force.
    ///
    /// Permissions and channels of peers that they close are gone at once, and with [`OnExpiry::Cut`] so are
    /// allocations whose credentials have expired. Rates apply to what runs, counts that have become smaller to what is
    /// new.
    pub fn replace_settings(
        &mut self,
        now: Now,
        settings: Arc<Settings>,
        relays: &mut impl Relays,
    ) {
        let old = std::mem::replace(&mut self.settings, settings);
        let new = Arc::clone(&self.settings);
        self.generation = self.generation.wrapping_add(1);
        self.nonces = Nonces::new(&new.nonce_keys);
        self.secret_uses = self.secret_uses.of_others(&old.users, &new.users);
        if old.limits.unauthenticated_replies != new.limits.unauthenticated_replies {
            let rate = new.limits.unauthenticated_replies;
            self.budget = ReplyBudget::new(rate, now.instant);
        }
        self.quotas.set_total_rate(terms::total_rate(&new.limits));
        for id in self.allocations.ids() {
            let Some(allocation) = self.allocations.get_mut(id) else {
                continue;
            };
            let (before, after) = (
                old.policy_for(&allocation.owner),
                new.policy_for(&allocation.owner),
            );
            let stays = |peer| after.keeps(peer, before);
            let permissions = allocation.permissions().iter(now.instant);
            let permitted = permissions.map(|(peer, _)| peer);
            let closed: Vec<_> = permitted.filter(|peer| !stays(*peer)).collect();
            for ip in closed {
                allocation.note(Fact::Closed { ip }, now.instant);
            }
            allocation.permissions_mut().retain(stays);
            allocation.retain_connections(relays, |peer| stays(peer.ip()));
            allocation.channels.retain(|peer| stays(peer.ip()));
            if new.on_expiry == OnExpiry::Cut {
                let end = now.instant + keys::until_expiry(allocation.owner.expiry, now);
                for relay in allocation.relays_mut() {
                    relay.expires = relay.expires.min(end);
                }
                self.allocations.reschedule(id);
            }
        }
        self.renew_terms(now);
        self.handle_timeout(now, relays);
    }

    /// Puts other revocations into force: for what is made, prolonged or connected from here on. Allocations that exist
    /// already are ended by [`Server::end_sessions`], if they are to end.
    pub fn replace_revocations(&mut self, revocations: Arc<Revocations>) {
        self.revocations = revocations;
    }

    /// Takes in a datagram, or one framed message of a stream, from a client. An answer is appended to `reply`.
    pub fn client_input(
        &mut self,
        now: Now,
        from: Client,
        bytes: &[u8],
        relays: &mut impl Relays,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        match Kind::of(bytes) {
            Kind::ChannelData => self.channel_data(now, from, bytes),
            Kind::Stun => {
                let message = match Message::parse(bytes) {
                    Ok(message) => message,
                    Err(ParseError::Cookie) => {
                        return self.classic(now, from, bytes, relays, reply);
                    }
                    Err(_) => return Verdict::Drop(Cause::Malformed),
                };
                match (message.class(), message.method()) {
                    (Class::Indication, Method::SEND) => self.send(now, from, &message),
                    (Class::Request, _) => self.request(now, from, message, relays, reply),
                    (Class::Indication | Class::Success | Class::Error, _) => {
                        Verdict::Drop(Cause::NotARequest)
                    }
                }
            }
            Kind::Other => Verdict::Drop(Cause::NotTurn),
        }
    }

    /// Ends the allocation of a client whose connection was closed, unless the client has made it through another
    /// connection on the same 5-tuple since, or may come back with a ticket.
    pub fn client_gone(&mut self, now: Now, client: Client, relays: &mut impl Relays) {
        self.doors.remove(&client.path);
        if self.arrival_gone(client) {
            return;
        }
        let Some(id) = self.allocations.by_client(&client.five_tuple) else {
            return;
        };
        let Some(allocation) = self.allocations.get(id) else {
            return;
        };
        if allocation.client.path != client.path {
            return;
        }
        if allocation.mobility.is_some() {
            self.departed(id, now);
        } else {
            self.end(id, EndReason::ConnectionClosed, now, relays);
        }
    }

    /// Ends the allocations whose time has come. To be called at [`Server::poll_timeout`] or soon after.
    pub fn handle_timeout(&mut self, now: Now, relays: &mut impl Relays) {
        while let Some(id) = self.allocations.pop_overdue(now.instant) {
            let Some(allocation) = self.allocations.get(id) else {
                continue;
            };
            if let Some(family) = allocation.overdue_half(now.instant) {
                self.end_half(id, family, relays);
                continue;
            }
            let cut = self.settings.on_expiry == OnExpiry::Cut
                && keys::has_expired(allocation.owner.expiry, now);
            let reason = if cut {
                EndReason::CredentialsExpired
            } else {
                EndReason::Expired
            };
            self.end(id, reason, now, relays);
        }
    }

    /// Refuses new allocations (508), or no longer does. Everything else goes on.
    pub fn drain(&mut self, on: bool) {
        self.draining = on;
    }

    /// The next thing that the outside must know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Server::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.allocations.next_deadline()
    }

    /// What the machine holds. Walks over all of it.
    pub fn census(&self, now: Now) -> Census {
        let mut census = Census::default();
        for allocation in self.allocations.iter() {
            let transport = allocation.client.five_tuple.transport.index();
            for relay in allocation.relays() {
                census.allocations[transport][relay.family().index()] += 1;
            }
            census.tcp_allocations += u64::from(allocation.connections.is_some());
            census.permissions += allocation.permissions().live(now.instant) as u64;
            census.channels += allocation.channels.live(now.instant) as u64;
        }
        census
    }

    /// Whether there is no allocation.
    pub fn is_empty(&self) -> bool {
        self.allocations.is_empty()
    }

    /// Whether a client has an allocation.
    pub fn has_allocation(&self, five_tuple: &FiveTuple) -> bool {
        self.allocations.find(five_tuple).is_some()
    }
}

/// Dispatch of requests.
impl Server {
    fn request(
        &mut self,
        now: Now,
        from: Client,
        message: Message<'_>,
        relays: &mut impl Relays,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        if !self.answers(message.method()) {
            return Verdict::Drop(Cause::UnknownMethod);
        }
        if !has_way_back(from, relays) {
            return Verdict::Drop(Cause::NoWayBack);
        }
        if message.method() != Method::BINDING
            && let Some(worker) = self.elsewhere(now, &from.five_tuple)
        {
            return Verdict::Elsewhere(worker);
        }
        // What is overdue does not count any more, even if the timeout comes late.
        self.handle_timeout(now, relays);
        let settings = Arc::clone(&self.settings);
        let request = Request {
            now,
            from,
            message,
            settings: &settings,
            door: self.door(&settings, from),
        };
        if message.method() == Method::BINDING {
            return self.binding(&request, relays, reply);
        }
        match self.authenticate(&request) {
            Ok(user) => {
                if let Some(worker) = self.home(&request) {
                    return Verdict::Elsewhere(worker);
                }
                if message.method() == Method::ALLOCATE {
                    self.secret_uses.count(&user);
                }
                let outcome = self.carry_out(&request, &user, relays);
                self.note_outcome(&request, &user, &outcome, relays);
                if matches!(outcome, Ok(Success::Later)) {
                    return Verdict::Later;
                }
                Verdict::Reply(response::signed(&outcome, &request, &user, reply))
            }
            Err(denial) => {
                self.note_denial(&request, &denial);
                self.deny(&denial, &request, reply)
            }
        }
    }

    /// Notes what may be asked about later.
    fn note_outcome(
        &mut self,
        request: &Request<'_>,
        user: &User<'_>,
        outcome: &Result<Success, Reject>,
        relays: &impl Relays,
    ) {
        match *outcome {
            Ok(_) => self.note_done(request),
            Err(Reject::WrongCredentials) => {
                self.note_reject(request, user, Reject::WrongCredentials);
            }
            Err(reject) => {
                if !self.note_refusal(request, user, reject, relays) {
                    self.note_reject(request, user, reject);
                }
            }
        }
    }

    /// What TCP allocations need is as unknown as any other method while there are none.
    fn answers(&self, method: Method) -> bool {
        METHODS.contains(&method)
            || self.settings.tcp_relay.is_some() && TCP_METHODS.contains(&method)
    }

    /// RFC 8489 §6.3.1: unknown attributes are judged once the request is authenticated, and before anything else.
    fn carry_out(
        &mut self,
        request: &Request<'_>,
        user: &User<'_>,
        relays: &mut impl Relays,
    ) -> Result<Success, Reject> {
        if request.unknown_required().next().is_some() {
            return Err(Reject::UnknownAttributes);
        }
        match request.message.method() {
            Method::ALLOCATE => self.allocate(request, user, relays),
            Method::REFRESH => self.refresh(request, user, relays),
            Method::CREATE_PERMISSION => self.create_permission(request, user, relays),
            Method::CHANNEL_BIND => self.channel_bind(request, user, relays),
            Method::CONNECT => self.connect(request, user, relays),
            Method::CONNECTION_BIND => self.connection_bind(request, user, relays),
            _ => Err(Reject::BadRequest),
        }
    }
}

/// What handlers need.
impl Server {
    /// The allocation of a client.
    pub(super) fn allocation(&self, client: Client) -> Option<&Allocation> {
        self.allocations
            .get(self.allocations.find(&client.five_tuple)?)
    }

    /// The allocation of a client that sends data, to be changed. If the client has moved, the data say that it is
    /// there now.
    #[inline]
    pub(super) fn allocation_mut(&mut self, client: Client, now: Now) -> Option<&mut Allocation> {
        let id = match self.allocations.by_client(&client.five_tuple) {
            Some(id) => id,
            None => self.arrived(&client.five_tuple, now)?,
        };
        self.allocations.get_mut(id)
    }

    /// The allocation that a request other than Allocate is about (RFC 8656 §5): 437 without one, 441 if it is
    /// another user's.
    pub(super) fn allocation_id_of(
        &self,
        request: &Request<'_>,
        user: &User<'_>,
    ) -> Result<AllocationId, Reject> {
        let id = self
            .allocations
            .find(&request.from.five_tuple)
            .ok_or(Reject::AllocationMismatch)?;
        let allocation = self.allocations.get(id);
        if allocation.is_some_and(|allocation| allocation.owner.is(user)) {
            Ok(id)
        } else {
            Err(Reject::WrongCredentials)
        }
    }

    /// The same, to be changed.
    pub(super) fn allocation_of(
        &mut self,
        request: &Request<'_>,
        user: &User<'_>,
    ) -> Result<&mut Allocation, Reject> {
        let id = self.allocation_id_of(request, user)?;
        self.allocations
            .get_mut(id)
            .ok_or(Reject::AllocationMismatch)
    }

    /// What is remembered of a user whom the settings in force have vouched for.
    pub(super) fn owner(&self, user: &User<'_>) -> Owner {
        Owner {
            username: user.name.into(),
            key: user.key.clone(),
            settings: self.generation,
            expiry: user.expiry,
            grant: user.grant.map(Box::new),
            tenant: user.standing.tenant.map(|name| Box::new(name.into())),
        }
    }

    /// Whether something was looked up in the settings in force.
    pub(super) fn is_current(&self, generation: u32) -> bool {
        generation == self.generation
    }

    /// Ends an allocation, and everything it held.
    pub(super) fn end(
        &mut self,
        id: AllocationId,
        reason: EndReason,
        now: Now,
        relays: &mut impl Relays,
    ) {
        let Some(mut allocation) = self.allocations.remove(id) else {
            return;
        };
        allocation.close_connections(None, relays);
        for relay in allocation.relays() {
            relays.close(relay.id);
        }
        self.announce_left(&allocation);
        self.bury(&allocation, reason, now);
        self.events.push_back(Event::Released(Box::new(Ended {
            session: allocation.birth.session,
            relays: allocation.addresses(),
            username: allocation.owner.username,
            tenant: allocation.owner.tenant.map(|name| *name),
            five_tuple: allocation.client.five_tuple,
            reason,
            to_peer: allocation.to_peer,
            to_client: allocation.to_client,
            age: now.instant.saturating_duration_since(allocation.birth.at),
        })));
    }

    /// Ends the half of a dual allocation that has a relay of this family.
    pub(super) fn end_half(&mut self, id: AllocationId, family: Family, relays: &mut impl Relays) {
        let taken = self.allocations.get_mut(id).and_then(|allocation| {
            allocation.close_connections(Some(family), relays);
            allocation.take_relay(family)
        });
        if let Some(relay) = taken {
            self.allocations.forget_relay(relay.id);
            relays.close(relay.id);
        }
        self.allocations.reschedule(id);
    }

    /// A nonce for the sender of a request.
    pub(super) fn nonce(&self, request: &Request<'_>, offer: Offer) -> Nonce {
        let client = request.from.five_tuple.client;
        self.nonces.issue(self.seconds(request.now), client, offer)
    }

    /// Where the nonce of a request comes from.
    pub(super) fn nonce_origin(&self, request: &Request<'_>, nonce: &[u8]) -> Origin {
        let client = request.from.five_tuple.client;
        self.nonces.check(self.seconds(request.now), client, nonce)
    }

    /// Whether a request came from where it says: over a connection, or with a nonce that was sent there.
    pub(super) fn has_proven_address(&self, request: &Request<'_>) -> bool {
        let nonce = request.message.nonce().and_then(Result::ok);
        request.from.five_tuple.transport.proves_address()
            || nonce.is_some_and(|nonce| {
                matches!(self.nonce_origin(request, nonce), Origin::Ours { .. })
            })
    }

    /// Whether the sender of a request that is not authenticated may have an answer, as far as can be told now.
    pub(super) fn affords_stranger(&self, request: &Request<'_>) -> bool {
        let five_tuple = &request.from.five_tuple;
        five_tuple.transport.proves_address()
            || self
                .budget
                .affords(five_tuple.client.ip(), request.now.instant)
    }

    /// The same, and takes it from the budget. A proven address is no forgery.
    pub(super) fn pay_for_stranger(&mut self, request: &Request<'_>) -> bool {
        self.pay_for(request.from, request.now)
    }

    /// The same, for one who sent no request of today's STUN.
    pub(super) fn pay_for(&mut self, from: Client, now: Now) -> bool {
        let FiveTuple {
            transport, client, ..
        } = from.five_tuple;
        transport.proves_address() || self.budget.take(client.ip(), now.instant)
    }

    pub(super) fn max_lifetime(&self) -> Duration {
        self.settings.max_lifetime
    }

    /// When the machines of this process began.
    pub(super) fn epoch(&self) -> Instant {
        self.epoch.instant
    }

    /// The time of nonces: monotonic, and the same for all that were given the same epoch.
    fn seconds(&self, now: Now) -> u64 {
        let since = now.instant.saturating_duration_since(self.epoch.instant);
        self.epoch.unix.wrapping_add(since.as_secs())
    }
}

/// Whether an answer can go where a request came from: not to port 0, not to ourselves, and not through one of our
/// own relays, which would make a client of a client (RFC 8656 §21.1.7).
pub(super) fn has_way_back(from: Client, relays: &impl Relays) -> bool {
    let FiveTuple { client, server, .. } = from.five_tuple;
    client.port() != 0 && client != server && relays.reach(client) != Reach::LiveRelay
}

/// The requests that are answered.
const METHODS: [Method; 5] = [
    Method::BINDING,
    Method::ALLOCATE,
    Method::REFRESH,
    Method::CREATE_PERMISSION,
    Method::CHANNEL_BIND,
];

/// Those of RFC 6062.
const TCP_METHODS: [Method; 2] = [Method::CONNECT, Method::CONNECTION_BIND];
