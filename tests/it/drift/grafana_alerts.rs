//! Converts the Prometheus alerts to Grafana-managed alert rules, in Grafana's file provisioning format.

use std::collections::{BTreeMap, BTreeSet};

use elements_exporter::assets::{self, DEFAULT_DATASOURCE, GRAFANA_ALERTS, Links, RULES};
use url::Url;
use yaml_rust2::yaml::Hash;
use yaml_rust2::{Yaml, YamlEmitter, YamlLoader};

use super::{read, repository, update_expected};

/// Maximum length of a rule id in Grafana.
const MAX_UID: usize = 40;

/// Default evaluation interval of a rule group, as in Prometheus.
const INTERVAL: &str = "1m";

/// Range of a query, in seconds. The format requires it, although instant queries do not use it.
const LOOKBACK: i64 = 600;

/// Summaries and descriptions for alerts whose annotations would be incomplete without their queries, which Grafana
/// templates do not support. [`translate`] removes the queries from the annotations of other alerts. In these texts,
/// `$value` is the number of the customer's affected modules and backup scopes.
const TEXTS: [(&str, [&str; 2]); 4] = [
    (
        "ElementsBackupOverdue",
        [
            "{{ $labels.organization }}: RPO exceeded, {{ $value }} module{{ if ne $value 1.0 }}s{{ end }} affected",
            "{{ $labels.organization }}: at the last poll, the latest restore point was older than the RPO, and no run in \
             progress is expected to create one soon. {{ $value }} module{{ if ne $value 1.0 }}s{{ end }} affected; see the \
             dashboard.",
        ],
    ),
    (
        "ElementsBackupOverdueCritical",
        [
            "{{ $labels.organization }}: restore point older than twice the RPO, {{ $value }} \
             module{{ if ne $value 1.0 }}s{{ end }} affected",
            "{{ $labels.organization }}: at the last poll, the latest restore point was more than twice as old as the RPO \
             allows. {{ $value }} module{{ if ne $value 1.0 }}s{{ end }} affected; see the dashboard.",
        ],
    ),
    (
        "ElementsBackupFailingRepeatedly",
        [
            "{{ $labels.organization }}: consecutive failures, {{ $value }} module{{ if ne $value 1.0 }}s{{ end }} affected",
            "{{ $labels.organization }}: three or more consecutive runs created no restore point. {{ $value }} \
             module{{ if ne $value 1.0 }}s{{ end }} affected; see the dashboard.",
        ],
    ),
    (
        "ElementsBackupRunningLong",
        [
            "{{ $labels.organization }}: run taking too long, {{ $value }} module{{ if ne $value 1.0 }}s{{ end }} affected",
            "{{ $labels.organization }}: a run has been in progress for far longer than usual. {{ $value }} \
             module{{ if ne $value 1.0 }}s{{ end }} affected; see the dashboard.",
        ],
    ),
];

const HEADING: &str = "\
# Generated from deploy/prometheus/elements-alerts.yml. `elements_exporter assets --grafana-alerts` writes this file
# with your data source and URLs. The Prometheus or Mimir server that Grafana queries must evaluate the rules in
# elements-recording.yml. See docs/alerting.md.
";

