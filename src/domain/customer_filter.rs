//! Selects the customers to monitor.

use super::{CustomerId, Pattern, Purpose, Shard, looks_like_id};

/// A filter that selects customers by id, name and shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CustomerFilter {
    /// Customers to monitor; all if empty.
    pub include: Vec<Pattern>,
    /// Customers not to monitor, even if they match `include`.
    pub exclude: Vec<Pattern>,
    /// This exporter's shard of the remaining customers.
    pub shard: Shard,
}

impl CustomerFilter {
    /// Returns whether the customer with this id and name is monitored.
    pub fn admits(&self, id: &CustomerId, organization: &str) -> bool {
        let matches = |pattern: &Pattern| pattern.matches_customer(id.as_str(), organization);
        let is_included = self.include.is_empty() || self.include.iter().any(matches);
        is_included && !self.exclude.iter().any(matches) && self.shard.owns(id, Purpose::Poll)
    }

    /// Returns the shard's customers that are included by id and not excluded by id.
    pub fn ids(&self) -> Vec<CustomerId> {
        let ids = self.written_ids().filter_map(CustomerId::parse);
        ids.filter(|id| self.admits(id, "")).collect()
    }

    /// If the filter includes customers only by id, returns the included ids as written. Only these customers then need
    /// to be requested. Otherwise, returns no ids.
    pub fn only_ids(&self) -> Vec<String> {
        let ids: Vec<String> = self.written_ids().map(str::to_owned).collect();
        if ids.len() == self.include.len() {
            ids
        } else {
            Vec::new()
        }
    }

    fn written_ids(&self) -> impl Iterator<Item = &str> {
        self.include
            .iter()
            .map(Pattern::written)
            .filter(|text| looks_like_id(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "5f0c3a2e-0000-4000-8000-00000000000A";
    const OTHER: &str = "5f0c3a2e-0000-4000-8000-00000000000b";

    fn filter(include: &[&str], exclude: &[&str]) -> CustomerFilter {
        let patterns = |texts: &[&str]| texts.iter().map(|text| Pattern::parse(text).unwrap()).collect();
        CustomerFilter {
            include: patterns(include),
            exclude: patterns(exclude),
            shard: Shard::WHOLE,
        }
    }

    fn admits(filter: &CustomerFilter, id: &str, organization: &str) -> bool {
        filter.admits(&CustomerId::parse(id).unwrap(), organization)
    }

    #[test]
    fn filter_includes_all_customers_by_default() {
        assert!(admits(&CustomerFilter::default(), ID, "Contoso"));
    }

    #[test]
    fn exclusion_takes_precedence() {
        let filter = filter(&[ID, "Cont*"], &["*oso", OTHER]);
        assert!(admits(&filter, ID, "Fabrikam"));
        assert!(admits(&filter, "x", "Continental"));
        assert!(!admits(&filter, "x", "Contoso"));
        assert!(!admits(&filter, OTHER, "Continental"));
        assert!(!admits(&filter, "x", "Fabrikam"));
    }

    #[test]
    fn customer_belongs_to_one_shard() {
        let filters: Vec<_> = Shard::all(3)
            .map(|shard| CustomerFilter {
                shard,
                ..filter(&[], &[])
            })
            .collect();
        assert_eq!(filters.iter().filter(|filter| admits(filter, ID, "Contoso")).count(), 1);
    }

    #[test]
    fn ids_suffice_if_no_pattern_is_included() {
        assert_eq!(filter(&[ID, OTHER], &[]).only_ids(), [ID, OTHER]);
        for include in [&[ID, "Contoso"][..], &["face-bed"], &["faceb00cfaceb00cfaceb00c"], &[]] {
            assert!(filter(include, &[]).only_ids().is_empty(), "{include:?}");
        }
        let ids = filter(&[ID, "Contoso", OTHER], &[ID]).ids();
        assert_eq!(ids, [CustomerId::parse(OTHER).unwrap()]);
    }
}
