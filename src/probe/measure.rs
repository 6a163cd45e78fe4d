//! What goes through relays: permissions, indications, channels; and how well.
//!
//! There are two relays, the near one and the far one, or one that talks to itself.

use std::net::SocketAddr;
use std::time::Duration;

use rand::TryRng as _;
use rand::rngs::SysRng;
use tokio::time::Instant;

use crate::stun::{Attribute, ChannelNumber, Method};

use super::client::{Client, Data};
use super::fault::Fault;
use super::report::Facts;

/// The channel that both clients bind to the relay of the other.
pub(super) const CHANNEL: ChannelNumber = match ChannelNumber::new(0x4000) {
    Some(number) => number,
    None => unreachable!(),
};

/// How often something is sent that may get lost.
const TRIES: u32 = 4;
/// How long each of them is waited for, the last one longer.
const EACH: Duration = Duration::from_millis(300);
/// How long the last packets may take.
const STRAGGLERS: Duration = Duration::from_secs(1);
/// The pace of a call: a packet of sound every 20 ms.
const PACE: Duration = Duration::from_millis(20);
/// Its size, about.
const SIZE_OF_SOUND: usize = 160;
/// What WebRTC sends at most.
const SIZE_OF_VIDEO: usize = 1200;
/// Sizes to be tried. Over Ethernet and IPv4, 1468 bytes and a ChannelData header fill a packet.
const SIZES: [usize; 9] = [576, SIZE_OF_VIDEO, 1280, 1400, 1432, 1468, 1472, 4096, 8192];
/// Packets of a burst that are on their way at a time: they fit into the buffer of any socket.
const WINDOW: u32 = 64;
/// The end of a burst.
const BURST: Duration = Duration::from_secs(1);
const LONGEST_BURST: u32 = 5000;

/// A relay and its client.
pub(super) struct Relay {
    pub(super) client: Client,
    pub(super) address: SocketAddr,
}

/// Where something came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Near,
    Far,
}

/// Lets each relay hear the other.
pub(super) async fn permit(relays: &mut [Relay]) -> Result<(), Fault> {
    for (client, peer) in pairs(relays) {
        let permission = client.ask(Method::CREATE_PERMISSION, |writer| {
            writer.xor_address(Attribute::XOR_PEER_ADDRESS, peer);
        });
        permission.await?;
    }
    Ok(())
}

/// Binds a channel at each relay, to the other.
pub(super) async fn bind(relays: &mut [Relay]) -> Result<(), Fault> {
    for (client, peer) in pairs(relays) {
        let binding = client.ask(Method::CHANNEL_BIND, |writer| {
            writer.u16(Attribute::CHANNEL_NUMBER, CHANNEL.get());
            writer.xor_address(Attribute::XOR_PEER_ADDRESS, peer);
        });
        binding.await?;
    }
    Ok(())
}

/// Sends something by indications, both ways; tells whether what must not be cut comes, too.
pub(super) async fn indications(relays: &mut [Relay]) -> Result<bool, Fault> {
    for from in [End::Near, End::Far] {
        if !indication(relays, from, false).await? {
            return Err(Fault::Lost {
                sent: TRIES,
                came: 0,
            });
        }
    }
    indication(relays, End::Near, true).await
}

