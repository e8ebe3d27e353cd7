//! What was probably meant by a key that does not exist.

/// How alike two keys must be, of 1, for the one to be suggested for the other. Below this, suggestions name keys that have
/// nothing to do with what was meant.
const LIKENESS: f64 = 0.6;

/// The known path that ends in what was written, as when a section was forgotten, else the one most like it.
pub(crate) fn nearest<'a>(written: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let written = written.to_lowercase();
    let forgotten_section = known.clone().find(|path| {
        path.strip_suffix(written.as_str())
            .is_some_and(|section| section.ends_with('.'))
    });
    forgotten_section.or_else(|| {
        known
            .map(|path| (strsim::normalized_damerau_levenshtein(&written, path), path))
            .filter(|(likeness, _)| *likeness >= LIKENESS)
            .max_by(|(one, _), (other, _)| one.total_cmp(other))
            .map(|(_, path)| path)
    })
}
