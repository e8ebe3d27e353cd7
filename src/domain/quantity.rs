//! Counts, differences and sizes.

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use super::{Parsed, is_not_applicable, parse_present};

/// An `f64`, the type of every sample, represents all integers up to this one exactly.
const MAX_EXACT: u64 = 1 << 53;

/// Exclusive upper limit of sizes: 2^63 bytes (8 EiB), the end of the range of signed 64-bit integers.
const SIZE_END: f64 = 9_223_372_036_854_775_808.0;

/// Maximum number of decimal places of a size, not counting trailing zeros. With 20 decimal places, the product of the
/// fraction's digits and the largest unit is less than 10^20 × 2^60, which fits into a `u128`. With 21, the product
/// might not fit.
const MAX_DECIMALS: u32 = 20;

/// Number of digits between two thousands separators.
const GROUP: usize = 3;

/// Meaning of GB, which the reference does not define. KB, MB, TB, PB and EB are interpreted in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gigabyte {
    /// 2^30 bytes.
    #[default]
    Binary,
    /// 10^9 bytes.
    Decimal,
}

impl Gigabyte {
    const fn kilo(self) -> u64 {
        match self {
            Self::Binary => 1024,
            Self::Decimal => 1000,
        }
    }
}

/// A size in bytes, under either meaning of a gigabyte. Both values are stored, because the setting may change.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(from = "SavedSize", into = "SavedSize")]
pub struct Size {
    binary: f64,
    decimal: f64,
}

impl Size {
    /// Returns the size in bytes, given the meaning of a gigabyte.
    pub fn bytes(self, gigabyte: Gigabyte) -> f64 {
        match gigabyte {
            Gigabyte::Binary => self.binary,
            Gigabyte::Decimal => self.decimal,
        }
    }
}

/// A size as saved in the state file.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum SavedSize {
    /// A size that does not depend on `api.gigabyte`, or any size in an older state file. Sizes in older files depend
    /// on the setting with which they were saved.
    One(f64),
    Both {
        binary: f64,
        decimal: f64,
    },
}

impl From<SavedSize> for Size {
    fn from(saved: SavedSize) -> Self {
        match saved {
            SavedSize::One(bytes) => Self {
                binary: bytes,
                decimal: bytes,
            },
            SavedSize::Both { binary, decimal } => Self { binary, decimal },
        }
    }
}

impl From<Size> for SavedSize {
    fn from(Size { binary, decimal }: Size) -> Self {
        if binary.total_cmp(&decimal).is_eq() {
            Self::One(binary)
        } else {
            Self::Both { binary, decimal }
        }
    }
}

/// The purchased capacity of a subscription and, if the subscription is pooled, the used capacity.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Capacity {
    /// The left half of `0/1 GB`; `None` if there is no left half, or if it is `N/A`.
    pub used: Option<Size>,
    /// The right half, or the whole text if there is no slash; `None` if it is `N/A`.
    pub purchased: Option<Size>,
}

/// Parses a count: `0`, `2323`, `1,234`, `5.0`.
///
/// # Errors
///
/// Returns an error for anything else, such as a negative number, a fraction, an exponent or a misplaced thousands
/// separator, and for a count above 2^53, because samples cannot represent all such counts exactly.
pub fn count(text: &str) -> Parsed<u64> {
    parse_present(text, whole_number)
}

/// Parses a difference: `+5`, `-3` or `5`. U+2212 is also accepted as the minus sign.
///
/// # Errors
///
/// Returns an error if [`count`] rejects the number after the sign.
pub fn signed(text: &str) -> Parsed<i64> {
    parse_present(text, |text| {
        let (negative, magnitude) = match text.strip_prefix(['-', '\u{2212}']) {
            Some(magnitude) => (true, magnitude),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let magnitude = i64::try_from(whole_number(magnitude)?).ok()?;
        Some(if negative { -magnitude } else { magnitude })
    })
}

/// Parses a size, such as `0 GB`, `5.01 GB`, `1,234.5 mb`, `3 TiB` or `12 bytes`, and converts it to bytes, rounded
/// half up. KB to EB have two meanings; KiB to EiB are always binary.
///
/// The product of the number and the unit is computed exactly from the decimal digits of the text, and rounded to whole
/// bytes. Above 2^53 bytes, the result is the nearest `f64`.
///
/// # Errors
///
/// Returns an error for anything else, such as a negative size, a number other than 0 without a unit, a decimal comma,
/// or a size of 2^63 bytes or more under either meaning of the unit.
pub fn size(text: &str) -> Parsed<Size> {
    parse_present(text, |text| {
        let (number, unit) = split_unit(text);
        parse_size(number, unit)
    })
}

/// Parses a capacity: `12 GB`, or used and purchased capacity as in `0/1 GB` and `5 GB/1 TB`. A left half without a
/// unit has the unit of the right half.
///
/// # Errors
///
/// Returns an error if a half is neither a [`size`] nor `N/A`.
pub fn capacity(text: &str) -> Parsed<Capacity> {
    let capacity = parse_present(text, |text| {
        let (used, purchased) = halves(text).unwrap_or((super::NOT_APPLICABLE, text));
        let (_, unit) = split_unit(purchased);
        Some(Capacity {
            used: half(used, if is_not_applicable(purchased) { "" } else { unit })?,
            purchased: half(purchased, "")?,
        })
    })?;
    Ok(capacity.filter(|capacity| *capacity != Capacity::default()))
}

/// Parses one half of a capacity. A half without a unit is in `default_unit`. The outer `None` means that the half is
/// invalid.
fn half(text: &str, default_unit: &str) -> Option<Option<Size>> {
    if is_not_applicable(text) {
        return Some(None);
    }
    let (number, unit) = split_unit(text);
    let size = parse_size(number, if unit.is_empty() { default_unit } else { unit })?;
    Some(Some(size))
}

/// Returns the parts on both sides of the slash. The slash in a leading `N/A` does not count.
fn halves(text: &str) -> Option<(&str, &str)> {
    let (left, right) = match text.split_at_checked(super::NOT_APPLICABLE.len()) {
        Some((left, rest)) if is_not_applicable(left) => (left, rest.trim_start().strip_prefix('/')?),
        _ => text.split_once('/')?,
    };
    Some((left.trim_end(), right.trim_start()))
}

/// Splits text into a number and the rest, which should be a unit.
fn split_unit(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | ',')))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

