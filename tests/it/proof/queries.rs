//! Every query of every dashboard against a Prometheus that scrapes the exporter, evaluates the rules and holds thirty
//! days: for all customers, and for one whose name is nasty.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use elements_exporter::assets::RULES;
use elements_exporter::simulator::{Clock, Fault, FaultKind, Settings};
use regex::Regex;
use serde_json::Value;

use super::dashboards::{self, Dashboard, Query, Values, escape_regex, interpolate, list, placeholders, text};
use super::servers::{Server, backfill};
use super::{history, rules};
use crate::program::{Program, fresh};
use crate::support::{OBJECTS, eventually};
use crate::world::{self, Partner};

/// What no query may stumble over: quotes, a backslash, what means something in a regular expression, in a variable, in
/// a template, and what is not ASCII.
const NASTY: &str = r#"O'Neill \ "Söhne" (Köln) [*] $HOME ${job} {{ .x }} a|b .+ 株式会社"#;

/// Which customer gets that name: it fails, and has most of what there is.
const NASTY_CUSTOMER: usize = 1;

const CUSTOMERS: usize = 12;

/// Of so many customers the past is filled in: it need not be large, only long.
const REMEMBERED: usize = 3;

/// Seconds between samples of the last day, and between those before it.
const CLOSE: i64 = 240;
const FAR: i64 = 6 * 3600;

/// What Grafana makes of `$__rate_interval` where samples are so far apart.
const RATE_INTERVAL: &str = "16m";

