//! turnd: a STUN and TURN relay server.
#![deny(unsafe_code)]

pub mod metrics;
pub mod stun;
pub mod turn;

#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod credential;
#[cfg(feature = "server")]
pub mod daemon;
#[cfg(feature = "server")]
pub mod http;
#[cfg(feature = "server")]
pub mod plane;
#[cfg(feature = "server")]
pub mod systemd;
