//! Dense tables of escaped label text and values.

use std::collections::HashSet;

use super::{ExcludedMetrics, Metric};
use crate::domain::{MAX_TEXT_CHARS, is_misleading};

/// Placeholder for an absent value. NaN is unambiguous, because values that are not finite are treated as absent.
pub(super) const ABSENT: f64 = f64::NAN;

/// Maximum length of a label value, in characters. A longer value is truncated, and `…` is appended.
pub(super) const MAX_LABEL_CHARS: usize = MAX_TEXT_CHARS;

/// The first label in every table of a customer.
pub(super) const CUSTOMER_ID: &str = "customer_id";

/// A metric, and a function that computes its value from a row of type `R`.
pub struct Column<R: ?Sized> {
    /// The metric. It has the labels of the shape.
    pub metric: Metric,
    /// Returns the value of a row; `None` if it is absent.
    pub value: fn(&R) -> Option<f64>,
}

/// A label, and a function that computes its value from a row of type `R`.
pub struct Label<R: ?Sized> {
    /// The label's name.
    pub name: &'static str,
    /// Returns the label's value; `None` omits the label, which Prometheus treats like an empty value.
    pub value: fn(&R) -> Option<&str>,
}

/// Returns a label of a shape.
pub const fn label<R: ?Sized>(name: &'static str, value: fn(&R) -> Option<&str>) -> Label<R> {
    Label { name, value }
}

/// Returns a column of a shape.
pub const fn column<R: ?Sized>(metric: Metric, value: fn(&R) -> Option<f64>) -> Column<R> {
    Column { metric, value }
}

/// Returns a gauge that describes the present.
pub const fn gauge<R>(name: &'static str, help: &'static str, value: fn(&R) -> Option<f64>) -> Column<R> {
    column(Metric::gauge(name, help), value)
}

/// Returns a gauge whose value is a Unix time. Such a value remains true while polls fail.
pub const fn timestamp<R>(name: &'static str, help: &'static str, value: fn(&R) -> Option<f64>) -> Column<R> {
    column(Metric::timestamp(name, help), value)
}

/// Returns a counter.
pub const fn counter<R>(name: &'static str, help: &'static str, value: fn(&R) -> Option<f64>) -> Column<R> {
    column(Metric::counter(name, help), value)
}

/// Returns an info metric: its value is always 1, and its labels contain the information.
pub const fn info<R>(name: &'static str, help: &'static str) -> Column<R> {
    column(Metric::info(name, help), |_| Some(1.0))
}

impl<R: ?Sized> Column<R> {
    /// Exempts the metric's series from `stale_after`.
    #[must_use]
    pub const fn dated(self) -> Self {
        column(self.metric.dated(), self.value)
    }

    /// Marks the metric as experimental.
    #[must_use]
    pub const fn experimental(self) -> Self {
        column(self.metric.experimental(), self.value)
    }
}

/// A group of metrics that have the same labels and are computed from rows of type `R`.
pub struct Shape<R: ?Sized + 'static> {
    /// The labels, except `customer_id`, which precedes them in tables of customers.
    pub labels: &'static [Label<R>],
    /// Metrics of the shape.
    pub columns: &'static [Column<R>],
}

impl<R> Shape<R> {
    /// Returns the table of `rows` for a customer. If several rows have the same labels, only the first is included.
    pub fn table(&self, customer_id: &str, rows: &[R]) -> ShapeTable {
        let mut table = self.fill(Some(customer_id), rows);
        let duplicates = table.drop_duplicates();
        ShapeTable {
            table: table.finish(),
            duplicates,
        }
    }

    /// Returns the table of `rows` without a customer label.
    pub fn table_without_customer(&self, rows: &[R]) -> Table {
        self.fill(None, rows).finish()
    }

    fn fill(&self, customer_id: Option<&str>, rows: &[R]) -> TableBuilder {
        let mut table = TableBuilder::with_rows(rows.len(), self.columns.len());
        if let Some(customer_id) = customer_id {
            write_label(&mut table.labels, CUSTOMER_ID, customer_id);
        }
        table.end_head();
        for row in rows {
            let mut is_first = customer_id.is_none();
            for label in self.labels {
                if let Some(value) = (label.value)(row) {
                    if !is_first {
                        table.labels.push(',');
                    }
                    is_first = false;
                    write_pair(&mut table.labels, label.name, value);
                }
            }
            table.end_row(self.columns.iter().map(|column| (column.value)(row)));
        }
        table
    }

    /// Returns the metrics of the shape with their label names, for the catalogue.
    pub fn metrics(&self) -> ShapeMetrics {
        self.metrics_with(&[CUSTOMER_ID])
    }

