//! Tests of every query on every dashboard, with a Prometheus server that scrapes the exporter, evaluates the rules and
//! has thirty days of data. Queries select all customers, or one customer with a hostile name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::future::Future;
use std::io::BufWriter;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use elements_exporter::assets::RULES;
use elements_exporter::simulator::{Clock, Fault, FaultKind, Settings};
use regex::Regex;
use serde_json::Value;

use super::dashboards::{self, Dashboard, Query, Values, escape_regex, interpolate, list, placeholders, text};
use super::history;
use super::rules::{self, Rule};
use crate::harness::fresh;
use crate::harness::partner::{self, Partner};
use crate::harness::program::Program;
use crate::harness::servers::{Server, backfill};
use crate::harness::{COLLECTOR_KEYS, OBJECTS, TIMEOUT, eventually};

/// A name with characters that must not break queries: quotes, a backslash, special characters of regular expressions,
/// variables and templates, and non-ASCII characters.
const HOSTILE_NAME: &str = r#"O'Neill \ "Söhne" (Köln) [*] $HOME ${job} {{ .x }} a|b .+ 株式会社"#;

/// The customer with the hostile name, which has failures and most kinds of data.
const HOSTILE_CUSTOMER: usize = 1;

const CUSTOMERS: usize = 12;

/// Number of customers with a history. The history must be long, but need not be large.
const WITH_HISTORY: usize = 3;

/// Seconds between samples in the most recent period, and before it.
const RECENT_STEP: i64 = 240;
const OLDER_STEP: i64 = 6 * 3600;

/// Grafana's value of `$__rate_interval` for [`RECENT_STEP`].
const RATE_INTERVAL: &str = "16m";

/// Factor by which the rules are sped up, so that alerts fire within seconds and annotations have data.
const SPEEDUP: u64 = 100_000;

/// Evaluation interval of the rules.
const EVALUATION: Duration = Duration::from_secs(1);

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// Starts a simulated partner with all kinds of data, including failures.
async fn partner() -> Partner {
    let partner = partner::start(Settings {
        customers: CUSTOMERS,
        clock: Clock::Wall,
        ..partner::frozen_partner(CUSTOMERS)
    })
    .await;
    partner.handle.with_world(|world| {
        world.customers[HOSTILE_CUSTOMER].organization = HOSTILE_NAME.to_owned();
        // Some subscriptions expire within days or weeks, and some have expired.
        let ends = [3, 20, 60, -5].map(|days| now() + days * 86_400);
        for (customer, end) in world.customers.iter_mut().skip(HOSTILE_CUSTOMER).zip(ends) {
            let date = jiff::Timestamp::from_second(end)
                .unwrap()
                .strftime("%Y-%m-%d")
                .to_string();
            for product in &mut customer.products {
                product.expiration_date.clone_from(&date);
            }
        }
    });
    partner.handle.with_world(|world| {
        let mut profiles = world
            .customers
            .iter_mut()
            .flat_map(|customer| &mut customer.scan_profiles);
        profiles.next().unwrap().report.status = 3;
    });
    let broken = |code| FaultKind::Status { code, body: None };
    let throttled = FaultKind::Throttle {
        retry_after: Some("1".to_owned()),
        code: 429,
    };
    partner.handle.set_faults(vec![
        Fault::new("/connect/token", broken(503)).times(1),
        Fault::new("*/jobs/batch", throttled).times(2),
        Fault::new("*/scan-profiles/*", broken(500)).times(3),
    ]);
    partner
}

/// Returns the series about these customers, and those that are not about a customer.
fn only<'a>(exposition: &'a str, customers: &[String]) -> String {
    let is_selected = |line: &&'a str| match line.split_once("customer_id=\"") {
        Some((_, rest)) => rest.starts_with('"') || customers.iter().any(|id| rest.starts_with(id)),
        None => true,
    };
    exposition
        .lines()
        .filter(is_selected)
        .fold(String::new(), |text, line| text + line + "\n")
}

/// Fills the database with thirty days of plausible values, and with the corresponding results of the rules.
async fn fill(directory: &Path, exposition: &str, target: &str, now: i64) {
    let target = format!("job=\"elements\",instance=\"{target}\"");
    let ages = history::ages(30, RECENT_STEP, OLDER_STEP);
    let file = directory.join("history");
    let mut out = BufWriter::new(File::create(&file).unwrap());
    let scraped = "up 1\nscrape_duration_seconds 0.01\n";
    history::write(&mut out, &format!("{exposition}{scraped}"), &target, now, &ages).unwrap();
    history::end(&mut out).unwrap();
    drop(out);
    backfill(directory, &file);

    let prometheus = Server::prometheus(directory, "global: {}\n").await;
    let mut out = BufWriter::new(File::create(&file).unwrap());
    for (rule, expr) in rules::with_rules_inlined() {
        record(&prometheus, &mut out, &rule, &expr, now, &ages).await;
    }
    history::end(&mut out).unwrap();
    drop(out);
    drop(prometheus);
    backfill(directory, &file);
    std::fs::remove_file(file).unwrap();
}

