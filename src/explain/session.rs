//! How a session went, and what went wrong with it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::refused::method_word;
use super::words::{counted, span, times};
use super::{Finding, peer, rank};
use crate::stun::Method;
use crate::turn::{
    Account, Cause, EndReason, Exchange, Fact, Note, Rebuff, RelayProtocol, SendFailure, Strangers,
    Why,
};

/// How many packets may go unanswered before it is worth a word.
const PATIENCE: u32 = 4;
/// RFC 8656 §9, in seconds.
const PERMISSION: u32 = 300;

/// What is wrong with a session, or may be; with one peer, if one is named.
pub(super) fn findings(
    account: &Account,
    refused: &[Rebuff],
    peer: Option<IpAddr>,
) -> Vec<Finding> {
    let story = Story { account, refused };
    let is_meant = |ip: IpAddr| peer.is_none_or(|peer| peer == ip);
    let mut findings = Vec::new();
    findings.extend(story.end());
    for note in &account.notes {
        if note.fact.peer().is_none_or(is_meant) {
            findings.extend(story.note(note));
        }
    }
    let silent = account.exchanges.iter();
    let silent = silent.filter(|one| is_meant(one.peer) || story.stranger_instead(one).is_some());
    findings.extend(silent.filter_map(|one| story.silent(one)));
    findings.extend(story.idle());
    let id = account.session.id.to_string();
    for finding in &mut findings {
        finding.session = Some(id.clone());
    }
    findings
}

/// How it stands with each peer.
pub(super) fn peers(account: &Account) -> Vec<String> {
    account
        .exchanges
        .iter()
        .map(|one| {
            let lasts = match one.left {
                Ok(left) => format!("for {} more", span(left.as_secs())),
                Err(ago) => format!("expired {} ago", span(ago.as_secs())),
            };
            format!(
                "peer {}: {}, {lasts}; {} sent, {} heard",
                place(one),
                match one.channel {
                    Some((_, number)) => format!("channel 0x{number:04x}"),
                    None => "permission".to_owned(),
                },
                one.sent,
                one.heard
            )
        })
        .collect()
}

fn place(one: &Exchange) -> String {
    match one.channel {
        Some((port, _)) => SocketAddr::new(one.peer, port).to_string(),
        None => one.peer.to_string(),
    }
}

/// A session, and whom else was refused.
struct Story<'a> {
    account: &'a Account,
    refused: &'a [Rebuff],
}

