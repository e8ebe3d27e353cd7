//! Flags of the simulated partner, and of the demo that uses it.

use std::path::PathBuf;

use super::ListenAddress;
use crate::simulator::Latency;

/// The simulated partner.
#[derive(Clone, Debug, PartialEq, clap::Args)]
#[command(next_help_heading = "Simulated partner")]
pub struct Simulator {
    /// The address that the simulated partner listens on.
    #[arg(
        long = "simulator.listen-address",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:10028"
    )]
    pub listen_address: ListenAddress,

    /// Number of simulated customers.
    #[arg(long = "simulator.customers", value_name = "COUNT", default_value_t = 75)]
    pub customers: usize,

    /// The seed for the simulated data; the same seed always produces the same data.
    #[arg(long = "simulator.seed", value_name = "SEED", default_value_t = 1)]
    pub seed: u64,

    /// Speed of the simulated schedules, as a multiple of real time; above 0.
    #[arg(long = "simulator.speed", value_name = "FACTOR", default_value_t = 60.0, value_parser = parse_speed)]
    pub speed: f64,

    /// Generate names, dates and sizes that are hard to parse, and list every module in the vendor's API reference.
    #[arg(long = "simulator.hostile")]
    pub hostile: bool,

    /// Response times of the simulated API: no delay, or as in the real API.
    #[arg(
        long = "simulator.latency",
        value_name = "LATENCY",
        default_value = "none",
        ignore_case = true
    )]
    pub latency: Latency,
}

/// Additional flags of the demo.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Demo {
    /// The simulated partner.
    #[command(flatten)]
    pub simulator: Simulator,

    /// Write the last four weeks of the demo's metrics to FILE as OpenMetrics and exit, for promtool tsdb
    /// create-blocks-from openmetrics.
    #[arg(long = "backfill", value_name = "FILE", help_heading = "Backfill")]
    backfill: Option<PathBuf>,

    /// Value of the label instance in the file: the address at which Prometheus scrapes the demo. The label job is
    /// always elements.
    #[arg(
        long = "backfill.instance",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:10027",
        requires = "backfill",
        help_heading = "Backfill"
    )]
    instance: String,
}

/// Destination of a backfill, and the value of its label `instance`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backfill {
    /// Path of the file.
    pub file: PathBuf,
    /// Value of the label `instance`.
    pub instance: String,
}

impl Demo {
    /// Returns the options of the backfill, if one was requested.
    pub fn backfill(&self) -> Option<Backfill> {
        let file = self.backfill.clone()?;
        Some(Backfill {
            file,
            instance: self.instance.clone(),
        })
    }
}

fn parse_speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor > 0.0 && factor.is_finite() => Ok(factor),
        _ => Err("expected a number above 0".to_owned()),
    }
}
