//! Caches the division of the customers into shares until the customers change. A division takes a step for each
//! customer and share, and each of a thousand shares may be scraped every minute.

use std::sync::{Arc, Mutex, PoisonError};

use crate::collector::Target;
use crate::domain::{Purpose, Shard};
use crate::store::Store;

/// Cached divisions. Usually there is one, and two while the number of shares is being changed; the oldest of more is
/// evicted.
const KEPT: usize = 4;

/// The newest divisions of the customers.
#[derive(Debug, Default)]
pub(super) struct Shares(Mutex<Vec<Division>>);

/// A division of the customers.
#[derive(Clone, Debug)]
pub(super) struct Division {
    /// Membership number of the store for these customers.
    membership: u64,
    of: u32,
    shares: Arc<[Vec<Target>]>,
}

impl Division {
    /// Returns the customers of a share, in order.
    pub(super) fn get(&self, shard: Shard) -> Option<&Vec<Target>> {
        self.shares.get(usize::try_from(shard.index()).ok()?)
    }
}

impl Shares {
    /// Returns the customers of the store, divided into this many shares.
    pub(super) fn of(&self, of: u32, store: &Store) -> Division {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let membership = store.membership();
        let is_good = |division: &Division| division.of == of && division.membership == membership;
        if let Some(division) = kept.iter().find(|division| is_good(division)) {
            return division.clone();
        }
        // The lock is held, so that concurrent requests share one computation.
        let division = divide(of, store);
        kept.retain(|kept| kept.of != of && kept.membership == division.membership);
        kept.truncate(KEPT - 1);
        kept.insert(0, division.clone());
        division
    }
}

fn divide(of: u32, store: &Store) -> Division {
    let (membership, customers) = store.customers_with_membership();
    let mut shares: Vec<Vec<Target>> = Shard::all(of).map(|_| Vec::new()).collect();
    for customer in customers {
        let index = usize::try_from(Shard::owner(&customer, of, Purpose::Scrape).index()).ok();
        if let Some(share) = index.and_then(|index| shares.get_mut(index)) {
            share.push(Target::Customer(customer));
        }
    }
    Division {
        membership,
        of,
        shares: shares.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::collector::{PerCollector, Plan};
    use crate::domain::CustomerId;

    fn know(store: &Store, customers: std::ops::Range<u32>) {
        let id = |n| CustomerId::parse(&format!("customer-{n}")).unwrap();
        let listed: BTreeMap<_, Arc<str>> = customers.map(|n| (id(n), Arc::from(""))).collect();
        store.reconcile(&listed, false).1.unwrap();
    }

    fn everybody(division: &Division) -> usize {
        let targets: BTreeSet<&Target> = Shard::all(division.of)
            .flat_map(|shard| division.get(shard).unwrap())
            .collect();
        assert_eq!(
            targets.len(),
            division.shares.iter().map(Vec::len).sum::<usize>(),
            "a customer occurs twice"
        );
        targets.len()
    }

    #[test]
    fn division_is_cached_until_the_customers_change() {
        let store = Store::new(&PerCollector::from_fn(|_| Plan::OFF), None);
        know(&store, 0..100);
        let shares = Shares::default();
        let first = shares.of(7, &store);
        assert_eq!(everybody(&first), 100);
        for of in [1, 2, 3] {
            assert_eq!(everybody(&shares.of(of, &store)), 100);
        }
        assert!(Arc::ptr_eq(&shares.of(7, &store).shares, &first.shares));
        know(&store, 0..100);
        assert!(
            Arc::ptr_eq(&shares.of(7, &store).shares, &first.shares),
            "no customer was added"
        );
        know(&store, 100..101);
        assert_eq!(everybody(&shares.of(7, &store)), 101);
        store.remove_customer(&CustomerId::parse("customer-5").unwrap());
        assert_eq!(everybody(&shares.of(7, &store)), 100);
        for of in 1..40 {
            shares.of(of, &store);
        }
        assert_eq!(shares.0.lock().unwrap().len(), KEPT);
    }
}
