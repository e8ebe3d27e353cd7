//! Calculation and output of results.

use std::time::Duration;

pub fn median(times: &[Duration]) -> Duration {
    quantile(times, 0.5)
}

/// Returns a quantile; `fraction` is between 0 and 1.
pub fn quantile(times: &[Duration], fraction: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    let at = (fraction * sorted.len() as f64).ceil() as usize;
    sorted[at.clamp(1, sorted.len()) - 1]
}

/// Prints the processor model, because even ratios differ between processors.
pub fn print_processor() {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        lines
            .find(|(field, _)| field.trim() == name)
            .map(|(_, value)| value.trim())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = field("model name").unwrap_or("unknown processor");
    println!("{cores} × {model}, cache {}", field("cache size").unwrap_or("unknown"));
}

pub fn print_line(name: &str, time: Duration, reference: &str, ratio: f64) {
    println!(
        "{name:<58} {:>9.1} ms   {ratio:>8.2} × {reference}",
        time.as_secs_f64() * 1e3
    );
}

pub fn ratio(time: Duration, reference: Duration) -> f64 {
    time.as_secs_f64() / reference.as_secs_f64()
}

pub fn print_goal(name: &str, value: f64, maximum: f64) {
    let met = if value <= maximum { "met" } else { "MISSED" };
    println!("GOAL {name}: {value:.3} (at most {maximum:.3}) — {met}");
}

/// Returns a field of `/proc/PID/status`, such as `VmHWM`, in bytes.
pub fn status_bytes(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    let kibibytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kibibytes * 1024
}

/// Returns the CPU time of a process.
pub fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    // A tick is a hundredth of a second on every supported Linux system.
    Duration::from_millis(ticks * 10)
}
