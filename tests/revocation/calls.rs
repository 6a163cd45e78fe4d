//! Calls over real sockets that end because their credentials are taken back.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use turnd::revocation::{self, Order, Revoker, Settings, Store};
use turnd::turn::{OnExpiry, Revoked, SecretAlgorithm, SharedSecret};

use crate::machine::{credential, user};
use crate::wire::{Client, PATIENCE, Plane, loopback, peer, receive_from};

fn secret() -> SharedSecret {
    SharedSecret::new("k", b"north", SecretAlgorithm::Sha1).with_claims()
}

#[expect(
    clippy::disallowed_methods,
    reason = "credentials have the time in them"
)]
fn unix() -> u64 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[expect(
    clippy::disallowed_methods,
    reason = "it is measured how long it takes"
)]
fn clock() -> Instant {
    Instant::now()
}

/// A client with a credential of this name, of a minute ago.
fn client(plane: &Plane, rest: &str) -> Client {
    let name = format!("{}:k~{rest}", unix() + 3540);
    Client::udp(plane.udp).with_credentials(&name, &secret().password(name.as_bytes()))
}

/// A plane whose revocations are kept in a directory of their own.
struct Kept {
    plane: Plane,
    revoker: Revoker,
    runtime: tokio::runtime::Runtime,
    directory: PathBuf,
}

impl Kept {
    fn start(workers: usize, ports: std::ops::RangeInclusive<u16>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("turnd-calls-{}-{number}", std::process::id()));
        let plane = Plane::start_as(
            workers,
            vec![loopback()],
            |settings| settings.users.add_secret(secret()).unwrap(),
            |settings| settings.relay.ports = ports,
        );
        let settings = Settings {
            is_asked_for: true,
            database: directory.join("revocations.sqlite"),
            keep: Duration::from_secs(86_400),
            most: Settings::MOST,
        };
        let store = Store::open(&settings.database).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let handle = Some(plane.handle.clone());
        let revoker = runtime
            .block_on(revocation::start(store, &settings, handle, Arc::default()))
            .unwrap();
        Self {
            plane,
            revoker,
            runtime,
            directory,
        }
    }

    /// Revokes, and tells how many calls that has ended.
    fn revoke(&self, revoked: Revoked, cut: bool) -> usize {
        let order = Order {
            revoked,
            not_before: None,
            cut,
        };
        let outcome = self.runtime.block_on(self.revoker.revoke(order)).unwrap();
        outcome.ended.unwrap()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Whether what a client sends through its channel comes out.
fn lives(client: &mut Client, peer: &UdpSocket, data: &[u8]) -> bool {
    client.send_channel(0x4000, data);
    let alive = client.bind(0x4000, peer.local_addr().unwrap()).code() == 0;
    if alive {
        assert_eq!(receive_from(peer).0, data);
    }
    alive
}

#[test]
fn every_kind_of_revocation_ends_the_calls_it_reaches_at_once() {
    let kept = Kept::start(2, 34_000..=34_299);
    let names = [
        "acme~ann~t3600~jone",
        "acme~ann~t3600~jtwo",
        "acme~bob~t3600~jthree",
        "acme~cid~t3600~jfour",
        "other~ann~t3600~jone",
    ];
    let peer = peer("127.0.0.2");
    let at = peer.local_addr().unwrap();
    let mut clients = names.map(|name| client(&kept.plane, name));
    for client in &mut clients {
        client.allocate();
        assert_eq!(client.bind(0x4000, at).code(), 0);
    }
    let mut expected = [true; 5];
    for (revoked, ended) in [
        (credential("acme", "none"), vec![]),
        (credential("acme", "two"), vec![1]),
        (user("acme", "ann"), vec![0]),
        (Revoked::Tenant("acme".into()), vec![2, 3]),
    ] {
        assert_eq!(
            kept.revoke(revoked.clone(), true),
            ended.len(),
            "{revoked:?}"
        );
        ended.iter().for_each(|place| expected[*place] = false);
        for (place, client) in clients.iter_mut().enumerate() {
            let found = lives(client, &peer, names[place].as_bytes());
            assert_eq!(found, expected[place], "{} by {revoked:?}", names[place]);
        }
        for (place, name) in names.iter().enumerate() {
            let mut again = client(&kept.plane, name);
            let answer = again.request(turnd::stun::Method::ALLOCATE, |writer| {
                writer.u8(turnd::stun::Attribute::REQUESTED_TRANSPORT, 17);
            });
            let code = if expected[place] { 0 } else { 401 };
            assert_eq!(answer.code(), code, "{name} by {revoked:?}");
            if code == 0 {
                let gone = again.request(turnd::stun::Method::REFRESH, |writer| {
                    writer.u32(turnd::stun::Attribute::LIFETIME, 0);
                });
                assert_eq!(gone.code(), 0);
            }
        }
    }
    let cells = kept.plane.snapshot().cells;
    assert!(cells.refusals(turnd::turn::Refusal::Revoked) >= 7);
}

#[test]
fn calls_that_are_kept_go_on_but_are_not_prolonged() {
    let kept = Kept::start(1, 34_300..=34_399);
    let peer = peer("127.0.0.2");
    let mut ann = client(&kept.plane, "acme~ann~t3600~jone");
    ann.allocate();
    assert_eq!(ann.bind(0x4000, peer.local_addr().unwrap()).code(), 0);
    assert_eq!(kept.revoke(user("acme", "ann"), false), 0);
    assert!(lives(&mut ann, &peer, b"still here"));
    assert_eq!(
        ann.request(turnd::stun::Method::REFRESH, |_| {}).code(),
        401
    );
    assert_eq!(kept.revoke(user("acme", "ann"), true), 1);
    assert!(!lives(&mut ann, &peer, b"gone"));
}

/// A thousand calls that never pause, and a revocation that ends all of them.
#[test]
fn a_thousand_calls_end_within_a_second() {
    const CALLS: usize = 1000;
    let kept = Kept::start(2, 35_000..=37_999);
    let peer = peer("127.0.0.2");
    let at = peer.local_addr().unwrap();
    let mut sockets = Vec::new();
    for number in 0..CALLS {
        let mut client = client(&kept.plane, &format!("acme~user{number}~t3600~jc{number}"));
        client.allocate();
        assert_eq!(client.bind(0x4000, at).code(), 0);
        let crate::wire::Link::Udp(socket) = client.link else {
            unreachable!("it came over UDP")
        };
        sockets.push(socket);
    }
    let mut bystander = client(&kept.plane, "other~ann~t3600~jc1");
    bystander.allocate();
    assert_eq!(bystander.bind(0x4001, at).code(), 0);

    let stop = Arc::new(AtomicBool::new(false));
    let flow = {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            let mut sent = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                for (number, socket) in sockets.iter().enumerate() {
                    let number = (number as u32).to_be_bytes();
                    socket
                        .send(&crate::wire::channel_data(0x4000, &number, false))
                        .unwrap();
                    sent += 1;
                }
                thread::park_timeout(Duration::from_millis(20));
            }
            sent
        })
    };
    // Every packet that comes out, with the time it came.
    let listener = peer.try_clone().unwrap();
    listener
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let ears = {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            let (mut heard, mut last) = (vec![0_u64; CALLS], None);
            let mut buffer = [0; 64];
            while !stop.load(Ordering::Relaxed) {
                if let Ok(4) = listener.recv(&mut buffer) {
                    let number = u32::from_be_bytes(buffer[..4].try_into().unwrap());
                    if let Some(heard) = heard.get_mut(number as usize) {
                        *heard += 1;
                        last = Some(clock());
                    }
                }
            }
            (heard, last)
        })
    };
    thread::park_timeout(Duration::from_secs(1));
    let asked = clock();
    let ended = kept.revoke(Revoked::Tenant("acme".into()), true);
    let answered = asked.elapsed();
    thread::park_timeout(Duration::from_secs(1));
    stop.store(true, Ordering::Relaxed);
    let sent = flow.join().unwrap();
    let (heard, last) = ears.join().unwrap();
    let last = last.unwrap().saturating_duration_since(asked);
    let relayed: u64 = heard.iter().sum();
    let quiet = heard.iter().filter(|heard| **heard == 0).count();
    println!(
        "{CALLS} calls, {sent} packets sent, {relayed} relayed: answered after {answered:?}, the last packet came out after {last:?}"
    );
    assert_eq!((ended, quiet), (CALLS, 0));
    assert!(last < Duration::from_secs(3), "the product's figure is 1 s");
    let snapshot = kept.plane.snapshot();
    let left: u64 = snapshot.census.allocations.as_flattened().iter().sum();
    assert_eq!(left, 1);
    bystander.send_channel(0x4001, b"still here");
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let found = std::iter::repeat_with(|| receive_from(&peer).0).find(|data| data.len() != 4);
    assert_eq!(found.as_deref(), Some(&b"still here"[..]));
}

