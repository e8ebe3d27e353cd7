//! The first generation: all GET, words for statuses, OData envelopes.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::answer::{Answer, Call, duration, product, with_fields};
use super::customer::{Change, Container, Customer, Module, ProtectedRow, ScanProfile};
use super::names;
use super::schedule::{Run, status};
use super::{View, world};

const CUSTOMERS: &str = "partner.customers.read.all";
const PROTECTED: &str = "partner.cbprotected.read.all";
const LICENSES: &str = "partner.license.read.all";
const JOBS: &str = "partner.jobs.read.all";
const SCAN_PROFILES: &str = "partner.scanprofiles.read.all";

/// Job types whose finished runs are called `Successful`, a word seen beside `Finished`.
const SUCCESSFUL_TYPES: [u16; 2] = [15, 16];

/// Job types whose runs in progress are called `Not Finished`.
const NOT_FINISHED_TYPES: [u16; 1] = [11];

/// Answers a request; `path` is what follows `/partner`.
pub(super) fn answer(view: View<'_>, call: &Call, path: &[&str]) -> Answer {
    let scope = match path {
        ["customers"] | ["customers", _] => CUSTOMERS,
        ["customers", _, "protected"] => PROTECTED,
        ["services"] | ["services", _] => LICENSES,
        ["customers", _, "jobs"] | ["customers", _, "jobs", "jobType", _, "jobModule", _] => JOBS,
        ["customers", _, "scanProfiles"]
        | ["customers", _, "scanProfiles", _]
        | ["customers", _, "scanProfiles", _, "dailyNewSummary" | "dailyNewDetails"] => SCAN_PROFILES,
        _ => return Answer::not_found("resource"),
    };
    if call.method != "GET" {
        return Answer::wrong_verb("GET");
    }
    if let Some(refusal) = view.refusal(scope) {
        return refusal;
    }
    let page = Pages { view, call };
    match path {
        ["customers"] => page.list("Customers", &view.world.customers, customer),
        ["services"] => page.list("Collection(Portal.Api.Model.Service)", &view.world.customers, services),
        ["customers" | "services", id, rest @ ..] => match view.world.customer(id) {
            Some(found) => of_customer(page, found, path, rest),
            None => Answer::not_found("customer"),
        },
        _ => Answer::not_found("resource"),
    }
}

fn of_customer(page: Pages<'_>, found: &Customer, path: &[&str], rest: &[&str]) -> Answer {
    match rest {
        [] if path.first() == Some(&"services") => page.entity("Services/$entity", services(found)),
        [] => page.entity("Customers/$entity", customer(found)),
        ["protected"] => {
            let row = |row: &ProtectedRow| protected(found, row);
            page.list(
                "Collection(Portal.Api.Model.CustomerOverallProtected)",
                &found.protected,
                row,
            )
        }
        ["jobs"] => jobs(page, found, |_| true),
        ["jobs", "jobType", job_type, "jobModule", module] => {
            let (Some(job_type), Some(number)) = (names::job_type_number(job_type), names::module_number(module))
            else {
                return Answer::error(StatusCode::BAD_REQUEST, "no such job type or module");
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
            (None, _) => Answer::not_found("scan profile"),
            (Some(profile), []) => page.entity("ScanProfiles/$entity", scan_profile_detail(profile)),
            (Some(profile), ["dailyNewSummary"]) => page.entity("DailyNewSummary", daily_summary(profile)),
            (Some(profile), _) => page.entity("DailyNewDetails", daily_details(profile)),
        },
        _ => Answer::not_found("resource"),
    }
}

/// Envelopes, and lists cut in pages.
#[derive(Clone, Copy)]
struct Pages<'a> {
    view: View<'a>,
    call: &'a Call,
}

