//! The service's thread: takes connections, holds few of them, waits for none for long.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::runtime;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::cors::{self, Origin};
use super::listener::{Bound, Listen, Listeners, SocketFile};
use super::places::{Place, Places};
use super::rate::Limits;
use super::refusal::{Kind, Refusal};
use super::site::{Audit, From, Site};
use super::source::{self, Peer};
use super::{Settings, Tokens, dialect, document, native, revoke};
use crate::pages;
use crate::revocation::Revoker;

/// How long a handshake may take, a request's head, and all of the rest.
const HANDSHAKE: Duration = Duration::from_secs(5);
const HEAD: Duration = Duration::from_secs(10);
const REQUEST: Duration = Duration::from_secs(15);
/// How long a connection is kept for more requests, and how long the last one may take then.
const CONNECTION: Duration = Duration::from_secs(300);
const LAST: Duration = Duration::from_secs(20);
/// The longest head of a request, and the most fields in it.
const LONGEST_HEAD: usize = 16 * 1024;
const MOST_FIELDS: usize = 64;
/// How long to wait when the kernel has no descriptor left.
const NO_DESCRIPTOR: Duration = Duration::from_millis(100);

/// The running service. It ends when this is dropped.
pub struct Handle {
    shared: Arc<Shared>,
    runtime: runtime::Handle,
    addresses: Vec<Listen>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// What changes while it runs.
struct Shared {
    running: ArcSwap<Running>,
    tls: Option<ArcSwap<ServerConfig>>,
    places: Arc<Places>,
}

/// One set of settings, with its routes.
struct Running {
    site: Arc<Site>,
    router: Router,
}

/// Starts the service on a thread of its own. `tls` is for those listeners that speak it; `revoker` takes credentials
/// back, if that can be done here.
///
/// # Errors
/// If the kernel gives no thread, or no means to wait for sockets.
pub fn start(
    listeners: Listeners,
    settings: Settings,
    tls: Option<Arc<ServerConfig>>,
    tokens: Arc<Tokens>,
    revoker: Option<Revoker>,
) -> io::Result<Handle> {
    let addresses = listeners.addresses();
    let running = Running::new(settings, tokens, Arc::default(), None, revoker);
    let shared = Arc::new(Shared {
        running: ArcSwap::from_pointee(running),
        tls: tls.map(|tls| ArcSwap::new(for_http(&tls))),
        places: Arc::default(),
    });
    let (stop, stopped) = watch::channel(false);
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let ours = Arc::clone(&shared);
    let handle = runtime.handle().clone();
    let thread = thread::Builder::new()
        .name("turnd-token".to_owned())
        .spawn(move || {
            runtime.block_on(run(listeners, ours, stopped));
            runtime.shutdown_timeout(Duration::from_millis(100));
        })?;
    Ok(Handle {
        shared,
        runtime: handle,
        addresses,
        stop,
        thread: Some(thread),
    })
}

impl Handle {
    /// Where it listens.
    pub fn addresses(&self) -> &[Listen] {
        &self.addresses
    }

    /// Takes other settings for the requests that come from here on.
    pub fn replace(&self, mut settings: Settings) {
        let old = self.shared.running.load();
        for issuer in &mut settings.issuers {
            let mut before = old.site.settings.issuers.iter().map(|issuer| &issuer.keys);
            // What is known of them is not forgotten: where they come from may not answer just now.
            match before.find(|keys| keys.comes_from_where(&issuer.keys)) {
                Some(known) => issuer.keys = known.clone(),
                None => drop(self.runtime.spawn(issuer.keys.keep_fresh())),
            }
        }
        let Site {
            tokens,
            audit,
            limits,
            revoker,
            ..
        } = &*old.site;
        let same = old.site.settings.rates == settings.rates;
        let limits = same.then(|| Arc::clone(limits));
        let running = Running::new(
            settings,
            Arc::clone(tokens),
            Arc::clone(audit),
            limits,
            revoker.clone(),
        );
        self.shared.running.store(Arc::new(running));
    }

