//! The machine, in virtual time.

use std::sync::Arc;
use std::time::Duration;

use turnd::stun::{Attribute, Method};
use turnd::turn::{
    EndReason, Event, Holder, Refusal, Revocations, Revoked, TcpRelay, Term, Transport,
};

use crate::support::*;

/// How long any credential is good.
pub(crate) const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// A machine with the users ann and bob, and a secret that vouches for claims.
pub(crate) fn machine() -> Turn {
    Turn::with(|settings| {
        let mut users = turnd::turn::Users::new("turnd");
        users.add_user("ann", "ann-pw");
        users.add_user("bob", "bob-pw");
        users.add_secret(north().with_claims()).unwrap();
        users
            .add_secret(turnd::turn::SharedSecret::new(
                "plain",
                b"plain",
                turnd::turn::SecretAlgorithm::Sha1,
            ))
            .unwrap();
        settings.users = users;
        settings.tcp_relay = Some(TcpRelay::default());
    })
}

/// A user whose credential has this name, at a place of its own.
pub(crate) fn named(place: usize, name: &str) -> User {
    let from = format!("198.51.100.{}:{}", place % 200 + 1, 1000 + place);
    let password = match name {
        "ann" | "bob" => format!("{name}-pw"),
        name if name.contains('~') => north().password(name.as_bytes()).to_string(),
        name => {
            let plain = turnd::turn::SharedSecret::new(
                "plain",
                b"plain",
                turnd::turn::SecretAlgorithm::Sha1,
            );
            plain.password(name.as_bytes()).to_string()
        }
    };
    User::new(name, &password, udp(&from))
}

pub(crate) fn revoke(turn: &mut Turn, revoked: Revoked, not_before: u64, until: u64) {
    let term = Term { not_before, until };
    let revocations = Revocations::new(LONGEST, [(revoked, term)]);
    turn.server.replace_revocations(Arc::new(revocations));
}

pub(crate) fn credential(tenant: &str, id: &str) -> Revoked {
    Revoked::Credential {
        tenant: tenant.into(),
        id: id.into(),
    }
}

pub(crate) fn user(tenant: &str, user: &str) -> Revoked {
    Revoked::User {
        tenant: tenant.into(),
        user: user.into(),
    }
}

/// Ends what is covered, as the operator's side does once the machine knows of it.
fn cut(turn: &mut Turn, revoked: Revoked, not_before: u64) -> usize {
    let until = u64::MAX;
    let only = Revocations::new(LONGEST, [(revoked, Term { not_before, until })]);
    let unix = turn.now.unix;
    let which = |holder: &Holder<'_>| only.cover(holder, unix);
    turn.server
        .end_sessions(turn.now, EndReason::Revoked, which, &mut turn.relays)
}

/// Credentials of all kinds, issued a minute ago for an hour where they say so.
fn crowd() -> Vec<String> {
    let expiry = UNIX + 3540;
    [
        "north~acme~ann~t3600~jone",
        "north~acme~ann~t3600~jtwo",
        "north~acme~bob~t3600~jthree",
        "north~acme~8_3aann~t3600",
        "north~other~ann~t3600~jone",
        "north~~ann~t3600~jone",
        "ann",
        "acme~ann",
    ]
    .iter()
    .map(|rest| format!("{expiry}:{rest}"))
    .chain(["ann".to_owned(), "bob".to_owned()])
    .collect()
}

/// Who of the crowd is reached by what.
fn rows() -> Vec<(Revoked, Vec<usize>)> {
    vec![
        (credential("acme", "one"), vec![0]),
        (credential("", "one"), vec![5]),
        (credential("acme", "four"), vec![]),
        (credential("", "two"), vec![]),
        (user("acme", "ann"), vec![0, 1]),
        (user("acme", "8:ann"), vec![3]),
        (user("acme", "8_3aann"), vec![]),
        // Of no tenant: in the names that know of tenants, and in those that do not.
        (user("", "ann"), vec![5, 6, 8]),
        // The word before the first ~ is no secret's, so it is a part of the name.
        (user("", "acme~ann"), vec![7]),
        (Revoked::Tenant("acme".into()), vec![0, 1, 2, 3]),
        (Revoked::Tenant("other".into()), vec![4]),
        (Revoked::Tenant("ann".into()), vec![]),
        (Revoked::Name(crowd()[0].as_str().into()), vec![0]),
        (Revoked::Name(crowd()[6].as_str().into()), vec![6]),
        (Revoked::Name("bob".into()), vec![9]),
        (Revoked::Name("ann~".into()), vec![]),
    ]
}

