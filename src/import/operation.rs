//! `[tls]`, `[metrics]` and `[log]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::addresses::address;
use super::line::Line;
use super::secrets;
use super::toml::quoted;
use super::translation::Translation;

/// The port that both servers have for Prometheus.
const METRICS: u16 = 9641;

impl<'a> Translation<'a> {
    pub(super) fn tls(&mut self) {
        let (certificate, key) = (self.last("cert"), self.last("pkey"));
        let password = self.last("pkey-pwd");
        let is_wanted = !self.says("no-tls") || (self.says("dtls") && !self.says("no-dtls"));
        let (Some(certificate), Some(key), true) = (certificate, key, is_wanted) else {
            let why = if is_wanted {
                "a certificate and a key are of use together alone: cert and pkey"
            } else {
                "it has no use, for no-tls switches TLS off"
            };
            for line in certificate.into_iter().chain(key).chain(password) {
                self.dropped(line, why);
            }
            return;
        };
        let relative = "; a relative path is seen from the directory of the new file";
        let note = |line: Line<'a>| {
            if line.value.starts_with('/') {
                ""
            } else {
                relative
            }
        };
        self.mapped(
            certificate,
            format!("[tls] certificate{}", note(certificate)),
        );
        let origins = self.origins(&[certificate]);
        self.toml
            .assign("tls", &origins, "certificate", &quoted(certificate.value));
        let origins = self.origins(&[key]);
        let Some(password) = password else {
            let told = format!(
                "[tls] key{}; the file must belong to the user of turnd, mode 0600",
                note(key)
            );
            self.mapped(key, told);
            self.toml.assign("tls", &origins, "key", &quoted(key.value));
            return;
        };
        let open = self
            .beside_secrets("tls-key.pem")
            .to_string_lossy()
            .into_owned();
        let command = format!(
            "(umask 077; openssl pkey -in {} -out {})",
            secrets::quoted(key.value),
            secrets::quoted(&open)
        );
        self.changed(
            key,
            format!(
                "[tls] key = {}, without its password: {command}",
                quoted(&open)
            ),
        );
        self.dropped(
            password,
            "turnd reads keys without a password alone, from files that only their owner may read",
        );
        self.toml.assign("tls", &origins, "key", &quoted(&open));
    }

    pub(super) fn metrics(&mut self) {
        let asked = self.optional("prometheus");
        let (port_line, address_line) = (
            self.optional("prometheus-port"),
            self.last("prometheus-address"),
        );
        let Some(asked) = asked else {
            for line in port_line.into_iter().chain(address_line) {
                self.dropped(line, "there are no metrics without prometheus");
            }
            return;
        };
        let port = port_line
            .filter(|line| !line.value.is_empty())
            .and_then(|line| Some((line, self.port(line)?)));
        if let Some(line) = port_line.filter(|line| line.value.is_empty()) {
            self.mapped(line, "[metrics] listen");
        }
        let named = address_line.and_then(|line| Some((line, address(line.value)?)));
        if let (Some(line), None) = (address_line, named) {
            self.dropped(line, "this is not an address; names are not looked up");
        }
        let ip = named.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |(_, ip)| ip);
        let listen = SocketAddr::new(ip, port.map_or(METRICS, |(_, port)| port));
        let used: Vec<Line<'a>> = port
            .map(|(line, _)| line)
            .into_iter()
            .chain(named.map(|(line, _)| line))
            .collect();
        if self.doors.streams.iter().any(|door| are_one(*door, listen)) {
            for line in std::iter::once(asked).chain(used) {
                self.dropped(
                    line,
                    "clients are listened for at that port: give [metrics] listen another",
                );
            }
            return;
        }
        let origins = self.origins(&[&[asked], &used[..]].concat());
        self.toml
            .assign("metrics", &origins, "listen", &quoted(&listen.to_string()));
        for line in used {
            self.mapped(line, "[metrics] listen");
        }
        let whom = match named {
            Some(_) => "",
            None => ", to this host alone: coturn tells everybody who asks",
        };
        self.changed(
            asked,
            format!("[metrics] listen = \"{listen}\"{whom}; the metrics have other names"),
        );
    }

    pub(super) fn log(&mut self) {
        if let Some(line) = self.flag("Verbose") {
            self.mapped(line, "[log] level = \"debug\"");
            let origins = self.origins(&[line]);
            self.toml.assign("log", &origins, "level", "\"debug\"");
        }
        if let Some(line) = self.last("log-file") {
            match line.value {
                "stdout" | "-" => self.changed(line, "turnd writes to standard error"),
                "syslog" => self.mapped(line, "under systemd the lines go to the journal"),
                _ => self.dropped(
                    line,
                    "turnd writes to standard error, and the journal keeps it",
                ),
            }
        }
    }
}

/// Whether two sockets cannot both be there.
fn are_one(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port()
        && one.is_ipv4() == other.is_ipv4()
        && (everywhere || one.ip() == other.ip())
}
