//! Mutation tests of the rules. Each comparison in each rule is changed in turn, and the promtool tests must fail for
//! each change.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use elements_exporter::assets::RULES;
use serde_json::{Value, json};

use super::dashboards::{list, text};
use super::rules::{self, Rule};
use crate::harness::parser::promtool;

/// Number of concurrent runs: the number of cores of a small machine.
const CONCURRENCY: usize = 2;

/// Replacements for each comparison. `==` and `!=` replace each other. An inequality is replaced by the inequality in
/// the other direction, and by the one that differs only for equal values.
const REPLACEMENTS: &[(&str, &[&str])] = &[
    (">=", &["<=", ">"]),
    ("<=", &[">=", "<"]),
    ("==", &["!="]),
    ("!=", &["=="]),
    (">", &["<", ">="]),
    ("<", &[">", "<="]),
];

/// Mutants that are equivalent to the original: the rule, the original comparison and its replacement. Comments give
/// the reasons.
const EQUIVALENT: &[(&str, &str, &str)] = &[
    // The limit of 1.5 is between one run and two, and `increase()` does not return exactly 1.5.
    ("ElementsBackupRunsSkipped", ">", ">="),
    // The recorded value is at least five.
    ("ElementsMassFailure", ">", ">="),
    // The result differs only if the API is down for exactly 15 minutes of the last 30.
    ("ElementsApiErrors", "<", "<="),
];

/// A rule with one changed comparison.
struct Mutant {
    rule: Rule,
    /// Position in the expression.
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

/// Returns the comparisons in an expression, outside quotes and selectors, with their positions and replacements.
fn comparisons(expr: &str) -> Vec<(usize, &'static str, &'static [&'static str])> {
    let mut found = Vec::new();
    let (mut quoted, mut braces, mut at) = (false, 0, 0);
    while let Some(character) = expr[at..].chars().next() {
        match character {
            '"' => quoted = !quoted,
            '{' if !quoted => braces += 1,
            '}' if !quoted => braces -= 1,
            _ if !quoted && braces == 0 => {
                let comparison = REPLACEMENTS
                    .iter()
                    .find(|(operator, _)| expr[at..].starts_with(operator));
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
            let distinguishable = others.iter().filter(|to| !EQUIVALENT.contains(&(&rule.name, from, to)));
            mutants.extend(distinguishable.map(|to| Mutant {
                rule: rule.clone(),
                at,
                from,
                to,
            }));
        }
    }
    mutants
}

/// Returns the rules that a change to one rule can affect, and the rules that they depend on.
fn affected(rules: &[Rule], mutant: &Rule) -> Vec<Rule> {
    let mut names = BTreeSet::from([mutant.name.clone()]);
    loop {
        let reads = |rule: &&Rule| !rule.reads.is_disjoint(&names);
        let names_read: Vec<String> = rules.iter().filter(reads).map(|rule| rule.name.clone()).collect();
        let before = names.len();
        names.extend(names_read);
        if names.len() == before {
            return rules::needed(rules, names);
        }
    }
}

/// Returns each test of the given rules, limited to expectations about these rules. Short tests come first.
fn tests_of(rules: &[Rule]) -> Vec<Value> {
    let mut tests = Vec::new();
    let names: BTreeSet<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
    let groups: BTreeSet<&str> = rules.iter().map(|rule| rule.group.as_str()).collect();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/tests");
    for entry in std::fs::read_dir(directory).unwrap() {
        let file = rules::to_json(&rules::yaml(&std::fs::read_to_string(entry.unwrap().path()).unwrap()));
        // Tests without the recording rules test the absence of these rules, so they do not apply.
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
            let single = json!({
                "rule_files": ["rules.yml"],
                "evaluation_interval": file["evaluation_interval"],
                "group_eval_order": order,
                "tests": [test],
            });
            tests.push((last, single));
        }
    }
    tests.sort_by_key(|(last, _)| *last);
    tests.into_iter().map(|(_, test)| test).collect()
}

/// Returns whether a test fails if the mutant replaces its rule.
fn is_detected(mutant: &Mutant) -> bool {
    let rules = rules::all();
    let mut affected = affected(&rules, &mutant.rule);
    let original = affected.iter_mut().find(|rule| rule.json == mutant.rule.json);
    original.unwrap().json["expr"] = Value::from(mutant.expr());
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("rules.yml"),
        rules::file_of(&affected).to_string(),
    )
    .unwrap();
    tests_of(&affected).into_iter().any(|test| {
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
fn comparisons_are_found_outside_strings_and_selectors() {
    let expr = "a{b=~\"x>1\",c!=\"y\"} >= 1 and b == bool 2 unless \"<\" < 3";
    let found: Vec<(usize, &str)> = comparisons(expr).into_iter().map(|(at, from, _)| (at, from)).collect();
    assert_eq!(found, [(19, ">="), (30, "=="), (51, "<")]);
}

/// Asserts that the tests pass without a mutant. Otherwise, a failure with a mutant would prove nothing.
fn assert_unchanged_rule_passes(rule: &Rule) {
    let unchanged = Mutant {
        rule: rule.clone(),
        at: 0,
        from: "",
        to: "",
    };
    assert!(
        !is_detected(&unchanged),
        "{} fails its tests without a change",
        rule.name
    );
}

/// Takes minutes, so it runs only with `tests/run --test monitoring comparison_mutants -- --ignored --nocapture`.
#[test]
#[ignore = "takes minutes"]
#[allow(clippy::print_stdout, reason = "the number of mutants is printed")]
fn comparison_mutants_fail_a_test_of_the_rules() {
    let mutants = mutants();
    let (next, survivors) = (Mutex::new(mutants.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..CONCURRENCY {
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
                        assert_unchanged_rule_passes(&mutant.rule);
                    }
                    if !is_detected(mutant) {
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
