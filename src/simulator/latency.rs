//! Response times like those of the real API.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::Value;

use super::response::{ApiResponse, Content};

/// Latency of responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Latency {
    /// No delay.
    #[default]
    None,
    /// Delays measured with the real API.
    Real,
}

impl Latency {
    /// Returns the pause before a response, if any.
    pub(crate) fn pause(self, path: &str, response: &ApiResponse) -> Option<Duration> {
        match self {
            Self::None => None,
            Self::Real => Some(Duration::from_millis(measured(path, response))),
        }
    }
}

/// Returns the measured latency in milliseconds. Token requests, errors and overviews without data are fast.
fn measured(path: &str, response: &ApiResponse) -> u64 {
    let has_ending = |endings: &[&str]| endings.iter().any(|ending| path.ends_with(ending));
    if response.status != StatusCode::OK || path.ends_with("/connect/token") {
        300
    } else if has_ending(&["/services", "/services/batch"]) {
        4800
    } else if has_ending(&["/overview", "/protected"]) {
        match rows(response) {
            0 => 700,
            1..=9 => 3600,
            10..=12 => 4500,
            _ => 5400,
        }
    } else if has_ending(&["/customers", "/customers/batch"]) {
        1700
    } else {
        1000
    }
}

fn rows(response: &ApiResponse) -> usize {
    let Content::Json(body) = &response.content else {
        return 0;
    };
    let rows = body.get("data").or_else(|| body.get("value"));
    rows.and_then(Value::as_array).map_or(0, Vec::len)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn overview_without_data_is_fast() {
        let response = |rows: usize| ApiResponse::json(json!({"data": vec![0; rows]}));
        let pause = |path: &str, rows| {
            Latency::Real
                .pause(path, &response(rows))
                .map(|pause| pause.as_millis())
        };
        assert_eq!(pause("/x/overview", 0), Some(700));
        assert_eq!(pause("/x/overview", 12), Some(4500));
        assert_eq!(pause("/partner/customers", 40), Some(1700));
        assert_eq!(pause("/general/customers/services/batch", 40), Some(4800));
        assert_eq!(pause("/x/jobs/batch", 40), Some(1000));
        assert_eq!(Latency::None.pause("/x/overview", &response(9)), None);
    }
}
