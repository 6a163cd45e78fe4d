//! The configuration as text: a TOML file, the environment and `--set`, laid over each other in this order.
//!
//! Every value keeps its place, so that whatever is found wrong with it later can be shown where it stands.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Complaint, Report};

/// What the names of environment variables that set a key begin with: `TURND__RELAY__PORTS` is `relay.ports`.
pub const ENVIRONMENT_PREFIX: &str = "TURND__";

/// The configuration of a thousand tenants is shorter.
const LONGEST_FILE: u64 = 8 << 20;

/// More than any line has outside of its texts.
const MOST_DOTS: usize = 64;

/// Where a configuration is read from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file; without one, the defaults.
    pub file: Option<PathBuf>,
    /// Variables of the environment; those that do not begin with the prefix are passed over.
    pub environment: Vec<(String, String)>,
    /// What `--set path=value` gave.
    pub overrides: Vec<String>,
}

/// One text that values come from.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// The file's path, or how else the text came in.
    pub(super) name: String,
    pub(super) text: String,
    /// Relative paths begin here.
    pub(super) directory: PathBuf,
    pub(super) is_file: bool,
}

/// Where a key or a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) origin: usize,
    pub(super) span: Range<usize>,
    /// May the text be shown?
    pub(super) shown: bool,
}

impl Place {
    /// A text as a whole.
    pub(super) const fn whole(origin: usize) -> Self {
        Self {
            origin,
            span: 0..0,
            shown: false,
        }
    }
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Place,
    /// The bare text of a value that came by `--set` or the environment, where quotes may be left out.
    pub(super) bare: Option<String>,
}

/// A TOML value; integers that do not fit, floats and dates are of no use here and stay unread.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Node>),
    Table(Table),
    Other(&'static str),
}

impl Value {
    /// What kind of value it is, in words.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "a number",
            Self::Boolean(_) => "a true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

/// A table; its entries in no particular order.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) entries: Vec<Entry>,
}

/// One `key = value`.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) node: Node,
}

impl Table {
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Puts a value in, in the place of any older one; makes the tables on the way.
    fn put(&mut self, path: &[&str], place: &Place, node: Node) {
        let Some((key, rest)) = path.split_first() else {
            return;
        };
        let index = self
            .entries
            .iter()
            .position(|entry| entry.key == *key)
            .unwrap_or_else(|| {
                let empty = Node {
                    value: Value::Table(Self::default()),
                    place: place.clone(),
                    bare: None,
                };
                self.entries.push(Entry {
                    key: (*key).to_owned(),
                    place: place.clone(),
                    node: empty,
                });
                self.entries.len() - 1
            });
        let entry = &mut self.entries[index];
        if rest.is_empty() {
            entry.place = place.clone();
            entry.node = node;
        } else if let Value::Table(table) = &mut entry.node.value {
            table.put(rest, place, node);
        } else {
            // `a.b` where `a` is no table: the path as a whole is what is wrong, and unknown keys are reported.
            entry.node.value = Value::Other("a value with keys inside");
        }
    }
}

/// Reads all sources and lays them over each other. What cannot be read is in the report.
pub(super) fn read(sources: &Sources) -> (Table, Report) {
    let mut origins = Vec::new();
    let mut failures = Vec::new();
    let mut table = Table::default();
    if let Some(path) = &sources.file {
        match read_file(path) {
            Ok(text) => {
                origins.push(Origin::file(path, text));
                table = parse_file(&origins[0].text, &mut failures);
            }
            Err(error) => {
                origins.push(Origin::file(path, String::new()));
                let what = format!("the file cannot be read: {error}");
                let complaint = Complaint::new(what, remedy(&error, path));
                failures.push((Place::whole(0), complaint));
            }
        }
    }
    let environment = sources.environment.iter().filter_map(|(name, value)| {
        let path = name
            .strip_prefix(ENVIRONMENT_PREFIX)?
            .to_lowercase()
            .replace("__", ".");
        Some((format!("environment variable {name}"), path, value.clone()))
    });
    let overrides = sources.overrides.iter().map(|text| {
        let (path, value) = text.split_once('=').unwrap_or((text, ""));
        (
            format!("--set {path}"),
            path.trim().to_owned(),
            value.trim().to_owned(),
        )
    });
    for (name, path, value) in environment.chain(overrides) {
        let origin = origins.len();
        let node = bare_value(&value, origin);
        origins.push(Origin {
            name,
            text: value,
            directory: PathBuf::new(),
            is_file: false,
        });
        let path: Vec<&str> = path.split('.').collect();
        if path.len() > MOST_DOTS {
            failures.push((Place::whole(origin), nested_too_deep()));
            continue;
        }
        table.put(&path, &Place::whole(origin), node);
    }
    let mut report = Report::new(origins);
    for (place, complaint) in failures {
        report.error_at("", place, complaint);
    }
    if let Some(file) = sources.file.as_ref().filter(|file| is_open_to_all(file)) {
        let what = "anybody on this host can change this file, and with it everything that the server does";
        let remedy = format!("chmod o-w {}", file.display());
        report.file_warning(Complaint::new(what, remedy));
    }
    (table, report)
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let mut file = File::open(path)?.take(LONGEST_FILE + 1);
    file.read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST_FILE {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(text)
}

fn is_open_to_all(path: &Path) -> bool {
    const WRITABLE_BY_OTHERS: u32 = 0o002;
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.mode() & WRITABLE_BY_OTHERS != 0)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the standard library's kinds are open"
)]
fn remedy(error: &io::Error, path: &Path) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("let the user that runs turnd read it: chown USER {}", path.display())
        }
        io::ErrorKind::InvalidData => "save it as UTF-8".to_owned(),
        io::ErrorKind::FileTooLarge => format!("write no more than {} MiB", LONGEST_FILE >> 20),
        _ => "give the path of an existing file after --config, or leave --config out to start with the defaults".to_owned(),
    }
}

