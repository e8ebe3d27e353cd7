//! Sends API requests. Each attempt is authorized and rate-limited, has a timeout and a maximum response size, and does
//! not follow redirects.

use std::fmt;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, StatusCode};
use tokio::sync::Notify;
use url::Url;

use super::auth::TokenSource;
use super::exchange::{classify, read_body, retry_after};
use super::rate_limiter::{self, Admission, RateLimiter, RequestLimits, Resource};
use super::{Endpoint, Error, Observer, RequestId};
use crate::lock::lock;
use crate::secret::Secret;

/// Maximum size of a body after decompression. The subscriptions of ten thousand customers are about half this size
/// (35 MB).
pub const MAX_BODY_BYTES: usize = 64 << 20;

/// Instant from which all rate limiters in the process measure time, so that a new limiter can copy an earlier
/// limiter's pause.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Maximum number of retries of a request after a temporary failure. The retry budget of [`RateLimiter`] limits the
/// retries of all requests together.
const MAX_RETRIES: u32 = 2;

/// Maximum number of retries of a request after responses with status 429.
const MAX_THROTTLES: u32 = 5;

/// Settings of a transport.
#[derive(Clone, Debug)]
pub struct TransportSettings {
    /// Base URL of the API.
    pub base_url: Url,
    /// Time limit for an attempt, from connecting to the last byte of the response.
    pub timeout: Duration,
    /// Limits of the rate limiter.
    pub limits: RequestLimits,
}

/// A request to the API.
#[derive(Clone, Debug)]
pub struct Call {
    /// Endpoint under which the request is counted.
    pub endpoint: Endpoint,
    /// URL of the request.
    pub url: Url,
    /// JSON body of a POST; `None` for a GET.
    pub body: Option<String>,
    /// Required scope.
    pub scope: &'static str,
}

impl Call {
    /// Returns a GET request.
    pub(super) fn get(endpoint: Endpoint, scope: &'static str, url: Url) -> Self {
        Self {
            endpoint,
            url,
            body: None,
            scope,
        }
    }
}

/// Body of a successful response.
#[derive(Debug)]
pub enum ResponseBody {
    /// The status is 204.
    Empty,
    /// A complete body.
    Content(Vec<u8>),
}

/// Function that responds to requests in place of the network.
pub type Responder = dyn Fn(&Call) -> Result<ResponseBody, Error> + Send + Sync;

/// Transport shared by all requests.
#[derive(Clone)]
pub struct Transport(Arc<Inner>);

struct Inner {
    client: reqwest::Client,
    tokens: Arc<TokenSource>,
    settings: TransportSettings,
    observer: Arc<dyn Observer>,
    responder: Option<Box<Responder>>,
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
    /// Creates a transport with a new rate limiter. In tests of parsers, a `responder` replaces the network, tokens,
    /// rate limiter and retries.
    pub fn new(
        client: reqwest::Client,
        tokens: Arc<TokenSource>,
        settings: TransportSettings,
        observer: Arc<dyn Observer>,
        responder: Option<Box<Responder>>,
    ) -> Self {
        let limiter = Mutex::new(RateLimiter::new(settings.limits));
        Self(Arc::new(Inner {
            client,
            tokens,
            settings,
            observer,
            responder,
            limiter,
            slot_freed: Notify::new(),
        }))
    }

    /// Returns the base URL of the API.
    pub fn base_url(&self) -> &Url {
        &self.0.settings.base_url
    }

    /// Returns the observer that receives events.
    pub fn observer(&self) -> &Arc<dyn Observer> {
        &self.0.observer
    }

    /// Returns the source of tokens.
    pub fn tokens(&self) -> &Arc<TokenSource> {
        &self.0.tokens
    }

    /// Returns the request rate limit, in requests per second.
    pub fn rate(&self) -> f64 {
        lock(&self.0.limiter).rate()
    }

    /// Copies the rate limiter's state from an earlier transport for the same host, so that a reload does not end a
    /// pause.
    pub fn carry_over(&self, earlier: &Self) {
        let is_same = Arc::ptr_eq(&self.0, &earlier.0);
        if !is_same && self.base_url().origin() == earlier.base_url().origin() {
            let next = lock(&earlier.0.limiter).with_limits(self.0.settings.limits);
            *lock(&self.0.limiter) = next;
        }
    }

    /// Returns whether a failed poll may be repeated early. Repeated polls and retries within a poll share one budget,
    /// so that together they do not multiply the load.
    pub fn may_repeat_poll(&self, endpoint: Endpoint) -> bool {
        let resource = Resource::new(endpoint, "");
        lock(&self.0.limiter).may_retry(self.now(), resource)
    }

