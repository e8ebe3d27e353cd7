//! The store's decisions.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

const CUSTOMERS: usize = 0;
const JOBS: usize = 1;

fn id(n: usize) -> CustomerId {
    CustomerId::parse(&format!("customer-{n}")).unwrap()
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
    Store::new(&vec![plan; collector::ALL.len()], limit)
}

fn listed(customers: impl IntoIterator<Item = usize>) -> BTreeMap<CustomerId, Arc<str>> {
    customers.into_iter().map(|n| (id(n), Arc::from("Contoso"))).collect()
}

/// A record of so many samples.
fn kept(samples: usize) -> Kept {
    let values = vec![Some(1.0); samples];
    Kept {
        record: Arc::new(samples),
        tables: Arc::new([Table::single(&[("customer_id", "x")], &values)]),
        held: Arc::new([]),
        standing: None,
    }
}

fn commit(store: &Store, customer: usize, samples: usize, complete: bool, now: i64) -> Result<(), OverLimit> {
    store.expect(JOBS, &Target::Customer(id(customer)));
    let records = BTreeMap::from([(id(customer), kept(samples))]);
    store.commit(JOBS, &Target::Customer(id(customer)), records, complete, at(now))
}

fn held(store: &Store) -> usize {
    store.lock().series
}

/// Which records of a group a picture shows as stale.
fn stale(picture: &Picture, group: usize) -> Vec<bool> {
    let group = &picture.groups[group];
    let shown = group
        .blocks
        .iter()
        .flat_map(|block| (0..).map_while(|n| block.shown(n)));
    let is_stale = |shown: Shown| shown.good_at.is_some_and(|at| picture.now > at.plus(group.stale_after));
    shown.map(is_stale).collect()
}

/// What is really held, counted anew.
fn counted(store: &Store) -> usize {
    let inner = store.lock();
    let cells = inner.collected.iter().flat_map(|collected| collected.cells.values());
    cells.map(Cell::samples).sum()
}

#[test]
fn a_customer_goes_with_the_second_complete_list_that_lacks_it() {
    let store = store(None);
    let (first, result) = store.reconcile(&listed(0..40), true);
    assert_eq!((first.joined.len(), result.is_ok()), (40, true));
    commit(&store, 39, 5, true, 0).unwrap();
    assert_eq!(store.reconcile(&listed(0..39), true).0, Reconciled::default());
    assert_eq!(
        store.reconcile(&listed(0..30), false).0,
        Reconciled::default(),
        "an incomplete list proves nothing"
    );
    let (third, result) = store.reconcile(&listed(0..39), true);
    assert_eq!((third.left, result.is_ok()), (vec![id(39)], true));
    assert_eq!((held(&store), counted(&store)), (0, 0));
}

#[test]
fn a_customer_that_comes_back_in_time_stays() {
    let store = store(None);
    store.reconcile(&listed(0..10), true).1.unwrap();
    store.reconcile(&listed(0..9), true).1.unwrap();
    store.reconcile(&listed(0..10), true).1.unwrap();
    assert!(store.reconcile(&listed(0..9), true).0.left.is_empty());
}

#[test]
fn a_sharp_shrink_is_not_believed_before_the_next_list_says_the_same() {
    for remaining in [0, 5, 35] {
        let store = store(None);
        store.reconcile(&listed(0..40), true).1.unwrap();
        let (first, result) = store.reconcile(&listed(0..remaining), true);
        let missing = 40 - remaining;
        assert!(matches!(result, Err(Error::Shrunk { missing: m, known: 40 }) if m == missing));
        assert!(first.left.is_empty());
        let (second, result) = store.reconcile(&listed(0..remaining), true);
        assert_eq!((second.left.len(), result.is_ok()), (missing, true));
    }
    assert!(!is_sharp(2, 5) && !is_sharp(4, 40) && is_sharp(5, 40) && is_sharp(1, 1) && !is_sharp(0, 0));
}

#[test]
fn a_customer_missing_for_the_first_time_keeps_its_row_of_the_list() {
    let store = store(None);
    store.reconcile(&listed(0..10), true).1.unwrap();
    store.expect(CUSTOMERS, &Target::Partner);
    let all = (0..10).map(|n| (id(n), kept(1))).collect();
    store.commit(CUSTOMERS, &Target::Partner, all, true, at(0)).unwrap();
    store.reconcile(&listed(0..9), true).1.unwrap();
    let nine = (0..9).map(|n| (id(n), kept(1))).collect();
    store.commit(CUSTOMERS, &Target::Partner, nine, true, at(60)).unwrap();
    assert_eq!(counted(&store), 10);
}

#[test]
fn the_series_held_are_those_counted_whatever_was_committed() {
    let store = store(None);
    store.reconcile(&listed(0..3), true).1.unwrap();
    for (customer, samples, complete) in [(0, 5, true), (0, 3, false), (1, 2, true), (0, 7, true), (9, 4, true)] {
        commit(&store, customer, samples, complete, 0).unwrap();
        assert_eq!(held(&store), counted(&store));
    }
    let nothing = BTreeMap::new();
    store
        .commit(JOBS, &Target::Customer(id(0)), nothing.clone(), false, at(1))
        .unwrap();
    assert_eq!(
        (held(&store), counted(&store)),
        (9, 9),
        "an incomplete answer takes nothing away"
    );
    store
        .commit(JOBS, &Target::Customer(id(0)), nothing, true, at(1))
        .unwrap();
    assert_eq!((held(&store), counted(&store)), (2, 2), "a complete one does");
}

