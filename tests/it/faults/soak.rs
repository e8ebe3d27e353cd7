//! A soak: faults and customers come and go at random for a while, then everything heals, and nothing of it is left.
//!
//! Two exporters watch one simulated partner. The program speaks the first generation, so that its memory can be seen;
//! one in this process speaks the second, on a runtime of its own, so that its tasks can be counted.

#![expect(clippy::print_stdout, reason = "the figures of a soak are what it is run for")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use elements_exporter::simulator::{Customer, Fault, FaultKind, Handle, History, Settings};
use fastrand::Rng;
use serde_json::{Value, json};

use super::program::Program;
use super::{COLLECTORS, CUSTOMERS_V1, CUSTOMERS_V3, Exporter, JOBS_V1, JOBS_V3, TOKEN, every_second, sum};
use crate::support::{OBJECTS, about_customers, config, value};
use crate::world::{start, still};

/// How often something changes.
const TICK: Duration = Duration::from_millis(250);

/// How far the partner's clock goes with each tick: a daily backup of the simulated world comes every half minute.
const TICK_OF_WORLD: Duration = Duration::from_secs(60);

/// Customers at the start.
const CUSTOMERS: usize = 12;

/// How long the exporters may take to forget what was wrong: the longest pause before a token is asked for again is a
/// minute, and so is that of a host that throttled.
const HEALING: Duration = Duration::from_secs(150);

/// How much larger the program may be in the end than it was once it had seen every fault. The allocator keeps pages of
/// bodies of up to 64 MiB, which threads took turns to read, and gives them back when it likes; what leaks in ten minutes
/// of two hundred polls a second is more.
const GROWTH_MIB: u64 = 48;

/// Idle connections to the partner that are kept, each with a task, and those of whoever scrapes.
const CONNECTION_TASKS: usize = 24;

/// How long values outlive the last good poll: short enough that an outage of the soak can pass it, and longer than a round
/// takes a busy machine.
const STALE_AFTER: f64 = 60.0;

#[tokio::test]
async fn a_short_soak_leaves_nothing_behind() {
    soak(Duration::from_secs(12), 1).await;
}

/// `tests/soak [SECONDS] [SEED]` runs it.
#[tokio::test]
#[ignore = "takes as long as it is told to"]
async fn a_long_soak_leaves_nothing_behind() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let seconds = number("EXPORTER_SOAK_SECONDS", 600);
    soak(Duration::from_secs(seconds), number("EXPORTER_SOAK_SEED", 1)).await;
}

