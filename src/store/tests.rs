use std::time::Duration;

use super::inner::is_implausible;
use super::*;
use crate::collector::Context;
use crate::exposition::{RecordView, Table};

const CUSTOMERS: CollectorId = CollectorId::CUSTOMERS;
const JOBS: CollectorId = CollectorId::JOBS;

fn id(n: usize) -> CustomerId {
    CustomerId::parse(&format!("customer-{n}")).unwrap()
}

fn target(n: usize) -> Target {
    Target::Customer(id(n))
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(1_800_000_000 + seconds)
}

fn store(limit: Option<usize>) -> Store {
    let plan = Plan {
        enabled: true,
        interval: Duration::from_secs(60),
        stale_after: Duration::from_secs(180),
    };
    Store::new(&PerCollector::from_fn(|_| plan), limit)
}

/// Returns a store with the given number of customers.
fn store_of(customers: usize) -> Store {
    let store = store(None);
    store.reconcile(&listed(0..customers), true).1.unwrap();
    store
}

fn listed(customers: impl IntoIterator<Item = usize>) -> BTreeMap<CustomerId, Arc<str>> {
    customers.into_iter().map(|n| (id(n), Arc::from("Contoso"))).collect()
}

/// Returns a record with the given number of samples.
fn rendered(samples: usize) -> RenderedRecord {
    let values = vec![Some(1.0); samples];
    RenderedRecord {
        record: Arc::new(samples),
        tables: Arc::new([Table::single(&[("customer_id", "x")], &values)]),
        held: Arc::new([]),
        health: None,
    }
}

fn commit(store: &Store, customer: usize, samples: usize, complete: bool, now: i64) -> Result<(), OverLimit> {
    store.add_target(JOBS, &target(customer));
    let records = BTreeMap::from([(id(customer), rendered(samples))]);
    store.commit(JOBS, &target(customer), records, complete, at(now))
}

fn tracked(store: &Store) -> usize {
    lock(&store.inner).series
}

/// Restores a record from its JSON in a state file.
fn restored(collector: CollectorId, record: &serde_json::Value) -> RenderedRecord {
    let json = serde_json::value::to_raw_value(record).unwrap();
    let context = Context::new(at(0), Arc::default(), Arc::default());
    collector.descriptor().restore(&json, &id(0), &context).unwrap()
}

/// Returns, for each record in a group of a snapshot, whether the record is stale.
fn stale(snapshot: &Snapshot, group: usize) -> Vec<bool> {
    let group = &snapshot.groups[group];
    let shown = group
        .blocks
        .iter()
        .flat_map(|block| (0..).map_while(|n| block.record(n)));
    let is_stale = |shown: RecordView| {
        shown
            .good_at
            .is_some_and(|at| snapshot.now > at.plus(group.stale_after))
    };
    shown.map(is_stale).collect()
}

/// Counts the series of all records in the store.
fn counted(store: &Store) -> usize {
    let inner = lock(&store.inner);
    let records = inner
        .collected
        .values()
        .flat_map(|collected| collected.records.values());
    records.map(StoredRecord::samples).sum()
}

#[test]
fn data_is_served_until_it_expires() {
    let store = store_of(2);
    let [with, without] = [0, 1].map(target);
    commit(&store, 0, 1, true, 0).unwrap();
    commit(&store, 1, 0, true, 0).unwrap();
    let is_known = |target: &Target, now| store.is_known(JOBS, target, at(now));
    assert!(is_known(&with, 180) && !is_known(&with, 181));
    assert!(
        !is_known(&without, 0),
        "a record without samples must not count as data"
    );
    assert!(is_known(&Target::Partner, 180) && !is_known(&Target::Partner, 181));
}

#[test]
fn customer_is_removed_by_the_second_list_without_it() {
    let store = store(None);
    let (first, result) = store.reconcile(&listed(0..40), true);
    assert_eq!((first.added.len(), result.is_ok()), (40, true));
    commit(&store, 39, 5, true, 0).unwrap();
    assert_eq!(store.reconcile(&listed(0..39), true).0, Reconciled::default());
    assert_eq!(
        store.reconcile(&listed(0..30), false).0,
        Reconciled::default(),
        "an incomplete list must not remove customers"
    );
    let (third, result) = store.reconcile(&listed(0..39), true);
    assert_eq!((third.removed, result.is_ok()), (vec![id(39)], true));
    assert_eq!((tracked(&store), counted(&store)), (0, 0));
}

#[test]
fn customer_that_returns_in_time_stays() {
    let store = store_of(10);
    store.reconcile(&listed(0..9), true).1.unwrap();
    store.reconcile(&listed(0..10), true).1.unwrap();
    assert!(store.reconcile(&listed(0..9), true).0.removed.is_empty());
}

