//! The shipped rules, parsed as Prometheus parses them.

use std::collections::BTreeSet;

use elements_exporter::assets::RULES;
use promql_parser::parser::token::T_LOR;
use promql_parser::parser::{self, BinaryExpr, Expr, ParenExpr};
use regex::{Captures, Regex};
use serde_json::{Map, Value, json};
use yaml_rust2::{Yaml, YamlLoader};

/// An alerting or recording rule.
#[derive(Clone, Debug)]
pub struct Rule {
    pub group: String,
    /// Name of the alert or the recorded series.
    pub name: String,
    pub is_alert: bool,
    pub expr: String,
    pub labels: Vec<(String, String)>,
    pub annotations: Vec<(String, String)>,
    /// Names of the rules that this rule depends on.
    pub reads: BTreeSet<String>,
    /// The complete rule.
    pub json: Value,
}

impl Rule {
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels
            .iter()
            .find(|(label, _)| label == name)
            .map(|(_, value)| value.as_str())
    }
}

pub fn yaml(text: &str) -> Yaml {
    YamlLoader::load_from_str(text).unwrap().swap_remove(0)
}

/// Converts YAML to JSON.
pub fn to_json(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Real(number) => Value::from(number.parse::<f64>().unwrap()),
        Yaml::Integer(number) => Value::from(*number),
        Yaml::String(text) => Value::from(text.as_str()),
        Yaml::Boolean(value) => Value::from(*value),
        Yaml::Array(values) => values.iter().map(to_json).collect(),
        Yaml::Hash(map) => {
            let entries = map
                .iter()
                .map(|(key, value)| (key.as_str().unwrap().to_owned(), to_json(value)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
        Yaml::Null | Yaml::BadValue | Yaml::Alias(_) => Value::Null,
    }
}

/// Converts a Prometheus duration such as `1d2h` to seconds.
pub fn seconds(duration: &str) -> u64 {
    let parts = duration.split_inclusive(|c: char| c.is_ascii_alphabetic());
    parts
        .map(|part| {
            shorten_duration(part, 1)
                .unwrap()
                .trim_end_matches('s')
                .parse::<u64>()
                .unwrap()
        })
        .sum()
}

/// Returns the entries of a YAML map from strings to strings.
pub fn pairs(map: &Yaml) -> Vec<(String, String)> {
    let entries = map.as_hash().into_iter().flatten();
    entries
        .map(|(key, value)| (key.as_str().unwrap().to_owned(), value.as_str().unwrap().to_owned()))
        .collect()
}

pub fn groups(file: &str) -> Vec<String> {
    let groups = yaml(file);
    let groups = groups["groups"].as_vec().unwrap().iter();
    groups.map(|group| group["name"].as_str().unwrap().to_owned()).collect()
}

/// Returns all shipped rules in order.
pub fn all() -> Vec<Rule> {
    let mut rules = Vec::new();
    for file in RULES {
        for group in yaml(file.content)["groups"].as_vec().unwrap() {
            for rule in group["rules"].as_vec().unwrap() {
                let (alert, record) = (rule["alert"].as_str(), rule["record"].as_str());
                rules.push(Rule {
                    group: group["name"].as_str().unwrap().to_owned(),
                    name: alert.or(record).unwrap().to_owned(),
                    is_alert: alert.is_some(),
                    expr: rule["expr"].as_str().unwrap().to_owned(),
                    labels: pairs(&rule["labels"]),
                    annotations: pairs(&rule["annotations"]),
                    reads: BTreeSet::new(),
                    json: to_json(rule),
                });
            }
        }
    }
    let read: Vec<_> = rules.iter().map(|rule| read_by(rule, &rules)).collect();
    for (rule, read) in rules.iter_mut().zip(read) {
        rule.reads = read;
    }
    rules
}

/// Returns the names of the rules whose series or alerts a rule reads.
fn read_by(rule: &Rule, rules: &[Rule]) -> BTreeSet<String> {
    let queried = Regex::new(r#"alertname=~?"([^"]*)""#).unwrap();
    let annotations = rule.annotations.iter().map(|(_, text)| text);
    let texts: Vec<&String> = std::iter::once(&rule.expr).chain(annotations).collect();
    let queried: Vec<Regex> = texts
        .iter()
        .flat_map(|text| queried.captures_iter(text))
        .map(|found| Regex::new(&format!("^(?:{})$", &found[1])).unwrap())
        .collect();
    let read = |other: &&Rule| match other.is_alert {
        true => queried.iter().any(|queried| queried.is_match(&other.name)),
        false => texts.iter().any(|text| text.contains(&other.name)),
    };
    rules.iter().filter(read).map(|other| other.name.clone()).collect()
}

/// Returns the rules with the given names and all rules that they depend on, in order.
pub fn needed(rules: &[Rule], mut names: BTreeSet<String>) -> Vec<Rule> {
    loop {
        let needed = rules.iter().filter(|rule| names.contains(&rule.name));
        let names_read: Vec<String> = needed.flat_map(|rule| rule.reads.clone()).collect();
        let before = names.len();
        names.extend(names_read);
        if names.len() == before {
            return rules
                .iter()
                .filter(|rule| names.contains(&rule.name))
                .cloned()
                .collect();
        }
    }
}

/// Returns a rule file with these rules as JSON, which is valid YAML.
pub fn file_of(rules: &[Rule]) -> Value {
    let groups: BTreeSet<&str> = rules.iter().map(|rule| rule.group.as_str()).collect();
    let groups = groups.into_iter().map(|group| {
        let group_rules: Vec<&Value> = rules
            .iter()
            .filter(|rule| rule.group == group)
            .map(|rule| &rule.json)
            .collect();
        json!({"name": group, "rules": group_rules})
    });
    json!({"groups": groups.collect::<Vec<_>>()})
}

/// Returns a rule's expression without operands of `or` that read the history of the rule itself or of these recorded
/// series.
pub fn without_history(rule: &Rule, recorded: &[&str]) -> String {
    let reads_history = |side: &Expr| {
        let text = side.to_string();
        let past = |name: &str| [format!("{name}["), format!("{name} offset")];
        text.contains(&rule.name)
            || recorded
                .iter()
                .any(|name| past(name).iter().any(|read| text.contains(read)))
    };
    remove_history(parser::parse(&rule.expr).unwrap(), &reads_history).to_string()
}

fn remove_history(expr: Expr, reads_history: &dyn Fn(&Expr) -> bool) -> Expr {
    match expr {
        Expr::Binary(binary) if binary.op.id() == T_LOR => {
            let lhs = remove_history(*binary.lhs, reads_history);
            let rhs = remove_history(*binary.rhs, reads_history);
            match (reads_history(&lhs), reads_history(&rhs)) {
                (true, false) => rhs,
                (_, true) => lhs,
                (false, false) => Expr::Binary(BinaryExpr {
                    lhs: Box::new(lhs),
                    rhs: Box::new(rhs),
                    ..binary
                }),
            }
        }
        Expr::Binary(binary) => Expr::Binary(BinaryExpr {
            lhs: Box::new(remove_history(*binary.lhs, reads_history)),
            rhs: Box::new(remove_history(*binary.rhs, reads_history)),
            ..binary
        }),
        Expr::Paren(paren) => Expr::Paren(ParenExpr {
            expr: Box::new(remove_history(*paren.expr, reads_history)),
        }),
        other => other,
    }
}

/// Returns the recording rules with inlined dependencies, so that each can be evaluated for times without recorded
/// series.
pub fn with_rules_inlined() -> Vec<(Rule, String)> {
    // Only selectors can have an offset, so offsets of recorded series are dropped.
    let offset = Regex::new(r"(?-u)([\w:]+) offset \w+").unwrap();
    // Only selectors can have label matchers, so a join filters the series of an inlined expression instead.
    let selector = Regex::new(r#"(?-u)([\w:]+)\{(\w+)=~?"([\w |]+)"\}"#).unwrap();
    let mut recorded: Vec<(String, String)> = Vec::new();
    let rules: Vec<Rule> = all().into_iter().filter(|rule| !rule.is_alert).collect();
    // A rule may read the history of a rule that follows it.
    let all_names = recorded_names(&rules);
    for rule in &rules {
        let names: Vec<&str> = recorded.iter().map(|(name, _)| name.as_str()).collect();
        let expr = without_history(rule, &all_names);
        let expr = offset.replace_all(&expr, |found: &Captures| match names.contains(&&found[1]) {
            true => found[1].to_owned(),
            false => found[0].to_owned(),
        });
        let expr = selector.replace_all(&expr, |found: &Captures| match names.contains(&&found[1]) {
            true => {
                let values = found[3].split('|');
                let values =
                    values.map(|value| format!(r#"label_replace(vector(1), "{}", "{value}", "", "")"#, &found[2]));
                let values: Vec<String> = values.collect();
                format!("({} and on ({}) ({}))", &found[1], &found[2], values.join(" or "))
            }
            false => found[0].to_owned(),
        });
        let mut expr = expr.into_owned();
        // Longer names are replaced first, because a name may be the start of another.
        let mut inlined = recorded.clone();
        inlined.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        for (name, inner) in inlined {
            expr = expr.replace(&name, &format!("({inner})"));
        }
        recorded.push((rule.name.clone(), expr));
    }
    let exprs: Vec<String> = recorded.into_iter().map(|(_, expr)| expr).collect();
    rules.into_iter().zip(exprs).collect()
}

/// Returns the names of the recording rules.
pub fn recorded_names(rules: &[Rule]) -> Vec<&str> {
    let recording = rules.iter().filter(|rule| !rule.is_alert);
    recording.map(|rule| rule.name.as_str()).collect()
}

/// Divides all durations in a file of rules or routes by a factor, but to no less than one second. Durations are `for`,
/// `keep_firing_for`, intervals, the waits of groups, ranges and offsets.
pub fn speed_up(text: &str, factor: u64) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let key = line.trim_start();
        let duration_keys = [
            "for: ",
            "keep_firing_for: ",
            "interval: ",
            "group_wait: ",
            "group_interval: ",
            "repeat_interval: ",
        ];
        let line = match duration_keys.iter().find_map(|prefix| key.strip_prefix(prefix)) {
            Some(duration) if !line.trim_start().starts_with('#') => {
                line.replace(duration, &shorten_duration(duration, factor).unwrap())
            }
            _ => shorten_ranges(line, factor),
        };
        lines.push(line);
    }
    lines.join("\n") + "\n"
}

/// Shortens durations in brackets and after `offset`.
fn shorten_ranges(line: &str, factor: u64) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(['[', 'o']) {
        let (before, found) = rest.split_at(at);
        out.push_str(before);
        let lead = ["[", "offset "].into_iter().find(|lead| found.starts_with(lead));
        let Some(lead) = lead else {
            out.push_str(&found[..1]);
            rest = &found[1..];
            continue;
        };
        out.push_str(lead);
        rest = &found[lead.len()..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (duration, after) = rest.split_at(end);
        out.push_str(&shorten_duration(duration, factor).unwrap_or_else(|| duration.to_owned()));
        rest = after;
    }
    out + rest
}

fn shorten_duration(duration: &str, factor: u64) -> Option<String> {
    let (number, unit) = duration.split_at(duration.len().checked_sub(1)?);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    let seconds = number.parse::<u64>().ok()? * seconds;
    Some(format!("{}s", (seconds / factor).max(1)))
}

#[test]
fn speed_up_changes_only_durations() {
    let text =
        "  for: 5m\n  interval: 2m\n  # for: 5m or so\n  expr: x[1d] offset 7d > on (job) y{a=~\"[0-9]\"} offset 1w\n";
    let sped_up = speed_up(text, 60);
    assert_eq!(
        sped_up,
        "  for: 5s\n  interval: 2s\n  # for: 5m or so\n  expr: x[1440s] offset 10080s > on (job) y{a=~\"[0-9]\"} offset 10080s\n"
    );
}
