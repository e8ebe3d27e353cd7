//! Tenant data other than backups.

use std::collections::BTreeMap;

use super::modules::WITHDRAWN_FOR;
use super::{CustomerGenerator, DAY, DYNAMICS, GOOGLE, HOUR, MICROSOFT_365, SALESFORCE, SCENARIO_PERIOD, Scenario};
use crate::simulator::customer::Tenant;
use crate::simulator::rng::SeededRng;
use crate::simulator::services::{Baseline, Seats, Services};

/// Index of the customer under attack, within each [`SCENARIO_PERIOD`].
const ATTACKED: usize = 13;

/// Time since some tenants' settings drifted from their baselines.
const DRIFTED_FOR: u32 = 5 * HOUR;

impl CustomerGenerator<'_> {
    /// Returns whether an attacker is encrypting the customer's files. Backups still run, and the stored size grows a
    /// hundred times as fast.
    pub(super) fn is_under_attack(&self) -> bool {
        self.scenario == Scenario::Healthy && self.joined.is_none() && self.index % SCENARIO_PERIOD == ATTACKED
    }

    /// Adds the [`Services`] of each tenant. A separate random number generator keeps the rest of the world independent
    /// of this data.
    pub(super) fn with_services(&self, mut tenants: Vec<Tenant>) -> Vec<Tenant> {
        let index = u64::try_from(self.index).unwrap_or(u64::MAX);
        for (nth, tenant) in (0..).zip(&mut tenants) {
            let rng = SeededRng::from_path(&[self.rules.seed, 0x5E2F, index, nth]);
            tenant.services = self.services(nth, rng);
        }
        tenants
    }

    fn services(&self, nth: u64, mut rng: SeededRng) -> Services {
        let users = self.seats / (nth + 1);
        let mut seats = BTreeMap::new();
        for (number, job_type) in [(0, MICROSOFT_365), (1, SALESFORCE), (2, GOOGLE), (3, DYNAMICS)] {
            if number == 0 || nth == 0 && self.has(job_type) {
                let assigned = i64::try_from(users).unwrap_or(i64::MAX);
                let spare = match self.scenario {
                    Scenario::LicenseExpiring => 0,
                    _ => rng.seconds(1, 12),
                };
                let available = assigned.saturating_add(spare);
                seats.insert(number, Seats { assigned, available });
            }
        }
        let missing = match self.scenario {
            Scenario::CoverageGap => users * 31 / 100,
            _ => rng.below(users / 40 + 1),
        };
        let withdrawn = (self.scenario == Scenario::ConsentWithdrawn).then(|| self.ago(WITHDRAWN_FOR));
        let mut consent = BTreeMap::from([("Office365Backup".to_owned(), withdrawn)]);
        if self.has_baselines() {
            consent.insert("PartnerTenantSettingManagement".to_owned(), None);
        }
        if self.has_workspaces() {
            consent.insert("PartnerWorkspaceOnboarding".to_owned(), None);
        }
        let signs = self.has_workspaces().then(|| match self.is_under_attack() {
            true => [[1, 3, 2], [6, 14, 31], [4, 9, 17], [0, 2, 1]],
            false => [[0; 3]; 4],
        });
        let baseline = self.has_baselines().then(|| {
            let is_drifted = self.index % 6 == 2;
            Baseline {
                status: 7,
                drifts: if is_drifted { rng.seconds(1, 9) } else { 0 },
                drifted: is_drifted.then(|| self.ago(DRIFTED_FOR)),
                // This time is before the start of the history that a demo backfills.
                deployed: Some(self.ago(40 * DAY)),
            }
        });
        Services {
            seats,
            users,
            unprotected: [0, missing],
            consent,
            signs,
            baseline,
        }
    }

    fn has_workspaces(&self) -> bool {
        self.scenario == Scenario::Busiest || self.is_under_attack() || self.index % 3 == 2
    }

    fn has_baselines(&self) -> bool {
        self.scenario == Scenario::Busiest || self.index.is_multiple_of(2)
    }
}
