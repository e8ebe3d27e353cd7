//! A share of the customers, for fleets that are too large for one Prometheus or one request rate.

use std::fmt;
use std::str::FromStr;

use ring::digest;

use super::CustomerId;

/// Maximum number of shares. A fleet of fifty thousand customers then has fifty per share; with more shares, scrapes
/// would consist mostly of overhead.
pub const MAX_SHARDS: u32 = 1_000;

/// One of several equal shares of the customers, counted from zero.
///
/// A customer belongs to the share with the highest score (rendezvous hashing). An additional share takes customers
/// from each of the others and moves none between them. The hash never changes, so restarts and upgrades of some of the
/// exporters move no customers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shard {
    index: u32,
    of: u32,
}

/// Purpose of shares. Shares for different purposes are independent, so that each exporter's customers can be divided
/// evenly again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Selects the exporter that polls a customer.
    Poll,
    /// Selects the scrape that contains a customer.
    Scrape,
}

/// Text that is not a valid share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected I/N with N from 1 to {MAX_SHARDS} and I from 0 to N - 1, such as 0/3")]
pub struct InvalidShard;

impl Shard {
    /// All customers.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// Returns all shares, given their number.
    pub fn all(of: u32) -> impl Iterator<Item = Self> {
        (0..of).map(move |index| Self { index, of })
    }

    /// Returns whether this is the first share, which also has all data without a customer.
    pub fn is_first(self) -> bool {
        self.index == 0
    }

    /// Returns its index.
    pub fn index(self) -> u32 {
        self.index
    }

    /// Returns the number of shares.
    pub fn of(self) -> u32 {
        self.of
    }

    /// Returns whether a customer belongs to this share.
    pub fn owns(self, customer: &CustomerId, purpose: Purpose) -> bool {
        Self::owner(customer, self.of, purpose) == self
    }

    /// Returns the share to which a customer belongs. The cost grows with the number of shares, so callers cache the
    /// result.
    pub fn owner(customer: &CustomerId, of: u32, purpose: Purpose) -> Self {
        if of <= 1 {
            return Self::WHOLE;
        }
        let hash = hash(customer, purpose);
        let score = |index: u32| mixed(hash ^ mixed(u64::from(index) + 1));
        let index = (0..of).max_by_key(|index| score(*index)).unwrap_or_default();
        Self { index, of }
    }
}

/// Returns the first half of the SHA-256 of purpose and id.
fn hash(customer: &CustomerId, purpose: Purpose) -> u64 {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(match purpose {
        Purpose::Poll => b"poll ",
        Purpose::Scrape => b"scrape ",
    });
    // Ids are equal in any case.
    context.update(customer.as_str().to_ascii_lowercase().as_bytes());
    let bytes = context.finish();
    bytes
        .as_ref()
        .iter()
        .take(8)
        .fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

/// SplitMix64's finalizer: every bit of the input changes half of the output.
fn mixed(mut bits: u64) -> u64 {
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
        let (index, of) = text.split_once('/').ok_or(InvalidShard)?;
        let (index, of) = (number(index).ok_or(InvalidShard)?, number(of).ok_or(InvalidShard)?);
        if (1..=MAX_SHARDS).contains(&of) && index < of {
            Ok(Self { index, of })
        } else {
            Err(InvalidShard)
        }
    }
}

/// Parses digits without a sign or leading zeros.
fn number(text: &str) -> Option<u32> {
    let number = text.parse::<u32>().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Parses a number of shares; `None` if it is out of range.
pub fn shard_count(text: &str) -> Option<u32> {
    number(text).filter(|number| (1..=MAX_SHARDS).contains(number))
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUSTOMERS: u32 = 6000;

    fn customers() -> impl Iterator<Item = CustomerId> {
        (0..CUSTOMERS).map(|n| CustomerId::parse(&format!("{n:08x}-7d1b-4c1e-9a64-5b1f0e2d3c4a")).unwrap())
    }

    fn owner(customer: &CustomerId, of: u32, purpose: Purpose) -> u32 {
        let owners: Vec<Shard> = Shard::all(of).filter(|shard| shard.owns(customer, purpose)).collect();
        assert_eq!(owners.len(), 1, "every customer must be in one share");
        owners.first().unwrap().index
    }

    #[test]
    fn shares_are_even_and_an_added_share_moves_few_customers() {
        for of in [1, 2, 3, 8] {
            let mut sizes = vec![0; of as usize];
            let mut moved = 0;
            for customer in customers() {
                let before = owner(&customer, of, Purpose::Poll);
                let after = owner(&customer, of + 1, Purpose::Poll);
                *sizes.get_mut(before as usize).unwrap() += 1;
                if before != after {
                    assert_eq!(after, of, "no customer may move between existing shares");
                    moved += 1;
                }
            }
            let near = |count: u32, part: u32| (CUSTOMERS / part).abs_diff(count) < CUSTOMERS / part / 5;
            assert!(sizes.iter().all(|size| near(*size, of)), "{sizes:?}");
            assert!(near(moved, of + 1), "{moved}");
        }
    }

    #[test]
    fn shares_of_scrapes_split_each_share_of_polls_evenly() {
        let mut sizes = [0; 4];
        for customer in customers().filter(|customer| owner(customer, 2, Purpose::Poll) == 0) {
            *sizes.get_mut(owner(&customer, 4, Purpose::Scrape) as usize).unwrap() += 1;
        }
        assert!(sizes.iter().all(|size| (600..900).contains(size)), "{sizes:?}");
    }

    #[test]
    fn hash_is_stable() {
        let customer = CustomerId::parse("0F1C3DED-26b1-443b-91bf-c9009b7c057a").unwrap();
        let owners = [2, 3, 10, 1000].map(|of| owner(&customer, of, Purpose::Poll));
        assert_eq!(owners, [0, 0, 3, 806]);
    }

    #[test]
    fn shares_survive_formatting() {
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
