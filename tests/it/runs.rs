//! The run history in the log, on the page and as JSON.

use elements_exporter::simulator::{Run, Settings};
use serde_json::Value;

use crate::harness::partner::{Partner, frozen_partner, start};
use crate::harness::program::Program;
use crate::harness::{eventually, every_second_all, fresh, value};

const MICROSOFT_365: u16 = 7;
const EXCHANGE: u16 = 303;
const MESSAGE: &str = "job run ended";

async fn partner() -> Partner {
    start(Settings {
        hostile: false,
        ..frozen_partner(2)
    })
    .await
}

/// Adds a failed run to the first customer's Exchange Online. The run ends an hour after the latest completed run; runs
/// in progress are removed. Returns the customer's id.
fn add_run(partner: &Partner, id: &str) -> String {
    partner.handle.with_world(|world| {
        let customer = &mut world.customers[0];
        let is_exchange = |module: &&mut elements_exporter::simulator::Module| {
            (module.job_type, module.number) == (MICROSOFT_365, EXCHANGE)
        };
        let module = customer.modules.iter_mut().find(is_exchange).unwrap();
        let newest = module
            .runs
            .iter()
            .filter_map(|run| run.end)
            .max()
            .unwrap_or(1_760_000_000);
        module.runs.retain(|run| run.end.is_some());
        module.runs.push(Run {
            id: id.to_owned(),
            total: 12,
            failed: 12,
            start: Some(newest + 1800),
            end: Some(newest + 3600),
            last_modified: Some(newest + 3600),
            ..Run::bare(3)
        });
        customer.id.clone()
    })
}

async fn exporter(partner: &Partner, version: &str, arguments: &[&str], extra_env: &[(&str, &str)]) -> Program {
    let settings = [
        &[("ELEMENTS_EVENTS__RUNS", "true"), ("ELEMENTS_API__VERSION", version)],
        extra_env,
    ]
    .concat();
    let program = Program::start(&partner.base, arguments, &settings).await;
    program
        .wait_until("jobs are polled", |text| fresh(text, "jobs") == Some(2.0))
        .await;
    program
}

