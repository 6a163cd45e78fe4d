//! `[redirect]`: whether what is asked for can work.

use std::net::SocketAddr;

use crate::plane::Listen;
use crate::turn::{self, Transport};

use super::Redirect;
use super::assemble::Assembly;
use super::host::Host;

impl Assembly<'_> {
    /// What the machine is told, if there is anywhere to send clients. What cannot work is in the report.
    pub(super) fn redirect(&mut self, listeners: &[Listen]) -> Option<turn::Redirect> {
        let redirect = &self.config.redirect;
        if redirect.to.is_empty() && redirect.to_tls.is_empty() {
            self.check_purpose();
            return None;
        }
        self.check_targets("redirect.to", &redirect.to, listeners, is_plain);
        self.check_targets("redirect.to_tls", &redirect.to_tls, listeners, is_secured);
        self.check_fleet(listeners);
        let limit = self.config.limits.total;
        Some(turn::Redirect {
            to: redirect.to.clone(),
            to_tls: redirect.to_tls.clone(),
            domain: redirect.domain.clone(),
            always: redirect.always,
            on_drain: redirect.drain,
            overload_at: redirect
                .overload
                .then(|| redirect.overload_at.unwrap_or(limit)),
        })
    }

    /// Without targets the other keys do nothing.
    fn check_purpose(&mut self) {
        let chosen = [
            ("redirect.domain", self.config.redirect.domain.is_some()),
            ("redirect.when", self.config.redirect.always),
            (
                "redirect.overload_at",
                self.config.redirect.overload_at.is_some(),
            ),
        ];
        for (key, _) in chosen.iter().filter(|(_, chosen)| *chosen) {
            let remedy = "name the other servers under [redirect] to, or take this key out";
            self.warning(key, "there is nowhere to send clients", remedy);
        }
    }

    fn check_targets(
        &mut self,
        key: &str,
        targets: &[SocketAddr],
        listeners: &[Listen],
        speaks: fn(Transport) -> bool,
    ) {
        for target in targets {
            if target.ip().is_loopback() {
                let remedy = "name an address that clients can reach";
                self.warning(
                    key,
                    format!("{target} is the client's own host: clients refuse to go there"),
                    remedy,
                );
            } else if !is_open_to_browsers(target.port()) {
                let remedy = "let the other server listen on 53, 80, 443, or 1024 and above";
                self.warning(
                    key,
                    format!(
                        "browsers do not go to port {} when they are sent there",
                        target.port()
                    ),
                    remedy,
                );
            }
            if let Some(place) = self.own(*target, listeners, speaks) {
                self.check_circle(key, *target, place);
            }
        }
    }

    /// Clients that are sent here by this server.
    fn check_circle(&mut self, key: &str, target: SocketAddr, place: Place) {
        let redirect = &self.config.redirect;
        // An entry that sends its clients to its own unicast address (RFC 8155 §6) is one server with two addresses.
        if place == Place::Here && redirect.always && !redirect.drain && !redirect.overload {
            return;
        }
        let what = format!("{target} is this server: it would send clients to itself");
        let remedy = match place {
            Place::Here => "name other servers",
            Place::BehindNat => "name other servers, or the local address that the NAT maps it to",
        };
        self.warning(key, what, remedy);
    }

    /// How a target is an address that this server listens on, if it is.
    fn own(
        &self,
        target: SocketAddr,
        listeners: &[Listen],
        speaks: fn(Transport) -> bool,
    ) -> Option<Place> {
        let mut here = listeners
            .iter()
            .filter(|listen| speaks(listen.transport) && listen.address.port() == target.port());
        let external = &self.config.relay.external;
        if external.iter().any(|one| one.advertised == target.ip()) {
            return here.next().map(|_| Place::BehindNat);
        }
        let found = here.any(|listen| {
            let wildcard = listen.address.ip().is_unspecified()
                && listen.address.is_ipv4() == target.is_ipv4();
            listen.address == target || (wildcard && Host::has_address(target.ip()))
        });
        found.then_some(Place::Here)
    }

    /// What holds for this server and the others together.
    fn check_fleet(&mut self, listeners: &[Listen]) {
        let Redirect {
            to_tls,
            domain,
            always,
            drain,
            overload,
            overload_at,
            ..
        } = &self.config.redirect;
        let secured = listeners.iter().any(|listen| is_secured(listen.transport));
        let (no_tls, has_domain) = (to_tls.is_empty(), domain.is_some());
        let never = !(*always || *drain || *overload);
        let late = overload_at.is_some_and(|most| most > self.config.limits.total);
        let auth = &self.config.auth;
        if auth.secrets.is_none() && auth.nonce_key_file.is_none() {
            let remedy = "name the same [auth] nonce_key_file, or the same secrets, on all of them";
            self.warning(
                "redirect.to",
                "the other servers do not know the nonces of this one: some clients give up there",
                remedy,
            );
        }
        if secured && no_tls {
            let remedy = "name the other servers with their ports for TLS under to_tls";
            self.warning(
                "redirect.to",
                "clients over TLS and DTLS are not sent anywhere",
                remedy,
            );
        }
        if has_domain && no_tls {
            let remedy = "name servers under to_tls, or take this key out";
            self.warning(
                "redirect.domain",
                "only clients over TLS and DTLS are told a domain, and none is sent anywhere",
                remedy,
            );
        }
        if never {
            let remedy = "add \"drain\", \"overload\" or \"always\"";
            self.warning("redirect.when", "clients are never sent anywhere", remedy);
        }
        if late {
            let remedy = "write a number below [limits] total";
            self.warning(
                "redirect.overload_at",
                "there are never so many allocations",
                remedy,
            );
        }
    }
}

/// How a target is this server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// By an address of this host.
    Here,
    /// By an address that a NAT maps to this host: requests do not show that they came to it.
    BehindNat,
}

fn is_plain(transport: Transport) -> bool {
    matches!(transport, Transport::Udp | Transport::Tcp)
}

fn is_secured(transport: Transport) -> bool {
    !is_plain(transport)
}

/// libwebrtc follows a redirect to no other ports.
fn is_open_to_browsers(port: u16) -> bool {
    matches!(port, 53 | 80 | 443 | 1024..)
}
