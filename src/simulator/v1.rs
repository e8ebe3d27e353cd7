//! API v1: GET requests only, words for statuses, and OData envelopes.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::customer::{Customer, Module, ProtectedRow};
use super::names;
use super::response::{ApiResponse, Call, product, time, with_fields};
use super::rows::{self, job_row, objects, protected_row, scan_profile_row};
use super::run::status;
use super::scan::{Container, ScanProfile};
use super::schedule::gigabytes;
use super::world::JobRow;
use super::{View, world};

const CUSTOMERS: &str = "partner.customers.read.all";
const PROTECTED: &str = "partner.cbprotected.read.all";
const LICENSES: &str = "partner.license.read.all";
const JOBS: &str = "partner.jobs.read.all";
const SCAN_PROFILES: &str = "partner.scanprofiles.read.all";

/// Job types whose finished runs have the status `Successful` instead of `Finished`.
const SUCCESSFUL_TYPES: [u16; 2] = [15, 16];

/// Job types whose runs in progress have the status `Not Finished`.
const NOT_FINISHED_TYPES: [u16; 1] = [11];

/// Returns the response to a request. `path` is the part after `/partner` and the optional `/api/V1.1`.
pub(super) fn respond(view: View<'_>, call: &Call, path: &[&str]) -> ApiResponse {
    let scope = match path {
        ["customers"] | ["customers", _] => CUSTOMERS,
        ["customers", _, "protected"] => PROTECTED,
        ["services"] | ["services", _] => LICENSES,
        ["customers", _, "jobs"] | ["customers", _, "jobs", "jobType", _, "jobModule", _] => JOBS,
        ["customers", _, "scanProfiles"]
        | ["customers", _, "scanProfiles", _]
        | ["customers", _, "scanProfiles", _, "dailyNewSummary" | "dailyNewDetails"] => SCAN_PROFILES,
        _ => return ApiResponse::not_found("resource"),
    };
    if call.method != "GET" {
        return ApiResponse::method_not_allowed("GET");
    }
    if let Some(error_response) = view.error_response(scope) {
        return error_response;
    }
    let page = Pages { view, call };
    match path {
        ["customers"] => page.list("Customers", &view.world.customers, customer),
        ["services"] => page.list("Collection(Portal.Api.Model.Service)", &view.world.customers, services),
        ["customers" | "services", id, rest @ ..] => match view.world.customer(id) {
            Some(found) => of_customer(page, found, path, rest),
            None => ApiResponse::not_found("customer"),
        },
        _ => ApiResponse::not_found("resource"),
    }
}

fn of_customer(page: Pages<'_>, found: &Customer, path: &[&str], rest: &[&str]) -> ApiResponse {
    match rest {
        [] if path.first() == Some(&"services") => page.entity("Services/$entity", services(found)),
        [] => page.entity("Customers/$entity", customer(found)),
        ["protected"] => {
            let row = |row: &ProtectedRow| protected(found, row);
            page.list(
                "Collection(Portal.Api.Model.CustomerOverallProtected)",
                &merge_tenants(&found.protected),
                row,
            )
        }
        ["jobs"] => jobs(page, found, |_| true),
        ["jobs", "jobType", job_type, "jobModule", module] => {
            let (Some(job_type), Some(number)) = (names::job_type_number(job_type), names::module_number(module))
            else {
                return ApiResponse::error(StatusCode::BAD_REQUEST, "no such job type or module");
            };
            jobs(page, found, |module| {
                module.job_type == job_type && module.number == number
            })
        }
        ["scanProfiles"] => page.list(
            "Collection(Portal.Api.Model.ScanProfile)",
            &found.scan_profiles,
            scan_profile,
        ),
        ["scanProfiles", id, rest @ ..] => match (found.scan_profiles.iter().find(|profile| profile.id == *id), rest) {
            (None, _) => ApiResponse::not_found("scan profile"),
            (Some(profile), []) => page.entity("ScanProfiles/$entity", scan_profile_detail(profile)),
            (Some(profile), ["dailyNewSummary"]) => page.entity("DailyNewSummary", daily_summary(profile)),
            (Some(profile), _) => page.entity("DailyNewDetails", daily_details(profile)),
        },
        _ => ApiResponse::not_found("resource"),
    }
}

/// Formats lists as pages, and wraps responses in envelopes.
#[derive(Clone, Copy)]
struct Pages<'a> {
    view: View<'a>,
    call: &'a Call,
}

