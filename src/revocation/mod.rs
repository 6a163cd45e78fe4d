//! Layer 3: what has been revoked, kept across restarts and brought to the workers.
//!
//! ```text
//!  whoever revokes ─▶ Revoker ─┐
//!                              ▼
//!  another process ─▶ the database ◀─▶ keeper (a thread) ─▶ plane::Handle ─▶ every worker
//! ```
//!
//! One thread, the keeper, has the database and the snapshot of it that the machines judge by; whoever wants something
//! revoked asks it through a [`Revoker`]. A revocation is in force, and the calls it ends have ended, before it is
//! written; what cannot be written is in force all the same, and told as a failure. Other processes with the same
//! database are noticed within a fraction of a second.
//!
//! It promises that neither a worker nor an asynchronous task waits for the disk, and that what it keeps has a bound.

mod keeper;
mod store;
mod words;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::plane;
use crate::turn::{Revoked, Term};

pub use store::{Broken, Store, parts};
pub use words::{BadWords, Entry, Words};

use keeper::{Ask, Keeper};

/// What is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether somebody counts on it: then what cannot be kept is no server.
    pub is_asked_for: bool,
    /// Where the database lies; made when there is none.
    pub database: PathBuf,
    /// For how long any credential is good: so long a revocation is remembered.
    pub keep: Duration,
    /// How many there may be.
    pub most: usize,
}

impl Settings {
    /// As many revocations as there may be if nothing else is said.
    pub const MOST: usize = 1_000_000;
}

/// Before this moment everything was issued.
pub const ALWAYS: u64 = i64::MAX as u64;

/// A revocation that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Of whom.
    pub revoked: Revoked,
    /// Of what was issued before this moment, in seconds since 1970. Without it: of all that has been issued, this
    /// second included.
    pub not_before: Option<u64>,
    /// Whether calls end at once. Otherwise they end with their lifetime.
    pub cut: bool,
}

/// A revocation that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it reaches, and for how long it is remembered.
    pub term: Term,
    /// How many calls it has ended; nothing where there is no relay in this process.
    pub ended: Option<usize>,
}

/// Why something could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The moment before which credentials are revoked is too far in the future.
    TooLate,
    /// There are as many revocations as there may be.
    Full(usize),
    /// It is in force, but the database does not take it: a restart would forget it, and other processes do not hear
    /// of it. It is tried again as long as this process runs.
    NotKept {
        /// How many calls it has ended; nothing where there is no relay in this process.
        ended: Option<usize>,
        /// What the database said.
        why: String,
    },
    /// The database cannot be read.
    Unreadable(String),
    /// The keeper does not answer.
    Absent,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLate => f.write_str(
                "the moment lies too far in the future: it is given in seconds since 1970",
            ),
            Self::Full(most) => write!(
                f,
                "there are {most} revocations already, and no more are kept: revoke the tenant, or change the secret"
            ),
            Self::NotKept { why, .. } => write!(
                f,
                "in force until this process ends, but not kept, and not known to others: {why}"
            ),
            Self::Unreadable(why) => write!(f, "what has been revoked cannot be read: {why}"),
            Self::Absent => f.write_str("what keeps the revocations does not answer"),
        }
    }
}

impl std::error::Error for Failure {}

/// Who has things revoked. Clones ask the same keeper; it ends with the last of them.
#[derive(Clone)]
pub struct Revoker {
    asks: mpsc::Sender<Ask>,
}

/// Asks that wait; more wait with whoever asks.
const ASKS: usize = 64;
/// How long the keeper may take: a second or so for workers that hang, some more for a disk that does.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts the keeper of a database. `plane` is told what is revoked, if there is a relay in this process; `count` is
/// how many revocations there are.
///
/// # Errors
/// If the database cannot be read, or the kernel gives no thread.
pub async fn start(
    store: Store,
    settings: &Settings,
    plane: Option<plane::Handle>,
    count: Arc<AtomicU64>,
) -> Result<Revoker, Broken> {
    let keeper = Keeper::new(store, settings, plane, count, unix)
        .map_err(|error| store::broken(&settings.database, &error))?;
    keeper.begin().await;
    let no_thread = |error: io::Error| Broken {
        what: format!("the kernel gives no thread: {error}"),
        remedy: "see what the kernel says, as in `dmesg`".to_owned(),
    };
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(no_thread)?;
    let (asks, asked) = mpsc::channel(ASKS);
    thread::Builder::new()
        .name("revocations".to_owned())
        .spawn(move || runtime.block_on(keeper.run(asked)))
        .map_err(no_thread)?;
    Ok(Revoker { asks })
}

/// Seconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "credentials are dated by the wall clock"
)]
fn unix() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

impl Revoker {
    /// Revokes something. When it returns, nobody is let in with it any more, and if calls were to be cut they have
    /// ended.
    ///
    /// # Errors
    /// [`Failure`], of which [`Failure::NotKept`] says that it has been done for now.
    pub async fn revoke(&self, order: Order) -> Result<Outcome, Failure> {
        self.ask(|to| Ask::Revoke(order, to)).await?
    }

    /// Takes a revocation back, and tells whether there was one.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn pardon(&self, revoked: Revoked) -> Result<bool, Failure> {
        self.ask(|to| Ask::Pardon(revoked, to)).await?
    }

    /// Up to `most` revocations in the order they were made, from the one after the place `after` on.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn list(&self, after: i64, most: usize) -> Result<Vec<Entry>, Failure> {
        self.ask(|to| Ask::List(after, most, to)).await?
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Failure> {
        let (to, answer) = oneshot::channel();
        let asked = async {
            self.asks.send(ask(to)).await.ok()?;
            answer.await.ok()
        };
        let answer = timeout(PATIENCE, asked).await.ok().flatten();
        answer.ok_or(Failure::Absent)
    }
}
