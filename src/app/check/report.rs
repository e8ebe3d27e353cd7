//! Results of `check`, as a text report and as JSON.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::app::budget::Budget;
use crate::domain::{CustomerId, counted, log_safe};

/// How to grant a permission.
const GRANT: &str = "To grant a permission: in Elements, open Settings > API app registration, edit the app, add the \
                     permission and save. The permission takes effect within minutes.";

/// Maximum number of customers listed in the text report. The JSON report contains all of them.
const LISTED_CUSTOMERS: usize = 100;

/// Outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// Successful.
    Ok,
    /// Failed, or in need of attention.
    Failed,
    /// Skipped, because another check failed.
    Skipped,
    /// Disabled in the configuration, or impossible to determine.
    Off,
}

impl Outcome {
    fn style(self) -> Style {
        let colour = match self {
            Self::Ok => AnsiColor::Green,
            Self::Failed => AnsiColor::Red,
            Self::Skipped => AnsiColor::Yellow,
            Self::Off => return Style::new().dimmed(),
        };
        colour.on_default().bold()
    }
}

/// Result of one check.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    /// Name of the check.
    pub(super) name: String,
    /// Outcome of the check.
    pub(super) outcome: Outcome,
    /// Result in a few words.
    pub(super) result: &'static str,
    /// Details and advice.
    pub(super) detail: String,
    /// Number of rows in all responses; only for collectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rows: Option<usize>,
    /// Number of requests; only for collectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) requests: Option<u64>,
    /// Id of the failed request, for a support case with the vendor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request_id: Option<String>,
}

impl Finding {
    pub(super) fn new(name: impl Into<String>, outcome: Outcome, result: &'static str, detail: String) -> Self {
        Self {
            name: name.into(),
            outcome,
            result,
            detail,
            rows: None,
            requests: None,
            request_id: None,
        }
    }
}

/// An invalid or unknown value.
#[derive(Debug, Serialize)]
pub(super) struct UnusualValue {
    pub(super) endpoint: &'static str,
    pub(super) field: &'static str,
    /// The unknown value; or the invalid value with its letters and digits masked, or a description of the problem.
    pub(super) example: String,
}

/// A customer in the report, for example the one that was polled.
#[derive(Debug, Serialize)]
pub(super) struct NamedCustomer {
    pub(super) id: String,
    pub(super) organization: String,
}

impl NamedCustomer {
    pub(super) fn new(id: &CustomerId, organization: &str) -> Self {
        Self {
            id: id.log_safe(),
            organization: log_safe(organization),
        }
    }
}

/// Results of all checks.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub(super) api: String,
    pub(super) token_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) proxy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) api_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) customer: Option<NamedCustomer>,
    /// Whether only the configuration was checked, without sending any requests.
    #[serde(rename = "offline")]
    pub(super) is_offline: bool,
    /// Results for files and credentials; empty unless only the configuration was checked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) configuration: Vec<Finding>,
    pub(super) customers: usize,
    /// Customers that no row of the attributes file matches.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) without_attributes: Vec<NamedCustomer>,
    pub(super) connection: Vec<Finding>,
    pub(super) permissions: Vec<Finding>,
    pub(super) collectors: Vec<Finding>,
    /// Patterns in the configuration that match nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) patterns: Vec<Finding>,
    pub(super) invalid_values: Vec<UnusualValue>,
    pub(super) unknown_values: Vec<UnusualValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) budget: Option<Budget>,
    #[serde(skip)]
    pub(super) requests_per_second: f64,
    pub(super) requests: u64,
    pub(super) throttled: u64,
    /// Whether a permission is missing. If so, the report explains how to grant it.
    #[serde(skip)]
    pub(super) lacks_permission: bool,
    /// Names of the failed checks.
    pub(super) failed: Vec<String>,
    /// Names of the checks that were skipped because another check failed.
    pub(super) skipped: Vec<String>,
    /// Collectors whose cost is unknown, because they failed without returning rows.
    pub(super) not_measured: Vec<&'static str>,
    /// General advice, printed once.
    pub(super) hints: Vec<&'static str>,
    /// Whether all checks passed.
    pub(super) passed: bool,
}

impl Report {
    /// Returns whether all checks passed.
    pub fn passed(&self) -> bool {
        self.passed
    }

