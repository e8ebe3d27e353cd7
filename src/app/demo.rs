//! The demo: the exporter as in production, against a partner that is simulated in the same process.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;
use tracing::error;

use super::budget::{self, Budget};
use super::{App, Error, LoadConfig, load_config};
use crate::args;
use crate::domain::counted;
use crate::simulator::{self, Simulator};

/// How old restore points may be in the simulated partner's own time, which runs faster than ours.
const RPO: Duration = Duration::from_secs(26 * 3600);

/// How long the demo's secret is said to last. What the figure looks like matters, not which it is.
const SECRET_LIFE: Duration = Duration::from_secs(60 * 24 * 3600);

/// Seconds between two polls of each collector. A demo is looked at for minutes, not for hours. With more customers than
/// [`PACE`] suffices for they are all stretched alike.
const INTERVALS: &[(&str, u32)] = &[
    ("customers", 10),
    ("jobs", 5),
    ("protected", 15),
    ("licenses", 20),
    ("scan_profiles", 30),
    ("scan_changes", 30),
];

/// Requests a second that the demo may make.
const RATE: f64 = 500.0;

/// Requests a second that the intervals may need. A slow machine, which also plays the partner, keeps up with this.
const PACE: f64 = RATE / 2.0;

/// Scan profiles of a customer for the estimate: some have several, and the objects of each are asked for, too.
const PROFILES: usize = 4;

/// The exporter and its simulated partner, bound and not yet running.
pub struct Demo {
    app: App,
    simulator: Simulator,
}

impl Demo {
    /// Binds both.
    ///
    /// # Errors
    /// As [`App::bind`], and where the simulated partner's address cannot be bound.
    pub async fn bind(wanted: &args::Simulator, web: args::Web) -> Result<Self, Error> {
        let simulator = bind(wanted).await?;
        let environment = environment(&simulator, wanted);
        let load: LoadConfig = std::sync::Arc::new(move || load_config(None, environment.clone()));
        let app = App::bind(load, web, subtitle(wanted)).await?;
        Ok(Self { app, simulator })
    }

    /// The exporter.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Where the simulated partner's API is.
    pub fn partner(&self) -> String {
        self.simulator.base_url()
    }

    /// Runs both until they are told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let partner = run(self.simulator, stop.clone());
        let ((), ()) = tokio::join!(self.app.run(stop), partner);
    }
}

/// The simulated partner by itself.
///
/// # Errors
/// Where its address cannot be bound.
pub async fn simulate(wanted: &args::Simulator) -> Result<Simulator, Error> {
    bind(wanted).await
}

async fn run(simulator: Simulator, stop: CancellationToken) {
    if let Err(problem) = simulator.run(stop).await {
        error!(error = %problem, "the simulated partner ended");
    }
}

async fn bind(wanted: &args::Simulator) -> Result<Simulator, Error> {
    let settings = simulator::Settings {
        seed: wanted.seed,
        customers: wanted.customers,
        speed: wanted.speed,
        ..simulator::Settings::default()
    };
    let mut last = None;
    for candidate in wanted.listen_address.candidates() {
        let addresses = tokio::net::lookup_host(&candidate).await;
        let address = addresses.ok().and_then(|mut addresses| addresses.next());
        let address = address.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        match Simulator::bind(settings.clone(), address).await {
            Ok(simulator) => return Ok(simulator),
            Err(source) => last = Some(source),
        }
    }
    Err(Error::Bind {
        address: wanted.listen_address.to_string(),
        source: last.unwrap_or_else(|| std::io::Error::other("no address")),
    })
}

/// What the pages say of the demo.
fn subtitle(wanted: &args::Simulator) -> String {
    let customers = u64::try_from(wanted.customers).unwrap_or(u64::MAX);
    let customers = counted(customers, "simulated customer", "simulated customers");
    let times = match wanted.speed.to_string().as_str() {
        "1" => String::new(),
        speed => format!("{speed} times "),
    };
    format!("A demo: {customers} at {times}the speed of the real ones. Nothing here is real.")
}

