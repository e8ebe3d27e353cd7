use super::answer::TEMPORARY_CODES;
use super::*;

#[test]
fn rejected_client_waits_from_one_to_fifteen_minutes() {
    let refused = Error::InvalidClient {
        code: "invalid_client".to_owned(),
        skew: None,
    };
    let minutes = [1, 2, 3, 4, 5, 6, 100].map(|failures| refused.pause(failures).as_secs() / 60);
    assert_eq!(minutes, [1, 2, 4, 8, 15, 15, 15]);
}

#[test]
fn requested_pause_is_observed() {
    let requested = Error::Throttled(Some(Duration::from_secs(7)));
    assert_eq!(requested.pause(1), Duration::from_secs(7));
    let nothing = Error::Throttled(Some(Duration::ZERO));
    assert_eq!(
        [1, 2, 3, 50].map(|failures| nothing.pause(failures).as_secs()),
        [2, 4, 8, 60]
    );
    assert_eq!(Error::Status(503).pause(1), Duration::from_secs(2));
    assert_eq!(Error::Status(503).pause(50), Duration::from_secs(60));
}

#[test]
fn invalid_lifetime_does_not_invalidate_the_token() {
    for (life, seconds) in [
        ("1e400", 300),
        ("-1e400", 300),
        ("[]", 300),
        ("\"60\"", 60),
        ("null", 300),
        ("90.5", 90),
    ] {
        let body = format!("\u{feff}{{\"access_token\":\"t\",\"expires_in\":{life}}}");
        let answer = parse_response(StatusCode::OK, &mut body.into_bytes(), None)
            .unwrap()
            .unwrap();
        assert_eq!(answer.life().as_secs(), seconds, "{life}");
    }
}

#[test]
fn server_error_is_not_a_rejection() {
    let judged = |body: &str| parse_response(StatusCode::BAD_REQUEST, &mut body.as_bytes().to_vec(), None);
    for code in TEMPORARY_CODES {
        let judged = judged(&format!(r#"{{"error":"{code}"}}"#));
        assert!(matches!(judged, Err(Error::Status(400))), "{code}");
    }
    assert!(matches!(
        judged(r#"{"error":"invalid_client"}"#),
        Err(Error::InvalidClient { .. })
    ));
}

#[test]
fn token_expires_by_the_faster_clock() {
    const HOUR: Duration = Duration::from_secs(3600);
    let token = |fetched| Token {
        value: Arc::new(Secret::from("t".to_owned())),
        fetched,
        life: HOUR,
    };
    let now = Moment::now();
    assert!(token(now).is_live());
    // The wall clock stepped forward, or the machine was suspended.
    let stepped = Moment {
        wall: now.wall - 2 * HOUR,
        ..now
    };
    assert!(!token(stepped).is_live());
    // The wall clock stepped back: the age of the token is that of the monotonic clock.
    let stepped_back = |age| Moment {
        monotonic: now.monotonic.checked_sub(age).unwrap(),
        wall: now.wall + HOUR,
    };
    assert!(token(stepped_back(Duration::ZERO)).is_live());
    assert!(stepped_back(Duration::from_secs(9)).age() >= Duration::from_secs(9));
}
