//! Dense tables: label text escaped once, values beside it.

use std::borrow::Cow;
use std::collections::HashSet;

use super::Metric;
use crate::domain::{MAX_TEXT_CHARS, is_disguising};

/// Marks a value that is not there. No reader of the API gives a NaN, so no real value is lost to it.
pub(super) const ABSENT: f64 = f64::NAN;

/// The longest label value, in characters: what answers are cut to already, and everything else that becomes a label.
pub(super) const MAX_LABEL_CHARS: usize = MAX_TEXT_CHARS;

/// The label that every table starts with.
pub(super) const CUSTOMER_ID: &str = "customer_id";

/// A metric and where its value comes from in a row of type `R`.
pub struct Column<R: ?Sized> {
    /// The metric. Its labels are those of the shape.
    pub metric: Metric,
    /// The value of a row, `None` where the row has none.
    pub value: fn(&R) -> Option<f64>,
}

/// A label and where its value comes from in a row of type `R`.
pub struct Label<R: ?Sized> {
    /// The label's name.
    pub name: &'static str,
    /// The label's value; `None` leaves the label out, which to Prometheus is the same as an empty value.
    pub value: fn(&R) -> Option<Cow<'_, str>>,
}

/// A group of metrics that share their labels, over rows of type `R`.
pub struct Shape<R: ?Sized + 'static> {
    /// The labels after `customer_id`.
    pub labels: &'static [Label<R>],
    /// The metrics.
    pub columns: &'static [Column<R>],
}

impl<R> Shape<R> {
    /// The table of `rows` for a customer, and how many rows were left out because a row with equal labels was
    /// there already: of those the first counts. Collectors merge what can be merged before they come here.
    pub fn table(&self, customer_id: &str, rows: &[R]) -> (Table, u64) {
        let mut seen = HashSet::with_capacity(rows.len());
        let mut duplicates = 0;
        let mut table = Building::with_rows(rows.len(), self.columns.len());
        for row in rows {
            let mut labels = String::new();
            write_label(&mut labels, CUSTOMER_ID, customer_id);
            for label in self.labels {
                if let Some(value) = (label.value)(row) {
                    write_label(&mut labels, label.name, &value);
                }
            }
            if seen.contains(&labels) {
                duplicates += 1;
                continue;
            }
            table.push(&labels, self.columns.iter().map(|column| (column.value)(row)));
            seen.insert(labels);
        }
        (table.finish(), duplicates)
    }

    /// The metrics of the shape with their label names, for the catalogue.
    pub fn metrics(&self) -> ShapeMetrics {
        let labels: Vec<_> = std::iter::once(CUSTOMER_ID)
            .chain(self.labels.iter().map(|label| label.name))
            .collect();
        self.columns
            .iter()
            .map(|column| (column.metric, labels.clone()))
            .collect()
    }
}

/// The metrics of a shape, each with the names of its labels.
pub type ShapeMetrics = Vec<(Metric, Vec<&'static str>)>;

/// The samples of one record under one shape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    labels: Box<str>,
    ends: Box<[u32]>,
    values: Box<[f64]>,
    columns: usize,
}

impl Table {
    /// A table of one row whose labels are given as pairs.
    pub fn single(labels: &[(&str, &str)], values: &[Option<f64>]) -> Self {
        let mut text = String::new();
        for (name, value) in labels {
            write_label(&mut text, name, value);
        }
        let mut table = Building::with_rows(1, values.len());
        table.push(&text, values.iter().copied());
        table.finish()
    }

    /// A table of rows whose labels are given as pairs, each with a value per column.
    pub fn of(
        columns: usize,
        rows: impl IntoIterator<Item = (Vec<(&'static str, &'static str)>, Vec<Option<f64>>)>,
    ) -> Self {
        let mut table = Building::with_rows(0, columns);
        for (labels, values) in rows {
            let mut text = String::new();
            for (name, value) in labels {
                write_label(&mut text, name, value);
            }
            table.push(&text, values.into_iter());
        }
        table.finish()
    }

    /// How many rows it has.
    pub fn rows(&self) -> usize {
        self.ends.len()
    }

    /// The label text of a row, escaped, without braces.
    pub fn labels(&self, row: usize) -> Option<&str> {
        let end = *self.ends.get(row)? as usize;
        let start = match row.checked_sub(1) {
            Some(before) => *self.ends.get(before)? as usize,
            None => 0,
        };
        self.labels.get(start..end)
    }

