//! The pages for operators and their tools: `/metrics`, `/healthz`, `/readyz`, `/self-test`; and in [`admin`] the
//! operator's seat.
//!
//! They have a listener and a thread of their own, answer nothing but GET, take no input, and hold few connections
//! for a short time: whoever plays with them cannot touch the relay. There is no password and no write access, so
//! the listener belongs on loopback or a private network. `/healthz` and `/readyz` tell strangers nothing, and may
//! be served to web clients of the relay's own listeners.

pub mod admin;
mod guard;
mod page;
mod process;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::time::Instant;

use crate::metrics::{Snapshot, Tokens};
use crate::pages;
use guard::Guarded;

/// Whether every worker answers is looked at no more often: strangers may ask, and a look at what lives costs time that
/// the workers relay in.
const HEALTH: Duration = Duration::from_secs(1);
/// A page that takes longer is answered with 503. The workers have a second of it.
const DEADLINE: Duration = Duration::from_millis(1500);

/// Where the pages are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The address.
    pub listen: SocketAddr,
}

/// What the pages tell beside the workers' counters. Written by the daemon.
#[derive(Debug, Default)]
pub struct Status {
    /// When the process started, in seconds since 1970.
    pub started: i64,
    /// Are new calls welcome?
    pub ready: AtomicBool,
    /// Since when none are, by the operator's wish, in seconds since 1970; 0 if that is not so.
    pub draining_since: AtomicI64,
    /// When the server ends whoever is left then, likewise; 0 if it does not.
    pub draining_until: AtomicI64,
    /// Is the last reload of the configuration not in force, since it was bad?
    pub config_stale: AtomicBool,
    /// Likewise for the certificate.
    pub certificate_stale: AtomicBool,
    /// When the certificate ends, in seconds since 1970; 0 without one.
    pub certificate_end: AtomicI64,
    /// How many revocations are remembered.
    pub revocations: Arc<AtomicU64>,
    /// What the token service does, if there is one.
    pub tokens: Option<Arc<Tokens>>,
    /// Log lines that nobody read in time.
    pub log_lines_dropped: Arc<AtomicU64>,
    /// Session events that nobody was told of.
    pub events_lost: Arc<AtomicU64>,
}

type Ask = dyn Fn() -> Pin<Box<dyn Future<Output = Snapshot> + Send>> + Send + Sync;

/// What the pages are made of.
#[derive(Clone)]
pub struct Source {
    ask: Arc<Ask>,
    workers: u64,
    status: Arc<Status>,
    /// One page at a time: scrapers wait for each other, the workers for none of them.
    turn: Arc<Semaphore>,
    /// Whether every worker answered, and when.
    health: Arc<Mutex<Option<(Instant, bool)>>>,
}

