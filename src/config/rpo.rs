//! The section `rpo`: how old the newest restore point of a module may be.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Names;
use super::error::Error;
use super::layers::Settings;
use super::pattern::{NumberedPattern, Pattern};
use super::setting::{LONGEST, SHORTEST, Setting};

/// The objective where nothing else is said: a backup a day, and two hours for a day's backup to take longer than yesterday's.
pub const DEFAULT_RPO: Duration = Duration::from_secs(26 * 60 * 60);

/// The word that exempts from any objective.
const EXEMPT: &str = "none";

/// The keys of an override.
const OVERRIDE_KEYS: [&str; 4] = ["customer", "service", "module", "rpo"];

/// How much unlike one of [`OVERRIDE_KEYS`] a key may be for that to be suggested, in letters; more would be half of the word.
const MOST_TYPING_ERRORS: usize = 2;

/// How old the newest restore point of a module may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rpo {
    /// The objective of modules that no override fits.
    pub default: Duration,
    /// Other objectives; the first that fits counts.
    pub overrides: Vec<Override>,
}

/// The objective of some modules. A part that is `None` fits everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The customers.
    pub customer: Option<Pattern>,
    /// The services.
    pub service: Option<NumberedPattern>,
    /// The modules.
    pub module: Option<NumberedPattern>,
    /// The objective; `None` exempts.
    pub rpo: Option<Duration>,
}

impl Rpo {
    pub(super) fn read(settings: &Settings, names: Names) -> Result<Self, Error> {
        let default = settings.read("rpo.default", objective)?;
        let items = settings.read("rpo.overrides", Setting::list)?;
        Ok(Self {
            default: default.unwrap_or(DEFAULT_RPO),
            overrides: items
                .unwrap_or_default()
                .iter()
                .map(|item| Override::read(item, names))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The objective of a module of a customer, by the vendor's current names; `None` where it is exempt.
    pub fn objective(&self, customer_id: &str, organization: &str, service: &str, module: &str) -> Option<Duration> {
        self.overrides
            .iter()
            .find(|exception| exception.fits(customer_id, organization, service, module))
            .map_or(Some(self.default), |exception| exception.rpo)
    }
}

impl Override {
    fn read(item: &Setting, names: Names) -> Result<Self, Error> {
        let entries = item.entries("{customer, service, module, rpo}")?;
        if let Some(key) = entries.keys().find(|key| !OVERRIDE_KEYS.contains(&key.as_str())) {
            return Err(item.unknown(key, suggestion(key)));
        }
        let rpo = entries
            .get("rpo")
            .ok_or_else(|| item.invalid("lacks rpo; expected a duration such as 26h, or none"))?;
        Ok(Self {
            customer: part(&entries, "customer", Pattern::read)?,
            service: part(&entries, "service", |part| NumberedPattern::service(part, names))?,
            module: part(&entries, "module", |part| NumberedPattern::module(part, names))?,
            rpo: objective_or_exempt(rpo)?,
        })
    }

    fn fits(&self, customer_id: &str, organization: &str, service: &str, module: &str) -> bool {
        let customer_fits = self
            .customer
            .as_ref()
            .is_none_or(|customer| customer.matches_customer(customer_id, organization));
        let fits = |pattern: &Option<NumberedPattern>, name: &str| {
            pattern.as_ref().is_none_or(|pattern| pattern.matches(name))
        };
        customer_fits && fits(&self.service, service) && fits(&self.module, module)
    }
}

fn part<T>(
    entries: &BTreeMap<String, Setting>,
    key: &str,
    read: impl FnOnce(&Setting) -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    entries.get(key).map(read).transpose()
}

fn objective(setting: &Setting) -> Result<Duration, Error> {
    setting.duration(SHORTEST..=LONGEST)
}

fn objective_or_exempt(setting: &Setting) -> Result<Option<Duration>, Error> {
    match setting.text() {
        Ok(text) if text.eq_ignore_ascii_case(EXEMPT) => Ok(None),
        _ => objective(setting).map(Some),
    }
}

fn suggestion(key: &str) -> Option<&'static str> {
    OVERRIDE_KEYS
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(&key.to_lowercase(), known), known))
        .filter(|(errors, _)| *errors <= MOST_TYPING_ERRORS)
        .min()
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::tests::{from_both, from_file, message};

