//! Tests of the demo's history: most recorded series equal the results of the shipped rules for its samples, and panels
//! have data for at least nine tenths of their range.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use elements_exporter::app;
use elements_exporter::args::{Backfill, ListenAddress, Simulator};
use elements_exporter::simulator::Latency;
use regex::Regex;
use tokio_util::sync::CancellationToken;

use super::dashboards::{self, Dashboard, Query, interpolate, list, text};
use super::notifications::HEAVY_TEST;
use super::rules;
use crate::harness::servers::{self, Server};

/// Length of the compared period at the end of the history, in seconds. Some raw samples that the rules read exist only
/// for the last few hours.
const COMPARED: i64 = 12 * HOUR;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// Seconds between samples in the history.
const STEP: i64 = 3 * HOUR;

/// Value of `--query.lookback-delta` in `deploy/compose`.
const LOOKBACK: &str = "185m";

/// Number of days in the history.
const DAYS: i64 = 28;

/// Values by the labels of their series.
type Series = BTreeMap<BTreeMap<String, String>, f64>;

/// Values of a recorded metric, by time.
type History = BTreeMap<i64, Series>;

/// Recorded series that must equal the results of the rules. The others are in [`SUMS`] and [`OF_POLLS`].
const RECORDED: [&str; 23] = [
    "customer:elements_customer_info:max",
    "customer:elements_customer_info:max1h",
    "customer:elements_job_rpo_seconds:min",
    "customer_module:elements_job_consecutive_failures:max",
    "customer_module:elements_job_last_backup_timestamp_seconds:max",
    "customer_module:elements_job_last_backup_timestamp_seconds:max1h",
    "customer_module:elements_job_rpo_breached:bool",
    "customer_module:elements_job_rpo_seconds:max",
    "customer_module:elements_protected_objects:sum1h",
    "customer_module:elements_protected_size_bytes:sum",
    "customer_module:elements_protected_size_bytes:sum1h",
    "fleet:elements_customers:sum",
    "fleet:elements_customers_overdue:sum",
    "fleet:elements_customers_with_rpo:count",
    "fleet:elements_customers_within_rpo:ratio",
    "license:elements_license_expiration_timestamp_seconds:max1h",
    "license:elements_license_purchased_seats:max1h",
    "module:elements_customers:count",
    "module:elements_job_failing:ratio26h",
    "module:elements_job_failing:sum",
    "module:elements_job_failing:sum26h",
    "module_status:elements_job_status:count",
    "module_storage:elements_protected_size_bytes:sum",
];

/// Recorded series whose samples cover several hours of the history. They are not compared with the rules.
const SUMS: [&str; 6] = [
    "alert:elements_firing_seconds:sum1h",
    "customer_module:elements_job_last_backup_age_seconds:max1h",
    "customer_module:elements_job_rpo_state_seconds:sum1h",
    "customer_module_status:elements_job_runs:increase1h",
    "fleet:elements_report_covered_seconds:sum1h",
    "module_status:elements_job_runs:increase10m",
];

/// Recorded series that depend on the time of the latest poll. [`check_series_of_polls`] checks them instead of the
/// rules.
const OF_POLLS: [&str; 9] = [
    "customer:elements_jobs_fresh:bool",
    "customer_module:elements_attention:rank",
    "module:elements_customers_overdue:count",
    "fleet:elements_jobs_fresh:count",
    "fleet:elements_jobs_fresh:sum",
    "customer_module:elements_attention:since_timestamp_seconds",
    "customer_module:elements_job_last_backup_timestamp_seconds:max_attention",
    "customer_module:elements_job_rpo_seconds:max_attention",
    "customer_module:elements_job_consecutive_failures:max_attention",
];

/// Checks the values of [`OF_POLLS`] at one time: every customer has just been polled, and exactly the modules that
/// exceed their RPO have a rank of at least 7.
fn check_series_of_polls(recorded: &BTreeMap<String, History>, at: i64) {
    let of = |name: &str| &recorded[name][&at];
    assert!(of(OF_POLLS[0]).values().all(|fresh| *fresh == 1.0));
    let customers = of("customer:elements_customer_info:max").len();
    assert_eq!(of(OF_POLLS[0]).len(), customers);
    for total in [OF_POLLS[3], OF_POLLS[4]] {
        assert_eq!(of(total).values().sum::<f64>(), customers as f64, "{total}");
    }
    let without = |labels: &BTreeMap<String, String>, name: &str| -> BTreeMap<String, String> {
        let mut labels = labels.clone();
        labels.remove(name);
        labels
    };
    let ranks = of(OF_POLLS[1]).iter().filter(|(_, rank)| **rank >= 7.0);
    let worst: BTreeSet<_> = ranks.map(|(labels, _)| without(labels, "why")).collect();
    let breaches = of("customer_module:elements_job_rpo_breached:bool").iter();
    let breached: BTreeSet<_> = breaches
        .filter(|(_, breached)| **breached == 1.0)
        .map(|(labels, _)| labels.clone())
        .collect();
    assert_eq!(worst, breached);
    assert!(worst.len() > 5);
    let reasons: BTreeSet<&str> = of(OF_POLLS[1]).keys().map(|labels| labels["why"].as_str()).collect();
    assert_eq!(
        reasons,
        BTreeSet::from(["coverage", "licence", "overdue", "running long"])
    );
    let since = of(OF_POLLS[5]);
    assert!(since.keys().eq(of(OF_POLLS[1]).keys()));
    assert!(since.values().all(|since| *since > 0.0 && *since <= at as f64));
    // The series for the columns of *Needs attention* have the values that the rules record for all modules.
    for attention in &OF_POLLS[6..] {
        let columns = of(attention);
        let all = of(attention.trim_end_matches("_attention"));
        assert!(
            columns.iter().all(|(labels, value)| all.get(labels) == Some(value)),
            "{attention}"
        );
        assert!(worst.iter().all(|labels| columns.contains_key(labels)), "{attention}");
    }
    let modules: BTreeSet<_> = worst.iter().map(|labels| without(labels, "scope")).collect();
    assert_eq!(of(OF_POLLS[2]).values().sum::<f64>(), modules.len() as f64);
}

