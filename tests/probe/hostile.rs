//! Servers that mean harm: whatever they say, the test of them ends in time, shows nothing but text, believes nothing
//! that is not proven, and gives no credential away.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use turnd::stun::framing::{Frame, next_frame};
use turnd::stun::{
    Attribute, ChannelData, Class, ErrorCode, Kind, Message, Method, TransactionId, Writer,
};

use crate::fake::{Authority, Fake, Manner, allocated, answer, key, logged_in, refusal, success};
use crate::process::Place;
use crate::{Test, advice, names, step};

// ---- what never ends ----

#[test]
fn nonces_that_are_stale_for_ever_are_given_up() {
    for code in [438, 401] {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let fake = Fake::saying(move |message, from, home| {
            count.fetch_add(1, Ordering::Relaxed);
            if message.has_integrity() {
                vec![refusal(
                    message.method(),
                    message.transaction_id(),
                    code,
                    home,
                )]
            } else {
                vec![answer(message, from, home, Manner::Swallows)]
            }
        });
        let allocate = fake.test().failed("allocate");
        assert_eq!(allocate["code"], code, "{allocate:#}");
        let asked = asked.load(Ordering::Relaxed);
        assert!(asked < 10, "{asked}");
    }
}

#[test]
fn a_flood_of_what_nobody_asked_for_ends_in_time() {
    // Each request is answered by many messages, none of which is its answer.
    let fake = Fake::doing(|socket, _, from| {
        let noise = success(Method::BINDING, TransactionId([7; 12]), from, None);
        for _ in 0..2000 {
            let _ = socket.send_to(&noise, from);
        }
    });
    let ended = Test::new().arg(&fake.url()).flag("--timeout", "4s").json();
    let binding = ended.failed("binding");
    assert_eq!(binding["fault"], "silence");
    assert!(
        binding["milliseconds"].as_f64().unwrap() < 10_000.0,
        "{binding:#}"
    );
}

#[test]
fn a_drip_of_single_bytes_ends_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // The longest message that there may be, slowly.
        let head = [1, 1, 0xFF, 0xFC, 0x21, 0x12, 0xA4, 0x42];
        for byte in head.into_iter().chain(std::iter::repeat(7)) {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
            thread::park_timeout(Duration::from_millis(20));
        }
    });
    let ended = Test::new()
        .arg(&format!("turn:{address}?transport=tcp"))
        .flag("--timeout", "4s")
        .json();
    let binding = ended.failed("binding");
    assert_eq!(binding["fault"], "silence");
    assert!(
        binding["milliseconds"].as_f64().unwrap() < 10_000.0,
        "{binding:#}"
    );
    server.join().unwrap();
}

// ---- what is not so ----

#[test]
fn answers_to_other_questions_are_none() {
    for wrong_id in [true, false] {
        let fake = Fake::saying(move |message, from, _| {
            let (method, id) = if wrong_id {
                (message.method(), TransactionId([7; 12]))
            } else {
                (Method::REFRESH, message.transaction_id())
            };
            vec![success(method, id, from, None)]
        });
        let ended = Test::new().arg(&fake.url()).flag("--timeout", "4s").json();
        assert_eq!(ended.failed("binding")["fault"], "silence");
    }
}

/// Says of each allocation what the test wants.
fn lying(mapped: &'static str, relayed: &'static str, lifetime: u32) -> Fake {
    Fake::saying(move |message, from, home| {
        let (method, id) = (message.method(), message.transaction_id());
        let address = |text: &str| text.parse().unwrap_or(from);
        let told = (address(mapped), address(relayed), lifetime);
        vec![match method {
            Method::BINDING => allocated(method, id, told, None),
            Method::ALLOCATE if message.has_integrity() => {
                allocated(method, id, told, Some(&key()))
            }
            _ => answer(message, from, home, Manner::Swallows),
        }]
    })
}

#[test]
fn a_relay_that_nobody_can_use_is_no_relay() {
    let ended = lying("", "", 0).test();
    let allocate = ended.failed("allocate");
    assert_eq!(allocate["message"], "a relay that has ended already");
    let relay = lying("", "0.0.0.0:50000", 600).test().failed("allocate");
    assert_eq!(relay["fault"], "unroutable", "{relay:#}");
    assert!(advice(&relay).contains("external-ip"), "{relay:#}");
    assert_eq!(relay["relayed_addresses"][0], "0.0.0.0:50000");
}

