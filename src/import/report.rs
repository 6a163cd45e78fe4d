//! What became of each line, told to people.

use std::fmt;
use std::fmt::Write as _;

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// It means the same.
    Mapped,
    /// Something else holds, which is near to it.
    Changed,
    /// Nothing of it is left.
    Dropped,
}

/// One line, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The line's number; nothing for what the file does not say, but coturn does.
    pub line: Option<usize>,
    /// The line, without what may be secret.
    pub said: String,
    /// What became of it.
    pub class: Class,
    /// The key that stands for it, or why none does.
    pub told: String,
    /// Is the server more open than it was, or was it open already?
    pub weakens: bool,
}

/// What became of all of them.
#[derive(Clone, Debug)]
pub struct Report {
    name: String,
    /// In the order of their lines; what is not said comes last.
    pub entries: Vec<Entry>,
}

impl Report {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            entries: Vec::new(),
        }
    }

    /// Is there anything that security depends on, and that could not be taken over as it is?
    pub fn weakens(&self) -> bool {
        self.entries.iter().any(|entry| entry.weakens)
    }

    pub(super) fn sort(&mut self) {
        self.entries
            .sort_by_key(|entry| entry.line.unwrap_or(usize::MAX));
    }

    fn of(&self, class: Class) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(move |entry| entry.class == class)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [mapped, changed, dropped] = CLASSES.map(|(class, _)| self.of(class).count());
        writeln!(
            f,
            "{}: {mapped} mapped, {changed} with a changed meaning, {dropped} dropped",
            self.name
        )?;
        for (class, title) in CLASSES {
            if self.of(class).next().is_some() {
                writeln!(f, "\n{title}")?;
            }
            for entry in self.of(class) {
                let mark = if entry.weakens { '!' } else { ' ' };
                let line = entry
                    .line
                    .map_or_else(|| "-".to_owned(), |line| line.to_string());
                writeln!(f, "{mark}{line:>5}  {} -> {}", entry.said, entry.told)?;
            }
        }
        if self.weakens() {
            writeln!(
                f,
                "\n! security depends on these lines: decide about each of them before turnd takes over"
            )?;
        }
        Ok(())
    }
}

const CLASSES: [(Class, &str); 3] = [
    (Class::Mapped, "mapped"),
    (Class::Changed, "changed meaning"),
    (Class::Dropped, "dropped"),
];

/// How much of a value is shown.
const LONGEST: usize = 100;

/// A text from the file, fit for a terminal, a log and a comment: on one line, without control characters, not long.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => safe(&text[..end]) + "…",
        None => safe(text),
    }
}

/// The same, however long it is.
pub(super) fn safe(text: &str) -> String {
    let mut safe = String::new();
    for letter in text.chars() {
        if letter.is_control() || is_invisible(letter) {
            let _ = write!(safe, "\\u{{{:x}}}", u32::from(letter));
        } else {
            safe.push(letter);
        }
    }
    safe
}

/// Characters that change how what is around them looks.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}
