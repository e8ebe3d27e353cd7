//! Fetches tokens and renews them early. One request serves all waiting polls, and a missing permission does not affect
//! the other permissions.

mod error;
mod response;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use reqwest::StatusCode;
use url::Url;

use super::credential::{Credential, Fingerprint};
use super::exchange::{classify, read_body, retry_after, unix_now};
use super::{Endpoint, Observer, rate_limiter};
use crate::lock::lock;
use crate::secret::Secret;
pub use error::{Error, REASONS};
use response::{TokenResponse, parse_response};

/// Maximum length of a scope string at the token endpoint, in characters.
const MAX_SCOPE_CHARS: usize = 300;

/// Maximum size of a response from the token endpoint. A token is a few kilobytes long.
const MAX_RESPONSE_BYTES: usize = 256 << 10;

/// A token is renewed after this fraction of its lifetime, or [`RENEWAL_LEAD`] before its expiry, whichever is earlier.
const RENEWAL_FRACTION: f64 = 0.8;

/// Minimum time between a token's renewal and its expiry, except for tokens with a short lifetime. It is long enough
/// for two requests to time out one after the other with the default timeout.
const RENEWAL_LEAD: Duration = Duration::from_secs(60);

/// A token that expires within this time is not sent, because it could expire before the request arrives. The margin is
/// at most a quarter of the token's lifetime.
const EXPIRY_MARGIN: Duration = Duration::from_secs(5);

/// Minimum age at which a token is renewed, unless [`RENEWAL_FRACTION`] of its lifetime is shorter.
const RENEWAL_GAP: Duration = Duration::from_secs(30);

/// Minimum time between two 401 responses that each cause a token to be discarded. If the API rejects the new token
/// sooner, the token is not the cause.
const REJECTION_GAP: Duration = Duration::from_secs(30);

/// Time during which a denied scope is not requested again. A newly granted permission takes effect within this time,
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
    /// Scopes of the enabled collectors, grouped by API version.
    groups: Vec<Vec<&'static str>>,
    /// Held while a token is fetched, so that one request serves all waiting polls.
    fetching: tokio::sync::Mutex<()>,
    state: Mutex<TokenState>,
}

/// State that requests read and change. Its lock is never held during a request.
#[derive(Clone, Default)]
struct TokenState {
    tokens: BTreeMap<&'static str, Token>,
    denied: BTreeMap<&'static str, ClockReading>,
    granted: Vec<&'static str>,
    pause: Option<Pause>,
    newest_attempt_succeeded: Option<bool>,
    rejected: Option<ClockReading>,
}

#[derive(Clone)]
struct Token {
    value: Arc<Secret>,
    fetched: ClockReading,
    lifetime: Duration,
}

/// A reading of the monotonic clock and of the wall clock. The monotonic clock stops while the machine is suspended,
/// and the wall clock can be set back. The age of a reading is therefore the longer of the two elapsed times.
#[derive(Clone, Copy)]
struct ClockReading {
    monotonic: Instant,
    wall: SystemTime,
}

impl ClockReading {
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

/// A pause after a failed token request.
#[derive(Clone)]
struct Pause {
    since: ClockReading,
    length: Duration,
    failures: u32,
    error: Arc<Error>,
    fingerprint: Option<Fingerprint>,
}

impl Token {
    fn is_valid(&self) -> bool {
        self.fetched.age() + EXPIRY_MARGIN.min(self.lifetime / 4) < self.lifetime
    }

    fn is_renewal_due(&self) -> bool {
        let early = self.lifetime.mul_f64(RENEWAL_FRACTION);
        let latest = self.lifetime.saturating_sub(RENEWAL_LEAD);
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
            state: Mutex::new(TokenState::default()),
        }
    }

    /// Copies the tokens, denials and pause of an earlier source with the same client id, credential and token URL, so
    /// that a reload neither discards valid tokens nor ends a pause.
    pub fn carry_over(&self, earlier: &Self) {
        let state = lock(&earlier.state).clone();
        *lock(&self.state) = state;
    }

