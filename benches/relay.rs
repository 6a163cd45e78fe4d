//! What a packet costs in the machine alone: no socket, no system call.
//!
//! Each direction of ChannelData and of Send and Data, with 1 and 64 channels to an allocation, with 1 allocation and
//! with 10 000 that take turns; a Binding; and a whole life of an allocation: challenge, Allocate, ChannelBind, delete.
//! The payload is 1200 bytes, of which nothing is touched. Relaying is asserted to allocate nothing before it is timed.
//!
//! For comparison: what the `stun` crate takes to decode the same Send indication, without looking anything up.

#![allow(missing_docs, reason = "criterion's macros make public items")]
#![allow(
    unsafe_code,
    reason = "an allocator that counts can only be written so"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::net::SocketAddr;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use turnd::stun::{Attribute, Method};
use turnd::turn::{Client, RelayId, Verdict};

#[path = "../tests/support/mod.rs"]
mod support;

use support::*;

const PAYLOAD: usize = 1200;
const SHAPES: [(usize, u16); 4] = [(1, 1), (1, 64), (10_000, 1), (10_000, 64)];

/// Allocations that each have the same channels.
struct Load {
    turn: Turn,
    clients: Vec<(Client, RelayId)>,
    /// Of each channel, what is sent in it and to it. Shared, so that it stays in the cache as a fresh packet is.
    packets: Vec<Packet>,
    next: usize,
}

struct Packet {
    peer: SocketAddr,
    /// Another port of the peer, which has no channel.
    other: SocketAddr,
    channel_data: Vec<u8>,
    send: Vec<u8>,
}

impl Load {
    fn new(allocations: usize, channels: u16) -> Self {
        let mut turn = Turn::with(|settings| {
            settings.limits.per_user = u32::MAX;
            settings.limits.per_client = u32::MAX;
            settings.limits.unauthenticated_replies = 0;
        });
        let packets: Vec<_> = (0..channels)
            .map(|channel| {
                let peer = format!("52.0.0.{channel}:4000");
                Packet {
                    peer: address(&peer),
                    other: address(&format!("52.0.0.{channel}:4001")),
                    channel_data: channel_data(0x4000 + channel, &[7; PAYLOAD]),
                    send: send_indication(turn.id(), &peer, &[7; PAYLOAD]),
                }
            })
            .collect();
        let mut ann = ann();
        ann.greet(&mut turn);
        let mut clients = Vec::new();
        for number in 0..allocations {
            ann.client = udp(&format!("198.51.100.1:{}", 1000 + number));
            let answer = ann.allocate(&mut turn);
            assert_eq!(answer.code(), 0);
            // The fake relays count their ids up; searching for one would take long here.
            let relay = RelayId(number as u32);
            assert_eq!(turn.relays.open[&relay], answer.relayed());
            clients.push((ann.client, relay));
            for (channel, packet) in (0x4000..).zip(&packets) {
                let peer = packet.peer.to_string();
                assert_eq!(ann.bind(&mut turn, channel, &peer), 0);
            }
        }
        Self {
            turn,
            clients,
            packets,
            next: 0,
        }
    }

    fn step(&mut self, way: Way, reply: &mut Vec<u8>) -> Verdict {
        // A prime stride: neighbours in time are no neighbours in memory.
        self.next = self.next.wrapping_add(7919);
        let (client, relay) = self.clients[self.next % self.clients.len()];
        let packet = &self.packets[self.next % self.packets.len()];
        let Turn {
            server,
            relays,
            now,
            ..
        } = &mut self.turn;
        match way {
            Way::ChannelData => {
                server.client_input(*now, client, &packet.channel_data, relays, reply)
            }
            Way::Send => server.client_input(*now, client, &packet.send, relays, reply),
            Way::ToChannel => server.peer_input(*now, relay, packet.peer, PAYLOAD),
            Way::ToData => server.peer_input(*now, relay, packet.other, PAYLOAD),
        }
    }
}

#[derive(Clone, Copy)]
enum Way {
    ChannelData,
    Send,
    ToChannel,
    ToData,
}

fn relaying(criterion: &mut Criterion) {
    for (name, way) in [
        ("channel_data/to_peer", Way::ChannelData),
        ("channel_data/to_client", Way::ToChannel),
        ("indication/to_peer", Way::Send),
        ("indication/to_client", Way::ToData),
    ] {
        let mut group = criterion.benchmark_group(name);
        for (allocations, channels) in SHAPES {
            let mut load = Load::new(allocations, channels);
            let mut reply = Vec::new();
            let count = allocations_of(|| {
                for _ in 0..1000 {
                    let verdict = load.step(way, &mut reply);
                    let relayed =
                        matches!(verdict, Verdict::ToPeer { .. } | Verdict::ToClient { .. });
                    assert!(relayed);
                }
            });
            assert_eq!(count, 0, "relaying allocates");
            let shape = format!("{allocations} allocations, {channels} channels");
            group.bench_function(BenchmarkId::from_parameter(shape), |bencher| {
                bencher.iter(|| black_box(load.step(way, &mut reply)));
            });
        }
        group.finish();
    }
}

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request");
    let mut turn = Turn::with(|settings| settings.limits.unauthenticated_replies = 0);
    let mut reply = Vec::with_capacity(1500);
    let binding = request(turn.id(), Method::BINDING, |_| {});
    let from = ann().client;
    group.bench_function("binding", |bencher| {
        bencher.iter(|| {
            reply.clear();
            let Turn {
                server,
                relays,
                now,
                ..
            } = &mut turn;
            black_box(server.client_input(*now, from, &binding, relays, &mut reply))
        });
    });
    for (name, mut user) in [
        ("life of an allocation, fixed user", ann()),
        (
            "life of an allocation, shared secret",
            vouched("cyd", UNIX + 3600, ann().client),
        ),
    ] {
        user.greet(&mut turn);
        let life = life(&mut turn, &user);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for bytes in &life {
                    reply.clear();
                    let Turn {
                        server,
                        relays,
                        now,
                        ..
                    } = &mut turn;
                    black_box(server.client_input(*now, from, bytes, relays, &mut reply));
                    while server.poll_event().is_some() {}
                }
            });
        });
        assert!(turn.server.is_empty());
    }
    group.finish();
}

/// The requests of a whole life, which can be repeated for ever.
fn life(turn: &mut Turn, user: &User) -> [Vec<u8>; 4] {
    [
        request(turn.id(), Method::ALLOCATE, |writer| {
            writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        }),
        user.signed(turn.id(), Method::ALLOCATE, |writer| {
            writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        }),
        user.signed(turn.id(), Method::CHANNEL_BIND, |writer| {
            writer
                .u16(Attribute::CHANNEL_NUMBER, 0x4000)
                .xor_address(Attribute::XOR_PEER_ADDRESS, address(PEER));
        }),
        user.signed(turn.id(), Method::REFRESH, |writer| {
            writer.u32(Attribute::LIFETIME, 0);
        }),
    ]
}

fn baseline(criterion: &mut Criterion) {
    let mut turn = Turn::new();
    let send = send_indication(turn.id(), PEER, &[7; PAYLOAD]);
    let mut group = criterion.benchmark_group("baseline");
    group.bench_function("the stun crate decodes a Send indication", |bencher| {
        let mut message = stun::message::Message::new();
        bencher.iter(|| {
            message.raw.clear();
            message.raw.extend_from_slice(&send);
            message.decode().expect("the indication is well-formed");
            black_box(&message);
        });
    });
    group.finish();
}

/// Counts what this thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is done by the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations_of(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

criterion_group!(benches, relaying, requests, baseline);
criterion_main!(benches);
