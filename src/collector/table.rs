//! Lookups in the table [`ALL`], and maps with one value per collector.

use std::array;
use std::sync::Arc;

use super::descriptor::PollFuture;
use super::{
    ALL, Collector as _, CollectorDescriptor, CollectorId, Context, RecordSource, Target, customers, jobs, licenses,
    scan_profiles,
};
use crate::api::Api;

/// Number of collectors.
const COUNT: usize = ALL.len();

/// Returns all collectors, in the order of [`ALL`].
pub fn ids() -> impl Iterator<Item = CollectorId> + Clone {
    (0..COUNT).map(CollectorId::at)
}

impl CollectorId {
    /// The collector `customers`, on which all others depend.
    pub const CUSTOMERS: Self = Self::of(customers::Customers::NAME);

    /// The collector `jobs`, whose records determine the backup status.
    pub const JOBS: Self = Self::of(jobs::Jobs::NAME);

    /// The collector `licenses`, whose records contain the tenants if the customer list does not.
    pub const LICENSES: Self = Self::of(licenses::Licenses::NAME);

    /// The collector `scan_profiles`.
    pub(super) const SCAN_PROFILES: Self = Self::of(scan_profiles::ScanProfiles::NAME);

    /// Returns the collector with this name.
    pub fn named(name: &str) -> Option<Self> {
        ids().find(|id| id.name() == name)
    }

    /// Returns the collector's descriptor.
    #[expect(clippy::indexing_slicing, reason = "all ids are positions in the table")]
    pub fn descriptor(self) -> &'static CollectorDescriptor {
        &ALL[self.position()]
    }

    /// Returns the collector's name in the configuration and in labels.
    pub fn name(self) -> &'static str {
        self.descriptor().name
    }

    /// Polls a target.
    pub fn poll(self, api: Api, target: Target, source: Arc<dyn RecordSource>, context: Context) -> PollFuture {
        (self.descriptor().poll)(self, api, target, source, context)
    }

    #[expect(
        clippy::indexing_slicing,
        clippy::panic,
        reason = "runs during compilation, which fails if the name is not in the table"
    )]
    const fn of(name: &str) -> Self {
        let mut position = 0;
        while position < COUNT {
            if is_same(ALL[position].name.as_bytes(), name.as_bytes()) {
                return Self::at(position);
            }
            position += 1;
        }
        panic!("no collector has this name")
    }
}

const fn is_same(mut one: &[u8], mut other: &[u8]) -> bool {
    while let ([first, rest @ ..], [second, others @ ..]) = (one, other) {
        if *first != *second {
            return false;
        }
        (one, other) = (rest, others);
    }
    one.is_empty() && other.is_empty()
}

/// A value for each collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerCollector<T>([T; COUNT]);

impl<T> PerCollector<T> {
    /// Creates a map from a function that returns the value of each collector.
    pub fn from_fn(mut value_of: impl FnMut(CollectorId) -> T) -> Self {
        Self(array::from_fn(|position| value_of(CollectorId::at(position))))
    }

    /// Returns the value of a collector.
    #[expect(clippy::indexing_slicing, reason = "there is a value for each row of the table")]
    pub fn get(&self, id: CollectorId) -> &T {
        &self.0[id.position()]
    }

    /// Returns a mutable reference to the value of a collector.
    #[expect(clippy::indexing_slicing, reason = "there is a value for each row of the table")]
    pub fn get_mut(&mut self, id: CollectorId) -> &mut T {
        &mut self.0[id.position()]
    }

    /// Returns all values, in the order of the table.
    pub fn values(&self) -> impl Iterator<Item = &T> + Clone {
        self.0.iter()
    }

    /// Returns mutable references to all values.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut()
    }

    /// Returns the collectors with their values, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = (CollectorId, &T)> + Clone {
        ids().zip(&self.0)
    }

    /// Returns the collectors with mutable references to their values.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (CollectorId, &mut T)> {
        ids().zip(&mut self.0)
    }
}

impl<T: Default> Default for PerCollector<T> {
    fn default() -> Self {
        Self::from_fn(|_| T::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collector_names_map_to_rows_of_the_table() {
        assert_eq!(CollectorId::named("jobs"), Some(CollectorId::JOBS));
        assert_eq!(CollectorId::named("job"), None);
        assert_eq!(CollectorId::CUSTOMERS.position(), 0, "the customer list comes first");
        let names = PerCollector::from_fn(CollectorId::name);
        assert!(names.iter().all(|(id, name)| id.descriptor().name == *name));
        assert_eq!(*names.get(CollectorId::LICENSES), "licenses");
    }
}
