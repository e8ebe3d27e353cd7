//! What is said once about a metric: its name, type, help, labels and promises.

/// The type of a metric, as both text formats know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value that goes up and down.
    Gauge,
    /// A value that only grows while the process lives; its name ends in `_total`.
    Counter,
    /// Always 1, with facts as labels; its name ends in `_info`.
    Info,
    /// Counts of observations in buckets.
    Histogram,
}

impl Kind {
    /// Its name in the reference.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Info => "info",
            Self::Histogram => "histogram",
        }
    }
}

/// What becomes of a series whose record has not been renewed for longer than the collector's `stale_after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// It describes how things are now, so it goes.
    Now,
    /// It is a dated fact and stays true, so it stays as long as its customer is known.
    Dated,
}

/// How firmly a metric's name, labels and meaning stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    /// Part of the users' contract: it does not change within a major version.
    Stable,
    /// May still change with a minor version; the changelog says so.
    Experimental,
}

/// One metric of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The full name as samples carry it, `_total` and `_info` included.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// One sentence without its full stop, which the renderer adds.
    pub help: &'static str,
    /// The label names, in the order in which they are written.
    pub labels: &'static [&'static str],
    /// Whether it outlives staleness.
    pub lifetime: Lifetime,
    /// How firmly it stands.
    pub stability: Stability,
}

impl Metric {
    /// A gauge that describes how things are now.
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

    /// A gauge that holds a point in time: a dated fact.
    #[must_use]
    pub const fn timestamp(name: &'static str, help: &'static str) -> Self {
        Self::gauge(name, help).dated()
    }

    /// A counter.
    #[must_use]
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        let mut metric = Self::gauge(name, help);
        metric.kind = Kind::Counter;
        metric
    }

    /// An info metric: a dated fact whose value is 1.
    #[must_use]
    pub const fn info(name: &'static str, help: &'static str) -> Self {
        let mut metric = Self::gauge(name, help).dated();
        metric.kind = Kind::Info;
        metric
    }

    /// A histogram.
    #[must_use]
    pub const fn histogram(name: &'static str, help: &'static str) -> Self {
        let mut metric = Self::gauge(name, help);
        metric.kind = Kind::Histogram;
        metric
    }

    /// The same metric, outliving staleness.
    #[must_use]
    pub const fn dated(mut self) -> Self {
        self.lifetime = Lifetime::Dated;
        self
    }

    /// The same metric with these labels.
    #[must_use]
    pub const fn labels(mut self, labels: &'static [&'static str]) -> Self {
        self.labels = labels;
        self
    }

    /// The same metric, not yet promised.
    #[must_use]
    pub const fn experimental(mut self) -> Self {
        self.stability = Stability::Experimental;
        self
    }

    /// The name of the metric family in OpenMetrics, where counters and infos lose their suffix.
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
