//! Reads the configuration again: what is good replaces what is in force, all of it or nothing. The operator can have
//! told beforehand what would come of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::info;

use super::{Daemon, log_stale, log_waiting, log_warning, replace_identity, seat};
use crate::config::{self, Difference, Differences, Loaded, Problem, Report};
use crate::http::admin;
use crate::http::admin::{Affected, AffectedSession, Change, Mistake, Reload, When};
use crate::systemd;
use crate::turn::{self, Login, Prospect, Session};

/// How many of the calls that are affected are named.
const NAMED: usize = 100;

impl Daemon<'_> {
    /// Reads the configuration again. Only one without errors replaces what is in force.
    pub(super) async fn reload(&mut self) {
        systemd::reloading();
        match self.load() {
            Ok(loaded) => self.apply(loaded).await,
            Err(report) => self.keep(&report),
        }
    }

    /// The same for who wants to know what has changed; or only what would.
    pub(super) async fn reload_and_tell(
        &mut self,
        dry_run: bool,
    ) -> Result<Reload, admin::Problem> {
        if !dry_run {
            systemd::reloading();
        }
        let loaded = match self.load() {
            Ok(loaded) => loaded,
            Err(report) => {
                if !dry_run {
                    self.keep(&report);
                }
                let errors = report.errors().map(mistake).collect();
                return Err(admin::Problem::bad_configuration(errors));
            }
        };
        let told = Reload {
            applied: !dry_run,
            changes: self.changes(&loaded),
            sessions: self.affected(&loaded.parts.turn).await,
            warnings: loaded.report.warnings().map(mistake).collect(),
        };
        if !dry_run {
            self.apply(loaded).await;
        }
        Ok(told)
    }

    fn load(&mut self) -> Result<Loaded, Report> {
        self.host.unix = config::unix_now();
        let mut loaded = config::load_again(&self.sources, &self.host, &self.in_force)?;
        loaded.fit(&self.running, &self.turn);
        Ok(loaded)
    }

    /// Puts another configuration into force.
    async fn apply(&mut self, loaded: Loaded) {
        let reading = loaded.reading();
        let Loaded {
            config,
            parts,
            report,
            ..
        } = loaded;
        report.warnings().for_each(log_warning);
        self.start
            .needs_restart(&reading)
            .into_iter()
            .for_each(log_waiting);
        self.plane.replace_settings(Arc::clone(&parts.turn)).await;
        self.logging.set_level(&config.log.level);
        if let Some(certificate) = &parts.certificate {
            self.plane.replace_tls(Arc::clone(&certificate.server));
            replace_identity(&self.plane, certificate);
        }
        if let Some(token) = &mut self.token {
            token.reload(&parts);
        }
        self.watch_certificate(&parts);
        self.seat.set_facts(seat::facts(&config, &parts));
        self.turn = parts.turn;
        self.in_force = reading;
        self.status.config_stale.store(false, Ordering::Relaxed);
        info!("configuration reloaded");
        systemd::ready(self.state());
    }

    /// Keeps what is in force.
    fn keep(&self, report: &Report) {
        self.status.config_stale.store(true, Ordering::Relaxed);
        report.errors().for_each(log_stale);
        systemd::ready("the configuration is bad: older settings are in force");
    }

    fn changes(&self, loaded: &Loaded) -> Vec<Change> {
        let Differences { now, at_restart } =
            self.start.differences(&self.in_force, &loaded.reading());
        let at_restart = at_restart.into_iter();
        let at_restart = at_restart.map(|difference| change(difference, When::Restart));
        let now = now.into_iter();
        at_restart
            .chain(now.map(|difference| change(difference, When::Now)))
            .collect()
    }

    async fn affected(&self, new: &Arc<turn::Settings>) -> Affected {
        let (old, new) = (Arc::clone(&self.turn), Arc::clone(new));
        let unix = self.host.unix.unsigned_abs();
        let mut affected = Affected::default();
        let see = |session: Session| {
            let prospect = session.prospect(&old, &new, unix);
            if prospect.is_change() {
                count(&mut affected, &session, prospect);
            }
            true
        };
        self.plane.each_session(|_| true, see).await;
        affected
    }
}

fn count(affected: &mut Affected, session: &Session, prospect: Prospect) {
    let fates = [
        (prospect.ends, "ended", &mut affected.ended),
        (
            prospect.login == Login::Ends,
            "expiring",
            &mut affected.expiring,
        ),
        (
            prospect.login == Login::Unclear,
            "perhaps expiring",
            &mut affected.perhaps_expiring,
        ),
        (
            !prospect.closed.is_empty(),
            "losing peers",
            &mut affected.losing_peers,
        ),
    ];
    // The worst of them.
    let Some((_, fate, number)) = fates.into_iter().find(|(meets, ..)| *meets) else {
        return;
    };
    *number += 1;
    if affected.named.len() < NAMED {
        affected.named.push(AffectedSession {
            id: session.id.to_string(),
            user: admin::user_of(session),
            client: session.five_tuple.client,
            fate: fate.to_owned(),
            peers: prospect.closed,
        });
    }
}

fn change(difference: Difference, when: When) -> Change {
    let Difference { key, old, new } = difference;
    Change {
        key,
        old,
        new,
        when,
    }
}

fn mistake(problem: &Problem) -> Mistake {
    Mistake {
        key: problem.key.clone(),
        place: problem.place(),
        what: problem.what.clone(),
        remedy: problem.remedy.clone(),
    }
}
