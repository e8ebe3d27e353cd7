//! Divides the customers into shards, for fleets that are too large for one Prometheus server or one request rate
//! limit.

use std::fmt;
use std::str::FromStr;

use super::CustomerId;
use super::text::stable_hash;

/// Maximum number of shards. In a fleet of fifty thousand customers, each shard then has fifty. With more shards,
/// scrapes would consist mostly of overhead.
pub const MAX_SHARDS: u32 = 1_000;

/// One of N groups of customers of about the same size. Indexes start at zero.
///
/// A customer belongs to the shard with the highest score (rendezvous hashing). If a shard is added, some customers of
/// each existing shard move to it, and no other customers move. The hash is stable across restarts and versions, so
/// that exporters of different versions agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shard {
    index: u32,
    count: u32,
}

/// Purpose of a partition. Partitions for different purposes are independent, so that one exporter's customers can
/// in turn be divided evenly among scrapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Selects the exporter that polls a customer.
    Poll,
    /// Selects the scrape that contains a customer.
    Scrape,
}

/// Error for text that is not a valid shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected I/N with N from 1 to {MAX_SHARDS} and I from 0 to N - 1, such as 0/3")]
pub struct InvalidShard;

impl Shard {
    /// All customers.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Returns all shards of a partition with `count` shards.
    pub fn all(count: u32) -> impl Iterator<Item = Self> {
        (0..count).map(move |index| Self { index, count })
    }

    /// Returns whether this is the first shard. Of a scrape's shards, only the first contains data that does not belong
    /// to a customer.
    pub fn is_first(self) -> bool {
        self.index == 0
    }

    /// Returns the index of the shard, starting at zero.
    pub fn index(self) -> u32 {
        self.index
    }

    /// Returns the number of shards.
    pub fn count(self) -> u32 {
        self.count
    }

    /// Returns whether a customer belongs to this shard.
    pub fn owns(self, customer: &CustomerId, purpose: Purpose) -> bool {
        Self::owner(customer, self.count, purpose) == self
    }

    /// Returns the shard to which a customer belongs. The cost grows with the number of shards, so scrapes cache the
    /// result.
    pub fn owner(customer: &CustomerId, count: u32, purpose: Purpose) -> Self {
        if count <= 1 {
            return Self::WHOLE;
        }
        let hash = hash(customer, purpose);
        let score = |index: u32| mix(hash ^ mix(u64::from(index) + 1));
        let index = (0..count).max_by_key(|index| score(*index)).unwrap_or_default();
        Self { index, count }
    }
}

fn hash(customer: &CustomerId, purpose: Purpose) -> u64 {
    let purpose = match purpose {
        Purpose::Poll => "poll",
        Purpose::Scrape => "scrape",
    };
    // Ids that differ only in case must belong to the same shard.
    stable_hash(&format!("{purpose} {}", customer.as_str().to_ascii_lowercase()))
}

/// Mixes bits with the SplitMix64 finalizer: each input bit affects about half of the output bits.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

impl Default for Shard {
    fn default() -> Self {
        Self::WHOLE
    }
}

impl FromStr for Shard {
    type Err = InvalidShard;

    fn from_str(text: &str) -> Result<Self, InvalidShard> {
        let (index, count) = text.split_once('/').ok_or(InvalidShard)?;
        let index = parse_number(index).ok_or(InvalidShard)?;
        let count = parse_number(count).ok_or(InvalidShard)?;
        if (1..=MAX_SHARDS).contains(&count) && index < count {
            Ok(Self { index, count })
        } else {
            Err(InvalidShard)
        }
    }
}

/// Parses digits without a sign or leading zeros.
fn parse_number(text: &str) -> Option<u32> {
    let number = text.parse::<u32>().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Parses a number of shards; `None` if it is invalid or out of range.
pub fn shard_count(text: &str) -> Option<u32> {
    parse_number(text).filter(|number| (1..=MAX_SHARDS).contains(number))
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUSTOMERS: u32 = 6000;

    fn customers() -> impl Iterator<Item = CustomerId> {
        (0..CUSTOMERS).map(|n| CustomerId::parse(&format!("{n:08x}-7d1b-4c1e-9a64-5b1f0e2d3c4a")).unwrap())
    }

    fn owner(customer: &CustomerId, count: u32, purpose: Purpose) -> u32 {
        let owners: Vec<Shard> = Shard::all(count)
            .filter(|shard| shard.owns(customer, purpose))
            .collect();
        assert_eq!(owners.len(), 1, "every customer must be in exactly one shard");
        owners.first().unwrap().index
    }

    #[test]
    fn shards_are_even_and_an_added_shard_moves_few_customers() {
        for count in [1, 2, 3, 8] {
            let mut sizes = vec![0; count as usize];
            let mut moved = 0;
            for customer in customers() {
                let before = owner(&customer, count, Purpose::Poll);
                let after = owner(&customer, count + 1, Purpose::Poll);
                *sizes.get_mut(before as usize).unwrap() += 1;
                if before != after {
                    assert_eq!(after, count, "no customer may move between existing shards");
                    moved += 1;
                }
            }
            let is_near = |size: u32, part: u32| (CUSTOMERS / part).abs_diff(size) < CUSTOMERS / part / 5;
            assert!(sizes.iter().all(|size| is_near(*size, count)), "{sizes:?}");
            assert!(is_near(moved, count + 1), "{moved}");
        }
    }

    #[test]
    fn scrape_shards_split_each_poll_shard_evenly() {
        let mut sizes = [0; 4];
        for customer in customers().filter(|customer| owner(customer, 2, Purpose::Poll) == 0) {
            *sizes.get_mut(owner(&customer, 4, Purpose::Scrape) as usize).unwrap() += 1;
        }
        assert!(sizes.iter().all(|size| (600..900).contains(size)), "{sizes:?}");
    }

    #[test]
    fn hash_is_stable() {
        let customer = CustomerId::parse("0F1C3DED-26b1-443b-91bf-c9009b7c057a").unwrap();
        let owners = [2, 3, 10, 1000].map(|count| owner(&customer, count, Purpose::Poll));
        assert_eq!(owners, [0, 0, 3, 806]);
    }

    #[test]
    fn shards_are_parsed_and_formatted() {
        for text in ["0/1", "2/3", "999/1000"] {
            assert_eq!(text.parse::<Shard>().unwrap().to_string(), text);
        }
        for text in [
            "", "1", "/", "3/3", "0/0", "-1/2", "0/1001", "a/b", "1/2/3", " 0/1", "+0/2", "00/2", "0/02",
        ] {
            assert_eq!(text.parse::<Shard>(), Err(InvalidShard), "{text}");
        }
    }
}
