//! The process: what happens inside it, to it, and to its files.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use elements_exporter::api::auth::TokenSource;
use elements_exporter::api::credential::Credential;
use elements_exporter::api::exchange::http_client;
use elements_exporter::api::gateway::{Choice, Gateway};
use elements_exporter::api::pace::Limits;
use elements_exporter::api::transport::{self, Transport};
use elements_exporter::api::{Generation, Observer, v3};
use elements_exporter::collector::{self, Objective, Settings, Target};
use elements_exporter::domain::{CustomerId, Gigabyte};
use elements_exporter::health::Health;
use elements_exporter::schedule::{Orders, Scheduler, SharedPulse, Until};
use elements_exporter::simulator::{Fault, FaultKind};
use elements_exporter::store::{Plan, Store};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::program::Program;
use super::{
    CUSTOMERS_V3, Exporter, JOBS_V3, TOKEN, errors, every_second, ids, is_settled, nowhere, number, set, success,
};
use crate::support::{about_customers, eventually, value};
use crate::world::{Partner, start, still};

const TIMEOUT: Duration = Duration::from_secs(5);

/// A loop of its own, with objectives that the test sets: they are asked inside of polls.
struct Loop {
    store: Arc<Store>,
    health: Arc<Health>,
    _stop: tokio_util::sync::DropGuard,
}

fn polling(partner: &Partner, rpo: Objective) -> Loop {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let health = Arc::new(Health::new());
    let observer: Arc<dyn Observer> = Arc::clone(&health) as Arc<dyn Observer>;
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
    let settings = transport::Settings {
        base_url: partner.base.parse().unwrap(),
        timeout: TIMEOUT,
        limits: Limits {
            requests_per_second: 1000.0,
            max_concurrency: 4,
        },
        gigabyte: Gigabyte::Binary,
    };
    let transport = Transport::new(client, Arc::new(tokens), settings, observer);
    let plans: Vec<Plan> = collector::ALL
        .iter()
        .map(|entry| Plan {
            enabled: ["customers", "jobs"].contains(&entry.name),
            interval: Duration::from_secs(1),
            stale_after: Duration::from_secs(3600),
        })
        .collect();
    let store = Arc::new(Store::new(&plans, None));
    let orders = Orders {
        gateway: Arc::new(Gateway::new(transport, Choice::Fixed(Generation::V3), "/partner")),
        settings: Arc::new(Settings {
            rpo,
            ..Settings::default()
        }),
        plans,
        admits: Arc::new(|_, _| true),
        customer_ids: Vec::new(),
        fallback_ids: Vec::new(),
        max_concurrency: 4,
        series_limit: None,
    };
    let scheduler = Scheduler::new(orders, Arc::clone(&store), Arc::clone(&health), SharedPulse::default());
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        let (_sender, reloads) = mpsc::channel(1);
        scheduler.run(Until::Stopped, reloads, stopped).await
    });
    Loop {
        store,
        health,
        _stop: stop.drop_guard(),
    }
}

impl Loop {
    fn succeeded(&self, id: &str) -> bool {
        let jobs = collector::index_of("jobs").unwrap();
        self.store
            .succeeded(jobs, &Target::Customer(CustomerId::parse(id).unwrap()))
    }

    fn counters(&self) -> String {
        let mut text = Vec::new();
        self.health
            .write(&mut text, elements_exporter::exposition::Format::Text);
        String::from_utf8(text).unwrap()
    }
}

#[tokio::test]
async fn a_poll_that_panics_fails_and_the_loop_lives() {
    let partner = start(still(4)).await;
    let ids = ids(&partner);
    let unlucky = ids[0].clone();
    let this = polling(
        &partner,
        Objective::new(move |of| {
            assert!(
                of.customer_id != unlucky,
                "a panic put into a poll, with canary-secret in it"
            );
            None
        }),
    );
    let panicked = errors("jobs", "panicked");
    eventually("it panics again and again", || async {
        (value(&this.counters(), &panicked) >= Some(2.0)).then_some(())
    })
    .await;
    eventually("the others succeed", || async {
        ids[1..].iter().all(|id| this.succeeded(id)).then_some(())
    })
    .await;
    assert!(!this.succeeded(&ids[0]));
    assert!(this.health.is_alive());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_poll_that_blocks_its_thread_leaves_the_others_going() {
    let partner = start(still(4)).await;
    let ids = ids(&partner);
    let unlucky = ids[0].clone();
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = std::sync::Mutex::new(blocked);
    let this = polling(
        &partner,
        Objective::new(move |of| {
            if of.customer_id == unlucky {
                let _ = blocked.lock().unwrap().recv();
            }
            None
        }),
    );
    eventually("the others succeed", || async {
        ids[1..].iter().all(|id| this.succeeded(id)).then_some(())
    })
    .await;
    partner.handle.clear_requests();
    eventually("and go on", || async {
        let requests = partner.handle.requests();
        let polled = |id: &String| requests.iter().any(|request| request.path.contains(id.as_str()));
        ids[1..].iter().all(polled).then_some(())
    })
    .await;
    assert!(!this.succeeded(&ids[0]));
    assert!(this.health.is_alive());
    drop(release);
}

fn with_state(partner: &str, file: &Path) -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
    let mut variables = every_second(partner, &["jobs", "licenses"], &[]);
    set(&mut variables, "ELEMENTS_STATE__FILE", file.to_str().unwrap());
    variables
}