async fn indication(relays: &mut [Relay], from: End, dont_fragment: bool) -> Result<bool, Fault> {
    let (to, alone) = (from.other(), relays.len() == 1);
    let packet = Packet::new(SIZE_OF_SOUND);
    for _ in 0..TRIES {
        let Some((client, peer)) = pairs(relays).nth(from.index(alone)) else {
            return Ok(false);
        };
        client
            .send_indication(peer, &packet.bytes(0), dont_fragment)
            .await?;
        let until = Instant::now() + EACH;
        while let Some((end, data)) = arrival(relays, until).await? {
            let (Data::Indication(_, bytes) | Data::Channel(_, bytes)) = data;
            if packet.number(&bytes).is_some() && (alone || end == to) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Sends packets to the far client, which sends them back, at the pace of a call.
pub(super) async fn round_trip(
    relays: &mut [Relay],
    count: u32,
    mut progress: impl FnMut(u32),
) -> Result<Facts, Fault> {
    let packet = Packet::new(SIZE_OF_SOUND);
    let mut sent_at: Vec<Instant> = Vec::new();
    let mut times: Vec<Option<Duration>> = vec![None; count as usize];
    let mut received = 0;
    let mut next = Instant::now();
    while received < count {
        let all_sent = sent_at.len() == times.len();
        if !all_sent && Instant::now() >= next {
            let number = u32::try_from(sent_at.len()).unwrap_or(u32::MAX);
            sent_at.push(Instant::now());
            relays[0]
                .client
                .send_channel(CHANNEL, &packet.bytes(number))
                .await?;
            next += if sent_at.len() == times.len() {
                STRAGGLERS
            } else {
                PACE
            };
            continue;
        }
        match arrival(relays, next).await? {
            None if all_sent => break,
            None => {}
            Some((End::Far, Data::Channel(_, bytes))) if packet.number(&bytes).is_some() => {
                relays[1].client.send_channel(CHANNEL, &bytes).await?;
            }
            Some((End::Near, Data::Channel(_, bytes))) => {
                let number = packet.number(&bytes).map(|number| number as usize);
                if let Some(number) = number
                    && let (Some(sent), Some(time)) = (sent_at.get(number), times.get_mut(number))
                    && time.is_none()
                {
                    *time = Some(sent.elapsed());
                    received += 1;
                    progress(received);
                }
            }
            Some((End::Far, Data::Channel(..)) | (_, Data::Indication(..))) => {}
        }
    }
    statistics(count, &times)
}

/// What the times of packets amount to. Half of them have to have come.
fn statistics(sent: u32, times: &[Option<Duration>]) -> Result<Facts, Fault> {
    let came: Vec<f64> = times
        .iter()
        .flatten()
        .map(|time| time.as_secs_f64() * 1e3)
        .collect();
    let received = u32::try_from(came.len()).unwrap_or(u32::MAX);
    if received.saturating_mul(2) < sent || received == 0 {
        return Err(Fault::Lost {
            sent,
            came: received,
        });
    }
    let mut sorted = came.clone();
    sorted.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let rank = (part * came.len() as f64).ceil() as usize;
        round(sorted[rank.clamp(1, sorted.len()) - 1])
    };
    let changes: f64 = came.windows(2).map(|two| (two[1] - two[0]).abs()).sum();
    Ok(Facts::RoundTrip {
        sent,
        received,
        min_ms: at(0.0),
        median_ms: at(0.5),
        p99_ms: at(0.99),
        jitter_ms: round(changes / (came.len().max(2) - 1) as f64),
    })
}

/// The largest packet that goes there and back in one piece, as far as it can be told from here.
pub(super) async fn packet_size(relays: &mut [Relay]) -> Result<usize, Fault> {
    for relay in &*relays {
        relay.client.link.dont_fragment(true);
    }
    let mut largest = 0;
    for size in SIZES {
        if !returns(relays, size).await? {
            break;
        }
        largest = size;
    }
    for relay in &*relays {
        relay.client.link.dont_fragment(false);
    }
    if largest < SIZE_OF_VIDEO {
        return Err(Fault::TooSmall(SIZE_OF_VIDEO));
    }
    Ok(largest)
}

async fn returns(relays: &mut [Relay], size: usize) -> Result<bool, Fault> {
    let packet = Packet::new(size);
    for _ in 0..TRIES {
        // The kernel refuses what does not fit into the network next to us.
        if relays[0]
            .client
            .send_channel(CHANNEL, &packet.bytes(0))
            .await
            .is_err()
        {
            return Ok(false);
        }
        let until = Instant::now() + EACH;
        while let Some((end, data)) = arrival(relays, until).await? {
            let Data::Channel(_, bytes) = data else {
                continue;
            };
            if packet.number(&bytes).is_none() {
                continue;
            }
            match end {
                End::Near => return Ok(bytes.len() == size),
                End::Far
                    if relays[1]
                        .client
                        .send_channel(CHANNEL, &bytes)
                        .await
                        .is_err() =>
                {
                    return Ok(false);
                }
                End::Far => {}
            }
        }
    }
    Ok(false)
}

/// Sends as much as comes out at the other end, for a second.
pub(super) async fn throughput(relays: &mut [Relay]) -> Result<Facts, Fault> {
    let packet = Packet::new(SIZE_OF_VIDEO);
    let begun = Instant::now();
    let (mut last, end) = (begun, begun + BURST);
    let (mut sent, mut received, mut on_the_way) = (0, 0, 0);
    loop {
        let over = Instant::now() >= end || sent == LONGEST_BURST;
        if !over && on_the_way < WINDOW {
            relays[0]
                .client
                .send_channel(CHANNEL, &packet.bytes(sent))
                .await?;
            sent += 1;
            on_the_way += 1;
            continue;
        }
        if over && on_the_way == 0 {
            break;
        }
        match arrival(relays, Instant::now() + EACH).await? {
            Some((_, Data::Channel(_, bytes))) if packet.number(&bytes).is_some() => {
                received += 1;
                on_the_way = on_the_way.saturating_sub(1);
                last = Instant::now();
            }
            Some(_) => {}
            // What is still on its way is lost.
            None => on_the_way = 0,
        }
    }
    if received * 2 < sent {
        return Err(Fault::Lost {
            sent,
            came: received,
        });
    }
    let seconds = (last - begun).as_secs_f64().max(1e-6);
    let bits = f64::from(received) * SIZE_OF_VIDEO as f64 * 8.0;
    Ok(Facts::Throughput {
        megabits_per_second: round(bits / seconds / 1e6),
        sent,
        received,
        size: SIZE_OF_VIDEO,
        window: WINDOW,
    })
}

/// Each client with the relay that it is to talk to.
fn pairs(relays: &mut [Relay]) -> impl Iterator<Item = (&mut Client, SocketAddr)> {
    let mut peers: Vec<SocketAddr> = relays.iter().map(|relay| relay.address).collect();
    peers.reverse();
    relays.iter_mut().map(|relay| &mut relay.client).zip(peers)
}

/// The next data at either end, or nothing until then.
async fn arrival(relays: &mut [Relay], until: Instant) -> Result<Option<(End, Data)>, Fault> {
    let (end, data) = match relays {
        [near, far, ..] => tokio::select! {
            data = near.client.data(until) => (End::Near, data?),
            data = far.client.data(until) => (End::Far, data?),
        },
        [only] => (End::Near, only.client.data(until).await?),
        [] => return Ok(None),
    };
    Ok(data.map(|data| (end, data)))
}

impl End {
    fn other(self) -> Self {
        match self {
            Self::Near => Self::Far,
            Self::Far => Self::Near,
        }
    }

    fn index(self, alone: bool) -> usize {
        usize::from(self == Self::Far && !alone)
    }
}

/// Packets of one kind: a tag that nobody else uses, a number, and zeros.
struct Packet {
    tag: [u8; TAG],
    size: usize,
}

impl Packet {
    fn new(size: usize) -> Self {
        let mut tag = [0; TAG];
        SysRng
            .try_fill_bytes(&mut tag)
            .expect("the kernel gives random bytes");
        Self { tag, size }
    }

    fn bytes(&self, number: u32) -> Vec<u8> {
        let mut bytes = [&self.tag[..], &number.to_be_bytes()].concat();
        bytes.resize(self.size, 0);
        bytes
    }

    /// The number of a packet, if it is one of these.
    fn number(&self, bytes: &[u8]) -> Option<u32> {
        let number = bytes.strip_prefix(&self.tag)?;
        number.first_chunk().copied().map(u32::from_be_bytes)
    }
}

const TAG: usize = 8;

fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(milliseconds: &[u64]) -> Vec<Option<Duration>> {
        let time =
            |&milliseconds: &u64| (milliseconds > 0).then(|| Duration::from_millis(milliseconds));
        milliseconds.iter().map(time).collect()
    }

    #[test]
    fn times_are_summed_up() {
        let many: Vec<u64> = (1..=100).collect();
        let Ok(Facts::RoundTrip {
            sent,
            received,
            min_ms,
            median_ms,
            p99_ms,
            jitter_ms,
        }) = statistics(100, &times(&many))
        else {
            panic!("all of them came");
        };
        assert_eq!((sent, received), (100, 100));
        assert_eq!(
            [min_ms, median_ms, p99_ms, jitter_ms],
            [1.0, 50.0, 99.0, 1.0]
        );
        let one = statistics(1, &times(&[7]));
        let Ok(Facts::RoundTrip {
            median_ms,
            jitter_ms,
            ..
        }) = one
        else {
            panic!("it came");
        };
        assert_eq!([median_ms, jitter_ms], [7.0, 0.0]);
    }

    #[test]
    fn half_of_the_packets_have_to_come() {
        assert!(statistics(4, &times(&[0, 5, 0, 5])).is_ok());
        let lost = statistics(4, &times(&[0, 5, 0, 0]));
        assert_eq!(lost, Err(Fault::Lost { sent: 4, came: 1 }));
        assert_eq!(statistics(0, &[]), Err(Fault::Lost { sent: 0, came: 0 }));
    }

    #[test]
    fn packets_know_their_own() {
        let (one, other) = (Packet::new(1200), Packet::new(1200));
        let bytes = one.bytes(77);
        assert_eq!((bytes.len(), one.number(&bytes)), (1200, Some(77)));
        assert_eq!(other.number(&bytes), None);
        assert_eq!(one.number(&bytes[..10]), None);
    }
}
