//! A customer and its data.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::run::{ABSENT, Run};
use super::scan::ScanProfile;
use super::schedule::{self, Schedule, gigabytes};
use super::services::Services;

/// A customer of the partner.
#[derive(Clone, Debug, PartialEq)]
pub struct Customer {
    /// The customer's id, called "tenant owner ID" in the reference; by default a UUID.
    pub id: String,
    /// The organization's name.
    pub organization: String,
    /// The owner's email address, which the API may mask.
    pub owner_email: String,
    /// Country or region.
    pub country: String,
    /// Number of the status in the reference.
    pub status: i64,
    /// Management mode: 0 for `customer`, 1 for `partner`, 2 for `to be configured`.
    pub management_mode: i64,
    /// Tenants of the customer.
    pub tenants: Vec<Tenant>,
    /// Modules of the customer, with their runs.
    pub modules: Vec<Module>,
    /// Protected data of Microsoft 365, by module and sometimes also by tenant.
    pub protected: Vec<ProtectedRow>,
    /// Subscriptions of the customer.
    pub products: Vec<Product>,
    /// Scan profiles of the customer.
    pub scan_profiles: Vec<ScanProfile>,
    /// Fields to add to the customer's JSON, replacing fields with the same names.
    pub raw_fields: BTreeMap<String, Value>,
}

/// A tenant of a customer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tenant {
    /// The tenant id.
    pub id: String,
    /// The tenant's domain.
    pub name: String,
    /// The tenant's seats, users, consent, signs of ransomware and baselines.
    pub services: Services,
}

/// A module of a service, or one of its backup scopes.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    /// Number of the job type.
    pub job_type: u16,
    /// Number of the job module.
    pub number: u16,
    /// Backup scope. Several modules can have the same number and different scopes.
    pub scope: Option<String>,
    /// Runs, oldest first, or a single row that never changes. If the list is empty, the module is listed as not
    /// started.
    pub runs: Vec<Run>,
    /// Schedule of further runs; `None` if there will be none.
    pub(crate) schedule: Option<Schedule>,
    pub(crate) next_slot: i64,
}

/// A row of protected data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProtectedRow {
    /// Id of the tenant; `None` if the API does not report it. API v1 merges the rows of several tenants.
    pub tenant_id: Option<String>,
    /// The service's name, `Cloud Backup for Microsoft 365`.
    pub service_type: String,
    /// Number of the module. Both API versions send the module's name instead of the number.
    pub module: u16,
    /// Number of scanned objects.
    pub total_scanned: u64,
    /// Number of backed-up objects.
    pub total_protected: u64,
    /// Size in the vendor's storage, such as `5.01 GB`.
    pub stored_in_avepoint: String,
    /// Size in the customer's own storage, or `N/A`.
    pub stored_in_byos: String,
    /// Unix time at which the latest completed run ended; reported by API v3 in rows with a tenant.
    pub last_run: Option<i64>,
    /// Fields to add to the row's JSON, replacing fields with the same names.
    pub raw_fields: BTreeMap<String, Value>,
    pub(crate) growth: Option<Growth>,
}

/// Growth of the stored size. The size depends only on the time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Growth {
    /// Size at `since`, in hundredths of a gigabyte.
    pub(crate) stored: u64,
    /// Daily growth in parts per million.
    pub(crate) daily: i64,
    pub(crate) since: i64,
}

/// A subscription. Every field except `raw_fields` is a string that is sent unchanged.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields are named as in the vendor's reference")]
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
    /// Fields to add to the subscription's JSON, replacing fields with the same names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw_fields: BTreeMap<String, Value>,
}

impl Customer {
    pub(crate) fn advance(&mut self, max_runs: usize, now: i64) {
        for module in &mut self.modules {
            let Some(schedule) = &module.schedule else {
                continue;
            };
            let points = schedule::advance(&mut module.runs, &mut module.next_slot, schedule, max_runs, now);
            let newest = module.runs.iter().rev().find_map(|run| run.end);
            for row in self.protected.iter_mut().filter(|row| row.module == module.number) {
                row.advance(points, newest, now);
            }
        }
        for profile in &mut self.scan_profiles {
            profile.advance(now);
        }
    }
}

impl ProtectedRow {
    /// Updates the row to `now`. `restore_points` is the number of new restore points of its module.
    fn advance(&mut self, restore_points: u64, newest_end: Option<i64>, now: i64) {
        if self.tenant_id.is_some() {
            self.last_run = newest_end.or(self.last_run);
        }
        match self.growth {
            None => {
                self.total_scanned = self.total_scanned.saturating_add(restore_points);
                self.total_protected = self.total_protected.saturating_add(restore_points);
            }
            Some(growth) if self.stored_in_byos == ABSENT => self.stored_in_avepoint = gigabytes(growth.at(now)),
            Some(growth) => self.stored_in_byos = gigabytes(growth.at(now)),
        }
    }
}

impl Growth {
    fn at(self, now: i64) -> u64 {
        const PARTS: i64 = 86_400 * 1_000_000;
        let stored = i64::try_from(self.stored).unwrap_or(i64::MAX);
        let parts = now.saturating_sub(self.since).saturating_mul(self.daily);
        let size = i128::from(stored) + i128::from(stored) * i128::from(parts) / i128::from(PARTS);
        u64::try_from(size).unwrap_or(0)
    }
}

impl Module {
    /// Returns a module without runs and without a schedule.
    #[must_use]
    pub fn new(job_type: u16, number: u16) -> Self {
        Self {
            job_type,
            number,
            scope: None,
            runs: Vec::new(),
            schedule: None,
            next_slot: i64::MIN,
        }
    }

    /// Returns a module whose only row never changes.
    pub(crate) fn fixed(job_type: u16, number: u16, run: Run) -> Self {
        Self {
            runs: vec![run],
            ..Self::new(job_type, number)
        }
    }
}

impl Product {
    /// Returns a subscription to a service with `N/A` in every other field.
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
