//! Takes values out of a table by name, and holds what is left over against the operator.
//!
//! The code that asks for a key *is* the schema: what nobody asked for is an unknown key, and the names that were
//! asked for are the ones that are offered instead of it.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::LazyLock;

use super::SecretFile;
use super::document::{Entry, Node, Table, Value};
use super::problem::{Complaint, Report, nearest};

/// One table of the configuration, while it is read.
pub(super) struct Section<'a> {
    /// `relay`, or `listen[0]`, or nothing for the file as a whole.
    path: String,
    table: &'a Table,
    asked: Vec<&'static str>,
    notes: &'a Notes,
}

/// What reading the sections brings to light.
pub(super) struct Notes {
    pub(super) report: RefCell<Report>,
    /// Every key that was asked for, by the names of its tables: `relay.ports`, `listen.address`.
    pub(super) schema: RefCell<Vec<String>>,
}

static EMPTY: Table = Table {
    entries: Vec::new(),
};

impl<'a> Section<'a> {
    /// The file as a whole.
    pub(super) fn root(table: &'a Table, notes: &'a Notes) -> Self {
        Self {
            path: String::new(),
            table,
            asked: Vec::new(),
            notes,
        }
    }

    /// The full name of a key of this section; of the section itself for an empty one.
    pub(super) fn name(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }

    /// Notes an error at a key of this section.
    pub(super) fn error(&self, key: &str, complaint: Complaint) {
        self.notes
            .report
            .borrow_mut()
            .error(&self.name(key), complaint);
    }

    /// Is the key there, right or wrong?
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    /// Is the key there, with just this text?
    pub(super) fn says(&self, key: &str, word: &str) -> bool {
        let entry = self.table.get(key);
        entry.is_some_and(|entry| matches!(&entry.node.value, Value::Text(text) if text == word))
    }

    /// Is the key there, with a list that has nothing in it?
    pub(super) fn is_empty_list(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(
            |entry| matches!(&entry.node.value, Value::List(items) if items.is_empty()),
        )
    }

