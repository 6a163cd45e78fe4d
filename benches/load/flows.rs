//! From a scenario to its traffic: the allocations, the datagrams of every flow, the sinks, and a first look at each flow.

use std::{error::Error, fmt::Write as _, iter::repeat_n, os::fd::AsRawFd};

use super::{
    client::{Answer, COOKIE, DATA_INDICATION, Message, SEND_INDICATION},
    crowd::{Crowd, FIRST_CHANNEL, Outcome, Script, Session, Until, peer_of},
    field::{self, Field},
    generator::{self, Lane, MAGIC, Test},
    scenarios::{Framing, Relay},
    servers::{Kind, Server},
    sys::{self, Batch},
};

/// Packets handed to the kernel at a time.
pub(crate) const BATCH: usize = 64;

/// Makes allocations in groups of (how many, with how many channels each), or tells the forwarder of them.
pub(crate) fn establish(
    server: &mut Server,
    field: &Field,
    groups: &[(usize, usize)],
) -> Result<Vec<Session>, Box<dyn Error>> {
    if server.kind == Kind::Forwarder {
        return establish_at_forwarder(server, field, groups);
    }
    let mut crowd = Crowd::new(field, server.address, &server.secret);
    let mut sessions = Vec::new();
    for &(allocations, channels) in groups {
        let script = Script {
            channels,
            release: false,
        };
        server.clients += allocations;
        sessions.extend(live(
            crowd.run(script, Until::Clients(allocations))?,
            allocations,
        )?);
    }
    Ok(sessions)
}

fn establish_at_forwarder(
    server: &mut Server,
    field: &Field,
    groups: &[(usize, usize)],
) -> Result<Vec<Session>, Box<dyn Error>> {
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
    Ok(relays
        .into_iter()
        .enumerate()
        .map(|(client, relayed)| Session { client, relayed })
        .collect())
}

pub(crate) fn live(outcome: Outcome, wanted: usize) -> Result<Vec<Session>, Box<dyn Error>> {
    if outcome.sessions.len() == wanted {
        return Ok(outcome.sessions);
    }
    let complaint = outcome.complaint.unwrap_or_default();
    Err(format!(
        "{} of {wanted} allocations: {complaint}",
        outcome.sessions.len()
    )
    .into())
}

/// One channel of a session, or a session without channels.
#[derive(Clone, Copy)]
pub(crate) struct Flow {
    pub(crate) session: Session,
    channel: u16,
    pub(crate) peer: usize,
}

/// The flows of a load: every channel of every session, or every session if there are no channels.
pub(crate) fn flows(sessions: &[Session], relay: Relay) -> Vec<Flow> {
    let mut flows = Vec::new();
    for channel in 0..relay.channels.max(1) {
        for &session in sessions {
            let peer = peer_of(session.client, relay.channels, channel);
            flows.push(Flow {
                session,
                channel: FIRST_CHANNEL + channel as u16,
                peer,
            });
        }
    }
    flows
}

/// What a client sends for this payload to reach its peer.
pub(crate) fn framed(field: &Field, flow: &Flow, relay: Relay, payload: &[u8]) -> Vec<u8> {
    match relay.framing {
        Framing::ChannelData => [
            &sys::channel_header(flow.channel, payload.len())[..],
            payload,
        ]
        .concat(),
        Framing::Indications => Message::new(SEND_INDICATION, *b"load sending")
            .peer(field.peer(flow.peer))
            .data(payload)
            .finish(),
    }
}

pub(crate) fn set_sinks(field: &Field, relay: Relay) -> Result<(), Box<dyn Error>> {
    let size = relay.size as u32;
    let to_clients = match relay.framing {
        Framing::ChannelData => vec![
            Test::Between(0, 0x4000, 0x4fff),
            Test::Word(4, MAGIC),
            Test::Length(size + 4),
        ],
        Framing::Indications => vec![
            Test::Half(0, DATA_INDICATION),
            Test::Word(4, COOKIE),
            Test::AtLeast(size + 36),
        ],
    };
    generator::sink(&field.clients, &to_clients)?;
    generator::sink(&field.peers, &[Test::Word(0, MAGIC), Test::Length(size)])?;
    Ok(())
}

