//! Which peers may be reached: the abuse page of the server.
//!
//! A relay lends its network position to its users. Left open, it hands them its loopback interface, the private
//! network around it and the metadata service of its cloud. So the rule is *deny by default*:
//!
//! | abuse | what stops it |
//! |---|---|
//! | loopback and "this host": `127/8`, `0/8`, `::1`, `::` | [`SPECIAL_V4`], [`ALWAYS_V4`]; IPv6 only within `2000::/3` |
//! | IPv4 hidden in IPv6: mapped, compatible, NAT64, SIIT, ISATAP, 6to4, Teredo | IPv6 only within `2000::/3` less [`SPECIAL_V6`]; mapped addresses are refused, not unwrapped |
//! | private and shared space, link-local, ULA, documentation, benchmarking | the whole IANA special-purpose registries |
//! | cloud metadata: `169.254.169.254`, `100.100.100.200`, `192.0.0.192`, `fd00:ec2::254`, `168.63.129.16` | the registries, and the last by name |
//! | multicast and broadcast | [`ALWAYS_V4`], [`ALWAYS_V6`]; broadcast addresses of local networks are [`Reach::Own`] |
//! | our own listeners and other ports of this host | [`Reach::Own`], whatever the prefixes say |
//! | tunnels that amplify (RFC 8656 §21.4) | [`ALWAYS_V4`], [`ALWAYS_V6`], for peers and for clients |
//!
//! An operator opens prefixes one by one with `allow`, and closes more with `deny`, which always wins. There is no
//! switch that opens everything, and a prefix is a prefix: no address ranges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::response::Reject;
use super::{Reach, Relays};

/// Which peers may be reached. The default is the default-deny policy without exceptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// Prefixes that are reached although the default policy refuses them.
    pub allow: Vec<IpNet>,
    /// Prefixes that are never reached.
    pub deny: Vec<IpNet>,
}

impl Peers {
    /// Judges a peer that a client names.
    ///
    /// Our own addresses are closed but for open relays, which are open wherever they are: the peer behind one is a
    /// client of ours.
    ///
    /// # Errors
    /// [`Reject::Forbidden`]
    pub(super) fn judge(&self, peer: SocketAddr, relays: &impl Relays) -> Result<(), Reject> {
        let good = match relays.reach(peer) {
            Reach::Outside => self.permit(peer.ip()),
            Reach::LiveRelay => !self.denies(peer.ip()),
            Reach::Own => false,
        };
        if good { Ok(()) } else { Err(Reject::Forbidden) }
    }

    /// Whether a peer outside this server may be reached.
    pub fn permit(&self, peer: IpAddr) -> bool {
        if self.denies(peer) || is_never_reached(peer) {
            return false;
        }
        if is_special(peer) && !contains(&self.allow, peer) {
            return false;
        }
        // Who reaches an IPv4 address through a translator or a tunnel must be allowed to reach it at all.
        embedded(peer).is_none_or(|v4| self.permit(IpAddr::V4(v4)))
    }

    /// Whether the operator has closed this address explicitly.
    pub fn denies(&self, peer: IpAddr) -> bool {
        contains(&self.deny, peer)
    }
}

/// Whether an address belongs to a tunnel mechanism that can be made to loop or amplify (RFC 8656 §21.4).
pub(super) fn is_tunnel(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => in_v4(&[RELAY_6TO4], v4),
        IpAddr::V6(v6) => in_v6(&[TEREDO, SIX_TO_FOUR], v6),
    }
}

/// What no operator can open: nothing that answers is there, or more than one host is.
fn is_never_reached(peer: IpAddr) -> bool {
    is_tunnel(peer)
        || match peer {
            IpAddr::V4(v4) => in_v4(ALWAYS_V4, v4),
            IpAddr::V6(v6) => v6 != Ipv6Addr::LOCALHOST && in_v6(ALWAYS_V6, v6),
        }
}

/// What is refused unless the operator opens it.
fn is_special(peer: IpAddr) -> bool {
    match peer {
        IpAddr::V4(v4) => in_v4(SPECIAL_V4, v4),
        IpAddr::V6(v6) => !in_v6(&[GLOBAL_V6], v6) || in_v6(SPECIAL_V6, v6),
    }
}

