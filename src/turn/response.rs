//! What becomes of a request, and the only code that writes answers (but for those to RFC 3489, in `classic`).

use std::net::SocketAddr;

use crate::stun::{
    AddressError, Attribute, Class, ErrorCode, Integrity, Key, Method, TransactionId, Writer,
};

use super::authenticate::User;
use super::discovery::Place;
use super::nonce::Nonce;
use super::offer::Offer;
use super::redirect::Alternate;
use super::request::Request;
use super::ticket::SealedTicket;
use super::trail::Ground;
use super::{Client, ConnectionId, Family, Refusal, Reply, ReservationToken, Transport};

/// A request that was carried out.
#[derive(Debug)]
pub(super) enum Success {
    /// Allocate.
    Allocated(Allocated),
    /// Refresh: the seconds that are left, and the next ticket of a client that has moved.
    Refreshed {
        lifetime: u32,
        ticket: Option<SealedTicket>,
    },
    /// CreatePermission, ChannelBind and ConnectionBind, which have nothing to tell.
    Done,
    /// Connect, which is answered when its outcome is known.
    Later,
}

/// What a client is told of its allocation.
#[derive(Debug)]
pub(super) struct Allocated {
    pub(super) relay: SocketAddr,
    pub(super) second: Option<SocketAddr>,
    pub(super) lifetime: u32,
    pub(super) reserved: Option<ReservationToken>,
    /// Which of two families could not be had, and why.
    pub(super) lacks: Option<(Family, ErrorCode)>,
    /// Of a client that may move.
    pub(super) ticket: Option<SealedTicket>,
}

/// An authenticated request that was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reject {
    /// 300, with where to go.
    TryAlternate(Alternate),
    /// 400
    BadRequest,
    /// 403
    Forbidden,
    /// 403, for more peers in a minute than there may be.
    NewPeers,
    /// 403, for a credential whose policy is not there.
    NoPolicy,
    /// 405
    MobilityForbidden,
    /// 420, with what the request has of unknown attributes.
    UnknownAttributes,
    /// 437
    AllocationMismatch,
    /// 440
    AddressFamily,
    /// 441
    WrongCredentials,
    /// 442
    TransportProtocol,
    /// 443
    PeerFamily,
    /// 446
    ConnectionExists,
    /// 447
    ConnectionFailed,
    /// 486
    Quota,
    /// 508
    Capacity,
}

impl Reject {
    pub(super) fn code(self) -> ErrorCode {
        match self {
            Self::TryAlternate(_) => ErrorCode::TRY_ALTERNATE,
            Self::BadRequest => ErrorCode::BAD_REQUEST,
            Self::Forbidden | Self::NewPeers | Self::NoPolicy => ErrorCode::FORBIDDEN,
            Self::MobilityForbidden => ErrorCode::MOBILITY_FORBIDDEN,
            Self::UnknownAttributes => ErrorCode::UNKNOWN_ATTRIBUTE,
            Self::AllocationMismatch => ErrorCode::ALLOCATION_MISMATCH,
            Self::AddressFamily => ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED,
            Self::WrongCredentials => ErrorCode::WRONG_CREDENTIALS,
            Self::TransportProtocol => ErrorCode::UNSUPPORTED_TRANSPORT_PROTOCOL,
            Self::PeerFamily => ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH,
            Self::ConnectionExists => ErrorCode::CONNECTION_ALREADY_EXISTS,
            Self::ConnectionFailed => ErrorCode::CONNECTION_TIMEOUT_OR_FAILURE,
            Self::Quota => ErrorCode::ALLOCATION_QUOTA_REACHED,
            Self::Capacity => ErrorCode::INSUFFICIENT_CAPACITY,
        }
    }

    /// What the code does not say.
    pub(super) fn ground(self) -> Ground {
        match self {
            Self::NewPeers => Ground::NewPeers,
            Self::NoPolicy => Ground::NoPolicy,
            Self::TryAlternate(_)
            | Self::BadRequest
            | Self::Forbidden
            | Self::MobilityForbidden
            | Self::UnknownAttributes
            | Self::AllocationMismatch
            | Self::AddressFamily
            | Self::WrongCredentials
            | Self::TransportProtocol
            | Self::PeerFamily
            | Self::ConnectionExists
            | Self::ConnectionFailed
            | Self::Quota
            | Self::Capacity => Ground::Code,
        }
    }
}

