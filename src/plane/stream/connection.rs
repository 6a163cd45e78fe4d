//! The task of one connection: it turns bytes into whole frames for the worker and writes what the worker
//! queued. Framing state lives in the task's buffer, so no byte is lost when a read is cancelled (F08).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::StreamEvent;
use super::opening::{Door, Line, Opened};
use super::queue::Queue;
use super::web::{self, Site};
use crate::plane::tcp_relay::PeerConnection;
use crate::plane::tcp_relay::splice::splice;
use crate::stun::framing::{Frame, next_frame, next_frame_within};
use crate::turn::Path;

/// What is spoken must be known after this long, handshakes included (A31).
const OPENING: Duration = Duration::from_secs(10);
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(5);
/// A reader that takes nothing for this long is gone.
const STALLED: Duration = Duration::from_secs(30);
/// The largest frame of a client that has not proved who it is (A31).
const STRANGERS_FRAME: usize = 2048;
/// Room for bytes that a read is given at least.
const READ_AHEAD: usize = 1024;

/// How a ConnectionBind request begins (RFC 6062 §6.1).
const CONNECTION_BIND: [u8; 2] = [0x00, 0x0B];

/// The task of one connection.
pub(super) struct Task {
    pub(super) path: Path,
    pub(super) queue: Arc<Queue>,
    pub(super) to_worker: mpsc::Sender<StreamEvent>,
}

impl Task {
    /// Serves the client from its first byte to its last.
    pub(super) async fn run(self, stream: TcpStream, door: Door) {
        let site = door.site.clone();
        let opened = tokio::select! {
            opened = timeout(OPENING, self.open(stream, door)) => opened.ok().flatten(),
            () = self.queue.closed() => None,
        };
        match (opened, site) {
            (Some(opened), Some(site)) if opened.is_web => {
                self.tell(StreamEvent::Web(self.path)).await;
                Box::pin(self.pass(opened, site)).await;
            }
            (Some(opened), _) => {
                let transport = opened.line.transport();
                let host = opened.line.server_name();
                self.tell(StreamEvent::Opened(self.path, transport, host))
                    .await;
                self.relay(opened).await;
            }
            (None, _) => {}
        }
        self.queue.abandon();
        self.tell(StreamEvent::Closed(self.path)).await;
    }

    /// Tells the worker. That it has ended is seen elsewhere.
    pub(super) async fn tell(&self, event: StreamEvent) {
        let _ = self.to_worker.send(event).await;
    }

    async fn pass(&self, opened: Opened, site: Site) {
        let passed = async {
            match opened.line {
                Line::Tcp(stream) => web::pass(stream, opened.buffer, site).await,
                Line::Tls(stream) => web::pass(stream, opened.buffer, site).await,
            }
        };
        tokio::select! {
            () = passed => {}
            () = self.queue.closed() => {}
        }
    }

    async fn relay(&self, opened: Opened) {
        match opened.line {
            Line::Tcp(stream) => {
                let (reader, writer) = stream.into_split();
                self.serve(reader, writer, opened.buffer).await;
            }
            Line::Tls(stream) => {
                let (reader, writer) = tokio::io::split(stream);
                self.serve(reader, writer, opened.buffer).await;
            }
        }
    }

    async fn serve(
        &self,
        mut reader: impl AsyncRead + Unpin,
        mut writer: impl AsyncWrite + Unpin,
        buffer: BytesMut,
    ) {
        let (bound, written) = {
            let writing = self.write(&mut writer);
            tokio::pin!(writing);
            tokio::select! {
                bound = self.read(&mut reader, buffer) => {
                    self.queue.close();
                    // The answer to ConnectionBind goes before what the peer sends.
                    let written = bound.is_some() && writing.await;
                    (bound, written)
                }
                written = &mut writing => (None, written),
            }
        };
        match bound {
            Some((peer, early)) if written => splice(reader, writer, &early, peer).await,
            // Say goodbye properly (TLS close_notify, TCP FIN), but not for long.
            None if written => drop(timeout(GOODBYE, writer.shutdown()).await),
            Some(_) | None => {}
        }
    }

    /// Hands frames to the worker until the client closes or sends what no frame begins with; or until it has
    /// bound a peer's connection to this one: then what else it has sent already is for the peer.
    async fn read(
        &self,
        reader: &mut (impl AsyncRead + Unpin),
        mut buffer: BytesMut,
    ) -> Option<(PeerConnection, Bytes)> {
        loop {
            let frame = match self.queue.is_trusted() {
                true => next_frame(&buffer),
                false => next_frame_within(&buffer, STRANGERS_FRAME),
            };
            match frame {
                Frame::Whole { frame, message } => {
                    let mut bytes = buffer.split_to(frame).freeze();
                    bytes.truncate(message);
                    if bytes.starts_with(&CONNECTION_BIND) {
                        if let Some(peer) = self.bind(bytes).await? {
                            return Some((peer, buffer.freeze()));
                        }
                        continue;
                    }
                    let event = StreamEvent::Frame(self.path, bytes);
                    self.to_worker.send(event).await.ok()?;
                }
                Frame::NeedMore(total) => {
                    // Grows only to the frame that is announced, and never past what a length field can say.
                    buffer.reserve(total.saturating_sub(buffer.len()).max(READ_AHEAD));
                    match reader.read_buf(&mut buffer).await {
                        Ok(1..) => {}
                        Ok(0) | Err(_) => return None,
                    }
                }
                Frame::Garbage => return None,
            }
        }
    }

    /// Hands a ConnectionBind to the worker, and waits for the peer's connection or for that there is none.
    /// Whatever stands behind the request is a frame only if there is none.
    async fn bind(&self, bytes: Bytes) -> Option<Option<PeerConnection>> {
        let (to, decided) = oneshot::channel();
        let event = StreamEvent::Bind(self.path, bytes, to);
        self.to_worker.send(event).await.ok()?;
        decided.await.ok()
    }

    /// Writes what the worker queues. True when the queue has been closed and all of it is written; false when
    /// the client stops taking it.
    async fn write(&self, writer: &mut (impl AsyncWrite + Unpin)) -> bool {
        let mut batch = VecDeque::new();
        loop {
            if batch.is_empty() && !self.queue.take(&mut batch).await {
                return true;
            }
            match timeout(STALLED, write_some(writer, &mut batch)).await {
                Ok(true) => {}
                Ok(false) | Err(_) => return false,
            }
        }
    }
}

/// Writes the front of `batch` and takes off what was written.
async fn write_some(writer: &mut (impl AsyncWrite + Unpin), batch: &mut VecDeque<Bytes>) -> bool {
    const PIECES: usize = 32;
    let empty = std::io::IoSlice::new(&[]);
    let mut pieces = [empty; PIECES];
    let count = batch.len().min(PIECES);
    for (piece, frame) in pieces.iter_mut().zip(batch.iter()) {
        *piece = std::io::IoSlice::new(frame);
    }
    let Ok(mut written @ 1..) = writer.write_vectored(&pieces[..count]).await else {
        return false;
    };
    while let Some(front) = batch.front_mut() {
        if written < front.len() {
            front.advance(written);
            break;
        }
        written -= front.len();
        batch.pop_front();
    }
    // TLS keeps records in a buffer of its own until it is flushed.
    !batch.is_empty() || writer.flush().await.is_ok()
}
