//! No new calls: by the operator's wish, who may change it; or at the end, which waits for the others.

use std::sync::atomic::Ordering;

use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::signals::Signal;
use super::{DRAIN_CHECK, Daemon, STOP};
use crate::config;
use crate::http::admin::{Ask, Problem};
use crate::systemd;

impl Daemon<'_> {
    /// Does what the operator's seat asks for.
    pub(super) async fn answer(&mut self, ask: Ask) {
        // Whoever asked may have given up waiting.
        match ask {
            Ask::Drain { on, to } => {
                self.drain_by_wish(on).await;
                let _ = to.send(Ok(()));
            }
            Ask::Reload { dry_run, to } => {
                let _ = to.send(self.reload_and_tell(dry_run).await);
            }
            Ask::LogLevel { level, to } => {
                let _ = to.send(self.set_log_level(&level));
            }
        }
    }

    /// What is asked of a server that is about to end.
    fn answer_at_the_end(&self, ask: Ask) {
        let refused = || Problem::conflict("the server is ending: it was told to stop");
        match ask {
            // It does already.
            Ask::Drain { on: true, to } => drop(to.send(Ok(()))),
            Ask::Drain { on: false, to } => drop(to.send(Err(refused()))),
            Ask::Reload { to, .. } => drop(to.send(Err(refused()))),
            Ask::LogLevel { level, to } => drop(to.send(self.set_log_level(&level))),
        }
    }

    fn set_log_level(&self, level: &str) -> Result<(), Problem> {
        let level = config::log_level(level).map_err(|complaint| {
            Problem::bad_request(format!("{}; {}", complaint.what, complaint.remedy))
        })?;
        self.logging.set_level(&level);
        self.seat.set_log_level(&level);
        info!(level, "what is logged has been changed");
        Ok(())
    }

    /// Takes no new calls, or takes them again.
    async fn drain_by_wish(&self, on: bool) {
        let since = &self.status.draining_since;
        let was_on = since.load(Ordering::Relaxed) != 0;
        since.store(if on { config::unix_now() } else { 0 }, Ordering::Relaxed);
        self.status.ready.store(!on, Ordering::Relaxed);
        self.plane.drain(on).await;
        match (was_on, on) {
            (false, true) => info!("draining: no new calls, by the operator's wish"),
            (true, false) => info!("new calls are taken again"),
            (true, true) | (false, false) => {}
        }
        systemd::ready(self.state());
    }

    /// What the service manager shows.
    pub(super) fn state(&self) -> &'static str {
        if self.status.ready.load(Ordering::Relaxed) {
            "relaying"
        } else {
            "draining: no new calls, by the operator's wish"
        }
    }

    /// Lets no new call in and waits for the others, until the time is up or a second signal comes.
    pub(super) async fn drain(&mut self) {
        let patience = self.in_force.config.server.drain_timeout;
        let now = config::unix_now();
        let since = &self.status.draining_since;
        // The operator may have begun it long ago.
        let _ = since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        let until = now.saturating_add_unsigned(patience.as_secs());
        self.status.draining_until.store(until, Ordering::Relaxed);
        self.status.ready.store(false, Ordering::Relaxed);
        systemd::stopping("waiting for calls to end");
        self.plane.drain(true).await;
        let end = Instant::now() + patience;
        info!(
            seconds = patience.as_secs(),
            "draining; a second signal ends at once"
        );
        loop {
            let snapshot = self.plane.snapshot().await;
            let allocations: u64 = snapshot.census.allocations.as_flattened().iter().sum();
            if allocations == 0 && snapshot.workers == self.workers {
                return;
            }
            systemd::bear_with_me(patience + STOP);
            self.beat().await;
            tokio::select! {
                signal = self.signals.next() => match signal {
                    Signal::Stop => {
                        warn!(allocations, "ended at once by a second signal");
                        return;
                    }
                    Signal::Reload => warn!("configuration not reloaded: the server is ending"),
                },
                Some(ask) = self.asks.recv() => self.answer_at_the_end(ask),
                () = sleep_until(end) => {
                    warn!(allocations, "the time for calls to end is up");
                    return;
                }
                () = sleep(DRAIN_CHECK) => {}
            }
        }
    }
}
