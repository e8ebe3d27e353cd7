//! Properties of alerts and dashboards that can be checked without a server: tests, descriptions, references and links.
//! This file is long because each property is one short test.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use regex::Regex;
use serde_json::Value;

use super::dashboards::{self, Dashboard, columns, list, placeholders, text};
use super::labels::LabelCatalogue;
use super::rules::{self, Rule};

/// Alerts that need neither a test in which they do not fire nor a test with an outage.
const ALWAYS_FIRES: &[&str] = &["ElementsWatchdog"];

/// The Alertmanager configurations for small and for large fleets.
const ALERTMANAGER_EXAMPLES: [&str; 2] = [
    "deploy/alertmanager/alertmanager.yml",
    "deploy/alertmanager/alertmanager-large.yml",
];

/// Grafana's built-in variables that dashboards may use.
const GLOBAL_VARIABLES: &[&str] = &[
    "__rate_interval",
    "__range",
    "__range_s",
    "__from",
    "__data",
    "__value",
    "__url_time_range",
    "__all",
];

pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn alerts() -> Vec<Rule> {
    rules::all().into_iter().filter(|rule| rule.is_alert).collect()
}

/// Panics with a list of all problems, if there are any.
pub(crate) fn assert_none(problems: &[String]) {
    assert!(
        problems.is_empty(),
        "{} problems:\n{}",
        problems.len(),
        problems.join("\n")
    );
}

/// Expectations of one promtool test about one alert, and whether the test includes an outage.
struct Case {
    fires: Vec<Value>,
    outage: bool,
}

/// Returns whether a test includes an outage: a target or the API is down, or series end or have gaps.
fn has_outage(test: &Value) -> bool {
    list(&test["input_series"]).any(|series| {
        let (name, values) = (text(&series["series"]), text(&series["values"]));
        let zero = values
            .split_whitespace()
            .any(|value| value == "0" || value.starts_with("0x"));
        let is_up = name.starts_with("up{") || name.starts_with("elements_up{");
        is_up && zero
            || values
                .split_whitespace()
                .any(|value| value == "stale" || value.starts_with('_'))
    })
}

fn cases() -> BTreeMap<String, Vec<Case>> {
    let mut cases: BTreeMap<String, Vec<Case>> = BTreeMap::new();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/tests");
    for entry in std::fs::read_dir(directory).unwrap() {
        let file = rules::to_json(&rules::yaml(&std::fs::read_to_string(entry.unwrap().path()).unwrap()));
        for test in list(&file["tests"]) {
            for case in list(&test["alert_rule_test"]) {
                let name = text(&case["alertname"]).to_owned();
                cases.entry(name).or_default().push(Case {
                    fires: list(&case["exp_alerts"]).cloned().collect(),
                    outage: has_outage(test),
                });
            }
        }
    }
    cases
}

#[test]
fn alerts_have_tests_for_firing_silence_and_outages() {
    let cases = cases();
    let mut problems = Vec::new();
    for alert in alerts() {
        let (name, severity) = (&alert.name, alert.label("severity").unwrap());
        let alert_cases: &[Case] = cases.get(name).map_or(&[], Vec::as_slice);
        let of_severity = |case: &&Case| {
            case.fires
                .iter()
                .any(|fires| fires["exp_labels"]["severity"] == severity)
        };
        let complete = alert_cases.iter().filter(of_severity).any(|case| {
            let fires = case
                .fires
                .iter()
                .find(|fires| fires["exp_labels"]["severity"] == severity)
                .unwrap();
            alert
                .annotations
                .iter()
                .all(|(annotation, _)| fires["exp_annotations"][annotation].is_string())
        });
        if !complete {
            problems.push(format!(
                "{name} ({severity}) has no test that expects it to fire with all its annotations"
            ));
        }
        if !alert_cases.iter().any(|case| !of_severity(&case)) && !ALWAYS_FIRES.contains(&name.as_str()) {
            problems.push(format!("{name} ({severity}) has no test in which it does not fire"));
        }
        if !alert_cases.iter().any(|case| case.outage) && !ALWAYS_FIRES.contains(&name.as_str()) {
            problems.push(format!("{name} has no test with an outage"));
        }
    }
    assert_none(&problems);
}

