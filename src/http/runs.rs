//! The stored runs of a customer as JSON, for scripts.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Site;
use crate::domain::{CustomerId, PastRun, Timestamp};
use crate::status::CustomerRuns;

/// Runs of a customer, newest first. Fields whose values are unknown are omitted.
#[derive(Serialize)]
struct RunsResponse<'a> {
    customer_id: &'a str,
    organization: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated: Option<String>,
    runs: Vec<Run<'a>>,
}

#[derive(Serialize)]
struct Run<'a> {
    service: &'a str,
    module: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<&'a str>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    processed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    successful: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<u64>,
}

/// Returns the runs of the customer with this id.
pub(super) fn runs(site: &Site, id: &str) -> Response {
    let Some(runs) = CustomerId::parse(id).and_then(|id| site.status.runs(&id)) else {
        return (StatusCode::NOT_FOUND, "No customer with this id is known.\n").into_response();
    };
    let Ok(body) = serde_json::to_vec(&response(&runs)) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, body).into_response()
}

fn response(customer: &CustomerRuns) -> RunsResponse<'_> {
    let mut runs: Vec<_> = customer
        .modules
        .iter()
        .flat_map(|module| module.runs.iter().map(move |run| (module, run)))
        .collect();
    // The sort is stable, so runs of one module with equal times keep their order.
    runs.sort_by_key(|(_, run)| std::cmp::Reverse(PastRun::occurred_at(run)));
    let runs = runs.into_iter().map(|(module, run)| Run {
        service: &module.key.service,
        module: &module.key.module,
        scope: module.key.scope.as_deref(),
        job_id: run.id.as_deref(),
        status: run.status.label(),
        start: run.start.and_then(date),
        end: run.end.and_then(date),
        processed: run.processed,
        successful: run.successful,
        failed: run.failed,
        skipped: run.skipped,
        warning: run.warning,
    });
    RunsResponse {
        customer_id: customer.id.as_str(),
        organization: &customer.organization,
        updated: customer.updated.and_then(date),
        runs: runs.collect(),
    }
}

fn date(at: Timestamp) -> Option<String> {
    at.to_calendar().map(|at| at.to_string())
}
