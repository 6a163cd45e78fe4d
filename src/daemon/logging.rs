//! Log lines: one shape for people, one for machines, one for the journal; never a line that blocks or lies.
//!
//! - The thread that logs only fills a queue. Behind it one thread writes; when whoever reads falls behind, lines
//!   are dropped and counted, and the relay does not notice (a full disk, a stopped pipe).
//! - Every value passes [`printable`], so that nothing a client sends can end a line or steer a terminal.
//! - Warnings and errors that repeat are cut to a few a minute, with the number of those left out.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::linux::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, panic, thread};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, callsite};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

use crate::config::LogFormat;

/// Lines that wait to be written; more are dropped.
const QUEUE: usize = 4096;
/// How long the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_millis(500);
/// Warnings of one kind that are written in a minute.
const REPEATS: u32 = 30;
const MINUTE: Duration = Duration::from_secs(60);
/// A longer value is cut.
const LONGEST_VALUE: usize = 1000;
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

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Text { colour: bool },
    Json,
    Journal,
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

/// An event, taken down.
#[derive(Debug)]
struct Record {
    level: Level,
    target: &'static str,
    message: String,
    fields: Vec<(&'static str, Value)>,
}

#[derive(Debug)]
enum Value {
    /// A number, or true or false.
    Plain(String),
    /// Anything else, made printable.
    Text(String),
}

impl Record {
    fn of(event: &Event<'_>) -> Self {
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        let mut record = Self {
            level,
            target,
            message: String::new(),
            fields: Vec::new(),
        };
        event.record(&mut record);
        record
    }

    fn push(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::Text(text) | Value::Plain(text)) => self.message = text,
            (name, value) => self.fields.push((name, value)),
        }
    }

    fn render(&self, shape: Shape) -> Vec<u8> {
        match shape {
            Shape::Text { colour } => self.as_text(colour).into_bytes(),
            Shape::Json => self.as_json().into_bytes(),
            Shape::Journal => self.as_journal().into_bytes(),
        }
    }

    fn as_text(&self, colour: bool) -> String {
        let (before, after) = match self.level {
            Level::ERROR if colour => ("\x1b[1;31m", "\x1b[0m"),
            Level::WARN if colour => ("\x1b[33m", "\x1b[0m"),
            _ => ("", ""),
        };
        let mut line = format!(
            "{} {before}{:5}{after} {}",
            timestamp(),
            self.level.as_str(),
            self.message
        );
        for (name, value) in &self.fields {
            let _ = match value {
                Value::Plain(text) => write!(line, " {name}={text}"),
                Value::Text(text) if text.is_empty() || text.contains([' ', '"', '=']) => {
                    write!(line, " {name}=\"{}\"", text.replace('"', "\\\""))
                }
                Value::Text(text) => write!(line, " {name}={text}"),
            };
        }
        line.push('\n');
        line
    }

    fn as_json(&self) -> String {
        let mut line = format!(
            "{{\"timestamp\":\"{}\",\"level\":\"{}\",\"target\":\"{}\",\"message\":{}",
            timestamp(),
            self.level.as_str(),
            self.target,
            serde_json::Value::from(self.message.as_str())
        );
        for (name, value) in &self.fields {
            let _ = match value {
                Value::Plain(text) => write!(line, ",\"{name}\":{text}"),
                Value::Text(text) => write!(
                    line,
                    ",\"{name}\":{}",
                    serde_json::Value::from(text.as_str())
                ),
            };
        }
        line.push_str("}\n");
        line
    }

    /// The journal's own protocol: `NAME=value` lines, which printable values cannot break.
    fn as_journal(&self) -> String {
        let priority = match self.level {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        let mut entry = format!(
            "PRIORITY={priority}\nSYSLOG_IDENTIFIER=turnd\nTARGET={}\nMESSAGE={}",
            self.target, self.message
        );
        for (name, value) in &self.fields {
            let (Value::Plain(text) | Value::Text(text)) = value;
            let _ = write!(entry, " {name}={text}");
        }
        for (name, value) in &self.fields {
            let (Value::Plain(text) | Value::Text(text)) = value;
            let _ = write!(
                entry,
                "\nTURND_{}={text}",
                name.to_uppercase().replace('.', "_")
            );
        }
        entry.push('\n');
        entry
    }
}

impl Visit for Record {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, Value::Text(printable(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, Value::Text(printable(&format!("{value:?}"))));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Value::Plain(value.to_string()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::Plain(value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::Plain(value.to_string()));
    }
}

/// The text on one line, without anything that a terminal would obey: control characters and those that have no
/// shape of their own, such as marks of direction, are written as escapes.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        let has_shape = letter == ' '
            || letter.is_ascii_graphic()
            || (!letter.is_ascii() && letter.escape_debug().count() == 1);
        if has_shape {
            out.push(letter);
        } else {
            out.extend(letter.escape_default());
        }
        if out.len() > LONGEST_VALUE {
            out.push('…');
            break;
        }
    }
    out
}

/// The wall clock as RFC 3339, in UTC.
#[expect(
    clippy::disallowed_methods,
    reason = "log lines are dated by the wall clock"
)]
fn timestamp() -> String {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let (days, rest) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        since.subsec_millis()
    )
}

/// The Gregorian date so many days after 1970-01-01. Years are counted from March, so that the leap day ends them.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str =
        "eve\n2026-01-01 ERROR all is lost\r\x1b[2J\u{9b}31m%s%n\u{202e}\u{0}\u{7f}é";

    fn record(text: &str) -> Record {
        Record {
            level: Level::INFO,
            target: "turnd::test",
            message: "allocation ended".to_owned(),
            fields: vec![
                ("username", Value::Text(printable(text))),
                ("bytes", Value::Plain("7".to_owned())),
            ],
        }
    }

    #[test]
    fn what_a_client_sends_stays_on_its_line() {
        for shape in [Shape::Text { colour: false }, Shape::Json] {
            let line = String::from_utf8(record(HOSTILE).render(shape)).unwrap();
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert!(line.ends_with('\n'));
            let inner = line.trim_end();
            assert!(
                inner
                    .chars()
                    .all(|letter| !letter.is_control() && letter != '\u{202e}'),
                "{line}"
            );
            assert!(
                inner.contains('é'),
                "letters of the world are no danger: {line}"
            );
        }
    }

    #[test]
    fn a_json_line_is_json() {
        let line = record("a \"quoted\" \\ name").render(Shape::Json);
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["username"], "a \"quoted\" \\ name");
        assert_eq!(value["bytes"], 7);
        assert_eq!(value["level"], "INFO");
    }

    #[test]
    fn the_journal_gets_a_field_for_each_value() {
        let entry = String::from_utf8(record(HOSTILE).render(Shape::Journal)).unwrap();
        assert_eq!(
            entry
                .lines()
                .filter(|line| line.starts_with("TURND_"))
                .count(),
            2
        );
        assert!(entry.lines().any(|line| line == "TURND_BYTES=7"));
        assert!(entry.lines().any(|line| line == "PRIORITY=6"));
        assert!(
            entry.lines().all(|line| line
                .split_once('=')
                .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_')))
        );
    }

    #[test]
    fn long_values_are_cut() {
        assert!(printable(&"x".repeat(100_000)).len() < 1010);
        assert!(printable(&"\u{0}".repeat(100_000)).len() < 1020);
    }

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

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, date_of_it) in [
            (0, (1970, 1, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_779, (2026, 11, 22)),
        ] {
            assert_eq!(date(days), date_of_it);
        }
    }
}
