//! Tokens: one request for all waiting polls, renewed early; one missing permission does not affect the others.

mod answer;
mod error;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use reqwest::StatusCode;
use url::Url;

use super::credential::{Credential, Fingerprint};
use super::exchange::{classify, read_body, retry_after, unix_now};
use super::{Endpoint, Observer, rate_limiter};
use crate::secret::Secret;
use answer::{TokenAnswer, parse_response};
pub use error::{Error, REASONS};

/// Maximum length of a scope string at the token endpoint, in characters.
const MAX_SCOPE_CHARS: usize = 300;

/// Maximum size of a response of the token endpoint. A token has a few kilobytes.
const MAX_ANSWER_BYTES: usize = 256 << 10;

/// A token is renewed after this fraction of its lifetime, or [`RENEWAL_LEAD`] before its expiry, whichever is earlier.
const RENEWAL_PART: f64 = 0.8;

/// Latest renewal before the expiry: two complete requests at the default timeout.
const RENEWAL_LEAD: Duration = Duration::from_secs(60);

/// A token that expires within this is not sent: the request would arrive too late.
const EXPIRY_MARGIN: Duration = Duration::from_secs(5);

/// Minimum time between two renewals, whatever lifetime the responses contain.
const RENEWAL_GAP: Duration = Duration::from_secs(30);

/// Minimum time between two tokens discarded after a 401. If it recurs sooner, the token is not the cause.
const REJECTION_GAP: Duration = Duration::from_secs(30);

/// Time for which a denied scope is not requested again. A newly granted permission takes effect within this time,
/// without a restart.
pub const DENIAL_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// Fetches, caches and renews tokens. Shared by all requests.
pub struct TokenSource {
    client: reqwest::Client,
    token_url: Url,
    client_id: String,
    credential: Credential,
    timeout: Duration,
    observer: Arc<dyn Observer>,
    /// Scopes to request: those of the enabled collectors, by group; a generation is a group.
    groups: Vec<Vec<&'static str>>,
    /// Held while a token is fetched, so that one request serves all waiting polls.
    fetching: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
}

/// Plain data behind a short lock.
#[derive(Clone, Default)]
struct Known {
    tokens: BTreeMap<&'static str, Token>,
    refused: BTreeMap<&'static str, Moment>,
    granted: Vec<&'static str>,
    pause: Option<Pause>,
    newest_attempt_succeeded: Option<bool>,
    rejected: Option<Moment>,
}

#[derive(Clone)]
struct Token {
    value: Arc<Secret>,
    fetched: Moment,
    life: Duration,
}

/// A time on both clocks: the monotonic one stops while a machine is suspended, the wall clock can be set back. It has
/// passed if it has passed on either.
#[derive(Clone, Copy)]
struct Moment {
    monotonic: Instant,
    wall: SystemTime,
}

