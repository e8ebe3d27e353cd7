//! The names of services, modules and container object types: one thing, one name, whichever answer it came from.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::OnceLock;

use super::{count, present};

/// Longest name that is taken over from an answer, in characters. The longest of the reference has 34.
const MAX_NAME_CHARS: usize = 128;

/// A name that is fit for a label, and whether it is in the reference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Named {
    /// The vendor's current name; `unknown_<n>` for a number that is not listed; else the word that came, bounded.
    pub name: Cow<'static, str>,
    /// Whether the reference lists it.
    pub known: bool,
}

/// Reads a service (`jobType`, `serviceType`, `service`): a number, or a name in any of its spellings.
/// `None` where there is none.
pub fn service(text: &str) -> Option<Named> {
    SERVICES.read(text)
}

/// Reads a module (`jobModule`, `serviceModule`): a number, or a name in any of its spellings.
/// `None` where there is none.
pub fn module(text: &str) -> Option<Named> {
    MODULES.read(text)
}

/// Reads the object type of a container: a number, or a name in any of its spellings. `None` where there is none.
pub fn object_type(text: &str) -> Option<Named> {
    OBJECT_TYPES.read(text)
}

/// The number of a service, from its name or itself; a number need not be listed.
pub fn service_number(text: &str) -> Option<u16> {
    SERVICES.number(text)
}

/// The number of a module, from its name or itself; a number need not be listed.
pub fn module_number(text: &str) -> Option<u16> {
    MODULES.number(text)
}

/// The word for a service in a path of the first generation, whose list of supported ones is shorter.
pub fn first_generation_service(number: u16) -> Option<&'static str> {
    match number {
        7 => Some("Microsoft 365"),
        11 => Some("Google Workspace"),
        12 => Some("IaaS PaaS"),
        15 => Some("Salesforce"),
        16 => Some("Dynamics 365"),
        _ => None,
    }
}

/// The service that a module belongs to, where the numbering of the reference leaves no doubt.
pub fn service_of_module(number: u16) -> Option<u16> {
    match number {
        302..=312 | 402 => Some(7),
        501..=508 => Some(11),
        355..=371 => Some(12),
        401 | 550 | 551 => Some(16),
        _ => None,
    }
}

/// The word for a module in a path of the first generation: its name, unless it is none.
pub fn first_generation_module(number: u16) -> Option<&'static str> {
    (number != 0).then(|| MODULES.name(number)).flatten()
}

/// "Job type" of the reference. The prefix that subscriptions carry is cut off before the look-up.
static SERVICES: Table = Table::new(
    &[
        (0, "Microsoft 365 Scan"),
        (7, "Microsoft 365"),
        (10, "Google Workspace Scan"),
        (11, "Google Workspace"),
        (12, "IaaS + PaaS"),
        (15, "Salesforce"),
        (16, "Dynamics 365"),
    ],
    &[(0, "Office 365 Scan"), (7, "Office 365")],
    "Cloud Backup for",
);

