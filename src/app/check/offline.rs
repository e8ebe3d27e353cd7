//! `check --offline`: checks a configuration without sending a request.

use std::path::Path;
use std::sync::Arc;

use super::CheckObserver;
use super::hosts::expiry_finding;
use super::patterns::{exclusions_without_match, patterns_without_match};
use super::report::{Finding, Outcome, Report};
use crate::api::Observer;
use crate::app::Error;
use crate::app::client::{ClientSource, authorities};
use crate::app::reload::read_attributes;
use crate::app::saver::check_state_file;
use crate::config::{Config, Credential};
use crate::domain::{KnownNames, counted};
use crate::http::web_config::Guard;

/// Checks the files, patterns and credentials of a configuration. Loading has already checked its keys and values.
/// Sends nothing, not even a DNS query.
///
/// # Errors
/// Returns an error if a file cannot be used.
pub fn check_offline(config: &Config, file: Option<&Path>, web_config: Option<&Path>) -> Result<Report, Error> {
    let mut found = Vec::new();
    let mut valid = |name: &str, detail: String| found.push(Finding::new(name, Outcome::Ok, "valid", detail));
    let path = |path: &Path| path.display().to_string();
    valid("configuration", file.map_or_else(|| "environment".to_owned(), path));

    // Creating the client reads the credential and `api.ca_file`. The client sends nothing until a token is requested.
    let source = ClientSource::new(config)?;
    let client = source.client(Arc::new(CheckObserver::default()) as Arc<dyn Observer>, None)?;
    let (key, detail) = match &config.auth.credential {
        Credential::Secret(_) => ("auth.client_secret", String::new()),
        Credential::SecretFile(file) => ("auth.client_secret_file", path(file)),
        Credential::Certificate { file, .. } => ("auth.certificate_file", path(file)),
    };
    valid(key, detail);
    if let Some(file) = &config.api.ca_file {
        let certificates = counted(authorities(Some(file))?.len(), "certificate", "certificates");
        valid("api.ca_file", format!("{}, {certificates}", path(file)));
    }
    let attributes = read_attributes(config.attributes_file.as_deref())?;
    if let (Some(file), Some(table)) = (&config.attributes_file, &attributes) {
        let rows = counted(table.len(), "row with attributes", "rows with attributes");
        valid("customers.attributes_file", format!("{}, {rows}", path(file)));
    }
    if let Some(file) = &config.state_file {
        check_state_file(config)?;
        let has_directory = file
            .parent()
            .is_some_and(|parent| parent.as_os_str().is_empty() || parent.is_dir());
        let missing = if has_directory {
            ""
        } else {
            "; its directory does not exist yet"
        };
        valid("state.file", format!("{}{missing}", path(file)));
    }
    if let Some(file) = web_config {
        Guard::load(file)?;
        valid("--web.config.file", path(file));
    }
    let of_certificate = client.transport().tokens().credential_expiry();
    for (key, end) in [
        ("auth.certificate_file", of_certificate),
        ("auth.client_secret_expires", config.auth.secret_expires),
    ] {
        if let Some(end) = end {
            let (outcome, result, detail) = expiry_finding(end);
            found.push(Finding::new(key, outcome, result, detail));
        }
    }

    let mut names = KnownNames::default();
    names.add_reference();
    if let Some(table) = &attributes {
        names.add_attributes(table);
    }
    let patterns = patterns_without_match(&names, config).filter(|(unmatched, _)| !unmatched.is_customer());
    let mut report = Report {
        api: config.api.base_url.to_string(),
        token_url: config.api.token_url.to_string(),
        is_offline: true,
        configuration: found,
        patterns: patterns
            .map(|(_, finding)| finding)
            .chain(exclusions_without_match(config))
            .collect(),
        ..Report::default()
    };
    report.conclude();
    Ok(report)
}
