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

mod extent;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::response::Reject;
use super::verdict::labels;
use super::{Reach, Relays};

pub use extent::Extent;

/// Which peers may be reached. The default is the default-deny policy without exceptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// Prefixes that are reached although the default policy refuses them.
    pub allow: Vec<IpNet>,
    /// Prefixes that are never reached.
    pub deny: Vec<IpNet>,
}

/// What closes a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What stands against it.
    pub closes: Closes,
    /// Whether that is about the IPv4 address that an IPv6 address leads to, not about the latter itself.
    pub embedded: bool,
}

/// What stands against an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closes {
    /// It is one of this server's own, and no open relay.
    Own,
    /// The operator has closed a prefix of this length around it ([`Peers::deny`]).
    Deny(u8),
    /// It is in a range that no operator can open.
    Never(Range),
    /// It is in a range that stays closed unless the operator opens it ([`Peers::allow`]).
    Special(Range),
}

impl Rule {
    /// The address that is closed: the peer's, or the one within it.
    pub fn address(self, peer: IpAddr) -> IpAddr {
        match embedded(peer).filter(|_| self.embedded) {
            Some(v4) => IpAddr::V4(v4),
            None => peer,
        }
    }

    /// The prefix that is closed, of a peer that this rule stands against.
    pub fn prefix(self, peer: IpAddr) -> Option<IpNet> {
        let address = self.address(peer);
        let length = match self.closes {
            Closes::Own => return None,
            Closes::Deny(length) => length,
            Closes::Never(range) | Closes::Special(range) => length_of(range, address)?,
        };
        Some(IpNet::new(address, length).ok()?.trunc())
    }
}

impl Peers {
    /// Judges a peer that a client names.
    ///
    /// # Errors
    /// [`Reject::Forbidden`]
    pub(super) fn judge(&self, peer: SocketAddr, relays: &impl Relays) -> Result<(), Reject> {
        match self.rule(peer.ip(), relays.reach(peer)) {
            None => Ok(()),
            Some(_) => Err(Reject::Forbidden),
        }
    }

    /// What closes a peer, by where it is; nothing if it may be reached.
    ///
    /// Our own addresses are closed but for open relays, which are open wherever they are: the peer behind one is a
    /// client of ours.
    pub fn rule(&self, peer: IpAddr, reach: Reach) -> Option<Rule> {
        let own = |closes| Rule {
            closes,
            embedded: false,
        };
        match reach {
            Reach::Outside => self.outside(peer),
            Reach::LiveRelay => self.denied(peer).map(own),
            Reach::Own => Some(own(Closes::Own)),
        }
    }

    /// Whether a peer outside this server may be reached.
    pub fn permit(&self, peer: IpAddr) -> bool {
        self.outside(peer).is_none()
    }

    /// Whether the operator has closed this address explicitly.
    pub fn denies(&self, peer: IpAddr) -> bool {
        self.denied(peer).is_some()
    }

    fn outside(&self, peer: IpAddr) -> Option<Rule> {
        if let Some(closes) = self.closes(peer) {
            return Some(Rule {
                closes,
                embedded: false,
            });
        }
        // Who reaches an IPv4 address through a translator or a tunnel must be allowed to reach it at all.
        let closes = self.closes(IpAddr::V4(embedded(peer)?))?;
        Some(Rule {
            closes,
            embedded: true,
        })
    }

    fn closes(&self, peer: IpAddr) -> Option<Closes> {
        if let Some(denied) = self.denied(peer) {
            return Some(denied);
        }
        if let Some(range) = never_reached(peer) {
            return Some(Closes::Never(range));
        }
        special(peer)
            .filter(|_| !contains(&self.allow, peer))
            .map(Closes::Special)
    }

    fn denied(&self, peer: IpAddr) -> Option<Closes> {
        let prefix = self.deny.iter().find(|prefix| prefix.contains(&peer))?;
        Some(Closes::Deny(prefix.prefix_len()))
    }
}