    /// Collects the names of failed and skipped checks, and determines whether all checks passed.
    pub(super) fn conclude(&mut self) {
        let named = |outcome: Outcome| -> Vec<String> {
            let findings = self
                .configuration
                .iter()
                .chain(&self.connection)
                .chain(&self.permissions)
                .chain(&self.collectors)
                .chain(&self.patterns);
            let matching = findings.filter(|finding| finding.outcome == outcome);
            matching.map(|finding| finding.name.clone()).collect()
        };
        let (mut failed, skipped) = (named(Outcome::Failed), named(Outcome::Skipped));
        let invalid = self.invalid_values.len();
        if invalid > 0 {
            failed.push(counted(invalid, "invalid value", "invalid values"));
        }
        if self.budget.is_some_and(|budget| !budget.suffices) {
            failed.push("the intervals".to_owned());
        }
        self.hints = self.lacks_permission.then_some(GRANT).into_iter().collect();
        self.passed = failed.is_empty() && skipped.is_empty() && (self.is_offline || !self.collectors.is_empty());
        (self.failed, self.skipped) = (failed, skipped);
    }

    /// Returns the report as JSON.
    pub fn json(&self) -> String {
        // Serialization cannot fail: the report contains only strings, numbers and booleans.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Returns the report as text, with ANSI colours.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "{name:<11} {value}");
        };
        line("API", &self.api);
        line("token URL", &self.token_url);
        if let Some(proxy) = &self.proxy {
            line("proxy", proxy);
        }
        if let Some(version) = &self.api_version {
            line("API version", version);
        }
        if let Some(NamedCustomer { id, organization }) = &self.customer {
            line("customer", &format!("{id} ({organization})"));
        }
        table(&mut text, "configuration", &self.configuration, false);
        table(&mut text, "connection", &self.connection, false);
        table(&mut text, "permission", &self.permissions, false);
        table(&mut text, "collector", &self.collectors, true);
        table(&mut text, "pattern", &self.patterns, false);
        for hint in &self.hints {
            let _ = writeln!(text, "\n{hint}");
        }
        self.list_without_attributes(&mut text);
        if !self.invalid_values.is_empty() || !self.unknown_values.is_empty() {
            text.push('\n');
        }
        let style = Outcome::Failed.style();
        for value in &self.invalid_values {
            let _ = writeln!(
                text,
                "{style}invalid value:{style:#} {}.{}, of the form {:?}",
                value.endpoint, value.field, value.example
            );
        }
        for value in &self.unknown_values {
            let _ = writeln!(
                text,
                "unknown value: {}.{} {:?}",
                value.endpoint, value.field, value.example
            );
        }
        if let Some(budget) = &self.budget {
            self.write_budget(&mut text, budget);
        }
        self.write_summary(&mut text);
        if self.throttled > 0 {
            let _ = write!(text, ", throttled: {}", self.throttled);
        }
        text.push('\n');
        text
    }

    fn list_without_attributes(&self, text: &mut String) {
        let without = &self.without_attributes;
        if without.is_empty() {
            return;
        }
        let count = |count: usize| counted(count, "customer", "customers");
        let all = count(without.len());
        let _ = writeln!(text, "\nno match in customers.attributes_file for {all}:");
        for NamedCustomer { id, organization } in without.iter().take(LISTED_CUSTOMERS) {
            let _ = writeln!(text, "  {id} ({organization})");
        }
        if let Some(more @ 1..) = without.len().checked_sub(LISTED_CUSTOMERS) {
            let _ = writeln!(text, "  and {more} more; --output=json lists all of them");
        }
    }

    /// Writes the summary line.
    fn write_summary(&self, text: &mut String) {
        let outcome = if self.passed { Outcome::Ok } else { Outcome::Failed };
        let style = outcome.style();
        let _ = if self.passed && self.is_offline {
            write!(text, "\n{style}the configuration is valid{style:#}")
        } else if self.passed {
            write!(text, "\n{style}everything works{style:#}")
        } else if self.failed.is_empty() {
            write!(text, "\n{style}failed{style:#}")
        } else {
            write!(text, "\n{style}failed:{style:#} {}", self.failed.join(", "))
        };
        if !self.skipped.is_empty() {
            let _ = write!(text, "; skipped: {}", self.skipped.join(", "));
        }
        if self.collectors.is_empty() && !self.is_offline {
            text.push_str("; no collector was polled");
        }
        let _ = write!(text, "; requests: {}", self.requests);
    }

    /// Writes whether the intervals fit the limits, and what to change if they do not.
    fn write_budget(&self, text: &mut String, budget: &Budget) {
        let _ = writeln!(
            text,
            "\nThe intervals need {} {} an hour for {}; api.requests_per_second = {} allows {:.0}.\n\
             At the measured latency, they keep {:.1} requests in flight; api.max_concurrency allows {:.0}.",
            if self.not_measured.is_empty() {
                "about"
            } else {
                "at least"
            },
            requests(budget.needed_per_hour),
            counted(self.customers, "customer", "customers"),
            self.requests_per_second,
            budget.allowed_per_hour,
            budget.needed_in_flight,
            budget.allowed_in_flight
        );
        let first = std::time::Duration::from_secs_f64(budget.first_cycle_seconds.clamp(0.0, 1e9).ceil());
        let _ = writeln!(
            text,
            "The first limit reached is {}. The first cycle over all customers takes {}.",
            budget.binding.key(),
            humantime::format_duration(first)
        );
        let outcome = if budget.suffices { Outcome::Ok } else { Outcome::Failed };
        let style = outcome.style();
        let _ = match budget.suffices {
            true if self.not_measured.is_empty() => writeln!(text, "{style}The intervals fit the limits.{style:#}"),
            true => writeln!(
                text,
                "It is unknown whether the intervals fit the limits: {} could not be measured.",
                self.not_measured.join(", ")
            ),
            false => writeln!(
                text,
                "{style}The intervals do not fit the limits:{style:#} set api.requests_per_second to at least {:.1} \
                 and api.max_concurrency to at least {:.0}, or make the intervals {:.1} times as long.",
                budget.rate_needed(),
                budget.concurrency_needed(),
                budget.stretch()
            ),
        };
    }
}

