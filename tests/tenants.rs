//! Tenants: whose users judge whom, whose limits count, and that none of them reaches into another.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod support;

use support::*;
use turnd::stun::Method;
use turnd::turn::{
    Client, Door, Limit, Path, Refusal, SecretAlgorithm, Settings, SharedSecret, Tenant, Tenants,
    Transport, Users,
};

const ACME_DOOR: &str = "203.0.113.1:3479";
const ACME_HOST: &str = "turn.acme.example";

fn secret(id: &str) -> SharedSecret {
    SharedSecret::new(id, id.as_bytes(), SecretAlgorithm::Sha1).with_claims()
}

/// The tenants acme and other, each with a realm, a secret and a user bob; and what is everybody's, with the secret
/// `north`. Acme has a listener and a host.
fn base(settings: &mut Settings, change: impl Fn(&mut [Tenant; 2])) {
    settings.users = Users::new("turnd");
    settings.users.add_user("bob", "bob-pw");
    settings.users.add_secret(north().with_claims()).unwrap();
    let tenant = |name: &str| {
        let mut users = Users::new(&format!("{name}.example"));
        users.add_user("bob", &format!("bob-{name}"));
        users.add_secret(secret(name)).unwrap();
        Tenant {
            name: name.into(),
            users,
            limits: settings.limits,
            peers: None,
            server_names: Vec::new(),
        }
    };
    let mut both = [tenant("acme"), tenant("other")];
    both[0].server_names = vec![ACME_HOST.to_owned(), "*.acme.test".to_owned()];
    change(&mut both);
    let doors = [
        (SERVER_V4, None),
        ("0.0.0.0:3479", Some(0)),
        ("203.0.113.2:3479", None),
    ];
    let doors = doors.map(|(at, tenant)| Door {
        transport: Transport::Udp,
        address: address(at),
        tenant,
    });
    settings.tenants = Tenants::new(both.into(), doors.into());
}

fn machine() -> Turn {
    Turn::with(|settings| base(settings, |_| {}))
}

/// A client's way to a server's address.
fn way(place: usize, server: &str) -> Client {
    let mut client = udp(&format!("198.51.100.{}:1000", place + 1));
    client.five_tuple.server = address(server);
    client
}

/// Who has a credential that this secret vouches for.
fn issued(secret: &SharedSecret, rest: &str, client: Client, realm: &str) -> User {
    let name = format!("{}:{rest}", UNIX + 3600);
    let password = secret.password(name.as_bytes());
    User {
        realm: realm.into(),
        ..User::new(&name, &password, client)
    }
}

fn at_acme(place: usize, secret: &SharedSecret, rest: &str) -> User {
    issued(secret, rest, way(place, ACME_DOOR), "acme.example")
}

fn at_front(place: usize, secret: &SharedSecret, rest: &str) -> User {
    issued(secret, rest, way(place, SERVER_V4), "turnd")
}

fn outcome(turn: &mut Turn, mut user: User) -> (u16, Option<Refusal>) {
    user.greet(turn);
    let answer = user.allocate(turn);
    (answer.code(), answer.told.refusal)
}

/// The tenant that each session counts for.
fn tenants(turn: &Turn) -> Vec<Option<String>> {
    let sessions = turn.server.sessions(turn.now, 0, usize::MAX, |_| true);
    let names = sessions.found.into_iter().map(|session| session.tenant);
    names.map(|name| name.map(String::from)).collect()
}

const GOOD: (u16, Option<Refusal>) = (0, None);
const CLAIMS: (u16, Option<Refusal>) = (401, Some(Refusal::Claims));
const INTEGRITY: (u16, Option<Refusal>) = (401, Some(Refusal::Integrity));

#[test]
fn a_tenants_door_has_its_realm_and_its_users() {
    let mut turn = machine();
    for (server, realm, password) in [
        (ACME_DOOR, "acme.example", "bob-acme"),
        (SERVER_V4, "turnd", "bob-pw"),
        // The listener at exactly this address is nobody's.
        ("203.0.113.2:3479", "turnd", "bob-pw"),
    ] {
        let client = way(0, server);
        let bob = |password: &str| User {
            realm: realm.into(),
            ..User::new("bob", password, client)
        };
        let answer = bob(password).greet(&mut turn);
        assert_eq!(answer.message().realm().unwrap().unwrap(), realm.as_bytes());
        for wrong in ["bob-acme", "bob-pw", "bob-other"] {
            if wrong != password {
                assert_eq!(outcome(&mut turn, bob(wrong)), INTEGRITY, "{server}");
            }
        }
        assert_eq!(outcome(&mut turn, bob(password)), GOOD, "{server}");
    }
    assert_eq!(tenants(&turn), [Some("acme".to_owned()), None, None]);
}

