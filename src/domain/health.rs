//! Health of modules and backup scopes: latest runs, restore point, objective, and the resulting state.

use std::sync::Arc;
use std::time::Duration;

use super::module::ModuleKey;
use super::run::Run;
use super::status::JobStatus;
use super::time::Timestamp;

/// Summary of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunSummary {
    /// Status of the run.
    pub status: JobStatus,
    /// End of the run or, if it has none, its start or last modification.
    pub at: Option<Timestamp>,
    /// Whether any of the run's objects failed.
    pub has_failed_objects: bool,
}

impl From<&Run> for RunSummary {
    fn from(run: &Run) -> Self {
        Self {
            status: run.status,
            at: run.end.or(run.start).or(run.modified),
            has_failed_objects: run.failed.is_some_and(|failed| failed > 0),
        }
    }
}

/// Health of a module or, if the module has backup scopes, of one backup scope.
#[derive(Clone, Debug, PartialEq)]
pub struct ModuleHealth {
    /// The module or backup scope.
    pub key: ModuleKey,
    /// The newest row of the latest list. Its status is the current status of the module.
    pub latest: Option<RunSummary>,
    /// The latest completed run.
    pub latest_completed: Option<RunSummary>,
    /// Time of the latest restore point.
    pub restore_point: Option<Timestamp>,
    /// Maximum age of the latest restore point; `None` without an objective.
    pub rpo: Option<Duration>,
    /// End of the override that applies; `None` without an override or an end.
    pub until: Option<Timestamp>,
    /// Reason for the override that applies; `None` without an override or a reason.
    pub reason: Option<Arc<str>>,
    /// Number of failed runs since the latest restore point.
    pub failures: u64,
    /// Whether the module creates restore points; housekeeping modules do not.
    pub makes_restore_points: bool,
    /// Whether the module is abandoned.
    pub is_abandoned: bool,
}

/// State of a module. The variants are ordered from most to least urgent. The first four apply to modules that have an
/// objective and a completed run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ModuleState {
    /// The module has run, but has never created a restore point.
    NeverBackedUp,
    /// The latest restore point is older than the objective.
    Overdue,
    /// The latest restore point is within the objective, but runs have failed since then.
    Failing,
    /// The latest restore point is within the objective, and no run has failed since then.
    Ok,
    /// No run has completed yet.
    Pending,
    /// The configuration exempts the module.
    Exempt,
    /// The module creates no restore points.
    Housekeeping,
    /// No run has completed, and the module has no status, or has not been scanned, started or configured.
    NotConfigured,
    /// The module is disabled.
    Disabled,
    /// The module is abandoned.
    Dormant,
}

impl ModuleHealth {
    /// Returns when the latest restore point becomes older than the objective. If the module has run without creating a
    /// restore point, this is the Unix epoch plus the objective. Returns `None` if there is no objective or no
    /// completed run.
    pub fn deadline(&self) -> Option<Timestamp> {
        let _ = self.latest_completed?;
        Some(self.restore_point.unwrap_or(NEVER).plus(self.rpo?))
    }

    /// Returns whether the latest restore point is older than the objective.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        self.deadline().is_some_and(|deadline| deadline < now)
    }

    /// Returns whether the module has an objective, and runs have failed since the latest restore point.
    pub fn is_failing(&self) -> bool {
        self.failures > 0 && self.rpo.is_some()
    }

    /// Returns the state at `now`.
    pub fn state(&self, now: Timestamp) -> ModuleState {
        use JobStatus as Status;
        let latest = self.latest.map_or(Status::None, |run| run.status);
        match latest {
            Status::Disabled => ModuleState::Disabled,
            _ if self.is_abandoned => ModuleState::Dormant,
            _ if !self.makes_restore_points => ModuleState::Housekeeping,
            Status::None | Status::NotScanned | Status::NotStarted | Status::WaitingForConfiguration
                if self.latest_completed.is_none() =>
            {
                ModuleState::NotConfigured
            }
            _ if self.latest_completed.is_none() => ModuleState::Pending,
            _ if self.rpo.is_none() => ModuleState::Exempt,
            _ if self.is_overdue(now) && self.restore_point.is_none() => ModuleState::NeverBackedUp,
            _ if self.is_overdue(now) => ModuleState::Overdue,
            _ if self.is_failing() => ModuleState::Failing,
            _ => ModuleState::Ok,
        }
    }
}

/// Placeholder for the time of the latest restore point, if the module has never created one.
const NEVER: Timestamp = Timestamp::from_unix_seconds(0);

