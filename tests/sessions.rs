//! Sessions: what an operator sees of allocations, and how they are ended from outside.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod support;

use std::sync::Arc;

use support::*;
use turnd::turn::{EndReason, Event, RelayProtocol, SharedSecret, Users};

/// A machine whose secret vouches for claims, and the names of two credentials of one person and one of another.
fn machine() -> (Turn, [User; 3]) {
    let mut users = Users::new("turnd");
    let secret = north().with_claims();
    users.add_secret(secret.clone()).unwrap();
    let turn = Turn::with(|settings| settings.users = users);
    let user = |place: usize, name: &str| issued(&secret, place, name);
    let users = [
        user(0, "north~acme~ann~t60~jone"),
        user(1, "north~acme~ann~t60~jtwo"),
        user(2, "north~other~ann"),
    ];
    (turn, users)
}

fn issued(secret: &SharedSecret, place: usize, rest: &str) -> User {
    let name = format!("{}:{rest}", UNIX + 3600);
    let password = secret.password(name.as_bytes());
    User::new(&name, &password, udp(&format!("198.51.100.{place}:1000")))
}

#[test]
fn a_session_tells_what_its_allocation_holds() {
    let (mut turn, [mut ann, ..]) = machine();
    assert_eq!(ann.allocate(&mut turn).code(), 0);
    assert_eq!(ann.permit(&mut turn, &["52.9.9.9:1"]), 0);
    assert_eq!(ann.bind(&mut turn, 0x4000, PEER), 0);
    ann.send(&mut turn, PEER, b"hello").unwrap();
    turn.wait(seconds(100));
    let sessions = turn.server.sessions(turn.now, 0, usize::MAX, |_| true);
    assert_eq!(sessions.next, None);
    let [session] = &sessions.found[..] else {
        panic!("{sessions:?}")
    };
    assert_eq!(&*session.person, b"acme~ann");
    assert_eq!(session.credentials_expire, Some(UNIX + 3600));
    assert_eq!(session.protocol, RelayProtocol::Udp);
    assert_eq!(session.relays.len(), 1);
    let peers: Vec<_> = session
        .permissions
        .iter()
        .map(|(peer, _)| peer.to_string())
        .collect();
    assert_eq!(peers, ["52.1.2.3", "52.9.9.9"]);
    assert_eq!(session.permissions[0].1, seconds(200));
    assert_eq!(session.channels, [(0x4000, address(PEER), seconds(500))]);
    assert_eq!((session.to_peer.packets, session.to_peer.bytes), (1, 5));
    assert_eq!((session.age, session.left), (seconds(100), seconds(500)));
    let announced = turn.events().into_iter().find_map(|event| match event {
        Event::Allocated(allocated) => Some(allocated.session),
        _ => None,
    });
    assert_eq!(announced, Some(session.id));
}

#[test]
fn sessions_are_ended_by_what_their_names_say() {
    let (mut turn, mut users) = machine();
    for user in &mut users {
        assert_eq!(user.allocate(&mut turn).code(), 0);
    }
    turn.events();
    let end = |turn: &mut Turn, which: &dyn Fn(&turnd::turn::Holder<'_>) -> bool| {
        turn.server
            .end_sessions(turn.now, EndReason::Revoked, which, &mut turn.relays)
    };
    let id_is = |id: &'static str| {
        move |holder: &turnd::turn::Holder<'_>| {
            holder
                .issued
                .as_ref()
                .is_some_and(|issued| issued.claims.id == Some(id))
        }
    };
    assert_eq!(end(&mut turn, &id_is("three")), 0);
    assert_eq!(end(&mut turn, &id_is("two")), 1);
    assert_eq!(turn.relays.open.len(), 2, "its relay is closed");
    let reasons: Vec<_> = turn
        .events()
        .into_iter()
        .map(|event| match event {
            Event::Released(ended) => ended.reason,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(reasons, [EndReason::Revoked]);
    assert_eq!(users[1].refresh(&mut turn, None).code(), 437);
    assert_eq!(users[0].refresh(&mut turn, None).code(), 0);
    assert_eq!(end(&mut turn, &|holder| holder.person == b"acme~ann"), 1);
    assert_eq!(end(&mut turn, &|_| true), 1);
    assert!(turn.server.is_empty());
    assert_eq!(turn.quotas.total(), 0);
}

#[test]
fn a_secret_without_claims_vouches_for_none() {
    let mut turn = Turn::new();
    let mut ann = issued(&north(), 0, "north~acme~ann~jone");
    assert_eq!(ann.allocate(&mut turn).code(), 0);
    let sessions = turn
        .server
        .sessions(turn.now, 0, 10, |holder| holder.issued.is_some());
    assert!(sessions.found.is_empty());
}

#[test]
fn claims_that_cannot_be_kept_open_nothing() {
    let mut users = Users::new("turnd");
    let secret = north().with_claims();
    users.add_secret(secret.clone()).unwrap();
    let mut turn = Turn::with(|settings| settings.users = users);
    for claims in ["~x1", "~a1~a2", "~t", "~"] {
        let mut ann = issued(&secret, 0, &format!("north~acme~ann{claims}"));
        assert_eq!(ann.allocate(&mut turn).code(), 401, "{claims}");
    }
    let mut ann = issued(&secret, 0, "north~acme~ann~a1");
    assert_eq!(ann.allocate(&mut turn).code(), 0);
}

#[test]
fn many_sessions_are_looked_at_page_by_page() {
    let mut turn = Turn::with(|settings| {
        settings.limits.per_user = 1000;
        settings.limits.per_client = 1000;
    });
    let secret = Arc::new(north());
    for number in 0..100 {
        let mut user = issued(&secret, number, "ann");
        assert_eq!(user.allocate(&mut turn).code(), 0);
    }
    let (mut place, mut found) = (Some(0), Vec::new());
    while let Some(from) = place {
        let page = turn.server.sessions(turn.now, from, 7, |_| true);
        assert!(page.found.len() <= 7);
        found.extend(page.found.into_iter().map(|session| session.id));
        place = page.next;
    }
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), 100);
}
