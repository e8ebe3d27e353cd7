//! `check`: every enabled endpoint once for one customer, and a table of what came of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::{Error, orders};
use crate::api::{self, Api, Endpoint, Failure, Observer, auth};
use crate::collector::{self, Brought, Context, Customer, Entry, Kept, Reach, Target};
use crate::config::Config;
use crate::domain::{self, CustomerId, Timestamp};
use crate::error_chain::error_chain;
use crate::schedule::Orders;

/// Where a permission is granted.
const GRANT: &str = "in Elements open API app registration (or AvePoint Online Services > App registration), edit the \
                     app, and under Permissions of AvePoint Elements add it and save; it counts within minutes";

/// What came of one endpoint.
struct Finding {
    collector: &'static str,
    result: &'static str,
    detail: String,
    fell_short: bool,
}

/// What was noticed on the way.
#[derive(Debug, Default)]
struct Notes {
    not_understood: BTreeMap<(&'static str, &'static str), String>,
    unknown: BTreeMap<(&'static str, &'static str), String>,
    requests: u64,
}

#[derive(Debug, Default)]
struct Notebook(Mutex<Notes>);

impl Notebook {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Notebook {
    fn request(&self, _endpoint: Endpoint, _status: Option<u16>, _took: Duration) {
        self.notes().requests += 1;
    }

    fn retry(&self, _endpoint: Endpoint) {}

    fn throttled(&self, _endpoint: Endpoint) {}

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

/// Tries everything once and reports; the report as text, and whether nothing fell short.
///
/// # Errors
/// Where the configuration does not allow it.
pub async fn check(config: &Config) -> Result<(String, bool), Error> {
    let notebook = Arc::new(Notebook::default());
    let orders = orders(config, Arc::clone(&notebook) as Arc<dyn Observer>)?;
    let mut report = String::new();
    let _ = writeln!(report, "API        {}", config.api.base_url);
    let _ = writeln!(report, "token URL  {}", config.api.token_url);
    let api = match orders.gateway.api().await {
        Ok(api) => api,
        Err(failure) => {
            let _ = writeln!(report, "\ntoken      FAILED  {}", explain(&failure));
            return Ok((report, false));
        }
    };
    let _ = writeln!(report, "generation {}", api.generation());

    let mut findings = Vec::new();
    let mut sample = None;
    for (entry, plan) in collector::ALL.iter().zip(&orders.plans) {
        let finding = if plan.enabled {
            examine(entry, &api, &orders, &mut sample).await
        } else {
            Finding {
                collector: entry.name,
                result: "off",
                detail: "switched off by the configuration".to_owned(),
                fell_short: false,
            }
        };
        findings.push(finding);
    }
    if let Some((id, organization)) = &sample {
        let _ = writeln!(report, "customer   {} ({})", id.shown(), domain::shown(organization));
    }
    let _ = writeln!(report, "\n{:<15} {:<14} detail", "collector", "result");
    for finding in &findings {
        let _ = writeln!(
            report,
            "{:<15} {:<14} {}",
            finding.collector, finding.result, finding.detail
        );
    }
    let notes = notebook.notes();
    for ((endpoint, field), shape) in &notes.not_understood {
        let _ = writeln!(report, "not understood: {endpoint}.{field}, of the form {shape:?}");
    }
    for ((endpoint, field), value) in &notes.unknown {
        let _ = writeln!(
            report,
            "not in the reference, passed through: {endpoint}.{field} {value:?}"
        );
    }
    let good = notes.not_understood.is_empty() && !findings.iter().any(|finding| finding.fell_short);
    let verdict = if good {
        "everything works"
    } else {
        "something fell short"
    };
    let _ = writeln!(report, "\n{verdict}; requests: {}", notes.requests);
    Ok((report, good))
}

async fn examine(entry: &Entry, api: &Api, orders: &Orders, sample: &mut Option<(CustomerId, String)>) -> Finding {
    let finding = |result, detail, fell_short| Finding {
        collector: entry.name,
        result,
        detail,
        fell_short,
    };
    let by_id = !orders.customer_ids.is_empty() && api.generation() == api::Generation::V1;
    let one = sample
        .as_ref()
        .map(|(id, _)| id.clone())
        .or_else(|| orders.customer_ids.first().cloned());
    let target = match (entry.reach, one) {
        (Reach::Partner, Some(id)) if by_id => Target::Customer(id),
        (Reach::Partner, _) => Target::Partner,
        (Reach::Customer, Some(id)) => Target::Customer(id),
        (Reach::Customer, None) => {
            return finding(
                "not tried",
                "there is no customer to try it with; the registration sees none, or the configuration leaves all out"
                    .to_owned(),
                true,
            );
        }
    };
    let context = Context {
        now: Timestamp::from(SystemTime::now()),
        settings: Arc::clone(&orders.settings),
        organization: sample.as_ref().map_or("", |(_, organization)| organization).into(),
    };
    let poll = entry.poll(api.clone(), target, Arc::new(collector::NoMemory), context);
    match poll.await {
        Ok(brought) => {
            if entry.name == collector::CUSTOMERS {
                *sample = first_admitted(&brought, orders);
            }
            let customers = brought.records.len();
            let samples: usize = brought.records.values().map(Kept::samples).sum();
            let detail = format!("{customers} customers, {samples} samples");
            match brought.incomplete {
                None => finding("ok", detail, false),
                Some(failure) => finding("incomplete", format!("{detail}; {}", explain(&failure)), true),
            }
        }
        Err(failure) => {
            let result = match failure.error {
                api::Error::NotPermitted(_) => "not permitted",
                ref error if error.is_forbidden() => "forbidden",
                _ => "failed",
            };
            let scope = entry.scope(api.generation());
            let detail = match failure.error {
                ref error if error.is_forbidden() => {
                    format!(
                        "{}; the permission {scope} may be missing or not cover this customer: {GRANT}",
                        explain(&failure)
                    )
                }
                _ => explain(&failure),
            };
            finding(result, detail, true)
        }
    }
}

/// The first customer that the operator wants, to try the rest with.
fn first_admitted(brought: &Brought, orders: &Orders) -> Option<(CustomerId, String)> {
    brought.records.iter().find_map(|(id, kept)| {
        let customer = kept.record.as_any().downcast_ref::<Customer>()?;
        let admitted = (orders.admits)(id, &customer.organization);
        admitted.then(|| (id.clone(), customer.organization.clone()))
    })
}

/// What went wrong, and where a permission is missing, what to click on.
fn explain(failure: &Failure) -> String {
    match &failure.error {
        api::Error::NotPermitted(scope) => format!("the permission {scope} is not granted: {GRANT}"),
        error => format!("{}: {}", failure.endpoint, error_chain(error)),
    }
}
