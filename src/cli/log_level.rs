//! `turnd log-level`

use std::process::ExitCode;

use clap::Args;
use turnd::config::{self, Sources};
use turnd::http::admin::LogLevel as Level;

use super::client::At;

#[derive(Debug, Args)]
pub(super) struct LogLevel {
    /// What to log from now on, until the next reload, as in [log] level: debug, or info,turnd::plane=debug
    #[arg(value_name = "LEVEL", value_parser = level)]
    level: Option<String>,
    #[command(flatten)]
    at: At,
}

impl LogLevel {
    pub(super) fn run(self, sources: &Sources) -> ExitCode {
        let level = self.level;
        self.at.ask(sources, |client| {
            let Level { level } = match level {
                Some(level) => {
                    client.put("/v1/log-level", &serde_json::json!({ "level": level }))?
                }
                None => client.get("/v1/log-level")?,
            };
            Ok(super::print(&format!("{level}\n")))
        })
    }
}

fn level(text: &str) -> Result<String, String> {
    config::log_level(text).map_err(super::told)
}
