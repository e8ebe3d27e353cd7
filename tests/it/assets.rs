//! Dashboards and rules: what is compiled in is what the repository holds, and names only what exists.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use elements_exporter::assets::{Asset, DASHBOARDS, RULES};
use elements_exporter::catalogue;

use crate::parser::promtool;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The names of files of a directory that begin and end like this.
fn files(directory: &str, start: &str, end: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(repository(directory)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name.starts_with(start) && name.ends_with(end))
        .collect()
}

fn names(assets: &[Asset]) -> BTreeSet<String> {
    assets.iter().map(|asset| asset.name.to_owned()).collect()
}

#[test]
fn every_dashboard_and_rule_file_is_compiled_in() {
    assert_eq!(names(DASHBOARDS), files("dashboards", "elements-", ".json"));
    assert_eq!(names(RULES), files("deploy/prometheus", "elements-", ".yml"));
    for dashboard in DASHBOARDS {
        let json: serde_json::Value = serde_json::from_str(dashboard.content).unwrap();
        let title = json["title"].as_str().unwrap();
        assert!(title.starts_with("Elements / "), "{}: {title}", dashboard.name);
    }
}

/// The words of a text that look like names of the exporter's metrics.
fn metric_names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|character: char| !(character.is_ascii_alphanumeric() || "_:".contains(character)));
    words
        .filter(|word| word.starts_with("elements_") && !word.contains(':') && !word.ends_with('_'))
        .collect()
}

#[test]
fn dashboards_rules_and_runbooks_name_only_metrics_that_exist() {
    let mut known: BTreeSet<String> = catalogue::metrics()
        .iter()
        .map(|entry| entry.metric.name.to_owned())
        .collect();
    for suffix in ["_bucket", "_sum", "_count"] {
        known.insert(format!("elements_exporter_api_request_duration_seconds{suffix}"));
    }
    let runbooks = std::fs::read_to_string(repository("docs/runbooks.md")).unwrap();
    let files = DASHBOARDS.iter().chain(RULES).map(|asset| (asset.name, asset.content));
    for (name, content) in files.chain([("runbooks.md", runbooks.as_str())]) {
        let unknown: Vec<_> = metric_names(content)
            .into_iter()
            .filter(|word| !known.contains(*word) && *word != "elements_exporter")
            .collect();
        assert!(unknown.is_empty(), "{name} names {unknown:?}");
    }
}

#[test]
fn promtool_accepts_the_rules() {
    for rules in RULES {
        run_promtool(&["check", "rules", rules.name], "deploy/prometheus");
    }
}

#[test]
fn the_rules_fire_and_stay_quiet_as_their_tests_say() {
    // Each file by itself and all at once: promtool works on one core, and the weeks that some simulate take a while.
    let tests = files("deploy/prometheus/tests", "", ".yml");
    assert!(!tests.is_empty());
    std::thread::scope(|scope| {
        for test in &tests {
            scope.spawn(|| run_promtool(&["test", "rules", test.as_str()], "deploy/prometheus/tests"));
        }
    });
}

fn run_promtool(arguments: &[&str], directory: &str) {
    let output = Command::new(promtool())
        .args(arguments)
        .current_dir(repository(directory))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}
