//! Real clients over the real server: browsers, bots and load generators, each on a host of its own.
//!
//! Nothing but the relay connects the clients ([`rig`]), so what arrives went through it. The tests need root and
//! what `.ci/install` installs; without these they say `SKIPPED` and pass, except with `CI=true`.
//! `TURND_TEST_SERVER=coturn` checks the rig and the clients against another server.
#![cfg(feature = "server")]

#[path = "clients/inside.rs"]
mod inside;
#[path = "clients/janus.rs"]
mod janus;
#[path = "clients/journey.rs"]
mod journey;
#[path = "clients/nat.rs"]
mod nat;
#[path = "clients/pages.rs"]
mod pages;
#[path = "clients/peer.rs"]
mod peer;
#[path = "clients/redirect.rs"]
mod redirect;
#[path = "clients/rig.rs"]
mod rig;
#[path = "clients/server.rs"]
mod server;
#[path = "clients/tool.rs"]
mod tool;
#[path = "clients/turn_client_proto.rs"]
mod turn_client_proto;
#[path = "clients/turn_crate.rs"]
mod turn_crate;
#[path = "clients/web.rs"]
mod web;

use serde_json::{Value, json};

use nat::{Nat, Ports};
use peer::{Kind, Peer, Transport, call};
use rig::{Host, Rig};
use server::{Credential, NAMED, SECRET, Server, Setup};
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
fn libjuice_calls_libjuice() {
    data_call(Kind::Libjuice, Kind::Libjuice, Transport::Udp);
}

