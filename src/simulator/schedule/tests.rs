use super::*;

fn daily(habit: Habit) -> Schedule {
    Schedule {
        phase: 3600,
        period: 86_400,
        wait: 180,
        duration: 1800,
        habit,
        key: 7,
        scope: None,
        id_prefix: "IB",
        anonymous: 0,
        work: Work::Objects(100),
        stores: 0,
        fails_from: i64::MIN,
        not_before: i64::MIN,
        not_after: i64::MAX,
        interruptions: Vec::new(),
    }
}

#[test]
fn run_is_pending_running_and_completed() {
    let schedule = daily(Habit::Exceptions);
    let queued = schedule.start_of(20_000);
    let waiting = schedule.run(20_000, queued);
    assert_eq!((waiting.status, waiting.id.as_str()), (status::PENDING, "N/A"));
    assert_eq!((waiting.start, waiting.last_modified), (None, Some(queued)));
    let running = schedule.run(20_000, queued + 600);
    assert_eq!((running.status, running.start), (status::RUNNING, Some(queued + 180)));
    assert_eq!(running.end, None);
    let ended = schedule.run(20_000, queued + 3600);
    assert_eq!((&ended.id, ended.start), (&running.id, running.start));
    assert!(ended.end.unwrap() > queued + 180);
    assert_eq!(ended.backup_size, "0 GB");
    assert_eq!(
        ended.total,
        ended.failed + ended.successful + ended.skipped + ended.warning
    );
}

#[test]
fn runs_without_objects_have_no_counts() {
    let work = |work| Schedule {
        work,
        stores: 500,
        ..daily(Habit::Steady)
    };
    let without_objects = work(Work::Nothing).run(20_000, i64::MAX);
    assert_eq!(
        (
            without_objects.status,
            without_objects.id.as_str(),
            without_objects.total
        ),
        (2, "N/A", 0)
    );
    assert_eq!((without_objects.start, without_objects.end), (None, None));
    assert!(without_objects.last_modified.is_some());
    let instant = work(Work::Instant).run(20_000, i64::MAX);
    assert_eq!((instant.start, instant.total), (instant.end, 0));
    assert!(instant.id.starts_with("IB"));
    let stored = work(Work::Objects(10)).run(20_000, i64::MAX).backup_size;
    assert!(stored.starts_with('4') || stored == "5.00 GB", "{stored}");
}

#[test]
fn usual_module_never_fails_twice_consecutively() {
    let schedule = daily(Habit::Usual);
    let failed: Vec<i64> = (0..4000)
        .filter(|slot| schedule.run(*slot, i64::MAX).status == status::FAILED)
        .collect();
    assert!(!failed.is_empty());
    assert!(failed.windows(2).all(|pair| pair[1] - pair[0] > 1));
}

#[test]
fn broken_module_fails_from_a_given_time() {
    let mut schedule = daily(Habit::Broken);
    schedule.fails_from = schedule.start_of(20_000);
    assert!(schedule.run(19_999, i64::MAX).is_restore_point());
    let broken = (20_000..20_100).map(|slot| schedule.run(slot, i64::MAX));
    assert!(
        broken
            .into_iter()
            .all(|run| (run.status, run.total) == (status::FAILED, 0))
    );
}

/// Returns a schedule with an interruption that lasts for three slots.
fn interrupted(interruption: Interruption) -> Schedule {
    let mut schedule = daily(Habit::Steady);
    schedule.interruptions = vec![Interval {
        interruption,
        from: schedule.start_of(20_000),
        to: schedule.start_of(20_003),
    }];
    schedule
}

