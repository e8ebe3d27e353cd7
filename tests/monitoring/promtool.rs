//! Tests the rules with promtool: their syntax, and when they fire.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use elements_exporter::assets::RULES;
use serde_json::{Value, json};

use super::dashboards::{list, text};
use super::rules::{self, Rule};
use crate::harness::parser::promtool;
use crate::harness::servers::tool;

/// Number of concurrent promtool runs: the number of cores of a small machine. Each run uses one core, and keeps weeks
/// of samples in memory.
pub const CONCURRENCY: usize = 2;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A file with promtool tests.
struct File {
    name: String,
    json: Value,
}

fn files() -> Vec<File> {
    let entries = std::fs::read_dir(repository("deploy/prometheus/tests")).unwrap();
    let files = entries.map(|entry| {
        let path = entry.unwrap().path();
        File {
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            json: rules::to_json(&rules::yaml(&std::fs::read_to_string(path).unwrap())),
        }
    });
    files.collect()
}

/// A single test, with only the rules that it checks and their dependencies. Evaluating the other rules would take most
/// of the time.
struct SingleTest {
    name: String,
    /// Simulated time in seconds.
    duration: u64,
    rules: Vec<Rule>,
    json: Value,
}

impl SingleTest {
    fn new(file: &File, test: &Value, rules: &[Rule]) -> Self {
        let loaded: BTreeSet<&str> = list(&file.json["rule_files"])
            .map(|path| text(path).trim_start_matches("../"))
            .collect();
        let groups = RULES.iter().filter(|asset| loaded.contains(asset.name));
        let groups: BTreeSet<String> = groups.flat_map(|asset| rules::groups(asset.content)).collect();
        let loaded: Vec<Rule> = rules
            .iter()
            .filter(|rule| groups.contains(&rule.group))
            .cloned()
            .collect();
        let alerts: Vec<&Value> = list(&test["alert_rule_test"]).collect();
        let queries: Vec<&Value> = list(&test["promql_expr_test"]).collect();
        let exprs: Vec<&str> = queries.iter().map(|case| text(&case["expr"])).collect();
        let alert_names: BTreeSet<&str> = alerts.iter().map(|case| text(&case["alertname"])).collect();
        let is_tested = |rule: &&Rule| {
            alert_names.contains(rule.name.as_str()) || exprs.iter().any(|expr| expr.contains(&rule.name))
        };
        let names = loaded.iter().filter(is_tested).map(|rule| rule.name.clone()).collect();
        let needed = rules::needed(&loaded, names);
        let has = |group: &&Value| needed.iter().any(|rule| rule.group == text(group));
        let cases = alerts.iter().chain(&queries);
        Self {
            name: format!("{}: {}", file.name, text(&test["name"])),
            duration: cases
                .map(|case| rules::seconds(text(&case["eval_time"])))
                .max()
                .unwrap_or(0),
            json: json!({
                "rule_files": ["rules.yml"],
                "evaluation_interval": file.json["evaluation_interval"],
                "group_eval_order": list(&file.json["group_eval_order"]).filter(has).collect::<Vec<_>>(),
                "tests": [test],
            }),
            rules: needed,
        }
    }

    /// Returns promtool's output if the test fails.
    fn failure(&self) -> Option<String> {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, json: &Value| std::fs::write(directory.path().join(name), json.to_string()).unwrap();
        write("rules.yml", &rules::file_of(&self.rules));
        write("test.yml", &self.json);
        run(&["test", "rules", "test.yml"], directory.path())
            .err()
            .map(|output_text| format!("{}\n{output_text}", self.name))
    }
}

fn run(arguments: &[&str], directory: &Path) -> Result<(), String> {
    let output = Command::new(promtool())
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    let output_text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("promtool {arguments:?}: {}: {output_text}", output.status)),
    }
}

#[test]
fn rules_are_valid_for_promtool() {
    for rules in RULES {
        run(&["check", "rules", rules.name], &repository("deploy/prometheus")).unwrap();
    }
}

