//! What is said of allocations.

use tracing::{debug, info};

use crate::turn::{Ended, Event};

/// One line for each allocation's end; its beginning is a detail.
pub(super) fn event(event: &Event) {
    match event {
        Event::Allocated(allocated) => debug!(
            session = %allocated.session,
            user = %allocated.username.escape_ascii(),
            transport = allocated.five_tuple.transport.label(),
            lifetime = allocated.lifetime.as_secs(),
            "allocated"
        ),
        Event::Moved(moved) => debug!(
            user = %moved.username.escape_ascii(),
            from = %moved.from.client,
            from_transport = moved.from.transport.label(),
            client = %moved.to.client,
            transport = moved.to.transport.label(),
            relay = %moved.relay,
            "allocation moved with its client"
        ),
        Event::Move(result) => debug!(result = result.label(), "mobility"),
        Event::Left(_) => {}
        Event::Released(ended) => log_end(ended),
        // A client's wish, told by its outcome.
        Event::Connect(_) => {}
    }
}

fn log_end(ended: &Ended) {
    /// User names are the clients' words: escaped, and cut (A45).
    const SHOWN: usize = 64;
    let user = &ended.username[..ended.username.len().min(SHOWN)];
    let relay = ended.relays.first().map(|(_, address)| *address);
    info!(
        session = %ended.session,
        user = %user.escape_ascii(),
        client = %ended.five_tuple.client,
        transport = ended.five_tuple.transport.label(),
        relay = relay.map(tracing::field::display),
        reason = ended.reason.label(),
        seconds = ended.age.as_secs(),
        to_peer_packets = ended.to_peer.packets,
        to_peer_bytes = ended.to_peer.bytes,
        to_client_packets = ended.to_client.packets,
        to_client_bytes = ended.to_client.bytes,
        "allocation ended"
    );
}