#[test]
fn what_is_revoked_is_refused_and_nothing_else() {
    for (revoked, reached) in rows() {
        let mut turn = machine();
        revoke(&mut turn, revoked.clone(), UNIX, UNIX + 86_400);
        for (place, name) in crowd().iter().enumerate() {
            let answer = named(place, name).allocate(&mut turn);
            let refusal = reached.contains(&place).then_some(Refusal::Revoked);
            let code = if refusal.is_some() { 401 } else { 0 };
            assert_eq!(
                (answer.code(), answer.told.refusal),
                (code, refusal),
                "{name} by {revoked:?}"
            );
            assert_eq!(answer.told.authenticated, refusal.is_none());
        }
        let alive = crowd().len() - reached.len();
        assert_eq!(turn.quotas.total() as usize, alive);
    }
}

#[test]
fn the_calls_of_what_is_revoked_end_and_no_others() {
    for (revoked, reached) in rows() {
        let mut turn = machine();
        let mut users: Vec<User> = crowd()
            .iter()
            .enumerate()
            .map(|(place, name)| named(place, name))
            .collect();
        for user in &mut users {
            assert_eq!(user.allocate(&mut turn).code(), 0);
        }
        turn.events();
        assert_eq!(cut(&mut turn, revoked.clone(), UNIX), reached.len());
        let mut ended = Vec::new();
        for event in turn.events() {
            if let Event::Released(end) = event {
                ended.push((end.username, end.reason));
            }
        }
        let expected: Vec<_> = reached
            .iter()
            .map(|place| {
                let name: Box<[u8]> = crowd()[*place].as_bytes().into();
                (name, EndReason::Revoked)
            })
            .collect();
        assert_eq!(ended, expected, "{revoked:?}");
        for user in &mut users {
            let gone = expected.iter().any(|(name, _)| **name == user.name);
            assert_eq!(
                user.permit(&mut turn, &[PEER]),
                if gone { 437 } else { 0 },
                "{revoked:?}"
            );
        }
    }
}

#[test]
fn new_credentials_of_the_user_are_good_again() {
    let mut turn = machine();
    revoke(&mut turn, user("acme", "ann"), UNIX, UNIX + 86_400);
    let code = |turn: &mut Turn, place: usize, issued: u64, ttl: u64| {
        let name = format!("{}:north~acme~ann~t{ttl}", issued + ttl);
        named(place, &name).allocate(turn).code()
    };
    assert_eq!(code(&mut turn, 0, UNIX - 1, 3600), 401);
    assert_eq!(code(&mut turn, 1, UNIX - 1, 86_400), 401);
    assert_eq!(code(&mut turn, 2, UNIX, 60), 0);
    turn.wait(seconds(5));
    assert_eq!(code(&mut turn, 3, UNIX + 5, 3600), 0);
    assert_eq!(code(&mut turn, 4, UNIX - 1, 3600), 401);
}

/// No credential is good for longer than a day here, so one that ends in two days at the earliest was issued in one.
#[test]
fn a_credential_that_does_not_say_when_it_was_issued_counts_as_old() {
    let day = LONGEST.as_secs();
    for form in ["north~~ann~jx", "ann"] {
        let mut turn = machine();
        revoke(&mut turn, user("", "ann"), UNIX, UNIX + 2 * day);
        let code = |turn: &mut Turn, place, expiry: u64| {
            named(place, &format!("{expiry}:{form}"))
                .allocate(turn)
                .code()
        };
        assert_eq!(code(&mut turn, 0, UNIX + 60), 401, "{form}");
        assert_eq!(code(&mut turn, 1, UNIX + day - 1), 401, "{form}");
        assert_eq!(code(&mut turn, 2, UNIX + day), 0, "{form}");
        // Longer than any credential is good: what it says of time is worth nothing.
        assert_eq!(code(&mut turn, 3, UNIX + day + 1), 401, "{form}");
        turn.wait(seconds(day / 2));
        assert_eq!(code(&mut turn, 4, UNIX + day - 1), 401, "{form}");
        assert_eq!(code(&mut turn, 5, UNIX + day + day / 2), 0, "{form}");
    }
}

#[test]
fn a_revocation_is_forgotten_when_its_time_is_up() {
    let mut turn = machine();
    revoke(&mut turn, user("", "ann"), u64::MAX, UNIX + 100);
    assert_eq!(ann().allocate(&mut turn).code(), 401);
    turn.wait(seconds(99));
    assert_eq!(ann().allocate(&mut turn).code(), 401);
    turn.wait(seconds(1));
    assert_eq!(ann().allocate(&mut turn).code(), 0);
}