/// Returns the file that provisions all alerts. Their queries use the data source whose UID is `datasource`.
fn alert_rules(datasource: &str, links: &Links) -> String {
    let mut groups = Vec::new();
    for asset in RULES {
        for document in YamlLoader::load_from_str(&links.absolute(asset.content)).unwrap() {
            groups.extend(document["groups"].as_vec().into_iter().flatten().cloned());
        }
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for rule in groups.iter().flat_map(alerts) {
        *counts.entry(text(&rule["alert"])).or_default() += 1;
    }
    let groups = groups.iter().filter(|group| alerts(group).next().is_some());
    let groups = groups.map(|group| {
        let interval = value_or(&group["interval"], INTERVAL);
        let rules = alerts(group).map(|rule| {
            let is_alone = counts.get(text(&rule["alert"])) == Some(&1);
            alert_rule(rule, text(&interval), is_alone, datasource)
        });
        let rules = Yaml::Array(rules.collect());
        map([
            ("orgId", Yaml::Integer(1)),
            ("name", group["name"].clone()),
            ("folder", string("Elements")),
            ("interval", interval),
            ("rules", rules),
        ])
    });
    let file = map([
        ("apiVersion", Yaml::Integer(1)),
        ("groups", Yaml::Array(groups.collect())),
    ]);
    let mut written = String::new();
    YamlEmitter::new(&mut written).dump(&file).unwrap();
    format!("{HEADING}{written}\n")
}

fn alerts(group: &Yaml) -> impl Iterator<Item = &Yaml> {
    let rules = group["rules"].as_vec().into_iter().flatten();
    rules.filter(|rule| !rule["alert"].is_badvalue())
}

fn alert_rule(rule: &Yaml, interval: &str, is_alone: bool, datasource: &str) -> Yaml {
    let labels = &rule["labels"];
    // These labels distinguish rules with the same name.
    let parts = ["severity", "extent"].map(|label| text(&labels[label]));
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let name = text(&rule["alert"]);
    let title = if is_alone {
        name.to_owned()
    } else {
        format!("{name} ({})", parts.join(", "))
    };
    let annotations = rule["annotations"].as_hash().into_iter().flatten();
    let replacement = TEXTS.iter().find(|(of, _)| *of == name).map(|(_, texts)| texts);
    let annotations = annotations.map(|(key, value)| {
        let template = match (key.as_str(), replacement) {
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
        // With an empty result, the alert does not fire. A failed query is reported separately.
        ("noDataState", string("OK")),
        ("execErrState", string("Error")),
        ("for", value_or(&rule["for"], "0s")),
        ("keepFiringFor", value_or(&rule["keep_firing_for"], "0s")),
        // The query returns only firing series, and Grafana does not apply keepFiringFor to series that disappear. This
        // setting keeps the alerts of such series firing.
        (
            "missing_series_evals_to_resolve",
            Yaml::Integer(missing_evaluations(rule, interval)),
        ),
        ("annotations", Yaml::Hash(annotations.collect())),
        ("labels", labels.clone()),
    ])
}

/// Returns the number of evaluations for which a series must be missing before its alert resolves. The number is at
/// least one, and corresponds to the time for which Prometheus keeps the alert firing.
fn missing_evaluations(rule: &Yaml, interval: &str) -> i64 {
    let seconds = |duration: &str| humantime::parse_duration(duration).unwrap_or_default().as_secs();
    let evaluations = seconds(text(&rule["keep_firing_for"])).div_ceil(seconds(interval).max(1));
    i64::try_from(evaluations.max(1)).unwrap_or(i64::MAX)
}

/// Returns the query, and two expressions that make every series exceed the threshold. In Prometheus, every series in
/// the result is an alert, regardless of its value.
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
    let prometheus_query = map([
        ("refId", string("A")),
        ("expr", string(expr)),
        ("instant", Yaml::Boolean(true)),
        ("range", Yaml::Boolean(false)),
    ]);
    let exists = map([
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
        query("A", datasource, prometheus_query),
        query("B", EXPRESSIONS, exists),
        query("C", EXPRESSIONS, threshold),
    ]
}

/// Converts a template to Grafana's syntax: renames `$value`, formats the date of `ends` without a query, and removes
/// all other queries, which Grafana does not support.
fn translate(template: &str) -> String {
    const QUERIED_DATE: &str = "{{ with printf \"vector(%s + 0)\" $labels.ends | query }}\
                              {{ (. | first | value | toTime).Format \"2006-01-02\" }}{{ end }}";
    const DATE: &str = "{{ ($labels.ends | toTime).Format \"2006-01-02\" }}";
    let translated = without_queries(&template.replace(QUERIED_DATE, DATE)).replace("$value", "$values.A.Value");
    // A removed query may leave separators at the start, or two spaces.
    translated.trim_start_matches(['.', ',', ' ']).replace("  ", " ")
}

/// A block of a template whose `end` has not been reached yet.
struct Block {
    is_query: bool,
    /// Whether the current text is in the `else` branch, which applies if a query returns nothing.
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

fn value_or(value: &Yaml, default: &str) -> Yaml {
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

/// The alert rules are also in the repository, for operators who do not run `assets`.
#[test]
fn grafana_alerts_match_the_rules() {
    let (path, expected) = (
        "deploy/grafana/elements-alerts.yaml",
        alert_rules(DEFAULT_DATASOURCE, &Links::default()),
    );
    if update_expected() {
        std::fs::write(repository(path), &expected).unwrap();
    }
    assert_eq!(read(path), expected, "UPDATE_EXPECTED=1 updates {path}");
}

#[test]
fn data_source_and_links_are_replaced() {
    let url = |text: &str| Url::parse(text).unwrap();
    let (exporter, grafana) = (url("https://x.example.com/elements"), url("https://g.example.com"));
    for links in [
        Links::default(),
        Links::new(Some(&exporter), None),
        Links::new(None, Some(&grafana)),
        Links::new(Some(&exporter), Some(&grafana)),
    ] {
        for datasource in ["uid", "$PROMETHEUS_UID", "123", "true", "", "a: \"b\\"] {
            let written = assets::grafana_alerts(datasource, &links).unwrap();
            assert!(written == alert_rules(datasource, &links), "{datasource} {links:?}");
        }
    }
}

fn rules_of(file: &str, name: &str) -> Vec<Yaml> {
    rules_and_intervals(file, name)
        .into_iter()
        .map(|(rule, _)| rule)
        .collect()
}

/// Returns the rules that have the key `name`, each with the evaluation interval of its group in minutes.
fn rules_and_intervals(file: &str, name: &str) -> Vec<(Yaml, i64)> {
    let document = YamlLoader::load_from_str(file).unwrap().swap_remove(0);
    let mut found = Vec::new();
    for group in document["groups"].as_vec().unwrap() {
        let interval = group["interval"].as_str().map_or(1, in_minutes);
        let rules = group["rules"].as_vec().unwrap().iter();
        let named = rules.filter(|rule| !rule[name].is_badvalue());
        found.extend(named.map(|rule| (rule.clone(), interval)));
    }
    found
}

fn in_minutes(duration: &str) -> i64 {
    let seconds = humantime::parse_duration(duration).unwrap().as_secs();
    i64::try_from(seconds / 60).unwrap()
}

#[test]
fn every_alert_is_converted_for_grafana() {
    let written = alert_rules("uid", &Links::default());
    let source: Vec<(Yaml, i64)> = RULES
        .iter()
        .flat_map(|asset| rules_and_intervals(asset.content, "alert"))
        .collect();
    let converted = rules_and_intervals(&written, "uid");
    assert_eq!(converted.len(), source.len());
    for (own, _) in TEXTS {
        assert!(source.iter().any(|(rule, _)| text(&rule["alert"]) == own), "{own}");
    }
    for ((converted, converted_interval), (source, interval)) in converted.iter().zip(&source) {
        let name = text(&source["alert"]);
        assert!(text(&converted["title"]).starts_with(name), "{name}");
        let queries = converted["data"].as_vec().unwrap();
        assert_eq!(queries[0]["model"]["expr"], source["expr"], "{name}");
        assert_eq!(queries[0]["datasourceUid"], string("uid"));
        assert_eq!(text(&converted["condition"]), text(&queries[2]["refId"]));
        let threshold = &queries[2]["model"];
        assert_eq!(text(&threshold["expression"]), text(&queries[1]["refId"]));
        assert_eq!(threshold["conditions"][0]["evaluator"]["params"][0], Yaml::Integer(0));
        assert_eq!(converted["labels"], source["labels"], "{name}");
        for (grafana, prometheus) in [("for", "for"), ("keepFiringFor", "keep_firing_for")] {
            assert_eq!(converted[grafana], value_or(&source[prometheus], "0s"), "{name}");
        }
        assert_eq!(converted_interval, interval, "{name}");
        let evaluations = match text(&source["keep_firing_for"]) {
            "" => 1,
            kept => (in_minutes(kept) + interval - 1) / interval,
        };
        assert_eq!(
            converted["missing_series_evals_to_resolve"],
            Yaml::Integer(evaluations),
            "{name}"
        );
        for (key, template) in source["annotations"].as_hash().unwrap() {
            let translated = text(&converted["annotations"][text(key)]);
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

/// If the id of a rule changed, Grafana would create another rule, and its alerts would fire again.
#[test]
fn ids_and_titles_are_unique_and_constant() {
    let rules = rules_of(GRAFANA_ALERTS.content, "uid");
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
        ("a {{ with $labels.x | query }}b{{ end }} c", "a c"),
        ("{{ $labels.x | urlquery }}", "{{ $labels.x | urlquery }}"),
    ] {
        assert_eq!(translate(prometheus), grafana, "{prometheus}");
    }
}
