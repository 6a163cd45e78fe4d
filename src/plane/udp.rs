//! Datagrams in and out of the kernel, a batch at a time.
//!
//! This is the only file of the server that talks to the kernel through pointers. [`Inbox`] owns the
//! buffers that a batch is received into and hands out slices of them; [`Outlet`] gathers the parts of
//! many datagrams (a head, a body that still lies in the inbox, padding) and sends them without copying
//! one payload byte. Runs of equal-sized datagrams to one destination leave as one super-packet that the
//! kernel or the card cuts (UDP_SEGMENT), and arrive as one (UDP_GRO).
#![allow(unsafe_code)]

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How many datagrams one system call moves at most.
pub(super) const BATCH: usize = 64;

/// The largest datagram (or GRO super-packet) that a slot takes in.
const SLOT: usize = 65_536;
/// Slots lie a little more than their size apart: at exact powers of two all packets would compete for
/// the same few cache sets.
const STRIDE: usize = SLOT + 5 * 64;
/// Room for one packet-info and one segment-size control message, either family.
const CONTROL: usize = 96;
/// The kernel cuts one send into at most this many datagrams.
const MAX_SEGMENTS: usize = 64;
/// The largest UDP payload over IPv4.
const MAX_PAYLOAD: usize = 65_507;

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

/// A received datagram, or several equal ones that the kernel coalesced.
#[derive(Clone, Copy)]
pub(super) struct Received {
    /// Who sent it.
    pub(super) from: SocketAddr,
    /// The local address it was sent to, when the socket reports that.
    pub(super) to: Option<IpAddr>,
    /// Bytes in the slot.
    len: usize,
    /// Bytes of each datagram in it but the last, which may be shorter.
    segment: usize,
}

impl Received {
    /// The datagrams in the slot, as ranges of [`Inbox::bytes`].
    pub(super) fn datagrams(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (len, segment) = (self.len, self.segment.max(1));
        // An empty datagram is a datagram too ([C6], [D1]).
        let count = len.div_ceil(segment).max(1);
        (0..count).map(move |i| i * segment..len.min((i + 1) * segment))
    }
}

/// The buffers of one worker's receive batches.
pub(super) struct Inbox {
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
    pub(super) fn new() -> Self {
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
    pub(super) fn room(&self) -> usize {
        BATCH - self.received.len()
    }

    /// Forgets what was received; its slots are used again.
    pub(super) fn clear(&mut self) {
        self.received.clear();
    }

    /// Receives up to `at_most` datagrams without waiting and returns the slots that they fill.
    ///
    /// # Errors
    /// The socket's error; `WouldBlock` when nothing was there.
    pub(super) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        at_most: usize,
    ) -> io::Result<Range<usize>> {
        let start = self.received.len();
        let count = at_most.min(self.room());
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
        for i in start..start + filled as usize {
            let received = self.describe(i);
            self.received.push(received);
        }
        Ok(start..start + filled as usize)
    }

    /// What is in a slot.
    pub(super) fn received(&self, slot: usize) -> Received {
        self.received[slot]
    }

    /// The bytes of a slot.
    pub(super) fn bytes(&self, slot: usize) -> &[u8] {
        &self.data[slot * STRIDE..slot * STRIDE + self.received[slot].len]
    }

    fn describe(&self, slot: usize) -> Received {
        let header = &self.headers[slot];
        let len = (header.msg_len as usize).min(SLOT);
        let unspecified = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let mut received = Received {
            from: address(&self.names[slot]).unwrap_or(unspecified),
            to: None,
            len,
            segment: len,
        };
        for (level, kind, data) in control_messages(&header.msg_hdr) {
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = read(data);
                    received.to = Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(
                        info.ipi_addr.s_addr,
                    ))));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = read(data);
                    received.to = Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let segment: libc::c_int = read(data);
                    received.segment = usize::try_from(segment).unwrap_or(len);
                }
                _ => {}
            }
        }
        received
    }
}

/// One datagram to be sent: its parts are gathered by the kernel.
#[derive(Clone, Copy)]
pub(super) struct Datagram<'a> {
    pub(super) to: SocketAddr,
    /// The source address, for sockets bound to a wildcard.
    pub(super) from: Option<IpAddr>,
    pub(super) parts: [&'a [u8]; 3],
}

