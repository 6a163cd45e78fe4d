//! What is wrong with a configuration, told so that it can be put right: where, what, and the remedy.
//!
//! Problems are gathered, not thrown: the operator sees all of them at once. A value under `[auth]` is never
//! quoted, so that a secret written into the wrong place does not reach a terminal or a log.

use std::collections::BTreeMap;
use std::fmt;

use super::document::{Origin, Place};

/// How grave a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but probably does not do what is wanted.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Problem {
    /// How grave it is.
    pub severity: Severity,
    /// The key, as `relay.ports`; empty for the file as a whole.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
    place: Option<Location>,
}

/// A place in a text, worked out for people: line and column count from one.
#[derive(Clone, Debug)]
struct Location {
    origin: String,
    line: usize,
    column: usize,
    /// The line (or as much of it as may be shown) and how far the marks go.
    excerpt: Option<(String, usize)>,
}

/// So many of a kind are told: a file of another kind may have one in each of its lines.
const MOST_PROBLEMS: usize = 200;

/// A complaint about one value, before it is known where the value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl Complaint {
    /// A complaint with its remedy.
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// All that was found, and where every key that was read stands.
#[derive(Clone, Debug, Default)]
pub struct Report {
    problems: Vec<(Option<Place>, Problem)>,
    /// How many more there are than are told.
    more: usize,
    origins: Vec<Origin>,
    places: BTreeMap<String, Place>,
}

impl Report {
    pub(super) fn new(origins: Vec<Origin>) -> Self {
        Self {
            origins,
            ..Self::default()
        }
    }

    /// Remembers where a key stands, for checks that come later.
    pub(super) fn remember(&mut self, key: &str, place: &Place) {
        self.places.insert(key.to_owned(), place.clone());
    }

    /// Is the key given at all, in a file or otherwise?
    pub fn is_given(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    /// Is any key given in a file?
    pub(super) fn is_from_file(&self) -> bool {
        let mut places = self.places.values();
        places.any(|place| self.origin(place).is_some_and(|origin| origin.is_file))
    }

    /// The text that a place is in.
    pub(super) fn origin(&self, place: &Place) -> Option<&Origin> {
        self.origins.get(place.origin)
    }

    /// Notes an error at the value of a key.
    pub fn error(&mut self, key: &str, complaint: Complaint) {
        let place = self.places.get(key).cloned();
        self.push(Severity::Error, key, place, complaint);
    }

    /// Notes an error of the configuration file as a whole.
    pub(super) fn file_error(&mut self, complaint: Complaint) {
        self.push(Severity::Error, "", Some(Place::whole(0)), complaint);
    }

    /// Notes a warning about the configuration file as a whole.
    pub(super) fn file_warning(&mut self, complaint: Complaint) {
        self.push(Severity::Warning, "", Some(Place::whole(0)), complaint);
    }

    /// Notes a warning at the value of a key.
    pub fn warning(&mut self, key: &str, complaint: Complaint) {
        let place = self.places.get(key).cloned();
        self.push(Severity::Warning, key, place, complaint);
    }

    /// Notes an error at a place that is no value: a key, or broken syntax.
    pub(super) fn error_at(&mut self, key: &str, place: Place, complaint: Complaint) {
        self.push(Severity::Error, key, Some(place), complaint);
    }

    fn push(&mut self, severity: Severity, key: &str, place: Option<Place>, complaint: Complaint) {
        let known = |(_, problem): &&(_, Problem)| problem.severity == severity;
        if self.problems.iter().filter(known).count() >= MOST_PROBLEMS {
            self.more += 1;
            return;
        }
        let Complaint { what, remedy } = complaint;
        let location = place.as_ref().and_then(|place| {
            let origin = self.origins.get(place.origin)?;
            Some(locate(origin, place, is_secretive(key)))
        });
        let problem = Problem {
            severity,
            key: key.to_owned(),
            what,
            remedy,
            place: location,
        };
        self.problems.push((place, problem));
        // In the order of the file, whatever the order of the checks.
        self.problems
            .sort_by_key(|(place, _)| place.as_ref().map(|place| (place.origin, place.span.start)));
    }

    /// Is there anything that forbids to use the configuration?
    pub fn has_errors(&self) -> bool {
        self.errors().next().is_some()
    }

    /// What forbids to use the configuration.
    pub fn errors(&self) -> impl Iterator<Item = &Problem> {
        self.problems()
            .filter(|problem| problem.severity == Severity::Error)
    }

    /// What ought to be looked at.
    pub fn warnings(&self) -> impl Iterator<Item = &Problem> {
        self.problems()
            .filter(|problem| problem.severity == Severity::Warning)
    }

    /// Everything, in the order of the file.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().map(|(_, problem)| problem)
    }
}

