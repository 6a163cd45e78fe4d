//! Other servers' configurations, made into one of turnd's: the way over for those who run coturn.
//!
//! ```text
//!  turnserver.conf ─▶ line ─▶ translation ─┬─▶ TOML, each key with the line it comes from
//!                             (by rooms)   ├─▶ report: mapped, changed meaning, dropped
//!                                          └─▶ secrets, for files of their own
//! ```
//!
//! - [`coturn()`] is a function of a text: it opens no file and writes none.
//! - Every line that says anything is accounted for once in the report; `keys` is the table of all keys of coturn.
//! - What would leave the server more open than it was, or was open already, is marked: somebody has to decide.
//! - No secret stands in the TOML or in the report, not even one behind a misspelled key.
//! - What comes out is TOML, whatever goes in, and `config` accepts it when its secrets and certificates are there.

mod addresses;
mod admin;
mod auth;
mod features;
mod keys;
mod limits;
mod line;
mod listen;
mod operation;
mod peers;
mod relay;
mod report;
mod secrets;
mod toml;
mod translation;

use std::net::IpAddr;
use std::path::PathBuf;

pub use report::{Class, Entry, Report};
pub use secrets::Secret;
use translation::Translation;

/// What the text alone does not tell.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// What the file is called in comments and in the report.
    pub name: String,
    /// Where the file is, for commands that read it.
    pub path: PathBuf,
    /// The directory in which secrets are to lie; an absolute path.
    pub secrets: PathBuf,
    /// The addresses that packets to the world leave from.
    pub local: Vec<IpAddr>,
    /// Can sockets of IPv6 be bound?
    pub has_ipv6: bool,
}

/// What has become of a configuration.
#[derive(Debug)]
pub struct Imported {
    /// The configuration of turnd.
    pub toml: String,
    /// What became of each line.
    pub report: Report,
    /// What has to be put into files for the configuration to be of use.
    pub secrets: Vec<Secret>,
}

/// Translates a `turnserver.conf`.
pub fn coturn(text: &[u8], around: &Surroundings) -> Imported {
    let text = String::from_utf8_lossy(text);
    let mut translation = Translation::new(line::read(&text), around);
    translation.server();
    translation.listen();
    translation.relay();
    translation.auth();
    translation.limits();
    translation.peers();
    translation.tcp_relay();
    translation.nat_discovery();
    translation.redirect();
    translation.tls();
    translation.metrics();
    translation.admin();
    translation.log();
    translation.others();
    translation.end()
}
