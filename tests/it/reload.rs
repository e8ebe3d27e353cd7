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
        ]))
    }

    fn with(&self, key: &'static str, value: &str) -> Self {
        let mut changed = self.clone();
        assert!(changed.0.insert(key, value.to_owned()).is_some(), "{key}");
        changed
    }

    fn yaml(&self, base: &str) -> String {
        let of = |key: &str| &self.0[key];
        let collector = |name: &str, interval: &str| format!("  {name}: {{interval: {interval}, stale_after: 2h}}\n");
        let collectors: String = [("jobs", of("jobs").as_str()), ("protected", of("protected"))]
            .into_iter()
            .chain(["customers", "licenses", "scan_profiles", "scan_changes"].map(|name| (name, "1s")))
            .map(|(name, interval)| collector(name, interval))
            .collect();
        format!(
            "api:\n  version: v3\n  base_url: {base}\n  token_url: {base}/connect/token\n  timeout: 5s\n  \
             requests_per_second: {}\n  max_concurrency: {}\nauth:\n  client_id: demo\n  client_secret: {}\n\
             collectors:\n{collectors}customers: {}\nrpo: {}\n",
            of("requests_per_second"),
            of("max_concurrency"),
            of("client_secret"),
            of("customers"),
            of("rpo"),
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

    async fn ask(&self, by: By, status: u16) {
        match by {
            By::Signal => self.program.signal("HUP"),
            By::Post => {
                let url = format!("{}/-/reload", self.program.base);
                let answer = crate::faults::client().post(url).send().await.unwrap();
                let answered = answer.status().as_u16();
                assert_eq!(answered, status, "{}", answer.text().await.unwrap());
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
    down: usize,
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
            seen.down += usize::from(!text.contains("\nelements_up 1\n"));
        }
        seen
    })
}

/// The pauses between requests, in their order.
fn pauses(requests: &[Request]) -> Vec<Duration> {
    let at: Vec<Instant> = requests.iter().map(|request| request.at).collect();
    at.windows(2).map(|pair| pair[1] - pair[0]).collect()
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
    let text = program
        .until("all is fresh", |text| {
            ["jobs", "protected", "licenses", "scan_profiles", "scan_changes"]
                .iter()
                .all(|collector| fresh(text, collector) == Some(4.0))
        })
        .await;
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

    // A bad file changes nothing but what is said of it, whichever way it was asked for.
    for (by, bad) in [
        (By::Post, wanted.with("rpo", "{default: soon}")),
        (By::Signal, wanted.with("jobs", "never")),
    ] {
        let before = value(&program.metrics().await, RELOADED_AT);
        std::fs::write(&exporter.file, bad.yaml(&exporter.partner.base)).unwrap();
        exporter.ask(by, 500).await;
        let text = program
            .until("it is said", |text| value(text, RELOADED) == Some(0.0))
            .await;
        assert_eq!(value(&text, RELOADED_AT), before);
        assert_eq!(objectives(&text, ids[1]), only("3600"));
        handle.clear_requests();
        exporter.until_asked(JOBS, 2 * ids.len()).await;
        exporter.reload(&wanted, By::Post).await;
    }

    stop.cancel();
    let seen = scraper.await.unwrap();
    assert_eq!(seen.failed, Vec::<String>::new());
    assert_eq!(seen.missing, BTreeSet::new(), "in {} scrapes", seen.scrapes);
    assert_eq!(seen.down, 0, "in {} scrapes", seen.scrapes);
    assert!(seen.scrapes > 100, "{}", seen.scrapes);
}
