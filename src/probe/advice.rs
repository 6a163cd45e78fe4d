//! What to do about a fault, in words for whoever runs the server.

use std::net::SocketAddr;

use super::fault::{Distrust, Fault, Suspicion};
use super::report::Name;
use super::url::{Host, Transport, Url};

/// Where a fault was met.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scene<'a> {
    pub(super) step: Name,
    pub(super) url: &'a Url,
    pub(super) transport: Transport,
    pub(super) address: SocketAddr,
}

/// What to do about a fault.
pub(super) fn advice(fault: &Fault, scene: &Scene<'_>) -> String {
    let port = scene.address.port();
    match fault {
        Fault::Resolve(_) => resolve(scene),
        Fault::Unreachable(_) => unreachable(scene),
        Fault::Refused => refused(scene),
        Fault::Silence => silence(scene),
        Fault::Closed => closed(scene),
        Fault::Network(_) => "This is what the kernel of this host says; `ip route get` and \
            `ss -tulpn` show more."
            .to_owned(),
        Fault::NotSecure => format!(
            "Something else than TLS is spoken at port {port}. Give the listener transport = \"tls\" and a [tls] \
             certificate, or test turn: instead of turns:."
        ),
        Fault::Handshake(_) => "Server and client have no version, cipher or protocol in common, or the server \
            objects to the name it is asked for. See its log, and the certificate and key in its [tls]. A server \
            that speaks HTTP alone at this port refuses those who offer the protocol stun.turn."
            .to_owned(),
        Fault::Certificate(doubts) => {
            let each: Vec<String> = doubts.iter().map(|doubt| distrust(doubt, scene)).collect();
            each.join(" ")
        }
        Fault::Garbled(_) => format!(
            "This is not how a STUN server answers. Is port {port} that of another service, or is there a \
             middlebox that rewrites packets?"
        ),
        Fault::Unsigned => "Somebody between us and the server changes the packets, or the server has another \
            password for this name. Compare with a test from the server's own network."
            .to_owned(),
        Fault::OpenRelay => "Whoever knows the address can send through this server into its network. Switch \
            authentication on: a secret under [auth] in turnd, use-auth-secret in coturn."
            .to_owned(),
        Fault::Login(_, suspicion) => login(suspicion),
        Fault::Error(code, _) => refusal(*code, scene),
        Fault::SentInCircles => "Each server sends its clients to the next one. One of them has to keep them: see \
            `when` under [redirect] in turnd, alternate-server in coturn."
            .to_owned(),
        Fault::Lost { came: 0, .. } => "The server gives relays but nothing comes through them. Are the relay ports \
            (49152-65535 by default) open for UDP, in both directions? Behind a 1:1 NAT, is the public address \
            named (`external` under [relay], external-ip in coturn), and may the server reach its own public \
            address? Its metrics tell why packets are dropped."
            .to_owned(),
        Fault::Lost { .. } => "More than half of the packets were lost, which no call survives. Is the server, or the \
            line to it, overloaded? Compare with a test from the server's own network."
            .to_owned(),
        Fault::TooSmall(size) => format!(
            "Browsers send packets of up to {size} bytes and do not make them smaller. Look for a tunnel or a VPN \
             on the way, and for a firewall that drops ICMP \"fragmentation needed\" (\"packet too big\")."
        ),
        Fault::OtherFamily(_) => "A translator between IPv4 and IPv6 (NAT64) on the way does that. If there is none, the \
            server is wrong about the address of its clients, and they will have no use for it."
            .to_owned(),
        Fault::Unroutable(_) => "The server is reached by a wider address than its relays have, so only peers next to it \
            get through. Behind a NAT, name the public address: `external` under [relay] in turnd, external-ip in \
            coturn."
            .to_owned(),
        Fault::OtherAddress(_) => "Peers see another address than the one that the relay is said to have. A NAT before \
            the server must map every relay port to the same port outside; and is the public address right (`external` \
            under [relay], external-ip in coturn)?"
            .to_owned(),
        Fault::Unheard => "Relays may not talk to each other here, so a socket of this host was to be the peer. Either \
            the relay ports (49152-65535 by default) are not open for UDP at the server, or a firewall around this host \
            stops UDP to such ports. Compare with a test from another network."
            .to_owned(),
        Fault::Stopped => "What was tried so far stands above.".to_owned(),
        Fault::OutOfTime => "What was tried so far took too long: see the times above, or give more by --timeout."
            .to_owned(),
    }
}

fn resolve(scene: &Scene<'_>) -> String {
    format!(
        "Add an A or AAAA record for {}, or correct the name in the URL: `getent ahosts {}` shows what this host \
         finds. SRV records are not looked at, as by browsers.",
        scene.url.host, scene.url.host
    )
}

