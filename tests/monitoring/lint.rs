//! The rules of Grafana's dashboard-linter, implemented according to its documentation. Exclusions and their reasons
//! are in `dashboards/.lint`, in the linter's format.

use std::collections::BTreeSet;

use promql_parser::parser::{self, Expr};
use regex::Regex;
use serde_json::Value;

use super::dashboards::{self, Dashboard, list, text};
use super::rules::yaml;

/// All rules of the linter. Two of them concern logs, which the dashboards do not use.
const RULES: [&str; 17] = [
    "template-datasource-rule",
    "template-job-rule",
    "template-instance-rule",
    "template-label-promql-rule",
    "template-on-time-change-reload-rule",
    "panel-datasource-rule",
    "panel-title-description-rule",
    "panel-units-rule",
    "panel-no-targets-rule",
    "target-logql-rule",
    "target-logql-auto-rule",
    "target-promql-rule",
    "target-rate-interval-rule",
    "target-job-rule",
    "target-instance-rule",
    "target-counter-agg-rule",
    "uneditable-dashboard",
];

/// Units that the dashboards may use. All of them exist in Grafana.
const UNITS: [&str; 18] = [
    "none",
    "s",
    "d",
    "bytes",
    "percent",
    "percentunit",
    "locale",
    "reqps",
    "Bps",
    "ops",
    "short",
    "dateTimeAsIso",
    "dateTimeFromNow",
    "dtdurations",
    "suffix: h",
    "suffix: d",
    "suffix: × RPO",
    "suffix: missing",
];

/// Range that replaces `$__rate_interval` before a query is parsed. No query contains it otherwise.
const RATE_INTERVAL: &str = "863s";

/// A finding: rule, dashboard, panel, target.
type Finding = (&'static str, String, String, String);

/// An exclusion: a rule, and the dashboard, panel and target of findings. An empty target matches all.
struct Exclusion {
    rule: String,
    entries: Vec<(String, String, String)>,
}

fn exclusions() -> Vec<Exclusion> {
    let file = yaml(include_str!("../../dashboards/.lint"));
    let rules = file["exclusions"].as_hash().unwrap();
    let rules = rules.iter().map(|(rule, exclusion)| {
        let rule = rule.as_str().unwrap().to_owned();
        assert!(RULES.contains(&rule.as_str()), "{rule} is not a rule of the linter");
        assert!(
            exclusion["reason"].as_str().is_some_and(|reason| reason.len() > 20),
            "{rule}: no reason"
        );
        let entries = exclusion["entries"].as_vec().into_iter().flatten();
        let part = |entry: &yaml_rust2::Yaml, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let entries = entries.map(|entry| (part(entry, "dashboard"), part(entry, "panel"), part(entry, "targetIdx")));
        Exclusion {
            rule,
            entries: entries.collect(),
        }
    });
    rules.collect()
}

/// Returns a query with placeholders for all variables, so that it can be parsed.
fn without_variables(expr: &str) -> String {
    let expr = expr.replace("$__range_s", "1").replace("$__range", "30d");
    let expr = expr.replace("$__rate_interval", RATE_INTERVAL).replace("$target", "1");
    // Quoted variables remain, because the rules about matchers search for them.
    Regex::new(r"\$\{(\w+):regex\}")
        .unwrap()
        .replace_all(&expr, "$1")
        .into_owned()
}

struct LintedDashboard<'a> {
    dashboard: &'a Dashboard,
    findings: Vec<Finding>,
}

