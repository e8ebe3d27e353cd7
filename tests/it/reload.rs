//! Reloads of everything that can be reloaded, one after the other, under the eyes of a scraper that never stops.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use elements_exporter::simulator::{Fault, FaultKind, Request};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::program::{Program, fresh};
use crate::support::{eventually, value};
use crate::world::{Partner, start, still};

const JOBS: &str = "/avpt-products/jobs/batch";
const PROTECTED: &str = "/cloud-backup-m365/overview";
const LIST: &str = "/customers/batch";
const RELOADED: &str = "elements_exporter_config_last_reload_successful";
const RELOADED_AT: &str = "elements_exporter_config_last_reload_success_timestamp_seconds";

/// How a reload is asked for.
#[derive(Clone, Copy)]
enum By {
    Signal,
    Post,
}

/// An exporter that is configured by its file alone.
struct Reloading {
    program: Program,
    partner: Partner,
    file: PathBuf,
    _directory: tempfile::TempDir,
}

/// A configuration out of what differs from the first one: whole sections, but for `api`, `auth` and `collectors`, whose
/// keys are told one by one.
#[derive(Clone)]
struct Wanted(BTreeMap<&'static str, String>);

impl Wanted {
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
            let more = match name {
                "jobs" => format!(", job_modules: {}", of("job_modules")),
                _ => String::new(),
            };
            format!("  {name}: {{interval: {interval}, stale_after: 2h{more}}}\n")
        };
        let collectors: String = [("jobs", of("jobs").as_str()), ("protected", of("protected"))]
            .into_iter()
            .chain(["customers", "licenses", "scan_profiles", "scan_changes"].map(|name| (name, "1s")))
            .map(|(name, interval)| collector(name, interval))
            .collect();
        format!(
            "api:\n  version: v3\n  base_url: {base}\n  token_url: {base}/connect/token\n  timeout: 5s\n  \
             requests_per_second: {}\n  max_concurrency: {}\nauth:\n  client_id: demo\n  client_secret: {}\n\
             collectors:\n{collectors}customers: {}\nrpo: {}\nmetrics: {}\n",
            of("requests_per_second"),
            of("max_concurrency"),
            of("client_secret"),
            of("customers"),
            of("rpo"),
            of("metrics"),
        )
    }
}

impl Reloading {
    async fn start(wanted: &Wanted) -> Self {
        let partner = start(still(4)).await;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("elements.yml");
        std::fs::write(&file, wanted.yaml(&partner.base)).unwrap();
        let flag = format!("--config.file={}", file.display());
        let program = Program::launch(&[&flag, "--web.enable-lifecycle"], &[]).await;
        Self {
            program,
            partner,
            file,
            _directory: directory,
        }
    }

    /// Reloads a configuration, which is in force when this returns.
    async fn reload(&self, wanted: &Wanted, by: By) {
        let loaded = |text: &str| value(text, RELOADED_AT).unwrap();
        let before = loaded(&self.program.metrics().await);
        self.partner.handle.clear_requests();
        std::fs::write(&self.file, wanted.yaml(&self.partner.base)).unwrap();
        self.ask(by, 200).await;
        let text = self.program.until("it is loaded", |text| loaded(text) > before).await;
        assert_eq!(value(&text, RELOADED), Some(1.0));
    }

    /// Has it refuse a file, and gives what it said of that: the answer, where there is one, and the log.
    async fn refuse(&self, text: &str, by: By) -> (Option<String>, String) {
        std::fs::write(&self.file, text).unwrap();
        let before = self.program.said().len();
        let answer = self.ask(by, 500).await;
        self.program
            .until("it is refused", |text| value(text, RELOADED) == Some(0.0))
            .await;
        let said = eventually("it is logged", || async {
            let said = self.program.said().split_off(before);
            said.lines()
                .find(|line| line.contains("the configuration cannot be reloaded; the old one stays in force"))
                .map(ToOwned::to_owned)
        })
        .await;
        (answer, said)
    }

    /// Asks for a reload; the answer, where there is one.
    async fn ask(&self, by: By, status: u16) -> Option<String> {
        match by {
            By::Signal => {
                self.program.signal("HUP");
                None
            }
            By::Post => {
                let url = format!("{}/-/reload", self.program.base);
                let answer = crate::faults::client().post(url).send().await.unwrap();
                let answered = answer.status().as_u16();
                let text = answer.text().await.unwrap();
                assert_eq!(answered, status, "{text}");
                Some(text)
            }
        }
    }

    /// How many requests there have been for paths that end like this.
    fn asked(&self, path: &str) -> usize {
        let requests = self.partner.handle.requests();
        requests.iter().filter(|request| request.path.ends_with(path)).count()
    }

    async fn until_asked(&self, path: &str, times: usize) {
        eventually(&format!("{times} requests for {path}"), || async {
            (self.asked(path) >= times).then_some(())
        })
        .await;
    }
}

