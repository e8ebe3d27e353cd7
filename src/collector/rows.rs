//! Shared by collectors: rows kept from earlier responses, and sample values.

use std::collections::{BTreeMap, BTreeSet};

use super::{Context, FUTURE_TOLERANCE, Target};
use crate::api::wire::{Names, Row};
use crate::domain::{CustomerId, Timestamp};

/// Rows parsed between yields: a few milliseconds' worth.
const ROWS_A_TURN: usize = 1_000;

/// Yields now and then while the rows of a long response are parsed.
pub(super) async fn turn(position: usize) {
    if position % ROWS_A_TURN == ROWS_A_TURN - 1 {
        tokio::task::yield_now().await;
    }
}

/// Returns the body of a second-generation request for the target, or for the configured customers.
pub(super) fn customer_filter(target: &Target, context: &Context) -> String {
    match target {
        Target::Customer(id) => serde_json::json!({ "customerIds": [id.as_str()] }).to_string(),
        Target::Partner if context.settings.customer_ids.is_empty() => "{}".to_owned(),
        Target::Partner => serde_json::json!({ "customerIds": context.settings.customer_ids }).to_string(),
    }
}

/// Returns a time unless it is in the future, where it counts as invalid. Clocks may differ within the tolerance.
pub(super) fn not_in_future(row: &Row<'_>, names: Names, at: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let is_future = at > now.plus(FUTURE_TOLERANCE);
    if is_future {
        row.invalid(names, "a time in the future");
    }
    (!is_future).then_some(at)
}

/// Keeps only the record of that customer. Ids are compared without case, and the requested spelling is kept.
pub(super) fn only<R>(requested: &CustomerId, records: BTreeMap<CustomerId, R>) -> BTreeMap<CustomerId, R> {
    let same = |id: &CustomerId| id.as_str().eq_ignore_ascii_case(requested.as_str());
    let found = records.into_iter().find(|(id, _)| same(id));
    found
        .map(|(_, record)| (requested.clone(), record))
        .into_iter()
        .collect()
}

/// Returns a count as a sample value; `None` if it is too large to be exact.
pub(super) fn exact(count: usize) -> Option<f64> {
    u32::try_from(count).ok().map(f64::from)
}

/// Returns a count as a sample value. Parsed counts are always exact.
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

/// Returns a signed number as a sample value, exact for the same reason.
pub(super) fn signed_float(number: i64) -> f64 {
    number as f64
}

/// A row that may be kept from an earlier response.
pub(super) trait Held: Clone {
    /// Whether it is kept from an earlier response.
    fn held(&mut self) -> &mut bool;
}

/// Returns the valid rows of a response and the previous rows whose keys it lacks, marked as held: any of them may be
/// the invalid row.
pub(super) fn keep_missing<R: Held, K: Ord>(previous: &[R], mut partial: Vec<R>, key: impl Fn(&R) -> K) -> Vec<R> {
    let read: BTreeSet<K> = partial.iter().map(&key).collect();
    let missing = previous.iter().filter(|row| !read.contains(&key(row))).cloned();
    partial.extend(missing.map(|mut row| {
        *row.held() = true;
        row
    }));
    partial
}

/// Returns a previous row, marked as held, for an entry of the newest list that has no details.
pub(super) fn hold_known<R: Held>(previous: Option<&Vec<R>>, is_meant: impl Fn(&R) -> bool) -> Option<R> {
    let mut row = previous?.iter().find(|row| is_meant(row))?.clone();
    *row.held() = true;
    Some(row)
}

/// Splits rows into those of the newest response and held ones; `None` if none are held.
pub(super) fn split_rows<R: Held>(rows: &[R]) -> Option<(Vec<R>, Vec<R>)> {
    let (mut fresh, mut held) = (Vec::new(), Vec::new());
    for mut row in rows.iter().cloned() {
        let rows = if *row.held() { &mut held } else { &mut fresh };
        rows.push(row);
    }
    (!held.is_empty()).then_some((fresh, held))
}