#[test]
fn inhibiting_alerts_resolve_before_inhibited_ones() {
    let alerts = alerts();
    let keeps_firing = |alert: &Rule| alert.json["keep_firing_for"].as_str().map_or(0, rules::seconds);
    let mut problems = Vec::new();
    for (source, areas) in [
        ("ElementsCustomerUnread", ["backup"]),
        ("ElementsAppConsentLost", ["backup"]),
    ] {
        let of_source = alerts.iter().filter(|alert| alert.name == source);
        let source_duration = of_source.map(keeps_firing).max().unwrap();
        // ElementsMassFailure lasts for hours, so nobody waits for the notification that it has resolved. No alert
        // inhibits ElementsCustomerUnread.
        let targets = alerts.iter().filter(|alert| {
            areas.contains(&alert.label("area").unwrap())
                && ![source, "ElementsCustomerUnread", "ElementsMassFailure"].contains(&alert.name.as_str())
        });
        for target in targets.filter(|target| keeps_firing(target) <= source_duration) {
            problems.push(format!(
                "{} can resolve while {source} inhibits it, so the notification that it has resolved would be lost",
                target.name
            ));
        }
    }
    assert_none(&problems);
}

#[test]
fn alerts_have_all_labels_and_annotations() {
    let catalogue = LabelCatalogue::read().unwrap();
    let variable = Regex::new(r"\$labels\.(\w+)").unwrap();
    let mut problems = Vec::new();
    for alert in alerts() {
        let name = &alert.name;
        if !name.starts_with("Elements") {
            problems.push(format!("{name} does not start with Elements"));
        }
        for (label, values) in [
            ("severity", ["critical", "warning", "info", "none"]),
            ("area", ["exporter", "backup", "protection", "licence"]),
        ] {
            if !alert.label(label).is_some_and(|value| values.contains(&value)) {
                problems.push(format!("{name}: {label} is {:?}", alert.label(label)));
            }
        }
        let mut labels = catalogue.of(&alert.expr).unwrap();
        labels.extend(alert.labels.iter().map(|(label, _)| label.clone()));
        for needed in ["summary", "description", "runbook_url", "dashboard_url"] {
            let Some((_, text)) = alert.annotations.iter().find(|(annotation, _)| annotation == needed) else {
                problems.push(format!("{name} has no {needed}"));
                continue;
            };
            for used in variable.captures_iter(text) {
                if !labels.contains(&used[1]) {
                    problems.push(format!(
                        "{name}: {needed} uses the label {}, which the alert lacks",
                        &used[1]
                    ));
                }
            }
            match needed {
                "runbook_url" if *text != format!("docs/runbooks.md#{}", name.to_lowercase()) => {
                    problems.push(format!("{name}: {text} is not its runbook"));
                }
                "dashboard_url" => problems.extend(dead_link(text).map(|problem| format!("{name}: {problem}"))),
                _ => {}
            }
        }
        let about_customers = alert.label("area") != Some("exporter") && name != "ElementsMassFailure";
        let of_customer = ["organization", "tier", "region", "team"];
        let is_named = of_customer.iter().all(|label| labels.contains(*label));
        if about_customers && (!is_named || labels.contains("instance")) {
            problems.push(format!(
                "{name} is about a customer, but has the wrong labels: {labels:?}"
            ));
        }
        if alert.expr.contains("or vector(0)") {
            problems.push(format!("{name} replaces missing values with vector(0)"));
        }
        let wait = alert.json["for"].as_str().map_or(0, rules::seconds);
        if alert.expr.contains("absent(") && wait < 120 {
            problems.push(format!("{name} uses absent() but waits only {wait}s"));
        }
    }
    assert_none(&problems);
}