fn unreachable(scene: &Scene<'_>) -> String {
    if scene.address.is_ipv6() {
        "This host has no way to IPv6. If that is as it should be, test by the IPv4 address; clients that have \
         IPv6 will still try it."
            .to_owned()
    } else {
        "Is this host connected? `ip route get` with the address shows the way that is taken."
            .to_owned()
    }
}

fn refused(scene: &Scene<'_>) -> String {
    let port = scene.address.port();
    let over = carrier(scene.transport);
    format!(
        "The host is there, but nobody listens at {over} port {port}. Is the server running, and is this port among \
         its listeners? On the server, `ss -tulpn` shows which are; turnd needs a [[listen]] for it, or \
         the port in the URL is wrong."
    )
}

fn silence(scene: &Scene<'_>) -> String {
    let port = scene.address.port();
    let over = carrier(scene.transport);
    let open = format!(
        "Is {over} port {port} open in every firewall on the way, the provider's (security group) too? Is the server \
         running and listening there (`ss -tulpn`)?"
    );
    match (scene.step, scene.transport) {
        (Name::Connect | Name::Binding, Transport::Udp) => {
            format!("{open} Networks that stop all UDP need turn: over TCP, or turns:, instead.")
        }
        (Name::Connect, Transport::Dtls) => format!("{open} Does it speak DTLS (transport = \"dtls\")?"),
        (Name::Connect | Name::Binding, _) => open,
        (Name::Challenge | Name::Allocate, _) => "The server answers other questions, but not this one. Does it \
            relay at all (stun-only in coturn)? Strangers are answered only so often; turnd counts what it left \
            out, see limits.unauthenticated_replies."
            .to_owned(),
        _ => "The server answered until here. See its log; is it overloaded, or was it restarted?".to_owned(),
    }
}

fn closed(scene: &Scene<'_>) -> String {
    if scene.transport.is_secure() && scene.step == Name::Connect {
        return "The server hangs up in the handshake. Has it a certificate ([tls] in turnd)? Does it speak TLS at \
            this port? A load balancer before it may be without a server behind it."
            .to_owned();
    }
    "The server hangs up. Does it wait for a PROXY header (proxy_protocol), which only a load balancer sends? Is it \
     another service that listens there?"
        .to_owned()
}

fn distrust(doubt: &Distrust, scene: &Scene<'_>) -> String {
    match doubt {
        Distrust::Expired(_) => "Renew the certificate; turnd takes the new one up within seconds, others may need a \
            reload. Is it the one that your renewal writes?"
            .to_owned(),
        Distrust::NotYet => "Is the clock of this host right, and that of who issued it?".to_owned(),
        Distrust::Name(_) => match &scene.url.host {
            Host::Name(name) => format!(
                "Get a certificate that names {name}, or use one of its own names in the URL; [tls] others in turnd \
                 holds certificates for more names."
            ),
            Host::Address(ip) => {
                format!("Use the name of the server in the URL: its certificate does not name {ip}.")
            }
        },
        Distrust::Issuer(_) => "Does the server send the intermediate certificates, too (the file is often called \
            fullchain.pem)? If the authority is your own, name its certificate by --ca; browsers have to know it, \
            as well. --insecure goes on nevertheless."
            .to_owned(),
        Distrust::Other(_) => "Browsers will not take it, either.".to_owned(),
    }
}

fn login(suspicion: &Suspicion) -> String {
    match suspicion {
        Suspicion::Expired(ago) => format!(
            "The name says that the credential expired {} ago. Get a fresh one (`turnd credential`). If it is \
             fresh, the clock of whoever made it, or of this host, is behind: compare `date -u` of each.",
            span(*ago)
        ),
        Suspicion::ClockAhead => "A credential with a later expiry is accepted: the clock of the server is ahead of \
            that of this host by more than an hour. Set both by NTP (`timedatectl`)."
            .to_owned(),
        Suspicion::OtherHash(true) => "The secret is right, but passwords are made with SHA-256 there: give --sha256 \
            here, and have your token service do the same, or write algorithm = \"sha1\" for the secret in turnd."
            .to_owned(),
        Suspicion::OtherHash(false) => "The secret is right, but passwords are made with SHA-1 there: leave --sha256 \
            out, or write algorithm = \"sha256\" for the secret in turnd."
            .to_owned(),
        Suspicion::Secret => "The server does not know this secret. Compare the file with that of the server ([auth] \
            secrets in turnd, static-auth-secret in coturn): it is taken without white space around it. Was the \
            server reloaded since it changed? Does it have users with passwords instead (--user)?"
            .to_owned(),
        Suspicion::Minted => "The name is one that a shared secret vouches for, but the password is not what the \
            server makes of it: it was made with another secret or with another hash, or the name was changed \
            afterwards. --secret-file finds out which."
            .to_owned(),
        Suspicion::Password => "The server has no such name with such a password. Compare both, and mind that a \
            password stored as a hash belongs to one realm, the one above. Does the server want time-limited \
            credentials (--secret-file)?"
            .to_owned(),
    }
}

