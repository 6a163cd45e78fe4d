//! Revocation: credentials, users and tenants that are refused from one moment to the next, and whose calls end.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod machine;
mod model;
#[path = "../support/mod.rs"]
mod support;
