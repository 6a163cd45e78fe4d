//! The client's side of DTLS (RFC 7350), blocking.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::{Config, Dtls, DtlsCertificate, Output};
use turnd::plane::Identity;

use super::PATIENCE;

/// An association with a server.
pub(crate) struct Association {
    pub(crate) socket: UdpSocket,
    dtls: Dtls,
    heard: VecDeque<Vec<u8>>,
    timeout: Duration,
    connected: bool,
    /// The server has said goodbye.
    pub(crate) closed: bool,
}

impl Association {
    /// Connects from any port of the server's own address.
    pub(crate) fn connect(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((server.ip(), 0)).unwrap();
        Self::connect_by(socket, server)
    }

    pub(crate) fn connect_by(socket: UdpSocket, server: SocketAddr) -> Self {
        socket.connect(server).unwrap();
        let mut association = Self {
            socket,
            dtls: client(),
            heard: VecDeque::new(),
            timeout: PATIENCE,
            connected: false,
            closed: false,
        };
        let end = now() + PATIENCE;
        while !association.connected {
            assert!(now() < end, "no DTLS connection with {server}");
            association.step(Duration::from_millis(200));
        }
        association
    }

    pub(crate) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    pub(crate) fn send(&mut self, message: &[u8]) {
        self.dtls.send_application_data(message).unwrap();
        self.flush();
    }

    pub(crate) fn close(&mut self) {
        self.dtls.close().unwrap();
        self.flush();
    }

    pub(crate) fn try_receive(&mut self) -> Option<Vec<u8>> {
        let end = now() + self.timeout;
        while self.heard.is_empty() && !self.closed {
            let left = end.saturating_duration_since(now());
            if left.is_zero() {
                break;
            }
            self.step(left);
        }
        self.heard.pop_front()
    }

    /// Waits a while for a datagram, and does what it leads to.
    fn step(&mut self, wait: Duration) {
        self.dtls.handle_timeout(now()).unwrap();
        self.flush();
        let mut buffer = vec![0; 65_536];
        self.socket.set_read_timeout(Some(wait)).unwrap();
        if let Ok(length) = self.socket.recv(&mut buffer) {
            self.dtls.handle_timeout(now()).unwrap();
            self.dtls.handle_packet(&buffer[..length]).unwrap();
            self.flush();
        }
    }

    fn flush(&mut self) {
        let mut buffer = vec![0; 20_000];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(packet) => drop(self.socket.send(packet)),
                Output::ApplicationData(data) => self.heard.push_back(data.to_vec()),
                Output::Connected => self.connected = true,
                Output::CloseNotify => self.closed = true,
                Output::Timeout(_) => return,
                Output::BufferTooSmall { .. } => panic!("the buffer takes any record"),
                Output::KeyingMaterial(..) | Output::PeerCert(_) | _ => {}
            }
        }
    }
}

fn client() -> Dtls {
    let config = Config::builder().dtls13_cipher_suites(&[]).build().unwrap();
    let mut dtls = Dtls::new_12(Arc::new(config), certificate(), now());
    dtls.set_active(true);
    dtls
}

/// What a client says first: a ClientHello without a cookie.
pub(crate) fn client_hello() -> Vec<u8> {
    let mut dtls = client();
    dtls.handle_timeout(now()).unwrap();
    let mut buffer = [0; 2048];
    let Output::Packet(hello) = dtls.poll_output(&mut buffer) else {
        panic!("a client speaks first")
    };
    hello.to_vec()
}

/// What a server of the tests shows.
pub(crate) fn identity() -> Arc<Identity> {
    let DtlsCertificate {
        certificate,
        private_key,
    } = certificate();
    Arc::new(Identity::new(&certificate, &private_key).unwrap())
}

fn certificate() -> DtlsCertificate {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default()
        .self_signed(&key)
        .unwrap();
    DtlsCertificate {
        certificate: certificate.der().to_vec(),
        private_key: key.serialize_der(),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the network goes by the real time"
)]
fn now() -> Instant {
    Instant::now()
}
