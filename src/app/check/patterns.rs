//! Finds patterns in the configuration that match nothing.

use std::time::SystemTime;

use super::report::{Finding, Outcome};
use crate::app::unmatched_exclusions;
use crate::config::Config;
use crate::domain::{self, KnownNames, Timestamp, UnmatchedPattern};

/// Returns a finding for each pattern in `metrics.exclude` that matches no metric.
pub(super) fn exclusions_without_match(config: &Config) -> impl Iterator<Item = Finding> {
    unmatched_exclusions(config).map(|pattern| {
        let detail = format!("{:?} matches no metric", domain::log_safe(pattern));
        Finding::new("metrics.exclude", Outcome::Failed, "matches nothing", detail)
    })
}

/// Returns the patterns that match none of these names, except patterns for backup scopes.
pub(super) fn patterns_without_match(
    names: &KnownNames,
    config: &Config,
) -> impl Iterator<Item = (UnmatchedPattern, Finding)> {
    let now = Timestamp::from(SystemTime::now());
    let unmatched = names
        .unmatched(&config.customers, &config.rpo.overrides, now)
        .into_iter();
    unmatched.filter(|unmatched| !unmatched.is_scope()).map(|unmatched| {
        let nearest = names.nearest(&unmatched).map(domain::log_safe);
        let nearest = nearest.map_or_else(|| "no similar name".to_owned(), |name| format!("nearest: {name:?}"));
        let detail = format!("{:?} matches {}; {nearest}", unmatched.pattern, unmatched.what());
        let finding = Finding::new(unmatched.key.clone(), Outcome::Failed, "matches nothing", detail);
        (unmatched, finding)
    })
}
