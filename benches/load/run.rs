//! Runs one scenario against one server.

use std::{error::Error, os::fd::AsRawFd};

use super::{
    client::{BINDING, COOKIE, Message, SUCCESS},
    crowd::{Crowd, Script, Until},
    field::{self, Field},
    flows::{BATCH, establish, flows, framed, lanes, live, probe, set_sinks},
    generator::{self, Lane, Light, Run, Test, Trickle},
    measure::{self, Usage},
    scenarios::{Framing, Load, Relay},
    servers::{Kind, SERVER_CORE, Server},
    sys::Batch,
    watcher::Watcher,
};

/// What one run of a scenario came to.
#[derive(Clone, Debug)]
pub(crate) enum Sample {
    Throughput(Throughput),
    /// The same load on one channel and on 64.
    Channels {
        one: Throughput,
        many: Throughput,
    },
    Memory {
        bytes: f64,
    },
    /// In microseconds.
    Latency {
        p50: f64,
        p99: f64,
        loss: f64,
    },
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
        if self.nanoseconds > 0.0 {
            1e9 / self.nanoseconds
        } else {
            0.0
        }
    }
}

/// The most that may be lost.
const TOLERATED_LOSS: f64 = 0.001;
const WARM_UP: u64 = 100_000_000;
const SMALLEST_WINDOW: u64 = 32;

/// Whether a server can be measured so: the bare forwarder knows ChannelData only.
pub(crate) fn applies(load: Load, kind: Kind) -> bool {
    match load {
        Load::Bindings | Load::Cycles | Load::Memory => kind != Kind::Forwarder,
        Load::Relay(relay) => kind != Kind::Forwarder || relay.framing == Framing::ChannelData,
        Load::Channels | Load::Latency => true,
    }
}

/// Runs a scenario for `nanoseconds`; `window` is kept for the next round.
pub(crate) fn run(
    server: &mut Server,
    load: Load,
    nanoseconds: u64,
    window: &mut Option<u64>,
) -> Result<Sample, Box<dyn Error>> {
    let field = match load {
        Load::Relay(Relay {
            allocations: 1,
            channels: 1,
            ..
        }) => Field::open_pair()?,
        Load::Bindings
        | Load::Cycles
        | Load::Relay(_)
        | Load::Channels
        | Load::Memory
        | Load::Latency => Field::open()?,
    };
    let watcher = server.watch()?;
    let sample = measure(server, &field, load, nanoseconds, window);
    watcher.map(Watcher::finish).transpose()?;
    let strays = field::empty(&field.clients) + field::empty(&field.peers);
    if server.kind == Kind::Running && server.clients > 0 {
        // Nobody ends this server after the run, so it gets its ports back.
        field.open_ears()?;
        let mut crowd = Crowd::new(&field, server.address, &server.secret);
        let outcome = crowd.release(server.clients)?;
        if let (Ok(_), Some(complaint)) = (&sample, outcome.complaint) {
            return Err(format!("giving back: {complaint}").into());
        }
    }
    match strays {
        0 => sample,
        strays => Err(format!("{strays} datagrams came that were not as they must be").into()),
    }
}

fn measure(
    server: &mut Server,
    field: &Field,
    load: Load,
    nanoseconds: u64,
    window: &mut Option<u64>,
) -> Result<Sample, Box<dyn Error>> {
    match load {
        Load::Bindings => bindings(server, field, nanoseconds, window),
        Load::Cycles => cycles(server, field, nanoseconds),
        Load::Relay(relay) => {
            let sessions = establish(server, field, &[(relay.allocations, relay.channels)])?;
            probe(server, field, &flows(&sessions, relay), relay)?;
            set_sinks(field, relay)?;
            let mut lanes = lanes(server, field, &sessions, relay)?;
            let window = window.get_or_insert(relay.window);
            saturate(server, &mut lanes, nanoseconds, window).map(Sample::Throughput)
        }
        Load::Channels => channels(server, field, nanoseconds),
        Load::Memory => memory(server, field),
        Load::Latency => latency(server, field, nanoseconds),
    }
}

