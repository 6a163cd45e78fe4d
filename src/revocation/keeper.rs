//! The keeper: has the database and the snapshot of it, and tells the workers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use super::store::{self, Row, Store};
use super::words::Entry;
use super::{ALWAYS, Failure, Order, Outcome, Settings};
use crate::plane::Handle;
use crate::turn::{EndReason, Revocations, Revoked, Term};

/// What the keeper is asked.
pub(super) enum Ask {
    Revoke(Order, oneshot::Sender<Result<Outcome, Failure>>),
    Pardon(Revoked, oneshot::Sender<Result<bool, Failure>>),
    List(i64, usize, oneshot::Sender<Result<Vec<Entry>, Failure>>),
}

/// How often it is looked whether another process has written.
const LOOK: Duration = Duration::from_millis(200);
/// How often what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often what says nothing more is taken out.
const PURGE: Duration = Duration::from_secs(60);
/// How far the clock may go between two looks without that it has leapt; and how long it must stay there to be believed.
const STEP: u64 = 2 * PURGE.as_secs();
const DOUBT: Duration = Duration::from_secs(3600);
/// How much of the time what could not be written may take at once.
const WRITING: Duration = Duration::from_millis(100);
/// How long workers may take to hear of something.
const HEARING: Duration = Duration::from_secs(2);

/// The thread's state.
pub(super) struct Keeper {
    store: Store,
    plane: Option<Handle>,
    revocations: Arc<Revocations>,
    keep: Duration,
    most: usize,
    count: Arc<AtomicU64>,
    clock: fn() -> u64,
    memory: Memory,
    /// What the database did not take, the oldest first.
    unsaved: VecDeque<Unsaved>,
    retry: Instant,
    /// The database has failed, and that has been told.
    ill: bool,
}

/// What is in force and not written.
struct Unsaved {
    revoked: Revoked,
    term: Option<Term>,
    cut: bool,
    made: u64,
}

impl Keeper {
    /// A keeper that has read the database.
    pub(super) fn new(
        mut store: Store,
        settings: &Settings,
        plane: Option<Handle>,
        count: Arc<AtomicU64>,
        clock: fn() -> u64,
    ) -> rusqlite::Result<Self> {
        // Those, too, that seem to have expired: the clock may be wrong.
        let rows = store.news()?.into_iter();
        let kept = rows.filter_map(|row| Some((row.revoked, reaching(row.term)?)));
        let revocations = Arc::new(Revocations::new(settings.keep, kept));
        count.store(revocations.len() as u64, Ordering::Relaxed);
        Ok(Self {
            store,
            plane,
            revocations,
            keep: settings.keep,
            most: settings.most,
            count,
            clock,
            memory: Memory::default(),
            unsaved: VecDeque::new(),
            retry: Instant::now(),
            ill: false,
        })
    }

    /// Tells the workers what was revoked before they started, and ends what was made before they heard of it.
    pub(super) async fn begin(&self) {
        if self.revocations.is_empty() {
            return;
        }
        self.tell().await;
        self.cut(Arc::clone(&self.revocations)).await;
    }

