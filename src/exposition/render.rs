//! Renders tables as text in frames, iterating over families, records and rows.

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::{Kind, Lifetime, Metric, ShapeMetrics, Table};
use crate::domain::Timestamp;

/// Approximate maximum size of a frame: small enough to limit the memory used for a slow reader, and large enough that
/// the cost per frame is negligible.
pub(super) const FRAME_BYTES: usize = 256 * 1024;

/// Minimum size of every frame except the last. A frame that has reached this size ends with the current block or part.
/// A small change to a record therefore rarely moves the boundaries of later frames, and compressed frames can be
/// cached. With smaller frames, compressing each frame separately would cost more than caching saves.
const MIN_FRAME_BYTES: usize = 64 * 1024;

/// Number of records in a part of a block.
const RECORDS_PER_PART: usize = 8;

/// Capacity beyond [`FRAME_BYTES`] for the last sample, so that a frame is not reallocated.
const FRAME_SLACK: usize = 8 * 1024;

/// A text format for the exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The Prometheus text format 0.0.4.
    Text,
}

impl Format {
    /// Returns the `Content-Type` of the format.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Appends the HELP and TYPE lines of a family.
    pub fn write_header(self, text: &mut Vec<u8>, metric: &Metric) {
        let (name, kind) = match (self, metric.kind) {
            (Self::OpenMetrics, Kind::Info) => (metric.family_name(), "info"),
            (Self::OpenMetrics, Kind::Counter) => (metric.family_name(), "counter"),
            (Self::Text, Kind::Counter) => (metric.name, "counter"),
            (_, Kind::Histogram) => (metric.name, "histogram"),
            (_, Kind::Gauge) | (Self::Text, Kind::Info) => (metric.name, "gauge"),
        };
        let help = metric.help;
        write_all(text, format_args!("# HELP {name} {help}.\n# TYPE {name} {kind}\n"));
    }
}

/// Location of a family's samples: the group, the table in each record, and the column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Index into [`Snapshot::groups`].
    pub group: usize,
    /// Index into [`RecordView::tables`].
    pub shape: usize,
    /// Column of the table.
    pub column: usize,
}

/// A metric and all locations of its samples.
#[derive(Clone, Debug)]
pub struct Family {
    /// Definition of the metric.
    pub metric: Metric,
    /// Locations of the samples. There are several if several collectors have samples of the metric.
    pub sources: Vec<Source>,
}

/// Returns the metrics of a snapshot's group with their locations. Each shape has its own table.
pub fn shape_columns(
    group: usize,
    shapes: impl IntoIterator<Item = ShapeMetrics>,
) -> impl Iterator<Item = (Metric, Source)> {
    shapes.into_iter().enumerate().flat_map(move |(shape, metrics)| {
        let columns = metrics.into_iter().enumerate();
        columns.map(move |(column, (metric, _))| (metric, Source { group, shape, column }))
    })
}

/// Returns the families of all groups in order, merging families with the same name.
pub fn families(columns: impl IntoIterator<Item = (Metric, Source)>) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for (metric, source) in columns {
        match families.iter_mut().find(|family| family.metric.name == metric.name) {
            Some(family) => family.sources.push(source),
            None => families.push(Family {
                metric,
                sources: vec![source],
            }),
        }
    }
    families
}

/// The samples of a record.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    /// The tables of the record, one per shape.
    pub tables: &'a [Table],
    /// Time of the poll that returned the rows; `None` for records that do not become stale.
    pub good_at: Option<Timestamp>,
}

/// A block of consecutive records in a group.
pub trait Block: fmt::Debug + Send + Sync {
    /// Returns the record at a position.
    fn record(&self, position: usize) -> Option<RecordView<'_>>;
}

/// The records or the freshness of one collector, or the exporter's own values.
#[derive(Clone, Debug)]
pub struct Group {
    /// Blocks that together contain all records, in exposition order.
    pub blocks: Vec<Arc<dyn Block>>,
    /// Time for which values are served after the poll that returned them, unless they are dated facts.
    pub stale_after: Duration,
}

/// A consistent view of all collected data for one scrape.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The records by group, indexed by [`Source::group`].
    pub groups: Vec<Group>,
    /// Time of the snapshot.
    pub now: Timestamp,
}

impl Snapshot {
    /// Returns the time until which the snapshot's text stays the same: the time at which the next record becomes
    /// stale. Returns `None` if the text does not depend on the time.
    pub fn valid_until(&self) -> Option<Timestamp> {
        let ends = self.groups.iter().flat_map(|group| {
            let times = group
                .blocks
                .iter()
                .flat_map(|block| (0..).map_while(|position| block.record(position)))
                .filter_map(|record| record.good_at);
            let oldest_fresh = self.now.minus(group.stale_after);
            let first = times.filter(|good_at| *good_at >= oldest_fresh).min();
            first.map(|good_at| good_at.plus(group.stale_after))
        });
        ends.min()
    }
}

/// Filter for a snapshot's groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these groups; all if `None`.
    pub groups: Option<Vec<usize>>,
}

impl Filter {
    fn includes(&self, source: &Source) -> bool {
        self.groups.as_ref().is_none_or(|groups| groups.contains(&source.group))
    }
}

/// Renders a snapshot in frames. Only the current frame is in memory.
pub struct Renderer {
    families: Arc<[Family]>,
    snapshot: Snapshot,
    filter: Filter,
    format: Format,
    at: Position,
    /// Start of the current record's lines: the metric name and the labels that all rows share.
    line: Vec<u8>,
}

/// Position of the next sample in the snapshot.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    family: usize,
    source: usize,
    block: usize,
    record: usize,
    row: usize,
    has_header: bool,
}

