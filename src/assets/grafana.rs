//! The alerts as Grafana-managed rules in the format of its file provisioning, for users without an Alertmanager. They
//! are generated from the rules for Prometheus, so that there is one source of their texts.

use std::collections::BTreeMap;

use yaml_rust2::yaml::Hash;
use yaml_rust2::{EmitError, ScanError, Yaml, YamlEmitter, YamlLoader};

use super::{Links, RULES};

/// Name of the file.
pub const FILE_NAME: &str = "elements-alerts.yaml";

/// Default data source: the one that every stack of Grafana Cloud has.
pub const DEFAULT_DATASOURCE: &str = "grafanacloud-prom";

/// Maximum length of the id of a rule in Grafana.
pub const MAX_UID: usize = 40;

/// Default evaluation interval of a group, as in Prometheus.
const INTERVAL: &str = "1m";

/// Range of a query in seconds. Instant queries do not use it, but the format requires it.
const LOOKBACK: i64 = 600;

/// Summary and description of the alerts whose own texts contain queries, which Grafana templates do not support. The
/// value is the number of affected modules and backup scopes of the customer.
const TEXTS: [(&str, [&str; 2]); 4] = [
    (
        "ElementsBackupOverdue",
        [
            "{{ $labels.organization }}: no backup within the objective in {{ $value }} module{{ if ne $value 1.0 }}s{{ end }}",
            "{{ $value }} module{{ if ne $value 1.0 }}s{{ end }} of {{ $labels.organization }} had no restore point within the \
             objective when last read, and no run is under way that may still keep it. The dashboard names them.",
        ],
    ),
    (
        "ElementsBackupOverdueCritical",
        [
            "{{ $labels.organization }}: no backup for twice the objective in {{ $value }} module{{ if ne $value 1.0 }}s{{ end }}",
            "{{ $value }} module{{ if ne $value 1.0 }}s{{ end }} of {{ $labels.organization }} had no restore point for twice \
             the objective when last read. The dashboard names them.",
        ],
    ),
    (
        "ElementsBackupFailingRepeatedly",
        [
            "{{ $labels.organization }}: consecutive failures in {{ $value }} module{{ if ne $value 1.0 }}s{{ end }}",
            "In {{ $value }} module{{ if ne $value 1.0 }}s{{ end }} of {{ $labels.organization }}, runs have failed in a row \
             since the latest restore point. The dashboard names them.",
        ],
    ),
    (
        "ElementsBackupRunningLong",
        [
            "{{ $labels.organization }}: runs take too long in {{ $value }} module{{ if ne $value 1.0 }}s{{ end }}",
            "In {{ $value }} module{{ if ne $value 1.0 }}s{{ end }} of {{ $labels.organization }}, a run has been in progress \
             for far longer than usual. The dashboard names them.",
        ],
    ),
];

const HEADING: &str = "\
# Written by `elements_exporter assets --grafana-alerts` and made of deploy/prometheus/elements-alerts.yml. The recording
# rules of elements-recording.yml have to be evaluated by the Prometheus or Mimir that is asked. docs/alerting.md says more.
";

