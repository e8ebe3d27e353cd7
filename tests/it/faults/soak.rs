//! Soak test: after random faults and customer changes, the exporter recovers completely and without leaks.
//!
//! Two exporters monitor one simulated partner. One is a separate program, whose memory can be measured, and uses API
//! v1. The other is in this process, on a separate runtime whose tasks can be counted, and uses API v3.

#![expect(clippy::print_stdout, reason = "the figures are the purpose of a soak test")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use elements_exporter::simulator::{Customer, Fault, FaultKind, Handle, History, Settings};
use fastrand::Rng;
use serde_json::{Value, json};

use super::{COLLECTORS, CUSTOMERS_V1, CUSTOMERS_V3, Exporter, JOBS_V1, JOBS_V3, TOKEN, every_second, sum};
use crate::harness::partner::{frozen_partner, start};
use crate::harness::program::Program;
use crate::harness::{OBJECTS, TIMEOUT, about_customers, config, eventually, poll_once, value};

/// Number of ticks per second. Faults and customers may change at every tick.
const TICKS_PER_SECOND: u64 = 4;
const TICK: Duration = Duration::from_millis(1000 / TICKS_PER_SECOND);

/// Time by which the partner's clock advances per tick. The schedules in the simulated world are also compressed, so
/// its daily backups run every six seconds.
const WORLD_TICK: Duration = Duration::from_secs(60);

/// Number of customers at startup.
const CUSTOMERS: usize = 12;

/// Maximum growth of the program's memory after the first third of the ticks. It allows for the memory of large
/// bodies, which the allocator retains for each thread and releases later. At two hundred polls per second, a leak of
/// half a kilobyte per poll would exceed this limit within ten minutes.
const GROWTH_MIB: u64 = 48;

/// Maximum number of tasks for idle connections to the partner and from scrapers.
const CONNECTION_TASKS: usize = 24;

/// The setting `stale_after` of all collectors, in seconds. It is longer than a cycle on a busy machine.
const STALE_AFTER: f64 = 60.0;

#[tokio::test]
async fn short_soak_leaves_no_leaks() {
    soak(48, 1).await;
}

/// `tests/soak [SECONDS] [SEED]` runs this test.
#[tokio::test]
#[ignore = "its duration is set by tests/soak"]
async fn long_soak_leaves_no_leaks() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let ticks = number("EXPORTER_SOAK_SECONDS", 600) * TICKS_PER_SECOND;
    soak(ticks, number("EXPORTER_SOAK_SEED", 1)).await;
}

