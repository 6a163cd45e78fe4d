//! What was found: lines for a terminal, and a table in Markdown.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use crate::statement::{Statement, Trouble};

/// What is known of a statement at one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It holds; how that was shown, if not by a dialogue.
    Pass(Option<String>),
    /// It is not done, for this reason.
    Refused(String),
    /// It does not hold.
    Fail(String),
    /// There is nothing to see.
    Absent(String),
}

impl Status {
    pub(crate) fn of(seen: Result<(), Trouble>) -> Self {
        match seen {
            Ok(()) => Self::Pass(None),
            Err(Trouble::Differs(what)) => Self::Fail(what),
            Err(Trouble::Absent(what)) => Self::Absent(what),
        }
    }

    /// One status of several proofs of one statement: the worst, and all that was said to it.
    pub(crate) fn and(self, other: Self) -> Self {
        let join = |a: String, b: String| if a == b { a } else { format!("{a}; {b}") };
        match (self, other) {
            (Self::Fail(a), Self::Fail(b)) => Self::Fail(join(a, b)),
            (Self::Fail(a), _) | (_, Self::Fail(a)) => Self::Fail(a),
            (Self::Refused(a), Self::Refused(b)) => Self::Refused(join(a, b)),
            (Self::Refused(a), _) | (_, Self::Refused(a)) => Self::Refused(a),
            (Self::Pass(a), Self::Pass(b)) => Self::Pass(match (a, b) {
                (Some(a), Some(b)) => Some(join(a, b)),
                (a, b) => a.or(b),
            }),
            (Self::Pass(a), Self::Absent(_)) | (Self::Absent(_), Self::Pass(a)) => Self::Pass(a),
            (Self::Absent(a), Self::Absent(b)) => Self::Absent(join(a, b)),
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Pass(_) => "pass",
            Self::Refused(_) => "refused",
            Self::Fail(_) => "FAIL",
            Self::Absent(_) => "-",
        }
    }

    fn remark(&self) -> Option<&str> {
        let remark = match self {
            Self::Pass(remark) => remark.as_deref(),
            Self::Refused(remark) | Self::Fail(remark) | Self::Absent(remark) => Some(&remark[..]),
        };
        remark.filter(|text| !text.is_empty())
    }

    fn colour(&self) -> &'static str {
        match self {
            Self::Pass(_) => "32",
            Self::Refused(_) => "33",
            Self::Fail(_) => "31",
            Self::Absent(_) => "2",
        }
    }
}

/// The finished table: each statement with its status at each server.
pub(crate) struct Report {
    pub(crate) servers: Vec<String>,
    pub(crate) rows: Vec<(&'static Statement, Vec<Status>)>,
}

impl Report {
    /// One line for each statement, with colours for a terminal alone.
    pub(crate) fn print(&self) -> io::Result<()> {
        let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let mut out = io::stdout().lock();
        let heads: Vec<String> = self
            .servers
            .iter()
            .map(|name| format!("{name:7}"))
            .collect();
        writeln!(out, "{:9}  {}  statement", "id", heads.join("  "))?;
        for (statement, statuses) in &self.rows {
            let words: Vec<String> = statuses
                .iter()
                .map(|status| match colours {
                    true => format!("\x1b[{}m{:7}\x1b[0m", status.colour(), status.word()),
                    false => format!("{:7}", status.word()),
                })
                .collect();
            writeln!(
                out,
                "{:9}  {}  {} ({}, {})",
                statement.id,
                words.join("  "),
                statement.title,
                statement.rfc,
                statement.section
            )?;
            for (server, status) in self.servers.iter().zip(statuses) {
                if let Some(remark) = status.remark() {
                    writeln!(out, "{:11}{server}: {remark}", "")?;
                }
            }
        }
        writeln!(out, "\n{}", self.summary())
    }

    /// How many of each, for each server.
    pub(crate) fn summary(&self) -> String {
        let mut lines = Vec::new();
        for (at, server) in self.servers.iter().enumerate() {
            let count = |word: &str| {
                let of_word = |row: &&(_, Vec<Status>)| row.1[at].word() == word;
                self.rows.iter().filter(of_word).count()
            };
            let decided = |row: &&(&'static Statement, Vec<Status>)| {
                row.0.is_decided() && matches!(row.1[at], Status::Fail(_))
            };
            let decided = self.rows.iter().filter(decided).count();
            lines.push(format!(
                "{server}: {} of {} pass, {} refused, {} fail ({} of them decisions where the RFCs leave room), \
                 {} not seen from outside",
                count("pass"),
                self.rows.len(),
                count("refused"),
                count("FAIL"),
                decided,
                count("-"),
            ));
        }
        lines.join("\n")
    }

    /// The statements that have neither been shown nor refused at a server.
    pub(crate) fn unexplained(&self, server: usize) -> Vec<&'static str> {
        let open = |row: &&(&'static Statement, Vec<Status>)| {
            matches!(row.1[server], Status::Fail(_) | Status::Absent(_))
        };
        self.rows.iter().filter(open).map(|row| row.0.id).collect()
    }

    /// How many statements do not hold at a server.
    pub(crate) fn failures(&self, server: usize) -> usize {
        let fails = |row: &&(_, Vec<Status>)| matches!(row.1[server], Status::Fail(_));
        self.rows.iter().filter(fails).count()
    }

    /// Writes the table by RFC and section.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        std::fs::write(path, self.markdown())
    }

    fn markdown(&self) -> String {
        let mut text = String::from("# Conformance\n\n");
        let version = env!("CARGO_PKG_VERSION");
        let summary = self.summary().replace('\n', "\n- ");
        _ = write!(
            text,
            "turnd {version}, made by `cargo test --test conformance`. A statement *passes* when a dialogue with the \
             running server shows it, or, where that cannot be, a test that is named; *refused* is what is \
             deliberately not done; `-` is what cannot be seen from outside. Where the RFCs leave room, *decided* names \
             what turnd has chosen.\n\n- {summary}\n"
        );
        let mut rfcs: Vec<&str> = Vec::new();
        for (statement, _) in &self.rows {
            if !rfcs.contains(&statement.rfc) {
                rfcs.push(statement.rfc);
            }
        }
        for rfc in rfcs {
            _ = write!(
                text,
                "\n## {rfc}\n\n| § | id | statement | {} | remarks |\n|---|---|---|{}---|\n",
                self.servers.join(" | "),
                "---|".repeat(self.servers.len())
            );
            let mut rows: Vec<_> = self.rows.iter().filter(|row| row.0.rfc == rfc).collect();
            rows.sort_by_key(|row| section_number(row.0.section));
            for (statement, statuses) in rows {
                self.row(&mut text, statement, statuses);
            }
        }
        text
    }

    fn row(&self, text: &mut String, statement: &Statement, statuses: &[Status]) {
        let words: Vec<&str> = statuses.iter().map(Status::word).collect();
        let remarks: Vec<String> = self
            .servers
            .iter()
            .zip(statuses)
            .filter_map(|(server, status)| Some(format!("{server}: {}", status.remark()?)))
            .collect();
        _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            statement.section,
            statement.id,
            cell(statement.title),
            words.join(" | "),
            cell(&remarks.join("; "))
        );
    }
}

/// The numbers of the first of some sections; none where sections have names.
fn section_number(section: &str) -> Vec<u32> {
    let first = section.split([',', '-', ' ']).next().unwrap_or_default();
    first
        .split('.')
        .map_while(|part| part.parse().ok())
        .collect()
}

/// Text that ends no cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
