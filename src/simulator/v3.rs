//! The second generation: POST for lists with a filter, numbers for words, `data` and `metadata`.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::View;
use super::answer::{Answer, Call, duration, product, with_fields};
use super::customer::{Change, Customer, Module, ProtectedRow, ScanProfile};
use super::names;
use super::schedule::{Run, status};
use super::world;

const CUSTOMERS: &str = "elements.customers.read.all";
const PROTECTED: &str = "elements.cbprotected.read.all";
const LICENSES: &str = "elements.license.read.all";
const JOBS: &str = "elements.jobs.read.all";
const SCAN_PROFILES: &str = "elements.scanprofiles.read.all";

/// Rows of a page where the request does not say.
const DEFAULT_PAGE_SIZE: usize = 50;

/// A request for larger pages is refused.
const LARGEST_PAGE_SIZE: usize = 100;

/// Rows of a page of a job's report at most.
const LARGEST_REPORT_PAGE_SIZE: usize = 1000;

/// Answers a request; `path` is what follows `/partner/external/v3/general`.
pub(super) fn answer(view: View<'_>, call: &Call, path: &[&str]) -> Answer {
    let Some((verb, scope)) = verb_and_scope(path) else {
        return Answer::not_found("resource");
    };
    if call.method != verb {
        return Answer::wrong_verb(verb);
    }
    if let Some(refusal) = view.refusal(scope) {
        return refusal;
    }
    permitted(view, call, path).unwrap_or_else(|refusal| refusal)
}

fn verb_and_scope(path: &[&str]) -> Option<(&'static str, &'static str)> {
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
        _ => None,
    }
}

fn permitted(view: View<'_>, call: &Call, path: &[&str]) -> Result<Answer, Answer> {
    match path {
        ["customers", "batch"] => {
            let (page, filter) = (Page::read(view, call)?, Filter::read(call)?);
            Ok(page.list(&filter.customers(view)?, |found| customer(found)))
        }
        ["customers", "services", "batch"] => {
            let (page, filter) = (Page::read(view, call)?, Filter::read(call)?);
            Ok(page.list(&filter.customers(view)?, |found| services(found)))
        }
        ["customers", id, rest @ ..] => {
            let found = view.world.customer(id).ok_or_else(|| Answer::not_found("customer"))?;
            of_customer(view, call, found, rest)
        }
        _ => Err(Answer::not_found("resource")),
    }
}

fn of_customer(view: View<'_>, call: &Call, found: &Customer, rest: &[&str]) -> Result<Answer, Answer> {
    match rest {
        ["cloud-backup-m365", "overview"] => {
            Ok(Page::read(view, call)?.list(&found.protected, |row| protected(found, row)))
        }
        ["avpt-products", "jobs", "batch"] => jobs(view, call, found),
        ["scan-profiles", "batch"] => {
            let (page, filter) = (Page::read(view, call)?, Filter::read(call)?);
            let wanted = filter.ids("scanProfileIds")?;
            let listed: Vec<&ScanProfile> = found
                .scan_profiles
                .iter()
                .filter(|profile| wanted.as_ref().is_none_or(|ids| ids.contains(&profile.id)))
                .collect();
            Ok(page.list(&listed, |profile| scan_profile(profile)))
        }
        ["scan-profiles", id] => Ok(Answer::json(scan_profile_detail(profile_of(found, id)?))),
        ["scan-profiles", id, _] => Ok(Answer::json(changes(profile_of(found, id)?))),
        ["jobs", _, _] => report_details(call),
        // Third-party tenants and users: the simulated partner has none.
        _ => {
            Filter::read(call)?;
            Ok(Page::read(view, call)?.list::<Value>(&[], Value::clone))
        }
    }
}

fn profile_of<'a>(customer: &'a Customer, id: &str) -> Result<&'a ScanProfile, Answer> {
    customer
        .scan_profiles
        .iter()
        .find(|profile| profile.id == id)
        .ok_or_else(|| Answer::not_found("scan profile"))
}

/// A page as the query asks for it.
#[derive(Clone, Copy)]
struct Page {
    index: usize,
    size: usize,
}

