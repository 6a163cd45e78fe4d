//! The work of a translation: the lines, what has been said about them, and what has come of them so far.

use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::config;

use super::keys::{self, Fate, Key, Kind};
use super::line::Line;
use super::listen::Doors;
use super::report::{Class, Entry, Report, safe, shown};
use super::secrets::Secret;
use super::toml::Toml;
use super::{Imported, Surroundings};

/// One translation. Its rooms (`listen`, `auth` ...) each take care of some keys.
pub(super) struct Translation<'a> {
    lines: Vec<Line<'a>>,
    pub(super) around: &'a Surroundings,
    pub(super) toml: Toml,
    pub(super) doors: Doors,
    report: Report,
    secrets: Vec<Secret>,
}

impl<'a> Translation<'a> {
    pub(super) fn new(lines: Vec<Line<'a>>, around: &'a Surroundings) -> Self {
        let name = shown(&around.name);
        let head = format!(
            "# Made from {name} of coturn by `turnd import coturn`. Above each key stands where it comes from; what could\n\
             # not be taken over is at the end. `turnd show-config --defaults` explains all keys.\n"
        );
        Self {
            lines,
            around,
            toml: Toml::new(&head),
            doors: Doors::default(),
            report: Report::new(&name),
            secrets: Vec::new(),
        }
    }

    /// Every line with this key that has a value.
    pub(super) fn all(&mut self, key: &str) -> Vec<Line<'a>> {
        let (with, without): (Vec<Line<'a>>, Vec<Line<'a>>) =
            self.of(key).partition(|line| !line.value.is_empty());
        for line in without {
            self.dropped(line, "there is no value");
        }
        with
    }

    /// The line with this key and a value that counts: the last one.
    pub(super) fn last(&mut self, key: &str) -> Option<Line<'a>> {
        let lines = self.all(key);
        self.last_of(lines)
    }

    /// The line with this key that counts, with a value or without.
    pub(super) fn optional(&mut self, key: &str) -> Option<Line<'a>> {
        let lines = self.of(key).collect();
        self.last_of(lines)
    }

    /// The line that switches this on, if it is on.
    pub(super) fn flag(&mut self, key: &str) -> Option<Line<'a>> {
        let line = self.optional(key)?;
        self.is_on(line).then_some(line)
    }

    fn last_of(&mut self, mut lines: Vec<Line<'a>>) -> Option<Line<'a>> {
        let last = lines.pop()?;
        for line in lines {
            self.dropped(
                line,
                format!(
                    "line {} says it again, and the last one counts",
                    last.number
                ),
            );
        }
        Some(last)
    }

    /// Whether a flag is on; if not, that is all there is to say about it.
    fn is_on(&mut self, line: Line<'a>) -> bool {
        match line.switch() {
            Some(true) => return true,
            Some(false) => self.mapped(line, "it is off, as without this line"),
            None => self.dropped(
                line,
                "this is neither on nor off; coturn does not start with it",
            ),
        };
        false
    }

    /// Is there a line with this key that switches something on? Nothing is noted about it.
    pub(super) fn says(&self, key: &str) -> bool {
        let last = self.of(key).next_back();
        last.is_some_and(|line| is_presence(key) || line.switch() == Some(true))
    }

    /// Is there any line with this key?
    pub(super) fn names(&self, key: &str) -> bool {
        self.of(key).next().is_some()
    }

    fn of(&self, key: &str) -> impl DoubleEndedIterator<Item = Line<'a>> + use<'a, '_> {
        let key = keys::find(key).map(|key| key.name);
        self.lines
            .iter()
            .copied()
            .filter(move |line| Some(line.key) == key)
    }

    /// A number; without one the line is dropped.
    pub(super) fn number(&mut self, line: Line<'a>) -> Option<u64> {
        let number = line.leading_number();
        if number.is_none() {
            self.dropped(line, "this is not a number");
        }
        number
    }

    /// A port; without one the line is dropped.
    pub(super) fn port(&mut self, line: Line<'a>) -> Option<u16> {
        let port = line
            .leading_number()
            .and_then(|port| u16::try_from(port).ok());
        let port = port.filter(|port| *port != 0);
        if port.is_none() {
            self.dropped(line, "this is not a port");
        }
        port
    }

    pub(super) fn mapped(&mut self, line: Line<'a>, told: impl Into<String>) {
        self.tell(Class::Mapped, line, told);
    }

    pub(super) fn changed(&mut self, line: Line<'a>, told: impl Into<String>) {
        self.tell(Class::Changed, line, told);
    }

    pub(super) fn dropped(&mut self, line: Line<'a>, told: impl Into<String>) {
        self.tell(Class::Dropped, line, told);
    }

    /// Tells of something that coturn does without being told to.
    pub(super) fn unsaid(&mut self, said: &str, told: impl Into<String>) {
        self.push(Class::Changed, None, said.to_owned(), told.into());
    }

    /// Marks what was told last: somebody has to decide about it before the server goes into service.
    pub(super) fn weakens(&mut self) {
        if let Some(entry) = self.report.entries.last_mut() {
            entry.weakens = true;
        }
    }

    fn tell(&mut self, class: Class, line: Line<'a>, told: impl Into<String>) {
        self.push(class, Some(line.number), said(line), told.into());
    }

    fn push(&mut self, class: Class, line: Option<usize>, said: String, told: String) {
        self.report.entries.push(Entry {
            line,
            said,
            class,
            told: safe(&told),
            weakens: false,
        });
    }

    /// Where a line stands and what it says, for a comment.
    pub(super) fn origin(&self, line: Line<'a>) -> String {
        format!(
            "{}:{}: {}",
            shown(&self.around.name),
            line.number,
            said(line)
        )
    }

    pub(super) fn origins(&self, lines: &[Line<'a>]) -> Vec<String> {
        lines.iter().map(|line| self.origin(*line)).collect()
    }

    /// Keeps a secret for a file of its own; the file's path as TOML, or nothing if it is no secret that can be kept.
    pub(super) fn secret(
        &mut self,
        line: Line<'a>,
        name: &str,
        value: &str,
        is_named: bool,
    ) -> Option<String> {
        if line.is_broken() || value.trim_ascii() != value || value.is_empty() {
            self.dropped(
                line,
                "it is not text, or begins or ends with a space: turnd cannot read it from a file",
            );
            return None;
        }
        let file = self.around.secrets.join(name);
        self.secrets.push(Secret {
            line: line.number,
            file: file.clone(),
            value: Zeroizing::new(value.to_owned()),
            is_named,
        });
        Some(super::toml::quoted(&file.to_string_lossy()))
    }

    /// The path of a file where secrets lie.
    pub(super) fn beside_secrets(&self, name: &str) -> PathBuf {
        self.around.secrets.join(name)
    }

    /// What no room takes care of.
    pub(super) fn others(&mut self) {
        for line in self.lines.clone() {
            match keys::find(line.key) {
                Some(key) => self.fate(key, line),
                None => self.stranger(line),
            }
        }
    }

    fn fate(&mut self, key: &Key, line: Line<'a>) {
        if key.fate == Fate::Room || (key.kind == Kind::Flag && !self.is_on(line)) {
            return;
        }
        match key.fate {
            Fate::Room => {}
            Fate::Always(told) => self.mapped(line, told),
            Fate::Gone(told) => self.dropped(line, told),
            Fate::Lost(told) => {
                self.dropped(line, told);
                self.weakens();
            }
        }
    }

    fn stranger(&mut self, line: Line<'a>) {
        let told = match nearest_of(line) {
            Some(meant) => {
                format!("coturn has no such key, and passes it over; {meant} may be meant")
            }
            None => "coturn has no such key, and passes it over".to_owned(),
        };
        self.dropped(line, told);
    }

    pub(super) fn end(mut self) -> Imported {
        self.report.sort();
        let left: Vec<String> = self
            .report
            .entries
            .iter()
            .filter(|entry| entry.class == Class::Dropped)
            .map(|entry| {
                let line = entry
                    .line
                    .map_or_else(String::new, |line| format!("{line}: "));
                format!("{line}{}\n#     {}", entry.said, entry.told)
            })
            .collect();
        if !left.is_empty() {
            self.toml
                .remark(&[vec!["Not taken over:".to_owned()], left].concat());
        }
        Imported {
            toml: self.toml.end(),
            report: self.report,
            secrets: self.secrets,
        }
    }
}

