//! What is carried through a relay beside the payload.

/// What is carried through a relay beside the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carry {
    /// ICMP errors about what was sent to a peer are told to the client (RFC 8656 §11.5).
    pub icmp: bool,
}

impl Default for Carry {
    /// Everything.
    fn default() -> Self {
        Self { icmp: true }
    }
}