    /// Same as [`Shape::metrics`], but without the customer label.
    pub fn metrics_without_customer(&self) -> ShapeMetrics {
        self.metrics_with(&[])
    }

    fn metrics_with(&self, first: &[&'static str]) -> ShapeMetrics {
        let labels = self.labels.iter().map(|label| label.name);
        let labels: Vec<_> = first.iter().copied().chain(labels).collect();
        self.columns
            .iter()
            .map(|column| (column.metric, labels.clone()))
            .collect()
    }
}

/// The metrics of a shape, each with its label names.
pub type ShapeMetrics = Vec<(Metric, Vec<&'static str>)>;

/// Receives the shapes of a record, each with its rows.
pub trait ShapeSink {
    /// Adds a shape with its rows.
    fn add<R: 'static>(&mut self, shape: &Shape<R>, rows: &[R]);
}

/// Lists the metrics of the shapes.
impl ShapeSink for Vec<ShapeMetrics> {
    fn add<R: 'static>(&mut self, shape: &Shape<R>, _rows: &[R]) {
        self.push(shape.metrics());
    }
}

/// The tables of a customer's record, one per shape. Excluded metrics have no values, so that they never count as
/// series.
#[derive(Debug)]
pub struct CustomerTables<'a> {
    customer_id: &'a str,
    excluded: &'a ExcludedMetrics,
    /// The tables.
    pub tables: Vec<Table>,
    /// Number of rows that were dropped because an earlier row of their table has the same labels.
    pub duplicates: u64,
}

impl<'a> CustomerTables<'a> {
    /// Returns an empty list of tables for a customer.
    pub fn new(customer_id: &'a str, excluded: &'a ExcludedMetrics) -> Self {
        Self {
            customer_id,
            excluded,
            tables: Vec::new(),
            duplicates: 0,
        }
    }
}

impl ShapeSink for CustomerTables<'_> {
    fn add<R: 'static>(&mut self, shape: &Shape<R>, rows: &[R]) {
        let ShapeTable { mut table, duplicates } = shape.table(self.customer_id, rows);
        let columns = shape.columns.iter().enumerate();
        for (position, _) in columns.filter(|(_, column)| self.excluded.contains(&column.metric)) {
            table.clear_column(position);
        }
        self.tables.push(table);
        self.duplicates += duplicates;
    }
}

/// The table of a shape.
#[derive(Debug)]
pub struct ShapeTable {
    /// Samples of the rows.
    pub table: Table,
    /// Number of rows that were dropped because an earlier row has the same labels.
    pub duplicates: u64,
}

/// The samples of one record, for one shape.
///
/// Values are stored by column, because scrapes iterate over columns. In a customer's table, all rows start with the
/// same label text, which identifies the customer and is stored only once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Escaped label text: first the common start of all rows, and then the rest of each row.
    labels: Box<str>,
    /// Offset in the label text at which the common start ends, followed by the end offset of each row.
    ends: Box<[u32]>,
    /// The values, column by column.
    values: Box<[f64]>,
}

impl Table {
    /// Returns a table with one row.
    pub fn single(labels: &[(&str, &str)], values: &[Option<f64>]) -> Self {
        let mut table = TableBuilder::with_rows(1, values.len());
        table.end_head();
        for (name, value) in labels {
            write_label(&mut table.labels, name, value);
        }
        table.end_row(values.iter().copied());
        table.finish()
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.ends.len().saturating_sub(1)
    }

    /// Returns the label text that all rows start with.
    pub fn head(&self) -> &str {
        let end = self.ends.first().copied().unwrap_or_default() as usize;
        self.labels.get(..end).unwrap_or_default()
    }

    /// Returns the label text of a row after the common start.
    pub fn labels(&self, row: usize) -> Option<&str> {
        let start = *self.ends.get(row)? as usize;
        let end = *self.ends.get(row + 1)? as usize;
        self.labels.get(start..end)
    }

    /// Returns the value of a row in a column; `None` if it is absent.
    pub fn value(&self, row: usize, column: usize) -> Option<f64> {
        let value = *self.column(column).get(row)?;
        (!value.is_nan()).then_some(value)
    }

    /// Returns the values of a column by row; NaN if absent.
    pub(super) fn column(&self, column: usize) -> &[f64] {
        let rows = self.rows();
        let start = column.saturating_mul(rows);
        self.values.get(start..start.saturating_add(rows)).unwrap_or_default()
    }

    /// Returns the samples of a column, beginning with the row `first`. Each consists of the row's index, label text
    /// and value. Rows without a value are skipped.
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