/// "Job module" of the reference.
static MODULES: Table = Table::new(
    &[
        (0, "None"),
        (8, "Archiver"),
        (10, "Retention"),
        (302, "SharePoint Online"),
        (303, "Exchange Online"),
        (304, "Microsoft 365 Groups"),
        (305, "OneDrive"),
        (306, "Project Online"),
        (307, "Exchange Online Public Folder"),
        (308, "Microsoft Teams"),
        (309, "Teams Chat"),
        (310, "Power BI"),
        (311, "Power Automate"),
        (312, "Power Apps"),
        (355, "Cloud Backup for Azure"),
        (356, "Azure Virtual Machine"),
        (357, "Disk"),
        (358, "Microsoft Entra ID"),
        (359, "Storage"),
        (360, "Admin Portal Settings"),
        (361, "Amazon EC2"),
        (362, "Native Azure SQL Backup Monitoring"),
        (363, "Dev Ops"),
        (364, "Microsoft Entra ID B2C"),
        (365, "Azure SQL Backup"),
        (366, "Google Virtual Machine Instance"),
        (367, "Azure VMware Solution"),
        (368, "Microsoft SQL Server in Azure VM"),
        (369, "Google Cloud Storage"),
        (370, "Cosmos DB"),
        (371, "Azure PostgreSQL"),
        (401, "Dynamics 365"),
        (402, "Viva Engage"),
        (501, "Gmail"),
        (502, "Calendar"),
        (503, "Contacts"),
        (504, "Drive"),
        (505, "Shared Drives"),
        (506, "Google Classroom"),
        (507, "Chat"),
        (508, "Google Directory"),
        (550, "Dynamics CRM Backup"),
        (551, "Dynamics Unified Operations Backup"),
    ],
    &[
        (302, "SharePoint"),
        (303, "Exchange"),
        (304, "Office 365 Groups"),
        (305, "OneDrive for Business"),
        (307, "Exchange Public Folder"),
        (307, "Public Folder"),
        (308, "Teams"),
        (309, "Microsoft Teams Chat"),
        (356, "Azure VM"),
        (358, "Azure Active Directory"),
        (358, "Azure AD"),
        (358, "Entra ID"),
        (363, "Azure DevOps"),
        (364, "Azure AD B2C"),
        (364, "Entra ID B2C"),
        (402, "Yammer"),
    ],
    "",
);

/// "Container object type" of the reference.
static OBJECT_TYPES: Table = Table::new(
    &[
        (0, "Site Collection"),
        (1, "Mailbox"),
        (2, "OneDrive"),
        (5, "Microsoft 365 Group"),
        (6, "Project Online"),
        (7, "Public Folder"),
        (9, "Channel"),
        (10, "User"),
        (11, "None Unified Group"),
        (12, "Power Platform Environment"),
        (13, "Power Platform Connection"),
        (14, "Power Apps"),
        (15, "Power Automate"),
        (16, "Power BI Workspace"),
        (17, "Active Directory Mailbox"),
        (18, "Active Directory User"),
        (19, "Active Directory Group"),
        (20, "Power Platform Solution"),
        (21, "Power Copilot Studio"),
        (22, "Power Page"),
        (23, "Loop Container"),
        (24, "SharePoint Agent"),
        (25, "Azure AI Foundry Agent"),
        (100, "Google User"),
        (101, "Google Shared Drive"),
        (102, "Google Classroom"),
        (103, "Google Mailbox"),
        (104, "Google Group"),
        (105, "Google Vault Matter"),
    ],
    &[
        (1, "Exchange Mailbox"),
        (2, "OneDrive for Business"),
        (5, "Office 365 Group"),
        (7, "Exchange Public Folder"),
        (11, "Non Unified Group"),
    ],
    "",
);

