//! Web clients on a listener that they share with the relay: told by their first words, passed on to a web
//! server, and kept from being many or idle.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex, split,
};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};

/// The web server must accept within this time.
const CONNECT: Duration = Duration::from_secs(3);
/// A connection that carries nothing either way for this long, at most twice as long, is closed.
const IDLE: Duration = Duration::from_secs(60);
/// How long a client may take to close after the web server has closed.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes that are carried at a time; then the relay's clients have their turn.
const PIECE: usize = 16 * 1024;

/// The methods of HTTP/1.1 (RFC 9110 §9.3, RFC 5789), each with the space that follows it. As the beginning
/// of ChannelData, some of them would be on channels that do not exist; on a stream that has just begun no
/// channel exists at all.
const METHODS: [&[u8]; 8] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"TRACE ",
];

/// Whether a stream that begins with `bytes` carries an HTTP request; nothing as long as they are too few to tell.
pub(super) fn is_request(bytes: &[u8]) -> Option<bool> {
    if METHODS.iter().any(|method| bytes.starts_with(method)) {
        return Some(true);
    }
    let may_become = METHODS.iter().any(|method| method.starts_with(bytes));
    (!may_become).then_some(false)
}

/// Who serves the web clients of a listener.
#[derive(Clone)]
pub(in crate::plane) enum Site {
    /// A web server.
    At(SocketAddr),
    /// This process: it is given the far end of each connection.
    Here(mpsc::Sender<DuplexStream>),
}

/// Carries bytes between a web client and its site until either has had enough. `read` is what the client has
/// said already. A site that does not answer ends the connection without a word.
pub(super) async fn pass(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    read: BytesMut,
    site: Site,
) {
    let opened = timeout(CONNECT, async {
        match site {
            Site::At(address) => {
                let mut server = TcpStream::connect(address).await?;
                server.set_nodelay(true)?;
                server.write_all(&read).await?;
                Ok(Far::There(server))
            }
            Site::Here(pages) => {
                let (mut near, far) = duplex(PIECE);
                pages
                    .send(far)
                    .await
                    .map_err(|_| io::ErrorKind::NotConnected)?;
                near.write_all(&read).await?;
                Ok::<_, io::Error>(Far::Here(near))
            }
        }
    });
    match opened.await {
        Ok(Ok(Far::There(server))) => join(client, server).await,
        Ok(Ok(Far::Here(pages))) => join(client, pages).await,
        // Say goodbye properly (TLS close_notify, TCP FIN), but not for long.
        Ok(Err(_)) | Err(_) => drop(timeout(LINGER, client.shutdown()).await),
    }
}

/// The far end of a connection.
enum Far {
    There(TcpStream),
    Here(DuplexStream),
}

/// Both ways between two streams.
async fn join(client: impl AsyncRead + AsyncWrite, server: impl AsyncRead + AsyncWrite) {
    let (from_client, to_client) = split(client);
    let (from_server, to_server) = split(server);
    let (carried, answered) = (AtomicU64::new(0), Notify::new());
    let up = carry(from_client, to_server, &carried);
    let down = async {
        carry(from_server, to_client, &carried).await?;
        answered.notify_one();
        Ok(())
    };
    let over = async {
        answered.notified().await;
        sleep(LINGER).await;
    };
    tokio::select! {
        _ = async { tokio::try_join!(up, down) } => {}
        () = over => {}
        () = idle(&carried, IDLE) => {}
    }
}

/// One way, to the end of it.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    carried: &AtomicU64,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let read = from.read(&mut piece).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&piece[..read]).await?;
        // TLS keeps records in a buffer of its own until it is flushed.
        to.flush().await?;
        carried.fetch_add(1, Ordering::Relaxed);
        // Whoever carries much must not keep the relay waiting.
        tokio::task::yield_now().await;
    }
}

/// Ends when nothing has been carried for `patience`, at most twice as long.
async fn idle(carried: &AtomicU64, patience: Duration) {
    loop {
        let before = carried.load(Ordering::Relaxed);
        sleep(patience).await;
        if carried.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_carries_nothing_is_idle() {
        let carried = AtomicU64::new(0);
        let patience = Duration::from_millis(10);
        let carrying = async {
            for _ in 0..50 {
                carried.fetch_add(1, Ordering::Relaxed);
                sleep(patience / 10).await;
            }
        };
        let long = Duration::from_secs(60);
        tokio::select! {
            () = idle(&carried, long) => panic!("it carries something"),
            () = carrying => {}
        }
        timeout(long, idle(&carried, patience)).await.unwrap();
    }

    #[test]
    fn a_request_is_told_by_its_method() {
        for request in ["GET / HTTP/1.1\r\n", "POST /x", "OPTIONS * ", "DELETE "] {
            let bytes = request.as_bytes();
            assert_eq!(is_request(bytes), Some(true), "{request}");
            let decided = bytes.iter().position(|byte| *byte == b' ').unwrap();
            for length in 0..=decided {
                assert_eq!(
                    is_request(&bytes[..length]),
                    None,
                    "{request} cut at {length}"
                );
            }
        }
        let others: [&[u8]; 6] = [&[0], &[1], &[0x16, 3, 1], &[0x40, 0], b"GEX", b"get /"];
        for other in others {
            assert_eq!(is_request(other), Some(false), "{other:?}");
        }
    }
}
