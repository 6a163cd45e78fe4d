//! Log lines: one shape for people, one for machines, one for the journal; never a line that blocks or lies.
//!
//! - The thread that logs only fills a queue. Behind it one thread writes; when whoever reads falls behind, lines
//!   are dropped and counted, and the relay does not notice (a full disk, a stopped pipe).
//! - Every value passes `record::printable`, so that nothing a client sends can end a line or steer a terminal.
//! - Warnings and errors that repeat are cut to a few a minute, with the number of those left out.

mod record;

use std::collections::HashMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::linux::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, panic, thread};

use tracing::{Event, Level, Subscriber, callsite};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

use crate::config::LogFormat;
use record::{Record, Shape, Value};

/// Lines that wait to be written; more are dropped.
const QUEUE: usize = 4096;
/// How long the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_millis(500);
/// Warnings of one kind that are written in a minute.
const REPEATS: u32 = 30;
const MINUTE: Duration = Duration::from_secs(60);
const JOURNAL: &str = "/run/systemd/journal/socket";

/// The running log. Letting go of it writes what is left.
pub(crate) struct Logging {
    level: reload::Handle<Targets, Registry>,
    lines: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
}

enum Line {
    Text(Vec<u8>),
    /// Answered when everything before it is written.
    Last(SyncSender<()>),
}

/// Starts to log. Called once; events before it go nowhere.
pub(crate) fn start(format: LogFormat, level: &str) -> Logging {
    let journal =
        UnixDatagram::unbound().and_then(|socket| socket.connect(JOURNAL).map(|()| socket));
    let shape = shape(format, journal.is_ok());
    let (lines, queue) = sync_channel(QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    let sink = match (shape, journal) {
        (Shape::Journal, Ok(socket)) => Sink::Journal(socket),
        (Shape::Text { .. } | Shape::Json | Shape::Journal, _) => Sink::Stderr,
    };
    let writer = Writer {
        shape,
        sink,
        dropped: Arc::clone(&dropped),
        told: 0,
    };
    // Without a thread there is no log; the server runs all the same.
    let _ = thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || writer.run(&queue));
    let (filter, handle) = reload::Layer::new(targets(level));
    let layer = Lines {
        shape,
        lines: lines.clone(),
        dropped: Arc::clone(&dropped),
        repeats: Mutex::default(),
    };
    // An error means that somebody else has set up a log already: a test.
    let _ = tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init();
    panic::set_hook(Box::new(|panic| {
        let text = panic.payload_as_str().unwrap_or("");
        tracing::error!(
            location = panic.location().map(tracing::field::display),
            "panic: {text}"
        );
    }));
    Logging {
        level: handle,
        lines,
        dropped,
    }
}

impl Logging {
    /// Changes what is worth a line.
    pub(crate) fn set_level(&self, level: &str) {
        // An error means that the subscriber is gone, with the process.
        let _ = self.level.reload(targets(level));
    }

    /// How many lines were dropped since nobody read them.
    pub(crate) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let (done, written) = sync_channel(1);
        if self.lines.try_send(Line::Last(done)).is_ok() {
            let _ = written.recv_timeout(LAST_LINES);
        }
    }
}

fn targets(level: &str) -> Targets {
    level
        .parse()
        .expect("the configuration accepts no other level")
}

fn shape(format: LogFormat, has_journal: bool) -> Shape {
    let colour = || io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none();
    match format {
        LogFormat::Text => Shape::Text { colour: colour() },
        LogFormat::Json => Shape::Json,
        LogFormat::Journal | LogFormat::Auto
            if has_journal && (format == LogFormat::Journal || stderr_is_the_journal()) =>
        {
            Shape::Journal
        }
        LogFormat::Journal => Shape::Text { colour: false },
        LogFormat::Auto if io::stderr().is_terminal() => Shape::Text { colour: colour() },
        LogFormat::Auto => Shape::Json,
    }
}

