//! The two sockets that stand for all clients and all peers.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd,
    time::Duration,
};

use socket2::SockRef;

use super::sys::{self, Batch};

/// Where the datagrams of every client and every peer start and end.
///
/// Both sockets are bound to a port of all addresses; every client and every peer has an address of its own in 127.0.0.0/8,
/// which each datagram names. To the server they are as many parties as there are addresses.
pub(crate) struct Field {
    pub(crate) clients: UdpSocket,
    pub(crate) peers: UdpSocket,
    client_port: u16,
    peer_port: u16,
    pair: bool,
}

impl Field {
    pub(crate) fn open() -> io::Result<Self> {
        let (clients, client_port) = open(Ipv4Addr::UNSPECIFIED)?;
        let (peers, peer_port) = open(Ipv4Addr::UNSPECIFIED)?;
        Ok(Self {
            clients,
            peers,
            client_port,
            peer_port,
            pair: false,
        })
    }

    /// One client and one peer only, whose sockets can be connected.
    pub(crate) fn open_pair() -> io::Result<Self> {
        let (clients, client_port) = open(client_address(0))?;
        let (peers, peer_port) = open(peer_address(0))?;
        Ok(Self {
            clients,
            peers,
            client_port,
            peer_port,
            pair: true,
        })
    }

    /// Connects the sockets of a pair, which makes sending cheaper; true if this is a pair.
    pub(crate) fn connect(&self, server: SocketAddrV4, relayed: SocketAddrV4) -> io::Result<bool> {
        if self.pair {
            self.clients.connect(server)?;
            self.peers.connect(relayed)?;
        }
        Ok(self.pair)
    }

    /// Makes the clients' socket hear everything again, whatever sink it was.
    pub(crate) fn open_ears(&self) -> io::Result<()> {
        match SockRef::from(&self.clients).detach_filter() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The transport address of a client.
    pub(crate) fn client(&self, index: usize) -> SocketAddrV4 {
        SocketAddrV4::new(client_address(index), self.client_port)
    }

    /// The transport address of a peer.
    pub(crate) fn peer(&self, index: usize) -> SocketAddrV4 {
        SocketAddrV4::new(peer_address(index), self.peer_port)
    }
}

fn open(address: Ipv4Addr) -> io::Result<(UdpSocket, u16)> {
    let socket = UdpSocket::bind((address, 0))?;
    SockRef::from(&socket).set_recv_buffer_size(4 << 20)?;
    sys::set_packet_info(socket.as_raw_fd())?;
    sys::set_never_fragment(socket.as_raw_fd(), true)?;
    let port = socket.local_addr()?.port();
    Ok((socket, port))
}

/// The source address of client `index`: 127.16.0.1 and up, good for fifteen million.
pub(crate) fn client_address(index: usize) -> Ipv4Addr {
    Ipv4Addr::from(0x7f10_0001 + index as u32)
}

/// The address of peer `index`: 127.8.0.1 and up, good for half a million.
pub(crate) fn peer_address(index: usize) -> Ipv4Addr {
    Ipv4Addr::from(0x7f08_0001 + index as u32)
}

/// Reads and forgets what waits in a socket; gives how many datagrams that were.
pub(crate) fn empty(socket: &UdpSocket) -> usize {
    let mut batch = Batch::new(64, 2048, false);
    let mut count = 0;
    while let Ok(received @ 1..) = batch.receive(socket.as_raw_fd(), 64) {
        count += received;
        batch.clear();
    }
    count
}

/// Waits for one datagram: where it came from, the address it was sent to, and its bytes.
pub(crate) fn hear(socket: &UdpSocket) -> Option<(SocketAddrV4, Ipv4Addr, Vec<u8>)> {
    let mut batch = Batch::new(1, 2048, true);
    if !sys::wait_readable(socket.as_raw_fd(), Duration::from_secs(1)) {
        return None;
    }
    batch.receive(socket.as_raw_fd(), 1).ok()?;
    let received = batch.received(0);
    Some((received.from, received.to?, batch.payload(0).to_vec()))
}
