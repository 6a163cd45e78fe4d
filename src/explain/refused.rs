//! Who was refused, and why.

use std::net::IpAddr;

use super::words::{counted, name, span, times};
use super::{Finding, rank};
use crate::stun::Method;
use crate::turn::{Account, Limit, Rebuff, Refusal, Why};

/// As much of a name as is kept of one who was refused.
const LONGEST_KEPT: usize = 64;
/// How far credentials may have expired and still be taken, in seconds.
const TOLERANCE: u64 = 60;

pub(super) fn findings(refused: &[Rebuff], sessions: &[Account], now: u64) -> Vec<Finding> {
    refused
        .iter()
        .map(|one| {
            let words = words(one);
            let elsewhere = elsewhere(one, sessions);
            let ago = now.saturating_sub(one.last);
            let when = if ago < 2 {
                "just now".to_owned()
            } else {
                format!("{} ago", span(ago))
            };
            let Rebuff {
                five_tuple,
                method,
                code,
                count,
                ..
            } = one;
            Finding {
                cause: words.cause.to_owned(),
                rank: match elsewhere {
                    _ if is_over(one, sessions, now) => rank::HARMLESS,
                    Some(_) => rank::ODD,
                    None => rank::REFUSED,
                },
                session: None,
                what: format!(
                    "{} The client at {} was answered {code} to {}, {}, last {when}.{}",
                    words.what,
                    five_tuple.client,
                    method_word(*method),
                    times(*count),
                    elsewhere.map_or_else(String::new, |ip| format!(
                        " Anybody can give that name: the user has a session from {ip}."
                    ))
                ),
                remedy: words.remedy,
            }
        })
        .collect()
}

/// Whether the same user has been let in since, from the same address.
fn is_over(refused: &Rebuff, sessions: &[Account], now: u64) -> bool {
    sessions.iter().any(|account| {
        let since_end = account.ended.map_or(0, |(_, ago)| ago.as_secs());
        let ended = now.saturating_sub(since_end);
        let began = ended.saturating_sub(account.session.age.as_secs());
        let since_then = account.ended.is_some() && refused.last >= ended;
        account.session.five_tuple.client.ip() == refused.five_tuple.client.ip()
            && is_of_one(&refused.username, &account.session.username)
            && began >= refused.last
            && !since_then
    })
}

/// Where the user whose name was given has a session, while somebody at another address does not know the password:
/// anybody can give a name.
fn elsewhere(refused: &Rebuff, sessions: &[Account]) -> Option<IpAddr> {
    let proven = !matches!(
        refused.why,
        Why::Realm { .. } | Why::UnknownSecret | Why::Login(_)
    );
    let clients = sessions
        .iter()
        .filter(|account| account.ended.is_none())
        .filter(|account| is_of_one(&refused.username, &account.session.username))
        .map(|account| account.session.five_tuple.client.ip());
    let clients: Vec<IpAddr> = clients.collect();
    let own = refused.five_tuple.client.ip();
    let other = *clients.first()?;
    (!proven && !clients.contains(&own)).then_some(other)
}

/// Whether two names are of one user. The first may have been cut.
fn is_of_one(cut: &[u8], name: &[u8]) -> bool {
    let is_cut = cut.len() < name.len() && name.starts_with(cut) && cut.len() == LONGEST_KEPT;
    !cut.is_empty() && (is_cut || person(cut) == person(name))
}

/// The part of a name that is the same in all credentials of a user: what is behind the expiry and before the claims.
fn person(name: &[u8]) -> &[u8] {
    let digits = name.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = match name.get(digits) {
        Some(b':') if digits > 0 => &name[digits + 1..],
        Some(_) | None => return name,
    };
    let tildes = rest.iter().enumerate().filter(|(_, byte)| **byte == b'~');
    let claims = tildes.map(|(place, _)| place).nth(2);
    &rest[..claims.unwrap_or(rest.len())]
}

struct Words {
    cause: &'static str,
    what: String,
    remedy: String,
}

