//! The demo: the exporter runs as in production, with a simulated partner in the same process.

mod backfill;
mod past;
mod state;

use std::ffi::OsString;
use std::io::Write as _;
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;
use tokio_util::sync::CancellationToken;

use super::budget::{self, Budget, RequestLimits};
use super::{App, Error, LoadConfig};
use crate::args;
use crate::collector;
use crate::config::DEFAULT_STALE_INTERVALS;
use crate::domain::counted;
use crate::simulator::{self, Simulator};

pub use backfill::{Backfilled, backfill};
use state::PreparedState;

/// Remaining lifetime of the demo's client secret, shown on the status pages.
const SECRET_LIFETIME: Duration = Duration::from_secs(60 * 24 * 3600);

/// Seconds between two polls of a target, by collector. The intervals are short, because a demo usually runs for only a
/// few minutes. If the polls would exceed [`LIMITS`], all intervals are multiplied by the same factor.
const INTERVALS: &[(&str, u32)] = &[
    ("customers", 10),
    ("jobs", 5),
    ("protected", 15),
    ("licenses", 20),
    ("job_reports", 10),
];

/// Seconds between two polls of a target of any other collector.
const DEFAULT_INTERVAL: u32 = 30;

/// Minimum `stale_after`, in seconds. The default, a few intervals, would be shorter than the usual scrape interval of
/// Prometheus, so the rules would treat fresh data as stale.
const MIN_STALE_AFTER: u64 = 300;

/// Maximum number of requests per second.
const MAX_RATE: f64 = 500.0;

/// Requests per second that the intervals are designed for. Even a slow machine can sustain this rate while it also
/// runs the simulator.
const TARGET_RATE: f64 = MAX_RATE / 2.0;

/// Request limits for the intervals. Concurrency is unlimited, because the simulator responds immediately by default.
const LIMITS: RequestLimits = RequestLimits {
    requests_per_second: TARGET_RATE,
    max_concurrency: usize::MAX,
};

/// Estimated number of scan profiles per customer. It is above the average, to allow for the additional requests for
/// each profile's objects.
const PROFILES_PER_CUSTOMER: usize = 4;

/// Attributes file of the simulated customers.
const ATTRIBUTES: &str = "\
customer,tier,region,team
[a-f]*,gold,emea,North
[g-m]*,silver,emea,South
[n-s]*,silver,americas,North
*,bronze,apac,South
";

/// The exporter and its simulated partner, bound to their addresses but not running yet.
pub struct Demo {
    app: App,
    simulator: Simulator,
    _attributes: Option<NamedTempFile>,
    _state: Option<PreparedState>,
}

impl Demo {
    /// Binds the addresses of the exporter and the simulated partner.
    ///
    /// # Errors
    /// Returns an error if the simulated partner's address cannot be bound, or if [`App::bind`] fails.
    pub async fn bind(options: &args::Simulator, web: args::Web) -> Result<Self, Error> {
        let simulator = simulate(options).await?;
        let attributes = attributes();
        let mut environment = environment(&simulator, attributes.as_ref(), intervals(options.customers));
        let started = simulator.handle().with_world(|world| world.now());
        let state = PreparedState::create_or_warn(options, started).await;
        if let Some(state) = &state {
            environment.push(("ELEMENTS_STATE__FILE".into(), state.path().into()));
        }
        let load: LoadConfig = std::sync::Arc::new(move || crate::config::load(None, environment.clone()));
        let app = App::bind(load, None, web, subtitle(options)).await?;
        Ok(Self {
            app,
            simulator,
            _attributes: attributes,
            _state: state,
        })
    }

    /// Returns the exporter.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Returns the URL of the simulated partner's API.
    pub fn partner(&self) -> String {
        self.simulator.base_url()
    }

    /// Runs the exporter and the simulated partner until `stop` is cancelled. Returns false if the poll loop ended
    /// unexpectedly.
    pub async fn run(self, stop: CancellationToken) -> bool {
        let partner = self.simulator.run(stop.clone());
        let (was_stopped, ()) = tokio::join!(self.app.run(stop), partner);
        was_stopped
    }
}

fn settings(options: &args::Simulator) -> simulator::Settings {
    simulator::Settings {
        seed: options.seed,
        customers: options.customers,
        speed: options.speed,
        hostile: options.hostile,
        latency: options.latency,
        ..simulator::Settings::default()
    }
}

/// Binds the address of the simulated partner.
///
/// # Errors
/// Returns an error if the address cannot be bound.
pub async fn simulate(options: &args::Simulator) -> Result<Simulator, Error> {
    let settings = settings(options);
    let mut last_error = None;
    for candidate in options.listen_address.candidates() {
        let bound = async {
            let address = tokio::net::lookup_host(&candidate).await?.next();
            let address = address.ok_or_else(|| std::io::Error::other("no address"))?;
            Simulator::bind(settings.clone(), address).await
        };
        match bound.await {
            Ok(simulator) => return Ok(simulator),
            Err(source) => last_error = Some(source),
        }
    }
    Err(Error::Bind {
        address: options.listen_address.to_string(),
        source: last_error.unwrap_or_else(|| std::io::Error::other("no address")),
    })
}

/// Writes the customers' attributes to a temporary file. Returns `None` if that is impossible, for example in a
/// read-only container. The customers then have no attributes.
fn attributes() -> Option<NamedTempFile> {
    let mut file = tempfile::Builder::new().suffix(".csv").tempfile().ok()?;
    file.write_all(ATTRIBUTES.as_bytes()).ok()?;
    Some(file)
}

