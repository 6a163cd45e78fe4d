//! The token service as a process: what it hands out, to whom, in which words; and that the relay takes it.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod config;
mod dialects;
mod document;
mod http;
mod native;
#[path = "../support/outside.rs"]
mod outside;
#[path = "../daemon/process.rs"]
mod process;
mod revocation;
mod service;
mod users;
#[path = "../wire/mod.rs"]
mod wire;