impl Source {
    /// Pages made of what `ask` tells about `workers` workers, and of `status`.
    pub fn new<F>(
        workers: usize,
        status: Arc<Status>,
        ask: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Snapshot> + Send + 'static,
    {
        Self {
            ask: Arc::new(move || Box::pin(ask())),
            workers: workers as u64,
            status,
            turn: Arc::new(Semaphore::new(1)),
            health: Arc::default(),
        }
    }

    /// Whether every worker answers, or did a moment ago.
    async fn is_well(&self) -> bool {
        let mut last = self.health.lock().await;
        if let Some((at, is_well)) = *last
            && at.elapsed() < HEALTH
        {
            return is_well;
        }
        let snapshot = self.snapshot().await;
        let is_well = snapshot.is_some_and(|snapshot| snapshot.workers >= self.workers);
        *last = Some((Instant::now(), is_well));
        is_well
    }

    /// Asks the workers; nothing if it takes too long.
    async fn snapshot(&self) -> Option<Snapshot> {
        let asked = async {
            let _turn = self.turn.acquire().await.ok()?;
            Some((self.ask)().await)
        };
        tokio::time::timeout(DEADLINE, asked).await.ok().flatten()
    }
}

/// Takes the address, so that a mistake shows at the start.
///
/// # Errors
///
/// If the address cannot be bound.
pub async fn bind(settings: Settings) -> io::Result<TcpListener> {
    TcpListener::bind(settings.listen).await
}

/// Serves the pages for as long as it is polled.
///
/// # Errors
///
/// If the listener breaks.
pub async fn serve(listener: TcpListener, source: Source) -> io::Result<()> {
    axum::serve(Guarded::new(listener), router(source)).await
}

/// Serves the self-test and nothing else, for as long as it is polled.
///
/// # Errors
///
/// If the listener breaks.
pub async fn serve_self_test(listener: TcpListener) -> io::Result<()> {
    let router = Router::new().route(pages::SELF_TEST, pages::self_test());
    axum::serve(Guarded::new(listener), router).await
}

/// Serves the pages that tell whether the server lives, and nothing of what it does, to web clients of the
/// relay's own listeners, whoever they are. The plane sees to it that they are few and not idle.
///
/// # Errors
/// Never: it ends with the plane.
pub async fn serve_public(clients: mpsc::Receiver<DuplexStream>, source: Source) -> io::Result<()> {
    axum::serve(Passed(clients), public(source)).await
}

/// Connections that the plane passes on.
struct Passed(mpsc::Receiver<DuplexStream>);

impl Listener for Passed {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.recv().await {
            Some(client) => (client, ()),
            // The plane has ended: nobody comes any more.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

fn public(source: Source) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .with_state(source)
}

fn router(source: Source) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .route(pages::SELF_TEST, pages::self_test())
        .with_state(source)
}

async fn metrics(State(source): State<Source>) -> Response {
    let Some(snapshot) = source.snapshot().await else {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "the workers do not answer in time\n",
        )
            .into_response();
    };
    match page::render(&snapshot, &source.status) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Does every worker answer?
async fn health(State(source): State<Source>) -> (StatusCode, &'static str) {
    if source.is_well().await {
        (StatusCode::OK, "ok\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "a worker does not answer\n",
        )
    }
}

/// Are new calls welcome?
async fn readiness(State(source): State<Source>) -> (StatusCode, &'static str) {
    if source.status.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ready\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: starting, or draining\n",
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::future::pending;
    use std::sync::atomic::AtomicUsize;

    use axum::body::to_bytes;

    use super::*;
    use crate::turn::EndReason;

    async fn text(response: Response) -> (StatusCode, String) {
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn workers_that_hang_cost_a_page_and_no_more() {
        let source = Source::new(1, Arc::default(), pending::<Snapshot>);
        let (status, body) = text(metrics(State(source)).await).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    }

    #[tokio::test]
    async fn scrapers_wait_for_each_other() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (inside, peak) = (Arc::clone(&now), Arc::clone(&most));
        let source = Source::new(1, Arc::default(), move || {
            let (inside, peak) = (Arc::clone(&inside), Arc::clone(&peak));
            async move {
                peak.fetch_max(
                    inside.fetch_add(1, Ordering::Relaxed) + 1,
                    Ordering::Relaxed,
                );
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::Relaxed);
                Snapshot::default()
            }
        });
        let scrapes: Vec<_> = (0..50)
            .map(|_| tokio::spawn(metrics(State(source.clone()))))
            .collect();
        for scrape in scrapes {
            assert_eq!(scrape.await.unwrap().status(), StatusCode::OK);
        }
        assert_eq!(most.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn however_many_ask_for_health_the_workers_are_asked_once_a_second() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let source = Source::new(0, Arc::default(), move || {
            count.fetch_add(1, Ordering::Relaxed);
            async { Snapshot::default() }
        });
        let begun = Instant::now();
        for _ in 0..1000 {
            let (code, _) = health(State(source.clone())).await;
            assert_eq!(code, StatusCode::OK);
        }
        let (asked, seconds) = (asked.load(Ordering::Relaxed), begun.elapsed().as_secs());
        assert!(asked as u64 <= 1 + seconds, "{asked} in {seconds} s");
    }

    #[tokio::test]
    async fn health_is_every_worker_and_readiness_is_a_flag() {
        let status = Arc::new(Status::default());
        let answering = |workers| Snapshot {
            workers,
            ..Snapshot::default()
        };
        let source = Source::new(2, Arc::clone(&status), move || async move { answering(1) });
        assert_eq!(
            health(State(source)).await.0,
            StatusCode::SERVICE_UNAVAILABLE
        );
        let source = Source::new(2, Arc::clone(&status), move || async move { answering(2) });
        assert_eq!(health(State(source.clone())).await.0, StatusCode::OK);
        assert_eq!(
            readiness(State(source.clone())).await.0,
            StatusCode::SERVICE_UNAVAILABLE
        );
        status.ready.store(true, Ordering::Relaxed);
        assert_eq!(readiness(State(source)).await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn the_page_has_a_help_and_a_type_for_every_metric_and_closed_labels_only() {
        let secret_uses = BTreeMap::from([("main".to_owned(), 7)]);
        let mut snapshot = Snapshot {
            secret_uses,
            ..Snapshot::default()
        };
        snapshot.cells.ended(EndReason::Kicked);
        let source = Source::new(0, Arc::default(), move || {
            let snapshot = snapshot.clone();
            async { snapshot }
        });
        let (_, page) = text(metrics(State(source)).await).await;
        let names: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        for name in [
            "turn_allocations",
            "turn_relayed_bytes_total",
            "turn_dropped_packets_total",
            "turn_config_stale",
            "process_open_fds",
        ] {
            assert!(names.contains(&name), "{name}");
        }
        assert!(page.contains("\nturn_auth_secret_used_total{id=\"main\"} 7\n"));
        assert!(page.contains("\nturn_allocations_ended_total{reason=\"kicked\"} 1\n"));
        assert!(page.contains("\nturn_allocations_ended_total{reason=\"deleted\"} 0\n"));
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let is_known = |suffix: &str| {
                name.strip_suffix(suffix)
                    .is_some_and(|name| names.contains(&name))
            };
            assert!(
                ["", "_bucket", "_sum", "_count"].into_iter().any(is_known),
                "{line}"
            );
            let labels = line.split(['{', '}']).nth(1).unwrap_or("");
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let known = [
                    "transport",
                    "family",
                    "direction",
                    "reason",
                    "method",
                    "code",
                    "result",
                    "kind",
                    "dialect",
                    "limit",
                    "le",
                    "version",
                    "worker",
                    "id",
                ];
                assert!(known.contains(&label.split('=').next().unwrap()), "{line}");
            }
        }
        assert!(page.lines().count() < 600, "the page has a bound");
    }
}
