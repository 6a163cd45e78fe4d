//! Servers that are broken in one way each.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use rustls::ServerConnection;

use crate::fake::{Authority, Fake, Manner};
use crate::process::{Place, free_address};
use crate::{Test, advice, names, step, udp_socket};

#[test]
fn where_nobody_listens_that_is_told() {
    let address = free_address();
    for (query, failed) in [("?transport=udp", "binding"), ("?transport=tcp", "connect")] {
        let ended = Test::new().arg(&format!("turn:{address}{query}")).json();
        let step = ended.failed(failed);
        assert_eq!(step["fault"], "refused", "{step:#}");
        assert!(advice(&step).contains("nobody listens"), "{step:#}");
    }
}

#[test]
fn a_server_that_never_answers_is_given_up_in_time() {
    let silent = udp_socket();
    let url = format!("turn:{}", silent.local_addr().unwrap());
    let ended = Test::new().arg(&url).flag("--timeout", "4s").json();
    let step = ended.failed("binding");
    assert_eq!(step["fault"], "silence");
    assert!(advice(&step).contains("firewall"), "{step:#}");
    // The question was asked again, for it may have been lost.
    let mut buffer = [0; 100];
    let asked = (0..10).map_while(|_| silent.recv(&mut buffer).ok()).count();
    assert!(asked > 1, "{asked}");
    assert!(step["milliseconds"].as_f64().unwrap() < 4000.0, "{step:#}");
}

#[test]
fn a_name_without_an_address_is_told() {
    // The longest label has 63 letters.
    let url = format!("turn:{}.invalid", "a".repeat(64));
    let ended = Test::new().arg(&url).json();
    assert_eq!(ended.code, 1);
    let report = ended.json();
    let resolve = step(&report["urls"][0], "resolve");
    assert_eq!(resolve["fault"], "resolve");
    assert!(advice(resolve).contains("getent ahosts"), "{resolve:#}");
    assert_eq!(report["urls"][0]["servers"], serde_json::json!([]));
}

#[test]
fn several_urls_are_tested_though_the_first_is_broken() {
    let ended = Test::new()
        .arg(&format!("stun:{}", free_address()))
        .arg(&format!("turn:{}?transport=tcp", free_address()))
        .run();
    assert_eq!(ended.code, 1);
    assert!(ended.out.contains("\nNone of 2 works.\n"), "{}", ended.out);
}

#[test]
fn a_server_that_gives_relays_and_swallows_what_is_sent_is_found_out() {
    let fake = Fake::start(Manner::Swallows);
    let ended = fake.test();
    let indications = ended.failed("indications");
    assert_eq!(indications["fault"], "lost");
    assert!(
        advice(&indications).contains("relay ports"),
        "{indications:#}"
    );
    // What was opened is closed.
    let report = ended.json();
    assert_eq!(
        step(&report["urls"][0]["servers"][0], "release")["result"],
        "ok"
    );
}

#[test]
fn a_server_that_gives_relays_to_anybody_is_found_out() {
    let fake = Fake::start(Manner::AsksNobody);
    let challenge = fake.test().failed("challenge");
    assert_eq!(challenge["fault"], "open-relay");
}

#[test]
fn an_answer_that_somebody_changed_is_found_out() {
    let fake = Fake::start(Manner::SignsWrongly);
    let allocate = fake.test().failed("allocate");
    assert_eq!(allocate["fault"], "unsigned");
}

#[test]
fn servers_that_send_clients_in_circles_are_found_out() {
    let fake = Fake::start(Manner::SendsHome);
    let redirect = fake.test().failed("redirect");
    assert_eq!(
        (&redirect["fault"], &redirect["code"]),
        (&"redirect".into(), &300.into())
    );
}

#[test]
fn a_refusal_to_reach_its_own_network_is_no_failure() {
    let fake = Fake::start(Manner::ForbidsPeers);
    let ended = fake.test();
    assert_eq!(ended.code, 0, "{}", ended.all());
    let report = ended.json();
    let server = &report["urls"][0]["servers"][0];
    let permission = step(server, "permission");
    assert_eq!(
        (&permission["result"], &permission["code"]),
        (&"note".into(), &403.into())
    );
    assert!(advice(permission).contains("no fault"), "{permission:#}");
    assert!(!names(server).contains(&"channels"), "{server:#}");
}

#[test]
fn other_codes_are_told_with_their_remedy() {
    for (code, word) in [
        (442, "no-udp-relay"),
        (437, "same NAT"),
        (486, "per_user"),
        (441, "no such name"),
    ] {
        let fake = Fake::start(Manner::Refuses(code));
        let ended = fake.test();
        let allocate = ended.failed("allocate");
        assert_eq!(allocate["code"], code, "{allocate:#}");
        assert!(advice(&allocate).contains(word), "{allocate:#}");
    }
}

#[test]
fn an_expired_certificate_is_told_and_with_it_its_end() {
    let place = Place::new();
    let authority = Authority::new();
    let config = authority.server("127.0.0.1", [2019, 2020]);
    let ca = place.write("ca.pem", &authority.pem);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut connection = ServerConnection::new(config).unwrap();
        // The client ends it when it has seen the certificate.
        while connection
            .complete_io(&mut stream)
            .is_ok_and(|(read, written)| read + written > 0)
        {}
    });
    let ended = Test::new()
        .arg(&format!("turns:{address}"))
        .flag("--ca", ca.to_str().unwrap())
        .run();
    server.join().unwrap();
    assert_eq!(ended.code, 1, "{}", ended.all());
    assert!(
        ended.out.contains("the certificate expired") && ended.out.contains("Renew"),
        "{}",
        ended.out
    );
    assert!(ended.out.contains(", ended "), "{}", ended.out);
    // It is the one thing that is wrong.
    assert!(
        !ended.out.contains("another host") && !ended.out.contains("--ca"),
        "{}",
        ended.out
    );
}

#[test]
fn what_speaks_no_tls_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut hello = [0; 64];
        let _ = stream.read(&mut hello);
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
        // Until the client has had enough.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let ended = Test::new().arg(&format!("turns:{address}")).json();
    server.join().unwrap();
    assert_eq!(ended.failed("connect")["fault"], "not-secure");
}