    /// Sends a request and reads the complete response. Retries the request after failed attempts, as often as the
    /// limits allow. Sets `request_id` to the id in the response to the latest attempt, if any.
    ///
    /// # Errors
    /// Returns the error of the last attempt, or an error if no token is available or the circuit breaker rejects the
    /// request.
    pub async fn call(&self, call: &Call, request_id: &mut Option<RequestId>) -> Result<ResponseBody, Error> {
        if let Some(responder) = &self.0.responder {
            return responder(call);
        }
        let resource = Resource::new(call.endpoint, call.url.path());
        let mut retries = 0;
        let mut throttles = 0;
        let mut has_new_token = false;
        loop {
            *request_id = None;
            // Without a token, the request fails before it waits for a slot.
            self.0.tokens.token(call.scope).await?;
            let slot = self.acquire_slot(resource).await?;
            let token = self.token_to_send(call.scope).await?;
            let started = Instant::now();
            let outcome = self.attempt(call, token.expose(), request_id).await;
            // Before the slot is released: a probe that is released without an outcome counts as cancelled.
            self.report(resource, &outcome);
            drop(slot);
            self.0
                .observer
                .request(call.endpoint, outcome.status(), started.elapsed());
            let error = match outcome {
                Outcome::Success(_, body) => return Ok(body),
                // A token can be revoked before it expires: request a new token and retry once.
                Outcome::Unauthorized if !has_new_token && self.0.tokens.reject(&token) => {
                    has_new_token = true;
                    self.0.observer.retry(call.endpoint);
                    continue;
                }
                Outcome::Unauthorized => Error::Status(401),
                Outcome::Throttled { .. } => {
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
            let has_budget = || lock(&self.0.limiter).may_retry(self.now(), resource);
            if !error.is_transient() || retries >= MAX_RETRIES || !has_budget() {
                return Err(error);
            }
            tokio::time::sleep(rate_limiter::backoff(retries, fastrand::f64())).await;
            retries += 1;
            self.0.observer.retry(call.endpoint);
        }
    }

    /// Reports the outcome of an attempt to the rate limiter.
    fn report(&self, resource: Resource, outcome: &Outcome) {
        let (now, mut limiter) = (self.now(), lock(&self.0.limiter));
        match outcome {
            Outcome::Success(..) | Outcome::Unauthorized => limiter.succeeded(now, resource),
            Outcome::Throttled { wait, .. } => limiter.throttled(now, resource, *wait),
            Outcome::Failed(_, error @ (Error::Status(_) | Error::Redirect(_))) if !error.is_transient() => {
                limiter.succeeded(now, resource);
            }
            Outcome::Failed(..) => limiter.failed(now, resource, fastrand::f64()),
        }
    }

    /// Waits until the rate limiter admits the request.
    async fn acquire_slot(&self, resource: Resource) -> Result<Slot<'_>, Error> {
        loop {
            let freed = self.0.slot_freed.notified();
            let admission = lock(&self.0.limiter).try_acquire(self.now(), resource);
            match admission {
                Admission::Admitted => return Ok(Slot(&self.0, resource)),
                Admission::Rejected(wait) => return Err(Error::Unavailable(wait)),
                Admission::Wait(wait) => tokio::time::sleep(wait).await,
                Admission::Busy => freed.await,
            }
        }
    }

    /// Waits for the end of any pause, and returns a token that is still valid then. The token may have expired while
    /// the request waited for a slot, and the host may request a pause while a new token is fetched.
    async fn token_to_send(&self, scope: &'static str) -> Result<Arc<Secret>, Error> {
        loop {
            let token = self.0.tokens.token(scope).await?;
            let pause = lock(&self.0.limiter).pause_left(self.now());
            if pause.is_zero() {
                return Ok(token);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&self, call: &Call, token: &str, request_id: &mut Option<RequestId>) -> Outcome {
        let timeout = self.0.settings.timeout;
        // The HTTP client's timeout does not apply while the response body is not being read. This timeout covers the
        // whole attempt.
        match tokio::time::timeout(timeout, self.exchange(call, token, request_id)).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Failed(None, Error::Timeout(timeout)),
        }
    }

    async fn exchange(&self, call: &Call, token: &str, request_id: &mut Option<RequestId>) -> Outcome {
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
        *request_id = RequestId::of(response.headers());
        let status = response.status();
        match status {
            StatusCode::OK | StatusCode::CREATED => {}
            StatusCode::NO_CONTENT => return Outcome::Success(204, ResponseBody::Empty),
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
                    lock(&self.0.limiter).pause(self.now(), wait);
                }
                return Outcome::Failed(Some(status.as_u16()), Error::Status(status.as_u16()));
            }
        }
        match read_body(response, MAX_BODY_BYTES, self.0.settings.timeout).await {
            Ok(body) => Outcome::Success(status.as_u16(), ResponseBody::Content(body)),
            Err(error) => Outcome::Failed(Some(status.as_u16()), error),
        }
    }

    fn now(&self) -> Duration {
        EPOCH.elapsed()
    }
}

/// A slot of the rate limiter. It is released when dropped, even if the poll is cancelled.
struct Slot<'a>(&'a Inner, Resource);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut limiter = lock(&self.0.limiter);
        limiter.finished(self.1);
        drop(limiter);
        self.0.slot_freed.notify_one();
    }
}

/// Result of an attempt.
enum Outcome {
    Success(u16, ResponseBody),
    Unauthorized,
    Throttled { wait: Option<Duration> },
    Failed(Option<u16>, Error),
}

impl Outcome {
    /// Returns the status of the response, or `None` if there was no response or the attempt timed out.
    fn status(&self) -> Option<u16> {
        match self {
            Self::Success(status, _) => Some(*status),
            Self::Unauthorized => Some(401),
            Self::Throttled { .. } => Some(429),
            Self::Failed(status, _) => *status,
        }
    }
}