impl Pages<'_> {
    fn list<T>(self, context: &str, items: &[T], row: impl Fn(&T) -> Value) -> ApiResponse {
        let size = self.view.v1_page_size.unwrap_or(usize::MAX).max(1);
        let requested = self
            .call
            .parameter("$skip")
            .and_then(|skip| skip.parse().ok())
            .unwrap_or(0);
        let skip: usize = if self.view.ignore_paging { 0 } else { requested };
        let rows: Vec<Value> = items.iter().skip(skip).take(size).map(row).collect();
        let mut body = json!({"@odata.context": self.context(context), "value": rows});
        let next = skip.saturating_add(size);
        if let Some(object) = body.as_object_mut()
            && next < items.len()
        {
            let link = format!("{}{}?$skip={next}", self.call.origin, self.call.path);
            object.insert("@odata.nextLink".to_owned(), json!(link));
        }
        ApiResponse::json(body)
    }

    fn entity(self, context: &str, mut entity: Value) -> ApiResponse {
        if let Value::Object(object) = &mut entity {
            object.insert("@odata.context".to_owned(), json!(self.context(context)));
        }
        ApiResponse::json(entity)
    }

    fn context(self, name: &str) -> String {
        format!("{}/partner/$metadata#{name}", self.call.origin)
    }
}

fn customer(customer: &Customer) -> Value {
    let row = json!({
        "id": customer.id,
        "organization": customer.organization,
        "ownerEmail": customer.owner_email,
        "jobStatus": names::customer_status_word(customer.status),
        "countryOrRegion": customer.country,
    });
    with_fields(row, &customer.raw_fields)
}

fn protected(customer: &Customer, row: &ProtectedRow) -> Value {
    with_fields(protected_row(customer, row), &row.raw_fields)
}

/// Merges a module's rows for several tenants, because API v1 does not distinguish tenants.
fn merge_tenants(rows: &[ProtectedRow]) -> Vec<ProtectedRow> {
    let mut modules: Vec<ProtectedRow> = Vec::new();
    for row in rows {
        let same = |merged: &&mut ProtectedRow| merged.module == row.module && merged.tenant_id.is_some();
        match modules.iter_mut().find(same) {
            Some(merged) if row.tenant_id.is_some() => add(merged, row),
            _ => modules.push(row.clone()),
        }
    }
    modules
}

fn add(sum: &mut ProtectedRow, row: &ProtectedRow) {
    sum.total_scanned = sum.total_scanned.saturating_add(row.total_scanned);
    sum.total_protected = sum.total_protected.saturating_add(row.total_protected);
    sum.stored_in_avepoint = sum_of_sizes(&sum.stored_in_avepoint, &row.stored_in_avepoint);
    sum.stored_in_byos = sum_of_sizes(&sum.stored_in_byos, &row.stored_in_byos);
}

fn sum_of_sizes(one: &str, other: &str) -> String {
    match (hundredths(one), hundredths(other)) {
        (Some(one), Some(other)) => gigabytes(one.saturating_add(other)),
        (Some(_), None) => one.to_owned(),
        (None, _) => other.to_owned(),
    }
}

/// Parses a size formatted by the simulator. Returns hundredths of a gigabyte.
fn hundredths(size: &str) -> Option<u64> {
    let (whole, hundredths) = size
        .strip_suffix(" GB")
        .map(|size| size.split_once('.').unwrap_or((size, "0")))?;
    let (whole, hundredths): (u64, u64) = (whole.parse().ok()?, hundredths.parse().ok()?);
    Some(whole.saturating_mul(100).saturating_add(hundredths))
}

fn services(customer: &Customer) -> Value {
    let tenants: Vec<&str> = customer.tenants.iter().map(|tenant| tenant.id.as_str()).collect();
    json!({
        "customerId": customer.id,
        "organization": customer.organization,
        "customer": customer.owner_email,
        "tenantId": tenants.join(","),
        "products": customer.products.iter().map(product).collect::<Vec<Value>>(),
    })
}

fn jobs(page: Pages<'_>, customer: &Customer, is_selected: impl Fn(&Module) -> bool) -> ApiResponse {
    let rows = world::job_rows(page.view.world, customer, page.view.history, is_selected);
    page.list("Collection(Portal.Api.Model.BackUpJob)", &rows, job)
}

fn job(row: &JobRow<'_>) -> Value {
    let Module { job_type, number, .. } = *row.module;
    let status = status_word(job_type, row.run.status);
    job_row(
        row,
        json!(names::job_type_word(job_type)),
        json!(names::module_word(number)),
        json!(status),
    )
}

fn status_word(job_type: u16, number: i64) -> String {
    match number {
        status::FINISHED if SUCCESSFUL_TYPES.contains(&job_type) => "Successful".to_owned(),
        status::RUNNING if NOT_FINISHED_TYPES.contains(&job_type) => "Not Finished".to_owned(),
        number => names::job_status_word(number),
    }
}

