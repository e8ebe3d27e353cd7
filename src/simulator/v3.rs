//! API v3: numbers for statuses, and lists with `data` and `metadata`. Most lists are requested by POST with a filter.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::View;
use super::customer::{Customer, Module, ProtectedRow};
use super::response::{ApiResponse, Call, format_time, product, with_fields};
use super::rows::{self, job_row, objects, protected_row, scan_profile_row};
use super::scan::ScanProfile;
use super::world::{self, JobRow};

pub(super) mod services;

const CUSTOMERS: &str = "elements.customers.read.all";
const PROTECTED: &str = "elements.cbprotected.read.all";
const LICENSES: &str = "elements.license.read.all";
const JOBS: &str = "elements.jobs.read.all";
const SCAN_PROFILES: &str = "elements.scanprofiles.read.all";

/// Default number of rows per page.
const DEFAULT_PAGE_SIZE: usize = 50;

/// Maximum number of rows per page. Requests for larger pages are rejected.
const MAX_PAGE_SIZE: usize = 100;

/// Returns the response to a request. `path` is the part after `/partner/external/v3/general`.
pub(super) fn respond(view: View<'_>, call: &Call, path: &[&str]) -> ApiResponse {
    let Some((method, scope)) = method_and_scope(path) else {
        return ApiResponse::not_found("resource");
    };
    if call.method != method {
        return ApiResponse::method_not_allowed(method);
    }
    if let Some(error_response) = view.error_response(scope) {
        return error_response;
    }
    permitted(view, call, path).unwrap_or_else(|error_response| error_response)
}

fn method_and_scope(path: &[&str]) -> Option<(&'static str, &'static str)> {
    match path {
        ["customers", "batch"] => Some(("POST", CUSTOMERS)),
        ["customers", "services", "batch"] => Some(("POST", LICENSES)),
        ["customers", _, "cloud-backup-m365", "overview"] => Some(("GET", PROTECTED)),
        ["customers", _, "avpt-products", "jobs", "batch"] => Some(("POST", JOBS)),
        ["customers", _, "scan-profiles", "batch"] => Some(("POST", SCAN_PROFILES)),
        ["customers", _, "scan-profiles", _] | ["customers", _, "scan-profiles", _, "changes"] => {
            Some(("GET", SCAN_PROFILES))
        }
        ["customers", _, "3rd-party-products", "type", _, "tenants", "batch"] => Some(("POST", LICENSES)),
        ["customers", _, "tenants", _, "cloud-backup-m365", "users", "batch"] => Some(("POST", PROTECTED)),
        ["customers", _, "jobs", _, "report-details"] => Some(("GET", JOBS)),
        ["customers", _, "tenants", _, "product", _, "apps"] => Some(("GET", CUSTOMERS)),
        _ => None,
    }
}

fn permitted(view: View<'_>, call: &Call, path: &[&str]) -> Result<ApiResponse, ApiResponse> {
    match path {
        ["customers", "batch"] => {
            let (page, filter) = (Page::read(view, call)?, Filter::read(call)?);
            Ok(page.list(&filter.customers(view)?, |found| customer(found)))
        }
        ["customers", "services", "batch"] => {
            let (page, filter) = (Page::read(view, call)?, Filter::read(call)?);
            Ok(page.list(&filter.customers(view)?, |found| subscriptions(found)))
        }
        ["customers", id, rest @ ..] => {
            let found = view
                .world
                .customer(id)
                .ok_or_else(|| ApiResponse::not_found("customer"))?;
            of_customer(view, call, found, rest)
        }
        _ => Err(ApiResponse::not_found("resource")),
    }
}

