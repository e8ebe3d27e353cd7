//! What a list of runs means: the newest, the newest that ended, the newest restore point, the failures since.
//!
//! The API lists one run of a module or many, in any order, again and again. A [`History`] takes each list in and keeps
//! what must not be forgotten when a run is no longer listed, and what is needed to count each run once.

use std::collections::BTreeMap;
use std::time::Duration;

use ring::digest;
use serde::{Deserialize, Serialize};

use super::status::JobStatus;
use super::time::Timestamp;

/// How many ended runs are remembered besides those that the newest list holds, so that a run that drops out of one
/// list and is back in the next is not counted twice. Replicas of the API disagree by a run or two, not by more.
const REMEMBERED_RUNS: usize = 8;

/// One run as a list shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// What tells it from other runs of its module.
    pub key: RunKey,
    /// Its status.
    pub status: JobStatus,
    /// When it started.
    pub start: Option<Timestamp>,
    /// When it ended. An end in the future is left out by whoever reads the run: it is no end yet.
    pub end: Option<Timestamp>,
    /// When it is taken to have ended at the earliest, where it says that it ended and not when.
    #[serde(default)]
    pub dated: Option<Timestamp>,
    /// When it was last modified.
    pub modified: Option<Timestamp>,
    /// How long it took, as the API says.
    pub duration: Option<Duration>,
    /// How much it backed up, in bytes.
    pub backup_size: Option<f64>,
    /// Objects processed.
    pub processed: Option<u64>,
    /// Objects backed up.
    pub successful: Option<u64>,
    /// Objects that failed.
    pub failed: Option<u64>,
    /// Objects that were skipped.
    pub skipped: Option<u64>,
    /// Objects with a warning.
    pub warning: Option<u64>,
}

/// What tells two runs of a module apart: a hash of the run's id or, where it has none, of its start. The hash is one
/// that never changes, because keys outlive the process in the state file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunKey(u64);

impl RunKey {
    /// The key of a run with an id, or with none and this start, or with neither and this end.
    pub fn new(id: Option<&str>, start: Option<Timestamp>, end: Option<Timestamp>) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        match (id, start, end) {
            (Some(id), _, _) => hash.update(id.as_bytes()),
            (None, Some(start), _) => hash.update(format!("start {start:?}").as_bytes()),
            (None, None, end) => hash.update(format!("end {end:?}").as_bytes()),
        }
        let half = hash
            .finish()
            .as_ref()
            .iter()
            .take(8)
            .fold(0, |key, byte| key << 8 | u64::from(*byte));
        Self(half)
    }
}

/// Where a run stands among others: by end, then last modification, then start; a run without an end stands where its
/// last known moment is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Rank {
    moment: Option<Timestamp>,
    modified: Option<Timestamp>,
    start: Option<Timestamp>,
}

impl Run {
    fn rank(&self) -> Rank {
        Rank {
            moment: self.moment(),
            modified: self.modified,
            start: self.start,
        }
    }

    /// The last moment known of the run, `None` for the placeholder of a module that never ran.
    fn moment(&self) -> Option<Timestamp> {
        self.end.or(self.dated).or(self.modified).or(self.start)
    }

    /// Whether it is dated by when it was first seen, because it says of no moment.
    fn is_dated_by_sight(&self) -> bool {
        self.dated.is_some() && self.end.or(self.modified).or(self.start).is_none()
    }

    fn has_ended(&self) -> bool {
        self.status.has_ended(self.end.is_some())
    }
}

/// An ended run, as much of it as must be remembered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Ended {
    key: RunKey,
    status: JobStatus,
    end: Option<Timestamp>,
    rank: Rank,
}

impl Ended {
    /// Where the run stands, if it left a restore point whose moment is known.
    fn restore_point(&self) -> Option<Rank> {
        (self.end.is_some() && self.status.is_restore_point()).then_some(self.rank)
    }

    fn is_failure(&self) -> bool {
        self.status.counts_as_failure(self.end.is_some())
    }

    fn success(&self) -> Option<Timestamp> {
        self.end.filter(|_| self.status.is_success())
    }
}

/// What is kept of ended runs that are not remembered one by one any more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Forgotten {
    /// The newest moment among them. A run not after it that is not remembered has been counted.
    until: Option<Timestamp>,
    success: Option<Timestamp>,
    restore_point: Option<Rank>,
    /// Failures among them after `restore_point`, and where the newest of them stands.
    failures: u64,
    newest_failure: Option<Rank>,
}