#[test]
fn a_secret_speaks_for_its_tenant_and_for_no_other() {
    let mut turn = machine();
    let (acme, other, north) = (secret("acme"), secret("other"), north().with_claims());
    let acme_user = Some("acme".to_owned());
    let cases = [
        // At everybody's door: whoever's secret the credential names.
        (at_front(0, &acme, "acme~acme~ann"), GOOD, acme_user.clone()),
        (at_front(1, &acme, "acme~~ann"), GOOD, acme_user.clone()),
        (at_front(2, &acme, "acme~other~ann"), CLAIMS, None),
        (at_front(3, &acme, "acme~nobody~ann"), CLAIMS, None),
        // The operator's own vouch for any name, known or not.
        (
            at_front(4, &north, "north~acme~ann"),
            GOOD,
            acme_user.clone(),
        ),
        (
            at_front(5, &north, "north~whoever~ann"),
            GOOD,
            Some("whoever".to_owned()),
        ),
        (at_front(6, &north, "north~~ann"), GOOD, None),
        // At the tenant's: its own, and the operator's in its name.
        (at_acme(7, &acme, "acme~acme~ann"), GOOD, acme_user.clone()),
        (at_acme(8, &acme, "acme~~ann"), GOOD, acme_user.clone()),
        (at_acme(9, &acme, "ann"), GOOD, acme_user.clone()),
        (at_acme(10, &north, "north~acme~ann"), GOOD, acme_user),
        (at_acme(11, &north, "north~~ann"), CLAIMS, None),
        (at_acme(12, &north, "north~other~ann"), CLAIMS, None),
        (at_acme(13, &north, "ann"), INTEGRITY, None),
        (at_acme(14, &acme, "acme~other~ann"), CLAIMS, None),
        (at_acme(15, &other, "other~other~ann"), INTEGRITY, None),
        (at_acme(16, &other, "other~acme~ann"), INTEGRITY, None),
        // Who signs with another secret than the name says is nobody, whatever it says.
        (at_front(17, &other, "acme~acme~ann"), INTEGRITY, None),
        (at_front(18, &north, "acme~acme~ann"), INTEGRITY, None),
        (at_front(19, &acme, "north~acme~ann"), INTEGRITY, None),
        (at_front(20, &acme, "ann"), INTEGRITY, None),
        // What has the operator's secret in it and no tenant is no tenant's.
        (at_acme(21, &north, "north~ann"), CLAIMS, None),
        (at_acme(22, &north, "north~"), CLAIMS, None),
        (at_front(23, &north, "north~ann"), GOOD, None),
    ];
    let mut expected = Vec::new();
    for (number, (user, wanted, tenant)) in cases.into_iter().enumerate() {
        let name = String::from_utf8(user.name.clone()).unwrap();
        assert_eq!(outcome(&mut turn, user), wanted, "{number}: {name}");
        expected.extend((wanted == GOOD).then_some(tenant));
    }
    assert_eq!(tenants(&turn), expected);
}

/// An operator who changes a secret waits until the old one is used no more, by whichever door.
#[test]
fn the_operators_secret_is_counted_at_the_doors_of_tenants_too() {
    let mut turn = machine();
    let (acme, north) = (secret("acme"), north().with_claims());
    for (user, count) in [
        (at_front(0, &north, "north~acme~ann"), 1),
        (at_acme(1, &north, "north~acme~ann"), 2),
        (at_acme(2, &acme, "acme~~ann"), 2),
        (at_acme(3, &acme, "ann"), 2),
        (at_front(4, &acme, "acme~~ann"), 2),
    ] {
        assert_eq!(outcome(&mut turn, user), GOOD);
        let uses: Vec<_> = turn.server.secret_uses().collect();
        assert_eq!(uses, [("north", count)]);
    }
}

