//! The way to a server, over each transport: whole messages out and in.

mod dtls;
mod seen;
pub(super) mod tls;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout_at};

use crate::stun::Kind;
use crate::stun::framing::{Frame, next_frame};

use super::certificate::Trust;
use super::ends::dont_fragment;
use super::fault::Fault;
use super::report::Session;
use super::url::Transport;
use dtls::Association;

/// Datagrams are no longer than this.
const LONGEST_DATAGRAM: usize = 65_535;

/// A connection or a socket.
pub(super) struct Link {
    way: Way,
    transport: Transport,
    /// What a stream brought that is no whole message yet, or a datagram.
    buffer: Vec<u8>,
}

enum Way {
    Udp(UdpSocket),
    Stream(Box<dyn Stream>),
    Dtls(Box<Association>),
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// Where a server is, and how to know that it is the right one.
#[derive(Clone, Debug)]
pub(super) struct Door {
    pub(super) address: SocketAddr,
    pub(super) transport: Transport,
    /// Whom its certificate has to be for; without it, for whom it says itself.
    pub(super) name: Option<ServerName<'static>>,
}

impl Link {
    /// Reaches a server. Tells what was seen of its certificate, whether or not it is to be believed.
    pub(super) async fn open(
        door: &Door,
        trust: &Trust,
        deadline: Instant,
    ) -> Result<(Self, Option<Session>), Fault> {
        let opened = timeout_at(deadline, Self::reach(door, trust, deadline)).await;
        opened.unwrap_or(Err(Fault::Silence))
    }

    async fn reach(
        door: &Door,
        trust: &Trust,
        deadline: Instant,
    ) -> Result<(Self, Option<Session>), Fault> {
        let (way, session) = match door.transport {
            Transport::Udp => (Way::Udp(socket(door.address).await?), None),
            Transport::Tcp => (Way::Stream(Box::new(connect(door.address).await?)), None),
            Transport::Tls => {
                let stream = connect(door.address).await?;
                let (stream, session) = tls::handshake(stream, door, trust).await?;
                (Way::Stream(Box::new(stream)), Some(session))
            }
            Transport::Dtls => {
                let socket = socket(door.address).await?;
                let (association, session) =
                    Association::open(socket, door, trust, deadline).await?;
                (Way::Dtls(Box::new(association)), Some(session))
            }
        };
        let link = Self {
            way,
            transport: door.transport,
            buffer: Vec::new(),
        };
        Ok((link, session))
    }

    /// How it gets to the server.
    pub(super) fn transport(&self) -> Transport {
        self.transport
    }

    /// Sends a message; ChannelData on a stream gets its padding here.
    pub(super) async fn send(&mut self, message: &[u8]) -> Result<(), Fault> {
        let sent = match &mut self.way {
            Way::Udp(socket) => socket.send(message).await.map(drop),
            Way::Stream(stream) => {
                let mut frame = message.to_vec();
                frame.resize(message.len().next_multiple_of(4), 0);
                stream.write_all(&frame).await
            }
            Way::Dtls(association) => return association.send(message),
        };
        sent.map_err(|error| Fault::of_io(&error))
    }

    /// The next message, or nothing until `deadline`. May be given up at any time without loss.
    pub(super) async fn receive(&mut self, deadline: Instant) -> Result<Option<Vec<u8>>, Fault> {
        match timeout_at(deadline, self.next()).await {
            Ok(message) => message.map(Some),
            Err(_) => Ok(None),
        }
    }

    async fn next(&mut self) -> Result<Vec<u8>, Fault> {
        loop {
            match &mut self.way {
                Way::Udp(socket) => {
                    self.buffer.resize(LONGEST_DATAGRAM, 0);
                    let length = socket.recv(&mut self.buffer).await;
                    let length = length.map_err(|error| Fault::of_io(&error))?;
                    let message = self.buffer.get(..length).unwrap_or_default();
                    if Kind::of(message) != Kind::Other {
                        return Ok(message.to_vec());
                    }
                }
                Way::Dtls(association) => return association.receive().await,
                Way::Stream(stream) => match next_frame(&self.buffer) {
                    Frame::Whole { frame, message } => {
                        let found = self.buffer.get(..message).unwrap_or_default().to_vec();
                        self.buffer.drain(..frame);
                        return Ok(found);
                    }
                    Frame::Garbage => return Err(Fault::Garbled("what answers speaks no STUN")),
                    Frame::NeedMore(_) => match stream.read_buf(&mut self.buffer).await {
                        Ok(0) => return Err(Fault::Closed),
                        Ok(_) => {}
                        Err(error) => return Err(Fault::of_io(&error)),
                    },
                },
            }
        }
    }

    /// Has datagrams sent whole or not at all, or as the kernel likes. Nothing on streams.
    pub(super) fn dont_fragment(&self, whole: bool) {
        let socket = match &self.way {
            Way::Udp(socket) => socket,
            Way::Dtls(association) => association.socket(),
            Way::Stream(_) => return,
        };
        dont_fragment(socket, whole);
    }
}

async fn socket(server: SocketAddr) -> Result<UdpSocket, Fault> {
    let any: SocketAddr = if server.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let made = async {
        let socket = UdpSocket::bind(any).await?;
        socket.connect(server).await?;
        Ok(socket)
    };
    made.await
        .map_err(|error: std::io::Error| Fault::of_io(&error))
}

async fn connect(server: SocketAddr) -> Result<TcpStream, Fault> {
    let connected = TcpStream::connect(server).await;
    let stream = connected.map_err(|error| Fault::of_io(&error))?;
    // Small packets are measured here.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}
