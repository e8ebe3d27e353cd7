//! Renders labels in both formats, parses the result, and compares it with the input.

use std::sync::Arc;

use elements_exporter::exposition::{Family, Filter, Format, Metric, Renderer, Source, Table};

use crate::parser::parse;
use crate::snapshot::snapshot;

const NAMES: [&str; 3] = ["customer_id", "organization", "module"];

const METRICS: [Metric; 3] = [
    Metric::gauge("elements_a", "A gauge"),
    Metric::counter("elements_b_total", "A counter"),
    Metric::info("elements_c_info", "An info"),
];

/// Checks an input: a value, followed by rows. Rows are separated by 0x01, and the label values in a row by NUL.
pub fn check(data: &[u8]) {
    let Some((number, rest)) = data.split_first_chunk::<8>() else {
        return;
    };
    let number = f64::from_le_bytes(*number);
    let text = String::from_utf8_lossy(rest);
    let mut rows: Vec<Vec<(&str, &str)>> = Vec::new();
    for row in text.split('\u{1}') {
        let row: Vec<(&str, &str)> = NAMES.into_iter().zip(row.split('\0')).collect();
        let sanitized: Vec<_> = row.iter().map(|(_, value)| sanitize_label(value)).collect();
        // Rows with equal labels would be the same series. Collectors merge such rows, but this target keeps only the
        // first.
        let is_duplicate = |other: &Vec<(&str, &str)>| {
            other.len() == row.len()
                && other
                    .iter()
                    .zip(&sanitized)
                    .all(|((_, value), sanitized)| sanitize_label(value) == *sanitized)
        };
        if !rows.iter().any(is_duplicate) {
            rows.push(row);
        }
    }
    let values = [Some(number), None, Some(1.0)];
    let records = || {
        rows.iter()
            .map(|row| -> Arc<[Table]> { Arc::new([Table::single(row, &values)]) })
    };
    let families: Arc<[Family]> = METRICS
        .into_iter()
        .enumerate()
        .map(|(column, metric)| Family {
            metric,
            sources: vec![Source {
                group: 0,
                shape: 0,
                column,
            }],
        })
        .collect();
    for format in [Format::Text, Format::OpenMetrics] {
        let mut renderer = Renderer::new(Arc::clone(&families), snapshot(records()), Filter::default(), format);
        let mut text = Vec::new();
        while let Some(frame) = renderer.next_frame() {
            text.extend_from_slice(&frame);
        }
        let text = String::from_utf8(text).expect("UTF-8");
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        let samples = parse(&text, format == Format::OpenMetrics);
        let samples_of = |name: &str| samples.iter().filter(|sample| sample.name == name).collect::<Vec<_>>();
        let numbers = samples_of("elements_a");
        assert_eq!(numbers.len(), if number.is_finite() { rows.len() } else { 0 });
        // Zero and minus zero compare as equal.
        assert!(
            numbers.iter().all(|sample| sample.value == number),
            "{number} in {text:?}"
        );
        assert!(
            samples_of("elements_b_total").is_empty(),
            "an absent value must stay absent"
        );
        let infos = samples_of("elements_c_info");
        assert_eq!(infos.len(), rows.len());
        for (sample, row) in infos.iter().zip(&rows) {
            let expected: Vec<_> = row
                .iter()
                .map(|(name, value)| ((*name).to_owned(), sanitize_label(value)))
                .collect();
            assert_eq!(sample.labels, expected);
        }
    }
}

/// Returns a value as it must appear in a label. A longer value is truncated to 256 characters and an ellipsis. Control
/// characters other than line feeds, line and paragraph separators, and bidirectional formatting characters are
/// replaced.
pub(crate) fn sanitize_label(value: &str) -> String {
    let mut sanitized: String = value
        .chars()
        .take(256)
        .map(|character| match u32::from(character) {
            0x0a => '\n',
            0x00..=0x1f | 0x7f..=0x9f | 0x2028..=0x202e | 0x2066..=0x2069 => '\u{fffd}',
            _ => character,
        })
        .collect();
    if value.chars().count() > 256 {
        sanitized.push('…');
    }
    sanitized
}