/// The answer to an authenticated request, signed with the key that authenticated it, whatever it says.
pub(super) fn signed(
    outcome: &Result<Success, Reject>,
    request: &Request<'_>,
    user: &User<'_>,
    reply: &mut Vec<u8>,
) -> Reply {
    let (class, code) = match outcome {
        Ok(_) => (Class::Success, 0),
        Err(reject) => (Class::Error, reject.code().0),
    };
    let mut writer = begin(request, class, reply);
    match outcome {
        Ok(success) => put_success(success, request, &mut writer),
        Err(reject) => {
            writer.error(reject.code(), reject.code().reason());
            if *reject == Reject::UnknownAttributes {
                writer.unknown_attributes(request.unknown_required());
            }
            if let Reject::TryAlternate(alternate) = reject {
                put_alternate(alternate, request, user, &mut writer);
            }
        }
    }
    if matches!(request.message.method(), Method::ALLOCATE | Method::REFRESH)
        && let Some(software) = &request.settings.software
    {
        writer.bytes(Attribute::SOFTWARE, software.as_bytes());
    }
    writer.finish_with_integrity(&user.key, user.integrity);
    Reply {
        to: request.from,
        via: None,
        method: request.message.method(),
        code,
        refusal: matches!(outcome, Err(Reject::WrongCredentials)).then_some(Refusal::WrongUser),
        authenticated: true,
    }
}

/// What it takes to answer a Connect later.
pub(super) struct Deferred {
    pub(super) transaction: TransactionId,
    key: Key,
    integrity: Integrity,
}

impl Deferred {
    pub(super) fn new(request: &Request<'_>, user: &User<'_>) -> Self {
        Self {
            transaction: request.message.transaction_id(),
            key: user.key.clone(),
            integrity: user.integrity,
        }
    }

    /// The answer to a Connect, to wherever its client is by then.
    pub(super) fn connected(
        &self,
        outcome: Result<ConnectionId, Reject>,
        to: Client,
        reply: &mut Vec<u8>,
    ) -> Reply {
        let (method, id) = (Method::CONNECT, self.transaction);
        let (writer, code) = match outcome {
            Ok(connection) => {
                let mut writer = Writer::new(reply, Class::Success, method, id);
                writer.u32(Attribute::CONNECTION_ID, connection.0);
                (writer, 0)
            }
            Err(reject) => {
                let mut writer = Writer::new(reply, Class::Error, method, id);
                writer.error(reject.code(), reject.code().reason());
                (writer, reject.code().0)
            }
        };
        writer.finish_with_integrity(&self.key, self.integrity);
        Reply {
            to,
            via: None,
            method,
            code,
            refusal: None,
            authenticated: true,
        }
    }
}

/// The answer to a request that did not authenticate, with what the client needs to try again. As short as can be:
/// anybody can have it sent to anybody.
pub(super) fn challenge(
    request: &Request<'_>,
    code: ErrorCode,
    refusal: Refusal,
    (nonce, offer): (&Nonce, Offer),
    reply: &mut Vec<u8>,
) -> Reply {
    let mut writer = begin(request, Class::Error, reply);
    writer
        .error(code, "")
        .bytes(Attribute::REALM, request.users().realm().as_bytes())
        .bytes(Attribute::NONCE, nonce.as_bytes());
    if let Some(list) = offer.algorithms.list() {
        writer.bytes(Attribute::PASSWORD_ALGORITHMS, list);
    }
    if let Some(third_party) = request.third_party()
        && code == ErrorCode::UNAUTHENTICATED
    {
        let name = third_party.server_name().as_bytes();
        writer.bytes(Attribute::THIRD_PARTY_AUTHORIZATION, name);
    }
    writer.finish();
    unauthenticated(request, code.0, Some(refusal))
}

/// The answer to a request whose credentials are incomplete (400): without anything.
pub(super) fn incomplete(request: &Request<'_>, refusal: Refusal, reply: &mut Vec<u8>) -> Reply {
    let code = ErrorCode::BAD_REQUEST;
    let mut writer = begin(request, Class::Error, reply);
    writer.error(code, "");
    writer.finish();
    unauthenticated(request, code.0, Some(refusal))
}

/// The answer to a Binding request: the address it came from, and nothing else.
pub(super) fn binding(request: &Request<'_>, reply: &mut Vec<u8>) -> Reply {
    let mut writer = begin(request, Class::Success, reply);
    writer.xor_address(
        Attribute::XOR_MAPPED_ADDRESS,
        request.from.five_tuple.client,
    );
    writer.finish();
    unauthenticated(request, 0, None)
}

