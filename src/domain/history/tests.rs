use super::*;

#[test]
fn runs_of_a_very_long_list_are_counted_once() {
    const RUNS: u64 = 50_000;
    let list = || -> Vec<Run> {
        let hours = 0..i64::try_from(RUNS).unwrap();
        hours
            .map(|hour| run(&hour.to_string(), JobStatus::Finished, hour, Some(hour + 1)))
            .collect()
    };
    let mut history = History::default();
    for _ in 0..3 {
        assert_eq!(history.update(list()).duplicates, 0);
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
        id: Some(id.into()),
        report: None,
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
fn run_in_progress_does_not_hide_the_previous_failure() {
    let mut history = History::default();
    history.update(vec![run("a", Finished, 0, Some(1))]);
    history.update(vec![run("b", Failed, 24, Some(25))]);
    history.update(vec![run("c", Running, 48, None)]);
    assert_eq!(history.newest().unwrap().status, Running);
    assert_eq!(history.latest_completed().unwrap().status, Failed);
    assert_eq!(history.last_success(), at(1));
    assert_eq!(history.consecutive_failures(), 1);
    assert!(history.newest().unwrap().is_in_progress());
    history.update(vec![run("c", Finished, 48, Some(49))]);
    assert!(!history.newest().unwrap().is_in_progress());
}

#[test]
fn failures_before_an_evicted_restore_point_do_not_count() {
    let mut history = History::default();
    let failures = |hours: std::ops::Range<i64>| -> Vec<Run> {
        hours
            .map(|hour| run(&hour.to_string(), Failed, hour, Some(hour + 1)))
            .collect()
    };
    history.update(failures(0..10));
    history.update(failures(9..10));
    history.update(
        [
            failures(9..10),
            vec![run("10", Finished, 10, Some(11))],
            failures(11..23),
        ]
        .concat(),
    );
    assert_eq!(history.consecutive_failures(), 12);
    history.update(failures(23..24));
    assert_eq!(history.consecutive_failures(), 13);
}

#[test]
fn module_without_runs_is_not_in_progress() {
    let mut history = History::default();
    history.update(vec![placeholder(NotStarted)]);
    assert!(!history.newest().unwrap().is_in_progress());
}

/// Returns a run without times, as parsed at `seen`.
fn undated(id: &str, status: JobStatus, seen: i64) -> Run {
    Run {
        key: RunKey::new(Some(id), None, None),
        start: None,
        dated: at(seen),
        ..run(id, status, 0, None)
    }
}

#[test]
fn failure_without_a_time_is_dated_by_its_first_poll() {
    let mut history = History::default();
    history.update(vec![run("a", Finished, 0, Some(1)), undated("b", Failed, 10)]);
    assert_eq!(history.latest_completed().unwrap().status, Failed);
    assert_eq!(history.consecutive_failures(), 1);
    for seen in 11..14 {
        history.update(vec![undated("b", Failed, seen), undated("c", Canceled, seen)]);
    }
    assert_eq!(history.consecutive_failures(), 2);
    assert_eq!(
        history.ended(),
        &BTreeMap::from([(Finished, 1), (Failed, 1), (Canceled, 1)])
    );
    // A later restore point resets the number of failures, even if the failed runs are still listed.
    history.update(vec![
        undated("b", Failed, 20),
        undated("c", Canceled, 20),
        run("d", Finished, 15, Some(16)),
    ]);
    assert_eq!(history.consecutive_failures(), 0);
    assert_eq!(history.latest_completed().unwrap().status, Finished);
}

#[test]
fn finished_run_without_an_end_has_the_age_of_its_start() {
    let mut history = History::default();
    let finished = Run {
        dated: at(5),
        modified: at(9),
        ..run("b", Finished, 5, None)
    };
    history.update(vec![run("a", Failed, 0, Some(4)), finished]);
    assert_eq!(history.last_success(), at(5));
    assert_eq!(history.last_restore_point(), at(5));
    assert_eq!(history.consecutive_failures(), 0);
    assert_eq!(
        history.latest_completed().unwrap().end,
        None,
        "values that were not returned must be absent"
    );
}

#[test]
fn older_run_that_is_listed_late_is_only_counted() {
    let mut history = History::default();
    history.update(vec![run("b", Failed, 24, Some(25))]);
    history.update(vec![run("a", Finished, 0, Some(1))]);
    assert_eq!(
        history.newest().unwrap().status,
        Finished,
        "the status must be the one in the current list"
    );
    assert_eq!(history.latest_completed().unwrap().status, Failed);
    assert_eq!(history.last_restore_point(), at(1));
    assert_eq!(history.consecutive_failures(), 1);
    assert_eq!(history.ended(), &BTreeMap::from([(Finished, 1), (Failed, 1)]));
}

#[test]
fn exception_is_a_restore_point_but_not_a_success() {
    let mut history = History::default();
    history.update(vec![
        run("a", Finished, 0, Some(1)),
        run("b", Failed, 2, Some(3)),
        run("c", FinishedWithException, 4, Some(5)),
        run("d", Skipped, 6, Some(7)),
        run("e", Canceled, 8, Some(9)),
        run("f", Unknown, 10, Some(11)),
    ]);
    assert_eq!(history.last_success(), at(1));
    assert_eq!(history.last_restore_point(), at(5));
    assert_eq!(history.consecutive_failures(), 2, "skipped runs must not be counted");
}

#[test]
fn counts_do_not_depend_on_the_order_of_rows_and_polls() {
    let runs: Vec<Run> = (0..30)
        .map(|n| {
            let status = if n % 3 == 0 { Finished } else { Failed };
            run(&n.to_string(), status, n * 2, Some(n * 2 + 1))
        })
        .collect();
    let mut whole = History::default();
    whole.update(runs.clone());
    let mut reversed = History::default();
    reversed.update(runs.iter().rev().cloned().collect());
    let mut one_by_one = History::default();
    for run in runs {
        one_by_one.update(vec![run.clone()]);
        one_by_one.update(vec![run]);
    }
    for history in [&whole, &reversed, &one_by_one] {
        assert_eq!(history.ended(), &BTreeMap::from([(Finished, 10), (Failed, 20)]));
        assert_eq!(history.consecutive_failures(), 2);
        assert_eq!(history.last_success(), at(55));
        assert_eq!(history.newest(), whole.newest());
    }
}

#[test]
fn failures_are_counted_beyond_the_stored_runs() {
    let mut history = History::default();
    history.update(vec![run("ok", Finished, 0, Some(1))]);
    for n in 1..100 {
        history.update(vec![run(&format!("bad{n}"), Failed, n * 2, Some(n * 2 + 1))]);
    }
    assert_eq!(history.consecutive_failures(), 99);
    assert_eq!(history.last_success(), at(1));
    assert!(history.recent.len() <= RECENT_RUNS + 1);
    history.update(vec![run("ok again", Finished, 300, Some(301))]);
    assert_eq!(history.consecutive_failures(), 0);
}

#[test]
fn run_that_disappears_and_returns_is_counted_once() {
    let mut history = History::default();
    for _ in 0..5 {
        history.update(vec![run("a", Finished, 0, Some(1))]);
        history.update(vec![run("b", Finished, 2, Some(3))]);
    }
    assert_eq!(history.ended(), &BTreeMap::from([(Finished, 2)]));
}

#[test]
fn duplicate_rows_are_one_run_with_the_worse_status() {
    let mut history = History::default();
    let HistoryUpdate { duplicates, .. } = history.update(vec![
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
fn completed_row_replaces_an_incomplete_row_of_its_run() {
    let mut history = History::default();
    history.update(vec![
        run("a", JobStatus::Pending, 0, None),
        run("a", Finished, 0, Some(1)),
        run("a", Running, 0, None),
    ]);
    assert_eq!(history.last_success(), at(1));
    assert_eq!(history.newest().unwrap().status, Finished);
}

#[test]
fn newer_failure_ending_with_the_restore_point_counts() {
    let mut history = History::default();
    let mut failed = run("b", Failed, 0, Some(2));
    failed.modified = at(3);
    history.update(vec![run("a", Finished, 0, Some(2)), failed]);
    assert_eq!(history.newest().unwrap().status, Failed);
    assert_eq!(history.consecutive_failures(), 1);
}

#[test]
fn retracted_success_is_no_longer_a_restore_point() {
    let mut history = History::default();
    history.update(vec![run("a", Finished, 0, Some(1))]);
    history.update(vec![run("b", Finished, 2, Some(3))]);
    history.update(vec![run("b", Failed, 2, Some(3))]);
    assert_eq!(history.last_restore_point(), at(1));
    assert_eq!(history.consecutive_failures(), 1);
    assert_eq!(history.latest_completed().unwrap().status, Failed);
    assert_eq!(
        history.ended(),
        &BTreeMap::from([(Finished, 2)]),
        "each run must be counted once"
    );
}

#[test]
fn placeholder_counts_only_if_nothing_else_is_listed() {
    let mut history = History::default();
    history.update(vec![placeholder(NotStarted)]);
    assert_eq!(history.newest().unwrap().status, NotStarted);
    assert!(!history.has_run());
    history.update(vec![run("a", Failed, 0, Some(1)), placeholder(NotStarted)]);
    assert_eq!(history.newest().unwrap().status, Failed);
    history.update(vec![placeholder(JobStatus::Disabled)]);
    assert_eq!(history.newest().unwrap().status, JobStatus::Disabled);
    assert_eq!(
        history.latest_completed().unwrap().status,
        Failed,
        "earlier runs must be kept"
    );
}

#[test]
fn success_without_an_end_is_not_a_dated_restore_point() {
    let mut history = History::default();
    history.update(vec![run("a", Finished, 0, None)]);
    assert!(history.has_run());
    assert_eq!(history.last_restore_point(), None);
    history.update(vec![run("a", Finished, 0, Some(1))]);
    assert_eq!(history.last_restore_point(), at(1));
    assert_eq!(history.ended(), &BTreeMap::from([(Finished, 1)]));
}

#[test]
fn runs_without_an_id_are_keyed_by_their_start() {
    assert_eq!(RunKey::new(None, at(1), at(2)), RunKey::new(None, at(1), None));
    assert_ne!(RunKey::new(None, at(1), at(2)), RunKey::new(None, at(2), at(2)));
    assert_ne!(RunKey::new(Some("a"), at(1), None), RunKey::new(Some("b"), at(1), None));
}

fn undated_failure(hours: i64) -> Run {
    Run {
        dated: at(hours),
        ..placeholder(Failed)
    }
}

#[test]
fn failures_without_times_count_again_after_a_restore_point() {
    let mut history = History::default();
    for day in 0..3 {
        history.update(vec![undated_failure(24 * day)]);
        history.update(vec![undated_failure(24 * day + 1)]);
        assert_eq!(history.consecutive_failures(), 1, "{day}");
        let finished = run(&day.to_string(), Finished, 24 * day + 2, Some(24 * day + 3));
        history.update(vec![finished]);
        assert_eq!(history.consecutive_failures(), 0, "{day}");
    }
    assert_eq!(history.ended(), &BTreeMap::from([(Finished, 3), (Failed, 3)]));
}

#[test]
fn older_failure_without_times_is_counted_once() {
    let mut history = History::default();
    for hours in 0..5 {
        history.update(vec![undated_failure(hours), run("a", Finished, 0, Some(1))]);
    }
    assert_eq!(history.ended(), &BTreeMap::from([(Finished, 1), (Failed, 1)]));
}

#[test]
fn failure_dated_by_a_fast_clock_ends_with_a_restore_point() {
    let mut history = History::default();
    history.update(vec![undated_failure(48)]);
    history.clamp(at(24).unwrap());
    assert_eq!(history.consecutive_failures(), 1);
    history.update(vec![run("a", Finished, 25, Some(26))]);
    assert_eq!(history.consecutive_failures(), 0);
    // Even if the clock is temporarily behind, a failure must not move to a time before the restore point.
    history.update(vec![undated_failure(48)]);
    history.clamp(at(0).unwrap());
    assert_eq!(history.consecutive_failures(), 1);
}

#[test]
fn restore_point_with_an_assumed_time_keeps_it() {
    let mut history = History::default();
    for hours in 1..4 {
        let row = Run {
            start: None,
            dated: at(hours),
            modified: at(hours),
            ..run("a", Finished, 0, None)
        };
        history.update(vec![row]);
        assert_eq!(history.last_restore_point(), at(1));
    }
}