fn refusal(code: u16, scene: &Scene<'_>) -> String {
    match (code, scene.step) {
        (403, Name::Permission | Name::Channels) => "Its relays may not talk to its own network, which is a good rule \
            and no fault; then this host is the peer instead. turnd lets its own relays talk to each other; coturn \
            denies loopback addresses and what denied-peer-ip says."
            .to_owned(),
        (403, Name::PlainPeer) => "Nor may they talk to this host, so what goes through them was not tested. Compare \
            with a test from another network."
            .to_owned(),
        (401, Name::Binding) => "It tells only those their address who have a credential, which no browser shows for \
            that (secure-stun in coturn)."
            .to_owned(),
        (400, Name::Challenge | Name::Allocate) => "The server does not understand the request. turnd answers so where \
            only SHA-256 is allowed (password_algorithms), which no browser knows."
            .to_owned(),
        (403, _) => "The server lets this user, or clients from this address, have no relay: see its rules.".to_owned(),
        (420, _) => "The server does not know an attribute that every browser sends; is it a very old one?".to_owned(),
        (437, Name::Allocate | Name::SecondAllocation) => "The server thinks that there is a relay for this \
            client's address and port already, of another client behind the same NAT or of one that went away. It \
            ends by itself; try again in ten minutes."
            .to_owned(),
        (437, _) => "The server has forgotten the relay: was it restarted, or do several servers share this address?"
            .to_owned(),
        (438, _) => "The server calls its own fresh nonce stale. Do several servers share this address? Then they \
            need the same auth.nonce_key_file, and a load balancer has to keep clients with one of them."
            .to_owned(),
        (440, _) => "There are no relays of IPv4, and browsers ask for no other. Name an IPv4 address \
            under [relay] addresses, or give them IPv6 by unasked_ipv6 = true."
            .to_owned(),
        (442, _) => "The server relays no UDP (no-udp-relay in coturn); calls need it.".to_owned(),
        (486, Name::Allocate) => "This user has as many relays as one may have: see limits.per_user, per_client and \
            total in turnd (user-quota and total-quota in coturn). Relays that nobody gave back end after ten \
            minutes."
            .to_owned(),
        (486, _) => "This user may have no second relay, but browsers take two to six for a call: raise \
            limits.per_user in turnd (user-quota in coturn)."
            .to_owned(),
        (500, _) => "The server has a fault of its own: its log tells which.".to_owned(),
        (508, _) => "The server is full or about to end: no relay port is left ([relay] ports; turn_port_pool_free on \
            its metrics page), limits.total is reached, or it drains before a restart (/readyz says so)."
            .to_owned(),
        _ => "The log of the server may tell why.".to_owned(),
    }
}

fn carrier(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp | Transport::Dtls => "UDP",
        Transport::Tcp | Transport::Tls => "TCP",
    }
}

