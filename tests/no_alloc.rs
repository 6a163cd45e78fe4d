//! Relaying allocates nothing: not a byte of heap for a packet, whichever way and form it takes.

#![allow(clippy::wildcard_enum_match_arm)]
#![allow(
    unsafe_code,
    reason = "an allocator that counts can only be written so"
)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use support::*;
use turnd::stun::{Attribute, Method};
use turnd::turn::{Bandwidth, Cause, RelayId, Transport, Verdict};

/// Counts what the thread that asks allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is done by the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        BYTES.set(BYTES.get().wrapping_add(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.set(BYTES.get().wrapping_sub(layout.size()));
        // SAFETY: the pointer came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn the_allocator_counts() {
    assert_eq!(allocations(|| drop(Box::new(7))), 1);
}

#[test]
fn a_relayed_packet_allocates_nothing() {
    let limits = [0, 1_000_000_000_000].map(|rate| Bandwidth {
        per_allocation: rate,
        per_user: rate,
        per_tenant: rate,
        total: rate,
    });
    for (transport, bandwidth) in Transport::ALL
        .into_iter()
        .flat_map(|transport| limits.map(|bandwidth| (transport, bandwidth)))
    {
        for from in ["198.51.100.1:1000", "[2001:db8::9]:1000"] {
            let mut turn = Turn::with(|settings| settings.limits.bandwidth = bandwidth);
            let mut ann = ann().at(client(from, transport));
            ann.allocate_with(&mut turn, |writer| {
                writer.u8(Attribute::ADDITIONAL_ADDRESS_FAMILY, 2);
            });
            let relays: Vec<RelayId> = turn.relays.open.keys().copied().collect();
            for (relay, peer, other) in [
                (relays[0], PEER, "52.1.2.3:9"),
                (relays[1], PEER_V6, "[2600:1::1]:9"),
            ] {
                let channel = 0x4000 + relay.0 as u16;
                assert_eq!(ann.bind(&mut turn, channel, peer), 0);
                let data = [7; 1200];
                let in_channel = channel_data(channel, &data);
                let send = send_indication(turn.id(), peer, &data);
                let (peer, other) = (address(peer), address(other));
                // Buckets are full.
                turn.pass(seconds(1));
                let mut reply = Vec::new();
                let Turn {
                    server,
                    relays,
                    now,
                    ..
                } = &mut turn;

                let count = allocations(|| {
                    for _ in 0..100 {
                        for bytes in [&in_channel, &send] {
                            let verdict =
                                server.client_input(*now, ann.client, bytes, relays, &mut reply);
                            assert!(matches!(verdict, Verdict::ToPeer { .. }));
                        }
                        for peer in [peer, other] {
                            let verdict = server.peer_input(*now, relay, peer, data.len());
                            assert!(matches!(verdict, Verdict::ToClient { .. }));
                        }
                    }
                });
                assert_eq!(count, 0, "{transport:?} from {from}");
            }
        }
    }
}

/// What is above a limit costs no heap either, whichever limit it is, nor does the change of levels.
#[test]
fn a_packet_above_a_limit_allocates_nothing() {
    for which in 0..3 {
        let mut turn = Turn::with(|settings| {
            let bandwidth = &mut settings.limits.bandwidth;
            let [own, user, total] =
                [0, 1, 2].map(|place| if place == which { 1_000_000 } else { 0 });
            (bandwidth.per_allocation, bandwidth.per_user) = (own, user);
            bandwidth.total = total;
        });
        let mut ann = ann();
        ann.allocate(&mut turn);
        assert_eq!(ann.bind(&mut turn, 0x4000, PEER), 0);
        let bytes = channel_data(0x4000, &[7; 1200]);
        let mut reply = Vec::new();
        let (mut passed, mut dropped) = (0, [0; Cause::ALL.len()]);
        let count = allocations(|| {
            for _ in 0..10_000 {
                turn.now.instant += std::time::Duration::from_millis(1);
                let (server, relays) = (&mut turn.server, &mut turn.relays);
                match server.client_input(turn.now, ann.client, &bytes, relays, &mut reply) {
                    Verdict::ToPeer { .. } => passed += 1,
                    Verdict::Drop(cause) => dropped[cause.index()] += 1,
                    Verdict::ToClient { .. }
                    | Verdict::Reply(_)
                    | Verdict::Elsewhere(_)
                    | Verdict::Later => panic!("data is relayed or dropped"),
                }
            }
        });
        assert_eq!(count, 0, "limit {which}");
        let cause = [
            Cause::Bandwidth,
            Cause::UserBandwidth,
            Cause::TotalBandwidth,
        ][which];
        assert_eq!(passed + dropped[cause.index()], 10_000);
        // 10 seconds of 1 Mbit/s are 1017 packets with their headers.
        assert!((950..1100).contains(&passed), "limit {which}: {passed}");
    }
}

