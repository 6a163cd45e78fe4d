//! The statements by subject, each room with its list first and the dialogues that show them below.

pub(crate) mod allocate;
pub(crate) mod codes;
pub(crate) mod credentials;
pub(crate) mod discovery;
pub(crate) mod dtls;
pub(crate) mod header;
pub(crate) mod mobility;
pub(crate) mod oauth;
pub(crate) mod relay;
pub(crate) mod stun;
pub(crate) mod tcp;