/// A number of seconds for people.
fn span(seconds: i64) -> String {
    let (number, unit) = match seconds {
        ..120 => (seconds, "second"),
        120..7200 => (seconds / 60, "minute"),
        7200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fault: &Fault, step: Name, url: &str) -> String {
        let url: Url = url.parse().unwrap();
        advice(
            fault,
            &Scene {
                step,
                url: &url,
                transport: url.transport,
                address: SocketAddr::from(([192, 0, 2, 1], url.port)),
            },
        )
    }

    const UDP: &str = "turn:turn.example.org";
    const TLS: &str = "turns:turn.example.org";

    /// Each fault, where it is met, and the word that its remedy cannot do without.
    #[test]
    fn every_fault_has_a_remedy() {
        use Distrust::{Expired, Issuer, Name as OtherName, NotYet};
        use Name::*;
        let text = String::new;
        let here = || SocketAddr::from(([127, 0, 0, 1], 9));
        let certificate = |doubt| Fault::Certificate(vec![doubt]);
        let cases = [
            (
                Fault::Resolve(text()),
                Resolve,
                "getent ahosts turn.example.org",
            ),
            (Fault::Unreachable(text()), Binding, "ip route get"),
            (Fault::Refused, Binding, "nobody listens at UDP port 3478"),
            (
                Fault::Silence,
                Binding,
                "UDP port 3478 open in every firewall",
            ),
            (Fault::Silence, Challenge, "unauthenticated_replies"),
            (Fault::Silence, Permission, "overloaded"),
            (Fault::Closed, Binding, "proxy_protocol"),
            (Fault::Network(text()), Binding, "kernel"),
            (Fault::NotSecure, Connect, "transport = \"tls\""),
            (Fault::Handshake(text()), Connect, "in common"),
            (certificate(Expired(3)), Connect, "Renew"),
            (certificate(NotYet), Connect, "clock"),
            (
                certificate(OtherName(Vec::new())),
                Connect,
                "names turn.example.org",
            ),
            (certificate(Issuer(text())), Connect, "--ca"),
            (certificate(Distrust::Other(text())), Connect, "Browsers"),
            (Fault::Garbled(""), Binding, "another service"),
            (Fault::Unsigned, Allocate, "changes the packets"),
            (Fault::OpenRelay, Challenge, "Switch authentication on"),
            (Fault::SentInCircles, Redirect, "[redirect]"),
            (Fault::Lost { sent: 9, came: 0 }, Indications, "relay ports"),
            (
                Fault::Lost { sent: 9, came: 2 },
                RoundTrip,
                "More than half",
            ),
            (Fault::TooSmall(1200), PacketSize, "VPN"),
            (Fault::OtherFamily(here()), Binding, "NAT64"),
            (Fault::Unroutable(here()), Allocate, "external-ip"),
            (Fault::OtherAddress(here()), Indications, "same port"),
            (Fault::Unheard, PlainPeer, "another network"),
            (Fault::OutOfTime, RoundTrip, "--timeout"),
            (Fault::Stopped, RoundTrip, "so far"),
        ];
        for (fault, step, word) in cases {
            let advice = of(&fault, step, UDP);
            assert!(advice.contains(word), "{fault:?}: {advice}");
        }
        let silence = of(&Fault::Silence, Connect, TLS);
        assert!(
            silence.contains("TCP port 5349") && !silence.contains("UDP"),
            "{silence}"
        );
        assert!(of(&Fault::Closed, Connect, TLS).contains("certificate"));
        let name = certificate(OtherName(Vec::new()));
        assert!(of(&name, Connect, "turns:192.0.2.1").contains("does not name 192.0.2.1"));
    }

    #[test]
    fn every_code_has_a_remedy_where_it_is_met() {
        let cases = [
            (400, Name::Allocate, "SHA-256"),
            (401, Name::Binding, "secure-stun"),
            (403, Name::Permission, "no fault"),
            (403, Name::Allocate, "no relay"),
            (420, Name::Allocate, "attribute"),
            (437, Name::Allocate, "same NAT"),
            (437, Name::Channels, "restarted"),
            (438, Name::Allocate, "nonce_key_file"),
            (440, Name::Allocate, "unasked_ipv6"),
            (442, Name::Allocate, "no-udp-relay"),
            (486, Name::Allocate, "limits.per_user"),
            (486, Name::SecondAllocation, "two to six"),
            (500, Name::Allocate, "log"),
            (508, Name::Allocate, "drains"),
            (599, Name::Allocate, "log"),
        ];
        for (code, step, word) in cases {
            let advice = of(&Fault::Error(code, String::new()), step, UDP);
            assert!(advice.contains(word), "{code}: {advice}");
        }
    }

    #[test]
    fn every_suspicion_has_a_remedy() {
        let cases = [
            (Suspicion::Expired(7300), "expired 2 hours ago"),
            (Suspicion::Expired(1), "expired 1 second ago"),
            (Suspicion::ClockAhead, "NTP"),
            (Suspicion::OtherHash(true), "give --sha256"),
            (Suspicion::OtherHash(false), "leave --sha256 out"),
            (Suspicion::Secret, "static-auth-secret"),
            (Suspicion::Minted, "--secret-file"),
            (Suspicion::Password, "no such name"),
        ];
        for (suspicion, word) in cases {
            let advice = of(&Fault::Login(401, suspicion), Name::Allocate, UDP);
            assert!(advice.contains(word), "{advice}");
        }
    }

    #[test]
    fn several_doubts_have_several_remedies() {
        let doubts = vec![Distrust::Expired(1), Distrust::Issuer(String::new())];
        let advice = of(&Fault::Certificate(doubts), Name::Connect, TLS);
        assert!(
            advice.contains("Renew") && advice.contains("--ca"),
            "{advice}"
        );
    }
}
