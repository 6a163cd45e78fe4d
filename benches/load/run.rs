//! Runs one scenario against one server.

use std::{error::Error, fmt::Write as _, os::fd::AsRawFd};

use super::{
    client::{Answer, BINDING, COOKIE, DATA_INDICATION, Message, SEND_INDICATION, SUCCESS},
    crowd::{Crowd, FIRST_CHANNEL, Outcome, Script, Session, Until, peer_of},
    field::{self, Field},
    generator::{self, Lane, MAGIC, Run, Test, Trickle},
    measure::{self, Usage},
    scenarios::{Framing, Load, Relay},
    servers::{Kind, SERVER_CORE, Server},
    sys::{self, Batch},
};

/// What one run of a scenario came to.
#[derive(Clone, Debug)]
pub(crate) enum Sample {
    Throughput(Throughput),
    /// The same load on one channel and on 64.
    Channels { one: Throughput, many: Throughput },
    Memory { bytes: f64 },
    /// In microseconds.
    Latency { p50: f64, p99: f64, loss: f64 },
}

/// A rate at saturation and what it cost. Shares are of the wall-clock time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Throughput {
    pub(crate) per_second: f64,
    /// Processor time of the server for each packet, in nanoseconds; zero if its process is not known.
    pub(crate) nanoseconds: f64,
    pub(crate) loss: f64,
    /// How much of the time the server ran.
    pub(crate) busy: f64,
    /// How much of the time the server could have run but something else had its core.
    pub(crate) delayed: f64,
    /// How much of the time the generator had nothing to do.
    pub(crate) generator_idle: f64,
    pub(crate) window: u64,
}

impl Throughput {
    /// What the server would do with all of its core.
    pub(crate) fn per_cpu_second(&self) -> f64 {
        if self.nanoseconds > 0.0 { 1e9 / self.nanoseconds } else { 0.0 }
    }
}

/// The most that may be lost.
const TOLERATED_LOSS: f64 = 0.001;
const WARM_UP: u64 = 100_000_000;
const SMALLEST_WINDOW: u64 = 32;
/// Packets handed to the kernel at a time.
const BATCH: usize = 32;

/// Whether a server can be measured so: the bare forwarder knows ChannelData only.
pub(crate) fn applies(load: Load, kind: Kind) -> bool {
    match load {
        Load::Bindings | Load::Cycles | Load::Memory => kind != Kind::Forwarder,
        Load::Relay(relay) => kind != Kind::Forwarder || relay.framing == Framing::ChannelData,
        Load::Channels | Load::Latency => true,
    }
}

/// Runs a scenario for `nanoseconds`; `window` is kept for the next round.
pub(crate) fn run(server: &mut Server, load: Load, nanoseconds: u64, window: &mut Option<u64>) -> Result<Sample, Box<dyn Error>> {
    let field = Field::open()?;
    let sample = match load {
        Load::Bindings => bindings(server, &field, nanoseconds, window)?,
        Load::Cycles => cycles(server, &field, nanoseconds)?,
        Load::Relay(relay) => {
            let sessions = establish(server, &field, &[(relay.allocations, relay.channels)])?;
            probe(server, &field, &flows(&sessions, relay), relay)?;
            set_sinks(&field, relay)?;
            let mut lanes = lanes(server, &field, &sessions, relay);
            Sample::Throughput(saturate(server, &mut lanes, nanoseconds, window.get_or_insert(relay.window))?)
        }
        Load::Channels => channels(server, &field, nanoseconds)?,
        Load::Memory => memory(server, &field)?,
        Load::Latency => latency(server, &field, nanoseconds)?,
    };
    match field::empty(&field.clients) + field::empty(&field.peers) {
        0 => Ok(sample),
        strays => Err(format!("{strays} datagrams came that were not as they must be").into()),
    }
}

fn bindings(server: &Server, field: &Field, nanoseconds: u64, window: &mut Option<u64>) -> Result<Sample, Box<dyn Error>> {
    let mut ring = Batch::new(256, 64, false);
    for client in 0..256_u16 {
        let mut id = *b"load binding";
        id[10..].copy_from_slice(&client.to_be_bytes());
        let request = Message::new(BINDING, id).finish();
        ring.push(&request, Some(*field.client(usize::from(client)).ip()), Some(server.address), None);
    }
    let socket = field.clients.as_raw_fd();
    generator::sink(&field.clients, &[Test::Half(0, BINDING | SUCCESS), Test::Word(4, COOKIE)])?;
    let mut lanes = [Lane::new(ring, socket, socket, 1, BATCH)];
    Ok(Sample::Throughput(saturate(server, &mut lanes, nanoseconds, window.get_or_insert(256))?))
}

