//! A Prometheus exporter for AvePoint Elements.

pub mod api;
pub mod args;
pub mod config;
pub mod domain;
pub mod secret;
