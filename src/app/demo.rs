//! The demo: the exporter as in production, against a partner that is simulated in the same process.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;
use tracing::error;

use super::{App, Error, LoadConfig, load_config};
use crate::args;
use crate::domain::counted;
use crate::simulator::{self, Simulator};

/// How old restore points may be in the simulated partner's own time, which runs faster than ours.
const RPO: Duration = Duration::from_secs(26 * 3600);

/// How long the demo's secret is said to last. What the figure looks like matters, not which it is.
const SECRET_LIFE: Duration = Duration::from_secs(60 * 24 * 3600);

/// Seconds between two polls of each collector. A demo is looked at for minutes, not for hours.
const INTERVALS: &[(&str, u32)] = &[
    ("CUSTOMERS", 10),
    ("JOBS", 5),
    ("PROTECTED", 15),
    ("LICENSES", 20),
    ("SCAN_PROFILES", 30),
    ("SCAN_CHANGES", 30),
];

/// How many customers can be polled as often as that. Each takes half a request a second, so these take half of the rate;
/// where there are more, everything is polled less often.
const CUSTOMERS_IN_TIME: f64 = 500.0;

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
        let speed = match wanted.speed {
            1.0 => "the speed".to_owned(),
            speed => format!("{speed} times the speed"),
        };
        let customers = counted(
            u64::try_from(wanted.customers).unwrap_or(u64::MAX),
            "simulated customer",
            "simulated customers",
        );
        let subtitle = format!("A demo: {customers} at {speed} of the real ones. Nothing here is real.");
        let app = App::bind(load, web, subtitle).await?;
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

/// The configuration of the demo, as an operator would write it into the environment.
fn environment(simulator: &Simulator, wanted: &args::Simulator) -> Vec<(OsString, OsString)> {
    let settings = simulator::Settings::default();
    let expires = jiff::Timestamp::try_from(SystemTime::now() + SECRET_LIFE);
    let expires = expires.map(|at| at.to_string()).unwrap_or_default();
    let rpo = RPO.div_f64(wanted.speed).max(Duration::from_secs(1)).as_secs();
    let mut environment = vec![
        ("ELEMENTS_API__BASE_URL".to_owned(), simulator.base_url()),
        ("ELEMENTS_API__TOKEN_URL".to_owned(), simulator.token_url()),
        ("ELEMENTS_API__REQUESTS_PER_SECOND".to_owned(), "500".to_owned()),
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
    let customers = u32::try_from(wanted.customers).map_or(f64::MAX, f64::from);
    let stretch = (customers / CUSTOMERS_IN_TIME).max(1.0);
    for (collector, seconds) in INTERVALS {
        let seconds = (f64::from(*seconds) * stretch).ceil();
        environment.push((
            format!("ELEMENTS_COLLECTORS__{collector}__INTERVAL"),
            format!("{seconds}s"),
        ));
    }
    environment
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}
