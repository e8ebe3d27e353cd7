//! When the backups of a module run and how they end: a pure function of seed, module and slot.
//!
//! Slots are counted from the Unix epoch, so a run is the same whenever the world is first looked at.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::dice::Dice;

/// The status numbers of the reference that runs of the simulated partner have.
pub(crate) mod status {
    pub(crate) const RUNNING: i64 = 1;
    pub(crate) const FINISHED: i64 = 2;
    pub(crate) const FAILED: i64 = 3;
    pub(crate) const FINISHED_WITH_EXCEPTION: i64 = 4;
    pub(crate) const SKIPPED: i64 = 5;
    pub(crate) const PENDING: i64 = 6;
    pub(crate) const FAILED_TO_START: i64 = 7;
    pub(crate) const CANCELED: i64 = 8;
    pub(crate) const REJECTED: i64 = 9;
    pub(crate) const STOPPED: i64 = 10;
    pub(crate) const NOT_STARTED: i64 = 13;
}

/// One run of a module, in truth; both generations write it down in their own way.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Run {
    /// The job id; `N/A` for some runs that did run.
    pub id: String,
    /// The job name; `N/A` for some.
    pub name: String,
    /// The status by its number in the reference; any other number is sent as it is.
    pub status: i64,
    /// Objects that the run processed.
    pub total: u64,
    /// Objects that failed.
    pub failed: u64,
    /// Objects that succeeded.
    pub successful: u64,
    /// Objects that were skipped.
    pub skipped: u64,
    /// Objects with a warning.
    pub warning: u64,
    /// The size in the API's spelling, such as `5.01 GB`.
    pub backup_size: String,
    /// Start, in Unix seconds.
    pub start: Option<i64>,
    /// End, in Unix seconds.
    pub end: Option<i64>,
    /// Last modification, in Unix seconds.
    pub last_modified: Option<i64>,
    /// Fields, by their name in the JSON, that replace or join what would be sent.
    pub raw_fields: BTreeMap<String, Value>,
    /// The slot of the schedule that decides how this run goes on; `None` once it has ended, and for
    /// a run that is to stay as a test has made it.
    #[serde(skip)]
    pub slot: Option<i64>,
}

/// How a module's runs tend to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Habit {
    /// Nearly always well.
    Reliable,
    /// One in five badly.
    Flaky,
    /// Mostly with some failed objects.
    Exceptions,
    /// Always failed.
    Failing,
    /// Every way of ending in turn.
    Rotating,
    /// Well until the last slot, after which nothing runs any more.
    Silent,
    /// Well until the last slot, whose run never ends.
    Stuck,
}

/// The plan of a module's runs, in seconds that `speed` has already divided.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Schedule {
    pub(crate) phase: i64,
    pub(crate) period: i64,
    pub(crate) duration: i64,
    pub(crate) habit: Habit,
    /// The path of the module's dice.
    pub(crate) key: u64,
    /// The name that its jobs carry.
    pub(crate) title: String,
    /// The objects of an ordinary run.
    pub(crate) objects: u64,
    /// No slot starts before this instant.
    pub(crate) not_before: i64,
    /// No slot starts after this instant.
    pub(crate) not_after: i64,
}

impl Schedule {
    /// The newest slot that has started by `now`.
    pub(crate) fn slot_at(&self, now: i64) -> i64 {
        now.min(self.not_after)
            .saturating_sub(self.phase)
            .div_euclid(self.period.max(1))
    }

    /// When a slot starts.
    pub(crate) fn start_of(&self, slot: i64) -> i64 {
        slot.saturating_mul(self.period).saturating_add(self.phase)
    }

    /// The run of a slot as it stands at `now`.
    pub(crate) fn run(&self, slot: i64, now: i64) -> Run {
        let mut dice = Dice::of(&[self.key, slot.cast_unsigned()]);
        let start = self.start_of(slot);
        let outcome = self.outcome(slot, &mut dice);
        let took = self.duration_of(outcome, &mut dice);
        let end = start.saturating_add(took);
        let id = if dice.chance(3) { "N/A".to_owned() } else { dice.uuid() };
        let name = if dice.chance(5) {
            "N/A".to_owned()
        } else {
            self.title.clone()
        };
        let begun = Run {
            id,
            name,
            backup_size: "0 GB".to_owned(),
            start: Some(start),
            last_modified: Some(start),
            slot: Some(slot),
            ..Run::default()
        };
        if self.never_ends(slot) || now < end {
            let waiting = took / 10;
            let pending = now < start.saturating_add(waiting);
            let status = if pending { status::PENDING } else { status::RUNNING };
            return Run { status, ..begun };
        }
        let mut ended = Run {
            status: outcome,
            end: Some(end),
            last_modified: Some(end),
            slot: None,
            ..begun
        };
        ended.count(self.objects, &mut dice);
        ended
    }