impl Datagram<'_> {
    fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }
}

/// What became of a datagram that was to be sent: `None` means sent.
pub(super) type Outcome = Option<i32>;

/// The scratch space of one worker's sends.
pub(super) struct Outlet {
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
    names: Vec<MaybeUninit<libc::sockaddr_storage>>,
    controls: Vec<Control>,
    /// How many datagrams each header carries.
    counts: Vec<usize>,
}

impl Outlet {
    pub(super) fn new() -> Self {
        Self {
            headers: Vec::with_capacity(BATCH),
            vectors: Vec::with_capacity(3 * BATCH),
            names: Vec::with_capacity(BATCH),
            controls: Vec::with_capacity(BATCH),
            counts: Vec::with_capacity(BATCH),
        }
    }

    /// Sends datagrams through one socket, in order, without waiting, and says in `outcomes` what became
    /// of each. An error costs its own datagram only.
    ///
    /// Runs of equal size to one destination leave in one piece; when the kernel or the path refuses that,
    /// they are sent one by one.
    pub(super) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        datagrams: &[Datagram<'_>],
        outcomes: &mut Vec<Outcome>,
    ) {
        outcomes.clear();
        for chunk in datagrams.chunks(BATCH) {
            self.gather(chunk, true);
            self.send_gathered(socket, chunk, outcomes);
        }
    }