fn cycles(server: &Server, field: &Field, nanoseconds: u64) -> Result<Sample, Box<dyn Error>> {
    let script = Script { channels: 1, release: true };
    let mut crowd = Crowd::new(field, server.address, &server.secret);
    crowd.run(script, Until::Time(WARM_UP))?;
    let before = Meter::read(server)?;
    let outcome = crowd.run(script, Until::Time(nanoseconds))?;
    let run = Run { nanoseconds: outcome.nanoseconds, delivered: outcome.done, lost: outcome.failed, ..Run::default() };
    if outcome.done == 0 {
        return Err(outcome.complaint.unwrap_or_else(|| "no cycle was finished".to_owned()).into());
    }
    let mut throughput = before.throughput(server, &run)?;
    throughput.loss = outcome.failed as f64 / (outcome.done + outcome.failed) as f64;
    Ok(Sample::Throughput(throughput))
}

/// Makes allocations in groups of (how many, with how many channels each), or tells the forwarder of them.
fn establish(server: &mut Server, field: &Field, groups: &[(usize, usize)]) -> Result<Vec<Session>, Box<dyn Error>> {
    if server.kind == Kind::Forwarder {
        return establish_at_forwarder(server, field, groups);
    }
    let mut crowd = Crowd::new(field, server.address, &server.secret);
    let mut sessions = Vec::new();
    for &(allocations, channels) in groups {
        let script = Script { channels, release: false };
        sessions.extend(live(crowd.run(script, Until::Clients(allocations))?, allocations)?);
    }
    Ok(sessions)
}

fn establish_at_forwarder(server: &mut Server, field: &Field, groups: &[(usize, usize)]) -> Result<Vec<Session>, Box<dyn Error>> {
    let mut flows = String::new();
    let mut client = 0;
    for &(allocations, channels) in groups {
        for _ in 0..allocations {
            for channel in 0..channels {
                let number = usize::from(FIRST_CHANNEL) + channel;
                let peer = field.peer(peer_of(client, channels, channel));
                writeln!(flows, "{} {number} {peer} {client}", field.client(client))?;
            }
            client += 1;
        }
    }
    let relays = server.tell_flows(&flows, client)?;
    Ok(relays.into_iter().enumerate().map(|(client, relayed)| Session { client, relayed }).collect())
}

fn live(outcome: Outcome, wanted: usize) -> Result<Vec<Session>, Box<dyn Error>> {
    if outcome.sessions.len() == wanted {
        return Ok(outcome.sessions);
    }
    let complaint = outcome.complaint.unwrap_or_default();
    Err(format!("{} of {wanted} allocations: {complaint}", outcome.sessions.len()).into())
}

/// One channel of a session, or a session without channels.
#[derive(Clone, Copy)]
struct Flow {
    session: Session,
    channel: u16,
    peer: usize,
}

/// The flows of a load: every channel of every session, or every session if there are no channels.
fn flows(sessions: &[Session], relay: Relay) -> Vec<Flow> {
    let mut flows = Vec::new();
    for channel in 0..relay.channels.max(1) {
        for &session in sessions {
            let peer = peer_of(session.client, relay.channels, channel);
            flows.push(Flow { session, channel: FIRST_CHANNEL + channel as u16, peer });
        }
    }
    flows
}

/// What a client sends for this payload to reach its peer.
fn framed(field: &Field, flow: &Flow, relay: Relay, payload: &[u8]) -> Vec<u8> {
    match relay.framing {
        Framing::ChannelData => [&sys::channel_header(flow.channel, payload.len())[..], payload].concat(),
        Framing::Indications => {
            Message::new(SEND_INDICATION, *b"load sending").peer(field.peer(flow.peer)).data(payload).finish()
        }
    }
}

fn set_sinks(field: &Field, relay: Relay) -> Result<(), Box<dyn Error>> {
    let size = relay.size as u32;
    let to_clients = match relay.framing {
        Framing::ChannelData => vec![Test::Between(0, 0x4000, 0x4fff), Test::Word(4, MAGIC), Test::Length(size + 4)],
        Framing::Indications => vec![Test::Half(0, DATA_INDICATION), Test::Word(4, COOKIE), Test::AtLeast(size + 36)],
    };
    generator::sink(&field.clients, &to_clients)?;
    generator::sink(&field.peers, &[Test::Word(0, MAGIC), Test::Length(size)])?;
    Ok(())
}