#[test]
fn alerts_and_runbooks_match() {
    let page = read("docs/runbooks.md");
    let mut sections: BTreeMap<&str, &str> = BTreeMap::new();
    for section in page.split("\n### ").skip(1) {
        let (heading, body) = section.split_once('\n').unwrap();
        let body = body.split("\n## ").next().unwrap();
        assert!(
            sections.insert(heading.trim(), body).is_none(),
            "{heading} occurs twice"
        );
    }
    let names: BTreeSet<String> = alerts().into_iter().map(|alert| alert.name).collect();
    let headings: BTreeSet<String> = sections.keys().map(|heading| (*heading).to_owned()).collect();
    assert_eq!(headings, names);
    let mut problems = Vec::new();
    for (heading, body) in sections {
        for (topic, words) in [
            ("what it means", &["**Means**"][..]),
            ("whether it is real", &["**Real?**"]),
            ("what to do", &["**Do**", "**do**"]),
            ("what customers notice", &["**Customers**"]),
        ] {
            if !words.iter().any(|word| body.contains(word)) {
                problems.push(format!("{heading} does not describe {topic}"));
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn fleet_table_links_to_existing_runbooks() {
    let page = read("docs/runbooks.md").to_lowercase();
    let fleet = read("dashboards/elements-fleet.json").replace("\\\"", "\"");
    let anchor = Regex::new(r#""runbook", "(\w+)", "why""#).unwrap();
    let anchors: Vec<String> = anchor.captures_iter(&fleet).map(|found| found[1].to_owned()).collect();
    assert!(anchors.len() > 5, "{anchors:?}");
    let missing: Vec<String> = anchors
        .into_iter()
        .filter(|anchor| !page.contains(&format!("\n### {anchor}\n")))
        .collect();
    assert_none(&missing);
}

#[test]
fn alertmanager_examples_use_existing_alerts_and_labels() {
    for example in ALERTMANAGER_EXAMPLES {
        check_references(&read(example));
    }
}

fn check_references(example: &str) {
    let catalogue = LabelCatalogue::read().unwrap();
    let labels = catalogue.metric("ALERTS").unwrap();
    let names: Vec<String> = alerts().into_iter().map(|alert| alert.name).collect();
    let matcher = Regex::new(r#"(\w+)(=~|!~|!=|=)"([^"]*)""#).unwrap();
    let mut problems = Vec::new();
    for found in matcher.captures_iter(example) {
        if !labels.contains(&found[1]) {
            problems.push(format!("no alert has the label {}", &found[1]));
        }
        if &found[1] != "alertname" {
            continue;
        }
        // Each alternative must match an alert.
        let (head, inner, tail) = match found[3].split_once('(') {
            Some((head, rest)) => rest.split_once(')').map(|(inner, tail)| (head, inner, tail)).unwrap(),
            None => ("", &found[3], ""),
        };
        for alternative in inner.split('|') {
            let pattern = Regex::new(&format!("^(?:{head}{alternative}{tail})$")).unwrap();
            if !names.iter().any(|name| pattern.is_match(name)) {
                problems.push(format!("{} matches no alert", pattern.as_str()));
            }
        }
    }
    for list in Regex::new(r"(?:group_by|equal): \[([^\]]*)\]")
        .unwrap()
        .captures_iter(example)
    {
        let unknown = list[1]
            .split(',')
            .map(str::trim)
            .filter(|label| !labels.contains(*label));
        problems.extend(unknown.map(|label| format!("no alert has the label {label}")));
    }
    assert_none(&problems);
}

/// Returns the problem if a link leads to a missing dashboard or sets a missing variable.
fn dead_link(url: &str) -> Option<String> {
    let rest = url.strip_prefix("/d/")?;
    let (uid, query) = rest.split_once('?').unwrap_or((rest, ""));
    let dashboards = dashboards::all();
    let Some(dashboard) = dashboards.iter().find(|dashboard| dashboard.json["uid"] == uid) else {
        return Some(format!("{url} links to no dashboard"));
    };
    let variables: Vec<&str> = dashboard.variables().map(|variable| text(&variable["name"])).collect();
    let set = query
        .split('&')
        .filter_map(|part| part.strip_prefix("var-")?.split('=').next());
    let mut unknown = set.filter(|name| !variables.contains(name));
    unknown
        .next()
        .map(|name| format!("{url} sets {name}, which {uid} lacks"))
}

#[test]
fn dashboards_are_complete() {
    let mut problems = Vec::new();
    for dashboard in dashboards::all() {
        let mut found = Vec::new();
        found.extend(misplaced_panels(&dashboard));
        found.extend(incomplete_panels(&dashboard));
        found.extend(mismatched_variables(&dashboard));
        found.extend(broken_links(&dashboard));
        if dashboard.json["schemaVersion"] != 42 {
            found.push("does not have schema version 42".to_owned());
        }
        problems.extend(
            found
                .into_iter()
                .map(|problem| format!("{}: {problem}", dashboard.file)),
        );
    }
    assert_none(&problems);
}

/// Returns panels that overlap, share an id, or extend beyond the page.
fn misplaced_panels(dashboard: &Dashboard) -> Vec<String> {
    let place = |panel: &Value| ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_i64().unwrap());
    let panels: Vec<&Value> = list(&dashboard.json["panels"]).collect();
    let mut problems = Vec::new();
    for (nth, one) in panels.iter().enumerate() {
        let [x, y, w, h] = place(one);
        if x + w > 24 {
            problems.push(format!("{} extends beyond the page", text(&one["title"])));
        }
        for other in &panels[nth + 1..] {
            let [left, top, width, height] = place(other);
            if x < left + width && left < x + w && y < top + height && top < y + h {
                problems.push(format!("{} overlaps {}", text(&one["title"]), text(&other["title"])));
            }
            if one["id"] == other["id"] {
                problems.push(format!(
                    "{} and {} share an id",
                    text(&one["title"]),
                    text(&other["title"])
                ));
            }
        }
    }
    problems
}

fn incomplete_panels(dashboard: &Dashboard) -> Vec<String> {
    let mut problems = Vec::new();
    for panel in dashboard.panels() {
        let title = text(&panel["title"]);
        if text(&panel["description"]).len() < 20 {
            problems.push(format!("{title} has no description of at least 20 characters"));
        }
        // With a range query, a panel would display the last value for hours after the series has ended. This does not
        // apply to a panel that displays only a fixed name and a sparkline, but no value.
        let shows_values =
            |target: &Value| panel["options"]["textMode"] != "name" || text(&target["legendFormat"]).contains("{{");
        if panel["type"] == "stat"
            && list(&panel["targets"]).any(|target| target["instant"] != true && shows_values(target))
        {
            problems.push(format!("{title} may display an outdated value"));
        }
        if text(&panel["fieldConfig"]["defaults"]["unit"]).is_empty() {
            problems.push(format!("{title} has no unit"));
        }
        let texts = list(&panel["targets"]).map(|target| text(&target["expr"]));
        if texts.into_iter().any(|expr| expr.contains("or vector(0)")) {
            problems.push(format!("{title} replaces missing values with zeros"));
        }
        if !panel["repeat"].is_null() {
            problems.push(format!("{title} is repeated for each value of a variable"));
        }
    }
    problems
}

/// Returns the variables that are used but not declared, or declared but not used.
fn mismatched_variables(dashboard: &Dashboard) -> Vec<String> {
    let used = Regex::new(r"\$\{?([A-Za-z_]\w*)").unwrap();
    let source = dashboard.json.to_string();
    let used: BTreeSet<&str> = used
        .captures_iter(&source)
        .map(|found| found.get(1).unwrap().as_str())
        .collect();
    let declared: BTreeSet<&str> = dashboard.variables().map(|variable| text(&variable["name"])).collect();
    let unknown = used
        .difference(&declared)
        .filter(|name| !GLOBAL_VARIABLES.contains(name));
    let unused = declared.difference(&used);
    let unknown = unknown.map(|name| format!("${name} is not declared"));
    unknown
        .chain(unused.map(|name| format!("${name} is not used")))
        .collect()
}

/// Returns broken links, and panels that list customers without links to their dashboards.
fn broken_links(dashboard: &Dashboard) -> Vec<String> {
    let field = Regex::new(r"\$\{__data\.fields\.(\w+)\}").unwrap();
    let mut problems = Vec::new();
    for panel in dashboard.panels() {
        let title = text(&panel["title"]);
        let columns = columns(panel);
        let config = &panel["fieldConfig"];
        let properties = list(&config["overrides"]).flat_map(|one| list(&one["properties"]));
        let field_links = properties
            .filter(|property| property["id"] == "links")
            .flat_map(|links| list(&links["value"]));
        let links: Vec<&str> = field_links
            .chain(list(&config["defaults"]["links"]))
            .chain(list(&panel["links"]))
            .map(|link| text(&link["url"]))
            .collect();
        problems.extend(links.iter().filter_map(|url| dead_link(url)));
        for url in &links {
            let missing = field.captures_iter(url).filter(|found| !columns.contains(&found[1]));
            problems.extend(missing.map(|found| format!("{title}: a link uses {}, which is not a column", &found[1])));
        }
        let has_link = links
            .iter()
            .any(|url| url.starts_with("/d/elements-customer?var-customer=${__data.fields.customer_id}"));
        if columns.contains("organization") && !has_link {
            problems.push(format!("{title} lists customers without links to their dashboards"));
        }
    }
    problems
}

#[test]
fn dashboards_query_only_existing_metrics_and_labels() {
    let catalogue = LabelCatalogue::read().unwrap();
    // Any value can replace a variable, because only names are checked.
    let variable = Regex::new(r#"\$\{?[A-Za-z_]\w*(?::regex)?\}?"#).unwrap();
    let plain = |expr: &str| {
        let expr = expr.replace("$__range_s", "1").replace("$__range", "30d");
        let expr = expr.replace("$__rate_interval", "5m").replace("$target", "1");
        variable.replace_all(&expr, "x").into_owned()
    };
    let mut problems = Vec::new();
    for dashboard in dashboards::all() {
        for panel in dashboard.panels() {
            for query in dashboard.queries(panel) {
                match catalogue.of(&plain(&query.expr)) {
                    Err(error) => problems.push(format!("{}: {error}", query.place)),
                    Ok(labels) => {
                        let missing: Vec<_> = query.labels.iter().filter(|label| !labels.contains(*label)).collect();
                        if !missing.is_empty() {
                            problems.push(format!("{}: displays {missing:?}, which the query lacks", query.place));
                        }
                    }
                }
            }
        }
        for annotation in dashboard.annotations() {
            let labels = catalogue.of(&plain(text(&annotation["expr"]))).unwrap();
            let displayed =
                &placeholders(text(&annotation["titleFormat"])) | &placeholders(text(&annotation["textFormat"]));
            problems.extend(displayed.difference(&labels).map(|label| {
                format!(
                    "{}: an annotation displays {label}, which its query lacks",
                    dashboard.file
                )
            }));
        }
        for variable in dashboard.variables().filter(|variable| variable["type"] == "query") {
            let query_text = plain(text(&variable["query"]["query"]));
            let inner = query_text.split_once('(').unwrap().1.strip_suffix(')').unwrap();
            let found = match query_text.starts_with("label_values") {
                true => {
                    let (selector, label) = inner.rsplit_once(", ").unwrap();
                    catalogue
                        .of(selector)
                        .and_then(|labels| labels.contains(label).then_some(()).ok_or(label.to_owned()))
                }
                false => catalogue.of(inner).map(|_| ()),
            };
            problems.extend(found.err().map(|error| format!("{}: {error}", dashboard.file)));
        }
    }
    assert_none(&problems);
}