labels! {
    /// A range of addresses that is closed.
    Range {
        /// `0/8`, which Linux takes for itself.
        ThisNetwork = "this network",
        /// One packet, many hosts.
        Multicast = "multicast",
        /// Reserved, and limited broadcast.
        Reserved = "reserved",
        /// Networks behind routers: RFC 1918, and unique local IPv6 addresses.
        Private = "private",
        /// Shared by the customers of a provider's NAT: RFC 6598.
        Shared = "carrier-grade NAT",
        /// The host itself.
        Loopback = "loopback",
        /// The wire itself, and the metadata service of most clouds.
        LinkLocal = "link-local",
        /// Set aside for protocols by IANA.
        Protocol = "protocol assignments",
        /// Addresses of examples.
        Documentation = "documentation",
        /// Name servers for private addresses.
        As112 = "AS112",
        /// Multicast tunnels.
        Amt = "AMT",
        /// Addresses of test networks.
        Benchmarking = "benchmarking",
        /// The metadata service of a cloud, in public space.
        Metadata = "cloud metadata",
        /// A tunnel that can be made to loop (RFC 8656 §21.4).
        Teredo = "Teredo",
        /// A tunnel that can be made to loop (RFC 8656 §21.4).
        SixToFour = "6to4",
        /// IPv4 in IPv6, which must be named as IPv4.
        Compatible = "unspecified or IPv4-compatible",
        /// IPv4 in IPv6, which must be named as IPv4.
        Mapped = "IPv4-mapped",
        /// IPv4 in IPv6, which must be named as IPv4.
        Translated = "IPv4-translated",
        /// A translator to IPv4.
        Nat64 = "NAT64",
        /// IPv6 outside of `2000::/3`.
        NotGlobal = "not global",
    }
}

/// Whether an address belongs to a tunnel mechanism that can be made to loop or amplify (RFC 8656 §21.4).
pub(super) fn is_tunnel(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => in_v4(&[RELAY_6TO4], v4).is_some(),
        IpAddr::V6(v6) => in_v6(&[TEREDO, SIX_TO_FOUR], v6).is_some(),
    }
}

/// What no operator can open: nothing that answers is there, or more than one host is.
fn never_reached(peer: IpAddr) -> Option<Range> {
    match peer {
        IpAddr::V4(v4) => in_v4(&[RELAY_6TO4], v4).or_else(|| in_v4(ALWAYS_V4, v4)),
        IpAddr::V6(v6) => in_v6(&[TEREDO, SIX_TO_FOUR], v6)
            .or_else(|| in_v6(ALWAYS_V6, v6).filter(|_| v6 != Ipv6Addr::LOCALHOST)),
    }
}

/// What is refused unless the operator opens it.
fn special(peer: IpAddr) -> Option<Range> {
    match peer {
        IpAddr::V4(v4) => in_v4(SPECIAL_V4, v4),
        IpAddr::V6(v6) if in_v6(&[GLOBAL_V6], v6).is_some() => in_v6(SPECIAL_V6, v6),
        IpAddr::V6(v6) => in_v6(LOCAL_V6, v6).or(Some(Range::NotGlobal)),
    }
}

/// How long the prefix is by which an address is in a range.
fn length_of(range: Range, address: IpAddr) -> Option<u8> {
    let tables_v4 = [&[RELAY_6TO4][..], ALWAYS_V4, SPECIAL_V4];
    let tables_v6 = [&[TEREDO, SIX_TO_FOUR][..], ALWAYS_V6, SPECIAL_V6, LOCAL_V6];
    let length = match address {
        IpAddr::V4(v4) => {
            tables_v4
                .into_iter()
                .flatten()
                .find(|row| row.1 == range && in_v4(&[**row], v4).is_some())?
                .0
                .1
        }
        IpAddr::V6(v6) => {
            tables_v6
                .into_iter()
                .flatten()
                .find(|row| row.1 == range && in_v6(&[**row], v6).is_some())?
                .0
                .1
        }
    };
    u8::try_from(length).ok()
}

