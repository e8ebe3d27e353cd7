//! History of the exporter's metrics, in the OpenMetrics format with timestamps. The samples are derived
//! from the current exposition, with plausible changes over the preceding weeks. The values are invented, while names
//! and labels are real.

use std::fmt::Write as _;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::io::{self, Write};

use super::dashboards::{list, text};
use crate::harness::servers::Server;

const DAY: f64 = 86_400.0;

/// Age at which counters and sizes were zero.
const BIRTH: f64 = 60.0 * DAY;

/// Parts of the names of metrics whose timestamps stay the same over time. All other timestamps advance.
const FIXED: [&str; 4] = ["expiration", "expiry", "contract_end", "created"];

/// Length of the most recent period in seconds: slightly more than the longest range of rates on dashboards.
pub const RECENT: i64 = 25 * 3600;

/// Returns the ages of samples in seconds. The step is smaller for the most recent period, because dashboards query
/// rates over this period.
pub fn ages(days: i64, recent_step: i64, older_step: i64) -> Vec<i64> {
    let mut ages: Vec<i64> = (1..=RECENT / recent_step).map(|nth| nth * recent_step).collect();
    ages.extend((1..=(days * 86_400 - RECENT) / older_step).map(|nth| RECENT + nth * older_step));
    ages.reverse();
    ages
}

/// Writes the samples of an exposition for every age, oldest first, and adds the labels `target` to each series.
pub fn write(out: &mut impl Write, exposition: &str, target: &str, now: i64, ages: &[i64]) -> io::Result<()> {
    let lines = exposition.lines().filter(|line| !line.starts_with('#'));
    let samples: Vec<Sample> = lines.filter_map(|line| Sample::read(line, target)).collect();
    let mut text = String::new();
    for age in ages {
        text.clear();
        for sample in &samples {
            let _ = writeln!(text, "{} {} {}", sample.series, sample.past(*age as f64), now - age);
        }
        out.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// Writes the series that a recording rule would have recorded between two times.
pub async fn record(
    prometheus: &Server,
    out: &mut impl Write,
    (name, fixed): (&str, &[(String, String)]),
    expr: &str,
    (start, end): (i64, i64),
    step: i64,
) {
    let (start, end, step) = (start.to_string(), end.to_string(), step.to_string());
    let form = [("query", expr), ("start", &start), ("end", &end), ("step", &step)];
    let data = prometheus.api("query_range", &form).await;
    let data = data.unwrap_or_else(|error| panic!("{name}: {error}"));
    for series in list(&data["result"]) {
        let series_labels = series["metric"].as_object().unwrap().iter();
        let series_labels = series_labels
            .filter(|(label, _)| *label != "__name__")
            .map(|(label, value)| format!("{label}={value}"));
        let fixed = fixed.iter().map(|(label, value)| format!("{label}={value:?}"));
        let labels: Vec<String> = series_labels.chain(fixed).collect();
        for point in list(&series["values"]) {
            let (at, value) = (&point[0], text(&point[1]));
            writeln!(out, "{name}{{{}}} {value} {at}", labels.join(",")).unwrap();
        }
    }
}

pub fn end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(b"# EOF\n")?;
    out.flush()
}

struct Sample {
    name: String,
    series: String,
    /// A hash of the labels, which is the same for all metrics with these labels.
    subject: u64,
    value: f64,
}

impl Sample {
    fn read(line: &str, target: &str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = match series.split_once('{') {
            Some((name, rest)) => (name, rest.strip_suffix('}')?),
            None => (series, ""),
        };
        let separator = if labels.is_empty() { "" } else { "," };
        Some(Self {
            name: name.to_owned(),
            series: format!("{name}{{{target}{separator}{labels}}}"),
            subject: BuildHasherDefault::<DefaultHasher>::default().hash_one(labels),
            value: value.parse().ok()?,
        })
    }

    /// Returns whether the sample shows a failure on a past day. About one day in eleven has a failure.
    fn failed(&self, age: f64) -> bool {
        #[expect(clippy::cast_possible_truncation, reason = "an age is thirty days at most")]
        let day = (age / DAY) as u64;
        day > 0 && BuildHasherDefault::<DefaultHasher>::default().hash_one((self.subject, day)) % 11 == 0
    }

    fn past(&self, age: f64) -> f64 {
        let name = self.name.as_str();
        let growth = 1.0 - age / BIRTH;
        if name.ends_with("_timestamp_seconds") && self.value > 0.0 {
            if FIXED.iter().any(|part| name.contains(part)) {
                return self.value;
            }
            let delay = if name.contains("last_") && self.failed(age) {
                DAY
            } else {
                0.0
            };
            return self.value - age - delay;
        }
        let cumulative = ["_total", "_bucket", "_count", "_sum"];
        if cumulative.iter().any(|suffix| name.ends_with(suffix)) {
            return (self.value * growth * 1000.0).round() / 1000.0;
        }
        match name {
            "elements_job_consecutive_failures" if self.failed(age) => self.value + 1.0,
            "elements_job_status" if self.failed(age) => 3.0,
            "elements_job_backup_size_bytes" | "elements_protected_size_bytes" | "elements_job_duration_seconds" => {
                (self.value * growth).round()
            }
            _ => self.value,
        }
    }
}
