//! Tokens: one request however many wait, fetched early, and a registration that lacks one permission keeps the rest.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use super::credential::{Credential, CredentialError, Fingerprint};
use super::exchange::{classify, read_body, retry_after, unix_now};
use super::{Endpoint, Observer, pace};
use crate::secret::Secret;

/// The longest scope string that the token endpoint takes, in characters.
const MAX_SCOPE_CHARS: usize = 300;

/// The largest answer of the token endpoint that is read. A token is a few kilobytes.
const MAX_ANSWER_BYTES: usize = 256 << 10;

/// The life assumed of a token whose answer does not say, or says nonsense: short enough to be right for any issuer,
/// long enough that it makes no loop.
const DEFAULT_LIFE: Duration = Duration::from_secs(300);

/// The longest life believed. A token that claims more is renewed daily anyway.
const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);

/// A token is renewed when this part of its life is over, or [`RENEWAL_LEAD`] before its end, whichever is earlier.
const RENEWAL_PART: f64 = 0.8;

/// How long before its end a token is renewed at the latest: two whole requests at the default timeout.
const RENEWAL_LEAD: Duration = Duration::from_secs(60);

/// A token about to end is not sent any more: the request would arrive too late.
const EXPIRY_MARGIN: Duration = Duration::from_secs(5);

/// Two renewals are never closer than this, whatever lives the answers claim.
const RENEWAL_GAP: Duration = Duration::from_secs(30);

/// Tokens are given up for a 401 no more often than this: a second time so soon, it is not the token.
const REJECTION_GAP: Duration = Duration::from_secs(30);

/// The first and the longest pause after the registration was refused. A wrong secret does not mend itself within
/// seconds, and hammering an identity provider locks accounts.
const REFUSED_BACKOFF: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(15 * 60));

/// The first and the longest pause after the token endpoint could not be reached or answered nonsense.
const UNREACHABLE_BACKOFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// How long a refused scope is taken for refused. An administrator who grants it after an alert sees it work within
/// this time, without a restart.
pub const REFUSAL_LIFE: Duration = Duration::from_secs(5 * 60);

/// Codes of OAuth that tell of the server and not of who asks.
const IN_PASSING: [&str; 3] = ["server_error", "temporarily_unavailable", "slow_down"];

/// The skew of clocks from which a refusal is more likely to be its fault than the certificate's. Assertions are
/// valid from a minute before to five minutes after they are made.
const TELLING_SKEW_SECONDS: i64 = 60;

/// Every value of [`Error::reason`], so that counters can begin at zero.
pub const REASONS: &[&str] = &[
    "invalid_client",
    "credential",
    "throttled",
    "server_error",
    "unexpected_status",
    "decode",
    "dns",
    "connect",
    "tls",
    "proxy",
    "timeout",
    "interrupted",
    "too_large",
];

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registration's id, secret or certificate was refused.
    #[error("the token endpoint refused the client id, secret or certificate ({code}){}", skew_hint(*skew))]
    InvalidClient {
        /// The code of the answer.
        code: String,
        /// How many seconds the server's clock is ahead of ours, where the answer tells.
        skew: Option<i64>,
    },
    /// The secret or the certificate could not be read.
    #[error("the credential cannot be read")]
    Credential(#[source] CredentialError),
    /// The token endpoint could not be reached.
    #[error("the token endpoint cannot be reached")]
    Unreachable(#[source] Box<super::Error>),
    /// It asked for a pause.
    #[error("the token endpoint asks for a pause")]
    Throttled(Option<Duration>),
    /// It answered with a status that says nothing about us.
    #[error("the token endpoint answered with status {0}")]
    Status(u16),
    /// Its answer is no token.
    #[error("the answer of the token endpoint holds no token")]
    Malformed,
}

fn skew_hint(skew: Option<i64>) -> String {
    match skew {
        Some(skew) if skew.abs() > TELLING_SKEW_SECONDS => {
            let side = if skew > 0 { "ahead of" } else { "behind" };
            let skew = humantime::format_duration(Duration::from_secs(skew.unsigned_abs()));
            format!("; the server's clock is {skew} {side} this machine's, which alone can be the reason")
        }
        _ => String::new(),
    }
}

impl Error {
    /// The value of the label `reason`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidClient { .. } => "invalid_client",
            Self::Credential(_) => "credential",
            Self::Unreachable(error) => error.reason(),
            Self::Throttled(_) => "throttled",
            Self::Status(500..=599) => "server_error",
            Self::Status(_) => "unexpected_status",
            Self::Malformed => "decode",
        }
    }

    /// How long nothing is asked after this error, which is the `failures`th in a row.
    fn pause(&self, failures: u32) -> Duration {
        let (first, longest) = self.backoff();
        let grown = (first * 2u32.saturating_pow(failures.clamp(1, 16) - 1)).min(longest);
        // What it asks for is kept, and never less than for any other failure: it may ask for nothing, again and again.
        match self {
            Self::Throttled(Some(wait)) => grown.max(*wait),
            _ => grown,
        }
    }

    fn backoff(&self) -> (Duration, Duration) {
        match self {
            Self::InvalidClient { .. } | Self::Credential(_) => REFUSED_BACKOFF,
            Self::Throttled(_) | Self::Unreachable(_) | Self::Status(_) | Self::Malformed => UNREACHABLE_BACKOFF,
        }
    }
}

