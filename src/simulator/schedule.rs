//! Times and results of a module's runs. A run is a pure function of its schedule, its slot and the current time.
//!
//! Slots are counted from the Unix epoch, so a run does not depend on when the world is first advanced.

use super::incidents::{Interruption, Interval};
use super::rng::SeededRng;
use super::run::{ABSENT, NO_SIZE, Run, status};

/// How a module's runs usually end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    /// Each run creates a restore point, sometimes with failed objects.
    Steady,
    /// Like [`Habit::Steady`], but with an occasional single failure.
    Usual,
    /// Nearly all runs are successful. The others have various results.
    Reliable,
    /// One run in five creates no restore point.
    Flaky,
    /// Most runs have some failed objects.
    Exceptions,
    /// Each run fails or fails to start.
    Failing,
    /// Like [`Habit::Steady`] until [`Schedule::fails_from`]. Afterwards, each run fails before it processes any
    /// objects.
    Broken,
    /// Each final status in turn.
    Rotating,
    /// Like [`Habit::Steady`] until the last slot. Afterwards, no run starts.
    Silent,
    /// Like [`Habit::Steady`] until the last slot. The run of that slot never ends.
    Stuck,
}

/// Amount of work of a module's runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// About this many objects.
    Objects(u64),
    /// No objects; a successful run starts and ends in the same second.
    Instant,
    /// No objects; a successful run has neither an id nor times, only a last modification.
    Nothing,
}

/// Schedule of a module's runs. All durations are already divided by the speed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Schedule {
    pub(crate) phase: i64,
    pub(crate) period: i64,
    /// How long a run is queued.
    pub(crate) wait: i64,
    pub(crate) duration: i64,
    pub(crate) habit: Habit,
    /// Seed of the module's random numbers.
    pub(crate) key: u64,
    /// Backup scope, if the service has scopes.
    pub(crate) scope: Option<String>,
    /// Prefix of the job ids.
    pub(crate) id_prefix: &'static str,
    /// Percentage of runs without an id.
    pub(crate) anonymous: u64,
    pub(crate) work: Work,
    /// Largest size of a run, in hundredths of a gigabyte.
    pub(crate) stores: u64,
    /// Time from which runs with [`Habit::Broken`] fail.
    pub(crate) fails_from: i64,
    /// Slots that start before this time have no runs.
    pub(crate) not_before: i64,
    /// No slot starts after this time.
    pub(crate) not_after: i64,
    /// Past interruptions.
    pub(crate) interruptions: Vec<Interval>,
}

impl Schedule {
    /// Returns the latest slot that starts by `now`.
    pub(crate) fn slot_at(&self, now: i64) -> i64 {
        now.min(self.not_after)
            .saturating_sub(self.phase)
            .div_euclid(self.period.max(1))
    }

    /// Returns the start of a slot.
    pub(crate) fn start_of(&self, slot: i64) -> i64 {
        slot.saturating_mul(self.period).saturating_add(self.phase)
    }

    /// Returns the past interruption in which a slot starts.
    fn interruption(&self, slot: i64) -> Option<&Interval> {
        let start = self.start_of(slot);
        self.interruptions.iter().find(|interval| interval.contains(start))
    }

    /// Returns the first slot of a past interruption.
    fn first_slot_of(&self, interval: &Interval) -> i64 {
        let before = interval.from.saturating_sub(1).saturating_sub(self.phase);
        before.div_euclid(self.period.max(1)).saturating_add(1)
    }

    fn has_run(&self, slot: i64) -> bool {
        self.start_of(slot) >= self.not_before
            && match self.interruption(slot) {
                Some(interval) => match interval.interruption {
                    Interruption::Failing => true,
                    Interruption::Silent => false,
                    Interruption::Hung => slot == self.first_slot_of(interval),
                },
                None => true,
            }
    }

