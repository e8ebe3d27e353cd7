//! Numbers and names in the vendor's reference, such as those of services, modules and container object types. All
//! known spellings of a name are mapped to the vendor's current name.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::{count, present};

/// Maximum length of a name in a response, in characters. The longest name in the reference has 34 characters.
const MAX_NAME_CHARS: usize = 128;

/// Identifies a customer's module or, if the module has backup scopes, one backup scope. Keys are ordered by service,
/// module and scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ModuleKey {
    /// Name of the service.
    pub service: Cow<'static, str>,
    /// Name of the module.
    pub module: Cow<'static, str>,
    /// Backup scope, if the module has scopes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

impl ModuleKey {
    /// Returns the name of the module, with its backup scope if it has one.
    pub fn name(&self) -> Cow<'_, str> {
        match &self.scope {
            Some(scope) => format!("{} / {scope}", self.module).into(),
            None => Cow::Borrowed(&self.module),
        }
    }
}

/// A name for use as a label value, and whether it is in the reference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Named {
    /// The vendor's current name. For an unlisted number, this is `unknown_<n>`, and for any other unknown text, the
    /// received text, truncated if too long.
    pub name: Cow<'static, str>,
    /// Whether the reference lists the name.
    pub known: bool,
}

/// Parses a service (`jobType`, `serviceType`, `service`): a number, or a name in any spelling. `None` if absent.
pub fn service(text: &str) -> Option<Named> {
    SERVICES.parse(text)
}

/// Prefix of the names for numbers that are missing from the reference, as in `unknown_399`.
pub const UNKNOWN_NUMBER: &str = "unknown_";

/// Module name of jobs that do not belong to a module, such as scans, and of services without modules.
pub const NO_MODULE: &str = "None";

/// Parses a module (`jobModule`, `serviceModule`): a number, or a name in any spelling. `None` if absent.
pub fn module(text: &str) -> Option<Named> {
    MODULES.parse(text)
}

/// Parses the object type of a container: a number, or a name in any spelling. `None` if absent.
pub fn object_type(text: &str) -> Option<Named> {
    OBJECT_TYPES.parse(text)
}

/// Returns the number of a service, given its name or number. A number need not be in the reference.
pub fn service_number(text: &str) -> Option<u16> {
    SERVICES.number(text)
}

/// Returns the number of a module, given its name or number. A number need not be in the reference.
pub fn module_number(text: &str) -> Option<u16> {
    MODULES.number(text)
}

/// Returns whether a module, given by its current name, only does housekeeping and creates no restore points.
pub fn is_housekeeping(module: &str) -> bool {
    [8, 10].into_iter().any(|number| MODULES.name(number) == Some(module))
}

/// Returns the service that jobs of this type scan; `None` for other job types. `service` is the current name of the
/// job type.
pub fn scanned_service(service: &str) -> Option<&'static str> {
    match SERVICES.number(service) {
        Some(0) => SERVICES.name(7),
        Some(10) => SERVICES.name(11),
        _ => None,
    }
}

/// Returns the names of all services in the reference, excluding the job types for scans.
pub(super) fn service_names() -> impl Iterator<Item = &'static str> {
    SERVICES
        .names
        .iter()
        .map(|(_, name)| *name)
        .filter(|name| scanned_service(name).is_none())
}

/// Returns the names of all modules in the reference.
pub(super) fn module_names() -> impl Iterator<Item = &'static str> {
    MODULES.names.iter().map(|(_, name)| *name)
}

/// Returns the job type that scans a service's objects. Both names are the vendor's current ones.
pub fn scan_of_service(service: &str) -> Option<&'static str> {
    SERVICES
        .names
        .iter()
        .map(|(_, name)| *name)
        .find(|name| scanned_service(name) == Some(service))
}

/// Returns the word for a service in API v1 paths; `None` for a service that API v1 does not support.
pub fn v1_service_word(number: u16) -> Option<&'static str> {
    match number {
        7 => Some("Microsoft 365"),
        11 => Some("Google Workspace"),
        12 => Some("IaaS PaaS"),
        15 => Some("Salesforce"),
        16 => Some("Dynamics 365"),
        _ => None,
    }
}

/// Returns the number of the service to which a module belongs; `None` if the module's number does not determine the
/// service.
pub fn service_of_module(number: u16) -> Option<u16> {
    match number {
        302..=312 | 402 => Some(7),
        501..=508 => Some(11),
        355..=371 => Some(12),
        301 => Some(15),
        401 | 550 | 551 => Some(16),
        _ => None,
    }
}

/// Returns the word for a module in API v1 paths: the module's name. The module named `None` and unlisted numbers have
/// no word.
pub fn v1_module_word(number: u16) -> Option<&'static str> {
    (number != 0).then(|| MODULES.name(number)).flatten()
}

/// Parses the type of a tenant with seats into the name of its service. `None` if absent.
pub fn seat_service(text: &str) -> Option<Named> {
    SEAT_SERVICES.parse(text)
}

/// Returns the numbers of the tenant types that have seats, with the names of their services.
pub fn seat_services() -> impl Iterator<Item = (u16, &'static str)> {
    SEAT_SERVICES.names.iter().copied()
}

