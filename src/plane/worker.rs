//! One worker: a thread, its sockets, its machine, and the loop that joins them.
//!
//! Everything here has one owner and no lock. A round takes in what is there, from every source and from
//! each only so much, gives it to the machine, and sends what the machine decided. The clock is read once
//! a round, in one line.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

use super::Shared;
use super::dtls::Associations;
use super::listener::Listen;
use super::log;
use super::mail::{Mail, Mailbox, Parcel};
use super::outbox::{Body, By, Outbox};
use super::sockets::{Ready, Sockets};
use super::stream::{StreamEvent, Streams};
use super::udp::{BATCH, Inbox};
use crate::metrics::{Cells, SocketError};
use crate::turn::{
    Client, EndReason, Event, FiveTuple, Holder, Now, Path, RelayId, Server, Transport,
};

/// The runtime's own work (connections, timers) gets its turn after this many rounds at the latest.
const ROUNDS: u32 = 8;
/// The longest sleep: housekeeping is due about once a second.
const TICK: Duration = Duration::from_secs(1);
/// Pause after the kernel refused a connection, for want of descriptors most likely (A33).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the machine's own addresses are looked up again.
const ADDRESSES: Duration = Duration::from_secs(10);
/// How many batches a listener gives in a round. All clients of a worker share it, and relays that are looked at less
/// often have more to give at once.
const CLIENT_BATCHES: usize = 4;
/// How many datagrams a relay is asked for at once: most have one, few have many.
const RELAY_BATCH: u16 = 4;
/// The same for a relay in a burst.
const RELAY_BURST: u16 = 32;

/// Of so many rounds one is timed. An odd number, so that those who take turns are timed alike.
const TIMED: u32 = 61;

/// How many sessions are looked at between two rounds.
pub(super) const PAGE: usize = 1024;

/// A listening TCP socket.
pub(super) struct Acceptor {
    pub(super) socket: TcpListener,
    pub(super) listen: Arc<Listen>,
}

/// What ended the wait.
enum Wake {
    Mail(Mail),
    Parcel(Parcel),
    Stream(StreamEvent),
    Accepted(usize, io::Result<(TcpStream, SocketAddr)>),
    Sockets,
    Timeout,
    /// Nobody can send mail any more: the process is ending.
    Orphaned,
}

/// A worker's state.
pub(super) struct Worker<'a> {
    pub(super) number: usize,
    pub(super) server: Server,
    pub(super) sockets: Sockets,
    pub(super) acceptors: Vec<Acceptor>,
    /// The listener whose turn it is: a flood at one must not keep the clients of another waiting.
    pub(super) turn: usize,
    pub(super) streams: Streams,
    pub(super) associations: Associations,
    pub(super) shared: Arc<Shared>,
    pub(super) cells: &'a mut Cells,
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
    /// Sockets that gave a full batch and may have more.
    pub(super) ready: Vec<Ready>,
    pub(super) times: Times,
}

/// When what is due that is not the machine's.
pub(super) struct Times {
    tick: Instant,
    addresses: Instant,
    accept: Instant,
}

impl Times {
    pub(super) fn starting(now: Instant) -> Self {
        Self {
            tick: now + TICK,
            addresses: now + ADDRESSES,
            accept: now,
        }
    }
}

/// Reads both clocks: lifetimes run on the monotonic one, credentials expire by the other.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of the data plane that reads the clock"
)]
pub(super) fn read_clock() -> Now {
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    Now {
        instant: Instant::now(),
        unix,
    }
}

