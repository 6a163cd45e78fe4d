//! Real clients over the real server: browsers, bots and load generators, each on a host of its own.
//!
//! Nothing but the relay connects the clients ([`rig`]), so what arrives went through it. The tests need root and
//! what `.ci/install` installs; without these they say `SKIPPED` and pass, except with `CI=true`.
//! `TURND_TEST_SERVER=coturn` checks the rig and the clients against another server.
#![cfg(feature = "server")]

#[path = "clients/peer.rs"]
mod peer;
#[path = "clients/rig.rs"]
mod rig;
#[path = "clients/server.rs"]
mod server;
#[path = "clients/tool.rs"]
mod tool;

use serde_json::{Value, json};

use peer::{Kind, Peer, Transport, call};
use rig::{Host, Rig};
use server::{Credential, Server};
use tool::Tool;

#[test]
fn aiortc_calls_aiortc_over_udp() {
    data_call(Kind::Aiortc, Kind::Aiortc, Transport::Udp);
}

#[test]
fn aiortc_calls_aiortc_over_tcp() {
    data_call(Kind::Aiortc, Kind::Aiortc, Transport::Tcp);
}

#[test]
fn aiortc_calls_aiortc_over_tls() {
    data_call(Kind::Aiortc, Kind::Aiortc, Transport::Tls);
}

#[test]
fn chromium_calls_aiortc() {
    data_call(Kind::Chromium, Kind::Aiortc, Transport::Udp);
}

#[test]
fn chromium_calls_chromium_over_udp() {
    video_call(Transport::Udp);
}

#[test]
fn chromium_calls_chromium_over_tcp() {
    video_call(Transport::Tcp);
}

#[test]
fn chromium_calls_chromium_over_tls() {
    video_call(Transport::Tls);
}

/// Sends 200 messages of 1000 bytes to the other side, which sends them back.
fn data_call(caller: Kind, callee: Kind, transport: Transport) {
    let Some(rig) = rig_for(&[caller, callee]) else { return };
    let _server = Server::start(&rig);
    let credential = Credential::lasting(3600);
    let mut caller = Peer::start(&rig, Host::A, caller, &transport.url(), &credential);
    let mut callee = Peer::start(&rig, Host::B, callee, &transport.url(), &credential);
    call(&mut caller, &mut callee, false);
    let echo = caller.ask(&json!({ "do": "echo", "count": 200, "size": 1000 }));
    assert_eq!(echo["echoed"], 200);
    let stats = callee.ask(&json!({ "do": "stats" }));
    assert_eq!(stats["received"], 200 * 1000, "{stats}");
    assert_eq!(stats["candidate"], "relay", "{stats}");
}

/// Sends video both ways until each side decoded 40 frames of the other's.
fn video_call(transport: Transport) {
    let Some(rig) = rig_for(&[Kind::Chromium]) else { return };
    let _server = Server::start(&rig);
    let (mut caller, mut callee) = browsers(&rig, transport);
    call(&mut caller, &mut callee, true);
    for stats in watch_both(&mut caller, &mut callee) {
        assert_eq!(stats["candidate"], "relay", "{stats}");
        assert_eq!(stats["remote"], "relay", "{stats}");
        assert_eq!(stats["relay"], transport.word(), "{stats}");
        assert!(stats["frames"].as_u64() > Some(30), "{stats}");
    }
}

fn browsers(rig: &Rig, transport: Transport) -> (Peer, Peer) {
    let credential = Credential::lasting(3600);
    let [caller, callee] =
        [Host::A, Host::B].map(|host| Peer::start(rig, host, Kind::Chromium, &transport.url(), &credential));
    (caller, callee)
}

/// Waits until both sides decoded another 40 frames, and returns what they count then.
fn watch_both(caller: &mut Peer, callee: &mut Peer) -> [Value; 2] {
    let words = json!({ "do": "watch", "frames": 40 });
    caller.tell(&words);
    callee.tell(&words);
    [caller.hear(&words), callee.hear(&words)]
}

fn rig_for(kinds: &[Kind]) -> Option<Rig> {
    let mut tools = Server::tools().to_vec();
    tools.extend(kinds.iter().map(|kind| match kind {
        Kind::Aiortc => Tool::Aiortc,
        Kind::Chromium => Tool::Chromium,
    }));
    Rig::new(&tools)
}
