//! Every key of coturn, up to its version 4.10: how it is read, and what becomes of it where no room translates it.

/// One key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) fate: Fate,
}

/// How the value of a key is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// On or off.
    Flag,
    /// On, whatever stands behind it.
    Presence,
    /// It needs a value.
    Value,
    /// There is a default where no value is given.
    Optional,
    /// Its value is nobody's business.
    Secret,
}

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// A room translates it.
    Room,
    /// It is so in any case.
    Always(&'static str),
    /// There is no such thing, and no harm in that.
    Gone(&'static str),
    /// There is no such thing, and security depends on it; or it was dangerous, and is refused.
    Lost(&'static str),
}

use Fate::{Always, Gone, Lost, Room};
use Kind::{Flag, Optional, Presence, Secret, Value};

/// The key of this name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|key| key.name)
}

const fn key(name: &'static str, kind: Kind, fate: Fate) -> Key {
    Key { name, kind, fate }
}

const DATABASE: &str = "turnd reads no database: list what is in it with `turnadmin -l` (users) and `turnadmin -S` \
                        (shared secrets) and put that under [auth]; denied and allowed peers under [peers]";
const DEVICE: &str =
    "turnd binds addresses, not devices: name them in [[listen]] and [relay] addresses";
const SYSTEMD: &str = "the service manager does that: see systemd/turnd.service";
const OLD_TLS: &str = "refused: TLS 1.2 and 1.3 are spoken, nothing older";
const STRONG_TLS: &str = "TLS 1.2 and 1.3 are spoken, nothing older";
const FINITE_FIELDS: &str = "key agreement is by elliptic curves alone, so it has no use";
const THREADS: &str = "turnd has a worker for each core; [server] workers is for another number";
const BUFFERS: &str = "turnd sends and receives in batches by itself";
const TAGS: &str = "one relay port for each allocation, as the RFC has it";
const NO_FILE: &str = "turnd writes to standard error, and the journal keeps it";
const LOG_LOOKS: &str = "the lines of turnd have their own form: [log] format";
const LABELS: &str = "labels come from closed sets: users are in the log, not in the metrics";

const KEYS: &[Key] = &[
    key(
        "CA-file",
        Value,
        Lost(
            "turnd asks clients for no certificate: who connects is known by the credential alone",
        ),
    ),
    key("Verbose", Flag, Room),
    key(
        "acme-redirect",
        Value,
        Gone("give web clients of a TCP or TLS listener to a web server: [[listen]] http"),
    ),
    key("allocation-default-address-family", Value, Room),
    key(
        "allow-loopback-peers",
        Flag,
        Lost(
            "refused: it opens the services of this host to every user; [peers] allow names single prefixes",
        ),
    ),
    key("allowed-peer-ip", Value, Room),
    key("alt-listening-port", Value, Room),
    key(
        "alt-tls-listening-port",
        Value,
        Gone("NAT discovery is about UDP alone"),
    ),
    key("alternate-server", Value, Room),
    key("aux-server", Value, Room),
    key("bps-capacity", Value, Room),
    key("cert", Value, Room),
    key("channel-lifetime", Optional, Room),
    key(
        "check-origin-consistency",
        Flag,
        Gone("browsers send no ORIGIN, and whoever forges one forges it always"),
    ),
    key(
        "cipher-list",
        Value,
        Gone(
            "the cipher suites are fixed: those of TLS 1.3, and of TLS 1.2 those with ECDHE and AEAD",
        ),
    ),
    key("cli", Flag, Room),
    key("cli-ip", Value, Room),
    key("cli-max-output-sessions", Value, Room),
    key("cli-password", Secret, Room),
    key("cli-port", Value, Room),
    key("cpus", Value, Gone(THREADS)),
    key("daemon", Flag, Gone(SYSTEMD)),
    key("db", Value, Gone(DATABASE)),
    key("denied-peer-ip", Value, Room),
    key("dh-file", Value, Gone(FINITE_FIELDS)),
    key("dh1066", Flag, Gone(FINITE_FIELDS)),
    key("dh2066", Flag, Gone(FINITE_FIELDS)),
    key("dh566", Flag, Gone(FINITE_FIELDS)),
    key(
        "drain-min-allocations",
        Value,
        Gone("SIGTERM waits for all calls, up to [server] drain_timeout"),
    ),
    key("dtls", Flag, Room),
    key(
        "ec-curve-name",
        Value,
        Gone("the curves are fixed: X25519, P-256 and P-384"),
    ),
    key("external-ip", Value, Room),
    key(
        "fingerprint",
        Flag,
        Gone(
            "answers carry no FINGERPRINT; clients need none, for no other protocol shares the port",
        ),
    ),
    key(
        "include-reason-string",
        Flag,
        Always("errors have their reason phrases"),
    ),
    key("keep-address-family", Flag, Room),
    key("listening-device", Value, Gone(DEVICE)),
    key("listening-ip", Value, Room),
    key("listening-port", Value, Room),
    key(
        "log-binding",
        Flag,
        Gone("requests are counted in the metrics, not logged one by one"),
    ),
    key("log-file", Value, Room),
    key("log-min-level", Value, Gone("write [log] level")),
    key(
        "lt-cred-mech",
        Flag,
        Always("nobody is relayed without a credential"),
    ),
    key("max-allocate-lifetime", Optional, Room),
    key(
        "max-allocate-timeout",
        Value,
        Gone("nothing is kept for a client that has not logged in"),
    ),
    key("max-bps", Value, Room),
    key("max-port", Value, Room),
    key("min-port", Value, Room),
    key("mobility", Flag, Room),
    key("mongo-userdb", Secret, Gone(DATABASE)),
    key("multiplex-peer", Flag, Gone(TAGS)),
    key("multiplex-peer-max-peers", Value, Gone(TAGS)),
    key("multiplex-peer-port", Value, Gone(TAGS)),
    key("mysql-userdb", Secret, Gone(DATABASE)),
    key("ne", Value, Gone("there is one network engine")),
    key("new-log-timestamp", Flag, Gone(LOG_LOOKS)),
    key("new-log-timestamp-format", Value, Gone(LOG_LOOKS)),
    key(
        "no-auth",
        Flag,
        Lost(
            "refused: an open relay serves whoever attacks others; hand out credentials, as by `turnd credential`",
        ),
    ),
    key(
        "no-auth-pings",
        Presence,
        Always("there is no database to look after"),
    ),
    key("no-cli", Flag, Room),
    key("no-dtls", Flag, Room),
    key(
        "no-dynamic-ip-list",
        Presence,
        Always("peers are denied and allowed by the configuration alone"),
    ),
    key("no-dynamic-realms", Presence, Always("there is one realm")),
    key(
        "no-loopback-peers",
        Flag,
        Always("peers on loopback addresses are refused"),
    ),
    key(
        "no-multicast-peers",
        Flag,
        Always("multicast and broadcast peers are refused"),
    ),
    key("no-rfc5780", Presence, Room),
    key("no-software-attribute", Flag, Room),
    key("no-sslv2", Flag, Always(STRONG_TLS)),
    key("no-sslv3", Flag, Always(STRONG_TLS)),
    key("no-stdout-log", Flag, Gone(NO_FILE)),
    key(
        "no-stun",
        Flag,
        Lost(
            "turnd answers Binding requests of anybody, few for each prefix ([limits] unauthenticated_replies)",
        ),
    ),
    key("no-stun-backward-compatibility", Flag, Room),
    key("no-tcp", Flag, Room),
    key("no-tcp-relay", Flag, Room),
    key("no-tls", Flag, Room),
    key("no-tlsv1", Flag, Always(STRONG_TLS)),
    key("no-tlsv1_1", Flag, Always(STRONG_TLS)),
    key(
        "no-tlsv1_2",
        Flag,
        Lost("TLS 1.2 cannot be switched off; what is left of it has ECDHE and AEAD only"),
    ),
    key("no-udp", Flag, Room),
    key(
        "no-udp-relay",
        Flag,
        Lost("UDP relays cannot be switched off: they are what turnd is for"),
    ),
    key(
        "oauth",
        Flag,
        Gone(
            "the keys are in a database: put each into a file and name it under [auth.oauth], with server_name",
        ),
    ),
    key("permission-lifetime", Optional, Room),
    key("pidfile", Value, Gone(SYSTEMD)),
    key("pkey", Value, Room),
    key("pkey-pwd", Secret, Room),
    key("proc-group", Value, Gone(SYSTEMD)),
    key("proc-user", Value, Gone(SYSTEMD)),
    key(
        "prod",
        Flag,
        Always("the program's name and version are not told"),
    ),
    key("prometheus", Presence, Room),
    key("prometheus-address", Value, Room),
    key("prometheus-path", Value, Gone("metrics are at /metrics")),
    key("prometheus-port", Optional, Room),
    key(
        "prometheus-tls",
        Flag,
        Gone("metrics are served without TLS: to this host and private networks"),
    ),
    key("prometheus-username-labels", Presence, Gone(LABELS)),
    key("psql-userdb", Secret, Gone(DATABASE)),
    key(
        "raw-public-keys",
        Flag,
        Gone("turnd shows certificates alone"),
    ),
    key("realm", Value, Room),
    key(
        "redis-statsdb",
        Secret,
        Gone("sessions are told of in lines of JSON or by a webhook, not to a Redis: [events]"),
    ),
    key("redis-userdb", Secret, Gone(DATABASE)),
    key("relay-device", Value, Gone(DEVICE)),
    key("relay-ip", Value, Room),
    key("relay-threads", Value, Gone(THREADS)),
    key(
        "respond-http-unsupported",
        Flag,
        Gone("web clients are turned away, or passed on: [[listen]] http"),
    ),
    key(
        "response-origin-only-with-rfc5780",
        Flag,
        Always("RESPONSE-ORIGIN is part of NAT discovery alone"),
    ),
    key("rest-api-separator", Value, Room),
    key("rfc3489-compatibility", Flag, Room),
    key("rfc5766-channel-numbers", Flag, Room),
    key("rfc5780", Flag, Room),
    key("secret-key-file", Value, Gone(DATABASE)),
    key(
        "secret-ts-exp-time",
        Value,
        Gone("it had no effect: credentials say themselves when they end"),
    ),
    key(
        "secure-stun",
        Flag,
        Lost(
            "turnd answers Binding requests of anybody, few for each prefix ([limits] unauthenticated_replies)",
        ),
    ),
    key("server-name", Value, Room),
    key(
        "server-relay",
        Flag,
        Lost(
            "refused: it lets the whole world send to every relay; permissions are checked always",
        ),
    ),
    key("simple-log", Flag, Gone(NO_FILE)),
    key("sock-buf-size", Value, Gone(BUFFERS)),
    key("software-attribute", Flag, Room),
    key("sql-userdb", Secret, Gone(DATABASE)),
    key("stale-nonce", Optional, Room),
    key(
        "stateless-nonce",
        Flag,
        Always("nonces are sealed, and nobody has to remember them"),
    ),
    key("stateless-nonce-secret", Secret, Room),
    key("static-auth-secret", Secret, Room),
    key("stun-backward-compatibility", Flag, Room),
    key(
        "stun-only",
        Flag,
        Lost("relaying cannot be switched off; who has no credential gets no relay"),
    ),
    key(
        "syslog",
        Flag,
        Always("under systemd the lines go to the journal"),
    ),
    key("syslog-facility", Value, Gone(LOG_LOOKS)),
    key(
        "tcp-alternate-server",
        Value,
        Gone("clients over UDP and TCP are sent to the same servers: [redirect] to"),
    ),
    key("tcp-proxy-port", Value, Room),
    key("tls-alternate-server", Value, Room),
    key("tls-listening-port", Value, Room),
    key("tlsv1", Flag, Lost(OLD_TLS)),
    key("tlsv1_1", Flag, Lost(OLD_TLS)),
    key("total-quota", Value, Room),
    key(
        "udp-alternate-server",
        Value,
        Gone("clients over UDP and TCP are sent to the same servers: [redirect] to"),
    ),
    key("udp-gso", Flag, Gone(BUFFERS)),
    key("udp-recvmmsg", Flag, Gone(BUFFERS)),
    key("udp-recvmmsg-log", Flag, Gone(BUFFERS)),
    key(
        "udp-self-balance",
        Flag,
        Gone("the kernel deals the clients of one port out to all workers"),
    ),
    key("unauthorized-ratelimit", Flag, Room),
    key("unauthorized-ratelimit-rps", Value, Room),
    key("use-auth-secret", Presence, Room),
    key("user", Secret, Room),
    key("user-quota", Value, Room),
    key("userdb", Value, Gone(DATABASE)),
    key(
        "verbose",
        Flag,
        Always("what it adds, a line for each session, is there at [log] level \"info\""),
    ),
    key("version", Presence, Gone("`turnd --version` tells it")),
    key("web-admin", Flag, Room),
    key("web-admin-ip", Value, Room),
    key("web-admin-listen-on-workers", Flag, Room),
    key("web-admin-port", Value, Room),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_there_once_and_in_its_place() {
        let all: Vec<&str> = names().collect();
        assert!(all.is_sorted(), "the table is sorted");
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(find("realm").is_some() && find("Realm").is_none());
    }
}