impl Worker<'_> {
    /// Serves until told to stop.
    pub(super) async fn run(&mut self, mailbox: &mut Mailbox) {
        let mut now = read_clock();
        let mut rounds = 0;
        loop {
            let wake = self.wait(mailbox, now.instant).await;
            now = read_clock();
            if !self.outbox.lost.is_empty() {
                self.tell_lost(now);
            }
            match wake {
                Wake::Mail(Mail::Stop) | Wake::Orphaned => return,
                Wake::Mail(mail) => self.open_mail(now, mail),
                Wake::Parcel(parcel) => self.take_parcel(now, parcel),
                Wake::Stream(event) => self.take_stream(now, event),
                Wake::Accepted(acceptor, accepted) => {
                    self.take_connection(now.instant, acceptor, accepted)
                }
                Wake::Sockets | Wake::Timeout => {}
            }
            self.take_in(now, mailbox);
            self.keep_house(now);
            let has_more = self.outbox.has_more();
            self.flush();
            rounds = u32::wrapping_add(rounds, 1);
            if has_more && rounds % TIMED == 0 {
                self.cells.forward.took(read_clock().instant - now.instant);
            }
            if rounds % ROUNDS == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn wait(&mut self, mailbox: &mut Mailbox, now: Instant) -> Wake {
        let deadline = self.deadline(now);
        let accepting = self.times.accept <= now;
        tokio::select! {
            biased;
            mail = mailbox.mail.recv() => mail.map_or(Wake::Orphaned, Wake::Mail),
            Some(parcel) = mailbox.parcels.recv() => Wake::Parcel(parcel),
            Some(event) = self.streams.event() => Wake::Stream(event),
            (acceptor, accepted) = accept(&self.acceptors, self.turn), if accepting => Wake::Accepted(acceptor, accepted),
            () = self.sockets.readable(), if self.ready.is_empty() => Wake::Sockets,
            () = std::future::ready(()), if !self.ready.is_empty() => Wake::Sockets,
            () = tokio::time::sleep_until(deadline.into()) => Wake::Timeout,
        }
    }

    fn deadline(&self, now: Instant) -> Instant {
        let machine = self.server.poll_timeout();
        let accept = (self.times.accept > now).then_some(self.times.accept);
        let associations = self.associations.deadline(now);
        let others = [machine, self.streams.deadline(), associations, accept];
        others
            .into_iter()
            .flatten()
            .fold(self.times.tick, Instant::min)
    }

    /// Takes in what is there without waiting, from each source at most a batch.
    fn take_in(&mut self, now: Now, mailbox: &mut Mailbox) {
        self.begin_dtls_round(now);
        for _ in 0..BATCH {
            let Ok(parcel) = mailbox.parcels.try_recv() else {
                break;
            };
            self.take_parcel(now, parcel);
        }
        for _ in 0..BATCH {
            let Some(event) = self.streams.try_event() else {
                break;
            };
            self.take_stream(now, event);
        }
        let mut ready = std::mem::take(&mut self.ready);
        if let Err(error) = self.sockets.ready(&mut ready) {
            self.cells.socket_error(SocketError::of(&error));
        }
        ready.retain(|socket| match socket {
            Ready::Listener(number) => {
                (0..CLIENT_BATCHES).all(|_| self.receive_clients(now, *number))
            }
            Ready::Relay(relay) => self.receive_peers(now, *relay),
            Ready::TcpRelay(relay) => self.accept_peers(now, *relay),
            Ready::Errors(relay) => self.receive_errors(now, *relay),
        });
        self.ready = ready;
    }

    /// Takes in one batch from clients. True when there may be more.
    fn receive_clients(&mut self, now: Now, number: usize) -> bool {
        if self.inbox.room() < BATCH / 2 {
            self.flush();
        }
        let listener = &self.sockets.listeners[number];
        let (bound, wildcard) = (listener.address, listener.address.ip().is_unspecified());
        let transport = listener.transport;
        let carried = self.shared.carry.marks();
        let asked = self.inbox.room();
        let slots = self.receive(By::Listener(number as u32), asked);
        for slot in slots.clone() {
            let received = self.inbox.received(slot);
            let ip = if wildcard {
                received.to.unwrap_or_else(|| bound.ip())
            } else {
                bound.ip()
            };
            let server = SocketAddr::new(ip, bound.port());
            let five_tuple = FiveTuple {
                transport,
                client: received.from,
                server,
            };
            let client = Client {
                five_tuple,
                path: Path(number as u32),
            };
            let marks = received.marks & carried;
            for datagram in received.datagrams() {
                let body = Body::Slot(slot, datagram);
                if transport == Transport::Dtls {
                    self.dtls_input(now, client, &body, marks);
                } else {
                    self.client_input(now, client, body, marks);
                }
            }
        }
        slots.len() == asked
    }

    /// Takes in one batch from a relay. True when there may be more.
    fn receive_peers(&mut self, now: Now, relay: RelayId) -> bool {
        if self.inbox.room() < usize::from(RELAY_BATCH) {
            self.flush();
        }
        // Another packet of this round may have ended the allocation.
        let Some(socket) = self.sockets.relay_mut(relay) else {
            return false;
        };
        let expected = socket.expected.max(RELAY_BATCH);
        let asked = usize::from(expected).min(self.inbox.room());
        let slots = self.receive(By::Relay(relay), asked);
        let more = slots.len() == asked;
        if let Some(socket) = self.sockets.relay_mut(relay) {
            // A short count says that the socket is empty, so asking for a little more than comes saves
            // a call; asking for much more costs.
            socket.expected = if more {
                (expected * 2).min(RELAY_BURST)
            } else {
                expected / 2
            };
        }
        let carried = self.shared.carry.marks();
        for slot in slots {
            let received = self.inbox.received(slot);
            let marks = received.marks & carried;
            for datagram in received.datagrams() {
                let body = Body::Slot(slot, datagram);
                self.peer_input(now, relay, received.from, &body, marks);
            }
        }
        more
    }

    /// One receive call. Whatever the kernel says of a socket costs nothing but this call.
    fn receive(&mut self, by: By, at_most: usize) -> Range<usize> {
        let Some(socket) = self.sockets.descriptor(by) else {
            return 0..0;
        };
        match self.inbox.receive(socket, at_most) {
            Ok(slots) => {
                self.cells.batches.took(slots.len());
                slots
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0..0,
            Err(error) => {
                self.cells.socket_error(SocketError::of(&error));
                0..0
            }
        }
    }

    fn take_stream(&mut self, now: Now, event: StreamEvent) {
        match event {
            StreamEvent::Header(path, header) => {
                let is_good = self.streams.told(path, header);
                self.cells.proxy_headers.count(is_good);
            }
            StreamEvent::Opened(path, transport, host) => {
                self.streams.opened(path, transport);
                if let (Some(host), Some(client)) = (host, self.streams.client(path)) {
                    self.server.client_came(client, &host);
                }
            }
            StreamEvent::Web(path) => {
                let taken = self.streams.is_web(path);
                self.cells.web.count(taken);
            }
            StreamEvent::Frame(path, bytes) => {
                let Some(client) = self.streams.client(path) else {
                    return;
                };
                let all = 0..bytes.len();
                self.client_input(now, client, Body::Shared(bytes, all), 0);
            }
            StreamEvent::Bind(path, bytes, decided) => {
                let Some(client) = self.streams.client(path) else {
                    return;
                };
                let all = 0..bytes.len();
                self.client_input(now, client, Body::Shared(bytes, all), 0);
                let claimed = self.sockets.connections.take_claimed();
                if claimed.is_some() {
                    self.streams.joined(path);
                }
                // Should the client have gone meanwhile, the peer's connection goes, too.
                let _ = decided.send(claimed);
            }
            StreamEvent::Connected(connect, outcome) => self.connected(now, &connect, outcome),
            StreamEvent::Handshake(ok) => self.cells.handshakes.count(ok),
            StreamEvent::Closed(path) => {
                if let Some(client) = self.streams.closed(path) {
                    self.client_gone(now, client);
                }
            }
        }
    }

    fn take_connection(
        &mut self,
        now: Instant,
        acceptor: usize,
        accepted: io::Result<(TcpStream, SocketAddr)>,
    ) {
        self.turn = acceptor + 1;
        match accepted {
            Ok((stream, from)) => {
                let listen = &self.acceptors[acceptor].listen;
                let tls = self.shared.tls.load();
                let site = self.shared.site(listen);
                let tls = tls.as_ref().map(|tls| tls.acceptor(site.is_some()));
                // A TLS listener without a certificate takes nobody.
                let is_served = tls.is_some() || listen.transport != Transport::Tls;
                let taken = is_served && self.streams.accept(now, stream, from, listen, site, tls);
                self.cells.streams.count(taken);
            }
            Err(error) => {
                self.cells.socket_error(SocketError::of(&error));
                debug!(%error, "connection refused by the kernel");
                self.times.accept = now + ACCEPT_PAUSE;
            }
        }
    }

    /// Sends what was decided; the inbox and the replies are free again after it.
    pub(super) fn flush(&mut self) {
        self.post_associations();
        self.outbox.send(&self.inbox, &self.sockets, self.cells);
        self.sockets.sweep();
        self.inbox.clear();
    }

    fn open_mail(&mut self, now: Now, mail: Mail) {
        match mail {
            Mail::Settings(settings) => {
                self.server
                    .replace_settings(now, settings, &mut self.sockets)
            }
            Mail::Revocations(revocations) => self.server.replace_revocations(revocations),
            Mail::Drain(on) => self.server.drain(on),
            // Whoever asked may have given up waiting, here and below.
            Mail::Sessions { which, from, to } => {
                let sessions = self
                    .server
                    .sessions(now, from, PAGE, |holder| which(holder));
                let _ = to.send(sessions);
            }
            Mail::End { which, reason, to } => {
                let which = |holder: &Holder<'_>| which(holder);
                let relays = &mut self.sockets;
                let _ = to.send(self.server.end_sessions(now, reason, which, relays));
            }
            Mail::Ask(inquiry) => self.answer_inquiry(now, inquiry),
            Mail::Report(to) => {
                let _ = to.send(self.report(now));
            }
            Mail::Stop => {}
        }
    }

    /// What is due by time, and what the machine has to tell.
    fn keep_house(&mut self, now: Now) {
        if self
            .server
            .poll_timeout()
            .is_some_and(|due| due <= now.instant)
        {
            self.server.handle_timeout(now, &mut self.sockets);
        }
        let server = &self.server;
        self.streams.expire(now.instant, |five_tuple| {
            server.has_allocation(five_tuple) || server.elsewhere(now, five_tuple).is_some()
        });
        self.expire_associations(now);
        if self.times.tick <= now.instant {
            self.times.tick = now.instant + TICK;
            if self.number == 0 {
                self.keep_shared_house(now.instant);
            }
        }
        self.tell_events(now);
    }

    /// Ends every session, after a panic, for those who keep books of them.
    pub(super) fn close_books(&mut self) {
        let now = read_clock();
        let reason = EndReason::WorkerFailed;
        self.server
            .end_sessions(now, reason, |_| true, &mut self.sockets);
        self.tell_events(now);
    }

    fn tell_events(&mut self, now: Now) {
        while let Some(event) = self.server.poll_event() {
            match event {
                Event::Move(result) => self.cells.moved(result),
                Event::Left(client) => self.part_from(client),
                Event::Released(ref ended) => self.cells.ended(ended.reason),
                Event::Allocated(_) | Event::Connect(_) | Event::Moved(_) => {}
            }
            log::event(&event);
            match event {
                Event::Connect(connect) => self.connect(now, *connect),
                Event::Allocated(allocated) => self.began(now, allocated),
                Event::Released(ended) => self.ended(now, ended),
                Event::Left(_) | Event::Move(_) | Event::Moved(_) => {}
            }
        }
    }

    /// What only one worker has to do.
    fn keep_shared_house(&mut self, now: Instant) {
        self.shared.reservations.expire(now, &self.shared.ports);
        self.shared.unclaimed.expire(now);
        if self.times.addresses <= now {
            self.times.addresses = now + ADDRESSES;
            match super::own_addresses() {
                Ok(own) => self.shared.ports.set_own_addresses(own),
                Err(error) => {
                    warn!(%error, "cannot list this machine's addresses; the last list stays in use")
                }
            }
        }
    }
}

/// The next connection on any listener, from `first` on. Safe to cancel.
async fn accept(
    acceptors: &[Acceptor],
    first: usize,
) -> (usize, io::Result<(TcpStream, SocketAddr)>) {
    std::future::poll_fn(|context| {
        let all = acceptors.iter().enumerate();
        let first = first.min(acceptors.len());
        for (number, acceptor) in all.clone().skip(first).chain(all.take(first)) {
            if let Poll::Ready(accepted) = acceptor.socket.poll_accept(context) {
                return Poll::Ready((number, accepted));
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn listeners_take_turns() {
        let mut acceptors = Vec::new();
        let mut clients = Vec::new();
        for _ in 0..3 {
            let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let at = socket.local_addr().unwrap();
            clients.extend((0..2).map(|_| std::net::TcpStream::connect(at).unwrap()));
            let listen = Arc::new(Listen::new(at, Transport::Tcp));
            acceptors.push(Acceptor { socket, listen });
        }
        let mut turn = 0;
        let mut taken = Vec::new();
        for _ in 0..6 {
            let (number, accepted) = accept(&acceptors, turn).await;
            accepted.unwrap();
            taken.push(number);
            turn = number + 1;
        }
        assert_eq!(taken, [0, 1, 2, 0, 1, 2]);
    }
}
