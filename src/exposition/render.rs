//! From tables to text: one walk over family → record → row, in frames.

use std::io::Write as _;
use std::sync::Arc;

use super::{Kind, Lifetime, Metric, Table};

/// About how much text one frame holds. Small enough that slow readers share fairly and memory stays flat, large
/// enough that the cost per frame does not show.
pub(super) const FRAME_BYTES: usize = 256 * 1024;

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
    /// Index into [`Tables::tables`].
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

/// The tables of one record, as they were when the picture was taken.
#[derive(Clone, Debug)]
pub struct Tables {
    /// One table per shape of the record's collector.
    pub tables: Arc<[Table]>,
    /// Whether the record outlived its collector's `stale_after`, so that only dated facts are shown.
    pub stale: bool,
}

/// Everything a scrape shows of the remote world, taken at one moment.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// The records by group; which group is whose is known to whoever made the families.
    pub groups: Vec<Vec<Tables>>,
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
    picture: Arc<Picture>,
    filter: Filter,
    format: Format,
    at: Position,
}

/// How far the walk has come.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    family: usize,
    source: usize,
    record: usize,
    row: usize,
    headed: bool,
}

impl Renderer {
    /// A walk from the beginning.
    pub fn new(families: Arc<[Family]>, picture: Arc<Picture>, filter: Filter, format: Format) -> Self {
        Self {
            families,
            picture,
            filter,
            format,
            at: Position::default(),
        }
    }

    /// The next frame, `None` after the last. OpenMetrics' closing `# EOF` is not part of it, because other families
    /// may follow.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        while let Some(family) = self.families.get(self.at.family) {
            while let Some(source) = family.sources.get(self.at.source) {
                if self.filter.admits(source) {
                    let full = render_source(&mut text, self.format, family, source, &self.picture, &mut self.at);
                    if full {
                        return Some(text);
                    }
                }
                self.at.source += 1;
                self.at.record = 0;
            }
            self.at = Position {
                family: self.at.family + 1,
                ..Position::default()
            };
        }
        (!text.is_empty()).then_some(text)
    }
}

/// Renders the samples of one source from `at` on; true when the frame is full and the walk must be taken up again
/// where `at` now stands.
fn render_source(
    text: &mut Vec<u8>,
    format: Format,
    family: &Family,
    source: &Source,
    picture: &Picture,
    at: &mut Position,
) -> bool {
    let records = picture.groups.get(source.group).map_or(&[][..], Vec::as_slice);
    while let Some(record) = records.get(at.record) {
        let shown = !record.stale || family.metric.lifetime == Lifetime::Dated;
        if let Some(table) = record.tables.get(source.shape).filter(|_| shown) {
            while at.row < table.rows() {
                let row = at.row;
                at.row += 1;
                let (Some(labels), Some(value)) = (table.labels(row), table.value(row, source.column)) else {
                    continue;
                };
                if text.capacity() == 0 {
                    text.reserve_exact(FRAME_BYTES + FRAME_SLACK);
                }
                if !at.headed {
                    format.write_header(text, &family.metric);
                    at.headed = true;
                }
                write_sample(text, family.metric.name, labels, value);
                if text.len() >= FRAME_BYTES {
                    return true;
                }
            }
        }
        at.row = 0;
        at.record += 1;
    }
    false
}

/// Appends one sample line.
pub fn write_sample(text: &mut Vec<u8>, name: &str, labels: &str, value: f64) {
    text.extend_from_slice(name.as_bytes());
    if !labels.is_empty() {
        text.push(b'{');
        text.extend_from_slice(labels.as_bytes());
        text.push(b'}');
    }
    text.push(b' ');
    write_value(text, value);
    text.push(b'\n');
}

/// The largest integer up to which every integer is exact in a double.
const EXACT_INTEGERS: f64 = 9_007_199_254_740_992.0;

/// Appends a value as the shortest decimal that reads back as the same double. Whole numbers, which nearly all are,
/// take the quick way.
fn write_value(text: &mut Vec<u8>, value: f64) {
    if value.fract() == 0.0 && value.abs() < EXACT_INTEGERS {
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53, so exact")]
        let whole = value as i64;
        write_all(text, format_args!("{whole}"));
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

    fn picture() -> Picture {
        let fresh = Tables {
            tables: Arc::new([Table::single(&[("customer_id", "a")], &[Some(2.0), Some(1.5), None])]),
            stale: false,
        };
        let stale = Tables {
            tables: Arc::new([Table::single(
                &[("customer_id", "b")],
                &[Some(3.0), Some(1e21), Some(7.0)],
            )]),
            stale: true,
        };
        Picture {
            groups: vec![vec![fresh, stale]],
        }
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
        let text = text_of(Renderer::new(
            all(),
            Arc::new(picture()),
            Filter::default(),
            Format::Text,
        ));
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
        let mut picture = picture();
        picture.groups[0][1].stale = false;
        let text = text_of(Renderer::new(
            all(),
            Arc::new(picture),
            Filter::default(),
            Format::OpenMetrics,
        ));
        assert!(text.contains("# TYPE elements_runs counter\nelements_runs_total{customer_id=\"b\"} 7\n"));
        assert!(text.contains("# TYPE elements_x info\nelements_x_info{customer_id=\"a\"} 2\n"));
    }

    #[test]
    fn frames_join_to_the_same_text_whatever_their_number() {
        let rows = 20_000;
        let record = |n: usize| Tables {
            tables: Arc::new([Table::single(&[("customer_id", &n.to_string())], &[Some(n as f64)])]),
            stale: false,
        };
        let picture = Picture {
            groups: vec![(0..rows).map(record).collect()],
        };
        let families: Arc<[Family]> = families([(Metric::gauge("elements_now", "Now"), source(0))]).into();
        let mut renderer = Renderer::new(families, Arc::new(picture), Filter::default(), Format::Text);
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
    fn families_of_one_name_are_one() {
        let joined = families([
            (Metric::gauge("elements_t", "T"), source(0)),
            (Metric::gauge("elements_t", "T"), source(1)),
        ]);
        assert_eq!(joined.len(), 1);
        assert_eq!(joined[0].sources.len(), 2);
    }
}
