//! Common code for collectors that send one request per item, such as a customer's tenant.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use serde::{Deserialize, Serialize};

use super::{Context, PollOutput, UNLICENSED_RECHECK};
use crate::api::{Api, Endpoint, Error, Failure};
use crate::domain::{CustomerId, TenantId, Timestamp};

/// Maximum number of tenants polled per customer. The largest customers have dozens.
const MAX_POLLED_TENANTS: usize = 500;

const TOO_MANY_TENANTS: &str = "the customer has more than 500 tenants; only 500 are polled";

/// Records by part. The parts are a customer's tenants, or a tenant's products. In the state file, the fields keep the
/// names that older versions used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Parts<K: Ord, R> {
    #[serde(rename = "tenants", alias = "consented")]
    records: BTreeMap<K, R>,
    /// Parts whose last known records are served, each with the time of the first poll without a new record.
    #[serde(rename = "held", default = "BTreeMap::new")]
    last_known_since: BTreeMap<K, Timestamp>,
    /// Parts that lack the service, each with the time of the poll that detected this.
    #[serde(rename = "lacking", alias = "absent")]
    unlicensed_since: BTreeMap<K, Timestamp>,
}

/// Records of a customer's tenants.
pub(super) type Tenants<R> = Parts<TenantId, R>;

impl<K: Ord, R> Default for Parts<K, R> {
    fn default() -> Self {
        Self {
            records: BTreeMap::new(),
            last_known_since: BTreeMap::new(),
            unlicensed_since: BTreeMap::new(),
        }
    }
}

impl<K: Ord, R> Parts<K, R> {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &R)> {
        self.records.iter()
    }
}

impl<K: Clone + Ord, R: Clone + Default + PartialEq> Parts<K, R> {
    /// Splits the parts into those with new records and those with last known records; returns `None` if all records
    /// are new. `split` splits a record that itself consists of parts.
    pub(super) fn split(&self, split: impl Fn(&R) -> (R, R)) -> Option<(Self, Self)> {
        let (mut fresh, mut held) = (Self::default(), Self::default());
        for (key, record) in &self.records {
            if self.last_known_since.contains_key(key) {
                held.records.insert(key.clone(), record.clone());
                continue;
            }
            let (fresh_part, held_part) = split(record);
            fresh.records.insert(key.clone(), fresh_part);
            if held_part != R::default() {
                held.records.insert(key.clone(), held_part);
            }
        }
        (!held.records.is_empty()).then_some((fresh, held))
    }

    /// Splits parts whose records are entirely new or entirely last known.
    pub(super) fn split_by_key(&self) -> Option<(Self, Self)> {
        self.split(|record| (record.clone(), R::default()))
    }

    /// Returns a copy without the removed keys; `None` if none of them is present.
    pub(super) fn without(&self, removed: &BTreeSet<K>) -> Option<Self> {
        let mut rest = self.clone();
        rest.records.retain(|key, _| !removed.contains(key));
        rest.last_known_since.retain(|key, _| !removed.contains(key));
        rest.unlicensed_since.retain(|key, _| !removed.contains(key));
        (rest != *self).then_some(rest)
    }
}

/// Returns whether an item that lacked the service at its last poll is due again.
pub(super) fn is_due_again(polled: Option<&Timestamp>, now: Timestamp) -> bool {
    // A time in the future means that the clock was set back.
    polled.is_none_or(|polled| now >= polled.plus(UNLICENSED_RECHECK) || *polled > now)
}

/// Returns whether last known values that have been served since `since` have expired.
pub(super) fn is_expired(since: Timestamp, context: &Context) -> bool {
    context.now > since.plus(context.stale_after)
}

/// Rules for polling one kind of part.
pub(super) struct Rules {
    /// Whether an error means that the part lacks the service.
    pub(super) is_denial: fn(&Error) -> bool,
    /// Converts such an error to the error that the poll returns if all parts lack the service.
    pub(super) all_denied: fn(Error) -> Error,
    /// Whether an empty response counts as a record.
    pub(super) keeps_empty: bool,
    /// Error text for an empty response that follows a non-empty one.
    pub(super) empty_problem: &'static str,
}

const TENANT_RULES: Rules = Rules {
    is_denial: Error::is_missing_service,
    all_denied: |error| error,
    keeps_empty: true,
    empty_problem: "empty response, although an earlier response was not empty",
};

/// Results of one poll's requests.
#[derive(Default)]
pub(super) struct RequestResults {
    any_succeeded: bool,
    /// The first failure.
    failure: Option<Failure>,
    /// The last error that means that a part lacks the service.
    denial: Option<Failure>,
}

impl RequestResults {
    /// Records that a request succeeded.
    pub(super) fn succeed(&mut self) {
        self.any_succeeded = true;
    }