    /// Does what it is asked until nobody can ask any more.
    pub(super) async fn run(mut self, mut asked: mpsc::Receiver<Ask>) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut purge = interval(PURGE);
        purge.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                ask = asked.recv() => match ask {
                    Some(ask) => self.answer(ask).await,
                    None => return,
                },
                _ = look.tick() => self.look().await,
                _ = purge.tick() => self.purge().await,
            }
        }
    }

    /// Whoever asked may have given up waiting.
    async fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Revoke(order, to) => {
                let outcome = self.revoke(order).await;
                let _ = to.send(outcome);
            }
            Ask::Pardon(revoked, to) => {
                let outcome = self.pardon(revoked).await;
                let _ = to.send(outcome);
            }
            Ask::List(after, most, to) => {
                let _ = to.send(self.list(after, most));
            }
        }
    }

    async fn revoke(&mut self, order: Order) -> Result<Outcome, Failure> {
        let now = (self.clock)();
        let Order {
            revoked,
            not_before,
            cut,
        } = order;
        let term = self.term(&revoked, not_before, now)?;
        if self.revocations.get(&revoked).is_none() && self.revocations.len() >= self.most {
            self.forget(now).await;
            if self.revocations.len() >= self.most {
                return Err(Failure::Full(self.most));
            }
        }
        self.change([(revoked.clone(), Some(term))]);
        self.tell().await;
        let ended = if cut {
            let only = Revocations::new(self.keep, [(revoked.clone(), term)]);
            self.cut(Arc::new(only)).await
        } else {
            self.plane.as_ref().map(|_| 0)
        };
        let (kind, tenant, name) = store::parts(&revoked);
        info!(
            kind,
            tenant,
            name = %name.escape_debug(),
            not_before = (term.not_before != ALWAYS).then_some(term.not_before),
            until = term.until,
            ended,
            "revoked"
        );
        let unsaved = Unsaved {
            revoked,
            term: Some(term),
            cut,
            made: now,
        };
        match self.write(unsaved) {
            Ok(kept) => {
                // Another process may have said more about the same.
                if let Some((revoked, wider)) = kept.filter(|(_, kept)| *kept != term) {
                    self.change([(revoked, Some(wider))]);
                    self.tell().await;
                }
                Ok(Outcome { term, ended })
            }
            Err(why) => Err(Failure::NotKept { ended, why }),
        }
    }

    /// What a revocation reaches, and for how long it is remembered: until all of that has expired.
    fn term(&self, revoked: &Revoked, not_before: Option<u64>, now: u64) -> Result<Term, Failure> {
        let keep = self.keep.as_secs();
        let not_before = match (not_before, revoked) {
            (Some(moment), _) if moment > now.saturating_add(keep) => {
                return Err(Failure::TooLate);
            }
            (Some(moment), _) => moment,
            // There is only the one, whenever it was issued.
            (None, Revoked::Credential { .. } | Revoked::Name(_)) => ALWAYS,
            // What was issued in this second may have been issued before this.
            (None, Revoked::User { .. } | Revoked::Tenant(_)) => now.saturating_add(1),
        };
        let from = if not_before == ALWAYS {
            now
        } else {
            not_before
        };
        let asked = Term {
            not_before,
            until: now.max(from).saturating_add(keep),
        };
        let before = self.revocations.get(revoked);
        let before = before.and_then(|before| living(before, now));
        Ok(before.map_or(asked, |before| Term {
            not_before: asked.not_before.max(before.not_before),
            until: asked.until.max(before.until),
        }))
    }

    async fn pardon(&mut self, revoked: Revoked) -> Result<bool, Failure> {
        let now = (self.clock)();
        if self.revocations.get(&revoked).is_none() {
            return Ok(false);
        }
        self.change([(revoked.clone(), None)]);
        self.tell().await;
        let (kind, tenant, name) = store::parts(&revoked);
        info!(kind, tenant, name = %name.escape_debug(), "pardoned");
        let unsaved = Unsaved {
            revoked,
            term: None,
            cut: false,
            made: now,
        };
        match self.write(unsaved) {
            Ok(_) => Ok(true),
            Err(why) => Err(Failure::NotKept { ended: None, why }),
        }
    }

    /// What could not be written is missing.
    fn list(&self, after: i64, most: usize) -> Result<Vec<Entry>, Failure> {
        let now = (self.clock)();
        let limit = i64::try_from(most).unwrap_or(i64::MAX);
        let rows = self.store.rows_after(after, limit, Some(now));
        let rows = rows.map_err(|error| Failure::Unreadable(error.to_string()))?;
        Ok(rows.into_iter().map(Entry::from).collect())
    }

    /// Takes in what other processes have written, and writes what could not be written before.
    async fn look(&mut self) {
        if !self.unsaved.is_empty() && self.retry <= Instant::now() {
            self.write_again();
        }
        match self.store.news() {
            Ok(rows) if rows.is_empty() => {}
            Ok(rows) => self.adopt(rows).await,
            Err(error) => self.complain(&error.to_string()),
        }
    }

    async fn adopt(&mut self, rows: Vec<Row>) {
        let now = (self.clock)();
        let cuts = |row: &&Row| row.cut && living(row.term, now).is_some();
        let cut = rows.iter().filter(cuts);
        let cut: Vec<_> = cut.map(|row| (row.revoked.clone(), row.term)).collect();
        let found = rows.len();
        self.change(
            rows.into_iter()
                .map(|row| (row.revoked, reaching(row.term))),
        );
        self.tell().await;
        let ended = match cut.is_empty() {
            true => None,
            false => self.cut(Arc::new(Revocations::new(self.keep, cut))).await,
        };
        info!(found, ended, "revocations of another process are in force");
    }

    /// Takes out what says nothing more, if the clock is to be believed.
    async fn purge(&mut self) {
        if let Some(now) = self.memory.believes((self.clock)(), Instant::now()) {
            self.forget(now).await;
        }
    }

    /// Takes out what says nothing more at this moment.
    async fn forget(&mut self, now: u64) {
        if self.revocations.iter().any(|(_, term)| term.until <= now) {
            self.revocations = Arc::new(self.revocations.remembered(now));
            self.recount();
            self.tell().await;
        }
        match self.store.purge(now) {
            Ok(_) => self.ill &= !self.unsaved.is_empty(),
            Err(error) => self.complain(&error.to_string()),
        }
    }

    fn change(&mut self, changes: impl IntoIterator<Item = (Revoked, Option<Term>)>) {
        self.revocations = Arc::new(self.revocations.with(changes));
        self.recount();
    }

    fn recount(&self) {
        let count = self.revocations.len() as u64;
        self.count.store(count, Ordering::Relaxed);
    }

    /// Lets the machines know what is revoked.
    async fn tell(&self) {
        let Some(plane) = &self.plane else { return };
        let told = plane.replace_revocations(Arc::clone(&self.revocations));
        if timeout(HEARING, told).await.is_err() {
            warn!("a worker does not take its mail: it lets in what has been revoked");
        }
    }

    /// Ends the calls that are reached, and tells how many there were.
    async fn cut(&self, which: Arc<Revocations>) -> Option<usize> {
        let plane = self.plane.as_ref()?;
        let now = (self.clock)();
        let ended = plane.end_sessions(EndReason::Revoked, move |holder| which.cover(holder, now));
        timeout(HEARING, ended).await.ok()
    }

    /// Writes something, or remembers to.
    fn write(&mut self, unsaved: Unsaved) -> Result<Option<(Revoked, Term)>, String> {
        match self.try_write(&unsaved) {
            Ok(kept) => {
                self.ill = false;
                Ok(unsaved.term.map(|_| (unsaved.revoked, kept)))
            }
            Err(error) => {
                let why = error.to_string();
                self.complain(&why);
                self.retry = Instant::now() + RETRY;
                self.remember(unsaved);
                Err(why)
            }
        }
    }

    /// The last word about somebody is enough.
    fn remember(&mut self, unsaved: Unsaved) {
        self.unsaved
            .retain(|other| other.revoked != unsaved.revoked);
        if self.unsaved.len() >= self.most {
            self.unsaved.pop_front();
        }
        self.unsaved.push_back(unsaved);
    }

    fn try_write(&mut self, unsaved: &Unsaved) -> rusqlite::Result<Term> {
        let until = unsaved.made.saturating_add(self.keep.as_secs());
        let Unsaved {
            revoked,
            term,
            cut,
            made,
        } = unsaved;
        self.store.write(revoked, *term, (*cut, *made, until))
    }

    /// Many may wait: whoever asks meanwhile does not wait for all of them.
    fn write_again(&mut self) {
        let start = Instant::now();
        while let Some(first) = self.unsaved.pop_front() {
            if let Err(error) = self.try_write(&first) {
                self.unsaved.push_front(first);
                self.complain(&error.to_string());
                self.retry = Instant::now() + RETRY;
                return;
            }
            if start.elapsed() >= WRITING && !self.unsaved.is_empty() {
                return;
            }
        }
        self.ill = false;
        info!("the revocations that could not be kept are kept");
    }

    /// Says once that the database fails.
    fn complain(&mut self, why: &str) {
        if !std::mem::replace(&mut self.ill, true) {
            warn!(
                help = "see that the file of [revocation] database can be written, and that there is room on the disk",
                "the database of revocations fails: {why}"
            );
        }
    }
}

