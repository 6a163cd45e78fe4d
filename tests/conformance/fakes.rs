//! Whether the checks can fail: servers that are wrong, and who must not pass.
//!
//! One says nothing. One refuses everything that is signed, and one grants it: no check may pass at both of them.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};

use crate::ground::{Ground, Server};
use crate::packet::{Build, Class, Key, Stun, attr, method, plain_xored};
use crate::runner::{find_test, hold, in_parallel};
use crate::statement::{Check, Proof, Statement, Trouble};

/// What is wrong with a server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Mute,
    Refuses,
    Grants,
}

/// Holds every dialogue with servers that must fail; tells which checks let them pass.
pub(crate) fn checks_that_cannot_fail(
    statements: &[&'static Statement],
    like: &Ground,
) -> Vec<String> {
    let checks: Vec<(&str, Check)> = statements
        .iter()
        .flat_map(|statement| statement.proofs.iter().map(|proof| (statement.id, proof)))
        .filter_map(|(id, proof)| match proof {
            Proof::Seen(check) | Proof::Waiting(check) => Some((id, *check)),
            Proof::Test(_) | Proof::Refused(_) => None,
        })
        .collect();
    let faults = [Fault::Mute, Fault::Refuses, Fault::Grants].map(Fake::start);
    let passed = in_parallel(checks.len(), |number| {
        let (_, check) = checks[number];
        faults.each_ref().map(|fake| {
            let seen = hold(check, &fake.ground(like));
            !matches!(seen, Err(Trouble::Differs(_)))
        })
    });
    let weak = passed
        .iter()
        .zip(&checks)
        .filter_map(|(passed, (id, _))| match passed {
            [false, a, b] if !(*a && *b) => None,
            [true, _, _] => Some(format!("{id} passes at a server that says nothing")),
            _ => Some(format!("{id} passes whether all is granted or refused")),
        });
    let mut weak: Vec<String> = weak.collect();
    if find_test("tests/rfc8656.rs::no_such_test").is_ok()
        || find_test("tests/support/mod.rs::default").is_ok()
    {
        weak.push("a test is found that is none".into());
    }
    weak
}

/// Every id that the report must have.
pub(crate) fn missing_ids(statements: &[&'static Statement]) -> Vec<String> {
    let known: BTreeSet<&str> = statements.iter().map(|statement| statement.id).collect();
    let range = |prefix: &'static str, last: u32| (1..=last).map(move |n| format!("{prefix}{n}"));
    let mut wanted: Vec<String> = Vec::new();
    for (prefix, last) in IDS {
        wanted.extend(range(prefix, *last));
    }
    wanted.extend(SINGLE_IDS.iter().map(|id| (*id).to_owned()));
    let mut missing: Vec<String> = wanted
        .into_iter()
        .filter(|id| !known.contains(&id[..]))
        .collect();
    if known.len() != statements.len() {
        missing.push("(an id is there twice)".into());
    }
    missing
}

const IDS: &[(&str, u32)] = &[
    ("S", 17),
    ("2.2-", 7),
    ("A", 10),
    ("2.3-", 11),
    ("T", 6),
    ("R", 3),
    ("P", 5),
    ("D", 4),
    ("C", 9),
    ("L", 3),
    ("H", 5),
    ("6062-", 6),
    ("8016-", 5),
    ("7635-", 5),
    ("5780-", 5),
    ("300-", 3),
];

const SINGLE_IDS: &[&str] = &[
    "2.3-0", "2.3-1b", "2.3-ok", "2.3-6062", "2.3-8016", "2.3-7635", "ALPN", "7350", "300", "400",
    "401", "403", "405", "420", "437", "438", "440", "441", "442", "443", "446", "447", "486",
    "500", "508",
];

/// A server with a fault, until it is dropped.
struct Fake {
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
    ends: std::sync::Arc<AtomicBool>,
    /// Accepts connections and says nothing.
    _stream: TcpListener,
}

impl Fake {
    fn start(fault: Fault) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port on loopback");
        let address = socket.local_addr().expect("it is bound");
        let _stream = TcpListener::bind(address).expect("the same port");
        let ends = std::sync::Arc::new(AtomicBool::new(false));
        let end = std::sync::Arc::clone(&ends);
        let short = Some(Duration::from_millis(50));
        socket.set_read_timeout(short).expect("not zero");
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !end.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer)
                    && let Some(answer) = answer(fault, &buffer[..length], from)
                {
                    _ = socket.send_to(&answer, from);
                }
            }
        });
        Self {
            address,
            thread: Some(thread),
            ends,
            _stream,
        }
    }

    /// Where it is taken for a server in every configuration.
    fn ground(&self, like: &Ground) -> Ground {
        let server = Server {
            udp: Some(self.address),
            udp6: Some(self.address),
            tcp: Some(self.address),
            tls: Some(self.address),
            dtls: Some(self.address),
            others: vec![self.address],
            discovery: Some([self.address; 2]),
        };
        Ground {
            full: server.clone(),
            plain: Some(server.clone()),
            tiny: Some(server.clone()),
            redirect: Some(server.clone()),
            anycast: Some(server),
            patience: Duration::from_millis(100),
            ..like.clone()
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

/// What a faulty server says to some bytes.
fn answer(fault: Fault, bytes: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
    if fault == Fault::Mute {
        return None;
    }
    let Ok(request) = Stun::read(bytes) else {
        // Whoever grants everything grants what is no request, too.
        let id = bytes.get(8..20)?.try_into().ok()?;
        let yes = Build::with_id(Class::Success, method::BINDING, id).bytes();
        return (fault == Fault::Grants).then_some(yes);
    };
    let respond = |class| Build::with_id(class, request.method, request.id);
    let mapped = plain_xored(from, &request.id);
    if request.method == method::BINDING {
        let answer = respond(Class::Success).attr(attr::XOR_MAPPED_ADDRESS, &mapped);
        return Some(answer.bytes());
    }
    let Some(user) = request.get(attr::USERNAME) else {
        if fault == Fault::Grants && request.method != method::ALLOCATE {
            return Some(respond(Class::Success).bytes());
        }
        // The list of algorithms ends within an entry.
        let challenge = respond(Class::Error)
            .attr(attr::ERROR_CODE, &[0, 0, 4, 1])
            .attr(attr::REALM, REALM)
            .attr(attr::NONCE, b"obMatJos2gAAAnonce")
            .attr(attr::PASSWORD_ALGORITHMS, &[0, 2, 0, 0, 0, 1]);
        return Some(challenge.bytes());
    };
    let key = key(user);
    let answer = match fault {
        Fault::Grants => respond(Class::Success)
            .attr(attr::XOR_RELAYED_ADDRESS, &mapped)
            .attr(attr::XOR_MAPPED_ADDRESS, &mapped)
            .u32(attr::LIFETIME, 600)
            .attr(attr::RESERVATION_TOKEN, b"reserved"),
        Fault::Refuses | Fault::Mute => respond(Class::Error).attr(attr::ERROR_CODE, &[0, 0, 4, 0]),
    };
    Some(answer.sign(&key).bytes())
}

/// The key of a user of the shared secret.
fn key(user: &[u8]) -> Key {
    let secret = crate::servers::SECRET.as_bytes();
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(secret).expect("any key");
    mac.update(user);
    let password = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
    Key::md5(user, REALM, password.as_bytes())
}

const REALM: &[u8] = crate::servers::REALM.as_bytes();
