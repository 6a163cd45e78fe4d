//! The task of one connection: it turns bytes into whole frames for the worker and writes what the worker
//! queued. Framing state lives in the task's buffer, so no byte is lost when a read is cancelled (F08).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::StreamEvent;
use super::queue::Queue;
use crate::stun::framing::{Frame, next_frame, next_frame_within};
use crate::turn::Path;

/// A TLS client has this long to finish its handshake (A32).
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A reader that takes nothing for this long is gone.
const STALLED: Duration = Duration::from_secs(30);
/// The largest frame of a client that has not proved who it is (A31).
const STRANGERS_FRAME: usize = 2048;
/// Bytes that a connection's buffer has room for at first; most requests fit.
const READ_AHEAD: usize = 2048;

/// The task of one connection.
pub(super) struct Task {
    pub(super) path: Path,
    pub(super) queue: Arc<Queue>,
    pub(super) to_worker: mpsc::Sender<StreamEvent>,
}

impl Task {
    pub(super) async fn serve_plain(self, stream: TcpStream) {
        let (reader, writer) = stream.into_split();
        self.serve(reader, writer).await;
    }

    pub(super) async fn serve_tls(
        self,
        stream: TcpStream,
        acceptor: TlsAcceptor,
        in_flight: Arc<AtomicUsize>,
    ) {
        in_flight.fetch_add(1, Ordering::Relaxed);
        let shaken = timeout(HANDSHAKE, acceptor.accept(stream)).await;
        in_flight.fetch_sub(1, Ordering::Relaxed);
        let stream = shaken.ok().and_then(Result::ok);
        let _ = self
            .to_worker
            .send(StreamEvent::Handshake(stream.is_some()))
            .await;
        match stream {
            Some(stream) => {
                let (reader, writer) = tokio::io::split(stream);
                self.serve(reader, writer).await;
            }
            None => drop(self.to_worker.send(StreamEvent::Closed(self.path)).await),
        }
    }

    async fn serve(self, reader: impl AsyncRead + Unpin, writer: impl AsyncWrite + Unpin) {
        tokio::select! {
            () = self.read(reader) => {}
            () = self.write(writer) => {}
        }
        self.queue.close();
        let _ = self.to_worker.send(StreamEvent::Closed(self.path)).await;
    }

    /// Hands frames to the worker until the client closes or sends what no frame begins with.
    async fn read(&self, mut reader: impl AsyncRead + Unpin) {
        let mut buffer = BytesMut::with_capacity(READ_AHEAD);
        loop {
            let frame = match self.queue.is_trusted() {
                true => next_frame(&buffer),
                false => next_frame_within(&buffer, STRANGERS_FRAME),
            };
            match frame {
                Frame::Whole { frame, message } => {
                    let mut bytes = buffer.split_to(frame).freeze();
                    bytes.truncate(message);
                    if self
                        .to_worker
                        .send(StreamEvent::Frame(self.path, bytes))
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
                Frame::NeedMore(total) => {
                    // Grows only to the frame that is announced, and never past what a length field can say.
                    buffer.reserve(total.saturating_sub(buffer.len()).max(READ_AHEAD / 2));
                    match reader.read_buf(&mut buffer).await {
                        Ok(1..) => {}
                        Ok(0) | Err(_) => return,
                    }
                }
                Frame::Garbage => return,
            }
        }
    }

    /// Writes what the worker queues until the queue is closed or the client stops taking it.
    async fn write(&self, mut writer: impl AsyncWrite + Unpin) {
        let mut batch = VecDeque::new();
        loop {
            if batch.is_empty() && !self.queue.take(&mut batch).await {
                // Say goodbye properly (TLS close_notify, TCP FIN), but not for long.
                let _ = timeout(HANDSHAKE, writer.shutdown()).await;
                return;
            }
            match timeout(STALLED, write_some(&mut writer, &mut batch)).await {
                Ok(true) => {}
                Ok(false) | Err(_) => return,
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
