//! A simulated partner API: both API versions on top of one seeded world, a token endpoint, and faults on demand.
//!
//! The simulator implements the API reference independently. It shares no code with the client, so that it does not
//! repeat the client's mistakes. This file is long because the settings, the [`Handle`] and the state that the handle
//! changes belong together.
//!
//! # Time
//!
//! Timestamps come from the wall clock or from [`Clock::Manual`]. [`Settings::speed`] compresses the schedules of
//! backups and scans, and the intervals at which customers join and leave. At speed 60, for example, a daily backup
//! runs every 24 minutes, and a 30-minute run takes 30 seconds.
//!
//! There is no background task; each request first advances the world to the current time. Random values depend only
//! on the seed and on what they are used for, such as a module and a slot of its schedule. Two worlds are therefore
//! equal if they have the same settings, and start and advance at the same times.
//!
//! # Faults
//!
//! `POST /-/faults` replaces the list of faults. The first fault that matches a request applies. The body is a JSON
//! list, for example:
//!
//! ```json
//! [{"path": "/partner/customers/*/jobs", "kind": "throttle", "retry_after": "3", "times": 2},
//!  {"path": "/connect/token", "method": "POST", "kind": "status", "code": 503, "probability": 0.5}]
//! ```
//!
//! `path` is a glob that must match the path as sent; `*` matches any characters, including `/`. `method`, `times`
//! (maximum number of matches), `skip` (number of matching requests to let pass first) and `probability` are optional.
//! [`FaultKind`] describes the kinds.
//!
//! # Other routes
//!
//! `GET /` lists the control routes. They need no token, and faults do not affect them.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::http::StatusCode;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod connection;
mod control;
mod customer;
mod faults;
mod generate;
mod incidents;
mod latency;
mod names;
mod oauth;
mod response;
mod rng;
mod rows;
mod rules;
mod run;
mod scan;
mod schedule;
mod services;
#[cfg(test)]
mod tests;
mod v1;
mod v3;
mod world;

pub use customer::{Customer, Module, Product, ProtectedRow, Tenant};
pub use faults::{Fault, FaultKind};
pub use latency::Latency;
use oauth::Registration;
use response::{ApiResponse, Call};
use rng::SeededRng;
pub use run::Run;
pub use scan::{Change, Container, DailyReport, ScanProfile};
pub use services::{Baseline, Seats, Services};
pub use world::World;

const TOKEN_PATH: &str = "/connect/token";

/// Maximum number of recorded requests. It is enough for a long test, and limits the memory that a demo uses if it runs
/// for weeks.
const MAX_RECORDED_REQUESTS: usize = 100_000;

/// Pause after a failed accept. While file descriptors are exhausted, further attempts would fail immediately.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Settings of the simulated partner.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Seed of the world. Default: 1.
    pub seed: u64,
    /// Initial number of customers. Default: 40.
    pub customers: usize,
    /// Factor by which schedules and durations are compressed. Default: 1.0 (real time). A value that is not
    /// positive and finite is replaced with the default.
    pub speed: f64,
    /// Source of time. Default: the wall clock.
    pub clock: Clock,
    /// Whether customers join and leave. If so, a subscription in a hostile world also expires after three days, and a
    /// scan profile starts to fail after half a day; `speed` divides both times. Default: true.
    pub churn: bool,
    /// Client id of the registration. Default: `demo`.
    pub client_id: String,
    /// Client secret of the registration. Default: `demo-secret`.
    pub client_secret: String,
    /// Certificate registered for client assertions, if any.
    pub certificate_pem: Option<String>,
    /// Scopes granted to the registration. Default: all scopes of both API versions.
    pub scopes: Vec<String>,
    /// Lifetime of a token. Default: one hour.
    pub token_lifetime: Duration,
    /// Number of rows per page in API v1. Default: none (lists are not paged).
    pub v1_page_size: Option<usize>,
    /// Runs that are listed per module. Default: only the newest.
    pub history: History,
    /// Whether the world is hostile: with names, dates and sizes that are hard to parse, and with every module in the
    /// reference if there are enough customers. Default: false.
    pub hostile: bool,
    /// Latency of responses. Default: none.
    pub latency: Latency,
    /// Unix time for which the customers' scenarios are set up. Default: the start of the simulation. A world that
    /// starts earlier includes the events that lead up to the scenarios, and the incidents of the preceding weeks.
    pub scenarios_from: Option<i64>,
}

/// Source of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The system clock.
    Wall,
    /// Fixed Unix time in seconds, until [`Handle::advance`] changes it.
    Manual(i64),
}

