//! The bare forwarder: what a relay costs that does nothing but move datagrams.
//!
//! One listening socket for all clients and one socket per allocation, as a TURN relay must have them; the flows are told
//! to it, so there is no parsing beyond the four bytes of ChannelData, no authentication and no timer. It is the measure
//! of what the kernel's sockets allow. It runs as a process of its own: the benchmark starts itself again.

use std::{
    collections::HashMap,
    error::Error,
    io::{self, BufRead, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    os::fd::{AsRawFd, RawFd},
};

use foldhash::fast::RandomState;
use socket2::{Domain, Protocol, Socket, Type};

use super::sys::{self, Batch, Epoll, HEADROOM};

/// How the forwarder uses its sockets; the defaults are the fastest found.
#[derive(Clone, Debug)]
pub(crate) struct Technique {
    /// Datagrams taken from the listening socket, and sent through it, by one call; 1 for `recvmsg` and `sendto`.
    batch: usize,
    /// Datagrams taken from a relay socket by one call. Fewer than asked for means that it is empty.
    relay_batch: usize,
    /// Edge-triggered readiness: a level-triggered poll looks at every socket twice.
    edge: bool,
    /// Takes and sends runs of datagrams as one.
    gro: bool,
    /// DF on everything: spares the kernel the choice of an IP identification for each datagram. Off, as a TURN
    /// relay's sockets are (RFC 8656 §14).
    never_fragment: bool,
    /// Connects relay sockets to their peers. Saves a route look-up; a TURN relay with several peers cannot.
    connect: bool,
    /// Sends neighbours of one size for one destination as one segmented datagram.
    coalesce: bool,
}

impl Technique {
    pub(crate) fn parse(options: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut technique = Self {
            batch: 64,
            relay_batch: 16,
            edge: true,
            gro: true,
            never_fragment: false,
            connect: false,
            coalesce: true,
        };
        for option in options {
            let (name, value) = option.split_once('=').ok_or("name=value")?;
            match name {
                "batch" => technique.batch = value.parse()?,
                "relay-batch" => technique.relay_batch = value.parse()?,
                "edge" => technique.edge = value.parse()?,
                "gro" => technique.gro = value.parse()?,
                "never-fragment" => technique.never_fragment = value.parse()?,
                "coalesce" => technique.coalesce = value.parse()?,
                "connect" => technique.connect = value.parse()?,
                _ => return Err(format!("the forwarder has no option {name}").into()),
            }
        }
        Ok(technique)
    }
}

/// One channel: what a client's channel number, or a peer's address, stands for.
struct Flow {
    client: SocketAddrV4,
    channel: u16,
    peer: SocketAddrV4,
    allocation: usize,
}

struct Forwarder {
    technique: Technique,
    listener: UdpSocket,
    relays: Vec<UdpSocket>,
    flows: Vec<Flow>,
    by_channel: HashMap<(SocketAddrV4, u16), u32, RandomState>,
    by_peer: HashMap<(usize, SocketAddrV4), u32, RandomState>,
    up: Batch,
    down: Batch,
    /// How many slots of `down` are not to be sent by the next flush.
    done: usize,
}

/// Runs the forwarder: tells its address, reads `client channel peer allocation` lines up to `end`, tells the relayed
/// ports, and forwards until it is killed.
pub(crate) fn run(options: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    sys::raise_descriptor_limit()?;
    let technique = Technique::parse(options)?;
    let mut out = io::stdout().lock();
    let listener = open(&technique)?;
    writeln!(out, "{}", listener.local_addr()?)?;
    out.flush()?;
    let mut flows = Vec::new();
    for line in io::stdin().lock().lines() {
        let line = line?;
        if line == "end" {
            break;
        }
        let mut words = line.split_whitespace();
        let mut next = || words.next().ok_or("four words");
        flows.push(Flow {
            client: next()?.parse()?,
            channel: next()?.parse()?,
            peer: next()?.parse()?,
            allocation: next()?.parse()?,
        });
    }
    let mut forwarder = Forwarder::new(technique, listener, flows)?;
    for relay in &forwarder.relays {
        writeln!(out, "{}", relay.local_addr()?)?;
    }
    out.flush()?;
    forwarder.forward()
}

fn open(technique: &Technique) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    if technique.gro {
        sys::set_gro(socket.as_raw_fd())?;
    }
    sys::set_never_fragment(socket.as_raw_fd(), technique.never_fragment)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    Ok(socket.into())
}