fn bindings(
    server: &Server,
    field: &Field,
    nanoseconds: u64,
    window: &mut Option<u64>,
) -> Result<Sample, Box<dyn Error>> {
    let mut ring = Batch::new(256, 64, false);
    for client in 0..256_u16 {
        let mut id = *b"load binding";
        id[10..].copy_from_slice(&client.to_be_bytes());
        let request = Message::new(BINDING, id).finish();
        ring.push(
            &request,
            Some(*field.client(usize::from(client)).ip()),
            Some(server.address),
            None,
        );
    }
    let socket = field.clients.as_raw_fd();
    generator::sink(
        &field.clients,
        &[Test::Half(0, BINDING | SUCCESS), Test::Word(4, COOKIE)],
    )?;
    let mut lanes = [Lane::new(ring, socket, socket, 1, BATCH)];
    Ok(Sample::Throughput(saturate(
        server,
        &mut lanes,
        nanoseconds,
        window.get_or_insert(256),
    )?))
}

fn cycles(server: &Server, field: &Field, nanoseconds: u64) -> Result<Sample, Box<dyn Error>> {
    let script = Script {
        channels: 1,
        release: true,
    };
    let mut crowd = Crowd::new(field, server.address, &server.secret);
    crowd.run(script, Until::Time(WARM_UP))?;
    let before = Meter::read(server)?;
    let outcome = crowd.run(script, Until::Time(nanoseconds))?;
    let run = Run {
        nanoseconds: outcome.nanoseconds,
        delivered: outcome.done,
        lost: outcome.failed,
        waiting: outcome.waiting,
        ..Run::default()
    };
    if outcome.done == 0 {
        return Err(outcome
            .complaint
            .unwrap_or_else(|| "no cycle was finished".to_owned())
            .into());
    }
    let mut throughput = before.throughput(server, &run)?;
    throughput.loss = outcome.failed as f64 / (outcome.done + outcome.failed) as f64;
    Ok(Sample::Throughput(throughput))
}

/// Keeps the server busy and measures, with the widest window that loses nothing to speak of.
fn saturate(
    server: &Server,
    lanes: &mut [Lane],
    nanoseconds: u64,
    window: &mut u64,
) -> Result<Throughput, Box<dyn Error>> {
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
        let softirqs = measure::softirq_thread(SERVER_CORE)
            .and_then(|pid| Usage::of(pid).ok())
            .unwrap_or_default();
        Ok(Self { server, softirqs })
    }

    fn throughput(&self, server: &Server, run: &Run) -> Result<Throughput, Box<dyn Error>> {
        let after = Self::read(server)?;
        let used = after.server.since(self.server);
        let running = (used.running + after.softirqs.since(self.softirqs).running) as f64;
        let wall = run.nanoseconds as f64;
        Ok(Throughput {
            per_second: run.delivered as f64 / wall * 1e9,
            nanoseconds: if server.pid.is_some() {
                running / run.delivered.max(1) as f64
            } else {
                0.0
            },
            loss: run.lost as f64 / run.sent.max(1) as f64,
            busy: running / wall,
            delayed: used.delayed as f64 / wall,
            generator_idle: run.waiting as f64 / wall,
            window: 0,
        })
    }
}

/// How often the two loads take turns, and how much longer than another load each lasts in all: the difference is small.
const TURNS: u64 = 6;
const LONGER: f64 = 1.5;

