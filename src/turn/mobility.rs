//! Mobility (RFC 8016): an allocation stays with its client when the client's address or transport changes.
//!
//! A client that has moved shows its ticket in a Refresh. From then on its requests are taken from either address;
//! data still go to the old one, until the first data come from the new one, or the old connection is closed. A
//! client whose connection is closed before it has moved is away: its allocation waits for it as long as it lives.
//!
//! TCP allocations (RFC 6062) do not move: the RFC is silent about them, and their clients are not given a ticket.

use std::time::{Duration, Instant};

use rand::RngExt as _;

use crate::stun::Method;

use super::allocation::{Allocation, AllocationId};
use super::authenticate::User;
use super::peers;
use super::request::Request;
use super::response::Reject;
use super::server::Server;
use super::ticket::{SealedTicket, Ticket};
use super::trail::Fact;
use super::{Client, Event, FiveTuple, MoveResult, Moved, Now, WorkerId};

/// What an allocation has to have that may move.
#[derive(Debug)]
pub(super) struct Mobility {
    /// Where the client has moved to, if it is still sent to where it was.
    pub(super) next: Option<Client>,
    /// The client's connection is closed, and it has not moved.
    pub(super) away: bool,
    /// The number of the ticket that is good for the next move.
    ticket: u32,
    /// The move before.
    last: Option<LastMove>,
}

/// A move that may be asked for again, in case the answer was lost: from the same address, with the same ticket.
#[derive(Debug)]
struct LastMove {
    /// The number of the ticket that was used.
    ticket: u32,
    to: FiveTuple,
    until: Instant,
}

/// Where a Refresh comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// From where the client is known to be.
    Known,
    /// From elsewhere, with a ticket.
    Moved,
    /// From where the client has moved to, with the ticket that it has shown before.
    MovedAgain,
}

/// Requests.
impl Server {
    /// RFC 8016 §3.1.2: an empty ticket asks for one.
    pub(super) fn wanted_mobility(
        &mut self,
        request: &Request<'_>,
    ) -> Result<Option<Box<Mobility>>, Reject> {
        match request.mobility_ticket()? {
            None => Ok(None),
            Some([]) if request.settings.mobility => Ok(Some(Box::new(Mobility {
                next: None,
                away: false,
                ticket: self.random.random(),
                last: None,
            }))),
            Some([]) => Err(Reject::MobilityForbidden),
            Some(_) => Err(Reject::BadRequest),
        }
    }

    /// The machine that must be asked instead: the one that issued the ticket of an authenticated Refresh.
    pub(super) fn home(&self, request: &Request<'_>) -> Option<WorkerId> {
        if request.message.method() != Method::REFRESH || !request.settings.mobility {
            return None;
        }
        let ticket = self.tickets.open(request.mobility_ticket().ok()??)?;
        let stranger = self.allocations.find(&request.from.five_tuple).is_none();
        (ticket.worker != self.tickets.worker && stranger).then_some(ticket.worker)
    }

    /// The allocation that a Refresh is about: with a ticket the one it was issued for (RFC 8016 §3.2.2).
    pub(super) fn refreshed_allocation(
        &mut self,
        request: &Request<'_>,
        user: &User<'_>,
    ) -> Result<(AllocationId, Arrival), Reject> {
        let Some(ticket) = request.mobility_ticket()? else {
            return Ok((self.allocation_id_of(request, user)?, Arrival::Known));
        };
        self.judge_ticket(request, user, ticket)
            .map_err(|(result, reject)| {
                self.events.push_back(Event::Move(result));
                reject
            })
    }

