//! `[server]`, `[tcp_relay]` and `[redirect]`: what clients are offered.

use std::net::SocketAddr;

use crate::config;

use super::addresses::address;
use super::toml::quoted;
use super::translation::Translation;

impl Translation<'_> {
    pub(super) fn server(&mut self) {
        if let Some(line) = self.last("realm") {
            if config::is_realm(line.value) {
                self.mapped(line, "[server] realm");
                let origins = self.origins(&[line]);
                self.toml
                    .assign("server", &origins, "realm", &quoted(line.value));
            } else {
                let told = "turnd takes a realm of 1 to 127 letters, digits or signs, without spaces and quotes";
                self.dropped(line, told);
            }
        }
        self.software();
        self.switch("mobility", "mobility");
        self.switch("rfc5766-channel-numbers", "rfc5766_channels");
        let classic = ["rfc3489-compatibility", "stun-backward-compatibility"];
        if let Some(line) = self.flag("no-stun-backward-compatibility") {
            self.mapped(
                line,
                "clients of RFC 3489 are told nothing unless [server] rfc3489 says so",
            );
        }
        let lines: Vec<_> = classic.iter().filter_map(|key| self.flag(key)).collect();
        if lines.is_empty() {
            return;
        }
        let origins = self.origins(&lines);
        self.toml.assign("server", &origins, "rfc3489", "true");
        for line in lines {
            self.mapped(line, "[server] rfc3489");
        }
    }

    fn switch(&mut self, key: &str, ours: &str) {
        if let Some(line) = self.flag(key) {
            self.mapped(line, format!("[server] {ours}"));
            let origins = self.origins(&[line]);
            self.toml.assign("server", &origins, ours, "true");
        }
    }

    /// The name of the program, which coturn up to 4.6 tells unless it is asked not to.
    fn software(&mut self) {
        let told = "[server] software: those who have logged in are told the name and the version";
        let hides = self.optional("no-software-attribute");
        let shows = self.flag("software-attribute");
        let shown = match hides.and_then(|line| Some((line, line.switch()?))) {
            Some((line, true)) => {
                self.mapped(line, "the program's name and version are not told");
                None
            }
            Some((line, false)) => Some(line),
            None => {
                if let Some(line) = hides {
                    self.dropped(
                        line,
                        "this is neither on nor off; coturn does not start with it",
                    );
                }
                None
            }
        };
        let lines: Vec<_> = shown.into_iter().chain(shows).collect();
        if lines.is_empty() {
            return;
        }
        let origins = self.origins(&lines);
        self.toml.assign("server", &origins, "software", "true");
        for line in lines {
            self.changed(line, told);
        }
    }

    pub(super) fn tcp_relay(&mut self) {
        if let Some(line) = self.flag("no-tcp-relay") {
            self.mapped(line, "[tcp_relay] enabled = false");
            let origins = self.origins(&[line]);
            self.toml.assign("tcp_relay", &origins, "enabled", "false");
        } else {
            let told = "coturn gives TCP relays (RFC 6062) to those who ask, turnd with [tcp_relay] enabled = true alone; no \
                        browser asks";
            self.unsaid("(no line says no-tcp-relay)", told);
        }
    }

    pub(super) fn redirect(&mut self) {
        let mut when = Vec::new();
        for (key, ours, port) in [
            ("alternate-server", "to", 3478),
            ("tls-alternate-server", "to_tls", 5349),
        ] {
            let mut items = Vec::new();
            for line in self.all(key) {
                let place = line
                    .value
                    .parse()
                    .ok()
                    .or_else(|| Some(SocketAddr::new(address(line.value)?, port)))
                    .filter(|place| is_one_place(*place));
                let Some(place) = place else {
                    self.dropped(
                        line,
                        "this is not the address of another server; names are not looked up",
                    );
                    continue;
                };
                let told =
                    format!("[redirect] {ours}: one of them is chosen at random, not in turn");
                self.changed(line, told);
                items.push((vec![self.origin(line)], vec![quoted(&place.to_string())]));
                when.push(line);
            }
            if !items.is_empty() {
                self.toml.list("redirect", ours, &items);
            }
        }
        if !when.is_empty() {
            let origin = "with alternate servers coturn makes no allocation of its own".to_owned();
            self.toml
                .assign("redirect", &[origin], "when", "[\"always\"]");
        }
    }
}

fn is_one_place(place: SocketAddr) -> bool {
    !place.ip().is_unspecified() && !place.ip().is_multicast() && place.port() != 0
}