/// Writes the series that a recording rule would have recorded at the given ages.
async fn record(prometheus: &Server, out: &mut impl std::io::Write, rule: &Rule, expr: &str, now: i64, ages: &[i64]) {
    let (recent, older): (Vec<i64>, Vec<i64>) = ages.iter().partition(|age| **age <= history::RECENT);
    for (ages, step) in [(older, OLDER_STEP), (recent, RECENT_STEP)] {
        let times = (now - ages[0], now - ages[ages.len() - 1]);
        history::record(prometheus, out, (&rule.name, &rule.labels), expr, times, step).await;
    }
}

/// Writes the shipped rules, sped up, and returns a Prometheus configuration that loads them.
fn configuration(directory: &Path, target: &str) -> String {
    for file in RULES {
        std::fs::write(directory.join(file.name), rules::speed_up(file.content, SPEEDUP)).unwrap();
    }
    format!(
        "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  evaluation_interval: 1s\n\
         rule_files: [elements-*.yml]\n\
         scrape_configs:\n  - job_name: elements\n    static_configs:\n      - targets: ['{target}']\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboard_queries_have_data_with_the_displayed_labels() {
    let partner = partner().await;
    // The client secret expires within days, so that an alert about the exporter fires as well.
    let soon = jiff::Timestamp::from_second(now() + 3 * 86_400).unwrap().to_string();
    // On a busy machine, polls every second would leave no time for scrapes.
    let slow = COLLECTOR_KEYS.map(|name| {
        let key = |key: &str| format!("ELEMENTS_COLLECTORS__{name}__{key}");
        [(key("INTERVAL"), "15s"), (key("STALE_AFTER"), "2h")]
    });
    let mut settings: Vec<(&str, &str)> = slow
        .iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), *value))
        .collect();
    let files = tempfile::tempdir().unwrap();
    let attributes = files.path().join("customers.csv");
    std::fs::write(&attributes, "customer,tier,region,team\n*,gold,emea,North\n").unwrap();
    // The override repeats the default, so that every module keeps its RPO.
    let overrides = format!("[{{rpo: 26h, until: '{soon}', reason: Migrated}}]");
    settings.extend([
        OBJECTS,
        ("ELEMENTS_AUTH__CLIENT_SECRET_EXPIRES", soon.as_str()),
        ("ELEMENTS_CUSTOMERS__ATTRIBUTES_FILE", attributes.to_str().unwrap()),
        ("ELEMENTS_RPO__OVERRIDES", overrides.as_str()),
    ]);
    let exporter = Program::start(&partner.base, &[], &settings).await;
    let all = Some(CUSTOMERS as f64);
    let exposition = exporter
        .wait_until("all collectors are fresh", |text| {
            ["jobs", "protected", "scan_profiles", "scan_changes"]
                .iter()
                .all(|collector| fresh(text, collector) == all)
        })
        .await;
    let directory = tempfile::tempdir().unwrap();
    let target = exporter.base.strip_prefix("http://").unwrap();
    let ids = partner.handle.with_world(|world| {
        let with_history = world.customers.iter().skip(HOSTILE_CUSTOMER).take(WITH_HISTORY);
        with_history.map(|customer| customer.id.clone()).collect::<Vec<_>>()
    });
    let start_time = now();
    fill(directory.path(), &only(&exposition, &ids), target, start_time).await;
    let prometheus = Server::prometheus(directory.path(), &configuration(directory.path(), target)).await;
    for condition in [
        "rate(elements_exporter_api_requests_total[1m]) >= 0",
        "module_status:elements_job_status:count offset 1s",
        r#"ALERTS{alertstate="firing",area="licence",severity="critical"}"#,
        r#"ALERTS{alertstate="firing",area="protection"}"#,
        r#"ALERTS{alertstate="firing",area="exporter",severity="critical"}"#,
        r#"ALERTS{alertname="ElementsWatchdog"} offset 2s"#,
    ] {
        // Backfilled data does not prove that this Prometheus server evaluates rules, so the scrape must be recent.
        let scraped = format!("{condition} and on () elements_up == 1");
        eventually(condition, || async { prometheus.value(&scraped).await }).await;
    }

    let hostile_id = &ids[0];
    let all_values = dashboards::select_all(RATE_INTERVAL);
    let mut one = all_values.clone();
    one.insert("job".to_owned(), "elements".to_owned());
    one.insert("instance".to_owned(), escape_regex(target).replace('\\', "\\\\"));
    one.insert("search".to_owned(), HOSTILE_NAME.to_owned());
    one.insert("customer".to_owned(), hostile_id.clone());

    let deadline = Instant::now() + TIMEOUT;
    let mut all_problems = Vec::new();
    for (selection, values) in [("all customers", &all_values), ("one customer", &one)] {
        for dashboard in dashboards::all() {
            let mut problems = Vec::new();
            for panel in dashboard.panels() {
                let queries = dashboard.queries(panel);
                let check = || check_panel(&prometheus, &queries, values, start_time);
                problems.extend(remaining(deadline, check).await);
            }
            let check = || check_variables(&prometheus, &dashboard, values, hostile_id);
            problems.extend(remaining(deadline, check).await);
            let check = || check_annotations(&prometheus, &dashboard, values);
            problems.extend(remaining(deadline, check).await);
            all_problems.extend(problems.into_iter().map(|problem| format!("{selection}: {problem}")));
        }
    }
    assert!(
        all_problems.is_empty(),
        "{} problems:\n{}",
        all_problems.len(),
        all_problems.join("\n")
    );
}

