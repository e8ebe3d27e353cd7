//! Soak test: random faults and changes of customers, after which everything recovers without leftovers.
//!
//! Two exporters monitor one simulated partner. The program uses the first generation, so that its memory can be
//! measured. The exporter in this process uses the second, on its own runtime, so that its tasks can be counted.

#![expect(clippy::print_stdout, reason = "the figures are the purpose of a soak test")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use elements_exporter::simulator::{Customer, Fault, FaultKind, Handle, History, Settings};
use fastrand::Rng;
use serde_json::{Value, json};

use super::{COLLECTORS, CUSTOMERS_V1, CUSTOMERS_V3, Exporter, JOBS_V1, JOBS_V3, TOKEN, every_second, sum};
use crate::harness::partner::{start, still};
use crate::harness::program::Program;
use crate::harness::{OBJECTS, PATIENCE, about_customers, config, eventually, polled_once, value};

/// Number of changes per second.
const TICKS_PER_SECOND: u64 = 4;
const TICK: Duration = Duration::from_millis(1000 / TICKS_PER_SECOND);

/// Step of the partner's clock per tick. A daily backup of the simulated world thus runs every half minute.
const TICK_OF_WORLD: Duration = Duration::from_secs(60);

/// Customers at the start.
const CUSTOMERS: usize = 12;

/// Maximum growth of the program since it has seen every fault. The allocator keeps pages of bodies of up to 64 MiB
/// from different threads, and returns them at an unknown time. A leak in ten minutes of two hundred polls per second
/// would be larger.
const GROWTH_MIB: u64 = 48;

/// Idle connections to the partner, with one task each, and those of scrapers.
const CONNECTION_TASKS: usize = 24;

/// Time for which values are served after the last successful poll: short enough for outages of the soak test to exceed
/// it, and longer than a cycle on a busy machine.
const STALE_AFTER: f64 = 60.0;

#[tokio::test]
async fn short_soak_leaves_nothing_behind() {
    soak(48, 1).await;
}

/// Run by `tests/soak [SECONDS] [SEED]`.
#[tokio::test]
#[ignore = "takes as long as its arguments require"]
async fn long_soak_leaves_nothing_behind() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let ticks = number("EXPORTER_SOAK_SECONDS", 600) * TICKS_PER_SECOND;
    soak(ticks, number("EXPORTER_SOAK_SEED", 1)).await;
}

async fn soak(ticks: u64, seed: u64) {
    let mut dice = Rng::with_seed(seed);
    let partner = start(Settings {
        seed,
        churn: true,
        speed: 60.0,
        history: History::Runs(20),
        v1_page_size: Some(5),
        // Tokens expire by the partner's clock, which is ahead.
        token_lifetime: Duration::from_secs(10 * 365 * 24 * 3600),
        ..still(CUSTOMERS)
    })
    .await;
    let v1 = Program::start_with(settings(&partner.base, "v1"), &["--web.listen-address=127.0.0.1:0"]).await;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let v3 = runtime
        .spawn(Exporter::load(settings(&partner.base, "v3")))
        .await
        .unwrap();
    v1.until("the program has settled", super::is_settled).await;
    v3.settled().await;
    let tasks = runtime.metrics().num_alive_tasks();

    let mut warm = 0;
    let mut away = Vec::new();
    let mut kinds = BTreeMap::<String, u32>::new();
    let (mut came, mut went) = (0_u32, 0_u32);
    for tick in 1..=ticks {
        partner.handle.advance(TICK_OF_WORLD);
        match come_and_go(&partner.handle, &mut away, &mut dice) {
            Some(true) => came += 1,
            Some(false) => went += 1,
            None => {}
        }
        if dice.u8(..4) == 0 {
            let faults: Vec<Fault> = (0..dice.usize(..4)).map(|_| fault(&mut dice)).collect();
            for fault in &faults {
                let kind = json!(fault)["kind"].as_str().unwrap_or_default().to_owned();
                *kinds.entry(kind).or_default() += 1;
            }
            partner.handle.set_faults(faults);
        }
        if tick % 16 == 0 {
            partner.handle.clear_requests();
            for text in [v1.metrics().await, v3.metrics().await] {
                assert_no_early_expiry(&text);
            }
        }
        if tick == ticks / 3 {
            warm = v1.resident_mib();
        }
        tokio::time::sleep(TICK).await;
    }
    partner.handle.clear_faults();
    let healed = now();
    println!("{ticks} ticks, {came} customers came and {went} went, faults: {kinds:?}");

    for generation in ["v1", "v3"] {
        let (truth, good) = polled_once(&truth_of(&partner.base, generation)).await;
        assert!(good, "{truth}");
        let wrong = RefCell::new(String::new());
        let heals = async {
            loop {
                let text = match generation {
                    "v1" => v1.metrics().await,
                    _ => v3.metrics().await,
                };
                match not_polled_since(&text, healed).or_else(|| difference(&text, &truth)) {
                    Some(difference) => *wrong.borrow_mut() = difference,
                    None => return text,
                }
                tokio::time::sleep(TICK).await;
            }
        };
        let healed = tokio::time::timeout(PATIENCE, heals).await;
        let text = healed.unwrap_or_else(|_| panic!("{generation}, seed {seed}: {}", wrong.borrow()));
        println!(
            "{generation}: {} series as the partner has them; {} requests, {} errors",
            about_customers(&text).lines().count(),
            sum(&text, "elements_exporter_api_requests_total"),
            sum(&text, "elements_exporter_api_errors_total")
        );
    }
    let alive = eventually("no task is left over", || async {
        let alive = runtime.metrics().num_alive_tasks();
        (alive <= tasks + CONNECTION_TASKS).then_some(alive)
    })
    .await;
    println!("tasks: {tasks} before, {alive} after");
    let end = v1.resident_mib();
    println!(
        "memory: {warm} MiB after a third, {end} MiB in the end, {} MiB at its peak",
        v1.peak_mib()
    );
    assert!(
        end <= warm + GROWTH_MIB,
        "seed {seed}: {end} MiB, {warm} MiB after a third"
    );
    assert_eq!(v1.status("/-/healthy").await, 200);
    assert_eq!(v3.get("/-/healthy").await.0, 200);
    runtime.spawn(v3.stop()).await.unwrap();
    runtime.shutdown_background();
    let output = v1.terminate().await;
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
}

