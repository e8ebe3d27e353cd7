//! Failures and their visible effects, by the clauses of `docs/faults.md`, which maps each clause to its test.

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
use crate::harness::partner::{Partner, start, still};
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

/// Returns the sum of a counter over its series that start like this.
fn sum(text: &str, prefix: &str) -> f64 {
    text.lines()
        .filter(|line| line.starts_with(prefix))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

/// Returns the ids of the simulated customers in order.
fn ids(partner: &Partner) -> Vec<String> {
    partner
        .handle
        .with_world(|world| world.customers.iter().map(|customer| customer.id.clone()).collect())
}

/// A poll, and the reason for which it is expected to fail.
#[derive(Clone, Copy)]
struct Failing<'a> {
    collector: &'a str,
    id: &'a str,
    endpoint: &'a str,
    reason: &'a str,
}

impl<'a> Failing<'a> {
    /// The customer list fails for this reason.
    fn list(reason: &'a str) -> Self {
        Self {
            collector: "customers",
            id: "",
            endpoint: "customers",
            reason,
        }
    }
}

/// Checks that once `spoil` is done, polls fail for the reason, and the last known values and their freshness stay.
async fn holds(exporter: &Exporter, failing: Failing<'_>, case: &str, spoil: impl AsyncFnOnce()) -> String {
    let before = exporter.settled().await;
    spoil().await;
    let (success, last, errors) = (
        success(failing.collector, failing.id),
        last_success(failing.collector, failing.id),
        errors(failing.endpoint, failing.reason),
    );
    let counted = |text: &str| value(text, &errors).unwrap_or_default();
    let failed = exporter
        .until(&format!("{case}: {errors}"), |text| {
            value(text, &success) == Some(0.0) && counted(text) > counted(&before)
        })
        .await;
    let again = exporter
        .until(&format!("{case}: {errors} again"), |text| {
            counted(text) > counted(&failed)
        })
        .await;
    assert_eq!(value(&again, &success), Some(0.0), "{case}");
    assert!(number(&failed, &last) > 0.0, "{case}");
    assert_eq!(
        value(&again, &last),
        value(&failed, &last),
        "{case}: freshness advanced"
    );
    assert_eq!(
        about_customers(&again),
        about_customers(&before),
        "{case}: values changed"
    );
    again
}

/// A fault of the lists of jobs, with the reason that counts it.
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

/// Checks each case with its own simulated partner and exporter, concurrently.
async fn hold_each(cases: impl IntoIterator<Item = Case>) {
    let each = cases.into_iter().map(|case| async move {
        let partner = start(still(2)).await;
        let more = [
            ("ELEMENTS_API__VERSION", case.generation),
            ("ELEMENTS_API__TIMEOUT", "1s"),
        ];
        let exporter = Exporter::start(&partner.base, &["jobs"], &more).await;
        let ids = ids(&partner);
        let failing = Failing {
            collector: "jobs",
            id: &ids[0],
            endpoint: "jobs",
            reason: case.reason,
        };
        let path = if case.generation == "v1" { JOBS_V1 } else { JOBS_V3 };
        holds(&exporter, failing, case.name, async || {
            partner.handle.set_faults(vec![Fault::new(path, case.kind)]);
        })
        .await;
        partner.handle.clear_faults();
        exporter.settled().await;
    });
    join_all(each).await;
}

/// Returns the base URL of an API without a listener.
fn nowhere() -> String {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// Sets a variable.
fn set(variables: &mut Vec<(OsString, OsString)>, name: &str, value: &str) {
    variables.retain(|(known, _)| known != name);
    variables.push((name.into(), value.into()));
}