    fn judge_ticket(
        &self,
        request: &Request<'_>,
        user: &User<'_>,
        ticket: &[u8],
    ) -> Result<(AllocationId, Arrival), (MoveResult, Reject)> {
        if !request.settings.mobility {
            return Err((MoveResult::Forbidden, Reject::MobilityForbidden));
        }
        let ticket = self
            .tickets
            .open(ticket)
            .ok_or((MoveResult::Invalid, Reject::BadRequest))?;
        let from = request.from.five_tuple;
        let at_address = self.allocations.find(&from);
        if ticket.worker != self.tickets.worker {
            // Dispatch has seen to it that the sender has an allocation here.
            return Err((MoveResult::Occupied, Reject::AllocationMismatch));
        }
        let id = ticket.allocation;
        let (allocation, mobility) = self
            .allocations
            .get(id)
            .and_then(|allocation| Some((allocation, allocation.mobility.as_deref()?)))
            .filter(|(_, mobility)| mobility.knows(ticket.number))
            .ok_or((MoveResult::NoAllocation, Reject::AllocationMismatch))?;
        let is_there = at_address == Some(id);
        let again = is_there && mobility.repeats(ticket.number, &from, request.now);
        if is_there && !again {
            return Err((MoveResult::Unchanged, Reject::BadRequest));
        }
        if !allocation.owner.is(user) {
            return Err((MoveResult::WrongUser, Reject::WrongCredentials));
        }
        if again {
            return Ok((id, Arrival::MovedAgain));
        }
        if ticket.number != mobility.ticket {
            return Err((MoveResult::Spent, Reject::AllocationMismatch));
        }
        if at_address.is_some() {
            return Err((MoveResult::Occupied, Reject::AllocationMismatch));
        }
        if peers::is_tunnel(from.client.ip()) {
            return Err((MoveResult::BadAddress, Reject::Forbidden));
        }
        Ok((id, Arrival::Moved))
    }

    /// Lets the client be where its Refresh comes from, and returns the ticket for its next move.
    pub(super) fn welcome(
        &mut self,
        id: AllocationId,
        arrival: Arrival,
        request: &Request<'_>,
    ) -> Result<Option<SealedTicket>, Reject> {
        match arrival {
            Arrival::Known => return Ok(None),
            Arrival::Moved => self.admit(id, request)?,
            Arrival::MovedAgain => self.events.push_back(Event::Move(MoveResult::Repeated)),
        }
        Ok(self.current_ticket(id))
    }

    /// The ticket that is good for the next move of an allocation's client.
    pub(super) fn current_ticket(&self, id: AllocationId) -> Option<SealedTicket> {
        let mobility = self.allocations.get(id)?.mobility.as_deref()?;
        let ticket = Ticket {
            worker: self.tickets.worker,
            allocation: id,
            number: mobility.ticket,
        };
        self.tickets.seal(&ticket)
    }

    fn admit(&mut self, id: AllocationId, request: &Request<'_>) -> Result<(), Reject> {
        let allocation = self
            .allocations
            .get_mut(id)
            .ok_or(Reject::AllocationMismatch)?;
        let client = request.from.five_tuple.client.ip();
        let most = request.settings.limits.per_client;
        if allocation.claim.move_to(client, most).is_err() {
            self.events.push_back(Event::Move(MoveResult::Quota));
            return Err(Reject::Quota);
        }
        let mut away = false;
        if let Some(mobility) = allocation.mobility.as_deref_mut() {
            let ticket = mobility.ticket;
            while mobility.ticket == ticket {
                mobility.ticket = self.random.random();
            }
            mobility.last = Some(LastMove {
                ticket,
                to: request.from.five_tuple,
                until: request.now.instant + REPETITION,
            });
            away = mobility.away;
        }
        self.events.push_back(Event::Move(MoveResult::Accepted));
        let left = self.allocations.set_next(id, Some(request.from));
        self.events.extend(left.map(Event::Left));
        if away {
            self.complete(id, request.now);
        }
        Ok(())
    }
}

/// What happens to clients on the way.
impl Server {
    /// A client sends data from where it has moved to: it is there now.
    #[cold]
    pub(super) fn arrived(&mut self, five_tuple: &FiveTuple, now: Now) -> Option<AllocationId> {
        let id = self.allocations.by_next(five_tuple)?;
        self.complete(id, now);
        Some(id)
    }

