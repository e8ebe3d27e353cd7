//! Client assertions: JWTs used instead of a client secret (RFC 7523), in the form that AvePoint's identity service
//! requires.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::RSA_PKCS1_SHA256,
};
use serde_json::{Value, json};

use super::{CredentialError, identity::Identity};
use crate::secret::Secret;

/// Value of the form field `client_assertion_type` (RFC 7523, section 2.2).
pub(super) const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Tolerance for a local clock that is ahead of the endpoint's clock.
const BACKDATE: Duration = Duration::from_secs(60);

/// Lifetime of an assertion. The local clock may be at most this far behind the endpoint's clock.
const LIFETIME: Duration = Duration::from_secs(5 * 60);

/// Size of a random `jti`. At 128 bits, repeats are practically impossible.
const JTI_BYTES: usize = 16;

/// Returns a new assertion for `client_id` and the token endpoint `audience`.
pub(super) fn sign(
    identity: &Identity,
    client_id: &str,
    audience: &str,
    now: SystemTime,
) -> Result<Secret, CredentialError> {
    let random = SystemRandom::new();
    let claims = claims(client_id, audience, &jti(&random)?, now);
    let message = format!("{}.{}", segment(&header(identity)), segment(&claims));

    let mut signature = vec![0; identity.key().public().modulus_len()];
    identity
        .key()
        .sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature)
        .map_err(|_| CredentialError::Signing)?;
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)).into())
}

fn header(identity: &Identity) -> Value {
    let thumbprint = identity.thumbprint();
    let kid: String = thumbprint.iter().map(|byte| format!("{byte:02X}")).collect();
    json!({
        "alg": "RS256",
        "typ": "JWT",
        "kid": kid,
        "x5t": URL_SAFE_NO_PAD.encode(thumbprint),
    })
}

fn claims(client_id: &str, audience: &str, jti: &str, now: SystemTime) -> Value {
    // If the clock shows a date before 1970, the endpoint rejects the assertion, and the error reports the clock skew.
    let issued = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "jti": jti,
        "nbf": issued.saturating_sub(BACKDATE).as_secs(),
        "iat": issued.as_secs(),
        "exp": issued.saturating_add(LIFETIME).as_secs(),
    })
}

fn jti(random: &SystemRandom) -> Result<String, CredentialError> {
    let mut bytes = [0; JTI_BYTES];
    random.fill(&mut bytes).map_err(|_| CredentialError::Signing)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn segment(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}
