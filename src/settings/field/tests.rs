use std::path::Path;

use super::*;
use crate::settings::parse;

/// Parses a value, and returns the error without its location and key.
fn read<T>(yaml: &str, read: impl FnOnce(&Field<'_>) -> Result<T, Error>) -> Result<T, String> {
    let document = parse(Path::new("elements.yml"), &format!("a: {{key: {yaml}}}")).unwrap();
    let field = Field::root(&document).at("a.key").unwrap();
    read(&field).map_err(|error| {
        let error = error.to_string();
        error
            .strip_prefix("elements.yml:1: a.key")
            .unwrap()
            .trim_start_matches(": ")
            .to_owned()
    })
}

#[test]
fn numbers_are_parsed_within_their_range() {
    let number = |yaml| read(yaml, |field| field.positive_number(1000.0));
    assert_eq!(number("5"), Ok(5.0));
    assert_eq!(number("0.25"), Ok(0.25));
    assert_eq!(number("'0.25'"), Ok(0.25));
    for yaml in ["0", "-1", "1000.5", "9223372036854775807", "NaN", "inf"] {
        let error = number(yaml).unwrap_err();
        assert_eq!(
            error,
            format!("\"{yaml}\" is out of range; expected a number above 0 and at most 1000")
        );
    }
    assert_eq!(
        number("quick").unwrap_err(),
        "\"quick\" is not a number; expected a number above 0 and at most 1000"
    );
    let whole = |yaml, range| read(yaml, |field| field.whole_number(range));
    assert_eq!(whole("8", 1..=256), Ok(8));
    assert_eq!(whole("' 8 '", 1..=256), Ok(8));
    assert_eq!(
        whole("257", 1..=256).unwrap_err(),
        "\"257\" is out of range; expected a whole number from 1 to 256"
    );
    assert_eq!(
        whole("1.5", 1..=usize::MAX).unwrap_err(),
        "\"1.5\" is not a whole number; expected a whole number of at least 1"
    );
}

#[test]
fn durations_are_parsed_within_their_range() {
    let duration = |yaml: &str| read(yaml, |field| field.duration(MIN_DURATION..=Duration::from_secs(600)));
    assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
    for yaml in ["soon", "300"] {
        let error = duration(yaml).unwrap_err();
        assert_eq!(
            error,
            format!("\"{yaml}\" is not a duration; expected something like 30s or 5m")
        );
    }
    for yaml in ["0s", "999ms", "601s"] {
        let error = duration(yaml).unwrap_err();
        assert_eq!(
            error,
            format!("\"{yaml}\" is out of range; expected a duration from 1s to 10m")
        );
    }
}

#[test]
fn dates_are_parsed() {
    let date = |yaml: &str| read(yaml, |field| field.date());
    assert_eq!(date("1970-01-02"), Ok(86_400));
    assert_eq!(date("1970-01-01T00:00:09Z"), Ok(9));
    assert_eq!(date("12/29/2026"), Ok(1_798_502_400));
    assert_eq!(date("1970-01-01T02:00:00+02:00"), Ok(0));
    for text in ["2027-02-30", "31/13/2027", "N/A", "soon", ""] {
        assert_eq!(
            date(&format!("'{text}'")).unwrap_err(),
            format!("\"{text}\" is not a date; expected something like 2027-01-31 or 2027-01-31T12:00:00Z")
        );
    }
}

#[test]
fn texts_are_parsed() {
    let text = |yaml| read(yaml, |field| field.text().map(str::to_owned));
    assert_eq!(text("' demo '").unwrap(), "demo");
    assert_eq!(text("007").unwrap(), "007");
    assert_eq!(text("[x]").unwrap_err(), "must be text, not a list; expected one value");
    assert_eq!(
        text("' '").unwrap_err(),
        "\" \" is empty; set a value, or remove the key"
    );
    assert_eq!(read("True", |field| field.boolean()), Ok(true));
    assert_eq!(
        read("yes", |field| field.boolean()).unwrap_err(),
        "\"yes\" is not a boolean; expected true or false"
    );
    let choice = |yaml| read(yaml, |field| field.choice(&[("a", 1), ("b", 2)]));
    assert_eq!(choice("B"), Ok(2));
    assert_eq!(choice("c").unwrap_err(), "\"c\" is not allowed; expected one of a, b");
    let long = read(&"x".repeat(MAX_SHOWN_CHARS + 1), |field| field.boolean()).unwrap_err();
    assert!(long.contains(&format!("\"{}\"…", "x".repeat(MAX_SHOWN_CHARS))));
}

#[test]
fn secrets_keep_white_space_and_errors_hide_them() {
    let secret = |yaml| read(yaml, |field| field.clone().secret().secret_text());
    assert_eq!(secret("\" pass word \\r\\n\"").unwrap().expose(), " pass word ");
    assert_eq!(secret("1234").unwrap().expose(), "1234");
    assert_eq!(
        secret("[hunter2]").unwrap_err(),
        "must be text, not a list; expected one value"
    );
    assert_eq!(
        secret("\"\\n\"").unwrap_err(),
        "(hidden) is empty; set a value, or remove the key"
    );
    let shown = read("hunter2", |field| field.clone().secret().boolean()).unwrap_err();
    assert_eq!(shown, "(hidden) is not a boolean; expected true or false");
}

#[test]
fn lists_are_parsed() {
    let words = |yaml| {
        read(yaml, |field| {
            let items = field.items()?;
            items
                .iter()
                .map(|item| item.text().map(str::to_owned))
                .collect::<Result<Vec<_>, _>>()
        })
    };
    assert_eq!(words("[one, other]").unwrap(), ["one", "other"]);
    assert_eq!(words("Contoso Ltd").unwrap(), ["Contoso Ltd"]);
    assert_eq!(words("303").unwrap(), ["303"]);
    assert_eq!(
        words("'one,other'").unwrap_err(),
        "\"one,other\" is not a list; expected a list such as [a, b]"
    );
    assert_eq!(
        words("[[x]]").unwrap_err(),
        "[0]: must be text, not a list; expected one value"
    );
    assert_eq!(
        read("['[a']", |field| field.patterns()).unwrap_err(),
        "[0]: \"[a\" is not a glob (unclosed character class; missing ']'); \
         expected a name or a glob, in which * matches any text"
    );
}