impl Origin {
    /// A file that is not looked into.
    pub(super) fn unread(sources: &Sources) -> Self {
        Self::file(
            sources.file.as_deref().unwrap_or_else(|| Path::new("")),
            String::new(),
        )
    }

    fn file(path: &Path, text: String) -> Self {
        let directory = path.parent().map(Path::to_owned).unwrap_or_default();
        Self {
            name: path.display().to_string(),
            text,
            directory,
            is_file: true,
        }
    }
}

fn parse_file(text: &str, failures: &mut Vec<(Place, Complaint)>) -> Table {
    if let Some(start) = too_deep(text) {
        let place = Place {
            span: start..start,
            ..Place::whole(0)
        };
        failures.push((place, nested_too_deep()));
        return Table::default();
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    let broken = !errors.is_empty();
    let mut lines = BTreeSet::new();
    for error in errors {
        // Behind the first mistake of a line, the parser only guesses.
        let start = error.span().map_or(0, |span| span.start);
        if !lines.insert(text[..start.min(text.len())].matches('\n').count()) {
            continue;
        }
        let place = Place {
            origin: 0,
            span: error.span().unwrap_or(0..0),
            shown: false,
        };
        let remedy = "see https://toml.io for the format; `turnd show-config --defaults` prints a complete example";
        failures.push((
            place,
            Complaint::new(format!("this is not TOML: {}", error.message()), remedy),
        ));
    }
    // Nothing is said about the keys of a text that may have been misread.
    if broken {
        Table::default()
    } else {
        convert_table(table.into_inner(), 0)
    }
}

/// Where a line has more dots between its words than any key. Tables within tables are walked by recursion, here and in
/// the parser: as deep as the stack, they would end the process.
fn too_deep(text: &str) -> Option<usize> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let (mut dots, mut quote) = (0, None);
        for letter in line.chars() {
            match (quote, letter) {
                (None, '#') => break,
                (None, '"' | '\'') => quote = Some(letter),
                (None, '.') => dots += 1,
                (Some(end), letter) if letter == end => quote = None,
                _ => {}
            }
        }
        if dots > MOST_DOTS {
            return Some(start);
        }
        start += line.len();
    }
    None
}

fn nested_too_deep() -> Complaint {
    Complaint::new(
        "there are more dots in this than in any key",
        "write keys as in relay.ports = \"49152-65535\"",
    )
}

fn bare_value(text: &str, origin: usize) -> Node {
    let parsed = match too_deep(text) {
        None => DeValue::parse(text).ok(),
        Some(_) => None,
    };
    let mut node = match parsed {
        Some(value) => convert(value, origin),
        None => Node {
            value: Value::Text(text.to_owned()),
            place: Place::whole(origin),
            bare: None,
        },
    };
    node.bare = Some(text.to_owned());
    node
}

fn convert_table(table: DeTable<'_>, origin: usize) -> Table {
    let entries = table.into_iter().map(|(key, value)| {
        let place = Place {
            origin,
            span: key.span(),
            shown: true,
        };
        Entry {
            key: key.into_inner().into_owned(),
            place,
            node: convert(value, origin),
        }
    });
    Table {
        entries: entries.collect(),
    }
}

fn convert(value: Spanned<DeValue<'_>>, origin: usize) -> Node {
    let place = Place {
        origin,
        span: value.span(),
        shown: true,
    };
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Other("a number beyond all bounds"),
        },
        DeValue::Boolean(flag) => Value::Boolean(flag),
        DeValue::Array(items) => Value::List(
            items
                .into_iter()
                .map(|item| convert(item, origin))
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(convert_table(table, origin)),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
    };
    Node {
        value,
        place,
        bare: None,
    }
}