/// systemd names the stream it connected in `JOURNAL_STREAM`; it is ours only if nobody redirected it since.
pub(crate) fn stderr_is_the_journal() -> bool {
    let (Ok(named), Ok(stderr)) = (env::var("JOURNAL_STREAM"), fs::metadata("/proc/self/fd/2"))
    else {
        return false;
    };
    named == format!("{}:{}", stderr.st_dev(), stderr.st_ino())
}

/// The thread behind the queue.
struct Writer {
    shape: Shape,
    sink: Sink,
    dropped: Arc<AtomicU64>,
    told: u64,
}

enum Sink {
    Stderr,
    Journal(UnixDatagram),
}

impl Writer {
    fn run(mut self, queue: &Receiver<Line>) {
        for line in queue {
            match line {
                Line::Text(bytes) => self.write(&bytes),
                Line::Last(done) => {
                    let _ = done.try_send(());
                }
            }
            let dropped = self.dropped.load(Ordering::Relaxed);
            if dropped > self.told {
                let record = Record {
                    level: Level::WARN,
                    target: module_path!(),
                    message: "log lines were dropped: they were not read fast enough".to_owned(),
                    fields: vec![("lines", Value::Plain((dropped - self.told).to_string()))],
                };
                self.told = dropped;
                self.write(&record.render(self.shape));
            }
        }
    }

    /// An error has nowhere to go.
    fn write(&self, bytes: &[u8]) {
        let _ = match &self.sink {
            Sink::Stderr => io::stderr().write_all(bytes),
            Sink::Journal(socket) => socket.send(bytes).map(|_| ()),
        };
    }
}

/// Makes lines of events.
struct Lines {
    shape: Shape,
    lines: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
    repeats: Mutex<HashMap<callsite::Identifier, Repeats>>,
}

/// How often one place in the program has warned within a minute.
struct Repeats {
    since: Instant,
    written: u32,
    suppressed: u64,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let suppressed = if *event.metadata().level() <= Level::WARN {
            match self.repeat(event.metadata().callsite()) {
                Some(suppressed) => suppressed,
                None => return,
            }
        } else {
            0
        };
        let mut record = Record::of(event);
        if suppressed > 0 {
            record
                .fields
                .push(("suppressed", Value::Plain(suppressed.to_string())));
        }
        if self
            .lines
            .try_send(Line::Text(record.render(self.shape)))
            .is_err()
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Lines {
    /// Counts a warning. Tells how many were left out before it, or nothing if it is left out itself.
    #[expect(clippy::disallowed_methods, reason = "the log has a clock of its own")]
    fn repeat(&self, place: callsite::Identifier) -> Option<u64> {
        let now = Instant::now();
        let mut repeats = self.repeats.lock().unwrap_or_else(PoisonError::into_inner);
        let repeat = repeats.entry(place).or_insert(Repeats {
            since: now,
            written: 0,
            suppressed: 0,
        });
        if now.duration_since(repeat.since) > MINUTE {
            repeat.since = now;
            repeat.written = 0;
        }
        if repeat.written == REPEATS {
            repeat.suppressed += 1;
            return None;
        }
        repeat.written += 1;
        Some(std::mem::take(&mut repeat.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_warnings_are_left_out_and_counted() {
        let (lines, queue) = sync_channel(1000);
        let layer = Lines {
            shape: Shape::Json,
            lines,
            dropped: Arc::default(),
            repeats: Mutex::default(),
        };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            for _ in 0..1000 {
                tracing::warn!("again");
            }
            tracing::warn!("another");
        });
        assert_eq!(queue.try_iter().count(), REPEATS as usize + 1);
    }

    #[test]
    fn a_reader_that_stops_costs_lines_and_nothing_else() {
        let (lines, _queue) = sync_channel(10);
        let layer = Lines {
            shape: Shape::Json,
            lines,
            dropped: Arc::default(),
            repeats: Mutex::default(),
        };
        let dropped = Arc::clone(&layer.dropped);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            for _ in 0..100 {
                tracing::info!("allocation ended");
            }
        });
        assert_eq!(dropped.load(Ordering::Relaxed), 90);
    }
}
