//! turnd: a STUN and TURN relay server.
#![deny(unsafe_code)]

pub mod metrics;
pub mod stun;
pub mod turn;

#[cfg(feature = "server")]
pub mod plane;