fn of_customer(view: View<'_>, call: &Call, found: &Customer, rest: &[&str]) -> Result<ApiResponse, ApiResponse> {
    match rest {
        ["cloud-backup-m365", "overview"] => {
            Ok(Page::read(view, call)?.list(&found.protected, |row| protected(found, row)))
        }
        ["avpt-products", "jobs", "batch"] => jobs(view, call, found),
        ["scan-profiles", "batch"] => {
            let (page, filter) = (Page::read(view, call)?, Filter::read(call)?);
            let requested = filter.ids("scanProfileIds")?;
            let listed: Vec<&ScanProfile> = found
                .scan_profiles
                .iter()
                .filter(|profile| requested.as_ref().is_none_or(|ids| ids.contains(&profile.id)))
                .collect();
            Ok(page.list(&listed, |profile| scan_profile(profile)))
        }
        ["scan-profiles", id] => Ok(ApiResponse::json(scan_profile_detail(profile_of(found, id)?))),
        ["scan-profiles", id, _] => Ok(ApiResponse::json(changes(profile_of(found, id)?))),
        ["jobs", job, _] => services::report(view, call, found, job),
        ["3rd-party-products", _, number, ..] => {
            Filter::read(call)?;
            services::seats(Page::read(view, call)?, found, number)
        }
        ["tenants", tenant, "product", product, _] => services::consent(view, found, tenant, product),
        ["tenants", tenant, ..] => {
            Filter::read(call)?;
            services::users(Page::read(view, call)?, found, tenant)
        }
        _ => Err(ApiResponse::not_found("resource")),
    }
}

fn profile_of<'a>(customer: &'a Customer, id: &str) -> Result<&'a ScanProfile, ApiResponse> {
    customer
        .scan_profiles
        .iter()
        .find(|profile| profile.id == id)
        .ok_or_else(|| ApiResponse::not_found("scan profile"))
}

/// A page requested by the query.
#[derive(Clone, Copy)]
struct Page {
    index: usize,
    size: usize,
}

impl Page {
    fn read(view: View<'_>, call: &Call) -> Result<Self, ApiResponse> {
        let index = positive(call, "pageIndex", 1)?;
        let size = positive(call, "pageSize", DEFAULT_PAGE_SIZE)?;
        if size > MAX_PAGE_SIZE {
            return Err(bad_request("pageSize must be at most 100"));
        }
        Ok(Self {
            index: if view.ignore_paging { 1 } else { index },
            size,
        })
    }

    fn list<T>(self, items: &[T], row: impl Fn(&T) -> Value) -> ApiResponse {
        let skip = self.index.saturating_sub(1).saturating_mul(self.size);
        let rows: Vec<Value> = items.iter().skip(skip).take(self.size).map(row).collect();
        ApiResponse::json(json!({
            "data": rows,
            "metadata": {"pageIndex": self.index, "pageSize": self.size, "totalCount": items.len()},
        }))
    }
}

fn positive(call: &Call, name: &str, default: usize) -> Result<usize, ApiResponse> {
    match call.parameter(name).map(|text| text.parse::<usize>()) {
        None => Ok(default),
        Some(Ok(number)) if number > 0 => Ok(number),
        Some(_) => Err(bad_request(&format!("{name} must be a whole number above 0"))),
    }
}

/// Body of a POST request: a JSON object, which is empty if there is no filter.
struct Filter(Value);

impl Filter {
    fn read(call: &Call) -> Result<Self, ApiResponse> {
        if call.body.trim().is_empty() {
            return Ok(Self(json!({})));
        }
        match serde_json::from_str(&call.body) {
            Ok(body @ Value::Object(_)) => Ok(Self(body)),
            _ => Err(bad_request("the body must be a JSON object")),
        }
    }

    /// Returns the requested ids, or `None` for all.
    fn ids(&self, name: &str) -> Result<Option<Vec<String>>, ApiResponse> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(ids)) if ids.is_empty() => Ok(None),
            Some(ids) => serde_json::from_value(ids.clone())
                .map(Some)
                .map_err(|_| bad_request(&format!("{name} must be a list of strings"))),
        }
    }

    fn number(&self, name: &str) -> Result<Option<u64>, ApiResponse> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(number) => number
                .as_u64()
                .map(Some)
                .ok_or_else(|| bad_request(&format!("{name} must be a number"))),
        }
    }

    fn customers<'a>(&self, view: View<'a>) -> Result<Vec<&'a Customer>, ApiResponse> {
        let requested = self.ids("customerIds")?;
        let listed = view.world.customers.iter();
        Ok(listed
            .filter(|customer| requested.as_ref().is_none_or(|ids| ids.contains(&customer.id)))
            .collect())
    }
}

fn bad_request(message: &str) -> ApiResponse {
    ApiResponse::error(StatusCode::BAD_REQUEST, message)
}

fn customer(customer: &Customer) -> Value {
    let row = json!({
        "id": customer.id,
        "organization": customer.organization,
        "ownerEmail": customer.owner_email,
        "jobStatus": customer.status,
        "countryOrRegion": customer.country,
        "managementMode": customer.management_mode,
        "tenants": customer.tenants.iter()
            .map(|tenant| json!({"id": tenant.id, "name": tenant.name}))
            .collect::<Vec<Value>>(),
    });
    with_fields(row, &customer.raw_fields)
}

