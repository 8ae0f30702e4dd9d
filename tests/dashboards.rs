//! The dashboard and the alerts ask for metrics that are there, with labels that they have.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

fn read(path: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Labels by name, as `docs/metrics.md` lists them; a histogram under each of its three.
fn listed() -> HashMap<String, HashSet<String>> {
    let mut all = HashMap::new();
    for line in read("docs/metrics.md").lines() {
        let Some((name, rest)) = line.strip_prefix("| `").and_then(|line| line.split_once("` | ")) else { continue };
        let cells: Vec<&str> = rest.split(" | ").collect();
        // Prometheus adds the one that it scraped.
        let labels = cells[1].split(", ").chain(["instance", "job"]).map(str::to_owned);
        let labels: HashSet<String> = labels.filter(|label| !label.is_empty()).collect();
        if cells[0].starts_with("histogram") {
            for suffix in ["_bucket", "_sum", "_count"] {
                let labels = labels.iter().cloned().chain(["le".to_owned()]).collect();
                all.insert(format!("{name}{suffix}"), labels);
            }
        } else {
            all.insert(name.to_owned(), labels);
        }
    }
    assert!(all.len() > 50, "docs/metrics.md lists {} names: is it still a table?", all.len());
    all
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|it: char| !it.is_ascii_alphanumeric() && it != '_').filter(|word| !word.is_empty())
}

/// Every metric that an expression names, and every label that it groups or filters by: `by (...)` is about the metric behind
/// it, braces are about the one before them.
fn check(of: &str, expression: &str, listed: &HashMap<String, HashSet<String>>) -> usize {
    // What stands in quotes is a label's value.
    let expression = &expression.split('"').step_by(2).collect::<Vec<_>>().join("\"\"");
    let metrics: Vec<&str> = words(expression)
        .filter(|it| ["mg_", "machinegun_", "woody_"].iter().any(|prefix| it.starts_with(prefix)))
        .collect();
    let mut rest = expression.as_str();
    for (at, metric) in metrics.iter().enumerate() {
        let labels = listed.get(*metric).unwrap_or_else(|| panic!("{of}: there is no metric {metric}: {expression}"));
        let (before, after) = rest.split_once(metric).expect("its words are found in their order");
        // What stands behind the last one can be about no other.
        let behind = if at + 1 == metrics.len() { after } else { "" };
        let groups = before.split("by (").skip(1).chain(behind.split("by (").skip(1));
        let grouped = groups.flat_map(|rest| words(rest.split(')').next().unwrap_or_default()));
        let filters = after.strip_prefix('{').and_then(|rest| rest.split('}').next()).into_iter();
        let filters =
            filters.flat_map(|filters| filters.split(',').filter_map(|filter| filter.split(['=', '!']).next()));
        for label in grouped.chain(filters) {
            assert!(labels.contains(label), "{of}: {metric} has no label {label}: {expression}");
        }
        rest = after;
    }
    metrics.len()
}

/// The alerts, in the order of their file.
fn rules() -> Vec<Value> {
    let alerts: Value = yaml_serde::from_str(&read("deploy/prometheus/alerts.yaml")).expect("YAML");
    let groups = alerts["groups"].as_array().expect("groups");
    groups.iter().flat_map(|it| it["rules"].as_array().expect("rules")).cloned().collect()
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no text at {pointer}: {value}"))
}

fn texts<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| match value {
            Value::String(text) if name == key => found.push(text),
            value => texts(value, key, found),
        }),
        Value::Array(items) => items.iter().for_each(|item| texts(item, key, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_are_there() {
    let listed = listed();
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/machinegun.json")).expect("JSON");
    let mut expressions = Vec::new();
    texts(&dashboard, "expr", &mut expressions);
    assert!(expressions.len() > 20, "{} expressions", expressions.len());
    for expression in expressions {
        assert!(check("deploy/grafana/machinegun.json", expression, &listed) > 0, "no metric in {expression}");
    }
    let mut variables = Vec::new();
    texts(&dashboard, "definition", &mut variables);
    for variable in variables {
        assert_eq!(check("a variable", variable, &listed), 1, "{variable}");
    }
}

#[test]
fn the_alerts_ask_for_metrics_that_are_there() {
    let listed = listed();
    let rules = rules();
    assert!(rules.len() > 10, "{} rules", rules.len());
    for rule in &rules {
        let (alert, expression) = (text(rule, "/alert"), text(rule, "/expr"));
        let metrics = check("deploy/prometheus/alerts.yaml", expression, &listed);
        // All but the one that says that nothing was scraped ask for at least one of ours.
        assert_eq!(metrics == 0, alert == "MachinegunDown", "{alert}: {expression}");
        assert!(!text(rule, "/annotations/action").is_empty(), "{alert} says what to do first");
    }
}

/// Where a dead instance's target goes with it, a look at the targets that are left finds nothing wrong.
#[test]
fn an_instance_that_is_no_target_any_more_is_missed() {
    let rules = rules();
    let down = rules.iter().find(|it| text(it, "/alert") == "MachinegunDown").expect("the rule");
    assert!(text(down, "/expr").ends_with("or absent(up{job=\"machinegun\"})"), "{down}");
}

#[test]
fn each_alert_has_a_row_that_says_what_to_do_at_night() {
    let page = read("docs/operate.md");
    let rows: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `Machinegun")?.split_once('`'))
        .map(|(name, _)| name)
        .collect();
    let rules = rules();
    let alerts: Vec<&str> =
        rules.iter().map(|it| text(it, "/alert").strip_prefix("Machinegun").expect("a name of ours")).collect();
    assert_eq!(rows, alerts, "docs/operate.md has a row for each rule of deploy/prometheus/alerts.yaml, in its order");
}

#[test]
#[should_panic(expected = "there is no metric mg_machine_lifecycle_total")]
fn a_metric_that_does_not_exist_is_found() {
    check("a test", "sum(rate(mg_machine_lifecycle_total[5m]))", &listed());
}

#[test]
#[should_panic(expected = "machinegun_workers has no label impact")]
fn a_label_that_does_not_exist_is_found() {
    check("a test", "sum by (impact) (machinegun_workers)", &listed());
}

#[test]
#[should_panic(expected = "machinegun_workers has no label outcome")]
fn a_filter_by_a_label_that_only_another_metric_has_is_found() {
    check("a test", "machinegun_forwards_total{outcome=\"bound\"} + machinegun_workers{outcome=\"bound\"}", &listed());
}
