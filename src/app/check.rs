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
use crate::api::{self, Api, Endpoint, Failure, Observer, auth, probe, v1, v3};
use crate::collector::{self, Brought, Context, Customer, Entry, Kept, Reach, Target};
use crate::config::{Config, ProxyUrl};
use crate::domain::{self, CustomerId, Timestamp, counted};
use crate::schedule::Orders;
pub use report::Report;
use report::{Finding, Odd, Outcome, Sample};

/// The result of a collector whose permission is not granted.
const NOT_PERMITTED: &str = "not permitted";

/// Where apps, their permissions, customers and secrets are, as the vendor's guide names it.
const REGISTRATION: &str = "in Elements, Settings > API app registration";

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
    counts: Counts,
}

/// What was counted so far.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    requests: u64,
    /// Requests that repeated one that had failed.
    retries: u64,
    /// Refusals for haste.
    throttled: u64,
    rows: usize,
}

#[derive(Debug, Default)]
struct Notebook(Mutex<Notes>);

impl Notebook {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counts(&self) -> Counts {
        self.notes().counts
    }
}

impl Observer for Notebook {
    fn request(&self, _endpoint: Endpoint, _status: Option<u16>, _took: Duration) {
        self.notes().counts.requests += 1;
    }

    fn retry(&self, _endpoint: Endpoint) {
        self.notes().counts.retries += 1;
    }

    fn throttled(&self, endpoint: Endpoint) {
        self.notes().counts.throttled += 1;
        warn!(
            endpoint = endpoint.as_str(),
            "the API asks for a pause (429); waiting for as long as it says"
        );
    }

    fn rows(&self, _endpoint: Endpoint, rows: usize) {
        self.notes().counts.rows += rows;
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
    /// Whether the list of customers was had, whoever stands in it.
    listed: bool,
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
        listed: false,
        costs: Vec::new(),
    };
    check.look_at_hosts().await?;
    if let Some(api) = check.find_generation().await
        && check.ask_for_permissions(&api).await
    {
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
        let mut lost: Vec<&str> = Vec::new();
        for url in resolved {
            let finding = match probe::resolve(url).await {
                Ok((1, address)) => (Outcome::Ok, "ok", address),
                Ok((addresses, first)) => (Outcome::Ok, "ok", format!("{addresses} addresses, the first {first}")),
                Err(problem) => {
                    lost.extend(url.host_str());
                    let look = match proxy {
                        Some(_) => "this is the host of api.proxy_url",
                        None => "look at the resolver of this machine",
                    };
                    (Outcome::FellShort, "failed", format!("{problem}; {look}"))
                }
            };
            self.found(format!("DNS {}", host(url)), finding);
        }
        for url in hosts(&[&api.token_url, &api.base_url]) {
            let name = format!("{} {}", way(url), host(url));
            let first = proxy.unwrap_or(url);
            if first.host_str().is_some_and(|host| lost.contains(&host)) {
                let told = format!("{} has no address", host(first));
                self.found(name, (Outcome::NotTried, "not tried", told));
                continue;
            }
            let answer = match probe::probe(url, proxy, &authorities, api.timeout).await {
                Ok(answer) => answer,
                Err(error) => {
                    let told = format!("{}; {}", plainly(&error), remedy(&error, proxy.is_some()));
                    self.found(name, (Outcome::FellShort, "failed", told));
                    continue;
                }
            };
            let took = Duration::from_millis(u64::try_from(answer.took.as_millis()).unwrap_or(u64::MAX));
            let took = humantime::format_duration(took);
            let (outcome, told) = certificate(answer.certificate_end);
            let result = if outcome == Outcome::Ok { "ok" } else { "ends soon" };
            let told = format!("answered in {took} (status {}; any will do){told}", answer.status);
            self.found(name, (outcome, result, told));
            self.found(format!("clock {}", host(url)), clock(answer.skew));
        }
        Ok(())
    }

