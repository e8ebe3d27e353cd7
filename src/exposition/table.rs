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
        let mut table = Building::with_rows(rows.len(), self.columns.len());
        write_label(&mut table.labels, CUSTOMER_ID, customer_id);
        table.begin_rows();
        for row in rows {
            for label in self.labels {
                if let Some(value) = (label.value)(row) {
                    write_label(&mut table.labels, label.name, &value);
                }
            }
            table.end_row(self.columns.iter().map(|column| (column.value)(row)));
        }
        let duplicates = table.drop_duplicates();
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
///
/// A scrape walks column by column, so values lie in that order. What all rows begin with, which is their customer,
/// stands once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Label text, escaped: first what all rows begin with, then the rest of each row.
    labels: Box<str>,
    /// Where in it the common beginning ends, and then each row.
    ends: Box<[u32]>,
    /// The values, column after column.
    values: Box<[f64]>,
}

impl Table {
    /// A table of one row whose labels are given as pairs.
    pub fn single(labels: &[(&str, &str)], values: &[Option<f64>]) -> Self {
        let mut table = Building::with_rows(1, values.len());
        table.begin_rows();
        for (name, value) in labels {
            write_label(&mut table.labels, name, value);
        }
        table.end_row(values.iter().copied());
        table.finish()
    }

    /// A table of rows whose labels are given as pairs, each with a value per column.
    pub fn of(
        columns: usize,
        rows: impl IntoIterator<Item = (Vec<(&'static str, &'static str)>, Vec<Option<f64>>)>,
    ) -> Self {
        let mut table = Building::with_rows(0, columns);
        table.begin_rows();
        for (labels, values) in rows {
            let mut text = String::new();
            for (name, value) in labels {
                write_label(&mut text, name, value);
            }
            table.labels.push_str(&text);
            table.end_row(values.into_iter());
        }
        table.finish()
    }

    /// How many rows it has.
    pub fn rows(&self) -> usize {
        self.ends.len().saturating_sub(1)
    }

    /// The label text that all rows begin with.
    pub fn head(&self) -> &str {
        let end = self.ends.first().copied().unwrap_or_default() as usize;
        self.labels.get(..end).unwrap_or_default()
    }

    /// The label text of a row after the common beginning.
    pub fn labels(&self, row: usize) -> Option<&str> {
        let start = *self.ends.get(row)? as usize;
        let end = *self.ends.get(row + 1)? as usize;
        self.labels.get(start..end)
    }

    /// The value of a row under a column, `None` where it is absent.
    pub fn value(&self, row: usize, column: usize) -> Option<f64> {
        let value = *self.column(column).get(row)?;
        (!value.is_nan()).then_some(value)
    }

    /// The values of a column, row by row; NaN where there is none.
    pub(super) fn column(&self, column: usize) -> &[f64] {
        let rows = self.rows();
        let start = column.saturating_mul(rows);
        self.values.get(start..start.saturating_add(rows)).unwrap_or_default()
    }

    /// Label text and value of the rows from `first` on that have a value under a column.
    pub(super) fn samples_of(&self, column: usize, first: usize) -> impl Iterator<Item = (usize, &str, f64)> {
        let values = self.column(column).get(first..).unwrap_or_default();
        let ends = self.ends.get(first..).unwrap_or_default();
        let rows = values.iter().zip(ends.windows(2)).enumerate();
        rows.filter(|(_, (value, _))| !value.is_nan())
            .filter_map(move |(row, (value, ends))| {
                let &[start, end] = ends else { return None };
                Some((first + row, self.labels.get(start as usize..end as usize)?, *value))
            })
    }

    /// How many samples it holds.
    pub fn samples(&self) -> usize {
        self.values.iter().filter(|value| !value.is_nan()).count()
    }
}

/// A table that is being built, row by row.
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
            ends: Vec::with_capacity(rows + 1),
            values: Vec::with_capacity(rows * columns),
            columns,
        }
    }

    /// Ends what all rows begin with.
    fn begin_rows(&mut self) {
        self.ends.push(u32::try_from(self.labels.len()).unwrap_or(0));
    }

    /// Ends a row whose labels were written.
    fn end_row(&mut self, values: impl Iterator<Item = Option<f64>>) {
        // A table of one answer stays far below 4 GiB of label text because answers are capped; a row that would
        // cross it is left out rather than given the wrong labels.
        let Ok(end) = u32::try_from(self.labels.len()) else {
            self.labels
                .truncate(self.ends.last().copied().unwrap_or_default() as usize);
            return;
        };
        self.ends.push(end);
        self.values
            .extend(values.map(|value| value.filter(|v| v.is_finite()).unwrap_or(ABSENT)));
    }

    /// Leaves out the rows whose labels an earlier one has, and says how many.
    fn drop_duplicates(&mut self) -> u64 {
        let text = |ends: &[u32]| match *ends {
            [start, end] => self.labels.get(start as usize..end as usize).unwrap_or_default(),
            _ => "",
        };
        let mut seen = HashSet::with_capacity(self.ends.len());
        let fresh: Vec<bool> = self.ends.windows(2).map(|ends| seen.insert(text(ends))).collect();
        let duplicates = fresh.iter().filter(|fresh| !**fresh).count();
        if duplicates > 0 {
            let head = self.ends.first().copied().unwrap_or_default();
            let mut kept = Self::with_rows(fresh.len() - duplicates, self.columns);
            kept.labels
                .push_str(self.labels.get(..head as usize).unwrap_or_default());
            kept.begin_rows();
            let rows = self.ends.windows(2).zip(self.values.chunks(self.columns.max(1)));
            for ((ends, values), _) in rows.zip(&fresh).filter(|(_, fresh)| **fresh) {
                kept.labels.push_str(text(ends));
                kept.end_row(values.iter().copied().map(Some));
            }
            *self = kept;
        }
        u64::try_from(duplicates).unwrap_or(u64::MAX)
    }

    fn finish(self) -> Table {
        let columns = self.columns.max(1);
        let mut values = Vec::with_capacity(self.values.len());
        for column in 0..columns {
            values.extend(self.values.iter().skip(column).step_by(columns));
        }
        Table {
            values: values.into_boxed_slice(),
            labels: self.labels.into_boxed_str(),
            ends: self.ends.into_boxed_slice(),
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
        assert_eq!(
            (table.head(), table.labels(1).unwrap()),
            (r#"customer_id="c1""#, r#",module="y""#)
        );
        assert_eq!(table.value(0, 0), Some(2.5));
        assert_eq!(table.value(1, 0), None);
        assert_eq!(table.value(1, 1), Some(1.0));
        assert_eq!(table.value(2, 0), None, "what is not finite is absent");
        assert_eq!(table.samples(), 4);
    }
}
