//! The client's side of DTLS 1.2 (RFC 7350).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use dimpl::{Config, Dtls, DtlsCertificate, Output};
use rustls::pki_types::CertificateDer;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::super::certificate::Trust;
use super::super::fault::Fault;
use super::super::report::Session;
use super::seen::Seen;
use super::{Door, LONGEST_DATAGRAM};

/// What was heard and not yet asked for; more is thrown away, as a socket does it.
const MOST_HEARD: usize = 256;
/// A record and what stands around it.
const LONGEST_RECORD: usize = 20_000;

/// An association with a server.
pub(super) struct Association {
    socket: UdpSocket,
    dtls: Dtls,
    heard: VecDeque<Vec<u8>>,
    /// When the library wants to be asked again, to repeat what was lost.
    wake: Instant,
    certificate: Option<Vec<u8>>,
    seen: Seen,
    connected: bool,
    closed: bool,
    input: Vec<u8>,
}

impl Association {
    pub(super) async fn open(
        socket: UdpSocket,
        door: &Door,
        trust: &Trust,
        deadline: Instant,
    ) -> Result<(Self, Session), Fault> {
        let now = Instant::now();
        let config = Config::builder()
            .dtls13_cipher_suites(&[])
            .handshake_timeout(
                deadline
                    .saturating_duration_since(now)
                    .max(SHORTEST_HANDSHAKE),
            )
            .build()
            .map_err(|error| Fault::Handshake(error.to_string()))?;
        let mut dtls = Dtls::new_12(Arc::new(config), nobody()?, now.into_std());
        dtls.set_active(true);
        let mut association = Self {
            socket,
            dtls,
            heard: VecDeque::new(),
            wake: now,
            certificate: None,
            seen: Seen::default(),
            connected: false,
            closed: false,
            input: vec![0; LONGEST_DATAGRAM],
        };
        while !association.connected {
            association.step().await?;
        }
        let mut session = trust.examine(&association.chain(), door.name.as_ref());
        session.protocol = "DTLS 1.2";
        session.cipher = association.seen.cipher().map(str::to_owned);
        association.seen = Seen::default();
        Ok((association, session))
    }

    /// The certificate that the server has proven to be its own, and those that it has shown with it.
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        let proven = self.certificate.iter();
        let proven: Vec<_> = proven
            .map(|der| CertificateDer::from(der.clone()))
            .collect();
        let shown = self.seen.chain();
        if shown.first() == proven.first() {
            shown
        } else {
            proven
        }
    }

    pub(super) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    pub(super) fn send(&mut self, message: &[u8]) -> Result<(), Fault> {
        let sent = self.dtls.send_application_data(message);
        sent.map_err(|error| Fault::Handshake(error.to_string()))?;
        self.flush()
    }

    pub(super) async fn receive(&mut self) -> Result<Vec<u8>, Fault> {
        loop {
            if let Some(message) = self.heard.pop_front() {
                return Ok(message);
            }
            if self.closed {
                return Err(Fault::Closed);
            }
            self.step().await?;
        }
    }

    /// Waits for a datagram, or for the time to repeat something.
    async fn step(&mut self) -> Result<(), Fault> {
        let failed = |error: dimpl::Error| Fault::Handshake(error.to_string());
        let wake = self.wake;
        let came = timeout_at(wake, self.socket.recv(&mut self.input)).await;
        let now = Instant::now().into_std();
        self.dtls.handle_timeout(now).map_err(failed)?;
        if let Ok(came) = came {
            let length = came.map_err(|error| Fault::of_io(&error))?;
            let datagram = self.input.get(..length).unwrap_or_default();
            if !self.connected {
                self.seen.datagram(datagram);
            }
            self.dtls.handle_packet(datagram).map_err(failed)?;
        }
        self.flush()
    }

    /// Does what the library wants done.
    fn flush(&mut self) -> Result<(), Fault> {
        let mut buffer = vec![0; LONGEST_RECORD];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                // A datagram that the kernel has no room for is lost, like others on their way.
                Output::Packet(packet) => match self.socket.try_send(packet) {
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                        return Err(Fault::Refused);
                    }
                    Ok(_) | Err(_) => {}
                },
                Output::ApplicationData(data) if self.heard.len() < MOST_HEARD => {
                    self.heard.push_back(data.to_vec());
                }
                Output::Connected => self.connected = true,
                Output::PeerCert(certificate) => self.certificate = Some(certificate.to_vec()),
                Output::CloseNotify => self.closed = true,
                Output::Timeout(at) => {
                    self.wake = Instant::from_std(at);
                    return Ok(());
                }
                Output::BufferTooSmall { .. } => {
                    return Err(Fault::Handshake("a record is too long".to_owned()));
                }
                Output::ApplicationData(_) | Output::KeyingMaterial(..) | _ => {}
            }
        }
    }
}

impl Drop for Association {
    fn drop(&mut self) {
        if self.connected && self.dtls.close().is_ok() {
            let _ = self.flush();
        }
    }
}

/// The library wants a certificate of the client as well, though servers ask for none and never see it.
fn nobody() -> Result<DtlsCertificate, Fault> {
    let failed = |_| Fault::Handshake("no key could be made".to_owned());
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?;
    let key = key.to_pkcs8v1().map_err(failed)?;
    Ok(DtlsCertificate {
        certificate: b"nobody".to_vec(),
        private_key: key.as_ref().to_vec(),
    })
}

const SHORTEST_HANDSHAKE: Duration = Duration::from_secs(1);
