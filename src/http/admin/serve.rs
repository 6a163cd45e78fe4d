//! Connections to the seat: few at a time, none of them for long.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
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
/// How long a connection lives, whatever it does.
const LIFETIME: Duration = Duration::from_secs(3600);
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
            return Ok((stream, welcome.clone()));
        }
        warn!(
            uid = peer.uid(),
            "a user who may not has come to the admin socket"
        );
        // They take no place of those who may.
        if let Ok(place) = Arc::clone(&strangers).try_acquire_owned() {
            let refused = refused.clone();
            tokio::spawn(async move {
                let _ = timeout(FAREWELL, attend(stream, refused)).await;
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
        Ok((stream, locked.clone()))
    };
    tokio::join!(serve(accept), seat.remember());
    Ok(())
}

async fn serve<S>(accept: impl AsyncFn() -> io::Result<(S, Router)>)
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
            Ok((stream, router)) => {
                connections.spawn(async move {
                    attend(stream, router).await;
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

async fn attend(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // How a connection ends is the client's affair.
    let _ = timeout(LIFETIME, connection).await;
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
