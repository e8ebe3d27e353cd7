//! Response times of the dashboards with a thousand and with ten thousand customers. Every query of every panel is
//! measured, for all customers or, on the customer dashboard, for one customer. The fleet dashboard is also measured
//! while the Prometheus server scrapes the exporter and evaluates the shipped rules. The goal applies to the time
//! without this load, because the time with it depends on whether the server has cores to spare.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use elements_exporter::assets::RULES;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::client::{fetch_text, responds};
use crate::dashboards::{self, Dashboard, Query, Values, interpolate, list};
use crate::dense;
use crate::program::Exporter;
use crate::report::{median, print_goal};
use crate::sweep::{LATENCY, stub, wait_for_cycle};

const CUSTOMERS: [usize; 2] = [1_000, 10_000];

/// `GOGC` for Prometheus. With the default of 75, ten thousand customers need more than 24 GB.
const GARBAGE_COLLECTION_PERCENT: &str = "40";

/// Time for which Prometheus returns a sample after its timestamp. It exceeds both the duration of the first rule
/// evaluation with ten thousand customers and the duration of the measurements after the last scrape.
const LOOKBACK: &str = "1h";

const CONFIGURATION: &str = "prometheus.yml";

/// Number of times that each query is sent.
const REPETITIONS: usize = 5;

/// Goal for the slowest panel of the fleet dashboard.
const MAX_PANEL_TIME: Duration = Duration::from_secs(1);

const FLEET: &str = "elements-fleet.json";

const CUSTOMER: &str = "elements-customer.json";

/// Number of slow panels to print.
const SLOWEST: usize = 3;

/// Seconds between scrapes.
const INTERVAL: i64 = 60;

/// Seconds between samples of the history: the interval of the rules that record the series in [`LONG`].
const RECORDING_INTERVAL: i64 = 120;
const DAY: i64 = 86_400;
const DAYS: i64 = 30;

/// Recorded series that the fleet dashboard queries over 28 days. It queries all others over at most a day.
const LONG: &[&str] = &[
    "fleet:elements_customers_overdue:sum",
    "fleet:elements_customers_within_rpo:ratio",
    "module:elements_job_failing:ratio26h",
    "module:elements_job_failing:sum",
];

/// Number of points that Grafana requests for a graph on an ordinary screen.
const GRAPH_POINTS: i64 = 1_000;

/// Timeout for a result. Prometheus needs about half a minute for its first scrape of all series.
const TIMEOUT: Duration = Duration::from_secs(600);

/// A Prometheus server with its own directory. Dropping the value stops the process and removes the directory.
struct Prometheus {
    address: SocketAddr,
    child: Child,
    directory: tempfile::TempDir,
    target: SocketAddr,
}

fn configuration(target: SocketAddr, interval: i64) -> String {
    format!(
        "global:\n  scrape_interval: {interval}s\n  scrape_timeout: {INTERVAL}s\n  evaluation_interval: {interval}s\n\
         rule_files: [elements-*.yml]\n\
         scrape_configs:\n  - job_name: elements\n    static_configs:\n      - targets: ['{target}']\n"
    )
}

