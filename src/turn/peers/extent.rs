//! How much of a prefix the default policy closes: for those who translate a list of other people's.

use ipnet::IpNet;

use super::{ALWAYS_V4, GLOBAL_V6, RELAY_6TO4, SPECIAL_V4, SPECIAL_V6};

/// How much of a prefix is closed unless the operator opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// None of it.
    None,
    /// Some of it.
    Part,
    /// All of it.
    All,
}

/// The leading bits of a prefix of either family, and how many of them count.
type Bits = (u128, u32);

impl Extent {
    /// Judges a prefix, but for what tunnels hide in single addresses of it.
    pub fn by_default(prefix: &IpNet) -> Self {
        let IpNet::V6(v6) = prefix else {
            let tables = [SPECIAL_V4, ALWAYS_V4, &[RELAY_6TO4]];
            let closed = tables
                .into_iter()
                .flatten()
                .map(|((bits, len), _)| (u128::from(*bits), *len));
            return Self::judge(prefix, closed);
        };
        let global = overlap(prefix, GLOBAL_V6.0);
        if !global {
            Self::All
        } else if u32::from(v6.prefix_len()) < GLOBAL_V6.0.1 {
            Self::Part
        } else {
            Self::judge(prefix, SPECIAL_V6.iter().map(|(closed, _)| *closed))
        }
    }

    fn judge(prefix: &IpNet, closed: impl Iterator<Item = Bits>) -> Self {
        let mut near = closed.filter(|other| overlap(prefix, *other)).peekable();
        if near.peek().is_none() {
            Self::None
        } else if near.any(|(_, len)| len <= u32::from(prefix.prefix_len())) {
            Self::All
        } else {
            Self::Part
        }
    }
}

/// Whether two prefixes of one family have addresses in common: then one is within the other.
fn overlap(prefix: &IpNet, (other, other_len): Bits) -> bool {
    let bits = match prefix {
        IpNet::V4(v4) => v4.network().to_bits().into(),
        IpNet::V6(v6) => v6.network().to_bits(),
    };
    let shorter = other_len.min(prefix.prefix_len().into());
    let free = u32::from(prefix.max_prefix_len()) - shorter;
    (bits ^ other).checked_shr(free).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::super::Peers;
    use super::*;

    #[test]
    fn a_prefix_is_judged_as_its_addresses_are() {
        for (prefix, judged) in [
            ("10.0.0.0/8", Extent::All),
            ("10.1.2.3/32", Extent::All),
            ("0.0.0.0/0", Extent::Part),
            ("192.0.0.0/8", Extent::Part),
            ("9.0.0.0/8", Extent::None),
            ("192.88.99.0/24", Extent::All),
            ("240.0.0.0/4", Extent::All),
            ("168.63.129.0/24", Extent::Part),
            ("::/0", Extent::Part),
            ("2000::/2", Extent::Part),
            ("2000::/3", Extent::Part),
            ("2001:db8:1::/48", Extent::All),
            ("2a00::/16", Extent::None),
            ("fc00::/7", Extent::All),
            ("::1/128", Extent::All),
            ("64:ff9b::/96", Extent::All),
        ] {
            let prefix: IpNet = prefix.parse().unwrap();
            assert_eq!(Extent::by_default(&prefix), judged, "{prefix}");
            let may = |address| Peers::default().permit(address);
            let ends = [prefix.network(), prefix.broadcast()];
            match judged {
                Extent::All => assert!(!ends.into_iter().any(may), "{prefix}"),
                Extent::None => assert!(ends.into_iter().all(may), "{prefix}"),
                Extent::Part => assert!(prefix.prefix_len() < prefix.max_prefix_len()),
            }
        }
    }
}
