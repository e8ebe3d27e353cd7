//! `check`: what a support engineer would ask first. The way to the hosts, their clocks, each permission, every enabled
//! endpoint once for one customer, what could not be understood, and whether the intervals can be kept.

mod report;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tracing::{info, warn};
use url::Url;

use super::budget::{Budget, Cost};
use super::{Error, authorities, orders};
use crate::api::{self, Api, Endpoint, Failure, Observer, auth, probe};
use crate::collector::{self, Brought, Context, Customer, Entry, Kept, Reach, Target};
use crate::config::{Config, ProxyUrl};
use crate::domain::{self, CustomerId, Timestamp};
use crate::error_chain::error_chain;
use crate::schedule::Orders;
pub use report::Report;
use report::{Finding, Odd, Outcome, Sample};

/// Where a permission is granted.
const GRANT: &str = "in Elements open API app registration (or AvePoint Online Services > App registration), edit the \
                     app, and under Permissions of AvePoint Elements add it and save; it counts within minutes";

/// How long one thing may take besides `api.timeout`. A host that asks for pauses can make a poll wait for many minutes,
/// and whoever checks sits before the screen.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often somebody who waits is told what for.
const SAY_AFTER: Duration = Duration::from_secs(5);

/// Clocks that differ by more than this make restore points look older or younger than they are, and can make
/// certificates and tokens be refused.
const CLOCK_TOLERANCE_SECONDS: u64 = 60;

/// A certificate of a host that ends within this is worth knowing.
const CERTIFICATE_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);

/// What was noticed on the way.
#[derive(Debug, Default)]
struct Notes {
    not_understood: BTreeMap<(&'static str, &'static str), String>,
    unknown: BTreeMap<(&'static str, &'static str), String>,
    requests: u64,
    throttled: u64,
    rows: usize,
}

#[derive(Debug, Default)]
struct Notebook(Mutex<Notes>);

impl Notebook {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests, rows and refusals for haste so far.
    fn counts(&self) -> (u64, usize, u64) {
        let notes = self.notes();
        (notes.requests, notes.rows, notes.throttled)
    }
}

impl Observer for Notebook {
    fn request(&self, _endpoint: Endpoint, _status: Option<u16>, _took: Duration) {
        self.notes().requests += 1;
    }

    fn retry(&self, _endpoint: Endpoint) {}

    fn throttled(&self, endpoint: Endpoint) {
        self.notes().throttled += 1;
        warn!(
            endpoint = endpoint.as_str(),
            "the API asks for a pause (429); waiting for as long as it says"
        );
    }

    fn rows(&self, _endpoint: Endpoint, rows: usize) {
        self.notes().rows += rows;
    }

    fn decode_error(&self, endpoint: Endpoint, field: &'static str, shape: &str) {
        self.notes()
            .not_understood
            .insert((endpoint.as_str(), field), shape.to_owned());
    }

    fn unknown_value(&self, endpoint: Endpoint, field: &'static str, value: &str) {
        let value = domain::shown(value);
        self.notes().unknown.insert((endpoint.as_str(), field), value);
    }

    fn duplicate_rows(&self, _endpoint: Endpoint, _rows: u64) {}

    fn token_failure(&self, _error: &auth::Error) {}

    fn token(&self, _expires_in: Duration) {}
}

/// One run of the check.
struct Check<'a> {
    config: &'a Config,
    notebook: Arc<Notebook>,
    orders: Orders,
    report: Report,
    /// The customer that stands for all.
    sample: Option<(CustomerId, String)>,
    costs: Vec<Cost>,
}

/// Tries everything once and reports.
///
/// # Errors
/// Where the configuration does not allow it.
pub async fn check(config: &Config) -> Result<Report, Error> {
    let notebook = Arc::new(Notebook::default());
    let orders = orders(config, Arc::clone(&notebook) as Arc<dyn Observer>)?;
    let mut check = Check {
        config,
        notebook,
        orders,
        report: Report {
            api: config.api.base_url.to_string(),
            token_url: config.api.token_url.to_string(),
            proxy: config.api.proxy_url.as_ref().map(|proxy| place(proxy.expose())),
            requests_per_second: config.api.requests_per_second,
            ..Report::default()
        },
        sample: None,
        costs: Vec::new(),
    };
    check.look_at_hosts().await?;
    if let Some(api) = check.get_token().await {
        check.ask_for_permissions(&api).await;
        check.try_collectors(&api).await;
    }
    Ok(check.reported())
}