fn requests(number: f64) -> String {
    let number = format!("{number:.0}");
    let word = if number == "1" { "request" } else { "requests" };
    format!("{number} {word}")
}

/// Formats findings as a table with a header. Each column is at least as wide as its contents.
fn table(text: &mut String, head: &str, findings: &[Finding], counts: bool) {
    if findings.is_empty() {
        return;
    }
    let width = |of: fn(&Finding) -> usize, least: usize| findings.iter().map(of).max().unwrap_or_default().max(least);
    let names = width(|finding| finding.name.len(), head.len().max(15));
    let results = width(|finding| finding.result.len(), 14);
    let style = Style::new().bold();
    let counted = if counts {
        format!("{:>6} {:>9}  ", "rows", "requests")
    } else {
        String::new()
    };
    let head = format!("{head:<names$} {:<results$} {counted}detail", "result");
    let _ = writeln!(text, "\n{style}{head}{style:#}");
    let number = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
    for finding in findings {
        let style = finding.outcome.style();
        let counted = if counts {
            let rows = finding.rows.and_then(|rows| u64::try_from(rows).ok());
            format!("{:>6} {:>9}  ", number(rows), number(finding.requests))
        } else {
            String::new()
        };
        let request_id = finding.request_id.as_ref();
        let request_id = request_id.map_or_else(String::new, |id| format!(" (request-id {id})"));
        let tail = format!("{counted}{}{request_id}", finding.detail);
        let gap = if tail.trim().is_empty() {
            0
        } else {
            results + 1 - finding.result.len()
        };
        let _ = writeln!(
            text,
            "{:<names$} {style}{}{style:#}{:gap$}{}",
            finding.name,
            finding.result,
            "",
            tail.trim_end()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_failed_check_fails_the_report() {
        let finding = |outcome| Finding::new("jobs", outcome, "result", String::new());
        let is_good = |outcome| {
            let mut report = Report {
                collectors: vec![finding(Outcome::Ok), finding(outcome)],
                ..Report::default()
            };
            report.conclude();
            report.passed()
        };
        assert!(is_good(Outcome::Ok) && is_good(Outcome::Off) && !is_good(Outcome::Failed));
        let mut empty = Report::default();
        empty.conclude();
        assert!(!empty.passed(), "a report without collectors is not good");
    }

    #[test]
    fn colours_add_only_escape_sequences() {
        let report = Report {
            collectors: vec![Finding::new("jobs", Outcome::Ok, "ok", "3 customers".to_owned())],
            ..Report::default()
        };
        let plain = anstream::adapter::strip_str(&report.text()).to_string();
        assert!(plain.contains("jobs            ok "), "{plain}");
        assert_ne!(plain, report.text());
    }
}