fn is_presence(key: &str) -> bool {
    keys::find(key).is_some_and(|key| key.kind == Kind::Presence)
}

/// What a line says, without what may be secret: the values of unknown keys may be, too.
fn said(line: Line<'_>) -> String {
    let Some(key) = keys::find(line.key) else {
        return stranger_said(line);
    };
    match (key.kind, line.value) {
        (_, "") => key.name.to_owned(),
        (Kind::Secret, _) => format!("{}=...", key.name),
        (_, value) => format!("{}={}", key.name, shown(value)),
    }
}

/// The key of a line that coturn does not know. What is on a line of its own, or before something that separates
/// nothing, may be a secret that has gone astray, unless it looks like a key.
fn stranger_said(line: Line<'_>) -> String {
    let name = name_of(line);
    let is_whole = name.len() == line.key.len();
    let has_value = !line.value.is_empty();
    match nearest_of(line) {
        _ if name.is_empty() => "a line without a key".to_owned(),
        _ if is_whole && has_value => format!("{name}=..."),
        Some(_) if is_whole => name.to_owned(),
        Some(_) => format!("{name}..."),
        None => "a line without a key".to_owned(),
    }
}

/// The key of coturn that may be meant.
fn nearest_of(line: Line<'_>) -> Option<&'static str> {
    let name = name_of(line);
    (!name.is_empty()).then(|| config::nearest(name, keys::names()))?
}

/// As much of a key as looks like one.
fn name_of(line: Line<'_>) -> &str {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    let end = line
        .key
        .find(|letter| !is_name(letter))
        .unwrap_or(line.key.len());
    if end > LONGEST_NAME {
        ""
    } else {
        &line.key[..end]
    }
}

/// Keys of coturn have 34 letters at most.
const LONGEST_NAME: usize = 40;
