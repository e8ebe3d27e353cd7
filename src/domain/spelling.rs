//! Suggestions for unknown names.

/// Minimum similarity of two names, from 0 to 1, to suggest one for the other. With a lower value, suggestions are
/// often unrelated.
const LIKENESS: f64 = 0.6;

/// Returns the known name that is most similar, ignoring case.
pub(crate) fn nearest<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase();
    let likeness = |name: &str| strsim::normalized_damerau_levenshtein(&written, &name.to_lowercase());
    most_alike(known.map(|name| (likeness(name), name)))
}

/// Returns the known name that is most similar to a glob without its `*`. For a glob that ends in `*`, beginnings of
/// names are compared too.
pub(crate) fn nearest_glob<'a>(pattern: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let text = pattern.replace('*', "").to_lowercase();
    let length = text.chars().count();
    let likeness = |name: &str| {
        let name = name.to_lowercase();
        let whole = strsim::normalized_damerau_levenshtein(&text, &name);
        if !pattern.ends_with('*') {
            return whole;
        }
        let beginning: String = name.chars().take(length).collect();
        whole.max(strsim::normalized_damerau_levenshtein(&text, &beginning))
    };
    most_alike(known.map(|name| (likeness(name), name)))
}

fn most_alike<'a>(known: impl Iterator<Item = (f64, &'a str)>) -> Option<&'a str> {
    known
        .filter(|(likeness, _)| *likeness >= LIKENESS)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, name)| name)
}
