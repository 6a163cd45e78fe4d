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
    batch: usize,
    relay_batch: usize,
    events: usize,
    edge: bool,
    drain: bool,
    connect: bool,
    gro: bool,
    packet_info: bool,
    receive_buffer: usize,
    send: Send,
    spin: bool,
    busy_poll: i32,
    flush_each: bool,
    never_fragment: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Send {
    /// One `sendto` per datagram.
    To,
    /// One `sendmsg` per datagram.
    Message,
    /// `sendmmsg` per run of datagrams for one socket.
    Batch,
}

impl Technique {
    pub(crate) fn parse(options: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut technique = Self {
            batch: 64,
            relay_batch: 16,
            events: 64,
            edge: false,
            drain: false,
            connect: false,
            gro: true,
            packet_info: false,
            receive_buffer: 4 << 20,
            send: Send::Batch,
            spin: false,
            busy_poll: 0,
            flush_each: false,
            never_fragment: false,
        };
        for option in options {
            let (name, value) = option.split_once('=').ok_or("name=value")?;
            match name {
                "batch" => technique.batch = value.parse()?,
                "relay-batch" => technique.relay_batch = value.parse()?,
                "events" => technique.events = value.parse()?,
                "edge" => technique.edge = value.parse()?,
                "drain" => technique.drain = value.parse()?,
                "connect" => technique.connect = value.parse()?,
                "gro" => technique.gro = value.parse()?,
                "packet-info" => technique.packet_info = value.parse()?,
                "receive-buffer" => technique.receive_buffer = value.parse()?,
                "spin" => technique.spin = value.parse()?,
                "busy-poll" => technique.busy_poll = value.parse()?,
                "flush-each" => technique.flush_each = value.parse()?,
                "never-fragment" => technique.never_fragment = value.parse()?,
                "send" => {
                    technique.send = match value {
                        "to" => Send::To,
                        "message" => Send::Message,
                        "batch" => Send::Batch,
                        _ => return Err("send=to|message|batch".into()),
                    }
                }
                _ => return Err(format!("unknown option {name}").into()),
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
    by_peer: Vec<Vec<(SocketAddrV4, u32)>>,
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
    socket.set_recv_buffer_size(technique.receive_buffer)?;
    if technique.gro {
        sys::set_gro(socket.as_raw_fd())?;
    }
    if technique.never_fragment {
        sys::set_never_fragment(socket.as_raw_fd())?;
    }
    if technique.busy_poll > 0 {
        sys::set_busy_poll(socket.as_raw_fd(), technique.busy_poll)?;
    }
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    Ok(socket.into())
}

const LISTENER: u64 = u64::MAX;

impl Forwarder {
    fn new(technique: Technique, listener: UdpSocket, flows: Vec<Flow>) -> io::Result<Self> {
        if technique.packet_info {
            sys::set_packet_info(listener.as_raw_fd())?;
        }
        let allocations = flows.iter().map(|flow| flow.allocation + 1).max().unwrap_or(0);
        let mut by_channel = HashMap::default();
        let mut by_peer = vec![Vec::new(); allocations];
        let mut relays = Vec::with_capacity(allocations);
        for _ in 0..allocations {
            relays.push(open(&technique)?);
        }
        for (index, flow) in flows.iter().enumerate() {
            by_channel.insert((flow.client, flow.channel), index as u32);
            by_peer[flow.allocation].push((flow.peer, index as u32));
            if technique.connect {
                relays[flow.allocation].connect(flow.peer)?;
            }
        }
        let slot = if technique.gro { 65_536 + 64 } else { 2048 };
        let control = technique.gro || technique.packet_info;
        let up = Batch::new(technique.batch, slot, control);
        let down = Batch::new(technique.batch.max(technique.relay_batch), slot, control);
        Ok(Self { technique, listener, relays, flows, by_channel, by_peer, up, down, done: 0 })
    }

    fn forward(&mut self) -> Result<(), Box<dyn Error>> {
        let mut epoll = Epoll::new(self.technique.events)?;
        epoll.add(self.listener.as_raw_fd(), LISTENER, self.technique.edge)?;
        for (index, relay) in self.relays.iter().enumerate() {
            epoll.add(relay.as_raw_fd(), index as u64, self.technique.edge)?;
        }
        let timeout = if self.technique.spin { 0 } else { -1 };
        loop {
            let count = epoll.wait(timeout)?;
            for event in 0..count {
                match epoll.id(event) {
                    LISTENER => self.from_clients(),
                    relay => self.from_peers(relay as usize),
                }
            }
            self.flush_to_clients();
        }
    }

    fn from_clients(&mut self) {
        loop {
            let received = receive(&mut self.up, self.listener.as_raw_fd(), self.technique.batch);
            self.send_to_peers();
            self.up.clear();
            if received < self.technique.batch || !(self.technique.drain || self.technique.edge) {
                return;
            }
        }
    }

    fn send_to_peers(&mut self) {
        let mut run: Option<(RawFd, usize, usize)> = None;
        for index in 0..self.up.len() {
            let received = self.up.received(index);
            let payload = self.up.payload(index);
            let Some((&[a, b, c, d], _)) = payload.split_first_chunk() else { continue };
            let channel = u16::from_be_bytes([a, b]);
            let Some(&flow) = self.by_channel.get(&(received.from, channel)) else { continue };
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
            match self.technique.send {
                Send::To => drop(self.up.send_to(relay, index)),
                Send::Message => drop(self.up.send_one(relay, index)),
                Send::Batch => match &mut run {
                    Some((socket, at, count)) if *socket == relay && *at + *count == index => *count += 1,
                    _ => {
                        if let Some((socket, at, count)) = run.replace((relay, index, 1)) {
                            send(&mut self.up, socket, at, count);
                        }
                    }
                },
            }
        }
        if let Some((socket, at, count)) = run {
            send(&mut self.up, socket, at, count);
        }
    }

    fn from_peers(&mut self, allocation: usize) {
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
            if self.technique.flush_each {
                self.flush_to_clients();
            }
            if count < self.technique.relay_batch || !(self.technique.drain || self.technique.edge) {
                return;
            }
        }
    }

    /// Makes a ChannelData message of what a peer sent.
    fn frame(&mut self, allocation: usize, index: usize) {
        let received = self.down.received(index);
        let flow = self.by_peer[allocation].iter().find(|(peer, _)| *peer == received.from);
        let Some(&(_, flow)) = flow else {
            self.skip(index);
            return;
        };
        let flow = &self.flows[flow as usize];
        if let Some(segment) = received.segment.filter(|&segment| segment < received.len) {
            let listener = self.listener.as_raw_fd();
            let _ = self.down.send_framed(listener, index, segment, flow.channel, flow.client);
            self.skip(index);
            return;
        }
        let head = sys::channel_header(flow.channel, received.len);
        self.down.with_headroom(index)[..4].copy_from_slice(&head);
        self.down.redirect(index, 0, received.len + 4, Some(flow.client), None);
    }

    fn skip(&mut self, index: usize) {
        self.down.redirect(index, 0, 0, None, None);
        self.done += 1;
    }

    fn flush_to_clients(&mut self) {
        let listener = self.listener.as_raw_fd();
        let count = if self.done == self.down.len() { 0 } else { self.down.len() };
        self.done = 0;
        match self.technique.send {
            Send::To => (0..count).for_each(|index| drop(self.down.send_to(listener, index))),
            Send::Message => (0..count).for_each(|index| drop(self.down.send_one(listener, index))),
            Send::Batch => send(&mut self.down, listener, 0, count),
        }
        self.down.clear();
    }
}

fn receive(batch: &mut Batch, socket: RawFd, max: usize) -> usize {
    let result = if max == 1 { batch.receive_one(socket) } else { batch.receive(socket, max) };
    result.unwrap_or(0)
}

/// Sends a run; a datagram that the kernel refuses is dropped, as a relay would.
fn send(batch: &mut Batch, socket: RawFd, mut at: usize, mut count: usize) {
    while count > 0 {
        let sent = batch.send(socket, at, count).unwrap_or(0).max(1);
        at += sent;
        count -= sent;
    }
}
