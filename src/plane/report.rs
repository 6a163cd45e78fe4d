//! What the workers report, and what the plane makes of it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

use super::Handle;
use super::mail::{Address, Mail, PATIENCE};
use super::worker::Worker;
use crate::metrics::{Cells, PortPool, Snapshot};
use crate::turn::{Census, Now};

/// What a worker has counted and holds.
#[derive(Default)]
pub(super) struct Report {
    cells: Cells,
    /// How long its thread has been on a processor.
    processor: Duration,
    census: Census,
    /// Connections between TCP relays and peers.
    peer_connections: u64,
    /// How many logins each shared secret has vouched for.
    secret_uses: Vec<(String, u64)>,
}

/// The last report of each worker.
pub(super) struct Reports(Mutex<Vec<Report>>);

impl Reports {
    /// Those of so many workers that have not reported yet.
    pub(super) fn of(workers: usize) -> Self {
        let none = (0..workers).map(|_| Report::default());
        Self(Mutex::new(none.collect()))
    }

    /// Takes in what the workers have answered, and adds it up.
    fn add(&self, answers: Vec<Option<Report>>) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let mut reports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (last, answer) in reports.iter_mut().zip(answers) {
            if let Some(report) = answer {
                snapshot.workers += 1;
                snapshot.census += report.census;
                snapshot.peer_connections += report.peer_connections;
                // Two may have asked at once: the later report has more time behind it.
                if report.processor >= last.processor {
                    *last = report;
                }
            }
            snapshot.cells += &last.cells;
            snapshot.processors.push(last.processor);
            for (id, uses) in &last.secret_uses {
                *snapshot.secret_uses.entry(id.clone()).or_default() += uses;
            }
        }
        snapshot
    }
}

impl Worker<'_> {
    pub(super) fn report(&mut self, now: Now) -> Report {
        self.sockets.connections.count(self.cells);
        self.streams.count(self.cells);
        self.cells.dtls.associations = self.associations.len() as u64;
        let uses = self.server.secret_uses();
        Report {
            cells: self.cells.clone(),
            processor: processor(),
            census: self.server.census(now),
            peer_connections: self.sockets.connections.open() as u64,
            secret_uses: uses.map(|(id, uses)| (id.to_owned(), uses)).collect(),
        }
    }
}

/// How long this thread has been on a processor.
fn processor() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

impl Handle {
    /// Asks every worker for its counters and adds them up. One that does not answer within a second is missing from
    /// [`Snapshot::workers`] and from what lives, and has counted what it had at its last report: a sum that went down
    /// and up again would look as if all of it had been counted once more.
    pub async fn snapshot(&self) -> Snapshot {
        let ask = |address: &Address| {
            let (to, from) = oneshot::channel();
            let sent = address.mail.try_send(Mail::Report(to));
            sent.is_ok().then_some(from)
        };
        let asked: Vec<_> = self.shared.addresses.iter().map(ask).collect();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut answers = Vec::with_capacity(asked.len());
        for report in asked {
            let answer = async { report?.await.ok() };
            let answer = tokio::time::timeout_at(deadline, answer).await;
            answers.push(answer.ok().flatten());
        }
        let mut snapshot = self.shared.reports.add(answers);
        snapshot.rejected = self.shared.quotas.rejected();
        let (total, used) = self.shared.ports.pool();
        snapshot.ports = PortPool {
            total: total as u64,
            used: used as u64,
        };
        snapshot
    }

    /// Whether every worker answers: the heartbeat of the watchdog.
    pub async fn alive(&self) -> bool {
        self.snapshot().await.workers == self.shared.addresses.len() as u64
    }
}
