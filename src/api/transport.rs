//! One request: rate-limited, authorized, limited in time and size, never redirected.

use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, StatusCode};
use tokio::sync::Notify;
use url::Url;

use super::auth::TokenSource;
use super::exchange::{classify, read_body, retry_after};
use super::rate_limiter::{self, Admission, Limits, RateLimiter, Resource};
use super::{Endpoint, Error, Observer, RequestId};
use crate::secret::Secret;

/// Maximum size of a body after decompression. The subscriptions of ten thousand customers in one list have about 35
/// MB; this is twice that.
pub const MAX_BODY_BYTES: usize = 64 << 20;

/// Start of the clock of every rate limiter in the process, so that one can continue another.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Retries of a request after a temporary failure. The retry budget of [`RateLimiter`] limits the sum over all.
const MAX_RETRIES: u32 = 2;

/// Maximum number of waits of a request after a 429. After that, the poll fails.
const MAX_THROTTLES: u32 = 5;

/// Parsed settings of the client.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Base URL of the API.
    pub base_url: Url,
    /// Time limit of a whole request.
    pub timeout: Duration,
    /// Limits of the rate limiter.
    pub limits: Limits,
}

/// A request to the API.
#[derive(Clone, Debug)]
pub struct Call {
    /// Endpoint.
    pub endpoint: Endpoint,
    /// URL.
    pub url: Url,
    /// JSON body of a POST; `None` for a GET.
    pub body: Option<String>,
    /// Scope that it needs.
    pub scope: &'static str,
}

impl Call {
    /// Returns a GET.
    pub(super) fn get(endpoint: Endpoint, scope: &'static str, url: Url) -> Self {
        Self {
            endpoint,
            url,
            body: None,
            scope,
        }
    }
}

/// A successful response.
#[derive(Debug)]
pub enum Answer {
    /// Status 204: explicitly empty.
    Empty,
    /// A complete body.
    Body(Vec<u8>),
}

/// Function that responds to requests instead of the network.
pub type Answers = dyn Fn(&Call) -> Result<Answer, Error> + Send + Sync;

/// Transport shared by all requests.
#[derive(Clone)]
pub struct Transport(Arc<Inner>);

struct Inner {
    client: reqwest::Client,
    tokens: Arc<TokenSource>,
    settings: Settings,
    observer: Arc<dyn Observer>,
    answers: Option<Box<Answers>>,
    limiter: Mutex<RateLimiter>,
    slot_freed: Notify,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("settings", &self.0.settings)
            .finish_non_exhaustive()
    }
}

impl Transport {
    /// Creates a transport whose rate limiter starts now.
    pub fn new(
        client: reqwest::Client,
        tokens: Arc<TokenSource>,
        settings: Settings,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self::build(client, tokens, settings, observer, None)
    }

    /// Creates a transport that responds with `answers`, without tokens, rate limiter and retries, to test parsers with
    /// arbitrary responses faster than over a network.
    pub fn with_answers(
        client: reqwest::Client,
        tokens: Arc<TokenSource>,
        settings: Settings,
        observer: Arc<dyn Observer>,
        answers: Box<Answers>,
    ) -> Self {
        Self::build(client, tokens, settings, observer, Some(answers))
    }

    fn build(
        client: reqwest::Client,
        tokens: Arc<TokenSource>,
        settings: Settings,
        observer: Arc<dyn Observer>,
        answers: Option<Box<Answers>>,
    ) -> Self {
        let limiter = Mutex::new(RateLimiter::new(settings.limits));
        Self(Arc::new(Inner {
            client,
            tokens,
            settings,
            observer,
            answers,
            limiter,
            slot_freed: Notify::new(),
        }))
    }

    /// Returns the base URL of the API.
    pub fn base_url(&self) -> &Url {
        &self.0.settings.base_url
    }

    /// Returns the receiver of events.
    pub fn observer(&self) -> &Arc<dyn Observer> {
        &self.0.observer
    }

    /// Returns the source of tokens.
    pub fn tokens(&self) -> &Arc<TokenSource> {
        &self.0.tokens
    }

    /// Returns the request rate limit per second.
    pub fn rate(&self) -> f64 {
        self.limiter().rate()
    }

    /// Continues the rate limiter of an earlier transport to the same host: a reload does not end a pause.
    pub fn carry_over(&self, earlier: &Self) {
        let is_same = Arc::ptr_eq(&self.0, &earlier.0);
        if !is_same && self.base_url().origin() == earlier.base_url().origin() {
            let next = earlier.limiter().with_limits(self.0.settings.limits);
            *self.limiter() = next;
        }
    }

    /// Returns whether a failed poll may be repeated early. This uses the same budget as retries within a poll, so that
    /// the two do not multiply the load.
    pub fn grants_repetition(&self, endpoint: Endpoint) -> bool {
        let resource = Resource::new(endpoint, "");
        self.limiter().may_retry(self.now(), resource)
    }

