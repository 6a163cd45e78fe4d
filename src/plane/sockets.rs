//! The datagram sockets of one worker: its listeners and its relays, watched by one epoll set.
//!
//! Relays come and go by the thousand, so they are kept out of the runtime's own registry: the runtime
//! waits on the one descriptor of this set, and the worker asks the set itself which sockets are ready.
//! That costs no waker, no lock and no allocation per packet, and an idle relay costs a slab entry.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use rustix::event::epoll;
use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;

use super::Shared;
use super::outbox::By;
use super::ports::{MAX_RELAYS, Owner, Ports};
use super::reservations::Reserved;
use super::tcp_relay::{self, Connections};
use super::udp;
use crate::turn::{
    Addressee, Carried, Claimant, Connect, ConnectionId, Families, Family, NoCapacity, Path, Reach,
    Relay, RelayId, RelayProtocol, Relays, ReservationToken, Transport, Want, WantedPort,
};

/// How many ready sockets one look at the set reports at most.
const EVENTS: usize = udp::BATCH;
/// Ports that another process may sit on are skipped this often before giving up.
const BIND_ATTEMPTS: usize = 32;
/// Relays are numbered from 0; listeners, and TCP relays, from higher numbers on.
const FIRST_LISTENER: u64 = 1 << 32;
const FIRST_TCP_RELAY: u64 = 1 << 33;
/// Peers that the kernel connects to a TCP relay before they are taken.
const PEER_BACKLOG: i32 = 64;

/// A socket that has something to be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    Listener(usize),
    /// A TCP relay to which peers have connected.
    TcpRelay(RelayId),
    Relay(RelayId),
    /// The same, with ICMP errors about what it has sent.
    Errors(RelayId),
}

/// A socket that clients send to.
pub(super) struct Listener {
    pub(super) socket: Socket,
    /// Where it is bound.
    pub(super) address: SocketAddr,
    /// What its clients speak.
    pub(super) transport: Transport,
}

/// A relayed transport address.
pub(super) struct RelaySocket {
    socket: Socket,
    /// Which of the pool's addresses it is bound to.
    address: u32,
    port: u16,
    /// How many datagrams to ask for at the next readiness: it follows what came the last times.
    pub(super) expected: u16,
    advertised: IpAddr,
}

impl RelaySocket {
    /// What clients and peers know it by.
    pub(super) fn advertised(&self) -> SocketAddr {
        SocketAddr::new(self.advertised, self.port)
    }
}

impl AsFd for RelaySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The worker's datagram sockets.
pub(super) struct Sockets {
    worker: usize,
    set: AsyncFd<OwnedFd>,
    events: Vec<epoll::Event>,
    pub(super) listeners: Vec<Listener>,
    relays: Slab<RelaySocket>,
    /// Those that were closed and may still have something to send.
    closed: Vec<RelayId>,
    /// Of the TCP relays.
    pub(super) connections: Connections,
    shared: Arc<Shared>,
    random: StdRng,
}