/// The seconds between two polls of each collector that so many customers allow.
fn intervals(customers: usize) -> Vec<(&'static str, u64)> {
    let mut costs = budget::costs(customers, PROFILES);
    for (name, cost) in &mut costs {
        if let Some((_, seconds)) = INTERVALS.iter().find(|(known, _)| known == name) {
            cost.interval = Duration::from_secs(u64::from(*seconds));
        }
    }
    let all: Vec<_> = costs.iter().map(|(_, cost)| *cost).collect();
    let stretch = Budget::of(&all, PACE).stretch();
    let stretched = |interval: Duration| interval.mul_f64(stretch).as_secs_f64().ceil();
    costs
        .into_iter()
        .map(|(name, cost)| (name, Duration::from_secs_f64(stretched(cost.interval)).as_secs()))
        .collect()
}

/// The configuration of the demo, as an operator would write it into the environment.
fn environment(simulator: &Simulator, wanted: &args::Simulator) -> Vec<(OsString, OsString)> {
    let settings = simulator::Settings::default();
    let expires = jiff::Timestamp::try_from(SystemTime::now() + SECRET_LIFE);
    let expires = expires.map(|at| at.to_string()).unwrap_or_default();
    let rpo = RPO.div_f64(wanted.speed).max(Duration::from_secs(1)).as_secs();
    let mut environment = vec![
        ("ELEMENTS_API__BASE_URL".to_owned(), simulator.base_url()),
        ("ELEMENTS_API__TOKEN_URL".to_owned(), simulator.token_url()),
        ("ELEMENTS_API__REQUESTS_PER_SECOND".to_owned(), RATE.to_string()),
        ("ELEMENTS_API__MAX_CONCURRENCY".to_owned(), "16".to_owned()),
        ("ELEMENTS_AUTH__CLIENT_ID".to_owned(), settings.client_id),
        ("ELEMENTS_AUTH__CLIENT_SECRET".to_owned(), settings.client_secret),
        ("ELEMENTS_AUTH__CLIENT_SECRET_EXPIRES".to_owned(), expires),
        (
            "ELEMENTS_COLLECTORS__SCAN_CHANGES__OBJECTS".to_owned(),
            "true".to_owned(),
        ),
        ("ELEMENTS_RPO__DEFAULT".to_owned(), format!("{rpo}s")),
    ];
    for (collector, seconds) in intervals(wanted.customers) {
        environment.push((
            format!("ELEMENTS_COLLECTORS__{}__INTERVAL", collector.to_uppercase()),
            format!("{seconds}s"),
        ));
    }
    environment
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_of_any_size_asks_no_more_than_it_may() {
        let usual: Vec<_> = INTERVALS
            .iter()
            .map(|(name, seconds)| (*name, u64::from(*seconds)))
            .collect();
        let mut few = intervals(40);
        few.sort_by_key(|(name, _)| usual.iter().position(|(known, _)| known == name));
        assert_eq!(few, usual, "few customers are polled as often as can be looked at");
        for customers in [0, 1, 1_000, 10_000, 100_000] {
            let intervals = intervals(customers);
            let costs = budget::costs(customers, PROFILES).into_iter().map(|(name, mut cost)| {
                let seconds = intervals
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, seconds)| *seconds);
                cost.interval = Duration::from_secs(seconds.unwrap_or_default());
                cost
            });
            assert!(Budget::of(&costs.collect::<Vec<_>>(), PACE).suffices, "{customers}");
        }
    }

    #[test]
    fn it_says_how_fast_it_runs_and_of_whom() {
        let said = |customers, speed| {
            subtitle(&args::Simulator {
                listen_address: crate::args::ListenAddress::All(0),
                customers,
                seed: 1,
                speed,
            })
        };
        assert!(said(40, 60.0).starts_with("A demo: 40 simulated customers at 60 times the speed of the real ones."));
        assert!(said(1, 1.0).starts_with("A demo: 1 simulated customer at the speed of the real ones."));
        assert!(said(2, 0.5).contains(" at 0.5 times the speed"));
    }
}
