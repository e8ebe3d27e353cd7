//! Parts of responses that are the same in both API versions.

use serde_json::{Value, json};

use super::customer::{Customer, ProtectedRow};
use super::names;
use super::response::{duration, time, with_fields};
use super::scan::{Change, ScanProfile};
use super::world::JobRow;

/// Returns the row of a run. Type, module and status are passed in, because each API version formats them differently.
pub(super) fn job_row(
    JobRow { run, last_modified, .. }: &JobRow<'_>,
    job_type: Value,
    module: Value,
    status: Value,
) -> Value {
    let row = json!({
        "jobType": job_type,
        "jobModule": module,
        "status": status,
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
        "lastModifyTime": time(*last_modified),
    });
    with_fields(row, &run.raw_fields)
}

/// Returns the row of a module's protected data, without `raw_fields`.
pub(super) fn protected_row(customer: &Customer, row: &ProtectedRow) -> Value {
    json!({
        "customerId": customer.id,
        "customer": customer.owner_email,
        "serviceType": row.service_type,
        "serviceModule": names::protected_word(row.module),
        "totalScannedObjects": row.total_scanned,
        "totalProtectedObjects": row.total_protected,
        "dataSizeStoredInAvePoint": row.stored_in_avepoint,
        "dataSizeStoredInBYOS": row.stored_in_byos,
    })
}

/// Returns the row of a scan profile.
pub(super) fn scan_profile_row(profile: &ScanProfile, modified: &str) -> Value {
    let row = json!({
        "profileName": profile.name,
        "profileId": profile.id,
        "scanMode": profile.scan_mode,
        "modifiedTime": modified,
    });
    with_fields(row, &profile.raw_fields)
}

/// Returns the settings of a scan profile. The formatted times, the names of two fields, and the containers are passed
/// in, because they differ between the API versions.
pub(super) fn scan_profile_detail(
    profile: &ScanProfile,
    [modified, created]: [String; 2],
    [ignore_locked, notification]: [&str; 2],
    containers: Vec<Value>,
) -> Value {
    let detail = json!({
        "profileName": profile.name,
        "profileId": profile.id,
        "description": profile.description,
        "tenantId": profile.tenant_id,
        "tenantDomain": profile.tenant_domain,
        "scanMode": profile.scan_mode,
        "modifiedTime": modified,
        "createdTime": created,
        "impersonationAccount": profile.impersonation_account,
        "scanInplaceArchivedMailboxes": profile.archived_mailboxes,
        ignore_locked: profile.ignore_locked,
        "enableDailyScan": profile.daily_scan,
        notification: profile.out_of_policy_notification,
        "containers": containers,
    });
    with_fields(detail, &profile.raw_fields)
}

/// Returns the objects of a daily report.
pub(super) fn objects(changes: &[Change]) -> Vec<Value> {
    let object = |change: &Change| json!({"objectName": change.object, "containerName": change.container});
    changes.iter().map(object).collect()
}
