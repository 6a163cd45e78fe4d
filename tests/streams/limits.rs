//! Rates hold on real sockets, whatever the client speaks.

use std::time::{Duration, Instant};

use turnd::turn::{Bandwidth, Cause, Settings, Transport};

use super::{Trust, certificates};
use crate::wire::{Client, PATIENCE, Plane, loopback, peer};

const RATE: u64 = 800_000;
const CHANNEL: u16 = 0x4000;
const PAYLOAD: usize = 972;
/// What one datagram counts, in bits.
const BITS: u64 = 8 * (PAYLOAD as u64 + 28);
const LASTING: Duration = Duration::from_secs(3);

#[test]
fn a_client_over_udp_passes_no_more_than_its_rate() {
    let (plane, _) = start(Transport::Tcp, |bandwidth| bandwidth.per_allocation = RATE);
    holds(Client::udp(plane.udp), &plane, Cause::Bandwidth);
}

#[test]
fn a_client_over_tcp_passes_no_more_than_its_user_may() {
    let (plane, _) = start(Transport::Tcp, |bandwidth| bandwidth.per_user = RATE);
    holds(Client::tcp(plane.tcp), &plane, Cause::UserBandwidth);
}

#[test]
fn a_client_over_tls_passes_no_more_than_everybody_may() {
    let (plane, trust) = start(Transport::Tls, |bandwidth| bandwidth.total = RATE);
    let client = trust.client(plane.tcp);
    holds(client, &plane, Cause::TotalBandwidth);
}

fn start(transport: Transport, limit: impl Fn(&mut Bandwidth)) -> (Plane, Trust) {
    let (certificates, trust) = certificates(&[&["turn.test"]]);
    let plane = Plane::start_as(
        2,
        vec![loopback()],
        |settings: &mut Settings| limit(&mut settings.limits.bandwidth),
        |settings| settings.listeners[1].transport = transport,
    );
    plane.handle.replace_tls(certificates);
    (plane, trust)
}

/// Offers far more than the rate in both directions, and counts what arrives.
#[expect(clippy::disallowed_methods, reason = "the clock that rates hold by")]
fn holds(mut client: Client, plane: &Plane, cause: Cause) {
    let peer = peer("127.0.0.2");
    let relayed = client.allocate();
    assert_eq!(client.bind(CHANNEL, peer.local_addr().unwrap()).code(), 0);
    let tick = Duration::from_millis(2);
    peer.set_read_timeout(Some(tick)).unwrap();
    client.set_timeout(tick);
    let (mut up, mut down) = (0, 0);
    let mut buffer = [0; 2048];
    let begin = Instant::now();
    while begin.elapsed() < LASTING {
        for _ in 0..8 {
            client.send_channel(CHANNEL, &[7; PAYLOAD]);
            peer.send_to(&[7; PAYLOAD], relayed).unwrap();
        }
        while peer.recv(&mut buffer).is_ok() {
            up += 1;
        }
        while client.try_receive().is_some() {
            down += 1;
        }
    }
    let lasted = begin.elapsed();
    let could = lasted.as_millis() as u64 * RATE / 1000;
    for (way, count) in [("up", up), ("down", down)] {
        let bits = count * BITS;
        // Half a second at once; of what is shared also the reserve, and a loan.
        let most = could + RATE + RATE / 50 + 2 * BITS;
        assert!(bits <= most, "{way}: {bits} of {most} in {lasted:?}");
        assert!(bits >= could / 2, "{way}: {bits} of {could} in {lasted:?}");
    }
    client.set_timeout(PATIENCE);
    let snapshot = plane.snapshot();
    assert!(snapshot.cells.drops(cause) > 0, "{cause:?}");
}