const RECEIVE_BUFFER: usize = 4 << 20;
const FOREVER: i32 = -1;
/// The identifier of the listening socket; relay sockets are told by their allocation.
const LISTENER: u64 = u64::MAX;

impl Forwarder {
    fn new(technique: Technique, listener: UdpSocket, flows: Vec<Flow>) -> io::Result<Self> {
        let allocations = flows
            .iter()
            .map(|flow| flow.allocation + 1)
            .max()
            .unwrap_or(0);
        let mut by_channel = HashMap::default();
        let mut by_peer = HashMap::default();
        let mut relays = Vec::with_capacity(allocations);
        for _ in 0..allocations {
            relays.push(open(&technique)?);
        }
        for (index, flow) in flows.iter().enumerate() {
            by_channel.insert((flow.client, flow.channel), index as u32);
            by_peer.insert((flow.allocation, flow.peer), index as u32);
            if technique.connect {
                relays[flow.allocation].connect(flow.peer)?;
            }
        }
        let slot = if technique.gro { 65_536 + 64 } else { 2048 };
        let up = Batch::new(technique.batch, slot, technique.gro);
        let down = Batch::new(
            technique.batch.max(technique.relay_batch),
            slot,
            technique.gro,
        );
        Ok(Self {
            technique,
            listener,
            relays,
            flows,
            by_channel,
            by_peer,
            up,
            down,
            done: 0,
        })
    }

    fn forward(&mut self) -> Result<(), Box<dyn Error>> {
        let mut epoll = Epoll::new(64)?;
        epoll.add(self.listener.as_raw_fd(), LISTENER, self.technique.edge)?;
        for (index, relay) in self.relays.iter().enumerate() {
            epoll.add(relay.as_raw_fd(), index as u64, self.technique.edge)?;
        }
        // An edge is told once, so what is left behind has to be remembered.
        let mut listener_ready = false;
        loop {
            let count = epoll.wait(if listener_ready { 0 } else { FOREVER })?;
            for event in 0..count {
                match epoll.id(event) {
                    LISTENER => listener_ready = true,
                    relay => self.relay_from_peers(relay as usize),
                }
            }
            self.flush_to_clients();
            if listener_ready {
                listener_ready = self.relay_from_clients() && self.technique.edge;
            }
        }
    }

    /// Relays one batch from the clients; true if there may be more. The relay sockets have their turn in between.
    fn relay_from_clients(&mut self) -> bool {
        let received = receive(
            &mut self.up,
            self.listener.as_raw_fd(),
            self.technique.batch,
        );
        self.send_to_peers();
        self.up.clear();
        received == self.technique.batch
    }