/// Selection of a module's runs for job lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// The newest run of each module, in the order of the modules.
    Newest,
    /// The newest runs of each module, up to this number but at least one, shuffled.
    Runs(usize),
}

/// A request that the simulated partner has received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// HTTP method.
    pub method: String,
    /// The path as it was sent, still percent-encoded.
    pub path: String,
    /// The query as it was sent, without the question mark.
    pub query: String,
    /// The body as text.
    pub body: String,
    /// Whether the request had a valid token. For a request to the token endpoint, whether the status was 200.
    pub authorized: bool,
    /// Status of the response; 0 if there was none.
    pub status: u16,
    /// Time at which the complete request had been received, before any delay of the response.
    pub at: Instant,
}

/// The simulated partner, bound to its address but not serving yet.
#[derive(Debug)]
pub struct Simulator {
    listener: TcpListener,
    address: SocketAddr,
    handle: Handle,
}

/// A handle to the simulated partner, for tests and the demo. It is cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    clock: Clock,
    history: History,
    v1_page_size: Option<usize>,
    latency: Latency,
    token_url: String,
    world: World,
    registration: Registration,
    faults: Vec<Fault>,
    requests: VecDeque<Request>,
    rng: SeededRng,
}

/// State that determines the responses of an API version.
#[derive(Clone, Copy, Debug)]
struct View<'a> {
    world: &'a World,
    /// Scopes of the token; `None` if there is no valid token.
    scopes: Option<&'a [String]>,
    history: History,
    v1_page_size: Option<usize>,
    /// Whether to return the first page, whichever page is requested.
    ignore_paging: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 1,
            customers: 40,
            speed: 1.0,
            clock: Clock::Wall,
            churn: true,
            client_id: "demo".to_owned(),
            client_secret: "demo-secret".to_owned(),
            certificate_pem: None,
            scopes: oauth::all_scopes(),
            token_lifetime: Duration::from_secs(3600),
            v1_page_size: None,
            history: History::Newest,
            hostile: false,
            latency: Latency::None,
            scenarios_from: None,
        }
    }
}

impl Simulator {
    /// Creates the world and binds the socket. [`Simulator::run`] then serves requests.
    ///
    /// # Errors
    ///
    /// Returns an error if the address cannot be bound, or the certificate cannot be parsed
    /// ([`std::io::ErrorKind::InvalidInput`]).
    pub async fn bind(settings: Settings, address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let state = State::new(&settings, format!("{}{TOKEN_PATH}", base_url(address)))?;
        Ok(Self {
            listener,
            address,
            handle: Handle(Arc::new(Mutex::new(state))),
        })
    }

    /// Returns the bound address with its actual port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the base URL of the API, such as `http://127.0.0.1:10028`, without a trailing slash.
    #[must_use]
    pub fn base_url(&self) -> String {
        base_url(self.address)
    }

    /// Returns the URL of the token endpoint.
    #[must_use]
    pub fn token_url(&self) -> String {
        format!("{}{TOKEN_PATH}", self.base_url())
    }

    /// Returns a handle to the simulated partner.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves requests until `shutdown` is cancelled. Returns shortly afterwards, even if faults keep requests hanging.
    /// A failed accept is retried.
    pub async fn run(self, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection::serve(stream, self.handle.clone(), shutdown.clone()));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
        connections.close();
        connections.wait().await;
    }
}

impl Handle {
    /// Calls `f` with the world, advanced to the current time.
    pub fn with_world<R>(&self, f: impl FnOnce(&mut World) -> R) -> R {
        let mut state = self.state();
        state.catch_up();
        f(&mut state.world)
    }

    /// Advances a manual clock. Has no effect on the wall clock.
    pub fn advance(&self, by: Duration) {
        self.state().advance(by);
    }

    /// Replaces the faults.
    pub fn set_faults(&self, faults: Vec<Fault>) {
        self.state().faults = faults;
    }