const ARGUMENTS: [&str; 2] = ["--web.listen-address=127.0.0.1:0", "--log.level=info"];

const LOADED: &str = "elements_exporter_state_load_successful";

#[tokio::test]
async fn a_stop_in_the_middle_of_requests_is_clean_and_saves_the_state() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state");
    let partner = start(still(3)).await;
    let program = Program::listening(with_state(&partner.base, &file), &ARGUMENTS).await;
    let known = program.until_metrics("every poll succeeded", is_settled).await;
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
    let began = Instant::now();
    let output = program.terminate().await;
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // The next start, with the API down, shows what was known; what a kill during a save leaves does not matter.
    fs::write(directory.path().join("state.new"), b"{\"state\":{\"for").unwrap();
    let again = Exporter::load(with_state(&nowhere(), &file)).await;
    assert_eq!(again.get("/-/ready").await.0, 200);
    let restored = again.metrics().await;
    assert_eq!(about_customers(&restored), about_customers(&known));
    assert_eq!(number(&restored, LOADED), 1.0);
    again.stop().await;
}

#[tokio::test]
async fn a_kill_at_any_moment_leaves_a_whole_state() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state");
    let partner = start(still(3)).await;
    let program = Program::listening(with_state(&partner.base, &file), &ARGUMENTS).await;
    program.until_metrics("every poll succeeded", is_settled).await;
    program.terminate().await;
    let whole = fs::read(&file).unwrap();
    for _ in 0..3 {
        let program = Program::listening(with_state(&partner.base, &file), &ARGUMENTS).await;
        program.until_metrics("it runs", is_settled).await;
        // The stop makes it save, and the kill comes right into that.
        program.signal("TERM");
        program.signal("KILL");
        program.ended().await;
        let again = Exporter::load(with_state(&nowhere(), &file)).await;
        assert_eq!(number(&again.metrics().await, LOADED), 1.0);
        again.stop().await;
    }
    assert!(!whole.is_empty());
}

#[tokio::test]
async fn a_state_that_cannot_be_used_is_put_aside_and_said() {
    let directory = tempfile::tempdir().unwrap();
    let partner = start(still(2)).await;
    let good = directory.path().join("good");
    let exporter = Exporter::load(with_state(&partner.base, &good)).await;
    exporter.settled().await;
    exporter.stop().await;
    let whole = fs::read(&good).unwrap();
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let newer = String::from_utf8(whole.clone())
        .unwrap()
        .replacen("\"format\":1", "\"format\":999", 1);
    let cases: [(&str, Vec<u8>); 5] = [
        ("garbage", b"\0\xff not a state".to_vec()),
        ("empty", Vec::new()),
        ("cut", whole[..whole.len() / 2].to_vec()),
        ("flipped", flipped),
        ("newer", newer.into_bytes()),
    ];
    for (case, content) in cases {
        let file = directory.path().join(case);
        fs::write(&file, &content).unwrap();
        let exporter = Exporter::load(with_state(&partner.base, &file)).await;
        let text = exporter.settled().await;
        assert_eq!(number(&text, LOADED), 0.0, "{case}");
        assert_eq!(
            fs::read(directory.path().join(format!("{case}.unusable"))).unwrap(),
            content,
            "{case}"
        );
        exporter.stop().await;
        let again = Exporter::load(with_state(&partner.base, &file)).await;
        assert_eq!(
            number(&again.metrics().await, LOADED),
            1.0,
            "{case}: the next state is good"
        );
        again.stop().await;
    }
}

#[tokio::test]
async fn a_state_that_cannot_be_saved_is_counted_and_said_once() {
    let directory = tempfile::tempdir().unwrap();
    // A directory in the place of the file that is written beside the state can be neither opened nor removed, for
    // anybody, as a disk that is full or read-only cannot be written to.
    let file = directory.path().join("state");
    fs::create_dir(directory.path().join("state.new")).unwrap();
    let partner = start(still(2)).await;
    let program = Program::listening(with_state(&partner.base, &file), &ARGUMENTS).await;
    program
        .until_metrics("a save fails", |text| {
            value(text, "elements_exporter_state_save_failures_total") >= Some(1.0) && is_settled(text)
        })
        .await;
    let output = program.terminate().await;
    assert_eq!(output.code, Some(0));
    assert_eq!(output.stderr.matches("cannot be saved").count(), 1, "{}", output.stderr);
}