    fn send_to_peers(&mut self) {
        let mut run: Option<(RawFd, usize, usize)> = None;
        for index in 0..self.up.len() {
            let received = self.up.received(index);
            let payload = self.up.payload(index);
            let Some((&[a, b, c, d], _)) = payload.split_first_chunk() else {
                continue;
            };
            let channel = u16::from_be_bytes([a, b]);
            let Some(&flow) = self.by_channel.get(&(received.from, channel)) else {
                continue;
            };
            let flow = &self.flows[flow as usize];
            let relay = self.relays[flow.allocation].as_raw_fd();
            if let Some(segment) = received.segment.filter(|&segment| segment < received.len) {
                let _ = self.up.send_stripped(relay, index, segment, flow.peer);
                continue;
            }
            let len = usize::from(u16::from_be_bytes([c, d]));
            if len + 4 > received.len {
                continue;
            }
            let to = (!self.technique.connect).then_some(flow.peer);
            self.up.redirect(index, HEADROOM + 4, len, to, None);
            match &mut run {
                Some((socket, at, count)) if *socket == relay && *at + *count == index => {
                    *count += 1
                }
                _ => {
                    if let Some((socket, at, count)) = run.replace((relay, index, 1)) {
                        send(&mut self.up, socket, at, count, self.technique.coalesce);
                    }
                }
            }
        }
        if let Some((socket, at, count)) = run {
            send(&mut self.up, socket, at, count, self.technique.coalesce);
        }
    }

    fn relay_from_peers(&mut self, allocation: usize) {
        let relay = self.relays[allocation].as_raw_fd();
        loop {
            if self.down.room() < self.technique.relay_batch {
                self.flush_to_clients();
            }
            let at = self.down.len();
            let count = receive(&mut self.down, relay, self.technique.relay_batch);
            for index in at..at + count {
                self.frame(allocation, index);
            }
            if count < self.technique.relay_batch || !self.technique.edge {
                return;
            }
        }
    }

    /// Makes a ChannelData message of what a peer sent.
    fn frame(&mut self, allocation: usize, index: usize) {
        let received = self.down.received(index);
        let Some(&flow) = self.by_peer.get(&(allocation, received.from)) else {
            self.skip(index);
            return;
        };
        let flow = &self.flows[flow as usize];
        if let Some(segment) = received.segment.filter(|&segment| segment < received.len) {
            let listener = self.listener.as_raw_fd();
            let _ = self
                .down
                .send_framed(listener, index, segment, flow.channel, flow.client);
            self.skip(index);
            return;
        }
        let head = sys::channel_header(flow.channel, received.len);
        self.down.with_headroom(index)[..4].copy_from_slice(&head);
        self.down
            .redirect(index, 0, received.len + 4, Some(flow.client), None);
    }

    fn skip(&mut self, index: usize) {
        self.down.redirect(index, 0, 0, None, None);
        self.done += 1;
    }

    fn flush_to_clients(&mut self) {
        let listener = self.listener.as_raw_fd();
        let count = if self.done == self.down.len() {
            0
        } else {
            self.down.len()
        };
        self.done = 0;
        send(&mut self.down, listener, 0, count, self.technique.coalesce);
        self.down.clear();
    }
}

fn receive(batch: &mut Batch, socket: RawFd, max: usize) -> usize {
    let result = if max == 1 {
        batch.receive_one(socket)
    } else {
        batch.receive(socket, max)
    };
    result.unwrap_or(0)
}

/// Sends a run; a datagram that the kernel refuses is dropped, as a relay would.
fn send(batch: &mut Batch, socket: RawFd, mut at: usize, count: usize, coalesce: bool) {
    let end = at + count;
    while at < end {
        if !coalesce {
            send_plain(batch, socket, at, end - at);
            return;
        }
        let count = batch.run_length(at, end);
        if count > 1 {
            let _ = batch.send_run(socket, at, count);
            at += count;
            continue;
        }
        let mut singles = 1;
        while at + singles < end && batch.run_length(at + singles, end) == 1 {
            singles += 1;
        }
        send_plain(batch, socket, at, singles);
        at += singles;
    }
}

fn send_plain(batch: &mut Batch, socket: RawFd, mut at: usize, mut count: usize) {
    if count == 1 {
        // One datagram costs less by `sendto` than by `sendmmsg`.
        let _ = batch.send_to(socket, at);
        return;
    }
    while count > 0 {
        let sent = batch.send(socket, at, count).unwrap_or(0).max(1);
        at += sent;
        count -= sent;
    }
}
