//! Responses about seats, users, consent, signs of ransomware, baselines and job reports.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Filter, Page, bad_request, positive, precise_time};
use crate::simulator::View;
use crate::simulator::customer::{Customer, Tenant};
use crate::simulator::response::{ApiResponse, Call};
use crate::simulator::run::ABSENT;
use crate::simulator::services::{self, SIGN_TYPES, SIGNS, Seats};

const WORKSPACES: &str = "elements.wm.read.all";
const BASELINES: &str = "elements.bm.tenant.read.all";

/// The only job type with reports.
const REPORTED_JOB_TYPE: u16 = 7;

/// Default number of rows per page of a job report.
const REPORT_PAGE_SIZE: usize = 50;
const LARGEST_REPORT_PAGE_SIZE: usize = 1000;

/// Returns the response to a request outside `general`. `path` is the part after `/partner/external/v3`.
pub(in crate::simulator) fn respond(view: View<'_>, call: &Call, path: &[&str]) -> ApiResponse {
    let (method, scope) = match path {
        [
            "wm",
            "customers",
            _,
            "tenants",
            _,
            "overview",
            "data-protection",
            "ransomware-detection",
        ] => ("GET", WORKSPACES),
        ["bm", "tenants", "batch"] => ("POST", BASELINES),
        _ => return ApiResponse::not_found("resource"),
    };
    if call.method != method {
        return ApiResponse::method_not_allowed(method);
    }
    if let Some(error_response) = view.error_response(scope) {
        return error_response;
    }
    let result = match path {
        ["wm", "customers", id, "tenants", tenant, ..] => signs(view, id, tenant),
        _ => baselines(view, call),
    };
    result.unwrap_or_else(|error_response| error_response)
}

fn signs(view: View<'_>, id: &str, tenant: &str) -> Result<ApiResponse, ApiResponse> {
    let customer = view
        .world
        .customer(id)
        .ok_or_else(|| ApiResponse::not_found("customer"))?;
    let tenant = tenant_of(customer, tenant)?;
    let signs = tenant.services.signs;
    let signs =
        signs.ok_or_else(|| ApiResponse::error(StatusCode::FORBIDDEN, "the customer does not have this service"))?;
    let fields = SIGN_TYPES.iter().zip(signs).flat_map(|(object_type, counts)| {
        let of_type = SIGNS.iter().zip(counts);
        of_type.map(move |(sign, count)| (format!("{object_type}{sign}"), json!(count)))
    });
    Ok(ApiResponse::json(Value::Object(fields.collect())))
}

fn baselines(view: View<'_>, call: &Call) -> Result<ApiResponse, ApiResponse> {
    let page = Page::read(view, call)?;
    Filter::read(call)?;
    let tenants = view.world.customers.iter().flat_map(|customer| {
        let tenants = customer.tenants.iter();
        tenants.filter_map(move |tenant| Some((customer, tenant, tenant.services.baseline?)))
    });
    let tenants: Vec<_> = tenants.collect();
    Ok(page.list(&tenants, |(customer, tenant, baseline)| {
        json!({
            "customerId": customer.id,
            "tenantId": tenant.id,
            "tenantName": tenant.name,
            "status": baseline.status,
            "driftDetected": baseline.drifts,
            "driftDetectedTime": precise_time(baseline.drifted),
            "lastDeployedTime": precise_time(baseline.deployed),
            "autoAlignment": 0,
            "appliedBaselines": [{"baselineId": "b-1", "baselineName": "Essentials", "version": "1.0"}],
        })
    }))
}

fn tenant_of<'a>(customer: &'a Customer, id: &str) -> Result<&'a Tenant, ApiResponse> {
    let found = customer.tenants.iter().find(|tenant| tenant.id == id);
    found.ok_or_else(|| ApiResponse::not_found("tenant"))
}

