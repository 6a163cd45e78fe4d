//! How a session went, and what went wrong with it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::words::{counted, span, times};
use super::{Finding, rank};
use crate::stun::Method;
use crate::turn::{
    Account, EndReason, Exchange, Fact, Note, Rebuff, RelayProtocol, Strangers, Why,
};

/// How many packets may go unanswered before it is worth a word.
const PATIENCE: u32 = 4;

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
            let lasts = match (one.left, account.ended) {
                (Ok(left), None) => format!(", for {} more", span(left.as_secs())),
                // What lived ended with the session.
                (Ok(_), Some(_)) => String::new(),
                (Err(ago), None) => format!(", expired {} ago", span(ago.as_secs())),
                (Err(ago), Some(_)) => {
                    format!(", expired {} before the end", span(ago.as_secs()))
                }
            };
            format!(
                "peer {}: {}{lasts}; {} sent, {} heard",
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
pub(super) struct Story<'a> {
    pub(super) account: &'a Account,
    refused: &'a [Rebuff],
}

impl Story<'_> {
    fn age(&self) -> u32 {
        u32::try_from(self.account.session.age.as_secs()).unwrap_or(u32::MAX)
    }

    /// How long ago a second of the session's life was, in words.
    pub(super) fn ago(&self, second: u32) -> String {
        let since_end = self.account.ended.map_or(Duration::ZERO, |(_, ago)| ago);
        let ago = u64::from(self.age().saturating_sub(second)) + since_end.as_secs();
        format!("{} ago", span(ago))
    }

    /// Whether anything comes back from any peer: then what is wrong with another one may be harmless.
    fn works(&self) -> bool {
        self.account.exchanges.iter().any(|one| one.heard > 0)
    }

    pub(super) fn rank(&self, rank: u8) -> u8 {
        if self.works() { rank::HARMLESS } else { rank }
    }

    pub(super) fn heard_from(&self, peer: IpAddr) -> bool {
        let mut exchanges = self.account.exchanges.iter();
        exchanges.any(|one| one.peer == peer && one.heard > 0)
    }

    /// A rank, unless the peer may be reached by a permission or a channel that lives: then that is over.
    pub(super) fn unless_permitted(&self, peer: IpAddr, rank: u8) -> u8 {
        let mut exchanges = self.account.exchanges.iter();
        if exchanges.any(|one| one.peer == peer && one.left.is_ok()) {
            rank::HARMLESS
        } else {
            rank
        }
    }

    /// Whether a channel of this number lives.
    pub(super) fn is_bound(&self, number: u16) -> bool {
        let mut exchanges = self.account.exchanges.iter();
        exchanges
            .any(|one| one.left.is_ok() && one.channel.is_some_and(|(_, bound)| bound == number))
    }

    /// Whether a reload has closed the peer since it was let in for the last time.
    pub(super) fn is_closed(&self, peer: IpAddr) -> bool {
        let last = |is: &dyn Fn(&Fact) -> bool| {
            let mut notes = self.account.notes.iter();
            notes.rposition(|note| is(&note.fact))
        };
        let closed = last(&|fact| *fact == Fact::Closed { ip: peer });
        closed.is_some() && closed > last(&|fact| fact.permits(peer))
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
                    "The peer {sent} But {} came from addresses without a permission, the last from {from}: that may be \
                     where the peer sends from.",
                    counted(count.into(), "packet")
                ),
                "If that is the peer, it has another address than it said: a NAT in front of it, or a second interface. \
                 Its server- or peer-reflexive candidate has to reach the client (signalling), so that the client asks \
                 for a permission for it. If nobody knows that address: any port of the internet gets such packets."
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

pub(super) fn finding(
    cause: &str,
    rank: u8,
    what: impl Into<String>,
    remedy: impl Into<String>,
) -> Finding {
    Finding {
        cause: cause.to_owned(),
        rank,
        session: None,
        what: what.into(),
        remedy: remedy.into(),
    }
}