/// Where secrets may have been written by mistake: names are shown, and no values.
fn is_secretive(key: &str) -> bool {
    const TABLES: [&str; 8] = [
        "admin.token",
        "auth",
        "events.otlp",
        "events.webhook",
        "tenants",
        "tls",
        "token.api_keys",
        "token.issuers",
    ];
    TABLES.iter().any(|table| key.starts_with(table)) || key.ends_with(".key")
}

fn locate(origin: &Origin, place: &Place, secretive: bool) -> Location {
    let text = origin.text.as_str();
    let start = floor_char_boundary(text, place.span.start);
    let end = floor_char_boundary(text, place.span.end).max(start);
    let before = &text[..start];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line_end = text[start..]
        .find('\n')
        .map_or(text.len(), |length| start + length);
    let marked = &text[start..end.min(line_end)];
    let is_name = marked
        .chars()
        .all(|letter| letter.is_alphanumeric() || "-_".contains(letter));
    let excerpt = if origin.is_file && place.shown && (is_name || !secretive) {
        // What stands behind the mark is left out: behind an unknown key there may be a secret; and so is what stands
        // before it, if that is more than names.
        let before = &text[line_start..start];
        let is_name = |letter: char| letter.is_alphanumeric() || "-_.=[{ \t".contains(letter);
        let lead = if !secretive && before.chars().all(is_name) && before.matches('=').count() < 3 {
            before.to_owned()
        } else {
            " ".repeat(before.chars().count())
        };
        Some((
            format!("{lead}{marked}").replace('\t', " "),
            marked.chars().count().max(1),
        ))
    } else {
        None
    };
    Location {
        origin: origin.name.clone(),
        line: before.matches('\n').count() + 1,
        column: text[line_start..start].chars().count() + 1,
        excerpt,
    }
}

fn floor_char_boundary(text: &str, index: usize) -> usize {
    (0..=index.min(text.len()))
        .rev()
        .find(|index| text.is_char_boundary(*index))
        .unwrap_or(0)
}

impl Problem {
    /// Where it stands: `file:line:column`, or how else the value came in.
    pub fn place(&self) -> Option<String> {
        let place = self.place.as_ref()?;
        Some(match &place.excerpt {
            None if place.line == 1 && place.column == 1 => place.origin.clone(),
            None | Some(_) => format!("{}:{}:{}", place.origin, place.line, place.column),
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{word}: {}", self.what)?;
        let width = self
            .place
            .as_ref()
            .map_or(1, |place| place.line.to_string().len());
        if let Some(place) = self.place() {
            write!(f, "\n{:width$}--> {place}", "")?;
        }
        if let Some(Location {
            line,
            column,
            excerpt: Some((text, marks)),
            ..
        }) = &self.place
        {
            write!(
                f,
                "\n{:width$} |\n{line} | {text}\n{:width$} | {:>before$}{}",
                "",
                "",
                "",
                "^".repeat(*marks),
                before = column - 1
            )?;
        }
        write!(f, "\n{:width$} = help: {}", "", self.remedy)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            writeln!(f, "{problem}")?;
        }
        match self.more {
            0 => Ok(()),
            more => writeln!(f, "\n... and {more} more"),
        }
    }
}

/// The known word that is nearest to what was written, if any is near enough to be meant.
pub(crate) fn nearest<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let written = written.to_lowercase();
    let reach = (written.chars().count() / 2).clamp(1, 3);
    known
        .into_iter()
        .map(|word| (distance(&written, word), word))
        .filter(|(distance, word)| {
            *distance <= reach || (written.len() > 2 && word.starts_with(&written))
        })
        .min()
        .map(|(_, word)| word)
}

/// How many letters must be changed, added, taken away or swapped to make one word of the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    for i in 0..=from.len() {
        for j in 0..=to.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let same = usize::from(from[i - 1] != to[j - 1]);
                let mut least = (rows[i - 1][j] + 1)
                    .min(rows[i][j - 1] + 1)
                    .min(rows[i - 1][j - 1] + same);
                if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_understood() {
        let known = ["addresses", "external", "ports"];
        assert_eq!(nearest("port", known), Some("ports"));
        assert_eq!(nearest("prots", known), Some("ports"));
        assert_eq!(nearest("adresses", known), Some("addresses"));
        assert_eq!(nearest("Ports", known), Some("ports"));
        assert_eq!(nearest("prot", known), Some("ports"));
        assert_eq!(nearest("bandwidth", known), None);
    }

    #[test]
    fn the_distance_counts_a_swap_as_one() {
        assert_eq!(distance("prots", "ports"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