    /// Records a failure, which makes the poll incomplete.
    pub(super) fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }

    /// Records an error that means that a part lacks the service. Such an error does not make the poll incomplete.
    pub(super) fn deny(&mut self, denial: Failure) {
        self.denial = Some(denial);
    }

    /// Returns the failure that makes the poll incomplete, if any.
    ///
    /// # Errors
    /// If no request succeeded, returns the failure or, if there is none, the error of a part that lacks the service.
    pub(super) fn finish(self) -> Result<Option<Failure>, Failure> {
        if self.any_succeeded {
            return Ok(self.failure);
        }
        self.failure.or(self.denial).map_or(Ok(None), Err)
    }
}

/// A tenant's record and the failure that left it incomplete, if any.
pub(super) type TenantResult<R> = Result<(R, Option<Failure>), Failure>;

/// Polls each tenant of a customer; `request` receives the tenant's last record. Tenants that lack the service (403,
/// 404) are polled at most once a day. If all tenants lack the service, so does the customer. If the request for a
/// tenant fails or returns nothing, the tenant's last record is kept until it expires.
pub(super) async fn poll_tenants<R, F, Request>(
    api: &Api,
    endpoint: Endpoint,
    (customer, context): (&CustomerId, &Context),
    previous: Option<&Tenants<R>>,
    request: F,
) -> Result<PollOutput<Tenants<R>>, Failure>
where
    R: Clone + Default + PartialEq,
    F: Fn(TenantId, Option<R>) -> Request,
    Request: Future<Output = TenantResult<R>>,
{
    let mut tenants = context.tenants(customer);
    let mut problem = (!context.has_all_tenant_ids(customer)).then_some("the customer list lacks some tenant ids");
    if tenants.len() > MAX_POLLED_TENANTS {
        api.observer().decode_error(endpoint, "tenants", TOO_MANY_TENANTS);
        problem = Some(TOO_MANY_TENANTS);
        tenants.truncate(MAX_POLLED_TENANTS);
    }
    let problem = problem.map(|problem| Error::Incomplete(problem).at(endpoint));
    let (record, incomplete) =
        request_all(tenants.clone(), endpoint, context, previous, &TENANT_RULES, request).await?;
    // Tenants may have been removed during the poll.
    let listed: BTreeSet<TenantId> = context.tenants(customer).into_iter().collect();
    let removed = tenants.into_iter().filter(|tenant| !listed.contains(tenant)).collect();
    let record = record.without(&removed).unwrap_or(record);
    Ok(PollOutput::of_customer(customer, record, 0, endpoint).with_failure(incomplete.or(problem)))
}

