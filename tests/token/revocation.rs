//! Credentials that are taken back by the service that handed them out.

use std::time::Duration;

use serde_json::{Value, json};

use crate::http::Reply;
use crate::process::Daemon;
use crate::service::{
    KEY, OTHER_KEY, Service, allocate, ask, claims_with, prepared, sign, unix, user,
};
use crate::wire::Client;

const PATH: &str = "/v1/relay/revocations";

/// Somebody of acme who may take back.
fn operator() -> String {
    sign(&claims_with(
        "ops",
        &json!({ "scope": "voip relay.revoke" }),
    ))
}

/// Somebody of another tenant who may hand out.
fn issuer_of_other() -> String {
    sign(&claims_with(
        "ops",
        &json!({ "tid": "other", "scope": "relay.issue" }),
    ))
}

/// The id, the name and the password of a new credential.
fn issued(service: &Service, token: &str, user: &str) -> [String; 3] {
    let body = service.issue(token, &json!({ "user": user })).expect(201);
    let server = &body["iceServers"][1];
    [
        &body["credentialId"],
        &server["username"],
        &server["credential"],
    ]
    .map(|value| value.as_str().unwrap().to_owned())
}

/// A call with a credential.
fn call(daemon: &Daemon, [_, name, password]: &[String; 3]) -> Client {
    let mut client = Client::udp(daemon.udp).with_credentials(name, password);
    client.allocate();
    client
}

fn lives(client: &mut Client) -> bool {
    match client.permit("127.0.0.2:9".parse().unwrap()).code() {
        // Peers on loopback are forbidden here, but that is found out last.
        0 | 403 => true,
        437 => false,
        code => panic!("{code}"),
    }
}

#[track_caller]
fn problem(reply: &Reply, status: u16, name: &str) {
    let body = reply.expect(status);
    assert_eq!(body["type"], format!("urn:turnd:problem:{name}"), "{body}");
}

#[test]
fn what_was_handed_out_is_taken_back_and_its_calls_end() {
    let mut service = Service::start("");
    let [one, two, bob, ours] =
        ["alice", "alice", "bob", "8:cid"].map(|user| issued(&service, KEY, user));
    let theirs = issued(&service, &issuer_of_other(), "alice");
    let mut calls = [&one, &two, &bob, &ours, &theirs].map(|issued| call(&service.daemon, issued));
    let revoke = |service: &Service, body: &Value| service.post(PATH, &operator(), body);
    let mut ended = [false; 5];
    for (body, place) in [
        (json!({ "credentialId": one[0] }), 0),
        (json!({ "user": "alice" }), 1),
        (json!({ "username": bob[1], "cut": true }), 2),
        (json!({ "tenant": "acme", "notBefore": unix() + 5 }), 3),
    ] {
        revoke(&service, &body).expect(204);
        ended[place] = true;
        assert_eq!(calls.each_mut().map(|call| !lives(call)), ended, "{body}");
        let line = service.daemon.log("credentials revoked");
        assert_eq!(
            (&line["by"], &line["ended"]),
            (&json!("ops"), &json!(1)),
            "{line}"
        );
    }
    assert_eq!(allocate(service.daemon.udp, &bob[1], &bob[2]), 401);
    assert_eq!(allocate(service.daemon.udp, &theirs[1], &theirs[2]), 0);
    // What is issued from that moment on is good.
    let again = (0..600).any(|number| {
        std::thread::park_timeout(Duration::from_millis(20));
        let [_, name, password] = issued(&service, KEY, &format!("dot{number}"));
        allocate(service.daemon.udp, &name, &password) == 0
    });
    assert!(again);
}

#[test]
fn one_credential_is_deleted_by_its_id() {
    let service = Service::start("");
    let one = issued(&service, KEY, "alice");
    let mut call = call(&service.daemon, &one);
    let path = format!("/v1/relay/credentials/{}", one[0]);
    let bearer = |token: &str| format!("Bearer {token}");
    let delete = |token: &str, path: &str| {
        service.ask("DELETE", path, &[("Authorization", &bearer(token))], "")
    };
    problem(&delete(KEY, &path), 403, "forbidden");
    // A credential of this id is another one with another tenant.
    delete(OTHER_KEY, &path).expect(204);
    assert!(lives(&mut call));
    delete(&operator(), &path).expect(204);
    assert!(!lives(&mut call));
    problem(
        &delete(&operator(), "/v1/relay/credentials/a%20b"),
        422,
        "unprocessable",
    );
}