#[test]
fn an_address_of_the_other_family_is_told() {
    let ended = lying("[2001:db8::7]:4000", "", 600).test();
    let report = ended.json();
    let binding = step(&report["urls"][0]["servers"][0], "binding");
    assert_eq!(
        (&binding["result"], &binding["fault"]),
        (&"note".into(), &"other-family".into())
    );
    assert_eq!(binding["mapped_address"], "[2001:db8::7]:4000");
    let nowhere = lying("0.0.0.0:4000", "", 600).test().failed("binding");
    assert_eq!(nowhere["fault"], "garbled", "{nowhere:#}");
}

/// A server that relays nothing, and gives back what it gets, as often as it likes.
fn mirror(times: usize, peer: Option<&'static str>) -> Fake {
    Fake::doing(move |socket, bytes, from| {
        let home = socket.local_addr().unwrap();
        if Kind::of(bytes) == Kind::ChannelData {
            assert!(ChannelData::parse(bytes).is_some());
            for _ in 0..times {
                let _ = socket.send_to(bytes, from);
            }
            return;
        }
        let Ok(message) = Message::parse(bytes) else {
            return;
        };
        let told = match (message.class(), message.data()) {
            (Class::Request, _) => answer(&message, from, home, Manner::Swallows),
            (_, Some(data)) => {
                let to = message.xor_peer_address().unwrap().unwrap();
                let says = peer.map_or(from, |peer| peer.parse().unwrap());
                let mut told = Vec::new();
                let id = TransactionId([7; 12]);
                let mut writer = Writer::new(&mut told, Class::Indication, Method::DATA, id);
                writer.xor_address(Attribute::XOR_PEER_ADDRESS, says);
                writer.bytes(Attribute::DATA, &bytes[data]);
                writer.finish();
                // What is for the peer goes to it: with this server, relays are where their clients are.
                let _ = socket.send_to(&told, if times == 0 { to } else { from });
                return;
            }
            _ => return,
        };
        let _ = socket.send_to(&told, from);
    })
}

#[test]
fn what_comes_back_where_it_came_from_was_not_relayed() {
    let indications = mirror(1, None).test().failed("indications");
    assert_eq!(indications["fault"], "lost");
}

#[test]
fn channels_that_lead_nowhere_are_found_out_though_indications_work() {
    let ended = mirror(0, None).test();
    assert_eq!(ended.failed("round-trip")["fault"], "lost");
    let report = ended.json();
    let server = &report["urls"][0]["servers"][0];
    assert_eq!(step(server, "indications")["result"], "ok", "{server:#}");
}

#[test]
fn data_from_a_wrong_peer_are_told() {
    let ended = mirror(0, Some("192.0.2.66:53")).test();
    let report = ended.json();
    let indications = step(&report["urls"][0]["servers"][0], "indications");
    assert_eq!(
        (&indications["result"], &indications["fault"]),
        (&"note".into(), &"other-address".into())
    );
    assert!(
        indications["message"]
            .as_str()
            .unwrap()
            .contains("192.0.2.66:53"),
        "{indications:#}"
    );
}

/// Only who knows the secret can sign: an error alone does not prove that it does.
#[test]
fn an_error_that_nobody_signed_does_not_make_a_secret_right() {
    let fake = Fake::saying(|message, from, home| {
        let (method, id) = (message.method(), message.transaction_id());
        vec![match method {
            Method::REFRESH => refusal(method, id, 437, home),
            Method::ALLOCATE => refusal(method, id, 401, home),
            _ => success(method, id, from, None),
        }]
    });
    let place = Place::new();
    let secret = place.0.join("secret");
    let ended = Test::new()
        .flag("--secret-file", secret.to_str().unwrap())
        .arg(&fake.url())
        .json();
    let allocate = ended.failed("allocate");
    assert!(
        advice(&allocate).contains("does not know this secret"),
        "{allocate:#}"
    );
}

// ---- what is shown ----