#[test]
fn shrunken_list_is_applied_if_confirmed() {
    for remaining in [0, 5, 35] {
        let store = store_of(40);
        let (first, result) = store.reconcile(&listed(0..remaining), true);
        let missing = 40 - remaining;
        assert!(matches!(result, Err(Shrunk { missing: m, known: 40 }) if m == missing));
        assert!(first.removed.is_empty());
        let (second, result) = store.reconcile(&listed(0..remaining), true);
        assert_eq!((second.removed.len(), result.is_ok()), (missing, true));
    }
    assert!(
        !is_implausible(2, 5)
            && !is_implausible(4, 40)
            && is_implausible(5, 40)
            && is_implausible(1, 1)
            && !is_implausible(0, 0)
    );
}

#[test]
fn customer_missing_once_keeps_its_row() {
    let store = store_of(10);
    store.add_target(CUSTOMERS, &Target::Partner);
    let all = (0..10).map(|n| (id(n), rendered(1))).collect();
    store.commit(CUSTOMERS, &Target::Partner, all, true, at(0)).unwrap();
    store.reconcile(&listed(0..9), true).1.unwrap();
    let nine = (0..9).map(|n| (id(n), rendered(1))).collect();
    store.commit(CUSTOMERS, &Target::Partner, nine, true, at(60)).unwrap();
    assert_eq!(counted(&store), 10);
}

#[test]
fn series_count_is_exact_after_any_commits() {
    let store = store_of(3);
    for (customer, samples, complete) in [(0, 5, true), (0, 3, false), (1, 2, true), (0, 7, true), (9, 4, true)] {
        commit(&store, customer, samples, complete, 0).unwrap();
        assert_eq!(tracked(&store), counted(&store));
    }
    let nothing = BTreeMap::new();
    store.commit(JOBS, &target(0), nothing.clone(), false, at(1)).unwrap();
    assert_eq!(
        (tracked(&store), counted(&store)),
        (9, 9),
        "an incomplete response must not remove series"
    );
    store.commit(JOBS, &target(0), nothing, true, at(1)).unwrap();
    assert_eq!(
        (tracked(&store), counted(&store)),
        (2, 2),
        "a complete response must remove series"
    );
}

#[test]
fn series_limit_rejects_growth_and_keeps_existing_data() {
    // Ten record series, plus two freshness series for each of two customers.
    let store = store(Some(14));
    store.reconcile(&listed(0..3), true).1.unwrap();
    commit(&store, 0, 6, true, 0).unwrap();
    assert_eq!(commit(&store, 1, 6, true, 0), Err(OverLimit { series: 6 }));
    assert_eq!(counted(&store), 6);
    commit(&store, 0, 6, true, 1).unwrap();
    commit(&store, 1, 4, true, 1).unwrap();
}

#[test]
fn age_counts_from_the_last_complete_poll() {
    let store = store_of(5);
    for customer in 0..5 {
        store.add_target(JOBS, &target(customer));
    }
    for customer in 0..3 {
        commit(&store, customer, 1, true, 0).unwrap();
    }
    store.mark_failed(JOBS, &target(1));
    store.mark_forbidden(JOBS, &target(3));
    let states = |now: i64| {
        let snapshot = store.status_snapshot(at(now));
        let jobs = snapshot.collectors().find(|collector| collector.id == JOBS).unwrap();
        State::ALL.map(|state| jobs.overview().customers[&state])
    };
    assert_eq!(states(60), [2, 0, 1, 1, 0, 1]);
    assert_eq!(states(181), [0, 3, 0, 1, 0, 1]);
    // After a response with an invalid row, the valid rows are fresh, and the row carried over from the previous
    // response keeps its age.
    for now in [100, 170] {
        let mut partial = rendered(1);
        partial.held = rendered(1).tables;
        let records = BTreeMap::from([(id(2), partial)]);
        store.commit(JOBS, &target(2), records, false, at(now)).unwrap();
    }
    let stale_at = |now: i64| stale(&store.snapshot(None, at(now)).1, groups_of(JOBS)[0]);
    assert_eq!(stale_at(180), [false, false, false, false]);
    assert_eq!(stale_at(181), [true, true, false, true]);
    assert_eq!(states(181), [0, 3, 0, 1, 0, 1], "the customer must not count as fresh");
    let snapshot = store.snapshot(None, at(181)).1;
    assert!(
        stale(&snapshot, groups_of(JOBS)[1]).iter().all(|stale| !*stale),
        "freshness must not disappear"
    );
    assert_eq!(store.last_success(JOBS, &target(2)), Some(at(0)));
}

#[test]
fn times_are_not_later_than_a_clock_that_was_set_back() {
    let store = store_of(1);
    commit(&store, 0, 1, true, 3600).unwrap();
    store.clamp_times(at(0));
    assert_eq!(store.last_success(JOBS, &target(0)), Some(at(0)));
    assert!(
        stale(&store.snapshot(None, at(181)).1, groups_of(JOBS)[0])[0],
        "data must age from then on"
    );
}

