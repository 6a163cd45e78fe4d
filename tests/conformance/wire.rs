//! The way to a server, over each transport: whole packets out and in, and any bytes if need be.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use crate::dtls::Association;
use crate::packet::Packet;
use crate::statement::{Seen, Trouble};

/// How a client reaches a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
    Tls,
    Dtls,
}

impl Transport {
    pub(crate) fn is_stream(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls)
    }
}

/// What came, if anything.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Packet(Packet),
    Nothing,
    Closed,
}

/// A connection or a socket of a client.
pub(crate) struct Link {
    way: Way,
    pub(crate) transport: Transport,
    pub(crate) server: SocketAddr,
    /// Bytes of a stream that are no whole frame yet.
    rest: Vec<u8>,
}

enum Way {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<Session>),
    Dtls(Box<Association>),
}

/// A stream within a stream.
pub(crate) type Session = StreamOwned<ClientConnection, TcpStream>;

impl Link {
    /// Reaches `server` from `ip`, and will wait as long as `patience` for each packet.
    pub(crate) fn open(
        transport: Transport,
        server: SocketAddr,
        ip: IpAddr,
        patience: Duration,
    ) -> Seen<Self> {
        let way = match transport {
            Transport::Udp => Way::Udp(udp_socket(ip, patience)?),
            Transport::Tcp => Way::Tcp(connect(server, ip, patience)?),
            Transport::Tls => {
                let stream = connect(server, ip, patience)?;
                Way::Tls(Box::new(tls(stream, &[])?.0))
            }
            Transport::Dtls => {
                let socket = udp_socket(ip, patience)?;
                Way::Dtls(Box::new(Association::open(socket, server, patience)?))
            }
        };
        Ok(Self {
            way,
            transport,
            server,
            rest: Vec::new(),
        })
    }

    /// The client's own address.
    pub(crate) fn local(&self) -> Seen<SocketAddr> {
        Ok(match &self.way {
            Way::Udp(socket) => socket.local_addr()?,
            Way::Tcp(stream) => stream.local_addr()?,
            Way::Tls(stream) => stream.sock.local_addr()?,
            Way::Dtls(association) => association.socket.local_addr()?,
        })
    }

    /// The socket, to see or set what concerns datagrams alone.
    pub(crate) fn socket(&self) -> Seen<&UdpSocket> {
        match &self.way {
            Way::Udp(socket) => Ok(socket),
            Way::Tcp(_) | Way::Tls(_) | Way::Dtls(_) => Err("not a datagram socket".into()),
        }
    }