/// The answer to a Binding request that came in at `place` and is answered from `origin` (RFC 5780 §6.1).
///
/// PADDING, which makes the answer as long as the request wants it, makes it no longer than the request is.
pub(super) fn behaviour(
    request: &Request<'_>,
    place: Place<'_>,
    origin: Place<'_>,
    padding: Option<&[u8]>,
    reply: &mut Vec<u8>,
) -> Reply {
    let client = request.from.five_tuple.client;
    let mut writer = begin(request, Class::Success, reply);
    writer
        .address(Attribute::MAPPED_ADDRESS, client)
        .xor_address(Attribute::XOR_MAPPED_ADDRESS, client)
        .address(Attribute::RESPONSE_ORIGIN, origin.advertised())
        .address(Attribute::OTHER_ADDRESS, place.other().advertised());
    if let Some(padding) = padding {
        let whole = request.message.as_bytes().len();
        let room = whole.saturating_sub(writer.written() + ATTRIBUTE_HEADER) & !3;
        writer.bytes(Attribute::PADDING, &padding[..padding.len().min(room)]);
    }
    writer.finish();
    unauthenticated(request, 0, None)
}

/// The answer to a request that nobody signed, or nobody can have signed, with what is not understood in it (420).
pub(super) fn not_understood(
    request: &Request<'_>,
    unknown: impl Iterator<Item = Attribute>,
    reply: &mut Vec<u8>,
) -> Reply {
    let code = ErrorCode::UNKNOWN_ATTRIBUTE;
    let mut writer = begin(request, Class::Error, reply);
    writer.error(code, "").unknown_attributes(unknown);
    writer.finish();
    unauthenticated(request, code.0, None)
}

/// The answer to a Binding request that contradicts itself (400).
pub(super) fn binding_malformed(request: &Request<'_>, reply: &mut Vec<u8>) -> Reply {
    let code = ErrorCode::BAD_REQUEST;
    let mut writer = begin(request, Class::Error, reply);
    writer.error(code, "");
    writer.finish();
    unauthenticated(request, code.0, None)
}

/// Type and length.
const ATTRIBUTE_HEADER: usize = 4;

fn put_success(success: &Success, request: &Request<'_>, writer: &mut Writer<'_>) {
    match success {
        Success::Allocated(allocated) => {
            for &relay in std::iter::once(&allocated.relay).chain(&allocated.second) {
                writer.xor_address(Attribute::XOR_RELAYED_ADDRESS, relay);
            }
            writer
                .u32(Attribute::LIFETIME, allocated.lifetime)
                .xor_address(
                    Attribute::XOR_MAPPED_ADDRESS,
                    request.from.five_tuple.client,
                );
            if let Some(token) = allocated.reserved {
                writer.bytes(Attribute::RESERVATION_TOKEN, &token.0);
            }
            put_ticket(allocated.ticket, writer);
            if let Some((family, code)) = allocated.lacks {
                writer.address_error(AddressError {
                    family: family.number(),
                    code,
                    reason: code.reason(),
                });
            }
        }
        Success::Refreshed { lifetime, ticket } => {
            writer.u32(Attribute::LIFETIME, *lifetime);
            put_ticket(*ticket, writer);
        }
        Success::Done | Success::Later => {}
    }
}

/// Where to go, and what is good there (RFC 8489 §10): the servers share the key of nonces, so the client's own \[300-2\].
fn put_alternate(
    alternate: &Alternate,
    request: &Request<'_>,
    user: &User<'_>,
    writer: &mut Writer<'_>,
) {
    for &server in std::iter::once(&alternate.first).chain(&alternate.second) {
        writer.address(Attribute::ALTERNATE_SERVER, server);
    }
    let secured = matches!(
        request.from.five_tuple.transport,
        Transport::Tls | Transport::Dtls
    );
    let redirect = request.settings.redirect.as_ref();
    if let Some(domain) = redirect.and_then(|redirect| redirect.domain.as_ref())
        && secured
        && user.integrity == Integrity::Sha256
    {
        writer.bytes(Attribute::ALTERNATE_DOMAIN, domain.as_bytes());
    }
    if let (Some(Ok(realm)), Some(Ok(nonce))) = (request.message.realm(), request.message.nonce()) {
        writer
            .bytes(Attribute::REALM, realm)
            .bytes(Attribute::NONCE, nonce);
    }
}

fn put_ticket(ticket: Option<SealedTicket>, writer: &mut Writer<'_>) {
    if let Some(ticket) = ticket {
        writer.bytes(Attribute::MOBILITY_TICKET, &ticket.0);
    }
}

fn begin<'r>(request: &Request<'_>, class: Class, reply: &'r mut Vec<u8>) -> Writer<'r> {
    Writer::new(
        reply,
        class,
        request.message.method(),
        request.message.transaction_id(),
    )
}

fn unauthenticated(request: &Request<'_>, code: u16, refusal: Option<Refusal>) -> Reply {
    Reply {
        to: request.from,
        via: None,
        method: request.message.method(),
        code,
        refusal,
        authenticated: false,
    }
}
