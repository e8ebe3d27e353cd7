//! A Prometheus exporter for AvePoint Elements.
//!
//! # The map
//!
//! Data flows one way:
//!
//! ```text
//! config → auth → api (v1 | v3) → schedule → store → exposition → http
//! ```
//!
//! A *poll* asks one *collector* about one *target* (the partner, or one customer) and brings a complete new record, or an
//! error. The [`store`] swaps the record in, or notes the failure and keeps what it had; nothing else ever changes what
//! `/metrics` says about the remote world. A *scrape* takes one picture of the store and renders it. It never waits for a
//! poll, and a poll never waits for a scrape.
//!
//! # One poll, walked through
//!
//! 1. [`schedule::queue::Queue`] says that `jobs` of a customer has been due the longest.
//! 2. [`schedule::Scheduler`] spawns the poll with the gateway, what the store keeps of that customer, and the settings.
//! 3. The collector asks [`api::Api`] for its list. [`api::transport`] waits for the pace, puts a token on the request and
//!    reads the answer under one deadline and one cap; [`api::v1`] or [`api::v3`] walks the pages.
//! 4. Each row is read leniently by [`api::wire::Row`] into values of [`domain`]. Past this point there is no `"N/A"`, no
//!    raw size and no bare status number.
//! 5. [`domain::History`] decides what is new among the runs.
//! 6. The collector's [`exposition::Shape`]s make tables of the record: label text escaped once, values beside it.
//! 7. [`store::Store::commit`] swaps record and tables in, and the queue learns when the customer is due again.
//!
//! # What must stay true
//!
//! - A record is committed whole or not at all: all pages of an answer.
//! - On failure values are held and freshness does not advance. Past `stale_after` what describes the present goes; dated
//!   facts and freshness stay. Nothing is ever filled up with 0, "OK" or NaN.
//! - An unknown status is never a success.
//! - A customer is dropped only on proof: absent from two complete lists.
//! - One panic, one hang, one bad customer, one missing permission stays what it is.
//! - `domain` and `api` know nothing of metrics, `http` never calls the API, and `simulator` never imports the client.
//!
//! # Modules, in reading order
//!
//! [`domain`] what values mean · [`api`] how they are asked for · [`collector`] what is asked for · [`exposition`] how it is
//! written · [`store`] what is kept · [`schedule`] when · [`health`], [`scrape`], [`status`], [`catalogue`] about the exporter
//! itself · [`http`], [`assets`] the way in · [`config`], [`args`], [`logging`], [`core_dumps`], [`commands`] the program ·
//! [`simulator`] a partner to try it on · [`app`] the only place that wires.

pub mod api;
pub mod app;
pub mod args;
pub mod assets;
pub mod catalogue;
pub mod collector;
pub mod commands;
pub mod config;
pub mod core_dumps;
pub mod domain;
pub mod error_chain;
pub mod exposition;
pub mod health;
pub mod http;
pub mod logging;
pub mod schedule;
pub mod scrape;
pub mod secret;
pub mod simulator;
mod spelling;
pub mod status;
pub mod store;
