//! The series of the metrics page are the same whoever comes, and however many.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;
use turnd::turn::{Bandwidth, NewPeers, SecretAlgorithm, Settings, SharedSecret, Users};

use crate::crowd::{Credential, Crowd};
use crate::machine::Machine;
use crate::page::{Page, Pages};
use crate::process::{Daemon, Start, free_address};
use crate::wire::{PATIENCE, Plane, loopback, peer};
use crate::{alone, held, http};

/// Users who come to the machine, each the only one of its tenant.
const USERS: usize = 100_000;
/// Those who come over the network.
const NEAR: usize = 12_000;
/// So many come before the page and the memory are looked at first: what is kept of the last ones who have gone is full.
const EARLY: usize = 4_000;
/// So many at a time.
const AT_A_TIME: usize = 50;
/// What may be kept of those who have gone: what is left of the tables of users and tenants whose limits mattered a
/// moment ago (2048 at most, before those are looked for that matter no more), and what differs between the last sessions
/// of each worker (256) and the last refusals (256) of then and now.
const KEPT: usize = 1 << 20;

/// When all credentials here end: in 2100.
const EXPIRY: u64 = 4_102_444_800;
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Who vouches for all of them.
fn secret() -> SharedSecret {
    SharedSecret::new("north", b"north", SecretAlgorithm::Sha1).with_claims()
}

/// The user of this number.
fn user(secret: &SharedSecret, number: usize) -> Credential {
    let name = format!(
        "{EXPIRY}:{}~tenant{number}~user{number}~jid{number}",
        secret.id()
    );
    let password = secret.password(name.as_bytes()).to_string();
    Credential { name, password }
}

/// Limits of users and tenants are what there could be memory of.
fn limit(settings: &mut Settings) {
    let rate = 1_000_000_000;
    settings.limits.bandwidth = Bandwidth {
        per_allocation: rate,
        per_user: rate,
        per_tenant: rate,
        total: 0,
    };
    settings.limits.new_peers = NewPeers {
        per_allocation: 60_000,
        per_user: 60_000,
    };
    settings.limits.unauthenticated_replies = 0;
}

#[test]
fn a36_a_hundred_thousand_users_and_tenants_leave_series_and_memory_as_they_were() {
    let _alone = alone();
    let secret = secret();
    let mut machine = Machine::new(|settings| {
        settings.users = Users::new("turnd");
        settings.users.add_secret(secret.clone()).unwrap();
        limit(settings);
    });
    let mut come = |numbers: Range<usize>| {
        for first in numbers.step_by(AT_A_TIME) {
            let users = (first..first + AT_A_TIME).map(|number| user(&secret, number));
            machine.live(&users.collect::<Vec<_>>());
        }
        let held = held();
        (Page::of(&machine.snapshot()), held)
    };
    let (before, early) = come(0..EARLY);
    let (after, late) = come(EARLY..USERS);
    assert_eq!(before.series(), after.series());
    check_counts(&after, USERS as u64);
    let expired = after.sum("turn_allocations_ended_total", "=\"expired\"");
    assert_eq!(expired, USERS as u64);
    assert_eq!(
        after.sum("turn_dropped_packets_total", "=\"no_channel\""),
        USERS as u64
    );
    check_memory((early, EARLY), (late, USERS), &after);
}

#[test]
fn a36_those_who_come_over_the_network_leave_them_as_they_were_too() {
    let _alone = alone();
    let secret = secret();
    let plane = Plane::start_with(2, vec![loopback()], |settings| {
        settings.users.add_secret(secret.clone()).unwrap();
        limit(settings);
    });
    let pages = Pages::of(&plane.handle, 2);
    let peer = peer("127.0.0.2");
    let mut crowd = Crowd::at(NOBODY, plane.udp, AT_A_TIME);
    let mut come = |numbers: Range<usize>| {
        for first in numbers.step_by(AT_A_TIME) {
            let users = (first..first + AT_A_TIME).map(|number| user(&secret, number));
            crowd.live(&users.collect::<Vec<_>>(), &peer);
        }
        (pages.metrics(), held())
    };
    let (before, early) = come(0..EARLY);
    let (after, late) = come(EARLY..NEAR);
    assert_eq!(before.series(), after.series());
    check_counts(&after, NEAR as u64);
    let deleted = after.sum("turn_allocations_ended_total", "=\"deleted\"");
    assert_eq!(deleted, NEAR as u64);
    let failed = after.sum("turn_auth_failures_total", "=\"integrity\"");
    assert_eq!(failed, NEAR as u64);
    check_memory((early, EARLY), (late, NEAR), &after);
}

/// What is held after so many have come and gone is what was held after so many fewer.
fn check_memory((early, before): (usize, usize), (late, after): (usize, usize), page: &Page) {
    let series = page.series().len();
    eprintln!("{series} series; {early} bytes held after {before} users, {late} after {after}");
    let kept = late.saturating_sub(early);
    assert!(kept < KEPT, "{kept} bytes are kept of those who have gone");
}

