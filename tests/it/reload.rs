//! Reloads of the configuration. One test scrapes continuously during the reloads.
//!
//! The tests are in one long file, because they share the helpers that configure and reload an exporter.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use elements_exporter::simulator::{Fault, FaultKind, Request};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::fresh;
use crate::harness::partner::{Partner, frozen_partner, start};
use crate::harness::program::Program;
use crate::harness::{eventually, value};

const JOBS: &str = "/avpt-products/jobs/batch";
const PROTECTED: &str = "/cloud-backup-m365/overview";
const LIST: &str = "/customers/batch";
const RELOAD_SUCCESSFUL: &str = "elements_exporter_config_last_reload_successful";
const RELOAD_TIME: &str = "elements_exporter_config_last_reload_success_timestamp_seconds";

/// How a reload is triggered.
#[derive(Clone, Copy)]
enum Trigger {
    Signal,
    Post,
}

/// An exporter that is configured only by a file.
struct ReloadableExporter {
    program: Program,
    partner: Partner,
    file: PathBuf,
    _directory: tempfile::TempDir,
}

/// Parts of a configuration file that tests replace: single keys of `api`, `auth` and `collectors`, and the other
/// sections as a whole.
#[derive(Clone)]
struct ConfigText(BTreeMap<&'static str, String>);

impl ConfigText {
    fn first() -> Self {
        Self(BTreeMap::from([
            ("requests_per_second", "1000".to_owned()),
            ("max_concurrency", "8".to_owned()),
            ("client_secret", "demo-secret".to_owned()),
            ("jobs", "1h".to_owned()),
            ("protected", "1s".to_owned()),
            ("customers", "{}".to_owned()),
            ("rpo", "{default: 26h}".to_owned()),
            ("job_modules", "[]".to_owned()),
            ("backup_services", "[Cloud Backup *]".to_owned()),
            ("metrics", "{}".to_owned()),
        ]))
    }

    fn with(&self, key: &'static str, value: &str) -> Self {
        let mut changed = self.clone();
        assert!(changed.0.insert(key, value.to_owned()).is_some(), "{key}");
        changed
    }

    fn yaml(&self, base: &str) -> String {
        let of = |key: &str| &self.0[key];
        let collector = |name: &str, interval: &str| {
            let keys = match name {
                "jobs" => format!(", job_modules: {}", of("job_modules")),
                "licenses" => format!(", backup_services: {}", of("backup_services")),
                _ => String::new(),
            };
            format!("  {name}: {{interval: {interval}, stale_after: 2h{keys}}}\n")
        };
        let collectors: String = [("jobs", of("jobs").as_str()), ("protected", of("protected"))]
            .into_iter()
            .chain(["customers", "licenses", "scan_profiles", "scan_changes"].map(|name| (name, "1s")))
            .map(|(name, interval)| collector(name, interval))
            .collect();
        format!(
            "api:\n  version: v3\n  base_url: {base}\n  token_url: {base}/connect/token\n  timeout: 5m\n  \
             requests_per_second: {}\n  max_concurrency: {}\nauth:\n  client_id: demo\n  client_secret: {}\n\
             collectors:\n{collectors}customers: {}\nrpo: {}\nmetrics: {}\n",
            of("requests_per_second"),
            of("max_concurrency"),
            of("client_secret"),
            of("customers"),
            // The simulator's clock is in the past, so by default all modules would count as abandoned.
            of("rpo").replacen('{', "{abandoned_after: 100years, ", 1),
            of("metrics"),
        )
    }
}

impl ReloadableExporter {
    async fn start(config: &ConfigText) -> Self {
        Self::start_with(config, "--web.enable-lifecycle").await
    }

    async fn start_with(config: &ConfigText, extra_flag: &str) -> Self {
        let partner = start(frozen_partner(4)).await;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("elements.yml");
        std::fs::write(&file, config.yaml(&partner.base)).unwrap();
        let flag = format!("--config.file={}", file.display());
        let program = Program::start_with(Vec::new(), &["--web.listen-address=127.0.0.1:0", &flag, extra_flag]).await;
        Self {
            program,
            partner,
            file,
            _directory: directory,
        }
    }

    /// Reloads with this configuration, and waits until it is active.
    async fn reload(&self, config: &ConfigText, trigger: Trigger) {
        let reload_time = |text: &str| value(text, RELOAD_TIME).unwrap();
        let before = reload_time(&self.program.metrics().await);
        self.partner.handle.clear_requests();
        std::fs::write(&self.file, config.yaml(&self.partner.base)).unwrap();
        self.request_reload(trigger, 200).await;
        let text = self
            .program
            .wait_until("the configuration is loaded", |text| reload_time(text) > before)
            .await;
        assert_eq!(value(&text, RELOAD_SUCCESSFUL), Some(1.0));
    }

    /// Reloads with an invalid file. Returns the response, if any, and the log line.
    async fn reload_invalid(&self, text: &str, trigger: Trigger) -> (Option<String>, String) {
        std::fs::write(&self.file, text).unwrap();
        let before = self.program.stderr().len();
        let response = self.request_reload(trigger, 500).await;
        self.program
            .wait_until("the reload is rejected", |text| {
                value(text, RELOAD_SUCCESSFUL) == Some(0.0)
            })
            .await;
        let printed = eventually("the failure is logged", || async {
            let printed = self.program.stderr().split_off(before);
            printed
                .lines()
                .find(|line| line.contains("configuration reload failed; keeping the previous configuration"))
                .map(ToOwned::to_owned)
        })
        .await;
        (response, printed)
    }

    /// Triggers a reload. Returns the response, if any.
    async fn request_reload(&self, trigger: Trigger, status: u16) -> Option<String> {
        match trigger {
            Trigger::Signal => {
                self.program.signal("HUP");
                None
            }
            Trigger::Post => {
                let (actual_status, text) = self.program.post_reload().await;
                assert_eq!(actual_status, status, "{text}");
                Some(text)
            }
        }
    }

    fn request_count(&self, path: &str) -> usize {
        let requests = self.partner.handle.requests();
        requests.iter().filter(|request| request.path.ends_with(path)).count()
    }

    async fn wait_until_requested(&self, path: &str, times: usize) {
        eventually(&format!("{times} requests for {path}"), || async {
            (self.request_count(path) >= times).then_some(())
        })
        .await;
    }
}

fn series(line: &str) -> &str {
    line.rsplit_once(' ').map_or(line, |(series, _)| series)
}

fn series_of(text: &str, ids: &[&str]) -> BTreeSet<String> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let matching = samples.filter(|line| ids.iter().any(|id| line.contains(id)));
    matching.map(|line| series(line).to_owned()).collect()
}

