//! Panics, shutdowns, the state file, startup errors, reloads and log output.
//!
//! The tests are in one long file, because they share the helpers for poll loops and state files.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use elements_exporter::api::auth::TokenSource;
use elements_exporter::api::client::ApiClient;
use elements_exporter::api::credential::Credential;
use elements_exporter::api::exchange::http_client;
use elements_exporter::api::rate_limiter::RequestLimits;
use elements_exporter::api::transport::{Transport, TransportSettings};
use elements_exporter::api::{Endpoint, Error, Generation, Observer, auth, v3};
use elements_exporter::collector::{CollectorId, CollectorSettings, PerCollector, Plan, Target};
use elements_exporter::domain::{CustomerFilter, CustomerId, GenerationChoice};
use elements_exporter::health::Health;
use elements_exporter::runtime::SharedScheduleStatus;
use elements_exporter::schedule::{ScheduleConfig, Scheduler, Until};
use elements_exporter::simulator::{Fault, FaultKind};
use elements_exporter::store::Store;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    CUSTOMERS_V3, Exporter, JOBS_V3, TOKEN, errors, every_second, ids, is_settled, number, set, success,
    unreachable_api,
};
use crate::harness::partner::{Partner, frozen_partner, start};
use crate::harness::program::Program;
use crate::harness::{TIMEOUT, about_customers, eventually, value};

/// A poll loop that calls a function provided by the test when it polls a particular customer.
struct PollLoop {
    store: Arc<Store>,
    health: Arc<Health>,
    _stop: tokio_util::sync::DropGuard,
}

/// Number of rows by which [`Tripwire`] recognizes a poll. No simulated customer has exactly this many rows.
const TRIPPING_ROWS: usize = 77;

/// An observer that calls `trip` within each poll whose list has [`TRIPPING_ROWS`] rows.
struct Tripwire {
    health: Arc<Health>,
    trip: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Tripwire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tripwire")
    }
}

impl Observer for Tripwire {
    fn request(&self, endpoint: Endpoint, status: Option<u16>, elapsed: Duration) {
        self.health.request(endpoint, status, elapsed);
    }
    fn retry(&self, endpoint: Endpoint) {
        self.health.retry(endpoint);
    }
    fn throttled(&self, endpoint: Endpoint) {
        self.health.throttled(endpoint);
    }
    fn rows(&self, endpoint: Endpoint, rows: usize) {
        if endpoint == Endpoint::Jobs && rows == TRIPPING_ROWS {
            (self.trip)();
        }
    }
    fn decode_error(&self, endpoint: Endpoint, field: &'static str, shape: &str) {
        self.health.decode_error(endpoint, field, shape);
    }
    fn unknown_value(&self, endpoint: Endpoint, field: &'static str, value: &str) {
        self.health.unknown_value(endpoint, field, value);
    }
    fn duplicate_rows(&self, endpoint: Endpoint, rows: u64) {
        self.health.duplicate_rows(endpoint, rows);
    }
    fn token_failure(&self, error: &auth::Error) {
        self.health.token_failure(error);
    }
    fn token(&self, expires_in: Duration) {
        self.health.token(expires_in);
    }
}

/// Returns a transport to the partner's API that sends up to four requests at a time.
fn transport(partner: &Partner, observer: Arc<dyn Observer>) -> Transport {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = http_client(TIMEOUT, None, &[]).unwrap();
    let tokens = TokenSource::new(
        client.clone(),
        format!("{}{TOKEN}", partner.base).parse().unwrap(),
        "demo".to_owned(),
        Credential::secret("demo-secret".to_owned().into()).unwrap(),
        TIMEOUT,
        vec![vec![v3::scope::CUSTOMERS, v3::scope::JOBS]],
        Arc::clone(&observer),
    );
    let settings = TransportSettings {
        base_url: partner.base.parse().unwrap(),
        timeout: TIMEOUT,
        limits: RequestLimits {
            requests_per_second: 1000.0,
            max_concurrency: 4,
        },
    };
    Transport::new(client, Arc::new(tokens), settings, observer, None)
}

