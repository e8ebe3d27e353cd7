//! Families and dense tables of samples, and the renderer of the text formats.
//!
//! A [`Shape`] defines, for a group of metrics with the same labels, how a row of a record becomes label text and
//! values. Applied to a record it returns a [`Table`]: label text escaped once, values in one dense slice. A scrape
//! takes a [`Snapshot`] of all tables, and a [`Renderer`] walks it family → record → row, frame by frame. No other text
//! is stored.

mod excluded;
mod metric;
mod render;
mod table;

pub use excluded::ExcludedMetrics;
pub use metric::{Kind, Lifetime, Metric, Stability};
pub use render::{
    Block, Family, Filter, Format, Group, Renderer, Shown, Snapshot, Source, families, frame_capacity, write_sample,
};
pub use table::{
    Column, Label, Shape, ShapeMetrics, ShapeTable, Table, column, counter, gauge, info, label, timestamp, write_label,
};
