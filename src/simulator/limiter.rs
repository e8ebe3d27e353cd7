//! Rate limit of the host.

use std::time::Instant;

/// A token bucket in real time, with a capacity of one second's requests.
#[derive(Debug)]
pub(super) struct Limiter {
    rate: f64,
    tokens: f64,
    last: Instant,
}

impl Limiter {
    pub(super) fn new(rate: f64) -> Self {
        Self {
            rate,
            tokens: rate.max(1.0),
            last: Instant::now(),
        }
    }

    /// Removes one token. Returns true if none was available.
    pub(super) fn is_exhausted(&mut self) -> bool {
        let now = Instant::now();
        let gained = now.duration_since(self.last).as_secs_f64() * self.rate;
        self.last = now;
        self.tokens = (self.tokens + gained).min(self.rate.max(1.0));
        let exhausted = self.tokens < 1.0;
        if !exhausted {
            self.tokens -= 1.0;
        }
        exhausted
    }
}
