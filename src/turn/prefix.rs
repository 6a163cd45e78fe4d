//! The part of an address by which strangers are told apart.

use std::net::IpAddr;

use super::Family;

/// What one network holds: the /24 of an IPv4 address, the /56 of an IPv6 address.
pub(super) fn network(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => u64::from(v4.to_bits() >> 8),
        // 56 bits; the top one of the word keeps the families apart.
        IpAddr::V6(v6) => (v6.to_bits() >> 72) as u64 | 1 << 63,
    }
}

/// What one subscriber holds: an IPv4 address, the /64 of an IPv6 address.
pub(super) fn subscriber(address: IpAddr) -> (Family, u64) {
    match address {
        IpAddr::V4(v4) => (Family::V4, u64::from(v4.to_bits())),
        IpAddr::V6(v6) => (Family::V6, (v6.to_bits() >> 64) as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_are_24_and_56_bits() {
        assert_eq!(network(ip("192.0.2.1")), network(ip("192.0.2.255")));
        assert_ne!(network(ip("192.0.2.1")), network(ip("192.0.3.1")));
        assert_eq!(
            network(ip("2001:db8:0:aa00::1")),
            network(ip("2001:db8:0:aaff::2"))
        );
        assert_ne!(
            network(ip("2001:db8:0:aa00::1")),
            network(ip("2001:db8:0:ab00::1"))
        );
        assert_ne!(network(ip("::")), network(ip("0.0.0.0")));
    }

    #[test]
    fn subscribers_are_32_and_64_bits() {
        assert_ne!(subscriber(ip("192.0.2.1")), subscriber(ip("192.0.2.2")));
        assert_eq!(
            subscriber(ip("2001:db8::1")),
            subscriber(ip("2001:db8::ffff:2"))
        );
        assert_ne!(
            subscriber(ip("2001:db8::1")),
            subscriber(ip("2001:db8:0:1::1"))
        );
    }
}
