//! A configuration as TOML again: what the server would use, with every key.

mod token;

use std::fmt::{self, Display, Write as _};
use std::path::Path;

use crate::plane::Web;
use crate::turn::{OnExpiry, PasswordAlgorithms, PasswordEncoding, SecretAlgorithm};

use super::values::show_bit_rate;
use super::{
    Admin, AdminSocket, CertificateFiles, Config, LogFormat, SecretFile, SecretSource, Tls, User,
    show_duration,
};

impl Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.show_server(f)?;
        self.show_addresses(f)?;
        self.show_auth(f)?;
        self.show_limits(f)?;
        self.tenants.iter().try_for_each(|tenant| tenant.fmt(f))?;
        self.show_tcp_relay(f)?;
        self.show_redirect(f)?;
        self.events.show(f)?;
        self.show_revocation(f)?;
        self.show_token(f)?;
        let Self {
            tls,
            metrics,
            admin,
            log,
            ..
        } = self;
        writeln!(f, "\n[tls]")?;
        match tls {
            Some(Tls { default, others }) => {
                let pair =
                    |files: &CertificateFiles| (path(&files.certificate), secret_file(&files.key));
                let (certificate, key) = pair(default);
                writeln!(f, "certificate = {certificate}\nkey = {key}\nothers = [")?;
                for (certificate, key) in others.iter().map(pair) {
                    writeln!(f, "    {{ certificate = {certificate}, key = {key} }},")?;
                }
                writeln!(f, "]")?;
            }
            None => writeln!(f, "# off")?,
        }
        writeln!(f, "\n[metrics]")?;
        match metrics {
            Some(address) => writeln!(f, "listen = \"{address}\"")?,
            None => writeln!(f, "# off")?,
        }
        admin.show(f)?;
        let format = match log.format {
            LogFormat::Auto => "auto",
            LogFormat::Text => "text",
            LogFormat::Json => "json",
            LogFormat::Journal => "journal",
        };
        writeln!(
            f,
            "\n[log]\nformat = \"{format}\"\nlevel = {}",
            text(&log.level)
        )
    }
}

impl Admin {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n[admin]")?;
        match &self.socket {
            AdminSocket::Customary => {
                writeln!(f, "# socket: admin.sock in the runtime or state directory")?;
            }
            AdminSocket::At(socket) => writeln!(f, "socket = {}", path(socket))?,
            AdminSocket::Off => writeln!(f, "socket = \"off\"")?,
        }
        if let Some(group) = &self.group {
            writeln!(f, "group = {}", text(group))?;
        }
        writeln!(f, "users = [{}]", quoted(&self.users))?;
        match (&self.listen, &self.token_file) {
            (Some(address), Some(file)) => {
                writeln!(
                    f,
                    "listen = \"{address}\"\ntoken_file = {}",
                    secret_file(file)
                )?;
            }
            (_, Some(file)) => writeln!(f, "# listen: off\ntoken_file = {}", secret_file(file))?,
            (_, None) => writeln!(f, "# listen: off")?,
        }
        writeln!(f, "hosts = [{}]", quoted(&self.hosts))
    }
}

impl Config {
    fn show_server(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = &self.server;
        writeln!(
            f,
            "[server]\nrealm = {}\nsoftware = {}\nmobility = {}\nrfc5766_channels = {}",
            text(&server.realm),
            server.software,
            server.mobility,
            server.rfc5766_channels
        )?;
        writeln!(f, "rfc3489 = {}", server.rfc3489)?;
        match server.workers {
            Some(number) => writeln!(f, "workers = {number}")?,
            None => writeln!(f, "workers = \"auto\"")?,
        }
        writeln!(
            f,
            "drain_timeout = \"{}\"",
            show_duration(server.drain_timeout)
        )
    }

