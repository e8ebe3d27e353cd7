//! A Prometheus exporter for AvePoint Elements.

pub mod api;
pub mod args;
pub mod collector;
pub mod config;
pub mod domain;
pub mod exposition;
pub mod secret;
