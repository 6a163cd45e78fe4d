//! turnd

pub mod stun;