fn subtitle(options: &args::Simulator) -> String {
    let customers = counted(options.customers, "simulated customer", "simulated customers");
    let times = match options.speed.to_string().as_str() {
        "1" => String::new(),
        speed => format!("{speed} times "),
    };
    format!("A demo with {customers}, at {times}normal speed. Nothing here is real.")
}

/// Returns each collector's poll interval in seconds, given the number of customers.
fn intervals(customers: usize) -> Vec<(&'static str, u64)> {
    let mut costs = budget::typical_costs(customers, PROFILES_PER_CUSTOMER);
    costs.extend(budget::optional_costs(customers));
    for (name, cost) in &mut costs {
        let known = INTERVALS.iter().find(|(known, _)| known == name);
        let seconds = known.map_or(DEFAULT_INTERVAL, |(_, seconds)| *seconds);
        cost.interval = Duration::from_secs(u64::from(seconds));
    }
    let all: Vec<_> = costs.iter().map(|(_, cost)| *cost).collect();
    let stretch = Budget::of(&all, LIMITS).stretch();
    let stretched = |interval: Duration| interval.mul_f64(stretch).as_secs_f64().ceil();
    costs
        .into_iter()
        .map(|(name, cost)| (name, Duration::from_secs_f64(stretched(cost.interval)).as_secs()))
        .collect()
}

/// Returns the configuration of the demo as environment variables, with these poll intervals in seconds.
fn environment(
    simulator: &Simulator,
    attributes: Option<&NamedTempFile>,
    intervals: impl IntoIterator<Item = (&'static str, u64)>,
) -> Vec<(OsString, OsString)> {
    let settings = simulator::Settings::default();
    let expires = jiff::Timestamp::try_from(SystemTime::now() + SECRET_LIFETIME);
    let expires = expires.map(|at| at.to_string()).unwrap_or_default();
    let mut environment = vec![
        ("ELEMENTS_API__BASE_URL".to_owned(), simulator.base_url()),
        ("ELEMENTS_API__TOKEN_URL".to_owned(), simulator.token_url()),
        ("ELEMENTS_API__REQUESTS_PER_SECOND".to_owned(), MAX_RATE.to_string()),
        ("ELEMENTS_API__MAX_CONCURRENCY".to_owned(), "16".to_owned()),
        ("ELEMENTS_AUTH__CLIENT_ID".to_owned(), settings.client_id),
        ("ELEMENTS_AUTH__CLIENT_SECRET".to_owned(), settings.client_secret),
        ("ELEMENTS_AUTH__CLIENT_SECRET_EXPIRES".to_owned(), expires),
        (
            "ELEMENTS_COLLECTORS__SCAN_CHANGES__OBJECTS".to_owned(),
            "true".to_owned(),
        ),
    ];
    for entry in collector::ALL.iter().filter(|entry| entry.is_optional) {
        let name = entry.name.to_uppercase();
        environment.push((format!("ELEMENTS_COLLECTORS__{name}__ENABLED"), "true".to_owned()));
    }
    if let Some(file) = attributes.and_then(|file| file.path().to_str()) {
        environment.push(("ELEMENTS_CUSTOMERS__ATTRIBUTES_FILE".to_owned(), file.to_owned()));
    }
    for (collector, seconds) in intervals {
        let key = format!("ELEMENTS_COLLECTORS__{}", collector.to_uppercase());
        environment.push((format!("{key}__INTERVAL"), format!("{seconds}s")));
        let stale_after = MIN_STALE_AFTER.max(seconds.saturating_mul(DEFAULT_STALE_INTERVALS.into()));
        environment.push((format!("{key}__STALE_AFTER"), format!("{stale_after}s")));
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
    fn demo_of_any_size_stays_within_its_request_rate() {
        let few = intervals(40);
        for (name, seconds) in INTERVALS {
            let interval = few.iter().find(|(known, _)| known == name);
            let usual = Some(u64::from(*seconds));
            assert_eq!(
                interval.map(|(_, interval)| *interval),
                usual,
                "{name} must poll often if there are few customers"
            );
        }
        for customers in [0, 1, 1_000, 10_000, 100_000] {
            let intervals = intervals(customers);
            let costs = budget::typical_costs(customers, PROFILES_PER_CUSTOMER)
                .into_iter()
                .chain(budget::optional_costs(customers))
                .map(|(name, mut cost)| {
                    let seconds = intervals
                        .iter()
                        .find(|(known, _)| *known == name)
                        .map(|(_, seconds)| *seconds);
                    cost.interval = Duration::from_secs(seconds.unwrap_or_default());
                    cost
                });
            assert!(Budget::of(&costs.collect::<Vec<_>>(), LIMITS).suffices, "{customers}");
        }
    }

    #[test]
    fn subtitle_contains_the_speed_and_the_customers() {
        let subtitle_of = |customers, speed| {
            subtitle(&args::Simulator {
                listen_address: crate::args::ListenAddress::All(0),
                customers,
                seed: 1,
                speed,
                hostile: false,
                latency: simulator::Latency::None,
            })
        };
        assert!(subtitle_of(40, 60.0).starts_with("A demo with 40 simulated customers, at 60 times normal speed."));
        assert!(subtitle_of(1, 1.0).starts_with("A demo with 1 simulated customer, at normal speed."));
        assert!(subtitle_of(2, 0.5).contains(" at 0.5 times normal speed"));
    }
}