    fn found(&mut self, name: String, (outcome, result, detail): (Outcome, &'static str, String)) {
        self.report.connection.push(Finding::new(name, outcome, result, detail));
    }

    /// The generation, which takes a token where the configuration leaves it open.
    async fn find_generation(&mut self) -> Option<Api> {
        let gateway = Arc::clone(&self.orders.gateway);
        let (result, told) = match self.patiently("token", gateway.api()).await {
            Ok(Ok(api)) => {
                self.report.generation = Some(api.generation().to_string());
                return Some(api);
            }
            Ok(Err(Failure {
                error: api::Error::NotPermitted(_),
                ..
            })) => {
                self.report.lacks_permission = true;
                let (new, old) = (v3::scope::CUSTOMERS, v1::scope::CUSTOMERS);
                let told = format!("neither {new} nor, of the first generation, {old} is granted");
                ("not granted", told)
            }
            Ok(Err(failure)) => ("failed", self.why_no_token(&failure.error)),
            Err(impatience) => ("gave up", impatience),
        };
        self.no_token(result, told);
        None
    }

    fn no_token(&mut self, result: &'static str, told: String) {
        let finding = Finding::new("token", Outcome::FellShort, result, told);
        self.report.permissions.push(finding);
    }

    /// Why there is no token, and what to look at.
    fn why_no_token(&self, error: &api::Error) -> String {
        let api::Error::Auth(cause) = error else {
            return plainly(error);
        };
        let mut connection = self.report.connection.iter();
        let is_explained = connection.any(|finding| finding.outcome == Outcome::FellShort);
        match cause.as_ref() {
            auth::Error::InvalidClient { .. } => format!(
                "{cause}; compare auth.client_id with the app {REGISTRATION}, and see there whether its secret or \
                 certificate has ended"
            ),
            auth::Error::Unreachable(_) if is_explained => format!("{cause}; see the connection above"),
            auth::Error::Unreachable(error) => {
                let remedy = remedy(error, self.config.api.proxy_url.is_some());
                format!("{}; {remedy}", plainly(cause))
            }
            auth::Error::Throttled(_) => format!("{cause}; try again later"),
            auth::Error::Status(_) | auth::Error::Malformed => format!(
                "{}; is api.token_url that of your environment? something else may answer there",
                plainly(cause)
            ),
            auth::Error::Credential(_) => plainly(cause),
        }
    }

    /// Each permission by itself; false where none can be asked with. What was told with the first token costs no
    /// further request.
    async fn ask_for_permissions(&mut self, api: &Api) -> bool {
        let mut asked: Vec<&'static str> = Vec::new();
        for (entry, plan) in collector::ALL.iter().zip(&self.orders.plans) {
            let scope = entry.scope(api.generation());
            if plan.enabled && !asked.contains(&scope) {
                asked.push(scope);
            }
        }
        let mut is_any_granted = false;
        for scope in asked {
            let token = self.patiently(scope, api.transport().tokens().token(scope)).await;
            let (outcome, result, detail) = match token {
                Ok(Ok(_)) => {
                    is_any_granted = true;
                    (Outcome::Ok, "granted", String::new())
                }
                Ok(Err(api::Error::NotPermitted(_))) => {
                    self.report.lacks_permission = true;
                    (Outcome::FellShort, "not granted", String::new())
                }
                // It is the same for every permission, and said once.
                Ok(Err(error)) => {
                    let told = self.why_no_token(&error);
                    self.no_token("failed", told);
                    break;
                }
                Err(impatience) => (Outcome::FellShort, "gave up", impatience),
            };
            let finding = Finding::new(scope, outcome, result, detail);
            self.report.permissions.push(finding);
        }
        is_any_granted
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
                    let before = self.notebook.counts();
                    let mut finding = self.examine(entry, api).await;
                    let after = self.notebook.counts();
                    let requests = after.requests - before.requests;
                    if finding.outcome != Outcome::NotTried {
                        finding.requests = Some(requests);
                        finding.rows = Some(after.rows - before.rows);
                    }
                    // One that is not permitted will not run, and one that was not answered costs nobody knows what.
                    let runs = finding.result != NOT_PERMITTED;
                    if runs && finding.outcome != Outcome::Ok && finding.rows.unwrap_or_default() == 0 {
                        self.report.not_measured.push(entry.name);
                    }
                    let each = entry.reach == Reach::Customer || self.asks_by_id(api);
                    // What had to be repeated this time is no part of what an ordinary poll costs, and what was not
                    // answered is taken to cost what the least answer costs.
                    let ordinary = requests.saturating_sub(after.retries - before.retries).max(1);
                    let cost = Cost {
                        requests: u32::try_from(ordinary).map_or(f64::MAX, f64::from),
                        targets: if each { self.report.customers } else { 1 },
                        interval: plan.interval,
                    };
                    self.costs.extend(runs.then_some(cost));
                    finding
                }
            };
            self.report.collectors.push(finding);
        }
    }

    async fn examine(&mut self, entry: &Entry, api: &Api) -> Finding {
        let fell_short = |result, detail| Finding::new(entry.name, Outcome::FellShort, result, detail);
        // Where the list failed, a customer that the configuration names by its id serves as well.
        let named = self.orders.customer_ids.first().filter(|_| !self.listed);
        let one = self.sample.as_ref().map(|(id, _)| id).or(named).cloned();
        let target = match (entry.reach, one) {
            (Reach::Partner, Some(id)) if self.asks_by_id(api) => Target::Customer(id),
            (Reach::Partner, _) => Target::Partner,
            (Reach::Customer, Some(id)) => Target::Customer(id),
            (Reach::Customer, None) => {
                let why = match self.listed {
                    true => "there is no customer to try it with, see customers",
                    false => "no customer is known, because customers failed",
                };
                return Finding::new(entry.name, Outcome::NotTried, "not tried", why.to_owned());
            }
        };
        let context = Context {
            now: Timestamp::from(SystemTime::now()),
            settings: Arc::clone(&self.orders.settings),
            organization: self.sample.as_ref().map_or("", |(_, organization)| organization).into(),
        };
        let poll = entry.poll(api.clone(), target.clone(), Arc::new(collector::NoMemory), context);
        let failure = match self.patiently(entry.name, poll).await {
            Err(impatience) => return fell_short("gave up", impatience),
            Ok(Err(failure)) => failure,
            Ok(Ok(brought)) => {
                if entry.name == collector::CUSTOMERS {
                    self.take_sample(&brought, api);
                }
                let samples: usize = brought.records.values().map(Kept::samples).sum();
                let detail = format!(
                    "{}, {}",
                    counted(whole(brought.records.len()), "customer", "customers"),
                    counted(whole(samples), "sample", "samples")
                );
                return match brought.incomplete {
                    Some(failure) => fell_short("incomplete", format!("{detail}; {}", explain(&failure, entry.name))),
                    None if self.listed && self.sample.is_none() && entry.name == collector::CUSTOMERS => {
                        fell_short("nobody", self.why_nobody(brought.records.len()))
                    }
                    None => Finding::new(entry.name, Outcome::Ok, "ok", detail),
                };
            }
        };
        let scope = entry.scope(api.generation());
        match failure.error {
            api::Error::NotPermitted(_) => fell_short(NOT_PERMITTED, format!("{scope} is not granted")),
            ref error if error.is_forbidden() => {
                let told = explain(&failure, entry.name);
                let why = match (target, api.generation()) {
                    (Target::Customer(_), _) => format!(
                        "{scope} is granted, so see {REGISTRATION}, whether this customer is among those of the app"
                    ),
                    (Target::Partner, api::Generation::V1) => {
                        "an app that may see only some customers can be refused the list of all of them: name them by \
                         id in customers.include"
                            .to_owned()
                    }
                    (Target::Partner, api::Generation::V3) => {
                        format!("{scope} is granted, so see the app's customers {REGISTRATION}")
                    }
                };
                fell_short("forbidden", format!("{told}; {why}"))
            }
            _ => fell_short("failed", explain(&failure, entry.name)),
        }
    }

    /// Why the list of customers, which was had, leaves nobody to try the rest with.
    fn why_nobody(&self, listed: usize) -> String {
        match listed {
            0 if self.orders.customer_ids.is_empty() => {
                format!("the API lists no customer; see the app's customers {REGISTRATION}")
            }
            0 => format!(
                "none of the customers that customers.include names is listed; see their ids, and the app's customers \
                 {REGISTRATION}"
            ),
            listed => format!(
                "{} listed, and customers.include, customers.exclude or --shard leave all out",
                counted(whole(listed), "customer is", "customers are")
            ),
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
        self.listed = true;
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
        self.report.requests = notes.counts.requests;
        self.report.throttled = notes.counts.throttled;
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
    let before = notebook.counts();
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
        let limit = humantime::format_duration(limit);
        return Err(match notebook.counts().throttled - before.throttled {
            0 => format!("gave up after {limit} without an answer; try again later"),
            pauses => format!(
                "gave up after {limit}, in which the API asked {} for a pause; try again later, or lower \
                 api.requests_per_second",
                counted(pauses, "time", "times")
            ),
        });
    }
}

