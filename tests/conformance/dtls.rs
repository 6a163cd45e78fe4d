//! A client of DTLS.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::{Config, Dtls, DtlsCertificate, Output};

use crate::statement::{Seen, Trouble};

/// An association with a server.
pub(crate) struct Association {
    pub(crate) socket: UdpSocket,
    server: SocketAddr,
    dtls: Dtls,
    connected: bool,
    heard: VecDeque<Vec<u8>>,
    patience: Duration,
}

impl Association {
    /// Shakes hands.
    pub(crate) fn open(socket: UdpSocket, server: SocketAddr, patience: Duration) -> Seen<Self> {
        // Short, so that what was lost is sent again in time.
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let mut association = Self {
            socket,
            server,
            dtls: client()?,
            connected: false,
            heard: VecDeque::new(),
            patience,
        };
        association.flush()?;
        let end = now() + patience;
        while !association.connected {
            if now() > end {
                return Err("no DTLS handshake".into());
            }
            association.step()?;
        }
        Ok(association)
    }

    pub(crate) fn send(&mut self, message: &[u8]) -> Seen {
        self.dtls.send_application_data(message).map_err(broken)?;
        self.flush()
    }

    /// The next message, if one comes in time.
    pub(crate) fn receive(&mut self) -> Seen<Option<Vec<u8>>> {
        let end = now() + self.patience;
        loop {
            if let Some(message) = self.heard.pop_front() {
                return Ok(Some(message));
            }
            if now() > end {
                return Ok(None);
            }
            self.step()?;
        }
    }

    /// Takes in a datagram, or the passing of a moment.
    fn step(&mut self) -> Seen {
        let mut buffer = [0; 4096];
        match self.socket.recv_from(&mut buffer) {
            Ok((length, from)) if from == self.server => {
                let taken = self.dtls.handle_packet(&buffer[..length]);
                taken.map_err(broken)?;
            }
            Ok(_) => {}
            Err(_) => self.dtls.handle_timeout(now()).map_err(broken)?,
        }
        self.flush()
    }

    fn flush(&mut self) -> Seen {
        let mut buffer = vec![0; 20_000];
        loop {
            let output = self.dtls.poll_output(&mut buffer);
            if let Output::Timeout(_) = output {
                return Ok(());
            }
            if let Output::Packet(packet) = output {
                self.socket.send_to(packet, self.server)?;
            } else if let Output::ApplicationData(data) = output {
                self.heard.push_back(data.to_vec());
            } else if let Output::Connected = output {
                self.connected = true;
            }
        }
    }
}

/// The first message of a client.
pub(crate) fn client_hello() -> Seen<Vec<u8>> {
    let mut buffer = vec![0; 20_000];
    let mut dtls = client()?;
    loop {
        let output = dtls.poll_output(&mut buffer);
        if let Output::Packet(packet) = output {
            return Ok(packet.to_vec());
        }
        if let Output::Timeout(_) = output {
            return Err("a client that says nothing".into());
        }
    }
}

fn client() -> Seen<Dtls> {
    let key = rcgen::KeyPair::generate().map_err(|error| error.to_string())?;
    let certificate = rcgen::CertificateParams::default()
        .self_signed(&key)
        .map_err(|error| error.to_string())?;
    let certificate = DtlsCertificate {
        certificate: certificate.der().to_vec(),
        private_key: key.serialize_der(),
    };
    let config = Config::builder().dtls13_cipher_suites(&[]).build();
    let mut dtls = Dtls::new_12(Arc::new(config.map_err(broken)?), certificate, now());
    dtls.set_active(true);
    dtls.handle_timeout(now()).map_err(broken)?;
    Ok(dtls)
}

fn broken(error: dimpl::Error) -> Trouble {
    format!("DTLS: {error}").into()
}

#[expect(clippy::disallowed_methods, reason = "DTLS repeats what is lost")]
fn now() -> Instant {
    Instant::now()
}
