//! A customer and all that is known of it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::generate;
use super::schedule::{self, Run, Schedule};

/// A customer of the partner.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Customer {
    /// The tenant owner id, a UUID unless a test says otherwise.
    pub id: String,
    /// The organization's name.
    pub organization: String,
    /// The owner's masked address.
    pub owner_email: String,
    /// Country or region.
    pub country: String,
    /// The status by its number in the reference.
    pub status: i64,
    /// 0 customer, 1 partner, 2 to be configured.
    pub management_mode: i64,
    /// The tenants.
    pub tenants: Vec<Tenant>,
    /// The modules and their runs.
    pub modules: Vec<Module>,
    /// Protected data, a row per module of Microsoft 365.
    pub protected: Vec<ProtectedRow>,
    /// The subscriptions.
    pub products: Vec<Product>,
    /// The scan profiles.
    pub scan_profiles: Vec<ScanProfile>,
    /// Fields that replace or join those of the customer's JSON.
    pub raw_fields: BTreeMap<String, Value>,
}

/// A tenant of a customer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tenant {
    /// The tenant id.
    pub id: String,
    /// Its domain.
    pub name: String,
}

/// A module of a service that is backed up.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Module {
    /// The job type by number.
    pub job_type: u16,
    /// The job module by number.
    pub number: u16,
    /// The runs, oldest first; a module without runs is listed as one that never ran.
    pub runs: Vec<Run>,
    /// None: nothing runs by itself.
    pub(crate) schedule: Option<Schedule>,
    #[serde(skip)]
    pub(crate) next_slot: i64,
}

/// A row of protected data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProtectedRow {
    /// The service's name, `Cloud Backup for Microsoft 365`.
    pub service_type: String,
    /// The module by number, which each generation spells in its way.
    pub module: u16,
    /// Objects scanned.
    pub total_scanned: u64,
    /// Objects backed up.
    pub total_protected: u64,
    /// Size in the vendor's storage, such as `5.01 GB`.
    pub stored_in_avepoint: String,
    /// Size in the customer's own storage, or `N/A`.
    pub stored_in_byos: String,
    /// Fields that replace or join those of the row's JSON.
    pub raw_fields: BTreeMap<String, Value>,
}

/// A subscription: every field is sent as the string it is here.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields are the reference's")]
pub struct Product {
    pub service: String,
    pub subscription_model: String,
    pub purchased_user_seats: String,
    pub purchased_units: String,
    pub microsoft_license_assigned: String,
    pub microsoft_license_available: String,
    pub purchased_capacity: String,
    pub protected_capacity: String,
    pub storage: String,
    pub retention: String,
    pub consumed_storage: String,
    pub expiration_date: String,
    pub change: String,
    pub source: String,
    pub payment_type: String,
    pub subscription_name: String,
    pub package: String,
    pub contract_end_date: String,
    /// Fields that replace or join those of the subscription's JSON.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw_fields: BTreeMap<String, Value>,
}

/// A scan profile.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScanProfile {
    /// The profile's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// 0 express, 1 advanced.
    pub scan_mode: i64,
    /// What somebody wrote about it.
    pub description: String,
    /// The tenant that it scans.
    pub tenant_id: String,
    /// The domain of that tenant.
    pub tenant_domain: String,
    /// Creation, in Unix seconds.
    pub created: i64,
    /// Last change, in Unix seconds.
    pub modified: i64,
    /// The account that it scans as, if any.
    pub impersonation_account: Option<String>,
    /// Whether in-place archived mailboxes are scanned.
    pub archived_mailboxes: bool,
    /// Whether locked objects are ignored.
    pub ignore_locked: bool,
    /// `No` or `hh:mm`.
    pub daily_scan: String,
    /// Whether objects out of policy cause an e-mail.
    pub out_of_policy_notification: bool,
    /// The containers.
    pub containers: Vec<Container>,
    /// The daily report.
    pub report: DailyReport,
    /// Whether the first generation uses the older of two spellings for this profile's fields.
    pub older_spelling: bool,
    /// Fields that replace or join those of the list's and the detail's JSON.
    pub raw_fields: BTreeMap<String, Value>,
    pub(crate) scans: Scans,
}

