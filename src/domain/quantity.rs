//! Counts, differences and sizes.

use super::{Parsed, is_not_applicable, understand};

/// Largest number up to which every whole number is one in an `f64`, the type of every sample.
const MAX_EXACT: u64 = 1 << 53;

/// Sizes end below this many bytes: 2^63 (8 EiB), where the signed 64-bit integers end in which storage is counted.
const SIZE_END: f64 = 9_223_372_036_854_775_808.0;

/// Most decimals of a size: 10^20 × 2^60 is the largest product with the largest unit that a `u128` holds.
const MAX_DECIMALS: u32 = 20;

/// Digits between two commas.
const GROUP: usize = 3;

/// What the API means by a GB; the reference does not say. Holds for KB, MB, TB, PB and EB alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Deserialize)]
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

/// A capacity in bytes, of which a pooled subscription also says how much is used.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Capacity {
    /// The left half of `0/1 GB`; `None` where there is no left half, or it is `N/A`.
    pub used: Option<f64>,
    /// The right half, or the whole where there is one only; `None` if it is `N/A`.
    pub purchased: Option<f64>,
}

/// Reads a count: `0`, `2323`, `1,234`, `5.0`.
///
/// # Errors
///
/// Anything else, as a negative number, a fraction, an exponent or a malformed group of thousands, and a count
/// above 2^53, which a sample could not show exactly.
pub fn count(text: &str) -> Parsed<u64> {
    understand(text, whole)
}

/// Reads a difference: `+5`, `-3`, `5`, also with U+2212 for the minus.
///
/// # Errors
///
/// As [`count`], of the number behind the sign.
pub fn signed(text: &str) -> Parsed<i64> {
    understand(text, |text| {
        let (negative, magnitude) = match text.strip_prefix(['-', '\u{2212}']) {
            Some(magnitude) => (true, magnitude),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let magnitude = i64::try_from(whole(magnitude)?).ok()?;
        Some(if negative { -magnitude } else { magnitude })
    })
}

/// Reads a size in bytes, rounded half up to a whole byte: `0 GB`, `5.01 GB`, `1,234.5 mb`, `3 TiB`, `12 bytes`.
/// `gigabyte` says what KB to EB mean; KiB to EiB are always binary.
///
/// The rounding is exact in the decimal digits of the text. Only a size above 2^53 bytes is the nearest `f64`.
///
/// # Errors
///
/// Anything else, as a negative size, a number without a unit (other than 0), a decimal comma, or 2^63 bytes and more.
pub fn size(text: &str, gigabyte: Gigabyte) -> Parsed<f64> {
    understand(text, |text| {
        let (number, unit) = split_unit(text);
        bytes(number, unit, gigabyte)
    })
}

/// Reads a capacity: `12 GB`, or used and purchased as in `0/1 GB` and `5 GB/1 TB`. The unit on the right holds for
/// a left half that has none.
///
/// # Errors
///
/// Where a half is neither a [`size`] nor `N/A`.
pub fn capacity(text: &str, gigabyte: Gigabyte) -> Parsed<Capacity> {
    let capacity = understand(text, |text| match halves(text) {
        Some((used, purchased)) => shared_capacity(used, purchased, gigabyte),
        None => {
            let (number, unit) = split_unit(text);
            Some(Capacity {
                used: None,
                purchased: Some(bytes(number, unit, gigabyte)?),
            })
        }
    })?;
    Ok(capacity.filter(|capacity| *capacity != Capacity::default()))
}

fn shared_capacity(used: &str, purchased: &str, gigabyte: Gigabyte) -> Option<Capacity> {
    let (number, purchased_unit) = split_unit(purchased);
    let purchased = if is_not_applicable(purchased) {
        None
    } else {
        Some(bytes(number, purchased_unit, gigabyte)?)
    };
    let used = if is_not_applicable(used) {
        None
    } else {
        let (number, unit) = split_unit(used);
        let unit = if unit.is_empty() && purchased.is_some() {
            purchased_unit
        } else {
            unit
        };
        Some(bytes(number, unit, gigabyte)?)
    };
    Some(Capacity { used, purchased })
}

/// The texts on both sides of the slash, which is not the slash of a leading `N/A`.
fn halves(text: &str) -> Option<(&str, &str)> {
    let (left, right) = match text.split_at_checked(super::NOT_APPLICABLE.len()) {
        Some((left, rest)) if is_not_applicable(left) => (left, rest.trim_start().strip_prefix('/')?),
        _ => text.split_once('/')?,
    };
    Some((left.trim_end(), right.trim_start()))
}

/// A number and the text behind it, which should be its unit.
fn split_unit(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | ',')))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

