//! What the network says of datagrams that have left: the socket's error queue.
//!
//! A socket that asks for it ([`report_errors`](super::report_errors)) gets each ICMP error queued with the
//! datagram's destination, and the errno of the last one *pending*: the next call that sends or receives
//! fails with it, although its own datagram is innocent. Reading the queue takes the pending error away; a
//! call that ran into it is made again ([`is_of_another`]).

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::control::{self, CONTROL, Control};
use super::name;
use crate::stun::Icmp;

/// How often a call is made again that failed with what may be another datagram's error. More than once,
/// for one more may come in between; not for ever, for it may be its own.
pub(super) const AGAIN: u32 = 2;

/// An ICMP error, or the kernel's own word that a datagram is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plane) struct PathError {
    /// Where the datagram was sent to; port 0 if that is not known.
    pub(in crate::plane) peer: SocketAddr,
    /// What is said of it.
    pub(in crate::plane) icmp: Icmp,
}

/// Takes the next error off the socket's queue, without waiting. `None` when the queue is empty, or what is
/// in front is gone and was of no use: then the socket is reported again if there is more.
pub(in crate::plane) fn path_error(socket: BorrowedFd<'_>) -> io::Result<Option<PathError>> {
    // SAFETY: all-zero is a valid value of these plain C structures.
    let (mut name, mut header): (libc::sockaddr_storage, libc::msghdr) =
        unsafe { (mem::zeroed(), mem::zeroed()) };
    let mut control = Control([0; CONTROL]);
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = CONTROL;
    // SAFETY: the header points to a name and a control buffer that live across the call, and to no data:
    // what the queue quotes of the datagram is not wanted.
    let read = unsafe {
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags)
    };
    if read < 0 {
        return Err(io::Error::last_os_error());
    }
    let unspecified = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    let peer = name::read(&name).unwrap_or(unspecified);
    Ok(control::messages(&header).find_map(|(level, kind, data)| {
        let reported = matches!(
            (level, kind),
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
        );
        let error: libc::sock_extended_err = control::read(data);
        reported.then(|| describe(error, peer)).flatten()
    }))
}

fn describe(error: libc::sock_extended_err, peer: SocketAddr) -> Option<PathError> {
    let (kind, code) = match error.ee_origin {
        libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6 => (error.ee_type, error.ee_code),
        // The first hop is the kernel itself: it says what a router would.
        libc::SO_EE_ORIGIN_LOCAL if error.ee_errno == libc::EMSGSIZE as u32 => match peer {
            SocketAddr::V4(_) => (3, 4),
            SocketAddr::V6(_) => (2, 0),
        },
        _ => return None,
    };
    Some(PathError {
        peer,
        icmp: Icmp {
            kind,
            code,
            data: error.ee_info,
        },
    })
}

/// Whether a call may have failed because of another datagram than its own: ICMP errors become these.
pub(super) fn is_of_another(errno: i32) -> bool {
    matches!(
        errno,
        libc::ECONNREFUSED
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EMSGSIZE
            | libc::EACCES
            | libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::EOPNOTSUPP
            | libc::EHOSTDOWN
            | libc::ENONET
    )
}