/// Polls jobs, and calls `trip` within each poll of the customer with the id `tripping`.
fn start_poll_loop(partner: &Partner, tripping: &str, trip: impl Fn() + Send + Sync + 'static) -> PollLoop {
    let rows: Vec<_> = (0..TRIPPING_ROWS)
        .map(|n| json!({"jobType": 7, "jobModule": 303, "status": 2, "jobId": n.to_string()}))
        .collect();
    partner.handle.set_faults(vec![Fault::new(
        &JOBS_V3.replace('*', tripping),
        FaultKind::WrongBody {
            content_type: "application/json".to_owned(),
            body: json!({"data": rows}).to_string(),
        },
    )]);
    let health = Arc::new(Health::new());
    let observer: Arc<dyn Observer> = Arc::new(Tripwire {
        health: Arc::clone(&health),
        trip: Box::new(trip),
    });
    let transport = transport(partner, observer);
    let plans = PerCollector::from_fn(|collector| Plan {
        enabled: [CollectorId::CUSTOMERS, CollectorId::JOBS].contains(&collector),
        interval: Duration::from_secs(1),
        stale_after: Duration::from_secs(3600),
    });
    let store = Arc::new(Store::new(&plans, None));
    let schedule_config = ScheduleConfig {
        client: Arc::new(ApiClient::new(
            transport,
            GenerationChoice::Fixed(Generation::V3),
            "/partner",
        )),
        settings: Arc::new(CollectorSettings::default()),
        plans,
        customers: CustomerFilter::default(),
        customer_ids: Vec::new(),
        fallback_ids: Vec::new(),
        max_concurrency: 4,
        series_limit: None,
        run_events: false,
    };
    let scheduler = Scheduler::new(
        schedule_config,
        Arc::clone(&store),
        Arc::clone(&health),
        SharedScheduleStatus::default(),
    );
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        let (_sender, reloads) = mpsc::channel(1);
        scheduler.run(Until::Stopped, reloads, stopped).await
    });
    PollLoop {
        store,
        health,
        _stop: stop.drop_guard(),
    }
}

impl PollLoop {
    fn succeeded(&self, id: &str) -> bool {
        self.store
            .succeeded(CollectorId::JOBS, &Target::Customer(CustomerId::parse(id).unwrap()))
    }

    fn counters(&self) -> String {
        let mut text = Vec::new();
        self.health.write(
            &mut text,
            elements_exporter::exposition::Format::Text,
            &elements_exporter::exposition::ExcludedMetrics::default(),
        );
        String::from_utf8(text).unwrap()
    }
}

#[tokio::test]
async fn poll_that_panics_fails_and_the_loop_continues() {
    let partner = start(frozen_partner(4)).await;
    let ids = ids(&partner);
    let poll_loop = start_poll_loop(&partner, &ids[0], || {
        panic!("an injected panic that contains canary-secret")
    });
    let panicked = errors("jobs", "panicked");
    eventually("several panics", || async {
        (value(&poll_loop.counters(), &panicked) >= Some(2.0)).then_some(())
    })
    .await;
    eventually("the other customers are polled", || async {
        ids[1..].iter().all(|id| poll_loop.succeeded(id)).then_some(())
    })
    .await;
    assert!(!poll_loop.succeeded(&ids[0]));
    assert!(poll_loop.health.is_alive());
}

pub(super) fn with_state(partner: &str, file: &Path) -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
    let mut variables = every_second(partner, &["jobs", "licenses"], &[]);
    set(&mut variables, "ELEMENTS_STATE__FILE", file.to_str().unwrap());
    variables
}

pub(super) const ARGUMENTS: [&str; 2] = ["--web.listen-address=127.0.0.1:0", "--log.level=info"];

pub(super) const LOADED: &str = "elements_exporter_state_load_successful";

#[tokio::test]
async fn stop_during_requests_saves_the_state() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state");
    let partner = start(frozen_partner(3)).await;
    let program = Program::start_with(with_state(&partner.base, &file), &ARGUMENTS).await;
    let before = program.wait_until("every poll succeeded", is_settled).await;
    partner.handle.set_faults(vec![Fault::new(JOBS_V3, FaultKind::Hang)]);
    partner.handle.clear_requests();
    eventually("requests hang", || async {
        partner
            .handle
            .requests()
            .iter()
            .any(|request| request.status == 0)
            .then_some(())
    })
    .await;
    // The program exits despite the hanging requests.
    let output = program.terminate().await;
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    // If the exporter is restarted while the API is down, it serves the last known values. It ignores the incomplete
    // file of an interrupted save.
    fs::write(directory.path().join("state.new"), b"{\"state\":{\"for").unwrap();
    let restarted = Exporter::load(with_state(&unreachable_api(), &file)).await;
    assert_eq!(restarted.get("/-/ready").await.0, 200);
    let restored = restarted.metrics().await;
    assert_eq!(about_customers(&restored), about_customers(&before));
    assert_eq!(number(&restored, LOADED), 1.0);
    restarted.stop().await;
}

