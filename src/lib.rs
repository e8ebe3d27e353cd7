//! A Prometheus exporter for AvePoint Elements.
//!
//! Data flows one way: [`api`] → [`collector`] → [`schedule`] → [`store`] → [`scrape`] and [`status`] → [`http`].
//! [`app`] reads [`config`] and connects these modules. `docs/architecture.md` follows one poll through the modules,
//! and lists their imports and the invariants.
//!
//! The modules in reading order:
//!
//! - [`domain`]: types and parsers without I/O, and the interpretation of lists of runs
//! - [`collector`]: one file per collector, and the table of all collectors
//! - [`exposition`], [`store`]: tables of samples and their text format; the latest record of every target
//! - [`schedule`]: the poll loop
//! - [`api`]: the API client, from tokens to rows
//! - [`health`], [`runtime`]: metrics about the exporter, and its state
//! - [`scrape`], [`status`], [`catalogue`]: contents of a scrape and of the status page; list of all metrics
//! - [`http`], [`assets`]: routes, pages and connections; bundled dashboards and rules
//! - `settings`, [`config`]: parser for settings, and the configuration
//! - [`app`]: creates and connects all parts
//! - [`commands`], [`args`], [`logging`], [`output`], [`signals`], `service_manager`, [`core_dumps`], `build_info`: the
//!   program itself
//! - [`secret`], [`text_file`], [`error_chain`], `lock`, `log_throttle`: helpers that depend on no other module
//! - [`simulator`]: the simulated partner API

pub mod api;
pub mod app;
pub mod args;
pub mod assets;
mod build_info;
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
mod lock;
mod log_throttle;
pub mod logging;
pub mod output;
pub mod runtime;
pub mod schedule;
pub mod scrape;
pub mod secret;
mod service_manager;
mod settings;
pub mod signals;
pub mod simulator;
pub mod status;
pub mod store;
pub mod text_file;
