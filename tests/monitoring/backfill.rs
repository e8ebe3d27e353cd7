//! The recorded series in the demo's history equal the results of the shipped rules for its samples.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use elements_exporter::app;
use elements_exporter::args::{Backfill, ListenAddress, Simulator};
use elements_exporter::simulator::Latency;
use regex::Regex;
use tokio_util::sync::CancellationToken;

use super::dashboards::{list, text};
use super::notifications::HEAVY_TEST;
use super::rules;
use crate::harness::servers::{self, Server};

/// Compared seconds. The raw samples that every compared rule reads exist only for the last two days.
const COMPARED: i64 = 2 * 86_400;

/// Seconds between samples of the history.
const STEP: i64 = 1800;

/// Seconds between two compared times: every eighth sample.
const COMPARED_EVERY: usize = 14_400;

/// Series by their labels.
type Series = BTreeMap<BTreeMap<String, String>, f64>;

/// Values of a recorded name by time.
type History = BTreeMap<i64, Series>;

/// Panels that query recorded series over weeks.
const RECORDED: [&str; 8] = [
    "customer_module:elements_job_rpo_breached:bool",
    "customer_module:elements_protected_size_bytes:sum",
    "fleet:elements_customers_overdue:sum",
    "fleet:elements_customers_within_rpo:ratio",
    "module:elements_customers:count",
    "module:elements_job_failing:ratio26h",
    "module:elements_job_failing:sum",
    "module_status:elements_job_status:count",
];

fn labels(series: &str, pair: &Regex) -> BTreeMap<String, String> {
    let pairs = pair.captures_iter(series);
    pairs.map(|pair| (pair[1].to_owned(), pair[2].to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn backfilled_recordings_equal_the_rules() {
    let _guard = HEAVY_TEST.lock().await;
    let directory = tempfile::tempdir().unwrap();
    let backfill = Backfill {
        file: directory.path().join("past"),
        instance: "exporter:10027".to_owned(),
    };
    let simulator = Simulator {
        listen_address: ListenAddress::All(0),
        customers: 6,
        seed: 1,
        speed: 60.0,
        hostile: false,
        latency: Latency::None,
    };
    app::backfill(&simulator, &backfill, CancellationToken::new())
        .await
        .unwrap();
    let written = std::fs::read_to_string(&backfill.file).unwrap();
    let sample = Regex::new(r"^([a-z_0-9:]+)\{(.*)\} (\S+) (\d+)$").unwrap();
    let pair = Regex::new(r#"(\w+)="((?:[^"\\]|\\.)*)""#).unwrap();
    let end: i64 = written
        .lines()
        .nth_back(1)
        .unwrap()
        .rsplit(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();

    let mut raw = String::new();
    let mut recorded: BTreeMap<String, History> = BTreeMap::new();
    for line in written.lines() {
        let Some(parts) = sample.captures(line) else { continue };
        let at: i64 = parts[4].parse().unwrap();
        if at < end - COMPARED {
            continue;
        }
        if parts[1].contains(':') {
            let series = recorded.entry(parts[1].to_owned()).or_default().entry(at).or_default();
            series.insert(labels(&parts[2], &pair), parts[3].parse().unwrap());
        } else {
            let _ = writeln!(raw, "{line}");
        }
    }
    std::fs::write(&backfill.file, raw + "# EOF\n").unwrap();
    servers::backfill(directory.path(), &backfill.file);
    let prometheus = Server::prometheus(directory.path(), "global: {}\n").await;

    let names: BTreeSet<&str> = recorded.keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(RECORDED));
    let rules: BTreeMap<String, String> = rules::with_rules_inlined().into_iter().collect();
    // The rules look back for at most an hour.
    let times: Vec<i64> = (end - COMPARED + 2 * STEP..=end).step_by(COMPARED_EVERY).collect();
    assert!(times.len() >= 10);
    for (name, history) in &recorded {
        for at in &times {
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
            let found = history.get(at).cloned().unwrap_or_default();
            let differs = |labels: &BTreeMap<String, String>| match (found.get(labels), by_rule.get(labels)) {
                (Some(one), Some(other)) => (one - other).abs() > 1e-9 * other.abs(),
                _ => true,
            };
            let all: BTreeSet<_> = found.keys().chain(by_rule.keys()).collect();
            let differing: Vec<_> = all.into_iter().filter(|labels| differs(labels)).collect();
            assert!(!by_rule.is_empty(), "{name} at {at}");
            assert!(
                differing.is_empty(),
                "{name} at {at}: {differing:?}\n{found:?}\n{by_rule:?}"
            );
        }
    }
    // Dropped in this test, so that Prometheus is stopped with it.
    drop(prometheus);
}
