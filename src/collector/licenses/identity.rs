//! Identity of subscriptions: the label that distinguishes those of one service.

use std::collections::{BTreeMap, BTreeSet};

use super::{Identity, Product};

/// Maximum number of equal subscriptions of one customer that are recognized individually. If there are more, they are
/// distinguished by their order.
const MAX_RECOGNIZED: usize = 64;

/// Merges identical subscriptions, and returns how many there were.
pub(super) fn join_equal(products: &mut Vec<Product>) -> u64 {
    let before = products.len();
    products.sort_by(|one, other| {
        let key = |product: &Product| (product.expiration, product.contract_end, product.purchased_seats);
        (&one.identity, key(one)).cmp(&(&other.identity, key(other)))
    });
    products.dedup();
    u64::try_from(before - products.len()).unwrap_or(u64::MAX)
}

/// Assigns labels that distinguish the subscriptions of one service. A label is derived from the purchased items, which
/// do not change when the subscription is renewed, extended or moved to other storage. Equal subscriptions are
/// numbered, and keep their number as long as they are recognized in `previous`.
pub(super) fn tell_apart(products: &mut [Product], previous: &[Product]) {
    let mut of_service: BTreeMap<String, usize> = BTreeMap::new();
    let mut equals: BTreeMap<String, Vec<&mut Product>> = BTreeMap::new();
    for product in products.iter_mut() {
        *of_service.entry(product.identity.service.clone()).or_default() += 1;
        product.place = 0;
        equals.entry(product.identity.digest()).or_default().push(product);
    }
    let mut before: BTreeMap<String, Vec<&Product>> = BTreeMap::new();
    for product in previous {
        before.entry(product.identity.digest()).or_default().push(product);
    }
    for (digest, mut equals) in equals {
        let before = before.get(&digest).map_or(&[][..], Vec::as_slice);
        place(&mut equals, before);
        for product in equals {
            let alone = of_service.get(&product.identity.service).is_none_or(|count| *count < 2);
            product.license = match product.place {
                _ if alone => String::new(),
                1 => digest.clone(),
                place => format!("{digest}-{place}"),
            };
        }
    }
}

/// Numbers equal subscriptions. Each gets the number of the most similar previous one, most similar pair first; new
/// ones get the lowest free number.
fn place(equals: &mut [&mut Product], before: &[&Product]) {
    let mut taken = BTreeSet::new();
    if equals.len().max(before.len()) <= MAX_RECOGNIZED {
        let mut pairs: Vec<(u32, usize, usize)> = Vec::new();
        for (old, known) in before.iter().enumerate() {
            pairs.extend(
                equals
                    .iter()
                    .enumerate()
                    .map(|(new, product)| (known.likeness(product), old, new)),
            );
        }
        pairs.sort_by_key(|(likeness, old, new)| (std::cmp::Reverse(*likeness), *old, *new));
        let mut gone = BTreeSet::new();
        for (_, old, new) in pairs {
            let (Some(known), Some(product)) = (before.get(old), equals.get_mut(new)) else {
                continue;
            };
            if product.place == 0 && known.place > 0 && !gone.contains(&old) && taken.insert(known.place) {
                gone.insert(old);
                product.place = known.place;
            }
        }
    }
    let mut free = (1..).filter(|place| !taken.contains(place));
    for product in equals.iter_mut().filter(|product| product.place == 0) {
        product.place = free.next().unwrap_or(u32::MAX);
    }
}

impl Product {
    /// Scores the likelihood that this and another are one subscription at two times.
    fn likeness(&self, other: &Self) -> u32 {
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
    /// Returns a short name of the subscribed items: a checksum in hexadecimal digits.
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