async fn soak(duration: Duration, seed: u64) {
    let mut dice = Rng::with_seed(seed);
    let partner = start(Settings {
        seed,
        churn: true,
        speed: 60.0,
        history: History::Runs(20),
        v1_page_size: Some(5),
        // Tokens live by the partner's clock, which runs ahead.
        token_lifetime: Duration::from_secs(10 * 365 * 24 * 3600),
        ..still(CUSTOMERS)
    })
    .await;
    let v1 = Program::listening(settings(&partner.base, "v1"), &["--web.listen-address=127.0.0.1:0"]).await;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let v3 = runtime
        .spawn(Exporter::load(settings(&partner.base, "v3")))
        .await
        .unwrap();
    v1.until_metrics("the program has settled", super::is_settled).await;
    v3.settled().await;
    let tasks = runtime.metrics().num_alive_tasks();

    let began = Instant::now();
    let mut warm = None;
    let mut away = Vec::new();
    let mut kinds = BTreeMap::<String, u32>::new();
    let (mut ticks, mut came, mut went) = (0_u32, 0_u32, 0_u32);
    while began.elapsed() < duration {
        ticks += 1;
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
        if ticks % 16 == 0 {
            partner.handle.clear_requests();
            for text in [v1.get("/metrics").await.1, v3.metrics().await] {
                nothing_is_gone_before_its_time(&text);
            }
        }
        if warm.is_none() && began.elapsed() > duration / 3 {
            warm = Some(v1.resident_mib());
        }
        tokio::time::sleep(TICK).await;
    }
    partner.handle.clear_faults();
    let healed = now();
    println!("{ticks} ticks, {came} customers came and {went} went, faults: {kinds:?}");

    for generation in ["v1", "v3"] {
        let began = Instant::now();
        let (truth, good) = super::polled_once(&truth_of(&partner.base, generation)).await;
        assert!(good, "{truth}");
        loop {
            let text = match generation {
                "v1" => v1.get("/metrics").await.1,
                _ => v3.metrics().await,
            };
            let Some(wrong) = not_polled_since(&text, healed).or_else(|| difference(&text, &truth)) else {
                println!(
                    "{generation}: {} series as the partner has them {:.1?} later; {} requests, {} errors",
                    about_customers(&text).lines().count(),
                    began.elapsed(),
                    sum(&text, "elements_exporter_api_requests_total"),
                    sum(&text, "elements_exporter_api_errors_total")
                );
                break;
            };
            assert!(began.elapsed() < HEALING, "{generation}, seed {seed}: {wrong}");
            tokio::time::sleep(TICK).await;
        }
    }
    let began = Instant::now();
    loop {
        let (alive, lag) = (runtime.metrics().num_alive_tasks(), lag(&v3.metrics().await));
        if alive <= tasks + CONNECTION_TASKS && lag < 4.0 {
            println!("tasks: {tasks} before, {alive} after; lag {lag:.1} s");
            break;
        }
        assert!(
            began.elapsed() < HEALING,
            "seed {seed}: {alive} tasks, {tasks} before; lag {lag} s"
        );
        tokio::time::sleep(TICK).await;
    }
    let (warm, end) = (warm.unwrap_or_default(), v1.resident_mib());
    println!(
        "memory: {warm} MiB after a third, {end} MiB in the end, {} MiB at its peak",
        v1.peak_mib()
    );
    assert!(
        end <= warm + GROWTH_MIB,
        "seed {seed}: {end} MiB, {warm} MiB after a third"
    );
    assert_eq!(v1.get("/-/healthy").await.0, 200);
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
        ("ELEMENTS_API__TIMEOUT".to_owned(), "1s".to_owned()),
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

/// A customer leaves or one that left comes back, now and then; whether one came.
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

/// Any fault, anywhere. None of them is a lie that could be believed: what is well-formed and wrong would be the truth as
/// far as anybody can tell, and the history of runs would rightly remember it.
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
    // A refusal of the client is waited out for up to a quarter of an hour, and is not what a soak is about.
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
        // Past the cap, and not so far that it takes all the time there is.
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

/// What an exporter cannot know that has just begun, because it has seen no more than the runs that are listed: what was
/// last before the oldest of them, and how many failed before. Of these an older exporter knows as much or more.
const HISTORY: [&str; 3] = [
    "elements_job_last_success_timestamp_seconds{",
    "elements_job_last_backup_timestamp_seconds{",
    "elements_job_consecutive_failures{",
];

/// A series in which what is said of customers differs from the truth, if any. How often runs were seen to end is left
/// out: a counter counts from when its exporter began.
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

/// A collector and customer that has not been polled with success since then.
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

/// What describes the present of customers goes when the list of them has outlived its time, and never before: a customer
/// without a status is one whose list is older.
fn nothing_is_gone_before_its_time(text: &str) {
    let last = "elements_exporter_collector_last_success_timestamp_seconds{collector=\"customers\",customer_id=\"\"}";
    let age = now() - value(text, last).unwrap();
    let infos = text.matches("\nelements_customer_info{").count();
    let statuses = text.matches("\nelements_customer_status{").count();
    // Those that the newest list lacks are kept until the second and age by themselves: at most as many as ever leave.
    assert!(
        statuses > 0 || infos == 0 || age > STALE_AFTER - 1.0,
        "{infos} customers, none with a status, and the list is {age:.1} s old"
    );
}

fn lag(text: &str) -> f64 {
    let lags = text
        .lines()
        .filter(|line| line.starts_with("elements_exporter_poll_lag_seconds{"));
    lags.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
        .fold(0.0, f64::max)
}

fn now() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_secs_f64()
}
