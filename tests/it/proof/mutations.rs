//! The tests of the rules notice when a rule is wrong: each comparison in each rule is spoiled in turn, and promtool's
//! tests have to fail for each.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use elements_exporter::assets::RULES;
use serde_json::{Value, json};

use super::dashboards::{list, text};
use super::rules::{self, Rule};
use crate::parser::promtool;

/// As many at a time as a small machine has cores.
const AT_A_TIME: usize = 2;

/// What each comparison is turned into: its contrary, and its neighbour at the edge.
const SPOILED: &[(&str, &[&str])] = &[
    (">=", &["<=", ">"]),
    ("<=", &[">=", "<"]),
    ("==", &["!="]),
    ("!=", &["=="]),
    (">", &["<", ">="]),
    ("<", &[">", "<="]),
];

/// Mutants that no test can tell from the original, with the reason: rule, what is turned into what.
const EQUIVALENT: &[(&str, &str, &str)] = &[
    // Between one run and two; what increase() makes of whole numbers is never just there.
    ("ElementsBackupRunsSkipped", ">", ">="),
    // Down for just the half of half an hour, to the scrape.
    ("ElementsApiErrors", "<", "<="),
];

/// A rule with one comparison turned into another.
struct Mutant {
    rule: Rule,
    /// Where in the expression.
    at: usize,
    from: &'static str,
    to: &'static str,
}

impl Mutant {
    fn expr(&self) -> String {
        let (before, rest) = self.rule.expr.split_at(self.at);
        format!("{before}{}{}", self.to, &rest[self.from.len()..])
    }

    fn describe(&self) -> String {
        let after = self.expr();
        let start = after[..self.at].char_indices().rev().nth(50).map_or(0, |(at, _)| at);
        let end = after[self.at..]
            .char_indices()
            .nth(40)
            .map_or(after.len(), |(at, _)| self.at + at);
        format!(
            "{} {} to {}: ...{}...",
            self.rule.name,
            self.from,
            self.to,
            &after[start..end]
        )
    }
}