/// Observations of a continuous scraper.
#[derive(Default)]
struct ScrapeLog {
    scrapes: usize,
    failed: Vec<String>,
    missing: BTreeSet<String>,
    /// Latest values of counters, by series.
    counters: BTreeMap<String, f64>,
    decreased: BTreeSet<String>,
    down: usize,
}

impl ScrapeLog {
    /// Records the values of expected counters and of counters about the exporter.
    fn count(&mut self, text: &str, expected: &BTreeSet<String>) {
        let counters = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let name = series.split('{').next()?;
            let is_stable = name.starts_with("elements_exporter_") || expected.contains(series);
            let value = value.parse::<f64>().ok()?;
            (name.ends_with("_total") && is_stable).then_some((series, value))
        });
        for (series, value) in counters {
            let before = self.counters.insert(series.to_owned(), value);
            if before > Some(value) {
                self.decreased.insert(series.to_owned());
            }
        }
    }
}

/// Scrapes continuously, and records failures, missing series and decreasing counters.
fn scrape_continuously(url: String, expected: BTreeSet<String>, stop: CancellationToken) -> JoinHandle<ScrapeLog> {
    tokio::spawn(async move {
        let client = crate::harness::client();
        let mut log = ScrapeLog::default();
        while !stop.is_cancelled() {
            log.scrapes += 1;
            let text = match client.get(&url).send().await {
                Ok(response) if response.status() == 200 => response.text().await,
                Ok(response) => {
                    log.failed.push(response.status().to_string());
                    continue;
                }
                Err(error) => Err(error),
            };
            let text = match text {
                Ok(text) => text,
                Err(error) => {
                    log.failed.push(error.to_string());
                    continue;
                }
            };
            let exposed: BTreeSet<&str> = text.lines().map(series).collect();
            let missing = expected.iter().filter(|series| !exposed.contains(series.as_str()));
            log.missing.extend(missing.cloned());
            log.count(&text, &expected);
            log.down += usize::from(!text.contains("\nelements_up 1\n"));
        }
        log
    })
}