/// The IPv4 address behind an address of the well-known NAT64 prefix (RFC 6052 §2.1) or of an ISATAP interface
/// (RFC 5214 §6.1).
fn embedded(peer: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = peer else { return None };
    let isatap = (v6.to_bits() >> 32) as u32 & 0xfcff_ffff == 0x5efe;
    (isatap || in_v6(&[NAT64], v6).is_some()).then(|| Ipv4Addr::from_bits(v6.to_bits() as u32))
}

fn contains(prefixes: &[IpNet], address: IpAddr) -> bool {
    prefixes.iter().any(|prefix| prefix.contains(&address))
}

/// The leading bits of a prefix, as a number, how many of them count, and what lies there.
type PrefixV4 = ((u32, u32), Range);
type PrefixV6 = ((u128, u32), Range);

fn in_v4(prefixes: &[PrefixV4], address: Ipv4Addr) -> Option<Range> {
    prefixes
        .iter()
        .find(|((bits, len), _)| (address.to_bits() ^ bits) >> (32 - len) == 0)
        .map(|(_, range)| *range)
}

fn in_v6(prefixes: &[PrefixV6], address: Ipv6Addr) -> Option<Range> {
    prefixes
        .iter()
        .find(|((bits, len), _)| (address.to_bits() ^ bits) >> (128 - len) == 0)
        .map(|(_, range)| *range)
}

const fn v4(a: u8, b: u8, c: u8, d: u8, len: u32, range: Range) -> PrefixV4 {
    ((Ipv4Addr::new(a, b, c, d).to_bits(), len), range)
}

const fn v6(head: [u16; 3], len: u32, range: Range) -> PrefixV6 {
    let address = Ipv6Addr::new(head[0], head[1], head[2], 0, 0, 0, 0, 0);
    ((address.to_bits(), len), range)
}

const RELAY_6TO4: PrefixV4 = v4(192, 88, 99, 0, 24, Range::SixToFour);
const TEREDO: PrefixV6 = v6([0x2001, 0, 0], 32, Range::Teredo);
const SIX_TO_FOUR: PrefixV6 = v6([0x2002, 0, 0], 16, Range::SixToFour);
const NAT64: PrefixV6 = v6([0x64, 0xff9b, 0], 96, Range::Nat64);
/// Not closed: what lies outside is.
const GLOBAL_V6: PrefixV6 = v6([0x2000, 0, 0], 3, Range::NotGlobal);

const ALWAYS_V4: &[PrefixV4] = &[
    v4(0, 0, 0, 0, 8, Range::ThisNetwork), // Linux takes 0.0.0.0 for itself
    v4(224, 0, 0, 0, 4, Range::Multicast),
    v4(240, 0, 0, 0, 4, Range::Reserved), // and limited broadcast
];

const ALWAYS_V6: &[PrefixV6] = &[
    ((0, 96), Range::Compatible), // ::1 is loopback and can be opened
    ((0xffff_0000_0000, 96), Range::Mapped),
    ((0xffff_0000_0000_0000, 96), Range::Translated), // SIIT
    v6([0xff00, 0, 0], 8, Range::Multicast),
];

/// The IANA IPv4 special-purpose registry, and what a registry does not know.
const SPECIAL_V4: &[PrefixV4] = &[
    v4(10, 0, 0, 0, 8, Range::Private),
    v4(100, 64, 0, 0, 10, Range::Shared), // and a cloud's metadata
    v4(127, 0, 0, 0, 8, Range::Loopback),
    v4(169, 254, 0, 0, 16, Range::LinkLocal), // the metadata of most clouds
    v4(172, 16, 0, 0, 12, Range::Private),
    v4(192, 0, 0, 0, 24, Range::Protocol), // and a cloud's metadata
    v4(192, 0, 2, 0, 24, Range::Documentation),
    v4(192, 31, 196, 0, 24, Range::As112),
    v4(192, 52, 193, 0, 24, Range::Amt),
    v4(192, 168, 0, 0, 16, Range::Private),
    v4(192, 175, 48, 0, 24, Range::As112),
    v4(198, 18, 0, 0, 15, Range::Benchmarking),
    v4(198, 51, 100, 0, 24, Range::Documentation),
    v4(203, 0, 113, 0, 24, Range::Documentation),
    v4(168, 63, 129, 16, 32, Range::Metadata),
];

