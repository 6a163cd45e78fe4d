//! The text of a configuration, written table by table.

use std::fmt::Write as _;

use crate::config;

/// A configuration in the making.
#[derive(Debug, Default)]
pub(super) struct Toml {
    /// What stands before all tables.
    head: String,
    text: String,
    /// The table that is being written.
    table: &'static str,
}

impl Toml {
    pub(super) fn new(head: &str) -> Self {
        Self {
            head: head.to_owned(),
            ..Self::default()
        }
    }

    /// Writes a key of no table.
    pub(super) fn root(&mut self, comment: &str, key: &str, value: &str) {
        let _ = writeln!(self.head, "\n# {comment}\n{key} = {value}");
    }

    /// Begins one of several tables of a name.
    pub(super) fn another(&mut self, name: &'static str, comments: &[String]) {
        self.table = name;
        self.text.push('\n');
        self.comment(comments, "");
        let _ = writeln!(self.text, "[[{name}]]");
    }

    /// Writes a key and a value that is TOML already.
    pub(super) fn assign(
        &mut self,
        table: &'static str,
        comments: &[String],
        key: &str,
        value: &str,
    ) {
        self.open(table);
        self.comment(comments, "");
        let _ = writeln!(self.text, "{key} = {value}");
    }

    /// Writes a list, a line for each item with the comments before it.
    pub(super) fn list(
        &mut self,
        table: &'static str,
        key: &str,
        items: &[(Vec<String>, Vec<String>)],
    ) {
        self.open(table);
        let _ = writeln!(self.text, "{key} = [");
        for (comments, values) in items {
            self.comment(comments, "    ");
            for value in values {
                let _ = writeln!(self.text, "    {value},");
            }
        }
        self.text.push_str("]\n");
    }

    /// Writes lines that are comments and nothing else.
    pub(super) fn remark(&mut self, comments: &[String]) {
        self.text.push('\n');
        self.comment(comments, "");
    }

    pub(super) fn end(self) -> String {
        self.head + &self.text
    }

    fn open(&mut self, table: &'static str) {
        if self.table != table {
            self.table = table;
            let _ = writeln!(self.text, "\n[{table}]");
        }
    }

    fn comment(&mut self, comments: &[String], margin: &str) {
        for comment in comments {
            let _ = writeln!(self.text, "{margin}# {comment}");
        }
    }
}

/// A TOML string.
pub(super) fn quoted(text: &str) -> String {
    config::toml_text(text)
}

/// A TOML list of strings, on one line.
pub(super) fn quoted_list<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}
