//! The words of the API, written down a second time from its reference, and names as odd as real ones.

/// A job type: its number and its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JobType {
    pub(crate) number: u16,
    /// The word of the first generation's answers and paths.
    pub(crate) word: &'static str,
}

/// Every job type of the reference.
pub(crate) const JOB_TYPES: &[JobType] = &[
    JobType {
        number: 0,
        word: "Microsoft 365 Scan",
    },
    JobType {
        number: 7,
        word: "Microsoft 365",
    },
    JobType {
        number: 10,
        word: "Google Workspace Scan",
    },
    JobType {
        number: 11,
        word: "Google Workspace",
    },
    JobType {
        number: 12,
        word: "IaaS PaaS",
    },
    JobType {
        number: 15,
        word: "Salesforce",
    },
    JobType {
        number: 16,
        word: "Dynamics 365",
    },
];

/// Every job module of the reference, by number.
pub(crate) const MODULES: &[(u16, &str)] = &[
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
];

/// A module that the reference does not list, because the list grows: its number and its word.
pub(crate) const UNLISTED_MODULE: (u16, &str) = (399, "Loop Backup");

/// The container types that scan profiles of Microsoft 365 hold: number and first-generation word.
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

/// Organization names, the plain and the odd, in the order in which customers get them.
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

/// Countries as the API spells them.
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

/// The organization's name of the customer with this index. The odd ones come first, then numbered ones.
pub(crate) fn organization(index: usize) -> String {
    match ORGANIZATIONS.get(index) {
        Some(name) => (*name).to_owned(),
        None => format!("Example Organization {index}"),
    }
}

/// The first-generation word of a job type; a number that is not on the list as it is.
pub(crate) fn job_type_word(number: u16) -> String {
    JOB_TYPES
        .iter()
        .find(|job_type| job_type.number == number)
        .map_or_else(|| number.to_string(), |job_type| job_type.word.to_owned())
}

/// The first-generation word of a job module; a number that is not on the list as it is.
pub(crate) fn module_word(number: u16) -> String {
    MODULES
        .iter()
        .chain([&UNLISTED_MODULE])
        .find(|(listed, _)| *listed == number)
        .map_or_else(|| number.to_string(), |(_, word)| (*word).to_owned())
}

/// The number of a job type's first-generation word.
pub(crate) fn job_type_number(word: &str) -> Option<u16> {
    JOB_TYPES
        .iter()
        .find(|job_type| job_type.word == word)
        .map(|job_type| job_type.number)
}

/// The number of a job module's first-generation word.
pub(crate) fn module_number(word: &str) -> Option<u16> {
    MODULES
        .iter()
        .chain([&UNLISTED_MODULE])
        .find(|(_, listed)| *listed == word)
        .map(|(number, _)| *number)
}

/// The first-generation word of a container's object type.
pub(crate) fn object_type_word(number: u16) -> String {
    OBJECT_TYPES
        .iter()
        .find(|(listed, _)| *listed == number)
        .map_or_else(|| number.to_string(), |(_, word)| (*word).to_owned())
}

/// The first-generation word of a customer's status.
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

/// The first-generation word of a job's status.
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
    fn words_lead_back_to_their_numbers() {
        for job_type in JOB_TYPES {
            assert_eq!(job_type_number(&job_type_word(job_type.number)), Some(job_type.number));
        }
        for (number, _) in MODULES.iter().chain([&UNLISTED_MODULE]) {
            assert_eq!(module_number(&module_word(*number)), Some(*number));
        }
        assert_eq!(module_number("Mainframe"), None);
        assert_eq!(module_word(777), "777");
    }

    #[test]
    fn two_customers_share_a_name() {
        assert_eq!(organization(11), organization(12));
        assert_ne!(organization(40), organization(41));
    }
}
