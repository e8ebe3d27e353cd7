use super::*;
use crate::domain::CustomerId;

const FIRST: CollectorId = CollectorId::CUSTOMERS;
const SECOND: CollectorId = CollectorId::JOBS;

fn customer(n: u32) -> Target {
    Target::Customer(CustomerId::parse(&format!("customer-{n}")).unwrap())
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn queue_returns_most_overdue_targets_first_and_each_once() {
    let mut queue = Queue::default();
    queue.add(SECOND, customer(1), seconds(5));
    queue.add(FIRST, customer(2), seconds(7));
    queue.add(FIRST, customer(3), seconds(5));
    queue.add(FIRST, customer(3), seconds(1));
    assert_eq!(queue.pop(seconds(4)), None);
    let popped: Vec<_> = std::iter::from_fn(|| queue.pop(seconds(10)))
        .map(|due| (due.collector, due.target))
        .collect();
    assert_eq!(
        popped,
        [(FIRST, customer(3)), (SECOND, customer(1)), (FIRST, customer(2))]
    );
    queue.add(FIRST, customer(2), seconds(0));
    assert_eq!(
        queue.pop(seconds(10)),
        None,
        "a target must not be polled twice at the same time"
    );
    assert!(queue.done(FIRST, &customer(2), seconds(20), Urgency::Ordinary));
    assert_eq!(queue.next_due_after(seconds(10)), Some(seconds(20)));
    assert_eq!(
        queue.next_due_after(seconds(20)),
        None,
        "the target must wait for a slot, not for its due time"
    );
    assert!(queue.is_waiting(FIRST, seconds(20)) && !queue.is_waiting(FIRST, seconds(19)));
}

#[test]
fn target_being_polled_can_be_polled_again() {
    let mut queue = Queue::default();
    let target = Target::Partner;
    queue.add(FIRST, target.clone(), seconds(0));
    let due = queue.pop(seconds(0)).unwrap();
    queue.bring_forward(FIRST, &target, seconds(1));
    assert!(queue.done(FIRST, &due.target, seconds(900), Urgency::Ordinary));
    assert_eq!(queue.next_due_after(seconds(0)), Some(seconds(900)));
    let due = queue.pop(seconds(900)).unwrap();
    queue.poll_again(FIRST, &target, seconds(901));
    assert!(queue.done(FIRST, &due.target, seconds(1800), Urgency::Quiet));
    assert_eq!(queue.next_due_after(seconds(0)), Some(seconds(901)));
    queue.poll_again(FIRST, &target, seconds(950));
    assert_eq!(
        queue.next_due_after(seconds(0)),
        Some(seconds(901)),
        "the due time must not become later"
    );
}

#[test]
fn signal_during_a_poll_causes_another_poll() {
    let mut queue = Queue::default();
    queue.add(FIRST, customer(1), seconds(0));
    queue.add(FIRST, customer(2), seconds(5));
    assert_eq!(queue.pop(seconds(1)).unwrap().target, customer(1));
    queue.signal(FIRST, &customer(1), seconds(8));
    assert!(queue.done(FIRST, &customer(1), seconds(60), Urgency::Quiet));
    let again = queue.pop(seconds(10)).unwrap();
    assert_eq!(
        (again.target, again.since, again.urgency),
        (customer(1), seconds(8), Urgency::Signalled)
    );
    assert!(queue.done(FIRST, &customer(1), seconds(60), Urgency::Quiet));
    assert_eq!(
        queue.pop(seconds(10)).unwrap().target,
        customer(2),
        "the signal must cause only one poll"
    );
}

#[test]
fn target_put_back_keeps_its_urgency_and_due_time() {
    let mut queue = Queue::default();
    for n in 0..=SIGNALLED_IN_A_ROW {
        queue.add(FIRST, customer(n), seconds(20));
        queue.signal(FIRST, &customer(n), seconds(1));
    }
    queue.add(FIRST, customer(99), seconds(0));
    for _ in 0..3 * SIGNALLED_IN_A_ROW {
        let due = queue.pop(seconds(10)).unwrap();
        assert_eq!(due.urgency, Urgency::Signalled);
        queue.put_back(&due);
    }
}

#[test]
fn target_removed_during_its_poll_does_not_return() {
    let mut queue = Queue::default();
    queue.add(FIRST, customer(1), seconds(0));
    queue.pop(seconds(0)).unwrap();
    queue.retain(FIRST, |_| false);
    assert!(!queue.done(FIRST, &customer(1), seconds(1), Urgency::Ordinary));
    assert_eq!(queue.pop(seconds(9)), None);
}

#[test]
fn lag_is_that_of_the_most_overdue_target() {
    let mut queue = Queue::default();
    queue.add(FIRST, customer(1), seconds(10));
    queue.add(FIRST, customer(2), seconds(30));
    assert_eq!(queue.lag(FIRST, seconds(5)), Duration::ZERO);
    assert_eq!(queue.lag(FIRST, seconds(25)), seconds(15));
    queue.pop(seconds(25)).unwrap();
    assert_eq!(
        queue.lag(FIRST, seconds(26)),
        seconds(16),
        "a running poll must count as late"
    );
    queue.done(FIRST, &customer(1), seconds(100), Urgency::Ordinary);
    assert_eq!(queue.lag(FIRST, seconds(26)), Duration::ZERO);
}

#[test]
fn target_brought_forward_is_never_due_later() {
    let mut queue = Queue::default();
    queue.add(FIRST, customer(1), seconds(10));
    queue.bring_forward(FIRST, &customer(1), seconds(20));
    assert_eq!(queue.next_due_after(seconds(0)), Some(seconds(10)));
    queue.bring_forward(FIRST, &customer(1), seconds(3));
    assert_eq!(queue.next_due_after(seconds(0)), Some(seconds(3)));
    assert!(queue.pop(seconds(3)).is_some());
    assert_eq!(queue.pop(seconds(30)), None);
}

/// Removes all due targets from the queue, and returns them in order.
fn order(queue: &mut Queue, now: u64) -> Vec<(CollectorId, Target)> {
    let popped = std::iter::from_fn(|| queue.pop(seconds(now)));
    popped.map(|due| (due.collector, due.target)).collect()
}

#[test]
fn bulk_polls_and_signalled_targets_are_first() {
    let mut queue = Queue::default();
    (1..=3).for_each(|n| queue.add(FIRST, customer(n), seconds(n.into())));
    queue.add(SECOND, Target::Partner, seconds(50));
    queue.add(FIRST, customer(4), seconds(1000));
    queue.signal(FIRST, &customer(4), seconds(60));
    assert_eq!(
        queue.lag(FIRST, seconds(60)),
        seconds(59),
        "a signal must not hide the lag"
    );
    let expected = [
        (SECOND, Target::Partner),
        (FIRST, customer(4)),
        (FIRST, customer(1)),
        (FIRST, customer(2)),
        (FIRST, customer(3)),
    ];
    assert_eq!(order(&mut queue, 60), expected);
}

#[test]
fn signals_about_all_customers_do_not_block_others() {
    let mut queue = Queue::default();
    (0..8).for_each(|n| queue.add(FIRST, customer(n), seconds(1000)));
    (0..8).for_each(|n| queue.signal(FIRST, &customer(n), seconds(10)));
    (10..12).for_each(|n| queue.add(SECOND, customer(n), seconds(1)));
    let collectors: Vec<CollectorId> = order(&mut queue, 20)
        .into_iter()
        .map(|(collector, _)| collector)
        .collect();
    let collectors: Vec<usize> = collectors.into_iter().map(CollectorId::position).collect();
    assert_eq!(collectors, [0, 0, 0, 1, 0, 0, 0, 1, 0, 0]);
}

#[test]
fn target_that_missed_most_intervals_is_first() {
    let mut queue = Queue::default();
    queue.set_lateness_limit(FIRST, LatenessLimit::new(seconds(100), seconds(300)));
    queue.set_lateness_limit(SECOND, LatenessLimit::new(seconds(1000), seconds(3000)));
    queue.add(FIRST, customer(1), seconds(50));
    queue.add(SECOND, customer(2), seconds(0));
    assert_eq!(order(&mut queue, 100), [(FIRST, customer(1)), (SECOND, customer(2))]);
}

#[test]
fn quiet_target_waits_until_its_lateness_limit() {
    let queue = |stale_after| {
        let mut queue = Queue::default();
        queue.set_lateness_limit(FIRST, LatenessLimit::new(seconds(100), seconds(stale_after)));
        for n in 1..=2 {
            queue.add(FIRST, customer(n), seconds(0));
            queue.pop(seconds(0)).unwrap();
        }
        queue.done(FIRST, &customer(1), seconds(100), Urgency::Quiet);
        queue.done(FIRST, &customer(2), seconds(110), Urgency::Ordinary);
        queue
    };
    let (quiet, busy) = ((FIRST, customer(1)), (FIRST, customer(2)));
    assert_eq!(
        order(&mut queue(300), 105),
        std::slice::from_ref(&quiet),
        "the limit must have no effect if the rate suffices"
    );
    assert_eq!(order(&mut queue(300), 199), [busy.clone(), quiet.clone()]);
    assert_eq!(
        order(&mut queue(300), 200),
        [quiet.clone(), busy.clone()],
        "a quiet target must come first after two intervals without a response"
    );
    assert_eq!(order(&mut queue(140), 139), [busy.clone(), quiet.clone()]);
    assert_eq!(
        order(&mut queue(140), 140),
        [quiet, busy],
        "a quiet target must come first when its values would become stale"
    );
}

#[test]
fn missed_intervals_are_counted_and_skipped() {
    let interval = seconds(100);
    assert_eq!(
        next_time(seconds(1000), seconds(1001), interval, 0.5),
        (seconds(1100), 0)
    );
    assert_eq!(
        next_time(seconds(1000), seconds(1100), interval, 0.5),
        (seconds(1200), 1)
    );
    assert_eq!(
        next_time(seconds(1000), seconds(1350), interval, 0.5),
        (seconds(1400), 3)
    );
    let (early, _) = next_time(seconds(0), seconds(0), interval, 0.0);
    let (late, _) = next_time(seconds(0), seconds(0), interval, 0.999);
    assert!(early >= seconds(95) && late <= seconds(105) && early < late);
}

#[test]
fn failures_are_retried_with_growing_delays() {
    let at = |failures| retry_time(Duration::ZERO, failures, seconds(300), 0.5);
    assert_eq!(
        [at(1), at(2), at(3), at(4), at(5), at(500)],
        [30, 60, 120, 240, 300, 300].map(seconds)
    );
}

#[test]
fn rejected_polls_are_spread_after_the_probe() {
    let at = |interval, random| rejected_time(seconds(100), seconds(10), seconds(interval), random);
    assert_eq!([at(300, 0.0), at(300, 0.5)], [110, 125].map(seconds));
    assert_eq!(at(5, 0.9), seconds(105));
}

#[test]
fn optional_collectors_come_after_others_and_reports_last() {
    let mut queue = Queue::default();
    let named = |name: &str| CollectorId::named(name).unwrap();
    for (name, at) in [("job_reports", 0), ("baselines", 1), ("ransomware", 2), ("jobs", 3)] {
        let target = if name == "baselines" {
            Target::Partner
        } else {
            customer(1)
        };
        queue.add(named(name), target, seconds(at));
    }
    let popped: Vec<_> = std::iter::from_fn(|| queue.pop(seconds(10)))
        .map(|due| due.collector.name())
        .collect();
    assert_eq!(popped, ["jobs", "baselines", "ransomware", "job_reports"]);
}