#[test]
fn the_same_name_is_another_person_with_another_tenant() {
    let mut turn = Turn::with(|settings| {
        settings.limits.per_user = 1;
        base(settings, |_| {});
    });
    let (acme, other, north) = (secret("acme"), secret("other"), north().with_claims());
    let full = (486, None);
    assert_eq!(outcome(&mut turn, at_front(0, &acme, "acme~~ann")), GOOD);
    // However it is vouched for, and by whichever door.
    assert_eq!(
        outcome(&mut turn, at_front(1, &acme, "acme~acme~ann~j2")),
        full
    );
    assert_eq!(outcome(&mut turn, at_acme(2, &acme, "acme~~ann~j3")), full);
    assert_eq!(
        outcome(&mut turn, at_front(3, &north, "north~acme~ann")),
        full
    );
    assert_eq!(outcome(&mut turn, at_acme(4, &acme, "ann")), full);
    assert_eq!(outcome(&mut turn, at_front(5, &other, "other~~ann")), GOOD);
    assert_eq!(outcome(&mut turn, at_front(6, &north, "north~~ann")), GOOD);
    assert_eq!(outcome(&mut turn, at_front(7, &north, "north~x~ann")), GOOD);
    assert_eq!(turn.quotas.rejected()[Limit::User.index()], 4);
    // Names that had to be escaped are the same as where they had not.
    let escaped = at_front(8, &north, "north~~8_3aann");
    assert_eq!(outcome(&mut turn, escaped), GOOD);
    assert_eq!(outcome(&mut turn, at_front(9, &north, "8:ann")), full);
}

#[test]
fn a_tenant_has_limits_of_its_own_and_others_have_the_default() {
    let mut turn = Turn::with(|settings| {
        settings.limits.per_tenant = 2;
        settings.limits.per_user = 3;
        base(settings, |[acme, _]| {
            acme.limits.per_tenant = 5;
            acme.limits.per_user = 4;
        });
    });
    let (acme, north) = (secret("acme"), north().with_claims());
    let codes = |turn: &mut Turn, from: usize, secret: &SharedSecret, rest: &str| {
        let codes = (0..6).map(|place| outcome(turn, at_front(from + place, secret, rest)).0);
        codes.collect::<Vec<_>>()
    };
    assert_eq!(
        codes(&mut turn, 0, &acme, "acme~~ann"),
        [0, 0, 0, 0, 486, 486]
    );
    assert_eq!(
        codes(&mut turn, 10, &acme, "acme~~bob"),
        [0, 486, 486, 486, 486, 486]
    );
    assert_eq!(
        codes(&mut turn, 20, &north, "north~x~ann"),
        [0, 0, 486, 486, 486, 486]
    );
    assert_eq!(
        codes(&mut turn, 30, &north, "north~~ann"),
        [0, 0, 0, 486, 486, 486]
    );
    let rejected = turn.quotas.rejected();
    assert_eq!(rejected[Limit::Tenant.index()], 5 + 4);
    assert_eq!(rejected[Limit::User.index()], 2 + 3);
}

#[test]
fn what_is_closed_to_a_tenant_no_credential_opens() {
    let mut turn = Turn::with(|settings| {
        settings
            .policies
            .insert("lan".into(), peers(&["10.0.0.0/8"], &[]));
        base(settings, |[acme, _]| {
            acme.peers = Some(peers(&["10.1.0.0/16"], &["52.0.0.0/8"]))
        });
    });
    let (acme, other, north) = (secret("acme"), secret("other"), north().with_claims());
    let mut reach = |place: usize, secret: &SharedSecret, rest: &str| {
        let mut user = at_front(place, secret, rest);
        assert_eq!(user.allocate(&mut turn).code(), 0, "{rest}");
        ["10.1.2.3:1", "10.2.2.3:1", "52.1.2.3:1", "54.1.2.3:1"]
            .map(|peer| user.permit(&mut turn, &[peer]) == 0)
    };
    assert_eq!(reach(0, &acme, "acme~~ann"), [true, false, false, true]);
    assert_eq!(
        reach(1, &acme, "acme~~ann~plan"),
        [true, false, false, true]
    );
    assert_eq!(
        reach(2, &north, "north~acme~ann~plan"),
        [true, false, false, true]
    );
    // A tenant cannot let its users into the operator's network by a policy made for others.
    assert_eq!(
        reach(3, &other, "other~~ann~plan"),
        [false, false, true, true]
    );
    assert_eq!(
        reach(4, &north, "north~other~ann~plan"),
        [true, true, true, true]
    );
}

