//! Servers that are broken in one way each.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection};
use turnd::stun::{
    Attribute, Class, ErrorCode, Integrity, Key, Message, Method, TransactionId, Writer,
};

use crate::process::{Place, free_address};
use crate::wire::{PASSWORD, USER};
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
    let (config, ca) = expired();
    let ca = place.write("ca.pem", &ca);
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

/// A server's side with a certificate that ended in 2020, and the authority that signed it.
fn expired() -> (Arc<ServerConfig>, String) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    leaf.not_before = rcgen::date_time_ymd(2019, 1, 1);
    leaf.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"stun.turn".to_vec()];
    (Arc::new(config), pem)
}

/// In what a fake server differs from a good one; none relays anything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Swallows,
    AsksNobody,
    SignsWrongly,
    SendsHome,
    ForbidsPeers,
    Refuses(u16),
}

struct Fake {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    fn start(manner: Manner) -> Self {
        let socket = udp_socket();
        let address = socket.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let thread = thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                serve(&socket, manner);
            }
        });
        Self {
            address,
            over,
            thread: Some(thread),
        }
    }

    fn test(&self) -> crate::Ended {
        let place = Place::new();
        let password = place.0.join(USER);
        Test::new()
            .arg(&format!("turn:{}", self.address))
            .flag("--user", USER)
            .flag("--password-file", password.to_str().unwrap())
            .json()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, manner: Manner) {
    let mut buffer = [0; 2048];
    let Ok((length, from)) = socket.recv_from(&mut buffer) else {
        return;
    };
    let Ok(message) = Message::parse(&buffer[..length]) else {
        return;
    };
    if message.class() != Class::Request {
        return;
    }
    let home = socket.local_addr().unwrap();
    let _ = socket.send_to(&answer(&message, from, home, manner), from);
}

fn answer(message: &Message<'_>, from: SocketAddr, home: SocketAddr, manner: Manner) -> Vec<u8> {
    let (method, id) = (message.method(), message.transaction_id());
    let key = Key::md5(USER.as_bytes(), b"fake", PASSWORD.as_bytes());
    let error = |code| refusal(method, id, code, home);
    match method {
        Method::BINDING => success(method, id, from, None),
        Method::ALLOCATE if manner == Manner::AsksNobody => success(method, id, from, None),
        _ if !message.has_integrity() => error(401),
        Method::ALLOCATE => match manner {
            Manner::SendsHome => error(300),
            Manner::Refuses(code) => error(code),
            Manner::SignsWrongly => success(method, id, from, Some(&Key::md5(b"x", b"y", b"z"))),
            Manner::Swallows | Manner::AsksNobody | Manner::ForbidsPeers => {
                success(method, id, from, Some(&key))
            }
        },
        Method::CREATE_PERMISSION if manner == Manner::ForbidsPeers => error(403),
        _ => success(method, id, from, Some(&key)),
    }
}

fn success(method: Method, id: TransactionId, from: SocketAddr, key: Option<&Key>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, Class::Success, method, id);
    writer.xor_address(Attribute::XOR_MAPPED_ADDRESS, from);
    writer.xor_address(Attribute::XOR_RELAYED_ADDRESS, from);
    writer.u32(Attribute::LIFETIME, 600);
    match key {
        Some(key) => writer.finish_with_integrity(key, Integrity::Sha1),
        None => writer.finish(),
    }
    bytes
}

fn refusal(method: Method, id: TransactionId, code: u16, home: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, Class::Error, method, id);
    writer.error(ErrorCode(code), ErrorCode(code).reason());
    writer.bytes(Attribute::REALM, b"fake");
    writer.bytes(Attribute::NONCE, b"nonce");
    writer.address(Attribute::ALTERNATE_SERVER, home);
    writer.finish();
    bytes
}
