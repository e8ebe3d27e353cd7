//! Dashboards, rules and the Alertmanager example against the programs that they are for, which run on loopback with
//! their data in a temporary directory and end with the test.

mod dashboards;
mod history;
mod queries;
mod rules;
mod servers;
