//! Independent parsers for the exposition: the OpenMetrics reference parser, the text format parser of Prometheus'
//! Python client, and promtool. `tests/run` installs them and sets their paths in environment variables.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// Python script that parses OpenMetrics on standard input with the reference parser, and detects duplicate series.
const OPENMETRICS: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
seen = set()
for family in text_string_to_metric_families(sys.stdin.read()):
    for sample in family.samples:
        series = (sample.name, tuple(sorted(sample.labels.items())))
        if series in seen:
            sys.exit('occurs twice: %r' % (series,))
        seen.add(series)
if not seen and len(sys.argv) < 2:
    sys.exit('no samples')
";

/// Python script that parses the text format on standard input, and detects duplicate series and missing types.
const TEXT: &str = "
import sys
from prometheus_client.parser import text_string_to_metric_families
seen = set()
for family in text_string_to_metric_families(sys.stdin.read()):
    if family.type in ('unknown', 'untyped'):
        sys.exit('has no type: ' + family.name)
    for sample in family.samples:
        series = (sample.name, tuple(sorted(sample.labels.items())))
        if series in seen:
            sys.exit('occurs twice: %r' % (series,))
        seen.add(series)
if not seen:
    sys.exit('no samples')
";

/// Checks with the reference parser that the exposition is valid OpenMetrics.
pub fn assert_openmetrics(exposition: &str) {
    run(&python(), &["-c", OPENMETRICS], exposition);
}

/// Checks with the Python and Go parsers that the exposition is valid text format 0.0.4. Warnings from promtool count
/// as errors.
pub fn assert_text_format(exposition: &str) {
    run(&python(), &["-c", TEXT], exposition);
    run(&promtool(), &["check", "metrics"], exposition);
}

pub fn promtool() -> String {
    std::env::var("EXPORTER_TEST_PROMTOOL").unwrap_or_else(|_| "promtool".to_owned())
}

fn python() -> String {
    std::env::var("EXPORTER_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

fn run(program: &str, arguments: &[&str], input: &str) {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} cannot be run ({error}); tests/run installs the required tools"));
    let mut stdin = child.stdin.take().unwrap();
    let text = input.to_owned();
    let writer = std::thread::spawn(move || {
        // A parser that fails early closes its input and prints the reason.
        let _ = stdin.write_all(text.as_bytes());
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(
        output.status.success(),
        "{program} rejects the exposition: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
