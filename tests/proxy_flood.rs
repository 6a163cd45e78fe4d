//! Hostile PROXY headers in great number, in a process of their own: its memory is measured.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

#[path = "streams/header.rs"]
mod header;
mod wire;

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use turnd::stun::Method;

use header::{connect_from, from, version_2};
use wire::{Answer, Client, Plane, loopback};

/// A31: 50,000 headers that are none, or nearly: closed, counted, forgotten.
#[test]
fn a31_hostile_headers_cost_nothing() {
    const MANY: usize = 50_000;
    let plane = start();
    let mut random = StdRng::seed_from_u64(31);
    let good = [
        b"PROXY TCP4 192.0.2.7 192.0.2.1 40003 443\r\n".to_vec(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        from(
            "192.0.2.7:1".parse().unwrap(),
            "192.0.2.1:2".parse().unwrap(),
        ),
        from(
            "[2001:db8::1]:1".parse().unwrap(),
            "[2001:db8::2]:2".parse().unwrap(),
        ),
        version_2([0x20, 0], &[]),
    ];
    let mut resident = 0;
    for number in 0..MANY {
        let header = hostile(&mut random, &good);
        // From many addresses, so that the kernel does not run out of ports.
        let mut stream = connect_from(&format!("127.0.0.{}", 10 + number % 200), plane.tcp);
        let _ = stream.write_all(&header);
        // No memory of it in the kernel either.
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        if number == MANY / 10 {
            resident = resident_pages();
        }
    }
    let grown = resident_pages().saturating_sub(resident) * 4096;
    assert!(grown < 8 << 20, "{grown} bytes");
    let counted = (0..200).any(|_| {
        std::thread::park_timeout(Duration::from_millis(20));
        let cells = plane.snapshot().cells;
        let headers = cells.proxy_headers;
        // Some connections are reset before anybody takes them.
        headers.failed > MANY as u64 / 2
            && headers.ok + headers.failed + cells.streams.failed >= MANY as u64 * 9 / 10
    });
    assert!(counted, "{:?}", plane.snapshot().cells.proxy_headers);
    assert_eq!(plane.snapshot().cells.restarts, 0);
    let client = "192.0.2.7:40000".parse().unwrap();
    let mut stream = connect_from("127.0.0.1", plane.tcp);
    stream
        .write_all(&from(client, "192.0.2.1:443".parse().unwrap()))
        .unwrap();
    let mut next = Client::on(stream);
    let binding = next.build(Method::BINDING, |_| {}, false);
    next.send(&binding);
    let answer = Answer(next.receive());
    let mapped = answer.success().xor_mapped_address().unwrap().unwrap();
    assert_eq!(mapped, client, "it is served as ever");
}

/// Noise, or a good header with a few bytes changed, cut off or added.
fn hostile(random: &mut StdRng, good: &[Vec<u8>]) -> Vec<u8> {
    let mut header = good[random.random_range(0..good.len())].clone();
    match random.random_range(0..4) {
        0 => {
            header = vec![0; random.random_range(1..200)];
            random.fill_bytes(&mut header);
        }
        1 => header.truncate(random.random_range(1..=header.len())),
        2 => {
            let at = random.random_range(0..=header.len());
            header.insert(at, random.random());
        }
        _ => {
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..header.len());
                header[at] = random.random();
            }
        }
    }
    header
}

fn start() -> Plane {
    Plane::start_as(
        1,
        vec![loopback()],
        |_| {},
        |settings| settings.listeners[1].proxies = vec!["127.0.0.0/24".parse().unwrap()],
    )
}

fn resident_pages() -> usize {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse().unwrap()
}