fn words(refused: &Rebuff) -> Words {
    let user = name(&refused.username);
    match &refused.why {
        Why::Expired { ago, issued_for } => expired(&user, *ago, *issued_for),
        Why::Realm { theirs } => Words {
            cause: "realm",
            what: format!(
                "The client signed for the realm `{}`, which is not this server's.",
                name(theirs)
            ),
            remedy: "Set `realm` under [server] to what the client's credentials are made for, or let the client take \
                     the realm from the server's first answer, as most do."
                .to_owned(),
        },
        Why::UnknownSecret => Words {
            cause: "unknown_secret",
            what: format!(
                "The credential `{user}` says that the secret `{}` vouches for it, and this server has no secret of \
                 that id with claims.",
                secret_id(&refused.username)
            ),
            remedy: "Add the secret under that id, with claims = true, to `secrets` under [auth] and reload, or let \
                     the token service issue with one that is there. After a rotation the old secret has to stay for \
                     as long as its credentials live."
                .to_owned(),
        },
        Why::Login(refusal) => login(&user, &refused.username, *refusal),
        Why::Quota { limit, has, most } => quota(&user, *limit, *has, *most),
        Why::Draining => Words {
            cause: "draining",
            what: "This server drains: it takes no new allocations.".to_owned(),
            remedy: "End the drain, or send new clients to another server.".to_owned(),
        },
        Why::NoAllocation => Words {
            cause: "no_allocation",
            what: format!("`{user}` asked for something about an allocation that is not there."),
            remedy: "It has ended (see below, if that was lately), the server was started anew, or the client now \
                     comes from another address: its NAT has given it another port, or it has changed networks. With \
                     `mobility` under [server], clients that can may keep theirs."
                .to_owned(),
        },
        Why::Other => by_code(&user, refused),
    }
}

fn expired(user: &str, ago: u64, issued_for: Option<u64>) -> Words {
    let issued = issued_for.map_or_else(String::new, |seconds| {
        format!(", and was issued for {}", span(seconds))
    });
    Words {
        cause: "credential_expired",
        what: format!(
            "The credential `{user}` expired {} ago by this server's clock{issued} (up to {TOLERANCE} s are forgiven).",
            span(ago)
        ),
        remedy: "If it was handed out just now, the clock of the token service is behind, or this server's is ahead: \
                 compare `date -u` on both, and let NTP keep them. Otherwise the client used it for too long: fetch a \
                 new one before the end, or issue it for longer."
            .to_owned(),
    }
}

fn login(user: &str, username: &[u8], refusal: Refusal) -> Words {
    let is_timed = username
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count()
        > 0
        && username.contains(&b':');
    let (cause, what, remedy) = match refusal {
        Refusal::Integrity if is_timed => (
            "wrong_secret",
            format!(
                "The password of `{user}` is not the one that a secret of this server makes for it."
            ),
            "Token service and server do not share the secret: compare the files byte for byte (a newline at the end \
             is not part of it here), and the hash (sha1 or sha256). The password is base64(HMAC(secret, username)), \
             of the whole username.",
        ),
        Refusal::Integrity => (
            "wrong_password",
            format!("The password of `{user}` is wrong."),
            "Compare what the client has with the password_file of this user under [auth].",
        ),
        Refusal::UnknownUser => (
            "unknown_user",
            format!(
                "There is no user `{user}`, and the name is none that a shared secret could vouch for."
            ),
            "Names of time-limited credentials begin with the second in which they end, as in `1800000000:alice`; \
             others have to be among `users` under [auth].",
        ),
        Refusal::Claims => (
            "bad_claims",
            format!(
                "The credential `{user}` makes claims that this server does not know, or makes one twice."
            ),
            "The token service writes them otherwise than this version reads them: bring both to the same version.",
        ),
        Refusal::Token => (
            "bad_token",
            "The access token is not for this server, has no key here, or was changed.".to_owned(),
            "Compare server_name and keys under [auth.oauth] with those of the authorization server.",
        ),
        Refusal::Expired => (
            "token_expired",
            "The access token has expired.".to_owned(),
            "The client has to fetch a new one before the old one ends.",
        ),
        Refusal::Revoked => (
            "revoked",
            format!("The credential `{user}`, its user or its tenant has been revoked."),
            "The client needs a new credential from the token service, if it is to have one. Who revoked it stands in \
             the log of revocations.",
        ),
        Refusal::Algorithm => (
            "algorithm",
            format!("`{user}` chose a password algorithm that was not offered."),
            "The client does not do what `password_algorithms` asks for, or somebody in between has changed the \
             server's offer.",
        ),
        Refusal::Incomplete => (
            "incomplete",
            "The request is signed, but does not say by whom, or for which realm.".to_owned(),
            "The client is broken, or speaks the short-term credentials of ICE to a TURN server: it must send USERNAME, \
             REALM and NONCE.",
        ),
        Refusal::NoIntegrity | Refusal::StaleNonce | Refusal::WrongUser => (
            "refused",
            format!("`{user}` was refused ({}).", refusal.label()),
            "The client should try again with what the answer tells it.",
        ),
    };
    Words {
        cause,
        what,
        remedy: remedy.to_owned(),
    }
}

