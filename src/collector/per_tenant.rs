//! Common code of the collectors that poll each Microsoft 365 tenant of a customer separately.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Context, PollOutput};
use crate::api::{Api, Endpoint, Error, Failure};
use crate::domain::{CustomerId, TenantId, Timestamp};

/// Maximum number of polled tenants of a customer. The largest customers have dozens.
const MAX_POLLED_TENANTS: usize = 500;

const TOO_MANY_TENANTS: &str = "the customer has more tenants than are polled";

/// Time until a tenant that lacks a service is polled again.
pub(super) const RECHECK: Duration = Duration::from_secs(24 * 3600);

/// Records of the tenants of a customer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Tenants<R> {
    tenants: BTreeMap<TenantId, R>,
    /// Tenants whose records are held from earlier responses, with the time since when.
    #[serde(default = "BTreeMap::new")]
    held: BTreeMap<TenantId, Timestamp>,
    /// Tenants that lack the service, with the time of the response that showed it.
    lacking: BTreeMap<TenantId, Timestamp>,
}

impl<R> Default for Tenants<R> {
    fn default() -> Self {
        Self {
            tenants: BTreeMap::new(),
            held: BTreeMap::new(),
            lacking: BTreeMap::new(),
        }
    }
}

impl<R> Tenants<R> {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&TenantId, &R)> {
        self.tenants.iter()
    }
}

impl<R: Clone + Default + PartialEq> Tenants<R> {
    /// Splits this into fresh and held records, if any are held. `split` does the same for the record of one tenant.
    pub(super) fn split(&self, split: impl Fn(&R) -> (R, R)) -> Option<(Self, Self)> {
        let (mut fresh, mut held) = (Self::default(), Self::default());
        for (tenant, kept) in &self.tenants {
            if self.held.contains_key(tenant) {
                held.tenants.insert(tenant.clone(), kept.clone());
                continue;
            }
            let (of_fresh, of_held) = split(kept);
            fresh.tenants.insert(tenant.clone(), of_fresh);
            if of_held != R::default() {
                held.tenants.insert(tenant.clone(), of_held);
            }
        }
        (!held.tenants.is_empty()).then_some((fresh, held))
    }

    /// Returns a copy without tenants that were removed from the customer, or `None` if it contains none of them.
    pub(super) fn without(&self, gone: &BTreeSet<TenantId>) -> Option<Self> {
        let mut kept = self.clone();
        kept.tenants.retain(|id, _| !gone.contains(id));
        kept.held.retain(|id, _| !gone.contains(id));
        kept.lacking.retain(|id, _| !gone.contains(id));
        (kept != *self).then_some(kept)
    }

    /// Splits this if the record of a tenant is fresh or held as a whole.
    pub(super) fn split_whole(&self) -> Option<(Self, Self)> {
        self.split(|kept| (kept.clone(), R::default()))
    }
}

/// Whether a tenant or product that was last polled at a given time is due again.
pub(super) fn is_due_again(polled: Option<&Timestamp>, now: Timestamp) -> bool {
    // A time in the future was stored before the clock was set back.
    polled.is_none_or(|polled| now >= polled.plus(RECHECK) || *polled > now)
}

/// Whether values that have been held since a given time have expired.
pub(super) fn is_given_up(since: Timestamp, context: &Context) -> bool {
    context.now > since.plus(context.stale_after)
}

/// Whether an error means that the customer or tenant lacks the service.
pub(super) fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Status(403 | 404))
}

/// Whether an error concerns only the requested resource, so that others can still be requested.
pub(super) fn is_of_one(error: &Error) -> bool {
    matches!(
        error,
        Error::Status(_) | Error::Decode(_) | Error::UnreadableRows(_) | Error::Incomplete(_)
    )
}

/// The record of a tenant, and the error that made it incomplete, if any.
pub(super) type Answer<R> = Result<(R, Option<Failure>), Failure>;

/// Polls each tenant of a customer, given its last record. Tenants that lack the service (403, 404) are polled once a
/// day; if all tenants lack it, so does the customer. If a poll is denied, fails or returns nothing, the last record of
/// the tenant is held.
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
    Request: Future<Output = Answer<R>>,
{
    let mut tenants = context.tenants(customer);
    let mut left_out = (!context.names_all_tenants(customer)).then_some("the customer list does not name all tenants");
    if tenants.len() > MAX_POLLED_TENANTS {
        api.observer().decode_error(endpoint, "tenants", TOO_MANY_TENANTS);
        left_out = Some(TOO_MANY_TENANTS);
        tenants.truncate(MAX_POLLED_TENANTS);
    }
    let left_out = left_out.map(|what| Error::Incomplete(what).at(endpoint));
    let (record, incomplete) = request_all(tenants.clone(), endpoint, context, previous, request).await?;
    // Tenants may have left during the poll.
    let listed: BTreeSet<TenantId> = context.tenants(customer).into_iter().collect();
    let gone = tenants.into_iter().filter(|tenant| !listed.contains(tenant)).collect();
    let record = record.without(&gone).unwrap_or(record);
    Ok(PollOutput::one(customer, record, 0, endpoint).incomplete_by(incomplete.or(left_out)))
}

