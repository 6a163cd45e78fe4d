//! The database: a table of what has been revoked, which several processes may share.
//!
//! Rows are numbered in the order they are written, and a row that changes gets a new number: so what others have
//! written is what has a higher number than the last that was looked at. What is pardoned stays as a row that reaches
//! nothing, until its time is up.

use std::collections::HashSet;
use std::fmt;
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rusqlite::{
    Connection, MAIN_DB, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior,
    params,
};

use crate::turn::{Revoked, Term};

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) place: i64,
    pub(super) revoked: Revoked,
    /// Reaches nothing (`not_before` 0) if it has been pardoned.
    pub(super) term: Term,
    pub(super) cut: bool,
    /// When it was written, in seconds since 1970.
    pub(super) made: u64,
}

/// The database in use.
pub struct Store {
    connection: Connection,
    /// The highest number among the rows that have been looked at; nothing before the first look.
    seen: Option<i64>,
    /// Numbers above it that were written here.
    own: HashSet<i64>,
    /// Changes when another process has written.
    version: i64,
}

/// Why a database cannot be used, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// What is wrong.
    pub what: String,
    /// What helps.
    pub remedy: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)
    }
}

impl std::error::Error for Broken {}

/// How long another process may take to write, at the start and later.
const WAIT_AT_START: Duration = Duration::from_secs(3);
const WAIT: Duration = Duration::from_millis(250);
/// How the file is known to be ours, and which way of writing it this is.
const APPLICATION: i32 = 0x7475_726e;
const SCHEMA: i32 = 1;

const TABLES: &str = "
    CREATE TABLE revocations (
        place INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        tenant TEXT NOT NULL,
        name TEXT NOT NULL,
        not_before INTEGER NOT NULL,
        until INTEGER NOT NULL,
        cut INTEGER NOT NULL,
        made INTEGER NOT NULL,
        UNIQUE (kind, tenant, name)
    ) STRICT;
    CREATE INDEX by_end ON revocations (until);";
const COLUMNS: &str = "place, kind, tenant, name, not_before, until, cut, made";