fn scan_profile(profile: &ScanProfile) -> Value {
    scan_profile_row(profile, &time(Some(profile.modified)))
}

fn scan_profile_detail(profile: &ScanProfile) -> Value {
    let (ignore_locked, notification) = if profile.older_spelling {
        (
            "ignoreTheLockedObjectsWhenUpdatingTheJobStatus",
            "SendAnemailNotificationToTheFollowIngRecipientsWhenObjectsAreMovedTooTherContainerOrRemovedFromAnyContainers",
        )
    } else {
        ("isIgnoreLockedSiteEnabled", "isSendOutOfPolicyNotification")
    };
    let containers: Vec<Value> = profile
        .containers
        .iter()
        .map(|item| container(item, profile.older_spelling))
        .collect();
    let times = [profile.modified, profile.created].map(|at| time(Some(at)));
    rows::scan_profile_detail(profile, times, [ignore_locked, notification], containers)
}

fn container(container: &Container, older_spelling: bool) -> Value {
    let word = names::object_type_word(container.object_type);
    if older_spelling {
        json!({"ContainersName": container.name, "ObjectType": word})
    } else {
        json!({"containersName": container.name, "objectType": word})
    }
}

fn daily_summary(profile: &ScanProfile) -> Value {
    let report = &profile.report;
    let (new, moved, removed) = if profile.older_spelling {
        (
            "newRegistedContentCount",
            "movedToAnotherContainerObjects",
            "removedFromMicrosoft365OrOutofPolicyObjects",
        )
    } else {
        (
            "newRegisteredContentCount",
            "movedToAnotherContainer",
            "removedFromMicrosoft365OrOutofPolicy",
        )
    };
    let summary = json!({
        "profileName": profile.name,
        "profileID": profile.id,
        "tenantDomain": profile.tenant_domain,
        "tenantID": profile.tenant_id,
        "description": profile.description,
        "scanMode": profile.scan_mode,
        "modifiedTime": time(Some(profile.modified)),
        "lastUpdateTime": time(Some(report.updated.unwrap_or(profile.modified))),
        "lastScanStatus": report.status,
        new: report.new.len(),
        moved: report.moved.len(),
        removed: report.removed.len(),
    });
    with_fields(summary, &report.raw_fields)
}

fn daily_details(profile: &ScanProfile) -> Value {
    let report = &profile.report;
    let new = if profile.older_spelling {
        "newRegistedContent"
    } else {
        "newRegisteredContent"
    };
    let details = json!({
        "profileName": profile.name,
        "profileID": profile.id,
        "tenantDomain": profile.tenant_domain,
        "tenantID": profile.tenant_id,
        "lastUpdateTime": time(Some(report.updated.unwrap_or(profile.modified))),
        new: objects(&report.new),
        "movedToAnotherContainerObjects": objects(&report.moved),
        "removedFromMicrosoft365OrOutOfPolicyObjects": objects(&report.removed),
    });
    with_fields(details, &report.raw_fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_several_tenants_are_merged() {
        let row = |tenant: Option<&str>, module, size: &str| ProtectedRow {
            tenant_id: tenant.map(str::to_owned),
            module,
            total_scanned: 10,
            total_protected: 9,
            stored_in_avepoint: size.to_owned(),
            stored_in_byos: "N/A".to_owned(),
            ..ProtectedRow::default()
        };
        let rows = [
            row(Some("a"), 302, "1.95 GB"),
            row(Some("a"), 303, "0 GB"),
            row(Some("b"), 302, "0.10 GB"),
            row(None, 305, "3 GB"),
        ];
        let merged = merge_tenants(&rows);
        let merged: Vec<_> = merged
            .iter()
            .map(|row| {
                (
                    row.module,
                    row.total_scanned,
                    &*row.stored_in_avepoint,
                    &*row.stored_in_byos,
                )
            })
            .collect();
        assert_eq!(
            merged,
            [
                (302, 20, "2.05 GB", "N/A"),
                (303, 10, "0 GB", "N/A"),
                (305, 10, "3 GB", "N/A")
            ]
        );
    }

    #[test]
    fn status_words_depend_on_the_service() {
        assert_eq!(status_word(7, 2), "Finished");
        assert_eq!(status_word(15, 2), "Successful");
        assert_eq!(status_word(7, 1), "In Progress");
        assert_eq!(status_word(11, 1), "Not Finished");
        assert_eq!(status_word(7, 4), "Finished with Exception");
        assert_eq!(status_word(7, 99), "99");
    }
}
