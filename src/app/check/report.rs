//! What `check` found, as a report for people, and as JSON for programs.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::app::budget::Budget;
use crate::domain::{CustomerId, counted, log_safe};

/// Where a permission is granted.
const GRANT: &str = "To grant a permission: in Elements, open Settings > API app registration, edit the app, add the \
                     permission and save. It counts within minutes.";

/// The most customers of one list that people read; programs get all.
const LISTED_CUSTOMERS: usize = 100;

/// How a thing went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// As it should.
    Ok,
    /// It is not as it should be.
    FellShort,
    /// It was not asked for, because of something else that fell short.
    NotTried,
    /// It was not asked for.
    Off,
}

impl Outcome {
    fn style(self) -> Style {
        let colour = match self {
            Self::Ok => AnsiColor::Green,
            Self::FellShort => AnsiColor::Red,
            Self::NotTried => AnsiColor::Yellow,
            Self::Off => return Style::new().dimmed(),
        };
        colour.on_default().bold()
    }
}

/// One thing that was tried.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    /// What was tried.
    pub(super) name: String,
    /// How it went.
    pub(super) outcome: Outcome,
    /// How it went in a word or two.
    pub(super) result: &'static str,
    /// What is behind it.
    pub(super) detail: String,
    /// Rows of all answers; only of collectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rows: Option<usize>,
    /// Requests that it took; only of collectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) requests: Option<u64>,
    /// The id by which the vendor's support finds the call that failed.
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

/// A value that is odd.
#[derive(Debug, Serialize)]
pub(super) struct Odd {
    pub(super) endpoint: &'static str,
    pub(super) field: &'static str,
    /// The value, or its shape with letters and digits masked where it could not be understood.
    pub(super) example: String,
}

/// A customer, such as the one that was tried.
#[derive(Debug, Serialize)]
pub(super) struct Sample {
    pub(super) id: String,
    pub(super) organization: String,
}

impl Sample {
    pub(super) fn new(id: &CustomerId, organization: &str) -> Self {
        Self {
            id: id.log_safe(),
            organization: log_safe(organization),
        }
    }
}

/// Everything that was found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub(super) api: String,
    pub(super) token_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) proxy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) generation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) customer: Option<Sample>,
    /// Whether nothing was requested, because only the configuration was to be checked.
    #[serde(rename = "offline")]
    pub(super) is_offline: bool,
    /// Files and credentials; only offline.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) configuration: Vec<Finding>,
    pub(super) customers: usize,
    /// Customers that no row of the file of attributes fits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) without_attributes: Vec<Sample>,
    pub(super) connection: Vec<Finding>,
    pub(super) permissions: Vec<Finding>,
    pub(super) collectors: Vec<Finding>,
    /// Patterns of the configuration that match nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) patterns: Vec<Finding>,
    pub(super) not_understood: Vec<Odd>,
    pub(super) not_in_the_reference: Vec<Odd>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) budget: Option<Budget>,
    #[serde(skip)]
    pub(super) requests_per_second: f64,
    pub(super) requests: u64,
    pub(super) throttled: u64,
    /// Whether a permission is missing, so that it is said where one is granted.
    #[serde(skip)]
    pub(super) lacks_permission: bool,
    /// What fell short, by name.
    pub(super) fell_short: Vec<String>,
    /// What was not tried for want of something that fell short, by name.
    pub(super) not_tried: Vec<String>,
    /// Collectors that were not answered, so that what they need is not known.
    pub(super) not_measured: Vec<&'static str>,
    /// Patterns of `metrics.exclude` that match no metric.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) unmatched_exclusions: Vec<String>,
    /// What to do about it that is worth saying once.
    pub(super) hints: Vec<&'static str>,
    /// Whether nothing fell short.
    pub(super) good: bool,
}

impl Report {
    /// Whether nothing fell short.
    pub fn is_good(&self) -> bool {
        self.good
    }

    /// Decides whether anything fell short.
    pub(super) fn judge(&mut self) {
        let named = |outcome: Outcome| -> Vec<String> {
            let findings = self
                .configuration
                .iter()
                .chain(&self.connection)
                .chain(&self.permissions)
                .chain(&self.collectors)
                .chain(&self.patterns);
            let such = findings.filter(|finding| finding.outcome == outcome);
            such.map(|finding| finding.name.clone()).collect()
        };
        let (mut fell_short, not_tried) = (named(Outcome::FellShort), named(Outcome::NotTried));
        let odd = u64::try_from(self.not_understood.len()).unwrap_or(u64::MAX);
        if odd > 0 {
            fell_short.push(counted(odd, "invalid value", "invalid values"));
        }
        if self.budget.is_some_and(|budget| !budget.suffices) {
            fell_short.push("the intervals".to_owned());
        }
        self.hints = self.lacks_permission.then_some(GRANT).into_iter().collect();
        self.good = fell_short.is_empty() && not_tried.is_empty() && (self.is_offline || !self.collectors.is_empty());
        (self.fell_short, self.not_tried) = (fell_short, not_tried);
    }