/// A container of a scan profile.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// The object type by number.
    pub object_type: u16,
}

/// The daily report of a scan profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DailyReport {
    /// When it was made, in Unix seconds; the profile's last change where there is none yet.
    pub updated: Option<i64>,
    /// The status of the last scan by number.
    pub status: i64,
    /// Objects newly registered.
    pub new: Vec<Change>,
    /// Objects moved to another container.
    pub moved: Vec<Change>,
    /// Objects removed or out of policy.
    pub removed: Vec<Change>,
    /// Fields that replace or join those of the report's JSON.
    pub raw_fields: BTreeMap<String, Value>,
}

/// An object of a daily report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// The object.
    pub object: String,
    /// The container that it is in.
    pub container: String,
}

/// When a profile's scans run and from when on they fail.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Scans {
    pub(crate) key: u64,
    pub(crate) phase: i64,
    pub(crate) period: i64,
    pub(crate) fails_from: Option<i64>,
    /// False: there is no daily scan, and never a report.
    pub(crate) daily: bool,
    #[serde(skip)]
    pub(crate) reported: Option<i64>,
}

impl Customer {
    pub(crate) fn advance(&mut self, kept: usize, now: i64) {
        for module in &mut self.modules {
            let Some(schedule) = &module.schedule else {
                continue;
            };
            let points = schedule::advance(&mut module.runs, &mut module.next_slot, schedule, kept, now);
            if let Some(row) = self.protected.iter_mut().find(|row| row.module == module.number) {
                row.total_scanned = row.total_scanned.saturating_add(points);
                row.total_protected = row.total_protected.saturating_add(points);
            }
        }
        for profile in &mut self.scan_profiles {
            profile.advance(now);
        }
    }
}

impl Module {
    /// A module that has not run and will not run by itself.
    #[must_use]
    pub fn new(job_type: u16, number: u16) -> Self {
        Self {
            job_type,
            number,
            runs: Vec::new(),
            schedule: None,
            next_slot: i64::MIN,
        }
    }

    /// Stops the schedule, so that the runs are whatever a test makes them.
    pub fn freeze(&mut self) {
        self.schedule = None;
    }
}

impl Product {
    /// A subscription to a service of which nothing else is said: `N/A` in every other field.
    #[must_use]
    pub fn new(service: &str) -> Self {
        let absent = || "N/A".to_owned();
        Self {
            service: service.to_owned(),
            subscription_model: absent(),
            purchased_user_seats: absent(),
            purchased_units: absent(),
            microsoft_license_assigned: absent(),
            microsoft_license_available: absent(),
            purchased_capacity: absent(),
            protected_capacity: absent(),
            storage: absent(),
            retention: absent(),
            consumed_storage: absent(),
            expiration_date: absent(),
            change: absent(),
            source: absent(),
            payment_type: absent(),
            subscription_name: absent(),
            package: absent(),
            contract_end_date: absent(),
            raw_fields: BTreeMap::new(),
        }
    }
}

impl ScanProfile {
    fn advance(&mut self, now: i64) {
        let scans = &self.scans;
        if !scans.daily {
            return;
        }
        let slot = now.saturating_sub(scans.phase).div_euclid(scans.period.max(1));
        if scans.reported == Some(slot) {
            return;
        }
        let made = slot.saturating_mul(scans.period).saturating_add(scans.phase);
        let raw_fields = std::mem::take(&mut self.report.raw_fields);
        self.report = DailyReport {
            raw_fields,
            ..generate::report(scans, slot, made, &self.containers)
        };
        self.scans.reported = Some(slot);
    }
}
