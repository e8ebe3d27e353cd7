//! A seeded generator that gives the same numbers for ever.

/// Splitmix64. Written here, and not taken from a crate, so that a world of a seed stays the same
/// world whatever becomes of the dependencies.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The dice that belong to a path of numbers, such as seed, customer, module and slot.
    ///
    /// What one path throws does not depend on what was thrown for another, so things may be made in
    /// any order.
    pub(crate) fn of(path: &[u64]) -> Self {
        let state = path.iter().fold(0x243F_6A88_85A3_08D3, |state, part| {
            Self(state ^ part.wrapping_mul(0x9E37_79B9_7F4A_7C15)).next()
        });
        Self(state)
    }

    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `bound` − 1; 0 if `bound` is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low.saturating_add(self.below(high.saturating_sub(low).saturating_add(1)))
    }

    /// As [`Dice::between`], for instants and durations, which are signed.
    pub(crate) fn seconds(&mut self, low: u32, high: u32) -> i64 {
        i64::try_from(self.between(u64::from(low), u64::from(high))).unwrap_or(0)
    }

    /// True in `percent` of a hundred throws.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// True with the given probability.
    pub(crate) fn probably(&mut self, probability: f64) -> bool {
        let thrown = u32::try_from(self.next() >> 32).unwrap_or(u32::MAX);
        f64::from(thrown) < probability * (f64::from(u32::MAX) + 1.0)
    }

    /// One of the choices, or the type's default if there are none.
    pub(crate) fn pick<T: Copy + Default>(&mut self, choices: &[T]) -> T {
        let count = u64::try_from(choices.len()).unwrap_or(0);
        usize::try_from(self.below(count))
            .ok()
            .and_then(|at| choices.get(at).copied())
            .unwrap_or_default()
    }

    /// A random UUID, version 4, in the usual spelling.
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

    /// A size in the API's spelling, of whole gigabytes up to `most` and a fraction.
    pub(crate) fn gigabytes(&mut self, most: u64) -> String {
        let (whole, hundredths) = (self.below(most), self.between(1, 99));
        format!("{whole}.{hundredths:02} GB")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn throws_what_splitmix64_throws() {
        // The first numbers of the reference implementation for the state 1234567.
        let mut dice = Dice(1_234_567);
        assert_eq!(dice.next(), 6_457_827_717_110_365_317);
        assert_eq!(dice.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn paths_are_independent_and_repeatable() {
        assert_eq!(Dice::of(&[1, 2]).next(), Dice::of(&[1, 2]).next());
        assert_ne!(Dice::of(&[1, 2]).next(), Dice::of(&[2, 1]).next());
        assert_ne!(Dice::of(&[1]).next(), Dice::of(&[1, 0]).next());
    }

    #[test]
    fn stays_within_its_bounds() {
        let mut dice = Dice::of(&[9]);
        for _ in 0..1000 {
            assert!((3..=5).contains(&dice.between(3, 5)));
            assert!(dice.probably(1.0));
            assert!(!dice.probably(0.0));
        }
        assert_eq!(dice.below(0), 0);
        assert_eq!(dice.pick::<u8>(&[]), 0);
    }

    #[test]
    fn writes_uuids_of_version_four() {
        let id = Dice::of(&[3]).uuid();
        let lengths: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(id.as_bytes().get(14), Some(&b'4'));
        assert!(matches!(id.as_bytes().get(19).unwrap(), b'8' | b'9' | b'a' | b'b'));
    }
}