impl Sockets {
    /// Watches `listeners`; relays come later. Must be called on the worker's runtime.
    pub(super) fn new(
        worker: usize,
        listeners: Vec<Listener>,
        connections: Connections,
        shared: Arc<Shared>,
        seed: [u8; 32],
    ) -> io::Result<Self> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (i, listener) in listeners.iter().enumerate() {
            if shared.carry.marks() != 0 {
                udp::report_marks(listener.socket.as_fd(), listener.address.is_ipv4())?;
            }
            watch(&set, listener.socket.as_fd(), FIRST_LISTENER + i as u64)?;
        }
        Ok(Self {
            worker,
            set: udp::readable(set)?,
            events: Vec::with_capacity(EVENTS),
            listeners,
            relays: Slab::new(),
            closed: Vec::new(),
            connections,
            shared,
            random: StdRng::from_seed(seed),
        })
    }

    /// Takes away the relays that were closed. To be called when nothing waits to be sent: what was decided before they
    /// were closed leaves by them, and must not leave by another one that has been given the number.
    pub(super) fn sweep(&mut self) {
        while let Some(relay) = self.closed.pop() {
            if let Some(relay) = self.relays.try_remove(relay.0 as usize) {
                // Closing the socket takes it out of the set.
                drop(relay.socket);
                self.shared
                    .ports
                    .release(relay.address as usize, relay.port);
            }
        }
    }

    /// Waits until a socket may have something.
    pub(super) async fn readable(&self) {
        if let Ok(mut ready) = self.set.readable().await {
            ready.retain_ready();
        }
    }

    /// Appends the sockets that have got something since they were last reported, without waiting. A
    /// socket is reported once: whoever does not empty it must come back to it by himself.
    pub(super) fn ready(&mut self, into: &mut Vec<Ready>) -> io::Result<()> {
        self.events.clear();
        let now = rustix::time::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        epoll::wait(
            self.set.get_ref(),
            rustix::buffer::spare_capacity(&mut self.events),
            Some(&now),
        )?;
        if self.events.is_empty() {
            self.rearm();
        }
        let events = self.events.iter();
        note(
            into,
            events.flat_map(|event| reported(event.data.u64(), event.flags)),
        );
        Ok(())
    }

    /// A relay, while it lives.
    pub(super) fn relay(&self, id: RelayId) -> Option<&RelaySocket> {
        self.relays.get(id.0 as usize)
    }

    pub(super) fn relay_mut(&mut self, id: RelayId) -> Option<&mut RelaySocket> {
        self.relays.get_mut(id.0 as usize)
    }

    /// The socket that something leaves or comes by, while it is open.
    pub(super) fn descriptor(&self, by: By) -> Option<BorrowedFd<'_>> {
        match by {
            By::Listener(number) => self
                .listeners
                .get(number as usize)
                .map(|listener| listener.socket.as_fd()),
            By::Relay(relay) => self.relay(relay).map(AsFd::as_fd),
        }
    }

    /// The way that leads through the listener at exactly this address.
    pub(super) fn listener_at(&self, address: SocketAddr) -> Option<Path> {
        let number = self.listeners.iter().position(|listener| {
            listener.address == address && listener.transport == Transport::Udp
        })?;
        Some(Path(number as u32))
    }

    pub(super) fn ports(&self) -> &Ports {
        &self.shared.ports
    }

    /// Lets [`readable`](Self::readable) wait for the next event instead of telling the last.
    fn rearm(&self) {
        let waker = std::task::Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        if let std::task::Poll::Ready(Ok(mut ready)) = self.set.poll_read_ready(&mut context) {
            ready.clear_ready();
        }
    }

    /// Binds a socket to a claimed port.
    fn bind(&self, local: IpAddr, port: u16) -> io::Result<Socket> {
        let socket = Socket::new(
            Domain::for_address(SocketAddr::new(local, port)),
            Type::DGRAM.nonblocking(),
            Some(Protocol::UDP),
        )?;
        if local.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        udp::dont_fragment(socket.as_fd(), local.is_ipv4(), false)?;
        udp::coalesce(socket.as_fd());
        if self.shared.carry.marks() != 0 {
            udp::report_marks(socket.as_fd(), local.is_ipv4())?;
        }
        if self.shared.carry.icmp {
            udp::report_errors(socket.as_fd(), local.is_ipv4())?;
        }
        socket.bind(&SocketAddr::new(local, port).into())?;
        Ok(socket)
    }

    /// Binds a TCP socket to a claimed port, and lets peers connect to it at once.
    fn listen(&self, local: IpAddr, port: u16) -> io::Result<Socket> {
        let address = SocketAddr::new(local, port);
        let socket = tcp_relay::socket(address)?;
        socket.bind(&address.into())?;
        // Shared with connections from here to peers, and only once it is known that nobody else listens.
        socket.set_reuse_port(true)?;
        socket.listen(PEER_BACKLOG)?;
        Ok(socket)
    }

    /// The next peer that has connected to a TCP relay, as peers are known to clients.
    pub(super) fn accept_peer(
        &self,
        relay: RelayId,
    ) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        let relay = self.relay(relay)?;
        Some(relay.socket.accept().and_then(|(stream, peer)| {
            let peer = peer.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
            stream.set_nonblocking(true)?;
            Ok((stream.into(), self.shared.ports.to_advertised(peer)))
        }))
    }

    /// From where to where a connection is to be made, if there can be one more, and one to there.
    pub(super) fn way(&self, connect: &Connect) -> Option<(SocketAddr, SocketAddr)> {
        let relay = self.relay(connect.relay)?;
        let local = self.shared.ports.address_at(relay.address as usize)?.local;
        let to = self.shared.ports.to_local(connect.peer);
        let can_be = !self.connections.is_full() && self.ports().takes_connections(connect.peer);
        can_be.then_some((SocketAddr::new(local, relay.port), to))
    }

    /// Claims and binds a port that fits, skipping those that other processes sit on.
    fn open_fitting(
        &mut self,
        v4: bool,
        protocol: RelayProtocol,
        fits: impl Fn(u16) -> bool,
    ) -> Result<(Socket, usize, u16), NoCapacity> {
        let (address, relay) = self.shared.ports.address(v4).ok_or(NoCapacity)?;
        for _ in 0..BIND_ATTEMPTS {
            let port = self
                .shared
                .ports
                .claim(address, self.random.next_u32(), &fits)
                .ok_or(NoCapacity)?;
            let bound = match protocol {
                RelayProtocol::Udp => self.bind(relay.local, port),
                RelayProtocol::Tcp => self.listen(relay.local, port),
            };
            match bound {
                Ok(socket) => return Ok((socket, address, port)),
                Err(error) => {
                    self.shared.ports.release(address, port);
                    if error.kind() != io::ErrorKind::AddrInUse {
                        return Err(NoCapacity);
                    }
                }
            }
        }
        Err(NoCapacity)
    }

    /// Binds an even port and the next one above it (RFC 8656 §7.2, EVEN-PORT with R).
    fn open_pair(
        &mut self,
        want: &Want,
        owner: u64,
        most: u32,
    ) -> Result<(Socket, usize, u16, ReservationToken), NoCapacity> {
        let (reservations, ports) = (&self.shared.reservations, &self.shared.ports);
        if reservations.count(owner, want.now.instant, ports) >= most as usize {
            return Err(NoCapacity);
        }
        for _ in 0..BIND_ATTEMPTS {
            let (socket, address, port) =
                self.open_fitting(want.family == Family::V4, want.protocol, |port| {
                    port % 2 == 0
                })?;
            if let Some(next) = self.bind_next(address, port) {
                let token = ReservationToken(self.random.random());
                let reserved = Reserved {
                    socket: next,
                    address,
                    port: port + 1,
                    owner,
                };
                self.shared.reservations.insert(
                    token,
                    reserved,
                    want.now.instant,
                    &self.shared.ports,
                );
                return Ok((socket, address, port, token));
            }
            drop(socket);
            self.shared.ports.release(address, port);
        }
        Err(NoCapacity)
    }

    fn bind_next(&self, address: usize, port: u16) -> Option<Socket> {
        let next = port.checked_add(1)?;
        let local = self.shared.ports.address_at(address)?.local;
        if !self.shared.ports.try_claim(address, next) {
            return None;
        }
        self.bind(local, next)
            .inspect_err(|_| self.shared.ports.release(address, next))
            .ok()
    }

    fn insert(
        &mut self,
        socket: Socket,
        protocol: RelayProtocol,
        address: usize,
        port: u16,
    ) -> Result<(RelayId, SocketAddr), NoCapacity> {
        let entry = self.relays.vacant_entry();
        let id = RelayId(u32::try_from(entry.key()).map_err(|_| NoCapacity)?);
        let relay_address = self.shared.ports.address_at(address).ok_or(NoCapacity)?;
        let full = entry.key() >= MAX_RELAYS;
        let number = match protocol {
            RelayProtocol::Udp => u64::from(id.0),
            RelayProtocol::Tcp => FIRST_TCP_RELAY + u64::from(id.0),
        };
        if full || watch(self.set.get_ref(), socket.as_fd(), number).is_err() {
            self.shared.ports.release(address, port);
            return Err(NoCapacity);
        }
        let advertised = relay_address.advertised;
        entry.insert(RelaySocket {
            socket,
            address: address as u32,
            port,
            expected: 0,
            advertised,
        });
        self.shared.ports.publish(
            address,
            port,
            Owner {
                worker: self.worker,
                relay: id,
                protocol,
            },
        );
        Ok((id, SocketAddr::new(advertised, port)))
    }
}