/// `[auth] on_expiry = "cut"`: clocks may be a minute off, so a credential is good for that much longer.
#[test]
fn a_call_is_cut_within_a_second_of_its_credentials_end() {
    const TOLERANCE: u64 = 60;
    let plane = Plane::start_with(1, vec![loopback()], |settings| {
        settings.on_expiry = OnExpiry::Cut;
        settings.users.add_secret(secret()).unwrap();
    });
    let peer = peer("127.0.0.2");
    peer.set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let expiry = unix() - TOLERANCE + 4;
    let name = format!("{expiry}:k~acme~ann~t3600");
    let mut ann =
        Client::udp(plane.udp).with_credentials(&name, &secret().password(name.as_bytes()));
    ann.allocate();
    assert_eq!(ann.bind(0x4000, peer.local_addr().unwrap()).code(), 0);
    let (mut last, mut buffer) = (None, [0; 64]);
    while unix() < expiry + TOLERANCE + 3 {
        ann.send_channel(0x4000, b"voice");
        if peer.recv(&mut buffer).is_ok() {
            last = Some(unix());
        }
    }
    let last = last.unwrap();
    assert!(
        (expiry + TOLERANCE - 1..=expiry + TOLERANCE + 1).contains(&last),
        "the last packet came out at {last}, the end was {}",
        expiry + TOLERANCE
    );
    assert_eq!(ann.permit(peer.local_addr().unwrap()).code(), 437);
}