    fn take(&mut self, key: &'static str) -> Option<&'a Entry> {
        self.asked.push(key);
        let entry = self.table.get(key)?;
        self.notes
            .report
            .borrow_mut()
            .remember(&self.name(key), &entry.node.place);
        Some(entry)
    }

    fn declare(&self, key: &str) {
        let plain = self
            .name(key)
            .split('.')
            .map(|part| part.split('[').next().unwrap_or(part))
            .collect::<Vec<_>>()
            .join(".");
        let mut schema = self.notes.schema.borrow_mut();
        if !schema.contains(&plain) {
            schema.push(plain);
        }
    }

    /// A value, as `parse` understands it; nothing if it is absent, or wrong (which is then in the report).
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Node) -> Result<T, Complaint>,
    ) -> Option<T> {
        self.declare(key);
        let entry = self.take(key)?;
        match parse(&entry.node) {
            Ok(value) => Some(value),
            Err(complaint) => {
                self.error(key, complaint);
                None
            }
        }
    }

    /// A text that `parse` understands.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Complaint>,
    ) -> Option<T> {
        self.value(key, |node| match (&node.value, &node.bare) {
            // What is wrong with the number says more than that it lacks quotes.
            (Value::Integer(number), None) => {
                parse(&number.to_string())?;
                Err(wrong_kind(node, "a text", "put the value in double quotes"))
            }
            _ => parse(text(node)?),
        })
    }

    /// A path, seen from the directory of the file that names it.
    pub(super) fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let directory = self.directory(key);
        self.parsed(key, |text| match text {
            "" => Err(Complaint::new(
                "this names no file",
                "write the path of a file",
            )),
            text => Ok(directory.join(text)),
        })
    }

    /// `credential:NAME`, or a path as [`Section::path`] reads it.
    pub(super) fn secret_file(&mut self, key: &'static str) -> Option<SecretFile> {
        let directory = self.directory(key);
        self.parsed(key, |text| match text.strip_prefix("credential:") {
            Some(name) if name.is_empty() || name.contains('/') => {
                let remedy = "write \"credential:NAME\" with the NAME of a LoadCredential= line";
                Err(Complaint::new("this names no credential", remedy))
            }
            Some(name) => Ok(SecretFile::Credential(name.to_owned())),
            None if text.is_empty() => Err(Complaint::new(
                "this names no file",
                "write the path of a file that holds the secret",
            )),
            None => Ok(SecretFile::Path(directory.join(text))),
        })
    }

    fn directory(&self, key: &str) -> PathBuf {
        let report = self.notes.report.borrow();
        let origin = self
            .table
            .get(key)
            .and_then(|entry| report.origin(&entry.node.place));
        origin
            .map(|origin| origin.directory.clone())
            .unwrap_or_default()
    }

    /// True or false.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.value(key, |node| match node.value {
            Value::Boolean(flag) => Ok(flag),
            Value::Text(_)
            | Value::Integer(_)
            | Value::List(_)
            | Value::Table(_)
            | Value::Other(_) => Err(wrong_kind(
                node,
                "true or false",
                "write true or false, without quotes",
            )),
        })
    }

    /// A whole number within bounds.
    pub(super) fn number(&mut self, key: &'static str, least: u32, most: u32) -> Option<u32> {
        self.value(key, |node| whole_number(node, least, most))
    }

    /// A list of texts that `parse` understands. Every item that is wrong is reported.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, Complaint>,
    ) -> Option<Vec<T>> {
        self.declare(key);
        let entry = self.take(key)?;
        let items = match &entry.node {
            Node {
                value: Value::List(items),
                ..
            } => items
                .iter()
                .map(|item| (item.place.clone(), text(item).and_then(&parse)))
                .collect(),
            Node {
                bare: Some(bare),
                place,
                ..
            } if !matches!(entry.node.value, Value::Table(_)) => {
                let parts = bare
                    .split(',')
                    .map(str::trim)
                    .filter(|part| !part.is_empty());
                parts.map(|part| (place.clone(), parse(part))).collect()
            }
            node => vec![(
                node.place.clone(),
                Err(wrong_kind(
                    node,
                    "a list",
                    "write the items in brackets: [\"…\", \"…\"]",
                )),
            )],
        };
        let name = self.name(key);
        let mut good = Vec::new();
        for (place, item) in items {
            match item {
                Ok(item) => good.push(item),
                Err(complaint) => self
                    .notes
                    .report
                    .borrow_mut()
                    .error_at(&name, place, complaint),
            }
        }
        Some(good)
    }

    /// A table of its own, read by `read`; an absent one reads as empty.
    pub(super) fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let entry = self.take(key);
        let table = match entry.map(|entry| &entry.node) {
            None => &EMPTY,
            Some(Node {
                value: Value::Table(table),
                ..
            }) => table,
            Some(node) => {
                let remedy = format!(
                    "begin the table with [{}] on a line of its own",
                    self.name(key)
                );
                self.error(key, wrong_kind(node, "a table", &remedy));
                &EMPTY
            }
        };
        self.enter(self.name(key), table, read)
    }

    /// A list of tables, each read by `read`; nothing if the list is absent.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section<'_>) -> T,
    ) -> Option<Vec<T>> {
        let name = self.name(key);
        let Some(entry) = self.take(key) else {
            // Asked all the same, for the names of the keys.
            let silent = Notes {
                report: RefCell::default(),
                schema: RefCell::default(),
            };
            read(&mut Section {
                path: name,
                table: &EMPTY,
                asked: Vec::new(),
                notes: &silent,
            });
            for key in silent.schema.into_inner() {
                Section {
                    path: String::new(),
                    table: &EMPTY,
                    asked: Vec::new(),
                    notes: self.notes,
                }
                .declare(&key);
            }
            return None;
        };
        let Value::List(items) = &entry.node.value else {
            let remedy = format!(
                "begin each of them with [[{name}]] on a line of its own, or write {key} = [{{ … }}, {{ … }}]"
            );
            self.error(key, wrong_kind(&entry.node, "a list of tables", &remedy));
            return Some(Vec::new());
        };
        let mut all = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("{name}[{index}]");
            self.notes.report.borrow_mut().remember(&path, &item.place);
            if let Value::Table(table) = &item.value {
                all.push(self.enter(path, table, &mut read));
            } else {
                let complaint = wrong_kind(item, "a table", "write { key = \"…\", … }");
                self.notes
                    .report
                    .borrow_mut()
                    .error_at(&path, item.place.clone(), complaint);
            }
        }
        Some(all)
    }

    fn enter<T>(&self, path: String, table: &Table, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let mut section = Section {
            path,
            table,
            asked: Vec::new(),
            notes: self.notes,
        };
        let value = read(&mut section);
        section.finish();
        value
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        let unknown = self
            .table
            .entries
            .iter()
            .filter(|entry| !self.asked.contains(&entry.key.as_str()));
        for entry in unknown {
            let place = match self.path.split_once('[') {
                None if self.path.is_empty() => "outside of all tables".to_owned(),
                None => format!("in [{}]", self.path),
                Some((list, _)) => format!("in [[{list}]]"),
            };
            let kind = if matches!(entry.node.value, Value::Table(_)) && self.path.is_empty() {
                "table"
            } else {
                "key"
            };
            let complaint = Complaint::new(
                format!("unknown {kind} `{}` {place}", entry.key),
                self.remedy(&entry.key),
            );
            self.notes.report.borrow_mut().error_at(
                &self.name(&entry.key),
                entry.place.clone(),
                complaint,
            );
        }
    }

    fn remedy(&self, key: &str) -> String {
        static KEYS: LazyLock<Vec<String>> = LazyLock::new(super::keys);
        let keys = &*KEYS;
        let mut homes = keys.iter().filter_map(|path| path.rsplit_once('.'));
        if let Some((table, _)) = homes.find(|(_, name)| *name == key) {
            return format!("`{key}` belongs into [{table}]");
        }
        if let Some(meant) = nearest(key, self.asked.iter().copied()) {
            return format!("did you mean `{meant}`?");
        }
        let mut known = self.asked.clone();
        known.sort_unstable();
        format!(
            "take it out; the keys that may stand here are: {}",
            known.join(", ")
        )
    }
}

/// The text of a node; what came without quotes by `--set` counts as text whatever it looks like.
pub(super) fn text(node: &Node) -> Result<&str, Complaint> {
    match (&node.value, &node.bare) {
        (Value::Text(text), _) => Ok(text),
        (_, Some(bare)) => Ok(bare),
        (_, None) => Err(wrong_kind(node, "a text", "put the value in double quotes")),
    }
}

/// A whole number within bounds.
pub(super) fn whole_number(node: &Node, least: u32, most: u32) -> Result<u32, Complaint> {
    let bounds = if most == u32::MAX {
        format!("a whole number of at least {least}")
    } else {
        format!("a whole number from {least} to {most}")
    };
    let Value::Integer(number) = node.value else {
        return Err(wrong_kind(
            node,
            &bounds,
            "write the number without quotes, as in 16",
        ));
    };
    u32::try_from(number)
        .ok()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| {
            Complaint::new(
                format!("{number} is out of bounds"),
                format!("write {bounds}"),
            )
        })
}

fn wrong_kind(node: &Node, wanted: &str, remedy: &str) -> Complaint {
    Complaint::new(
        format!("this must be {wanted}, but it is {}", node.value.kind()),
        remedy,
    )
}
