//! Servers that are made up: each does what a test wants, and none relays anything.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use turnd::stun::{
    Attribute, Class, ErrorCode, Integrity, Key, Message, Method, TransactionId, Writer,
};

use crate::process::Place;
use crate::wire::{PASSWORD, USER};
use crate::{Ended, Test, udp_socket};

/// In what a fake server differs from a good one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Swallows,
    AsksNobody,
    SignsWrongly,
    SendsHome,
    ForbidsPeers,
    Refuses(u16),
}

/// A server of UDP.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    pub(crate) fn start(manner: Manner) -> Self {
        Self::saying(move |asked, from, home| vec![answer(asked, from, home, manner)])
    }

    /// A server that says this to each request.
    pub(crate) fn saying(
        mut answers: impl FnMut(&Message<'_>, SocketAddr, SocketAddr) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Self {
        Self::doing(move |socket, bytes, from| {
            let Ok(message) = Message::parse(bytes) else {
                return;
            };
            if message.class() != Class::Request {
                return;
            }
            let home = socket.local_addr().unwrap();
            for answer in answers(&message, from, home) {
                let _ = socket.send_to(&answer, from);
            }
        })
    }

    /// A server that does this with each datagram.
    pub(crate) fn doing(
        mut does: impl FnMut(&UdpSocket, &[u8], SocketAddr) + Send + 'static,
    ) -> Self {
        let socket = udp_socket();
        let address = socket.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let mut buffer = [0; 65_535];
            while !ends.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    does(&socket, &buffer[..length], from);
                }
            }
        });
        Self {
            address,
            over,
            thread: Some(thread),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("turn:{}", self.address)
    }

    pub(crate) fn test(&self) -> Ended {
        logged_in(&Place::new()).arg(&self.url()).json()
    }
}

/// A run of the command by the user whom fake servers know.
pub(crate) fn logged_in(place: &Place) -> Test<'static> {
    let password = place.0.join(USER);
    Test::new()
        .flag("--user", USER)
        .flag("--password-file", password.to_str().unwrap())
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The key of the user.
pub(crate) fn key() -> Key {
    Key::md5(USER.as_bytes(), b"fake", PASSWORD.as_bytes())
}

pub(crate) fn answer(
    message: &Message<'_>,
    from: SocketAddr,
    home: SocketAddr,
    manner: Manner,
) -> Vec<u8> {
    let (method, id) = (message.method(), message.transaction_id());
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
                success(method, id, from, Some(&key()))
            }
        },
        Method::CREATE_PERMISSION if manner == Manner::ForbidsPeers => error(403),
        _ => success(method, id, from, Some(&key())),
    }
}

pub(crate) fn success(
    method: Method,
    id: TransactionId,
    from: SocketAddr,
    key: Option<&Key>,
) -> Vec<u8> {
    allocated(method, id, (from, from, 600), key)
}

/// A success with a mapped and a relayed address, and a lifetime.
pub(crate) fn allocated(
    method: Method,
    id: TransactionId,
    (mapped, relayed, lifetime): (SocketAddr, SocketAddr, u32),
    key: Option<&Key>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, Class::Success, method, id);
    writer.xor_address(Attribute::XOR_MAPPED_ADDRESS, mapped);
    writer.xor_address(Attribute::XOR_RELAYED_ADDRESS, relayed);
    writer.u32(Attribute::LIFETIME, lifetime);
    match key {
        Some(key) => writer.finish_with_integrity(key, Integrity::Sha1),
        None => writer.finish(),
    }
    bytes
}

pub(crate) fn refusal(method: Method, id: TransactionId, code: u16, home: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, Class::Error, method, id);
    writer.error(ErrorCode(code), ErrorCode(code).reason());
    writer.bytes(Attribute::REALM, b"fake");
    writer.bytes(Attribute::NONCE, b"nonce");
    writer.address(Attribute::ALTERNATE_SERVER, home);
    writer.finish();
    bytes
}

/// Somebody who signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = ca.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(ca, key);
        Self { issuer, pem }
    }

    /// A server's side with a certificate for a host that is good from the first of January of one year to that of
    /// another.
    pub(crate) fn server(&self, host: &str, [from, to]: [i32; 2]) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec![host.to_owned()]).unwrap();
        leaf.not_before = rcgen::date_time_ymd(from, 1, 1);
        leaf.not_after = rcgen::date_time_ymd(to, 1, 1);
        let leaf = leaf.signed_by(&key, &self.issuer).unwrap();
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
        Arc::new(config)
    }

    /// A chain of a host's certificate and that of an intermediate authority, and the host's key, as PEM.
    pub(crate) fn chain(&self, host: &str) -> (String, String) {
        let middle_key = KeyPair::generate().unwrap();
        let mut middle = CertificateParams::new(Vec::new()).unwrap();
        middle.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        middle
            .distinguished_name
            .push(rcgen::DnType::CommonName, "in the middle");
        let middle_pem = middle.signed_by(&middle_key, &self.issuer).unwrap().pem();
        let middle = Issuer::new(middle, middle_key);
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec![host.to_owned()]).unwrap();
        leaf.not_after = rcgen::date_time_ymd(2100, 1, 1);
        let leaf = leaf.signed_by(&key, &middle).unwrap().pem();
        (leaf + &middle_pem, key.serialize_pem())
    }
}
