//! Identity of subscriptions: the label that distinguishes the subscriptions of one service.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{Identity, Product};

/// Maximum number of subscriptions with the same digest for which matches among the previous subscriptions are sought.
/// Larger groups are numbered in order, because the number of pairs grows with the square of the group's size.
const MAX_MATCHED: usize = 64;

/// Removes duplicate subscriptions, and returns how many were removed.
pub(super) fn merge_identical(products: &mut Vec<Product>) -> u64 {
    let before = products.len();
    let key = |product: &Product| (product.expiration, product.contract_end, product.purchased_seats);
    // The sort is stable, so that similar subscriptions stay in the order of the response.
    products.sort_by(|one, other| (&one.identity, key(one)).cmp(&(&other.identity, key(other))));
    let similar = products.chunk_by(|one, other| one.identity == other.identity && key(one) == key(other));
    let is_first: Vec<bool> = similar
        .flat_map(|group| {
            let mut seen = HashSet::new();
            group
                .iter()
                .map(move |product| group.len() == 1 || seen.insert(format!("{product:?}")))
        })
        .collect();
    let mut is_first = is_first.into_iter();
    products.retain(|_| is_first.next().unwrap_or(true));
    u64::try_from(before - products.len()).unwrap_or(u64::MAX)
}

/// Assigns labels that distinguish the subscriptions of one service. The label of a service's only subscription is
/// empty. Other labels begin with the subscription's digest, which does not change when the subscription is renewed,
/// extended or moved to other storage. Subscriptions with the same digest are numbered, and keep their numbers for as
/// long as they match a subscription in `previous`.
pub(super) fn assign_labels(products: &mut [Product], previous: &[Product]) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut groups: BTreeMap<String, Vec<&mut Product>> = BTreeMap::new();
    for product in products.iter_mut() {
        *counts.entry(product.identity.service.clone()).or_default() += 1;
        product.number = 0;
        groups.entry(product.identity.digest()).or_default().push(product);
    }
    let mut before: BTreeMap<String, Vec<&Product>> = BTreeMap::new();
    for product in previous {
        before.entry(product.identity.digest()).or_default().push(product);
    }
    for (digest, mut group) in groups {
        let before = before.get(&digest).map_or(&[][..], Vec::as_slice);
        assign_numbers(&mut group, before);
        for product in group {
            let is_only_one = counts.get(&product.identity.service).is_none_or(|count| *count < 2);
            product.license = match product.number {
                _ if is_only_one => String::new(),
                1 => digest.clone(),
                number => format!("{digest}-{number}"),
            };
        }
    }
}

/// Numbers the subscriptions of a group. A subscription inherits the number of the previous subscription that it is
/// matched with; the most similar pairs are matched first. Subscriptions without a match get the lowest free numbers.
fn assign_numbers(group: &mut [&mut Product], before: &[&Product]) {
    let mut taken = BTreeSet::new();
    if group.len().max(before.len()) <= MAX_MATCHED {
        let mut pairs: Vec<(u32, usize, usize)> = Vec::new();
        for (old, known) in before.iter().enumerate() {
            pairs.extend(
                group
                    .iter()
                    .enumerate()
                    .map(|(new, product)| (known.similarity(product), old, new)),
            );
        }
        pairs.sort_by_key(|(similarity, old, new)| (std::cmp::Reverse(*similarity), *old, *new));
        let mut matched = BTreeSet::new();
        for (_, old, new) in pairs {
            let (Some(known), Some(product)) = (before.get(old), group.get_mut(new)) else {
                continue;
            };
            if product.number == 0 && known.number > 0 && !matched.contains(&old) && taken.insert(known.number) {
                matched.insert(old);
                product.number = known.number;
            }
        }
    }
    let mut free = (1..).filter(|number| !taken.contains(number));
    for product in group.iter_mut().filter(|product| product.number == 0) {
        product.number = free.next().unwrap_or(u32::MAX);
    }
}

impl Product {
    /// Returns the number of values that the two subscriptions have in common. The more values they share, the more
    /// likely it is that they are the same subscription.
    fn similarity(&self, other: &Self) -> u32 {
        let same = [
            self.identity.storage == other.identity.storage,
            self.identity.retention == other.identity.retention,
            self.identity.payment_type == other.identity.payment_type,
            self.expiration == other.expiration,
            self.contract_end == other.contract_end,
            self.purchased_seats == other.purchased_seats,
            self.purchased_units == other.purchased_units,
            self.purchased_capacity == other.purchased_capacity,
        ];
        same.into_iter().map(u32::from).sum()
    }
}

impl Identity {
    /// Returns a checksum of the fields that a renewal does not change, as hexadecimal digits.
    pub(super) fn digest(&self) -> String {
        let parts = [
            &self.service,
            &self.subscription_model,
            &self.source,
            &self.subscription_name,
            &self.package,
        ];
        let mut hasher = crc32fast::Hasher::new();
        for part in parts {
            hasher.update(part.as_bytes());
            hasher.update(&[0]);
        }
        format!("{:08x}", hasher.finalize())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn product(units: u64) -> Product {
        let identity = json!({
            "service": "Cloud Backup", "subscription_model": "", "storage": "", "retention": "", "source": "",
            "payment_type": "", "subscription_name": "", "package": "",
        });
        serde_json::from_value(json!({"license": "", "identity": identity, "purchased_units": units})).unwrap()
    }

    #[test]
    fn duplicates_are_removed_and_the_order_is_kept() {
        let mut products = [20, 100, 20, 3, 100].map(product).to_vec();
        assert_eq!(merge_identical(&mut products), 2);
        assert_eq!(products, [20, 100, 3].map(product));
    }
}
