//! The hostile world for tests: names, dates and sizes that are hard to parse, and every module in the reference.

use std::collections::BTreeMap;

use super::{AZURE, DAY, DYNAMICS, GOOGLE, HOUR, MICROSOFT_365, SALESFORCE, SALESFORCE_BACKUP, id_prefix};
use crate::simulator::customer::{Customer, Module, ProtectedRow, Tenant};
use crate::simulator::names;
use crate::simulator::rng::SeededRng;
use crate::simulator::rules::Rules;
use crate::simulator::run::{ABSENT, NO_SIZE, Run, status};
use crate::simulator::scan::{Container, DailyReport, ScanProfile, Scans};
use crate::simulator::schedule::{Habit, Schedule, Work};
use crate::simulator::services::Services;

mod products;

/// Minimum time since a silent module's last run was queued. Like the times below, it is in real seconds and does not
/// depend on the simulation speed, because RPOs are configured in real time.
const SILENT_FOR: i64 = 5 * 86_400;

/// Minimum time since a stuck run was queued.
const STUCK_FOR: i64 = 50 * 3600;

/// Time since the end of an abandoned scope's last run.
const DORMANT_FOR: i64 = 300 * 86_400;

/// Time since a module was disabled.
const DISABLED_FOR: i64 = 90 * 86_400;

const USUAL_MODULES: [u16; 5] = [302, 303, 304, 305, 308];
const OTHER_MODULES: [u16; 9] = [8, 10, 306, 307, 309, 310, 311, 312, 402];
const AZURE_MODULES: [u16; 17] = [
    355, 356, 357, 358, 359, 360, 361, 362, 363, 364, 365, 366, 367, 368, 369, 370, 371,
];
const GOOGLE_MODULES: [u16; 8] = [501, 502, 503, 504, 505, 506, 507, 508];
const DYNAMICS_MODULES: [u16; 3] = [401, 550, 551];

/// Role of a customer in tests. The first ten customers have fixed roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Plain,
    Failing,
    UnlistedModule,
    Silent,
    PartlyConfigured,
    Stuck,
    Exceptional,
    WithoutStatus,
    ManyIssues,
}

/// Generates one customer.
struct CustomerGenerator<'a> {
    rules: &'a Rules,
    index: usize,
    number: u64,
    joined: Option<i64>,
    role: Role,
    rng: SeededRng,
}

/// Returns the customer with this index. A customer with a `joined` time is [`Role::Plain`], and has no scheduled runs
/// before that time.
pub(crate) fn customer(rules: &Rules, index: usize, joined: Option<i64>) -> Customer {
    let number = u64::try_from(index).unwrap_or(u64::MAX);
    let rng = SeededRng::from_path(&[rules.seed, number]);
    let role = if joined.is_some() { Role::Plain } else { role_of(index) };
    CustomerGenerator {
        rules,
        index,
        number,
        joined,
        role,
        rng,
    }
    .generate()
}

/// Returns the backup scope of a module, if its service has scopes.
fn scope(job_type: u16, number: u16) -> Option<String> {
    matches!(job_type, AZURE | SALESFORCE | DYNAMICS).then(|| format!("Backup of {}", names::module_word(number)))
}

fn role_of(index: usize) -> Role {
    match index {
        1 => Role::Failing,
        2 => Role::UnlistedModule,
        4 => Role::Silent,
        5 => Role::PartlyConfigured,
        6 => Role::Stuck,
        7 => Role::Exceptional,
        8 => Role::WithoutStatus,
        9 => Role::ManyIssues,
        _ => Role::Plain,
    }
}