type Entry = (u16, &'static str);

/// One list of the reference, and other spellings of its names that go further than [`fold`] does.
struct Table {
    names: &'static [Entry],
    synonyms: &'static [Entry],
    /// What may stand before a name.
    prefix: &'static str,
    /// Every name and synonym, folded; made when the first word is looked up.
    folded: OnceLock<HashMap<String, u16>>,
}

impl Table {
    const fn new(names: &'static [Entry], synonyms: &'static [Entry], prefix: &'static str) -> Self {
        Self {
            names,
            synonyms,
            prefix,
            folded: OnceLock::new(),
        }
    }

    fn read(&self, text: &str) -> Option<Named> {
        let text = present(text)?;
        if let Ok(Some(number)) = count(text) {
            let name = u16::try_from(number).ok().and_then(|n| self.name(n));
            return Some(Named {
                known: name.is_some(),
                name: name.map_or_else(|| format!("unknown_{number}").into(), Cow::Borrowed),
            });
        }
        let name = self.find(text).and_then(|number| self.name(number));
        let unlisted = || {
            let text = bounded(text);
            // A number that cannot be listed, as a negative one, is still a number and no name.
            if text.parse::<f64>().is_ok() {
                format!("unknown_{text}")
            } else {
                text.to_owned()
            }
        };
        Some(Named {
            known: name.is_some(),
            name: name.map_or_else(|| unlisted().into(), Cow::Borrowed),
        })
    }

    fn number(&self, text: &str) -> Option<u16> {
        let text = present(text)?;
        match count(text) {
            Ok(Some(number)) => u16::try_from(number).ok(),
            _ => self.find(text),
        }
    }

    fn name(&self, number: u16) -> Option<&'static str> {
        self.names
            .iter()
            .find(|(listed, _)| *listed == number)
            .map(|(_, name)| *name)
    }

    fn find(&self, text: &str) -> Option<u16> {
        // Nothing that is cut off is a name, and folding stays cheap whatever an answer holds.
        if bounded(text).len() < text.len() {
            return None;
        }
        let word = fold(text);
        let folded = self.folded.get_or_init(|| self.fold_all());
        folded
            .get(&word)
            .or_else(|| folded.get(word.strip_prefix(&fold(self.prefix))?))
            .copied()
    }

    fn fold_all(&self) -> HashMap<String, u16> {
        self.names
            .iter()
            .chain(self.synonyms)
            .map(|(number, name)| (fold(name), *number))
            .collect()
    }
}

/// What two spellings of one name have in common: letters and digits in lower case, without "and" and a plural s.
fn fold(name: &str) -> String {
    let mut folded: String = name
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.eq_ignore_ascii_case("and"))
        .flat_map(str::chars)
        .flat_map(char::to_lowercase)
        .collect();
    if folded.ends_with('s') {
        folded.pop();
    }
    folded
}