impl Store {
    /// Opens the database, or makes it, for its owner alone.
    ///
    /// # Errors
    /// What is wrong with it, with the remedy.
    pub fn open(path: &Path) -> Result<Self, Broken> {
        make_file(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(path, flags);
        let mut connection = opened.map_err(|error| broken(path, &error))?;
        connection
            .busy_timeout(WAIT_AT_START)
            .map_err(|error| broken(path, &error))?;
        check(&mut connection, path)?;
        prepare(&connection, path)?;
        let version = data_version(&connection).map_err(|error| broken(path, &error))?;
        connection
            .busy_timeout(WAIT)
            .map_err(|error| broken(path, &error))?;
        Ok(Self {
            connection,
            seen: None,
            own: HashSet::new(),
            version,
        })
    }

    /// Writes a revocation, or that one is pardoned (`None`). What was there with a wider term keeps it. Tells what is
    /// there then.
    pub(super) fn write(
        &mut self,
        revoked: &Revoked,
        term: Option<Term>,
        (cut, made, until): (bool, u64, u64),
    ) -> rusqlite::Result<Term> {
        let transaction = immediate(&mut self.connection)?;
        let before = find(&transaction, revoked)?.filter(|before| made < before.until);
        let term = match (term, before) {
            (None, _) => Term {
                not_before: 0,
                until,
            },
            (Some(term), None) => term,
            (Some(term), Some(before)) => Term {
                not_before: term.not_before.max(before.not_before),
                until: term.until.max(before.until),
            },
        };
        let (kind, tenant, name) = parts(revoked);
        transaction.execute(
            "REPLACE INTO revocations (kind, tenant, name, not_before, until, cut, made) VALUES (?, ?, ?, ?, ?, ?, ?)",
            params![
                kind,
                tenant,
                name,
                number(term.not_before),
                number(term.until),
                cut,
                number(made)
            ],
        )?;
        let place = transaction.last_insert_rowid();
        transaction.commit()?;
        if self.seen.is_some() && data_version(&self.connection)? == self.version {
            self.seen = Some(place);
        } else {
            self.own.insert(place);
        }
        Ok(term)
    }

    /// What others have written since the last time, and at first all there is.
    pub(super) fn news(&mut self) -> rusqlite::Result<Vec<Row>> {
        let version = data_version(&self.connection)?;
        if version == self.version && self.seen.is_some() {
            return Ok(Vec::new());
        }
        let seen = self.seen.unwrap_or(0);
        let mut rows = self.rows_after(seen, i64::MAX, None)?;
        self.version = version;
        self.seen = Some(rows.last().map_or(seen, |row| row.place));
        rows.retain(|row| !self.own.contains(&row.place));
        self.own.clear();
        Ok(rows)
    }

    /// Up to `most` rows with higher numbers than `after`, in their order: those that reach somebody at a moment, or
    /// all of them.
    pub(super) fn rows_after(
        &self,
        after: i64,
        most: i64,
        living: Option<u64>,
    ) -> rusqlite::Result<Vec<Row>> {
        let query = format!(
            "SELECT {COLUMNS} FROM revocations WHERE place > ?1 AND (?2 OR (not_before > 0 AND until > ?3))
             ORDER BY place LIMIT ?4"
        );
        let mut statement = self.connection.prepare(&query)?;
        let at = number(living.unwrap_or(0));
        let rows = statement.query_map(params![after, living.is_none(), at, most], read)?;
        // What a later version may have written is not for this one to judge.
        rows.filter_map(Result::transpose).collect()
    }

    /// Takes out what says nothing more.
    pub(super) fn purge(&self, unix: u64) -> rusqlite::Result<usize> {
        self.connection
            .execute("DELETE FROM revocations WHERE until <= ?", [number(unix)])
    }
}

/// The file, which nobody but its owner may read: there are names in it.
fn make_file(path: &Path) -> Result<(), Broken> {
    let shown = path.display();
    let cannot = |error: &io::Error| Broken {
        what: format!("{shown} cannot be opened: {error}"),
        remedy: format!(
            "let turnd write {shown}, name another place under [revocation] database, or set STATE_DIRECTORY to a directory that can be written"
        ),
    };
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| cannot(&error))?;
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| cannot(&error))?;
    let found = file.metadata().map_err(|error| cannot(&error))?;
    if !found.is_file() {
        return Err(Broken {
            what: format!("{shown} is not a file"),
            remedy: "name a file under [revocation] database".to_owned(),
        });
    }
    if found.mode() & 0o077 != 0 {
        return Err(Broken {
            what: format!(
                "{shown} may be read by others than its owner (mode {:04o})",
                found.mode() & 0o7777
            ),
            remedy: format!("chmod 0600 {shown}"),
        });
    }
    Ok(())
}

/// Readers and writers do not wait for each other, and what is answered is on the disk.
fn prepare(connection: &Connection, path: &Path) -> Result<(), Broken> {
    let mode = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0));
    let mode: String = mode.map_err(|error| broken(path, &error))?;
    if mode != "wal" {
        return Err(unwritable(path, "its file system has no shared memory"));
    }
    connection
        .execute_batch("PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF;")
        .map_err(|error| broken(path, &error))
}

/// Makes the tables in an empty file; refuses what is damaged or another's.
fn check(connection: &mut Connection, path: &Path) -> Result<(), Broken> {
    let say = |error: rusqlite::Error| broken(path, &error);
    let pragma = |connection: &Connection, name: &str| {
        connection.pragma_query_value::<i32, _>(None, name, |row| row.get(0))
    };
    if connection.is_readonly(MAIN_DB).map_err(say)? {
        return Err(unwritable(path, "it can only be read"));
    }
    let transaction = immediate(connection).map_err(say)?;
    let tables: i64 = transaction
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(say)?;
    let application = pragma(&transaction, "application_id").map_err(say)?;
    let schema = pragma(&transaction, "user_version").map_err(say)?;
    match (tables, application, schema) {
        (0, 0, 0) => transaction
            .execute_batch(&format!(
                "{TABLES} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {SCHEMA};"
            ))
            .map_err(say)?,
        (_, APPLICATION, SCHEMA) => {}
        (_, APPLICATION, newer) => {
            return Err(Broken {
                what: format!(
                    "{} was written by a newer turnd (version {newer} of its tables; this one knows {SCHEMA})",
                    path.display()
                ),
                remedy: "run that one, or name another file under [revocation] database".to_owned(),
            });
        }
        (..) => {
            return Err(Broken {
                what: format!("{} is a database of another program", path.display()),
                remedy: "name another file under [revocation] database".to_owned(),
            });
        }
    }
    transaction.commit().map_err(say)?;
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(say)?;
    if verdict == "ok" {
        Ok(())
    } else {
        Err(damaged(path, &verdict))
    }
}