impl Relays for Sockets {
    fn open(&mut self, want: Want) -> Result<Relay, NoCapacity> {
        let protocol = want.protocol;
        let v4 = want.family == Family::V4;
        let mut token = None;
        let (socket, address, port) = match want.port {
            WantedPort::Any => self.open_fitting(v4, protocol, |_| true)?,
            WantedPort::Even => self.open_fitting(v4, protocol, |port| port % 2 == 0)?,
            WantedPort::EvenAndNext { owner, most } => {
                let (socket, address, port, reserved) = self.open_pair(&want, owner, most)?;
                token = Some(reserved);
                (socket, address, port)
            }
            WantedPort::Reserved { token, owner } => {
                let reserved = self
                    .shared
                    .reservations
                    .take(token, owner, want.now.instant, &self.shared.ports)
                    .ok_or(NoCapacity)?;
                (reserved.socket, reserved.address, reserved.port)
            }
        };
        let (id, address) = self.insert(socket, protocol, address, port)?;
        Ok(Relay {
            id,
            address,
            reserved: token,
        })
    }

    fn close(&mut self, relay: RelayId) {
        self.closed.push(relay);
    }

    fn reach(&self, peer: SocketAddr) -> Reach {
        self.shared.ports.reach(peer)
    }

    fn families(&self) -> Families {
        Families {
            v4: self.shared.ports.address(true).is_some(),
            v6: self.shared.ports.address(false).is_some(),
        }
    }

