//! Results of the recording rules that panels query over weeks. Prometheus evaluates rules only from its start on, so
//! without these results, such panels would be empty at first.

use std::collections::BTreeMap;

use super::sample;

/// Metrics that the rules read.
const RPO: &str = "elements_job_rpo_seconds";
const LAST_BACKUP: &str = "elements_job_last_backup_timestamp_seconds";
const END: &str = "elements_job_end_timestamp_seconds";
const FAILURES: &str = "elements_job_consecutive_failures";
const STATUS: &str = "elements_job_status";
const SIZE: &str = "elements_protected_size_bytes";
const READ: &[&str] = &[RPO, LAST_BACKUP, END, FAILURES, STATUS, SIZE];

const CUSTOMER: &[&str] = &["customer_id"];
const MODULE: &[&str] = &["service", "module"];
const CUSTOMER_MODULE: &[&str] = &["customer_id", "service", "module"];

/// Window of `module:elements_job_failing:ratio26h`.
const FAILING_WINDOW: f64 = 26.0 * 3600.0;

/// Factor for rounding: the rules round ratios to millionths.
const ROUNDING: f64 = 1e6;

/// A recorded sample of one step. It has the label `job`, but not `instance`.
pub(super) struct Recorded {
    pub(super) name: &'static str,
    pub(super) labels: String,
    pub(super) value: f64,
}

/// Returns the samples that the rules record from the exposition of one exporter.
pub(super) fn recorded(exposition: &str, now: f64) -> Vec<Recorded> {
    let mut read: BTreeMap<&str, BTreeMap<&str, f64>> = READ.iter().map(|name| (*name, BTreeMap::new())).collect();
    for (name, labels, value) in exposition.lines().filter_map(sample) {
        if let (Some(series), Ok(value)) = (read.get_mut(name), value.parse()) {
            series.insert(labels, value);
        }
    }
    let of = |name: &str| {
        read.get(name)
            .into_iter()
            .flatten()
            .map(|(labels, value)| (*labels, *value))
    };
    let at = |name: &str, labels: &str| read.get(name).and_then(|series| series.get(labels)).copied();

    let breached: Vec<(&str, f64)> = of(RPO)
        .filter_map(|(module, rpo)| Some((module, as_number(now - at(LAST_BACKUP, module)? > rpo))))
        .collect();
    let failing: Vec<(&str, f64)> = of(FAILURES)
        .filter(|(module, _)| at(RPO, module).is_some())
        .map(|(module, failures)| (module, as_number(failures > 0.0)))
        .collect();
    let failing_lately = failing
        .iter()
        .filter(|(module, _)| at(END, module).is_some_and(|end| end > now - FAILING_WINDOW));
    let customers_failing = grouped(failing_lately.copied(), CUSTOMER_MODULE, f64::max);
    let customers_breached = grouped(breached.iter().copied(), CUSTOMER, add);

    let mut out = Vec::new();
    let mut record = |name, labels: &str, value| {
        out.push(Recorded {
            name,
            labels: labels.to_owned(),
            value,
        });
    };
    for (module, value) in &breached {
        record("customer_module:elements_job_rpo_breached:bool", module, *value);
    }
    for (module, bytes) in grouped(of(SIZE), CUSTOMER_MODULE, add) {
        record("customer_module:elements_protected_size_bytes:sum", &module, bytes);
    }
    for (module, failing) in grouped(failing.iter().copied(), MODULE, add) {
        record("module:elements_job_failing:sum", &module, failing);
    }
    for (module, ratio) in mean_by(&customers_failing, MODULE) {
        let ratio = (ratio * ROUNDING).round() / ROUNDING;
        record("module:elements_job_failing:ratio26h", &module, ratio);
    }
    let protected_modules = grouped(of(RPO), CUSTOMER_MODULE, f64::max);
    let protected_modules = protected_modules.keys().map(|module| (module.as_str(), 1.0));
    for (module, customers) in grouped(protected_modules, MODULE, add) {
        record("module:elements_customers:count", &module, customers);
    }
    let states: Vec<String> = of(STATUS)
        .map(|(module, status)| format!(r#"{},status="{status}""#, only(module, MODULE)))
        .collect();
    for (state, count) in grouped(
        states.iter().map(|state| (state.as_str(), 1.0)),
        &["service", "module", "status"],
        add,
    ) {
        record("module_status:elements_job_status:count", &state, count);
    }
    let overdue = customers_breached.values().map(|modules| as_number(*modules > 0.0));
    let customers = customers_breached.values().map(|_| 1.0).sum::<f64>();
    if customers > 0.0 {
        let overdue: f64 = overdue.sum();
        record("fleet:elements_customers_overdue:sum", "", overdue);
        let within = (customers - overdue) / customers;
        record("fleet:elements_customers_within_rpo:ratio", "", within);
    }
    out
}

fn as_number(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn add(one: f64, other: f64) -> f64 {
    one + other
}

/// Merges series with the same values of these labels.
fn grouped<'a>(
    series: impl Iterator<Item = (&'a str, f64)>,
    by: &[&str],
    merge: fn(f64, f64) -> f64,
) -> BTreeMap<String, f64> {
    let mut groups = BTreeMap::new();
    for (labels, value) in series {
        let merged = groups.entry(only(labels, by)).or_insert(None);
        *merged = Some(merged.map_or(value, |before| merge(before, value)));
    }
    groups
        .into_iter()
        .filter_map(|(labels, value)| Some((labels, value?)))
        .collect()
}

fn mean_by(series: &BTreeMap<String, f64>, by: &[&str]) -> BTreeMap<String, f64> {
    let each = || series.iter().map(|(labels, value)| (labels.as_str(), *value));
    let counts = grouped(each().map(|(labels, _)| (labels, 1.0)), by, add);
    let sums = grouped(each(), by, add);
    sums.into_iter()
        .filter_map(|(labels, sum)| {
            let mean = sum / counts.get(&labels)?;
            Some((labels, mean))
        })
        .collect()
}

/// Returns the labels with these names.
fn only(labels: &str, names: &[&str]) -> String {
    let is_wanted = |pair: &&str| pair.split_once('=').is_some_and(|(name, _)| names.contains(&name));
    pairs(labels).filter(is_wanted).collect::<Vec<_>>().join(",")
}

/// Splits labels at the commas outside their values.
fn pairs(labels: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    labels.split(move |character| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match character {
            '\\' if is_quoted => is_escaped = !was_escaped,
            '"' if !was_escaped => is_quoted = !is_quoted,
            _ => {}
        }
        character == ',' && !is_quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_split_outside_values() {
        let labels = r#"customer_id="a,b\\",service="x\",y",module="z",scope="s""#;
        assert_eq!(only(labels, CUSTOMER), r#"customer_id="a,b\\""#);
        assert_eq!(only(labels, MODULE), r#"service="x\",y",module="z""#);
        assert_eq!(only("", MODULE), "");
    }
}
