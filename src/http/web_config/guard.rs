//! Active web configuration, reloaded when files change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

use super::settings::Settings;
use super::tls::{self, Pem};
use super::users::{Places, Users, Verdict};
use super::{Error, read};
use crate::error_chain::error_chain;
use crate::http::caller::Caller;

/// Minimum time between checks of the files, which connections and requests trigger. Long enough to cost nothing under
/// load, short enough for a new certificate.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Challenge of a password prompt, with the encoding of the answer.
const CHALLENGE: &str = "Basic realm=\"elements_exporter\", charset=\"UTF-8\"";

/// Wraps all routes and, with TLS, the handshake.
pub struct Guard {
    file: PathBuf,
    places: Places,
    state: Mutex<Shown>,
    /// Time of the last check, locked so that one request checks while the others continue.
    looked: tokio::sync::Mutex<Instant>,
}

struct Shown {
    in_force: Arc<InForce>,
    /// Last error, to log it once.
    complaint: Option<String>,
}

/// One web configuration, ready to use.
pub(in crate::http) struct InForce {
    pub(in crate::http) tls: Option<TlsAcceptor>,
    needs_client_certificate: bool,
    /// Whether clients have a verified certificate.
    pub(in crate::http) verifies_clients: bool,
    users: Users,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Digest of all files.
    digest: [u8; 32],
}

impl Guard {
    /// Reads a web configuration and the files that it names.
    ///
    /// # Errors
    /// If one of them is invalid.
    pub fn load(file: &Path) -> Result<Arc<Self>, Error> {
        let places = Places::new();
        let in_force = Arc::new(InForce::prepare(&Read::new(file)?, places.clone())?);
        Ok(Arc::new(Self {
            file: file.to_owned(),
            places,
            state: Mutex::new(Shown {
                in_force,
                complaint: None,
            }),
            looked: tokio::sync::Mutex::new(Instant::now()),
        }))
    }

    /// Whether TLS is served.
    pub fn serves_tls(&self) -> bool {
        self.state().in_force.tls.is_some()
    }

    /// Returns the active configuration, after checking the files if a check is due.
    pub(in crate::http) async fn current(self: &Arc<Self>) -> Arc<InForce> {
        if let Ok(mut looked) = self.looked.try_lock()
            && looked.elapsed() >= LOOK_INTERVAL
        {
            let guard = Arc::clone(self);
            // A panic keeps the active configuration.
            let _ = tokio::task::spawn_blocking(move || guard.look()).await;
            *looked = Instant::now();
        }
        Arc::clone(&self.state().in_force)
    }

    /// Activates the files if they changed and are valid.
    fn look(&self) {
        let in_force = Arc::clone(&self.state().in_force);
        match self.changed(&in_force) {
            Ok(None) => self.state().complaint = None,
            Ok(Some(newer)) => {
                *self.state() = Shown {
                    in_force: Arc::new(newer),
                    complaint: None,
                };
                info!(file = %self.file.display(), "web configuration reloaded");
            }
            Err(problem) => {
                let complaint = error_chain(&problem);
                let mut state = self.state();
                if state.complaint.as_ref() != Some(&complaint) {
                    warn!(
                        error = complaint,
                        "web configuration reload failed; keeping the previous one"
                    );
                    state.complaint = Some(complaint);
                }
            }
        }
    }

    fn changed(&self, in_force: &InForce) -> Result<Option<InForce>, Error> {
        let read = Read::new(&self.file)?;
        if read.digest() == in_force.digest {
            return Ok(None);
        }
        let newer = InForce::prepare(&read, self.places.clone())?;
        match in_force.protects_more_than(&newer) {
            Some(key) => Err(Error::Weaker {
                path: self.file.clone(),
                key,
            }),
            None => Ok(Some(newer)),
        }
    }

    fn state(&self) -> MutexGuard<'_, Shown> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wraps all routes and the fallback in a guard.
pub(in crate::http) fn guarded(routes: Router, guard: Arc<Guard>) -> Router {
    routes.layer(from_fn_with_state(guard, protect))
}

async fn protect(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let in_force = guard.current().await;
    let mut response = match in_force.users.verdict(request.headers()).await {
        Verdict::Admitted => {
            if !in_force.users.is_empty()
                && let Some(caller) = request.extensions_mut().get_mut::<Caller>()
            {
                caller.note_password();
            }
            next.run(request).await
        }
        Verdict::Refused => (
            StatusCode::UNAUTHORIZED,
            [(WWW_AUTHENTICATE, CHALLENGE)],
            "Unauthorized\n",
        )
            .into_response(),
        Verdict::Busy => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many passwords are being checked.\n",
        )
            .into_response(),
    };
    for (name, value) in &in_force.headers {
        // A header set by the page takes precedence, as in the toolkit.
        response.headers_mut().entry(name).or_insert_with(|| value.clone());
    }
    response
}

/// The files at one moment.
struct Read {
    text: String,
    settings: Settings,
    pem: Option<Pem>,
}

impl Read {
    fn new(file: &Path) -> Result<Self, Error> {
        let text = read(file)?;
        let settings = Settings::parse(file, &text)?;
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
        for (byte, made) in digest.iter_mut().zip(context.finish().as_ref()) {
            *byte = *made;
        }
        digest
    }
}

impl InForce {
    fn prepare(read: &Read, places: Places) -> Result<Self, Error> {
        let settings = &read.settings;
        let tls = match (&settings.tls, &read.pem) {
            (Some(tls), Some(pem)) => Some(Arc::new(tls::server_config(tls, pem)?)),
            _ => None,
        };
        Ok(Self {
            tls: tls.map(TlsAcceptor::from),
            verifies_clients: settings.tls.as_ref().is_some_and(|tls| tls.client_auth.identifies()),
            needs_client_certificate: settings.tls.as_ref().is_some_and(|tls| tls.client_auth.is_mandatory()),
            users: Users::new(&settings.users, places)?,
            headers: settings.headers.clone(),
            digest: read.digest(),
        })
    }

    /// Returns the protection that `other` lacks.
    fn protects_more_than(&self, other: &Self) -> Option<&'static str> {
        let lost = |mine: bool, theirs: bool| mine && !theirs;
        if lost(self.tls.is_some(), other.tls.is_some()) {
            Some("tls_server_config")
        } else if lost(self.needs_client_certificate, other.needs_client_certificate) {
            Some("a mandatory client_auth_type")
        } else if lost(!self.users.is_empty(), !other.users.is_empty()) {
            Some("basic_auth_users")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;
