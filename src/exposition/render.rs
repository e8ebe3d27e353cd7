//! From tables to text: one walk over family → record → row, in frames.

use std::fmt;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::{Kind, Lifetime, Metric, Table};
use crate::domain::Timestamp;

/// About how much text one frame holds. Small enough that slow readers share fairly and memory stays flat, large
/// enough that the cost per frame does not show.
pub(super) const FRAME_BYTES: usize = 256 * 1024;

/// A frame that has so much text ends where a block or a part of one does, so that it begins and ends with the same
/// records whatever becomes of those of other frames: what is made of its text can then be kept with it. Less than that,
/// and compressing frames one by one would cost more than it saves.
const LEAST_FRAME_BYTES: usize = 64 * 1024;

/// The records of such a part.
const PART_RECORDS: usize = 8;

/// Room beyond [`FRAME_BYTES`] for the sample that crosses it, so that a frame is one allocation.
const FRAME_SLACK: usize = 8 * 1024;

/// A text format of the exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The Prometheus text format 0.0.4.
    Text,
}

impl Format {
    /// The value of `Content-Type` that goes with it.
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

/// Where samples of a family are found: in the tables of this group, at this position of a record, in this column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Index into [`Picture::groups`].
    pub group: usize,
    /// Index into [`Shown::tables`].
    pub shape: usize,
    /// Column of the table.
    pub column: usize,
}

/// A metric and everywhere its samples are found.
#[derive(Clone, Debug)]
pub struct Family {
    /// The metric.
    pub metric: Metric,
    /// Its sources; more than one where two collectors each know it for one generation of the API.
    pub sources: Vec<Source>,
}

/// The families of all groups in order, those of one name joined into one.
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

/// What a scrape shows of one record.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// One table per shape of the record's collector.
    pub tables: &'a [Table],
    /// When it was last good; `None` for what does not age.
    pub good_at: Option<Timestamp>,
}

/// Records that stand side by side.
pub trait Block: fmt::Debug + Send + Sync {
    /// One of them by its position.
    fn shown(&self, position: usize) -> Option<Shown<'_>>;
}

/// The records of one collector.
#[derive(Clone, Debug)]
pub struct Group {
    /// All of them, in order.
    pub blocks: Vec<Arc<dyn Block>>,
    /// How long their values outlive the last good poll.
    pub stale_after: Duration,
}

/// Everything a scrape shows of the remote world, taken at one moment.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The records by group; which group is whose is known to whoever made the families.
    pub groups: Vec<Group>,
    /// The moment.
    pub now: Timestamp,
}

impl Picture {
    /// The last moment at which the same records make the same text: after it, the first of them is stale. `None`
    /// where time alone changes nothing.
    pub fn valid_until(&self) -> Option<Timestamp> {
        let ends = self.groups.iter().flat_map(|group| {
            let goods = group
                .blocks
                .iter()
                .flat_map(|block| (0..).map_while(|position| block.shown(position)))
                .filter_map(|shown| shown.good_at);
            let oldest_fresh = self.now.minus(group.stale_after);
            let first = goods.filter(|good_at| *good_at >= oldest_fresh).min();
            first.map(|good_at| good_at.plus(group.stale_after))
        });
        ends.min()
    }
}

/// Which groups of a picture a scrape asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these groups; all of them where `None`.
    pub groups: Option<Vec<usize>>,
}

impl Filter {
    fn admits(&self, source: &Source) -> bool {
        self.groups.as_ref().is_none_or(|groups| groups.contains(&source.group))
    }
}

/// Walks a picture and gives it out as frames of text. It holds no text but the frame in hand.
pub struct Renderer {
    families: Arc<[Family]>,
    picture: Picture,
    filter: Filter,
    format: Format,
    at: Position,
    /// What the lines of the record in hand begin with: the name of the metric, and the labels of all rows.
    line: Vec<u8>,
}