    /// Removes the values of a column.
    fn clear_column(&mut self, column: usize) {
        let rows = self.rows();
        let start = column.saturating_mul(rows);
        if let Some(values) = self.values.get_mut(start..start.saturating_add(rows)) {
            values.fill(ABSENT);
        }
    }

    /// Returns the number of samples.
    pub fn samples(&self) -> usize {
        self.values.iter().filter(|value| !value.is_nan()).count()
    }
}

/// A table under construction.
struct TableBuilder {
    labels: String,
    ends: Vec<u32>,
    values: Vec<f64>,
    columns: usize,
}

impl TableBuilder {
    fn with_rows(rows: usize, columns: usize) -> Self {
        Self {
            labels: String::new(),
            ends: Vec::with_capacity(rows + 1),
            values: Vec::with_capacity(rows * columns),
            columns,
        }
    }

    /// Ends the label text that all rows start with.
    fn end_head(&mut self) {
        self.ends.push(u32::try_from(self.labels.len()).unwrap_or(0));
    }

    /// Ends a row whose labels have been written, and adds its values.
    fn end_row(&mut self, values: impl Iterator<Item = Option<f64>>) {
        // The size of API responses is limited, so the label text is far smaller than 4 GiB. If the end of a row did
        // not fit into a `u32`, the row would be dropped, because its labels would be wrong.
        let Ok(end) = u32::try_from(self.labels.len()) else {
            self.labels
                .truncate(self.ends.last().copied().unwrap_or_default() as usize);
            return;
        };
        self.ends.push(end);
        self.values
            .extend(values.map(|value| value.filter(|v| v.is_finite()).unwrap_or(ABSENT)));
    }

    /// Drops rows that have the same labels as an earlier row, and returns their number.
    fn drop_duplicates(&mut self) -> u64 {
        let text = |ends: &[u32]| match *ends {
            [start, end] => self.labels.get(start as usize..end as usize).unwrap_or_default(),
            _ => "",
        };
        let mut seen = HashSet::with_capacity(self.ends.len());
        let is_first: Vec<bool> = self.ends.windows(2).map(|ends| seen.insert(text(ends))).collect();
        let duplicates = is_first.iter().filter(|is_first| !**is_first).count();
        if duplicates > 0 {
            let head = self.ends.first().copied().unwrap_or_default();
            let mut unique = Self::with_rows(is_first.len() - duplicates, self.columns);
            unique
                .labels
                .push_str(self.labels.get(..head as usize).unwrap_or_default());
            unique.end_head();
            let rows = self.ends.windows(2).zip(self.values.chunks(self.columns.max(1)));
            for ((ends, values), _) in rows.zip(&is_first).filter(|(_, is_first)| **is_first) {
                unique.labels.push_str(text(ends));
                unique.end_row(values.iter().copied().map(Some));
            }
            *self = unique;
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

/// Converts a count to a sample value; returns `None` above `u32::MAX`, so that the value is always exact.
pub fn exact(count: usize) -> Option<f64> {
    u32::try_from(count).ok().map(f64::from)
}

/// Appends `name="value"` to label text, after a comma unless it is the first label. The value is escaped for both text
/// formats and truncated to the maximum length. Misleading characters are replaced.
pub fn write_label(text: &mut String, name: &str, value: &str) {
    if !text.is_empty() {
        text.push(',');
    }
    write_pair(text, name, value);
}

fn write_pair(text: &mut String, name: &str, value: &str) {
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
            misleading if is_misleading(misleading) => text.push(char::REPLACEMENT_CHARACTER),
            other => text.push(other),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(value: &str) -> String {
        let mut text = String::new();
        write_label(&mut text, "l", value);
        text
    }

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(escaped("a\"} 0\nfake 1\\"), r#"l="a\"} 0\nfake 1\\""#);
        assert_eq!(escaped("a\0b\rc\u{202e}d"), "l=\"a\u{fffd}b\u{fffd}c\u{fffd}d\"");
    }

    #[test]
    fn label_values_are_limited() {
        let text = escaped(&"é".repeat(1 << 20));
        assert_eq!(text.chars().count(), MAX_LABEL_CHARS + "l=\"…\"".chars().count());
    }

    struct Row(&'static str, Option<f64>);

    const SHAPE: Shape<Row> = Shape {
        labels: &[Label {
            name: "module",
            value: |row: &Row| Some(row.0),
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
        let ShapeTable { table, duplicates } = SHAPE.table(
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
        assert_eq!(table.value(2, 0), None, "a value that is not finite must be absent");
        assert_eq!(table.samples(), 4);
    }
}