/// Repeats a check until it finds no problems, because recorded series may need several evaluations. Returns the
/// problems that remain at the deadline.
async fn remaining<F: Future<Output = Vec<String>>>(deadline: Instant, mut check: impl FnMut() -> F) -> Vec<String> {
    loop {
        let problems = check().await;
        if problems.is_empty() || Instant::now() > deadline {
            return problems;
        }
        tokio::time::sleep(EVALUATION).await;
    }
}

/// Returns the problems with a panel's results.
async fn check_panel(prometheus: &Server, queries: &[Query], values: &Values, start_time: i64) -> Vec<String> {
    let mut problems = Vec::new();
    let mut first = None;
    for query in queries {
        match check_query(prometheus, query, values, start_time).await {
            Ok(begins) => first = first.into_iter().chain(begins).min(),
            Err(problem) => problems.push(format!("{}: {problem}", query.place)),
        }
    }
    // The backfilled history contains no alerts, so queries of alerts are ignored.
    let Some(query) = queries
        .iter()
        .find(|query| query.range && !query.expr.contains("ALERTS"))
    else {
        return problems;
    };
    let expected_span = query.span.min(28 * 86_400) * 9 / 10;
    if first.is_some_and(|first| first > start_time - expected_span) && !query.description.contains("mpty until") {
        problems.push(format!(
            "{}: the data starts only {}s ago",
            query.place,
            start_time - first.unwrap()
        ));
    }
    problems
}

/// Returns the time of the first value in a query's result, or an error if the result has a problem.
async fn check_query(
    prometheus: &Server,
    query: &Query,
    values: &Values,
    start_time: i64,
) -> Result<Option<i64>, String> {
    let expr = interpolate(&query.expr, values);
    let data = if query.range {
        let (start, end, step) = range(query.span, start_time);
        let form = [
            ("query", expr.as_str()),
            ("start", &start),
            ("end", &end),
            ("step", &step),
        ];
        prometheus.api("query_range", &form).await
    } else {
        prometheus.api("query", &[("query", &expr)]).await
    };
    let data = data.map_err(|error| format!("{error}\n    {expr}"))?;
    let series: Vec<&Value> = list(&data["result"]).collect();
    if data["resultType"] == "scalar" || series.is_empty() {
        return match explains_missing_data(&query.description) {
            true => Ok(None),
            false => Err(format!("no data, and the description gives no reason\n    {expr}")),
        };
    }
    let has = |series: &Value, label: &String| series["metric"].get(label.as_str()).is_some();
    for label in &query.labels {
        let with = series.iter().filter(|series| has(series, label)).count();
        let needed = if may_be_empty(label, &expr) { 0 } else { series.len() };
        if with < needed {
            return Err(format!("{} series without {label}\n    {expr}", series.len() - with));
        }
    }
    Ok(series.iter().filter_map(|series| series["values"][0][0].as_i64()).min())
}

/// Returns whether a label may be empty, which Prometheus treats like a missing label. For example, attributes are
/// empty if they are not configured, and `scope` is empty if a module has no backup scopes. Rows of *Needs attention*
/// about licences have no `service`. Alerts have only the labels of their subject.
fn may_be_empty(label: &str, expr: &str) -> bool {
    ["license", "scope", "backup", "name", "reason", "tier", "region", "team"].contains(&label)
        || label == "service" && expr.contains("elements_attention")
        || (expr.contains("ALERTS") || expr.contains("alert:")) && label != "alertname" && label != "severity"
}

