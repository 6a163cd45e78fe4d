//! Datagrams in and out of the kernel, a batch at a time.
//!
//! This is the only room of the server that talks to the kernel through pointers. [`Inbox`] owns the
//! buffers that a batch is received into and hands out slices of them; [`Outlet`] gathers the parts of
//! many datagrams (a head, a body that still lies in the inbox, padding) and sends them without copying
//! one payload byte. Runs of equal-sized datagrams to one destination leave as one super-packet that the
//! kernel or the card cuts (UDP_SEGMENT), and arrive as one (UDP_GRO).
#![allow(unsafe_code)]

mod control;
mod errors;
mod name;
mod options;
mod receive;
mod send;

pub(in crate::plane) use errors::{PathError, path_error};
pub(in crate::plane) use options::{
    coalesce, dont_fragment, let_receive_buffer_grow, readable, report_destination, report_errors,
    report_marks,
};
pub(in crate::plane) use receive::Inbox;
pub(in crate::plane) use send::{Datagram, Outcome, Outlet};

/// How many datagrams one system call moves at most.
pub(in crate::plane) const BATCH: usize = 64;

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};
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
            marks: 0,
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
            marks: 0,
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

    /// Marks that differ within what would be one run, on sockets that need other control messages as well.
    #[test]
    fn h1_every_datagram_keeps_its_own_marks() {
        for (wildcard, target) in [("0.0.0.0:0", "127.0.0.9"), ("[::]:0", "::1")] {
            let (a, b) = (socket(wildcard), socket(wildcard));
            let v4 = target.contains('.');
            for socket in [&a, &b] {
                report_destination(socket.as_fd(), v4).unwrap();
                report_marks(socket.as_fd(), v4).unwrap();
                coalesce(socket.as_fd());
            }
            let target = target.parse().unwrap();
            let to = SocketAddr::new(target, b.local_addr().unwrap().port());
            // EF, then two ECT(0) that leave as one, CE under AF41, none, and a short one that differs.
            let sent = [0xB8, 0x02, 0x02, 0x8B, 0, 0, 0x01];
            let datagrams = sent.map(|marks| Datagram {
                to,
                from: Some(target),
                marks,
                parts: [if marks == 1 { b"short" } else { b"long enough" }, b"", b""],
            });
            assert_eq!(send(&a, &datagrams), [None; 7]);
            let mut inbox = Inbox::new();
            let mut marks = Vec::new();
            while let Ok(slots) = inbox.receive(b.as_fd(), BATCH) {
                for slot in slots {
                    let received = inbox.received(slot);
                    assert_eq!(received.to, Some(target));
                    marks.extend(received.datagrams().map(|_| received.marks));
                }
                inbox.clear();
            }
            assert_eq!(marks, sent, "{target}");
        }
    }

    /// Addresses that refuse: nobody listens there any more.
    fn closed(address: &str) -> SocketAddr {
        socket(address).local_addr().unwrap()
    }

    #[test]
    fn d4_the_error_of_one_datagram_costs_no_other() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (a, b, gone) = (socket(address), socket(address), closed(address));
            report_errors(a.as_fd(), gone.is_ipv4()).unwrap();
            let refused = Datagram {
                to: gone,
                from: None,
                marks: 0,
                parts: [b"x", b"", b""],
            };
            let good = datagram(&b, [b"good", b"", b""]);
            // Alone, in a batch, in front of a run, and behind one.
            for batch in [
                &[refused][..],
                &[good],
                &[refused, good, refused, good, good, good, refused],
                &[good, refused, good],
                &[good; 20],
            ] {
                let outcomes = send(&a, batch);
                for (outcome, sent) in outcomes.iter().zip(batch) {
                    assert!(outcome.is_none() || sent.to == gone, "{outcomes:?}");
                }
            }
            assert_eq!(receive(&b).len(), 1 + 4 + 2 + 20);
        }
    }

    #[test]
    fn d4_a_pending_error_hides_nothing_that_came_in() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (a, b, gone) = (socket(address), socket(address), closed(address));
            report_errors(a.as_fd(), gone.is_ipv4()).unwrap();
            b.send_to(b"hello", a.local_addr().unwrap()).unwrap();
            a.send_to(b"x", gone).unwrap();
            assert_eq!(receive(&a), [(b"hello".to_vec(), b.local_addr().unwrap())]);
        }
    }

    #[test]
    fn d4_an_error_is_read_with_its_destination_type_and_code() {
        for (address, kind, code) in [("127.0.0.1:0", 3, 3), ("[::1]:0", 1, 4)] {
            let (a, gone) = (socket(address), closed(address));
            report_errors(a.as_fd(), gone.is_ipv4()).unwrap();
            a.send_to(b"x", gone).unwrap();
            let error = path_error(a.as_fd()).unwrap().unwrap();
            assert_eq!(error.peer, gone);
            assert_eq!((error.icmp.kind, error.icmp.code), (kind, code));
            let none = path_error(a.as_fd()).unwrap_err();
            assert_eq!(none.kind(), std::io::ErrorKind::WouldBlock);
        }
    }

    /// The kernel is the first hop: what its own link does not take comes back at once.
    #[test]
    fn h1_a_datagram_that_must_not_be_fragmented_is_too_big_for_its_own_link() {
        for (address, kind, code) in [("127.0.0.1:0", 3, 4), ("[::1]:0", 2, 0)] {
            let (a, b) = (socket(address), socket(address));
            let v4 = kind == 3;
            report_errors(a.as_fd(), v4).unwrap();
            // The loopback interface takes 65536 bytes, more than any datagram of IPv4 has.
            let long = vec![0; if v4 { 65_515 } else { 65_527 }];
            dont_fragment(a.as_fd(), v4, true).unwrap();
            let outcomes = send(&a, &[datagram(&b, [&long, b"", b""])]);
            assert_eq!(outcomes, [Some(libc::EMSGSIZE)]);
            let error = path_error(a.as_fd()).unwrap().unwrap();
            assert_eq!((error.icmp.kind, error.icmp.code), (kind, code));
            assert_eq!(error.peer.ip(), b.local_addr().unwrap().ip());
        }
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
                marks: 0,
                parts: [b"pong", b"", b""],
            };
            assert_eq!(send(&server, &[answer]), [None]);
            assert_eq!(receive(&client), [(b"pong".to_vec(), target)]);
        }
    }
}