impl Moment {
    fn now() -> Self {
        Self {
            monotonic: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    fn age(&self) -> Duration {
        let wall = self.wall.elapsed().unwrap_or_default();
        self.monotonic.elapsed().max(wall)
    }
}

/// A pause after a failure.
#[derive(Clone)]
struct Pause {
    since: Moment,
    length: Duration,
    failures: u32,
    error: Arc<Error>,
    fingerprint: Option<Fingerprint>,
}

impl Token {
    fn is_live(&self) -> bool {
        self.fetched.age() + EXPIRY_MARGIN.min(self.life / 4) < self.life
    }

    fn wants_renewal(&self) -> bool {
        let early = self.life.mul_f64(RENEWAL_PART);
        let latest = self.life.saturating_sub(RENEWAL_LEAD);
        self.fetched.age() >= early.min(latest).max(RENEWAL_GAP.min(early))
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSource")
            .field("token_url", &self.token_url.as_str())
            .finish_non_exhaustive()
    }
}

impl TokenSource {
    /// Returns a source that requests the scopes of `groups`, each group separately.
    pub fn new(
        client: reqwest::Client,
        token_url: Url,
        client_id: String,
        credential: Credential,
        timeout: Duration,
        groups: Vec<Vec<&'static str>>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self {
            client,
            token_url,
            client_id,
            credential,
            timeout,
            observer,
            groups,
            fetching: tokio::sync::Mutex::new(()),
            known: Mutex::new(Known::default()),
        }
    }

    /// Takes over tokens, denials and pauses of an earlier source with the same identity: a reload invalidates no valid
    /// token and ends no denial or pause.
    pub fn carry_over(&self, earlier: &Self) {
        let known = earlier.known().clone();
        *self.known() = known;
    }

    /// Returns a valid token with `scope`.
    ///
    /// # Errors
    /// [`super::Error::NotPermitted`] if the scope is not granted, [`super::Error::Auth`] if no token can be fetched.
    pub async fn token(&self, scope: &'static str) -> Result<Arc<Secret>, super::Error> {
        if let Some(token) = self.live(scope) {
            if !token.wants_renewal() {
                return Ok(token.value);
            }
            // The first poll renews; the others, or all if it fails, use the old token.
            if let Ok(_guard) = self.fetching.try_lock() {
                let _ = self.fetch(scope).await;
            }
            return Ok(self.live(scope).unwrap_or(token).value);
        }
        let _guard = self.fetching.lock().await;
        if let Some(token) = self.live(scope) {
            return Ok(token.value);
        }
        self.fetch(scope).await?;
        match self.live(scope) {
            Some(token) => Ok(token.value),
            None => Err(super::Error::NotPermitted(scope)),
        }
    }

    /// Discards a token that the API rejected, whatever its age. Returns whether another one may help. An API that
    /// rejects every token causes an occasional new one, not one per request.
    pub fn reject(&self, token: &Arc<Secret>) -> bool {
        let mut known = self.known();
        let in_use = known.tokens.values().any(|held| Arc::ptr_eq(&held.value, token));
        if !in_use {
            return true;
        }
        if known.rejected.is_some_and(|at| at.age() < REJECTION_GAP) {
            return false;
        }
        known.rejected = Some(Moment::now());
        known.tokens.retain(|_, held| !Arc::ptr_eq(&held.value, token));
        true
    }

    /// Returns whether a scope is granted; `None` if unknown.
    pub fn permitted(&self, scope: &str) -> Option<bool> {
        let known = self.known();
        if known.granted.contains(&scope) {
            Some(true)
        } else {
            known.refused.contains_key(scope).then_some(false)
        }
    }

    /// Returns whether the newest token request succeeded; `None` before the first.
    pub fn newest_attempt_succeeded(&self) -> Option<bool> {
        self.known().newest_attempt_succeeded
    }

    /// Returns when the first of the valid tokens expires.
    pub fn expiry(&self) -> Option<SystemTime> {
        self.known()
            .tokens
            .values()
            .map(|token| token.fetched.wall + token.life)
            .min()
    }

    /// Returns when the certificate expires, in seconds since the epoch; `None` for a secret.
    pub fn credential_expiry(&self) -> Option<i64> {
        self.credential.expires()
    }

    /// Returns whether a pause after a failure may be over: its time has passed, or the secret file has changed. Polls
    /// that failed without a token can then be repeated immediately.
    pub fn may_have_recovered(&self) -> bool {
        let (fingerprint, over) = match &self.known().pause {
            None => return false,
            Some(pause) => (pause.fingerprint, pause.since.age() >= pause.length),
        };
        over || (fingerprint.is_some() && self.credential.fingerprint() != fingerprint)
    }

    fn live(&self, scope: &str) -> Option<Token> {
        self.known().tokens.get(scope).filter(|token| token.is_live()).cloned()
    }

    /// Fetches a token for `scope` and the others of its group. The caller holds `fetching`.
    async fn fetch(&self, scope: &'static str) -> Result<(), super::Error> {
        self.check_pause()?;
        let wanted = {
            let mut known = self.known();
            known.refused.retain(|_, since| since.age() < DENIAL_LIFETIME);
            if known.refused.contains_key(scope) {
                return Err(super::Error::NotPermitted(scope));
            }
            self.group_of(scope, &known.refused)
        };
        // Computed before the files are read, so that later changes are detected.
        let fingerprint = self.credential.fingerprint();
        let result = self.fetch_all(&wanted).await;
        let mut known = self.known();
        // A registration without any permission gets no token, although its credential is valid.
        known.newest_attempt_succeeded = Some(result.is_ok() && !known.granted.is_empty());
        match result {
            Ok(()) => {
                known.pause = None;
                Ok(())
            }
            Err(error) => {
                self.observer.token_failure(&error);
                let failures = known.pause.as_ref().map_or(0, |pause| pause.failures) + 1;
                let length = error.pause(failures);
                let error = Arc::new(error);
                known.pause = Some(Pause {
                    since: Moment::now(),
                    length,
                    failures,
                    error: Arc::clone(&error),
                    fingerprint,
                });
                Err(super::Error::Auth(error))
            }
        }
    }

    fn check_pause(&self) -> Result<(), super::Error> {
        let recovered = self.may_have_recovered();
        match &self.known().pause {
            Some(pause) if !recovered => Err(super::Error::Auth(Arc::clone(&pause.error))),
            _ => Ok(()),
        }
    }

    /// Returns the scopes to request together with `scope`: those of its group that are not denied, as many as fit.
    fn group_of(&self, scope: &'static str, refused: &BTreeMap<&'static str, Moment>) -> Vec<&'static str> {
        let mut wanted = vec![scope];
        let mut length = scope.len();
        let group = self.groups.iter().find(|group| group.contains(&scope));
        for other in group.into_iter().flatten().copied() {
            let fits = length + 1 + other.len() <= MAX_SCOPE_CHARS;
            if other != scope && fits && !refused.contains_key(other) {
                length += 1 + other.len();
                wanted.push(other);
            }
        }
        wanted
    }