/// What the clock has said. What is forgotten by one that is wrong for a moment would be forgotten for ever.
#[derive(Default)]
struct Memory {
    /// What was believed last, and when that was.
    last: Option<(u64, Instant)>,
    /// Since when the clock is ahead of that.
    ahead: Option<Instant>,
}

impl Memory {
    /// The moment, if it is to be believed: it follows from the last one, or has been told for long.
    fn believes(&mut self, unix: u64, now: Instant) -> Option<u64> {
        let since = |moment: Instant| now.saturating_duration_since(moment);
        let follows = self.last.is_some_and(|(last, at)| {
            unix <= last
                .saturating_add(since(at).as_secs())
                .saturating_add(STEP)
        });
        let believed = follows || since(*self.ahead.get_or_insert(now)) >= DOUBT;
        believed.then(|| {
            self.last = Some((unix, now));
            self.ahead = None;
            unix
        })
    }
}

/// A term that reaches somebody, unless it has expired: it has not been taken back.
fn reaching(term: Term) -> Option<Term> {
    (term.not_before > 0).then_some(term)
}

/// A term that reaches somebody at a moment.
fn living(term: Term, now: u64) -> Option<Term> {
    reaching(term).filter(|term| now < term.until)
}

#[cfg(test)]
mod tests;
