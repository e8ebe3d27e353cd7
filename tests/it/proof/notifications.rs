//! From a fault to the message that somebody gets: a simulated partner, the exporter, Prometheus with the shipped rules and
//! Alertmanager with the shipped example. What takes minutes or hours there takes seconds here; nothing else is different.

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
use super::servers::Server;
use crate::canned::axum_serve;
use crate::program::Program;
use crate::support::patiently;
use crate::world::{self, Partner};

/// How much faster than shipped rules and routes are. Of Prometheus, which evaluates every second, a route has to be
/// slow enough to wait for what inhibits.
const HASTE_OF_RULES: u64 = 120;
const HASTE_OF_ROUTES: u64 = 30;

const CUSTOMERS: usize = 12;
const MICROSOFT_365: u16 = 7;
const EXCHANGE: u16 = 303;
const ONEDRIVE: u16 = 305;
const FINISHED: i64 = 2;
const FAILED: i64 = 3;
const HOUR: i64 = 3600;

/// Who is who among the customers.
const FAILING: usize = 0;
const SILENT: usize = 1;
const LONG_SILENT: usize = 2;
const OF_THE_PLATFORM: std::ops::Range<usize> = 5..11;

/// A notification, one for each alert in it: to whom, about which group, which alert, and whether it fires or is resolved.
type Told = (String, String, String, String);

/// What a webhook was told, each thing once.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<BTreeSet<Told>>>);

impl Recorder {
    /// Listens on a free port; the guard ends it.
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

    fn told(&self) -> BTreeSet<Told> {
        self.0.lock().unwrap().clone()
    }

    async fn hears(&self, receiver: &str, alert: &str, status: &str) {
        let what = format!("{receiver} hears that {alert} is {status}");
        let heard = |(to, _, about, state): &Told| to == receiver && about.starts_with(alert) && state == status;
        patiently(&what, || async { self.told().iter().any(heard).then_some(()) }).await;
    }
}

