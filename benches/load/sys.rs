//! The kernel's side: batches of datagrams, pinning, clocks, socket options. The only `unsafe` of the benchmark.
#![allow(unsafe_code)]

use std::{
    io,
    mem::{size_of, zeroed},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
    time::Duration,
};

/// Room for one `IP_PKTINFO` and one `UDP_SEGMENT` or `UDP_GRO` control message.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

/// A fixed set of datagram buffers that one system call receives into or sends from.
///
/// A slot is either received and then redirected in place (the forwarder), or pushed once and sent many times (the generator).
pub(crate) struct Batch {
    bytes: Box<[u8]>,
    slot: usize,
    iovecs: Box<[libc::iovec]>,
    names: Box<[libc::sockaddr_in]>,
    controls: Box<[Control]>,
    headers: Box<[libc::mmsghdr]>,
    gather: Vec<libc::iovec>,
    filled: usize,
    want_control: bool,
}

/// What is known of one received datagram.
pub(crate) struct Received {
    pub(crate) from: SocketAddrV4,
    pub(crate) len: usize,
    /// The size of the datagrams that the kernel coalesced into this one.
    pub(crate) segment: Option<usize>,
    /// The local address it was sent to.
    pub(crate) to: Option<Ipv4Addr>,
}

/// The most datagrams that one `UDP_SEGMENT` send takes on every kernel that knows it.
pub(crate) const MAX_SEGMENTS: usize = 64;

/// Bytes kept free before each received datagram, where a header can be put.
pub(crate) const HEADROOM: usize = 4;

impl Batch {
    /// Makes `slots` buffers of `slot` bytes each; `want_control` asks for control messages on receipt.
    pub(crate) fn new(slots: usize, slot: usize, want_control: bool) -> Self {
        let slot = slot.next_multiple_of(64);
        // SAFETY: all four are plain C structures for which zeroes are a valid value.
        let (iovec, name, header) = unsafe {
            (
                zeroed::<libc::iovec>(),
                zeroed::<libc::sockaddr_in>(),
                zeroed::<libc::mmsghdr>(),
            )
        };
        let mut batch = Self {
            bytes: vec![0; slots * slot].into(),
            slot,
            iovecs: vec![iovec; slots].into(),
            names: vec![name; slots].into(),
            controls: vec![Control([0; 64]); slots].into(),
            headers: vec![header; slots].into(),
            gather: Vec::with_capacity(2 * MAX_SEGMENTS),
            filled: 0,
            want_control,
        };
        for index in 0..slots {
            batch.arm(index);
        }
        batch
    }

    /// Points the slot's header at its own buffer, ready to receive.
    fn arm(&mut self, index: usize) {
        let iovec = &mut self.iovecs[index];
        iovec.iov_base = (&raw mut self.bytes[index * self.slot + HEADROOM]).cast();
        iovec.iov_len = self.slot - HEADROOM;
        let header = &mut self.headers[index].msg_hdr;
        header.msg_iov = iovec;
        header.msg_iovlen = 1;
        header.msg_name = (&raw mut self.names[index]).cast();
        header.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
        header.msg_control = (&raw mut self.controls[index]).cast();
        header.msg_controllen = if self.want_control {
            size_of::<Control>()
        } else {
            0
        };
    }

    /// Makes all slots free.
    pub(crate) fn clear(&mut self) {
        for index in 0..self.filled {
            self.arm(index);
        }
        self.filled = 0;
    }

    pub(crate) fn len(&self) -> usize {
        self.filled
    }

    pub(crate) fn room(&self) -> usize {
        self.headers.len() - self.filled
    }

