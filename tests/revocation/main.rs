//! Revocation: credentials, users and tenants that are refused from one moment to the next, and whose calls end.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod calls;
mod daemon;
mod machine;
mod model;
#[path = "../daemon/process.rs"]
mod process;
#[path = "../support/mod.rs"]
mod support;
#[path = "../wire/mod.rs"]
mod wire;
