//! A realistic fleet: most customers are healthy, and each of the others has one story.

use std::collections::BTreeMap;

use super::{AZURE, DAY, DYNAMICS, GOOGLE, HOUR, MICROSOFT_365, SALESFORCE};
use crate::simulator::customer::{Customer, Tenant};
use crate::simulator::dice::Dice;
use crate::simulator::names;
use crate::simulator::rules::Rules;
use crate::simulator::services::Services;

mod modules;
mod products;
mod protected;
mod scans;
mod services;

/// Period of the stories: three of this many customers miss their objective.
const STORIES_EVERY: usize = 75;

/// History of a customer. The first twelve customers have one story each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Story {
    /// Nothing.
    Well,
    /// The largest customer: several tenants and clouds, long queues, every product.
    Busiest,
    /// Its subscription ends within days.
    LicenceEnding,
    /// Consent was withdrawn, so backups of Microsoft 365 fail.
    ConsentWithdrawn,
    /// A third of its users' OneDrives are not protected.
    CoverageGap,
    /// A run does not end.
    HungRun,
    /// One module stopped running, without an error.
    SilentModule,
    /// Two backup scopes were abandoned long ago and never deleted.
    DormantScopes,
    /// One module was switched off.
    SwitchedOff,
    /// One backup scope fails beside another that does not.
    FailingScope,
    /// Nothing is set up.
    Empty,
    /// One service was never configured.
    NotConfigured,
}

impl Story {
    fn of(index: usize) -> Self {
        match index % STORIES_EVERY {
            1 => Self::Busiest,
            2 => Self::LicenceEnding,
            3 => Self::ConsentWithdrawn,
            4 => Self::CoverageGap,
            5 => Self::HungRun,
            6 => Self::SilentModule,
            7 => Self::DormantScopes,
            8 => Self::SwitchedOff,
            9 => Self::FailingScope,
            10 => Self::Empty,
            11 => Self::NotConfigured,
            _ => Self::Well,
        }
    }
}

/// The customer to generate, and what it is generated from.
struct Maker<'a> {
    rules: &'a Rules,
    index: usize,
    joined: Option<i64>,
    story: Story,
    /// Users.
    seats: u64,
    dice: Dice,
}

/// Returns the customer with this index. A customer that joined later is new and has no story.
pub(crate) fn customer(rules: &Rules, index: usize, joined: Option<i64>) -> Customer {
    let mut dice = Dice::of(&[rules.seed, u64::try_from(index).unwrap_or(u64::MAX)]);
    let story = match joined {
        Some(_) => Story::Well,
        None => Story::of(index),
    };
    let seats = match story {
        Story::Busiest => 640,
        Story::Empty => 1,
        _ => dice.pick(&[8, 12, 15, 20, 25, 25, 35, 48, 60, 85, 120, 180, 260, 410]),
    };
    Maker {
        rules,
        index,
        joined,
        story,
        seats,
        dice,
    }
    .make()
}

impl Maker<'_> {
    fn make(mut self) -> Customer {
        let id = self.dice.uuid();
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
        match (job_type, self.story) {
            (_, Story::Empty) => false,
            (MICROSOFT_365 | AZURE | GOOGLE | SALESFORCE | DYNAMICS, Story::Busiest) => true,
            (MICROSOFT_365, Story::Well) => index % 16 != 14,
            (MICROSOFT_365, _) => true,
            (GOOGLE, Story::Well) => index % 16 == 14,
            (AZURE, Story::DormantScopes | Story::FailingScope) => true,
            (AZURE, Story::Well) => index % 3 == 1 && !self.has(GOOGLE),
            (SALESFORCE, Story::Well) => index % 13 == 6,
            (DYNAMICS, Story::Well) => index % 17 == 12,
            (DYNAMICS, Story::NotConfigured) => true,
            _ => false,
        }
    }

    fn has_power_platform(&self) -> bool {
        self.story == Story::Busiest || self.index % 4 == 2
    }

    /// Returns a status that each generation reports in its own way; 6 is that of the busiest customer.
    fn status(&self) -> i64 {
        match self.story {
            Story::Empty => 0,
            Story::ConsentWithdrawn => 2,
            Story::FailingScope => 4,
            Story::Busiest | Story::SilentModule => 6,
            Story::NotConfigured => 3,
            Story::Well if self.index.is_multiple_of(9) => 5,
            _ => 1,
        }
    }

    /// Returns the tenants; none for a customer that only uses Google.
    fn tenants(&mut self, domain: &str) -> Vec<Tenant> {
        let count = match self.story {
            Story::Busiest => 4,
            Story::Well if !self.has(MICROSOFT_365) => 0,
            Story::Well if self.index % 11 == 5 => 2,
            _ => 1,
        };
        (1..=count)
            .map(|nth| Tenant {
                id: self.dice.uuid(),
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