    /// Receives at most `max` datagrams behind those already there, without waiting.
    pub(crate) fn receive(&mut self, socket: RawFd, max: usize) -> io::Result<usize> {
        let max = max.min(self.room());
        let free = &mut self.headers[self.filled..self.filled + max];
        // SAFETY: every header points at a name, an iovec, a control buffer and bytes that `self` owns and never moves.
        let count = unsafe {
            libc::recvmmsg(
                socket,
                free.as_mut_ptr(),
                max as u32,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        self.filled += count;
        Ok(count)
    }

    /// Receives one datagram by `recvmsg`, without waiting.
    pub(crate) fn receive_one(&mut self, socket: RawFd) -> io::Result<usize> {
        let header = &mut self.headers[self.filled];
        // SAFETY: as in `receive`.
        let len = unsafe { libc::recvmsg(socket, &raw mut header.msg_hdr, libc::MSG_DONTWAIT) };
        header.msg_len = u32::try_from(len).map_err(|_| io::Error::last_os_error())?;
        self.filled += 1;
        Ok(1)
    }

    /// What came into a slot.
    pub(crate) fn received(&self, index: usize) -> Received {
        let header = &self.headers[index];
        let mut received = Received {
            from: from_name(&self.names[index]),
            len: header.msg_len as usize,
            segment: None,
            to: None,
        };
        if !self.want_control {
            return received;
        }
        // SAFETY: the kernel wrote `msg_controllen` bytes of whole control messages into the slot's own buffer.
        unsafe {
            let mut control = libc::CMSG_FIRSTHDR(&raw const header.msg_hdr);
            while !control.is_null() {
                match ((*control).cmsg_level, (*control).cmsg_type) {
                    (libc::SOL_UDP, libc::UDP_GRO) => {
                        let size =
                            ptr::read_unaligned(libc::CMSG_DATA(control).cast::<libc::c_int>());
                        received.segment = usize::try_from(size).ok();
                    }
                    (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                        let info = ptr::read_unaligned(
                            libc::CMSG_DATA(control).cast::<libc::in_pktinfo>(),
                        );
                        received.to = Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)));
                    }
                    _ => {}
                }
                control = libc::CMSG_NXTHDR(&raw const header.msg_hdr, control);
            }
        }
        received
    }

    /// The bytes that came into a slot.
    pub(crate) fn payload(&self, index: usize) -> &[u8] {
        let start = index * self.slot + HEADROOM;
        &self.bytes[start..start + self.headers[index].msg_len as usize]
    }

    /// The bytes of a slot with the room before them, to write a header into.
    pub(crate) fn with_headroom(&mut self, index: usize) -> &mut [u8] {
        let start = index * self.slot;
        &mut self.bytes[start..start + HEADROOM + self.headers[index].msg_len as usize]
    }

    /// Makes a received slot one to send: `len` bytes from `skip` bytes into the buffer (headroom included).
    /// `to` is `None` on a connected socket.
    pub(crate) fn redirect(
        &mut self,
        index: usize,
        skip: usize,
        len: usize,
        to: Option<SocketAddrV4>,
        segment: Option<usize>,
    ) {
        assert!(skip + len <= self.slot);
        let iovec = &mut self.iovecs[index];
        iovec.iov_base = (&raw mut self.bytes[index * self.slot + skip]).cast();
        iovec.iov_len = len;
        self.address(index, None, to, segment);
    }

    /// Fills the next slot with a datagram of our own; `from` chooses the source address.
    pub(crate) fn push(
        &mut self,
        payload: &[u8],
        from: Option<Ipv4Addr>,
        to: Option<SocketAddrV4>,
        segment: Option<usize>,
    ) {
        let index = self.filled;
        let start = index * self.slot;
        self.bytes[start..start + payload.len()].copy_from_slice(payload);
        self.headers[index].msg_len = payload.len() as u32;
        self.filled += 1;
        self.redirect(index, 0, payload.len(), to, None);
        self.address(index, from, to, segment);
    }

    /// The bytes of a pushed slot.
    pub(crate) fn pushed(&mut self, index: usize) -> &mut [u8] {
        let start = index * self.slot;
        &mut self.bytes[start..start + self.headers[index].msg_len as usize]
    }

    fn address(
        &mut self,
        index: usize,
        from: Option<Ipv4Addr>,
        to: Option<SocketAddrV4>,
        segment: Option<usize>,
    ) {
        let header = &mut self.headers[index].msg_hdr;
        if let Some(to) = to {
            self.names[index] = to_name(to);
            header.msg_name = (&raw mut self.names[index]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
        } else {
            header.msg_name = ptr::null_mut();
            header.msg_namelen = 0;
        }
        header.msg_control = (&raw mut self.controls[index]).cast();
        let mut used = 0;
        if let Some(from) = from {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from(from).to_be(),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            used += self.controls[index].write(used, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        if let Some(segment) = segment {
            used +=
                self.controls[index].write(used, libc::SOL_UDP, libc::UDP_SEGMENT, segment as u16);
        }
        header.msg_controllen = used;
    }

    /// Sends `count` slots from `at` on; gives how many the kernel took.
    pub(crate) fn send(&mut self, socket: RawFd, at: usize, count: usize) -> io::Result<usize> {
        let ready = &mut self.headers[at..at + count];
        // SAFETY: every header points at a name, an iovec, a control buffer and bytes that `self` owns and never moves.
        let sent =
            unsafe { libc::sendmmsg(socket, ready.as_mut_ptr(), count as u32, libc::MSG_DONTWAIT) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Sends one slot by `sendmsg`.
    pub(crate) fn send_one(&self, socket: RawFd, index: usize) -> io::Result<()> {
        // SAFETY: as in `send`.
        let sent = unsafe {
            libc::sendmsg(
                socket,
                &raw const self.headers[index].msg_hdr,
                libc::MSG_DONTWAIT,
            )
        };
        if sent < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// Sends a coalesced slot without the first four bytes of each of its datagrams.
    pub(crate) fn send_stripped(
        &mut self,
        socket: RawFd,
        index: usize,
        segment: usize,
        to: SocketAddrV4,
    ) -> io::Result<()> {
        let total = self.headers[index].msg_len as usize;
        let start = index * self.slot + HEADROOM;
        self.gather.clear();
        for at in (0..total).step_by(segment) {
            let len = segment.min(total - at) - 4;
            self.gather.push(libc::iovec {
                iov_base: (&raw mut self.bytes[start + at + 4]).cast(),
                iov_len: len,
            });
            if self.gather.len() == MAX_SEGMENTS || at + segment >= total {
                self.send_gathered(socket, index, segment - 4, to)?;
            }
        }
        Ok(())
    }

    /// Sends a coalesced slot with a ChannelData header before each of its datagrams.
    pub(crate) fn send_framed(
        &mut self,
        socket: RawFd,
        index: usize,
        segment: usize,
        channel: u16,
        to: SocketAddrV4,
    ) -> io::Result<()> {
        let total = self.headers[index].msg_len as usize;
        let start = index * self.slot + HEADROOM;
        let last = (total - 1) % segment + 1;
        let mut heads = [
            channel_header(channel, segment),
            channel_header(channel, last),
        ];
        let most = MAX_SEGMENTS.min(65_000 / (segment + 4));
        self.gather.clear();
        for at in (0..total).step_by(segment) {
            let len = segment.min(total - at);
            let head = &mut heads[usize::from(len != segment)];
            self.gather.push(libc::iovec {
                iov_base: head.as_mut_ptr().cast(),
                iov_len: head.len(),
            });
            self.gather.push(libc::iovec {
                iov_base: (&raw mut self.bytes[start + at]).cast(),
                iov_len: len,
            });
            if self.gather.len() == 2 * most || at + segment >= total {
                self.send_gathered(socket, index, segment + 4, to)?;
            }
        }
        Ok(())
    }

    /// Sends slots of one size (the last may be smaller) for one destination as one segmented datagram.
    pub(crate) fn send_run(&mut self, socket: RawFd, at: usize, count: usize) -> io::Result<()> {
        let segment = self.iovecs[at].iov_len;
        self.gather.clear();
        self.gather.extend_from_slice(&self.iovecs[at..at + count]);
        let to = self.headers[at].msg_hdr.msg_name;
        let header = &mut self.headers[at].msg_hdr;
        header.msg_name = to;
        header.msg_iov = self.gather.as_mut_ptr();
        header.msg_iovlen = count;
        header.msg_control = (&raw mut self.controls[at]).cast();
        header.msg_controllen =
            self.controls[at].write(0, libc::SOL_UDP, libc::UDP_SEGMENT, segment as u16);
        let result = self.send_one(socket, at);
        self.gather.clear();
        let header = &mut self.headers[at].msg_hdr;
        header.msg_iov = &raw mut self.iovecs[at];
        header.msg_iovlen = 1;
        result
    }

    /// How many slots from `at` on, below `end`, go to the same destination and can be one segmented datagram.
    pub(crate) fn run_length(&self, at: usize, end: usize) -> usize {
        let size = self.iovecs[at].iov_len;
        let name = &self.names[at];
        let mut count = 1;
        let most = MAX_SEGMENTS.min(65_000 / size.max(1));
        while at + count < end && count < most && size > 0 {
            let next = &self.names[at + count];
            let next_size = self.iovecs[at + count].iov_len;
            if next.sin_port != name.sin_port
                || next.sin_addr.s_addr != name.sin_addr.s_addr
                || next_size > size
                || next_size == 0
            {
                break;
            }
            count += 1;
            if next_size < size {
                break;
            }
        }
        count
    }

    fn send_gathered(
        &mut self,
        socket: RawFd,
        index: usize,
        segment: usize,
        to: SocketAddrV4,
    ) -> io::Result<()> {
        self.address(index, None, Some(to), Some(segment));
        let header = &mut self.headers[index].msg_hdr;
        header.msg_iov = self.gather.as_mut_ptr();
        header.msg_iovlen = self.gather.len();
        let result = self.send_one(socket, index);
        self.gather.clear();
        self.headers[index].msg_hdr.msg_iov = &raw mut self.iovecs[index];
        self.headers[index].msg_hdr.msg_iovlen = 1;
        result
    }

    /// Sends one slot by `sendto`.
    pub(crate) fn send_to(&self, socket: RawFd, index: usize) -> io::Result<()> {
        let iovec = &self.iovecs[index];
        let header = &self.headers[index].msg_hdr;
        // SAFETY: the iovec and the name lie in `self`.
        let sent = unsafe {
            libc::sendto(
                socket,
                iovec.iov_base,
                iovec.iov_len,
                libc::MSG_DONTWAIT,
                header.msg_name.cast(),
                header.msg_namelen,
            )
        };
        if sent < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}

/// The four bytes before the payload of a ChannelData message.
pub(crate) fn channel_header(channel: u16, len: usize) -> [u8; 4] {
    let ([a, b], [c, d]) = (channel.to_be_bytes(), (len as u16).to_be_bytes());
    [a, b, c, d]
}

impl Control {
    /// Appends a control message at `at` and gives the room that it takes.
    fn write<T>(&mut self, at: usize, level: i32, kind: i32, value: T) -> usize {
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute; both are within the 64 bytes for the two messages in use.
        let (space, len) = unsafe {
            (
                libc::CMSG_SPACE(size_of::<T>() as u32),
                libc::CMSG_LEN(size_of::<T>() as u32),
            )
        };
        assert!(at + space as usize <= self.0.len());
        // SAFETY: `at` is a multiple of 8 in an 8-aligned buffer and the assertion above keeps the message inside it.
        unsafe {
            let control = self.0.as_mut_ptr().add(at).cast::<libc::cmsghdr>();
            (*control).cmsg_len = len as usize;
            (*control).cmsg_level = level;
            (*control).cmsg_type = kind;
            ptr::write_unaligned(libc::CMSG_DATA(control).cast(), value);
        }
        space as usize
    }
}

fn to_name(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(*address.ip()).to_be(),
        },
        sin_zero: [0; 8],
    }
}

fn from_name(name: &libc::sockaddr_in) -> SocketAddrV4 {
    SocketAddrV4::new(
        Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)),
        u16::from_be(name.sin_port),
    )
}

/// Readiness of many sockets.
pub(crate) struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    pub(crate) fn new(events: usize) -> io::Result<Self> {
        // SAFETY: no pointers; the descriptor is checked before it is owned.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: `fd` was just made and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self {
            fd,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; events],
        })
    }

    pub(crate) fn add(&self, socket: RawFd, id: u64, edge: bool) -> io::Result<()> {
        let events = libc::EPOLLIN as u32 | if edge { libc::EPOLLET as u32 } else { 0 };
        let mut event = libc::epoll_event { events, u64: id };
        // SAFETY: the kernel copies `event` before it returns.
        check(unsafe {
            libc::epoll_ctl(
                self.fd.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                socket,
                &raw mut event,
            )
        })?;
        Ok(())
    }

    /// Waits for readable sockets; gives how many `id` can tell.
    pub(crate) fn wait(&mut self, timeout_ms: i32) -> io::Result<usize> {
        // SAFETY: the kernel writes at most `events.len()` events.
        let count = unsafe {
            libc::epoll_wait(
                self.fd.as_raw_fd(),
                self.events.as_mut_ptr(),
                self.events.len() as i32,
                timeout_ms,
            )
        };
        match check(count) {
            Ok(count) => Ok(count as usize),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn id(&self, index: usize) -> u64 {
        self.events[index].u64
    }
}

/// Turns UDP_GRO on.
pub(crate) fn set_gro(socket: RawFd) -> io::Result<()> {
    set_option(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Turns IP_PKTINFO on.
pub(crate) fn set_packet_info(socket: RawFd) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
}

/// Sets DF on all that is sent and lets nothing be fragmented here, or sets it on nothing.
pub(crate) fn set_never_fragment(socket: RawFd, never: bool) -> io::Result<()> {
    let discovery = if never {
        libc::IP_PMTUDISC_DO
    } else {
        libc::IP_PMTUDISC_DONT
    };
    set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, discovery)
}

fn set_option(socket: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the value is an int, as all options named here want, and is copied.
    let result = unsafe {
        libc::setsockopt(
            socket,
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as u32,
        )
    };
    check(result).map(drop)
}

/// How many datagrams the socket's filter or a full buffer has refused, modulo 2^32.
pub(crate) fn socket_drops(socket: RawFd) -> u32 {
    const SO_MEMINFO: i32 = 55;
    const SK_MEMINFO_DROPS: usize = 8;
    let mut values = [0_u32; 16];
    let mut len = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes.
    let result = unsafe {
        libc::getsockopt(
            socket,
            libc::SOL_SOCKET,
            SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    assert!(
        result == 0 && len as usize > SK_MEMINFO_DROPS * 4,
        "SO_MEMINFO is there since Linux 4.12"
    );
    values[SK_MEMINFO_DROPS]
}

/// Keeps the calling thread, and what it starts, on one core.
pub(crate) fn pin(core: usize) -> io::Result<()> {
    // SAFETY: a cpu_set_t of zeroes is the empty set; the kernel copies it.
    let result = unsafe {
        let mut set = zeroed::<libc::cpu_set_t>();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    check(result).map(drop)
}

/// Raises the soft limit of open descriptors to the hard one, and gives it.
pub(crate) fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls read or write the one structure they are given.
    unsafe {
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
        limit.rlim_cur = limit.rlim_max;
        check(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit))?;
    }
    Ok(limit.rlim_cur)
}

/// Nanoseconds of the monotonic clock.
pub(crate) fn now() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// Seconds since 1970.
pub(crate) fn unix_time() -> u64 {
    clock(libc::CLOCK_REALTIME) / 1_000_000_000
}

/// Nanoseconds that all threads of a process have run so far, to the moment.
pub(crate) fn process_time(pid: u32) -> io::Result<u64> {
    let mut id: libc::clockid_t = 0;
    // SAFETY: the call writes the one identifier.
    let result = unsafe { libc::clock_getcpuclockid(pid as i32, &raw mut id) };
    if result == 0 {
        Ok(clock(id))
    } else {
        Err(io::Error::from_raw_os_error(result))
    }
}

fn clock(id: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes the one structure.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Waits until the socket is readable or the time is over.
pub(crate) fn wait_readable(socket: RawFd, timeout: Duration) -> bool {
    let mut poll = libc::pollfd {
        fd: socket,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd, and the count says so.
    unsafe { libc::poll(&raw mut poll, 1, timeout.as_millis() as i32) > 0 }
}

/// Lets time pass.
pub(crate) fn pause(duration: Duration) {
    // SAFETY: no descriptors.
    unsafe { libc::poll(ptr::null_mut(), 0, duration.as_millis() as i32) };
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
