//! Clients of RFC 3489, which send no magic cookie: Binding over UDP on request, and nothing else \[S11\].

use crate::stun::{Attribute, ChangeRequest, Class, ClassicMessage, ErrorCode, Method, Writer};

use super::discovery::Place;
use super::server::{Server, has_way_back};
use super::{Cause, Client, Now, Relays, Reply, Transport, Verdict};

impl Server {
    /// Takes in a message without a magic cookie. Silence, unless the settings or the transport want it otherwise.
    pub(super) fn classic(
        &mut self,
        now: Now,
        from: Client,
        bytes: &[u8],
        relays: &impl Relays,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        let Some(message) = ClassicMessage::parse(bytes) else {
            return Verdict::Drop(Cause::Malformed);
        };
        // RFC 8489 §11: DTLS is not for classic STUN, and requests are told so.
        let refused = from.five_tuple.transport == Transport::Dtls;
        let answered = self.settings.rfc3489
            && from.five_tuple.transport == Transport::Udp
            && message.method() == Method::BINDING;
        if !(refused || answered) {
            return Verdict::Drop(Cause::Malformed);
        }
        if message.class() != Class::Request {
            return Verdict::Drop(Cause::NotARequest);
        }
        if !has_way_back(from, relays) {
            return Verdict::Drop(Cause::NoWayBack);
        }
        if !self.pay_for(from, now) {
            return Verdict::Drop(Cause::ReplyBudget);
        }
        let request = Classic { from, message };
        Verdict::Reply(if refused {
            request.refuse(ErrorCode::SERVER_ERROR, &[], reply)
        } else {
            request.binding(Place::of(&self.discovery, &from.five_tuple), reply)
        })
    }
}

/// A request without a magic cookie.
struct Classic<'a> {
    from: Client,
    message: ClassicMessage<'a>,
}

impl Classic<'_> {
    /// Tells the client where it is; and where there is another address, from where it wants to hear it.
    ///
    /// RESPONSE-ADDRESS, which would have the answer sent to anybody, is understood nowhere.
    fn binding(&self, place: Option<Place<'_>>, reply: &mut Vec<u8>) -> Reply {
        let change = match self.message.change_request() {
            None => Some(NO_CHANGE),
            Some(Ok(change)) if place.is_some() || change == NO_CHANGE => Some(change),
            Some(Ok(_) | Err(_)) => None,
        };
        let not_understood = |kind: &Attribute| match *kind {
            Attribute::CHANGE_REQUEST => change.is_none(),
            Attribute::USERNAME | Attribute::MESSAGE_INTEGRITY => false,
            _ => true,
        };
        let mut unknown: Vec<Attribute> = self
            .message
            .required()
            .filter(not_understood)
            .take(MOST_UNKNOWN)
            .collect();
        if let Some(&last) = unknown.last() {
            // RFC 3489 §11.2.10: an even number of them.
            if unknown.len() % 2 == 1 {
                unknown.push(last);
            }
            return self.refuse(ErrorCode::UNKNOWN_ATTRIBUTE, &unknown, reply);
        }
        let mut writer = self.begin(Class::Success, reply);
        writer.address(Attribute::MAPPED_ADDRESS, self.from.five_tuple.client);
        let mut via = None;
        if let Some(place) = place {
            let origin = place.changed(change.unwrap_or(NO_CHANGE));
            writer
                .address(ClassicMessage::SOURCE_ADDRESS, origin.advertised())
                .address(ClassicMessage::CHANGED_ADDRESS, place.other().advertised());
            via = (origin.local() != place.local()).then(|| origin.local());
        }
        writer.finish();
        Reply {
            via,
            ..self.answered(0)
        }
    }

    fn refuse(&self, code: ErrorCode, unknown: &[Attribute], reply: &mut Vec<u8>) -> Reply {
        let mut writer = self.begin(Class::Error, reply);
        writer.error(code, "");
        if !unknown.is_empty() {
            writer.unknown_attributes(unknown.iter().copied());
        }
        writer.finish();
        self.answered(code.0)
    }

    fn begin<'r>(&self, class: Class, reply: &'r mut Vec<u8>) -> Writer<'r> {
        let id = self.message.transaction_id();
        Writer::classic(reply, class, self.message.method(), id)
    }

    fn answered(&self, code: u16) -> Reply {
        Reply {
            to: self.from,
            via: None,
            method: self.message.method(),
            code,
            refusal: None,
            authenticated: false,
        }
    }
}

const NO_CHANGE: ChangeRequest = ChangeRequest {
    ip: false,
    port: false,
};

/// A 420 is not larger than the request that has as many attributes \[S12\].
const MOST_UNKNOWN: usize = 16;
