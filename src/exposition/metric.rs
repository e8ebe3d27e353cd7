//! Definition of a metric: its name, type, help, labels and stability.

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value that can go up and down.
    Gauge,
    /// A value that only increases while the process runs; the metric's name ends in `_total`.
    Counter,
    /// Always 1, with the information in labels; the metric's name ends in `_info`.
    Info,
    /// Counts of observations in buckets.
    Histogram,
}

impl Kind {
    /// Returns the type's name in the metrics reference.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Info => "info",
            Self::Histogram => "histogram",
        }
    }
}

/// Effect of `stale_after` on a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// The value describes the present, so the series expires.
    Now,
    /// The value remains true, for example because it is the time of an event. The series does not expire. It is served
    /// until its row or its customer is removed.
    Dated,
}

/// Stability of a metric's name, labels and meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    /// Part of the public contract: does not change within a major version.
    Stable,
    /// May change in a minor version, with an entry in the changelog.
    Experimental,
}

/// A metric in the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The full name, including `_total` or `_info`. The samples of a histogram have further suffixes.
    pub name: &'static str,
    /// Type of the metric. The Prometheus text format exposes an info metric as a gauge.
    pub kind: Kind,
    /// HELP text without the full stop that the renderer adds.
    pub help: &'static str,
    /// The label names, in exposition order. Empty for a metric of a shape, because the shape defines the labels.
    pub labels: &'static [&'static str],
    /// Whether its series expire after `stale_after`.
    pub lifetime: Lifetime,
    /// Stability of the name, labels and meaning.
    pub stability: Stability,
}

impl Metric {
    /// Returns a gauge that describes the present.
    #[must_use]
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            kind: Kind::Gauge,
            help,
            labels: &[],
            lifetime: Lifetime::Now,
            stability: Stability::Stable,
        }
    }

    /// Returns a gauge whose value is a Unix time. Such a value remains true, so its series do not expire.
    #[must_use]
    pub const fn timestamp(name: &'static str, help: &'static str) -> Self {
        Self::gauge(name, help).dated()
    }

    /// Returns a counter.
    #[must_use]
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        let mut metric = Self::gauge(name, help);
        metric.kind = Kind::Counter;
        metric
    }

    /// Returns an info metric. Its value is always 1, and its series do not expire.
    #[must_use]
    pub const fn info(name: &'static str, help: &'static str) -> Self {
        let mut metric = Self::gauge(name, help).dated();
        metric.kind = Kind::Info;
        metric
    }

    /// Returns a histogram.
    #[must_use]
    pub const fn histogram(name: &'static str, help: &'static str) -> Self {
        let mut metric = Self::gauge(name, help);
        metric.kind = Kind::Histogram;
        metric
    }

    /// Exempts the metric's series from `stale_after`.
    #[must_use]
    pub const fn dated(mut self) -> Self {
        self.lifetime = Lifetime::Dated;
        self
    }

    /// Sets the labels.
    #[must_use]
    pub const fn labels(mut self, labels: &'static [&'static str]) -> Self {
        self.labels = labels;
        self
    }

    /// Marks the metric as experimental.
    #[must_use]
    pub const fn experimental(mut self) -> Self {
        self.stability = Stability::Experimental;
        self
    }

    /// Returns the name of the OpenMetrics family, which lacks the suffix of a counter or info metric.
    #[must_use]
    pub fn family_name(&self) -> &'static str {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        self.name.strip_suffix(suffix).unwrap_or(self.name)
    }
}
