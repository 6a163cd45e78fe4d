//! What was noted of a session, one fact after the other.

use std::net::{IpAddr, SocketAddr};

use super::refused::method_word;
use super::session::{Story, finding};
use super::words::{counted, times};
use super::{Finding, peer, rank};
use crate::stun::Method;
use crate::turn::{Cause, Fact, Ground, Note};

/// RFC 8656 §9, in seconds.
const PERMISSION: u32 = 300;

impl Story<'_> {
    /// What is wrong by one note, if anything is.
    pub(super) fn note(&self, note: &Note) -> Option<Finding> {
        match note.fact {
            Fact::Permitted { .. } | Fact::Bound { .. } | Fact::Moved { .. } => None,
            Fact::Denied { ip, port, rule } => {
                let words = peer::closed(ip, rule);
                let what = format!(
                    "The peer {} was refused (403) {}, last {}: {}{}.",
                    SocketAddr::new(ip, port),
                    times(note.count),
                    self.ago(note.last),
                    words.what,
                    self.policy()
                );
                let rank = self.rank(rank::CLOSED_PEER);
                Some(finding("peer_closed", rank, what, words.remedy))
            }
            Fact::Closed { ip } => self.is_closed(ip).then(|| self.closed(ip, note)),
            // What a reload has closed, all of this comes from.
            Fact::FromPeerExpired { ip } | Fact::ToPeerUnpermitted { ip } if self.is_closed(ip) => {
                None
            }
            Fact::FromPeerExpired { ip } => Some(self.permission_expired(ip, note)),
            Fact::ToPeerUnpermitted { ip } => Some(self.no_permission(ip, note)),
            Fact::NoChannel { number } => self.no_channel(number, note),
            Fact::Dropped { cause } => Some(self.dropped(cause, note)),
            Fact::Icmp {
                ip,
                port,
                kind,
                code,
            } => Some(self.unreachable(ip, port, (kind, code), note)),
            Fact::SendFailed { ip, why } => Some(self.not_sent(ip, why, note)),
            Fact::ConnectFailed { ip, port, why } => {
                Some(self.not_connected(SocketAddr::new(ip, port), why, note))
            }
            Fact::Refused {
                method,
                code,
                ground,
            } => Some(self.refused(method, code, ground, note)),
        }
    }

    /// By which rules peers are judged, if by other than everybody's.
    fn policy(&self) -> String {
        self.policy_name().map_or_else(String::new, |name| {
            format!(" (judged by the policy `{name}` of `policies` under [peers], which its credential names)")
        })
    }

    fn policy_name(&self) -> Option<&str> {
        let issued = self.account.session.issued();
        issued.and_then(|issued| issued.claims.policy)
    }

    fn closed(&self, ip: IpAddr, note: &Note) -> Finding {
        finding(
            "peer_closed_by_reload",
            rank::PERMISSION,
            format!(
                "{ip} was open to this session, until a reload {} closed it: what goes to it or comes from it is dropped \
                 since.",
                self.ago(note.last)
            ),
            "See `deny`, `allow` and `policies` under [peers]; `turnd explain --peer ADDRESS` tells by which rule.",
        )
    }

    fn permission_expired(&self, ip: IpAddr, note: &Note) -> Finding {
        let mut notes = self.account.notes.iter();
        let permitted = notes.rfind(|note| note.fact.permits(ip));
        let dropped = counted(note.count.into(), "packet");
        let were = if note.count == 1 { "was" } else { "were" };
        let what = match permitted {
            // It was asked for anew since the last packet that was dropped.
            Some(permitted) if permitted.last > note.last => format!(
                "The permission for {ip} had expired before the client asked for it again {}: {dropped} from that peer \
                 {were} dropped meanwhile.",
                self.ago(permitted.last)
            ),
            Some(permitted) => format!(
                "The permission for {ip} expired {}: the client asked for it {}, the last time {}, and stopped. Since \
                 then {dropped} from that peer {were} dropped.",
                self.ago(permitted.last.saturating_add(PERMISSION)),
                times(permitted.count),
                self.ago(permitted.last),
            ),
            None => format!(
                "The permission for {ip} has expired, and {dropped} from that peer {were} dropped since."
            ),
        };
        finding(
            "permission_expired",
            self.unless_permitted(ip, rank::PERMISSION),
            what,
            "A permission lasts 5 minutes: the client must ask again before that (CreatePermission, or ChannelBind of a \
             channel to that peer). Look for a client that slept, or that forgets to.",
        )
    }

    fn no_permission(&self, ip: IpAddr, note: &Note) -> Finding {
        let packets = counted(note.count.into(), "packet");
        let were = if note.count == 1 { "was" } else { "were" };
        finding(
            "no_permission",
            self.unless_permitted(ip, self.rank(rank::PERMISSION)),
            format!(
                "{packets} of the client for {ip}, the last {}, had no permission and {were} dropped.",
                self.ago(note.last)
            ),
            "The client must ask for the permission (CreatePermission) and wait for the answer before it sends, and ask \
             again before 5 minutes are over.",
        )
    }

    fn no_channel(&self, number: u16, note: &Note) -> Option<Finding> {
        let mut facts = self.account.notes.iter().rev().map(|note| note.fact);
        let bound = facts
            .find(|fact| matches!(fact, Fact::Bound { number: bound, .. } if *bound == number));
        let bound = bound.and_then(|fact| fact.peer());
        if bound.is_some_and(|ip| self.is_closed(ip)) {
            return None;
        }
        let rank = if self.is_bound(number) {
            rank::HARMLESS
        } else {
            self.rank(rank::PERMISSION)
        };
        Some(finding(
            "no_channel",
            rank,
            format!(
                "The client sent {} through the channel 0x{number:04x} while it was not bound, or had expired, last {}: \
                 all of that was dropped.",
                counted(note.count.into(), "packet"),
                self.ago(note.last)
            ),
            "A channel lasts 10 minutes: the client must bind it again before that (ChannelBind).",
        ))
    }

    fn dropped(&self, cause: Cause, note: &Note) -> Finding {
        const LIMITS: &str = "under [limits] says how much; what a credential claims (b) may be less. A client that \
                              heeds congestion sends less after a while; one that does not needs more, or sends too much.";
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "what is noted, and what may come to be"
        )]
        let (said, remedy) = match cause {
            Cause::Bandwidth => (
                "it is above what one allocation may relay",
                format!("`bandwidth_per_allocation` {LIMITS}"),
            ),
            Cause::UserBandwidth => (
                "it is above what the allocations of its user may relay together",
                format!("`bandwidth_per_user` {LIMITS}"),
            ),
            Cause::TenantBandwidth => (
                "it is above what the users of its tenant may relay together",
                format!("`bandwidth_per_tenant` {LIMITS}"),
            ),
            Cause::TotalBandwidth => (
                "it is above what everybody may relay together",
                format!("`bandwidth_total` {LIMITS}"),
            ),
            Cause::ClientAway => (
                "the client's connection is closed, and it has not come back yet",
                "It has a ticket with which it may (RFC 8016); if it does not, the session ends with its lifetime."
                    .to_owned(),
            ),
            _ => (cause.label(), "See turn_dropped_packets_total.".to_owned()),
        };
        let what = format!(
            "{} dropped, last {}: {said}.",
            match note.count {
                1 => "1 packet was".to_owned(),
                count => format!("{count} packets were"),
            },
            self.ago(note.last)
        );
        finding(cause.label(), rank::ODD, what, remedy)
    }

    /// A request about the session that was refused, for another reason than the peer it names.
    fn refused(&self, method: Method, code: u16, ground: Ground, note: &Note) -> Finding {
        let (said, remedy) = match ground {
            Ground::Code => code_words(method, code),
            Ground::NewPeers => (
                "it names more new peers in a minute than it may".to_owned(),
                "`new_peers_per_allocation` and `new_peers_per_user` under [limits] say how many. A call needs few; \
                 a client that names very many may be looking around in the network.",
            ),
            Ground::NoPolicy => (
                format!(
                    "its credential names the policy `{}`, which is not there (or not any more), so no peer is open to it",
                    self.policy_name().unwrap_or_default()
                ),
                "Put it under `policies` of [peers] and reload, or let the token service issue credentials for one that \
                 is there.",
            ),
        };
        let what = format!(
            "{} was answered {code} {}, last {}: {said}.",
            method_word(method),
            times(note.count),
            self.ago(note.last)
        );
        finding("request_refused", self.rank(rank::REQUEST), what, remedy)
    }
}