impl Story<'_> {
    fn age(&self) -> u32 {
        u32::try_from(self.account.session.age.as_secs()).unwrap_or(u32::MAX)
    }

    /// How long ago a second of the session's life was, in words.
    fn ago(&self, second: u32) -> String {
        let since_end = self.account.ended.map_or(Duration::ZERO, |(_, ago)| ago);
        let ago = u64::from(self.age().saturating_sub(second)) + since_end.as_secs();
        format!("{} ago", span(ago))
    }

    /// Whether anything comes back from any peer: then what is wrong with another one may be harmless.
    fn works(&self) -> bool {
        self.account.exchanges.iter().any(|one| one.heard > 0)
    }

    fn rank(&self, rank: u8) -> u8 {
        if self.works() { rank::HARMLESS } else { rank }
    }

    fn heard_from(&self, peer: IpAddr) -> bool {
        let mut exchanges = self.account.exchanges.iter();
        exchanges.any(|one| one.peer == peer && one.heard > 0)
    }

    /// Why it ended, unless the client wanted it to.
    fn end(&self) -> Option<Finding> {
        let (reason, ago) = self.account.ended?;
        let ended = format!("The session ended {} ago", span(ago.as_secs()));
        let (what, remedy) = match reason {
            EndReason::Deleted => return None,
            EndReason::Expired => return Some(self.not_refreshed(&ended)),
            EndReason::ConnectionClosed => (
                format!("{ended}: the client's connection was closed."),
                "The client has gone, or something between it and the server closes connections that are idle or old: \
                 a proxy, a load balancer, a firewall. With `mobility` under [server], clients that can may come back.",
            ),
            EndReason::CredentialsExpired => (
                format!(
                    "{ended}: its credential had expired, and `on_expiry = \"cut\"` ends calls then."
                ),
                "Issue credentials for longer than calls last, or let `on_expiry` under [auth] be \"refresh\" or \"new\".",
            ),
            EndReason::Kicked => (
                format!("{ended}: the operator ended it."),
                "The log and whoever has access to the admin socket know more.",
            ),
            EndReason::Stopped => (
                format!("{ended}: the server was stopped."),
                "Clients have to allocate anew.",
            ),
            EndReason::Revoked => (
                format!("{ended}: its credential, its user or its tenant was revoked."),
                "The client needs a new credential, if it is to have one.",
            ),
            EndReason::WorkerFailed => (
                format!("{ended}: the part of the server that carried it failed."),
                "That is a bug: the log has its place, please report it. Clients have to allocate anew.",
            ),
        };
        let cause = format!("ended_{}", reason.label());
        Some(finding(&cause, rank::ENDED, what, remedy))
    }

    fn not_refreshed(&self, ended: &str) -> Finding {
        let refreshed = self.account.refreshed;
        let last = match refreshed.count {
            0 => "It was never refreshed".to_owned(),
            count => format!(
                "It was refreshed {}, the last time {} into the session",
                times(count),
                span(refreshed.last.into())
            ),
        };
        let client = self.account.session.five_tuple.client;
        let refresh_refused = self.refused.iter().any(|one| {
            one.method == Method::REFRESH
                && one.five_tuple.client == client
                && matches!(one.why, Why::Expired { .. })
        });
        let (what, remedy) = if refresh_refused {
            (
                format!(
                    "{ended}: the client tried to refresh it, and was refused since its credential had expired. {last}."
                ),
                "Issue credentials for longer than calls last, or set `on_expiry = \"new\"` under [auth]: then they are \
                 judged when a call begins and no more.",
            )
        } else {
            (
                format!("{ended}: its client did not refresh it in time. {last}."),
                "The client has lost its network, was closed without a word, or slept (a page in the background, a \
                 phone). Clients have to send Refresh before the lifetime in the answer is over.",
            )
        };
        finding("ended_expired", rank::ENDED, what, remedy)
    }

    fn note(&self, note: &Note) -> Option<Finding> {
        let last = self.ago(note.last);
        let often = times(note.count);
        match note.fact {
            Fact::Permitted { .. } | Fact::Bound { .. } | Fact::Moved { .. } => None,
            Fact::Denied { ip, port, rule } => {
                let words = peer::closed(ip, rule);
                let what = format!(
                    "The peer {} was refused (403) {often}, last {last}: {}{}.",
                    SocketAddr::new(ip, port),
                    words.what,
                    self.policy()
                );
                let rank = self.rank(rank::CLOSED_PEER);
                Some(finding("peer_closed", rank, what, words.remedy))
            }
            Fact::Closed { ip } => Some(finding(
                "peer_closed_by_reload",
                rank::PERMISSION,
                format!("{ip} was open to this session, until a reload {last} closed it."),
                "See `deny` and `allow` under [peers].",
            )),
            Fact::FromPeerExpired { ip } => Some(self.permission_expired(ip, note)),
            Fact::ToPeerUnpermitted { ip } => Some(finding(
                "no_permission",
                self.rank(rank::PERMISSION),
                format!(
                    "The client sent to {ip} {often}, last {last}, without a permission for it: all of it was dropped."
                ),
                "The client must ask for the permission (CreatePermission) before it sends, and again before 5 minutes \
                 are over.",
            )),
            Fact::NoChannel { number } => Some(finding(
                "no_channel",
                self.rank(rank::PERMISSION),
                format!(
                    "The client sent {} through the channel 0x{number:04x}, which is not bound or has expired, last \
                     {last}: all of it was dropped.",
                    counted(note.count.into(), "packet")
                ),
                "A channel lasts 10 minutes: the client must bind it again before that (ChannelBind).",
            )),
            Fact::Dropped { cause } => Some(self.dropped(cause, note)),
            Fact::Icmp {
                ip,
                port,
                kind,
                code,
            } => Some(self.unreachable(ip, port, (kind, code), note)),
            Fact::SendFailed { ip, why } => Some(self.not_sent(ip, why, note)),
            Fact::ConnectFailed { ip, port } => Some(finding(
                "connect_failed",
                self.rank(rank::UNREACHABLE),
                format!(
                    "The peer {} could not be connected to (447), {often}, last {last}: it refused, or did not answer \
                     in time.",
                    SocketAddr::new(ip, port)
                ),
                "Look whether it listens on that port, and whether a firewall lets the relay's address in; `nc -vz` \
                 from this host tells which of the two it is. `connect_timeout` under [tcp_relay] says how long is waited.",
            )),
            Fact::Refused { method, code } => Some(self.refused(method, code, note)),
        }
    }

    /// By which rules peers are judged, if by other than everybody's.
    fn policy(&self) -> String {
        let issued = self.account.session.issued();
        let policy = issued.and_then(|issued| issued.claims.policy);
        policy.map_or_else(String::new, |name| {
            format!(" (judged by the policy `{name}` of `policies` under [peers], which its credential names)")
        })
    }

    fn permission_expired(&self, ip: IpAddr, note: &Note) -> Finding {
        let mut notes = self.account.notes.iter();
        let permitted = notes.rfind(|note| note.fact.permits(ip));
        let dropped = counted(note.count.into(), "packet");
        let what = match permitted {
            Some(permitted) => format!(
                "The permission for {ip} expired {}: the client asked for it {}, the last time {}, and stopped. Since \
                 then {dropped} from that peer {} dropped.",
                self.ago(permitted.last.saturating_add(PERMISSION)),
                times(permitted.count),
                self.ago(permitted.last),
                if note.count == 1 { "was" } else { "were" },
            ),
            None => format!(
                "The permission for {ip} has expired, and {dropped} from that peer were dropped since."
            ),
        };
        let live = self
            .account
            .exchanges
            .iter()
            .any(|one| one.peer == ip && one.left.is_ok());
        let rank = if live {
            rank::HARMLESS
        } else {
            rank::PERMISSION
        };
        finding(
            "permission_expired",
            rank,
            what,
            "A permission lasts 5 minutes: the client must ask again before that (CreatePermission, or ChannelBind of a \
             channel to that peer). Look for a client that slept, or that forgets to.",
        )
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

    fn unreachable(&self, ip: IpAddr, port: u16, (kind, code): (u8, u8), note: &Note) -> Finding {
        let (cause, said, remedy) = icmp_words(ip, kind, code);
        let peer = match port {
            0 => ip.to_string(),
            _ => SocketAddr::new(ip, port).to_string(),
        };
        let rank = if self.heard_from(ip) {
            rank::HARMLESS
        } else {
            self.rank(rank::UNREACHABLE)
        };
        let what = format!(
            "What was sent to {peer} came back as undeliverable: {said} (ICMP type {kind}, code {code}), {}, last {}.",
            times(note.count),
            self.ago(note.last)
        );
        finding(cause, rank, what, remedy)
    }

    fn not_sent(&self, ip: IpAddr, why: SendFailure, note: &Note) -> Finding {
        let family = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
        let (cause, said, remedy) = match why {
            SendFailure::NoRoute => (
                "no_route",
                format!("this host has no {family} route there"),
                "`ip route get ADDRESS` on this host shows what is missing. If it has no such network at all, name no \
                 address of that family under [relay] addresses.",
            ),
            SendFailure::TooBig => (
                "too_big",
                "the packets are longer than the path takes, and must not be fragmented".to_owned(),
                "The client has to send smaller packets: below 1200 bytes all go through.",
            ),
            SendFailure::Forbidden => (
                "firewall",
                "a firewall of this host forbids it".to_owned(),
                "Look at the output rules of this host (`nft list ruleset`), for UDP from the relay's ports.",
            ),
            SendFailure::Other => (
                "send_failed",
                "the kernel refused it".to_owned(),
                "`turn_socket_errors_total` on the metrics page says more.",
            ),
        };
        let what = format!(
            "What was meant for {ip} could not be sent: {said}; {}, last {}.",
            times(note.count),
            self.ago(note.last)
        );
        finding(cause, self.rank(rank::UNREACHABLE), what, remedy)
    }

    fn refused(&self, method: Method, code: u16, note: &Note) -> Finding {
        let (said, remedy) = match (code, method) {
            (486, _) => (
                "it has as many connections or peers as it may have",
                "See [tcp_relay] and [limits].",
            ),
            (508, Method::CREATE_PERMISSION) => (
                "it has as many permissions as it may have",
                "`permissions` under [limits] says how many. The client names more peers than calls need.",
            ),
            (508, Method::CHANNEL_BIND) => (
                "it has as many channels or permissions as it may have",
                "`channels` and `permissions` under [limits] say how many.",
            ),
            (443, _) => (
                "the peer is of another address family than the relay",
                "The client has to ask for a relay of that family, too, and the server needs one under [relay].",
            ),
            (437, Method::ALLOCATE) => (
                "the client has an allocation already",
                "It has to use another port, or the one it has.",
            ),
            (403, Method::CONNECT) => (
                "the port is one that clients may not connect to",
                "Ports below 1024 have to be named in `low_ports` under [tcp_relay].",
            ),
            (403, _) => (
                "it names more new peers in a minute than it may, or its credential names a policy that is no more",
                "See `new_peers_per_allocation` and `new_peers_per_user` under [limits], and `policies` under [peers].",
            ),
            (446, _) => (
                "there is a connection to that peer already",
                "The client has to use that one.",
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
        let what = format!(
            "{} was answered {code} {}, last {}: {said}.",
            method_word(method),
            times(note.count),
            self.ago(note.last)
        );
        finding("request_refused", self.rank(rank::REQUEST), what, remedy)
    }

    /// A peer that never answered.
    fn silent(&self, one: &Exchange) -> Option<Finding> {
        // Why it is silent may be known already.
        let is_unreachable = |note: &Note| matches!(note.fact, Fact::Icmp { ip, .. } | Fact::SendFailed { ip, .. } if ip == one.peer);
        if one.sent < PATIENCE
            || self.heard_from(one.peer)
            || self.account.notes.iter().any(is_unreachable)
        {
            return None;
        }
        let relays: Vec<String> = self
            .account
            .session
            .relays
            .iter()
            .filter(|relay| relay.is_ipv4() == one.peer.is_ipv4())
            .map(ToString::to_string)
            .collect();
        let relays = relays.join(" or ");
        let sent = format!(
            "{} was sent {} and has not answered with one.",
            place(one),
            counted(one.sent.into(), "packet")
        );
        if let Some(Strangers { count, from, .. }) = self.stranger_instead(one) {
            return Some(finding(
                "answers_from_elsewhere",
                self.rank(rank::SILENT_PEER - 1),
                format!(
                    "The peer {sent} But {} came from {from}, which has no permission: most likely the peer sends from \
                     there.",
                    counted(count.into(), "packet")
                ),
                "The peer has another address than it said: a NAT in front of it, or a second interface. Its server- or \
                 peer-reflexive candidate has to reach the client (signalling), so that the client asks for a \
                 permission for it."
                    .to_owned(),
            ));
        }
        Some(finding(
            "peer_silent",
            self.rank(rank::SILENT_PEER),
            format!("The peer {sent}"),
            format!(
                "Either nothing listens there, or a firewall drops what comes from {relays}, or the peer is behind a NAT \
                 that lets in only whom it has sent to: it has to send to {relays} first, so it has to be told that \
                 candidate. `tcpdump` at the peer tells whether the packets arrive."
            ),
        ))
    }

    /// Where packets came from that may be the answers of a silent peer.
    fn stranger_instead(&self, one: &Exchange) -> Option<Strangers> {
        self.account
            .strangers
            .filter(|strangers| one.heard == 0 && strangers.from.is_ipv4() == one.peer.is_ipv4())
    }

    /// A client that made an allocation and then nothing of it; and strangers that nobody was sent to.
    fn idle(&self) -> Option<Finding> {
        let Account {
            session,
            exchanges,
            notes,
            strangers,
            ..
        } = self.account;
        let age = span(session.age.as_secs());
        if let Some(Strangers { count, from, .. }) = strangers
            && exchanges.iter().all(|one| one.sent < PATIENCE)
        {
            return Some(finding(
                "no_permission_for_sender",
                self.rank(rank::PERMISSION),
                format!(
                    "{} came in from addresses without a permission, last from {from}, and {} dropped.",
                    counted((*count).into(), "packet"),
                    if *count == 1 { "was" } else { "were" }
                ),
                "If that is the peer: its candidate did not reach the client, which has to ask for a permission. If \
                 nobody knows it: any port of the internet gets such packets."
                    .to_owned(),
            ));
        }
        let waits = session.age >= Duration::from_secs(10);
        let is_udp = session.protocol == RelayProtocol::Udp;
        (waits && is_udp && exchanges.is_empty() && notes.is_empty()).then(|| {
            finding(
                "client_idle",
                rank::ODD,
                format!("In {age} the client has named no peer: it made the allocation, and nothing came of it."),
                "It never heard of the other side's candidates (signalling), or another way was chosen and this one is \
                 kept in reserve, which is no fault.",
            )
        })
    }
}

/// What an ICMP error says, and what to do about it.
fn icmp_words(ip: IpAddr, kind: u8, code: u8) -> (&'static str, &'static str, &'static str) {
    let port = (
        "port_unreachable",
        "the host is there, and nothing listens on that port",
        "The peer's program has ended or uses another port; its candidate is old.",
    );
    let host = (
        "host_unreachable",
        "a router could not find the host",
        "The peer is off, or has left that network; look at its address, and at the routes of this host.",
    );
    let net = (
        "net_unreachable",
        "there is no route to that network",
        "`ip route get ADDRESS` on this host shows where the way ends; a relay without IPv6 must not offer any.",
    );
    let filtered = (
        "filtered",
        "a firewall on the way forbids it, and says so",
        "Let UDP in there from the relay's address and ports.",
    );
    let too_big = (
        "too_big",
        "the packets are longer than the path takes",
        "The client has to send smaller packets: below 1200 bytes all go through.",
    );
    let on_the_way = (
        "undeliverable",
        "it got lost on the way",
        "Routes between here and there go in circles, or a router drops it: `traceroute` shows where.",
    );
    if ip.is_ipv4() {
        match (kind, code) {
            (3, 3) => port,
            (3, 4) => too_big,
            (3, 0 | 6 | 11) => net,
            (3, 9 | 10 | 13) => filtered,
            (3, _) => host,
            _ => on_the_way,
        }
    } else {
        match (kind, code) {
            (1, 4) => port,
            (2, _) => too_big,
            (1, 0) => net,
            (1, 1 | 5 | 6) => filtered,
            (1, _) => host,
            _ => on_the_way,
        }
    }
}

fn finding(cause: &str, rank: u8, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding {
        cause: cause.to_owned(),
        rank,
        session: None,
        what: what.into(),
        remedy: remedy.into(),
    }
}
