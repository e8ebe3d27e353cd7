//! A simulated partner API: both generations over one seeded world, its token endpoint, and faults on demand.
//!
//! It is a witness and not an echo: everything that it sends is written down here a second time from the
//! API's reference, and nothing of the client's side is used.
//!
//! # Time
//!
//! Time stamps are real ones (or those of [`Clock::Manual`]). The schedule of backups, scans and of customers
//! that come and go is divided by [`Settings::speed`]: at speed 60 a daily backup runs every 24 minutes, and a
//! 30-minute run takes 30 seconds. There is no background task: the world is brought up to date when somebody
//! asks. Runs depend on the seed and their slot alone, so two worlds of one seed tell the same story.
//!
//! # Faults
//!
//! `POST /-/faults` takes a JSON list, which replaces the one in force; the first that matches a request wins:
//!
//! ```json
//! [{"path": "/partner/customers/*/jobs", "kind": "throttle", "retry_after": "3", "times": 2},
//!  {"path": "/connect/token", "method": "POST", "kind": "status", "code": 503, "probability": 0.5}]
//! ```
//!
//! `path` is a glob over the path as sent (`*`: any characters, also `/`). `method`, `times` (at most so often),
//! `skip` (let so many matching requests pass first) and `probability` may be left out. The kinds are those of
//! [`FaultKind`].
//!
//! # Other routes
//!
//! `GET /` lists them. They need no token and are never subject to faults.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::body::Body;
use axum::http::{Request as HttpRequest, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod answer;
mod control;
mod customer;
mod dice;
mod faults;
mod generate;
mod names;
mod oauth;
mod schedule;
#[cfg(test)]
mod tests;
mod v1;
mod v3;
mod world;

use answer::{Answer, Call};
pub use customer::{Change, Container, Customer, DailyReport, Module, Product, ProtectedRow, ScanProfile, Tenant};
use dice::Dice;
pub use faults::{Fault, FaultKind};
use oauth::Registration;
pub use schedule::Run;
pub use world::World;

/// The path of the token endpoint.
const TOKEN_PATH: &str = "/connect/token";

/// Requests remembered: enough for a long test, bounded for a demo that runs for weeks.
const REQUESTS_KEPT: usize = 100_000;

/// How long open connections may finish what they are at once the shutdown has begun. Hanging faults never
/// finish, so this is also about how long the shutdown takes with them.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(300);

/// A pause after a failed accept, which may be for want of file descriptors and would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the simulated partner is like.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Decides everything that is not said otherwise; 1.
    pub seed: u64,
    /// Customers at the start; 40.
    pub customers: usize,
    /// By how much schedules and durations are compressed; 1.0 is real time. Not positive: 1.0.
    pub speed: f64,
    /// Where time comes from; the wall clock.
    pub clock: Clock,
    /// Whether customers join and leave, a licence runs out and a scan profile begins to fail; true.
    pub churn: bool,
    /// The registered client; `demo`.
    pub client_id: String,
    /// Its secret; `demo-secret`.
    pub client_secret: String,
    /// The certificate registered for client assertions, if any.
    pub certificate_pem: Option<String>,
    /// The scopes that the registration holds; all of both generations.
    pub scopes: Vec<String>,
    /// How long a token lives; an hour.
    pub token_lifetime: Duration,
    /// Rows of a first-generation page; none: lists come whole.
    pub v1_page_size: Option<usize>,
    /// How many runs of a module are listed; the newest.
    pub history: History,
    /// Requests a second, for the whole host, beyond which the answer is 429; none.
    pub rate_limit: Option<f64>,
}

/// Where time comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The system's clock.
    Wall,
    /// Unix seconds that only [`Handle::advance`] moves.
    Manual(i64),
}

/// How many runs of a module the lists of jobs hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// The newest run of each module, in the order of the modules.
    Newest,
    /// Up to so many of the newest runs of each module, all of them shuffled.
    Runs(usize),
}

/// A request that the simulated partner has seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path as it was sent, still percent-encoded.
    pub path: String,
    /// The query as it was sent, without the question mark.
    pub query: String,
    /// The body as text.
    pub body: String,
    /// Whether it carried a live token; of the token endpoint, whether it was given one.
    pub authorized: bool,
    /// The status answered; 0 where there is no answer.
    pub status: u16,
    /// When it was decided on.
    #[serde(skip)]
    pub at: Instant,
}

