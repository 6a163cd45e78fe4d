//! A worker that panics: the calls of the others go on, and it is back with what all have been told since the start.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod wire;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use turnd::plane::Sighted;
use turnd::stun::{Attribute, Method};
use turnd::turn::{
    EndReason, NonceKey, NonceKeys, Revocations, Revoked, Session, Settings, Term, Users,
};
use wire::{Client, PASSWORD, Plane, loopback, peer, receive_from};

/// Enough that some are dealt to either worker: that one of them gets none happens in one of 2^23 runs.
const CLIENTS: usize = 24;

#[test]
fn a_worker_that_panics_is_back_with_the_settings_and_revocations_in_force() {
    let bench = Bench::start();
    let mut victim = bench.client("victim");
    victim.allocate();
    let mut others: Vec<Client> = (0..CLIENTS).map(|_| bench.client("alice")).collect();
    for client in &mut others {
        client.allocate();
    }
    bench.reload();
    bench.revoke("taken back");

    bench.panic_with("victim", 1);

    let sessions = bench.sessions();
    let lives = |client: &Client| {
        let relayed = client.relayed.unwrap();
        sessions.iter().any(|session| session.relays == [relayed])
    };
    assert!(!lives(&victim));
    let (mut survivors, lost): (Vec<_>, Vec<_>) = others.iter_mut().partition(|one| lives(one));
    assert!(!survivors.is_empty() && !lost.is_empty());
    let lost = lost.len() as u64;
    assert_eq!(survivors.len(), sessions.len());
    for client in &mut survivors {
        flows(client);
    }
    // The ports of the lost ones are free again.
    assert_eq!(bench.plane.snapshot().ports.used, sessions.len() as u64);

    for (name, wanted) in [("new", 0), ("gone", 401), ("taken back", 401)] {
        let mut clients: Vec<Client> = (0..CLIENTS).map(|_| bench.client(name)).collect();
        for client in &mut clients {
            assert_eq!(code(client), wanted, "{name}");
            if wanted == 0 {
                flows(client);
            }
        }
    }
    let cells = bench.plane.snapshot().cells;
    assert_eq!(cells.restarts, 1);
    assert_eq!(cells.ends(EndReason::WorkerFailed), 1 + lost);
}

/// Whoever keeps books of sessions hears of the ends of those that a panic has ended.
#[test]
fn the_sessions_of_a_worker_that_panics_are_told_to_have_ended() {
    let bench = Bench::start();
    let mut sightings = bench.plane.handle.sightings(Arc::default()).unwrap();
    bench.client("victim").allocate();
    bench.panic_with("victim", 1);
    let (began, ended) = (sightings.try_recv().unwrap(), sightings.try_recv().unwrap());
    let (Sighted::Began(began), Sighted::Ended(ended)) = (began.what, ended.what) else {
        panic!("a session begins and ends");
    };
    assert_eq!(began.session, ended.session);
    assert_eq!(ended.reason, EndReason::WorkerFailed);
    assert!(sightings.try_recv().is_err());
}

#[test]
fn a_worker_that_panics_while_the_server_drains_takes_no_new_calls() {
    let bench = Bench::start();
    bench.client("victim").allocate();
    bench.runtime.block_on(bench.plane.handle.drain(true));
    bench.panic_with("victim", 1);
    for _ in 0..CLIENTS {
        assert_eq!(code(&mut bench.client("alice")), 508);
    }
    bench.runtime.block_on(bench.plane.handle.drain(false));
    for _ in 0..CLIENTS {
        assert_eq!(code(&mut bench.client("alice")), 0);
    }
}

/// Whoever panics again and again harms those who share a worker with it, and nobody else.
#[test]
fn workers_that_panic_often_come_back_each_time() {
    let bench = Bench::start();
    for round in 1..=10 {
        bench.client("victim").allocate();
        bench.panic_with("victim", round);
        flows(&mut bench.client("alice"));
    }
}

/// Two workers that know alice, victim, `gone` and `taken back`.
struct Bench {
    plane: Plane,
    runtime: Runtime,
}

impl Bench {
    fn start() -> Self {
        let plane = Plane::start_with(2, vec![loopback()], |settings| {
            settings.users = users(&["alice", "victim", "gone", "taken back"]);
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self { plane, runtime }
    }

    fn client(&self, name: &str) -> Client {
        Client::udp(self.plane.udp).named(name)
    }

    /// There is somebody new, and somebody is gone.
    fn reload(&self) {
        let mut settings = Settings::new(NonceKeys::from(NonceKey([7; 32])));
        settings.users = users(&["alice", "victim", "new", "taken back"]);
        settings.limits.per_user = 10_000;
        settings.limits.unauthenticated_replies = 0;
        settings.peers.allow = vec!["127.0.0.0/8".parse().unwrap()];
        let handle = &self.plane.handle;
        self.runtime
            .block_on(handle.replace_settings(Arc::new(settings)));
    }

    fn revoke(&self, name: &str) {
        let term = Term {
            not_before: u64::MAX,
            until: u64::MAX,
        };
        let all = [(Revoked::Name(name.into()), term)];
        let all = Arc::new(Revocations::new(Duration::from_secs(86_400), all));
        self.runtime
            .block_on(self.plane.handle.replace_revocations(all));
    }

    /// Lets the worker that has a session of this user panic, which is the `restarts`th time, and waits until it is
    /// back. It runs what chooses sessions, and that panics.
    fn panic_with(&self, name: &'static str, restarts: u64) {
        let chosen = self.plane.handle.end_sessions(EndReason::Kicked, |holder| {
            assert_ne!(holder.username, name.as_bytes(), "as it is meant to");
            false
        });
        assert_eq!(self.runtime.block_on(chosen), 0);
        let is_back = (0..wire::PATIENCE.as_secs()).any(|_| {
            // One that does not answer is waited for, a second at the most.
            let snapshot = self.plane.snapshot();
            (snapshot.workers, snapshot.cells.restarts) == (2, restarts)
        });
        assert!(is_back);
    }

    fn sessions(&self) -> Vec<Session> {
        let all = self.plane.handle.sessions(|_| true, usize::MAX);
        self.runtime.block_on(all)
    }
}

fn users(names: &[&str]) -> Users {
    let mut users = Users::new("turnd");
    for name in names {
        users.add_user(name, PASSWORD);
    }
    users
}

/// The answer to an Allocate.
fn code(client: &mut Client) -> u16 {
    let answer = client.request(Method::ALLOCATE, |writer| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
    });
    let code = answer.code();
    if code == 0 {
        client.relayed = answer.message().xor_relayed_address().unwrap().ok();
    }
    code
}

/// Data go both ways.
fn flows(client: &mut Client) {
    if client.relayed.is_none() {
        client.allocate();
    }
    let peer = peer("127.0.0.2");
    let at = peer.local_addr().unwrap();
    let relayed = client.relayed.unwrap();
    assert_eq!(client.permit(at).code(), 0);
    client.send_indication(at, b"to the peer");
    assert_eq!(receive_from(&peer), (b"to the peer".to_vec(), relayed));
    peer.send_to(b"and back", relayed).unwrap();
    assert_eq!(client.receive_data(), (at, b"and back".to_vec()));
}
