//! The active web configuration. It is reloaded when its files change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use ring::digest;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use super::settings::{Tls, WebSettings};
use super::tls::{self, Pem};
use super::users::{AuthResult, CheckSlots, Users};
use super::{Error, read_text};
use crate::error_chain::error_chain;
use crate::http::caller::Caller;
use crate::lock::lock;

/// Minimum time between checks of the files. Connections and requests trigger the checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Challenge that makes a browser prompt for a password and encode it in UTF-8.
const CHALLENGE: &str = "Basic realm=\"elements_exporter\", charset=\"UTF-8\"";

/// Protects all routes, and provides the TLS configuration for handshakes.
pub struct Guard {
    file: PathBuf,
    slots: CheckSlots,
    state: Mutex<GuardState>,
    /// Time of the last check. The lock is held during a check, so that checks do not run concurrently.
    last_check: tokio::sync::Mutex<Instant>,
}

struct GuardState {
    active: Arc<ActiveConfig>,
    /// Error of the last check, if it failed; stored so that a repeated error is logged only once.
    last_error: Option<String>,
}

/// A web configuration that is ready to use.
pub(in crate::http) struct ActiveConfig {
    pub(in crate::http) tls: Option<TlsAcceptor>,
    /// Whether the handshake verifies a certificate from every client.
    pub(in crate::http) verifies_clients: bool,
    users: Users,
    /// Protections that a change must not remove, each with whether it is active.
    protections: [(&'static str, bool); 5],
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Digest of all files.
    digest: [u8; 32],
}

impl Guard {
    /// Reads a web configuration and the files to which it refers.
    ///
    /// # Errors
    /// Returns an error if a file is invalid or cannot be read, or if the system provides no random numbers.
    pub fn load(file: &Path) -> Result<Arc<Self>, Error> {
        let slots = CheckSlots::new();
        let active = Arc::new(ActiveConfig::prepare(&Files::read(file)?, slots.clone())?);
        Ok(Arc::new(Self {
            file: file.to_owned(),
            slots,
            state: Mutex::new(GuardState {
                active,
                last_error: None,
            }),
            last_check: tokio::sync::Mutex::new(Instant::now()),
        }))
    }

    /// Returns whether the server uses TLS.
    pub fn serves_tls(&self) -> bool {
        lock(&self.state).active.tls.is_some()
    }

    /// Returns the active configuration, after checking the files if a check is due.
    pub(in crate::http) async fn current(self: &Arc<Self>) -> Arc<ActiveConfig> {
        if let Ok(mut last_check) = self.last_check.try_lock()
            && last_check.elapsed() >= CHECK_INTERVAL
        {
            let guard = Arc::clone(self);
            // After a panic, the active configuration stays in use.
            let _ = tokio::task::spawn_blocking(move || guard.check_files()).await;
            *last_check = Instant::now();
        }
        Arc::clone(&lock(&self.state).active)
    }

    /// Activates changed files if they are valid and remove no protection.
    fn check_files(&self) {
        let active = Arc::clone(&lock(&self.state).active);
        match self.prepare_changed(&active) {
            Ok(None) => lock(&self.state).last_error = None,
            Ok(Some(changed)) => {
                *lock(&self.state) = GuardState {
                    active: Arc::new(changed),
                    last_error: None,
                };
                info!(file = %self.file.display(), "web configuration reloaded");
            }
            Err(problem) => {
                let last_error = error_chain(&problem);
                let mut state = lock(&self.state);
                if state.last_error.as_ref() != Some(&last_error) {
                    warn!(
                        error = last_error,
                        "web configuration reload failed; keeping the previous configuration"
                    );
                    state.last_error = Some(last_error);
                }
            }
        }
    }

    /// Returns the configuration in the files, or `None` if they have not changed.
    fn prepare_changed(&self, active: &ActiveConfig) -> Result<Option<ActiveConfig>, Error> {
        let files = Files::read(&self.file)?;
        if files.digest() == active.digest {
            return Ok(None);
        }
        let changed = ActiveConfig::prepare(&files, self.slots.clone())?;
        match active.protection_missing_in(&changed) {
            Some(key) => Err(Error::Weaker {
                path: self.file.clone(),
                key,
            }),
            None => Ok(Some(changed)),
        }
    }
}

/// Protects all routes and the fallback with a guard.
pub(in crate::http) fn guarded(routes: Router, guard: Arc<Guard>) -> Router {
    routes.layer(from_fn_with_state(guard, protect))
}

async fn protect(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let active = guard.current().await;
    let mut response = match active.users.authenticate(request.headers()).await {
        AuthResult::Accepted => {
            if !active.users.is_empty()
                && let Some(caller) = request.extensions_mut().get_mut::<Caller>()
            {
                caller.note_password();
            }
            next.run(request).await
        }
        AuthResult::Rejected => (
            StatusCode::UNAUTHORIZED,
            [(WWW_AUTHENTICATE, CHALLENGE)],
            "Unauthorized\n",
        )
            .into_response(),
        AuthResult::Busy => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many passwords are being checked; try again in a few seconds.\n",
        )
            .into_response(),
    };
    for (name, value) in &active.headers {
        // A header that the route sets takes precedence, as in the Prometheus exporter toolkit.
        response.headers_mut().entry(name).or_insert_with(|| value.clone());
    }
    response
}

/// Contents of the web configuration and of its PEM files.
struct Files {
    text: String,
    settings: WebSettings,
    pem: Option<Pem>,
}

impl Files {
    fn read(file: &Path) -> Result<Self, Error> {
        let text = read_text(file)?;
        let settings = WebSettings::parse(file, &text)?;
        let pem = settings.tls.as_ref().map(Pem::read).transpose()?;
        Ok(Self { text, settings, pem })
    }