/// Gets tokens, keeps them and renews them. Shared by everything that sends requests.
pub struct TokenSource {
    client: reqwest::Client,
    token_url: Url,
    client_id: String,
    credential: Credential,
    timeout: Duration,
    observer: Arc<dyn Observer>,
    /// The scopes worth asking for: those of the enabled collectors, by group; a generation is a group.
    groups: Vec<Vec<&'static str>>,
    /// Held while a token is fetched, so that one request serves all who wait.
    fetching: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
}

/// What is known; plain data behind a short lock.
#[derive(Default)]
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

/// A point in time on both clocks: the monotonic one stands still while a machine is suspended, the wall clock can be
/// set back. What either says has passed has passed.
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

/// A wait after a failure.
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
    /// A source that asks for the scopes of `groups`, each group by itself.
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

    /// A live token that carries `scope`.
    ///
    /// # Errors
    /// [`super::Error::NotPermitted`] where the scope is not granted, [`super::Error::Auth`] where no token can be had.
    pub async fn token(&self, scope: &'static str) -> Result<Arc<Secret>, super::Error> {
        if let Some(token) = self.live(scope) {
            if !token.wants_renewal() {
                return Ok(token.value);
            }
            // Whoever comes first renews; for the others, and if it fails, the old one is still good.
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

    /// Forgets a token that the API refused, whatever its age; true where another is worth trying. An API that refuses
    /// every token gets a new one now and then, not with every request.
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

    /// Whether a scope is granted, `None` before it is known.
    pub fn permitted(&self, scope: &str) -> Option<bool> {
        let known = self.known();
        if known.granted.contains(&scope) {
            Some(true)
        } else {
            known.refused.contains_key(scope).then_some(false)
        }
    }

    /// Whether the newest attempt at a token succeeded, `None` before the first.
    pub fn newest_attempt_succeeded(&self) -> Option<bool> {
        self.known().newest_attempt_succeeded
    }

    /// When the first of the live tokens ends.
    pub fn expiry(&self) -> Option<SystemTime> {
        self.known()
            .tokens
            .values()
            .map(|token| token.fetched.wall + token.life)
            .min()
    }

    /// When the credential itself ends, in seconds since the epoch, where that is known from a certificate.
    pub fn credential_expiry(&self) -> Option<i64> {
        self.credential.expires()
    }

    /// Whether a pause after a failure is on and what it waits for may have changed: its time is over, or the secret
    /// file holds something else. Polls that failed for want of a token are then worth repeating at once.
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
            known.refused.retain(|_, since| since.age() < REFUSAL_LIFE);
            if known.refused.contains_key(scope) {
                return Err(super::Error::NotPermitted(scope));
            }
            self.group_of(scope, &known.refused)
        };
        let result = self.fetch_all(&wanted).await;
        let mut known = self.known();
        // A registration without any permission gets no token, though nothing is wrong with who it is.
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
                    fingerprint: self.credential.fingerprint(),
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

    /// The scopes to ask for together with `scope`: those of its group that are not refused, as many as fit.
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

    /// Asks for all of `wanted` at once and, where that is refused, finds out which of them are.
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

    /// One token for these scopes; false when one of them is not granted.
    async fn fetch_together(&self, scopes: &[&'static str]) -> Result<bool, Error> {
        let Some(answer) = self.ask(scopes).await? else {
            return Ok(false);
        };
        let life = answer.life();
        let said = answer.scope.as_str().unwrap_or_default().to_owned();
        let value = Arc::new(Secret::from(answer.access_token));
        let fetched = Moment::now();
        for scope in scopes.iter().copied() {
            if !said.trim().is_empty() && !said.split_whitespace().any(|word| word == scope) {
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

    /// One request; `None` when it was refused for its scopes.
    async fn ask(&self, scopes: &[&'static str]) -> Result<Option<TokenAnswer>, Error> {
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
        let skew = pace::clock_skew(date.and_then(|date| date.to_str().ok()), unix_now());
        let wait = retry_after(response.headers());
        if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE && wait.is_some() {
            return (Some(status.as_u16()), Err(Error::Throttled(wait)));
        }
        let body = tokio::time::timeout(self.timeout, read_body(response, MAX_ANSWER_BYTES, self.timeout));
        let body = match body.await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => return (Some(status.as_u16()), Err(unreachable(error))),
            Err(_) => {
                return (
                    Some(status.as_u16()),
                    Err(unreachable(super::Error::Timeout(self.timeout))),
                );
            }
        };
        (Some(status.as_u16()), judge(status, &body, skew))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Plain data that is whole after every change, so a panic elsewhere does not spoil it.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an answer of the token endpoint means.
fn judge(status: StatusCode, body: &[u8], skew: Option<i64>) -> Result<Option<TokenAnswer>, Error> {
    if status == StatusCode::OK {
        return super::json(body)
            .ok()
            .and_then(|body| serde_json::from_slice::<TokenAnswer>(body).ok())
            .filter(|answer| is_token(&answer.access_token))
            .map(Some)
            .ok_or(Error::Malformed);
    }
    if !matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
    ) {
        return Err(Error::Status(status.as_u16()));
    }
    match serde_json::from_slice::<ErrorAnswer>(body) {
        Ok(answer) if answer.error == "invalid_scope" => Ok(None),
        Ok(answer) if IN_PASSING.contains(&answer.error.as_str()) => Err(Error::Status(status.as_u16())),
        Ok(answer) => Err(Error::InvalidClient {
            code: bounded_code(&answer.error),
            skew,
        }),
        Err(_) => Err(Error::Status(status.as_u16())),
    }
}

/// Whether a text can be a token at all: visible ASCII, as a header takes it.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// An error code as OAuth writes it; anything else is not repeated, because nobody knows what it holds.
fn bounded_code(code: &str) -> String {
    const MAX_CODE_CHARS: usize = 40;
    let honest = !code.is_empty()
        && code.len() <= MAX_CODE_CHARS
        && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if honest {
        code.to_owned()
    } else {
        "unknown code".to_owned()
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    /// As it came, because a number past any float would cost the token.
    #[serde(default)]
    expires_in: Option<Box<RawValue>>,
    #[serde(default)]
    scope: serde_json::Value,
}

impl TokenAnswer {
    /// The token's life: what the answer says where that is a positive number, in whatever type, else a safe default.
    fn life(&self) -> Duration {
        let text = self.expires_in.as_ref().map(|json| json.get().trim_matches('"').trim());
        let seconds = text.and_then(|text| text.parse::<f64>().ok());
        seconds
            .filter(|seconds| seconds.is_finite() && *seconds >= 1.0)
            .map_or(DEFAULT_LIFE, |seconds| {
                Duration::try_from_secs_f64(seconds).unwrap_or(MAX_LIFE).min(MAX_LIFE)
            })
    }
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: String,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_refused_client_waits_from_one_to_fifteen_minutes() {
        let refused = Error::InvalidClient {
            code: "invalid_client".to_owned(),
            skew: None,
        };
        let minutes = [1, 2, 3, 4, 5, 6, 100].map(|failures| refused.pause(failures).as_secs() / 60);
        assert_eq!(minutes, [1, 2, 4, 8, 15, 15, 15]);
    }

    #[test]
    fn a_pause_that_is_asked_for_is_kept() {
        let asked = Error::Throttled(Some(Duration::from_secs(7)));
        assert_eq!(asked.pause(1), Duration::from_secs(7));
        let nothing = Error::Throttled(Some(Duration::ZERO));
        assert_eq!(
            [1, 2, 3, 50].map(|failures| nothing.pause(failures).as_secs()),
            [2, 4, 8, 60]
        );
        assert_eq!(Error::Status(503).pause(1), Duration::from_secs(2));
        assert_eq!(Error::Status(503).pause(50), Duration::from_secs(60));
    }

    #[test]
    fn nonsense_beside_a_token_does_not_cost_it() {
        for (life, seconds) in [
            ("1e400", 300),
            ("-1e400", 300),
            ("[]", 300),
            ("\"60\"", 60),
            ("null", 300),
            ("90.5", 90),
        ] {
            let body = format!("\u{feff}{{\"access_token\":\"t\",\"expires_in\":{life}}}");
            let answer = judge(StatusCode::OK, body.as_bytes(), None).unwrap().unwrap();
            assert_eq!(answer.life().as_secs(), seconds, "{life}");
        }
    }

    #[test]
    fn a_server_that_errs_is_not_taken_for_a_refusal() {
        let judged = |body: &str| judge(StatusCode::BAD_REQUEST, body.as_bytes(), None);
        for code in IN_PASSING {
            let judged = judged(&format!(r#"{{"error":"{code}"}}"#));
            assert!(matches!(judged, Err(Error::Status(400))), "{code}");
        }
        assert!(matches!(
            judged(r#"{"error":"invalid_client"}"#),
            Err(Error::InvalidClient { .. })
        ));
    }

    #[test]
    fn a_token_ends_by_whichever_clock_is_ahead() {
        const HOUR: Duration = Duration::from_secs(3600);
        let token = |fetched| Token {
            value: Arc::new(Secret::from("t".to_owned())),
            fetched,
            life: HOUR,
        };
        let now = Moment::now();
        assert!(token(now).is_live());
        // The wall clock stepped forward, or the machine was suspended.
        let stepped = Moment {
            wall: now.wall - 2 * HOUR,
            ..now
        };
        assert!(!token(stepped).is_live());
        // It stepped back: the token is as old as the monotonic clock says.
        let stepped_back = |age| Moment {
            monotonic: now.monotonic.checked_sub(age).unwrap(),
            wall: now.wall + HOUR,
        };
        assert!(token(stepped_back(Duration::ZERO)).is_live());
        assert!(stepped_back(Duration::from_secs(9)).age() >= Duration::from_secs(9));
    }
}
