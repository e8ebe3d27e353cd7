//! A seeded random number generator with a stable sequence.

/// SplitMix64, implemented here so that a dependency update cannot change the world that a seed generates.
#[derive(Clone, Debug)]
pub(crate) struct SeededRng(u64);

impl SeededRng {
    /// Creates the generator for a path of numbers, such as seed, customer, module and slot.
    ///
    /// Generators with different paths are independent, so items may be created in any order.
    pub(crate) fn from_path(path: &[u64]) -> Self {
        let state = path.iter().fold(0x243F_6A88_85A3_08D3, |state, part| {
            Self(state ^ part.wrapping_mul(0x9E37_79B9_7F4A_7C15)).next()
        });
        Self(state)
    }

    /// Returns the next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `limit`, or 0 if `limit` is 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next().checked_rem(limit).unwrap_or(0)
    }

    /// Returns a number from `low` to `high`, inclusive.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low.saturating_add(self.below(high.saturating_sub(low).saturating_add(1)))
    }

    /// Returns a number from `low` to `high`, inclusive, as a signed value for timestamps and durations.
    pub(crate) fn seconds(&mut self, low: u32, high: u32) -> i64 {
        i64::try_from(self.between(u64::from(low), u64::from(high))).unwrap_or(0)
    }

    /// Returns true with a probability of `percent` percent.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Returns true with the given probability.
    pub(crate) fn probably(&mut self, probability: f64) -> bool {
        let value = u32::try_from(self.next() >> 32).unwrap_or(u32::MAX);
        f64::from(value) < probability * (f64::from(u32::MAX) + 1.0)
    }

    /// Returns one of the choices, or the type's default if there are none.
    pub(crate) fn pick<T: Copy + Default>(&mut self, choices: &[T]) -> T {
        let count = u64::try_from(choices.len()).unwrap_or(0);
        usize::try_from(self.below(count))
            .ok()
            .and_then(|at| choices.get(at).copied())
            .unwrap_or_default()
    }

    /// Returns a random UUID, version 4.
    pub(crate) fn uuid(&mut self) -> String {
        let (high, low) = (self.next(), self.next());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xFFFF,
            high & 0xFFF,
            0x8000 | ((low >> 48) & 0x3FFF),
            low & 0xFFFF_FFFF_FFFF,
        )
    }

    /// Returns a random size below `limit` gigabytes, in the API's format.
    pub(crate) fn gigabytes(&mut self, limit: u64) -> String {
        let (whole, hundredths) = (self.below(limit), self.between(1, 99));
        format!("{whole}.{hundredths:02} GB")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_match_the_reference_implementation() {
        // These are the first numbers that the reference implementation returns for the state 1234567.
        let mut rng = SeededRng(1_234_567);
        assert_eq!(rng.next(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn paths_are_independent_and_repeatable() {
        assert_eq!(
            SeededRng::from_path(&[1, 2]).next(),
            SeededRng::from_path(&[1, 2]).next()
        );
        assert_ne!(
            SeededRng::from_path(&[1, 2]).next(),
            SeededRng::from_path(&[2, 1]).next()
        );
        assert_ne!(SeededRng::from_path(&[1]).next(), SeededRng::from_path(&[1, 0]).next());
    }

    #[test]
    fn numbers_stay_within_their_limits() {
        let mut rng = SeededRng::from_path(&[9]);
        for _ in 0..1000 {
            assert!((3..=5).contains(&rng.between(3, 5)));
            assert!(rng.probably(1.0));
            assert!(!rng.probably(0.0));
        }
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.pick::<u8>(&[]), 0);
    }

    #[test]
    fn uuids_have_version_four() {
        let id = SeededRng::from_path(&[3]).uuid();
        let lengths: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(id.as_bytes().get(14), Some(&b'4'));
        assert!(matches!(id.as_bytes().get(19).unwrap(), b'8' | b'9' | b'a' | b'b'));
    }
}