impl Pages<'_> {
    fn list<T>(self, context: &str, items: &[T], row: impl Fn(&T) -> Value) -> Answer {
        let size = self.view.v1_page_size.unwrap_or(usize::MAX).max(1);
        let asked = self
            .call
            .parameter("$skip")
            .and_then(|skip| skip.parse().ok())
            .unwrap_or(0);
        let skip: usize = if self.view.ignore_paging { 0 } else { asked };
        let rows: Vec<Value> = items.iter().skip(skip).take(size).map(row).collect();
        let mut body = json!({"@odata.context": self.context(context), "value": rows});
        let next = skip.saturating_add(size);
        if let Some(object) = body.as_object_mut()
            && next < items.len()
        {
            let link = format!("{}{}?$skip={next}", self.call.origin, self.call.path);
            object.insert("@odata.nextLink".to_owned(), json!(link));
        }
        Answer::json(body)
    }

    fn entity(self, context: &str, mut entity: Value) -> Answer {
        if let Value::Object(object) = &mut entity {
            object.insert("@odata.context".to_owned(), json!(self.context(context)));
        }
        Answer::json(entity)
    }

    fn context(self, what: &str) -> String {
        format!("{}/partner/$metadata#{what}", self.call.origin)
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
    let word = match row.module {
        // The plural of this one is written in the lists of jobs only.
        304 => "Microsoft 365 Group".to_owned(),
        number => names::module_word(number),
    };
    let value = json!({
        "customerId": customer.id,
        "customer": customer.owner_email,
        "serviceType": row.service_type,
        "serviceModule": word,
        "totalScannedObjects": row.total_scanned,
        "totalProtectedObjects": row.total_protected,
        "dataSizeStoredInAvePoint": row.stored_in_avepoint,
        "dataSizeStoredInBYOS": row.stored_in_byos,
    });
    with_fields(value, &row.raw_fields)
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

fn jobs(page: Pages<'_>, customer: &Customer, wanted: impl Fn(&Module) -> bool) -> Answer {
    let listed = world::listed_runs(page.view.world, customer, page.view.history, wanted);
    page.list(
        "Collection(Portal.Api.Model.BackUpJob)",
        &listed,
        |(module, run)| match run {
            Some(run) => job(module, run),
            None => job_that_never_ran(module),
        },
    )
}

fn job(module: &Module, run: &Run) -> Value {
    let row = json!({
        "jobType": names::job_type_word(module.job_type),
        "jobModule": names::module_word(module.number),
        "status": status_word(module.job_type, run.status),
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
    json!({
        "jobType": names::job_type_word(module.job_type),
        "jobModule": names::module_word(module.number),
        "status": "Not Finished",
        "jobId": "N/A",
        "name": "N/A",
        "totalCount": "0",
        "failedCount": "0",
        "successfulCount": "0",
        "skippedCount": "0",
        "warningCount": "0",
        "backupSize": "0 GB",
        "startTime": "N/A",
        "endTime": "N/A",
        "jobDuration": "N/A",
        "lastModifyTime": "N/A",
    })
}

fn status_word(job_type: u16, number: i64) -> String {
    match number {
        status::FINISHED if SUCCESSFUL_TYPES.contains(&job_type) => "Successful".to_owned(),
        status::RUNNING if NOT_FINISHED_TYPES.contains(&job_type) => "Not Finished".to_owned(),
        number => names::job_status_word(number),
    }
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
        .map(|held| container(held, profile.older_spelling))
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
        ignore_locked: profile.ignore_locked,
        "enableDailyScan": profile.daily_scan,
        notification: profile.out_of_policy_notification,
        "containers": containers,
    });
    with_fields(detail, &profile.raw_fields)
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
    let objects = |changes: &[Change]| -> Vec<Value> {
        let object = |change: &Change| json!({"objectName": change.object, "containerName": change.container});
        changes.iter().map(object).collect()
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

/// An instant in whole seconds, such as `2025-09-11T03:21:16Z`.
fn time(at: Option<i64>) -> String {
    at.and_then(|at| jiff::Timestamp::from_second(at).ok())
        .map_or_else(|| "N/A".to_owned(), |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_whole_seconds() {
        assert_eq!(time(Some(1_757_560_876)), "2025-09-11T03:21:16Z");
        assert_eq!(time(None), "N/A");
    }

    #[test]
    fn some_services_have_their_own_words() {
        assert_eq!(status_word(7, 2), "Finished");
        assert_eq!(status_word(15, 2), "Successful");
        assert_eq!(status_word(7, 1), "In Progress");
        assert_eq!(status_word(11, 1), "Not Finished");
        assert_eq!(status_word(7, 4), "Finished with Exception");
        assert_eq!(status_word(7, 99), "99");
    }
}