#[test]
fn binding_and_what_is_dropped_allocate_nothing() {
    let mut turn = Turn::with(|settings| settings.limits.unauthenticated_replies = 100);
    let binding = request(turn.id(), Method::BINDING, |_| {});
    let challenge = request(turn.id(), Method::ALLOCATE, |writer| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
    });
    let data = channel_data(0x4000, b"x");
    let mut reply = Vec::with_capacity(1500);
    let from = ann().client;
    let Turn {
        server,
        relays,
        now,
        ..
    } = &mut turn;
    let count = allocations(|| {
        for bytes in [&binding, &challenge, &data].into_iter().cycle().take(900) {
            reply.clear();
            server.client_input(*now, from, bytes, relays, &mut reply);
        }
    });
    assert_eq!(count, 0);
}

/// What an idle allocation costs: its struct, its names and keys, and its places in the indexes.
#[test]
fn an_idle_allocation_is_small() {
    const COUNT: usize = 10_000;
    let mut turn = Turn::with(|settings| {
        settings.limits.per_user = u32::MAX;
        settings.limits.per_client = u32::MAX;
        settings.limits.unauthenticated_replies = 0;
    });
    let mut user = vouched("0123456789abcdef", UNIX + 3600, ann().client);
    user.greet(&mut turn);
    // The fake relays' own memory is not the machine's: it is left out by opening them beforehand.
    let requests: Vec<_> = (0..COUNT)
        .map(|n| {
            let client = udp(&format!("198.51.100.1:{}", 1000 + n));
            let bytes = user.signed(turn.id(), Method::ALLOCATE, |writer| {
                writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
            });
            (client, bytes)
        })
        .collect();
    let mut reply = Vec::with_capacity(4096);
    let mut relays = Ready(0);
    let Turn { server, now, .. } = &mut turn;
    let before = BYTES.get();
    for (client, bytes) in &requests {
        reply.clear();
        let verdict = server.client_input(*now, *client, bytes, &mut relays, &mut reply);
        assert!(matches!(verdict, Verdict::Reply(reply) if reply.code == 0));
        while server.poll_event().is_some() {}
    }
    let each = (BYTES.get() - before) / COUNT;
    println!("{each} bytes for an idle allocation");
    assert!(each <= 600, "{each} bytes");
}

/// What is remembered of those who are refused, of peers without a permission and of sessions that have ended does not
/// grow with how many they are.
#[test]
fn a_flood_leaves_memory_flat() {
    const FLOOD: u32 = 100_000;
    let mut turn = Turn::with(|settings| settings.limits.unauthenticated_replies = 0);
    let mut wrong = User::new("ann", "wrong", udp("198.51.100.9:1"));
    wrong.greet(&mut turn);
    let mut ann = ann();
    let relay = ann.relay(&mut turn);
    let closed: Vec<_> = (0..200u8)
        .map(|n| {
            ann.signed(turn.id(), Method::CREATE_PERMISSION, |writer| {
                let peer = address(&format!("10.0.0.{n}:9"));
                writer.xor_address(Attribute::XOR_PEER_ADDRESS, peer);
            })
        })
        .collect();
    let logins: Vec<_> = (0..200u8)
        .map(|n| {
            let name = format!("nobody{n}");
            let one = User {
                name: name.into(),
                ..wrong.clone()
            };
            one.signed(turn.id(), Method::ALLOCATE, |writer| {
                writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
            })
        })
        .collect();
    let mut reply = Vec::with_capacity(4096);
    let Turn {
        server,
        relays,
        now,
        ..
    } = &mut turn;
    let mut flood = |count: u32| {
        for n in 0..count {
            reply.clear();
            let some = n as usize % 200;
            server.client_input(*now, ann.client, &closed[some], relays, &mut reply);
            server.client_input(*now, wrong.client, &logins[some], relays, &mut reply);
            let stranger = std::net::SocketAddr::from((n.to_be_bytes(), 9));
            server.peer_input(*now, relay, stranger, 100);
        }
    };
    flood(1000);
    let before = BYTES.get();
    flood(FLOOD);
    assert_eq!(BYTES.get(), before);
}

/// Relays without any memory.
struct Ready(u32);

impl turnd::turn::Relays for Ready {
    fn open(
        &mut self,
        _: turnd::turn::Want,
    ) -> Result<turnd::turn::Relay, turnd::turn::NoCapacity> {
        let id = RelayId(self.0);
        self.0 += 1;
        let port = 1024 + self.0 as u16;
        Ok(turnd::turn::Relay {
            id,
            address: std::net::SocketAddr::new(address(SERVER_V4).ip(), port),
            reserved: None,
        })
    }

    fn close(&mut self, _: RelayId) {}

    fn reach(&self, _: std::net::SocketAddr) -> turnd::turn::Reach {
        turnd::turn::Reach::Outside
    }

    fn families(&self) -> turnd::turn::Families {
        turnd::turn::Families { v4: true, v6: true }
    }
}
