//! The section `rpo`: maximum age of a module's latest restore point.

use std::sync::Arc;
use std::time::Duration;

use super::OVERRIDE_KEYS;
use super::layers::Layers;
use crate::domain::{Attributes, Objective, Objectives, Override, Timestamp, is_misleading};
use crate::settings::{Error, Field, MAX_DURATION, MIN_DURATION, reject_unknown_keys};

/// The value that exempts modules from objectives.
const EXEMPT: &str = "none";

/// Maximum length of a reason, in characters. A reason is exposed as a label and shown in a table.
const MAX_REASON_CHARS: usize = 200;

pub(super) fn read_objectives(layers: &Layers) -> Result<Objectives, Error> {
    let items = layers.read_optional("rpo.overrides", Field::items)?.unwrap_or_default();
    Ok(Objectives {
        default: layers.read_required("rpo.default", read_objective)?,
        overrides: items.iter().map(read_override).collect::<Result<_, _>>()?,
        abandoned_after: layers.read_required("rpo.abandoned_after", read_objective)?,
    })
}

fn read_override(item: &Field<'_>) -> Result<Override, Error> {
    reject_unknown_keys(item, &OVERRIDE_KEYS.iter().map(|key| key.path).collect::<Vec<_>>())?;
    let rpo = item
        .read("rpo", read_objective_or_exempt)?
        .ok_or_else(|| item.error("lacks rpo; expected a duration such as 26h, or the word none"))?;
    Ok(Override {
        customer: item.read("customer", Field::pattern)?,
        attributes: Attributes::NAMES.try_map(|name| item.read(name, Field::pattern))?,
        service: item.read("service", Field::service_pattern)?,
        module: item.read("module", Field::module_pattern)?,
        scope: item.read("scope", Field::pattern)?,
        objective: Objective {
            rpo,
            until: item.read("until", Field::end_date)?.map(Timestamp::from_unix_seconds),
            reason: item.read("reason", read_reason)?,
        },
    })
}

fn read_reason(field: &Field<'_>) -> Result<Arc<str>, Error> {
    let text = field.text()?;
    if text.chars().nth(MAX_REASON_CHARS).is_some() {
        return Err(field.invalid(format!("is too long; expected at most {MAX_REASON_CHARS} characters")));
    }
    if text.contains(is_misleading) {
        return Err(field.invalid("contains a control character; expected one line of text"));
    }
    Ok(text.into())
}

fn read_objective(field: &Field<'_>) -> Result<Duration, Error> {
    field.duration(MIN_DURATION..=MAX_DURATION)
}

