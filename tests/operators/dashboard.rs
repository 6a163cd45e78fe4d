//! The dashboard, as Grafana takes it: there is no Grafana here, so what its schema wants is said below.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::process::Place;
use crate::{daemon, metrics_in, page, promtool, text};

/// Columns of the grid that panels lie on.
const COLUMNS: u64 = 24;
/// Of Grafana 10, which every later one takes and makes its own of.
const SCHEMA: u64 = 38;
/// What Grafana replaces by itself.
const OWN_VARIABLES: [&str; 1] = ["__rate_interval"];
/// Labels that Prometheus adds.
const ADDED: [&str; 2] = ["job", "instance"];

#[test]
fn the_dashboard_is_whole() {
    let board = read();
    assert_eq!(board["schemaVersion"], SCHEMA);
    // A number here would be of one installation, and could be another dashboard's there.
    assert!(board.get("id").is_none_or(Value::is_null));
    assert!((1..=40).contains(&string(&board["uid"]).len()));
    assert!(!string(&board["title"]).is_empty());
    assert!(board["graphTooltip"].as_u64().unwrap() <= 2);
    for end in ["from", "to"] {
        assert!(string(&board["time"][end]).starts_with("now"));
    }
    let variables = check_variables(&board);
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in list(&board["panels"]) {
        let title = string(&panel["title"]);
        assert!(!title.is_empty());
        let id = panel["id"].as_u64().unwrap();
        assert!(id > 0 && ids.insert(id), "two panels have one id: {title}");
        for cell in cells(&panel["gridPos"]) {
            assert!(taken.insert(cell), "{title} lies on another: {cell:?}");
        }
        check_source(&panel["datasource"]);
        check_fields(&panel["fieldConfig"]);
        check_options(string(&panel["type"]), &panel["options"]);
        let mut refs = BTreeSet::new();
        for target in list(&panel["targets"]) {
            check_source(&target["datasource"]);
            assert!(refs.insert(string(&target["refId"])), "{title}");
            let expression = string(&target["expr"]);
            for used in variables_in(expression) {
                assert!(variables.contains(used), "{title}: no variable {used}");
            }
            assert!(
                expression.contains("$job") && expression.contains("$instance"),
                "{title}"
            );
        }
    }
    // No holes: whoever scrolls down sees that there is no more.
    let lines: BTreeSet<u64> = taken.iter().map(|(_, y)| *y).collect();
    assert_eq!(lines.len() as u64, lines.last().unwrap() + 1);
}

#[test]
fn promtool_finds_nothing_wrong_with_the_expressions_of_the_dashboard() {
    let Some(promtool) = promtool() else { return };
    let place = Place::new();
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for (number, (expression, _)) in targets(&read()).into_iter().enumerate() {
        let expression = filled_in(&expression);
        rules += &format!("  - record: panel:{number}\n    expr: '{expression}'\n");
    }
    let file = place.write("rules.yml", &rules);
    let check = Command::new(promtool)
        .args(["check", "rules"])
        .arg(file)
        .output();
    let ended = check.unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success(), "{said}\n{rules}");
}

#[test]
fn panels_group_by_and_name_only_labels_that_their_metrics_have() {
    let page = page(&daemon());
    for (expression, legend) in targets(&read()) {
        let mut own: BTreeSet<&str> = ADDED.into_iter().collect();
        for metric in metrics_in(&expression) {
            let samples = page
                .lines()
                .filter(|line| line.starts_with(metric.as_str()));
            own.extend(samples.flat_map(labels_of));
        }
        let groups: Vec<&str> = groups_of(&expression);
        for label in &groups {
            assert!(own.contains(label), "no label {label}: {expression}");
        }
        let is_sum = ["sum(", "min(", "sum by", "min by"];
        let is_sum = is_sum.iter().any(|sum| expression.contains(sum));
        for label in legend.split("{{").skip(1) {
            let label = label.split("}}").next().unwrap().trim();
            let is_there = if is_sum {
                groups.contains(&label)
            } else {
                own.contains(label)
            };
            assert!(is_there, "{legend} of {expression}");
        }
    }
}

pub(crate) fn read() -> Value {
    serde_json::from_str(&text("config/grafana/turnd.json")).unwrap()
}

/// What each panel asks for, and what it calls it.
pub(crate) fn targets(board: &Value) -> Vec<(String, String)> {
    let panels = list(&board["panels"]).iter();
    let targets = panels.flat_map(|panel| list(&panel["targets"]));
    targets
        .map(|target| {
            let word = |key: &str| string(&target[key]).to_owned();
            (word("expr"), word("legendFormat"))
        })
        .collect()
}

