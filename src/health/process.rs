//! The standard `process_*` metrics, which are available only on Linux.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
#[cfg(target_os = "linux")]
use prometheus_client::encoding::EncodeMetric as _;

use crate::exposition::Metric;

const CPU_SECONDS: Metric = Metric::counter("process_cpu_seconds_total", "User and system CPU time in seconds");
const OPEN_FDS: Metric = Metric::gauge("process_open_fds", "Open file descriptors");
const MAX_FDS: Metric = Metric::gauge("process_max_fds", "Maximum number of open file descriptors");
const VIRTUAL_MEMORY: Metric = Metric::gauge("process_virtual_memory_bytes", "Virtual memory size");
const RESIDENT_MEMORY: Metric = Metric::gauge("process_resident_memory_bytes", "Resident memory size");
const START_TIME: Metric = Metric::timestamp("process_start_time_seconds", "Start of the process, Unix time");
const THREADS: Metric = Metric::gauge("process_threads", "Threads of the process");

/// All metrics of the process.
pub(super) const METRICS: &[Metric] = &[
    CPU_SECONDS,
    OPEN_FDS,
    MAX_FDS,
    VIRTUAL_MEMORY,
    RESIDENT_MEMORY,
    START_TIME,
    THREADS,
];

/// Reads the metrics of the process for each scrape.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    #[cfg(target_os = "linux")]
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        use prometheus_client::metrics::counter::ConstCounter;
        use prometheus_client::metrics::gauge::ConstGauge;

        let Some(reading) = linux::read_process() else {
            return Ok(());
        };
        let cpu = ConstCounter::new(reading.cpu_seconds);
        let descriptor = encoder.encode_descriptor(
            CPU_SECONDS.family_name(),
            &format!("{}.", CPU_SECONDS.help),
            None,
            cpu.metric_type(),
        )?;
        cpu.encode(descriptor)?;
        for (metric, value) in reading.gauges() {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(value);
            let descriptor =
                encoder.encode_descriptor(metric.name, &format!("{}.", metric.help), None, gauge.metric_type())?;
            gauge.encode(descriptor)?;
        }
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    fn encode(&self, _encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        Ok(())
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use procfs_core::FromRead as _;
    use procfs_core::process::{LimitValue, Limits, Stat};
    use rustix::param::{clock_ticks_per_second, page_size};

    use super::{MAX_FDS, Metric, OPEN_FDS, RESIDENT_MEMORY, START_TIME, THREADS, VIRTUAL_MEMORY};

    pub(super) struct Reading {
        pub(super) cpu_seconds: f64,
        open_fds: Option<f64>,
        max_fds: Option<f64>,
        virtual_bytes: f64,
        resident_bytes: f64,
        start_seconds: Option<f64>,
        threads: f64,
    }

    impl Reading {
        pub(super) fn gauges(&self) -> [(Metric, Option<f64>); 6] {
            [
                (OPEN_FDS, self.open_fds),
                (MAX_FDS, self.max_fds),
                (VIRTUAL_MEMORY, Some(self.virtual_bytes)),
                (RESIDENT_MEMORY, Some(self.resident_bytes)),
                (START_TIME, self.start_seconds),
                (THREADS, Some(self.threads)),
            ]
        }
    }

    pub(super) fn read_process() -> Option<Reading> {
        let stat = Stat::from_file("/proc/self/stat").ok()?;
        let ticks = clock_ticks_per_second() as f64;
        let open_fds = std::fs::read_dir("/proc/self/fd").ok();
        let open_fds = open_fds.and_then(|entries| u32::try_from(entries.count()).ok());
        let limits = Limits::from_file("/proc/self/limits").ok();
        let max_fds = limits.and_then(|limits| match limits.max_open_files.soft_limit {
            LimitValue::Value(limit) => Some(limit as f64),
            LimitValue::Unlimited => None,
        });
        Some(Reading {
            cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
            open_fds: open_fds.map(f64::from),
            max_fds,
            virtual_bytes: stat.vsize as f64,
            resident_bytes: stat.rss as f64 * page_size() as f64,
            start_seconds: boot_time().map(|boot| boot + stat.starttime as f64 / ticks),
            threads: stat.num_threads as f64,
        })
    }

    /// Returns the time at which the system was started, as Unix time.
    fn boot_time() -> Option<f64> {
        let statistics = std::fs::read_to_string("/proc/stat").ok()?;
        let time = statistics.lines().find_map(|line| line.strip_prefix("btime "))?;
        time.trim().parse().ok()
    }
}
