//! What goes through relays, by indications and channels; and how well.
//!
//! What comes is believed if it has a tag that was made up here, and counts once: a server that repeats what it gets,
//! or sends it back where it came from, does not relay.

use std::net::SocketAddr;
use std::time::Duration;

use rand::TryRng as _;
use rand::rngs::SysRng;
use tokio::time::Instant;

use super::ends::{End, Ends, Far, Way};
use super::fault::Fault;
use super::report::Facts;

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

/// Sends something by indications, both ways.
pub(super) async fn indications(ends: &mut Ends) -> Result<Indications, Fault> {
    let mut seen = Indications::default();
    for from in [End::Near, End::Far] {
        let Some(peer) = indication(ends, from, false).await? else {
            return Err(Fault::Lost {
                sent: TRIES,
                came: 0,
            });
        };
        let told = ends.address(from);
        seen.other_address = peer.filter(|peer| *peer != told).or(seen.other_address);
    }
    seen.dont_fragment = indication(ends, End::Near, true).await?.is_some();
    Ok(seen)
}

/// What was seen of indications.
#[derive(Debug, Default)]
pub(super) struct Indications {
    /// Whether packets that must not be cut came, too.
    pub(super) dont_fragment: bool,
    /// Where data said that they came from, if that is not where they came from.
    pub(super) other_address: Option<SocketAddr>,
}

/// Sends something from an end until it comes out at the other: whom it says it is from, if it says that.
async fn indication(
    ends: &mut Ends,
    from: End,
    dont_fragment: bool,
) -> Result<Option<Option<SocketAddr>>, Fault> {
    let packet = Packet::new(SIZE_OF_SOUND);
    for _ in 0..TRIES {
        ends.indicate(from, &packet.bytes(0), dont_fragment).await?;
        let until = Instant::now() + EACH;
        while let Some(came) = ends.arrival(until).await? {
            if packet.number(&came.bytes).is_none() || came.end != ends.opposite(from) {
                continue;
            }
            match came.way {
                Way::Indication(peer) => return Ok(Some(Some(peer))),
                Way::Plain => return Ok(Some(None)),
                Way::Channel | Way::Astray => {}
            }
        }
    }
    Ok(None)
}

/// Has a plain socket send to the near relay: the address that it is heard from, which is its own from then on.
pub(super) async fn meet(ends: &mut Ends) -> Result<Option<SocketAddr>, Fault> {
    let heard = indication(ends, End::Far, false).await?.flatten();
    if let (Some(seen), Far::Plain(_, address)) = (heard, &mut ends.far) {
        *address = seen;
    }
    Ok(heard)
}

/// Sends packets to the far end, which answers each of them, at the pace of a call.
pub(super) async fn round_trip(
    ends: &mut Ends,
    count: u32,
    mut progress: impl FnMut(u32),
) -> Result<Facts, Fault> {
    let there = Packet::new(SIZE_OF_SOUND);
    let back = there.answers(ends);
    let mut sent_at: Vec<Instant> = Vec::new();
    let mut times: Vec<Option<Duration>> = vec![None; count as usize];
    let mut received = 0;
    let mut next = Instant::now();
    while received < count {
        let all_sent = sent_at.len() == times.len();
        if !all_sent && Instant::now() >= next {
            let number = u32::try_from(sent_at.len()).unwrap_or(u32::MAX);
            sent_at.push(Instant::now());
            ends.send(End::Near, &there.bytes(number)).await?;
            next += if sent_at.len() == times.len() {
                STRAGGLERS
            } else {
                PACE
            };
            continue;
        }
        match ends.arrival(next).await? {
            None if all_sent => break,
            None => {}
            Some(came) if !came.is_direct() => {}
            Some(came) if came.end == End::Far => {
                if let Some(number) = there.number(&came.bytes) {
                    ends.send(End::Far, &back.bytes(number)).await?;
                }
            }
            Some(came) => {
                let number = back.number(&came.bytes).map(|number| number as usize);
                if let Some(number) = number
                    && let (Some(sent), Some(time)) = (sent_at.get(number), times.get_mut(number))
                    && time.is_none()
                {
                    *time = Some(sent.elapsed());
                    received += 1;
                    progress(received);
                }
            }
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
pub(super) async fn packet_size(ends: &mut Ends) -> Result<usize, Fault> {
    ends.dont_fragment(true);
    let mut largest = 0;
    for size in SIZES {
        if !returns(ends, size).await? {
            break;
        }
        largest = size;
    }
    ends.dont_fragment(false);
    if largest < SIZE_OF_VIDEO {
        return Err(Fault::TooSmall(SIZE_OF_VIDEO));
    }
    Ok(largest)
}

async fn returns(ends: &mut Ends, size: usize) -> Result<bool, Fault> {
    let there = Packet::new(size);
    let back = there.answers(ends);
    for _ in 0..TRIES {
        // The kernel refuses what does not fit into the network next to us.
        if ends.send(End::Near, &there.bytes(0)).await.is_err() {
            return Ok(false);
        }
        let until = Instant::now() + EACH;
        while let Some(came) = ends.arrival(until).await? {
            let is_whole = came.bytes.len() == size;
            match came.end {
                _ if !came.is_direct() => {}
                End::Near if back.number(&came.bytes).is_some() => return Ok(is_whole),
                End::Far if is_whole && there.number(&came.bytes).is_some() => {
                    if ends.send(End::Far, &back.bytes(0)).await.is_err() {
                        return Ok(false);
                    }
                }
                End::Near | End::Far => {}
            }
        }
    }
    Ok(false)
}

/// Sends as much as comes out at the other end, for a second.
pub(super) async fn throughput(ends: &mut Ends) -> Result<Facts, Fault> {
    let packet = Packet::new(SIZE_OF_VIDEO);
    let goal = ends.opposite(End::Near);
    let begun = Instant::now();
    let (mut last, end) = (begun, begun + BURST);
    let (mut sent, mut on_the_way) = (0, 0);
    // Each counts once, however often it comes.
    let mut came = vec![false; LONGEST_BURST as usize];
    let mut received = 0;
    loop {
        let over = Instant::now() >= end || sent == LONGEST_BURST;
        if !over && on_the_way < WINDOW {
            ends.send(End::Near, &packet.bytes(sent)).await?;
            sent += 1;
            on_the_way += 1;
            continue;
        }
        if over && on_the_way == 0 {
            break;
        }
        match ends.arrival(Instant::now() + EACH).await? {
            Some(one) if one.end == goal && one.is_direct() => {
                let number = packet.number(&one.bytes).filter(|number| *number < sent);
                let place = number.and_then(|number| came.get_mut(number as usize));
                if let Some(false) = place.map(|place| std::mem::replace(place, true)) {
                    received += 1;
                    on_the_way = on_the_way.saturating_sub(1);
                    last = Instant::now();
                }
            }
            // What is still on its way is lost; so is all of it where something else comes without end.
            None => on_the_way = 0,
            Some(_) if Instant::now() >= end + STRAGGLERS => on_the_way = 0,
            Some(_) => {}
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

    /// What the far end answers with, that nothing but the far end can have sent; a relay that talks to itself has the
    /// packets themselves.
    fn answers(&self, ends: &Ends) -> Self {
        if ends.is_alone() {
            let Self { tag, size } = *self;
            return Self { tag, size };
        }
        Self::new(self.size)
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
