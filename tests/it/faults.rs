//! What goes wrong, clause by clause, and what must then be seen. `docs/faults.md` maps each clause to its test.

mod body;
mod documented;
mod hostile;
mod identity;
mod meaning;
#[cfg(target_os = "linux")]
mod memory;
mod paging;
mod process;
mod program;
mod scrape;
mod scripted;
#[cfg(target_os = "linux")]
mod soak;
mod status;
mod time;
mod tls;
mod transport;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use elements_exporter::app::{self, App, LoadConfig, load_config};
use elements_exporter::args;
use elements_exporter::config::Config;
use elements_exporter::simulator::{Fault, FaultKind};
use futures_util::future::join_all;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::{about_customers, environment, eventually, value};
use crate::world::{Partner, start, still};

const TOKEN: &str = "/connect/token";
const CUSTOMERS_V1: &str = "/partner/customers";
const CUSTOMERS_V3: &str = "/partner/external/v3/general/customers/batch";
const JOBS_V1: &str = "/partner/customers/*/jobs";
const JOBS_V3: &str = "/partner/external/v3/general/customers/*/avpt-products/jobs/batch";

const COLLECTORS: [&str; 5] = ["jobs", "protected", "licenses", "scan_profiles", "scan_changes"];

/// An exporter in this process that polls every second and answers on a socket of its own.
struct Exporter {
    base: String,
    client: reqwest::Client,
    environment: Arc<Mutex<Vec<(OsString, OsString)>>>,
    task: tokio::task::JoinHandle<()>,
    stop: DropGuard,
}

impl Exporter {
    /// One that watches the customers and through these collectors, with `more` over its settings.
    async fn start(api: &str, collectors: &[&str], more: &[(&str, &str)]) -> Self {
        Self::load(every_second(api, collectors, more)).await
    }

    async fn load(variables: Vec<(OsString, OsString)>) -> Self {
        let environment = Arc::new(Mutex::new(variables));
        let variables = Arc::clone(&environment);
        let load: LoadConfig = Arc::new(move || load_config(None, variables.lock().unwrap().clone()));
        let flags = ["", "--web.listen-address=127.0.0.1:0", "--web.enable-lifecycle"];
        let web = args::parse(flags.map(OsString::from)).unwrap().web;
        let app = App::bind(load, web, "under test".to_owned()).await.unwrap();
        let base = format!("http://{}", app.addresses().first().unwrap());
        let stop = CancellationToken::new();
        Self {
            base,
            client: client(),
            environment,
            task: tokio::spawn(app.run(stop.clone())),
            stop: stop.drop_guard(),
        }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let response = self.client.get(format!("{}{path}", self.base)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// A scrape, which always succeeds.
    async fn metrics(&self) -> String {
        let (status, text) = self.get("/metrics").await;
        assert_eq!(status, 200, "{text}");
        text
    }

    /// Scrapes until an answer passes, and gives it.
    async fn until(&self, what: &str, passes: impl Fn(&str) -> bool) -> String {
        let passes = &passes;
        eventually(what, || async {
            let text = self.metrics().await;
            passes(&text).then_some(text)
        })
        .await
    }

    /// The scrape after which every poll has succeeded.
    async fn settled(&self) -> String {
        self.until("every poll succeeded", is_settled).await
    }

    /// Changes the configuration and has it reloaded.
    async fn reload(&self, change: impl FnOnce(&mut Vec<(OsString, OsString)>)) -> (u16, String) {
        change(&mut self.environment.lock().unwrap());
        let url = format!("{}/-/reload", self.base);
        let response = self.client.post(url).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Stops it and waits until it has.
    async fn stop(self) {
        drop(self.stop);
        self.task.await.unwrap();
    }
}

/// A client that shows what comes as it comes: through no proxy, past no redirect, not decompressed.
pub fn client() -> reqwest::Client {
    // Whoever comes second finds the same provider installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // A connection that was idle may be closed by the other side in the very moment in which it is used again. Scrapers ask
    // again then, and this one does not, so it opens one for each request.
    let builder = reqwest::Client::builder()
        .no_proxy()
        .no_gzip()
        .pool_max_idle_per_host(0);
    builder.redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

/// The environment of an exporter that polls every second, through these collectors and the customers'.
fn every_second(api: &str, collectors: &[&str], more: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    let mut variables = BTreeMap::from([("ELEMENTS_API__VERSION".to_owned(), "v3".to_owned())]);
    for collector in COLLECTORS.into_iter().chain(["customers"]) {
        let enabled = collector == "customers" || collectors.contains(&collector);
        let key = |key: &str| format!("ELEMENTS_COLLECTORS__{}__{key}", collector.to_uppercase());
        variables.insert(key("ENABLED"), enabled.to_string());
        variables.insert(key("INTERVAL"), "1s".to_owned());
        variables.insert(key("STALE_AFTER"), "1h".to_owned());
    }
    variables.extend(
        more.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    let more: Vec<_> = variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    environment(api, &more)
}

fn is_settled(text: &str) -> bool {
    let mut polls = text
        .lines()
        .filter(|line| line.starts_with("elements_exporter_collector_success{"))
        .peekable();
    let listed = text.contains("elements_exporter_collector_success{collector=\"customers\"");
    listed
        && polls.peek().is_some()
        && polls.all(|line| line.ends_with(" 1"))
        && text.contains("elements_customer_info{")
}

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

/// The value of a series that has to be there.
fn number(text: &str, series: &str) -> f64 {
    value(text, series).unwrap_or_else(|| panic!("no {series} in\n{text}"))
}

/// The sum of a counter over its series that begin like this.
fn sum(text: &str, prefix: &str) -> f64 {
    text.lines()
        .filter(|line| line.starts_with(prefix))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

/// The ids of the simulated customers in their order.
fn ids(partner: &Partner) -> Vec<String> {
    partner
        .handle
        .with_world(|world| world.customers.iter().map(|customer| customer.id.clone()).collect())
}

/// A poll, and the reason for which it is to fail.
#[derive(Clone, Copy)]
struct Failing<'a> {
    collector: &'a str,
    id: &'a str,
    endpoint: &'a str,
    reason: &'a str,
}

/// *Hold*: once `spoil` is done, polls fail for the reason, and what was known stands with its freshness.
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

/// A fault of the lists of jobs, and the reason that it is counted under.
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

/// Holds each case against a simulated partner and an exporter of its own, all at once.
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

/// The base of an API at which nobody listens.
fn nowhere() -> String {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// One full poll, as `support::once` but without the independent parsers, which take longer than the poll: what comes
/// out is held by fewer tests than what goes in.
async fn polled_once(config: &Config) -> (String, bool) {
    let (exposition, good) = app::once(config, CancellationToken::new()).await.unwrap();
    (String::from_utf8(exposition).unwrap(), good)
}

/// Replaces or adds a variable.
fn set(variables: &mut Vec<(OsString, OsString)>, name: &str, value: &str) {
    variables.retain(|(known, _)| known != name);
    variables.push((name.into(), value.into()));
}
