//! turnd

pub mod stun;
pub mod turn;
