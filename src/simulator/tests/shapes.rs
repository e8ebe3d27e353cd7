//! Tests that responses have the same format as those of the real API.

use super::*;

fn realistic() -> Settings {
    Settings {
        hostile: false,
        customers: 75,
        speed: 60.0,
        ..fixed_settings()
    }
}

async fn jobs_of(partner: &Partner, nth: usize) -> Vec<Value> {
    let id = partner.handle.with_world(|world| world.customers[nth].id.clone());
    let path = format!("/customers/{id}/avpt-products/jobs/batch?pageSize=100");
    rows(&partner.v3(&path).await).to_vec()
}

#[tokio::test]
async fn job_rows_have_numeric_statuses_and_text_counts() {
    let partner = Partner::with_token(realistic()).await;
    for nth in 0..12 {
        for row in jobs_of(&partner, nth).await {
            for (name, value) in row.as_object().unwrap() {
                let is_number = matches!(name.as_str(), "jobType" | "jobModule" | "status");
                assert_eq!(value.is_number(), is_number, "{name}: {value}");
                assert_eq!(value.is_string(), !is_number, "{name}: {value}");
            }
            assert_eq!(row.as_object().unwrap().len(), 15);
        }
    }
    assert!(jobs_of(&partner, 10).await.is_empty());
}

#[tokio::test]
async fn rows_without_a_run_have_several_formats() {
    let partner = Partner::with_token(realistic()).await;
    let mut formats = BTreeSet::new();
    for nth in 0..30 {
        for row in jobs_of(&partner, nth).await {
            let (job_type, status) = (row["jobType"].as_i64().unwrap(), row["status"].as_i64().unwrap());
            let absent = |name: &str| row[name] == "N/A";
            if matches!(job_type, 0 | 10) {
                let texts = row.as_object().unwrap().values().filter(|value| value.is_string());
                assert!(texts.into_iter().all(|text| text == "N/A"), "{row}");
                formats.insert("scan");
            } else if matches!(status, 6 | 12 | 13) {
                assert!(absent("jobId") && absent("startTime") && absent("endTime") && absent("jobDuration"));
                assert_eq!((text(&row, "totalCount"), text(&row, "backupSize")), ("0", "0 GB"));
                assert_eq!(absent("lastModifyTime"), status == 13);
                formats.insert(match status {
                    6 => "pending",
                    12 => "disabled",
                    _ => "not started",
                });
            } else if status == 2 && absent("jobId") {
                assert!(absent("startTime") && !absent("lastModifyTime"));
                formats.insert("nothing to back up");
            } else if text(&row, "jobDuration") == "0 S" {
                assert_eq!(row["startTime"], row["endTime"]);
                formats.insert("a run without objects");
            }
            if job_type == 7 {
                assert_eq!((text(&row, "backupSize"), text(&row, "name")), ("0 GB", "N/A"));
            }
        }
    }
    let all = [
        "a run without objects",
        "disabled",
        "not started",
        "nothing to back up",
        "pending",
        "scan",
    ];
    assert_eq!(formats, BTreeSet::from(all));
}

#[tokio::test]
async fn scopes_of_a_module_share_their_last_modification() {
    let partner = Partner::with_token(realistic()).await;
    let rows = jobs_of(&partner, 1).await;
    let directories: Vec<&Value> = rows.iter().filter(|row| row["jobModule"] == 358).collect();
    let of = |name: &str| {
        directories
            .iter()
            .map(|row| text(row, name))
            .collect::<BTreeSet<&str>>()
    };
    assert_eq!((of("name").len(), of("lastModifyTime").len()), (3, 1));
    assert!(of("endTime").len() > 1);
}

#[tokio::test]
async fn protected_data_has_tenants_in_v3_only() {
    let partner = Partner::with_token(realistic()).await;
    let id = partner.handle.with_world(|world| world.customers[1].id.clone());
    let v3 = partner
        .v1(&format!("{V3}/customers/{id}/cloud-backup-m365/overview"))
        .await;
    let v1 = partner.v1(&format!("/partner/customers/{id}/protected")).await;
    assert_eq!((rows(&v3).len(), rows(&v1).len()), (48, 12));
    let row = &rows(&v3)[0];
    assert!(row["tenantId"].is_string() && text(row, "lastRunTime").ends_with('Z'));
    assert_eq!(text(row, "lastRunTime").find('/'), Some(2));
    assert!(rows(&v1)[0].get("tenantId").is_none());
    let sum = |rows: &[Value]| {
        rows.iter()
            .map(|row| row["totalProtectedObjects"].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(sum(rows(&v3)), sum(rows(&v1)));
    let id = partner.handle.with_world(|world| world.customers[0].id.clone());
    let v3 = partner
        .v1(&format!("{V3}/customers/{id}/cloud-backup-m365/overview"))
        .await;
    let chat = rows(&v3)
        .iter()
        .find(|row| row["serviceModule"] == "Microsoft Teams chat")
        .unwrap();
    assert!(
        chat["totalScannedObjects"].as_u64() > Some(0),
        "Teams chats must be listed, although they are not backed up"
    );
    assert_eq!(
        (&chat["totalProtectedObjects"], text(chat, "dataSizeStoredInAvePoint")),
        (&json!(0), "0 GB")
    );
}

#[tokio::test]
async fn subscriptions_are_strings_and_end_at_noon() {
    let partner = Partner::with_token(realistic()).await;
    let response = partner.v3("/customers/services/batch?pageSize=100").await;
    let products: Vec<&Value> = rows(&response)
        .iter()
        .flat_map(|row| row["products"].as_array().unwrap())
        .collect();
    for product in &products {
        assert!(product.as_object().unwrap().values().all(Value::is_string), "{product}");
        let end = text(product, "expirationDate");
        assert!(
            end.ends_with("T12:00:00Z") && end.len() == "12-31-2026T12:00:00Z".len(),
            "{end}"
        );
        assert_eq!(end.find('-'), Some(2));
    }
    let backups = products
        .iter()
        .filter(|product| text(product, "service").starts_with("Cloud Backup for"));
    assert!(backups.count() < products.len() * 2 / 3);
}

#[tokio::test]
async fn responses_have_a_request_id() {
    let partner = Partner::with_token(fixed_settings()).await;
    let one = partner.get("/partner/customers").await;
    let unauthorized = partner.try_get("none", "/partner/customers").await.unwrap();
    assert_eq!(unauthorized.status(), 401);
    let id = |response: &Response| response.headers()["request-id"].to_str().unwrap().to_owned();
    assert_ne!(id(&one), id(&unauthorized));
    partner.fault(FaultKind::Status { code: 503, body: None });
    assert!(!id(&partner.get("/partner/customers").await).is_empty());
}
