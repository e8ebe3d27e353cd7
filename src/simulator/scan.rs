//! Scan profiles and their daily reports.

use std::collections::BTreeMap;

use serde_json::Value;

use super::rng::SeededRng;

/// A scan profile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScanProfile {
    /// Id of the profile.
    pub id: String,
    /// Name of the profile.
    pub name: String,
    /// Scan mode: 0 for express, 1 for advanced.
    pub scan_mode: i64,
    /// Free-text description.
    pub description: String,
    /// Id of the scanned tenant.
    pub tenant_id: String,
    /// Domain of the scanned tenant.
    pub tenant_domain: String,
    /// Time of creation, as Unix time.
    pub created: i64,
    /// Time of the last modification, as Unix time.
    pub modified: i64,
    /// Account used for the scan, if any.
    pub impersonation_account: Option<String>,
    /// Whether in-place archived mailboxes are scanned.
    pub archived_mailboxes: bool,
    /// Whether locked objects are ignored in the job status.
    pub ignore_locked: bool,
    /// Time of the daily scan as `hh:mm`, or `No` if there is none.
    pub daily_scan: String,
    /// Whether an email reports moved and removed objects.
    pub out_of_policy_notification: bool,
    /// Containers that the profile scans.
    pub containers: Vec<Container>,
    /// Latest daily report.
    pub report: DailyReport,
    /// Whether API v1 uses the older of two spellings of the field names.
    pub older_spelling: bool,
    /// Fields to add to the profile's JSON, in the list and in the response with its details, replacing fields with the
    /// same names.
    pub raw_fields: BTreeMap<String, Value>,
    pub(crate) scans: Scans,
}

/// A container of a scan profile.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// Name of the container.
    pub name: String,
    /// Number of the object type.
    pub object_type: u16,
}

/// The daily report of a scan profile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DailyReport {
    /// Unix time of the report. Without it, the time of the profile's last modification is sent.
    pub updated: Option<i64>,
    /// Status number of the latest scan.
    pub status: i64,
    /// Newly registered objects.
    pub new: Vec<Change>,
    /// Objects moved to another container.
    pub moved: Vec<Change>,
    /// Objects deleted from Microsoft 365 or no longer covered by a policy.
    pub removed: Vec<Change>,
    /// Fields to add to the report's JSON, replacing fields with the same names.
    pub raw_fields: BTreeMap<String, Value>,
}

/// An object listed in a daily report.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Name of the object.
    pub object: String,
    /// The object's container.
    pub container: String,
}

/// Schedule of a profile's scans, and their results.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Scans {
    pub(crate) key: u64,
    pub(crate) phase: i64,
    pub(crate) period: i64,
    pub(crate) fails_from: Option<i64>,
    /// Whether scans end with various statuses.
    pub(crate) is_odd: bool,
    /// Whether there is a daily scan. Without it, the report never changes.
    pub(crate) daily: bool,
    pub(crate) reported: Option<i64>,
}

impl ScanProfile {
    /// Generates the latest report that is due by `now`.
    pub(crate) fn advance(&mut self, now: i64) {
        let scans = &self.scans;
        if !scans.daily {
            return;
        }
        let slot = now.saturating_sub(scans.phase).div_euclid(scans.period.max(1));
        if scans.reported == Some(slot) {
            return;
        }
        let created_at = slot.saturating_mul(scans.period).saturating_add(scans.phase);
        let raw_fields = std::mem::take(&mut self.report.raw_fields);
        self.report = DailyReport {
            raw_fields,
            ..report(scans, slot, created_at, &self.containers)
        };
        self.scans.reported = Some(slot);
    }
}

/// Returns the daily report of a slot.
fn report(scans: &Scans, slot: i64, created_at: i64, containers: &[Container]) -> DailyReport {
    let mut rng = SeededRng::from_path(&[scans.key, slot.cast_unsigned()]);
    let failed = scans.fails_from.is_some_and(|from| created_at >= from);
    let status = match rng.below(20) {
        _ if failed => 3,
        _ if !scans.is_odd => 2,
        0 => 4,
        1 => 5,
        2 => 10,
        _ => 2,
    };
    let mut report = DailyReport {
        updated: Some(created_at),
        status,
        ..DailyReport::default()
    };
    if matches!(status, 2 | 4) {
        report.new = changes(&mut rng, 6, containers);
        report.moved = changes(&mut rng, 3, containers);
        report.removed = changes(&mut rng, 3, containers);
    }
    report
}

fn changes(rng: &mut SeededRng, maximum: u64, containers: &[Container]) -> Vec<Change> {
    let names: Vec<&str> = containers.iter().map(|container| container.name.as_str()).collect();
    (0..rng.below(maximum))
        .map(|_| Change {
            object: format!("user{}@example.com", rng.below(10_000)),
            container: rng.pick(&names).to_owned(),
        })
        .collect()
}