/// A series as it is written, without its value.
fn series(line: &str) -> &str {
    line.rsplit_once(' ').map_or(line, |(series, _)| series)
}

/// The series that tell of one of these customers.
fn telling_of(text: &str, ids: &[&str]) -> BTreeSet<String> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let told = samples.filter(|line| ids.iter().any(|id| line.contains(id)));
    told.map(|line| series(line).to_owned()).collect()
}

/// What a scraper that never stops has seen.
#[derive(Default)]
struct Seen {
    scrapes: usize,
    failed: Vec<String>,
    missing: BTreeSet<String>,
    /// Counters by what they were, and those that went back.
    counters: BTreeMap<String, f64>,
    went_back: BTreeSet<String>,
    down: usize,
}

impl Seen {
    /// Notes the counters of what is expected, and of the exporter itself.
    fn count(&mut self, text: &str, expected: &BTreeSet<String>) {
        let counters = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let name = series.split('{').next()?;
            let lasts = name.starts_with("elements_exporter_") || expected.contains(series);
            let value = value.parse::<f64>().ok()?;
            (name.ends_with("_total") && lasts).then_some((series, value))
        });
        for (series, value) in counters {
            let before = self.counters.insert(series.to_owned(), value);
            if before > Some(value) {
                self.went_back.insert(series.to_owned());
            }
        }
    }
}

/// Scrapes on and on, and looks for these series every time.
fn scrape_on(url: String, expected: BTreeSet<String>, stop: CancellationToken) -> JoinHandle<Seen> {
    tokio::spawn(async move {
        let client = crate::faults::client();
        let mut seen = Seen::default();
        while !stop.is_cancelled() {
            seen.scrapes += 1;
            let text = match client.get(&url).send().await {
                Ok(answer) if answer.status() == 200 => answer.text().await,
                Ok(answer) => {
                    seen.failed.push(answer.status().to_string());
                    continue;
                }
                Err(error) => Err(error),
            };
            let text = match text {
                Ok(text) => text,
                Err(error) => {
                    seen.failed.push(error.to_string());
                    continue;
                }
            };
            let there: BTreeSet<&str> = text.lines().map(series).collect();
            let missing = expected.iter().filter(|series| !there.contains(series.as_str()));
            seen.missing.extend(missing.cloned());
            seen.count(&text, &expected);
            seen.down += usize::from(!text.contains("\nelements_up 1\n"));
        }
        seen
    })
}

/// The answer to a scrape once every collector has asked about all four customers.
async fn until_all_is_fresh(program: &Program) -> String {
    program
        .until("all is fresh", |text| {
            ["jobs", "protected", "licenses", "scan_profiles", "scan_changes"]
                .iter()
                .all(|collector| fresh(text, collector) == Some(4.0))
        })
        .await
}