    /// Removes all faults. Requests that are already hanging continue to hang.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// Returns the latest requests, at most 100 000, in the order in which they were received. Requests to the control
    /// routes are excluded.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.iter().cloned().collect()
    }

    /// Clears the recorded requests.
    pub fn clear_requests(&self) {
        self.state().requests.clear();
    }

    /// Replaces the scopes granted to the registration. The scopes of existing tokens do not change.
    pub fn set_scopes(&self, scopes: Vec<String>) {
        self.state().registration.scopes = scopes;
    }

    /// Replaces the client secret.
    pub fn set_secret(&self, secret: String) {
        self.state().registration.secret = secret;
    }

    /// Invalidates all existing tokens.
    pub fn revoke_tokens(&self) {
        self.state().registration.revoke();
    }

    /// Returns the number of requests to the token endpoint, regardless of their result.
    #[must_use]
    pub fn token_requests(&self) -> usize {
        self.state().registration.requests
    }

    /// Locks the state. Ignores a poisoned lock, because the world remains usable after a test has panicked.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(settings: &Settings, token_url: String) -> std::io::Result<Self> {
        Ok(Self {
            clock: settings.clock,
            history: settings.history,
            v1_page_size: settings.v1_page_size,
            latency: settings.latency,
            token_url,
            world: World::new(settings, settings.clock.now()),
            registration: Registration::new(settings)?,
            faults: Vec::new(),
            requests: VecDeque::new(),
            rng: SeededRng::from_path(&[settings.seed, 0xFA17]),
        })
    }

    fn catch_up(&mut self) {
        self.world.advance(self.clock.now());
    }

    fn advance(&mut self, by: Duration) {
        if let Clock::Manual(now) = &mut self.clock {
            *now = now.saturating_add(i64::try_from(by.as_secs()).unwrap_or(i64::MAX));
        }
        self.catch_up();
    }

    /// Returns the response to a request, and how to deliver it.
    fn respond(&mut self, call: &Call) -> (ApiResponse, faults::Delivery) {
        self.catch_up();
        if control::owns(&call.path) {
            return (control::respond(self, call), faults::Delivery::default());
        }
        if call.path == TOKEN_PATH {
            self.registration.requests += 1;
        }
        let fault = faults::pick(&mut self.faults, &call.method, &call.path, &mut self.rng);
        let response = match fault.clone() {
            None => self.correct_response(call, false),
            Some(kind) => kind.apply(|ignore_paging| self.correct_response(call, ignore_paging)),
        };
        let latency = self.latency.pause(&call.path, &response);
        let delivery = faults::Delivery { fault, latency };
        let status = delivery.sends_status().then(|| response.status.as_u16());
        self.record_request(call, status.unwrap_or(0));
        // The vendor's support team identifies a request by this header.
        let response = response.with_header("request-id", &self.rng.uuid());
        (response, delivery)
    }

    fn correct_response(&mut self, call: &Call, ignore_paging: bool) -> ApiResponse {
        if call.path == TOKEN_PATH {
            return self.registration.token(call, &self.token_url, self.clock.now());
        }
        let view = View {
            world: &self.world,
            scopes: self
                .registration
                .scopes_of(call.authorization.as_deref(), self.clock.now()),
            history: self.history,
            v1_page_size: self.v1_page_size,
            ignore_paging,
        };
        let segments = call.segments();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match segments.as_slice() {
            ["partner", "external", "v3", "general", rest @ ..] => v3::respond(view, call, rest),
            ["partner", "external", "v3", rest @ ..] => v3::services::respond(view, call, rest),
            ["partner", "api", "V1.1", rest @ ..] | ["partner", rest @ ..] => v1::respond(view, call, rest),
            _ => ApiResponse::error(StatusCode::NOT_FOUND, "no such path"),
        }
    }

    fn record_request(&mut self, call: &Call, status: u16) {
        let authorized = if call.path == TOKEN_PATH {
            status == 200
        } else {
            self.registration
                .scopes_of(call.authorization.as_deref(), self.clock.now())
                .is_some()
        };
        if self.requests.len() >= MAX_RECORDED_REQUESTS {
            self.requests.pop_front();
        }
        self.requests.push_back(Request {
            method: call.method.clone(),
            path: call.path.clone(),
            query: call.query.clone(),
            body: call.body.clone(),
            authorized,
            status,
            at: Instant::now(),
        });
    }
}

impl View<'_> {
    /// Returns the error response if the request has no valid token, or if its token lacks the scope.
    fn error_response(&self, scope: &str) -> Option<ApiResponse> {
        match self.scopes {
            None => Some(
                ApiResponse::error(StatusCode::UNAUTHORIZED, "the token is missing or no longer valid")
                    .with_header("www-authenticate", "Bearer"),
            ),
            Some(scopes) if scopes.iter().any(|granted| granted == scope) => None,
            Some(_) => Some(ApiResponse::error(
                StatusCode::FORBIDDEN,
                &format!("the token lacks {scope}"),
            )),
        }
    }
}

impl Clock {
    fn now(self) -> i64 {
        match self {
            Self::Manual(now) => now,
            Self::Wall => SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .ok()
                .and_then(|since| i64::try_from(since.as_secs()).ok())
                .unwrap_or(0),
        }
    }
}

/// Returns the URL of the simulator. An unspecified address is replaced with the loopback address.
fn base_url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}