/// Reason why the rules cannot be generated. The embedded rules are always valid.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules for Prometheus are not valid YAML.
    #[error("cannot parse the rules")]
    Read(#[from] ScanError),
    /// The rules for Grafana cannot be written as YAML.
    #[error("cannot serialize the rules")]
    Write(#[from] EmitError),
}

/// Returns the file that provisions all alerts, evaluated by the data source with this id.
///
/// # Errors
/// Returns an error if the embedded rules are invalid, which a test prevents.
pub fn alert_rules(datasource: &str, links: &Links) -> Result<String, Error> {
    let mut groups = Vec::new();
    for asset in RULES {
        for document in YamlLoader::load_from_str(&links.absolute(asset.content))? {
            groups.extend(document["groups"].as_vec().into_iter().flatten().cloned());
        }
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for rule in groups.iter().flat_map(alerts) {
        *counts.entry(text(&rule["alert"])).or_default() += 1;
    }
    let groups = groups.iter().filter(|group| alerts(group).next().is_some());
    let groups = groups.map(|group| {
        let rules = alerts(group).map(|rule| {
            let is_alone = counts.get(text(&rule["alert"])) == Some(&1);
            alert_rule(rule, is_alone, datasource)
        });
        map([
            ("orgId", Yaml::Integer(1)),
            ("name", group["name"].clone()),
            ("folder", string("Elements")),
            ("interval", or(&group["interval"], INTERVAL)),
            ("rules", Yaml::Array(rules.collect())),
        ])
    });
    let file = map([
        ("apiVersion", Yaml::Integer(1)),
        ("groups", Yaml::Array(groups.collect())),
    ]);
    let mut written = String::new();
    YamlEmitter::new(&mut written).dump(&file)?;
    Ok(format!("{HEADING}{written}\n"))
}

fn alerts(group: &Yaml) -> impl Iterator<Item = &Yaml> {
    let rules = group["rules"].as_vec().into_iter().flatten();
    rules.filter(|rule| !rule["alert"].is_badvalue())
}

fn alert_rule(rule: &Yaml, is_alone: bool, datasource: &str) -> Yaml {
    let labels = &rule["labels"];
    // Labels that distinguish rules with the same name.
    let parts = ["severity", "extent"].map(|label| text(&labels[label]));
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let name = text(&rule["alert"]);
    let title = if is_alone {
        name.to_owned()
    } else {
        format!("{name} ({})", parts.join(", "))
    };
    let annotations = rule["annotations"].as_hash().into_iter().flatten();
    let of_its_own = TEXTS.iter().find(|(of, _)| *of == name).map(|(_, texts)| texts);
    let annotations = annotations.map(|(key, value)| {
        let template = match (key.as_str(), of_its_own) {
            (Some("summary"), Some([summary, _])) => summary,
            (Some("description"), Some([_, description])) => description,
            _ => text(value),
        };
        (key.clone(), string(&translate(template)))
    });
    map([
        ("uid", string(&format!("{name}-{}", parts.join("-")).to_lowercase())),
        ("title", string(&title)),
        ("condition", string("C")),
        ("data", Yaml::Array(queries(text(&rule["expr"]), datasource))),
        // An empty result is the normal state of an alert, and a failed query is a separate error.
        ("noDataState", string("OK")),
        ("execErrState", string("Error")),
        ("for", or(&rule["for"], "0s")),
        ("keepFiringFor", or(&rule["keep_firing_for"], "0s")),
        // As in Prometheus, an alert ends with the first evaluation without its series.
        ("missing_series_evals_to_resolve", Yaml::Integer(1)),
        ("annotations", Yaml::Hash(annotations.collect())),
        ("labels", labels.clone()),
    ])
}

/// Returns the query, and two expressions that convert each series, whatever its value, to one above the threshold: in
/// Prometheus, any series is an alert.
fn queries(expr: &str, datasource: &str) -> Vec<Yaml> {
    const EXPRESSIONS: &str = "__expr__";
    let query = |id: &str, datasource: &str, model: Yaml| {
        map([
            ("refId", string(id)),
            (
                "relativeTimeRange",
                map([("from", Yaml::Integer(LOOKBACK)), ("to", Yaml::Integer(0))]),
            ),
            ("datasourceUid", string(datasource)),
            ("model", model),
        ])
    };
    let is_above = map([("type", string("gt")), ("params", Yaml::Array(vec![Yaml::Integer(0)]))]);
    let asked = map([
        ("refId", string("A")),
        ("expr", string(expr)),
        ("instant", Yaml::Boolean(true)),
        ("range", Yaml::Boolean(false)),
    ]);
    let is_there = map([
        ("refId", string("B")),
        ("type", string("math")),
        ("expression", string("is_number($A) || is_nan($A) || is_inf($A)")),
    ]);
    let threshold = map([
        ("refId", string("C")),
        ("type", string("threshold")),
        ("expression", string("B")),
        ("conditions", Yaml::Array(vec![map([("evaluator", is_above)])])),
    ]);
    vec![
        query("A", datasource, asked),
        query("B", EXPRESSIONS, is_there),
        query("C", EXPRESSIONS, threshold),
    ]
}

/// Converts a template to Grafana's syntax: the value has another name, and queries are not supported.
fn translate(template: &str) -> String {
    const ASKED_DATE: &str = "{{ with printf \"vector(%s + 0)\" $labels.ends | query }}\
                              {{ (. | first | value | toTime).Format \"2006-01-02\" }}{{ end }}";
    const DATE: &str = "{{ ($labels.ends | toTime).Format \"2006-01-02\" }}";
    let translated = without_queries(&template.replace(ASKED_DATE, DATE)).replace("$value", "$values.A.Value");
    // Separators after a removed query.
    translated.trim_start_matches(['.', ',', ' ']).to_owned()
}

/// State of the text between the start and the end of a block.
struct Block {
    is_query: bool,
    /// Whether the text is after its `else`, which applies if a query returns nothing.
    is_else: bool,
}

/// Removes the blocks of a template that query Prometheus.
fn without_queries(template: &str) -> String {
    let mut kept = String::new();
    let mut blocks: Vec<Block> = Vec::new();
    let mut rest = template;
    while let Some((before, action, after)) = next_action(rest) {
        let is_shown = blocks.iter().all(|block| !block.is_query || block.is_else);
        let is_of_query = match action.split_whitespace().next() {
            Some("if" | "with" | "range") => {
                let is_query = action.contains("| query");
                blocks.push(Block {
                    is_query,
                    is_else: false,
                });
                is_query
            }
            Some("else") => blocks.last_mut().is_some_and(|block| {
                block.is_else = true;
                block.is_query
            }),
            Some("end") => blocks.pop().is_some_and(|block| block.is_query),
            _ => false,
        };
        if is_shown {
            kept.push_str(before);
        }
        if is_shown && !is_of_query {
            kept.push_str("{{");
            kept.push_str(action);
            kept.push_str("}}");
        }
        rest = after;
    }
    kept.push_str(rest);
    kept
}

/// Returns the next action of a template, with the text before and after it.
fn next_action(template: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = template.split_once("{{")?;
    let (action, after) = rest.split_once("}}")?;
    Some((before, action, after))
}

fn text(value: &Yaml) -> &str {
    value.as_str().unwrap_or_default()
}

fn string(text: &str) -> Yaml {
    Yaml::String(text.to_owned())
}

fn or(value: &Yaml, default: &str) -> Yaml {
    if value.is_badvalue() {
        string(default)
    } else {
        value.clone()
    }
}

fn map<const N: usize>(entries: [(&str, Yaml); N]) -> Yaml {
    let entries = entries.into_iter().map(|(key, value)| (string(key), value));
    Yaml::Hash(entries.collect::<Hash>())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    fn rules_of(file: &str, name: &str) -> Vec<Yaml> {
        let document = YamlLoader::load_from_str(file).unwrap().swap_remove(0);
        let groups = document["groups"].as_vec().unwrap().clone();
        let rules = groups.iter().flat_map(|group| group["rules"].as_vec().unwrap().clone());
        rules.filter(|rule| !rule[name].is_badvalue()).collect()
    }

    #[test]
    fn alerts_are_all_converted_for_grafana() {
        let written = alert_rules("uid", &Links::default()).unwrap();
        let ours: Vec<Yaml> = RULES
            .iter()
            .flat_map(|asset| rules_of(asset.content, "alert"))
            .collect();
        let theirs = rules_of(&written, "uid");
        assert_eq!(theirs.len(), ours.len());
        for (own, _) in TEXTS {
            assert!(ours.iter().any(|rule| text(&rule["alert"]) == own), "{own}");
        }
        for (theirs, ours) in theirs.iter().zip(&ours) {
            let name = text(&ours["alert"]);
            assert!(text(&theirs["title"]).starts_with(name), "{name}");
            let queries = theirs["data"].as_vec().unwrap();
            assert_eq!(queries[0]["model"]["expr"], ours["expr"], "{name}");
            assert_eq!(queries[0]["datasourceUid"], string("uid"));
            assert_eq!(text(&theirs["condition"]), text(&queries[2]["refId"]));
            let threshold = &queries[2]["model"];
            assert_eq!(text(&threshold["expression"]), text(&queries[1]["refId"]));
            assert_eq!(threshold["conditions"][0]["evaluator"]["params"][0], Yaml::Integer(0));
            assert_eq!(theirs["labels"], ours["labels"], "{name}");
            for (grafana, prometheus) in [("for", "for"), ("keepFiringFor", "keep_firing_for")] {
                assert_eq!(theirs[grafana], or(&ours[prometheus], "0s"), "{name}");
            }
            for (key, template) in ours["annotations"].as_hash().unwrap() {
                let translated = text(&theirs["annotations"][text(key)]);
                assert!(!translated.is_empty(), "{name} {key:?}");
                let unknown = ["| query", "first", "$value ", "$value}", "${"];
                for unknown in unknown {
                    assert!(!translated.contains(unknown), "{name}: {translated}");
                }
                let values = |text: &str| text.matches("$value").count();
                if !text(template).contains("| query") {
                    assert_eq!(values(translated), values(text(template)), "{name}");
                }
                let is_whole = !translated.starts_with([' ', '.']) && !translated.ends_with([' ', ',', ':']);
                assert!(is_whole && !translated.contains(": ."), "{name}: {translated}");
            }
        }
    }

    /// A changed id creates another rule, whose alerts start again.
    #[test]
    fn ids_and_titles_are_unique_and_constant() {
        let rules = rules_of(&alert_rules(DEFAULT_DATASOURCE, &Links::default()).unwrap(), "uid");
        let distinct = |key: &str| rules.iter().map(|rule| text(&rule[key])).collect::<BTreeSet<_>>();
        let uids = distinct("uid");
        assert_eq!((uids.len(), distinct("title").len()), (rules.len(), rules.len()));
        for uid in &uids {
            assert!(uid.len() <= MAX_UID, "{uid}");
            assert!(
                uid.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'),
                "{uid}"
            );
        }
        for uid in [
            "elementswatchdog-none",
            "elementsexporterdown-critical",
            "elementsexporterdown-warning-some",
            "elementslicenseexpiring-info",
        ] {
            assert!(uids.contains(uid), "{uid}");
        }
    }

    #[test]
    fn templates_are_translated() {
        for (prometheus, grafana) in [
            (
                "{{ $labels.x }}: {{ $value }}",
                "{{ $labels.x }}: {{ $values.A.Value }}",
            ),
            (
                "{{ with $labels.x }} ({{ . }}){{ end }}",
                "{{ with $labels.x }} ({{ . }}){{ end }}",
            ),
            ("a{{ with query \"x\" | query }}b{{ if .y }}c{{ end }}d{{ end }}e", "ae"),
            (
                "{{ range printf \"x{y=%q}\" $labels.y | query }}b{{ else }}c{{ end }}. d",
                "c. d",
            ),
            ("{{ with $labels.x | query }}b{{ end }}. No more.", "No more."),
            ("{{ $labels.x | urlquery }}", "{{ $labels.x | urlquery }}"),
        ] {
            assert_eq!(translate(prometheus), grafana, "{prometheus}");
        }
    }
}
