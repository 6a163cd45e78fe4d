//! Receiving: a fixed set of slots that the kernel fills, several at a call.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::BATCH;
use super::control::{self, CONTROL, Control};
use super::errors::{AGAIN, is_of_another};
use super::name;

/// The largest datagram (or GRO super-packet) that a slot takes in.
const SLOT: usize = 65_536;
/// Slots lie a little more than their size apart: at exact powers of two all packets would compete for
/// the same few cache sets.
const STRIDE: usize = SLOT + 5 * 64;

/// A received datagram, or several equal ones that the kernel coalesced.
#[derive(Clone, Copy)]
pub(in crate::plane) struct Received {
    /// Who sent it.
    pub(in crate::plane) from: SocketAddr,
    /// The local address it was sent to, when the socket reports that.
    pub(in crate::plane) to: Option<IpAddr>,
    /// DSCP and ECN, when the socket reports them. The kernel coalesces only what has the same.
    pub(in crate::plane) marks: u8,
    /// Bytes in the slot.
    len: usize,
    /// Bytes of each datagram in it but the last, which may be shorter.
    segment: usize,
}

impl Received {
    /// The datagrams in the slot, as ranges of [`Inbox::bytes`].
    pub(in crate::plane) fn datagrams(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (len, segment) = (self.len, self.segment.max(1));
        // An empty datagram is a datagram too ([C6], [D1]).
        let count = len.div_ceil(segment).max(1);
        (0..count).map(move |i| i * segment..len.min((i + 1) * segment))
    }
}

/// The buffers of one worker's receive batches.
pub(in crate::plane) struct Inbox {
    data: Vec<u8>,
    received: Vec<Received>,
    headers: Vec<libc::mmsghdr>,
    // The arrays that `headers` points into; never resized after `new`.
    vectors: Vec<libc::iovec>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
}

impl Inbox {
    /// Makes room for [`BATCH`] datagrams. Pages are only touched by what really arrives.
    pub(in crate::plane) fn new() -> Self {
        let mut inbox = Self {
            data: vec![0; BATCH * STRIDE],
            received: Vec::with_capacity(BATCH),
            // SAFETY: all-zero is a valid value of these plain C structures.
            headers: unsafe { vec![mem::zeroed(); BATCH] },
            vectors: Vec::with_capacity(BATCH),
            // SAFETY: as above.
            names: unsafe { vec![mem::zeroed(); BATCH] },
            controls: vec![Control([0; CONTROL]); BATCH],
        };
        for slot in inbox.data.chunks_exact_mut(STRIDE) {
            inbox.vectors.push(libc::iovec {
                iov_base: slot.as_mut_ptr().cast(),
                iov_len: SLOT,
            });
        }
        for i in 0..BATCH {
            let header = &mut inbox.headers[i].msg_hdr;
            header.msg_iov = &raw mut inbox.vectors[i];
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut inbox.names[i]).cast();
            header.msg_control = (&raw mut inbox.controls[i]).cast();
        }
        inbox
    }

    /// How many more datagrams fit before [`clear`](Self::clear).
    pub(in crate::plane) fn room(&self) -> usize {
        BATCH - self.received.len()
    }

    /// Forgets what was received; its slots are used again.
    pub(in crate::plane) fn clear(&mut self) {
        self.received.clear();
    }

    /// Receives up to `at_most` datagrams without waiting and returns the slots that they fill.
    ///
    /// # Errors
    /// The socket's error; `WouldBlock` when nothing was there.
    pub(in crate::plane) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        at_most: usize,
    ) -> io::Result<Range<usize>> {
        let start = self.received.len();
        let count = at_most.min(self.room());
        let mut tries = 0;
        let filled = loop {
            match self.receive_into(socket, start, count) {
                Err(error) if tries < AGAIN && error.raw_os_error().is_some_and(is_of_another) => {
                    tries += 1;
                }
                filled => break filled?,
            }
        };
        for i in start..start + filled {
            let received = self.describe(i);
            self.received.push(received);
        }
        Ok(start..start + filled)
    }

    /// One call, into `count` slots from `start`; how many it filled.
    fn receive_into(
        &mut self,
        socket: BorrowedFd<'_>,
        start: usize,
        count: usize,
    ) -> io::Result<usize> {
        for header in &mut self.headers[start..start + count] {
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_controllen = CONTROL;
            header.msg_hdr.msg_flags = 0;
        }
        // SAFETY: each header points to an iovec, a name and a control buffer of `self`, which live in
        // vectors that are never resized and are borrowed mutably for the call.
        let filled = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers[start..].as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        if filled < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(filled as usize)
    }

    /// What is in a slot.
    pub(in crate::plane) fn received(&self, slot: usize) -> Received {
        self.received[slot]
    }

    /// The bytes of a slot.
    pub(in crate::plane) fn bytes(&self, slot: usize) -> &[u8] {
        &self.data[slot * STRIDE..slot * STRIDE + self.received[slot].len]
    }

    fn describe(&self, slot: usize) -> Received {
        let header = &self.headers[slot];
        let len = (header.msg_len as usize).min(SLOT);
        let unspecified = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let mut received = Received {
            from: name::read(&self.names[slot]).unwrap_or(unspecified),
            to: None,
            marks: 0,
            len,
            segment: len,
        };
        for (level, kind, data) in control::messages(&header.msg_hdr) {
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = control::read(data);
                    received.to = Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(
                        info.ipi_addr.s_addr,
                    ))));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = control::read(data);
                    received.to = Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
                }
                // One byte over IPv4, an int over IPv6.
                (libc::IPPROTO_IP, libc::IP_TOS) => received.marks = control::read(data),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    let class: libc::c_int = control::read(data);
                    received.marks = class as u8;
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let segment: libc::c_int = control::read(data);
                    received.segment = usize::try_from(segment).unwrap_or(len);
                }
                _ => {}
            }
        }
        received
    }
}