#[test]
fn nothing_of_a_server_moves_the_cursor() {
    const EVIL: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{202e}drawkcab\r\n    ok      relay\u{9b}31m";
    let fake = Fake::saying(|message, from, _| {
        let (method, id) = (message.method(), message.transaction_id());
        if method == Method::BINDING {
            return vec![success(method, id, from, None)];
        }
        let mut bytes = Vec::new();
        let code = if message.has_integrity() { 499 } else { 401 };
        let mut writer = Writer::new(&mut bytes, Class::Error, method, id);
        writer.error(ErrorCode(code), EVIL);
        writer.bytes(Attribute::REALM, EVIL.as_bytes());
        writer.bytes(Attribute::NONCE, EVIL.as_bytes());
        writer.bytes(Attribute::SOFTWARE, EVIL.as_bytes());
        writer.bytes(Attribute::THIRD_PARTY_AUTHORIZATION, EVIL.as_bytes());
        writer.finish();
        vec![bytes]
    });
    let place = Place::new();
    let ended = logged_in(&place).arg(&fake.url()).run();
    assert_eq!(ended.code, 1);
    assert!(ended.out.contains("drawkcab"), "{}", ended.out);
    for shown in [ended, fake.test()] {
        let fit = |letter: char| letter == '\n' || !letter.is_control() && letter != '\u{202e}';
        assert!(shown.out.chars().all(fit), "{:?}", shown.out);
        assert!(!shown.out.contains("\n    ok      relay"), "{}", shown.out);
    }
}

#[test]
fn attributes_without_end_are_not_taken_in() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        for _ in 0..2 {
            let (stream, _) = listener.accept().unwrap();
            serve_stream(stream, |message, from| {
                let (method, id) = (message.method(), message.transaction_id());
                if method == Method::BINDING {
                    return success(method, id, from, None);
                }
                let mut bytes = Vec::new();
                let mut writer = Writer::new(&mut bytes, Class::Error, method, id);
                writer.error(ErrorCode(401), "");
                writer.bytes(Attribute::REALM, b"r");
                writer.bytes(Attribute::NONCE, b"obMatJos2AAAA");
                let list = [0, 2, 0, 0].repeat(16_000);
                writer.bytes(Attribute::PASSWORD_ALGORITHMS, &list);
                writer.finish();
                bytes
            });
        }
    });
    let url = format!("turn:{address}?transport=tcp");
    let place = Place::new();
    let ended = logged_in(&place).arg(&url).arg(&url).json();
    assert_eq!(ended.failed("challenge")["fault"], "garbled");
    server.join().unwrap();
}

/// Answers what comes over a stream until it ends; what came.
fn serve_stream(
    mut stream: impl std::io::Read + std::io::Write,
    answers: impl Fn(&Message<'_>, SocketAddr) -> Vec<u8>,
) -> Vec<u8> {
    let (mut all, mut rest) = (Vec::new(), Vec::new());
    let mut buffer = [0; 4096];
    let from = SocketAddr::from(([127, 0, 0, 1], 4000));
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        all.extend_from_slice(&buffer[..length]);
        rest.extend_from_slice(&buffer[..length]);
        while let Frame::Whole { frame, message } = next_frame(&rest) {
            let told = Message::parse(&rest[..message]).map(|asked| answers(&asked, from));
            rest.drain(..frame);
            if told.is_ok_and(|told| stream.write_all(&told).is_err()) {
                return all;
            }
        }
    }
    all
}

// ---- what is given away ----

/// What each connection sent.
type Got = Arc<Mutex<Vec<Vec<u8>>>>;

/// A server of TLS that shows a certificate to each connection, and keeps what each sends.
fn secured(certificates: Vec<Arc<ServerConfig>>) -> (SocketAddr, Got, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let got = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&got);
    let server = thread::spawn(move || {
        let each = certificates.into_iter().map(|config| {
            let (stream, _) = listener.accept().unwrap();
            let kept = Arc::clone(&kept);
            thread::spawn(move || {
                let connection = ServerConnection::new(config).unwrap();
                let stream: StreamOwned<_, TcpStream> = StreamOwned::new(connection, stream);
                let all = serve_stream(stream, |message, from| {
                    answer(message, from, from, Manner::Swallows)
                });
                kept.lock().unwrap().push(all);
            })
        });
        let each: Vec<_> = each.collect();
        each.into_iter().for_each(|one| one.join().unwrap());
    });
    (address, got, server)
}

