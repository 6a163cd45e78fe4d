//! TCP allocations (RFC 6062): Connect, ConnectionAttempt and ConnectionBind.
//!
//! The machine decides who may be connected to whom, and keeps the names of the connections; their sockets are the
//! plane's, and what goes through them does not come by here.
//!
//! A Connect that fails must not tell why, or a relay would be a port scanner: a closed port, a filtered one and a
//! host that is not there are all reported after the timeout and a random while more, by one and the same code.

use std::net::SocketAddr;
use std::time::Duration;

use rand::RngExt as _;

use crate::stun::{Attribute, Class, Method, TransactionId, Writer};

use super::allocation::Allocation;
use super::authenticate::User;
use super::permission::Permissions;
use super::relay::random;
use super::request::Request;
use super::response::{Deferred, Reject, Success};
use super::server::Server;
use super::trail::{ConnectFailure, Fact};
use super::{
    Addressee, Cause, Claimant, Client, Connect, ConnectionId, Event, Family, Now, RelayId, Relays,
    Reply, TcpRelay,
};

impl Server {
    /// RFC 6062 §5.2, up to where the plane has to find out.
    pub(super) fn connect(
        &mut self,
        request: &Request<'_>,
        user: &User<'_>,
        relays: &mut impl Relays,
    ) -> Result<Success, Reject> {
        let rules = request.settings.tcp_relay.as_ref();
        let rules = rules.ok_or(Reject::Forbidden)?;
        let asked = Deferred::new(request, user);
        let id = ConnectionId(self.random.random());
        let longer = self.random.random_range(DISGUISE);
        let policy = user.policy(request);
        let allocation = self.allocation_of(request, user)?;
        allocation.forget_closed(relays);
        let connections = allocation.connections.as_deref();
        let connections = connections.ok_or(Reject::AllocationMismatch)?;

        let peer = request.peer()?;
        if peer.port() == 0 {
            return Err(Reject::BadRequest);
        }
        if let Some(other) = connections.to(peer) {
            return if other.is_asked_by(asked.transaction) {
                Ok(Success::Later)
            } else {
                Err(Reject::ConnectionExists)
            };
        }
        let relay = allocation
            .relay_of(Family::of(peer.ip()), request.now.instant)
            .ok_or(Reject::PeerFamily)?;
        // A socket that connects to itself would talk to itself.
        if peer == relay.address || !rules.opens(peer.port()) {
            return Err(Reject::Forbidden);
        }
        policy.judge(peer, relays)?;
        if connections.list.len() >= rules.connections {
            return Err(Reject::Quota);
        }
        allocation.meet(std::iter::once(peer.ip()), request.now.instant)?;

        let connect = Connect {
            relay: relay.id,
            id,
            peer,
            timeout: rules.connect_timeout,
            failure_after: rules.connect_timeout + longer,
        };
        allocation.remember(id, peer, Some(asked));
        self.events.push_back(Event::Connect(Box::new(connect)));
        Ok(Success::Later)
    }

    /// Takes in what became of an [`Event::Connect`]. If the client still waits for it, an answer is appended to
    /// `reply`.
    ///
    /// An established connection is in the plane's hand: if the machine has any use for it, it is offered
    /// ([`Relays::offer`]).
    pub fn connected(
        &mut self,
        now: Now,
        connect: &Connect,
        established: Result<(), ConnectFailure>,
        relays: &mut impl Relays,
        reply: &mut Vec<u8>,
    ) -> Option<Reply> {
        let number = self.allocations.by_relay(connect.relay)?;
        let allocation = self.allocations.get_mut(number)?;
        let policy = self.settings.policy_for(&allocation.owner);
        let list = &mut allocation.connections.as_deref_mut()?.list;
        let place = list
            .iter()
            .position(|one| one.id == connect.id && one.asked.is_some())?;
        let asked = list[place].asked.take()?;

        let owner = allocation.owner.number(&self.quotas);
        let rules = self.settings.tcp_relay.as_ref();
        let judged = policy.judge(connect.peer, relays);
        if let Err(why) = established {
            let (ip, port) = (connect.peer.ip(), connect.peer.port());
            allocation.note(Fact::ConnectFailed { ip, port, why }, now.instant);
        }
        let outcome = match (established, judged, rules) {
            (Err(_), _, _) => Err(Reject::ConnectionFailed),
            // Closed by a reload meanwhile.
            (Ok(()), Err(forbidden), _) => Err(forbidden),
            (Ok(()), Ok(()), None) => Err(Reject::Forbidden),
            (Ok(()), Ok(()), Some(rules)) => {
                let addressee = Addressee {
                    relay: connect.relay,
                    client: allocation.client,
                    owner,
                    expires: now.instant + rules.bind_timeout,
                    allowance: allocation.allowance.clone(),
                };
                let offered = relays.offer(connect.id, addressee);
                offered.then_some(()).ok_or(Reject::ConnectionFailed)
            }
        };
        if outcome.is_err() {
            allocation.disconnect(relays, |one| one.id == connect.id);
        }
        let outcome = outcome.map(|()| connect.id);
        Some(asked.connected(outcome, allocation.client, reply))
    }

