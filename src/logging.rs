//! Logs to standard error, one line per event, as logfmt or JSON.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use crate::args::{Log, LogFormat};
use crate::output::LossyStderr;

/// Starts logging. Libraries log only warnings and errors, even at a more verbose log level, because HTTP libraries log
/// what they send, including secrets and tokens.
pub fn start(log: Log) {
    let level = LevelFilter::from_level(log.level);
    let own_targets = Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target(env!("CARGO_CRATE_NAME"), level);
    let registry = tracing_subscriber::registry();
    match log.format {
        LogFormat::Logfmt => {
            let layer = tracing_logfmt::builder()
                .with_target(false)
                .with_span_name(false)
                .with_span_path(false)
                .layer()
                .with_writer(LossyStderr::default);
            registry.with(layer.with_filter(own_targets)).init();
        }
        LogFormat::Json => {
            let layer = fmt::layer()
                .json()
                .flatten_event(true)
                .with_target(false)
                .with_current_span(false)
                .with_span_list(false)
                .with_writer(LossyStderr::default);
            registry.with(layer.with_filter(own_targets)).init();
        }
    }
}
