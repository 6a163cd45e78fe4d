//! "Why does this call fail?": what a machine has noted, in words, the most likely cause first.
//!
//! Nothing is found out here. Whoever asks brings what the workers remember ([`Account`], [`Rebuff`]), and gets
//! [`Finding`]s: each says what is wrong, how it is known, and what to do about it. Where nothing is wrong on this
//! side, that is said, with the counters, and no cause is made up.

mod network;
mod noted;
mod peer;
mod refused;
mod session;
mod words;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::turn::{Account, Reach, Rebuff, Rule};
use words::{counted, span};

/// The answer to a question.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// What is wrong, the most likely cause first.
    pub findings: Vec<Finding>,
    /// The sessions that were looked at: those that live, then those that have ended.
    pub sessions: Vec<Seen>,
    /// How many sorts of refused requests were looked at.
    pub refused: usize,
    /// Is there more than was looked at?
    pub more: bool,
}

/// Something that is wrong, or may be.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// A word for it, for programs.
    pub cause: String,
    /// How likely it is that this is the cause: the lower, the likelier.
    pub rank: u8,
    /// The session it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// What is wrong, and how that is known.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// A session that was looked at.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// Its name.
    pub session: String,
    /// The user, as the credential says.
    pub user: String,
    /// Where the client is.
    pub client: SocketAddr,
    /// How the client speaks with the server.
    pub transport: String,
    /// What peers see.
    pub relays: Vec<SocketAddr>,
    /// How long it has lived, or did.
    pub seconds: u64,
    /// Why it ended, if it has,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// and how long ago, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_seconds_ago: Option<u64>,
    /// Packets from the client to peers,
    pub packets_to_peers: u64,
    /// and from peers to the client.
    pub packets_to_client: u64,
    /// Each peer with a permission or a channel: how it stands with it.
    pub peers: Vec<String>,
}

/// How likely a cause is: the lower, the likelier.
mod rank {
    pub(super) const REFUSED: u8 = 10;
    pub(super) const ENDED: u8 = 15;
    pub(super) const PERMISSION: u8 = 20;
    pub(super) const CLOSED_PEER: u8 = 25;
    pub(super) const UNREACHABLE: u8 = 30;
    pub(super) const SILENT_PEER: u8 = 35;
    pub(super) const REQUEST: u8 = 40;
    pub(super) const ODD: u8 = 45;
    /// What is likely not the cause, since the call works in spite of it, or what was so is over.
    pub(super) const HARMLESS: u8 = 50;
}

/// Explains what the workers remember. `now` is in seconds since 1970.
pub fn explain(
    sessions: &[Account],
    refused: &[Rebuff],
    peer: Option<IpAddr>,
    now: u64,
) -> Explanation {
    let mut findings = refused::findings(refused, sessions, now);
    for account in sessions {
        findings.extend(session::findings(account, refused, peer));
    }
    findings.sort_by_key(|finding| finding.rank);
    Explanation {
        findings,
        sessions: sessions.iter().map(Seen::of).collect(),
        refused: refused.len(),
        more: false,
    }
}

/// Says whether a peer may be reached, and by which rule not.
pub fn peer(peer: IpAddr, rule: Option<Rule>, reach: Reach) -> Finding {
    peer::verdict(peer, rule, reach)
}

impl Seen {
    fn of(account: &Account) -> Self {
        let session = &account.session;
        Self {
            session: session.id.to_string(),
            user: words::name(&session.username),
            client: session.five_tuple.client,
            transport: session.five_tuple.transport.label().to_owned(),
            relays: session.relays.clone(),
            seconds: session.age.as_secs(),
            ended: account.ended.map(|(reason, _)| reason.label().to_owned()),
            ended_seconds_ago: account.ended.map(|(_, ago)| ago.as_secs()),
            packets_to_peers: session.to_peer.packets,
            packets_to_client: session.to_client.packets,
            peers: session::peers(account),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, finding) in (1..).zip(&self.findings) {
            let place = finding.session.as_deref();
            let place = place.map_or_else(String::new, |session| format!("  [session {session}]"));
            writeln!(f, "{number}. {}{place}", finding.what)?;
            writeln!(f, "   -> {}\n", finding.remedy)?;
        }
        if self.sessions.is_empty() && self.refused == 0 && self.findings.is_empty() {
            return writeln!(
                f,
                "Nothing is known of that: no session lives or has ended lately, and no login was refused. Either the \
                 client's packets do not arrive here (firewall, DNS, wrong port or transport), or it was too long ago."
            );
        }
        if self.findings.is_empty() {
            writeln!(f, "Nothing is wrong as far as this server can see.\n")?;
        }
        for seen in &self.sessions {
            write!(f, "{seen}")?;
        }
        if self.more {
            writeln!(
                f,
                "There is more than is shown: ask for one session, user or client."
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            session,
            user,
            client,
            transport,
            ..
        } = self;
        let lived = span(self.seconds);
        let state = match (&self.ended, self.ended_seconds_ago) {
            (Some(reason), Some(ago)) => {
                format!("lived {lived}, ended {} ago ({reason})", span(ago))
            }
            _ => format!("lives since {lived}"),
        };
        let relays: Vec<String> = self.relays.iter().map(ToString::to_string).collect();
        writeln!(
            f,
            "Session {session}: {user} at {client} over {transport}, {state}"
        )?;
        writeln!(
            f,
            "   relay {}; {} to peers, {} to the client",
            relays.join(" and "),
            counted(self.packets_to_peers, "packet"),
            counted(self.packets_to_client, "packet")
        )?;
        for peer in &self.peers {
            writeln!(f, "   {peer}")?;
        }
        Ok(())
    }
}