    fn digest(&self) -> [u8; 32] {
        let pem = self.pem.iter().flat_map(Pem::parts);
        let mut context = digest::Context::new(&digest::SHA256);
        for part in std::iter::once(self.text.as_str()).chain(pem) {
            context.update(&part.len().to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut digest = [0; 32];
        for (byte, computed) in digest.iter_mut().zip(context.finish().as_ref()) {
            *byte = *computed;
        }
        digest
    }
}

impl ActiveConfig {
    fn prepare(files: &Files, slots: CheckSlots) -> Result<Self, Error> {
        let settings = &files.settings;
        let tls = match (&settings.tls, &files.pem) {
            (Some(tls), Some(pem)) => Some(Arc::new(tls::server_config(tls, pem)?)),
            _ => None,
        };
        let has = |protection: fn(&Tls) -> bool| settings.tls.as_ref().is_some_and(protection);
        let verifies_clients = has(|tls| tls.client_auth.verifies_all());
        Ok(Self {
            tls: tls.map(TlsAcceptor::from),
            verifies_clients,
            protections: [
                ("tls_server_config", settings.tls.is_some()),
                (
                    "a mandatory client_auth_type",
                    has(|tls| tls.client_auth.is_mandatory()),
                ),
                ("the verification of client certificates", verifies_clients),
                ("client_allowed_sans", has(|tls| !tls.client_names.is_empty())),
                ("basic_auth_users", !settings.users.is_empty()),
            ],
            users: Users::new(&settings.users, slots)?,
            headers: settings.headers.clone(),
            digest: files.digest(),
        })
    }

    /// Returns a protection that this configuration has and `other` lacks, if any.
    fn protection_missing_in(&self, other: &Self) -> Option<&'static str> {
        let mut pairs = self.protections.iter().zip(&other.protections);
        let lost = pairs.find(|((_, before), (_, after))| *before && !after);
        lost.map(|((name, _), _)| *name)
    }
}

#[cfg(test)]
mod tests;