impl Prometheus {
    fn start(target: SocketAddr) -> Self {
        let program = std::env::var_os("BENCH_PROMETHEUS").expect("benches/run sets BENCH_PROMETHEUS");
        let directory = tempfile::tempdir().unwrap();
        for file in RULES {
            fs::write(directory.path().join(file.name), file.content).unwrap();
        }
        fs::write(directory.path().join(CONFIGURATION), configuration(target, INTERVAL)).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let path = |name: &str| directory.path().join(name).display().to_string();
        let child = Command::new(program)
            .env("GOGC", GARBAGE_COLLECTION_PERCENT)
            .arg(format!("--config.file={}", path(CONFIGURATION)))
            .arg(format!("--query.lookback-delta={LOOKBACK}"))
            .arg(format!("--storage.tsdb.path={}", path("data")))
            .arg("--storage.tsdb.retention.time=90d")
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(path("log")).unwrap())
            .spawn()
            .unwrap();
        Self {
            address,
            child,
            directory,
            target,
        }
    }

    /// Stops scrapes and evaluations for a day, except the evaluations of the hourly report. No series becomes stale.
    /// Waits until scrapes and evaluations in progress have ended.
    fn rest(&self) {
        let path = |name: &str| self.directory.path().join(name);
        fs::write(path(CONFIGURATION), configuration(self.target, DAY)).unwrap();
        let recording = format!("interval: {}m", RECORDING_INTERVAL / 60);
        for file in RULES {
            let content = file.content.replace(&recording, "interval: 1d");
            fs::write(path(file.name), content).unwrap();
        }
        let before = self.reloaded_at();
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
        self.wait("a reload", || self.reloaded_at() != before);
    }

    fn reloaded_at(&self) -> String {
        let metrics = fetch_text(self.address, "/metrics");
        let is_time = |line: &&str| line.starts_with("prometheus_config_last_reload_success_timestamp_seconds ");
        metrics.lines().find(is_time).unwrap().to_owned()
    }

    fn get(&self, path: &str, form: &[(&str, &str)]) -> (Duration, Value) {
        let mut target = format!("/api/v1/{path}?");
        for (name, value) in form {
            let _ = write!(target, "{name}={}&", utf8_percent_encode(value, NON_ALPHANUMERIC));
        }
        let start = Instant::now();
        let response = fetch_text(self.address, &target);
        let elapsed = start.elapsed();
        let response: Value = serde_json::from_str(&response).unwrap();
        (elapsed, response["data"]["result"].clone())
    }

    fn instant(&self, query: &str) -> Value {
        self.get("query", &[("query", query)]).1
    }

    fn wait_for_result(&self, query: &str) {
        self.wait(query, || {
            responds(self.address, "/-/ready") && list(&self.instant(query)).next().is_some()
        });
    }

    fn wait(&self, what: &str, is_done: impl Fn() -> bool) {
        let start = Instant::now();
        while !is_done() {
            assert!(
                start.elapsed() < TIMEOUT,
                "timed out waiting for {what}: {}",
                fs::read_to_string(self.directory.path().join("log")).unwrap()
            );
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// Backfills recorded series that aggregate all customers: thirty days of the series in [`LONG`], and two days of
    /// all others.
    fn backfill_history(&self) {
        let now = unix_seconds();
        let file = self.directory.path().join("history");
        let mut out = std::io::BufWriter::new(File::create(&file).unwrap());
        let series = self.instant(r#"{__name__=~"(module|fleet):.+"}"#);
        for series in list(&series) {
            let labels = series["metric"].as_object().unwrap();
            let name = labels["__name__"].as_str().unwrap();
            let pairs = labels.iter().filter(|(label, _)| *label != "__name__");
            let pairs: Vec<String> = pairs.map(|(label, value)| format!("{label}={value}")).collect();
            let value = series["value"][1].as_str().unwrap();
            let days = if LONG.contains(&name) { DAYS } else { 2 };
            for at in (now - days * DAY..now - RECORDING_INTERVAL).step_by(RECORDING_INTERVAL as usize) {
                writeln!(out, "{name}{{{}}} {value} {at}", pairs.join(",")).unwrap();
            }
        }
        out.write_all(b"# EOF\n").unwrap();
        out.flush().unwrap();
        drop(out);
        let promtool = std::env::var_os("BENCH_PROMTOOL").expect("benches/run sets BENCH_PROMTOOL");
        let output = Command::new(promtool)
            .args([
                "tsdb",
                "create-blocks-from",
                "--max-block-duration=700h",
                "openmetrics",
                "--quiet",
            ])
            .args([&file, &self.directory.path().join("data")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::remove_file(file).unwrap();
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

pub fn run() {
    for customers in CUSTOMERS {
        measure(customers);
    }
}

fn measure(customers: usize) {
    let stub = stub(customers, LATENCY / 4);
    let exporter = Exporter::start(&stub.address.to_string(), 64);
    wait_for_cycle(&exporter);
    let prometheus = Prometheus::start(exporter.address);
    prometheus.wait_for_result("elements_up == 1");
    // These series depend on other rules, so they are recorded last.
    prometheus
        .wait_for_result("customer_module:elements_attention:rank and on () module:elements_job_failing:ratio26h");
    prometheus.backfill_history();
    prometheus.wait_for_result("count_over_time(module:elements_job_failing:ratio26h[28d]) > 28 * 700");
    let count = |query: &str| -> f64 {
        let value = prometheus.instant(query);
        value[0]["value"][1].as_str().unwrap().parse().unwrap()
    };
    assert_eq!(count("count(elements_customer_info)") as usize, customers);
    println!(
        "{customers} customers, {} series scraped in {:.1} s, {} recorded",
        count("scrape_samples_scraped"),
        count("scrape_duration_seconds"),
        count(r#"count({__name__=~"[a-z_]+:elements.+"})"#)
    );
    // The fleet dashboard comes first, because only the first dashboard is also measured under load.
    let mut dashboards = dashboards::all();
    dashboards.sort_by_key(|dashboard| dashboard.file != FLEET);
    println!("while targets are scraped and rules are evaluated:");
    measure_panels(&prometheus, &dashboards[..1]);
    print_evaluations(&prometheus);
    prometheus.rest();
    println!("while only queries are evaluated:");
    let slowest = measure_panels(&prometheus, &dashboards);
    print_goal(
        &format!("the slowest panel of the fleet dashboard, {customers} customers, in seconds"),
        slowest.as_secs_f64(),
        MAX_PANEL_TIME.as_secs_f64(),
    );
}

/// Prints the slowest panels of each dashboard, and returns the time of the slowest panel of the fleet dashboard.
fn measure_panels(prometheus: &Prometheus, dashboards: &[Dashboard]) -> Duration {
    let values = dashboards::select_all("4m");
    let mut one = values.clone();
    one.insert("customer".to_owned(), dense::customer_id(7));
    let mut slowest = Duration::MAX;
    for dashboard in dashboards {
        let values = if dashboard.file == CUSTOMER { &one } else { &values };
        let mut panels: Vec<(Duration, &str)> = Vec::new();
        for panel in dashboard.panels() {
            let queries = dashboard.queries(panel);
            let run_all = || queries.iter().map(|query| time_query(prometheus, query, values)).sum();
            let times: Vec<Duration> = (0..REPETITIONS).map(|_| run_all()).collect();
            panels.push((median(&times), dashboards::text(&panel["title"])));
        }
        panels.sort_by_key(|(elapsed, _)| std::cmp::Reverse(*elapsed));
        println!("{}, {} panels, the slowest:", dashboard.file, panels.len());
        for (elapsed, title) in panels.iter().take(SLOWEST) {
            println!("    {title:<50} {:>7.1} ms", 1e3 * elapsed.as_secs_f64());
        }
        if dashboard.file == FLEET {
            slowest = panels[0].0;
        }
    }
    slowest
}

fn print_evaluations(prometheus: &Prometheus) {
    let metrics = fetch_text(prometheus.address, "/metrics");
    let evaluations = metrics
        .lines()
        .filter(|line| line.starts_with("prometheus_rule_group_last_duration_seconds{"));
    for line in evaluations {
        let (group, seconds) = line.rsplit_once(' ').unwrap();
        let group = group.rsplit(';').next().unwrap().trim_end_matches("\"}");
        let seconds: f64 = seconds.parse().unwrap();
        println!("evaluating {group}: {seconds:.1} s");
    }
}

/// Sends a query as Grafana does, and returns its duration.
fn time_query(prometheus: &Prometheus, query: &Query, values: &Values) -> Duration {
    let expr = interpolate(&query.expr, values);
    if !query.range {
        return prometheus.get("query", &[("query", &expr)]).0;
    }
    let step = if query.span >= 28 * DAY {
        DAY
    } else {
        (query.span / GRAPH_POINTS).max(INTERVAL)
    };
    let end = unix_seconds() / step * step;
    let (start, end, step) = ((end - query.span).to_string(), end.to_string(), step.to_string());
    let form = [
        ("query", expr.as_str()),
        ("start", &start),
        ("end", &end),
        ("step", &step),
    ];
    prometheus.get("query_range", &form).0
}
