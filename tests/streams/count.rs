//! Whatever comes for a client that does not read is counted once: as relayed, or as dropped.

use std::time::Duration;

use turnd::metrics::{Direction, SocketError};
use turnd::turn::{Family, Traffic, Transport};

use super::{Client, Plane, start, start_plain};

/// The payload of each frame.
const LENGTH: usize = 1000;

/// What the server has counted of frames for one client.
#[derive(Clone, Copy, Debug)]
struct Count {
    came: u64,
    relayed: Traffic,
    dropped: u64,
}

impl Count {
    /// What came by way of another relay of the server for a client over `transport`: nothing is lost before it is
    /// counted.
    fn of(plane: &Plane, transport: Transport) -> Self {
        let cells = plane.snapshot().cells;
        Self {
            came: cells
                .traffic(Direction::ToPeer, Transport::Udp, Family::V4)
                .packets,
            relayed: cells.traffic(Direction::ToClient, transport, Family::V4),
            dropped: cells.socket_errors(SocketError::Full),
        }
    }

    fn settled(&self) -> u64 {
        self.relayed.packets + self.dropped
    }
}

/// Sends to `slow` until much of it has been dropped, and looks at the numbers on the way.
fn fill(plane: &Plane, slow: &mut Client, transport: Transport) -> Count {
    let mut quick = Client::udp(plane.udp);
    let (to_slow, from) = (slow.allocate(), quick.allocate());
    assert_eq!(slow.bind(0x4000, from).code(), 0);
    assert_eq!(quick.bind(0x4000, to_slow).code(), 0);
    let mut last = Count::of(plane, transport);
    for _ in 0..1000 {
        for _ in 0..50 {
            quick.send_channel(0x4000, &[7; LENGTH]);
        }
        // The answer says that what was sent before it has been taken in.
        assert_eq!(quick.permit(to_slow).code(), 0);
        let now = Count::of(plane, transport);
        assert!(now.settled() <= now.came, "{now:?}");
        assert!(
            now.relayed.packets >= last.relayed.packets && now.dropped >= last.dropped,
            "{last:?} and then {now:?}"
        );
        last = now;
        if now.dropped >= 100 {
            return now;
        }
    }
    panic!("a client that does not read was sent everything: {last:?}");
}

/// F07: what a slow reader gets in the end is what is counted as relayed, and the rest is what is counted as dropped.
#[test]
fn f07_relayed_is_what_a_slow_reader_gets_and_the_rest_is_dropped() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let (plane, trust) = start(transport, |_| {});
        let mut slow = if transport == Transport::Tls {
            trust.client(plane.tcp)
        } else {
            Client::tcp(plane.tcp)
        };
        let full = fill(&plane, &mut slow, transport);
        let mut received = 0;
        while received + full.dropped < full.came {
            assert_eq!(slow.receive_channel(), (0x4000, vec![7; LENGTH]));
            received += 1;
        }
        slow.hears_nothing();
        let end = Count::of(&plane, transport);
        assert_eq!(end.relayed.packets, received, "{transport:?}");
        assert_eq!(end.relayed.bytes, received * LENGTH as u64);
        assert_eq!((end.came, end.dropped), (full.came, full.dropped));
    }
}

/// F07: what still waits for a client that leaves is dropped, and counted so.
#[test]
fn f07_what_waits_for_a_client_that_leaves_is_counted_as_dropped() {
    let plane = start_plain(Transport::Tcp, |_| {});
    let mut slow = Client::tcp(plane.tcp);
    fill(&plane, &mut slow, Transport::Tcp);
    drop(slow);
    let ended = (0..250).any(|_| {
        let used = plane.snapshot().ports.used;
        if used > 1 {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        used == 1
    });
    assert!(ended, "the allocation has not ended with its connection");
    let end = Count::of(&plane, Transport::Tcp);
    assert_eq!(end.settled(), end.came, "{end:?}");
    assert_eq!(end.relayed.bytes, end.relayed.packets * LENGTH as u64);
}
