//! One request and what may happen to it: paced, authorized, bounded in time and size, never redirected.

use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, StatusCode};
use tokio::sync::Notify;
use url::Url;

use super::auth::TokenSource;
use super::exchange::{classify, read_body, retry_after};
use super::pace::{self, Admission, Limits, Pace, Resource};
use super::{Endpoint, Error, Observer};
use crate::domain::Gigabyte;

/// The largest body taken, after decompression. The subscriptions of ten thousand customers in one list are about
/// 35 MB; twice that is no honest answer.
pub const MAX_BODY_BYTES: usize = 64 << 20;

/// What the pace of every transport of the process counts its time from, so that one can go on where another was.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// How often a request that failed in passing is repeated. The retry budget of [`Pace`] bounds the sum over all.
const MAX_RETRIES: u32 = 2;

/// How often one request waits out a 429. Past it the poll gives up, and its customer shows as failed and late.
const MAX_THROTTLES: u32 = 5;

/// Settings of the client, parsed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the API is.
    pub base_url: Url,
    /// One request, whole.
    pub timeout: Duration,
    /// Ceilings of the pace.
    pub limits: Limits,
    /// How many bytes a "GB" is.
    pub gigabyte: Gigabyte,
}

/// A request to the API.
#[derive(Clone, Debug)]
pub struct Call {
    /// What is asked for.
    pub endpoint: Endpoint,
    /// Where.
    pub url: Url,
    /// The JSON body of a POST; a GET where there is none.
    pub body: Option<String>,
    /// The scope that it needs.
    pub scope: &'static str,
}

/// A successful answer.
#[derive(Debug)]
pub enum Answer {
    /// 204: there is nothing, and that is said.
    Empty,
    /// A body, whole.
    Body(Vec<u8>),
}

/// What answers requests in the place of the network.
pub type Answers = dyn Fn(&Call) -> Result<Answer, Error> + Send + Sync;

/// The way to the API that all requests share.
#[derive(Clone)]
pub struct Transport(Arc<Inner>);

struct Inner {
    client: reqwest::Client,
    tokens: Arc<TokenSource>,
    settings: Settings,
    observer: Arc<dyn Observer>,
    answers: Option<Box<Answers>>,
    pace: Mutex<Pace>,
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
    /// A transport whose pace starts now.
    pub fn new(
        client: reqwest::Client,
        tokens: Arc<TokenSource>,
        settings: Settings,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self::build(client, tokens, settings, observer, None)
    }

