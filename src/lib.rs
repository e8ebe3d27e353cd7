//! A Prometheus exporter for AvePoint Elements.

pub mod domain;
pub mod secret;
