//! Errors that a poll can return.

use std::time::Duration;

use crate::api::{self, Endpoint, Error, Failure, RequestId};
use crate::collector::CollectorId;
use crate::store::Shrunk;

/// Reason why a poll has no complete result.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    /// A request failed, or the API returned no complete response.
    #[error(transparent)]
    Api(#[from] Failure),
    /// Too many customers are missing from the customer list.
    #[error(transparent)]
    Shrunk(#[from] Shrunk),
    /// The response to a request for one customer is about another customer.
    #[error("the response is not about the requested customer")]
    WrongCustomer,
    /// A customer that is configured by id is missing from a complete customer list.
    #[error("the customer is not listed")]
    NotListed,
    /// An optional collector received an empty response, although the store has data for the target.
    #[error("incomplete list: the response is empty, although earlier responses were not")]
    Empty,
    /// The response would exceed `metrics.series_limit`.
    #[error("the response would exceed metrics.series_limit")]
    SeriesLimit,
    /// The poll exceeded the maximum duration.
    #[error("the poll did not finish within {}", humantime::format_duration(*.0))]
    Deadline(Duration),
    /// The poll panicked because of a bug in the exporter.
    #[error("the poll panicked; this is a bug in the exporter")]
    Panicked,
}

/// Values of [`PollError::reason`] in addition to [`api::REASONS`].
pub const REASONS: &[&str] = &["shrunk", "series_limit", "deadline", "panicked"];

/// Returns all values of [`PollError::reason`]. Their counters start at zero.
pub fn reasons() -> impl Iterator<Item = &'static str> + Clone {
    api::REASONS.iter().chain(REASONS).copied()
}

impl PollError {
    /// Returns the value of the label `reason`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Api(failure) => failure.error.reason(),
            Self::Shrunk(_) => "shrunk",
            Self::WrongCustomer => "decode",
            Self::NotListed => "not_found",
            Self::Empty => "incomplete",
            Self::SeriesLimit => "series_limit",
            Self::Deadline(_) => "deadline",
            Self::Panicked => "panicked",
        }
    }

    /// Returns the endpoint of the failed request, or the collector's main endpoint.
    pub(super) fn endpoint(&self, collector: CollectorId) -> Endpoint {
        match self {
            Self::Api(failure) => failure.endpoint,
            Self::WrongCustomer => Endpoint::Customer,
            _ => collector.descriptor().endpoint,
        }
    }

    /// Returns the API error, if the poll failed because of one.
    pub(super) fn api(&self) -> Option<&Error> {
        match self {
            Self::Api(failure) => Some(&failure.error),
            _ => None,
        }
    }

    /// Returns the id of the failed request, if the response contains it.
    pub(super) fn request_id(&self) -> Option<&RequestId> {
        match self {
            Self::Api(failure) => failure.request_id.as_ref(),
            _ => None,
        }
    }

    /// Returns the error without the endpoint, which callers report separately.
    pub(super) fn cause(&self) -> &(dyn std::error::Error + 'static) {
        match self {
            Self::Api(failure) => &failure.error,
            other => other,
        }
    }

    /// Returns the missing permission, if that is why the poll failed.
    pub(super) fn missing_permission(&self) -> Option<&'static str> {
        match self.api() {
            Some(Error::NotPermitted(scope)) => Some(scope),
            _ => None,
        }
    }

    /// Returns whether the target lacks the service that the collector polls.
    pub(super) fn is_unlicensed(&self, collector: CollectorId) -> bool {
        let is_unlicensed = |error| collector.descriptor().is_unlicensed(error);
        self.api().is_some_and(is_unlicensed)
    }

    /// Returns whether the API denied access with status 403.
    pub(super) fn is_forbidden(&self) -> bool {
        self.api().is_some_and(Error::is_forbidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_listed_once() {
        let shrunk = Shrunk { missing: 1, known: 1 };
        let errors = [
            shrunk.into(),
            PollError::SeriesLimit,
            PollError::Deadline(Duration::ZERO),
            PollError::Panicked,
        ];
        assert_eq!(errors.map(|error: PollError| error.reason()), REASONS);
        assert!(REASONS.iter().all(|reason| !api::REASONS.contains(reason)));
        for error in [PollError::WrongCustomer, PollError::NotListed, PollError::Empty] {
            assert!(api::REASONS.contains(&error.reason()), "{error}");
        }
    }
}