#[tokio::test]
async fn kill_at_any_time_leaves_a_complete_state() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state");
    let partner = start(frozen_partner(3)).await;
    let program = Program::start_with(with_state(&partner.base, &file), &ARGUMENTS).await;
    program.wait_until("every poll succeeded", is_settled).await;
    program.terminate().await;
    let complete = fs::read(&file).unwrap();
    for _ in 0..3 {
        let program = Program::start_with(with_state(&partner.base, &file), &ARGUMENTS).await;
        program.wait_until("every poll succeeded", is_settled).await;
        // SIGTERM starts a save, which SIGKILL may interrupt.
        program.signal("TERM");
        program.signal("KILL");
        program.wait().await;
        let restarted = Exporter::load(with_state(&unreachable_api(), &file)).await;
        assert_eq!(number(&restarted.metrics().await, LOADED), 1.0);
        restarted.stop().await;
    }
    assert!(!complete.is_empty());
}

#[tokio::test]
async fn unusable_state_is_renamed_and_reported() {
    let directory = tempfile::tempdir().unwrap();
    let partner = start(frozen_partner(2)).await;
    let valid_file = directory.path().join("valid");
    let exporter = Exporter::load(with_state(&partner.base, &valid_file)).await;
    exporter.wait_until_settled().await;
    exporter.stop().await;
    let complete = fs::read(&valid_file).unwrap();
    let mut flipped = complete.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let newer = String::from_utf8(complete.clone())
        .unwrap()
        .replacen("\"format\":1", "\"format\":999", 1);
    let cases: [(&str, Vec<u8>); 4] = [
        ("begun", b"{\"sta".to_vec()),
        ("cut", complete[..complete.len() / 2].to_vec()),
        ("flipped", flipped),
        ("newer", newer.into_bytes()),
    ];
    for (case, content) in cases {
        let file = directory.path().join(case);
        fs::write(&file, &content).unwrap();
        let exporter = Exporter::load(with_state(&partner.base, &file)).await;
        let text = exporter.wait_until_settled().await;
        assert_eq!(number(&text, LOADED), 0.0, "{case}");
        assert_eq!(
            fs::read(directory.path().join(format!("{case}.unusable"))).unwrap(),
            content,
            "{case}"
        );
        exporter.stop().await;
        let restarted = Exporter::load(with_state(&partner.base, &file)).await;
        assert_eq!(
            number(&restarted.metrics().await, LOADED),
            1.0,
            "{case}: the next state must be valid"
        );
        restarted.stop().await;
    }
}

#[tokio::test]
async fn failed_saves_are_counted_and_logged_once() {
    let directory = tempfile::tempdir().unwrap();
    // A directory has the name of the temporary file. Not even root can create the file there, so saves fail as they
    // would on a full or read-only disk.
    let file = directory.path().join("state");
    fs::create_dir(directory.path().join("state.new")).unwrap();
    let partner = start(frozen_partner(2)).await;
    let program = Program::start_with(with_state(&partner.base, &file), &ARGUMENTS).await;
    program
        .wait_until("a save fails", |text| {
            value(text, "elements_exporter_state_save_failures_total") >= Some(1.0) && is_settled(text)
        })
        .await;
    let output = program.terminate().await;
    assert_eq!(output.code, Some(0));
    assert_eq!(
        output.stderr.matches("cannot save state").count(),
        1,
        "{}",
        output.stderr
    );
}

#[tokio::test]
async fn port_in_use_is_reported_with_its_address() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let flag = format!("--web.listen-address={address}");
    let output = Program::spawn(every_second(&unreachable_api(), &[], &[]), &[flag.as_str()])
        .wait()
        .await;
    assert_eq!(output.code, Some(1), "{}", output.stderr);
    assert!(output.stderr.contains(&address), "{}", output.stderr);
}