/// The names of the variables that there are.
fn check_variables(board: &Value) -> BTreeSet<&str> {
    let mut names: BTreeSet<&str> = OWN_VARIABLES.into_iter().collect();
    for variable in list(&board["templating"]["list"]) {
        let name = string(&variable["name"]);
        match string(&variable["type"]) {
            "datasource" => assert_eq!(variable["query"], "prometheus"),
            "query" => {
                check_source(&variable["datasource"]);
                // 1 is when the dashboard is loaded, 2 also when the time changes.
                assert!((1..=2).contains(&variable["refresh"].as_u64().unwrap()));
                let query = string(&variable["query"]["query"]);
                for used in variables_in(query) {
                    assert!(names.contains(used), "{name} needs {used} before it");
                }
            }
            other => panic!("{name} is a variable of type {other}"),
        }
        assert!(names.insert(name), "two variables are called {name}");
    }
    names
}

/// The data come from where whoever looks at the dashboard says.
fn check_source(source: &Value) {
    assert_eq!(source["type"], "prometheus");
    assert_eq!(source["uid"], "${datasource}");
}

/// The cells of the grid that a panel lies on.
fn cells(place: &Value) -> Vec<(u64, u64)> {
    let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| place[key].as_u64().unwrap());
    assert!(w > 0 && h > 0 && x + w <= COLUMNS, "{place}");
    (x..x + w)
        .flat_map(|x| (y..y + h).map(move |y| (x, y)))
        .collect()
}

fn check_fields(fields: &Value) {
    assert!(fields["overrides"].is_array());
    let defaults = &fields["defaults"];
    let units = [
        "bps",
        "bytes",
        "dtdurations",
        "ops",
        "percentunit",
        "pps",
        "reqps",
        "s",
        "short",
    ];
    one_of(&defaults["unit"], &units);
    let Some(thresholds) = defaults.get("thresholds") else {
        return;
    };
    one_of(&thresholds["mode"], &["absolute", "percentage"]);
    let steps = list(&thresholds["steps"]);
    assert!(steps[0]["value"].is_null(), "the first begins nowhere");
    let values = steps[1..]
        .iter()
        .map(|step| step["value"].as_f64().unwrap());
    assert!(values.is_sorted(), "{thresholds}");
    assert!(steps.iter().all(|step| step["color"].is_string()));
}

fn check_options(kind: &str, options: &Value) {
    let reducers = ["lastNotNull", "last", "max", "mean", "min", "sum"];
    match kind {
        "stat" => {
            let calcs = list(&options["reduceOptions"]["calcs"]);
            assert!(!calcs.is_empty());
            calcs.iter().for_each(|calc| one_of(calc, &reducers));
            one_of(&options["colorMode"], &["none", "value", "background"]);
            one_of(&options["graphMode"], &["none", "line", "area"]);
        }
        "timeseries" => {
            let legend = &options["legend"];
            // It does not go without saying since schema 37.
            assert_eq!(legend["showLegend"], true);
            one_of(&legend["displayMode"], &["list", "table", "hidden"]);
            one_of(&legend["placement"], &["bottom", "right"]);
            let calcs = list(&legend["calcs"]).iter();
            calcs.for_each(|calc| one_of(calc, &reducers));
            one_of(&options["tooltip"]["mode"], &["single", "multi", "none"]);
            one_of(&options["tooltip"]["sort"], &["none", "asc", "desc"]);
        }
        other => panic!("a panel of type {other}"),
    }
}

fn one_of(value: &Value, words: &[&str]) {
    assert!(
        words.contains(&string(value)),
        "{value} is none of {words:?}"
    );
}

/// The variables of an expression, as `$name` and `${name}`.
fn variables_in(expression: &str) -> impl Iterator<Item = &str> {
    expression.split('$').skip(1).map(|rest| {
        let rest = rest.trim_start_matches('{');
        let end = rest.find(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
        &rest[..end.unwrap_or(rest.len())]
    })
}

/// The expression for some server.
fn filled_in(expression: &str) -> String {
    let filled = expression.replace("$__rate_interval", "5m");
    filled.replace("$job", "turnd").replace("$instance", ".*")
}

/// The labels that an expression groups by.
fn groups_of(expression: &str) -> Vec<&str> {
    let lists = expression.split(" by (").skip(1);
    let lists = lists.map(|rest| rest.split(')').next().unwrap());
    lists
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .collect()
}

/// The names of the labels of a sample.
fn labels_of(sample: &str) -> Vec<&str> {
    let labels = sample.split(['{', '}']).nth(1).unwrap_or_default();
    let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, _)| name).collect()
}

fn list(value: &Value) -> &[Value] {
    value
        .as_array()
        .unwrap_or_else(|| panic!("not a list: {value}"))
}

fn string(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("not a text: {value}"))
}

#[test]
fn expressions_of_panels_are_taken_apart_as_they_should() {
    let expression = r#"sum by (a, le) (rate(turn_x{job="$job"}[$__rate_interval])) + ${other}"#;
    let variables: Vec<&str> = variables_in(expression).collect();
    assert_eq!(variables, ["job", "__rate_interval", "other"]);
    assert_eq!(groups_of(expression), ["a", "le"]);
    assert_eq!(labels_of(r#"turn_x{a="1",b="2"} 3"#), ["a", "b"]);
    assert!(labels_of("turn_x 3").is_empty());
}