    /// Returns a valid token for `scope`.
    ///
    /// # Errors
    /// Returns [`super::Error::NotPermitted`] if the scope is not granted, and [`super::Error::Auth`] if no token can
    /// be fetched.
    pub async fn token(&self, scope: &'static str) -> Result<Arc<Secret>, super::Error> {
        if let Some(token) = self.valid_token(scope) {
            if !token.is_renewal_due() {
                return Ok(token.value);
            }
            // One poll renews the token. Other polls keep using the old token, as do all polls if the renewal fails.
            if let Ok(_guard) = self.fetching.try_lock() {
                let _ = self.fetch(scope).await;
            }
            return Ok(self.valid_token(scope).unwrap_or(token).value);
        }
        let _guard = self.fetching.lock().await;
        if let Some(token) = self.valid_token(scope) {
            return Ok(token.value);
        }
        self.fetch(scope).await?;
        match self.valid_token(scope) {
            Some(token) => Ok(token.value),
            None => Err(super::Error::NotPermitted(scope)),
        }
    }

    /// Discards a token that the API rejected, and returns whether to retry with a new token. If the API rejects every
    /// token, a new token is fetched only occasionally, not for each request.
    pub fn reject(&self, token: &Arc<Secret>) -> bool {
        let mut state = lock(&self.state);
        let in_use = state.tokens.values().any(|cached| Arc::ptr_eq(&cached.value, token));
        if !in_use {
            return true;
        }
        if state.rejected.is_some_and(|at| at.age() < REJECTION_GAP) {
            return false;
        }
        state.rejected = Some(ClockReading::now());
        state.tokens.retain(|_, cached| !Arc::ptr_eq(&cached.value, token));
        true
    }

    /// Returns whether a scope is granted, or `None` if unknown.
    pub fn permitted(&self, scope: &str) -> Option<bool> {
        let state = lock(&self.state);
        if state.granted.contains(&scope) {
            Some(true)
        } else {
            state.denied.contains_key(scope).then_some(false)
        }
    }

    /// Returns whether the latest fetch of tokens succeeded and any scope is granted, or `None` before the first fetch.
    pub fn newest_attempt_succeeded(&self) -> Option<bool> {
        lock(&self.state).newest_attempt_succeeded
    }

    /// Returns the earliest expiry of the cached tokens.
    pub fn expiry(&self) -> Option<SystemTime> {
        lock(&self.state)
            .tokens
            .values()
            .map(|token| token.fetched.wall + token.lifetime)
            .min()
    }

    /// Returns the expiry of the certificate, as Unix time, or `None` for a secret.
    pub fn credential_expiry(&self) -> Option<i64> {
        self.credential.expires()
    }

    /// Returns whether a pause after a failure has ended: its time has passed, or a credential file has changed. Polls
    /// that failed for lack of a token can then be repeated immediately.
    pub fn may_have_recovered(&self) -> bool {
        let (fingerprint, over) = match &lock(&self.state).pause {
            None => return false,
            Some(pause) => (pause.fingerprint, pause.since.age() >= pause.length),
        };
        over || (fingerprint.is_some() && self.credential.fingerprint() != fingerprint)
    }

    fn valid_token(&self, scope: &str) -> Option<Token> {
        lock(&self.state)
            .tokens
            .get(scope)
            .filter(|token| token.is_valid())
            .cloned()
    }