    /// Returns the latest slot that starts by `now`. If a past interruption suppresses the run of this slot, returns
    /// the latest earlier slot with a run.
    fn newest_with_run(&self, now: i64) -> i64 {
        let slot = self.slot_at(now);
        match self.interruption(slot) {
            Some(interval) if !self.has_run(slot) => {
                let first = self.first_slot_of(interval);
                if self.has_run(first) {
                    first
                } else {
                    first.saturating_sub(1)
                }
            }
            _ => slot,
        }
    }

    /// Returns a slot's run in its state at `now`.
    pub(crate) fn run(&self, slot: i64, now: i64) -> Run {
        let mut rng = SeededRng::from_path(&[self.key, slot.cast_unsigned()]);
        let queued = self.start_of(slot);
        let start = queued.saturating_add(self.wait);
        let usual_outcome = self.outcome(slot, &mut rng);
        let interruption = self.interruption(slot);
        let outcome = match interruption.map(|interval| interval.interruption) {
            None => usual_outcome,
            Some(Interruption::Hung) => status::CANCELED,
            Some(_) => status::FAILED,
        };
        let usual_end = start.saturating_add(self.duration_of(outcome, &mut rng));
        let end = match interruption {
            Some(interval) if interval.interruption == Interruption::Hung => interval.to.max(usual_end),
            _ => usual_end,
        };
        let waiting = Run {
            name: self.scope.clone().unwrap_or_else(|| ABSENT.to_owned()),
            last_modified: Some(queued),
            slot: Some(slot),
            ..Run::bare(status::PENDING)
        };
        if now < start {
            return waiting;
        }
        let running = Run {
            id: self.id(&mut rng),
            status: status::RUNNING,
            start: Some(start),
            last_modified: Some(start),
            ..waiting
        };
        if self.never_ends(slot) || now < end {
            return running;
        }
        let has_no_objects = outcome == status::FAILED && (self.habit == Habit::Broken || interruption.is_some());
        self.ended(
            Run {
                status: outcome,
                end: Some(end),
                last_modified: Some(end),
                slot: None,
                ..running
            },
            has_no_objects,
            &mut rng,
        )
    }

    fn id(&self, rng: &mut SeededRng) -> String {
        if rng.chance(self.anonymous) {
            return ABSENT.to_owned();
        }
        format!("{}{}", self.id_prefix, rng.next())
    }

    fn ended(&self, run: Run, has_no_objects: bool, rng: &mut SeededRng) -> Run {
        match self.work {
            Work::Nothing if run.is_restore_point() => Run {
                id: ABSENT.to_owned(),
                start: None,
                end: None,
                status: status::FINISHED,
                ..run
            },
            Work::Instant if run.is_restore_point() => Run {
                start: run.end,
                status: status::FINISHED,
                ..run
            },
            Work::Nothing | Work::Instant => run,
            Work::Objects(_) if has_no_objects => run,
            Work::Objects(objects) => {
                let mut run = run;
                run.count(objects, rng);
                if run.successful > 0 && self.stores > 0 {
                    run.backup_size = gigabytes(rng.between(self.stores - self.stores / 5, self.stores).max(1));
                }
                run
            }
        }
    }

    fn never_ends(&self, slot: i64) -> bool {
        self.habit == Habit::Stuck && slot == self.slot_at(self.not_after)
    }