#[test]
fn rules_pass_their_tests() {
    let rules = rules::all();
    let mut tests = Vec::new();
    for file in files() {
        tests.extend(list(&file.json["tests"]).map(|test| SingleTest::new(&file, test, &rules)));
    }
    assert!(!tests.is_empty());
    // Long tests start first, so that no long test runs alone at the end.
    tests.sort_by_key(|test| test.duration);
    let (remaining, failures) = (Mutex::new(tests), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..CONCURRENCY {
            scope.spawn(|| {
                loop {
                    let next = remaining.lock().unwrap().pop();
                    let Some(test) = next else { break };
                    failures.lock().unwrap().extend(test.failure());
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Without this check, `rules_pass_their_tests` would ignore rules that have no test.
#[test]
fn every_rule_has_a_test() {
    let rules = rules::all();
    let mut evaluated = BTreeSet::new();
    for file in files() {
        for test in list(&file.json["tests"]) {
            evaluated.extend(
                SingleTest::new(&file, test, &rules)
                    .rules
                    .into_iter()
                    .map(|rule| rule.name),
            );
        }
    }
    let remaining: Vec<&str> = rules
        .iter()
        .map(|rule| rule.name.as_str())
        .filter(|name| !evaluated.contains(*name))
        .collect();
    assert!(remaining.is_empty(), "{remaining:?}");
}

/// Links in notifications work both for paths and for absolute URLs in the rules.
#[test]
fn notifications_link_to_paths_and_absolute_urls() {
    let rendered = |template: &str, value: &str| {
        let text = format!("{{{{ template \"elements.{template}\" \"{value}\" }}}}");
        let output = Command::new(tool("EXPORTER_TEST_AMTOOL", "amtool"))
            .args([
                "template",
                "render",
                "--template.glob=deploy/alertmanager/elements.tmpl",
            ])
            .arg(format!("--template.text={text}"))
            .current_dir(repository(""))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    for (template, path, url) in [
        (
            "runbook",
            "docs/runbooks.md#elementsapidown",
            "http://127.0.0.1:10027/runbooks/#elementsapidown",
        ),
        (
            "dashboard",
            "/d/elements-exporter",
            "http://127.0.0.1:3000/d/elements-exporter",
        ),
    ] {
        assert_eq!(rendered(template, path), url);
        let absolute = "https://x.example.com/elements/there";
        assert_eq!(rendered(template, absolute), absolute);
    }
}

#[test]
fn alertmanager_examples_are_valid_for_amtool() {
    for entry in std::fs::read_dir(repository("deploy/alertmanager")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yml") {
            continue;
        }
        let output = Command::new(tool("EXPORTER_TEST_AMTOOL", "amtool"))
            .arg("check-config")
            .arg(&path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn examples_route_by_tier_and_team() {
    for file in ["alertmanager.yml", "alertmanager-large.yml"] {
        let receivers_for = |labels: &str| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("deploy/alertmanager")
                .join(file);
            let output = Command::new(tool("EXPORTER_TEST_AMTOOL", "amtool"))
                .args(["config", "routes", "test", "--config.file"])
                .arg(path)
                .args(labels.split(' '))
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        for (labels, receivers) in [
            ("severity=critical area=backup tier=gold", "on-call"),
            ("severity=critical area=backup tier=bronze", "on-call"),
            (
                "alertname=ElementsRansomwareSigns severity=critical tier=bronze team=North",
                "team-north,on-call",
            ),
            ("severity=critical area=backup", "on-call"),
            ("severity=critical area=backup team=North", "team-north,on-call"),
            ("severity=warning area=backup team=North", "team-north"),
            ("severity=warning area=backup", "operations"),
            ("severity=info area=backup team=North tier=gold", "daily"),
            ("severity=warning area=licence team=North", "billing"),
        ] {
            assert_eq!(receivers_for(labels), receivers, "{file}: {labels}");
        }
        // The routes for bronze and gold have the same receiver, but only bronze is muted at night and on weekends.
        let text = std::fs::read_to_string(format!("{}/deploy/alertmanager/{file}", env!("CARGO_MANIFEST_DIR")));
        let text = text.unwrap();
        let of = |tier: &str| {
            let start = text.find(&format!("tier=\"{tier}\"")).unwrap();
            text[start..].split("\n\n").next().unwrap()
        };
        assert!(of("bronze").contains("mute_time_intervals: [off-hours]"), "{file}");
        assert!(!of("gold").contains("mute_time_intervals"), "{file}");
        // The first route that matches is used, so signs of ransomware are not muted for bronze customers.
        assert!(
            text.find("ElementsRansomwareSigns") < text.find("tier=\"bronze\""),
            "{file}"
        );
    }
}
