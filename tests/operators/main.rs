//! What operators load into other programs: alerts and a dashboard, held against the metrics that there are.
//!
//! promtool comes with `.ci/install`; without it these tests say `SKIPPED` and pass, except with `CI=true`.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod dashboard;
#[path = "../support/outside.rs"]
mod outside;
#[path = "../daemon/process.rs"]
mod process;
#[path = "../wire/mod.rs"]
mod wire;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use outside::given;
use process::{Daemon, Start, certificate, free_address};

#[test]
fn promtool_finds_nothing_wrong_with_the_alerts_and_each_fires_when_it_should() {
    let Some(promtool) = promtool() else { return };
    for command in [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ] {
        let ended = Command::new(&promtool)
            .args(command)
            .current_dir(file("config/prometheus"))
            .output()
            .unwrap();
        let said = [ended.stdout, ended.stderr]
            .map(|said| String::from_utf8(said).unwrap())
            .concat();
        assert!(ended.status.success(), "{command:?}\n{said}");
    }
}

#[test]
fn every_alert_is_tested_and_says_what_to_do() {
    let (alerts, tests) = (
        text("config/prometheus/alerts.yml"),
        text("config/prometheus/alerts_test.yml"),
    );
    let names: Vec<&str> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(names.len() > 10, "{names:?}");
    for name in &names {
        let fires = [
            format!("alertname=\"{name}\"}}"),
            format!("alertname: {name}\n"),
        ];
        assert!(
            fires.iter().any(|fires| tests.contains(fires)),
            "{name} is not tested"
        );
    }
    for key in ["summary: ", "description: ", "severity: "] {
        let written = alerts
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter(|line| line.contains(key))
            .count();
        assert_eq!(written, names.len(), "{key}");
    }
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    let Some(promtool) = promtool() else { return };
    let page = page(&daemon());
    let ended = given(Command::new(promtool).args(["check", "metrics"]), &page);
    let said = [ended.stdout, ended.stderr]
        .map(|said| String::from_utf8(said).unwrap())
        .concat();
    assert!(ended.status.success() && said.is_empty(), "{said}\n{page}");
}

#[test]
fn alerts_and_dashboard_name_only_metrics_and_labels_that_there_are() {
    let page = page(&daemon());
    let known: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    for (place, expressions) in [
        ("alerts.yml", alert_expressions()),
        ("turnd.json", panel_expressions()),
    ] {
        assert!(expressions.len() > 10, "{place}: {expressions:?}");
        for expression in &expressions {
            for name in metrics_in(expression) {
                assert!(
                    known.contains(name.as_str()),
                    "{place}: there is no {name}: {expression}"
                );
            }
            for value in label_values_in(expression) {
                assert!(
                    page.contains(&format!("=\"{value}\"")),
                    "{place}: no label is {value}: {expression}"
                );
            }
        }
    }
}

/// A server that shows every metric there is: some are there with a certificate alone, or with a token service.
fn daemon() -> Daemon {
    let start = Start::with("");
    certificate(&start.place.0, 2100);
    start
        .place
        .write("backend", "MARKER-key-of-the-backend-north-north");
    let (address, token) = (free_address(), free_address());
    start.configure(&format!(
        "[[listen]]\naddress = '{address}'\ntransport = 'tls'\n[tls]\ncertificate = 'cert.pem'\nkey = 'key.pem'\n\
         [token]\nlisten = ['http://{token}']\napi_keys = [{{ id = 'backend', file = 'backend' }}]\n"
    ));
    start.ready()
}

fn page(daemon: &Daemon) -> String {
    let (code, page) = daemon.get("/metrics");
    assert_eq!(code, 200, "{page}");
    page
}

/// What stands behind `expr:`, also where it goes on in deeper lines.
fn alert_expressions() -> Vec<String> {
    let text = text("config/prometheus/alerts.yml");
    let mut expressions: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in text.lines() {
        if let Some(expression) = line.strip_prefix("        expr: ") {
            goes_on = expression == "|";
            expressions.push(expression.to_owned());
        } else if goes_on && line.starts_with("          ") {
            expressions.last_mut().unwrap().push_str(line);
        } else {
            goes_on = false;
        }
    }
    expressions
}

fn panel_expressions() -> Vec<String> {
    let targets = dashboard::targets(&dashboard::read());
    targets
        .into_iter()
        .map(|(expression, _)| expression)
        .collect()
}

/// The names of our metrics.
fn metrics_in(expression: &str) -> Vec<String> {
    expression
        .split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))
        .filter(|word| word.starts_with("turn_") || word.starts_with("process_"))
        // Of a histogram.
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word).to_owned())
        .collect()
}

/// The values that labels are compared with, but for those that Prometheus adds.
fn label_values_in(expression: &str) -> Vec<String> {
    let quoted = expression.split('"').skip(1).step_by(2);
    quoted
        .flat_map(|values| values.split('|'))
        .filter(|value| *value != "turnd" && !value.starts_with('$'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn expressions_are_taken_apart_as_they_should() {
    let expression =
        r#"rate(turn_a_total{job="turnd", reason!~"x|y"}[5m]) > process_b + turn_c_bucket"#;
    let names = ["turn_a_total", "process_b", "turn_c"];
    assert_eq!(metrics_in(expression), names);
    assert_eq!(label_values_in(expression), ["x", "y"]);
}

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(path: &str) -> String {
    fs::read_to_string(file(path)).unwrap()
}

/// Where promtool is, if it is.
fn promtool() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let own = target.join("clients/bin");
    let found = std::env::split_paths(&path)
        .chain([own])
        .map(|directory| directory.join("promtool"));
    let found = found.into_iter().find(|program| program.is_file());
    if found.is_none() {
        let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!in_ci, "missing: promtool; run .ci/install");
        eprintln!("SKIPPED: promtool is not there, run .ci/install");
    }
    found
}
