//! `/openapi.json`: a validator of others finds it good, and answers are what it says.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::http::Reply;
use crate::service::{KEY, Service, basic};

const ALL: &str = "dialects = ['turn-rest', 'stunner', 'azure', 'cloudflare', 'twilio', 'aws']\n\
                   [revocation]\nenabled = true";

/// Reads a document and answers, and tells what is wrong with either. Other people's code does all of the work.
const VALIDATOR: &str = r##"
import json, sys
from openapi_spec_validator import validate
from openapi_schema_validator import OAS31Validator
import referencing
from referencing.jsonschema import DRAFT202012
said = json.load(sys.stdin)
document = said["document"]
validate(document)
registry = referencing.Registry().with_resource("urn:document", DRAFT202012.create_resource(document))
for path, method, status, media, body in said["answers"]:
    responses = document["paths"][path][method]["responses"]
    key = str(status) if str(status) in responses else "default"
    response = responses[key]
    where = f"urn:document#/paths/{path.replace('~', '~0').replace('/', '~1')}/{method}/responses/{key}"
    if "$ref" in response:
        where = "urn:document" + response["$ref"]
        response = document
        for step in where.split("#/")[1].split("/"):
            response = response[step]
    if body is None:
        assert "content" not in response, (path, status)
        continue
    schema = {"$ref": where + "/content/" + media.replace("/", "~1") + "/schema"}
    OAS31Validator(schema, registry=registry).validate(body)
print("good", len(said["answers"]))
"##;

fn python() -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target"),
        PathBuf::from,
    );
    let python = target.join("clients/venv/bin/python");
    let probe = Command::new(&python)
        .args(["-c", "import openapi_spec_validator"])
        .stderr(Stdio::null())
        .status();
    probe.is_ok_and(|status| status.success()).then_some(python)
}

#[test]
fn the_document_is_good_and_answers_keep_to_it() {
    let service = Service::start(ALL);
    let document = service.ask("GET", "/openapi.json", &[], "").expect(200);
    let Some(python) = python() else {
        assert!(
            std::env::var_os("CI").is_none(),
            "openapi-spec-validator is missing: run .ci/install"
        );
        eprintln!("SKIPPED: openapi-spec-validator is missing; .ci/install installs it");
        return;
    };
    let answers = answers(&service);
    let said = json!({ "document": document, "answers": answers });
    let mut child = Command::new(python)
        .args(["-c", VALIDATOR])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(said.to_string().as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{err}");
    assert_eq!(out.trim(), format!("good {}", answers.len()));
}

/// A good and a bad answer of every operation: path, method, status, type and body.
fn answers(service: &Service) -> Vec<Value> {
    let mut answers = Vec::new();
    let mut add = |path: &str, method: &str, reply: &Reply| {
        let media = reply.header("content-type").unwrap_or_default();
        let body = if reply.body.is_empty() {
            Value::Null
        } else {
            reply.json()
        };
        answers.push(json!([path, method, reply.status, media, body]));
    };
    let native = "/v1/relay/credentials";
    add(
        native,
        "post",
        &service.issue(KEY, &json!({ "user": "ann" })),
    );
    add(native, "post", &service.issue("wrong", &json!({})));
    add(native, "post", &service.issue(KEY, &json!({ "ttl": 0 })));
    let revoke = "/v1/relay/revocations";
    add(
        revoke,
        "post",
        &service.post(revoke, KEY, &json!({ "user": "ann" })),
    );
    add(
        revoke,
        "post",
        &service.post(revoke, crate::service::OTHER_KEY, &json!({ "user": "ann" })),
    );
    for path in ["/.well-known/relay", "/openapi.json"] {
        add(path, "get", &service.ask("GET", path, &[], ""));
        add(
            path,
            "get",
            &service.ask("GET", path, &[("Origin", "https://evil.test")], ""),
        );
    }
    for path in ["/turn", "/ice"] {
        add(
            path,
            "get",
            &service.ask("GET", &format!("{path}?service=turn&key={KEY}"), &[], ""),
        );
        add(
            path,
            "get",
            &service.ask("GET", &format!("{path}?service=turn"), &[], ""),
        );
    }
    let azure = "/networkTraversal/:issueRelayConfiguration";
    let versioned = format!("{azure}?api-version=2022-03-01-preview");
    add(azure, "post", &service.post(&versioned, KEY, &json!({})));
    add(azure, "post", &service.post(azure, KEY, &json!({})));
    for kind in ["generate-ice-servers", "generate"] {
        let path = format!("/v1/turn/keys/{{id}}/credentials/{kind}");
        let target = path.replace("{id}", "backend");
        add(
            &path,
            "post",
            &service.post(&target, KEY, &json!({ "ttl": 60 })),
        );
        add(
            &path,
            "post",
            &service.post(&target, "wrong", &json!({ "ttl": 60 })),
        );
    }
    let path = "/v1/turn/keys/{id}/credentials/{username}/revoke";
    let target = path
        .replace("{id}", "backend")
        .replace("{username}", "17:k~acme~ann");
    add(path, "post", &service.post(&target, KEY, &json!({})));
    let path = "/2010-04-01/Accounts/{sid}/Tokens.json";
    let target = path.replace("{sid}", "backend");
    for key in [KEY, "wrong"] {
        let headers = [("Authorization", basic("backend", key))];
        add(
            path,
            "post",
            &service.ask("POST", &target, &[("Authorization", &headers[0].1)], ""),
        );
    }
    let aws = "/v1/get-ice-server-config";
    add(
        aws,
        "post",
        &service.post(aws, KEY, &json!({ "ChannelARN": "arn" })),
    );
    add(aws, "post", &service.post(aws, KEY, &json!({})));
    answers
}

#[test]
fn only_what_is_on_is_in_it() {
    let service = Service::start("dialects = ['twilio']");
    let document = service.ask("GET", "/openapi.json", &[], "").expect(200);
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(
        paths,
        [
            "/.well-known/relay",
            "/2010-04-01/Accounts/{sid}/Tokens.json",
            "/openapi.json",
            "/v1/relay/credentials",
            "/v1/relay/credentials/{id}",
            "/v1/relay/revocations"
        ]
    );
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}
