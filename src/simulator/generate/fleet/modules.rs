//! A customer's modules, and how their runs end.

use super::{AZURE, CustomerGenerator, DAY, DYNAMICS, GOOGLE, HOUR, MICROSOFT_365, SALESFORCE, Scenario};
use crate::simulator::customer::Module;
use crate::simulator::generate::{SALESFORCE_BACKUP, id_prefix, scans};
use crate::simulator::incidents::{Affected, Incident, Interval, MAIN_MODULES};
use crate::simulator::rng::SeededRng;
use crate::simulator::run::{Run, status};
use crate::simulator::schedule::{Habit, Schedule, Work, gigabytes};

/// Time since consent was withdrawn. Like the times below, it is in real seconds at any speed, because RPOs are
/// configured in real time. Only the shortest of these times is within the default RPO.
pub(super) const WITHDRAWN_FOR: u32 = 53 * HOUR;
const SILENT_FOR: u32 = 75 * HOUR;
const FAILING_FOR: u32 = 41 * HOUR;
const HUNG_FOR: u32 = 13 * HOUR;

pub(super) const ONEDRIVE: u16 = 305;
pub(super) const TEAMS_CHAT: u16 = 309;
const SHAREPOINT: u16 = 302;
const GROUPS: u16 = 304;
const PROJECT: u16 = 306;
const PUBLIC_FOLDERS: u16 = 307;
const ARCHIVER: u16 = 8;
const RETENTION: u16 = 10;
const DEV_OPS: u16 = 363;

/// Modules of Microsoft 365, in the order of job lists.
const MICROSOFT_365_MODULES: [u16; 9] = [302, 303, 304, 305, 306, 307, 308, 309, 402];
pub(super) const POWER_PLATFORM: [u16; 3] = [310, 311, 312];
/// Modules that an incident can affect individually.
const MAIN_MODULES_OF_MICROSOFT_365: [u16; MAIN_MODULES] = [303, SHAREPOINT, ONEDRIVE, 308];
const MAIN_MODULES_OF_GOOGLE: [u16; MAIN_MODULES] = [501, 502, 503, 504];
const GOOGLE_MODULES: [u16; 6] = [501, 502, 503, 504, 505, 507];

