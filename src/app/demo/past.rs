//! Runs an exporter at simulated times in the past. The caller advances the time of the simulated partner in steps, and
//! after each step makes the exporter poll and, if needed, render its metrics.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::warn;

use super::{attributes, environment};
use crate::app::{Error, Parts};
use crate::args;
use crate::collector::{self, CollectorId, Context, Customer, PollOutput, Record, RecordSource, Target, TargetKind};
use crate::config;
use crate::domain::{CustomerId, Timestamp};
use crate::exposition::Format;
use crate::lock::lock;
use crate::scrape::ScrapeFilter;
use crate::simulator::{self, Clock, Handle, History, Simulator};
use crate::store::Store;

/// Number of concurrent polls.
const CONCURRENCY: usize = 8;

/// Configured poll interval. The interval must be long, because data becomes stale after a multiple of it, and polls
/// are less frequent here than in the demo.
const INTERVAL: Duration = Duration::from_secs(12 * 3600);

/// Lifetime of tokens. It exceeds every simulated period, because the simulator expires tokens by simulated time.
const TOKEN_LIFETIME: Duration = Duration::from_secs(60 * 24 * 3600);

/// An exporter and its simulated partner. The exporter has no poll loop, because the loop can poll only at the current
/// time.
pub(super) struct PastExporter {
    parts: Parts,
    partner: Handle,
    now: i64,
    _serving: DropGuard,
}

impl PastExporter {
    /// Starts at the Unix time `begin`, with only these collectors. The customers' scenarios are set up for the Unix
    /// time `scenarios_from`.
    ///
    /// # Errors
    /// Returns an error if the simulated partner's address cannot be bound, or if the configuration is invalid.
    pub(super) async fn start(
        options: &args::Simulator,
        collectors: &[&str],
        begin: i64,
        scenarios_from: i64,
    ) -> Result<Self, Error> {
        let settings = simulator::Settings {
            clock: Clock::Manual(begin),
            scenarios_from: Some(scenarios_from),
            churn: false,
            // The newest run may be in progress, so the run before it is listed as well.
            history: History::Runs(2),
            token_lifetime: TOKEN_LIFETIME,
            latency: simulator::Latency::None,
            ..super::settings(options)
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let partner = Simulator::bind(settings, address).await.map_err(|source| Error::Bind {
            address: address.to_string(),
            source,
        })?;
        // The temporary file may be deleted when this function returns, because it is read only once, below.
        let attributes = attributes();
        let intervals = collector::ALL.iter().map(|entry| (entry.name, INTERVAL.as_secs()));
        let mut environment = environment(&partner, attributes.as_ref(), intervals);
        for collector in collector::ALL.iter().filter(|entry| !collectors.contains(&entry.name)) {
            let key = format!("ELEMENTS_COLLECTORS__{}__ENABLED", collector.name.to_uppercase());
            environment.retain(|(name, _)| *name != *key);
            environment.push((key.into(), "false".into()));
        }
        let mut config = config::load(None, environment)?;
        // No other client uses the simulated partner, so requests are not limited.
        config.api.requests_per_second = f64::from(u16::MAX);
        config.api.max_concurrency = CONCURRENCY;
        let parts = Parts::new(&config)?;
        lock(&parts.schedule_status).customers_listed = Some(true);
        let stop = CancellationToken::new();
        let handle = partner.handle();
        tokio::spawn(partner.run(stop.clone()));
        Ok(Self {
            parts,
            partner: handle,
            now: begin,
            _serving: stop.drop_guard(),
        })
    }

    /// Returns the simulated time in Unix seconds.
    pub(super) fn now(&self) -> i64 {
        self.now
    }

    /// Advances the simulated time.
    pub(super) fn advance(&mut self, seconds: u32) {
        self.now = self.now.saturating_add(i64::from(seconds));
        self.partner.advance(Duration::from_secs(u64::from(seconds)));
    }

    /// Returns the store with the results of the polls.
    pub(super) fn store(&self) -> &Store {
        &self.parts.store
    }

    /// Polls all targets of these collectors.
    pub(super) async fn poll(&self, collectors: impl IntoIterator<Item = CollectorId>) {
        for collector in collectors {
            let targets = match collector.descriptor().target_kind {
                TargetKind::Partner => vec![Target::Partner],
                TargetKind::Customer => self.store().customers().into_iter().map(Target::Customer).collect(),
            };
            let polls = targets.into_iter().map(|target| self.poll_target(collector, target));
            stream::iter(polls)
                .buffer_unordered(CONCURRENCY)
                .collect::<Vec<()>>()
                .await;
        }
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp::from_unix_seconds(self.now)
    }

    async fn poll_target(&self, collector: CollectorId, target: Target) {
        let store = &self.parts.store;
        store.add_target(collector, &target);
        let context = self.context(match &target {
            Target::Partner => Arc::from(""),
            Target::Customer(id) => store.organization(id),
        });
        let source = Arc::clone(store) as Arc<dyn RecordSource>;
        let polled = match self.parts.schedule_config.client.api().await {
            Ok(api) => collector.poll(api, target.clone(), source, context).await,
            Err(failure) => Err(failure),
        };
        match polled {
            Ok(output) => self.commit(collector, &target, output),
            Err(failure) if collector.descriptor().is_unlicensed(&failure.error) => {
                store.mark_unlicensed(collector, &target, self.timestamp());
            }
            Err(failure) => warn!(collector = collector.name(), error = %failure.error, "poll failed"),
        }
    }

    fn context(&self, organization: Arc<str>) -> Context {
        let settings = Arc::clone(&self.parts.schedule_config.settings);
        Context::new(self.timestamp(), settings, organization)
    }

    fn commit(&self, collector: CollectorId, target: &Target, output: PollOutput) {
        let store = self.store();
        let organization = |record: &dyn Record| {
            let customer = Customer::of(record);
            customer.map_or_else(|| Arc::from(""), |customer| Arc::from(customer.organization.as_str()))
        };
        if collector == CollectorId::CUSTOMERS {
            let listed: BTreeMap<CustomerId, Arc<str>> = output
                .records
                .iter()
                .map(|(id, kept)| (id.clone(), organization(kept.as_ref())))
                .collect();
            // The simulated partner's list is always complete, and no customer is removed.
            let (_, _) = store.reconcile(&listed, true);
        }
        // No series are dropped, because `metrics.series_limit` is not set here.
        let context_of = |id: &CustomerId| self.context(store.organization(id));
        let (rendered, _) = collector.descriptor().render_all(output.records, context_of);
        let is_complete = output.incomplete.is_none();
        let _ = store.commit(collector, target, rendered, is_complete, self.timestamp());
    }

    /// Renders all metrics.
    pub(super) fn exposition(&self) -> Vec<u8> {
        let unfiltered = ScrapeFilter::default();
        let now = self.timestamp();
        let own = self.parts.scrape.exporter_metrics(&unfiltered, Format::Text, now);
        let mut text = own.head;
        let mut stored = self.parts.scrape.stored(&unfiltered, Format::Text, now);
        let mut frame = Vec::new();
        loop {
            frame.clear();
            stored.fill(&mut frame);
            if frame.is_empty() {
                text.extend_from_slice(&own.tail);
                return text;
            }
            text.append(&mut frame);
        }
    }
}