impl Page {
    fn read(view: View<'_>, call: &Call) -> Result<Self, Answer> {
        let index = positive(call, "pageIndex", 1)?;
        let size = positive(call, "pageSize", DEFAULT_PAGE_SIZE)?;
        if size > LARGEST_PAGE_SIZE {
            return Err(bad_request("pageSize is at most 100"));
        }
        Ok(Self {
            index: if view.ignore_paging { 1 } else { index },
            size,
        })
    }

    fn list<T>(self, items: &[T], row: impl Fn(&T) -> Value) -> Answer {
        let skip = self.index.saturating_sub(1).saturating_mul(self.size);
        let rows: Vec<Value> = items.iter().skip(skip).take(self.size).map(row).collect();
        Answer::json(json!({
            "data": rows,
            "metadata": {"pageIndex": self.index, "pageSize": self.size, "totalCount": items.len()},
        }))
    }
}

fn positive(call: &Call, name: &str, default: usize) -> Result<usize, Answer> {
    match call.parameter(name).map(|text| text.parse::<usize>()) {
        None => Ok(default),
        Some(Ok(number)) if number > 0 => Ok(number),
        Some(_) => Err(bad_request(&format!("{name} must be a number from 1"))),
    }
}

/// The body of a POST: an object, empty for everything.
struct Filter(Value);

impl Filter {
    fn read(call: &Call) -> Result<Self, Answer> {
        if call.body.trim().is_empty() {
            return Ok(Self(json!({})));
        }
        match serde_json::from_str(&call.body) {
            Ok(body @ Value::Object(_)) => Ok(Self(body)),
            _ => Err(bad_request("the body must be a JSON object")),
        }
    }

    /// The ids asked for; none: all.
    fn ids(&self, name: &str) -> Result<Option<Vec<String>>, Answer> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(ids)) if ids.is_empty() => Ok(None),
            Some(ids) => serde_json::from_value(ids.clone())
                .map(Some)
                .map_err(|_| bad_request(&format!("{name} must be a list of strings"))),
        }
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Answer> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(number) => number
                .as_u64()
                .map(Some)
                .ok_or_else(|| bad_request(&format!("{name} must be a number"))),
        }
    }

    fn customers<'a>(&self, view: View<'a>) -> Result<Vec<&'a Customer>, Answer> {
        let wanted = self.ids("customerIds")?;
        let listed = view.world.customers.iter();
        Ok(listed
            .filter(|customer| wanted.as_ref().is_none_or(|ids| ids.contains(&customer.id)))
            .collect())
    }
}

fn bad_request(message: &str) -> Answer {
    Answer::error(StatusCode::BAD_REQUEST, message)
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
    let value = json!({
        "customerId": customer.id,
        "customer": customer.owner_email,
        "serviceType": row.service_type,
        "serviceModule": names::module_word(row.module),
        "totalScannedObjects": row.total_scanned,
        "totalProtectedObjects": row.total_protected,
        "dataSizeStoredInAvePoint": row.stored_in_avepoint,
        "dataSizeStoredInBYOS": row.stored_in_byos,
    });
    with_fields(value, &row.raw_fields)
}

fn services(customer: &Customer) -> Value {
    json!({
        "customerId": customer.id,
        "organization": customer.organization,
        "customer": customer.owner_email,
        "products": customer.products.iter().map(product).collect::<Vec<Value>>(),
    })
}

fn jobs(view: View<'_>, call: &Call, customer: &Customer) -> Result<Answer, Answer> {
    let (page, filter) = (Page::read(view, call)?, Filter::read(call)?);
    let (job_type, number) = (filter.number("jobType")?, filter.number("jobModule")?);
    let wanted = |module: &Module| {
        job_type.is_none_or(|wanted| wanted == u64::from(module.job_type))
            && number.is_none_or(|wanted| wanted == u64::from(module.number))
    };
    let listed = world::listed_runs(view.world, customer, view.history, wanted);
    Ok(page.list(&listed, |(module, run)| match run {
        Some(run) => job(module, run),
        None => job_that_never_ran(module),
    }))
}

