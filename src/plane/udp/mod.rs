//! Datagrams in and out of the kernel, a batch at a time.
//!
//! This is the only room of the server that talks to the kernel through pointers. [`Inbox`] owns the
//! buffers that a batch is received into and hands out slices of them; [`Outlet`] gathers the parts of
//! many datagrams (a head, a body that still lies in the inbox, padding) and sends them without copying
//! one payload byte. Runs of equal-sized datagrams to one destination leave as one super-packet that the
//! kernel or the card cuts (UDP_SEGMENT), and arrive as one (UDP_GRO).
#![allow(unsafe_code)]

mod control;
mod name;
mod options;
mod receive;
mod send;

pub(in crate::plane) use options::{coalesce, dont_fragment, readable, report_destination};
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
