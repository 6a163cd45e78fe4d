//! Which rule closes a peer, and what can be done about it.

use std::net::IpAddr;

use super::{Finding, rank};
use crate::turn::{Closes, Range, Reach, Rule};

/// Whether a peer may be reached.
pub(super) fn verdict(peer: IpAddr, rule: Option<Rule>, reach: Reach) -> Finding {
    match rule {
        Some(rule) => {
            let Words { what, remedy } = closed(peer, rule);
            Finding {
                cause: "peer_closed".to_owned(),
                rank: rank::CLOSED_PEER,
                session: None,
                what: format!("{peer} may not be reached: {what}."),
                remedy,
            }
        }
        None => {
            let because = match reach {
                Reach::LiveRelay => ": it is an open relay of this server, with a client behind it",
                Reach::Outside | Reach::Own => ": no rule stands against it",
            };
            Finding {
                cause: "peer_open".to_owned(),
                rank: rank::HARMLESS,
                session: None,
                what: format!("{peer} may be reached{because}."),
                remedy: "If nothing comes back from there, ask for the session: `turnd explain --peer ADDRESS` tells \
                         which sessions have to do with it."
                    .to_owned(),
            }
        }
    }
}

/// What closes a peer, and what to do about it.
pub(super) struct Words {
    pub(super) what: String,
    pub(super) remedy: String,
}

pub(super) fn closed(peer: IpAddr, rule: Rule) -> Words {
    let address = rule.address(peer);
    let it = if rule.embedded {
        format!("it leads to {address}, which")
    } else {
        "it".to_owned()
    };
    let prefix = rule
        .prefix(peer)
        .map_or_else(|| "2000::/3".to_owned(), |prefix| prefix.to_string());
    let (what, remedy) = match rule.closes {
        Closes::Own => (
            format!("{it} is an address of this server itself, and no open relay is there"),
            "A relay must not open the services of its own host. If the peer is another client of this server, it has \
             to be named by its relayed address and port, while its allocation lives."
                .to_owned(),
        ),
        Closes::Deny(_) => (
            format!("{it} is in {prefix}, which `[peers] deny` closes"),
            "Take that entry out of `deny` under [peers], or make it narrower, and reload: `deny` wins over `allow`."
                .to_owned(),
        ),
        Closes::Special(Range::NotGlobal) => (
            format!("{it} is outside of {prefix}, where global IPv6 addresses are"),
            opening(address),
        ),
        Closes::Special(range) => (
            format!(
                "{it} is in {prefix} ({}), which is closed unless it is opened: {}",
                range.label(),
                danger(range)
            ),
            opening(address),
        ),
        Closes::Never(range) => (
            format!(
                "{it} is in {prefix} ({}), which cannot be opened: {}",
                range.label(),
                danger(range)
            ),
            "The peer has to be named by another address; this one is no use to a relay.".to_owned(),
        ),
    };
    Words { what, remedy }
}

fn opening(address: IpAddr) -> String {
    let length = if address.is_ipv4() { 32 } else { 128 };
    format!(
        "If clients shall reach it, add \"{address}/{length}\", or the prefix around it, to `allow` under [peers] and \
         reload. Otherwise nothing needs to be done: browsers name all of their addresses, private ones, too, and try \
         the others."
    )
}

/// Why a range is closed.
fn danger(range: Range) -> &'static str {
    match range {
        Range::Private => "it would lend the users of the relay the private network around it",
        Range::Shared => {
            "it is the inside of a provider's network, and the metadata service of a cloud"
        }
        Range::Loopback => "it would lend the users of the relay the services of this host",
        Range::LinkLocal => "it is the local wire, and the metadata service of most clouds",
        Range::Metadata => "it is a cloud's metadata service, which gives away keys",
        Range::ThisNetwork => "this host takes it for itself",
        Range::Multicast => "one packet would become many",
        Range::Reserved => "nobody has such an address, and broadcast is there",
        Range::Protocol => "it is set aside for protocols, and a cloud's metadata service is there",
        Range::Documentation => "it is for examples; nobody has such an address",
        Range::As112 | Range::Amt => "it leads to the nearest of many servers",
        Range::Benchmarking => "it is for test networks",
        Range::Teredo | Range::SixToFour => "such tunnels can be made to loop and amplify",
        Range::Compatible | Range::Mapped | Range::Translated => {
            "it is IPv4 in disguise; the IPv4 address itself has to be named"
        }
        Range::Nat64 => "it is a translator to IPv4",
        Range::NotGlobal => "it is no global address",
    }
}
