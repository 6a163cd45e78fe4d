//! Connections to the seat: few at a time, none of them for long.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::lock::{self, Lock};
use super::problem::Problem;
use super::{Seat, Socket, router};
use crate::pages;

/// Connections at a time of each door; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// Of users who may not come in, how many are told so at a time; the others are not answered.
const STRANGERS: usize = 8;
/// How long that may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long a request may take to arrive, and a connection to be idle.
const HEAD: Duration = Duration::from_secs(10);
/// How long an answer may take to begin.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long a connection lives, whatever it does; and one of a stranger, who has not opened the lock by then.
const LIFETIME: Duration = Duration::from_secs(3600);
const UNKNOWN: Duration = Duration::from_secs(30);
/// The longest head of a request, in bytes.
const LONGEST_HEAD: usize = 16 * 1024;
/// Pause after the kernel refused a connection, for want of descriptors most likely.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves who comes through the socket, for as long as it is polled.
///
/// # Errors
///
/// If the kernel does not let it be waited for.
pub async fn serve_socket(socket: Socket, seat: Arc<Seat>) -> io::Result<()> {
    let listener = UnixListener::from_std(socket.listener)?;
    let welcome = router(seat);
    let refused = Router::new()
        .fallback(|| async {
            let detail = "this user may not use the socket; name it, or a group of its, under [admin], or be root";
            Problem::new(StatusCode::FORBIDDEN, detail)
        })
        .layer(middleware::from_fn(signed));
    let strangers = Arc::new(Semaphore::new(STRANGERS));
    let accept = async || loop {
        let (stream, _) = listener.accept().await?;
        let peer = stream.peer_cred()?;
        if socket.admitted.admits(peer) {
            return Ok((stream, welcome.clone(), Known::new(true)));
        }
        warn!(
            uid = peer.uid(),
            "a user who may not has come to the admin socket"
        );
        // They take no place of those who may.
        if let Ok(place) = Arc::clone(&strangers).try_acquire_owned() {
            let refused = refused.clone();
            tokio::spawn(async move {
                attend(stream, refused, &Known::default(), FAREWELL).await;
                drop(place);
            });
        }
    };
    serve(accept).await;
    Ok(())
}

/// Serves who opens the lock of a listener, for as long as it is polled.
///
/// # Errors
///
/// If the kernel does not let it be waited for.
pub async fn serve_listener(
    listener: std::net::TcpListener,
    lock: Lock,
    seat: Arc<Seat>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let guard = middleware::from_fn_with_state(Arc::new(lock), lock::guard);
    // The page is no secret. What it asks for is, and it asks with the token that somebody types in.
    let locked = Router::new()
        .route(pages::DASHBOARD, pages::dashboard())
        .merge(router(Arc::clone(&seat)).layer(guard));
    let accept = async || {
        let (stream, _) = listener.accept().await?;
        let known = Known::default();
        let router = locked.clone().layer(Extension(known.clone()));
        Ok((stream, router, known))
    };
    tokio::join!(serve(accept), seat.remember());
    Ok(())
}

async fn serve<S>(accept: impl AsyncFn() -> io::Result<(S, Router, Known)>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // They end with whoever polls this.
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        match accept().await {
            Ok((stream, router, known)) => {
                connections.spawn(async move {
                    attend(stream, router, &known, UNKNOWN).await;
                    drop(place);
                });
            }
            Err(error) => {
                debug!(%error, "connection to the operator's seat refused");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn attend(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    known: &Known,
    unknown: Duration,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    // How a connection ends is the client's affair.
    let ended = timeout(unknown, connection.as_mut()).await.is_ok();
    if !ended && known.get() {
        let _ = timeout(LIFETIME, connection).await;
    }
}

/// Whether whoever is at the other end of a connection has shown that they may be.
#[derive(Clone, Default)]
pub(super) struct Known(Arc<AtomicBool>);

impl Known {
    fn new(known: bool) -> Self {
        Self(Arc::new(known.into()))
    }

    /// They have.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// An answer that takes too long is one of its own. The body of the request is a part of that.
pub(super) async fn in_time(request: Request, next: Next) -> Response {
    match timeout(DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::unavailable("this has taken too long").into_response(),
    }
}

/// Tells who has answered: a command of another version must be able to say so.
pub(super) async fn signed(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let server = HeaderValue::from_static(concat!("turnd/", env!("CARGO_PKG_VERSION")));
    response.headers_mut().insert(header::SERVER, server);
    response
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_stranger_is_not_kept_however_often_he_asks() {
        for is_known in [false, true] {
            let (mut client, server) = tokio::io::duplex(1 << 16);
            let known = Known::default();
            let router = Router::new().route("/page", get(async || "a page"));
            let (own, patience) = (known.clone(), Duration::from_millis(100));
            let attended =
                tokio::spawn(async move { attend(server, router, &own, patience).await });
            let mut answers = 0;
            for _ in 0..20 {
                let asked = client.write_all(b"GET /page HTTP/1.1\r\n\r\n").await;
                let mut answer = [0; 1024];
                if asked.is_err() || client.read(&mut answer).await.unwrap() == 0 {
                    break;
                }
                answers += 1;
                if is_known {
                    known.set();
                }
                sleep(Duration::from_millis(20)).await;
            }
            drop(client);
            attended.await.unwrap();
            assert!(answers > 0);
            assert_eq!(answers == 20, is_known);
        }
    }
}