    fn offer(&mut self, id: ConnectionId, addressee: Addressee) -> bool {
        let family = self
            .relay(addressee.relay)
            .map_or(Family::V4, |relay| Family::of(relay.advertised));
        self.connections
            .offer(id, &addressee, family, &self.shared.unclaimed)
    }

    fn claim(&mut self, id: ConnectionId, claimant: Claimant) -> bool {
        self.connections.claim(id, claimant, &self.shared.unclaimed)
    }

    fn is_connected(&self, id: ConnectionId) -> bool {
        self.connections.is_connected(id)
    }

    fn disconnect(&mut self, id: ConnectionId) -> Carried {
        self.connections.disconnect(id, &self.shared.unclaimed)
    }
}

impl Drop for Sockets {
    /// Gives the ports back, also when the worker ends by a panic.
    fn drop(&mut self) {
        for relay in self.relays.drain() {
            self.shared
                .ports
                .release(relay.address as usize, relay.port);
        }
    }
}

/// What the set says of the socket with this number.
fn reported(number: u64, flags: epoll::EventFlags) -> impl Iterator<Item = Ready> {
    let (first, second) = if let Some(relay) = number.checked_sub(FIRST_TCP_RELAY) {
        (Some(Ready::TcpRelay(RelayId(relay as u32))), None)
    } else if let Some(listener) = number.checked_sub(FIRST_LISTENER) {
        (Some(Ready::Listener(listener as usize)), None)
    } else {
        let relay = RelayId(number as u32);
        // Errors first: reading them clears the one that would fail the next receive.
        let has = |flag, ready| flags.contains(flag).then_some(ready);
        (
            has(epoll::EventFlags::ERR, Ready::Errors(relay)),
            has(epoll::EventFlags::IN, Ready::Relay(relay)),
        )
    };
    first.into_iter().chain(second)
}

/// Adds what is not there yet: a socket that was not emptied is reported again as soon as more comes, and must not
/// get a second share of each round for it.
fn note(waiting: &mut Vec<Ready>, reported: impl Iterator<Item = Ready>) {
    let before = waiting.len();
    for ready in reported {
        if !waiting[..before].contains(&ready) {
            waiting.push(ready);
        }
    }
}

fn watch(set: &OwnedFd, socket: BorrowedFd<'_>, number: u64) -> io::Result<()> {
    epoll::add(
        set,
        socket,
        epoll::EventData::new_u64(number),
        epoll::EventFlags::IN | epoll::EventFlags::ET,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flood keeps its socket ready; were it noted anew each time, its share of a round would grow without end.
    #[test]
    fn a_socket_is_noted_once_however_often_it_is_reported() {
        let number = |relay: u64| (relay, epoll::EventFlags::IN | epoll::EventFlags::ERR);
        let mut waiting = Vec::new();
        for round in 0..100 {
            let flooded = [(FIRST_LISTENER, epoll::EventFlags::IN), number(7)];
            let other = number(100 + round);
            let events = flooded.into_iter().chain([other]);
            note(
                &mut waiting,
                events.flat_map(|(at, flags)| reported(at, flags)),
            );
            // All are served, and only those that are flooded have more.
            assert_eq!(waiting.len(), 5, "round {round}");
            waiting.truncate(3);
        }
        let (errors, data) = (Ready::Errors(RelayId(7)), Ready::Relay(RelayId(7)));
        assert_eq!(waiting, [Ready::Listener(0), errors, data]);
    }
}