/// Where comparisons stand in an expression, outside of quotes and of the braces of selectors.
fn comparisons(expr: &str) -> Vec<(usize, &'static str, &'static [&'static str])> {
    let mut found = Vec::new();
    let (mut quoted, mut braces, mut at) = (false, 0, 0);
    while let Some(character) = expr[at..].chars().next() {
        match character {
            '"' => quoted = !quoted,
            '{' if !quoted => braces += 1,
            '}' if !quoted => braces -= 1,
            _ if !quoted && braces == 0 => {
                let comparison = SPOILED.iter().find(|(operator, _)| expr[at..].starts_with(operator));
                if let Some((operator, others)) = comparison {
                    found.push((at, *operator, *others));
                    at += operator.len();
                    continue;
                }
            }
            _ => {}
        }
        at += character.len_utf8();
    }
    found
}

fn mutants() -> Vec<Mutant> {
    let mut mutants = Vec::new();
    for rule in rules::all() {
        for (at, from, others) in comparisons(&rule.expr) {
            let told = others.iter().filter(|to| !EQUIVALENT.contains(&(&rule.name, from, to)));
            mutants.extend(told.map(|to| Mutant {
                rule: rule.clone(),
                at,
                from,
                to,
            }));
        }
    }
    mutants
}

/// The rules that can notice a change of one, and what they all need: all that stand on it, and all that those stand on.
fn concerned(rules: &[Rule], mutant: &Rule) -> Vec<Rule> {
    let reads = |rule: &Rule, name: &str| {
        let annotations = rule.annotations.iter().map(|(_, text)| text);
        std::iter::once(&rule.expr)
            .chain(annotations)
            .any(|text| text.contains(name))
    };
    let mut names = BTreeSet::from([mutant.name.clone()]);
    for grows in [true, false] {
        loop {
            let before = names.len();
            let more: Vec<String> = rules
                .iter()
                .flat_map(|rule| match grows {
                    true => names
                        .iter()
                        .any(|name| reads(rule, name))
                        .then(|| rule.name.clone())
                        .into_iter()
                        .collect(),
                    false if names.contains(&rule.name) => {
                        let needed = rules.iter().filter(|other| !other.alerts && reads(rule, &other.name));
                        needed.map(|other| other.name.clone()).collect::<Vec<_>>()
                    }
                    false => Vec::new(),
                })
                .collect();
            names.extend(more);
            if names.len() == before {
                break;
            }
        }
    }
    rules
        .iter()
        .filter(|rule| names.contains(&rule.name))
        .cloned()
        .collect()
}

/// A file of these rules, as JSON, which is YAML as well.
fn file_of(rules: &[Rule]) -> Value {
    let groups: BTreeSet<&str> = rules.iter().map(|rule| rule.group.as_str()).collect();
    let groups = groups.into_iter().map(|group| {
        let own: Vec<&Value> = rules
            .iter()
            .filter(|rule| rule.group == group)
            .map(|rule| &rule.json)
            .collect();
        json!({"name": group, "rules": own})
    });
    json!({"groups": groups.collect::<Vec<_>>()})
}

/// The tests of the rules one by one, each with what it says about these rules alone; short ones first.
fn tests_of(rules: &[Rule]) -> Vec<Value> {
    let mut tests = Vec::new();
    let names: BTreeSet<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
    let groups: BTreeSet<&str> = rules.iter().map(|rule| rule.group.as_str()).collect();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/tests");
    for entry in std::fs::read_dir(directory).unwrap() {
        let file = rules::json(&rules::yaml(&std::fs::read_to_string(entry.unwrap().path()).unwrap()));
        // Tests without the recording rules are about those being away.
        if list(&file["rule_files"]).count() < RULES.len() {
            continue;
        }
        let order: Vec<&Value> = list(&file["group_eval_order"])
            .filter(|group| groups.contains(text(group)))
            .collect();
        for test in list(&file["tests"]) {
            let alerts: Vec<&Value> = list(&test["alert_rule_test"])
                .filter(|case| names.contains(text(&case["alertname"])))
                .collect();
            let queries: Vec<&Value> = list(&test["promql_expr_test"])
                .filter(|case| names.iter().any(|name| text(&case["expr"]).contains(name)))
                .collect();
            if alerts.is_empty() && queries.is_empty() {
                continue;
            }
            let cases = alerts.iter().chain(&queries);
            let last = cases.map(|case| rules::seconds(text(&case["eval_time"]))).max();
            let mut test = test.clone();
            test["alert_rule_test"] = json!(alerts);
            test["promql_expr_test"] = json!(queries);
            let alone = json!({
                "rule_files": ["rules.yml"],
                "evaluation_interval": file["evaluation_interval"],
                "group_eval_order": order,
                "tests": [test],
            });
            tests.push((last, alone));
        }
    }
    tests.sort_by_key(|(last, _)| *last);
    tests.into_iter().map(|(_, test)| test).collect()
}

/// Whether a test fails with the mutant in the place of its rule.
fn is_noticed(mutant: &Mutant) -> bool {
    let rules = rules::all();
    let mut concerned = concerned(&rules, &mutant.rule);
    let own = concerned.iter_mut().find(|rule| rule.json == mutant.rule.json);
    own.unwrap().json["expr"] = Value::from(mutant.expr());
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("rules.yml"), file_of(&concerned).to_string()).unwrap();
    tests_of(&concerned).into_iter().any(|test| {
        std::fs::write(directory.path().join("test.yml"), test.to_string()).unwrap();
        let mut promtool = Command::new(promtool());
        promtool
            .args(["test", "rules", "test.yml"])
            .current_dir(directory.path());
        !promtool
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    })
}

#[test]
fn comparisons_are_found_where_they_compare() {
    let expr = "a{b=~\"x>1\",c!=\"y\"} >= 1 and b == bool 2 unless \"<\" < 3";
    let found: Vec<(usize, &str)> = comparisons(expr).into_iter().map(|(at, from, _)| (at, from)).collect();
    assert_eq!(found, [(19, ">="), (30, "=="), (51, "<")]);
}

/// Without a mutant nothing may fail, or a mutant that is noticed would tell nothing.
fn assert_rules_alone_pass(rule: &Rule) {
    let unspoiled = Mutant {
        rule: rule.clone(),
        at: 0,
        from: "",
        to: "",
    };
    assert!(!is_noticed(&unspoiled), "{} fails its tests as it is", rule.name);
}

/// Takes minutes, so it runs where it is asked for: `tests/run --test it each_comparison -- --ignored --nocapture`.
#[test]
#[ignore = "takes minutes"]
#[allow(clippy::print_stdout, reason = "how many there were is what it is run for")]
fn each_comparison_that_is_spoiled_fails_a_test_of_the_rules() {
    let mutants = mutants();
    let (next, survivors) = (Mutex::new(mutants.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let Some(mutant) = next.lock().unwrap().next() else {
                        break;
                    };
                    let first = mutants
                        .iter()
                        .find(|other| other.rule.json == mutant.rule.json)
                        .unwrap();
                    if std::ptr::eq(first, mutant) {
                        assert_rules_alone_pass(&mutant.rule);
                    }
                    if !is_noticed(mutant) {
                        println!("survives: {}", mutant.describe());
                        survivors.lock().unwrap().push(mutant.describe());
                    }
                }
            });
        }
    });
    let survivors = survivors.into_inner().unwrap();
    println!("{} mutants, {} survive", mutants.len(), survivors.len());
    assert!(survivors.is_empty(), "{survivors:#?}");
}