async fn record(State(recorder): State<Recorder>, uri: Uri, body: String) {
    let message: Value = serde_json::from_str(&body).unwrap();
    let shown = |labels: &Value, names: &[&str]| {
        let values = names
            .iter()
            .map(|name| text(&labels[*name]))
            .filter(|value| !value.is_empty());
        values.collect::<Vec<_>>().join(" ")
    };
    let group = &message["groupLabels"];
    let names: Vec<&str> = group.as_object().unwrap().keys().map(String::as_str).collect();
    for alert in list(&message["alerts"]) {
        let told = (
            uri.path().trim_start_matches('/').to_owned(),
            shown(group, &names),
            shown(
                &alert["labels"],
                &["alertname", "severity", "organization", "module", "collector"],
            ),
            text(&alert["status"]).to_owned(),
        );
        recorder.0.lock().unwrap().insert(told);
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// A run of half an hour that ended so long ago.
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

/// A customer of two modules, in perfect order but for when they last ran.
fn calm(customer: &mut Customer, nth: usize) {
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
    let partner = world::start(Settings {
        clock: Clock::Wall,
        history: History::Runs(20),
        ..world::still(CUSTOMERS)
    })
    .await;
    partner.handle.with_world(|world| {
        for (nth, customer) in world.customers.iter_mut().enumerate() {
            calm(customer, nth);
        }
    });
    partner
}

/// Adds runs to a module of a customer.
fn ran(partner: &Partner, customer: usize, module: u16, runs: impl IntoIterator<Item = Run>) {
    partner.handle.with_world(|world| {
        let modules = &mut world.customers[customer].modules;
        let module = modules.iter_mut().find(|known| known.number == module).unwrap();
        module.runs.extend(runs);
    });
}

/// A Prometheus that already scrapes when it begins to evaluate the rules: one that does the contrary knows of no exporter
/// for a moment, which at this speed is long enough to say so.
async fn prometheus(directory: &Path, exporter: &str, alertmanager: &str) -> Server {
    std::fs::create_dir(directory).unwrap();
    let configuration = format!(
        "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\n\
         rule_files: [elements-*.yml]\n\
         alerting:\n  alertmanagers:\n    - static_configs:\n        - targets: ['{alertmanager}']\n\
         scrape_configs:\n  - job_name: elements\n    static_configs:\n      - targets: ['{exporter}']\n"
    );
    let prometheus = Server::prometheus(directory, &configuration).await;
    patiently("the exporter was scraped", || prometheus.value("elements_up == 1")).await;
    for file in RULES {
        let hastened = rules::hastened(file.content, HASTE_OF_RULES);
        std::fs::write(directory.join(file.name), hastened).unwrap();
    }
    prometheus.reload().await;
    prometheus
}

/// Waits until Alertmanager holds back so many alerts of a name.
async fn inhibited(alertmanager: &Server, alert: &str, count: usize) {
    let what = format!("{count} of {alert} are inhibited");
    patiently(&what, || async {
        let alerts = alertmanager.alerts().await;
        let held = alerts.iter().filter(|held| {
            held["labels"]["alertname"] == alert && list(&held["status"]["inhibitedBy"]).next().is_some()
        });
        (held.count() >= count).then_some(())
    })
    .await;
}

fn told(receiver: &str, group: &str, alert: &str, status: &str) -> Told {
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

#[tokio::test(flavor = "multi_thread")]
async fn who_should_be_told_is_told_and_nobody_else() {
    let partner = partner().await;
    let names = [
        "CUSTOMERS",
        "JOBS",
        "PROTECTED",
        "LICENSES",
        "SCAN_PROFILES",
        "SCAN_CHANGES",
    ];
    // Slower than in other tests and stale only after a while, so that a busy machine is not taken for an outage.
    let settings: Vec<(String, &str)> = names
        .iter()
        .flat_map(|name| {
            let key = |key: &str| format!("ELEMENTS_COLLECTORS__{name}__{key}");
            [(key("INTERVAL"), "3s"), (key("STALE_AFTER"), "15s")]
        })
        .collect();
    let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    let exporter = Program::start(&partner.base, &[], &settings).await;
    let (recorder, webhook, _recording) = Recorder::start().await;

    let directory = tempfile::tempdir().unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/alertmanager");
    let routes = std::fs::read_to_string(example.join("alertmanager.yml")).unwrap();
    let routes = rules::hastened(&routes, HASTE_OF_ROUTES).replace("http://127.0.0.1:9095", &webhook);
    let of_alertmanager = directory.path().join("alertmanager");
    std::fs::create_dir(&of_alertmanager).unwrap();
    std::fs::copy(example.join("elements.tmpl"), of_alertmanager.join("elements.tmpl")).unwrap();
    let alertmanager = Server::alertmanager(&of_alertmanager, &routes).await;
    let of_prometheus = directory.path().join("prometheus");
    let (to_scrape, to_tell) = (without_host(&exporter.base), without_host(&alertmanager.base));
    let _prometheus = prometheus(&of_prometheus, to_scrape, to_tell).await;

    // Two customers are silent from the start, and the worse alert holds the other back.
    recorder.hears("deadman", "ElementsWatchdog", "firing").await;
    recorder.hears("operations", "ElementsBackupOverdue", "firing").await;
    recorder
        .hears("on-call", "ElementsBackupOverdueCritical", "firing")
        .await;
    inhibited(&alertmanager, "ElementsBackupOverdue", 2).await;

    // A module fails for the third time.
    ran(&partner, FAILING, EXCHANGE, [300, 200, 100].map(|ago| run(FAILED, ago)));
    recorder
        .hears("operations", "ElementsBackupFailingRepeatedly", "firing")
        .await;

    // The platform fails, for half of the customers. Later runs fail as well, and are nobody's but the platform's.
    for customer in OF_THE_PLATFORM {
        ran(&partner, customer, ONEDRIVE, [run(FAILED, 90)]);
    }
    recorder.hears("on-call", "ElementsMassFailure", "firing").await;
    for customer in OF_THE_PLATFORM {
        ran(&partner, customer, ONEDRIVE, [60, 30].map(|ago| run(FAILED, ago)));
    }
    inhibited(&alertmanager, "ElementsBackupFailingRepeatedly", OF_THE_PLATFORM.len()).await;

    // A permission is taken away.
    let kept = ["customers", "jobs", "cbprotected", "scanprofiles"];
    let scopes = kept.map(|name| format!("elements.{name}.read.all"));
    partner.handle.set_scopes(scopes.into());
    partner.handle.revoke_tokens();
    recorder.hears("owner", "ElementsPermissionMissing", "firing").await;

    // Nothing of the API answers any more, until data is stale and what stands on it is held back.
    let broken = FaultKind::Status { code: 503, body: None };
    partner.handle.set_faults(vec![Fault::new("*", broken)]);
    recorder.hears("owner", "ElementsApiDown", "firing").await;
    inhibited(&alertmanager, "ElementsCollectorStale", 1).await;
    inhibited(&alertmanager, "ElementsBackupOverdueCritical", 2).await;
    partner.handle.clear_faults();
    recorder.hears("owner", "ElementsApiDown", "resolved").await;

    // The module that failed has a restore point again. Of what goes on, nobody is told twice.
    ran(&partner, FAILING, EXCHANGE, [run(FINISHED, 10)]);
    recorder
        .hears("operations", "ElementsBackupFailingRepeatedly", "resolved")
        .await;

    let customer = |nth: usize| partner.handle.with_world(|world| world.customers[nth].id.clone());
    let group = |alert: &str, nth: usize| format!("{alert} {} elements", customer(nth));
    let (silent, long_silent) = (
        group("ElementsBackupOverdue", SILENT),
        group("ElementsBackupOverdueCritical", LONG_SILENT),
    );
    let failing = group("ElementsBackupFailingRepeatedly", FAILING);
    let repeatedly = "ElementsBackupFailingRepeatedly warning Customer 0 Exchange Online";
    let expected = BTreeSet::from([
        told("deadman", "ElementsWatchdog", "ElementsWatchdog none", "firing"),
        told(
            "operations",
            &silent,
            "ElementsBackupOverdue warning Customer 1 Exchange Online",
            "firing",
        ),
        told(
            "operations",
            &silent,
            "ElementsBackupOverdue warning Customer 1 OneDrive",
            "firing",
        ),
        told(
            "on-call",
            &long_silent,
            "ElementsBackupOverdueCritical critical Customer 2 Exchange Online",
            "firing",
        ),
        told(
            "on-call",
            &long_silent,
            "ElementsBackupOverdueCritical critical Customer 2 OneDrive",
            "firing",
        ),
        told("operations", &failing, repeatedly, "firing"),
        told("operations", &failing, repeatedly, "resolved"),
        told(
            "on-call",
            "ElementsMassFailure elements Microsoft 365",
            "ElementsMassFailure critical OneDrive",
            "firing",
        ),
        told(
            "owner",
            "ElementsPermissionMissing elements",
            "ElementsPermissionMissing warning licenses",
            "firing",
        ),
        told(
            "owner",
            "ElementsApiDown elements",
            "ElementsApiDown critical",
            "firing",
        ),
        told(
            "owner",
            "ElementsApiDown elements",
            "ElementsApiDown critical",
            "resolved",
        ),
    ]);
    let heard = recorder.told();
    let missing: Vec<_> = expected.difference(&heard).collect();
    let beyond: Vec<_> = heard.difference(&expected).collect();
    assert!(
        missing.is_empty() && beyond.is_empty(),
        "not told: {missing:#?}\ntold besides: {beyond:#?}"
    );
}
