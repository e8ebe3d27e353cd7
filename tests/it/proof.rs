//! Dashboards, rules and the Alertmanager example against the programs that they are for, which run on loopback with
//! their data in a temporary directory and end with the test.

mod dashboards;
mod gates;
mod history;
mod labels;
mod lint;
mod mutations;
mod notifications;
mod queries;
mod rules;
pub mod servers;
