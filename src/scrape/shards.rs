//! Caches the partition of the customers into shards until the customers change. The cost of computing a partition
//! grows with the number of customers times the number of shards, and a thousand shards may be scraped every minute.

use std::sync::{Arc, Mutex};

use crate::collector::Target;
use crate::domain::{Purpose, Shard};
use crate::lock::lock;
use crate::store::Store;

/// Maximum number of cached partitions. There is usually one partition, or two while the number of shards is being
/// changed.
const MAX_PARTITIONS: usize = 4;

/// The most recent partitions of the customers.
#[derive(Debug, Default)]
pub(super) struct ShardCache(Mutex<Vec<Partition>>);

/// A partition of the customers.
#[derive(Clone, Debug)]
pub(super) struct Partition {
    /// Number that the store assigned to this set of customers.
    membership: u64,
    /// Number of shards.
    count: u32,
    shards: Arc<[Vec<Target>]>,
}

impl Partition {
    /// Returns the customers of a shard, in order.
    pub(super) fn get(&self, shard: Shard) -> Option<&Vec<Target>> {
        self.shards.get(usize::try_from(shard.index()).ok()?)
    }
}

impl ShardCache {
    /// Returns the customers in the store, divided into `count` shards.
    pub(super) fn partition(&self, count: u32, store: &Store) -> Partition {
        let mut cached = lock(&self.0);
        let membership = store.membership();
        let is_current = |partition: &Partition| partition.count == count && partition.membership == membership;
        if let Some(partition) = cached.iter().find(|partition| is_current(partition)) {
            return partition.clone();
        }
        // The lock is held, so that concurrent requests do not compute the same partition.
        let partition = partition_customers(count, store);
        cached.retain(|cached| cached.count != count && cached.membership == partition.membership);
        cached.truncate(MAX_PARTITIONS - 1);
        cached.insert(0, partition.clone());
        partition
    }
}

fn partition_customers(count: u32, store: &Store) -> Partition {
    let (membership, customers) = store.customers_with_membership();
    let mut shards: Vec<Vec<Target>> = Shard::all(count).map(|_| Vec::new()).collect();
    for customer in customers {
        let shard = Shard::owner(&customer, count, Purpose::Scrape);
        let index = usize::try_from(shard.index()).ok();
        if let Some(shard) = index.and_then(|index| shards.get_mut(index)) {
            shard.push(Target::Customer(customer));
        }
    }
    Partition {
        membership,
        count,
        shards: shards.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::collector::{PerCollector, Plan};
    use crate::domain::CustomerId;

    fn list_customers(store: &Store, customers: std::ops::Range<u32>) {
        let id = |n| CustomerId::parse(&format!("customer-{n}")).unwrap();
        let listed: BTreeMap<_, Arc<str>> = customers.map(|n| (id(n), Arc::from(""))).collect();
        store.reconcile(&listed, false).1.unwrap();
    }

    fn customer_count(partition: &Partition) -> usize {
        let targets: BTreeSet<&Target> = Shard::all(partition.count)
            .flat_map(|shard| partition.get(shard).unwrap())
            .collect();
        assert_eq!(
            targets.len(),
            partition.shards.iter().map(Vec::len).sum::<usize>(),
            "a customer must not be in two shards"
        );
        targets.len()
    }

    #[test]
    fn partition_is_cached_until_the_customers_change() {
        let store = Store::new(&PerCollector::from_fn(|_| Plan::OFF), None);
        list_customers(&store, 0..100);
        let cache = ShardCache::default();
        let first = cache.partition(7, &store);
        assert_eq!(customer_count(&first), 100);
        for count in [1, 2, 3] {
            assert_eq!(customer_count(&cache.partition(count, &store)), 100);
        }
        assert!(Arc::ptr_eq(&cache.partition(7, &store).shards, &first.shards));
        list_customers(&store, 0..100);
        assert!(
            Arc::ptr_eq(&cache.partition(7, &store).shards, &first.shards),
            "an unchanged list must not change the cached partition"
        );
        list_customers(&store, 100..101);
        assert_eq!(customer_count(&cache.partition(7, &store)), 101);
        store.remove_customer(&CustomerId::parse("customer-5").unwrap());
        assert_eq!(customer_count(&cache.partition(7, &store)), 100);
        for count in 1..40 {
            cache.partition(count, &store);
        }
        assert_eq!(cache.0.lock().unwrap().len(), MAX_PARTITIONS);
    }
}