impl Check<'_> {
    /// Whether the hosts can be reached, and what time it is there.
    async fn look_at_hosts(&mut self) -> Result<(), Error> {
        let api = &self.config.api;
        let proxy = api.proxy_url.as_ref().map(ProxyUrl::expose);
        let authorities = authorities(api.ca_file.as_deref())?;
        let resolved = match proxy {
            Some(proxy) => vec![proxy],
            None => hosts(&[&api.token_url, &api.base_url]),
        };
        for url in resolved {
            let finding = match probe::resolve(url).await {
                Ok((1, address)) => (Outcome::Ok, "ok", address),
                Ok((addresses, first)) => (Outcome::Ok, "ok", format!("{addresses} addresses, the first {first}")),
                Err(problem) => (
                    Outcome::FellShort,
                    "failed",
                    format!("{problem}; look at the resolver of this machine"),
                ),
            };
            self.found(format!("DNS {}", host(url)), finding);
        }
        for url in hosts(&[&api.token_url, &api.base_url]) {
            let answer = match probe::probe(url, proxy, &authorities, api.timeout).await {
                Ok(answer) => answer,
                Err(error) => {
                    let told = format!("{}; {}", error_chain(&error), remedy(&error));
                    self.found(
                        format!("{} {}", way(url), host(url)),
                        (Outcome::FellShort, "failed", told),
                    );
                    continue;
                }
            };
            let took = Duration::from_millis(u64::try_from(answer.took.as_millis()).unwrap_or(u64::MAX));
            let took = humantime::format_duration(took);
            let (outcome, told) = certificate(answer.certificate_end);
            let result = if outcome == Outcome::Ok { "ok" } else { "ends soon" };
            let told = format!("answered {} in {took}{told}", answer.status);
            self.found(format!("{} {}", way(url), host(url)), (outcome, result, told));
            self.found(format!("clock {}", host(url)), clock(answer.skew));
        }
        Ok(())
    }

    fn found(&mut self, name: String, (outcome, result, detail): (Outcome, &'static str, String)) {
        self.report.connection.push(Finding::new(name, outcome, result, detail));
    }

    /// The first token, with which the generation is known.
    async fn get_token(&mut self) -> Option<Api> {
        let gateway = Arc::clone(&self.orders.gateway);
        let failed = match self.patiently("token", gateway.api()).await {
            Ok(Ok(api)) => {
                self.report.generation = Some(api.generation().to_string());
                return Some(api);
            }
            Ok(Err(failure)) => explain(&failure),
            Err(impatience) => impatience,
        };
        let finding = Finding::new("token", Outcome::FellShort, "FAILED", failed);
        self.report.permissions.push(finding);
        None
    }

    /// Each permission by itself. What was told with the first token costs no further request.
    async fn ask_for_permissions(&mut self, api: &Api) {
        let mut asked: Vec<&'static str> = Vec::new();
        for (entry, plan) in collector::ALL.iter().zip(&self.orders.plans) {
            let scope = entry.scope(api.generation());
            if plan.enabled && !asked.contains(&scope) {
                asked.push(scope);
            }
        }
        for scope in asked {
            let token = self.patiently(scope, api.transport().tokens().token(scope)).await;
            let (outcome, result, detail) = match token {
                Ok(Ok(_)) => (Outcome::Ok, "granted", String::new()),
                Ok(Err(api::Error::NotPermitted(_))) => {
                    (Outcome::FellShort, "not granted", "see the collector below".to_owned())
                }
                Ok(Err(error)) => (Outcome::FellShort, "failed", error_chain(&error)),
                Err(impatience) => (Outcome::FellShort, "failed", impatience),
            };
            let finding = Finding::new(scope, outcome, result, detail);
            self.report.permissions.push(finding);
        }
    }

    /// Every enabled collector once, for one customer where it is about customers.
    async fn try_collectors(&mut self, api: &Api) {
        for (place, entry) in collector::ALL.iter().enumerate() {
            let plan = self.orders.plans.get(place).copied();
            let finding = match plan.filter(|plan| plan.enabled) {
                None => Finding::new(
                    entry.name,
                    Outcome::Off,
                    "off",
                    "switched off by the configuration".to_owned(),
                ),
                Some(plan) => {
                    let (requests, rows, _) = self.notebook.counts();
                    let mut finding = self.examine(entry, api).await;
                    let (requests_after, rows_after, _) = self.notebook.counts();
                    let requests = requests_after - requests;
                    finding.requests = Some(requests);
                    finding.rows = Some(rows_after - rows);
                    let each = entry.reach == Reach::Customer || self.asks_by_id(api);
                    self.costs.push(Cost {
                        // What was not answered is taken to cost what the least answer costs.
                        requests: u32::try_from(requests.max(1)).map_or(f64::MAX, f64::from),
                        targets: if each { self.report.customers } else { 1 },
                        interval: plan.interval,
                    });
                    finding
                }
            };
            self.report.collectors.push(finding);
        }
    }

    async fn examine(&mut self, entry: &Entry, api: &Api) -> Finding {
        let fell_short = |result, detail| Finding::new(entry.name, Outcome::FellShort, result, detail);
        let one = self
            .sample
            .as_ref()
            .map(|(id, _)| id.clone())
            .or_else(|| self.orders.customer_ids.first().cloned());
        let target = match (entry.reach, one) {
            (Reach::Partner, Some(id)) if self.asks_by_id(api) => Target::Customer(id),
            (Reach::Partner, _) => Target::Partner,
            (Reach::Customer, Some(id)) => Target::Customer(id),
            (Reach::Customer, None) => {
                return fell_short(
                    "not tried",
                    "there is no customer to try it with; the registration sees none, or the configuration leaves all \
                     out"
                    .to_owned(),
                );
            }
        };
        let context = Context {
            now: Timestamp::from(SystemTime::now()),
            settings: Arc::clone(&self.orders.settings),
            organization: self.sample.as_ref().map_or("", |(_, organization)| organization).into(),
        };
        let poll = entry.poll(api.clone(), target, Arc::new(collector::NoMemory), context);
        let failure = match self.patiently(entry.name, poll).await {
            Err(impatience) => return fell_short("throttled", impatience),
            Ok(Err(failure)) => failure,
            Ok(Ok(brought)) => {
                if entry.name == collector::CUSTOMERS {
                    self.take_sample(&brought, api);
                }
                let samples: usize = brought.records.values().map(Kept::samples).sum();
                let detail = format!("{} customers, {samples} samples", brought.records.len());
                return match brought.incomplete {
                    None => Finding::new(entry.name, Outcome::Ok, "ok", detail),
                    Some(failure) => fell_short("incomplete", format!("{detail}; {}", explain(&failure))),
                };
            }
        };
        let scope = entry.scope(api.generation());
        match failure.error {
            api::Error::NotPermitted(_) => fell_short("not permitted", explain(&failure)),
            ref error if error.is_forbidden() => fell_short(
                "forbidden",
                format!(
                    "{}; the permission {scope} may be missing or not cover this customer: {GRANT}",
                    explain(&failure)
                ),
            ),
            _ => fell_short("failed", explain(&failure)),
        }
    }

    /// Whether each customer is asked about by itself, because the operator named them all to the first generation.
    fn asks_by_id(&self, api: &Api) -> bool {
        !self.orders.customer_ids.is_empty() && api.generation() == api::Generation::V1
    }

    /// Chooses the customer to try the rest with: the first that the operator wants.
    fn take_sample(&mut self, brought: &Brought, api: &Api) {
        let wanted = brought.records.iter().filter_map(|(id, kept)| {
            let customer = kept.record.as_any().downcast_ref::<Customer>()?;
            let admitted = (self.orders.admits)(id, &customer.organization);
            admitted.then(|| (id.clone(), customer.organization.clone()))
        });
        let mut wanted: Vec<_> = wanted.collect();
        self.report.customers = match self.asks_by_id(api) {
            true => self.orders.customer_ids.len(),
            false => wanted.len(),
        };
        self.sample = (!wanted.is_empty()).then(|| wanted.swap_remove(0));
    }

    async fn patiently<T>(&self, what: &str, future: impl Future<Output = T>) -> Result<T, String> {
        let limit = PATIENCE + self.config.api.timeout;
        within(limit, what, &self.notebook, future).await
    }

    fn reported(mut self) -> Report {
        let notes = std::mem::take(&mut *self.notebook.notes());
        let odd = |((endpoint, field), example)| Odd {
            endpoint,
            field,
            example,
        };
        self.report.not_understood = notes.not_understood.into_iter().map(odd).collect();
        self.report.not_in_the_reference = notes.unknown.into_iter().map(odd).collect();
        self.report.requests = notes.requests;
        self.report.throttled = notes.throttled;
        self.report.customer = self.sample.map(|(id, organization)| Sample {
            id: id.shown(),
            organization: domain::shown(&organization),
        });
        self.report.budget =
            (self.report.customers > 0).then(|| Budget::of(&self.costs, self.config.api.requests_per_second));
        self.report.judge();
        self.report
    }
}