async fn request_all<R, F, Request>(
    tenants: Vec<TenantId>,
    endpoint: Endpoint,
    context: &Context,
    previous: Option<&Tenants<R>>,
    request: F,
) -> Result<(Tenants<R>, Option<Failure>), Failure>
where
    R: Clone + Default + PartialEq,
    F: Fn(TenantId, Option<R>) -> Request,
    Request: Future<Output = Answer<R>>,
{
    let now = context.now;
    let mut record = Tenants::default();
    let (mut refusal, mut failure, mut is_answered) = (None, None, false);
    for tenant in tenants {
        let lacked = previous.and_then(|previous| previous.lacking.get(&tenant));
        if let Some(since) = lacked.filter(|since| !is_due_again(Some(since), now)) {
            record.lacking.insert(tenant, *since);
            continue;
        }
        let known = previous.and_then(|previous| previous.tenants.get(&tenant));
        let since = previous.and_then(|previous| previous.held.get(&tenant)).copied();
        let since = since.unwrap_or(now);
        let is_held = known.is_some_and(|known| *known != R::default()) && !is_given_up(since, context);
        let response = match request(tenant.clone(), known.cloned()).await {
            Ok((latest, None)) if is_held && latest == R::default() => {
                Err(Error::Incomplete("empty response; the previous one was not empty").at(endpoint))
            }
            response => response,
        };
        match response {
            Ok((latest, partial)) => {
                is_answered = true;
                record.tenants.insert(tenant, latest);
                failure = failure.or(partial);
            }
            Err(cause) if !is_of_one(&cause.error) => return Err(cause),
            Err(cause) => {
                let is_refusal = is_refusal(&cause.error);
                match known {
                    Some(known) if is_held || !is_refusal => {
                        record.tenants.insert(tenant.clone(), known.clone());
                        record.held.insert(tenant, since);
                        failure = failure.or(Some(cause));
                    }
                    _ if is_refusal => {
                        record.lacking.insert(tenant, now);
                        refusal = Some(cause);
                    }
                    _ => failure = failure.or(Some(cause)),
                }
            }
        }
    }
    // If no tenant responded, the last known values stay until they expire.
    match failure.is_some() || refusal.is_some() {
        true if !is_answered => match failure.or(refusal) {
            Some(failure) => Err(failure),
            None => Ok((record, None)),
        },
        _ => Ok((record, failure)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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
            |id, _| {
                let response = respond(id.as_str()).map(|count| (count, None));
                std::future::ready(response.map_err(|error| error.at(ENDPOINT)))
            },
        )
        .await
    }

    fn shown(record: &Tenants<u64>) -> Vec<(&str, u64, bool)> {
        let mut shown = Vec::new();
        for (id, kept) in record.iter() {
            shown.push((id.as_str(), *kept, record.held.contains_key(id)));
        }
        shown
    }

    #[tokio::test]
    async fn failed_tenant_is_held_and_others_are_updated() {
        let (first, incomplete) = poll(&Tenants::default(), 0, |_| Ok(1)).await.expect("a response");
        assert!(incomplete.is_none());
        for error in [400, 403, 404, 500] {
            let respond = |id: &str| if id == "a" { Err(Error::Status(error)) } else { Ok(2) };
            let (record, incomplete) = poll(&first, 60, respond).await.expect("a response");
            assert_eq!(shown(&record), [("a", 1, true), ("b", 2, false)], "{error}");
            assert!(incomplete.is_some() && record.lacking.is_empty());
            let (fresh, held) = record.split_whole().expect("something held");
            assert_eq!(shown(&fresh), [("b", 2, false)]);
            assert_eq!(shown(&held), [("a", 1, false)]);
        }
        let respond = |id: &str| Ok(if id == "a" { 0 } else { 2 });
        let (record, incomplete) = poll(&first, 60, respond).await.expect("a response");
        assert_eq!(shown(&record), [("a", 1, true), ("b", 2, false)]);
        assert!(incomplete.is_some());
    }

    #[tokio::test]
    async fn tenant_denied_at_first_or_for_days_lacks_the_service() {
        let respond = |id: &str| if id == "a" { Err(Error::Status(403)) } else { Ok(2) };
        let (record, incomplete) = poll(&Tenants::default(), 0, respond).await.expect("a response");
        assert!(incomplete.is_none() && record.lacking.contains_key(&tenant("a")));

        let (first, _) = poll(&Tenants::default(), 0, |_| Ok(1)).await.expect("a response");
        let (held, _) = poll(&first, 60, respond).await.expect("a response");
        let (record, incomplete) = poll(&held, 61 + 48 * 3600, respond).await.expect("a response");
        assert!(incomplete.is_none() && record.lacking.contains_key(&tenant("a")));
        assert_eq!(shown(&record), [("b", 2, false)]);
    }

    #[tokio::test]
    async fn removed_tenant_is_dropped_with_held_values() {
        let (first, _) = poll(&Tenants::default(), 0, |_| Ok(1)).await.expect("a response");
        let respond = |id: &str| if id == "a" { Err(Error::Status(500)) } else { Ok(2) };
        let (record, _) = poll(&first, 60, respond).await.expect("a response");
        let kept = record.without(&BTreeSet::from([tenant("a")])).expect("a change");
        assert_eq!(shown(&kept), [("b", 2, false)]);
        assert!(kept.held.is_empty());
        assert_eq!(kept.without(&BTreeSet::from([tenant("a")])), None);
    }

    #[tokio::test]
    async fn poll_without_any_response_fails() {
        let (first, _) = poll(&Tenants::default(), 0, |_| Ok(1)).await.expect("a response");
        let failed = poll(&first, 60, |_| Err(Error::Status(404))).await;
        assert!(failed.is_err_and(|failure| matches!(failure.error, Error::Status(404))));
    }
}