fn settings(base: &str, generation: &str) -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
    let mut more = vec![
        ("ELEMENTS_API__VERSION".to_owned(), generation.to_owned()),
        // Hanging requests time out soon, and a busy machine responds within this time.
        ("ELEMENTS_API__TIMEOUT".to_owned(), "5s".to_owned()),
        (OBJECTS.0.to_owned(), OBJECTS.1.to_owned()),
    ];
    for collector in COLLECTORS.into_iter().chain(["customers"]) {
        let key = |key: &str| format!("ELEMENTS_COLLECTORS__{}__{key}", collector.to_uppercase());
        more.push((key("INTERVAL"), "2s".to_owned()));
        more.push((key("STALE_AFTER"), format!("{STALE_AFTER}s")));
    }
    let more: Vec<_> = more
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    every_second(base, &COLLECTORS, &more)
}

fn truth_of(base: &str, generation: &str) -> elements_exporter::config::Config {
    config(base, &[("ELEMENTS_API__VERSION", generation), OBJECTS])
}

/// Removes or restores a customer at random. Returns whether one was restored, if any changed.
fn come_and_go(partner: &Handle, away: &mut Vec<Customer>, dice: &mut Rng) -> Option<bool> {
    match dice.u8(..12) {
        0 => partner.with_world(|world| {
            (world.customers.len() > CUSTOMERS / 2).then(|| {
                let place = dice.usize(..world.customers.len());
                away.push(world.customers.remove(place));
                false
            })
        }),
        1 if !away.is_empty() => {
            let customer = away.swap_remove(dice.usize(..away.len()));
            partner.with_world(|world| world.customers.push(customer));
            Some(true)
        }
        _ => None,
    }
}

/// Returns a random fault. None is a plausible lie: a well-formed but wrong response would be indistinguishable from
/// the truth, and the history of runs would rightly contain it.
fn fault(dice: &mut Rng) -> Fault {
    let paths = [
        "*",
        TOKEN,
        CUSTOMERS_V1,
        CUSTOMERS_V3,
        JOBS_V1,
        JOBS_V3,
        "*/services*",
        "*scan*",
        "*protected*",
        "*overview*",
    ];
    let path = paths[dice.usize(..paths.len())];
    let mut kind = kind(dice);
    // The pause after a rejected client takes up to a quarter of an hour, which a soak test does not cover.
    if matches!(kind, FaultKind::Status { code: 400..=499, .. }) && ["*", TOKEN].contains(&path) {
        kind = FaultKind::Status { code: 503, body: None };
    }
    Fault {
        times: [None, Some(1), Some(5)][dice.usize(..3)],
        skip: dice.u32(..4),
        probability: [0.1, 0.5, 1.0][dice.usize(..3)],
        ..Fault::new(path, kind)
    }
}

