//! The small languages of single values: durations, port ranges, prefixes, translated addresses.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use super::problem::{Complaint, nearest};

/// Milliseconds of each unit, the longest first.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// A duration such as `30s`, `1h30m` or `2d`.
///
/// # Errors
///
/// If it is not a row of numbers, each with one of the units d, h, m, s and ms.
pub fn duration(text: &str) -> Result<Duration, Complaint> {
    let wrong = || {
        Complaint::new(
            format!("`{text}` is not a duration"),
            "write a number with its unit, as in \"30s\", \"10m\" or \"1h30m\"",
        )
    };
    let mut rest = text.trim();
    let mut total = 0_u64;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|letter: char| !letter.is_ascii_digit())
            .ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit_end = rest[digits..]
            .find(|letter: char| letter.is_ascii_digit())
            .map_or(rest.len(), |length| digits + length);
        let unit = rest[digits..unit_end].trim();
        let (_, milliseconds) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(wrong)?;
        total = number
            .checked_mul(*milliseconds)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(wrong)?;
        rest = rest[unit_end..].trim_start();
    }
    Ok(Duration::from_millis(total))
}

/// The shortest text that [`duration`] reads as this duration.
pub fn show_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, milliseconds) in UNITS {
        if rest >= milliseconds {
            let _ = write!(text, "{}{unit}", rest / milliseconds);
            rest %= milliseconds;
        }
    }
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text
    }
}

/// A duration within bounds.
pub(super) fn duration_within(
    text: &str,
    bounds: RangeInclusive<Duration>,
) -> Result<Duration, Complaint> {
    let duration = duration(text)?;
    if bounds.contains(&duration) {
        return Ok(duration);
    }
    let (least, most) = (show_duration(*bounds.start()), show_duration(*bounds.end()));
    Err(Complaint::new(
        format!("{text} is out of bounds"),
        format!("write a duration from {least} to {most}"),
    ))
}

/// Bits a second of each unit, the largest first.
const BIT_UNITS: [(char, u64); 3] = [('G', 1_000_000_000), ('M', 1_000_000), ('k', 1000)];
/// A thousand Gbit/s: more is a slip of the pen.
pub(crate) const LARGEST_RATE: u64 = 1_000_000_000_000;

/// Bits a second, `4M` or `500k`; 0 is no limit.
pub(super) fn bit_rate(text: &str) -> Result<u64, Complaint> {
    let wrong = || {
        Complaint::new(
            format!("`{text}` is not a number of bits a second"),
            "write a whole number with k, M or G, as in \"4M\" or \"500k\", at most \"1000G\"; \"0\" for no limit",
        )
    };
    let trimmed = text.trim();
    let unit = BIT_UNITS
        .iter()
        .find_map(|(unit, bits)| Some((trimmed.strip_suffix(*unit)?, *bits)));
    let (digits, bits) = unit.unwrap_or((trimmed, 1));
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let rate = number.checked_mul(bits);
    rate.filter(|rate| *rate <= LARGEST_RATE).ok_or_else(wrong)
}

/// The shortest text that [`bit_rate`] reads as this rate.
pub(crate) fn show_bit_rate(rate: u64) -> String {
    let unit = BIT_UNITS
        .iter()
        .find(|(_, bits)| rate != 0 && rate.is_multiple_of(*bits));
    match unit {
        Some((unit, bits)) => format!("{}{unit}", rate / bits),
        None => rate.to_string(),
    }
}

/// A range of relay ports, `49152-65535`.
pub(super) fn ports(text: &str) -> Result<RangeInclusive<u16>, Complaint> {
    let remedy = "write the first and the last port, as in \"49152-65535\"";
    let wrong = || Complaint::new(format!("`{text}` is not a range of ports"), remedy);
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let first: u16 = first.trim().parse().map_err(|_| wrong())?;
    let last: u16 = last.trim().parse().map_err(|_| wrong())?;
    if first > last {
        return Err(Complaint::new(
            format!("the range {text} ends before it begins"),
            remedy,
        ));
    }
    if first < 1024 {
        return Err(Complaint::new(
            format!("port {first} is a system port"),
            "begin the range at 1024 or above",
        ));
    }
    Ok(first..=last)
}

