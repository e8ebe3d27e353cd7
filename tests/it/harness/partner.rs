//! A simulated partner that runs during a test.

use std::net::{Ipv4Addr, SocketAddr};

use elements_exporter::simulator::{Clock, Handle, Settings, Simulator};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Noon on a past day, so that no simulated run completes in the future.
const NOON: i64 = 1_760_961_600;

/// A simulated partner that runs until it is dropped.
pub struct Partner {
    pub base: String,
    pub handle: Handle,
    _stop: DropGuard,
}

/// Returns settings for a hostile world whose clock moves only when a test advances it.
pub fn frozen_partner(customers: usize) -> Settings {
    Settings {
        seed: 7,
        customers,
        clock: Clock::Manual(NOON),
        churn: false,
        hostile: true,
        ..Settings::default()
    }
}

pub async fn start(settings: Settings) -> Partner {
    let simulator = Simulator::bind(settings, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .await
        .unwrap();
    let (base, handle) = (simulator.base_url(), simulator.handle());
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    tokio::spawn(simulator.run(stop));
    Partner {
        base,
        handle,
        _stop: guard,
    }
}