/// Summary of the health of a customer's modules, small enough to be stored for every customer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthSummary {
    /// Times at which the modules exceed their RPOs, earliest first.
    deadlines: Box<[Timestamp]>,
    failing: usize,
}

impl HealthSummary {
    /// Summarizes the health of modules.
    pub fn of(modules: &[ModuleHealth]) -> Self {
        let mut deadlines: Vec<Timestamp> = modules.iter().filter_map(ModuleHealth::deadline).collect();
        deadlines.sort_unstable();
        Self {
            deadlines: deadlines.into(),
            failing: modules.iter().filter(|module| module.is_failing()).count(),
        }
    }

    /// Returns how many modules are failing.
    pub fn failing(&self) -> usize {
        self.failing
    }

    /// Returns how many modules exceed their RPOs at `now`.
    pub fn overdue(&self, now: Timestamp) -> usize {
        self.deadlines.partition_point(|deadline| *deadline < now)
    }

    /// Returns the earliest time at which a module exceeded or will exceed its RPO.
    pub fn first_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_750_000_000 + hours * 3600)
    }

    fn module(restore_point: Option<i64>, rpo: Option<u64>, failures: u64) -> ModuleHealth {
        let latest = Some(RunSummary {
            status: JobStatus::Failed,
            at: Some(at(0)),
            has_failed_objects: false,
        });
        ModuleHealth {
            key: ModuleKey {
                service: "Microsoft 365".into(),
                module: "OneDrive".into(),
                scope: None,
            },
            latest,
            latest_completed: latest,
            restore_point: restore_point.map(at),
            rpo: rpo.map(|hours| Duration::from_secs(hours * 3600)),
            until: None,
            reason: None,
            failures,
            makes_restore_points: true,
            is_abandoned: false,
        }
    }

    fn not_run(status: JobStatus) -> ModuleHealth {
        ModuleHealth {
            latest: Some(RunSummary {
                status,
                at: None,
                has_failed_objects: false,
            }),
            latest_completed: None,
            ..module(None, None, 0)
        }
    }

    #[test]
    fn module_is_overdue_only_past_its_objective() {
        let due = module(Some(0), Some(26), 0);
        assert!(!due.is_overdue(at(26)) && due.is_overdue(at(27)));
        assert!(module(None, Some(26), 1).is_overdue(at(0)));
        assert!(!module(None, None, 1).is_overdue(at(1000)));
        let pending = ModuleHealth {
            rpo: Some(Duration::from_secs(3600)),
            ..not_run(JobStatus::Pending)
        };
        assert!(!pending.is_overdue(at(1000)));
    }

    #[test]
    fn state_is_the_problem_or_the_reason_why_there_is_none() {
        let failed = module(Some(0), Some(26), 2);
        let without = |change: fn(&mut ModuleHealth)| {
            let mut module = module(Some(0), None, 2);
            change(&mut module);
            module
        };
        for (module, hours, state) in [
            (module(None, Some(26), 1), 0, ModuleState::NeverBackedUp),
            (failed.clone(), 27, ModuleState::Overdue),
            (failed, 1, ModuleState::Failing),
            (module(Some(0), Some(26), 0), 1, ModuleState::Ok),
            (not_run(JobStatus::Pending), 1, ModuleState::Pending),
            (not_run(JobStatus::Running), 1, ModuleState::Pending),
            (not_run(JobStatus::NotStarted), 1, ModuleState::NotConfigured),
            (module(Some(0), None, 2), 99, ModuleState::Exempt),
            (
                without(|module| module.makes_restore_points = false),
                99,
                ModuleState::Housekeeping,
            ),
            (without(|module| module.is_abandoned = true), 99, ModuleState::Dormant),
            (not_run(JobStatus::Disabled), 99, ModuleState::Disabled),
        ] {
            assert_eq!(module.state(at(hours)), state, "{module:?}");
            assert!(
                state <= ModuleState::Failing || !module.is_failing(),
                "a module in the state {state:?} must not be failing"
            );
        }
    }

    #[test]
    fn summary_counts_the_states_of_modules() {
        let modules = [
            module(Some(0), Some(26), 2),
            module(Some(10), Some(26), 0),
            module(None, Some(26), 1),
            module(Some(0), None, 1),
        ];
        let summary = HealthSummary::of(&modules);
        assert_eq!(summary.failing(), 2);
        for hours in [0, 26, 27, 36, 37, 100] {
            let each = modules.iter().filter(|module| module.is_overdue(at(hours))).count();
            assert_eq!(summary.overdue(at(hours)), each, "{hours}");
        }
        assert_eq!(summary.first_deadline(), modules[2].deadline());
    }
}