    const CREDENTIALS: &str = "auth: {client_id: demo, client_secret: x}";

    fn hours(hours: u64) -> Option<Duration> {
        Some(Duration::from_secs(hours * 60 * 60))
    }

    #[test]
    fn the_first_override_that_fits_counts() {
        let rpo = from_file(&format!(
            "{CREDENTIALS}
rpo:
  default: 30h
  overrides:
    - {{customer: 'Contoso*', module: 303, rpo: 4h}}
    - {{customer: 'Contoso*', service: Microsoft 365, rpo: none}}
    - {{customer: c-1, rpo: 8h}}
    - {{module: 'Power *', customer: ~, rpo: 48h}}
"
        ))
        .unwrap()
        .rpo;
        let objective = |id, organization, service, module| rpo.objective(id, organization, service, module);
        let service = "Microsoft 365";
        assert_eq!(objective("x", "Contoso Ltd", service, "Exchange Online"), hours(4));
        assert_eq!(objective("x", "Contoso Ltd", service, "OneDrive"), None);
        assert_eq!(objective("C-1", "Fabrikam", service, "OneDrive"), hours(8));
        assert_eq!(objective("x", "Fabrikam", service, "Power BI"), hours(48));
        assert_eq!(objective("x", "Fabrikam", service, "OneDrive"), hours(30));
    }

    #[test]
    fn overrides_from_the_environment() {
        let read = |text: &str| from_both(CREDENTIALS, &[("ELEMENTS_RPO__OVERRIDES", text)]);
        let json = r#"[{"customer": "Contoso, Ltd", "module": "Exchange*", "rpo": "4h"},
{"service":"Salesforce","rpo":"none"}]"#;
        let rpo = read(json).unwrap().rpo;
        assert_eq!(
            rpo.objective("x", "Contoso, Ltd", "Microsoft 365", "Exchange Online"),
            hours(4)
        );
        assert_eq!(rpo.objective("x", "Contoso, Ltd", "Salesforce", "None"), None);
        assert_eq!(read("[{module: 303, rpo: 1h}]").unwrap().rpo.overrides.len(), 1);
        assert_eq!(
            message(read("4h")),
            "ELEMENTS_RPO__OVERRIDES: rpo.overrides[0]: \"4h\" is not a mapping; expected {customer, service, module, rpo}"
        );
    }

    #[test]
    fn refuses_what_is_no_override() {
        for (overrides, problem) in [
            (
                "[{rpo: 1h}, {rpo: 2h}, {modul: x, rpo: 1h}]",
                "unknown key \"rpo.overrides[2].modul\"; did you mean \"module\"?",
            ),
            ("[{tenant: x, rpo: 1h}]", "unknown key \"rpo.overrides[0].tenant\""),
            (
                "[{module: x}]",
                "rpo.overrides[0]: a mapping lacks rpo; expected a duration such as 26h, or none",
            ),
            (
                "[{rpo: soon}]",
                "rpo.overrides[0].rpo: \"soon\" is not a duration; expected something like 30s or 5m",
            ),
            (
                "[{rpo: 0s}]",
                "rpo.overrides[0].rpo: \"0s\" is out of range; expected a duration from 1s to 100years",
            ),
            (
                "[{customer: 12, rpo: 1h}]",
                "rpo.overrides[0].customer: 12 is not text; put it in quotes",
            ),
            (
                "[none]",
                "rpo.overrides[0]: \"none\" is not a mapping; expected {customer, service, module, rpo}",
            ),
            (
                "none",
                "rpo.overrides[0]: \"none\" is not a mapping; expected {customer, service, module, rpo}",
            ),
            ("{}", "rpo.overrides: a mapping is not a list; expected [one, other]"),
        ] {
            assert_eq!(
                message(from_file(&format!("rpo: {{overrides: {overrides}}}"))),
                format!("elements.yml: {problem}")
            );
        }
    }

    #[test]
    fn nobody_is_exempt_by_default() {
        assert_eq!(
            message(from_file("rpo: {default: none}")),
            "elements.yml: rpo.default: \"none\" is not a duration; expected something like 30s or 5m"
        );
    }
}
