//! The token endpoint: authentication by secret or certificate, and the issued tokens.

use std::collections::HashMap;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::{Value, json};

use super::Settings;
use super::response::{ApiResponse, Call};
use super::rng::SeededRng;

const V1_SCOPES: [&str; 5] = [
    "partner.customers.read.all",
    "partner.cbprotected.read.all",
    "partner.license.read.all",
    "partner.jobs.read.all",
    "partner.scanprofiles.read.all",
];

const V3_SCOPES: [&str; 7] = [
    "elements.customers.read.all",
    "elements.cbprotected.read.all",
    "elements.license.read.all",
    "elements.jobs.read.all",
    "elements.scanprofiles.read.all",
    "elements.wm.read.all",
    "elements.bm.tenant.read.all",
];

/// Maximum length of the `scope` parameter, in characters. The real endpoint rejects longer values.
const SCOPE_LIMIT: usize = 300;

/// Seconds by which the client's clock may be ahead.
const CLOCK_TOLERANCE: i64 = 60;

/// Prefix of every token. Tests search for it to detect leaked tokens.
const TOKEN_PREFIX: &str = "sim-token-";

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Returns all scopes of both API versions.
pub(crate) fn all_scopes() -> Vec<String> {
    V1_SCOPES
        .iter()
        .chain(&V3_SCOPES)
        .map(|scope| (*scope).to_owned())
        .collect()
}

/// An app registration and its issued tokens.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(super) client_id: String,
    pub(super) secret: String,
    certificate: Option<Certificate>,
    pub(super) scopes: Vec<String>,
    /// Lifetime of a token in seconds.
    lifetime: u64,
    tokens: HashMap<String, Grant>,
    /// Expiry of used assertions, by `jti`.
    used: HashMap<String, i64>,
    /// Number of token requests, regardless of their result.
    pub(super) requests: usize,
    rng: SeededRng,
}

#[derive(Debug)]
struct Certificate {
    /// The public key as PKCS#1 DER.
    public_key: Vec<u8>,
    /// SHA-1 of the certificate's DER encoding, in upper-case hexadecimal.
    thumbprint: String,
}

#[derive(Debug)]
struct Grant {
    scopes: Vec<String>,
    expires: i64,
}

/// An `error` code from RFC 6749, section 5.2.
type OauthError = &'static str;

const INVALID_CLIENT: OauthError = "invalid_client";
const INVALID_REQUEST: OauthError = "invalid_request";
const INVALID_SCOPE: OauthError = "invalid_scope";
const UNSUPPORTED_GRANT_TYPE: OauthError = "unsupported_grant_type";

impl Registration {
    /// Creates the registration, without any tokens.
    ///
    /// # Errors
    ///
    /// Returns an error if the certificate is not in PEM format or cannot be parsed.
    pub(crate) fn new(settings: &Settings) -> std::io::Result<Self> {
        Ok(Self {
            client_id: settings.client_id.clone(),
            secret: settings.client_secret.clone(),
            certificate: settings.certificate_pem.as_deref().map(Certificate::read).transpose()?,
            scopes: settings.scopes.clone(),
            lifetime: settings.token_lifetime.as_secs(),
            tokens: HashMap::new(),
            used: HashMap::new(),
            requests: 0,
            rng: SeededRng::from_path(&[settings.seed, 0x0A17]),
        })
    }

    pub(crate) fn revoke(&mut self) {
        self.tokens.clear();
    }

    /// Returns the scopes of the token in an `Authorization` header, or `None` if the token is missing or invalid.
    pub(crate) fn scopes_of(&self, authorization: Option<&str>, now: i64) -> Option<&[String]> {
        let (scheme, token) = authorization?.split_once(' ')?;
        let grant = self.tokens.get(token.trim())?;
        let is_valid = scheme.eq_ignore_ascii_case("bearer") && now < grant.expires;
        is_valid.then_some(grant.scopes.as_slice())
    }

    /// Returns the response to a token request.
    pub(crate) fn token(&mut self, call: &Call, token_url: &str, now: i64) -> ApiResponse {
        if call.method != "POST" {
            return ApiResponse::method_not_allowed("POST");
        }
        match self.grant(call, token_url, now) {
            Ok(scopes) => self.issue(scopes, now),
            Err(error) => ApiResponse {
                status: StatusCode::BAD_REQUEST,
                ..ApiResponse::json(json!({"error": error}))
            },
        }
    }