    /// Requests all `wanted` scopes at once. If that is denied, determines the denied ones.
    async fn fetch_all(&self, wanted: &[&'static str]) -> Result<(), Error> {
        if self.fetch_together(wanted).await? {
            return Ok(());
        }
        let mut granted = Vec::new();
        for scope in wanted.iter().copied() {
            if wanted.len() > 1 && self.fetch_together(&[scope]).await? {
                granted.push(scope);
            } else {
                self.refuse(scope);
            }
        }
        if granted.len() > 1 {
            self.fetch_together(&granted).await?;
        }
        Ok(())
    }

    /// Requests one token for these scopes. Returns false if one of them is not granted.
    async fn fetch_together(&self, scopes: &[&'static str]) -> Result<bool, Error> {
        let Some(answer) = self.request_token(scopes).await? else {
            return Ok(false);
        };
        let life = answer.life();
        let granted = answer.scope.as_str().unwrap_or_default().to_owned();
        let value = Arc::new(Secret::from(answer.access_token));
        let fetched = Moment::now();
        for scope in scopes.iter().copied() {
            if !granted.trim().is_empty() && !granted.split_whitespace().any(|word| word == scope) {
                self.refuse(scope);
                continue;
            }
            let mut known = self.known();
            known.refused.remove(scope);
            if !known.granted.contains(&scope) {
                known.granted.push(scope);
            }
            known.tokens.insert(
                scope,
                Token {
                    value: Arc::clone(&value),
                    fetched,
                    life,
                },
            );
        }
        self.observer.token(life);
        Ok(true)
    }

    fn refuse(&self, scope: &'static str) {
        let mut known = self.known();
        known.granted.retain(|granted| *granted != scope);
        known.tokens.remove(scope);
        known.refused.insert(scope, Moment::now());
    }

    /// Sends one request; `None` if its scopes were denied.
    async fn request_token(&self, scopes: &[&'static str]) -> Result<Option<TokenAnswer>, Error> {
        let mut form = vec![
            ("grant_type", Secret::from("client_credentials".to_owned())),
            ("client_id", Secret::from(self.client_id.clone())),
            ("scope", Secret::from(scopes.join(" "))),
        ];
        let proof = self
            .credential
            .proof(&self.client_id, self.token_url.as_str(), SystemTime::now())
            .map_err(Error::Credential)?;
        form.extend(proof);
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.expose())).collect();

        let started = Instant::now();
        let (status, outcome) = self.exchange(&form).await;
        self.observer.request(Endpoint::Token, status, started.elapsed());
        outcome
    }

    async fn exchange(&self, form: &[(&str, &str)]) -> (Option<u16>, Result<Option<TokenAnswer>, Error>) {
        let unreachable = |error| Error::Unreachable(Box::new(error));
        let request = self.client.post(self.token_url.clone()).form(form).send();
        let response = match tokio::time::timeout(self.timeout, request).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return (None, Err(unreachable(classify(error, self.timeout)))),
            Err(_) => return (None, Err(unreachable(super::Error::Timeout(self.timeout)))),
        };
        let status = response.status();
        let date = response.headers().get(reqwest::header::DATE);
        let skew = rate_limiter::clock_skew(date.and_then(|date| date.to_str().ok()), unix_now());
        let wait = retry_after(response.headers());
        if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE && wait.is_some() {
            return (Some(status.as_u16()), Err(Error::Throttled(wait)));
        }
        let body = tokio::time::timeout(self.timeout, read_body(response, MAX_ANSWER_BYTES, self.timeout));
        let mut body = match body.await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => return (Some(status.as_u16()), Err(unreachable(error))),
            Err(_) => {
                return (
                    Some(status.as_u16()),
                    Err(unreachable(super::Error::Timeout(self.timeout))),
                );
            }
        };
        (Some(status.as_u16()), parse_response(status, &mut body, skew))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Plain data that is consistent after every change, even if another thread panics.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
