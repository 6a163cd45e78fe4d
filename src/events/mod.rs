//! Session events: that a session begins, goes on and ends, with what it relayed, told to who keeps books.
//!
//! ```text
//!  worker ──▶ queue ──▶ collector ──▶ file or standard output: a line of JSON each
//!    (waits for nobody)         ├───▶ spool on disk ──▶ webhook: signed, repeated until it is taken
//!                               └───▶ queue ──▶ OpenTelemetry: a span of each session that has ended
//! ```
//!
//! All of this has a thread of its own, and every queue a bound: whoever reads too little loses events, which are
//! counted and told, and the relay does not notice. What is in the spool survives a restart; it is delivered at least
//! once, and each event has an id by which a receiver knows it again. What the receiver refuses for good is set aside.

mod event;
#[cfg_attr(not(feature = "otel"), path = "without_otlp.rs")]
mod otlp;
mod output;
mod spool;
mod webhook;

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self as channel, RecvTimeoutError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tracing::{error, warn};
use zeroize::Zeroizing;

use crate::plane::{Handle, Sighting};
use crate::turn::Session;
use event::Line;
use otlp::Spans;
use output::Output;
use spool::Spool;
use webhook::Deliverer;

/// Events that are taken from the queue between two looks at the rest.
const BATCH: usize = 256;
/// How long the last events may take when the server ends; what is left stays in the spool.
const LAST_EVENTS: Duration = Duration::from_secs(2);
/// And all of the end, should the file hang.
const ENDING: Duration = Duration::from_secs(5);

/// Who is told of sessions, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where a line for each event goes.
    pub sink: Option<Sink>,
    /// How often a session that goes on is told of.
    pub interim: Option<Duration>,
    /// Is of clients only their network told?
    pub anonymize: bool,
    /// Who is sent events over HTTP.
    pub webhook: Option<Webhook>,
    /// Who is sent spans.
    pub otlp: Option<Otlp>,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Standard output.
    Stdout,
    /// The end of a file.
    File(PathBuf),
}

/// A receiver over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Where events are posted.
    pub url: String,
    /// What they are signed with.
    pub secret: Key,
    /// The directory of those that wait.
    pub spool: PathBuf,
    /// How many bytes may wait.
    pub spool_limit: u64,
    /// How long the receiver may take.
    pub timeout: Duration,
    /// The first pause after a failure; each further one is twice as long.
    pub retry: Duration,
}

/// Can this build send spans? It can with the feature `otel`.
pub const EXPORTS_SPANS: bool = cfg!(feature = "otel");

/// A collector of OpenTelemetry spans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    /// Where spans are posted, in protobuf.
    pub url: String,
    /// What goes along: marked as sensitive, so that it shows in no log.
    pub headers: HeaderMap,
}

/// A key that shows in no log.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(pub Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// The running books.
pub struct Events {
    stop: oneshot::Sender<()>,
    /// Says nothing, and breaks when the thread has ended.
    ended: channel::Receiver<()>,
}

/// Begins to keep books. Events that are lost on the way are counted in `lost`.
///
/// # Errors
/// If the file or the spool cannot be opened, or the system gives no thread.
pub fn start(settings: &Settings, plane: &Handle, lost: &Arc<AtomicU64>) -> io::Result<Events> {
    let sink = settings.sink.as_ref().map(Output::open).transpose()?;
    let spool = match &settings.webhook {
        Some(webhook) => Some(Spool::open(&webhook.spool, webhook.spool_limit)?),
        None => None,
    };
    let spans = settings.otlp.as_ref();
    let spans = spans
        .map(|otlp| Spans::new(otlp, settings.anonymize, lost))
        .transpose()?;
    let deliverer = settings.webhook.clone().map(Deliverer::new).transpose()?;
    let sightings = plane
        .sightings(Arc::clone(lost))
        .ok_or_else(|| io::Error::other("somebody keeps books already"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let collector = Collector {
        sink: sink.map(RefCell::new),
        waiting: spool.map(RefCell::new),
        spans,
        more: Notify::new(),
        anonymize: settings.anonymize,
        lost: Arc::clone(lost),
    };
    let (stop, stopped) = oneshot::channel();
    let (ends, ended) = channel::channel();
    let (plane, interim) = (plane.clone(), settings.interim);
    thread::Builder::new()
        .name("events".to_owned())
        .spawn(move || {
            let _ends = ends;
            let keep = Keep {
                collector: &collector,
                plane,
                interim,
            };
            runtime.block_on(keep.run(deliverer, sightings, stopped));
            // Whoever waits for a name server holds a thread for as long as that is silent.
            runtime.shutdown_background();
        })?;
    Ok(Events { stop, ended })
}

impl Events {
    /// Waits until what has been seen is written, but not for ever. To be called when the plane has stopped.
    pub fn finish(self) {
        // Should the thread have ended by a panic, that has been told.
        let _ = self.stop.send(());
        if self.ended.recv_timeout(ENDING) == Err(RecvTimeoutError::Timeout) {
            warn!(
                "the last session events are not written: whoever reads them has stopped reading"
            );
        }
    }
}

/// What the thread does.
struct Keep<'a> {
    collector: &'a Collector,
    plane: Handle,
    interim: Option<Duration>,
}

impl Keep<'_> {
    async fn run(
        &self,
        deliverer: Option<Deliverer>,
        mut sightings: mpsc::Receiver<Sighting>,
        stopped: oneshot::Receiver<()>,
    ) {
        let collector = self.collector;
        let post = async {
            match &deliverer {
                Some(deliverer) => collector.deliver(deliverer).await,
                None => std::future::pending().await,
            }
        };
        let post_spans = async {
            match &collector.spans {
                Some(spans) => spans.post().await,
                None => std::future::pending().await,
            }
        };
        let deliver = async { tokio::join!(post, post_spans) };
        tokio::pin!(deliver);
        tokio::select! {
            () = self.collect(&mut sightings) => {}
            () = self.tell_who_goes_on() => {}
            _ = &mut deliver => {}
            _ = stopped => {}
        }
        while let Ok(seen) = sightings.try_recv() {
            collector.see(&seen);
        }
        collector.flush();
        // What the receiver does not take by then is delivered after the next start.
        let emptied = async {
            tokio::select! {
                _ = &mut deliver => {}
                () = collector.emptied() => {}
            }
        };
        let _ = timeout(LAST_EVENTS, emptied).await;
        if let Some(spans) = &collector.spans {
            spans.give_up();
        }
    }

    async fn collect(&self, sightings: &mut mpsc::Receiver<Sighting>) {
        let mut batch = Vec::with_capacity(BATCH);
        while sightings.recv_many(&mut batch, BATCH).await > 0 {
            for seen in batch.drain(..) {
                self.collector.see(&seen);
            }
            self.collector.flush();
        }
    }

    async fn tell_who_goes_on(&self) {
        let Some(period) = self.interim else {
            return std::future::pending().await;
        };
        let mut clock = interval_at(Instant::now() + period, period);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            let now = unix_now();
            let tell = |session: Session| {
                self.collector.take(Line::interim(&session, now));
                true
            };
            self.plane.each_session(|_| true, tell).await;
            self.collector.flush();
        }
    }
}