fn read_objective_or_exempt(field: &Field<'_>) -> Result<Option<Duration>, Error> {
    match field.text() {
        Ok(text) if text.eq_ignore_ascii_case(EXEMPT) => Ok(None),
        _ => read_objective(field).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{CREDENTIALS, config_with, from_both, from_file, message};
    use crate::domain::ModuleName;

    fn name<'a>(customer_id: &'a str, organization: &'a str, service: &'a str, module: &'a str) -> ModuleName<'a> {
        ModuleName {
            customer_id,
            organization,
            service,
            module,
            scope: None,
            attributes: None,
        }
    }

    /// Returns the objective at the epoch.
    fn objective_of(rpo: &Objectives, name: &ModuleName<'_>) -> Option<Duration> {
        rpo.of(name, Timestamp::from_unix_seconds(0)).rpo
    }

    fn hours(hours: u64) -> Option<Duration> {
        Some(Duration::from_secs(hours * 60 * 60))
    }

    #[test]
    fn first_matching_override_applies() {
        let rpo = config_with(
            "
rpo:
  default: 30h
  overrides:
    - {customer: 'Contoso*', module: 303, rpo: 4h}
    - {customer: 'Contoso*', service: Microsoft 365, rpo: none}
    - {customer: c-1, rpo: 8h}
    - {module: 'Power *', customer: ~, rpo: 48h}
",
        )
        .rpo;
        let objective =
            |id, organization, service, module| objective_of(&rpo, &name(id, organization, service, module));
        let service = "Microsoft 365";
        assert_eq!(objective("x", "Contoso Ltd", service, "Exchange Online"), hours(4));
        assert_eq!(objective("x", "Contoso Ltd", service, "OneDrive"), None);
        assert_eq!(objective("C-1", "Fabrikam", service, "OneDrive"), hours(8));
        assert_eq!(objective("x", "Fabrikam", service, "Power BI"), hours(48));
        assert_eq!(objective("x", "Fabrikam", service, "OneDrive"), hours(30));
    }

    #[test]
    fn overrides_are_loaded_from_the_environment() {
        let read = |text: &str| from_both(CREDENTIALS, &[("ELEMENTS_RPO__OVERRIDES", text)]);
        let json = r#"[{"customer": "Contoso, Ltd", "module": "Exchange*", "rpo": "4h"},
{"service":"Salesforce","rpo":"none"}]"#;
        let rpo = read(json).unwrap().rpo;
        assert_eq!(
            objective_of(&rpo, &name("x", "Contoso, Ltd", "Microsoft 365", "Exchange Online")),
            hours(4)
        );
        assert_eq!(
            objective_of(&rpo, &name("x", "Contoso, Ltd", "Salesforce", "None")),
            None
        );
        assert_eq!(read("[{module: 303, rpo: 1h}]").unwrap().rpo.overrides.len(), 1);
        assert_eq!(
            message(read("4h")),
            "ELEMENTS_RPO__OVERRIDES: rpo.overrides[0]: must be a mapping, not text; expected customer, tier, region, team, service, module, scope, rpo, until, reason"
        );
    }

    #[test]
    fn invalid_overrides_are_rejected() {
        for (overrides, problem) in [
            (
                "[{rpo: 1h}, {rpo: 2h}, {modul: x, rpo: 1h}]",
                "unknown key \"rpo.overrides[2].modul\"; did you mean \"module\"?",
            ),
            (
                "[{tenant: x, rpo: 1h}]",
                "unknown key \"rpo.overrides[0].tenant\"; expected customer, tier, region, team, service, module, scope, rpo, until, reason",
            ),
            (
                "[{module: x}]",
                "rpo.overrides[0]: lacks rpo; expected a duration such as 26h, or the word none",
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
                "[{customer: [12], rpo: 1h}]",
                "rpo.overrides[0].customer: must be text, not a list; expected one value",
            ),
            (
                "[{rpo: none, until: soon}]",
                "rpo.overrides[0].until: \"soon\" is not a date; expected the last day, such as 2027-01-31, or a time, such as 2027-01-31T12:00:00Z",
            ),
            (
                "[{rpo: none, reason: \"a\\tb\"}]",
                "rpo.overrides[0].reason: \"a\\tb\" contains a control character; expected one line of text",
            ),
            (
                "[none]",
                "rpo.overrides[0]: must be a mapping, not text; expected customer, tier, region, team, service, module, scope, rpo, until, reason",
            ),
            (
                "none",
                "rpo.overrides[0]: must be a mapping, not text; expected customer, tier, region, team, service, module, scope, rpo, until, reason",
            ),
            (
                "{}",
                "rpo.overrides: a mapping is not allowed here; expected a list of `{customer, tier, region, team, service, module, scope, rpo, until, reason}`",
            ),
        ] {
            assert_eq!(
                message(from_file(&format!("rpo: {{overrides: {overrides}}}"))),
                format!("elements.yml:1: {problem}")
            );
        }
    }

    #[test]
    fn overrides_match_scopes_and_abandoned_after_is_set() {
        let rpo = config_with("rpo: {abandoned_after: 30days, overrides: [{scope: 'Test *', rpo: none}]}").rpo;
        assert_eq!(rpo.abandoned_after, Duration::from_secs(30 * 86_400));
        let of_scope = |scope| ModuleName {
            scope: Some(scope),
            ..name("x", "Contoso", "IaaS + PaaS", "Dev Ops")
        };
        assert_eq!(objective_of(&rpo, &of_scope("test one")), None);
        assert_eq!(objective_of(&rpo, &of_scope("Production")), hours(26));
    }

    #[test]
    fn default_does_not_exempt_modules() {
        assert_eq!(
            message(from_file("rpo: {default: none}")),
            "elements.yml:1: rpo.default: \"none\" is not a duration; expected something like 30s or 5m"
        );
    }

    #[test]
    fn override_applies_through_its_last_day_in_utc() {
        let rpo = config_with(
            "
rpo:
  overrides:
    - {customer: c-1, rpo: none, until: 1970-01-02, reason: ' Let go, ticket 7 '}
    - {tier: gold, region: 'em*', team: a, rpo: 4h, until: '1970-01-01T02:00:00+01:00'}
",
        )
        .rpo;
        let at = Timestamp::from_unix_seconds;
        let [first, second] = &rpo.overrides[..] else { panic!() };
        assert_eq!(first.objective.until, Some(at(2 * 86_400)));
        assert_eq!(first.objective.reason.as_deref(), Some("Let go, ticket 7"));
        assert!(first.is_in_force(at(2 * 86_400 - 1)) && !first.is_in_force(at(2 * 86_400)));
        assert_eq!(second.objective.until, Some(at(3600)));
        assert!(second.attributes.iter().all(Option::is_some));
    }
}