fn channels(
    server: &mut Server,
    field: &Field,
    nanoseconds: u64,
) -> Result<Sample, Box<dyn Error>> {
    server.pid.ok_or("the process is not known")?;
    let kinds = [Relay::with_channels(1), Relay::with_channels(64)];
    let sessions = establish(server, field, &[(1, 1), (1, 64)])?;
    for (session, relay) in sessions.iter().zip(kinds) {
        probe(server, field, &flows(&[*session], relay), relay)?;
    }
    set_sinks(field, kinds[0])?;
    let one = lanes(server, field, &sessions[..1], kinds[0])?;
    let many = lanes(server, field, &sessions[1..], kinds[1])?;
    let mut loads = [(one, Vec::new()), (many, Vec::new())];
    let mut window = kinds[0].window;
    let turn = (nanoseconds as f64 * LONGER) as u64 / TURNS;
    for _ in 0..TURNS {
        for (lanes, samples) in &mut loads {
            samples.push(saturate(server, lanes, turn, &mut window)?);
        }
    }
    let [one, many] = loads.map(|(_, samples)| middle(samples));
    Ok(Sample::Channels { one, many })
}

/// The sample whose cost for each packet is the median.
fn middle(mut samples: Vec<Throughput>) -> Throughput {
    samples.sort_by(|one, other| one.nanoseconds.total_cmp(&other.nanoseconds));
    samples.swap_remove(samples.len() / 2)
}

/// Allocations that are there before the memory is first looked at, so that what is made once does not count.
const FIRST_ALLOCATIONS: usize = 100;
const IDLE_ALLOCATIONS: usize = 2000;

fn memory(server: &mut Server, field: &Field) -> Result<Sample, Box<dyn Error>> {
    let pid = server.pid.ok_or("the process is not known")?;
    server.clients = FIRST_ALLOCATIONS + IDLE_ALLOCATIONS;
    let script = Script {
        channels: 1,
        release: false,
    };
    let mut crowd = Crowd::new(field, server.address, &server.secret);
    live(
        crowd.run(script, Until::Clients(FIRST_ALLOCATIONS))?,
        FIRST_ALLOCATIONS,
    )?;
    let before = measure::resident(pid)?;
    live(
        crowd.run(script, Until::Clients(IDLE_ALLOCATIONS))?,
        IDLE_ALLOCATIONS,
    )?;
    let after = measure::resident(pid)?;
    Ok(Sample::Memory {
        bytes: after.saturating_sub(before) as f64 / IDLE_ALLOCATIONS as f64,
    })
}

const LIGHT_LOAD: u64 = 5_000;

fn latency(server: &mut Server, field: &Field, nanoseconds: u64) -> Result<Sample, Box<dyn Error>> {
    let relay = Relay {
        allocations: 100,
        channels: 1,
        size: 160,
        framing: Framing::ChannelData,
        burst: 1,
        run: 1,
        window: 0,
    };
    let sessions = establish(server, field, &[(relay.allocations, relay.channels)])?;
    let flows = flows(&sessions, relay);
    probe(server, field, &flows, relay)?;
    let payload = generator::payload(relay.size);
    let mut up = Batch::new(flows.len(), relay.size + 4, false);
    let mut down = Batch::new(flows.len(), relay.size, false);
    for flow in &flows {
        let client = *field.client(flow.session.client).ip();
        up.push(
            &framed(field, flow, relay, &payload),
            Some(client),
            Some(server.address),
            None,
        );
        down.push(
            &payload,
            Some(*field.peer(flow.peer).ip()),
            Some(flow.session.relayed),
            None,
        );
    }
    let (clients, peers) = (field.clients.as_raw_fd(), field.peers.as_raw_fd());
    let up = Trickle {
        ring: up,
        next: 0,
        from: clients,
        to: peers,
        payload_at: (4, 0),
    };
    let down = Trickle {
        ring: down,
        next: 0,
        from: peers,
        to: clients,
        payload_at: (0, 4),
    };
    let Light {
        sent,
        received,
        mut times,
    } = generator::trickle(&mut [up, down], LIGHT_LOAD, nanoseconds);
    times.sort_unstable();
    let quantile = |share: f64| {
        times
            .get((times.len() as f64 * share) as usize)
            .map_or(0.0, |&time| time as f64 / 1000.0)
    };
    let loss = 1.0 - received as f64 / sent.max(1) as f64;
    Ok(Sample::Latency {
        p50: quantile(0.5),
        p99: quantile(0.99),
        loss,
    })
}