    /// Builds the kernel's view of `datagrams`. The pointers stay good as long as the datagrams are
    /// borrowed and the scratch vectors are not touched, that is until the end of [`send`](Self::send).
    fn gather(&mut self, datagrams: &[Datagram<'_>], segmentation: bool) {
        self.headers.clear();
        self.vectors.clear();
        self.names.clear();
        self.controls.clear();
        self.counts.clear();
        // Reserved up front: the arrays must not move once pointers into them are taken.
        self.vectors.reserve(3 * datagrams.len());
        self.names.reserve(datagrams.len());
        self.controls.reserve(datagrams.len());
        let mut rest = datagrams;
        while let Some(first) = rest.first() {
            let run = if segmentation { run_length(rest) } else { 1 };
            let start = self.vectors.len();
            for datagram in &rest[..run] {
                for part in datagram.parts.iter().filter(|part| !part.is_empty()) {
                    self.vectors.push(libc::iovec {
                        iov_base: part.as_ptr().cast_mut().cast(),
                        iov_len: part.len(),
                    });
                }
            }
            self.push_header(
                first,
                start,
                if run > 1 {
                    Some(first.len() as u16)
                } else {
                    None
                },
            );
            self.counts.push(run);
            rest = &rest[run..];
        }
    }

    fn push_header(&mut self, first: &Datagram<'_>, start: usize, segment: Option<u16>) {
        self.names.push(MaybeUninit::zeroed());
        let name = self.names.len() - 1;
        let name_len = write_address(first.to, &mut self.names[name]);
        // SAFETY: all-zero is a valid msghdr.
        let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
        header.msg_hdr.msg_name = self.names[name].as_mut_ptr().cast();
        header.msg_hdr.msg_namelen = name_len;
        // SAFETY: `start` is at most the vector's length, which lies within its reserved capacity.
        header.msg_hdr.msg_iov = unsafe { self.vectors.as_mut_ptr().add(start) };
        header.msg_hdr.msg_iovlen = self.vectors.len() - start;
        if first.from.is_some() || segment.is_some() {
            self.controls.push(Control([0; CONTROL]));
            let control = self.controls.len() - 1;
            let used = write_controls(&mut self.controls[control], first.from, segment);
            header.msg_hdr.msg_control = (&raw mut self.controls[control]).cast();
            header.msg_hdr.msg_controllen = used;
        }
        self.headers.push(header);
    }

    fn send_gathered(
        &mut self,
        socket: BorrowedFd<'_>,
        datagrams: &[Datagram<'_>],
        outcomes: &mut Vec<Outcome>,
    ) {
        let (mut next, mut done) = (0, 0);
        while next < self.headers.len() {
            let rest = &mut self.headers[next..];
            let sent = match rest {
                [only] => send_one(socket, &only.msg_hdr),
                // SAFETY: the headers were built by `gather` over slices that `datagrams` still borrows
                // and over scratch vectors that have not moved since.
                many => unsafe {
                    let (headers, count) = (many.as_mut_ptr(), many.len() as libc::c_uint);
                    libc::sendmmsg(socket.as_raw_fd(), headers, count, libc::MSG_DONTWAIT)
                },
            };
            if sent > 0 {
                let carried: usize = self.counts[next..next + sent as usize].iter().sum();
                outcomes.extend(std::iter::repeat_n(None, carried));
                done += carried;
                next += sent as usize;
                continue;
            }
            let run = self.counts[next];
            if run > 1 {
                send_one_by_one(socket, &datagrams[done..done + run], outcomes);
            } else {
                outcomes.push(Some(errno()));
            }
            done += run;
            next += 1;
        }
    }
}

/// Sends one header's datagram; 1 when it went. A payload in one piece, the common case towards peers,
/// takes the cheaper call.
fn send_one(socket: BorrowedFd<'_>, header: &libc::msghdr) -> libc::c_int {
    let socket = socket.as_raw_fd();
    // SAFETY: the header was built by `gather`; its vectors, name and control data are alive (see there).
    let sent = unsafe {
        if header.msg_iovlen == 1 && header.msg_controllen == 0 {
            let body = &*header.msg_iov;
            let (name, len) = (header.msg_name.cast(), header.msg_namelen);
            libc::sendto(
                socket,
                body.iov_base,
                body.iov_len,
                libc::MSG_DONTWAIT,
                name,
                len,
            )
        } else {
            libc::sendmsg(socket, header, libc::MSG_DONTWAIT)
        }
    };
    if sent < 0 { -1 } else { 1 }
}

/// Sends a run that was refused as a whole: a path or a card without segmentation, or one too narrow.
fn send_one_by_one(
    socket: BorrowedFd<'_>,
    datagrams: &[Datagram<'_>],
    outcomes: &mut Vec<Outcome>,
) {
    let mut outlet = Outlet::new();
    for datagram in datagrams {
        outlet.gather(std::slice::from_ref(datagram), false);
        outlet.send_gathered(socket, std::slice::from_ref(datagram), outcomes);
    }
}

/// How many datagrams at the front can leave as one: same destination and source, equal size, the last
/// one possibly shorter.
fn run_length(datagrams: &[Datagram<'_>]) -> usize {
    let first = &datagrams[0];
    let size = first.len();
    if size == 0 {
        return 1;
    }
    let mut total = size;
    let mut run = 1;
    for datagram in &datagrams[1..] {
        let len = datagram.len();
        let joins =
            datagram.to == first.to && datagram.from == first.from && len <= size && len > 0;
        if !joins || run == MAX_SEGMENTS || total + len > MAX_PAYLOAD {
            break;
        }
        run += 1;
        total += len;
        if len < size {
            break;
        }
    }
    run
}

/// Lets the current runtime wait until `set`, an epoll set, has something ready.
pub(super) fn readable(set: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by the value that is registered, which neither replaces nor closes
    // it while it is.
    Ok(unsafe { AsyncFd::register_with_interest(set, Interest::READABLE) }?)
}

/// Lets the kernel hand over runs of datagrams in one piece. Without it each comes alone, so a kernel
/// that cannot is no error.
pub(super) fn coalesce(socket: BorrowedFd<'_>) {
    let _ = set(socket, libc::SOL_UDP, libc::UDP_GRO, 1);
}

/// Asks for the local address of each datagram, for sockets bound to a wildcard ([S9]).
pub(super) fn report_destination(socket: BorrowedFd<'_>, v4: bool) -> io::Result<()> {
    if v4 {
        set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    } else {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    }
}

/// Sets or clears Don't Fragment on what the socket sends. Path MTU discovery of the kernel's own stays
/// off either way: the relay must send what it was given (RFC 8656 §14).
pub(super) fn dont_fragment(socket: BorrowedFd<'_>, v4: bool, on: bool) -> io::Result<()> {
    if v4 {
        let value = if on {
            libc::IP_PMTUDISC_PROBE
        } else {
            libc::IP_PMTUDISC_DONT
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

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// The control messages of a received header: level, type, data.
fn control_messages(header: &libc::msghdr) -> impl Iterator<Item = (i32, i32, &[u8])> {
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
fn read<T: Copy>(data: &[u8]) -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    let len = data.len().min(size_of::<T>());
    // SAFETY: copies at most the size of T; T is one of the kernel's plain integer structures, for which
    // every bit pattern is valid.
    unsafe {
        ptr::copy_nonoverlapping(data.as_ptr(), value.as_mut_ptr().cast(), len);
        value.assume_init()
    }
}

/// Appends the control messages for a source address and a segment size; returns the bytes used.
fn write_controls(control: &mut Control, from: Option<IpAddr>, segment: Option<u16>) -> usize {
    let mut used = 0;
    match from {
        Some(IpAddr::V4(ip)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from(ip).to_be(),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            used = write_control(control, used, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        Some(IpAddr::V6(ip)) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: ip.octets(),
                },
                ipi6_ifindex: 0,
            };
            used = write_control(control, used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
        None => {}
    }
    if let Some(segment) = segment {
        used = write_control(control, used, libc::SOL_UDP, libc::UDP_SEGMENT, segment);
    }
    used
}

fn write_control<T: Copy>(
    control: &mut Control,
    at: usize,
    level: i32,
    kind: i32,
    value: T,
) -> usize {
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

fn address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    // SAFETY: the family says which structure the kernel wrote; both are smaller than the storage and
    // aligned no stricter.
    unsafe {
        match i32::from(storage.ss_family) {
            libc::AF_INET => {
                let v4 = &*(&raw const *storage).cast::<libc::sockaddr_in>();
                let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                Some(SocketAddr::V4(SocketAddrV4::new(
                    ip,
                    u16::from_be(v4.sin_port),
                )))
            }
            libc::AF_INET6 => {
                let v6 = &*(&raw const *storage).cast::<libc::sockaddr_in6>();
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                // Flow label and scope are dropped: two packets of one client must compare equal. A
                // link-local client cannot be answered without its scope, so it keeps it.
                let scope = if ip.is_unicast_link_local() {
                    v6.sin6_scope_id
                } else {
                    0
                };
                Some(SocketAddr::V6(SocketAddrV6::new(
                    ip,
                    u16::from_be(v6.sin6_port),
                    0,
                    scope,
                )))
            }
            _ => None,
        }
    }
}

fn write_address(
    address: SocketAddr,
    storage: &mut MaybeUninit<libc::sockaddr_storage>,
) -> libc::socklen_t {
    // SAFETY: both structures fit in a sockaddr_storage and are aligned no stricter.
    unsafe {
        match address {
            SocketAddr::V4(v4) => {
                let mut name: libc::sockaddr_in = mem::zeroed();
                name.sin_family = libc::AF_INET as libc::sa_family_t;
                name.sin_port = v4.port().to_be();
                name.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
                storage.as_mut_ptr().cast::<libc::sockaddr_in>().write(name);
                size_of::<libc::sockaddr_in>() as libc::socklen_t
            }
            SocketAddr::V6(v6) => {
                let mut name: libc::sockaddr_in6 = mem::zeroed();
                name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                name.sin6_port = v6.port().to_be();
                name.sin6_addr.s6_addr = v6.ip().octets();
                name.sin6_scope_id = v6.scope_id();
                storage
                    .as_mut_ptr()
                    .cast::<libc::sockaddr_in6>()
                    .write(name);
                size_of::<libc::sockaddr_in6>() as libc::socklen_t
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd as _;

    use super::*;

    fn socket(address: &str) -> UdpSocket {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    fn datagram<'a>(to: &UdpSocket, parts: [&'a [u8]; 3]) -> Datagram<'a> {
        Datagram {
            to: to.local_addr().unwrap(),
            from: None,
            parts,
        }
    }

    fn send(from: &UdpSocket, datagrams: &[Datagram<'_>]) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        Outlet::new().send(from.as_fd(), datagrams, &mut outcomes);
        outcomes
    }

    /// Everything that `socket` has, as (bytes, sender).
    fn receive(socket: &UdpSocket) -> Vec<(Vec<u8>, SocketAddr)> {
        let mut inbox = Inbox::new();
        let mut all = Vec::new();
        while let Ok(slots) = inbox.receive(socket.as_fd(), BATCH) {
            for slot in slots {
                let received = inbox.received(slot);
                let bytes = received
                    .datagrams()
                    .map(|range| inbox.bytes(slot)[range].to_vec());
                all.extend(bytes.map(|bytes| (bytes, received.from)));
            }
            inbox.clear();
        }
        all
    }

    #[test]
    fn parts_arrive_as_one_datagram_each_in_order_on_both_families() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (a, b) = (socket(address), socket(address));
            let outcomes = send(
                &a,
                &[
                    datagram(&b, [b"he", b"llo", b"!"]),
                    datagram(&b, [b"", b"", b""]),
                    datagram(&b, [b"", b"x", b""]),
                ],
            );
            assert_eq!(outcomes, [None; 3]);
            let from = a.local_addr().unwrap();
            assert_eq!(
                receive(&b),
                [
                    (b"hello!".to_vec(), from),
                    (vec![], from),
                    (b"x".to_vec(), from)
                ]
            );
        }
    }

    #[test]
    fn runs_leave_and_arrive_in_one_piece_and_are_cut_right() {
        let (a, b) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
        coalesce(b.as_fd());
        let bodies: Vec<Vec<u8>> = (0..100u8)
            .map(|i| vec![i; if i == 99 { 7 } else { 1100 }])
            .collect();
        let datagrams: Vec<_> = bodies
            .iter()
            .map(|body| datagram(&b, [b"head", body, b""]))
            .collect();
        assert_eq!(send(&a, &datagrams), vec![None; 100]);
        let mut inbox = Inbox::new();
        let mut cut = Vec::new();
        let mut slots_used = 0;
        while let Ok(slots) = inbox.receive(b.as_fd(), BATCH) {
            for slot in slots {
                slots_used += 1;
                let bytes = inbox.bytes(slot);
                cut.extend(
                    inbox
                        .received(slot)
                        .datagrams()
                        .map(|range| bytes[range].to_vec()),
                );
            }
            inbox.clear();
        }
        let sent: Vec<_> = bodies
            .iter()
            .map(|body| [b"head", body.as_slice()].concat())
            .collect();
        assert_eq!(cut, sent);
        assert!(
            slots_used < 10,
            "{slots_used} receives for 100 datagrams: nothing was coalesced"
        );
    }

    #[test]
    fn an_error_costs_its_own_datagram_only() {
        let (a, b) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
        let wrong_family = Datagram {
            to: "[2001:db8::1]:9".parse().unwrap(),
            from: None,
            parts: [b"x", b"", b""],
        };
        let good = datagram(&b, [b"good", b"", b""]);
        let outcomes = send(&a, &[good, wrong_family, good, wrong_family]);
        assert_eq!(
            outcomes.iter().map(Option::is_none).collect::<Vec<_>>(),
            [true, false, true, false]
        );
        assert_eq!(receive(&b).len(), 2);
    }

    #[test]
    fn s9_a_wildcard_socket_tells_where_it_was_sent_and_answers_from_there() {
        for (wildcard, target) in [("0.0.0.0:0", "127.0.0.9"), ("[::]:0", "::1")] {
            let server = socket(wildcard);
            let v4 = target.contains('.');
            report_destination(server.as_fd(), v4).unwrap();
            let client = socket(if v4 { "127.0.0.1:0" } else { "[::1]:0" });
            let target =
                SocketAddr::new(target.parse().unwrap(), server.local_addr().unwrap().port());
            client.send_to(b"ping", target).unwrap();
            let mut inbox = Inbox::new();
            inbox.receive(server.as_fd(), BATCH).unwrap();
            let received = inbox.received(0);
            assert_eq!(received.to, Some(target.ip()));
            let answer = Datagram {
                to: received.from,
                from: received.to,
                parts: [b"pong", b"", b""],
            };
            assert_eq!(send(&server, &[answer]), [None]);
            assert_eq!(receive(&client), [(b"pong".to_vec(), target)]);
        }
    }
}
