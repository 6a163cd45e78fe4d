//! Ranges of addresses: coturn says `first-last`, turnd says prefixes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

/// Addresses of one family, from the first to the last. `first <= last`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    is_v6: bool,
    first: u128,
    last: u128,
}

/// Why a text is no range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRange {
    /// It is a prefix, which coturn cannot read.
    Prefix(IpNet),
    /// It is nothing of use.
    Nonsense,
}

impl Range {
    pub(super) fn read(text: &str) -> Result<Self, NoRange> {
        if let Ok(prefix) = text.trim().parse::<IpNet>() {
            return Err(NoRange::Prefix(prefix.trunc()));
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (Some(first), Some(last)) = (address(first), address(last)) else {
            return Err(NoRange::Nonsense);
        };
        if first.is_ipv4() != last.is_ipv4() || first > last {
            return Err(NoRange::Nonsense);
        }
        Ok(Self {
            is_v6: first.is_ipv6(),
            first: bits(first),
            last: bits(last),
        })
    }

    pub(super) fn of(prefix: IpNet) -> Self {
        Self {
            is_v6: prefix.addr().is_ipv6(),
            first: bits(prefix.network()),
            last: bits(prefix.broadcast()),
        }
    }

    /// The fewest prefixes that cover it and nothing else.
    pub(super) fn prefixes(self) -> Vec<IpNet> {
        if self.is_v6 {
            let (first, last) = (
                Ipv6Addr::from_bits(self.first),
                Ipv6Addr::from_bits(self.last),
            );
            return Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect();
        }
        let v4 = |bits: u128| Ipv4Addr::from_bits(bits as u32);
        Ipv4Subnets::new(v4(self.first), v4(self.last), 0)
            .map(IpNet::V4)
            .collect()
    }

    pub(super) fn overlaps(self, other: Self) -> bool {
        self.is_v6 == other.is_v6 && self.first <= other.last && other.first <= self.last
    }

    /// What is left of it when others, sorted by where they begin, are taken out.
    pub(super) fn without(self, others: &[Self]) -> Vec<Self> {
        let mut left = Vec::new();
        let mut rest = Some(self);
        for other in others.iter().filter(|other| self.overlaps(**other)) {
            let Some(part) = rest.filter(|part| part.first <= other.last) else {
                continue;
            };
            if part.first < other.first {
                left.push(Self {
                    last: other.first - 1,
                    ..part
                });
            }
            rest = (other.last < part.last).then(|| Self {
                first: other.last + 1,
                ..part
            });
            if rest.is_none() {
                break;
            }
        }
        left.extend(rest);
        left
    }

    /// By which several are sorted.
    pub(super) fn start(self) -> u128 {
        self.first
    }
}

/// An address, in brackets or not.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    inner.unwrap_or(text).parse().ok()
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(range: &str, without: &[&str]) -> Vec<String> {
        let read = |text: &str| Range::read(text).unwrap();
        let mut others: Vec<Range> = without.iter().map(|text| read(text)).collect();
        others.sort_by_key(|other| other.start());
        let left = read(range).without(&others);
        let prefixes = left.into_iter().flat_map(Range::prefixes);
        prefixes.map(|prefix| prefix.to_string()).collect()
    }

    #[test]
    fn a_range_is_covered_by_prefixes_and_nothing_else_is() {
        assert_eq!(prefixes("10.0.0.0-10.255.255.255", &[]), ["10.0.0.0/8"]);
        assert_eq!(prefixes("192.0.2.1", &[]), ["192.0.2.1/32"]);
        assert_eq!(
            prefixes("192.0.2.1-192.0.2.6", &[]),
            [
                "192.0.2.1/32",
                "192.0.2.2/31",
                "192.0.2.4/31",
                "192.0.2.6/32"
            ]
        );
        assert_eq!(
            prefixes("fc00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &[]),
            ["fc00::/7"]
        );
        assert_eq!(prefixes("0.0.0.0-255.255.255.255", &[]), ["0.0.0.0/0"]);
        assert_eq!(
            prefixes("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &[]),
            ["::/0"]
        );
    }

    #[test]
    fn what_is_taken_out_is_gone() {
        assert_eq!(
            prefixes("192.0.2.0-192.0.2.3", &["192.0.2.1"]),
            ["192.0.2.0/32", "192.0.2.2/31"]
        );
        assert_eq!(
            prefixes("192.0.2.0-192.0.2.3", &["192.0.0.0-192.0.9.0"]),
            [""; 0]
        );
        // Some lie within others, or begin at the same place.
        assert_eq!(
            prefixes(
                "192.0.2.0-192.0.2.15",
                &[
                    "192.0.2.4-192.0.2.7",
                    "192.0.2.4",
                    "192.0.2.0-192.0.2.5",
                    "192.0.2.12-192.0.3.0"
                ]
            ),
            ["192.0.2.8/30"]
        );
        assert_eq!(
            prefixes("192.0.2.0-192.0.2.3", &["::1", "10.0.0.1"]),
            ["192.0.2.0/30"]
        );
        let edge = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        assert_eq!(prefixes(edge, &[edge]), [""; 0]);
    }

    #[test]
    fn what_is_no_range_is_told_apart() {
        let prefix = "10.0.0.0/8".parse().unwrap();
        assert_eq!(Range::read("10.0.0.0/8"), Err(NoRange::Prefix(prefix)));
        assert_eq!(Range::read("10.1.0.0/8"), Err(NoRange::Prefix(prefix)));
        for wrong in [
            "",
            "-",
            "a-b",
            "10.0.0.2-10.0.0.1",
            "10.0.0.1-::1",
            "turn.example.org",
        ] {
            assert_eq!(Range::read(wrong), Err(NoRange::Nonsense), "{wrong}");
        }
    }
}