fn bounded(text: &str) -> &str {
    let end = text.char_indices().nth(MAX_NAME_CHARS);
    end.and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    /// The lists as the reference writes them; its 17–19 stand for three.
    const JOB_TYPES: &str = "0 Microsoft 365 Scan · 7 Microsoft 365 · 10 Google Workspace Scan · 11 Google Workspace · \
        12 IaaS + PaaS · 15 Salesforce · 16 Dynamics 365";
    const JOB_MODULES: &str = "0 None · 8 Archiver · 10 Retention · 302 SharePoint Online · 303 Exchange Online · \
        304 Microsoft 365 Groups · 305 OneDrive · 306 Project Online · 307 Exchange Online Public Folder · \
        308 Microsoft Teams · 309 Teams Chat · 310 Power BI · 311 Power Automate · 312 Power Apps · \
        355 Cloud Backup for Azure · 356 Azure Virtual Machine · 357 Disk · 358 Microsoft Entra ID · 359 Storage · \
        360 Admin Portal Settings · 361 Amazon EC2 · 362 Native Azure SQL Backup Monitoring · 363 Dev Ops · \
        364 Microsoft Entra ID B2C · 365 Azure SQL Backup · 366 Google Virtual Machine Instance · \
        367 Azure VMware Solution · 368 Microsoft SQL Server in Azure VM · 369 Google Cloud Storage · 370 Cosmos DB · \
        371 Azure PostgreSQL · 401 Dynamics 365 · 402 Viva Engage · 501 Gmail · 502 Calendar · 503 Contacts · \
        504 Drive · 505 Shared Drives · 506 Google Classroom · 507 Chat · 508 Google Directory · \
        550 Dynamics CRM Backup · 551 Dynamics Unified Operations Backup";
    const CONTAINER_TYPES: &str = "0 Site Collection · 1 Mailbox · 2 OneDrive · 5 Microsoft 365 Group · \
        6 Project Online · 7 Public Folder · 9 Channel · 10 User · 11 None Unified Group · \
        12 Power Platform Environment · 13 Power Platform Connection · 14 Power Apps · 15 Power Automate · \
        16 Power BI Workspace · 17 Active Directory Mailbox · 18 Active Directory User · 19 Active Directory Group · \
        20 Power Platform Solution · 21 Power Copilot Studio · 22 Power Page · 23 Loop Container · 24 SharePoint Agent · \
        25 Azure AI Foundry Agent · 100 Google User · 101 Google Shared Drive · 102 Google Classroom · \
        103 Google Mailbox · 104 Google Group · 105 Google Vault Matter";

    fn listed(reference: &'static str) -> Vec<Entry> {
        reference
            .split(" · ")
            .map(|entry| entry.split_once(' ').unwrap())
            .map(|(number, name)| (number.parse().unwrap(), name))
            .collect()
    }

    fn known(name: &'static str) -> Option<Named> {
        Some(Named {
            name: name.into(),
            known: true,
        })
    }

    fn unknown(name: &str) -> Option<Named> {
        Some(Named {
            name: name.to_owned().into(),
            known: false,
        })
    }

    #[test]
    fn every_number_and_name_of_the_reference() {
        for (table, reference) in [
            (&SERVICES, JOB_TYPES),
            (&MODULES, JOB_MODULES),
            (&OBJECT_TYPES, CONTAINER_TYPES),
        ] {
            let reference = listed(reference);
            assert_eq!(table.names, reference);
            for (number, name) in reference {
                for text in [
                    number.to_string(),
                    format!(" {number}.0 "),
                    name.to_owned(),
                    name.to_uppercase(),
                    name.replace(' ', ""),
                    name.replace(' ', "-"),
                    format!(" {}s ", name.trim_end_matches(['s', 'S'])),
                ] {
                    assert_eq!(table.read(&text), known(name), "{text:?}");
                    assert_eq!(table.number(&text), Some(number), "{text:?}");
                }
            }
        }
    }

    #[test]
    fn no_two_spellings_collide() {
        for table in [&SERVICES, &MODULES, &OBJECT_TYPES] {
            let spellings = table.names.len() + table.synonyms.len();
            assert_eq!(table.fold_all().len(), spellings);
            for (number, synonym) in table.synonyms {
                assert_eq!(table.read(synonym), known(table.name(*number).unwrap()));
            }
        }
    }

    #[test]
    fn spellings_of_a_service() {
        for (text, name) in [
            ("IaaS PaaS", "IaaS + PaaS"),
            ("IaaS and PaaS", "IaaS + PaaS"),
            ("IaaS & PaaS", "IaaS + PaaS"),
            ("IaaS+PaaS", "IaaS + PaaS"),
            ("Cloud Backup for IaaS + PaaS", "IaaS + PaaS"),
            ("Cloud Backup for IaaS PaaS", "IaaS + PaaS"),
            ("Cloud Backup for Microsoft 365", "Microsoft 365"),
            ("cloud backup for microsoft365", "Microsoft 365"),
            ("Cloud Backup for Office 365", "Microsoft 365"),
            ("Office 365", "Microsoft 365"),
            ("Cloud Backup for Google Workspace", "Google Workspace"),
            ("Cloud Backup for Salesforce®", "Salesforce"),
            ("Cloud Backup for Dynamics 365", "Dynamics 365"),
        ] {
            assert_eq!(service(text), known(name), "{text:?}");
        }
        for text in [
            "Cloud Backup for",
            "Cloud Backup for Azure",
            "Fly",
            "Insights",
            "+",
            "s",
        ] {
            assert_eq!(service(text), unknown(text), "{text:?}");
        }
    }

    #[test]
    fn spellings_of_a_module() {
        for (text, name) in [
            ("Microsoft 365 Group", "Microsoft 365 Groups"),
            ("Office 365 Group", "Microsoft 365 Groups"),
            ("Exchange", "Exchange Online"),
            ("SharePoint", "SharePoint Online"),
            ("Teams", "Microsoft Teams"),
            ("TeamsChat", "Teams Chat"),
            ("Exchange Online Public Folders", "Exchange Online Public Folder"),
            ("Shared Drive", "Shared Drives"),
            ("Contact", "Contacts"),
            ("Cloud Backup for Azure", "Cloud Backup for Azure"),
            ("DevOps", "Dev Ops"),
        ] {
            assert_eq!(module(text), known(name), "{text:?}");
        }
    }

    #[test]
    fn spellings_of_an_object_type() {
        assert_eq!(object_type("SiteCollection"), known("Site Collection"));
        assert_eq!(object_type("Mailboxes"), unknown("Mailboxes"));
        assert_eq!(object_type("Microsoft 365 Groups"), known("Microsoft 365 Group"));
        assert_eq!(object_type("Non-Unified Group"), known("None Unified Group"));
    }

    #[test]
    fn what_is_not_listed_is_not_lost() {
        assert_eq!(module("999"), unknown("unknown_999"));
        assert_eq!(module("70000"), unknown("unknown_70000"));
        assert_eq!(service("8"), unknown("unknown_8"));
        assert_eq!(object_type("3"), unknown("unknown_3"));
        assert_eq!(module("-1"), unknown("unknown_-1"));
        assert_eq!(module("303.5"), unknown("unknown_303.5"));
        assert_eq!(module(" Quantum Backup "), unknown("Quantum Backup"));
        assert_eq!(module("???"), unknown("???"));
    }

    #[test]
    fn a_long_word_is_cut_between_characters() {
        let long = "é".repeat(MAX_NAME_CHARS + 1);
        assert_eq!(module(&long), unknown(&"é".repeat(MAX_NAME_CHARS)));
        // What is cut off may not make a name of the rest.
        let hidden = format!("Disk{}x", "-".repeat(MAX_NAME_CHARS));
        assert!(!module(&hidden).unwrap().known);
    }

    #[test]
    fn numbers_for_requests() {
        assert_eq!(service_number("IaaS PaaS"), Some(12));
        assert_eq!(service_number("Microsoft 365"), Some(7));
        assert_eq!(service_number("99"), Some(99));
        assert_eq!(module_number("exchange online"), Some(303));
        assert_eq!(module_number("999"), Some(999));
        for text in ["", "N/A", "70000", "-1", "Quantum Backup"] {
            assert_eq!(module_number(text), None, "{text:?}");
        }
    }

    #[test]
    fn words_of_the_first_generation() {
        let services = [
            "Microsoft 365",
            "Google Workspace",
            "IaaS PaaS",
            "Dynamics 365",
            "Salesforce",
        ];
        for word in services {
            let number = service_number(word).unwrap();
            assert_eq!(first_generation_service(number), Some(word));
        }
        let supported = (0..=u16::MAX).filter_map(first_generation_service);
        assert_eq!(supported.count(), services.len());

        assert_eq!(first_generation_module(303), Some("Exchange Online"));
        assert_eq!(first_generation_module(0), None);
        assert_eq!(first_generation_module(999), None);
    }

    proptest! {
        #[test]
        fn any_name_is_bounded_and_reads_as_itself(text in any::<String>()) {
            for read in [service, module, object_type] {
                let Some(named) = read(&text) else {
                    prop_assert!(present(&text).is_none());
                    continue;
                };
                prop_assert!(named.name.chars().count() <= MAX_NAME_CHARS);
                prop_assert!(!named.name.is_empty());
                if named.known {
                    prop_assert_eq!(read(&named.name), Some(named.clone()));
                }
            }
        }

        #[test]
        fn any_number_comes_through(number in 0_u64..1 << 53) {
            let named = module(&number.to_string()).unwrap();
            let listed = listed(JOB_MODULES).into_iter().find(|(n, _)| u64::from(*n) == number);
            match listed {
                Some((_, name)) => prop_assert_eq!(named, known(name).unwrap()),
                None => prop_assert_eq!(named, unknown(&format!("unknown_{number}")).unwrap()),
            }
        }
    }
}
