use proptest::prelude::*;

use super::*;

/// Lists from the vendor's reference, except module 301, which is missing there.
const JOB_TYPES: &str = "0 Microsoft 365 Scan · 7 Microsoft 365 · 10 Google Workspace Scan · 11 Google Workspace · \
        12 IaaS + PaaS · 15 Salesforce · 16 Dynamics 365";
const JOB_MODULES: &str = "0 None · 8 Archiver · 10 Retention · 301 Salesforce · 302 SharePoint Online · 303 Exchange Online · \
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

fn listed(reference: &'static str) -> Vec<NumberedName> {
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
fn numbers_and_names_match_the_reference() {
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
                assert_eq!(table.parse(&text), known(name), "{text:?}");
                assert_eq!(table.number(&text), Some(number), "{text:?}");
            }
        }
    }
}

#[test]
fn spellings_do_not_collide() {
    for table in [&SERVICES, &MODULES, &OBJECT_TYPES] {
        let spellings = table.names.len() + table.synonyms.len();
        assert_eq!(table.fold_all().len(), spellings);
        for (number, synonym) in table.synonyms {
            assert_eq!(table.parse(synonym), known(table.name(*number).unwrap()));
        }
    }
}

#[test]
fn services_are_recognized_in_every_spelling() {
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
fn modules_are_recognized_in_every_spelling() {
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
fn object_types_are_recognized_in_every_spelling() {
    assert_eq!(object_type("SiteCollection"), known("Site Collection"));
    assert_eq!(object_type("Mailboxes"), unknown("Mailboxes"));
    assert_eq!(object_type("Microsoft 365 Groups"), known("Microsoft 365 Group"));
    assert_eq!(object_type("Non-Unified Group"), known("None Unified Group"));
}

#[test]
fn unlisted_names_are_kept() {
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
fn long_word_is_truncated_between_characters() {
    let long = "é".repeat(MAX_NAME_CHARS + 1);
    assert_eq!(module(&long), unknown(&"é".repeat(MAX_NAME_CHARS)));
    // A truncated word must not match a shorter name.
    let hidden = format!("Disk{}x", "-".repeat(MAX_NAME_CHARS));
    assert!(!module(&hidden).unwrap().known);
}

#[test]
fn names_are_mapped_to_the_numbers_in_requests() {
    assert_eq!(service_number("IaaS PaaS"), Some(12));
    assert_eq!(service_number("Microsoft 365"), Some(7));
    assert_eq!(service_number("99"), Some(99));
    assert_eq!(module_number("exchange online"), Some(303));
    assert_eq!(module_number("999"), Some(999));
    assert_eq!(module_number("unknown_999"), Some(999));
    for text in ["", "N/A", "70000", "-1", "Quantum Backup"] {
        assert_eq!(module_number(text), None, "{text:?}");
    }
}

#[test]
fn v1_requests_use_the_words_of_v1() {
    let services = [
        "Microsoft 365",
        "Google Workspace",
        "IaaS PaaS",
        "Dynamics 365",
        "Salesforce",
    ];
    for word in services {
        let number = service_number(word).unwrap();
        assert_eq!(v1_service_word(number), Some(word));
    }
    let supported = (0..=u16::MAX).filter_map(v1_service_word);
    assert_eq!(supported.count(), services.len());

    assert_eq!(v1_module_word(303), Some("Exchange Online"));
    assert_eq!(v1_module_word(0), None);
    assert_eq!(v1_module_word(999), None);
}

proptest! {
    #[test]
    fn names_are_limited_and_parse_to_themselves(text in any::<String>()) {
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
    fn numbers_are_mapped_to_names_in_the_reference(number in 0_u64..1 << 53) {
        let named = module(&number.to_string()).unwrap();
        let listed = listed(JOB_MODULES).into_iter().find(|(n, _)| u64::from(*n) == number);
        match listed {
            Some((_, name)) => prop_assert_eq!(named, known(name).unwrap()),
            None => prop_assert_eq!(named, unknown(&format!("unknown_{number}")).unwrap()),
        }
    }
}