/// The IANA IPv6 special-purpose registry within `2000::/3`.
const SPECIAL_V6: &[PrefixV6] = &[
    v6([0x2001, 0, 0], 23, Range::Protocol), // Teredo, benchmarking, ORCHID, AMT ...
    v6([0x2001, 0xdb8, 0], 32, Range::Documentation),
    v6([0x2002, 0, 0], 16, Range::SixToFour),
    v6([0x2620, 0x4f, 0x8000], 48, Range::As112),
    v6([0x3fff, 0, 0], 20, Range::Documentation),
];

/// What has a name outside `2000::/3`, where everything is closed.
const LOCAL_V6: &[PrefixV6] = &[
    ((1, 128), Range::Loopback),
    NAT64,
    v6([0xfc00, 0, 0], 7, Range::Private),
    v6([0xfe80, 0, 0], 10, Range::LinkLocal),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn named(peers: &Peers, peer: &str) -> Option<(Closes, bool, String)> {
        let peer: IpAddr = peer.parse().unwrap();
        let rule = peers.rule(peer, Reach::Outside)?;
        let prefix = rule.prefix(peer).map(|prefix| prefix.to_string());
        Some((rule.closes, rule.embedded, prefix.unwrap_or_default()))
    }

    #[test]
    fn a_closed_peer_has_a_rule_with_a_name_and_a_prefix() {
        use Closes::{Deny, Never, Special};
        let peers = Peers {
            allow: vec!["10.1.0.0/16".parse().unwrap()],
            deny: vec!["52.0.0.0/8".parse().unwrap()],
        };
        for (peer, closes, embedded, prefix) in [
            ("10.0.0.1", Special(Range::Private), false, "10.0.0.0/8"),
            (
                "172.31.0.1",
                Special(Range::Private),
                false,
                "172.16.0.0/12",
            ),
            ("127.0.0.1", Special(Range::Loopback), false, "127.0.0.0/8"),
            (
                "169.254.169.254",
                Special(Range::LinkLocal),
                false,
                "169.254.0.0/16",
            ),
            (
                "168.63.129.16",
                Special(Range::Metadata),
                false,
                "168.63.129.16/32",
            ),
            ("224.0.0.251", Never(Range::Multicast), false, "224.0.0.0/4"),
            ("52.1.2.3", Deny(8), false, "52.0.0.0/8"),
            ("::1", Special(Range::Loopback), false, "::1/128"),
            ("fd00:ec2::254", Special(Range::Private), false, "fc00::/7"),
            ("2002:a00:1::", Never(Range::SixToFour), false, "2002::/16"),
            (
                "64:ff9b::a00:1",
                Special(Range::Nat64),
                false,
                "64:ff9b::/96",
            ),
            (
                "2600::5efe:a00:1",
                Special(Range::Private),
                true,
                "10.0.0.0/8",
            ),
            ("2600::5efe:3401:203", Deny(8), true, "52.0.0.0/8"),
            ("4000::1", Special(Range::NotGlobal), false, ""),
        ] {
            let rule = named(&peers, peer);
            assert_eq!(rule, Some((closes, embedded, prefix.to_owned())), "{peer}");
            assert!(!peers.permit(peer.parse().unwrap()));
        }
        for open in ["10.1.0.1", "9.9.9.9", "2600:1::1", "2600::5efe:a01:1"] {
            assert_eq!(named(&peers, open), None, "{open}");
        }
    }

    #[test]
    fn our_own_addresses_are_closed_but_for_open_relays() {
        let peers = Peers::default();
        let peer = "52.1.2.3".parse().unwrap();
        let own = peers.rule(peer, Reach::Own).unwrap();
        assert_eq!((own.closes, own.prefix(peer)), (Closes::Own, None));
        assert_eq!(peers.rule(peer, Reach::LiveRelay), None);
    }
}