fn quota(user: &str, limit: Limit, has: u32, most: u32) -> Words {
    let has = counted(has.into(), "allocation");
    let (cause, what, key) = match limit {
        Limit::User => (
            "user_quota",
            format!("The user `{user}` has {has}, and may have {most}."),
            "per_user",
        ),
        Limit::Client => (
            "client_quota",
            format!("The network of this client has {has}, and may have {most}."),
            "per_client",
        ),
        Limit::Tenant => (
            "tenant_quota",
            format!("The tenant of `{user}` has {has}, and may have {most}."),
            "per_tenant",
        ),
        // Stands against peers, and so against no allocation.
        Limit::NewPeers => (
            "new_peers",
            format!("`{user}` has asked for too many new peers in a minute."),
            "new_peers_per_user",
        ),
        Limit::Total => (
            "total_quota",
            format!("This server has {has}, and may have {most}."),
            "total",
        ),
    };
    Words {
        cause,
        what,
        remedy: format!(
            "`{key}` under [limits] says so. A browser takes one allocation for each server URL and network interface; \
             those of closed pages live on until they expire. Give clients fewer URLs, or raise the limit."
        ),
    }
}

fn by_code(user: &str, refused: &Rebuff) -> Words {
    let (cause, what, remedy) = match refused.code {
        441 => (
            "wrong_user",
            format!(
                "`{user}` asked about an allocation that another user made from the same client address."
            ),
            "The client has changed credentials in the middle of a session: it has to allocate anew with the new ones.",
        ),
        442 => (
            "relay_transport",
            format!("`{user}` wants a relay that speaks something else than UDP."),
            "TCP relays have to be turned on: `enabled` under [tcp_relay]. WebRTC needs none.",
        ),
        440 => (
            "relay_family",
            format!(
                "`{user}` wants a relay of an address family that this server does not relay from."
            ),
            "Add an address of that family to `addresses` under [relay].",
        ),
        508 => (
            "no_capacity",
            "No relay could be opened.".to_owned(),
            "All ports of `ports` under [relay] are taken, or the process has no descriptors left (`ulimit -n`, \
             LimitNOFILE=).",
        ),
        486 => (
            "quota",
            format!("`{user}` has reached a limit."),
            "Look at [limits], and at what the credential claims.",
        ),
        403 => (
            "client_forbidden",
            "The client comes from an address that no client may have (6to4 or Teredo).".to_owned(),
            "It has to come from its real IPv4 or IPv6 address.",
        ),
        405 => (
            "mobility",
            format!(
                "`{user}` wants to be able to move to another address (RFC 8016), and that is off."
            ),
            "`mobility` under [server] lets clients do that; one that insists on it does not work without.",
        ),
        400 if refused.method == Method::CONNECTION_BIND => (
            "no_connection",
            format!(
                "`{user}` claims a connection to a peer that is not there, or is another user's."
            ),
            "It came too late (a connection waits for 30 seconds), was claimed already, or the claim comes from another \
             address than the one that allocated.",
        ),
        420 => (
            "unknown_attribute",
            "The request has an attribute that must be understood and is not.".to_owned(),
            "The client uses an extension that this server does not know, and says that it cannot do without.",
        ),
        _ => (
            "bad_request",
            "The request contradicts itself or lacks something.".to_owned(),
            "The client is broken: capture its packets (UDP port of the listener) and look at the attributes.",
        ),
    };
    Words {
        cause,
        what,
        remedy: remedy.to_owned(),
    }
}

/// The id of a secret that a name with claims gives.
fn secret_id(username: &[u8]) -> String {
    let rest = username.splitn(2, |byte| *byte == b':').nth(1);
    let id = rest.and_then(|rest| rest.split(|byte| *byte == b'~').next());
    name(id.unwrap_or_default())
}

/// The name of a request.
pub(super) fn method_word(method: Method) -> &'static str {
    match method {
        Method::ALLOCATE => "Allocate",
        Method::REFRESH => "Refresh",
        Method::CREATE_PERMISSION => "CreatePermission",
        Method::CHANNEL_BIND => "ChannelBind",
        Method::CONNECT => "Connect",
        Method::CONNECTION_BIND => "ConnectionBind",
        _ => "a request",
    }
}
