//! What is asked of a socket once, when it is opened.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Lets the current runtime wait until `set`, an epoll set, has something ready.
pub(in crate::plane) fn readable(set: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by the value that is registered, which neither replaces nor closes
    // it while it is.
    Ok(unsafe { AsyncFd::register_with_interest(set, Interest::READABLE) }?)
}

/// Lets the kernel hand over runs of datagrams in one piece. Without it each comes alone, so a kernel
/// that cannot is no error.
pub(in crate::plane) fn coalesce(socket: BorrowedFd<'_>) {
    let _ = set(socket, libc::SOL_UDP, libc::UDP_GRO, 1);
}

/// Asks for the local address of each datagram, for sockets bound to a wildcard (\[S9\]).
pub(in crate::plane) fn report_destination(socket: BorrowedFd<'_>, v4: bool) -> io::Result<()> {
    if v4 {
        set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    } else {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    }
}

/// Asks for the DSCP and ECN of each datagram.
pub(in crate::plane) fn report_marks(socket: BorrowedFd<'_>, v4: bool) -> io::Result<()> {
    if v4 {
        set(socket, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)
    } else {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)
    }
}

/// Asks for the ICMP errors that datagrams of this socket cause, to be read by
/// [`path_error`](super::path_error). Only where every send and receive knows of pending errors.
pub(in crate::plane) fn report_errors(socket: BorrowedFd<'_>, v4: bool) -> io::Result<()> {
    if v4 {
        set(socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)
    } else {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)
    }
}

/// Sets or clears Don't Fragment on what the socket sends. Path MTU discovery of the kernel's own stays
/// off either way: the relay must send what it was given (RFC 8656 §14). IPv4 without DF asks for OMIT and
/// not for DONT, under which the kernel keeps to itself what comes back for a datagram sent with DF before.
pub(in crate::plane) fn dont_fragment(
    socket: BorrowedFd<'_>,
    v4: bool,
    on: bool,
) -> io::Result<()> {
    if v4 {
        let value = if on {
            libc::IP_PMTUDISC_PROBE
        } else {
            libc::IP_PMTUDISC_OMIT
        };
        set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, value)
    } else {
        let value = if on {
            libc::IPV6_PMTUDISC_PROBE
        } else {
            libc::IPV6_PMTUDISC_DONT
        };
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, value)
    }
}

/// Lets the kernel size the receive buffer of a TCP socket again, after it was given a size. Linux 5.14 knows
/// how; before, the buffer becomes as large as it may.
pub(in crate::plane) fn let_receive_buffer_grow(socket: BorrowedFd<'_>) {
    const LARGE: libc::c_int = 4 << 20;
    if set(socket, libc::SOL_SOCKET, libc::SO_BUF_LOCK, 0).is_err() {
        let _ = set(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, LARGE);
    }
}

fn set(socket: BorrowedFd<'_>, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the option's value is an int that lives across the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
