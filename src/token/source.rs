//! Where a request comes from, as far as that can be believed.

use std::net::{IpAddr, Ipv4Addr};

use axum::http::HeaderMap;
use ipnet::IpNet;

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Tcp(IpAddr),
    /// A program of this host, through a Unix socket that only some may use: a reverse proxy.
    Unix,
}

/// Whether somebody's word for a client's address counts.
pub(super) fn is_proxy(ip: IpAddr, proxies: &[IpNet]) -> bool {
    let ip = ip.to_canonical();
    proxies.iter().any(|net| net.contains(&ip))
}

/// The client's address. A proxy that is trusted adds, at the end, whom it heard; what stands before is hearsay.
pub(super) fn address(peer: Peer, headers: &HeaderMap, proxies: &[IpNet]) -> IpAddr {
    let mut nearest = match peer {
        Peer::Tcp(ip) => {
            let ip = ip.to_canonical();
            if !is_proxy(ip, proxies) {
                return ip;
            }
            ip
        }
        Peer::Unix => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    let hops = headers.get_all("x-forwarded-for").iter().rev();
    // What is no text is an address that nobody can read: what stands before it is not believed for that.
    let hops = hops.flat_map(|value| value.to_str().unwrap_or_default().rsplit(','));
    for hop in hops {
        let Ok(ip) = hop.trim().parse::<IpAddr>() else {
            return nearest;
        };
        nearest = ip.to_canonical();
        if !is_proxy(nearest, proxies) {
            return nearest;
        }
    }
    nearest
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_stranger_is_who_he_is_whatever_he_says() {
        let mut headers = HeaderMap::new();
        headers.append(
            "x-forwarded-for",
            "203.0.113.1, 198.51.100.7".parse().unwrap(),
        );
        headers.append("x-forwarded-for", "10.0.0.2".parse().unwrap());
        let proxies = ["10.0.0.0/8".parse().unwrap()];
        let from =
            |peer: &str| address(Peer::Tcp(peer.parse().unwrap()), &headers, &proxies).to_string();
        assert_eq!(from("192.0.2.1"), "192.0.2.1");
        assert_eq!(from("10.0.0.1"), "198.51.100.7");
        assert_eq!(from("::ffff:10.0.0.1"), "198.51.100.7");
        let ip = address(Peer::Unix, &headers, &[]);
        assert_eq!(ip.to_string(), "10.0.0.2");
        let broken = HeaderMap::from_iter([(
            "x-forwarded-for".parse().unwrap(),
            "198.51.100.7, unknown".parse().unwrap(),
        )]);
        let ip = address(Peer::Tcp("10.0.0.1".parse().unwrap()), &broken, &proxies);
        assert_eq!(ip.to_string(), "10.0.0.1");
        // Two headers of the client's, to the second of which the proxy adds whom it heard.
        let mut unreadable = HeaderMap::new();
        unreadable.append("x-forwarded-for", "203.0.113.1".parse().unwrap());
        let second = HeaderValue::from_bytes(b"\xff, 198.51.100.7").unwrap();
        unreadable.append("x-forwarded-for", second);
        let peer = Peer::Tcp("10.0.0.1".parse().unwrap());
        let ip = address(peer, &unreadable, &proxies);
        assert_eq!(ip.to_string(), "10.0.0.1");
    }
}