fn job(module: &Module, run: &Run) -> Value {
    let row = json!({
        "jobType": module.job_type,
        "jobModule": module.number,
        "status": run.status,
        "jobId": run.id,
        "name": run.name,
        "totalCount": run.total.to_string(),
        "failedCount": run.failed.to_string(),
        "successfulCount": run.successful.to_string(),
        "skippedCount": run.skipped.to_string(),
        "warningCount": run.warning.to_string(),
        "backupSize": run.backup_size,
        "startTime": time(run.start),
        "endTime": time(run.end),
        "jobDuration": duration(run.start, run.end),
        "lastModifyTime": time(run.last_modified),
    });
    with_fields(row, &run.raw_fields)
}

fn job_that_never_ran(module: &Module) -> Value {
    let never = Run {
        id: "N/A".to_owned(),
        name: "N/A".to_owned(),
        status: status::NOT_STARTED,
        backup_size: "0 GB".to_owned(),
        ..Run::default()
    };
    job(module, &never)
}

fn report_details(call: &Call) -> Result<Answer, Answer> {
    if positive(call, "pageSize", DEFAULT_PAGE_SIZE)? > LARGEST_REPORT_PAGE_SIZE {
        return Err(bad_request("pageSize is at most 1000"));
    }
    Ok(Answer::json(json!({"data": [], "metadata": {"skipToken": null}})))
}

fn scan_profile(profile: &ScanProfile) -> Value {
    let row = json!({
        "profileName": profile.name,
        "profileId": profile.id,
        "scanMode": profile.scan_mode,
        "modifiedTime": time(Some(profile.modified)),
    });
    with_fields(row, &profile.raw_fields)
}

fn scan_profile_detail(profile: &ScanProfile) -> Value {
    let containers: Vec<Value> = profile
        .containers
        .iter()
        .map(|container| json!({"containersName": container.name, "objectType": container.object_type}))
        .collect();
    let detail = json!({
        "profileName": profile.name,
        "profileId": profile.id,
        "description": profile.description,
        "tenantId": profile.tenant_id,
        "tenantDomain": profile.tenant_domain,
        "scanMode": profile.scan_mode,
        "modifiedTime": time(Some(profile.modified)),
        "createdTime": time(Some(profile.created)),
        "impersonationAccount": profile.impersonation_account,
        "scanInplaceArchivedMailboxes": profile.archived_mailboxes,
        "isIgnoreLockedSiteEnabled": profile.ignore_locked,
        "enableDailyScan": profile.daily_scan,
        "isSendOutOfPolicyNotification": profile.out_of_policy_notification,
        "containers": containers,
    });
    with_fields(detail, &profile.raw_fields)
}

/// The daily report: numbers and objects in one, the removed ones as plain strings.
fn changes(profile: &ScanProfile) -> Value {
    let report = &profile.report;
    let objects = |changes: &[Change]| -> Vec<Value> {
        let object = |change: &Change| json!({"objectName": change.object, "containerName": change.container});
        changes.iter().map(object).collect()
    };
    let removed: Vec<&str> = report.removed.iter().map(|change| change.object.as_str()).collect();
    let answer = json!({
        "profileName": profile.name,
        "profileId": profile.id,
        "tenantDomain": profile.tenant_domain,
        "tenantId": profile.tenant_id,
        "description": profile.description,
        "scanMode": profile.scan_mode,
        "modifiedTime": time(Some(profile.modified)),
        "lastUpdateTime": time(Some(report.updated.unwrap_or(profile.modified))),
        "lastScanStatus": report.status,
        "newRegisteredContentCount": report.new.len(),
        "movedToAnotherContainer": report.moved.len(),
        "removedFromMicrosoft365OrOutofPolicy": report.removed.len(),
        "newRegisteredContent": objects(&report.new),
        "movedToAnotherContainerObjects": objects(&report.moved),
        "removedFromMicrosoft365OrOutOfPolicyObjects": removed,
    });
    with_fields(answer, &report.raw_fields)
}

/// An instant with seven decimals, such as `2025-09-11T03:21:16.0000000Z`.
fn time(at: Option<i64>) -> String {
    at.and_then(|at| jiff::Timestamp::from_second(at).ok()).map_or_else(
        || "N/A".to_owned(),
        |at| at.strftime("%Y-%m-%dT%H:%M:%S.0000000Z").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_seven_decimals() {
        assert_eq!(time(Some(1_757_560_876)), "2025-09-11T03:21:16.0000000Z");
        assert_eq!(time(Some(i64::MAX)), "N/A");
    }
}