/// How much faster than shipped the rules are, so that there are alerts to annotate within seconds.
const HASTE: u64 = 100_000;

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// A partner with a bit of everything, also of errors.
async fn partner() -> Partner {
    let partner = world::start(Settings {
        customers: CUSTOMERS,
        clock: Clock::Wall,
        ..world::still(CUSTOMERS)
    })
    .await;
    partner.handle.with_world(|world| {
        world.customers[NASTY_CUSTOMER].organization = NASTY.to_owned();
        // Of a subscription that ends within days, and one that has ended, there is always one.
        let ends = [3, 20, 60, -5].map(|days| now() + days * 86_400);
        for (customer, end) in world.customers.iter_mut().skip(NASTY_CUSTOMER).zip(ends) {
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

/// What an exposition says of some customers, and of none in particular.
fn only<'a>(exposition: &'a str, customers: &[String]) -> String {
    let wanted = |line: &&'a str| match line.split_once("customer_id=\"") {
        Some((_, rest)) => rest.starts_with('"') || customers.iter().any(|id| rest.starts_with(id)),
        None => true,
    };
    exposition
        .lines()
        .filter(wanted)
        .fold(String::new(), |text, line| text + line + "\n")
}

/// Fills the database with thirty days of what the exporter says now, and of what the rules would have made of it.
async fn fill(directory: &Path, exposition: &str, target: &str, now: i64) {
    let target = format!("job=\"elements\",instance=\"{target}\"");
    let ages = history::ages(30, CLOSE, FAR);
    let file = directory.join("history");
    let mut out = BufWriter::new(File::create(&file).unwrap());
    let scraped = "up 1\nscrape_duration_seconds 0.01\n";
    history::write(&mut out, &format!("{exposition}{scraped}"), &target, now, &ages).unwrap();
    history::end(&mut out).unwrap();
    drop(out);
    backfill(directory, &file);

    let prometheus = Server::prometheus(directory, "global: {}\n").await;
    let mut out = BufWriter::new(File::create(&file).unwrap());
    for (name, expr) in rules::unfolded() {
        record(&prometheus, &mut out, &name, &expr, now, &ages).await;
    }
    history::end(&mut out).unwrap();
    drop(out);
    drop(prometheus);
    backfill(directory, &file);
    std::fs::remove_file(file).unwrap();
}

/// Writes what a recording rule would have recorded at those ages.
async fn record(prometheus: &Server, out: &mut impl std::io::Write, name: &str, expr: &str, now: i64, ages: &[i64]) {
    let (recent, older): (Vec<i64>, Vec<i64>) = ages.iter().partition(|age| **age <= history::RECENT);
    for (ages, step) in [(older, FAR), (recent, CLOSE)] {
        let (start, end) = (now - ages[0], now - ages[ages.len() - 1]);
        let (start, end, step) = (start.to_string(), end.to_string(), step.to_string());
        let form = [("query", expr), ("start", &start), ("end", &end), ("step", &step)];
        let data = prometheus.api("query_range", &form).await;
        let data = data.unwrap_or_else(|error| panic!("{name}: {error}"));
        for series in list(&data["result"]) {
            let labels: Vec<String> = series["metric"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(label, value)| format!("{label}={value}"))
                .collect();
            for point in list(&series["values"]) {
                let (at, value) = (&point[0], text(&point[1]));
                writeln!(out, "{name}{{{}}} {value} {at}", labels.join(",")).unwrap();
            }
        }
    }
}

/// The configuration of a Prometheus with the shipped rules, hastened.
fn configuration(directory: &Path, target: &str) -> String {
    for file in RULES {
        std::fs::write(directory.join(file.name), rules::hastened(file.content, HASTE)).unwrap();
    }
    format!(
        "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  evaluation_interval: 1s\n\
         rule_files: [elements-*.yml]\n\
         scrape_configs:\n  - job_name: elements\n    static_configs:\n      - targets: ['{target}']\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_every_dashboard_has_data_with_the_labels_that_its_panel_shows() {
    let partner = partner().await;
    // So that an alert about the exporter fires, too.
    let soon = jiff::Timestamp::from_second(now() + 3 * 86_400).unwrap().to_string();
    let settings = [OBJECTS, ("ELEMENTS_AUTH__CLIENT_SECRET_EXPIRES", soon.as_str())];
    let exporter = Program::start(&partner.base, &[], &settings).await;
    let all = Some(CUSTOMERS as f64);
    let exposition = exporter
        .until("all is fresh", |text| {
            ["jobs", "protected", "scan_profiles", "scan_changes"]
                .iter()
                .all(|collector| fresh(text, collector) == all)
        })
        .await;
    let directory = tempfile::tempdir().unwrap();
    let target = exporter.base.strip_prefix("http://").unwrap();
    let ids = partner.handle.with_world(|world| {
        let remembered = world.customers.iter().skip(NASTY_CUSTOMER).take(REMEMBERED);
        remembered.map(|customer| customer.id.clone()).collect::<Vec<_>>()
    });
    let began = now();
    fill(directory.path(), &only(&exposition, &ids), target, began).await;
    let prometheus = Server::prometheus(directory.path(), &configuration(directory.path(), target)).await;
    for condition in [
        "rate(elements_exporter_api_requests_total[1m]) >= 0",
        "customer:elements_job_runs:success_ratio7d offset 1s",
        r#"ALERTS{alertstate="firing",area="licence",severity="critical"}"#,
        r#"ALERTS{alertstate="firing",area="protection"}"#,
        r#"ALERTS{alertstate="firing",area="exporter",severity="critical"}"#,
        r#"ALERTS{alertname="ElementsWatchdog"} offset 2s"#,
    ] {
        // Of the past there is something too, which does not tell that this Prometheus evaluates rules.
        let scraped = format!("{condition} and on () elements_up == 1");
        eventually(condition, || async { prometheus.value(&scraped).await }).await;
    }

    let nasty = &ids[0];
    let everything = dashboards::everything(RATE_INTERVAL);
    let mut one = everything.clone();
    one.insert("job".to_owned(), "elements".to_owned());
    one.insert("instance".to_owned(), escape_regex(target).replace('\\', "\\\\"));
    one.insert("search".to_owned(), NASTY.to_owned());
    one.insert("customer".to_owned(), nasty.clone());

    let mut wrong = Vec::new();
    for (who, values) in [("all customers", &everything), ("one customer", &one)] {
        for dashboard in dashboards::all() {
            let mut problems = Vec::new();
            for panel in dashboard.panels() {
                let queries = dashboard.queries(panel);
                problems.extend(check_panel(&prometheus, &queries, values, began).await);
            }
            problems.extend(check_variables(&prometheus, &dashboard, values, nasty).await);
            problems.extend(check_annotations(&prometheus, &dashboard, values).await);
            wrong.extend(problems.into_iter().map(|problem| format!("{who}: {problem}")));
        }
    }
    assert!(wrong.is_empty(), "{} problems:\n{}", wrong.len(), wrong.join("\n"));
}

/// What is wrong with the answers that a panel gets.
async fn check_panel(prometheus: &Server, queries: &[Query], values: &Values, began: i64) -> Vec<String> {
    let mut problems = Vec::new();
    let mut first = None;
    for query in queries {
        match check_query(prometheus, query, values, began).await {
            Ok(begins) => first = first.into_iter().chain(begins).min(),
            Err(problem) => problems.push(format!("{}: {problem}", query.place)),
        }
    }
    // Alerts are none of the past that was filled in, and a panel may look at what takes a while to come about.
    let Some(query) = queries
        .iter()
        .find(|query| query.range && !query.expr.contains("ALERTS"))
    else {
        return problems;
    };
    let reach = query.span.min(28 * 86_400) * 9 / 10;
    if first.is_some_and(|first| first > began - reach) && !query.description.contains("Empty until") {
        problems.push(format!("{}: begins only {}s ago", query.place, began - first.unwrap()));
    }
    problems
}

/// When the answer of a query begins, or what is wrong with it.
async fn check_query(prometheus: &Server, query: &Query, values: &Values, began: i64) -> Result<Option<i64>, String> {
    let expr = interpolate(&query.expr, values);
    let data = if query.range {
        let (start, end, step) = range(query.span, began);
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
        return match says_why_it_may_be_empty(&query.description) {
            true => Ok(None),
            false => Err(format!("no data, and the description does not say why\n    {expr}")),
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

/// An empty label is none to Prometheus: that of the licence is where a service has one subscription, and those of an
/// alert are where it is about something else.
fn may_be_empty(label: &str, expr: &str) -> bool {
    label == "license" || expr.contains("ALERTS") && label != "alertname" && label != "severity"
}

/// Start, end and step of a range query, which meets the samples of the past and ends now.
fn range(span: i64, began: i64) -> (String, String, String) {
    let step = match span {
        0..=history::RECENT => CLOSE,
        _ if span >= 28 * 86_400 => 86_400,
        _ => FAR,
    };
    let oldest = began - history::RECENT;
    let start = oldest - (span - history::RECENT) / step * step;
    // Whole seconds of now may lie before what was just scraped.
    (start.to_string(), (now() + 1).to_string(), step.to_string())
}

/// A description that says that there may be nothing to see says so in one of these words.
fn says_why_it_may_be_empty(description: &str) -> bool {
    ["mpty", "left out", "o data"]
        .iter()
        .any(|word| description.contains(word))
}

/// What is wrong with the options that variables offer.
async fn check_variables(prometheus: &Server, dashboard: &Dashboard, values: &Values, nasty: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for variable in dashboard.variables().filter(|variable| variable["type"] == "query") {
        let name = text(&variable["name"]);
        let asked = interpolate(text(&variable["query"]["query"]), values);
        let options = match options(prometheus, &asked, text(&variable["regex"])).await {
            Ok(options) => options,
            Err(error) => {
                problems.push(format!("{}: variable {name}: {error}\n    {asked}", dashboard.file));
                continue;
            }
        };
        if options.is_empty() {
            problems.push(format!(
                "{}: variable {name} has no options\n    {asked}",
                dashboard.file
            ));
        }
        let wanted = (NASTY.to_owned(), nasty.to_owned());
        if name == "customer" && !options.contains(&wanted) {
            problems.push(format!("{}: {wanted:?} is not among {options:?}", dashboard.file));
        }
        if name == "customer" && values["search"] == NASTY && options.len() != 1 {
            problems.push(format!("{}: the search finds {options:?}", dashboard.file));
        }
    }
    problems
}

/// The options of a variable as text and value.
async fn options(prometheus: &Server, asked: &str, pattern: &str) -> Result<Vec<(String, String)>, String> {
    if let Some(inner) = asked.strip_prefix("query_result(") {
        let query = inner.strip_suffix(')').unwrap();
        let pattern = Regex::new(pattern.trim_matches('/')).unwrap();
        let series = prometheus.series("query", &[("query", query)]).await?;
        let lines = series.iter().map(shown);
        return Ok(lines
            .filter_map(|line| {
                let found = pattern.captures(&line)?;
                Some((found["text"].to_owned(), found["value"].to_owned()))
            })
            .collect());
    }
    let inner = asked
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

/// A sample as Grafana shows it to the regular expression of a variable: nothing is escaped.
fn shown(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{value}\""))
        .collect();
    format!("{{{}}} 1 1760961600000", pairs.join(","))
}

/// What is wrong with annotations: there have to be some, with the labels that their title shows.
async fn check_annotations(prometheus: &Server, dashboard: &Dashboard, values: &Values) -> Vec<String> {
    let mut problems = Vec::new();
    for annotation in dashboard.annotations() {
        let asked = interpolate(text(&annotation["expr"]), values);
        let (start, end) = ((now() - 600).to_string(), (now() + 1).to_string());
        let form = [
            ("query", asked.as_str()),
            ("start", &start),
            ("end", &end),
            ("step", "1"),
        ];
        let labels = placeholders(text(&annotation["titleFormat"]));
        match prometheus.series("query_range", &form).await {
            Err(error) => problems.push(format!("{}: annotation: {error}\n    {asked}", dashboard.file)),
            Ok(series) if series.is_empty() => {
                problems.push(format!("{}: annotation without data\n    {asked}", dashboard.file));
            }
            Ok(series) => {
                if labels
                    .iter()
                    .any(|label| series.iter().any(|series| !series.contains_key(label)))
                {
                    problems.push(format!(
                        "{}: annotation lacks one of {labels:?}\n    {asked}",
                        dashboard.file
                    ));
                }
            }
        }
    }
    problems
}