fn parse_size(number: &str, unit: &str) -> Option<Size> {
    let number = Decimal::parse(number)?;
    let by = |gigabyte| {
        if unit.is_empty() {
            return number.is_zero().then_some(0.0);
        }
        let bytes = u64::try_from(number.times(unit_bytes(unit, gigabyte)?)?).ok()? as f64;
        (bytes < SIZE_END).then_some(bytes)
    };
    Some(Size {
        binary: by(Gigabyte::Binary)?,
        decimal: by(Gigabyte::Decimal)?,
    })
}

fn unit_bytes(unit: &str, gigabyte: Gigabyte) -> Option<u64> {
    let unit = unit.to_ascii_lowercase();
    if matches!(unit.as_str(), "b" | "byte" | "bytes") {
        return Some(1);
    }
    let mut letters = unit.chars();
    let power = match letters.next()? {
        'k' => 1,
        'm' => 2,
        'g' => 3,
        't' => 4,
        'p' => 5,
        'e' => 6,
        _ => return None,
    };
    let kilo = match letters.as_str() {
        "b" => gigabyte.kilo(),
        "ib" => Gigabyte::Binary.kilo(),
        _ => return None,
    };
    kilo.checked_pow(power)
}

fn whole_number(text: &str) -> Option<u64> {
    let number = Decimal::parse(text)?;
    (number.fraction.is_empty() && number.integer <= MAX_EXACT).then_some(number.integer)
}

/// A non-negative decimal number.
struct Decimal<'a> {
    integer: u64,
    /// The digits after the point, without trailing zeros.
    fraction: &'a str,
}

impl<'a> Decimal<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (integer, fraction) = match text.split_once('.') {
            Some((integer, fraction)) if is_digits(fraction) => (integer, fraction),
            Some(_) => return None,
            None => (text, ""),
        };
        Some(Self {
            integer: parse_integer(integer)?,
            fraction: fraction.trim_end_matches('0'),
        })
    }

    fn is_zero(&self) -> bool {
        self.integer == 0 && self.fraction.is_empty()
    }

    /// Returns the product, rounded half up to an integer; `None` on overflow or if there are too many decimal places.
    fn times(&self, factor: u64) -> Option<u128> {
        let factor = u128::from(factor);
        let integer = u128::from(self.integer).checked_mul(factor)?;
        if self.fraction.is_empty() {
            return Some(integer);
        }
        let decimals = u32::try_from(self.fraction.len())
            .ok()
            .filter(|decimals| *decimals <= MAX_DECIMALS)?;
        let scale = 10_u128.checked_pow(decimals)?;
        let fraction = self
            .fraction
            .parse::<u128>()
            .ok()?
            .checked_mul(factor)?
            .checked_add(scale / 2)?
            / scale;
        integer.checked_add(fraction)
    }
}

/// Parses plain digits, or digits with thousands separators, as in `1,234,567`. Rejects a first group that begins with
/// zero, as in `0,123`, because the comma is then a decimal separator.
fn parse_integer(text: &str) -> Option<u64> {
    let Some((first, others)) = text.split_once(',') else {
        return is_digits(text).then(|| text.parse().ok()).flatten();
    };
    let grouped = is_digits(first)
        && first.len() <= GROUP
        && !first.starts_with('0')
        && others.split(',').all(|group| group.len() == GROUP && is_digits(group));
    grouped.then(|| text.replace(',', "").parse().ok()).flatten()
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}