/// The simulated partner, bound to its address and not yet serving.
#[derive(Debug)]
pub struct Simulator {
    listener: TcpListener,
    address: SocketAddr,
    handle: Handle,
}

/// A hold on the simulated partner that is cheap to clone, for tests and for the demo.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    clock: Clock,
    history: History,
    v1_page_size: Option<usize>,
    limiter: Option<Limiter>,
    token_url: String,
    world: World,
    registration: Registration,
    faults: Vec<Fault>,
    requests: VecDeque<Request>,
    dice: Dice,
}

/// What a generation of the API sees when it writes an answer.
#[derive(Clone, Copy, Debug)]
struct View<'a> {
    world: &'a World,
    /// The scopes of the token, or none without a live one.
    scopes: Option<&'a [String]>,
    history: History,
    v1_page_size: Option<usize>,
    /// Answer the first page whatever is asked.
    ignore_paging: bool,
}

/// A token bucket over real time that holds one second's worth.
#[derive(Debug)]
struct Limiter {
    rate: f64,
    allowance: f64,
    last: Instant,
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
            rate_limit: None,
        }
    }
}

impl Simulator {
    /// Makes the world and binds the socket; [`Simulator::run`] then serves.
    ///
    /// # Errors
    ///
    /// The address cannot be bound, or the certificate cannot be read ([`std::io::ErrorKind::InvalidInput`]).
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

    /// The address that is bound, with its real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base of the API, such as `http://127.0.0.1:10028`, without a slash at the end.
    #[must_use]
    pub fn base_url(&self) -> String {
        base_url(self.address)
    }

    /// The token endpoint.
    #[must_use]
    pub fn token_url(&self) -> String {
        format!("{}{TOKEN_PATH}", self.base_url())
    }

    /// A hold on the world and its faults.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until the shutdown is cancelled, and ends soon after that, hanging faults or not.
    ///
    /// # Errors
    ///
    /// None at present: an accept that fails is tried again.
    pub async fn run(self, shutdown: CancellationToken) -> std::io::Result<()> {
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, self.handle.clone(), shutdown.clone()));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
        connections.close();
        connections.wait().await;
        Ok(())
    }
}

impl Handle {
    /// Reads or changes the world, brought up to date first.
    pub fn with_world<R>(&self, f: impl FnOnce(&mut World) -> R) -> R {
        let mut state = self.state();
        state.pass();
        f(&mut state.world)
    }

    /// Moves a manual clock; the wall clock is left alone.
    pub fn advance(&self, by: Duration) {
        self.state().advance(by);
    }

    /// Replaces the faults.
    pub fn set_faults(&self, faults: Vec<Fault>) {
        self.state().faults = faults;
    }

