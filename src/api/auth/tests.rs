use super::response::TEMPORARY_CODES;
use super::*;

#[test]
fn rejected_client_waits_from_one_to_fifteen_minutes() {
    let rejected = Error::InvalidClient {
        code: "invalid_client".to_owned(),
        skew: None,
    };
    let minutes = [1, 2, 3, 4, 5, 6, 100].map(|failures| rejected.pause(failures).as_secs() / 60);
    assert_eq!(minutes, [1, 2, 4, 8, 15, 15, 15]);
}

#[test]
fn requested_pause_is_respected() {
    let requested = Error::Throttled(Some(Duration::from_secs(7)));
    assert_eq!(requested.pause(1), Duration::from_secs(7));
    let no_pause = Error::Throttled(Some(Duration::ZERO));
    assert_eq!(
        [1, 2, 3, 50].map(|failures| no_pause.pause(failures).as_secs()),
        [2, 4, 8, 60]
    );
    assert_eq!(Error::Status(503).pause(1), Duration::from_secs(2));
    assert_eq!(Error::Status(503).pause(50), Duration::from_secs(60));
}

#[test]
fn invalid_lifetime_does_not_invalidate_the_token() {
    for (lifetime, seconds) in [
        ("1e400", 300),
        ("-1e400", 300),
        ("[]", 300),
        ("\"60\"", 60),
        ("null", 300),
        ("90.5", 90),
    ] {
        let body = format!("\u{feff}{{\"access_token\":\"t\",\"expires_in\":{lifetime}}}");
        let response = parse_response(StatusCode::OK, &mut body.into_bytes(), None)
            .unwrap()
            .unwrap();
        assert_eq!(response.lifetime().as_secs(), seconds, "{lifetime}");
    }
}

#[test]
fn server_error_is_not_a_rejection() {
    let parsed = |body: &str| parse_response(StatusCode::BAD_REQUEST, &mut body.as_bytes().to_vec(), None);
    for code in TEMPORARY_CODES {
        let parsed = parsed(&format!(r#"{{"error":"{code}"}}"#));
        assert!(matches!(parsed, Err(Error::Status(400))), "{code}");
    }
    assert!(matches!(
        parsed(r#"{"error":"invalid_client"}"#),
        Err(Error::InvalidClient { .. })
    ));
}

#[test]
fn token_expires_by_the_clock_that_advanced_more() {
    const HOUR: Duration = Duration::from_secs(3600);
    let token = |fetched| Token {
        value: Arc::new(Secret::from("t".to_owned())),
        fetched,
        lifetime: HOUR,
    };
    let now = ClockReading::now();
    assert!(token(now).is_valid());
    // The wall clock was set forward, or the machine was suspended.
    let set_forward = ClockReading {
        wall: now.wall - 2 * HOUR,
        ..now
    };
    assert!(!token(set_forward).is_valid());
    // The wall clock was set back, so the monotonic clock determines the age of the token.
    let set_back = |age| ClockReading {
        monotonic: now.monotonic.checked_sub(age).unwrap(),
        wall: now.wall + HOUR,
    };
    assert!(token(set_back(Duration::ZERO)).is_valid());
    assert!(set_back(Duration::from_secs(9)).age() >= Duration::from_secs(9));
}
