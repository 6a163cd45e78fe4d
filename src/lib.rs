//! turnd: a STUN and TURN relay server (RFC 8489, RFC 8656).
//!
//! The house, from the ground up. A layer uses those below it and knows nothing of those above:
//!
//! ```text
//!  4   main ─▶ cli ─▶ daemon ─▶ config  credential  systemd     wires once; says what it does to people
//!               └──▶ import ─▶ config                          from other servers' configurations
//!  3                  http ─▶ pages  explain  events            pages for operators; what is noted of a call, in words
//!                     token                                     credentials for clients
//!                     probe  revocation                         a client that tests a server; what outlives a call
//!  2                  plane                                     threads, sockets, the kernel; the only unsafe code
//!  1                  turn       metrics                        the protocol as a value; counters
//!  0                  stun                                      bytes
//! ```
//!
//! - [`stun`] reads and writes messages. No state, no clock.
//! - [`turn`] is the protocol machine: bytes and the time go in, one verdict comes out. No socket, no clock, no
//!   lock but one, no log; so a test can live through a year in a second.
//! - [`metrics`] are the counters that a worker owns.
//! - `plane` runs one machine per core, each with sockets of its own, and shares as little as it can.
//! - `http` shows what they counted, and whether they live; `pages` are those that people open in a browser.
//! - `token` hands out credentials over HTTP, to users with a token of their login service and to backends with a key.
//! - `explain` says in words why a call fails; `events` keeps books of sessions.
//! - `probe` is no part of the server: a client that finds out whether one works, this or any other.
//! - `revocation` keeps what has been revoked, and tells the workers.
//! - `config` makes settings of text. It points at the parts; no part sees it.
//! - `import` makes a configuration of coturn's.
//! - `credential` mints what clients log in with; `systemd` talks to the service manager; `daemon` wires all of it.
//!
//! A packet's way: `plane::worker` receives it, [`turn::Server`] judges it, `plane` sends what the verdict says.
//! The feature `server`, on by default, is everything above layer 1; without it this is a library without I/O.
//! The feature `otel`, which is not, lets `events` send spans.
#![deny(unsafe_code)]

pub mod stun;

pub mod metrics;
pub mod turn;

#[cfg(feature = "server")]
pub mod plane;

#[cfg(feature = "server")]
pub mod http;
#[cfg(feature = "server")]
pub mod pages;
#[cfg(feature = "server")]
pub mod probe;
#[cfg(feature = "server")]
pub mod revocation;
#[cfg(feature = "server")]
pub mod token;

#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod credential;
#[cfg(feature = "server")]
pub mod daemon;
#[cfg(feature = "server")]
pub mod events;
#[cfg(feature = "server")]
pub mod explain;
#[cfg(feature = "server")]
pub mod import;
#[cfg(feature = "server")]
pub mod systemd;