    /// Takes all faults away. A request that already hangs goes on hanging.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// The newest requests, oldest first, at most 100 000; those for the control routes are left out.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.iter().cloned().collect()
    }

    /// Forgets the requests seen so far.
    pub fn clear_requests(&self) {
        self.state().requests.clear();
    }

    /// Replaces the scopes that the registration holds. Tokens keep what they were given.
    pub fn set_scopes(&self, scopes: Vec<String>) {
        self.state().registration.set_scopes(scopes);
    }

    /// Replaces the client secret.
    pub fn set_secret(&self, secret: String) {
        self.state().registration.set_secret(secret);
    }

    /// Makes every token so far invalid.
    pub fn revoke_tokens(&self) {
        self.state().registration.revoke();
    }

    /// How many requests have reached the token endpoint, whatever came of them.
    #[must_use]
    pub fn token_requests(&self) -> usize {
        self.state().registration.requests()
    }

    /// A test that panicked while it held the world says nothing about the world's use to others.
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
            limiter: settings.rate_limit.map(Limiter::new),
            token_url,
            world: World::new(settings, settings.clock.now()),
            registration: Registration::new(settings)?,
            faults: Vec::new(),
            requests: VecDeque::new(),
            dice: Dice::of(&[settings.seed, 0xFA17]),
        })
    }

    fn pass(&mut self) {
        self.world.advance(self.clock.now());
    }

    fn advance(&mut self, by: Duration) {
        if let Clock::Manual(now) = &mut self.clock {
            *now = now.saturating_add(i64::try_from(by.as_secs()).unwrap_or(i64::MAX));
        }
        self.pass();
    }

    /// Decides what a request is answered and how the answer travels.
    fn respond(&mut self, call: &Call) -> (Answer, faults::Delivery) {
        self.pass();
        if control::owns(&call.path) {
            return (control::answer(self, call), faults::Delivery::Whole);
        }
        if call.path == TOKEN_PATH {
            self.registration.count_request();
        }
        let (answer, delivery) = if self.limiter.as_mut().is_some_and(Limiter::is_exhausted) {
            (throttled(), faults::Delivery::Whole)
        } else {
            match faults::pick(&mut self.faults, &call.method, &call.path, &mut self.dice) {
                None => (self.right_answer(call, false), faults::Delivery::Whole),
                Some(kind) => kind.spoil(|ignore_paging| self.right_answer(call, ignore_paging)),
            }
        };
        self.remember(call, if delivery.answers() { answer.status.as_u16() } else { 0 });
        (answer, delivery)
    }

    fn right_answer(&mut self, call: &Call, ignore_paging: bool) -> Answer {
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
            ["partner", "external", "v3", "general", rest @ ..] => v3::answer(view, call, rest),
            ["partner", "api", "V1.1", rest @ ..] | ["partner", rest @ ..] => v1::answer(view, call, rest),
            _ => Answer::error(StatusCode::NOT_FOUND, "no such path"),
        }
    }

    fn remember(&mut self, call: &Call, status: u16) {
        let authorized = if call.path == TOKEN_PATH {
            status == 200
        } else {
            self.registration
                .scopes_of(call.authorization.as_deref(), self.clock.now())
                .is_some()
        };
        if self.requests.len() >= REQUESTS_KEPT {
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
    /// Refuses a request without a live token, or whose token lacks the scope.
    fn refusal(&self, scope: &str) -> Option<Answer> {
        match self.scopes {
            None => Some(
                Answer::error(StatusCode::UNAUTHORIZED, "the token is missing or no longer valid")
                    .with_header("www-authenticate", "Bearer"),
            ),
            Some(scopes) if scopes.iter().any(|held| held == scope) => None,
            Some(_) => Some(Answer::error(
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

impl Limiter {
    fn new(rate: f64) -> Self {
        Self {
            rate,
            allowance: rate.max(1.0),
            last: Instant::now(),
        }
    }

    /// Takes one request's worth; true if there was none.
    fn is_exhausted(&mut self) -> bool {
        let now = Instant::now();
        let gained = now.duration_since(self.last).as_secs_f64() * self.rate;
        self.last = now;
        self.allowance = (self.allowance + gained).min(self.rate.max(1.0));
        let exhausted = self.allowance < 1.0;
        if !exhausted {
            self.allowance -= 1.0;
        }
        exhausted
    }
}

fn throttled() -> Answer {
    Answer::error(StatusCode::TOO_MANY_REQUESTS, "too many requests").with_header("retry-after", "1")
}

/// Where the simulator is reached; an address that stands for all of the machine's is reached by loopback.
fn base_url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

async fn serve(stream: TcpStream, handle: Handle, shutdown: CancellationToken) {
    let cut = CancellationToken::new();
    let service = service_fn(|request| exchange(&handle, &cut, request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // How a connection ends is the client's affair; dropping it closes it without an answer.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = cut.cancelled() => return,
        () = shutdown.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(SHUTDOWN_GRACE, connection).await;
}

async fn exchange(
    handle: &Handle,
    cut: &CancellationToken,
    request: HttpRequest<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (answer, delivery) = match Call::read(request).await {
        Ok(call) => handle.state().respond(&call),
        Err(refused) => (refused, faults::Delivery::Whole),
    };
    match delivery.deliver(answer).await {
        Some(response) => Ok(response),
        None => {
            cut.cancel();
            std::future::pending().await
        }
    }
}