fn lanes(server: &Server, field: &Field, sessions: &[Session], relay: Relay) -> [Lane; 2] {
    let flows = flows(sessions, relay);
    let payload = generator::payload(relay.size);
    let slots = 256_usize.next_multiple_of(flows.len()).max(flows.len());
    let longest = framed(field, &flows[0], relay, &payload).len() * relay.burst;
    let mut up = Batch::new(slots, longest, false);
    let mut down = Batch::new(slots, payload.len() * relay.burst, false);
    for flow in flows.iter().cycle().take(slots) {
        let frame = framed(field, flow, relay, &payload);
        let segment = |len| (relay.burst > 1).then_some(len);
        let client = *field.client(flow.session.client).ip();
        let peer = *field.peer(flow.peer).ip();
        up.push(&frame.repeat(relay.burst), Some(client), Some(server.address), segment(frame.len()));
        down.push(&payload.repeat(relay.burst), Some(peer), Some(flow.session.relayed), segment(payload.len()));
    }
    let (clients, peers) = (field.clients.as_raw_fd(), field.peers.as_raw_fd());
    let batch = if relay.burst > 1 { 1 } else { BATCH };
    let per_slot = relay.burst as u64;
    [Lane::new(up, clients, peers, per_slot, batch), Lane::new(down, peers, clients, per_slot, batch)]
}

/// Keeps the server busy and measures, with the widest window that loses nothing to speak of.
fn saturate(server: &Server, lanes: &mut [Lane], nanoseconds: u64, window: &mut u64) -> Result<Throughput, Box<dyn Error>> {
    loop {
        generator::drive(lanes, *window, WARM_UP);
        let before = Meter::read(server)?;
        let run = generator::drive(lanes, *window, nanoseconds);
        let mut throughput = before.throughput(server, &run)?;
        throughput.window = *window;
        if run.delivered == 0 {
            return Err("nothing was relayed".into());
        }
        if throughput.loss <= TOLERATED_LOSS || *window <= SMALLEST_WINDOW {
            return Ok(throughput);
        }
        *window /= 2;
    }
}

/// What the server, and the softirqs of its core, had cost before a run.
struct Meter {
    server: Usage,
    softirqs: Usage,
}

impl Meter {
    fn read(server: &Server) -> Result<Self, Box<dyn Error>> {
        let server = server.pid.map(Usage::of).transpose()?.unwrap_or_default();
        let softirqs = measure::softirq_thread(SERVER_CORE).and_then(|pid| Usage::of(pid).ok()).unwrap_or_default();
        Ok(Self { server, softirqs })
    }

    fn throughput(&self, server: &Server, run: &Run) -> Result<Throughput, Box<dyn Error>> {
        let after = Self::read(server)?;
        let used = after.server.since(self.server);
        let running = (used.running + after.softirqs.since(self.softirqs).running) as f64;
        let wall = run.nanoseconds as f64;
        Ok(Throughput {
            per_second: run.delivered as f64 / wall * 1e9,
            nanoseconds: if server.pid.is_some() { running / run.delivered.max(1) as f64 } else { 0.0 },
            loss: run.lost as f64 / run.sent.max(1) as f64,
            busy: running / wall,
            delayed: used.delayed as f64 / wall,
            generator_idle: run.waiting as f64 / wall,
            window: 0,
        })
    }
}

/// Sends one datagram each way through every flow and looks at what comes: a wrong relay must not be measured.
fn probe(server: &Server, field: &Field, flows: &[Flow], relay: Relay) -> Result<(), Box<dyn Error>> {
    let mut out = Batch::new(1, relay.size + 64, false);
    for flow in flows {
        let mut payload = generator::payload(relay.size);
        payload[4..8].copy_from_slice(&(flow.peer as u32).to_be_bytes());
        let frame = framed(field, flow, relay, &payload);
        let (client, peer) = (field.client(flow.session.client), field.peer(flow.peer));

        out.push(&frame, Some(*client.ip()), Some(server.address), None);
        out.send(field.clients.as_raw_fd(), 0, 1)?;
        out.clear();
        let (from, to, bytes) = field::hear(&field.peers).ok_or("a probe did not reach its peer")?;
        if from != flow.session.relayed || to != *peer.ip() || bytes != payload {
            return Err(format!("a probe from {client} reached {to} from {from}, {} bytes", bytes.len()).into());
        }

        out.push(&payload, Some(*peer.ip()), Some(flow.session.relayed), None);
        out.send(field.peers.as_raw_fd(), 0, 1)?;
        out.clear();
        let (from, to, bytes) = field::hear(&field.clients).ok_or("a probe did not reach its client")?;
        let right = match relay.framing {
            Framing::ChannelData => bytes == frame,
            Framing::Indications => Answer::parse(&bytes).is_some_and(|answer| {
                answer.kind() == DATA_INDICATION && answer.peer() == Some(peer) && answer.data() == Some(&payload)
            }),
        };
        if from != server.address || to != *client.ip() || !right {
            return Err(format!("a probe from {peer} reached {to} from {from}, {} bytes", bytes.len()).into());
        }
    }
    Ok(())
}