    fn grant(&mut self, call: &Call, token_url: &str, now: i64) -> Result<Vec<String>, OauthError> {
        if !call.content_type.starts_with("application/x-www-form-urlencoded") {
            return Err(INVALID_REQUEST);
        }
        let form: HashMap<String, String> = url::form_urlencoded::parse(call.body.as_bytes()).into_owned().collect();
        match form.get("grant_type").map(String::as_str) {
            Some("client_credentials") => {}
            Some(_) => return Err(UNSUPPORTED_GRANT_TYPE),
            None => return Err(INVALID_REQUEST),
        }
        // A client that reaches the simulator under another host name, for example from another container, puts that
        // name in the audience.
        let audiences = [token_url.to_owned(), format!("{}{}", call.origin, super::TOKEN_PATH)];
        self.authenticate(&form, &audiences, now)?;
        self.requested_scopes(form.get("scope").map_or("", String::as_str))
    }

    fn authenticate(
        &mut self,
        form: &HashMap<String, String>,
        audiences: &[String],
        now: i64,
    ) -> Result<(), OauthError> {
        let field = |name: &str| form.get(name).map(String::as_str);
        if field("client_id") != Some(&self.client_id) {
            return Err(INVALID_CLIENT);
        }
        match (field("client_secret"), field("client_assertion")) {
            (Some(secret), None) if secret == self.secret => Ok(()),
            (None, Some(assertion)) if field("client_assertion_type") == Some(ASSERTION_TYPE) => {
                self.accept_assertion(assertion, audiences, now).ok_or(INVALID_CLIENT)
            }
            _ => Err(INVALID_CLIENT),
        }
    }

    /// Verifies a client assertion (RFC 7523) and marks it as used. Returns `None` if it is invalid or already used.
    fn accept_assertion(&mut self, assertion: &str, audiences: &[String], now: i64) -> Option<()> {
        let certificate = self.certificate.as_ref()?;
        let claims = certificate.verified_claims(assertion)?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let instant = |name: &str| claims.get(name).and_then(Value::as_i64);
        let client = Some(self.client_id.as_str());
        if text("iss") != client || text("sub") != client {
            return None;
        }
        let expires = instant("exp")?;
        let is_active = instant("nbf").is_none_or(|from| from <= now.saturating_add(CLOCK_TOLERANCE));
        if expires <= now || !is_active || !audiences.iter().any(|audience| Some(audience.as_str()) == text("aud")) {
            return None;
        }
        self.used.retain(|_, expires| *expires > now);
        let is_unused = self.used.insert(text("jti")?.to_owned(), expires).is_none();
        is_unused.then_some(())
    }

    fn requested_scopes(&self, scope: &str) -> Result<Vec<String>, OauthError> {
        if scope.chars().count() > SCOPE_LIMIT {
            return Err(INVALID_SCOPE);
        }
        let requested: Vec<String> = scope.split_whitespace().map(str::to_owned).collect();
        if requested.is_empty() {
            return Ok(self.scopes.clone());
        }
        let are_granted = requested.iter().all(|scope| self.scopes.contains(scope));
        are_granted.then_some(requested).ok_or(INVALID_SCOPE)
    }

    fn issue(&mut self, scopes: Vec<String>, now: i64) -> ApiResponse {
        let random = [self.rng.next(), self.rng.next(), self.rng.next()].map(u64::to_be_bytes);
        let token = format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(random.concat()));
        let response = json!({
            "access_token": token,
            "expires_in": self.lifetime,
            "token_type": "Bearer",
            "scope": scopes.join(" "),
        });
        let expires = now.saturating_add(i64::try_from(self.lifetime).unwrap_or(i64::MAX));
        self.tokens.retain(|_, grant| now < grant.expires);
        self.tokens.insert(token, Grant { scopes, expires });
        ApiResponse::json(response).with_header("cache-control", "no-store")
    }
}

impl Certificate {
    fn read(pem: &str) -> std::io::Result<Self> {
        let invalid = |message: &str| std::io::Error::new(std::io::ErrorKind::InvalidInput, message.to_owned());
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes())
            .map_err(|_| invalid("the registered certificate is not in PEM format"))?;
        let certificate = block
            .parse_x509()
            .map_err(|_| invalid("the registered certificate cannot be parsed"))?;
        let thumbprint = digest(&SHA1_FOR_LEGACY_USE_ONLY, &block.contents);
        Ok(Self {
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
            thumbprint: thumbprint.as_ref().iter().map(|byte| format!("{byte:02X}")).collect(),
        })
    }

    /// Returns the claims of a JWT, if it was signed with this certificate's key.
    fn verified_claims(&self, token: &str) -> Option<Value> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header = segment(header)?;
        if header.get("alg")? != "RS256" || header.get("kid")? != self.thumbprint.as_str() {
            return None;
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.public_key)
            .verify(signed.as_bytes(), &signature)
            .ok()?;
        segment(claims)
    }
}

fn segment(encoded: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
}