#[test]
fn what_would_pass_the_limit_is_turned_away_and_what_is_there_goes_on() {
    // Ten of the API, and two of freshness for each of two customers.
    let store = store(Some(14));
    store.reconcile(&listed(0..3), true).1.unwrap();
    commit(&store, 0, 6, true, 0).unwrap();
    assert_eq!(commit(&store, 1, 6, true, 0), Err(OverLimit { series: 6 }));
    assert_eq!(counted(&store), 6);
    commit(&store, 0, 6, true, 1).unwrap();
    commit(&store, 1, 4, true, 1).unwrap();
}

#[test]
fn states_add_up_and_age_is_that_of_the_last_complete_poll() {
    let store = store(None);
    store.reconcile(&listed(0..5), true).1.unwrap();
    for customer in 0..5 {
        store.expect(JOBS, &Target::Customer(id(customer)));
    }
    for customer in 0..3 {
        commit(&store, customer, 1, true, 0).unwrap();
    }
    store.fail(JOBS, &Target::Customer(id(1)), &Error::Throttled);
    store.fail(JOBS, &Target::Customer(id(3)), &Error::Status(403));
    let states = |now: i64| {
        let overview = store.overview(at(now));
        State::ALL.map(|state| overview[JOBS].customers[&state])
    };
    assert_eq!(states(60), [2, 0, 1, 1, 1]);
    assert_eq!(states(181), [0, 3, 0, 1, 1]);
    // An answer with a row that could not be read: what it tells is young, what is held is as old as it was.
    for now in [100, 170] {
        let mut partial = kept(1);
        partial.held = kept(1).tables;
        let records = BTreeMap::from([(id(2), partial)]);
        store
            .commit(JOBS, &Target::Customer(id(2)), records, false, at(now))
            .unwrap();
    }
    let stale_at = |now: i64| stale(&store.picture(None, at(now)), JOBS);
    assert_eq!(stale_at(180), [false, false, false, false]);
    assert_eq!(stale_at(181), [true, true, false, true]);
    assert_eq!(states(181), [0, 3, 0, 1, 1], "and the customer is not called fresh");
    let picture = store.picture(None, at(181));
    assert!(
        stale(&picture, groups_of(JOBS)[1]).iter().all(|stale| !*stale),
        "freshness never disappears"
    );
    assert_eq!(store.last_success(JOBS, &Target::Customer(id(2))), Some(at(0)));
}

#[test]
fn nothing_is_newer_than_a_clock_that_was_set_back() {
    let store = store(None);
    store.reconcile(&listed(0..1), true).1.unwrap();
    commit(&store, 0, 1, true, 3600).unwrap();
    store.not_after(at(0));
    assert_eq!(store.last_success(JOBS, &Target::Customer(id(0))), Some(at(0)));
    assert!(stale(&store.picture(None, at(181)), JOBS)[0], "it ages from then on");
}

#[test]
fn a_customer_that_went_during_its_poll_does_not_come_back_as_a_ghost() {
    let store = store(None);
    store.reconcile(&listed(0..10), true).1.unwrap();
    commit(&store, 9, 1, true, 0).unwrap();
    store.reconcile(&listed(0..9), true).1.unwrap();
    store.reconcile(&listed(0..9), true).1.unwrap();
    let late = BTreeMap::from([(id(9), kept(1))]);
    store.commit(JOBS, &Target::Customer(id(9)), late, true, at(1)).unwrap();
    store.fail(JOBS, &Target::Customer(id(9)), &Error::Throttled);
    let picture = store.picture(None, at(1));
    assert!((0..picture.groups.len()).all(|group| stale(&picture, group).is_empty()));
}

fn failure(error: Error) -> crate::api::Failure {
    error.at(crate::api::Endpoint::Jobs)
}

fn troubles(store: &Store, customer: usize) -> Vec<Trouble> {
    let dossiers = store.dossiers(&[id(customer)], at(0));
    let answers = dossiers.into_iter().flat_map(|dossier| dossier.answers);
    answers.filter_map(|answer| answer.trouble).collect()
}

#[test]
fn what_went_wrong_is_kept_until_it_goes_right_and_once_for_all_that_fail_alike() {
    let store = store(None);
    let (_, result) = store.reconcile(&listed(0..2), true);
    result.unwrap();
    for customer in 0..2 {
        store.expect(JOBS, &Target::Customer(id(customer)));
        let error = Error::Status(404);
        store.fail(JOBS, &Target::Customer(id(customer)), &error);
        store.explain(JOBS, &Target::Customer(id(customer)), &failure(error), at(5));
    }
    let (one, other) = (troubles(&store, 0), troubles(&store, 1));
    assert_eq!((&*one[0].text, one[0].at), ("jobs: status 404", at(5)));
    assert!(Arc::ptr_eq(&one[0].text, &other[0].text));
    store.not_after(at(-5));
    assert_eq!(troubles(&store, 0), one);
    commit(&store, 0, 1, true, 10).unwrap();
    assert_eq!(troubles(&store, 0), []);
    assert_eq!(troubles(&store, 1), other);
    // Nothing is kept of targets that are not asked about.
    store.explain(JOBS, &Target::Customer(id(7)), &failure(Error::Throttled), at(5));
    assert_eq!(troubles(&store, 7), []);
}
