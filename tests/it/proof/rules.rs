//! The shipped rules, read as Prometheus reads them.

use elements_exporter::assets::RULES;
use serde_json::{Map, Value};
use yaml_rust2::{Yaml, YamlLoader};

/// A rule, with the text of its expression.
#[derive(Clone, Debug)]
pub struct Rule {
    pub group: String,
    /// The name of the alert or of the series recorded.
    pub name: String,
    pub alerts: bool,
    pub expr: String,
    pub labels: Vec<(String, String)>,
    pub annotations: Vec<(String, String)>,
    /// The whole rule as it is written.
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

/// Reads a YAML document.
pub fn yaml(text: &str) -> Yaml {
    YamlLoader::load_from_str(text).unwrap().swap_remove(0)
}

/// The same as JSON, which is YAML as well.
pub fn json(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Real(number) => Value::from(number.parse::<f64>().unwrap()),
        Yaml::Integer(number) => Value::from(*number),
        Yaml::String(text) => Value::from(text.as_str()),
        Yaml::Boolean(value) => Value::from(*value),
        Yaml::Array(values) => values.iter().map(json).collect(),
        Yaml::Hash(map) => {
            let entries = map
                .iter()
                .map(|(key, value)| (key.as_str().unwrap().to_owned(), json(value)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
        Yaml::Null | Yaml::BadValue | Yaml::Alias(_) => Value::Null,
    }
}

/// Seconds of a duration of Prometheus, such as `1d2h`.
pub fn seconds(duration: &str) -> u64 {
    let parts = duration.split_inclusive(|c: char| c.is_ascii_alphabetic());
    parts
        .map(|part| shorter(part, 1).unwrap().trim_end_matches('s').parse::<u64>().unwrap())
        .sum()
}

/// The entries of a YAML map whose keys and values are texts.
pub fn pairs(map: &Yaml) -> Vec<(String, String)> {
    let entries = map.as_hash().into_iter().flatten();
    entries
        .map(|(key, value)| (key.as_str().unwrap().to_owned(), value.as_str().unwrap().to_owned()))
        .collect()
}

/// All shipped rules in their order.
pub fn all() -> Vec<Rule> {
    let mut rules = Vec::new();
    for file in RULES {
        for group in yaml(file.content)["groups"].as_vec().unwrap() {
            for rule in group["rules"].as_vec().unwrap() {
                let (alert, record) = (rule["alert"].as_str(), rule["record"].as_str());
                rules.push(Rule {
                    group: group["name"].as_str().unwrap().to_owned(),
                    name: alert.or(record).unwrap().to_owned(),
                    alerts: alert.is_some(),
                    expr: rule["expr"].as_str().unwrap().to_owned(),
                    labels: pairs(&rule["labels"]),
                    annotations: pairs(&rule["annotations"]),
                    json: json(rule),
                });
            }
        }
    }
    rules
}

/// The recording rules with what they stand on put in its place, so that each can be evaluated over a past in which
/// none was.
pub fn unfolded() -> Vec<(String, String)> {
    let mut recorded: Vec<(String, String)> = Vec::new();
    for rule in all().into_iter().filter(|rule| !rule.alerts) {
        let mut expr = rule.expr;
        // Longer names first, so that none is taken for the beginning of another.
        let mut known = recorded.clone();
        known.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        for (name, inner) in known {
            expr = expr.replace(&name, &format!("({inner})"));
        }
        recorded.push((rule.name, expr));
    }
    recorded
}

/// A file of rules, or of routes, with all that takes its time made so many times shorter: `for`, `keep_firing_for`,
/// intervals and waits of groups, ranges and offsets; a second at least.
pub fn hastened(text: &str, factor: u64) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let key = line.trim_start();
        let timed = [
            "for: ",
            "keep_firing_for: ",
            "interval: ",
            "group_wait: ",
            "group_interval: ",
            "repeat_interval: ",
        ];
        let line = match timed.iter().find_map(|prefix| key.strip_prefix(prefix)) {
            Some(duration) if !line.trim_start().starts_with('#') => {
                line.replace(duration, &shorter(duration, factor).unwrap())
            }
            _ => ranges(line, factor),
        };
        lines.push(line);
    }
    lines.join("\n") + "\n"
}

/// Shortens what stands between brackets, and after `offset`.
fn ranges(line: &str, factor: u64) -> String {
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
        out.push_str(&shorter(duration, factor).unwrap_or_else(|| duration.to_owned()));
        rest = after;
    }
    out + rest
}

fn shorter(duration: &str, factor: u64) -> Option<String> {
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
fn rules_are_hastened_where_they_wait_and_nowhere_else() {
    let text =
        "  for: 5m\n  interval: 2m\n  # for: 5m or so\n  expr: x[1d] offset 7d > on (job) y{a=~\"[0-9]\"} offset 1w\n";
    let hastened = hastened(text, 60);
    assert_eq!(
        hastened,
        "  for: 5s\n  interval: 2s\n  # for: 5m or so\n  expr: x[1440s] offset 10080s > on (job) y{a=~\"[0-9]\"} offset 10080s\n"
    );
}