/// Parses the name of a module in a user's protection status. `None` if absent.
pub fn user_module(text: &str) -> Option<Named> {
    USER_MODULES.parse(text)
}

/// Parses the status of an object in a job report. `None` if absent.
pub fn report_status(text: &str) -> Option<Named> {
    REPORT_STATUSES.parse(text)
}

/// Returns the possible statuses of an object in a job report.
pub fn report_statuses() -> impl Iterator<Item = &'static str> {
    REPORT_STATUSES.names.iter().map(|(_, name)| *name)
}

/// Parses a baseline's status into its number; -1 for an unknown value, `None` if absent.
pub fn baseline_status(text: &str) -> Option<i16> {
    /// A second number that the reference lists for Restored.
    const SECOND_RESTORED: u16 = 19;
    present(text)?;
    let known = BASELINE_STATUSES.number(text).map(|number| match number {
        SECOND_RESTORED => 9,
        number => number,
    });
    let known = known.filter(|number| BASELINE_STATUSES.name(*number).is_some());
    Some(known.and_then(|number| i16::try_from(number).ok()).unwrap_or(-1))
}

/// "Job type" in the reference. In subscriptions, the names have a prefix.
static SERVICES: ReferenceTable = ReferenceTable::new(
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

/// "Job module" in the reference.
static MODULES: ReferenceTable = ReferenceTable::new(
    &[
        (0, "None"),
        (8, "Archiver"),
        (10, "Retention"),
        // Missing from the reference; observed only in Salesforce jobs.
        (301, "Salesforce"),
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

/// "Container object type" in the reference.
static OBJECT_TYPES: ReferenceTable = ReferenceTable::new(
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

/// Tenant types that have seats, with the names of their services.
static SEAT_SERVICES: ReferenceTable = ReferenceTable::new(
    &[
        (0, "Microsoft 365"),
        (1, "Salesforce"),
        (2, "Google Workspace"),
        (3, "Dynamics 365"),
    ],
    &[(0, "Office 365"), (2, "Google")],
    "",
);

/// Modules in a user's protection status.
static USER_MODULES: ReferenceTable = ReferenceTable::new(&[(0, "mailbox"), (2, "onedrive")], &[], "");

/// Statuses of an object in a job report.
static REPORT_STATUSES: ReferenceTable = ReferenceTable::new(
    &[
        (0, "success"),
        (1, "failed"),
        (2, "skipped"),
        (3, "filtered"),
        (4, "warning"),
    ],
    &[(0, "successful")],
    "",
);

/// Statuses of a tenant's baselines.
static BASELINE_STATUSES: ReferenceTable = ReferenceTable::new(
    &[
        (1, "Connected"),
        (2, "Deployed with exception"),
        (3, "Deploying"),
        (4, "Draft saved"),
        (5, "Deployment failed"),
        (6, "Expired"),
        (7, "Deployed"),
        (8, "Restore failed"),
        (9, "Restored"),
        (10, "Restored with exception"),
        (11, "Restoring"),
        (12, "Retrieving settings"),
        (13, "Review deployment"),
        (14, "Review restore"),
        (15, "Scheduled deployment"),
        (16, "Scheduled restore"),
        (17, "Settings retrieval failed"),
    ],
    &[],
    "",
);

type NumberedName = (u16, &'static str);

/// A list in the reference. `synonyms` contains alternative spellings that [`fold`] does not handle.
struct ReferenceTable {
    names: &'static [NumberedName],
    synonyms: &'static [NumberedName],
    /// Optional prefix of a name.
    prefix: &'static str,
    /// All names and synonyms, folded; created by the first lookup.
    folded: OnceLock<HashMap<String, u16>>,
}

impl ReferenceTable {
    const fn new(names: &'static [NumberedName], synonyms: &'static [NumberedName], prefix: &'static str) -> Self {
        Self {
            names,
            synonyms,
            prefix,
            folded: OnceLock::new(),
        }
    }

    fn parse(&self, text: &str) -> Option<Named> {
        let text = present(text)?;
        let name = self.number(text).and_then(|number| self.name(number));
        let unlisted = || match (count(text), bounded(text)) {
            (Ok(Some(number)), _) => format!("{UNKNOWN_NUMBER}{number}"),
            // A number that cannot be in the reference, such as a negative number, is not a name.
            (_, text) if text.parse().is_ok_and(f64::is_finite) => format!("{UNKNOWN_NUMBER}{text}"),
            (_, text) => text.to_owned(),
        };
        Some(Named {
            known: name.is_some(),
            name: name.map_or_else(|| unlisted().into(), Cow::Borrowed),
        })
    }

    fn number(&self, text: &str) -> Option<u16> {
        let text = present(text)?;
        match count(text.strip_prefix(UNKNOWN_NUMBER).unwrap_or(text)) {
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
        // Text beyond the maximum length cannot be a name, and folding it would be expensive.
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

/// Returns a form that is the same for similar spellings of a name: its letters and digits in lower case, without the
/// word "and" and without a final s.
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
