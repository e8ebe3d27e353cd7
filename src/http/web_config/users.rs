//! Basic authentication.
//!
//! Rejecting an unknown name takes as long as rejecting a wrong password, so that the time does not reveal whether a
//! name exists. After bcrypt has verified a password, a keyed hash of the credentials is cached, so that later requests
//! are cheap.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;

use super::Error;
use crate::lock::lock;
use crate::secret::Secret;

/// Maximum number of passwords that are checked at the same time. Each check uses a whole core, and polls and scrapes
/// need cores as well.
const MAX_CONCURRENT_CHECKS: usize = 2;

/// Maximum time for which a request waits for a slot. After that, the request is rejected with status 503. This time is
/// shorter than the default scrape timeout of Prometheus, which is ten seconds.
const CHECK_WAIT: Duration = Duration::from_secs(5);

/// Maximum number of cached tags, which are keyed hashes of credentials. Most exporters have fewer scrapers and users
/// than this.
const MAX_CACHED_TAGS: usize = 64;

/// Slots for password checks. All configurations share them, so that a reload does not add slots.
#[derive(Clone)]
pub(super) struct CheckSlots {
    free: Arc<Semaphore>,
    /// Maximum time to wait for a free slot.
    max_wait: Duration,
}

impl CheckSlots {
    pub(super) fn new() -> Self {
        Self {
            free: Arc::new(Semaphore::new(MAX_CONCURRENT_CHECKS)),
            max_wait: CHECK_WAIT,
        }
    }
}

/// Result of authenticating a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthResult {
    /// The password is correct, or no password is required.
    Accepted,
    /// The name or the password is missing or wrong.
    Rejected,
    /// No slot for a password check became free in time.
    Busy,
}

/// The users and their password hashes.
pub(super) struct Users {
    hashes: BTreeMap<Vec<u8>, Secret>,
    /// Random key for the tags. Without the key, tags reveal nothing about names and passwords, so tags can be stored,
    /// and need no constant-time comparison.
    key: hmac::Key,
    /// Tags of credentials that were verified, oldest first.
    verified: Mutex<VecDeque<Tag>>,
    slots: CheckSlots,
}

type Tag = [u8; 32];

impl Users {
    pub(super) fn new(users: &[(String, Secret)], slots: CheckSlots) -> Result<Self, Error> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| Error::NoRandomness)?;
        let hashes = users
            .iter()
            .map(|(name, hash)| (name.clone().into_bytes(), hash.clone()));
        Ok(Self {
            hashes: hashes.collect(),
            key,
            verified: Mutex::new(VecDeque::with_capacity(MAX_CACHED_TAGS)),
            slots,
        })
    }

    /// Returns whether there are no users, in which case no password is required.
    pub(super) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Authenticates a request with these headers.
    pub(super) async fn authenticate(&self, headers: &HeaderMap) -> AuthResult {
        if self.is_empty() {
            return AuthResult::Accepted;
        }
        let Some(credentials) = Credentials::from_headers(headers) else {
            return AuthResult::Rejected;
        };
        let is_known = self.hashes.contains_key(&credentials.name);
        let Some(hash) = self
            .hashes
            .get(&credentials.name)
            .or_else(|| self.decoy(&credentials.name))
            .cloned()
        else {
            return AuthResult::Rejected;
        };
        let tag = self.tag(&[&credentials.name, hash.expose().as_bytes(), &credentials.password]);
        if is_known && self.is_cached(&tag) {
            return AuthResult::Accepted;
        }
        match self.check(credentials.password, hash).await {
            None => AuthResult::Busy,
            Some(true) if is_known => {
                self.cache(tag);
                AuthResult::Accepted
            }
            Some(_) => AuthResult::Rejected,
        }
    }

    /// Returns whether a password matches a hash, or `None` if no slot became free.
    async fn check(&self, password: Vec<u8>, hash: Secret) -> Option<bool> {
        let slot = Arc::clone(&self.slots.free).acquire_owned();
        let slot = tokio::time::timeout(self.slots.max_wait, slot).await.ok()?.ok()?;
        let check = tokio::task::spawn_blocking(move || {
            let is_correct = bcrypt::verify(&password, hash.expose()).unwrap_or(false);
            // The check continues even if its request is dropped, so it holds its slot until the end.
            drop(slot);
            is_correct
        });
        check.await.ok()
    }

    /// Returns the hash against which a password sent with an unknown name is checked, so that the check takes as long
    /// as for an existing name. Until the next reload, an unknown name is always checked against the same hash. If the
    /// hash varied between requests and the hashes had different bcrypt costs, varying response times would reveal that
    /// the name is unknown.
    fn decoy(&self, name: &[u8]) -> Option<&Secret> {
        let [first, ..] = self.tag(&[name]);
        let index = usize::from(first).checked_rem(self.hashes.len())?;
        self.hashes.values().nth(index)
    }

    /// Returns a keyed hash of these parts.
    fn tag(&self, parts: &[&[u8]]) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            // The length distinguishes ["ab", "c"] from ["a", "bc"].
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        let mut tag = Tag::default();
        for (byte, computed) in tag.iter_mut().zip(context.sign().as_ref()) {
            *byte = *computed;
        }
        tag
    }

    fn is_cached(&self, tag: &Tag) -> bool {
        let verified = lock(&self.verified);
        verified.contains(tag)
    }

    fn cache(&self, tag: Tag) {
        let mut verified = lock(&self.verified);
        if verified.contains(&tag) {
            return;
        }
        if verified.len() >= MAX_CACHED_TAGS {
            verified.pop_front();
        }
        verified.push_back(tag);
    }
}