    /// The connection is closed of a client that has not moved, or has moved and is now there.
    pub(super) fn departed(&mut self, id: AllocationId, now: Now) {
        self.allocations.unindex_client(id);
        let Some(mobility) = self
            .allocations
            .get_mut(id)
            .and_then(|allocation| allocation.mobility.as_deref_mut())
        else {
            return;
        };
        mobility.away = true;
        self.complete(id, now);
    }

    /// Takes note that a connection is closed to which a client had only just moved. False if it is another's.
    pub(super) fn arrival_gone(&mut self, client: Client) -> bool {
        let Some(id) = self.allocations.by_next(&client.five_tuple) else {
            return false;
        };
        let next = self.allocations.get(id).and_then(Allocation::next);
        if next == Some(client) {
            self.allocations.set_next(id, None);
        }
        true
    }

    /// Sends to where the client has moved, if it has, and no more to where it was.
    fn complete(&mut self, id: AllocationId, now: Now) {
        let Some(next) = self.allocations.set_next(id, None) else {
            return;
        };
        let Some(before) = self.allocations.rehome(id, next) else {
            return;
        };
        let Some(allocation) = self.allocations.get_mut(id) else {
            return;
        };
        let was_away = allocation
            .mobility
            .as_deref_mut()
            .is_some_and(|mobility| std::mem::take(&mut mobility.away));
        let (ip, port) = (next.five_tuple.client.ip(), next.five_tuple.client.port());
        allocation.note(Fact::Moved { ip, port }, now.instant);
        let moved = Event::Moved(Box::new(Moved {
            username: allocation.owner.username.clone(),
            from: before.five_tuple,
            to: next.five_tuple,
            relay: allocation.relay.address,
        }));
        self.events.push_back(moved);
        self.events.push_back(Event::Move(MoveResult::Completed));
        self.events
            .extend((!was_away).then_some(Event::Left(before)));
    }

    /// Says which clients are no longer sent to, of an allocation that has ended and may have moved.
    pub(super) fn announce_left(&mut self, allocation: &Allocation) {
        let Some(mobility) = allocation.mobility.as_deref() else {
            return;
        };
        let client = (!mobility.away).then_some(allocation.client);
        let left = client.into_iter().chain(mobility.next).map(Event::Left);
        self.events.extend(left);
    }
}

/// Clients of other machines.
impl Server {
    /// The other machine that has the allocation of a client, if it is known to.
    pub fn elsewhere(&self, now: Now, client: &FiveTuple) -> Option<WorkerId> {
        self.elsewhere.find(client, now)
    }

    /// Takes the word of another machine that it has the allocation of a client: what comes from there is
    /// [`Verdict::Elsewhere`](super::Verdict::Elsewhere) from now on.
    pub fn note_elsewhere(&mut self, now: Now, client: FiveTuple, worker: WorkerId) {
        if worker != self.tickets.worker && !self.has_allocation(&client) {
            let lifetime = self.max_lifetime();
            self.elsewhere.insert(client, worker, now, lifetime);
        }
    }

    /// Takes the word of another machine that it has the allocation of a client no longer.
    pub fn forget_elsewhere(&mut self, client: &FiveTuple, worker: WorkerId) {
        self.elsewhere.remove(client, worker);
    }

    /// How many clients are noted to be elsewhere.
    pub fn count_elsewhere(&self) -> usize {
        self.elsewhere.len()
    }
}

impl Mobility {
    /// Whether a ticket is good for the next move, or was for the last one.
    fn knows(&self, ticket: u32) -> bool {
        ticket == self.ticket || self.last.as_ref().is_some_and(|last| last.ticket == ticket)
    }

    /// Whether a ticket asks again for the last move.
    fn repeats(&self, ticket: u32, from: &FiveTuple, now: Now) -> bool {
        self.last.as_ref().is_some_and(|last| {
            last.ticket == ticket && last.to == *from && now.instant < last.until
        })
    }
}

/// How long a move may be asked for again. RFC 8016 §3.2.2: at least 30 seconds; a client over TCP waits for 39.5.
const REPETITION: Duration = Duration::from_secs(40);
