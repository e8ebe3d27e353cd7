//! Families and dense tables of samples, and their way into text.
//!
//! A [`Shape`] says once, for a group of metrics that share their labels, how a row of a record becomes label text and
//! values. Applied to a record it gives a [`Table`]: label text escaped once, values in one dense slice. A scrape takes
//! a [`Picture`] of all tables and a [`Renderer`] walks it family → record → row, frame by frame; nothing else is ever
//! held as text.

mod metric;
mod render;
mod table;

pub use metric::{Kind, Lifetime, Metric, Stability};
pub use render::{
    Block, Family, Filter, Format, Group, Picture, Renderer, Shown, Source, families, frame_capacity, write_sample,
};
pub use table::{Column, Label, Shape, ShapeMetrics, Table, write_label};
