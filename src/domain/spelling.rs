//! Suggestions for unknown names.

/// Minimum similarity of a suggested name, from 0 to 1. With a lower value, suggestions would often be unrelated.
const MIN_SIMILARITY: f64 = 0.6;

/// Returns the known name that is most similar to `written`, ignoring case; `None` if none is similar enough.
pub(crate) fn nearest<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase();
    let similarity = |name: &str| strsim::normalized_damerau_levenshtein(&written, &name.to_lowercase());
    most_similar(known.map(|name| (similarity(name), name)))
}

/// Returns the known name that is most similar to a glob without its `*`; `None` if none is similar enough. A glob that
/// ends in `*` is also compared with the beginnings of names.
pub(crate) fn nearest_glob<'a>(pattern: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let text = pattern.replace('*', "").to_lowercase();
    let length = text.chars().count();
    let similarity = |name: &str| {
        let name = name.to_lowercase();
        let whole = strsim::normalized_damerau_levenshtein(&text, &name);
        if !pattern.ends_with('*') {
            return whole;
        }
        let beginning: String = name.chars().take(length).collect();
        whole.max(strsim::normalized_damerau_levenshtein(&text, &beginning))
    };
    most_similar(known.map(|name| (similarity(name), name)))
}

fn most_similar<'a>(known: impl Iterator<Item = (f64, &'a str)>) -> Option<&'a str> {
    known
        .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, name)| name)
}