/// So many have come, and each has done what there is to do.
fn check_counts(page: &Page, users: u64) {
    for (name, label, count) in [
        ("turn_allocations_total", "=\"granted\"", users),
        ("turn_relayed_packets_total", "=\"to_peer\"", users),
        ("turn_allocations", "", 0),
        ("turn_permissions", "", 0),
    ] {
        assert_eq!(page.sum(name, label), count, "{name} {label}");
    }
}

/// Tenants that the configuration knows.
const CONFIGURED: usize = 2_000;
/// Users of the token service, each the only one of its tenant, half of whom are configured.
const ISSUED: usize = 2 * CONFIGURED;

#[test]
fn a36_neither_configured_tenants_nor_users_of_the_token_service_make_series() {
    let _alone = alone();
    let (plain, _) = daemon(0);
    let (daemon, token) = daemon(CONFIGURED);
    let peer = peer("127.0.0.2");
    let mut crowd = Crowd::at(NOBODY, daemon.udp, AT_A_TIME);
    let mut issuer = Issuer::at(token);
    let mut come = |numbers: Range<usize>| {
        for first in numbers.step_by(AT_A_TIME) {
            let users: Vec<_> = (first..first + AT_A_TIME)
                .map(|user| issuer.issue(user))
                .collect();
            crowd.live(&users, &peer);
        }
    };
    come(0..AT_A_TIME);
    let (before, early) = (page(&daemon), daemon.metric(RESIDENT));
    come(AT_A_TIME..ISSUED);
    let (after, late) = (page(&daemon), daemon.metric(RESIDENT));
    issuer.refused();

    assert_eq!(before.series(), after.series());
    assert_eq!(page(&plain).series(), page(&daemon).series());
    check_counts(&after, ISSUED as u64);
    let failed = after.sum("turn_auth_failures_total", "=\"integrity\"");
    assert_eq!(failed, ISSUED as u64);
    let issued = after.sum("turn_tokens_issued_total", "=\"native\"");
    assert_eq!(issued, ISSUED as u64);
    let grown = late - early;
    eprintln!(
        "{} series; {early} bytes resident with {CONFIGURED} tenants, {grown} more after {ISSUED} users",
        after.series().len()
    );
    assert!(grown < 16e6, "{grown} bytes");
}

const RESIDENT: &str = "process_resident_memory_bytes";

fn page(daemon: &Daemon) -> Page {
    Page::at(daemon.metrics).expect("the workers answer in time")
}

/// What the login service signs tokens with.
const SHARED: &str = "MARKER-shared-key-of-the-login-service";

/// A server with so many tenants and a token service.
fn daemon(tenants: usize) -> (Daemon, SocketAddr) {
    let start = Start::with("");
    let token = free_address();
    start.place.write("shared", SHARED);
    let (udp, metrics) = (start.udp, start.metrics);
    let mut text = format!(
        "server = {{ workers = 2 }}\n\
         relay = {{ addresses = ['127.0.0.1'], ports = '41000-41999' }}\n\
         metrics = {{ listen = '{metrics}' }}\n\
         peers = {{ allow = ['127.0.0.0/8'] }}\n\
         limits = {{ unauthenticated_replies = 0 }}\n\
         [auth]\n\
         secrets = [{{ id = 'main', file = 'secret', claims = true }}]\n\
         [[listen]]\naddress = '{udp}'\n\
         [token]\n\
         listen = ['http://{token}']\n\
         per_source = 0\n\
         issuers = [{{ issuer = 'https://login.test', audience = 'turn', algorithms = ['HS256'], keys = 'shared', tenant_claim = 'tid', scopes = ['voip'] }}]\n"
    );
    for tenant in 0..tenants {
        text += &format!(
            "[[tenants]]\nname = 'tenant{tenant}'\ntotal = 100\nbandwidth_total = '100M'\n"
        );
    }
    start.place.write("turnd.toml", &text);
    (start.ready(), token)
}

/// Asks the token service for credentials, over one connection.
struct Issuer {
    stream: TcpStream,
    key: EncodingKey,
}

impl Issuer {
    fn at(token: SocketAddr) -> Self {
        let stream = TcpStream::connect(token).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let key = EncodingKey::from_secret(SHARED.as_bytes());
        Self { stream, key }
    }

    /// A credential of this user.
    fn issue(&mut self, user: usize) -> Credential {
        let claims = json!({
            "iss": "https://login.test", "aud": "turn", "scope": "voip", "exp": EXPIRY,
            "sub": format!("user{user}"), "tid": format!("tenant{user}"),
        });
        let token = encode(&Header::new(Algorithm::HS256), &claims, &self.key).unwrap();
        let reply = self.ask(&token).expect(201);
        let server = reply["iceServers"].as_array().unwrap().last().unwrap();
        let text = |name: &str| server[name].as_str().unwrap().to_owned();
        Credential {
            name: text("username"),
            password: text("credential"),
        }
    }

    /// Is refused.
    fn refused(&mut self) {
        let reply = self.ask("nonsense");
        reply.expect(401);
        let schemes = reply.header("www-authenticate").unwrap();
        assert!(schemes.starts_with("Bearer"), "{schemes}");
    }

    fn ask(&mut self, token: &str) -> http::Reply {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str())];
        let request = http::request("POST", "/v1/relay/credentials", &headers, b"");
        http::exchange(&mut self.stream, &request)
    }
}