pub(crate) fn lanes(
    server: &Server,
    field: &Field,
    sessions: &[Session],
    relay: Relay,
) -> Result<[Lane; 2], Box<dyn Error>> {
    let connected = field.connect(server.address, sessions[0].relayed)?;
    let flows = flows(sessions, relay);
    let payload = generator::payload(relay.size);
    let slots = 256_usize.next_multiple_of(flows.len() * relay.run);
    let longest = framed(field, &flows[0], relay, &payload).len() * relay.burst;
    let mut up = Batch::new(slots, longest, false);
    let mut down = Batch::new(slots, payload.len() * relay.burst, false);
    let in_runs = flows.iter().flat_map(|flow| repeat_n(flow, relay.run));
    for flow in in_runs.cycle().take(slots) {
        let frame = framed(field, flow, relay, &payload);
        let segment = |len| (relay.burst > 1).then_some(len);
        let client = *field.client(flow.session.client).ip();
        let peer = *field.peer(flow.peer).ip();
        up.push(
            &frame.repeat(relay.burst),
            (!connected).then_some(client),
            (!connected).then_some(server.address),
            segment(frame.len()),
        );
        down.push(
            &payload.repeat(relay.burst),
            (!connected).then_some(peer),
            (!connected).then_some(flow.session.relayed),
            segment(payload.len()),
        );
    }
    let (clients, peers) = (field.clients.as_raw_fd(), field.peers.as_raw_fd());
    let batch = if relay.burst > 1 { 1 } else { BATCH };
    let per_slot = relay.burst as u64;
    Ok([
        Lane::new(up, clients, peers, per_slot, batch),
        Lane::new(down, peers, clients, per_slot, batch),
    ])
}

/// Sends one datagram each way through every flow and looks at what comes: a wrong relay must not be measured.
pub(crate) fn probe(
    server: &Server,
    field: &Field,
    flows: &[Flow],
    relay: Relay,
) -> Result<(), Box<dyn Error>> {
    let mut out = Batch::new(1, relay.size + 64, false);
    for flow in flows {
        let mut payload = generator::payload(relay.size);
        payload[4..8].copy_from_slice(&(flow.peer as u32).to_be_bytes());
        let frame = framed(field, flow, relay, &payload);
        let (client, peer) = (field.client(flow.session.client), field.peer(flow.peer));

        out.push(&frame, Some(*client.ip()), Some(server.address), None);
        out.send(field.clients.as_raw_fd(), 0, 1)?;
        out.clear();
        let (from, to, bytes) =
            field::hear(&field.peers).ok_or("a probe did not reach its peer")?;
        if from != flow.session.relayed || to != *peer.ip() || bytes != payload {
            return Err(format!(
                "a probe from {client} reached {to} from {from}, {} bytes",
                bytes.len()
            )
            .into());
        }

        out.push(&payload, Some(*peer.ip()), Some(flow.session.relayed), None);
        out.send(field.peers.as_raw_fd(), 0, 1)?;
        out.clear();
        let (from, to, bytes) =
            field::hear(&field.clients).ok_or("a probe did not reach its client")?;
        let right = match relay.framing {
            Framing::ChannelData => bytes == frame,
            Framing::Indications => Answer::parse(&bytes).is_some_and(|answer| {
                answer.kind() == DATA_INDICATION
                    && answer.peer() == Some(peer)
                    && answer.data() == Some(&payload)
            }),
        };
        if from != server.address || to != *client.ip() || !right {
            return Err(format!(
                "a probe from {peer} reached {to} from {from}, {} bytes",
                bytes.len()
            )
            .into());
        }
    }
    Ok(())
}