fn protected(customer: &Customer, row: &ProtectedRow) -> Value {
    let mut value = protected_row(customer, row);
    // Since October 2026, the API has sent these two fields, but not in every row.
    if let (Some(tenant), Some(object)) = (&row.tenant_id, value.as_object_mut()) {
        object.insert("tenantId".to_owned(), json!(tenant));
        object.insert("lastRunTime".to_owned(), json!(month_first_time(row.last_run)));
    }
    with_fields(value, &row.raw_fields)
}

fn subscriptions(customer: &Customer) -> Value {
    json!({
        "customerId": customer.id,
        "organization": customer.organization,
        "customer": customer.owner_email,
        "products": customer.products.iter().map(product).collect::<Vec<Value>>(),
    })
}

fn jobs(view: View<'_>, call: &Call, customer: &Customer) -> Result<ApiResponse, ApiResponse> {
    let (page, filter) = (Page::read(view, call)?, Filter::read(call)?);
    let (job_type, number) = (filter.number("jobType")?, filter.number("jobModule")?);
    let is_requested = |module: &Module| {
        job_type.is_none_or(|id| id == u64::from(module.job_type))
            && number.is_none_or(|id| id == u64::from(module.number))
    };
    let rows = world::job_rows(view.world, customer, view.history, is_requested);
    Ok(page.list(&rows, job))
}

fn job(row: &JobRow<'_>) -> Value {
    job_row(
        row,
        json!(row.module.job_type),
        json!(row.module.number),
        json!(row.run.status),
    )
}

fn scan_profile(profile: &ScanProfile) -> Value {
    scan_profile_row(profile, &precise_time(Some(profile.modified)))
}

fn scan_profile_detail(profile: &ScanProfile) -> Value {
    let containers: Vec<Value> = profile
        .containers
        .iter()
        .map(|container| json!({"containersName": container.name, "objectType": container.object_type}))
        .collect();
    let times = [profile.modified, profile.created].map(|at| precise_time(Some(at)));
    rows::scan_profile_detail(
        profile,
        times,
        ["isIgnoreLockedSiteEnabled", "isSendOutOfPolicyNotification"],
        containers,
    )
}

/// Returns the daily report with counts and objects. Removed objects are plain strings.
fn changes(profile: &ScanProfile) -> Value {
    let report = &profile.report;
    let removed: Vec<&str> = report.removed.iter().map(|change| change.object.as_str()).collect();
    let response = json!({
        "profileName": profile.name,
        "profileId": profile.id,
        "tenantDomain": profile.tenant_domain,
        "tenantId": profile.tenant_id,
        "description": profile.description,
        "scanMode": profile.scan_mode,
        "modifiedTime": precise_time(Some(profile.modified)),
        "lastUpdateTime": precise_time(Some(report.updated.unwrap_or(profile.modified))),
        "lastScanStatus": report.status,
        "newRegisteredContentCount": report.new.len(),
        "movedToAnotherContainer": report.moved.len(),
        "removedFromMicrosoft365OrOutofPolicy": report.removed.len(),
        "newRegisteredContent": objects(&report.new),
        "movedToAnotherContainerObjects": objects(&report.moved),
        "removedFromMicrosoft365OrOutOfPolicyObjects": removed,
    });
    with_fields(response, &report.raw_fields)
}

/// Formats a Unix time with seven decimals, such as `2025-09-11T03:21:16.0000000Z`.
fn precise_time(at: Option<i64>) -> String {
    format_time(at, "%Y-%m-%dT%H:%M:%S.0000000Z")
}

/// Formats a Unix time for a row of protected data, such as `09/20/2026T13:00:00Z`.
fn month_first_time(at: Option<i64>) -> String {
    format_time(at, "%m/%d/%YT%H:%M:%SZ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_seven_decimals() {
        assert_eq!(precise_time(Some(1_757_560_876)), "2025-09-11T03:21:16.0000000Z");
        assert_eq!(precise_time(Some(i64::MAX)), "N/A");
    }

    #[test]
    fn protected_data_has_a_different_time_format() {
        assert_eq!(month_first_time(Some(1_789_909_200)), "09/20/2026T13:00:00Z");
        assert_eq!(month_first_time(None), "N/A");
    }
}