    /// Takes in that a peer has connected to a relay; the connection is in the plane's hand (RFC 6062 §5.3).
    ///
    /// If the peer has a permission, the connection is offered, and a ConnectionAttempt indication for the client that
    /// is returned is appended to `reply`. Otherwise the connection is to be closed.
    pub fn peer_connected(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: SocketAddr,
        relays: &mut impl Relays,
        reply: &mut Vec<u8>,
    ) -> Result<Client, Cause> {
        let transaction = TransactionId(random(&mut self.random));
        let ids: [u32; 4] = self.random.random();
        let owner = self.allocations.by_relay(relay);
        let allocation = owner
            .and_then(|number| self.allocations.get_mut(number))
            .ok_or(Cause::UnknownRelay)?;
        let connections = allocation.connections.as_deref();
        let connections = connections.ok_or(Cause::UnknownRelay)?;
        if allocation
            .relay_of(Family::of(peer.ip()), now.instant)
            .is_none()
        {
            return Err(Cause::UnknownRelay);
        }
        if !connections.permissions.allows(peer.ip(), now.instant) {
            allocation.note_unpermitted(peer, now.instant);
            return Err(Cause::NoPermission);
        }
        let rules = self.settings.tcp_relay.as_ref();
        let rules = rules.ok_or(Cause::NoPermission)?;
        allocation.forget_closed(relays);
        if allocation.open_connections() >= rules.connections {
            return Err(Cause::TooManyConnections);
        }

        let addressee = Addressee {
            relay,
            client: allocation.client,
            owner: allocation.owner.number(&self.quotas),
            expires: now.instant + rules.bind_timeout,
            allowance: allocation.allowance.clone(),
        };
        let id = ids
            .into_iter()
            .map(ConnectionId)
            .find(|id| relays.offer(*id, addressee.clone()))
            .ok_or(Cause::TooManyConnections)?;
        allocation.remember(id, peer, None);
        let mut writer = Writer::new(
            reply,
            Class::Indication,
            Method::CONNECTION_ATTEMPT,
            transaction,
        );
        writer
            .xor_address(Attribute::XOR_PEER_ADDRESS, peer)
            .u32(Attribute::CONNECTION_ID, id.0);
        writer.finish();
        Ok(allocation.client)
    }

    /// RFC 6062 §5.4. After a success the plane has the connection in its hand, and joins the two.
    ///
    /// Who asks for what is not there learns nothing of what is: a connection of somebody else is none.
    pub(super) fn connection_bind(
        &self,
        request: &Request<'_>,
        user: &User<'_>,
        relays: &mut impl Relays,
    ) -> Result<Success, Reject> {
        let from = request.from.five_tuple;
        // The connection that has the allocation is the control connection, and stays that.
        if !from.transport.is_stream() || self.allocation(request.from).is_some() {
            return Err(Reject::BadRequest);
        }
        let id = request.connection_id()?;
        let claimant = Claimant {
            owner: user.number(&self.quotas),
            client: from.client.ip(),
            now: request.now.instant,
        };
        if relays.claim(id, claimant) {
            Ok(Success::Done)
        } else {
            Err(Reject::BadRequest)
        }
    }
}

