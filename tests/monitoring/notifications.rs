//! From a fault to its notification: a simulated partner, the exporter, Prometheus with the shipped rules, and
//! Alertmanager with the shipped example. In the rules and the example, minutes and hours are shortened to seconds.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::post;
use elements_exporter::assets::RULES;
use elements_exporter::simulator::{Clock, Customer, Fault, FaultKind, History, Module, Run, Settings};
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::dashboards::{list, text};
use super::rules;
use crate::harness::canned::axum_serve;
use crate::harness::partner::{self, Partner};
use crate::harness::program::Program;
use crate::harness::servers::Server;
use crate::harness::{COLLECTOR_KEYS, eventually};

/// Factors by which rules and routes are sped up. They differ, because alerts wait for minutes, but notifications are
/// repeated after hours.
const RULE_SPEEDUP: u64 = 120;
const ROUTE_SPEEDUP: u64 = 600;

/// Factor by which the second attempt is slower. If the machine is too busy for the first attempt, missed scrapes and
/// polls cause legitimate alerts.
const SLOWDOWN: u64 = 4;

const CUSTOMERS: usize = 12;
const MICROSOFT_365: u16 = 7;
const EXCHANGE: u16 = 303;
const ONEDRIVE: u16 = 305;
const FINISHED: i64 = 2;
const FAILED: i64 = 3;
const HOUR: i64 = 3600;

/// Indexes of the customers with special roles.
const FAILING: usize = 0;
const SILENT: usize = 1;
const LONG_SILENT: usize = 2;
const PLATFORM_CUSTOMERS: std::ops::Range<usize> = 5..11;

/// A notification about one alert: receiver, group, alert and status.
type Notification = (String, String, String, String);

/// Notifications received by a webhook, without duplicates.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<BTreeSet<Notification>>>);

impl Recorder {
    /// Starts a webhook on a free port. It listens until the returned guard is dropped.
    async fn start() -> (Self, String, DropGuard) {
        let recorder = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/{receiver}", post(record))
            .with_state(recorder.clone());
        let stop = CancellationToken::new();
        let ended = stop.clone().cancelled_owned();
        tokio::spawn(async move {
            tokio::select! {
                () = ended => {}
                () = axum_serve(listener, router) => {}
            }
        });
        (recorder, base, stop.drop_guard())
    }

    fn notifications(&self) -> BTreeSet<Notification> {
        self.0.lock().unwrap().clone()
    }

    async fn wait_for(&self, receiver: &str, alert: &str, status: &str) {
        let what = format!("{receiver} is notified that {alert} is {status}");
        let received =
            |(to, _, about, state): &Notification| to == receiver && about.starts_with(alert) && state == status;
        eventually(&what, || async {
            self.notifications().iter().any(received).then_some(())
        })
        .await;
    }
}