/// What an error code means as the answer to a request about a session, and what to do about it.
fn code_words(method: Method, code: u16) -> (String, &'static str) {
    let (said, remedy) = match (code, method) {
        (486, _) => (
            "it has as many connections to peers as it may have",
            "`connections` under [tcp_relay] says how many.",
        ),
        (508, Method::CREATE_PERMISSION) => (
            "it has as many permissions as it may have",
            "`permissions` under [limits] says how many. The client names more peers than calls need.",
        ),
        (508, Method::CHANNEL_BIND) => (
            "it has as many channels or permissions as it may have",
            "`channels` and `permissions` under [limits] say how many.",
        ),
        (443, Method::REFRESH) => (
            "it names an address family that the relay does not have",
            "The client is broken, or has given that relay back already.",
        ),
        (443, _) => (
            "the peer is of another address family than the relay",
            "The client has to ask for a relay of that family, too, and the server needs one under [relay].",
        ),
        (437, Method::ALLOCATE) => (
            "the client has an allocation already",
            "It has to use another port, or the one it has.",
        ),
        (437, Method::CONNECT) => (
            "its relay is one for datagrams, which connects to nobody",
            "The client has to ask for a TCP relay (REQUESTED-TRANSPORT 6) when it allocates.",
        ),
        (437, _) => (
            "its ticket is not, or no longer, that of a session here",
            "The client has to use the last ticket that it was given, or allocate anew.",
        ),
        (405, _) => (
            "it has a ticket, and clients may not move here",
            "`mobility` under [server] lets them.",
        ),
        (403, Method::CONNECT) => (
            "the port is one that clients may not connect to, or TCP relays have been turned off since",
            "Ports below 1024 have to be named in `low_ports` under [tcp_relay]; `enabled` there turns the relays on.",
        ),
        (446, _) => (
            "there is a connection to that peer already",
            "The client has to use that one.",
        ),
        (447, _) => (
            "the connection could not be handed over",
            "Too many connections wait for their clients; see turn_dropped_packets_total.",
        ),
        (400, Method::CHANNEL_BIND) => (
            "the number is out of range or leads to another peer, or the peer has another number",
            "A number stays bound for 10 minutes, and free for no other peer for 5 more. Clients of RFC 5766 may use \
             more numbers with `rfc5766_channels` under [server].",
        ),
        (420, _) => (
            "it has an attribute that must be understood and is not",
            "The client uses an extension that this server does not know.",
        ),
        _ => (
            "it contradicts itself or lacks something",
            "The client is broken: capture its packets and look at the attributes.",
        ),
    };
    (said.to_owned(), remedy)
}
