//! Checks the connection to the API: DNS, TLS, proxy and clock skew.

use std::time::{Duration, SystemTime};

use url::Url;

use super::advice::{dns_remedy, error_text, remedy};
use super::report::{Finding, Outcome};
use super::{Check, authorities};
use crate::api::probe;
use crate::app::Error;
use crate::config::ProxyUrl;
use crate::domain::{Timestamp, counted};

/// Largest accepted clock skew. With a larger skew, the age of restore points is wrong, and certificates and tokens may
/// be rejected.
const CLOCK_TOLERANCE_SECONDS: u64 = 60;

/// Remaining validity below which a certificate or credential is reported as a failure.
const CERTIFICATE_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);

impl Check<'_> {
    /// Checks DNS, TLS, proxy and clock skew.
    pub(super) async fn check_hosts(&mut self) -> Result<(), Error> {
        let api = &self.config.api;
        let proxy = api.proxy_url.as_ref().map(ProxyUrl::expose);
        let authorities = authorities(api.ca_file.as_deref())?;
        let resolved = match proxy {
            Some(proxy) => vec![proxy],
            None => hosts(&[&api.token_url, &api.base_url]),
        };
        let mut unresolved: Vec<&str> = Vec::new();
        for url in resolved {
            let finding = match probe::resolve(url).await {
                Ok((1, address)) => (Outcome::Ok, "ok", address),
                Ok((addresses, first)) => (Outcome::Ok, "ok", format!("{addresses} addresses, including {first}")),
                Err(problem) => {
                    unresolved.extend(url.host_str());
                    let advice = dns_remedy(proxy.is_some());
                    (Outcome::Failed, "failed", format!("{problem}; {advice}"))
                }
            };
            self.add_finding(format!("DNS {}", host(url)), finding);
        }
        for url in hosts(&[&api.token_url, &api.base_url]) {
            let name = format!("{} {}", protocol(url), host(url));
            let first = proxy.unwrap_or(url);
            if first.host_str().is_some_and(|host| unresolved.contains(&host)) {
                let detail = format!("cannot resolve {}", host(first));
                self.add_finding(name, (Outcome::Skipped, "skipped", detail));
                continue;
            }
            let response = match probe::probe(url, proxy, &authorities, api.timeout).await {
                Ok(response) => response,
                Err(error) => {
                    let detail = format!("{}; {}", error_text(&error), remedy(&error, proxy.is_some()));
                    self.add_finding(name, (Outcome::Failed, "failed", detail));
                    continue;
                }
            };
            let took = Duration::from_millis(u64::try_from(response.took.as_millis()).unwrap_or(u64::MAX));
            let took = humantime::format_duration(took);
            let (outcome, detail) = certificate_validity(response.certificate_expiry);
            let result = if outcome == Outcome::Ok { "ok" } else { "expires soon" };
            let detail = format!(
                "responded in {took} (status {}; any status is fine){detail}",
                response.status
            );
            self.add_finding(name, (outcome, result, detail));
            self.add_finding(format!("clock {}", host(url)), clock_finding(response.skew));
        }
        Ok(())
    }

    fn add_finding(&mut self, name: String, (outcome, result, detail): (Outcome, &'static str, String)) {
        self.report.connection.push(Finding::new(name, outcome, result, detail));
    }
}

fn certificate_validity(end: Option<i64>) -> (Outcome, String) {
    let Some(end) = end else {
        return (Outcome::Ok, String::new());
    };
    let left = Timestamp::from_unix_seconds(end).since(Timestamp::from(SystemTime::now()));
    let days = left.as_secs() / 86_400;
    let outcome = if left < CERTIFICATE_WARNING {
        Outcome::Failed
    } else {
        Outcome::Ok
    };
    (
        outcome,
        format!(", certificate valid for {}", counted(days, "day", "days")),
    )
}

pub(super) fn clock_finding(skew: Option<i64>) -> (Outcome, &'static str, String) {
    match skew {
        None => (Outcome::Off, "unknown", "the response has no Date header".to_owned()),
        Some(skew) if skew.unsigned_abs() <= CLOCK_TOLERANCE_SECONDS => {
            (Outcome::Ok, "ok", format!("{} s apart", skew.unsigned_abs()))
        }
        Some(skew) => {
            let apart = humantime::format_duration(Duration::from_secs(skew.unsigned_abs()));
            let side = if skew > 0 { "behind" } else { "ahead" };
            let detail = format!(
                "this machine's clock is {apart} {side}; correct it, because the age of restore points depends on it"
            );
            (Outcome::Failed, "differs", detail)
        }
    }
}

/// Reports the remaining validity of a credential.
pub(super) fn expiry_finding(end: i64) -> (Outcome, &'static str, String) {
    let (end, now) = (Timestamp::from_unix_seconds(end), Timestamp::from(SystemTime::now()));
    let days = |length: Duration| counted(length.as_secs() / 86_400, "day", "days");
    let left = end.since(now);
    if end <= now {
        (Outcome::Failed, "expired", format!("{} ago", days(now.since(end))))
    } else if left < CERTIFICATE_WARNING {
        (Outcome::Failed, "expires soon", format!("in {}", days(left)))
    } else {
        (Outcome::Ok, "valid", format!("for {}", days(left)))
    }
}

/// Returns the first URL of each origin.
fn hosts<'u>(urls: &[&'u Url]) -> Vec<&'u Url> {
    let mut distinct: Vec<&Url> = Vec::new();
    for url in urls {
        if !distinct.iter().any(|known| known.origin() == url.origin()) {
            distinct.push(url);
        }
    }
    distinct
}

fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn protocol(url: &Url) -> &'static str {
    if url.scheme() == "https" { "TLS" } else { "HTTP" }
}
