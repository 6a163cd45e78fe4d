//! One session, in full.

use std::fmt::Write as _;
use std::net::SocketAddr;

use turnd::http::admin::{Claims, Session};

use crate::cli::show::{Screen, bytes, plain, rate, span};

/// A line for each thing that is known.
pub(super) fn details(session: &Session, screen: Screen) -> String {
    let mut sheet = Sheet {
        text: String::new(),
        screen,
    };
    sheet.holder(session);
    sheet.path(session);
    sheet.traffic(session);
    sheet.peers(session);
    sheet.refusal(session);
    sheet.text
}

struct Sheet {
    text: String,
    screen: Screen,
}

impl Sheet {
    fn add(&mut self, name: &str, value: String) {
        if !value.is_empty() {
            let name = self.screen.dim(&format!("{name:<11}"));
            // Writing to a text cannot fail.
            let _ = writeln!(self.text, "{name}  {value}");
        }
    }

    fn holder(&mut self, session: &Session) {
        self.add("session", session.id.clone());
        self.add("user", plain(&session.user));
        self.add("tenant", session.tenant.clone().unwrap_or_default());
        self.add("credential", plain(&session.username));
        if let Some(claims) = &session.claims {
            self.add("claims", claimed(claims));
        }
    }

    fn path(&mut self, session: &Session) {
        let place = |address: Option<SocketAddr>| {
            address.map_or_else(String::new, |address| address.to_string())
        };
        let (client, server) = (place(session.client), place(session.server));
        let transport = &session.transport;
        self.add("client", format!("{client} by {transport}, to {server}"));
        let program = match session.software.said.as_deref() {
            Some(said) => plain(said),
            None => format!("{}, by how it asks", session.software.guess),
        };
        self.add("program", program);
        let relays = session.relays.iter().map(ToString::to_string);
        let relays = relays.collect::<Vec<_>>().join(", ");
        self.add("relay", format!("{relays} ({})", session.protocol));
        let (age, left) = (span(session.age), span(session.expires_in));
        self.add(
            "age",
            format!("{age}; ends in {left} unless it is refreshed"),
        );
    }

    fn traffic(&mut self, session: &Session) {
        let rates = session.rate.as_ref();
        for (name, total, now) in [
            ("to peers", &session.to_peer, rates.map(|r| r.to_peer)),
            ("to client", &session.to_client, rates.map(|r| r.to_client)),
        ] {
            let now = now.map_or_else(String::new, |bits| format!(", now {}", rate(bits)));
            let (bytes, packets) = (bytes(total.bytes), total.packets);
            self.add(name, format!("{bytes} in {packets} packets{now}"));
        }
        if session.protocol == "tcp" {
            let connections = session.connections;
            self.add("connected", format!("{connections} connections with peers"));
        }
    }

    fn peers(&mut self, session: &Session) {
        for (index, peer) in session.peers.iter().enumerate() {
            let name = if index == 0 { "may hear" } else { "" };
            let (address, left) = (peer.address.to_string(), span(peer.expires_in));
            self.add(name, format!("{address:<39}  for {left}"));
        }
        for (index, binding) in session.bindings.iter().enumerate() {
            let name = if index == 0 { "channels" } else { "" };
            let (peer, left) = (binding.peer.to_string(), span(binding.expires_in));
            let channel = binding.channel;
            self.add(name, format!("0x{channel:04x} to {peer:<29}  for {left}"));
        }
    }

    fn refusal(&mut self, session: &Session) {
        let Some(refused) = &session.last_refused else {
            return;
        };
        let what = match (&refused.method, refused.peer) {
            (Some(method), _) => method.clone(),
            (None, Some(peer)) => format!("the peer {peer}"),
            (None, None) => "a request".to_owned(),
        };
        let (code, ago) = (refused.code, span(refused.seconds_ago));
        let what = format!("{what} was refused ({code}) {ago} ago");
        let what = self.screen.odd(&what);
        self.add("last error", what);
    }
}

fn claimed(claims: &Claims) -> String {
    let parts = [
        Some(format!("secret {}", claims.secret)),
        claims.id.as_ref().map(|id| format!("id {id}")),
        claims
            .allocations
            .map(|number| format!("{number} allocations")),
        claims.bits_per_second.map(rate),
        claims
            .policy
            .as_ref()
            .map(|policy| format!("policy {policy}")),
        claims
            .region
            .as_ref()
            .map(|region| format!("region {region}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