/// A call that is to go on goes on until its lifetime is up: what it has it may renew, but neither that lifetime nor
/// what it did not have.
#[test]
fn a_call_that_is_kept_ends_with_its_lifetime() {
    let mut turn = machine();
    let mut ann = ann();
    ann.client = client("198.51.100.1:1000", Transport::Tcp);
    assert_eq!(ann.allocate(&mut turn).code(), 0);
    assert_eq!(ann.bind(&mut turn, 0x4000, PEER), 0);
    revoke(&mut turn, user("", "ann"), UNIX, UNIX + 86_400);
    turn.wait(seconds(290));
    assert_eq!(ann.permit(&mut turn, &[PEER]), 0);
    assert_eq!(ann.bind(&mut turn, 0x4000, PEER), 0);
    let refresh = ann.refresh(&mut turn, None);
    assert_eq!(
        (refresh.code(), refresh.told.refusal),
        (401, Some(Refusal::Revoked))
    );
    turn.wait(seconds(309));
    ann.channel(&mut turn, 0x4000, PEER, b"still here").unwrap();
    turn.wait(seconds(1));
    assert!(turn.server.is_empty());
}

#[test]
fn nobody_is_connected_with_what_is_revoked() {
    let mut turn = machine();
    let mut ann = ann();
    ann.client = client("198.51.100.1:1000", Transport::Tcp);
    let tcp = ann.ask(&mut turn, Method::ALLOCATE, |writer| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 6);
    });
    assert_eq!(tcp.code(), 0);
    revoke(&mut turn, user("", "ann"), UNIX, UNIX + 86_400);
    let connect = ann.ask(&mut turn, Method::CONNECT, |writer| {
        writer.xor_address(Attribute::XOR_PEER_ADDRESS, address(PEER));
    });
    let bind = ann.ask(&mut turn, Method::CONNECTION_BIND, |writer| {
        writer.u32(Attribute::CONNECTION_ID, 1);
    });
    assert_eq!((connect.code(), bind.code()), (401, 401));
}

/// Neither a ticket nor the request that made an allocation, once more, is a way around it.
#[test]
fn nobody_moves_or_asks_again_with_what_is_revoked() {
    let mut turn = Turn::with(|settings| settings.mobility = true);
    let mut ann = ann();
    ann.greet(&mut turn);
    let allocate = ann.signed(turn.id(), Method::ALLOCATE, |writer| {
        writer
            .u8(Attribute::REQUESTED_TRANSPORT, 17)
            .flag(Attribute::MOBILITY_TICKET);
    });
    let made = ann.ask_bytes(&mut turn, &allocate);
    let ticket = made.message().mobility_ticket().unwrap().unwrap().to_vec();
    revoke(&mut turn, user("", "ann"), UNIX, UNIX + 86_400);
    let again = ann.ask_bytes(&mut turn, &allocate);
    let mut elsewhere = ann.at(udp("192.0.2.7:7"));
    let moved = elsewhere.ask(&mut turn, Method::REFRESH, |writer| {
        writer.bytes(Attribute::MOBILITY_TICKET, &ticket);
    });
    for refused in [again, moved] {
        assert_eq!(refused.code(), 401);
        assert_eq!(refused.told.refusal, Some(Refusal::Revoked));
    }
}

#[test]
fn a_stranger_does_not_learn_what_is_revoked() {
    let mut turn = machine();
    revoke(&mut turn, user("", "ann"), UNIX, UNIX + 86_400);
    let mut stranger = User::new("ann", "a guess", udp("198.51.100.9:9"));
    let guess = stranger.allocate(&mut turn);
    let mut ann = ann();
    let refused = ann.allocate(&mut turn);
    assert_eq!(guess.told.refusal, Some(Refusal::Integrity));
    assert_eq!(refused.told.refusal, Some(Refusal::Revoked));
    // What is sent differs in the nonce alone.
    assert_eq!(guess.bytes.len(), refused.bytes.len());
    assert_eq!(guess.message().nonce(), Some(Ok(&*guess.nonce())));
    assert!(turn.server.is_empty() && turn.quotas.total() == 0);
}

/// Revoked while it is being made: either it is refused, or it is found.
#[test]
fn no_session_slips_through() {
    for before in [true, false] {
        let mut turn = machine();
        let mut ann = ann();
        ann.greet(&mut turn);
        let mut codes = Vec::new();
        if before {
            codes.push(ann.allocate(&mut turn).code());
        }
        revoke(&mut turn, user("", "ann"), UNIX + 1, UNIX + 86_400);
        if !before {
            codes.push(ann.allocate(&mut turn).code());
        }
        cut(&mut turn, user("", "ann"), UNIX + 1);
        assert_eq!(codes, [if before { 0 } else { 401 }]);
        assert!(turn.server.is_empty());
    }
}