/// How often the two loads take turns.
const TURNS: u64 = 4;

fn channels(server: &mut Server, field: &Field, nanoseconds: u64) -> Result<Sample, Box<dyn Error>> {
    let kinds = [Relay::with_channels(1), Relay::with_channels(64)];
    let sessions = establish(server, field, &[(1, 1), (1, 64)])?;
    for (session, relay) in sessions.iter().zip(kinds) {
        probe(server, field, &flows(&[*session], relay), relay)?;
    }
    set_sinks(field, kinds[0])?;
    let mut loads = [0, 1].map(|index| (lanes(server, field, &sessions[index..=index], kinds[index]), Vec::new()));
    let mut window = kinds[0].window;
    for _ in 0..TURNS {
        for (lanes, samples) in &mut loads {
            samples.push(saturate(server, lanes, nanoseconds / TURNS, &mut window)?);
        }
    }
    let [one, many] = loads.map(|(_, samples)| mean(&samples));
    Ok(Sample::Channels { one, many })
}

fn mean(samples: &[Throughput]) -> Throughput {
    let mean = |of: fn(&Throughput) -> f64| samples.iter().map(of).sum::<f64>() / samples.len() as f64;
    Throughput {
        per_second: mean(|sample| sample.per_second),
        nanoseconds: mean(|sample| sample.nanoseconds),
        loss: mean(|sample| sample.loss),
        busy: mean(|sample| sample.busy),
        delayed: mean(|sample| sample.delayed),
        generator_idle: mean(|sample| sample.generator_idle),
        window: samples.last().map_or(0, |sample| sample.window),
    }
}

/// Allocations that are there before the memory is first looked at, so that what is made once does not count.
const FIRST_ALLOCATIONS: usize = 100;
const IDLE_ALLOCATIONS: usize = 2000;

fn memory(server: &mut Server, field: &Field) -> Result<Sample, Box<dyn Error>> {
    let pid = server.pid.ok_or("the process is not known")?;
    let script = Script { channels: 1, release: false };
    let mut crowd = Crowd::new(field, server.address, &server.secret);
    live(crowd.run(script, Until::Clients(FIRST_ALLOCATIONS))?, FIRST_ALLOCATIONS)?;
    let before = measure::resident(pid)?;
    live(crowd.run(script, Until::Clients(IDLE_ALLOCATIONS))?, IDLE_ALLOCATIONS)?;
    let after = measure::resident(pid)?;
    Ok(Sample::Memory { bytes: after.saturating_sub(before) as f64 / IDLE_ALLOCATIONS as f64 })
}

const LIGHT_LOAD: u64 = 5_000;

fn latency(server: &mut Server, field: &Field, nanoseconds: u64) -> Result<Sample, Box<dyn Error>> {
    let relay =
        Relay { allocations: 100, channels: 1, size: 160, framing: Framing::ChannelData, burst: 1, window: 0 };
    let sessions = establish(server, field, &[(relay.allocations, relay.channels)])?;
    let flows = flows(&sessions, relay);
    probe(server, field, &flows, relay)?;
    let payload = generator::payload(relay.size);
    let mut up = Batch::new(flows.len(), relay.size + 4, false);
    let mut down = Batch::new(flows.len(), relay.size, false);
    for flow in &flows {
        let client = *field.client(flow.session.client).ip();
        up.push(&framed(field, flow, relay, &payload), Some(client), Some(server.address), None);
        down.push(&payload, Some(*field.peer(flow.peer).ip()), Some(flow.session.relayed), None);
    }
    let (clients, peers) = (field.clients.as_raw_fd(), field.peers.as_raw_fd());
    let up = Trickle { ring: up, next: 0, from: clients, to: peers, payload_at: (4, 0) };
    let down = Trickle { ring: down, next: 0, from: peers, to: clients, payload_at: (0, 4) };
    let (mut times, sent) = generator::trickle(&mut [up, down], LIGHT_LOAD, nanoseconds);
    times.sort_unstable();
    let quantile = |share: f64| times.get((times.len() as f64 * share) as usize).map_or(0.0, |&time| time as f64 / 1000.0);
    let loss = 1.0 - times.len() as f64 / sent.max(1) as f64;
    Ok(Sample::Latency { p50: quantile(0.5), p99: quantile(0.99), loss })
}
