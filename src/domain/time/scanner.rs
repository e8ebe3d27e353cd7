//! Parses a string from left to right.

use std::ops::RangeInclusive;

/// Maximum number of decimal places of the seconds: nine, for nanoseconds.
const FRACTION_DIGITS: usize = 9;

/// The unparsed rest of a string. Methods that return a boolean, and [`Scanner::digits`], consume text only on success.
pub(super) struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    pub(super) const fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn eat(&mut self, expected: char) -> bool {
        match self.rest.strip_prefix(expected) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    pub(super) fn eat_any(&mut self, expected: &[char]) -> bool {
        expected.iter().any(|c| self.eat(*c))
    }

    /// Skips white space. Returns whether there was any.
    pub(super) fn spaces(&mut self) -> bool {
        let rest = self.rest.trim_start();
        let has_spaces = rest.len() < self.rest.len();
        self.rest = rest;
        has_spaces
    }

    /// Consumes all leading digits if their count is within `lengths`.
    pub(super) fn digits(&mut self, lengths: RangeInclusive<usize>) -> Option<&'a str> {
        let length = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self
            .rest
            .split_at_checked(length)
            .filter(|_| lengths.contains(&length))?;
        self.rest = rest;
        Some(digits)
    }

    /// Consumes all leading digits as a number.
    pub(super) fn number<T: std::str::FromStr>(&mut self, lengths: RangeInclusive<usize>) -> Option<T> {
        self.digits(lengths)?.parse().ok()
    }

    /// Consumes a decimal point and one to nine digits. Returns nanoseconds, or 0 if there is no decimal point.
    pub(super) fn fraction(&mut self) -> Option<i32> {
        if !self.eat('.') {
            return Some(0);
        }
        let digits = self.digits(1..=FRACTION_DIGITS)?;
        format!("{digits:0<FRACTION_DIGITS$}").parse().ok()
    }

    /// Consumes the expected word, ignoring ASCII case.
    pub(super) fn eat_word(&mut self, expected: &str) -> bool {
        let split = self.rest.split_at_checked(expected.len());
        match split.filter(|(word, _)| word.eq_ignore_ascii_case(expected)) {
            Some((_, rest)) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }
}