/// Writes events down.
struct Collector {
    sink: Option<RefCell<Output>>,
    waiting: Option<RefCell<Spool>>,
    spans: Option<Spans>,
    /// Told when something was put into the spool, and when something was taken out.
    more: Notify,
    anonymize: bool,
    lost: Arc<AtomicU64>,
}

impl Collector {
    fn see(&self, seen: &Sighting) {
        if let Some(spans) = &self.spans {
            spans.take(seen);
        }
        self.take(Line::of(seen));
    }

    fn take(&self, mut line: Line) {
        if self.sink.is_none() && self.waiting.is_none() {
            return;
        }
        if self.anonymize {
            line.anonymize();
        }
        let text = match serde_json::to_string(&line) {
            Ok(text) => text,
            Err(error) => return self.lose("cannot be written as JSON", &error),
        };
        if let Some(sink) = &self.sink
            && let Err(error) = sink.borrow_mut().write(&text)
        {
            self.lose("cannot be written", &error);
        }
        if let Some(waiting) = &self.waiting {
            match waiting.borrow_mut().push(&text) {
                Ok(true) => {}
                Ok(false) => self.lose(
                    "too many events wait for the webhook",
                    &"spool_limit is reached",
                ),
                Err(error) => self.lose("cannot be put into the spool", &error),
            }
        }
    }

    fn flush(&self) {
        self.more.notify_waiters();
    }

    fn lose(&self, why: &str, error: &dyn std::fmt::Display) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        warn!(%error, "a session event is lost: {why}");
    }

    /// Delivers what waits, for as long as it is polled.
    async fn deliver(&self, deliverer: &Deliverer) {
        let Some(waiting) = &self.waiting else { return };
        loop {
            let more = self.more.notified();
            let first = waiting.borrow_mut().first();
            match first {
                Ok(None) => more.await,
                Ok(Some(lines)) => {
                    let refused = |line: &str, status| self.set_aside(waiting, line, status);
                    deliverer.deliver_all(&lines, refused).await;
                    self.remove_first(waiting);
                }
                Err(error) => {
                    error!(%error, "a file of the spool of session events cannot be read; it is left out");
                    self.remove_first(waiting);
                }
            }
        }
    }

    /// Lets go of an event that the receiver refuses: those behind it wait, too.
    fn set_aside(&self, waiting: &RefCell<Spool>, line: &str, status: StatusCode) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        let mut waiting = waiting.borrow_mut();
        match waiting.set_aside(line) {
            Ok(true) => warn!(
                %status,
                "the webhook refuses a session event: it is in refused.jsonl of the spool"
            ),
            Ok(false) => warn!(
                %status,
                "the webhook refuses a session event, and refused.jsonl of the spool has no room for it"
            ),
            Err(error) => warn!(
                %status,
                %error,
                "the webhook refuses a session event, and refused.jsonl of the spool cannot be written"
            ),
        }
    }

    fn remove_first(&self, waiting: &RefCell<Spool>) {
        if let Err(error) = waiting.borrow_mut().done() {
            warn!(%error, "a file of the spool of session events cannot be removed");
        }
        self.more.notify_waiters();
    }

    /// Waits until nothing waits.
    async fn emptied(&self) {
        if let Some(spans) = &self.spans {
            spans.emptied().await;
        }
        loop {
            let more = self.more.notified();
            if self
                .waiting
                .as_ref()
                .is_none_or(|waiting| waiting.borrow().is_empty())
            {
                return;
            }
            more.await;
        }
    }
}

/// Seconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "events are dated by the wall clock"
)]
fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
