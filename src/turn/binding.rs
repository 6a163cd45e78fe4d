//! Binding (RFC 8489 §12), which nobody has to authenticate; so every answer is paid for as one to a stranger.

use super::discovery::{self, Place, Wish};
use super::request::Request;
use super::response;
use super::server::{Server, has_way_back};
use super::{Cause, Relays, Reply, Verdict};

impl Server {
    /// Tells a client where it is.
    pub(super) fn binding(
        &mut self,
        request: &Request<'_>,
        relays: &impl Relays,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        if !self.pay_for_stranger(request) {
            return Verdict::Drop(Cause::ReplyBudget);
        }
        if let Some(place) = Place::of(&self.discovery, &request.from.five_tuple) {
            return behaviour(request, place, relays, reply);
        }
        let unsupported = discovery::unsupported(request);
        let mut unknown = request
            .message
            .unknown_required()
            .chain(unsupported)
            .peekable();
        Verdict::Reply(if unknown.peek().is_some() {
            response::not_understood(request, unknown, reply)
        } else {
            response::binding(request, reply)
        })
    }
}

/// Tells a client where it is, from where it wants to hear it, and to which of its ports (RFC 5780 §6.1).
fn behaviour(
    request: &Request<'_>,
    place: Place<'_>,
    relays: &impl Relays,
    reply: &mut Vec<u8>,
) -> Verdict {
    let mut unknown = request.message.unknown_required().peekable();
    if unknown.peek().is_some() {
        return Verdict::Reply(response::not_understood(request, unknown, reply));
    }
    let Ok(wish) = Wish::of(request) else {
        return Verdict::Reply(response::binding_malformed(request, reply));
    };
    let mut to = request.from;
    if let Some(port) = wish.port {
        to.five_tuple.client.set_port(port);
        // The other port may be a relay's, though the one that asked is not.
        if !has_way_back(to, relays) {
            return Verdict::Drop(Cause::NoWayBack);
        }
    }
    let origin = place.changed(wish.change);
    let answer = response::behaviour(request, place, origin, wish.padding, reply);
    Verdict::Reply(Reply {
        to,
        via: (origin.local() != place.local()).then(|| origin.local()),
        ..answer
    })
}