    fn show_addresses(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.listen {
            None => writeln!(f, "\n# [[listen]]: UDP and TCP, port 3478 of every address")?,
            Some(listeners) => {
                for listen in listeners {
                    writeln!(
                        f,
                        "\n[[listen]]\naddress = \"{}\"\ntransport = \"{}\"",
                        listen.address,
                        listen.transport.label()
                    )?;
                    let offered = &self.listen_algorithms;
                    if let Some((_, own)) = offered.iter().find(|(named, _)| named == listen) {
                        writeln!(f, "password_algorithms = [{}]", algorithms(*own))?;
                    }
                    if !listen.proxies.is_empty() {
                        writeln!(
                            f,
                            "proxy_protocol = true\nproxies = [{}]",
                            quoted(&listen.proxies)
                        )?;
                    }
                    match listen.web {
                        Some(Web::Backend(backend)) => writeln!(f, "http = \"{backend}\"")?,
                        Some(Web::Own) => writeln!(f, "http = \"self\"")?,
                        None => {}
                    }
                }
            }
        }
        writeln!(f, "\n[relay]")?;
        match &self.relay.addresses {
            Some(addresses) => writeln!(f, "addresses = [{}]", quoted(addresses))?,
            None => writeln!(f, "# addresses: detected")?,
        }
        let external = self
            .relay
            .external
            .iter()
            .map(|external| format!("{}={}", external.advertised, external.local));
        writeln!(f, "external = [{}]", quoted(external))?;
        writeln!(
            f,
            "ports = \"{}-{}\"",
            self.relay.ports.start(),
            self.relay.ports.end()
        )?;
        let carry = self.relay.carry;
        writeln!(
            f,
            "unasked_ipv6 = {}\nicmp = {}\ncopy_dscp = {}\ncopy_ecn = {}",
            self.relay.unasked_ipv6, carry.icmp, carry.dscp, carry.ecn
        )
    }

    fn show_auth(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let auth = &self.auth;
        writeln!(f, "\n[auth]")?;
        match &auth.secrets {
            None if auth.users.is_empty() => writeln!(
                f,
                "# secrets: one of the server's own, in the state directory"
            )?,
            None => {}
            Some(secrets) => {
                writeln!(f, "secrets = [")?;
                secrets.iter().try_for_each(|secret| secret.show(f))?;
                writeln!(f, "]")?;
            }
        }
        writeln!(f, "users = [")?;
        auth.users.iter().try_for_each(|user| user.show(f))?;
        writeln!(f, "]")?;
        if let Some(file) = &auth.nonce_key_file {
            writeln!(f, "nonce_key_file = {}", secret_file(file))?;
        }
        let on_expiry = match auth.on_expiry {
            OnExpiry::New => "new",
            OnExpiry::Refresh => "refresh",
            OnExpiry::Cut => "cut",
        };
        writeln!(
            f,
            "on_expiry = \"{on_expiry}\"\npassword_algorithms = [{}]\nusername_anonymity = {}",
            algorithms(auth.password_algorithms),
            auth.username_anonymity
        )?;
        writeln!(f, "\n[auth.oauth]")?;
        let Some(oauth) = &auth.oauth else {
            return writeln!(f, "# off");
        };
        writeln!(f, "server_name = {}\nkeys = [", text(&oauth.server_name))?;
        for source in &oauth.keys {
            writeln!(
                f,
                "    {{ kid = {}, file = {}, algorithm = \"{}\" }},",
                text(&source.kid),
                secret_file(&source.file),
                source.algorithm_word()
            )?;
        }
        writeln!(f, "]")
    }

    fn show_limits(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = &self.limits;
        writeln!(
            f,
            "\n[limits]\nper_user = {}\nper_client = {}\nper_tenant = {}\ntotal = {}",
            limits.per_user,
            limits.per_client,
            or_none(limits.per_tenant),
            limits.total
        )?;
        let bandwidth = &limits.bandwidth;
        for (key, rate) in [
            ("bandwidth_per_allocation", bandwidth.per_allocation),
            ("bandwidth_per_user", bandwidth.per_user),
            ("bandwidth_per_tenant", bandwidth.per_tenant),
            ("bandwidth_total", bandwidth.total),
        ] {
            writeln!(f, "{key} = \"{}\"", show_bit_rate(rate))?;
        }
        writeln!(
            f,
            "new_peers_per_allocation = {}\nnew_peers_per_user = {}",
            limits.new_peers.per_allocation, limits.new_peers.per_user
        )?;
        writeln!(
            f,
            "permissions = {}\nchannels = {}",
            limits.permissions, limits.channels
        )?;
        writeln!(f, "max_lifetime = \"{}\"", show_duration(self.max_lifetime))?;
        writeln!(
            f,
            "unauthenticated_replies = {}",
            limits.unauthenticated_replies
        )?;
        writeln!(
            f,
            "\n[peers]\nallow = [{}]\ndeny = [{}]\npolicies = [",
            quoted(&self.peers.allow),
            quoted(&self.peers.deny)
        )?;
        for (name, policy) in &self.policies {
            writeln!(
                f,
                "    {{ name = {}, allow = [{}], deny = [{}] }},",
                text(name),
                quoted(&policy.allow),
                quoted(&policy.deny)
            )?;
        }
        writeln!(f, "]")
    }
}

