//! A reader over the rest of a text.

use std::ops::RangeInclusive;

/// Digits of a fraction of a second that are read: down to the nanosecond.
const FRACTION_DIGITS: usize = 9;

/// What is left of a text. A step that finds what it looks for goes past it; another leaves the text as it was.
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

    /// Goes past white space; says whether there was any.
    pub(super) fn spaces(&mut self) -> bool {
        let rest = self.rest.trim_start();
        let found = rest.len() < self.rest.len();
        self.rest = rest;
        found
    }

    /// All digits up to the next other character, if there are as many as `lengths` allows.
    pub(super) fn digits(&mut self, lengths: RangeInclusive<usize>) -> Option<&'a str> {
        let length = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self
            .rest
            .split_at_checked(length)
            .filter(|_| lengths.contains(&length))?;
        self.rest = rest;
        Some(digits)
    }

    /// The number that all digits up to the next other character make.
    pub(super) fn number<T: std::str::FromStr>(&mut self, lengths: RangeInclusive<usize>) -> Option<T> {
        self.digits(lengths)?.parse().ok()
    }

    /// A number of exactly two digits below 60: minutes or seconds.
    pub(super) fn sixtieth(&mut self) -> Option<u32> {
        self.number(2..=2).filter(|n| *n < 60)
    }

    /// The nanoseconds of a point and one to nine digits; 0 where there is no point.
    pub(super) fn fraction(&mut self) -> Option<u32> {
        if !self.eat('.') {
            return Some(0);
        }
        let digits = self.digits(1..=FRACTION_DIGITS)?;
        format!("{digits:0<FRACTION_DIGITS$}").parse().ok()
    }

    /// All ASCII letters up to the next other character; may be none.
    pub(super) fn letters(&mut self) -> &'a str {
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(self.rest.len());
        let (letters, rest) = self.rest.split_at(end);
        self.rest = rest;
        letters
    }

    /// Goes past a word of ASCII letters in any case.
    pub(super) fn eat_word(&mut self, expected: &str) -> bool {
        let before = self.rest;
        let found = self.letters().eq_ignore_ascii_case(expected);
        if !found {
            self.rest = before;
        }
        found
    }
}
