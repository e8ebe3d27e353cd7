//! `check`: tests DNS, TLS, proxy, clock skew and each permission, polls every enabled collector once, reports invalid
//! values, and estimates whether the intervals fit the limits.

mod advice;
mod hosts;
mod observer;
mod offline;
mod patterns;
mod report;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::budget::{Budget, Cost, RequestLimits};
use super::client::{ClientSource, authorities, scopes};
use super::reload::read_attributes;
use super::saver::check_state_file;
use super::{Error, schedule_config};
use crate::api::{self, Api, Failure, Observer, auth, v1, v3};
use crate::collector::{
    CollectorId, Context, Customer, PerCollector, Plan, PollOutput, Record, RecordSource, RenderedRecord, Target,
    TargetKind, UNLICENSED_RECHECK, ids,
};
use crate::config::{Config, ProxyUrl};
use crate::domain::{CustomerId, KnownNames, Timestamp, counted};
use crate::schedule::ScheduleConfig;
use advice::{error_text, explain, remedy};
use observer::{CheckObserver, within};
pub use offline::check_offline;
use patterns::{exclusions_without_match, patterns_without_match};
pub use report::Report;
use report::{Finding, NamedCustomer, Outcome, UnusualValue};

/// Result of checking one collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CollectorResult {
    Ok,
    /// There was nothing to request.
    NotNeeded,
    /// The customer lacks the service.
    Unlicensed,
    Incomplete,
    NoCustomers,
    NotPermitted,
    Forbidden,
    Failed,
    TimedOut,
    Skipped,
    Off,
}

impl CollectorResult {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotNeeded => "not needed",
            Self::Unlicensed => "unlicensed",
            Self::Incomplete => "incomplete",
            Self::NoCustomers => "no customers",
            Self::NotPermitted => "permission missing",
            Self::Forbidden => "forbidden",
            Self::Failed => "failed",
            Self::TimedOut => "timed out",
            Self::Skipped => "skipped",
            Self::Off => "off",
        }
    }

    fn outcome(self) -> Outcome {
        match self {
            Self::Ok | Self::NotNeeded | Self::Unlicensed => Outcome::Ok,
            Self::Skipped => Outcome::Skipped,
            Self::Off => Outcome::Off,
            _ => Outcome::Failed,
        }
    }
}

/// Page in Elements that lists the app registrations, named as in the vendor's guide.
const REGISTRATION: &str = "in Elements, Settings > API app registration";

/// Time limit of one step, added to `api.timeout`. Without a limit, a server that keeps sending `Retry-After` could
/// delay the check by many minutes.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// One run of the check.
struct Check<'a> {
    config: &'a Config,
    observer: Arc<CheckObserver>,
    schedule_config: ScheduleConfig,
    report: Report,
    /// The customer that is polled as an example.
    sample: Option<(CustomerId, String)>,
    /// Whether the customer list was fetched, even if it is empty.
    has_customer_list: bool,
    costs: Vec<Cost>,
    /// Records fetched so far, for collectors that depend on other collectors.
    seen: SeenRecords,
}

/// Records that collectors have returned so far, by customer.
#[derive(Clone, Debug, Default)]
struct SeenRecords(PerCollector<BTreeMap<CustomerId, Arc<dyn Record>>>);

impl RecordSource for SeenRecords {
    // Each collector is polled only once, so none has a previous record of its own.
    fn record(&self, collector: CollectorId, customer: &CustomerId) -> Option<Arc<dyn Record>> {
        self.0.get(collector).get(customer).map(Arc::clone)
    }

    fn canonical_id(&self, customer: CustomerId) -> CustomerId {
        customer
    }

    fn organization(&self, _customer: &CustomerId) -> Arc<str> {
        Arc::from("")
    }
}

/// Runs all checks and reports the results.
///
/// # Errors
/// Returns an error if the configuration is invalid.
pub async fn check(config: &Config) -> Result<Report, Error> {
    check_state_file(config)?;
    let observer = Arc::new(CheckObserver::default());
    let source = ClientSource::new(config)?;
    let client = source.client(Arc::clone(&observer) as Arc<dyn Observer>, None)?;
    let schedule_config = schedule_config(config, client, read_attributes(config.attributes_file.as_deref())?);
    let mut check = Check {
        config,
        observer,
        schedule_config,
        report: Report {
            api: config.api.base_url.to_string(),
            token_url: config.api.token_url.to_string(),
            proxy: config.api.proxy_url.as_ref().map(ProxyUrl::without_credentials),
            requests_per_second: config.api.requests_per_second,
            ..Report::default()
        },
        sample: None,
        has_customer_list: false,
        costs: Vec::new(),
        seen: SeenRecords::default(),
    };
    check.check_hosts().await?;
    if let Some(api) = check.select_generation().await
        && check.check_permissions(&api).await
    {
        check.check_collectors(&api).await;
    }
    Ok(check.into_report())
}