/// How far the walk has come.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    family: usize,
    source: usize,
    block: usize,
    record: usize,
    row: usize,
    headed: bool,
}

impl Renderer {
    /// A walk from the beginning.
    pub fn new(families: Arc<[Family]>, picture: Picture, filter: Filter, format: Format) -> Self {
        Self {
            families,
            picture,
            filter,
            format,
            at: Position::default(),
            line: Vec::new(),
        }
    }

    /// The next frame, `None` after the last. OpenMetrics' closing `# EOF` is not part of it, because other families
    /// may follow.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        self.append_frame(&mut text);
        (!text.is_empty()).then_some(text)
    }

    /// Appends the next frame to `text`; false with the last one. Text that has room for [`frame_capacity`] more bytes
    /// is not moved.
    pub fn append_frame(&mut self, text: &mut Vec<u8>) -> bool {
        let full_at = text.len() + FRAME_BYTES;
        let enough_at = text.len() + LEAST_FRAME_BYTES;
        while let Some(family) = self.families.get(self.at.family) {
            while let Some(source) = family.sources.get(self.at.source) {
                if self.filter.admits(source) {
                    let group = self.picture.groups.get(source.group);
                    let mut walk = Walk {
                        format: self.format,
                        metric: &family.metric,
                        source,
                        now: self.picture.now,
                        line: &mut self.line,
                        full_at,
                        enough_at,
                    };
                    if group.is_some_and(|group| walk.group(group, &mut self.at, text)) {
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

/// How much room a frame takes at most, as long as labels are of ordinary length.
pub const fn frame_capacity() -> usize {
    FRAME_BYTES + FRAME_SLACK
}

/// The walk over the samples of one source.
struct Walk<'a> {
    format: Format,
    metric: &'a Metric,
    source: &'a Source,
    now: Timestamp,
    line: &'a mut Vec<u8>,
    full_at: usize,
    enough_at: usize,
}

impl Walk<'_> {
    /// Renders from `at` on; true when the frame ends and the walk must be taken up again where `at` now stands.
    fn group(&mut self, group: &Group, at: &mut Position, text: &mut Vec<u8>) -> bool {
        let oldest_fresh = self.now.minus(group.stale_after);
        let dated = self.metric.lifetime == Lifetime::Dated;
        while let Some(block) = group.blocks.get(at.block) {
            while let Some(shown) = block.shown(at.record) {
                if (dated || shown.good_at.is_none_or(|good_at| good_at >= oldest_fresh))
                    && let Some(table) = shown.tables.get(self.source.shape)
                    && self.table(table, at, text)
                {
                    return true;
                }
                at.row = 0;
                at.record += 1;
                if at.record.is_multiple_of(PART_RECORDS) && text.len() >= self.enough_at {
                    return true;
                }
            }
            at.record = 0;
            at.block += 1;
            if text.len() >= self.enough_at {
                return true;
            }
        }
        false
    }

    fn table(&mut self, table: &Table, at: &mut Position, text: &mut Vec<u8>) -> bool {
        let mut begun = false;
        for (row, labels, value) in table.samples_of(self.source.column, at.row) {
            if !begun {
                begun = true;
                self.begin(table.head(), at, text);
            }
            let bare = table.head().is_empty() && labels.is_empty();
            if bare {
                write_sample(text, self.metric.name, "", value);
            } else {
                text.extend_from_slice(self.line);
                text.extend_from_slice(labels.as_bytes());
                write_end(text, value);
            }
            if text.len() >= self.full_at {
                at.row = row + 1;
                return true;
            }
        }
        false
    }

    /// Prepares the lines of a record, and begins the family where this is its first.
    fn begin(&mut self, head: &str, at: &mut Position, text: &mut Vec<u8>) {
        text.reserve_exact((self.full_at + FRAME_SLACK).saturating_sub(text.len()));
        if !at.headed {
            self.format.write_header(text, self.metric);
            at.headed = true;
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

/// Appends what comes after the labels.
fn write_end(text: &mut Vec<u8>, value: f64) {
    text.extend_from_slice(b"} ");
    write_value(text, value);
    text.push(b'\n');
}

/// The largest integer up to which every integer is exact in a double.
const EXACT_INTEGERS: f64 = 9_007_199_254_740_992.0;

/// Appends a value as the shortest decimal that reads back as the same double. Whole numbers, which nearly all are,
/// take the quick way.
fn write_value(text: &mut Vec<u8>, value: f64) {
    #[expect(clippy::cast_possible_truncation, reason = "only used where it is the same number")]
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    fn text_of(mut renderer: Renderer) -> String {
        let mut text = Vec::new();
        while let Some(frame) = renderer.next_frame() {
            text.extend(frame);
        }
        String::from_utf8(text).unwrap()
    }

    #[derive(Debug)]
    struct Records(Vec<(Table, i64)>);

    impl Block for Records {
        fn shown(&self, position: usize) -> Option<Shown<'_>> {
            let (table, good_at) = self.0.get(position)?;
            Some(Shown {
                tables: std::slice::from_ref(table),
                good_at: Some(Timestamp::from_unix_seconds(*good_at)),
            })
        }
    }

    const NOW: i64 = 1_800_000_000;
    const STALE_AFTER: Duration = Duration::from_secs(60);

    fn pictured(blocks: Vec<Records>) -> Picture {
        let blocks = blocks.into_iter().map(|block| Arc::new(block) as Arc<dyn Block>);
        Picture {
            groups: vec![Group {
                blocks: blocks.collect(),
                stale_after: STALE_AFTER,
            }],
            now: Timestamp::from_unix_seconds(NOW),
        }
    }

    fn picture(second_good_at: i64) -> Picture {
        let first = Table::single(&[("customer_id", "a")], &[Some(2.0), Some(1.5), None]);
        let second = Table::single(&[("customer_id", "b")], &[Some(3.0), Some(1e21), Some(7.0)]);
        pictured(vec![
            Records(vec![(first, NOW - 60)]),
            Records(Vec::new()),
            Records(vec![(second, second_good_at)]),
        ])
    }

    fn source(column: usize) -> Source {
        Source {
            group: 0,
            shape: 0,
            column,
        }
    }

    fn all() -> Arc<[Family]> {
        families([
            (Metric::gauge("elements_now", "Now"), source(0)),
            (Metric::timestamp("elements_then_timestamp_seconds", "Then"), source(1)),
            (Metric::counter("elements_runs_total", "Runs"), source(2)),
            (Metric::info("elements_x_info", "X"), source(0)),
        ])
        .into()
    }

    #[test]
    fn stale_records_show_only_dated_facts() {
        let text = text_of(Renderer::new(all(), picture(NOW - 61), Filter::default(), Format::Text));
        assert_eq!(
            text,
            "# HELP elements_now Now.\n# TYPE elements_now gauge\n\
             elements_now{customer_id=\"a\"} 2\n\
             # HELP elements_then_timestamp_seconds Then.\n# TYPE elements_then_timestamp_seconds gauge\n\
             elements_then_timestamp_seconds{customer_id=\"a\"} 1.5\n\
             elements_then_timestamp_seconds{customer_id=\"b\"} 1000000000000000000000\n\
             # HELP elements_x_info X.\n# TYPE elements_x_info gauge\n\
             elements_x_info{customer_id=\"a\"} 2\nelements_x_info{customer_id=\"b\"} 3\n"
        );
    }

    #[test]
    fn openmetrics_names_families_without_their_suffix() {
        let text = text_of(Renderer::new(
            all(),
            picture(NOW),
            Filter::default(),
            Format::OpenMetrics,
        ));
        assert!(text.contains("# TYPE elements_runs counter\nelements_runs_total{customer_id=\"b\"} 7\n"));
        assert!(text.contains("# TYPE elements_x info\nelements_x_info{customer_id=\"a\"} 2\n"));
    }

    #[test]
    fn frames_join_to_the_same_text_whatever_their_number() {
        let rows = 20_000;
        let record = |n: usize| {
            (
                Table::single(&[("customer_id", &n.to_string())], &[Some(n as f64)]),
                NOW,
            )
        };
        let blocks = (0..rows / 10).map(|block| Records((block * 10..block * 10 + 10).map(record).collect()));
        let picture = pictured(blocks.collect());
        let families: Arc<[Family]> = families([(Metric::gauge("elements_now", "Now"), source(0))]).into();
        let mut renderer = Renderer::new(families, picture, Filter::default(), Format::Text);
        let mut frames = Vec::new();
        while let Some(frame) = renderer.next_frame() {
            assert!(frame.len() < FRAME_BYTES + FRAME_SLACK);
            frames.push(frame);
        }
        assert!(frames.len() > 1);
        let text = String::from_utf8(frames.concat()).unwrap();
        assert_eq!(
            text.lines().filter(|line| line.starts_with("elements_now{")).count(),
            rows
        );
        assert_eq!(text.matches("# TYPE").count(), 1);
    }

    #[test]
    fn a_record_that_changes_changes_no_frame_but_its_own() {
        let rows = 20_000;
        let frames = |changed: Option<usize>| {
            let record = |n: usize| {
                let value = if changed == Some(n) { 1e12 } else { 1.0 };
                (Table::single(&[("customer_id", &n.to_string())], &[Some(value)]), NOW)
            };
            let blocks = (0..rows / 50).map(|block| Records((block * 50..block * 50 + 50).map(record).collect()));
            let families: Arc<[Family]> = families([(Metric::gauge("elements_now", "Now"), source(0))]).into();
            let mut renderer = Renderer::new(families, pictured(blocks.collect()), Filter::default(), Format::Text);
            std::iter::from_fn(move || renderer.next_frame()).collect::<Vec<_>>()
        };
        let before = frames(None);
        assert!(before.len() > 5);
        for changed in [0, rows / 2, rows - 1] {
            let after = frames(Some(changed));
            assert_eq!(after.len(), before.len());
            assert_eq!(
                after
                    .iter()
                    .zip(&before)
                    .filter(|(after, before)| after != before)
                    .count(),
                1
            );
        }
    }

    #[test]
    fn the_text_is_the_same_until_the_first_record_is_stale() {
        let until = |second| picture(second).valid_until();
        assert_eq!(until(NOW - 30), Some(Timestamp::from_unix_seconds(NOW)));
        let later = pictured(vec![Records(vec![
            (Table::default(), NOW - 90),
            (Table::default(), NOW - 10),
        ])]);
        assert_eq!(later.valid_until(), Some(Timestamp::from_unix_seconds(NOW + 50)));
        assert_eq!(pictured(Vec::new()).valid_until(), None);
    }

    #[test]
    fn values_are_the_shortest_that_read_back() {
        let written = |value| {
            let mut text = Vec::new();
            write_value(&mut text, value);
            String::from_utf8(text).unwrap()
        };
        for value in [
            0.0,
            -1.0,
            1e15,
            9_007_199_254_740_991.0,
            9_007_199_254_740_992.0,
            1e21,
            0.1,
            -2.5,
            1e-7,
            f64::MAX,
        ] {
            assert_eq!(written(value), format!("{value}"), "{value}");
        }
        assert_eq!(written(-0.0), "0");
    }

    #[test]
    fn families_of_one_name_are_one() {
        let joined = families([
            (Metric::gauge("elements_t", "T"), source(0)),
            (Metric::gauge("elements_t", "T"), source(1)),
        ]);
        assert_eq!(joined.len(), 1);
        assert_eq!(joined[0].sources.len(), 2);
    }
}
