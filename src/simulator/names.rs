//! The API's words, most of them copied from its reference, and names of organizations and countries.

mod organizations;

pub(crate) use organizations::{domain_word, organization};

/// Every job type in the reference, with its number and its word in API v1 responses and paths.
pub(crate) const JOB_TYPES: &[(u16, &str)] = &[
    (0, "Microsoft 365 Scan"),
    (7, "Microsoft 365"),
    (10, "Google Workspace Scan"),
    (11, "Google Workspace"),
    (12, "IaaS PaaS"),
    (15, "Salesforce"),
    (16, "Dynamics 365"),
];

/// Every job module in the reference, and the Salesforce module, each with its number and its word in API v1.
pub(crate) const MODULES: &[(u16, &str)] = &[
    (0, "None"),
    (8, "Archiver"),
    (10, "Retention"),
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
];

/// Number and name of a module that is not in the reference yet.
pub(crate) const UNLISTED_MODULE: (u16, &str) = (399, "Loop Backup");

/// Object types of containers in scan profiles, each with its number and its word in API v1.
pub(crate) const OBJECT_TYPES: &[(u16, &str)] = &[
    (0, "SiteCollection"),
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
];

/// Plain and unusual organization names, in the order of the customers.
const ORGANIZATIONS: &[&str] = &[
    "Contoso Ltd",
    "O'Reilly & Sons",
    "Müller GmbH & Co. KG",
    "The \"Quoted\" Company",
    "株式会社サンプル",
    "شركة المثال",
    "Rocket 🚀 Labs",
    " Leading and trailing ",
    "Back\\slash Industries",
    "{{ .Values.customer }}",
    "<b>Bold</b> Ventures",
    "Northwind Traders",
    "Northwind Traders",
    "Café Ærøskøbing A/S",
    "示例科技有限公司",
    "한국예시 주식회사",
    "ООО «Пример»",
    "Fabrikam, Inc.",
    "50% Off {brackets} $HOME",
    "A very long name of an association for the advancement, promotion, protection and continued development of regional craft, commerce and cooperation between municipalities, founded 1872, registered society, section North-East, department of administration",
    "Tailspin Toys",
    "Wide World Importers",
    "N/A Consulting",
    "null",
    "Łódź Ćwiczenia Sp. z o.o.",
    "Adventure Works; DROP TABLE customers",
    "Ünïcödé Ŝtudio",
    "בית לדוגמה",
    "Proseware #1",
    "10027",
];

/// Countries in the API's spelling.
pub(crate) const COUNTRIES: &[&str] = &[
    "Germany",
    "United States",
    "Vietnam",
    "Côte d'Ivoire",
    "Japan",
    "United Kingdom",
    "France",
    "N/A",
    "Curaçao",
    "Saudi Arabia",
    "Poland",
    "Australia",
];

/// Returns the name of the organization with this index: first the listed names, then numbered names.
pub(crate) fn hostile_organization(index: usize) -> String {
    match ORGANIZATIONS.get(index) {
        Some(name) => (*name).to_owned(),
        None => format!("Example Organization {index}"),
    }
}

/// Returns the word for a number, or the number itself if it is not listed.
fn word<'a>(mut words: impl Iterator<Item = &'a (u16, &'a str)>, number: u16) -> String {
    words
        .find(|(listed, _)| *listed == number)
        .map_or_else(|| number.to_string(), |(_, word)| (*word).to_owned())
}

fn number<'a>(mut words: impl Iterator<Item = &'a (u16, &'a str)>, word: &str) -> Option<u16> {
    words.find(|(_, listed)| *listed == word).map(|(number, _)| *number)
}

fn modules() -> impl Iterator<Item = &'static (u16, &'static str)> {
    MODULES.iter().chain([&UNLISTED_MODULE])
}

/// Returns the API v1 word for a job type, or the number itself if it is not listed.
pub(crate) fn job_type_word(number: u16) -> String {
    word(JOB_TYPES.iter(), number)
}

/// Returns the API v1 word for a job module, or the number itself if it is not listed.
pub(crate) fn module_word(number: u16) -> String {
    word(modules(), number)
}

/// Returns a module's word in rows of protected data, which sometimes differs from the word in job lists.
pub(crate) fn protected_word(number: u16) -> String {
    match number {
        304 => "Microsoft 365 Group".to_owned(),
        307 => "Exchange Online Public Folders".to_owned(),
        309 => "Microsoft Teams chat".to_owned(),
        _ => module_word(number),
    }
}

/// Returns the job type for an API v1 word.
pub(crate) fn job_type_number(word: &str) -> Option<u16> {
    number(JOB_TYPES.iter(), word)
}

/// Returns the job module for an API v1 word.
pub(crate) fn module_number(word: &str) -> Option<u16> {
    number(modules(), word)
}

/// Returns the API v1 word for a container's object type.
pub(crate) fn object_type_word(number: u16) -> String {
    word(OBJECT_TYPES.iter(), number)
}

/// Returns the API v1 word for a customer's status.
pub(crate) fn customer_status_word(number: i64) -> String {
    match number {
        0 => "N/A",
        1 => "Working",
        2 => "Failed",
        3 => "Waiting for configuration",
        4 => "Multiple issues found",
        5 => "Finished with exception",
        6 => "No backup updates",
        other => return other.to_string(),
    }
    .to_owned()
}

/// Returns the API v1 word for a job's status.
pub(crate) fn job_status_word(number: i64) -> String {
    match number {
        0 => "None",
        1 => "In Progress",
        2 => "Finished",
        3 => "Failed",
        4 => "Finished with Exception",
        5 => "Skipped",
        6 => "Pending",
        7 => "Failed to Start",
        8 => "Canceled",
        9 => "Rejected",
        10 => "Stopped",
        11 => "Not Scanned",
        12 => "Disabled",
        13 => "Not Finished",
        14 => "Waiting for Configuration",
        other => return other.to_string(),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_mapped_back_to_their_numbers() {
        for (number, _) in JOB_TYPES {
            assert_eq!(job_type_number(&job_type_word(*number)), Some(*number));
        }
        for (number, _) in MODULES.iter().chain([&UNLISTED_MODULE]) {
            assert_eq!(module_number(&module_word(*number)), Some(*number));
        }
        assert_eq!(module_number("Mainframe"), None);
        assert_eq!(module_word(777), "777");
    }

    #[test]
    fn two_customers_share_a_name() {
        assert_eq!(hostile_organization(11), hostile_organization(12));
        assert_ne!(hostile_organization(40), hostile_organization(41));
    }
}
