//! Formats errors with their sources. The message of an error does not repeat the messages of its sources.

use std::error::Error;

/// Formats an error and its sources as one line.
pub fn error_chain(error: &dyn Error) -> String {
    let causes = sources(error).map(|cause| format!(": {cause}"));
    std::iter::once(error.to_string()).chain(causes).collect()
}

/// Returns the sources of an error, nearest first.
pub fn sources<'e>(error: &'e (dyn Error + 'e)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}
