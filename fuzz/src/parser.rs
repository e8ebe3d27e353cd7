//! A small, strict parser for the Prometheus text format and OpenMetrics.

use std::collections::{BTreeMap, BTreeSet};

/// A sample line with unescaped label values.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

/// Parses the samples of an exposition with gauges, counters and infos, but without `# EOF`. Panics unless each family
/// is declared before its samples, families are contiguous, no series occurs twice, and every value is finite.
pub fn parse(text: &str, openmetrics: bool) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut series = BTreeSet::new();
    let mut families = BTreeSet::new();
    let mut family: Option<(String, String)> = None;
    let mut help: Option<String> = None;
    assert!(
        text.is_empty() || text.ends_with('\n'),
        "the last line is not terminated"
    );
    for line in text.split_terminator('\n') {
        assert!(!line.contains('\r'), "a carriage return in {line:?}");
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, text) = rest.split_once(' ').expect("HELP has text");
            assert!(!text.is_empty());
            help = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("TYPE has a type");
            assert_eq!(
                help.take().as_deref(),
                Some(name),
                "HELP and TYPE must belong to the same family"
            );
            assert!(families.insert(name.to_owned()), "{name} is declared twice");
            let kinds: &[&str] = if openmetrics {
                &["gauge", "counter", "info"]
            } else {
                &["gauge", "counter"]
            };
            assert!(kinds.contains(&kind), "{line:?}");
            family = Some((name.to_owned(), kind.to_owned()));
        } else {
            let sample = parse_sample(line);
            let (name, kind) = family.as_ref().expect("a sample must follow its family");
            let expected = match (openmetrics, kind.as_str()) {
                (true, "counter") => format!("{name}_total"),
                (true, "info") => format!("{name}_info"),
                _ => name.clone(),
            };
            assert_eq!(sample.name, expected, "{line:?}");
            assert!(sample.value.is_finite(), "{line:?}");
            let labels: BTreeMap<_, _> = sample.labels.iter().cloned().collect();
            assert_eq!(labels.len(), sample.labels.len(), "a label occurs twice in {line:?}");
            assert!(
                series.insert((sample.name.clone(), labels)),
                "a series occurs twice: {line:?}"
            );
            samples.push(sample);
        }
    }
    samples
}

fn parse_sample(line: &str) -> Sample {
    let chars: Vec<char> = line.chars().collect();
    let mut at = 0;
    let name = parse_name(&chars, &mut at);
    let mut labels = Vec::new();
    if chars.get(at) == Some(&'{') {
        at += 1;
        loop {
            let label = parse_name(&chars, &mut at);
            expect(&chars, &mut at, '=', line);
            expect(&chars, &mut at, '"', line);
            let mut value = String::new();
            loop {
                let next = *chars.get(at).expect("a label value must end with a quote");
                at += 1;
                match next {
                    '"' => break,
                    '\\' => {
                        let escaped = *chars.get(at).expect("a character must follow a backslash");
                        at += 1;
                        value.push(match escaped {
                            'n' => '\n',
                            '\\' | '"' => escaped,
                            other => panic!("\\{other} in {line:?}"),
                        });
                    }
                    other => value.push(other),
                }
            }
            labels.push((label, value));
            match chars.get(at) {
                Some(',') => at += 1,
                Some('}') => break,
                other => panic!("{other:?} after a label in {line:?}"),
            }
        }
        at += 1;
    }
    expect(&chars, &mut at, ' ', line);
    let value: String = chars.get(at..).expect("a value").iter().collect();
    let digits = |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e');
    assert!(value.chars().all(digits), "{line:?}");
    Sample {
        name,
        labels,
        value: value.parse().expect("a number"),
    }
}

fn parse_name(text: &[char], at: &mut usize) -> String {
    let start = *at;
    while text.get(*at).is_some_and(|c| c.is_ascii_alphanumeric() || *c == '_') {
        *at += 1;
    }
    let name: String = text.get(start..*at).unwrap_or_default().iter().collect();
    assert!(
        name.starts_with(|c: char| c.is_ascii_alphabetic()),
        "invalid name {name:?}"
    );
    name
}

fn expect(text: &[char], at: &mut usize, expected: char, line: &str) {
    assert_eq!(text.get(*at), Some(&expected), "at character {at} of {line:?}");
    *at += 1;
}
