//! Tests of the token endpoint and of token scopes.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{NOW, Partner, fixed_settings, text};
use crate::simulator::{Settings, TOKEN_PATH};

#[tokio::test]
async fn tokens_are_checked() {
    let partner = Partner::start(fixed_settings()).await;
    let status = async |token: &str, path: &str| partner.try_get(token, path).await.unwrap().status().as_u16();
    assert_eq!(status("nonsense", "/partner/customers").await, 401);
    let anonymous = partner.client.get(partner.url("/partner/customers")).send().await;
    assert_eq!(anonymous.unwrap().status(), 401);
    let token = partner.token_for("partner.customers.read.all").await;
    assert!(token.starts_with("sim-token-"));
    assert_eq!(status(&token, "/partner/customers").await, 200);
    assert_eq!(status(&token, "/partner/services").await, 403);
    partner.handle.advance(Duration::from_secs(3599));
    assert_eq!(status(&token, "/partner/customers").await, 200);
    partner.handle.advance(Duration::from_secs(1));
    assert_eq!(status(&token, "/partner/customers").await, 401);
    let token = partner.token_for("").await;
    assert_eq!(status(&token, "/partner/services").await, 200);
    partner.handle.revoke_tokens();
    assert_eq!(status(&token, "/partner/services").await, 401);
    let requests = partner.handle.requests();
    let last = requests.last().unwrap();
    assert_eq!(
        (last.path.as_str(), last.status, last.authorized),
        ("/partner/services", 401, false)
    );
    assert_eq!(partner.handle.token_requests(), 2);
}

#[tokio::test]
async fn token_endpoint_returns_oauth_error_codes() {
    let partner = Partner::start(fixed_settings()).await;
    let form = |secret: &'static str, scope: &'static str, grant: &'static str| {
        [
            ("grant_type", grant),
            ("client_id", "demo"),
            ("client_secret", secret),
            ("scope", scope),
        ]
    };
    let grant = "client_credentials";
    let long: &str = Box::leak("partner.customers.read.all ".repeat(12).into_boxed_str());
    let error_of = async |form: [(&str, &str); 4]| {
        let (status, response) = partner.request_token(&form).await;
        assert_eq!(status, 400);
        text(&response, "error").to_owned()
    };
    assert_eq!(error_of(form("wrong", "", grant)).await, "invalid_client");
    assert_eq!(
        error_of(form("demo-secret", "partner.nothing", grant)).await,
        "invalid_scope"
    );
    assert_eq!(error_of(form("demo-secret", long, grant)).await, "invalid_scope");
    assert_eq!(
        error_of(form("demo-secret", "", "password")).await,
        "unsupported_grant_type"
    );
    partner.handle.set_scopes(vec!["partner.jobs.read.all".to_owned()]);
    assert_eq!(
        error_of(form("demo-secret", "partner.customers.read.all", grant)).await,
        "invalid_scope"
    );
    partner.handle.set_secret("rotated".to_owned());
    assert_eq!(error_of(form("demo-secret", "", grant)).await, "invalid_client");
    let (status, response) = partner.request_token(&form("rotated", "", grant)).await;
    assert_eq!(status, 200);
    assert_eq!(
        (text(&response, "scope"), &response["expires_in"]),
        ("partner.jobs.read.all", &json!(3600))
    );
}

#[tokio::test]
async fn client_assertions_are_verified() {
    const CERTIFICATE: &str = include_str!("../../../tests/fixtures/simulator/client.pem");
    const KEY: &str = include_str!("../../../tests/fixtures/simulator/client-key.pem");
    const THUMBPRINT: &str = include_str!("../../../tests/fixtures/simulator/client.thumbprint");
    let der = x509_parser::pem::parse_x509_pem(KEY.as_bytes()).unwrap().1.contents;
    let key = ring::signature::RsaKeyPair::from_pkcs8(&der).unwrap();
    let sign = |header: Value, claims: Value| {
        let encoded = [header, claims]
            .map(|part| URL_SAFE_NO_PAD.encode(part.to_string()))
            .join(".");
        let mut signature = vec![0; key.public().modulus_len()];
        let random = ring::rand::SystemRandom::new();
        key.sign(
            &ring::signature::RSA_PKCS1_SHA256,
            &random,
            encoded.as_bytes(),
            &mut signature,
        )
        .unwrap();
        format!("{encoded}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let settings = Settings {
        certificate_pem: Some(CERTIFICATE.to_owned()),
        ..fixed_settings()
    };
    let partner = Partner::start(settings).await;
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": THUMBPRINT.trim()});
    let claims = |jti: &str| {
        json!({"iss": "demo", "sub": "demo", "aud": partner.url(TOKEN_PATH), "jti": jti,
            "iat": NOW, "nbf": NOW, "exp": NOW + 300})
    };
    let with = |jti: &str, name: &str, value: Value| {
        let mut claims = claims(jti);
        claims[name] = value;
        claims
    };
    let request = async |assertion: String| {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", "demo"),
            (
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            ),
            ("client_assertion", assertion.as_str()),
        ];
        partner.request_token(&form).await.0.as_u16()
    };
    let valid = sign(header.clone(), claims("1"));
    assert_eq!(request(valid.clone()).await, 200);
    assert_eq!(request(valid).await, 400, "a used jti must be rejected");
    assert_eq!(
        request(sign(header.clone(), with("2", "nbf", json!(NOW + 60)))).await,
        200
    );
    for (name, value) in [
        ("nbf", json!(NOW + 61)),
        ("exp", json!(NOW)),
        ("aud", json!("https://elsewhere.example/connect/token")),
        ("iss", json!("other")),
        ("sub", json!("other")),
        ("jti", json!(null)),
    ] {
        assert_eq!(
            request(sign(header.clone(), with("3", name, value))).await,
            400,
            "{name}"
        );
    }
    assert_eq!(
        request(sign(json!({"alg": "RS256", "kid": "00"}), claims("4"))).await,
        400
    );
    let forged = sign(header, claims("5")).replace(&URL_SAFE_NO_PAD.encode("{"), "e");
    assert_eq!(request(format!("{}A", &forged[..forged.len() - 4])).await, 400);
}