/// Polls each part. In the result, a part has a new or last known record, or is unlicensed. A part is left out if its
/// request failed and no earlier record is known. It is also left out if its response was empty, unless an unexpired
/// record is known or empty responses count as records.
///
/// # Errors
/// Returns an error if a failure affects all parts, or if a request failed and none succeeded. The previous record is
/// then kept until it expires.
pub(super) async fn request_all<K, R, F, Request>(
    keys: Vec<K>,
    endpoint: Endpoint,
    context: &Context,
    previous: Option<&Parts<K, R>>,
    rules: &Rules,
    request: F,
) -> Result<(Parts<K, R>, Option<Failure>), Failure>
where
    K: Clone + Ord,
    R: Clone + Default + PartialEq,
    F: Fn(K, Option<R>) -> Request,
    Request: Future<Output = TenantResult<R>>,
{
    let now = context.now;
    let mut record = Parts::default();
    let mut results = RequestResults::default();
    for key in keys {
        let unlicensed = previous.and_then(|previous| previous.unlicensed_since.get(&key));
        if let Some(since) = unlicensed.filter(|since| !is_due_again(Some(since), now)) {
            record.unlicensed_since.insert(key, *since);
            continue;
        }
        let known = previous.and_then(|previous| previous.records.get(&key));
        let since = previous.and_then(|previous| previous.last_known_since.get(&key));
        let since = since.copied().unwrap_or(now);
        let is_held = known.is_some_and(|known| *known != R::default()) && !is_expired(since, context);
        let response = match request(key.clone(), known.cloned()).await {
            Ok((latest, None)) if is_held && latest == R::default() => {
                Err(Error::Incomplete(rules.empty_problem).at(endpoint))
            }
            response => response,
        };
        match response {
            Ok((latest, partial)) => {
                if rules.keeps_empty || latest != R::default() {
                    results.succeed();
                    record.records.insert(key, latest);
                }
                if let Some(failure) = partial {
                    results.fail(failure);
                }
            }
            Err(cause) if !cause.error.is_resource_error() => return Err(cause),
            Err(cause) => {
                let is_denial = (rules.is_denial)(&cause.error);
                match known {
                    Some(known) if is_held || !is_denial => {
                        record.records.insert(key.clone(), known.clone());
                        record.last_known_since.insert(key, since);
                        results.fail(cause);
                    }
                    _ if is_denial => {
                        record.unlicensed_since.insert(key, now);
                        results.deny(Failure {
                            error: (rules.all_denied)(cause.error),
                            ..cause
                        });
                    }
                    _ => results.fail(cause),
                }
            }
        }
    }
    let incomplete = results.finish()?;
    Ok((record, incomplete))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    const ENDPOINT: Endpoint = Endpoint::Ransomware;

    fn tenant(id: &str) -> TenantId {
        TenantId::parse(id).expect("an id")
    }

    async fn poll(
        previous: &Tenants<u64>,
        now: i64,
        respond: impl Fn(&str) -> Result<u64, Error>,
    ) -> Result<(Tenants<u64>, Option<Failure>), Failure> {
        let now = Timestamp::from_unix_seconds(now);
        let context = Context {
            stale_after: Duration::from_secs(48 * 3600),
            ..Context::new(now, Arc::default(), Arc::from(""))
        };
        request_all(
            vec![tenant("a"), tenant("b")],
            ENDPOINT,
            &context,
            Some(previous),
            &TENANT_RULES,
            |id, _| {
                let response = respond(id.as_str()).map(|count| (count, None));
                std::future::ready(response.map_err(|error| error.at(ENDPOINT)))
            },
        )
        .await
    }

    fn shown(record: &Tenants<u64>) -> Vec<(&str, u64, bool)> {
        let mut shown = Vec::new();
        for (id, count) in record.iter() {
            shown.push((id.as_str(), *count, record.last_known_since.contains_key(id)));
        }
        shown
    }

    #[tokio::test]
    async fn failed_tenant_keeps_last_known_values() {
        let (first, incomplete) = poll(&Tenants::default(), 0, |_| Ok(1)).await.expect("a response");
        assert!(incomplete.is_none());
        for error in [400, 403, 404, 500] {
            let respond = |id: &str| if id == "a" { Err(Error::Status(error)) } else { Ok(2) };
            let (record, incomplete) = poll(&first, 60, respond).await.expect("a response");
            assert_eq!(shown(&record), [("a", 1, true), ("b", 2, false)], "{error}");
            assert!(incomplete.is_some() && record.unlicensed_since.is_empty());
            let (fresh, held) = record.split_by_key().expect("last known values");
            assert_eq!(shown(&fresh), [("b", 2, false)]);
            assert_eq!(shown(&held), [("a", 1, false)]);
        }
        let respond = |id: &str| Ok(if id == "a" { 0 } else { 2 });
        let (record, incomplete) = poll(&first, 60, respond).await.expect("a response");
        assert_eq!(shown(&record), [("a", 1, true), ("b", 2, false)]);
        assert!(incomplete.is_some());
    }

    #[tokio::test]
    async fn tenant_denied_at_first_or_for_days_is_unlicensed() {
        let respond = |id: &str| if id == "a" { Err(Error::Status(403)) } else { Ok(2) };
        let (record, incomplete) = poll(&Tenants::default(), 0, respond).await.expect("a response");
        assert!(incomplete.is_none() && record.unlicensed_since.contains_key(&tenant("a")));

        let (first, _) = poll(&Tenants::default(), 0, |_| Ok(1)).await.expect("a response");
        let (held, _) = poll(&first, 60, respond).await.expect("a response");
        let (record, incomplete) = poll(&held, 61 + 48 * 3600, respond).await.expect("a response");
        assert!(incomplete.is_none() && record.unlicensed_since.contains_key(&tenant("a")));
        assert_eq!(shown(&record), [("b", 2, false)]);
    }

    #[tokio::test]
    async fn removed_tenant_is_dropped() {
        let (first, _) = poll(&Tenants::default(), 0, |_| Ok(1)).await.expect("a response");
        let respond = |id: &str| if id == "a" { Err(Error::Status(500)) } else { Ok(2) };
        let (record, _) = poll(&first, 60, respond).await.expect("a response");
        let kept = record.without(&BTreeSet::from([tenant("a")])).expect("a change");
        assert_eq!(shown(&kept), [("b", 2, false)]);
        assert!(kept.last_known_since.is_empty());
        assert_eq!(kept.without(&BTreeSet::from([tenant("a")])), None);
    }

    #[tokio::test]
    async fn poll_without_any_response_fails() {
        let (first, _) = poll(&Tenants::default(), 0, |_| Ok(1)).await.expect("a response");
        let failed = poll(&first, 60, |_| Err(Error::Status(404))).await;
        assert!(failed.is_err_and(|failure| matches!(failure.error, Error::Status(404))));
    }
}
