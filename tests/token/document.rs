//! `/openapi.json`: a validator of others finds it good, and answers are what it says.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::http::Reply;
use crate::outside::given;
use crate::service::{KEY, OTHER_KEY, Service, basic};

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
    let output = given(
        Command::new(python).args(["-c", VALIDATOR]),
        &said.to_string(),
    );
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{err}");
    assert_eq!(out.trim(), format!("good {}", answers.len()));
}

/// Answers of operations: path, method, status, type and body of each.
#[derive(Default)]
struct Answers(Vec<Value>);

impl Answers {
    fn add(&mut self, path: &str, method: &str, reply: &Reply) {
        let media = reply.header("content-type").unwrap_or_default();
        let body = if reply.body.is_empty() {
            Value::Null
        } else {
            reply.json()
        };
        self.0
            .push(json!([path, method, reply.status, media, body]));
    }
}

/// A good and a bad answer of every operation.
fn answers(service: &Service) -> Vec<Value> {
    let mut answers = Answers::default();
    native(service, &mut answers);
    dialects(service, &mut answers);
    answers.0
}

fn native(service: &Service, answers: &mut Answers) {
    let native = "/v1/relay/credentials";
    answers.add(
        native,
        "post",
        &service.issue(KEY, &json!({ "user": "ann" })),
    );
    answers.add(native, "post", &service.issue("wrong", &json!({})));
    answers.add(native, "post", &service.issue(KEY, &json!({ "ttl": 0 })));
    let revoke = "/v1/relay/revocations";
    for key in [KEY, OTHER_KEY] {
        answers.add(
            revoke,
            "post",
            &service.post(revoke, key, &json!({ "user": "ann" })),
        );
        let bearer = format!("Bearer {key}");
        let reply = service.ask(
            "DELETE",
            "/v1/relay/credentials/j1",
            &[("Authorization", &bearer)],
            "",
        );
        answers.add("/v1/relay/credentials/{id}", "delete", &reply);
    }
    for path in ["/.well-known/relay", "/openapi.json"] {
        answers.add(path, "get", &service.ask("GET", path, &[], ""));
        let foreign = [("Origin", "https://evil.test")];
        answers.add(path, "get", &service.ask("GET", path, &foreign, ""));
    }
}

fn dialects(service: &Service, answers: &mut Answers) {
    for path in ["/turn", "/ice"] {
        for query in [format!("service=turn&key={KEY}"), "service=turn".to_owned()] {
            answers.add(
                path,
                "get",
                &service.ask("GET", &format!("{path}?{query}"), &[], ""),
            );
        }
    }
    let azure = "/networkTraversal/:issueRelayConfiguration";
    let versioned = format!("{azure}?api-version=2022-03-01-preview");
    answers.add(azure, "post", &service.post(&versioned, KEY, &json!({})));
    answers.add(azure, "post", &service.post(azure, KEY, &json!({})));
    for kind in ["generate-ice-servers", "generate"] {
        let path = format!("/v1/turn/keys/{{id}}/credentials/{kind}");
        let target = path.replace("{id}", "backend");
        for key in [KEY, "wrong"] {
            answers.add(
                &path,
                "post",
                &service.post(&target, key, &json!({ "ttl": 60 })),
            );
        }
    }
    let path = "/v1/turn/keys/{id}/credentials/{username}/revoke";
    let target = path.replace("{id}", "backend");
    let target = target.replace("{username}", "17:k~acme~ann");
    answers.add(path, "post", &service.post(&target, KEY, &json!({})));
    let path = "/2010-04-01/Accounts/{sid}/Tokens.json";
    let target = path.replace("{sid}", "backend");
    for key in [KEY, "wrong"] {
        let authorization = basic("backend", key);
        let headers = [("Authorization", authorization.as_str())];
        answers.add(path, "post", &service.ask("POST", &target, &headers, ""));
    }
    let aws = "/v1/get-ice-server-config";
    answers.add(
        aws,
        "post",
        &service.post(aws, KEY, &json!({ "ChannelARN": "arn" })),
    );
    answers.add(aws, "post", &service.post(aws, KEY, &json!({})));
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
