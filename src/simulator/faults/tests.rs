//! Tests of globs, limits, and the effect of faults on responses.

use super::*;

#[test]
fn globs_match_complete_paths() {
    for (glob, text, matches) in [
        ("*", "/connect/token", true),
        ("/partner/customers", "/partner/customers", true),
        ("/partner/customers", "/partner/customers/1", false),
        ("/partner/customers/*/jobs", "/partner/customers/1/jobs", true),
        ("/partner/customers/*/jobs", "/partner/customers/1/jobs/2", false),
        ("*jobs*", "/partner/customers/1/jobs/2", true),
        ("a*a", "a", false),
        ("/a*b*c", "/a1c2b3c", true),
        ("/a*b*c", "/a1c2b3", false),
        ("", "/", false),
        ("a*b*", "axb", true),
        ("a**", "a", true),
    ] {
        assert_eq!(glob_matches(glob, text), matches, "{glob} {text}");
    }
}

#[test]
fn faults_skip_and_limit_their_matches() {
    let mut rng = SeededRng::from_path(&[1]);
    let mut faults = vec![
        Fault::new("/a", FaultKind::Hang).times(1).after(1),
        Fault {
            method: Some("POST".to_owned()),
            ..Fault::new("*", FaultKind::Reset)
        },
    ];
    let mut hit = |method: &str, path: &str| pick(&mut faults, method, path, &mut rng);
    assert_eq!(hit("GET", "/a"), None);
    assert_eq!(hit("POST", "/a"), Some(FaultKind::Hang));
    assert_eq!(hit("POST", "/a"), Some(FaultKind::Reset));
    assert_eq!(hit("GET", "/a"), None);
}

#[test]
fn improbable_faults_are_rare() {
    let mut rng = SeededRng::from_path(&[1]);
    let mut faults = vec![Fault {
        probability: 0.2,
        ..Fault::new("*", FaultKind::Hang)
    }];
    let matches = (0..1000)
        .filter(|_| pick(&mut faults, "GET", "/", &mut rng).is_some())
        .count();
    assert!((150..250).contains(&matches), "{matches}");
}

#[test]
fn faults_are_parsed_from_flat_json() {
    let text = r#"[{"path": "/x", "kind": "throttle", "retry_after": "3", "times": 2},
                   {"path": "*", "kind": "replace", "pointer": "/value", "value": null},
                   {"path": "*", "method": "GET", "kind": "short_length", "by": -5, "probability": 0.5},
                   {"path": "*", "kind": "hang"}, {"path": "*", "kind": "redirect", "location": "/"}]"#;
    let faults: Vec<Fault> = serde_json::from_str(text).unwrap();
    let kinds: Vec<FaultKind> = faults.iter().map(|fault| fault.kind.clone()).collect();
    assert_eq!(
        kinds,
        [
            FaultKind::Throttle {
                retry_after: Some("3".to_owned()),
                code: 429
            },
            FaultKind::Replace {
                pointer: "/value".to_owned(),
                value: Value::Null
            },
            FaultKind::ShortLength { by: -5 },
            FaultKind::Hang,
            FaultKind::Redirect {
                code: 302,
                location: "/".to_owned()
            },
        ]
    );
    let parsed_again: Vec<Fault> = serde_json::from_str(&serde_json::to_string(&faults).unwrap()).unwrap();
    assert_eq!(faults, parsed_again);
    assert!(serde_json::from_str::<Fault>(r#"{"path": "*", "kind": "gremlins"}"#).is_err());
}

#[test]
fn values_are_replaced_and_added() {
    let response = || ApiResponse::json(json!({"value": [{"id": "1"}], "metadata": {}}));
    let content = |pointer: &str, value: Value| replace_value(response(), pointer, value).content;
    assert_eq!(
        content("/value/0/id", json!(7)),
        Content::Json(json!({"value": [{"id": 7}], "metadata": {}}))
    );
    assert_eq!(
        content("/metadata/totalCount", json!(7)),
        Content::Json(json!({"value": [{"id": "1"}], "metadata": {"totalCount": 7}}))
    );
    assert_eq!(content("", Value::Null), Content::Json(Value::Null));
    assert_eq!(content("/nowhere/x", Value::Null), response().content);
}
