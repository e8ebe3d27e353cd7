//! Endless and very large responses. The exporter rejects or truncates what exceeds its limits, reports the reason, and
//! stays within its memory limits.
//!
//! The limits are for the peak resident memory of an unoptimized build, as measured by the kernel.

#![expect(clippy::print_stdout, reason = "the figures show the margin below each limit")]

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Response;
use elements_exporter::simulator::{Fault, FaultKind};
use futures_util::stream;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;

use super::{CUSTOMERS_V3, errors, last_success, number, state, success};
use crate::harness::partner::{frozen_partner, start};
use crate::harness::program::Program;
use crate::harness::scripted::{ScriptedServer, json as response, token};
use crate::harness::{about_customers, value};

/// Memory of the idle program, including scrapes and freed memory that the allocator retains.
const IDLE_MIB: u64 = 96;

/// Memory for one body: 64 MiB, and another 64 MiB while the buffer grows.
const BODY_MIB: u64 = 128;

fn assert_peak(program: &Program, limit_mib: u64, case: &str) {
    let peak = program.peak_mib();
    assert!(peak < limit_mib, "{case}: {peak} MiB, limit {limit_mib}");
    println!("{case}: {peak} MiB of {limit_mib}");
}

/// A function from a page number to a response. In API v1, page numbers start at 0.
type List = Box<dyn Fn(usize) -> Response<String> + Send + Sync>;

/// Starts an API with one customer. Once `on` is true, it uses `list` for the customer list.
async fn switchable(list: List, on: &Arc<AtomicBool>) -> ScriptedServer {
    let on = Arc::clone(on);
    ScriptedServer::start(move |request| {
        if request.line.starts_with("POST /connect") {
            return token();
        }
        if !on.load(Ordering::SeqCst) {
            let rows = json!([{"id": "c-0", "organization": "One"}]);
            return response(
                200,
                json!({"value": rows, "data": rows, "metadata": {"totalCount": 1}}).to_string(),
            );
        }
        let number = |(_, rest): (&str, &str)| rest.split(['&', ' ']).next()?.parse().ok();
        let parameters = ["page=", "pageIndex="].into_iter();
        let page = parameters
            .filter_map(|name| request.line.split_once(name))
            .find_map(number);
        list(page.unwrap_or_default())
    })
    .await
}

const V1: (&str, &str) = ("ELEMENTS_API__VERSION", "v1");

/// Waits until a poll of the customer list fails for `reason`. Checks that the samples about customers have not
/// changed.
async fn wait_for_rejection(program: &Program, before: &str, reason: &str) -> String {
    let (counter, success) = (errors("customers", reason), success("customers", ""));
    // The error is counted before the store records the failure, and a scrape may occur in between.
    let has_failed = |text: &str| value(text, &counter) >= Some(1.0) && value(text, &success) == Some(0.0);
    let after = program.wait_until(&counter, has_failed).await;
    assert_eq!(about_customers(&after), about_customers(before), "{reason}");
    assert!(number(&after, &last_success("customers", "")) > 0.0, "{reason}");
    after
}

async fn wait_until_settled(program: &Program) -> String {
    program.wait_until("every poll succeeded", super::is_settled).await
}

#[tokio::test]
async fn gzip_bomb_stays_within_the_memory_of_two_bodies() {
    let partner = start(frozen_partner(1)).await;
    let program = Program::start_collectors(&partner.base, &[], &[("ELEMENTS_API__TIMEOUT", "10m")]).await;
    let before = wait_until_settled(&program).await;
    let bomb = FaultKind::GzipBomb { bytes: 10 << 30 };
    partner.handle.set_faults(vec![Fault::new(CUSTOMERS_V3, bomb).times(1)]);
    wait_for_rejection(&program, &before, "too_large").await;
    assert_peak(&program, IDLE_MIB + BODY_MIB, "gzip bomb");
}