async fn record(State(recorder): State<Recorder>, uri: Uri, body: String) {
    let message: Value = serde_json::from_str(&body).unwrap();
    let join_labels = |labels: &Value, names: &[&str]| {
        let values = names
            .iter()
            .map(|name| text(&labels[*name]))
            .filter(|value| !value.is_empty());
        values.collect::<Vec<_>>().join(" ")
    };
    let group = &message["groupLabels"];
    let names: Vec<&str> = group.as_object().unwrap().keys().map(String::as_str).collect();
    for alert in list(&message["alerts"]) {
        let notification = (
            uri.path().trim_start_matches('/').to_owned(),
            join_labels(group, &names),
            join_labels(
                &alert["labels"],
                &["alertname", "severity", "organization", "module", "collector"],
            ),
            text(&alert["status"]).to_owned(),
        );
        recorder.0.lock().unwrap().insert(notification);
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// Returns a half-hour run that ended `ago` seconds ago.
fn run(status: i64, ago: i64) -> Run {
    let end = now() - ago;
    Run {
        id: format!("run-{status}-{ago}"),
        name: "Backup".to_owned(),
        status,
        total: 100,
        successful: if status == FINISHED { 100 } else { 0 },
        backup_size: "5 GB".to_owned(),
        start: Some(end - HOUR / 2),
        end: Some(end),
        last_modified: Some(end),
        ..Run::default()
    }
}

/// Gives a customer two modules, each with one successful run. Customers differ only in name and the age of that run.
fn make_healthy(customer: &mut Customer, nth: usize) {
    let ago = match nth {
        SILENT => 30 * HOUR,
        LONG_SILENT => 60 * HOUR,
        _ => HOUR,
    };
    customer.organization = format!("Customer {nth}");
    customer.status = 1;
    customer.protected.clear();
    customer.products.clear();
    customer.scan_profiles.clear();
    customer.modules = [EXCHANGE, ONEDRIVE]
        .map(|number| {
            let mut module = Module::new(MICROSOFT_365, number);
            module.runs.push(run(FINISHED, ago));
            module
        })
        .into();
}

async fn partner() -> Partner {
    let partner = partner::start(Settings {
        clock: Clock::Wall,
        history: History::Runs(20),
        ..partner::frozen_partner(CUSTOMERS)
    })
    .await;
    partner.handle.with_world(|world| {
        for (nth, customer) in world.customers.iter_mut().enumerate() {
            make_healthy(customer, nth);
        }
    });
    partner
}

fn add_runs(partner: &Partner, customer: usize, module: u16, runs: impl IntoIterator<Item = Run>) {
    partner.handle.with_world(|world| {
        let modules = &mut world.customers[customer].modules;
        let module = modules.iter_mut().find(|candidate| candidate.number == module).unwrap();
        module.runs.extend(runs);
    });
}

/// Starts Prometheus, and loads the rules after the first scrape. At this speed, an exporter that is missing at first
/// would cause an alert.
async fn prometheus(directory: &Path, pace: u64, exporter: &str, alertmanager: &str) -> Server {
    std::fs::create_dir(directory).unwrap();
    let configuration = format!(
        "global:\n  scrape_interval: {pace}s\n  scrape_timeout: {pace}s\n  evaluation_interval: {pace}s\n\
         rule_files: [elements-*.yml]\n\
         alerting:\n  alertmanagers:\n    - static_configs:\n        - targets: ['{alertmanager}']\n\
         scrape_configs:\n  - job_name: elements\n    static_configs:\n      - targets: ['{exporter}']\n"
    );
    let prometheus = Server::prometheus(directory, &configuration).await;
    eventually("the exporter was scraped", || prometheus.value("elements_up == 1")).await;
    for file in RULES {
        let sped_up = rules::speed_up(file.content, RULE_SPEEDUP / pace);
        std::fs::write(directory.join(file.name), sped_up).unwrap();
    }
    prometheus.reload().await;
    prometheus
}

fn notification(receiver: &str, group: &str, alert: &str, status: &str) -> Notification {
    (
        receiver.to_owned(),
        group.to_owned(),
        alert.to_owned(),
        status.to_owned(),
    )
}

fn without_host(base: &str) -> &str {
    base.strip_prefix("http://").unwrap()
}

/// Locked by tests that use a processor core for minutes, so that they do not delay another test's notifications.
pub static HEAVY_TEST: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn faults_cause_exactly_the_expected_notifications() {
    let _guard = HEAVY_TEST.lock().await;
    let (expected, received) = run_faults(1).await;
    let (expected, received) = match expected == received {
        true => (expected, received),
        false => run_faults(SLOWDOWN).await,
    };
    let missing: Vec<_> = expected.difference(&received).collect();
    let unexpected: Vec<_> = received.difference(&expected).collect();
    assert!(
        missing.is_empty() && unexpected.is_empty(),
        "missing: {missing:#?}\nunexpected: {unexpected:#?}"
    );
}

/// Returns the expected and the received notifications for several faults. Everything is slowed down by the factor
/// `pace`.
async fn run_faults(pace: u64) -> (BTreeSet<Notification>, BTreeSet<Notification>) {
    let partner = partner().await;
    let names = COLLECTOR_KEYS;
    // Intervals are longer than in other tests, and data expires later, so that a busy machine does not look like an
    // outage.
    let (interval, stale_after) = (format!("{}s", 3 * pace), format!("{}s", 15 * pace));
    let settings: Vec<(String, &str)> = names
        .iter()
        .flat_map(|name| {
            let key = |key: &str| format!("ELEMENTS_COLLECTORS__{name}__{key}");
            [
                (key("INTERVAL"), interval.as_str()),
                (key("STALE_AFTER"), stale_after.as_str()),
            ]
        })
        .collect();
    let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    let exporter = Program::start(&partner.base, &[], &settings).await;
    let (recorder, webhook, _recording) = Recorder::start().await;

    let directory = tempfile::tempdir().unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/alertmanager");
    let routes = std::fs::read_to_string(example.join("alertmanager.yml")).unwrap();
    let routes = rules::speed_up(&routes, ROUTE_SPEEDUP / pace).replace("http://127.0.0.1:9095", &webhook);
    let alertmanager_directory = directory.path().join("alertmanager");
    std::fs::create_dir(&alertmanager_directory).unwrap();
    std::fs::copy(
        example.join("elements.tmpl"),
        alertmanager_directory.join("elements.tmpl"),
    )
    .unwrap();
    let alertmanager = Server::alertmanager(&alertmanager_directory, &routes).await;
    let prometheus_directory = directory.path().join("prometheus");
    let (exporter_address, alertmanager_address) = (without_host(&exporter.base), without_host(&alertmanager.base));
    let prometheus = prometheus(&prometheus_directory, pace, exporter_address, alertmanager_address).await;

    // From the beginning, two customers have no recent runs in either module. The customer whose restore points are
    // older than twice the RPO is reported only by the critical alert.
    recorder.wait_for("deadman", "ElementsWatchdog", "firing").await;
    recorder.wait_for("operations", "ElementsBackupOverdue", "firing").await;
    recorder
        .wait_for("on-call", "ElementsBackupOverdueCritical", "firing")
        .await;

    // A module fails three times.
    add_runs(&partner, FAILING, EXCHANGE, [300, 200, 100].map(|ago| run(FAILED, ago)));
    recorder
        .wait_for("operations", "ElementsBackupFailingRepeatedly", "firing")
        .await;

    // The platform fails for half of the customers. Later runs fail as well, for the same reason.
    for customer in PLATFORM_CUSTOMERS {
        add_runs(&partner, customer, ONEDRIVE, [run(FAILED, 90)]);
    }
    recorder.wait_for("on-call", "ElementsMassFailure", "firing").await;
    for customer in PLATFORM_CUSTOMERS {
        add_runs(&partner, customer, ONEDRIVE, [60, 30].map(|ago| run(FAILED, ago)));
    }
    eventually("the platform has failed three times for each affected customer", || {
        prometheus.value("count(customer_module:elements_job_consecutive_failures:max{module=\"OneDrive\"} >= 3) == 6")
    })
    .await;

    // A permission is removed.
    let granted = ["customers", "jobs", "cbprotected", "scanprofiles"];
    let scopes = granted.map(|name| format!("elements.{name}.read.all"));
    partner.handle.set_scopes(scopes.into());
    partner.handle.revoke_tokens();
    recorder.wait_for("owner", "ElementsPermissionMissing", "firing").await;

    // The API fails completely until data is stale. Stale data alone causes no notification.
    let unavailable = FaultKind::Status { code: 503, body: None };
    partner.handle.set_faults(vec![Fault::new("*", unavailable)]);
    recorder.wait_for("owner", "ElementsApiDown", "firing").await;
    eventually("data is stale", || {
        prometheus.value("sum(elements_exporter_customers{state=\"stale\"}) > 0")
    })
    .await;
    partner.handle.clear_faults();
    recorder.wait_for("owner", "ElementsApiDown", "resolved").await;

    // The failing module gets a restore point. Ongoing problems cause no second notification.
    add_runs(&partner, FAILING, EXCHANGE, [run(FINISHED, 10)]);
    recorder
        .wait_for("operations", "ElementsBackupFailingRepeatedly", "resolved")
        .await;

    let customer = |nth: usize| partner.handle.with_world(|world| world.customers[nth].id.clone());
    let (silent, failing) = (
        "ElementsBackupOverdue elements",
        "ElementsBackupFailingRepeatedly elements",
    );
    let long_silent = format!("{} elements", customer(LONG_SILENT));
    let repeatedly = "ElementsBackupFailingRepeatedly warning Customer 0";
    let expected = BTreeSet::from([
        notification("deadman", "ElementsWatchdog", "ElementsWatchdog none", "firing"),
        notification(
            "operations",
            silent,
            "ElementsBackupOverdue warning Customer 1",
            "firing",
        ),
        notification(
            "on-call",
            &long_silent,
            "ElementsBackupOverdueCritical critical Customer 2",
            "firing",
        ),
        notification("operations", failing, repeatedly, "firing"),
        notification("operations", failing, repeatedly, "resolved"),
        notification(
            "on-call",
            "ElementsMassFailure elements OneDrive Microsoft 365",
            "ElementsMassFailure critical OneDrive",
            "firing",
        ),
        notification(
            "owner",
            "ElementsPermissionMissing elements",
            "ElementsPermissionMissing warning licenses",
            "firing",
        ),
        notification(
            "owner",
            "ElementsApiDown elements",
            "ElementsApiDown critical",
            "firing",
        ),
        notification(
            "owner",
            "ElementsApiDown elements",
            "ElementsApiDown critical",
            "resolved",
        ),
    ]);
    (expected, recorder.notifications())
}
