//! Who may come in, by basic auth.
//!
//! A wrong name costs an attacker what a wrong password costs, and tells as little. A right password is bcrypted once and
//! then remembered, so that scrapes cost next to nothing.

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

use super::error::Error;
use crate::secret::Secret;

/// Passwords that are checked at once. Each check keeps a processor busy, and polls and scrapes want some, too.
const CHECKS_AT_ONCE: usize = 2;

/// How long a request waits for others' passwords to be checked before it is turned away. Shorter than the ten seconds
/// that Prometheus by default waits for a scrape.
const CHECK_WAIT: Duration = Duration::from_secs(5);

/// How many right passwords are remembered: more than there are scrapers and people at one exporter.
const REMEMBERED: usize = 64;

/// The places for checks, which all that was ever in force shares: a reload makes no new ones.
#[derive(Clone)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    /// How long to wait for one.
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

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on.
    Admitted,
    /// Name and password are missing or wrong.
    Refused,
    /// Too many wait for their passwords to be checked.
    Busy,
}

/// The users and their hashes.
pub(super) struct Users {
    hashes: BTreeMap<Vec<u8>, Secret>,
    /// Tells nothing about what it was made from without this key, which nobody outside the process has: neither by the
    /// time that a comparison takes, nor in a core dump without it.
    key: hmac::Key,
    /// Tags of name, hash and password that were found right, oldest first.
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

    /// Whether there are none, and anybody may come in.
    pub(super) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// What becomes of a request with these headers.
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

    /// Whether a password belongs to a hash; `None` where there was no place to find out.
    async fn check(&self, password: Vec<u8>, hash: Secret) -> Option<bool> {
        let place = Arc::clone(&self.places.free).acquire_owned();
        let place = tokio::time::timeout(self.places.patience, place).await.ok()?.ok()?;
        let check = tokio::task::spawn_blocking(move || {
            let is_right = bcrypt::verify(&password, hash.expose()).unwrap_or(false);
            // A check goes on when its request is gone, and keeps its place as long.
            drop(place);
            is_right
        });
        check.await.ok()
    }

    /// The hash against which the password of an unknown name is checked, for the time that it takes. It is that of some
    /// user, always the same for one name, so that names are not told apart where hashes differ in cost.
    fn decoy(&self, name: &[u8]) -> Option<&Secret> {
        let [first, ..] = self.tag(&[name]);
        let index = usize::from(first).checked_rem(self.hashes.len())?;
        self.hashes.values().nth(index)
    }

    fn tag(&self, parts: &[&[u8]]) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            // The length keeps "ab" and "c" from looking like "a" and "bc".
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

/// A name and a password as a client gave them.
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
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use axum::http::HeaderValue;

    use super::*;

    /// The lowest cost that there is.
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
    async fn only_the_right_password_of_a_known_name_comes_in() {
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
        assert_eq!(remembered(&users), 2, "a wrong password is not remembered");
    }

    #[tokio::test]
    async fn what_is_no_basic_auth_is_refused() {
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
    async fn without_users_anybody_comes_in() {
        assert_eq!(users(&[]).verdict(&HeaderMap::new()).await, Verdict::Admitted);
    }

    #[tokio::test]
    async fn no_place_is_needed_for_what_is_remembered_only() {
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
    fn an_unknown_name_always_meets_the_same_hash() {
        let users = users(&[("alice", "one"), ("bob", "two"), ("carol", "three")]);
        let decoy = |name: &str| users.decoy(name.as_bytes()).unwrap().expose().to_owned();
        let names: Vec<String> = (0..64).map(|number| format!("nobody-{number}")).collect();
        assert!(names.iter().all(|name| decoy(name) == decoy(name)));
        let used: std::collections::BTreeSet<_> = names.iter().map(|name| decoy(name)).collect();
        assert_eq!(used.len(), 3);
    }

    #[test]
    fn tags_keep_parts_apart_and_memory_is_bounded() {
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