/// Returns the start, end and step of a range query over the history up to now.
fn range(span: i64, start_time: i64) -> (String, String, String) {
    let step = match span {
        0..=history::RECENT => RECENT_STEP,
        _ if span >= 28 * 86_400 => 86_400,
        _ => OLDER_STEP,
    };
    let oldest = start_time - history::RECENT;
    let start = oldest - (span - history::RECENT) / step * step;
    // The last scrape may be later than the current time in whole seconds.
    (start.to_string(), (now() + 1).to_string(), step.to_string())
}

/// Returns whether a description contains a word that explains missing data.
fn explains_missing_data(description: &str) -> bool {
    ["mpty", "excluded", "hidden", "left out", "o data"]
        .iter()
        .any(|word| description.contains(word))
}

/// Returns the problems with the options of a dashboard's variables.
async fn check_variables(prometheus: &Server, dashboard: &Dashboard, values: &Values, hostile_id: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for variable in dashboard.variables().filter(|variable| variable["type"] == "query") {
        let name = text(&variable["name"]);
        let query_text = interpolate(text(&variable["query"]["query"]), values);
        let options = match options(prometheus, &query_text, text(&variable["regex"])).await {
            Ok(options) => options,
            Err(error) => {
                problems.push(format!(
                    "{}: variable {name}: {error}\n    {query_text}",
                    dashboard.file
                ));
                continue;
            }
        };
        if options.is_empty() {
            problems.push(format!(
                "{}: variable {name} has no options\n    {query_text}",
                dashboard.file
            ));
        }
        let expected = (HOSTILE_NAME.to_owned(), hostile_id.to_owned());
        if name == "customer" && !options.contains(&expected) {
            problems.push(format!("{}: {expected:?} is not among {options:?}", dashboard.file));
        }
        if name == "customer" && values["search"] == HOSTILE_NAME && options.len() != 1 {
            problems.push(format!("{}: the search returns {options:?}", dashboard.file));
        }
    }
    problems
}

/// Returns the options of a variable as pairs of text and value.
async fn options(prometheus: &Server, query_text: &str, pattern: &str) -> Result<Vec<(String, String)>, String> {
    if let Some(inner) = query_text.strip_prefix("query_result(") {
        let query = inner.strip_suffix(')').unwrap();
        let pattern = Regex::new(pattern.trim_matches('/')).unwrap();
        let series = prometheus.series("query", &[("query", query)]).await?;
        let lines = series.iter().map(format_sample);
        return Ok(lines
            .filter_map(|line| {
                let found = pattern.captures(&line)?;
                Some((found["text"].to_owned(), found["value"].to_owned()))
            })
            .collect());
    }
    let inner = query_text
        .strip_prefix("label_values(")
        .and_then(|rest| rest.strip_suffix(')'));
    let (selector, label) = inner
        .ok_or("neither query_result nor label_values")?
        .rsplit_once(',')
        .unwrap();
    let series = prometheus.series("query", &[("query", selector)]).await?;
    let values: BTreeSet<&String> = series.iter().filter_map(|series| series.get(label.trim())).collect();
    Ok(values.into_iter().map(|value| (value.clone(), value.clone())).collect())
}

/// Formats a sample without escaping, as Grafana does before it applies a variable's regular expression.
fn format_sample(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{value}\""))
        .collect();
    format!("{{{}}} 1 1760961600000", pairs.join(","))
}

/// Returns the problems with a dashboard's annotations. Annotations must have data with the labels in their titles.
async fn check_annotations(prometheus: &Server, dashboard: &Dashboard, values: &Values) -> Vec<String> {
    let mut problems = Vec::new();
    for annotation in dashboard.annotations() {
        let query_text = interpolate(text(&annotation["expr"]), values);
        let (start, end) = ((now() - 600).to_string(), (now() + 1).to_string());
        let form = [
            ("query", query_text.as_str()),
            ("start", &start),
            ("end", &end),
            ("step", "1"),
        ];
        let labels = placeholders(text(&annotation["titleFormat"]));
        match prometheus.series("query_range", &form).await {
            Err(error) => problems.push(format!("{}: annotation: {error}\n    {query_text}", dashboard.file)),
            Ok(series) if series.is_empty() => {
                problems.push(format!("{}: annotation without data\n    {query_text}", dashboard.file));
            }
            Ok(series) => {
                if labels
                    .iter()
                    .any(|label| series.iter().any(|series| !series.contains_key(label)))
                {
                    problems.push(format!(
                        "{}: annotation lacks one of {labels:?}\n    {query_text}",
                        dashboard.file
                    ));
                }
            }
        }
    }
    problems
}