impl TcpRelay {
    /// Whether clients may connect to this port of a peer.
    fn opens(&self, port: u16) -> bool {
        port >= FIRST_FREE_PORT || self.low_ports.contains(&port)
    }
}

/// What makes an allocation a TCP allocation: who may connect to its relay, and the connections there are.
///
/// The permissions stand here and not where those of other allocations stand, so that no datagram finds one.
#[derive(Default)]
pub(super) struct Connections {
    pub(super) permissions: Permissions,
    list: Vec<Connection>,
}

/// A connection between the relay and a peer, from its Connect on.
struct Connection {
    id: ConnectionId,
    peer: SocketAddr,
    /// The Connect that waits for its answer.
    asked: Option<Deferred>,
}

impl Connections {
    /// How many there are, in whatever state.
    pub(super) fn count(&self) -> usize {
        self.list.len()
    }

    fn to(&self, peer: SocketAddr) -> Option<&Connection> {
        self.list.iter().find(|connection| connection.peer == peer)
    }
}

impl Connection {
    /// Whether this is the connection that a request wants that is still being carried out.
    fn is_asked_by(&self, transaction: TransactionId) -> bool {
        let asked = self.asked.as_ref();
        asked.is_some_and(|asked| asked.transaction == transaction)
    }
}

impl Allocation {
    /// The permissions of its peers, to send to it or to connect to it.
    pub(super) fn permissions_mut(&mut self) -> &mut Permissions {
        match &mut self.connections {
            Some(connections) => &mut connections.permissions,
            None => &mut self.permissions,
        }
    }

    /// The same, to look at.
    pub(super) fn permissions(&self) -> &Permissions {
        let connections = self.connections.as_deref();
        connections.map_or(&self.permissions, |connections| &connections.permissions)
    }

    /// Closes the connections to all peers but those that `keep` names.
    ///
    /// What is still being connected is judged when it is connected, since its client waits for an answer.
    pub(super) fn retain_connections(
        &mut self,
        relays: &mut impl Relays,
        keep: impl Fn(SocketAddr) -> bool,
    ) {
        self.disconnect(relays, |one| one.asked.is_none() && !keep(one.peer));
    }

    /// Closes every connection to a peer of this family, or of any.
    pub(super) fn close_connections(&mut self, family: Option<Family>, relays: &mut impl Relays) {
        let ends = |peer: SocketAddr| family.is_none_or(|family| family == Family::of(peer.ip()));
        self.disconnect(relays, |one| ends(one.peer));
    }

    /// Forgets the connections that have been closed from either end.
    fn forget_closed(&mut self, relays: &mut impl Relays) {
        let Some(connections) = self.connections.as_deref() else {
            return;
        };
        let is_closed = |one: &Connection| one.asked.is_none() && !relays.is_connected(one.id);
        let closed: Vec<_> = connections
            .list
            .iter()
            .filter(|one| is_closed(one))
            .map(|one| one.id)
            .collect();
        self.disconnect(relays, |one| closed.contains(&one.id));
    }

    fn open_connections(&self) -> usize {
        let connections = self.connections.as_deref();
        connections.map_or(0, |connections| connections.list.len())
    }

    fn remember(&mut self, id: ConnectionId, peer: SocketAddr, asked: Option<Deferred>) {
        if let Some(connections) = self.connections.as_deref_mut() {
            connections.list.push(Connection { id, peer, asked });
        }
    }

    /// Closes some connections, and adds up what went through them.
    fn disconnect(&mut self, relays: &mut impl Relays, which: impl Fn(&Connection) -> bool) {
        let Some(connections) = self.connections.as_deref_mut() else {
            return;
        };
        connections.list.retain(|connection| {
            let stays = !which(connection);
            if !stays {
                let carried = relays.disconnect(connection.id);
                self.to_peer.bytes += carried.to_peer;
                self.to_client.bytes += carried.to_client;
            }
            stays
        });
    }
}

/// How much longer than the timeout a failure takes to be told.
const DISGUISE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(5);

/// Below are the ports of a host's services.
const FIRST_FREE_PORT: u16 = 1024;
