//! The PROXY protocol, versions 1 and 2: a proxy in front tells who the client is.
//!
//! Only proxies that the operator trusts get here. The header is read to its last byte and not beyond, so that
//! whatever follows it, a TLS handshake for one, finds the stream as if there had been none.

use std::io;
use std::net::SocketAddr;

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of version 1, line end included.
const LONGEST_LINE: usize = 107;
/// The largest body of version 2 that is read: addresses, and what proxies add to them.
const LARGEST_BODY: usize = 4096;
/// Version 2, command LOCAL: the proxy speaks for itself, as to see whether the server lives.
const LOCAL: u8 = 0x20;

/// What a proxy told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plane) enum Header {
    /// Whose the connection is. That the client has connected to another address than ours does not matter:
    /// what holds for its listener is found by ours.
    Client(SocketAddr),
    /// Nobody's: it is the proxy's own, or of a kind that has no address.
    Own,
    /// What came is no header, or not all of it came.
    Broken,
}

/// Reads the header.
pub(super) async fn read(stream: &mut TcpStream) -> Header {
    match whole(stream).await {
        Ok(header) => parse(&header),
        Err(_) => Header::Broken,
    }
}

/// The bytes of the header.
async fn whole(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start == *SIGNATURE {
        binary(stream).await
    } else if start.starts_with(b"PROXY ") {
        line(stream, &start).await
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// The rest of version 2: as long as it says itself.
async fn binary(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let body = usize::from(u16::from_be_bytes([head[2], head[3]]));
    if body > LARGEST_BODY {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut header = [SIGNATURE.as_slice(), &head].concat();
    header.resize(header.len() + body, 0);
    stream
        .read_exact(&mut header[SIGNATURE.len() + head.len()..])
        .await?;
    Ok(header)
}

/// The rest of version 1: as far as the end of the line.
async fn line(stream: &mut TcpStream, start: &[u8]) -> io::Result<Vec<u8>> {
    let mut header = start.to_vec();
    loop {
        let mut ahead = [0; LONGEST_LINE];
        let room = LONGEST_LINE - header.len();
        // Looked at before it is taken: behind the line end stands what is not ours.
        let seen = stream.peek(&mut ahead[..room]).await?;
        let end = ahead[..seen].iter().position(|byte| *byte == b'\n');
        let take = end.map_or(seen, |end| end + 1);
        stream.read_exact(&mut ahead[..take]).await?;
        header.extend_from_slice(&ahead[..take]);
        if end.is_some() {
            return Ok(header);
        }
        if take == 0 || header.len() == LONGEST_LINE {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// What a whole header says.
fn parse(header: &[u8]) -> Header {
    if header.starts_with(SIGNATURE) && header.get(SIGNATURE.len()) == Some(&LOCAL) {
        // Whatever stands behind it is to be ignored.
        return Header::Own;
    }
    let config = ParseConfig {
        include_tlvs: false,
        ..ParseConfig::default()
    };
    match ProxyHeader::parse(header, config) {
        Ok((parsed, length)) if length == header.len() => match parsed.proxied_address() {
            Some(told) if told.protocol == Protocol::Stream => Header::Client(told.source),
            Some(_) | None => Header::Own,
        },
        Ok(_) | Err(_) => Header::Broken,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use rand::rngs::StdRng;
    use rand::{Rng as _, RngExt as _, SeedableRng as _};

    use super::*;

    fn client(address: &str) -> Header {
        Header::Client(address.parse().unwrap())
    }

    #[test]
    fn version_1_is_read() {
        for (line, header) in [
            (
                "PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\r\n",
                client("192.0.2.1:40000"),
            ),
            (
                "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n",
                client("[2001:db8::1]:1"),
            ),
            ("PROXY UNKNOWN\r\n", Header::Own),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Header::Own),
            (
                "PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\n",
                Header::Broken,
            ),
            (
                "PROXY TCP4 192.0.2.1 198.51.100.2 40000\r\n",
                Header::Broken,
            ),
            (
                "PROXY TCP4 192.0.2.1 198.51.100.2 40000 65536\r\n",
                Header::Broken,
            ),
            (
                "PROXY TCP4 2001:db8::1 198.51.100.2 40000 443\r\n",
                Header::Broken,
            ),
            (
                "PROXY UDP4 192.0.2.1 198.51.100.2 40000 443\r\n",
                Header::Broken,
            ),
            (
                "PROXY TCP4 192.0.2.1 198.51.100.2 40000 443 \r\n",
                Header::Broken,
            ),
        ] {
            assert_eq!(parse(line.as_bytes()), header, "{line}");
        }
    }

    #[test]
    fn version_2_is_read() {
        const V4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 2, 0x9c, 0x40, 1, 0xbb];
        let v6 = [
            "2001:db8::1"
                .parse::<Ipv6Addr>()
                .unwrap()
                .octets()
                .as_slice(),
            &"2001:db8::2".parse::<Ipv6Addr>().unwrap().octets(),
            &[0, 1, 0, 2],
        ]
        .concat();
        let with_more = [V4, &[4, 0, 3, 9, 9, 9]].concat();
        let to_v4 = client("192.0.2.1:40000");
        for (what, kind, body, header) in [
            ("TCP4", [0x21, 0x11], V4, to_v4),
            ("TCP4 and more", [0x21, 0x11], &with_more, to_v4),
            ("TCP6", [0x21, 0x21], &v6, client("[2001:db8::1]:1")),
            ("LOCAL", [0x20, 0x00], &[], Header::Own),
            ("LOCAL with addresses", [0x20, 0x11], V4, Header::Own),
            ("LOCAL of no family", [0x20, 0xff], &[1], Header::Own),
            ("no family", [0x21, 0x00], &[], Header::Own),
            ("UDP4", [0x21, 0x12], V4, Header::Own),
            ("UNIX", [0x21, 0x31], &[0; 216], Header::Own),
            ("too short", [0x21, 0x11], &V4[1..], Header::Broken),
            ("too short for its family", [0x21, 0x21], V4, Header::Broken),
            ("no such family", [0x21, 0x41], V4, Header::Broken),
            ("no such command", [0x22, 0x11], V4, Header::Broken),
            ("no such version", [0x11, 0x11], V4, Header::Broken),
        ] {
            let length = (body.len() as u16).to_be_bytes();
            let bytes = [SIGNATURE, kind.as_slice(), &length, body].concat();
            assert_eq!(parse(&bytes), header, "{what}");
            let longer = [&bytes[..], &[0]].concat();
            if header != Header::Own || kind[0] != LOCAL {
                assert_eq!(
                    parse(&longer),
                    Header::Broken,
                    "{what}, and a byte behind it"
                );
            }
        }
    }

    /// A31: noise, and good headers with a few bytes changed, put in or cut off. Whatever is taken for a client's
    /// address is there, read a second time in a way of its own; nothing else is.
    #[test]
    fn a31_a_million_hostile_headers_tell_nothing_that_is_not_there() {
        const MANY: usize = 1_000_000;
        let v4 = [192, 0, 2, 1, 198, 51, 100, 2, 0x9c, 0x40, 1, 0xbb];
        let version_2 = |kind: [u8; 2], body: &[u8]| {
            let length = (body.len() as u16).to_be_bytes();
            [SIGNATURE, kind.as_slice(), &length, body].concat()
        };
        let good = [
            b"PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\r\n".to_vec(),
            b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 1 65535\r\n".to_vec(),
            b"PROXY UNKNOWN\r\n".to_vec(),
            version_2([0x21, 0x11], &v4),
            version_2([0x21, 0x11], &[&v4[..], &[4, 0, 3, 9, 9, 9]].concat()),
            version_2([0x21, 0x21], &[7; 36]),
            version_2([0x20, 0], &[]),
        ];
        let mut random = StdRng::seed_from_u64(31);
        let mut seen = [0; 3];
        for _ in 0..MANY {
            let header = hostile(&mut random, &good);
            // As `whole` does, which lets nothing else through.
            let is_one = header.starts_with(SIGNATURE) || header.starts_with(b"PROXY ");
            let parsed = if is_one {
                parse(&header)
            } else {
                Header::Broken
            };
            match parsed {
                Header::Client(client) => {
                    let told = told(&header);
                    assert_eq!(told, Some(client), "{}", header.escape_ascii());
                }
                Header::Own => {
                    let names_nobody =
                        header.starts_with(SIGNATURE) || header.starts_with(b"PROXY UNKNOWN");
                    assert!(names_nobody, "{}", header.escape_ascii());
                }
                Header::Broken => {}
            }
            seen[match parsed {
                Header::Client(_) => 0,
                Header::Own => 1,
                Header::Broken => 2,
            }] += 1;
        }
        // Of each kind there were many: mutations that leave a header good are part of it.
        assert!(seen.iter().all(|&count| count > MANY / 100), "{seen:?}");
    }

    fn hostile(random: &mut StdRng, good: &[Vec<u8>]) -> Vec<u8> {
        let mut header = good[random.random_range(0..good.len())].clone();
        match random.random_range(0..5) {
            0 => {
                header.resize(random.random_range(0..200), 0);
                random.fill_bytes(&mut header);
            }
            1 => header.truncate(random.random_range(0..=header.len())),
            2 => header.insert(random.random_range(0..=header.len()), random.random()),
            3 => {
                let at = random.random_range(0..header.len());
                header[at] ^= 1 << random.random_range(0..8);
            }
            _ => {
                for _ in 0..random.random_range(1..4) {
                    let at = random.random_range(0..header.len());
                    header[at] = random.random();
                }
            }
        }
        header
    }

    /// The client's address by the letter of the specification.
    fn told(header: &[u8]) -> Option<SocketAddr> {
        if let Some(rest) = header.strip_prefix(SIGNATURE) {
            let (head, body) = rest.split_at_checked(4)?;
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            if head[0] != 0x21 || length != body.len() {
                return None;
            }
            let port = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
            return match head[1] {
                0x11 => {
                    let octets: [u8; 4] = body.get(..4)?.try_into().ok()?;
                    Some((IpAddr::from(Ipv4Addr::from(octets)), port(8)?).into())
                }
                0x21 => {
                    let octets: [u8; 16] = body.get(..16)?.try_into().ok()?;
                    Some((IpAddr::from(Ipv6Addr::from(octets)), port(32)?).into())
                }
                _ => None,
            };
        }
        let line = str::from_utf8(header).ok()?.strip_suffix("\r\n")?;
        let words: Vec<&str> = line.split(' ').collect();
        let &["PROXY", family, source, destination, port, to_port] = words.as_slice() else {
            return None;
        };
        let (source, destination): (IpAddr, IpAddr) =
            (source.parse().ok()?, destination.parse().ok()?);
        let is_v4 = match family {
            "TCP4" => true,
            "TCP6" => false,
            _ => return None,
        };
        to_port.parse::<u16>().ok()?;
        let fits = source.is_ipv4() == is_v4 && destination.is_ipv4() == is_v4;
        fits.then(|| Some((source, port.parse().ok()?).into()))?
    }
}