async fn soak(ticks: u64, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let partner = start(Settings {
        seed,
        churn: true,
        speed: 60.0,
        history: History::Runs(20),
        v1_page_size: Some(5),
        // Tokens expire according to the partner's clock, which runs fast.
        token_lifetime: Duration::from_secs(10 * 365 * 24 * 3600),
        ..frozen_partner(CUSTOMERS)
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
    v1.wait_until("the program has settled", super::is_settled).await;
    v3.wait_until_settled().await;
    let tasks = runtime.metrics().num_alive_tasks();

    let mut warm_mib = 0;
    let mut removed = Vec::new();
    let mut kinds = BTreeMap::<String, u32>::new();
    let (mut joined, mut left) = (0_u32, 0_u32);
    for tick in 1..=ticks {
        partner.handle.advance(WORLD_TICK);
        match change_customers(&partner.handle, &mut removed, &mut rng) {
            Some(true) => joined += 1,
            Some(false) => left += 1,
            None => {}
        }
        if rng.u8(..4) == 0 {
            let faults: Vec<Fault> = (0..rng.usize(..4)).map(|_| fault(&mut rng)).collect();
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
            warm_mib = v1.resident_mib();
        }
        tokio::time::sleep(TICK).await;
    }
    partner.handle.clear_faults();
    let recovered = now();
    println!("{ticks} ticks, {joined} customers joined, {left} left, faults: {kinds:?}");

    for generation in ["v1", "v3"] {
        let (expected, succeeded) = poll_once(&fresh_config(&partner.base, generation)).await;
        assert!(succeeded, "{expected}");
        let mismatch = RefCell::new(String::new());
        let recovery = async {
            loop {
                let text = match generation {
                    "v1" => v1.metrics().await,
                    _ => v3.metrics().await,
                };
                match not_polled_since(&text, recovered).or_else(|| difference(&text, &expected)) {
                    Some(difference) => *mismatch.borrow_mut() = difference,
                    None => return text,
                }
                tokio::time::sleep(TICK).await;
            }
        };
        let recovered = tokio::time::timeout(TIMEOUT, recovery).await;
        let text = recovered.unwrap_or_else(|_| panic!("{generation}, seed {seed}: {}", mismatch.borrow()));
        println!(
            "{generation}: {} correct series; {} requests, {} errors",
            about_customers(&text).lines().count(),
            sum(&text, "elements_exporter_api_requests_total"),
            sum(&text, "elements_exporter_api_errors_total")
        );
    }
    let alive = eventually("leftover tasks complete", || async {
        let alive = runtime.metrics().num_alive_tasks();
        (alive <= tasks + CONNECTION_TASKS).then_some(alive)
    })
    .await;
    println!("tasks: {tasks} before, {alive} after");
    let end_mib = v1.resident_mib();
    println!(
        "memory: {warm_mib} MiB after a third of the ticks, {end_mib} MiB at the end, peak {} MiB",
        v1.peak_mib()
    );
    assert!(
        end_mib <= warm_mib + GROWTH_MIB,
        "seed {seed}: {warm_mib} MiB after a third of the ticks, {end_mib} MiB at the end"
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
    let mut extra_env = vec![
        ("ELEMENTS_API__VERSION".to_owned(), generation.to_owned()),
        // The timeout is short, so that hanging requests time out quickly, but long enough for a busy machine.
        ("ELEMENTS_API__TIMEOUT".to_owned(), "5s".to_owned()),
        (OBJECTS.0.to_owned(), OBJECTS.1.to_owned()),
    ];
    for collector in COLLECTORS.into_iter().chain(["customers"]) {
        let key = |key: &str| format!("ELEMENTS_COLLECTORS__{}__{key}", collector.to_uppercase());
        extra_env.push((key("INTERVAL"), "2s".to_owned()));
        extra_env.push((key("STALE_AFTER"), format!("{STALE_AFTER}s")));
    }
    let extra_env: Vec<_> = extra_env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    every_second(base, &COLLECTORS, &extra_env)
}

fn fresh_config(base: &str, generation: &str) -> elements_exporter::config::Config {
    config(base, &[("ELEMENTS_API__VERSION", generation), OBJECTS])
}

/// Randomly removes a customer, restores one, or changes nothing. Returns true if a customer was restored, false if one
/// was removed, and `None` if nothing changed.
fn change_customers(partner: &Handle, removed: &mut Vec<Customer>, rng: &mut Rng) -> Option<bool> {
    match rng.u8(..12) {
        0 => partner.with_world(|world| {
            (world.customers.len() > CUSTOMERS / 2).then(|| {
                let place = rng.usize(..world.customers.len());
                removed.push(world.customers.remove(place));
                false
            })
        }),
        1 if !removed.is_empty() => {
            let customer = removed.swap_remove(rng.usize(..removed.len()));
            partner.with_world(|world| world.customers.push(customer));
            Some(true)
        }
        _ => None,
    }
}

/// Returns a random fault. No fault produces well-formed but wrong data, because the exporter cannot detect such data,
/// and would rightly add it to the run history.
fn fault(rng: &mut Rng) -> Fault {
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
    let path = paths[rng.usize(..paths.len())];
    let mut kind = fault_kind(rng);
    // The pause after a rejected client can last a quarter of an hour, which is too long for a soak test.
    if matches!(kind, FaultKind::Status { code: 400..=499, .. }) && ["*", TOKEN].contains(&path) {
        kind = FaultKind::Status { code: 503, body: None };
    }
    Fault {
        times: [None, Some(1), Some(5)][rng.usize(..3)],
        skip: rng.u32(..4),
        probability: [0.1, 0.5, 1.0][rng.usize(..3)],
        ..Fault::new(path, kind)
    }
}

fn fault_kind(rng: &mut Rng) -> FaultKind {
    let text = |text: &str| text.to_owned();
    match rng.u8(..18) {
        0 => FaultKind::Status {
            code: [400, 401, 403, 404, 405, 408, 418, 500, 502, 503, 504][rng.usize(..11)],
            body: None,
        },
        1 => FaultKind::Delay { ms: rng.u64(..1500) },
        2 => FaultKind::Hang,
        3 => FaultKind::HangBody,
        4 => FaultKind::Drip {
            bytes: rng.usize(1..100),
            ms: rng.u64(1..50),
        },
        5 => FaultKind::Truncate {
            bytes: rng.usize(..500),
            declared: rng.bool(),
        },
        6 => FaultKind::ShortLength { by: rng.i64(-20..20) },
        7 => FaultKind::Reset,
        8 => FaultKind::WrongBody {
            content_type: text("text/html"),
            body: text("<!doctype html><title>Sign in</title>"),
        },
        9 => FaultKind::Redirect {
            code: [301, 302, 303, 307, 308][rng.usize(..5)],
            location: text("https://elsewhere.example/"),
        },
        10 => FaultKind::Throttle {
            retry_after: [None, Some(text("1")), Some(text("soon")), Some(text("-5"))][rng.usize(..4)].clone(),
            code: 429,
        },
        // The body exceeds the limit, but is small enough to decompress quickly.
        11 => FaultKind::GzipBomb { bytes: 80 << 20 },
        12 => FaultKind::Replace {
            pointer: ["/value", "/data", "/value/0", "/data/0", "/value/-", "/data/-"][rng.usize(..6)].to_owned(),
            value: [Value::Null, json!("no row"), json!([[]]), json!({})][rng.usize(..4)].clone(),
        },
        13 => FaultKind::NextLink {
            url: ["https://elsewhere.example/", "/partner/customers", "http://"][rng.usize(..3)].to_owned(),
        },
        14 => FaultKind::ExtraHeader {
            name: text("x-more"),
            value: "x".repeat(rng.usize(..4000)),
        },
        15 => FaultKind::IgnorePaging,
        _ => FaultKind::TotalCount { n: rng.u64(..1000) },
    }
}

/// Values that depend on runs that are no longer listed. A new exporter has never fetched these runs, so an older
/// exporter's values are at least as high.
const HISTORY: [&str; 3] = [
    "elements_job_last_success_timestamp_seconds{",
    "elements_job_last_backup_timestamp_seconds{",
    "elements_job_consecutive_failures{",
];

/// Returns a series about customers that differs from the expected exposition, if any. Ignores counters of completed
/// runs, because they start at zero when the exporter starts.
fn difference(text: &str, expected: &str) -> Option<String> {
    let series = |text: &str| -> BTreeMap<String, f64> {
        about_customers(text)
            .lines()
            .filter(|line| !line.starts_with("elements_job_runs_total{"))
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(series, value)| (series.to_owned(), value.parse().unwrap()))
            .collect()
    };
    let (actual, expected) = (series(text), series(expected));
    let mismatch = expected.iter().find_map(|(series, expected_value)| {
        let value = actual.get(series);
        let is_equal = match HISTORY.iter().any(|name| series.starts_with(name)) {
            true => value >= Some(expected_value),
            false => value == Some(expected_value),
        };
        (!is_equal).then(|| format!("{series} is {value:?}, expected {expected_value}"))
    });
    let unexpected = || actual.keys().find(|series| !expected.contains_key(*series));
    mismatch.or_else(|| unexpected().map(|series| format!("{series} is unexpected")))
}

/// Returns the freshness series of a target that has not been polled successfully since the given time, if any.
fn not_polled_since(text: &str, since: f64) -> Option<String> {
    const LAST: &str = "elements_exporter_collector_last_success_timestamp_seconds";
    let mut lines = text.lines().filter(|line| line.starts_with(LAST)).peekable();
    if lines.peek().is_none() {
        return Some("there are no freshness series".to_owned());
    }
    lines
        .find(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap() < since)
        .map(ToOwned::to_owned)
}

/// Checks that values that describe the present do not expire before `stale_after`. The statuses of all
/// customers may be missing only if the customer list is older than `stale_after`.
fn assert_no_early_expiry(text: &str) {
    let last = "elements_exporter_collector_last_success_timestamp_seconds{collector=\"customers\",customer_id=\"\"}";
    let age = now() - value(text, last).unwrap();
    let infos = text.matches("\nelements_customer_info{").count();
    let statuses = text.matches("\nelements_customer_status{").count();
    // A customer that is missing from the latest list remains until a second list confirms its removal. Its values may
    // expire earlier.
    assert!(
        statuses > 0 || infos == 0 || age > STALE_AFTER - 1.0,
        "{infos} customers without a status, although the list is {age:.1} s old"
    );
}

fn now() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_secs_f64()
}
