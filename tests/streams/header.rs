//! PROXY headers, and who sends them.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::net::{IpAddr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

pub(crate) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2.
pub(crate) fn version_2(kind: [u8; 2], body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u16).to_be_bytes();
    [SIGNATURE, &kind, &length, body].concat()
}

/// A header of version 2 for a client and the address it has connected to.
pub(crate) fn from(client: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut body = Vec::new();
    for ip in [client.ip(), to.ip()] {
        match ip {
            IpAddr::V4(ip) => body.extend(ip.octets()),
            IpAddr::V6(ip) => body.extend(ip.octets()),
        }
    }
    body.extend(client.port().to_be_bytes());
    body.extend(to.port().to_be_bytes());
    version_2([0x21, if client.is_ipv4() { 0x11 } else { 0x21 }], &body)
}

/// A connection from an address of this host.
pub(crate) fn connect_from(address: &str, server: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let local = SocketAddr::new(address.parse().unwrap(), 0);
    socket.bind(&local.into()).unwrap();
    socket.connect(&server.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream
        .set_read_timeout(Some(super::wire::PATIENCE))
        .unwrap();
    stream
}
