//! What a stream carries, found out at its beginning: TCP or TLS, a proxy's header, a web client; over the loopback
//! interface.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

#[path = "../wire/mod.rs"]
mod wire;

mod count;
mod header;
mod limits;
mod proxy;
mod tenants;
mod tls;
mod web;

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme, StreamOwned,
};
use turnd::plane::{ByName, Listen};
use turnd::stun::{Attribute, Class, Method, TransactionId, Writer};
use turnd::turn::Transport;

use wire::{Client, PATIENCE, Plane, loopback};

/// A plane with one worker and one stream listener, its certificate (good for `turn.test`) and who trusts it.
fn start(transport: Transport, change: impl FnOnce(&mut Listen)) -> (Plane, Trust) {
    let (certificates, trust) = certificates(&[&["turn.test"]]);
    let plane = start_plain(transport, change);
    plane.handle.replace_tls(certificates);
    (plane, trust)
}

/// The same without a certificate.
fn start_plain(transport: Transport, change: impl FnOnce(&mut Listen)) -> Plane {
    Plane::start_as(
        1,
        vec![loopback()],
        |_| {},
        |settings| {
            let listen = &mut settings.listeners[1];
            listen.transport = transport;
            change(listen);
        },
    )
}

/// Certificates for these hosts each, the first the default.
fn certificates(hosts: &[&[&str]]) -> (Arc<ServerConfig>, Trust) {
    let provider = aws_lc_rs::default_provider();
    let mut trusted = RootCertStore::empty();
    let keys = hosts.iter().map(|hosts| {
        let names: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let pair = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(names.clone())
            .unwrap()
            .self_signed(&pair)
            .unwrap();
        trusted.add(certificate.der().clone()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(pair.serialize_pem().as_bytes()).unwrap();
        let key = CertifiedKey::from_der(vec![certificate.der().clone()], key, &provider).unwrap();
        (names, key)
    });
    let resolver = Arc::new(ByName::new(keys.collect::<Vec<_>>()));
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    (Arc::new(config), Trust(Arc::new(trusted)))
}

/// Whom a client trusts.
#[derive(Clone)]
struct Trust(Arc<RootCertStore>);

type Tls = StreamOwned<ClientConnection, TcpStream>;

impl Trust {
    fn config(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(Arc::clone(&self.0))
            .with_no_client_auth();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        Arc::new(config)
    }

    /// A handshake on a stream.
    fn shake(
        &self,
        mut stream: TcpStream,
        host: &str,
        protocols: &[&str],
    ) -> Result<Tls, std::io::Error> {
        let host = ServerName::try_from(host.to_owned()).unwrap();
        let mut connection = ClientConnection::new(self.config(protocols), host).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(connection, stream))
    }

    fn connect(&self, server: SocketAddr, protocols: &[&str]) -> Result<Tls, std::io::Error> {
        self.shake(connect(server), "turn.test", protocols)
    }

    /// A client over TLS.
    fn client(&self, server: SocketAddr) -> Client {
        let tls = self.connect(server, &[]).unwrap();
        let stream = tls.sock.try_clone().unwrap();
        Client::over(tls, stream)
    }
}

/// Takes whatever certificate it is shown.
#[derive(Debug)]
struct Credulous(Arc<CryptoProvider>);

impl Credulous {
    fn config() -> Arc<ClientConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Self(provider)))
            .with_no_client_auth();
        Arc::new(config)
    }
}

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A Binding request.
fn binding(number: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    Writer::new(
        &mut bytes,
        Class::Request,
        Method::BINDING,
        TransactionId([number; 12]),
    )
    .finish();
    bytes
}

/// An Allocate request without credentials.
fn allocate() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(
        &mut bytes,
        Class::Request,
        Method::ALLOCATE,
        TransactionId([7; 12]),
    );
    writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
    writer.finish();
    bytes
}

/// The server's answer to a Binding request: what it takes the client for.
fn mapped(client: &mut Client) -> SocketAddr {
    client.send(&binding(1));
    wire::Answer(client.receive())
        .success()
        .xor_mapped_address()
        .unwrap()
        .unwrap()
}

/// Asserts that a stream is closed, or reset, before long, and that nothing comes before.
fn is_closed(stream: &mut impl Read) {
    match stream.read(&mut [0; 16]) {
        Ok(read) => assert_eq!(read, 0, "it was answered"),
        Err(error) => assert!(
            [
                ErrorKind::ConnectionReset,
                ErrorKind::UnexpectedEof,
                ErrorKind::BrokenPipe
            ]
            .contains(&error.kind()),
            "{error}"
        ),
    }
}

/// Waits until what a plane has counted is as it should be.
fn until(plane: &Plane, is_so: impl Fn(&turnd::metrics::Snapshot) -> bool) {
    let found = (0..200).any(|_| {
        let found = is_so(&plane.snapshot());
        if !found {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        found
    });
    assert!(found, "{:?}", plane.snapshot());
}