    /// A transport that asks `answers` and nobody else, without a token, a pace or a retry: for trying what reads
    /// answers on whatever they may hold, faster than any network.
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
        let pace = Mutex::new(Pace::new(settings.limits));
        Self(Arc::new(Inner {
            client,
            tokens,
            settings,
            observer,
            answers,
            pace,
            slot_freed: Notify::new(),
        }))
    }

    /// Where the API is.
    pub fn base_url(&self) -> &Url {
        &self.0.settings.base_url
    }

    /// How many bytes a "GB" is.
    pub fn gigabyte(&self) -> Gigabyte {
        self.0.settings.gigabyte
    }

    /// Who is told.
    pub fn observer(&self) -> &Arc<dyn Observer> {
        &self.0.observer
    }

    /// Where tokens come from.
    pub fn tokens(&self) -> &Arc<TokenSource> {
        &self.0.tokens
    }

    /// The requests a second that the client now allows itself.
    pub fn rate(&self) -> f64 {
        self.pace().rate()
    }

    /// Goes on at the pace of an earlier transport, where that asks the same host: a pause that the host asked for is not
    /// over because the configuration was read again.
    pub fn take_over(&self, earlier: &Self) {
        if self.base_url().origin() == earlier.base_url().origin() {
            let next = earlier.pace().under(self.0.settings.limits);
            *self.pace() = next;
        }
    }

    /// Whether a poll that failed may be repeated before its time. It comes out of the same budget as the retries within
    /// a poll, so that neither multiplies the load.
    pub fn grants_repetition(&self, endpoint: Endpoint) -> bool {
        let resource = Resource::new(endpoint, "");
        self.pace().may_retry(self.now(), resource)
    }

    /// Sends a request and reads its answer whole, with what retries the budget allows.
    ///
    /// # Errors
    /// The last attempt's.
    pub async fn call(&self, call: &Call) -> Result<Answer, Error> {
        if let Some(answers) = &self.0.answers {
            return answers(call);
        }
        let resource = Resource::new(call.endpoint, call.url.path());
        let mut retries = 0;
        let mut throttles = 0;
        let mut reauthorized = false;
        loop {
            let token = self.0.tokens.token(call.scope).await?;
            let slot = self.admission(resource).await?;
            let started = Instant::now();
            let outcome = self.attempt(call, token.expose()).await;
            drop(slot);
            self.0
                .observer
                .request(call.endpoint, outcome.status(), started.elapsed());
            let error = match outcome {
                Outcome::Answer(_, answer) => {
                    self.pace().succeeded(self.now(), resource);
                    return Ok(answer);
                }
                // A token can be revoked before its time; one fresh token, one more try.
                Outcome::Unauthorized if !reauthorized && self.0.tokens.reject(&token) => {
                    self.pace().succeeded(self.now(), resource);
                    reauthorized = true;
                    self.0.observer.retry(call.endpoint);
                    continue;
                }
                Outcome::Unauthorized => Error::Status(401),
                Outcome::Throttled { wait, .. } => {
                    self.pace().throttled(self.now(), resource, wait);
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
                    self.pace().succeeded(self.now(), resource);
                } else {
                    self.pace().failed(self.now(), resource, fastrand::f64());
                }
                return Err(error);
            }
            let repeat = {
                let mut pace = self.pace();
                pace.failed(self.now(), resource, fastrand::f64());
                retries < MAX_RETRIES && pace.may_retry(self.now(), resource)
            };
            if !repeat {
                return Err(error);
            }
            tokio::time::sleep(pace::backoff(retries, fastrand::f64())).await;
            retries += 1;
            self.0.observer.retry(call.endpoint);
        }
    }

    /// Waits until the pace lets another request go.
    async fn admission(&self, resource: Resource) -> Result<Slot<'_>, Error> {
        loop {
            let freed = self.0.slot_freed.notified();
            let admission = self.pace().admit(self.now(), resource);
            match admission {
                Admission::Go => return Ok(Slot(&self.0, resource)),
                Admission::Refused(wait) => return Err(Error::Unavailable(wait)),
                Admission::Wait(wait) => tokio::time::sleep(wait).await,
                Admission::Busy => freed.await,
            }
        }
    }

    async fn attempt(&self, call: &Call, token: &str) -> Outcome {
        let timeout = self.0.settings.timeout;
        // The client's own timeout covers the body too, but only between its polls; this one covers everything.
        match tokio::time::timeout(timeout, self.exchange(call, token)).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Failed(None, Error::Timeout(timeout)),
        }
    }

    async fn exchange(&self, call: &Call, token: &str) -> Outcome {
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
                    self.pace().pause(self.now(), wait);
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

    fn pace(&self) -> MutexGuard<'_, Pace> {
        // The pace is plain numbers that are whole after every call, so a panic elsewhere does not spoil it.
        self.0.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the requests under way, given back when dropped, also when its poll is cancelled.
struct Slot<'a>(&'a Inner, Resource);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut pace = self.0.pace.lock().unwrap_or_else(PoisonError::into_inner);
        pace.finished(self.1);
        drop(pace);
        self.0.slot_freed.notify_one();
    }
}

/// What became of one attempt.
enum Outcome {
    Answer(u16, Answer),
    Unauthorized,
    Throttled { wait: Option<Duration> },
    Failed(Option<u16>, Error),
}

impl Outcome {
    /// The status that was answered, `None` where there was no answer.
    fn status(&self) -> Option<u16> {
        match self {
            Self::Answer(status, _) => Some(*status),
            Self::Unauthorized => Some(401),
            Self::Throttled { .. } => Some(429),
            Self::Failed(status, _) => *status,
        }
    }
}