    /// Shows another certificate to those who connect from here on.
    pub fn replace_tls(&self, tls: &Arc<ServerConfig>) {
        if let Some(current) = &self.shared.tls {
            current.store(for_http(tls));
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            // A panic there has been told already.
            let _ = thread.join();
        }
    }
}

/// Browsers that are asked agree on HTTP/1.1.
fn for_http(tls: &ServerConfig) -> Arc<ServerConfig> {
    let mut tls = tls.clone();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(tls)
}

async fn run(listeners: Listeners, shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    for issuer in &shared.running.load().site.settings.issuers {
        tokio::spawn(issuer.keys.keep_fresh());
    }
    // Files of sockets go when the service ends.
    let mut files: Vec<SocketFile> = Vec::new();
    for bound in listeners.0 {
        let shared = Arc::clone(&shared);
        match bound {
            Bound::Tcp { socket, tls } => match TcpListener::from_std(socket) {
                Ok(socket) => drop(tokio::spawn(serve_tcp(socket, tls, shared))),
                Err(error) => warn!("a socket of the token service cannot be used: {error}"),
            },
            Bound::Unix { socket, file } => {
                files.push(file);
                match UnixListener::from_std(socket) {
                    Ok(socket) => drop(tokio::spawn(serve_unix(socket, shared))),
                    Err(error) => warn!("a socket of the token service cannot be used: {error}"),
                }
            }
        }
    }
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

async fn serve_tcp(socket: TcpListener, tls: bool, shared: Arc<Shared>) {
    loop {
        let place = shared.places.next().await;
        match socket.accept().await {
            Ok((stream, peer)) => {
                if let Some(place) = shared.admit(place, peer.ip()) {
                    let peer = Peer::Tcp(peer.ip());
                    tokio::spawn(greet(stream, peer, tls, Arc::clone(&shared), place));
                }
            }
            Err(error) => pause(&error).await,
        }
    }
}

async fn serve_unix(socket: UnixListener, shared: Arc<Shared>) {
    loop {
        let place = shared.places.next().await;
        match socket.accept().await {
            Ok((stream, _)) => {
                let stream: UnixStream = stream;
                tokio::spawn(converse(stream, Peer::Unix, Arc::clone(&shared), place));
            }
            Err(error) => pause(&error).await,
        }
    }
}

impl Shared {
    /// The place for a client, if it may have one more. A proxy comes for many.
    fn admit(&self, place: Place, client: IpAddr) -> Option<Place> {
        let running = self.running.load();
        if source::is_proxy(client, &running.site.settings.proxies) {
            return Some(place);
        }
        let place = place.given_to(&self.places, client);
        if place.is_none() {
            running.count(
                client,
                &Refusal::new(Kind::TooMany(1), "too many connections at a time"),
            );
        }
        place
    }
}

/// A client that has gone again is nothing; without descriptors it is of no use to ask again at once.
async fn pause(error: &io::Error) {
    debug!("no connection to the token service: {error}");
    sleep(NO_DESCRIPTOR).await;
}

async fn greet(stream: TcpStream, peer: Peer, tls: bool, shared: Arc<Shared>, place: Place) {
    let _ = stream.set_nodelay(true);
    let config = shared.tls.as_ref().filter(|_| tls).map(ArcSwap::load_full);
    match config {
        None if tls => {}
        None => converse(stream, peer, shared, place).await,
        Some(config) => {
            let handshake = TlsAcceptor::from(config).accept(stream);
            if let Ok(Ok(stream)) = timeout(HANDSHAKE, handshake).await {
                converse(stream, peer, shared, place).await;
            }
        }
    }
}

/// One connection, with as many requests as it has.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    shared: Arc<Shared>,
    _place: Place,
) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let running = shared.running.load_full();
        async move { Ok::<_, Infallible>(running.answer(peer, request.map(Body::new)).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(LONGEST_HEAD)
        .max_headers(MOST_FIELDS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // What breaks a connection is the client's affair.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = sleep(CONNECTION) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(LAST, connection).await;
}

impl Running {
    fn new(
        settings: Settings,
        tokens: Arc<Tokens>,
        audit: Arc<Audit>,
        limits: Option<Arc<Limits>>,
        revoker: Option<Revoker>,
    ) -> Self {
        let limits = limits.unwrap_or_else(|| Arc::new(Limits::new(settings.rates)));
        let site = Arc::new(Site {
            document: document::of(&settings.dialects).to_string().into(),
            settings,
            limits,
            tokens,
            audit,
            revoker,
        });
        Self {
            router: router(&site),
            site,
        }
    }

    async fn answer(&self, peer: Peer, mut request: Request) -> Response {
        let settings = &self.site.settings;
        let source = source::address(peer, request.headers(), &settings.proxies);
        let origin = cors::judge(&settings.origins, request.method(), request.headers());
        let mut response = match &origin {
            Origin::Foreign => Refusal::new(
                Kind::Origin,
                "pages of this origin may not ask here ([token] origins)",
            )
            .into_response(),
            Origin::Preflight(_) => cors::preflight(),
            Origin::None | Origin::Listed(_) => {
                request.extensions_mut().insert(From(source));
                self.route(request).await
            }
        };
        cors::mark(&mut response, origin);
        if let Some(refusal) = response.extensions().get::<Refusal>() {
            self.count(source, refusal);
        }
        response
    }

    async fn route(&self, request: Request) -> Response {
        let router = TowerToHyperService::new(self.router.clone());
        match timeout(REQUEST, router.call(request)).await {
            Ok(Ok(response)) => spoken(response),
            Ok(Err(never)) => match never {},
            Err(_) => {
                Refusal::new(Kind::TooSlow, "the request did not come in time").into_response()
            }
        }
    }

    fn count(&self, source: IpAddr, refusal: &Refusal) {
        self.site.tokens.count_refused(refusal.reason());
        self.site.audit.refused(source, refusal);
    }
}

fn router(site: &Arc<Site>) -> Router {
    native::routes()
        .route(pages::SELF_TEST, pages::self_test())
        .merge(revoke::routes())
        .merge(dialect::routes(&site.settings.dialects))
        .fallback(dialect::other)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::clone(site))
}

/// What the router refuses by itself is said like everything else.
fn spoken(response: Response) -> Response {
    let is_said = response.extensions().get::<Refusal>().is_some();
    if response.status().is_client_error() && !is_said {
        Refusal::malformed("the path is not UTF-8").into_response()
    } else {
        response
    }
}

async fn wrong_method() -> Refusal {
    Refusal::new(Kind::Method, "see /openapi.json for what there is")
}
