//! The configuration file: every input is either parsed or rejected, and no error contains a secret.

use std::ffi::OsString;
use std::io::Write as _;

use elements_exporter::config::load;
use elements_exporter::error_chain::error_chain;

/// A secret that no message may contain.
const CANARY: &str = "canary-c0ffee-4711";

/// Checks an input: the file, a NUL, and the environment as lines of `NAME=value`. Each name gets the prefix
/// `ELEMENTS_`, and `SECRET` is replaced with a secret.
pub fn check(data: &[u8]) {
    // A fuzzer that traces comparisons may insert the canary anywhere.
    if data.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()) {
        return;
    }
    let (file, environment) = match data.iter().position(|byte| *byte == 0) {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &[][..]),
    };
    let with_secret = |text: &[u8]| String::from_utf8_lossy(text).replace("SECRET", CANARY);
    let file = with_secret(file);
    let variables: Vec<(OsString, OsString)> = with_secret(environment)
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (OsString::from(format!("ELEMENTS_{name}")), OsString::from(value)))
        .collect();
    let mut config_file = tempfile::NamedTempFile::new().expect("a file");
    config_file.write_all(file.as_bytes()).expect("written");
    let load = || load(Some(config_file.path()), variables.clone());
    match (load(), load()) {
        (Ok(one), Ok(other)) => {
            let debug = format!("{one:?}");
            assert_eq!(debug, format!("{other:?}"), "parsing twice must give the same result");
            if !has_canary_elsewhere(&file, environment) {
                assert!(!debug.contains(CANARY), "{debug}");
            }
            assert!(one.api.requests_per_second.is_finite() && one.api.requests_per_second > 0.0);
            assert!(one.api.max_concurrency > 0);
            for (collector, plan) in one.plans.iter() {
                assert!(
                    !plan.interval.is_zero() && !plan.stale_after.is_zero(),
                    "{}",
                    collector.name()
                );
            }
        }
        (Err(one), Err(other)) => {
            let message = error_chain(&one);
            assert_eq!(message, error_chain(&other));
            assert!(!message.is_empty());
            if !has_canary_elsewhere(&file, environment) {
                assert!(!message.contains(CANARY), "{message}");
            }
        }
        (one, other) => panic!("one load succeeded and one failed: {} {}", one.is_ok(), other.is_ok()),
    }
}

/// Returns whether the canary may occur where the exporter cannot recognize it as a secret: under another key, in the
/// environment, in a multi-line string, or in a file with special characters.
fn has_canary_elsewhere(file: &str, environment: &[u8]) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || " \n._-:/".contains(c);
    let allowed = |line: &str| {
        let line = line.trim_start();
        let keys = ["client_secret: ", "certificate_password: "];
        !line.contains(CANARY)
            || keys
                .iter()
                .any(|key| line.strip_prefix(key).is_some_and(|value| value.trim() == CANARY))
    };
    !file.chars().all(plain) || !file.lines().all(allowed) || String::from_utf8_lossy(environment).contains("SECRET")
}
