//! Sending: the kernel gathers the parts of each datagram, and takes runs of equal ones in one piece.

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::BATCH;
use super::control::{self, CONTROL, Control};
use super::errors::{AGAIN, is_of_another};
use super::name;

/// The kernel cuts one send into at most this many datagrams.
const MAX_SEGMENTS: usize = 64;
/// The largest UDP payload over IPv4.
const MAX_PAYLOAD: usize = 65_507;

/// One datagram to be sent: its parts are gathered by the kernel.
#[derive(Clone, Copy)]
pub(in crate::plane) struct Datagram<'a> {
    pub(in crate::plane) to: SocketAddr,
    /// The source address, for sockets bound to a wildcard.
    pub(in crate::plane) from: Option<IpAddr>,
    /// DSCP and ECN, as in the octet of the header.
    pub(in crate::plane) marks: u8,
    pub(in crate::plane) parts: [&'a [u8]; 3],
}

impl Datagram<'_> {
    fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }
}

/// What became of a datagram that was to be sent: `None` means sent.
pub(in crate::plane) type Outcome = Option<i32>;

/// The scratch space of one worker's sends.
pub(in crate::plane) struct Outlet {
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
    names: Vec<MaybeUninit<libc::sockaddr_storage>>,
    controls: Vec<Control>,
    /// How many datagrams each header carries.
    counts: Vec<usize>,
}

impl Outlet {
    pub(in crate::plane) fn new() -> Self {
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
    pub(in crate::plane) fn send(
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
        let name_len = name::write(first.to, &mut self.names[name]);
        // SAFETY: all-zero is a valid msghdr.
        let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
        header.msg_hdr.msg_name = self.names[name].as_mut_ptr().cast();
        header.msg_hdr.msg_namelen = name_len;
        // SAFETY: `start` is at most the vector's length, which lies within its reserved capacity.
        header.msg_hdr.msg_iov = unsafe { self.vectors.as_mut_ptr().add(start) };
        header.msg_hdr.msg_iovlen = self.vectors.len() - start;
        if first.from.is_some() || first.marks != 0 || segment.is_some() {
            self.controls.push(Control([0; CONTROL]));
            let control = self.controls.len() - 1;
            let used = control::write(&mut self.controls[control], first, segment);
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
        let (mut next, mut done, mut tries) = (0, 0, 0);
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
                tries = 0;
                continue;
            }
            let (run, error) = (self.counts[next], errno());
            // A run that is refused for its size is not sent again as it is.
            if tries < AGAIN && is_of_another(error) && (run == 1 || error != libc::EMSGSIZE) {
                tries += 1;
                continue;
            }
            if run > 1 {
                send_one_by_one(socket, &datagrams[done..done + run], outcomes);
            } else {
                outcomes.push(Some(error));
            }
            done += run;
            next += 1;
            tries = 0;
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

/// How many datagrams at the front can leave as one: same destination, source and marks, equal size, the last
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
        let joins = same_header(datagram, first) && len <= size && len > 0;
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

fn same_header(a: &Datagram<'_>, b: &Datagram<'_>) -> bool {
    a.to == b.to && a.from == b.from && a.marks == b.marks
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