    /// Fetches a token for `scope` and the other scopes of its group. The caller must hold the lock `fetching`.
    async fn fetch(&self, scope: &'static str) -> Result<(), super::Error> {
        self.check_pause()?;
        let scopes = {
            let mut state = lock(&self.state);
            state.denied.retain(|_, since| since.age() < DENIAL_LIFETIME);
            if state.denied.contains_key(scope) {
                return Err(super::Error::NotPermitted(scope));
            }
            self.scopes_to_request(scope, &state.denied)
        };
        // The fingerprint is computed before the files are read, so that later changes are detected.
        let fingerprint = self.credential.fingerprint();
        let result = self.fetch_all(&scopes).await;
        let mut state = lock(&self.state);
        // If all scopes are denied, there is no token, although the credential is valid.
        state.newest_attempt_succeeded = Some(result.is_ok() && !state.granted.is_empty());
        match result {
            Ok(()) => {
                state.pause = None;
                Ok(())
            }
            Err(error) => {
                self.observer.token_failure(&error);
                let failures = state.pause.as_ref().map_or(0, |pause| pause.failures) + 1;
                let length = error.pause(failures);
                let error = Arc::new(error);
                state.pause = Some(Pause {
                    since: ClockReading::now(),
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
        match &lock(&self.state).pause {
            Some(pause) if !recovered => Err(super::Error::Auth(Arc::clone(&pause.error))),
            _ => Ok(()),
        }
    }

    /// Returns `scope`, followed by the other scopes of its group that are not denied, up to [`MAX_SCOPE_CHARS`].
    fn scopes_to_request(
        &self,
        scope: &'static str,
        denied: &BTreeMap<&'static str, ClockReading>,
    ) -> Vec<&'static str> {
        let mut scopes = vec![scope];
        let mut length = scope.len();
        let group = self.groups.iter().find(|group| group.contains(&scope));
        for other in group.into_iter().flatten().copied() {
            let fits = length + 1 + other.len() <= MAX_SCOPE_CHARS;
            if other != scope && fits && !denied.contains_key(other) {
                length += 1 + other.len();
                scopes.push(other);
            }
        }
        scopes
    }

    /// Requests all scopes at once. If the endpoint rejects them, requests each scope alone to determine which are
    /// denied.
    async fn fetch_all(&self, scopes: &[&'static str]) -> Result<(), Error> {
        if self.fetch_together(scopes).await? {
            return Ok(());
        }
        let mut granted = Vec::new();
        for scope in scopes.iter().copied() {
            if scopes.len() > 1 && self.fetch_together(&[scope]).await? {
                granted.push(scope);
            } else {
                self.deny(scope);
            }
        }
        if granted.len() > 1 {
            self.fetch_together(&granted).await?;
        }
        Ok(())
    }

    /// Requests one token for these scopes. Returns false if the endpoint rejects the scopes.
    async fn fetch_together(&self, scopes: &[&'static str]) -> Result<bool, Error> {
        let Some(response) = self.request_token(scopes).await? else {
            return Ok(false);
        };
        let lifetime = response.lifetime();
        let granted = response.scope.as_str().unwrap_or_default().to_owned();
        let value = Arc::new(Secret::from(response.access_token));
        let fetched = ClockReading::now();
        for scope in scopes.iter().copied() {
            if !granted.trim().is_empty() && !granted.split_whitespace().any(|word| word == scope) {
                self.deny(scope);
                continue;
            }
            let mut state = lock(&self.state);
            state.denied.remove(scope);
            if !state.granted.contains(&scope) {
                state.granted.push(scope);
            }
            state.tokens.insert(
                scope,
                Token {
                    value: Arc::clone(&value),
                    fetched,
                    lifetime,
                },
            );
        }
        self.observer.token(lifetime);
        Ok(true)
    }

    fn deny(&self, scope: &'static str) {
        let mut state = lock(&self.state);
        state.granted.retain(|granted| *granted != scope);
        state.tokens.remove(scope);
        state.denied.insert(scope, ClockReading::now());
    }

    /// Sends one token request. Returns `None` if the endpoint rejects the scopes.
    async fn request_token(&self, scopes: &[&'static str]) -> Result<Option<TokenResponse>, Error> {
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

    async fn exchange(&self, form: &[(&str, &str)]) -> (Option<u16>, Result<Option<TokenResponse>, Error>) {
        let request = self.client.post(self.token_url.clone()).form(form).send();
        let sent = match tokio::time::timeout(self.timeout, request).await {
            Ok(sent) => sent.map_err(|error| classify(error, self.timeout)),
            Err(_) => Err(super::Error::Timeout(self.timeout)),
        };
        match sent {
            Ok(response) => (Some(response.status().as_u16()), self.read(response).await),
            Err(error) => (None, Err(Error::Unreachable(Box::new(error)))),
        }
    }

    async fn read(&self, response: reqwest::Response) -> Result<Option<TokenResponse>, Error> {
        let status = response.status();
        let date = response.headers().get(reqwest::header::DATE);
        let skew = rate_limiter::clock_skew(date.and_then(|date| date.to_str().ok()), unix_now());
        let wait = retry_after(response.headers());
        if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE && wait.is_some() {
            return Err(Error::Throttled(wait));
        }
        let body = tokio::time::timeout(self.timeout, read_body(response, MAX_RESPONSE_BYTES, self.timeout)).await;
        let body = body.unwrap_or(Err(super::Error::Timeout(self.timeout)));
        let mut body = body.map_err(|error| Error::Unreachable(Box::new(error)))?;
        parse_response(status, &mut body, skew)
    }
}