impl Check<'_> {
    /// Selects the API version. With `api.version: auto`, this requests a token.
    async fn select_generation(&mut self) -> Option<Api> {
        let client = Arc::clone(&self.schedule_config.client);
        let (result, detail) = match self.with_timeout("token", client.api()).await {
            Ok(Ok(api)) => {
                self.report.api_version = Some(api.generation().to_string());
                return Some(api);
            }
            Ok(Err(Failure {
                error: api::Error::NotPermitted(_),
                ..
            })) => {
                self.report.lacks_permission = true;
                let (new, old) = (v3::scope::CUSTOMERS, v1::scope::CUSTOMERS);
                let detail = format!("neither {new} (v3) nor {old} (v1) is granted");
                ("not granted", detail)
            }
            Ok(Err(failure)) => ("failed", self.explain_missing_token(&failure.error)),
            Err(timeout) => ("timed out", timeout),
        };
        self.report_missing_token(result, detail);
        None
    }

    fn report_missing_token(&mut self, result: &'static str, detail: String) {
        let finding = Finding::new("token", Outcome::Failed, result, detail);
        self.report.permissions.push(finding);
    }

    /// Explains why no token was issued, and suggests a remedy.
    fn explain_missing_token(&self, error: &api::Error) -> String {
        let api::Error::Auth(cause) = error else {
            return error_text(error);
        };
        let mut connection = self.report.connection.iter();
        let is_explained = connection.any(|finding| finding.outcome == Outcome::Failed);
        match cause.as_ref() {
            auth::Error::InvalidClient { .. } => format!(
                "{cause}; compare auth.client_id with the client id of the app ({REGISTRATION}), and check whether the \
                 app's secret or certificate has expired"
            ),
            auth::Error::Unreachable(_) if is_explained => format!("{cause}; see the connection checks above"),
            auth::Error::Unreachable(error) => {
                let remedy = remedy(error, self.config.api.proxy_url.is_some());
                format!("{}; {remedy}", error_text(cause))
            }
            auth::Error::Throttled(_) => format!("{cause}; try again later"),
            auth::Error::Status(_) | auth::Error::Malformed => format!(
                "{}; if the error persists, check that api.token_url is the token URL of the vendor's API",
                error_text(cause)
            ),
            auth::Error::Credential(_) => error_text(cause),
        }
    }

    /// Checks each permission separately, and returns whether any is granted. A scope that the first token covers needs
    /// no further request.
    async fn check_permissions(&mut self, api: &Api) -> bool {
        let mut is_any_granted = false;
        for scope in scopes(&self.schedule_config.plans, api.generation()) {
            let token = self.with_timeout(scope, api.transport().tokens().token(scope)).await;
            let (outcome, result, detail) = match token {
                Ok(Ok(_)) => {
                    is_any_granted = true;
                    (Outcome::Ok, "granted", String::new())
                }
                Ok(Err(api::Error::NotPermitted(_))) => {
                    self.report.lacks_permission = true;
                    (Outcome::Failed, "not granted", String::new())
                }
                // The error is the same for every permission, so it is reported once.
                Ok(Err(error)) => {
                    let detail = self.explain_missing_token(&error);
                    self.report_missing_token("failed", detail);
                    break;
                }
                Err(timeout) => (Outcome::Failed, "timed out", timeout),
            };
            let finding = Finding::new(scope, outcome, result, detail);
            self.report.permissions.push(finding);
        }
        is_any_granted
    }

    /// Polls every enabled collector once. Collectors that poll per customer poll only the example customer.
    async fn check_collectors(&mut self, api: &Api) {
        for collector in ids() {
            let plan = *self.schedule_config.plans.get(collector);
            let finding = match plan.enabled {
                false => finding(collector, CollectorResult::Off, "disabled in the configuration"),
                true => self.measure(collector, plan, api).await,
            };
            self.report.collectors.push(finding);
        }
    }

    /// Polls a collector, and records the cost of its polls.
    async fn measure(&mut self, collector: CollectorId, plan: Plan, api: &Api) -> Finding {
        let descriptor = collector.descriptor();
        let before = self.observer.counts();
        let (mut result, mut finding) = self.poll_once(collector, api).await;
        let after = self.observer.counts();
        let (requests, rows) = (after.requests - before.requests, after.rows - before.rows);
        if requests == 0 && result == CollectorResult::Ok {
            result = CollectorResult::NotNeeded;
            finding.result = result.as_str();
            finding.detail = "nothing to request for this customer, so the endpoint is untested".to_owned();
        }
        if result != CollectorResult::Skipped {
            (finding.requests, finding.rows) = (Some(requests), Some(rows));
        }
        // A collector whose permission is missing costs nothing. If a collector fails for any other reason without
        // returning rows, its cost is unknown.
        let runs = result != CollectorResult::NotPermitted;
        if runs && finding.outcome != Outcome::Ok && rows == 0 {
            self.report.not_measured.push(descriptor.name);
        }
        let each = descriptor.target_kind == TargetKind::Customer || self.polls_by_id(api);
        // The usual cost of a poll excludes retries. If no request was sent, one is assumed, because other customers
        // may need requests.
        let ordinary = requests.saturating_sub(after.retries - before.retries).max(1);
        // A collector with `AFTER` set requests each item only once, so later polls do not repeat the requests measured
        // here.
        let requests_of_poll = match descriptor.after() {
            Some(_) => descriptor.price.requests,
            None => u32::try_from(ordinary).map_or(f64::MAX, f64::from),
        };
        let cost = Cost {
            requests: requests_of_poll,
            latency: (after.response_time - before.response_time) / (after.data_requests - before.data_requests).max(1),
            targets: if each { self.report.customers } else { 1 },
            interval: match result {
                CollectorResult::Unlicensed => plan.interval.max(UNLICENSED_RECHECK),
                _ => plan.interval,
            },
        };
        self.costs.extend(runs.then_some(cost));
        finding
    }

    async fn poll_once(&mut self, collector: CollectorId, api: &Api) -> (CollectorResult, Finding) {
        let descriptor = collector.descriptor();
        let found = |result, detail: String| (result, finding(collector, result, detail));
        // If the customer list could not be fetched, a configured customer id is used.
        let named = self
            .schedule_config
            .customer_ids
            .first()
            .filter(|_| !self.has_customer_list);
        let one = self.sample.as_ref().map(|(id, _)| id).or(named).cloned();
        let target = match (descriptor.target_kind, one) {
            (TargetKind::Partner, Some(id)) if self.polls_by_id(api) => Target::Customer(id),
            (TargetKind::Partner, _) => Target::Partner,
            (TargetKind::Customer, Some(id)) => Target::Customer(id),
            (TargetKind::Customer, None) => {
                let why = match self.has_customer_list {
                    true => "no customer available; see the result of the collector `customers`",
                    false => "customer list not fetched; see the result of the collector `customers`",
                };
                return found(CollectorResult::Skipped, why.to_owned());
            }
        };
        let context = Context::new(
            Timestamp::from(SystemTime::now()),
            Arc::clone(&self.schedule_config.settings),
            self.sample.as_ref().map_or("", |(_, organization)| organization).into(),
        );
        let poll = collector.poll(
            api.clone(),
            target.clone(),
            Arc::new(self.seen.clone()),
            context.clone(),
        );
        let failure = match self.with_timeout(descriptor.name, poll).await {
            Err(timeout) => return found(CollectorResult::TimedOut, timeout),
            Ok(Err(failure)) => failure,
            Ok(Ok(output)) => {
                if collector == CollectorId::CUSTOMERS {
                    self.select_example(&output, api);
                    self.check_patterns(&output, api);
                }
                self.seen.0.get_mut(collector).clone_from(&output.records);
                let (rendered, _) = descriptor.render_all(output.records.clone(), |_| context.clone());
                let samples: usize = rendered.values().map(RenderedRecord::samples).sum();
                let detail = format!(
                    "{}, {}",
                    counted(output.records.len(), "customer", "customers"),
                    counted(samples, "sample", "samples")
                );
                return match output.incomplete {
                    Some(failure) => found(
                        CollectorResult::Incomplete,
                        format!("{detail}; {}", explain(&failure, descriptor.name)),
                    ),
                    None if self.has_customer_list && self.sample.is_none() && collector == CollectorId::CUSTOMERS => {
                        found(
                            CollectorResult::NoCustomers,
                            self.explain_missing_customers(output.records.len()),
                        )
                    }
                    None => found(CollectorResult::Ok, detail),
                };
            }
        };
        let scope = descriptor.scope(api.generation()).unwrap_or_default();
        let (result, finding) = match failure.error {
            ref error if descriptor.is_unlicensed(error) => {
                let detail = format!("{}; polled at most once a day", explain(&failure, descriptor.name));
                found(CollectorResult::Unlicensed, detail)
            }
            api::Error::NotPermitted(_) if scope.is_empty() => {
                found(CollectorResult::NotPermitted, "requires API v3".to_owned())
            }
            api::Error::NotPermitted(_) => found(CollectorResult::NotPermitted, format!("{scope} is not granted")),
            ref error if error.is_forbidden() => {
                let detail = explain(&failure, descriptor.name);
                let why = match (target, api.generation()) {
                    (Target::Customer(_), _) => {
                        format!("{scope} is granted, so check that the app can see this customer ({REGISTRATION})")
                    }
                    (Target::Partner, api::Generation::V1) => {
                        "an app with access to only some customers cannot list them: add their ids to customers.include"
                            .to_owned()
                    }
                    (Target::Partner, api::Generation::V3) => {
                        format!("{scope} is granted, so check which customers the app can see ({REGISTRATION})")
                    }
                };
                found(CollectorResult::Forbidden, format!("{detail}; {why}"))
            }
            _ => found(CollectorResult::Failed, explain(&failure, descriptor.name)),
        };
        let request_id = failure.request_id.map(|id| id.to_string());
        (result, Finding { request_id, ..finding })
    }

    /// Explains why the fetched customer list contains no example customer.
    fn explain_missing_customers(&self, listed: usize) -> String {
        match listed {
            0 if self.schedule_config.customer_ids.is_empty() => {
                format!("the API lists no customers; check which customers the app can see ({REGISTRATION})")
            }
            0 => format!(
                "the API lists none of the customers in customers.include; check their ids, and which customers the \
                 app can see ({REGISTRATION})"
            ),
            listed => format!(
                "{} listed, but customers.include, customers.exclude or --shard leaves none to poll",
                counted(listed, "customer is", "customers are")
            ),
        }
    }

    /// Returns whether customers are fetched one by one: all customers are configured by id, and API v1 is used.
    fn polls_by_id(&self, api: &Api) -> bool {
        !self.schedule_config.customer_ids.is_empty() && api.generation() == api::Generation::V1
    }

    /// Selects the example customer: the first customer that the filters include.
    fn select_example(&mut self, output: &PollOutput, api: &Api) {
        let matching = output.records.iter().filter_map(|(id, record)| {
            let customer = Customer::of(record.as_ref())?;
            let included = self.schedule_config.customers.admits(id, &customer.organization);
            included.then(|| (id.clone(), customer.organization.clone()))
        });
        let mut matching: Vec<_> = matching.collect();
        self.report.customers = match self.polls_by_id(api) {
            true => self.schedule_config.customer_ids.len(),
            false => matching.len(),
        };
        if let Some(table) = &self.schedule_config.settings.attributes {
            let without = matching.iter().filter(|(id, name)| table.of(id, name).is_none());
            self.report.without_attributes = without.map(|(id, name)| NamedCustomer::new(id, name)).collect();
        }
        self.sample = (!matching.is_empty()).then(|| matching.swap_remove(0));
        self.has_customer_list = true;
    }

    /// Reports patterns that match nothing, if the customer list is complete.
    fn check_patterns(&mut self, output: &PollOutput, api: &Api) {
        if output.incomplete.is_some() || self.polls_by_id(api) {
            return;
        }
        let mut names = KnownNames::default();
        for (id, record) in &output.records {
            if let Some(customer) = Customer::of(record.as_ref()) {
                names.add_customer(id, &customer.organization);
            }
        }
        // Only one customer is polled, so patterns for modules are compared with the vendor's reference. Patterns for
        // backup scopes can be checked only by the running exporter.
        names.add_reference();
        if let Some(table) = &self.schedule_config.settings.attributes {
            names.add_attributes(table);
        }
        let unmatched = patterns_without_match(&names, self.config);
        self.report.patterns.extend(unmatched.map(|(_, finding)| finding));
    }

    async fn with_timeout<T>(&self, what: &str, future: impl Future<Output = T>) -> Result<T, String> {
        let limit = STEP_TIMEOUT + self.config.api.timeout;
        within(limit, what, &self.observer, future).await
    }

    fn into_report(mut self) -> Report {
        let notes = std::mem::take(&mut *self.observer.notes());
        let unusual = |((endpoint, field), example)| UnusualValue {
            endpoint,
            field,
            example,
        };
        self.report.invalid_values = notes.invalid_values.into_iter().map(unusual).collect();
        self.report.unknown_values = notes.unknown.into_iter().map(unusual).collect();
        self.report.patterns.extend(exclusions_without_match(self.config));
        self.report.requests = notes.counts.requests;
        self.report.throttled = notes.counts.throttled;
        self.report.customer = self
            .sample
            .map(|(id, organization)| NamedCustomer::new(&id, &organization));
        let limits = RequestLimits {
            requests_per_second: self.config.api.requests_per_second,
            max_concurrency: self.config.api.max_concurrency,
        };
        self.report.budget = (self.report.customers > 0).then(|| Budget::of(&self.costs, limits));
        self.report.conclude();
        self.report
    }
}

fn finding(collector: CollectorId, result: CollectorResult, detail: impl Into<String>) -> Finding {
    Finding::new(collector.name(), result.outcome(), result.as_str(), detail.into())
}
