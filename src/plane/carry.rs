//! What is carried through a relay beside the payload.

/// What is carried through a relay beside the payload.
///
/// What a relay does not carry, since no socket tells or takes it for a single datagram, is as RFC 8656 §13 and §14
/// want it then: the TTL is the system's, an incoming DF bit counts as 0, IPv4 options are the system's, and the
/// flow label of IPv6 is the kernel's, made of the outgoing 5-tuple, or 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carry {
    /// ICMP errors about what was sent to a peer are told to the client (RFC 8656 §11.5).
    pub icmp: bool,
    /// The DSCP goes along from datagram to datagram; otherwise it is Best Effort (RFC 8656 §14).
    pub dscp: bool,
    /// ECN goes along from datagram to datagram; otherwise it is Not-ECT (RFC 8656 §14).
    pub ecn: bool,
}

impl Carry {
    /// The bits of the octet of DSCP and ECN that go along: TOS in IPv4, the traffic class in IPv6.
    pub(super) fn marks(self) -> u8 {
        let dscp = if self.dscp { 0b1111_1100 } else { 0 };
        let ecn = if self.ecn { 0b0000_0011 } else { 0 };
        dscp | ecn
    }
}

impl Default for Carry {
    /// Everything.
    fn default() -> Self {
        Self {
            icmp: true,
            dscp: true,
            ecn: true,
        }
    }
}