/// A name and a password sent by a client.
struct Credentials {
    name: Vec<u8>,
    password: Vec<u8>,
}

impl Credentials {
    fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
        let (scheme, encoded) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = STANDARD.decode(encoded.trim()).ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        let (name, password) = decoded.split_at_checked(colon)?;
        Some(Self {
            name: name.to_vec(),
            password: password.strip_prefix(b":")?.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    /// The lowest bcrypt cost.
    const COST: u32 = 4;

    fn users(pairs: &[(&str, &str)]) -> Users {
        let hashed: Vec<_> = pairs
            .iter()
            .map(|(name, password)| {
                let hash = bcrypt::hash(password, COST).unwrap();
                ((*name).to_owned(), Secret::from(hash))
            })
            .collect();
        Users::new(&hashed, CheckSlots::new()).unwrap()
    }

    fn header(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(value).unwrap())])
    }

    fn basic(name: &str, password: &str) -> HeaderMap {
        header(&format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))))
    }

    fn cached_tags(users: &Users) -> usize {
        users.verified.lock().unwrap().len()
    }

    #[tokio::test]
    async fn only_the_password_of_an_existing_user_is_accepted() {
        let users = users(&[("alice", "one:two"), ("bob", "three")]);
        for _ in 0..2 {
            assert_eq!(
                users.authenticate(&basic("alice", "one:two")).await,
                AuthResult::Accepted
            );
            assert_eq!(users.authenticate(&basic("bob", "three")).await, AuthResult::Accepted);
        }
        assert_eq!(cached_tags(&users), 2);
        for (name, password) in [
            ("alice", "three"),
            ("bob", "one:two"),
            ("alice", ""),
            ("", ""),
            ("Alice", "one:two"),
            ("carol", "three"),
            ("carol", "one:two"),
        ] {
            assert_eq!(
                users.authenticate(&basic(name, password)).await,
                AuthResult::Rejected,
                "{name}"
            );
        }
        assert_eq!(cached_tags(&users), 2, "a wrong password must not be cached");
    }

    #[tokio::test]
    async fn requests_without_basic_auth_are_rejected() {
        let users = users(&[("alice", "secret")]);
        assert_eq!(users.authenticate(&HeaderMap::new()).await, AuthResult::Rejected);
        let encoded = STANDARD.encode("alice:secret");
        for value in [
            "",
            "Basic",
            "Basic ",
            "Basic !",
            &format!("Bearer {encoded}"),
            &encoded,
            "Basic YWxpY2U=",
        ] {
            assert_eq!(
                users.authenticate(&header(value)).await,
                AuthResult::Rejected,
                "{value}"
            );
        }
        assert_eq!(
            users.authenticate(&header(&format!("bASIC {encoded}"))).await,
            AuthResult::Accepted
        );
    }

    #[tokio::test]
    async fn every_request_is_accepted_if_there_are_no_users() {
        assert_eq!(users(&[]).authenticate(&HeaderMap::new()).await, AuthResult::Accepted);
    }

    #[tokio::test]
    async fn cached_password_needs_no_slot() {
        let mut users = users(&[("alice", "secret")]);
        assert_eq!(
            users.authenticate(&basic("alice", "secret")).await,
            AuthResult::Accepted
        );
        let slot_count = u32::try_from(MAX_CONCURRENT_CHECKS).unwrap();
        let slots = users.slots.clone();
        let _taken = slots.free.acquire_many(slot_count).await.unwrap();
        users.slots.max_wait = Duration::ZERO;
        assert_eq!(
            users.authenticate(&basic("alice", "secret")).await,
            AuthResult::Accepted
        );
        assert_eq!(users.authenticate(&basic("alice", "wrong")).await, AuthResult::Busy);
        assert_eq!(users.authenticate(&basic("nobody", "secret")).await, AuthResult::Busy);
    }

    #[test]
    fn unknown_name_is_always_checked_with_the_same_hash() {
        let users = users(&[("alice", "one"), ("bob", "two"), ("carol", "three")]);
        let decoy = |name: &str| users.decoy(name.as_bytes()).unwrap().expose().to_owned();
        let names: Vec<String> = (0..64).map(|number| format!("nobody-{number}")).collect();
        assert!(names.iter().all(|name| decoy(name) == decoy(name)));
        let used: std::collections::BTreeSet<_> = names.iter().map(|name| decoy(name)).collect();
        assert_eq!(used.len(), 3);
    }

    #[test]
    fn tags_distinguish_their_parts_and_the_cache_is_limited() {
        let users = users(&[("alice", "secret")]);
        assert_ne!(users.tag(&[b"ab", b"c"]), users.tag(&[b"a", b"bc"]));
        for number in 0..2 * MAX_CACHED_TAGS {
            users.cache(users.tag(&[&number.to_be_bytes()]));
        }
        assert_eq!(cached_tags(&users), MAX_CACHED_TAGS);
        assert!(users.is_cached(&users.tag(&[&(2 * MAX_CACHED_TAGS - 1).to_be_bytes()])));
        assert!(!users.is_cached(&users.tag(&[&0_usize.to_be_bytes()])));
    }
}
