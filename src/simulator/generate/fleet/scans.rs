//! A customer's scan profiles.

use super::{CustomerGenerator, DAY};
use crate::simulator::customer::Tenant;
use crate::simulator::names;
use crate::simulator::run::status;
use crate::simulator::scan::{Container, DailyReport, ScanProfile, Scans};

/// Scan profiles, each with its name and its object types.
const PROFILES: [(&str, &[u16]); 3] = [
    ("Default scan profile", &[0, 1, 2, 5]),
    ("Teams and groups", &[5, 9, 10]),
    ("Power Platform", &[12, 14, 15, 16]),
];

impl CustomerGenerator<'_> {
    /// Returns one profile per tenant, and a second profile for the first tenant of some customers.
    pub(super) fn scan_profiles(&mut self, tenants: &[Tenant]) -> Vec<ScanProfile> {
        let further = match tenants.first() {
            Some(tenant) if self.has_power_platform() => Some((tenant, PROFILES.get(2))),
            Some(tenant) if self.index % 5 == 3 => Some((tenant, PROFILES.get(1))),
            _ => None,
        };
        let profiles = tenants.iter().map(|tenant| (tenant, PROFILES.first())).chain(further);
        profiles
            .filter_map(|(tenant, profile)| Some((tenant, *profile?)))
            .map(|(tenant, (name, types))| self.scan_profile(tenant, name, types))
            .collect()
    }

    fn scan_profile(&mut self, tenant: &Tenant, name: &str, types: &[u16]) -> ScanProfile {
        let created = self.rules.started - self.rng.seconds(100 * DAY, 700 * DAY);
        let period = self.rules.compressed(DAY);
        ScanProfile {
            id: self.rng.uuid(),
            name: name.to_owned(),
            scan_mode: self.rng.seconds(0, 1),
            tenant_id: tenant.id.clone(),
            tenant_domain: tenant.name.clone(),
            created,
            modified: created + self.rng.seconds(0, 99 * DAY),
            archived_mailboxes: self.rng.chance(40),
            ignore_locked: self.rng.chance(40),
            daily_scan: format!("{:02}:{:02}", self.rng.below(6), self.rng.pick(&[0, 15, 30, 45])),
            out_of_policy_notification: self.rng.chance(30),
            containers: types.iter().map(|number| container(*number)).collect(),
            report: DailyReport {
                status: status::FINISHED,
                ..DailyReport::default()
            },
            scans: Scans {
                key: self.rng.next(),
                phase: self.rng.seconds(0, DAY) % period,
                period,
                daily: true,
                ..Scans::default()
            },
            ..ScanProfile::default()
        }
    }
}

fn container(object_type: u16) -> Container {
    Container {
        name: format!(
            "Default {} container",
            names::object_type_word(object_type).to_lowercase()
        ),
        object_type,
    }
}