/// Waits for something, but not for ever, and says meanwhile what it waits for.
async fn within<T>(
    limit: Duration,
    what: &str,
    notebook: &Notebook,
    future: impl Future<Output = T>,
) -> Result<T, String> {
    let (_, _, throttled_before) = notebook.counts();
    let began = Instant::now();
    let mut future = std::pin::pin!(future);
    loop {
        let left = limit.saturating_sub(began.elapsed());
        if let Ok(result) = tokio::time::timeout(SAY_AFTER.min(left), &mut future).await {
            return Ok(result);
        }
        if began.elapsed() < limit {
            info!(what, waited = ?began.elapsed(), "still waiting");
            continue;
        }
        let (_, _, throttled) = notebook.counts();
        return Err(format!(
            "gave up after {}, in which the API asked {} times for a pause; try again later, or lower \
             api.requests_per_second",
            humantime::format_duration(limit),
            throttled - throttled_before
        ));
    }
}

/// What went wrong, and where a permission is missing, what to click on.
fn explain(failure: &Failure) -> String {
    match &failure.error {
        api::Error::NotPermitted(scope) => format!("the permission {scope} is not granted: {GRANT}"),
        error => format!("{}: {}", failure.endpoint, error_chain(error)),
    }
}

/// What to look at where a host cannot be reached.
fn remedy(error: &api::Error) -> &'static str {
    match error {
        api::Error::Dns(_) => "look at the resolver of this machine",
        api::Error::Tls(_) => "a proxy that opens connections needs its authority in api.ca_file",
        api::Error::Proxy(_) => "look at api.proxy_url and at what the proxy lets through",
        api::Error::Timeout(_) | api::Error::Connect(_) => "a firewall, or api.proxy_url is missing",
        _ => "look at the network between here and there",
    }
}

