//! A realistic fleet: most customers are healthy, and each of the others has one scenario.

use std::collections::BTreeMap;

use super::{AZURE, DAY, DYNAMICS, GOOGLE, HOUR, MICROSOFT_365, SALESFORCE, SCENARIO_PERIOD};
use crate::simulator::customer::{Customer, Tenant};
use crate::simulator::names;
use crate::simulator::rng::SeededRng;
use crate::simulator::rules::Rules;
use crate::simulator::services::Services;

mod modules;
mod products;
mod protected;
mod scans;
mod services;

/// Scenario of a customer. Each of the first twelve customers has a different one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scenario {
    /// No problem with backups.
    Healthy,
    /// The largest customer, with several tenants, every service, long queues, and a subscription to every product.
    Busiest,
    /// The subscriptions expire within two weeks.
    LicenseExpiring,
    /// Consent was withdrawn, so backups of Microsoft 365 fail.
    ConsentWithdrawn,
    /// About a third of the OneDrives are not protected.
    CoverageGap,
    /// A run does not end.
    HungRun,
    /// One module stopped running, without an error.
    SilentModule,
    /// Two backup scopes were abandoned long ago and never deleted.
    DormantScopes,
    /// OneDrive was disabled.
    SwitchedOff,
    /// One of two Dev Ops backup scopes fails.
    FailingScope,
    /// No module is listed.
    Empty,
    /// One service was never configured.
    NotConfigured,
}

impl Scenario {
    fn of(index: usize) -> Self {
        match index % SCENARIO_PERIOD {
            1 => Self::Busiest,
            2 => Self::LicenseExpiring,
            3 => Self::ConsentWithdrawn,
            4 => Self::CoverageGap,
            5 => Self::HungRun,
            6 => Self::SilentModule,
            7 => Self::DormantScopes,
            8 => Self::SwitchedOff,
            9 => Self::FailingScope,
            10 => Self::Empty,
            11 => Self::NotConfigured,
            _ => Self::Healthy,
        }
    }
}

/// Generates one customer.
struct CustomerGenerator<'a> {
    rules: &'a Rules,
    index: usize,
    joined: Option<i64>,
    scenario: Scenario,
    /// Number of users.
    seats: u64,
    rng: SeededRng,
}

/// Returns the customer with this index. A customer with a `joined` time is healthy, and has no runs before that time.
pub(crate) fn customer(rules: &Rules, index: usize, joined: Option<i64>) -> Customer {
    let mut rng = SeededRng::from_path(&[rules.seed, u64::try_from(index).unwrap_or(u64::MAX)]);
    let scenario = match joined {
        Some(_) => Scenario::Healthy,
        None => Scenario::of(index),
    };
    let seats = match scenario {
        Scenario::Busiest => 640,
        Scenario::Empty => 1,
        _ => rng.pick(&[8, 12, 15, 20, 25, 25, 35, 48, 60, 85, 120, 180, 260, 410]),
    };
    CustomerGenerator {
        rules,
        index,
        joined,
        scenario,
        seats,
        rng,
    }
    .generate()
}

impl CustomerGenerator<'_> {
    fn generate(mut self) -> Customer {
        let id = self.rng.uuid();
        let (organization, country) = names::organization(self.index);
        let domain = names::domain_word(&organization, self.index);
        let tenants = self.tenants(&domain);
        let tenants = self.with_services(tenants);
        let modules = self.modules();
        let protected = self.protected(&modules, &tenants);
        let scan_profiles = self.scan_profiles(&tenants);
        let products = self.products();
        Customer {
            id,
            organization,
            owner_email: format!("admin@{domain}.example"),
            country: country.to_owned(),
            status: self.status(),
            management_mode: 1,
            tenants,
            modules,
            protected,
            products,
            scan_profiles,
            raw_fields: BTreeMap::new(),
        }
    }

    fn has(&self, job_type: u16) -> bool {
        let index = self.index;
        match (job_type, self.scenario) {
            (_, Scenario::Empty) => false,
            (MICROSOFT_365 | AZURE | GOOGLE | SALESFORCE | DYNAMICS, Scenario::Busiest) => true,
            (MICROSOFT_365, Scenario::Healthy) => index % 16 != 14,
            (MICROSOFT_365, _) => true,
            (GOOGLE, Scenario::Healthy) => index % 16 == 14,
            (AZURE, Scenario::DormantScopes | Scenario::FailingScope) => true,
            (AZURE, Scenario::Healthy) => index % 3 == 1 && !self.has(GOOGLE),
            (SALESFORCE, Scenario::Healthy) => index % 13 == 6,
            (DYNAMICS, Scenario::Healthy) => index % 17 == 12,
            (DYNAMICS, Scenario::NotConfigured) => true,
            _ => false,
        }
    }

    fn has_power_platform(&self) -> bool {
        self.scenario == Scenario::Busiest || self.index % 4 == 2
    }

    /// Returns the number of the customer's status.
    fn status(&self) -> i64 {
        match self.scenario {
            Scenario::Empty => 0,
            Scenario::ConsentWithdrawn => 2,
            Scenario::FailingScope => 4,
            Scenario::Busiest | Scenario::SilentModule => 6,
            Scenario::NotConfigured => 3,
            Scenario::Healthy if self.index.is_multiple_of(9) => 5,
            _ => 1,
        }
    }

    /// Returns the tenants. A healthy customer without Microsoft 365 has none.
    fn tenants(&mut self, domain: &str) -> Vec<Tenant> {
        let count = match self.scenario {
            Scenario::Busiest => 4,
            Scenario::Healthy if !self.has(MICROSOFT_365) => 0,
            Scenario::Healthy if self.index % 11 == 5 => 2,
            _ => 1,
        };
        (1..=count)
            .map(|nth| Tenant {
                id: self.rng.uuid(),
                name: match nth {
                    1 => format!("{domain}.onmicrosoft.com"),
                    _ => format!("{domain}{nth}.onmicrosoft.com"),
                },
                services: Services::default(),
            })
            .collect()
    }

    fn ago(&self, seconds: u32) -> i64 {
        self.rules.started.saturating_sub(i64::from(seconds))
    }

    fn ahead(&self, seconds: u32) -> i64 {
        self.rules.started.saturating_add(i64::from(seconds))
    }
}
