//! `turnd drain`

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;
use turnd::config::Sources;
use turnd::daemon::complain;
use turnd::http::admin::Drain as Progress;

use super::client::{At, Client, Failure};
use super::duration;
use super::show::{count, span};

/// How often the server is asked how far it is.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(super) struct Drain {
    /// Wait until the last call has ended
    #[arg(long, conflicts_with = "undo")]
    wait: bool,
    /// Wait no longer than this, as in 10m; exit code 1 if calls are left then
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "undo")]
    timeout: Option<Duration>,
    /// Take new calls again
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    at: At,
}

impl Drain {
    pub(super) fn run(self, sources: &Sources) -> ExitCode {
        let Self {
            wait,
            timeout,
            undo,
            at,
        } = self;
        at.ask(sources, |client| {
            let body = serde_json::json!({ "on": !undo });
            let progress: Progress = client.post("/v1/drain", &body)?;
            if undo {
                return Ok(super::print("new calls are taken again\n"));
            }
            if wait || timeout.is_some() {
                return until_empty(client, progress, timeout);
            }
            let left = calls(progress.left);
            Ok(super::print(&format!(
                "no new calls are taken; {left} left\n"
            )))
        })
    }
}

fn calls(number: u64) -> String {
    count(number, "call is", "calls are")
}

/// Looks again and again, and shows how far it is.
fn until_empty(
    client: &Client,
    first: Progress,
    timeout: Option<Duration>,
) -> Result<ExitCode, Failure> {
    let start = Instant::now();
    let mut shown = Shown::new(first.left);
    let mut left = first.left;
    let mut is_silent = false;
    while left > 0 {
        if timeout.is_some_and(|timeout| start.elapsed() >= timeout) {
            shown.end();
            let waited = span(start.elapsed().as_secs());
            complain(&format_args!(
                "error: after {waited}, {} left\n = help: `turnd sessions --sort old` shows them, `turnd kick` ends them",
                calls(left)
            ));
            return Ok(ExitCode::FAILURE);
        }
        client.wait(LOOK);
        left = match client.get::<Progress>("/v1/drain") {
            Ok(Progress { on: false, .. }) => {
                shown.end();
                let what = "error: somebody else has let new calls in again".to_owned();
                return Err(Failure::Own(what));
            }
            Ok(progress) => {
                is_silent = false;
                progress.left
            }
            // It was told to stop meanwhile, and has.
            Err(Failure::NoServer(_)) => {
                shown.end();
                return Ok(super::print("the server has ended\n"));
            }
            // In the midst of its end, most likely: the next look tells.
            Err(Failure::NoAnswer(_)) if !is_silent => {
                is_silent = true;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        shown.show(left);
    }
    shown.end();
    let waited = span(start.elapsed().as_secs());
    Ok(super::print(&format!("no call is left, after {waited}\n")))
}

/// A bar on a terminal, a line for each change elsewhere.
struct Shown {
    bar: Option<ProgressBar>,
    left: u64,
}

impl Shown {
    fn new(left: u64) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(left);
            let style = ProgressStyle::with_template(
                "draining {wide_bar} {pos} of {len} calls have ended, {elapsed}",
            );
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        let mut shown = Self {
            bar,
            left: u64::MAX,
        };
        shown.show(left);
        shown
    }

    fn show(&mut self, left: u64) {
        match &self.bar {
            Some(bar) => bar.set_position(bar.length().unwrap_or(0).saturating_sub(left)),
            None if left != self.left => complain(&format_args!("{} left", calls(left))),
            None => {}
        }
        self.left = left;
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