/// Scrapes until every collector has fresh data about all four customers, and returns that exposition.
async fn wait_until_all_fresh(program: &Program) -> String {
    program
        .wait_until("all collectors are fresh", |text| {
            ["jobs", "protected", "licenses", "scan_profiles", "scan_changes"]
                .iter()
                .all(|collector| fresh(text, collector) == Some(4.0))
        })
        .await
}

fn pauses(requests: &[Request]) -> Vec<Duration> {
    let at: Vec<Instant> = requests.iter().map(|request| request.at).collect();
    at.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// Returns the lines that a rejected reload must not change.
fn constant_series(text: &str) -> BTreeSet<String> {
    const NAMES: [&str; 7] = [
        "elements_job_rpo_seconds{",
        "elements_customer_info{",
        "elements_exporter_collector_interval_seconds{",
        "elements_exporter_collector_stale_after_seconds{",
        "elements_exporter_collector_permitted{",
        "elements_exporter_config_last_reload_success_timestamp_seconds ",
        "elements_exporter_series ",
    ];
    let lines = text.lines();
    let matching = lines.filter(|line| NAMES.iter().any(|name| line.starts_with(name)));
    matching.map(ToOwned::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_file_changes_nothing_and_is_reported() {
    let config = ConfigText::first().with("jobs", "1s").with("rpo", "{default: 3h}");
    let exporter = ReloadableExporter::start(&config).await;
    let program = &exporter.program;
    let text = wait_until_all_fresh(program).await;
    let before = constant_series(&text);
    assert!(before.iter().any(|line| line.ends_with(" 10800")), "{before:?}");
    let base = &exporter.partner.base;
    let yaml = |key, value: &str| config.with(key, value).yaml(base);
    // Invalid files, and the key and value in the expected message.
    let cases = [
        (yaml("rpo", "{default: soon}"), "rpo.default", "soon"),
        (yaml("jobs", "never"), "collectors.jobs.interval", "never"),
        (yaml("requests_per_second", "0"), "api.requests_per_second", "0"),
        (yaml("metrics", "{series_limit: -1}"), "metrics.series_limit", "-1"),
        (
            yaml("metrics", "{serieslimit: 10}"),
            "metrics.serieslimit",
            "series_limit",
        ),
        (yaml("customers", "{include: 7: 8}"), "elements.yml", ""),
        (yaml("client_secret", "''"), "auth.client_secret", ""),
        (String::from("api: [\n"), "elements.yml", ""),
    ];
    for (text, key, word) in cases {
        for trigger in [Trigger::Post, Trigger::Signal] {
            let (response, logged) = exporter.reload_invalid(&text, trigger).await;
            assert!(
                logged.contains(key) && logged.contains(word),
                "{logged} lacks {key} or {word}"
            );
            assert!(logged.contains("level=error"), "{logged}");
            if let Some(response) = response {
                assert!(
                    response.starts_with("Reload failed; the previous configuration stays in effect. Error: "),
                    "{response}"
                );
                assert!(
                    response.contains(key) && response.contains(word),
                    "{response} lacks {key} or {word}"
                );
            }
            // Polls continue with the previous intervals and credentials.
            exporter.partner.handle.clear_requests();
            exporter.wait_until_requested(JOBS, 4).await;
            let now = program.metrics().await;
            assert_eq!(constant_series(&now), before, "{key}");
            assert_eq!(value(&now, "elements_up"), Some(1.0));
        }
    }
    // The same applies if the file is missing.
    std::fs::remove_file(&exporter.file).unwrap();
    let response = exporter.request_reload(Trigger::Post, 500).await.unwrap();
    assert!(response.contains("elements.yml"), "{response}");
    assert_eq!(constant_series(&program.metrics().await), before);
    // Afterwards, a valid file is loaded.
    exporter
        .reload(&config.with("rpo", "{default: 4h}"), Trigger::Signal)
        .await;
    program
        .wait_until("the new objective is applied", |text| {
            text.contains("} 14400\n") && !text.contains("} 10800\n")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn series_limit_and_job_filter_are_reloaded() {
    const DROPPED: &str = "elements_exporter_series_dropped_total";
    let first = ConfigText::first().with("jobs", "1s");
    let exporter = ReloadableExporter::start(&first).await;
    let (program, handle) = (&exporter.program, &exporter.partner.handle);
    let ids: Vec<String> =
        handle.with_world(|world| world.customers.iter().map(|customer| customer.id.clone()).collect());
    let jobs_of = |text: &str, id: &str| {
        series_of(text, &[id])
            .into_iter()
            .filter(|series| series.starts_with("elements_job_status{"))
            .collect::<BTreeSet<String>>()
    };
    let text = program
        .wait_until("all collectors are fresh", |text| fresh(text, "jobs") == Some(4.0))
        .await;
    let (first_jobs, last_jobs) = (jobs_of(&text, &ids[0]), jobs_of(&text, &ids[3]));
    assert!(!first_jobs.is_empty() && !last_jobs.is_empty());

    // Above the series limit, the series of added customers are dropped. The series of existing customers remain.
    let without = first.with("customers", &format!("{{exclude: ['{}']}}", ids[3]));
    exporter.reload(&without, Trigger::Signal).await;
    program
        .wait_until("one customer is excluded", |text| {
            series_of(text, &[&ids[3]]).is_empty()
        })
        .await;
    let dropped = value(&program.metrics().await, DROPPED).unwrap();
    exporter
        .reload(&first.with("metrics", "{series_limit: 1}"), Trigger::Post)
        .await;
    eventually("a limit that is already exceeded is logged", || async {
        let printed = program.stderr();
        let warning = printed
            .lines()
            .find(|line| line.contains("series exceed metrics.series_limit"));
        warning.map(|line| assert!(line.contains("level=warn") && line.contains("limit=1"), "{line}"))
    })
    .await;
    let text = program
        .wait_until("series are dropped", |text| value(text, DROPPED) > Some(dropped))
        .await;
    assert_eq!(jobs_of(&text, &ids[0]), first_jobs);
    assert_eq!(jobs_of(&text, &ids[3]), BTreeSet::new());
    exporter.reload(&first, Trigger::Signal).await;
    program
        .wait_until("the series are exposed again", |text| {
            jobs_of(text, &ids[3]) == last_jobs
        })
        .await;

    // At first, only selected modules are requested. Then all modules are requested again.
    let is_filtered = |request: &Request| request.body.contains("\"jobModule\"");
    for (modules, filtered) in [("[Exchange Online]", true), ("[]", false)] {
        let trigger = if filtered { Trigger::Post } else { Trigger::Signal };
        exporter.reload(&first.with("job_modules", modules), trigger).await;
        // Polls that are in progress complete first.
        exporter.wait_until_requested(JOBS, 2 * ids.len()).await;
        handle.clear_requests();
        exporter.wait_until_requested(JOBS, 2 * ids.len()).await;
        let requests = handle.requests();
        let mut jobs = requests.iter().filter(|request| request.path.ends_with(JOBS));
        assert!(
            jobs.all(|request| is_filtered(request) == filtered),
            "{modules}: {requests:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_settings_are_reloaded_without_losing_series() {
    const OBJECTIVE: &str = "elements_job_rpo_seconds{";
    let first = ConfigText::first();
    let exporter = ReloadableExporter::start(&first).await;
    let (program, handle) = (&exporter.program, &exporter.partner.handle);
    // The configuration contains the names in single quotes, so quotes within names are doubled.
    let customers: Vec<(String, String)> = handle.with_world(|world| {
        let customers = world.customers.iter();
        customers
            .map(|customer| (customer.id.clone(), customer.organization.replace('\'', "''")))
            .collect()
    });
    let ids: Vec<&str> = customers.iter().map(|(id, _)| id.as_str()).collect();
    let text = wait_until_all_fresh(program).await;
    let expected = series_of(&text, &ids[..2]);
    assert!(expected.len() > 50, "{expected:?}");
    let stop = CancellationToken::new();
    let scraper = scrape_continuously(format!("{}/metrics", program.base), expected, stop.clone());

    // Intervals. A shorter interval applies immediately.
    let config = first.with("jobs", "1s");
    exporter.reload(&config, Trigger::Signal).await;
    exporter.wait_until_requested(JOBS, 3 * ids.len()).await;
    let config = config.with("protected", "1h");
    exporter.reload(&config, Trigger::Post).await;
    exporter.wait_until_requested(JOBS, 5 * ids.len()).await;
    let requested = exporter.request_count(PROTECTED);
    assert!(
        requested <= 2 * ids.len(),
        "{requested} requests despite the one-hour interval"
    );

    // Customers: excluded by id and by name, and included again.
    let has_series_of = |text: &str, ids: &[&str]| !series_of(text, ids).is_empty();
    let filter = format!("{{exclude: ['{}', '{}']}}", ids[3], customers[2].1);
    exporter
        .reload(&config.with("customers", &filter), Trigger::Signal)
        .await;
    program
        .wait_until("two customers are excluded", |text| !has_series_of(text, &ids[2..]))
        .await;
    // Polls that are in progress complete first.
    exporter.wait_until_requested(LIST, 3).await;
    handle.clear_requests();
    exporter.wait_until_requested(LIST, 2).await;
    let requests = handle.requests();
    let is_for_excluded = |request: &&Request| ids[2..].iter().any(|id| request.path.contains(id));
    assert_eq!(
        requests.iter().find(is_for_excluded),
        None,
        "data of an excluded customer was requested"
    );
    let filter = format!("{{include: ['{}', '{}', '{}']}}", ids[0], customers[1].1, ids[2]);
    exporter.reload(&config.with("customers", &filter), Trigger::Post).await;
    let text = program
        .wait_until("the third customer is included", |text| {
            fresh(text, "jobs") == Some(3.0)
        })
        .await;
    assert!(!has_series_of(&text, &ids[3..]) && has_series_of(&text, &ids[2..3]));
    exporter.reload(&config, Trigger::Signal).await;
    program
        .wait_until("all customers are included", |text| fresh(text, "jobs") == Some(4.0))
        .await;

    // Objectives.
    let objectives = |text: &str, of: &str| -> BTreeSet<String> {
        let lines = text
            .lines()
            .filter(|line| line.starts_with(OBJECTIVE) && line.contains(of));
        lines
            .filter_map(|line| Some(line.rsplit_once(' ')?.1.to_owned()))
            .collect()
    };
    let only = |seconds: &str| BTreeSet::from([seconds.to_owned()]);
    let rpo = format!("{{default: 12h, overrides: [{{customer: '{}', rpo: 1h}}]}}", ids[1]);
    let config = config.with("rpo", &rpo);
    exporter.reload(&config, Trigger::Post).await;
    program
        .wait_until("the new objectives are applied", |text| {
            objectives(text, ids[0]) == only("43200") && objectives(text, ids[1]) == only("3600")
        })
        .await;

    // Credentials.
    handle.set_secret("another-secret".to_owned());
    let config = config.with("client_secret", "another-secret");
    exporter.reload(&config, Trigger::Signal).await;
    eventually("a token for the new secret", || async {
        let requests = handle.requests();
        let has_new_secret = |request: &Request| request.body.contains("another-secret") && request.authorized;
        requests.iter().any(has_new_secret).then_some(())
    })
    .await;
    // Polls that are in progress complete first.
    handle.clear_requests();
    exporter.wait_until_requested(LIST, 3).await;
    handle.revoke_tokens();
    handle.clear_requests();
    exporter.wait_until_requested(LIST, 2).await;
    assert!(
        handle
            .requests()
            .iter()
            .all(|request| !request.body.contains("demo-secret"))
    );

    // Limits: request rate and concurrency.
    exporter
        .reload(&config.with("requests_per_second", "3"), Trigger::Post)
        .await;
    program
        .wait_until("the new rate is applied", |text| {
            value(text, "elements_exporter_api_rate_limit") == Some(3.0)
        })
        .await;
    handle.clear_requests();
    let log = eventually("enough requests to measure the rate", || async {
        let requests = handle.requests();
        (requests.len() >= 12).then_some(requests)
    })
    .await;
    let elapsed: Duration = pauses(&log).iter().sum();
    // A burst may exceed the rate.
    assert!(elapsed >= Duration::from_secs(2), "{elapsed:?}");
    let delay = Duration::from_millis(200);
    handle.set_faults(vec![Fault::new("*", FaultKind::Delay { ms: 200 })]);
    exporter.reload(&config, Trigger::Signal).await;
    eventually("several requests in parallel", || async {
        let pauses = pauses(&handle.requests());
        pauses
            .windows(3)
            .any(|few| few.iter().sum::<Duration>() < delay)
            .then_some(())
    })
    .await;
    exporter
        .reload(&config.with("max_concurrency", "1"), Trigger::Post)
        .await;
    eventually("one request at a time", || async {
        let pauses = pauses(&handle.requests());
        let newest = pauses.iter().rev().take(8);
        (pauses.len() >= 8 && newest.min() > Some(&(delay * 9 / 10))).then_some(())
    })
    .await;
    handle.clear_faults();
    exporter.reload(&config, Trigger::Signal).await;

    // Reloads with an invalid file do not affect scrapes either.
    for trigger in [Trigger::Post, Trigger::Signal] {
        exporter
            .reload_invalid(
                &config.with("rpo", "{default: soon}").yaml(&exporter.partner.base),
                trigger,
            )
            .await;
        exporter.reload(&config, Trigger::Post).await;
    }

    stop.cancel();
    let log = scraper.await.unwrap();
    assert_eq!(log.failed, Vec::<String>::new());
    assert_eq!(log.missing, BTreeSet::new(), "in {} scrapes", log.scrapes);
    assert_eq!(log.down, 0, "in {} scrapes", log.scrapes);
    assert_eq!(log.decreased, BTreeSet::new(), "in {} scrapes", log.scrapes);
    assert!(
        log.counters
            .keys()
            .any(|series| series.starts_with("elements_job_runs_total{"))
    );
    assert!(log.scrapes > 100, "{}", log.scrapes);
}

#[tokio::test]
async fn excluded_metrics_return_after_a_reload_without_a_poll() {
    let first = ConfigText::first();
    let exporter = ReloadableExporter::start(&first).await;
    let program = &exporter.program;
    let before = wait_until_all_fresh(program).await;
    let count_jobs = |text: &str| text.matches("elements_job_status{").count();
    let exporter_metrics = [
        "elements_up",
        "elements_exporter_collector_success",
        "elements_exporter_api_retries",
    ];
    let jobs = count_jobs(&before);
    assert!(jobs > 2, "{before}");
    let excluded =
        "{exclude: ['elements_job_st*', elements_up, '*_success', elements_exporter_api_retries_total, no_such]}";
    exporter.reload(&first.with("metrics", excluded), Trigger::Post).await;
    for name in exporter_metrics {
        assert!(before.contains(name), "{name}: {before}");
    }
    // While the configuration is being applied, a scrape may still contain some of these metrics.
    let text = program
        .wait_until("metrics are excluded", |text| {
            let is_exposed = |name: &&str| text.contains(&format!("{name} ")) || text.contains(&format!("{name}{{"));
            count_jobs(text) == 0 && !exporter_metrics.iter().any(is_exposed)
        })
        .await;
    let series = |text: &str| value(text, "elements_exporter_series").unwrap();
    assert!(series(&text) < series(&before));
    eventually("the pattern that matches no metric is logged", || async {
        let printed = program.stderr();
        let warnings: Vec<_> = printed
            .lines()
            .filter(|line| line.contains("matches no metric"))
            .collect();
        (!warnings.is_empty()).then(|| assert!(warnings.len() == 1 && warnings[0].contains("no_such"), "{warnings:?}"))
    })
    .await;
    exporter.reload(&first, Trigger::Signal).await;
    program
        .wait_until("the metrics are exposed again", |text| count_jobs(text) == jobs)
        .await;
    assert_eq!(exporter.request_count(JOBS), 0, "a job list was requested");
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_file_is_reloaded_automatically() {
    let config = ConfigText::first();
    let exporter = ReloadableExporter::start_with(&config, "--config.auto-reload").await;
    let program = &exporter.program;
    let has_objective = |seconds: &'static str| {
        move |text: &str| {
            let objectives = text
                .lines()
                .filter(|line| line.starts_with("elements_job_rpo_seconds{"));
            let mut objectives = objectives.filter_map(|line| line.rsplit_once(' ')).peekable();
            objectives.peek().is_some() && objectives.all(|(_, value)| value == seconds)
        }
    };
    let failures = || program.stderr().matches("configuration reload failed").count();
    program
        .wait_until("the first objective is applied", has_objective("93600"))
        .await;

    // As in a Kubernetes volume, the new file replaces the old one atomically under the same name.
    let replace_file = |config: &ConfigText| {
        let new = exporter.file.with_extension("new");
        std::fs::write(&new, config.yaml(&exporter.partner.base)).unwrap();
        std::fs::rename(new, &exporter.file).unwrap();
    };
    replace_file(&config.with("rpo", "{default: 3h}"));
    program
        .wait_until("the new objective is applied", has_objective("10800"))
        .await;

    // An invalid file changes nothing, and is reported once.
    replace_file(&config.with("rpo", "{default: soon}"));
    let text = program
        .wait_until("the reload is rejected", |text| {
            value(text, RELOAD_SUCCESSFUL) == Some(0.0)
        })
        .await;
    assert!(
        has_objective("10800")(&text) && program.stderr().contains("rpo.default"),
        "{}",
        program.stderr()
    );
    // Polls continue every second while the file is checked several times.
    exporter.partner.handle.clear_requests();
    exporter.wait_until_requested(LIST, 6).await;
    assert_eq!(failures(), 1, "{}", program.stderr());

    replace_file(&config.with("rpo", "{default: 4h}"));
    let text = program
        .wait_until("a valid file is loaded", has_objective("14400"))
        .await;
    assert_eq!(value(&text, RELOAD_SUCCESSFUL), Some(1.0));
    assert_eq!(failures(), 1);
}

const UNMATCHED: &str = "elements_exporter_config_unmatched_patterns";

#[tokio::test(flavor = "multi_thread")]
async fn unmatched_patterns_are_reported_at_startup_and_later() {
    let config = ConfigText::first()
        .with("jobs", "1s")
        .with("customers", "{exclude: [No Such Customer]}");
    let exporter = ReloadableExporter::start(&config).await;
    let names: Vec<String> = exporter.partner.handle.with_world(|world| {
        let customers = world.customers.iter();
        customers.map(|customer| customer.organization.clone()).collect()
    });
    let unmatched = |count| move |text: &str| value(text, UNMATCHED) == Some(count);
    let warned = |word: &str| {
        let printed = exporter.program.stderr();
        let lines = printed
            .lines()
            .filter(|line| line.contains("pattern matches nothing") && line.contains(word));
        lines.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    exporter
        .program
        .wait_until("the pattern is counted", unmatched(1.0))
        .await;
    let lines = warned("No Such Customer");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].contains("level=warn") && lines[0].contains("customers.exclude[0]"),
        "{lines:?}"
    );

    let (last, mistyped) = (
        &names[3],
        names[0].replacen(|letter: char| letter.is_lowercase(), "", 1),
    );
    let overrides = format!(
        "{{overrides: [{{customer: {last:?}, rpo: 1h}}, {{module: Exchange Onlin, rpo: 1h}}, {{module: Exchange*, rpo: 2h}}]}}"
    );
    let reloaded = config
        .with("customers", &format!("{{exclude: [{mistyped:?}]}}"))
        .with("rpo", &overrides);
    exporter.reload(&reloaded, Trigger::Post).await;
    exporter
        .program
        .wait_until("both patterns are counted", unmatched(2.0))
        .await;
    let lines = [warned("customers.exclude[0]"), warned("rpo.overrides[1].module")].concat();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(
        lines[1].contains(&mistyped) && lines[1].contains(&names[0]),
        "{lines:?}"
    );
    assert!(
        lines[2].contains("Exchange Onlin\"") && lines[2].contains("Exchange Online"),
        "{lines:?}"
    );

    let reloaded = reloaded.with("backup_services", "[Cloud Backup *, Clod Backup for Microsoft 365]");
    exporter.reload(&reloaded, Trigger::Post).await;
    exporter
        .program
        .wait_until("the product pattern is counted", unmatched(3.0))
        .await;
    let lines = warned("collectors.licenses.backup_services[1]");
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("Cloud Backup"), "{lines:?}");

    exporter.partner.handle.with_world(|world| world.customers.truncate(3));
    exporter
        .program
        .wait_until("the last match of a pattern is removed", unmatched(4.0))
        .await;
    assert_eq!(warned("rpo.overrides[0].customer").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn pattern_for_an_added_module_is_unmatched_after_a_cycle() {
    const SHAREPOINT: &str = "module=\"SharePoint Online\"";
    let config = ConfigText::first().with("job_modules", "[Exchange Online]");
    let exporter = ReloadableExporter::start(&config).await;
    let of_jobs = |text: &str, label: &str| {
        let is_status = |line: &str| line.starts_with("elements_job_status{") && line.contains(label);
        text.lines().any(is_status)
    };
    let text = exporter
        .program
        .wait_until("jobs are collected", |text| of_jobs(text, "module=\"Exchange Online\""))
        .await;
    assert!(!of_jobs(&text, SHAREPOINT), "{text}");
    let widened = config.with("job_modules", "[Exchange Online, SharePoint Online]").with(
        "rpo",
        "{overrides: [{module: SharePoint*, rpo: 1h}, {module: Sharpoint*, rpo: 1h}]}",
    );
    exporter.reload(&widened, Trigger::Post).await;
    let text = exporter
        .program
        .wait_until("the other pattern is counted", |text| {
            value(text, UNMATCHED) == Some(1.0)
        })
        .await;
    assert!(of_jobs(&text, SHAREPOINT), "{text}");
    assert!(!exporter.program.stderr().contains("SharePoint*"));
}