#[tokio::test]
async fn reload_of_an_invalid_configuration_changes_nothing() {
    const RELOAD_SUCCESSFUL: &str = "elements_exporter_config_last_reload_successful";
    const RELOAD_TIME: &str = "elements_exporter_config_last_reload_success_timestamp_seconds";
    let partner = start(frozen_partner(2)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
    let before = exporter.wait_until_settled().await;
    let (status, printed) = exporter
        .reload(|variables| set(variables, "ELEMENTS_COLLECTORS__JOBS__INTERVAL", "whenever"))
        .await;
    assert_eq!(status, 500);
    assert!(
        printed.contains("collectors.jobs.interval") || printed.contains("ELEMENTS_COLLECTORS__JOBS__INTERVAL"),
        "{printed}"
    );
    let after = exporter.metrics().await;
    assert_eq!(number(&after, RELOAD_SUCCESSFUL), 0.0);
    assert_eq!(value(&after, RELOAD_TIME), value(&before, RELOAD_TIME));
    assert_eq!(about_customers(&after), about_customers(&before));
    partner.handle.clear_requests();
    eventually("polls with the old configuration", || async {
        (partner.handle.requests().len() >= 4).then_some(())
    })
    .await;
    let (status, _) = exporter
        .reload(|variables| set(variables, "ELEMENTS_COLLECTORS__JOBS__INTERVAL", "2s"))
        .await;
    assert_eq!(status, 200);
    let text = exporter
        .wait_until("a reload with the new configuration", |text| {
            value(text, "elements_exporter_collector_interval_seconds{collector=\"jobs\"}") == Some(2.0)
        })
        .await;
    assert_eq!(number(&text, RELOAD_SUCCESSFUL), 1.0);
}

#[tokio::test]
async fn repeated_failure_is_logged_once_at_first() {
    let partner = start(frozen_partner(2)).await;
    let program = Program::start_collectors(&partner.base, &["jobs"], &[]).await;
    program.wait_until("every poll succeeded", is_settled).await;
    partner
        .handle
        .set_faults(vec![Fault::new(JOBS_V3, FaultKind::Status { code: 404, body: None })]);
    let id = &ids(&partner)[0];
    program
        .wait_until("several failures", |text| {
            value(text, &errors("jobs", "not_found")) >= Some(5.0) && value(text, &success("jobs", id)) == Some(0.0)
        })
        .await;
    let output = program.terminate().await;
    let warned: Vec<_> = output
        .stderr
        .lines()
        .filter(|line| line.contains("level=warn"))
        .collect();
    assert_eq!(warned.len(), 1, "{}", output.stderr);
    assert!(
        warned[0].contains("collector=jobs") && warned[0].contains("reason=not_found"),
        "{}",
        warned[0]
    );
}

/// No output may contain secrets or personal data.
#[tokio::test]
async fn secrets_and_addresses_do_not_appear_in_output() {
    const SECRET: &str = "canary-secret-7f3a";
    let addresses = [
        "canary@owner.example",
        "canary@account.example",
        "canary@word.example",
        "canary@object.example",
    ];
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state");
    let partner = start(elements_exporter::simulator::Settings {
        client_secret: SECRET.to_owned(),
        ..frozen_partner(3)
    })
    .await;
    partner.handle.with_world(|world| {
        for customer in &mut world.customers {
            customer.owner_email = addresses[0].to_owned();
            customer.raw_fields.insert("jobStatus".to_owned(), json!(addresses[2]));
            for profile in &mut customer.scan_profiles {
                profile.impersonation_account = Some(addresses[1].to_owned());
                profile
                    .report
                    .new
                    .iter_mut()
                    .for_each(|change| change.object = addresses[3].to_owned());
            }
            for run in customer.modules.iter_mut().flat_map(|module| &mut module.runs) {
                run.raw_fields.insert("totalCount".to_owned(), json!(addresses[2]));
                run.raw_fields.insert("status".to_owned(), json!(addresses[2]));
            }
        }
    });
    let mut variables = every_second(&partner.base, &super::COLLECTORS, &[("ELEMENTS_API__TIMEOUT", "1s")]);
    set(&mut variables, "ELEMENTS_AUTH__CLIENT_SECRET", SECRET);
    set(&mut variables, "ELEMENTS_STATE__FILE", file.to_str().unwrap());
    set(&mut variables, "ELEMENTS_COLLECTORS__SCAN_CHANGES__OBJECTS", "true");
    let arguments = [
        "--web.listen-address=127.0.0.1:0",
        "--log.level=trace",
        "--web.enable-lifecycle",
    ];
    let program = Program::start_with(variables, &arguments).await;
    let mut outputs = Vec::new();
    outputs.push(program.wait_until("every poll succeeded", is_settled).await);
    let other_url = format!("{}/?from=canary@owner.example", unreachable_api());
    let kinds = [
        (
            "server_error",
            FaultKind::Status {
                code: 500,
                body: Some(format!("{SECRET} canary@owner.example")),
            },
        ),
        (
            "bad_request",
            FaultKind::Status {
                code: 400,
                body: Some(SECRET.to_owned()),
            },
        ),
        (
            "redirect",
            FaultKind::Redirect {
                code: 307,
                location: other_url,
            },
        ),
        ("interrupted", FaultKind::Reset),
        (
            "decode",
            FaultKind::WrongBody {
                content_type: "text/html".to_owned(),
                body: addresses[0].to_owned(),
            },
        ),
        ("forbidden", FaultKind::Status { code: 403, body: None }),
    ];
    for (reason, kind) in kinds {
        partner.handle.set_faults(vec![Fault::new(CUSTOMERS_V3, kind)]);
        let error = errors("customers", reason);
        outputs.push(
            program
                .wait_until(reason, |text| value(text, &error) >= Some(1.0))
                .await,
        );
    }
    for kind in [
        FaultKind::Status {
            code: 400,
            body: Some(format!(
                r#"{{"error":"invalid_client","error_description":"{SECRET}"}}"#
            )),
        },
        FaultKind::Status {
            code: 500,
            body: Some(SECRET.to_owned()),
        },
    ] {
        partner.handle.set_faults(vec![Fault::new(TOKEN, kind)]);
        partner.handle.revoke_tokens();
        let before = super::sum(outputs.last().unwrap(), "elements_exporter_token_failures_total");
        let failed = |text: &str| super::sum(text, "elements_exporter_token_failures_total") > before;
        outputs.push(program.wait_until("a token request failed", failed).await);
        if outputs.len() == 8 {
            // The pause after a rejected client lasts at least a minute, so the test does not await the next request.
            break;
        }
    }
    for path in [
        "/",
        "/-/healthy",
        "/-/ready",
        "/-/reload",
        "/dashboards/",
        "/rules/",
        "/nothing",
    ] {
        outputs.push(program.text(path).await);
    }
    outputs.push(program.stderr());
    let output = program.terminate().await;
    assert!(
        output.stderr.lines().any(|line| line.contains("level=debug")),
        "debug messages are missing: {}",
        output.stderr
    );
    outputs.extend([output.stdout, output.stderr, fs::read_to_string(&file).unwrap()]);
    let requests = partner.handle.requests();
    assert!(
        requests.iter().any(|request| request.body.contains(SECRET)),
        "no request contains the secret"
    );
    let mut canaries: HashSet<String> = addresses.iter().map(|address| (*address).to_owned()).collect();
    canaries.extend([SECRET, "sim-token-", "@owner", "Bearer"].map(ToOwned::to_owned));
    for text in &outputs {
        for canary in &canaries {
            let line = text.lines().find(|line| line.contains(canary.as_str()));
            assert!(line.is_none(), "{canary} in {}", line.unwrap_or_default());
        }
    }
}

#[tokio::test]
async fn too_few_descriptors_at_startup_are_an_error() {
    // Three descriptors are for the standard streams, and the dynamic loader needs one.
    for descriptors in 4..=16 {
        let limit = format!("-n {descriptors}");
        let program = Program::limited(&limit, every_second(&unreachable_api(), &["jobs"], &[]), &ARGUMENTS);
        // With enough descriptors, the program runs until it is stopped.
        eventually("the program exits or listens", || async {
            let printed = program.stderr();
            (!printed.is_empty()).then_some(())
        })
        .await;
        program.signal("TERM");
        let output = program.wait().await;
        assert!(
            matches!(output.code, Some(0 | 1 | 127)),
            "{descriptors}: {:?}: {}",
            output.code,
            output.stderr
        );
        assert!(!output.stderr.contains("panicked"), "{descriptors}: {}", output.stderr);
    }
}

#[tokio::test]
async fn failed_probe_doubles_the_time_without_requests() {
    let partner = start(frozen_partner(8)).await;
    partner
        .handle
        .set_faults(vec![Fault::new(JOBS_V3, FaultKind::Status { code: 500, body: None })]);
    let client = v3::Client::new(transport(&partner, Arc::new(Health::new())));
    let fetch = async |id: &str| {
        let list = v3::List {
            endpoint: Endpoint::Jobs,
            scope: v3::scope::JOBS,
            path: &["customers", id, "avpt-products", "jobs", "batch"],
            filter: Some("{}"),
            key: None,
        };
        client.fetch_list(list).await.unwrap_err().error
    };
    let ids = ids(&partner);
    let mut pauses = Vec::new();
    // The breaker opens, a probe fails, and the breaker opens again.
    for id in ids.iter().cycle().take(40) {
        if let Error::Unavailable(pause) = fetch(id).await {
            pauses.push(pause);
            if pauses.len() == 2 {
                break;
            }
            tokio::time::sleep(pause).await;
        }
    }
    let probed = partner.handle.requests().len();
    assert!(
        pauses[1] > pauses[0] + Duration::from_secs(1),
        "{pauses:?} after {probed} requests"
    );
}