    /// The value of a row under a column, `None` where it is absent.
    pub fn value(&self, row: usize, column: usize) -> Option<f64> {
        let value = *self.values.get(row * self.columns + column)?;
        (!value.is_nan()).then_some(value)
    }

    /// How many samples it holds.
    pub fn samples(&self) -> usize {
        self.values.iter().filter(|value| !value.is_nan()).count()
    }
}

struct Building {
    labels: String,
    ends: Vec<u32>,
    values: Vec<f64>,
    columns: usize,
}

impl Building {
    fn with_rows(rows: usize, columns: usize) -> Self {
        Self {
            labels: String::new(),
            ends: Vec::with_capacity(rows),
            values: Vec::with_capacity(rows * columns),
            columns,
        }
    }

    fn push(&mut self, labels: &str, values: impl Iterator<Item = Option<f64>>) {
        // A table of one answer stays far below 4 GiB of label text because answers are capped; a row that would
        // cross it is left out rather than given the wrong labels.
        let Ok(end) = u32::try_from(self.labels.len() + labels.len()) else {
            return;
        };
        self.labels.push_str(labels);
        self.ends.push(end);
        self.values
            .extend(values.map(|value| value.filter(|v| v.is_finite()).unwrap_or(ABSENT)));
    }

    fn finish(self) -> Table {
        Table {
            labels: self.labels.into_boxed_str(),
            ends: self.ends.into_boxed_slice(),
            values: self.values.into_boxed_slice(),
            columns: self.columns,
        }
    }
}

/// Appends `name="value"` to label text, after a comma where something stands already. The value is escaped for
/// both text formats, cut where it is longer than any honest one, and characters that could end or disguise a line are replaced.
pub fn write_label(text: &mut String, name: &str, value: &str) {
    if !text.is_empty() {
        text.push(',');
    }
    text.push_str(name);
    text.push_str("=\"");
    for (position, character) in value.chars().enumerate() {
        if position == MAX_LABEL_CHARS {
            text.push('…');
            break;
        }
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            disguising if is_disguising(disguising) => text.push(char::REPLACEMENT_CHARACTER),
            other => text.push(other),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    fn escaped(value: &str) -> String {
        let mut text = String::new();
        write_label(&mut text, "l", value);
        text
    }

    #[test]
    fn label_values_cannot_break_out() {
        assert_eq!(escaped("a\"} 0\nfake 1\\"), r#"l="a\"} 0\nfake 1\\""#);
        assert_eq!(escaped("a\0b\rc\u{202e}d"), "l=\"a\u{fffd}b\u{fffd}c\u{fffd}d\"");
    }

    #[test]
    fn label_values_are_bounded() {
        let text = escaped(&"é".repeat(1 << 20));
        assert_eq!(text.chars().count(), MAX_LABEL_CHARS + "l=\"…\"".chars().count());
    }

    struct Row(&'static str, Option<f64>);

    const SHAPE: Shape<Row> = Shape {
        labels: &[Label {
            name: "module",
            value: |row: &Row| Some(Cow::Borrowed(row.0)),
        }],
        columns: &[
            Column {
                metric: Metric::gauge("elements_a", "A"),
                value: |row: &Row| row.1,
            },
            Column {
                metric: Metric::gauge("elements_b", "B"),
                value: |_: &Row| Some(1.0),
            },
        ],
    };

    #[test]
    fn rows_keep_their_labels_and_absent_values() {
        let (table, duplicates) = SHAPE.table(
            "c1",
            &[
                Row("x", Some(2.5)),
                Row("y", None),
                Row("x", Some(9.0)),
                Row("z", Some(f64::INFINITY)),
            ],
        );
        assert_eq!(duplicates, 1);
        assert_eq!(table.rows(), 3);
        assert_eq!(table.labels(1).unwrap(), r#"customer_id="c1",module="y""#);
        assert_eq!(table.value(0, 0), Some(2.5));
        assert_eq!(table.value(1, 0), None);
        assert_eq!(table.value(1, 1), Some(1.0));
        assert_eq!(table.value(2, 0), None, "what is not finite is absent");
        assert_eq!(table.samples(), 4);
    }
}
