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

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use super::Shared;
use super::mail::{Mail, Mailbox, Parcel, Report};
use super::outbox::{Body, By, Counted, Entry, Outbox};
use super::sockets::{Ready, Sockets};
use super::stream::{StreamEvent, Streams};
use super::udp::{BATCH, Inbox};
use crate::metrics::{Cells, Direction, SocketError};
use crate::turn::{
    Cause, Client, Ended, Event, Family, FiveTuple, Now, Path, RelayId, Server, Transport, Verdict,
};

/// The runtime's own work (connections, timers) gets its turn after this many rounds at the latest.
const ROUNDS: u32 = 8;
/// The longest sleep: housekeeping is due about once a second.
const TICK: Duration = Duration::from_secs(1);
/// Pause after the kernel refused a connection, for want of descriptors most likely (A33).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the machine's own addresses are looked up again.
const ADDRESSES: Duration = Duration::from_secs(10);
/// How many datagrams a relay is asked for at once: most have one, few have many.
const RELAY_BATCH: u16 = 4;
/// The same for a relay in a burst.
const RELAY_BURST: u16 = 32;

/// A listening TCP socket.
pub(super) struct Acceptor {
    pub(super) socket: TcpListener,
    pub(super) tls: bool,
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

/// Where a packet came from, as far as counting and answering need it.
#[derive(Clone, Copy)]
struct Origin {
    transport: Transport,
    family: Family,
}

/// A worker's state.
pub(super) struct Worker<'a> {
    pub(super) number: usize,
    pub(super) server: Server,
    pub(super) sockets: Sockets,
    pub(super) acceptors: Vec<Acceptor>,
    pub(super) streams: Streams,
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
    pub(super) async fn run(mut self, mailbox: &mut Mailbox) {
        let mut now = read_clock();
        let mut rounds = 0;
        loop {
            let wake = self.wait(mailbox, now.instant).await;
            now = read_clock();
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
            self.flush();
            rounds += 1;
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
            (acceptor, accepted) = accept(&self.acceptors), if accepting => Wake::Accepted(acceptor, accepted),
            () = self.sockets.readable(), if self.ready.is_empty() => Wake::Sockets,
            () = std::future::ready(()), if !self.ready.is_empty() => Wake::Sockets,
            () = tokio::time::sleep_until(deadline.into()) => Wake::Timeout,
        }
    }

    fn deadline(&self, now: Instant) -> Instant {
        let machine = self.server.poll_timeout();
        let accept = (self.times.accept > now).then_some(self.times.accept);
        let others = [machine, self.streams.deadline(), accept];
        others
            .into_iter()
            .flatten()
            .fold(self.times.tick, Instant::min)
    }

