//! The part of an address that limits are kept by.

use std::net::IpAddr;

/// What one subscriber holds: an IPv4 address, the /64 of an IPv6 address.
pub(super) fn subscriber(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
    }
}
