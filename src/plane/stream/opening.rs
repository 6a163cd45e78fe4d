//! How a connection begins: a proxy's header, a TLS handshake, a web client's first words; each where the
//! listener has it. After that it is known what is spoken, and no byte of it is lost.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::StreamEvent;
use super::connection::Task;
use super::handshakes::Handshakes;
use super::proxy::{self, Header};
use super::web::{self, Site};
use crate::plane::listener::Listen;
use crate::plane::tls;
use crate::turn::Transport;

/// A TLS client has this long to finish its handshake (A32).
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Bytes that a connection's buffer has room for at first; most requests fit.
const READ_AHEAD: usize = 2048;

/// The door that a connection came in by.
pub(super) struct Door {
    pub(super) listen: Arc<Listen>,
    /// Who serves web clients; nobody, if they are not served here.
    pub(super) site: Option<Site>,
    /// With the certificate in use; nothing without one.
    pub(super) tls: Option<TlsAcceptor>,
    /// Handshakes in flight with this worker.
    pub(super) handshakes: Arc<Handshakes>,
}

/// A connection of which it is known what is spoken.
pub(super) struct Opened {
    pub(super) line: Line,
    /// A client of the web server, not of the relay.
    pub(super) is_web: bool,
    /// What has been read already.
    pub(super) buffer: BytesMut,
}

/// What the bytes travel in.
pub(super) enum Line {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Line {
    pub(super) fn transport(&self) -> Transport {
        match self {
            Self::Tcp(_) => Transport::Tcp,
            Self::Tls(_) => Transport::Tls,
        }
    }

    /// The host that the client has asked for in the handshake (SNI).
    pub(super) fn server_name(&self) -> Option<Box<str>> {
        match self {
            Self::Tcp(_) => None,
            Self::Tls(stream) => stream.get_ref().1.server_name().map(Box::from),
        }
    }
}

impl Task {
    /// Finds out what the client speaks. Nothing if the connection is of no use.
    pub(super) async fn open(&self, mut stream: TcpStream, door: Door) -> Option<Opened> {
        if !door.listen.proxies.is_empty() {
            let header = Box::pin(proxy::read(&mut stream)).await;
            self.tell(StreamEvent::Header(self.path, header)).await;
            if header == Header::Broken {
                return None;
            }
        }
        let shakes = match door.listen.transport {
            Transport::Tls => true,
            Transport::Tcp | Transport::Udp | Transport::Dtls => {
                // Looked at and left where it is: the handshake wants it, too.
                let mut first = [0];
                stream
                    .peek(&mut first)
                    .await
                    .ok()
                    .filter(|seen| *seen > 0)?;
                tls::begins_with(first[0]) && door.tls.is_some()
            }
        };
        let has_web = door.site.is_some();
        if !shakes {
            let mut buffer = BytesMut::with_capacity(READ_AHEAD);
            let is_web = has_web && begins_with_request(&mut stream, &mut buffer).await?;
            return Some(Opened {
                line: Line::Tcp(stream),
                is_web,
                buffer,
            });
        }
        // Apart from what the other connections wait in: it is large and soon over.
        let mut stream = Box::pin(self.shake(stream, door)).await?;
        let mut buffer = BytesMut::with_capacity(READ_AHEAD);
        let protocol = stream.get_ref().1.alpn_protocol();
        let is_web = match (tls::is_web(protocol), protocol) {
            (is_web, Some(_)) => is_web,
            (_, None) => has_web && begins_with_request(&mut *stream, &mut buffer).await?,
        };
        Some(Opened {
            line: Line::Tls(stream),
            is_web,
            buffer,
        })
    }

    /// The TLS handshake.
    async fn shake(&self, stream: TcpStream, door: Door) -> Option<Box<TlsStream<TcpStream>>> {
        let mut place = door.handshakes.begin();
        let shaken = match door.tls {
            Some(acceptor) => tokio::select! {
                shaken = timeout(HANDSHAKE, acceptor.accept(stream)) => shaken.ok().and_then(Result::ok),
                () = place.taken_away() => None,
            },
            None => None,
        };
        drop(place);
        self.tell(StreamEvent::Handshake(shaken.is_some())).await;
        shaken.map(Box::new)
    }
}

/// Reads until it is certain whether a request of a web client stands at the beginning. Nothing if the
/// stream ends before.
async fn begins_with_request(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Option<bool> {
    loop {
        if let Some(is_request) = web::is_request(buffer) {
            return Some(is_request);
        }
        stream
            .read_buf(buffer)
            .await
            .ok()
            .filter(|read| *read > 0)?;
    }
}