    /// Takes in what is there without waiting, from each source at most a batch.
    fn take_in(&mut self, now: Now, mailbox: &mut Mailbox) {
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
            Ready::Listener(number) => self.receive_clients(now, *number),
            Ready::Relay(relay) => self.receive_peers(now, *relay),
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
                transport: Transport::Udp,
                client: received.from,
                server,
            };
            let client = Client {
                five_tuple,
                path: Path(number as u32),
            };
            for datagram in received.datagrams() {
                self.client_input(now, client, Body::Slot(slot, datagram));
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
        for slot in slots {
            let received = self.inbox.received(slot);
            for datagram in received.datagrams() {
                self.peer_input(now, relay, received.from, &Body::Slot(slot, datagram));
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

    fn client_input(&mut self, now: Now, client: Client, input: Body) {
        let reply = self.outbox.replies.len();
        let bytes = input.bytes(&self.inbox, &[]);
        let verdict = self.server.client_input(
            now,
            client,
            bytes,
            &mut self.sockets,
            &mut self.outbox.replies,
        );
        match verdict {
            Verdict::ToPeer {
                relay,
                peer,
                body,
                dont_fragment,
            } => {
                let origin = Origin {
                    transport: client.five_tuple.transport,
                    family: Family::of(peer.ip()),
                };
                let body = input.part(body);
                if self.sockets.ports().is_relay_address(peer.ip()) {
                    self.hand_over(now, relay, peer, &body, origin);
                } else {
                    let counted =
                        Counted::Relayed(Direction::ToPeer, origin.transport, origin.family);
                    let by = By::Relay(relay);
                    self.push(Entry {
                        by,
                        to: peer,
                        from: None,
                        head: None,
                        body,
                        pad: 0,
                        dont_fragment,
                        counted,
                    });
                }
            }
            Verdict::Reply(answer) => {
                self.cells
                    .answered(answer.method, answer.code, answer.refusal);
                if answer.authenticated && self.streams.owns(answer.to.path) {
                    self.streams.trust(answer.to.path);
                }
                self.answer(
                    now,
                    answer.to,
                    Body::Reply(reply..self.outbox.replies.len()),
                );
            }
            Verdict::Drop(cause) => self.cells.dropped(cause),
            Verdict::ToClient { .. } => {
                debug_assert!(false, "a client's packet never goes to a client directly")
            }
        }
    }

    fn peer_input(&mut self, now: Now, relay: RelayId, peer: SocketAddr, input: &Body) {
        match self.server.peer_input(now, relay, peer, input.len()) {
            Verdict::ToClient {
                to,
                head,
                body,
                pad,
            } => {
                let origin = Origin {
                    transport: to.five_tuple.transport,
                    family: Family::of(peer.ip()),
                };
                let counted =
                    Counted::Relayed(Direction::ToClient, origin.transport, origin.family);
                let body = input.part(body);
                if self.streams.owns(to.path) {
                    self.stream_to_client(now, to, head.as_slice(), &body, pad, origin);
                } else {
                    let mut entry = self.to_client(to, body, counted);
                    (entry.head, entry.pad) = (Some(head), pad);
                    self.push(entry);
                }
            }
            Verdict::Drop(cause) => self.cells.dropped(cause),
            Verdict::ToPeer { .. } | Verdict::Reply(_) => {
                debug_assert!(false, "a peer's packet goes to its client or nowhere");
            }
        }
    }

    /// Brings a packet to another relay of this server without the network: the same worker's at once,
    /// another worker's by mail. To an address of ours that is no relay nothing goes (A06).
    fn hand_over(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: SocketAddr,
        body: &Body,
        origin: Origin,
    ) {
        let owner = self.sockets.ports().owner(peer);
        let from = self.sockets.relay(relay).map(|socket| socket.advertised());
        let (Some(owner), Some(from)) = (owner, from) else {
            self.cells.dropped(Cause::UnreachablePeer);
            return;
        };
        let bytes = body.len();
        if owner.worker == self.number {
            self.peer_input(now, owner.relay, from, body);
        } else {
            let payload = Bytes::copy_from_slice(body.bytes(&self.inbox, &[]));
            let parcel = Parcel {
                relay: owner.relay,
                to: peer,
                from,
                bytes: payload,
            };
            if self.shared.addresses[owner.worker]
                .parcels
                .try_send(parcel)
                .is_err()
            {
                self.cells.socket_error(SocketError::Full);
                return;
            }
        }
        self.cells
            .relayed(Direction::ToPeer, origin.transport, origin.family, bytes);
    }

    fn take_parcel(&mut self, now: Now, parcel: Parcel) {
        // The relay may have ended and its number been given out again on the way.
        let same = self
            .sockets
            .relay(parcel.relay)
            .is_some_and(|relay| relay.advertised().port() == parcel.to.port());
        if same {
            let all = 0..parcel.bytes.len();
            self.peer_input(
                now,
                parcel.relay,
                parcel.from,
                &Body::Shared(parcel.bytes, all),
            );
        } else {
            self.cells.dropped(Cause::UnreachablePeer);
        }
    }

    fn take_stream(&mut self, now: Now, event: StreamEvent) {
        match event {
            StreamEvent::Frame(path, bytes) => {
                let Some(client) = self.streams.client(path) else {
                    return;
                };
                let all = 0..bytes.len();
                self.client_input(now, client, Body::Shared(bytes, all));
            }
            StreamEvent::Handshake(ok) => self.cells.handshakes.count(ok),
            StreamEvent::Closed(path) => {
                if let Some(five_tuple) = self.streams.closed(path) {
                    self.server.client_gone(now, &five_tuple, &mut self.sockets);
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
        match accepted {
            Ok((stream, from)) => {
                let tls = self.acceptors[acceptor].tls;
                let config = self
                    .shared
                    .tls
                    .load_full()
                    .filter(|_| tls)
                    .map(TlsAcceptor::from);
                // A TLS listener without a certificate takes nobody.
                let taken =
                    (config.is_some() || !tls) && self.streams.accept(now, stream, from, config);
                self.cells.streams.count(taken);
            }
            Err(error) => {
                self.cells.socket_error(SocketError::of(&error));
                debug!(%error, "connection refused by the kernel");
                self.times.accept = now + ACCEPT_PAUSE;
            }
        }
    }

    fn answer(&mut self, now: Now, to: Client, body: Body) {
        if self.streams.owns(to.path) {
            let bytes = body.bytes(&self.inbox, &self.outbox.replies);
            let dropped = self
                .streams
                .send(now.instant, to.path, [bytes, &[], &[]], true);
            self.count_queue_drops(dropped);
        } else {
            let entry = self.to_client(to, body, Counted::Answer);
            self.push(entry);
        }
    }

    fn stream_to_client(
        &mut self,
        now: Now,
        to: Client,
        head: &[u8],
        body: &Body,
        pad: usize,
        origin: Origin,
    ) {
        const PADDING: [u8; 3] = [0; 3];
        let bytes = body.bytes(&self.inbox, &[]);
        let dropped =
            self.streams
                .send(now.instant, to.path, [head, bytes, &PADDING[..pad]], false);
        self.count_queue_drops(dropped);
        self.cells.relayed(
            Direction::ToClient,
            origin.transport,
            origin.family,
            body.len(),
        );
    }

    fn count_queue_drops(&mut self, dropped: usize) {
        for _ in 0..dropped {
            self.cells.socket_error(SocketError::Full);
        }
    }

    fn to_client(&self, to: Client, body: Body, counted: Counted) -> Entry {
        let listener = self.sockets.listeners.get(to.path.0 as usize);
        let wildcard = listener.is_some_and(|listener| listener.address.ip().is_unspecified());
        Entry {
            by: By::Listener(to.path.0),
            to: to.five_tuple.client,
            from: wildcard.then_some(to.five_tuple.server.ip()),
            head: None,
            body,
            pad: 0,
            dont_fragment: false,
            counted,
        }
    }

    fn push(&mut self, entry: Entry) {
        self.outbox.push(entry);
    }

    /// Sends what was decided; the inbox and the replies are free again after it.
    fn flush(&mut self) {
        self.outbox.send(&self.inbox, &self.sockets, self.cells);
        self.inbox.clear();
    }

    fn open_mail(&mut self, now: Now, mail: Mail) {
        match mail {
            Mail::Settings(settings) => {
                self.server
                    .replace_settings(now, settings, &mut self.sockets)
            }
            Mail::Drain(on) => self.server.drain(on),
            Mail::Report(to) => {
                let report = Report {
                    cells: self.cells.clone(),
                    census: self.server.census(now),
                };
                // Whoever asked may have given up waiting.
                let _ = to.send(report);
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
        self.streams
            .expire(now.instant, |five_tuple| server.has_allocation(five_tuple));
        if self.times.tick <= now.instant {
            self.times.tick = now.instant + TICK;
            if self.number == 0 {
                self.keep_shared_house(now.instant);
            }
        }
        while let Some(event) = self.server.poll_event() {
            log(&event);
        }
    }

    /// What only one worker has to do.
    fn keep_shared_house(&mut self, now: Instant) {
        self.shared.reservations.expire(now, &self.shared.ports);
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

/// The next connection on any listener. Safe to cancel.
async fn accept(acceptors: &[Acceptor]) -> (usize, io::Result<(TcpStream, SocketAddr)>) {
    std::future::poll_fn(|context| {
        for (number, acceptor) in acceptors.iter().enumerate() {
            if let Poll::Ready(accepted) = acceptor.socket.poll_accept(context) {
                return Poll::Ready((number, accepted));
            }
        }
        Poll::Pending
    })
    .await
}

/// One line for each allocation's end; its beginning is a detail.
fn log(event: &Event) {
    match event {
        Event::Allocated(allocated) => debug!(
            user = %allocated.username.escape_ascii(),
            transport = allocated.five_tuple.transport.label(),
            lifetime = allocated.lifetime.as_secs(),
            "allocated"
        ),
        Event::Released(ended) => log_end(ended),
    }
}

fn log_end(ended: &Ended) {
    /// User names are the clients' words: escaped, and cut (A45).
    const SHOWN: usize = 64;
    let user = &ended.username[..ended.username.len().min(SHOWN)];
    let relay = ended.relays.first().map(|(_, address)| *address);
    info!(
        user = %user.escape_ascii(),
        client = %ended.five_tuple.client,
        transport = ended.five_tuple.transport.label(),
        relay = relay.map(tracing::field::display),
        reason = ended.reason.label(),
        seconds = ended.age.as_secs(),
        to_peer_packets = ended.to_peer.packets,
        to_peer_bytes = ended.to_peer.bytes,
        to_client_packets = ended.to_client.packets,
        to_client_bytes = ended.to_client.bytes,
        "allocation ended"
    );
}