/// A count as it is written: 0 where there is no limit.
fn or_none(most: u32) -> u32 {
    if most == u32::MAX { 0 } else { most }
}

fn algorithms(offered: PasswordAlgorithms) -> &'static str {
    match offered {
        PasswordAlgorithms::Md5 => "\"md5\"",
        PasswordAlgorithms::Sha256AndMd5 => "\"md5\", \"sha256\"",
        PasswordAlgorithms::Sha256 => "\"sha256\"",
    }
}

impl Config {
    fn show_tcp_relay(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = &self.tcp_relay.rules;
        writeln!(
            f,
            "\n[tcp_relay]\nenabled = {}\nconnections = {}\nconnect_timeout = \"{}\"\nlow_ports = [{}]",
            self.tcp_relay.enabled,
            rules.connections,
            show_duration(rules.connect_timeout),
            quoted(&rules.low_ports)
        )
    }

    fn show_redirect(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let redirect = &self.redirect;
        let when = [
            ("always", redirect.always),
            ("drain", redirect.drain),
            ("overload", redirect.overload),
        ];
        let when = when.iter().filter(|(_, sends)| *sends);
        writeln!(
            f,
            "\n[nat_discovery]\naddresses = [{}]\n\n[redirect]\nto = [{}]\nto_tls = [{}]\nwhen = [{}]",
            quoted(&self.nat_discovery),
            quoted(&redirect.to),
            quoted(&redirect.to_tls),
            quoted(when.map(|(word, _)| word))
        )?;
        if let Some(domain) = &redirect.domain {
            writeln!(f, "domain = {}", text(domain))?;
        }
        match redirect.overload_at {
            Some(most) => writeln!(f, "overload_at = {most}"),
            None => writeln!(f, "# overload_at: at limits.total"),
        }
    }
}

impl Config {
    fn show_revocation(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let revocation = &self.revocation;
        writeln!(f, "\n[revocation]")?;
        match revocation.enabled {
            Some(enabled) => writeln!(f, "enabled = {enabled}")?,
            None => writeln!(f, "# enabled: if the database can be made")?,
        }
        match &revocation.database {
            Some(database) => writeln!(f, "database = {}", path(database))?,
            None => writeln!(f, "# database: in the state directory")?,
        }
        writeln!(f, "keep = \"{}\"", show_duration(revocation.keep))
    }
}

impl SecretSource {
    /// As an item of a list.
    pub(super) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithm = match self.algorithm {
            SecretAlgorithm::Sha1 => "sha1",
            SecretAlgorithm::Sha256 => "sha256",
        };
        let encoding = match self.encoding {
            PasswordEncoding::Base64 => "base64",
            PasswordEncoding::Base64Url => "base64url",
        };
        writeln!(
            f,
            "    {{ id = {}, file = {}, algorithm = \"{algorithm}\", encoding = \"{encoding}\", claims = {} }},",
            text(&self.id),
            secret_file(&self.file),
            self.claims
        )
    }
}

impl User {
    /// As an item of a list.
    pub(super) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "    {{ name = {}, password_file = {} }},",
            text(&self.name),
            secret_file(&self.password_file)
        )
    }
}

pub(super) fn quoted(items: impl IntoIterator<Item = impl Display>) -> String {
    items
        .into_iter()
        .map(|item| text(&item.to_string()))
        .collect::<Vec<_>>()
        .join(", ")
}

pub(super) fn secret_file(file: &SecretFile) -> String {
    match file {
        SecretFile::Path(file) => path(file),
        SecretFile::Credential(name) => text(&format!("credential:{name}")),
    }
}

pub(super) fn path(path: &Path) -> String {
    text(&path.to_string_lossy())
}

/// A TOML string.
pub(crate) fn text(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            letter if letter.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(letter));
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}