/// An address with its port, `0.0.0.0:3478` or `[::]:3478`.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, Complaint> {
    text.parse().map_err(|_| {
        let remedy = match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => format!("add the port: \"{ip}:3478\""),
            Ok(IpAddr::V6(ip)) => format!("add the port: \"[{ip}]:3478\""),
            Err(_) if text.starts_with(':') => format!("write the address too: \"0.0.0.0{text}\""),
            Err(_) => "write an IP address and a port, as in \"0.0.0.0:3478\" or \"[::]:3478\"; names are not looked up".to_owned(),
        };
        Complaint::new(format!("`{text}` is not an address with a port"), remedy)
    })
}

/// An address without a port.
pub(super) fn ip(text: &str) -> Result<IpAddr, Complaint> {
    text.parse().map_err(|_| {
        let remedy = "write an IP address without a port, as in \"203.0.113.4\" or \"2001:db8::4\"; names are not looked up";
        Complaint::new(format!("`{text}` is not an IP address"), remedy)
    })
}

/// A prefix, `10.1.0.0/16`; an address alone is the prefix of itself.
pub(super) fn prefix(text: &str) -> Result<IpNet, Complaint> {
    let wrong = || {
        Complaint::new(
            format!("`{text}` is not a prefix"),
            "write an address and a length, as in \"10.1.0.0/16\" or \"2001:db8::/32\"",
        )
    };
    let net = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| wrong())?;
    if net.addr() == net.network() {
        return Ok(net);
    }
    let remedy = format!(
        "write {} for the whole prefix, or {} for the one address",
        net.trunc(),
        net.addr()
    );
    Err(Complaint::new(
        format!("`{text}` has bits behind its length"),
        remedy,
    ))
}

/// One word out of a closed set.
pub(super) fn word<T: Copy>(text: &str, known: &[(&str, T)]) -> Result<T, Complaint> {
    if let Some((_, value)) = known.iter().find(|(name, _)| *name == text) {
        return Ok(*value);
    }
    let names = || known.iter().map(|(name, _)| *name);
    let remedy = match nearest(text, names()) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!(
            "write one of {}",
            names()
                .map(|name| format!("\"{name}\""))
                .collect::<Vec<_>>()
                .join(", ")
        ),
    };
    Err(Complaint::new(
        format!("`{text}` is not known here"),
        remedy,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_they_are_shown() {
        for (text, seconds) in [
            ("30s", 30),
            ("1h", 3600),
            ("1h30m", 5400),
            ("2d", 172_800),
            ("0s", 0),
            ("1d1h1m1s", 90_061),
        ] {
            let parsed = duration(text).unwrap();
            assert_eq!(parsed, Duration::from_secs(seconds), "{text}");
            assert_eq!(show_duration(parsed), text);
        }
        assert_eq!(duration("1500ms").unwrap(), Duration::from_millis(1500));
        for wrong in [
            "",
            "30",
            "s",
            "1x",
            "-1s",
            "1.5h",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_read_as_they_are_shown() {
        for (text, bits) in [
            ("0", 0),
            ("999", 999),
            ("64k", 64_000),
            ("1500k", 1_500_000),
            ("4M", 4_000_000),
            ("10G", 10_000_000_000),
        ] {
            assert_eq!(bit_rate(text).unwrap(), bits, "{text}");
            assert_eq!(show_bit_rate(bits), text);
        }
        assert_eq!(bit_rate("4000k").unwrap(), 4_000_000);
        for wrong in [
            "",
            "k",
            "4m",
            "4 Mbit",
            "1.5M",
            "-1",
            "+1",
            "1001G",
            "99999999999999999999G",
        ] {
            assert!(bit_rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_range_has_a_beginning_and_an_end() {
        assert_eq!(ports("49152-65535").unwrap(), 49152..=65535);
        assert_eq!(ports("2000 - 2000").unwrap(), 2000..=2000);
        for wrong in ["", "49152", "2000-1999", "80-90", "1024-65536", "a-b"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_prefix_says_which_bits_it_means() {
        assert_eq!(prefix("10.1.0.0/16").unwrap().to_string(), "10.1.0.0/16");
        assert_eq!(prefix("10.1.2.3").unwrap().to_string(), "10.1.2.3/32");
        assert!(
            prefix("10.1.2.3/16")
                .unwrap_err()
                .remedy
                .contains("10.1.0.0/16")
        );
    }

    #[test]
    fn a_forgotten_port_is_named() {
        assert!(
            socket_address("0.0.0.0")
                .unwrap_err()
                .remedy
                .contains("0.0.0.0:3478")
        );
        assert!(
            socket_address("::")
                .unwrap_err()
                .remedy
                .contains("[::]:3478")
        );
        assert!(socket_address("turn.example.org:3478").is_err());
    }
}
