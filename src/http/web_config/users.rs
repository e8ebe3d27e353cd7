//! Basic authentication.
//!
//! An unknown name takes as long to reject as a wrong password, so that it reveals nothing. A correct password is
//! hashed with bcrypt once and then remembered, so that scrapes are cheap.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;

use super::Error;
use crate::secret::Secret;

/// Passwords checked at once. Each check uses a whole core, which polls and scrapes also need.
const CHECKS_AT_ONCE: usize = 2;

/// Maximum time that a request waits for other password checks before it is rejected. Shorter than Prometheus' default
/// scrape timeout of ten seconds.
const CHECK_WAIT: Duration = Duration::from_secs(5);

/// Number of correct passwords remembered: more than one exporter has scrapers and users.
const REMEMBERED: usize = 64;

/// Slots for checks, shared by all configurations: a reload adds none.
#[derive(Clone)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    /// Maximum time to wait for a slot.
    patience: Duration,
}

impl Places {
    pub(super) fn new() -> Self {
        Self {
            free: Arc::new(Semaphore::new(CHECKS_AT_ONCE)),
            patience: CHECK_WAIT,
        }
    }
}

/// Result of authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The request is accepted.
    Admitted,
    /// Name and password are missing or wrong.
    Refused,
    /// Too many password checks are waiting.
    Busy,
}

/// The users and their hashes.
pub(super) struct Users {
    hashes: BTreeMap<Vec<u8>, Secret>,
    /// Key of the tags, known only to this process, so that tags reveal nothing about names and passwords: neither
    /// through the time of a comparison nor in a core dump that lacks the key.
    key: hmac::Key,
    /// Tags of name, hash and password that were correct, oldest first.
    right: Mutex<VecDeque<Tag>>,
    places: Places,
}

type Tag = [u8; 32];