#[test]
fn customer_removed_during_its_poll_is_not_restored() {
    let store = store_of(10);
    commit(&store, 9, 1, true, 0).unwrap();
    store.reconcile(&listed(0..9), true).1.unwrap();
    store.reconcile(&listed(0..9), true).1.unwrap();
    let late = BTreeMap::from([(id(9), rendered(1))]);
    store.commit(JOBS, &target(9), late, true, at(1)).unwrap();
    store.mark_failed(JOBS, &target(9));
    let snapshot = store.snapshot(None, at(1)).1;
    assert!((0..snapshot.groups.len()).all(|group| stale(&snapshot, group).is_empty()));
}

#[test]
fn tenants_in_two_lists_have_one_series_each() {
    let tenant = "2c7ad1ad-7a2b-41ea-8b9a-6a0de7b3a7b6";
    let subscriptions = serde_json::json!({"tenants": [tenant], "lists_tenants": true, "products": []});
    let customer = serde_json::json!({"organization": "Contoso", "country": "", "status": null,
        "management_mode": null, "tenants": 1, "named_tenants": [{"id": tenant, "name": "Contoso"}]});
    let records = [
        (CollectorId::LICENSES, restored(CollectorId::LICENSES, &subscriptions)),
        (CUSTOMERS, restored(CUSTOMERS, &customer)),
    ];
    for order in [[0, 1], [1, 0]] {
        let store = store_of(1);
        for (collector, record) in order.map(|n| records[n].clone()) {
            store.add_target(collector, &Target::Partner);
            let records = BTreeMap::from([(id(0), record)]);
            store.commit(collector, &Target::Partner, records, true, at(0)).unwrap();
        }
        let of_subscriptions = || {
            let inner = lock(&store.inner);
            let records = &inner.collected.get(CollectorId::LICENSES).records;
            records.values().map(StoredRecord::samples).sum::<usize>()
        };
        assert_eq!(of_subscriptions(), 0);
        store.render_anew(&[id(0)], &Arc::default(), at(1));
        assert_eq!(
            (of_subscriptions(), tracked(&store)),
            (0, counted(&store)),
            "rendering again must not restore the tenants' series"
        );
    }
}

fn error(store: &Store, customer: usize) -> Option<LastError> {
    let snapshot = store.status_snapshot(at(0));
    let jobs = snapshot.collectors().find(|collector| collector.id == JOBS)?;
    jobs.poll_of(&target(customer)).error
}

#[test]
fn failures_are_kept_until_success_without_duplicates() {
    let store = store_of(2);
    for customer in 0..2 {
        store.add_target(JOBS, &target(customer));
        store.mark_failed(JOBS, &target(customer));
        store.set_error(JOBS, &target(customer), "jobs: status 404", false, at(5));
    }
    let (one, other) = (error(&store, 0).unwrap(), error(&store, 1).unwrap());
    assert_eq!((&*one.text, one.at, one.is_outage), ("jobs: status 404", at(5), false));
    assert!(Arc::ptr_eq(&one.text, &other.text));
    store.clamp_times(at(-5));
    assert_eq!(error(&store, 0), Some(one));
    commit(&store, 0, 1, true, 10).unwrap();
    assert_eq!(error(&store, 0), None);
    assert_eq!(error(&store, 1), Some(other));
    // Nothing is stored for targets that are not polled.
    store.set_error(JOBS, &target(7), "jobs: throttled", false, at(5));
    assert_eq!(error(&store, 7), None);
}

#[test]
fn optional_record_is_dropped_after_two_lists_without_it() {
    let store = store_of(2);
    let baselines = CollectorId::named("baselines").unwrap();
    store.add_target(baselines, &Target::Partner);
    let list = |customers: &[usize], complete: bool| {
        let records = customers.iter().map(|n| (id(*n), rendered(1))).collect();
        store
            .commit(baselines, &Target::Partner, records, complete, at(0))
            .unwrap();
        tracked(&store)
    };
    assert_eq!(list(&[0, 1], true), 2);
    assert_eq!(list(&[0], true), 2, "one list must not remove a customer");
    assert_eq!(list(&[0, 1], true), 2);
    assert_eq!(list(&[0], true), 2, "only consecutive lists must count");
    assert_eq!(list(&[0], false), 2, "an incomplete list must not count");
    assert_eq!(list(&[0], true), 1);
}

#[test]
fn narrowed_record_keeps_its_age() {
    let store = store_of(1);
    commit(&store, 0, 3, true, 0).unwrap();
    store.narrow_record(JOBS, &id(0), rendered(1));
    assert_eq!(tracked(&store), 1);
    assert_eq!(store.last_success(JOBS, &target(0)), Some(at(0)));
    store.narrow_record(JOBS, &id(1), rendered(1));
    assert_eq!(tracked(&store), 1, "unlisted customers must not be stored");
}
