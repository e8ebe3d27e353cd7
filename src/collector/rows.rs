//! Common code for collectors: lists that cover all customers, rows carried over from earlier responses, and sample
//! values.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::value::RawValue;

use super::{Context, FUTURE_TOLERANCE, Target};
use crate::api::wire::{Names, Row};
use crate::api::{Api, Endpoint, Failure, Observer, v3};
use crate::domain::{CustomerId, Timestamp};

/// Number of rows parsed between two yields. Parsing this many rows takes a few milliseconds.
const ROWS_PER_YIELD: usize = 1_000;

/// Yields after every [`ROWS_PER_YIELD`] rows, so that a long response does not block other tasks.
pub(super) async fn yield_at(position: usize) {
    if position % ROWS_PER_YIELD == ROWS_PER_YIELD - 1 {
        tokio::task::yield_now().await;
    }
}

/// Passes each row of a response to `add`, which returns whether the row is a duplicate, or `None` if it is invalid.
/// Reports the number of duplicates, and returns the number of invalid rows.
pub(super) async fn read_rows(
    rows: &[Box<RawValue>],
    endpoint: Endpoint,
    observer: &dyn Observer,
    mut add: impl FnMut(&Row<'_>) -> Option<bool>,
) -> usize {
    let (mut unreadable, mut duplicates) = (0, 0);
    for (position, json) in rows.iter().enumerate() {
        yield_at(position).await;
        match Row::read(json, endpoint, observer).and_then(|row| add(&row)) {
            Some(is_duplicate) => duplicates += u64::from(is_duplicate),
            None => unreadable += 1,
        }
    }
    if duplicates > 0 {
        observer.duplicate_rows(endpoint, duplicates);
    }
    unreadable
}

/// A list that covers all customers, and can also be requested for a single customer.
pub(super) struct CustomerList {
    /// Endpoint of the list.
    pub(super) endpoint: Endpoint,
    /// Endpoint for a single customer in API v1.
    pub(super) single_endpoint: Endpoint,
    pub(super) scope_v1: &'static str,
    pub(super) scope_v3: &'static str,
    pub(super) path_v1: &'static str,
    pub(super) path_v3: &'static [&'static str],
    /// See [`v3::List::key`].
    pub(super) key: Option<&'static str>,
}

impl CustomerList {
    /// Fetches a target's rows. Returns them with the endpoint that was requested.
    pub(super) async fn fetch(
        &self,
        api: &Api,
        target: &Target,
        context: &Context,
    ) -> Result<(Endpoint, Vec<Box<RawValue>>), Failure> {
        match (api, target) {
            (Api::V1(client), Target::Partner) => {
                let rows = client.fetch_list(self.endpoint, self.scope_v1, &[self.path_v1]).await?;
                Ok((self.endpoint, rows))
            }
            (Api::V1(client), Target::Customer(id)) => {
                let path = [self.path_v1, id.as_str()];
                let rows = client.fetch_entity(self.single_endpoint, self.scope_v1, &path).await?;
                Ok((self.single_endpoint, rows))
            }
            (Api::V3(client), target) => {
                let list = v3::List {
                    endpoint: self.endpoint,
                    scope: self.scope_v3,
                    path: self.path_v3,
                    filter: Some(&customer_filter(target, context)),
                    key: self.key,
                };
                Ok((self.endpoint, client.fetch_list(list).await?))
            }
        }
    }
}

/// Returns the body of a v3 request for one customer, for the configured customers, or for all customers.
fn customer_filter(target: &Target, context: &Context) -> String {
    match target {
        Target::Customer(id) => serde_json::json!({ "customerIds": [id.as_str()] }).to_string(),
        Target::Partner if context.settings.customer_ids.is_empty() => "{}".to_owned(),
        Target::Partner => serde_json::json!({ "customerIds": context.settings.customer_ids }).to_string(),
    }
}

/// Returns the time `at`, unless it is later than `now` by more than the tolerance for clock skew. In that case, counts
/// the time as invalid and returns `None`.
pub(super) fn not_in_future(row: &Row<'_>, names: Names, at: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let is_future = at > now.plus(FUTURE_TOLERANCE);
    if is_future {
        row.invalid(names, "a time in the future");
    }
    (!is_future).then_some(at)
}

/// Keeps only the requested customer's record, under the requested spelling of its id. Ids are compared without regard
/// to case.
pub(super) fn only_requested<R>(requested: &CustomerId, records: BTreeMap<CustomerId, R>) -> BTreeMap<CustomerId, R> {
    let same = |id: &CustomerId| id.as_str().eq_ignore_ascii_case(requested.as_str());
    let matching = records.into_iter().find(|(id, _)| same(id));
    matching
        .map(|(_, record)| (requested.clone(), record))
        .into_iter()
        .collect()
}

/// Converts a count to a sample value. The conversion is exact for all parsed counts.
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

/// Converts a signed number to a sample value. The conversion is exact for all parsed numbers.
pub(super) fn signed_float(number: i64) -> f64 {
    number as f64
}

/// Returns the valid rows of a response, followed by the previous rows that are not among them. The new version of such
/// a row may be one of the invalid rows. `hold` marks each of the previous rows as carried over.
pub(super) fn keep_missing<R: Clone, K: Ord>(
    previous: &[R],
    mut partial: Vec<R>,
    key: impl Fn(&R) -> K,
    hold: impl Fn(&mut R),
) -> Vec<R> {
    let present: BTreeSet<K> = partial.iter().map(&key).collect();
    let missing = previous.iter().filter(|row| !present.contains(&key(row))).cloned();
    partial.extend(missing.map(|mut row| {
        hold(&mut row);
        row
    }));
    partial
}

/// Returns the matching previous row, if any, for use in place of a listed row whose details are missing. `hold` marks
/// the returned row as carried over.
pub(super) fn hold_known<R: Clone>(
    previous: Option<&Vec<R>>,
    is_match: impl Fn(&R) -> bool,
    hold: impl Fn(&mut R),
) -> Option<R> {
    let mut row = previous?.iter().find(|row| is_match(row))?.clone();
    hold(&mut row);
    Some(row)
}

/// Splits rows into new rows and rows that are carried over; returns `None` if no rows are carried over.
pub(super) fn split_rows<R: Clone>(rows: &[R], is_held: impl Fn(&R) -> bool) -> Option<(Vec<R>, Vec<R>)> {
    let (held, fresh): (Vec<R>, Vec<R>) = rows.iter().cloned().partition(is_held);
    (!held.is_empty()).then_some((fresh, held))
}
