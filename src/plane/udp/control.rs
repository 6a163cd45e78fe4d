//! Control messages: packet info, marks and segment sizes, beside the bytes of a datagram.

use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::ptr;

use super::send::Datagram;

/// Room for a packet-info, a marks and a segment-size control message, or for an error, either family.
pub(super) const CONTROL: usize = 96;

/// A buffer for control messages, aligned as their headers want it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(super) struct Control(pub(super) [u8; CONTROL]);

/// The control messages of a received header: level, type, data.
pub(super) fn messages(header: &libc::msghdr) -> impl Iterator<Item = (i32, i32, &[u8])> {
    // SAFETY: the kernel filled `msg_control` with `msg_controllen` bytes of well-formed messages; the
    // CMSG macros walk within that length, and the buffer lives as long as the header's borrow.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    std::iter::from_fn(move || {
        if next.is_null() {
            return None;
        }
        // SAFETY: `next` is not null, so it points to a whole message inside the buffer (see above).
        unsafe {
            let message = &*next;
            let overhead = libc::CMSG_DATA(next) as usize - next as usize;
            let len = message.cmsg_len.saturating_sub(overhead);
            let data = std::slice::from_raw_parts(libc::CMSG_DATA(next), len);
            next = libc::CMSG_NXTHDR(header, next);
            Some((message.cmsg_level, message.cmsg_type, data))
        }
    })
}

/// Reads a plain C structure; missing bytes read as zero.
pub(super) fn read<T: Copy>(data: &[u8]) -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    let len = data.len().min(size_of::<T>());
    // SAFETY: copies at most the size of T; T is one of the kernel's plain integer structures, for which
    // every bit pattern is valid.
    unsafe {
        ptr::copy_nonoverlapping(data.as_ptr(), value.as_mut_ptr().cast(), len);
        value.assume_init()
    }
}

/// Writes the control messages that a datagram, or a run that begins with it, needs; returns the bytes used.
pub(super) fn write(control: &mut Control, datagram: &Datagram<'_>, segment: Option<u16>) -> usize {
    let mut used = 0;
    match datagram.from {
        Some(IpAddr::V4(ip)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from(ip).to_be(),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            used = write_one(control, used, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        Some(IpAddr::V6(ip)) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: ip.octets(),
                },
                ipi6_ifindex: 0,
            };
            used = write_one(control, used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
        None => {}
    }
    if datagram.marks != 0 {
        let (level, kind) = match datagram.to {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
        };
        used = write_one(control, used, level, kind, i32::from(datagram.marks));
    }
    if let Some(segment) = segment {
        used = write_one(control, used, libc::SOL_UDP, libc::UDP_SEGMENT, segment);
    }
    used
}

fn write_one<T: Copy>(control: &mut Control, at: usize, level: i32, kind: i32, value: T) -> usize {
    let size = size_of::<T>() as u32;
    // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
    let (space, len) = unsafe {
        (
            libc::CMSG_SPACE(size) as usize,
            libc::CMSG_LEN(size) as usize,
        )
    };
    let room = &mut control.0[at..at + space];
    // SAFETY: `room` is `space` bytes, aligned like `Control` because every CMSG_SPACE is a multiple of
    // the header's alignment; header and value fit in it by the definition of CMSG_SPACE.
    unsafe {
        let header: *mut libc::cmsghdr = room.as_mut_ptr().cast();
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = len as _;
        ptr::write_unaligned(libc::CMSG_DATA(header).cast(), value);
    }
    at + space
}