impl CustomerGenerator<'_> {
    /// Returns the rows of the job list, sorted by type and module as in the API.
    pub(super) fn modules(&mut self) -> Vec<Module> {
        let has_exceptions = self.scenario == Scenario::ConsentWithdrawn || self.index.is_multiple_of(8);
        let mut modules = scans(|service| self.has(service), has_exceptions);
        if self.has(MICROSOFT_365) {
            modules.extend(self.microsoft_365());
        }
        if self.has(GOOGLE) {
            modules.extend(GOOGLE_MODULES.map(|number| self.module(GOOGLE, number, None)));
        }
        modules.extend(self.scopes());
        modules.sort_by_key(|module| (module.job_type, module.number));
        modules
    }

    fn microsoft_365(&mut self) -> Vec<Module> {
        let has_maintenance = self.index % 8 == 5;
        let maintenance = [ARCHIVER, RETENTION].into_iter().filter(|_| has_maintenance);
        let power = POWER_PLATFORM.into_iter().filter(|_| self.has_power_platform());
        let listed: Vec<u16> = maintenance.chain(MICROSOFT_365_MODULES).chain(power).collect();
        listed
            .into_iter()
            .map(|number| match self.disabled_at(number) {
                Some(since) => Module::fixed(MICROSOFT_365, number, Run::disabled(since)),
                None => self.module(MICROSOFT_365, number, None),
            })
            .collect()
    }

    /// Returns when a module of Microsoft 365 was disabled, or `None` if it is enabled. Few customers back up Teams
    /// chats.
    fn disabled_at(&mut self, number: u16) -> Option<i64> {
        let long_ago = self.rng.between(u64::from(40 * DAY), u64::from(280 * DAY));
        let long_ago = self.ago(u32::try_from(long_ago).unwrap_or(DAY));
        let long_ago = self.joined.unwrap_or(long_ago);
        match number {
            _ if self.scenario == Scenario::Busiest => None,
            ONEDRIVE if self.scenario == Scenario::SwitchedOff => Some(self.ago(33 * DAY)),
            TEAMS_CHAT if self.index % 7 != 3 => Some(long_ago),
            310..=312 if self.index % 8 == 2 => Some(long_ago),
            402 if self.index % 3 == 2 => Some(long_ago),
            _ => None,
        }
    }

    fn scopes(&mut self) -> Vec<Module> {
        let mut modules = Vec::new();
        for (job_type, number, scope) in self.listed_scopes() {
            modules.push(self.module(job_type, number, Some(scope)));
        }
        if self.scenario == Scenario::DormantScopes {
            modules.push(self.dormant(361, "EC2 old web servers", status::FAILED, 258 * DAY));
            modules.push(self.dormant(362, "SQL pilot", status::FINISHED, 650 * DAY));
        }
        if self.scenario == Scenario::NotConfigured {
            modules.push(Module::new(DYNAMICS, 550));
        } else if self.has(DYNAMICS) {
            modules.push(self.module(DYNAMICS, 550, Some("Dynamics production")));
        }
        if self.has(SALESFORCE) {
            modules.push(self.module(SALESFORCE, SALESFORCE_BACKUP, Some("Sales org")));
        }
        modules
    }

    fn listed_scopes(&self) -> Vec<(u16, u16, &'static str)> {
        let scopes: &[(u16, &'static str)] = match self.scenario {
            Scenario::Busiest => &[
                (356, "Production machines"),
                (356, "Test machines"),
                (358, "Directory Americas"),
                (358, "Directory Asia Pacific"),
                (358, "Directory Europe"),
                (360, "Admin centres Americas"),
                (360, "Admin centres Europe"),
                (DEV_OPS, "DevOps data platform"),
                (DEV_OPS, "DevOps web shop"),
            ],
            Scenario::FailingScope => &[
                (358, "Directory"),
                (DEV_OPS, "DevOps firmware"),
                (DEV_OPS, "DevOps simulation"),
            ],
            _ if !self.has(AZURE) => &[],
            _ if self.index % 9 == 4 => &[
                (356, "File and print servers"),
                (358, "Directory"),
                (359, "Shared files"),
            ],
            _ => &[(358, "Directory"), (360, "Admin centres")],
        };
        scopes.iter().map(|(number, scope)| (AZURE, *number, *scope)).collect()
    }

    fn dormant(&mut self, number: u16, scope: &str, status: i64, ago: u32) -> Module {
        let end = self.ago(ago);
        let mut run = Run {
            id: format!("{}{}", id_prefix(number), self.rng.next()),
            name: scope.to_owned(),
            start: Some(end.saturating_sub(637)),
            end: Some(end),
            last_modified: Some(end),
            ..Run::bare(status)
        };
        run.count(2, &mut self.rng);
        if run.successful > 0 {
            run.backup_size = gigabytes(115);
        }
        Module {
            scope: Some(scope.to_owned()),
            ..Module::fixed(AZURE, number, run)
        }
    }

    fn module(&mut self, job_type: u16, number: u16, scope: Option<&'static str>) -> Module {
        let scope = scope.map(str::to_owned);
        Module {
            schedule: Some(self.schedule(job_type, number, scope.clone())),
            scope,
            ..Module::new(job_type, number)
        }
    }

    fn schedule(&mut self, job_type: u16, number: u16, scope: Option<String>) -> Schedule {
        let key = self.rng.next();
        let mut rng = SeededRng::from_path(&[key]);
        let scheduled = match number {
            ARCHIVER | RETENTION => 7 * DAY,
            // The runs are frequent, so that the restore point before the hanging run is within the RPO.
            SHAREPOINT if self.scenario == Scenario::HungRun => DAY / 4,
            _ => rng.pick(&[DAY, DAY / 2, DAY / 2, DAY / 4]),
        };
        let habit = self.habit(number, scope.as_deref(), scheduled);
        let period = self.rules.compressed(scheduled);
        let (wait, duration) = self.timing(job_type, scheduled, &mut rng);
        Schedule {
            phase: i64::try_from(rng.below(period.cast_unsigned())).unwrap_or(0),
            period,
            wait: self.rules.compressed(wait),
            duration: self.rules.compressed(duration),
            habit,
            key,
            scope,
            id_prefix: id_prefix(number),
            anonymous: 0,
            work: self.work(job_type, number, &mut rng),
            stores: match job_type {
                MICROSOFT_365 => 0,
                AZURE if matches!(number, 356 | 359) => rng.between(200, 9000),
                _ => rng.between(1, 3),
            },
            fails_from: match self.scenario {
                Scenario::FailingScope => self.ago(FAILING_FOR),
                _ => self.ago(WITHDRAWN_FOR),
            },
            not_before: self.joined.unwrap_or(i64::MIN),
            not_after: match habit {
                Habit::Silent => self.ago(SILENT_FOR),
                Habit::Stuck => self.ago(HUNG_FOR),
                _ => i64::MAX,
            },
            interruptions: self.interruptions(job_type, number),
        }
    }

    /// Returns the past interruptions of a module.
    fn interruptions(&self, job_type: u16, number: u16) -> Vec<Interval> {
        let main_modules = if self.has(MICROSOFT_365) {
            MAIN_MODULES_OF_MICROSOFT_365
        } else {
            MAIN_MODULES_OF_GOOGLE
        };
        let is_affected = |incident: &&Incident| match incident.affected {
            Affected::Service => self.is_of_main_service(job_type, number),
            Affected::Module(nth) => main_modules.get(nth) == Some(&number),
        };
        let incidents = self.rules.incidents.get(&self.index).filter(|_| self.joined.is_none());
        let affecting = incidents.into_iter().flatten().filter(is_affected);
        affecting.map(|incident| incident.interval).collect()
    }

    /// Returns whether a module belongs to the customer's main service: Microsoft 365, or Google Workspace for
    /// customers without Microsoft 365. Housekeeping modules do not count.
    fn is_of_main_service(&self, job_type: u16, number: u16) -> bool {
        match job_type {
            MICROSOFT_365 => !matches!(number, ARCHIVER | RETENTION),
            GOOGLE => !self.has(MICROSOFT_365),
            _ => false,
        }
    }

    /// Returns how runs end. Only modules that run more than once a day fail occasionally, because their next run is
    /// still within the RPO.
    fn habit(&self, number: u16, scope: Option<&str>, scheduled: u32) -> Habit {
        match (self.scenario, number) {
            (Scenario::ConsentWithdrawn, 302..=312 | 402) => Habit::Broken,
            (Scenario::FailingScope, DEV_OPS) if scope == Some("DevOps firmware") => Habit::Broken,
            (Scenario::SilentModule, ONEDRIVE) => Habit::Silent,
            (Scenario::HungRun, SHAREPOINT) => Habit::Stuck,
            _ if scheduled < DAY => Habit::Usual,
            _ => Habit::Steady,
        }
    }

    /// Returns how long runs wait and how long they take, in seconds before division by the speed. The busiest customer's
    /// Microsoft 365 runs are queued for hours.
    fn timing(&self, job_type: u16, scheduled: u32, rng: &mut SeededRng) -> (u32, u32) {
        let mut between = |low: u32, high: u32| u32::try_from(rng.seconds(low, high)).unwrap_or(low);
        match self.scenario {
            Scenario::Busiest if job_type == MICROSOFT_365 => (scheduled / 4, between(scheduled / 12, scheduled / 4)),
            _ if self.seats > 100 => (between(30, 600), between(900, 4500)),
            _ => (between(10, 120), between(60, 1500)),
        }
    }

    fn work(&self, job_type: u16, number: u16, rng: &mut SeededRng) -> Work {
        let is_small = self.seats < 50;
        match (job_type, number) {
            (MICROSOFT_365, GROUPS | PUBLIC_FOLDERS) if is_small => Work::Nothing,
            (MICROSOFT_365, PROJECT) if self.scenario != Scenario::Busiest => Work::Instant,
            (AZURE, 356 | 359) => Work::Objects(rng.between(2, 14)),
            (AZURE, DEV_OPS) => Work::Objects(rng.between(15, 60)),
            (AZURE, _) => Work::Objects(self.seats * 4 + 20),
            (DYNAMICS | SALESFORCE, _) => Work::Objects(rng.between(20, 400)),
            _ => Work::Objects(self.objects(number)),
        }
    }

    /// Returns the approximate number of objects of a module of Microsoft 365 or Google Workspace.
    pub(super) fn objects(&self, number: u16) -> u64 {
        let seats = self.seats;
        match number {
            303 | 501 | 502 | 503 => seats + seats / 4 + 2,
            ONEDRIVE | TEAMS_CHAT | 504 | 507 => seats + 1,
            SHAREPOINT => seats + 9,
            308 => seats / 2 + 5,
            GROUPS | 505 => seats / 3 + 2,
            311 => seats / 4 + 1,
            310 | 312 => seats / 9 + 1,
            PUBLIC_FOLDERS | PROJECT => 3,
            _ => seats / 20 + 1,
        }
    }
}