/// Writes a demo's history to a file.
async fn write_history(directory: &Path, customers: usize) -> Backfill {
    let backfill = Backfill {
        file: directory.join("past"),
        instance: "exporter:10027".to_owned(),
    };
    let simulator = Simulator {
        listen_address: ListenAddress::All(0),
        customers,
        seed: 1,
        speed: 60.0,
        hostile: false,
        latency: Latency::None,
    };
    app::backfill(&simulator, &backfill, CancellationToken::new())
        .await
        .unwrap();
    backfill
}

fn last_time(written: &str) -> i64 {
    let last = written.lines().nth_back(1).unwrap();
    last.rsplit(' ').next().unwrap().parse().unwrap()
}

fn labels(series: &str, pair: &Regex) -> BTreeMap<String, String> {
    let pairs = pair.captures_iter(series);
    pairs.map(|pair| (pair[1].to_owned(), pair[2].to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn backfilled_recordings_equal_the_rules() {
    let _guard = HEAVY_TEST.lock().await;
    let directory = tempfile::tempdir().unwrap();
    let backfill = write_history(directory.path(), 12).await;
    let written = std::fs::read_to_string(&backfill.file).unwrap();
    // The build info, which identifies the exporter's targets, is at the end of a scrape.
    assert!(written.contains("elements_exporter_build_info{"));
    let sample = Regex::new(r"^([a-z_0-9:]+)\{(.*)\} (\S+) (\d+)$").unwrap();
    let pair = Regex::new(r#"(\w+)="((?:[^"\\]|\\.)*)""#).unwrap();
    let end = last_time(&written);

    let mut raw = String::new();
    let mut recorded: BTreeMap<String, History> = BTreeMap::new();
    for line in written.lines() {
        let Some(parts) = sample.captures(line) else { continue };
        // Panels show no values for times at which the data was stale.
        let is_stale = parts[1] == *"elements_exporter_customers" && parts[2].contains("state=\"stale\"");
        assert!(!is_stale || parts[3] == *"0", "{line}");
        let at: i64 = parts[4].parse().unwrap();
        if at < end - COMPARED {
            continue;
        }
        if parts[1].contains(':') {
            let series = recorded.entry(parts[1].to_owned()).or_default().entry(at).or_default();
            let mut labels = labels(&parts[2], &pair);
            labels.retain(|_, value| !value.is_empty());
            series.insert(labels, parts[3].parse().unwrap());
        } else {
            let _ = writeln!(raw, "{line}");
        }
    }
    std::fs::write(&backfill.file, raw + "# EOF\n").unwrap();
    servers::backfill(directory.path(), &backfill.file);
    let prometheus = Server::prometheus(directory.path(), "global: {}\n").await;

    let names: BTreeSet<&str> = recorded.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        &(&BTreeSet::from(RECORDED) | &BTreeSet::from(SUMS)) | &BTreeSet::from(OF_POLLS)
    );
    check_series_of_polls(&recorded, end);
    let rules = rules::with_rules_inlined().into_iter();
    let rules: BTreeMap<String, String> = rules.map(|(rule, expr)| (rule.name, expr)).collect();
    let times: Vec<i64> = (0..5).map(|step| end - step * STEP).collect();
    let mut problems = Vec::new();
    for (name, history) in recorded.iter().filter(|(name, _)| RECORDED.contains(&name.as_str())) {
        assert!(history.contains_key(&end), "{name} has no last sample");
        for at in times.iter().filter(|at| history.contains_key(at)) {
            let form = [("query", rules[name].as_str()), ("time", &at.to_string())];
            let data = prometheus.api("query", &form).await.unwrap();
            let by_rule: Series = list(&data["result"])
                .map(|series| {
                    let labels = series["metric"].as_object().unwrap().iter();
                    let labels = labels.filter(|(label, _)| *label != "__name__");
                    let labels = labels.map(|(label, value)| (label.clone(), text(value).to_owned()));
                    (labels.collect(), text(&series["value"][1]).parse().unwrap())
                })
                .collect();
            let found = &history[at];
            let differs = |labels: &BTreeMap<String, String>| match (found.get(labels), by_rule.get(labels)) {
                (Some(one), Some(other)) => (one - other).abs() > 1e-9 * other.abs(),
                _ => true,
            };
            let all: BTreeSet<_> = found.keys().chain(by_rule.keys()).collect();
            let differing: Vec<_> = all.into_iter().filter(|labels| differs(labels)).collect();
            if by_rule.is_empty() || !differing.is_empty() {
                let values = differing
                    .iter()
                    .take(3)
                    .map(|labels| (labels, found.get(*labels), by_rule.get(*labels)));
                problems.push(format!(
                    "{name} at {at}: {} differ: {:?}",
                    differing.len(),
                    values.collect::<Vec<_>>()
                ));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    // Stops Prometheus.
    drop(prometheus);
}

/// Returns a dashboard's queries that read past data.
fn queries_of_the_past(dashboard: &Dashboard) -> Vec<Query> {
    let panels = dashboard.panels();
    let queries = panels.into_iter().flat_map(|panel| dashboard.queries(panel));
    let is_report = dashboard.file.contains("report");
    let reads_the_past = |query: &Query| is_report || query.range || query.expr.contains("offset 1d");
    queries.filter(reads_the_past).collect()
}

/// Evaluates a query at the end of the history. A range query covers its span, but at most [`DAYS`] days. Returns the
/// time of the first value, or `None` if there is no data.
async fn first_value(prometheus: &Server, query: &Query, end: i64) -> Option<i64> {
    let mut values = dashboards::select_all("185m");
    values.insert("__range".to_owned(), format!("{DAYS}d"));
    values.insert("__range_s".to_owned(), (DAYS * DAY).to_string());
    let expr = interpolate(&query.expr, &values);
    let (end_text, form);
    let data = if query.range {
        let span = query.span.min(DAYS * DAY);
        let step = if span >= DAYS * DAY { DAY } else { HOUR };
        (end_text, form) = (end.to_string(), [(end - span).to_string(), step.to_string()]);
        let form = [
            ("query", expr.as_str()),
            ("start", &form[0]),
            ("end", &end_text),
            ("step", &form[1]),
            ("lookback_delta", LOOKBACK),
        ];
        prometheus.api("query_range", &form).await
    } else {
        let form = [
            ("query", expr.as_str()),
            ("time", &end.to_string()),
            ("lookback_delta", LOOKBACK),
        ];
        prometheus.api("query", &form).await
    };
    let data = data.unwrap_or_else(|error| panic!("{}: {error}\n{expr}", query.place));
    let first = |series: &serde_json::Value| match query.range {
        true => series["values"][0][0].as_i64(),
        false => series["value"][0].as_i64(),
    };
    list(&data["result"]).filter_map(first).min()
}

#[tokio::test(flavor = "multi_thread")]
async fn panels_about_the_past_have_data_over_their_range() {
    let _guard = HEAVY_TEST.lock().await;
    let directory = tempfile::tempdir().unwrap();
    let backfill = write_history(directory.path(), 16).await;
    let end = last_time(&std::fs::read_to_string(&backfill.file).unwrap());
    servers::backfill(directory.path(), &backfill.file);
    let prometheus = Server::prometheus(directory.path(), "global: {}\n").await;
    let mut problems = Vec::new();
    let mut checked = 0;
    // The history lacks most of the metrics on the Exporter dashboard.
    for dashboard in dashboards::all()
        .iter()
        .filter(|dashboard| !dashboard.file.contains("exporter"))
    {
        for query in queries_of_the_past(dashboard) {
            checked += 1;
            let latest_start = match query.range {
                true => end - query.span.min(DAYS * DAY) * 9 / 10,
                false => end,
            };
            match first_value(&prometheus, &query, end).await {
                None => problems.push(format!("{}: no data", query.place)),
                Some(first) if first > latest_start => {
                    problems.push(format!("{}: starts only {} s before the end", query.place, end - first));
                }
                Some(_) => {}
            }
        }
    }
    assert!(problems.is_empty(), "of {checked} queries:\n{}", problems.join("\n"));
    assert!(checked > 40, "{checked}");
    let covered = format!("sum_over_time(fleet:elements_report_covered_seconds:sum1h[{DAYS}d])");
    let form = [("query", covered.as_str()), ("time", &end.to_string())];
    let covered = prometheus.api("query", &form).await.unwrap();
    assert_eq!(text(&covered["result"][0]["value"][1]), (DAYS * DAY).to_string());
    // At any time, each module was in exactly one state.
    let states = format!(
        "max(sum by (customer_id, service, module, scope) \
         (sum_over_time(customer_module:elements_job_rpo_state_seconds:sum1h[{DAYS}d])))"
    );
    let form = [("query", states.as_str()), ("time", &end.to_string())];
    let states = prometheus.api("query", &form).await.unwrap();
    assert_eq!(text(&states["result"][0]["value"][1]), (DAYS * DAY).to_string());
    drop(prometheus);
}
