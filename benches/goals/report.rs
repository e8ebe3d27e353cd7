//! Calculation and output of results.

use std::time::Duration;

/// Returns the median.
pub fn median(times: &[Duration]) -> Duration {
    quantile(times, 0.5)
}

/// Returns the quantile.
pub fn quantile(times: &[Duration], part: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    let at = (part * sorted.len() as f64).ceil() as usize;
    sorted[at.clamp(1, sorted.len()) - 1]
}

/// Prints the processor, because ratios differ between processors as well.
pub fn processor() {
    let about = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let mut lines = about.lines().filter_map(|line| line.split_once(':'));
        lines
            .find(|(field, _)| field.trim() == name)
            .map(|(_, value)| value.trim())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = field("model name").unwrap_or("unknown processor");
    println!("{cores} × {model}, cache {}", field("cache size").unwrap_or("unknown"));
}

/// Prints one line: subject, duration, and its ratio to something else.
pub fn line(what: &str, time: Duration, to: &str, ratio: f64) {
    println!("{what:<58} {:>9.1} ms   {ratio:>8.2} × {to}", time.as_secs_f64() * 1e3);
}

/// Returns the ratio of two durations.
pub fn ratio(time: Duration, of: Duration) -> f64 {
    time.as_secs_f64() / of.as_secs_f64()
}

/// Prints whether a maximum is met.
pub fn goal(what: &str, value: f64, at_most: f64) {
    let met = if value <= at_most { "met" } else { "MISSED" };
    println!("GOAL {what}: {value:.3} (at most {at_most:.3}) — {met}");
}

/// Returns a field of `/proc/PID/status` in bytes, such as `VmHWM`.
pub fn status_bytes(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    let kibibytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kibibytes * 1024
}

/// Returns the processor time of a process.
pub fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    // A tick is a hundredth of a second on every supported Linux.
    Duration::from_millis(ticks * 10)
}