#[test]
fn the_host_that_is_asked_for_is_a_door() {
    let mut turn = machine();
    let at = |path: u32| {
        let mut client = client("198.51.100.1:1000", Transport::Tls);
        client.path = Path(path);
        client
    };
    let realm = |turn: &mut Turn, client: Client| {
        let answer = User::new("bob", "", client).greet(turn);
        String::from_utf8(answer.message().realm().unwrap().unwrap().to_vec()).unwrap()
    };
    for (path, host, wanted) in [
        (1, ACME_HOST, "acme.example"),
        (2, "TURN.Acme.Example", "acme.example"),
        (3, "any.acme.test", "acme.example"),
        (4, "one.more.acme.test", "turnd"),
        (5, "acme.test", "turnd"),
        (6, "turn.example", "turnd"),
    ] {
        turn.server.client_came(at(path), host);
        assert_eq!(realm(&mut turn, at(path)), wanted, "{host}");
    }
    let client = at(1);
    let mut bob = User {
        realm: "acme.example".into(),
        ..User::new("bob", "bob-acme", client)
    };
    assert_eq!(bob.allocate(&mut turn).code(), 0);
    assert_eq!(tenants(&turn), [Some("acme".to_owned())]);
    // The next connection on this path is somebody else's.
    turn.server.client_gone(turn.now, client, &mut turn.relays);
    assert_eq!(turn.server.door_of(client), None);
    assert_eq!(realm(&mut turn, client), "turnd");
    // Without tenants no host is one's.
    turn.server.client_came(client, ACME_HOST);
    turn.reload(|_| {});
    assert_eq!(realm(&mut turn, client), "turnd");
}

/// The user of one tenant is not that of another with the same name, also where it comes to the same allocation: by a
/// ticket of it, or with its five-tuple.
#[test]
fn a_ticket_is_of_no_use_to_the_namesake_of_another_tenant() {
    let mut turn = Turn::with(|settings| {
        settings.mobility = true;
        base(settings, |_| {});
    });
    let mut bob = User {
        realm: "acme.example".into(),
        ..User::new("bob", "bob-acme", way(0, ACME_DOOR))
    };
    let answer = bob.allocate_with(&mut turn, |writer| {
        writer.bytes(turnd::stun::Attribute::MOBILITY_TICKET, &[]);
    });
    let ticket = answer
        .message()
        .mobility_ticket()
        .unwrap()
        .unwrap()
        .to_vec();
    let mut refresh = |user: &mut User| {
        let answer = user.ask(&mut turn, Method::REFRESH, |writer| {
            writer.bytes(turnd::stun::Attribute::MOBILITY_TICKET, &ticket);
        });
        answer.code()
    };
    let mut namesake = User::new("bob", "bob-pw", way(1, SERVER_V4));
    assert_eq!(refresh(&mut namesake), 441);
    // He himself comes back by the door that he came by.
    assert_eq!(refresh(&mut bob.at(way(2, SERVER_V4))), 401);
    assert_eq!(refresh(&mut bob.at(way(3, ACME_DOOR))), 0);
}

#[test]
fn tenants_come_and_go_with_the_settings() {
    let mut turn = machine();
    let acme = secret("acme");
    let mut ann = at_front(0, &acme, "acme~~ann~b80k");
    assert_eq!(ann.allocate(&mut turn).code(), 0);
    assert_eq!(ann.permit(&mut turn, &[PEER]), 0);
    turn.reload(|settings| {
        base(settings, |[acme, _]| {
            acme.users = Users::new("acme.example")
        })
    });
    // Its secret is gone: what runs goes on until it wants to be prolonged.
    assert_eq!(ann.send(&mut turn, PEER, b"x"), Ok(()));
    assert_eq!(ann.refresh(&mut turn, Some(600)).code(), 401);
    turn.reload(|settings| base(settings, |_| {}));
    assert_eq!(ann.refresh(&mut turn, Some(600)).code(), 0);
}

/// A hundred thousand of them need nothing to be known of.
#[test]
fn any_name_is_a_tenant_if_the_operators_secret_says_so() {
    let mut turn = Turn::with(|settings| {
        settings.limits.per_tenant = 1;
        settings.limits.per_client = u32::MAX;
        settings.limits.unauthenticated_replies = 0;
        base(settings, |_| {});
    });
    let north = north().with_claims();
    let mut user = at_front(0, &north, "north~t0~ann");
    user.greet(&mut turn);
    let nonce = user.nonce;
    for number in 0..2000 {
        for wanted in [0, 486] {
            let mut client = way(0, SERVER_V4);
            client
                .five_tuple
                .client
                .set_port(1000 + 2 * number + u16::from(wanted == 0));
            let mut user = issued(
                &north,
                &format!("north~t{number}~ann{wanted}"),
                client,
                "turnd",
            );
            user.nonce.clone_from(&nonce);
            user.client = client;
            assert_eq!(user.allocate(&mut turn).code(), wanted, "{number}");
        }
    }
}