    fn never_ends(&self, slot: i64) -> bool {
        self.habit == Habit::Stuck && slot == self.slot_at(self.not_after)
    }

    fn outcome(&self, slot: i64, dice: &mut Dice) -> i64 {
        use status::*;
        const TURNS: [i64; 8] = [
            FINISHED,
            FINISHED_WITH_EXCEPTION,
            FAILED,
            FAILED_TO_START,
            SKIPPED,
            CANCELED,
            STOPPED,
            REJECTED,
        ];
        let roll = dice.below(1000);
        match self.habit {
            Habit::Reliable | Habit::Silent | Habit::Stuck => match roll {
                0..930 => FINISHED,
                930..965 => FINISHED_WITH_EXCEPTION,
                965..980 => FAILED,
                980..990 => SKIPPED,
                990..995 => CANCELED,
                _ => STOPPED,
            },
            Habit::Flaky => match roll {
                0..700 => FINISHED,
                700..800 => FINISHED_WITH_EXCEPTION,
                800..930 => FAILED,
                930..970 => FAILED_TO_START,
                _ => SKIPPED,
            },
            Habit::Exceptions if roll < 850 => FINISHED_WITH_EXCEPTION,
            Habit::Exceptions => FINISHED,
            Habit::Failing if roll < 850 => FAILED,
            Habit::Failing => FAILED_TO_START,
            Habit::Rotating => usize::try_from(slot.rem_euclid(8))
                .ok()
                .and_then(|turn| TURNS.get(turn).copied())
                .unwrap_or(FINISHED),
        }
    }

    fn duration_of(&self, outcome: i64, dice: &mut Dice) -> i64 {
        let percent = dice.seconds(70, 130);
        let ordinary = self.duration.saturating_mul(percent) / 100;
        let took = match outcome {
            status::FAILED_TO_START | status::SKIPPED | status::REJECTED => ordinary / 60,
            status::CANCELED | status::STOPPED => ordinary / 2,
            _ => ordinary,
        };
        // A run is over before the next one begins, however far time is compressed.
        took.clamp(0, (self.period - 1).max(0))
    }
}

impl Run {
    /// Brings a run that has not ended to where its plan has it at `now`.
    ///
    /// True if that ended it.
    fn settle(&mut self, schedule: &Schedule, now: i64) -> bool {
        let Some(slot) = self.slot else { return false };
        let raw_fields = std::mem::take(&mut self.raw_fields);
        *self = Run {
            raw_fields,
            ..schedule.run(slot, now)
        };
        self.slot.is_none()
    }

    fn count(&mut self, objects: u64, dice: &mut Dice) {
        use status::*;
        let total = objects
            .saturating_sub(objects / 20)
            .saturating_add(dice.below(objects / 10 + 1));
        match self.status {
            FINISHED => {
                self.warning = if dice.chance(10) { dice.below(total / 50 + 1) } else { 0 };
                self.successful = total - self.warning;
            }
            FINISHED_WITH_EXCEPTION => {
                self.failed = dice.between(1, total / 20 + 1).min(total);
                self.skipped = dice.below(3).min(total - self.failed);
                self.successful = total - self.failed - self.skipped;
            }
            // Some failures name no object that failed.
            FAILED => self.failed = if dice.chance(50) { total } else { 0 },
            SKIPPED => self.skipped = total,
            CANCELED | STOPPED => self.successful = total / 2,
            _ => {}
        }
        self.total = self.failed + self.successful + self.skipped + self.warning;
        if self.successful > 0 {
            self.backup_size = dice.gigabytes(total / 20 + 2);
        }
    }
}