/// What went wrong with a collector, and what to look at. The endpoint is named where it is another than its own.
fn explain(failure: &Failure, collector: &str) -> String {
    let told = match &failure.error {
        api::Error::Auth(cause) => plainly(cause),
        error => plainly(error),
    };
    let told = match advice(&failure.error) {
        Some(advice) => format!("{told}; {advice}"),
        None => told,
    };
    match failure.endpoint.as_str() {
        endpoint if endpoint == collector => told,
        endpoint => format!("{endpoint}: {told}"),
    }
}

/// What to look at where a poll failed, in as far as it does not say so itself.
fn advice(error: &api::Error) -> Option<&'static str> {
    Some(match error {
        api::Error::Dns(_) | api::Error::Connect(_) | api::Error::Tls(_) | api::Error::Proxy(_) => {
            "see the connection above"
        }
        api::Error::Timeout(_) => "the API or the way to it is slow; api.timeout says how long to wait",
        api::Error::Status(401) => "a fresh token is refused: api.base_url and api.token_url have to belong together",
        api::Error::Status(400 | 404 | 405) => {
            "see api.version and api.base_url; of one customer, whether it is still there"
        }
        api::Error::Status(408 | 500..=599) | api::Error::Unavailable(_) => {
            "the fault is the API's; see the vendor's status page, and try again later"
        }
        api::Error::Throttled => {
            "the API asked for a pause each time (429); try again later, or lower api.requests_per_second"
        }
        api::Error::Redirect(_) | api::Error::Decode(_) => {
            "something else than the API may have answered, such as a login page on the way; see api.base_url"
        }
        _ => return None,
    })
}

