use proptest::prelude::*;

use super::super::{InvalidValue, grouped};
use super::*;

const GIB: f64 = 1_073_741_824.0;

fn by(text: &str, gigabyte: Gigabyte) -> Parsed<f64> {
    size(text).map(|size| size.map(|size| size.bytes(gigabyte)))
}

fn binary(text: &str) -> Parsed<f64> {
    by(text, Gigabyte::Binary)
}

fn decimal(text: &str) -> Parsed<f64> {
    by(text, Gigabyte::Decimal)
}

/// Returns the used and the purchased size.
fn halves_of(text: &str, gigabyte: Gigabyte) -> Parsed<(Option<f64>, Option<f64>)> {
    let halves =
        |capacity: Capacity| [capacity.used, capacity.purchased].map(|half| half.map(|size| size.bytes(gigabyte)));
    capacity(text).map(|capacity| capacity.map(halves).map(<(Option<f64>, Option<f64>)>::from))
}

#[test]
fn size_is_saved_and_restored() {
    for text in ["5.01 GB", "3 TiB", "0", "8 EB", "12 bytes"] {
        let size = size(text).ok().flatten();
        let saved = serde_json::to_string(&size).unwrap();
        assert_eq!(serde_json::from_str::<Option<Size>>(&saved).unwrap(), size, "{saved}");
    }
    // Older state files contain a single size, which depends on the setting with which they were saved.
    let old: Size = serde_json::from_str("1073741824.0").unwrap();
    assert_eq!(
        [Gigabyte::Binary, Gigabyte::Decimal].map(|gigabyte| old.bytes(gigabyte)),
        [GIB; 2]
    );
}

#[test]
fn counts_are_parsed() {
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
fn invalid_counts_are_rejected() {
    let texts = "-1 -0 +1 1e3 1e400 1E3 0x10 1,23 1,2345 ,123 1, 0,123 1234,567 1,234,56 1,,234 5.5 5. .5 \
        5.0.0 1.0,000 1_000 ٣ ９ NaN inf null true many 9007199254740993 18446744073709551616";
    for text in texts.split(' ').chain(["1 234"]) {
        assert_eq!(count(text), Err(InvalidValue), "{text:?}");
    }
}

#[test]
fn signed_differences_are_parsed() {
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
        assert_eq!(signed(text), Err(InvalidValue), "{text:?}");
    }
}

#[test]
fn sizes_in_the_reference_are_parsed() {
    assert_eq!(binary("0 GB"), Ok(Some(0.0)));
    assert_eq!(binary("5.01 GB"), Ok(Some(5_379_446_538.0)));
    assert_eq!(decimal("5.01 GB"), Ok(Some(5_010_000_000.0)));
    assert_eq!(binary("3072 GB"), Ok(Some(3072.0 * GIB)));
    assert_eq!(decimal("3072 GB"), Ok(Some(3_072_000_000_000.0)));
}

#[test]
fn units_of_sizes_are_parsed() {
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
fn sizes_are_rounded_half_up_to_a_byte() {
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
fn invalid_sizes_are_rejected() {
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
        assert_eq!(binary(text), Err(InvalidValue), "{text:?}");
    }
    assert_eq!(decimal("9.223372036854775807 EB"), Err(InvalidValue));
}

#[test]
fn capacities_are_parsed() {
    let both = |used: f64, purchased: f64| (Some(used), Some(purchased));
    for (text, expected) in [
        ("0/1 GB", both(0.0, GIB)),
        ("1/2 GB", both(GIB, 2.0 * GIB)),
        ("0.5 / 1GB", both(GIB / 2.0, GIB)),
        ("5 GB/1 TB", both(5.0 * GIB, 1024.0 * GIB)),
        ("512 MB/0", both(GIB / 2.0, 0.0)),
        ("0/0", both(0.0, 0.0)),
        ("12 GB", (None, Some(12.0 * GIB))),
        ("N/A/1 GB", (None, Some(GIB))),
        ("n/a / 1 GB", (None, Some(GIB))),
        ("1 GB/N/A", (Some(GIB), None)),
    ] {
        assert_eq!(halves_of(text, Gigabyte::Binary), Ok(Some(expected)), "{text:?}");
    }
    assert_eq!(capacity("N/A / n/a"), Ok(None));
    assert_eq!(halves_of("1/2 GB", Gigabyte::Decimal), Ok(Some(both(1e9, 2e9))));
}

#[test]
fn invalid_capacities_are_rejected() {
    for text in [
        "500", "5/0", "5/N/A", "0/500", "/1 GB", "1 GB/", "/", "1/2/3 GB", "1//2 GB", "N/A 1 GB", "-1/1 GB",
        "1,5/2 TB", "1/1 XB",
    ] {
        assert_eq!(capacity(text), Err(InvalidValue), "{text:?}");
    }
}

proptest! {
    #[test]
    fn parsers_do_not_panic(text in any::<String>()) {
        let _ = count(&text);
        let _ = signed(&text);
        let _ = size(&text);
        let _ = capacity(&text);
    }

    #[test]
    fn count_has_the_digits_of_its_text(text in "[0-9]{1,4}([,.][0-9]{1,4}){0,3}") {
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
    fn count_is_formatted_and_parsed(n in 0..=MAX_EXACT) {
        prop_assert_eq!(count(&n.to_string()), Ok(Some(n)));
        prop_assert_eq!(count(&grouped(n)), Ok(Some(n)));
        prop_assert_eq!(count(&format!(" {n}.00")), Ok(Some(n)));
    }

    #[test]
    fn difference_is_formatted_and_parsed(n in -(1_i64 << 53)..=1 << 53) {
        prop_assert_eq!(signed(&n.to_string()), Ok(Some(n)));
        prop_assert_eq!(signed(&format!("{n:+}")), Ok(Some(n)));
    }

    #[test]
    fn size_is_the_nearest_whole_byte(
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
        // Checks without division that the result is the nearest byte: it is at most half a byte above the exact value,
        // and less than half a byte below it.
        let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap());
        let doubled = 2 * unit * format!("{integer}{fraction}").parse::<u128>().unwrap();
        match by(&text, gigabyte) {
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
            Ok(None) => prop_assert!(false, "{} must not be absent", text),
            Err(InvalidValue) => {
                let binary = (doubled / unit) << (10 * power);
                prop_assert!(binary / 2 / scale >= (1 << 63) - (1 << 10));
            }
        }
    }

    #[test]
    fn capacity_is_its_two_sizes(used in 0_u32..9999, purchased in 0_u32..9999) {
        let shared = capacity(&format!("{used}/{purchased} GB"));
        let apart = capacity(&format!("{used} GB/{purchased} GB"));
        prop_assert_eq!(shared, apart);
        let halves = halves_of(&format!("{used}/{purchased} GB"), Gigabyte::Binary);
        prop_assert_eq!(halves, Ok(Some((Some(f64::from(used) * GIB), Some(f64::from(purchased) * GIB)))));
    }
}