fn immediate(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA data_version", [], |row| row.get(0))
}

fn find(transaction: &Transaction<'_>, revoked: &Revoked) -> rusqlite::Result<Option<Term>> {
    let (kind, tenant, name) = parts(revoked);
    let query =
        "SELECT not_before, until FROM revocations WHERE kind = ? AND tenant = ? AND name = ?";
    let term = transaction.query_row(query, params![kind, tenant, name], |row| {
        Ok(Term {
            not_before: seconds(row.get(0)?),
            until: seconds(row.get(1)?),
        })
    });
    term.optional()
}

/// A row; nothing if it is of a kind that is not known.
fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<Row>> {
    let kind: String = row.get(1)?;
    let (tenant, name): (Box<str>, Box<str>) = (row.get(2)?, row.get(3)?);
    let revoked = match kind.as_str() {
        "credential" => Revoked::Credential { tenant, id: name },
        "name" => Revoked::Name(name),
        "tenant" => Revoked::Tenant(tenant),
        "user" => Revoked::User { tenant, user: name },
        _ => return Ok(None),
    };
    Ok(Some(Row {
        place: row.get(0)?,
        revoked,
        term: Term {
            not_before: seconds(row.get(4)?),
            until: seconds(row.get(5)?),
        },
        cut: row.get(6)?,
        made: seconds(row.get(7)?),
    }))
}

/// Kind, tenant and name of what is revoked, where it has them.
pub fn parts(revoked: &Revoked) -> (&'static str, &str, &str) {
    match revoked {
        Revoked::Credential { tenant, id } => ("credential", tenant, id),
        Revoked::Name(name) => ("name", "", name),
        Revoked::User { tenant, user } => ("user", tenant, user),
        Revoked::Tenant(tenant) => ("tenant", tenant, ""),
    }
}

fn number(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

fn seconds(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn broken(path: &Path, error: &rusqlite::Error) -> Broken {
    use rusqlite::ErrorCode::{
        CannotOpen, DatabaseBusy, DatabaseCorrupt, DatabaseLocked, DiskFull, NotADatabase,
        PermissionDenied, ReadOnly,
    };
    let why = error.to_string();
    match error.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => damaged(path, &why),
        Some(DatabaseBusy | DatabaseLocked) => Broken {
            what: format!("{} is held by another process: {why}", path.display()),
            remedy: "look for who has it open, as with `fuser`".to_owned(),
        },
        Some(CannotOpen | DiskFull | PermissionDenied | ReadOnly) => unwritable(path, &why),
        Some(_) | None => Broken {
            what: format!("{} cannot be used: {why}", path.display()),
            remedy: "name another file under [revocation] database".to_owned(),
        },
    }
}

fn damaged(path: &Path, why: &str) -> Broken {
    Broken {
        what: format!("{} is damaged: {why}", path.display()),
        remedy: format!(
            "bring it back from a backup; or move it away, with {0}-wal and {0}-shm, and revoke again what was in it",
            path.display()
        ),
    }
}

fn unwritable(path: &Path, why: &str) -> Broken {
    Broken {
        what: format!("{} cannot be written: {why}", path.display()),
        remedy: "let the user that runs turnd write it and its directory, and see that there is room on the disk"
            .to_owned(),
    }
}