/// Waits until a run is logged, and returns the log lines of all runs.
async fn wait_until_logged(program: &Program, id: &str) -> Vec<String> {
    eventually(&format!("{id} is logged"), || async {
        let stderr = program.stderr();
        let lines: Vec<_> = stderr
            .lines()
            .filter(|line| line.contains(MESSAGE))
            .map(ToOwned::to_owned)
            .collect();
        lines.iter().any(|line| line.contains(id)).then_some(lines)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_logged_once_across_restarts_and_a_crash() {
    for version in ["v1", "v3"] {
        let partner = partner().await;
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let with_state = [("ELEMENTS_STATE__FILE", state.to_str().unwrap())];
        let program = exporter(&partner, version, &[], &with_state).await;
        let customer = add_run(&partner, "EIB-first");
        let lines = wait_until_logged(&program, "EIB-first").await;
        assert_eq!(
            lines.len(),
            1,
            "runs completed before the startup must not be logged: {lines:?}"
        );
        for part in [
            "level=info",
            &format!("customer_id={customer}"),
            "organization=",
            "service=\"Microsoft 365\"",
            "module=\"Exchange Online\"",
            "job_id=EIB-first",
            "status=failed",
            "processed=12",
            "failed=12",
            "start=2025-",
            "end=2025-",
        ] {
            assert!(lines[0].contains(part), "{part}: {}", lines[0]);
        }
        assert_eq!(program.terminate().await.code, Some(0));

        // A run completes while the exporter is down. The restarted exporter logs it and then crashes.
        add_run(&partner, "EIB-second");
        let program = exporter(&partner, version, &[], &with_state).await;
        let lines = wait_until_logged(&program, "EIB-second").await;
        assert_eq!(lines.len(), 1, "{lines:?}");
        program.signal("KILL");
        program.wait().await;

        let program = exporter(&partner, version, &[], &with_state).await;
        add_run(&partner, "EIB-third");
        let lines = wait_until_logged(&program, "EIB-third").await;
        assert_eq!(lines.len(), 1, "{lines:?}");

        // All runs survive the restarts.
        let runs: Value =
            serde_json::from_str(&program.text(&format!("/customers/{customer}/runs.json")).await).unwrap();
        assert_eq!(runs["customer_id"], customer.as_str());
        let exchange: Vec<&Value> = runs["runs"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|run| run["module"] == "Exchange Online")
            .collect();
        let ids: Vec<&str> = exchange
            .iter()
            .take(3)
            .map(|run| run["job_id"].as_str().unwrap())
            .collect();
        assert_eq!(ids, ["EIB-third", "EIB-second", "EIB-first"]);
        assert_eq!(
            (&exchange[0]["status"], &exchange[0]["failed"]),
            (&"failed".into(), &12.into())
        );
        assert!(exchange[0]["end"].as_str().unwrap().ends_with('Z') && exchange[0].get("scope").is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_logged_only_after_the_state_is_saved() {
    const FAILURES: &str = "elements_exporter_state_save_failures_total";
    let partner = partner().await;
    let directory = tempfile::tempdir().unwrap();
    let missing_directory = directory.path().join("below");
    std::fs::create_dir(&missing_directory).unwrap();
    let state = missing_directory.join("state");
    let program = exporter(
        &partner,
        "v3",
        &[],
        &[("ELEMENTS_STATE__FILE", state.to_str().unwrap())],
    )
    .await;
    std::fs::remove_dir_all(&missing_directory).unwrap();
    let customer = add_run(&partner, "EIB-first");
    let path = format!("/customers/{customer}");
    program
        .wait_until_at(&path, "the run is displayed", |page| page.contains("EIB-first"))
        .await;
    let failures = |text: &str| value(text, FAILURES).unwrap_or_default();
    let before = failures(&program.metrics().await);
    program
        .wait_until("another save fails", |text| failures(text) > before)
        .await;
    assert!(!program.stderr().contains(MESSAGE), "{}", program.stderr());
    std::fs::create_dir(&missing_directory).unwrap();
    assert_eq!(wait_until_logged(&program, "EIB-first").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_log_has_counts_as_numbers() {
    let partner = partner().await;
    let settings = [("ELEMENTS_EVENTS__RUNS", "true")];
    let arguments = ["--web.listen-address=127.0.0.1:0", "--log.format=json"];
    let mut program = Program::spawn(every_second_all(&partner.base, &settings), &arguments);
    let address = eventually("the program listens", || async {
        let stderr = program.stderr();
        let mut events = stderr
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.find_map(|event| event["address"].as_str().map(ToOwned::to_owned))
    })
    .await;
    program.set_address(&address);
    program
        .wait_until("jobs are polled", |text| fresh(text, "jobs") == Some(2.0))
        .await;
    add_run(&partner, "EIB-first");
    let lines = wait_until_logged(&program, "EIB-first").await;
    let event: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!((&event["message"], &event["level"]), (&MESSAGE.into(), &"INFO".into()));
    assert_eq!((&event["processed"], &event["skipped"]), (&12.into(), &0.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_logged_without_a_state_file_only_if_enabled() {
    let partner = partner().await;
    let program = exporter(&partner, "v3", &[], &[]).await;
    let without_events = exporter(&partner, "v3", &[], &[("ELEMENTS_EVENTS__RUNS", "false")]).await;
    let customer = add_run(&partner, "EIB-first");
    assert_eq!(wait_until_logged(&program, "EIB-first").await.len(), 1);
    without_events
        .wait_until_at(&format!("/customers/{customer}"), "the run is displayed", |page| {
            page.contains("EIB-first")
        })
        .await;
    assert!(
        !without_events.stderr().contains(MESSAGE),
        "{}",
        without_events.stderr()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn page_and_json_show_the_runs_of_a_customer() {
    let partner = partner().await;
    for run in 0..25 {
        add_run(&partner, &format!("EIB-{run:02}"));
    }
    let program = exporter(&partner, "v3", &[], &[]).await;
    let customer = add_run(&partner, "EIB-25");
    let path = format!("/customers/{customer}");
    let page = program
        .wait_until_at(&path, "the newest run is displayed", |page| page.contains("EIB-25"))
        .await;
    let (_, runs) = page.split_once("id=\"runs\"").unwrap();
    assert!(runs.find("EIB-25") < runs.find("EIB-24"), "newest first: {runs}");
    assert!(runs.contains(&format!("href=\"{customer}/runs.json\"")), "{runs}");
    let response = program.get(&format!("{path}/runs.json")).await;
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(
        (header("content-type"), header("cache-control")),
        ("application/json".into(), "no-store".into())
    );
    let json = response.text().await.unwrap();
    let count_runs = |text: &str| (0..26).filter(|run| text.contains(&format!("EIB-{run:02}"))).count();
    assert_eq!(count_runs(runs), count_runs(&json), "{json}");
    assert_eq!(program.status("/customers/nobody/runs.json").await, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_require_the_page_password() {
    let partner = partner().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("web.yml");
    let users = format!(
        "basic_auth_users: {{alice: '{}'}}\n",
        bcrypt::hash("secret", 4).unwrap()
    );
    std::fs::write(&file, users).unwrap();
    let flag = format!("--web.config.file={}", file.display());
    let program = Program::start(&partner.base, &[&flag], &[]).await;
    for path in ["/customers/x", "/customers/x/runs.json"] {
        assert_eq!(program.status(path).await, 401, "{path}");
    }
}