/// Brings a module's runs to `now`: settles the open ones, adds those that have started since, forgets
/// the oldest past `kept`. Answers how many restore points were made.
pub(crate) fn advance(runs: &mut Vec<Run>, next_slot: &mut i64, schedule: &Schedule, kept: usize, now: i64) -> u64 {
    let settled = runs
        .iter_mut()
        .filter_map(|run| run.settle(schedule, now).then_some(run.status))
        .collect::<Vec<_>>();
    let newest = schedule.slot_at(now);
    let oldest = newest
        .saturating_sub(i64::try_from(kept).unwrap_or(i64::MAX))
        .saturating_add(1);
    let first = oldest.max(*next_slot);
    let added = (first..=newest)
        .filter(|slot| schedule.start_of(*slot) >= schedule.not_before)
        .map(|slot| schedule.run(slot, now))
        .collect::<Vec<_>>();
    *next_slot = (*next_slot).max(newest.saturating_add(1));
    let points = settled
        .into_iter()
        .chain(added.iter().map(|run| run.status))
        .filter(|status| matches!(*status, status::FINISHED | status::FINISHED_WITH_EXCEPTION))
        .count();
    runs.extend(added);
    let surplus = runs.len().saturating_sub(kept);
    runs.drain(..surplus);
    u64::try_from(points).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    fn daily(habit: Habit) -> Schedule {
        Schedule {
            phase: 3600,
            period: 86_400,
            duration: 1800,
            habit,
            key: 7,
            title: "Backup".to_owned(),
            objects: 100,
            not_before: i64::MIN,
            not_after: i64::MAX,
        }
    }

    #[test]
    fn a_run_waits_runs_and_ends() {
        let schedule = daily(Habit::Exceptions);
        let start = schedule.start_of(20_000);
        assert_eq!(schedule.run(20_000, start).status, status::PENDING);
        assert_eq!(schedule.run(20_000, start + 600).status, status::RUNNING);
        assert_eq!(schedule.run(20_000, start + 600).end, None);
        let ended = schedule.run(20_000, start + 3600);
        assert!(ended.end.unwrap() > start);
        assert_eq!(
            ended.total,
            ended.failed + ended.successful + ended.skipped + ended.warning
        );
    }

    #[test]
    fn runs_are_the_same_however_time_is_cut() {
        let schedule = daily(Habit::Flaky);
        let (mut once, mut often) = (Vec::new(), Vec::new());
        let (mut next_once, mut next_often) = (i64::MIN, i64::MIN);
        for hour in 0..2000 {
            advance(&mut often, &mut next_often, &schedule, 60, 1_700_000_000 + hour * 3600);
        }
        advance(&mut once, &mut next_once, &schedule, 60, 1_700_000_000 + 1999 * 3600);
        assert_eq!(once, often);
        assert_eq!(once.len(), 60);
    }

    #[test]
    fn a_stuck_run_never_ends_and_nothing_follows() {
        let mut schedule = daily(Habit::Stuck);
        schedule.not_after = schedule.start_of(20_000) + 5;
        let (mut runs, mut next) = (Vec::new(), i64::MIN);
        advance(&mut runs, &mut next, &schedule, 60, schedule.start_of(20_010));
        let newest = runs.last().unwrap();
        assert_eq!(newest.status, status::RUNNING);
        assert_eq!(newest.start, Some(schedule.start_of(20_000)));
        assert!(runs[58].end.is_some());
    }

    #[test]
    fn every_way_of_ending_comes_round() {
        let schedule = daily(Habit::Rotating);
        let mut seen: Vec<i64> = (0..8).map(|slot| schedule.run(slot, i64::MAX).status).collect();
        seen.sort_unstable();
        assert_eq!(seen, [2, 3, 4, 5, 7, 8, 9, 10]);
    }

    #[test]
    fn what_a_test_put_on_an_open_run_outlives_its_end() {
        let schedule = daily(Habit::Reliable);
        let start = schedule.start_of(20_000);
        let (mut runs, mut next) = (Vec::new(), i64::MIN);
        advance(&mut runs, &mut next, &schedule, 3, start + 600);
        runs[2].raw_fields.insert("name".to_owned(), "odd".into());
        runs[1].status = 99;
        advance(&mut runs, &mut next, &schedule, 3, start + 40_000);
        assert_eq!(runs[2].raw_fields["name"], "odd");
        assert!(runs[2].end.is_some());
        assert_eq!(runs[1].status, 99, "an ended run stays as it was set");
    }
}