#[test]
fn nobody_takes_back_what_is_not_theirs_to_take_back() {
    let service = Service::start("");
    let one = issued(&service, KEY, "alice");
    let mut call = call(&service.daemon, &one);
    let all = json!({ "tenant": "acme" });
    problem(&service.post(PATH, "", &all), 401, "no-credentials");
    problem(&service.post(PATH, "guess", &all), 401, "bad-credentials");
    for (token, body) in [
        (KEY.to_owned(), all.clone()),
        (user("alice"), json!({ "user": "alice" })),
        (OTHER_KEY.to_owned(), all),
        (
            OTHER_KEY.to_owned(),
            json!({ "user": "alice", "tenant": "acme" }),
        ),
        (OTHER_KEY.to_owned(), json!({ "username": one[1] })),
        (OTHER_KEY.to_owned(), json!({ "username": "17:alice" })),
    ] {
        problem(&service.post(PATH, &token, &body), 403, "forbidden");
    }
    for body in [
        json!({}),
        json!({ "user": "alice", "credentialId": "x" }),
        json!({ "credentialId": "'; DROP TABLE revocations; --" }),
        json!({ "user": "alice", "notBefore": unix() * 1000 }),
        json!({ "user": "alice", "notbefore": 1 }),
        json!({ "user": 7 }),
    ] {
        problem(
            &service.post(PATH, &operator(), &body),
            422,
            "unprocessable",
        );
    }
    service
        .post(PATH, OTHER_KEY, &json!({ "user": "alice" }))
        .expect(204);
    assert!(lives(&mut call), "that was alice of another tenant");
}

#[test]
fn cloudflares_words_take_one_credential_back() {
    let service = Service::start("dialects = ['cloudflare']");
    let mine = issued(&service, &issuer_of_other(), "alice");
    let acme = issued(&service, KEY, "alice");
    let mut calls = [&mine, &acme].map(|issued| call(&service.daemon, issued));
    let path = |name: &str| format!("/v1/turn/keys/other/credentials/{name}/revoke");
    let foreign = service.post(&path(&acme[1]), OTHER_KEY, &json!({}));
    assert_eq!(foreign.expect(403)["success"], false);
    assert_eq!(service.post(&path(&mine[1]), KEY, &json!({})).status, 401);
    service
        .post(&path(&mine[1]), OTHER_KEY, &json!({}))
        .expect(204);
    assert_eq!(calls.each_mut().map(lives), [false, true]);
}

/// The service alone, in a process of its own, and a relay with the same database.
#[test]
fn a_relay_hears_of_what_the_service_takes_back() {
    let service = Service::start("");
    let one = issued(&service, KEY, "alice");
    let mut call = call(&service.daemon, &one);
    let (mut start, at) = prepared(true, "");
    let database = service.daemon.place.0.join("state/revocations.sqlite");
    start.command.arg("--set");
    start
        .command
        .arg(format!("revocation.database='{}'", database.display()));
    start.command.arg("token");
    let _alone = start.ready();
    let bearer = format!("Bearer {}", operator());
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
    ];
    ask(
        at,
        "POST",
        PATH,
        &headers,
        &json!({ "user": "alice" }).to_string(),
    )
    .expect(204);
    let ended = (0..200).any(|_| {
        std::thread::park_timeout(Duration::from_millis(20));
        !lives(&mut call)
    });
    assert!(ended);
    assert_eq!(allocate(service.daemon.udp, &one[1], &one[2]), 401);
}

#[test]
fn a_database_that_does_not_answer_is_told_and_calls_end_all_the_same() {
    let service = Service::start("");
    let one = issued(&service, KEY, "alice");
    let mut call = call(&service.daemon, &one);
    let database = service.daemon.place.0.join("state/revocations.sqlite");
    let other = rusqlite::Connection::open(database).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let reply = service.post(PATH, &operator(), &json!({ "user": "alice" }));
    problem(&reply, 503, "unavailable");
    let detail = reply.json()["detail"].to_string();
    assert!(
        detail.contains("in force until this process ends"),
        "{detail}"
    );
    assert!(!lives(&mut call));
    assert_eq!(allocate(service.daemon.udp, &one[1], &one[2]), 401);
}

#[test]
fn it_can_be_switched_off() {
    let service = Service::start("[revocation]\nenabled = false");
    let reply = service.post(PATH, &operator(), &json!({ "user": "alice" }));
    problem(&reply, 404, "not-found");
}

#[test]
fn whoever_can_be_let_in_can_be_kept_out() {
    let service = Service::start("");
    let strange = "ann\n\u{0}\u{202e}~:%00";
    let credential = issued(&service, &user(strange), strange);
    let mut call = call(&service.daemon, &credential);
    let body = json!({ "user": strange });
    service.post(PATH, &operator(), &body).expect(204);
    assert!(!lives(&mut call));
}

#[test]
fn users_cannot_use_up_what_it_takes_to_stop_them() {
    let service = Service::start("per_tenant = 2");
    for name in ["ann", "bob"] {
        issued(&service, KEY, name);
    }
    problem(&service.issue(KEY, &json!({})), 429, "too-many-requests");
    for name in ["ann", "bob"] {
        let body = json!({ "user": name });
        service.post(PATH, &operator(), &body).expect(204);
    }
    let third = service.post(PATH, &operator(), &json!({ "user": "cid" }));
    problem(&third, 429, "too-many-requests");
}

/// Where credentials do not say whose they are, nothing would be revoked of a tenant's.
#[test]
fn what_cannot_be_found_is_not_said_to_be_revoked() {
    let service = Service::start_with(false, "");
    for body in [
        json!({ "user": "alice" }),
        json!({ "tenant": "acme" }),
        json!({ "credentialId": "x" }),
    ] {
        let reply = service.post(PATH, &operator(), &body);
        problem(&reply, 422, "unprocessable");
        assert!(reply.body.contains("claims = true"), "{}", reply.body);
    }
}
