//! Faults and their visible effects. `docs/faults.md` lists the expected behaviour and the corresponding tests.

mod body;
mod documented;
mod hostile;
mod identity;
mod meaning;
#[cfg(target_os = "linux")]
mod memory;
mod paging;
mod process;
mod reloads;
mod scrape;
mod signals;
#[cfg(target_os = "linux")]
mod soak;
mod state_file;
mod status;
mod streams;
mod time;
mod tls;
mod transport;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use elements_exporter::simulator::{Fault, FaultKind};
use futures_util::future::join_all;

use crate::harness::exporter::{Exporter, is_settled};
use crate::harness::partner::{Partner, frozen_partner, start};
use crate::harness::{COLLECTORS, about_customers, client, every_second, value};

const TOKEN: &str = "/connect/token";
const CUSTOMERS_V1: &str = "/partner/customers";
const CUSTOMERS_V3: &str = "/partner/external/v3/general/customers/batch";
const JOBS_V1: &str = "/partner/customers/*/jobs";
const JOBS_V3: &str = "/partner/external/v3/general/customers/*/avpt-products/jobs/batch";

fn success(collector: &str, id: &str) -> String {
    format!("elements_exporter_collector_success{{collector=\"{collector}\",customer_id=\"{id}\"}}")
}

fn last_success(collector: &str, id: &str) -> String {
    format!(
        "elements_exporter_collector_last_success_timestamp_seconds{{collector=\"{collector}\",customer_id=\"{id}\"}}"
    )
}

fn errors(endpoint: &str, reason: &str) -> String {
    format!("elements_exporter_api_errors_total{{endpoint=\"{endpoint}\",reason=\"{reason}\"}}")
}

fn state(collector: &str, state: &str) -> String {
    format!("elements_exporter_customers{{collector=\"{collector}\",state=\"{state}\"}}")
}

/// Returns the value of a series that must exist.
fn number(text: &str, series: &str) -> f64 {
    value(text, series).unwrap_or_else(|| panic!("no {series} in\n{text}"))
}

/// Returns the sum of the series that start with a prefix.
fn sum(text: &str, prefix: &str) -> f64 {
    text.lines()
        .filter(|line| line.starts_with(prefix))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

/// Returns the ids of the simulated customers, in order.
fn ids(partner: &Partner) -> Vec<String> {
    partner
        .handle
        .with_world(|world| world.customers.iter().map(|customer| customer.id.clone()).collect())
}

/// A poll that is expected to fail, and the reason.
#[derive(Clone, Copy)]
struct ExpectedFailure<'a> {
    collector: &'a str,
    id: &'a str,
    endpoint: &'a str,
    reason: &'a str,
}

impl<'a> ExpectedFailure<'a> {
    fn list(reason: &'a str) -> Self {
        Self {
            collector: "customers",
            id: "",
            endpoint: "customers",
            reason,
        }
    }
}

/// Checks that polls fail for the expected reason after `inject_fault`, and that last known values are served with
/// unchanged freshness.
async fn assert_poll_fails(
    exporter: &Exporter,
    expected: ExpectedFailure<'_>,
    case: &str,
    inject_fault: impl AsyncFnOnce(),
) -> String {
    let before = exporter.wait_until_settled().await;
    inject_fault().await;
    let (success, last, errors) = (
        success(expected.collector, expected.id),
        last_success(expected.collector, expected.id),
        errors(expected.endpoint, expected.reason),
    );
    let errors_in = |text: &str| value(text, &errors).unwrap_or_default();
    let failed = exporter
        .wait_until(&format!("{case}: {errors}"), |text| {
            value(text, &success) == Some(0.0) && errors_in(text) > errors_in(&before)
        })
        .await;
    let later = exporter
        .wait_until(&format!("{case}: {errors} again"), |text| {
            errors_in(text) > errors_in(&failed)
        })
        .await;
    assert_eq!(value(&later, &success), Some(0.0), "{case}");
    assert!(number(&failed, &last) > 0.0, "{case}");
    assert_eq!(
        value(&later, &last),
        value(&failed, &last),
        "{case}: freshness advanced"
    );
    assert_eq!(
        about_customers(&later),
        about_customers(&before),
        "{case}: values changed"
    );
    later
}

/// A fault in job lists, and the reason under which the failure is counted.
struct Case {
    name: &'static str,
    generation: &'static str,
    kind: FaultKind,
    reason: &'static str,
}

fn case(name: &'static str, kind: FaultKind, reason: &'static str) -> Case {
    Case {
        name,
        generation: "v3",
        kind,
        reason,
    }
}

/// Checks all cases concurrently, each with its own simulated partner and exporter.
async fn assert_each_fails(cases: impl IntoIterator<Item = Case>) {
    let each = cases.into_iter().map(|case| async move {
        let partner = start(frozen_partner(2)).await;
        let extra_env = [
            ("ELEMENTS_API__VERSION", case.generation),
            ("ELEMENTS_API__TIMEOUT", "1s"),
        ];
        let exporter = Exporter::start(&partner.base, &["jobs"], &extra_env).await;
        let ids = ids(&partner);
        let expected = ExpectedFailure {
            collector: "jobs",
            id: &ids[0],
            endpoint: "jobs",
            reason: case.reason,
        };
        let path = if case.generation == "v1" { JOBS_V1 } else { JOBS_V3 };
        assert_poll_fails(&exporter, expected, case.name, async || {
            partner.handle.set_faults(vec![Fault::new(path, case.kind)]);
        })
        .await;
        partner.handle.clear_faults();
        exporter.wait_until_settled().await;
    });
    join_all(each).await;
}

/// Returns a base URL at which no server is listening.
fn unreachable_api() -> String {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn set(variables: &mut Vec<(OsString, OsString)>, name: &str, value: &str) {
    variables.retain(|(other, _)| other != name);
    variables.push((name.into(), value.into()));
}