/// The pauses between requests, in their order.
fn pauses(requests: &[Request]) -> Vec<Duration> {
    let at: Vec<Instant> = requests.iter().map(|request| request.at).collect();
    at.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// What is said of the world and of the polls, but for what goes on by itself: none of it may change.
fn in_force(text: &str) -> BTreeSet<String> {
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
    let told = lines.filter(|line| NAMES.iter().any(|name| line.starts_with(name)));
    told.map(ToOwned::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_changes_nothing_and_says_so() {
    let wanted = Wanted::first().with("jobs", "1s").with("rpo", "{default: 3h}");
    let exporter = Reloading::start(&wanted).await;
    let program = &exporter.program;
    let text = until_all_is_fresh(program).await;
    let before = in_force(&text);
    assert!(before.iter().any(|line| line.ends_with(" 10800")), "{before:?}");
    let base = &exporter.partner.base;
    let yaml = |key, value: &str| wanted.with(key, value).yaml(base);
    // What is broken, and what is to be said of it.
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
        for by in [By::Post, By::Signal] {
            let (answer, logged) = exporter.refuse(&text, by).await;
            assert!(
                logged.contains(key) && logged.contains(word),
                "{logged} lacks {key} or {word}"
            );
            assert!(logged.contains("level=error"), "{logged}");
            if let Some(answer) = answer {
                assert!(answer.starts_with("The old configuration stays in force: "), "{answer}");
                assert!(
                    answer.contains(key) && answer.contains(word),
                    "{answer} lacks {key} or {word}"
                );
            }
            // Polls go on by the old intervals, with the old credentials.
            exporter.partner.handle.clear_requests();
            exporter.until_asked(JOBS, 4).await;
            let now = program.metrics().await;
            assert_eq!(in_force(&now), before, "{key}");
            assert_eq!(value(&now, "elements_up"), Some(1.0));
        }
    }
    // Nor does a file that is gone.
    std::fs::remove_file(&exporter.file).unwrap();
    let answer = exporter.ask(By::Post, 500).await.unwrap();
    assert!(answer.contains("elements.yml"), "{answer}");
    assert_eq!(in_force(&program.metrics().await), before);
    // A good one mends it.
    exporter.reload(&wanted.with("rpo", "{default: 4h}"), By::Signal).await;
    program
        .until("the new objective", |text| {
            text.contains("} 14400\n") && !text.contains("} 10800\n")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_series_and_the_filter_of_jobs_are_reloaded() {
    const DROPPED: &str = "elements_exporter_series_dropped_total";
    let first = Wanted::first().with("jobs", "1s");
    let exporter = Reloading::start(&first).await;
    let (program, handle) = (&exporter.program, &exporter.partner.handle);
    let ids: Vec<String> =
        handle.with_world(|world| world.customers.iter().map(|customer| customer.id.clone()).collect());
    let jobs_of = |text: &str, id: &str| {
        telling_of(text, &[id])
            .into_iter()
            .filter(|series| series.starts_with("elements_job_status{"))
            .collect::<BTreeSet<String>>()
    };
    let text = program
        .until("all is fresh", |text| fresh(text, "jobs") == Some(4.0))
        .await;
    let (first_jobs, last_jobs) = (jobs_of(&text, &ids[0]), jobs_of(&text, &ids[3]));
    assert!(!first_jobs.is_empty() && !last_jobs.is_empty());

    // A customer that comes while there may be no more series is not shown; those that are there stay.
    let without = first.with("customers", &format!("{{exclude: ['{}']}}", ids[3]));
    exporter.reload(&without, By::Signal).await;
    program
        .until("one is left out", |text| telling_of(text, &[&ids[3]]).is_empty())
        .await;
    let dropped = value(&program.metrics().await, DROPPED).unwrap();
    exporter
        .reload(&first.with("metrics", "{series_limit: 1}"), By::Post)
        .await;
    eventually("a limit that is passed already is said", || async {
        let said = program.said();
        let warning = said
            .lines()
            .find(|line| line.contains("more series are held than metrics.series_limit allows"));
        warning.map(|line| assert!(line.contains("level=warn") && line.contains("limit=1"), "{line}"))
    })
    .await;
    let text = program
        .until("series are turned away", |text| value(text, DROPPED) > Some(dropped))
        .await;
    assert_eq!(jobs_of(&text, &ids[0]), first_jobs);
    assert_eq!(jobs_of(&text, &ids[3]), BTreeSet::new());
    exporter.reload(&first, By::Signal).await;
    program
        .until("there is room again", |text| jobs_of(text, &ids[3]) == last_jobs)
        .await;

    // Modules that are asked about, and all of them again.
    let about_one = |request: &Request| request.body.contains("\"jobModule\"");
    for (modules, filtered) in [("[Exchange Online]", true), ("[]", false)] {
        let by = if filtered { By::Post } else { By::Signal };
        exporter.reload(&first.with("job_modules", modules), by).await;
        // Polls that were under way end first.
        exporter.until_asked(JOBS, 2 * ids.len()).await;
        handle.clear_requests();
        exporter.until_asked(JOBS, 2 * ids.len()).await;
        let requests = handle.requests();
        let mut jobs = requests.iter().filter(|request| request.path.ends_with(JOBS));
        assert!(
            jobs.all(|request| about_one(request) == filtered),
            "{modules}: {requests:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_reloaded_without_a_scrape_or_a_series_less() {
    const OBJECTIVE: &str = "elements_job_rpo_seconds{";
    let first = Wanted::first();
    let exporter = Reloading::start(&first).await;
    let (program, handle) = (&exporter.program, &exporter.partner.handle);
    // Names as they are written between single quotes.
    let customers: Vec<(String, String)> = handle.with_world(|world| {
        let customers = world.customers.iter();
        customers
            .map(|customer| (customer.id.clone(), customer.organization.replace('\'', "''")))
            .collect()
    });
    let ids: Vec<&str> = customers.iter().map(|(id, _)| id.as_str()).collect();
    let text = until_all_is_fresh(program).await;
    let kept = telling_of(&text, &ids[..2]);
    assert!(kept.len() > 50, "{kept:?}");
    let stop = CancellationToken::new();
    let scraper = scrape_on(format!("{}/metrics", program.base), kept, stop.clone());

    // Intervals. One that is shorter from now on is not waited for as long as it was before.
    let wanted = first.with("jobs", "1s");
    exporter.reload(&wanted, By::Signal).await;
    exporter.until_asked(JOBS, 3 * ids.len()).await;
    let wanted = wanted.with("protected", "1h");
    exporter.reload(&wanted, By::Post).await;
    exporter.until_asked(JOBS, 5 * ids.len()).await;
    let late = exporter.asked(PROTECTED);
    assert!(late <= 2 * ids.len(), "{late} after they were to come once an hour");

    // Customers, left out by id and by name, and brought back.
    let tells_of = |text: &str, ids: &[&str]| !telling_of(text, ids).is_empty();
    let filter = format!("{{exclude: ['{}', '{}']}}", ids[3], customers[2].1);
    exporter.reload(&wanted.with("customers", &filter), By::Signal).await;
    program
        .until("two are left out", |text| !tells_of(text, &ids[2..]))
        .await;
    // Polls that were under way end first.
    exporter.until_asked(LIST, 3).await;
    handle.clear_requests();
    exporter.until_asked(LIST, 2).await;
    let requests = handle.requests();
    let of_others = |request: &&Request| ids[2..].iter().any(|id| request.path.contains(id));
    assert_eq!(requests.iter().find(of_others), None, "they are not asked about");
    let filter = format!("{{include: ['{}', '{}', '{}']}}", ids[0], customers[1].1, ids[2]);
    exporter.reload(&wanted.with("customers", &filter), By::Post).await;
    let text = program
        .until("the third is back", |text| fresh(text, "jobs") == Some(3.0))
        .await;
    assert!(!tells_of(&text, &ids[3..]) && tells_of(&text, &ids[2..3]));
    exporter.reload(&wanted, By::Signal).await;
    program
        .until("all are back", |text| fresh(text, "jobs") == Some(4.0))
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
    let wanted = wanted.with("rpo", &rpo);
    exporter.reload(&wanted, By::Post).await;
    program
        .until("the objectives are new", |text| {
            objectives(text, ids[0]) == only("43200") && objectives(text, ids[1]) == only("3600")
        })
        .await;

    // Credentials.
    handle.set_secret("another-secret".to_owned());
    let wanted = wanted.with("client_secret", "another-secret");
    exporter.reload(&wanted, By::Signal).await;
    eventually("a token for the new secret", || async {
        let requests = handle.requests();
        let with_new = |request: &Request| request.body.contains("another-secret") && request.authorized;
        requests.iter().any(with_new).then_some(())
    })
    .await;
    // Polls that were under way end first.
    handle.clear_requests();
    exporter.until_asked(LIST, 3).await;
    handle.revoke_tokens();
    handle.clear_requests();
    exporter.until_asked(LIST, 2).await;
    assert!(
        handle
            .requests()
            .iter()
            .all(|request| !request.body.contains("demo-secret"))
    );

    // Limits: the rate, and how many at once.
    exporter
        .reload(&wanted.with("requests_per_second", "3"), By::Post)
        .await;
    program
        .until("the rate", |text| {
            value(text, "elements_exporter_api_rate_limit") == Some(3.0)
        })
        .await;
    handle.clear_requests();
    let seen = eventually("as many requests as show their rate", || async {
        let requests = handle.requests();
        (requests.len() >= 12).then_some(requests)
    })
    .await;
    let took: Duration = pauses(&seen).iter().sum();
    // What a bucket lets through at once comes on top of what time grants.
    assert!(took >= Duration::from_secs(2), "{took:?}");
    let delay = Duration::from_millis(200);
    handle.set_faults(vec![Fault::new("*", FaultKind::Delay { ms: 200 })]);
    exporter.reload(&wanted, By::Signal).await;
    eventually("several at once", || async {
        let pauses = pauses(&handle.requests());
        pauses
            .windows(3)
            .any(|few| few.iter().sum::<Duration>() < delay)
            .then_some(())
    })
    .await;
    exporter.reload(&wanted.with("max_concurrency", "1"), By::Post).await;
    eventually("one at a time", || async {
        let pauses = pauses(&handle.requests());
        let newest = pauses.iter().rev().take(8);
        (pauses.len() >= 8 && newest.min() > Some(&(delay * 9 / 10))).then_some(())
    })
    .await;
    handle.clear_faults();
    exporter.reload(&wanted, By::Signal).await;

    // A bad file costs no scrape either.
    for by in [By::Post, By::Signal] {
        exporter
            .refuse(&wanted.with("rpo", "{default: soon}").yaml(&exporter.partner.base), by)
            .await;
        exporter.reload(&wanted, By::Post).await;
    }

    stop.cancel();
    let seen = scraper.await.unwrap();
    assert_eq!(seen.failed, Vec::<String>::new());
    assert_eq!(seen.missing, BTreeSet::new(), "in {} scrapes", seen.scrapes);
    assert_eq!(seen.down, 0, "in {} scrapes", seen.scrapes);
    assert_eq!(seen.went_back, BTreeSet::new(), "in {} scrapes", seen.scrapes);
    assert!(
        seen.counters
            .keys()
            .any(|series| series.starts_with("elements_job_runs_total{"))
    );
    assert!(seen.scrapes > 100, "{}", seen.scrapes);
}