/// What to look at where a host cannot be reached.
fn remedy(error: &api::Error, is_proxied: bool) -> &'static str {
    match (error, is_proxied) {
        (api::Error::Dns(_), false) => "look at the resolver of this machine",
        (api::Error::Dns(_), true) => "this is the host of api.proxy_url",
        (api::Error::Tls(_), _) => {
            "a proxy that opens connections needs its authority in api.ca_file, and a port without TLS is none for https"
        }
        (api::Error::Proxy(_), _) => {
            "look at address, user name and password in api.proxy_url, and at what the proxy lets through"
        }
        (api::Error::Timeout(_) | api::Error::Connect(_), false) => {
            "a firewall, or a proxy is needed here and api.proxy_url is not set"
        }
        (api::Error::Timeout(_) | api::Error::Connect(_), true) => {
            "the proxy of api.proxy_url does not answer, or the host behind it"
        }
        _ => "look at the network between here and there",
    }
}

/// What the HTTP library says of a proxy, and what that means.
const OF_PROXIES: [(&str, &str); 2] = [
    ("tunnel error: unsuccessful", "it refuses to connect to this host"),
    (
        "tunnel error: proxy authorization required",
        "it asks for a user name and a password",
    ),
];

/// An error with what is behind it. Of the layers of the HTTP library the innermost tells; the others say that there is
/// another.
fn plainly(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(mut cause) = next {
        if cause.is::<reqwest::Error>() {
            while let Some(inner) = cause.source() {
                cause = inner;
            }
        }
        let told = cause.to_string();
        let known = OF_PROXIES.iter().find(|(said, _)| *said == told);
        text.push_str(": ");
        text.push_str(known.map_or(&told, |(_, means)| means));
        next = cause.source();
    }
    text
}

fn whole(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
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
    (
        outcome,
        format!(", certificate good for {}", counted(days, "day", "days")),
    )
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
            told.contains("gave up after 20ms, in which the API asked 1 time for a pause"),
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
