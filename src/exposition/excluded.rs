//! Metrics excluded by `metrics.exclude`.

use std::collections::BTreeSet;

use super::Metric;
use crate::domain::Pattern;

/// Metrics that are excluded from every response and from the series count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExcludedMetrics {
    names: BTreeSet<&'static str>,
    families: BTreeSet<&'static str>,
}

impl ExcludedMetrics {
    /// Returns the `metrics` whose names match any of the patterns. A histogram is matched by its family name.
    pub fn matching(patterns: &[Pattern], metrics: impl IntoIterator<Item = Metric>) -> Self {
        let mut excluded = Self::default();
        let fits = |metric: &Metric| patterns.iter().any(|pattern| pattern.matches_name(metric.name));
        for metric in metrics.into_iter().filter(fits) {
            excluded.names.insert(metric.name);
            excluded.families.insert(metric.family_name());
        }
        excluded
    }

    /// Returns whether no metric is excluded.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Returns whether a metric is excluded.
    pub fn contains(&self, metric: &Metric) -> bool {
        self.names.contains(metric.name)
    }

    /// Removes the excluded families from OpenMetrics text.
    pub fn strip(&self, openmetrics: String) -> String {
        if self.is_empty() {
            return openmetrics;
        }
        let mut is_excluded = false;
        let mut text = String::with_capacity(openmetrics.len());
        for line in openmetrics.lines() {
            // Every family begins with its HELP line.
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let family = rest.split(' ').next().unwrap_or_default();
                is_excluded = self.families.contains(family);
            }
            if !is_excluded {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_excluded_completely() {
        let metrics = [
            Metric::counter("elements_a_total", "A"),
            Metric::histogram("elements_b", "B"),
            Metric::gauge("elements_bc", "BC"),
            Metric::info("elements_d_info", "D"),
        ];
        let patterns = ["elements_a_total", "elements_b", "ELEMENTS_D*"];
        let patterns = patterns.map(|pattern| Pattern::parse(pattern).unwrap());
        let excluded = ExcludedMetrics::matching(&patterns, metrics);
        let shown = metrics.map(|metric| !excluded.contains(&metric));
        assert_eq!(shown, [false, false, true, false]);
        let kept = "# HELP elements_bc BC.\n# TYPE elements_bc gauge\nelements_bc 1\n";
        let text = format!(
            "# HELP elements_a A.\n# TYPE elements_a counter\nelements_a_total 1\n{kept}\
             # HELP elements_b B.\n# TYPE elements_b histogram\nelements_b_sum 0\nelements_b_bucket{{le=\"+Inf\"}} 0\n\
             # HELP elements_d D.\n# TYPE elements_d info\nelements_d_info 1\n"
        );
        assert_eq!(excluded.strip(text.clone()), kept);
        assert_eq!(ExcludedMetrics::default().strip(text.clone()), text);
    }
}