fn certificate(end: Option<i64>) -> (Outcome, String) {
    let Some(end) = end else {
        return (Outcome::Ok, String::new());
    };
    let left = Timestamp::from_unix_seconds(end).since(Timestamp::from(SystemTime::now()));
    let days = left.as_secs() / 86_400;
    let outcome = if left < CERTIFICATE_WARNING {
        Outcome::FellShort
    } else {
        Outcome::Ok
    };
    (outcome, format!(", certificate good for {days} days"))
}

fn clock(skew: Option<i64>) -> (Outcome, &'static str, String) {
    match skew {
        None => (Outcome::Off, "not told", "the answer has no Date".to_owned()),
        Some(skew) if skew.unsigned_abs() <= CLOCK_TOLERANCE_SECONDS => {
            (Outcome::Ok, "ok", format!("{} s apart", skew.unsigned_abs()))
        }
        Some(skew) => {
            let apart = humantime::format_duration(Duration::from_secs(skew.unsigned_abs()));
            let side = if skew > 0 { "behind" } else { "ahead" };
            let told = format!("this machine is {apart} {side}; set its clock, for restore points are judged by it");
            (Outcome::FellShort, "differs", told)
        }
    }
}

/// The URLs without those whose host was named before.
fn hosts<'u>(urls: &[&'u Url]) -> Vec<&'u Url> {
    let mut distinct: Vec<&Url> = Vec::new();
    for url in urls {
        if !distinct.iter().any(|known| known.origin() == url.origin()) {
            distinct.push(url);
        }
    }
    distinct
}

fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn way(url: &Url) -> &'static str {
    if url.scheme() == "https" { "TLS" } else { "HTTP" }
}

/// Where a proxy is, without what may be its password.
fn place(url: &Url) -> String {
    format!("{}://{}", url.scheme(), host(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_differs_is_told_by_which_side_it_is() {
        let told = |skew| clock(Some(skew));
        assert_eq!(told(-60).0, Outcome::Ok);
        assert!(told(300).2.contains("5m behind") && told(300).0 == Outcome::FellShort);
        assert!(told(-300).2.contains("5m ahead"));
        assert_eq!(clock(None).0, Outcome::Off);
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let notebook = Notebook::default();
        let limit = Duration::from_millis(20);
        let waited = within(limit, "jobs", &notebook, async {
            notebook.throttled(Endpoint::Jobs);
            std::future::pending::<()>().await;
        });
        let told = waited.await.err().unwrap_or_default();
        assert!(
            told.contains("gave up after 20ms, in which the API asked 1 times"),
            "{told}"
        );
        assert_eq!(within(limit, "jobs", &notebook, async { 7 }).await, Ok(7));
    }

    #[test]
    fn a_proxy_is_named_without_its_password() -> Result<(), url::ParseError> {
        let url = Url::parse("http://me:hunter2@proxy.example.com:3128/x")?;
        assert_eq!(place(&url), "http://proxy.example.com:3128");
        Ok(())
    }
}
