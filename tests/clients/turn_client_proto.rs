//! The client of the `turn-client-proto` crate, a second lineage, over UDP, TCP, TLS and DTLS and towards both families.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use turn_client_dimpl::{TurnClientDimpl, dimpl};
use turn_client_proto::api::{
    Transmit, TurnClientApi, TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet,
};
use turn_client_proto::stun::Instant;
use turn_client_proto::stun::auth::Feature;
use turn_client_proto::tcp::TurnClientTcp;
use turn_client_proto::types::stun::message::IntegrityAlgorithm;
use turn_client_proto::types::{AddressFamily, TransportType, TurnCredentials};
use turn_client_proto::udp::TurnClientUdp;
use turn_client_rustls::TurnClientRustls;

use crate::inside::{AUTHORITY, ECHO, ECHO6, address, payload};
use crate::rig::{Host, NAME, RELAY};
use crate::server::Credential;

/// Exchanges datagrams with the echo, by a client that speaks UDP.
pub(crate) fn over_udp(credential: &Credential) {
    let (socket, server) = connect_udp("10.99.1.2:0", &format!("{}:3478", Host::A.server()));
    let client = TurnClientUdp::allocate(local(&socket), server, configuration(credential));
    Session::new(client, Line::Udp(socket)).exchange(address(ECHO), RELAY);
}

/// The same where SHA-256 is required. This client looks for the bits of the nonce cookie at the front.
pub(crate) fn with_sha256(credential: &Credential) {
    let mut configuration = configuration(credential);
    configuration.set_supported_integrity(IntegrityAlgorithm::Sha256);
    at_strict_listener(configuration);
}

/// The same under a hidden name: the client goes no further unless the server asks for that.
pub(crate) fn with_a_hidden_name(credential: &Credential) {
    let mut configuration = configuration(credential);
    configuration.set_supported_integrity(IntegrityAlgorithm::Sha256);
    configuration.set_anonymous_username(Feature::Required);
    at_strict_listener(configuration);
}

fn at_strict_listener(configuration: TurnConfig) {
    let (socket, server) = connect_udp("10.99.1.2:0", &format!("{}:3481", Host::A.server()));
    let client = TurnClientUdp::allocate(local(&socket), server, configuration);
    Session::new(client, Line::Udp(socket)).exchange(address(ECHO), RELAY);
}

/// The same by TCP.
pub(crate) fn over_tcp(credential: &Credential) {
    let server = address(&format!("{}:3478", Host::A.server()));
    let stream = TcpStream::connect(server).expect("the server accepts");
    stream.set_nodelay(true).expect("a TCP socket");
    let local = stream.local_addr().expect("it is connected");
    let client = TurnClientTcp::allocate(local, server, configuration(credential));
    Session::new(client, Line::Tcp(stream)).exchange(address(ECHO), RELAY);
}

/// The same by TLS, which is judged by the server's name.
pub(crate) fn over_tls(credential: &Credential) {
    let server = address(&format!("{}:5349", Host::A.server()));
    let stream = TcpStream::connect(server).expect("the server accepts");
    stream.set_nodelay(true).expect("a TCP socket");
    let local = stream.local_addr().expect("it is connected");
    let authority = std::env::var(AUTHORITY).expect("the outer run set it");
    let authority = CertificateDer::from_pem_file(authority).expect("a certificate");
    let mut trusted = RootCertStore::empty();
    trusted.add(authority).expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows them")
        .with_root_certificates(trusted)
        .with_no_client_auth();
    let name = ServerName::try_from(NAME).expect("a name");
    let client = TurnClientRustls::allocate(
        local,
        server,
        configuration(credential),
        name,
        Arc::new(config),
    );
    Session::new(client, Line::Tcp(stream)).exchange(address(ECHO), RELAY);
}

/// The same by DTLS. This client speaks 1.2 and 1.3, and takes whatever certificate it is shown.
pub(crate) fn over_dtls(credential: &Credential) {
    let (socket, server) = connect_udp("10.99.1.2:0", &format!("{}:5349", Host::A.server()));
    let config = dimpl::Config::builder().build().expect("the defaults");
    let client = TurnClientDimpl::allocate(
        local(&socket),
        server,
        configuration(credential),
        Arc::new(config),
    );
    Session::new(client, Line::Udp(socket)).exchange(address(ECHO), RELAY);
}

/// An IPv6 client with an IPv6 relayed address.
pub(crate) fn over_ipv6(credential: &Credential) {
    let (socket, server) = connect_udp("[fd99:1::2]:0", &format!("[{}]:3478", Host::A.server6()));
    let mut configuration = configuration(credential);
    configuration.set_address_family(AddressFamily::IPV6);
    let client = TurnClientUdp::allocate(local(&socket), server, configuration);
    Session::new(client, Line::Udp(socket)).exchange(address(ECHO6), "fd99::1");
}

/// A client of the server's addresses that are not on its link. Its sockets take answers from nowhere else.
pub(crate) fn at_far_addresses(credential: &Credential) {
    for (own, server) in [
        ("10.99.1.2:0", format!("{RELAY}:3478")),
        ("[fd99:1::2]:0", "[fd99::1]:3478".into()),
    ] {
        let (socket, server) = connect_udp(own, &server);
        let client = TurnClientUdp::allocate(local(&socket), server, configuration(credential));
        Session::new(client, Line::Udp(socket)).exchange(address(ECHO), RELAY);
    }
}

