//! Binding (RFC 8489 §12).

use super::request::Request;
use super::response;
use super::server::Server;
use super::{Cause, Verdict};

impl Server {
    /// Tells a client where it is. Nobody has to authenticate for that, so it is paid for as an answer to a stranger.
    pub(super) fn binding(&mut self, request: &Request<'_>, reply: &mut Vec<u8>) -> Verdict {
        if !self.pay_for_stranger(request) {
            return Verdict::Drop(Cause::ReplyBudget);
        }
        Verdict::Reply(response::binding(request, reply))
    }
}