    /// Sends a request and reads the complete response, with retries as the budget allows. `last` becomes the id of the
    /// newest attempt, if its response has one.
    ///
    /// # Errors
    /// The error of the last attempt.
    pub async fn call(&self, call: &Call, last: &mut Option<RequestId>) -> Result<Answer, Error> {
        if let Some(answers) = &self.0.answers {
            return answers(call);
        }
        let resource = Resource::new(call.endpoint, call.url.path());
        let mut retries = 0;
        let mut throttles = 0;
        let mut reauthorized = false;
        loop {
            *last = None;
            // Fails before waiting if there is no token.
            self.0.tokens.token(call.scope).await?;
            let slot = self.admission(resource).await?;
            let token = self.token_to_send(call.scope).await?;
            let started = Instant::now();
            let outcome = self.attempt(call, token.expose(), last).await;
            drop(slot);
            self.0
                .observer
                .request(call.endpoint, outcome.status(), started.elapsed());
            let error = match outcome {
                Outcome::Answer(_, answer) => {
                    self.limiter().succeeded(self.now(), resource);
                    return Ok(answer);
                }
                // A token can be revoked before it expires: request a new token and retry once.
                Outcome::Unauthorized if !reauthorized && self.0.tokens.reject(&token) => {
                    self.limiter().succeeded(self.now(), resource);
                    reauthorized = true;
                    self.0.observer.retry(call.endpoint);
                    continue;
                }
                Outcome::Unauthorized => Error::Status(401),
                Outcome::Throttled { wait, .. } => {
                    self.limiter().throttled(self.now(), resource, wait);
                    self.0.observer.throttled(call.endpoint);
                    throttles += 1;
                    if throttles > MAX_THROTTLES {
                        return Err(Error::Throttled);
                    }
                    self.0.observer.retry(call.endpoint);
                    continue;
                }
                Outcome::Failed(_, error) => error,
            };
            if !error.is_transient() {
                if matches!(error, Error::Status(_) | Error::Redirect(_)) {
                    self.limiter().succeeded(self.now(), resource);
                } else {
                    self.limiter().failed(self.now(), resource, fastrand::f64());
                }
                return Err(error);
            }
            let repeat = {
                let mut limiter = self.limiter();
                limiter.failed(self.now(), resource, fastrand::f64());
                retries < MAX_RETRIES && limiter.may_retry(self.now(), resource)
            };
            if !repeat {
                return Err(error);
            }
            tokio::time::sleep(rate_limiter::backoff(retries, fastrand::f64())).await;
            retries += 1;
            self.0.observer.retry(call.endpoint);
        }
    }

    /// Waits until the rate limiter admits another request.
    async fn admission(&self, resource: Resource) -> Result<Slot<'_>, Error> {
        loop {
            let freed = self.0.slot_freed.notified();
            let admission = self.limiter().try_acquire(self.now(), resource);
            match admission {
                Admission::Admitted => return Ok(Slot(&self.0, resource)),
                Admission::Rejected(wait) => return Err(Error::Unavailable(wait)),
                Admission::Wait(wait) => tokio::time::sleep(wait).await,
                Admission::Busy => freed.await,
            }
        }
    }

    /// Returns a token that is valid now, outside of any pause. One fetched before waiting for a slot may have expired,
    /// and the host may request a pause while another is fetched.
    async fn token_to_send(&self, scope: &'static str) -> Result<Arc<Secret>, Error> {
        loop {
            let token = self.0.tokens.token(scope).await?;
            let pause = self.limiter().pause_left(self.now());
            if pause.is_zero() {
                return Ok(token);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&self, call: &Call, token: &str, last: &mut Option<RequestId>) -> Outcome {
        let timeout = self.0.settings.timeout;
        // The client's timeout covers the body only while it is polled; this one covers everything.
        match tokio::time::timeout(timeout, self.exchange(call, token, last)).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Failed(None, Error::Timeout(timeout)),
        }
    }

    async fn exchange(&self, call: &Call, token: &str, last: &mut Option<RequestId>) -> Outcome {
        let method = match call.body {
            None => Method::GET,
            Some(_) => Method::POST,
        };
        let mut request = self
            .0
            .client
            .request(method, call.url.clone())
            .header(ACCEPT, "application/json")
            .bearer_auth(token);
        if let Some(body) = &call.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Outcome::Failed(None, classify(error, self.0.settings.timeout)),
        };
        *last = RequestId::of(response.headers());
        let status = response.status();
        match status {
            StatusCode::OK | StatusCode::CREATED => {}
            StatusCode::NO_CONTENT => return Outcome::Answer(204, Answer::Empty),
            StatusCode::UNAUTHORIZED => return Outcome::Unauthorized,
            StatusCode::TOO_MANY_REQUESTS => {
                return Outcome::Throttled {
                    wait: retry_after(response.headers()),
                };
            }
            status if status.is_redirection() => {
                return Outcome::Failed(Some(status.as_u16()), Error::Redirect(status.as_u16()));
            }
            status => {
                if status == StatusCode::SERVICE_UNAVAILABLE
                    && let Some(wait) = retry_after(response.headers())
                {
                    self.limiter().pause(self.now(), wait);
                }
                return Outcome::Failed(Some(status.as_u16()), Error::Status(status.as_u16()));
            }
        }
        match read_body(response, MAX_BODY_BYTES, self.0.settings.timeout).await {
            Ok(body) => Outcome::Answer(status.as_u16(), Answer::Body(body)),
            Err(error) => Outcome::Failed(Some(status.as_u16()), error),
        }
    }

    fn now(&self) -> Duration {
        EPOCH.elapsed()
    }

    fn limiter(&self) -> MutexGuard<'_, RateLimiter> {
        // Plain numbers that are consistent after every call, even if another thread panics.
        self.0.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slot for a running request, released when dropped, even if its poll is cancelled.
struct Slot<'a>(&'a Inner, Resource);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut limiter = self.0.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        limiter.finished(self.1);
        drop(limiter);
        self.0.slot_freed.notify_one();
    }
}

/// Result of an attempt.
enum Outcome {
    Answer(u16, Answer),
    Unauthorized,
    Throttled { wait: Option<Duration> },
    Failed(Option<u16>, Error),
}

impl Outcome {
    /// Returns the status of the response; `None` without one.
    fn status(&self) -> Option<u16> {
        match self {
            Self::Answer(status, _) => Some(*status),
            Self::Unauthorized => Some(401),
            Self::Throttled { .. } => Some(429),
            Self::Failed(status, _) => *status,
        }
    }
}
