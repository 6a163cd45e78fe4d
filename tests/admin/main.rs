//! The operator's seat: the real program is asked through its socket, its listener and its commands.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod change;
mod door;
mod listener;
mod live;
#[path = "../daemon/process.rs"]
mod process;
mod seat;
mod sessions;
mod top;
#[path = "../wire/mod.rs"]
mod wire;
