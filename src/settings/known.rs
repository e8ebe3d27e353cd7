//! Rejects unknown keys in a mapping, and suggests the intended key.

use ::config::ValueKind;

use super::{Error, Field};
use crate::domain::nearest;

/// Returns an error for the first key below `root` that is not in `known`, a list of dotted paths. A path with known
/// keys below it is a section, and must be a mapping or null. Values below a known key are not checked.
pub(crate) fn reject_unknown_keys(root: &Field<'_>, known: &[&str]) -> Result<(), Error> {
    KnownKeys(known).check(root, "")
}

/// Returns the known key that was probably intended. If the section was omitted, this is the key that ends in the
/// written key; otherwise, it is the most similar key.
pub(crate) fn nearest_key<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    key_ending_in(&written.to_lowercase(), known).or_else(|| nearest(written, known.iter().copied()))
}

fn key_ending_in<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    let is_end = |key: &&str| key.strip_suffix(written).is_some_and(|section| section.ends_with('.'));
    known.iter().copied().find(is_end)
}

struct KnownKeys<'k>(&'k [&'k str]);

impl<'k> KnownKeys<'k> {
    fn check(&self, field: &Field<'_>, path: &str) -> Result<(), Error> {
        if self.0.contains(&path) {
            return Ok(());
        }
        let is_section = !self.names_in(path).is_empty();
        match field.kind() {
            ValueKind::Nil if is_section => Ok(()),
            // The keys in an unknown section reveal the intended section better than the written name does.
            ValueKind::Table(entries) if is_section || (!entries.is_empty() && !self.resembles_key(path)) => {
                field.entries()?.into_iter().try_for_each(|(name, entry)| {
                    if name.contains('.') {
                        return Err(self.unknown(&entry, &join(path, name)));
                    }
                    self.check(&entry, &join(path, name))
                })
            }
            _ if is_section => {
                let expected = self.names_in(path).join(", ");
                Err(field.error(format!(
                    "must be a mapping, not {}; expected {expected}",
                    field.kind_name()
                )))
            }
            _ => Err(self.unknown(field, path)),
        }
    }

    /// Returns whether the suggestion for an unknown path is a key, rather than a section.
    fn resembles_key(&self, path: &str) -> bool {
        self.suggest(path).is_some_and(|key| self.0.contains(&key.as_str()))
    }

    fn unknown(&self, field: &Field<'_>, path: &str) -> Error {
        let hint = match (self.dotted(path), self.suggest(path)) {
            (Some(nested_form), _) => format!("did you mean {nested_form}?"),
            (_, Some(key)) => format!("did you mean \"{key}\"?"),
            _ => format!("expected {}", self.names_in_nearest_section(path).join(", ")),
        };
        Error::Document {
            location: field.location().to_owned(),
            problem: format!("unknown key \"{}\"; {hint}", field.key()),
        }
    }

    /// Returns the nested form of a known key that was written with dots.
    fn dotted(&self, path: &str) -> Option<String> {
        let (section, name) = path.rsplit_once('.')?;
        let sections = section.replace('.', ": ");
        self.0
            .contains(&path)
            .then(|| format!("\"{name}:\" under \"{sections}:\""))
    }

    fn suggest(&self, path: &str) -> Option<String> {
        let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
        let siblings = self.names_in(section);
        if siblings.is_empty() {
            let all: Vec<&str> = self.0.iter().copied().chain(self.sections()).collect();
            return nearest_key(path, &all).map(str::to_owned);
        }
        let name = name.to_lowercase();
        let end = format!("_{name}");
        let sibling = nearest(&name, siblings.iter().copied());
        let sibling = sibling.or_else(|| siblings.into_iter().find(|sibling| sibling.ends_with(&end)));
        let in_other_section = || key_ending_in(&name, self.0).map(str::to_owned);
        sibling.map(|sibling| join(section, sibling)).or_else(in_other_section)
    }

    fn sections(&self) -> impl Iterator<Item = &'k str> {
        let sections = |key: &'k str| key.match_indices('.').filter_map(move |(end, _)| key.get(..end));
        self.0.iter().flat_map(move |key| sections(key))
    }

    /// Returns the names allowed in a section; none if there is no such section.
    fn names_in(&self, section: &str) -> Vec<&'k str> {
        let mut names: Vec<&str> = Vec::new();
        for key in self.0 {
            let below = match section {
                "" => Some(*key),
                _ => key.strip_prefix(section).and_then(|rest| rest.strip_prefix('.')),
            };
            let name = below.and_then(|rest| rest.split('.').next());
            names.extend(name.filter(|name| !names.contains(name)));
        }
        names
    }

    /// Returns the names allowed in the nearest known section that encloses a key.
    fn names_in_nearest_section(&self, path: &str) -> Vec<&'k str> {
        let (section, _) = path.rsplit_once('.').unwrap_or_default();
        let names = self.names_in(section);
        match names.is_empty() && !section.is_empty() {
            true => self.names_in_nearest_section(section),
            false => names,
        }
    }
}

fn join(section: &str, name: &str) -> String {
    match section {
        "" => name.to_owned(),
        _ => format!("{section}.{name}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::settings::parse;

    const KNOWN: &[&str] = &[
        "api.timeout",
        "auth.client_id",
        "auth.client_secret",
        "jobs.each.interval",
        "jobs.each.stale_after",
        "users",
    ];

    fn rejected(yaml: &str) -> String {
        let document = parse(Path::new("a.yml"), yaml).unwrap();
        reject_unknown_keys(&Field::root(&document), KNOWN)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn known_keys_are_accepted() {
        let yaml = "api:\nauth: {}\njobs: {each: {interval: [x]}}\nusers: {any: thing, a.b: c}";
        let document = parse(Path::new("a.yml"), yaml).unwrap();
        assert!(reject_unknown_keys(&Field::root(&document), KNOWN).is_ok());
    }

    #[test]
    fn unknown_key_gets_a_suggestion_or_the_valid_keys() {
        for (yaml, hint) in [
            ("job: {each: }", "key \"job.each\"; did you mean \"jobs.each\"?"),
            ("api: {timout: 1}", "key \"api.timout\"; did you mean \"api.timeout\"?"),
            (
                "API: {Timeout: 1}",
                "key \"API.Timeout\"; did you mean \"api.timeout\"?",
            ),
            ("client_id: x", "key \"client_id\"; did you mean \"auth.client_id\"?"),
            (
                "auth: {secret: x}",
                "key \"auth.secret\"; did you mean \"auth.client_secret\"?",
            ),
            (
                "jobs: {each: {every: x}}",
                "key \"jobs.each.every\"; expected interval, stale_after",
            ),
            ("zzz: {y: }", "key \"zzz.y\"; expected api, auth, jobs, users"),
            (
                "api.timeout: 1",
                "key \"api.timeout\"; did you mean \"timeout:\" under \"api:\"?",
            ),
        ] {
            assert_eq!(rejected(yaml), format!("a.yml:1: unknown {hint}"));
        }
    }

    #[test]
    fn section_must_be_a_mapping() {
        assert_eq!(
            rejected("\nauth: hunter2"),
            "a.yml:2: auth: must be a mapping, not text; expected client_id, client_secret"
        );
        assert_eq!(
            rejected("[hunter2]"),
            "a.yml:1: must be a mapping, not a list; expected api, auth, jobs, users"
        );
    }
}
