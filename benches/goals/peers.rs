//! The gauges of the module `dense`, implemented with prometheus-client.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use crate::dense;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Labels {
    customer_id: String,
    service: String,
    module: String,
}

fn labels(customer: usize, row: &dense::Row) -> Labels {
    Labels {
        customer_id: dense::customer_id(customer),
        service: dense::SERVICE.to_owned(),
        module: row.module.clone(),
    }
}

/// Returns the gauges in prometheus-client's `Family`, its usual interface for metrics with labels.
pub fn families() -> Registry {
    let mut registry = Registry::default();
    let families: Vec<Family<Labels, Gauge<f64, std::sync::atomic::AtomicU64>>> =
        dense::metrics().iter().map(|_| Family::default()).collect();
    for (metric, family) in dense::metrics().iter().zip(&families) {
        registry.register(metric.name, metric.help, family.clone());
    }
    for customer in 0..dense::CUSTOMERS {
        for row in dense::rows(customer) {
            for (family, value) in families.iter().zip(row.values) {
                family.get_or_create(&labels(customer, &row)).set(value);
            }
        }
    }
    registry
}

/// Returns the gauges as constant gauges in a custom collector, prometheus-client's fastest interface.
pub fn const_gauges() -> Registry {
    let mut registry = Registry::default();
    let rows = (0..dense::CUSTOMERS).flat_map(|customer| {
        let rows = dense::rows(customer).into_iter();
        rows.map(move |row| (labels(customer, &row), row.values))
    });
    registry.register_collector(Box::new(ConstGauges(rows.collect())));
    registry
}

struct ConstGauges(Vec<(Labels, [f64; dense::COLUMNS])>);

impl fmt::Debug for ConstGauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConstGauges")
    }
}

impl Collector for ConstGauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (column, metric) in dense::metrics().iter().enumerate() {
            let mut family = encoder.encode_descriptor(metric.name, metric.help, None, MetricType::Gauge)?;
            for (labels, values) in &self.0 {
                ConstGauge::new(values[column]).encode(family.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}