    /// Sends these bytes: a datagram, or a piece of a stream.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Seen {
        match &mut self.way {
            Way::Udp(socket) => drop(socket.send_to(bytes, self.server)?),
            Way::Tcp(stream) => stream.write_all(bytes)?,
            Way::Tls(stream) => {
                stream.write_all(bytes)?;
                stream.flush()?;
            }
            Way::Dtls(association) => association.send(bytes)?,
        }
        Ok(())
    }

    /// How long each packet is waited for from now on.
    pub(crate) fn set_patience(&self, patience: Duration) -> Seen {
        match &self.way {
            Way::Udp(socket) => socket.set_read_timeout(Some(patience))?,
            Way::Tcp(stream) => stream.set_read_timeout(Some(patience))?,
            Way::Tls(stream) => stream.sock.set_read_timeout(Some(patience))?,
            Way::Dtls(_) => {}
        }
        Ok(())
    }

    /// The next packet.
    pub(crate) fn receive(&mut self) -> Seen<Heard> {
        let mut buffer = vec![0; 65_536];
        if let Way::Udp(socket) = &self.way {
            return Ok(match socket.recv_from(&mut buffer) {
                Ok((length, from)) if from == self.server => {
                    Heard::Packet(Packet::read(&buffer[..length])?)
                }
                Ok((_, from)) => return Err(format!("a packet from {from}").into()),
                Err(error) if is_timeout(&error) => Heard::Nothing,
                Err(error) => return Err(error.into()),
            });
        }
        if let Way::Dtls(association) = &mut self.way {
            return Ok(match association.receive()? {
                Some(message) => Heard::Packet(Packet::read(&message)?),
                None => Heard::Nothing,
            });
        }
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(Heard::Packet(Packet::read(&frame)?));
            }
            match self.read(&mut buffer) {
                Ok(0) => return Ok(Heard::Closed),
                Ok(length) => self.rest.extend_from_slice(&buffer[..length]),
                Err(error) if is_timeout(&error) => return Ok(Heard::Nothing),
                // However a stream ends, it has ended.
                Err(_) => return Ok(Heard::Closed),
            }
        }
    }

    /// The next message of DTLS, whatever it is.
    pub(crate) fn receive_raw(&mut self) -> Seen<Vec<u8>> {
        let Way::Dtls(association) = &mut self.way else {
            return Err("not DTLS".into());
        };
        Ok(association.receive()?.ok_or("no answer")?)
    }

    /// So many bytes of a stream, beginning with those that came behind the last packet.
    pub(crate) fn read_exact(&mut self, length: usize) -> Seen<Vec<u8>> {
        let mut buffer = [0; 4096];
        while self.rest.len() < length {
            match self.read(&mut buffer) {
                Ok(more @ 1..) => self.rest.extend_from_slice(&buffer[..more]),
                Ok(0) => return Err("the stream ends".into()),
                Err(error) => return Err(format!("no more bytes: {error}").into()),
            }
        }
        Ok(self.rest.drain(..length).collect())
    }

    /// Whether a stream has ended; whatever still comes is passed over.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return !is_timeout(&error),
            }
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.way {
            Way::Tcp(stream) => stream.read(buffer),
            Way::Tls(stream) => stream.read(buffer),
            Way::Udp(_) | Way::Dtls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Takes a whole frame, without its padding, from what was read of a stream (RFC 8656 §12.5).
    fn take_frame(&mut self) -> Seen<Option<Vec<u8>>> {
        let Some(&[first, _, high, low]) = self.rest.first_chunk() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (whole, padded) = match first {
            0..=3 => (20 + length, 20 + length),
            0x40..=0x7F => (4 + length, (4 + length).next_multiple_of(4)),
            _ => return Err("the stream holds what is neither STUN nor ChannelData".into()),
        };
        if self.rest.len() < padded {
            return Ok(None);
        }
        let mut frame: Vec<u8> = self.rest.drain(..padded).collect();
        frame.truncate(whole);
        Ok(Some(frame))
    }
}

/// Whether nothing came in time.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// A datagram socket on this address.
pub(crate) fn udp_socket(ip: IpAddr, patience: Duration) -> Seen<UdpSocket> {
    let socket = UdpSocket::bind((ip, 0))?;
    socket.set_read_timeout(Some(patience))?;
    Ok(socket)
}

/// A connection from this address.
pub(crate) fn connect(server: SocketAddr, ip: IpAddr, patience: Duration) -> Seen<TcpStream> {
    let domain = socket2::Domain::for_address(server);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(ip, 0).into())?;
    socket.connect_timeout(&server.into(), patience)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A TLS session that offers these application protocols, and the one that the server chose.
pub(crate) fn tls(mut stream: TcpStream, protocols: &[&[u8]]) -> Seen<(Session, Option<Vec<u8>>)> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("turn.test").map_err(|error| error.to_string())?;
    let mut session =
        ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
    while session.is_handshaking() {
        let done = session.complete_io(&mut stream);
        done.map_err(|error| Trouble::from(format!("TLS handshake: {error}")))?;
    }
    let chosen = session.alpn_protocol().map(<[u8]>::to_vec);
    Ok((StreamOwned::new(session, stream), chosen))
}

/// Which certificate a server shows is not what these checks are about.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
