//! A line of the log: what an event says, and how it looks to people, to machines and to the journal.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level};

/// A longer value is cut.
const LONGEST_VALUE: usize = 1000;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// For people.
    Text {
        /// Do warnings stand out?
        colour: bool,
    },
    /// For machines: an object on a line.
    Json,
    /// The journal's own protocol.
    Journal,
}

/// An event, taken down.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) level: Level,
    pub(super) target: &'static str,
    pub(super) message: String,
    pub(super) fields: Vec<(&'static str, Value)>,
}

#[derive(Debug)]
pub(super) enum Value {
    /// A number, or true or false.
    Plain(String),
    /// Anything else, made printable.
    Text(String),
}

impl Record {
    pub(super) fn of(event: &Event<'_>) -> Self {
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

    pub(super) fn render(&self, shape: Shape) -> Vec<u8> {
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
        if self.level > Level::INFO {
            let _ = write!(line, " target={}", self.target);
        }
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
