//! A relayed datagram costs a worker no heap allocation, sockets and loop included.
#![allow(unsafe_code, reason = "a counting allocator is one")]

mod wire;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use turnd::turn::Bandwidth;
use wire::{Client, Link, Plane, channel_data, loopback, peer};

/// The allocations of all threads: the workers' are not this one.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: everything is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and `alloc` took it from the same allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
#[allow(clippy::unwrap_used, reason = "what fails here fails the test")]
fn relaying_over_udp_allocates_nothing_in_either_direction() {
    // Without any limit, and with all of them.
    for rate in [0, 1_000_000_000_000] {
        relaying_allocates_nothing(rate);
    }
}

#[allow(clippy::unwrap_used, reason = "what fails here fails the test")]
fn relaying_allocates_nothing(rate: u64) {
    let plane = Plane::start_with(1, vec![loopback()], |settings| {
        settings.limits.bandwidth = Bandwidth {
            per_allocation: rate,
            per_user: rate,
            per_tenant: rate,
            total: rate,
        };
    });
    let peer = peer("127.0.0.2");
    let mut client = Client::udp(plane.udp);
    let relayed = client.allocate();
    assert_eq!(client.bind(0x4000, peer.local_addr().unwrap()).code(), 0);
    let Link::Udp(socket) = &client.link else {
        unreachable!("a UDP client")
    };
    let message = channel_data(0x4000, &[7; 160], false);
    let mut buffer = [0; 2048];
    let mut exchange = || {
        socket.send(&message).unwrap();
        assert_eq!(peer.recv(&mut buffer).unwrap(), 160);
        peer.send_to(&message[4..], relayed).unwrap();
        assert_eq!(socket.recv(&mut buffer).unwrap(), 164);
    };
    // Buffers that stay grow to their size first.
    (0..200).for_each(|_| exchange());
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    (0..2_000).for_each(|_| exchange());
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
    // Some of the rounds were timed meanwhile.
    let timed = plane.snapshot().cells.forward.rounds.iter().sum::<u64>();
    assert!(timed >= 10, "{timed}");
    // The counter counts.
    drop(std::hint::black_box(Box::new(1)));
    assert!(ALLOCATIONS.load(Ordering::Relaxed) > before);
}
