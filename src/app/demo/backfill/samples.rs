//! Samples of an exposition in the text format, and operations on their labels.

use std::collections::{BTreeMap, HashMap};

/// Parses the name, labels and value of a line in the text format. Returns `None` for a comment or an invalid line.
pub(super) fn sample(line: &str) -> Option<(&str, &str, &str)> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.rsplit_once(' ')?;
    match series.split_once('{') {
        Some((name, labels)) => Some((name, labels.strip_suffix('}')?, value)),
        None => Some((series, "", value)),
    }
}

/// Series of selected metrics.
pub(super) struct Samples<'a>(BTreeMap<&'static str, Family<'a>>);

/// Series of one metric, by labels.
#[derive(Default)]
struct Family<'a> {
    series: Vec<(&'a str, f64)>,
    positions: HashMap<&'a str, usize>,
}

impl<'a> Samples<'a> {
    /// Parses the metrics with these names.
    pub(super) fn of(exposition: &'a str, names: &[&'static str]) -> Self {
        let mut families: BTreeMap<&'static str, Family<'a>> =
            names.iter().map(|name| (*name, Family::default())).collect();
        for (name, labels, value) in exposition.lines().filter_map(sample) {
            if let (Some(family), Ok(value)) = (families.get_mut(name), value.parse()) {
                family.positions.insert(labels, family.series.len());
                family.series.push((labels, value));
            }
        }
        Self(families)
    }

    /// Returns the series of a metric.
    pub(super) fn series(&self, name: &str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0
            .get(name)
            .into_iter()
            .flat_map(|family| family.series.iter().copied())
    }

    /// Returns the value of a series.
    pub(super) fn value(&self, name: &str, labels: &str) -> Option<f64> {
        let family = self.0.get(name)?;
        let (_, value) = family.series.get(*family.positions.get(labels)?)?;
        Some(*value)
    }
}

/// Values by labels.
pub(super) type Groups = BTreeMap<String, f64>;

pub(super) fn add(one: f64, other: f64) -> f64 {
    one + other
}

/// Merges the series that have the same values for these labels.
pub(super) fn grouped<'a>(
    series: impl Iterator<Item = (&'a str, f64)>,
    by: &[&str],
    merge: fn(f64, f64) -> f64,
) -> Groups {
    let mut groups = Groups::new();
    for (labels, value) in series {
        groups
            .entry(only(labels, by))
            .and_modify(|merged| *merged = merge(*merged, value))
            .or_insert(value);
    }
    groups
}

/// Returns the groups as series.
pub(super) fn series_of(groups: &Groups) -> impl Iterator<Item = (&str, f64)> {
    groups.iter().map(|(labels, value)| (labels.as_str(), *value))
}

/// Returns the labels with these names.
pub(super) fn only(labels: &str, names: &[&str]) -> String {
    let is_wanted = |pair: &&str| pair.split_once('=').is_some_and(|(name, _)| names.contains(&name));
    let mut selected = String::with_capacity(labels.len());
    for pair in pairs(labels).filter(is_wanted) {
        if !selected.is_empty() {
            selected.push(',');
        }
        selected.push_str(pair);
    }
    selected
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
    fn samples_are_split_into_their_parts() {
        let labelled = sample(r#"elements_jobs{a="} 1",b="x y"} 3"#);
        assert_eq!(labelled, Some(("elements_jobs", r#"a="} 1",b="x y""#, "3")));
        assert_eq!(sample("elements_up 1"), Some(("elements_up", "", "1")));
        assert_eq!(sample("# HELP elements_up 1"), None);
        assert_eq!(sample(""), None);
    }

    #[test]
    fn commas_inside_label_values_do_not_split_labels() {
        let labels = r#"customer_id="a,b\\",service="x\",y",module="z",scope="s""#;
        assert_eq!(only(labels, &["customer_id"]), r#"customer_id="a,b\\""#);
        assert_eq!(only(labels, &["service", "module"]), r#"service="x\",y",module="z""#);
        assert_eq!(only("", &["module"]), "");
    }
}
