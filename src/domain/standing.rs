//! How the modules of a customer stand, for people: what ran last, what can be restored, and what is wrong with that.

use std::borrow::Cow;
use std::time::Duration;

use super::run::Run;
use super::status::JobStatus;
use super::time::Timestamp;

/// A run as a person is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glimpse {
    /// Its status.
    pub status: JobStatus,
    /// When it ended or, as long as it has not, when it was last heard of.
    pub at: Option<Timestamp>,
}

impl From<&Run> for Glimpse {
    fn from(run: &Run) -> Self {
        Self {
            status: run.status,
            at: run.end.or(run.start).or(run.modified),
        }
    }
}

/// How one module stands.
#[derive(Clone, Debug, PartialEq)]
pub struct ModuleStanding {
    /// The service.
    pub service: Cow<'static, str>,
    /// The module.
    pub module: Cow<'static, str>,
    /// The newest run.
    pub newest: Option<Glimpse>,
    /// The newest run that ended.
    pub newest_ended: Option<Glimpse>,
    /// When the newest restore point was made.
    pub restore_point: Option<Timestamp>,
    /// How old the newest restore point may be; `None` where the module is exempt.
    pub objective: Option<Duration>,
    /// Runs that ended since the newest restore point without making one.
    pub failures: u64,
}

impl ModuleStanding {
    /// When the newest restore point is too old; of a module that has run and never made one, long since. `None` where
    /// the module is exempt or has not run.
    pub fn deadline(&self) -> Option<Timestamp> {
        let _ = self.newest_ended?;
        let objective = self.objective?;
        Some(self.restore_point.unwrap_or(NEVER).plus(objective))
    }

    /// Whether the newest restore point is older than it may be.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        self.deadline().is_some_and(|deadline| deadline < now)
    }

    /// Whether runs have failed since the newest restore point.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }
}

/// When a restore point that never was is taken to be from.
const NEVER: Timestamp = Timestamp::from_unix_seconds(0);

/// How all modules of a customer stand, small enough to be kept of every customer and looked at for each at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// When each module is overdue, earliest first.
    deadlines: Box<[Timestamp]>,
    modules: usize,
    failing: usize,
}

impl Standing {
    /// The sum of these modules.
    pub fn of(modules: &[ModuleStanding]) -> Self {
        let mut deadlines: Vec<Timestamp> = modules.iter().filter_map(ModuleStanding::deadline).collect();
        deadlines.sort_unstable();
        Self {
            deadlines: deadlines.into(),
            modules: modules.len(),
            failing: modules.iter().filter(|module| module.is_failing()).count(),
        }
    }

    /// How many modules there are.
    pub fn modules(&self) -> usize {
        self.modules
    }

    /// How many of them have failed since their newest restore point.
    pub fn failing(&self) -> usize {
        self.failing
    }

    /// How many of them have no restore point that is new enough.
    pub fn overdue(&self, now: Timestamp) -> usize {
        self.deadlines.partition_point(|deadline| *deadline < now)
    }

    /// When the first of them was, or will be, overdue.
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

    fn module(restore_point: Option<i64>, objective: Option<u64>, failures: u64) -> ModuleStanding {
        let newest = Some(Glimpse {
            status: JobStatus::Failed,
            at: Some(at(0)),
        });
        ModuleStanding {
            service: "Microsoft 365".into(),
            module: "OneDrive".into(),
            newest,
            newest_ended: newest,
            restore_point: restore_point.map(at),
            objective: objective.map(|hours| Duration::from_secs(hours * 3600)),
            failures,
        }
    }

    #[test]
    fn a_module_is_overdue_past_its_objective_and_never_when_exempt_or_not_yet_run() {
        let due = module(Some(0), Some(26), 0);
        assert!(!due.is_overdue(at(26)) && due.is_overdue(at(27)));
        assert!(module(None, Some(26), 1).is_overdue(at(0)));
        assert!(!module(None, None, 1).is_overdue(at(1000)));
        let unrun = ModuleStanding {
            newest_ended: None,
            ..module(None, Some(26), 0)
        };
        assert!(!unrun.is_overdue(at(1000)));
    }

    #[test]
    fn the_sum_tells_what_each_module_would() {
        let modules = [
            module(Some(0), Some(26), 2),
            module(Some(10), Some(26), 0),
            module(None, Some(26), 1),
            module(Some(0), None, 0),
        ];
        let standing = Standing::of(&modules);
        assert_eq!((standing.modules(), standing.failing()), (4, 2));
        for hours in [0, 26, 27, 36, 37, 100] {
            let each = modules.iter().filter(|module| module.is_overdue(at(hours))).count();
            assert_eq!(standing.overdue(at(hours)), each, "{hours}");
        }
        assert_eq!(standing.first_deadline(), modules[2].deadline());
    }
}