#[tokio::test]
async fn a_port_that_is_taken_ends_with_its_address() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let flag = format!("--web.listen-address={address}");
    let output = Program::spawn(every_second(&nowhere(), &[], &[]), &[flag.as_str()])
        .ended()
        .await;
    assert_eq!(output.code, Some(1), "{}", output.stderr);
    assert!(output.stderr.contains(&address), "{}", output.stderr);
}

#[tokio::test]
async fn a_reload_of_a_bad_configuration_changes_nothing_but_what_is_said_of_it() {
    const RELOADED: &str = "elements_exporter_config_last_reload_successful";
    const AT: &str = "elements_exporter_config_last_reload_success_timestamp_seconds";
    let partner = start(still(2)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
    let before = exporter.settled().await;
    let (status, said) = exporter
        .reload(|variables| set(variables, "ELEMENTS_COLLECTORS__JOBS__INTERVAL", "whenever"))
        .await;
    assert_eq!(status, 500);
    assert!(
        said.contains("collectors.jobs.interval") || said.contains("ELEMENTS_COLLECTORS__JOBS__INTERVAL"),
        "{said}"
    );
    let after = exporter.metrics().await;
    assert_eq!(number(&after, RELOADED), 0.0);
    assert_eq!(value(&after, AT), value(&before, AT));
    assert_eq!(about_customers(&after), about_customers(&before));
    partner.handle.clear_requests();
    eventually("the old one polls on", || async {
        (partner.handle.requests().len() >= 4).then_some(())
    })
    .await;
    let (status, _) = exporter
        .reload(|variables| set(variables, "ELEMENTS_COLLECTORS__JOBS__INTERVAL", "2s"))
        .await;
    assert_eq!(status, 200);
    let text = exporter
        .until("the new one", |text| {
            value(text, "elements_exporter_collector_interval_seconds{collector=\"jobs\"}") == Some(2.0)
        })
        .await;
    assert_eq!(number(&text, RELOADED), 1.0);
}

#[tokio::test]
async fn a_failure_is_said_once_and_then_less_and_less() {
    let partner = start(still(2)).await;
    let program = Program::watching(&partner.base, &["jobs"], &[]).await;
    program.until_metrics("every poll succeeded", is_settled).await;
    partner
        .handle
        .set_faults(vec![Fault::new(JOBS_V3, FaultKind::Status { code: 404, body: None })]);
    let id = &ids(&partner)[0];
    program
        .until_metrics("it failed a few times", |text| {
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

/// Nothing that is secret or personal may be in any of it.
#[tokio::test]
async fn secrets_and_addresses_are_nowhere() {
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
        ..still(3)
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
                run.name = addresses[2].to_owned();
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
    let program = Program::listening(variables, &arguments).await;
    let mut told = Vec::new();
    told.push(program.until_metrics("every poll succeeded", is_settled).await);
    let elsewhere = format!("{}/?from=canary@owner.example", nowhere());
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
                location: elsewhere,
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
        told.push(
            program
                .until_metrics(reason, |text| value(text, &error) >= Some(1.0))
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
        let before = super::sum(told.last().unwrap(), "elements_exporter_token_failures_total");
        let failed = |text: &str| super::sum(text, "elements_exporter_token_failures_total") > before;
        told.push(program.until_metrics("no token", failed).await);
        if told.len() == 8 {
            // The pause after a refused client is a minute, which is not waited out here.
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
        told.push(program.get(path).await.1);
    }
    told.push(program.said("stderr"));
    let output = program.terminate().await;
    assert!(
        output.stderr.lines().any(|line| line.contains("level=debug")),
        "it was told to say all: {}",
        output.stderr
    );
    told.extend([output.stdout, output.stderr, fs::read_to_string(&file).unwrap()]);
    let requests = partner.handle.requests();
    assert!(
        requests.iter().any(|request| request.body.contains(SECRET)),
        "the secret was in use"
    );
    let mut canaries: HashSet<String> = addresses.iter().map(|address| (*address).to_owned()).collect();
    canaries.extend([SECRET, "sim-token-", "@owner", "Bearer"].map(ToOwned::to_owned));
    for text in &told {
        for canary in &canaries {
            let line = text.lines().find(|line| line.contains(canary.as_str()));
            assert!(line.is_none(), "{canary} in {}", line.unwrap_or_default());
        }
    }
}
