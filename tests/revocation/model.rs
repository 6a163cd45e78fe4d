//! The look-up against the plainest reading of the rules.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use turnd::turn::{Issued, Refusal, Revocations, Revoked, Term, unescape};

use crate::machine::{LONGEST, machine, named};
use crate::support::UNIX;

/// What is revoked, and when, and what it is asked of.
fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["ann", "bob", "acme", "a.b", "x_3ay", "one"]).prop_map(str::to_owned)
}

fn tenant() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), word()]
}

fn name() -> impl Strategy<Value = String> {
    let expiry = || (UNIX + 1..UNIX + 200_000).prop_map(|expiry| expiry.to_string());
    let claims = (prop::option::of(1..200_000_u64), prop::option::of(word()));
    prop_oneof![
        Just("ann".to_owned()),
        (expiry(), word()).prop_map(|(expiry, user)| format!("{expiry}:{user}")),
        (expiry(), tenant(), word(), claims).prop_map(|(expiry, tenant, user, (ttl, id))| {
            let ttl = ttl.map_or_else(String::new, |ttl| format!("~t{ttl}"));
            let id = id.map_or_else(String::new, |id| format!("~j{id}"));
            format!("{expiry}:north~{tenant}~{user}{ttl}{id}")
        }),
    ]
}

fn revoked() -> impl Strategy<Value = Revoked> {
    prop_oneof![
        (tenant(), word()).prop_map(|(tenant, id)| Revoked::Credential {
            tenant: tenant.into(),
            id: id.into()
        }),
        (tenant(), word()).prop_map(|(tenant, user)| Revoked::User {
            tenant: tenant.into(),
            user: user.into()
        }),
        word().prop_map(|tenant| Revoked::Tenant(tenant.into())),
        name().prop_map(|name| Revoked::Name(name.into())),
    ]
}

fn term() -> impl Strategy<Value = Term> {
    let span = UNIX - 200_000..UNIX + 200_000;
    (span.clone(), span).prop_map(|(not_before, until)| Term { not_before, until })
}

/// The rules, one after the other, over a list.
fn is_revoked(name: &str, list: &[(Revoked, Term)]) -> bool {
    let issued = name
        .contains('~')
        .then(|| Issued::parse(name.as_bytes()).unwrap().unwrap());
    let expiry: Option<u64> = name
        .split_once(':')
        .map(|(digits, _)| digits.parse().unwrap());
    let longest = LONGEST.as_secs();
    let issued_at = match (issued.as_ref().and_then(Issued::issued_at), expiry) {
        (Some(at), _) => at,
        (None, Some(expiry)) if expiry <= UNIX + longest => expiry - longest,
        (None, _) => 0,
    };
    list.iter().any(|(revoked, term)| {
        let is_meant = match (revoked, &issued) {
            (Revoked::Name(one), _) => **one == *name,
            (Revoked::Credential { tenant, id }, Some(issued)) => {
                **tenant == *issued.tenant && issued.claims.id == Some(id)
            }
            (Revoked::User { tenant, user }, Some(issued)) => {
                **tenant == *issued.tenant && **user == *unescape(issued.subject)
            }
            (Revoked::Tenant(tenant), Some(issued)) => **tenant == *issued.tenant,
            (Revoked::User { tenant, user }, None) => {
                let person = name.split_once(':').map_or(name, |(_, person)| person);
                tenant.is_empty() && **user == *person
            }
            (Revoked::Credential { .. } | Revoked::Tenant(_), None) => false,
        };
        is_meant && issued_at < term.not_before && UNIX < term.until
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn look_ups_find_what_the_rules_say(
        given in prop::collection::vec((revoked(), term()), 0..12),
        later in 0..12_usize,
        names in prop::collection::vec(name(), 1..6),
    ) {
        // The last word about somebody counts.
        let mut list: Vec<(Revoked, Term)> = Vec::new();
        for (revoked, term) in &given {
            list.retain(|(other, _)| other != revoked);
            list.push((revoked.clone(), *term));
        }
        let later = later.min(given.len());
        let (first, rest) = given.split_at(later);
        let mut revocations = Revocations::new(LONGEST, first.iter().cloned());
        for (revoked, term) in rest {
            revocations = revocations.with([(revoked.clone(), Some(*term))]);
        }
        prop_assert_eq!(revocations.len(), list.len());
        let mut turn = machine();
        turn.server.replace_revocations(Arc::new(revocations));
        for (place, name) in names.iter().enumerate() {
            let answer = named(place, name).allocate(&mut turn);
            let expected = is_revoked(name, &list).then_some(Refusal::Revoked);
            prop_assert_eq!(answer.told.refusal, expected, "{} in {:?}", name, list);
        }
    }

    /// Whatever names and ids are made of, nobody else is meant by them.
    #[test]
    fn random_words_reach_nobody(word in "\\PC{0,40}", name in name()) {
        prop_assume!(!name.contains(&word) && !unescape(&name).contains(&word));
        let word: Box<str> = word.into();
        let term = Term { not_before: u64::MAX, until: u64::MAX };
        let all = [
            Revoked::Credential { tenant: Box::default(), id: word.clone() },
            Revoked::Credential { tenant: word.clone(), id: "one".into() },
            Revoked::User { tenant: Box::default(), user: word.clone() },
            Revoked::User { tenant: word.clone(), user: "ann".into() },
            Revoked::Tenant(word.clone()),
            Revoked::Name(word),
        ];
        let revocations = Revocations::new(Duration::from_secs(60), all.map(|one| (one, term)));
        let mut turn = machine();
        turn.server.replace_revocations(Arc::new(revocations));
        prop_assert_eq!(named(0, &name).allocate(&mut turn).code(), 0);
    }
}