impl CustomerGenerator<'_> {
    fn generate(mut self) -> Customer {
        let id = self.rng.uuid();
        let tenants = self.tenants();
        let modules = self.modules();
        let protected = self.protected(&modules, &tenants);
        let scan_profiles = self.scan_profiles(&modules, &tenants);
        let products = self.products(&modules);
        Customer {
            id,
            organization: names::hostile_organization(self.index),
            owner_email: format!("aptest***s{}@example.com", self.index),
            country: self.rng.pick(names::COUNTRIES).to_owned(),
            status: self.status(&modules),
            management_mode: self.rng.seconds(0, 2),
            tenants,
            modules,
            protected,
            products,
            scan_profiles,
            raw_fields: BTreeMap::new(),
        }
    }

    fn status(&self, modules: &[Module]) -> i64 {
        let failing = |module: &Module| {
            module
                .schedule
                .as_ref()
                .is_some_and(|schedule| schedule.habit == Habit::Failing)
        };
        match self.role {
            Role::WithoutStatus => 0,
            Role::Failing => 2,
            Role::PartlyConfigured => 3,
            Role::ManyIssues => 4,
            Role::Exceptional => 5,
            Role::Silent => 6,
            _ if modules.iter().any(failing) => 2,
            _ => 1,
        }
    }

    fn tenants(&mut self) -> Vec<Tenant> {
        let count = match self.index {
            index if index.is_multiple_of(7) => 2,
            // These are some of the customers that do not use Microsoft 365.
            index if index % 10 == 6 => 0,
            _ => 1,
        };
        (0..count)
            .map(|nth| Tenant {
                id: self.rng.uuid(),
                name: format!("example{}-{nth}.onmicrosoft.com", self.index),
                services: Services::some(),
            })
            .collect()
    }

    fn modules(&mut self) -> Vec<Module> {
        let listed = self.listed_modules();
        let mut modules: Vec<Module> = listed
            .into_iter()
            .enumerate()
            .map(|(nth, (job_type, number))| self.module(nth, job_type, number))
            .collect();
        let has = |job_type: u16| modules.iter().any(|module| module.job_type == job_type);
        modules.extend(super::scans(has, self.index % 5 == 2));
        modules.extend(self.dormant_scope(&modules));
        modules
    }

    /// Returns a second scope of the customer's first Azure module, if any. The scope was abandoned long ago, but is
    /// still listed.
    fn dormant_scope(&self, modules: &[Module]) -> Option<Module> {
        let active = modules.iter().find(|module| module.job_type == AZURE)?;
        let end = self.rules.started.saturating_sub(DORMANT_FOR);
        let name = format!("Old \"scope\" \\ {}", self.index);
        let run = Run {
            id: format!("IB{}", self.number),
            name: name.clone(),
            start: Some(end.saturating_sub(687)),
            end: Some(end),
            last_modified: Some(end),
            total: 1,
            failed: 1,
            ..Run::bare(status::FAILED)
        };
        Some(Module {
            scope: Some(name),
            ..Module::fixed(AZURE, active.number, run)
        })
    }

    /// Returns the job type and number of each module. The services depend on the index. Most customers have
    /// Microsoft 365.
    fn listed_modules(&self) -> Vec<(u16, u16)> {
        let of = |job_type: u16, numbers: Vec<u16>| numbers.into_iter().map(move |number| (job_type, number));
        let microsoft =
            of(MICROSOFT_365, USUAL_MODULES.to_vec()).chain(of(MICROSOFT_365, self.slice(&OTHER_MODULES, 2)));
        let azure = of(AZURE, self.slice(&AZURE_MODULES, 6));
        let google = of(GOOGLE, self.slice(&GOOGLE_MODULES, 6));
        let mut modules: Vec<(u16, u16)> = match self.index % 10 {
            1 | 9 => microsoft.chain(azure).collect(),
            3 => google.collect(),
            4 => microsoft.chain([(SALESFORCE, SALESFORCE_BACKUP)]).collect(),
            5 => microsoft.chain(of(DYNAMICS, DYNAMICS_MODULES.to_vec())).collect(),
            6 => azure.collect(),
            8 => microsoft.chain(google).collect(),
            _ => microsoft.collect(),
        };
        if self.role == Role::UnlistedModule {
            modules.push((MICROSOFT_365, names::UNLISTED_MODULE.0));
        }
        modules
    }

    /// Returns `count` modules, starting at an offset that depends on the customer.
    fn slice(&self, modules: &[u16], count: usize) -> Vec<u16> {
        let offset = self.index.wrapping_mul(count).checked_rem(modules.len()).unwrap_or(0);
        modules
            .iter()
            .cycle()
            .skip(offset)
            .take(count.min(modules.len()))
            .copied()
            .collect()
    }

    fn module(&mut self, nth: usize, job_type: u16, number: u16) -> Module {
        if number == 309 && !self.index.is_multiple_of(3) {
            let since = self.rules.started.saturating_sub(DISABLED_FOR);
            return Module::fixed(job_type, number, Run::disabled(since));
        }
        let mut module = Module {
            scope: scope(job_type, number),
            ..Module::new(job_type, number)
        };
        let key = SeededRng::from_path(&[self.rules.seed, self.number, u64::from(job_type), u64::from(number)]).next();
        let has_no_runs = self.role == Role::PartlyConfigured && nth > 2;
        if !has_no_runs {
            module.schedule = Some(self.schedule(nth, job_type, number, key));
        }
        module
    }

    fn schedule(&self, nth: usize, job_type: u16, number: u16, key: u64) -> Schedule {
        let mut rng = SeededRng::from_path(&[key]);
        let habit = self.habit(nth, &mut rng);
        let scheduled = match number {
            8 | 10 => 7 * DAY,
            _ => rng.pick(&[DAY, DAY, DAY, DAY, DAY, DAY, DAY / 2, DAY / 4]),
        };
        let period = self.rules.compressed(scheduled);
        let phase = i64::try_from(rng.below(period.cast_unsigned())).unwrap_or(0);
        let duration = self
            .rules
            .compressed(u32::try_from(rng.between(300, 5400)).unwrap_or(1800));
        Schedule {
            phase,
            period,
            wait: duration.min(period / 2) / 10,
            duration: duration.min(period / 2),
            habit,
            key,
            scope: scope(job_type, number),
            id_prefix: id_prefix(number),
            anonymous: 3,
            work: self.work(number, rng.between(20, 4000)),
            stores: if job_type == MICROSOFT_365 {
                0
            } else {
                rng.between(1, 9000)
            },
            fails_from: i64::MIN,
            not_before: self.joined.unwrap_or(i64::MIN),
            not_after: match habit {
                Habit::Silent => self.rules.started.saturating_sub(SILENT_FOR),
                Habit::Stuck => self.rules.started.saturating_sub(STUCK_FOR),
                _ => i64::MAX,
            },
            interruptions: Vec::new(),
        }
    }

    fn work(&self, number: u16, objects: u64) -> Work {
        match number {
            304 if self.index % 3 == 1 => Work::Nothing,
            306 => Work::Instant,
            _ => Work::Objects(objects),
        }
    }

    fn habit(&self, nth: usize, rng: &mut SeededRng) -> Habit {
        let percentile = rng.below(100);
        match self.role {
            Role::Silent => Habit::Silent,
            Role::Stuck if nth == 1 => Habit::Stuck,
            Role::Failing if nth < 2 => Habit::Failing,
            Role::Exceptional => Habit::Exceptions,
            Role::ManyIssues if nth < 4 => Habit::Rotating,
            Role::ManyIssues => Habit::Flaky,
            // The customer at the top of the list is healthy, because it is the first that users see.
            Role::Plain if self.index == 0 => Habit::Reliable,
            _ => match percentile {
                0..82 => Habit::Reliable,
                82..91 => Habit::Flaky,
                91..95 => Habit::Exceptions,
                95..98 => Habit::Rotating,
                _ => Habit::Failing,
            },
        }
    }

    fn protected(&mut self, modules: &[Module], tenants: &[Tenant]) -> Vec<ProtectedRow> {
        let listed = modules
            .iter()
            .filter(|module| module.job_type == MICROSOFT_365 && !matches!(module.number, 8 | 10));
        listed
            .flat_map(|module| {
                // One customer in fourteen has rows per tenant, and another one in fourteen has rows both with and
                // without a tenant.
                let of_tenants: Vec<Option<String>> = match self.index % 14 {
                    7 => tenants.iter().map(|tenant| Some(tenant.id.clone())).collect(),
                    0 if self.index > 0 && module.number % 2 == 0 => {
                        tenants.iter().take(1).map(|tenant| Some(tenant.id.clone())).collect()
                    }
                    _ => vec![None],
                };
                of_tenants
                    .into_iter()
                    .map(|tenant| self.protected_row(module, tenant))
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    fn protected_row(&mut self, module: &Module, tenant_id: Option<String>) -> ProtectedRow {
        let scanned = if module.schedule.is_some() {
            self.rng.between(50, 20_000)
        } else {
            0
        };
        let own_storage = self.index.is_multiple_of(5);
        let size = if scanned == 0 {
            NO_SIZE.to_owned()
        } else {
            self.rng.gigabytes(3000)
        };
        let (stored_in_avepoint, stored_in_byos) = if own_storage {
            (NO_SIZE.to_owned(), size)
        } else {
            (size, ABSENT.to_owned())
        };
        ProtectedRow {
            tenant_id,
            service_type: "Cloud Backup for Microsoft 365".to_owned(),
            module: module.number,
            total_scanned: scanned,
            total_protected: scanned - self.rng.below(scanned / 20 + 1),
            stored_in_avepoint,
            stored_in_byos,
            ..ProtectedRow::default()
        }
    }

    fn scan_profiles(&mut self, modules: &[Module], tenants: &[Tenant]) -> Vec<ScanProfile> {
        if !modules.iter().any(|module| module.job_type == MICROSOFT_365) {
            return Vec::new();
        }
        let count = if self.index == 0 { 3 } else { self.rng.between(1, 3) };
        (0..count).map(|nth| self.scan_profile(nth, tenants)).collect()
    }

    fn scan_profile(&mut self, nth: u64, tenants: &[Tenant]) -> ScanProfile {
        let tenant = tenants.first().cloned().unwrap_or_default();
        let created = self
            .rules
            .started
            .saturating_sub(self.rng.seconds(100 * DAY, 700 * DAY));
        let daily = nth == 0 || self.rng.chance(70);
        let (hour, minute) = (self.rng.below(24), self.rng.below(60));
        let period = self.rules.compressed(DAY);
        let fails = self.rules.churn && self.index == 0 && nth == 0;
        ScanProfile {
            id: self.rng.uuid(),
            name: self
                .rng
                .pick(&[
                    "Default profile",
                    "All \"users\" & groups",
                    "Überwachung",
                    "Finance <internal>",
                ])
                .to_owned(),
            scan_mode: self.rng.seconds(0, 1),
            description: self.rng.pick(&["", "Scans everything", "N/A"]).to_owned(),
            tenant_id: tenant.id,
            tenant_domain: tenant.name,
            created,
            modified: created.saturating_add(self.rng.seconds(0, 99 * DAY)),
            impersonation_account: self
                .rng
                .chance(30)
                .then(|| format!("svc-scan{}@example.com", self.index)),
            archived_mailboxes: self.rng.chance(40),
            ignore_locked: self.rng.chance(40),
            daily_scan: if daily {
                format!("{hour:02}:{minute:02}")
            } else {
                "No".to_owned()
            },
            out_of_policy_notification: self.rng.chance(30),
            containers: self.containers(nth),
            report: DailyReport {
                status: 2,
                ..DailyReport::default()
            },
            older_spelling: self.index % 3 == 1,
            raw_fields: BTreeMap::new(),
            scans: Scans {
                key: self.rng.next(),
                phase: self.rng.seconds(0, DAY) % period,
                period,
                fails_from: fails.then(|| self.rules.started.saturating_add(self.rules.compressed(12 * HOUR))),
                is_odd: true,
                daily,
                reported: None,
            },
        }
    }

    fn containers(&mut self, nth: u64) -> Vec<Container> {
        let offset = self
            .index
            .saturating_add(usize::try_from(nth).unwrap_or(0))
            .wrapping_mul(4);
        let of_microsoft = names::OBJECT_TYPES.iter().filter(|(number, _)| *number < 100);
        let types = of_microsoft.clone().cycle().skip(offset % of_microsoft.count().max(1));
        let count = usize::try_from(self.rng.between(3, 6)).unwrap_or(3);
        types
            .take(count)
            .enumerate()
            .map(|(at, (object_type, word))| Container {
                name: format!("{word} container {at}"),
                object_type: *object_type,
            })
            .collect()
    }
}