/// It wants the list that the bit in the cookie announces, but goes on with MD5, as it may.
#[test]
fn libjuice_calls_libjuice_where_sha256_is_offered() {
    let setup = Setup {
        more: listen_for(r#"["md5", "sha256"]"#),
        ..Setup::default()
    };
    let credential = Credential::lasting(3600);
    data_call_with(Kind::Libjuice, Transport::Strict, &setup, &credential);
}

/// libjuice reads the bits of the nonce cookie from the end, and sends USERHASH (0x1E) if it finds the one that asks
/// for it \[A3\]; `turn_client_proto_hides_its_name` reads them from the front.
#[test]
fn libjuice_hides_its_name() {
    let setup = Setup {
        auth: format!("{NAMED}\nusername_anonymity = true"),
        more: listen_for(r#"["md5", "sha256"]"#),
    };
    let said = data_call_with(
        Kind::Libjuice,
        Transport::Strict,
        &setup,
        &Credential::named(),
    );
    let wrote = |attribute: &str| {
        let line = format!("Writing STUN attribute type {attribute},");
        said.as_ref().is_none_or(|said| said.contains(&line))
    };
    assert!(wrote("0x1E"), "no USERHASH");
    assert!(wrote("0x14"), "REALM is not found where it must be");
}

#[test]
fn turn_client_proto_uses_sha256_where_it_is_required() {
    let setup = Setup {
        more: listen_for(r#"["sha256"]"#),
        ..Setup::default()
    };
    inside::on_client_host_with(
        "turn_client_proto_uses_sha256_where_it_is_required",
        &setup,
        &Credential::lasting(3600),
        turn_client_proto::with_sha256,
    );
}

#[test]
fn turn_client_proto_hides_its_name() {
    let setup = Setup {
        auth: format!("{NAMED}\nusername_anonymity = true"),
        more: listen_for(r#"["sha256"]"#),
    };
    inside::on_client_host_with(
        "turn_client_proto_hides_its_name",
        &setup,
        &Credential::named(),
        turn_client_proto::with_a_hidden_name,
    );
}

#[test]
fn aiortc_logs_in_with_what_turnd_signed_by_sha256() {
    if server::is_coturn() {
        return tool::say_skipped("coturn signs by SHA-1");
    }
    let Some(rig) = rig_for(&[Kind::Aiortc]) else {
        return;
    };
    let setup = Setup {
        auth: r#"secrets = [{ file = "secret", algorithm = "sha256" }]"#.into(),
        ..Setup::default()
    };
    let _server = Server::start_with(&rig, &setup);
    let mut candidates = [Credential::minted(&rig), Credential::lasting(3600)].map(|credential| {
        let mut peer = Peer::start(&rig, Host::A, Kind::Aiortc, Transport::Udp, &credential);
        peer.ask(&json!({ "do": "offer" })).to_string()
    });
    let [minted, of_sha1] = candidates.each_mut();
    assert!(minted.contains(" typ relay"), "{minted}");
    assert!(!of_sha1.contains(" typ relay"), "{of_sha1}");
}

/// aioice knows MD5 alone.
#[test]
fn a_client_without_sha256_is_refused_where_it_is_required() {
    let Some(rig) = rig_for(&[Kind::Aiortc]) else {
        return;
    };
    let setup = Setup {
        more: listen_for(r#"["sha256"]"#),
        ..Setup::default()
    };
    let _server = Server::start_with(&rig, &setup);
    let credential = Credential::lasting(3600);
    let mut peer = Peer::start(&rig, Host::A, Kind::Aiortc, Transport::Strict, &credential);
    let offer = peer.ask(&json!({ "do": "offer" })).to_string();
    assert!(!offer.contains(" typ relay"), "{offer}");
}

#[test]
fn aiortc_calls_aiortc_over_ipv6() {
    data_call(Kind::Aiortc, Kind::Aiortc, Transport::Udp6);
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

/// \[ALPN\] Browsers name no protocol: what they say after the handshake tells them from web clients.
#[test]
fn chromium_calls_on_the_port_of_a_web_server() {
    let Some(rig) = rig_with(&[Tool::Chromium, Tool::Web]) else {
        return;
    };
    if server::is_coturn() {
        return tool::say_skipped("coturn has no web server behind it");
    }
    let _server = Server::start_with(&rig, &shared_port());
    web::start(&rig);
    let (mut caller, mut callee) = browsers(&rig, Transport::Shared);
    call(&mut caller, &mut callee, true);
    watch_both(&mut caller, &mut callee);
    for host in [Host::A, Host::B] {
        web::fetch(&rig, host);
    }
    for stats in watch_both(&mut caller, &mut callee) {
        assert_eq!(stats["candidate"], "relay", "{stats}");
        assert_eq!(stats["relay"], "tls", "{stats}");
    }
}

#[test]
fn aiortc_calls_on_the_port_of_a_web_server() {
    let Some(rig) = rig_with(&[Tool::Aiortc, Tool::Web]) else {
        return;
    };
    if server::is_coturn() {
        return tool::say_skipped("coturn has no web server behind it");
    }
    let _server = Server::start_with(&rig, &shared_port());
    web::start(&rig);
    let credential = Credential::lasting(3600);
    let [mut caller, mut callee] = [Host::A, Host::B]
        .map(|host| Peer::start(&rig, host, Kind::Aiortc, Transport::Shared, &credential));
    call(&mut caller, &mut callee, false);
    web::fetch(&rig, Host::A);
    let echo = caller.ask(&json!({ "do": "echo", "count": 200, "size": 1000 }));
    assert_eq!(echo["echoed"], 200);
    web::fetch(&rig, Host::B);
}

#[test]
fn chromium_follows_a_redirect_over_udp() {
    redirected_call(Transport::Udp);
}

#[test]
fn chromium_follows_a_redirect_over_tcp() {
    redirected_call(Transport::Tcp);
}

#[test]
fn turn_crate_exchanges_data_over_udp() {
    inside::on_client_host("turn_crate_exchanges_data_over_udp", turn_crate::exchange);
}

#[test]
fn turn_client_proto_exchanges_data_over_udp() {
    inside::on_client_host(
        "turn_client_proto_exchanges_data_over_udp",
        turn_client_proto::over_udp,
    );
}

#[test]
fn turn_client_proto_exchanges_data_over_tcp() {
    inside::on_client_host(
        "turn_client_proto_exchanges_data_over_tcp",
        turn_client_proto::over_tcp,
    );
}

#[test]
fn turn_client_proto_exchanges_data_over_tls() {
    inside::on_client_host(
        "turn_client_proto_exchanges_data_over_tls",
        turn_client_proto::over_tls,
    );
}

#[test]
fn turn_client_proto_exchanges_data_over_dtls() {
    inside::on_client_host(
        "turn_client_proto_exchanges_data_over_dtls",
        turn_client_proto::over_dtls,
    );
}

#[test]
fn turn_client_proto_exchanges_data_over_ipv6() {
    inside::on_client_host(
        "turn_client_proto_exchanges_data_over_ipv6",
        turn_client_proto::over_ipv6,
    );
}

#[test]
fn answers_come_from_the_address_that_was_asked() {
    inside::on_client_host(
        "answers_come_from_the_address_that_was_asked",
        turn_client_proto::at_far_addresses,
    );
}

#[test]
fn uclient_uses_channels_over_udp() {
    uclient(&[]);
}

#[test]
fn uclient_uses_channels_over_tcp() {
    uclient(&["-t"]);
}

#[test]
fn uclient_sends_indications_over_udp() {
    uclient(&["-s"]);
}

#[test]
fn uclient_sends_indications_over_tcp() {
    uclient(&["-t", "-s"]);
}

/// It draws a version for each connection, and gives up that of DTLS 1.0 when it is told so (RFC 7350).
#[test]
fn uclient_uses_channels_over_dtls() {
    uclient(&["-S", "-p", "5349"]);
}

#[test]
fn uclient_sends_indications_over_dtls() {
    uclient(&["-S", "-p", "5349", "-s"]);
}

/// OpenSSL checks the certificate by the rig's authority, and meets the cookie on its way (\[S17\]).
#[test]
fn openssl_connects_over_dtls() {
    let Some(rig) = rig_with(&[Tool::OpenSsl]) else {
        return;
    };
    let _server = Server::start(&rig);
    let authority = rig.dir().join("ca.pem").display().to_string();
    let at = format!("{}:5349", Host::A.server());
    let output = rig.run(
        Host::A,
        "openssl",
        &[
            "s_client",
            "-dtls1_2",
            "-brief",
            "-verify_return_error",
            "-CAfile",
            &authority,
            "-connect",
            &at,
        ],
    );
    for line in [
        "CONNECTION ESTABLISHED",
        "Protocol version: DTLSv1.2",
        "Verification: OK",
    ] {
        assert!(output.contains(line), "{output}");
    }
}

#[test]
fn uclient_asks_for_ipv4() {
    uclient_with(&["-X"], &[&["-e", "10.99.2.2"], &["-y", "-c"]]);
}

#[test]
fn uclient_asks_for_ipv6() {
    uclient_with(&["-x"], &[&["-e", "fd99:2::2"], &["-y", "-c"]]);
}

#[test]
fn uclient_asks_for_ipv6_over_tcp() {
    uclient_with(&["-x", "-t"], &[&["-e", "fd99:2::2"], &["-y", "-c"]]);
}

/// It asks with the number of a draft (0x8032).
#[test]
fn uclient_asks_for_both_families() {
    uclient_with(
        &["-Z"],
        &[
            &["-e", "10.99.2.2"],
            &["-e", "fd99:2::2"],
            &["-y"],
            &["-s", "-y"],
        ],
    );
}

#[test]
fn uclient_forbids_fragments() {
    uclient_with(&["-g"], &[&["-e", "10.99.2.2"], &["-y", "-c"]]);
}

/// It moves to another port of its own (RFC 8016).
#[test]
fn uclient_moves_over_udp() {
    uclient_moves(&[]);
}

#[test]
fn uclient_moves_over_tcp() {
    uclient_moves(&["-t"]);
}

#[test]
fn uclient_moves_sending_indications() {
    uclient_moves(&["-s"]);
}

#[test]
fn stunclient_learns_its_address() {
    let Some(rig) = rig_with(&[Tool::CoturnClients]) else {
        return;
    };
    let _server = Server::start(&rig);
    for (server, own) in [
        (Host::A.server(), "10.99.1.2"),
        (Host::A.server6(), "fd99:1::2"),
    ] {
        let output = rig.run(Host::A, "turnutils_stunclient", &[server]);
        let line = output
            .lines()
            .find(|line| line.contains("UDP reflexive addr"));
        assert!(line.is_some_and(|line| line.contains(own)), "{output}");
    }
}

/// Between its own clients: one connects to the relay of the other (RFC 6062).
#[test]
fn uclient_connects_over_tcp_relays() {
    let setup = Setup {
        more: "[tcp_relay]\nenabled = true\n".into(),
        ..Setup::default()
    };
    uclient_at(&setup, &["-T"], &[&[], &["-x"]]);
}

/// \[5780-2\] \[5780-3\] coturn's probe finds out what there is before it: nothing, ...
#[test]
fn natdiscovery_finds_no_nat() {
    let Some(rig) = discovery_rig() else {
        return;
    };
    let _server = Server::start_with(&rig, &discovery());
    let probe = |flags: &[&str]| {
        let arguments = [flags, &["-L", "10.99.1.2", "10.99.0.1"]].concat();
        rig.run(Host::A, "turnutils_natdiscovery", &arguments)
    };
    // Also with 1500 bytes of PADDING, which do not fit into one packet.
    for padding in [&[][..], &["-P"]] {
        let mapping = probe(&[&["-m"], padding].concat());
        assert!(mapping.contains("No NAT! (Endpoint Independent Mapping)"));
        assert_eq!(verdict(&mapping), "NAT with Endpoint Independent Mapping!");
        let filtering = probe(&[&["-f"], padding].concat());
        assert!(filtering.contains("Response origin: : 10.99.2.1:3479"));
        assert_eq!(
            verdict(&filtering),
            "NAT with Endpoint Independent Filtering!"
        );
    }
    // The second answer is wanted at the port that the first question came from (RESPONSE-PORT).
    let lifetime = probe(&["-t", "-T", "1"]);
    assert!(lifetime.contains("RFC 5780 response 2"), "{lifetime}");
    assert!(!lifetime.contains("timeout"), "{lifetime}");
}

/// ... a NAT that keeps ports, ...
#[test]
fn natdiscovery_finds_a_nat_that_keeps_ports() {
    let Some(rig) = discovery_rig() else {
        return;
    };
    assert_eq!(
        behind(&rig, Ports::Preserved),
        [
            "NAT with Endpoint Independent Mapping!",
            "NAT with Address and Port Dependent Filtering!"
        ]
    );
}

/// ... or one that takes another port for each place that is asked, and lets in nobody else.
#[test]
fn natdiscovery_finds_a_symmetric_nat() {
    let Some(rig) = discovery_rig() else {
        return;
    };
    assert_eq!(
        behind(&rig, Ports::Random),
        [
            "NAT with Address and Port Dependent Mapping!",
            "NAT with Address and Port Dependent Filtering!"
        ]
    );
}

/// What the probe says of mapping and of filtering behind such a NAT.
fn behind(rig: &Rig, ports: Ports) -> [String; 2] {
    let _server = Server::start_with(rig, &discovery());
    let nat = Nat::new(rig, ports);
    ["-m", "-f"].map(|flag| verdict(&nat.run("turnutils_natdiscovery", &[flag, "10.99.0.1"])))
}

fn discovery_rig() -> Option<Rig> {
    if server::is_coturn() {
        tool::say_skipped("coturn is given no second address");
        return None;
    }
    rig_with(&[Tool::NatDiscovery])
}

/// Two addresses of the server with the same two ports.
fn discovery() -> Setup {
    Setup {
        more: "[nat_discovery]\naddresses = [\"10.99.0.1:3478\", \"10.99.2.1:3479\"]\n".into(),
        ..Setup::default()
    }
}

/// The last word of the probe.
fn verdict(output: &str) -> String {
    let mut lines = output.lines().rev();
    let last = lines.find(|line| !line.is_empty() && !line.starts_with('='));
    last.unwrap_or_default().to_owned()
}

/// Lets coturn's load generator send through the relay, to a peer that sends back and between its own clients.
fn uclient(flags: &[&str]) {
    uclient_with(flags, &[&["-e", "10.99.2.2"], &["-y", "-c"]]);
}

/// The same, with each of these peers in turn.
fn uclient_with(flags: &[&str], peers: &[&[&str]]) {
    uclient_at(&Setup::default(), flags, peers);
}

fn uclient_at(setup: &Setup, flags: &[&str], peers: &[&[&str]]) {
    let Some(rig) = rig_with(&[Tool::CoturnClients]) else {
        return;
    };
    let _server = Server::start_with(&rig, setup);
    uclient_on(&rig, flags, peers);
}

/// The same, with `-M`, on a rig whose server says afterwards whether anybody has moved. Not between its own clients
/// (`-y`): it closes its old socket when it moves, and one that listens before it speaks is still sent to there \[8016-4\].
fn uclient_moves(flags: &[&str]) {
    let Some(rig) = rig_with(&[Tool::CoturnClients]) else {
        return;
    };
    let _server = Server::start(&rig);
    let flags = [&["-M"], flags].concat();
    uclient_on(
        &rig,
        &flags,
        &[&["-e", "10.99.2.2"], &["-e", "10.99.2.2", "-c"]],
    );
    if server::is_coturn() {
        return;
    }
    let metrics = server::metrics(&rig, server::PAGES);
    for result in ["accepted", "completed"] {
        let name = format!("turn_moves_total{{result=\"{result}\"}} ");
        let count = metrics.lines().find_map(|line| line.strip_prefix(&name));
        assert!(
            count.is_some_and(|count| count != "0"),
            "{result}\n{metrics}"
        );
    }
}

fn uclient_on(rig: &Rig, flags: &[&str], peers: &[&[&str]]) {
    rig.start(
        Host::B,
        "turnutils_peer",
        &["-L", "10.99.2.2", "-L", "fd99:2::2", "-p", "3480"],
    );
    for peer in peers {
        let mut arguments = vec![
            "-u", "alice", "-W", SECRET, "-n", "100", "-m", "2", "-l", "170", "-z", "10",
        ];
        arguments.extend(flags.iter().chain(*peer));
        arguments.push(Host::A.server());
        let output = rig.run(Host::A, "turnutils_uclient", &arguments);
        assert!(
            output.contains("tot_send_msgs=200, tot_recv_msgs=200"),
            "{arguments:?}\n{output}"
        );
        assert!(
            output.contains("Total lost packets 0 (0.000000%)"),
            "{arguments:?}\n{output}"
        );
    }
}

#[test]
fn chromium_calls_chromium_over_ipv6() {
    video_call(Transport::Udp6);
}

#[test]
fn chromium_is_told_that_its_password_is_wrong() {
    let right = Credential::lasting(3600);
    refused(&Credential {
        password: "not this one".into(),
        ..right
    });
}

#[test]
fn chromium_is_told_that_its_credential_expired() {
    refused(&Credential::lasting(-3600));
}

#[test]
fn a_call_outlives_a_broken_reload() {
    if server::is_coturn() {
        return tool::say_skipped("coturn has no reload");
    }
    let Some(rig) = rig_for(&[Kind::Chromium, Kind::Aiortc]) else {
        return;
    };
    let mut server = Server::start(&rig);
    let (mut caller, mut callee) = browsers(&rig, Transport::Udp);
    call(&mut caller, &mut callee, true);
    let before = watch_both(&mut caller, &mut callee);
    server.reload_broken();
    let after = watch_both(&mut caller, &mut callee);
    for (before, after) in before.iter().zip(&after) {
        assert!(
            after["frames"].as_u64() >= before["frames"].as_u64().map(|frames| frames + 40),
            "{before} {after}"
        );
    }
    assert!(server.runs(), "turnd ended");
    // The settings before the reload still let others in.
    let mut newcomer = Peer::start(
        &rig,
        Host::A,
        Kind::Aiortc,
        Transport::Tls,
        &Credential::lasting(3600),
    );
    let offer = newcomer.ask(&json!({ "do": "offer" })).to_string();
    assert!(offer.contains(" typ relay"), "{offer}");
}

/// The rig proves something only if it holds: from one client, the server is there and the other is not.
#[test]
fn no_path_leads_around_the_relay() {
    let Some(rig) = Rig::new(&[]) else { return };
    // An address that is reached refuses the connection at once; silence means that nothing was.
    let knock = |address| {
        let script = format!("timeout 2 bash -c ': < /dev/tcp/{address}/9' 2> /dev/null; echo $?");
        rig.run(Host::A, "bash", &["-c", &script]).trim().to_owned()
    };
    assert_eq!(knock(Host::A.server()), "1");
    assert_eq!(knock(Host::B.server()), "1");
    assert_eq!(knock("10.99.2.2"), "124");
    assert_eq!(knock("fd99:2::2"), "124");
}

/// Tries to get a candidate with a credential that is no good.
fn refused(credential: &Credential) {
    let Some(rig) = rig_for(&[Kind::Chromium]) else {
        return;
    };
    let _server = Server::start(&rig);
    let mut peer = Peer::start(&rig, Host::A, Kind::Chromium, Transport::Udp, credential);
    let offer = peer.ask(&json!({ "do": "offer" }));
    assert_eq!(offer["candidates"], json!([]), "{offer}");
    let errors = offer["errors"].as_array().expect("a list");
    assert!(errors.iter().any(|error| error["code"] == 401), "{offer}");
}

/// A listener of its own that offers these password algorithms.
fn listen_for(algorithms: &str) -> String {
    format!("[[listen]]\naddress = \"0.0.0.0:3481\"\npassword_algorithms = {algorithms}\n")
}

/// A port for calls and web pages.
fn shared_port() -> Setup {
    Setup {
        more: web::LISTEN.into(),
        ..Setup::default()
    }
}

/// Sends 200 messages of 1000 bytes to the other side, which sends them back.
fn data_call(caller: Kind, callee: Kind, transport: Transport) {
    let Some(rig) = rig_for(&[caller, callee]) else {
        return;
    };
    let _server = Server::start(&rig);
    let credential = Credential::lasting(3600);
    data_call_between(&rig, [caller, callee], transport, &credential);
}

/// The same between two of a kind, where turnd is set up otherwise; returns what the caller logged.
fn data_call_with(
    kind: Kind,
    transport: Transport,
    setup: &Setup,
    credential: &Credential,
) -> Option<String> {
    if server::is_coturn() {
        tool::say_skipped("coturn is not set up like this");
        return None;
    }
    let rig = rig_for(&[kind])?;
    let _server = Server::start_with(&rig, setup);
    data_call_between(&rig, [kind, kind], transport, credential);
    Some(rig.logged(&format!("{kind:?}-{:?}", Host::A).to_lowercase()))
}

fn data_call_between(
    rig: &Rig,
    [caller, callee]: [Kind; 2],
    transport: Transport,
    credential: &Credential,
) {
    let mut caller = Peer::start(rig, Host::A, caller, transport, credential);
    let mut callee = Peer::start(rig, Host::B, callee, transport, credential);
    call(&mut caller, &mut callee, false);
    let echo = caller.ask(&json!({ "do": "echo", "count": 200, "size": 1000 }));
    assert_eq!(echo["echoed"], 200);
    let stats = callee.ask(&json!({ "do": "stats" }));
    assert_eq!(stats["received"], 200 * 1000, "{stats}");
    assert_eq!(stats["candidate"], "relay", "{stats}");
}

/// Sends video both ways until each side decoded 40 frames of the other's.
fn video_call(transport: Transport) {
    let Some(rig) = rig_for(&[Kind::Chromium]) else {
        return;
    };
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

/// Calls by way of a server that sends everybody to a second one \[300-1\] \[300-2\].
fn redirected_call(transport: Transport) {
    if server::is_coturn() {
        return tool::say_skipped("the second server is turnd");
    }
    let Some(rig) = rig_for(&[Kind::Chromium]) else {
        return;
    };
    let setup = Setup {
        more: redirect::ENTRY.into(),
        ..Setup::default()
    };
    let _entry = Server::start_with(&rig, &setup);
    redirect::start(&rig);
    let (mut caller, mut callee) = browsers(&rig, transport);
    call(&mut caller, &mut callee, true);
    for stats in watch_both(&mut caller, &mut callee) {
        assert_eq!(stats["candidate"], "relay", "{stats}");
        assert_eq!(stats["relay"], transport.word(), "{stats}");
    }
    let [entry, second] = [server::PAGES, redirect::PAGES].map(|port| server::metrics(&rig, port));
    let allocated = "method=\"allocate\",code=\"0\"";
    let redirected = "method=\"allocate\",code=\"300\"";
    assert!(
        entry.contains(redirected) && !entry.contains(allocated),
        "{entry}"
    );
    // The nonce that they brought along is good there: nobody had to be challenged.
    assert!(
        second.contains(allocated) && !second.contains("method=\"allocate\",code=\"4"),
        "{second}"
    );
}

fn browsers(rig: &Rig, transport: Transport) -> (Peer, Peer) {
    let credential = Credential::lasting(3600);
    let [caller, callee] = [Host::A, Host::B]
        .map(|host| Peer::start(rig, host, Kind::Chromium, transport, &credential));
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
    let tools = kinds.iter().map(|kind| match kind {
        Kind::Aiortc => Tool::Aiortc,
        Kind::Chromium => Tool::Chromium,
        Kind::Libjuice => Tool::Libjuice,
    });
    rig_with(&tools.collect::<Vec<_>>())
}

fn rig_with(tools: &[Tool]) -> Option<Rig> {
    Rig::new(&[tools, Server::tools()].concat())
}
