//! Modules, backup scopes and licences that need attention, and the columns of the table that lists them.

use std::collections::BTreeSet;

use super::{
    CUSTOMER, CUSTOMER_MODULE, DAY, EXPIRATION, Groups, JobState, LAST_BACKUP, LICENSE, MODULE, Output, PROTECTED,
    SCANNED, Samples, add, as_number, backup_licences, grouped, only, series_of,
};

/// Coverage below which a module needs attention, if it has at least [`MIN_OBJECTS`] objects.
const LOW_COVERAGE: f64 = 0.9;
const MIN_OBJECTS: f64 = 10.0;

/// Records the modules and backup scopes that need attention. The reason `switched off` is omitted, because no customer
/// of the demo disables a module within the month.
pub(super) fn record_attention(samples: &Samples<'_>, jobs: &JobState<'_>, out: &mut Output) {
    let (mut ranks, mut since) = (Groups::new(), Groups::new());
    let mut is_worse = BTreeSet::new();
    let mut is_listed = BTreeSet::new();
    for module in &jobs.modules {
        let (why, rank, began) = if module.last_backup == Some(0.0) {
            ("never backed up", 9.0, None)
        } else if let Some(age) = module.past_rpo(jobs.now) {
            let began = jobs.now - age + module.rpo;
            ("overdue", 7.0 + as_number(age > 2.0 * module.rpo), Some(began))
        } else if module.is_failing_repeatedly() {
            ("failing", 6.0, module.last_backup)
        } else if module.is_running_long(jobs.now) {
            ("running long", 4.0, module.running_since)
        } else {
            continue;
        };
        is_worse.insert(only(module.labels, CUSTOMER_MODULE));
        is_listed.insert(module.labels.to_owned());
        let labels = format!(r#"{},why="{why}""#, module.labels);
        since.insert(labels.clone(), began.unwrap_or(jobs.now));
        ranks.insert(labels, rank);
    }
    let overdue = ranks.iter().filter(|(_, rank)| **rank >= 7.0);
    let overdue = grouped(
        overdue.map(|(labels, _)| (labels.as_str(), 1.0)),
        CUSTOMER_MODULE,
        f64::max,
    );
    let overdue = grouped(series_of(&overdue), MODULE, add);
    let objectives = jobs.modules.iter().map(|module| (module.labels, 1.0));
    let customers = grouped(objectives, CUSTOMER_MODULE, f64::max);
    let customers = grouped(series_of(&customers), MODULE, add);
    let overdue_or_none = customers
        .keys()
        .map(|module| (module.clone(), overdue.get(module).copied().unwrap_or_default()));
    out.groups("module:elements_customers_overdue:count", overdue_or_none.collect());
    out.groups("module:elements_customers:count", customers);
    if !out.is_due("customer_module:elements_attention:rank") {
        return;
    }
    for module in modules_with_low_coverage(samples, jobs) {
        if !is_worse.contains(&module) {
            let labels = format!(r#"{module},why="coverage""#);
            since.insert(labels.clone(), jobs.now);
            ranks.insert(labels, 2.0);
            is_listed.insert(module);
        }
    }
    for (customer, left) in ending_licences(samples, jobs.now) {
        let rank = 1.0 + 4.0 * as_number(left < 7.0 * DAY);
        let labels = format!(r#"{customer},module="Licences",why="licence""#);
        since.insert(labels.clone(), jobs.now + left - 30.0 * DAY);
        ranks.insert(labels, rank);
    }
    let listed = || jobs.modules.iter().filter(|module| is_listed.contains(module.labels));
    out.series(
        "customer_module:elements_job_last_backup_timestamp_seconds:max_attention",
        listed().filter_map(|module| Some((module.labels, module.last_backup?))),
    );
    out.series(
        "customer_module:elements_job_rpo_seconds:max_attention",
        listed().map(|module| (module.labels, module.rpo)),
    );
    out.series(
        "customer_module:elements_job_consecutive_failures:max_attention",
        listed().filter_map(|module| Some((module.labels, module.failures?))),
    );
    out.groups("customer_module:elements_attention:since_timestamp_seconds", since);
    out.groups("customer_module:elements_attention:rank", ranks);
}

/// Returns the backed-up modules with an RPO that have at least [`MIN_OBJECTS`] objects and a coverage below
/// [`LOW_COVERAGE`].
fn modules_with_low_coverage(samples: &Samples<'_>, jobs: &JobState<'_>) -> Vec<String> {
    let protected = grouped(samples.series(PROTECTED), CUSTOMER_MODULE, add);
    let scanned = grouped(samples.series(SCANNED), CUSTOMER_MODULE, add);
    let objectives = jobs.modules.iter().map(|module| (module.labels, 1.0));
    let objectives = grouped(objectives, CUSTOMER_MODULE, f64::max);
    let restore_points = grouped(samples.series(LAST_BACKUP), CUSTOMER_MODULE, f64::max);
    let is_low = |(module, scanned): &(&String, &f64)| {
        let protected = protected.get(*module).copied();
        let is_backed_up = restore_points.get(*module).is_some_and(|end| *end > 0.0) || protected > Some(0.0);
        **scanned >= MIN_OBJECTS
            && is_backed_up
            && objectives.contains_key(*module)
            && protected.is_some_and(|protected| protected / **scanned < LOW_COVERAGE)
    };
    scanned
        .iter()
        .filter(is_low)
        .map(|(module, _)| module.clone())
        .collect()
}

/// Returns, for each customer, the seconds until the first backup licence expires. Considers only licences that have no
/// replacement, and that expire within the next 30 days or expired within the last 30 days.
fn ending_licences(samples: &Samples<'_>, now: f64) -> Groups {
    let backups = backup_licences(samples);
    let left: Vec<(&str, f64)> = samples
        .series(EXPIRATION)
        .map(|(license, expires)| (license, expires - now))
        .collect();
    let longest = grouped(left.iter().copied(), &["customer_id", "service"], f64::max);
    let ending = left.into_iter().filter(|(license, left)| {
        let replacement = longest.get(&only(license, &["customer_id", "service"])).copied();
        (-30.0 * DAY..30.0 * DAY).contains(left)
            && backups.contains_key(&only(license, LICENSE))
            && replacement <= Some(if *left > 0.0 { 30.0 * DAY } else { 0.0 })
    });
    grouped(ending, CUSTOMER, f64::min)
}