    fn outcome(&self, slot: i64, rng: &mut SeededRng) -> i64 {
        use status::*;
        const RESULTS: [i64; 8] = [
            FINISHED,
            FINISHED_WITH_EXCEPTION,
            FAILED,
            FAILED_TO_START,
            SKIPPED,
            CANCELED,
            STOPPED,
            REJECTED,
        ];
        let permille = rng.below(1000);
        match self.habit {
            Habit::Steady | Habit::Silent | Habit::Stuck => steady(permille),
            // Only the run of every fourth slot may fail, so the run after a failure always creates a restore point.
            Habit::Usual if slot.rem_euclid(4) == 0 && permille >= 995 => FAILED,
            Habit::Usual => steady(permille),
            Habit::Broken if self.start_of(slot) < self.fails_from => steady(permille),
            Habit::Broken => FAILED,
            Habit::Reliable => match permille {
                0..930 => FINISHED,
                930..965 => FINISHED_WITH_EXCEPTION,
                965..980 => FAILED,
                980..990 => SKIPPED,
                990..995 => CANCELED,
                _ => STOPPED,
            },
            Habit::Flaky => match permille {
                0..700 => FINISHED,
                700..800 => FINISHED_WITH_EXCEPTION,
                800..930 => FAILED,
                930..970 => FAILED_TO_START,
                _ => SKIPPED,
            },
            Habit::Exceptions if permille < 850 => FINISHED_WITH_EXCEPTION,
            Habit::Exceptions => FINISHED,
            Habit::Failing if permille < 850 => FAILED,
            Habit::Failing => FAILED_TO_START,
            Habit::Rotating => usize::try_from(slot.rem_euclid(8))
                .ok()
                .and_then(|turn| RESULTS.get(turn).copied())
                .unwrap_or(FINISHED),
        }
    }

    fn duration_of(&self, outcome: i64, rng: &mut SeededRng) -> i64 {
        let percent = rng.seconds(70, 130);
        let ordinary = self.duration.saturating_mul(percent) / 100;
        let duration = match outcome {
            status::FAILED_TO_START | status::SKIPPED | status::REJECTED => ordinary / 60,
            status::CANCELED | status::STOPPED => ordinary / 2,
            _ => ordinary,
        };
        // Even at high speed, a run ends before the next one is queued.
        duration.clamp(0, (self.period - self.wait - 1).max(0))
    }
}

fn steady(permille: u64) -> i64 {
    if permille < 20 {
        status::FINISHED_WITH_EXCEPTION
    } else {
        status::FINISHED
    }
}

/// Formats hundredths of a gigabyte as the API does.
pub(crate) fn gigabytes(hundredths: u64) -> String {
    match hundredths {
        0 => NO_SIZE.to_owned(),
        _ => format!("{}.{:02} GB", hundredths / 100, hundredths % 100),
    }
}

impl Run {
    /// Updates an unfinished run to `now`. Returns whether it has ended.
    fn update(&mut self, schedule: &Schedule, now: i64) -> bool {
        let Some(slot) = self.slot else { return false };
        let raw_fields = std::mem::take(&mut self.raw_fields);
        *self = Run {
            raw_fields,
            ..schedule.run(slot, now)
        };
        self.slot.is_none()
    }
}

/// Advances a module's runs to `now`: updates unfinished runs, adds new runs, and drops the oldest runs beyond
/// `max_runs`. Returns the number of new restore points.
pub(crate) fn advance(runs: &mut Vec<Run>, next_slot: &mut i64, schedule: &Schedule, max_runs: usize, now: i64) -> u64 {
    let completed: u64 = runs
        .iter_mut()
        .map(|run| u64::from(run.update(schedule, now) && run.is_restore_point()))
        .sum();
    let newest = schedule.slot_at(now);
    let oldest = schedule
        .newest_with_run(now)
        .saturating_sub(i64::try_from(max_runs).unwrap_or(i64::MAX))
        .saturating_add(1);
    let first = oldest.max(*next_slot);
    let added = (first..=newest)
        .filter(|slot| schedule.has_run(*slot))
        .map(|slot| schedule.run(slot, now))
        .collect::<Vec<_>>();
    *next_slot = (*next_slot).max(newest.saturating_add(1));
    let points = added
        .iter()
        .filter(|run| run.slot.is_none() && run.is_restore_point())
        .count();
    runs.extend(added);
    let surplus = runs.len().saturating_sub(max_runs);
    runs.drain(..surplus);
    completed.saturating_add(u64::try_from(points).unwrap_or(0))
}

#[cfg(test)]
mod tests;