/// The IPv4 address behind an address of the well-known NAT64 prefix (RFC 6052 §2.1) or of an ISATAP interface
/// (RFC 5214 §6.1).
fn embedded(peer: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = peer else { return None };
    let isatap = (v6.to_bits() >> 32) as u32 & 0xfcff_ffff == 0x5efe;
    (isatap || in_v6(&[NAT64], v6)).then(|| Ipv4Addr::from_bits(v6.to_bits() as u32))
}

fn contains(prefixes: &[IpNet], address: IpAddr) -> bool {
    prefixes.iter().any(|prefix| prefix.contains(&address))
}

/// The leading bits of a prefix, as a number, and how many of them count.
type PrefixV4 = (u32, u32);
type PrefixV6 = (u128, u32);

fn in_v4(prefixes: &[PrefixV4], address: Ipv4Addr) -> bool {
    prefixes
        .iter()
        .any(|&(bits, len)| (address.to_bits() ^ bits) >> (32 - len) == 0)
}

fn in_v6(prefixes: &[PrefixV6], address: Ipv6Addr) -> bool {
    prefixes
        .iter()
        .any(|&(bits, len)| (address.to_bits() ^ bits) >> (128 - len) == 0)
}

const fn v4(a: u8, b: u8, c: u8, d: u8, len: u32) -> PrefixV4 {
    (Ipv4Addr::new(a, b, c, d).to_bits(), len)
}

const fn v6(head: [u16; 3], len: u32) -> PrefixV6 {
    (
        Ipv6Addr::new(head[0], head[1], head[2], 0, 0, 0, 0, 0).to_bits(),
        len,
    )
}

const RELAY_6TO4: PrefixV4 = v4(192, 88, 99, 0, 24);
const TEREDO: PrefixV6 = v6([0x2001, 0, 0], 32);
const SIX_TO_FOUR: PrefixV6 = v6([0x2002, 0, 0], 16);
const NAT64: PrefixV6 = v6([0x64, 0xff9b, 0], 96);
const GLOBAL_V6: PrefixV6 = v6([0x2000, 0, 0], 3);

const ALWAYS_V4: &[PrefixV4] = &[
    v4(0, 0, 0, 0, 8),   // this network; Linux takes 0.0.0.0 for itself
    v4(224, 0, 0, 0, 4), // multicast
    v4(240, 0, 0, 0, 4), // reserved, and limited broadcast
];

const ALWAYS_V6: &[PrefixV6] = &[
    (0, 96),                // unspecified, and IPv4-compatible; ::1 is loopback and can be opened
    (0xffff_0000_0000, 96), // IPv4-mapped
    (0xffff_0000_0000_0000, 96), // IPv4-translated (SIIT)
    v6([0xff00, 0, 0], 8),  // multicast
];

/// The IANA IPv4 special-purpose registry, and what a registry does not know.
const SPECIAL_V4: &[PrefixV4] = &[
    v4(10, 0, 0, 0, 8),       // private
    v4(100, 64, 0, 0, 10),    // shared: carrier-grade NAT, and a cloud's metadata
    v4(127, 0, 0, 0, 8),      // loopback
    v4(169, 254, 0, 0, 16),   // link-local: the metadata of most clouds
    v4(172, 16, 0, 0, 12),    // private
    v4(192, 0, 0, 0, 24),     // protocol assignments, and a cloud's metadata
    v4(192, 0, 2, 0, 24),     // documentation
    v4(192, 31, 196, 0, 24),  // AS112
    v4(192, 52, 193, 0, 24),  // AMT
    v4(192, 168, 0, 0, 16),   // private
    v4(192, 175, 48, 0, 24),  // AS112
    v4(198, 18, 0, 0, 15),    // benchmarking
    v4(198, 51, 100, 0, 24),  // documentation
    v4(203, 0, 113, 0, 24),   // documentation
    v4(168, 63, 129, 16, 32), // a cloud's metadata, in public space
];

/// The IANA IPv6 special-purpose registry within `2000::/3`.
const SPECIAL_V6: &[PrefixV6] = &[
    v6([0x2001, 0, 0], 23), // protocol assignments: Teredo, benchmarking, ORCHID, AMT ...
    v6([0x2001, 0xdb8, 0], 32), // documentation
    v6([0x2002, 0, 0], 16), // 6to4
    v6([0x2620, 0x4f, 0x8000], 48), // AS112
    v6([0x3fff, 0, 0], 20), // documentation
];