/// A client, its line to the server, and what came by it.
struct Session<C> {
    client: C,
    line: Line,
    start: std::time::Instant,
    events: Vec<TurnEvent>,
    received: Vec<(SocketAddr, Vec<u8>)>,
}

impl<C: TurnClientApi> Session<C> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the client is told the time since its start"
    )]
    fn new(client: C, line: Line) -> Self {
        let start = std::time::Instant::now();
        Self {
            client,
            line,
            start,
            events: Vec::new(),
            received: Vec::new(),
        }
    }

    fn now(&self) -> Instant {
        Instant::from_std(self.start)
    }

    /// Sends 100 datagrams by indication and 100 by channel, and compares what comes back.
    fn exchange(mut self, peer: SocketAddr, relay: &str) {
        let created = self.until(|event| {
            let TurnEvent::AllocationCreated(_, relayed) = event else {
                return None;
            };
            Some(*relayed)
        });
        assert_eq!(created.ip().to_string(), relay);

        self.client
            .create_permission(TransportType::Udp, peer.ip(), self.now())
            .expect("a permission is asked for");
        self.until(|event| {
            matches!(event, TurnEvent::PermissionCreated(_, ip) if *ip == peer.ip()).then_some(())
        });
        (0..100).for_each(|number| self.echo(peer, number));

        self.client
            .bind_channel(TransportType::Udp, peer, self.now())
            .expect("a channel is asked for");
        self.until(|event| {
            matches!(event, TurnEvent::ChannelCreated(_, to) if *to == peer).then_some(())
        });
        (100..200).for_each(|number| self.echo(peer, number));

        self.client
            .delete(self.now())
            .expect("there is an allocation");
        self.step();
    }

    fn echo(&mut self, peer: SocketAddr, number: u8) {
        let sent = payload(number);
        let frame = self
            .client
            .send_to(TransportType::Udp, peer, sent.clone(), self.now())
            .expect("it may send");
        if let Some(frame) = frame {
            self.line.send(&frame.build().data);
        }
        for _ in 0..PATIENCE {
            if let Some((from, data)) = self.received.pop() {
                assert_eq!(from, peer);
                assert_eq!(data, sent, "datagram {number} changed");
                return;
            }
            self.step();
        }
        panic!("datagram {number} did not come back");
    }

    /// Runs the client until an event is the one wanted.
    fn until<T>(&mut self, wanted: impl Fn(&TurnEvent) -> Option<T>) -> T {
        for _ in 0..PATIENCE {
            if let Some(found) = self.events.iter().find_map(&wanted) {
                return found;
            }
            self.step();
        }
        panic!("it did not happen; what did: {:?}", self.events);
    }

    /// Sends what the client wants to send, and takes in at most one read.
    fn step(&mut self) {
        if matches!(self.client.poll(self.now()), TurnPollRet::Closed) {
            self.events
                .extend(std::iter::from_fn(|| self.client.poll_event()));
            return;
        }
        while let Some(transmit) = self.client.poll_transmit(self.now()) {
            self.line.send(&transmit.data);
        }
        let (local, server) = (self.client.local_addr(), self.client.remote_addr());
        if let Some(bytes) = self.line.receive() {
            let transmit = Transmit::new(bytes, self.client.transport(), server, local);
            if let TurnRecvRet::PeerData(data) = self.client.recv(transmit, self.now()) {
                self.received.push((data.peer, data.data().to_vec()));
            }
        }
        while let Some(data) = self.client.poll_recv(self.now()) {
            self.received.push((data.peer, data.data().to_vec()));
        }
        self.events
            .extend(std::iter::from_fn(|| self.client.poll_event()));
    }
}

enum Line {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Line {
    fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::Udp(socket) => assert_eq!(
                socket.send(bytes).expect("the server is there"),
                bytes.len()
            ),
            Self::Tcp(stream) => stream.write_all(bytes).expect("the server is there"),
        }
    }

    /// Returns what one read brought, or nothing after a tenth of a second.
    fn receive(&mut self) -> Option<Vec<u8>> {
        let wait = Some(Duration::from_millis(100));
        let mut buffer = vec![0; 4096];
        let result = match self {
            Self::Udp(socket) => socket
                .set_read_timeout(wait)
                .and_then(|()| socket.recv(&mut buffer)),
            Self::Tcp(stream) => stream
                .set_read_timeout(wait)
                .and_then(|()| stream.read(&mut buffer)),
        };
        match result {
            Ok(length) => {
                buffer.truncate(length);
                Some(buffer)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("the line to the server broke: {error}"),
        }
    }
}

fn configuration(credential: &Credential) -> TurnConfig {
    TurnConfig::new(TurnCredentials::new(
        &credential.username,
        &credential.password,
    ))
}

fn connect_udp(own: &str, server: &str) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(own).expect("the address is this host's");
    socket.connect(server).expect("there is a route");
    (socket, address(server))
}

fn local(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("it is bound")
}

/// How many reads of a tenth of a second to wait for one thing.
const PATIENCE: usize = 100;
