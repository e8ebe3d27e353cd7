//! Metric families, dense tables of samples, and the renderer for the text formats.
//!
//! A [`Shape`] defines how the rows of a record become label text and values, for a group of metrics with the same
//! labels. The result is a [`Table`] with escaped label text and a dense slice of values. A scrape takes a [`Snapshot`]
//! of all tables. A [`Renderer`] iterates over families, records and rows, and renders the text in pieces of limited
//! size, which are called frames.

mod excluded;
mod metric;
mod render;
mod table;

pub use excluded::ExcludedMetrics;
pub use metric::{Kind, Lifetime, Metric, Stability};
pub use render::{
    Block, Family, Filter, Format, Group, RecordView, Renderer, Snapshot, Source, families, frame_capacity,
    shape_columns, write_sample,
};
pub use table::{
    Column, CustomerTables, Label, Shape, ShapeMetrics, ShapeSink, ShapeTable, Table, column, counter, exact, gauge,
    info, label, timestamp, write_label,
};
