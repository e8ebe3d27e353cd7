//! A customer's protected data, and its size.

use super::modules::{ONEDRIVE, POWER_PLATFORM, TEAMS_CHAT};
use super::{CustomerGenerator, MICROSOFT_365, Scenario};
use crate::simulator::customer::{Growth, Module, ProtectedRow, Tenant};
use crate::simulator::run::{ABSENT, NO_SIZE};

/// Modules in the order of the overview, including those without backups.
const LISTED: [u16; 12] = [303, 304, 308, 305, 309, 312, 311, 310, 306, 307, 302, 402];

impl CustomerGenerator<'_> {
    pub(super) fn protected(&mut self, modules: &[Module], tenants: &[Tenant]) -> Vec<ProtectedRow> {
        if !self.has(MICROSOFT_365) {
            return Vec::new();
        }
        let mut rows = Vec::new();
        for number in LISTED {
            if POWER_PLATFORM.contains(&number) && !self.has_power_platform() {
                continue;
            }
            let is_backed_up = modules
                .iter()
                .any(|module| module.job_type == MICROSOFT_365 && module.number == number && module.schedule.is_some());
            for tenant in self.tenants_of(number, tenants) {
                rows.push(self.protected_row(number, tenant, is_backed_up));
            }
        }
        rows
    }

    /// Returns the tenants of a module's rows, one per row. About a third of the customers have rows per tenant, and a
    /// few have them only for some modules.
    fn tenants_of(&self, number: u16, tenants: &[Tenant]) -> Vec<Option<String>> {
        let by_tenant = match self.scenario {
            Scenario::Busiest => true,
            Scenario::Healthy if self.index % 12 == 5 => matches!(number, 302 | 303),
            _ => self.index.is_multiple_of(3),
        };
        if by_tenant {
            tenants.iter().map(|tenant| Some(tenant.id.clone())).collect()
        } else {
            vec![None]
        }
    }

    fn protected_row(&mut self, number: u16, tenant_id: Option<String>, is_backed_up: bool) -> ProtectedRow {
        let scanned = self.objects(number) + self.rng.below(4);
        let missing = match (self.scenario, number) {
            (Scenario::CoverageGap, ONEDRIVE) => scanned * 31 / 100,
            _ => self.rng.below(scanned / 40 + 1),
        };
        let stored = if is_backed_up { self.stored(number) } else { 0 };
        // A customer with its own storage uses none of the vendor's.
        let stored_in_byos = if self.index % 10 == 4 { NO_SIZE } else { ABSENT };
        ProtectedRow {
            tenant_id,
            service_type: "Cloud Backup for Microsoft 365".to_owned(),
            module: number,
            total_scanned: scanned,
            total_protected: if is_backed_up { scanned - missing } else { 0 },
            stored_in_avepoint: NO_SIZE.to_owned(),
            stored_in_byos: stored_in_byos.to_owned(),
            growth: Some(Growth {
                stored,
                // Files that an attacker has encrypted are stored again.
                daily: self.rng.seconds(200, 2500) * if self.is_under_attack() { 100 } else { 1 },
                since: self.rules.started,
            }),
            ..ProtectedRow::default()
        }
    }

    /// Returns the stored size in hundredths of a gigabyte.
    fn stored(&mut self, number: u16) -> u64 {
        let of_each = match number {
            302 => self.rng.between(60, 400),
            303 => self.rng.between(70, 260),
            305 => self.rng.between(150, 900),
            308 => self.rng.between(90, 600),
            304 => self.rng.between(10, 90),
            TEAMS_CHAT => self.rng.between(1, 4),
            _ => return self.rng.between(1, 240),
        };
        self.seats * of_each
    }
}