    /// The report as JSON.
    pub fn json(&self) -> String {
        // Plain strings and numbers always have a JSON form.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// The report for people, with the escape sequences of colours.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "{name:<10} {value}");
        };
        line("API", &self.api);
        line("token URL", &self.token_url);
        if let Some(proxy) = &self.proxy {
            line("proxy", proxy);
        }
        if let Some(generation) = &self.generation {
            line("generation", generation);
        }
        if let Some(Sample { id, organization }) = &self.customer {
            line("tried with", &format!("{id} ({organization})"));
        }
        table(&mut text, "configuration", &self.configuration, false);
        table(&mut text, "connection", &self.connection, false);
        table(&mut text, "permission", &self.permissions, false);
        table(&mut text, "collector", &self.collectors, true);
        table(&mut text, "pattern", &self.patterns, false);
        for hint in &self.hints {
            let _ = writeln!(text, "\n{hint}");
        }
        for pattern in &self.unmatched_exclusions {
            let _ = writeln!(text, "\nmetrics.exclude: pattern {pattern:?} matches no metric");
        }
        self.list_without_attributes(&mut text);
        if !self.not_understood.is_empty() || !self.not_in_the_reference.is_empty() {
            text.push('\n');
        }
        for Odd {
            endpoint,
            field,
            example,
        } in &self.not_understood
        {
            let style = Outcome::FellShort.style();
            let _ = writeln!(
                text,
                "{style}not understood:{style:#} {endpoint}.{field}, of the form {example:?}"
            );
        }
        for Odd {
            endpoint,
            field,
            example,
        } in &self.not_in_the_reference
        {
            let _ = writeln!(text, "unknown value: {endpoint}.{field} {example:?}");
        }
        if let Some(budget) = &self.budget {
            self.spend(&mut text, budget);
        }
        self.conclude(&mut text);
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
        let count = |count: usize| counted(u64::try_from(count).unwrap_or(u64::MAX), "customer", "customers");
        let all = count(without.len());
        let _ = writeln!(text, "\nno row of customers.attributes_file fits {all}:");
        for Sample { id, organization } in without.iter().take(LISTED_CUSTOMERS) {
            let _ = writeln!(text, "  {id} ({organization})");
        }
        if let Some(more @ 1..) = without.len().checked_sub(LISTED_CUSTOMERS) {
            let _ = writeln!(text, "  and {more} more; --output=json lists all");
        }
    }

    /// The last words: whether all is well, or what is not.
    fn conclude(&self, text: &mut String) {
        let outcome = if self.good { Outcome::Ok } else { Outcome::FellShort };
        let style = outcome.style();
        let _ = if self.good && self.is_offline {
            write!(text, "\n{style}the configuration is valid{style:#}")
        } else if self.good {
            write!(text, "\n{style}everything works{style:#}")
        } else {
            write!(text, "\n{style}fell short:{style:#} {}", self.fell_short.join(", "))
        };
        if !self.not_tried.is_empty() {
            let _ = write!(text, "; not tried: {}", self.not_tried.join(", "));
        }
        if self.collectors.is_empty() && !self.is_offline {
            text.push_str("; no collector was tried");
        }
        let _ = write!(text, "; requests: {}", self.requests);
    }

    /// Whether the intervals can be kept, and what to do where they cannot.
    fn spend(&self, text: &mut String, budget: &Budget) {
        let _ = writeln!(
            text,
            "\nThe intervals need {} {} an hour for {}; api.requests_per_second = {} allows {:.0}.\n\
             At the measured latency they keep {:.1} requests in flight; api.max_concurrency allows {:.0}.",
            if self.not_measured.is_empty() {
                "about"
            } else {
                "at least"
            },
            requests(budget.needed_per_hour),
            counted(
                u64::try_from(self.customers).unwrap_or(u64::MAX),
                "customer",
                "customers"
            ),
            self.requests_per_second,
            budget.allowed_per_hour,
            budget.needed_in_flight,
            budget.allowed_in_flight
        );
        let first = std::time::Duration::from_secs_f64(budget.first_cycle_seconds.clamp(0.0, 1e9).ceil());
        let _ = writeln!(
            text,
            "The limit reached first is {}; a first cycle over everything takes {}.",
            budget.binding.key(),
            humantime::format_duration(first)
        );
        let outcome = if budget.suffices {
            Outcome::Ok
        } else {
            Outcome::FellShort
        };
        let style = outcome.style();
        let _ = match budget.suffices {
            true if self.not_measured.is_empty() => writeln!(text, "{style}They can be kept.{style:#}"),
            true => writeln!(
                text,
                "Unknown whether the intervals can be met: {} could not be measured.",
                self.not_measured.join(", ")
            ),
            false => writeln!(
                text,
                "{style}They cannot be kept:{style:#} set api.requests_per_second to {:.1} and api.max_concurrency to {:.0} at \
                 least, or make the intervals {:.1} times as long.",
                budget.rate_needed(),
                budget.concurrency_needed(),
                budget.stretch()
            ),
        };
    }
}

/// A number of requests that is estimated.
fn requests(number: f64) -> String {
    let number = format!("{number:.0}");
    let word = if number == "1" { "request" } else { "requests" };
    format!("{number} {word}")
}

/// Findings under a head, in columns as wide as they need.
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
    fn what_fell_short_decides() {
        let finding = |outcome| Finding::new("jobs", outcome, "so", String::new());
        let judged = |outcome| {
            let mut report = Report {
                collectors: vec![finding(Outcome::Ok), finding(outcome)],
                ..Report::default()
            };
            report.judge();
            report.is_good()
        };
        assert!(judged(Outcome::Ok) && judged(Outcome::Off) && !judged(Outcome::FellShort));
        let mut nothing = Report::default();
        nothing.judge();
        assert!(!nothing.is_good(), "nothing tried is nothing shown");
    }

    #[test]
    fn colours_are_escape_sequences_and_nothing_else() {
        let report = Report {
            collectors: vec![Finding::new("jobs", Outcome::Ok, "ok", "3 customers".to_owned())],
            ..Report::default()
        };
        let plain = anstream::adapter::strip_str(&report.text()).to_string();
        assert!(plain.contains("jobs            ok "), "{plain}");
        assert_ne!(plain, report.text());
    }
}