#[test]
fn interrupted_module_fails_or_does_not_run() {
    let status_of = |schedule: &Schedule, now: i64| {
        let (mut runs, mut next) = (Vec::new(), i64::MIN);
        advance(&mut runs, &mut next, schedule, 60, now);
        assert_eq!(runs.len(), 60);
        runs.last().map(|run| (run.status, run.start, run.end.is_some()))
    };
    let day = 86_400;
    for (interruption, status, slot) in [
        (Interruption::Failing, status::FAILED, 20_002),
        (Interruption::Silent, status::FINISHED, 19_999),
        (Interruption::Hung, status::RUNNING, 20_000),
    ] {
        let schedule = interrupted(interruption);
        let during = status_of(&schedule, schedule.start_of(20_003) - day / 2);
        let start = schedule.start_of(slot) + schedule.wait;
        assert_eq!(during, Some((status, Some(start), status != status::RUNNING)));
        assert!(schedule.run(20_003, i64::MAX).is_restore_point());
        assert!(schedule.run(19_999, i64::MAX).is_restore_point());
    }
    let failed = interrupted(Interruption::Failing).run(20_001, i64::MAX);
    assert_eq!((failed.status, failed.total), (status::FAILED, 0));
    let hung = interrupted(Interruption::Hung);
    let cancelled = hung.run(20_000, i64::MAX);
    assert_eq!(
        (cancelled.status, cancelled.end),
        (status::CANCELED, Some(hung.start_of(20_003)))
    );
}

/// Returns the runs after advancing by a number of hours, once in a single step and once hour by hour.
fn runs_in_one_and_many_steps(schedule: &Schedule, start: i64, hours: i64) -> [Vec<Run>; 2] {
    let last = hours - 1;
    [vec![last], (0..hours).collect()].map(|steps| {
        let (mut runs, mut next) = (Vec::new(), i64::MIN);
        for hour in steps {
            advance(&mut runs, &mut next, schedule, 60, start + hour * 3600);
        }
        runs
    })
}

#[test]
fn interrupted_runs_do_not_depend_on_the_steps_of_the_clock() {
    for interruption in [Interruption::Failing, Interruption::Silent, Interruption::Hung] {
        let schedule = interrupted(interruption);
        let runs = runs_in_one_and_many_steps(&schedule, schedule.start_of(19_998), 200);
        let [once, often] = runs.map(|runs| runs.into_iter().rev().take(50).collect::<Vec<_>>());
        assert_eq!(once, often);
    }
}

#[test]
fn runs_do_not_depend_on_the_steps_of_the_clock() {
    let [once, often] = runs_in_one_and_many_steps(&daily(Habit::Flaky), 1_700_000_000, 2000);
    assert_eq!(once, often);
    assert_eq!(once.len(), 60);
}

#[test]
fn stuck_run_does_not_end_and_blocks_later_runs() {
    let mut schedule = daily(Habit::Stuck);
    schedule.not_after = schedule.start_of(20_000) + 5;
    let (mut runs, mut next) = (Vec::new(), i64::MIN);
    advance(&mut runs, &mut next, &schedule, 60, schedule.start_of(20_010));
    let newest = runs.last().unwrap();
    assert_eq!(newest.status, status::RUNNING);
    assert_eq!(newest.start, Some(schedule.start_of(20_000) + 180));
    assert!(runs[58].end.is_some());
}

#[test]
fn rotating_module_has_every_result() {
    let schedule = daily(Habit::Rotating);
    let mut statuses: Vec<i64> = (0..8).map(|slot| schedule.run(slot, i64::MAX).status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [2, 3, 4, 5, 7, 8, 9, 10]);
}

#[test]
fn fields_set_by_a_test_are_kept_when_a_run_ends() {
    let schedule = daily(Habit::Reliable);
    let start = schedule.start_of(20_000);
    let (mut runs, mut next) = (Vec::new(), i64::MIN);
    advance(&mut runs, &mut next, &schedule, 3, start + 600);
    runs[2].raw_fields.insert("name".to_owned(), "odd".into());
    runs[1].status = 99;
    advance(&mut runs, &mut next, &schedule, 3, start + 40_000);
    assert_eq!(runs[2].raw_fields["name"], "odd");
    assert!(runs[2].end.is_some());
    assert_eq!(runs[1].status, 99, "a completed run must not change");
}