/// Whoever is not to be believed hears nothing: no name, and not even a question.
#[test]
fn nothing_is_said_before_the_certificate_is_judged() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    for config in [
        stranger.server("127.0.0.1", [2020, 2100]),
        authority.server("other.test", [2020, 2100]),
        authority.server("127.0.0.1", [2019, 2020]),
    ] {
        let (address, got, server) = secured(vec![config]);
        let place = Place::new();
        let ca = place.write("ca.pem", &authority.pem);
        let ended = logged_in(&place)
            .arg(&format!("turns:{address}"))
            .flag("--ca", ca.to_str().unwrap())
            .json();
        assert_eq!(ended.failed("connect")["fault"], "certificate");
        server.join().unwrap();
        assert_eq!(*got.lock().unwrap(), [Vec::<u8>::new()]);
    }
}

/// Nor does one that comes in between later: each connection is judged.
#[test]
fn a_second_connection_is_judged_like_the_first() {
    let authority = Authority::new();
    let good = authority.server("127.0.0.1", [2020, 2100]);
    let bad = Authority::new().server("127.0.0.1", [2020, 2100]);
    let (address, got, server) = secured(vec![good, bad]);
    let place = Place::new();
    let ca = place.write("ca.pem", &authority.pem);
    let ended = logged_in(&place)
        .arg(&format!("turns:{address}"))
        .flag("--ca", ca.to_str().unwrap())
        .json();
    assert_eq!(ended.code, 1, "{}", ended.all());
    let report = ended.json();
    let server_report = &report["urls"][0]["servers"][0];
    assert_eq!(
        names(server_report),
        [
            "connect",
            "binding",
            "challenge",
            "allocate",
            "other-family",
            "release"
        ]
    );
    let other = step(server_report, "other-family");
    assert_eq!(
        (&other["result"], &other["fault"]),
        (&"failed".into(), &"certificate".into())
    );
    server.join().unwrap();
    let got = got.lock().unwrap();
    let (said, unsaid): (Vec<_>, Vec<_>) = got.iter().partition(|all| !all.is_empty());
    assert_eq!((said.len(), unsaid.len()), (1, 1));
}

// ---- what is given back ----

/// The server opens a relay, and its answer is lost: it is asked to close what it may have opened.
#[test]
fn a_relay_whose_answer_was_lost_is_given_back() {
    let closed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&closed);
    let fake = Fake::saying(move |message, from, home| match message.method() {
        Method::ALLOCATE if message.has_integrity() => Vec::new(),
        Method::REFRESH => {
            let lifetime = message.lifetime().and_then(Result::ok);
            assert!(message.verify(&key()) && lifetime == Some(0));
            count.fetch_add(1, Ordering::Relaxed);
            vec![answer(message, from, home, Manner::Swallows)]
        }
        _ => vec![answer(message, from, home, Manner::Swallows)],
    });
    let place = Place::new();
    let ended = logged_in(&place)
        .arg(&fake.url())
        .flag("--timeout", "4s")
        .json();
    assert_eq!(ended.failed("allocate")["fault"], "silence");
    assert_eq!(closed.load(Ordering::Relaxed), 1);
}

/// One that is not answered does not keep another from being given back.
#[test]
fn every_relay_is_given_back_though_the_first_is_silent() {
    let closed = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&closed);
    let fake = Fake::saying(move |message, from, home| {
        if message.method() != Method::REFRESH {
            return vec![answer(message, from, home, Manner::Swallows)];
        }
        let mut closed = list.lock().unwrap();
        if !closed.contains(&from) {
            closed.push(from);
        }
        Vec::new()
    });
    let ended = fake.test();
    ended.failed("indications");
    let report = ended.json();
    let release = step(&report["urls"][0]["servers"][0], "release");
    assert_eq!(release["result"], "note", "{release:#}");
    // That of the other family, which is given back at once, and the two.
    assert_eq!(closed.lock().unwrap().len(), 3);
}