impl Renderer {
    /// Creates a renderer at the start of a snapshot.
    pub fn new(families: Arc<[Family]>, snapshot: Snapshot, filter: Filter, format: Format) -> Self {
        Self {
            families,
            snapshot,
            filter,
            format,
            at: Position::default(),
            line: Vec::new(),
        }
    }

    /// Returns the next frame, or `None` after the last frame. Frames do not contain the final `# EOF` line of
    /// OpenMetrics, because other families may follow.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        self.append_frame(&mut text);
        (!text.is_empty()).then_some(text)
    }

    /// Appends the next frame to `text`. Returns false at the end of the snapshot, and true if another frame may
    /// follow. Does not reallocate `text` if it has a spare capacity of at least [`frame_capacity`].
    pub fn append_frame(&mut self, text: &mut Vec<u8>) -> bool {
        let max_end = text.len() + FRAME_BYTES;
        let min_end = text.len() + MIN_FRAME_BYTES;
        while let Some(family) = self.families.get(self.at.family) {
            while let Some(source) = family.sources.get(self.at.source) {
                if self.filter.includes(source) {
                    let group = self.snapshot.groups.get(source.group);
                    let mut renderer = SourceRenderer {
                        format: self.format,
                        metric: &family.metric,
                        source,
                        now: self.snapshot.now,
                        line: &mut self.line,
                        max_end,
                        min_end,
                    };
                    if group.is_some_and(|group| renderer.render_group(group, &mut self.at, text)) {
                        return true;
                    }
                }
                self.at.source += 1;
                self.at.block = 0;
            }
            self.at = Position {
                family: self.at.family + 1,
                ..Position::default()
            };
        }
        false
    }
}

/// Returns the maximum size of a frame with labels of ordinary length.
pub const fn frame_capacity() -> usize {
    FRAME_BYTES + FRAME_SLACK
}

/// Renders the samples of one source.
struct SourceRenderer<'a> {
    format: Format,
    metric: &'a Metric,
    source: &'a Source,
    now: Timestamp,
    line: &'a mut Vec<u8>,
    max_end: usize,
    min_end: usize,
}

impl SourceRenderer<'_> {
    /// Renders a group, starting at `at`. Returns true if the frame is complete; the next frame then starts at the
    /// updated `at`.
    fn render_group(&mut self, group: &Group, at: &mut Position, text: &mut Vec<u8>) -> bool {
        let oldest_fresh = self.now.minus(group.stale_after);
        let is_dated = self.metric.lifetime == Lifetime::Dated;
        while let Some(block) = group.blocks.get(at.block) {
            while let Some(record) = block.record(at.record) {
                if (is_dated || record.good_at.is_none_or(|good_at| good_at >= oldest_fresh))
                    && let Some(table) = record.tables.get(self.source.shape)
                    && self.render_table(table, at, text)
                {
                    return true;
                }
                at.row = 0;
                at.record += 1;
                if at.record.is_multiple_of(RECORDS_PER_PART) && text.len() >= self.min_end {
                    return true;
                }
            }
            at.record = 0;
            at.block += 1;
            if text.len() >= self.min_end {
                return true;
            }
        }
        false
    }

    fn render_table(&mut self, table: &Table, at: &mut Position, text: &mut Vec<u8>) -> bool {
        let mut has_begun = false;
        for (row, labels, value) in table.samples_of(self.source.column, at.row) {
            if !has_begun {
                has_begun = true;
                self.begin_record(table.head(), at, text);
            }
            let has_no_labels = table.head().is_empty() && labels.is_empty();
            if has_no_labels {
                write_sample(text, self.metric.name, "", value);
            } else {
                text.extend_from_slice(self.line);
                text.extend_from_slice(labels.as_bytes());
                write_end(text, value);
            }
            if text.len() >= self.max_end {
                at.row = row + 1;
                return true;
            }
        }
        false
    }

    /// Prepares a record's lines. Before the first record of a family, also writes the family's header.
    fn begin_record(&mut self, head: &str, at: &mut Position, text: &mut Vec<u8>) {
        text.reserve_exact((self.max_end + FRAME_SLACK).saturating_sub(text.len()));
        if !at.has_header {
            self.format.write_header(text, self.metric);
            at.has_header = true;
        }
        self.line.clear();
        self.line.extend_from_slice(self.metric.name.as_bytes());
        self.line.push(b'{');
        self.line.extend_from_slice(head.as_bytes());
    }
}

/// Appends one sample line.
pub fn write_sample(text: &mut Vec<u8>, name: &str, labels: &str, value: f64) {
    text.extend_from_slice(name.as_bytes());
    if labels.is_empty() {
        text.push(b' ');
        write_value(text, value);
        text.push(b'\n');
    } else {
        text.push(b'{');
        text.extend_from_slice(labels.as_bytes());
        write_end(text, value);
    }
}

/// Appends the end of a line after its labels: the closing brace and the value.
fn write_end(text: &mut Vec<u8>, value: f64) {
    text.extend_from_slice(b"} ");
    write_value(text, value);
    text.push(b'\n');
}

/// Largest integer up to which a double represents all integers exactly.
const EXACT_INTEGERS: f64 = 9_007_199_254_740_992.0;

/// Appends a value in decimal notation without an exponent, with the fewest significant digits that parse to an equal
/// double. There is a fast path for integers, because nearly all values are integers.
fn write_value(text: &mut Vec<u8>, value: f64) {
    #[expect(clippy::cast_possible_truncation, reason = "used only if the conversion is exact")]
    let whole = value as i64;
    if whole as f64 == value && value.abs() < EXACT_INTEGERS {
        text.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
    } else {
        write_all(text, format_args!("{value}"));
    }
}

/// Formats into a vector, which cannot fail.
fn write_all(text: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(arguments);
}