pub(super) fn seats(page: Page, customer: &Customer, number: &str) -> Result<ApiResponse, ApiResponse> {
    let number: u16 = number.parse().map_err(|_| bad_request("the type must be a number"))?;
    if number > 3 {
        return Err(bad_request("the type must be at most 3"));
    }
    let tenants = customer.tenants.iter();
    let tenants: Vec<(&Tenant, Seats)> = tenants
        .filter_map(|tenant| Some((tenant, *tenant.services.seats.get(&number)?)))
        .collect();
    Ok(page.list(&tenants, |(tenant, seats)| {
        json!({
            "type": number,
            "tenantId": tenant.id,
            "tenantName": tenant.name,
            "availableUserSeat": seats.available,
            "assignedUserSeat": seats.assigned,
        })
    }))
}

pub(super) fn users(page: Page, customer: &Customer, tenant: &str) -> Result<ApiResponse, ApiResponse> {
    let tenant = tenant_of(customer, tenant)?;
    let [mailboxes, drives] = tenant.services.unprotected;
    let users: Vec<u64> = (0..tenant.services.users).collect();
    Ok(page.list(&users, |nth| {
        json!({
            "id": format!("{}-{nth}", tenant.id),
            "email": format!("user{nth}@{}", tenant.name),
            "displayName": format!("User {nth}"),
            "moduleStatus": [
                {"module": 0, "isProtected": *nth >= mailboxes},
                {"module": 2, "isProtected": *nth >= drives},
            ],
        })
    }))
}

pub(super) fn consent(
    view: View<'_>,
    customer: &Customer,
    tenant: &str,
    product: &str,
) -> Result<ApiResponse, ApiResponse> {
    let tenant = tenant_of(customer, tenant)?;
    let consent = tenant.services.consent.get(product);
    let withdrawn = consent.ok_or_else(|| ApiResponse::not_found("product"))?;
    let is_consent = withdrawn.is_none_or(|at| view.world.now() < at);
    Ok(ApiResponse::json(json!([{ "isConsent": is_consent }])))
}

pub(super) fn report(view: View<'_>, call: &Call, customer: &Customer, job: &str) -> Result<ApiResponse, ApiResponse> {
    let size = positive(call, "pageSize", REPORT_PAGE_SIZE)?;
    if size > LARGEST_REPORT_PAGE_SIZE {
        return Err(bad_request("pageSize must be at most 1000"));
    }
    let modules = customer
        .modules
        .iter()
        .filter(|module| module.job_type == REPORTED_JOB_TYPE);
    let mut runs = modules.flat_map(|module| &module.runs);
    let run = runs.find(|run| run.id == job && run.id != ABSENT);
    let run = run.ok_or_else(|| ApiResponse::not_found("job"))?;
    let tenant = customer.tenants.first();
    let domain = tenant.map_or("contoso.example", |tenant| tenant.name.as_str());
    let withdrawn = tenant.and_then(|tenant| *tenant.services.consent.get("Office365Backup")?);
    let has_consent = withdrawn.is_none_or(|at| run.end.unwrap_or(view.world.now()) < at);
    let rows = services::report(run, domain, has_consent);
    // Skip tokens contain characters that must be percent-encoded in the URL of the next page.
    let skip = match call.parameter("skipToken") {
        Some(token) if !view.ignore_paging => {
            let parts = token.strip_suffix("%7C").and_then(|token| token.split_once('|'));
            let skip = parts.and_then(|(skip, of)| Some((skip.parse::<usize>().ok()?, of)));
            let (skip, _) = skip
                .filter(|(_, of)| *of == job)
                .ok_or_else(|| bad_request("no such skipToken"))?;
            skip
        }
        _ => 0,
    };
    let end = skip.saturating_add(size);
    let next = (end < rows.len()).then(|| format!("{end}|{job}%7C"));
    let page: Vec<Value> = rows
        .iter()
        .skip(skip)
        .take(size)
        .map(|row| {
            json!({
                "title": row.title,
                "type": 1,
                "sourceObjectLocation": format!("/{}", row.title),
                "container": "Default container",
                "size": "0 GB",
                "status": row.status,
                "finishTime": precise_time(run.end),
                "comment": row.comment,
                "errorCode": row.error_code,
            })
        })
        .collect();
    Ok(ApiResponse::json(json!({
        "data": page,
        "metadata": {"skipToken": next, "totalCount": rows.len()},
    })))
}