fn kind(dice: &mut Rng) -> FaultKind {
    let text = |text: &str| text.to_owned();
    match dice.u8(..18) {
        0 => FaultKind::Status {
            code: [400, 401, 403, 404, 405, 408, 418, 500, 502, 503, 504][dice.usize(..11)],
            body: None,
        },
        1 => FaultKind::Delay { ms: dice.u64(..1500) },
        2 => FaultKind::Hang,
        3 => FaultKind::HangBody,
        4 => FaultKind::Drip {
            bytes: dice.usize(1..100),
            ms: dice.u64(1..50),
        },
        5 => FaultKind::Truncate {
            bytes: dice.usize(..500),
            declared: dice.bool(),
        },
        6 => FaultKind::ShortLength { by: dice.i64(-20..20) },
        7 => FaultKind::Reset,
        8 => FaultKind::WrongBody {
            content_type: text("text/html"),
            body: text("<!doctype html><title>Sign in</title>"),
        },
        9 => FaultKind::Redirect {
            code: [301, 302, 303, 307, 308][dice.usize(..5)],
            location: text("https://elsewhere.example/"),
        },
        10 => FaultKind::Throttle {
            retry_after: [None, Some(text("1")), Some(text("soon")), Some(text("-5"))][dice.usize(..4)].clone(),
            code: 429,
        },
        // Above the limit, but not so large that it takes all the time.
        11 => FaultKind::GzipBomb { bytes: 80 << 20 },
        12 => FaultKind::Replace {
            pointer: ["/value", "/data", "/value/0", "/data/0", "/value/-", "/data/-"][dice.usize(..6)].to_owned(),
            value: [Value::Null, json!("no row"), json!([[]]), json!({})][dice.usize(..4)].clone(),
        },
        13 => FaultKind::NextLink {
            url: ["https://elsewhere.example/", "/partner/customers", "http://"][dice.usize(..3)].to_owned(),
        },
        14 => FaultKind::ExtraHeader {
            name: text("x-more"),
            value: "x".repeat(dice.usize(..4000)),
        },
        15 => FaultKind::IgnorePaging,
        _ => FaultKind::TotalCount { n: dice.u64(..1000) },
    }
}

/// Values that an exporter cannot know after a start, because it has only seen the listed runs: the latest ones before
/// those, and the number of failures before. An older exporter has at least as many.
const HISTORY: [&str; 3] = [
    "elements_job_last_success_timestamp_seconds{",
    "elements_job_last_backup_timestamp_seconds{",
    "elements_job_consecutive_failures{",
];

/// Returns a series about customers that differs from the truth, if any. Counters of ended runs are excluded, because
/// they start with their exporter.
fn difference(text: &str, truth: &str) -> Option<String> {
    let series = |text: &str| -> BTreeMap<String, f64> {
        about_customers(text)
            .lines()
            .filter(|line| !line.starts_with("elements_job_runs_total{"))
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(series, value)| (series.to_owned(), value.parse().unwrap()))
            .collect()
    };
    let (known, truth) = (series(text), series(truth));
    let wrong = truth.iter().find_map(|(series, true_value)| {
        let value = known.get(series);
        let right = match HISTORY.iter().any(|name| series.starts_with(name)) {
            true => value >= Some(true_value),
            false => value == Some(true_value),
        };
        (!right).then(|| format!("{series} is {true_value} and not {value:?}"))
    });
    let more = || known.keys().find(|series| !truth.contains_key(*series));
    wrong.or_else(|| more().map(|series| format!("{series} is not there")))
}

/// Returns a collector and customer that has not been polled successfully since that time.
fn not_polled_since(text: &str, since: f64) -> Option<String> {
    const LAST: &str = "elements_exporter_collector_last_success_timestamp_seconds";
    let mut lines = text.lines().filter(|line| line.starts_with(LAST)).peekable();
    if lines.peek().is_none() {
        return Some("nothing".to_owned());
    }
    lines
        .find(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap() < since)
        .map(ToOwned::to_owned)
}

/// Checks that values about the present only expire after `stale_after`: a customer without a status is one whose list
/// is older.
fn assert_no_early_expiry(text: &str) {
    let last = "elements_exporter_collector_last_success_timestamp_seconds{collector=\"customers\",customer_id=\"\"}";
    let age = now() - value(text, last).unwrap();
    let infos = text.matches("\nelements_customer_info{").count();
    let statuses = text.matches("\nelements_customer_status{").count();
    // Customers missing from the newest list are kept until the second, and become stale: at most as many as ever
    // leave.
    assert!(
        statuses > 0 || infos == 0 || age > STALE_AFTER - 1.0,
        "{infos} customers, none with a status, and the list is {age:.1} s old"
    );
}

fn now() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_secs_f64()
}