fn bytes(number: &str, unit: &str, gigabyte: Gigabyte) -> Option<f64> {
    let number = Decimal::parse(number)?;
    if unit.is_empty() {
        return number.is_zero().then_some(0.0);
    }
    let bytes = u64::try_from(number.times(unit_bytes(unit, gigabyte)?)?).ok()? as f64;
    (bytes < SIZE_END).then_some(bytes)
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

fn whole(text: &str) -> Option<u64> {
    let number = Decimal::parse(text)?;
    (number.fraction.is_empty() && number.integer <= MAX_EXACT).then_some(number.integer)
}

/// A number that is not negative, digit for digit.
struct Decimal<'a> {
    integer: u64,
    /// The digits behind the point, without the zeros at their end.
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

    /// The product, rounded half up to a whole number; `None` if there are too many decimals to tell.
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

/// Digits, or groups of thousands as in `1,234,567`. A first group of zero as in `0,123` is none: there the comma
/// stands for a decimal point.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

    use proptest::prelude::*;

    use super::super::NotUnderstood;
    use super::*;

    const GIB: f64 = 1_073_741_824.0;

    fn binary(text: &str) -> Parsed<f64> {
        size(text, Gigabyte::Binary)
    }

    fn decimal(text: &str) -> Parsed<f64> {
        size(text, Gigabyte::Decimal)
    }

    #[test]
    fn counts() {
        for (text, expected) in [
            ("0", 0),
            ("2323", 2323),
            (" 2323 ", 2323),
            ("\u{a0}7", 7),
            ("007", 7),
            ("1,234", 1234),
            ("12,345,678", 12_345_678),
            ("5.0", 5),
            ("2323.000", 2323),
            ("1,234.0", 1234),
            ("9007199254740992", 1 << 53),
        ] {
            assert_eq!(count(text), Ok(Some(expected)), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_count() {
        let texts = "-1 -0 +1 1e3 1e400 1E3 0x10 1,23 1,2345 ,123 1, 0,123 1234,567 1,234,56 1,,234 5.5 5. .5 \
            5.0.0 1.0,000 1_000 ٣ ９ NaN inf null true many 9007199254740993 18446744073709551616";
        for text in texts.split(' ').chain(["1 234"]) {
            assert_eq!(count(text), Err(NotUnderstood), "{text:?}");
        }
    }

    #[test]
    fn differences() {
        for (text, expected) in [
            ("+5", 5),
            ("-3", -3),
            ("\u{2212}3", -3),
            ("5", 5),
            ("0", 0),
            ("-0", 0),
            ("1,234", 1234),
            ("-1,234", -1234),
            ("-2.0", -2),
            ("-9007199254740992", -(1 << 53)),
        ] {
            assert_eq!(signed(text), Ok(Some(expected)), "{text:?}");
        }
        let others = "+-5 --5 5- + - -1.5 -9007199254740993 9007199254740993 -1e3 (5) \u{2013}5";
        for text in others.split(' ').chain(["- 5"]) {
            assert_eq!(signed(text), Err(NotUnderstood), "{text:?}");
        }
    }

    #[test]
    fn sizes_of_the_reference() {
        assert_eq!(binary("0 GB"), Ok(Some(0.0)));
        assert_eq!(binary("5.01 GB"), Ok(Some(5_379_446_538.0)));
        assert_eq!(decimal("5.01 GB"), Ok(Some(5_010_000_000.0)));
        assert_eq!(binary("3072 GB"), Ok(Some(3072.0 * GIB)));
        assert_eq!(decimal("3072 GB"), Ok(Some(3_072_000_000_000.0)));
    }

    #[test]
    fn every_unit() {
        for (text, in_binary, in_decimal) in [
            ("1 B", 1.0, 1.0),
            ("2 bytes", 2.0, 2.0),
            ("1 Byte", 1.0, 1.0),
            ("1 KB", 1024.0, 1e3),
            ("1 mb", 1_048_576.0, 1e6),
            ("1GB", GIB, 1e9),
            ("1\u{a0}Tb", 1024.0 * GIB, 1e12),
            ("1\tPB", 1_048_576.0 * GIB, 1e15),
            ("1 EB", GIB * GIB, 1e18),
            ("1 KiB", 1024.0, 1024.0),
            ("1 MIB", 1_048_576.0, 1_048_576.0),
            ("1gib", GIB, GIB),
            ("1 TiB", 1024.0 * GIB, 1024.0 * GIB),
            ("1 PiB", 1_048_576.0 * GIB, 1_048_576.0 * GIB),
            ("1 EiB", GIB * GIB, GIB * GIB),
        ] {
            assert_eq!(binary(text), Ok(Some(in_binary)), "{text:?}");
            assert_eq!(decimal(text), Ok(Some(in_decimal)), "{text:?}");
        }
    }

    #[test]
    fn sizes_round_half_up_to_a_byte() {
        assert_eq!(binary("0.5 B"), Ok(Some(1.0)));
        assert_eq!(binary("0.49999999999999999999 B"), Ok(Some(0.0)));
        assert_eq!(binary("0.0001 KB"), Ok(Some(0.0)));
        assert_eq!(decimal("0.0005 KB"), Ok(Some(1.0)));
        assert_eq!(binary("1,234.5 GB"), Ok(Some(1234.5 * GIB)));
        assert_eq!(binary("0.50000000000000000000000 GB"), Ok(Some(GIB / 2.0)));
    }

    #[test]
    fn zero_needs_no_unit() {
        assert_eq!(binary("0"), Ok(Some(0.0)));
        assert_eq!(binary("0.00"), Ok(Some(0.0)));
    }

    #[test]
    fn what_is_no_size() {
        for text in [
            "500",
            "0.1",
            "1,5 TB",
            "0,5 GB",
            "-1 GB",
            "\u{2212}1 GB",
            "+1 GB",
            "GB",
            "1e3 GB",
            "1e400 GB",
            "1 XB",
            "1 G",
            "1 GBB",
            "1 GiBB",
            "1 GB/s",
            "1 GB 2",
            "1 2 GB",
            "1 kilobyte",
            "5. GB",
            ".5 GB",
            "1.2.3 GB",
            "8 EiB",
            "9.3 EB",
            "7.99999999999999999999 EiB",
            "99999999999999999999 B",
            "0.123456789012345678901 GB",
            "infinity GB",
            "NaN",
            "1/2 GB",
            "N/A GB",
        ] {
            assert_eq!(binary(text), Err(NotUnderstood), "{text:?}");
        }
        assert_eq!(decimal("9.223372036854775807 EB"), Err(NotUnderstood));
    }

    #[test]
    fn capacities() {
        let both = |used: f64, purchased: f64| Capacity {
            used: Some(used),
            purchased: Some(purchased),
        };
        for (text, expected) in [
            ("0/1 GB", both(0.0, GIB)),
            ("1/2 GB", both(GIB, 2.0 * GIB)),
            ("0.5 / 1GB", both(GIB / 2.0, GIB)),
            ("5 GB/1 TB", both(5.0 * GIB, 1024.0 * GIB)),
            ("512 MB/0", both(GIB / 2.0, 0.0)),
            ("0/0", both(0.0, 0.0)),
            (
                "12 GB",
                Capacity {
                    used: None,
                    purchased: Some(12.0 * GIB),
                },
            ),
            (
                "N/A/1 GB",
                Capacity {
                    used: None,
                    purchased: Some(GIB),
                },
            ),
            (
                "n/a / 1 GB",
                Capacity {
                    used: None,
                    purchased: Some(GIB),
                },
            ),
            (
                "1 GB/N/A",
                Capacity {
                    used: Some(GIB),
                    purchased: None,
                },
            ),
        ] {
            assert_eq!(capacity(text, Gigabyte::Binary), Ok(Some(expected)), "{text:?}");
        }
        assert_eq!(capacity("N/A / n/a", Gigabyte::Binary), Ok(None));
        assert_eq!(capacity("1/2 GB", Gigabyte::Decimal), Ok(Some(both(1e9, 2e9))));
    }

    #[test]
    fn what_is_no_capacity() {
        for text in [
            "500", "5/0", "5/N/A", "0/500", "/1 GB", "1 GB/", "/", "1/2/3 GB", "1//2 GB", "N/A 1 GB", "-1/1 GB",
            "1,5/2 TB", "1/1 XB",
        ] {
            assert_eq!(capacity(text, Gigabyte::Binary), Err(NotUnderstood), "{text:?}");
        }
    }

    fn grouped(n: u64) -> String {
        let digits = n.to_string();
        let mut text = String::new();
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        text
    }

    proptest! {
        #[test]
        fn no_reader_panics(text in any::<String>()) {
            let _ = count(&text);
            let _ = signed(&text);
            let _ = size(&text, Gigabyte::Binary);
            let _ = capacity(&text, Gigabyte::Decimal);
        }

        #[test]
        fn a_count_has_the_digits_of_its_text(text in "[0-9]{1,4}([,.][0-9]{1,4}){0,3}") {
            if let Ok(Some(n)) = count(&text) {
                let integer = text.split('.').next().unwrap().replace(',', "");
                prop_assert_eq!(n.to_string(), match integer.trim_start_matches('0') {
                    "" => "0",
                    digits => digits,
                });
                prop_assert!(text.split('.').nth(1).unwrap_or("").bytes().all(|b| b == b'0'));
            }
        }

        #[test]
        fn a_count_survives_formatting(n in 0..=MAX_EXACT) {
            prop_assert_eq!(count(&n.to_string()), Ok(Some(n)));
            prop_assert_eq!(count(&grouped(n)), Ok(Some(n)));
            prop_assert_eq!(count(&format!(" {n}.00")), Ok(Some(n)));
        }

        #[test]
        fn a_difference_survives_formatting(n in -(1_i64 << 53)..=1 << 53) {
            prop_assert_eq!(signed(&n.to_string()), Ok(Some(n)));
            prop_assert_eq!(signed(&format!("{n:+}")), Ok(Some(n)));
        }

        #[test]
        fn a_size_is_the_nearest_whole_byte(
            integer in 0_u64..10_000_000,
            fraction in "[0-9]{1,8}",
            power in 0_usize..=6,
            gigabyte in prop_oneof![Just(Gigabyte::Binary), Just(Gigabyte::Decimal)],
        ) {
            let name = ["B", "KB", "MB", "GB", "TB", "PB", "EB"][power];
            let text = format!("{integer}.{fraction} {name}");
            let unit = match gigabyte {
                Gigabyte::Binary => 1_u128 << (10 * power),
                Gigabyte::Decimal => 1000_u128.pow(u32::try_from(power).unwrap()),
            };
            // Nearest, stated as an inequality over the undivided integers: half up from below, less than half from above.
            let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap());
            let doubled = 2 * unit * format!("{integer}{fraction}").parse::<u128>().unwrap();
            match size(&text, gigabyte) {
                Ok(Some(bytes)) if bytes <= MAX_EXACT as f64 => {
                    let bytes = format!("{bytes:.0}").parse::<u128>().unwrap();
                    prop_assert!(2 * bytes * scale <= doubled + scale);
                    prop_assert!(doubled < 2 * bytes * scale + scale);
                }
                Ok(Some(bytes)) => {
                    let exact = doubled / 2 / scale;
                    let bytes = format!("{bytes:.0}").parse::<u128>().unwrap();
                    prop_assert!(bytes.abs_diff(exact) <= (exact >> 53) + 1);
                    prop_assert!(bytes < 1 << 63);
                }
                Ok(None) => prop_assert!(false, "absent"),
                Err(NotUnderstood) => prop_assert!(doubled / 2 / scale >= (1 << 63) - (1 << 10)),
            }
        }

        #[test]
        fn a_capacity_is_its_two_sizes(used in 0_u32..9999, purchased in 0_u32..9999) {
            let shared = capacity(&format!("{used}/{purchased} GB"), Gigabyte::Binary);
            let apart = capacity(&format!("{used} GB/{purchased} GB"), Gigabyte::Binary);
            prop_assert_eq!(shared, apart);
            prop_assert_eq!(shared, Ok(Some(Capacity {
                used: Some(f64::from(used) * GIB),
                purchased: Some(f64::from(purchased) * GIB),
            })));
        }
    }
}