/// What is known of the runs of one module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    newest: Option<Run>,
    newest_ended: Option<Run>,
    listed: BTreeMap<JobStatus, u64>,
    ended: BTreeMap<JobStatus, u64>,
    remembered: Vec<Ended>,
    forgotten: Forgotten,
}

impl History {
    /// Takes in the runs that a list holds of the module, and says how many rows were second rows of one run.
    pub fn absorb(&mut self, rows: Vec<Run>) -> u64 {
        let (mut runs, duplicates) = distinct(rows);
        let places = self.places();
        for run in runs.values_mut().filter(|run| run.is_dated_by_sight()) {
            let known = places.get(&run.key).and_then(|place| self.remembered.get(*place));
            run.dated = known.and_then(|known| known.rank.moment).or(run.dated);
        }
        self.listed.clear();
        for run in runs.values() {
            *self.listed.entry(run.status).or_default() += 1;
        }
        self.newest = newest(self.newest.take(), &runs, |_| true);
        self.newest_ended = newest(self.newest_ended.take(), &runs, Run::has_ended);
        self.remember(&runs);
        self.forget(&runs);
        duplicates
    }

    /// The newest run.
    pub fn newest(&self) -> Option<&Run> {
        self.newest.as_ref()
    }

    /// Whether the newest run has begun and not ended.
    pub fn is_under_way(&self) -> bool {
        self.newest().is_some_and(|run| run.start.is_some() && !run.has_ended())
    }

    /// The newest run that ended.
    pub fn newest_ended(&self) -> Option<&Run> {
        self.newest_ended.as_ref()
    }

    /// How many runs the newest list holds in each status.
    pub fn listed(&self) -> &BTreeMap<JobStatus, u64> {
        &self.listed
    }

    /// How many runs were seen to end in each status, each run once.
    pub fn ended(&self) -> &BTreeMap<JobStatus, u64> {
        &self.ended
    }

    /// Whether any run was seen to end.
    pub fn has_run(&self) -> bool {
        self.newest_ended.is_some()
    }

    /// The end of the newest run that ended Finished.
    pub fn last_success(&self) -> Option<Timestamp> {
        let remembered = self.remembered.iter().filter_map(Ended::success).max();
        remembered.max(self.forgotten.success)
    }

    /// The end of the newest run that ended Finished or Finished with exception: of the newest restore point.
    pub fn last_restore_point(&self) -> Option<Timestamp> {
        self.restore_point()?.moment
    }

    /// How many runs ended since the newest restore point, skipped ones not counted.
    pub fn consecutive_failures(&self) -> u64 {
        let since = self.restore_point();
        let remembered = self.remembered.iter();
        let remembered = remembered
            .filter(|run| run.is_failure() && Some(run.rank) > since)
            .count();
        let forgotten = match self.forgotten.newest_failure > since {
            true => self.forgotten.failures,
            false => 0,
        };
        forgotten.saturating_add(u64::try_from(remembered).unwrap_or(u64::MAX))
    }

    /// Where the run of the newest restore point stands.
    fn restore_point(&self) -> Option<Rank> {
        let remembered = self.remembered.iter().filter_map(Ended::restore_point).max();
        remembered.max(self.forgotten.restore_point)
    }

    /// Where each run that is remembered stands. By key, because a list may hold tens of thousands of runs of one module.
    fn places(&self) -> BTreeMap<RunKey, usize> {
        let known = self.remembered.iter().enumerate();
        known.map(|(place, run)| (run.key, place)).collect()
    }

    /// Remembers the runs that ended and counts them, but for those that were counted before. A run whose status was
    /// corrected is remembered as corrected and stays counted as it was.
    fn remember(&mut self, listed: &BTreeMap<RunKey, Run>) {
        let places = self.places();
        for run in listed.values().filter(|run| run.has_ended()) {
            let ended = Ended {
                key: run.key,
                status: run.status,
                end: run.end.or(run.dated.filter(|_| run.status.is_restore_point())),
                rank: run.rank(),
            };
            let place = places.get(&run.key).copied();
            if let Some(known) = place.and_then(|place| self.remembered.get_mut(place)) {
                *known = ended;
                continue;
            }
            let counted_before = ended.rank.moment.is_some() && ended.rank.moment <= self.forgotten.until;
            if !counted_before {
                *self.ended.entry(run.status).or_default() += 1;
                self.remembered.push(ended);
            }
        }
    }

    /// Lets go of the oldest runs that are not listed any more, keeping what they say in sum.
    fn forget(&mut self, listed: &BTreeMap<RunKey, Run>) {
        self.remembered.sort_by_key(|run| std::cmp::Reverse(run.rank));
        let mut unlisted = 0;
        let forgotten = &mut self.forgotten;
        self.remembered.retain(|run| {
            if listed.contains_key(&run.key) {
                return true;
            }
            unlisted += 1;
            if unlisted <= REMEMBERED_RUNS {
                return true;
            }
            forgotten.take_in(run);
            false
        });
    }
}