impl LintedDashboard<'_> {
    fn report(&mut self, rule: &'static str, panel: &str, target: &str) {
        assert!(RULES.contains(&rule), "{rule}");
        let title = text(&self.dashboard.json["title"]).to_owned();
        self.findings.push((rule, title, panel.to_owned(), target.to_owned()));
    }

    fn check_variables(&mut self) {
        let variable = |name: &str| self.dashboard.variables().find(|variable| variable["name"] == name);
        let sources: Vec<&Value> = self
            .dashboard
            .variables()
            .filter(|variable| variable["type"] == "datasource")
            .collect();
        let [source] = sources[..] else {
            panic!("expected exactly one data source variable")
        };
        let is_datasource_named =
            source["name"] == "datasource" && source["label"] == "Data source" && source["query"] == "prometheus";
        let targets = [("job", "template-job-rule"), ("instance", "template-instance-rule")].map(|(name, rule)| {
            let passes = variable(name).is_some_and(|variable| {
                variable["datasource"]["uid"] == "${datasource}"
                    && variable["type"] == "query"
                    && text(&variable["label"]).eq_ignore_ascii_case(name)
                    && variable["multi"] == true
                    && variable["allValue"] == ".+"
            });
            (rule, passes)
        });
        let call = Regex::new(r"^(label_names|label_values|metrics|query_result)\((.+)\)$").unwrap();
        let queries = self
            .dashboard
            .variables()
            .filter(|variable| variable["type"] == "query");
        let (mut queries_work, mut reloads) = (true, true);
        for query in queries {
            let query_text = without_variables(text(&query["query"]["query"]));
            let inner = call.captures(&query_text).map(|captures| captures[2].to_owned());
            let selector = inner
                .as_deref()
                .map(|inner| match query_text.starts_with("label_values") {
                    true => inner.rsplit_once(',').map_or(inner, |(selector, _)| selector),
                    false => inner,
                });
            queries_work &= selector.is_some_and(|selector| parser::parse(selector).is_ok());
            reloads &= query["refresh"] == 2;
        }
        let editable = self.dashboard.json["editable"] != false;
        for (rule, passes) in [
            ("template-datasource-rule", is_datasource_named),
            ("template-label-promql-rule", queries_work),
            ("template-on-time-change-reload-rule", reloads),
            ("uneditable-dashboard", !editable),
        ]
        .into_iter()
        .chain(targets)
        {
            if !passes {
                self.report(rule, "", "");
            }
        }
    }

    fn check_panels(&mut self) {
        for panel in self.dashboard.panels() {
            let title = text(&panel["title"]);
            if panel["datasource"]["uid"] != "${datasource}" {
                self.report("panel-datasource-rule", title, "");
            }
            if title.is_empty() || text(&panel["description"]).is_empty() {
                self.report("panel-title-description-rule", title, "");
            }
            if !UNITS.contains(&text(&panel["fieldConfig"]["defaults"]["unit"])) {
                self.report("panel-units-rule", title, "");
            }
            if list(&panel["targets"]).next().is_none() {
                self.report("panel-no-targets-rule", title, "");
            }
            for (nth, target) in list(&panel["targets"]).enumerate() {
                self.check_target(title, &nth.to_string(), text(&target["expr"]));
            }
        }
    }

    fn check_target(&mut self, panel: &str, nth: &str, expr: &str) {
        let Ok(parsed) = parser::parse(&without_variables(expr)) else {
            return self.report("target-promql-rule", panel, nth);
        };
        let mut violated = BTreeSet::new();
        walk(&parsed, None, &mut |node, parent| match node {
            Expr::VectorSelector(selector) => {
                violated.extend(missing_matchers(&selector.matchers));
                if selector.name.as_deref().is_some_and(|name| name.ends_with("_total")) {
                    violated.insert("target-counter-agg-rule");
                }
            }
            Expr::MatrixSelector(selector) => {
                violated.extend(missing_matchers(&selector.vs.matchers));
                let called = match parent {
                    Some(Expr::Call(call)) => call.func.name,
                    _ => "",
                };
                let counter = selector.vs.name.as_deref().is_some_and(|name| name.ends_with("_total"));
                if counter && !["rate", "irate", "increase"].contains(&called) {
                    violated.insert("target-counter-agg-rule");
                }
                let range = format!("{}s", selector.range.as_secs());
                if ["rate", "irate"].contains(&called) && range != RATE_INTERVAL {
                    violated.insert("target-rate-interval-rule");
                }
            }
            _ => {}
        });
        for rule in violated {
            self.report(rule, panel, nth);
        }
    }
}

/// Returns the rules for required matchers that a selector lacks.
fn missing_matchers(matchers: &promql_parser::label::Matchers) -> Vec<&'static str> {
    let has = |name: &str| {
        let mut all = matchers.matchers.iter();
        all.any(|matcher| matcher.name == name && matcher.value == format!("${name}"))
    };
    [("job", "target-job-rule"), ("instance", "target-instance-rule")]
        .into_iter()
        .filter(|(name, _)| !has(name))
        .map(|(_, rule)| rule)
        .collect()
}

/// Visits every node with its parent.
fn walk(expr: &Expr, parent: Option<&Expr>, visit: &mut impl FnMut(&Expr, Option<&Expr>)) {
    visit(expr, parent);
    match expr {
        Expr::Aggregate(aggregate) => {
            walk(&aggregate.expr, Some(expr), visit);
            if let Some(parameter) = &aggregate.param {
                walk(parameter, Some(expr), visit);
            }
        }
        Expr::Unary(unary) => walk(&unary.expr, Some(expr), visit),
        Expr::Binary(binary) => {
            walk(&binary.lhs, Some(expr), visit);
            walk(&binary.rhs, Some(expr), visit);
        }
        Expr::Paren(paren) => walk(&paren.expr, Some(expr), visit),
        Expr::Subquery(subquery) => walk(&subquery.expr, Some(expr), visit),
        Expr::Call(call) => call
            .args
            .args
            .iter()
            .for_each(|argument| walk(argument, Some(expr), visit)),
        _ => {}
    }
}

#[test]
fn dashboards_pass_the_linter_except_for_exclusions() {
    let mut findings = Vec::new();
    for dashboard in &dashboards::all() {
        let mut linted = LintedDashboard {
            dashboard,
            findings: Vec::new(),
        };
        linted.check_variables();
        linted.check_panels();
        findings.extend(linted.findings);
    }
    let exclusions = exclusions();
    let is_excluded = |(rule, dashboard, panel, target): &Finding| {
        exclusions
            .iter()
            .filter(|exclusion| exclusion.rule == *rule)
            .any(|exclusion| {
                let is_covered = |(title, name, nth): &(String, String, String)| {
                    title == dashboard && name == panel && (nth.is_empty() || nth == target)
                };
                exclusion.entries.is_empty() || exclusion.entries.iter().any(is_covered)
            })
    };
    let remaining: Vec<_> = findings.iter().filter(|finding| !is_excluded(finding)).collect();
    assert!(remaining.is_empty(), "{remaining:#?}");
    // An exclusion that matches no finding is outdated.
    for exclusion in &exclusions {
        for (dashboard, panel, nth) in &exclusion.entries {
            let used = findings.iter().any(|(rule, title, name, target)| {
                *rule == exclusion.rule && title == dashboard && name == panel && (nth.is_empty() || nth == target)
            });
            assert!(used, "{} of {dashboard} / {panel} excludes nothing", exclusion.rule);
        }
        assert!(
            findings.iter().any(|(rule, ..)| *rule == exclusion.rule),
            "{} excludes nothing",
            exclusion.rule
        );
    }
}