impl Users {
    pub(super) fn new(users: &[(String, Secret)], places: Places) -> Result<Self, Error> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| Error::NoRandomness)?;
        let hashes = users
            .iter()
            .map(|(name, hash)| (name.clone().into_bytes(), hash.clone()));
        Ok(Self {
            hashes: hashes.collect(),
            key,
            right: Mutex::new(VecDeque::with_capacity(REMEMBERED)),
            places,
        })
    }

    /// Whether there are none, so that no password is required.
    pub(super) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Authenticates a request with these headers.
    pub(super) async fn verdict(&self, headers: &HeaderMap) -> Verdict {
        if self.is_empty() {
            return Verdict::Admitted;
        }
        let Some(given) = Credentials::from_headers(headers) else {
            return Verdict::Refused;
        };
        let is_known = self.hashes.contains_key(&given.name);
        let Some(hash) = self
            .hashes
            .get(&given.name)
            .or_else(|| self.decoy(&given.name))
            .cloned()
        else {
            return Verdict::Refused;
        };
        let tag = self.tag(&[&given.name, hash.expose().as_bytes(), &given.password]);
        if is_known && self.remembers(&tag) {
            return Verdict::Admitted;
        }
        match self.check(given.password, hash).await {
            None => Verdict::Busy,
            Some(true) if is_known => {
                self.remember(tag);
                Verdict::Admitted
            }
            Some(_) => Verdict::Refused,
        }
    }

    /// Whether a password matches a hash; `None` if there was no free slot.
    async fn check(&self, password: Vec<u8>, hash: Secret) -> Option<bool> {
        let place = Arc::clone(&self.places.free).acquire_owned();
        let place = tokio::time::timeout(self.places.patience, place).await.ok()?.ok()?;
        let check = tokio::task::spawn_blocking(move || {
            let is_right = bcrypt::verify(&password, hash.expose()).unwrap_or(false);
            // A check continues, and keeps its slot, even if its request is dropped.
            drop(place);
            is_right
        });
        check.await.ok()
    }

    /// Returns the hash against which the password of an unknown name is checked, to take equally long. It is always
    /// the same user's for one name, so that timing reveals no names if hashes differ in cost.
    fn decoy(&self, name: &[u8]) -> Option<&Secret> {
        let [first, ..] = self.tag(&[name]);
        let index = usize::from(first).checked_rem(self.hashes.len())?;
        self.hashes.values().nth(index)
    }

    fn tag(&self, parts: &[&[u8]]) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            // The length separates "ab" and "c" from "a" and "bc".
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        let mut tag = Tag::default();
        for (byte, made) in tag.iter_mut().zip(context.sign().as_ref()) {
            *byte = *made;
        }
        tag
    }

    fn remembers(&self, tag: &Tag) -> bool {
        let right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        right.contains(tag)
    }

    fn remember(&self, tag: Tag) {
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        if right.contains(&tag) {
            return;
        }
        if right.len() >= REMEMBERED {
            right.pop_front();
        }
        right.push_back(tag);
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
        Users::new(&hashed, Places::new()).unwrap()
    }

    fn header(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(value).unwrap())])
    }

    fn basic(name: &str, password: &str) -> HeaderMap {
        header(&format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))))
    }

    fn remembered(users: &Users) -> usize {
        users.right.lock().unwrap().len()
    }

    #[tokio::test]
    async fn only_the_password_of_an_existing_user_is_accepted() {
        let users = users(&[("alice", "one:two"), ("bob", "three")]);
        for _ in 0..2 {
            assert_eq!(users.verdict(&basic("alice", "one:two")).await, Verdict::Admitted);
            assert_eq!(users.verdict(&basic("bob", "three")).await, Verdict::Admitted);
        }
        assert_eq!(remembered(&users), 2);
        for (name, password) in [
            ("alice", "three"),
            ("bob", "one:two"),
            ("alice", ""),
            ("", ""),
            ("Alice", "one:two"),
            ("carol", "three"),
            ("carol", "one:two"),
        ] {
            assert_eq!(users.verdict(&basic(name, password)).await, Verdict::Refused, "{name}");
        }
        assert_eq!(remembered(&users), 2, "a wrong password must not be cached");
    }

    #[tokio::test]
    async fn requests_without_basic_auth_are_rejected() {
        let users = users(&[("alice", "secret")]);
        assert_eq!(users.verdict(&HeaderMap::new()).await, Verdict::Refused);
        let right = STANDARD.encode("alice:secret");
        for value in [
            "",
            "Basic",
            "Basic ",
            "Basic !",
            &format!("Bearer {right}"),
            &right,
            "Basic YWxpY2U=",
        ] {
            assert_eq!(users.verdict(&header(value)).await, Verdict::Refused, "{value}");
        }
        assert_eq!(
            users.verdict(&header(&format!("bASIC {right}"))).await,
            Verdict::Admitted
        );
    }

    #[tokio::test]
    async fn without_users_every_request_is_accepted() {
        assert_eq!(users(&[]).verdict(&HeaderMap::new()).await, Verdict::Admitted);
    }

    #[tokio::test]
    async fn remembered_password_needs_no_slot() {
        let mut users = users(&[("alice", "secret")]);
        assert_eq!(users.verdict(&basic("alice", "secret")).await, Verdict::Admitted);
        let all = u32::try_from(CHECKS_AT_ONCE).unwrap();
        let places = users.places.clone();
        let _taken = places.free.acquire_many(all).await.unwrap();
        users.places.patience = Duration::ZERO;
        assert_eq!(users.verdict(&basic("alice", "secret")).await, Verdict::Admitted);
        assert_eq!(users.verdict(&basic("alice", "wrong")).await, Verdict::Busy);
        assert_eq!(users.verdict(&basic("nobody", "secret")).await, Verdict::Busy);
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
    fn tags_separate_their_parts_and_memory_is_limited() {
        let users = users(&[("alice", "secret")]);
        assert_ne!(users.tag(&[b"ab", b"c"]), users.tag(&[b"a", b"bc"]));
        for number in 0..2 * REMEMBERED {
            users.remember(users.tag(&[&number.to_be_bytes()]));
        }
        assert_eq!(remembered(&users), REMEMBERED);
        assert!(users.remembers(&users.tag(&[&(2 * REMEMBERED - 1).to_be_bytes()])));
        assert!(!users.remembers(&users.tag(&[&0_usize.to_be_bytes()])));
    }
}