impl Forgotten {
    fn take_in(&mut self, run: &Ended) {
        self.until = self.until.max(run.rank.moment);
        self.success = self.success.max(run.success());
        if run.restore_point() > self.restore_point {
            self.restore_point = run.restore_point();
            if self.newest_failure <= self.restore_point {
                self.failures = 0;
            }
        }
        if run.is_failure() && Some(run.rank) > self.restore_point {
            self.failures = self.failures.saturating_add(1);
            self.newest_failure = self.newest_failure.max(Some(run.rank));
        }
    }
}

/// The runs by key. Of two rows of one run the one that has ended counts, and of two such the worse.
fn distinct(rows: Vec<Run>) -> (BTreeMap<RunKey, Run>, u64) {
    let mut runs: BTreeMap<RunKey, Run> = BTreeMap::new();
    let mut duplicates = 0;
    for row in rows {
        match runs.get_mut(&row.key) {
            None => {
                runs.insert(row.key, row);
            }
            Some(known) => {
                duplicates += 1;
                // A row that has ended knows more than one that has not; of two alike the worse counts.
                let weight = |run: &Run| (run.has_ended(), run.status.severity());
                if weight(&row) > weight(known) {
                    *known = row;
                }
            }
        }
    }
    (runs, duplicates)
}

/// The newest of the runs that count, the one known before among them: an older run that arrives late does not
/// displace it. A row that says of no moment when it was, as the placeholder of a module that waits to be configured,
/// is the newest word on the module only where the list has no other.
fn newest(before: Option<Run>, listed: &BTreeMap<RunKey, Run>, counts: impl Fn(&Run) -> bool) -> Option<Run> {
    let newest = listed
        .values()
        .filter(|run| counts(run))
        .max_by_key(|run| (run.rank(), run.status.severity()));
    let Some(newest) = newest else {
        return before;
    };
    let stands = before.filter(|before| {
        let told_anew = listed.get(&before.key).is_some_and(&counts);
        !told_anew && newest.moment().is_some() && before.rank() > newest.rank()
    });
    stands.or_else(|| Some(newest.clone()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_list_of_very_many_runs_counts_each_once() {
        const RUNS: u64 = 50_000;
        let list = || -> Vec<Run> {
            let hours = 0..i64::try_from(RUNS).unwrap();
            hours
                .map(|hour| run(&hour.to_string(), JobStatus::Finished, hour, Some(hour + 1)))
                .collect()
        };
        let mut history = History::default();
        for _ in 0..3 {
            assert_eq!(history.absorb(list()), 0);
            assert_eq!(history.ended(), &BTreeMap::from([(JobStatus::Finished, RUNS)]));
        }
    }

    fn at(hours: i64) -> Option<Timestamp> {
        Some(Timestamp::from_unix_seconds(1_750_000_000 + hours * 3600))
    }

    fn run(id: &str, status: JobStatus, start: i64, end: Option<i64>) -> Run {
        let (start, end) = (at(start), end.and_then(at));
        Run {
            key: RunKey::new(Some(id), start, end),
            status,
            start,
            end,
            dated: None,
            modified: None,
            duration: None,
            backup_size: None,
            processed: None,
            successful: None,
            failed: None,
            skipped: None,
            warning: None,
        }
    }

    fn placeholder(status: JobStatus) -> Run {
        Run {
            start: None,
            key: RunKey::new(None, None, None),
            ..run("", status, 0, None)
        }
    }

    use JobStatus::{Canceled, Failed, Finished, FinishedWithException, NotStarted, Running, Skipped, Unknown};

    #[test]
    fn a_run_in_progress_does_not_hide_the_failure_before_it() {
        let mut history = History::default();
        history.absorb(vec![run("a", Finished, 0, Some(1))]);
        history.absorb(vec![run("b", Failed, 24, Some(25))]);
        history.absorb(vec![run("c", Running, 48, None)]);
        assert_eq!(history.newest().unwrap().status, Running);
        assert_eq!(history.newest_ended().unwrap().status, Failed);
        assert_eq!(history.last_success(), at(1));
        assert_eq!(history.consecutive_failures(), 1);
        assert!(history.is_under_way());
        history.absorb(vec![run("c", Finished, 48, Some(49))]);
        assert!(!history.is_under_way());
    }

    #[test]
    fn what_never_ran_is_not_under_way() {
        let mut history = History::default();
        history.absorb(vec![placeholder(NotStarted)]);
        assert!(!history.is_under_way());
    }

    /// A run that says no moment, as it is read when it is `seen`.
    fn undated(id: &str, status: JobStatus, seen: i64) -> Run {
        Run {
            key: RunKey::new(Some(id), None, None),
            start: None,
            dated: at(seen),
            ..run(id, status, 0, None)
        }
    }

    #[test]
    fn a_failure_that_says_no_moment_counts_from_when_it_was_first_seen() {
        let mut history = History::default();
        history.absorb(vec![run("a", Finished, 0, Some(1)), undated("b", Failed, 10)]);
        assert_eq!(history.newest_ended().unwrap().status, Failed);
        assert_eq!(history.consecutive_failures(), 1);
        for seen in 11..14 {
            history.absorb(vec![undated("b", Failed, seen), undated("c", Canceled, seen)]);
        }
        assert_eq!(history.consecutive_failures(), 2);
        assert_eq!(
            history.ended(),
            &BTreeMap::from([(Finished, 1), (Failed, 1), (Canceled, 1)])
        );
        // A later restore point settles them, though they are still listed.
        history.absorb(vec![
            undated("b", Failed, 20),
            undated("c", Canceled, 20),
            run("d", Finished, 15, Some(16)),
        ]);
        assert_eq!(history.consecutive_failures(), 0);
        assert_eq!(history.newest_ended().unwrap().status, Finished);
    }

    #[test]
    fn a_finished_run_without_an_end_is_as_old_as_its_start() {
        let mut history = History::default();
        let finished = Run {
            dated: at(5),
            modified: at(9),
            ..run("b", Finished, 5, None)
        };
        history.absorb(vec![run("a", Failed, 0, Some(4)), finished]);
        assert_eq!(history.last_success(), at(5));
        assert_eq!(history.last_restore_point(), at(5));
        assert_eq!(history.consecutive_failures(), 0);
        assert_eq!(
            history.newest_ended().unwrap().end,
            None,
            "what was not said is not shown"
        );
    }

    #[test]
    fn an_older_run_that_arrives_late_displaces_nothing_and_is_counted() {
        let mut history = History::default();
        history.absorb(vec![run("b", Failed, 24, Some(25))]);
        history.absorb(vec![run("a", Finished, 0, Some(1))]);
        assert_eq!(history.newest().unwrap().status, Failed);
        assert_eq!(history.newest_ended().unwrap().status, Failed);
        assert_eq!(history.last_restore_point(), at(1));
        assert_eq!(history.consecutive_failures(), 1);
        assert_eq!(history.ended(), &BTreeMap::from([(Finished, 1), (Failed, 1)]));
    }

    #[test]
    fn an_exception_is_a_restore_point_and_no_success() {
        let mut history = History::default();
        history.absorb(vec![
            run("a", Finished, 0, Some(1)),
            run("b", Failed, 2, Some(3)),
            run("c", FinishedWithException, 4, Some(5)),
            run("d", Skipped, 6, Some(7)),
            run("e", Canceled, 8, Some(9)),
            run("f", Unknown, 10, Some(11)),
        ]);
        assert_eq!(history.last_success(), at(1));
        assert_eq!(history.last_restore_point(), at(5));
        assert_eq!(history.consecutive_failures(), 2, "skipped ones are not counted");
    }

    #[test]
    fn the_order_of_rows_and_of_polls_does_not_matter_for_what_is_counted() {
        let runs: Vec<Run> = (0..30)
            .map(|n| {
                let status = if n % 3 == 0 { Finished } else { Failed };
                run(&n.to_string(), status, n * 2, Some(n * 2 + 1))
            })
            .collect();
        let mut whole = History::default();
        whole.absorb(runs.clone());
        let mut reversed = History::default();
        reversed.absorb(runs.iter().rev().cloned().collect());
        let mut one_by_one = History::default();
        for run in runs {
            one_by_one.absorb(vec![run.clone()]);
            one_by_one.absorb(vec![run]);
        }
        for history in [&whole, &reversed, &one_by_one] {
            assert_eq!(history.ended(), &BTreeMap::from([(Finished, 10), (Failed, 20)]));
            assert_eq!(history.consecutive_failures(), 2);
            assert_eq!(history.last_success(), at(55));
            assert_eq!(history.newest(), whole.newest());
        }
    }

    #[test]
    fn failures_are_counted_past_what_is_remembered() {
        let mut history = History::default();
        history.absorb(vec![run("ok", Finished, 0, Some(1))]);
        for n in 1..100 {
            history.absorb(vec![run(&format!("bad{n}"), Failed, n * 2, Some(n * 2 + 1))]);
        }
        assert_eq!(history.consecutive_failures(), 99);
        assert_eq!(history.last_success(), at(1));
        assert!(history.remembered.len() <= REMEMBERED_RUNS + 1);
        history.absorb(vec![run("ok again", Finished, 300, Some(301))]);
        assert_eq!(history.consecutive_failures(), 0);
    }

    #[test]
    fn a_run_that_drops_out_of_a_list_and_comes_back_is_counted_once() {
        let mut history = History::default();
        for _ in 0..5 {
            history.absorb(vec![run("a", Finished, 0, Some(1))]);
            history.absorb(vec![run("b", Finished, 2, Some(3))]);
        }
        assert_eq!(history.ended(), &BTreeMap::from([(Finished, 2)]));
    }

    #[test]
    fn two_rows_of_one_run_are_one_run_with_the_worse_status() {
        let mut history = History::default();
        let duplicates = history.absorb(vec![
            run("a", Finished, 0, Some(1)),
            run("a", Failed, 0, Some(1)),
            run("a", Finished, 0, Some(1)),
        ]);
        assert_eq!(duplicates, 2);
        assert_eq!(history.newest().unwrap().status, Failed);
        assert_eq!(history.listed(), &BTreeMap::from([(Failed, 1)]));
        assert_eq!(history.last_success(), None);
    }

    #[test]
    fn a_row_that_has_ended_outweighs_one_of_the_same_run_that_has_not() {
        let mut history = History::default();
        history.absorb(vec![
            run("a", JobStatus::Pending, 0, None),
            run("a", Finished, 0, Some(1)),
            run("a", Running, 0, None),
        ]);
        assert_eq!(history.last_success(), at(1));
        assert_eq!(history.newest().unwrap().status, Finished);
    }

    #[test]
    fn a_failure_that_ends_with_the_restore_point_and_is_newer_is_after_it() {
        let mut history = History::default();
        let mut failed = run("b", Failed, 0, Some(2));
        failed.modified = at(3);
        history.absorb(vec![run("a", Finished, 0, Some(2)), failed]);
        assert_eq!(history.newest().unwrap().status, Failed);
        assert_eq!(history.consecutive_failures(), 1);
    }

    #[test]
    fn a_success_taken_back_is_no_restore_point_any_more() {
        let mut history = History::default();
        history.absorb(vec![run("a", Finished, 0, Some(1))]);
        history.absorb(vec![run("b", Finished, 2, Some(3))]);
        history.absorb(vec![run("b", Failed, 2, Some(3))]);
        assert_eq!(history.last_restore_point(), at(1));
        assert_eq!(history.consecutive_failures(), 1);
        assert_eq!(history.newest_ended().unwrap().status, Failed);
        assert_eq!(
            history.ended(),
            &BTreeMap::from([(Finished, 2)]),
            "each run is counted once"
        );
    }

    #[test]
    fn a_placeholder_is_the_newest_word_only_where_nothing_else_is_listed() {
        let mut history = History::default();
        history.absorb(vec![placeholder(NotStarted)]);
        assert_eq!(history.newest().unwrap().status, NotStarted);
        assert!(!history.has_run());
        history.absorb(vec![run("a", Failed, 0, Some(1)), placeholder(NotStarted)]);
        assert_eq!(history.newest().unwrap().status, Failed);
        history.absorb(vec![placeholder(JobStatus::Disabled)]);
        assert_eq!(history.newest().unwrap().status, JobStatus::Disabled);
        assert_eq!(
            history.newest_ended().unwrap().status,
            Failed,
            "what is known of earlier runs stands"
        );
    }

    #[test]
    fn a_success_without_an_end_is_no_dated_restore_point() {
        let mut history = History::default();
        history.absorb(vec![run("a", Finished, 0, None)]);
        assert!(history.has_run());
        assert_eq!(history.last_restore_point(), None);
        history.absorb(vec![run("a", Finished, 0, Some(1))]);
        assert_eq!(history.last_restore_point(), at(1));
        assert_eq!(history.ended(), &BTreeMap::from([(Finished, 1)]));
    }

    #[test]
    fn keys_of_runs_without_an_id_are_their_starts() {
        assert_eq!(RunKey::new(None, at(1), at(2)), RunKey::new(None, at(1), None));
        assert_ne!(RunKey::new(None, at(1), at(2)), RunKey::new(None, at(2), at(2)));
        assert_ne!(RunKey::new(Some("a"), at(1), None), RunKey::new(Some("b"), at(1), None));
    }
}
