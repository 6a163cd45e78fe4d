//! Where clients come in: sockets bound at start, one set for each worker.
//!
//! Every worker has its own socket on every address (SO_REUSEPORT); the kernel deals the clients out by
//! their 5-tuple, which is how allocations are divided among workers without a lock. A socket that the
//! service manager opened is taken over by the first worker; the others join it if the kernel lets them.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use ipnet::IpNet;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::StartError;
use super::udp;
use crate::turn::Transport;

/// The queue of connections that the kernel completed and no worker has taken yet.
const BACKLOG: i32 = 1024;
/// The kernel's buffers of a socket that all clients of a worker share; it gives what its limits allow.
const SHARED_BUFFER: usize = 4 << 20;

/// An address that clients may send to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Address and port; a wildcard address stands for all of its family.
    pub address: SocketAddr,
    /// What is spoken there. Where it is TCP, TLS is understood as well as soon as there is a certificate.
    pub transport: Transport,
    /// The proxies that clients come through, with a PROXY header at the beginning of each connection; nobody
    /// else is let in then. Empty where clients come themselves.
    pub proxies: Vec<IpNet>,
    /// Where web clients are passed on to that come to a stream listener; nowhere, and they are closed.
    pub web: Option<Web>,
}

/// Where web clients are passed on to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Web {
    /// A web server that speaks HTTP/1.1 over plain TCP.
    Backend(SocketAddr),
    /// Whoever asked for them by [`Handle::web_clients`](super::Handle::web_clients).
    Own,
}

impl Listen {
    /// A listener without any special treatment.
    pub fn new(address: SocketAddr, transport: Transport) -> Self {
        Self {
            address,
            transport,
            proxies: Vec::new(),
            web: None,
        }
    }

    /// Whether this address is a proxy's.
    pub(super) fn trusts(&self, ip: IpAddr) -> bool {
        self.proxies.iter().any(|prefix| prefix.contains(&ip))
    }
}

/// Sockets that the service manager has opened.
#[derive(Debug, Default)]
pub struct Adopted {
    /// Bound UDP sockets.
    pub udp: Vec<UdpSocket>,
    /// Listening TCP sockets.
    pub tcp: Vec<TcpListener>,
}

/// The sockets of one worker.
pub(super) struct Bound {
    pub(super) udp: Vec<(Socket, Arc<Listen>)>,
    pub(super) tcp: Vec<(Socket, Arc<Listen>)>,
}

impl Bound {
    /// The same sockets again, for a worker that starts afresh.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        let udp = self
            .udp
            .iter()
            .map(|(socket, listen)| Ok((socket.try_clone()?, Arc::clone(listen))));
        let tcp = self
            .tcp
            .iter()
            .map(|(socket, listen)| Ok((socket.try_clone()?, Arc::clone(listen))));
        Ok(Self {
            udp: udp.collect::<io::Result<_>>()?,
            tcp: tcp.collect::<io::Result<_>>()?,
        })
    }
}

/// Binds everything, or takes it over, for each of `workers`.
///
/// # Errors
/// The first address that cannot be had, and why.
pub(super) fn bind(
    listeners: &[Listen],
    adopted: &Adopted,
    workers: usize,
) -> Result<Vec<Bound>, StartError> {
    (0..workers)
        .map(|worker| bind_worker(listeners, adopted, worker))
        .collect()
}

fn bind_worker(
    listeners: &[Listen],
    adopted: &Adopted,
    worker: usize,
) -> Result<Bound, StartError> {
    let mut bound = Bound {
        udp: Vec::new(),
        tcp: Vec::new(),
    };
    for listen in listeners {
        let given =
            take_over(listen, adopted).map_err(|source| StartError::bind(listen, source))?;
        let socket = match given {
            Some(socket) if worker == 0 => Ok(socket),
            // The manager may not have set SO_REUSEPORT, or may own a port that we may not bind.
            Some(_) => match open(listen) {
                Ok(socket) => Ok(socket),
                Err(_) => continue,
            },
            None => open(listen),
        };
        let socket = socket.map_err(|source| StartError::bind(listen, source))?;
        if listen.transport.is_stream() {
            bound.tcp.push((socket, Arc::new(listen.clone())));
        } else {
            prepare_datagrams(&socket, listen.address)
                .map_err(|source| StartError::bind(listen, source))?;
            // Port 0 asks the kernel for one: tests do.
            let address = local_address(&socket, listen.address);
            let listen = Listen {
                address,
                ..listen.clone()
            };
            bound.udp.push((socket, Arc::new(listen)));
        }
    }
    Ok(bound)
}

fn open(listen: &Listen) -> io::Result<Socket> {
    let socket = unbound(listen)?;
    socket.set_reuse_port(true)?;
    socket.bind(&listen.address.into())?;
    if listen.transport.is_stream() {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

/// The manager's socket for this address, if it opened one.
fn take_over(listen: &Listen, adopted: &Adopted) -> io::Result<Option<Socket>> {
    let fits =
        |address: io::Result<SocketAddr>| address.is_ok_and(|address| address == listen.address);
    let socket: Option<Socket> = if listen.transport.is_stream() {
        let found = adopted.tcp.iter().find(|socket| fits(socket.local_addr()));
        found
            .map(TcpListener::try_clone)
            .transpose()?
            .map(Into::into)
    } else {
        let found = adopted.udp.iter().find(|socket| fits(socket.local_addr()));
        found.map(UdpSocket::try_clone).transpose()?.map(Into::into)
    };
    if let Some(socket) = &socket {
        socket.set_nonblocking(true)?;
    }
    Ok(socket)
}

fn prepare_datagrams(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    // The kernel's limits decide what is given; less is no error.
    let _ = socket.set_recv_buffer_size(SHARED_BUFFER);
    let _ = socket.set_send_buffer_size(SHARED_BUFFER);
    udp::dont_fragment(socket.as_fd(), address.is_ipv4(), false)?;
    udp::coalesce(socket.as_fd());
    if address.ip().is_unspecified() {
        udp::report_destination(socket.as_fd(), address.is_ipv4())?;
    }
    Ok(())
}

/// Where a socket is really bound.
fn local_address(socket: &Socket, fallback: SocketAddr) -> SocketAddr {
    SockRef::from(socket)
        .local_addr()
        .ok()
        .and_then(|address| address.as_socket())
        .unwrap_or(fallback)
}

/// Checks that nobody else has the addresses. With SO_REUSEPORT the kernel would let two servers of one
/// user share a port, and each would see half of the clients.
///
/// # Errors
/// The first address that another process listens on.
pub(super) fn refuse_shared(listeners: &[Listen], adopted: &Adopted) -> Result<(), StartError> {
    for listen in listeners {
        let given =
            take_over(listen, adopted).map_err(|source| StartError::bind(listen, source))?;
        if given.is_some() || listen.address.port() == 0 {
            continue;
        }
        unbound(listen)
            .and_then(|socket| socket.bind(&listen.address.into()))
            .map_err(|source| StartError::bind(listen, source))?;
    }
    Ok(())
}

/// A socket of the right kind, not bound yet.
fn unbound(listen: &Listen) -> io::Result<Socket> {
    let stream = listen.transport.is_stream();
    let (kind, protocol) = if stream {
        (Type::STREAM, Protocol::TCP)
    } else {
        (Type::DGRAM, Protocol::UDP)
    };
    let socket = Socket::new(
        Domain::for_address(listen.address),
        kind.nonblocking(),
        Some(protocol),
    )?;
    if listen.address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if stream {
        // A restart must not wait for the last connections' TIME-WAIT.
        socket.set_reuse_address(true)?;
    }
    Ok(socket)
}