/// Starts an API that returns tokens. All other requests get an endless body of whitespace, sent in chunks of `bytes`
/// bytes with a pause before each.
async fn endless(bytes: usize, pause: Duration) -> String {
    let listener = tokio::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .await
        .unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |request: axum::http::Request<hyper::body::Incoming>| async move {
                let response = if request.uri().path() == "/connect/token" {
                    token().map(Body::from)
                } else {
                    let pieces = stream::unfold((), move |()| async move {
                        tokio::time::sleep(pause).await;
                        Some((Ok::<_, Infallible>(Bytes::from(vec![b' '; bytes])), ()))
                    });
                    Response::new(Body::from_stream(pieces))
                };
                Ok::<_, Infallible>(response)
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    base
}

#[tokio::test]
async fn endless_body_is_stopped_by_timeout_or_size() {
    let cases = [
        ("drip", 16, Duration::from_millis(2), "timeout", "1s", IDLE_MIB),
        (
            "flood",
            1 << 20,
            Duration::ZERO,
            "too_large",
            "10m",
            IDLE_MIB + BODY_MIB,
        ),
    ];
    for (case, bytes, pause, reason, timeout, limit) in cases {
        let base = endless(bytes, pause).await;
        let program = Program::start_collectors(&base, &[], &[("ELEMENTS_API__TIMEOUT", timeout)]).await;
        let counter = errors("customers", reason);
        program
            .wait_until(&counter, |text| value(text, &counter) >= Some(1.0))
            .await;
        assert_peak(&program, limit, case);
    }
}

#[tokio::test]
async fn list_of_a_million_pages_stays_within_its_memory_limit() {
    let next = |page: usize| format!("/partner/customers?page={}", page + 1);
    let cases: [(&str, &str, &str, List); 4] = [
        (
            "a row per page",
            "v1",
            "incomplete",
            Box::new(move |page| {
                let row = json!({"id": format!("c-{page}"), "organization": "One"});
                response(200, json!({"value": [row], "@odata.nextLink": next(page)}).to_string())
            }),
        ),
        (
            "rows of one digit",
            "v1",
            "too_large",
            Box::new(move |page| {
                let mut rows = vec![0; 50_000];
                // A page without new rows would be rejected earlier.
                rows[0] = page + 1;
                response(200, json!({"value": rows, "@odata.nextLink": next(page)}).to_string())
            }),
        ),
        (
            "links of a megabyte",
            "v1",
            "incomplete",
            Box::new(move |page| {
                let link = format!("{}&{}", next(page), "x".repeat(1 << 20));
                response(200, json!({"value": [], "@odata.nextLink": link}).to_string())
            }),
        ),
        (
            "rows of a few digits",
            "v3",
            "too_large",
            Box::new(|page| {
                let rows: Vec<usize> = (0..50_000).map(|row| page * 50_000 + row).collect();
                response(
                    200,
                    json!({"data": rows, "metadata": {"totalCount": 1_000_000_000}}).to_string(),
                )
            }),
        ),
    ];
    for (case, generation, reason, list) in cases {
        let endless = Arc::new(AtomicBool::new(false));
        let server = switchable(list, &endless).await;
        let program = Program::start_collectors(&server.base, &[], &[("ELEMENTS_API__VERSION", generation)]).await;
        let before = wait_until_settled(&program).await;
        endless.store(true, Ordering::SeqCst);
        wait_for_rejection(&program, &before, reason).await;
        assert_peak(&program, IDLE_MIB, case);
    }
}

#[tokio::test]
async fn body_of_millions_of_rows_stays_within_its_memory_limit() {
    let items = |count: usize, item: &str| format!("{}{item}", format!("{item},").repeat(count - 1));
    let fields = format!(r#"{{"value":[{{"id":"c-1",{}}}]}}"#, items(2_000_000, r#""":0"#));
    let tenants = format!(r#"{{"value":[{{"id":"c-1","tenants":[{}]}}]}}"#, items(4_000_000, "0"));
    let rows = format!(r#"{{"value":[{}]}}"#, items(4_000_000, "0"));
    for (case, body, reason) in [
        ("rows", rows, "too_large"),
        ("fields", fields, "unreadable_rows"),
        ("tenants", tenants, ""),
    ] {
        let large = Arc::new(AtomicBool::new(false));
        let server = switchable(Box::new(move |_| response(200, body.clone())), &large).await;
        let program = Program::start_collectors(&server.base, &[], &[V1]).await;
        let before = wait_until_settled(&program).await;
        large.store(true, Ordering::SeqCst);
        if reason.is_empty() {
            // The customer is exported, although its tenants cannot be parsed.
            let errors = "elements_exporter_decode_errors_total{endpoint=\"customers\",field=\"tenants\"}";
            let text = program.wait_until(case, |text| value(text, errors) >= Some(1.0)).await;
            assert!(!text.contains("elements_customer_tenants"), "{case}");
        } else {
            wait_for_rejection(&program, &before, reason).await;
        }
        assert_peak(&program, IDLE_MIB, case);
    }
}

#[tokio::test]
async fn list_of_fifty_thousand_customers_is_monitored() {
    const CUSTOMERS: usize = 50_000;
    /// Three kilobytes per customer, for its row, its data and its poll timers.
    const LIMIT_MIB: u64 = IDLE_MIB + 150;
    let has_all_customers = Arc::new(AtomicBool::new(false));
    let rows: Vec<_> = (0..CUSTOMERS)
        .map(|n| {
            let (id, organization) = (format!("{n:08}-2cc6-43aa-b04b-794c8baf5ea3"), format!("Customer {n}"));
            json!({"id": id, "organization": organization, "ownerEmail": "owner@customer.example",
                "jobStatus": "Working", "countryOrRegion": "Switzerland"})
        })
        .collect();
    let list = json!({ "value": rows }).to_string();
    let on = Arc::clone(&has_all_customers);
    let server = ScriptedServer::start(move |request| match request.line.as_str() {
        line if line.starts_with("POST") => token(),
        "GET /partner/customers" if on.load(Ordering::SeqCst) => response(200, list.clone()),
        "GET /partner/customers" => response(200, json!({"value": [{"id": "c-0"}]}).to_string()),
        _ => response(200, r#"{"value":[]}"#),
    })
    .await;
    let extra_env = [
        V1,
        ("ELEMENTS_API__REQUESTS_PER_SECOND", "50"),
        ("ELEMENTS_API__TIMEOUT", "10m"),
    ];
    let program = Program::start_collectors(&server.base, &["jobs"], &extra_env).await;
    wait_until_settled(&program).await;
    has_all_customers.store(true, Ordering::SeqCst);
    // The first customer is missing, so a second list must confirm the removal. The test does not
    // wait until all customers have been polled, because that would take a quarter of an hour. Complete scrapes would
    // slow the polls down further, so only metrics about the customer list are scraped.
    let reported = "elements_customer_info{";
    let text = program
        .wait_until_at("/metrics?collector=customers", "all customers are exported", |text| {
            text.matches(reported).count() >= CUSTOMERS
        })
        .await;
    assert_eq!(text.matches(reported).count(), CUSTOMERS);
    let pending = state("jobs", "pending");
    let waiting = number(&program.metrics().await, &pending);
    assert!(waiting > 0.0);
    program
        .wait_until("customers are polled one by one", |text| {
            value(text, &pending) < Some(waiting)
        })
        .await;
    assert_eq!(program.status("/-/healthy").await, 200);
    assert_peak(&program, LIMIT_MIB, "fifty thousand customers");
}

#[tokio::test]
async fn fifty_thousand_runs_of_one_module_are_counted_once() {
    const RUNS: usize = 50_000;
    let rows: Vec<_> = (0..RUNS)
        .map(|n| {
            let at = |minute: usize| {
                format!(
                    "2025-{:02}-{:02}T{:02}:{:02}:00Z",
                    n / 5000 + 1,
                    n / 250 % 20 + 1,
                    n / 60 % 24,
                    minute
                )
            };
            json!({"jobId": format!("FS{n}"), "jobType": 7, "jobModule": 303, "status": 2,
                "startTime": at(n % 60), "endTime": at(n % 60)})
        })
        .collect();
    let jobs = json!({ "value": rows }).to_string();
    let server = ScriptedServer::start(move |request| match request.line.as_str() {
        line if line.starts_with("POST") => token(),
        "GET /partner/customers" => response(
            200,
            json!({"value": [{"id": "c-0", "organization": "One"}]}).to_string(),
        ),
        _ => response(200, jobs.clone()),
    })
    .await;
    let program = Program::start_collectors(&server.base, &["jobs"], &[V1, ("ELEMENTS_API__TIMEOUT", "10m")]).await;
    let first = wait_until_settled(&program).await;
    let last = last_success("jobs", "c-0");
    let later = program
        .wait_until("the list is polled again", |text| {
            value(text, &last) > value(&first, &last)
        })
        .await;
    let labels = r#"{customer_id="c-0",service="Microsoft 365",module="Exchange Online",status="finished"}"#;
    assert_eq!(number(&later, &format!("elements_job_runs_total{labels}")), RUNS as f64);
    assert_eq!(number(&later, &format!("elements_jobs{labels}")), RUNS as f64);
    assert_eq!(program.status("/-/healthy").await, 200);
    assert_peak(&program, IDLE_MIB + BODY_MIB, "fifty thousand runs");
}

#[tokio::test]
async fn name_of_a_megabyte_is_truncated_everywhere() {
    let partner = start(frozen_partner(3)).await;
    let name = "m".repeat(1 << 20);
    partner.handle.with_world(|world| {
        let customer = &mut world.customers[0];
        customer.organization.clone_from(&name);
        customer.scan_profiles[0].tenant_domain.clone_from(&name);
        customer.products[0].subscription_name.clone_from(&name);
        let run = customer.modules.iter_mut().find_map(|module| module.runs.last_mut());
        run.unwrap().raw_fields.insert("jobModule".to_owned(), json!(name));
    });
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("state");
    let mut extra_env = vec![("ELEMENTS_STATE__FILE".to_owned(), path.to_str().unwrap().to_owned())];
    // Each collector polls only once, because further polls would prove nothing more.
    for collector in super::COLLECTORS.iter().chain(&["customers"]) {
        let key = format!("ELEMENTS_COLLECTORS__{}__INTERVAL", collector.to_uppercase());
        extra_env.push((key, "10m".to_owned()));
    }
    let extra_env: Vec<_> = extra_env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let program = Program::start_collectors(&partner.base, &super::COLLECTORS, &extra_env).await;
    let text = wait_until_settled(&program).await;
    assert!(text.lines().all(|line| line.len() < 16 * 1024));
    assert_peak(&program, IDLE_MIB, "names of a megabyte");
    let output = program.terminate().await;
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let saved = std::fs::read_to_string(&path).unwrap();
    assert!(saved.contains(&"m".repeat(100)), "the name must be saved");
    assert!(!saved.contains(&"m".repeat(1000)), "the saved name must be truncated");
    assert!(
        !output.stderr.contains(&"m".repeat(1000)),
        "the logged name must be truncated"
    );
}
